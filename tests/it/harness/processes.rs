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

/// Memory that a process has to itself, KiB: what it has allocated or changed, swapped or not. Not the sum of `Private_`: to that belong
/// unchanged pages of the executable, which are the kernel's cache of a file that the daemon and all launchers map. They count as private while
/// nobody else happens to map them, and as dirty until a fresh build is on disk, so that a launcher of 0.2 MiB has 2.5 MiB when it is alone.
pub(crate) fn private_kib(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let field = |name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
    };
    field("Anonymous:") + field("Swap:")
}

/// Signals a process that the test has started.
pub(crate) fn signal(pid: i32, signal: i32) {
    // SAFETY: kill takes no pointers.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "cannot signal {pid}");
}
