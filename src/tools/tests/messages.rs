//! Tools for messages.

use super::*;

fn list(messages: &Value) -> &[Value] {
    messages["messages"].as_array().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_message_is_delivered_until_it_is_acknowledged() {
    let bench = Bench::new();
    let sent = bench.ok(ME, "message_send", json!({ "to": OTHER, "topic": "build", "body": { "ok": true } })).await;
    assert_eq!(sent["recipients"], json!([OTHER]));
    assert_eq!(bench.ok(OTHER, "message_receive", json!({ "topics": ["test*"] })).await, json!({ "messages": [] }));
    let first = bench.ok(OTHER, "message_receive", json!({ "topics": ["bu*"], "redeliver_after_ms": 5000 })).await;
    let message = &list(&first)[0];
    assert_eq!(
        (&message["id"], &message["body"], &message["deliveries"]),
        (&sent["id"], &json!({ "ok": true }), &json!(1))
    );
    let again = bench.ok(OTHER, "message_receive", json!({ "wait_ms": 60_000 })).await;
    assert_eq!(list(&again)[0]["deliveries"], 2, "it was not acknowledged in time");
    let late = json!({ "id": sent["id"], "fence": message["fence"] });
    assert_eq!(bench.refused(OTHER, "message_ack", late).await.0, "stale_token");
    let good = json!({ "id": sent["id"], "fence": list(&again)[0]["fence"] });
    let acknowledged = json!({ "id": sent["id"], "to": OTHER, "state": "acknowledged" });
    assert_eq!(bench.ok(OTHER, "message_ack", good.clone()).await, acknowledged);
    assert_eq!(bench.ok(OTHER, "message_ack", good.clone()).await, acknowledged, "once more is as good as once");
    assert_eq!(bench.refused(ME, "message_ack", good).await.0, "unknown_message");
}

#[tokio::test]
async fn what_is_sent_to_all_goes_to_all_others() {
    let bench = Bench::new();
    let sent = bench.ok(ME, "message_send", json!({ "to": "*", "body": "hello", "priority": "low" })).await;
    assert_eq!(sent["recipients"], json!(["coder-2", "coder-3"]));
    let from_operator = json!({ "swarm": "review", "to": "*", "body": "stop", "priority": "critical" });
    let sent = bench.call(&operator(), "message_send", from_operator).await.unwrap();
    assert_eq!(sent["recipients"].as_array().unwrap().len(), 3);
    let received = bench.ok(OTHER, "message_receive", json!({})).await;
    let bodies: Vec<&Value> = list(&received).iter().map(|message| &message["body"]).collect();
    assert_eq!(bodies, [&json!("stop"), &json!("hello")], "the most urgent first");
    assert_eq!((&list(&received)[0]["from"], &list(&received)[0]["broadcast"]), (&Value::Null, &json!(true)));
}

#[tokio::test]
async fn who_is_no_agent_is_written_to_only_as_a_client() {
    let bench = Bench::new();
    let (code, message) = bench.refused(ME, "message_send", json!({ "to": "ci" })).await;
    assert_eq!((code, message.as_str()), ("unknown_recipient", "there is no agent review/ci to be written to"));
    bench.ok(ME, "message_send", json!({ "to": "ci", "client": true, "body": 1 })).await;
    let as_ci = json!({ "swarm": "review", "agent": "ci" });
    assert_eq!(list(&bench.call(&operator(), "message_receive", as_ci).await.unwrap())[0]["body"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_comes_to_an_answer_or_to_word_that_there_is_none() {
    let bench = Bench::new();
    let ask = json!({ "to": OTHER, "topic": "q", "body": "why?", "reply_within_ms": 10_000, "key": "q1" });
    let asked = bench.ok(ME, "message_send", ask.clone()).await;
    let again = bench.ok(ME, "message_send", ask).await;
    assert_eq!((&again["id"], &again["repeated"]), (&asked["id"], &json!(true)));
    let received = bench.ok(OTHER, "message_receive", json!({})).await;
    assert_eq!((list(&received).len(), &list(&received)[0]["kind"]), (1, &json!("request")));
    bench.ok(OTHER, "message_reply", json!({ "id": asked["id"], "body": "because" })).await;
    assert_eq!(bench.refused(OTHER, "message_reply", json!({ "id": asked["id"] })).await.0, "request_not_open");
    let answer = bench.ok(ME, "message_receive", json!({ "about": asked["id"] })).await;
    assert_eq!((&list(&answer)[0]["kind"], &list(&answer)[0]["body"]), (&json!("reply"), &json!("because")));
    let asked = bench.ok(ME, "message_send", json!({ "to": "coder-3", "reply_within_ms": 10_000 })).await;
    let none = bench.ok(ME, "message_receive", json!({ "about": asked["id"], "wait_ms": 60_000 })).await;
    assert_eq!(list(&none)[0]["kind"], "undelivered");
    assert_eq!(list(&none)[0]["reason"], json!({ "code": "no_reply", "detail": "coder-3 has not taken it" }));
}

#[tokio::test(start_paused = true)]
async fn what_is_handed_back_too_often_is_a_dead_letter_and_can_be_put_back() {
    let bench = Bench::new();
    let id = text(&bench.ok(ME, "message_send", json!({ "to": OTHER, "body": "poison" })).await["id"]);
    for round in 1..=5 {
        let received = bench.ok(OTHER, "message_receive", json!({ "wait_ms": 60_000 })).await;
        let back = json!({ "id": id, "fence": list(&received)[0]["fence"], "delay_ms": 1000 });
        let after = bench.ok(OTHER, "message_nack", back).await;
        assert_eq!(after["state"], if round == 5 { "dead" } else { "waiting" });
    }
    let dead = bench.ok(ME, "message_list", json!({ "dead": true })).await;
    assert_eq!(
        (&list(&dead)[0]["state"], &list(&dead)[0]["reason"]["code"]),
        (&json!("dead"), &json!("not_acknowledged"))
    );
    assert!(list(&dead)[0].get("body").is_none());
    let told = bench.ok(ME, "message_receive", json!({})).await;
    assert_eq!((&list(&told)[0]["kind"], &list(&told)[0]["about"]), (&json!("undelivered"), &json!(id)));
    assert_eq!(bench.ok(ME, "message_redrive", json!({ "id": id })).await["recipients"], json!([OTHER]));
    assert_eq!(bench.refused(ME, "message_redrive", json!({ "id": id })).await.0, "unknown_message");
    let received = bench.ok(OTHER, "message_receive", json!({})).await;
    assert_eq!((&list(&received)[0]["body"], &list(&received)[0]["deliveries"]), (&json!("poison"), &json!(1)));
}

#[tokio::test]
async fn lists_take_nothing_from_anybody() {
    let bench = Bench::new();
    for (to, n) in [(OTHER, 1), (OTHER, 2), ("coder-3", 3)] {
        bench.ok(ME, "message_send", json!({ "to": to, "body": n })).await;
    }
    let bodies = async |arguments: Value| {
        let page = bench.ok(ME, "message_list", arguments).await;
        (list(&page).iter().map(|one| one["body"].as_u64()).collect::<Vec<_>>(), page["more"] == true)
    };
    assert_eq!(bodies(json!({ "full": true })).await, (vec![Some(1), Some(2), Some(3)], false));
    assert_eq!(bodies(json!({ "full": true, "to": "coder-3" })).await, (vec![Some(3)], false));
    assert_eq!(bodies(json!({ "limit": 2 })).await, (vec![None, None], true));
    let one = bench.ok(ME, "message_list", json!({ "to": "coder-3" })).await;
    assert_eq!(bodies(json!({ "id": list(&one)[0]["id"], "full": true })).await.0, [Some(3)]);
    assert_eq!(list(&bench.ok(OTHER, "message_receive", json!({})).await).len(), 2);
}

#[tokio::test]
async fn the_successor_is_given_what_its_predecessor_had_not_dealt_with() {
    let bench = Bench::new();
    bench.ok(ME, "message_send", json!({ "to": OTHER, "body": "go on" })).await;
    bench.ok(OTHER, "message_receive", json!({})).await;
    bench.dies(OTHER, 1);
    bench.begins(OTHER, 2);
    let again = Caller::Agent(testing::party(OTHER, 2));
    let received = bench.call(&again, "message_receive", json!({ "wait_ms": 10_000 })).await.unwrap();
    assert_eq!((&list(&received)[0]["body"], &list(&received)[0]["deliveries"]), (&json!("go on"), &json!(2)));
}
