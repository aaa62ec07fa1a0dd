//! P3, P4, P6, P10, P11: what incarnations leave on their threads, and what threads do to them.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use actix::prelude::*;
use hivekeeper_actors::{Child, ChildCtx, ChildRef, ChildSpec, ExitReason, Placement, Settings};

use crate::harness::*;

thread_local! {
    static LEFT_BEHIND: Cell<u32> = const { Cell::new(0) };
}

/// Asks something of the actor, on its thread.
async fn look<R: Send + 'static>(a: &ChildRef<Specimen>, at: impl FnOnce(&mut Specimen) -> R + Send + 'static) -> R {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    a.run(move |specimen, _| {
        let _ = sender.send(at(specimen));
    })
    .unwrap();
    tokio::time::timeout(PATIENCE, receiver).await.unwrap().unwrap()
}

/// An incarnation never moves: the next one is made by the factory, maybe on another thread, and of the old one's state nothing is left. The
/// limit that stays: what a crashed handler put into a thread-local is still there for whoever lives on that thread next.
#[test]
fn p03_state_stays_with_its_incarnation_and_thread_locals_stay_dirty() {
    system(async {
        let spec = ChildSpec { placement: Placement::WithSupervisor, ..eager("a") };
        let (child, a) = specimen(spec, Manner::Well, &Arc::default());
        let (root, _) = start(vec![child]);
        a.tell(Do::new(|specimen, _| {
            specimen.sum = 7;
            LEFT_BEHIND.set(7);
            panic!("half done");
        }))
        .unwrap();
        assert_eq!(look(&a, |specimen| specimen.sum).await, 0);
        assert_eq!((a.incarnation(), look(&a, |_| LEFT_BEHIND.get()).await), (2, 7));
        root.shutdown().await.unwrap();
    });
}

/// A thread that is blocked can't be helped, but what lived on it can: it is made anew elsewhere, with every message that waited, those
/// included that the blocked incarnation had begun to take. It handles none of them when it comes back.
#[test]
fn p04_a_blocked_thread_is_left_behind_with_nothing_that_waited() {
    assert!(Settings::default().stuck_after.is_some(), "unless somebody decides otherwise");
    system(async {
        let (seen, sibling_seen) = (Arc::new(Seen::default()), Arc::new(Seen::default()));
        let (child, a) = specimen(eager("a"), Manner::Well, &seen);
        let (sibling, b) = specimen(eager("b"), Manner::Well, &sibling_seen);
        let (deed, is_blocked, release) = block(&seen);
        for _ in 0..10 {
            a.tell(Ping).unwrap();
        }
        a.tell(deed).unwrap();
        for _ in 0..10 {
            a.tell(Ping).unwrap();
        }
        let (root, record) = start_watched(vec![child, sibling]);
        until("it blocks", || is_blocked.try_recv().is_ok()).await;
        assert_eq!((a.ask(Ping, PATIENCE).await, a.incarnation()), (Ok(11), 2), "ten by each, and this one");
        assert_eq!((b.ask(Ping, PATIENCE).await, b.incarnation()), (Ok(1), 2), "it was held up and is not");
        assert_eq!((record.exits("a"), record.exits("b")), (vec![ExitReason::Stuck], vec![ExitReason::Stuck]));
        assert_eq!((root.stats().fenced, root.stats().leaked), (1, 1));
        for _ in 0..10 {
            a.tell(Ping).unwrap();
        }
        release.send(()).unwrap();
        until("the thread comes back and is joined", || root.stats().leaked == 0).await;
        assert_eq!(seen.notes(), ["unblocked", "a dropped"], "the old one finishes its message and no other");
        assert_eq!(a.ask(Ping, PATIENCE).await, Ok(22));
        assert_eq!(seen.pings(), 10 + 22);
        root.shutdown().await.unwrap();
    });
}

/// An actor that talks to itself through actix's own mailbox.
struct Hog(Arc<AtomicUsize>);

impl Actor for Hog {
    type Context = Context<Self>;
}

#[derive(Message)]
#[rtype(result = "()")]
struct Go(usize);

impl Handler<Go> for Hog {
    type Result = ();

    fn handle(&mut self, Go(left): Go, context: &mut Self::Context) {
        self.0.fetch_add(1, Ordering::SeqCst);
        if left > 0 {
            context.address().do_send(Go(left - 1));
        }
    }
}

/// The limit that stays: the budget is the inbox's. What an actor sends through `ctx.address()` goes past it and holds the thread until it is
/// through. `ChildCtx::self_ref()` goes through the inbox (F10).
#[test]
fn p06_messages_past_the_inbox_starve_the_thread() {
    const FLOOD: usize = 100_000;
    system(async {
        let here = |name| ChildSpec { placement: Placement::WithSupervisor, ..eager(name) };
        let flood = Arc::new(AtomicUsize::new(0));
        let handled = Arc::clone(&flood);
        let (hog_child, hog) = Child::actor(here("hog"), move |_| Ok(Hog(Arc::clone(&handled))));
        let (sibling_child, sibling) = specimen(here("sibling"), Manner::Well, &Arc::default());
        let (root, _) = start(vec![hog_child, sibling_child]);
        root.started().await.unwrap();
        hog.tell(Go(FLOOD - 1)).unwrap();
        let mut turns = [0; 2];
        for turn in &mut turns {
            let flood = Arc::clone(&flood);
            *turn = look(&sibling, move |_| flood.load(Ordering::SeqCst)).await;
        }
        assert_eq!(
            turns,
            [1, FLOOD],
            "between two turns of the sibling all of it is handled, save the one from the inbox"
        );
        root.shutdown().await.unwrap();
    });
}

/// The limit that stays: what children share outlives a crash as the crash left it. A std mutex says so for ever, another one doesn't say it
/// at all. State that several children need is better off with a child of its own.
#[test]
fn p10_shared_state_stays_as_a_crash_left_it() {
    system(async {
        let std = Arc::new(std::sync::Mutex::new((0, 0)));
        let other = Arc::new(parking_lot::Mutex::new((0, 0)));
        let (child, a) = specimen(eager("a"), Manner::Well, &Arc::default());
        let (root, _) = start(vec![child]);
        let (in_std, in_other) = (Arc::clone(&std), Arc::clone(&other));
        a.tell(Do::new(move |_, _| {
            let (mut std, mut other) = (in_std.lock().unwrap(), in_other.lock());
            std.0 += 1;
            other.0 += 1;
            panic!("between two halves");
        }))
        .unwrap();
        let (in_std, in_other) = (Arc::clone(&std), Arc::clone(&other));
        let found = look(&a, move |_| (in_std.lock().is_err(), *in_other.lock())).await;
        assert_eq!((a.incarnation(), found), (2, (true, (1, 0))));
        root.shutdown().await.unwrap();
    });
}

#[test]
fn p11_timers_and_futures_of_the_context_end_with_their_incarnation() {
    system(async {
        let (first, later) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let tick_into = |counter: &Arc<AtomicUsize>| {
            let counter = Arc::clone(counter);
            Do::new(move |_, context| {
                context.run_interval(MS, move |_, _| {
                    counter.fetch_add(1, Ordering::SeqCst);
                });
            })
        };
        let (child, a) = specimen(eager("a"), Manner::Well, &Arc::default());
        let (root, record) = start(vec![child]);
        a.tell(tick_into(&first)).unwrap();
        until("it ticks", || first.load(Ordering::SeqCst) > 2).await;
        let dropped = Arc::new(AtomicBool::new(false));
        let guard = OnDrop(Arc::clone(&dropped));
        a.tell(Do::new(move |_, context| {
            context.spawn(actix::fut::wrap_future(async move {
                let _guard = guard;
                std::future::pending::<()>().await;
            }));
        }))
        .unwrap();
        a.tell(Boom).unwrap();
        a.tell(tick_into(&later)).unwrap();
        record.saw("a Exited").await;
        let ticks = first.load(Ordering::SeqCst);
        assert!(dropped.load(Ordering::SeqCst), "the future went with its incarnation");
        until("the next one ticks", || later.load(Ordering::SeqCst) > 5).await;
        assert_eq!((first.load(Ordering::SeqCst), a.incarnation()), (ticks, 2));
        root.shutdown().await.unwrap();
    });
}

/// An actor that keeps what it was given at birth.
struct Owner(ChildCtx<Owner>);

impl Actor for Owner {
    type Context = Context<Self>;
}

/// A task that is given to the runtime is nobody's. One that is given to the incarnation ends with it.
#[test]
fn p11_tasks_of_the_incarnation_end_with_it_and_others_do_not() {
    system(async {
        let (child, a) = Child::actor(eager("a"), |child| Ok(Owner(child)));
        let (root, record) = start(vec![child]);
        let (own, stray) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (own_guard, stray_guard) = (OnDrop(Arc::clone(&own)), OnDrop(Arc::clone(&stray)));
        let (sender, task) = std::sync::mpsc::sync_channel(1);
        a.run(move |owner, _| {
            let own = async move {
                let _guard = own_guard;
                std::future::pending::<()>().await;
            };
            owner.0.spawn_task(own).unwrap();
            let handle = actix::spawn(async move {
                let _guard = stray_guard;
                std::future::pending::<()>().await;
            });
            sender.send(handle).unwrap();
        })
        .unwrap();
        a.run(|_, _| panic!("with two tasks")).unwrap();
        record.saw("a Exited").await;
        until("its own task ends", || own.load(Ordering::SeqCst)).await;
        assert!(!stray.load(Ordering::SeqCst), "the other goes on");
        task.recv().unwrap().abort();
        until("it was told to", || stray.load(Ordering::SeqCst)).await;
        root.shutdown().await.unwrap();
    });
}

struct OnDrop(Arc<AtomicBool>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
