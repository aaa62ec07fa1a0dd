//! The words of coordination: who takes part, what he may, and tasks, locks and messages as documents.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::ids::{AgentId, AgentName, LockId, MessageId, SwarmName, TaskId};

/// A fencing token: grows with every right that is given, in the whole hive and over restarts of the daemon, so that of two holders of one right the
/// later one has the greater token. What is written elsewhere under a right should be refused there by whoever has seen a greater one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fence(pub u64);

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who takes part in a swarm's work: one incarnation of an agent, or a client that nobody supervises.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Party {
    /// Its swarm and its name in it; a client's name is never that of an agent.
    pub id: AgentId,
    /// Which start of the agent; `None` for a client, of whose death only the end of its leases tells.
    pub incarnation: Option<u64>,
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.incarnation {
            Some(incarnation) => write!(f, "{}#{incarnation}", self.id),
            None => self.id.fmt(f),
        }
    }
}

/// How soon something is to be done or read; the first is the most urgent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Priority {
    /// Before everything else.
    Critical,
    /// Before the usual.
    High,
    /// The usual.
    Normal,
    /// When nothing else is there.
    Low,
}

impl Priority {
    /// All, the most urgent first.
    pub const ALL: [Self; 4] = [Self::Critical, Self::High, Self::Normal, Self::Low];

    /// Its name on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }
}

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaskState {
    /// Waits: for tasks that it depends on, or for the end of a back-off.
    Blocked,
    /// Whoever claims next may have it.
    Ready,
    /// Somebody has claimed it and was not heard of since.
    Claimed,
    /// Its holder has renewed the claim or told of progress.
    Running,
    /// Its holder has completed it.
    Done,
    /// Given up: its holder said so, or an attempt failed, and no retry is left.
    Failed,
    /// Called off.
    Cancelled,
}

impl TaskState {
    /// All, in the order of a task's life.
    pub const ALL: [Self; 7] =
        [Self::Blocked, Self::Ready, Self::Claimed, Self::Running, Self::Done, Self::Failed, Self::Cancelled];

    /// Its name on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Ready => "ready",
            Self::Claimed => "claimed",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing becomes of it any more by itself.
    pub fn ended(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }

    /// Whether somebody holds it.
    pub fn held(self) -> bool {
        matches!(self, Self::Claimed | Self::Running)
    }
}

/// What becomes of those who depend on a task that fails or is cancelled; said by the dependent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDependencyFailure {
    /// It stays blocked, with the reason, until the failed one is tried again and done.
    Block,
    /// It goes on as if the other were done.
    Continue,
}

impl OnDependencyFailure {
    /// All.
    pub const ALL: [Self; 2] = [Self::Block, Self::Continue];

    /// Its name on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Continue => "continue",
        }
    }
}

/// When a failed attempt is followed by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Attempts after the first that may fail.
    pub retries: u32,
    /// The pause before the first retry; doubled before each further one.
    pub backoff: Duration,
    /// The longest pause.
    pub backoff_max: Duration,
}

/// What whoever creates a task says of it.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskSpec {
    /// One line for people.
    pub title: Arc<str>,
    /// What kind of work it is; claims may be limited to some kinds.
    pub category: Arc<str>,
    /// How urgent.
    pub priority: Priority,
    /// What to do: JSON text.
    pub payload: Arc<str>,
    /// What it belongs to, for progress and reports.
    pub group: Option<Arc<str>>,
    /// If one that it depends on fails or is cancelled.
    pub on_dependency_failure: OnDependencyFailure,
    /// If an attempt fails.
    pub retry: Retry,
    /// How long one attempt may take; `None`: as long as its lease is renewed.
    pub attempt_timeout: Option<Duration>,
}

/// The right to work on a task.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// Whose.
    pub holder: Party,
    /// To be shown with every later call.
    pub fence: Fence,
    /// Since when.
    pub since: SystemTime,
    /// When it ends unless it is renewed.
    pub lease_until: SystemTime,
    /// How much a renewal gives.
    pub lease: Duration,
    /// When the attempt is over whatever is renewed.
    pub deadline: Option<SystemTime>,
}

/// What a holder has told of his work.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskProgress {
    /// 0 to 100.
    pub percent: Option<u8>,
    /// For people.
    pub note: Option<Arc<str>>,
    /// When.
    pub at: SystemTime,
}

/// A claim that has ended, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// Whose.
    pub holder: Party,
    /// Its token.
    pub fence: Fence,
    /// From when.
    pub since: SystemTime,
    /// To when.
    pub until: SystemTime,
    /// How it ended.
    pub end: AttemptEnd,
    /// For people, of a failure.
    pub reason: Option<Arc<str>>,
}

/// How a claim ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptEnd {
    /// The task is done.
    Completed,
    /// Its holder said that it failed.
    Failed,
    /// Its holder gave it back.
    Released,
    /// Its holder's incarnation has ended.
    HolderEnded,
    /// The lease was not renewed in time.
    LeaseExpired,
    /// The attempt took too long.
    DeadlinePassed,
    /// The task was cancelled.
    Cancelled,
}

impl AttemptEnd {
    /// All.
    pub const ALL: [Self; 7] = [
        Self::Completed,
        Self::Failed,
        Self::Released,
        Self::HolderEnded,
        Self::LeaseExpired,
        Self::DeadlinePassed,
        Self::Cancelled,
    ];

    /// Its name on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Released => "released",
            Self::HolderEnded => "holder_ended",
            Self::LeaseExpired => "lease_expired",
            Self::DeadlinePassed => "deadline_passed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// One task.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// Whose work it is.
    pub swarm: SwarmName,
    /// What was asked for.
    pub spec: TaskSpec,
    /// Tasks of the same swarm that come before it.
    pub depends_on: Vec<TaskId>,
    /// The order of creation in the hive: of two equally urgent ones the smaller is older.
    pub number: u64,
    /// Who created it; `None`: an operator.
    pub created_by: Option<Party>,
    /// When.
    pub created_at: SystemTime,
    /// What its creator called the request that made it, so that the same request makes it once.
    pub key: Option<Arc<str>>,
    /// Where it stands.
    pub state: TaskState,
    /// Since when.
    pub since: SystemTime,
    /// Why it is blocked, failed or cancelled: `code: detail`.
    pub reasons: Vec<String>,
    /// Attempts that have failed, which is what retries are counted by.
    pub failures: u32,
    /// Attempts whose holder was lost, with its incarnation, its lease or its time.
    pub losses: u32,
    /// The end of the back-off, while it waits for it.
    pub not_before: Option<SystemTime>,
    /// Who works on it.
    pub claim: Option<Claim>,
    /// What its holder, or the last one, has told.
    pub progress: Option<TaskProgress>,
    /// What the one who completed it has left: JSON text.
    pub result: Option<Arc<str>>,
    /// Claims that have ended, the youngest last; the oldest are let go beyond a bound.
    pub attempts: Vec<Attempt>,
}

/// What a lock allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LockMode {
    /// Beside other readers.
    Read,
    /// No other party at all. A party never stands in its own way.
    Write,
    /// Nobody else at all, nor the same party by another lock: for parties that do several things at once.
    Exclusive,
}

impl LockMode {
    /// All.
    pub const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Exclusive];

    /// Its name on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Exclusive => "exclusive",
        }
    }
}

/// One lock: held, or waited for.
#[derive(Debug, Clone, PartialEq)]
pub struct Lock {
    /// Its id.
    pub id: LockId,
    /// Whose resources they are.
    pub swarm: SwarmName,
    /// What is locked, all at once or nothing: names or paths, each with everything below it, whether or not it ends with `/`.
    pub resources: Vec<Arc<str>>,
    /// How.
    pub mode: LockMode,
    /// Who.
    pub holder: Party,
    /// The order of asking in the hive: of two attempts the greater is the younger.
    pub number: u64,
    /// When it was asked for.
    pub asked_at: SystemTime,
    /// How long a renewal lasts.
    pub lease: Duration,
    /// What it is for, for people.
    pub note: Option<Arc<str>>,
    /// The right, once it is given.
    pub grant: Option<Grant>,
    /// Until when it is waited for; `None` once it is given.
    pub wait_until: Option<SystemTime>,
}

/// A lock that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// To be shown with every later call, and wherever is written under the lock.
    pub fence: Fence,
    /// Since when.
    pub since: SystemTime,
    /// When it ends unless it is renewed.
    pub lease_until: SystemTime,
}

/// What a message is to its recipient.
#[derive(Debug, Clone, PartialEq)]
pub enum MessageKind {
    /// To be known.
    Note,
    /// To be answered until then; the sender is told if it was not.
    Request {
        /// The deadline of the answer.
        reply_by: SystemTime,
    },
    /// The answer to a request.
    Reply {
        /// Which.
        to: MessageId,
    },
    /// The daemon tells the sender that nobody has answered in time, or that a message was dropped or is dead.
    Undelivered {
        /// Which.
        of: MessageId,
        /// Why: `code: detail`.
        reason: String,
    },
}

/// One recipient's copy of a message.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Its id.
    pub id: MessageId,
    /// Whose it is.
    pub swarm: SwarmName,
    /// For whom: an agent, whichever incarnation, or a client.
    pub to: AgentName,
    /// By whom; `None`: an operator, or the daemon itself.
    pub from: Option<Party>,
    /// How urgent.
    pub priority: Priority,
    /// What it is about, for filters.
    pub topic: Arc<str>,
    /// JSON text.
    pub body: Arc<str>,
    /// What it is.
    pub kind: MessageKind,
    /// Whether it went to everybody.
    pub broadcast: bool,
    /// The order of sending in the hive.
    pub number: u64,
    /// When it was sent.
    pub sent_at: SystemTime,
    /// How often it was delivered.
    pub deliveries: u32,
    /// The delivery that is not acknowledged yet.
    pub delivery: Option<Delivery>,
    /// Until when its recipient has asked not to have it again.
    pub not_before: Option<SystemTime>,
    /// When and why it was given up: `code: detail`. Such a dead letter is delivered to nobody.
    pub dead: Option<(SystemTime, String)>,
    /// How it came to its end. It is kept for a while, without topic and body, so that whoever says a thing twice gets the same answer twice.
    pub settled: Option<Settled>,
    /// What its sender knows this sending by.
    pub key: Option<SendKey>,
}

/// The end of a message for one recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// When.
    pub at: SystemTime,
    /// How.
    pub how: Settlement,
    /// The token of its last delivery: an acknowledgement that shows it is heard already.
    pub fence: Option<Fence>,
}

/// How a message came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// Its recipient has acknowledged it. A request may still be answered.
    Acknowledged,
    /// A request whose recipient has answered.
    Answered,
    /// A request that nobody has answered in time.
    Unanswered,
}

impl Settlement {
    /// All.
    pub const ALL: [Self; 3] = [Self::Acknowledged, Self::Answered, Self::Unanswered];

    /// Its name on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Self::Acknowledged => "acknowledged",
            Self::Answered => "answered",
            Self::Unanswered => "unanswered",
        }
    }
}

/// Names one sending among those of its sender, so that it can be repeated when its answer was lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendKey {
    /// The sender's word for it.
    pub word: Arc<str>,
    /// A digest of what was sent: the same word for something else is refused, not taken for a repetition.
    pub digest: u64,
}

/// A message on its way.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// To which incarnation.
    pub to: Party,
    /// To be shown with the acknowledgement.
    pub fence: Fence,
    /// How long after it was delivered it is delivered again unless it is acknowledged.
    pub redeliver_after: Duration,
    /// When that is.
    pub until: SystemTime,
}
