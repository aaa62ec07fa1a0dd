//! Requests and their answers.

use super::*;

#[test]
fn a_reply_goes_to_whoever_has_asked() {
    let mut desk = Desk::new();
    let request = desk.request("a", "b", MINUTE);
    let taken = desk.one(&party("b", 1));
    desk.restart();
    let reply = desk.reply("b", request).unwrap();
    assert_eq!(reply.recipients, [name("a")]);
    let a = party("a", 1);
    let got = desk.one(&a);
    assert_eq!((got.id, &got.kind), (reply.id, &MessageKind::Reply { to: request }));
    // The answer is the acknowledgement, too, and is given once.
    assert_eq!(desk.waiting("b"), []);
    desk.ack(&party("b", 1), request, fence(&taken)).unwrap();
    let twice = code(desk.reply("b", request));
    assert_eq!(twice, ("request_not_open", format!("request {request} can't be answered: it is answered already")));
    assert_eq!(desk.mail.counts(&swarm()).open_requests, 0);
    desk.pass(MINUTE);
    assert_eq!(desk.notices("a"), []);
}

#[test]
fn an_acknowledged_request_may_still_be_answered() {
    let mut desk = Desk::new();
    let (b, request) = (party("b", 1), desk.request("a", "b", 2 * SETTLED_KEPT));
    let taken = desk.one(&b);
    desk.ack(&b, request, fence(&taken)).unwrap();
    desk.pass(SETTLED_KEPT + SECOND);
    desk.restart();
    assert_eq!(desk.mail.counts(&swarm()).open_requests, 1);
    desk.reply("b", request).unwrap();
    desk.ack(&b, request, fence(&taken)).unwrap();
    desk.pass(2 * SETTLED_KEPT);
    assert_eq!(desk.notices("a"), []);
}

#[test]
fn who_gets_no_answer_is_told_why() {
    for (done, why) in [
        ("nothing", "has not taken it"),
        ("take", "has it, and has neither acknowledged nor answered it"),
        ("ack", "acknowledged it, and has not answered"),
        ("nack", "has taken it and handed it back, or was lost with it"),
    ] {
        let mut desk = Desk::new();
        let (b, request) = (party("b", 1), desk.request("a", "b", LEASE - SECOND));
        let taken = (done != "nothing").then(|| desk.one(&b));
        match (done, &taken) {
            ("ack", Some(taken)) => desk.ack(&b, request, fence(taken)).unwrap(),
            ("nack", Some(taken)) => desk.nack(&b, request, fence(taken), Duration::ZERO).unwrap(),
            _ => {}
        }
        desk.restart();
        assert_eq!(desk.pass(LEASE - SECOND), [name("a")]);
        desk.restart();
        assert_eq!(desk.waiting("b"), [], "it leaves the queue");
        assert_eq!(desk.notices("a"), [(request, format!("no_reply: b {why}"))]);
        let late = code(desk.reply("b", request));
        assert!(late.1.ends_with("its deadline has passed"), "{}", late.1);
        if let Some(taken) = taken.filter(|_| done == "take") {
            desk.ack(&b, request, fence(&taken)).unwrap();
        }
        desk.pass(2 * SETTLED_KEPT);
        assert_eq!(desk.notices("a"), [], "once");
        assert!(code(desk.reply("b", request)).1.contains("there is none for b"));
    }
}

#[test]
fn only_whoever_was_asked_answers_and_only_requests() {
    let mut desk = Desk::new();
    let (request, told) = (desk.request("a", "b", MINUTE), desk.note("a", "b", Priority::Normal));
    assert!(code(desk.reply("c", request)).1.contains("there is none for c"));
    assert!(code(desk.reply("b", told)).1.contains("it asks for no answer"));
    desk.mail.forget_recipient(&mut desk.counter, &swarm(), &name("b"), desk.now);
    assert!(code(desk.reply("b", request)).1.contains("it was given up: recipient_removed"));
    let nobody = Letter { from: None, kind: LetterKind::Reply { to: request }, ..note("a", "b", Priority::Low) };
    assert!(code(desk.send(nobody)).1.starts_with("kind: found a request or a reply without a sender"));
    let kind = LetterKind::Request { to: name("b"), reply_by: desk.now };
    let past = desk.send(Letter { kind, ..note("a", "b", Priority::Low) });
    assert_eq!(code(past).1, "reply_within_ms: found 0, allowed 1 to 2592000000");
}
