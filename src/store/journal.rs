//! The journal's contract: what the daemon promises to remember.
//!
//! When a call that writes has returned `Ok`, `kill -9` of the daemon can't undo it. What a power cut may undo is said at each implementation.
//! Every write is refused with [`StoreError::Fenced`] once a younger daemon has taken the data directory over.
//! Times are kept to the millisecond. Calls that write may be made again after [`StoreError::Busy`]: the second does no harm.

use std::{
    future::Future,
    pin::Pin,
    time::{Duration, SystemTime},
};

use super::{
    error::StoreError,
    records::{
        Incarnation, IncarnationRow, JournalStatus, Ledger, OperationKey, OperationQuery, Pruned, PutOutcome,
        Retention, Standing, StoredEvent, SwarmRow,
    },
};
use crate::model::{
    AgentId, ApiToken, Desired, ExitRecord, LaunchId, Operation, OperationId, Seq, Spent, SwarmName, TokenId,
};

/// A boxed future, so that the trait stays object-safe.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The answer of every call.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// What outlives the daemon.
pub trait Journal: Send + Sync {
    /// All swarms by name.
    fn swarms(&self) -> Answer<'_, Vec<SwarmRow>>;
    /// Stores a swarm, or puts it in the place of the one with its name.
    fn put_swarm(&self, row: SwarmRow) -> Answer<'_, ()>;
    /// What the operator wants of a swarm; `follow` are the agents of which nothing else is wanted any more. Both or neither is kept. `Conflict`
    /// when there is no swarm of this name.
    fn set_swarm_desired(
        &self,
        name: &SwarmName,
        desired: Desired,
        follow: &[AgentId],
        at: SystemTime,
    ) -> Answer<'_, ()>;
    /// What the operator wants of one agent; `None`: it follows its swarm.
    fn set_agent_desired(&self, agent: &AgentId, desired: Option<Desired>, at: SystemTime) -> Answer<'_, ()>;
    /// All agents of which an operator wants something else than of their swarm, by id.
    fn agent_desires(&self) -> Answer<'_, Vec<(AgentId, Desired)>>;
    /// Forgets a swarm, the desires for its agents and where supervision stood with them. Their incarnations stay as history.
    fn remove_swarm(&self, name: &SwarmName) -> Answer<'_, ()>;

    /// Journals a start before it happens; supervision stands at `Active` with it. `Conflict` when this incarnation was begun under another launch id, or is not younger than the last.
    fn begin_incarnation(&self, incarnation: Incarnation) -> Answer<'_, ()>;
    /// The first sign of life. `Conflict` when the launch is unknown.
    fn mark_alive(&self, launch: LaunchId, pid: u32, at: SystemTime) -> Answer<'_, ()>;
    /// How it ended. The first record stands. `Conflict` when the launch is unknown.
    fn end_incarnation(&self, launch: LaunchId, exit: &ExitRecord) -> Answer<'_, ()>;
    /// Begun and not ended, oldest first.
    fn open_incarnations(&self) -> Answer<'_, Vec<IncarnationRow>>;
    /// The incarnations of an agent, youngest first, at most `limit`.
    fn history(&self, agent: &AgentId, limit: usize) -> Answer<'_, Vec<IncarnationRow>>;

    /// Where supervision stands with an agent.
    fn set_standing(&self, agent: &AgentId, standing: Standing, at: SystemTime) -> Answer<'_, ()>;
    /// An operator's restart, or a `retry_after`: the incarnations begun so far no longer fill the window, and the back-off starts over.
    fn reset_window(&self, agent: &AgentId, at: SystemTime) -> Answer<'_, ()>;
    /// What a new daemon must know of an agent. `recent` holds what was begun within `period` before `now`.
    fn ledger(&self, agent: &AgentId, now: SystemTime, period: Duration) -> Answer<'_, Ledger>;
    /// The same for many agents, each with its own window, in the order asked.
    fn ledgers(&self, agents: Vec<(AgentId, Duration)>, now: SystemTime) -> Answer<'_, Vec<(AgentId, Ledger)>>;

    /// What agents have used, in place of what was known before. One that was never started is passed over.
    fn put_usage(&self, spent: Vec<(AgentId, Spent)>) -> Answer<'_, ()>;

    /// Journals an operation as it is accepted, unless its key was used before.
    fn put_operation(&self, operation: &Operation, key: Option<OperationKey>) -> Answer<'_, PutOutcome>;
    /// What became of a key that was used before; `None` when it never was.
    fn keyed_operation(&self, key: &OperationKey) -> Answer<'_, Option<PutOutcome>>;
    /// Journals what an operation has become. `Conflict` when it is unknown.
    fn update_operation(&self, operation: &Operation) -> Answer<'_, ()>;
    /// One operation.
    fn operation(&self, id: OperationId) -> Answer<'_, Option<Operation>>;
    /// Youngest first. One of which not even the target can be read is passed over, and logged.
    fn operations(&self, query: OperationQuery) -> Answer<'_, Vec<Operation>>;
    /// Accepted or running, oldest first: an earlier daemon's end has cut them off. What can't be read is passed over as in [`Journal::operations`].
    fn unfinished_operations(&self) -> Answer<'_, Vec<Operation>>;

    /// Keeps events. One with a number that is there already is passed over.
    fn append_events(&self, events: Vec<StoredEvent>) -> Answer<'_, ()>;
    /// Events behind a number, oldest first, at most `limit`.
    fn events(&self, after: Seq, limit: usize) -> Answer<'_, Vec<StoredEvent>>;
    /// Sets numbers up to and with `upto` aside for this daemon, so that the next one's are greater, whatever was lost. Survives a power cut.
    fn reserve_seqs(&self, upto: Seq) -> Answer<'_, ()>;
    /// The greatest number that was ever set aside or used.
    fn last_reserved(&self) -> Answer<'_, Seq>;

    /// All tokens of the API, oldest first, those that are no longer good among them.
    fn tokens(&self) -> Answer<'_, Vec<ApiToken>>;
    /// Keeps a token, and forgets those that have not been good since `forget_before`.
    fn put_token(&self, token: ApiToken, forget_before: SystemTime) -> Answer<'_, ()>;
    /// A token is no longer good. `Conflict` when it is unknown.
    fn revoke_token(&self, id: &TokenId, at: SystemTime) -> Answer<'_, ()>;
    /// When tokens were presented last. One that is unknown is passed over.
    fn tokens_used(&self, seen: Vec<(TokenId, SystemTime)>) -> Answer<'_, ()>;

    /// Takes away what retention no longer covers, in small bites between which other writes get their turn.
    fn prune(&self, now: SystemTime, retention: Retention) -> Answer<'_, Pruned>;
    /// What the journal may take on disk from now on, in bytes. While it is more, the oldest events go as others come, save some of the youngest;
    /// nothing else goes for it. Does not block.
    fn bound(&self, bytes: u64);
    /// Whether the journal can be worked with. Does not block.
    fn status(&self) -> JournalStatus;
}
