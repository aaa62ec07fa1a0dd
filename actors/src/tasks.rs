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
    /// Runs `future` on the calling thread until it is done or the incarnation ends; drops it when that has ended already.
    pub(crate) fn spawn(&self, seat: &Arc<Seat>, tie: Tie, future: impl Future<Output = ()> + 'static) {
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
                while tasks.get_mut().try_join_next().is_some() {}
                tasks.get_mut().spawn_local(task);
            }
            // An incarnation that ends marks its seat before it looks here: either it finds these tasks, or we find the mark.
            Entry::Vacant(free) if seat.note_tasks() => {
                let mut tasks = JoinSet::new();
                tasks.spawn_local(task);
                free.insert(tasks);
            }
            Entry::Vacant(_) => {}
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
