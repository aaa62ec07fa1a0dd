//! What the feed carries.

use std::{sync::Arc, time::SystemTime};

use super::{
    brief::{LockBrief, MessageBrief, TaskBrief},
    command::Operation,
    health::{AgentHealth, AgentState, Level, SwarmHealth},
    ids::{AgentId, Epoch, Seq, SourceName, SwarmName},
    source::BreakerState,
    token::{TokenId, TokenName},
    work::TaskState,
};

const TASK_CHANGED: &str = "task_changed";
const LOCK_CHANGED: &str = "lock_changed";
const MESSAGE_CHANGED: &str = "message_changed";

/// Kinds of events that a busy swarm brings by the hundreds: they must not push out of the journal what has become of agents.
pub const FREQUENT_KINDS: [&str; 3] = [TASK_CHANGED, LOCK_CHANGED, MESSAGE_CHANGED];

/// One numbered event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its number.
    pub seq: Seq,
    /// The daemon that numbered it.
    pub epoch: Epoch,
    /// When what it tells was observed.
    pub at: SystemTime,
    /// What it tells.
    pub kind: EventKind,
}

/// What an event tells.
#[derive(Debug, Clone, PartialEq)]
pub enum EventKind {
    /// An agent's state, incarnation or last exit changed.
    AgentChanged {
        /// The state before; `None` when the agent is new.
        from: Option<AgentState>,
        /// The document after.
        agent: Arc<AgentHealth>,
    },
    /// Measured values of agents changed and nothing else. Numbered and streamed, not journaled.
    Samples {
        /// The documents after, one per agent.
        agents: Vec<Arc<AgentHealth>>,
    },
    /// A swarm's level, reasons or desired state changed.
    SwarmChanged {
        /// The level before; `None` when the swarm is new.
        from: Option<Level>,
        /// The document after.
        swarm: Arc<SwarmHealth>,
    },
    /// A swarm or an agent is no longer part of the hive.
    AgentRemoved {
        /// Which.
        agent: AgentId,
    },
    /// The hive's level or one of its planes changed.
    HiveChanged {
        /// The level before.
        from: Level,
        /// The level after.
        to: Level,
        /// Why: `code: detail`.
        reasons: Vec<String>,
    },
    /// An operation was accepted, went on or ended.
    OperationChanged {
        /// The operation after.
        operation: Arc<Operation>,
    },
    /// An agent's own `hive/event`.
    AgentSaid {
        /// Who.
        agent: AgentId,
        /// In which incarnation.
        incarnation: u64,
        /// Its kind.
        kind: Arc<str>,
        /// JSON text.
        data: Arc<str>,
    },
    /// A swarm's container was made, or one of others was entered.
    ContainerStarted {
        /// Whose.
        swarm: SwarmName,
        /// The engine's id of it.
        container: String,
        /// For people: of which image.
        detail: String,
    },
    /// A swarm's container ended that was not to, with everything in it.
    ContainerEnded {
        /// Whose.
        swarm: SwarmName,
        /// The engine's id of it.
        container: String,
        /// For people: how.
        detail: String,
    },
    /// A source's breaker has opened, or closed again, or other agents are in its list. A trial that fails is no event.
    SourceChanged {
        /// Which.
        source: SourceName,
        /// The breaker as it was told last; `None` when the source is new.
        from: Option<BreakerState>,
        /// The breaker after.
        to: BreakerState,
        /// Why it is not as it should be: `code: detail`.
        reasons: Vec<String>,
        /// Agents that its server lists now.
        agents: usize,
        /// Some of those that were not in the list before.
        appeared: Vec<Arc<str>>,
        /// Some of those that are no longer in it.
        gone: Vec<Arc<str>>,
    },
    /// Somebody asked the API for what needs `control`, or was refused something for who he is.
    Audit(Arc<Audit>),
    /// A task is new, stands elsewhere than before, or has another holder.
    TaskChanged {
        /// Where it stood; `None`: it is new.
        from: Option<TaskState>,
        /// The task after.
        task: Arc<TaskBrief>,
    },
    /// Something has become of a lock, or of an attempt to get one.
    LockChanged {
        /// `waits`, `granted`, `changed`, `released`, `lease_expired`, `holder_ended`, `swarm_removed`, `not_given`.
        change: &'static str,
        /// Why it was not given: `code: detail`; `None` where nobody refused it.
        reason: Option<Arc<str>>,
        /// The lock after.
        lock: Arc<LockBrief>,
    },
    /// Something has become of one recipient's copy of a message.
    MessageChanged {
        /// `sent`, `delivered`, `returned`, `acknowledged`, `answered`, `unanswered`, `died`, `redriven`, `lost`.
        change: &'static str,
        /// The copy after.
        message: Arc<MessageBrief>,
    },
    /// More has happened to shared work than is told one by one.
    WorkUntold {
        /// Changes of tasks that no event tells.
        tasks: u64,
        /// Of locks.
        locks: u64,
        /// Of messages.
        messages: u64,
    },
    /// A daemon took the hive over.
    DaemonStarted {
        /// Its version.
        version: &'static str,
        /// Its process id.
        pid: u32,
    },
    /// The daemon ends.
    DaemonStopping {
        /// `stop`, `handover`.
        how: &'static str,
    },
}

/// Who asked the API for what, from where, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// With which token; `None` when none was shown, or none that is good.
    pub token: Option<(TokenId, TokenName)>,
    /// The peer's address; with its port where it was one request.
    pub peer: String,
    /// The method of the request, of several the last.
    pub method: String,
    /// Its path, cut when it is long.
    pub path: String,
    /// The status of the answer.
    pub status: u16,
    /// The code of a refusal.
    pub code: Option<&'static str>,
    /// Requests that this tells of: refusals that follow each other are summed up.
    pub count: u64,
}

impl EventKind {
    /// Whether the journal keeps it.
    pub fn durable(&self) -> bool {
        !matches!(self, Self::Samples { .. })
    }

    /// The stable name on the wire.
    pub fn word(&self) -> &'static str {
        match self {
            Self::AgentChanged { .. } => "agent_changed",
            Self::Samples { .. } => "samples",
            Self::SwarmChanged { .. } => "swarm_changed",
            Self::AgentRemoved { .. } => "agent_removed",
            Self::HiveChanged { .. } => "hive_changed",
            Self::OperationChanged { .. } => "operation_changed",
            Self::AgentSaid { .. } => "agent_said",
            Self::ContainerStarted { .. } => "container_started",
            Self::ContainerEnded { .. } => "container_ended",
            Self::SourceChanged { .. } => "source_changed",
            Self::Audit(_) => "audit",
            Self::TaskChanged { .. } => TASK_CHANGED,
            Self::LockChanged { .. } => LOCK_CHANGED,
            Self::MessageChanged { .. } => MESSAGE_CHANGED,
            Self::WorkUntold { .. } => "work_untold",
            Self::DaemonStarted { .. } => "daemon_started",
            Self::DaemonStopping { .. } => "daemon_stopping",
        }
    }
}
