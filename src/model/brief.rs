//! What events tell of shared work: enough to follow it, and never what agents have put into it, so that an event stays small.

use std::{sync::Arc, time::SystemTime};

use super::{
    ids::{AgentName, LockId, MessageId, SwarmName, TaskId},
    work::{Attempt, Fence, Lock, LockMode, Message, MessageKind, Party, Priority, Task, TaskState},
};

/// Reasons, and resources, of which the first are told: each has at most half a KiB.
const TOLD_MAX: usize = 8;

/// What is told of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskBrief {
    /// Its id.
    pub id: TaskId,
    /// Whose work it is.
    pub swarm: SwarmName,
    /// Its number.
    pub number: u64,
    /// One line for people.
    pub title: Arc<str>,
    /// What kind of work it is.
    pub category: Arc<str>,
    /// How urgent.
    pub priority: Priority,
    /// What it belongs to.
    pub group: Option<Arc<str>>,
    /// Where it stands.
    pub state: TaskState,
    /// Since when.
    pub since: SystemTime,
    /// Why it is blocked, failed or cancelled; the first few.
    pub reasons: Vec<String>,
    /// Attempts that have failed.
    pub failures: u32,
    /// Attempts whose holder was lost.
    pub losses: u32,
    /// Who holds it, and by which token.
    pub claim: Option<(Party, Fence)>,
    /// The last claim that has ended.
    pub last_attempt: Option<Attempt>,
}

impl From<&Task> for TaskBrief {
    fn from(task: &Task) -> Self {
        Self {
            id: task.id,
            swarm: task.swarm.clone(),
            number: task.number,
            title: Arc::clone(&task.spec.title),
            category: Arc::clone(&task.spec.category),
            priority: task.spec.priority,
            group: task.spec.group.clone(),
            state: task.state,
            since: task.since,
            reasons: task.reasons.iter().take(TOLD_MAX).cloned().collect(),
            failures: task.failures,
            losses: task.losses,
            claim: task.claim.as_ref().map(|claim| (claim.holder.clone(), claim.fence)),
            last_attempt: task.attempts.last().cloned(),
        }
    }
}

/// What is told of a lock.
#[derive(Debug, Clone, PartialEq)]
pub struct LockBrief {
    /// Its id.
    pub id: LockId,
    /// Whose resources they are.
    pub swarm: SwarmName,
    /// Its number.
    pub number: u64,
    /// What is locked; the first few.
    pub resources: Vec<Arc<str>>,
    /// How many that are.
    pub resources_total: usize,
    /// What it allows.
    pub mode: LockMode,
    /// What was allowed before, or what is wanted and not given.
    pub other_mode: Option<LockMode>,
    /// Whose.
    pub holder: Party,
    /// Its token, while it is held.
    pub fence: Option<Fence>,
}

impl LockBrief {
    /// Of a lock; `other_mode` is what was allowed before, or what is wanted and not given.
    pub fn of(lock: &Lock, other_mode: Option<LockMode>) -> Self {
        Self {
            id: lock.id,
            swarm: lock.swarm.clone(),
            number: lock.number,
            resources: lock.resources.iter().take(TOLD_MAX).cloned().collect(),
            resources_total: lock.resources.len(),
            mode: lock.mode,
            other_mode,
            holder: lock.holder.clone(),
            fence: lock.grant.map(|grant| grant.fence),
        }
    }
}

/// What is told of one recipient's copy of a message.
#[derive(Debug, Clone, PartialEq)]
pub struct MessageBrief {
    /// Its id.
    pub id: MessageId,
    /// Whose it is.
    pub swarm: SwarmName,
    /// Its number.
    pub number: u64,
    /// For whom.
    pub to: AgentName,
    /// By whom; `None`: an operator, or the daemon itself.
    pub from: Option<Party>,
    /// What it is: `note`, `request`, `reply`, `undelivered`.
    pub kind: &'static str,
    /// How urgent.
    pub priority: Priority,
    /// What it is about; empty once it was acknowledged.
    pub topic: Arc<str>,
    /// How often it was delivered.
    pub deliveries: u32,
    /// Why it was given up: `code: detail`.
    pub reason: Option<String>,
}

impl From<&Message> for MessageBrief {
    fn from(message: &Message) -> Self {
        let kind = match message.kind {
            MessageKind::Note => "note",
            MessageKind::Request { .. } => "request",
            MessageKind::Reply { .. } => "reply",
            MessageKind::Undelivered { .. } => "undelivered",
        };
        Self {
            id: message.id,
            swarm: message.swarm.clone(),
            number: message.number,
            to: message.to.clone(),
            from: message.from.clone(),
            kind,
            priority: message.priority,
            topic: Arc::clone(&message.topic),
            deliveries: message.deliveries,
            reason: message.dead.as_ref().map(|(_, reason)| reason.clone()),
        }
    }
}
