//! The form in which model types lie in the database: JSON text of types that belong to the store alone, so that a change of the wire can't make an
//! old journal unreadable.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::{RawValue, to_raw_value};

use super::error::StoreError;
use crate::{
    model::{
        AgentId, Command, ExitCause, ExitRecord, Operation, OperationState, Origin, Requester, RestartMode, Spent,
        Step, SwarmSpec, Target, Usage, UsageTally,
    },
    view::{SwarmDocument, document},
};

/// Milliseconds since 1970, the precision of every time that we show; times before are 1970.
pub(super) fn millis(at: SystemTime) -> i64 {
    let elapsed = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
}

/// The time of [`millis`].
pub(super) fn time(millis: i64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_millis(u64::try_from(millis).unwrap_or(0))).unwrap_or(UNIX_EPOCH)
}

/// A number for SQLite, whose integers are signed.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The number of [`signed`].
pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

pub(super) fn to_json<T: Serialize>(form: &T) -> Result<String, StoreError> {
    serde_json::to_string(form).map_err(no_json)
}

fn no_json(error: serde_json::Error) -> StoreError {
    StoreError::Other(error.to_string())
}

pub(super) fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|e| StoreError::Corrupt(e.to_string()))
}

/// A stored text that must be one of our names or ids.
pub(super) fn parse<T: std::str::FromStr>(text: &str) -> Result<T, StoreError>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|e: T::Err| StoreError::Corrupt(e.to_string()))
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum CauseForm {
    Exited,
    Signalled,
    Stopped,
    LeaseLost,
    StartFailed(String),
    StartTimeout,
    Stuck,
    LauncherLost,
    ContainerLost(String),
    NeverStarted,
}

/// [`ExitRecord`] at rest.
#[derive(Serialize, Deserialize)]
pub(super) struct ExitForm {
    incarnation: u64,
    code: Option<i32>,
    signal: Option<i32>,
    oom: Option<bool>,
    at_ms: i64,
    cause: CauseForm,
    last_lines: Vec<String>,
}

impl From<&ExitRecord> for ExitForm {
    fn from(exit: &ExitRecord) -> Self {
        let cause = match &exit.cause {
            ExitCause::Exited => CauseForm::Exited,
            ExitCause::Signalled => CauseForm::Signalled,
            ExitCause::Stopped => CauseForm::Stopped,
            ExitCause::LeaseLost => CauseForm::LeaseLost,
            ExitCause::StartFailed { message } => CauseForm::StartFailed(message.clone()),
            ExitCause::StartTimeout => CauseForm::StartTimeout,
            ExitCause::Stuck => CauseForm::Stuck,
            ExitCause::LauncherLost => CauseForm::LauncherLost,
            ExitCause::ContainerLost { message } => CauseForm::ContainerLost(message.clone()),
            ExitCause::NeverStarted => CauseForm::NeverStarted,
        };
        Self {
            incarnation: exit.incarnation,
            code: exit.code,
            signal: exit.signal,
            oom: exit.oom,
            at_ms: millis(exit.at),
            cause,
            last_lines: exit.last_lines.clone(),
        }
    }
}

impl From<ExitForm> for ExitRecord {
    fn from(form: ExitForm) -> Self {
        let cause = match form.cause {
            CauseForm::Exited => ExitCause::Exited,
            CauseForm::Signalled => ExitCause::Signalled,
            CauseForm::Stopped => ExitCause::Stopped,
            CauseForm::LeaseLost => ExitCause::LeaseLost,
            CauseForm::StartFailed(message) => ExitCause::StartFailed { message },
            CauseForm::StartTimeout => ExitCause::StartTimeout,
            CauseForm::Stuck => ExitCause::Stuck,
            CauseForm::LauncherLost => ExitCause::LauncherLost,
            CauseForm::ContainerLost(message) => ExitCause::ContainerLost { message },
            CauseForm::NeverStarted => ExitCause::NeverStarted,
        };
        Self {
            incarnation: form.incarnation,
            code: form.code,
            signal: form.signal,
            oom: form.oom,
            at: time(form.at_ms),
            cause,
            last_lines: form.last_lines,
        }
    }
}

/// [`Usage`] at rest. What was never said takes no room.
#[derive(Serialize, Deserialize)]
struct UsageForm {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    input: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    output: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cache_read: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cache_creation: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reasoning: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cost_usd: Option<f64>,
}

impl From<&Usage> for UsageForm {
    fn from(usage: &Usage) -> Self {
        Self {
            input: usage.input_tokens,
            output: usage.output_tokens,
            cache_read: usage.cache_read_input_tokens,
            cache_creation: usage.cache_creation_input_tokens,
            reasoning: usage.reasoning_output_tokens,
            cost_usd: usage.cost_usd,
        }
    }
}

impl From<UsageForm> for Usage {
    fn from(form: UsageForm) -> Self {
        Self {
            input_tokens: form.input,
            output_tokens: form.output,
            cache_read_input_tokens: form.cache_read,
            cache_creation_input_tokens: form.cache_creation,
            reasoning_output_tokens: form.reasoning,
            cost_usd: form.cost_usd,
        }
    }
}

/// [`Spent`] at rest.
#[derive(Serialize, Deserialize)]
pub(super) struct SpentForm {
    over: UsageForm,
    last: UsageForm,
    incarnation: u64,
    at_ms: i64,
    model: Option<(String, i64)>,
}

impl From<&Spent> for SpentForm {
    fn from(Spent { tally, at, model }: &Spent) -> Self {
        Self {
            over: UsageForm::from(&tally.over),
            last: UsageForm::from(&tally.last),
            incarnation: tally.incarnation,
            at_ms: millis(*at),
            model: model.as_ref().map(|(name, at)| (name.to_string(), millis(*at))),
        }
    }
}

impl From<SpentForm> for Spent {
    fn from(form: SpentForm) -> Self {
        Self {
            tally: UsageTally { over: form.over.into(), last: form.last.into(), incarnation: form.incarnation },
            at: time(form.at_ms),
            model: form.model.map(|(name, at)| (name.into(), time(at))),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum CommandForm {
    Launch {
        api: bool,
        document: Box<SwarmDocument>,
    },
    Update {
        api: bool,
        document: Box<SwarmDocument>,
    },
    Delete,
    Scale {
        agent: String,
        replicas: u32,
    },
    Restart {
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        rolling: bool,
        grace_ms: Option<u64>,
        reason: Option<String>,
    },
    Stop {
        grace_ms: Option<u64>,
        reason: Option<String>,
    },
    Start,
    Pause,
    Resume,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RequesterForm {
    Http(String),
    Token { name: String, peer: String },
    Reload,
    Daemon,
}

#[derive(Serialize, Deserialize)]
struct StepForm {
    at_ms: i64,
    agent: String,
    ok: Option<String>,
    error: Option<String>,
}

/// The parts of an [`Operation`] that no query looks into. `id`, `state` and the times have columns of their own.
#[derive(Serialize, Deserialize)]
pub(super) struct OperationForm {
    /// A [`CommandForm`]. By itself, so that one that can't be read is kept as it is, and hides nothing of the rest.
    command: Box<RawValue>,
    target: String,
    requested_by: RequesterForm,
    steps: Vec<StepForm>,
    error: Option<String>,
}

impl OperationForm {
    fn of(operation: &Operation) -> serde_json::Result<Self> {
        let in_millis = |grace: Option<Duration>| grace.map(|g| u64::try_from(g.as_millis()).unwrap_or(u64::MAX));
        let form = to_raw_value::<CommandForm>;
        let command = match operation.command.clone() {
            Command::Unreadable { raw, .. } => RawValue::from_string(raw.to_string()),
            Command::Launch { spec } => form(&CommandForm::Launch { api: is_api(&spec), document: shown(&spec) }),
            Command::Update { spec } => form(&CommandForm::Update { api: is_api(&spec), document: shown(&spec) }),
            Command::Delete => form(&CommandForm::Delete),
            Command::Scale { agent, replicas } => form(&CommandForm::Scale { agent: agent.to_string(), replicas }),
            Command::Restart { mode, grace, reason } => form(&CommandForm::Restart {
                rolling: mode == RestartMode::Rolling,
                grace_ms: in_millis(grace),
                reason,
            }),
            Command::Stop { grace, reason } => form(&CommandForm::Stop { grace_ms: in_millis(grace), reason }),
            Command::Start => form(&CommandForm::Start),
            Command::Pause => form(&CommandForm::Pause),
            Command::Resume => form(&CommandForm::Resume),
        };
        let requested_by = match &operation.requested_by {
            Requester::Http { peer } => RequesterForm::Http(peer.clone()),
            Requester::Token { name, peer } => RequesterForm::Token { name: name.to_string(), peer: peer.clone() },
            Requester::Reload => RequesterForm::Reload,
            Requester::Daemon => RequesterForm::Daemon,
        };
        let step = |step: &Step| StepForm {
            at_ms: millis(step.at),
            agent: step.agent.to_string(),
            ok: step.result.clone().ok(),
            error: step.result.clone().err(),
        };
        Ok(Self {
            command: command?,
            target: operation.target.to_string(),
            requested_by,
            steps: operation.steps.iter().map(step).collect(),
            error: operation.error.clone(),
        })
    }
}

/// The columns of an operation beside its [`OperationForm`].
pub(super) struct OperationColumns {
    pub(super) id: String,
    pub(super) state: String,
    pub(super) requested_at: i64,
    pub(super) ended_at: Option<i64>,
    pub(super) body: String,
}

impl OperationColumns {
    pub(super) fn of(operation: &Operation) -> Result<Self, StoreError> {
        Ok(Self {
            id: operation.id.to_string(),
            state: state_word(operation.state).to_owned(),
            requested_at: millis(operation.requested_at),
            ended_at: operation.ended_at.map(millis),
            body: OperationForm::of(operation).and_then(|form| serde_json::to_string(&form)).map_err(no_json)?,
        })
    }

    pub(super) fn operation(&self) -> Result<Operation, StoreError> {
        let form: OperationForm = from_json(&self.body)?;
        let command = command_of(form.command.get()).unwrap_or_else(|error| Command::Unreadable {
            raw: form.command.get().into(),
            why: error.to_string().into(),
        });
        // An agent's id holds a slash, a swarm's name can't.
        let target = if form.target.contains('/') {
            Target::Agent(parse::<AgentId>(&form.target)?)
        } else {
            Target::Swarm(parse(&form.target)?)
        };
        let step = |step: StepForm| {
            let result = match (step.ok, step.error) {
                (Some(seen), _) => Ok(seen),
                (None, error) => Err(error.unwrap_or_default()),
            };
            Ok(Step { at: time(step.at_ms), agent: parse(&step.agent)?, result })
        };
        Ok(Operation {
            id: parse(&self.id)?,
            command,
            target,
            state: state_of(&self.state)?,
            requested_by: match form.requested_by {
                RequesterForm::Http(peer) => Requester::Http { peer },
                RequesterForm::Token { name, peer } => Requester::Token { name: parse(&name)?, peer },
                RequesterForm::Reload => Requester::Reload,
                RequesterForm::Daemon => Requester::Daemon,
            },
            requested_at: time(self.requested_at),
            ended_at: self.ended_at.map(time),
            steps: form.steps.into_iter().map(step).collect::<Result<_, StoreError>>()?,
            error: form.error,
        })
    }
}

/// The command of a stored [`CommandForm`].
fn command_of(text: &str) -> Result<Command, StoreError> {
    let grace = |ms: Option<u64>| ms.map(Duration::from_millis);
    Ok(match from_json::<CommandForm>(text)? {
        CommandForm::Launch { api, document } => Command::Launch { spec: meant(api, *document)? },
        CommandForm::Update { api, document } => Command::Update { spec: meant(api, *document)? },
        CommandForm::Delete => Command::Delete,
        CommandForm::Scale { agent, replicas } => Command::Scale { agent: parse(&agent)?, replicas },
        CommandForm::Restart { rolling, grace_ms, reason } => {
            let mode = if rolling { RestartMode::Rolling } else { RestartMode::All };
            Command::Restart { mode, grace: grace(grace_ms), reason }
        }
        CommandForm::Stop { grace_ms, reason } => Command::Stop { grace: grace(grace_ms), reason },
        CommandForm::Start => Command::Start,
        CommandForm::Pause => Command::Pause,
        CommandForm::Resume => Command::Resume,
    })
}

/// A document lies in an operation as it lies beside its swarm.
fn shown(spec: &SwarmSpec) -> Box<SwarmDocument> {
    Box::new(document(spec))
}

fn meant(api: bool, document: SwarmDocument) -> Result<Arc<SwarmSpec>, StoreError> {
    let origin = if api { Origin::Api } else { Origin::Config };
    document.into_spec(origin).map(Arc::new).map_err(|error| StoreError::Corrupt(error.to_string()))
}

fn is_api(spec: &SwarmSpec) -> bool {
    spec.origin == Origin::Api
}

/// The stored word of an operation's state.
pub(super) fn state_word(state: OperationState) -> &'static str {
    match state {
        OperationState::Accepted => "accepted",
        OperationState::Running => "running",
        OperationState::Succeeded => "succeeded",
        OperationState::Failed => "failed",
        OperationState::Cancelled => "cancelled",
    }
}

fn state_of(word: &str) -> Result<OperationState, StoreError> {
    Ok(match word {
        "accepted" => OperationState::Accepted,
        "running" => OperationState::Running,
        "succeeded" => OperationState::Succeeded,
        "failed" => OperationState::Failed,
        "cancelled" => OperationState::Cancelled,
        other => return Err(StoreError::Corrupt(format!("operation state {other:?}"))),
    })
}

#[cfg(test)]
#[path = "forms_tests.rs"]
mod tests;
