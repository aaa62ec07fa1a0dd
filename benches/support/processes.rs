//! Processes, as `/proc` shows them.

use std::{
    fs,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Child, Command, ExitStatus},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, bail, ensure};

use super::clock;

/// Between two looks at something that is about to end or to appear.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What a process holds, in bytes, from its `smaps_rollup`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    /// Resident, shared pages counted in full.
    pub rss: u64,
    /// Resident, each shared page divided by the number of its users: the only one that may be summed.
    pub pss: u64,
    /// What nobody else maps: it would be free again if this process ended.
    pub private: u64,
}

impl Memory {
    pub fn of(pid: i32) -> anyhow::Result<Self> {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let kib = |key: &str| -> u64 {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        let private = kib("Private_Clean") + kib("Private_Dirty");
        Ok(Self { rss: kib("Rss") * 1024, pss: kib("Pss") * 1024, private: private * 1024 })
    }
}

/// Sends a signal to one process by its id.
pub fn signal(pid: i32, signal: i32) {
    // SAFETY: kill takes and touches no memory; the id is one that we started or that an agent of ours announced.
    unsafe { libc::kill(pid, signal) };
}

/// The parent and whether it lives: a zombie does not.
fn stat(pid: i32) -> Option<(i32, bool)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut rest = stat.rsplit_once(") ")?.1.split(' ');
    let state = rest.next()?;
    Some((rest.next()?.parse().ok()?, state != "Z" && state != "X"))
}

fn all() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The living children of a process.
pub fn children(parent: i32) -> Vec<i32> {
    all().into_iter().filter(|pid| stat(*pid) == Some((parent, true))).collect()
}

/// Living processes, but ourselves, whose environment holds this `NAME=value`.
pub fn carrying(variable: &str) -> Vec<i32> {
    let ours = i32::try_from(std::process::id()).ok();
    let carries = |pid: i32| {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|one| one == variable.as_bytes())
    };
    let living = |pid: i32| stat(pid).is_some_and(|(_, lives)| lives);
    all().into_iter().filter(|pid| Some(*pid) != ours && carries(*pid) && living(*pid)).collect()
}

/// Threads of a process.
pub fn threads(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

/// Asks `look` until it finds something.
pub fn until<T>(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let deadline = clock::now() + within;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if clock::now() >= deadline {
            bail!("waited {within:?} in vain: {what}");
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Waits for a child's end.
pub fn end(child: &mut Child, within: Duration) -> anyhow::Result<ExitStatus> {
    until("the process ends", within, || Ok(child.try_wait()?))
}

/// A thread that sees when a process that is not our child ends.
pub struct Watch(JoinHandle<anyhow::Result<Duration>>);

impl Watch {
    /// Longer than anybody takes to die of SIGKILL.
    const WAIT_MS: i32 = 10_000;

    pub fn on(pid: i32) -> anyhow::Result<Self> {
        // SAFETY: the call takes two numbers.
        let opened = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let opened = i32::try_from(opened).ok().filter(|fd| *fd >= 0).with_context(|| format!("no process {pid}"))?;
        // SAFETY: it has just been opened and is nobody else's.
        let process = unsafe { OwnedFd::from_raw_fd(opened) };
        Ok(Self(std::thread::spawn(move || {
            let mut poll = libc::pollfd { fd: process.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: `poll` is one entry and outlives the call.
            let ready = unsafe { libc::poll(&raw mut poll, 1, Self::WAIT_MS) };
            let at = clock::now();
            ensure!(ready == 1, "process {pid} did not end");
            Ok(at)
        })))
    }

    /// When it ended.
    pub fn join(self) -> anyhow::Result<Duration> {
        self.0.join().map_err(|_| anyhow::anyhow!("the thread that watched a process panicked"))?
    }
}

/// The child gets SIGTERM when we die, so that a benchmark that is killed ends its keepers in their own orderly way. The kernel means the death
/// of the thread that spawns, so this is for the main thread.
pub fn end_with_us(command: &mut Command) {
    // SAFETY: prctl is a plain system call and so may be called between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
            Ok(())
        });
    }
}
