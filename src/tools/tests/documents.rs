//! Documents, word for word.

use super::*;

#[tokio::test]
async fn a_task_before_and_behind_its_end() {
    let bench = Bench::new();
    let task = json!({ "title": "Mend the parser", "category": "code", "priority": "high", "payload": { "file": "a.rs" }, "group": "api", "retries": 2, "attempt_timeout_ms": 60_000 });
    let made = bench.ok(ME, "task_create", json!({ "tasks": [task] })).await;
    assert_eq!(
        document(&made),
        json!({ "tasks": [{ "id": "id-1", "number": 1, "title": "Mend the parser", "state": "ready" }] })
    );
    let claimed = bench.ok(OTHER, "task_claim", json!({})).await;
    let mut held = json!({
        "id": "id-1", "swarm": "review", "number": 1, "title": "Mend the parser", "category": "code", "priority": "high",
        "state": "claimed", "since": "time", "reasons": [], "group": "api", "depends_on": [], "on_dependency_failure": "block",
        "retry": { "retries": 2, "backoff_ms": 1000, "backoff_max_ms": 60_000 }, "attempt_timeout_ms": 60_000,
        "created_by": { "agent": "coder-1", "incarnation": 1 }, "created_at": "time", "failures": 0, "losses": 0, "not_before": null,
        "claim": {
            "holder": { "agent": "coder-2", "incarnation": 1 }, "fence": 2, "since": "time", "lease_until": "time",
            "lease_ms": 60_000, "deadline": "time"
        },
        "progress": null, "payload": { "file": "a.rs" }, "result": null, "attempts": []
    });
    assert_eq!(document(&claimed), json!({ "tasks": [held] }));
    let id = &claimed["tasks"][0]["id"];
    bench.ok(OTHER, "task_progress", json!({ "id": id, "fence": 2, "percent": 50, "note": "half" })).await;
    bench.ok(OTHER, "task_complete", json!({ "id": id, "fence": 2, "result": [1] })).await;
    held["state"] = json!("done");
    held["claim"] = Value::Null;
    held["progress"] = json!({ "percent": 50, "note": "half", "at": "time" });
    held["result"] = json!([1]);
    held["attempts"] = json!([{
        "holder": { "agent": "coder-2", "incarnation": 1 }, "fence": 2, "since": "time", "until": "time", "end": "completed", "reason": null
    }]);
    assert_eq!(document(&bench.ok(ME, "task_show", json!({ "id": id })).await), held);
    for long in ["payload", "result", "attempts"] {
        held.as_object_mut().unwrap().remove(long);
    }
    assert_eq!(document(&bench.ok(ME, "task_list", json!({})).await), json!({ "tasks": [held], "next": null }));
}

#[tokio::test]
async fn a_lock() {
    let bench = Bench::new();
    let held = bench.ok(ME, "lock_acquire", json!({ "resources": ["src/", "a b"], "lease_ms": 5000 })).await;
    assert_eq!(
        document(&held),
        json!({
            "id": "id-1", "swarm": "review", "number": 1, "resources": ["src/", "a b"], "mode": "write",
            "holder": { "agent": "coder-1", "incarnation": 1 }, "asked_at": "time", "note": null, "fence": 2, "since": "time",
            "lease_until": "time", "lease_ms": 5000, "wait_until": null, "wants": null, "behind": []
        })
    );
    assert_eq!(bench.ok(ME, "lock_list", json!({})).await, json!({ "locks": [held], "next": null }));
}

#[tokio::test]
async fn a_message_as_its_recipient_has_it() {
    let bench = Bench::new();
    let sent = bench
        .ok(ME, "message_send", json!({ "to": OTHER, "topic": "q", "body": { "n": 1.50 }, "reply_within_ms": 60_000 }))
        .await;
    assert_eq!(
        document(&sent),
        json!({ "id": "id-1", "recipients": ["coder-2"], "full": [], "displaced": 0, "repeated": false })
    );
    let received = bench.ok(OTHER, "message_receive", json!({})).await;
    assert_eq!(
        document(&received),
        json!({ "messages": [{
            "id": "id-1", "swarm": "review", "number": 1, "to": "coder-2", "from": { "agent": "coder-1", "incarnation": 1 },
            "kind": "request", "priority": "normal", "topic": "q", "broadcast": false, "sent_at": "time", "state": "delivered",
            "reply_by": "time", "about": null, "reason": null, "deliveries": 1, "fence": 2, "redelivered_at": "time",
            "not_before": null, "dead_since": null, "body": { "n": 1.5 }
        }] })
    );
    let told = json!({ "id": sent["id"], "body": null, "topic": "q", "priority": "low" });
    let answered = bench.ok(OTHER, "message_reply", told).await;
    assert_eq!(answered["recipients"], json!(["coder-1"]));
}

#[tokio::test]
async fn what_others_say_stays_as_they_have_written_it_and_in_one_line() {
    let bench = Bench::new();
    let odd = "{\"z\": 12345678901234567890123,\n \"a\": \"\\u00e9 \\n\"}";
    let arguments = format!("{{\"tasks\": [{{\"title\": \"t\", \"payload\": {odd}}}]}}");
    bench.tools.call(&agent(ME), "task_create", &arguments, &Unhurried).await.unwrap();
    let answer = bench.tools.call(&agent(ME), "task_claim", "{}", &Unhurried).await.unwrap().0;
    assert!(answer.contains("\"payload\":{\"z\":12345678901234567890123,\"a\":\"\\u00e9 \\n\"}"), "{answer}");
    assert!(!answer.contains('\n'));
    for unreadable in ["\"\\ud800\"", "1e999", &format!("{}{}", "[".repeat(65), "]".repeat(65))] {
        let arguments = format!("{{\"to\": \"coder-2\", \"body\": {unreadable}}}");
        let refused = bench.tools.call(&agent(ME), "message_send", &arguments, &Unhurried).await.unwrap_err();
        assert!(refused.to_string().starts_with("body: found JSON"), "{refused}");
    }
}

#[test]
fn the_page_shows_every_tool_with_arguments_that_it_takes() {
    let page = include_str!("../../../docs/coordination.md");
    let mut shown = Vec::new();
    for part in page.split("\n### `").skip(1) {
        let name = part.split('`').next().unwrap();
        let tool = find(name).unwrap_or_else(|| panic!("there is no tool {name}"));
        let example = part.split("```json\n").nth(1).and_then(|rest| rest.split("```").next());
        let example: Value = serde_json::from_str(example.unwrap_or_else(|| panic!("{name} has no example"))).unwrap();
        assert_eq!(schema::judge(&(tool.arguments)(), &example), [""; 0], "{name}");
        shown.push(name);
    }
    assert_eq!(shown, all().map(|tool| tool.name).collect::<Vec<_>>());
}
