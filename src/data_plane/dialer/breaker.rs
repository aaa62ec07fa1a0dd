//! Whether a source is called at all: closed, open, half-open. Pure: time and chance come as arguments.

use std::time::{Duration, Instant};

use super::limits::{BACKOFF_FACTOR, BACKOFF_JITTER, BACKOFF_MAX, FAILURES_MAX};
use crate::model::BreakerState;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Open { until: Instant },
    HalfOpen,
}

/// How a poll is to be made.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Permit {
    /// With all connections.
    Whole,
    /// With one: the server may only just have come back.
    Trial,
}

/// A circuit breaker.
#[derive(Debug, Clone)]
pub(super) struct Breaker {
    /// The first back-off: a failing server is never called more often than a sound one.
    first: Duration,
    state: State,
    failures: u32,
    /// How often in a row it has opened.
    opened: u32,
}

impl Breaker {
    pub(super) fn new(interval: Duration) -> Self {
        Self { first: interval, state: State::Closed, failures: 0, opened: 0 }
    }

    pub(super) fn state(&self) -> BreakerState {
        match self.state {
            State::Closed => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::HalfOpen => BreakerState::HalfOpen,
        }
    }

    /// No call before this; `None` while it is not open.
    pub(super) fn open_until(&self) -> Option<Instant> {
        match self.state {
            State::Open { until } => Some(until),
            State::Closed | State::HalfOpen => None,
        }
    }

    /// A poll begins. Whoever asks has waited for [`Breaker::open_until`].
    pub(super) fn begin(&mut self) -> Permit {
        match self.state {
            State::Closed => Permit::Whole,
            State::Open { .. } | State::HalfOpen => {
                self.state = State::HalfOpen;
                Permit::Trial
            }
        }
    }

    /// The poll went well.
    pub(super) fn succeeded(&mut self) {
        (self.state, self.failures, self.opened) = (State::Closed, 0, 0);
    }

    /// It did not. `chance` lies in 0..1.
    pub(super) fn failed(&mut self, now: Instant, chance: f64) {
        self.failures = self.failures.saturating_add(1);
        // A trial that fails is one more in the row that led to it.
        if self.failures >= FAILURES_MAX {
            self.opened = self.opened.saturating_add(1);
            self.state = State::Open { until: now + self.backoff(chance) };
        }
    }

    fn backoff(&self, chance: f64) -> Duration {
        let longest = BACKOFF_MAX.max(self.first);
        let factor = BACKOFF_FACTOR.saturating_pow(self.opened.saturating_sub(1));
        let plain = self.first.saturating_mul(factor).min(longest);
        let chance = if chance.is_finite() { chance.clamp(0.0, 1.0) } else { 0.5 };
        plain.mul_f64(1.0 + BACKOFF_JITTER * (2.0 * chance - 1.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);
    const MIDDLE: f64 = 0.5;

    fn after(breaker: &Breaker, now: Instant) -> Option<u64> {
        breaker.open_until().map(|until| (until - now).as_secs())
    }

    #[test]
    fn back_offs_are_spread_by_a_quarter_either_way() {
        let now = Instant::now();
        let waits = [0.0, 0.5, 1.0].map(|chance| {
            let mut breaker = Breaker::new(Duration::from_secs(100));
            (0..3).for_each(|_| breaker.failed(now, chance));
            after(&breaker, now)
        });
        assert_eq!(waits, [Some(75), Some(100), Some(125)]);
    }

    #[test]
    fn it_opens_at_the_third_failure_in_a_row() {
        let now = Instant::now();
        let mut breaker = Breaker::new(INTERVAL);
        for _ in 0..5 {
            assert_eq!(breaker.begin(), Permit::Whole);
            breaker.failed(now, MIDDLE);
            assert_eq!(breaker.begin(), Permit::Whole);
            breaker.failed(now, MIDDLE);
            assert_eq!((breaker.state(), breaker.failures), (BreakerState::Closed, 2));
            breaker.succeeded();
        }
        for _ in 0..3 {
            breaker.failed(now, MIDDLE);
        }
        assert_eq!((breaker.state(), after(&breaker, now)), (BreakerState::Open, Some(10)));
    }

    #[test]
    fn a_trial_that_fails_waits_longer_and_one_that_succeeds_closes() {
        let now = Instant::now();
        let mut breaker = Breaker::new(INTERVAL);
        (0..3).for_each(|_| breaker.failed(now, MIDDLE));
        for seconds in [20, 40, 80, 160, 300, 300, 300] {
            assert_eq!(breaker.begin(), Permit::Trial);
            assert_eq!((breaker.state(), breaker.open_until()), (BreakerState::HalfOpen, None));
            breaker.failed(now, MIDDLE);
            assert_eq!((breaker.state(), after(&breaker, now)), (BreakerState::Open, Some(seconds)));
        }
        let _ = breaker.begin();
        breaker.succeeded();
        assert_eq!((breaker.state(), breaker.failures), (BreakerState::Closed, 0));
        (0..3).for_each(|_| breaker.failed(now, MIDDLE));
        assert_eq!(after(&breaker, now), Some(10), "the back-off starts over");
    }

    /// A panic may end a trial under way.
    #[test]
    fn a_trial_that_nobody_ended_is_made_again() {
        let now = Instant::now();
        let mut breaker = Breaker::new(INTERVAL);
        (0..3).for_each(|_| breaker.failed(now, MIDDLE));
        assert_eq!(breaker.begin(), Permit::Trial);
        assert_eq!(breaker.begin(), Permit::Trial);
    }

    #[test]
    fn an_interval_beyond_the_longest_back_off_stays_the_back_off() {
        let now = Instant::now();
        let mut breaker = Breaker::new(Duration::from_secs(3600));
        (0..5).for_each(|_| breaker.failed(now, MIDDLE));
        assert_eq!(after(&breaker, now), Some(3600));
    }

    proptest! {
        #[test]
        fn chance_spreads_a_back_off_by_a_quarter(chance in -2.0..3.0_f64, failures in 3..100_u32) {
            let now = Instant::now();
            let spread = |chance| {
                let mut breaker = Breaker::new(INTERVAL);
                (0..failures).for_each(|_| breaker.failed(now, chance));
                breaker.open_until().map(|until| (until - now).as_secs_f64()).unwrap_or_default()
            };
            let plain = spread(MIDDLE);
            prop_assert!((0.749 * plain..=1.251 * plain).contains(&spread(chance)), "{} of {plain}", spread(chance));
            prop_assert_eq!(spread(f64::NAN), plain);
        }
    }
}
