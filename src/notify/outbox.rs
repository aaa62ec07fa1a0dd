//! What waits to be told, how much of it may be told now, and when it is tried again. Pure: time and chance come as arguments.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    message::{Held, Message, Speaker},
    sighting::{Subject, Trouble},
};
use crate::model::Seq;

/// The wait before the second attempt; each later one is twice as long.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// The longest wait: a receiver that comes back is found within a minute.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// The longest wait that a receiver may ask for.
const ASKED_MAX: Duration = Duration::from_secs(5 * 60);
/// Waits are spread by this share, so that the daemons of many hosts don't come back all at once.
const JITTER: f64 = 0.25;

/// What is to be done next.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Try this one; then say how it went.
    Send(Arc<Message>),
    /// Nothing before then, unless a message comes.
    Wait(Instant),
    /// Nothing waits.
    Nothing,
}

/// How an attempt went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) why: String,
    /// The receiver wants this message never: another attempt would end alike.
    pub(super) refused: bool,
    /// When it wants to be asked again.
    pub(super) retry_after: Option<Duration>,
}

impl Failure {
    pub(super) fn of(why: impl Into<String>) -> Self {
        Self { why: why.into(), refused: false, retry_after: None }
    }
}

/// Numbers since this daemon started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    pub(super) delivered: u64,
    pub(super) summed_up: u64,
    pub(super) lost: u64,
    pub(super) failed_attempts: u64,
}

#[derive(Debug)]
struct Head {
    message: Arc<Message>,
    /// What it is a summary of.
    summary: Option<Held>,
    offered: Instant,
    attempts: u32,
    retry_at: Instant,
}

/// The queue of one notifier, bounded by what may be told in a minute; what does not fit is summed up.
#[derive(Debug)]
pub(super) struct Outbox {
    per_minute: u32,
    retry_for: Duration,
    head: Option<Head>,
    queue: VecDeque<(Instant, Message)>,
    held: Held,
    /// The last of those in `held`, while it is the only one: it is then told as it is.
    alone: Option<(Instant, Message)>,
    tokens: f64,
    filled: Instant,
    pub(super) counts: Counts,
}

impl Outbox {
    pub(super) fn new(per_minute: u32, retry_for: Duration, now: Instant) -> Self {
        Self {
            per_minute,
            retry_for,
            head: None,
            queue: VecDeque::new(),
            held: Held::default(),
            alone: None,
            tokens: f64::from(per_minute),
            filled: now,
            counts: Counts::default(),
        }
    }

    /// Takes a message in.
    pub(super) fn offer(&mut self, message: Message, now: Instant) {
        if self.held.messages == 0 && self.queue.len() < self.per_minute as usize {
            self.queue.push_back((now, message));
        } else {
            self.hold(now, message);
        }
    }

    /// What is to be done now. A message stays until [`Outbox::delivered`] or [`Outbox::failed`] is told of it.
    pub(super) fn next(&mut self, now: Instant, speaker: &Speaker) -> Next {
        if let Some(head) = &self.head {
            return if head.retry_at <= now {
                Next::Send(Arc::clone(&head.message))
            } else {
                Next::Wait(head.retry_at)
            };
        }
        if self.queue.is_empty() && self.held.messages == 0 {
            return Next::Nothing;
        }
        self.fill(now);
        if self.tokens < 1.0 {
            if self.queue.len() as u64 + self.held.messages > 1 {
                self.hold_all();
            }
            let missing = (1.0 - self.tokens) / self.per_second();
            // Rounded up, or the wait would end just before there is a whole one.
            return Next::Wait(now + Duration::from_secs_f64(missing) + Duration::from_millis(1));
        }
        self.tokens -= 1.0;
        let head = self.take(now, speaker);
        let message = Arc::clone(&head.message);
        self.head = Some(head);
        Next::Send(message)
    }

    /// The message that was sent has arrived; what the receiver knows with it.
    pub(super) fn delivered(&mut self) -> Vec<(Subject, Option<Trouble>)> {
        let Some(head) = self.head.take() else { return Vec::new() };
        self.counts.delivered += 1;
        head.message.tells.clone()
    }

    /// It has not. It is tried again, or, once that has taken too long, summed up with what follows. What the receiver refuses is let go: then
    /// this is what it will not be told.
    #[must_use]
    pub(super) fn failed(&mut self, failure: &Failure, now: Instant, chance: f64) -> Vec<(Subject, Option<Trouble>)> {
        self.counts.failed_attempts += 1;
        let Some(head) = &mut self.head else { return Vec::new() };
        head.attempts += 1;
        let given_up = now.saturating_duration_since(head.offered) >= self.retry_for;
        if !failure.refused && !given_up {
            let doubled = RETRY_FIRST.saturating_mul(1 << head.attempts.saturating_sub(1).min(10)).min(RETRY_MAX);
            let spread = doubled.mul_f64(1.0 + JITTER * (2.0 * chance - 1.0));
            head.retry_at = now + spread.max(failure.retry_after.unwrap_or_default().min(ASKED_MAX));
            return Vec::new();
        }
        let Some(head) = self.head.take() else { return Vec::new() };
        if failure.refused {
            self.counts.lost += head.message.stands_for;
            return head.message.tells.clone();
        }
        self.hold_head(head, now);
        Vec::new()
    }

    /// Up to which event everything has been told, where `processed` is the last that was looked at.
    pub(super) fn told_upto(&self, processed: Seq) -> Seq {
        let head = self.head.as_ref().map(|head| head.message.seq);
        let queued = self.queue.iter().map(|(_, message)| message.seq);
        let first = head.into_iter().chain(queued).chain(self.held.first).min();
        first.map_or(processed, |first| processed.min(Seq(first.0.saturating_sub(1))))
    }

    /// Messages that wait.
    pub(super) fn waiting(&self) -> u64 {
        self.head.as_ref().map_or(0, |head| head.message.stands_for) + self.queue.len() as u64 + self.held.messages
    }

    fn take(&mut self, now: Instant, speaker: &Speaker) -> Head {
        let fresh = |message: Message, summary, offered| Head {
            message: Arc::new(message),
            summary,
            offered,
            attempts: 0,
            retry_at: now,
        };
        if let Some((offered, message)) = self.queue.pop_front() {
            return fresh(message, None, offered);
        }
        let held = std::mem::take(&mut self.held);
        match self.alone.take() {
            Some((offered, message)) => fresh(message, None, offered),
            None => {
                self.counts.summed_up += held.messages;
                fresh(speaker.sum_up(held.clone()), Some(held), now)
            }
        }
    }

    fn hold(&mut self, offered: Instant, message: Message) {
        self.held.add(&message);
        self.alone = (self.held.messages == 1).then_some((offered, message));
    }

    /// Sums up whatever waits, in its order.
    fn hold_all(&mut self) {
        let younger = std::mem::take(&mut self.held);
        let alone = self.alone.take();
        for (offered, message) in std::mem::take(&mut self.queue) {
            self.hold(offered, message);
        }
        if self.held.messages == 0 {
            self.alone = alone;
        } else if younger.messages > 0 {
            self.alone = None;
        }
        self.held.append(younger);
    }

    /// What could not be told in time goes before all that waits.
    fn hold_head(&mut self, head: Head, now: Instant) {
        self.hold_all();
        let younger = std::mem::take(&mut self.held);
        let alone = younger.messages == 0 && head.summary.is_none();
        match head.summary {
            Some(held) => {
                self.counts.summed_up -= held.messages;
                self.held = held;
            }
            None => self.held.add(&head.message),
        }
        self.held.append(younger);
        // Tried as it is, with a fresh deadline, where there is nothing to sum it up with.
        self.alone = alone.then(|| (now, (*head.message).clone()));
    }

    fn per_second(&self) -> f64 {
        f64::from(self.per_minute) / 60.0
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.filled = self.filled.max(now);
        self.tokens = (self.tokens + passed * self.per_second()).min(f64::from(self.per_minute));
    }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
