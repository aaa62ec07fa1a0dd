//! What `/proc` says, for tests.

use std::{
    fs,
    time::{Duration, Instant},
};

/// How long any condition may take on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until a condition holds.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Ids of the processes that carry `HIVEKEEPER_LAUNCH=launch_id` and have not ended.
pub(crate) fn marked(launch_id: &str) -> Vec<i32> {
    let marker = format!("HIVEKEEPER_LAUNCH={launch_id}");
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environ.split(|byte| *byte == 0).any(|pair| pair == marker.as_bytes()) && state(*pid) != Some('Z')
        })
        .collect()
}

/// State letter of a process.
pub(crate) fn state(pid: i32) -> Option<char> {
    stat(pid)?.first()?.chars().next()
}

/// Fields of `/proc/PID/stat` from the state on.
pub(crate) fn stat(pid: i32) -> Option<Vec<String>> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(line.rsplit_once(") ")?.1.split(' ').map(str::to_owned).collect())
}

/// Memory that a process has allocated, KiB: anonymous pages, swapped or not, outside of mappings of files. Of the executable's own pages only those
/// are a process's own that hold relocated addresses, as many as the build has: 1.5 MiB in a debug build, which says nothing about the process.
pub(crate) fn allocated_kib(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let mut allocated = 0;
    let mut of_a_file = false;
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("Anonymous:" | "Swap:") if !of_a_file => allocated += words.next().unwrap().parse::<u64>().unwrap(),
            Some(field) if field.ends_with(':') => {}
            // ADDRESSES PERMISSIONS OFFSET DEVICE INODE [NAME]
            _ => of_a_file = words.nth(4).is_some_and(|name| name.starts_with('/')),
        }
    }
    allocated
}

/// Signals a process that the test has started.
pub(crate) fn signal(pid: i32, signal: i32) {
    // SAFETY: kill takes no pointers.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "cannot signal {pid}");
}
