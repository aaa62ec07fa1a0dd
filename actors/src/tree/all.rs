//! What happens to several children in order: starts, and stops in reverse.
//!
//! Both are driven by looking at the child whose turn it is after every input, so that an exit, a timeout or an operator's order in
//! between needs no case of its own.

use std::time::{Duration, Instant};

use super::slot::{Fate, Force, SUPERSEDED, State, Then, Until, later};
use super::{Action, Cause, Key, Refusal, Token, Tree};
use crate::exit::ExitReason;
use crate::flags::Strategy;

/// Children of `simple_one_for_one` that are asked to end before some of them have. Together they are smaller than a processor's cache: what is
/// touched when a child is asked to end is still there when it does. And no step takes longer than this many take.
const ASKED_AHEAD: usize = 512;

/// When those that were asked have not ended after this time, they are slow, and no others wait for them. The shortest time that a timer measures;
/// 100,000 slow children are all asked within half a second.
const AHEAD_WAIT: Duration = Duration::from_millis(1);

/// An ordered stop under way.
pub(super) struct StopRun {
    /// The first child that it concerns.
    from: Key,
    /// It has come down to here: the child before this is the one being stopped.
    until: Key,
    /// Under `simple_one_for_one`: from here on up they have been asked to end.
    asked: Key,
    /// When others are asked whether or not those that were have ended.
    ask_at: Option<Instant>,
    /// How many had not ended when others were asked nevertheless.
    slow: usize,
    then: AfterStop,
    /// Why those come back that do.
    cause: Cause,
    /// A child was killed and has not ended.
    stuck: bool,
}

enum AfterStop {
    /// Each child's fate says what becomes of it.
    Nothing,
    Answer(Token),
    StartAll(Token),
    Finish(ExitReason),
}

impl StopRun {
    /// One that begins with the child before `until`.
    fn new((from, until): (Key, Key), then: AfterStop, cause: Cause) -> Self {
        Self { from, until, asked: until, ask_at: None, slow: 0, then, cause, stuck: false }
    }

    /// When it goes on, whatever ends.
    pub(super) fn due(&self) -> Option<Instant> {
        self.ask_at
    }
}

impl AfterStop {
    fn token(&self) -> Option<Token> {
        match self {
            Self::Answer(token) | Self::StartAll(token) => Some(*token),
            Self::Nothing | Self::Finish(_) => None,
        }
    }
}

impl<P> Tree<P> {
    /// Starts in order whatever does not run, with a clean record. What is done stays done, unless `completed` asks for it, too.
    pub(super) fn start_all(&mut self, now: Instant, token: Token, completed: bool) {
        match self.stops.as_mut().map(|run| &mut run.then) {
            // The stop goes on to its end, and the start follows: whoever asked for the stop sees it happen no more.
            Some(then @ AfterStop::Answer(_)) => {
                if let AfterStop::Answer(stopper) = std::mem::replace(then, AfterStop::StartAll(token)) {
                    self.answer(stopper, SUPERSEDED);
                }
                return;
            }
            Some(AfterStop::StartAll(_)) => return self.start_waiters.push(token),
            Some(AfterStop::Nothing | AfterStop::Finish(_)) | None => {}
        }
        self.window.clear();
        let keys: Vec<Key> = self.slots.iter().map(|(key, _)| key).collect();
        for key in keys {
            let Some(slot) = self.slots.get_mut(key) else { continue };
            if slot.fate == Fate::Fail {
                slot.fate = Fate::Return;
            }
            let state = slot.state;
            if state == State::Running || (state == State::Completed && !completed) {
                continue;
            }
            self.clear_record(key);
            match state {
                // Its turn goes on: the next child waits for it.
                State::Starting { .. } => {
                    self.turns.insert(key);
                }
                State::Stopping { then: Then::Fail, force, until } => {
                    self.enter_quietly(key, State::Stopping { then: Then::Return, force, until });
                }
                State::Stopping { .. } | State::Running => {}
                State::Pending { .. }
                | State::BackingOff { .. }
                | State::Stopped
                | State::Completed
                | State::Failed { .. } => self.start_in_turn(now, key, Cause::Asked),
            }
        }
        self.start_waiters.push(token);
    }

    /// Stops everything in reverse order, then starts everything if `restart`.
    pub(super) fn stop_all(&mut self, now: Instant, token: Token, restart: bool) {
        let then = if restart { AfterStop::StartAll(token) } else { AfterStop::Answer(token) };
        self.stop_everything(now, then);
    }

    pub(super) fn shutdown(&mut self, now: Instant) {
        self.finish(now, ExitReason::Shutdown);
    }

    /// Stops everything in reverse order and ends with `reason`; the first reason counts.
    pub(super) fn finish(&mut self, now: Instant, reason: ExitReason) {
        if !std::mem::replace(&mut self.closing, true) {
            self.stop_everything(now, AfterStop::Finish(reason));
        }
    }

    fn stop_everything(&mut self, now: Instant, then: AfterStop) {
        let superseded = self.stops.take().and_then(|run| run.then.token());
        self.turns.clear();
        self.turn = None;
        for token in superseded.into_iter().chain(std::mem::take(&mut self.start_waiters)) {
            self.answer(token, SUPERSEDED);
        }
        let keys: Vec<Key> = self.slots.iter().map(|(key, _)| key).collect();
        for key in keys.into_iter().rev() {
            let Some(slot) = self.slots.get_mut(key) else { continue };
            match slot.state {
                State::Starting { .. } | State::Running => slot.fate = Fate::Rest,
                State::Stopping {
                    then: Then::Launch | Then::CountStartTimeout | Then::Return | Then::Fail,
                    force,
                    until,
                } => {
                    self.enter_quietly(key, State::Stopping { then: Then::Rest, force, until });
                    self.release(key, Until::Started, &SUPERSEDED);
                }
                // What has failed is still failed when the daemon comes back; only its retry is off.
                State::Failed { .. } if self.closing && !slot.is_forgettable(self.flags.strategy) => {
                    self.enter_quietly(key, State::Failed { retry_at: None });
                }
                State::Pending { .. } | State::BackingOff { .. } | State::Failed { .. } => self.rest(now, key),
                State::Stopping { then: Then::Rest | Then::Remove, .. } | State::Stopped | State::Completed => {}
            }
        }
        let until = self.upcoming();
        self.stops = Some(StopRun::new((Key::FIRST, until), then, Cause::Asked));
    }

    /// Stops in reverse order what has a fate, from `from` on; one that is under way goes over it all once more.
    pub(super) fn sweep(&mut self, from: Key, cause: Cause) {
        let until = self.upcoming();
        match &mut self.stops {
            Some(run) => {
                run.from = run.from.min(from);
                run.until = until;
                if cause == Cause::Automatic {
                    run.cause = cause;
                }
            }
            None => self.stops = Some(StopRun::new((from, until), AfterStop::Nothing, cause)),
        }
    }

    /// Why those come back that are stopped now.
    pub(super) fn stop_cause(&self) -> Cause {
        self.stops.as_ref().map_or(Cause::Automatic, |run| run.cause)
    }

    /// Takes the ordered start and stop as far as they can go now.
    pub(super) fn drive(&mut self, now: Instant) {
        self.drive_stops(now);
        if self.stops.is_none() && !self.closing {
            self.drive_starts(now);
        }
    }

    /// Nobody depends on anybody under `simple_one_for_one`: children are asked to end whether or not those before them have, each within its own
    /// deadline.
    fn ask_ahead(&mut self, now: Instant) {
        let simple = self.is_simple();
        let stopping = self.index.stopping();
        let Some(run) = &mut self.stops else { return };
        if !simple || run.asked == run.from || matches!(run.then, AfterStop::Nothing) {
            run.ask_at = None;
            return;
        }
        if run.ask_at.is_some_and(|at| at <= now) {
            run.slow = stopping;
        }
        let waits = stopping.saturating_sub(run.slow);
        // Many at a time, rather than one for each that has ended.
        if waits > ASKED_AHEAD / 2 {
            return;
        }
        let room = ASKED_AHEAD - waits;
        let living = self.slots.range(run.from..run.asked).rev();
        let living = living.filter(|(_, slot)| matches!(slot.state, State::Starting { .. } | State::Running));
        let keys: Vec<Key> = living.map(|(key, _)| key).take(room).collect();
        run.asked = keys.last().copied().filter(|_| keys.len() == room).unwrap_or(run.from);
        run.ask_at = (run.asked != run.from).then(|| later(now, AHEAD_WAIT));
        for key in keys {
            self.release(key, Until::Started, &SUPERSEDED);
            self.begin_stop(now, key, Then::Rest);
        }
    }

    fn drive_stops(&mut self, now: Instant) {
        self.ask_ahead(now);
        while let Some(run) = &mut self.stops {
            let Some((key, slot)) = self.slots.range(run.from..run.until).next_back() else { break };
            run.until = key.next();
            let all = !matches!(run.then, AfterStop::Nothing);
            let then = match slot.fate {
                // Also what somebody has started since, and what the failure of such a child would bring back.
                _ if all => Some(Then::Rest),
                Fate::Rest => Some(Then::Rest),
                Fate::Return => Some(Then::Return),
                Fate::Fail => Some(Then::Fail),
                Fate::Free => None,
            };
            match (slot.state, then) {
                (State::Starting { .. } | State::Running, Some(then)) => {
                    if then == Then::Rest {
                        self.release(key, Until::Started, &SUPERSEDED);
                    }
                    return self.begin_stop(now, key, then);
                }
                (State::Stopping { force: Force::GivenUp, .. }, _) => run.stuck = true,
                (State::Stopping { .. }, _) => return,
                (State::BackingOff { .. } | State::Pending { .. } | State::Failed { retry_at: Some(_) }, _) if all => {
                    self.rest(now, key);
                }
                _ => {}
            }
            if let Some(run) = &mut self.stops {
                run.until = key;
            }
        }
        let Some(run) = self.stops.take() else { return };
        match run.then {
            AfterStop::Nothing => {}
            AfterStop::Answer(token) if run.stuck => self.answer(token, Err(Refusal::Unresponsive)),
            AfterStop::Answer(token) => self.answer(token, Ok(())),
            AfterStop::StartAll(token) => self.start_all(now, token, true),
            AfterStop::Finish(reason) => {
                if !std::mem::replace(&mut self.finished, true) {
                    self.out.push(Action::Finished(reason));
                }
            }
        }
    }

    fn drive_starts(&mut self, now: Instant) {
        loop {
            match self.turn.and_then(|key| self.slots.get(key)).map(|slot| slot.state) {
                Some(State::Stopping { force: Force::GivenUp, .. }) => {}
                Some(State::Starting { .. } | State::Stopping { .. }) => return,
                _ => {}
            }
            self.turn = None;
            let Some(key) = self.next_turn() else { break };
            self.turns.remove(&key);
            match self.slots.get(key).map(|slot| slot.state) {
                Some(State::Pending { cause }) => self.launch(now, key, cause),
                Some(_) => {}
                None => continue,
            }
            self.turn = Some(key);
        }
        if !self.turns.is_empty() {
            return;
        }
        for token in std::mem::take(&mut self.start_waiters) {
            self.answer(token, Ok(()));
        }
        if !std::mem::replace(&mut self.born, true) {
            self.out.push(Action::Ready);
        }
    }

    /// The next child that may start: the first whose turn is to come, unless one that it depends on is backing off.
    fn next_turn(&self) -> Option<Key> {
        let first = self.turns.first().copied()?;
        let held = self.index.first_backing_off().is_some_and(|failed| match self.flags.strategy {
            Strategy::OneForAll => true,
            Strategy::RestForOne => failed < first,
            Strategy::OneForOne | Strategy::SimpleOneForOne => false,
        });
        (!held).then_some(first)
    }

    /// The key of the next child, which is above all others.
    fn upcoming(&self) -> Key {
        Key(self.next_key)
    }
}
