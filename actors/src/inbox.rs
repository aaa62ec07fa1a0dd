//! The inbox of a child: it belongs to the child, not to an incarnation, so messages survive a crash.
//!
//! actix's own mailbox dies with its context, is not really bounded, and is drained in one poll however long it is. This one is kept by
//! the child's cell, is bounded, and is pumped into the actor a few messages at a time (`pump`).
//!
//! Two locks: the one that senders want is taken by the pump once a batch. Whoever takes both takes `reading` first.

mod turnover;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::Context as TaskContext;
use std::time::Duration;

use actix::Actor;
use futures_util::task::AtomicWaker;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::cell::Seat;
use crate::letter::{Letter, Refusal};
use crate::spec::{ChildSpec, Overflow};

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

/// What is known of a child without asking it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChildStats {
    /// The latest incarnation that was made; 0 when the child was never started.
    pub incarnation: u64,
    /// Whether an incarnation lives.
    pub live: bool,
    /// Messages that wait.
    pub waiting: usize,
    /// Messages that an incarnation had, those that crashed it and those that were given up included. One that is delivered again counts again.
    pub handled: u64,
    /// Messages that an overflow or [`OnRestart::Drop`](crate::OnRestart::Drop) dropped, and those that waited when the child came to rest and are no dead letters.
    pub dropped: u64,
    /// Messages that became [dead letters](crate::DeadLetters).
    pub dead_lettered: u64,
    /// Deliveries after a crash.
    pub redelivered: u64,
}

/// What outlives the incarnations of a child: its messages and its count.
///
/// In this order, so that what senders write to with each message and what the pump writes to with each are not neighbours in memory.
#[repr(C)]
pub(crate) struct Inbox<A: Actor> {
    arriving: Mutex<Arriving<A>>,
    pump: AtomicWaker,
    /// The latest incarnation that was launched; 0 is none.
    incarnation: AtomicU64,
    /// Somebody waits for room. A hint: who misses its change hears of the room at the next message.
    wanted: AtomicBool,
    reading: Mutex<Reading<A>>,
    /// The length of the batch; written under the lock of `reading`, and counted by senders.
    batch_left: AtomicUsize,
}

/// The senders' side.
struct Arriving<A: Actor> {
    queue: VecDeque<Letter<A>>,
    /// The queue may grow to this length without another look at `batch_left`, which the pump writes to with each message. 0 where that or the
    /// capacity may have changed for the worse.
    sure: usize,
    /// The latest incarnation that was launched, until the child comes to rest.
    latest: Option<Arc<Seat>>,
    rare: Option<Box<Rare>>,
    capacity: usize,
    /// Messages that waited when an incarnation was stopped. If another one follows, `on_restart` is for them.
    stale: usize,
    open: bool,
    overflow: Overflow,
}

/// What most inboxes never need.
#[derive(Default)]
struct Rare {
    dropped: u64,
    dead_lettered: u64,
    redelivered: u64,
    /// Senders that wait for room.
    senders: usize,
    room: Arc<Notify>,
}

/// The pump's side.
struct Reading<A: Actor> {
    /// Swapped with the queue when it is empty. It stays here and is taken from one by one, so that an incarnation that never comes back from a
    /// handler takes nothing along but that one message.
    batch: VecDeque<Letter<A>>,
    /// The incarnation that lives. At most one does, whatever its supervisor believes; a fenced one lives no more.
    tenant: Option<Arc<Seat>>,
    handled: u64,
}

impl<A: Actor> Reading<A> {
    fn is_live(&self) -> bool {
        self.tenant.as_ref().is_some_and(|tenant| !tenant.has_ended())
    }
}

/// A message that was not taken.
pub(crate) struct Refused<A: Actor> {
    pub(crate) error: TellError,
    pub(crate) letter: Letter<A>,
    overflow: Overflow,
}

impl<A: Actor> Arriving<A> {
    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }
}

impl<A: Actor> Inbox<A> {
    pub(crate) fn new(spec: &ChildSpec) -> Self {
        Self {
            arriving: Mutex::new(Arriving {
                queue: VecDeque::new(),
                sure: 0,
                latest: None,
                rare: None,
                capacity: spec.inbox_capacity,
                stale: 0,
                open: true,
                overflow: spec.overflow,
            }),
            pump: AtomicWaker::new(),
            incarnation: AtomicU64::new(0),
            wanted: AtomicBool::new(false),
            reading: Mutex::new(Reading { batch: VecDeque::new(), tenant: None, handled: 0 }),
            batch_left: AtomicUsize::new(0),
        }
    }

    /// Takes a message that nobody waits for.
    pub(crate) fn tell(&self, letter: Letter<A>) -> Result<(), TellError> {
        match self.push(letter) {
            // Lossy by choice: the sender is told of nothing, the loss is counted.
            Err(Refused { error: TellError::Full, overflow: Overflow::DropNewest, .. }) => Ok(()),
            // The message is dropped here, outside the lock: its destructor is not ours.
            result => result.map_err(|refused| refused.error),
        }
    }

    /// As [`Inbox::tell`], and waits for room under [`Overflow::Block`].
    pub(crate) async fn tell_wait(&self, letter: Letter<A>, timeout: Duration) -> Result<(), TellError> {
        match self.push(letter) {
            Err(Refused { error: TellError::Full, overflow: Overflow::Block, letter }) => {
                tokio::time::timeout(timeout, self.push_wait(letter)).await.unwrap_or(Err(TellError::Full))
            }
            Err(Refused { error: TellError::Full, overflow: Overflow::DropNewest, .. }) => Ok(()),
            result => result.map_err(|refused| refused.error),
        }
    }

    async fn push_wait(&self, mut letter: Letter<A>) -> Result<(), TellError> {
        let queue = Queue::join(self);
        loop {
            let mut turn = std::pin::pin!(queue.room.notified());
            // In the queue before the look: room that is made in between is heard of.
            turn.as_mut().enable();
            match self.push(letter) {
                Err(Refused { error: TellError::Full, overflow: Overflow::Block, letter: back }) => letter = back,
                result => return result.map_err(|refused| refused.error),
            }
            turn.await;
        }
    }

    pub(crate) fn push(&self, letter: Letter<A>) -> Result<(), Refused<A>> {
        let mut arriving = self.arriving.lock();
        if !arriving.open {
            return Err(Refused { error: TellError::Stopped, letter, overflow: arriving.overflow });
        }
        if arriving.queue.len() >= arriving.sure {
            arriving.sure = arriving.capacity.saturating_sub(self.batch_left.load(Ordering::Relaxed));
            if arriving.queue.len() >= arriving.sure {
                return self.overflow(arriving, letter);
            }
        }
        arriving.queue.push_back(letter);
        let first = arriving.queue.len() == 1;
        drop(arriving);
        if first {
            self.pump.wake();
        }
        Ok(())
    }

    #[cold]
    fn overflow(&self, mut arriving: MutexGuard<'_, Arriving<A>>, letter: Letter<A>) -> Result<(), Refused<A>> {
        let overflow = arriving.overflow;
        match overflow {
            Overflow::Block => {}
            Overflow::DropNewest => arriving.rare().dropped += 1,
            Overflow::DropOldest => {
                drop(arriving);
                return self.replace_oldest(letter);
            }
            Overflow::Stop => {
                drop(arriving);
                let tenant = self.reading.lock().tenant.clone();
                if let Some(tenant) = tenant {
                    tenant.overflowed();
                }
            }
        }
        Err(Refused { error: TellError::Full, letter, overflow })
    }

    fn replace_oldest(&self, letter: Letter<A>) -> Result<(), Refused<A>> {
        let (oldest, first, path) = {
            let mut reading = self.reading.lock();
            let mut arriving = self.arriving.lock();
            if !arriving.open {
                return Err(Refused { error: TellError::Stopped, letter, overflow: arriving.overflow });
            }
            let full = arriving.queue.len() + reading.batch.len() >= arriving.capacity;
            let oldest = if full { reading.batch.pop_front().or_else(|| arriving.queue.pop_front()) } else { None };
            self.batch_left.store(reading.batch.len(), Ordering::Relaxed);
            if oldest.is_some() {
                arriving.rare().dropped += 1;
                arriving.stale = arriving.stale.saturating_sub(1);
            }
            arriving.queue.push_back(letter);
            (oldest, arriving.queue.len() == 1, arriving.latest.as_ref().map(|seat| Arc::clone(&seat.path)))
        };
        if first {
            self.pump.wake();
        }
        if let Some(oldest) = oldest {
            oldest.discard(Refusal::Full, path.as_deref().unwrap_or_default());
        }
        Ok(())
    }

    /// The next message for an incarnation; one that is fenced or killed gets none. The order is looked at under the lock that its successor enters with, so
    /// nothing that the successor could have had goes to it.
    ///
    /// `last`: whoever calls looks no more when there is none, and is woken by the next.
    // Inlined, a message is copied once on its way and not twice: an eighth of a `tell`.
    #[inline]
    pub(crate) fn pop(&self, seat: &Seat, cx: &TaskContext<'_>, last: bool) -> Option<Letter<A>> {
        let mut reading = self.reading.lock();
        if seat.is_called_off() {
            return None;
        }
        let reading = &mut *reading;
        if reading.batch.is_empty() {
            if last {
                self.pump.register(cx.waker());
            }
            let mut arriving = self.arriving.lock();
            self.offer_room(&mut arriving);
            if arriving.queue.is_empty() {
                if reading.batch.capacity() > KEPT_CAPACITY {
                    reading.batch = VecDeque::new();
                }
                return None;
            }
            std::mem::swap(&mut arriving.queue, &mut reading.batch);
            arriving.sure = 0;
            self.batch_left.store(reading.batch.len(), Ordering::Relaxed);
        }
        let letter = reading.batch.pop_front();
        reading.handled += 1;
        self.batch_left.store(reading.batch.len(), Ordering::Relaxed);
        if self.wanted.load(Ordering::Relaxed) {
            self.offer_room(&mut self.arriving.lock());
        }
        letter
    }

    /// Wakes as many of those who wait for room as there is room for.
    fn offer_room(&self, arriving: &mut Arriving<A>) {
        let room = arriving.capacity.saturating_sub(arriving.queue.len() + self.batch_left.load(Ordering::Relaxed));
        if let Some(rare) = &arriving.rare {
            for _ in 0..rare.senders.min(room) {
                rare.room.notify_one();
            }
        }
    }

    /// Messages that wait.
    pub(crate) fn len(&self) -> usize {
        self.arriving.lock().queue.len() + self.batch_left.load(Ordering::Relaxed)
    }

    /// Whether an incarnation lives, or none was ever made.
    pub(crate) fn lives(&self) -> bool {
        self.incarnation() == 0 || self.reading.lock().is_live()
    }

    pub(crate) fn stats(&self) -> ChildStats {
        let reading = self.reading.lock();
        let arriving = self.arriving.lock();
        let (dropped, dead_lettered, redelivered) =
            arriving.rare.as_ref().map_or((0, 0, 0), |rare| (rare.dropped, rare.dead_lettered, rare.redelivered));
        ChildStats {
            incarnation: self.incarnation(),
            live: reading.is_live(),
            waiting: arriving.queue.len() + reading.batch.len(),
            handled: reading.handled,
            dropped,
            dead_lettered,
            redelivered,
        }
    }

    pub(crate) fn incarnation(&self) -> u64 {
        self.incarnation.load(Ordering::Acquire)
    }
}

/// A place among those who wait for room.
struct Queue<'a, A: Actor> {
    inbox: &'a Inbox<A>,
    room: Arc<Notify>,
}

impl<'a, A: Actor> Queue<'a, A> {
    fn join(inbox: &'a Inbox<A>) -> Self {
        let mut arriving = inbox.arriving.lock();
        let rare = arriving.rare();
        rare.senders += 1;
        inbox.wanted.store(true, Ordering::Relaxed);
        Self { inbox, room: Arc::clone(&rare.room) }
    }
}

impl<A: Actor> Drop for Queue<'_, A> {
    fn drop(&mut self) {
        let mut arriving = self.inbox.arriving.lock();
        let rare = arriving.rare();
        rare.senders -= 1;
        self.inbox.wanted.store(rare.senders > 0, Ordering::Relaxed);
    }
}
