//! What holds whatever happens: the mail does what a list of messages does that is searched from end to end.

use std::{cmp::Reverse, collections::HashSet};

use proptest::{collection::vec, prelude::*};

use super::{
    shelf::{bytes, is_notice},
    *,
};
use crate::model::Settlement;

const NAMES: [&str; 3] = ["a", "b", "c"];

#[derive(Debug, Clone, PartialEq)]
enum At {
    Waiting,
    Resting(SystemTime),
    Away(Party, Fence, SystemTime),
    Dead(SystemTime),
    Settled(SystemTime, Settlement),
}

/// One copy, as the list knows it.
#[derive(Debug, Clone)]
struct Known {
    message: Message,
    deliveries: u32,
    at: At,
}

impl Known {
    fn alive(&self) -> bool {
        matches!(self.at, At::Waiting | At::Resting(_) | At::Away(..))
    }

    fn open_until(&self) -> Option<SystemTime> {
        match (&self.message.kind, &self.at) {
            (MessageKind::Request { .. }, At::Dead(_)) => None,
            (MessageKind::Request { .. }, At::Settled(_, how)) if *how != Settlement::Acknowledged => None,
            (MessageKind::Request { reply_by }, _) => Some(*reply_by),
            _ => None,
        }
    }

    fn due(&self) -> Option<SystemTime> {
        let own = match &self.at {
            At::Waiting | At::Dead(_) => None,
            At::Resting(until) | At::Away(_, _, until) => Some(*until),
            At::Settled(at, _) => self.open_until().is_none().then(|| *at + SETTLED_KEPT),
        };
        let kept = (self.alive() && is_notice(&self.message)).then(|| self.message.sent_at + NOTICE_KEPT);
        [own, kept, self.open_until()].into_iter().flatten().min()
    }
}

/// The list, and what it expects the senders to be told: of what, and who.
struct Naive {
    all: Vec<Known>,
    told: Vec<(MessageId, AgentName)>,
}

impl Naive {
    fn find(&mut self, id: MessageId) -> Option<&mut Known> {
        self.all.iter_mut().find(|known| known.message.id == id)
    }

    fn queue(&self, to: &AgentName) -> Vec<&Known> {
        let mut queue: Vec<_> = self.all.iter().filter(|known| known.alive() && known.message.to == *to).collect();
        queue.sort_by_key(|known| (known.message.priority, known.message.number));
        queue
    }

    fn dead(&self) -> Vec<MessageId> {
        let at = |known: &&Known| match known.at {
            At::Dead(at) => Some((at, known.message.number)),
            _ => None,
        };
        let mut dead: Vec<_> = self.all.iter().filter(|known| at(known).is_some()).collect();
        dead.sort_by_key(at);
        dead.iter().map(|known| known.message.id).collect()
    }

    /// Those that have to go for this one, or nothing if that is the first to go.
    fn victims(&self, newcomer: &Message) -> Option<Vec<MessageId>> {
        let own: Vec<_> = self.queue(&newcomer.to).into_iter().filter(|known| !is_notice(&known.message)).collect();
        let mut victims: Vec<MessageId> = Vec::new();
        loop {
            let left = || own.iter().filter(|known| !victims.contains(&known.message.id));
            let sum: usize = left().map(|known| bytes(&known.message)).sum();
            if left().count() < QUEUE_MAX && sum + bytes(newcomer) <= QUEUE_BYTES_MAX {
                return Some(victims);
            }
            let idle = left().filter(|known| !matches!(known.at, At::Away(..))).map(|known| &known.message);
            let first =
                idle.chain([newcomer]).max_by_key(|message| (message.priority, Reverse(message.number))).unwrap();
            if first.id == newcomer.id {
                return None;
            }
            victims.push(first.id);
        }
    }

    fn tell(&mut self, id: MessageId) {
        let of = self.find(id).unwrap();
        let from = of.message.from.as_ref().map(|from| from.id.name.clone());
        self.told.extend(from.map(|from| (id, from)));
    }

    fn bury(&mut self, id: MessageId, now: SystemTime) {
        let known = self.find(id).unwrap();
        if is_notice(&known.message) {
            self.all.retain(|known| known.message.id != id);
            return;
        }
        known.at = At::Dead(now);
        let dead_bytes = |naive: &Self| -> usize {
            naive.all.iter().filter(|known| matches!(known.at, At::Dead(_))).map(|known| bytes(&known.message)).sum()
        };
        // Before one that was just buried goes again, its sender is told: `told` was filled by then or is from a copy.
        while dead_bytes(self) > DEAD_BYTES_MAX || self.dead().len() > DEAD_MAX {
            let oldest = self.dead()[0];
            self.all.retain(|known| known.message.id != oldest);
        }
    }

    fn take_back(&mut self, id: MessageId, not_before: Option<SystemTime>, now: SystemTime) {
        let known = self.find(id).unwrap();
        if known.deliveries >= DELIVERIES_MAX {
            self.tell(id);
            self.bury(id, now);
        } else {
            known.at = not_before.map_or(At::Waiting, At::Resting);
        }
    }

    fn tick(&mut self, now: SystemTime) {
        loop {
            let due = self.all.iter().filter_map(|known| Some((known.due()?, known.message.id)));
            let Some((_, id)) = due.filter(|(due, _)| *due <= now).min() else { return };
            let known = self.find(id).unwrap();
            let kept = is_notice(&known.message) && known.message.sent_at + NOTICE_KEPT <= now;
            if known.open_until().is_some_and(|until| until <= now) {
                known.at = At::Settled(now, Settlement::Unanswered);
                self.tell(id);
            } else if kept || matches!(known.at, At::Settled(..)) {
                self.all.retain(|known| known.message.id != id);
            } else if matches!(known.at, At::Away(..)) {
                self.take_back(id, None, now);
            } else {
                known.at = At::Waiting;
            }
        }
    }
}

/// Both, side by side.
struct Pair {
    desk: Desk,
    naive: Naive,
    incarnations: [u64; 3],
    tokens: Vec<(Party, MessageId, Fence)>,
    acknowledged: HashSet<MessageId>,
    large: Arc<str>,
    /// How many there are.
    priorities: usize,
}

/// What to do, in numbers.
type Roll = (usize, usize, usize, usize);

impl Pair {
    fn new(priorities: usize) -> Self {
        Self {
            priorities,
            desk: Desk::new(),
            naive: Naive { all: Vec::new(), told: Vec::new() },
            incarnations: [1; 3],
            tokens: Vec::new(),
            acknowledged: HashSet::new(),
            large: Arc::from("x".repeat(BODY_MAX)),
        }
    }

    fn party(&self, at: usize) -> Party {
        party(NAMES[at % 3], self.incarnations[at % 3])
    }

    fn send(&mut self, letter: Letter) {
        self.naive.tick(self.desk.now);
        let request = match letter.kind {
            LetterKind::Reply { to } => Some(to),
            _ => None,
        };
        let by = letter.from.clone();
        let sent = self.desk.send(letter.clone());
        let asked = request.map(|id| self.naive.find(id).filter(|known| known.open_until().is_some()).cloned());
        let asked =
            asked.map(|known| known.filter(|known| Some(&known.message.to) == by.as_ref().map(|by| &by.id.name)));
        let to = match (&letter.kind, &asked) {
            (LetterKind::Reply { .. }, None | Some(None)) => return assert!(sent.is_err(), "nobody waits for it"),
            (LetterKind::Reply { .. }, Some(Some(request))) => request.message.from.clone().unwrap().id.name,
            (LetterKind::Note { to: To::One(to) } | LetterKind::Request { to, .. }, _) => to.clone(),
            (LetterKind::Note { to: To::All(_) }, _) => unreachable!("one at a time"),
        };
        let (id, number) = match &sent {
            Ok(sent) => (sent.id, self.desk.mail.copies(&swarm(), sent.id).next().unwrap().number),
            Err(_) => (MessageId::mint(), u64::MAX),
        };
        let message = Message {
            id,
            swarm: swarm(),
            to,
            from: by,
            priority: letter.priority,
            topic: letter.topic,
            body: letter.body,
            kind: match letter.kind {
                LetterKind::Request { reply_by, .. } => MessageKind::Request { reply_by },
                LetterKind::Reply { to } => MessageKind::Reply { to },
                LetterKind::Note { .. } => MessageKind::Note,
            },
            broadcast: false,
            number,
            sent_at: self.desk.now,
            deliveries: 0,
            delivery: None,
            not_before: None,
            dead: None,
            settled: None,
            key: None,
        };
        let Some(victims) = self.naive.victims(&message) else {
            return assert_eq!(sent.unwrap_err().code(), "work_full");
        };
        assert_eq!(sent.unwrap().displaced, victims.len());
        for victim in &victims {
            self.naive.tell(*victim);
        }
        for victim in victims {
            self.naive.bury(victim, self.desk.now);
        }
        self.naive.all.push(Known { message, deliveries: 0, at: At::Waiting });
        if let Some(Some(request)) = asked
            && let Some(request) = self.naive.find(request.message.id)
        {
            request.at = At::Settled(self.desk.now, Settlement::Answered);
        }
    }

    fn step(&mut self, (what, which, who, how): Roll) {
        let now = self.desk.now;
        let priority = Priority::ALL[how % self.priorities];
        let mut letter = note(NAMES[who % 3], NAMES[which % 3], priority);
        letter.from = (how % 5 > 0).then(|| self.party(who));
        if how % 3 > 0 {
            letter.body = Arc::clone(&self.large);
        }
        let token = self.tokens.get(which % self.tokens.len().max(1)).cloned();
        match what {
            0..=4 => self.send(letter),
            5 => {
                let reply_by = now + Duration::from_secs(1 + how as u64);
                let kind = LetterKind::Request { to: name(NAMES[which % 3]), reply_by };
                self.send(Letter { kind, from: Some(self.party(who)), ..letter });
            }
            6 => {
                let open: Vec<_> =
                    self.naive.all.iter().filter(|known| how % 4 == 0 || known.open_until().is_some()).collect();
                let Some(request) = open.get(which % open.len().max(1)).map(|known| known.message.clone()) else {
                    return;
                };
                let kind = LetterKind::Reply { to: request.id };
                let by = if how % 4 == 1 { self.party(who) } else { party(request.to.as_str(), 1) };
                self.send(Letter { kind, from: Some(by), ..letter });
            }
            7..=9 => {
                let party = self.party(who);
                let received = self.desk.receive(&party, 1 + how % 5);
                self.naive.tick(now);
                self.adopt();
                let queue = self.naive.queue(&party.id.name);
                let ready = queue.iter().filter(|known| known.at == At::Waiting).map(|known| known.message.id);
                let expected: Vec<_> = ready.take(1 + how % 5).collect();
                assert_eq!(received.iter().map(|message| message.id).collect::<Vec<_>>(), expected);
                for message in received {
                    let fence = fence(&message);
                    assert!(self.tokens.iter().all(|(.., other)| *other < fence), "tokens grow");
                    self.tokens.push((party.clone(), message.id, fence));
                    let known = self.naive.find(message.id).unwrap();
                    known.deliveries += 1;
                    known.at = At::Away(party.clone(), fence, now + LEASE);
                }
            }
            10..=12 => {
                let Some((party, id, fence)) = token else { return };
                let acked = self.desk.ack(&party, id, fence);
                match self.naive.find(id) {
                    Some(known) if matches!(&known.at, At::Away(_, current, _) if *current == fence) => {
                        known.at = At::Settled(now, Settlement::Acknowledged);
                        acked.unwrap();
                        assert!(self.acknowledged.insert(id), "acknowledged twice");
                    }
                    // Whether it is the token of the end is for the single tests to say; it changes nothing.
                    Some(Known { at: At::Settled(..), .. }) => {}
                    _ => drop(acked.unwrap_err()),
                }
            }
            13 => {
                let Some((party, id, fence)) = token else { return };
                let delay = Duration::from_secs((how % 3 * 20) as u64);
                let nacked = self.desk.nack(&party, id, fence, delay);
                match self.naive.find(id) {
                    Some(known) if matches!(&known.at, At::Away(_, current, _) if *current == fence) => {
                        nacked.unwrap();
                        self.naive.take_back(id, (!delay.is_zero()).then(|| now + delay), now);
                    }
                    _ => drop(nacked.unwrap_err()),
                }
            }
            14 => {
                // The next may live before the end of the one before is known.
                let mut party = self.party(who);
                if how % 3 > 0 {
                    self.incarnations[who % 3] += 1;
                }
                if how % 3 == 2 {
                    return;
                }
                party.incarnation = party.incarnation.map(|last| last - (which as u64 % last));
                self.desk.end(&party);
                let held: Vec<_> = self.naive.queue(&party.id.name).into_iter().cloned().collect();
                for known in held.iter().filter(|known| matches!(&known.at, At::Away(to, ..) if *to == party)) {
                    self.naive.take_back(known.message.id, None, now);
                }
            }
            15 | 16 => {
                self.desk.now += Duration::from_secs((how * how) as u64);
                self.desk.mail.tick(&mut self.desk.counter, self.desk.now);
                self.desk.write();
                self.naive.tick(self.desk.now);
            }
            17 => {
                let (mail, now) = (&mut self.desk.mail, self.desk.now);
                self.naive.tick(now);
                let dead = self.naive.dead();
                let Some(id) = dead.get(which % dead.len().max(1)).copied() else { return };
                let again = mail.redrive(&mut self.desk.counter, &swarm(), id, now);
                self.desk.write();
                let message = self.naive.find(id).unwrap().message.clone();
                if matches!(message.kind, MessageKind::Request { reply_by } if reply_by <= now) {
                    return assert_eq!(again.unwrap_err().code(), "request_not_open");
                }
                let Some(victims) = self.naive.victims(&message) else {
                    return assert_eq!(again.unwrap_err().code(), "work_full");
                };
                let known = self.naive.find(id).unwrap();
                (known.at, known.deliveries) = (At::Waiting, 0);
                assert_eq!(again.unwrap().displaced, victims.len());
                victims.iter().for_each(|victim| self.naive.tell(*victim));
                victims.into_iter().for_each(|victim| self.naive.bury(victim, now));
            }
            _ => {
                self.desk.restart();
                for known in &mut self.naive.all {
                    if let At::Away(_, _, until) = &mut known.at {
                        *until = now + LEASE;
                    }
                }
            }
        }
    }

    /// Takes in the notices that the mail has sent, if they are expected.
    fn adopt(&mut self) {
        for news in self.desk.news.drain(..) {
            let message = Message::clone(&news.message);
            let (MailTurn::Sent, MessageKind::Undelivered { of, .. }) = (news.turn, &message.kind) else { continue };
            let told = self.naive.told.iter().position(|told| *told == (*of, message.to.clone()));
            self.naive.told.remove(told.expect("a notice that nobody expects"));
            self.naive.all.push(Known { message, deliveries: 0, at: At::Waiting });
        }
    }

    /// Both say the same, what is written says it, too, and every bound holds.
    fn compare(&mut self) {
        self.adopt();
        assert_eq!(self.naive.told, [], "a sender was not told");
        let (mail, swarm) = (&self.desk.mail, swarm());
        for to in NAMES.map(name) {
            let ids: Vec<_> = mail.list(&swarm, Some(&to)).map(|message| message.id).collect();
            let expected: Vec<_> = self.naive.queue(&to).iter().map(|known| known.message.id).collect();
            assert_eq!(ids, expected, "the queue of {to}");
            let counts = mail.counts(&swarm).recipients.get(&to).copied().unwrap_or_default();
            assert_eq!(counts.waiting + counts.on_their_way, ids.len());
            let letters = mail.list(&swarm, Some(&to)).filter(|message| !is_notice(message));
            assert!(letters.map(|letter| bytes(letter)).sum::<usize>() <= QUEUE_BYTES_MAX);
        }
        let dead: Vec<_> = mail.dead(&swarm).map(|dead| dead.id).collect();
        assert_eq!(dead, self.naive.dead());
        assert!(mail.dead(&swarm).map(|dead| bytes(dead)).sum::<usize>() <= DEAD_BYTES_MAX);
        assert_eq!(mail.next_due(), self.naive.all.iter().filter_map(Known::due).min());
        let open = self.naive.all.iter().filter(|known| known.open_until().is_some()).count();
        assert_eq!(mail.counts(&swarm).open_requests, open);
        assert_eq!(self.desk.stored.len(), self.naive.all.len());
        for known in &self.naive.all {
            let copy = mail.copies(&swarm, known.message.id).next().unwrap();
            assert_eq!(copy.deliveries, known.deliveries);
            let at = match (&copy.settled, &copy.dead, &copy.delivery, copy.not_before) {
                (Some(settled), None, None, None) => At::Settled(settled.at, settled.how),
                (None, Some((at, _)), None, None) => At::Dead(*at),
                (None, None, Some(delivery), None) => At::Away(delivery.to.clone(), delivery.fence, delivery.until),
                (None, None, None, Some(until)) => At::Resting(until),
                (None, None, None, None) => At::Waiting,
                _ => panic!("in two places: {copy:?}"),
            };
            assert_eq!(at, known.at);
            let mut stored = self.desk.stored[&(copy.id, copy.to.clone())].clone();
            // A restart gives deliveries their time anew without writing that down.
            if let (Some(stored), Some(delivery)) = (&mut stored.delivery, &copy.delivery) {
                stored.until = delivery.until;
            }
            assert_eq!(stored, **copy, "what is written is what is there");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_nor_acknowledged_twice_nor_out_of_order(
        priorities in 1_usize..=4,
        first in vec((0_usize..3, 0_usize..20), 150..400),
        then in vec((0_usize..19, 0_usize..1_000, 0_usize..3, 0_usize..60), 0..200),
    ) {
        let mut pair = Pair::new(priorities);
        // A queue that is full, and many dead letters, so that every bound is met.
        for (who, how) in first {
            pair.step((0, 1, who, how * 3 + 1));
        }
        pair.compare();
        for roll in then {
            pair.step(roll);
            pair.compare();
        }
    }
}
