#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::SystemTime;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::{
    model::{HiveId, Topic},
    notify::{
        sighting::{Document, Found, Sighting},
        watch::News,
    },
};

const HOUR: Duration = Duration::from_secs(3600);

fn speaker() -> Speaker {
    let hive: HiveId = "6f1ae1f6-6a0c-4a8b-9c3c-0d4d7f0e2a11".parse().unwrap();
    Speaker { hive, name: "test".to_owned() }
}

fn message(seq: u64, subject: &str, topic: Topic) -> Message {
    let found = if topic == Topic::Recovered { Found::Good("running".to_owned()) } else { Found::Bad(Trouble::Failed) };
    let sighting = Sighting {
        id: format!("1/{seq}"),
        seq: Seq(seq),
        at: SystemTime::UNIX_EPOCH,
        subject: Subject::parse(subject).unwrap(),
        found,
        document: Document::Stored(Arc::from(r#"{"reasons":[{"code":"x","detail":"it broke"}]}"#)),
    };
    speaker().tell(&News { topic, trouble: Trouble::Failed, sighting, relapses: 2 })
}

fn sent(outbox: &mut Outbox, now: Instant) -> Option<Arc<Message>> {
    match outbox.next(now, &speaker()) {
        Next::Send(message) => Some(message),
        Next::Wait(_) | Next::Nothing => None,
    }
}

fn json(message: &Message) -> Value {
    serde_json::from_str(&message.body).unwrap()
}

#[test]
fn a_message_is_a_cloud_event() {
    let body = json(&message(7, "review/coder", Topic::Failed));
    let expected = serde_json::json!({
        "specversion": "1.0", "id": "1/7", "source": "/hives/6f1ae1f6-6a0c-4a8b-9c3c-0d4d7f0e2a11",
        "type": "dev.hivekeeper.agent.failed", "subject": "review/coder", "time": "1970-01-01T00:00:00.000Z",
        "datacontenttype": "application/json",
        "data": {
            "hive": "test", "text": "review/coder failed: it broke",
            "agent": { "reasons": [{ "code": "x", "detail": "it broke" }] },
        },
    });
    assert_eq!(body, expected);
    let body = json(&message(8, "", Topic::Recovered));
    assert_eq!(body["type"], "dev.hivekeeper.hive.recovered");
    assert_eq!(body.get("subject"), None, "CloudEvents forbids an empty one");
    let data = &body["data"];
    assert_eq!((&data["was"], &data["now"], &data["relapses"]), (&"failed".into(), &"running".into(), &2.into()));
    assert_eq!(data["text"], "the hive, which was failed, is running");
}

#[test]
fn a_document_that_is_too_long_is_left_out() {
    let found = Found::Bad(Trouble::Stuck);
    let document = Document::Stored(Arc::from(format!("{{\"progress\":\"{}\"}}", "x".repeat(100_000))));
    let subject = Subject::parse("s/a").unwrap();
    let sighting = Sighting { id: "1/1".to_owned(), seq: Seq(1), at: SystemTime::UNIX_EPOCH, subject, found, document };
    let told = speaker().tell(&News { topic: Topic::Stuck, trouble: Trouble::Stuck, sighting, relapses: 0 });
    assert!(told.body.len() < 1000);
    assert_eq!(json(&told)["data"]["document_left_out"], true);
}

/// The issue's own example: ten go out, and then one that stands for 37.
#[test]
fn what_is_too_much_is_summed_up() {
    let now = Instant::now();
    let mut outbox = Outbox::new(10, HOUR, now);
    for n in 1..=47 {
        outbox.offer(message(n, &format!("s/a-{n}"), Topic::Failed), now);
    }
    for n in 1..=10 {
        assert_eq!(sent(&mut outbox, now).unwrap().seq, Seq(n));
        assert_eq!(outbox.delivered().len(), 1);
    }
    let Next::Wait(until) = outbox.next(now, &speaker()) else { panic!("the minute is spent") };
    assert!(until - now <= Duration::from_millis(6010), "{:?}", until - now);
    let summary = sent(&mut outbox, until).unwrap();
    let body = json(&summary);
    assert_eq!(body["type"], "dev.hivekeeper.summary");
    assert_eq!(body["data"]["messages"], 37);
    assert_eq!(body["data"]["text"], "37 more: 37 agent.failed");
    assert_eq!(body["data"]["by_type"]["dev.hivekeeper.agent.failed"], 37);
    assert_eq!((summary.id.as_str(), summary.stands_for), ("1/47/summary", 37));
    assert_eq!(outbox.told_upto(Seq(50)), Seq(10));
    assert_eq!(outbox.delivered().len(), 37);
    assert_eq!((outbox.told_upto(Seq(50)), outbox.waiting()), (Seq(50), 0));
    assert_eq!((outbox.counts.delivered, outbox.counts.summed_up), (11, 37));
    assert_eq!(outbox.next(until, &speaker()), Next::Nothing);
}

#[test]
fn one_that_waits_alone_is_told_as_it_is() {
    let now = Instant::now();
    let mut outbox = Outbox::new(1, HOUR, now);
    outbox.offer(message(1, "s/a", Topic::Failed), now);
    outbox.offer(message(2, "s/b", Topic::Failed), now);
    assert_eq!(sent(&mut outbox, now).unwrap().id, "1/1");
    outbox.delivered();
    assert_eq!(sent(&mut outbox, now), None);
    assert_eq!(sent(&mut outbox, now + Duration::from_secs(61)).unwrap().id, "1/2");
    assert_eq!(outbox.counts.summed_up, 0);
}

#[test]
fn an_attempt_that_fails_is_made_again_ever_later() {
    let now = Instant::now();
    let mut outbox = Outbox::new(10, HOUR, now);
    outbox.offer(message(1, "s/a", Topic::Failed), now);
    let mut at = now;
    let mut waits = Vec::new();
    for _ in 0..8 {
        assert_eq!(sent(&mut outbox, at).unwrap().id, "1/1");
        assert_eq!(outbox.failed(&Failure::of("no"), at, 0.5), []);
        let Next::Wait(until) = outbox.next(at, &speaker()) else { panic!("it waits") };
        waits.push((until - at).as_secs());
        at = until;
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    let asked = Failure { retry_after: Some(Duration::from_secs(100)), ..Failure::of("busy") };
    assert!(sent(&mut outbox, at).is_some());
    assert_eq!(outbox.failed(&asked, at, 0.5), []);
    assert_eq!(outbox.next(at, &speaker()), Next::Wait(at + Duration::from_secs(100)));
    at += Duration::from_secs(100);
    assert!(sent(&mut outbox, at).is_some());
    let forever = Failure { retry_after: Some(HOUR), ..Failure::of("never") };
    assert_eq!(outbox.failed(&forever, at, 0.5), []);
    assert_eq!(outbox.next(at, &speaker()), Next::Wait(at + ASKED_MAX), "a receiver can't ask for any wait");
    let spread = |chance| {
        let mut outbox = Outbox::new(10, HOUR, now);
        outbox.offer(message(1, "s/a", Topic::Failed), now);
        assert!(sent(&mut outbox, now).is_some());
        assert_eq!(outbox.failed(&Failure::of("no"), now, chance), []);
        let Next::Wait(until) = outbox.next(now, &speaker()) else { panic!("it waits") };
        until - now
    };
    assert_eq!((spread(0.0), spread(1.0)), (Duration::from_millis(750), Duration::from_millis(1250)));
}

#[test]
fn a_receiver_that_was_away_for_long_gets_a_summary() {
    let now = Instant::now();
    let mut outbox = Outbox::new(10, HOUR, now);
    for n in 1..=3 {
        outbox.offer(message(n, &format!("s/a-{n}"), Topic::Failed), now);
    }
    let mut at = now;
    while at < now + 2 * HOUR {
        if sent(&mut outbox, at).is_some() {
            assert_eq!(outbox.failed(&Failure::of("no"), at, 0.5), [], "nothing is let go");
        }
        at += Duration::from_secs(10);
    }
    assert_eq!(outbox.waiting(), 3);
    assert_eq!(outbox.told_upto(Seq(9)), Seq(0));
    let summary = loop {
        at += Duration::from_secs(10);
        if let Some(message) = sent(&mut outbox, at) {
            break message;
        }
    };
    assert_eq!(json(&summary)["data"]["messages"], 3);
    assert_eq!(outbox.delivered().len(), 3);
    assert_eq!((outbox.waiting(), outbox.counts.summed_up, outbox.counts.lost), (0, 3, 0));
}

#[test]
fn what_the_receiver_refuses_is_let_go_and_counted() {
    let now = Instant::now();
    let mut outbox = Outbox::new(10, HOUR, now);
    outbox.offer(message(1, "s/a", Topic::Failed), now);
    outbox.offer(message(2, "s/b", Topic::Failed), now);
    assert!(sent(&mut outbox, now).is_some());
    let refused = Failure { refused: true, ..Failure::of("400") };
    assert_eq!(outbox.failed(&refused, now, 0.5).len(), 1);
    assert_eq!((outbox.counts.lost, outbox.counts.failed_attempts), (1, 1));
    assert_eq!(sent(&mut outbox, now).unwrap().id, "1/2");
}

#[test]
fn what_waits_to_be_summed_up_is_not_overtaken_and_not_yet_told() {
    let now = Instant::now();
    let mut outbox = Outbox::new(1, HOUR, now);
    for n in [1, 5, 6] {
        outbox.offer(message(n, &format!("s/a-{n}"), Topic::Failed), now);
    }
    assert_eq!(sent(&mut outbox, now).unwrap().id, "1/1");
    outbox.delivered();
    assert_eq!(outbox.told_upto(Seq(9)), Seq(4), "an event behind it may be forgotten, this one not");
    outbox.offer(message(8, "s/a-8", Topic::Failed), now);
    let later = now + Duration::from_secs(61);
    let summary = sent(&mut outbox, later).unwrap();
    assert_eq!((summary.id.as_str(), summary.stands_for), ("1/8/summary", 3));
    let refused = Failure { refused: true, ..Failure::of("400") };
    assert_eq!(outbox.failed(&refused, later, 0.5).len(), 3);
    assert_eq!(outbox.counts.lost, 3, "each message that it stands for");
}

proptest! {
    /// Whatever comes and however attempts go, each message is delivered, summed up in one that is, refused, or waits; and no more than the
    /// rate allows goes out.
    #[test]
    fn no_message_is_unaccounted_for(
        per_minute in 1..20_u32,
        steps in prop::collection::vec((0..4_u8, 0..90_u64, 0..3_u8), 1..300),
    ) {
        let start = Instant::now();
        let (mut now, mut offered, mut accounted, mut fresh) = (start, 0_u64, 0_u64, 0_u64);
        let mut outbox = Outbox::new(per_minute, Duration::from_secs(300), start);
        let mut last: Option<Arc<Message>> = None;
        for (what, seconds, outcome) in steps {
            now += Duration::from_secs(seconds);
            if what < 3 {
                offered += 1;
                outbox.offer(message(offered, &format!("s/a-{}", offered % 7), Topic::Failed), now);
                continue;
            }
            let Some(message) = sent(&mut outbox, now) else { continue };
            if last.as_ref().is_none_or(|last| !Arc::ptr_eq(last, &message)) {
                fresh += 1;
            }
            last = Some(Arc::clone(&message));
            match outcome {
                0 => {
                    accounted += message.stands_for;
                    outbox.delivered();
                }
                1 => drop(outbox.failed(&Failure::of("no"), now, 0.3)),
                _ => {
                    accounted += message.stands_for;
                    drop(outbox.failed(&Failure { refused: true, ..Failure::of("400") }, now, 0.3));
                }
            }
            prop_assert!(outbox.queue.len() <= per_minute as usize);
        }
        prop_assert_eq!(accounted + outbox.waiting(), offered);
        let allowed = f64::from(per_minute) * (1.0 + (now - start).as_secs_f64() / 60.0) + 1.0;
        prop_assert!(fresh as f64 <= allowed, "{} of {}", fresh, allowed);
    }
}
