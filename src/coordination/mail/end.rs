//! What becomes of messages otherwise: taken back, given up, answered too late, forgotten.

use std::{sync::Arc, time::SystemTime};

use super::{
    DEAD_BYTES_MAX, DEAD_MAX, DELIVERIES_MAX, Mail, MailTurn, NOTICE_KEPT, NOTICES_MAX, SETTLED_MAX, SWARM_BYTES_MAX,
    send::{is_client, most},
    shelf::{bytes, is_notice, open_until},
};
use crate::{
    coordination::Counter,
    model::{AgentName, Message, MessageId, MessageKind, Settled, Settlement, SwarmName},
};

impl Mail {
    /// Does what time has brought: deliveries that were not acknowledged, pauses that are over, requests without an answer, ends that are long past.
    pub fn tick(&mut self, counter: &mut Counter, now: SystemTime) {
        while let Some(message) = self.shelf.due_by(now) {
            let kept_too_long = is_notice(&message) && message.sent_at + NOTICE_KEPT <= now;
            if open_until(&message).is_some_and(|until| until <= now) {
                self.unanswered(counter, &message, now);
            } else if kept_too_long || message.settled.is_some() {
                self.shelf.remove(&message);
            } else if message.delivery.is_some() {
                self.take_back(counter, &message, "was not acknowledged in time", None, now);
            } else {
                self.shelf.place(Message { not_before: None, ..Message::clone(&message) });
            }
        }
    }

    /// A delivery has ended without an acknowledgement.
    pub(super) fn take_back(
        &mut self,
        counter: &mut Counter,
        message: &Message,
        why: &str,
        not_before: Option<SystemTime>,
        now: SystemTime,
    ) {
        if message.deliveries >= DELIVERIES_MAX {
            let to =
                message.delivery.as_ref().map_or_else(|| message.to.to_string(), |delivery| delivery.to.to_string());
            let reason =
                format!("not_acknowledged: delivered {} times, the last time to {to}: {why}", message.deliveries);
            self.give_up(counter, message, &reason, now);
        } else {
            let message = self.shelf.place(Message { delivery: None, not_before, ..message.clone() });
            self.shelf.tell(MailTurn::Returned, message);
        }
    }

    /// Nobody has answered in time.
    fn unanswered(&mut self, counter: &mut Counter, request: &Message, now: SystemTime) {
        let came = match (&request.settled, &request.delivery, request.deliveries) {
            (Some(_), ..) => "acknowledged it, and has not answered",
            (None, Some(_), _) => "has it, and has neither acknowledged nor answered it",
            (None, None, 0) => "has not taken it",
            (None, None, _) => "has taken it and handed it back, or was lost with it",
        };
        let reason = format!("no_reply: {} {came}", request.to);
        self.settle(request, Settlement::Unanswered, now);
        self.tell_sender(counter, request, &reason, now);
    }

    /// Makes a dead letter of a message and tells its sender.
    fn give_up(&mut self, counter: &mut Counter, message: &Message, reason: &str, now: SystemTime) {
        self.bury(message, reason, now);
        self.tell_sender(counter, message, reason, now);
    }

    /// Makes a dead letter of a message for which there is no room. Its sender is yet to be told.
    pub(super) fn drop_for_room(&mut self, message: &Message, now: SystemTime) {
        if let Some(inbox) = self.shelf.post_mut(&message.swarm).inboxes.get_mut(&message.to) {
            inbox.dropped += 1;
        }
        self.bury(message, super::send::QUEUE_FULL, now);
    }

    fn bury(&mut self, message: &Message, reason: &str, now: SystemTime) {
        if is_notice(message) {
            // The news and the count are all that is to be had of it: kept, such would take the place of what people have written.
            self.shelf.remove(message);
            self.shelf.tell(MailTurn::Lost, Arc::new(message.clone()));
            return;
        }
        // Without its key: its sender hears of it and may want to send it again.
        let dead = Some((now, reason.to_owned()));
        let dead = self.shelf.place(Message { dead, delivery: None, not_before: None, key: None, ..message.clone() });
        self.shelf.tell(MailTurn::Died, dead);
        while let Some(post) = self.shelf.post(&message.swarm)
            && (post.dead.len() > DEAD_MAX || post.dead_bytes > DEAD_BYTES_MAX)
            && let Some(oldest) = self.shelf.oldest(&post.dead)
        {
            self.shelf.remove(&oldest);
            self.shelf.post_mut(&message.swarm).lost += 1;
            self.shelf.tell(MailTurn::Lost, oldest);
        }
    }

    /// Tells the sender of a message, if it has one, what has become of it.
    pub(super) fn tell_sender(&mut self, counter: &mut Counter, of: &Message, reason: &str, now: SystemTime) {
        let Some(from) = of.from.as_ref() else { return };
        let notice = Message {
            id: MessageId::mint(),
            swarm: of.swarm.clone(),
            to: from.id.name.clone(),
            from: None,
            priority: of.priority,
            topic: Arc::clone(&of.topic),
            body: Arc::from(format!(r#"{{"to":"{}"}}"#, of.to)),
            kind: MessageKind::Undelivered { of: of.id, reason: reason.to_owned() },
            broadcast: false,
            number: counter.number(),
            sent_at: now,
            deliveries: 0,
            delivery: None,
            not_before: None,
            dead: None,
            settled: None,
            key: None,
        };
        let post = self.shelf.post_mut(&of.swarm);
        let known = post.inboxes.contains_key(&notice.to);
        if post.bytes + bytes(&notice) > SWARM_BYTES_MAX
            || (!known && post.inboxes.len() >= most(of.from.as_ref().is_some_and(is_client)))
        {
            self.shelf.tell(MailTurn::Lost, Arc::new(notice));
            return;
        }
        let inbox = post.inboxes.entry(notice.to.clone()).or_default();
        let oldest = inbox.notices.first_key_value().map(|(_, id)| *id);
        if let Some(id) = oldest.filter(|_| inbox.notices.len() >= NOTICES_MAX) {
            inbox.dropped += 1;
            if let Some(oldest) = self.shelf.get(&of.swarm, id, &notice.to) {
                self.bury(&oldest, "", now);
            }
        }
        let notice = self.shelf.place(notice);
        self.shelf.tell(MailTurn::Sent, notice);
    }

    /// Puts a message to its end, and forgets the oldest ends of a swarm that remembers too many.
    pub(super) fn settle(&mut self, message: &Message, how: Settlement, now: SystemTime) -> Arc<Message> {
        let before = message.settled.and_then(|settled| settled.fence);
        let fence = message.delivery.as_ref().map(|delivery| delivery.fence).or(before);
        let ended = self.shelf.place(Message {
            settled: Some(Settled { at: now, how, fence }),
            delivery: None,
            not_before: None,
            topic: Arc::from(""),
            body: Arc::from(""),
            ..message.clone()
        });
        let turn = match how {
            Settlement::Acknowledged => MailTurn::Acknowledged,
            Settlement::Answered => MailTurn::Answered,
            Settlement::Unanswered => MailTurn::Unanswered,
        };
        self.shelf.tell(turn, Arc::clone(&ended));
        while let Some(post) = self.shelf.post(&message.swarm)
            && post.settled.len() > SETTLED_MAX
            && let Some(oldest) = self.shelf.oldest(&post.settled)
        {
            self.shelf.remove(&oldest);
        }
        ended
    }

    /// A recipient is no longer part of the swarm: what waits for it is given up.
    pub fn forget_recipient(&mut self, counter: &mut Counter, swarm: &SwarmName, to: &AgentName, now: SystemTime) {
        let all: Vec<Arc<Message>> = self.list(swarm, Some(to)).cloned().collect();
        for message in all {
            self.give_up(counter, &message, "recipient_removed: it is no longer part of the swarm", now);
        }
    }
}
