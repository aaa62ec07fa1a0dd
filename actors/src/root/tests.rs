#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use actix::{Actor, ActorContext, AsyncContext, Context, Running};

use super::*;
use crate::child_ref::ChildRef;
use crate::event::SupervisionEvent;
use crate::flags::Strategy;
use crate::inbox::TellError;
use crate::spec::Backoff;

struct Deaf;
impl EventSink for Deaf {
    fn event(&self, _: SupervisionEvent) {}
}

/// Takes a little time to stop.
struct Slow {
    asked: bool,
    alive: Arc<AtomicUsize>,
    stopped: Arc<AtomicUsize>,
}

impl Actor for Slow {
    type Context = Context<Self>;

    fn stopping(&mut self, context: &mut Self::Context) -> Running {
        if std::mem::replace(&mut self.asked, true) {
            return Running::Stop;
        }
        context.run_later(Duration::from_millis(50), |_, context| context.stop());
        Running::Continue
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.stopped.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Clone, Default)]
struct Counts {
    alive: Arc<AtomicUsize>,
    stopped: Arc<AtomicUsize>,
}

fn slow(name: &str, counts: &Counts) -> (Child, ChildRef<Slow>) {
    let Counts { alive, stopped } = counts.clone();
    let backoff = Backoff { then: Duration::ZERO, ..Backoff::default() };
    Child::actor(ChildSpec { backoff, ..ChildSpec::new(name) }, move |_| {
        alive.fetch_add(1, Ordering::SeqCst);
        Ok(Slow { asked: false, alive: Arc::clone(&alive), stopped: Arc::clone(&stopped) })
    })
}

fn unlimited() -> SupervisorFlags {
    SupervisorFlags::unlimited(Strategy::OneForOne)
}

async fn until(what: &str, met: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !met() {
        assert!(tokio::time::Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn when_the_first_supervisor_panics_every_child_stops_in_its_own_time() {
    actix_rt::System::new().block_on(async {
        let counts = Counts::default();
        let ((a, first), (b, _)) = (slow("a", &counts), slow("b", &counts));
        let (swarm, swarm_ref) = Child::supervisor(ChildSpec::new("swarm"), unlimited(), vec![b]);
        let root = Root::start(unlimited(), vec![a, swarm], Arc::new(Deaf)).unwrap();
        root.started().await.unwrap();
        root.supervisor.inner.run(|_, _| panic!("a bug in the supervisor")).unwrap();
        assert!(matches!(root.done().await, ExitReason::Panic { .. }));
        assert_eq!(first.run(|_, _| ()), Err(TellError::Stopped));
        root.shutdown().await.unwrap();
        assert_eq!(counts.alive.load(Ordering::SeqCst), 0);
        assert_eq!(counts.stopped.load(Ordering::SeqCst), 2, "with their hooks, not cut off with their threads");
        assert!(swarm_ref.snapshot().await.is_err());
        assert_eq!(*root.env().orphans.borrow(), 0);
    });
}

#[test]
fn a_tree_that_ends_before_it_has_started_says_why() {
    actix_rt::System::new().block_on(async {
        let (a, never_ready) = Child::actor(
            ChildSpec { ready: crate::spec::Ready::Signalled, ..ChildSpec::new("a") },
            |_| -> Result<Slow, crate::child::BoxError> {
                Ok(Slow { asked: true, alive: Arc::new(AtomicUsize::new(1)), stopped: Arc::default() })
            },
        );
        let root = Root::start(unlimited(), vec![a], Arc::new(Deaf)).unwrap();
        until("it is made", || never_ready.incarnation() == 1).await;
        let (started, ended) = tokio::join!(root.started(), root.shutdown());
        assert_eq!((started, ended), (Err(ExitReason::Shutdown), Ok(())));
    });
}

#[test]
fn a_blocked_orphan_makes_room_for_its_successor() {
    actix_rt::System::new().block_on(async {
        let counts = Counts::default();
        let (a, blocked) = slow("a", &counts);
        let backoff = Backoff { initial: Duration::ZERO, then: Duration::ZERO, ..Backoff::default() };
        let (swarm, swarm_ref) =
            Child::supervisor(ChildSpec { backoff, ..ChildSpec::new("swarm") }, unlimited(), vec![a]);
        let settings = Settings { threads: 1, stuck_after: Some(Duration::from_secs(1)), ..Settings::default() };
        let root = Root::start_with(settings, unlimited(), vec![swarm], Arc::new(Deaf)).unwrap();
        root.started().await.unwrap();
        let (gate, wait) = sync_channel::<()>(0);
        blocked.run(move |_, _| assert!(wait.recv().is_err())).unwrap();
        until("the handler blocks", || blocked.is_empty()).await;
        // The supervisor that launched it never hears of the fence, and the next one is there long before it.
        swarm_ref.inner.run(|_, _| panic!("a bug in the supervisor")).unwrap();
        until("the next supervisor waits to start it", || blocked.incarnation() == 2).await;
        assert_eq!((root.stats().fenced, counts.alive.load(Ordering::SeqCst)), (0, 1));
        let (sender, receiver) = tokio::sync::oneshot::channel();
        blocked.run(move |_, _| assert!(sender.send(()).is_ok())).unwrap();
        receiver.await.unwrap();
        assert_eq!(root.stats().leaked, 1);
        drop(gate);
        until("the thread comes back", || root.stats().leaked == 0).await;
        root.shutdown().await.unwrap();
        assert_eq!((counts.alive.load(Ordering::SeqCst), *root.env().orphans.borrow()), (0, 0));
    });
}

#[test]
fn the_system_ends_after_the_tree() {
    let counts = Counts::default();
    let system = actix_rt::System::new();
    system.block_on(async {
        let root = Root::start(unlimited(), vec![slow("a", &counts).0], Arc::new(Deaf)).unwrap();
        root.started().await.unwrap();
        root.shutdown_system().await.unwrap();
    });
    assert_eq!(counts.stopped.load(Ordering::SeqCst), 1);
    system.run().unwrap();
}

/// A system that is not entered has no place for the supervisors.
#[test]
fn a_tree_needs_a_system_that_runs() {
    let system = actix_rt::System::new();
    let refused = Root::start(unlimited(), vec![], Arc::new(Deaf)).err();
    assert_eq!(refused, Some(StartError::Threads));
    system.block_on(async {
        let root = Root::start(unlimited(), vec![], Arc::new(Deaf)).unwrap();
        root.shutdown().await.unwrap();
    });
}
