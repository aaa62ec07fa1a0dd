#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::sync::atomic::AtomicU32;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use actix_rt::{Arbiter, System};

use super::*;
use crate::child::{Blueprint, Child};
use crate::child_ref::{AskError, ChildRef};
use crate::event::{EventSink, SupervisionEvent};
use crate::flags::SupervisorFlags;
use crate::settings::Settings;
use crate::spec::ChildSpec;

const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Heard(Mutex<Vec<(u64, ExitReason)>>);

impl Watcher for Heard {
    fn started(&self, _: Spot, _: Key, _: u64) {}

    fn down(&self, _: Spot, _: Key, incarnation: u64, reason: ExitReason) {
        self.0.lock().push((incarnation, reason));
    }

    fn supervisor(&self) -> Option<SupervisorRef> {
        None
    }
}

impl EventSink for Heard {
    fn event(&self, _: SupervisionEvent) {}
}

#[derive(Default)]
struct Seen {
    made: AtomicU32,
    hooks: AtomicU32,
    handled: Mutex<Vec<(u64, u32)>>,
    freed: AtomicU32,
}

struct Blocker {
    incarnation: u64,
    seen: Arc<Seen>,
}

impl Actor for Blocker {
    type Context = Context<Self>;

    fn stopped(&mut self, _: &mut Self::Context) {
        self.seen.hooks.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for Blocker {
    fn drop(&mut self) {
        self.seen.freed.fetch_add(1, Ordering::SeqCst);
    }
}

/// Holds its handler until the sender is dropped.
struct Hold(mpsc::Receiver<()>);

impl actix::Message for Hold {
    type Result = ();
}

impl actix::Handler<Hold> for Blocker {
    type Result = ();

    fn handle(&mut self, Hold(wait): Hold, _: &mut Self::Context) {
        assert!(wait.recv().is_err());
    }
}

fn until(what: &str, mut met: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !met() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

struct Stage {
    seen: Arc<Seen>,
    heard: Arc<Heard>,
    env: Arc<Env>,
    child: Child,
    child_ref: ChildRef<Blocker>,
}

impl Stage {
    fn new() -> Self {
        let (seen, heard) = (Arc::new(Seen::default()), Arc::new(Heard::default()));
        let (_, root) = Child::supervisor(ChildSpec::new("root"), SupervisorFlags::default(), Vec::new());
        let env = Env::new(&Settings::default(), root, Arc::clone(&heard) as Arc<dyn EventSink>).unwrap();
        let env = Arc::new(env);
        let theirs = Arc::clone(&seen);
        let spec = ChildSpec { placement: Placement::WithSupervisor, ..ChildSpec::new("blocker") };
        let (child, child_ref) = Child::actor(spec, move |ctx| {
            theirs.made.fetch_add(1, Ordering::SeqCst);
            Ok(Blocker { incarnation: ctx.incarnation(), seen: Arc::clone(&theirs) })
        });
        Self { seen, heard, env, child, child_ref }
    }

    fn launch(&self, incarnation: u64, arbiter: &Arbiter) -> Leash {
        let watcher = Arc::clone(&self.heard) as Arc<dyn Watcher>;
        let (spec, path) = (self.child.spec.clone(), Arc::from("root/blocker"));
        let seat =
            Arc::new(Seat::new(Key::ROOT, (incarnation, Cause::Asked), (spec, path), watcher, Arc::clone(&self.env)));
        let (blueprint, theirs): (Arc<dyn Blueprint>, _) = (Arc::clone(&self.child.blueprint), Arc::clone(&seat));
        arbiter.spawn_fn(move || blueprint.launch(theirs, Spot::Turn, None));
        Leash(seat)
    }

    fn note(&self, number: u32) {
        let work =
            move |me: &mut Blocker, _: &mut Context<Blocker>| me.seen.handled.lock().push((me.incarnation, number));
        self.child_ref.run(work).unwrap();
    }

    /// Holds the child's thread until the sender is dropped.
    fn block(&self) -> mpsc::SyncSender<()> {
        let (gate, wait) = mpsc::sync_channel::<()>(1);
        self.child_ref.run(move |_, _| assert!(wait.recv().is_err())).unwrap();
        gate
    }
}

#[test]
fn a_fenced_incarnation_leaves_its_queue_to_the_next_and_handles_nothing_more() {
    let system = System::new();
    system.block_on(async {
        let stage = Stage::new();
        let (stuck, spare) = (Arbiter::new(), Arbiter::new());
        let gate = stage.block();
        (1..=200).for_each(|number| stage.note(number));
        let first = stage.launch(1, &stuck);
        until("the handler blocks", || stage.child_ref.len() == 200);
        // The next one waits for the place before the first is fenced.
        let _second = stage.launch(2, &spare);
        assert!(first.fence(ExitReason::Stuck));
        assert!(!first.fence(ExitReason::Stuck), "once");
        until("the next one has them all", || stage.seen.handled.lock().len() == 200);
        let in_order: Vec<_> = (1..=200).map(|number| (2, number)).collect();
        assert_eq!(*stage.seen.handled.lock(), in_order);
        // While the next one is busy, the fenced one comes back and finds messages.
        let second_gate = stage.block();
        until("the next one is busy", || stage.child_ref.is_empty());
        stage.note(201);
        drop(gate);
        until("the fenced one is gone", || Arc::strong_count(&first.0) == 1);
        assert_eq!(stage.seen.freed.load(Ordering::SeqCst), 1);
        drop(second_gate);
        until("the next one handles more", || stage.seen.handled.lock().last() == Some(&(2, 201)));
        assert_eq!(stage.seen.hooks.load(Ordering::SeqCst), 0, "no hook of the fenced one ran");
        assert_eq!(*stage.heard.0.lock(), [(1, ExitReason::Stuck)], "told once");
        assert_eq!(first.0.end(), Some(ExitReason::Stuck));
        for arbiter in [stuck, spare] {
            arbiter.stop();
            arbiter.join().unwrap();
        }
    });
}

#[test]
fn one_that_is_fenced_before_its_thread_comes_to_it_is_never_made() {
    let system = System::new();
    system.block_on(async {
        let stage = Stage::new();
        let (stuck, spare) = (Arbiter::new(), Arbiter::new());
        let (gate, wait) = mpsc::sync_channel::<()>(1);
        stuck.spawn_fn(move || assert!(wait.recv().is_err()));
        let first = stage.launch(1, &stuck);
        assert!(first.fence(ExitReason::Stuck));
        let _second = stage.launch(2, &spare);
        stage.note(1);
        until("the next one answers", || *stage.seen.handled.lock() == [(2, 1)]);
        drop(gate);
        until("its cell is gone", || Arc::strong_count(&first.0) == 1);
        stuck.stop();
        stuck.join().unwrap();
        assert_eq!(stage.seen.made.load(Ordering::SeqCst), 1, "only the next one was made");
        assert_eq!(*stage.heard.0.lock(), [(1, ExitReason::Stuck)]);
        spare.stop();
        spare.join().unwrap();
    });
}

#[test]
fn whoever_asked_a_stuck_incarnation_is_told_so() {
    let system = System::new();
    system.block_on(async {
        let stage = Stage::new();
        let stuck = Arbiter::new();
        let (gate, wait) = mpsc::sync_channel::<()>(1);
        let first = stage.launch(1, &stuck);
        let asked = async {
            let told = stage.child_ref.ask(Hold(wait), Duration::from_millis(50)).await;
            assert_eq!(told, Err(AskError::Crashed { reason: ExitReason::Stuck }));
        };
        let fenced = async {
            until("it is begun", || stage.child_ref.stats().handled == 1);
            assert!(first.fence(ExitReason::Stuck));
            assert!(!stage.child_ref.stats().live);
        };
        tokio::join!(asked, fenced);
        drop(gate);
        until("its actor is dropped", || stage.seen.freed.load(Ordering::SeqCst) == 1);
        stuck.stop();
        stuck.join().unwrap();
    });
}
