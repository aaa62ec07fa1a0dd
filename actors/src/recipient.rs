//! A handle on whatever takes a message, and the wait for an answer that all handles share.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use actix::{Actor, Context, Handler, Message};
use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::time::Instant;

use crate::child_ref::AskError;
use crate::inbox::{Inbox, TellError};
use crate::letter::{Letter, Slip};

/// A handle on a child by the message that it takes (actix `Recipient`), valid across its restarts. Cheap to clone.
pub struct TellRef<M: Message>(Arc<dyn Post<M>>);

impl<M: Message + Send + 'static> TellRef<M> {
    pub(crate) fn new(post: Arc<dyn Post<M>>) -> Self {
        Self(post)
    }

    /// See [`ChildRef::tell`](crate::ChildRef::tell).
    ///
    /// # Errors
    /// When there is no room, or when the child rests.
    pub fn tell(&self, message: M) -> Result<(), TellError> {
        self.0.tell(message)
    }

    /// See [`ChildRef::ask`](crate::ChildRef::ask).
    ///
    /// # Errors
    /// When the message is refused, and when no answer comes, in time or ever.
    pub async fn ask(&self, message: M, timeout: Duration) -> Result<M::Result, AskError> {
        ask(&*self.0, |reply| Slip::new(message, Some(reply)), timeout).await
    }
}

impl<M: Message> Clone for TellRef<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<M: Message> fmt::Debug for TellRef<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TellRef").field(&std::any::type_name::<M>()).finish()
    }
}

/// An inbox to which a message can be sent.
pub(crate) trait Post<M: Message>: Send + Sync {
    fn tell(&self, message: M) -> Result<(), TellError>;
    fn send(&self, slip: Arc<Slip<M>>) -> Result<(), TellError>;
    fn lives(&self) -> bool;
}

impl<A, M> Post<M> for Inbox<A>
where
    A: Actor<Context = Context<A>> + Handler<M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    fn tell(&self, message: M) -> Result<(), TellError> {
        Inbox::tell(self, Letter::tell(message))
    }

    fn send(&self, slip: Arc<Slip<M>>) -> Result<(), TellError> {
        self.push(Letter::Kept(slip)).map_err(|refused| refused.error)
    }

    fn lives(&self) -> bool {
        Inbox::lives(self)
    }
}

/// How often somebody who waits for an answer looks whether it can still come. A fenced incarnation keeps the channel open: nobody can take it
/// from its thread. A tenth of the time after which a thread counts as blocked by default.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Sends what `write` makes for the given channel and waits for the answer.
pub(crate) async fn ask<M: Message>(
    post: &(impl Post<M> + ?Sized),
    write: impl FnOnce(oneshot::Sender<M::Result>) -> Slip<M>,
    timeout: Duration,
) -> Result<M::Result, AskError> {
    let (reply, mut answer) = oneshot::channel();
    let slip = Arc::new(write(reply));
    post.send(Arc::clone(&slip))?;
    // An actor of this thread answers in the turn that is given up here: then no timer is set and nobody has to be woken.
    give_up_a_turn().await;
    match answer.try_recv() {
        Ok(answer) => return Ok(answer),
        Err(TryRecvError::Closed) => return Err(slip.why_closed()),
        Err(TryRecvError::Empty) => {}
    }
    let mut left = timeout;
    let mut first_look = None;
    loop {
        let wait = left.min(LOOK_EVERY);
        match tokio::time::timeout(wait, &mut answer).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(_)) => return Err(slip.why_closed()),
            Err(_) if slip.is_stuck() => return Err(slip.why_closed()),
            Err(_) if wait == left => return Err(slip.why_late(post.lives())),
            // Clocks are read by those who wait long, and by nobody else.
            Err(_) => {
                let since = *first_look.get_or_insert_with(|| Instant::now() - wait);
                left = timeout.saturating_sub(since.elapsed());
            }
        }
    }
}

/// Lets every task that is due on this thread run once. Cheaper than tokio's `yield_now`, which looks at its timers first.
async fn give_up_a_turn() {
    let mut given = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut given, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
