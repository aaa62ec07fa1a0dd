//! What is counted of an agent over time, by definition: no sum is kept that could be worked out.

use super::*;
use crate::model::{Spent, Usage, UsageTally};

/// Tokens in and out.
pub(super) type Tokens = [u64; 2];

/// What an agent has used, from totals of its incarnations.
#[derive(Debug, Clone, Default)]
pub(super) struct Used {
    /// The last word of each incarnation, and of each run inside one that started over.
    runs: Vec<(u64, Tokens)>,
}

impl Used {
    /// What the journal knew when the daemon began.
    pub(super) fn known(spent: &Spent) -> Self {
        let tokens = |usage: &Usage| [usage.input_tokens.unwrap_or(0), usage.output_tokens.unwrap_or(0)];
        let UsageTally { over, last, incarnation } = &spent.tally;
        Self { runs: vec![(*incarnation, tokens(over)), (*incarnation, tokens(last))] }
    }

    /// Returns whether it counts: what comes behind the word of a younger incarnation does not.
    pub(super) fn take(&mut self, incarnation: u64, tokens: Tokens) -> bool {
        match self.runs.last_mut() {
            Some((last, _)) if incarnation < *last => return false,
            Some((last, known)) if *last == incarnation && tokens[0] >= known[0] && tokens[1] >= known[1] => {
                *known = tokens
            }
            _ => self.runs.push((incarnation, tokens)),
        }
        true
    }

    pub(super) fn total(&self) -> Option<Tokens> {
        let sum = |at: usize| self.runs.iter().map(|(_, tokens)| tokens[at]).sum();
        (!self.runs.is_empty()).then(|| [sum(0), sum(1)])
    }
}

/// The definition of flapping: three silences within five minutes, until heartbeats were in time for a minute.
#[derive(Debug, Clone, Default)]
pub(super) struct Flap {
    silences: Vec<Instant>,
    is_silent: bool,
    pub(super) is_flapping: bool,
    calm: Option<Instant>,
}

impl Flap {
    pub(super) fn silent(&mut self, now: Instant) {
        if !self.is_silent {
            (self.is_silent, self.calm) = (true, None);
            self.silences.push(now);
            let lately = |at: &&Instant| now.saturating_duration_since(**at) <= Duration::from_secs(300);
            self.is_flapping |= self.silences.iter().filter(lately).count() >= 3;
        }
    }

    pub(super) fn beat(&mut self, now: Instant) {
        self.is_silent = false;
        if self.is_flapping && now.saturating_duration_since(*self.calm.get_or_insert(now)) >= Duration::from_secs(60) {
            *self = Self::default();
        }
    }

    pub(super) fn shift(&mut self, by: Duration, now: Instant) {
        self.silences.iter_mut().chain(&mut self.calm).for_each(|at| *at = (*at + by).min(now));
    }
}

/// A measured value without its source.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value<T> {
    Never,
    Stale,
    At(T, SystemTime),
}

impl<T: PartialEq> Value<T> {
    pub(super) fn outdate(&mut self) {
        if matches!(self, Self::At(..)) {
            *self = Self::Stale;
        }
    }

    pub(super) fn is(&self, measured: &Measured<T>) -> bool {
        match (self, measured) {
            (Self::Never, Measured::Absent(Absent::NeverObserved)) | (Self::Stale, Measured::Absent(Absent::Stale)) => {
                true
            }
            (Self::At(value, at), Measured::Value { value: shown, observed_at, .. }) => {
                value == shown && at == observed_at
            }
            _ => false,
        }
    }
}
