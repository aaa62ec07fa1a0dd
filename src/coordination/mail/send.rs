//! The way of a letter in: who gets a copy, and who makes room for it.

use std::{collections::BTreeSet, sync::Arc, time::SystemTime};

use super::{
    Letter, LetterKind, Mail, MailTurn, QUEUE_BYTES_MAX, QUEUE_MAX, RECIPIENTS_MAX, REQUESTS_MAX, SWARM_BYTES_MAX,
    Sent, To,
    shelf::{bytes, is_notice, open_until},
};
use crate::{
    coordination::{Counter, Refused},
    model::{AgentName, Message, MessageId, MessageKind, Party, Priority, SendKey, Settlement, SwarmName},
};

impl Mail {
    /// Sends a letter. Where a queue is full, the least urgent of what waits there and of the letter itself, and of these the oldest, goes.
    ///
    /// # Errors
    /// `Invalid`, `KeyReused`, `NotOpen` for a reply that nobody waits for, `Full` when no recipient has room for it.
    pub fn send(&mut self, counter: &mut Counter, letter: Letter, now: SystemTime) -> Result<Sent, Refused> {
        self.tick(counter, now);
        letter.check(now)?;
        let key = letter.key.as_ref().map(|word| SendKey { word: Arc::clone(word), digest: letter.digest() });
        if let Some(sent) = self.sent_before(&letter, key.as_ref())? {
            return Ok(sent);
        }
        let request = self.request_of(&letter)?;
        let (recipients, kind, broadcast) = self.addressed(&letter, request.as_deref())?;
        let recipients_max = most(match (&letter.kind, &request) {
            (LetterKind::Reply { .. }, Some(request)) => request.from.as_ref().is_some_and(is_client),
            _ => letter.to_client,
        });
        let (id, number) = (MessageId::mint(), counter.number());
        let copy = |to: AgentName| Message {
            id,
            swarm: letter.swarm.clone(),
            to,
            from: letter.from.clone(),
            priority: letter.priority,
            topic: Arc::clone(&letter.topic),
            body: Arc::clone(&letter.body),
            kind: kind.clone(),
            broadcast,
            number,
            sent_at: now,
            deliveries: 0,
            delivery: None,
            not_before: None,
            dead: None,
            settled: None,
            key: key.clone(),
        };
        let mut sent = Sent { id, recipients: Vec::new(), full: Vec::new(), displaced: 0, repeated: false };
        let (mut copies, mut added, mut displaced, mut refused) = (Vec::new(), 0, Vec::new(), None);
        if self.shelf.post(&letter.swarm).is_some_and(|post| post.inboxes.len() + recipients.len() > recipients_max) {
            self.shelf.sweep(&letter.swarm);
        }
        for to in recipients {
            let copy = copy(to.clone());
            match self.room(&copy, copies.len(), added, recipients_max) {
                Ok(victims) => {
                    added += usize::from(self.shelf.inbox(&letter.swarm, &to).is_none());
                    displaced.extend(victims);
                    copies.push(copy);
                    sent.recipients.push(to);
                }
                Err(full) => {
                    refused = Some(full);
                    sent.full.push(to);
                }
            }
        }
        if let Some(refused) = refused.filter(|_| copies.is_empty()) {
            return Err(refused);
        }
        sent.displaced = displaced.len();
        // First the room, then who takes it, then who hears of it: notices must not be in anybody's way.
        for message in &displaced {
            self.drop_for_room(message, now);
        }
        for copy in copies {
            let message = self.shelf.place(copy);
            self.shelf.tell(MailTurn::Sent, message);
        }
        if let Some(request) = request {
            self.settle(&request, Settlement::Answered, now);
        }
        for message in &displaced {
            self.tell_sender(counter, message, QUEUE_FULL, now);
        }
        Ok(sent)
    }

    /// Who is to have it, and as what.
    fn addressed(
        &self,
        letter: &Letter,
        request: Option<&Message>,
    ) -> Result<(BTreeSet<AgentName>, MessageKind, bool), Refused> {
        Ok(match &letter.kind {
            LetterKind::Note { to: To::One(to) } => (BTreeSet::from([to.clone()]), MessageKind::Note, false),
            LetterKind::Note { to: To::All(members) } => (members.iter().cloned().collect(), MessageKind::Note, true),
            LetterKind::Request { to, reply_by } => {
                if self.shelf.post(&letter.swarm).is_some_and(|post| post.open.len() >= REQUESTS_MAX) {
                    return Err(Refused::Full { what: "requests of the swarm without an answer", max: REQUESTS_MAX });
                }
                (BTreeSet::from([to.clone()]), MessageKind::Request { reply_by: *reply_by }, false)
            }
            LetterKind::Reply { to } => {
                let asker = request.and_then(|request| request.from.as_ref()).map(|from| from.id.name.clone());
                (asker.into_iter().collect(), MessageKind::Reply { to: *to }, false)
            }
        })
    }

    /// What the same key has led to before.
    fn sent_before(&self, letter: &Letter, key: Option<&SendKey>) -> Result<Option<Sent>, Refused> {
        let (Some(key), Some(post)) = (key, self.shelf.post(&letter.swarm)) else { return Ok(None) };
        let sender = letter.from.as_ref().map(|from| from.id.name.clone());
        let Some(known) = post.keys.get(&(sender, Arc::clone(&key.word))) else { return Ok(None) };
        if known.digest != key.digest {
            return Err(Refused::KeyReused(Arc::clone(&key.word)));
        }
        let recipients = self.copies(&letter.swarm, known.id).map(|copy| copy.to.clone()).collect();
        Ok(Some(Sent { id: known.id, recipients, full: Vec::new(), displaced: 0, repeated: true }))
    }

    /// The request that a reply answers.
    fn request_of(&self, letter: &Letter) -> Result<Option<Arc<Message>>, Refused> {
        let (LetterKind::Reply { to }, Some(from)) = (&letter.kind, &letter.from) else { return Ok(None) };
        let not_open = |why: String| Err(Refused::NotOpen { request: *to, why });
        let Some(request) = self.shelf.get(&letter.swarm, *to, &from.id.name) else {
            return not_open(format!("there is none for {}, or it ended a while ago", from.id.name));
        };
        if open_until(&request).is_some() {
            return Ok(Some(request));
        }
        not_open(match (&request.kind, &request.dead, request.settled.map(|settled| settled.how)) {
            (MessageKind::Request { .. }, Some((_, reason)), _) => format!("it was given up: {reason}"),
            (MessageKind::Request { .. }, None, Some(Settlement::Unanswered)) => "its deadline has passed".to_owned(),
            (MessageKind::Request { .. }, None, _) => "it is answered already".to_owned(),
            _ => "it asks for no answer".to_owned(),
        })
    }

    /// What has to go so that this copy has room beside so many others of the same letter, for so many new recipients of so many. The queues of others are
    /// left alone.
    fn room(
        &self,
        newcomer: &Message,
        beside: usize,
        added: usize,
        recipients_max: usize,
    ) -> Result<Vec<Arc<Message>>, Refused> {
        let Some(post) = self.shelf.post(&newcomer.swarm) else { return Ok(Vec::new()) };
        let own = bytes(newcomer);
        let inbox = post.inboxes.get(&newcomer.to);
        if inbox.is_none() && post.inboxes.len() + added >= recipients_max {
            return Err(Refused::Full { what: "recipients of the swarm", max: recipients_max });
        }
        let mut letters = 1 + inbox.map_or(0, |inbox| inbox.letters());
        let mut queue_bytes = own + inbox.map_or(0, |inbox| inbox.bytes);
        let mut victims = Vec::new();
        // The least urgent first, of these the oldest; nothing that comes behind the newcomer in this order, and nothing that somebody has already.
        let least_first = Priority::ALL.into_iter().rev().take_while(|priority| *priority >= newcomer.priority);
        let mut droppable = inbox.into_iter().flat_map(|inbox| {
            least_first.clone().flat_map(|priority| {
                let last = if priority == newcomer.priority { newcomer.number } else { u64::MAX };
                inbox.queue.range((priority, 0)..(priority, last)).map(|(_, id)| *id)
            })
        });
        while letters > QUEUE_MAX || queue_bytes > QUEUE_BYTES_MAX {
            let victim = loop {
                let Some(id) = droppable.next() else {
                    let messages = Refused::Full { what: "messages of this recipient", max: QUEUE_MAX };
                    let bytes = Refused::Full { what: "bytes of messages of this recipient", max: QUEUE_BYTES_MAX };
                    return Err(if letters > QUEUE_MAX { messages } else { bytes });
                };
                let copy = self.shelf.get(&newcomer.swarm, id, &newcomer.to);
                if let Some(copy) = copy.filter(|copy| copy.delivery.is_none() && !is_notice(copy)) {
                    break copy;
                }
            };
            letters -= 1;
            queue_bytes -= bytes(&victim);
            victims.push(victim);
        }
        let freed: usize = victims.iter().map(|victim| bytes(victim)).sum();
        if post.bytes + own * (beside + 1) > SWARM_BYTES_MAX + freed {
            return Err(Refused::Full { what: "bytes of messages of the swarm", max: SWARM_BYTES_MAX });
        }
        Ok(victims)
    }

    /// Puts a dead letter back for each of its recipients that has room: who, and who has none.
    ///
    /// # Errors
    /// `UnknownMessage` when it is no dead letter, `NotOpen` for a request whose deadline has passed, `Full` when no recipient has room.
    pub fn redrive(
        &mut self,
        counter: &mut Counter,
        swarm: &SwarmName,
        id: MessageId,
        now: SystemTime,
    ) -> Result<Sent, Refused> {
        self.tick(counter, now);
        let dead: Vec<Arc<Message>> = self.copies(swarm, id).filter(|copy| copy.dead.is_some()).cloned().collect();
        let mut sent = Sent { id, recipients: Vec::new(), full: Vec::new(), displaced: 0, repeated: false };
        let mut refused = Refused::UnknownMessage(id);
        for copy in dead {
            if matches!(copy.kind, MessageKind::Request { reply_by } if reply_by <= now) {
                return Err(Refused::NotOpen { request: id, why: "its deadline has passed".to_owned() });
            }
            let again = Message { dead: None, deliveries: 0, ..Message::clone(&copy) };
            // It had a place already, whoever it is for.
            match self.room(&again, 0, 0, most(false)) {
                Err(full) => {
                    refused = full;
                    sent.full.push(again.to);
                }
                Ok(displaced) => {
                    sent.displaced += displaced.len();
                    sent.recipients.push(again.to.clone());
                    let again = self.shelf.place(again);
                    self.shelf.tell(MailTurn::Redriven, again);
                    displaced.iter().for_each(|message| self.drop_for_room(message, now));
                    displaced.iter().for_each(|message| self.tell_sender(counter, message, QUEUE_FULL, now));
                }
            }
        }
        if sent.recipients.is_empty() { Err(refused) } else { Ok(sent) }
    }
}

/// How many recipients a swarm may have for one more of this kind.
pub(super) fn most(is_client: bool) -> usize {
    if is_client { RECIPIENTS_MAX } else { 2 * RECIPIENTS_MAX }
}

pub(super) fn is_client(party: &Party) -> bool {
    party.incarnation.is_none()
}

/// Why something gave way.
pub(super) const QUEUE_FULL: &str = "queue_full: newer or more urgent messages took its place";
