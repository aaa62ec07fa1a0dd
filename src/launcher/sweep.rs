//! `hivekeeper agent --sweep LAUNCH_ID [AGENT_PID]`: ends what a dead launcher left behind in this process id namespace, and says whether it
//! is proven.
//!
//! A process belongs to the launch if it carries the marker in its environment, or descends from one that does, or (with `AGENT_PID`) is in the
//! session of the launch's agent: then it is found even if it has cleared its environment and lost its parents. The launcher carries the marker
//! itself, so one that hangs is ended, too. Never this process, never process 1.
//!
//! In a container that `--hold` keeps, process 1 has no other children than it and what launchers left: a living launcher takes its orphans in
//! itself. There an unmarked child of process 1 is led by nobody and ended, whatever it did to hide.
//!
//! The `process` runtime has a twin of its own, which knows the agent by its start time and waits in the daemon.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read},
    process::ExitCode,
    time::{Duration, Instant},
};

use super::{
    farewell,
    link::Link,
    program::MARKER,
    sys,
    tree::{self, Process, ROUNDS_MAX},
};
use crate::wire::channel::FromLauncher;

/// How long it may take. What is left then is stuck in the kernel, runs as somebody else, or forks faster than it dies.
const SWEEP_MAX: Duration = Duration::from_secs(5);
/// Passes in a row that must find nothing: when ids start over, a chain of forks gets below those that have been looked at.
const CLEAN_PASSES: u32 = 2;
/// Listings of one pass. Where others start and end processes all the time there is always somebody new.
const LISTINGS_MAX: usize = 32;
/// Between two listings while somebody is in the middle of an exec.
const EXEC_WAIT: Duration = Duration::from_millis(1);
/// First and longest wait for the killed to be gone.
const WAIT_MIN: Duration = Duration::from_millis(1);
const WAIT_MAX: Duration = Duration::from_millis(50);
/// Linux takes 6 MiB of arguments and environment at most.
const ENVIRON_LEN_MAX: u64 = 8 * 1024 * 1024;
/// Process 1 belongs to the container, not to a launch.
const INIT: i32 = 1;
/// Something is left, or it could not be seen.
const EXIT_UNSWEPT: u8 = 1;

/// Sweeps and answers.
pub(super) fn sweep(launch_id: &str, agent: Option<i32>) -> Result<ExitCode, String> {
    let (stdin, stdout) = sys::take_stdio().map_err(|error| format!("cannot use stdin and stdout: {error}"))?;
    let mut link = Link::new(0, stdin, stdout);
    let _ = link.flush();
    let (frame, code) = match run(launch_id, agent) {
        Ok(Swept { killed, left }) => {
            let code = if left == 0 { ExitCode::SUCCESS } else { ExitCode::from(EXIT_UNSWEPT) };
            (FromLauncher::Swept { killed, left }, code)
        }
        Err(error) => {
            let message = format!("cannot list the processes: {error}");
            (FromLauncher::Refused { code: "unswept".to_owned(), message }, ExitCode::from(EXIT_UNSWEPT))
        }
    };
    farewell::last_words(&mut link, &frame);
    Ok(code)
}

#[derive(Debug, PartialEq, Eq)]
struct Swept {
    killed: u32,
    left: u32,
}

fn run(launch_id: &str, agent: Option<i32>) -> io::Result<Swept> {
    let me = std::process::id().cast_signed();
    let entry = format!("{MARKER}={launch_id}").into_bytes();
    end(
        || look(&entry, me).map(|living| victims(&living, me, keeper(&living), agent)),
        |process, signal| process.signal(signal, me),
        SWEEP_MAX,
    )
}

/// SIGKILL to all that is found, until nothing is.
fn end(
    find: impl Fn() -> io::Result<Vec<Process>>,
    signal: impl Fn(Process, i32),
    time: Duration,
) -> io::Result<Swept> {
    let until = Instant::now() + time;
    let mut killed = BTreeSet::new();
    let mut clean = 0;
    let mut wait = WAIT_MIN;
    loop {
        let (found, seen) = freeze(&find, &signal)?;
        if !seen {
            clean += 1;
            if clean == CLEAN_PASSES {
                return Ok(Swept { killed: count(killed.len()), left: 0 });
            }
            continue;
        }
        clean = 0;
        for victim in &found {
            signal(*victim, libc::SIGKILL);
            killed.insert((victim.pid, victim.start_ticks));
        }
        if Instant::now() >= until {
            // What was seen and had gone by itself may have left a child.
            return Ok(Swept { killed: count(killed.len()), left: count(found.len().max(1)) });
        }
        std::thread::sleep(wait);
        wait = (wait * 2).min(WAIT_MAX);
    }
}

/// Stops them before any is killed, so that no parent ends between the fork of a child without the marker and our look at it. Returns those that
/// stand still, and whether any has been seen.
fn freeze(
    find: &impl Fn() -> io::Result<Vec<Process>>,
    signal: &impl Fn(Process, i32),
) -> io::Result<(Vec<Process>, bool)> {
    let mut stopped = BTreeSet::new();
    let mut found = find()?;
    for _ in 0..ROUNDS_MAX {
        let mut new = false;
        for victim in &found {
            if stopped.insert((victim.pid, victim.start_ticks)) {
                signal(*victim, libc::SIGSTOP);
                new = true;
            }
        }
        if !new {
            break;
        }
        found = find()?;
    }
    Ok((found, !stopped.is_empty()))
}

/// Whose marker a process carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    None,
    Ours,
    Another,
}

/// Those that live, listed again until nobody is new. A listing is made at once and read one by one: of a chain of forks, where each link lives for a
/// millisecond, it shows the one that has ended by the time we come to it. For the same reason the marked are stopped on the spot.
fn look(entry: &[u8], me: i32) -> io::Result<Vec<(Process, Mark)>> {
    let mut found = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for _ in 0..LISTINGS_MAX {
        let new: Vec<i32> = tree::pids()?.filter(|pid| !seen.contains(pid)).collect();
        if new.is_empty() {
            break;
        }
        let mut in_exec = false;
        for pid in new {
            let Some(process) = Process::read(pid) else { continue };
            if process.ended() {
                // Where nobody reaps them there may be thousands, which must not be read again and again.
                seen.insert(pid);
                continue;
            }
            let mark = mark(pid, entry);
            if mark == Some(Mark::Ours) && pid != me && pid != INIT && !process.stopped() {
                process.signal(libc::SIGSTOP, me);
            }
            found.insert(pid, (process, mark.unwrap_or(Mark::None)));
            if mark.is_some() {
                seen.insert(pid);
            } else {
                in_exec = true;
            }
        }
        if in_exec {
            // It may wait for the processor that we have.
            std::thread::sleep(EXEC_WAIT);
        }
    }
    Ok(found.into_values().collect())
}

/// `None` when that will be seen in a moment.
fn mark(pid: i32, entry: &[u8]) -> Option<Mark> {
    let mut environ = Vec::new();
    let mut read = || {
        let file = fs::File::open(format!("/proc/{pid}/environ"));
        matches!(file.and_then(|file| file.take(ENVIRON_LEN_MAX).read_to_end(&mut environ)), Ok(0))
    };
    // The second time because the exec may have ended between the first and the question.
    if read() && (tree::is_in_exec(pid) || read() && tree::is_in_exec(pid)) {
        return None;
    }
    let mut mark = Mark::None;
    for variable in environ.split(|byte| *byte == 0) {
        if variable == entry {
            return Some(Mark::Ours);
        }
        if variable.strip_prefix(MARKER.as_bytes()).is_some_and(|rest| rest.starts_with(b"=")) {
            mark = Mark::Another;
        }
    }
    Some(mark)
}

/// The process that holds this container, if it is one of ours.
fn keeper(living: &[(Process, Mark)]) -> Option<i32> {
    let first = living.iter().map(|(process, _)| process).filter(|it| it.pid == INIT || it.parent == INIT);
    first.map(|process| process.pid).find(|pid| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = command.split(|byte| *byte == 0).skip(1);
        words.next() == Some(b"agent") && words.next() == Some(b"--hold")
    })
}

/// What belongs to the launch, among the living.
fn victims(living: &[(Process, Mark)], me: i32, keeper: Option<i32>, agent: Option<i32>) -> Vec<Process> {
    // A session outlives its leader, and while it does its number is not given away. A living stranger under that number means that it is over.
    let stranger = |agent| living.iter().any(|(process, mark)| process.pid == agent && *mark != Mark::Ours);
    let session = agent.filter(|agent| *agent > INIT && !stranger(*agent));
    let mut rest = living.to_vec();
    rest.retain(|(process, _)| ![me, INIT].contains(&process.pid) && Some(process.pid) != keeper);
    let unmarked = |it: &Process| Some(it.session) == session || (keeper.is_some() && it.parent == INIT);
    let mut found = Vec::new();
    let mut parents = BTreeSet::new();
    loop {
        let (ours, others): (Vec<_>, Vec<_>) = rest.into_iter().partition(|(process, mark)| {
            *mark == Mark::Ours || (*mark == Mark::None && unmarked(process)) || parents.contains(&process.parent)
        });
        if ours.is_empty() {
            return found;
        }
        parents.extend(ours.iter().map(|(process, _)| process.pid));
        found.extend(ours.into_iter().map(|(process, _)| process));
        rest = others;
    }
}

fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::{
        cell::{Cell, RefCell},
        io::{BufRead, BufReader},
        process::{Child, Command, Stdio},
    };

    use super::*;

    const ME: i32 = 50;

    fn process(pid: i32, parent: i32, session: i32) -> Process {
        Process { pid, state: b'S', parent, session, cpu_ticks: 0, start_ticks: 0, rss_pages: 0 }
    }

    #[track_caller]
    fn assert_victims(living: &[(Process, Mark)], agent: Option<i32>, wanted: &[i32]) {
        assert_victims_beside(None, living, agent, wanted);
    }

    #[track_caller]
    fn assert_victims_beside(keeper: Option<i32>, living: &[(Process, Mark)], agent: Option<i32>, wanted: &[i32]) {
        let mut found: Vec<i32> = victims(living, ME, keeper, agent).iter().map(|process| process.pid).collect();
        found.sort_unstable();
        assert_eq!(found, wanted);
    }

    #[test]
    fn the_marked_and_their_descendants_belong_to_the_launch() {
        let living = [
            (process(14, 13, 9), Mark::Another),
            (process(10, 0, 10), Mark::Ours),
            (process(13, 12, 13), Mark::None),
            (process(12, 10, 12), Mark::None),
            (process(20, 0, 20), Mark::None),
            (process(21, 0, 21), Mark::Another),
            (process(22, 21, 22), Mark::None),
        ];
        assert_victims(&living, None, &[10, 12, 13, 14]);
    }

    #[test]
    fn never_process_1_nor_this_one_nor_what_hangs_on_them() {
        let living = [
            (process(1, 0, 1), Mark::Ours),
            (process(7, 1, 7), Mark::None),
            (process(ME, 0, ME), Mark::Ours),
            (process(51, ME, ME), Mark::None),
        ];
        assert_victims(&living, Some(1), &[]);
    }

    #[test]
    fn the_session_of_a_dead_agent_belongs_to_the_launch() {
        let living = [
            (process(31, 1, 30), Mark::None),
            (process(32, 31, 32), Mark::None),
            (process(33, 1, 30), Mark::Another),
            (process(41, 1, 40), Mark::None),
        ];
        assert_victims(&living, None, &[]);
        assert_victims(&living, Some(30), &[31, 32]);
    }

    #[test]
    fn the_session_of_a_living_agent_does_only_if_it_is_ours() {
        let session = |mark| [(process(30, 1, 30), mark), (process(31, 1, 30), Mark::None)];
        assert_victims(&session(Mark::Ours), Some(30), &[30, 31]);
        assert_victims(&session(Mark::Another), Some(30), &[]);
        assert_victims(&session(Mark::None), Some(30), &[]);
    }

    #[test]
    fn where_a_container_is_held_nobodys_orphans_belong_to_the_launch() {
        let living = [
            (process(1, 0, 1), Mark::None),
            (process(7, 1, 7), Mark::None),
            (process(60, 1, 60), Mark::None),
            (process(61, 60, 61), Mark::None),
            (process(62, 1, 62), Mark::Another),
            (process(63, 0, 63), Mark::Another),
            (process(64, 63, 64), Mark::None),
        ];
        assert_victims(&living, None, &[]);
        assert_victims_beside(Some(7), &living, None, &[60, 61]);
    }

    fn start(id: &str) -> Child {
        let mut child = Command::new("sh")
            .args(["-c", "trap '' TERM; echo up; while :; do sleep 1; done"])
            .env(MARKER, id)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
        child
    }

    #[test]
    fn a_prefix_of_the_marker_is_not_the_marker() {
        let id = format!("sweep-{}", std::process::id());
        let mut child = start(&format!("{id}0"));
        assert_eq!(run(&id, None).unwrap(), Swept { killed: 0, left: 0 });
        assert!(child.try_wait().unwrap().is_none());
        assert!(run(&format!("{id}0"), None).unwrap().killed >= 1);
        child.wait().unwrap();
    }

    #[test]
    fn what_is_left_at_the_deadline_is_told() {
        let stuck = || Ok(vec![process(10, 1, 10), process(11, 1, 11)]);
        let swept = end(stuck, |_, _| {}, Duration::from_millis(20)).unwrap();
        assert_eq!(swept, Swept { killed: 2, left: 2 });
    }

    #[test]
    fn one_look_that_finds_nothing_proves_nothing() {
        let looks = Cell::new(0);
        let find = || {
            looks.set(looks.get() + 1);
            Ok(if matches!(looks.get(), 2 | 3) { vec![process(10, 1, 10)] } else { Vec::new() })
        };
        assert_eq!(end(find, |_, _| {}, SWEEP_MAX).unwrap(), Swept { killed: 1, left: 0 });
    }

    #[test]
    fn what_is_forked_while_they_are_stopped_is_killed_with_them() {
        let calls = RefCell::new(Vec::new());
        let find = || {
            let stopped = calls.borrow().contains(&(10, libc::SIGSTOP));
            let killed = calls.borrow().contains(&(10, libc::SIGKILL));
            let both = [process(10, 1, 10), process(11, 10, 10)];
            Ok(both[..if killed { 0 } else { 1 + usize::from(stopped) }].to_vec())
        };
        let swept = end(find, |process, signal| calls.borrow_mut().push((process.pid, signal)), SWEEP_MAX).unwrap();
        assert_eq!(swept, Swept { killed: 2, left: 0 });
        let stop_all = [(10, libc::SIGSTOP), (11, libc::SIGSTOP)];
        assert_eq!(calls.borrow()[..2], stop_all, "nobody is killed before all of them stand still");
    }
}
