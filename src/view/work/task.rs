//! Tasks.

use std::{sync::Arc, time::Duration};

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{
    lock::LockView,
    words::{AttemptEndWord, Id, Json, OnDependencyFailureWord, PriorityWord, TaskIdText, TaskStateWord, Word},
};
use crate::{
    model::{Attempt, Claim, Fence, Party, Task, TaskProgress},
    view::{
        health::{self, ReasonView},
        time::Rfc3339,
    },
};

/// Who takes part in a swarm's work.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Party)]
pub struct PartyView<'a> {
    /// The name of an agent or a client.
    agent: &'a str,
    /// Which start of the agent; null for a client that nobody supervises.
    incarnation: Option<u64>,
}

/// Shows a party.
pub(super) fn party(party: &Party) -> PartyView<'_> {
    PartyView { agent: party.id.name.as_str(), incarnation: party.incarnation }
}

/// One task. `payload`, `result` and `attempts` are left out where many are shown.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Task)]
pub struct TaskView<'a> {
    id: TaskIdText,
    swarm: &'a str,
    /// The order of creation: of two equally urgent tasks the one with the smaller number is claimed first.
    number: u64,
    /// One line for people.
    title: &'a str,
    category: &'a str,
    priority: PriorityWord,
    state: TaskStateWord,
    /// Since when it is in this state.
    since: Rfc3339,
    /// Why it is blocked, failed or cancelled.
    reasons: Vec<ReasonView<'a>>,
    group: Option<&'a str>,
    depends_on: Vec<TaskIdText>,
    on_dependency_failure: OnDependencyFailureWord,
    retry: RetryView,
    attempt_timeout_ms: Option<u64>,
    created_by: Option<PartyView<'a>>,
    created_at: Rfc3339,
    /// Attempts that have failed, which is what retries are counted by.
    failures: u32,
    /// Attempts whose holder was lost.
    losses: u32,
    /// The end of the back-off, while the task waits for it.
    not_before: Option<Rfc3339>,
    claim: Option<ClaimView<'a>>,
    progress: Option<ProgressView<'a>>,
    /// What to do, in the words of whoever created it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Json, required = false)]
    payload: Option<Json>,
    /// What the one who completed it has left.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Json, required = false)]
    result: Option<Option<Json>>,
    /// Claims that have ended, the last ones, the youngest last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Vec<AttemptView<'a>>, required = false)]
    attempts: Option<Vec<AttemptView<'a>>>,
}

/// When a failed attempt is followed by another.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Retry)]
struct RetryView {
    retries: u32,
    backoff_ms: u64,
    backoff_max_ms: u64,
}

/// The right to work on a task.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Claim)]
struct ClaimView<'a> {
    holder: PartyView<'a>,
    /// The fencing token: to be shown with every later call.
    fence: u64,
    since: Rfc3339,
    lease_until: Rfc3339,
    lease_ms: u64,
    /// When the attempt is over whatever is renewed.
    deadline: Option<Rfc3339>,
}

/// What a holder has told of his work.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = TaskProgress)]
struct ProgressView<'a> {
    percent: Option<u8>,
    note: Option<&'a str>,
    at: Rfc3339,
}

/// A claim that has ended.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Attempt)]
struct AttemptView<'a> {
    holder: PartyView<'a>,
    fence: u64,
    since: Rfc3339,
    until: Rfc3339,
    end: AttemptEndWord,
    reason: Option<&'a str>,
}

/// Tasks.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Tasks)]
pub struct TasksView<'a> {
    /// Each as it is now.
    pub tasks: Vec<TaskView<'a>>,
}

/// A task that was just created.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = CreatedTask)]
pub struct CreatedView<'a> {
    id: TaskIdText,
    number: u64,
    title: &'a str,
    state: TaskStateWord,
}

/// Tasks that were just created.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = CreatedTasks)]
pub struct CreatedTasksView<'a> {
    /// In the order in which they were asked for.
    pub tasks: Vec<CreatedView<'a>>,
}

/// A part of the tasks of a swarm.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = TaskPage)]
pub struct TaskPageView {
    /// Oldest first.
    #[schema(value_type = Vec<TaskView<'static>>)]
    pub tasks: Vec<Box<RawValue>>,
    /// There may be more: what to show as `after` to have them.
    pub next: Option<u64>,
}

/// What a party holds, and what its predecessor held.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = HeldTasks)]
pub struct HeldView {
    /// Your own claims; `claim.fence` is the token of each.
    #[schema(value_type = Vec<TaskView<'static>>)]
    pub tasks: Vec<Box<RawValue>>,
    /// Your own locks.
    #[schema(value_type = Vec<LockView<'static>>)]
    pub locks: Vec<Box<RawValue>>,
    /// What the last incarnation of this agent that ended with work in hand held then.
    #[schema(value_type = Vec<BequestView<'static>>)]
    pub predecessor: Vec<Box<RawValue>>,
    /// Whether there is more of anything than fits into one answer.
    pub more: bool,
}

/// A task that an earlier incarnation held when it ended.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Bequest)]
pub struct BequestView<'a> {
    /// The token under which it was held; it is good no more.
    pub fence: u64,
    /// Always false: the claim has ended with its holder. To go on with the task, claim it anew if it is ready.
    pub still_yours: bool,
    /// Where it stands now.
    pub task: TaskView<'a>,
}

impl<'a> BequestView<'a> {
    /// Shows a task that was held.
    pub fn of(fence: Fence, task: &'a Task) -> Self {
        Self { fence: fence.0, still_yours: false, task: brief(task) }
    }
}

/// Shows a task that was just created.
pub fn created(task: &Task) -> CreatedView<'_> {
    CreatedView { id: Id(task.id), number: task.number, title: &task.spec.title, state: Word(task.state) }
}

/// Shows a task with all that is known of it.
pub fn task(task: &Task) -> TaskView<'_> {
    TaskView {
        payload: Some(Json(Arc::clone(&task.spec.payload))),
        result: Some(task.result.clone().map(Json)),
        attempts: Some(task.attempts.iter().map(attempt).collect()),
        ..brief(task)
    }
}

/// Shows a task without payload, result and attempts.
pub fn brief(task: &Task) -> TaskView<'_> {
    let spec = &task.spec;
    TaskView {
        id: Id(task.id),
        swarm: task.swarm.as_str(),
        number: task.number,
        title: &spec.title,
        category: &spec.category,
        priority: Word(spec.priority),
        state: Word(task.state),
        since: Rfc3339(task.since),
        reasons: task.reasons.iter().map(|text| health::reason_text(text)).collect(),
        group: spec.group.as_deref(),
        depends_on: task.depends_on.iter().copied().map(Id).collect(),
        on_dependency_failure: Word(spec.on_dependency_failure),
        retry: RetryView {
            retries: spec.retry.retries,
            backoff_ms: ms(spec.retry.backoff),
            backoff_max_ms: ms(spec.retry.backoff_max),
        },
        attempt_timeout_ms: spec.attempt_timeout.map(ms),
        created_by: task.created_by.as_ref().map(party),
        created_at: Rfc3339(task.created_at),
        failures: task.failures,
        losses: task.losses,
        not_before: task.not_before.map(Rfc3339),
        claim: task.claim.as_ref().map(claim),
        progress: task.progress.as_ref().map(progress),
        payload: None,
        result: None,
        attempts: None,
    }
}

fn claim(claim: &Claim) -> ClaimView<'_> {
    ClaimView {
        holder: party(&claim.holder),
        fence: claim.fence.0,
        since: Rfc3339(claim.since),
        lease_until: Rfc3339(claim.lease_until),
        lease_ms: ms(claim.lease),
        deadline: claim.deadline.map(Rfc3339),
    }
}

fn progress(progress: &TaskProgress) -> ProgressView<'_> {
    ProgressView { percent: progress.percent, note: progress.note.as_deref(), at: Rfc3339(progress.at) }
}

fn attempt(attempt: &Attempt) -> AttemptView<'_> {
    AttemptView {
        holder: party(&attempt.holder),
        fence: attempt.fence.0,
        since: Rfc3339(attempt.since),
        until: Rfc3339(attempt.until),
        end: Word(attempt.end),
        reason: attempt.reason.as_deref(),
    }
}

/// Whole milliseconds.
pub fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
