//! Events as lines of the log: the one place that writes them.
//!
//! A child that is given up is an error, and so is a panic; another abnormal exit and a limit that is reached are warnings; what a failure sets
//! going (back-off, group restart, auto-shutdown) is information; the rest, all that a healthy tree does, is for debugging. A line is bounded,
//! and so is their number: a storm of crashing children must not drown the log. A blocked thread is an error. What was left out is counted in
//! the next line of the same level (`unlogged`); the [`EventSink`](crate::EventSink) hears everything.

use std::fmt::{self, Display, Formatter, Write};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::field::display;
use tracing::level_filters::LevelFilter;
use tracing::{Level, enabled, event};

use crate::event::{EventKind, Limit, LimitFollows, SupervisionEvent, ThreadEvent};
use crate::exit::ExitReason;
use crate::flags::Intensity;
use crate::spec::ChildId;

/// What the lines are filtered by.
const TARGET: &str = "hivekeeper_actors";

/// Lines of one level within [`PERIOD`]: more than a person reads, fewer than a disk notices.
const LINES_PER_PERIOD: u32 = 10;

/// Lines for debugging within [`PERIOD`]: enough for the start of a large swarm.
const DEBUG_LINES_PER_PERIOD: u32 = 200;

/// See [`LINES_PER_PERIOD`].
const PERIOD: Duration = Duration::from_secs(1);

/// Characters of a text in a line. A panic may quote a whole document, and the reason of a supervisor that gave up holds those of all
/// below.
const TEXT_MAX: usize = 512;

/// Writes a line when the level is listened to and its ration is not used up.
macro_rules! line {
    ($level:ident, $per_period:expr, $($fields:tt)*) => {
        if enabled!(target: TARGET, Level::$level) {
            static RATION: Mutex<Ration> = Mutex::new(Ration::new($per_period));
            let admitted = RATION.lock().admit(Instant::now());
            if let Some(unlogged) = admitted {
                event!(target: TARGET, Level::$level, unlogged, $($fields)*);
            }
        }
    };
}

/// Writes what happened to a child.
pub(crate) fn child(event: &SupervisionEvent) {
    let Words { level, kind, detail, attempt, wait, took } = words(&event.kind);
    if level > LevelFilter::current() {
        return;
    }
    let (reason, detail) = match detail {
        Some(Detail::Reason(reason)) => (Some(display(OneLine(reason))), None),
        other => (None, other.map(|detail| display(OneLine(detail)))),
    };
    let (wait_ms, took_ms) = (wait.map(millis), took.map(millis));
    let SupervisionEvent { path, incarnation, restarts, restarts_in_window, .. } = event;
    macro_rules! child_line {
        ($level:ident, $per_period:expr) => {
            line!($level, $per_period, path = %OneLine(path), incarnation, kind, reason, detail, attempt, wait_ms, took_ms,
                restarts, restarts_in_window, "child {kind}")
        };
    }
    match level {
        Level::ERROR => child_line!(ERROR, LINES_PER_PERIOD),
        Level::WARN => child_line!(WARN, LINES_PER_PERIOD),
        Level::INFO => child_line!(INFO, LINES_PER_PERIOD),
        _ => child_line!(DEBUG, DEBUG_LINES_PER_PERIOD),
    }
}

/// Writes how the first supervisor ended, which has no supervisor that could tell of it.
pub(crate) fn root(reason: &ExitReason) {
    let text = OneLine(reason);
    if reason.is_normal() {
        line!(DEBUG, LINES_PER_PERIOD, reason = %text, "the tree has ended");
    } else {
        line!(ERROR, LINES_PER_PERIOD, reason = %text, "the tree has ended");
    }
}

/// The path under which [`late_panic`] tells of the thread that watches the others.
pub(crate) const THREADS: &str = "threads";

/// Writes what happened to a thread.
pub(crate) fn thread(event: ThreadEvent) {
    match event {
        ThreadEvent::Fenced { thread, leaked } => line!(
            ERROR,
            LINES_PER_PERIOD,
            thread,
            leaked,
            "a thread of the children is blocked, its children are made anew elsewhere"
        ),
        ThreadEvent::AtCap { thread, leaked } => line!(
            ERROR,
            LINES_PER_PERIOD,
            thread,
            leaked,
            "a thread of the children is blocked and stays in use: too many are leaked already"
        ),
        ThreadEvent::Returned { thread, leaked } => {
            line!(INFO, LINES_PER_PERIOD, thread, leaked, "a blocked thread has come back and ended");
        }
        ThreadEvent::SupervisorsBlocked => line!(
            ERROR,
            LINES_PER_PERIOD,
            "the thread of the supervisors is blocked: nothing is restarted or stopped until it returns"
        ),
    }
}

/// Writes of a panic that is no exit: the incarnation had ended already, or it was somebody else's code.
pub(crate) fn late_panic(path: &str, reason: &ExitReason) {
    line!(ERROR, LINES_PER_PERIOD, path = %OneLine(path), reason = %OneLine(reason), "a panic outside an incarnation");
}

struct Words<'a> {
    level: Level,
    kind: &'static str,
    detail: Option<Detail<'a>>,
    attempt: Option<u32>,
    wait: Option<Duration>,
    took: Option<Duration>,
}

/// What there is to say about an event in words.
enum Detail<'a> {
    Reason(&'a ExitReason),
    Siblings(&'a [ChildId]),
    Limit { limit: Limit, intensity: Intensity, follows: LimitFollows },
}

impl Display for Detail<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reason(reason) => reason.fmt(f),
            Self::Siblings(ids) => {
                write!(f, "with {}", ids.len())?;
                ids.iter().try_for_each(|id| write!(f, " {id}"))
            }
            Self::Limit { limit, intensity: Intensity { max_restarts, period }, follows } => {
                let whose = match limit {
                    Limit::Child => "its own",
                    Limit::Supervisor => "its supervisor's",
                };
                let what = match follows {
                    LimitFollows::ChildFails => "it is failed",
                    LimitFollows::GroupFails => "it is failed with its group",
                    LimitFollows::AllFail => "all children are failed",
                    LimitFollows::GivesUp => "the supervisor gives up",
                };
                write!(f, "{whose} limit of {max_restarts} in {period:?}: {what}")
            }
        }
    }
}

fn words(event: &EventKind) -> Words<'_> {
    let plain = |kind| Words { level: Level::DEBUG, kind, detail: None, attempt: None, wait: None, took: None };
    match event {
        EventKind::Starting { attempt } => Words { attempt: Some(*attempt), ..plain("starting") },
        EventKind::Started { took } => Words { took: Some(*took), ..plain("started") },
        EventKind::Exited { reason } => {
            Words { level: level(reason), detail: Some(Detail::Reason(reason)), ..plain("exited") }
        }
        EventKind::BackingOff { attempt, delay } => {
            Words { level: Level::INFO, attempt: Some(*attempt), wait: Some(*delay), ..plain("backing_off") }
        }
        EventKind::Failed { reason, retry_in } => {
            Words { level: Level::ERROR, detail: Some(Detail::Reason(reason)), wait: *retry_in, ..plain("failed") }
        }
        EventKind::GroupRestart { siblings } => {
            Words { level: Level::INFO, detail: Some(Detail::Siblings(siblings)), ..plain("group_restart") }
        }
        EventKind::LimitReached { limit, intensity, follows } => {
            let detail = Detail::Limit { limit: *limit, intensity: *intensity, follows: *follows };
            Words { level: Level::WARN, detail: Some(detail), ..plain("limit_reached") }
        }
        EventKind::AutoShutdown => Words { level: Level::INFO, ..plain("auto_shutdown") },
        EventKind::Pending => plain("pending"),
        EventKind::Completed => plain("completed"),
        EventKind::Stopping => plain("stopping"),
        EventKind::Stopped => plain("stopped"),
        EventKind::Removed => plain("removed"),
    }
}

fn level(reason: &ExitReason) -> Level {
    match reason {
        ExitReason::Panic { .. } | ExitReason::GaveUp { .. } => Level::ERROR,
        // Only its specification has a child killed without being asked first.
        ExitReason::Killed => Level::DEBUG,
        reason if reason.is_normal() => Level::DEBUG,
        _ => Level::WARN,
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A text without line breaks and other control characters, cut after [`TEXT_MAX`].
struct OneLine<T>(T);

impl<T: Display> Display for OneLine<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut cut = Cut { out: f, left: TEXT_MAX };
        match write!(cut, "{}", self.0) {
            Err(_) if cut.left == 0 => f.write_char('…'),
            written => written,
        }
    }
}

struct Cut<'a, 'b> {
    out: &'a mut Formatter<'b>,
    left: usize,
}

impl Write for Cut<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            self.left.checked_sub(1).map(|left| self.left = left).ok_or(fmt::Error)?;
            self.out.write_char(if character.is_control() { ' ' } else { character })?;
        }
        Ok(())
    }
}

/// So many per period.
struct Ration {
    per_period: u32,
    since: Option<Instant>,
    used: u32,
    refused: u64,
}

impl Ration {
    const fn new(per_period: u32) -> Self {
        Self { per_period, since: None, used: 0, refused: 0 }
    }

    /// `Some(number refused since the last one)` when there is one left.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= PERIOD) {
            self.since = Some(now);
            self.used = 0;
        }
        if self.used == self.per_period {
            self.refused += 1;
            return None;
        }
        self.used += 1;
        Some(std::mem::take(&mut self.refused))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ration_refuses_counts_and_refills() {
        let t0 = Instant::now();
        let mut ration = Ration::new(10);
        assert_eq!((0..15).filter(|_| ration.admit(t0).is_some()).count(), 10);
        assert_eq!(ration.admit(t0 + PERIOD), Some(5));
        assert_eq!(ration.admit(t0 + PERIOD), Some(0));
    }

    #[test]
    fn a_text_is_one_line_of_bounded_length() {
        let reason = ExitReason::Error("first\nsecond\r\n\u{1b}[31mred".into());
        assert_eq!(OneLine(&reason).to_string(), "failed: first second   [31mred");
        let exact = "x".repeat(TEXT_MAX);
        assert_eq!(OneLine(&exact).to_string(), exact);
        let long = OneLine("ä".repeat(1_000_000)).to_string();
        assert_eq!((long.chars().count(), long.chars().last()), (TEXT_MAX + 1, Some('…')));
    }

    #[test]
    fn a_limit_is_told_in_words() {
        let kind = EventKind::LimitReached {
            limit: Limit::Supervisor,
            intensity: Intensity::SUPERVISOR,
            follows: LimitFollows::GivesUp,
        };
        let detail = words(&kind).detail.map(|detail| OneLine(detail).to_string());
        assert_eq!(detail.as_deref(), Some("its supervisor's limit of 3 in 5s: the supervisor gives up"));
        let siblings = EventKind::GroupRestart { siblings: ["a".into(), "b".into()].into() };
        assert_eq!(words(&siblings).detail.map(|detail| detail.to_string()).as_deref(), Some("with 2 a b"));
    }

    #[test]
    fn a_reason_of_any_depth_is_cut() {
        let mut reason = ExitReason::Normal;
        for _ in 0..1_000 {
            reason = ExitReason::GaveUp { child: "c".into(), reason: reason.into() };
        }
        assert_eq!(OneLine(&reason).to_string().chars().count(), TEXT_MAX + 1);
    }

    #[test]
    fn what_a_healthy_tree_does_is_for_debugging() {
        let exited = |reason| words(&EventKind::Exited { reason }).level;
        assert_eq!(exited(ExitReason::Shutdown), Level::DEBUG);
        assert_eq!(exited(ExitReason::Ignored), Level::DEBUG);
        assert_eq!(exited(ExitReason::Stuck), Level::WARN);
        assert_eq!(exited(ExitReason::Panic { text: "".into(), location: "".into() }), Level::ERROR);
        assert_eq!(words(&EventKind::Started { took: PERIOD }).level, Level::DEBUG);
        assert_eq!(words(&EventKind::BackingOff { attempt: 1, delay: PERIOD }).level, Level::INFO);
    }
}
