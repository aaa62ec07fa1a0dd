//! The way of messages out: delivered under a token, acknowledged or handed back.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    Mail, MailTurn, RECEIVED_BYTES_MAX, RECEIVED_MAX, REDELIVERY_MAX, Wanted,
    letter::{number, time},
    shelf::bytes,
};
use crate::{
    coordination::{Counter, Refused},
    model::{Delivery, Fence, Message, MessageId, Party, Settlement},
};

impl Mail {
    /// Delivers what waits for the party's name and is wanted, the most urgent first, of these the oldest; none when there is none. What is not
    /// acknowledged within `redeliver_after` is delivered again.
    ///
    /// # Errors
    /// `Invalid`.
    pub fn receive(
        &mut self,
        counter: &mut Counter,
        party: &Party,
        wanted: Wanted<'_>,
        max: usize,
        redeliver_after: Duration,
        now: SystemTime,
    ) -> Result<Vec<Arc<Message>>, Refused> {
        self.tick(counter, now);
        number("max", max, RECEIVED_MAX)?;
        time("redeliver_after_ms", redeliver_after, Duration::from_millis(1), REDELIVERY_MAX)?;
        wanted.check()?;
        let Some(inbox) = self.shelf.inbox(&party.id.swarm, &party.id.name) else { return Ok(Vec::new()) };
        let mut received: Vec<Arc<Message>> = Vec::new();
        let mut sum = 0;
        for id in inbox.ready.values() {
            let Some(message) = self.shelf.get(&party.id.swarm, *id, &party.id.name) else { continue };
            if !wanted.has(&message) {
                continue;
            }
            sum += bytes(&message);
            // The order is kept: what would be too much is the first of the next time.
            if received.len() == max || (sum > RECEIVED_BYTES_MAX && !received.is_empty()) {
                break;
            }
            received.push(message);
        }
        for message in &mut received {
            let until = now + redeliver_after;
            let delivery = Delivery { to: party.clone(), fence: counter.fence(), redeliver_after, until };
            let deliveries = message.deliveries + 1;
            *message = self.shelf.place(Message { deliveries, delivery: Some(delivery), ..Message::clone(message) });
            self.shelf.tell(MailTurn::Delivered, Arc::clone(message));
        }
        Ok(received)
    }

    /// The recipient has dealt with a message. The same token again gets the same answer for a while.
    ///
    /// # Errors
    /// `UnknownMessage`, `StaleToken`.
    pub fn ack(
        &mut self,
        party: &Party,
        id: MessageId,
        fence: Fence,
        now: SystemTime,
    ) -> Result<Arc<Message>, Refused> {
        let message = self.of(party, id)?;
        if message.settled.is_some_and(|settled| settled.fence == Some(fence)) {
            return Ok(message);
        }
        on_its_way(&message, party, fence)?;
        Ok(self.settle(&message, Settlement::Acknowledged, now))
    }

    /// The recipient hands a message back, to be delivered again, but not before the delay is over. After [`DELIVERIES_MAX`](super::DELIVERIES_MAX)
    /// deliveries it is given up instead.
    ///
    /// # Errors
    /// `UnknownMessage`, `StaleToken`, `Invalid`.
    pub fn nack(
        &mut self,
        counter: &mut Counter,
        party: &Party,
        id: MessageId,
        fence: Fence,
        delay: Duration,
        now: SystemTime,
    ) -> Result<(), Refused> {
        time("delay_ms", delay, Duration::ZERO, REDELIVERY_MAX)?;
        let message = self.of(party, id)?;
        on_its_way(&message, party, fence)?;
        let not_before = (!delay.is_zero()).then(|| now + delay);
        self.take_back(counter, &message, "was handed back", not_before, now);
        Ok(())
    }

    /// An incarnation has ended, or a client's lease: what it has not acknowledged waits for the next at once.
    pub fn holder_ended(&mut self, counter: &mut Counter, party: &Party, now: SystemTime) {
        let has = |message: &&Arc<Message>| message.delivery.as_ref().is_some_and(|delivery| delivery.to == *party);
        let held: Vec<_> = self.list(&party.id.swarm, Some(&party.id.name)).filter(has).cloned().collect();
        for message in held {
            self.take_back(counter, &message, "its holder has ended", None, now);
        }
    }

    /// Nobody could acknowledge until now, because the daemon was stopped: what is on its way has its full time anew.
    pub fn renew_all(&mut self, now: SystemTime) {
        let on_their_way: Vec<_> = self.shelf.all().filter(|message| message.delivery.is_some()).cloned().collect();
        for message in on_their_way {
            let mut message = Message::clone(&message);
            if let Some(delivery) = &mut message.delivery {
                delivery.until = now + delivery.redeliver_after;
            }
            self.shelf.place(message);
        }
    }

    fn of(&self, party: &Party, id: MessageId) -> Result<Arc<Message>, Refused> {
        self.shelf.get(&party.id.swarm, id, &party.id.name).ok_or(Refused::UnknownMessage(id))
    }
}

/// Refuses a token that is not that of the delivery to this party.
fn on_its_way(message: &Message, party: &Party, fence: Fence) -> Result<(), Refused> {
    let why = match (&message.delivery, &message.settled, &message.dead) {
        (Some(delivery), ..) if delivery.fence == fence && delivery.to == *party => return Ok(()),
        (Some(delivery), ..) => format!("the message is on its way to {} under another", delivery.to),
        (None, Some(settled), _) => format!("the message is {}", settled.how.word()),
        (None, None, Some((_, reason))) => format!("the message was given up: {reason}"),
        (None, None, None) => "the message was taken back and waits to be delivered again".to_owned(),
    };
    Err(Refused::StaleToken { shown: fence, why })
}
