//! Tests of the fold and of the actor around it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod actor;
mod agents;
mod clocks;
mod groups;
mod levels;
mod properties;
mod reasons;
mod silence;
mod sources;
mod telemetry;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use hivekeeper_actors::{Backoff, EventKind, ExitReason, OnExceeded, RestartType, Strategy, SupervisionEvent};
use uuid::Uuid;

use super::{AgentSeed, Change, Fold, Identity, Now, Report};
use crate::model::Observation;
use crate::model::{
    AgentHealth, AgentId, AgentSpec, Desired, ExitCause, ExitRecord, HiveId, Home, OnStuck, Origin, Ready, SwarmHealth,
    SwarmSpec, Telemetry, TelemetryKind,
};

pub(super) const SAMPLE_INTERVAL: Duration = Duration::from_secs(2);
pub(super) const HEARTBEAT: Duration = Duration::from_secs(15);
pub(super) const PROGRESS: Duration = Duration::from_secs(60);

pub(super) fn identity() -> Identity {
    Identity { hive: HiveId(Uuid::nil()), name: "home".to_owned(), sample_interval: SAMPLE_INTERVAL }
}

pub(super) fn id(text: &str) -> AgentId {
    text.parse().unwrap()
}

pub(super) fn agent_spec(name: &str) -> AgentSpec {
    AgentSpec {
        name: name.parse().unwrap(),
        replicas: None,
        command: vec!["true".to_owned()],
        env: BTreeMap::new(),
        restart: RestartType::Permanent,
        ready: Ready::Process,
        start_timeout: Duration::from_secs(30),
        heartbeat_timeout: HEARTBEAT,
        progress_timeout: Duration::ZERO,
        on_stuck: OnStuck::Report,
        stop_grace: Duration::from_secs(10),
        lease: Duration::from_secs(30),
    }
}

pub(super) fn swarm_spec(name: &str, agents: Vec<AgentSpec>) -> Arc<SwarmSpec> {
    Arc::new(SwarmSpec {
        name: name.parse().unwrap(),
        origin: Origin::Config,
        home: Home::Process { workdir: None },
        strategy: Strategy::OneForOne,
        intensity: 5,
        period: Duration::from_secs(60),
        on_exceeded: OnExceeded::Fail,
        backoff: Backoff::default(),
        env: BTreeMap::new(),
        agents: agents.into_iter().map(Arc::new).collect(),
    })
}

pub(super) fn exit_record(incarnation: u64, code: i32) -> Arc<ExitRecord> {
    Arc::new(ExitRecord {
        incarnation,
        code: Some(code),
        signal: None,
        oom: None,
        at: SystemTime::UNIX_EPOCH,
        cause: ExitCause::Exited,
        last_lines: vec!["bye".to_owned()],
    })
}

/// A fold with a clock of its own.
pub(super) struct Bench {
    pub(super) fold: Fold,
    pub(super) now: Now,
    pub(super) restarts: u64,
    pub(super) in_window: u32,
}

impl Bench {
    pub(super) fn new() -> Self {
        let now = Now { wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000), mono: Instant::now() };
        let mut bench = Self { fold: Fold::new(identity(), now), now, restarts: 0, in_window: 0 };
        bench.apply(Report::DataPlane { listening: true, sessions: 0, connections: 0, turned_away: 0 });
        bench.apply(Report::Reconciled);
        bench.tick();
        bench
    }

    /// One swarm `review` whose agents run.
    pub(super) fn running(agents: Vec<AgentSpec>) -> Self {
        let mut bench = Self::new();
        let names: Vec<AgentId> = agents.iter().map(|agent| id(&format!("review/{}", agent.name))).collect();
        bench.declare(agents, Desired::Running);
        for name in &names {
            bench.start(name, 1);
        }
        bench.tick();
        bench
    }

    pub(super) fn declare(&mut self, agents: Vec<AgentSpec>, desired: Desired) -> Vec<Change> {
        self.apply(Report::Declared { spec: swarm_spec("review", agents), desired, seeds: Vec::new() })
    }

    pub(super) fn declare_seeded(&mut self, agent: AgentSpec, seed: AgentSeed) {
        let seeds = vec![(id(&format!("review/{}", agent.name)), seed)];
        self.apply(Report::Declared { spec: swarm_spec("review", vec![agent]), desired: Desired::Running, seeds });
    }

    pub(super) fn apply(&mut self, report: Report) -> Vec<Change> {
        self.fold.apply(self.now, report)
    }

    pub(super) fn tick(&mut self) -> Vec<Change> {
        self.fold.tick(self.now)
    }

    /// Lets time pass as the actor would: a tick whenever one is due.
    pub(super) fn pass(&mut self, time: Duration) -> Vec<Change> {
        let end = self.now.mono + time;
        let mut changes = Vec::new();
        loop {
            let due = self.fold.next_deadline().max(self.now.mono).min(end);
            self.now.wall += due - self.now.mono;
            self.now.mono = due;
            changes.extend(self.tick());
            if due == end {
                return changes;
            }
        }
    }

    pub(super) fn supervise(&mut self, agent: &AgentId, incarnation: u64, kind: EventKind) -> Vec<Change> {
        let event = SupervisionEvent {
            path: Arc::from(format!("root/swarms/{agent}")),
            id: agent.name.as_str().into(),
            incarnation,
            restarts: self.restarts,
            restarts_in_window: self.in_window,
            kind,
        };
        self.apply(Report::Supervision { agent: agent.clone(), event })
    }

    pub(super) fn saw(&mut self, agent: &AgentId, incarnation: u64, event: Observation) -> Vec<Change> {
        self.apply(Report::Runtime { agent: agent.clone(), incarnation, event })
    }

    pub(super) fn sample(&mut self, agent: &AgentId, incarnation: u64) -> Vec<Change> {
        let event = Observation::Sample { at: self.now.wall, cpu_cores: Some(0.5), memory_bytes: 1024, processes: 1 };
        self.saw(agent, incarnation, event)
    }

    pub(super) fn says(&mut self, agent: &AgentId, incarnation: u64, kind: TelemetryKind) -> Vec<Change> {
        let at = self.now.wall;
        self.apply(Report::Telemetry(vec![Telemetry { agent: agent.clone(), incarnation, at, kind }]))
    }

    pub(super) fn beat(&mut self, agent: &AgentId, incarnation: u64, progress: Option<&str>) -> Vec<Change> {
        self.says(agent, incarnation, TelemetryKind::Heartbeat { progress: progress.map(Arc::from), busy: None })
    }

    pub(super) fn start(&mut self, agent: &AgentId, incarnation: u64) {
        self.supervise(agent, incarnation, EventKind::Starting { attempt: 0 });
        self.saw(agent, incarnation, Observation::Alive { pid: 4711, at: self.now.wall });
        self.supervise(agent, incarnation, EventKind::Started { took: Duration::from_millis(5) });
    }

    pub(super) fn crash(&mut self, agent: &AgentId, incarnation: u64, code: i32) {
        self.saw(agent, incarnation, Observation::Exited(exit_record(incarnation, code)));
        let reason = ExitReason::Error(Arc::from("the agent's process ended"));
        self.supervise(agent, incarnation, EventKind::Exited { reason });
    }

    pub(super) fn agent(&self, agent: &AgentId) -> Arc<AgentHealth> {
        self.fold.hive().agents.into_iter().find(|doc| doc.id == *agent).expect("a known agent")
    }

    /// As it was derived last; what is told of it may lag behind.
    pub(super) fn swarm(&self) -> Arc<SwarmHealth> {
        Arc::clone(&self.fold.swarms.values().next().expect("a swarm").doc)
    }
}

pub(super) fn codes(reasons: &[crate::model::Reason]) -> Vec<&'static str> {
    reasons.iter().map(|reason| reason.code).collect()
}
