//! The thread that reads, on a connection of its own: it sees what was committed and never waits for the writer.

use std::path::Path;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::{
    schema,
    writer::{ANSWER_WAIT_MAX, QUEUE_MAX},
};
use crate::store::{error::StoreError, journal::Answer, worker::Worker};

type Job = Box<dyn FnOnce(&Connection) + Send>;

/// The handle of the thread.
pub(super) struct Reader {
    // Before the worker, so that the queue is closed when the worker is waited for.
    jobs: mpsc::Sender<Job>,
    _worker: Worker,
}

impl Reader {
    pub(super) fn start(path: &Path) -> Result<Self, StoreError> {
        let connection = schema::open_for_reading(path)?;
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE_MAX);
        let worker = Worker::start("hk-journal-read", move || {
            while let Some(job) = queue.blocking_recv() {
                job(&connection);
            }
        })?;
        Ok(Self { jobs, _worker: worker })
    }

    /// Answers with what `query` finds.
    pub(super) fn call<T, F>(&self, query: F) -> Answer<'_, T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            // The caller may have gone away.
            let _ = reply.send(query(connection));
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
