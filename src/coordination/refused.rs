//! Why something is refused, the same on every door.

use std::{fmt, sync::Arc};

use crate::model::{Fence, LockId, MessageId, Party, TaskId, TaskState};

/// Why something is refused. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Something in what was sent can't be.
    #[error("{key}: found {found}, allowed {allowed}")]
    Invalid {
        /// Where: `tasks[3].priority`.
        key: String,
        /// What was found.
        found: String,
        /// What is allowed.
        allowed: String,
    },
    /// The swarm has no such task.
    #[error("there is no task {0} in this swarm")]
    UnknownTask(TaskId),
    /// The swarm has no such lock, or no more.
    #[error("there is no lock {0} in this swarm, or it has ended")]
    UnknownLock(LockId),
    /// There is no such message for this recipient, or it is acknowledged.
    #[error("there is no message {0} for this recipient")]
    UnknownMessage(MessageId),
    /// There is nothing to be answered.
    #[error("request {request} can't be answered: {why}")]
    NotOpen {
        /// Which.
        request: MessageId,
        /// What has become of it, for people.
        why: String,
    },
    /// The sender has used this key for something else.
    #[error("key {0:?} was used for something else")]
    KeyReused(Arc<str>),
    /// The right that this token stood for has ended.
    #[error("the fencing token {shown} is not, or no longer, good: {why}")]
    StaleToken {
        /// What was shown.
        shown: Fence,
        /// What has become of it, for people.
        why: String,
    },
    /// A task can't be treated so where it stands.
    #[error("task {task} is {found}; allowed are {allowed}")]
    WrongState {
        /// Which.
        task: TaskId,
        /// Where it stands.
        found: TaskState,
        /// Where it would have to stand, for people.
        allowed: &'static str,
    },
    /// Tasks would wait for each other.
    #[error("the dependencies go in a circle: {}", Circle(.0))]
    Cycle(Vec<String>),
    /// A bound is reached.
    #[error("{what}: at most {max} are allowed")]
    Full {
        /// Of what.
        what: &'static str,
        /// How many.
        max: usize,
    },
    /// The parties would wait for each other for ever, and this attempt is the youngest of theirs.
    #[error("deadlock: {}; this is the youngest attempt", Circle(.0))]
    Deadlock(Vec<Party>),
    /// It was not given in time.
    #[error("not given within {waited_ms} ms: {held_by}")]
    TimedOut {
        /// How long it was waited for.
        waited_ms: u64,
        /// Who stood in the way, for people.
        held_by: String,
    },
}

impl Refused {
    /// The stable code, on every door.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "invalid_work",
            Self::UnknownTask(_) => "unknown_task",
            Self::UnknownLock(_) => "unknown_lock",
            Self::UnknownMessage(_) => "unknown_message",
            Self::NotOpen { .. } => "request_not_open",
            Self::KeyReused(_) => "key_reused",
            Self::StaleToken { .. } => "stale_token",
            Self::WrongState { .. } => "wrong_state",
            Self::Cycle(_) => "dependency_cycle",
            Self::Full { .. } => "work_full",
            Self::Deadlock(_) => "deadlock",
            Self::TimedOut { .. } => "lock_timed_out",
        }
    }
}

/// `a -> b -> a`.
struct Circle<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for Circle<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for one in self.0 {
            write!(f, "{one} -> ")?;
        }
        match self.0.first() {
            Some(first) => first.fmt(f),
            None => Ok(()),
        }
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
