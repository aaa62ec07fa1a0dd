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
    /// `hive/log`.
    Log {
        /// `trace` to `error`.
        level: Arc<str>,
        /// The line.
        line: Arc<str>,
        /// Which stream the agent names.
        stream: Option<Arc<str>>,
        /// When, by the agent's clock.
        at: Option<SystemTime>,
    },
    /// `hive/metric`.
    Metric {
        /// Its name.
        name: Arc<str>,
        /// Its value.
        value: f64,
        /// UCUM unit.
        unit: Option<Arc<str>>,
        /// JSON text of an object.
        attributes: Option<Arc<str>>,
    },
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
