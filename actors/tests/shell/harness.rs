//! A system to run in, an actor to torment, a sink that remembers.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix::prelude::*;
use hivekeeper_actors::{
    Backoff, Child, ChildCtx, ChildRef, ChildSpec, EventKind, EventSink, ExitReason, Root, Strategy, SupervisionEvent,
    SupervisorFlags, ThreadEvent,
};
use parking_lot::Mutex;

#[path = "../support/mod.rs"]
mod support;

pub(crate) use support::{MS, PATIENCE, system, until};

#[derive(Default)]
pub(crate) struct Record(Mutex<Vec<SupervisionEvent>>, Mutex<Vec<ThreadEvent>>);

impl EventSink for Record {
    fn event(&self, event: SupervisionEvent) {
        self.0.lock().push(event);
    }

    fn thread(&self, event: ThreadEvent) {
        self.1.lock().push(event);
    }
}

impl Record {
    /// Everything so far as `NAME KIND` in short.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().iter().map(|event| format!("{} {}", event.id, short(&event.kind))).collect()
    }

    /// What was said of threads.
    pub(crate) fn threads(&self) -> Vec<ThreadEvent> {
        self.1.lock().clone()
    }

    pub(crate) fn exits(&self, id: &str) -> Vec<ExitReason> {
        let exit = |event: &SupervisionEvent| match &event.kind {
            EventKind::Exited { reason } if event.id.as_str() == id => Some(reason.clone()),
            _ => None,
        };
        self.0.lock().iter().filter_map(exit).collect()
    }

    pub(crate) fn count(&self, line: &str) -> usize {
        self.lines().iter().filter(|seen| *seen == line).count()
    }

    pub(crate) async fn saw(&self, line: &str) {
        until(line, || self.count(line) > 0).await;
    }
}

pub(crate) fn short(kind: &EventKind) -> &'static str {
    match kind {
        EventKind::Starting { .. } => "starting",
        EventKind::Started { .. } => "started",
        EventKind::Exited { .. } => "exited",
        EventKind::BackingOff { .. } => "backing_off",
        EventKind::Failed { .. } => "failed",
        EventKind::GroupRestart { .. } => "group_restart",
        EventKind::Pending => "pending",
        EventKind::LimitReached { .. } => "limit_reached",
        EventKind::AutoShutdown => "auto_shutdown",
        EventKind::Completed => "completed",
        EventKind::Stopping => "stopping",
        EventKind::Stopped => "stopped",
        EventKind::Removed => "removed",
    }
}

pub(crate) fn start(children: Vec<Child>) -> (Root, Arc<Record>) {
    let record = Arc::new(Record::default());
    let root = Root::start(
        SupervisorFlags::unlimited(Strategy::OneForOne),
        children,
        Arc::clone(&record) as Arc<dyn EventSink>,
    )
    .unwrap();
    (root, record)
}

/// What a probe does at the turns of its life.
#[derive(Clone, Default)]
pub(crate) struct Script {
    pub(crate) in_started: Option<fn(&mut Probe, &mut Context<Probe>)>,
    pub(crate) in_stopping: Option<fn(&mut Probe, &mut Context<Probe>) -> Running>,
    pub(crate) in_stopped: Option<fn()>,
    pub(crate) in_drop: Option<fn()>,
    /// Probes of this script that live, and the most that ever did at once.
    pub(crate) alive: Arc<AtomicUsize>,
    pub(crate) alive_max: Arc<AtomicUsize>,
}

/// An actor that is not `Send` and does as it is told.
pub(crate) struct Probe {
    pub(crate) child: ChildCtx<Probe>,
    pub(crate) sum: Rc<std::cell::Cell<u32>>,
    pub(crate) stops: u32,
    script: Script,
}

impl Probe {
    pub(crate) fn new(child: ChildCtx<Self>) -> Self {
        let script = Script::default();
        script.alive.fetch_add(1, Ordering::SeqCst);
        Self { child, sum: Rc::default(), stops: 0, script }
    }
}

impl Actor for Probe {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        if let Some(hook) = self.script.in_started {
            hook(self, context);
        }
    }

    fn stopping(&mut self, context: &mut Self::Context) -> Running {
        self.stops += 1;
        self.script.in_stopping.map_or(Running::Stop, |hook| hook(self, context))
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        if let Some(hook) = self.script.in_stopped {
            hook();
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.script.alive.fetch_sub(1, Ordering::SeqCst);
        if let Some(hook) = self.script.in_drop {
            hook();
        }
    }
}

/// Adds and answers the sum and the incarnation that answers.
#[derive(Message)]
#[rtype(result = "(u32, u64)")]
pub(crate) struct Add(pub(crate) u32);

impl Handler<Add> for Probe {
    type Result = MessageResult<Add>;

    fn handle(&mut self, Add(n): Add, _: &mut Self::Context) -> Self::Result {
        self.sum.set(self.sum.get() + n);
        MessageResult((self.sum.get(), self.child.incarnation()))
    }
}

/// Panics in the handler.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Boom;

impl Handler<Boom> for Probe {
    type Result = ();

    fn handle(&mut self, _: Boom, _: &mut Self::Context) {
        panic!("boom in the handler");
    }
}

pub(crate) fn scripted(spec: ChildSpec, script: Script) -> (Child, ChildRef<Probe>) {
    Child::actor(spec, move |child| {
        let alive = script.alive.fetch_add(1, Ordering::SeqCst) + 1;
        script.alive_max.fetch_max(alive, Ordering::SeqCst);
        Ok(Probe { child, sum: Rc::default(), stops: 0, script: script.clone() })
    })
}

/// Restarts at once, however often.
pub(crate) fn eager(name: &str) -> ChildSpec {
    let backoff = Backoff { then: Duration::ZERO, jitter: 0.0, ..Backoff::default() };
    let intensity = Some(hivekeeper_actors::Intensity { max_restarts: 1000, ..Default::default() });
    ChildSpec { backoff, intensity, ..ChildSpec::new(name) }
}

pub(crate) fn probe(name: &str) -> (Child, ChildRef<Probe>) {
    scripted(eager(name), Script::default())
}

/// Which incarnation answers.
pub(crate) async fn answers(child: &ChildRef<Probe>) -> u64 {
    child.ask(Add(0), PATIENCE).await.unwrap().1
}
