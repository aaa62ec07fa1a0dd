//! What a failure does to siblings: the group restart, the failure of a group, the end of the supervisor.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::slot::{Fate, State, Then, Trial, Until, later};
use super::{Cause, Key, Refusal, Tree};
use crate::event::{EventKind, Limit, LimitFollows};
use crate::exit::ExitReason;
use crate::flags::{Intensity, Meltdown, OnExceeded, Strategy};
use crate::spec::RestartType;

/// What the children of a group fail of.
#[derive(Clone)]
pub(super) struct Failing {
    /// The exit that was too many.
    reason: ExitReason,
    /// When all of them are tried again.
    retry_at: Option<Instant>,
}

impl Failing {
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.retry_at.is_some_and(|at| at <= now)
    }
}

impl<P> Tree<P> {
    /// The first child of those that are restarted together when `key` fails; they are all from there on.
    fn scope(&self, key: Key) -> Key {
        if self.flags.strategy == Strategy::OneForAll { Key::FIRST } else { key }
    }

    /// `key` has failed and backs off: what was started after it (or everything) is stopped and comes back with it. What was stopped by an
    /// operator, has completed or failed stays as it is.
    pub(super) fn restart_group(&mut self, now: Instant, key: Key, cause: Cause, reason: &ExitReason) {
        self.tell_starters(reason);
        self.take_along(now, key, cause);
    }

    /// What an earlier life of the supervisor left. What lives is taken over at once and in no order; a failure whose group had not come back yet
    /// stops it again, as it would have then.
    pub(super) fn take_up(&mut self, now: Instant) {
        let living: Vec<Key> = self.slots.iter().filter(|(_, slot)| slot.adopt).map(|(key, _)| key).collect();
        for key in living {
            self.launch(now, key, Cause::Asked);
        }
        let Some(failed) = self.index.first_backing_off() else { return };
        if let Some(State::BackingOff { cause, .. }) = self.slots.get(failed).map(|slot| slot.state) {
            self.take_along(now, failed, cause);
        }
    }

    fn take_along(&mut self, now: Instant, key: Key, cause: Cause) {
        let from = self.scope(key);
        let mut siblings = Vec::new();
        for (_, slot) in self.slots.range_mut(from..).filter(|(other, _)| *other != key) {
            match &mut slot.state {
                State::Running | State::Starting { .. } | State::Stopping { then: Then::CountStartTimeout, .. }
                    if slot.fate == Fate::Free =>
                {
                    slot.fate = Fate::Return;
                    siblings.push(slot.spec.id.clone());
                }
                // A loss had begun this, and a failure makes it one.
                State::Pending { cause: known @ Cause::Replacement } => *known = cause,
                _ => {}
            }
        }
        if !siblings.is_empty() {
            self.emit(now, key, EventKind::GroupRestart { siblings: siblings.into() });
        }
        self.sweep(from, cause);
    }

    /// It was taken down by its group, and starts again in its turn; a temporary child doesn't.
    pub(super) fn come_back(&mut self, now: Instant, key: Key) {
        if self.is_temporary(key) {
            return self.rest(now, key);
        }
        self.start_in_turn(now, key, self.stop_cause());
        if self.is_pending(key) {
            self.emit(now, key, EventKind::Pending);
        }
    }

    /// One more restart of `key` would be more than `limit` allows.
    pub(super) fn exceed(&mut self, now: Instant, key: Key, limit: Limit, intensity: Intensity, reason: ExitReason) {
        let Some(slot) = self.slots.get(key) else { return };
        let (id, spec) = (slot.spec.id.clone(), slot.spec.clone());
        let follows = match (limit, self.flags.meltdown) {
            (Limit::Child, _) if self.is_group() => LimitFollows::GroupFails,
            (Limit::Child, _) => LimitFollows::ChildFails,
            (Limit::Supervisor, Meltdown::Contain(_)) => LimitFollows::AllFail,
            (Limit::Supervisor, Meltdown::Escalate) => LimitFollows::GivesUp,
        };
        self.emit(now, key, EventKind::LimitReached { limit, intensity, follows });
        let retry = |on_exceeded| match on_exceeded {
            OnExceeded::RetryAfter(wait) => Some(wait),
            OnExceeded::Fail => None,
        };
        match (limit, self.flags.meltdown) {
            (Limit::Child, _) => {
                let retry = retry(spec.on_exceeded).filter(|_| spec.restart == RestartType::Permanent);
                let from = self.is_group().then(|| self.scope(key));
                self.fail_group(now, key, from, reason, retry);
            }
            (Limit::Supervisor, Meltdown::Contain(on_exceeded)) => {
                self.contained = true;
                self.fail_group(now, key, Some(Key::FIRST), reason, retry(on_exceeded));
            }
            (Limit::Supervisor, Meltdown::Escalate) => {
                self.fail(now, key, reason.clone(), None);
                self.finish(now, ExitReason::GaveUp { child: id, reason: Arc::new(reason) });
            }
        }
    }

    /// `key` is failed, and so is every sibling from `from` on that lives or was to come back, stopped in reverse order. With a retry all of
    /// them come back in order at one instant.
    fn fail_group(&mut self, now: Instant, key: Key, from: Option<Key>, reason: ExitReason, retry: Option<Duration>) {
        let retry_at = retry.map(|wait| later(now, wait));
        let Some(from) = from else { return self.fail(now, key, reason, retry_at) };
        self.tell_starters(&reason);
        self.failing = Some(Failing { reason: reason.clone(), retry_at });
        self.fail(now, key, reason, retry_at);
        let siblings: Vec<Key> = self.slots.range(from..).map(|(other, _)| other).collect();
        for other in siblings.into_iter().rev().filter(|other| *other != key) {
            let Some(slot) = self.slots.get_mut(other) else { continue };
            match slot.state {
                State::Running | State::Starting { .. } | State::Stopping { then: Then::CountStartTimeout, .. } => {
                    if slot.fate != Fate::Rest {
                        slot.fate = Fate::Fail;
                    }
                }
                State::Stopping { then: Then::Return, force, until } => {
                    self.enter_quietly(other, State::Stopping { then: Then::Fail, force, until });
                }
                State::Pending { .. } | State::BackingOff { .. } => self.fail_along(now, other),
                State::Stopping { .. } | State::Stopped | State::Completed | State::Failed { .. } => {}
            }
        }
        self.sweep(from, Cause::Automatic);
    }

    /// It is failed because its group is; a temporary child, which nothing brings back, is merely stopped.
    pub(super) fn fail_along(&mut self, now: Instant, key: Key) {
        if self.is_temporary(key) {
            return self.rest(now, key);
        }
        // It ended so late that the others are being tried again.
        let Some(Failing { reason, retry_at }) = self.failing.clone() else { return self.come_back(now, key) };
        self.release(key, Until::Started, &Err(Refusal::StartFailed(reason.clone())));
        match self.slots.get(key).map_or(Trial::None, |slot| slot.trial) {
            Trial::None => self.fail(now, key, reason, retry_at),
            Trial::Rest => self.rest(now, key),
            Trial::Discard => self.remove(now, key),
        }
    }

    fn fail(&mut self, now: Instant, key: Key, reason: ExitReason, retry_at: Option<Instant>) {
        let retry_in = retry_at.map(|at| at.saturating_duration_since(now));
        self.retire(now, key, State::Failed { retry_at }, EventKind::Failed { reason, retry_in });
    }

    /// Whoever waits for an ordered start is told that it did not come off: what follows is the business of the group.
    fn tell_starters(&mut self, reason: &ExitReason) {
        for token in std::mem::take(&mut self.start_waiters) {
            self.answer(token, Err(Refusal::StartFailed(reason.clone())));
        }
    }

    fn is_temporary(&self, key: Key) -> bool {
        self.slots.get(key).is_some_and(|slot| slot.spec.restart == RestartType::Temporary)
    }
}
