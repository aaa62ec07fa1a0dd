//! The actor of one viewer.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use actix::{Actor, ActorContext, AsyncContext, SpawnHandle, StreamHandler};
use actix_web_actors::ws::{self, CloseCode, CloseReason, Message, ProtocolError};
use futures_util::stream;
use uuid::Uuid;

use super::{
    hub::{Close, Hub, Order, Record},
    protocol::{self, Filter, Head, Objection, Push, Said, Topic},
};
use crate::{
    events::Gap,
    model::{Event, Seq},
};

/// What the feed has for a viewer. A resumed viewer reads from elsewhere; what its former cursor still brings is of an older reading.
pub(super) struct Fed {
    reading: u64,
    item: Result<Arc<Event>, Gap>,
}

/// Answers asked for more often than this allows are given once, a little later.
struct Pace {
    interval: Duration,
    last: Option<Instant>,
    waits: bool,
}

impl Pace {
    fn new(interval: Duration) -> Self {
        Self { interval, last: None, waits: false }
    }

    /// How long the answer has to wait; `None` when one waits already.
    fn ask(&mut self, now: Instant) -> Option<Duration> {
        if self.waits {
            return None;
        }
        let wait =
            self.last.map_or(Duration::ZERO, |last| self.interval.saturating_sub(now.saturating_duration_since(last)));
        self.waits = !wait.is_zero();
        Some(wait)
    }

    fn answered(&mut self, now: Instant) {
        (self.last, self.waits) = (Some(now), false);
    }
}

/// One viewer.
pub(super) struct Viewer {
    hub: Hub,
    id: u64,
    record: Arc<Record>,
    topics: BTreeSet<Topic>,
    only: Filter,
    /// The number of the last frame that was sent.
    prev_seq: Seq,
    reading: u64,
    feed: Option<SpawnHandle>,
    performance_timer: Option<SpawnHandle>,
    status_pace: Pace,
    performance_pace: Pace,
    pinged: u64,
}

type Ctx = ws::WebsocketContext<Viewer>;

impl Actor for Viewer {
    type Context = Ctx;

    fn started(&mut self, ctx: &mut Ctx) {
        let mut orders = self.record.orders();
        // An order may have come before this actor was first polled.
        orders.mark_changed();
        let orders = stream::unfold(orders, |mut orders| async move {
            orders.changed().await.ok()?;
            let order = *orders.borrow_and_update();
            Some((order, orders))
        });
        ctx.add_stream(orders);
        // The cursor is set before the document is taken: what changes in between comes twice rather than not at all.
        self.prev_seq = self.hub.feed().head();
        self.read_from(self.prev_seq, ctx);
        let interval_ms = u64::try_from(self.hub.limits().ping_interval.as_millis()).unwrap_or(u64::MAX);
        let tail = protocol::established_tail(&Uuid::now_v7().to_string(), interval_ms);
        self.send("connection_established", None, &tail, ctx);
        self.send_status(None, ctx);
    }

    fn stopped(&mut self, _ctx: &mut Ctx) {
        self.hub.leave(self.id, Instant::now());
    }
}

impl Viewer {
    pub(super) fn new(hub: Hub, id: u64, record: Arc<Record>) -> Self {
        let limits = *hub.limits();
        Self {
            hub,
            id,
            record,
            topics: BTreeSet::from([Topic::Status, Topic::Sessions]),
            only: None,
            prev_seq: Seq(0),
            reading: 0,
            feed: None,
            performance_timer: None,
            status_pace: Pace::new(limits.status_interval),
            performance_pace: Pace::new(limits.performance_interval),
            pinged: 0,
        }
    }

    fn read_from(&mut self, after: Seq, ctx: &mut Ctx) {
        self.reading += 1;
        if let Some(former) = self.feed.take() {
            ctx.cancel_future(former);
        }
        let reading = self.reading;
        let events = stream::unfold(self.hub.feed().subscribe(after), move |mut events| async move {
            let item = events.next().await;
            Some((Fed { reading, item }, events))
        });
        self.feed = Some(ctx.add_stream(events));
    }

    /// Sends a frame. `event` is the number and the time of what it tells; without one it tells of now and moves no number.
    fn send(&mut self, kind: &str, event: Option<(Seq, SystemTime)>, tail: &str, ctx: &mut Ctx) {
        let sent_at = SystemTime::now();
        let (seq, observed_at) = event.unwrap_or((self.prev_seq, sent_at));
        let head = Head { epoch: self.hub.feed().epoch(), seq, prev_seq: self.prev_seq, observed_at, sent_at };
        self.prev_seq = seq;
        self.hub.count_frame();
        ctx.text(protocol::frame(kind, head, tail));
    }

    fn send_status(&mut self, event: Option<(Seq, SystemTime)>, ctx: &mut Ctx) {
        let tail = self.hub.status_tail(&self.only);
        self.status_pace.answered(Instant::now());
        self.send("status_update", event, &tail, ctx);
    }

    fn send_performance(&mut self, ctx: &mut Ctx) {
        let now = Instant::now();
        self.performance_pace.answered(now);
        let tail = protocol::performance_tail(&self.hub.health().hive(), self.hub.performance(now));
        self.send("performance_update", None, &tail, ctx);
    }

    fn ask_performance(&mut self, ctx: &mut Ctx) {
        match self.performance_pace.ask(Instant::now()) {
            None => {}
            Some(Duration::ZERO) => self.send_performance(ctx),
            Some(wait) => {
                ctx.run_later(wait, |act, ctx| act.send_performance(ctx));
            }
        }
    }

    fn object(&mut self, code: &'static str, message: impl Into<String>, ctx: &mut Ctx) {
        let tail = protocol::error_tail(&Objection { code, message: message.into() });
        self.send("error", None, &tail, ctx);
    }

    fn said(&mut self, text: &str, ctx: &mut Ctx) {
        let said = match protocol::parse(text) {
            Ok(said) => said,
            Err(Objection { code, message }) => return self.object(code, message, ctx),
        };
        match said {
            Said::Ping {} => self.send("pong", None, "{}", ctx),
            Said::RequestStatus {} => match self.status_pace.ask(Instant::now()) {
                None => {}
                Some(Duration::ZERO) => self.send_status(None, ctx),
                Some(wait) => {
                    ctx.run_later(wait, |act, ctx| act.send_status(None, ctx));
                }
            },
            Said::RequestPerformance {} => self.ask_performance(ctx),
            Said::Unsubscribe { subscriptions } => {
                self.topics.retain(|topic| !subscriptions.contains(topic));
                self.acknowledge(ctx);
            }
            Said::Subscribe { subscriptions, swarms, after } => {
                if let Some(names) = swarms {
                    match protocol::filter(&names) {
                        Ok(filter) => self.only = filter,
                        Err(Objection { code, message }) => return self.object(code, message, ctx),
                    }
                }
                self.topics.extend(subscriptions);
                if let Some(after) = after {
                    // The next frame follows on what the client has seen, wherever we were.
                    self.prev_seq = Seq(after);
                    self.read_from(Seq(after), ctx);
                }
                self.acknowledge(ctx);
            }
        }
    }

    fn acknowledge(&mut self, ctx: &mut Ctx) {
        let tail = protocol::ack_tail(&self.topics, &self.only);
        self.send("subscription_ack", None, &tail, ctx);
        match (self.topics.contains(&Topic::Performance), self.performance_timer) {
            (true, None) => {
                let interval = self.hub.limits().performance_interval;
                self.performance_timer = Some(ctx.run_interval(interval, |act, ctx| {
                    act.ask_performance(ctx);
                }));
            }
            (false, Some(timer)) => {
                ctx.cancel_future(timer);
                self.performance_timer = None;
            }
            _ => {}
        }
    }

    fn end(&mut self, code: CloseCode, why: &str, ctx: &mut Ctx) {
        ctx.close(Some(CloseReason { code, description: Some(why.to_owned()) }));
        ctx.stop();
    }
}

impl StreamHandler<Result<Message, ProtocolError>> for Viewer {
    fn handle(&mut self, message: Result<Message, ProtocolError>, ctx: &mut Ctx) {
        let now = Instant::now();
        if message.is_ok() {
            self.record.pulse.lock().heard(now);
        }
        match message {
            Ok(Message::Text(text)) => self.said(&text, ctx),
            Ok(Message::Binary(_)) => self.object("unsupported_frame", "binary messages are not read", ctx),
            // actix-web-actors hands pieces out by a type that it does not export; our clients' messages are a line long.
            Ok(Message::Continuation(_)) => {
                self.end(CloseCode::Unsupported, "messages in pieces are not read", ctx);
            }
            Ok(Message::Ping(payload)) => ctx.pong(&payload),
            Ok(Message::Pong(payload)) => {
                if let Ok(number) = <[u8; 8]>::try_from(&*payload) {
                    self.record.pulse.lock().ponged(u64::from_be_bytes(number));
                }
            }
            Ok(Message::Close(reason)) => {
                ctx.close(reason);
                ctx.stop();
            }
            Ok(Message::Nop) => {}
            Err(ProtocolError::Overflow) => self.end(CloseCode::Size, "message too big", ctx),
            // The decoder reports text that is not UTF-8 and a broken connection alike; on the latter nobody reads the code.
            Err(ProtocolError::Io(_)) => self.end(CloseCode::Invalid, "text is not UTF-8", ctx),
            Err(error) => self.end(CloseCode::Protocol, &error.to_string(), ctx),
        }
    }
}

impl StreamHandler<Fed> for Viewer {
    fn handle(&mut self, fed: Fed, ctx: &mut Ctx) {
        if fed.reading != self.reading {
            return;
        }
        match fed.item {
            Ok(event) => match protocol::push(&event, &self.topics, &self.only) {
                Push::Nothing => {}
                Push::Status => self.send_status(Some((event.seq, event.at)), ctx),
                Push::Sessions(parts) => {
                    let tail = self.hub.shared_tail(&event, || protocol::sessions_tail(&parts));
                    self.hub.note_latency(event.at, Instant::now());
                    self.send("session_update", Some((event.seq, event.at)), &tail, ctx);
                }
                Push::Filtered(parts) => {
                    self.hub.note_latency(event.at, Instant::now());
                    self.send("session_update", Some((event.seq, event.at)), &protocol::sessions_tail(&parts), ctx);
                }
            },
            // What is gone is made up for by one whole document; it holds everything up to the head that the gap names.
            Err(gap) if self.topics.contains(&Topic::Status) || self.topics.contains(&Topic::Sessions) => {
                self.send_status(Some((gap.head, SystemTime::now())), ctx);
            }
            Err(gap) => self.prev_seq = gap.head,
        }
    }
}

impl StreamHandler<Order> for Viewer {
    fn handle(&mut self, order: Order, ctx: &mut Ctx) {
        if order.ping > self.pinged {
            self.pinged = order.ping;
            self.record.pulse.lock().taken(order.ping);
            ctx.ping(&order.ping.to_be_bytes());
        }
        match order.close {
            None => {}
            Some(Close::Away) => self.end(CloseCode::Away, "the daemon ends", ctx),
            Some(Close::TooSlow) => self.end(CloseCode::Again, "pings were not answered in time", ctx),
        }
    }
}
