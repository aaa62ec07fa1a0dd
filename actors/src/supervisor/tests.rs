#![allow(clippy::unwrap_used, reason = "tests")]

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;

use actix_rt::System;

use super::*;
use crate::cell::{Seat, Spot};
use crate::child::Blueprint;
use crate::child_ref::ChildRef;
use crate::event::{EventKind, EventSink, SupervisionEvent};
use crate::exit::ExitReason;
use crate::flags::Strategy;
use crate::root::Root;
use crate::settings::Settings;
use crate::spec::{Backoff, ChildSpec, Placement, Shutdown};
use crate::watch::ThreadId;

const PATIENCE: Duration = Duration::from_secs(30);

struct Plain;

impl Actor for Plain {
    type Context = Context<Self>;
}

#[derive(Default)]
struct Exits(Mutex<Vec<(String, ExitReason)>>);

impl EventSink for Exits {
    fn event(&self, event: SupervisionEvent) {
        if let EventKind::Exited { reason } = event.kind {
            self.0.lock().push((event.id.to_string(), reason));
        }
    }
}

/// A child whose second launch does something else.
struct Odd {
    real: Arc<dyn Blueprint>,
    launches: AtomicU64,
    second: fn(&Seat),
}

impl Blueprint for Odd {
    fn launch(self: Arc<Self>, seat: Arc<Seat>, spot: Spot, home: Option<&Home>) {
        if self.launches.fetch_add(1, Ordering::SeqCst) == 1 {
            (self.second)(&seat);
        } else {
            Arc::clone(&self.real).launch(seat, spot, home);
        }
    }

    fn close(&self) {
        self.real.close();
    }

    fn fence_on(&self, thread: ThreadId) {
        self.real.fence_on(thread);
    }

    fn incarnation(&self) -> u64 {
        self.real.incarnation()
    }

    fn nested(&self) -> Option<&SupervisorRef> {
        None
    }

    fn heir(&self, _: &Arc<dyn Blueprint>) -> Option<Arc<dyn Blueprint>> {
        None
    }

    fn maker(self: Arc<Self>) -> Box<dyn Any> {
        Box::new(())
    }

    fn inbox(&self) -> usize {
        self.real.inbox()
    }
}

fn odd(placement: Placement, second: fn(&Seat)) -> (Child, ChildRef<Plain>) {
    let (child, child_ref) = Child::actor(ChildSpec { placement, ..ChildSpec::new("odd") }, |_| Ok(Plain));
    let odd = Odd { real: Arc::clone(&child.blueprint), launches: AtomicU64::new(0), second };
    (Child { blueprint: Arc::new(odd), ..child }, child_ref)
}

async fn until(what: &str, met: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !met() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn poll<F: Future>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future.as_mut().poll(&mut TaskContext::from_waker(Waker::noop()))
}

/// The child's thread lives on, and so does everything that is not below the supervisor.
#[test]
fn a_step_that_panics_on_the_thread_of_a_child_ends_the_supervisor() {
    System::new().block_on(async {
        let (odd, odd_ref) = odd(Placement::Pool, |seat| {
            // On its way to the actor, and heard no more.
            seat.watcher.down(Spot::Anywhere, seat.key, seat.incarnation, ExitReason::ArbiterGone);
            panic!("a bug in the supervisor")
        });
        let (sibling, sibling_ref) = Child::actor(ChildSpec::new("sibling"), |_| Ok(Plain));
        let flags = || SupervisorFlags::unlimited(Strategy::OneForOne);
        let (swarm, _) = Child::supervisor(ChildSpec::new("swarm"), flags(), vec![odd, sibling]);
        let exits = Arc::new(Exits::default());
        let root = Root::start(flags(), vec![swarm], Arc::clone(&exits) as Arc<dyn EventSink>).unwrap();
        root.started().await.unwrap();
        odd_ref.run(|_, _| panic!("boom")).unwrap();
        until("both are made anew", || odd_ref.stats().live && sibling_ref.incarnation() == 2).await;
        let seen = exits.0.lock().clone();
        let text = |(id, exit): &(String, ExitReason)| match exit {
            ExitReason::Panic { text, .. } => format!("{id} {text}"),
            other => format!("{id} {other}"),
        };
        let seen: Vec<String> = seen.iter().map(text).collect();
        assert_eq!(seen, ["odd boom", "swarm a bug in the supervisor"]);
        // An incarnation that was never launched is an orphan for ever: nobody waits for it here.
        drop(root);
    });
}

/// It is the supervisor's own panic: whoever gave the order hears that the supervisor is gone.
#[test]
fn a_step_that_panics_over_an_order_ends_the_supervisor() {
    System::new().block_on(async {
        // On one thread, so that nobody else has the lock.
        let (odd, odd_ref) = odd(Placement::WithSupervisor, |_| panic!("a bug in the supervisor"));
        let (sibling, sibling_ref) = Child::actor(ChildSpec::new("sibling"), |_| Ok(Plain));
        let flags = || SupervisorFlags::unlimited(Strategy::OneForOne);
        let (swarm, swarm_ref) = Child::supervisor(ChildSpec::new("swarm"), flags(), vec![odd, sibling]);
        let exits = Arc::new(Exits::default());
        let root = Root::start(flags(), vec![swarm], Arc::clone(&exits) as Arc<dyn EventSink>).unwrap();
        root.started().await.unwrap();
        let id = "odd".into();
        swarm_ref.terminate_child(&id).await.unwrap();
        let mut order = Box::pin(swarm_ref.start_existing(&id));
        assert_eq!(poll(&mut order), Poll::Ready(Err(SupervisorError::Gone)));
        // Nobody is heard before it has ended.
        let nobody = "nobody".into();
        let mut late = Box::pin(swarm_ref.start_existing(&nobody));
        assert!(poll(&mut late).is_pending());
        until("both are made anew", || odd_ref.stats().live && sibling_ref.incarnation() == 2).await;
        assert_eq!(late.await, Err(SupervisorError::NotFound));
        let seen = exits.0.lock().clone();
        assert!(matches!(&seen[1], (id, ExitReason::Panic { text, .. }) if id == "swarm" && &**text == "a bug in the supervisor"));
        // An incarnation that was never launched is an orphan for ever: nobody waits for it here.
        drop(root);
    });
}

#[test]
fn a_notice_that_comes_in_the_middle_of_a_step_is_heard_after_it() {
    System::new().block_on(async {
        let (odd, odd_ref) = odd(Placement::Pool, |seat| {
            seat.watcher.down(Spot::Turn, seat.key, seat.incarnation, ExitReason::ArbiterGone)
        });
        let exits = Arc::new(Exits::default());
        let flags = SupervisorFlags::unlimited(Strategy::OneForOne);
        let root = Root::start(flags, vec![odd], Arc::clone(&exits) as Arc<dyn EventSink>).unwrap();
        root.started().await.unwrap();
        odd_ref.run(|_, _| panic!("boom")).unwrap();
        until("the third is made", || odd_ref.incarnation() == 3).await;
        assert_eq!(exits.0.lock().last().unwrap().1, ExitReason::ArbiterGone);
        // An incarnation that was never launched is an orphan for ever: nobody waits for it here.
        drop(root);
    });
}

/// Nothing overtakes what is on its way to the actor.
#[test]
fn an_order_waits_behind_a_notice_that_was_sent_before_it() {
    System::new().block_on(async {
        let (odd, _) = odd(Placement::WithSupervisor, |seat| {
            seat.watcher.down(Spot::Anywhere, seat.key, seat.incarnation, ExitReason::ArbiterGone);
        });
        let exits = Arc::new(Exits::default());
        let flags = SupervisorFlags::unlimited(Strategy::OneForOne);
        let root = Root::start(flags, vec![odd], Arc::clone(&exits) as Arc<dyn EventSink>).unwrap();
        root.started().await.unwrap();
        let (supervisor, id, nobody) = (root.supervisor(), "odd".into(), "nobody".into());
        supervisor.terminate_child(&id).await.unwrap();
        let mut start = Box::pin(supervisor.start_existing(&id));
        assert!(poll(&mut start).is_pending());
        let mut late = Box::pin(supervisor.start_existing(&nobody));
        assert!(poll(&mut late).is_pending(), "it is not taken in before the end that is told");
        assert_eq!(late.await, Err(SupervisorError::NotFound));
        assert_eq!(exits.0.lock().last().unwrap().1, ExitReason::ArbiterGone);
        // An incarnation that was never launched is an orphan for ever: nobody waits for it here.
        drop(root);
    });
}

/// Stops when it is let go.
struct Lingers(Arc<AtomicBool>);

impl Actor for Lingers {
    type Context = Context<Self>;

    fn stopping(&mut self, context: &mut Self::Context) -> Running {
        if self.0.load(Ordering::SeqCst) {
            return Running::Stop;
        }
        context.run_later(Duration::from_millis(1), |_, context| context.stop());
        Running::Continue
    }
}

fn lingers(name: &str) -> (Child, ChildRef<Lingers>, Arc<AtomicBool>) {
    let let_go = Arc::new(AtomicBool::new(false));
    let theirs = Arc::clone(&let_go);
    let spec = ChildSpec { shutdown: Shutdown::Infinity, placement: Placement::WithSupervisor, ..ChildSpec::new(name) };
    let (child, child_ref) = Child::actor(spec, move |_| Ok(Lingers(Arc::clone(&theirs))));
    (child, child_ref, let_go)
}

/// As long as a child of it lingers there is a way to it.
#[test]
fn a_supervisor_that_is_gone_takes_no_order_and_keeps_nobody_waiting() {
    System::new().block_on(async {
        let (slow, slow_ref, let_go) = lingers("slow");
        let backoff = Backoff { initial: PATIENCE * 100, jitter: 0.0, ..Backoff::default() };
        let flags = || SupervisorFlags::unlimited(Strategy::OneForOne);
        let (swarm, swarm_ref) =
            Child::supervisor(ChildSpec { backoff, ..ChildSpec::new("swarm") }, flags(), vec![slow]);
        let root = Root::start(flags(), vec![swarm], Arc::<Exits>::default()).unwrap();
        root.started().await.unwrap();
        let (id, nobody) = ("slow".into(), "nobody".into());
        let mut stop = Box::pin(swarm_ref.terminate_child(&id));
        assert!(poll(&mut stop).is_pending());
        swarm_ref.inner.run(|_, _| panic!("a bug in the supervisor")).unwrap();
        assert_eq!(tokio::time::timeout(PATIENCE, stop).await, Ok(Err(SupervisorError::Gone)));
        assert!(slow_ref.stats().live);
        let mut late = Box::pin(swarm_ref.terminate_child(&nobody));
        assert!(poll(&mut late).is_pending(), "its successor will hear");
        let_go.store(true, Ordering::SeqCst);
        root.supervisor().start_existing(&"swarm".into()).await.unwrap();
        assert_eq!(late.await, Err(SupervisorError::NotFound));
        root.shutdown().await.unwrap();
    });
}

#[test]
fn a_root_that_waits_for_its_children_says_that_it_stops() {
    System::new().block_on(async {
        let (slow, _, let_go) = lingers("slow");
        let flags = SupervisorFlags::unlimited(Strategy::OneForOne);
        let root = Root::start(flags, vec![slow], Arc::<Exits>::default()).unwrap();
        root.started().await.unwrap();
        let supervisor = root.supervisor();
        assert_eq!(supervisor.snapshot().await.unwrap().state, ChildState::Running);
        let stopped = actix_rt::spawn(async move { root.shutdown().await });
        let deadline = Instant::now() + PATIENCE;
        while supervisor.snapshot().await.unwrap().state != ChildState::Stopping {
            assert!(Instant::now() < deadline, "it never said so");
        }
        let_go.store(true, Ordering::SeqCst);
        stopped.await.unwrap().unwrap();
    });
}

/// The successor of its supervisor waits for it, whose own supervisor could not hear that its thread is blocked.
#[test]
fn a_blocked_child_that_was_left_behind_makes_room_when_it_is_found_out() {
    System::new().block_on(async {
        // Nothing but the fence ends the wait.
        let spec = ChildSpec { start_timeout: None, ..ChildSpec::new("a") };
        let (child, child_ref) = Child::actor(spec, |_| Ok(Plain));
        let flags = || SupervisorFlags::unlimited(Strategy::OneForOne);
        let (swarm, swarm_ref) = Child::supervisor(ChildSpec::new("swarm"), flags(), vec![child]);
        let settings = Settings { threads: 2, stuck_after: Some(Duration::from_secs(2)), ..Settings::default() };
        let root = Root::start_with(settings, flags(), vec![swarm], Arc::<Exits>::default()).unwrap();
        root.started().await.unwrap();
        let (gate, wait) = std::sync::mpsc::sync_channel::<()>(0);
        let (begun, has_begun) = oneshot::channel();
        child_ref
            .run(move |_, _| {
                begun.send(()).unwrap();
                assert!(wait.recv().is_err());
            })
            .unwrap();
        has_begun.await.unwrap();
        swarm_ref.inner.run(|_, _| panic!("a bug in the supervisor")).unwrap();
        until("the next one waits for it", || child_ref.incarnation() == 2).await;
        let (sender, receiver) = oneshot::channel();
        child_ref.run(|_, _| sender.send(()).unwrap()).unwrap();
        tokio::time::timeout(PATIENCE, receiver).await.unwrap().unwrap();
        assert!(root.stats().leaked > 0, "the first is still blocked");
        drop(gate);
        root.shutdown().await.unwrap();
    });
}
