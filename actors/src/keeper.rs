//! The plain thread of a tree that asks the others for signs of life, takes the blocked ones out of use, and joins those that end.
//!
//! It runs nothing of the children's and waits for nobody, so no child can hold it up.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use actix_rt::ArbiterHandle;
use tokio::sync::watch::Sender;

use crate::event::{EventSink, ThreadEvent};
use crate::log;
use crate::panics::guarded;
use crate::pool::{Duty, Pulse, Shared};
use crate::settings::Settings;
use crate::supervisor_ref::SupervisorRef;
use crate::watch::{SUPERVISORS, ThreadId, Verdict, Watch};

/// How long the threads may take to end once every child is stopped. Only a handler that blocks its thread takes longer.
const JOIN_WAIT: Duration = Duration::from_secs(5);

/// How long the keeper sleeps when it watches nobody; it is woken whenever it has something to do.
const IDLE: Duration = Duration::from_secs(3600);

/// Word for the supervisors that a thread is blocked and everything on it has to be made anew elsewhere.
#[derive(Clone, Debug)]
pub(crate) struct Fence {
    pub(crate) thread: ThreadId,
    /// It has to go out: for the first time, or again because some supervisor had no room for it.
    missed: Arc<AtomicBool>,
}

impl Fence {
    fn new(thread: ThreadId) -> Self {
        Self { thread, missed: Arc::new(AtomicBool::new(true)) }
    }

    /// Notes that it did not reach everyone.
    pub(crate) fn miss(&self) {
        self.missed.store(true, Ordering::Release);
    }
}

struct Keeper {
    shared: Arc<Shared>,
    watch: Watch,
    supervisors: Option<ArbiterHandle>,
    supervisors_pulse: Arc<Pulse>,
    root: SupervisorRef,
    sink: Arc<dyn EventSink>,
    fences: Vec<Fence>,
}

/// Starts the keeper. It ends when the pool closes, and then says through `closed` how many threads did not end.
pub(crate) fn spawn(
    shared: Arc<Shared>,
    settings: &Settings,
    supervisors: Option<ArbiterHandle>,
    (root, sink): (SupervisorRef, Arc<dyn EventSink>),
    closed: Sender<Option<usize>>,
) -> io::Result<JoinHandle<()>> {
    let watched = settings.stuck_after.is_some();
    let mut keeper = Keeper {
        shared,
        watch: Watch::new(settings.stuck_after.unwrap_or(IDLE), settings.leaked_max),
        supervisors,
        supervisors_pulse: Arc::default(),
        root,
        sink,
        fences: Vec::new(),
    };
    std::thread::Builder::new().name("hivekeeper-keeper".into()).spawn(move || {
        keeper.keep(watched);
        let left = keeper.bury();
        closed.send_replace(Some(left));
    })
}

impl Keeper {
    /// Until the pool closes.
    fn keep(&mut self, watched: bool) {
        let mut next_round = Instant::now();
        while !self.shared.threads.lock().closing {
            let now = Instant::now();
            if watched && now >= next_round {
                self.round(now);
                next_round = now + self.watch.period();
            }
            self.shared.listen(if watched { next_round.saturating_duration_since(Instant::now()) } else { IDLE });
            self.reap();
        }
    }

    /// Joins the threads that have ended.
    fn reap(&self) {
        for thread in self.shared.reap() {
            self.tell(ThreadEvent::Returned { thread, leaked: self.leaked() });
        }
    }

    fn round(&mut self, now: Instant) {
        let verdicts = {
            let mut threads = self.shared.threads.lock();
            let mut silent: Vec<ThreadId> = Vec::new();
            if self.supervisors_pulse.owed.load(Ordering::Acquire) {
                silent.push(SUPERVISORS);
            }
            silent.extend(threads.all.iter_mut().filter_map(|(id, thread)| thread.is_silent().then_some(*id)));
            self.watch.round(now, threads.count(Duty::Leaked), &silent)
        };
        for verdict in verdicts {
            self.perform(verdict);
        }
        self.announce();
        self.beat();
    }

    fn perform(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Fence(thread) => {
                if let Some(thread) = self.shared.threads.lock().all.get_mut(&thread) {
                    thread.leak();
                }
                self.shared.fenced.fetch_add(1, Ordering::Relaxed);
                self.fences.push(Fence::new(thread));
                self.tell(ThreadEvent::Fenced { thread, leaked: self.leaked() });
            }
            Verdict::AtCap(thread) => self.tell(ThreadEvent::AtCap { thread, leaked: self.leaked() }),
            Verdict::Supervisors { anew } => {
                self.shared.stalls.fetch_add(u64::from(anew), Ordering::Relaxed);
                self.tell(ThreadEvent::SupervisorsBlocked);
            }
        }
    }

    fn leaked(&self) -> usize {
        self.shared.threads.lock().count(Duty::Leaked)
    }

    /// Tells the log and the sink; a panic of the sink is noted and ends nothing.
    fn tell(&self, event: ThreadEvent) {
        log::thread(event);
        let _ = guarded(log::THREADS, || self.sink.thread(event));
    }

    /// Sends out what is new and what did not reach everyone. What lives on a thread that came back ends with it, and says so itself.
    fn announce(&mut self) {
        let threads = self.shared.threads.lock();
        self.fences.retain(|fence| threads.all.contains_key(&fence.thread));
        drop(threads);
        for fence in &self.fences {
            if fence.missed.swap(false, Ordering::AcqRel) {
                self.root.fence(fence);
            }
        }
    }

    fn beat(&mut self) {
        for thread in self.shared.threads.lock().all.values_mut() {
            let asked = matches!(thread.duty, Duty::Pool | Duty::Dedicated);
            if asked && !thread.pulse.owed.load(Ordering::Acquire) {
                thread.beat();
            }
        }
        let pulse = &self.supervisors_pulse;
        if let Some(handle) = &self.supervisors
            && !pulse.owed.swap(true, Ordering::AcqRel)
        {
            let answered = Arc::clone(pulse);
            if !handle.spawn_fn(move || answered.owed.store(false, Ordering::Release)) {
                // The system has ended, and the tree with it.
                pulse.owed.store(false, Ordering::Release);
                self.supervisors = None;
            }
        }
    }

    /// Joins what ends in time; the others are left to themselves. Answers how many they are.
    fn bury(&self) -> usize {
        let deadline = Instant::now() + JOIN_WAIT;
        loop {
            self.reap();
            let left = self.shared.threads.lock().all.len();
            let wait = deadline.saturating_duration_since(Instant::now());
            if left == 0 || wait.is_zero() {
                return left;
            }
            self.shared.listen(wait);
        }
    }
}
