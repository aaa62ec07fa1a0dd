//! The control plane's memory and its desk: what is desired, which operations are under way, where everything is.

mod accept;
mod control;
mod documents;
mod reload;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use dashmap::DashMap;
use hivekeeper_actors::{ChildRef, SupervisorRef};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::{
    controller::{Controller, Reconcile},
    desk::{Check, ControlError, SwarmEntry},
    document,
    historian::History,
    plan::PlannedSwarm,
    swarm::SwarmChild,
};
use crate::{
    coordination::Desk,
    events::Feed,
    health,
    model::{
        AgentId, Command, Desired, EventKind, Operation, OperationId, OperationState, SwarmName, SwarmSpec, Target,
    },
    runtime::{AgentActor, AgentDeps},
    store::StoreError,
};

/// Operations under way at once. An operator's script that piles up more gets a refusal instead of a queue that nobody reads.
const UNDER_WAY_MAX: usize = 256;
/// How long the tree may take to answer; it answers from memory.
const TREE_WAIT: Duration = Duration::from_secs(5);

struct Entry {
    plan: PlannedSwarm,
    /// Changes when another one takes the place of one that fell.
    supervisor: watch::Sender<Option<SupervisorRef>>,
    agents: HashMap<AgentId, ChildRef<AgentActor>>,
    /// An operation is putting it up or taking it down: nobody else may.
    held: bool,
    /// The document before, while agents may still run it: until an operation has brought all of them to the present one.
    left: Option<Arc<SwarmSpec>>,
}

/// The readiness lines of the other rooms.
pub type Checks = Box<dyn Fn() -> Vec<Check> + Send + Sync>;

/// What the office needs of the other rooms.
pub struct OfficeDeps {
    /// What agents need; the journal, the log books and the registry are among it.
    pub agents: Arc<AgentDeps>,
    /// Where what happens to agents is seen.
    pub health: health::Handle,
    /// Where operations are told.
    pub feed: Feed,
    /// Who keeps what agents share of work.
    pub desk: Desk,
    /// What was measured over time.
    pub history: History,
    /// Readiness beside the first reconcile pass.
    pub checks: Checks,
}

/// Shared by the desk, the controller and the composition root. Outlives the controller's incarnations.
pub struct Office {
    me: Weak<Self>,
    needs: OfficeDeps,
    entries: DashMap<SwarmName, Entry>,
    under_way: DashMap<OperationId, watch::Sender<Operation>>,
    /// Accepted and not begun, in order.
    waiting: Mutex<HashMap<SwarmName, VecDeque<Operation>>>,
    /// Begun for the second time, since the controller fell over the first.
    taken_up: Mutex<HashSet<OperationId>>,
    /// Changes when an operation joins those that wait, or is to be withdrawn.
    joined: watch::Sender<()>,
    /// Under way, and to end as soon as they can.
    cancelling: Mutex<HashSet<OperationId>>,
    /// Under way, and at a point where they can be left.
    leavable: Mutex<HashSet<OperationId>>,
    /// One document is judged at a time: of two writers that have seen the same one, one wins.
    judging: tokio::sync::Mutex<()>,
    /// `None` until it stands.
    tree: RwLock<Option<Tree>>,
    /// Swarms whose document the journal did not take. Until it does, it does not hear of the end of what changed them, either: a daemon that finds the
    /// one without the other would take the old document for the last word.
    unkept: Mutex<HashSet<SwarmName>>,
    reconciled: AtomicBool,
    stopping: AtomicBool,
    ended: Mutex<HashMap<OperationState, u64>>,
}

#[derive(Clone)]
struct Tree {
    root: SupervisorRef,
    swarms: SupervisorRef,
    controller: ChildRef<Controller>,
}

impl Office {
    /// An office without a tree yet.
    pub fn new(needs: OfficeDeps, plans: Vec<PlannedSwarm>) -> Arc<Self> {
        let entries = DashMap::new();
        for plan in plans {
            for agent in &plan.agents {
                needs.agents.registry.slot(&agent.id).set_paused(agent.desired == Desired::Paused);
            }
            entries.insert(
                plan.spec.name.clone(),
                Entry { plan, supervisor: watch::Sender::new(None), agents: HashMap::new(), held: false, left: None },
            );
        }
        Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            needs,
            entries,
            under_way: DashMap::new(),
            waiting: Mutex::default(),
            taken_up: Mutex::default(),
            joined: watch::Sender::new(()),
            cancelling: Mutex::default(),
            leavable: Mutex::default(),
            judging: tokio::sync::Mutex::default(),
            tree: RwLock::default(),
            unkept: Mutex::default(),
            reconciled: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            ended: Mutex::default(),
        })
    }

    /// Told when the tree stands, and again should it have to grow anew.
    pub fn open(&self, root: SupervisorRef, swarms: SupervisorRef, controller: ChildRef<Controller>) {
        *self.tree.write() = Some(Tree { root, swarms, controller });
    }

    fn tree(&self) -> Option<Tree> {
        self.tree.read().clone()
    }

    /// From now on nothing is accepted.
    pub fn close(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    pub(super) fn closed(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    pub(super) fn deps(&self) -> &Arc<AgentDeps> {
        &self.needs.agents
    }

    pub(super) fn health(&self) -> &health::Handle {
        &self.needs.health
    }

    pub(super) fn feed(&self) -> &Feed {
        &self.needs.feed
    }

    pub(super) fn swarms_supervisor(&self) -> Option<SupervisorRef> {
        self.tree().map(|tree| tree.swarms)
    }

    /// Whether the first pass has ended.
    pub fn reconciled(&self) -> bool {
        self.reconciled.load(Ordering::Acquire)
    }

    pub(super) fn set_reconciled(&self) {
        self.reconciled.store(true, Ordering::Release);
        self.needs.health.report(health::Report::Reconciled);
    }

    /// The desired swarms that no operation is putting up or taking down, by name.
    pub(super) fn plans(&self) -> Vec<PlannedSwarm> {
        let free = self.entries.iter().filter(|entry| !entry.held);
        let mut all: Vec<_> = free.map(|entry| entry.plan.clone()).collect();
        all.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        all
    }

    /// A swarm has its supervisor now. What there was to take over is handed to its agents' actors with it, once.
    pub(super) fn under_supervision(&self, swarm: &SwarmName, made: &SwarmChild) {
        if let Some(mut entry) = self.entries.get_mut(swarm) {
            entry.supervisor.send_replace(Some(made.supervisor.clone()));
            entry.agents.clone_from(&made.agents);
            for agent in &mut entry.plan.agents {
                agent.adopt = None;
            }
        }
    }

    /// The supervisor of a swarm.
    pub fn supervisor(&self, swarm: &SwarmName) -> Option<SupervisorRef> {
        self.entries.get(swarm)?.supervisor.borrow().clone()
    }

    /// The supervisor of a swarm, and whatever takes its place.
    pub(super) fn supervisors(&self, swarm: &SwarmName) -> Option<watch::Receiver<Option<SupervisorRef>>> {
        Some(self.entries.get(swarm)?.supervisor.subscribe())
    }

    /// A swarm's supervisor has ended by itself: another one is made at once.
    pub fn supervisor_fell(&self) {
        if let Some(tree) = self.tree()
            && let Err(error) = tree.controller.tell(Reconcile)
        {
            tracing::warn!(%error, "the control plane's actor does not take messages now; it looks by itself, too");
        }
    }

    /// A supervisor tells of an incarnation by this number. Nobody gives it to another one.
    pub fn heard_number(&self, agent: &AgentId, incarnation: u64) {
        self.needs.agents.registry.slot(agent).note_number(incarnation);
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
        self.entries.get(&id.swarm)?.agents.get(id).cloned()
    }

    /// Takes the next operation of a swarm. From here on it counts as begun, so that it is not lost when its taker crashes at once.
    pub(super) fn next(&self, swarm: &SwarmName) -> Option<Operation> {
        let mut waiting = self.waiting.lock();
        let queue = waiting.get_mut(swarm)?;
        let next = queue.pop_front();
        if queue.is_empty() {
            waiting.remove(swarm);
        }
        let mut next = next?;
        next.state = OperationState::Running;
        if let Some(sender) = self.under_way.get(&next.id) {
            sender.send_replace(next.clone());
        }
        Some(next)
    }

    /// Ends when a stop waits that touches this target.
    pub(super) async fn stop_waits(&self, target: &Target) {
        let mut joined = self.joined.subscribe();
        let touches = |other: &Operation| {
            matches!(other.command, Command::Stop { .. })
                && match (&other.target, target) {
                    (Target::Agent(one), Target::Agent(two)) => one == two,
                    (Target::Swarm(_), _) | (_, Target::Swarm(_)) => true,
                }
        };
        while !self.waiting.lock().get(target.swarm()).is_some_and(|queue| queue.iter().any(touches)) {
            if joined.changed().await.is_err() {
                // The sender is our own.
                return std::future::pending().await;
            }
        }
    }

    /// Does the work of a stop. Of two graces the shorter one wins: who asks for a stop once more, and sooner, must not wait behind the one under way.
    pub(super) async fn hurried<T>(&self, target: &Target, work: impl Future<Output = T>) -> T {
        let mut joined = self.joined.subscribe();
        let hurry = async {
            loop {
                let waiting = self.waiting.lock().get(target.swarm()).cloned().unwrap_or_default();
                for other in waiting {
                    if let Command::Stop { grace: Some(grace), .. } = other.command {
                        self.shorten(target, &other.target, grace);
                    }
                }
                if joined.changed().await.is_err() {
                    // The sender is our own.
                    return std::future::pending().await;
                }
            }
        };
        tokio::select! {
            biased;
            done = work => done,
            never = hurry => never,
        }
    }

    /// Of the agents that both targets have.
    fn shorten(&self, one: &Target, other: &Target, grace: Duration) {
        let concerned = self.agents(one);
        for agent in self.agents(other).iter().filter(|agent| concerned.contains(agent)) {
            let slot = self.needs.agents.registry.slot(agent);
            // For one whose turn has not come; the others have taken their grace already.
            slot.set_grace(Some(grace));
            let state = self.needs.health.agent(agent).map(|agent| agent.state);
            if let Some(control) = slot.control().filter(|_| state == Some(crate::model::AgentState::Stopping)) {
                control.stop(grace);
            }
        }
    }

    /// Swarms with operations that wait.
    pub(super) fn busy_swarms(&self) -> Vec<SwarmName> {
        self.waiting.lock().keys().cloned().collect()
    }

    /// What is wanted of a target now.
    pub(super) fn desired(&self, target: &Target) -> Result<Desired, ControlError> {
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

    /// Writes down what an operator wants, then tells health. A swarm's word overrides what was said of its agents,
    /// save that a pause and its end leave a stopped agent stopped: only a start ends that.
    pub(super) async fn desire(&self, target: &Target, desired: Desired) -> Result<(), StoreError> {
        let now = SystemTime::now();
        let spared = self.spared(target, desired);
        let mut agents = self.agents(target);
        agents.retain(|agent| !spared.contains(agent));
        match target {
            Target::Swarm(name) => {
                self.needs.agents.journal.set_swarm_desired(name, desired, &agents, now).await?;
                if let Some(mut entry) = self.entries.get_mut(name) {
                    entry.plan.since = now;
                    entry.plan.desired = desired;
                    for agent in entry.plan.agents.iter_mut().filter(|agent| agents.contains(&agent.id)) {
                        agent.desired = desired;
                    }
                }
            }
            Target::Agent(id) => {
                self.needs.agents.journal.set_agent_desired(id, Some(desired), now).await?;
                if let Some(mut entry) = self.entries.get_mut(&id.swarm)
                    && let Some(agent) = entry.plan.agents.iter_mut().find(|agent| agent.id == *id)
                {
                    agent.desired = desired;
                }
            }
        }
        for agent in &agents {
            self.needs.agents.registry.slot(agent).set_paused(desired == Desired::Paused);
        }
        self.needs.health.report(health::Report::Desired { target: target.clone(), desired });
        for agent in spared {
            let (target, desired) = (Target::Agent(agent), Desired::Stopped);
            self.needs.health.report(health::Report::Desired { target, desired });
        }
        Ok(())
    }

    /// The stopped agents of a swarm that is paused or resumed.
    fn spared(&self, target: &Target, desired: Desired) -> Vec<AgentId> {
        let Target::Swarm(name) = target else { return Vec::new() };
        let Some(entry) = self.entries.get(name) else { return Vec::new() };
        let is_resumed = entry.plan.desired == Desired::Paused && desired == Desired::Running;
        if desired != Desired::Paused && !is_resumed {
            return Vec::new();
        }
        let stopped = entry.plan.agents.iter().filter(|agent| agent.desired == Desired::Stopped);
        stopped.map(|agent| agent.id.clone()).collect()
    }

    /// Takes up what a fallen controller had begun: each is begun once more, before whatever waits behind it. Returns those that fall for the
    /// second time, for it may be they that the controller falls over.
    pub(super) fn take_up(&self) -> Vec<Operation> {
        let mut begun = self.recalled(|operation| operation.state == OperationState::Running);
        begun.sort_by_key(|operation| std::cmp::Reverse(operation.id));
        let mut taken_up = self.taken_up.lock();
        taken_up.retain(|id| begun.iter().any(|operation| operation.id == *id));
        let mut waiting = self.waiting.lock();
        begun.retain(|operation| {
            let is_first_time = taken_up.insert(operation.id);
            if is_first_time {
                waiting.entry(operation.target.swarm().clone()).or_default().push_front(operation.clone());
            }
            !is_first_time
        });
        begun
    }

    fn recalled(&self, which: impl Fn(&Operation) -> bool) -> Vec<Operation> {
        self.under_way.iter().map(|entry| entry.value().borrow().clone()).filter(which).collect()
    }

    /// How many operations wait, are under way, or have ended since this daemon started; states that none has been in may be missing.
    pub fn operation_counts(&self) -> HashMap<OperationState, u64> {
        let mut counts = self.ended.lock().clone();
        for operation in self.recalled(|operation| !operation.state.ended()) {
            *counts.entry(operation.state).or_default() += 1;
        }
        counts
    }

    /// Writes an operation's new state, publishes it and wakes who waits. What the journal does not take now is kept and offered again.
    pub(super) async fn record(&self, operation: Operation) {
        let at = operation.ended_at.unwrap_or_else(SystemTime::now);
        self.needs.feed.publish(at, EventKind::OperationChanged { operation: Arc::new(operation.clone()) });
        if operation.state.ended() {
            *self.ended.lock().entry(operation.state).or_default() += 1;
            self.cancelling.lock().remove(&operation.id);
            self.leavable.lock().remove(&operation.id);
        }
        let kept = self.keep(&operation).await;
        if let Some(sender) = self.under_way.get(&operation.id) {
            sender.send_replace(operation.clone());
        }
        if kept && operation.state.ended() {
            self.under_way.remove(&operation.id);
        }
    }

    /// Offers the journal again what it did not take.
    pub(super) async fn catch_up(&self) {
        let unkept: Vec<_> = self.unkept.lock().iter().cloned().collect();
        for name in unkept {
            self.keep_document(&name).await;
        }
        for operation in self.recalled(|operation| operation.state.ended()) {
            if self.keep(&operation).await {
                self.under_way.remove(&operation.id);
            }
        }
    }

    /// Writes down a swarm as it is desired. What the journal does not take now is offered again, and so is the end of the operation that made it so.
    pub(super) async fn keep_document(&self, name: &SwarmName) {
        let Some(plan) = self.plan(name) else {
            self.unkept.lock().remove(name);
            return;
        };
        match self.needs.agents.journal.put_swarm(document::row(&plan)).await {
            Ok(()) => drop(self.unkept.lock().remove(name)),
            Err(error) => {
                tracing::warn!(swarm = %name, %error, "failed to journal a document");
                self.unkept.lock().insert(name.clone());
            }
        }
    }

    async fn keep(&self, operation: &Operation) -> bool {
        if operation.state.ended() && self.unkept.lock().contains(operation.target.swarm()) {
            return false;
        }
        let kept = self.needs.agents.journal.update_operation(operation).await;
        if let Err(error) = &kept {
            tracing::warn!(operation = %operation.id, %error, "failed to journal an operation's state");
        }
        kept.is_ok()
    }
}

fn journal(error: StoreError) -> ControlError {
    ControlError::Journal { why: error.to_string() }
}

impl Entry {
    fn desk_entry(&self) -> SwarmEntry {
        SwarmEntry { spec: Arc::clone(&self.plan.spec), desired: self.plan.desired, since: self.plan.since }
    }
}
