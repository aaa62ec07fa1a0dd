//! How often and how soon a child is restarted: pure functions of time and chance.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::flags::Intensity;
use crate::spec::Backoff;

/// The automatic restarts of a child, or of all children of a supervisor, within a period (OTP `add_restart`, a true sliding window).
#[derive(Clone, Debug, Default)]
pub struct Window {
    /// Oldest first; never more than `max_restarts`.
    restarts: VecDeque<Instant>,
}

impl Window {
    /// A window with restarts of the given ages; those from before the start of the clock are left out.
    #[must_use]
    pub fn seeded(now: Instant, ages: &[Duration], intensity: Intensity) -> Self {
        let mut restarts: Vec<Instant> =
            ages.iter().filter(|age| **age <= intensity.period).filter_map(|age| now.checked_sub(*age)).collect();
        restarts.sort_unstable();
        let surplus = restarts.len().saturating_sub(intensity.max_restarts as usize);
        Self { restarts: restarts.split_off(surplus).into() }
    }

    /// Admits one more restart at `now`, or refuses it because the window is full.
    #[must_use]
    pub fn admit(&mut self, now: Instant, intensity: Intensity) -> bool {
        let room = self.has_room(now, intensity);
        if room {
            self.restarts.push_back(now);
        }
        room
    }

    /// Whether one more restart at `now` would be admitted; for two windows that must both admit it.
    #[must_use]
    pub fn has_room(&mut self, now: Instant, intensity: Intensity) -> bool {
        while self.restarts.front().is_some_and(|at| now.saturating_duration_since(*at) > intensity.period) {
            self.restarts.pop_front();
        }
        self.restarts.len() < intensity.max_restarts as usize
    }

    /// Whether it holds nothing at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.restarts.is_empty()
    }

    /// The restarts that lie in the window at `now`.
    #[must_use]
    pub fn count(&self, now: Instant, intensity: Intensity) -> u32 {
        let inside =
            self.restarts.iter().rev().take_while(|at| now.saturating_duration_since(**at) <= intensity.period).count();
        u32::try_from(inside).unwrap_or(u32::MAX)
    }

    /// Forgets every restart.
    pub fn clear(&mut self) {
        self.restarts = VecDeque::new();
    }
}

impl Backoff {
    /// The delay before restart `n`: for the first `initial`, else `min(max, then * factor^(n-2))` times a factor in `1 +- jitter`
    /// that `chance` (0 to 1) picks.
    #[must_use]
    pub fn delay(&self, n: u32, chance: f64) -> Duration {
        if n <= 1 {
            return self.initial;
        }
        if self.then.is_zero() {
            return Duration::ZERO;
        }
        let exponent = i32::try_from(n - 2).unwrap_or(i32::MAX);
        let grown = (self.then.as_secs_f64() * self.factor.powi(exponent)).min(self.max.as_secs_f64());
        let stretch = 1.0 + self.jitter * (2.0 * chance.clamp(0.0, 1.0) - 1.0);
        Duration::try_from_secs_f64(grown * stretch).unwrap_or(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO_IN_TEN: Intensity = Intensity { max_restarts: 2, period: Duration::from_secs(10) };

    fn s(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn intensity_window_slides() {
        let t0 = Instant::now();
        let mut window = Window::default();
        assert!(window.admit(t0, TWO_IN_TEN));
        assert!(window.admit(t0 + s(6), TWO_IN_TEN));
        assert!(!window.admit(t0 + s(9), TWO_IN_TEN), "third within ten seconds");
        assert!(!window.admit(t0 + s(10), TWO_IN_TEN), "the edge belongs to the window, as in OTP");
        assert!(window.admit(t0 + s(11), TWO_IN_TEN), "the first has left");
        assert!(!window.admit(t0 + s(12), TWO_IN_TEN), "the second has not");
        assert_eq!(window.count(t0 + s(12), TWO_IN_TEN), 2);
        assert_eq!(window.count(t0 + s(17), TWO_IN_TEN), 1);
    }

    #[test]
    fn intensity_zero_admits_nothing() {
        assert!(!Window::default().admit(Instant::now(), Intensity { max_restarts: 0, period: s(1) }));
    }

    #[test]
    fn seeded_window_counts_what_is_still_inside() {
        let now = Instant::now();
        let mut window = Window::seeded(now, &[s(1), s(30), s(4)], TWO_IN_TEN);
        assert_eq!(window.count(now, TWO_IN_TEN), 2);
        assert!(!window.admit(now + s(5), TWO_IN_TEN));
        assert!(window.admit(now + s(7), TWO_IN_TEN));
    }

    #[test]
    fn backoff_follows_the_formula() {
        let backoff = Backoff { jitter: 0.0, ..Backoff::default() };
        let delays: Vec<u64> = (1..=9).map(|n| backoff.delay(n, 0.5).as_secs()).collect();
        assert_eq!(delays, [0, 1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(backoff.delay(u32::MAX, 0.5), s(60), "no overflow");
        let still = Backoff { then: Duration::ZERO, ..backoff };
        assert_eq!(still.delay(u32::MAX, 0.5), Duration::ZERO);
    }

    #[test]
    fn backoff_jitter_stays_in_its_band() {
        let backoff = Backoff { then: s(100), max: s(100), ..Backoff::default() };
        assert_eq!(backoff.delay(2, 0.0), s(75));
        assert_eq!(backoff.delay(2, 0.5), s(100));
        assert_eq!(backoff.delay(2, 1.0), s(125));
    }
}
