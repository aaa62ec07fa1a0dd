//! What many messages of one agent amount to, where only the sum or the latest counts.

use std::{cmp::Ordering, sync::Arc, time::SystemTime};

use super::usage::Reports;
use crate::model::{AgentId, Lost, Observation, Telemetry, TelemetryKind};

/// What was seen of an agent between two turns, as far as only the sum or the latest counts.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Burst {
    pub(super) incarnation: u64,
    /// Whether a session is open after all; the last word counts.
    pub(super) session: Option<bool>,
    /// When the last heartbeat was read.
    pub(super) heartbeat: Option<SystemTime>,
    /// When the one before it was read, if that is part of this, too.
    pub(super) heartbeat_before: Option<SystemTime>,
    /// The last progress, and when it was read.
    pub(super) progress: Option<(Arc<str>, SystemTime)>,
    /// The last reading: when, cores, bytes.
    pub(super) sample: Option<(SystemTime, Option<f64>, u64)>,
    /// Whether it wrote a line of output or a log record.
    pub(super) wrote: bool,
    /// What was dropped on its way.
    pub(super) lost: Lost,
    /// Telemetry messages that this stands for.
    pub(super) messages: u64,
    /// Those of them that `lost` counts, too: they were read and let go.
    pub(super) dropped: u64,
    /// When the oldest of them was read.
    pub(super) oldest: Option<SystemTime>,
    /// What it says that it has used. Rare, so it stands aside.
    pub(super) usage: Option<Box<Used>>,
    /// What was seen of the incarnations before it, if it waits, too; the oldest first. No more than began between two turns.
    pub(super) before: Vec<Self>,
}

/// What an agent says that it has used.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Used {
    pub(super) reports: Reports,
    /// How many messages said so.
    pub(super) messages: u64,
    /// When the last one was read.
    pub(super) at: SystemTime,
    /// The model that was named last.
    pub(super) model: Option<Arc<str>>,
}

impl Burst {
    /// The burst that a runtime's report amounts to, if only the sum or the latest of its kind counts.
    pub(super) fn of_runtime(incarnation: u64, event: &Observation) -> Option<Self> {
        let mut burst = Self { incarnation, ..Self::default() };
        match event {
            Observation::Sample { at, cpu_cores, memory_bytes, .. } => {
                burst.sample = Some((*at, *cpu_cores, *memory_bytes));
            }
            Observation::Output { lines, .. } => burst.wrote = *lines > 0,
            Observation::Lost { lines, .. } => burst.lost.logs = *lines,
            Observation::Waiting { .. }
            | Observation::Alive { .. }
            | Observation::Paused(_)
            | Observation::Exited(_)
            | Observation::Unreachable => return None,
        }
        Some(burst)
    }

    /// The burst that messages amount to which were read and then let go.
    pub(super) fn of_dropped(incarnation: u64, lost: Lost) -> Self {
        let messages = lost.total();
        Self { incarnation, lost, messages, dropped: messages, ..Self::default() }
    }

    /// Messages in order, those of an agent that follow each other summed up; agents' own events are handed back one by one.
    pub(super) fn sum_up(batch: Vec<Telemetry>, mut each: impl FnMut(Result<(AgentId, Self), Telemetry>)) {
        let mut open: Option<(AgentId, Self)> = None;
        for telemetry in batch {
            if matches!(telemetry.kind, TelemetryKind::Event { .. }) {
                each(Err(telemetry));
                continue;
            }
            let same = |(agent, burst): &&mut (AgentId, Self)| {
                burst.incarnation == telemetry.incarnation && *agent == telemetry.agent
            };
            if let Some((_, burst)) = open.as_mut().filter(same) {
                burst.add(telemetry.at, telemetry.kind);
                continue;
            }
            if let Some(done) = open.take() {
                each(Ok(done));
            }
            let mut burst = Self { incarnation: telemetry.incarnation, ..Self::default() };
            burst.add(telemetry.at, telemetry.kind);
            open = Some((telemetry.agent, burst));
        }
        if let Some(done) = open {
            each(Ok(done));
        }
    }

    /// Adds one message of this incarnation that was read later.
    fn add(&mut self, at: SystemTime, kind: TelemetryKind) {
        self.messages += messages(&kind);
        self.oldest = earliest(self.oldest, Some(at));
        match kind {
            TelemetryKind::SessionOpened => self.session = Some(true),
            TelemetryKind::SessionClosed => self.session = Some(false),
            TelemetryKind::Heartbeat { progress, .. } => {
                self.heartbeat_before = self.heartbeat.replace(at);
                if let Some(progress) = progress {
                    self.progress = Some((progress, at));
                }
            }
            TelemetryKind::Logs(_) | TelemetryKind::Logged(_) => self.wrote = true,
            TelemetryKind::Usage(report) => {
                let used = Used { reports: Reports::one(report.totals), messages: 1, at, model: report.model };
                self.merge_usage(Some(Box::new(used)));
            }
            TelemetryKind::Counted(_) | TelemetryKind::Event { .. } => {}
        }
    }

    /// Adds what came later, of the same incarnation.
    pub(super) fn merge(&mut self, later: Self) {
        self.messages += later.messages;
        self.dropped += later.dropped;
        self.oldest = earliest(self.oldest, later.oldest);
        self.lost = self.lost.and(later.lost);
        self.wrote |= later.wrote;
        self.session = later.session.or(self.session);
        if later.heartbeat.is_some() {
            self.heartbeat_before = later.heartbeat_before.or(self.heartbeat);
            self.heartbeat = later.heartbeat;
        }
        // A progress that changed and changed back moved, too; but two heartbeats a turn apart by less than a turn are one to the eye.
        self.progress = later.progress.or_else(|| self.progress.take());
        if let Some((at, cores, bytes)) = later.sample {
            let earlier = self.sample.and_then(|(_, cores, _)| cores);
            self.sample = Some((at, cores.or(earlier), bytes));
        }
        self.merge_usage(later.usage);
    }

    /// Adds what came later, of whatever incarnation: each stands for itself, and the youngest in front.
    pub(super) fn line_up(&mut self, later: Self) {
        match later.incarnation.cmp(&self.incarnation) {
            Ordering::Equal => self.merge(later),
            Ordering::Greater => {
                let mut older = std::mem::replace(self, later);
                self.before = std::mem::take(&mut older.before);
                self.before.push(older);
            }
            Ordering::Less => match self.before.binary_search_by_key(&later.incarnation, |older| older.incarnation) {
                Ok(at) => self.before[at].merge(later),
                Err(at) => self.before.insert(at, later),
            },
        }
    }

    /// Those that stand in line, each by itself, the oldest first.
    pub(super) fn one_by_one(mut self) -> impl Iterator<Item = Self> {
        std::mem::take(&mut self.before).into_iter().chain([self])
    }

    fn merge_usage(&mut self, later: Option<Box<Used>>) {
        match (&mut self.usage, later) {
            (Some(used), Some(later)) => {
                used.reports.merge(later.reports);
                used.messages += later.messages;
                used.at = later.at;
                used.model = later.model.or_else(|| used.model.take());
            }
            (none @ None, later) => *none = later,
            (Some(_), None) => {}
        }
    }
}

fn earliest(a: Option<SystemTime>, b: Option<SystemTime>) -> Option<SystemTime> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, None) | (None, one) => one,
    }
}

/// Messages of the agent that this stands for. That a session has begun or ended is the data plane's own word.
fn messages(kind: &TelemetryKind) -> u64 {
    match kind {
        TelemetryKind::SessionOpened | TelemetryKind::SessionClosed => 0,
        TelemetryKind::Logs(records) => records.len() as u64,
        TelemetryKind::Logged(messages) | TelemetryKind::Counted(messages) => *messages,
        TelemetryKind::Heartbeat { .. } | TelemetryKind::Usage(_) | TelemetryKind::Event { .. } => 1,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::model::{LogLevel, LogRecord, LogRecords, Usage, UsageReport};

    fn kinds() -> impl Strategy<Value = TelemetryKind> {
        let progress = proptest::option::of((0u8..3).prop_map(|n| Arc::from(n.to_string())));
        let used = (0u64..50, proptest::option::of(Just(Arc::from("m")))).prop_map(|(tokens, model)| {
            let totals = Usage { input_tokens: Some(tokens), ..Usage::default() };
            TelemetryKind::Usage(Box::new(UsageReport { totals, model }))
        });
        prop_oneof![
            Just(TelemetryKind::SessionOpened),
            Just(TelemetryKind::SessionClosed),
            progress.prop_map(|progress| TelemetryKind::Heartbeat { progress, busy: None }),
            (1u64..5).prop_map(TelemetryKind::Logged),
            (1u64..5).prop_map(TelemetryKind::Counted),
            used,
        ]
    }

    fn burst<'a>(messages: impl IntoIterator<Item = &'a (u64, TelemetryKind)>) -> Burst {
        let mut burst = Burst { incarnation: 1, ..Burst::default() };
        for (ms, kind) in messages {
            burst.add(SystemTime::UNIX_EPOCH + Duration::from_millis(*ms), kind.clone());
        }
        burst
    }

    #[test]
    fn the_last_reading_counts_and_the_cores_of_the_one_before_where_it_has_none() {
        let sample = |seconds, cpu_cores, memory_bytes| {
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            Burst::of_runtime(1, &Observation::Sample { at, cpu_cores, memory_bytes, processes: 1 }).unwrap()
        };
        let mut burst = sample(1, Some(0.5), 10);
        burst.merge(sample(2, None, 20));
        assert_eq!(burst.sample, Some((SystemTime::UNIX_EPOCH + Duration::from_secs(2), Some(0.5), 20)));
        burst.merge(sample(3, Some(0.25), 30));
        assert_eq!(burst.sample.unwrap().1, Some(0.25));
    }

    #[test]
    fn who_writes_a_line_or_a_record_has_written() {
        let at = SystemTime::UNIX_EPOCH;
        let output = |lines| Burst::of_runtime(1, &Observation::Output { at, lines }).unwrap().wrote;
        assert_eq!([output(0), output(1)], [false, true]);
        let mut records = LogRecords::default();
        records.push(LogRecord { level: LogLevel::Info, at: None, partial: false, text: "a" });
        let read = burst(&[(0, TelemetryKind::Logs(records))]);
        assert_eq!((read.wrote, read.messages), (true, 1));
        assert!(!burst(&[(0, TelemetryKind::Counted(1))]).wrote);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// However messages fall into reads, and reads into turns, they amount to the same.
        #[test]
        fn what_messages_amount_to_does_not_depend_on_their_reads(
            messages in proptest::collection::vec((0u64..100, kinds()), 0..30),
            cuts in proptest::collection::vec(0usize..8, 0..10),
            lost in proptest::collection::vec((0u64..5, 0u64..5, 0u64..5), 0..4),
        ) {
            let mut whole = burst(&messages);
            let mut merged = Burst { incarnation: 1, ..Burst::default() };
            let (mut rest, mut cuts) = (&messages[..], cuts.into_iter());
            while !rest.is_empty() {
                let (read, later) = rest.split_at(cuts.next().unwrap_or(1).min(rest.len()));
                merged.merge(burst(read));
                rest = later;
            }
            for (logs, metrics, events) in lost {
                let lost = Lost { logs, metrics, events };
                merged.merge(Burst::of_dropped(1, lost));
                whole.lost = whole.lost.and(lost);
                whole.messages += lost.total();
                whole.dropped += lost.total();
            }
            prop_assert_eq!(merged, whole);
        }
    }
}
