//! What the edges may ask of the control plane.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::sync::watch;

use super::changes::Change;
use crate::{
    model::{AgentId, Command, Desired, Finding, Operation, OperationId, Requester, Seq, SwarmName, SwarmSpec, Target},
    store::{HistoryPage, HistoryQuery, LogPage, LogQuery, OperationQuery, StoredEvent},
};

/// A boxed future, so that the trait stays object-safe.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A command handed in.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// What.
    pub command: Command,
    /// Of whom.
    pub target: Target,
    /// By whom.
    pub requested_by: Requester,
    /// `Idempotency-Key`: the same key with the same command and target gets the first operation again.
    pub idempotency_key: Option<String>,
    /// `If-Match`: the command is accepted only while the document of the swarm has one of these tags.
    pub if_match: Option<String>,
}

/// What a new document would do.
#[derive(Debug, Clone, PartialEq)]
pub struct UpdatePlan {
    /// To whom.
    pub swarm: SwarmName,
    /// Each agent, and what becomes of it.
    pub agents: Vec<(AgentId, Change)>,
}

/// Why the desk said no. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// No such swarm, agent or operation.
    #[error("{what} not found")]
    NotFound {
        /// `swarm review`.
        what: String,
    },
    /// The command does not fit the present state.
    #[error("{why}")]
    Conflict {
        /// Why.
        why: String,
    },
    /// A token was asked for, and nobody is asked for one.
    #[error(
        "this daemon asks nobody for a token, so none would keep anybody out: put 16 or more random characters into a file, name it in [http] token_file, and restart the daemon"
    )]
    OpenToAll,
    /// The runtime can't do it.
    #[error("{why}")]
    Unsupported {
        /// Why.
        why: String,
    },
    /// The document is not the one that the client has seen.
    #[error("{why}")]
    Outdated {
        /// Which it is now.
        why: String,
    },
    /// An idempotency key was used for something else.
    #[error("idempotency key was used for another command")]
    KeyReused,
    /// The journal can't keep it, so it is not accepted.
    #[error("journal unavailable: {why}")]
    Journal {
        /// What the store said.
        why: String,
    },
    /// The daemon is on its way out, or too many operations are under way.
    #[error("{why}")]
    Unavailable {
        /// Why.
        why: String,
    },
}

/// One swarm as it is desired.
#[derive(Debug, Clone, PartialEq)]
pub struct SwarmEntry {
    /// Its document.
    pub spec: Arc<SwarmSpec>,
    /// What the operator wants of it.
    pub desired: Desired,
    /// Since when.
    pub since: SystemTime,
}

/// One line of `/readyz?verbose`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// `journal`, `http`, `data_plane`, `services`, `reconcile`.
    pub name: &'static str,
    /// Whether it holds now.
    pub ok: bool,
    /// For people.
    pub detail: String,
}

/// What the edges may ask.
pub trait Control: Send + Sync {
    /// Accepts a command: it is in the journal when this returns.
    fn submit(&self, request: Request) -> BoxFuture<'_, Result<Operation, ControlError>>;
    /// Waits for the end of an operation, at most so long; returns it as it is then.
    fn wait(&self, id: OperationId, timeout: Duration) -> BoxFuture<'_, Result<Operation, ControlError>>;
    /// What a new document of a swarm would do. Nothing is changed.
    ///
    /// # Errors
    /// What would refuse the update.
    fn plan_update(&self, spec: Arc<SwarmSpec>, if_match: Option<String>) -> Result<UpdatePlan, ControlError>;
    /// Withdraws an operation: one that waits at once; one under way where it can be left, whatever it waits for. A launch leaves a stopped swarm, a
    /// rolling restart and an update the agents as they are, and a delete a swarm that is being stopped.
    fn cancel(&self, id: OperationId) -> BoxFuture<'_, Result<Operation, ControlError>>;
    /// One operation.
    fn operation(&self, id: OperationId) -> BoxFuture<'_, Result<Operation, ControlError>>;
    /// Operations, youngest first.
    fn operations(&self, query: OperationQuery) -> BoxFuture<'_, Result<Vec<Operation>, ControlError>>;
    /// All swarms by name.
    fn swarms(&self) -> Vec<SwarmEntry>;
    /// One swarm.
    fn swarm(&self, name: &SwarmName) -> Option<SwarmEntry>;
    /// The supervision tree as it is now.
    fn tree(&self) -> BoxFuture<'_, Result<hivekeeper_actors::TreeNode, ControlError>>;
    /// Journaled events behind a number, oldest first, at most `limit`.
    fn events(&self, after: Seq, limit: usize) -> BoxFuture<'_, Result<Vec<StoredEvent>, ControlError>>;
    /// Lines of an agent's log.
    fn logs(&self, agent: AgentId, query: LogQuery) -> BoxFuture<'_, Result<LogPage, ControlError>>;
    /// Changes whenever the agent's log grows; carries the youngest number.
    fn log_growth(&self, agent: &AgentId) -> Option<watch::Receiver<u64>>;
    /// What was measured of a swarm or an agent over time.
    fn history(&self, query: HistoryQuery) -> BoxFuture<'_, Result<HistoryPage, ControlError>>;
    /// Looks for what is in the engine and should not be; removes what has been there for long enough, unless it is a dry run.
    fn reconcile(&self, dry_run: bool) -> BoxFuture<'_, Result<Vec<Finding>, ControlError>>;
    /// What readiness rests on.
    fn readiness(&self) -> Vec<Check>;
}
