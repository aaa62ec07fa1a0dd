//! What `/proc` says about our descendants. We are their subreaper, so a `setsid` or a double fork does not take a process out of the tree.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read},
    time::Instant,
};

use super::sys;
use crate::wire::channel::Sample;

/// Rounds of one pass over a tree that grows while it is signalled; the loop comes back for what is left.
pub(super) const ROUNDS_MAX: usize = 8;
/// A stat line has at most 52 numbers of 20 digits and a name of 16 bytes.
const STAT_LEN_MAX: usize = 2048;

/// One process, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Process {
    /// Its id.
    pub(super) pid: i32,
    /// `R`, `S`, `D`, `T`, `t`, `Z` ...
    pub(super) state: u8,
    /// Its parent.
    pub(super) parent: i32,
    /// Its session.
    pub(super) session: i32,
    /// Clock ticks of user and system time, its own and that of the children it has reaped.
    pub(super) cpu_ticks: u64,
    /// Clock ticks between boot and its start; with the id it names a process once and for all.
    pub(super) start_ticks: u64,
    /// Resident pages.
    pub(super) rss_pages: u64,
}

impl Process {
    /// Reads a line of `/proc/PID/stat`. The name in it may hold spaces and parentheses, so the fields are counted from the last one.
    fn parse(line: &[u8]) -> Option<Self> {
        let line = str::from_utf8(&line[line.iter().rposition(|byte| *byte == b')')? + 1..])
            .ok()
            .zip(str::from_utf8(line.split(|byte| *byte == b' ').next()?).ok());
        let (rest, pid) = line?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // Numbered as in proc(5), where the state is field 3.
        let number = |field: usize| fields.get(field - 3)?.parse::<i64>().ok();
        let count = |field: usize| number(field).map(|value| u64::try_from(value).unwrap_or(0));
        Some(Self {
            pid: pid.parse().ok()?,
            state: *fields.first()?.as_bytes().first()?,
            parent: i32::try_from(number(4)?).ok()?,
            session: i32::try_from(number(6)?).ok()?,
            cpu_ticks: count(14)? + count(15)? + count(16)? + count(17)?,
            start_ticks: count(22)?,
            rss_pages: count(24)?,
        })
    }

    pub(super) fn read(pid: i32) -> Option<Self> {
        let mut line = Vec::with_capacity(512);
        fs::File::open(format!("/proc/{pid}/stat")).ok()?.take(STAT_LEN_MAX as u64).read_to_end(&mut line).ok()?;
        Self::parse(&line)
    }

    pub(super) fn ended(self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }

    pub(super) fn stopped(self) -> bool {
        matches!(self.state, b'T' | b't')
    }

    /// Signals it, if it is still it. `me` is this process.
    pub(super) fn signal(self, signal: i32, me: i32) {
        if self.parent == me {
            // Only we reap our children, and we don't between the listing and here.
            sys::signal_child(self.pid, signal);
        } else {
            sys::signal_held(self.pid, signal, || {
                Self::read(self.pid).is_some_and(|now| now.start_ticks == self.start_ticks && !now.ended())
            });
        }
    }
}

/// Whether a process is in the middle of an exec, when its memory is new and its environment is not there yet.
pub(super) fn is_in_exec(pid: i32) -> bool {
    let Ok(line) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let Some((_, rest)) = line.rsplit_once(')') else { return false };
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // Numbered as in proc(5), where the state is field 3: the size of its memory, which a thread of the kernel has not, and `env_end`.
    let is_zero = |field: usize| fields.get(field - 3).is_none_or(|value| *value == "0");
    !is_zero(23) && is_zero(51)
}

/// The ids of all processes that can be seen here.
pub(super) fn pids() -> io::Result<impl Iterator<Item = i32>> {
    Ok(fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()))
}

/// The tree below one process.
pub(super) struct Tree {
    me: i32,
    /// Whether the kernel offers `/proc/PID/task/TID/children`, which costs our tree and not the whole machine.
    children_files: bool,
}

impl Tree {
    /// The tree below this process.
    pub(super) fn of_this_process() -> Self {
        let me = std::process::id().cast_signed();
        Self { me, children_files: fs::exists(format!("/proc/{me}/task/{me}/children")).unwrap_or(false) }
    }

    /// Every descendant, those that have ended and are not reaped included. Processes that start or end meanwhile may or may not be in it.
    pub(super) fn list(&self) -> Vec<Process> {
        if self.children_files { self.list_by_children() } else { self.list_by_parents() }
    }

    fn list_by_children(&self) -> Vec<Process> {
        let mut found: Vec<Process> = Vec::new();
        let mut seen = BTreeSet::new();
        let mut next = vec![self.me];
        let mut text = String::new();
        while let Some(pid) = next.pop() {
            let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
            for task in tasks.flatten() {
                text.clear();
                let file = fs::File::open(task.path().join("children"));
                if file.and_then(|mut file| file.read_to_string(&mut text)).is_err() {
                    continue;
                }
                for child in text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()) {
                    if seen.insert(child)
                        && let Some(process) = Process::read(child)
                    {
                        found.push(process);
                        next.push(child);
                    }
                }
            }
        }
        found
    }

    fn list_by_parents(&self) -> Vec<Process> {
        let Ok(pids) = pids() else { return Vec::new() };
        let mut others: Vec<Process> = pids.filter_map(Process::read).collect();
        let mut found: Vec<Process> = Vec::new();
        let mut parents = BTreeSet::from([self.me]);
        loop {
            let (ours, rest): (Vec<_>, Vec<_>) =
                others.into_iter().partition(|process| parents.contains(&process.parent));
            if ours.is_empty() {
                return found;
            }
            parents = ours.iter().map(|process| process.pid).collect();
            found.extend(ours);
            others = rest;
        }
    }

    /// SIGKILL to every descendant, round by round until no new one shows up. Returns those that were signalled, by id and start.
    pub(super) fn kill(&self) -> BTreeSet<(i32, u64)> {
        let mut killed = BTreeSet::new();
        for _ in 0..ROUNDS_MAX {
            let mut new = false;
            for process in self.list() {
                if !process.ended() && killed.insert((process.pid, process.start_ticks)) {
                    process.signal(libc::SIGKILL, self.me);
                    new = true;
                }
            }
            if !new {
                break;
            }
        }
        killed
    }

    /// SIGSTOP to every descendant. Whether a listing showed all of them standing still: then nothing is left that could fork. One that waits
    /// in the kernel (`D`) stands still once it has been signalled: it stops before it runs a single instruction of its own, and the parent
    /// of a `vfork` can't get there while its child is stopped.
    pub(super) fn freeze(&self) -> bool {
        let mut signalled = BTreeSet::new();
        for _ in 0..ROUNDS_MAX {
            let mut running = self.list();
            running.retain(|process| {
                let waits = process.state == b'D' && signalled.contains(&(process.pid, process.start_ticks));
                !process.ended() && !process.stopped() && !waits
            });
            if running.is_empty() {
                return true;
            }
            for process in running {
                process.signal(libc::SIGSTOP, self.me);
                signalled.insert((process.pid, process.start_ticks));
            }
        }
        false
    }

    /// SIGCONT to every descendant.
    pub(super) fn thaw(&self) {
        for process in self.list() {
            process.signal(libc::SIGCONT, self.me);
        }
    }

    /// How many descendants have not ended.
    pub(super) fn alive(&self) -> u32 {
        u32::try_from(self.list().iter().filter(|process| !process.ended()).count()).unwrap_or(u32::MAX)
    }
}

/// Turns readings of the tree into samples whose CPU time only grows.
pub(super) struct Sampler {
    ticks_a_second: u64,
    page_bytes: u64,
    /// CPU time that vanished with children whose parent never waited for them; it was spent, so it stays counted.
    vanished_ms: u64,
    raw_ms: u64,
    cpu_ms: u64,
    at: Instant,
}

impl Sampler {
    /// Begins at the start of the agent.
    pub(super) fn new(now: Instant, (ticks_a_second, page_bytes): (u64, u64)) -> Self {
        Self { ticks_a_second, page_bytes, vanished_ms: 0, raw_ms: 0, cpu_ms: 0, at: now }
    }

    /// Folds one reading.
    pub(super) fn sample(&mut self, now: Instant, at_ms: u64, reaped_cpu_ms: u64, tree: &[Process]) -> Sample {
        let ticks: u64 = tree.iter().map(|process| process.cpu_ticks).sum();
        let raw_ms = reaped_cpu_ms + ticks * 1000 / self.ticks_a_second;
        self.vanished_ms += self.raw_ms.saturating_sub(raw_ms);
        self.raw_ms = raw_ms;
        let cpu_ms = raw_ms + self.vanished_ms;
        let sample = Sample {
            at_ms,
            cpu_ms,
            interval_ms: u64::try_from(now.saturating_duration_since(self.at).as_millis()).unwrap_or(u64::MAX),
            cpu_interval_ms: cpu_ms - self.cpu_ms,
            rss_bytes: tree.iter().map(|process| process.rss_pages * self.page_bytes).sum(),
            processes: u32::try_from(tree.iter().filter(|process| !process.ended()).count()).unwrap_or(u32::MAX),
        };
        self.cpu_ms = cpu_ms;
        self.at = now;
        sample
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::time::Duration;

    use super::*;

    const LINE: &[u8] =
        b"4242 (a ) (b) S 17 4242 4240 0 -1 4194304 100 0 0 0 11 12 13 14 20 0 1 0 987654 10000000 321 184467440 1 1";

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let process = Process::parse(LINE).unwrap();
        assert_eq!(
            process,
            Process {
                pid: 4242,
                state: b'S',
                parent: 17,
                session: 4240,
                cpu_ticks: 50,
                start_ticks: 987_654,
                rss_pages: 321
            }
        );
    }

    #[test]
    fn a_cut_line_is_no_process() {
        for len in 0..60 {
            assert_eq!(Process::parse(&LINE[..len]), None);
        }
    }

    #[test]
    fn a_process_with_an_empty_environment_is_not_in_an_exec() {
        let mut child = std::process::Command::new("sleep").arg("60").env_clear().spawn().unwrap();
        let pid = child.id().cast_signed();
        let deadline = Instant::now() + Duration::from_secs(20);
        while is_in_exec(pid) && Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert!(!is_in_exec(pid));
        assert_eq!(fs::read(format!("/proc/{pid}/environ")).unwrap(), b"");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn both_ways_of_listing_find_the_same_children() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let tree = Tree::of_this_process();
        let pid = child.id().cast_signed();
        assert!(tree.children_files, "this kernel has children files");
        assert!(tree.list().iter().any(|process| process.pid == pid));
        assert!(tree.list_by_parents().iter().any(|process| process.pid == pid));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!tree.list().iter().any(|process| process.pid == pid));
    }

    #[test]
    fn cpu_time_never_shrinks_and_goes_on_at_once_after_a_loss() {
        let start = Instant::now();
        let mut sampler = Sampler::new(start, (100, 4096));
        let process = Process { cpu_ticks: 20, ..Process::parse(LINE).unwrap() };
        let first = sampler.sample(start + Duration::from_secs(1), 5, 300, &[process]);
        assert_eq!((first.cpu_ms, first.cpu_interval_ms, first.interval_ms), (500, 500, 1000));
        assert_eq!((first.rss_bytes, first.processes), (321 * 4096, 1));
        // The process is gone and nobody waited for it.
        let second = sampler.sample(start + Duration::from_secs(2), 6, 300, &[]);
        assert_eq!((second.cpu_ms, second.cpu_interval_ms, second.processes), (500, 0, 0));
        let third = sampler.sample(start + Duration::from_secs(3), 7, 310, &[]);
        assert_eq!((third.cpu_ms, third.cpu_interval_ms), (510, 10));
    }

    #[test]
    fn a_zombie_is_no_process() {
        let mut sampler = Sampler::new(Instant::now(), (100, 4096));
        let zombie = Process { state: b'Z', ..Process::parse(LINE).unwrap() };
        assert_eq!(sampler.sample(Instant::now(), 0, 0, &[zombie]).processes, 0);
    }
}
