//! The closed sets of words, each in one place.

use std::borrow::Cow;

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr, Schema,
        schema::{ObjectBuilder, Type},
    },
};

use crate::model::{
    AgentState, BreakerState, Desired, ExitCause, Level, OnStuck, OperationState, Origin, Ready, RestartType,
    RuntimeKind, Source, Strategy, health::Absent,
};

/// A set of words: the function that says them, and the schema that lists them, from one table.
macro_rules! words {
    ($(#[doc = $text:literal] $name:ident($from:ty) -> $schema:ident { $($pattern:pat => $word:literal,)+ })+) => {
        $(
            #[doc = $text]
            pub fn $name(from: $from) -> &'static str {
                match from {
                    $($pattern => $word,)+
                }
            }

            #[doc = $text]
            #[derive(Debug)]
            pub struct $schema;

            impl PartialSchema for $schema {
                fn schema() -> RefOr<Schema> {
                    one_of($text.trim(), &[$($word),+])
                }
            }

            impl ToSchema for $schema {
                fn name() -> Cow<'static, str> {
                    Cow::Borrowed(stringify!($schema).trim_end_matches("Word"))
                }
            }
        )+
    };
}

/// The schema of text that is one of some words.
pub fn one_of(text: &str, words: &[&str]) -> RefOr<Schema> {
    let object =
        ObjectBuilder::new().schema_type(Type::String).description(Some(text)).enum_values(Some(words.to_vec()));
    RefOr::T(Schema::Object(object.build()))
}

words! {
    /// The word for an agent's state.
    agent_state(AgentState) -> AgentStateWord {
        AgentState::Pending => "pending",
        AgentState::Starting => "starting",
        AgentState::Running => "running",
        AgentState::Degraded => "degraded",
        AgentState::Stuck => "stuck",
        AgentState::Paused => "paused",
        AgentState::Unknown => "unknown",
        AgentState::Stopping => "stopping",
        AgentState::Stopped => "stopped",
        AgentState::Completed => "completed",
        AgentState::BackingOff => "backing_off",
        AgentState::Failed => "failed",
    }

    /// The word for what an operator wants.
    desired(Desired) -> DesiredWord {
        Desired::Running => "running",
        Desired::Paused => "paused",
        Desired::Stopped => "stopped",
    }

    /// The word for how a swarm or the hive is.
    level(Level) -> LevelWord {
        Level::Healthy => "healthy",
        Level::Degraded => "degraded",
        Level::Unknown => "unknown",
        Level::Critical => "critical",
    }

    /// The word of health documents (draft-inadarei-api-health-check) for the same.
    status(Level) -> StatusWord {
        Level::Healthy => "pass",
        Level::Degraded => "warn",
        Level::Unknown | Level::Critical => "fail",
    }

    /// The word for whether a source is called.
    breaker(BreakerState) -> BreakerWord {
        BreakerState::Closed => "closed",
        BreakerState::Open => "open",
        BreakerState::HalfOpen => "half_open",
    }

    /// The word for who measured.
    source(Source) -> SourceWord {
        Source::Agent => "agent",
        Source::Launcher => "launcher",
        Source::Daemon => "daemon",
        Source::Mcp => "mcp",
    }

    /// The word for why there is no value.
    absent(Absent) -> AbsentWord {
        Absent::NeverObserved => "never_observed",
        Absent::Stale => "stale",
        Absent::Unsupported => "unsupported",
    }

    /// The word for why an incarnation ended.
    exit_cause(&ExitCause) -> ExitCauseWord {
        ExitCause::Exited => "exited",
        ExitCause::Signalled => "signalled",
        ExitCause::Stopped => "stopped",
        ExitCause::LeaseLost => "lease_lost",
        ExitCause::StartFailed { .. } => "start_failed",
        ExitCause::StartTimeout => "start_timeout",
        ExitCause::Stuck => "stuck",
        ExitCause::LauncherLost => "launcher_lost",
        ExitCause::ContainerLost { .. } => "container_lost",
        ExitCause::NeverStarted => "never_started",
    }

    /// The word for where an operation stands.
    operation_state(OperationState) -> OperationStateWord {
        OperationState::Accepted => "accepted",
        OperationState::Running => "running",
        OperationState::Succeeded => "succeeded",
        OperationState::Failed => "failed",
        OperationState::Cancelled => "cancelled",
    }

    /// The word for where a swarm's document comes from.
    origin(Origin) -> OriginWord {
        Origin::Config => "config",
        Origin::Api => "api",
    }

    /// The word for what runs commands.
    runtime(RuntimeKind) -> RuntimeWord {
        RuntimeKind::Process => "process",
        RuntimeKind::Docker => "docker",
    }

    /// OTP's word for who is restarted.
    strategy(Strategy) -> StrategyWord {
        Strategy::OneForOne => "one_for_one",
        Strategy::OneForAll => "one_for_all",
        Strategy::RestForOne => "rest_for_one",
        Strategy::SimpleOneForOne => "simple_one_for_one",
    }

    /// OTP's word for when an agent is restarted.
    restart(RestartType) -> RestartWord {
        RestartType::Permanent => "permanent",
        RestartType::Transient => "transient",
        RestartType::Temporary => "temporary",
    }

    /// The word for what counts as the first sign of life.
    ready(Ready) -> ReadyWord {
        Ready::Process => "process",
        Ready::Session => "session",
    }

    /// The word for a stuck agent's fate.
    on_stuck(OnStuck) -> OnStuckWord {
        OnStuck::Report => "report",
        OnStuck::Restart => "restart",
    }
}
