//! `tasks`, `locks`, `messages`, `report`.

use hivekeeper::cli::Exit;
use serde_json::{Value, json};

use super::script::{Answer, Daemon, run, run_in};

const A: &str = "0199a1b2-0000-7000-8000-00000000000a";
const B: &str = "0199a1b2-0000-7000-8000-00000000000b";

fn ok(document: &Value) -> Answer {
    (200, "application/json", document.to_string())
}

/// A daemon with these swarms that answers everything else by one document.
fn daemon(swarms: &'static [&'static str], document: Value) -> Daemon {
    Daemon::new(move |request| {
        if request.line.starts_with("GET /api/v1/swarms?") {
            let swarms: Vec<Value> = swarms.iter().map(|name| json!({ "name": name })).collect();
            return ok(&json!({ "swarms": swarms, "next_cursor": null }));
        }
        ok(&document)
    })
}

fn party(agent: &str, incarnation: Option<u64>) -> Value {
    json!({ "agent": agent, "incarnation": incarnation })
}

fn task() -> Value {
    json!({
        "id": A, "swarm": "demo", "number": 7, "title": "read\u{1b}[2J the code", "category": "review", "priority": "high",
        "state": "claimed", "since": "2026-11-21T03:57:00.000Z", "reasons": [], "group": "r2", "depends_on": [B],
        "created_at": "2026-11-21T03:00:00.000Z", "created_by": party("ci", None), "not_before": null,
        "claim": { "holder": party("coder-1", Some(3)), "fence": 12, "since": "2026-11-21T03:57:00.000Z",
            "lease_until": "2026-11-21T04:00:30.000Z", "lease_ms": 60000, "deadline": null },
        "progress": { "percent": 40, "note": "half of it", "at": "2026-11-21T03:59:00.000Z" },
        "payload": { "file": "a.rs" }, "result": null,
        "attempts": [{ "holder": party("coder-2", Some(1)), "fence": 9, "since": "2026-11-21T03:10:00.000Z",
            "until": "2026-11-21T03:50:00.000Z", "end": "holder_ended", "reason": "killed" }]
    })
}

/// What was posted: path and body, the key left out.
fn posted(daemon: &Daemon) -> (String, Value) {
    let request = daemon.requests().into_iter().find(|request| request.line.starts_with("POST")).unwrap();
    assert!(request.head.contains("idempotency-key: "), "{}", request.head);
    (request.line.trim_start_matches("POST ").to_owned(), serde_json::from_str(&request.body).unwrap())
}

#[test]
fn tasks_are_listed_unless_something_else_is_said() {
    let mut ready = task();
    ready["id"] = json!(B);
    ready["claim"] = json!(null);
    ready["state"] = json!("ready");
    ready["title"] = json!("write the report");
    let daemon = daemon(&["demo"], json!({ "tasks": [task(), ready], "next": 8 }));
    let ran = run(&daemon, &["tasks"]);
    let expected = "\
ID                                    STATE    PRIORITY  HOLDER       SINCE  TITLE
0199a1b2-0000-7000-8000-00000000000a  claimed  high      coder-1 #3  3m ago  read\\u{1b}[2J the code
0199a1b2-0000-7000-8000-00000000000b  ready    high      -           3m ago  write the report
";
    assert_eq!((ran.exit, ran.out.as_str(), ran.err.as_str()), (Exit::Done, expected, "There are more: --after 8\n"));
    assert_eq!(daemon.requests()[1].line, "GET /api/v1/tasks?limit=100&swarm=demo");

    let args = ["tasks", "ls", "--state", "ready,blocked", "--group", "a b&c", "--swarm", "demo", "--limit", "5"];
    assert_eq!(run(&daemon, &args).exit, Exit::Done);
    let line = &daemon.requests()[2].line;
    assert_eq!(line, "GET /api/v1/tasks?limit=5&state=ready%2Cblocked&group=a%20b%26c&swarm=demo");
}

#[test]
fn one_task_is_shown_with_all_that_is_known_of_it() {
    let ran = run(&daemon(&[], task()), &["tasks", "show", A, "--swarm", "demo"]);
    let expected = "\
read\\u{1b}[2J the code
id           0199a1b2-0000-7000-8000-00000000000a
state        claimed 3m ago
category     review
priority     high
group        r2
created      1h ago by ci
behind       0199a1b2-0000-7000-8000-00000000000b
held by      coder-1 #3 with the fence 12, which ends in 30s unless it is renewed
progress     40 %, half of it, 1m ago
payload      {\"file\":\"a.rs\"}
attempt      holder_ended 10m ago by coder-2 #1: killed
";
    assert_eq!((ran.exit, ran.out.as_str(), ran.err.as_str()), (Exit::Done, expected, ""));
}

#[test]
fn a_task_is_created_from_words_or_from_a_file() {
    let created = json!({ "tasks": [{ "id": A, "number": 1, "title": "read", "state": "ready" }] });
    let shown = daemon(&[], created.clone());
    let args = [
        "tasks",
        "create",
        "read",
        "--category",
        "review",
        "--priority",
        "high",
        "--payload",
        r#"{"f":1}"#,
        "--after",
        B,
        "--attempt-timeout",
        "10m",
        "--swarm",
        "demo",
    ];
    let ran = run(&shown, &args);
    assert_eq!((ran.exit, ran.out), (Exit::Done, format!("{A}: ready: read\n")), "{}", ran.err);
    let task = json!({
        "title": "read", "category": "review", "priority": "high", "payload": { "f": 1 }, "depends_on": [B],
        "attempt_timeout_ms": 600_000
    });
    assert_eq!(posted(&shown), ("/api/v1/tasks".to_owned(), json!({ "swarm": "demo", "tasks": [task] })));

    let dir = tempfile::tempdir().unwrap();
    let tasks = json!({ "tasks": [{ "title": "a" }, { "title": "b", "depends_on": [0] }] });
    std::fs::write(dir.path().join("t.json"), tasks.to_string()).unwrap();
    let filed = daemon(&[], created);
    let env = [("HIVEKEEPER_URL", filed.url.as_str())];
    let ran = run_in(dir.path(), &env, &["tasks", "create", "--file", "t.json", "--swarm", "demo"]);
    assert_eq!(ran.exit, Exit::Done, "{}", ran.err);
    assert_eq!(posted(&filed).1["tasks"], tasks["tasks"]);
    for (args, hint) in [
        (&["tasks", "create"][..], "<TITLE>"),
        (&["tasks", "create", "x", "--payload", "{"][..], "allowed: JSON"),
        (&["tasks", "create", "x", "--file", "y"][..], "cannot be used with"),
        (&["tasks", "complete", A][..], "--fence"),
    ] {
        let ran = run_in(dir.path(), &env, args);
        assert_eq!(ran.exit, Exit::Usage, "{args:?}: {}", ran.err);
        assert!(ran.err.contains(hint), "{args:?}: {}", ran.err);
    }
}

#[test]
fn a_claim_is_somebodys_and_comes_with_its_token() {
    let daemon = daemon(&["demo"], json!({ "tasks": [task()] }));
    let ran = run(&daemon, &["tasks", "claim", "--category", "review", "--wait", "2s"]);
    let expected = format!("{A}: claimed with the fence 12: read\\u{{1b}}[2J the code\n");
    assert_eq!((ran.exit, ran.out), (Exit::Done, expected), "{}", ran.err);
    let body = json!({
        "swarm": "demo", "agent": "cli", "categories": ["review"], "max": 1, "wait_ms": 2000, "lease_ms": 600_000
    });
    assert_eq!(posted(&daemon), ("/api/v1/tasks/claim".to_owned(), body));
}

#[test]
fn each_verb_has_its_route() {
    let settled = json!({ "id": A, "title": "t", "state": "done" });
    let of = |body: Value| body;
    for (args, path, body) in [
        (
            &["tasks", "complete", A, "--fence", "12", "--result", "[1]", "--as", "ci"][..],
            format!("/api/v1/tasks/{A}/complete"),
            of(json!({ "swarm": "demo", "agent": "ci", "fence": 12, "result": [1] })),
        ),
        (
            &["tasks", "fail", A, "--fence", "12", "--reason", "no"][..],
            format!("/api/v1/tasks/{A}/fail"),
            of(json!({ "swarm": "demo", "agent": "cli", "fence": 12, "reason": "no" })),
        ),
        (&["tasks", "cancel", A][..], format!("/api/v1/tasks/{A}/cancel"), of(json!({ "swarm": "demo" }))),
        (&["tasks", "retry", A][..], format!("/api/v1/tasks/{A}/retry"), of(json!({ "swarm": "demo" }))),
        (
            &["locks", "release", A, "--fence", "8"][..],
            format!("/api/v1/locks/{A}/release"),
            of(json!({ "swarm": "demo", "fence": 8 })),
        ),
        (
            &["messages", "ack", A, "--fence", "9"][..],
            format!("/api/v1/messages/{A}/ack"),
            of(json!({ "swarm": "demo", "agent": "cli", "fence": 9 })),
        ),
        (&["messages", "redrive", A][..], format!("/api/v1/messages/{A}/redrive"), of(json!({ "swarm": "demo" }))),
    ] {
        let daemon = daemon(&["demo"], settled.clone());
        let ran = run(&daemon, args);
        assert_eq!(ran.exit, Exit::Done, "{args:?}: {}", ran.err);
        assert!(ran.out.starts_with(A), "{}", ran.out);
        assert_eq!(posted(&daemon), (path, body));
    }
}

#[test]
fn without_a_swarm_the_only_one_is_meant() {
    let several = daemon(&["demo", "review"], json!({ "tasks": [], "next": null }));
    let ran = run(&several, &["tasks"]);
    assert_eq!(ran.exit, Exit::Usage);
    assert!(ran.err.contains("--swarm: say which: demo, review"), "{}", ran.err);
    let ran = run(&several, &["tasks", "--swarm", "review"]);
    assert_eq!((ran.exit, ran.err.as_str()), (Exit::Done, "There is no such task.\n"));
    let ran = run(&daemon(&[], json!({})), &["locks"]);
    assert!(ran.exit == Exit::Failed && ran.err.contains("there is no swarm"), "{}", ran.err);
}

#[test]
fn locks_show_who_waits_for_whom() {
    let lock = |id: &str, holder: Value, fence: Option<u64>, behind: Value| {
        json!({
            "id": id, "swarm": "demo", "number": 1, "resources": ["src/", "Cargo.toml"], "mode": "write", "holder": holder,
            "asked_at": "2026-11-21T03:58:00.000Z", "fence": fence, "since": fence.map(|_| "2026-11-21T03:59:00.000Z"),
            "behind": behind
        })
    };
    let behind = json!([{ "lock": A, "holder": party("coder-1", Some(3)), "waits": false }]);
    let locks = [lock(A, party("coder-1", Some(3)), Some(8), json!([])), lock(B, party("ci", None), None, behind)];
    let ran = run(&daemon(&["demo"], json!({ "locks": locks, "next": null })), &["locks"]);
    let expected = "\
ID                                    MODE   HOLDER      FENCE   SINCE  RESOURCES
0199a1b2-0000-7000-8000-00000000000a  write  coder-1 #3      8  1m ago  src/ Cargo.toml
0199a1b2-0000-7000-8000-00000000000b  write  ci              -  2m ago  src/ Cargo.toml (behind coder-1 #3)
";
    assert_eq!((ran.exit, ran.out.as_str(), ran.err.as_str()), (Exit::Done, expected, ""));
}

#[test]
fn messages_are_sent_received_and_listed() {
    let sent =
        daemon(&["demo"], json!({ "id": A, "recipients": ["coder-1"], "full": [], "displaced": 0, "repeated": false }));
    let ran = run(&sent, &["messages", "send", "coder-1", "read this", "--topic", "review", "--reply-within", "1m"]);
    assert_eq!((ran.exit, ran.out), (Exit::Done, format!("{A}: sent to coder-1\n")), "{}", ran.err);
    let body =
        json!({ "swarm": "demo", "to": "coder-1", "body": "read this", "topic": "review", "reply_within_ms": 60_000 });
    assert_eq!(posted(&sent), ("/api/v1/messages".to_owned(), body));
    let full =
        daemon(&["demo"], json!({ "id": A, "recipients": ["b"], "full": ["a"], "displaced": 0, "repeated": false }));
    let ran = run(&full, &["messages", "send", "*", "--data", "[1]"]);
    assert!(ran.exit == Exit::Failed && ran.err.contains("no room for it was left with a"), "{}", ran.err);

    let message = json!({
        "id": A, "swarm": "demo", "number": 4, "to": "ci", "from": party("coder-1", Some(3)), "kind": "note",
        "priority": "normal", "topic": "review", "state": "dead", "sent_at": "2026-11-21T03:59:00.000Z", "deliveries": 5,
        "fence": 31, "reason": { "code": "undeliverable", "detail": "5 times" }, "body": { "n": 1 }
    });
    let received = daemon(&["demo"], json!({ "messages": [message], "more": true }));
    let ran = run(&received, &["messages", "receive", "--as", "ci", "--topic", "review*"]);
    let expected = format!("{A} with the fence 31: note of coder-1 #3 on review, 1m ago\n  {{\"n\":1}}\n");
    assert_eq!((ran.exit, ran.out), (Exit::Done, expected), "{}", ran.err);
    assert_eq!(posted(&received).1["topics"], json!(["review*"]));
    let ran = run(&received, &["messages", "ls", "--dead"]);
    let expected = "\
ID                                    TO  FROM        STATE    SENT  TRIES  TOPIC
0199a1b2-0000-7000-8000-00000000000a  ci  coder-1 #3  dead   1m ago      5  review (undeliverable: 5 times)
";
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Done, expected));
    assert!(received.requests().last().unwrap().line.contains("dead=true"));
}

#[test]
fn a_report_is_printed_or_written() {
    let daemon = daemon(&["demo"], json!({ "made_at": "2026-11-21T03:59:00.000Z", "markdown": "# Work\n\ndone\n" }));
    assert_eq!(run(&daemon, &["report"]).out, "# Work\n\ndone\n");
    let dir = tempfile::tempdir().unwrap();
    let env = [("HIVEKEEPER_URL", daemon.url.as_str())];
    let ran = run_in(dir.path(), &env, &["report", "--group", "r2", "--out", "r.md"]);
    assert_eq!((ran.exit, ran.out.as_str(), ran.err.as_str()), (Exit::Done, "", "wrote r.md\n"));
    assert_eq!(std::fs::read_to_string(dir.path().join("r.md")).unwrap(), "# Work\n\ndone\n");
    assert_eq!(daemon.requests().last().unwrap().line, "GET /api/v1/report?group=r2&swarm=demo");
    assert!(run(&daemon, &["report", "--json"]).out.starts_with("{\"made_at\""));
}
