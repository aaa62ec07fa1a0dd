//! What happens to one child: launch, ready, exit, deadline, order.

use std::time::{Duration, Instant};

use super::slot::{Force, Goal, SUPERSEDED, State, Then, Until, later};
use super::{Action, Cause, Key, Refusal, Token, Tree};
use crate::event::EventKind;
use crate::exit::ExitReason;
use crate::flags::OnExceeded;
use crate::spec::{RestartType, Shutdown};

/// How long a killed incarnation may take to end before nobody waits for it any more. A kill takes effect when the actor's handler
/// returns; a handler that blocks its thread for longer than this is stuck.
pub const KILL_WAIT: Duration = Duration::from_secs(10);

/// What an exit leads to.
#[must_use]
enum Verdict {
    Rest,
    Complete,
    Retry { attempt: u32, delay: Duration, cause: Cause },
    Fail { retry_in: Option<Duration> },
}

impl<P> Tree<P> {
    pub(super) fn launch(&mut self, now: Instant, key: Key, cause: Cause) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
        let cause = if std::mem::take(&mut slot.adopt) { Cause::Adopted } else { cause };
        slot.incarnation += u64::from(cause != Cause::Adopted);
        slot.restarts += u64::from(cause == Cause::Automatic);
        slot.doomed = false;
        let (incarnation, attempt) = (slot.incarnation, slot.attempt);
        let give_up_at = slot.spec.start_timeout.map(|limit| later(now, limit));
        self.enter(now, key, State::Starting { give_up_at });
        self.emit(now, key, EventKind::Starting { attempt });
        self.out.push(Action::Launch { key, incarnation, cause });
    }

    pub(super) fn started(&mut self, now: Instant, key: Key, incarnation: u64) {
        let Some(slot) = self.slots.get(&key) else { return };
        if slot.incarnation != incarnation || !matches!(slot.state, State::Starting { .. }) {
            return;
        }
        let took = now.saturating_duration_since(slot.since);
        self.enter(now, key, State::Running);
        self.emit(now, key, EventKind::Started { took });
        self.release(key, Until::Started, &Ok(()));
    }

    pub(super) fn down(&mut self, now: Instant, chance: f64, key: Key, incarnation: u64, reason: ExitReason) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
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
        slot.last_exit = Some((reason.clone(), now, incarnation));
        self.emit(now, key, EventKind::Exited { reason: reason.clone() });
        self.release(key, Until::Ended, &Ok(()));
        match then {
            None => self.settle(now, chance, key, reason),
            Some(Then::Rest | Then::CountStartTimeout) => self.rest(now, key),
            Some(Then::Remove) => self.remove(now, key),
            Some(Then::Launch) => {
                self.clear_record(key);
                self.launch(now, key, Cause::Asked);
            }
        }
    }

    /// An incarnation has ended by itself: the restart type and the window decide.
    fn settle(&mut self, now: Instant, chance: f64, key: Key, reason: ExitReason) {
        let verdict = self.verdict(now, chance, key, &reason);
        self.release(key, Until::Started, &Err(Refusal::StartFailed(reason.clone())));
        match verdict {
            Verdict::Rest => self.rest(now, key),
            Verdict::Complete => {
                self.enter(now, key, State::Completed);
                self.emit(now, key, EventKind::Completed);
            }
            Verdict::Retry { attempt, delay, cause } => {
                self.enter(now, key, State::BackingOff { until: later(now, delay), cause });
                self.emit(now, key, EventKind::BackingOff { attempt, delay });
            }
            Verdict::Fail { retry_in } => {
                self.enter(now, key, State::Failed { retry_at: retry_in.map(|wait| later(now, wait)) });
                self.emit(now, key, EventKind::Failed { reason, retry_in });
            }
        }
    }

    fn verdict(&mut self, now: Instant, chance: f64, key: Key, reason: &ExitReason) -> Verdict {
        let Some(slot) = self.slots.get_mut(&key) else { return Verdict::Rest };
        if slot.doomed {
            return Verdict::Rest;
        }
        match (slot.spec.restart, reason.is_normal()) {
            (RestartType::Transient | RestartType::Temporary, true) => return Verdict::Complete,
            (RestartType::Temporary, false) => return Verdict::Fail { retry_in: None },
            (RestartType::Permanent, _) | (RestartType::Transient, false) => {}
        }
        if slot.ran_for(now) >= slot.spec.backoff.reset_after {
            slot.attempt = 0;
        }
        if !reason.is_debited() {
            // Due at once: whoever knows why it was lost also knows when it can live again, and makes its start wait till then.
            return Verdict::Retry { attempt: slot.attempt, delay: Duration::ZERO, cause: Cause::Replacement };
        }
        if slot.spec.intensity.is_some_and(|intensity| !slot.window.admit(now, intensity)) {
            return Verdict::Fail {
                retry_in: match (slot.spec.on_exceeded, slot.spec.restart) {
                    (OnExceeded::RetryAfter(wait), RestartType::Permanent) => Some(wait),
                    _ => None,
                },
            };
        }
        slot.attempt = slot.attempt.saturating_add(1);
        let delay = slot.spec.backoff.delay(slot.attempt, chance);
        Verdict::Retry { attempt: slot.attempt, delay, cause: Cause::Automatic }
    }

    /// Looks at every child whose instant has come.
    pub(super) fn tick(&mut self, now: Instant) {
        while let Some((at, key)) = self.deadlines.first().copied() {
            if at > now {
                return;
            }
            self.deadlines.pop_first();
            let Some(slot) = self.slots.get(&key) else { continue };
            match slot.state {
                State::BackingOff { cause, .. } => self.launch(now, key, cause),
                State::Failed { .. } => {
                    self.clear_record(key);
                    self.launch(now, key, Cause::Automatic);
                }
                State::Starting { .. } => self.begin_stop(now, key, Then::CountStartTimeout),
                State::Stopping { then, force, .. } => self.press(now, key, then, force),
                State::Pending | State::Running | State::Stopped | State::Completed => {}
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
        let Some(slot) = self.slots.get(&key) else { return };
        let (force, until, action) = match slot.spec.shutdown {
            Shutdown::Brutal => (Force::Brutal, Some(now + KILL_WAIT), Action::Kill(key)),
            Shutdown::Deadline(limit) => (Force::Asked, Some(later(now, limit)), Action::Stop(key)),
            Shutdown::Infinity => (Force::Asked, None, Action::Stop(key)),
        };
        self.enter(now, key, State::Stopping { then, force, until });
        self.emit(now, key, EventKind::Stopping);
        self.out.push(action);
    }

    /// An operator wants something of one child.
    pub(super) fn order(&mut self, now: Instant, token: Token, key: Key, goal: Goal) {
        let Some(state) = self.slots.get(&key).map(|slot| slot.state) else { return };
        match (state, goal) {
            (State::Running, Goal::Start) => self.answer(token, Err(Refusal::Running)),
            (State::Starting { .. }, Goal::Start) => self.wait_for(key, token, Until::Started),
            (State::Stopping { then: Then::Remove, .. }, Goal::Start | Goal::Stop | Goal::Restart) => {
                self.answer(token, Err(Refusal::Superseded));
            }
            (State::Stopping { force: Force::GivenUp, .. }, _) => self.answer(token, Err(Refusal::Unresponsive)),
            (State::Stopping { force, until, .. }, _) => {
                let then = match goal {
                    Goal::Start | Goal::Restart => Then::Launch,
                    Goal::Stop => Then::Rest,
                    Goal::Delete => Then::Remove,
                };
                self.enter_quietly(key, State::Stopping { then, force, until });
                self.join(key, token, goal);
            }
            (State::Starting { .. } | State::Running, Goal::Stop | Goal::Delete | Goal::Restart) => {
                self.begin_stop(
                    now,
                    key,
                    match goal {
                        Goal::Stop => Then::Rest,
                        Goal::Delete => Then::Remove,
                        Goal::Start | Goal::Restart => Then::Launch,
                    },
                );
                self.join(key, token, goal);
            }
            (_, Goal::Start | Goal::Restart) => {
                self.clear_record(key);
                self.wait_for(key, token, Until::Started);
                self.launch(now, key, Cause::Asked);
            }
            (_, Goal::Stop) => {
                self.rest(now, key);
                self.answer(token, Ok(()));
            }
            (_, Goal::Delete) => {
                self.remove(now, key);
                self.answer(token, Ok(()));
            }
        }
    }

    /// Waits for the end of a stop that serves `goal`; whoever waited for a start that will not come is told.
    fn join(&mut self, key: Key, token: Token, goal: Goal) {
        let until = match goal {
            Goal::Start | Goal::Restart => Until::Started,
            Goal::Stop => Until::Ended,
            Goal::Delete => Until::Removed,
        };
        if until != Until::Started {
            self.release(key, Until::Started, &SUPERSEDED);
        }
        self.wait_for(key, token, until);
    }

    pub(super) fn wait_for(&mut self, key: Key, token: Token, until: Until) {
        if let Some(slot) = self.slots.get_mut(&key) {
            slot.waiters.push((token, until));
        }
    }

    /// Answers everyone who waits for `until`.
    pub(super) fn release(&mut self, key: Key, until: Until, result: &Result<(), Refusal>) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
        if slot.waiters.is_empty() {
            return;
        }
        let tokens = slot.take_waiters(until);
        self.out.extend(tokens.into_iter().map(|token| Action::Answer(token, result.clone())));
    }

    /// Makes it rest; says so once.
    pub(super) fn rest(&mut self, now: Instant, key: Key) {
        let Some(slot) = self.slots.get(&key) else { return };
        if !matches!(slot.state, State::Stopped) {
            self.enter(now, key, State::Stopped);
            self.emit(now, key, EventKind::Stopped);
        }
    }

    fn remove(&mut self, now: Instant, key: Key) {
        self.emit(now, key, EventKind::Removed);
        self.release(key, Until::Removed, &Ok(()));
        let Some(slot) = self.slots.remove(&key) else { return };
        if let Some(at) = slot.state.due() {
            self.deadlines.remove(&(at, key));
        }
        self.ids.remove(&slot.spec.id);
        self.out.push(Action::Dispose(slot.payload));
    }

    pub(super) fn clear_record(&mut self, key: Key) {
        if let Some(slot) = self.slots.get_mut(&key) {
            slot.clear_record();
        }
    }

    /// Enters a state: its clock starts now, its deadline replaces the old one.
    pub(super) fn enter(&mut self, now: Instant, key: Key, state: State) {
        if let Some(slot) = self.slots.get_mut(&key) {
            slot.since = now;
        }
        if state.rests() {
            self.out.push(Action::Close(key));
        }
        self.enter_quietly(key, state);
    }

    /// Changes the details of a state that goes on.
    pub(super) fn enter_quietly(&mut self, key: Key, state: State) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
        if let Some(at) = slot.state.due() {
            self.deadlines.remove(&(at, key));
        }
        if let Some(at) = state.due() {
            self.deadlines.insert((at, key));
        }
        slot.state = state;
    }

    pub(super) fn emit(&mut self, now: Instant, key: Key, kind: EventKind) {
        if let Some(slot) = self.slots.get(&key) {
            self.out.push(Action::Emit(slot.event(now, kind)));
        }
    }
}
