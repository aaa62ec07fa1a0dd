//! The actor of one viewer.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use actix::{Actor, ActorContext, AsyncContext, SpawnHandle, StreamHandler, WrapFuture};
use actix_web_actors::ws::{self, CloseCode, CloseReason, Message, ProtocolError};
use futures_util::stream;

use super::{
    body::Aside,
    frame::Frame,
    hub::{Close, Hub, Order, Record},
    limits::BATCH_BYTES,
    protocol::{self, Objection, Said, Topic},
    story::Story,
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
    story: Story,
    reading: u64,
    feed: Option<SpawnHandle>,
    performance_timer: Option<SpawnHandle>,
    status_pace: Pace,
    performance_pace: Pace,
    pinged: u64,
    /// Bytes of frames since others were last let in between.
    batch: usize,
    /// Long frames, which the context would copy.
    aside: Aside,
}

/// What a client is told whose story can't go on by a fault of ours, as RFC 6455, section 5.5.1, has it: from a server, so without a mask.
pub(super) fn our_fault() -> Vec<u8> {
    const WHOLE_CLOSE: u8 = 0x88;
    let why = b"the daemon met a fault of its own";
    let code = u16::from(CloseCode::Error).to_be_bytes();
    let mut frame = vec![WHOLE_CLOSE];
    frame.extend(u8::try_from(code.len() + why.len()));
    frame.extend(code);
    frame.extend(why);
    frame
}

type Ctx = ws::WebsocketContext<Viewer>;

impl Actor for Viewer {
    type Context = Ctx;

    fn started(&mut self, ctx: &mut Ctx) {
        let orders = stream::unfold(self.record.orders(), |mut orders| async move {
            orders.changed().await.ok()?;
            let order = *orders.borrow_and_update();
            Some((order, orders))
        });
        ctx.add_stream(orders);
        // The cursor is set before the document is taken: what changes in between comes twice rather than not at all.
        let head = self.hub.feed().head();
        self.story.resume(head);
        self.read_from(head, ctx);
        let established = self.story.established();
        self.send(established, ctx);
        self.send_status(ctx);
    }

    fn stopped(&mut self, _ctx: &mut Ctx) {
        self.hub.leave(self.id, Instant::now());
    }
}

impl Viewer {
    pub(super) fn new(hub: Hub, id: u64, record: Arc<Record>) -> Self {
        let limits = *hub.limits();
        Self {
            story: Story::new(hub.clone(), Seq(0)),
            hub,
            id,
            record,
            reading: 0,
            feed: None,
            performance_timer: None,
            status_pace: Pace::new(limits.status_interval),
            performance_pace: Pace::new(limits.performance_interval),
            pinged: 0,
            batch: 0,
            aside: Aside::default(),
        }
    }

    /// Where it puts long frames, for the body that carries them.
    pub(super) fn aside(&self) -> Aside {
        Aside::clone(&self.aside)
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

    fn send(&mut self, frame: Frame, ctx: &mut Ctx) {
        self.batch += frame.len();
        match frame.into_parts() {
            (text, None) => ctx.text(text),
            // As long as a batch, so nothing is made behind it in this poll.
            (own, Some(shared)) => self.aside.borrow_mut().push_message(own, shared),
        }
        if self.batch >= BATCH_BYTES {
            // What is made is written before more is made: a socket that takes nothing holds one batch and no more.
            self.batch = 0;
            ctx.wait(tokio::task::yield_now().into_actor(self));
        }
    }

    fn send_status(&mut self, ctx: &mut Ctx) {
        self.status_pace.answered(Instant::now());
        let status = self.story.status();
        self.send(status, ctx);
    }

    fn send_performance(&mut self, ctx: &mut Ctx) {
        let now = Instant::now();
        self.performance_pace.answered(now);
        let performance = self.story.performance(now);
        self.send(performance, ctx);
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

    fn object(&mut self, objection: &Objection, ctx: &mut Ctx) {
        let error = self.story.objection(objection);
        self.send(error, ctx);
    }

    fn said(&mut self, text: &str, ctx: &mut Ctx) {
        let said = match protocol::parse(text) {
            Ok(said) => said,
            Err(objection) => return self.object(&objection, ctx),
        };
        match said {
            Said::Ping {} => {
                let pong = self.story.pong();
                self.send(pong, ctx);
            }
            Said::RequestStatus {} => match self.status_pace.ask(Instant::now()) {
                None => {}
                Some(Duration::ZERO) => self.send_status(ctx),
                Some(wait) => {
                    ctx.run_later(wait, |act, ctx| act.send_status(ctx));
                }
            },
            Said::RequestPerformance {} => self.ask_performance(ctx),
            Said::Unsubscribe { subscriptions } => {
                self.story.topics_mut().retain(|topic| !subscriptions.contains(topic));
                self.acknowledge(ctx);
            }
            Said::Subscribe { subscriptions, swarms, after } => {
                match self.story.subscribe(subscriptions, swarms.as_deref(), after) {
                    Err(objection) => return self.object(&objection, ctx),
                    Ok(Some(after)) => self.read_from(after, ctx),
                    Ok(None) => {}
                }
                self.acknowledge(ctx);
            }
        }
    }

    fn acknowledge(&mut self, ctx: &mut Ctx) {
        let acknowledgement = self.story.acknowledgement();
        self.send(acknowledgement, ctx);
        match (self.story.topics().contains(&Topic::Performance), self.performance_timer) {
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
            Ok(Message::Binary(_)) => {
                let message = "binary messages are not read".to_owned();
                self.object(&Objection { code: "unsupported_frame", message }, ctx);
            }
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
        let frame = match fed.item {
            Ok(event) => self.story.event(&event),
            Err(gap) => self.story.gap(&gap),
        };
        if let Some(frame) = frame {
            self.send(frame, ctx);
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
