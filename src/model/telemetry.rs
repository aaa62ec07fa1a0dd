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
    /// `hive/usage`: absolute totals by OpenTelemetry's GenAI names.
    Usage {
        /// JSON text of the object.
        totals: Arc<str>,
    },
    /// `hive/event`.
    Event {
        /// Its kind.
        kind: Arc<str>,
        /// JSON text of the whole object.
        data: Arc<str>,
    },
}

/// Counted loss of one agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lost {
    /// Log records.
    pub logs: u64,
    /// Metric and usage samples.
    pub samples: u64,
}
