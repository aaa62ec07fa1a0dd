//! The control plane's memory and its desk: what is desired, which operations are under way, where everything is.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use dashmap::DashMap;
use hivekeeper_actors::{ChildRef, SupervisorRef, TreeNode};
use tokio::sync::watch;

use super::{
    controller::{Controller, Execute},
    desk::{BoxFuture, Check, Control, ControlError, Request, SwarmEntry},
    plan::{self, PlannedSwarm},
};
use crate::{
    events::Feed,
    health,
    model::{AgentId, Desired, EventKind, Operation, OperationId, OperationState, Seq, SwarmName, Target},
    runtime::{AgentActor, AgentDeps},
    store::{LogPage, LogQuery, PutOutcome, StoreError, StoredEvent},
};

/// Operations under way at once. An operator's script that piles up more gets a refusal instead of a queue that nobody reads.
const UNDER_WAY_MAX: usize = 256;
/// How long the tree may take to answer; it answers from memory.
const TREE_WAIT: Duration = Duration::from_secs(5);

struct Entry {
    plan: PlannedSwarm,
    since: SystemTime,
    supervisor: Option<SupervisorRef>,
    agents: Vec<ChildRef<AgentActor>>,
}

/// Shared by the desk, the controller and the composition root.
pub struct Office {
    deps: Arc<AgentDeps>,
    health: health::Handle,
    feed: Feed,
    entries: DashMap<SwarmName, Entry>,
    under_way: DashMap<OperationId, watch::Sender<Operation>>,
    root: OnceLock<SupervisorRef>,
    swarms: OnceLock<SupervisorRef>,
    controller: OnceLock<ChildRef<Controller>>,
    reconciled: AtomicBool,
    stopping: AtomicBool,
    checks: Box<dyn Fn() -> Vec<Check> + Send + Sync>,
}

impl Office {
    /// An office without a tree yet. `checks` are the readiness lines of the other rooms.
    pub fn new(
        deps: Arc<AgentDeps>,
        health: health::Handle,
        feed: Feed,
        plans: Vec<(PlannedSwarm, SystemTime)>,
        checks: Box<dyn Fn() -> Vec<Check> + Send + Sync>,
    ) -> Arc<Self> {
        let entries = DashMap::new();
        for (plan, since) in plans {
            let entry = Entry { since, supervisor: None, agents: Vec::new(), plan };
            entries.insert(entry.plan.spec.name.clone(), entry);
        }
        Arc::new(Self {
            deps,
            health,
            feed,
            entries,
            under_way: DashMap::new(),
            root: OnceLock::new(),
            swarms: OnceLock::new(),
            controller: OnceLock::new(),
            reconciled: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            checks,
        })
    }

    /// Told once, when the tree stands.
    pub fn open(&self, root: SupervisorRef, swarms: SupervisorRef, controller: ChildRef<Controller>) {
        // A second call would be the composition root's mistake; the first one holds.
        let _ = self.root.set(root);
        let _ = self.swarms.set(swarms);
        let _ = self.controller.set(controller);
    }

    /// From now on nothing is accepted.
    pub fn close(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Whether the daemon is on its way out.
    pub fn closing(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    pub(super) fn deps(&self) -> &Arc<AgentDeps> {
        &self.deps
    }

    pub(super) fn health(&self) -> &health::Handle {
        &self.health
    }

    pub(super) fn swarms_supervisor(&self) -> Option<SupervisorRef> {
        self.swarms.get().cloned()
    }

    pub(super) fn set_reconciled(&self) {
        self.reconciled.store(true, Ordering::Release);
    }

    /// The desired swarms, by name.
    pub(super) fn entries(&self) -> Vec<PlannedSwarm> {
        let mut all: Vec<_> = self.entries.iter().map(|entry| entry.plan.clone()).collect();
        all.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        all
    }

    pub(super) fn set_supervisor(&self, swarm: &SwarmName, to: SupervisorRef, agents: Vec<ChildRef<AgentActor>>) {
        if let Some(mut entry) = self.entries.get_mut(swarm) {
            entry.supervisor = Some(to);
            entry.agents = agents;
        }
    }

    pub(super) fn supervisor(&self, swarm: &SwarmName) -> Option<SupervisorRef> {
        self.entries.get(swarm)?.supervisor.clone()
    }

    /// The agents of a target in start order.
    pub(super) fn agents(&self, target: &Target) -> Vec<AgentId> {
        match target {
            Target::Agent(id) => vec![id.clone()],
            Target::Swarm(name) => self
                .entries
                .get(name)
                .map(|entry| entry.plan.agents.iter().map(|agent| agent.id.clone()).collect())
                .unwrap_or_default(),
        }
    }

    /// The actor of an agent.
    pub fn agent_actor(&self, id: &AgentId) -> Option<ChildRef<AgentActor>> {
        let entry = self.entries.get(&id.swarm)?;
        let at = entry.plan.agents.iter().position(|agent| agent.id == *id)?;
        entry.agents.get(at).cloned()
    }

    fn desired(&self, target: &Target) -> Result<Desired, ControlError> {
        let missing = || ControlError::NotFound {
            what: match target {
                Target::Swarm(name) => format!("swarm {name}"),
                Target::Agent(id) => format!("agent {id}"),
            },
        };
        match target {
            Target::Swarm(name) => self.entries.get(name).map(|entry| entry.plan.desired).ok_or_else(missing),
            Target::Agent(id) => {
                let entry = self.entries.get(&id.swarm).ok_or_else(missing)?;
                entry.plan.agents.iter().find(|agent| agent.id == *id).map(|agent| agent.desired).ok_or_else(missing)
            }
        }
    }

    /// Writes down what an operator wants, then tells health. A swarm's word overrides what was said of its agents.
    pub(super) async fn desire(&self, target: &Target, desired: Desired) -> Result<(), StoreError> {
        let now = SystemTime::now();
        match target {
            Target::Swarm(name) => {
                self.deps.journal.set_swarm_desired(name.clone(), desired, now).await?;
                for agent in self.agents(target) {
                    self.deps.journal.set_agent_desired(agent, None, now).await?;
                }
                if let Some(mut entry) = self.entries.get_mut(name) {
                    entry.since = now;
                    entry.plan.desired = desired;
                    for agent in &mut entry.plan.agents {
                        agent.desired = desired;
                    }
                }
            }
            Target::Agent(id) => {
                self.deps.journal.set_agent_desired(id.clone(), Some(desired), now).await?;
                if let Some(mut entry) = self.entries.get_mut(&id.swarm)
                    && let Some(agent) = entry.plan.agents.iter_mut().find(|agent| agent.id == *id)
                {
                    agent.desired = desired;
                }
            }
        }
        for agent in self.agents(target) {
            self.deps.registry.slot(&agent).set_paused(desired == Desired::Paused);
        }
        self.health.report(health::Report::Desired { target: target.clone(), desired });
        Ok(())
    }

    pub(super) fn operations_under_way(&self) -> Vec<Operation> {
        self.under_way
            .iter()
            .map(|entry| entry.value().borrow().clone())
            .filter(|operation| operation.state == OperationState::Running)
            .collect()
    }

    /// Writes an operation's new state, publishes it and wakes who waits. The journal's refusal is logged: what was done was done.
    pub(super) async fn record(&self, operation: Operation) {
        if let Err(error) = self.deps.journal.update_operation(&operation).await {
            tracing::warn!(operation = %operation.id, %error, "failed to journal an operation's state");
        }
        let at = operation.ended_at.unwrap_or_else(SystemTime::now);
        self.feed.publish(at, EventKind::OperationChanged { operation: Arc::new(operation.clone()) });
        let (id, ended) = (operation.id, operation.state.ended());
        if let Some(sender) = self.under_way.get(&id) {
            sender.send_replace(operation);
        }
        if ended {
            self.under_way.remove(&id);
        }
    }

    async fn accept(&self, request: Request) -> Result<Operation, ControlError> {
        if self.closing() {
            return Err(ControlError::Unavailable { why: "the daemon is stopping".to_owned() });
        }
        let desired = self.desired(&request.target)?;
        plan::fits(&request.command, &request.target, desired, self.deps.runtime.capabilities())?;
        let controller = self.controller.get().ok_or_else(|| ControlError::Unavailable {
            why: "the supervision tree is not up yet".to_owned(),
        })?;
        if self.under_way.len() >= UNDER_WAY_MAX {
            return Err(ControlError::Unavailable { why: format!("{UNDER_WAY_MAX} operations are under way") });
        }
        let operation = Operation {
            id: OperationId::mint(),
            command: request.command.clone(),
            target: request.target.clone(),
            state: OperationState::Accepted,
            requested_by: request.requested_by,
            requested_at: SystemTime::now(),
            ended_at: None,
            steps: Vec::new(),
            error: None,
        };
        let key = request.idempotency_key.map(|key| (key, format!("{:?} {}", request.command, request.target)));
        match self.deps.journal.put_operation(&operation, key).await.map_err(journal)? {
            PutOutcome::Stored => {}
            PutOutcome::Existing(first) => return Ok(first),
            PutOutcome::KeyReused => return Err(ControlError::KeyReused),
        }
        self.under_way.insert(operation.id, watch::channel(operation.clone()).0);
        self.feed.publish(
            operation.requested_at,
            EventKind::OperationChanged { operation: Arc::new(operation.clone()) },
        );
        if controller.tell(Execute(operation.clone())).is_err() {
            let mut failed = operation;
            failed.state = OperationState::Failed;
            failed.ended_at = Some(SystemTime::now());
            failed.error = Some("the control plane does not take orders now".to_owned());
            self.record(failed).await;
            return Err(ControlError::Unavailable { why: "the control plane does not take orders now".to_owned() });
        }
        Ok(operation)
    }
}

fn journal(error: StoreError) -> ControlError {
    ControlError::Journal { why: error.to_string() }
}

impl Control for Office {
    fn submit(&self, request: Request) -> BoxFuture<'_, Result<Operation, ControlError>> {
        Box::pin(self.accept(request))
    }

    fn wait(&self, id: OperationId, timeout: Duration) -> BoxFuture<'_, Result<Operation, ControlError>> {
        Box::pin(async move {
            let watched = self.under_way.get(&id).map(|sender| sender.subscribe());
            let Some(mut watched) = watched else { return self.operation(id).await };
            let end = watched.wait_for(|operation| operation.state.ended());
            match tokio::time::timeout(timeout, end).await {
                Ok(Ok(operation)) => Ok(operation.clone()),
                Ok(Err(_)) | Err(_) => self.operation(id).await,
            }
        })
    }

    fn operation(&self, id: OperationId) -> BoxFuture<'_, Result<Operation, ControlError>> {
        Box::pin(async move {
            let living = self.under_way.get(&id).map(|sender| sender.borrow().clone());
            match living {
                Some(operation) => Ok(operation),
                None => self
                    .deps
                    .journal
                    .operation(id)
                    .await
                    .map_err(journal)?
                    .ok_or_else(|| ControlError::NotFound { what: format!("operation {id}") }),
            }
        })
    }

    fn operations(&self, limit: usize) -> BoxFuture<'_, Result<Vec<Operation>, ControlError>> {
        Box::pin(async move { self.deps.journal.operations(limit).await.map_err(journal) })
    }

    fn swarms(&self) -> Vec<SwarmEntry> {
        let mut all: Vec<_> = self.entries.iter().map(|entry| entry.desk_entry()).collect();
        all.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        all
    }

    fn swarm(&self, name: &SwarmName) -> Option<SwarmEntry> {
        self.entries.get(name).map(|entry| entry.desk_entry())
    }

    fn tree(&self) -> BoxFuture<'_, Result<TreeNode, ControlError>> {
        Box::pin(async move {
            let unavailable =
                || ControlError::Unavailable { why: "the supervision tree does not answer".to_owned() };
            let root = self.root.get().ok_or_else(unavailable)?;
            match tokio::time::timeout(TREE_WAIT, root.snapshot()).await {
                Ok(Ok(tree)) => Ok(tree),
                Ok(Err(_)) | Err(_) => Err(unavailable()),
            }
        })
    }

    fn events(&self, after: Seq, limit: usize) -> BoxFuture<'_, Result<Vec<StoredEvent>, ControlError>> {
        Box::pin(async move { self.deps.journal.events(after, limit).await.map_err(journal) })
    }

    fn logs(&self, agent: AgentId, query: LogQuery) -> BoxFuture<'_, Result<LogPage, ControlError>> {
        Box::pin(async move {
            self.desired(&Target::Agent(agent.clone()))?;
            self.deps.logs.read(&agent, query).await.map_err(journal)
        })
    }

    fn log_growth(&self, agent: &AgentId) -> Option<watch::Receiver<u64>> {
        self.desired(&Target::Agent(agent.clone())).ok()?;
        Some(self.deps.logs.growth(agent))
    }

    fn readiness(&self) -> Vec<Check> {
        let reconciled = self.reconciled.load(Ordering::Acquire);
        let mut checks = (self.checks)();
        checks.push(Check {
            name: "reconcile",
            ok: reconciled,
            detail: if reconciled { "the first pass has ended" } else { "the first pass is under way" }.to_owned(),
        });
        checks
    }
}

impl Entry {
    fn desk_entry(&self) -> SwarmEntry {
        SwarmEntry { spec: Arc::clone(&self.plan.spec), desired: self.plan.desired, since: self.since }
    }
}
