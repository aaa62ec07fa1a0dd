//! The body of a socket's response: what the viewer's actor has made, and the long frames that it has set aside, handed to the connection in pieces.
//!
//! The actor runs inside this body. Where it breaks by a fault of ours, its client is told so before the connection ends.

use std::{
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use actix_web::{
    body::{BodySize, MessageBody},
    web::Bytes,
};

use super::{frame::Pieces, viewer};

/// Where an actor puts a frame that is too long to be copied. It makes nothing more before it has been let in between, so that what it has made
/// before the long frame is what its context brings in the same poll.
pub(super) type Aside = Rc<RefCell<Pieces>>;

/// The body around that of the actor's context.
pub(super) struct Body<B> {
    actor: Option<B>,
    aside: Aside,
    ready: Pieces,
}

impl<B> Body<B> {
    pub(super) fn new(actor: B, aside: Aside) -> Self {
        Self { actor: Some(actor), aside, ready: Pieces::default() }
    }

    /// The actor has panicked: its client hears it from us.
    fn broken(&mut self) {
        tracing::error!("the actor of a viewer panicked; its connection is ended");
        // Ending it runs its goodbye, which may meet the same fault.
        let actor = self.actor.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(actor)));
        self.aside.take();
        self.ready.push(viewer::our_fault());
    }
}

impl<B: MessageBody + Unpin> MessageBody for Body<B> {
    type Error = B::Error;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, B::Error>>> {
        let this = self.get_mut();
        loop {
            // Only when all is handed over may the actor make more.
            if let Some(piece) = this.ready.pop() {
                return Poll::Ready(Some(Ok(piece)));
            }
            let Some(actor) = &mut this.actor else { return Poll::Ready(None) };
            let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(actor).poll_next(cx)));
            let ended = match polled {
                Ok(Poll::Pending) => Some(Poll::Pending),
                Ok(Poll::Ready(None)) => {
                    this.actor = None;
                    None
                }
                Ok(Poll::Ready(Some(Ok(made)))) => {
                    this.ready.push(made);
                    None
                }
                Ok(Poll::Ready(Some(Err(error)))) => return Poll::Ready(Some(Err(error))),
                Err(_) => {
                    this.broken();
                    None
                }
            };
            this.ready.append(&mut this.aside.borrow_mut());
            if let Some(piece) = this.ready.pop() {
                return Poll::Ready(Some(Ok(piece)));
            }
            if let Some(pending) = ended {
                return pending;
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::stream::limits::BATCH_BYTES;

    type Turn = Box<dyn FnMut() -> Poll<Option<Result<Bytes, std::convert::Infallible>>>>;

    /// An actor's context by the script.
    struct Script(VecDeque<Turn>);

    impl MessageBody for Script {
        type Error = std::convert::Infallible;

        fn size(&self) -> BodySize {
            BodySize::Stream
        }

        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
            self.0.pop_front().unwrap()()
        }
    }

    fn poll(body: &mut Body<Script>) -> Poll<Option<Bytes>> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        Pin::new(body).poll_next(&mut cx).map(|made| made.map(|made| made.unwrap()))
    }

    fn made(text: &'static str) -> Turn {
        Box::new(move || Poll::Ready(Some(Ok(Bytes::from_static(text.as_bytes())))))
    }

    #[test]
    fn an_actor_that_panics_is_told_of_as_our_fault_and_ends() {
        let panics: Turn = Box::new(|| panic!("a bug in the story"));
        let mut body = Body::new(Script([made("so far"), panics].into()), Aside::default());
        assert_eq!(poll(&mut body), Poll::Ready(Some(Bytes::from_static(b"so far"))));
        let Poll::Ready(Some(close)) = poll(&mut body) else { panic!("no goodbye") };
        assert_eq!((close[0], usize::from(close[1])), (0x88, close.len() - 2), "a close frame");
        assert_eq!(close[2..4], 1011_u16.to_be_bytes());
        assert_eq!((poll(&mut body), poll(&mut body)), (Poll::Ready(None), Poll::Ready(None)));
    }

    #[test]
    fn what_was_set_aside_follows_what_was_made_before_it_and_the_actor_waits_for_both() {
        let aside = Aside::default();
        let inner = Rc::clone(&aside);
        let long = vec![7; 3 * BATCH_BYTES];
        let sets_aside: Turn = Box::new(move || {
            inner.borrow_mut().push(vec![7; 3 * BATCH_BYTES]);
            Poll::Ready(Some(Ok(Bytes::from_static(b"before"))))
        });
        let inner = Rc::clone(&aside);
        let sets_aside_alone: Turn = Box::new(move || {
            inner.borrow_mut().push("alone");
            Poll::Pending
        });
        let script =
            [sets_aside, made("after"), sets_aside_alone, Box::new(|| Poll::Pending), Box::new(|| Poll::Ready(None))];
        let mut body = Body::new(Script(script.into()), aside);
        let mut next = || match poll(&mut body) {
            Poll::Ready(Some(piece)) => piece,
            other => panic!("{other:?}"),
        };
        assert_eq!(next(), "before");
        let pieces = [next(), next(), next()];
        assert!(pieces.iter().all(|piece| piece.len() == BATCH_BYTES));
        assert_eq!(pieces.concat(), long);
        assert_eq!((next(), next()), (Bytes::from("after"), Bytes::from("alone")));
        assert_eq!((poll(&mut body), poll(&mut body)), (Poll::Pending, Poll::Ready(None)));
    }
}
