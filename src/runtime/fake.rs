//! An erring runtime without processes, for the tests of the rooms above: each launch plays a script on tokio's clock, every call is recorded.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::contract::{
    AgentControl, AgentEvent, BoxFuture, Capabilities, LaunchError, LaunchOrder, Launched, OutputLine, RecoverError,
    Recovered, Runtime,
};
use crate::{
    model::{AgentId, ExitCause, ExitRecord, LaunchId, RuntimeKind},
    wire::channel::Stream,
};

/// Events and orders under way per launch, as in a real runtime.
const QUEUE_MAX: usize = 64;

/// What one launch does. Each step comes so long after the one before; the first one after `Alive`.
#[derive(Debug, Clone, Default)]
pub struct Script {
    alive_after: Duration,
    no_launch: Option<NoLaunch>,
    start_failure: Option<String>,
    ignores_stop: bool,
    steps: Vec<(Duration, Step)>,
}

#[derive(Debug, Clone)]
enum NoLaunch {
    Unreachable(String),
    Refused(String),
    Launcher(String),
}

#[derive(Debug, Clone)]
enum Step {
    Alive,
    Line(String),
    Sample { cpu_cores: f64, memory_bytes: u64 },
    Lost { lines: u64 },
    End { code: Option<i32>, signal: Option<i32>, cause: ExitCause },
    Fenced,
}

impl Script {
    /// Lives at once and until it is ended.
    pub fn runs() -> Self {
        Self::default()
    }
    /// The program can't be started.
    pub fn start_fails(message: &str) -> Self {
        Self { start_failure: Some(message.to_owned()), ..Self::default() }
    }
    /// The launch fails: [`LaunchError::Unreachable`].
    pub fn unreachable(why: &str) -> Self {
        Self { no_launch: Some(NoLaunch::Unreachable(why.to_owned())), ..Self::default() }
    }
    /// The launch fails: [`LaunchError::Refused`].
    pub fn refused(why: &str) -> Self {
        Self { no_launch: Some(NoLaunch::Refused(why.to_owned())), ..Self::default() }
    }
    /// The launch fails: [`LaunchError::Launcher`].
    pub fn launcher_fails(why: &str) -> Self {
        Self { no_launch: Some(NoLaunch::Launcher(why.to_owned())), ..Self::default() }
    }
    /// The first sign of life takes so long.
    pub fn alive_after(mut self, delay: Duration) -> Self {
        self.alive_after = delay;
        self
    }
    /// SIGTERM does nothing; the grace has to run out.
    pub fn ignores_stop(mut self) -> Self {
        self.ignores_stop = true;
        self
    }
    /// Writes a line.
    pub fn prints(self, after: Duration, line: &str) -> Self {
        self.then(after, Step::Line(line.to_owned()))
    }
    /// Is measured.
    pub fn sample(self, after: Duration, cpu_cores: f64, memory_bytes: u64) -> Self {
        self.then(after, Step::Sample { cpu_cores, memory_bytes })
    }
    /// Output is lost.
    pub fn loses(self, after: Duration, lines: u64) -> Self {
        self.then(after, Step::Lost { lines })
    }
    /// Exits by itself.
    pub fn exits(self, after: Duration, code: i32) -> Self {
        self.then(after, Step::End { code: Some(code), signal: None, cause: ExitCause::Exited })
    }
    /// Is killed by somebody else.
    pub fn dies_of(self, after: Duration, signal: i32) -> Self {
        self.then(after, Step::End { code: None, signal: Some(signal), cause: ExitCause::Signalled })
    }
    /// Its launcher dies without a record.
    pub fn loses_launcher(self, after: Duration) -> Self {
        self.then(after, Step::End { code: None, signal: None, cause: ExitCause::LauncherLost })
    }
    /// A younger daemon takes it over.
    pub fn fenced(self, after: Duration) -> Self {
        self.then(after, Step::Fenced)
    }

    fn then(mut self, after: Duration, step: Step) -> Self {
        self.steps.push((after, step));
        self
    }
}

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

/// The runtime. Clones share everything, so a clone stands for the same machine under the next daemon.
#[derive(Clone, Default)]
pub struct FakeRuntime {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    scripts: HashMap<AgentId, Script>,
    next: HashMap<AgentId, VecDeque<Script>>,
    answers: HashMap<AgentId, Answer>,
    calls: Vec<Call>,
    orders: Vec<LaunchOrder>,
    launches: HashMap<LaunchId, Entry>,
    overlaps: usize,
    pid: u32,
    tasks: JoinSet<()>,
}

struct Entry {
    agent: AgentId,
    incarnation: u64,
    orders: mpsc::Sender<Order>,
    ended: Option<ExitRecord>,
}

enum Order {
    Stop(Duration),
    Kill,
    Pause(bool),
    Detach,
    Attach(mpsc::Sender<AgentEvent>, u64),
    Step(Step),
}

impl FakeRuntime {
    /// Every agent runs until it is ended.
    pub fn new() -> Self {
        Self::default()
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
            let _ = entry.orders.try_send(Order::Step(step.clone()));
        }
    }

    fn begin(&self, order: LaunchOrder) -> Result<Launched, LaunchError> {
        let mut shared = self.shared.lock();
        shared.calls.push(Call::Launch(order.agent.clone(), order.incarnation));
        shared.orders.push(order.clone());
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
            started_at: None,
            events: Some(events),
            lines: Vec::new(),
            paused: false,
            kill_at: None,
            ignores_stop: script.ignores_stop,
        };
        shared.tasks.spawn(player.play(script, ordered));
        let entry = Entry { agent: order.agent, incarnation: order.incarnation, orders, ended: None };
        let control = self.reins(&entry);
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
                let _ = entry.orders.try_send(Order::Kill);
                return Ok(Recovered::Lost);
            }
            None => {}
        }
        if let Some(record) = &entry.ended {
            return Ok(match record.cause {
                ExitCause::LauncherLost => Recovered::Lost,
                _ => Recovered::Exited(record.clone()),
            });
        }
        let (events, received) = mpsc::channel(QUEUE_MAX);
        let _ = entry.orders.try_send(Order::Attach(events, last_seq));
        Ok(Recovered::Running(Launched { control: self.reins(entry), events: received }))
    }

    fn reins(&self, entry: &Entry) -> Arc<Reins> {
        Arc::new(Reins {
            shared: Arc::downgrade(&self.shared),
            agent: entry.agent.clone(),
            incarnation: entry.incarnation,
            orders: entry.orders.clone(),
            detached: Mutex::new(false),
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
            let strays = shared.launches.iter().filter(|(id, entry)| entry.ended.is_none() && !known.contains(id));
            strays
                .map(|(id, entry)| {
                    if remove {
                        let _ = entry.orders.try_send(Order::Kill);
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
    orders: mpsc::Sender<Order>,
    detached: Mutex<bool>,
}

impl Reins {
    fn call(&self, call: impl FnOnce(AgentId, u64) -> Call, order: Option<Order>) {
        if let Some(shared) = self.shared.upgrade() {
            shared.lock().calls.push(call(self.agent.clone(), self.incarnation));
        }
        if let Some(order) = order {
            let _ = self.orders.try_send(order);
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
        *self.detached.lock() = true;
        self.call(Call::Detach, Some(Order::Detach));
    }
}

impl Drop for Reins {
    fn drop(&mut self) {
        if !*self.detached.lock() && !self.orders.is_closed() {
            self.kill();
        }
    }
}

/// One launch under way.
struct Player {
    shared: std::sync::Weak<Mutex<Shared>>,
    launch_id: LaunchId,
    incarnation: u64,
    pid: u32,
    started_at: Option<SystemTime>,
    /// `None` once it is detached.
    events: Option<mpsc::Sender<AgentEvent>>,
    lines: Vec<OutputLine>,
    paused: bool,
    kill_at: Option<Instant>,
    ignores_stop: bool,
}

impl Player {
    async fn play(mut self, script: Script, mut orders: mpsc::Receiver<Order>) {
        if let Some(message) = script.start_failure {
            return self.end(None, None, ExitCause::StartFailed { message }).await;
        }
        let mut due = Instant::now() + script.alive_after;
        let mut steps = VecDeque::from([(due, Step::Alive)]);
        for (after, step) in script.steps {
            due += after;
            steps.push_back((due, step));
        }
        loop {
            let step_due = steps.front().map(|(due, _)| *due).filter(|_| !self.paused);
            let wake = step_due.into_iter().chain(self.kill_at).min();
            let timer = async {
                match wake {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let step = tokio::select! {
                biased;
                Some(order) = orders.recv() => self.obey(order).await,
                () = timer => match step_due.filter(|due| *due <= Instant::now()) {
                    Some(_) => steps.pop_front().map(|(_, step)| step),
                    None => Some(stopped(libc::SIGKILL)),
                },
            };
            match step {
                None => {}
                Some(Step::End { code, signal, cause }) => return self.end(code, signal, cause).await,
                Some(Step::Fenced) => {
                    self.emit(AgentEvent::Fenced).await;
                    self.events = None;
                }
                Some(step) => self.show(step).await,
            }
        }
    }

    /// The step that follows from an order.
    async fn obey(&mut self, order: Order) -> Option<Step> {
        match order {
            Order::Kill => return Some(stopped(libc::SIGKILL)),
            Order::Stop(_) if !self.ignores_stop => return Some(stopped(libc::SIGTERM)),
            Order::Stop(grace) => {
                let at = Instant::now() + grace;
                self.kill_at = Some(self.kill_at.map_or(at, |before| before.min(at)));
            }
            Order::Pause(paused) => {
                self.paused = paused;
                self.emit(AgentEvent::Paused(paused)).await;
            }
            Order::Detach => self.events = None,
            Order::Attach(events, last_seq) => {
                self.events = Some(events);
                if let Some(at) = self.started_at {
                    self.emit(AgentEvent::Alive { pid: self.pid, at }).await;
                }
                if self.paused {
                    self.emit(AgentEvent::Paused(true)).await;
                }
                let missed: Vec<_> = self.lines.iter().filter(|line| line.seq > last_seq).cloned().collect();
                if !missed.is_empty() {
                    self.emit(AgentEvent::Output(missed)).await;
                }
            }
            Order::Step(step) => return Some(step),
        }
        None
    }

    async fn show(&mut self, step: Step) {
        let at = SystemTime::now();
        let event = match step {
            Step::Alive => {
                self.started_at = Some(at);
                AgentEvent::Alive { pid: self.pid, at }
            }
            Step::Line(text) => {
                let seq = self.lines.len() as u64 + 1;
                let line = OutputLine { seq, at, stream: Stream::Stdout, partial: false, text };
                self.lines.push(line.clone());
                AgentEvent::Output(vec![line])
            }
            Step::Sample { cpu_cores, memory_bytes } => {
                AgentEvent::Sample { at, cpu_cores: Some(cpu_cores), memory_bytes, processes: 1 }
            }
            Step::Lost { lines } => AgentEvent::Lost { lines, bytes: lines },
            Step::End { .. } | Step::Fenced => return,
        };
        self.emit(event).await;
    }

    async fn end(mut self, code: Option<i32>, signal: Option<i32>, cause: ExitCause) {
        let at = SystemTime::now();
        let record =
            ExitRecord { incarnation: self.incarnation, code, signal, oom: None, at, cause, last_lines: Vec::new() };
        if let Some(shared) = self.shared.upgrade()
            && let Some(entry) = shared.lock().launches.get_mut(&self.launch_id)
        {
            entry.ended = Some(record.clone());
        }
        self.emit(AgentEvent::Exited(record)).await;
    }

    async fn emit(&mut self, event: AgentEvent) {
        if let Some(events) = &self.events {
            let _ = events.send(event).await;
        }
    }
}

fn stopped(signal: i32) -> Step {
    Step::End { code: None, signal: Some(signal), cause: ExitCause::Stopped }
}
