//! Why a tool has no answer, the same on every door.

use crate::{coordination::WorkError, model::AgentId, store::StoreError};

/// Why a tool has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ToolError {
    /// There is no tool of this name.
    #[error("there is no tool {0:?}; the list of tools names those that are")]
    UnknownTool(String),
    /// The arguments can't be read.
    #[error("{key}: found {found}, allowed {allowed}")]
    Arguments {
        /// Which.
        key: String,
        /// What was found.
        found: String,
        /// What is allowed.
        allowed: String,
    },
    /// There is no such swarm.
    #[error("there is no swarm {0:?}")]
    UnknownSwarm(String),
    /// The swarm has no such agent.
    #[error("there is no agent {0} to be written to")]
    UnknownRecipient(AgentId),
    /// The incarnation in whose name it is asked does not live.
    #[error("incarnation {incarnation} of {agent} does not live")]
    NotAlive {
        /// Whose.
        agent: AgentId,
        /// Which.
        incarnation: u64,
    },
    /// Who asks may look and not change anything.
    #[error("the tool {0} changes something, and this token has the scope read")]
    ReadOnly(&'static str),
    /// The rules refuse it, or it could not be done.
    #[error(transparent)]
    Work(#[from] WorkError),
}

impl ToolError {
    /// The stable code, on every door.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownTool(_) => "unknown_tool",
            Self::Arguments { .. } => "invalid_work",
            Self::UnknownSwarm(_) => "unknown_swarm",
            Self::UnknownRecipient(_) => "unknown_recipient",
            Self::NotAlive { .. } => "not_alive",
            Self::ReadOnly(_) => "read_only",
            Self::Work(WorkError::Refused(refused)) => refused.code(),
            Self::Work(WorkError::Unavailable(StoreError::Busy)) => "maybe_done",
            Self::Work(WorkError::Unavailable(_)) => "journal_unavailable",
            Self::Work(WorkError::Closed) => "shutting_down",
        }
    }
}

impl From<crate::coordination::Refused> for ToolError {
    fn from(refused: crate::coordination::Refused) -> Self {
        Self::Work(WorkError::Refused(refused))
    }
}
