//! The loop: wait for what is ready, turn it into events, let the core decide, perform.

use std::{
    collections::{BTreeSet, VecDeque},
    fs::File,
    io::{ErrorKind, Read},
    os::unix::net::UnixListener,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use nix::sys::signalfd::SignalFd;

use super::{
    clock::Clock,
    core::{Core, End, Event, LinkId},
    link::Link,
    memory::Memory,
    program,
    relay::Relay,
    ring::{Lines, Ring},
    start::unix_ms,
    sys::{self, Failure, Program, Reaped, Spawned},
    tree::{Sampler, Tree},
};
use crate::wire::channel::{Launch, Stream};

/// Bytes of one read: a pipe's capacity.
const SCRATCH_LEN: usize = 64 * 1024;
/// Daemons that have connected and not attached yet. There is one daemon, at most two for a moment.
const PENDING_MAX: usize = 4;
/// How long such a daemon may take: it attaches at once.
const ATTACH_WAIT: Duration = Duration::from_secs(5);
/// Children reaped in one turn: a storm of short-lived processes must not keep the loop from the lease.
const REAPS_MAX: usize = 1024;

/// The agent, as far as it concerns processes.
pub(super) struct Agent {
    pub(super) name: String,
    pub(super) incarnation: u64,
    pub(super) pid: i32,
    pub(super) started_at_ms: u64,
    /// execve has been reported.
    pub(super) execed: bool,
    /// The id is no longer ours.
    pub(super) reaped: bool,
    /// Gone after execve or its failure.
    report: Option<(File, Program)>,
    pub(super) pipes: [Option<(File, Lines)>; 2],
}

impl Agent {
    pub(super) fn new(launch: &Launch, spawned: Spawned, program: Program) -> Self {
        Self {
            name: launch.agent.clone(),
            incarnation: launch.incarnation,
            pid: spawned.pid,
            started_at_ms: unix_ms(),
            execed: false,
            reaped: false,
            report: Some((spawned.report, program)),
            pipes: [
                Some((spawned.stdout, Lines::new(Stream::Stdout))),
                Some((spawned.stderr, Lines::new(Stream::Stderr))),
            ],
        }
    }
}

/// What a start has made.
pub(super) struct Parts {
    pub(super) agent: Agent,
    pub(super) relay: Relay,
    pub(super) listener: UnixListener,
    pub(super) socket: PathBuf,
    pub(super) memory: Memory,
}

/// Everything that the loop holds.
pub(super) struct Shell {
    pub(super) core: Core,
    pub(super) agent: Agent,
    pub(super) ring: Ring,
    pub(super) relay: Relay,
    pub(super) tree: Tree,
    pub(super) sampler: Sampler,
    pub(super) memory: Memory,
    pub(super) leader: Option<Link>,
    /// Connected, not attached; until when.
    pub(super) pending: Vec<(Link, Instant)>,
    /// Refused; closed once they have been told, or then.
    pub(super) closing: Vec<(Link, Instant)>,
    /// Descendants that were killed after the agent had ended, by id and start.
    pub(super) swept: BTreeSet<(i32, u64)>,
    pub(super) run_dir: PathBuf,
    pub(super) launch_id: String,
    pub(super) socket: PathBuf,
    pub(super) scratch: Vec<u8>,
    listener: UnixListener,
    signals: SignalFd,
    links: LinkId,
    /// Children may wait although no signal says so.
    reap_again: bool,
    clock: Clock,
    pub(super) events: VecDeque<Event>,
}

/// What a descriptor in the wait belongs to.
#[derive(Debug, Clone, Copy)]
enum Token {
    LinkRead(LinkId),
    LinkWrite(LinkId),
    Report,
    Pipe(usize),
    Connection(u32),
    RelayListener,
    Listener,
    Signals,
}

impl Shell {
    /// Around an agent that has just been forked.
    pub(super) fn new(now: Instant, launch: &Launch, leader: Link, signals: SignalFd, parts: Parts) -> Self {
        let Parts { agent, relay, listener, socket, memory } = parts;
        Self {
            core: Core::new(now, launch, leader.id()),
            agent,
            ring: Ring::new(launch.ring_bytes),
            relay,
            tree: Tree::of_this_process(),
            sampler: Sampler::new(now, sys::stat_units()),
            memory,
            leader: Some(leader),
            pending: Vec::new(),
            closing: Vec::new(),
            swept: BTreeSet::new(),
            run_dir: PathBuf::from(&launch.run_dir),
            launch_id: launch.launch_id.clone(),
            socket,
            scratch: vec![0; SCRATCH_LEN],
            listener,
            signals,
            links: 0,
            reap_again: false,
            clock: Clock::new(now),
            events: VecDeque::new(),
        }
    }

    /// Until the end.
    pub(super) fn run(mut self) -> ExitCode {
        // What came with the launch has been read already, so no wait would end for it.
        if let Some(link) = self.leader.as_ref().map(Link::id) {
            self.read_link(link);
        }
        loop {
            if let Some(end) = self.turn() {
                return self.farewell(end);
            }
        }
    }

    fn turn(&mut self) -> Option<End> {
        let (ready, woke) = self.select();
        for (token, revents) in ready {
            self.gather(token, revents);
        }
        if self.reap_again {
            self.reap();
        }
        if woke {
            self.events.push_back(Event::Woke);
        }
        self.events.push_back(Event::Tick);
        while let Some(event) = self.events.pop_front() {
            match &event {
                // What a channel sent behind the frame for which it was refused is nobody's any more.
                Event::Frame { link, .. } | Event::BadFrame { link, .. } if self.link(*link).is_none() => continue,
                Event::Closed { link } => self.forget(*link),
                _ => {}
            }
            for action in self.core.step(self.clock.at(), event) {
                if let Some(end) = self.perform(action) {
                    return Some(end);
                }
            }
        }
        self.pump();
        None
    }

    /// Waits. Returns what is ready, and whether we had been kept from running.
    fn select(&mut self) -> (Vec<(Token, i16)>, bool) {
        let now = self.clock.at();
        self.pending.retain(|(_, until)| now < *until);
        self.closing.retain(|(link, until)| now < *until && !link.is_flushed());
        let others = self.pending.iter().chain(&self.closing).map(|(_, until)| *until).chain(self.relay.expire(now));
        let wake = others.fold(self.core.next_wake(), Instant::min);
        let idle = self.events.is_empty() && !self.reap_again;
        let timeout = if idle { wake.saturating_duration_since(Instant::now()) } else { Duration::ZERO };

        let (tokens, mut fds) = self.interests();
        if sys::poll(&mut fds, timeout).is_err() {
            // Out of memory or descriptors: nothing is ready, the clock goes on, and the loop must not spin.
            std::thread::sleep(Duration::from_millis(10));
        }

        let woke = self.clock.turn(timeout);
        let ready =
            tokens.into_iter().zip(fds.iter().map(|fd| fd.revents)).filter(|(_, revents)| *revents != 0).collect();
        (ready, woke)
    }

    /// In the order in which they are looked at: orders before output, output before the news that its writer has ended.
    fn interests(&self) -> (Vec<Token>, Vec<libc::pollfd>) {
        let mut list = Vec::with_capacity(16);
        for link in self.leader.iter().chain(self.pending.iter().map(|(link, _)| link)) {
            list.push((Token::LinkRead(link.id()), link.read_interest()));
            list.push((Token::LinkWrite(link.id()), link.write_interest()));
        }
        list.extend(self.closing.iter().map(|(link, _)| (Token::LinkWrite(link.id()), link.write_interest())));
        list.extend(self.agent.report.iter().map(|(file, _)| (Token::Report, sys::interest(file, libc::POLLIN))));
        for (index, pipe) in self.agent.pipes.iter().enumerate() {
            list.extend(pipe.iter().map(|(file, _)| (Token::Pipe(index), sys::interest(file, libc::POLLIN))));
        }
        if let Some(leader) = &self.leader {
            let connections = self.relay.interests(leader.has_room());
            list.extend(connections.map(|(conn, fd)| (Token::Connection(conn), fd)));
            list.push((Token::RelayListener, self.relay.accept_interest()));
        }
        if self.pending.len() < PENDING_MAX {
            list.push((Token::Listener, sys::interest(&self.listener, libc::POLLIN)));
        }
        list.push((Token::Signals, sys::interest(&self.signals, libc::POLLIN)));
        list.into_iter().unzip()
    }

    fn gather(&mut self, token: Token, revents: i16) {
        match token {
            Token::LinkRead(link) => self.read_link(link),
            // Writing itself is done at the end of each turn; here a reader that has gone is seen, also when there is nothing to write.
            Token::LinkWrite(link) => {
                if revents & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0 {
                    self.events.push_back(Event::Closed { link });
                }
            }
            Token::Report => self.read_report(),
            Token::Pipe(index) => {
                self.read_pipe(index);
            }
            Token::Connection(conn) => {
                if let Some(leader) = &mut self.leader {
                    self.relay.ready(conn, leader, &mut self.scratch);
                }
            }
            Token::RelayListener => {
                if let Some(leader) = &mut self.leader {
                    self.relay.accept(leader);
                }
            }
            Token::Listener => self.accept(),
            Token::Signals => self.read_signals(),
        }
    }

    /// The channel with this id, unless it has been refused.
    pub(super) fn link(&mut self, id: LinkId) -> Option<&mut Link> {
        self.leader.iter_mut().chain(self.pending.iter_mut().map(|(link, _)| link)).find(|link| link.id() == id)
    }

    /// Takes a channel out, to close it or to use it otherwise.
    pub(super) fn take_link(&mut self, id: LinkId) -> Option<Link> {
        if self.leader.as_ref().is_some_and(|link| link.id() == id) {
            return self.leader.take();
        }
        let index = self.pending.iter().position(|(link, _)| link.id() == id)?;
        Some(self.pending.swap_remove(index).0)
    }

    fn forget(&mut self, id: LinkId) {
        drop(self.take_link(id));
        self.closing.retain(|(link, _)| link.id() != id);
    }

    fn read_link(&mut self, id: LinkId) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut events = std::mem::take(&mut self.events);
        if let Some(link) = self.link(id) {
            let received = link.receive(&mut scratch);
            let end = loop {
                match link.next() {
                    Ok(Some(frame)) => events.push_back(Event::Frame { link: id, frame }),
                    Ok(None) => break received.err().map(|_| Event::Closed { link: id }),
                    Err(message) => break Some(Event::BadFrame { link: id, message }),
                }
            };
            events.extend(end);
        }
        self.events = events;
        self.scratch = scratch;
    }

    /// Gives each channel what it takes.
    fn pump(&mut self) {
        let mut gone: Vec<LinkId> = Vec::new();
        if let Some(leader) = &mut self.leader
            && leader.pump(&mut self.ring).is_err()
        {
            gone.push(leader.id());
        }
        for (link, _) in self.pending.iter_mut().chain(&mut self.closing) {
            if link.flush().is_err() {
                gone.push(link.id());
            }
        }
        self.events.extend(gone.into_iter().map(|link| Event::Closed { link }));
    }

    fn accept(&mut self) {
        while self.pending.len() < PENDING_MAX {
            let Ok((stream, _)) = self.listener.accept() else { return };
            self.links += 1;
            if let Ok(link) = Link::accepted(self.links, stream) {
                self.pending.push((link, self.clock.at() + ATTACH_WAIT));
            }
        }
    }

    fn read_report(&mut self) {
        let Some((file, program)) = &mut self.agent.report else { return };
        let mut bytes = [0; 16];
        match file.read(&mut bytes) {
            Ok(0) => {
                self.agent.execed = true;
                let (pid, at_ms) = (self.agent.pid.cast_unsigned(), self.agent.started_at_ms);
                self.events.push_back(Event::Execed { pid, at_ms });
            }
            Ok(len) => {
                let failure = Failure::parse(&bytes[..len]);
                let message = failure.map_or_else(|| "no reason".to_owned(), |it| program::describe(it, program));
                self.events.push_back(Event::ExecFailed(message));
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return,
            Err(error) => self.events.push_back(Event::ExecFailed(format!("cannot see whether it started: {error}"))),
        }
        self.agent.report = None;
    }

    /// Reads once, so that a flood on one stream leaves turns to everything else. Returns whether there may be more.
    pub(super) fn read_pipe(&mut self, index: usize) -> bool {
        let Some((file, lines)) = &mut self.agent.pipes[index] else { return false };
        match file.read(&mut self.scratch) {
            Ok(len) if len > 0 => {
                lines.feed(&self.scratch[..len], unix_ms(), &mut self.ring);
                true
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Ok(_) | Err(_) => {
                lines.finish(unix_ms(), &mut self.ring);
                self.agent.pipes[index] = None;
                false
            }
        }
    }

    fn read_signals(&mut self) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            if signal.ssi_signo == libc::SIGCHLD.cast_unsigned() {
                self.reap_again = true;
            } else {
                self.events.push_back(Event::AskedToEnd);
            }
        }
    }

    fn reap(&mut self) {
        let mut agent = None;
        self.reap_again = true;
        let mut alone = false;
        for _ in 0..REAPS_MAX {
            match sys::reap() {
                Reaped::Child(pid, ended) if pid == self.agent.pid && !self.agent.reaped => {
                    self.agent.reaped = true;
                    agent = Some(ended);
                }
                Reaped::Child(..) => continue,
                Reaped::NoneYet => self.reap_again = false,
                Reaped::NoChildren => (self.reap_again, alone) = (false, true),
            }
            if !self.reap_again {
                break;
            }
        }
        if let Some(ended) = agent {
            // Its last word on whether it ever ran is in the pipe by now.
            self.read_report();
            // The kernel counts before it kills.
            let starved = self.memory.look(std::time::Instant::now());
            self.events.push_back(Event::AgentEnded { ended, alone, starved });
        } else if alone {
            self.events.push_back(Event::NoDescendants);
        }
    }
}
