//! Commands and the operations that they become.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    ids::{AgentId, AgentName, OperationId, SwarmName},
    spec::SwarmSpec,
    token::TokenName,
};

/// Longest grace that a command may give, and a document: an hour. Who needs longer stops the agent by other means than a pending operation.
pub const GRACE_MAX: Duration = Duration::from_secs(60 * 60);

/// What a command is aimed at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// All agents of one swarm.
    Swarm(SwarmName),
    /// One agent; its siblings' process ids stay.
    Agent(AgentId),
}

impl Target {
    /// The swarm that it is, or that it belongs to.
    pub fn swarm(&self) -> &SwarmName {
        match self {
            Self::Swarm(name) => name,
            Self::Agent(id) => &id.swarm,
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Swarm(name) => name.fmt(f),
            Self::Agent(id) => id.fmt(f),
        }
    }
}

/// How the agents of a swarm are restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RestartMode {
    /// All are stopped in reverse order, then started in order.
    #[default]
    All,
    /// One at a time in start order, the next only when the one before runs; the first that does not come up ends it.
    Rolling,
}

/// What an operator may ask for.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Make the swarm part of the hive and start it.
    Launch {
        /// Its document.
        spec: Arc<SwarmSpec>,
    },
    /// Give the swarm another document: what it changes is replaced, the rest is left alone.
    Update {
        /// The whole new document.
        spec: Arc<SwarmSpec>,
    },
    /// Stop the swarm and forget it.
    Delete,
    /// Give an agent of the swarm another number of replicas.
    Scale {
        /// The stem of the numbered names.
        agent: AgentName,
        /// How many from now on.
        replicas: u32,
    },
    /// Replace the agents; clears window and back-off.
    Restart {
        /// In which order; a single agent has but one.
        mode: RestartMode,
        /// Overrides the document's `stop_grace`.
        grace: Option<Duration>,
        /// Free text for the history.
        reason: Option<String>,
    },
    /// End the agents in reverse order; stays so until `Start`.
    Stop {
        /// Overrides the document's `stop_grace`.
        grace: Option<Duration>,
        /// Free text for the history.
        reason: Option<String>,
    },
    /// Start what does not run, in order.
    Start,
    /// Freeze.
    Pause,
    /// Unfreeze.
    Resume,
    /// What an earlier daemon accepted and this version can't read.
    Unreadable {
        /// As it lies in the journal, JSON text.
        raw: Arc<str>,
        /// What is wrong with it.
        why: Arc<str>,
    },
}

impl Command {
    /// The word of the API.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Launch { .. } => "launch",
            Self::Update { .. } => "update",
            Self::Delete => "delete",
            Self::Scale { .. } => "scale",
            Self::Restart { .. } => "restart",
            Self::Stop { .. } => "stop",
            Self::Start => "start",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Unreadable { .. } => "unreadable",
        }
    }

    /// The document of a swarm as this command leaves it; `None`: there is no such swarm behind it.
    pub fn leaves(&self, before: Option<Arc<SwarmSpec>>) -> Option<Arc<SwarmSpec>> {
        match self {
            Self::Launch { spec } | Self::Update { spec } => Some(Arc::clone(spec)),
            Self::Delete => None,
            Self::Scale { agent, replicas } => before.map(|spec| Arc::new(spec.scaled(agent, *replicas))),
            Self::Restart { .. }
            | Self::Stop { .. }
            | Self::Start
            | Self::Pause
            | Self::Resume
            | Self::Unreadable { .. } => before,
        }
    }

    /// Whether it changes the document of its swarm.
    pub fn is_of_the_document(&self) -> bool {
        matches!(self, Self::Launch { .. } | Self::Update { .. } | Self::Delete | Self::Scale { .. })
    }
}

/// Who asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requester {
    /// A client of the HTTP API, by its peer address.
    Http {
        /// Address and port.
        peer: String,
    },
    /// A client of the HTTP API that showed a token.
    Token {
        /// The token's name.
        name: TokenName,
        /// Address and port.
        peer: String,
    },
    /// The configuration file, read again.
    Reload,
    /// The daemon itself.
    Daemon,
}

impl std::fmt::Display for Requester {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Http { peer } => write!(f, "http:{peer}"),
            Self::Token { name, peer } => write!(f, "token:{name}@{peer}"),
            Self::Reload => f.write_str("reload"),
            Self::Daemon => f.write_str("daemon"),
        }
    }
}

/// Where an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OperationState {
    /// Journaled, not begun.
    Accepted,
    /// Under way.
    Running,
    /// Done, and seen to be done.
    Succeeded,
    /// Ended otherwise; `error` says how.
    Failed,
    /// Withdrawn before its end.
    Cancelled,
}

impl OperationState {
    /// All of them, in the order in which they follow each other.
    pub const ALL: [Self; 5] = [Self::Accepted, Self::Running, Self::Succeeded, Self::Failed, Self::Cancelled];

    /// Whether nothing more will happen.
    pub fn ended(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// One thing that was done for an operation, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// When it ended.
    pub at: SystemTime,
    /// Which agent it concerned.
    pub agent: AgentId,
    /// What was seen: `running as pid 4711, incarnation 3`.
    pub result: Result<String, String>,
}

/// One accepted command.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    /// Its id.
    pub id: OperationId,
    /// What was asked.
    pub command: Command,
    /// Of whom.
    pub target: Target,
    /// Where it stands.
    pub state: OperationState,
    /// By whom.
    pub requested_by: Requester,
    /// When.
    pub requested_at: SystemTime,
    /// When it ended.
    pub ended_at: Option<SystemTime>,
    /// What was done.
    pub steps: Vec<Step>,
    /// Why it failed.
    pub error: Option<String>,
}
