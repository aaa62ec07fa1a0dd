//! The thread that reads, on a connection of its own: it sees what was committed and never waits for the writer.

use std::sync::Arc;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::writer::{ANSWER_WAIT_MAX, Damage, QUEUE_MAX};
use crate::store::{error::StoreError, journal::Answer, worker::Worker};

type Job = Box<dyn FnOnce(&Connection) + Send>;

/// The handle of the thread.
pub(in crate::store) struct Reader {
    // Before the worker, so that the queue is closed when the worker is waited for.
    jobs: mpsc::Sender<Job>,
    damage: Arc<Damage>,
    _worker: Worker,
}

impl Reader {
    /// Starts the thread `name` on a connection of [`open_for_reading`](super::database::open_for_reading).
    pub(in crate::store) fn start(name: &str, connection: Connection, damage: Arc<Damage>) -> Result<Self, StoreError> {
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE_MAX);
        let worker = Worker::start(name, move || {
            while let Some(job) = queue.blocking_recv() {
                job(&connection);
            }
        })?;
        Ok(Self { jobs, damage, _worker: worker })
    }

    /// Answers with what `query` finds.
    pub(in crate::store) fn call<T, F>(&self, query: F) -> Answer<'_, T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let damage = Arc::clone(&self.damage);
        let job: Job = Box::new(move |connection| {
            let found = query(connection);
            damage.note(&found);
            // The caller may have gone away.
            let _ = reply.send(found);
        });
        Box::pin(async move {
            let round_trip = async {
                self.jobs.send(job).await.map_err(|_| StoreError::Gone)?;
                answer.await.map_err(|_| StoreError::Gone)?
            };
            tokio::time::timeout(ANSWER_WAIT_MAX, round_trip).await.unwrap_or(Err(StoreError::Busy))
        })
    }
}
