//! Who is blocked: the deciding half of the watch over the threads, without threads or clocks of its own.
//!
//! Each round the watch is told which threads still owe an answer to a beat. A silence is measured by the watch's own rounds, and a round
//! that came late counts for no more than [`LATE_ROUND`]: when the whole process was stopped or starved, everyone was silent and nobody is
//! to blame.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Rounds in the time after which a silent thread counts as blocked: it is found out a quarter late at most.
const ROUNDS: u32 = 4;

/// A round counts as this many at most, however long ago the one before was.
const LATE_ROUND: u32 = 2;

/// Shortest time between two rounds, whatever the settings say; a beat costs each thread a wake-up.
const ROUND_MIN: Duration = Duration::from_millis(1);

/// How often the same trouble is said again while it lasts.
pub(crate) const SAY_AGAIN: Duration = Duration::from_secs(60);

/// The number of a thread within its tree, never used twice. [`SUPERVISORS`] is the one that the tree doesn't own.
pub(crate) type ThreadId = u32;

/// The thread of the root and of every supervisor.
pub(crate) const SUPERVISORS: ThreadId = 0;

/// What follows for one thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Verdict {
    /// It is blocked: take it out of use.
    Fence(ThreadId),
    /// It is blocked, and as many threads as may be are leaked already. Said once in [`SAY_AGAIN`].
    AtCap(ThreadId),
    /// The supervisors' thread is blocked, which nobody can heal. `anew` when it was not at the last round; said again as above.
    Supervisors {
        /// Whether this is a new block.
        anew: bool,
    },
}

/// The memory of the watch.
#[derive(Debug)]
pub(crate) struct Watch {
    blocked_after: Duration,
    leaked_max: usize,
    last_round: Option<Instant>,
    /// For how long each silent thread has been silent.
    silences: BTreeMap<ThreadId, Duration>,
    cap_said: Option<Instant>,
    supervisors_said: Option<Instant>,
}

impl Watch {
    pub(crate) fn new(blocked_after: Duration, leaked_max: usize) -> Self {
        Self {
            blocked_after,
            leaked_max,
            last_round: None,
            silences: BTreeMap::new(),
            cap_said: None,
            supervisors_said: None,
        }
    }

    /// Time from one round to the next.
    pub(crate) fn period(&self) -> Duration {
        (self.blocked_after / ROUNDS).max(ROUND_MIN)
    }

    /// Judges a round: `leaked` threads are out of use, and `silent` are those in use that owe an answer to a beat.
    pub(crate) fn round(&mut self, now: Instant, leaked: usize, silent: &[ThreadId]) -> Vec<Verdict> {
        let since = self.last_round.replace(now).map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        let counted = since.min(self.period() * LATE_ROUND);
        self.silences = silent
            .iter()
            .map(|id| (*id, self.silences.get(id).copied().unwrap_or_default().saturating_add(counted)))
            .collect();
        let blocked: Vec<ThreadId> = self
            .silences
            .iter()
            .filter(|(_, silence)| **silence >= self.blocked_after && !silence.is_zero())
            .map(|(id, _)| *id)
            .collect();
        if !blocked.contains(&SUPERVISORS) {
            self.supervisors_said = None;
        }
        let mut room = self.leaked_max.saturating_sub(leaked);
        let mut verdicts = Vec::new();
        for id in blocked {
            if id == SUPERVISORS {
                let anew = self.supervisors_said.is_none();
                if due(&mut self.supervisors_said, now) {
                    verdicts.push(Verdict::Supervisors { anew });
                }
            } else if room > 0 {
                room -= 1;
                verdicts.push(Verdict::Fence(id));
            } else if due(&mut self.cap_said, now) {
                verdicts.push(Verdict::AtCap(id));
            }
        }
        verdicts
    }
}

/// Whether something that was said at `said` is to be said (again) now.
fn due(said: &mut Option<Instant>, now: Instant) -> bool {
    let due = said.is_none_or(|said| now.saturating_duration_since(said) >= SAY_AGAIN);
    if due {
        *said = Some(now);
    }
    due
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_secs(8);
    const PERIOD: Duration = Duration::from_secs(2);

    /// Rounds of one period each, all with the same silent threads.
    fn rounds(watch: &mut Watch, now: &mut Instant, count: u32, leaked: usize, silent: &[ThreadId]) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        for _ in 0..count {
            *now += PERIOD;
            verdicts.extend(watch.round(*now, leaked, silent));
        }
        verdicts
    }

    #[test]
    fn the_silent_one_alone_is_fenced_and_not_before_its_time() {
        let (mut watch, mut now) = (Watch::new(AFTER, 4), Instant::now());
        assert_eq!(watch.period(), PERIOD);
        assert_eq!(watch.round(now, 0, &[]), []);
        assert_eq!(rounds(&mut watch, &mut now, 3, 0, &[7]), []);
        assert_eq!(rounds(&mut watch, &mut now, 1, 0, &[7, 9]), [Verdict::Fence(7)]);
        assert_eq!(rounds(&mut watch, &mut now, 2, 1, &[9]), []);
        assert_eq!(rounds(&mut watch, &mut now, 1, 1, &[9]), [Verdict::Fence(9)]);
    }

    #[test]
    fn an_answer_clears_the_silence() {
        let (mut watch, mut now) = (Watch::new(AFTER, 4), Instant::now());
        let _ = watch.round(now, 0, &[]);
        for _ in 0..5 {
            assert_eq!(rounds(&mut watch, &mut now, 3, 0, &[7]), []);
            assert_eq!(rounds(&mut watch, &mut now, 1, 0, &[]), []);
        }
    }

    #[test]
    fn time_that_the_watch_slept_through_blames_nobody() {
        let (mut watch, mut now) = (Watch::new(AFTER, 4), Instant::now());
        let _ = watch.round(now, 0, &[]);
        now += Duration::from_secs(3600);
        assert_eq!(watch.round(now, 0, &[1, 2, 3]), [], "the process was stopped for an hour");
        assert_eq!(rounds(&mut watch, &mut now, 1, 0, &[2]), []);
        assert_eq!(rounds(&mut watch, &mut now, 1, 0, &[2]), [Verdict::Fence(2)]);
    }

    #[test]
    fn at_the_cap_nothing_is_fenced_and_it_is_said_once_in_a_while() {
        let (mut watch, mut now) = (Watch::new(AFTER, 2), Instant::now());
        let _ = watch.round(now, 1, &[]);
        assert_eq!(rounds(&mut watch, &mut now, 4, 1, &[1, 2, 3]), [Verdict::Fence(1), Verdict::AtCap(2)]);
        assert_eq!(rounds(&mut watch, &mut now, 29, 2, &[2, 3]), []);
        assert_eq!(rounds(&mut watch, &mut now, 1, 2, &[2, 3]), [Verdict::AtCap(2)]);
        // One of the leaked came back.
        assert_eq!(rounds(&mut watch, &mut now, 1, 1, &[2, 3]), [Verdict::Fence(2)]);
    }

    #[test]
    fn a_cap_of_nought_fences_nothing() {
        let (mut watch, mut now) = (Watch::new(AFTER, 0), Instant::now());
        let _ = watch.round(now, 0, &[]);
        assert_eq!(rounds(&mut watch, &mut now, 8, 0, &[5]), [Verdict::AtCap(5)]);
    }

    #[test]
    fn the_supervisors_are_reported_never_fenced() {
        let (mut watch, mut now) = (Watch::new(AFTER, 4), Instant::now());
        let _ = watch.round(now, 0, &[]);
        let report = |anew| Verdict::Supervisors { anew };
        assert_eq!(rounds(&mut watch, &mut now, 33, 0, &[SUPERVISORS]), [report(true)]);
        assert_eq!(rounds(&mut watch, &mut now, 1, 0, &[SUPERVISORS]), [report(false)], "a minute later");
        assert_eq!(rounds(&mut watch, &mut now, 1, 0, &[]), []);
        assert_eq!(rounds(&mut watch, &mut now, 4, 0, &[SUPERVISORS]), [report(true)], "another block");
    }

    #[test]
    fn a_limit_of_nought_still_gives_a_thread_one_round() {
        let (mut watch, now) = (Watch::new(Duration::ZERO, 4), Instant::now());
        assert_eq!(watch.period(), ROUND_MIN);
        assert_eq!(watch.round(now, 0, &[1]), []);
        assert_eq!(watch.round(now + ROUND_MIN, 0, &[1]), [Verdict::Fence(1)]);
    }
}
