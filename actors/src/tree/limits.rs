//! How many automatic restarts are allowed, and how soon each comes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::slot::later;
use super::{Key, Tree};
use crate::event::Limit;
use crate::flags::Intensity;
use crate::spec::{Backoff, ChildSpec};

/// The back-offs that children share by naming the same group.
#[derive(Default)]
pub(super) struct SharedBackoffs(HashMap<Arc<str>, Shared>);

#[derive(Default)]
struct Shared {
    /// Children that name it; without any it is forgotten.
    members: usize,
    attempt: u32,
    /// When the back-off ends, or ended.
    until: Option<Instant>,
}

impl SharedBackoffs {
    pub(super) fn join(&mut self, spec: &ChildSpec) {
        if let Some(name) = &spec.backoff_group {
            self.0.entry(Arc::clone(name)).or_default().members += 1;
        }
    }

    pub(super) fn leave(&mut self, spec: &ChildSpec) {
        let Some(name) = &spec.backoff_group else { return };
        if let Some(shared) = self.0.get_mut(name) {
            shared.members -= 1;
            if shared.members == 0 {
                self.0.remove(name);
            }
        }
    }

    pub(super) fn clear(&mut self, spec: &ChildSpec) {
        if let Some(shared) = spec.backoff_group.as_ref().and_then(|name| self.0.get_mut(name)) {
            (shared.attempt, shared.until) = (0, None);
        }
    }
}

impl Shared {
    /// The number of the next restart of a member that fails at `now`, and its delay. A failure while the others wait is the same failure: it
    /// waits as long as they do, and its own jitter beyond that, so that they don't all come back at one instant.
    fn next(&mut self, now: Instant, chance: f64, ran: Duration, backoff: &Backoff) -> (u32, Duration) {
        if let Some(left) =
            self.until.and_then(|until| until.checked_duration_since(now)).filter(|left| !left.is_zero())
        {
            let stretch = 1.0 + backoff.jitter * chance.clamp(0.0, 1.0);
            return (self.attempt, Duration::try_from_secs_f64(left.as_secs_f64() * stretch).unwrap_or(left).max(left));
        }
        // A member that ran for long is no sign of health while the others keep failing.
        let calm = self.until.is_none_or(|until| now.saturating_duration_since(until) >= backoff.reset_after);
        if calm && ran >= backoff.reset_after {
            self.attempt = 0;
        }
        self.attempt = self.attempt.saturating_add(1);
        let delay = backoff.delay(self.attempt, chance);
        self.until = Some(later(now, delay));
        (self.attempt, delay)
    }
}

impl<P> Tree<P> {
    /// Debits one automatic restart to the child and to the supervisor, or to nobody when one of them may have no more: both must admit it.
    ///
    /// # Errors
    /// The limit that was reached; the child's own is asked first.
    pub(super) fn debit(&mut self, now: Instant, key: Key) -> Result<(), (Limit, Intensity)> {
        let Some(slot) = self.slots.get_mut(key) else { return Ok(()) };
        let (own, shared) = (slot.spec.intensity, self.flags.intensity);
        if let Some(intensity) = own.filter(|intensity| !slot.past_mut().window.has_room(now, *intensity)) {
            return Err((Limit::Child, intensity));
        }
        if let Some(intensity) = shared.filter(|intensity| !self.window.admit(now, *intensity)) {
            return Err((Limit::Supervisor, intensity));
        }
        if let Some(intensity) = own {
            let admitted = slot.past_mut().window.admit(now, intensity);
            debug_assert!(admitted, "it had room a moment ago");
        }
        Ok(())
    }

    /// The number of the next automatic restart since the back-off started over, and the delay before it.
    pub(super) fn back_off(&mut self, now: Instant, chance: f64, key: Key) -> (u32, Duration) {
        let Some(slot) = self.slots.get_mut(key) else { return (0, Duration::ZERO) };
        let ran = slot.ran_for(now);
        let spec = slot.spec.clone();
        let shared = spec.backoff_group.as_ref().and_then(|name| self.backoffs.0.get_mut(name));
        let (attempt, delay) = match shared {
            Some(shared) => shared.next(now, chance, ran, &spec.backoff),
            None => {
                let attempt = slot.attempt().saturating_add(1);
                (attempt, spec.backoff.delay(attempt, chance))
            }
        };
        slot.past_mut().attempt = attempt;
        (attempt, delay)
    }

    /// Forgets the failures of a child so far, because somebody asked for a start, or its time to try again has come.
    pub(super) fn clear_record(&mut self, key: Key) {
        if let Some(slot) = self.slots.get_mut(key) {
            slot.clear_record();
            self.backoffs.clear(&slot.spec);
        }
    }
}
