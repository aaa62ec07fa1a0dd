//! A viewer without a socket, for the simulation: what [`viewer`](super::viewer) does between a message of its client and a frame.

use std::{ops::ControlFlow, time::Instant};

use super::{
    hub::Hub,
    protocol::{self, Said},
    pulse::{Pulse, Verdict},
    story::Story,
};
use crate::{
    events::{Feed, Subscription},
    health,
};

/// Our end of one viewer.
pub(crate) struct Viewer {
    hub: Hub,
    story: Story,
    feed: Subscription,
    pulse: Pulse,
}

/// What the judge says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judged {
    Nothing,
    Ping(u64),
    Dropped,
}

/// The viewers' hub.
pub(crate) fn hub(feed: Feed, health: health::Handle) -> Hub {
    Hub::new(super::StreamLimits::default(), feed, health)
}

impl Viewer {
    /// A viewer that has just connected, and its first frames.
    pub(crate) fn new(hub: &Hub, now: Instant) -> (Self, Vec<String>) {
        let mut story = Story::new(hub.clone(), 0, hub.feed().head());
        let frames = vec![story.established().into_text(), story.status().into_text()];
        let feed = hub.feed().subscribe(story.seq());
        let limits = hub.limits();
        let pulse = Pulse::new(limits.ping_interval, limits.answer_within, now);
        // The cursor is where the story begins; nothing is published in between here.
        (Self { hub: hub.clone(), story, feed, pulse }, frames)
    }

    /// Its client says something; returns the answers.
    pub(crate) fn said(&mut self, text: &str) -> Vec<String> {
        let said = match protocol::parse(text) {
            Ok(said) => said,
            Err(objection) => return vec![self.story.objection(&objection).into_text()],
        };
        match said {
            Said::Ping {} => vec![self.story.pong().into_text()],
            Said::RequestStatus {} => vec![self.story.status().into_text()],
            Said::RequestPerformance {} => Vec::new(),
            Said::Unsubscribe { subscriptions } => {
                self.story.topics_mut().retain(|topic| !subscriptions.contains(topic));
                vec![self.story.acknowledgement().into_text()]
            }
            Said::Subscribe { subscriptions, swarms, after } => {
                match self.story.subscribe(subscriptions, swarms.as_deref(), after) {
                    Err(objection) => return vec![self.story.objection(&objection).into_text()],
                    Ok(Some(after)) => self.feed = self.hub.feed().subscribe(after),
                    Ok(None) => {}
                }
                vec![self.story.acknowledgement().into_text()]
            }
        }
    }

    /// The next frame that the feed brings.
    pub(crate) fn next(&mut self) -> Option<String> {
        let mut next = None;
        let _ = self.story.tell(&mut self.feed, |_, frame| {
            next = Some(frame.into_text());
            ControlFlow::Break(())
        });
        next
    }

    /// When it is judged next.
    pub(crate) fn deadline(&self) -> Instant {
        self.pulse.deadline()
    }

    pub(crate) fn judge(&mut self, now: Instant) -> Judged {
        match self.pulse.tick(now) {
            Verdict::Nothing => Judged::Nothing,
            Verdict::Ping(number) => Judged::Ping(number),
            Verdict::Drop(_) => Judged::Dropped,
        }
    }

    pub(crate) fn wrote_ping(&mut self, number: u64) {
        self.pulse.taken(number);
    }

    pub(crate) fn ponged(&mut self, number: u64, now: Instant) {
        self.pulse.heard(now);
        self.pulse.ponged(number);
    }
}
