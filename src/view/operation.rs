//! Operations.

use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{health::json_or_text, schema::Anything, time::Rfc3339, words};
use crate::model::{Command, Operation, RestartMode, Step};

/// Steps in an event: more than there are between two of them, most of the time, and some kilobytes at most.
const STEPS_TOLD_MAX: usize = 16;

/// One accepted command. `kind` is the command's word; `mode` (of a rolling restart), `agent` and `replicas` (of a scale), `grace_ms` and `reason` are
/// what was asked for with it.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Operation)]
pub struct OperationView<'a> {
    #[schema(format = "uuid")]
    id: String,
    kind: &'static str,
    target: String,
    #[schema(value_type = words::OperationStateWord)]
    state: &'static str,
    requested_by: String,
    requested_at: Rfc3339,
    ended_at: Option<Rfc3339>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replicas: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grace_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    /// Of one whose `kind` is `unreadable`: what the journal has, and why this version can't read it.
    #[serde(skip_serializing_if = "Option::is_none")]
    unreadable: Option<UnreadableView<'a>>,
    /// What was done, oldest first; in an event no more than the youngest few.
    steps: Vec<StepView<'a>>,
    steps_total: usize,
    error: Option<&'a str>,
}

/// A command that this version can't read.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Unreadable)]
pub struct UnreadableView<'a> {
    why: &'a str,
    #[schema(value_type = Anything)]
    command: Box<RawValue>,
}

/// One thing that was done for an operation.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Step)]
pub struct StepView<'a> {
    at: Rfc3339,
    agent: String,
    ok: bool,
    detail: &'a str,
}

/// Shows an operation.
pub fn operation(operation: &Operation) -> OperationView<'_> {
    operation_of(operation, usize::MAX)
}

/// Shows an operation in an event. It is told of several times a second, and one on a thousand agents has a thousand steps.
pub(super) fn operation_changed(operation: &Operation) -> OperationView<'_> {
    operation_of(operation, STEPS_TOLD_MAX)
}

fn operation_of(operation: &Operation, steps_max: usize) -> OperationView<'_> {
    let (grace, reason) = match &operation.command {
        Command::Restart { grace, reason, .. } | Command::Stop { grace, reason } => (*grace, reason.as_deref()),
        _ => (None, None),
    };
    let (agent, replicas) = match &operation.command {
        Command::Scale { agent, replicas } => (Some(agent.as_str()), Some(*replicas)),
        _ => (None, None),
    };
    let mode = match &operation.command {
        Command::Restart { mode: RestartMode::Rolling, .. } => Some("rolling"),
        _ => None,
    };
    let unreadable = match &operation.command {
        Command::Unreadable { raw, why } => Some(UnreadableView { why, command: json_or_text(raw) }),
        _ => None,
    };
    OperationView {
        id: operation.id.to_string(),
        kind: operation.command.word(),
        target: operation.target.to_string(),
        state: words::operation_state(operation.state),
        requested_by: operation.requested_by.to_string(),
        requested_at: Rfc3339(operation.requested_at),
        ended_at: operation.ended_at.map(Rfc3339),
        mode,
        agent,
        replicas,
        grace_ms: grace.map(millis),
        reason,
        unreadable,
        steps: operation.steps.iter().skip(operation.steps.len().saturating_sub(steps_max)).map(step).collect(),
        steps_total: operation.steps.len(),
        error: operation.error.as_deref(),
    }
}

fn step(step: &Step) -> StepView<'_> {
    let (ok, detail) = match &step.result {
        Ok(seen) => (true, seen),
        Err(failure) => (false, failure),
    };
    StepView { at: Rfc3339(step.at), agent: step.agent.to_string(), ok, detail }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
