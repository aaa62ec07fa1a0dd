//! A question put into points, and what is stored and what is not yet put into them. Pure.

use std::time::{Duration, SystemTime};

use super::memory::at;
use crate::store::{
    HistoryQuery, Point, Resolution,
    history::{Stored, Tally},
};

/// What memory holds of one series.
#[derive(Default)]
pub(super) struct Unwritten {
    pub(super) closed: Vec<(u64, u64, Tally)>,
    pub(super) open: Option<(u64, Tally)>,
    pub(super) holes: Vec<(SystemTime, SystemTime)>,
}

/// The points of a query: from the one that begins at `from_s` to the one at `to_s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) resolution: Resolution,
    pub(super) from_s: u64,
    pub(super) to_s: u64,
}

impl Span {
    /// `None` when it holds no time.
    pub(super) fn of(query: &HistoryQuery, now: SystemTime) -> Option<Self> {
        let until = query.until.min(now);
        let age = now.duration_since(query.since).unwrap_or(Duration::ZERO);
        let resolution = query.resolution.unwrap_or(Resolution::reaching(age));
        let since = query.since.max(now.checked_sub(resolution.kept()).unwrap_or(SystemTime::UNIX_EPOCH));
        if since >= until {
            return None;
        }
        let span_s = resolution.span_s();
        let begin = |time: SystemTime| {
            let since_1970 = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
            since_1970.as_secs() / span_s * span_s
        };
        // `until` itself is no longer in it.
        let last = until.checked_sub(Duration::from_nanos(1)).unwrap_or(SystemTime::UNIX_EPOCH);
        Some(Self { resolution, from_s: begin(since), to_s: begin(last) })
    }

    pub(super) fn points(self, stored: Stored, unwritten: &Unwritten) -> Vec<Point> {
        let span_s = self.resolution.span_s();
        let place = |start_s: u64| usize::try_from(start_s.checked_sub(self.from_s)? / span_s).ok();
        let count = usize::try_from((self.to_s - self.from_s) / span_s).unwrap_or(0) + 1;
        let mut tallies = vec![Tally::default(); count];
        let waiting = unwritten.closed.iter().filter(|(number, ..)| *number > stored.upto);
        let waiting = waiting.map(|(_, start_s, tally)| (*start_s, *tally));
        for (start_s, tally) in stored.tallies.iter().copied().chain(waiting).chain(unwritten.open) {
            if let Some(sum) = place(start_s).and_then(|at| tallies.get_mut(at)) {
                sum.merge(&tally);
            }
        }
        let unwritten = unwritten.holes.iter().map(|(from, to)| (millis(*from), millis(*to)));
        let holes: Vec<(u64, u64)> = stored.holes.into_iter().chain(unwritten).collect();
        let mut start_s = self.from_s;
        let mut points = Vec::with_capacity(count);
        for tally in tallies {
            let (from_ms, to_ms) = (start_s * 1000, (start_s + span_s) * 1000);
            let seen_whole = !holes.iter().any(|(from, to)| *from < to_ms && *to >= from_ms);
            points.push(tally.point(at(start_s), seen_whole));
            start_s += span_s;
        }
        points
    }
}

fn millis(at: SystemTime) -> u64 {
    let since_1970 = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}
