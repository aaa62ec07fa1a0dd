//! Commands on swarms and agents: accepted by the control plane, answered with the operation that they became.

use std::time::Duration;

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web::{Data, Payload},
};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    dto,
    error::{Code, Problem},
    guard,
    server::Deps,
};
use crate::{
    control_plane::Request,
    model::{Command, Operation, RestartMode, Target, command::GRACE_MAX},
    view,
};

/// Longest `grace_ms`.
#[expect(clippy::cast_possible_truncation, reason = "an hour")]
const GRACE_MS_MAX: u64 = GRACE_MAX.as_millis() as u64;
/// Longest `reason`, in characters: a paragraph in the history.
const REASON_LEN_MAX: usize = 1000;

/// The commands that have a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Restart,
    Stop,
    Start,
    Pause,
    Resume,
}

impl Verb {
    pub(super) const ALL: [Self; 5] = [Self::Restart, Self::Stop, Self::Start, Self::Pause, Self::Resume];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Stop => "stop",
            Self::Start => "start",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }

    pub(super) fn summary(self, of_agent: bool) -> &'static str {
        match (self, of_agent) {
            (Self::Restart, false) => "Restarts the agents of a swarm",
            (Self::Restart, true) => "Restarts one agent",
            (Self::Stop, false) => "Stops a swarm, and keeps it stopped",
            (Self::Stop, true) => "Stops one agent, and keeps it stopped",
            (Self::Start, false) => "Starts a swarm",
            (Self::Start, true) => "Starts one agent",
            (Self::Pause, false) => "Pauses a swarm",
            (Self::Pause, true) => "Pauses one agent",
            (Self::Resume, false) => "Resumes a paused swarm",
            (Self::Resume, true) => "Resumes a paused agent",
        }
    }

    async fn read(self, target: &Target, request: &HttpRequest, payload: Payload) -> Result<Command, Problem> {
        match (self, target) {
            (Self::Restart, Target::Swarm(_)) => {
                let body: RestartSwarm = dto::body(request, payload).await?;
                let mode = match body.mode {
                    Mode::All => RestartMode::All,
                    Mode::Rolling => RestartMode::Rolling,
                };
                let (grace, reason) = checked(body.grace_ms, body.reason)?;
                Ok(Command::Restart { mode, grace, reason })
            }
            (Self::Restart, Target::Agent(_)) => {
                let (grace, reason) = ending(request, payload).await?;
                Ok(Command::Restart { mode: RestartMode::All, grace, reason })
            }
            (Self::Stop, _) => {
                let (grace, reason) = ending(request, payload).await?;
                Ok(Command::Stop { grace, reason })
            }
            (Self::Start, _) => dto::body::<NoBody>(request, payload).await.map(|_| Command::Start),
            (Self::Pause, _) => dto::body::<NoBody>(request, payload).await.map(|_| Command::Pause),
            (Self::Resume, _) => dto::body::<NoBody>(request, payload).await.map(|_| Command::Resume),
        }
    }
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RestartSwarm {
    #[serde(default)]
    mode: Mode,
    #[schema(maximum = 3_600_000)]
    grace_ms: Option<u64>,
    #[schema(max_length = 1000)]
    reason: Option<String>,
}

#[derive(Debug, Default, Deserialize, PartialEq, Eq, ToSchema)]
#[schema(as = RestartMode)]
#[serde(rename_all = "snake_case")]
pub(super) enum Mode {
    #[default]
    All,
    Rolling,
}

#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = EndingBody)]
#[serde(deny_unknown_fields)]
pub(super) struct Ending {
    #[schema(maximum = 3_600_000)]
    grace_ms: Option<u64>,
    #[schema(max_length = 1000)]
    reason: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = EmptyBody)]
#[serde(deny_unknown_fields)]
pub(super) struct NoBody {}

/// A command on a swarm.
pub(super) async fn swarm(
    verb: Verb,
    request: HttpRequest,
    payload: Payload,
    deps: Data<Deps>,
) -> Result<HttpResponse, Problem> {
    let target = Target::Swarm(dto::swarm_name(&request)?);
    command(verb, target, request, payload, deps).await
}

/// A command on one agent.
pub(super) async fn agent(
    verb: Verb,
    request: HttpRequest,
    payload: Payload,
    deps: Data<Deps>,
) -> Result<HttpResponse, Problem> {
    let target = Target::Agent(dto::agent_id(&request)?);
    command(verb, target, request, payload, deps).await
}

async fn command(
    verb: Verb,
    target: Target,
    request: HttpRequest,
    payload: Payload,
    deps: Data<Deps>,
) -> Result<HttpResponse, Problem> {
    let command = verb.read(&target, &request, payload).await?;
    let wait = dto::query::<dto::WaitQuery>(&request)?.wait;
    hand_in(&request, &deps, command, target, wait).await
}

/// Hands a command in, and waits for its end if that is asked for.
pub(super) async fn hand_in(
    request: &HttpRequest,
    deps: &Deps,
    command: Command,
    target: Target,
    wait: Option<Duration>,
) -> Result<HttpResponse, Problem> {
    let idempotency_key = dto::idempotency_key(request)?;
    let if_match = dto::if_match(request)?;
    let requested_by = guard::requester(request);
    let handed = Request { command, target, requested_by, idempotency_key, if_match };
    let mut operation = deps.control.submit(handed).await?;
    if let Some(wait) = wait.map(|wait| wait.min(dto::WAIT_MAX)).filter(|_| !operation.state.ended()) {
        operation = deps.control.wait(operation.id, wait).await?;
    }
    let in_time = wait.is_some() && operation.state.ended();
    let status = if in_time { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok(answer(status, &operation))
}

fn answer(status: StatusCode, operation: &Operation) -> HttpResponse {
    HttpResponse::build(status)
        .insert_header((header::LOCATION, format!("/api/v1/operations/{}", operation.id)))
        .json(view::operation(operation))
}

async fn ending(request: &HttpRequest, payload: Payload) -> Result<(Option<Duration>, Option<String>), Problem> {
    let body: Ending = dto::body(request, payload).await?;
    checked(body.grace_ms, body.reason)
}

fn checked(grace_ms: Option<u64>, reason: Option<String>) -> Result<(Option<Duration>, Option<String>), Problem> {
    let invalid = |detail: String| Err(Problem::new(Code::InvalidBody, detail));
    if let Some(found) = grace_ms.filter(|ms| *ms > GRACE_MS_MAX) {
        return invalid(format!("grace_ms: found {found}, allowed: at most {GRACE_MS_MAX}"));
    }
    if reason.as_ref().is_some_and(|reason| reason.chars().count() > REASON_LEN_MAX) {
        return invalid(format!("reason: allowed: at most {REASON_LEN_MAX} characters"));
    }
    Ok((grace_ms.map(Duration::from_millis), reason))
}
