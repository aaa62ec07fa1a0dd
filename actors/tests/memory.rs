//! Alone in its process, because it counts the memory of the process: what has ended leaves nothing behind.
//!
//! Each test does a thing very often, to warm up, then as often again, and again: most times nothing more is left than before. A queue that keeps what
//! it once grew to may grow at any time, but not each time; a leak grows each time.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::alloc::{GlobalAlloc, Layout, System as Malloc};
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, Ordering};
use std::time::Duration;

use actix::prelude::*;
use hivekeeper_actors::{
    AskError, Backoff, Child, ChildRef, ChildSpec, DynamicRef, EventSink, Intensity, OnRestart, Overflow, Placement,
    RestartType, Root, Strategy, SupervisionEvent, SupervisorFlags, TellError, Template,
};

/// Bytes that were asked for and not given back.
static LIVE: AtomicIsize = AtomicIsize::new(0);

struct Counting;

#[expect(unsafe_code, reason = "an allocator is unsafe by nature; this one passes everything on")]
// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size().cast_signed(), Ordering::Relaxed);
        // SAFETY: as promised by whoever called.
        unsafe { Malloc.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size().cast_signed(), Ordering::Relaxed);
        // SAFETY: as promised by whoever called.
        unsafe { Malloc.dealloc(memory, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// What may come and go by itself, such as a block of a channel (1.9 KB to and fro were seen). A few bytes for each of the things that a test makes at
/// most, and no leak is that small.
const SLACK: isize = 4 * 1024;

/// So many times out of twice as many less one nothing may be left: a median.
const MOST: usize = 3;

/// Far beyond anything a healthy run needs: only a hang gets here.
const PATIENCE: Duration = Duration::from_secs(120);

struct Deaf;
impl EventSink for Deaf {
    fn event(&self, _: SupervisionEvent) {}
}

struct Plain;
impl Actor for Plain {
    type Context = Context<Self>;
}

/// A message of some weight.
#[derive(Clone, Message)]
#[rtype(result = "()")]
struct Heavy([u64; 32]);

const HEAVY: Heavy = Heavy([7; 32]);

impl Handler<Heavy> for Plain {
    type Result = ();
    fn handle(&mut self, Heavy(weight): Heavy, _: &mut Context<Self>) {
        std::hint::black_box(weight);
    }
}

#[derive(Clone, Message)]
#[rtype(result = "()")]
struct Boom;

impl Handler<Boom> for Plain {
    type Result = ();
    fn handle(&mut self, _: Boom, _: &mut Context<Self>) {
        panic!("boom");
    }
}

/// Comes back at once, however often.
fn eager(name: impl Into<hivekeeper_actors::ChildId>) -> ChildSpec {
    let backoff = Backoff { initial: Duration::ZERO, then: Duration::ZERO, jitter: 0.0, ..Backoff::default() };
    // A window remembers each restart within it, which is no leak: this one is short.
    let intensity = Some(Intensity { max_restarts: 1000, period: Duration::from_millis(1) });
    ChildSpec { backoff, intensity, ..ChildSpec::new(name) }
}

fn start(children: Vec<Child>) -> Root {
    Root::start(SupervisorFlags::unlimited(Strategy::OneForOne), children, Arc::new(Deaf)).unwrap()
}

async fn until(what: &str, mut met: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !met() {
        assert!(tokio::time::Instant::now() < deadline, "never happened: {what}");
        tokio::task::yield_now().await;
    }
}

/// Does something until it has left nothing [`MOST`] times, or has left something as often, once everything had settled.
async fn leaves_nothing(what: &str, deed: impl AsyncFn()) {
    let settled = async || {
        let mut least = isize::MAX;
        let mut since = tokio::time::Instant::now();
        while since.elapsed() < Duration::from_millis(200) {
            let live = LIVE.load(Ordering::Relaxed);
            if live < least {
                (least, since) = (live, tokio::time::Instant::now());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        least
    };
    deed().await;
    let mut before = settled().await;
    let mut left = Vec::new();
    while left.iter().filter(|bytes| **bytes <= SLACK).count() < MOST {
        deed().await;
        let now = settled().await;
        left.push(now - before);
        before = now;
        assert!(left.iter().filter(|bytes| **bytes > SLACK).count() < MOST, "{what}: bytes left each time: {left:?}");
    }
    println!("{what}: bytes left each time: {left:?}, of {before}");
}

async fn temporary_children() {
    let spec = ChildSpec { restart: RestartType::Temporary, ..eager("session") };
    let template = Template::new(spec, |_, _: Arc<[u8]>| Ok(Plain));
    let (pool, children): (_, DynamicRef<Plain, Arc<[u8]>>) =
        Child::dynamic(ChildSpec::new("pool"), SupervisorFlags::unlimited(Strategy::SimpleOneForOne), template);
    let root = start(vec![pool]);
    root.started().await.unwrap();
    leaves_nothing("10,000 temporary children", async || {
        for n in 0..10_000_u32 {
            let (id, child) = children.start(vec![7; 64].into()).await.unwrap();
            child.tell(HEAVY).unwrap();
            // Each way to end in its turn: by itself, by a panic, by an order.
            match n % 3 {
                0 => child.run(|_, context| context.stop()).unwrap(),
                1 => child.tell(Boom).unwrap(),
                _ => children.terminate(&id).await.unwrap(),
            }
        }
        while children.count_children().await.unwrap().workers > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(root.dead_letters().take());
    })
    .await;
    root.shutdown().await.unwrap();
}

async fn restarts() {
    let (child, plain) = Child::actor(eager("a"), |_| Ok(Plain));
    let root = start(vec![child]);
    leaves_nothing("10,000 restarts of one child", async || {
        let before = plain.incarnation();
        for n in 1..=10_000 {
            match n % 3 {
                0 => plain.tell(Boom).unwrap(),
                1 => plain.tell_redeliver(Boom, 0).unwrap(),
                _ => plain.run(|_, context| context.stop()).unwrap(),
            }
            until("it is made again", || plain.incarnation() >= before + n).await;
        }
        drop(root.dead_letters().take());
    })
    .await;
    root.shutdown().await.unwrap();
}

/// Keeps its thread until the sender is dropped.
fn hold(child: &ChildRef<Plain>) -> std::sync::mpsc::SyncSender<()> {
    let (gate, wait) = std::sync::mpsc::sync_channel::<()>(0);
    child.run(move |_, _| assert!(wait.recv().is_err())).unwrap();
    gate
}

async fn dropped_messages() {
    let lossy = |name, overflow| ChildSpec { overflow, inbox_capacity: 16, ..eager(name) };
    let forgetful = ChildSpec { on_restart: OnRestart::Drop, inbox_capacity: 1024, ..eager("forgetful") };
    let made =
        [lossy("newest", Overflow::DropNewest), lossy("oldest", Overflow::DropOldest), lossy("block", Overflow::Block)];
    let (children, refs): (Vec<_>, Vec<_>) = made.map(|spec| Child::actor(spec, |_| Ok(Plain))).into_iter().unzip();
    let (child, forgets) = Child::actor(forgetful, |_| Ok(Plain));
    let root = start(children.into_iter().chain([child]).collect());
    root.started().await.unwrap();
    leaves_nothing("10,000 messages dropped in each way", async || {
        for child in &refs[..2] {
            let gate = hold(child);
            for _ in 0..10_000 {
                child.tell(HEAVY).unwrap();
            }
            drop(gate);
        }
        let full = &refs[2];
        let gate = hold(full);
        // The one that holds is in its handler: from now on nothing makes room.
        until("it holds", || full.is_empty()).await;
        while full.tell(HEAVY).is_ok() {}
        for _ in 0..10_000 {
            assert_eq!(full.tell(HEAVY), Err(TellError::Full));
        }
        // Time that has run out costs a turn of the clock, so these are fewer.
        for _ in 0..500 {
            assert_eq!(full.tell_wait(HEAVY, Duration::ZERO).await, Err(TellError::Full));
        }
        drop(gate);
        until("it is through", || full.is_empty()).await;
        for _ in 0..10 {
            let gate = hold(&forgets);
            forgets.tell(Boom).unwrap();
            for _ in 0..1000 {
                forgets.tell(HEAVY).unwrap();
            }
            drop(gate);
            until("it has dropped them", || forgets.is_empty()).await;
        }
        for _ in 0..500 {
            let asked = forgets.ask(HEAVY, Duration::ZERO).await;
            assert!(matches!(asked, Ok(()) | Err(AskError::Timeout | AskError::Full | AskError::Restarting)));
        }
        until("all are through", || refs.iter().chain([&forgets]).all(ChildRef::is_empty)).await;
    })
    .await;
    root.shutdown().await.unwrap();
}

async fn names_and_tasks() {
    let root = start(vec![]);
    leaves_nothing("1,000 registered names and 10,000 tasks", async || {
        for n in 0..1000 {
            let spec = ChildSpec { register: Some(format!("name-{n}").into()), ..eager(format!("c{n}")) };
            let (child, plain) = Child::actor(spec, |context| {
                for _ in 0..10 {
                    context.spawn_task(std::future::pending())?;
                }
                Ok(Plain)
            });
            root.supervisor().add_child(child).await.unwrap();
            assert!(root.registry().whereis::<Plain>(&format!("name-{n}")).is_some());
            drop(plain);
        }
        for n in 0..1000 {
            root.supervisor().remove_child(&format!("c{n}").into()).await.unwrap();
        }
        assert!(root.registry().names().is_empty());
    })
    .await;
    root.shutdown().await.unwrap();
}

async fn dedicated_threads() {
    let root = start(vec![]);
    leaves_nothing("1,000 threads in turns of 10", async || {
        for turn in 0..100 {
            for n in 0..10 {
                let spec = ChildSpec { placement: Placement::Dedicated, ..eager(format!("c{turn}-{n}")) };
                root.supervisor().add_child(Child::actor(spec, |_| Ok(Plain)).0).await.unwrap();
            }
            for n in 0..10 {
                root.supervisor().remove_child(&format!("c{turn}-{n}").into()).await.unwrap();
            }
        }
        until("the threads are joined", || root.stats().dedicated == 0).await;
    })
    .await;
    root.shutdown().await.unwrap();
}

async fn trees() {
    leaves_nothing("100 trees", async || {
        for _ in 0..100 {
            let root = start((0..10).map(|n| Child::actor(eager(format!("c{n}")), |_| Ok(Plain)).0).collect());
            root.started().await.unwrap();
            root.shutdown().await.unwrap();
        }
    })
    .await;
}

#[test]
fn what_has_ended_leaves_no_memory_behind() {
    System::new().block_on(async {
        temporary_children().await;
        restarts().await;
        dropped_messages().await;
        names_and_tasks().await;
        dedicated_threads().await;
        trees().await;
    });
}
