//! Sets up the process: its log, its limits, the thread for launches.

use std::{
    io::{self, IsTerminal},
    thread,
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};
use tracing::{Level, Metadata};
use tracing_subscriber::{
    filter::{FilterFn, LevelFilter},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::config::{LogConfig, LogFormat};

/// Starts the daemon's own log, on stderr.
pub(super) fn start_log(config: &LogConfig) {
    let level = config.level.word().parse().unwrap_or(LevelFilter::INFO);
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_target(false);
    let log = tracing_subscriber::registry().with(level).with(FilterFn::new(concerns_us));
    // A second subscriber in one process, as in tests, changes nothing.
    let _ = match config.format {
        LogFormat::Text => log.with(layer.with_ansi(io::stderr().is_terminal())).try_init(),
        LogFormat::Json => log.with(layer.json()).try_init(),
    };
}

/// Libraries are heard when something is wrong with them, or when everything is asked for. What `actix_http` and `rmcp` call an error is a client
/// that breaks the rules or leaves, each time it does; that must not fill our log.
fn concerns_us(what: &Metadata<'_>) -> bool {
    let (target, level) = (what.target(), *what.level());
    let is_wrong = level <= Level::WARN && !["actix_http", "rmcp"].iter().any(|library| target.starts_with(library));
    target.starts_with("hivekeeper") || is_wrong || level == Level::TRACE
}

/// Open files that agents and launchers may have: soft and hard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OpenFiles {
    pub(super) soft: u64,
    pub(super) hard: u64,
}

/// Lets the daemon open as many files as the system allows it, each agent needs two, and one more for a session by TCP. Returns what the limits were, for agents: a program that
/// uses select(2) breaks under a higher one than it is used to. Says in the log what it is, and when it is less than the data plane's connections take.
pub(super) fn raise_open_files(connections_max: usize) -> Option<OpenFiles> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    if let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        tracing::warn!(%error, soft, hard, "failed to raise the limit of open files");
    }
    let open_files = getrlimit(Resource::RLIMIT_NOFILE).map_or(soft, |(now, _)| now);
    tracing::info!(open_files, was = soft, connections_max, "open files that this process may have");
    if open_files < connections_max as u64 {
        tracing::warn!(
            open_files,
            connections_max,
            "the data plane may run out of open files before it is full; raise the hard limit (ulimit -Hn)"
        );
    }
    Some(OpenFiles { soft, hard })
}

/// How many files the daemon may have open now.
pub(super) fn open_files_allowed() -> u64 {
    // It fails on no Linux; 1024 is what most systems allow when they say nothing.
    getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft)
}

/// What SIGHUP means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HangUp {
    /// Nothing: whoever started us wants it so, as nohup(1) does.
    Ignored,
    /// That the terminal goes away in which we run.
    Stops,
    /// That the configuration is to be read again: there is no terminal that could go away.
    Reloads,
}

/// What SIGHUP means, by how we were started.
pub(super) fn hang_up() -> HangUp {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    meaning(&read("status"), &read("stat"))
}

fn meaning(status: &str, stat: &str) -> HangUp {
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    // Signal n is bit n-1.
    if mask.is_some_and(|mask| mask >> (libc::SIGHUP - 1) & 1 == 1) {
        return HangUp::Ignored;
    }
    // Behind our name, which may hold anything: state, parent, group, session, terminal. Where nothing can be read, a stop is what the signal does by default.
    let terminal = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(4));
    if terminal == Some("0") { HangUp::Reloads } else { HangUp::Stops }
}

/// A thread with a runtime of its own, so that no actor's work delays the renewal of a lease. Dropping it ends the thread.
pub(super) struct LaunchThread {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl LaunchThread {
    pub(super) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::Builder::new().name("launches".to_owned()).spawn(move || {
            // Either the order to stop or the loss of who could give it.
            let _ = runtime.block_on(stopped);
        })?;
        Ok(Self { handle, stop: Some(stop), thread: Some(thread) })
    }

    pub(super) fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl Drop for LaunchThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the launches has panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hang_up_stops_in_a_terminal_and_reloads_without_one() {
        let stat = |terminal: u32| format!("4711 (a ) b) S 1 4711 4711 {terminal} -1 4194560 0");
        assert_eq!(meaning("SigIgn:\t0000000000001000\n", &stat(34816)), HangUp::Stops);
        assert_eq!(meaning("SigIgn:\t0000000000001000\n", &stat(0)), HangUp::Reloads);
        assert_eq!(meaning("SigIgn:\t0000000000001001\n", &stat(0)), HangUp::Ignored);
        assert_eq!(meaning("", ""), HangUp::Stops);
    }
}
