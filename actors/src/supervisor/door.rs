//! How orders reach a supervisor.
//!
//! An order is taken in at once, on the thread of whoever gives it, if that is a thread of the tree: then it costs no turn of the actor and waits
//! for no other thread to wake up. It goes to the actor as a message when somebody else has the lock (an [`EventSink`](crate::EventSink) that
//! gives an order, for one), when an earlier order or notice is still on its way (nothing overtakes it), when the supervisor starts, is being
//! stopped or does not run, and when it comes from any other thread: what is launched for it may need what those of the tree have.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::ear::Ear;
use super::{Answer, Bench};
use crate::supervisor_ref::SupervisorError;
use crate::tree::Request;

/// The way of orders to a supervisor, whichever incarnation of it runs.
#[derive(Default)]
pub(crate) struct Door {
    /// That of the latest incarnation.
    ear: Mutex<Weak<Ear>>,
    /// Those that are on their way to the actor.
    outside: AtomicUsize,
}

impl Door {
    /// An incarnation hears orders from now on.
    pub(super) fn open(&self, ear: &Arc<Ear>) {
        *self.ear.lock() = Arc::downgrade(ear);
    }

    /// Decides an order; the error is the order itself, to be sent.
    pub(crate) fn hear(
        &self,
        request: Request<Bench>,
    ) -> Result<Result<oneshot::Receiver<Answer>, SupervisorError>, Request<Bench>> {
        if self.outside.load(Ordering::Acquire) > 0 {
            return Err(request);
        }
        let ear = self.ear.lock().upgrade();
        match ear {
            Some(ear) => ear.take_order(request),
            None => Err(request),
        }
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("outside", &self.outside).finish_non_exhaustive()
    }
}

/// Somebody on the way to the actor, until the turn has come.
pub(crate) struct Waits(Arc<Door>);

impl Waits {
    pub(crate) fn outside(door: &Arc<Door>) -> Self {
        door.outside.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(door))
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.outside.fetch_sub(1, Ordering::AcqRel);
    }
}
