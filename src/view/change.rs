//! What a new document does to agents.

use serde::Serialize;
use utoipa::ToSchema;

use crate::model::AgentId;

/// What becomes of one agent: `start`, `replace`, `stop`, `adjust` (other rules, the same process) or `keep`.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = AgentChange)]
pub struct AgentChangeView {
    agent: String,
    change: &'static str,
}

impl AgentChangeView {
    /// Shows it; `change` is the plan's word.
    pub fn new(agent: &AgentId, change: &'static str) -> Self {
        Self { agent: agent.name.to_string(), change }
    }
}
