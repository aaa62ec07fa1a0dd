//! Carries messages into an actor; lives in the actor's own context.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use actix::fut::ActorFuture;
use actix::{Actor, ActorContext, ActorState, AsyncContext, Context};

use crate::cell::Seat;
use crate::inbox::Inbox;
use crate::letter::{Delivery, Kept, Letter};
use crate::panics::Early;
use crate::pool::note_turn;

/// Messages handled in one poll before the other actors of the thread get their turn; tokio's own budget for a task is the same.
const BUDGET: usize = 128;

/// Messages after which the thread notes that it gets on: a row of slow handlers is no blocked one.
const NOTED_EVERY: usize = 16;

pub(crate) struct Pump<A: Actor> {
    inbox: Arc<Inbox<A>>,
    seat: Arc<Seat>,
    begun: bool,
    /// What the handler has while it runs. After a crash it is dropped when the reason of the end is known.
    current: Option<Arc<dyn Kept<A>>>,
}

impl<A: Actor> Pump<A> {
    pub(crate) fn new(inbox: Arc<Inbox<A>>, seat: Arc<Seat>) -> Self {
        Self { inbox, seat, begun: false, current: None }
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
        let Self { inbox, seat, begun, current } = &mut *self;
        // The first poll comes right after the `started()` hook: it counts as started before it sees a message.
        if !std::mem::replace(begun, true) {
            seat.say_hook_returned();
        }
        for n in 1..=BUDGET {
            // A future that the actor waits for, or a stop, is in force: the context polls us again when it is over. An actor that failed over a
            // message that is delivered again, and winds down before it stops, gets no more.
            if context.waiting() || current.is_some() {
                return Poll::Pending;
            }
            match inbox.pop(seat, cx, n == 1) {
                Some(Letter::Plain(mut letter)) => {
                    if let Err(panic) = letter.handle(actor, context) {
                        return crashed(panic, inbox, seat, context);
                    }
                }
                Some(Letter::Kept(letter)) => match current.insert(letter).deliver(actor, context, seat) {
                    Ok(Delivery::Done) => *current = None,
                    Ok(Delivery::Failed) => {}
                    Err(panic) => return crashed(panic, inbox, seat, context),
                },
                None if n == 1 => return Poll::Pending,
                // More may come at once: looking once again costs less than being woken.
                None => break,
            }
            if n % NOTED_EVERY == 0 {
                note_turn();
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// A handler has panicked: has the context run nothing more of the actor's, and names the end to the cell, which looks for it after each poll.
#[cold]
fn crashed<A: Actor<Context = Context<A>>>(
    panic: Early,
    inbox: &Inbox<A>,
    seat: &Arc<Seat>,
    context: &mut Context<A>,
) -> Poll<()> {
    // A context that is stopping waits for nothing and calls hooks.
    if context.state() != ActorState::Running {
        panic.go_on();
    }
    seat.note_end_in(inbox, &panic.reason());
    context.wait(Never);
    // Now the pump is dropped with what the handler had, and the context comes to the wait.
    Poll::Ready(())
}

/// What a context waits for that is to be dropped: it polls nothing else meanwhile.
struct Never;

impl<A: Actor> ActorFuture<A> for Never {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut A, _: &mut A::Context, _: &mut TaskContext<'_>) -> Poll<()> {
        Poll::Pending
    }
}

impl<A: Actor> Drop for Pump<A> {
    fn drop(&mut self) {
        if let Some(letter) = self.current.take() {
            self.inbox.crashed(letter, &self.seat);
        }
    }
}
