#![allow(clippy::unwrap_used, reason = "tests")]

use std::any::Any;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
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
use crate::spec::{ChildSpec, Placement};
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

/// The child's thread lives on, and so does everything that is not below the supervisor.
#[test]
fn a_step_that_panics_on_the_thread_of_a_child_ends_the_supervisor() {
    System::new().block_on(async {
        let (odd, odd_ref) = odd(Placement::Pool, |_| panic!("a bug in the supervisor"));
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
        let polled = order.as_mut().poll(&mut TaskContext::from_waker(Waker::noop()));
        assert_eq!(polled, Poll::Ready(Err(SupervisorError::Gone)));
        // Nobody is heard before it has ended.
        let nobody = "nobody".into();
        let mut late = Box::pin(swarm_ref.start_existing(&nobody));
        assert!(late.as_mut().poll(&mut TaskContext::from_waker(Waker::noop())).is_pending());
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
