//! Server-sent events: one chunk at a time is made, and only when the connection has room for it. A client that stops reading therefore holds
//! one chunk and its cursor, and nobody waits for it; the kernel cuts it off when it takes nothing for the
//! [write deadline](super::Limits).

use std::{fmt::Write as _, future::Future, sync::Arc, time::Duration};

use actix_web::{HttpResponse, http::header, web::Bytes};
use futures_util::stream;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::{
    error::{Code, Problem},
    server::Limits,
};

/// Text in one chunk, roughly: few enough bytes to be bounded, enough to fill network packets.
pub(super) const CHUNK_BYTES: usize = 32 * 1024;
/// How long a client is asked to wait before it reconnects.
const RETRY_MS: u32 = 1000;

/// What all streams of a server share.
#[derive(Clone)]
pub(super) struct Streams {
    slots: Arc<Semaphore>,
    closing: watch::Receiver<bool>,
    limits: Limits,
}

/// Where a stream's frames come from.
pub(super) trait Source: 'static {
    /// The next frames; `None` ends the stream. Cancel-safe: what was not returned comes again.
    fn next(&mut self) -> impl Future<Output = Option<Frames>>;
}

/// Text of whole frames.
#[derive(Default)]
pub(super) struct Frames(String);

struct Stream<S> {
    source: S,
    closing: watch::Receiver<bool>,
    keep_alive: Duration,
    greeted: bool,
    _slot: OwnedSemaphorePermit,
}

impl Streams {
    pub(super) fn new(closing: watch::Receiver<bool>, limits: Limits) -> Self {
        Self { slots: Arc::new(Semaphore::new(limits.streams)), closing, limits }
    }

    /// Comes so long after the server was asked to stop.
    pub(super) async fn closed(&self, grace: Duration) {
        let mut closing = self.closing.clone();
        // Whoever could ask it to stop is gone: it has stopped.
        let _ = closing.wait_for(|closing| *closing).await;
        tokio::time::sleep(grace).await;
    }

    /// Answers with the frames of a source.
    pub(super) fn respond(&self, source: impl Source) -> Result<HttpResponse, Problem> {
        let slot = Arc::clone(&self.slots).try_acquire_owned().map_err(|_| {
            Problem::new(
                Code::TooManyStreams,
                format!("{} streams are open, and no more are allowed", self.limits.streams),
            )
        })?;
        let (closing, keep_alive) = (self.closing.clone(), self.limits.stream_keep_alive);
        let stream = Stream { source, closing, keep_alive, greeted: false, _slot: slot };
        let chunks = stream::unfold(stream, |mut stream| async move {
            let chunk = stream.chunk().await?;
            Some((Ok::<_, std::convert::Infallible>(Bytes::from(chunk)), stream))
        });
        Ok(HttpResponse::Ok()
            .insert_header((header::CONTENT_TYPE, "text/event-stream; charset=utf-8"))
            .streaming(chunks))
    }
}

impl<S: Source> Stream<S> {
    async fn chunk(&mut self) -> Option<String> {
        if !self.greeted {
            // Sent at once, so that the client knows that it is connected.
            self.greeted = true;
            return Some(format!("retry: {RETRY_MS}\n\n"));
        }
        tokio::select! {
            biased;
            _ = self.closing.wait_for(|closing| *closing) => None,
            frames = self.source.next() => frames.map(|frames| frames.0),
            () = tokio::time::sleep(self.keep_alive) => Some(": keep-alive\n\n".to_owned()),
        }
    }
}

impl Frames {
    /// Whole frames that somebody else has made.
    pub(super) fn whole(text: String) -> Self {
        Self(text)
    }

    /// Adds a frame. JSON text has no line ends of its own, so one `data:` line carries it.
    pub(super) fn push(&mut self, id: Option<u64>, event: &str, data: &impl Serialize) {
        // Writing to a String can't fail, and the views have no map keys that JSON could refuse.
        if let Some(id) = id {
            let _ = writeln!(self.0, "id: {id}");
        }
        let data = serde_json::to_string(data).unwrap_or_else(|_| "null".to_owned());
        let _ = write!(self.0, "event: {event}\ndata: {data}\n\n");
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= CHUNK_BYTES
    }
}
