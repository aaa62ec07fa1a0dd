//! What folding has changed.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::model::{
    AgentHealth, AgentId, AgentState, BreakerState, HiveId, Level, Reason, SourceName, SwarmHealth, SwarmName,
};

/// What does not change while a daemon lives.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Which hive.
    pub hive: HiveId,
    /// Its name for people.
    pub name: String,
    /// How often launchers take readings.
    pub sample_interval: Duration,
}

/// What folding has changed.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// An agent's state, incarnation, last exit or another derived value.
    Agent {
        /// The state before; `None` when the agent is new.
        from: Option<AgentState>,
        /// The document after.
        agent: Arc<AgentHealth>,
    },
    /// Measured values and nothing else.
    Samples(Vec<Arc<AgentHealth>>),
    /// A swarm's level, reasons or desired state.
    Swarm {
        /// The level before; `None` when the swarm is new.
        from: Option<Level>,
        /// The document after.
        swarm: Arc<SwarmHealth>,
    },
    /// An agent is gone.
    AgentRemoved(AgentId),
    /// A swarm is gone; its agents were told before.
    SwarmRemoved(SwarmName),
    /// The hive's level, its reasons or one of its planes.
    Hive {
        /// The level before.
        from: Level,
        /// The level after.
        to: Level,
        /// Why.
        reasons: Vec<Reason>,
    },
    /// A source's breaker has opened, or closed again, or other agents are in its list.
    Source {
        /// Which.
        source: SourceName,
        /// The breaker as it was told last; `None` when the source is new.
        from: Option<BreakerState>,
        /// The breaker after.
        to: BreakerState,
        /// Why it is not as it should be.
        reasons: Vec<Reason>,
        /// Agents that its server lists now.
        agents: usize,
        /// Some of those that were not in the list before.
        appeared: Vec<Arc<str>>,
        /// Some of those that are no longer in it.
        gone: Vec<Arc<str>>,
    },
    /// An agent's own event.
    Said {
        /// Who.
        agent: AgentId,
        /// In which incarnation.
        incarnation: u64,
        /// When.
        at: SystemTime,
        /// Its kind.
        kind: Arc<str>,
        /// JSON text.
        data: Arc<str>,
    },
    /// An agent has become stuck and its document asks for a restart then.
    Stuck {
        /// Which.
        agent: AgentId,
        /// In which incarnation.
        incarnation: u64,
    },
}
