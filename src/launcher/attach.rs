//! `hivekeeper agent --attach RUN_DIR LAUNCH_ID`: joins stdin and stdout to a launcher's socket, for a daemon that can only execute commands where
//! the launcher lives. Bytes both ways, whatever they mean; whoever ends is felt on the other side as the end of a channel.
//!
//! When nobody listens it speaks itself, as a launcher would at its end: the exit record, or a refusal that says `nobody`.

use std::{
    fs::File,
    io::{ErrorKind, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use super::{
    farewell::{self, FLUSH_MAX, FLUSH_STALL_MAX},
    files,
    link::Link,
    sys,
};
use crate::wire::channel::{FromLauncher, NOBODY};

/// Bytes under way in one direction: a pipe's capacity.
const BUFFER_LEN: usize = 64 * 1024;
/// Nobody listens, and there is no exit record.
const EXIT_NOBODY: u8 = 3;
/// There is somebody, who can't be reached.
const EXIT_UNREACHABLE: u8 = 4;

/// Joins, until either side has ended.
pub(super) fn attach(run_dir: &Path, launch_id: &str) -> Result<ExitCode, String> {
    let (mut stdin, mut stdout) = sys::take_stdio().map_err(|error| format!("cannot use stdin and stdout: {error}"))?;
    let (frame, code) = match files::reach(run_dir, launch_id) {
        Ok(socket) => {
            if Bridge::new(&mut stdin, &mut stdout, &socket).run() {
                return Ok(ExitCode::SUCCESS);
            }
            // It ended before it saw us.
            absent(run_dir, launch_id)
        }
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            absent(run_dir, launch_id)
        }
        Err(error) => (refused("unreachable", error.to_string()), ExitCode::from(EXIT_UNREACHABLE)),
    };
    farewell::last_words(&mut Link::new(0, stdin, stdout), &frame);
    Ok(code)
}

/// What a launcher that has gone would have said.
fn absent(run_dir: &Path, launch_id: &str) -> (FromLauncher, ExitCode) {
    match files::read_record(run_dir, launch_id) {
        Ok(exit) => (FromLauncher::Exit(exit), ExitCode::SUCCESS),
        Err(error) => {
            let message = format!("nobody listens, and the exit record can't be read: {error}");
            (refused(NOBODY, message), ExitCode::from(EXIT_NOBODY))
        }
    }
}

fn refused(code: &str, message: String) -> FromLauncher {
    FromLauncher::Refused { code: code.to_owned(), message }
}

/// Bytes on their way in one direction.
struct Flow {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// More may come.
    gives: bool,
    /// What comes is wanted.
    takes: bool,
}

impl Flow {
    fn new() -> Self {
        Self { buffer: vec![0; BUFFER_LEN].into_boxed_slice(), start: 0, end: 0, gives: true, takes: true }
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn wants(&self) -> bool {
        self.gives && self.is_empty()
    }

    /// Reads once. Returns how much.
    fn fill(&mut self, mut source: impl Read) -> usize {
        match source.read(&mut self.buffer) {
            Ok(len) => {
                self.gives = len > 0;
                (self.start, self.end) = (0, len);
                len
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => 0,
            Err(_) => {
                self.gives = false;
                0
            }
        }
    }

    /// Writes what is taken now. Returns how much.
    fn drain(&mut self, mut sink: impl Write) -> usize {
        let before = self.start;
        while self.takes && !self.is_empty() {
            match sink.write(&self.buffer[self.start..self.end]) {
                Ok(len) if len > 0 => self.start += len,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Ok(_) | Err(_) => self.takes = false,
            }
        }
        let moved = self.start - before;
        if !self.takes {
            self.start = self.end;
        }
        moved
    }
}

/// Between a daemon and a launcher.
struct Bridge<'a> {
    stdin: &'a mut File,
    stdout: &'a mut File,
    socket: &'a UnixStream,
    /// From the daemon to the launcher.
    down: Flow,
    /// From the launcher to the daemon.
    up: Flow,
    /// The daemon has closed; what it said before may still be to be read.
    left: bool,
    /// The same of the launcher.
    hung_up: bool,
    /// The launcher has been told that nothing more comes.
    told: bool,
    /// It has said something.
    spoke: bool,
    /// Since when one side has been at its end.
    ending: Option<Instant>,
    /// When a byte last went over since then.
    moved: Instant,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Wait(Duration),
    /// Tell the launcher that nothing more comes.
    Tell,
    Over,
}

impl<'a> Bridge<'a> {
    fn new(stdin: &'a mut File, stdout: &'a mut File, socket: &'a UnixStream) -> Self {
        Self {
            stdin,
            stdout,
            socket,
            down: Flow::new(),
            up: Flow::new(),
            left: false,
            hung_up: false,
            told: false,
            spoke: false,
            ending: None,
            moved: Instant::now(),
        }
    }

    /// Until the end. Returns whether the launcher has said anything.
    fn run(mut self) -> bool {
        loop {
            match self.next(Instant::now()) {
                Next::Over => return self.spoke,
                Next::Tell => {
                    self.told = true;
                    let _ = self.socket.shutdown(Shutdown::Write);
                }
                Next::Wait(time) => self.wait(time),
            }
        }
    }

    /// Decides. As long as both sides live there is no deadline: they have their own.
    fn next(&mut self, now: Instant) -> Next {
        // A daemon that doesn't listen any more has nothing to say either.
        self.down.gives &= self.up.takes;
        if !self.up.gives && self.up.is_empty() {
            return Next::Over;
        }
        if self.down.gives && self.up.gives && !self.left && !self.hung_up {
            return Next::Wait(Duration::MAX);
        }
        let since = *self.ending.get_or_insert_with(|| {
            self.moved = now;
            now
        });
        let until = (self.moved + FLUSH_STALL_MAX).min(since + FLUSH_MAX);
        if now >= until {
            return Next::Over;
        }
        if !self.down.gives && self.down.is_empty() && !self.told {
            return Next::Tell;
        }
        Next::Wait(until - now)
    }

    fn wait(&mut self, time: Duration) {
        let none = libc::pollfd { fd: -1, events: 0, revents: 0 };
        let events = |wanted: bool, events| if wanted { events } else { 0 };
        // Without any event the end of the other side shows, which must be seen also while nothing can go over; once, or the loop would spin.
        let stdin = events(self.down.wants(), libc::POLLIN);
        let ended = self.left || !self.down.gives;
        let stdin = if stdin == 0 && ended { none } else { sys::interest(self.stdin, stdin) };
        let socket = events(self.up.wants(), libc::POLLIN) | events(!self.down.is_empty(), libc::POLLOUT);
        let socket = if socket == 0 && self.hung_up { none } else { sys::interest(self.socket, socket) };
        let stdout = events(!self.up.is_empty(), libc::POLLOUT);
        let stdout = if self.up.takes { sys::interest(self.stdout, stdout) } else { none };
        let mut fds = [stdin, socket, stdout];
        if sys::poll(&mut fds, time).is_err() {
            // Out of memory: the loop must not spin.
            std::thread::sleep(Duration::from_millis(10));
            return;
        }
        let [stdin, socket, stdout] = fds.map(|fd| fd.revents);
        self.left |= stdin & (libc::POLLHUP | libc::POLLERR) != 0;
        self.hung_up |= socket & (libc::POLLHUP | libc::POLLERR) != 0;
        self.up.takes &= stdout & libc::POLLERR == 0;
        let mut moved = 0;
        if stdin != 0 && self.down.wants() {
            moved += self.down.fill(&mut *self.stdin);
        }
        moved += self.down.drain(self.socket);
        if socket != 0 && self.up.wants() {
            let len = self.up.fill(self.socket);
            self.spoke |= len > 0;
            moved += len;
        }
        moved += self.up.drain(&mut *self.stdout);
        if moved > 0 {
            self.moved = Instant::now();
        }
    }
}

#[cfg(test)]
#[path = "attach_tests.rs"]
mod tests;
