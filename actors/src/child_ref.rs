//! How the rest of the program speaks to a supervised actor.

use std::sync::Arc;
use std::time::Duration;

use actix::dev::{Envelope, EnvelopeProxy};
use actix::{Actor, Context, Handler, Message};
use tokio::sync::oneshot;

use crate::inbox::{Inbox, TellError};

/// Why an answer did not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// As many messages as fit are waiting already; the message was not taken.
    #[error("the inbox is full")]
    Full,
    /// The child is stopped, done, failed or gone.
    #[error("the child is stopped")]
    Stopped,
    /// The incarnation that had the message ended before it answered. It may or may not have acted on it.
    #[error("the child ended before it answered")]
    Crashed,
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
/// Messages wait in the child's own inbox: those that a crash leaves behind are handled by the next incarnation, in order. The one that
/// was being handled is lost. A child that rests (stopped, completed, failed) refuses messages and forgets those that waited.
pub struct ChildRef<A: Actor<Context = Context<A>>> {
    inbox: Arc<Inbox<A>>,
}

impl<A: Actor<Context = Context<A>>> ChildRef<A> {
    pub(crate) fn new(inbox: Arc<Inbox<A>>) -> Self {
        Self { inbox }
    }

    /// Puts a message into the inbox.
    ///
    /// # Errors
    /// When there is no room, or when the child rests.
    pub fn tell<M>(&self, message: M) -> Result<(), TellError>
    where
        A: Handler<M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        self.inbox.push(Envelope::new(message, None))
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
        let (sender, receiver) = oneshot::channel();
        self.inbox.push(Envelope::new(message, Some(sender)))?;
        match tokio::time::timeout(timeout, receiver).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) if self.inbox.is_open() => Err(AskError::Crashed),
            Ok(Err(_)) => Err(AskError::Stopped),
            Err(_) => Err(AskError::Timeout),
        }
    }

    /// Runs a closure inside the actor, in its turn among the messages: for introspection and for fault injection in tests.
    ///
    /// # Errors
    /// As [`ChildRef::tell`].
    pub fn run(&self, work: impl FnOnce(&mut A, &mut Context<A>) + Send + 'static) -> Result<(), TellError> {
        self.inbox.push(Envelope::with_proxy(Box::new(Work(Some(work)))))
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

/// A closure as a message.
struct Work<F>(Option<F>);

impl<A: Actor, F: FnOnce(&mut A, &mut A::Context)> EnvelopeProxy<A> for Work<F> {
    fn handle(&mut self, actor: &mut A, context: &mut A::Context) {
        if let Some(work) = self.0.take() {
            work(actor, context);
        }
    }
}
