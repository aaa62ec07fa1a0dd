//! When a source is polled. Pure.

use std::time::{Duration, Instant};

use super::breaker::{Breaker, Permit};
use crate::model::BreakerState;

/// The polls of one source: at each interval while things go well, as the breaker says while they don't. A poll that takes longer than an interval
/// is followed by the next at once, and those that fell into it are not made up for.
#[derive(Debug, Clone)]
pub(super) struct Schedule {
    interval: Duration,
    due: Instant,
    breaker: Breaker,
}

impl Schedule {
    /// The first poll is due at once.
    pub(super) fn new(interval: Duration, now: Instant) -> Self {
        Self { interval, due: now, breaker: Breaker::new(interval) }
    }

    /// When the next poll is due.
    pub(super) fn due(&self) -> Instant {
        self.breaker.open_until().unwrap_or(self.due)
    }

    /// A poll begins.
    pub(super) fn begin(&mut self, now: Instant) -> Permit {
        let next = self.due + self.interval;
        // In step with the first, unless that has passed already.
        self.due = if next > now { next } else { now + self.interval };
        self.breaker.begin()
    }

    /// The poll has ended. `chance` lies in 0..1.
    pub(super) fn end(&mut self, now: Instant, ok: bool, chance: f64) {
        let trial = self.breaker.state() != BreakerState::Closed;
        if ok {
            self.breaker.succeeded();
            if trial {
                // The steps of before the failures mean nothing any more.
                self.due = now + self.interval;
            }
        } else {
            self.breaker.failed(now, chance);
        }
    }

    pub(super) fn breaker(&self) -> &Breaker {
        &self.breaker
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn seconds(start: Instant, at: Instant) -> u64 {
        (at - start).as_secs()
    }

    #[test]
    fn polls_keep_their_step_and_leave_no_backlog() {
        let start = Instant::now();
        let mut schedule = Schedule::new(INTERVAL, start);
        let mut begun = Vec::new();
        let mut free = start;
        for took in [0, 3, 9, 25, 0, 300, 1] {
            let now = schedule.due().max(free);
            begun.push(seconds(start, now));
            assert_eq!(schedule.begin(now), Permit::Whole);
            free = now + Duration::from_secs(took);
            schedule.end(free, true, 0.5);
        }
        assert_eq!(begun, [0, 10, 20, 30, 55, 65, 365]);
    }

    #[test]
    fn a_poll_that_begins_late_shifts_no_step() {
        let start = Instant::now();
        let mut schedule = Schedule::new(INTERVAL, start);
        let _ = schedule.begin(start + Duration::from_secs(3));
        assert_eq!(seconds(start, schedule.due()), 10);
    }

    #[test]
    fn failures_keep_the_step_until_the_breaker_opens() {
        let start = Instant::now();
        let mut schedule = Schedule::new(INTERVAL, start);
        let mut begun = Vec::new();
        for _ in 0..6 {
            let now = schedule.due();
            begun.push(seconds(start, now));
            let _ = schedule.begin(now);
            schedule.end(now, false, 0.5);
        }
        assert_eq!(begun, [0, 10, 20, 30, 50, 90]);
        let back = schedule.due();
        assert_eq!(schedule.begin(back), Permit::Trial);
        let ended = back + Duration::from_secs(4);
        schedule.end(ended, true, 0.5);
        assert_eq!(schedule.due(), ended + INTERVAL, "the steps begin anew where it came back");
    }
}
