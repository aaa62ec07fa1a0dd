//! What happens to an inbox when incarnations come and go.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Context as TaskContext;

use actix::Actor;

use super::{Arriving, Inbox, Reading};
use crate::cell::Seat;
use crate::dead_letters::{DeadLetter, DeadReason};
use crate::exit::ExitReason;
use crate::letter::{Kept, Letter, Payload, Refusal, discarding};
use crate::spec::OnRestart;
use crate::watch::ThreadId;

/// What is thrown out of an inbox, to be buried outside its locks.
type Out<A> = Vec<Letter<A>>;

impl<A: Actor> Inbox<A> {
    /// An incarnation is being made: messages are welcome.
    pub(crate) fn launch(&self, seat: &Arc<Seat>) {
        self.incarnation.fetch_max(seat.incarnation, Ordering::AcqRel);
        let (out, previous) = {
            let mut reading = self.reading.lock();
            let mut arriving = self.arriving.lock();
            arriving.open = true;
            arriving.capacity = seat.spec.inbox_capacity;
            arriving.sure = 0;
            arriving.overflow = seat.spec.overflow;
            let stale = std::mem::take(&mut arriving.stale);
            let out = self.throw_out(&mut reading, &mut arriving, stale);
            self.offer_room(&mut arriving);
            let newer = arriving.latest.as_ref().is_none_or(|latest| latest.incarnation < seat.incarnation);
            (out, if newer { arriving.latest.replace(Arc::clone(seat)) } else { None })
        };
        drop(previous);
        self.bury_restarted(out, seat);
    }

    /// Takes the place of the one living incarnation; when it is taken, the task is woken once it is free. A fenced incarnation comes too late.
    pub(crate) fn enter(&self, seat: &Arc<Seat>, cx: &TaskContext<'_>) -> bool {
        // As a rule the place is free.
        let mut reading = self.reading.lock();
        if reading.tenant.is_none() {
            let enters = !seat.is_fenced();
            if enters {
                reading.tenant = Some(Arc::clone(seat));
            }
            return enters;
        }
        drop(reading);
        self.fence_leaked();
        let (out, previous) = {
            let mut reading = self.reading.lock();
            if seat.is_fenced() {
                return false;
            }
            let mut out = Vec::new();
            if let Some(tenant) = &reading.tenant {
                // Registered first: a fence that falls in between wakes it.
                tenant.succeed(cx);
                if !tenant.is_fenced() {
                    return false;
                }
                // It could not see to this itself.
                if seat.spec.on_restart != OnRestart::Keep {
                    out = self.throw_out(&mut reading, &mut self.arriving.lock(), usize::MAX);
                }
            }
            (out, reading.tenant.replace(Arc::clone(seat)))
        };
        drop(previous);
        self.bury_restarted(out, seat);
        true
    }

    /// The incarnation has ended and will be dropped; `asked`: because its supervisor asked for it. Nobody knows yet whether another one is to
    /// follow. After an end that was asked for, the messages wait for that; otherwise asks are told at once what they will be told anyway.
    pub(crate) fn ended(&self, seat: &Arc<Seat>, asked: bool) {
        if seat.spec.on_restart == OnRestart::Keep {
            return;
        }
        let out = {
            let mut reading = self.reading.lock();
            if !reading.tenant.as_ref().is_some_and(|tenant| Arc::ptr_eq(tenant, seat)) {
                return;
            }
            let mut arriving = self.arriving.lock();
            if asked {
                arriving.stale = arriving.queue.len() + reading.batch.len();
                return;
            }
            let out = self.throw_out(&mut reading, &mut arriving, usize::MAX);
            self.offer_room(&mut arriving);
            out
        };
        self.bury_restarted(out, seat);
    }

    /// Fences the incarnation that lives if its supervisor died before it could hear that its thread is blocked.
    fn fence_leaked(&self) {
        let tenant = self.reading.lock().tenant.clone();
        if let Some(tenant) = tenant.filter(|tenant| !tenant.is_fenced() && tenant.env.pool.is_leaked(tenant.thread()))
        {
            tenant.fence(ExitReason::Stuck);
        }
    }

    /// Fences the incarnation that lives if it does so on `thread`, whoever its supervisor was.
    pub(crate) fn fence_on(&self, thread: ThreadId) {
        let tenant = self.reading.lock().tenant.clone();
        if let Some(tenant) = tenant.filter(|tenant| tenant.thread() == thread) {
            tenant.fence(ExitReason::Stuck);
        }
    }

    /// Makes room, unless another has taken the place already.
    pub(crate) fn leave(&self, seat: &Arc<Seat>) {
        let left = self.reading.lock().tenant.take_if(|tenant| Arc::ptr_eq(tenant, seat));
        drop(left);
    }

    /// The handler of this message ended in a crash: puts it back for the next incarnation, or buries it.
    pub(crate) fn crashed(&self, letter: Arc<dyn Kept<A>>, seat: &Arc<Seat>) {
        let payload = {
            let mut reading = self.reading.lock();
            let mut arriving = self.arriving.lock();
            // A fenced incarnation comes back too late: the next one went on without this message.
            match letter.crashed(arriving.open && !seat.is_fenced()) {
                Ok(()) => {
                    arriving.rare().redelivered += 1;
                    reading.batch.push_front(Letter::Kept(letter));
                    arriving.sure = 0;
                    self.batch_left.store(reading.batch.len(), Ordering::Relaxed);
                    return;
                }
                Err(payload) => payload,
            }
        };
        if let Some(payload) = payload {
            let reason = seat.end().unwrap_or(ExitReason::ArbiterGone);
            self.to_the_dead(payload, DeadReason::Crashed { reason }, seat);
        }
        // It may hold a message that was given up.
        discarding(&seat.path, || drop(letter));
    }

    /// Refuses messages from now on, and buries those that wait.
    pub(crate) fn close(&self) {
        let (out, latest) = {
            let mut reading = self.reading.lock();
            let mut arriving = self.arriving.lock();
            arriving.open = false;
            arriving.stale = 0;
            let out = self.throw_out(&mut reading, &mut arriving, usize::MAX);
            if let Some(rare) = &arriving.rare {
                rare.room.notify_waiters();
            }
            // Whoever holds a handle on the child must not keep the threads of its tree.
            (out, arriving.latest.take())
        };
        let Some(seat) = latest else { return self.drop_all(out, Refusal::Stopped, "") };
        self.bury(out, (Refusal::Stopped, &DeadReason::Stopped), &seat);
    }

    /// Takes out the first `count` messages.
    fn throw_out(&self, reading: &mut Reading<A>, arriving: &mut Arriving<A>, count: usize) -> Out<A> {
        let from_batch = count.min(reading.batch.len());
        let from_queue = (count - from_batch).min(arriving.queue.len());
        let mut out: Out<A> = reading.batch.drain(..from_batch).collect();
        out.extend(arriving.queue.drain(..from_queue));
        self.batch_left.store(reading.batch.len(), Ordering::Relaxed);
        out
    }

    fn bury_restarted(&self, out: Out<A>, seat: &Arc<Seat>) {
        if seat.spec.on_restart == OnRestart::DeadLetter {
            self.bury(out, (Refusal::Restarting, &DeadReason::Restarted), seat);
        } else {
            self.drop_all(out, Refusal::Restarting, &seat.path);
        }
    }

    fn bury(&self, out: Out<A>, (refusal, why): (Refusal, &DeadReason), seat: &Seat) {
        for letter in out {
            // An ask that was given up is dropped here, and its destructor is not ours.
            match discarding(&seat.path, || letter.refuse(refusal)).flatten() {
                Some(payload) => self.to_the_dead(payload, why.clone(), seat),
                None => self.arriving.lock().rare().dropped += 1,
            }
        }
    }

    fn drop_all(&self, out: Out<A>, refusal: Refusal, path: &str) {
        if out.is_empty() {
            return;
        }
        self.arriving.lock().rare().dropped += out.len() as u64;
        for letter in out {
            letter.discard(refusal, path);
        }
    }

    fn to_the_dead(&self, (message, payload): Payload, why: DeadReason, seat: &Seat) {
        self.arriving.lock().rare().dead_lettered += 1;
        let (path, incarnation) = (Arc::clone(&seat.path), seat.incarnation);
        seat.env.dead_letters.put(DeadLetter { path, message, incarnation, why, payload });
    }
}

impl<A: Actor> Drop for Inbox<A> {
    /// Two destructors of messages that panic in a row would abort the process: they run one by one.
    fn drop(&mut self) {
        self.close();
    }
}
