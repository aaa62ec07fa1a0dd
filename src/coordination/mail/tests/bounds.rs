//! What has a bound, and what happens there.

use super::*;
use crate::model::Settlement;

/// A queue elsewhere that was sorted by urgency dropped from the wrong end.
#[test]
fn a_full_queue_drops_the_least_urgent_and_of_these_the_oldest() {
    let mut desk = Desk::new();
    let urgent: Vec<_> = (0..QUEUE_MAX - 2).map(|_| desk.note("a", "b", Priority::Critical)).collect();
    let [low, low_too] = [(); 2].map(|()| desk.note("low", "b", Priority::Low));
    // Sends one more, and says who made room for it.
    let displaced = |desk: &mut Desk, from: &str, priority| {
        desk.news.clear();
        let sent = desk.send(note(from, "b", priority)).unwrap();
        assert_eq!((sent.displaced, &sent.recipients[..]), (1, &[name("b")][..]));
        let turns = desk.turns();
        assert_eq!((turns[0].0, turns[1], turns.len()), (MailTurn::Died, (MailTurn::Sent, sent.id), 3));
        (sent.id, turns[0].1)
    };
    // One as little urgent, but newer, takes the place of the oldest.
    let (newer, gone) = displaced(&mut desk, "low", Priority::Low);
    assert_eq!(gone, low);
    assert_eq!(desk.dead(), [(low, send::QUEUE_FULL.to_owned())]);
    let (high, gone) = displaced(&mut desk, "a", Priority::High);
    assert_eq!(gone, low_too);
    let (critical, gone) = displaced(&mut desk, "a", Priority::Critical);
    assert_eq!(gone, newer);
    // One that is less urgent than all of them is refused, and nothing changes.
    let full = code(desk.send(note("low", "b", Priority::Low)));
    assert_eq!(full, ("work_full", "messages of this recipient: at most 1000 are allowed".to_owned()));
    let (newest, gone) = displaced(&mut desk, "a", Priority::Critical);
    assert_eq!(gone, high);
    let (last, gone) = displaced(&mut desk, "a", Priority::Critical);
    assert_eq!(gone, urgent[0]);
    let expected: Vec<_> = urgent[1..].iter().copied().chain([critical, newest, last]).collect();
    assert_eq!(desk.waiting("b"), expected);
    assert_eq!((desk.counts("b").dropped, desk.counts("b").dead, desk.counts("b").waiting), (5, 5, QUEUE_MAX));
    let told: Vec<_> = desk.notices("low").into_iter().map(|(of, _)| of).collect();
    assert_eq!(told, [low, low_too, newer]);
    let full = || send::QUEUE_FULL.to_owned();
    assert_eq!(desk.notices("a"), [(urgent[0], full()), (high, full())]);
}

#[test]
fn what_somebody_has_already_makes_no_room() {
    let mut desk = Desk::new();
    for _ in 0..QUEUE_MAX {
        desk.note("a", "b", Priority::Low);
    }
    let b = party("b", 1);
    let mut taken = Vec::new();
    while taken.len() < QUEUE_MAX {
        taken.extend(desk.receive(&b, RECEIVED_MAX));
    }
    assert_eq!(code(desk.send(note("a", "b", Priority::Critical))).0, "work_full");
    desk.ack(&b, taken[0].id, fence(&taken[0])).unwrap();
    desk.note("a", "b", Priority::Critical);
    assert_eq!(desk.dead(), []);
}

#[test]
fn a_queue_is_bounded_in_bytes_too() {
    let mut desk = Desk::new();
    let body: Arc<str> = Arc::from("x".repeat(BODY_MAX));
    let large = |priority| Letter { body: Arc::clone(&body), ..note("a", "b", priority) };
    while desk.dead().is_empty() {
        desk.send(large(Priority::High)).unwrap();
    }
    let counts = desk.counts("b");
    assert_eq!(counts.waiting, QUEUE_BYTES_MAX / (counts.bytes / counts.waiting));
    assert!(counts.bytes <= QUEUE_BYTES_MAX);
    let full = code(desk.send(large(Priority::Normal)));
    assert_eq!(full.1, "bytes of messages of this recipient: at most 8388608 are allowed");
    // A small one of many that are small makes no room for a large one unless all of them go that have to.
    let mut desk = Desk::new();
    for _ in 0..QUEUE_MAX - 10 {
        let body = Arc::from("x".repeat(7_930));
        desk.send(Letter { body, ..note("a", "b", Priority::Normal) }).unwrap();
    }
    let sent = desk.send(Letter { body, ..note("a", "b", Priority::Normal) }).unwrap();
    assert_eq!(sent.displaced, desk.dead().len());
    assert!(sent.displaced > 1 && desk.counts("b").bytes <= QUEUE_BYTES_MAX, "{sent:?}");
    assert!(desk.counts("b").bytes > QUEUE_BYTES_MAX - 8_500, "no more than had to");
}

#[test]
fn notices_take_nobodys_place_and_have_a_bound_of_their_own() {
    let mut desk = Desk::new();
    for _ in 0..QUEUE_MAX {
        desk.note("b", "a", Priority::Low);
    }
    for _ in 0..=NOTICES_MAX {
        desk.request("a", "b", SECOND);
    }
    let first = desk.waiting("b")[0];
    desk.news.clear();
    desk.pass(SECOND);
    assert_eq!(desk.dead().len(), 1, "the request that made room for the last");
    let waiting = desk.waiting("a").len();
    assert_eq!(waiting, QUEUE_MAX + NOTICES_MAX);
    let lost = desk.turns().into_iter().filter(|(turn, _)| *turn == MailTurn::Lost).count();
    assert_eq!((lost, desk.counts("a").dropped), (1, 1));
    // Newer notes still push out the oldest of the same kind, not the notices.
    let sent = desk.send(note("b", "a", Priority::Low)).unwrap();
    assert_eq!((sent.displaced, desk.waiting("a").len()), (1, waiting));
    assert_eq!(desk.copy(first).settled.unwrap().how, Settlement::Unanswered);
}

#[test]
fn everybody_has_his_own_copy_of_a_broadcast() {
    let mut desk = Desk::new();
    for _ in 0..QUEUE_MAX {
        desk.note("a", "d", Priority::Critical);
    }
    let members = ["b", "c", "d", "b"].map(name).to_vec();
    let letter = Letter { kind: LetterKind::Note { to: To::All(members) }, ..note("a", "unused", Priority::Normal) };
    let sent = desk.send(letter.clone()).unwrap();
    assert_eq!((sent.recipients, sent.full), (vec![name("b"), name("c")], vec![name("d")]));
    let b = party("b", 1);
    let copy = desk.one(&b);
    assert!(copy.broadcast);
    desk.ack(&b, sent.id, fence(&copy)).unwrap();
    assert_eq!(desk.waiting("c"), [sent.id]);
    assert_eq!(desk.mail.copies(&swarm(), sent.id).count(), 2);
    // One for whom there is no room with anybody is refused; one for nobody is not.
    let alone = |members| Letter { kind: LetterKind::Note { to: To::All(members) }, ..letter.clone() };
    assert_eq!(code(desk.send(alone(vec![name("d")]))).0, "work_full");
    assert_eq!(desk.send(alone(Vec::new())).unwrap().recipients, []);
}

#[test]
fn dead_letters_are_bounded_and_the_oldest_go() {
    let mut desk = Desk::new();
    let first = desk.note("a", "b", Priority::Normal);
    desk.mail.forget_recipient(&mut desk.counter, &swarm(), &name("b"), desk.now);
    desk.pass(SECOND);
    for _ in 0..QUEUE_MAX {
        desk.note("x", "b", Priority::Normal);
    }
    desk.news.clear();
    desk.mail.forget_recipient(&mut desk.counter, &swarm(), &name("b"), desk.now);
    desk.write();
    assert_eq!((desk.dead().len(), desk.mail.counts(&swarm()).lost), (DEAD_MAX, 1));
    assert!(desk.turns().contains(&(MailTurn::Lost, first)));
    assert!(!desk.stored.keys().any(|(id, _)| *id == first));
    let body: Arc<str> = Arc::from("x".repeat(BODY_MAX));
    for _ in 0..200 {
        desk.send(Letter { body: Arc::clone(&body), ..note("a", "b", Priority::Normal) }).unwrap();
        desk.mail.forget_recipient(&mut desk.counter, &swarm(), &name("b"), desk.now);
    }
    assert_eq!(desk.dead().len(), DEAD_BYTES_MAX / shelf::bytes(desk.mail.dead(&swarm()).last().unwrap()));
}

#[test]
fn what_cannot_be_is_refused_with_what_is_allowed() {
    let mut desk = Desk::new();
    let good = || note("a", "b", Priority::Normal);
    let elsewhere = AgentId { swarm: "other".parse().unwrap(), name: name("a") };
    for (letter, expected) in [
        (Letter { topic: Arc::from("x".repeat(129)), ..good() }, "topic: found 129 bytes, allowed 0 to 128 bytes"),
        (Letter { topic: Arc::from("a\nb"), ..good() }, "topic: found '\\n', allowed"),
        (Letter { key: Some(Arc::from("")), ..good() }, "key: found 0 bytes, allowed 1 to 128 bytes"),
        (
            Letter { body: Arc::from("x".repeat(BODY_MAX + 1)), ..good() },
            "body: found 65537 bytes, allowed at most 65536",
        ),
        (
            Letter { from: Some(Party { id: elsewhere, incarnation: None }), ..good() },
            "from: found other/a, allowed a member of s",
        ),
        (
            Letter { kind: LetterKind::Note { to: To::All(vec![name("b"); RECIPIENTS_MAX + 1]) }, ..good() },
            "to: found 10001 recipients, allowed at most 10000",
        ),
    ] {
        let (code, text) = code(desk.send(letter));
        assert_eq!(code, "invalid_work");
        assert!(text.starts_with(expected), "{text}");
    }
    assert!(desk.stored.is_empty() && desk.news.is_empty());
    let mut receive = |max, after| {
        code(desk.mail.receive(&mut desk.counter, &party("b", 1), Wanted::default(), max, after, desk.now)).1
    };
    assert_eq!(receive(0, LEASE), "max: found 0, allowed 1 to 100");
    assert_eq!(receive(101, LEASE), "max: found 101, allowed 1 to 100");
    assert_eq!(receive(1, Duration::ZERO), "redeliver_after_ms: found 0, allowed 1 to 86400000");
}

#[test]
fn one_answer_has_a_bound_in_bytes_and_keeps_the_order() {
    let mut desk = Desk::new();
    let body: Arc<str> = Arc::from("x".repeat(BODY_MAX));
    for _ in 0..10 {
        desk.send(Letter { body: Arc::clone(&body), ..note("a", "b", Priority::Normal) }).unwrap();
    }
    let small = desk.note("a", "b", Priority::Normal);
    let b = party("b", 1);
    assert_eq!(desk.receive(&b, 100).len(), 7);
    let rest: Vec<_> = desk.receive(&b, 100).iter().map(|message| message.id).collect();
    assert_eq!((rest.len(), rest.last()), (4, Some(&small)));
}

#[test]
fn a_swarm_has_a_bound_of_recipients() {
    let mut desk = Desk::new();
    let kind = |from: usize, to: usize| LetterKind::Note {
        to: To::All((from..to).map(|at| name(&format!("r{at}"))).collect()),
    };
    let all = |kind| Letter { kind, ..note("r0", "unused", Priority::Normal) };
    assert_eq!(desk.send(all(kind(0, RECIPIENTS_MAX))).unwrap().recipients.len(), RECIPIENTS_MAX);
    let to_client = Letter { to_client: true, ..note("r0", "one-more", Priority::Critical) };
    assert_eq!(code(desk.send(to_client)).1, "recipients of the swarm: at most 10000 are allowed");
    // Agents have places that no client can take.
    assert_eq!(desk.send(all(kind(5, RECIPIENTS_MAX + 5))).unwrap().full.len(), 0);
    assert_eq!(desk.send(all(kind(RECIPIENTS_MAX + 5, 2 * RECIPIENTS_MAX + 5))).unwrap().full.len(), 5);
    let full = code(desk.send(note("r0", "one-more", Priority::Critical)));
    assert_eq!(full.1, "recipients of the swarm: at most 20000 are allowed");
    // A notice that would need another recipient is counted as lost.
    desk.mail.forget_recipient(&mut desk.counter, &swarm(), &name("r7"), desk.now);
    desk.note("r0", "one-more", Priority::Critical);
    // A swarm that is gone leaves nothing, and others are left alone.
    let other = Letter { swarm: "other".parse().unwrap(), from: None, ..note("x", "b", Priority::Low) };
    desk.send(other).unwrap();
    desk.mail.forget_swarm(&swarm());
    desk.write();
    assert_eq!(desk.stored.len(), 1);
    assert_eq!(desk.mail.counts(&swarm()), SwarmCounts::default());
    assert_eq!(desk.mail.list(&"other".parse().unwrap(), None).count(), 1);
    assert_eq!(desk.mail.next_due(), None);
}
