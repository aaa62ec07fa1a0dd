//! Who gets what, when and how often.

#![allow(clippy::unwrap_used, reason = "tests")]

mod bounds;
mod properties;
mod replies;

use std::time::UNIX_EPOCH;

use super::*;
use crate::{
    coordination::{Counter, Refused},
    model::{AgentId, Fence, MessageKind, Party, Priority},
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
/// The time for an acknowledgement.
const LEASE: Duration = Duration::from_secs(30);

fn swarm() -> SwarmName {
    "s".parse().unwrap()
}

fn name(name: &str) -> AgentName {
    name.parse().unwrap()
}

fn party(of: &str, incarnation: u64) -> Party {
    Party { id: AgentId { swarm: swarm(), name: name(of) }, incarnation: Some(incarnation) }
}

fn note(from: &str, to: &str, priority: Priority) -> Letter {
    Letter {
        swarm: swarm(),
        from: Some(party(from, 1)),
        kind: LetterKind::Note { to: To::One(name(to)) },
        to_client: false,
        priority,
        topic: Arc::from("t"),
        body: Arc::from("{}"),
        key: None,
    }
}

/// The mail, a counter, a clock, and what a store would hold.
struct Desk {
    mail: Mail,
    counter: Counter,
    now: SystemTime,
    stored: BTreeMap<(MessageId, AgentName), Message>,
    news: Vec<MailNews>,
}

impl Desk {
    fn new() -> Self {
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let mail = Mail::default();
        Self { mail, counter: Counter::behind(0), now, stored: BTreeMap::new(), news: Vec::new() }
    }

    /// Writes down what has changed, and says for whom something has arrived.
    fn write(&mut self) -> Vec<AgentName> {
        let changes = self.mail.drain();
        for copy in changes.put {
            self.stored.insert((copy.id, copy.to.clone()), Message::clone(&copy));
        }
        for id in changes.removed {
            self.stored.remove(&id);
        }
        self.news.extend(changes.news);
        changes.arrived.into_iter().map(|(_, to)| to).collect()
    }

    fn send(&mut self, letter: Letter) -> Result<Sent, Refused> {
        let sent = self.mail.send(&mut self.counter, letter, self.now);
        self.write();
        sent
    }

    fn note(&mut self, from: &str, to: &str, priority: Priority) -> MessageId {
        self.send(note(from, to, priority)).unwrap().id
    }

    fn request(&mut self, from: &str, to: &str, within: Duration) -> MessageId {
        let kind = LetterKind::Request { to: name(to), reply_by: self.now + within };
        self.send(Letter { kind, ..note(from, to, Priority::Normal) }).unwrap().id
    }

    fn reply(&mut self, from: &str, to: MessageId) -> Result<Sent, Refused> {
        self.send(Letter { kind: LetterKind::Reply { to }, ..note(from, "unused", Priority::Normal) })
    }

    fn receive(&mut self, party: &Party, max: usize) -> Vec<Arc<Message>> {
        self.receive_of(party, Wanted::default(), max)
    }

    fn receive_of(&mut self, party: &Party, wanted: Wanted<'_>, max: usize) -> Vec<Arc<Message>> {
        let received = self.mail.receive(&mut self.counter, party, wanted, max, LEASE, self.now).unwrap();
        self.write();
        received
    }

    fn one(&mut self, party: &Party) -> Arc<Message> {
        self.receive(party, 1).pop().unwrap()
    }

    fn ack(&mut self, party: &Party, id: MessageId, fence: Fence) -> Result<(), Refused> {
        let acked = self.mail.ack(party, id, fence, self.now);
        self.write();
        acked.map(drop)
    }

    fn nack(&mut self, party: &Party, id: MessageId, fence: Fence, delay: Duration) -> Result<(), Refused> {
        let nacked = self.mail.nack(&mut self.counter, party, id, fence, delay, self.now);
        self.write();
        nacked
    }

    /// Lets time pass as a daemon does: woken when something is due.
    fn pass(&mut self, time: Duration) -> Vec<AgentName> {
        let until = self.now + time;
        let mut arrived = Vec::new();
        while let Some(due) = self.mail.next_due().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.mail.tick(&mut self.counter, self.now);
            arrived.extend(self.write());
            assert!(self.mail.next_due().is_none_or(|next| next > self.now), "what is due is done");
        }
        self.now = until;
        arrived
    }

    fn end(&mut self, party: &Party) {
        self.mail.holder_ended(&mut self.counter, party, self.now);
        self.write();
    }

    /// Another daemon, from what is written.
    fn restart(&mut self) {
        self.mail = Mail::restore(self.stored.values().cloned().collect(), self.now);
    }

    fn copy(&self, id: MessageId) -> Arc<Message> {
        Arc::clone(self.mail.copies(&swarm(), id).next().unwrap())
    }

    fn waiting(&self, to: &str) -> Vec<MessageId> {
        self.mail.list(&swarm(), Some(&name(to))).map(|message| message.id).collect()
    }

    fn dead(&self) -> Vec<(MessageId, String)> {
        self.mail.dead(&swarm()).map(|dead| (dead.id, dead.dead.clone().unwrap().1)).collect()
    }

    fn counts(&self, of: &str) -> InboxCounts {
        self.mail.counts(&swarm()).recipients.get(&name(of)).copied().unwrap_or_default()
    }

    fn turns(&mut self) -> Vec<(MailTurn, MessageId)> {
        self.news.drain(..).map(|news| (news.turn, news.message.id)).collect()
    }

    /// Takes everything there is for a name and acknowledges it: which notices there were, of what and why.
    fn notices(&mut self, of: &str) -> Vec<(MessageId, String)> {
        let party = party(of, 99);
        let mut told = Vec::new();
        while let Some(message) = self.receive(&party, 1).pop() {
            self.ack(&party, message.id, fence(&message)).unwrap();
            if let MessageKind::Undelivered { of, reason } = &message.kind {
                told.push((*of, reason.clone()));
            }
        }
        told
    }
}

fn fence(message: &Message) -> Fence {
    message.delivery.as_ref().unwrap().fence
}

fn code(refused: Result<impl std::fmt::Debug, Refused>) -> (&'static str, String) {
    let refused = refused.unwrap_err();
    (refused.code(), refused.to_string())
}

#[test]
fn the_most_urgent_comes_first_and_of_these_the_oldest() {
    let mut desk = Desk::new();
    let [low, normal, high, normal_too, critical] =
        [Priority::Low, Priority::Normal, Priority::High, Priority::Normal, Priority::Critical]
            .map(|priority| desk.note("a", "b", priority));
    assert_eq!(desk.waiting("b"), [critical, high, normal, normal_too, low]);
    let b = party("b", 1);
    let first: Vec<_> = desk.receive(&b, 2).iter().map(|message| message.id).collect();
    assert_eq!(first, [critical, high]);
    let rest: Vec<_> = desk.receive(&b, 100).iter().map(|message| message.id).collect();
    assert_eq!(rest, [normal, normal_too, low]);
    assert_eq!(desk.receive(&b, 100), []);
    // What comes back takes its old place, not the last.
    let urgent = desk.note("a", "b", Priority::Normal);
    desk.end(&b);
    assert_eq!(desk.waiting("b"), [critical, high, normal, normal_too, urgent, low]);
}

#[test]
fn what_is_not_acknowledged_in_time_is_delivered_again_under_another_token() {
    let mut desk = Desk::new();
    let (b, id) = (party("b", 1), desk.note("a", "b", Priority::Normal));
    let first = desk.one(&b);
    assert_eq!((first.deliveries, desk.counts("b").on_their_way), (1, 1));
    assert_eq!(desk.pass(LEASE - SECOND), []);
    assert_eq!(desk.receive(&b, 1), []);
    assert_eq!(desk.pass(SECOND), [name("b")], "whoever waits is to be woken");
    let late = code(desk.ack(&b, id, fence(&first)));
    assert_eq!(late.0, "stale_token");
    assert!(late.1.ends_with("waits to be delivered again"), "{}", late.1);
    let second = desk.one(&b);
    assert!(fence(&second) > fence(&first));
    assert_eq!((second.id, second.deliveries), (id, 2));
    let late = code(desk.ack(&b, id, fence(&first)));
    assert_eq!(late.0, "stale_token");
    assert!(late.1.ends_with("on its way to s/b#1 under another"), "{}", late.1);
    desk.ack(&b, id, fence(&second)).unwrap();
    assert_eq!(desk.waiting("b"), []);
    assert_eq!(desk.receive(&b, 1), []);
}

/// While the daemon itself was stopped nobody could acknowledge.
#[test]
fn after_a_gap_everything_on_its_way_has_its_full_time_anew() {
    let mut desk = Desk::new();
    let (b, id) = (party("b", 1), desk.note("a", "b", Priority::Normal));
    let message = desk.one(&b);
    desk.now += 10 * LEASE;
    desk.mail.renew_all(desk.now);
    desk.write();
    assert_eq!(desk.pass(LEASE - SECOND), []);
    desk.ack(&b, id, fence(&message)).unwrap();
}

#[test]
fn an_acknowledgement_said_twice_is_heard_twice_and_counts_once() {
    let mut desk = Desk::new();
    let (b, id) = (party("b", 1), desk.note("a", "b", Priority::Normal));
    let message = desk.one(&b);
    for _ in 0..2 {
        desk.ack(&b, id, fence(&message)).unwrap();
        desk.restart();
    }
    let acknowledged = desk.turns().into_iter().filter(|(turn, _)| *turn == MailTurn::Acknowledged).count();
    assert_eq!(acknowledged, 1);
    assert!(desk.copy(id).body.is_empty(), "its text is needed no more");
    let other = code(desk.ack(&b, id, Fence(fence(&message).0 + 1)));
    assert_eq!(other.0, "stale_token");
    assert!(other.1.ends_with("the message is acknowledged"), "{}", other.1);
    let handed_back = code(desk.nack(&b, id, fence(&message), Duration::ZERO));
    assert_eq!(handed_back.0, "stale_token");
    // It is remembered for a while, not for ever.
    desk.pass(SETTLED_KEPT);
    assert_eq!(code(desk.ack(&b, id, fence(&message))).0, "unknown_message");
    assert!(desk.stored.is_empty());
}

#[test]
fn a_token_is_good_for_its_own_message_party_and_swarm_only() {
    let mut desk = Desk::new();
    let (b, id) = (party("b", 1), desk.note("a", "b", Priority::Normal));
    let message = desk.one(&b);
    assert_eq!(code(desk.ack(&party("c", 1), id, fence(&message))).0, "unknown_message");
    let mut elsewhere = b.clone();
    elsewhere.id.swarm = "other".parse().unwrap();
    assert_eq!(code(desk.ack(&elsewhere, id, fence(&message))).0, "unknown_message");
    assert_eq!(desk.mail.copies(&elsewhere.id.swarm, id).count(), 0);
    assert_eq!(code(desk.ack(&b, MessageId::mint(), fence(&message))).0, "unknown_message");
    assert_eq!(code(desk.ack(&party("b", 2), id, fence(&message))).0, "stale_token");
    desk.ack(&b, id, fence(&message)).unwrap();
}

#[test]
fn what_an_incarnation_leaves_is_its_successors_at_once() {
    let mut desk = Desk::new();
    let id = desk.note("a", "b", Priority::Normal);
    let (first, second) = (party("b", 1), party("b", 2));
    let taken = desk.one(&first);
    assert_eq!(desk.receive(&second, 1), [], "the first may still be alive");
    desk.mail.holder_ended(&mut desk.counter, &first, desk.now);
    assert_eq!(desk.write(), [name("b")]);
    assert_eq!(desk.one(&second).id, id);
    // A late word of the first one's end does not touch what the second has.
    desk.end(&first);
    assert_eq!(desk.counts("b").on_their_way, 1);
    assert_eq!(code(desk.ack(&first, id, fence(&taken))).0, "stale_token");
}

#[test]
fn after_so_many_deliveries_a_message_is_a_dead_letter_and_its_sender_is_told() {
    for end in ["time", "nack", "holder"] {
        let mut desk = Desk::new();
        let id = desk.note("a", "b", Priority::High);
        for incarnation in 1..=u64::from(DELIVERIES_MAX) {
            assert_eq!(desk.dead(), []);
            let b = party("b", incarnation);
            let message = desk.one(&b);
            match end {
                "time" => drop(desk.pass(LEASE)),
                "nack" => desk.nack(&b, id, fence(&message), Duration::ZERO).unwrap(),
                _ => desk.end(&b),
            }
        }
        assert_eq!(desk.receive(&party("b", 9), 1), [], "a dead letter is delivered to nobody");
        let [(dead, reason)] = &desk.dead()[..] else { panic!("{:?}", desk.dead()) };
        assert_eq!(*dead, id);
        assert!(reason.starts_with("not_acknowledged: delivered 5 times, the last time to s/b#5: "), "{reason}");
        let stale = code(desk.ack(&party("b", 5), id, Fence(1)));
        assert_eq!(stale.0, "stale_token");
        assert!(stale.1.contains("given up: not_acknowledged"), "{}", stale.1);
        desk.restart();
        let notice = desk.one(&party("a", 2));
        assert_eq!((notice.priority, &*notice.topic, &*notice.body), (Priority::High, "t", r#"{"to":"b"}"#));
        assert_eq!(notice.kind, MessageKind::Undelivered { of: id, reason: reason.clone() });
        assert_eq!((notice.from.clone(), desk.counts("b").dead), (None, 1));
    }
}

#[test]
fn nobody_is_told_of_a_notice_that_nobody_takes() {
    let mut desk = Desk::new();
    desk.request("a", "b", SECOND);
    desk.pass(SECOND);
    desk.news.clear();
    for _ in 0..DELIVERIES_MAX {
        assert_eq!(desk.receive(&party("a", 1), 9).len(), 1);
        desk.pass(LEASE);
    }
    assert_eq!(desk.turns().last().unwrap().0, MailTurn::Lost);
    assert_eq!((desk.dead(), desk.waiting("a"), desk.waiting("b")), (vec![], vec![], vec![]));
    // Nor does one wait for ever.
    desk.request("a", "b", SECOND);
    desk.pass(SECOND + NOTICE_KEPT - SECOND);
    assert_eq!(desk.waiting("a").len(), 1);
    desk.pass(SECOND);
    assert_eq!(desk.waiting("a").len(), 0);
    assert!(desk.stored.is_empty());
}

#[test]
fn a_message_handed_back_waits_as_long_as_was_asked() {
    let mut desk = Desk::new();
    let (b, id) = (party("b", 1), desk.note("a", "b", Priority::Normal));
    let message = desk.one(&b);
    desk.nack(&b, id, fence(&message), MINUTE).unwrap();
    desk.restart();
    assert_eq!(desk.pass(MINUTE - SECOND), []);
    assert_eq!((desk.receive(&b, 1), desk.counts("b").waiting), (vec![], 1));
    assert_eq!(desk.pass(SECOND), [name("b")]);
    assert_eq!(desk.one(&b).deliveries, 2);
    let long = desk.nack(&b, id, Fence(0), REDELIVERY_MAX + SECOND);
    assert_eq!(code(long).1, "delay_ms: found 86401000, allowed 0 to 86400000");
}

#[test]
fn the_same_key_is_the_same_sending() {
    let mut desk = Desk::new();
    let keyed = |from: &str, to: &str| Letter { key: Some(Arc::from("k")), ..note(from, to, Priority::Normal) };
    let sent = desk.send(keyed("a", "b")).unwrap();
    let number = desk.counter.last();
    let mut by_successor = keyed("a", "b");
    by_successor.from = Some(party("a", 2));
    desk.restart();
    let again = desk.send(by_successor.clone()).unwrap();
    assert_eq!((again.id, again.repeated, again.recipients), (sent.id, true, vec![name("b")]));
    assert_eq!((desk.waiting("b").len(), desk.counter.last()), (1, number));
    // Another sender's key is another key; another message under the same is refused rather than lost.
    assert_ne!(desk.send(keyed("c", "b")).unwrap().id, sent.id);
    let reused = code(desk.send(Letter { body: Arc::from("[]"), ..keyed("a", "b") }));
    assert_eq!(reused, ("key_reused", "key \"k\" was used for something else".to_owned()));
    assert_eq!(code(desk.send(keyed("a", "c"))).0, "key_reused");
    // After the acknowledgement it is known for a while.
    let b = party("b", 1);
    let message = desk.one(&b);
    desk.ack(&b, message.id, fence(&message)).unwrap();
    desk.restart();
    desk.pass(SETTLED_KEPT - SECOND);
    assert!(desk.send(keyed("a", "b")).unwrap().repeated);
    desk.pass(SECOND);
    assert_ne!(desk.send(keyed("a", "b")).unwrap().id, sent.id);
}

#[test]
fn what_is_a_dead_letter_may_be_sent_again_under_its_key() {
    let mut desk = Desk::new();
    let letter = Letter { key: Some(Arc::from("k")), ..note("a", "b", Priority::Normal) };
    let sent = desk.send(letter.clone()).unwrap();
    desk.mail.forget_recipient(&mut desk.counter, &swarm(), &name("b"), desk.now);
    let again = desk.send(letter).unwrap();
    assert!(again.id != sent.id && !again.repeated);
    desk.mail.redrive(&mut desk.counter, &swarm(), sent.id, desk.now).unwrap();
    assert_eq!(desk.waiting("b"), [sent.id, again.id]);
}

#[test]
fn a_dead_letter_can_be_put_back() {
    let mut desk = Desk::new();
    let request = desk.request("a", "b", MINUTE);
    let note = desk.note("a", "b", Priority::Low);
    desk.mail.forget_recipient(&mut desk.counter, &swarm(), &name("b"), desk.now);
    assert_eq!(desk.write(), [name("a")]);
    assert_eq!((desk.dead().len(), desk.mail.counts(&swarm()).open_requests), (2, 0));
    assert_eq!(desk.notices("a").len(), 2);
    desk.restart();
    let back = desk.mail.redrive(&mut desk.counter, &swarm(), request, desk.now).unwrap();
    assert_eq!((back.recipients, desk.write()), (vec![name("b")], vec![name("b")]));
    assert_eq!(desk.waiting("b"), [request]);
    desk.reply("b", request).unwrap();
    // It has all its deliveries anew, and no place at the cost of newer ones.
    for _ in 0..QUEUE_MAX {
        desk.note("a", "b", Priority::Low);
    }
    let redrive = |desk: &mut Desk, id| desk.mail.redrive(&mut desk.counter, &swarm(), id, desk.now);
    assert_eq!(code(redrive(&mut desk, note)).0, "work_full");
    assert_eq!(code(redrive(&mut desk, request)).0, "unknown_message");
    let other = "other".parse().unwrap();
    assert_eq!(code(desk.mail.redrive(&mut desk.counter, &other, note, desk.now)).0, "unknown_message");
    // A request that nobody may answer any more stays dead.
    let request = desk.request("a", "c", MINUTE);
    desk.mail.forget_recipient(&mut desk.counter, &swarm(), &name("c"), desk.now);
    desk.pass(MINUTE);
    assert_eq!(code(redrive(&mut desk, request)).0, "request_not_open");
}

#[test]
fn filters_choose_by_topic_and_by_request() {
    let mut desk = Desk::new();
    let topics = ["build", "build/a", "test", ""];
    let ids = topics
        .map(|topic| desk.send(Letter { topic: Arc::from(topic), ..note("a", "b", Priority::Normal) }).unwrap().id);
    let b = party("b", 1);
    for (filters, expected) in [
        (&["build"][..], &[0][..]),
        (&["build*"], &[0, 1]),
        (&["build/*", "test"], &[1, 2]),
        (&[""], &[3]),
        (&["*"], &[0, 1, 2, 3]),
        (&[], &[0, 1, 2, 3]),
        (&["other", "buil"], &[]),
    ] {
        let filters: Vec<Arc<str>> = filters.iter().map(|filter| Arc::from(*filter)).collect();
        let wanted = Wanted { topics: &filters, about: None };
        let got: Vec<_> = desk.receive_of(&b, wanted, 9).iter().map(|message| message.id).collect();
        assert_eq!(got, expected.iter().map(|at| ids[*at]).collect::<Vec<_>>(), "{filters:?}");
        // Given back at once, without a delivery's being counted for ever.
        desk.end(&b);
        desk.mail = Mail::restore(
            desk.stored.values().map(|copy| Message { deliveries: 0, ..copy.clone() }).collect(),
            desk.now,
        );
    }
    let (asked, unanswered) = (desk.request("b", "c", MINUTE), desk.request("b", "c", SECOND));
    desk.pass(SECOND);
    let reply = desk.reply("c", asked).unwrap().id;
    let about = |about| Wanted { topics: &[], about: Some(about) };
    assert_eq!(desk.receive_of(&b, about(asked), 9).iter().map(|got| got.id).collect::<Vec<_>>(), [reply]);
    let [notice] = &desk.receive_of(&b, about(unanswered), 9)[..] else { panic!("no notice") };
    assert!(matches!(&notice.kind, MessageKind::Undelivered { of, .. } if *of == unanswered));
    let bad = [Arc::from("a*b")];
    let wanted = Wanted { topics: &bad, about: None };
    let refused = desk.mail.receive(&mut desk.counter, &b, wanted, 1, LEASE, desk.now);
    assert_eq!(code(refused).1, "topics: found '*', allowed 0 to 128 bytes in one line, without '*'");
}
