//! The life of one incarnation, from the proof that its predecessor is dead to its own exit record; `begin` is its beginning.

mod begin;

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{sync::mpsc, time::Instant};

use begin::{Begun, Proof};

use super::{
    child::{Job, Order},
    contract::{AgentEvent, Launched, Runtime},
    end::{End, judge},
    keep::{keep_lines, keep_loss, keep_sign},
};
use crate::model::{ExitCause, ExitRecord, LaunchId, Observation, Ready, exit::LAST_LINES_MAX};

/// Between two tries of something that the daemon waits for: the journal, a launcher that does not answer. Short against a lease, long against a disk.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How long a launch that is under way may take once it is to be stopped: making a container takes a second or two.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// This part of its grace an agent has for ending by itself, if it has declared that it does so when asked: the other half is for SIGTERM.
const DRAIN_PART: u32 = 2;
/// How long a killed tree may take to end before its launch counts as unproven: beyond the launcher's own sweep deadline of 5 s.
const KILL_WAIT: Duration = Duration::from_secs(10);

/// Why a start waits, where no other name says it better.
const WAITS: &str = "start_waits";

/// How the incarnation begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// It is launched.
    Launch,
    /// It was launched by an earlier daemon and is taken over.
    Adopt,
}

/// Something happened that the drive decides on.
enum Input {
    Order(Order),
    Event(Option<AgentEvent>),
    SessionOpened,
    StartDeadline,
    Undrained,
    Kept,
}

/// What is being written down of an event; the next event waits for it, an order does not.
type Keeping = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Leads one incarnation to its end. Dropping the future kills the tree.
pub(super) async fn drive(
    job: Arc<Job>,
    incarnation: u64,
    automatic: bool,
    start: Start,
    ready: impl Fn(),
    orders: mpsc::Receiver<Order>,
) -> End {
    let mut drive = Drive {
        sign: match start {
            // It has shown its first sign of life to an earlier daemon; its session is its own affair.
            Start::Adopt => Ready::Process,
            Start::Launch => job.spec.ready,
        },
        job,
        incarnation,
        orders,
        launch_id: None,
        ready: false,
        stopping: false,
        forced: None,
        draining: None,
        frozen: false,
    };
    let Some(_turn) = drive.turn().await else { return End::Normal };
    let begun = match start {
        Start::Launch => drive.launch(automatic).await,
        Start::Adopt => drive.adopt().await,
    };
    match begun {
        Begun::Running(launched, opened) => drive.lead(launched, opened, ready).await,
        Begun::Ended(record) => drive.finish(record).await,
        Begun::Withdrawn => End::Normal,
        Begun::Fenced => drive.fenced().await,
    }
}

struct Drive {
    /// What counts as the first sign of life.
    sign: Ready,
    job: Arc<Job>,
    incarnation: u64,
    orders: mpsc::Receiver<Order>,
    launch_id: Option<LaunchId>,
    ready: bool,
    stopping: bool,
    forced: Option<ExitCause>,
    /// It was asked to end by itself. From then on it is ended, within what is left of its grace.
    draining: Option<(Instant, Duration)>,
    /// Its tree is frozen, and so is the clock of its start.
    frozen: bool,
}

impl Drive {
    async fn lead(
        mut self,
        mut launched: Launched,
        mut opened: tokio::sync::watch::Receiver<bool>,
        ready: impl Fn(),
    ) -> End {
        self.job.slot.set_control(Some(Arc::clone(&launched.control)));
        let mut deadline = Instant::now() + self.job.spec.start_timeout;
        let mut keeping: Option<Keeping> = None;
        loop {
            let wants_session = !self.ready && self.sign == Ready::Session;
            let input = tokio::select! {
                biased;
                order = next(&mut self.orders, self.stopping) => Input::Order(order),
                Ok(_) = opened.wait_for(|opened| *opened), if wants_session => Input::SessionOpened,
                () = tokio::time::sleep_until(deadline), if self.may_be_late() => {
                    Input::StartDeadline
                }
                () = tokio::time::sleep_until(self.draining.map_or(deadline, |(until, _)| until)), if self.draining.is_some() => {
                    Input::Undrained
                }
                // Last, so that an agent that floods its output can't hold the others back.
                () = kept(&mut keeping) => Input::Kept,
                event = launched.events.recv(), if keeping.is_none() => Input::Event(event),
            };
            match input {
                Input::Order(order) => self.obey(order, &launched),
                Input::SessionOpened => {
                    self.ready = true;
                    ready();
                }
                Input::StartDeadline => {
                    self.forced = Some(ExitCause::StartTimeout);
                    launched.control.kill();
                }
                Input::Undrained => {
                    if let Some((_, grace)) = self.draining.take() {
                        launched.control.stop(grace);
                    }
                }
                Input::Event(Some(AgentEvent::Exited(record))) => return self.finish(record).await,
                Input::Event(Some(AgentEvent::Fenced)) => return self.fenced().await,
                Input::Event(Some(AgentEvent::Paused(frozen))) => {
                    if self.frozen && !frozen {
                        deadline = Instant::now() + self.job.spec.start_timeout;
                    }
                    self.froze(frozen, &launched);
                }
                Input::Event(Some(event)) => keeping = self.take(event, &launched, &ready),
                Input::Event(None) => return self.unseen().await,
                Input::Kept => keeping = None,
            }
        }
    }

    fn obey(&mut self, order: Order, launched: &Launched) {
        match order {
            Order::EndStuck if !self.stopping => {
                self.forced = Some(ExitCause::Stuck);
                launched.control.stop(self.job.spec.stop_grace);
            }
            Order::EndStuck => {}
            Order::Stop => {
                let drains = !self.stopping && self.job.deps.drain.drain(&self.job.id, self.incarnation);
                self.stopping = true;
                let grace = self.job.slot.take_grace().unwrap_or(self.job.spec.stop_grace);
                // Who is frozen hears nothing.
                if drains && !self.frozen && self.forced.is_none() {
                    let patience = grace / DRAIN_PART;
                    self.draining = Some((Instant::now() + patience, grace - patience));
                } else {
                    self.draining = None;
                    launched.control.stop(grace);
                }
            }
        }
    }

    fn take(&mut self, event: AgentEvent, launched: &Launched, ready: &impl Fn()) -> Option<Keeping> {
        let (deps, agent) = (Arc::clone(&self.job.deps), self.job.id.clone());
        match event {
            AgentEvent::Alive { pid, at } => {
                self.saw(Observation::Alive { pid, at });
                if self.job.slot.paused() {
                    launched.control.pause();
                }
                if self.sign == Ready::Process && !self.ready {
                    self.ready = true;
                    ready();
                }
                let launch_id = self.launch_id?;
                return Some(Box::pin(keep_sign(deps, agent, launch_id, pid, at)));
            }
            AgentEvent::Output(lines) => {
                let control = Arc::clone(&launched.control);
                return Some(Box::pin(keep_lines(deps, agent, self.incarnation, lines, control)));
            }
            AgentEvent::Lost { lines, bytes } => {
                self.saw(Observation::Lost { lines, bytes });
                return Some(Box::pin(keep_loss(deps, agent, self.incarnation, lines, bytes)));
            }
            AgentEvent::Sample { at, cpu_cores, memory_bytes, processes } => {
                self.saw(Observation::Sample { at, cpu_cores, memory_bytes, processes });
            }
            AgentEvent::Unreachable => self.saw(Observation::Unreachable),
            AgentEvent::Paused(_) | AgentEvent::Exited(_) | AgentEvent::Fenced => {}
        }
        None
    }

    /// Whether its start is judged by the clock.
    fn may_be_late(&self) -> bool {
        !self.ready && !self.frozen && !self.stopping && self.forced.is_none()
    }

    /// What it shows is put beside what is wanted: a daemon may have died between the word and the order.
    fn froze(&mut self, frozen: bool, launched: &Launched) {
        self.frozen = frozen;
        self.saw(Observation::Paused(frozen));
        let wanted = self.job.slot.paused();
        if frozen == wanted || self.stopping || self.forced.is_some() {
            return;
        }
        if wanted { launched.control.pause() } else { launched.control.resume() }
    }

    /// The runtime fell silent without an end. The end is looked for, so that none is invented.
    async fn unseen(&mut self) -> End {
        let Some(open) = self.job.slot.unproven() else {
            return End::Failed("its runtime fell silent".to_owned());
        };
        match self.prove_dead(open).await {
            Proof::Dead(record) if !record.is_debited() => End::Lost(record.describe()),
            Proof::Dead(_) => End::Failed("its runtime fell silent; it was found and ended".to_owned()),
            Proof::Withdrawn => End::Normal,
            Proof::Fenced => self.fenced().await,
        }
    }

    async fn finish(&mut self, record: ExitRecord) -> End {
        let (record, end) = judge(record, self.stopping, self.forced.take());
        match self.launch_id {
            Some(launch_id) => self.close(launch_id, self.incarnation, record).await,
            None => self.saw(Observation::Exited(Arc::new(record))),
        }
        end
    }

    /// Writes an end down and tells it. A journal that can't take it gets it before the next start.
    async fn close(&self, launch_id: LaunchId, incarnation: u64, mut record: ExitRecord) {
        record.incarnation = incarnation;
        record.last_lines = self.job.deps.logs.tail(&self.job.id, incarnation, LAST_LINES_MAX);
        self.job.slot.revoke();
        self.job.deps.drain.ended(&self.job.id, incarnation);
        self.job.slot.set_control(None);
        match self.job.deps.journal.end_incarnation(launch_id, &record).await {
            Ok(()) => self.tidy(launch_id).await,
            Err(error) => {
                tracing::warn!(agent = %self.job.id, incarnation, %error, "failed to journal an exit");
                self.job.slot.keep_end(launch_id, record.clone());
            }
        }
        self.job.slot.set_unproven(None);
        self.job.deps.witness.saw(&self.job.id, incarnation, Observation::Exited(Arc::new(record)));
    }

    /// Removes what is kept of an ended launch; a restart does not wait for it.
    async fn tidy(&self, launch_id: LaunchId) {
        let runtime = Arc::clone(self.runtime());
        if self.stopping {
            runtime.forget(launch_id).await;
        } else {
            self.job.slot.tidy(async move { runtime.forget(launch_id).await });
        }
    }

    /// A younger daemon leads. Nothing is touched any more; the daemon's end drops this future.
    async fn fenced(&self) -> End {
        (self.job.deps.fenced)();
        std::future::pending().await
    }

    /// Waits so long; true when a stop came meanwhile.
    async fn stop_within(&mut self, pause: Duration) -> bool {
        tokio::time::timeout(pause, self.stopped()).await.is_ok()
    }

    /// Ends with an order to stop.
    async fn stopped(&mut self) {
        while let Some(Order::EndStuck) = self.orders.recv().await {}
    }

    fn runtime(&self) -> &Arc<dyn Runtime> {
        self.job.deps.runtimes.of(&self.job.id.swarm)
    }

    fn record(&self, cause: ExitCause) -> ExitRecord {
        ExitRecord::unseen(self.incarnation, SystemTime::now(), cause)
    }

    fn start_failed(&self, message: String) -> ExitRecord {
        self.record(ExitCause::StartFailed { message })
    }

    fn waits(&self, reason: String) {
        self.saw(Observation::Waiting { code: WAITS, reason });
    }

    fn saw(&self, what: Observation) {
        self.job.deps.witness.saw(&self.job.id, self.incarnation, what);
    }
}

async fn wait_exit(launched: &mut Launched) -> Option<ExitRecord> {
    let wait = async {
        while let Some(event) = launched.events.recv().await {
            if let AgentEvent::Exited(record) = event {
                return Some(record);
            }
        }
        None
    };
    tokio::time::timeout(KILL_WAIT, wait).await.ok().flatten()
}

/// The next order. A closed queue means that the actor is gone without a word: the agent must not outlive it, and there is nothing to wait for.
async fn next(orders: &mut mpsc::Receiver<Order>, stopping: bool) -> Order {
    match orders.recv().await {
        Some(order) => order,
        None if !stopping => Order::Stop,
        None => std::future::pending().await,
    }
}

/// Ends when what is being kept is kept; never while nothing is.
async fn kept(keeping: &mut Option<Keeping>) {
    match keeping {
        Some(keeping) => keeping.await,
        None => std::future::pending().await,
    }
}
