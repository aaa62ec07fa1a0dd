//! How many commands may be starting at once.

use std::{collections::HashMap, sync::Arc, thread, time::Duration};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The engine starts one command at a time in a container anyway (docker 20.10 holds a lock). The second waits in its queue, so that it need not wait
/// for us in between; more would only wait longer there, where one can't be told from one that hangs.
const STARTS_PER_CONTAINER: usize = 2;
/// A start is about 70 ms of CPU, and about as long again is spent waiting for the engine's own steps.
const STARTS_PER_CORE: usize = 2;
/// When not even the number of cores can be told.
const CORES_UNKNOWN: usize = 2;
/// Waiting for one's turn. Fifty agents at once in one container need 4 s; thousands need minutes, and are better told to come again.
const TURN_DEADLINE: Duration = Duration::from_secs(60);

/// Turns for starting commands: two for each container, two for each core of this machine in all, and one more.
pub(super) struct Starts {
    per_container: usize,
    engine: Arc<Semaphore>,
    containers: Mutex<HashMap<String, Arc<Semaphore>>>,
}

/// One's turn; over when it is dropped.
pub(super) struct Turn {
    _container: OwnedSemaphorePermit,
    _engine: OwnedSemaphorePermit,
}

impl Starts {
    pub(super) fn new() -> Self {
        let cores = thread::available_parallelism().map_or(CORES_UNKNOWN, usize::from);
        Self::of_size(STARTS_PER_CONTAINER, cores * STARTS_PER_CORE + 1)
    }

    fn of_size(per_container: usize, in_all: usize) -> Self {
        Self { per_container, engine: Arc::new(Semaphore::new(in_all)), containers: Mutex::new(HashMap::new()) }
    }

    /// Waits for one's turn. `None` when it did not come in time.
    pub(super) async fn turn(&self, container: &str) -> Option<Turn> {
        tokio::time::timeout(TURN_DEADLINE, async {
            // The container's turn first: who waits for it must not hold up the starts in other containers.
            let container = self.of(container).acquire_owned().await.ok()?;
            let engine = Arc::clone(&self.engine).acquire_owned().await.ok()?;
            Some(Turn { _container: container, _engine: engine })
        })
        .await
        .ok()
        .flatten()
    }

    fn of(&self, container: &str) -> Arc<Semaphore> {
        let mut all = self.containers.lock();
        // Whoever waits or starts holds a second reference; the rest is forgotten here, so that the map grows no longer than the work does.
        all.retain(|_, semaphore| Arc::strong_count(semaphore) > 1);
        Arc::clone(all.entry(container.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(self.per_container))))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::pin::pin;

    use futures_util::poll;

    use super::*;

    fn starts(in_all: usize) -> Starts {
        Starts::of_size(1, in_all)
    }

    #[tokio::test]
    async fn starts_in_one_container_take_turns() {
        let starts = starts(8);
        let first = starts.turn("a").await.unwrap();
        let mut second = pin!(starts.turn("a"));
        assert!(poll!(second.as_mut()).is_pending());
        assert!(starts.turn("b").await.is_some(), "another container has turns of its own");
        drop(first);
        assert!(second.await.is_some());
    }

    #[tokio::test]
    async fn no_more_starts_than_may_be_and_waiting_in_one_container_takes_none() {
        let starts = starts(2);
        let _first = starts.turn("a").await.unwrap();
        let mut queued = pin!(starts.turn("a"));
        assert!(poll!(queued.as_mut()).is_pending());
        let second = starts.turn("b").await.unwrap();
        let mut third = pin!(starts.turn("c"));
        assert!(poll!(third.as_mut()).is_pending());
        drop(second);
        assert!(third.await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends() {
        let starts = starts(1);
        let _first = starts.turn("a").await.unwrap();
        assert!(starts.turn("b").await.is_none());
    }

    #[tokio::test]
    async fn idle_containers_are_forgotten() {
        let starts = starts(1);
        for name in ["a", "b", "c"] {
            drop(starts.turn(name).await.unwrap());
        }
        assert_eq!(starts.containers.lock().len(), 1);
    }
}
