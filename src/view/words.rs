//! The closed sets of words, each in one place.

use crate::model::{
    AgentState, BreakerState, Desired, ExitCause, Level, OnStuck, OperationState, Origin, Ready, RestartType,
    RuntimeKind, Source, Strategy, health::Absent,
};

/// The word for an agent's state.
pub fn agent_state(state: AgentState) -> &'static str {
    match state {
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
}

/// The word for what an operator wants.
pub fn desired(desired: Desired) -> &'static str {
    match desired {
        Desired::Running => "running",
        Desired::Paused => "paused",
        Desired::Stopped => "stopped",
    }
}

/// The word for how a swarm or the hive is.
pub fn level(level: Level) -> &'static str {
    match level {
        Level::Healthy => "healthy",
        Level::Degraded => "degraded",
        Level::Unknown => "unknown",
        Level::Critical => "critical",
    }
}

/// The word of health documents (draft-inadarei-api-health-check) for the same.
pub fn status(level: Level) -> &'static str {
    match level {
        Level::Healthy => "pass",
        Level::Degraded => "warn",
        Level::Unknown | Level::Critical => "fail",
    }
}

/// The word for whether a source is called.
pub fn breaker(breaker: BreakerState) -> &'static str {
    match breaker {
        BreakerState::Closed => "closed",
        BreakerState::Open => "open",
        BreakerState::HalfOpen => "half_open",
    }
}

/// The word for who measured.
pub fn source(source: Source) -> &'static str {
    match source {
        Source::Agent => "agent",
        Source::Launcher => "launcher",
        Source::Daemon => "daemon",
        Source::Mcp => "mcp",
    }
}

/// The word for why there is no value.
pub fn absent(absent: Absent) -> &'static str {
    match absent {
        Absent::NeverObserved => "never_observed",
        Absent::Stale => "stale",
        Absent::Unsupported => "unsupported",
    }
}

/// The word for why an incarnation ended.
pub fn exit_cause(cause: &ExitCause) -> &'static str {
    match cause {
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
}

/// The word for where an operation stands.
pub fn operation_state(state: OperationState) -> &'static str {
    match state {
        OperationState::Accepted => "accepted",
        OperationState::Running => "running",
        OperationState::Succeeded => "succeeded",
        OperationState::Failed => "failed",
        OperationState::Cancelled => "cancelled",
    }
}

/// The word for where a swarm's document comes from.
pub fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Config => "config",
        Origin::Api => "api",
    }
}

/// The word for what runs commands.
pub fn runtime(runtime: RuntimeKind) -> &'static str {
    match runtime {
        RuntimeKind::Process => "process",
        RuntimeKind::Docker => "docker",
    }
}

/// OTP's word for who is restarted.
pub fn strategy(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::OneForOne => "one_for_one",
        Strategy::OneForAll => "one_for_all",
        Strategy::RestForOne => "rest_for_one",
        Strategy::SimpleOneForOne => "simple_one_for_one",
    }
}

/// OTP's word for when an agent is restarted.
pub fn restart(restart: RestartType) -> &'static str {
    match restart {
        RestartType::Permanent => "permanent",
        RestartType::Transient => "transient",
        RestartType::Temporary => "temporary",
    }
}

/// The word for what counts as the first sign of life.
pub fn ready(ready: Ready) -> &'static str {
    match ready {
        Ready::Process => "process",
        Ready::Session => "session",
    }
}

/// The word for a stuck agent's fate.
pub fn on_stuck(on_stuck: OnStuck) -> &'static str {
    match on_stuck {
        OnStuck::Report => "report",
        OnStuck::Restart => "restart",
    }
}
