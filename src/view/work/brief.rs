//! What events tell of shared work.

use serde::Serialize;
use utoipa::ToSchema;

use super::{
    task::{PartyView, party},
    words::{
        AttemptEndWord, Id, LockIdText, LockModeWord, MessageIdText, PriorityWord, TaskIdText, TaskStateWord, Word,
    },
};
use crate::{
    model::{Attempt, LockBrief, MessageBrief, TaskBrief},
    view::{
        health::{self, ReasonView},
        time::Rfc3339,
    },
};

/// What an event tells of a task.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = TaskBrief)]
pub struct TaskBriefView<'a> {
    id: TaskIdText,
    swarm: &'a str,
    number: u64,
    title: &'a str,
    category: &'a str,
    priority: PriorityWord,
    group: Option<&'a str>,
    state: TaskStateWord,
    since: Rfc3339,
    /// Why it is blocked, failed or cancelled; the first few.
    reasons: Vec<ReasonView<'a>>,
    failures: u32,
    losses: u32,
    /// Who holds it.
    holder: Option<PartyView<'a>>,
    /// By which token.
    fence: Option<u64>,
    /// The last claim that has ended.
    last_attempt: Option<EndedView<'a>>,
}

/// How a claim has ended.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = EndedClaim)]
struct EndedView<'a> {
    holder: PartyView<'a>,
    fence: u64,
    end: AttemptEndWord,
    reason: Option<&'a str>,
}

/// What an event tells of a lock.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = LockBrief)]
pub struct LockBriefView<'a> {
    id: LockIdText,
    swarm: &'a str,
    number: u64,
    /// What is locked; the first few.
    #[schema(value_type = Vec<String>)]
    resources: Vec<&'a str>,
    /// How many that are.
    resources_total: usize,
    mode: LockModeWord,
    /// What was allowed before, or what is wanted and not given.
    other_mode: Option<LockModeWord>,
    holder: PartyView<'a>,
    /// Its token, while it is held.
    fence: Option<u64>,
}

/// What an event tells of one recipient's copy of a message.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = MessageBrief)]
pub struct MessageBriefView<'a> {
    id: MessageIdText,
    swarm: &'a str,
    number: u64,
    to: &'a str,
    from: Option<PartyView<'a>>,
    /// `note`, `request`, `reply` or `undelivered`.
    kind: &'static str,
    priority: PriorityWord,
    topic: &'a str,
    deliveries: u32,
    /// Why it was given up.
    reason: Option<ReasonView<'a>>,
}

/// Shows what is told of a task.
pub fn task_brief(task: &TaskBrief) -> TaskBriefView<'_> {
    TaskBriefView {
        id: Id(task.id),
        swarm: task.swarm.as_str(),
        number: task.number,
        title: &task.title,
        category: &task.category,
        priority: Word(task.priority),
        group: task.group.as_deref(),
        state: Word(task.state),
        since: Rfc3339(task.since),
        reasons: task.reasons.iter().map(|text| health::reason_text(text)).collect(),
        failures: task.failures,
        losses: task.losses,
        holder: task.claim.as_ref().map(|(holder, _)| party(holder)),
        fence: task.claim.as_ref().map(|(_, fence)| fence.0),
        last_attempt: task.last_attempt.as_ref().map(ended),
    }
}

fn ended(attempt: &Attempt) -> EndedView<'_> {
    EndedView {
        holder: party(&attempt.holder),
        fence: attempt.fence.0,
        end: Word(attempt.end),
        reason: attempt.reason.as_deref(),
    }
}

/// Shows what is told of a lock.
pub fn lock_brief(lock: &LockBrief) -> LockBriefView<'_> {
    LockBriefView {
        id: Id(lock.id),
        swarm: lock.swarm.as_str(),
        number: lock.number,
        resources: lock.resources.iter().map(|resource| &**resource).collect(),
        resources_total: lock.resources_total,
        mode: Word(lock.mode),
        other_mode: lock.other_mode.map(Word),
        holder: party(&lock.holder),
        fence: lock.fence.map(|fence| fence.0),
    }
}

/// Shows what is told of a message.
pub fn message_brief(message: &MessageBrief) -> MessageBriefView<'_> {
    MessageBriefView {
        id: Id(message.id),
        swarm: message.swarm.as_str(),
        number: message.number,
        to: message.to.as_str(),
        from: message.from.as_ref().map(party),
        kind: message.kind,
        priority: Word(message.priority),
        topic: &message.topic,
        deliveries: message.deliveries,
        reason: message.reason.as_deref().map(health::reason_text),
    }
}
