//! F8, F9, F12 to F15: threads, and what an actor may assume of them.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use actix::dev::ContextFut;
use actix::prelude::*;
use hivekeeper_actors::{
    Child, ChildCtx, ChildRef, ChildSpec, ExitReason, Placement, Root, Shutdown, StartError, SupervisorFlags,
    SupervisorRef,
};
use parking_lot::Mutex;

use crate::harness::*;

#[test]
fn f08_an_arbiter_outlives_panics_and_its_own_end_is_silent() {
    system(async {
        let thread = Arbiter::new();
        let handle = thread.handle();
        let on_it = |name| {
            let actor = Specimen::new(name, Manner::Well, &Arc::default());
            Specimen::start_in_arbiter(&handle, move |_| actor)
        };
        let (a, b) = (on_it("a"), on_it("b"));
        a.send(Boom).await.unwrap_err();
        handle.spawn(async { panic!("in a future of the thread") });
        assert_eq!((b.send(Ping).await, handle.alive()), (Ok(1), true));
        handle.stop();
        until("it ends", || !handle.alive()).await;
        until("its actors go", || !b.connected()).await;
        assert!(!handle.spawn_fn(|| ()));
        let late = on_it("late");
        assert_eq!((late.connected(), late.send(Ping).await), (false, Err(MailboxError::Closed)), "no error on start");
        thread.join().unwrap();
    });
}

#[test]
fn f08_the_end_of_a_thread_is_an_exit_of_its_children() {
    system(async {
        let seen = Arc::new(Seen::default());
        let (child, a) = specimen(eager("a"), Manner::Well, &seen);
        a.tell(Do::new(|_, _| assert!(Arbiter::current().stop()))).unwrap();
        for _ in 0..1000 {
            a.tell(Ping).unwrap();
        }
        let (root, record) = start(vec![child]);
        record.saw("a Exited").await;
        assert_eq!(record.exits("a"), [ExitReason::ArbiterGone]);
        a.ask(Ping, PATIENCE).await.unwrap();
        assert_eq!((seen.pings(), a.incarnation()), (1001, 2), "every message survives the thread");
        root.shutdown().await.unwrap();
    });
}

/// The thread of the system itself is not ours to guard: its main future unwinds out of `block_on`. What is left then is to stop the tree.
#[test]
fn f08_a_panic_of_the_main_future_unwinds_the_system() {
    let seen = Arc::new(Seen::default());
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        System::new().block_on(async {
            let (child, a) = specimen(eager("a"), Manner::Well, &seen);
            let (_root, _) = start(vec![child]);
            a.ask(Ping, PATIENCE).await.unwrap();
            panic!("in the main future");
        });
    }));
    assert!(unwound.is_err());
    let deadline = std::time::Instant::now() + PATIENCE;
    while seen.notes() != ["a dropped"] {
        assert!(std::time::Instant::now() < deadline, "the child outlives its tree");
        std::thread::yield_now();
    }
}

#[test]
fn f09_a_handler_that_blocks_holds_up_every_actor_of_its_thread() {
    system(async {
        let seen = Arc::new(Seen::default());
        let a = Specimen::new("a", Manner::Well, &Arc::default()).start();
        let b = Specimen::new("b", Manner::Well, &Arc::default()).start();
        let (deed, is_blocked, release) = block(&seen);
        a.do_send(deed);
        let helper = std::thread::spawn({
            let seen = Arc::clone(&seen);
            move || {
                is_blocked.recv_timeout(PATIENCE).unwrap();
                assert!(seen.notes().is_empty(), "the sibling has its message and can't handle it");
                release.send(()).unwrap();
            }
        });
        b.send(Do::new({
            let seen = Arc::clone(&seen);
            move |_, _| seen.note("sibling")
        }))
        .await
        .unwrap();
        assert_eq!(seen.notes(), ["unblocked", "sibling"]);
        helper.join().unwrap();
    });
}

/// What shares the thread waits until the thread counts as blocked (P4). Supervisors don't share it, and a child that is known to block
/// has a thread of its own.
#[test]
fn f09_a_handler_that_blocks_holds_up_no_supervisor() {
    system(async {
        let (deed, is_blocked, release) = block(&Arc::default());
        let dedicated = ChildSpec { placement: Placement::Dedicated, ..eager("a") };
        let (child, a) = specimen(dedicated, Manner::Well, &Arc::default());
        let (sibling, b) = specimen(eager("b"), Manner::Well, &Arc::default());
        let (root, _) = start(vec![child, sibling]);
        a.tell(deed).unwrap();
        until("it blocks", || is_blocked.try_recv().is_ok()).await;
        assert_eq!(root.supervisor().snapshot().await.unwrap().children.len(), 2);
        root.supervisor().force_restart(&"b".into()).await.unwrap();
        assert_eq!((b.ask(Ping, PATIENCE).await, b.incarnation()), (Ok(1), 2));
        release.send(()).unwrap();
        assert_eq!((a.ask(Ping, PATIENCE).await, a.incarnation()), (Ok(1), 1));
        root.shutdown().await.unwrap();
    });
}

/// An actor on threads of its own.
struct Threaded;

impl Actor for Threaded {
    type Context = SyncContext<Self>;
}

impl Handler<Ping> for Threaded {
    type Result = usize;

    fn handle(&mut self, _: Ping, _: &mut Self::Context) -> usize {
        1
    }
}

impl Handler<Boom> for Threaded {
    type Result = ();

    fn handle(&mut self, _: Boom, _: &mut Self::Context) {
        panic!("on a thread of a SyncArbiter");
    }
}

#[test]
fn f12_each_panic_in_a_sync_arbiter_costs_a_thread_for_good() {
    system(async {
        let a = SyncArbiter::start(2, || Threaded);
        assert_eq!(a.send(Ping).await, Ok(1));
        a.send(Boom).await.unwrap_err();
        assert_eq!(a.send(Ping).await, Ok(1), "one of two is left");
        a.send(Boom).await.unwrap_err();
        until("nobody is left", || {
            a.do_send(Ping);
            !a.connected()
        })
        .await;

        let dedicated = ChildSpec { placement: Placement::Dedicated, ..eager("a") };
        let (child, a) = specimen(dedicated, Manner::Well, &Arc::default());
        let (root, record) = start(vec![child]);
        let threads = Arc::new(Mutex::new(HashSet::new()));
        for incarnation in 1..=5 {
            assert_eq!((a.ask(Ping, PATIENCE).await, a.incarnation()), (Ok(1), incarnation));
            let seen = Arc::clone(&threads);
            a.tell(Do::new(move |_, _| {
                seen.lock().insert(std::thread::current().id());
                panic!("on a thread of its own");
            }))
            .unwrap();
            until("it ends", || record.exits("a").len() as u64 == incarnation).await;
        }
        assert_eq!(threads.lock().len(), 5, "each incarnation has one, and takes it along");
        root.shutdown().await.unwrap();
    });
}

#[test]
fn f13_a_stop_of_the_system_gives_no_actor_its_time() {
    let seen = Arc::new(Seen::default());
    let system = System::new();
    let addresses = system.block_on(async {
        let addresses: Vec<_> =
            ["a", "b", "c"].map(|name| Specimen::new(name, Manner::WindsDown, &seen).start()).into();
        addresses[2].send(Ping).await.unwrap();
        System::current().stop();
        addresses
    });
    system.run().unwrap();
    drop(addresses);
    let mut notes = seen.notes();
    notes.sort();
    assert_eq!(notes, ["a dropped", "b dropped", "c dropped"], "`stopping()` asked for time in vain");
}

#[test]
fn f13_a_shutdown_of_the_tree_comes_first_and_keeps_order() {
    let seen = Arc::new(Seen::default());
    let system = System::new();
    system.block_on(async {
        let spec = |name| ChildSpec { shutdown: Shutdown::Deadline(PATIENCE), ..eager(name) };
        let children = ["a", "b", "c"].map(|name| specimen(spec(name), Manner::WindsDown, &seen).0);
        let (root, _) = start(children.into());
        root.started().await.unwrap();
        root.shutdown().await.unwrap();
        System::current().stop();
    });
    system.run().unwrap();
    let each = |name| ["wound down", "dropped"].map(|what| format!("{name} {what}"));
    assert_eq!(seen.notes(), ["c", "b", "a"].map(each).concat());
}

#[test]
fn f14_no_system_no_actor() {
    let fresh = || Specimen::new("a", Manner::Well, &Arc::default());
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio.block_on(async {
        assert!(catch_unwind(AssertUnwindSafe(|| fresh().start())).is_err(), "`spawn_local` has no `LocalSet`");
        assert!(catch_unwind(Arbiter::new).is_err());
        // Children can be made anywhere. A tree that can't start says so and is not a panic.
        let (child, _) = specimen(eager("a"), Manner::Well, &Arc::default());
        let refused = Root::start(SupervisorFlags::default(), vec![child], Arc::new(Record::default())).err();
        assert_eq!(refused, Some(StartError::Threads));
    });
}

/// `assert_not_send!(T)` compiles only if `T` is not `Send`: otherwise both impls fit and the call is ambiguous.
macro_rules! assert_not_send {
    ($($type:ty),*) => {
        const _: fn() = || {
            trait Ambiguous<Which> {
                fn call() {}
            }
            impl<T: ?Sized> Ambiguous<()> for T {}
            impl<T: ?Sized + Send> Ambiguous<u8> for T {}
            $(<$type as Ambiguous<_>>::call();)*
        };
    };
}

assert_not_send!(ContextFut<Specimen, Context<Specimen>>, Homebody);

/// An actor with state that can't leave its thread.
struct Homebody(Rc<std::cell::Cell<usize>>);

impl Actor for Homebody {
    type Context = Context<Self>;
}

impl Handler<Ping> for Homebody {
    type Result = usize;

    fn handle(&mut self, _: Ping, _: &mut Self::Context) -> usize {
        self.0.set(self.0.get() + 1);
        self.0.get()
    }
}

#[test]
fn f15_an_address_is_one_contexts_and_a_child_ref_is_every_incarnations() {
    fn handles_travel<T: Send + Sync + Clone>() {}
    handles_travel::<ChildRef<Homebody>>();
    handles_travel::<ChildCtx<Homebody>>();
    handles_travel::<SupervisorRef>();
    handles_travel::<Child>();
    system(async {
        let fresh = || Specimen::new("a", Manner::Well, &Arc::default());
        let (first, second) = (fresh().start(), fresh().start());
        assert!(first != second, "who restarts an actor by starting another one has to tell every sender");

        let (child, a) = Child::actor(eager("a"), |_| Ok(Homebody(Rc::default())));
        let (root, record) = start(vec![child]);
        for incarnation in 1..=4 {
            assert_eq!((a.ask(Ping, PATIENCE).await, a.incarnation()), (Ok(1), incarnation));
            a.run(|_, _| panic!("at home")).unwrap();
            until("it ends", || record.exits("a").len() as u64 == incarnation).await;
        }
        root.shutdown().await.unwrap();
    });
}
