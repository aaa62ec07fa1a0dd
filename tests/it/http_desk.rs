//! A scripted control plane with health documents to match.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use hivekeeper::{
    control_plane::{
        Check, Control, ControlError, FileChange, HistoryPage, HistoryQuery, LogLine, LogPage, LogQuery,
        OperationQuery, Point, ReloadError, Request, Resolution, Spread, StoredEvent, SwarmChange, SwarmEntry, Tokens,
        UpdatePlan, desk::BoxFuture,
    },
    http::{DocumentReader, HealthReader, MetricsReader, Readings, Reloaded, Reloader},
    model::{
        AgentHealth, AgentId, AgentName, AgentState, ControlPlaneHealth, DataPlaneHealth, Desired, DiskHealth, Epoch,
        EventKind, Fate, Finding, FindingKind, HiveHealth, HiveId, Home, HomeHealth, Level, Operation, OperationId,
        OperationState, Origin, Seq, SwarmHealth, SwarmName, SwarmSpec,
    },
    tools::House,
    view::{Mistake, SwarmDocument},
};
use hivekeeper_actors::TreeNode;
use parking_lot::Mutex;
use tokio::sync::watch;

pub(crate) fn at(ms: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_233_900_000 + ms)
}

pub(crate) fn agent_health(id: &str) -> AgentHealth {
    AgentHealth {
        state: AgentState::Running,
        incarnation: 1,
        pid: Some(4711),
        ..AgentHealth::unknown(id.parse().unwrap(), at(0))
    }
}

pub(crate) fn said(text: &str) -> EventKind {
    EventKind::AgentSaid {
        agent: "review/coder".parse().unwrap(),
        incarnation: 1,
        kind: Arc::from("note"),
        data: Arc::from(serde_json::to_string(text).unwrap()),
    }
}

pub(crate) fn stored(seq: u64) -> StoredEvent {
    StoredEvent {
        seq: Seq(seq),
        epoch: Epoch(7),
        at: at(seq),
        kind: "agent_said".to_owned(),
        subject: "review/coder".to_owned(),
        body: Arc::from(format!(r#"{{"seq":{seq},"kind":"agent_said","stored":true}}"#)),
    }
}

pub(crate) fn line(number: u64) -> LogLine {
    LogLine {
        number,
        incarnation: 1,
        seq: Some(number),
        at: at(number),
        stream: "stdout",
        level: None,
        partial: false,
        text: format!("line {number}"),
    }
}

fn review() -> SwarmSpec {
    let text = r#"{
        "name": "review", "runtime": "process", "strategy": "one_for_one", "intensity": 5, "period": "60s",
        "on_exceeded": { "retry_after": "10m" },
        "backoff": { "initial": "0s", "then": "1s", "factor": 2.0, "max": "60s", "jitter": 0.25, "reset_after": "10m" },
        "agent": [{
            "name": "coder", "command": ["sleep", "60"], "restart": "permanent", "ready": "process", "start_timeout": "30s",
            "heartbeat_timeout": "15s", "progress_timeout": "0s", "on_stuck": "report", "stop_grace": "10s", "lease": "30s"
        }]
    }"#;
    serde_json::from_str::<SwarmDocument>(text).unwrap().into_spec(Origin::Config).unwrap()
}

/// A control plane whose answers a test sets and whose orders it reads.
pub(crate) struct Desk {
    pub(crate) requests: Mutex<Vec<Request>>,
    pub(crate) refusal: Mutex<Option<ControlError>>,
    pub(crate) operations: Mutex<BTreeMap<OperationId, Operation>>,
    pub(crate) ended: watch::Sender<bool>,
    /// Whether orders are answered with an operation that ended before, as for a key that was used.
    pub(crate) replays: Mutex<bool>,
    pub(crate) waits: Mutex<Vec<Duration>>,
    pub(crate) checks: Mutex<Vec<Check>>,
    pub(crate) journal: Mutex<Result<Vec<StoredEvent>, ControlError>>,
    pub(crate) lines: Mutex<Vec<LogLine>>,
    pub(crate) growth: Mutex<Option<watch::Sender<u64>>>,
    pub(crate) level: Mutex<Level>,
    pub(crate) tree: Mutex<Option<TreeNode>>,
}

impl Desk {
    pub(crate) fn new() -> Self {
        Self {
            requests: Mutex::default(),
            refusal: Mutex::default(),
            operations: Mutex::default(),
            ended: watch::channel(false).0,
            replays: Mutex::default(),
            waits: Mutex::default(),
            checks: Mutex::new(vec![Check { name: "journal", ok: true, detail: String::new() }]),
            journal: Mutex::new(Ok(vec![])),
            lines: Mutex::default(),
            growth: Mutex::new(Some(watch::channel(0).0)),
            level: Mutex::new(Level::Healthy),
            tree: Mutex::default(),
        }
    }

    pub(crate) fn write_line(&self, number: u64) {
        self.lines.lock().push(line(number));
        if let Some(growth) = &*self.growth.lock() {
            growth.send_replace(number);
        }
    }

    fn entry(&self) -> SwarmEntry {
        SwarmEntry { spec: Arc::new(review()), desired: Desired::Running, since: at(0) }
    }

    fn state(&self) -> OperationState {
        if *self.ended.borrow() { OperationState::Succeeded } else { OperationState::Running }
    }

    fn find(&self, id: OperationId) -> Result<Operation, ControlError> {
        let found = self.operations.lock().get(&id).cloned();
        let operation = found.ok_or_else(|| ControlError::NotFound { what: format!("operation {id}") })?;
        Ok(Operation { state: self.state(), ..operation })
    }
}

impl DocumentReader for Desk {
    fn read(&self, _: &serde_json::Value) -> Result<SwarmSpec, Vec<Mistake>> {
        Ok(SwarmSpec { origin: Origin::Api, ..review() })
    }
}

impl Reloader for Desk {
    fn reload(&self, dry_run: bool) -> BoxFuture<'_, Result<Reloaded, ReloadError>> {
        Box::pin(async move {
            let operation = (!dry_run).then(OperationId::mint);
            let (swarm, change) = (review().name, FileChange::Remove);
            let change = SwarmChange { swarm, change, agents: Vec::new(), operation };
            Ok(Reloaded { file: Some("/etc/h.toml".into()), changes: vec![change], needs_restart: vec!["http.bind"] })
        })
    }
}

impl Control for Desk {
    fn submit(&self, request: Request) -> BoxFuture<'_, Result<Operation, ControlError>> {
        Box::pin(async move {
            if let Some(refusal) = self.refusal.lock().clone() {
                return Err(refusal);
            }
            let operation = Operation {
                id: OperationId::mint(),
                command: request.command.clone(),
                target: request.target.clone(),
                state: if *self.replays.lock() { OperationState::Succeeded } else { OperationState::Accepted },
                requested_by: request.requested_by.clone(),
                requested_at: at(0),
                ended_at: None,
                steps: vec![],
                error: None,
            };
            self.requests.lock().push(request);
            self.operations.lock().insert(operation.id, operation.clone());
            Ok(operation)
        })
    }

    fn wait(&self, id: OperationId, timeout: Duration) -> BoxFuture<'_, Result<Operation, ControlError>> {
        Box::pin(async move {
            self.waits.lock().push(timeout);
            let mut ended = self.ended.subscribe();
            let _ = tokio::time::timeout(timeout, ended.wait_for(|ended| *ended)).await;
            self.find(id)
        })
    }

    fn plan_update(&self, spec: Arc<SwarmSpec>, _: Option<String>) -> Result<UpdatePlan, ControlError> {
        Ok(UpdatePlan { swarm: spec.name.clone(), agents: Vec::new() })
    }

    fn cancel(&self, id: OperationId) -> BoxFuture<'_, Result<Operation, ControlError>> {
        Box::pin(async move { self.find(id) })
    }

    fn operation(&self, id: OperationId) -> BoxFuture<'_, Result<Operation, ControlError>> {
        Box::pin(async move { self.find(id) })
    }

    fn operations(&self, query: OperationQuery) -> BoxFuture<'_, Result<Vec<Operation>, ControlError>> {
        let OperationQuery { before, swarm, state, limit } = query;
        let fits = |operation: &&Operation| {
            before.is_none_or(|before| operation.id < before)
                && swarm.as_ref().is_none_or(|swarm| operation.target.swarm() == swarm)
                && state.is_none_or(|state| operation.state == state)
        };
        let all = self.operations.lock().values().rev().filter(fits).take(limit).cloned().collect();
        Box::pin(async move { Ok(all) })
    }

    fn swarms(&self) -> Vec<SwarmEntry> {
        vec![self.entry()]
    }

    fn swarm(&self, name: &SwarmName) -> Option<SwarmEntry> {
        (name.as_str() == "review").then(|| self.entry())
    }

    fn tree(&self) -> BoxFuture<'_, Result<TreeNode, ControlError>> {
        let felled = || ControlError::Unavailable { why: "the tree is being felled".to_owned() };
        let tree = self.tree.lock().clone().ok_or_else(felled);
        Box::pin(async move { tree })
    }

    fn events(&self, after: Seq, limit: usize) -> BoxFuture<'_, Result<Vec<StoredEvent>, ControlError>> {
        let journal = self.journal.lock().clone();
        Box::pin(async move { Ok(journal?.into_iter().filter(|event| event.seq > after).take(limit).collect()) })
    }

    fn logs(&self, agent: AgentId, query: LogQuery) -> BoxFuture<'_, Result<LogPage, ControlError>> {
        Box::pin(async move {
            if agent.name.as_str() != "coder" {
                return Err(ControlError::NotFound { what: format!("agent {agent}") });
            }
            let all = self.lines.lock().clone();
            let (first_kept, last) =
                (all.first().map_or(0, |line| line.number), all.last().map_or(0, |line| line.number));
            let mut lines: Vec<_> = all
                .into_iter()
                .filter(|line| query.after.is_none_or(|after| line.number > after))
                .filter(|line| query.since.is_none_or(|since| line.at >= since))
                .collect();
            if let Some(tail) = query.tail {
                lines.drain(..lines.len().saturating_sub(tail));
            }
            lines.truncate(query.limit);
            Ok(LogPage { lines, first_kept, last })
        })
    }

    fn log_growth(&self, agent: &AgentId) -> Option<watch::Receiver<u64>> {
        (agent.name.as_str() == "coder").then(|| self.growth.lock().as_ref().map(watch::Sender::subscribe)).flatten()
    }

    fn history(&self, query: HistoryQuery) -> BoxFuture<'_, Result<HistoryPage, ControlError>> {
        let missing = ControlError::NotFound { what: query.of.to_string() };
        let known = query.of.swarm().as_str() == "review";
        let point = Point {
            at: query.since,
            cpu: Some(Spread { mean: 0.25, max: 0.5 }),
            memory: Some(Spread { mean: 1000.4, max: 2000.0 }),
            heartbeat_latency_ms_max: None,
            tokens: Tokens { input: Some(1), output: Some(2) },
            restarts: None,
        };
        let resolution = query.resolution.unwrap_or(Resolution::TenSeconds);
        let page = HistoryPage { resolution, since: query.since, until: query.until, points: vec![point] };
        Box::pin(std::future::ready(if known { Ok(page) } else { Err(missing) }))
    }

    fn reconcile(&self, dry_run: bool) -> BoxFuture<'_, Result<Vec<Finding>, ControlError>> {
        let fate = if dry_run { Fate::Removable } else { Fate::Removed };
        let swarm = Some("old".parse().unwrap());
        let (kind, name, why) = (FindingKind::Container, "left".to_owned(), "no document has its swarm");
        Box::pin(std::future::ready(Ok(vec![Finding { kind, name, swarm, why, fate }])))
    }

    fn readiness(&self) -> Vec<Check> {
        self.checks.lock().clone()
    }
}

impl HealthReader for Desk {
    fn hive(&self) -> Arc<HiveHealth> {
        Arc::new(HiveHealth {
            hive: HiveId::mint(),
            name: "test".to_owned(),
            level: *self.level.lock(),
            since: at(0),
            reasons: vec![],
            control_plane: ControlPlaneHealth { reachable: true, since: at(0), last_error: None },
            data_plane: DataPlaneHealth { listening: true, ..DataPlaneHealth::unknown() },
            swarms: vec![],
            agents: vec![],
            sources: vec![],
            disk: DiskHealth::unknown(),
        })
    }

    fn swarm(&self, name: &SwarmName) -> Option<Arc<SwarmHealth>> {
        (name.as_str() == "review").then(|| {
            Arc::new(SwarmHealth {
                name: name.clone(),
                level: Level::Healthy,
                since: at(0),
                reasons: vec![],
                desired: Desired::Running,
                home: HomeHealth::of(&Home::Process { workdir: None }),
                agents: vec!["coder".parse().unwrap()],
            })
        })
    }

    fn agent(&self, id: &AgentId) -> Option<Arc<AgentHealth>> {
        (id.to_string() == "review/coder").then(|| Arc::new(agent_health("review/coder")))
    }
}

/// The swarm `review` with its one agent, whose third start lives.
impl House for Desk {
    fn agents(&self, swarm: &SwarmName) -> Option<Vec<AgentName>> {
        (swarm.as_str() == "review").then(|| vec!["coder".parse().unwrap()])
    }

    fn lives(&self, _: &AgentId, incarnation: u64) -> bool {
        incarnation == 3
    }

    fn hive(&self) -> Arc<HiveHealth> {
        HealthReader::hive(self)
    }

    fn swarm(&self, name: &SwarmName) -> Option<Arc<SwarmHealth>> {
        HealthReader::swarm(self, name)
    }
}

impl MetricsReader for Desk {
    fn read(&self) -> Readings {
        Readings::default()
    }
}
