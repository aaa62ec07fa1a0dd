//! From the command line to a running agent.

use std::{
    ffi::{CStr, OsString},
    fs::{self, File},
    io::{self, IsTerminal, Write},
    path::Path,
    process::ExitCode,
    time::{Duration, Instant, SystemTime},
};

use nix::{sys::prctl, unistd};

use super::{
    attach::attach,
    core::{millis, unsupported},
    farewell,
    files::{self, plain, write_record},
    hold::hold,
    link::Link,
    list::list,
    memory::Memory,
    program::program,
    relay::Relay,
    room::{clear, settle},
    run::{Agent, Parts, Shell},
    sweep::sweep,
    sys,
};
use crate::wire::channel::{Exit, ExitWhy, FromLauncher, Launch, ToLauncher};

/// How long the order may take. A launcher that is started ahead waits until it is needed, and the end of its daemon shows at once, so this is
/// for a channel that neither speaks nor closes. The daemon replaces what has gone home.
const LAUNCH_WAIT: Duration = Duration::from_secs(24 * 60 * 60);
/// A launch that is refused before anything was started.
const EXIT_REFUSED: u8 = 2;
/// What `ps` and `top` show. The kernel keeps 15 bytes.
const COMM: &CStr = c"hivekeeper";
/// For somebody who has typed the command.
const BY_HAND: &str = "hivekeeper agent is started by the daemon and reads its orders from stdin.\n\
                       To run a program as a supervised agent, use: hivekeeper run -- COMMAND\n";

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
enum Mode<'a> {
    /// Run one agent until it has ended.
    Stdio,
    /// Join a daemon to a launcher.
    Attach { run_dir: &'a Path, launch_id: &'a str },
    /// End what is left of a launch.
    Sweep { launch_id: &'a str, agent: Option<i32> },
    /// Tell which launches there are.
    List { run_dir: &'a Path },
    /// Make the run directory.
    Settle { run_dir: &'a Path },
    /// Remove what is ours, save what is kept.
    Clear { home: &'a Path, keep: Vec<&'a str> },
    /// Last as long as there are launchers.
    Hold { run_dir: &'a Path, idle: Duration },
}

/// `hivekeeper agent ARGUMENTS`. To be called before anything else is started in this process.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    // The daemon executes us by a descriptor, so that the kernel has named us after a number. Only a name: nothing rests on it.
    let _ = prctl::set_name(COMM);
    let arguments: Vec<OsString> = arguments.collect();
    let mode = mode(&arguments).filter(|_| !io::stdin().is_terminal() && !io::stdout().is_terminal());
    let Some(mode) = mode else { return by_hand("") };
    sys::give_memory_back();
    sys::close_inherited();
    let ended = match mode {
        Mode::Stdio => begin(),
        Mode::Attach { run_dir, launch_id } => attach(run_dir, launch_id),
        Mode::Sweep { launch_id, agent } => sweep(launch_id, agent),
        Mode::List { run_dir } => list(run_dir),
        Mode::Settle { run_dir } => settle(run_dir),
        Mode::Clear { home, keep } => clear(home, &keep),
        Mode::Hold { run_dir, idle } => hold(run_dir, idle),
    };
    match ended {
        Ok(code) => code,
        Err(error) => by_hand(&format!("hivekeeper agent: {error}\n")),
    }
}

fn mode(arguments: &[OsString]) -> Option<Mode<'_>> {
    let words: Vec<&str> = arguments.iter().map(|word| word.to_str()).collect::<Option<_>>()?;
    let mode = match words[..] {
        ["--stdio"] => Mode::Stdio,
        ["--attach", run_dir, launch_id] => Mode::Attach { run_dir: Path::new(run_dir), launch_id },
        ["--list", run_dir] => Mode::List { run_dir: Path::new(run_dir) },
        ["--settle", run_dir] => Mode::Settle { run_dir: Path::new(run_dir) },
        ["--clear", home, ref keep @ ..] => Mode::Clear { home: Path::new(home), keep: keep.to_vec() },
        ["--sweep", launch_id] => Mode::Sweep { launch_id, agent: None },
        ["--sweep", launch_id, agent] => Mode::Sweep { launch_id, agent: Some(agent.parse().ok()?) },
        ["--hold", run_dir, idle_ms] => Mode::Hold { run_dir: Path::new(run_dir), idle: millis(idle_ms.parse().ok()?) },
        _ => return None,
    };
    match mode {
        Mode::Attach { launch_id, .. } | Mode::Sweep { launch_id, .. } if !plain(launch_id) => None,
        mode => Some(mode),
    }
}

fn by_hand(problem: &str) -> ExitCode {
    // Nobody may be reading; then there is nobody to tell.
    let _ = io::stderr().write_all(format!("{problem}{BY_HAND}").as_bytes());
    ExitCode::from(EXIT_REFUSED)
}

/// `Err` when there was no launch to obey.
fn begin() -> Result<ExitCode, String> {
    // Out of the daemon's session, so that a Ctrl-C at its terminal does not reach us. Fails for the leader of a group: then we have our own.
    let _ = unistd::setsid();
    prctl::set_child_subreaper(true).map_err(|error| format!("cannot become a subreaper: {error}"))?;
    let signals = sys::signals().map_err(|error| format!("cannot watch signals: {error}"))?;
    let (stdin, stdout) = sys::take_stdio().map_err(|error| format!("cannot use stdin and stdout: {error}"))?;
    let hangup = stdin.try_clone().map_err(|error| format!("cannot use stdin: {error}"))?;
    // What does not depend on the order comes before it.
    let relay = Relay::bind();
    let mut link = Link::new(0, stdin, stdout);
    let launch = receive_launch(&mut link)?;
    let refused = match unsupported(launch.version) {
        Some(message) => Some(("unsupported_version", message)),
        None if !launch.forget.iter().all(|id| plain(id)) => {
            Some(("bad_frame", "a launch to forget is no file name".to_owned()))
        }
        None if !plain(&launch.launch_id) => Some(("bad_frame", "the launch id is no file name".to_owned())),
        None => None,
    };
    if let Some((code, message)) = refused {
        farewell::last_words(&mut link, &FromLauncher::Refused { code: code.to_owned(), message });
        return Ok(ExitCode::from(EXIT_REFUSED));
    }
    files::forget(Path::new(&launch.run_dir), &launch.forget);
    let parts = match start(&launch, relay, &hangup) {
        Ok(Some(parts)) => parts,
        Ok(None) => return Ok(ExitCode::SUCCESS),
        Err(message) => {
            farewell::last_words(&mut link, &FromLauncher::StartFailed { message });
            return Ok(ExitCode::SUCCESS);
        }
    };
    let shell = Shell::new(Instant::now(), &launch, link, signals, parts);
    drop((launch, hangup));
    Ok(shell.run())
}

fn receive_launch(link: &mut Link) -> Result<Launch, String> {
    let deadline = Instant::now() + LAUNCH_WAIT;
    let mut scratch = vec![0; 64 * 1024];
    loop {
        let _ = link.flush();
        let received = link.receive(&mut scratch);
        match link.next().map_err(|error| format!("no launch on stdin: {error}"))? {
            Some(ToLauncher::Launch(launch)) => return Ok(*launch),
            Some(_) => return Err("no launch on stdin: another frame came first".to_owned()),
            None if received.is_err() => return Err("no launch on stdin: it is at its end".to_owned()),
            None => {}
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(format!("no launch on stdin within {} hours", LAUNCH_WAIT.as_secs() / 3600));
        }
        let mut fds = [link.read_interest(), link.write_interest()];
        sys::poll(&mut fds, left).map_err(|error| format!("cannot wait for the launch: {error}"))?;
        if fds[1].revents & libc::POLLERR != 0 {
            return Err("nobody reads stdout".to_owned());
        }
    }
}

/// Socket first, then the agent: from the moment when a new daemon may look for us, it either finds the socket or we find the old one gone.
fn start(launch: &Launch, relay: io::Result<Relay>, hangup: &File) -> Result<Option<Parts>, String> {
    let run_dir = Path::new(&launch.run_dir);
    let socket = files::socket_path(run_dir, &launch.launch_id);
    let listener = files::listen(run_dir, &launch.launch_id)
        .map_err(|error| format!("cannot listen on {}: {error}", socket.display()))?;
    let memory = Memory::watch(launch.in_container);
    let started = start_agent(launch, relay, hangup);
    if !matches!(started, Ok(Some(_))) {
        let _ = fs::remove_file(&socket);
    }
    Ok(started?.map(|(agent, relay)| Parts { agent, relay, listener, socket, memory }))
}

/// `None` when the daemon has gone: a new one may have looked for us already and found nothing, so nothing may start.
fn start_agent(launch: &Launch, relay: io::Result<Relay>, hangup: &File) -> Result<Option<(Agent, Relay)>, String> {
    let relay = relay.map_err(|error| format!("cannot listen on 127.0.0.1: {error}"))?;
    let address = relay.address().map_err(|error| format!("cannot listen on 127.0.0.1: {error}"))?;
    let program = program(launch, address, std::env::vars_os())?;
    fs::create_dir_all(&launch.cwd)
        .map_err(|error| format!("the working directory {} is not there and cannot be made: {error}", launch.cwd))?;
    if hung_up(hangup) {
        let exit = Exit {
            agent: launch.agent.clone(),
            incarnation: launch.incarnation,
            code: None,
            signal: None,
            why: ExitWhy::LeaseLost,
            oom: None,
            at_ms: unix_ms(),
            swept: 0,
            unswept: 0,
            last_seq: 0,
        };
        // Without the record a new daemon finds neither socket nor process, which comes to the same.
        let _ = write_record(Path::new(&launch.run_dir), &launch.launch_id, &exit);
        return Ok(None);
    }
    let spawned = sys::spawn(&program).map_err(|error| format!("cannot fork: {error}"))?;
    Ok(Some((Agent::new(launch, spawned, program), relay)))
}

fn hung_up(stdin: &File) -> bool {
    let mut fds = [sys::interest(stdin, libc::POLLRDHUP)];
    sys::poll(&mut fds, Duration::ZERO).is_err() || fds[0].revents != 0
}

/// Unix time in ms.
pub(super) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Option<String> {
        let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        mode(&arguments).map(|mode| format!("{mode:?}"))
    }

    #[test]
    fn each_mode_has_its_words() {
        let shown = |mode: Mode<'_>| Some(format!("{mode:?}"));
        let run_dir = Path::new("/run/hk");
        assert_eq!(parsed("--stdio"), shown(Mode::Stdio));
        assert_eq!(parsed("--attach /run/hk 0190-a"), shown(Mode::Attach { run_dir, launch_id: "0190-a" }));
        assert_eq!(parsed("--list /run/hk"), shown(Mode::List { run_dir }));
        assert_eq!(parsed("--settle /run/hk"), shown(Mode::Settle { run_dir }));
        assert_eq!(parsed("--clear /run/hk"), shown(Mode::Clear { home: run_dir, keep: Vec::new() }));
        assert_eq!(parsed("--clear /run/hk a b"), shown(Mode::Clear { home: run_dir, keep: vec!["a", "b"] }));
        assert_eq!(parsed("--sweep 0190-a"), shown(Mode::Sweep { launch_id: "0190-a", agent: None }));
        assert_eq!(parsed("--sweep 0190-a 17"), shown(Mode::Sweep { launch_id: "0190-a", agent: Some(17) }));
        let idle = Duration::from_secs(35);
        assert_eq!(parsed("--hold /run/hk 35000"), shown(Mode::Hold { run_dir, idle }));
    }

    #[test]
    fn anything_else_is_for_people() {
        for line in [
            "",
            "--stdio more",
            "--attach /run/hk",
            "--attach /run/hk ../a",
            "--list",
            "--settle",
            "--settle /run/hk more",
            "--clear",
            "--sweep",
            "--sweep a/b",
            "--sweep a x",
            "--sweep a 1 2",
            "--hold /run/hk",
            "--hold /run/hk soon",
            "--hold /run/hk -1",
        ] {
            assert_eq!(parsed(line), None, "{line}");
        }
    }

    #[test]
    fn a_time_that_no_clock_holds_is_a_long_one() {
        let Some(Mode::Hold { idle, .. }) = mode(&["--hold".into(), "/".into(), u64::MAX.to_string().into()]) else {
            unreachable!()
        };
        assert!(Instant::now().checked_add(idle).is_some());
    }
}
