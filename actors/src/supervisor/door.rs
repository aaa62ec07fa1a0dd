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

/// What becomes of an order at the door.
pub(crate) enum Heard {
    /// It is decided, and the answer will come.
    AtOnce(Result<oneshot::Receiver<Answer>, SupervisorError>),
    /// It is given back, to be sent.
    NotNow(Request<Bench>),
}

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
        let before = std::mem::replace(&mut *self.ear.lock(), Arc::downgrade(ear));
        if let Some(before) = before.upgrade() {
            before.let_go();
        }
    }

    /// The thread of the incarnation is blocked; see [`Ear::let_go`].
    pub(super) fn let_go(&self) {
        let ear = self.ear.lock().upgrade();
        if let Some(ear) = ear {
            ear.let_go();
        }
    }

    /// Decides an order, if that may be done here and now.
    pub(crate) fn hear(&self, order: Request<Bench>) -> Heard {
        if self.outside.load(Ordering::Acquire) > 0 {
            return Heard::NotNow(order);
        }
        let ear = self.ear.lock().upgrade();
        match ear {
            Some(ear) => ear.take_order(order),
            None => Heard::NotNow(order),
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
