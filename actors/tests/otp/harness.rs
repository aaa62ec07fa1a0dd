//! A system whose clock the test owns, a worker that plays the roles of OTP's helper processes, a sink that remembers.
//!
//! Everything lives on the one thread of a paused tokio runtime. Its clock moves only when nothing is left to do, so [`quiet`] means "all
//! that can happen now has happened", minutes pass in no time, and a wait for something that never comes fails at once.

use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

pub(crate) use Presence::{Restarting, Running as Is, Undefined};
use actix::prelude::*;
use hivekeeper_actors::{
    AutoShutdown, Backoff, Child, ChildCtx, ChildRef, ChildSpec, Counts, EventKind, EventSink, ExitReason, Ignore,
    Intensity, Placement, Presence, Ready, RestartType, Root, Shutdown, SpecError, StartError, Strategy,
    SupervisionEvent, SupervisorError, SupervisorFlags, SupervisorRef,
};
use parking_lot::Mutex;
use tokio::sync::mpsc::Sender;

pub(crate) const MS: Duration = Duration::from_millis(1);

/// Simulated; longer than anything that a case waits for.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// In real time; far more than the longest case needs.
const REAL_PATIENCE: Duration = Duration::from_secs(240);

/// The period of most cases of the suite.
const HOUR: Duration = Duration::from_secs(3600);

/// Runs a test inside an actix system with a paused clock; a hang is a failure, and so is a loop without end.
pub(crate) fn system<F: Future<Output = ()>>(test: F) {
    let paused = || tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let (running, ended) = std::sync::mpsc::sync_channel::<()>(0);
    let (bark, barked) = tokio::sync::oneshot::channel();
    let dog = std::thread::spawn(move || match ended.recv_timeout(REAL_PATIENCE) {
        Err(RecvTimeoutError::Timeout) => bark.send(()).unwrap_or_default(),
        _ => drop(bark),
    });
    System::with_tokio_rt(paused).block_on(async {
        tokio::select! {
            () = test => {}
            _ = barked => panic!("the test goes on for ever"),
        }
    });
    drop(running);
    dog.join().unwrap();
}

/// Lets everything happen that can happen now.
pub(crate) async fn quiet() {
    after(MS).await;
}

/// Lets everything happen that can happen within this time.
pub(crate) async fn after(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Waits, on the simulated clock, for something that has to come.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it never comes")
}

/// Remembers every event.
#[derive(Default)]
pub(crate) struct Record(Mutex<Vec<SupervisionEvent>>);

impl EventSink for Record {
    fn event(&self, event: SupervisionEvent) {
        self.0.lock().push(event);
    }
}

impl Record {
    /// How the incarnations of a child ended.
    pub(crate) fn exits(&self, id: &str) -> Vec<ExitReason> {
        let of_child = |(child, reason): (String, ExitReason)| (child == id).then_some(reason);
        self.all_exits().into_iter().filter_map(of_child).collect()
    }

    /// Every end so far with the child's name, in order.
    pub(crate) fn all_exits(&self) -> Vec<(String, ExitReason)> {
        let exit = |event: &SupervisionEvent| match &event.kind {
            EventKind::Exited { reason } => Some((event.id.to_string(), reason.clone())),
            _ => None,
        };
        self.0.lock().iter().filter_map(exit).collect()
    }

    /// The names of those that became ready, in order.
    pub(crate) fn starts(&self) -> Vec<String> {
        let start = |event: &SupervisionEvent| match event.kind {
            EventKind::Started { .. } => Some(event.id.to_string()),
            _ => None,
        };
        self.0.lock().iter().filter_map(start).collect()
    }

    pub(crate) fn forget(&self) {
        self.0.lock().clear();
    }
}

/// A tree whose first supervisor is the one under test.
pub(crate) struct Sup {
    pub(crate) root: Arc<Root>,
    supervisor: SupervisorRef,
    pub(crate) record: Arc<Record>,
}

impl Deref for Sup {
    type Target = SupervisorRef;

    fn deref(&self) -> &SupervisorRef {
        &self.supervisor
    }
}

impl Sup {
    pub(crate) async fn start(flags: SupervisorFlags, children: Vec<Child>) -> Self {
        let record = Arc::new(Record::default());
        let root = Root::start(flags, children, Arc::clone(&record) as Arc<dyn EventSink>).unwrap();
        soon(root.started()).await.unwrap();
        Self { supervisor: root.supervisor(), root: Arc::new(root), record }
    }

    /// Why a tree of these is not started.
    pub(crate) fn refused(flags: SupervisorFlags, children: Vec<Child>) -> SpecError {
        match Root::start(flags, children, Arc::new(Record::default())) {
            Err(StartError::Invalid(error)) => error,
            other => panic!("{:?}", other.err()),
        }
    }

    /// How it ended; waits for it.
    pub(crate) async fn exit(&self) -> ExitReason {
        soon(self.root.done()).await
    }

    /// Whether it still lives after a second.
    pub(crate) async fn lives(&self) -> bool {
        after(MS * 1000).await;
        self.supervisor.count_children().await.is_ok()
    }

    /// Makes a worker end by itself, sees it end so, and waits until all that follows has happened.
    pub(crate) async fn end(&self, id: &str, worker: &ChildRef<Worker>, how: How) {
        let before = self.record.exits(id).len();
        worker.run(move |worker, context| worker.end(context, how)).unwrap();
        quiet().await;
        let reason = self.record.exits(id).get(before).cloned();
        assert!(reason.as_ref().is_some_and(|reason| how.led_to(reason)), "{id}: {how:?} led to {reason:?}");
    }

    /// Stops the tree and sees it end for the reason that a stopped one has; says how long that took.
    pub(crate) async fn stop(self) -> Duration {
        self.root_stop(ExitReason::Shutdown).await
    }

    /// Sees it ended by itself for this reason, and ends its threads.
    pub(crate) async fn gone(self, reason: ExitReason) {
        assert_eq!(self.exit().await, reason);
        self.root_stop(reason).await;
    }

    /// Sees it ended because this child needed one restart too many, and ends its threads.
    pub(crate) async fn gave_up(self, child: &str) {
        let reason = self.exit().await;
        assert!(matches!(&reason, ExitReason::GaveUp { child: at, .. } if at.as_str() == child), "{reason:?}");
        self.root_stop(reason).await;
    }

    async fn root_stop(self, reason: ExitReason) -> Duration {
        let began = tokio::time::Instant::now();
        let root = Arc::clone(&self.root);
        let stop = actix_rt::spawn(async move { root.shutdown().await });
        assert_eq!(self.exit().await, reason);
        let took = began.elapsed();
        // The threads of the pool end in real time.
        tokio::time::resume();
        stop.await.unwrap().unwrap();
        tokio::time::pause();
        took
    }
}

/// OTP's requests by name, with their answers in short.
pub(crate) trait Asks {
    async fn terminate(&self, id: &str) -> Result<(), SupervisorError>;
    async fn restart(&self, id: &str) -> Result<u64, SupervisorError>;
    async fn delete(&self, id: &str) -> Result<(), SupervisorError>;
    /// Every child in start order with what stands for its pid.
    async fn which(&self) -> Vec<(String, Presence)>;
    /// Specs, active, supervisors, workers.
    async fn counts(&self) -> [usize; 4];
}

impl Asks for SupervisorRef {
    async fn terminate(&self, id: &str) -> Result<(), SupervisorError> {
        soon(self.terminate_child(&id.into())).await
    }

    async fn restart(&self, id: &str) -> Result<u64, SupervisorError> {
        let started = soon(self.restart_child(&id.into())).await?;
        Ok(started.incarnation().expect("it is not ignored"))
    }

    async fn delete(&self, id: &str) -> Result<(), SupervisorError> {
        soon(self.delete_child(&id.into())).await
    }

    async fn which(&self) -> Vec<(String, Presence)> {
        let children = self.which_children().await.unwrap();
        children.into_iter().map(|child| (child.id.to_string(), child.state)).collect()
    }

    async fn counts(&self) -> [usize; 4] {
        numbers(self.count_children().await.unwrap())
    }
}

pub(crate) fn numbers(Counts { specs, active, supervisors, workers }: Counts) -> [usize; 4] {
    [specs, active, supervisors, workers]
}

/// The flags of most cases: this many restarts an hour, then it gives up.
pub(crate) fn flags(strategy: Strategy, max_restarts: u32) -> SupervisorFlags {
    limited(strategy, max_restarts, HOUR)
}

pub(crate) fn limited(strategy: Strategy, max_restarts: u32, period: Duration) -> SupervisorFlags {
    SupervisorFlags { intensity: Some(Intensity { max_restarts, period }), ..SupervisorFlags::new(strategy) }
}

pub(crate) fn auto(auto_shutdown: AutoShutdown) -> SupervisorFlags {
    SupervisorFlags { auto_shutdown, ..flags(Strategy::OneForOne, 5) }
}

/// A child as the suite specifies it: permanent, a second to stop, restarted without delay.
pub(crate) fn spec(id: &str) -> ChildSpec {
    let none = Duration::ZERO;
    let backoff = Backoff { initial: none, then: none, max: none, jitter: 0.0, ..Backoff::default() };
    let (placement, shutdown) = (Placement::WithSupervisor, Shutdown::Deadline(MS * 1000));
    ChildSpec { backoff, placement, shutdown, ..ChildSpec::new(id) }
}

pub(crate) fn of_type(id: &str, restart: RestartType) -> ChildSpec {
    ChildSpec { restart, ..spec(id) }
}

/// How a worker ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum How {
    /// OTP's `normal`.
    Normal,
    /// Any abnormal reason.
    Died,
    /// What stands for OTP's `kill`: nobody outside can end an actor but its supervisor.
    Panic,
    /// Abnormal, and nobody's fault.
    Lost,
}

impl How {
    pub(crate) fn led_to(self, reason: &ExitReason) -> bool {
        match self {
            Self::Normal => *reason == ExitReason::Normal,
            Self::Died => *reason == ExitReason::Error("died".into()),
            Self::Panic => matches!(reason, ExitReason::Panic { text, .. } if &**text == "killed"),
            Self::Lost => *reason == ExitReason::Lost("lost".into()),
        }
    }
}

/// What a worker does at the turns of its life.
#[derive(Clone, Default)]
pub(crate) struct Role {
    /// Its factory declines.
    pub(crate) ignored: bool,
    /// Its factory fails, saying this.
    pub(crate) refused: Option<&'static str>,
    /// Only its first start succeeds.
    pub(crate) once: bool,
    /// While this is set a start takes two seconds and fails.
    pub(crate) deadlock: Option<Arc<AtomicBool>>,
    /// Each start is announced here and waits for [`Worker::let_in`].
    pub(crate) gate: Option<Sender<String>>,
    /// How long it winds down when it is stopped.
    pub(crate) slow: Duration,
    /// With what it ends when it is stopped.
    pub(crate) last: Option<How>,
}

/// What plays OTP's helper processes.
pub(crate) struct Worker {
    child: ChildCtx<Worker>,
    role: Role,
    deaf: bool,
    stopping: bool,
}

impl Worker {
    pub(crate) fn make(child: ChildCtx<Self>, role: Role) -> Result<Self, hivekeeper_actors::BoxError> {
        if role.ignored {
            return Err(Ignore.into());
        }
        if let Some(text) = role.refused {
            return Err(text.into());
        }
        if role.once && child.incarnation() > 1 {
            return Err("only once".into());
        }
        Ok(Self { child, role, deaf: false, stopping: false })
    }

    pub(crate) fn end(&mut self, context: &mut Context<Self>, how: How) {
        // Its own end takes no time: the role's is for stops.
        self.stopping = true;
        match how {
            How::Normal => context.stop(),
            How::Died => self.fail(context, "died"),
            How::Panic => panic!("killed"),
            How::Lost => self.child.lose(context, "lost"),
        }
    }

    /// Ends with a failure of this text.
    pub(crate) fn fail(&mut self, context: &mut Context<Self>, text: &'static str) {
        self.stopping = true;
        self.child.fail(context, text);
    }

    /// Lets a start behind the gate succeed.
    pub(crate) fn let_in(&mut self) {
        self.child.ready();
    }

    /// From now on it does not obey a stop.
    pub(crate) fn go_deaf(&mut self) {
        self.deaf = true;
    }
}

impl Actor for Worker {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        if let Some(deadlock) = &self.role.deadlock {
            if deadlock.load(Ordering::SeqCst) {
                context.run_later(MS * 2000, |worker, context| worker.end(context, How::Died));
            } else {
                self.child.ready();
            }
        }
        if let Some(gate) = &self.role.gate {
            gate.try_send(self.child.id().to_string()).unwrap();
        }
    }

    fn stopping(&mut self, context: &mut Self::Context) -> Running {
        if self.deaf {
            return Running::Continue;
        }
        if !self.stopping {
            self.stopping = true;
            if !self.role.slow.is_zero() {
                context.run_later(self.role.slow, |_, context| context.stop());
                return Running::Continue;
            }
            match self.role.last {
                None | Some(How::Normal) => {}
                Some(how) => self.end(context, how),
            }
        }
        Running::Stop
    }
}

pub(crate) fn worker(spec: ChildSpec) -> (Child, ChildRef<Worker>) {
    player(spec, Role::default())
}

pub(crate) fn player(mut spec: ChildSpec, role: Role) -> (Child, ChildRef<Worker>) {
    if role.deadlock.is_some() || role.gate.is_some() {
        spec.ready = Ready::Signalled;
    }
    Child::actor(spec, move |child| Worker::make(child, role.clone()))
}
