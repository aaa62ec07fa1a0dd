//! Health as a document: what was measured, when and by whom, or why it is not known.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use super::{
    container::Place,
    exit::ExitRecord,
    ids::{AgentId, AgentName, HiveId, SwarmName},
    source::SourceHealth,
    spec::{Home, RuntimeKind},
    telemetry::{Lost, Usage},
};

/// Who measured a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The agent said so itself.
    Agent,
    /// Its launcher saw it from outside.
    Launcher,
    /// The daemon measured it.
    Daemon,
    /// An MCP server claims it.
    Mcp,
}

/// Why a value is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// Nothing was observed in this incarnation.
    NeverObserved,
    /// The last observation is too old to stand for now.
    Stale,
    /// The runtime has no way to measure it.
    Unsupported,
}

/// A measured quantity, or the reason why there is none. Memory in bytes, CPU in cores.
#[derive(Debug, Clone, PartialEq)]
pub enum Measured<T> {
    /// It was measured.
    Value {
        /// The quantity.
        value: T,
        /// When it was measured.
        observed_at: SystemTime,
        /// By whom.
        source: Source,
    },
    /// It was not.
    Absent(Absent),
}

impl<T> Measured<T> {
    /// The value without its circumstances.
    pub fn value(&self) -> Option<&T> {
        match self {
            Self::Value { value, .. } => Some(value),
            Self::Absent(_) => None,
        }
    }
}

/// A stable code and, where it helps, a detail for people. `agent_failed: coder-2 gave up after 6 exits in 60 s`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// Stable, `snake_case`.
    pub code: &'static str,
    /// For people.
    pub detail: String,
}

/// The state of an agent, see the SPEC's state line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AgentState {
    /// Waits for its turn, or for a runtime.
    Pending,
    /// Launched; no sign of life yet.
    Starting,
    /// Lives.
    Running,
    /// Lives, heartbeats overdue.
    Degraded,
    /// Lives, no progress past its deadline.
    Stuck,
    /// Frozen by an operator.
    Paused,
    /// The runtime can't be reached; nothing can be said.
    Unknown,
    /// Was asked to end.
    Stopping,
    /// Ended on an operator's word.
    Stopped,
    /// Ended normally and is not to be restarted.
    Completed,
    /// Ended; its restart waits for the back-off.
    BackingOff,
    /// Gave up, or ended abnormally and is not to be restarted.
    Failed,
}

/// What the operator wants of an agent or a swarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Desired {
    /// It should run.
    Running,
    /// It should be frozen.
    Paused,
    /// It should not run.
    Stopped,
}

/// How a swarm or the hive is, each with the reasons that it follows from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Everything that should run, runs.
    Healthy,
    /// Something is not as it should be, and the hive copes.
    Degraded,
    /// Nothing can be said.
    Unknown,
    /// Something that should run does not, and nothing will bring it back by itself.
    Critical,
}

/// The document of one agent.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentHealth {
    /// `SWARM/NAME`.
    pub id: AgentId,
    /// Its state, derived.
    pub state: AgentState,
    /// Since when it is in this state.
    pub since: SystemTime,
    /// Why it is in this state; empty when it is `running`.
    pub reasons: Vec<Reason>,
    /// What the operator wants.
    pub desired: Desired,
    /// The nth start; 0 before the first.
    pub incarnation: u64,
    /// Process id as its runtime sees it, while it lives.
    pub pid: Option<u32>,
    /// Automatic restarts since the agent was made.
    pub restarts: u64,
    /// Automatic restarts within the sliding window.
    pub restarts_in_window: u32,
    /// When the next start is due, while it backs off or waits out `retry_after`.
    pub retry_at: Option<SystemTime>,
    /// How the last incarnation ended.
    pub last_exit: Option<Arc<ExitRecord>>,
    /// Cores in use by its process tree.
    pub cpu: Measured<f64>,
    /// Summed resident memory of its process tree, bytes.
    pub memory: Measured<u64>,
    /// The last heartbeat: its own once it has a session, else the launcher's ("the process lives", no more).
    pub last_heartbeat: Measured<SystemTime>,
    /// What it last said of its progress, as JSON text.
    pub progress: Measured<Arc<str>>,
    /// Samples and log records that were dropped on their way, over all incarnations of this daemon's life: the sum of `telemetry.dropped`.
    pub dropped: u64,
    /// What its models were used for, summed over all incarnations, those of earlier daemons included. What was used stays used: it is never stale.
    pub usage: Measured<Usage>,
    /// The model that it last said it works with.
    pub model: Measured<Arc<str>>,
    /// Milliseconds by which its last heartbeat came later than announced, counted from the one before; 0 when it was in time. Only its own
    /// heartbeats count, from the second of a session on; stale once the next one is overdue.
    pub heartbeat_latency_ms: Measured<u64>,
    /// What came in from it.
    pub telemetry: TelemetryHealth,
}

impl AgentHealth {
    /// The document of an agent of which nothing is known yet.
    pub fn unknown(id: AgentId, since: SystemTime) -> Self {
        Self {
            id,
            state: AgentState::Pending,
            since,
            reasons: Vec::new(),
            desired: Desired::Running,
            incarnation: 0,
            pid: None,
            restarts: 0,
            restarts_in_window: 0,
            retry_at: None,
            last_exit: None,
            cpu: Measured::Absent(Absent::NeverObserved),
            memory: Measured::Absent(Absent::NeverObserved),
            last_heartbeat: Measured::Absent(Absent::NeverObserved),
            progress: Measured::Absent(Absent::NeverObserved),
            dropped: 0,
            usage: Measured::Absent(Absent::NeverObserved),
            model: Measured::Absent(Absent::NeverObserved),
            heartbeat_latency_ms: Measured::Absent(Absent::NeverObserved),
            telemetry: TelemetryHealth::default(),
        }
    }
}

/// What came in from one agent since this daemon started, over all its incarnations.
#[derive(Debug, Clone, PartialEq)]
pub struct TelemetryHealth {
    /// Its messages that were read, what was dropped of them included, be it because they came too fast, and what was
    /// heard behind the end of its incarnation. Those that were refused for anything else are not.
    pub received: u64,
    /// What was dropped on its way, by class; lines of output that its launcher had no room for are among the logs.
    pub dropped: Lost,
    /// Milliseconds from the reading of a message to its folding: the longest of those that were folded together last.
    pub latency_ms: Measured<f64>,
}

impl Default for TelemetryHealth {
    fn default() -> Self {
        Self { received: 0, dropped: Lost::default(), latency_ms: Measured::Absent(Absent::NeverObserved) }
    }
}

/// The document of one swarm.
#[derive(Debug, Clone, PartialEq)]
pub struct SwarmHealth {
    /// Its name.
    pub name: SwarmName,
    /// How it is.
    pub level: Level,
    /// Since when.
    pub since: SystemTime,
    /// Why.
    pub reasons: Vec<Reason>,
    /// What the operator wants.
    pub desired: Desired,
    /// Where it runs.
    pub home: HomeHealth,
    /// Its agents in start order.
    pub agents: Vec<AgentName>,
}

/// Where a swarm runs and how far it is shut in there. Nothing of it is measured, and nothing of it makes a swarm worse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HomeHealth {
    /// What runs its commands.
    pub runtime: RuntimeKind,
    /// Its container; `None` without one.
    pub place: Option<Place>,
    /// In what it is less shut in than by default, a few words each: [`Home::relaxations`].
    pub relaxations: Vec<String>,
    /// What the engine can't give as the document asks for it and what is given instead, a few words each.
    pub adjustments: Vec<String>,
}

impl HomeHealth {
    /// As the document has it.
    pub fn of(home: &Home) -> Self {
        let place = match home {
            Home::Process { .. } => None,
            Home::Docker(spec) => Some(spec.place.clone()),
        };
        Self { runtime: home.kind(), place, relaxations: home.relaxations(), adjustments: Vec::new() }
    }
}

/// Whether the runtime and the journal can be worked with.
#[derive(Debug, Clone, PartialEq)]
pub struct ControlPlaneHealth {
    /// Whether the last use of the runtime and the journal went well.
    pub reachable: bool,
    /// Since when.
    pub since: SystemTime,
    /// What the last failure was.
    pub last_error: Option<String>,
}

/// What comes in from agents.
#[derive(Debug, Clone, PartialEq)]
pub struct DataPlaneHealth {
    /// Whether its listener is bound.
    pub listening: bool,
    /// Open sessions now.
    pub sessions: u64,
    /// Telemetry messages a second over the last second that was measured.
    pub events_per_second: Measured<f64>,
    /// Samples and log records dropped since this daemon started.
    pub dropped: u64,
    /// Messages refused by a code since this daemon started.
    pub refused: u64,
    /// Telemetry messages a second over the last minute; not observed before one has passed.
    pub events_per_second_1m: Measured<f64>,
    /// Telemetry messages a second over the last five minutes; not observed before they have passed.
    pub events_per_second_5m: Measured<f64>,
    /// Connections now, with and without a session.
    pub connections: u64,
    /// Connections that found no place since this daemon started.
    pub turned_away: u64,
    /// `refused` by code; codes that never occurred are not listed.
    pub refused_by_code: BTreeMap<i64, u64>,
    /// `dropped` by class.
    pub dropped_by_class: Lost,
}

impl DataPlaneHealth {
    /// Nothing is known of it yet.
    pub fn unknown() -> Self {
        Self {
            listening: false,
            sessions: 0,
            events_per_second: Measured::Absent(Absent::NeverObserved),
            dropped: 0,
            refused: 0,
            events_per_second_1m: Measured::Absent(Absent::NeverObserved),
            events_per_second_5m: Measured::Absent(Absent::NeverObserved),
            connections: 0,
            turned_away: 0,
            refused_by_code: BTreeMap::new(),
            dropped_by_class: Lost::default(),
        }
    }
}

/// The whole document.
#[derive(Debug, Clone, PartialEq)]
pub struct HiveHealth {
    /// Which hive.
    pub hive: HiveId,
    /// Its name for people.
    pub name: String,
    /// How it is: the worst of its parts.
    pub level: Level,
    /// Since when.
    pub since: SystemTime,
    /// Why.
    pub reasons: Vec<Reason>,
    /// The runtime's side.
    pub control_plane: ControlPlaneHealth,
    /// The telemetry's side.
    pub data_plane: DataPlaneHealth,
    /// By name.
    pub swarms: Vec<Arc<SwarmHealth>>,
    /// By swarm, then in start order.
    pub agents: Vec<Arc<AgentHealth>>,
    /// MCP servers that are polled, by name.
    pub sources: Vec<Arc<SourceHealth>>,
    /// What the data directory takes.
    pub disk: DiskHealth,
}

/// What the data directory takes of the disk.
#[derive(Debug, Clone, PartialEq)]
pub struct DiskHealth {
    /// What was found at the last look.
    pub found: Measured<DiskUse>,
    /// What all parts may take together, in bytes; `None` before the first look.
    pub max: Option<u64>,
}

impl DiskHealth {
    /// Before the first look.
    pub fn unknown() -> Self {
        Self { found: Measured::Absent(Absent::NeverObserved), max: None }
    }
}

/// What is on the disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskUse {
    /// Database of the journal and its write-ahead log.
    pub journal: u64,
    /// Database of the history and its write-ahead log.
    pub history: u64,
    /// All segments of the log books.
    pub logs: u64,
    /// What the file system has left for us.
    pub free: u64,
}
