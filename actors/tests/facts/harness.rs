//! One unmodified actix actor that is run both ways, and what was seen of it.

#![allow(dead_code, reason = "shared by several test programs, none of which uses all of it")]

use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use actix::prelude::*;
use hivekeeper_actors::{
    Backoff, Child, ChildRef, ChildSpec, EventKind, EventSink, ExitReason, Intensity, Root, Settings, Strategy,
    SupervisionEvent, SupervisorFlags,
};
use parking_lot::Mutex;

#[path = "../support/mod.rs"]
mod support;

pub(crate) use support::{MS, PATIENCE, system, until};

/// Gives every task of this thread that is ready many turns.
pub(crate) async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// Where a specimen misbehaves by itself.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Manner {
    #[default]
    Well,
    PanicsInStarted,
    PanicsInStopping,
    PanicsInStopped,
    /// `stopping()` says `Running::Continue`.
    StaysOn,
    /// It winds down for a moment and then stops.
    WindsDown,
}

/// What was seen of all specimens that share it.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) starts: AtomicUsize,
    /// Calls of `Supervised::restarting`.
    pub(crate) restarts: AtomicUsize,
    /// Calls of `stopping()`.
    pub(crate) stops: AtomicUsize,
    pub(crate) pings: AtomicUsize,
    /// Pings that were handled while the stack unwound.
    pub(crate) pings_in_unwinding: AtomicUsize,
    pub(crate) log: Mutex<Vec<String>>,
}

impl Seen {
    pub(crate) fn starts(&self) -> usize {
        self.starts.load(Ordering::SeqCst)
    }

    pub(crate) fn restarts(&self) -> usize {
        self.restarts.load(Ordering::SeqCst)
    }

    pub(crate) fn stops(&self) -> usize {
        self.stops.load(Ordering::SeqCst)
    }

    pub(crate) fn pings(&self) -> usize {
        self.pings.load(Ordering::SeqCst)
    }

    pub(crate) fn note(&self, line: impl Into<String>) {
        self.log.lock().push(line.into());
    }

    pub(crate) fn notes(&self) -> Vec<String> {
        self.log.lock().clone()
    }
}

/// An actor that knows nothing of supervision.
pub(crate) struct Specimen {
    pub(crate) name: String,
    pub(crate) manner: Manner,
    pub(crate) seen: Arc<Seen>,
    /// Its state, which a fresh incarnation has lost.
    pub(crate) sum: usize,
    winding_down: bool,
}

impl Specimen {
    pub(crate) fn new(name: &str, manner: Manner, seen: &Arc<Seen>) -> Self {
        Self { name: name.to_owned(), manner, seen: Arc::clone(seen), sum: 0, winding_down: false }
    }
}

impl Actor for Specimen {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        self.seen.starts.fetch_add(1, Ordering::SeqCst);
        assert!(self.manner != Manner::PanicsInStarted, "in started");
    }

    fn stopping(&mut self, context: &mut Self::Context) -> Running {
        self.seen.stops.fetch_add(1, Ordering::SeqCst);
        match self.manner {
            Manner::PanicsInStopping => panic!("in stopping"),
            Manner::StaysOn => Running::Continue,
            Manner::WindsDown if !std::mem::replace(&mut self.winding_down, true) => {
                context.run_later(MS, |specimen, context| {
                    specimen.seen.note(format!("{} wound down", specimen.name));
                    context.stop();
                });
                Running::Continue
            }
            _ => Running::Stop,
        }
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        assert!(self.manner != Manner::PanicsInStopped, "in stopped");
    }
}

impl Supervised for Specimen {
    fn restarting(&mut self, _: &mut Self::Context) {
        self.seen.restarts.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for Specimen {
    fn drop(&mut self) {
        self.seen.note(format!("{} dropped", self.name));
    }
}

/// Counts, and answers how many this object has counted.
#[derive(Clone, Message)]
#[rtype(result = "usize")]
pub(crate) struct Ping;

impl Handler<Ping> for Specimen {
    type Result = usize;

    fn handle(&mut self, _: Ping, _: &mut Self::Context) -> usize {
        self.sum += 1;
        self.seen.pings.fetch_add(1, Ordering::SeqCst);
        if std::thread::panicking() {
            self.seen.pings_in_unwinding.fetch_add(1, Ordering::SeqCst);
        }
        self.sum
    }
}

/// Panics in the handler.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub(crate) struct Boom;

impl Handler<Boom> for Specimen {
    type Result = ();

    fn handle(&mut self, _: Boom, _: &mut Self::Context) {
        panic!("in a handler");
    }
}

/// Panics in the future of a `ResponseActFuture`.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct BoomLater;

impl Handler<BoomLater> for Specimen {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, _: BoomLater, _: &mut Self::Context) -> Self::Result {
        Box::pin(actix::fut::wrap_future(async {
            tokio::task::yield_now().await;
            panic!("in a response future");
        }))
    }
}

type Deed = Box<dyn FnOnce(&mut Specimen, &mut Context<Specimen>) + Send>;

/// Runs a closure in the handler.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Do(Deed);

impl Do {
    pub(crate) fn new(deed: impl FnOnce(&mut Specimen, &mut Context<Specimen>) + Send + 'static) -> Self {
        Self(Box::new(deed))
    }
}

impl Handler<Do> for Specimen {
    type Result = ();

    fn handle(&mut self, Do(deed): Do, context: &mut Self::Context) {
        deed(self, context);
    }
}

/// Blocks a thread until it may go on. Who holds the other end is told when it blocks.
pub(crate) fn block(seen: &Arc<Seen>) -> (Do, Receiver<()>, SyncSender<()>) {
    let (blocked, is_blocked) = sync_channel(1);
    let (release, released) = sync_channel::<()>(1);
    let seen = Arc::clone(seen);
    let deed = move |_: &mut Specimen, _: &mut Context<Specimen>| {
        blocked.send(()).unwrap();
        let _ = released.recv_timeout(PATIENCE);
        seen.note("unblocked");
    };
    (Do::new(deed), is_blocked, release)
}

#[derive(Default)]
pub(crate) struct Record(Mutex<Vec<SupervisionEvent>>);

impl EventSink for Record {
    fn event(&self, event: SupervisionEvent) {
        self.0.lock().push(event);
    }
}

impl Record {
    /// Everything so far as `NAME Kind`.
    pub(crate) fn lines(&self) -> Vec<String> {
        let kind = |kind: &EventKind| {
            let text = format!("{kind:?}");
            text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
        };
        self.0.lock().iter().map(|event| format!("{} {}", event.id, kind(&event.kind))).collect()
    }

    pub(crate) fn count(&self, line: &str) -> usize {
        self.lines().iter().filter(|seen| *seen == line).count()
    }

    pub(crate) async fn saw(&self, line: &str) {
        until(line, || self.count(line) > 0).await;
    }

    pub(crate) fn exits(&self, id: &str) -> Vec<ExitReason> {
        let exit = |event: &SupervisionEvent| match &event.kind {
            EventKind::Exited { reason } if event.id.as_str() == id => Some(reason.clone()),
            _ => None,
        };
        self.0.lock().iter().filter_map(exit).collect()
    }

    /// What `pick` takes from the events of `id`.
    pub(crate) fn of<T>(&self, id: &str, pick: impl Fn(&EventKind) -> Option<T>) -> Vec<T> {
        let events = self.0.lock();
        events.iter().filter(|event| event.id.as_str() == id).filter_map(|event| pick(&event.kind)).collect()
    }

    /// What the panics that ended `id` said.
    pub(crate) fn panics(&self, id: &str) -> Vec<String> {
        let text = |exit: ExitReason| match exit {
            ExitReason::Panic { text, .. } => text.to_string(),
            other => format!("no panic: {other:?}"),
        };
        self.exits(id).into_iter().map(text).collect()
    }
}

pub(crate) fn start(children: Vec<Child>) -> (Root, Arc<Record>) {
    start_with(SupervisorFlags::unlimited(Strategy::OneForOne), children)
}

pub(crate) fn start_with(flags: SupervisorFlags, children: Vec<Child>) -> (Root, Arc<Record>) {
    let record = Arc::new(Record::default());
    let root = Root::start(flags, children, Arc::clone(&record) as Arc<dyn EventSink>).unwrap();
    (root, record)
}

/// As [`start`], on one thread whose children are taken elsewhere as soon as one of them blocks it.
pub(crate) fn start_watched(children: Vec<Child>) -> (Root, Arc<Record>) {
    let record = Arc::new(Record::default());
    let settings = Settings { threads: 1, stuck_after: Some(MS * 40), ..Settings::default() };
    let flags = SupervisorFlags::unlimited(Strategy::OneForOne);
    let root = Root::start_with(settings, flags, children, Arc::clone(&record) as Arc<dyn EventSink>).unwrap();
    (root, record)
}

/// Restarts at once, however often.
pub(crate) fn eager(name: &str) -> ChildSpec {
    let backoff = Backoff { then: Duration::ZERO, jitter: 0.0, ..Backoff::default() };
    let intensity = Some(Intensity { max_restarts: 10_000, ..Intensity::default() });
    ChildSpec { backoff, intensity, ..ChildSpec::new(name) }
}

/// The specimen as a child.
pub(crate) fn specimen(spec: ChildSpec, manner: Manner, seen: &Arc<Seen>) -> (Child, ChildRef<Specimen>) {
    let seen = Arc::clone(seen);
    Child::actor(spec, move |child| Ok(Specimen::new(child.id().as_str(), manner, &seen)))
}

/// Runs one test of this very program alone in a process of its own, with `role` in the environment variable [`ROLE`].
pub(crate) fn alone(test: &str, role: &str) -> (ExitStatus, String) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status, text)
}

/// See [`alone`].
pub(crate) const ROLE: &str = "HIVEKEEPER_TEST_ROLE";

/// What this process was started to do by [`alone`].
pub(crate) fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}
