//! When failed accepts are told of: the first at once, then all of a span together. Pure.

use std::time::Instant;

use super::limits::FAILURES_TOLD_EVERY;

/// What has not been told yet.
#[derive(Debug, Default)]
pub(super) struct Failures {
    untold: u64,
    told_at: Option<Instant>,
}

impl Failures {
    /// One more. Returns how many there were since the last message, if it is time for one. Successes in between change nothing: where descriptors
    /// are short the two take turns.
    #[must_use]
    pub(super) fn tell(&mut self, now: Instant) -> Option<u64> {
        self.untold += 1;
        if self.told_at.is_some_and(|told| now < told + FAILURES_TOLD_EVERY) {
            return None;
        }
        self.told_at = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_first_is_told_at_once_and_the_rest_together() {
        let began = Instant::now();
        let mut failures = Failures::default();
        assert_eq!(failures.tell(began), Some(1));
        let second = Duration::from_secs(1);
        for n in 1..60 {
            assert_eq!(failures.tell(began + n * second), None);
        }
        assert_eq!(failures.tell(began + 60 * second), Some(60));
        assert_eq!(failures.tell(began + 61 * second), None);
        assert_eq!(failures.tell(began + 1000 * second), Some(2));
    }
}
