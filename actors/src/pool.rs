//! The threads on which children live, and what the whole tree shares.

use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_rt::{Arbiter, System};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::dead_letters::DeadLetters;
use crate::event::EventSink;

/// Threads for children at most. They run short handlers and wait for IO; more threads would add wake-ups, not speed.
const ARBITERS_MAX: usize = 4;

/// How long the threads may take to end once every child is stopped. Only a handler that blocks its thread takes longer.
const JOIN_WAIT: Duration = Duration::from_secs(5);

/// What every supervisor of a tree shares.
pub(crate) struct Env {
    pub(crate) pool: Pool,
    pub(crate) sink: Arc<dyn EventSink>,
    pub(crate) dead_letters: DeadLetters,
}

/// A few arbiters that take children in turn. Supervisors live on the thread of the root, so that no child here can hold one up.
pub(crate) struct Pool {
    /// Empty once the pool is closed.
    arbiters: Mutex<Vec<Arbiter>>,
    turn: AtomicUsize,
}

impl Pool {
    /// One arbiter a core, at most four; `None` outside an actix system and when the machine refuses a thread.
    pub(crate) fn new() -> Option<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let pool = Self { arbiters: Mutex::default(), turn: AtomicUsize::new(0) };
        for _ in 0..cores.min(ARBITERS_MAX) {
            pool.arbiters.lock().push(arbiter()?);
        }
        Some(pool)
    }

    /// Runs `work` on the thread whose turn it is. A thread that has ended is replaced; when that is impossible, `work` is dropped.
    pub(crate) fn place(&self, work: impl FnOnce() + Send + 'static) {
        let mut arbiters = self.arbiters.lock();
        if arbiters.is_empty() {
            return;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % arbiters.len();
        let arbiter = &mut arbiters[turn];
        if !arbiter.handle().alive() {
            tracing::warn!("a thread of the children has ended, making another");
            if let Some(fresh) = self::arbiter() {
                *arbiter = fresh;
            }
        }
        arbiter.spawn_fn(work);
    }

    /// Ends the threads and waits for them; the error is the number that did not end in time.
    pub(crate) async fn close(&self) -> Result<(), usize> {
        let arbiters = std::mem::take(&mut *self.arbiters.lock());
        let ends: Vec<oneshot::Receiver<()>> = arbiters
            .into_iter()
            .map(|arbiter| {
                arbiter.stop();
                let (sender, receiver) = oneshot::channel();
                // A plain thread, because a runtime waits for its blocking tasks for ever and this one may not end.
                std::thread::spawn(move || {
                    // An arbiter whose thread panicked has ended, too; that is all we ask.
                    let _ = arbiter.join();
                    let _ = sender.send(());
                });
                receiver
            })
            .collect();
        let deadline = tokio::time::Instant::now() + JOIN_WAIT;
        let mut stuck = 0;
        for end in ends {
            if tokio::time::timeout_at(deadline, end).await.is_err() {
                stuck += 1;
            }
        }
        if stuck == 0 { Ok(()) } else { Err(stuck) }
    }
}

/// A new thread, if the machine grants one: actix panics when it doesn't, and that must not be the end of a supervisor.
fn arbiter() -> Option<Arbiter> {
    System::try_current()?;
    catch_unwind(Arbiter::new).ok()
}

impl Drop for Pool {
    fn drop(&mut self) {
        for arbiter in self.arbiters.get_mut() {
            arbiter.stop();
        }
    }
}
