//! `/sse/hybrid-health`: the frames of the socket as server-sent events, for whoever only reads.
//!
//! Its peer can say nothing, so what it wants stands in the address, and whether it reads is judged by what its kernel acknowledges.

use std::{io::Write as _, ops::ControlFlow, sync::Arc, time::Instant};

use actix_web::web::Bytes;
use futures_util::{Stream, stream};
use tokio::{
    sync::watch,
    time::{Interval, MissedTickBehavior, interval_at},
};

use super::{
    frame::{Frame, Pieces},
    hub::{Hub, Order, Record},
    limits::BATCH_BYTES,
    protocol::{Asked, Topic},
    story::Story,
};
use crate::{events::Subscription, model::Seq};

/// How long a client is asked to wait before it reconnects, as with the other event streams.
const RETRY_MS: u32 = 1000;

/// What the stream is to do next.
enum Turn {
    /// Send this; nothing when it is empty.
    Send(Chunk),
    End,
}

/// Frames in the form of the stream, the long ones by reference.
#[derive(Default)]
struct Chunk {
    pieces: Pieces,
    /// What follows them.
    last: Vec<u8>,
}

impl Chunk {
    /// Adds a frame. JSON text has no line ends of its own, so one `data:` line carries it.
    fn put(&mut self, seq: Seq, frame: &Frame) {
        let (own, shared) = frame.text();
        self.last.reserve(own.len() + 40);
        // Writing to a vector can't fail.
        let _ = write!(self.last, "id: {seq}\ndata: ");
        self.last.extend_from_slice(own);
        if let Some(shared) = shared {
            self.pieces.push(std::mem::take(&mut self.last));
            self.pieces.push(shared.clone());
        }
        self.last.extend_from_slice(b"\n\n");
    }

    fn is_full(&self) -> bool {
        self.pieces.is_full() || self.last.len() >= BATCH_BYTES
    }

    fn finish(mut self) -> Pieces {
        self.pieces.push(self.last);
        self.pieces
    }
}

struct Events {
    hub: Hub,
    id: u64,
    record: Arc<Record>,
    orders: watch::Receiver<Order>,
    story: Story,
    feed: Subscription,
    /// The feed may have more than was told of it.
    more: bool,
    performance: Option<Interval>,
    greeting: Option<Chunk>,
    pinged: u64,
}

impl Drop for Events {
    fn drop(&mut self) {
        self.hub.leave(self.id, Instant::now());
    }
}

/// The body of an answer. It makes a chunk only when the connection has room for it, so that a peer that does not read holds one.
pub(super) fn body(
    hub: Hub,
    id: u64,
    record: Arc<Record>,
    asked: Asked,
) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> {
    let events = Events::new(hub, id, record, asked);
    stream::unfold((events, Pieces::default()), |(mut events, mut ready)| async move {
        loop {
            if let Some(piece) = ready.pop() {
                return Some((Ok(piece), (events, ready)));
            }
            match events.turn().await {
                Turn::Send(chunk) => ready = chunk.finish(),
                Turn::End => return None,
            }
        }
    })
}

impl Events {
    fn new(hub: Hub, id: u64, record: Arc<Record>, asked: Asked) -> Self {
        let Asked { topics, only, after } = asked;
        // The cursor is set before the document is taken: what changes in between comes twice rather than not at all.
        let begin = after.unwrap_or_else(|| hub.feed().head());
        let mut story = Story::new(hub.clone(), id, begin);
        story.filter(only);
        if let Some(topics) = topics {
            *story.topics_mut() = topics;
        }
        let mut greeting = Chunk { last: format!("retry: {RETRY_MS}\n\n").into_bytes(), ..Chunk::default() };
        let established = story.established();
        greeting.put(story.seq(), &established);
        let told = story.topics().contains(&Topic::Status) || story.topics().contains(&Topic::Sessions);
        if after.is_none() && told {
            let status = story.status();
            greeting.put(story.seq(), &status);
        }
        let performance = story.topics().contains(&Topic::Performance).then(|| {
            let every = hub.limits().performance_interval;
            let mut timer = interval_at((Instant::now() + every).into(), every);
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
            timer
        });
        let (feed, orders) = (hub.feed().subscribe(begin), record.orders());
        Self { hub, id, record, orders, story, feed, more: true, performance, greeting: Some(greeting), pinged: 0 }
    }

    async fn turn(&mut self) -> Turn {
        if let Some(greeting) = self.greeting.take() {
            return Turn::Send(greeting);
        }
        tokio::select! {
            biased;
            changed = self.orders.changed() => {
                let order = *self.orders.borrow_and_update();
                if changed.is_err() || order.close.is_some() {
                    return Turn::End;
                }
                Turn::Send(self.ping(order.ping))
            }
            () = async { if !self.more { self.feed.changed().await } } => {
                let mut chunk = Chunk::default();
                let enough = self.story.tell(&mut self.feed, |seq, frame| {
                    chunk.put(seq, &frame);
                    if chunk.is_full() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                });
                self.more = enough.is_break();
                Turn::Send(chunk)
            }
            now = tick(&mut self.performance) => {
                let mut chunk = Chunk::default();
                let frame = self.story.performance(now);
                chunk.put(self.story.seq(), &frame);
                Turn::Send(chunk)
            }
        }
    }

    /// The comment that keeps proxies from cutting a quiet stream is also what shows whether its peer takes anything.
    fn ping(&mut self, number: u64) -> Chunk {
        if number <= self.pinged {
            return Chunk::default();
        }
        self.pinged = number;
        self.record.pulse.lock().taken(number);
        Chunk { last: b": keep-alive\n\n".to_vec(), ..Chunk::default() }
    }
}

async fn tick(timer: &mut Option<Interval>) -> Instant {
    match timer {
        Some(timer) => timer.tick().await.into_std(),
        None => std::future::pending().await,
    }
}
