//! The words of the product as types: identities, swarm specifications, health, commands, events. No IO and no wire names.

mod brief;
pub mod command;
pub mod container;
pub mod event;
pub mod exit;
mod finding;
pub mod health;
pub mod ids;
pub mod notify;
pub mod observation;
pub mod seams;
pub mod secret;
pub mod source;
pub mod spec;
pub mod telemetry;
pub mod token;
pub mod work;

pub use brief::{LockBrief, MessageBrief, TaskBrief};
pub use command::{Command, Operation, OperationState, Requester, RestartMode, Step, Target};
pub use container::{ContainerSpec, Limits, Mount, NetworkSpec, Place};
pub use event::{Audit, Event, EventKind, FREQUENT_KINDS};
pub use exit::{ExitCause, ExitRecord};
pub use finding::{Fate, Finding, FindingKind};
pub use health::{
    AgentHealth, AgentState, ControlPlaneHealth, DataPlaneHealth, Desired, DiskHealth, DiskUse, HiveHealth, HomeHealth,
    Level, Measured, Reason, Source, SwarmHealth, TelemetryHealth,
};
pub use ids::{
    AgentId, AgentName, Epoch, HiveId, InvalidName, LaunchId, LockId, MessageId, NotifierName, OperationId, Seq,
    SourceName, SwarmName, TaskId,
};
pub use notify::{NotifierStatus, NotifySpec, Receiver, Topic, UrlSpec, Webhook};
pub use observation::Observation;
pub use seams::{
    Admission, Drain, DuplexStream, EngineNews, EngineWitness, Refusal, RelaySink, TelemetrySink, Witness,
};
pub use secret::{EnvValue, Environment, SecretRef, SecretRights};
pub use source::{
    BreakerState, SourceAgent, SourceHealth, SourceReport, SourceSpec, SourceWitness, ToolReport, ToolSpec,
};
pub use spec::{
    AgentSpec, Backoff, Home, OnExceeded, OnStuck, Origin, Ready, RestartType, RuntimeKind, Strategy, SwarmSpec,
};
pub use telemetry::{
    LogLevel, LogRecord, LogRecords, Lost, Spent, Telemetry, TelemetryKind, Usage, UsageReport, UsageTally,
};
pub use token::{ApiToken, InvalidTokenId, InvalidTokenName, Scope, TokenId, TokenName};
pub use work::{
    Attempt, AttemptEnd, Claim, Delivery, Fence, Grant, Lock, LockMode, Message, MessageKind, OnDependencyFailure,
    Party, Priority, Retry, SendKey, Settled, Settlement, Task, TaskProgress, TaskSpec, TaskState,
};
