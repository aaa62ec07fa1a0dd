//! The end: what is left in the pipes, the exit record, the last frames.

use std::{
    fs, io,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use super::{core::End, link::Link, ring::Ring, run::Shell, start::unix_ms, sys};
use crate::wire::channel::{Exit, FromLauncher};

/// How long the daemon may take nothing before it is left behind; the record has told the essential.
const FLUSH_STALL_MAX: Duration = Duration::from_secs(2);
/// How long it may take in all.
const FLUSH_MAX: Duration = Duration::from_secs(10);
/// Reads of 64 KiB of each pipe at the end: 2 MiB, twice what a pipe holds at most without privileges.
const DRAIN_READS_MAX: usize = 32;

impl Shell {
    /// Says the last words. When nobody leads, the record is all there is.
    pub(super) fn farewell(mut self, end: End) -> ExitCode {
        self.relay.drop_all();
        self.drain();
        let frame = match end {
            End::StartFailed { message } => FromLauncher::StartFailed { message },
            End::Exited { ended, why, unswept } => {
                let exit = Exit {
                    agent: self.agent.name.clone(),
                    incarnation: self.agent.incarnation,
                    code: ended.code,
                    signal: ended.signal,
                    why,
                    at_ms: unix_ms(),
                    swept: u32::try_from(self.swept.len()).unwrap_or(u32::MAX),
                    unswept: if unswept { self.tree.alive() } else { 0 },
                    last_seq: self.ring.next_seq() - 1,
                };
                // A full disk does not keep the frame from going out.
                let _ = write_record(&self.run_dir, &self.launch_id, &exit);
                FromLauncher::Exit(exit)
            }
        };
        if let Some(leader) = &mut self.leader {
            say(leader, Some(&mut self.ring), &frame, &mut self.scratch);
        }
        // All that is left is to vanish, which must not keep the daemon and the successor from the processor.
        sys::step_back();
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
    say(link, None, frame, &mut [0; 1024]);
}

/// The rest of the output, then the frame, then waits until it is written.
fn say(link: &mut Link, mut ring: Option<&mut Ring>, frame: &FromLauncher, scratch: &mut [u8]) {
    let start = Instant::now();
    let mut moved = start;
    let mut said = false;
    let mut listening = true;
    loop {
        let written = match &mut ring {
            Some(ring) => link.pump(ring),
            None => link.flush(),
        };
        let Ok(written) = written else { return };
        let now = Instant::now();
        if written > 0 {
            moved = now;
        }
        let rest = ring.as_ref().is_some_and(|ring| ring.has_unsent());
        if !rest && !said {
            link.send(frame);
            said = true;
            continue;
        }
        if said && link.is_flushed() {
            return;
        }
        let until = (moved + FLUSH_STALL_MAX).min(start + FLUSH_MAX);
        if now >= until {
            return;
        }
        // Orders that come now are read and dropped, so that a daemon which writes before it reads does not wait for us.
        let mut fds = vec![link.write_interest()];
        fds.extend(listening.then(|| link.read_interest()));
        if sys::poll(&mut fds, until - now).is_err() {
            return;
        }
        if fds.get(1).is_some_and(|fd| fd.revents != 0) {
            listening = link.receive(scratch).is_ok();
            while let Ok(Some(_)) = link.next() {}
        }
    }
}

/// Writes `RUN_DIR/LAUNCH_ID.exit` so that a reader sees all of it or nothing. It is not synced: a machine that loses power has lost the
/// processes, too, and that is what a missing record means.
pub(super) fn write_record(run_dir: &Path, launch_id: &str, exit: &Exit) -> io::Result<()> {
    let unfinished = run_dir.join(format!(".{launch_id}.exit.tmp"));
    let written = serde_json::to_vec(exit)
        .map_err(io::Error::other)
        .and_then(|json| fs::write(&unfinished, json))
        .and_then(|()| fs::rename(&unfinished, run_dir.join(format!("{launch_id}.exit"))));
    if written.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    written
}
