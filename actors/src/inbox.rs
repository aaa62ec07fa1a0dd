//! The inbox of a child: it belongs to the child, not to an incarnation, so messages survive a crash.
//!
//! actix's own mailbox dies with its context, is not really bounded, and is drained in one poll however long it is. This one is kept by
//! the child's cell, refuses at its capacity, and is pumped into the actor [`BUDGET`] messages at a time.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context as TaskContext, Poll};

use actix::dev::{Envelope, EnvelopeProxy};
use actix::fut::ActorFuture;
use actix::{Actor, AsyncContext, Context};
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use crate::cell::Seat;

/// Messages handled in one poll before the other actors of the thread get their turn; tokio's own budget for a task is the same.
const BUDGET: usize = 128;

/// Emptied queues larger than this give their memory back, so that one burst is not paid for ever.
const KEPT_CAPACITY: usize = 1024;

/// Why a message was refused; the message is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TellError {
    /// As many messages as fit are waiting already.
    #[error("the inbox is full")]
    Full,
    /// The child is stopped, done, failed or gone.
    #[error("the child is stopped")]
    Stopped,
}

/// What outlives the incarnations of a child: its messages and its count.
pub(crate) struct Inbox<A: Actor> {
    /// Written by everyone.
    arriving: Mutex<VecDeque<Envelope<A>>>,
    reading: Mutex<Reading<A>>,
    waiting: AtomicUsize,
    capacity: usize,
    pump: AtomicWaker,
    open: AtomicBool,
    /// The latest incarnation that was launched; 0 is none.
    incarnation: AtomicU64,
}

/// The pump's side.
struct Reading<A: Actor> {
    /// Swapped with the other when it is empty: the lock that senders want is taken once a batch. It stays here and is taken from one by one, so
    /// that an incarnation that never comes back from a handler takes nothing along but that one message.
    batch: VecDeque<Envelope<A>>,
    /// The incarnation that lives. At most one does, whatever its supervisor believes; a fenced one lives no more.
    tenant: Option<Arc<Seat>>,
}

impl<A: Actor> Inbox<A> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            arriving: Mutex::new(VecDeque::new()),
            reading: Mutex::new(Reading { batch: VecDeque::new(), tenant: None }),
            waiting: AtomicUsize::new(0),
            capacity,
            pump: AtomicWaker::new(),
            open: AtomicBool::new(true),
            incarnation: AtomicU64::new(0),
        }
    }

    pub(crate) fn push(&self, envelope: Envelope<A>) -> Result<(), TellError> {
        let refused = {
            let mut arriving = self.arriving.lock();
            if !self.is_open() {
                Err((TellError::Stopped, envelope))
            } else if self.waiting.load(Ordering::Relaxed) >= self.capacity {
                Err((TellError::Full, envelope))
            } else {
                self.waiting.fetch_add(1, Ordering::Relaxed);
                arriving.push_back(envelope);
                Ok(arriving.len() == 1)
            }
        };
        match refused {
            Ok(first) => {
                if first {
                    self.pump.wake();
                }
                Ok(())
            }
            // The message is dropped here, outside the lock: its destructor is not ours.
            Err((error, _envelope)) => Err(error),
        }
    }

    /// The next message for an incarnation; a fenced one gets none. The fence is looked at under the lock that its successor enters with, so
    /// nothing that the successor could have had goes to it.
    fn pop(&self, seat: &Seat, cx: &TaskContext<'_>) -> Option<Envelope<A>> {
        let mut reading = self.reading.lock();
        if seat.is_fenced() {
            return None;
        }
        let batch = &mut reading.batch;
        if batch.is_empty() {
            self.pump.register(cx.waker());
            let mut arriving = self.arriving.lock();
            if arriving.is_empty() {
                if batch.capacity() > KEPT_CAPACITY {
                    *batch = VecDeque::new();
                }
                return None;
            }
            std::mem::swap(&mut *arriving, batch);
        }
        let envelope = batch.pop_front();
        if envelope.is_some() {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        envelope
    }

    /// Messages that wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    pub(crate) fn open(&self) {
        self.open.store(true, Ordering::Release);
    }

    /// Refuses messages from now on and drops those that wait.
    pub(crate) fn close(&self) {
        let dropped = {
            let mut reading = self.reading.lock();
            let mut arriving = self.arriving.lock();
            self.open.store(false, Ordering::Release);
            self.waiting.store(0, Ordering::Relaxed);
            (std::mem::take(&mut reading.batch), std::mem::take(&mut *arriving))
        };
        drop(dropped);
    }

    /// Notes that an incarnation is being made.
    pub(crate) fn note(&self, incarnation: u64) {
        self.incarnation.fetch_max(incarnation, Ordering::AcqRel);
    }

    pub(crate) fn incarnation(&self) -> u64 {
        self.incarnation.load(Ordering::Acquire)
    }

    /// Takes the place of the one living incarnation; when it is taken, the task is woken once it is free. A fenced incarnation comes too late.
    pub(crate) fn enter(&self, seat: &Arc<Seat>, cx: &TaskContext<'_>) -> bool {
        let mut reading = self.reading.lock();
        if seat.is_fenced() {
            return false;
        }
        if let Some(tenant) = &reading.tenant {
            // Registered first: a fence that falls in between wakes it.
            tenant.succeed(cx);
            if !tenant.is_fenced() {
                return false;
            }
        }
        reading.tenant = Some(Arc::clone(seat));
        true
    }

    /// Makes room, unless another has taken the place already.
    pub(crate) fn leave(&self, seat: &Arc<Seat>) {
        let left = self.reading.lock().tenant.take_if(|tenant| Arc::ptr_eq(tenant, seat));
        drop(left);
    }
}

/// Carries messages into an actor; lives in the actor's own context.
pub(crate) struct Pump<A: Actor> {
    inbox: Arc<Inbox<A>>,
    seat: Arc<Seat>,
    begun: bool,
}

impl<A: Actor> Pump<A> {
    pub(crate) fn new(inbox: Arc<Inbox<A>>, seat: Arc<Seat>) -> Self {
        Self { inbox, seat, begun: false }
    }
}

impl<A: Actor<Context = Context<A>>> ActorFuture<A> for Pump<A> {
    type Output = ();

    fn poll(
        mut self: Pin<&mut Self>,
        actor: &mut A,
        context: &mut Context<A>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Self::Output> {
        // The first poll comes right after the `started()` hook: it counts as started before it sees a message.
        if !std::mem::replace(&mut self.begun, true) {
            self.seat.say_hook_returned();
        }
        for _ in 0..BUDGET {
            // A future that the actor waits for, or a stop, is in force: the context polls us again when it is over.
            if context.waiting() {
                return Poll::Pending;
            }
            match self.inbox.pop(&self.seat, cx) {
                Some(mut envelope) => envelope.handle(actor, context),
                None => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
