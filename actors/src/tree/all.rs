//! What happens to all children: ordered starts, reverse-ordered stops.
//!
//! Both are driven by looking at the child whose turn it is after every input, so that an exit, a timeout or an operator's order in
//! between needs no case of its own.

use std::time::Instant;

use crate::exit::ExitReason;

use super::slot::{Force, SUPERSEDED, State, Then, Until};
use super::{Action, Cause, Key, Refusal, Token, Tree};

/// An ordered stop under way.
pub(super) struct StopRun {
    /// In start order; the last is the one being stopped.
    remaining: Vec<Key>,
    then: AfterStop,
    /// A child was killed and has not ended.
    stuck: bool,
}

enum AfterStop {
    Answer(Token),
    StartAll(Token),
    Finish,
}

impl<P> Tree<P> {
    /// Starts in order whatever does not run. What is done stays done, unless `completed` asks for it, too.
    pub(super) fn start_all(&mut self, now: Instant, token: Option<Token>, completed: bool) {
        if let (Some(StopRun { then: then @ AfterStop::Answer(_), .. }), Some(token)) = (&mut self.stops, token) {
            // The stop goes on to its end, and the start follows: whoever asked for the stop sees it happen no more.
            let AfterStop::Answer(stopper) = std::mem::replace(then, AfterStop::StartAll(token)) else { return };
            return self.answer(stopper, SUPERSEDED);
        }
        let keys: Vec<Key> = self
            .slots
            .iter()
            .filter(|(_, slot)| match slot.state {
                State::Stopped | State::Failed { .. } | State::BackingOff { .. } | State::Pending => true,
                State::Completed => completed,
                // Its turn goes on: the next child waits for it.
                State::Starting { .. } => true,
                State::Running | State::Stopping { .. } => false,
            })
            .map(|(key, _)| *key)
            .collect();
        for key in &keys {
            self.clear_record(*key);
            if self.slots.get(key).is_some_and(|slot| !slot.state.lives()) {
                self.enter(now, *key, State::Pending);
            }
        }
        self.starts = keys.into();
        self.start_waiters.extend(token);
    }

    /// Stops everything in reverse order, then starts everything if `restart`.
    pub(super) fn stop_all(&mut self, now: Instant, token: Token, restart: bool) {
        let then = if restart { AfterStop::StartAll(token) } else { AfterStop::Answer(token) };
        self.begin_stop_run(now, then);
    }

    pub(super) fn shutdown(&mut self, now: Instant) {
        if !self.closing {
            self.closing = true;
            self.begin_stop_run(now, AfterStop::Finish);
        }
    }

    fn begin_stop_run(&mut self, now: Instant, then: AfterStop) {
        if let Some(StopRun { then: AfterStop::Answer(token) | AfterStop::StartAll(token), .. }) = self.stops.take() {
            self.answer(token, SUPERSEDED);
        }
        self.starts.clear();
        for token in std::mem::take(&mut self.start_waiters) {
            self.answer(token, SUPERSEDED);
        }
        let keys: Vec<Key> = self.slots.keys().copied().collect();
        for key in keys.iter().rev() {
            let Some(slot) = self.slots.get_mut(key) else { continue };
            match slot.state {
                State::Starting { .. } | State::Running => slot.doomed = true,
                State::Stopping { then: Then::Launch | Then::CountStartTimeout, force, until } => {
                    slot.state = State::Stopping { then: Then::Rest, force, until };
                    self.release(*key, Until::Started, &SUPERSEDED);
                }
                // What has failed is still failed when the daemon comes back; only its retry is off.
                State::Failed { .. } if self.closing => self.enter_quietly(*key, State::Failed { retry_at: None }),
                State::Pending | State::BackingOff { .. } | State::Failed { .. } => self.rest(now, *key),
                State::Stopping { then: Then::Rest | Then::Remove, .. } | State::Stopped | State::Completed => {}
            }
        }
        self.stops = Some(StopRun { remaining: keys, then, stuck: false });
    }

    /// Takes the ordered start and stop as far as they can go now.
    pub(super) fn drive(&mut self, now: Instant) {
        self.drive_stops(now);
        if self.stops.is_none() {
            self.drive_starts(now);
        }
    }

    fn drive_stops(&mut self, now: Instant) {
        while let Some(key) = self.stops.as_ref().and_then(|run| run.remaining.last().copied()) {
            match self.slots.get(&key).map(|slot| slot.state) {
                Some(State::Starting { .. } | State::Running) => {
                    self.release(key, Until::Started, &SUPERSEDED);
                    return self.begin_stop(now, key, Then::Rest);
                }
                Some(State::Stopping { force: Force::GivenUp, .. }) => {
                    if let Some(run) = &mut self.stops {
                        run.stuck = true;
                    }
                }
                Some(State::Stopping { .. }) => return,
                // Somebody asked for a start after the run had begun: this run still comes to it.
                Some(State::BackingOff { .. } | State::Pending | State::Failed { retry_at: Some(_) }) => {
                    self.rest(now, key);
                }
                Some(State::Stopped | State::Completed | State::Failed { retry_at: None }) | None => {}
            }
            if let Some(run) = &mut self.stops {
                run.remaining.pop();
            }
        }
        let Some(run) = self.stops.take() else { return };
        match run.then {
            AfterStop::Answer(token) if run.stuck => self.answer(token, Err(Refusal::Unresponsive)),
            AfterStop::Answer(token) => self.answer(token, Ok(())),
            AfterStop::StartAll(token) => self.start_all(now, Some(token), true),
            AfterStop::Finish => {
                if !std::mem::replace(&mut self.finished, true) {
                    self.out.push(Action::Finished(ExitReason::Shutdown));
                }
            }
        }
    }

    fn drive_starts(&mut self, now: Instant) {
        if self.closing {
            return;
        }
        while let Some(key) = self.starts.front().copied() {
            match self.slots.get(&key).map(|slot| slot.state) {
                Some(State::Pending) => return self.launch(now, key, Cause::Asked),
                Some(State::Stopping { force: Force::GivenUp, .. }) => {}
                Some(State::Starting { .. } | State::Stopping { .. }) => return,
                Some(_) | None => {}
            }
            self.starts.pop_front();
        }
        for token in std::mem::take(&mut self.start_waiters) {
            self.answer(token, Ok(()));
        }
        if !std::mem::replace(&mut self.born, true) {
            self.out.push(Action::Ready);
        }
    }
}
