//! What the kernel says of this process, under the names that every Prometheus client library gives it.

use std::{fs, sync::OnceLock, time::Duration};

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};

/// Of a tick in which `/proc` tells start times (USER_HZ): a hundredth of a second on every Linux that Rust has a standard library for.
const TICK_MS: u64 = 10;

/// What could be read.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Process {
    pub(super) cpu_seconds: Option<f64>,
    pub(super) resident_bytes: Option<u64>,
    pub(super) virtual_bytes: Option<u64>,
    pub(super) threads: Option<u64>,
    pub(super) open_fds: Option<u64>,
    /// `None` also when there is no limit.
    pub(super) max_fds: Option<u64>,
    /// Since 1970.
    pub(super) start_seconds: Option<f64>,
}

impl Process {
    /// Reads some files of procfs, which is memory.
    pub(super) fn read() -> Self {
        static START: OnceLock<Option<f64>> = OnceLock::new();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let seconds = |time: nix::sys::time::TimeVal| {
            let (whole, micros) = (u64::try_from(time.tv_sec()).ok()?, u64::try_from(time.tv_usec()).ok()?);
            Some((Duration::from_secs(whole) + Duration::from_micros(micros)).as_secs_f64())
        };
        let used = getrusage(UsageWho::RUSAGE_SELF).ok();
        let open_file_limit = getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft);
        Self {
            cpu_seconds: used.and_then(|used| Some(seconds(used.user_time())? + seconds(used.system_time())?)),
            resident_bytes: field(&status, "VmRSS:").map(|kib| kib * 1024),
            virtual_bytes: field(&status, "VmSize:").map(|kib| kib * 1024),
            threads: field(&status, "Threads:"),
            // The directory that is read is itself open meanwhile.
            open_fds: fs::read_dir("/proc/self/fd").ok().map(|open| (open.count() as u64).saturating_sub(1)),
            max_fds: open_file_limit.filter(|limit| *limit != libc::RLIM_INFINITY),
            start_seconds: *START.get_or_init(|| {
                let stat = fs::read_to_string("/proc/self/stat").ok()?;
                started(&stat, &fs::read_to_string("/proc/stat").ok()?)
            }),
        }
    }
}

/// The first number behind a key of `/proc/self/status`.
fn field(status: &str, key: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
}

/// Field 22 of `/proc/self/stat`, counted behind the name, which may hold anything, on top of the time of the machine's start.
fn started(stat: &str, machine: &str) -> Option<f64> {
    let ticks: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let booted: u64 = machine.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some((Duration::from_secs(booted) + Duration::from_millis(ticks * TICK_MS)).as_secs_f64())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn names_may_hold_anything() {
        let stat = "7 (a) R 1 2) S 1 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 250 8 9";
        assert_eq!(started(stat, "cpu 1 2\nbtime 1000\n"), Some(1002.5));
        assert_eq!(started("7 (a) S 1", "btime 1000"), None);
        assert_eq!(field("VmSize:\t  12 kB\nVmRSS:\t   3 kB\nThreads:\t9\n", "VmRSS:"), Some(3));
        assert_eq!(field("VmRSS:\n", "VmRSS:"), None);
    }

    #[test]
    fn the_kernel_tells_of_this_process() {
        let seen = Process::read();
        assert!(seen.cpu_seconds.unwrap() >= 0.0);
        assert!(seen.resident_bytes.unwrap() > 1024 * 1024 && seen.virtual_bytes >= seen.resident_bytes);
        assert!(seen.threads.unwrap() >= 1);
        let _one_more = fs::File::open("/proc/self/status").unwrap();
        assert!(seen.open_fds.unwrap() >= 3);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
        let age = now - seen.start_seconds.unwrap();
        assert!((-1.5..86_400.0).contains(&age), "{age}");
    }
}
