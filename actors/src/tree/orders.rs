//! What is asked of a supervisor: OTP's requests with OTP's results, and ours.

use std::time::Instant;

use super::slot::{Force, SUPERSEDED, State, Then, Trial, Until};
use super::{Action, Cause, Key, NewChild, Refusal, Request, Token, Tree};
use crate::spec::ChildId;

/// What an operator wants of one child, whatever it is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    Start,
    Stop,
    Restart,
    Remove,
}

impl Goal {
    /// What becomes of an incarnation that ends for this.
    fn then(self) -> Then {
        match self {
            Self::Start | Self::Restart => Then::Launch,
            Self::Stop => Then::Rest,
            Self::Remove => Then::Remove,
        }
    }

    fn until(self) -> Until {
        match self {
            Self::Start | Self::Restart => Until::Started,
            Self::Stop => Until::Ended,
            Self::Remove => Until::Removed,
        }
    }
}

impl<P> Tree<P> {
    pub(super) fn asked(&mut self, now: Instant, token: Token, request: Request<P>) {
        if self.closing {
            return self.refuse(token, request, Refusal::Closing);
        }
        match request {
            Request::Start(child) => self.add(now, token, child, Trial::Discard),
            Request::Add(child) => self.add(now, token, child, Trial::None),
            Request::Restart(id) => self.restart_resting(now, token, &id),
            Request::Delete(id) => self.delete_resting(now, token, &id),
            Request::StartExisting(id) => self.order(now, token, &id, Goal::Start),
            Request::ForceRestart(id) => self.order(now, token, &id, Goal::Restart),
            Request::Terminate(id) => self.order(now, token, &id, Goal::Stop),
            Request::Remove(id) => self.order(now, token, &id, Goal::Remove),
            Request::StartAll => self.start_all(now, token, false),
            Request::StopAll => self.stop_all(now, token, false),
            Request::RestartAll => self.stop_all(now, token, true),
            Request::Change { flags, children } => self.change(now, token, flags, children),
        }
    }

    /// Refuses a request and gives back what came with it.
    fn refuse(&mut self, token: Token, request: Request<P>, refusal: Refusal) {
        match request {
            Request::Start(child) | Request::Add(child) => self.out.push(Action::Dispose(child.payload)),
            Request::Change { children, .. } => {
                self.out.extend(children.into_iter().map(|child| Action::Dispose(child.payload)));
            }
            _ => {}
        }
        self.answer(token, Err(refusal));
    }

    fn add(&mut self, now: Instant, token: Token, child: NewChild<P>, trial: Trial) {
        let key = match self.insert(now, child) {
            Ok(key) => key,
            Err((taken, child)) => {
                let state = self.slots.get(taken).map(|slot| slot.state);
                let started = state.is_some_and(|state| state.lives() && !state.is_restarting());
                let refusal = if started { Refusal::AlreadyStarted } else { Refusal::AlreadyPresent };
                return self.refuse(token, Request::Add(child), refusal);
            }
        };
        if self.is_pending(key) {
            self.try_start(now, token, key, trial);
        } else {
            self.answer(token, Ok(()));
        }
    }

    /// Starts a child that has no incarnation; `trial` says what follows when that fails.
    fn try_start(&mut self, now: Instant, token: Token, key: Key, trial: Trial) {
        if let Some(slot) = self.slots.get_mut(key) {
            slot.trial = trial;
            slot.wait_for(token, Until::Started);
        }
        self.start(now, key, Cause::Asked);
    }

    /// OTP `restart_child`.
    fn restart_resting(&mut self, now: Instant, token: Token, id: &ChildId) {
        match self.resting(id) {
            Ok(key) => {
                self.clear_record(key);
                self.try_start(now, token, key, Trial::Rest);
            }
            Err(refusal) => self.answer(token, Err(refusal)),
        }
    }

    /// OTP `delete_child`.
    fn delete_resting(&mut self, now: Instant, token: Token, id: &ChildId) {
        let result = self.resting(id).map(|key| self.remove(now, key));
        self.answer(token, result);
    }

    /// A child that nobody starts but who asks for it.
    fn resting(&self, id: &ChildId) -> Result<Key, Refusal> {
        if self.is_simple() {
            return Err(Refusal::SimpleOneForOne);
        }
        let key = self.key_of(id).ok_or(Refusal::NotFound)?;
        let state = self.slots.get(key).ok_or(Refusal::NotFound)?.state;
        match state {
            state if state.rests() => Ok(key),
            // One that has never been started waits for its first start, which is not OTP's to see: there a start is one step.
            State::Pending { .. } => Err(Refusal::Restarting),
            state if state.is_restarting() => Err(Refusal::Restarting),
            _ => Err(Refusal::Running),
        }
    }

    /// An operator wants something of one child.
    fn order(&mut self, now: Instant, token: Token, id: &ChildId, goal: Goal) {
        let Some(key) = self.key_of(id) else { return self.answer(token, Err(Refusal::NotFound)) };
        let Some(state) = self.slots.get(key).map(|slot| slot.state) else { return };
        match (state, goal) {
            (State::Running, Goal::Start) => self.answer(token, Err(Refusal::Running)),
            (State::Starting { .. }, Goal::Start) => self.wait_for(key, token, Until::Started),
            (State::Stopping { then: Then::Remove, .. }, Goal::Start | Goal::Stop | Goal::Restart) => {
                self.answer(token, Err(Refusal::Superseded));
            }
            (State::Stopping { force: force @ Force::GivenUp, until, .. }, _) => {
                // Nobody waits for it. When it does end, it stays down for whoever wanted that.
                if matches!(goal, Goal::Stop | Goal::Remove) {
                    self.enter_quietly(key, State::Stopping { then: goal.then(), force, until });
                }
                self.answer(token, Err(Refusal::Unresponsive));
            }
            (State::Stopping { force, until, .. }, _) => {
                self.enter_quietly(key, State::Stopping { then: goal.then(), force, until });
                self.join(key, token, goal);
            }
            (State::Starting { .. } | State::Running, Goal::Stop | Goal::Remove | Goal::Restart) => {
                self.begin_stop(now, key, goal.then());
                self.join(key, token, goal);
            }
            (_, Goal::Start | Goal::Restart) => {
                self.clear_record(key);
                self.try_start(now, token, key, Trial::None);
            }
            (_, Goal::Stop) => {
                self.rest(now, key);
                self.answer(token, Ok(()));
            }
            (_, Goal::Remove) => {
                self.remove(now, key);
                self.answer(token, Ok(()));
            }
        }
    }

    /// Waits for the end of a stop that serves `goal`; whoever waited for a start that will not come is told.
    fn join(&mut self, key: Key, token: Token, goal: Goal) {
        if goal.until() != Until::Started {
            self.release(key, Until::Started, &SUPERSEDED);
        }
        if let Some(slot) = self.slots.get_mut(key) {
            slot.trial = Trial::None;
        }
        self.wait_for(key, token, goal.until());
    }
}
