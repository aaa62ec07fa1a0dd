//! A stream ends with the token that opened it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::{
    body::{BodySize, BoxBody, MessageBody},
    http::StatusCode,
    web::Bytes,
};

use crate::control_plane::Key;

/// How long a socket may take to tell its peer why it closes, before it is closed for it.
const FAREWELL: Duration = Duration::from_secs(2);

/// A body without a known end, for as long as its key is good.
struct Leashed {
    body: BoxBody,
    ended: Pin<Box<dyn Future<Output = ()>>>,
}

/// Puts what has no known end on a leash: an event stream, or a socket. Anything else is answered before a token can be revoked twice.
pub(super) fn leash(status: StatusCode, body: BoxBody, key: Option<Arc<Key>>) -> BoxBody {
    match (body.size(), key) {
        (BodySize::Stream, Some(key)) => {
            let ended = Box::pin(async move {
                key.ended().await;
                if status == StatusCode::SWITCHING_PROTOCOLS {
                    tokio::time::sleep(FAREWELL).await;
                }
            });
            BoxBody::new(Leashed { body, ended })
        }
        _ => body,
    }
}

impl MessageBody for Leashed {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        if self.ended.as_mut().poll(cx).is_ready() {
            // For an event stream this is its end, for a socket the end of its connection.
            return Poll::Ready(None);
        }
        Pin::new(&mut self.body).poll_next(cx)
    }
}
