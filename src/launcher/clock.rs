//! Time as a loop sees it, and the gaps in it.

use std::time::{Duration, Instant};

use super::sys;

/// A turn that comes later than this was not ours to take: we had been stopped, frozen or suspended.
const GAP_MIN: Duration = Duration::from_secs(1);

/// When this turn of a loop began.
pub(super) struct Clock {
    at: Instant,
    /// Since boot, suspended time included.
    boot_at: Duration,
}

impl Clock {
    pub(super) fn new(now: Instant) -> Self {
        Self { at: now, boot_at: sys::boot_time() }
    }

    /// When this turn began.
    pub(super) fn at(&self) -> Instant {
        self.at
    }

    /// Begins the next turn, after a wait of at most `timeout`. Returns whether we had been kept from running.
    pub(super) fn turn(&mut self, timeout: Duration) -> bool {
        let (now, boot) = (Instant::now(), sys::boot_time());
        let woke = is_gap(now.saturating_duration_since(self.at), boot.saturating_sub(self.boot_at), timeout);
        (self.at, self.boot_at) = (now, boot);
        woke
    }
}

/// `monotonic` and `boot` have passed where no more than `timeout` should have.
fn is_gap(monotonic: Duration, boot: Duration, timeout: Duration) -> bool {
    monotonic.saturating_sub(timeout) > GAP_MIN || boot.saturating_sub(monotonic) > GAP_MIN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_turns_and_suspended_machines_are_gaps() {
        let seconds = Duration::from_secs;
        assert!(!is_gap(seconds(30), seconds(30), seconds(30)));
        assert!(!is_gap(seconds(31), seconds(31), seconds(30)), "a busy machine");
        assert!(is_gap(seconds(32), seconds(32), seconds(30)), "stopped or frozen");
        assert!(is_gap(seconds(30), seconds(32), seconds(30)), "suspended");
        assert!(!is_gap(seconds(1), seconds(1), seconds(30)), "woken early");
    }
}
