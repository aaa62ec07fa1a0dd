//! Tasks.

use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::{
    model::{Attempt, Claim, OnDependencyFailure, Party, Task, TaskProgress},
    view::{
        health::{self, ReasonView},
        schema::Anything,
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

/// One task.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Task)]
pub struct TaskView<'a> {
    id: String,
    swarm: &'a str,
    /// One line for people.
    title: &'a str,
    category: &'a str,
    /// `critical`, `high`, `normal` or `low`.
    priority: &'static str,
    /// `blocked`, `ready`, `claimed`, `running`, `done`, `failed` or `cancelled`.
    state: &'static str,
    since: Rfc3339,
    /// Why it is blocked, failed or cancelled.
    reasons: Vec<ReasonView<'a>>,
    group: Option<&'a str>,
    #[schema(value_type = Anything)]
    payload: Box<RawValue>,
    depends_on: Vec<String>,
    /// `block` or `continue`.
    on_dependency_failure: &'static str,
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
    #[schema(value_type = Anything)]
    result: Option<Box<RawValue>>,
    attempts: Vec<AttemptView<'a>>,
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
    /// `completed`, `failed`, `released`, `holder_ended`, `lease_expired`, `deadline_passed` or `cancelled`.
    end: &'static str,
    reason: Option<&'a str>,
}

/// Tasks.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Tasks)]
pub struct TasksView<'a> {
    /// Each as it is now.
    pub tasks: Vec<TaskView<'a>>,
}

/// Shows a task.
pub fn task(task: &Task) -> TaskView<'_> {
    let spec = &task.spec;
    TaskView {
        id: task.id.to_string(),
        swarm: task.swarm.as_str(),
        title: &spec.title,
        category: &spec.category,
        priority: spec.priority.word(),
        state: task.state.word(),
        since: Rfc3339(task.since),
        reasons: task.reasons.iter().map(|text| health::reason_text(text)).collect(),
        group: spec.group.as_deref(),
        payload: health::json_or_text(&spec.payload),
        depends_on: task.depends_on.iter().map(ToString::to_string).collect(),
        on_dependency_failure: match spec.on_dependency_failure {
            OnDependencyFailure::Block => "block",
            OnDependencyFailure::Continue => "continue",
        },
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
        result: task.result.as_ref().map(health::json_or_text),
        attempts: task.attempts.iter().map(attempt).collect(),
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
        end: attempt.end.word(),
        reason: attempt.reason.as_deref(),
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
