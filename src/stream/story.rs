//! What one viewer is told, by whatever protocol: its topics, its filter and its chain of numbers.

use std::{
    collections::BTreeSet,
    ops::ControlFlow,
    sync::Arc,
    time::{Instant, SystemTime},
};

use uuid::Uuid;

use super::{
    frame::Frame,
    hub::{Hub, Told},
    lens::Lens,
    protocol::{self, Filter, Head, Objection, Push, Topic},
};
use crate::{
    events::{Gap, Subscription},
    model::{Event, Seq},
};

/// One viewer's part of what happens. It makes the frames in the order in which they are to be sent.
pub(super) struct Story {
    hub: Hub,
    viewer: u64,
    topics: BTreeSet<Topic>,
    lens: Arc<Lens>,
    /// The number of the last frame that was made.
    prev_seq: Seq,
}

impl Story {
    /// Begins behind an event.
    pub(super) fn new(hub: Hub, viewer: u64, after: Seq) -> Self {
        let lens = hub.lens(None);
        Self { hub, viewer, topics: BTreeSet::from([Topic::Status, Topic::Sessions]), lens, prev_seq: after }
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
    pub(super) fn established(&mut self) -> Frame {
        let interval_ms = u64::try_from(self.hub.limits().ping_interval.as_millis()).unwrap_or(u64::MAX);
        self.now("connection_established", &protocol::established_tail(&Uuid::now_v7().to_string(), interval_ms))
    }

    /// The whole document as it is now.
    pub(super) fn status(&mut self) -> Frame {
        self.status_at(None)
    }

    pub(super) fn performance(&mut self, now: Instant) -> Frame {
        let tail = protocol::performance_tail(&self.hub.health().hive(), self.hub.performance(now));
        self.now("performance_update", &tail)
    }

    pub(super) fn acknowledgement(&mut self) -> Frame {
        let tail = protocol::ack_tail(&self.topics, self.lens.only());
        self.now("subscription_ack", &tail)
    }

    pub(super) fn objection(&mut self, objection: &Objection) -> Frame {
        self.now("error", &protocol::error_tail(objection))
    }

    pub(super) fn pong(&mut self) -> Frame {
        self.now("pong", "{}")
    }

    /// Tells what the feed has, each frame with its number, until whoever takes them has enough (`Break`) or nothing more is there (`Continue`).
    pub(super) fn tell(
        &mut self,
        feed: &mut Subscription,
        mut put: impl FnMut(Seq, Frame) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut told = Told::default();
        // One moment for all that was there by then: they are made within microseconds, and sent together.
        let (mut sent_at, now) = (SystemTime::now(), Instant::now());
        let enough = loop {
            let frame = match feed.try_next() {
                Ok(None) => break ControlFlow::Continue(()),
                Ok(Some(event)) => {
                    if event.at > sent_at {
                        sent_at = SystemTime::now();
                    }
                    self.event(&event, sent_at, &mut told)
                }
                Err(gap) => self.gap(&gap),
            };
            if let Some(frame) = frame
                && put(self.prev_seq, frame).is_break()
            {
                break ControlFlow::Break(());
            }
        };
        self.hub.note(told, now);
        enough
    }

    /// What an event means for the viewer; `None` is nothing.
    fn event(&mut self, event: &Event, sent_at: SystemTime, told: &mut Told) -> Option<Frame> {
        let at = Some((event.seq, event.at));
        let (parts, alike) = match protocol::push(event, &self.topics, self.lens.only()) {
            Push::Nothing => return None,
            Push::Status => return Some(self.status_at(at)),
            Push::Sessions(parts) => (parts, true),
            Push::Filtered(parts) => (parts, false),
        };
        let head = self.head(at, sent_at);
        // A clock that went back shows as no time at all.
        let took = sent_at.duration_since(event.at).unwrap_or_default();
        told.frames += 1;
        told.took += took;
        told.longest = told.longest.max(took);
        if !alike {
            let tail = self.lens.samples(event.seq, &parts);
            return Some(protocol::frame("session_update", head, tail, |tail| self.hub.lend(self.viewer, tail)));
        }
        Some(self.hub.shared_frame(&head, || {
            let tail = self.hub.shared_tail(event.seq, || protocol::sessions_tail(&parts));
            protocol::frame("session_update", head, tail, |tail| self.hub.lend(self.viewer, tail))
        }))
    }

    /// What is gone is made up for by one whole document; it holds everything up to the head that the gap names.
    fn gap(&mut self, gap: &Gap) -> Option<Frame> {
        if self.topics.contains(&Topic::Status) || self.topics.contains(&Topic::Sessions) {
            return Some(self.status_at(Some((gap.head, SystemTime::now()))));
        }
        // Of that it is told nothing, so its next frame follows on its last one.
        None
    }

    fn status_at(&mut self, event: Option<(Seq, SystemTime)>) -> Frame {
        let tail = self.lens.status(self.hub.health().hive());
        self.hub.count_frame();
        let head = self.head(event, SystemTime::now());
        protocol::frame("status_update", head, tail, |tail| self.hub.lend(self.viewer, tail))
    }

    /// A frame that tells of now and moves no number.
    fn now(&mut self, kind: &str, tail: &str) -> Frame {
        self.hub.count_frame();
        protocol::text(kind, self.head(None, SystemTime::now()), tail).into()
    }

    /// The next frame's head. `event` is the number and the time of what it tells.
    fn head(&mut self, event: Option<(Seq, SystemTime)>, sent_at: SystemTime) -> Head {
        let (seq, observed_at) = event.unwrap_or((self.prev_seq, sent_at));
        let head = Head { epoch: self.hub.epoch(), seq, prev_seq: self.prev_seq, observed_at, sent_at };
        self.prev_seq = seq;
        head
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::Duration;

    use serde_json::Value;

    use super::*;
    use crate::{
        events::Feed,
        health::{Handle, Identity, Options},
        model::{Epoch, EventKind, HiveId},
        stream::StreamLimits,
    };

    fn hub() -> Hub {
        let feed = Feed::new(Epoch(3), Seq(101));
        let identity =
            Identity { hive: HiveId(Uuid::nil()), name: "home".to_owned(), sample_interval: Duration::from_secs(2) };
        let health = Handle::new(Options { identity, feed: feed.clone(), on_stuck: Arc::new(|_, _| {}) });
        Hub::new(StreamLimits::default(), feed, health)
    }

    fn numbers(frame: Frame) -> (u64, u64) {
        let frame: Value = serde_json::from_str(&frame.into_text()).unwrap();
        (frame["prev_seq"].as_u64().unwrap(), frame["seq"].as_u64().unwrap())
    }

    fn removed(seq: u64, at: SystemTime) -> Event {
        let agent = "review/coder".parse().unwrap();
        Event { seq: Seq(seq), epoch: Epoch(3), at, kind: EventKind::AgentRemoved { agent } }
    }

    fn event_of(story: &mut Story, event: &Event) -> Frame {
        story.event(event, SystemTime::now(), &mut Told::default()).unwrap()
    }

    #[test]
    fn what_is_told_stops_where_there_is_no_room_and_goes_on_there() {
        let hub = hub();
        let (mut story, mut feed) = (Story::new(hub.clone(), 1, Seq(100)), hub.feed().subscribe(Seq(100)));
        let agent: crate::model::AgentId = "review/coder".parse().unwrap();
        for _ in 0..5 {
            hub.feed().publish(SystemTime::now(), EventKind::AgentRemoved { agent: agent.clone() });
        }
        let mut told = Vec::new();
        for (room, stopped) in [(2, true), (3, true), (9, false)] {
            let mut left = room;
            let enough = story.tell(&mut feed, |seq, frame| {
                told.push((seq, numbers(frame)));
                left -= 1;
                if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            assert_eq!(enough.is_break(), stopped, "room for {room}");
        }
        assert_eq!(told, [101, 102, 103, 104, 105].map(|seq| (Seq(seq), (seq - 1, seq))));
    }

    #[test]
    fn a_gap_is_made_up_for_where_anything_of_it_was_wanted() {
        let gap = Gap { after: Seq(7), first_kept: Seq(50), head: Seq(90) };
        for (topics, told) in [
            (vec![Topic::Status], true),
            (vec![Topic::Sessions], true),
            (vec![Topic::Performance], false),
            (vec![], false),
        ] {
            let mut story = Story::new(hub(), 1, Seq(7));
            *story.topics_mut() = topics.iter().copied().collect();
            let frame = story.gap(&gap);
            assert_eq!(frame.map(numbers), told.then_some((7, 90)), "{topics:?}");
            assert_eq!(story.seq(), Seq(if told { 90 } else { 7 }), "{topics:?}");
        }
    }

    #[test]
    fn those_who_come_from_different_frames_are_sent_one_event_each_behind_its_own() {
        let (hub, event) = (hub(), removed(20, SystemTime::now()));
        let frames = [7, 19, 7].map(|after| event_of(&mut Story::new(hub.clone(), 1, Seq(after)), &event));
        assert_eq!(frames.map(numbers), [(7, 20), (19, 20), (7, 20)]);
    }

    #[test]
    fn frames_are_counted_and_those_of_events_are_timed() {
        let hub = hub();
        let mut story = Story::new(hub.clone(), 1, Seq(7));
        story.pong();
        assert_eq!((hub.stats().frames, hub.stats().timed), (1, 0));
        let mut feed = hub.feed().subscribe(hub.feed().head());
        let agent: crate::model::AgentId = "review/coder".parse().unwrap();
        for at in [SystemTime::now() - Duration::from_secs(5), SystemTime::now()] {
            hub.feed().publish(at, EventKind::AgentRemoved { agent: agent.clone() });
        }
        assert_eq!(story.tell(&mut feed, |_, _| ControlFlow::Continue(())), ControlFlow::Continue(()));
        let stats = hub.stats();
        assert_eq!((stats.frames, stats.timed), (3, 2));
        assert!(stats.push_time >= Duration::from_secs(5), "{stats:?}");
        let shown = hub.performance(Instant::now() + Duration::from_secs(1)).push_latency_ms;
        assert!(shown.is_some_and(|(mean, longest)| longest >= 5_000.0 && mean < longest), "{shown:?}");
    }
}
