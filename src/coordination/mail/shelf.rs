//! The tables: every copy, where it stands, and what is to be written. No rules.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::SystemTime,
};

use super::{InboxCounts, MailChanges, MailNews, MailTurn, NOTICE_KEPT, SETTLED_KEPT, SwarmCounts};
use crate::coordination::MessageCounts;
use crate::model::{AgentName, Message, MessageId, MessageKind, Priority, Settlement, SwarmName};

/// One recipient's copy.
pub(super) type CopyId = (MessageId, AgentName);
/// The place in a queue: the most urgent first, of these the oldest.
pub(super) type Rank = (Priority, u64);
/// By time, and what makes it unique.
type Since = (SystemTime, u64, CopyId);
/// Whose word it is, and which.
type KeyId = (Option<AgentName>, Arc<str>);

/// What a message takes beside its text: about what it has in memory and in the store.
const MESSAGE_BYTES: usize = 512;

/// Where a copy stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stand {
    /// To be delivered to whoever asks.
    Ready,
    /// Put off by its recipient.
    Resting,
    /// Delivered, not acknowledged.
    OnItsWay,
    Dead,
    Settled,
}

pub(super) fn stand(message: &Message) -> Stand {
    if message.settled.is_some() {
        Stand::Settled
    } else if message.dead.is_some() {
        Stand::Dead
    } else if message.delivery.is_some() {
        Stand::OnItsWay
    } else if message.not_before.is_some() {
        Stand::Resting
    } else {
        Stand::Ready
    }
}

pub(super) fn is_notice(message: &Message) -> bool {
    matches!(message.kind, MessageKind::Undelivered { .. })
}

/// Until when a request may be answered, if it is one and may.
pub(super) fn open_until(message: &Message) -> Option<SystemTime> {
    let open = message.dead.is_none()
        && message.settled.as_ref().is_none_or(|settled| settled.how == Settlement::Acknowledged);
    match message.kind {
        MessageKind::Request { reply_by } if open => Some(reply_by),
        _ => None,
    }
}

/// When something becomes of a copy by itself.
fn due(message: &Message) -> Option<SystemTime> {
    let open_until = open_until(message);
    match stand(message) {
        Stand::Dead => None,
        Stand::Settled => open_until.or_else(|| message.settled.as_ref().map(|settled| settled.at + SETTLED_KEPT)),
        Stand::Ready | Stand::Resting | Stand::OnItsWay => {
            let until = message.delivery.as_ref().map(|delivery| delivery.until);
            let kept = is_notice(message).then(|| message.sent_at + NOTICE_KEPT);
            [until, message.not_before, open_until, kept].into_iter().flatten().min()
        }
    }
}

pub(super) fn bytes(message: &Message) -> usize {
    message.body.len() + message.topic.len() + MESSAGE_BYTES
}

fn copy_id(message: &Message) -> CopyId {
    (message.id, message.to.clone())
}

fn key_id(message: &Message) -> Option<KeyId> {
    let key = message.key.as_ref()?;
    Some((message.from.as_ref().map(|from| from.id.name.clone()), Arc::clone(&key.word)))
}

/// What one recipient has.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    /// Whatever is neither settled nor dead.
    pub(super) queue: BTreeMap<Rank, MessageId>,
    /// Those of the queue that may be delivered.
    pub(super) ready: BTreeMap<Rank, MessageId>,
    /// Those of the queue that are notices, by number.
    pub(super) notices: BTreeMap<u64, MessageId>,
    /// Bytes of the queue without notices.
    pub(super) bytes: usize,
    /// Given up for want of room.
    pub(super) dropped: u64,
}

impl Inbox {
    /// How many are in the queue without notices.
    pub(super) fn letters(&self) -> usize {
        self.queue.len() - self.notices.len()
    }
}

/// A word that a sender has used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keyed {
    pub(super) id: MessageId,
    pub(super) digest: u64,
    copies: usize,
}

/// What one swarm has.
#[derive(Debug, Default)]
pub(super) struct Post {
    pub(super) inboxes: BTreeMap<AgentName, Inbox>,
    /// Requests that may be answered.
    pub(super) open: BTreeSet<MessageId>,
    pub(super) keys: HashMap<KeyId, Keyed>,
    /// Of all queues and notices.
    pub(super) bytes: usize,
    pub(super) dead: BTreeSet<Since>,
    pub(super) dead_bytes: usize,
    /// Without those that may still be answered.
    pub(super) settled: BTreeSet<Since>,
    pub(super) lost: u64,
}

/// All tables.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    /// Nobody's copy comes before all of a message.
    copies: BTreeMap<(MessageId, Option<AgentName>), Arc<Message>>,
    posts: HashMap<SwarmName, Post>,
    agenda: BTreeSet<(SystemTime, CopyId)>,
    /// What is to be written of each copy; `None`: it is gone.
    written: BTreeMap<CopyId, Option<Arc<Message>>>,
    arrived: BTreeSet<(SwarmName, AgentName)>,
    news: Vec<MailNews>,
}

impl Shelf {
    /// Takes in what is written already.
    pub(super) fn restore(&mut self, message: Message) {
        let message = Arc::new(message);
        self.enter(&message);
        self.copies.insert((message.id, Some(message.to.clone())), message);
    }

    /// Puts a copy, new or instead of the one before, to where it stands now.
    pub(super) fn place(&mut self, message: Message) -> Arc<Message> {
        let (id, message) = (copy_id(&message), Arc::new(message));
        let before = self.copies.insert((message.id, Some(message.to.clone())), Arc::clone(&message));
        if let Some(before) = &before {
            self.leave(before);
        }
        self.enter(&message);
        if stand(&message) == Stand::Ready && before.is_none_or(|before| stand(&before) != Stand::Ready) {
            self.arrived.insert((message.swarm.clone(), message.to.clone()));
        }
        self.written.insert(id, Some(Arc::clone(&message)));
        message
    }

    /// Forgets a copy.
    pub(super) fn remove(&mut self, message: &Message) {
        if let Some(before) = self.copies.remove(&(message.id, Some(message.to.clone()))) {
            self.leave(&before);
            self.written.insert(copy_id(message), None);
        }
    }

    pub(super) fn tell(&mut self, turn: MailTurn, message: Arc<Message>) {
        self.news.push(MailNews { turn, message });
    }

    fn enter(&mut self, message: &Message) {
        let id = copy_id(message);
        if let Some(due) = due(message) {
            self.agenda.insert((due, id.clone()));
        }
        let post = self.posts.entry(message.swarm.clone()).or_default();
        if open_until(message).is_some() {
            post.open.insert(message.id);
        }
        if let (Some(key), Some(sent)) = (key_id(message), &message.key) {
            let first = Keyed { id: message.id, digest: sent.digest, copies: 0 };
            post.keys.entry(key).or_insert(first).copies += 1;
        }
        if let Some((at, _)) = &message.dead {
            post.dead.insert((*at, message.number, id));
            post.dead_bytes += bytes(message);
        } else if let Some(settled) = &message.settled {
            if open_until(message).is_none() {
                post.settled.insert((settled.at, message.number, id));
            }
        } else {
            let inbox = post.inboxes.entry(message.to.clone()).or_default();
            let rank = (message.priority, message.number);
            post.bytes += bytes(message);
            inbox.queue.insert(rank, message.id);
            if is_notice(message) {
                inbox.notices.insert(message.number, message.id);
            } else {
                inbox.bytes += bytes(message);
            }
            if stand(message) == Stand::Ready {
                inbox.ready.insert(rank, message.id);
            }
        }
    }

    /// Undoes what [`enter`](Self::enter) has done for this very copy.
    fn leave(&mut self, message: &Message) {
        let id = copy_id(message);
        if let Some(due) = due(message) {
            self.agenda.remove(&(due, id.clone()));
        }
        let Some(post) = self.posts.get_mut(&message.swarm) else { return };
        if open_until(message).is_some() {
            post.open.remove(&message.id);
        }
        if let Some(key) = key_id(message)
            && let Some(keyed) = post.keys.get_mut(&key)
        {
            keyed.copies -= 1;
            if keyed.copies == 0 {
                post.keys.remove(&key);
            }
        }
        if let Some((at, _)) = &message.dead {
            post.dead.remove(&(*at, message.number, id));
            post.dead_bytes -= bytes(message);
        } else if let Some(settled) = &message.settled {
            post.settled.remove(&(settled.at, message.number, id));
        } else if let Some(inbox) = post.inboxes.get_mut(&message.to) {
            let rank = (message.priority, message.number);
            post.bytes -= bytes(message);
            inbox.queue.remove(&rank);
            inbox.ready.remove(&rank);
            if is_notice(message) {
                inbox.notices.remove(&message.number);
            } else {
                inbox.bytes -= bytes(message);
            }
            if inbox.queue.is_empty() && inbox.dropped == 0 {
                post.inboxes.remove(&message.to);
            }
        }
    }

    pub(super) fn get(&self, swarm: &SwarmName, id: MessageId, to: &AgentName) -> Option<Arc<Message>> {
        self.copy(&(id, to.clone())).filter(|copy| copy.swarm == *swarm).cloned()
    }

    fn copy(&self, (id, to): &CopyId) -> Option<&Arc<Message>> {
        self.copies.get(&(*id, Some(to.clone())))
    }

    pub(super) fn swarms(&self) -> impl Iterator<Item = &SwarmName> {
        self.posts.keys()
    }

    pub(super) fn post(&self, swarm: &SwarmName) -> Option<&Post> {
        self.posts.get(swarm)
    }

    pub(super) fn post_mut(&mut self, swarm: &SwarmName) -> &mut Post {
        self.posts.entry(swarm.clone()).or_default()
    }

    pub(super) fn inbox(&self, swarm: &SwarmName, to: &AgentName) -> Option<&Inbox> {
        self.posts.get(swarm)?.inboxes.get(to)
    }

    /// Forgets recipients for whom nothing is there but a count.
    pub(super) fn sweep(&mut self, swarm: &SwarmName) {
        if let Some(post) = self.posts.get_mut(swarm) {
            post.inboxes.retain(|_, inbox| !inbox.queue.is_empty());
        }
    }

    /// The first copy of which something becomes by then.
    pub(super) fn due_by(&self, now: SystemTime) -> Option<Arc<Message>> {
        let (_, id) = self.agenda.first().filter(|(at, _)| *at <= now)?;
        self.copy(id).cloned()
    }

    pub(super) fn next_due(&self) -> Option<SystemTime> {
        self.agenda.first().map(|(at, _)| *at)
    }

    /// The oldest dead letter, or end, of a swarm.
    pub(super) fn oldest(&self, since: &BTreeSet<Since>) -> Option<Arc<Message>> {
        self.copy(&since.first()?.2).cloned()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Message>> {
        self.copies.values()
    }

    pub(super) fn copies(&self, id: MessageId) -> impl Iterator<Item = &Arc<Message>> {
        self.copies.range((id, None)..).take_while(move |((of, _), _)| *of == id).map(|(_, copy)| copy)
    }

    pub(super) fn list(&self, swarm: &SwarmName, to: Option<&AgentName>) -> impl Iterator<Item = &Arc<Message>> {
        let inboxes = self.posts.get(swarm).into_iter().flat_map(|post| &post.inboxes);
        inboxes
            .filter(move |(name, _)| to.is_none_or(|to| to == *name))
            .flat_map(|(name, inbox)| self.queued(name, inbox))
    }

    fn queued(&self, name: &AgentName, inbox: &Inbox) -> impl Iterator<Item = &Arc<Message>> {
        inbox.queue.values().filter_map(|id| self.copies.get(&(*id, Some(name.clone()))))
    }

    pub(super) fn dead(&self, swarm: &SwarmName) -> impl Iterator<Item = &Arc<Message>> {
        let dead = self.posts.get(swarm).into_iter().flat_map(|post| &post.dead);
        dead.filter_map(|(_, _, id)| self.copy(id))
    }

    pub(super) fn totals(&self) -> impl Iterator<Item = (&SwarmName, MessageCounts)> {
        self.posts.iter().map(|(swarm, post)| {
            let mut counts = MessageCounts { dead: post.dead.len(), ..MessageCounts::default() };
            for inbox in post.inboxes.values() {
                counts.waiting += inbox.ready.len();
                counts.delivered += inbox.queue.len() - inbox.ready.len();
            }
            (swarm, counts)
        })
    }

    pub(super) fn counts(&self, swarm: &SwarmName) -> SwarmCounts {
        let Some(post) = self.posts.get(swarm) else { return SwarmCounts::default() };
        let mut counts = SwarmCounts { recipients: BTreeMap::new(), open_requests: post.open.len(), lost: post.lost };
        for (name, inbox) in &post.inboxes {
            let own: &mut InboxCounts = counts.recipients.entry(name.clone()).or_default();
            own.dropped = inbox.dropped;
            for message in self.queued(name, inbox) {
                own.bytes += bytes(message);
                match stand(message) {
                    Stand::OnItsWay => own.on_their_way += 1,
                    _ => own.waiting += 1,
                }
            }
        }
        for (_, _, (_, to)) in &post.dead {
            counts.recipients.entry(to.clone()).or_default().dead += 1;
        }
        counts
    }

    pub(super) fn forget_swarm(&mut self, swarm: &SwarmName) {
        let all: Vec<Arc<Message>> = self.copies.values().filter(|copy| copy.swarm == *swarm).cloned().collect();
        for message in all {
            self.remove(&message);
        }
        self.posts.remove(swarm);
        self.arrived.retain(|(of, _)| of != swarm);
    }

    pub(super) fn drain(&mut self) -> MailChanges {
        let mut changes = MailChanges {
            arrived: std::mem::take(&mut self.arrived),
            news: std::mem::take(&mut self.news),
            ..MailChanges::default()
        };
        for (id, copy) in std::mem::take(&mut self.written) {
            match copy {
                Some(copy) => changes.put.push(copy),
                None => changes.removed.push(id),
            }
        }
        changes
    }
}
