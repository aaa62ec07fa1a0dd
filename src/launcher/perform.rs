//! The effects of what the core has decided.

use std::time::{Duration, Instant};

use super::{
    core::{Action, End, Event, LinkId},
    run::Shell,
    start::unix_ms,
    sys,
};
use crate::wire::channel::{FromLauncher, State};

/// How long a refused channel may take to read why.
const REFUSED_WAIT: Duration = Duration::from_secs(5);
/// Refused channels at a time; the oldest goes first.
const REFUSED_MAX: usize = 4;

impl Shell {
    /// Performs one action. `Some` when it was the last.
    pub(super) fn perform(&mut self, action: Action) -> Option<End> {
        match action {
            Action::Term => {
                if !self.agent.reaped {
                    sys::signal_group(self.agent.pid, libc::SIGTERM);
                }
            }
            Action::Kill => {
                let killed = self.tree.kill();
                if self.agent.reaped {
                    self.swept.extend(killed);
                }
            }
            Action::Freeze => {
                let stable = self.tree.freeze();
                self.events.push_back(Event::Froze { stable });
            }
            Action::Thaw => self.tree.thaw(),
            Action::Sample => self.sample(),
            Action::Send(frame) => {
                if let Some(leader) = &mut self.leader {
                    leader.send(&frame);
                }
            }
            Action::Refuse { link, code, message } => self.refuse(link, code, message),
            Action::Lead { link, last_seq } => self.lead(link, last_seq),
            Action::DropRelays => self.relay.drop_all(),
            Action::Ack(seq) => self.ring.ack(seq),
            Action::Relay(frame) => {
                if let Some(leader) = &mut self.leader {
                    self.relay.frame(Instant::now(), frame, leader);
                }
            }
            Action::Finish(end) => return Some(end),
        }
        None
    }

    fn sample(&mut self) {
        let tree = self.tree.list();
        let sample = self.sampler.sample(Instant::now(), unix_ms(), sys::reaped_cpu_ms(), &tree);
        // Only what is new at the end speaks of the agent; what is new now took a child of it, or somebody else's agent.
        let _ = self.memory.look(std::time::Instant::now());
        self.ring.relax();
        // To a reader that is behind, the next reading says the same and more.
        if let Some(leader) = self.leader.as_mut().filter(|leader| leader.has_room()) {
            leader.send(&FromLauncher::Sample(sample));
        }
    }

    fn refuse(&mut self, id: LinkId, code: &str, message: String) {
        let Some(mut link) = self.take_link(id) else { return };
        link.send(&FromLauncher::Refused { code: code.to_owned(), message });
        if self.closing.len() == REFUSED_MAX {
            self.closing.remove(0);
        }
        self.closing.push((link, Instant::now() + REFUSED_WAIT));
    }

    fn lead(&mut self, id: LinkId, last_seq: u64) {
        let Some(mut link) = self.take_link(id) else { return };
        self.ring.attach(last_seq);
        link.send(&FromLauncher::State(State {
            agent: self.agent.name.clone(),
            incarnation: self.agent.incarnation,
            pid: self.agent.execed.then_some(self.agent.pid.cast_unsigned()),
            started_at_ms: self.agent.started_at_ms,
            paused: self.core.paused(),
            ending: self.core.ending(),
            ring_first_seq: self.ring.first_seq(),
            next_seq: self.ring.next_seq(),
            lease_ms: self.core.lease_ms(),
        }));
        self.leader = Some(link);
    }
}
