//! One incarnation of a child as a task: polls the actor, catches its panics, obeys the supervisor, reports the end.
//!
//! The cell polls the actor's own context future (`Context::into_future`) inside `catch_unwind`; that of a message's handler the letter has
//! caught before, and the pump has noted the end. After a panic it calls `terminate()`
//! before it drops the context: otherwise actix would run `stopping()`, `stopped()` and even waiting messages on the broken actor, and a
//! second panic there would abort the process.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::task::{Context as TaskContext, Poll, Waker};

use actix::dev::ContextFut;
use actix::{Actor, ActorContext, AsyncContext, Context};
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::time::Sleep;

use crate::child::{ChildCtx, Ignore, Made};
use crate::exit::ExitReason;
use crate::inbox::Inbox;
use crate::panics::{caught, guarded};
use crate::pool::{Env, note_turn};
use crate::pump::Pump;
use crate::spec::{Named, Placement, Ready, Shutdown};
use crate::supervisor_ref::SupervisorRef;
use crate::tree::{Cause, Key};
use crate::watch::{SUPERVISORS, ThreadId};

/// From where a notice comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spot {
    /// The poll of a cell, with nothing of the actor's on the stack and no lock held: what follows may be done there and then.
    Turn,
    /// A destructor, a hook, a thread that is none of ours.
    Anywhere,
}

/// Hears what becomes of incarnations.
pub(crate) trait Watcher: Send + Sync {
    fn started(&self, spot: Spot, key: Key, incarnation: u64);
    fn down(&self, spot: Spot, key: Key, incarnation: u64, reason: ExitReason);
    /// The supervisor, unless it is the root's owner that watches.
    fn supervisor(&self) -> Option<SupervisorRef>;
}

/// Something of its own has failed, such as its inbox: end, as by a failure.
const FAIL: u8 = 1;
const STOP: u8 = 2;
/// The supervisor is gone: stop, and judge the deadline yourself.
const ORPHANED: u8 = 3;
const KILL: u8 = 4;
/// Another incarnation has taken its place: end without a word.
const FENCED: u8 = 5;

/// The incarnation has, or had, tasks of its own.
const TASKS: u8 = 1;
/// Its supervisor has gone and left it to itself.
const ORPHAN: u8 = 2;
/// It has ended: there is nothing to be marked any more.
const PARTED: u8 = 4;

/// What an incarnation, its supervisor and its cell share.
pub(crate) struct Seat {
    pub(crate) key: Key,
    pub(crate) incarnation: u64,
    pub(crate) cause: Cause,
    pub(crate) spec: Named,
    pub(crate) path: Arc<str>,
    pub(crate) watcher: Arc<dyn Watcher>,
    pub(crate) env: Arc<Env>,
    order: AtomicU8,
    waker: AtomicWaker,
    ready_said: AtomicBool,
    /// The watcher knows of the end.
    told: AtomicBool,
    ended: AtomicBool,
    /// What has to be seen to at its end.
    marks: AtomicU8,
    thread: AtomicU32,
    end: Mutex<End>,
}

#[derive(Default)]
struct End {
    /// Why the incarnation is about to end, and from `ended` on why it did.
    reason: Option<ExitReason>,
    /// The cell that waits for this incarnation to make room. Few ever do.
    successor: Option<Box<Waker>>,
}

impl Seat {
    pub(crate) fn new(
        key: Key,
        (incarnation, cause): (u64, Cause),
        (spec, path): (Named, Arc<str>),
        watcher: Arc<dyn Watcher>,
        env: Arc<Env>,
    ) -> Self {
        Self {
            key,
            incarnation,
            cause,
            spec,
            path,
            watcher,
            env,
            order: AtomicU8::new(0),
            waker: AtomicWaker::new(),
            ready_said: AtomicBool::new(false),
            told: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            marks: AtomicU8::new(0),
            thread: AtomicU32::new(SUPERVISORS),
            end: Mutex::default(),
        }
    }

    /// Says once that the incarnation is ready.
    pub(crate) fn say_ready(&self, spot: Spot) {
        if !self.ready_said.load(Ordering::Acquire) && !self.ready_said.swap(true, Ordering::AcqRel) {
            self.env.registry.publish(self);
            self.watcher.started(spot, self.key, self.incarnation);
        }
    }

    /// The `started()` hook has returned: for many a child that is all there is to be ready for.
    pub(crate) fn say_hook_returned(&self) {
        if self.spec.ready == Ready::Started {
            self.say_ready(Spot::Turn);
        }
    }

    /// Names the failure that the incarnation is about to end with; the first one counts.
    pub(crate) fn say_failed(&self, reason: ExitReason) {
        self.end.lock().reason.get_or_insert(reason);
    }

    /// Ends a stuck incarnation without its help: reports `reason`, and the next one may enter at once. This one handles no message any more; when
    /// its thread comes back, its cell drops it without hooks and reports nothing. `false` when its end was reported before.
    pub(crate) fn fence(&self, reason: ExitReason) -> bool {
        if self.told.swap(true, Ordering::AcqRel) {
            return false;
        }
        self.note_end(&reason);
        self.part();
        self.order(FENCED);
        self.make_room();
        self.watcher.down(Spot::Anywhere, self.key, self.incarnation, reason);
        true
    }

    pub(crate) fn is_fenced(&self) -> bool {
        self.order.load(Ordering::Acquire) == FENCED
    }

    /// Nobody has told it to end.
    pub(crate) fn is_undisturbed(&self) -> bool {
        self.order.load(Ordering::Acquire) == 0
    }

    /// It is to end without another message, by a kill or a fence.
    pub(crate) fn is_called_off(&self) -> bool {
        self.order.load(Ordering::Acquire) >= KILL
    }

    /// Has the task woken when this incarnation makes room.
    pub(crate) fn succeed(&self, cx: &TaskContext<'_>) {
        self.end.lock().successor = Some(Box::new(cx.waker().clone()));
    }

    fn make_room(&self) {
        let successor = self.end.lock().successor.take();
        if let Some(successor) = successor {
            successor.wake();
        }
    }

    /// Ends it because its inbox is full, unless its end was ordered anyway.
    pub(crate) fn overflowed(&self) {
        self.end_with(ExitReason::Overflow);
    }

    /// It is about to end for a reason of its own.
    pub(crate) fn has_failed(&self) -> bool {
        self.end.lock().reason.is_some()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Why the incarnation ended; `None` while it lives.
    pub(crate) fn end(&self) -> Option<ExitReason> {
        if self.has_ended() { self.end.lock().reason.clone() } else { None }
    }

    /// Keeps the reason of the end for whoever waits for an answer of this incarnation; the first one counts. Says whether it is this one.
    fn note_end(&self, reason: &ExitReason) -> bool {
        let mut end = self.end.lock();
        let first = !self.has_ended();
        if first {
            end.reason = Some(reason.clone());
            self.ended.store(true, Ordering::Release);
        }
        first
    }

    /// Notes the end of the incarnation that has `inbox`, before its actor is dropped: whoever waits for its answer wakes up then and asks for the reason.
    pub(crate) fn note_end_in<A: Actor>(self: &Arc<Self>, inbox: &Inbox<A>, reason: &ExitReason) {
        if self.note_end(reason) {
            inbox.ended(self, self.order.load(Ordering::Acquire) >= STOP);
        }
    }

    /// Ends the incarnation with `reason`, with hooks, as [`ChildCtx::fail`] does; unless it is being stopped anyway.
    pub(crate) fn end_with(&self, reason: ExitReason) {
        if self.order.load(Ordering::Acquire) < FAIL {
            self.say_failed(reason);
            self.order(FAIL);
        }
    }

    /// Names the thread on which the incarnation will live.
    pub(crate) fn live_on(&self, thread: ThreadId) {
        self.thread.store(thread, Ordering::Release);
    }

    pub(crate) fn thread(&self) -> ThreadId {
        self.thread.load(Ordering::Acquire)
    }

    /// Notes that the incarnation is about to have a task; `false` when it has ended.
    pub(crate) fn note_tasks(&self) -> bool {
        self.marks.fetch_or(TASKS, Ordering::AcqRel) & PARTED == 0
    }

    /// Gives back what the tree keeps for the incarnation: its name, its tasks, its thread.
    fn part(&self) {
        let marks = self.marks.fetch_or(PARTED, Ordering::AcqRel);
        if marks & PARTED != 0 {
            return;
        }
        self.env.registry.give_back(self);
        if marks & TASKS != 0 {
            self.env.tasks.end(self);
        }
        if marks & ORPHAN != 0 {
            self.env.count_orphan(-1);
        }
        if self.spec.placement == Placement::Dedicated {
            self.env.pool.release(self.thread());
        }
    }

    /// Its supervisor is gone, or can't be heard of any more: it stops, and judges its deadline itself.
    fn orphan(&self) {
        if self.marks.fetch_or(ORPHAN, Ordering::AcqRel) & (ORPHAN | PARTED) == 0 {
            self.env.count_orphan(1);
        }
        self.order(ORPHANED);
    }

    fn order(&self, order: u8) {
        self.order.fetch_max(order, Ordering::AcqRel);
        self.waker.wake();
    }
}

/// The supervisor's end of a seat. Dropping it stops the incarnation: no child outlives its supervisor.
pub(crate) struct Leash(pub(crate) Arc<Seat>);

impl Leash {
    pub(crate) fn stop(&self) {
        self.0.order(STOP);
    }

    pub(crate) fn kill(&self) {
        self.0.order(KILL);
    }

    /// Does what dropping it does, early: its holder is fenced, and may never come to drop it.
    pub(crate) fn let_go(&self) {
        self.0.orphan();
    }

    /// See [`Seat::fence`].
    pub(crate) fn fence(&self, reason: ExitReason) -> bool {
        self.0.fence(reason)
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        self.0.orphan();
    }
}

/// Reports the end of an incarnation, even of one whose thread ended before or while it ran.
struct Report<A: Actor> {
    seat: Arc<Seat>,
    inbox: Arc<Inbox<A>>,
}

impl<A: Actor> Report<A> {
    fn tell(&self, spot: Spot, reason: ExitReason) {
        self.seat.part();
        self.inbox.leave(&self.seat);
        self.seat.make_room();
        if !self.seat.told.swap(true, Ordering::AcqRel) {
            self.seat.watcher.down(spot, self.seat.key, self.seat.incarnation, reason);
        }
    }
}

impl<A: Actor> Drop for Report<A> {
    fn drop(&mut self) {
        self.tell(Spot::Anywhere, ExitReason::ArbiterGone);
    }
}

/// A cell before it reaches its thread; dropping it unspawned reports the thread as gone.
pub(crate) struct Unborn<A: Actor<Context = Context<A>>> {
    report: Report<A>,
    made: Arc<Made<A>>,
}

impl<A: Actor<Context = Context<A>>> Unborn<A> {
    pub(crate) fn new(seat: Arc<Seat>, made: Arc<Made<A>>) -> Self {
        Self { report: Report { seat, inbox: Arc::clone(&made.inbox) }, made }
    }

    /// Ends the incarnation before it begins.
    pub(crate) fn refuse(self, reason: ExitReason) {
        self.report.seat.note_end(&reason);
        self.report.tell(Spot::Anywhere, reason);
    }

    /// Starts the incarnation on the thread that calls.
    pub(crate) fn spawn_here(self) {
        // The cell reports its own end; its owner is the leash, which ends it.
        let Self { report, made } = self;
        drop(actix_rt::spawn(Cell { actor: None, made, passed_on: 0, judge: None, report }));
    }
}

/// The task of one incarnation.
struct Cell<A: Actor<Context = Context<A>>> {
    actor: Option<ContextFut<A, Context<A>>>,
    made: Arc<Made<A>>,
    /// The strongest order to stop that the actor knows of.
    passed_on: u8,
    /// Runs out when an orphan has had its time.
    judge: Option<Pin<Box<Sleep>>>,
    report: Report<A>,
}

impl<A: Actor<Context = Context<A>>> Unpin for Cell<A> {}

impl<A: Actor<Context = Context<A>>> Future for Cell<A> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        let this = self.get_mut();
        note_turn();
        match this.advance(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(reason) => {
                this.end(Spot::Turn, reason);
                Poll::Ready(())
            }
        }
    }
}

impl<A: Actor<Context = Context<A>>> Cell<A> {
    fn advance(&mut self, cx: &mut TaskContext<'_>) -> Poll<ExitReason> {
        let Self { actor, made, passed_on, judge, report } = self;
        let Report { seat, inbox } = report;
        seat.waker.register(cx.waker());
        let order = seat.order.load(Ordering::Acquire);
        if order == KILL || (order == ORPHANED && orphan_is_overdue(judge, seat.spec.shutdown, cx)) {
            return Poll::Ready(ExitReason::Killed);
        }
        let actor = match actor {
            Some(actor) => actor,
            // What one that is adopted stands for lives already, and can only be stopped through it.
            None if order >= STOP && (seat.cause != Cause::Adopted || order != STOP) => {
                return Poll::Ready(ExitReason::Shutdown);
            }
            None if !inbox.enter(seat, cx) => return Poll::Pending,
            None => match make(seat, made) {
                Ok(fresh) => actor.insert(fresh),
                Err(reason) => return Poll::Ready(reason),
            },
        };
        // Its factory may have been what was stuck.
        if seat.is_fenced() {
            return Poll::Ready(ExitReason::Stuck);
        }
        let pass_on = order.min(STOP);
        if pass_on > std::mem::replace(passed_on, pass_on) {
            actor.ctx().stop();
        }
        let ended = match caught(|| Pin::new(actor).poll(cx)) {
            Ok(polled) => polled.is_ready(),
            Err(panic) => return Poll::Ready(seat.end().unwrap_or(panic)),
        };
        // A handler has panicked, or the incarnation was fenced.
        if let Some(reason) = seat.end() {
            return Poll::Ready(reason);
        }
        let failure = seat.end.lock().reason.clone();
        if failure.is_none() && (!ended || order < STOP) {
            seat.say_hook_returned();
        }
        match (ended, failure) {
            (false, _) => Poll::Pending,
            (true, Some(failure)) => Poll::Ready(failure),
            (true, None) if order >= STOP => Poll::Ready(ExitReason::Shutdown),
            (true, None) => Poll::Ready(ExitReason::Normal),
        }
    }

    fn end(&mut self, spot: Spot, reason: ExitReason) {
        let Report { seat, inbox } = &self.report;
        seat.note_end_in(inbox, &reason);
        self.bury();
        self.report.tell(spot, reason);
    }

    /// Drops the actor so that neither hooks nor messages run on it and a panic of its destructor goes no further.
    fn bury(&mut self) {
        if let Some(mut actor) = self.actor.take() {
            // The reason of the end is known already; this panic, if any, is logged.
            let _ = guarded(&self.report.seat.path, move || {
                actor.ctx().terminate();
                drop(actor);
            });
        }
    }
}

impl<A: Actor<Context = Context<A>>> Drop for Cell<A> {
    fn drop(&mut self) {
        if self.actor.is_some() {
            self.end(Spot::Anywhere, ExitReason::ArbiterGone);
        }
    }
}

fn make<A: Actor<Context = Context<A>>>(
    seat: &Arc<Seat>,
    made: &Made<A>,
) -> Result<ContextFut<A, Context<A>>, ExitReason> {
    let Made { inbox, factory, .. } = made;
    seat.env.registry.take(seat, inbox).map_err(|name_taken| ExitReason::StartFailed(name_taken.to_string().into()))?;
    let child = ChildCtx::new(Arc::clone(seat), Arc::clone(inbox));
    // The error is the factory's, too: to show it and to drop it may panic.
    let actor = caught(|| {
        factory(child).map_err(|error| match error.is::<Ignore>() {
            true => ExitReason::Ignored,
            false => ExitReason::StartFailed(error.to_string().into()),
        })
    })??;
    let mut context = Context::new();
    context.spawn(Pump::new(Arc::clone(inbox), Arc::clone(seat)));
    Ok(context.into_future(actor))
}

/// Nobody is left to judge the deadline of an orphan, so its cell does.
fn orphan_is_overdue(judge: &mut Option<Pin<Box<Sleep>>>, shutdown: Shutdown, cx: &mut TaskContext<'_>) -> bool {
    match shutdown {
        Shutdown::Brutal => true,
        Shutdown::Infinity => false,
        Shutdown::Deadline(limit) => {
            judge.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit))).as_mut().poll(cx).is_ready()
        }
    }
}

#[cfg(test)]
mod tests;
