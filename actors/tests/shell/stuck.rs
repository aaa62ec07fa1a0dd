//! Handlers that block their thread: found out, fenced, replaced; and threads of one's own.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use actix::prelude::*;
use hivekeeper_actors::{
    AskError, Child, ChildRef, ChildSpec, ChildState, EventSink, ExitReason, Placement, RestartType, Root, Settings,
    ShutdownError, Started, Strategy, SupervisionEvent, SupervisorError, SupervisorFlags, ThreadEvent,
};

use crate::harness::*;

/// Long enough for a healthy thread of a busy machine to answer, short enough for a test.
const STUCK_AFTER: Duration = Duration::from_secs(1);

fn settings() -> Settings {
    Settings { threads: 1, stuck_after: Some(STUCK_AFTER), leaked_max: 4 }
}

fn start_with(settings: Settings, children: Vec<Child>) -> (Root, std::sync::Arc<Record>) {
    let record = std::sync::Arc::new(Record::default());
    let sink = std::sync::Arc::clone(&record) as std::sync::Arc<dyn hivekeeper_actors::EventSink>;
    let root = Root::start_with(settings, SupervisorFlags::unlimited(Strategy::OneForOne), children, sink).unwrap();
    (root, record)
}

fn beside(name: &str) -> ChildSpec {
    ChildSpec { placement: Placement::WithSupervisor, ..eager(name) }
}

fn dedicated(name: &str) -> ChildSpec {
    ChildSpec { placement: Placement::Dedicated, ..eager(name) }
}

/// Blocks the child's thread until the sender is dropped; resolves when it does.
async fn block(child: &ChildRef<Probe>) -> SyncSender<()> {
    let (gate, wait) = sync_channel::<()>(0);
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    child
        .run(move |_, _| {
            begun.send(()).unwrap();
            assert!(wait.recv().is_err());
        })
        .unwrap();
    has_begun.await.unwrap();
    gate
}

#[test]
fn a_blocked_thread_is_fenced_and_everything_on_it_made_anew_with_its_queue() {
    system(async {
        let script = Script::default();
        let ((a, blocked), (b, neighbour)) = (scripted(eager("a"), script.clone()), probe("b"));
        let (swarm, _) = Child::supervisor(eager("swarm"), SupervisorFlags::unlimited(Strategy::OneForOne), vec![a]);
        let (root, record) = start_with(settings(), vec![swarm, b]);
        root.started().await.unwrap();
        let gate = block(&blocked).await;
        // Behind the blocked handler, some of it in the batch that the pump has taken already.
        for n in 1..=100 {
            blocked.tell(Add(n)).unwrap();
        }
        assert_eq!(answers(&neighbour).await, 2, "made anew on another thread");
        assert_eq!(blocked.ask(Add(0), PATIENCE).await.unwrap(), (5050, 2), "its queue came along");
        assert_eq!((record.exits("a"), record.exits("b")), (vec![ExitReason::Stuck], vec![ExitReason::Stuck]));
        assert_eq!((record.count("swarm exited"), root.stats().leaked, root.stats().fenced), (0, 1, 1));
        assert_eq!(record.threads(), [ThreadEvent::Fenced { thread: 1, leaked: 1 }]);
        drop(gate);
        until("the leaked thread comes back and is joined", || root.stats().leaked == 0).await;
        until("that is told", || record.threads().len() == 2).await;
        assert_eq!(record.threads()[1], ThreadEvent::Returned { thread: 1, leaked: 0 });
        assert_eq!(script.alive.load(Ordering::SeqCst), 1, "the fenced incarnation is gone");
        assert_eq!(script.alive_max.load(Ordering::SeqCst), 2);
        assert_eq!(record.exits("a"), [ExitReason::Stuck], "its late end is nobody's news");
        assert_eq!(answers(&blocked).await, 2);
        root.shutdown().await.unwrap();
    });
}

/// An order was taken in by a supervisor whose own thread was blocked already, and is lost with it.
#[test]
fn whoever_waits_for_a_supervisor_that_is_fenced_is_told_that_it_is_gone() {
    system(async {
        let (a, blocked) =
            scripted(ChildSpec { placement: Placement::WithSupervisor, ..eager("a") }, Script::default());
        let flags = SupervisorFlags::unlimited(Strategy::OneForOne);
        let (nested, nested_ref) = Child::supervisor(eager("nested"), flags, vec![a]);
        let (root, _) = start_with(settings(), vec![nested.apart()]);
        root.started().await.unwrap();
        let gate = block(&blocked).await;
        let (b, made_anew) =
            scripted(ChildSpec { placement: Placement::WithSupervisor, ..eager("b") }, Script::default());
        assert_eq!(nested_ref.start_child(b.clone()).await, Err(SupervisorError::Gone));
        assert_eq!(nested_ref.start_child(b).await, Ok(Started::Running(2)), "its successor hears");
        assert_eq!((answers(&made_anew).await, answers(&blocked).await), (2, 2));
        drop(gate);
        until("the leaked thread comes back", || root.stats().leaked == 0).await;
        assert_eq!(answers(&made_anew).await, 2);
        root.shutdown().await.unwrap();
    });
}

/// No successor opens the door of this one, at which the others are told.
#[test]
fn whoever_waits_for_a_temporary_supervisor_that_is_fenced_is_told_that_it_is_gone() {
    system(async {
        let (a, blocked) = scripted(beside("a"), Script::default());
        let flags = SupervisorFlags::unlimited(Strategy::OneForOne);
        let spec = ChildSpec { restart: RestartType::Temporary, retain: true, ..eager("nested") };
        let (nested, nested_ref) = Child::supervisor(spec, flags, vec![a]);
        let (root, record) = start_with(settings(), vec![nested.apart()]);
        root.started().await.unwrap();
        let gate = block(&blocked).await;
        let waits = nested_ref.start_child(scripted(beside("b"), Script::default()).0);
        assert_eq!(tokio::time::timeout(PATIENCE, waits).await, Ok(Err(SupervisorError::Gone)));
        assert_eq!((record.exits("nested"), record.count("nested starting")), (vec![ExitReason::Stuck], 1));
        drop(gate);
        until("the leaked thread comes back", || root.stats().leaked == 0).await;
        root.shutdown().await.unwrap();
    });
}

/// Holds whoever tells of the start of `c` until `nested` has been fenced, and the one who tells of that until the former has gone on.
#[derive(Default)]
struct Holder {
    record: Record,
    held: AtomicBool,
    let_go: AtomicBool,
    gone_on: AtomicBool,
}

impl EventSink for Holder {
    fn event(&self, event: SupervisionEvent) {
        let line = format!("{} {}", event.id, short(&event.kind));
        self.record.event(event);
        match line.as_str() {
            "c starting" => {
                self.held.store(true, Ordering::SeqCst);
                spin(&self.let_go);
            }
            "nested exited" => {
                self.let_go.store(true, Ordering::SeqCst);
                spin(&self.gone_on);
            }
            _ => {}
        }
    }
}

fn spin(flag: &AtomicBool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !flag.load(Ordering::SeqCst) && std::time::Instant::now() < deadline {
        std::thread::sleep(MS);
    }
}

/// Nobody could tell them while the fence was made: their successor does.
#[test]
fn whoever_waits_for_a_supervisor_that_is_fenced_in_the_middle_of_a_step_is_told_by_its_successor() {
    system(async {
        let (a, blocked) = scripted(beside("a"), Script::default());
        let flags = || SupervisorFlags::unlimited(Strategy::OneForOne);
        let (nested, nested_ref) = Child::supervisor(eager("nested"), flags(), vec![a]);
        let (far, far_ref) = probe("far");
        let holder = std::sync::Arc::new(Holder::default());
        let sink = std::sync::Arc::clone(&holder) as std::sync::Arc<dyn EventSink>;
        // The one who is held blocks a thread of its own, which is not fenced beside the first.
        let settings = Settings { threads: 2, leaked_max: 1, ..settings() };
        let root = Root::start_with(settings, flags(), vec![nested.apart(), far], sink).unwrap();
        root.started().await.unwrap();
        let gate = block(&blocked).await;
        let waits = actix_rt::spawn({
            let nested = nested_ref.clone();
            async move { nested.start_child(scripted(beside("b"), Script::default()).0).await }
        });
        until("the order is taken in", || holder.record.count("b starting") == 1).await;
        let theirs = std::sync::Arc::clone(&holder);
        far_ref
            .run(move |_, _| {
                let mut order = Box::pin(nested_ref.start_child(scripted(beside("c"), Script::default()).0));
                let polled = order.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
                assert!(polled.is_pending());
                theirs.gone_on.store(true, Ordering::SeqCst);
            })
            .unwrap();
        until("the next is in the middle of it", || holder.held.load(Ordering::SeqCst)).await;
        assert_eq!(waits.await.unwrap(), Err(SupervisorError::Gone));
        assert!(holder.gone_on.load(Ordering::SeqCst));
        drop(gate);
        until("the leaked thread comes back", || root.stats().leaked == 0).await;
        root.shutdown().await.unwrap();
    });
}

/// However long its thread is blocked. It hears of their ends no more: they are its successor's.
#[test]
fn the_children_of_a_supervisor_that_is_fenced_are_its_successors() {
    system(async {
        // It takes its time, so that it is let go twice: when the fence is made, and when the successor opens its door.
        let lingers = Script {
            in_stopping: Some(|probe, context| {
                if probe.stops > 1 {
                    return Running::Stop;
                }
                context.run_later(MS * 200, |_, context| context.stop());
                Running::Continue
            }),
            ..Script::default()
        };
        let ((a, blocked), (b, elsewhere)) = (probe("a"), scripted(dedicated("b"), lingers));
        let flags = SupervisorFlags::unlimited(Strategy::OneForOne);
        let (nested, _) = Child::supervisor(eager("nested"), flags, vec![b]);
        let (root, record) = start_with(settings(), vec![nested.apart(), a]);
        root.started().await.unwrap();
        let gate = block(&blocked).await;
        assert_eq!(answers(&blocked).await, 2);
        while !matches!(elsewhere.ask(Add(0), PATIENCE).await, Ok((_, 2))) {
            tokio::time::sleep(MS).await;
        }
        assert_eq!(root.stats().leaked, 1, "the thread is still blocked");
        assert_eq!((record.exits("nested"), record.count("b starting")), (vec![ExitReason::Stuck], 2));
        drop(gate);
        until("the leaked thread comes back", || root.stats().leaked == 0).await;
        elsewhere.tell(Boom).unwrap();
        assert_eq!(answers(&elsewhere).await, 3);
        // Nobody is waited for that ended long ago.
        tokio::time::timeout(PATIENCE / 2, root.shutdown()).await.unwrap().unwrap();
        assert_eq!(record.count("b starting"), 3);
    });
}

#[test]
fn a_supervisor_whose_thread_is_not_blocked_keeps_its_children() {
    system(async {
        let ((a, blocked), (b, bystander)) = (probe("a"), scripted(dedicated("b"), Script::default()));
        let flags = SupervisorFlags::unlimited(Strategy::OneForOne);
        let (nested, _) = Child::supervisor(eager("nested"), flags, vec![a, b]);
        let (root, record) = start_with(settings(), vec![nested]);
        root.started().await.unwrap();
        let gate = block(&blocked).await;
        assert_eq!((answers(&blocked).await, answers(&bystander).await), (2, 1));
        drop(gate);
        root.shutdown().await.unwrap();
        assert_eq!((record.count("a starting"), record.count("b starting")), (2, 1));
    });
}

#[test]
fn a_factory_that_blocks_is_stuck_too() {
    system(async {
        let (gate, wait) = sync_channel::<()>(0);
        let wait = parking_lot::Mutex::new(Some(wait));
        let (child, child_ref) = Child::actor(eager("a"), move |child| {
            let first = wait.lock().take();
            if let Some(wait) = first {
                assert!(wait.recv().is_err());
            }
            Ok(Probe::new(child))
        });
        let (root, record) = start_with(settings(), vec![child]);
        assert_eq!(answers(&child_ref).await, 2);
        assert_eq!(record.exits("a"), [ExitReason::Stuck]);
        drop(gate);
        until("the leaked thread comes back", || root.stats().leaked == 0).await;
        root.shutdown().await.unwrap();
    });
}

#[test]
fn a_busy_thread_is_not_a_blocked_one() {
    system(async {
        let (a, busy) = probe("a");
        let (root, record) = start_with(settings(), vec![a]);
        root.started().await.unwrap();
        // Of those that are handled in one turn of the child, all together take more than twice as long as a thread may be silent.
        for _ in 0..150 {
            busy.run(|_, _| std::thread::sleep(MS * 20)).unwrap();
        }
        until("they are all done", || busy.is_empty()).await;
        assert_eq!(answers(&busy).await, 1);
        assert_eq!((root.stats().fenced, record.exits("a")), (0, vec![]));
        root.shutdown().await.unwrap();
    });
}

#[test]
fn a_restart_of_a_supervisor_waits_for_a_blocked_child_until_it_is_fenced() {
    system(async {
        let (a, blocked) = probe("a");
        let (swarm, _) = Child::supervisor(eager("swarm"), SupervisorFlags::unlimited(Strategy::OneForOne), vec![a]);
        let (root, record) = start_with(settings(), vec![swarm]);
        root.started().await.unwrap();
        let gate = block(&blocked).await;
        root.supervisor().force_restart(&"swarm".into()).await.unwrap();
        assert_eq!((answers(&blocked).await, record.exits("a")), (2, vec![ExitReason::Stuck]));
        drop(gate);
        root.shutdown().await.unwrap();
    });
}

#[test]
fn at_the_cap_nothing_more_is_fenced_until_one_comes_back() {
    system(async {
        let ((a, first), (b, second)) =
            (scripted(dedicated("a"), Script::default()), scripted(dedicated("b"), Script::default()));
        let (root, record) = start_with(Settings { leaked_max: 1, ..settings() }, vec![a, b]);
        root.started().await.unwrap();
        let gate = block(&first).await;
        assert_eq!(answers(&first).await, 2);
        let other_gate = block(&second).await;
        let at_cap = |event: &ThreadEvent| matches!(event, ThreadEvent::AtCap { leaked: 1, .. });
        until("it is said that there are too many", || record.threads().iter().any(at_cap)).await;
        assert_eq!((root.stats().leaked, root.stats().fenced, record.exits("b")), (1, 1, vec![]));
        drop(gate);
        assert_eq!(answers(&second).await, 2);
        assert_eq!((root.stats().fenced, record.exits("b")), (2, vec![ExitReason::Stuck]));
        drop(other_gate);
        until("both come back", || root.stats().leaked == 0).await;
        root.shutdown().await.unwrap();
    });
}

#[test]
fn a_stop_of_a_blocked_child_ends_when_it_is_fenced() {
    system(async {
        let (a, blocked) = scripted(dedicated("a"), Script::default());
        let (root, _) = start_with(settings(), vec![a]);
        root.started().await.unwrap();
        let gate = block(&blocked).await;
        root.supervisor().terminate_child(&"a".into()).await.unwrap();
        let tree = root.supervisor().snapshot().await.unwrap();
        assert_eq!(tree.children[0].state, ChildState::Stopped);
        drop(gate);
        root.shutdown().await.unwrap();
    });
}

#[test]
fn shutdown_waits_for_blocked_threads_no_longer_than_it_says() {
    system(async {
        let (a, blocked) = probe("a");
        let (root, _) = start_with(settings(), vec![a]);
        root.started().await.unwrap();
        let gate = block(&blocked).await;
        until("it is fenced", || root.stats().leaked == 1).await;
        assert_eq!(root.shutdown().await, Err(ShutdownError { threads: 1 }));
        assert_eq!(root.shutdown().await, Err(ShutdownError { threads: 1 }), "the same each time");
        drop(gate);
    });
}

#[test]
fn without_a_limit_nobody_is_fenced() {
    system(async {
        let (a, blocked) = probe("a");
        let (root, record) = start_with(Settings { stuck_after: None, ..settings() }, vec![a]);
        root.started().await.unwrap();
        let gate = block(&blocked).await;
        tokio::time::sleep(STUCK_AFTER * 2).await;
        drop(gate);
        assert_eq!((answers(&blocked).await, record.exits("a")), (1, vec![]));
        root.shutdown().await.unwrap();
    });
}

#[test]
fn a_blocked_thread_of_the_supervisors_is_counted() {
    system(async {
        let (a, _) = probe("a");
        let (root, record) = start_with(settings(), vec![a]);
        root.started().await.unwrap();
        // This is the supervisors' thread.
        let deadline = std::time::Instant::now() + PATIENCE;
        while root.stats().stalls == 0 && std::time::Instant::now() < deadline {
            std::thread::sleep(MS);
        }
        assert_eq!(root.stats().stalls, 1);
        until("that is told", || record.threads() == [ThreadEvent::SupervisorsBlocked]).await;
        root.shutdown().await.unwrap();
    });
}

#[test]
fn a_dedicated_child_has_a_thread_to_itself_for_each_incarnation() {
    system(async {
        let ((a, own), (b, pooled)) = (scripted(dedicated("a"), Script::default()), probe("b"));
        let (root, _) = start_with(Settings { threads: 1, ..Settings::default() }, vec![a, b]);
        root.started().await.unwrap();
        assert_eq!((root.stats().threads, root.stats().dedicated), (1, 1));
        let gate = block(&own).await;
        assert_eq!(answers(&pooled).await, 1, "a blocked handler holds up nobody else");
        drop(gate);
        let before = thread_of(&own).await;
        own.tell(Boom).unwrap();
        assert_eq!(answers(&own).await, 2);
        assert_ne!(thread_of(&own).await, before);
        until("the thread of the first incarnation has gone", || root.stats().dedicated == 1).await;
        root.supervisor().terminate_child(&"a".into()).await.unwrap();
        until("the thread has gone with it", || root.stats().dedicated == 0).await;
        root.supervisor().start_existing(&"a".into()).await.unwrap();
        assert_eq!((answers(&own).await, root.stats().dedicated), (3, 1));
        root.shutdown().await.unwrap();
        assert_eq!(root.stats(), hivekeeper_actors::TreeStats::default());
    });
}

async fn thread_of(child: &ChildRef<Probe>) -> std::thread::ThreadId {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    child.run(move |_, _| sender.send(std::thread::current().id()).unwrap()).unwrap();
    receiver.await.unwrap()
}

#[test]
fn a_dedicated_thread_that_ends_takes_its_child_along_and_another_is_made() {
    system(async {
        let (a, own) = scripted(dedicated("a"), Script::default());
        let (root, record) = start(vec![a]);
        root.started().await.unwrap();
        own.run(|_, _| {
            actix::Arbiter::current().stop();
        })
        .unwrap();
        record.saw("a exited").await;
        assert_eq!(answers(&own).await, 2);
        assert_eq!(record.exits("a"), [ExitReason::ArbiterGone]);
        root.shutdown().await.unwrap();
    });
}

#[test]
fn a_temporary_child_that_is_stuck_is_not_made_again() {
    system(async {
        let spec = ChildSpec { restart: RestartType::Temporary, retain: true, ..dedicated("a") };
        let (a, blocked) = scripted(spec, Script::default());
        let (root, record) = start_with(settings(), vec![a]);
        root.started().await.unwrap();
        let gate = block(&blocked).await;
        record.saw("a exited").await;
        drop(gate);
        until("its thread has gone", || root.stats().leaked == 0).await;
        assert_eq!((blocked.incarnation(), record.exits("a")), (1, vec![ExitReason::Stuck]));
        root.shutdown().await.unwrap();
    });
}

/// The fenced incarnation keeps the channel of the answer, and may keep it for ever: its asker hears of the end all the same.
#[test]
fn who_asked_a_stuck_incarnation_hears_so_long_before_its_own_time_is_up() {
    system(async {
        let (a, blocked) = probe("a");
        let (root, _) = start_with(settings(), vec![a]);
        root.started().await.unwrap();
        let (gate, wait) = sync_channel::<()>(0);
        let asked = blocked.ask(Hold(wait), PATIENCE * 100).await;
        assert_eq!(asked, Err(AskError::Crashed { reason: ExitReason::Stuck }));
        assert_eq!(root.stats().leaked, 1, "it is still blocked");
        drop(gate);
        root.shutdown().await.unwrap();
    });
}

/// Holds its handler until the sender is dropped.
struct Hold(std::sync::mpsc::Receiver<()>);

impl actix::Message for Hold {
    type Result = ();
}

impl actix::Handler<Hold> for Probe {
    type Result = ();
    fn handle(&mut self, Hold(wait): Hold, _: &mut Self::Context) {
        assert!(wait.recv().is_err());
    }
}
