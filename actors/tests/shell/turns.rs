//! Notices are decided where they come from: on the thread of the child, whatever the supervisors' thread is doing.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context as TaskContext, Waker};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use actix::prelude::*;
use hivekeeper_actors::{
    Backoff, Child, ChildRef, ChildSpec, EventSink, ExitReason, Intensity, Meltdown, Placement, Root, Settings,
    Strategy, SupervisionEvent, SupervisorFlags,
};
use parking_lot::Mutex;

use crate::harness::*;

/// An actor that notes on which thread each incarnation was made.
struct Noted;

impl Actor for Noted {
    type Context = Context<Self>;
}

type Homes = Arc<Mutex<Vec<ThreadId>>>;

fn noted(spec: ChildSpec) -> (Child, ChildRef<Noted>, Homes) {
    let homes = Homes::default();
    let theirs = Arc::clone(&homes);
    let (child, child_ref) = Child::actor(spec, move |_| {
        theirs.lock().push(std::thread::current().id());
        Ok(Noted)
    });
    (child, child_ref, homes)
}

fn crash(child: &ChildRef<Noted>) {
    child.run(|_, _| panic!("boom")).unwrap();
}

/// Holds the thread that calls, which is that of the supervisors, until `met` holds.
fn without_the_supervisors(what: &str, met: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !met() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_micros(100));
    }
}

fn unlimited(strategy: Strategy) -> SupervisorFlags {
    SupervisorFlags::unlimited(strategy)
}

#[test]
fn a_crash_is_followed_by_the_next_incarnation_without_another_thread() {
    system(async {
        let (child, a, homes) = noted(eager("a"));
        let (root, record) = start(vec![child]);
        root.started().await.unwrap();
        for n in 2..=4 {
            crash(&a);
            without_the_supervisors("the next one starts", || record.count("a started") == n);
        }
        let homes: HashSet<_> = homes.lock().drain(..).collect();
        assert_eq!(homes.len(), 1, "each was made where the first one was");
        assert!(!homes.contains(&std::thread::current().id()));
        assert_eq!(record.lines()[2..6], ["a exited", "a backing_off", "a starting", "a started"]);
        root.shutdown().await.unwrap();
    });
}

#[test]
fn an_order_that_waits_overtakes_a_retry_that_is_due() {
    system(async {
        let (child, a, homes) = noted(eager("a"));
        let (root, record) = start(vec![child]);
        root.started().await.unwrap();
        let (supervisor, id) = (root.supervisor(), "a".into());
        let mut order = Box::pin(supervisor.terminate_child(&id));
        let runtime = tokio::runtime::Handle::current();
        // A thread that is none of the tree's has to send it.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _inside = runtime.enter();
                assert!(order.as_mut().poll(&mut TaskContext::from_waker(Waker::noop())).is_pending());
            });
        });
        crash(&a);
        without_the_supervisors("the end is known", || record.count("a backing_off") == 1);
        order.await.unwrap();
        assert_eq!(record.lines()[2..], ["a exited", "a backing_off", "a stopped"]);
        assert_eq!(homes.lock().len(), 1, "it was not made again");
        root.shutdown().await.unwrap();
    });
}

#[test]
fn a_delay_that_begins_elsewhere_is_waited_for() {
    system(async {
        let backoff = Backoff { initial: 20 * MS, ..Backoff::default() };
        // The alarm for this one is further away than the test has patience.
        let start_timeout = Some(100 * PATIENCE);
        let (child, a, _) = noted(ChildSpec { backoff, start_timeout, ..eager("a") });
        let (root, record) = start(vec![child]);
        root.started().await.unwrap();
        crash(&a);
        until("it comes back", || record.count("a started") == 2).await;
        root.shutdown().await.unwrap();
    });
}

#[test]
fn siblings_are_made_anew_where_they_belong() {
    system(async {
        let (first, a, _) = noted(eager("a"));
        let beside = ChildSpec { placement: Placement::WithSupervisor, ..eager("b") };
        let (second, _, beside) = noted(beside);
        let (third, _, alone) = noted(ChildSpec { placement: Placement::Dedicated, ..eager("c") });
        let record = Arc::new(Record::default());
        let sink = Arc::clone(&record) as Arc<dyn EventSink>;
        let root = Root::start(unlimited(Strategy::RestForOne), vec![first, second, third], sink).unwrap();
        root.started().await.unwrap();
        for n in 2..10 {
            crash(&a);
            until("all are back", || record.count("c started") == n).await;
        }
        let here = std::thread::current().id();
        assert_eq!(*beside.lock(), [here; 9]);
        let alone: HashSet<_> = alone.lock().drain(..).collect();
        assert_eq!(alone.len(), 9);
        root.shutdown().await.unwrap();
    });
}

#[test]
fn a_supervisor_that_gives_up_elsewhere_is_made_anew() {
    system(async {
        let (child, a, _) = noted(eager("a"));
        let none = Intensity { max_restarts: 0, ..Intensity::default() };
        let flags =
            SupervisorFlags { intensity: Some(none), meltdown: Meltdown::Escalate, ..unlimited(Strategy::OneForOne) };
        let (nested, _) = Child::supervisor(eager("nested"), flags, vec![child]);
        let (root, record) = start(vec![nested]);
        root.started().await.unwrap();
        for n in 2..10 {
            crash(&a);
            until("both are back", || record.count("nested started") == n).await;
        }
        assert_eq!(record.count("a started"), 9);
        assert!(record.exits("nested").iter().all(|exit| matches!(exit, ExitReason::GaveUp { .. })));
        root.shutdown().await.unwrap();
    });
}

/// Hears every child, and sees whether it is called twice at once.
#[derive(Default)]
struct Strict {
    busy: AtomicBool,
    overlaps: AtomicUsize,
    record: Record,
}

impl EventSink for Strict {
    fn event(&self, event: SupervisionEvent) {
        if self.busy.swap(true, Ordering::SeqCst) {
            self.overlaps.fetch_add(1, Ordering::SeqCst);
        }
        self.record.event(event);
        self.busy.store(false, Ordering::SeqCst);
    }
}

#[test]
fn children_on_several_threads_that_crash_at_once_are_heard_one_by_one() {
    const ROUNDS: usize = 300;
    system(async {
        let (names, mut children, mut handles) = (["a", "b", "c", "d"], Vec::new(), Vec::new());
        for name in names {
            let intensity = Some(Intensity { max_restarts: 1000, period: 100 * PATIENCE });
            let (child, handle, _) = noted(ChildSpec { intensity, ..eager(name) });
            children.push(child);
            handles.push(handle);
        }
        let strict = Arc::new(Strict::default());
        let settings = Settings { threads: 4, ..Settings::default() };
        let sink = Arc::clone(&strict) as Arc<dyn EventSink>;
        let root = Root::start_with(settings, unlimited(Strategy::OneForOne), children, sink).unwrap();
        root.started().await.unwrap();
        for handle in std::iter::repeat_n(&handles, ROUNDS).flatten() {
            crash(handle);
        }
        for name in names {
            until(name, || strict.record.count(&format!("{name} started")) == ROUNDS + 1).await;
            let lines = strict.record.lines();
            let own: Vec<_> = lines.iter().filter_map(|line| line.strip_prefix(name)).collect();
            let life = [" starting", " started", " exited", " backing_off"];
            assert!(own.chunks(4).all(|chunk| chunk == &life[..chunk.len()]), "{own:?}");
        }
        assert_eq!(strict.overlaps.load(Ordering::SeqCst), 0);
        root.shutdown().await.unwrap();
    });
}
