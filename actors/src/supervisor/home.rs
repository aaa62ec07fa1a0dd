//! Where a supervisor lives, and the children beside it.

use std::thread::ThreadId;

use actix_rt::Arbiter;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::cell::Spot;

/// Brings a cell to life on the thread that runs it.
type Birth = Box<dyn FnOnce() + Send>;

/// The thread on which a supervisor lives.
pub(crate) struct Home {
    thread: ThreadId,
    /// What is born there on word from elsewhere; as many as there are children to be launched.
    births: UnboundedSender<Birth>,
}

impl Home {
    /// The thread that calls, if it is that of an arbiter.
    pub(super) fn here() -> Option<Self> {
        Arbiter::try_current()?;
        #[expect(
            clippy::disallowed_methods,
            reason = "one for each child at most, and who waited for room would do so under the lock"
        )]
        let (births, mut due) = unbounded_channel::<Birth>();
        // Ends when its owner, the home, is gone and the last is born.
        drop(actix_rt::spawn(async move {
            while let Some(birth) = due.recv().await {
                birth();
            }
        }));
        Some(Self { thread: std::thread::current().id(), births })
    }

    /// Whether what is born there may be born by whoever calls, in that turn: in one of a task of its own the thread may be running something
    /// that takes new tasks for its own (a `LocalSet`).
    pub(super) fn is_here(&self, spot: Spot) -> bool {
        spot == Spot::Turn && std::thread::current().id() == self.thread
    }

    /// Has `birth` run there, in a turn of its own. When the thread has ended, it is dropped.
    pub(crate) fn send(&self, birth: impl FnOnce() + Send + 'static) {
        // Dropped, it says so itself.
        let _ = self.births.send(Box::new(birth));
    }
}
