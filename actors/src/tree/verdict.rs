//! What the end of an incarnation leads to, when nobody had asked for it.

use std::time::{Duration, Instant};

use super::slot::{Fate, State, Trial, Until, later};
use super::{Cause, Key, Refusal, Tree};
use crate::event::{EventKind, Limit};
use crate::exit::ExitReason;
use crate::flags::{AutoShutdown, Intensity};
use crate::spec::RestartType;

/// What an end leads to.
#[must_use]
enum Verdict {
    /// It is stopped.
    Rest,
    /// It has done its work.
    Complete,
    /// Its restart type forbids a restart.
    Give,
    /// A group restart under way takes it along.
    Return,
    /// The failure of its group takes it along.
    Fail,
    /// It backs off, and its group with it.
    Retry { attempt: u32, delay: Duration, cause: Cause },
    /// A limit was reached.
    Exceed { limit: Limit, intensity: Intensity },
}

impl<P> Tree<P> {
    /// An incarnation has ended by itself, or its start has failed.
    pub(super) fn settle(&mut self, now: Instant, chance: f64, key: Key, reason: ExitReason) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let (fate, trial) = (std::mem::take(&mut slot.fate), std::mem::take(&mut slot.trial));
        if reason == ExitReason::Ignored {
            // Its factory declined, which is neither a failure nor the end of something that lived.
            self.release(key, Until::Started, &Ok(()));
            return self.rest(now, key);
        }
        let failed = Err(Refusal::StartFailed(reason.clone()));
        match trial {
            Trial::None => {}
            Trial::Rest => {
                self.release(key, Until::Started, &failed);
                return self.rest(now, key);
            }
            Trial::Discard => {
                self.release(key, Until::Started, &failed);
                return self.remove(now, key);
            }
        }
        let verdict = self.verdict(now, chance, key, fate, &reason);
        self.release(key, Until::Started, &failed);
        match verdict {
            Verdict::Rest => self.rest(now, key),
            Verdict::Complete => self.end_for_good(now, key, fate, State::Completed, EventKind::Completed),
            Verdict::Give => {
                let kind = EventKind::Failed { reason, retry_in: None };
                self.end_for_good(now, key, fate, State::Failed { retry_at: None }, kind);
            }
            Verdict::Return => self.come_back(now, key),
            Verdict::Fail => self.fail_along(now, key),
            Verdict::Retry { attempt, delay, cause } => {
                self.enter(now, key, State::BackingOff { until: later(now, delay), cause });
                self.emit(now, key, EventKind::BackingOff { attempt, delay });
                if self.is_group() {
                    self.restart_group(now, key, cause, &reason);
                }
            }
            Verdict::Exceed { limit, intensity } => self.exceed(now, key, limit, intensity, reason),
        }
    }

    fn verdict(&mut self, now: Instant, chance: f64, key: Key, fate: Fate, reason: &ExitReason) -> Verdict {
        let counted = self.stop_cause() == Cause::Automatic;
        let Some(slot) = self.slots.get_mut(key) else { return Verdict::Rest };
        if fate == Fate::Rest {
            return Verdict::Rest;
        }
        match (slot.spec.restart, reason.is_normal()) {
            (RestartType::Transient | RestartType::Temporary, true) => return Verdict::Complete,
            (RestartType::Temporary, false) => return Verdict::Give,
            (RestartType::Permanent, _) | (RestartType::Transient, false) => {}
        }
        let debited = reason.is_debited();
        match fate {
            Fate::Fail => return Verdict::Fail,
            // One failure, one debit, whoever dies of it; but a loss, which debits nobody, hides no failure.
            Fate::Return if counted || !debited => return Verdict::Return,
            Fate::Return | Fate::Free | Fate::Rest => {}
        }
        if slot.ran_for(now) >= slot.spec.backoff.reset_after && slot.attempt() > 0 {
            slot.past_mut().attempt = 0;
        }
        if !debited {
            // Due at once: whoever knows why it was lost also knows when it can live again, and makes its start wait till then.
            return Verdict::Retry { attempt: slot.attempt(), delay: Duration::ZERO, cause: Cause::Replacement };
        }
        if let Err((limit, intensity)) = self.debit(now, key) {
            return Verdict::Exceed { limit, intensity };
        }
        let (attempt, delay) = self.back_off(now, chance, key);
        Verdict::Retry { attempt, delay, cause: Cause::Automatic }
    }

    /// It has ended by itself and does not come back, which may be the end of its supervisor.
    fn end_for_good(&mut self, now: Instant, key: Key, fate: Fate, state: State, kind: EventKind) {
        let significant = self.slots.get(key).is_some_and(|slot| slot.spec.significant) && fate != Fate::Rest;
        let ends = significant
            && match self.flags.auto_shutdown {
                AutoShutdown::Never => false,
                AutoShutdown::AnySignificant => true,
                AutoShutdown::AllSignificant => !self.index.has_other_significant(),
            };
        if ends && !self.closing {
            self.emit(now, key, EventKind::AutoShutdown);
            self.retire(now, key, state, kind);
            self.finish(now, ExitReason::Shutdown);
        } else {
            self.retire(now, key, state, kind);
        }
    }
}
