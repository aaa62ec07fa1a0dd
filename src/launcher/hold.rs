//! `hivekeeper agent --hold RUN_DIR IDLE_MS`: lives as long as launchers do, and a while longer. It is the first process of a swarm's own
//! container, so the container goes when nobody leads an agent in it any more.
//!
//! A launcher that has its order listens on a socket in the run directory, and the kernel lists every listening socket of this network namespace
//! with the name that it was bound to. So files do not matter: a stale one counts for nothing, and a deleted one hides nobody. An agent can
//! make the container last longer, with a listening socket of such a name. To end it early it would have to kill this process, which an agent of
//! the same user can.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Write},
    os::unix::ffi::OsStrExt,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use super::{
    clock::Clock,
    files::{self, SOCKET_SUFFIX, plain},
    sys,
};

/// Between two looks: nothing against any lease, and next to no CPU.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Ended by a signal: what a shell says of SIGTERM, so that it is not taken for an idle container.
const EXIT_ASKED: u8 = 143;
/// Every listening socket: whose name, and that it listens.
const SOCKETS: &str = "/proc/net/unix";
/// The flag of a listening socket there, `__SO_ACCEPTCON`.
const LISTENS: &[u8] = b"00010000";
/// Columns in front of the name.
const COLUMNS: usize = 7;
/// Launch ids are UUIDs.
const LAUNCH_ID_LEN: usize = 36;
/// A line holds 7 numbers and a name of 108 bytes at most.
const LINE_LEN: usize = 256;

/// Waits until no launcher has been alive for `idle`.
pub(super) fn hold(run_dir: &Path, idle: Duration) -> Result<ExitCode, String> {
    let signals = sys::signals().map_err(|error| format!("cannot watch signals: {error}"))?;
    if !run_dir.is_dir() {
        return Err(format!("the run directory {} is not there", run_dir.display()));
    }
    if !files::is_listed(run_dir, LAUNCH_ID_LEN) {
        return Err(format!("the path of the run directory {} is too long", run_dir.display()));
    }
    let mut clock = Clock::new(Instant::now());
    let mut watch = Watch::new(clock.at(), idle);
    let mut blind = false;
    let mut woke = false;
    loop {
        // What can't be seen is taken for alive: the container then lasts too long, which its daemon can mend.
        let alive = any_launcher(run_dir).unwrap_or_else(|error| {
            if !std::mem::replace(&mut blind, true) {
                let _ = writeln!(io::stderr(), "hivekeeper agent: cannot read {SOCKETS}, so this goes on: {error}");
            }
            true
        });
        let Some(wait) = watch.look(clock.at(), alive, woke) else { return Ok(ExitCode::SUCCESS) };
        if sys::poll(&mut [sys::interest(&signals, libc::POLLIN)], wait).is_err() {
            // Out of memory: the loop must not spin.
            std::thread::sleep(wait);
        }
        woke = clock.turn(wait);
        while let Ok(Some(signal)) = signals.read_signal() {
            if signal.ssi_signo != libc::SIGCHLD.cast_unsigned() {
                return Ok(ExitCode::from(EXIT_ASKED));
            }
        }
    }
}

/// How long there has been no launcher.
struct Watch {
    idle: Duration,
    until: Instant,
    /// A gap has been forgiven since a launcher was last seen. Once only, as with a lease.
    forgiven: bool,
}

impl Watch {
    fn new(now: Instant, idle: Duration) -> Self {
        Self { idle, until: now + idle, forgiven: false }
    }

    /// When to look again; `None` when it is over. `woke`: this process has not run for a while, and who would have come could not.
    fn look(&mut self, now: Instant, alive: bool, woke: bool) -> Option<Duration> {
        if alive {
            self.until = now + self.idle;
            self.forgiven = false;
        } else if woke && !self.forgiven {
            self.forgiven = true;
            self.until = now + self.idle;
        }
        let left = self.until.saturating_duration_since(now);
        (!left.is_zero()).then_some(left.min(LOOK_INTERVAL))
    }
}

fn any_launcher(run_dir: &Path) -> io::Result<bool> {
    let mut sockets = BufReader::new(File::open(SOCKETS)?);
    let mut line = Vec::with_capacity(LINE_LEN);
    loop {
        line.clear();
        if sockets.read_until(b'\n', &mut line)? == 0 {
            return Ok(false);
        }
        if is_launcher(line.strip_suffix(b"\n").unwrap_or(&line), run_dir) {
            return Ok(true);
        }
    }
}

/// Whether a line is of a launcher's listening socket.
fn is_launcher(line: &[u8], run_dir: &Path) -> bool {
    let mut rest = line;
    for column in 0..COLUMNS {
        rest = rest.trim_ascii_start();
        let len = rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len());
        if column == 3 && &rest[..len] != LISTENS {
            return false;
        }
        rest = &rest[len..];
    }
    let Some(name) = rest.strip_prefix(b" ").map(|name| Path::new(std::ffi::OsStr::from_bytes(name))) else {
        return false;
    };
    let file = name.file_name().and_then(|file| file.to_str()?.strip_suffix(SOCKET_SUFFIX));
    name.parent() == Some(run_dir) && file.is_some_and(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(35);

    fn line(flags: &str, name: &str) -> Vec<u8> {
        format!("00000000131ea819: 00000002 00000000 {flags} 0001 01  4021 {name}").into_bytes()
    }

    fn launcher(flags: &str, name: &str) -> bool {
        is_launcher(&line(flags, name), Path::new("/run/hivekeeper"))
    }

    #[test]
    fn a_listening_socket_of_the_directory_is_a_launcher() {
        assert!(launcher("00010000", "/run/hivekeeper/0190-ab.sock"));
        assert!(is_launcher(&line("00010000", "/with space/a.sock"), Path::new("/with space")));
    }

    #[test]
    fn anything_else_is_none() {
        assert!(!launcher("00000000", "/run/hivekeeper/0190-ab.sock"), "a connection");
        assert!(!launcher("00010000", "/run/other/0190-ab.sock"));
        assert!(!launcher("00010000", "/run/hivekeeper/sub/0190-ab.sock"));
        assert!(!launcher("00010000", "/run/hivekeeper/0190-ab.exit"));
        assert!(!launcher("00010000", "/run/hivekeeper/.sock"));
        assert!(!launcher("00010000", "@/run/hivekeeper/a.sock"));
        assert!(!is_launcher(b"Num       RefCount Protocol Flags    Type St Inode Path", Path::new("/")));
        assert!(!is_launcher(b"00000000cf3a04a5: 00000003 00000000 00010000 0001 03 4085460", Path::new("/")));
        assert!(!is_launcher(b"", Path::new("/")));
    }

    #[test]
    fn the_time_counts_from_the_last_launcher() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut watch = Watch::new(start, IDLE);
        assert_eq!(watch.look(at(0), false, false), Some(LOOK_INTERVAL));
        assert!(watch.look(at(34), true, false).is_some());
        assert!(watch.look(at(68), false, false).is_some());
        assert_eq!(watch.look(at(69), false, false), None);
    }

    #[test]
    fn a_look_is_never_later_than_the_end() {
        let start = Instant::now();
        let mut watch = Watch::new(start, IDLE);
        let short = Duration::from_millis(1);
        assert_eq!(watch.look(start + IDLE - short, false, false), Some(short));
    }

    #[test]
    fn a_gap_grants_a_full_period_once() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut watch = Watch::new(start, IDLE);
        assert!(watch.look(at(100), false, true).is_some());
        assert!(watch.look(at(134), false, false).is_some());
        assert_eq!(watch.look(at(200), false, true), None, "gaps in a row keep nothing alive");

        let mut watch = Watch::new(start, IDLE);
        assert!(watch.look(at(100), false, true).is_some());
        assert!(watch.look(at(120), true, false).is_some());
        assert!(watch.look(at(300), false, true).is_some(), "a launcher has been seen in between");
    }
}
