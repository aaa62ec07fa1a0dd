//! The messages of all swarms: what was sent waits for its recipient until he has acknowledged it.
//!
//! Each recipient has a copy of his own, which belongs to his name: the next incarnation goes on where the last has stopped. A delivery is a lease with a
//! fencing token; what is not acknowledged under it in time is delivered again, and after [`DELIVERIES_MAX`] times becomes a dead letter. Who has sent
//! what is given up is told so by a message of the daemon, a notice. Notices have a bound of their own: they take nobody's place, and nobody is told of theirs.
//!
//! `letter` is what is sent and asked for, `shelf` the tables, `send` the way of a letter in, `delivery` its way out, `end` what becomes of it otherwise.
//! Time moves nothing by itself: [`Mail::tick`] does, when [`Mail::next_due`] says so, and whatever sends or receives does so first.

mod delivery;
mod end;
mod letter;
mod send;
mod shelf;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

pub use letter::{Letter, LetterKind, Sent, To, Wanted};
use shelf::Shelf;

use super::MessageCounts;
use crate::model::{AgentName, Message, MessageId, SwarmName};

/// Bytes of a body. Larger things belong into a file that the message names.
pub const BODY_MAX: usize = 64 * 1024;
/// Bytes of a topic, a filter or a key.
pub const TOPIC_MAX: usize = 128;
/// Filters of one request.
pub const FILTERS_MAX: usize = 64;
/// Messages of one recipient that are not acknowledged. Who is so far behind won't catch up by being sent more.
pub const QUEUE_MAX: usize = 1_000;
/// Bytes of them.
pub const QUEUE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Notices of one recipient.
pub const NOTICES_MAX: usize = 1_000;
/// Recipients in a swarm for whom something is there: so many that are clients, and as many agents beyond. Anybody may make up names of clients, and
/// those must not take an agent's place.
pub const RECIPIENTS_MAX: usize = 10_000;
/// Bytes of all queues of a swarm: full queues of all recipients together would be more than any machine has.
pub const SWARM_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Requests of a swarm that may still be answered.
pub const REQUESTS_MAX: usize = 10_000;
/// Dead letters of a swarm; the oldest go first.
pub const DEAD_MAX: usize = 1_000;
/// Bytes of them: as many as one queue's.
pub const DEAD_BYTES_MAX: usize = QUEUE_BYTES_MAX;
/// Ends of messages that a swarm remembers; the oldest go first.
pub const SETTLED_MAX: usize = 10_000;
/// How long they are remembered: longer than anybody repeats himself for want of an answer.
pub const SETTLED_KEPT: Duration = Duration::from_secs(600);
/// How long a notice waits to be taken. Nobody may ever come: clients have names of the moment.
pub const NOTICE_KEPT: Duration = Duration::from_secs(24 * 3600);
/// Deliveries of a message before it is given up: what kills everybody who takes it up must not go round for ever.
pub const DELIVERIES_MAX: u32 = 5;
/// Messages that one request may receive.
pub const RECEIVED_MAX: usize = 100;
/// Bytes of them, unless one alone has more: half of the longest line of the data plane.
pub const RECEIVED_BYTES_MAX: usize = 512 * 1024;
/// The longest time between two deliveries, and the longest pause that a recipient may ask for.
pub const REDELIVERY_MAX: Duration = Duration::from_secs(24 * 3600);
/// The longest time for an answer.
pub const REPLY_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Something that happened to a message.
#[derive(Debug, Clone)]
pub struct MailNews {
    /// What.
    pub turn: MailTurn,
    /// The copy after.
    pub message: Arc<Message>,
}

/// What can happen to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailTurn {
    /// It was sent, by a party, an operator or the daemon.
    Sent,
    /// It is on its way.
    Delivered,
    /// It was not acknowledged and waits again.
    Returned,
    /// Its recipient has acknowledged it.
    Acknowledged,
    /// A request was answered.
    Answered,
    /// A request was not answered in time.
    Unanswered,
    /// It was given up and is a dead letter.
    Died,
    /// A dead letter was put back.
    Redriven,
    /// A dead letter is no longer kept, or a notice had no room: nothing is left of it.
    Lost,
}

/// What has changed since the last [`Mail::drain`].
#[derive(Debug, Default)]
pub struct MailChanges {
    /// Copies to be written, each once, as they are now.
    pub put: Vec<Arc<Message>>,
    /// Copies to be removed.
    pub removed: Vec<(MessageId, AgentName)>,
    /// For whom something waits that did not wait before.
    pub arrived: BTreeSet<(SwarmName, AgentName)>,
    /// What happened, in order.
    pub news: Vec<MailNews>,
}

/// What one recipient has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InboxCounts {
    /// Waiting, those included that he has put off.
    pub waiting: usize,
    /// Delivered and not acknowledged.
    pub on_their_way: usize,
    /// Bytes of both, with what a message takes beside its text.
    pub bytes: usize,
    /// Dead letters.
    pub dead: usize,
    /// Given up for want of room since the daemon started.
    pub dropped: u64,
}

/// What one swarm has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SwarmCounts {
    /// Of each recipient for whom something is there.
    pub recipients: BTreeMap<AgentName, InboxCounts>,
    /// Requests that may still be answered.
    pub open_requests: usize,
    /// Dead letters that went because there were too many, since the daemon started.
    pub lost: u64,
}

/// The messages of all swarms.
#[derive(Debug, Default)]
pub struct Mail {
    shelf: Shelf,
}

impl Mail {
    /// The mail as it was written down. What was on its way has its full time anew from now, because nobody could acknowledge while no daemon ran.
    pub fn restore(messages: Vec<Message>, now: SystemTime) -> Self {
        let mut mail = Self::default();
        for mut message in messages {
            if let Some(delivery) = &mut message.delivery {
                delivery.until = now + delivery.redeliver_after;
            }
            mail.shelf.restore(message);
        }
        mail
    }

    /// The copies of one message that are known, also of one that is acknowledged.
    pub fn copies(&self, swarm: &SwarmName, id: MessageId) -> impl Iterator<Item = &Arc<Message>> {
        self.shelf.copies(id).filter(move |message| message.swarm == *swarm)
    }

    /// What is not acknowledged in a swarm, or for one recipient in it: by recipient, in the order of delivery.
    pub fn list(&self, swarm: &SwarmName, to: Option<&AgentName>) -> impl Iterator<Item = &Arc<Message>> {
        self.shelf.list(swarm, to)
    }

    /// The dead letters of a swarm, the oldest death first.
    pub fn dead(&self, swarm: &SwarmName) -> impl Iterator<Item = &Arc<Message>> {
        self.shelf.dead(swarm)
    }

    /// How much a swarm has of everything.
    pub fn counts(&self, swarm: &SwarmName) -> SwarmCounts {
        self.shelf.counts(swarm)
    }

    /// Swarms for which something is kept.
    pub fn swarms(&self) -> impl Iterator<Item = &SwarmName> {
        self.shelf.swarms()
    }

    /// How many messages each swarm has.
    pub fn totals(&self) -> impl Iterator<Item = (&SwarmName, MessageCounts)> {
        self.shelf.totals()
    }

    /// The time at which [`tick`](Self::tick) has something to do.
    pub fn next_due(&self) -> Option<SystemTime> {
        self.shelf.next_due()
    }

    /// What has changed since the last call: to be written before anybody hears of it.
    pub fn drain(&mut self) -> MailChanges {
        self.shelf.drain()
    }

    /// Forgets a swarm with everything in it.
    pub fn forget_swarm(&mut self, swarm: &SwarmName) {
        self.shelf.forget_swarm(swarm);
    }
}
