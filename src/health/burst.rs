//! What many messages of one agent amount to, where only the sum or the latest counts.

use std::{sync::Arc, time::SystemTime};

use crate::model::{Lost, Observation, Telemetry, TelemetryKind};

/// What was seen of an agent between two turns, as far as only the sum or the latest counts.
#[derive(Debug, Clone, Default)]
pub(super) struct Burst {
    pub(super) incarnation: u64,
    /// Whether a session is open after all; the last word counts.
    pub(super) session: Option<bool>,
    /// When the last heartbeat was read.
    pub(super) heartbeat: Option<SystemTime>,
    /// The last progress, and when it was read.
    pub(super) progress: Option<(Arc<str>, SystemTime)>,
    /// The last reading: when, cores, bytes.
    pub(super) sample: Option<(SystemTime, Option<f64>, u64)>,
    /// Whether it wrote a line of output or a log record.
    pub(super) wrote: bool,
    /// Lines and events that were dropped.
    pub(super) dropped: u64,
    /// Telemetry messages that this stands for.
    pub(super) messages: u64,
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
            Observation::Lost { lines, .. } => burst.dropped = *lines,
            Observation::Waiting { .. }
            | Observation::Alive { .. }
            | Observation::Paused(_)
            | Observation::Exited(_)
            | Observation::Unreachable => return None,
        }
        Some(burst)
    }

    /// The burst that messages amount to which the data plane let go.
    pub(super) fn of_dropped(incarnation: u64, lost: Lost) -> Self {
        Self { incarnation, dropped: lost.total(), messages: lost.total(), ..Self::default() }
    }

    /// The burst that a message amounts to; an agent's own event amounts to none.
    pub(super) fn of_telemetry(telemetry: &Telemetry) -> Option<Self> {
        let mut burst = Self { incarnation: telemetry.incarnation, messages: 1, ..Self::default() };
        match &telemetry.kind {
            TelemetryKind::SessionOpened => burst.session = Some(true),
            TelemetryKind::SessionClosed => burst.session = Some(false),
            TelemetryKind::Heartbeat { progress, .. } => {
                burst.heartbeat = Some(telemetry.at);
                burst.progress = progress.as_ref().map(|progress| (Arc::clone(progress), telemetry.at));
            }
            TelemetryKind::Logs(records) => (burst.wrote, burst.messages) = (true, records.len() as u64),
            TelemetryKind::Logged(records) => (burst.wrote, burst.messages) = (true, *records),
            TelemetryKind::Counted(messages) => burst.messages = *messages,
            TelemetryKind::Usage(_) => {}
            TelemetryKind::Event { .. } => return None,
        }
        Some(burst)
    }

    /// Adds what came later. Of another incarnation only the younger is kept; what the older held is returned as refused messages.
    pub(super) fn merge(&mut self, later: Self) -> u64 {
        if later.incarnation < self.incarnation {
            self.dropped += later.dropped;
            return later.messages;
        }
        if later.incarnation > self.incarnation {
            let older = std::mem::replace(self, later);
            self.dropped += older.dropped;
            return older.messages;
        }
        self.messages += later.messages;
        self.dropped += later.dropped;
        self.wrote |= later.wrote;
        self.session = later.session.or(self.session);
        self.heartbeat = later.heartbeat.or(self.heartbeat);
        // A progress that changed and changed back moved, too; but two heartbeats a turn apart by less than a turn are one to the eye.
        self.progress = later.progress.or_else(|| self.progress.take());
        if let Some((at, cores, bytes)) = later.sample {
            let earlier = self.sample.and_then(|(_, cores, _)| cores);
            self.sample = Some((at, cores.or(earlier), bytes));
        }
        0
    }
}
