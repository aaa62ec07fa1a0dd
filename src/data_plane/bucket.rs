//! A token bucket, pure.

use std::time::{Duration, Instant};

/// Fills steadily up to a burst; each message takes one token.
#[derive(Debug)]
pub(super) struct Bucket {
    tokens: f64,
    filled_at: Instant,
    per_second: f64,
    burst: f64,
}

impl Bucket {
    /// A full one.
    pub(super) fn new(now: Instant, per_second: u32, burst: u32) -> Self {
        Self { tokens: burst.into(), filled_at: now, per_second: per_second.into(), burst: burst.into() }
    }

    /// Takes a token if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        self.fill(now);
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }

    /// Takes as many tokens as `needed`, on credit of at most a burst where there are not so many, and of what is left then up to `wanted`.
    /// Returns how many of those.
    pub(super) fn claim(&mut self, now: Instant, needed: u64, wanted: u64) -> u64 {
        self.fill(now);
        self.tokens = (self.tokens - as_tokens(needed)).max(-self.burst);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and `wanted`")]
        let granted = (self.tokens.max(0.0) as u64).min(wanted);
        self.tokens -= as_tokens(granted);
        granted
    }

    /// When there will be a token.
    pub(super) fn next(&mut self, now: Instant) -> Instant {
        self.fill(now);
        now + Duration::from_secs_f64((1.0 - self.tokens).max(0.0) / self.per_second)
    }

    fn fill(&mut self, now: Instant) {
        if now <= self.filled_at {
            return;
        }
        let passed = now.saturating_duration_since(self.filled_at);
        self.filled_at = now;
        self.tokens = (self.tokens + passed.as_secs_f64() * self.per_second).min(self.burst);
    }
}

#[expect(clippy::cast_precision_loss, reason = "messages of one read are far below 2^52")]
fn as_tokens(messages: u64) -> f64 {
    messages as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_steady_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start, 10, 3);
        let taken = |bucket: &mut Bucket, at: Duration| (0..100).filter(|_| bucket.take(start + at)).count();
        assert_eq!(taken(&mut bucket, Duration::ZERO), 3);
        assert_eq!(taken(&mut bucket, Duration::from_millis(200)), 2);
        assert_eq!(taken(&mut bucket, Duration::from_millis(100)), 0, "an older time refills nothing");
        assert_eq!(taken(&mut bucket, Duration::from_secs(60)), 3, "never more than the burst");
    }

    #[test]
    fn what_is_needed_is_had_on_credit_and_paid_back() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start, 10, 5);
        assert_eq!(bucket.claim(start, 0, 1), 1, "no more than is wanted");
        assert_eq!(bucket.claim(start, 1, 9), 3);
        assert_eq!(bucket.claim(start, 4, 1), 0, "four below nothing");
        assert_eq!(bucket.next(start), start + Duration::from_millis(500));
        assert_eq!(bucket.claim(start + Duration::from_millis(500), 0, 9), 1);
        assert_eq!(bucket.claim(start, 1_000_000, 0), 0);
        assert_eq!(bucket.claim(start + Duration::from_millis(1_100), 0, 9), 1, "credit ends at a burst");
    }
}
