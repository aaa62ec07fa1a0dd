//! The one JSON form of the model, for every edge, the journal's payloads and the CLI: `snake_case`, times RFC 3339 UTC with milliseconds,
//! measured values with their circumstances. The model's own types know nothing of it.

pub mod change;
pub mod document;
mod draft;
mod environment;
pub mod event;
pub mod finding;
mod health;
mod home;
mod notifier;
mod number;
pub mod operation;
mod problem;
pub mod schema;
mod size;
mod source;
pub mod time;
mod token;
pub mod tree;
pub mod words;
pub mod work;

pub use change::AgentChangeView;
pub use document::{AgentDocument, DocumentError, SwarmDocument, document, document_tag};
pub use draft::SwarmDraft;
pub use environment::{EnvValueDocument, SecretDocument, document as environment};
pub use event::{EventView, event, event_kinds, stored_event};
pub use finding::{FindingsView, findings};
pub use health::{
    AgentView, ControlPlaneView, DataPlaneView, DiskView, ExitView, HiveView, LostView, MeasuredView, ReasonView,
    SwarmView, TelemetryView, UsageView, agent, control_plane, data_plane, exit, hive, swarm,
};
pub use notifier::{NotifierView, notifier};
pub use number::whole;
pub use operation::{OperationView, StepView, operation};
pub use problem::{Mistake, PROBLEM_JSON, PROBLEMS_PATH, ProblemView, problem};
pub use size::SizeText;
pub use source::{SourceAgentView, SourceView, ToolView};
pub use time::{DurationText, Rfc3339, parse_rfc3339};
pub use token::{TokenView, token};
pub use tree::{LastExitView, TreeView, tree};

#[cfg(test)]
pub(crate) mod tests;
