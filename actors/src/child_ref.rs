//! How the rest of the program speaks to a supervised actor.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Handler, Message};

use crate::exit::ExitReason;
use crate::inbox::{ChildStats, Inbox, TellError};
use crate::letter::{Letter, Slip};
use crate::recipient::{TellRef, ask};

/// Why an answer did not come.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// As many messages as fit are waiting already and the message was not taken, or it was dropped to make room for another.
    #[error("the inbox is full")]
    Full,
    /// The child is stopped, done, failed or gone, or became so while the message waited.
    #[error("the child is stopped")]
    Stopped,
    /// No incarnation had the message: it was thrown out when one ended ([`OnRestart`](crate::OnRestart)), or time ran out between two.
    #[error("the child is restarting")]
    Restarting,
    /// The incarnation that had the message ended before it answered. It may or may not have acted on it.
    #[error("the child ended before it answered: {reason}")]
    Crashed {
        /// How that incarnation ended. [`ExitReason::Error`] also stands for a handler that lives and let go of its answer.
        reason: ExitReason,
    },
    /// No answer in time. A message that was not begun yet will not be handled.
    #[error("no answer in time")]
    Timeout,
}

impl From<TellError> for AskError {
    fn from(error: TellError) -> Self {
        match error {
            TellError::Full => Self::Full,
            TellError::Stopped => Self::Stopped,
        }
    }
}

/// A handle on a child, valid across its restarts. Cheap to clone.
///
/// Messages wait in the child's own inbox: those that a crash leaves behind are handled by the next incarnation, in order, unless
/// [`OnRestart`](crate::OnRestart) says otherwise. The one that was being handled is lost, unless it was sent to be
/// [delivered again](ChildRef::tell_redeliver). A child that rests (stopped, completed, failed) refuses messages; those that waited become
/// [dead letters](crate::DeadLetters). Whoever drops the future of an ask takes the message back if it was not begun.
pub struct ChildRef<A: Actor<Context = Context<A>>> {
    inbox: Arc<Inbox<A>>,
}

impl<A: Actor<Context = Context<A>>> ChildRef<A> {
    pub(crate) fn new(inbox: Arc<Inbox<A>>) -> Self {
        Self { inbox }
    }

    /// Puts a message into the inbox. Under [`Overflow::DropNewest`](crate::Overflow::DropNewest) one that finds no room is dropped without a word.
    ///
    /// # Errors
    /// When there is no room, or when the child rests.
    pub fn tell<M>(&self, message: M) -> Result<(), TellError>
    where
        A: Handler<M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        self.inbox.tell(Letter::tell(message))
    }

    /// Puts a message into the inbox and, under [`Overflow::Block`](crate::Overflow::Block), waits for room if there is none. Whoever waits longest
    /// is served first, though one who doesn't wait may be faster. Dropping the future drops the message.
    ///
    /// # Errors
    /// When there is no room in time, or when the child rests.
    pub async fn tell_wait<M>(&self, message: M, timeout: Duration) -> Result<(), TellError>
    where
        A: Handler<M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        self.inbox.tell_wait(Letter::tell(message), timeout).await
    }

    /// Puts a message into the inbox that survives its own crash: when its handler panics, or [fails](crate::ChildCtx::fail), a copy of it is the
    /// first message of the next incarnation, at most `times` times. After that it is a [dead letter](crate::DeadLetters).
    ///
    /// A crash in a future that the handler leaves behind is none of the handler. The sender's wish beats [`OnRestart`](crate::OnRestart).
    ///
    /// # Errors
    /// As [`ChildRef::tell`].
    pub fn tell_redeliver<M>(&self, message: M, times: u32) -> Result<(), TellError>
    where
        A: Handler<M>,
        M: Message + Clone + Send + 'static,
        M::Result: Send,
    {
        self.inbox.tell(Letter::Kept(Arc::new(Slip::repeated(message, None, times))))
    }

    /// Puts a message into the inbox and waits for its answer.
    ///
    /// # Errors
    /// When the message is refused, and when no answer comes, in time or ever.
    pub async fn ask<M>(&self, message: M, timeout: Duration) -> Result<M::Result, AskError>
    where
        A: Handler<M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        ask(&*self.inbox, |reply| Slip::new(message, Some(reply)), timeout).await
    }

    /// Asks with a message that survives its own crash, as with [`ChildRef::tell_redeliver`]: the answer may come from a later incarnation.
    ///
    /// # Errors
    /// As [`ChildRef::ask`]; `Crashed` tells how the last incarnation ended that had it.
    pub async fn ask_redeliver<M>(&self, message: M, times: u32, timeout: Duration) -> Result<M::Result, AskError>
    where
        A: Handler<M>,
        M: Message + Clone + Send + 'static,
        M::Result: Send,
    {
        ask(&*self.inbox, |reply| Slip::repeated(message, Some(reply), times), timeout).await
    }

    /// Runs a closure inside the actor, in its turn among the messages: for introspection and for fault injection in tests.
    ///
    /// # Errors
    /// As [`ChildRef::tell`].
    pub fn run(&self, work: impl FnOnce(&mut A, &mut Context<A>) + Send + 'static) -> Result<(), TellError> {
        self.inbox.tell(Letter::work(work))
    }

    /// As [`ChildRef::run`], and waits for room like [`ChildRef::tell_wait`].
    pub(crate) async fn run_wait(
        &self,
        work: impl FnOnce(&mut A, &mut Context<A>) + Send + 'static,
        timeout: Duration,
    ) -> Result<(), TellError> {
        self.inbox.tell_wait(Letter::work(work), timeout).await
    }

    /// A handle that knows only the message, for those who don't care which actor takes it.
    #[must_use]
    pub fn recipient<M>(&self) -> TellRef<M>
    where
        A: Handler<M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        let post = Arc::clone(&self.inbox);
        TellRef::new(post)
    }

    /// Messages that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inbox.len()
    }

    /// Whether no message waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The latest incarnation that was made; 0 when the child was never started.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.inbox.incarnation()
    }

    /// What is known of the child without asking it, all of one moment.
    #[must_use]
    pub fn stats(&self) -> ChildStats {
        self.inbox.stats()
    }
}

impl<A: Actor<Context = Context<A>>> Clone for ChildRef<A> {
    fn clone(&self) -> Self {
        Self { inbox: Arc::clone(&self.inbox) }
    }
}

impl<A: Actor<Context = Context<A>>> std::fmt::Debug for ChildRef<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChildRef").field("incarnation", &self.incarnation()).field("len", &self.len()).finish()
    }
}
