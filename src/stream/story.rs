//! What one viewer is told, by whatever protocol: its topics, its filter and its chain of numbers.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Instant, SystemTime},
};

use uuid::Uuid;

use super::{
    hub::Hub,
    lens::Lens,
    protocol::{self, Filter, Head, Objection, Push, Topic},
};
use crate::{
    events::Gap,
    model::{Event, Seq},
};

/// One viewer's part of what happens. It makes the frames in the order in which they are to be sent.
pub(super) struct Story {
    hub: Hub,
    topics: BTreeSet<Topic>,
    lens: Arc<Lens>,
    /// The number of the last frame that was made.
    prev_seq: Seq,
}

impl Story {
    /// Begins behind an event.
    pub(super) fn new(hub: Hub, after: Seq) -> Self {
        let lens = hub.lens(None);
        Self { hub, topics: BTreeSet::from([Topic::Status, Topic::Sessions]), lens, prev_seq: after }
    }

    /// The number of the last frame.
    pub(super) fn seq(&self) -> Seq {
        self.prev_seq
    }

    /// The next frame follows on what the client has seen, wherever we were.
    pub(super) fn resume(&mut self, after: Seq) {
        self.prev_seq = after;
    }

    pub(super) fn topics(&self) -> &BTreeSet<Topic> {
        &self.topics
    }

    pub(super) fn topics_mut(&mut self) -> &mut BTreeSet<Topic> {
        &mut self.topics
    }

    pub(super) fn filter(&mut self, only: Filter) {
        self.lens = self.hub.lens(only);
    }

    /// Does as a client asks that subscribes. Returns where the feed is to be read from, if elsewhere. A filter that is none changes nothing.
    pub(super) fn subscribe(
        &mut self,
        topics: BTreeSet<Topic>,
        swarms: Option<&[String]>,
        after: Option<u64>,
    ) -> Result<Option<Seq>, Objection> {
        if let Some(names) = swarms {
            self.filter(protocol::filter(names)?);
        }
        self.topics.extend(topics);
        let after = after.map(Seq);
        if let Some(after) = after {
            self.resume(after);
        }
        Ok(after)
    }

    /// The first frame.
    pub(super) fn established(&mut self) -> String {
        let interval_ms = u64::try_from(self.hub.limits().ping_interval.as_millis()).unwrap_or(u64::MAX);
        self.now("connection_established", &protocol::established_tail(&Uuid::now_v7().to_string(), interval_ms))
    }

    /// The whole document as it is now.
    pub(super) fn status(&mut self) -> String {
        self.status_at(None)
    }

    pub(super) fn performance(&mut self, now: Instant) -> String {
        let tail = protocol::performance_tail(&self.hub.health().hive(), self.hub.performance(now));
        self.now("performance_update", &tail)
    }

    pub(super) fn acknowledgement(&mut self) -> String {
        let tail = protocol::ack_tail(&self.topics, self.lens.only());
        self.now("subscription_ack", &tail)
    }

    pub(super) fn objection(&mut self, objection: &Objection) -> String {
        self.now("error", &protocol::error_tail(objection))
    }

    pub(super) fn pong(&mut self) -> String {
        self.now("pong", "{}")
    }

    /// What an event means for the viewer; `None` is nothing.
    pub(super) fn event(&mut self, event: &Event) -> Option<String> {
        let at = Some((event.seq, event.at));
        let (parts, alike) = match protocol::push(event, &self.topics, self.lens.only()) {
            Push::Nothing => return None,
            Push::Status => return Some(self.status_at(at)),
            Push::Sessions(parts) => (parts, true),
            Push::Filtered(parts) => (parts, false),
        };
        let head = self.head(at);
        self.hub.note_latency(event.at, head.sent_at, Instant::now());
        if !alike {
            return Some(protocol::frame("session_update", head, &self.lens.samples(event.seq, &parts)));
        }
        Some(self.hub.shared_frame(head, || {
            let tail = self.hub.shared_tail(event.seq, || protocol::sessions_tail(&parts));
            protocol::frame("session_update", head, &tail)
        }))
    }

    /// What is gone is made up for by one whole document; it holds everything up to the head that the gap names.
    pub(super) fn gap(&mut self, gap: &Gap) -> Option<String> {
        if self.topics.contains(&Topic::Status) || self.topics.contains(&Topic::Sessions) {
            return Some(self.status_at(Some((gap.head, SystemTime::now()))));
        }
        // Of that it is told nothing, so its next frame follows on its last one.
        None
    }

    fn status_at(&mut self, event: Option<(Seq, SystemTime)>) -> String {
        let tail = self.lens.status(self.hub.health().hive());
        self.frame("status_update", event, &tail)
    }

    /// A frame that tells of now and moves no number.
    fn now(&mut self, kind: &str, tail: &str) -> String {
        self.frame(kind, None, tail)
    }

    fn frame(&mut self, kind: &str, event: Option<(Seq, SystemTime)>, tail: &str) -> String {
        protocol::frame(kind, self.head(event), tail)
    }

    /// The next frame's head. `event` is the number and the time of what it tells.
    fn head(&mut self, event: Option<(Seq, SystemTime)>) -> Head {
        let sent_at = SystemTime::now();
        let (seq, observed_at) = event.unwrap_or((self.prev_seq, sent_at));
        let head = Head { epoch: self.hub.epoch(), seq, prev_seq: self.prev_seq, observed_at, sent_at };
        self.prev_seq = seq;
        self.hub.count_frame();
        head
    }
}
