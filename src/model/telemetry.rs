//! What comes up from agents, typed. Produced by the data plane, folded by health.

use std::{sync::Arc, time::SystemTime};

use super::ids::AgentId;

/// One authenticated message of one incarnation.
#[derive(Debug, Clone, PartialEq)]
pub struct Telemetry {
    /// Who.
    pub agent: AgentId,
    /// Which start of it.
    pub incarnation: u64,
    /// When the daemon read it.
    pub at: SystemTime,
    /// What.
    pub kind: TelemetryKind,
}

/// The notifications of the data plane.
#[derive(Debug, Clone, PartialEq)]
pub enum TelemetryKind {
    /// `hive/open` was accepted.
    SessionOpened,
    /// The last session of this incarnation ended.
    SessionClosed,
    /// `hive/heartbeat`.
    Heartbeat {
        /// The agent's own words on its progress, JSON text.
        progress: Option<Arc<str>>,
        /// Whether it works on something.
        busy: Option<bool>,
    },
    /// `hive/log`s that were read at once.
    Logs(LogRecords),
    /// The same once the log book has them: how many it were.
    Logged(u64),
    /// Messages of which nothing but their number counts: metric samples, which were checked and are kept by nobody, and heartbeats that a later
    /// one of the same read has overtaken.
    Counted(u64),
    /// `hive/usage`: absolute totals of this incarnation so far.
    Usage(Box<UsageReport>),
    /// `hive/event`.
    Event {
        /// Its kind.
        kind: Arc<str>,
        /// JSON text of the whole object.
        data: Arc<str>,
    },
}

/// The level of a log record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Every step.
    Trace,
    /// How.
    Debug,
    /// What happens.
    Info,
    /// What may go wrong.
    Warn,
    /// What went wrong.
    Error,
}

impl LogLevel {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Trace, Self::Debug, Self::Info, Self::Warn, Self::Error];

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }

    /// The level that this word is for.
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.word() == word)
    }
}

/// Log records in order, their texts in one piece: thousands of them cost two allocations.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LogRecords {
    text: String,
    marks: Vec<Mark>,
    /// So many marks of the oldest were dropped.
    gone: usize,
    /// Records that are left.
    left: usize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Mark {
    /// Where its text ends.
    end: usize,
    level: LogLevel,
    at: Option<SystemTime>,
    partial: bool,
}

/// One log record, or a piece of a long one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogRecord<'a> {
    /// Its level.
    pub level: LogLevel,
    /// When, by the agent's clock.
    pub at: Option<SystemTime>,
    /// Whether the record goes on in the next piece.
    pub partial: bool,
    /// Its text.
    pub text: &'a str,
}

impl LogRecords {
    /// Adds the youngest, or a piece of it.
    pub fn push(&mut self, LogRecord { level, at, partial, text }: LogRecord<'_>) {
        self.text.push_str(text);
        self.marks.push(Mark { end: self.text.len(), level, at, partial });
        self.left += usize::from(!partial);
    }

    /// The texts of all of them, one behind the other, those that were dropped included.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// How many there are, the pieces of one counted once.
    pub fn len(&self) -> usize {
        self.left
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// What they take in memory, about, those that were dropped included.
    pub fn weight(&self) -> usize {
        self.text.len() + self.marks.len() * size_of::<Mark>()
    }

    /// Drops the oldest with all their pieces, at most so many; returns how many it were.
    pub fn drop_oldest(&mut self, records: usize) -> usize {
        let dropped = records.min(self.left);
        self.left -= dropped;
        let mut more = dropped;
        while more > 0 {
            more -= usize::from(!self.marks[self.gone].partial);
            self.gone += 1;
        }
        dropped
    }

    /// Oldest first.
    pub fn iter(&self) -> impl Iterator<Item = LogRecord<'_>> {
        let mut from = self.gone.checked_sub(1).map_or(0, |last| self.marks[last].end);
        self.marks[self.gone..].iter().map(move |Mark { end, level, at, partial }| {
            let text = &self.text[from..*end];
            from = *end;
            LogRecord { level: *level, at: *at, partial: *partial, text }
        })
    }
}

/// What a model was given and what it gave back: counts of tokens by OpenTelemetry's GenAI names, and money. `None` where nobody said anything.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Usage {
    /// `gen_ai.usage.input_tokens`.
    pub input_tokens: Option<u64>,
    /// `gen_ai.usage.output_tokens`.
    pub output_tokens: Option<u64>,
    /// `gen_ai.usage.cache_read.input_tokens`.
    pub cache_read_input_tokens: Option<u64>,
    /// `gen_ai.usage.cache_creation.input_tokens`.
    pub cache_creation_input_tokens: Option<u64>,
    /// `gen_ai.usage.reasoning.output_tokens`.
    pub reasoning_output_tokens: Option<u64>,
    /// US dollars, by the agent's own reckoning. Finite and not negative.
    pub cost_usd: Option<f64>,
}

/// What one `hive/usage` says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct UsageReport {
    /// Totals of the incarnation so far.
    pub totals: Usage,
    /// The model that it works with.
    pub model: Option<Arc<str>>,
}

/// What an agent has used over its incarnations, as far as counting has come: each incarnation tells absolute totals of itself.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct UsageTally {
    /// Everything that is over for good.
    pub over: Usage,
    /// The last word of the last incarnation that reported anything; its next one takes the place of it.
    pub last: Usage,
    /// Which incarnation that is; 0 before the first report.
    pub incarnation: u64,
}

/// What is known of an agent's usage, to be gone on from.
#[derive(Debug, Clone, PartialEq)]
pub struct Spent {
    /// How much.
    pub tally: UsageTally,
    /// When the daemon read the last report.
    pub at: SystemTime,
    /// The model that was named last, and when.
    pub model: Option<(Arc<str>, SystemTime)>,
}

/// Counted loss, by class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lost {
    /// Log records and lines of output.
    pub logs: u64,
    /// Metric and usage samples.
    pub metrics: u64,
    /// The agent's own events.
    pub events: u64,
}

impl Lost {
    /// All classes together.
    pub fn total(self) -> u64 {
        self.logs.saturating_add(self.metrics).saturating_add(self.events)
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            logs: self.logs.saturating_add(other.logs),
            metrics: self.metrics.saturating_add(other.metrics),
            events: self.events.saturating_add(other.events),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_in_order_and_the_oldest_go_first_with_all_their_pieces() {
        let mut records = LogRecords::default();
        for (text, partial) in [("a", false), ("b", true), ("c", true), ("d", false), ("", false), ("e", false)] {
            records.push(LogRecord { level: LogLevel::Info, at: None, partial, text });
        }
        let texts = |records: &LogRecords| records.iter().map(|record| record.text).collect::<Vec<_>>().join(" ");
        assert_eq!((records.len(), texts(&records).as_str()), (4, "a b c d  e"));
        assert_eq!(records.drop_oldest(2), 2);
        assert_eq!((records.len(), texts(&records).as_str()), (2, " e"));
        assert_eq!(records.drop_oldest(9), 2);
        assert!(records.is_empty() && texts(&records).is_empty());
    }

    #[test]
    fn levels_have_words() {
        assert!(LogLevel::ALL.into_iter().all(|level| LogLevel::of(level.word()) == Some(level)));
        assert_eq!(LogLevel::of("loud"), None);
    }
}
