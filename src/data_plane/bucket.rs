//! A token bucket, pure.

use std::time::Instant;

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
        let passed = now.saturating_duration_since(self.filled_at);
        self.filled_at = self.filled_at.max(now);
        self.tokens = (self.tokens + passed.as_secs_f64() * self.per_second).min(self.burst);
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
}
