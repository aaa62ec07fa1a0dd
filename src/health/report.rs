//! What others tell the health room.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use hivekeeper_actors::SupervisionEvent;

use crate::model::{
    AgentId, Desired, DiskUse, ExitRecord, Lost, Observation, SourceReport, Spent, SwarmName, SwarmSpec, Target,
    Telemetry,
};

/// The time twice: the wall's for documents, the monotonic one for deadlines, so that a clock that is set changes no judgement.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For documents.
    pub wall: SystemTime,
    /// For deadlines.
    pub mono: Instant,
}

impl Now {
    /// Reads both clocks.
    pub fn read() -> Self {
        Self { wall: SystemTime::now(), mono: Instant::now() }
    }
}

/// One thing that somebody tells.
#[derive(Debug, Clone)]
pub enum Report {
    /// A swarm is part of the hive from now on, or its document has changed.
    Declared {
        /// Its document.
        spec: Arc<SwarmSpec>,
        /// What the operator wants of it.
        desired: Desired,
        /// What the journal knows of its agents. Only agents that are new to the fold take theirs.
        seeds: Vec<(AgentId, AgentSeed)>,
    },
    /// A swarm is no longer part of the hive.
    Removed(SwarmName),
    /// The operator wants something else.
    Desired {
        /// Of whom. A swarm's word counts for each of its agents.
        target: Target,
        /// What.
        desired: Desired,
    },
    /// What a swarm's engine can't give as its document asks for it, and what it gives instead.
    Adjusted {
        /// Which.
        swarm: SwarmName,
        /// All of it; empty when it gives everything.
        adjustments: Vec<String>,
    },
    /// The supervision tree did something with an agent.
    Supervision {
        /// Which.
        agent: AgentId,
        /// What.
        event: SupervisionEvent,
    },
    /// A swarm has got another supervisor, under which this agent does not run. A supervisor tells nothing of an agent that it leaves as it is.
    Settled {
        /// Which.
        agent: AgentId,
        /// Where it stands.
        standing: Standing,
    },
    /// The runtime saw something of an agent.
    Runtime {
        /// Which.
        agent: AgentId,
        /// In which incarnation.
        incarnation: u64,
        /// What.
        event: Observation,
    },
    /// The data plane read something.
    Telemetry(Vec<Telemetry>),
    /// The data plane has read messages of an agent and let them go before anybody else saw them. They are none of its `Telemetry`.
    Dropped {
        /// Whose.
        agent: AgentId,
        /// Of which incarnation.
        incarnation: u64,
        /// How many, by class.
        lost: Lost,
    },
    /// The data plane refused messages.
    Refused {
        /// The code.
        code: i64,
        /// How many.
        messages: u64,
    },
    /// How the last use of the runtime went.
    ControlPlane {
        /// Whether it went well.
        ok: bool,
        /// What went wrong.
        error: Option<String>,
    },
    /// Whether the engine answers that containers run in. Nobody says so where none is needed.
    Engine {
        /// Whether it does.
        ok: bool,
        /// Why not.
        error: Option<String>,
    },
    /// How the last use of the journal went.
    Journal {
        /// Whether it went well.
        ok: bool,
        /// What went wrong.
        error: Option<String>,
    },
    /// Whether the disk has room, and what is short.
    Disk {
        /// Whether it has.
        ok: bool,
        /// What is short.
        error: Option<String>,
    },
    /// What the data directory takes.
    DiskUsed {
        /// What was found.
        found: DiskUse,
        /// What it may take, in bytes.
        max: u64,
    },
    /// How the last use of the history went.
    History {
        /// Whether it went well.
        ok: bool,
        /// What went wrong.
        error: Option<String>,
    },
    /// Whether those who want to be told can be.
    Notify {
        /// Whether all can.
        ok: bool,
        /// Who can't, and why.
        error: Option<String>,
    },
    /// The data plane's own count.
    DataPlane {
        /// Whether its listener is bound.
        listening: bool,
        /// Open sessions.
        sessions: u64,
        /// Connections, with and without a session.
        connections: u64,
        /// Connections that found no place since this daemon started.
        turned_away: u64,
    },
    /// Where a polled MCP server stands.
    Source(SourceReport),
    /// The first reconcile pass has ended: what should run is known and in hand.
    Reconciled,
}

/// What the journal knows of an agent at boot.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AgentSeed {
    /// The last incarnation that was begun; 0 for none.
    pub incarnation: u64,
    /// Automatic restarts so far.
    pub restarts: u64,
    /// Whether that incarnation may still live, to be taken over: what it says from now on counts.
    pub lives: bool,
    /// Ages of the automatic restarts in its window.
    pub recent: Vec<Duration>,
    /// How the last incarnation that ended did so.
    pub last_exit: Option<Arc<ExitRecord>>,
    /// What it did when the last daemon ended.
    pub standing: Standing,
    /// What it has used so far.
    pub spent: Option<Spent>,
}

/// Where an agent stood when the last daemon ended. The supervision tree tells nothing of an agent that it leaves as it is, so the seed must.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Standing {
    /// To be started or adopted.
    #[default]
    Active,
    /// Its restart waits.
    BackingOff {
        /// Until then.
        retry_at: SystemTime,
    },
    /// It has given up.
    Failed {
        /// Tried again then.
        retry_at: Option<SystemTime>,
    },
    /// It has done its work.
    Completed,
    /// An operator stopped it.
    Stopped,
}
