//! A named thread with an owner that waits for its end.

use std::{
    io,
    sync::mpsc::{self, RecvTimeoutError},
    thread::{self, JoinHandle},
    time::Duration,
};

use parking_lot::Mutex;

/// How long an owner waits for its thread: a queue of writes is through in well under a second; a disk that hangs must not hold the daemon's end up
/// for longer than an operator's patience.
const END_WAIT_MAX: Duration = Duration::from_secs(5);

/// The thread. Its owner tells it to end first (by closing its queue), then drops this.
pub(super) struct Worker {
    thread: Option<JoinHandle<()>>,
    // Only its owner's end looks at it; the lock makes the owner shareable between threads.
    ended: Mutex<mpsc::Receiver<()>>,
}

impl Worker {
    /// Starts it.
    pub(super) fn start(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let (alive, ended) = mpsc::sync_channel::<()>(1);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            // Dropped at the end, also by a panic: that is what the owner waits for.
            let _alive = alive;
            body();
        })?;
        Ok(Self { thread: Some(thread), ended: Mutex::new(ended) })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        if self.ended.get_mut().recv_timeout(END_WAIT_MAX) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!(thread = thread.thread().name(), "thread did not end in time; the disk hangs");
            return;
        }
        if thread.join().is_err() {
            tracing::error!("a thread of the store panicked");
        }
    }
}
