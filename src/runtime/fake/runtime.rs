//! The runtime, its call record and its reins.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    player::{Order, Player},
    script::{NoLaunch, Script, Step},
};
use crate::{
    model::{AgentId, ExitCause, ExitRecord, LaunchId, RuntimeKind, SwarmName},
    runtime::{
        AgentControl, BoxFuture, Capabilities, LaunchError, LaunchOrder, Launched, RecoverError, Recovered, Runtime,
    },
};

/// Events and orders under way per launch, as in a real runtime.
const QUEUE_MAX: usize = 64;

/// What was asked of the runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// [`Runtime::launch`], also when it fails.
    Launch(AgentId, u64),
    /// [`Runtime::recover`].
    Recover(AgentId, u64),
    /// [`Runtime::forget`].
    Forget(LaunchId),
    /// [`AgentControl::stop`].
    Stop(AgentId, u64, Duration),
    /// [`AgentControl::kill`], or reins dropped without a detach.
    Kill(AgentId, u64),
    /// [`AgentControl::pause`].
    Pause(AgentId, u64),
    /// [`AgentControl::resume`].
    Resume(AgentId, u64),
    /// [`AgentControl::ack`].
    Ack(AgentId, u64, u64),
    /// [`AgentControl::detach`].
    Detach(AgentId, u64),
}

/// What [`Runtime::recover`] answers instead of the truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// [`Recovered::Lost`]; what lives is ended.
    Lost,
    /// [`RecoverError::Fenced`].
    Fenced,
    /// [`RecoverError::Unproven`].
    Unproven,
}

/// The runtime. Clones share everything.
#[derive(Clone, Default)]
pub struct FakeRuntime {
    epoch: u64,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
pub(super) struct Shared {
    scripts: HashMap<AgentId, Script>,
    next: HashMap<AgentId, VecDeque<Script>>,
    answers: HashMap<AgentId, Answer>,
    calls: Vec<Call>,
    orders: Vec<LaunchOrder>,
    pub(super) launches: HashMap<LaunchId, Entry>,
    overlaps: usize,
    pid: u32,
    tasks: JoinSet<()>,
}

pub(super) struct Entry {
    agent: AgentId,
    incarnation: u64,
    orders: mpsc::Sender<(u64, Order)>,
    /// Who leads it.
    epoch: u64,
    detached: bool,
    pub(super) ended: Option<ExitRecord>,
}

impl FakeRuntime {
    /// Every agent runs until it is ended.
    pub fn new() -> Self {
        Self::default()
    }
    /// The same machine under the next daemon: what this one leads it may take over, and then this one is fenced.
    pub fn successor(&self) -> Self {
        Self { epoch: self.epoch + 1, shared: Arc::clone(&self.shared) }
    }
    /// Every further launch of this agent plays this.
    pub fn script(&self, agent: &AgentId, script: Script) {
        self.shared.lock().scripts.insert(agent.clone(), script);
    }
    /// One launch of this agent plays this: the next one that no earlier call speaks for.
    pub fn next(&self, agent: &AgentId, script: Script) {
        self.shared.lock().next.entry(agent.clone()).or_default().push_back(script);
    }
    /// Every further recovery of this agent is answered so.
    pub fn answer(&self, agent: &AgentId, answer: Answer) {
        self.shared.lock().answers.insert(agent.clone(), answer);
    }
    /// SIGKILL from outside to what lives of this agent.
    pub fn strike(&self, agent: &AgentId) {
        self.play(agent, Step::End { code: None, signal: Some(libc::SIGKILL), cause: ExitCause::Signalled });
    }
    /// SIGKILL to the launchers of this agent.
    pub fn strike_launcher(&self, agent: &AgentId) {
        self.play(agent, Step::End { code: None, signal: None, cause: ExitCause::LauncherLost });
    }
    /// The container of this swarm ends, and all that live in it with it.
    pub fn strike_container(&self, swarm: &SwarmName, message: &str) {
        let shared = self.shared.lock();
        for entry in shared.living().filter(|entry| entry.agent.swarm == *swarm) {
            let _ = entry.orders.try_send((u64::MAX, Order::Step(Step::container_lost(message))));
        }
    }
    /// Lets what lives of this agent write a line now.
    pub fn print(&self, agent: &AgentId, line: &str) {
        self.play(agent, Step::Line(line.to_owned()));
    }
    /// Everything that was asked, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.lock().calls.clone()
    }
    /// The orders of all launches, also of those that failed.
    pub fn orders(&self) -> Vec<LaunchOrder> {
        self.shared.lock().orders.clone()
    }
    /// How often this agent was launched, failures included.
    pub fn launches(&self, agent: &AgentId) -> usize {
        self.shared.lock().orders.iter().filter(|order| order.agent == *agent).count()
    }
    /// What lives now, by agent.
    pub fn live(&self) -> Vec<(AgentId, u64)> {
        let shared = self.shared.lock();
        let mut live: Vec<_> = shared.living().map(|entry| (entry.agent.clone(), entry.incarnation)).collect();
        live.sort();
        live
    }
    /// How often an agent was launched while an incarnation of it lived. Anything but 0 is a defect of the rooms above.
    pub fn overlaps(&self) -> usize {
        self.shared.lock().overlaps
    }

    fn play(&self, agent: &AgentId, step: Step) {
        for entry in self.shared.lock().living().filter(|entry| entry.agent == *agent) {
            let _ = entry.orders.try_send((u64::MAX, Order::Step(step.clone())));
        }
    }

    /// What is detached, or led by an older daemon.
    fn may_end(&self, entry: &Entry) -> bool {
        entry.epoch < self.epoch || (entry.epoch == self.epoch && entry.detached)
    }

    fn begin(&self, order: LaunchOrder) -> Result<Launched, LaunchError> {
        let mut shared = self.shared.lock();
        shared.calls.push(Call::Launch(order.agent.clone(), order.incarnation));
        shared.orders.push(order.clone());
        if order.argv.is_empty() {
            return Err(LaunchError::Refused("empty command".to_owned()));
        }
        let next = shared.next.get_mut(&order.agent).and_then(VecDeque::pop_front);
        let script = next.or_else(|| shared.scripts.get(&order.agent).cloned()).unwrap_or_default();
        match script.no_launch {
            Some(NoLaunch::Unreachable(why)) => return Err(LaunchError::Unreachable(why)),
            Some(NoLaunch::Refused(why)) => return Err(LaunchError::Refused(why)),
            Some(NoLaunch::Launcher(why)) => return Err(LaunchError::Launcher(why)),
            None => {}
        }
        if shared.living().any(|entry| entry.agent == order.agent) {
            shared.overlaps += 1;
        }
        shared.pid += 1;
        let (orders, ordered) = mpsc::channel(QUEUE_MAX);
        let (events, received) = mpsc::channel(QUEUE_MAX);
        let player = Player {
            shared: Arc::downgrade(&self.shared),
            launch_id: order.launch_id,
            incarnation: order.incarnation,
            pid: 1_000 + shared.pid,
            epoch: self.epoch,
            started_at: None,
            events: Some(events),
            lines: Vec::new(),
            paused: false,
            kill_at: None,
            ignores_stop: script.ignores_stop,
        };
        shared.tasks.spawn(player.play(script, ordered));
        let entry = Entry {
            agent: order.agent,
            incarnation: order.incarnation,
            orders,
            epoch: self.epoch,
            detached: false,
            ended: None,
        };
        let control = self.reins(order.launch_id, &entry);
        shared.launches.insert(order.launch_id, entry);
        Ok(Launched { control, events: received })
    }

    fn find(
        &self,
        launch_id: LaunchId,
        agent: AgentId,
        incarnation: u64,
        last_seq: u64,
    ) -> Result<Recovered, RecoverError> {
        let mut shared = self.shared.lock();
        shared.calls.push(Call::Recover(agent.clone(), incarnation));
        let answer = shared.answers.get(&agent).copied();
        let Some(entry) = shared.launches.get_mut(&launch_id) else { return Ok(Recovered::Lost) };
        match answer {
            Some(Answer::Fenced) => return Err(RecoverError::Fenced),
            Some(Answer::Unproven) => return Err(RecoverError::Unproven("scripted".to_owned())),
            Some(Answer::Lost) => {
                let _ = entry.orders.try_send((u64::MAX, Order::Kill));
                return Ok(Recovered::Lost);
            }
            None if entry.epoch > self.epoch => return Err(RecoverError::Fenced),
            None => {}
        }
        if let Some(record) = &entry.ended {
            return Ok(match record.cause {
                ExitCause::LauncherLost => Recovered::Lost,
                _ => Recovered::Exited { record: record.clone(), lost: 0 },
            });
        }
        let (events, received) = mpsc::channel(QUEUE_MAX);
        entry.epoch = self.epoch;
        entry.detached = false;
        let _ = entry.orders.try_send((self.epoch, Order::Attach(events, last_seq)));
        let entry = &*entry;
        Ok(Recovered::Running(Launched { control: self.reins(launch_id, entry), events: received }))
    }

    fn reins(&self, launch_id: LaunchId, entry: &Entry) -> Arc<Reins> {
        Arc::new(Reins {
            shared: Arc::downgrade(&self.shared),
            agent: entry.agent.clone(),
            incarnation: entry.incarnation,
            launch_id,
            epoch: self.epoch,
            orders: entry.orders.clone(),
            detached: AtomicBool::new(false),
        })
    }
}

impl Shared {
    fn living(&self) -> impl Iterator<Item = &Entry> {
        self.launches.values().filter(|entry| entry.ended.is_none())
    }
}

impl Runtime for FakeRuntime {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Process
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { pause: true, limits: false, isolation: false, oom: false, recover: true }
    }

    fn launch(&self, order: LaunchOrder) -> BoxFuture<'_, Result<Launched, LaunchError>> {
        Box::pin(async move { self.begin(order) })
    }

    fn recover(
        &self,
        launch_id: LaunchId,
        agent: AgentId,
        incarnation: u64,
        last_seq: u64,
    ) -> BoxFuture<'_, Result<Recovered, RecoverError>> {
        Box::pin(async move { self.find(launch_id, agent, incarnation, last_seq) })
    }

    fn orphans(&self, known: Vec<LaunchId>, remove: bool) -> BoxFuture<'_, Vec<LaunchId>> {
        Box::pin(async move {
            let shared = self.shared.lock();
            let strays = shared
                .launches
                .iter()
                .filter(|(id, entry)| entry.ended.is_none() && !known.contains(id) && self.may_end(entry));
            strays
                .map(|(id, entry)| {
                    if remove {
                        let _ = entry.orders.try_send((self.epoch, Order::Kill));
                    }
                    *id
                })
                .collect()
        })
    }

    fn forget(&self, launch_id: LaunchId) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let mut shared = self.shared.lock();
            shared.calls.push(Call::Forget(launch_id));
            if shared.launches.get(&launch_id).is_some_and(|entry| entry.ended.is_some()) {
                shared.launches.remove(&launch_id);
            }
        })
    }
}

struct Reins {
    shared: std::sync::Weak<Mutex<Shared>>,
    agent: AgentId,
    incarnation: u64,
    launch_id: LaunchId,
    epoch: u64,
    orders: mpsc::Sender<(u64, Order)>,
    detached: AtomicBool,
}

impl Reins {
    fn call(&self, call: impl FnOnce(AgentId, u64) -> Call, order: Option<Order>) {
        if let Some(shared) = self.shared.upgrade() {
            shared.lock().calls.push(call(self.agent.clone(), self.incarnation));
        }
        if let Some(order) = order {
            let _ = self.orders.try_send((self.epoch, order));
        }
    }
}

impl AgentControl for Reins {
    fn stop(&self, grace: Duration) {
        self.call(|agent, n| Call::Stop(agent, n, grace), Some(Order::Stop(grace)));
    }
    fn kill(&self) {
        self.call(Call::Kill, Some(Order::Kill));
    }
    fn pause(&self) {
        self.call(Call::Pause, Some(Order::Pause(true)));
    }
    fn resume(&self) {
        self.call(Call::Resume, Some(Order::Pause(false)));
    }
    fn ack(&self, seq: u64) {
        self.call(|agent, n| Call::Ack(agent, n, seq), None);
    }
    fn detach(&self) {
        self.detached.store(true, Relaxed);
        if let Some(shared) = self.shared.upgrade()
            && let Some(entry) = shared.lock().launches.get_mut(&self.launch_id).filter(|e| e.epoch == self.epoch)
        {
            entry.detached = true;
        }
        self.call(Call::Detach, Some(Order::Detach));
    }
}

impl Drop for Reins {
    fn drop(&mut self) {
        if !self.detached.load(Relaxed) && !self.orders.is_closed() {
            self.kill();
        }
    }
}
