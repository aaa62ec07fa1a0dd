//! MCP servers that are polled: what a document asks for, what a poll has told, and how a source is shown. What such a server says of its agents is
//! its own claim; none of it is an [`AgentHealth`](super::AgentHealth), and no count or state of ours takes it in.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use super::{
    health::{Measured, Reason},
    ids::SourceName,
};

/// One `[[source]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceSpec {
    /// Unique in the hive.
    pub name: SourceName,
    /// `HOST:PORT`, looked up at each connection.
    pub address: Arc<str>,
    /// What is called at each poll, in this order. Never empty.
    pub tools: Vec<ToolSpec>,
    /// From the begin of one poll to the next.
    pub interval: Duration,
    /// How long a connection, a write and an answer may take, each.
    pub timeout: Duration,
    /// Connections at most; calls of one poll are spread over them.
    pub connections: usize,
}

/// One tool and how it is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolSpec {
    /// As the server knows it.
    pub name: Arc<str>,
    /// A JSON object.
    pub arguments: Arc<str>,
}

/// Whether a source is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// At each interval.
    Closed,
    /// Not before a back-off has passed: the last polls failed in a row.
    Open,
    /// Once, on trial.
    HalfOpen,
}

/// Where a source stands after a poll, or before the first. Absolute, so that a later report stands for all before it.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceReport {
    /// Its document.
    pub spec: Arc<SourceSpec>,
    /// The breaker now.
    pub breaker: BreakerState,
    /// Since when.
    pub since: SystemTime,
    /// When the next trial is due, while the breaker is open.
    pub retry_at: Option<SystemTime>,
    /// The protocol version that the server has agreed to; `None` before it has.
    pub protocol: Option<Arc<str>>,
    /// When a tool last answered with a result, by both clocks.
    pub last_success: Option<(SystemTime, Instant)>,
    /// What went wrong last, and when. It stays to be read after things went well again.
    pub last_error: Option<(SystemTime, Arc<str>)>,
    /// Polls begun.
    pub polls: u64,
    /// Polls that brought no result, or that a failure of the connection ended.
    pub failures: u64,
    /// Polls in a row that failed, up to now.
    pub failures_in_a_row: u32,
    /// Connections that the peer has ended.
    pub cut: u64,
    /// What each tool said last, in the order of the document.
    pub tools: Vec<ToolReport>,
    /// Agents that the last good answers list.
    pub agents: Arc<[SourceAgent]>,
    /// When that was, by both clocks; `None` where none ever listed any.
    pub agents_listed: Option<(SystemTime, Instant)>,
    /// Agents that were listed and are not kept: beyond the limit, or without a name.
    pub agents_left_out: u64,
}

/// What one tool said last.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolReport {
    /// Its name.
    pub name: Arc<str>,
    /// What its last call failed with; `None` when it brought a result.
    pub error: Option<Arc<str>>,
    /// From the call to its answer, milliseconds. Measured by the daemon.
    pub latency_ms: Measured<u64>,
    /// Its last result as JSON text, as the server said it; `unsupported` where it is too long to be shown.
    pub answer: Measured<Arc<str>>,
    /// When that was.
    pub answered: Option<Instant>,
}

/// What a server says of one of its agents. Its own words: a `state` is none of ours.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceAgent {
    /// The name, or the id where it gives no name.
    pub name: Arc<str>,
    /// The server's id of it.
    pub id: Option<Arc<str>>,
    /// Its state in the server's words.
    pub state: Measured<Arc<str>>,
    /// What sort of agent.
    pub kind: Measured<Arc<str>>,
    /// What it works on.
    pub task: Measured<Arc<str>>,
    /// Cores. Only a number that names its unit (`cpu_cores`) is taken; any other is `unsupported`.
    pub cpu: Measured<f64>,
    /// Bytes. Only a number that names its unit (`memory_bytes`) is taken; any other is `unsupported`.
    pub memory: Measured<u64>,
    /// When the server says that it last heard of it.
    pub last_heartbeat: Measured<SystemTime>,
    /// Progress as the server says it, JSON text.
    pub progress: Measured<Arc<str>>,
}

impl SourceAgent {
    /// What tells it from the others of its server.
    pub fn key(&self) -> &Arc<str> {
        self.id.as_ref().unwrap_or(&self.name)
    }
}

/// A source in the health document.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceHealth {
    /// What its dialer told last. Values that have gone stale are absent here.
    pub report: SourceReport,
    /// Why it is not as it should be; empty when it is.
    pub reasons: Vec<Reason>,
    /// How long ago the last success was.
    pub age: Option<Duration>,
}

/// Hears how sources are. The composition root implements it: health folds.
pub trait SourceWitness: Send + Sync {
    /// Takes where a source stands now. Must not block.
    fn stands(&self, report: SourceReport);
}
