//! What a dead launcher left behind: found in `/proc` by the marker in its environment, killed, and proven dead.
//!
//! A launcher carries the marker itself, so a sweep also ends one that hangs or that has not started its agent yet. Blocking; call it on a
//! thread that may block.

use std::{
    fs, io,
    os::fd::{AsFd, FromRawFd, OwnedFd},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{Signal, kill},
    unistd::{Pid, getsid},
};

/// The variable that names the launch in the environment of a launcher, its agent and everything below.
pub const MARKER: &str = "HIVEKEEPER_LAUNCH";
/// Passes over `/proc` in a row that must find nothing: a process that forks below the cursor and exits above it hides its child from one pass.
const CLEAN_PASSES: u32 = 2;
/// Wait between two passes where pidfds are not there to wait on.
const NO_PIDFD_WAIT: Duration = Duration::from_millis(2);

/// The agent of a launch: the leader of its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leader {
    /// Its process id, which is its session's, too.
    pub pid: u32,
    /// When it was started, in clock ticks since boot: tells it from a later process with the same number.
    pub start_ticks: u64,
}

impl Leader {
    /// Looks a living process up; `None` when it is gone.
    pub fn of(pid: u32) -> Option<Self> {
        start_ticks(pid).map(|start_ticks| Self { pid, start_ticks })
    }
}

/// What belongs to one launch.
#[derive(Debug, Clone)]
pub struct Tree {
    /// The value of [`MARKER`].
    pub launch_id: String,
    /// Its agent, when it is known: members of its session are found even if they have cleared their environment.
    pub leader: Option<Leader>,
}

/// Why a sweep proved nothing.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// `/proc` can't be listed.
    #[error("failed to list /proc")]
    Proc(#[source] io::Error),
    /// A process may not be signalled: it runs as somebody else.
    #[error("failed to kill process {pid}")]
    Kill {
        /// Which.
        pid: u32,
        /// What the system said.
        #[source]
        source: Errno,
    },
    /// Processes were still there at the deadline, stuck in the kernel or forking faster than they die.
    #[error("{left} processes were still alive at the deadline")]
    Deadline {
        /// How many the last pass found.
        left: usize,
    },
}

/// SIGKILL to everything that belongs to the tree, until nothing is found. Returns how many processes were killed.
///
/// # Errors
/// Why it is not proven that nothing is left.
pub fn sweep(tree: &Tree, deadline: Duration) -> Result<usize, SweepError> {
    let until = Instant::now() + deadline;
    let entry = format!("{MARKER}={}", tree.launch_id).into_bytes();
    let (mut killed, mut clean) = (0, 0);
    loop {
        let found = pass(&entry, tree.leader)?;
        if found.is_empty() {
            clean += 1;
            if clean == CLEAN_PASSES {
                return Ok(killed);
            }
            continue;
        }
        clean = 0;
        for victim in &found {
            match victim.kill() {
                Ok(()) => killed += 1,
                Err(Errno::ESRCH) => {}
                Err(source) => return Err(SweepError::Kill { pid: victim.pid, source }),
            }
        }
        for victim in &found {
            victim.wait(until);
        }
        if Instant::now() >= until {
            return Err(SweepError::Deadline { left: found.len() });
        }
    }
}

/// A process held by a descriptor, so that its number can't come to mean another one.
struct Victim {
    pid: u32,
    /// `None` on a kernel older than 5.3.
    fd: Option<OwnedFd>,
}

impl Victim {
    fn open(pid: u32) -> Option<Self> {
        // SAFETY: pidfd_open takes two integers and returns a new descriptor or -1; it touches no memory of ours.
        let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        match i32::try_from(raw) {
            // SAFETY: the kernel has just made this descriptor for us, and nobody else owns it.
            Ok(fd) if fd >= 0 => Some(Self { pid, fd: Some(unsafe { OwnedFd::from_raw_fd(fd) }) }),
            _ if Errno::last() == Errno::ENOSYS => Some(Self { pid, fd: None }),
            _ => None,
        }
    }

    fn kill(&self) -> Result<(), Errno> {
        let Some(fd) = &self.fd else { return kill(pid(self.pid), Signal::SIGKILL) };
        use std::os::fd::AsRawFd;
        // SAFETY: the descriptor is open for the length of the call, and a null siginfo is allowed.
        let done = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                fd.as_raw_fd(),
                libc::SIGKILL,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        Errno::result(done).map(drop)
    }

    /// Until it is dead (a zombie counts) or the time is up.
    fn wait(&self, until: Instant) {
        let Some(fd) = &self.fd else { return std::thread::sleep(NO_PIDFD_WAIT) };
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout) {
                Err(Errno::EINTR) => {}
                _ => return,
            }
        }
    }
}

fn pass(entry: &[u8], leader: Option<Leader>) -> Result<Vec<Victim>, SweepError> {
    let own = std::process::id();
    // A session outlives its leader, and while it does its number is not given away. A living stranger under that number means that it is over.
    let session = leader.filter(|l| start_ticks(l.pid).is_none_or(|now| now == l.start_ticks));
    let mut found = Vec::new();
    for dir in fs::read_dir("/proc").map_err(SweepError::Proc)? {
        let Some(pid) = dir.ok().and_then(|d| d.file_name().to_str()?.parse::<u32>().ok()) else { continue };
        if pid == own {
            continue;
        }
        // Opened before it is looked at: if the number is given away in between, the descriptor still means the dead one.
        let Some(victim) = Victim::open(pid) else { continue };
        if is_marked(pid, entry) || session.is_some_and(|leader| is_member(pid, leader)) {
            found.push(victim);
        }
    }
    Ok(found)
}

/// Whether its environment holds the entry. That of a zombie is empty.
fn is_marked(pid: u32, entry: &[u8]) -> bool {
    fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| environ.split(|b| *b == 0).any(|e| e == entry))
}

fn is_member(process: u32, leader: Leader) -> bool {
    getsid(Some(pid(process))) == Ok(pid(leader.pid))
        && start_ticks(process).is_some_and(|ticks| ticks >= leader.start_ticks)
}

/// Field 22 of `/proc/PID/stat`; `None` when it is gone or a zombie.
fn start_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold anything, so count from the last one. State is field 3.
    let mut rest = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = rest.next()?;
    if matches!(state, "Z" | "X") { None } else { rest.nth(18)?.parse().ok() }
}

#[expect(clippy::cast_possible_wrap, reason = "a process id fits 22 bits")]
fn pid(raw: u32) -> Pid {
    Pid::from_raw(raw as i32)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
    use std::process::{Child, Command, Stdio};

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    fn start(id: &str, script: &str) -> Child {
        use std::io::{BufRead, BufReader};
        let mut child = Command::new("setsid")
            .args(["--wait", "sh", "-c", script])
            .env(MARKER, id)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        child
    }

    fn tree(id: &str) -> Tree {
        Tree { launch_id: id.to_owned(), leader: None }
    }

    fn id() -> String {
        uuid::Uuid::now_v7().to_string()
    }

    #[test]
    fn sweeps_what_is_marked_and_nothing_else() {
        let (ours, other) = (id(), id());
        let mut a = start(&ours, "sleep 600 & sleep 600 & echo up; wait");
        let mut b = start(&other, "echo up; sleep 600");
        assert!(sweep(&tree(&ours), DEADLINE).unwrap() >= 3);
        assert!(pass(format!("{MARKER}={ours}").as_bytes(), None).unwrap().is_empty());
        assert!(b.try_wait().unwrap().is_none(), "a process of another launch was killed");
        assert!(!a.wait().unwrap().success());
        assert!(sweep(&tree(&other), DEADLINE).unwrap() >= 1);
        b.wait().unwrap();
    }

    #[test]
    fn nothing_there_is_proven_at_once() {
        assert_eq!(sweep(&tree(&id()), DEADLINE).unwrap(), 0);
    }

    #[test]
    fn a_prefix_of_the_marker_is_not_the_marker() {
        let ours = id();
        let mut a = start(&format!("{ours}0"), "echo up; sleep 600");
        assert_eq!(sweep(&tree(&ours), DEADLINE).unwrap(), 0);
        sweep(&tree(&format!("{ours}0")), DEADLINE).unwrap();
        a.wait().unwrap();
    }

    #[test]
    fn session_members_without_the_marker_are_found() {
        use std::io::{BufRead, BufReader};
        let mut child = Command::new("setsid")
            .args(["sh", "-c", "echo $$; env -i sleep 600 & wait"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let leader = Leader::of(line.trim().parse().unwrap()).unwrap();
        let stranger = Leader { start_ticks: 0, ..leader };
        let launch_id = id();
        assert_eq!(sweep(&Tree { launch_id: launch_id.clone(), leader: Some(stranger) }, DEADLINE).unwrap(), 0);
        assert!(sweep(&Tree { launch_id, leader: Some(leader) }, DEADLINE).unwrap() >= 1);
        child.wait().unwrap();
    }
}
