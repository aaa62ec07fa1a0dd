//! What the store takes and hands out.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::model::{
    AgentId, Desired, Epoch, ExitRecord, LaunchId, Operation, OperationId, OperationState, Origin, Seq, Spent,
    SwarmName,
};

/// One line of an agent's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// 1, 2, 3 ... over all incarnations of the agent.
    pub number: u64,
    /// Which start wrote it.
    pub incarnation: u64,
    /// The launcher's number within the incarnation; `None` for `hive/log` records and notes of the daemon.
    pub seq: Option<u64>,
    /// When.
    pub at: SystemTime,
    /// `stdout`, `stderr`, `log` (an agent's `hive/log`) or `hivekeeper` (a note of ours: lines lost, incarnation ended).
    pub stream: &'static str,
    /// Level of a `log` record.
    pub level: Option<String>,
    /// Whether the line goes on in the next piece of the same stream.
    pub partial: bool,
    /// The text.
    pub text: String,
}

/// Which lines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogQuery {
    /// Only lines with a greater number.
    pub after: Option<u64>,
    /// Only lines written at or after this time.
    pub since: Option<SystemTime>,
    /// Only the last so many of them.
    pub tail: Option<usize>,
    /// At most so many, oldest first.
    pub limit: usize,
}

/// Some lines, and where they stand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogPage {
    /// In order.
    pub lines: Vec<LogLine>,
    /// The oldest number that is still kept; 0 when there is none.
    pub first_kept: u64,
    /// The youngest number; 0 when there is none.
    pub last: u64,
}

/// An event as the journal keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its number.
    pub seq: Seq,
    /// Who numbered it.
    pub epoch: Epoch,
    /// When.
    pub at: SystemTime,
    /// Its stable name.
    pub kind: String,
    /// What it was about: a swarm, an agent, an operation; empty for the hive.
    pub subject: String,
    /// The event's JSON document, as on every edge.
    pub body: Arc<str>,
}

/// One swarm as it is desired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwarmRow {
    /// Its name.
    pub name: SwarmName,
    /// Who wrote it.
    pub origin: Origin,
    /// Its document, JSON text; opaque to the store.
    pub document: Arc<str>,
    /// What its operator made of the file's numbers, JSON text; opaque to the store, too.
    pub scaled: Option<Arc<str>>,
    /// What the operator wants of it.
    pub desired: Desired,
    /// Since when.
    pub since: SystemTime,
}

/// One start of one agent, journaled before anything is launched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incarnation {
    /// Names the launch.
    pub launch_id: LaunchId,
    /// Who.
    pub agent: AgentId,
    /// Which start of it.
    pub incarnation: u64,
    /// SHA-256 of its token.
    pub token_hash: [u8; 32],
    /// When it was decided.
    pub begun_at: SystemTime,
    /// Whether supervision decided it after an end that is debited to the agent: these count as restarts and fill the window. A first start, one
    /// that an operator asked for, and one that replaces what its container took along are none.
    pub automatic: bool,
    /// A hash of what it runs; `None` where a version wrote it that did not note it. Opaque to the store.
    pub runs: Option<[u8; 32]>,
}

/// An incarnation, how far it came and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncarnationRow {
    /// What was journaled before the launch.
    pub begun: Incarnation,
    /// Its process id, once it was alive.
    pub pid: Option<u32>,
    /// When it was started, by the launcher's clock.
    pub alive_at: Option<SystemTime>,
    /// How it ended; `None` while it is open.
    pub exit: Option<ExitRecord>,
}

/// Where supervision stands with an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StandingState {
    /// It runs or is being started.
    Active,
    /// Its next start waits.
    BackingOff {
        /// Until then.
        retry_at: SystemTime,
    },
    /// Gave up; `retry_at` of an `on_exceeded` is kept, too.
    Failed {
        /// When it is tried again with a fresh window; `None` is never.
        retry_at: Option<SystemTime>,
    },
    /// Ended normally and rests.
    Completed,
    /// Nothing was begun yet of what it runs now.
    New,
}

/// Where supervision stands with an agent, to be taken up after a crash of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The state.
    pub state: StandingState,
    /// Restarts in a row, as supervision counts them for the back-off; 0 after a reset of the window.
    pub attempt: u32,
}

/// What a new daemon must know of an agent.
#[derive(Debug, Clone, PartialEq)]
pub struct Ledger {
    /// The last incarnation begun; 0 before the first.
    pub incarnation: u64,
    /// Automatic incarnations begun since the agent was made.
    pub restarts: u64,
    /// Restarts in a row, as supervision counts them for the back-off; 0 after a reset of the window.
    pub attempt: u32,
    /// When the automatic incarnations inside the window were begun, oldest first.
    pub recent: Vec<SystemTime>,
    /// Where supervision stood; `None` when nothing was ever said of it.
    pub standing: Option<StandingState>,
    /// How the last incarnation that ended did so.
    pub last_exit: Option<ExitRecord>,
    /// What it has used so far; `None` when it never said so.
    pub spent: Option<Spent>,
}

/// The idempotency key of an operation, and what it was used for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationKey {
    /// As the client sent it.
    pub key: String,
    /// Command and target in a form that is equal for equal requests.
    pub fingerprint: String,
}

/// What became of [`put_operation`](super::Journal::put_operation).
#[derive(Debug, Clone, PartialEq)]
pub enum PutOutcome {
    /// It is journaled.
    Stored,
    /// The key was used before for the same: the operation of that time, as it stands now.
    Existing(Box<Operation>),
    /// The key was used before for something else. Nothing was stored.
    KeyReused,
}

/// Which operations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OperationQuery {
    /// Accepted before this one.
    pub before: Option<OperationId>,
    /// Of this swarm or one of its agents.
    pub swarm: Option<SwarmName>,
    /// In this state.
    pub state: Option<OperationState>,
    /// At most so many.
    pub limit: usize,
}

/// What a pruning leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Events, youngest first.
    pub events_max: u64,
    /// Operations that ended; the others stay in any case.
    pub operations_max: u64,
    /// Incarnations that ended, of each agent; the youngest of an agent of the hive stays in any case.
    pub incarnations_max_per_agent: u64,
    /// Nothing older, save what stays in any case.
    pub age_max: Duration,
}

/// How much a pruning took away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pruned {
    /// Events.
    pub events: u64,
    /// Operations.
    pub operations: u64,
    /// Incarnations.
    pub incarnations: u64,
}

/// Whether the journal can be worked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalStatus {
    /// Whether the last use went well.
    pub ok: bool,
    /// Since when it is so.
    pub since: SystemTime,
    /// What the last failure was; kept when things are well again.
    pub last_error: Option<String>,
    /// Database and write-ahead log on disk, bytes.
    pub size_bytes: u64,
}
