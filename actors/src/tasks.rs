//! Tokio tasks that belong to an incarnation.
//!
//! They are kept beside the seats, so that a child without tasks pays nothing for them.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use dashmap::{DashMap, Entry};
use tokio::task::JoinSet;

use crate::cell::Seat;
use crate::panics::guarded;

/// Tasks of one incarnation at once: one for each message that its inbox holds by default. An actor that starts more has lost count, and
/// each keeps memory that nothing else bounds.
pub const TASKS_MAX: usize = 1024;

/// Why a task was not started; its future is dropped unpolled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// [`TASKS_MAX`] tasks of the incarnation run already.
    #[error("too many tasks run already")]
    Full,
    /// The incarnation that it would belong to has ended.
    #[error("the incarnation has ended")]
    Ended,
}

/// The tasks of every incarnation of a tree that has any.
#[derive(Default)]
pub(crate) struct Tasks {
    /// By the address of the seat, which stays where it is until its incarnation has ended.
    sets: DashMap<usize, JoinSet<()>>,
    panics: AtomicU64,
}

/// What the panic of a task is to its incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tie {
    /// A matter of the log.
    Loose,
    /// Its end, as if the actor had panicked.
    Linked,
}

impl Tasks {
    /// Runs `future` on the calling thread until it is done or the incarnation ends.
    pub(crate) fn spawn(
        &self,
        seat: &Arc<Seat>,
        tie: Tie,
        future: impl Future<Output = ()> + 'static,
    ) -> Result<(), TaskError> {
        let owner = Arc::clone(seat);
        let task = async move {
            let mut future = pin!(future);
            let polled = std::future::poll_fn(|cx| match guarded(&owner.path, || future.as_mut().poll(cx)) {
                Ok(polled) => polled.map(Ok),
                Err(panic) => Poll::Ready(Err(panic)),
            });
            if let Err(panic) = polled.await {
                owner.env.tasks.panics.fetch_add(1, Ordering::Relaxed);
                if tie == Tie::Linked {
                    owner.end_with(panic);
                }
            }
        };
        match self.sets.entry(address(seat)) {
            Entry::Occupied(mut tasks) => {
                let tasks = tasks.get_mut();
                while tasks.try_join_next().is_some() {}
                if tasks.len() >= TASKS_MAX {
                    return Err(TaskError::Full);
                }
                tasks.spawn_local(task);
                Ok(())
            }
            // An incarnation that ends marks its seat before it looks here: either it finds these tasks, or we find the mark.
            Entry::Vacant(free) if seat.note_tasks() => {
                let mut tasks = JoinSet::new();
                tasks.spawn_local(task);
                free.insert(tasks);
                Ok(())
            }
            Entry::Vacant(_) => Err(TaskError::Ended),
        }
    }

    /// Aborts the tasks of an incarnation that has ended. They are gone when their thread comes to them.
    pub(crate) fn end(&self, seat: &Seat) {
        // Removed first and dropped outside the lock: the last hold on a task may be ours.
        let tasks = self.sets.remove(&address(seat));
        drop(tasks);
    }

    /// Tasks that panicked so far.
    pub(crate) fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }
}

fn address(seat: &Seat) -> usize {
    std::ptr::from_ref(seat).addr()
}
