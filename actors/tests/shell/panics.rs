//! A panic anywhere in a child is its exit and nobody else's.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use actix::prelude::*;
use hivekeeper_actors::{BoxError, Child, ChildSpec, ExitReason, Intensity, SupervisorFlags};

use crate::harness::*;

/// Panics a child in some way and expects the text as its exit, a second incarnation that answers, and an untouched sibling.
fn isolated(text: &'static str, torment: fn(&mut Probe, &mut Context<Probe>)) {
    system(async move {
        let ((a, victim), (b, sibling)) = (probe("victim"), probe("sibling"));
        let (root, record) = start(vec![a, b]);
        victim.run(torment).unwrap();
        record.saw("victim exited").await;
        assert_eq!(answers(&victim).await, 2);
        assert_eq!(answers(&sibling).await, 1);
        match &record.exits("victim")[..] {
            [ExitReason::Panic { text: said, location }] => {
                assert_eq!(&**said, text);
                assert!(location.contains("panics.rs:"), "{location}");
            }
            other => panic!("not one panic: {other:?}"),
        }
        root.shutdown().await.unwrap();
    });
}

#[test]
fn panic_in_a_message() {
    isolated("in a message 7", |_, _| panic!("in a message {}", 7));
}

#[test]
fn panic_in_spawn() {
    isolated("in spawn", |_, ctx| {
        ctx.spawn(actix::fut::ready(()).map(|(), _: &mut Probe, _| panic!("in spawn")));
    });
}

#[test]
fn panic_in_wait() {
    isolated("in wait", |_, ctx| ctx.wait(actix::fut::ready(()).map(|(), _: &mut Probe, _| panic!("in wait"))));
}

#[test]
fn panic_in_run_later() {
    isolated("in run_later", |_, ctx| {
        ctx.run_later(MS, |_, _| panic!("in run_later"));
    });
}

#[test]
fn panic_in_stopping() {
    system(async {
        let script = Script { in_stopping: Some(|_, _| panic!("in stopping")), ..Script::default() };
        let (child, victim) = scripted(eager("a"), script.clone());
        let (root, record) = start(vec![child]);
        victim.run(|_, ctx| ctx.stop()).unwrap();
        record.saw("a exited").await;
        assert_eq!(answers(&victim).await, 2);
        root.shutdown().await.unwrap();
        assert_eq!(script.alive.load(Ordering::SeqCst), 0);
        assert!(
            record.exits("a").iter().all(|exit| matches!(exit, ExitReason::Panic { .. })),
            "{:?}",
            record.exits("a")
        );
    });
}

#[test]
fn panic_without_text() {
    isolated("a panic without text", |_, _| std::panic::panic_any(42_u8));
}

#[test]
fn panic_in_started_is_a_failed_start() {
    system(async {
        let script = Script { in_started: Some(|_, _| panic!("in started")), ..Script::default() };
        let intensity = Intensity { max_restarts: 3, ..Intensity::default() };
        let (a, _) = scripted(ChildSpec { intensity: Some(intensity), ..eager("a") }, script);
        let (b, sibling) = probe("b");
        let (root, record) = start(vec![a, b]);
        record.saw("a failed").await;
        assert_eq!((record.count("a starting"), record.count("a started")), (4, 0));
        assert_eq!(answers(&sibling).await, 1, "the order goes on");
        root.shutdown().await.unwrap();
    });
}

#[test]
fn panic_and_error_in_the_factory() {
    system(async {
        let (child, victim) = Child::actor(eager("a"), |child| match child.incarnation() {
            1 => panic!("in the factory"),
            2 => Err(BoxError::from("no room")),
            _ => Ok(Plain),
        });
        let (root, record) = start(vec![child]);
        record.saw("a started").await;
        assert_eq!(victim.incarnation(), 3);
        let exits = record.exits("a");
        assert!(matches!(&exits[0], ExitReason::Panic { text, .. } if &**text == "in the factory"), "{exits:?}");
        assert_eq!(exits[1..], [ExitReason::StartFailed("no room".into())]);
        root.shutdown().await.unwrap();
    });
}

struct Plain;
impl Actor for Plain {
    type Context = Context<Self>;
}

/// With actix alone each of these aborts the process: hooks run during unwinding, and panic again.
#[test]
fn double_panic_does_not_abort() {
    system(async {
        let script = Script {
            in_stopping: Some(|_, _| panic!("second, in stopping")),
            in_stopped: Some(|| panic!("second, in stopped")),
            in_drop: Some(|| panic!("second, in drop")),
            ..Script::default()
        };
        let (child, victim) = scripted(eager("a"), script);
        let (root, record) = start(vec![child]);
        victim.tell(Boom).unwrap();
        assert_eq!(answers(&victim).await, 2);
        let exits = record.exits("a");
        assert!(
            matches!(&exits[..], [ExitReason::Panic { text, .. }] if &**text == "boom in the handler"),
            "{exits:?}"
        );
        root.shutdown().await.unwrap();
    });
}

/// Notes what runs on it.
struct Watched(Arc<parking_lot::Mutex<Vec<&'static str>>>);

impl Actor for Watched {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.spawn(Look);
    }

    fn stopping(&mut self, _: &mut Self::Context) -> Running {
        self.0.lock().push("stopping ran");
        Running::Stop
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.0.lock().push("stopped ran");
    }
}

/// Is polled beside the messages and notes whether one has panicked.
struct Look;

impl ActorFuture<Watched> for Look {
    type Output = ();

    fn poll(self: Pin<&mut Self>, me: &mut Watched, _: &mut Context<Watched>, cx: &mut TaskContext<'_>) -> Poll<()> {
        if me.0.lock().contains(&"panic") {
            me.0.lock().push("a future ran");
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// The handler does `last` to its context before it panics.
fn nothing_runs_after(last: fn(&mut Context<Watched>)) {
    system(async move {
        let ran = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let theirs = Arc::clone(&ran);
        let (child, victim) = Child::actor(eager("a"), move |child| match child.incarnation() {
            1 => Ok(Watched(Arc::clone(&theirs))),
            _ => Ok(Watched(Arc::default())),
        });
        let (root, record) = start(vec![child]);
        victim
            .run(move |me, context| {
                last(context);
                me.0.lock().push("panic");
                panic!("the last word");
            })
            .unwrap();
        until("the next one", || victim.incarnation() == 2 && victim.stats().live).await;
        assert_eq!(*ran.lock(), ["panic"]);
        let exits = record.exits("a");
        assert!(matches!(&exits[..], [ExitReason::Panic { text, .. }] if &**text == "the last word"), "{exits:?}");
        root.shutdown().await.unwrap();
    });
}

#[test]
fn no_future_of_a_broken_actor_runs_in_the_turn_of_its_panic() {
    nothing_runs_after(|_| {});
    nothing_runs_after(|context| {
        let wrong = || actix::fut::ready(()).map(|(), me: &mut Watched, _| me.0.lock().push("a new one ran"));
        context.spawn(wrong());
        context.wait(wrong());
        let taken_back = context.spawn(wrong());
        context.cancel_future(taken_back);
        context.notify_later(Last, Duration::ZERO);
        context.notify(Last);
    });
}

#[test]
fn no_hook_runs_on_an_actor_that_stops_itself_and_panics() {
    nothing_runs_after(ActorContext::stop);
}

#[test]
fn no_hook_runs_on_an_actor_that_terminates_itself_and_panics() {
    nothing_runs_after(ActorContext::terminate);
}

#[derive(Message)]
#[rtype(result = "()")]
struct Last;

impl Handler<Last> for Watched {
    type Result = ();

    fn handle(&mut self, _: Last, _: &mut Self::Context) {
        self.0.lock().push("a message of its own ran");
    }
}

/// With actix alone `Running::Continue` makes waiting messages run on the broken actor while it is dropped.
#[test]
fn nothing_runs_on_a_broken_actor() {
    system(async {
        let script = Script { in_stopping: Some(|_, _| Running::Continue), ..Script::default() };
        let (child, victim) =
            scripted(ChildSpec { shutdown: hivekeeper_actors::Shutdown::Brutal, ..eager("a") }, script);
        let (root, _) = start(vec![child]);
        let native = Arc::new(parking_lot::Mutex::new(0_u32));
        let seen = Arc::clone(&native);
        victim
            .run(move |_, ctx| {
                let seen = Arc::clone(&seen);
                ctx.run_later(MS * 50, move |_, _| *seen.lock() += 1);
                panic!("with a timer and messages behind");
            })
            .unwrap();
        for _ in 0..10 {
            victim.tell(Add(1)).unwrap();
        }
        assert_eq!(victim.ask(Add(0), PATIENCE).await.unwrap(), (10, 2), "all ten on the new incarnation");
        assert_eq!(*native.lock(), 0);
        root.shutdown().await.unwrap();
    });
}

#[test]
fn a_sink_that_panics_is_not_fatal() {
    struct Bad;
    impl hivekeeper_actors::EventSink for Bad {
        fn event(&self, _: hivekeeper_actors::SupervisionEvent) {
            panic!("the sink");
        }
    }
    system(async {
        let (child, victim) = probe("a");
        let root = hivekeeper_actors::Root::start(
            SupervisorFlags::unlimited(hivekeeper_actors::Strategy::OneForOne),
            vec![child],
            Arc::new(Bad),
        )
        .unwrap();
        victim.tell(Boom).unwrap();
        assert_eq!(answers(&victim).await, 2);
        root.shutdown().await.unwrap();
    });
}

/// Panics when it is dropped.
#[derive(Clone)]
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a bomb goes off");
    }
}

/// What a factory has captured is dropped by whoever lets go of the child last: often its supervisor.
#[test]
fn a_factory_that_panics_when_it_is_dropped_does_not_end_the_supervisor() {
    system(async {
        let bomb = Bomb;
        let (a, _) = Child::actor(eager("a"), move |_| {
            let _held = &bomb;
            Ok(Plain)
        });
        let (b, sibling) = probe("b");
        let (root, _) = start(vec![b]);
        root.supervisor().add_child(a).await.unwrap();
        root.supervisor().remove_child(&"a".into()).await.unwrap();
        assert_eq!(answers(&sibling).await, 1);
        assert_eq!(root.supervisor().snapshot().await.unwrap().children.len(), 1);
        root.shutdown().await.unwrap();
    });
}

#[derive(Debug)]
struct Unspeakable;

impl std::error::Error for Unspeakable {}

impl std::fmt::Display for Unspeakable {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("no words for it");
    }
}

#[test]
fn an_error_of_the_factory_that_panics_when_it_is_shown_is_a_panic_of_the_factory() {
    system(async {
        let (child, victim) = Child::actor(eager("a"), |child| match child.incarnation() {
            1 => Err(Unspeakable.into()),
            _ => Ok(Plain),
        });
        let (root, record) = start(vec![child]);
        record.saw("a started").await;
        let exits = record.exits("a");
        assert!(matches!(&exits[..], [ExitReason::Panic { text, .. }] if &**text == "no words for it"), "{exits:?}");
        assert_eq!(victim.incarnation(), 2);
        root.shutdown().await.unwrap();
    });
}
