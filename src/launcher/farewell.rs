//! The end: what is left in the pipes, the last frames, the exit record.
//!
//! The frame goes first if the daemon takes it at once, because somebody waits for it: the successor. The record follows before the channel
//! closes, so whoever saw the channel close finds it.

use std::{
    fs,
    process::ExitCode,
    time::{Duration, Instant},
};

use super::{core::End, files::write_record, link::Link, ring::Ring, run::Shell, start::unix_ms, sys};
use crate::wire::channel::{Exit, FromLauncher};

/// How long the daemon may take nothing before it is left behind; the record has told the essential.
pub(super) const FLUSH_STALL_MAX: Duration = Duration::from_secs(2);
/// How long it may take in all.
pub(super) const FLUSH_MAX: Duration = Duration::from_secs(10);
/// Reads of 64 KiB of each pipe at the end: 2 MiB, twice what a pipe holds at most without privileges.
const DRAIN_READS_MAX: usize = 32;

impl Shell {
    /// Says the last words. When nobody leads, the record is all there is.
    pub(super) fn farewell(mut self, end: End) -> ExitCode {
        self.relay.drop_all();
        self.drain();
        let (frame, record) = match end {
            End::StartFailed { message } => (FromLauncher::StartFailed { message }, None),
            End::Exited { ended, why, oom, unswept } => {
                let exit = Exit {
                    agent: self.agent.name.clone(),
                    incarnation: self.agent.incarnation,
                    code: ended.code,
                    signal: ended.signal,
                    why,
                    oom,
                    at_ms: unix_ms(),
                    swept: u32::try_from(self.swept.len()).unwrap_or(u32::MAX),
                    unswept: if unswept { self.tree.alive() } else { 0 },
                    last_seq: self.ring.next_seq() - 1,
                };
                (FromLauncher::Exit(exit.clone()), Some(exit))
            }
        };
        let mut words = self.leader.as_mut().map(|leader| LastWords::new(leader, Some(&mut self.ring), &frame));
        if let Some(words) = &mut words {
            words.go_on();
        }
        // What is left must not keep the daemon and the successor from the processor. As long as there is output to tell, it is not that.
        if words.as_ref().is_none_or(|words| words.over) {
            sys::step_back();
        }
        if let Some(exit) = record {
            // A full disk does not keep the frame from going out.
            let _ = write_record(&self.run_dir, &self.launch_id, &exit);
        }
        if let Some(words) = words {
            words.finish(&mut self.scratch);
        }
        let _ = fs::remove_file(&self.socket);
        ExitCode::SUCCESS
    }

    fn drain(&mut self) {
        for index in 0..self.agent.pipes.len() {
            for _ in 0..DRAIN_READS_MAX {
                if !self.read_pipe(index) {
                    break;
                }
                if let Some(leader) = &mut self.leader {
                    let _ = leader.pump(&mut self.ring);
                }
            }
            if let Some((_, lines)) = &mut self.agent.pipes[index] {
                lines.finish(unix_ms(), &mut self.ring);
            }
        }
    }
}

/// One frame before an end that came before the agent.
pub(super) fn last_words(link: &mut Link, frame: &FromLauncher) {
    LastWords::new(link, None, frame).finish(&mut [0; 1024]);
}

/// The rest of the output, then one frame.
struct LastWords<'a> {
    link: &'a mut Link,
    ring: Option<&'a mut Ring>,
    frame: &'a FromLauncher,
    /// The frame is under way.
    said: bool,
    /// Whether there is anybody to say it to, and anything left to say.
    over: bool,
}

impl<'a> LastWords<'a> {
    fn new(link: &'a mut Link, ring: Option<&'a mut Ring>, frame: &'a FromLauncher) -> Self {
        Self { link, ring, frame, said: false, over: false }
    }

    /// Writes what the daemon takes now. Returns whether it took anything.
    fn go_on(&mut self) -> bool {
        let mut moved = false;
        while !self.over {
            if !self.said && !self.ring.as_ref().is_some_and(|ring| ring.has_unsent()) {
                self.link.send(self.frame);
                self.said = true;
            }
            let written = match &mut self.ring {
                Some(ring) => self.link.pump(ring),
                None => self.link.flush(),
            };
            self.over = written.is_err() || (self.said && self.link.is_flushed());
            if written.is_ok_and(|written| written == 0) {
                break;
            }
            moved = true;
        }
        moved
    }

    /// Waits until all is written, or the daemon takes nothing any more.
    fn finish(mut self, scratch: &mut [u8]) {
        let start = Instant::now();
        let mut moved = start;
        let mut listening = true;
        loop {
            let went_on = self.go_on();
            if self.over {
                return;
            }
            let now = Instant::now();
            if went_on {
                moved = now;
            }
            let until = (moved + FLUSH_STALL_MAX).min(start + FLUSH_MAX);
            if now >= until {
                return;
            }
            // Orders that come now are read and dropped, so that a daemon which writes before it reads does not wait for us.
            let mut fds = vec![self.link.write_interest()];
            fds.extend(listening.then(|| self.link.read_interest()));
            if sys::poll(&mut fds, until - now).is_err() {
                return;
            }
            if fds.get(1).is_some_and(|fd| fd.revents != 0) {
                listening = self.link.receive(scratch).is_ok();
                while let Ok(Some(_)) = self.link.next() {}
            }
        }
    }
}
