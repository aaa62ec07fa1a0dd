//! Agents that fall silent over and over. Pure.
//!
//! A state that comes and goes every few seconds tells an operator less than one that stays and says why. An agent that fell silent
//! [`SILENCES`] times within [`WITHIN`] is held `degraded` until its heartbeats have been in time for [`CALM`].

use std::time::{Duration, Instant};

/// So many silences make a pattern: one is an accident, two a coincidence.
pub(super) const SILENCES: usize = 3;
/// Silences further apart than this have nothing to do with each other: twenty of the default heartbeat timeouts.
pub(super) const WITHIN: Duration = Duration::from_secs(300);
/// How long heartbeats are in time before the agent is trusted again: four of the default heartbeat timeouts, and less than [`WITHIN`], so that the
/// word is not kept for ever by silences that would not have brought it.
pub(super) const CALM: Duration = Duration::from_secs(60);

/// What is remembered of one agent's silences.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Flap {
    /// When it fell silent the last times, the latest first.
    silences: [Option<Instant>; SILENCES],
    silent: bool,
    flapping: bool,
    /// The first heartbeat behind the last silence.
    calm_since: Option<Instant>,
}

impl Flap {
    /// Its heartbeats are overdue. Told again while they are, it is the same silence.
    pub(super) fn overdue(&mut self, now: Instant) {
        if self.silent {
            return;
        }
        self.silent = true;
        self.calm_since = None;
        self.silences.rotate_right(1);
        self.silences[0] = Some(now);
        let first = self.silences[SILENCES - 1];
        self.flapping |= first.is_some_and(|first| now.saturating_duration_since(first) <= WITHIN);
    }

    /// A heartbeat came. Only a heartbeat proves that they still come, so only one ends the word.
    pub(super) fn beat(&mut self, now: Instant) {
        self.silent = false;
        if !self.flapping {
            return;
        }
        let since = *self.calm_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= CALM {
            *self = Self::default();
        }
    }

    pub(super) fn is_flapping(&self) -> bool {
        self.flapping
    }

    /// Nobody could hear it for so long, which is neither calm nor silence.
    pub(super) fn shift(&mut self, by: Duration, now: Instant) {
        let later = |then: Instant| then.checked_add(by).map_or(now, |shifted| shifted.min(now));
        self.calm_since = self.calm_since.map(later);
        self.silences = self.silences.map(|silence| silence.map(later));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A clock of its own and the agent's heartbeat timeout.
    struct Bench {
        now: Instant,
        heard: Instant,
        flap: Flap,
    }

    const TIMEOUT: Duration = Duration::from_secs(15);

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    impl Bench {
        fn new() -> Self {
            let now = Instant::now();
            Self { now, heard: now, flap: Flap::default() }
        }

        /// No heartbeat for so long, judged each second as the fold would.
        fn silence(&mut self, time: Duration) {
            for _ in 0..time.as_secs() {
                self.now += secs(1);
                if self.now - self.heard >= TIMEOUT {
                    self.flap.overdue(self.now);
                }
            }
        }

        fn beat(&mut self) {
            self.heard = self.now;
            self.flap.beat(self.now);
        }

        /// A heartbeat each five seconds for so long.
        fn beats(&mut self, time: Duration) {
            self.beat();
            for _ in 0..time.as_secs() / 5 {
                self.silence(secs(5));
                self.beat();
            }
        }

        fn flaps(&mut self, times: usize, calm_between: Duration) {
            for _ in 0..times {
                self.silence(secs(20));
                self.beats(calm_between);
            }
        }
    }

    #[test]
    fn the_third_silence_within_five_minutes_flaps_and_the_second_does_not() {
        let mut bench = Bench::new();
        bench.flaps(2, secs(10));
        bench.silence(secs(14));
        assert!(!bench.flap.is_flapping());
        bench.silence(secs(1));
        assert!(bench.flap.is_flapping(), "from the moment it falls silent");
    }

    #[test]
    fn silences_further_apart_do_not_flap() {
        let mut bench = Bench::new();
        // 120 s of heartbeats and 20 s of silence: the first and the third are 280 s apart.
        bench.flaps(2, secs(130));
        bench.silence(secs(20));
        assert!(bench.flap.is_flapping(), "150 s apart, twice");
        let mut bench = Bench::new();
        bench.flaps(20, secs(135));
        assert!(!bench.flap.is_flapping(), "155 s apart, twice");
    }

    #[test]
    fn one_long_silence_is_one() {
        let mut bench = Bench::new();
        bench.silence(secs(3600));
        assert!(!bench.flap.is_flapping());
    }

    #[test]
    fn it_ends_with_the_first_heartbeat_after_a_minute_in_time() {
        let mut bench = Bench::new();
        bench.flaps(3, Duration::ZERO);
        bench.beats(secs(55));
        assert!(bench.flap.is_flapping());
        bench.silence(secs(5));
        assert!(bench.flap.is_flapping(), "time alone proves nothing");
        bench.beat();
        assert!(!bench.flap.is_flapping());
        bench.flaps(2, secs(10));
        assert!(!bench.flap.is_flapping(), "and it begins anew");
    }

    #[test]
    fn a_silence_starts_the_minute_over() {
        let mut bench = Bench::new();
        bench.flaps(3, Duration::ZERO);
        bench.beats(secs(50));
        bench.silence(secs(20));
        bench.beats(secs(55));
        assert!(bench.flap.is_flapping());
        bench.beats(secs(5));
        assert!(!bench.flap.is_flapping());
    }

    #[test]
    fn time_in_which_nobody_listened_is_no_calm() {
        let mut bench = Bench::new();
        bench.flaps(3, Duration::ZERO);
        bench.beats(secs(10));
        bench.now += secs(600);
        bench.flap.shift(secs(600), bench.now);
        bench.beats(secs(45));
        assert!(bench.flap.is_flapping());
        bench.beats(secs(5));
        assert!(!bench.flap.is_flapping());
    }

    #[test]
    fn time_in_which_nobody_listened_lies_between_no_silences() {
        let mut bench = Bench::new();
        bench.flaps(2, secs(10));
        bench.now += secs(600);
        bench.heard = bench.now;
        bench.flap.shift(secs(600), bench.now);
        bench.silence(secs(20));
        assert!(bench.flap.is_flapping(), "the third, a minute after the first");
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Silence(u64),
        Beats(u64),
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Against the definition, on the whole history of silences and heartbeats.
        #[test]
        fn it_flaps_exactly_as_it_is_defined(
            steps in proptest::collection::vec(
                prop_oneof![(1u64..120).prop_map(Step::Silence), (0u64..200).prop_map(Step::Beats)], 0..30)
        ) {
            let mut bench = Bench::new();
            // Seconds at which it fell silent, since it was last trusted; the first heartbeat behind the last of them; the word.
            let (mut fell, mut calm, mut flapping, mut silent): (Vec<Instant>, Option<Instant>, bool, bool) = Default::default();
            let seconds: Vec<bool> = steps.iter().flat_map(|step| match step {
                Step::Silence(seconds) => vec![false; usize::try_from(*seconds).unwrap_or(0)],
                Step::Beats(seconds) => vec![true; usize::try_from(*seconds).unwrap_or(0)],
            }).collect();
            for beats in seconds {
                bench.silence(secs(1));
                let late = bench.now - bench.heard >= TIMEOUT;
                if late && !silent {
                    fell.push(bench.now);
                    calm = None;
                    flapping |= fell.iter().filter(|at| bench.now - **at <= WITHIN).count() >= SILENCES;
                }
                silent = late;
                if beats {
                    bench.beat();
                    silent = false;
                    if flapping {
                        let since = *calm.get_or_insert(bench.now);
                        if bench.now - since >= CALM {
                            (flapping, calm) = (false, None);
                            fell.clear();
                        }
                    }
                }
                prop_assert_eq!(bench.flap.is_flapping(), flapping);
            }
        }
    }
}
