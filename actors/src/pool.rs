//! The threads on which children live, and what the whole tree shares.
//!
//! `watch` decides which of them are blocked, `keeper` is the thread that asks them and joins those that end.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use actix_rt::{Arbiter, ArbiterHandle, System};
use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use crate::cell::{Seat, Spot};
use crate::dead_letters::DeadLetters;
use crate::event::EventSink;
use crate::keeper;
use crate::registry::Registry;
use crate::settings::Settings;
use crate::supervisor_ref::SupervisorRef;
use crate::tasks::Tasks;
use crate::watch::{SUPERVISORS, ThreadId};

/// What every supervisor of a tree shares.
pub(crate) struct Env {
    pub(crate) pool: Pool,
    pub(crate) sink: Arc<dyn EventSink>,
    pub(crate) dead_letters: DeadLetters,
    pub(crate) registry: Registry,
    pub(crate) tasks: Tasks,
    /// Incarnations that live and whose supervisor doesn't.
    pub(crate) orphans: watch::Sender<isize>,
}

impl Env {
    /// For a tree whose first supervisor is `root`.
    ///
    /// # Errors
    /// When the machine refuses a thread, and outside an actix system.
    pub(crate) fn new(settings: &Settings, root: SupervisorRef, sink: Arc<dyn EventSink>) -> io::Result<Self> {
        let pool = Pool::new(settings, root, Arc::clone(&sink))?;
        Ok(Self {
            pool,
            sink,
            dead_letters: DeadLetters::default(),
            registry: Registry::default(),
            tasks: Tasks::default(),
            orphans: watch::Sender::new(0),
        })
    }
}

/// How long the end of a tree waits for children whose supervisor died. Each of them obeys its own deadline; this is longer than most of them, and
/// no supervisor is left that would know better.
const ORPHANS_WAIT: Duration = Duration::from_secs(30);

impl Env {
    pub(crate) fn count_orphan(&self, more: isize) {
        self.orphans.send_modify(|count| *count += more);
    }

    /// Waits until every child whose supervisor died has ended.
    pub(crate) async fn orphans_ended(&self) {
        let mut orphans = self.orphans.subscribe();
        // Those that outlive this end with their threads.
        let _ = tokio::time::timeout(ORPHANS_WAIT, orphans.wait_for(|count| *count <= 0)).await;
    }
}

/// The arbiters of a tree: a few that take children in turn, and those of dedicated children. Supervisors live on the thread of the root, so
/// that no child here can hold one up.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    /// The thread of the root.
    roots: std::thread::ThreadId,
    keeper: Mutex<Option<std::thread::JoinHandle<()>>>,
    closed: watch::Receiver<Option<usize>>,
}

/// What the pool shares with its keeper, which must not keep the tree alive.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) threads: Mutex<Threads>,
    /// Rung when a thread has ended and when the pool closes.
    rung: Mutex<bool>,
    bell: Condvar,
    pub(crate) fenced: AtomicU64,
    pub(crate) stalls: AtomicU64,
}

/// The threads of the children.
#[derive(Default)]
pub(crate) struct Threads {
    pub(crate) all: BTreeMap<ThreadId, Thread>,
    /// Whose turn it is; a number that is in `all` no more stands for a place to be filled.
    rotation: Vec<ThreadId>,
    turn: usize,
    latest: ThreadId,
    pub(crate) closing: bool,
}

/// One thread of the children.
pub(crate) struct Thread {
    pub(crate) arbiter: Arbiter,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) duty: Duty,
    /// How far its work was when the keeper last looked.
    turns_seen: u64,
}

/// What a thread is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Duty {
    /// It takes children in turn.
    Pool,
    /// It was made for one incarnation.
    Dedicated,
    /// It was told to end.
    Ending,
    /// It was blocked when it should have answered, and told to end when it comes back.
    Leaked,
}

/// What a thread and its keeper share.
#[derive(Default)]
pub(crate) struct Pulse {
    /// A beat waits for its answer.
    pub(crate) owed: AtomicBool,
    /// Pieces of the children's work that were done; written by the thread alone.
    turns: AtomicU64,
    /// The thread runs nothing any more; joining it takes no time.
    pub(crate) ended: AtomicBool,
}

impl Pool {
    /// Makes the threads for children and the one that watches them, which tells `root` and `sink` of those that are blocked.
    fn new(settings: &Settings, root: SupervisorRef, sink: Arc<dyn EventSink>) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (sender, closed) = watch::channel(None);
        let made = shared
            .fill(settings.threads.max(1))
            .and_then(|()| keeper::spawn(Arc::clone(&shared), settings, Arbiter::try_current(), (root, sink), sender));
        match made {
            Ok(keeper) => {
                Ok(Self { shared, roots: std::thread::current().id(), keeper: Mutex::new(Some(keeper)), closed })
            }
            Err(error) => {
                // Those that were made end by themselves.
                shared.close();
                Err(error)
            }
        }
    }

    /// Runs `work` on the thread that the seat names, that of its predecessor, as long as it takes children; on the one whose turn it is
    /// otherwise. When there is none to be had, `work` is dropped.
    pub(crate) fn place(&self, seat: &Seat, spot: Spot, work: impl FnOnce() + Send + 'static) {
        // The guard is gone before the work runs or is dropped: its end may come back to the pool.
        let place = {
            let mut threads = self.shared.threads.lock();
            threads.known(seat.thread()).or_else(|| threads.next(&self.shared))
        };
        let Some((id, handle)) = place else { return };
        seat.live_on(id);
        if spot == Spot::Turn && self.shared.is_here(id) {
            work();
        } else {
            handle.spawn_fn(work);
        }
    }

    /// Whether the thread that calls is one of the tree's: that of the root, or one of these.
    pub(crate) fn is_of_the_tree(&self) -> bool {
        std::thread::current().id() == self.roots || self.shared.has_here(|_| true)
    }

    /// Makes a thread for one incarnation; it ends when it is [released](Self::release).
    ///
    /// # Errors
    /// When the machine refuses a thread.
    pub(crate) fn dedicate(&self, seat: &Seat) -> io::Result<ArbiterHandle> {
        let mut threads = self.shared.threads.lock();
        if threads.closing {
            return Err(io::Error::other("the tree is stopping"));
        }
        let id = threads.make(&self.shared, Duty::Dedicated)?;
        seat.live_on(id);
        threads.all.get(&id).map(|thread| thread.arbiter.handle()).ok_or_else(|| io::Error::other("no such thread"))
    }

    /// The incarnation for which a thread was made has ended: so does the thread, and its keeper joins it.
    pub(crate) fn release(&self, id: ThreadId) {
        if let Some(thread) = self.shared.threads.lock().all.get_mut(&id)
            && thread.duty == Duty::Dedicated
        {
            thread.end();
        }
    }

    /// Whether a thread was found blocked and has not come back.
    pub(crate) fn is_leaked(&self, id: ThreadId) -> bool {
        id != SUPERVISORS && self.shared.threads.lock().all.get(&id).is_some_and(|thread| thread.duty == Duty::Leaked)
    }

    /// How many threads have each duty.
    pub(crate) fn count(&self, duty: Duty) -> usize {
        self.shared.threads.lock().count(duty)
    }

    /// Threads that were found blocked so far.
    pub(crate) fn fenced(&self) -> u64 {
        self.shared.fenced.load(Ordering::Relaxed)
    }

    /// How often the supervisors' thread was found blocked.
    pub(crate) fn stalls(&self) -> u64 {
        self.shared.stalls.load(Ordering::Relaxed)
    }

    /// Ends the threads and waits for them; the error is the number that did not end in time.
    pub(crate) async fn close(&self) -> Result<(), usize> {
        self.shared.close();
        let left = match self.closed.clone().wait_for(Option::is_some).await {
            Ok(left) => left.unwrap_or_default(),
            // Only a keeper that panicked says nothing.
            Err(_) => self.shared.threads.lock().all.len(),
        };
        let keeper = self.keeper.lock().take();
        if let Some(keeper) = keeper {
            // It has said its last word, so this takes no time. That it panicked is in the log of the process.
            let _ = keeper.join();
        }
        if left == 0 { Ok(()) } else { Err(left) }
    }
}

impl Drop for Pool {
    /// The last one to drop it may be a thread of the pool itself, so nobody is awaited: the keeper joins the others and ends.
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Shared {
    fn fill(self: &Arc<Self>, count: usize) -> io::Result<()> {
        let mut threads = self.threads.lock();
        for _ in 0..count {
            let id = threads.make(self, Duty::Pool)?;
            threads.rotation.push(id);
        }
        Ok(())
    }

    /// Tells every thread to end.
    fn close(&self) {
        let mut threads = self.threads.lock();
        threads.closing = true;
        threads.rotation.clear();
        for thread in threads.all.values_mut() {
            if thread.duty == Duty::Leaked {
                continue;
            }
            thread.end();
        }
        drop(threads);
        self.ring();
    }

    /// Whether that is the thread that calls.
    fn is_here(&self, id: ThreadId) -> bool {
        self.has_here(|here| here == id)
    }

    /// Whether the thread that calls is one of these, and one that is `wanted`.
    fn has_here(&self, wanted: impl Fn(ThreadId) -> bool) -> bool {
        let is_here = |local: &Obituary| std::ptr::eq(&raw const *local.shared, self) && wanted(local.id);
        OBITUARY
            .try_with(|local| local.try_borrow().is_ok_and(|local| local.as_ref().is_some_and(is_here)))
            .unwrap_or(false)
    }

    fn ring(&self) {
        *self.rung.lock() = true;
        self.bell.notify_one();
    }

    /// Waits until the bell is rung or `wait` has passed.
    pub(crate) fn listen(&self, wait: Duration) {
        let mut rung = self.rung.lock();
        if !*rung {
            self.bell.wait_for(&mut rung, wait);
        }
        *rung = false;
    }

    /// Joins the threads that have ended, and names those among them that were leaked.
    pub(crate) fn reap(&self) -> Vec<ThreadId> {
        let ended: Vec<(ThreadId, Thread)> = {
            let mut threads = self.threads.lock();
            threads.all.extract_if(.., |_, thread| thread.pulse.ended.load(Ordering::Acquire)).collect()
        };
        let mut returned = Vec::new();
        for (id, thread) in ended {
            if thread.duty == Duty::Leaked {
                returned.push(id);
            }
            // A thread that panicked has ended, too; that is all we ask.
            let _ = thread.arbiter.join();
        }
        returned
    }
}

impl Threads {
    /// The thread of that number, if it takes children.
    fn known(&self, id: ThreadId) -> Option<(ThreadId, ArbiterHandle)> {
        let thread = self.all.get(&id).filter(|thread| thread.duty == Duty::Pool && thread.arbiter.alive())?;
        Some((id, thread.arbiter.handle()))
    }

    /// The thread whose turn it is. A place whose thread has ended or is blocked gets another one; when the machine refuses it, the turn
    /// passes to the next.
    fn next(&mut self, shared: &Arc<Shared>) -> Option<(ThreadId, ArbiterHandle)> {
        for _ in 0..self.rotation.len() {
            let turn = self.turn % self.rotation.len();
            self.turn = turn + 1;
            let id = self.rotation[turn];
            match self.all.get_mut(&id) {
                Some(thread) if thread.duty == Duty::Pool && thread.arbiter.alive() => {
                    return Some((id, thread.arbiter.handle()));
                }
                Some(thread) if thread.duty == Duty::Pool => {
                    tracing::warn!("a thread of the children has ended, making another");
                    thread.end();
                }
                _ => {}
            }
            match self.make(shared, Duty::Pool) {
                Ok(fresh) => {
                    self.rotation[turn] = fresh;
                    return self.all.get(&fresh).map(|thread| (fresh, thread.arbiter.handle()));
                }
                Err(error) => tracing::error!(%error, "no thread for the children"),
            }
        }
        None
    }

    fn make(&mut self, shared: &Arc<Shared>, duty: Duty) -> io::Result<ThreadId> {
        let pulse = Arc::new(Pulse::default());
        let id = self.latest + 1;
        let arbiter = arbiter(Obituary { id, shared: Arc::clone(shared), pulse: Arc::clone(&pulse) })?;
        self.latest = id;
        self.all.insert(id, Thread { arbiter, pulse, duty, turns_seen: 0 });
        Ok(id)
    }

    pub(crate) fn count(&self, duty: Duty) -> usize {
        self.all.values().filter(|thread| thread.duty == duty).count()
    }
}

impl Thread {
    /// Tells it to end.
    pub(crate) fn end(&mut self) {
        self.duty = Duty::Ending;
        self.arbiter.stop();
    }

    /// Takes it for lost: it ends when what blocks it returns.
    pub(crate) fn leak(&mut self) {
        self.duty = Duty::Leaked;
        self.arbiter.stop();
    }

    /// Whether it owes a sign of life and has done nothing since this was last asked. One that is flooded comes to the question late.
    pub(crate) fn is_silent(&mut self) -> bool {
        let turns = self.pulse.turns.load(Ordering::Relaxed);
        let moved = std::mem::replace(&mut self.turns_seen, turns) != turns;
        match self.duty {
            Duty::Pool | Duty::Dedicated => !moved && self.pulse.owed.load(Ordering::Acquire),
            Duty::Ending => true,
            Duty::Leaked => false,
        }
    }

    /// Asks it for a sign of life. A thread that takes no question any more is about to end.
    pub(crate) fn beat(&mut self) {
        self.pulse.owed.store(true, Ordering::Release);
        let pulse = Arc::clone(&self.pulse);
        if !self.arbiter.spawn_fn(move || pulse.owed.store(false, Ordering::Release)) {
            self.duty = Duty::Ending;
        }
    }
}

/// Dropped with the other locals of a thread, when nothing runs on it any more.
struct Obituary {
    id: ThreadId,
    shared: Arc<Shared>,
    pulse: Arc<Pulse>,
}

impl Drop for Obituary {
    fn drop(&mut self) {
        self.pulse.ended.store(true, Ordering::Release);
        self.shared.ring();
    }
}

thread_local! {
    static OBITUARY: std::cell::RefCell<Option<Obituary>> = const { std::cell::RefCell::new(None) };
}

/// Notes that the thread that calls has done a piece of the children's work.
pub(crate) fn note_turn() {
    // A thread that isn't ours is not watched, and one that is ending does no more work.
    let _ = OBITUARY.try_with(|local| {
        if let Ok(local) = local.try_borrow()
            && let Some(Obituary { pulse, .. }) = &*local
        {
            pulse.turns.store(pulse.turns.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        }
    });
}

/// A new thread with the runtime that actix would make, which says when it ends.
fn arbiter(obituary: Obituary) -> io::Result<Arbiter> {
    // Without a system actix panics instead of failing, and so does a system that is there and does not run.
    System::try_current()
        .filter(|_| tokio::runtime::Handle::try_current().is_ok())
        .ok_or_else(|| io::Error::other("outside an actix system"))?;
    Arbiter::try_with_tokio_rt(move || {
        OBITUARY.set(Some(obituary));
        tokio::runtime::Builder::new_current_thread().enable_all().build()
    })
}
