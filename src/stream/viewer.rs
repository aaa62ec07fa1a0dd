//! The actor of one viewer.

use std::{
    cell::Cell,
    future::poll_fn,
    ops::ControlFlow,
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use actix::{Actor, ActorContext, ActorFutureExt as _, AsyncContext, SpawnHandle, StreamHandler, WrapFuture};
use actix_web::web::Bytes;
use actix_web_actors::ws::{self, CloseCode, CloseReason, Message, ProtocolError};
use futures_util::stream;

use super::{
    body::Outbox,
    bounded::Exceeded,
    frame::{self, Frame, Opcode},
    hub::{Close, Hub, Order, Record},
    protocol::{self, Objection, Said, Topic},
    story::Story,
};
use crate::{control_plane::Key, events::Subscription, model::Seq};

/// The feed has something that was not told.
pub(super) struct News;

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
    /// What it was let in with; `None` where nobody is asked for a token.
    key: Option<Arc<Key>>,
    exceeded: Exceeded,
    story: Story,
    feed: Subscription,
    /// There was no room to tell all that the feed had.
    more: Rc<Cell<bool>>,
    performance_timer: Option<SpawnHandle>,
    status_pace: Pace,
    performance_pace: Pace,
    pinged: u64,
    outbox: Outbox,
}

/// What a client is told whose story can't go on by a fault of ours.
pub(super) fn our_fault() -> Bytes {
    frame::close(CloseCode::Error.into(), "the daemon met a fault of its own")
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
        if let Some(key) = self.key.clone() {
            let ended = async move { key.ended().await };
            let end =
                |(), act: &mut Self, ctx: &mut Ctx| act.end(CloseCode::Policy, "its token is no longer good", ctx);
            ctx.spawn(ended.into_actor(self).map(end));
        }
        let news = (self.hub.feed().subscribe(Seq(0)), Rc::clone(&self.more));
        ctx.add_stream(stream::unfold(news, |(mut feed, more)| async move {
            {
                let mut changed = pin!(feed.changed());
                poll_fn(|cx| if more.take() { Poll::Ready(()) } else { changed.as_mut().poll(cx) }).await;
            }
            Some((News, (feed, more)))
        }));
        // The cursor is set before the document is taken: what changes in between comes twice rather than not at all.
        let head = self.hub.feed().head();
        self.story.resume(head);
        self.feed = self.hub.feed().subscribe(head);
        let established = self.story.established();
        self.send(established, ctx);
        self.send_status(ctx);
        self.tell(ctx);
    }

    fn stopped(&mut self, _ctx: &mut Ctx) {
        self.hub.leave(self.id, Instant::now());
    }
}

impl Viewer {
    pub(super) fn new(hub: Hub, id: u64, record: Arc<Record>, key: Option<Arc<Key>>, exceeded: Exceeded) -> Self {
        let limits = *hub.limits();
        Self {
            story: Story::new(hub.clone(), id, Seq(0)),
            feed: hub.feed().subscribe(Seq(0)),
            more: Rc::default(),
            hub,
            id,
            record,
            key,
            exceeded,
            performance_timer: None,
            status_pace: Pace::new(limits.status_interval),
            performance_pace: Pace::new(limits.performance_interval),
            pinged: 0,
            outbox: Outbox::default(),
        }
    }

    /// Where it puts what it makes, for the body that carries it.
    pub(super) fn outbox(&self) -> Outbox {
        Rc::clone(&self.outbox)
    }

    /// Tells what the feed has, a batch of it at most.
    fn tell(&mut self, ctx: &mut Ctx) {
        let full = {
            let mut outbox = self.outbox.borrow_mut();
            outbox.is_full()
                || self.story.tell(&mut self.feed, |_, frame| {
                    outbox.push_message(frame);
                    if outbox.is_full() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                }) == ControlFlow::Break(())
        };
        if full {
            self.more.set(true);
            self.pause(ctx);
        }
    }

    /// Makes nothing more before what is made is handed over: a socket that takes nothing holds one batch and no more.
    fn pause(&mut self, ctx: &mut Ctx) {
        let outbox = self.outbox();
        // The body asks its actor again as soon as it has handed over all, so that nobody has to be woken.
        let handed_over = poll_fn(move |_| if outbox.borrow().is_empty() { Poll::Ready(()) } else { Poll::Pending });
        ctx.wait(handed_over.into_actor(self));
    }

    fn send(&mut self, frame: Frame, ctx: &mut Ctx) {
        self.outbox.borrow_mut().push_message(frame);
        if self.outbox.borrow().is_full() {
            self.pause(ctx);
        }
    }

    /// Puts a message out that is no frame.
    fn post(&mut self, message: Bytes) {
        self.outbox.borrow_mut().push(message);
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
                    Ok(Some(after)) => self.feed = self.hub.feed().subscribe(after),
                    Ok(None) => {}
                }
                self.acknowledge(ctx);
                self.tell(ctx);
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
        self.post(frame::close(code.into(), why));
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
            Ok(Message::Ping(payload)) => self.post(frame::control(Opcode::Pong, &payload)),
            Ok(Message::Pong(payload)) => {
                if let Ok(number) = <[u8; 8]>::try_from(&*payload) {
                    self.record.pulse.lock().ponged(u64::from_be_bytes(number));
                }
            }
            Ok(Message::Close(reason)) => {
                let goodbye = match reason {
                    Some(CloseReason { code, description }) => {
                        frame::close(code.into(), &description.unwrap_or_default())
                    }
                    None => frame::control(Opcode::Close, &[]),
                };
                self.post(goodbye);
                ctx.stop();
            }
            Ok(Message::Nop) => {}
            Err(ProtocolError::Overflow) => self.end(CloseCode::Size, "message too big", ctx),
            Err(ProtocolError::Io(_)) if self.exceeded.get() => self.end(CloseCode::Size, "message too big", ctx),
            // The decoder reports text that is not UTF-8 and a broken connection alike; on the latter nobody reads the code.
            Err(ProtocolError::Io(_)) => self.end(CloseCode::Invalid, "text is not UTF-8", ctx),
            Err(error) => self.end(CloseCode::Protocol, &error.to_string(), ctx),
        }
    }
}

impl StreamHandler<News> for Viewer {
    fn handle(&mut self, _: News, ctx: &mut Ctx) {
        self.tell(ctx);
    }
}

impl StreamHandler<Order> for Viewer {
    fn handle(&mut self, order: Order, ctx: &mut Ctx) {
        if order.ping > self.pinged {
            self.pinged = order.ping;
            self.record.pulse.lock().taken(order.ping);
            self.post(frame::control(Opcode::Ping, &order.ping.to_be_bytes()));
        }
        match order.close {
            None => {}
            Some(Close::Away) => self.end(CloseCode::Away, "the daemon ends", ctx),
            Some(Close::TooSlow) => self.end(CloseCode::Again, "pings were not answered in time", ctx),
        }
    }
}
