//! A message on its way: into an actor, back to the queue, to the dead letters, or nowhere.
//!
//! actix's own envelope can only be handled. This one can also be refused with a reason, delivered again, and opened as a dead letter, at
//! the same number of allocations: one for a message, one more for the channel of its answer.

use std::any::{Any, type_name};
use std::sync::Arc;

use actix::dev::MessageResponse;
use actix::{Actor, Handler, Message};
use parking_lot::Mutex;
use smallbox::{SmallBox, smallbox};
use tokio::sync::oneshot;

use crate::cell::Seat;
use crate::child_ref::AskError;
use crate::exit::ExitReason;
use crate::panics::{Early, guarded};

/// The name of a message's type and the message.
pub(crate) type Payload = (&'static str, Box<dyn Any + Send>);

/// What fits into it is carried in the queue itself, which saves a fifth of the time of a `tell` on one thread and two thirds across: a
/// few numbers, a `String`, an `Arc`.
type Inline = [usize; 3];

/// A message for an actor of type `A`.
pub(crate) enum Letter<A: Actor> {
    /// Nobody waits for an answer, and a crash consumes it.
    Plain(SmallBox<dyn Plain<A>, Inline>),
    /// Shared with whoever waits for the answer, or to be delivered again after a crash.
    Kept(Arc<dyn Kept<A>>),
}

/// Why a message is not handled; an ask is told so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It made room for another.
    Full,
    Stopped,
    Restarting,
}

/// What became of a delivery.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    Done,
    /// The actor failed without a panic, and the letter is one that is delivered again.
    Failed,
}

/// Both take out what it carries, so each of them is called once.
pub(crate) trait Plain<A: Actor>: Send {
    /// The error is a panic, of the handler or what runs it.
    fn handle(&mut self, actor: &mut A, context: &mut A::Context) -> Result<(), Early>;
    /// `None` for what is no message, such as a closure.
    fn open(&mut self) -> Option<Payload>;
}

pub(crate) trait Kept<A: Actor>: Send + Sync {
    /// The error is a panic of the handler.
    fn deliver(&self, actor: &mut A, context: &mut A::Context, seat: &Arc<Seat>) -> Result<Delivery, Early>;
    /// The delivery ended in a crash: whether there is to be another. If not, the message as far as it is left and wanted; an answer will not come.
    fn crashed(&self, may_repeat: bool) -> Result<(), Option<Payload>>;
    /// It is not handled. The message, unless its sender has given it up.
    fn refuse(&self, why: Refusal) -> Option<Payload>;
}

impl<A: Actor> Letter<A> {
    pub(crate) fn tell<M>(message: M) -> Self
    where
        A: Handler<M>,
        M: Message + Send + 'static,
    {
        Self::Plain(smallbox!(Tell(Some(message))))
    }

    pub(crate) fn work<F: FnOnce(&mut A, &mut A::Context) + Send + 'static>(work: F) -> Self {
        Self::Plain(smallbox!(Work(Some(work))))
    }

    /// Ends it unhandled and says so to whoever asked.
    pub(crate) fn refuse(self, why: Refusal) -> Option<Payload> {
        match self {
            Self::Plain(mut letter) => letter.open(),
            Self::Kept(letter) => letter.refuse(why),
        }
    }

    /// As [`Letter::refuse`], and drops the message. Its destructor is not ours and may panic.
    pub(crate) fn discard(self, why: Refusal, path: &str) {
        discarding(path, || drop(self.refuse(why)));
    }
}

/// Runs what drops messages. A panic of a destructor is logged; it ends neither the supervisor nor the sender who happens to run it.
pub(crate) fn discarding<R>(path: &str, piece: impl FnOnce() -> R) -> Option<R> {
    guarded(path, piece).ok()
}

struct Tell<M>(Option<M>);

impl<A, M> Plain<A> for Tell<M>
where
    A: Actor + Handler<M>,
    M: Message + Send + 'static,
{
    fn handle(&mut self, actor: &mut A, context: &mut A::Context) -> Result<(), Early> {
        match self.0.take() {
            Some(message) => Early::catch(|| actor.handle(message, context).handle(context, None)),
            None => Ok(()),
        }
    }

    fn open(&mut self) -> Option<Payload> {
        self.0.take().map(payload)
    }
}

/// A closure in its turn among the messages. It may hold the channel on which somebody waits for it, so it is dropped and never kept.
struct Work<F>(Option<F>);

impl<A: Actor, F: FnOnce(&mut A, &mut A::Context) + Send + 'static> Plain<A> for Work<F> {
    fn handle(&mut self, actor: &mut A, context: &mut A::Context) -> Result<(), Early> {
        match self.0.take() {
            Some(work) => Early::catch(|| work(actor, context)),
            None => Ok(()),
        }
    }

    fn open(&mut self) -> Option<Payload> {
        None
    }
}

/// A message that is shared with its sender.
pub(crate) struct Slip<M: Message>(Mutex<Written<M>>);

struct Written<M: Message> {
    /// Gone once it is in the handler, unless it can be copied.
    message: Option<M>,
    /// Where the answer goes. While the handler runs it is kept here and not on the stack, where a panic would drop it: whoever waits would wake up
    /// before anybody knows how the incarnation ended.
    reply: Option<oneshot::Sender<M::Result>>,
    fate: Fate,
    again: Option<Again<M>>,
}

/// How far a slip has come.
#[derive(Clone)]
enum Fate {
    Waiting,
    /// The incarnation that had it last.
    Begun(Arc<Seat>),
    Refused(Refusal),
}

/// Delivery after a crash.
struct Again<M> {
    left: u32,
    copy: fn(&M) -> M,
}

impl<M: Message> Slip<M> {
    pub(crate) fn new(message: M, reply: Option<oneshot::Sender<M::Result>>) -> Self {
        Self(Mutex::new(Written { message: Some(message), reply, fate: Fate::Waiting, again: None }))
    }

    /// One that is delivered again after a crash, `times` times at most.
    pub(crate) fn repeated(message: M, reply: Option<oneshot::Sender<M::Result>>, times: u32) -> Self
    where
        M: Clone,
    {
        let again = Some(Again { left: times, copy: M::clone });
        Self(Mutex::new(Written { message: Some(message), reply, fate: Fate::Waiting, again }))
    }

    /// Why the channel of the answer closed.
    pub(crate) fn why_closed(&self) -> AskError {
        match &self.0.lock().fate {
            Fate::Refused(Refusal::Full) => AskError::Full,
            Fate::Refused(Refusal::Restarting) => AskError::Restarting,
            Fate::Refused(Refusal::Stopped) | Fate::Waiting => AskError::Stopped,
            Fate::Begun(seat) => AskError::Crashed { reason: seat.end().unwrap_or_else(unanswered) },
        }
    }

    /// Whether the incarnation that has it is fenced: an answer will not come, though its channel is open.
    pub(crate) fn is_stuck(&self) -> bool {
        matches!(&self.0.lock().fate, Fate::Begun(seat) if seat.is_fenced())
    }

    /// Why no answer came in time; `lived` says whether an incarnation lives that could give one.
    pub(crate) fn why_late(&self, lived: bool) -> AskError {
        match &self.0.lock().fate {
            Fate::Begun(seat) => seat.end().map_or(AskError::Timeout, |reason| AskError::Crashed { reason }),
            Fate::Waiting if !lived => AskError::Restarting,
            Fate::Waiting | Fate::Refused(_) => AskError::Timeout,
        }
    }
}

/// The incarnation lives on, but the handler let go of the channel.
fn unanswered() -> ExitReason {
    ExitReason::Error("the handler dropped its answer".into())
}

impl<M: Message> Written<M> {
    fn given_up(&self) -> bool {
        self.reply.as_ref().is_some_and(oneshot::Sender::is_closed)
    }
}

impl<A, M> Kept<A> for Slip<M>
where
    A: Actor + Handler<M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    fn deliver(&self, actor: &mut A, context: &mut A::Context, seat: &Arc<Seat>) -> Result<Delivery, Early> {
        let (message, repeats) = {
            let mut written = self.0.lock();
            if written.given_up() {
                let message = written.message.take();
                drop(written);
                // That its destructor panics is not the fault of the actor.
                discarding(&seat.path, || drop(message));
                return Ok(Delivery::Done);
            }
            written.fate = Fate::Begun(Arc::clone(seat));
            let copy = written.again.as_ref().map(|again| again.copy);
            match copy {
                Some(copy) => (written.message.as_ref().map(copy), true),
                None => (written.message.take(), false),
            }
        };
        let Some(message) = message else { return Ok(Delivery::Done) };
        Early::catch(|| {
            let answer = actor.handle(message, context);
            if repeats && seat.has_failed() {
                return Delivery::Failed;
            }
            let reply = self.0.lock().reply.take();
            answer.handle(context, reply);
            Delivery::Done
        })
    }

    fn crashed(&self, may_repeat: bool) -> Result<(), Option<Payload>> {
        let mut written = self.0.lock();
        let given_up = written.given_up();
        if let Some(again) = &mut written.again
            && again.left > 0
            && may_repeat
            && !given_up
        {
            again.left -= 1;
            return Ok(());
        }
        // What nobody wants stays where it is: its destructor is not ours, and the inbox is locked here.
        let message = if given_up { None } else { written.message.take() };
        let reply = written.reply.take();
        drop(written);
        drop(reply);
        Err(message.map(payload))
    }

    fn refuse(&self, why: Refusal) -> Option<Payload> {
        let mut written = self.0.lock();
        let given_up = written.given_up();
        written.fate = Fate::Refused(why);
        let (message, reply) = (written.message.take(), written.reply.take());
        drop(written);
        // Only now, when the reason stands: this wakes whoever waits.
        drop(reply);
        if given_up { None } else { message.map(payload) }
    }
}

fn payload<M: Send + 'static>(message: M) -> Payload {
    (type_name::<M>(), Box::new(message))
}
