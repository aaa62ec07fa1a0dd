//! The body of a socket's response: it runs the viewer's actor, and hands the connection what the actor has made.
//!
//! Where the actor breaks by a fault of ours, its client is told so before the connection ends.

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

/// Where an actor puts what it makes. Its context would copy it twice.
pub(super) type Outbox = Rc<RefCell<Pieces>>;

/// The body around that of the actor's context.
pub(super) struct Body<B> {
    actor: Option<B>,
    outbox: Outbox,
}

impl<B> Body<B> {
    pub(super) fn new(actor: B, outbox: Outbox) -> Self {
        Self { actor: Some(actor), outbox }
    }

    /// The actor has panicked: its client hears it from us.
    fn broken(&mut self) {
        tracing::error!("the actor of a viewer panicked; its connection is ended");
        // Ending it runs its goodbye, which may meet the same fault.
        let actor = self.actor.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(actor)));
        let mut outbox = self.outbox.borrow_mut();
        *outbox = Pieces::default();
        outbox.push(viewer::our_fault());
    }
}

impl<B: MessageBody + Unpin> MessageBody for Body<B> {
    type Error = B::Error;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, B::Error>>> {
        let this = self.get_mut();
        let mut rests = false;
        loop {
            // Only when all is handed over may the actor make more; it relies on being asked again then.
            if let Some(piece) = this.outbox.borrow_mut().pop() {
                return Poll::Ready(Some(Ok(piece)));
            }
            if rests {
                return Poll::Pending;
            }
            let Some(actor) = &mut this.actor else { return Poll::Ready(None) };
            let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(actor).poll_next(cx)));
            match polled {
                Ok(Poll::Pending) => rests = true,
                Ok(Poll::Ready(None)) => this.actor = None,
                Ok(Poll::Ready(Some(Ok(made)))) => this.outbox.borrow_mut().push(made),
                Ok(Poll::Ready(Some(Err(error)))) => return Poll::Ready(Some(Err(error))),
                Err(_) => this.broken(),
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
        let mut body = Body::new(Script([made("so far"), panics].into()), Outbox::default());
        assert_eq!(poll(&mut body), Poll::Ready(Some(Bytes::from_static(b"so far"))));
        let Poll::Ready(Some(close)) = poll(&mut body) else { panic!("no goodbye") };
        assert_eq!((close[0], usize::from(close[1])), (0x88, close.len() - 2), "a close frame");
        assert_eq!(close[2..4], 1011_u16.to_be_bytes());
        assert_eq!((poll(&mut body), poll(&mut body)), (Poll::Ready(None), Poll::Ready(None)));
    }

    #[test]
    fn the_actor_is_asked_for_more_once_all_that_it_made_is_handed_over() {
        let outbox = Outbox::default();
        let inner = Rc::clone(&outbox);
        let makes: Turn = Box::new(move || {
            inner.borrow_mut().push("short");
            inner.borrow_mut().push(vec![7; 3 * BATCH_BYTES]);
            Poll::Pending
        });
        let inner = Rc::clone(&outbox);
        let makes_more: Turn = Box::new(move || {
            assert!(inner.borrow().is_empty(), "asked too early");
            inner.borrow_mut().push("more");
            Poll::Pending
        });
        let inner = Rc::clone(&outbox);
        let says_goodbye: Turn = Box::new(move || {
            inner.borrow_mut().push("goodbye");
            Poll::Ready(None)
        });
        let script = [makes, makes_more, Box::new(|| Poll::Pending), says_goodbye];
        let mut body = Body::new(Script(script.into()), outbox);
        let mut next = || match poll(&mut body) {
            Poll::Ready(Some(piece)) => piece,
            other => panic!("{other:?}"),
        };
        assert_eq!(next(), "short");
        let pieces = [next(), next(), next()];
        assert!(pieces.iter().all(|piece| piece.len() == BATCH_BYTES));
        assert_eq!(next(), "more");
        assert_eq!(poll(&mut body), Poll::Pending);
        assert_eq!(poll(&mut body), Poll::Ready(Some(Bytes::from("goodbye"))));
        assert_eq!(poll(&mut body), Poll::Ready(None));
    }
}
