//! What happens to one child: launch, ready, end, deadline.

use std::time::{Duration, Instant};

use super::slot::{Fate, Force, SUPERSEDED, State, Then, Trial, Until, later};
use super::{Action, Cause, Key, Refusal, Token, Tree};
use crate::event::EventKind;
use crate::exit::ExitReason;
use crate::spec::Shutdown;

/// How long a killed incarnation may take to end before nobody waits for it any more. A kill takes effect when the actor's handler
/// returns; a handler that blocks its thread for longer than this is stuck.
pub const KILL_WAIT: Duration = Duration::from_secs(10);

impl<P> Tree<P> {
    /// Starts a child by itself: at once, or in its turn where siblings depend on it.
    pub(super) fn start(&mut self, now: Instant, key: Key, cause: Cause) {
        if self.is_group() { self.start_in_turn(now, key, cause) } else { self.launch(now, key, cause) }
    }

    /// Starts a child in the order of all of them, where there is one.
    pub(super) fn start_in_turn(&mut self, now: Instant, key: Key, cause: Cause) {
        if self.is_simple() {
            return self.launch(now, key, cause);
        }
        self.enter(now, key, State::Pending { cause });
        self.turns.insert(key);
    }

    pub(super) fn launch(&mut self, now: Instant, key: Key, cause: Cause) {
        if std::mem::take(&mut self.contained) {
            self.window.clear();
        }
        let shared = self.shared_restarts(now);
        let Some(slot) = self.slots.get_mut(key) else { return };
        let cause = if std::mem::take(&mut slot.adopt) { Cause::Adopted } else { cause };
        slot.incarnation += u64::from(cause != Cause::Adopted);
        slot.restarts += u64::from(cause == Cause::Automatic);
        slot.fate = Fate::Free;
        let (incarnation, attempt) = (slot.incarnation, slot.attempt());
        let give_up_at = slot.spec.start_timeout.map(|limit| later(now, limit));
        slot.since = now;
        self.index.change(key, slot, State::Starting { give_up_at, cause });
        self.out.push(Action::Emit(slot.event(now, shared, EventKind::Starting { attempt })));
        self.out.push(Action::Launch { key, incarnation, cause });
    }

    pub(super) fn started(&mut self, now: Instant, key: Key, incarnation: u64) {
        let shared = self.shared_restarts(now);
        let Some(slot) = self.slots.get_mut(key) else { return };
        if slot.incarnation != incarnation || !matches!(slot.state, State::Starting { .. }) {
            return;
        }
        slot.trial = Trial::None;
        let took = now.saturating_duration_since(slot.since);
        slot.since = now;
        self.index.change(key, slot, State::Running);
        self.out.push(Action::Emit(slot.event(now, shared, EventKind::Started { took })));
        slot.answer_waiters((key, Until::Started), &Ok(()), &mut self.out);
    }

    pub(super) fn down(&mut self, now: Instant, chance: f64, key: Key, incarnation: u64, reason: ExitReason) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        if slot.incarnation != incarnation || !slot.state.lives() {
            return;
        }
        let (reason, then) = match slot.state {
            State::Stopping { then: Then::CountStartTimeout, .. } => (ExitReason::StartTimeout, None),
            State::Stopping { then, force: Force::Overdue | Force::GivenUp, .. } if reason == ExitReason::Killed => {
                (ExitReason::DeadlineExceeded, Some(then))
            }
            State::Stopping { then, .. } => (reason, Some(then)),
            _ => (reason, None),
        };
        // What is about to be forgotten needs no record: when very many children stop, that is as many allocations less.
        let forgotten = match then {
            Some(Then::Remove) => true,
            Some(Then::Rest | Then::CountStartTimeout) => slot.is_forgettable(self.flags.strategy),
            _ => false,
        };
        if !forgotten {
            slot.past_mut().last_exit = Some((reason.clone(), now, incarnation));
        }
        self.emit(now, key, EventKind::Exited { reason: reason.clone() });
        self.release(key, Until::Ended, &Ok(()));
        match then {
            None => self.settle(now, chance, key, reason),
            Some(Then::Rest | Then::CountStartTimeout) => self.rest(now, key),
            Some(Then::Remove) => self.remove(now, key),
            Some(Then::Launch) => {
                self.clear_record(key);
                self.start(now, key, Cause::Asked);
            }
            Some(Then::Return) => self.come_back(now, key),
            Some(Then::Fail) => self.fail_along(now, key),
        }
    }

    /// Looks at every child whose instant has come.
    pub(super) fn tick(&mut self, now: Instant) {
        while let Some(key) = self.index.due(now) {
            let Some(state) = self.slots.get(key).map(|slot| slot.state) else { return };
            match state {
                State::BackingOff { cause, .. } => self.start(now, key, cause),
                State::Failed { .. } => {
                    // What was to fail along and has not even ended comes back with the others.
                    self.failing.take_if(|failing| failing.is_over(now));
                    self.clear_record(key);
                    self.start_in_turn(now, key, Cause::Automatic);
                }
                State::Starting { .. } => self.begin_stop(now, key, Then::CountStartTimeout),
                State::Stopping { then, force, .. } => self.press(now, key, then, force),
                State::Pending { .. } | State::Running | State::Stopped | State::Completed => return,
            }
        }
    }

    /// A stop has outlived its deadline.
    fn press(&mut self, now: Instant, key: Key, then: Then, force: Force) {
        match force {
            Force::Asked => {
                let until = Some(now + KILL_WAIT);
                self.enter_quietly(key, State::Stopping { then, force: Force::Overdue, until });
                self.out.push(Action::Kill(key));
            }
            Force::Brutal | Force::Overdue | Force::GivenUp => {
                self.enter_quietly(key, State::Stopping { then, force: Force::GivenUp, until: None });
                for until in [Until::Started, Until::Ended, Until::Removed] {
                    self.release(key, until, &Err(Refusal::Unresponsive));
                }
            }
        }
    }

    /// Asks a living incarnation to end.
    pub(super) fn begin_stop(&mut self, now: Instant, key: Key, then: Then) {
        let Some(slot) = self.slots.get(key) else { return };
        let (force, until, action) = match slot.spec.shutdown {
            Shutdown::Brutal => (Force::Brutal, Some(now + KILL_WAIT), Action::Kill(key)),
            Shutdown::Deadline(limit) => (Force::Asked, Some(later(now, limit)), Action::Stop(key)),
            Shutdown::Infinity => (Force::Asked, None, Action::Stop(key)),
        };
        self.enter(now, key, State::Stopping { then, force, until });
        self.emit(now, key, EventKind::Stopping);
        self.out.push(action);
    }

    pub(super) fn wait_for(&mut self, key: Key, token: Token, until: Until) {
        if let Some(slot) = self.slots.get_mut(key) {
            slot.wait_for(token, until);
        }
    }

    /// Answers everyone who waits for `until`.
    pub(super) fn release(&mut self, key: Key, until: Until, result: &Result<(), Refusal>) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        slot.answer_waiters((key, until), result, &mut self.out);
    }

    /// It has no incarnation and gets none, because somebody wanted it so; it says so once.
    pub(super) fn rest(&mut self, now: Instant, key: Key) {
        let Some(slot) = self.slots.get(key) else { return };
        if slot.is_forgettable(self.flags.strategy) {
            return self.remove(now, key);
        }
        if !matches!(slot.state, State::Stopped) {
            self.release(key, Until::Started, &SUPERSEDED);
            self.enter(now, key, State::Stopped);
            self.emit(now, key, EventKind::Stopped);
        }
    }

    /// It has ended for good, as `state` and `kind` say.
    pub(super) fn retire(&mut self, now: Instant, key: Key, state: State, kind: EventKind) {
        let Some(slot) = self.slots.get(key) else { return };
        if state.is_final() && slot.is_forgettable(self.flags.strategy) {
            self.emit(now, key, kind);
            return self.remove(now, key);
        }
        self.enter(now, key, state);
        self.emit(now, key, kind);
    }

    pub(super) fn remove(&mut self, now: Instant, key: Key) {
        let Some(mut slot) = self.slots.remove(key) else { return };
        self.out.push(Action::Emit(slot.event(now, self.shared_restarts(now), EventKind::Removed)));
        slot.answer_waiters((key, Until::Started), &SUPERSEDED, &mut self.out);
        slot.answer_waiters((key, Until::Removed), &Ok(()), &mut self.out);
        self.index.leave(key, &slot);
        self.backoffs.leave(&slot.spec);
        self.ids.remove(&slot.spec.id, key);
        self.out.push(Action::Dispose(slot.payload));
    }

    /// Enters a state: its clock starts now, its deadline replaces the old one.
    pub(super) fn enter(&mut self, now: Instant, key: Key, state: State) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        slot.since = now;
        if state.rests() {
            // Whoever tried to start it has been answered; the next start is another's.
            slot.trial = Trial::None;
            self.out.push(Action::Close(key));
        }
        self.index.change(key, slot, state);
    }

    /// Changes the details of a state that goes on.
    pub(super) fn enter_quietly(&mut self, key: Key, state: State) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        self.index.change(key, slot, state);
    }

    pub(super) fn emit(&mut self, now: Instant, key: Key, kind: EventKind) {
        if let Some(slot) = self.slots.get(key) {
            let event = slot.event(now, self.shared_restarts(now), kind);
            self.out.push(Action::Emit(event));
        }
    }
}
