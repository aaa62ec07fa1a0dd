//! What another document means for the agents of a swarm, decided without touching anything. Boot, update, scale and reload ask here.

use std::collections::HashMap;

use crate::model::{AgentId, AgentSpec, SwarmSpec};

/// What becomes of one agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Start,
    /// It runs something else, or elsewhere.
    Replace,
    /// It is not wanted any more.
    Stop,
    /// It goes on; rules of its restarts, deadlines or graces are others from now on.
    Adjust,
    /// Nothing.
    Keep,
}

impl Change {
    /// The word of the API.
    pub fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Replace => "replace",
            Self::Stop => "stop",
            Self::Adjust => "adjust",
            Self::Keep => "keep",
        }
    }
}

/// What becomes of each agent of a swarm when it gets the document `new`: those of the new one in its order, then those that go, in reverse order.
/// Without an `old` one every agent is new.
pub fn changes(old: Option<&SwarmSpec>, new: &SwarmSpec) -> Vec<(AgentId, Change)> {
    let before = old.and_then(|old| old.expand().ok()).unwrap_or_default();
    let known: HashMap<&AgentId, &AgentSpec> = before.iter().map(|(id, agent)| (id, &**agent)).collect();
    let after = new.expand().unwrap_or_default();
    let mut all: Vec<_> = after
        .iter()
        .map(|(id, agent)| {
            let change = match (old, known.get(id)) {
                (Some(old), Some(before)) => of_one(old, before, new, agent),
                _ => Change::Start,
            };
            (id.clone(), change)
        })
        .collect();
    let gone = before.iter().rev().filter(|(id, _)| !after.iter().any(|(kept, _)| kept == id));
    all.extend(gone.map(|(id, _)| (id.clone(), Change::Stop)));
    all
}

fn of_one(old: &SwarmSpec, before: &AgentSpec, new: &SwarmSpec, after: &AgentSpec) -> Change {
    if before.command != after.command || before.env != after.env || old.env != new.env || old.home != new.home {
        return Change::Replace;
    }
    // How many there are of it is no matter of the one.
    let alike = AgentSpec { replicas: after.replicas, ..before.clone() } == *after;
    let rules = |spec: &SwarmSpec| (spec.strategy, spec.intensity, spec.period, spec.on_exceeded, spec.backoff);
    if alike && rules(old) == rules(new) { Change::Keep } else { Change::Adjust }
}
