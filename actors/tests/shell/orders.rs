//! Orders are taken in where they are given, on any thread of the tree, and as messages by the actor when they can't be.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context as TaskContext, Poll, Waker};
use std::thread::ThreadId;

use actix::prelude::*;
use hivekeeper_actors::{
    Child, ChildCtx, ChildRef, ChildSpec, DynamicRef, EventKind, EventSink, Placement, Root, Settings, Started,
    Strategy, SupervisionEvent, SupervisorError, SupervisorFlags, SupervisorRef, Template,
};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task::LocalSet;

use crate::harness::*;

struct Plain;

impl Actor for Plain {
    type Context = Context<Self>;
}

/// A child that notes where each incarnation is made.
fn noted(spec: ChildSpec) -> (Child, ChildRef<Plain>, Arc<Mutex<Vec<ThreadId>>>) {
    let homes = Arc::<Mutex<Vec<ThreadId>>>::default();
    let theirs = Arc::clone(&homes);
    let (child, child_ref) = Child::actor(spec, move |_| {
        theirs.lock().push(std::thread::current().id());
        Ok(Plain)
    });
    (child, child_ref, homes)
}

fn plain(spec: ChildSpec) -> Child {
    noted(spec).0
}

fn beside(name: &str) -> ChildSpec {
    ChildSpec { placement: Placement::WithSupervisor, ..eager(name) }
}

/// A root whose children of the pool share one thread.
fn start_on_one_thread(children: Vec<Child>) -> (Root, Arc<Record>) {
    let record = Arc::new(Record::default());
    let settings = Settings { threads: 1, ..Settings::default() };
    let (flags, sink) = (SupervisorFlags::unlimited(Strategy::OneForOne), Arc::clone(&record) as Arc<dyn EventSink>);
    (Root::start_with(settings, flags, children, sink).unwrap(), record)
}

fn poll<F: Future + ?Sized>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future.as_mut().poll(&mut TaskContext::from_waker(Waker::noop()))
}

/// Polls an order on a thread that is none of the tree's, from where it has to be sent.
fn send<F: Future + Send>(order: &mut Pin<Box<F>>)
where
    F::Output: Send,
{
    let runtime = tokio::runtime::Handle::current();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _inside = runtime.enter();
            assert!(poll(order).is_pending());
        });
    });
}

/// Has an actor of the tree give an order from its thread.
async fn from<R: Send + 'static>(
    child: &ChildRef<Plain>,
    order: impl Future<Output = R> + Send + 'static,
) -> (R, ThreadId) {
    let (sender, receiver) = oneshot::channel();
    child
        .run(move |_, context| {
            let given = async move { (order.await, std::thread::current().id()) };
            context.spawn(given.into_actor(&Plain).map(|result, _, _| drop(sender.send(result))));
        })
        .unwrap();
    receiver.await.unwrap()
}

#[test]
fn an_order_is_taken_in_before_the_one_who_gives_it_waits() {
    system(async {
        // On one thread, so that nobody else has the lock.
        let (root, record) = start(vec![plain(beside("a"))]);
        root.started().await.unwrap();
        let (supervisor, id) = (root.supervisor(), "a".into());
        let mut stop = Box::pin(supervisor.terminate_child(&id));
        assert!(poll(&mut stop).is_pending());
        assert_eq!(record.count("a stopping"), 1);
        stop.await.unwrap();
        let mut again = Box::pin(supervisor.terminate_child(&id));
        assert_eq!(poll(&mut again), Poll::Ready(Ok(())), "nothing has to be waited for");
        root.shutdown().await.unwrap();
    });
}

#[test]
fn an_order_waits_behind_those_that_were_sent_before_it() {
    system(async {
        let (root, record) = start(vec![]);
        root.started().await.unwrap();
        let (supervisor, id) = (root.supervisor(), "a".into());
        let mut first = Box::pin(supervisor.start_child(plain(beside("a"))));
        send(&mut first);
        assert_eq!(record.lines().len(), 0);
        let mut second = Box::pin(supervisor.terminate_child(&id));
        assert!(poll(&mut second).is_pending());
        assert_eq!(record.lines().len(), 0, "it is not taken in before the first");
        assert_eq!(first.await, Err(SupervisorError::Superseded));
        second.await.unwrap();
        // Nobody waits any more.
        let mut third = Box::pin(supervisor.terminate_child(&id));
        assert!(poll(&mut third).is_ready());
        root.shutdown().await.unwrap();
    });
}

#[test]
fn an_order_that_is_given_up_holds_up_none_after_it() {
    system(async {
        let (root, record) = start(vec![]);
        root.started().await.unwrap();
        let supervisor = root.supervisor();
        let mut given_up = Box::pin(supervisor.start_child(plain(beside("a"))));
        send(&mut given_up);
        drop(given_up);
        until("the actor has seen that", || {
            let id = "b".into();
            poll(&mut Box::pin(supervisor.terminate_child(&id))).is_ready()
        })
        .await;
        assert_eq!(record.lines().len(), 0);
        root.shutdown().await.unwrap();
    });
}

#[test]
fn a_child_starts_siblings_from_its_handler_on_its_own_thread_and_on_another() {
    system(async {
        let (near, near_ref, _) = noted(beside("near"));
        let (far, far_ref, far_homes) = noted(eager("far"));
        let (root, record) = start(vec![near, far]);
        root.started().await.unwrap();
        let here = std::thread::current().id();
        let there = far_homes.lock()[0];
        assert_ne!(here, there);
        for (giver, thread) in [(&near_ref, here), (&far_ref, there)] {
            for placement in [Placement::WithSupervisor, Placement::Pool, Placement::Dedicated] {
                let (child, child_ref, homes) = noted(ChildSpec { placement, ..eager("new") });
                let (supervisor, id) = (root.supervisor(), "new".into());
                let ordered = async move {
                    let started = supervisor.start_child(child).await;
                    (started, supervisor.remove_child(&id).await)
                };
                let ((started, removed), given_on) = from(giver, ordered).await;
                assert_eq!((started, removed, given_on), (Ok(Started::Running(1)), Ok(()), thread));
                assert_eq!(homes.lock()[0] == here, placement == Placement::WithSupervisor);
                assert!(child_ref.run(|_, _| ()).is_err());
            }
        }
        let life = ["new starting", "new started", "new stopping", "new exited", "new removed"];
        let lines = record.lines();
        let new: Vec<_> = lines.iter().map(String::as_str).filter(|line| line.starts_with("new ")).collect();
        assert_eq!(new, life.repeat(6));
        root.shutdown().await.unwrap();
    });
}

/// On a thread of the tree an order waits for no turn of the supervisor's actor, whose thread is held here.
#[test]
fn a_child_elsewhere_needs_no_turn_of_the_supervisor() {
    system(async {
        let (far, far_ref, _) = noted(eager("far"));
        // The new one is made on the thread of the one that starts it, after its turn: they don't meet at the lock.
        let (root, record) = start_on_one_thread(vec![far]);
        root.started().await.unwrap();
        let supervisor = root.supervisor();
        far_ref
            .run(move |_, _| {
                actix_rt::spawn(async move { supervisor.start_child(plain(eager("new"))).await });
            })
            .unwrap();
        let deadline = std::time::Instant::now() + PATIENCE;
        while record.count("new started") == 0 {
            assert!(std::time::Instant::now() < deadline, "the new one never started");
            std::thread::sleep(MS / 10);
        }
        root.shutdown().await.unwrap();
    });
}

/// What the one who gives the order does with its own tasks is not done with the child.
#[test]
fn a_child_does_not_live_with_the_tasks_of_whoever_starts_it() {
    system(async {
        let (root, record) = start(vec![]);
        root.started().await.unwrap();
        let (child, child_ref, homes) = noted(beside("a"));
        LocalSet::new().run_until(root.supervisor().start_child(child)).await.unwrap();
        let (sender, receiver) = oneshot::channel();
        child_ref.run(|_, _| sender.send(()).unwrap()).unwrap();
        receiver.await.unwrap();
        assert_eq!(*homes.lock(), [std::thread::current().id()]);
        assert_eq!(record.lines(), ["a starting", "a started"]);
        root.shutdown().await.unwrap();
    });
}

/// Nor on a thread of the children, whose tasks are those of nobody in particular.
#[test]
fn a_child_in_the_pool_does_not_live_with_the_tasks_of_whoever_starts_it() {
    system(async {
        let (far, far_ref, _) = noted(eager("far"));
        let (root, record) = start_on_one_thread(vec![far]);
        root.started().await.unwrap();
        let (child, child_ref, _) = noted(eager("a"));
        let (supervisor, (sender, receiver)) = (root.supervisor(), oneshot::channel());
        far_ref
            .run(move |_, _| {
                actix_rt::spawn(async move {
                    let started = LocalSet::new().run_until(supervisor.start_child(child)).await;
                    sender.send(started)
                });
            })
            .unwrap();
        assert_eq!(receiver.await.unwrap(), Ok(Started::Running(1)));
        let (sender, receiver) = oneshot::channel();
        child_ref.run(|_, _| sender.send(()).unwrap()).unwrap();
        receiver.await.unwrap();
        assert_eq!(record.count("a starting"), 1);
        root.shutdown().await.unwrap();
    });
}

/// What is launched for an order may need what its tree's threads have, and those of another are none of them.
#[test]
fn an_order_from_a_thread_of_another_tree_is_sent() {
    system(async {
        let (far, far_ref, _) = noted(eager("far"));
        let ((other, _), (root, record)) = (start(vec![far]), start(vec![]));
        other.started().await.unwrap();
        root.started().await.unwrap();
        let (supervisor, (sender, receiver)) = (root.supervisor(), std::sync::mpsc::sync_channel(1));
        far_ref
            .run(move |_, _| {
                let mut order = Box::pin(supervisor.start_child(plain(beside("a"))));
                let pending = poll(&mut order).is_pending();
                sender.send((pending, record.lines())).unwrap();
                // Given up before anybody has seen it.
            })
            .unwrap();
        // The thread of both supervisors is held here, so nobody can have taken it in but the one who gives it.
        assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), (true, vec![]));
        other.shutdown().await.unwrap();
        root.shutdown().await.unwrap();
    });
}

/// A sink that answers the first start with an order of its own.
#[derive(Default)]
struct Meddler {
    supervisor: Mutex<Option<SupervisorRef>>,
    record: Record,
    begun: AtomicBool,
}

type Order = Pin<Box<dyn Future<Output = Result<Started, SupervisorError>>>>;

thread_local! {
    /// The order, for whoever finishes it.
    static MEDDLING: RefCell<Option<Order>> = const { RefCell::new(None) };
}

impl EventSink for Meddler {
    fn event(&self, event: SupervisionEvent) {
        let meddles = matches!(event.kind, EventKind::Starting { .. });
        self.record.event(event);
        if meddles && !self.begun.swap(true, Ordering::SeqCst) {
            let supervisor = self.supervisor.lock().clone().unwrap();
            let mut order: Order = Box::pin(async move { supervisor.start_child(plain(beside("b"))).await });
            assert!(poll(&mut order).is_pending());
            MEDDLING.set(Some(order));
        }
    }
}

#[test]
fn a_sink_may_give_an_order_which_follows_what_it_hears_of() {
    system(async {
        let meddler = Arc::new(Meddler::default());
        let flags = SupervisorFlags::unlimited(Strategy::OneForOne);
        let root = Root::start(flags, vec![], Arc::clone(&meddler) as Arc<dyn EventSink>).unwrap();
        root.started().await.unwrap();
        *meddler.supervisor.lock() = Some(root.supervisor());
        assert_eq!(root.supervisor().start_child(plain(beside("a"))).await, Ok(Started::Running(1)));
        let order = MEDDLING.take().unwrap();
        assert_eq!(order.await, Ok(Started::Running(1)));
        let lines = meddler.record.lines();
        let at = |line: &str| lines.iter().position(|seen| seen == line);
        assert!(at("a starting") < at("b starting"), "{lines:?}");
        root.shutdown().await.unwrap();
        // The meddler holds on to the tree, and the tree to it.
        *meddler.supervisor.lock() = None;
    });
}

#[test]
fn a_supervisor_that_is_being_stopped_or_has_ended_takes_no_order() {
    system(async {
        let held = Arc::new(AtomicBool::new(true));
        let (slow, theirs) = (Child::actor(beside("slow"), |_| Ok(Lingers)).0, Arc::clone(&held));
        HELD.set(Some(theirs));
        let (nested, nested_ref) =
            Child::supervisor(eager("nested"), SupervisorFlags::unlimited(Strategy::OneForOne), vec![slow]);
        let (root, record) = start(vec![nested]);
        root.started().await.unwrap();
        let (supervisor, id) = (root.supervisor(), "nested".into());
        let mut stop = Box::pin(supervisor.terminate_child(&id));
        assert!(poll(&mut stop).is_pending());
        // It has been told, and does not know yet: the order waits for what comes of that.
        let mut late = Box::pin(nested_ref.start_child(plain(beside("late"))));
        assert!(poll(&mut late).is_pending());
        assert_eq!(record.count("late starting"), 0);
        until("it stops its children", || record.count("slow stopping") == 1).await;
        let refused = nested_ref.start_child(plain(beside("later"))).await;
        assert_eq!(refused, Err(SupervisorError::Gone));
        held.store(false, Ordering::SeqCst);
        stop.await.unwrap();
        assert!(late.await.is_err());
        assert_eq!(nested_ref.start_child(plain(beside("latest"))).await, Err(SupervisorError::Gone));
        // It hears again as soon as it lives again.
        supervisor.restart_child(&id).await.unwrap();
        assert_eq!(nested_ref.start_child(plain(beside("new"))).await, Ok(Started::Running(1)));
        root.shutdown().await.unwrap();
    });
}

thread_local! {
    static HELD: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) };
}

/// Stops when it is let go.
struct Lingers;

impl Actor for Lingers {
    type Context = Context<Self>;

    fn stopping(&mut self, context: &mut Self::Context) -> Running {
        let held = HELD.with_borrow(|held| held.as_ref().is_some_and(|held| held.load(Ordering::SeqCst)));
        if held {
            context.run_later(MS, |_, context| context.stop());
            return Running::Continue;
        }
        Running::Stop
    }
}

#[test]
fn a_supervisor_that_is_found_by_its_name_takes_orders_at_once() {
    system(async {
        let spec = ChildSpec { register: Some("nested".into()), ..eager("nested") };
        let (nested, _) = Child::supervisor(spec, SupervisorFlags::unlimited(Strategy::OneForOne), vec![]);
        let (root, record) = start(vec![nested]);
        root.started().await.unwrap();
        let found = root.registry().supervisor("nested").unwrap();
        let mut order = Box::pin(found.start_child(plain(beside("a"))));
        assert!(poll(&mut order).is_pending());
        assert_eq!(record.count("a starting"), 1);
        order.await.unwrap();
        root.shutdown().await.unwrap();
    });
}

/// Many at once, from several threads and from none of the tree's: each is answered, each child is there once.
#[test]
fn orders_from_everywhere_at_once_are_all_taken() {
    const EACH: usize = 200;
    system(async {
        let spec = ChildSpec { placement: Placement::Pool, ..eager("worker") };
        let made = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&made);
        let template = Template::new(spec, move |_: ChildCtx<Plain>, ()| {
            count.fetch_add(1, Ordering::SeqCst);
            Ok(Plain)
        });
        let flags = SupervisorFlags::unlimited(Strategy::OneForOne);
        let (dynamic, workers): (_, DynamicRef<Plain, ()>) = Child::dynamic(eager("workers"), flags.clone(), template);
        let (mut givers, mut children) = (Vec::new(), vec![dynamic]);
        for name in ["a", "b", "c", "d"] {
            let (child, giver, _) = noted(eager(name));
            givers.push(giver);
            children.push(child);
        }
        let settings = Settings { threads: 3, ..Settings::default() };
        let record = Arc::new(Record::default());
        let root = Root::start_with(settings, flags, children, Arc::clone(&record) as Arc<dyn EventSink>).unwrap();
        root.started().await.unwrap();
        let churn = |workers: DynamicRef<Plain, ()>| async move {
            for n in 0..EACH {
                let (id, _) = workers.start(()).await.unwrap();
                if n % 2 == 0 {
                    workers.terminate(&id).await.unwrap();
                }
            }
        };
        let here = actix_rt::spawn(churn(workers.clone()));
        let outside = std::thread::spawn({
            let churning = churn(workers.clone());
            move || {
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(churning);
            }
        });
        let theirs: Vec<_> = givers.iter().map(|giver| from(giver, churn(workers.clone()))).collect();
        for given in theirs {
            given.await;
        }
        here.await.unwrap();
        until("those outside have had theirs", || outside.is_finished()).await;
        outside.join().unwrap();
        assert_eq!(made.load(Ordering::SeqCst), 6 * EACH);
        assert_eq!(workers.count_children().await.unwrap().active, 3 * EACH);
        root.shutdown().await.unwrap();
    });
}
