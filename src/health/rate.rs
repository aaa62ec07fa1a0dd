//! How many a second, over windows that have truly passed. Pure.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// The windows that are shown. The longest bounds what is kept: a mark a second, some 300 of 24 bytes.
pub(super) const SECOND: Duration = Duration::from_secs(1);
/// See [`SECOND`].
pub(super) const MINUTE: Duration = Duration::from_secs(60);
/// See [`SECOND`].
pub(super) const FIVE_MINUTES: Duration = Duration::from_secs(300);

/// A count that only grows, and what it was at each mark.
///
/// A rate over a window is what was counted between two marks, divided by the time that lies between them: the younger is the last one, the
/// older the youngest that is at least a window older. So nothing is estimated at the edges, a window that was held up is as long as it was, and
/// before the first window has passed there is no rate.
#[derive(Debug)]
pub(super) struct Rates {
    total: u64,
    marks: VecDeque<(Instant, u64)>,
    marked: Instant,
}

impl Rates {
    pub(super) fn new(now: Instant) -> Self {
        Self { total: 0, marks: VecDeque::from([(now, 0)]), marked: now }
    }

    pub(super) fn count(&mut self, more: u64) {
        self.total = self.total.saturating_add(more);
    }

    /// When the last mark was set.
    pub(super) fn marked(&self) -> Instant {
        self.marked
    }

    /// Ends one measurement and begins the next. Marks that no window reaches any more go.
    pub(super) fn mark(&mut self, now: Instant) {
        self.marks.push_back((now, self.total));
        self.marked = now;
        while self.marks.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) >= FIVE_MINUTES) {
            self.marks.pop_front();
        }
    }

    /// How many a second, over this window up to the last mark.
    pub(super) fn over(&self, window: Duration) -> Option<f64> {
        let (_, total) = *self.marks.back()?;
        let age = |at: Instant| self.marked.saturating_duration_since(at);
        let old_enough = self.marks.partition_point(|(at, _)| age(*at) >= window);
        let (from, before) = *self.marks.get(old_enough.checked_sub(1)?)?;
        #[expect(clippy::cast_precision_loss, reason = "five minutes' messages are far below 2^52")]
        Some((total - before) as f64 / age(from).as_secs_f64())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Marks each second: how many were counted in it.
    fn seconds(counts: impl IntoIterator<Item = u64>) -> Rates {
        let mut now = Instant::now();
        let mut rates = Rates::new(now);
        for count in counts {
            rates.count(count);
            now += SECOND;
            rates.mark(now);
        }
        rates
    }

    #[test]
    fn no_rate_before_its_window_has_passed() {
        let shown = |seconds_passed: usize| {
            let rates = seconds(std::iter::repeat_n(10, seconds_passed));
            [SECOND, MINUTE, FIVE_MINUTES].map(|window| rates.over(window))
        };
        assert_eq!(shown(0), [None, None, None]);
        assert_eq!(shown(1), [Some(10.0), None, None]);
        assert_eq!(shown(59), [Some(10.0), None, None]);
        assert_eq!(shown(60), [Some(10.0), Some(10.0), None]);
        assert_eq!(shown(299), [Some(10.0), Some(10.0), None]);
        assert_eq!(shown(300), [Some(10.0), Some(10.0), Some(10.0)]);
    }

    #[test]
    fn a_burst_leaves_each_window_exactly_when_it_is_over() {
        let rates = |after: usize| seconds([600].into_iter().chain(std::iter::repeat_n(0, after)));
        assert_eq!(rates(0).over(SECOND), Some(600.0));
        assert_eq!(rates(1).over(SECOND), Some(0.0));
        assert_eq!(rates(59).over(MINUTE), Some(10.0));
        assert_eq!(rates(60).over(MINUTE), Some(0.0));
        assert_eq!(rates(299).over(FIVE_MINUTES), Some(2.0));
        assert_eq!(rates(300).over(FIVE_MINUTES), Some(0.0));
    }

    #[test]
    fn a_window_that_was_held_up_is_as_long_as_it_was() {
        let mut rates = seconds([0; 70]);
        rates.count(400);
        let late = rates.marked() + Duration::from_secs(4);
        rates.mark(late);
        assert_eq!(rates.over(SECOND), Some(100.0));
        assert_eq!(rates.over(MINUTE), Some(400.0 / 60.0));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Against the plain definition, over marks at any distance.
        #[test]
        fn every_rate_is_a_count_over_the_time_it_was_counted_in(
            steps in proptest::collection::vec((0u64..1000, 1u64..20_000), 1..400)
        ) {
            let mut now = Instant::now();
            let (mut rates, mut all) = (Rates::new(now), vec![(now, 0u64)]);
            for (count, ms) in steps {
                rates.count(count);
                now += Duration::from_millis(ms);
                rates.mark(now);
                all.push((now, all.last().unwrap().1 + count));
            }
            for window in [SECOND, MINUTE, FIVE_MINUTES] {
                let from = all.iter().rev().find(|(at, _)| now - *at >= window);
                let total = all.last().unwrap().1;
                #[allow(clippy::cast_precision_loss, reason = "small")]
                let expected = from.map(|(at, before)| (total - before) as f64 / (now - *at).as_secs_f64());
                prop_assert_eq!(rates.over(window), expected);
            }
            let in_reach = all.iter().filter(|(at, _)| now - *at < FIVE_MINUTES).count();
            prop_assert!(rates.marks.len() <= in_reach + 1, "bounded: {} of {in_reach}", rates.marks.len());
        }
    }
}
