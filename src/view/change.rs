//! What a new document does to agents.

use serde::Serialize;

use crate::model::AgentId;

/// What becomes of one agent.
#[derive(Debug, Clone, Serialize)]
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
