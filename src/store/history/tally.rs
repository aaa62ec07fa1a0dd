//! What is counted of one series within one span of time. Two tallies of the same span become one by [`Tally::merge`], in any order.

use std::time::SystemTime;

use super::point::{Point, Spread, Tokens};

/// Counters stop here: the largest integer that every JSON reader keeps, and far enough below SQLite's that a sum of two fits.
pub(super) const COUNT_MAX: u64 = (1 << 53) - 1;

/// Readings of one quantity.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Gauge {
    pub(crate) sum: f64,
    pub(crate) count: u64,
    pub(crate) max: f64,
}

impl Gauge {
    pub(super) fn add(&mut self, value: f64) {
        self.merge(&Self { sum: value, count: 1, max: value });
    }

    fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        self.max = if self.count == 0 { other.max } else { self.max.max(other.max) };
        self.sum += other.sum;
        self.count += other.count;
    }

    fn spread(&self) -> Option<Spread> {
        (self.count > 0).then(|| Spread { mean: self.sum / self.count as f64, max: self.max })
    }
}

/// All of it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Tally {
    pub(crate) cpu: Gauge,
    pub(crate) memory: Gauge,
    pub(crate) latency_ms_max: Option<u64>,
    pub(crate) tokens: Tokens,
    pub(crate) restarts: Option<u64>,
}

impl Tally {
    pub(super) fn add_latency(&mut self, ms: u64) {
        self.latency_ms_max = self.latency_ms_max.max(Some(ms.min(COUNT_MAX)));
    }

    pub(super) fn add_tokens(&mut self, used: Tokens) {
        self.tokens.input = sum(self.tokens.input, used.input);
        self.tokens.output = sum(self.tokens.output, used.output);
    }

    pub(super) fn add_restarts(&mut self, restarts: u64) {
        self.restarts = sum(self.restarts, Some(restarts));
    }

    /// Adds another's counts.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.cpu.merge(&other.cpu);
        self.memory.merge(&other.memory);
        if let Some(ms) = other.latency_ms_max {
            self.add_latency(ms);
        }
        self.add_tokens(other.tokens);
        self.restarts = sum(self.restarts, other.restarts);
    }

    /// What is shown of it. Counts of a span that was not seen whole are not known.
    pub(crate) fn point(&self, at: SystemTime, seen_whole: bool) -> Point {
        Point {
            at,
            cpu: self.cpu.spread(),
            memory: self.memory.spread(),
            heartbeat_latency_ms_max: self.latency_ms_max,
            tokens: if seen_whole { self.tokens } else { Tokens::default() },
            restarts: self.restarts.filter(|_| seen_whole),
        }
    }
}

fn sum(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.saturating_add(b).min(COUNT_MAX)),
        (a, b) => a.or(b).map(|count| count.min(COUNT_MAX)),
    }
}
