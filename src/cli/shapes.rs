//! What the daemon answers, as far as people are shown it. Words that a younger daemon may add are kept as words.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `GET /api/v1/health`
#[derive(Debug, Deserialize)]
pub(super) struct Hive {
    pub(super) hive: String,
    pub(super) level: String,
    pub(super) since: String,
    #[serde(default)]
    pub(super) reasons: Vec<Reason>,
    pub(super) control_plane: ControlPlane,
    pub(super) data_plane: DataPlane,
    #[serde(default)]
    pub(super) swarms: Vec<Swarm>,
    #[serde(default)]
    pub(super) agents: Vec<Agent>,
    #[serde(default)]
    pub(super) sources: Vec<Source>,
}

/// A polled MCP server.
#[derive(Debug, Deserialize)]
pub(super) struct Source {
    pub(super) name: String,
    pub(super) breaker: String,
    #[serde(default)]
    pub(super) reasons: Vec<Reason>,
    #[serde(default)]
    pub(super) last_success: Option<String>,
    #[serde(default)]
    pub(super) agents: Vec<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ControlPlane {
    pub(super) reachable: bool,
    #[serde(default)]
    pub(super) last_error: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct DataPlane {
    pub(super) listening: bool,
    pub(super) sessions: u64,
    pub(super) dropped: u64,
    pub(super) refused: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Swarm {
    pub(super) name: String,
    pub(super) level: String,
    #[serde(default)]
    pub(super) reasons: Vec<Reason>,
    #[serde(default)]
    pub(super) runtime: Option<String>,
    #[serde(default)]
    pub(super) image: Option<String>,
    #[serde(default)]
    pub(super) container: Option<String>,
    #[serde(default)]
    pub(super) relaxations: Vec<String>,
    #[serde(default)]
    pub(super) adjustments: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Reason {
    pub(super) code: String,
    #[serde(default)]
    pub(super) detail: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Agent {
    pub(super) swarm: String,
    pub(super) name: String,
    pub(super) state: String,
    pub(super) since: String,
    #[serde(default)]
    pub(super) reasons: Vec<Reason>,
    pub(super) desired: String,
    pub(super) incarnation: u64,
    pub(super) pid: Option<u32>,
    pub(super) restarts: u64,
    pub(super) restarts_in_window: u64,
    #[serde(default)]
    pub(super) retry_at: Option<String>,
    #[serde(default)]
    pub(super) last_exit: Option<LastExit>,
    pub(super) cpu: Measured<f64>,
    pub(super) memory: Measured<u64>,
    pub(super) last_heartbeat: Measured<String>,
    #[serde(default)]
    pub(super) progress: Option<Measured<Value>>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct LastExit {
    #[serde(default)]
    pub(super) code: Option<i64>,
    #[serde(default)]
    pub(super) signal: Option<i64>,
    pub(super) at: String,
    pub(super) cause: String,
    #[serde(default)]
    pub(super) detail: Option<String>,
    #[serde(default)]
    pub(super) last_lines: Vec<String>,
}

/// A value, or the reason why there is none.
#[derive(Debug, Deserialize)]
pub(super) struct Measured<T> {
    pub(super) value: Option<T>,
    #[serde(default)]
    pub(super) source: Option<String>,
    #[serde(default)]
    pub(super) reason: Option<String>,
}

/// One accepted command.
#[derive(Debug, Deserialize)]
pub(super) struct Operation {
    pub(super) id: String,
    pub(super) kind: String,
    pub(super) target: String,
    pub(super) state: String,
    #[serde(default)]
    pub(super) requested_by: String,
    #[serde(default)]
    pub(super) requested_at: String,
    #[serde(default)]
    pub(super) ended_at: Option<String>,
    #[serde(default)]
    pub(super) steps: Vec<Step>,
    #[serde(default)]
    pub(super) error: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Step {
    pub(super) agent: String,
    pub(super) ok: bool,
    #[serde(default)]
    pub(super) detail: String,
}

/// `GET .../logs`
#[derive(Debug, Deserialize)]
pub(super) struct LogPage {
    pub(super) lines: Vec<LogLine>,
    #[serde(default)]
    pub(super) first_kept: u64,
    pub(super) last: u64,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
pub(super) struct LogLine {
    pub(super) number: u64,
    pub(super) incarnation: u64,
    #[serde(default)]
    pub(super) seq: Option<u64>,
    pub(super) at: String,
    pub(super) stream: String,
    #[serde(default)]
    pub(super) level: Option<String>,
    #[serde(default)]
    pub(super) partial: bool,
    pub(super) text: String,
}

/// Numbers that are no longer kept.
#[derive(Debug, Deserialize)]
pub(super) struct Gap {
    pub(super) after: u64,
    pub(super) first_kept: u64,
}

/// `GET /api/v1/events`
#[derive(Debug, Deserialize)]
pub(super) struct EventPage {
    pub(super) events: Vec<Event>,
    pub(super) head: u64,
}

/// One event; what its kind adds is looked up by name.
#[derive(Debug, Deserialize)]
pub(super) struct Event {
    pub(super) seq: u64,
    pub(super) at: String,
    pub(super) kind: String,
    #[serde(default)]
    pub(super) subject: String,
    #[serde(flatten)]
    pub(super) rest: serde_json::Map<String, Value>,
}

/// `GET /api/v1/tree`
#[derive(Debug, Deserialize)]
pub(super) struct Node {
    pub(super) id: String,
    pub(super) kind: String,
    #[serde(default)]
    pub(super) strategy: Option<String>,
    #[serde(default)]
    pub(super) limit: Option<Limit>,
    pub(super) restart: String,
    pub(super) state: String,
    pub(super) incarnation: u64,
    pub(super) restarts: u64,
    #[serde(default)]
    pub(super) retry_at: Option<String>,
    #[serde(default)]
    pub(super) last_exit: Option<NodeExit>,
    #[serde(default)]
    pub(super) children: Vec<Node>,
}

/// How many restarts a supervisor allows, and how many it has seen.
#[derive(Debug, Deserialize)]
pub(super) struct Limit {
    pub(super) intensity: u32,
    pub(super) period_ms: u64,
    pub(super) restarts_in_window: u32,
}

/// How an incarnation of an actor ended.
#[derive(Debug, Deserialize)]
pub(super) struct NodeExit {
    pub(super) at: String,
    pub(super) detail: String,
}
