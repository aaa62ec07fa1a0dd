//! The routes: what they answer, and that nothing else is answered.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::time::{Duration, SystemTime};

use hivekeeper::{
    control_plane::{Check, ControlError},
    model::{Command, Level, Requester, RestartMode, RestartType, Seq, Target, spec::Strategy},
    view::parse_rfc3339,
};
use hivekeeper_actors::{ChildKind, ChildState, TreeNode};
use serde_json::{Value, json};

use crate::http_support::{Setup, at, hive, line, said, stored};

const READS: [&str; 13] = [
    "/livez",
    "/readyz",
    "/readyz?verbose",
    "/api/v1/health",
    "/api/v1/swarms",
    "/api/v1/swarms/review",
    "/api/v1/swarms/review/agents/coder",
    "/api/v1/swarms/review/agents/coder/logs",
    "/api/v1/swarms/review/agents/coder/logs?follow",
    "/api/v1/events",
    "/api/v1/events?after=3&limit=5",
    "/api/v1/operations",
    "/metrics",
];

#[test]
fn every_read_has_get_and_head_and_nothing_else() {
    let hive = hive(Setup::default());
    for path in READS {
        if !path.contains("follow") {
            assert_eq!(hive.get(path).status, 200, "{path}");
        }
        let head = hive.send("HEAD", path, &["Accept: text/event-stream"], "");
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
        // Documents are written where they are read.
        let writes: &[&str] = match path {
            "/api/v1/swarms" => &["POST"],
            "/api/v1/swarms/review" => &["PUT", "DELETE"],
            _ => &[],
        };
        let allowed = [&["GET", "HEAD"], writes].concat();
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"] {
            if writes.contains(&method) {
                continue;
            }
            let reply = hive.send(method, path, &["Content-Type: application/json"], "{}");
            reply.problem(405, "method_not_allowed");
            assert_eq!(reply.header("allow"), allowed.join(", "), "{method} {path}");
        }
    }
}

#[test]
fn every_command_has_post_and_nothing_else() {
    let hive = hive(Setup::default());
    for word in ["restart", "stop", "start", "pause", "resume"] {
        for target in ["review", "review/agents/coder"] {
            let path = format!("/api/v1/swarms/{target}/{word}");
            let reply = hive.post(&path, "");
            assert_eq!(reply.status, 202, "{path}: {reply:?}");
            let operation = reply.json();
            assert_eq!(operation["kind"], word);
            assert_eq!(operation["target"], target.replace("/agents", ""));
            let location = format!("/api/v1/operations/{}", operation["id"].as_str().unwrap());
            assert_eq!(reply.header("location"), location);
            let shown = hive.get(&location);
            assert_eq!((shown.status, &shown.json()["id"]), (200, &operation["id"]));
            for method in ["GET", "HEAD", "PUT", "DELETE"] {
                let reply = hive.send(method, &path, &[], "");
                assert_eq!((reply.status, reply.header("allow")), (405, "POST"), "{method} {path}");
            }
        }
    }
    let listed = hive.get("/api/v1/operations?limit=3").json();
    assert_eq!(listed["operations"].as_array().unwrap().len(), 3);
}

#[test]
fn what_is_not_there_is_not_found() {
    let hive = hive(Setup::default());
    for path in [
        "/",
        "/api/v1",
        "/api/v1/",
        "/api/v1/swarms/",
        "/api/v1/swarms/other",
        "/api/v1/swarms/NO_NAME",
        "/api/v1/swarms/%2e%2e",
        "/api/v1/swarms/%ff",
        "/api/v1/swarms/review/agents/other",
        "/api/v1/swarms/review/agents/other/logs",
        "/api/v1/swarms/review/agents/other/logs?follow=true",
        "/api/v1/operations/7",
        "/api/v1/operations/0199a1b2-0000-7000-8000-000000000001",
        "/api/v2/health",
    ] {
        hive.get(path).problem(404, "not_found");
    }
    for path in ["/api/v1/nothing", "/api/v1/swarms/NO_NAME/restart"] {
        hive.post(path, "").problem(404, "not_found");
    }
    assert!(hive.desk.requests.lock().is_empty());
}

#[test]
fn headers_that_two_readers_could_read_differently_are_refused() {
    let hive = hive(Setup::default());
    let json = "Content-Type: application/json";
    for (headers, hint) in [
        (["If-Match: \"a\"", "If-Match: *"], "if-match is there twice"),
        (["Idempotency-Key: one", "Idempotency-Key: two"], "idempotency-key is there twice"),
        (["If-Match:", "X-Other: 1"], "if-match is empty"),
        (["If-Match:  \t", "X-Other: 1"], "if-match is empty"),
    ] {
        let reply = hive.send("POST", "/api/v1/swarms/review/stop", &[json, headers[0], headers[1]], "{}");
        let detail = reply.problem(400, "invalid_request");
        assert!(detail.contains(hint), "{headers:?}: {detail}");
    }
    let twice = ["Last-Event-ID: 1", "Last-Event-ID: 2"];
    hive.send("GET", "/api/v1/events", &twice, "").problem(400, "invalid_request");
    assert!(hive.desk.requests.lock().is_empty());
}

#[test]
fn a_route_that_is_not_there_says_which_was_meant() {
    let hive = hive(Setup::default());
    for (path, hint) in [
        ("/swarms", "did you mean /api/v1/swarms?"),
        ("/swarms/review/agents/coder/", "did you mean /api/v1/swarms/review/agents/coder?"),
        ("/api/v1/swarms/", "did you mean /api/v1/swarms?"),
        ("/livez//", "did you mean /livez?"),
        ("/api/v2/swarms", "GET /api/v1/openapi.json lists them all"),
        ("/", "GET /api/v1/openapi.json lists them all"),
    ] {
        let detail = hive.get(path).problem(404, "not_found");
        assert!(detail.starts_with(&format!("there is no route {path}")) && detail.ends_with(hint), "{detail}");
    }
}

#[test]
fn a_pass_tells_what_it_found_and_a_dry_run_says_that_it_is_one() {
    let hive = hive(Setup::default());
    for (path, dry_run, fate) in
        [("/api/v1/reconcile", false, "removed"), ("/api/v1/reconcile?dry_run=true", true, "removable")]
    {
        let reply = hive.post(path, "");
        assert_eq!(reply.status, 200, "{}", reply.body);
        let told: Value = serde_json::from_str(&reply.body).unwrap();
        let expected = json!({ "kind": "container", "name": "left", "swarm": "old", "why": "no document has its swarm", "fate": fate });
        assert_eq!(told, json!({ "dry_run": dry_run, "findings": [expected] }));
    }
    hive.post("/api/v1/reconcile?dry=true", "").problem(400, "invalid_query");
    hive.post("/api/v1/reconcile", r#"{"force":true}"#).problem(400, "invalid_body");
}

#[test]
fn answers_are_sealed() {
    let hive = hive(Setup::default());
    for path in ["/livez", "/api/v1/health", "/nowhere"] {
        let reply = hive.get(path);
        assert_eq!(reply.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(reply.header("cache-control"), "no-store", "{path}");
        assert!(reply.header("content-security-policy").starts_with("default-src 'none'"), "{path}");
    }
}

#[test]
fn health_answers_by_level_and_livez_by_nothing() {
    let hive = hive(Setup::default());
    for (level, status, word) in [
        (Level::Healthy, 200, "pass"),
        (Level::Degraded, 200, "warn"),
        (Level::Unknown, 503, "fail"),
        (Level::Critical, 503, "fail"),
    ] {
        *hive.desk.level.lock() = level;
        let reply = hive.get("/api/v1/health");
        assert_eq!((reply.status, &reply.json()["status"]), (status, &json!(word)));
        assert_eq!(hive.get("/livez").status, 200);
    }
}

#[test]
fn readiness_lists_its_checks() {
    let hive = hive(Setup::default());
    assert_eq!(hive.get("/readyz").body, "ready\n");
    assert_eq!(hive.get("/readyz?verbose").body, "[+]journal ok\nready\n");
    hive.desk.checks.lock().push(Check { name: "reconcile", ok: false, detail: "first pass under way".to_owned() });
    let reply = hive.get("/readyz");
    assert_eq!((reply.status, reply.body.as_str()), (503, "not ready\n"));
    let reply = hive.get("/readyz?verbose=1");
    assert_eq!(reply.status, 503);
    assert_eq!(reply.body, "[+]journal ok\n[-]reconcile failed: first pass under way\nnot ready\n");
}

#[test]
fn a_swarm_shows_what_is_desired_beside_what_was_seen() {
    let hive = hive(Setup::default());
    let reply = hive.get("/api/v1/swarms/review");
    let shown = reply.json();
    assert_eq!((&shown["origin"], &shown["desired"]), (&json!("config"), &json!("running")));
    assert_eq!(shown["health"]["level"], "healthy");
    assert_eq!(shown["agents"][0]["pid"], 4711);
    assert_eq!(shown["document"]["period"], "60s");
    assert_eq!(shown["document"]["agent"][0]["command"], json!(["sleep", "60"]));
    let etag = reply.header("etag").to_owned();
    assert!(etag.len() == 18 && etag.starts_with('"'), "{etag}");
    assert_eq!(hive.get("/api/v1/swarms/review").header("etag"), etag);
    let list = hive.get("/api/v1/swarms").json();
    assert_eq!(list["swarms"][0]["name"], "review");
    assert_eq!(list["swarms"][0]["agents"][0]["name"], "coder");
    assert_eq!(list["swarms"][0].get("document"), None);
}

#[test]
fn a_command_carries_what_was_asked_for() {
    let hive = hive(Setup::default());
    let headers = ["Content-Type: application/json; charset=utf-8", "Idempotency-Key: k-1"];
    let body = r#"{ "mode": "all", "grace_ms": 1500, "reason": "new prompt" }"#;
    assert_eq!(hive.send("POST", "/api/v1/swarms/review/restart", &headers, body).status, 202);
    let request = hive.desk.requests.lock().pop().unwrap();
    let reason = Some("new prompt".to_owned());
    assert_eq!(
        request.command,
        Command::Restart { mode: RestartMode::All, grace: Some(Duration::from_millis(1500)), reason }
    );
    assert_eq!(request.target, Target::Swarm("review".parse().unwrap()));
    assert_eq!(request.idempotency_key.as_deref(), Some("k-1"));
    let Requester::Http { peer } = request.requested_by else { panic!("{request:?}") };
    assert!(peer.starts_with("127.0.0.1:"), "{peer}");

    assert_eq!(hive.post("/api/v1/swarms/review/agents/coder/stop", " \n").status, 202);
    let request = hive.desk.requests.lock().pop().unwrap();
    assert_eq!(request.command, Command::Stop { grace: None, reason: None });
    assert_eq!(request.target, Target::Agent("review/coder".parse().unwrap()));
    assert_eq!(request.idempotency_key, None);
}

#[test]
fn bodies_that_say_something_else_are_refused_by_name() {
    let hive = hive(Setup::default());
    let restart = "/api/v1/swarms/review/restart";
    for (path, body, code, words) in [
        (
            restart,
            r#"{"graceMs":1}"#,
            "invalid_body",
            "unknown field `graceMs`, expected one of `mode`, `grace_ms`, `reason`",
        ),
        ("/api/v1/swarms/review/agents/coder/restart", r#"{"mode":"all"}"#, "invalid_body", "unknown field `mode`"),
        ("/api/v1/swarms/review/start", r#"{"reason":"x"}"#, "invalid_body", "unknown field `reason`"),
        (restart, r#"{"mode":"some"}"#, "invalid_body", "unknown variant `some`"),
        (restart, r#"{"grace_ms":"10s"}"#, "invalid_body", "invalid type"),
        (restart, r#"{"grace_ms":-1}"#, "invalid_body", "invalid value"),
        (restart, r#"{"grace_ms":3600001}"#, "invalid_body", "at most 3600000"),
        (restart, "{", "invalid_body", "EOF"),
        (restart, "[1]", "invalid_body", ""),
        (restart, "null", "invalid_body", ""),
    ] {
        let detail = hive.post(path, body).problem(400, code);
        assert!(detail.contains(words), "{body}: {detail}");
    }
    hive.post(restart, &format!("{{\"reason\":\"{}\"}}", "x".repeat(1001))).problem(400, "invalid_body");
    hive.post(restart, &"[".repeat(60_000)).problem(400, "invalid_body");
    hive.post(&format!("{restart}?wait=soon"), "").problem(400, "invalid_query");
    let detail = hive.post(&format!("{restart}?waits=1s"), "").problem(400, "invalid_query");
    assert!(detail.contains("unknown field `waits`, expected `wait`"), "{detail}");
    for key in [String::new(), "k".repeat(256)] {
        let key = format!("Idempotency-Key: {key}");
        hive.send("POST", restart, &["Content-Type: application/json", &key], "").problem(400, "invalid_request");
    }
    assert!(hive.desk.requests.lock().is_empty());
}

#[test]
fn lists_come_in_pages_that_lead_on() {
    let hive = hive(Setup::default());
    for word in ["restart", "stop", "start"] {
        assert_eq!(hive.post(&format!("/api/v1/swarms/review/{word}"), "").status, 202);
    }
    let (mut seen, mut path) = (Vec::new(), "/api/v1/operations?swarm=review&state=accepted&limit=2".to_owned());
    loop {
        let page = hive.get(&path).json();
        let kinds = page["operations"].as_array().unwrap().iter().map(|one| one["kind"].as_str().unwrap().to_owned());
        seen.push(kinds.collect::<Vec<_>>());
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/api/v1/operations?swarm=review&state=accepted&limit=2&cursor={cursor}");
    }
    assert_eq!(seen, [vec!["start", "stop"], vec!["restart"]]);
    assert_eq!(hive.get("/api/v1/operations?swarm=other").json(), json!({ "operations": [], "next_cursor": null }));

    let list = hive.get("/api/v1/swarms?limit=1").json();
    assert_eq!((&list["swarms"][0]["name"], &list["next_cursor"]), (&json!("review"), &json!(null)));
    let none = hive.get("/api/v1/swarms?cursor=review").json();
    assert_eq!(none, json!({ "swarms": [], "next_cursor": null }));
}

#[test]
fn queries_that_say_something_else_are_refused_by_name() {
    let hive = hive(Setup::default());
    for (path, words) in [
        ("/api/v1/health?full=1", "unknown field `full`"),
        ("/api/v1/events?after=x", "after: invalid value: string \"x\", expected a whole number"),
        ("/api/v1/events?after=", "\"\", expected a whole number"),
        ("/api/v1/events?limit=1001", "at most 1000"),
        ("/api/v1/operations?limit=-1", "limit: invalid value: string \"-1\", expected a whole number"),
        ("/api/v1/operations?limit=1&limit=2", "duplicate field `limit`"),
        ("/api/v1/operations?limit=0", "limit: found 0, allowed: 1 to 500"),
        (
            "/api/v1/operations?state=done",
            "state: found \"done\", allowed: accepted, running, succeeded, failed, cancelled",
        ),
        ("/api/v1/operations?cursor=7", "cursor: "),
        ("/api/v1/swarms?cursor=NO", "cursor: \"NO\" is not a name"),
        ("/api/v1/swarms/review/agents/coder/logs?tail=5001", "at most 5000"),
        ("/api/v1/swarms/review/agents/coder/logs?since=yesterday", "RFC 3339"),
        ("/api/v1/swarms/review/agents/coder/logs?follow=maybe", "true or false"),
        ("/api/v1/swarms/review/agents/coder/logs?tale=5", "unknown field `tale`"),
    ] {
        let detail = hive.get(path).problem(400, "invalid_query");
        assert!(detail.contains(words), "{path}: {detail}");
    }
}

#[test]
fn waiting_answers_with_the_end_or_with_202() {
    let hive = hive(Setup::default());
    let reply = hive.post("/api/v1/swarms/review/restart?wait=20ms", "");
    assert_eq!((reply.status, &reply.json()["state"]), (202, &json!("running")));
    assert!(!reply.header("location").is_empty());

    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| hive.post("/api/v1/swarms/review/restart?wait=9s", ""));
        while hive.desk.waits.lock().len() < 2 {
            std::thread::yield_now();
        }
        hive.desk.ended.send_replace(true);
        let reply = waiting.join().unwrap();
        assert_eq!((reply.status, &reply.json()["state"]), (200, &json!("succeeded")));
    });
    assert_eq!(hive.post("/api/v1/swarms/review/restart?wait=7d", "").status, 200);
    let waits = hive.desk.waits.lock().clone();
    assert_eq!(waits, [Duration::from_millis(20), Duration::from_secs(9), Duration::from_secs(300)]);
}

#[test]
fn a_replayed_operation_needs_no_wait() {
    let hive = hive(Setup::default());
    *hive.desk.replays.lock() = true;
    assert_eq!(hive.post("/api/v1/swarms/review/restart", "").status, 202);
    assert_eq!(hive.post("/api/v1/swarms/review/restart?wait=9s", "").status, 200);
    assert!(hive.desk.waits.lock().is_empty());
}

#[test]
fn the_control_planes_refusals_keep_their_codes() {
    let hive = hive(Setup::default());
    let why = || "because".to_owned();
    for (refusal, status, code) in [
        (ControlError::NotFound { what: "swarm review".to_owned() }, 404, "not_found"),
        (ControlError::Conflict { why: why() }, 409, "conflict"),
        (ControlError::Unsupported { why: why() }, 501, "unsupported"),
        (ControlError::KeyReused, 422, "key_reused"),
        (ControlError::Journal { why: why() }, 503, "journal_unavailable"),
        (ControlError::Unavailable { why: why() }, 503, "unavailable"),
    ] {
        let text = refusal.to_string();
        *hive.desk.refusal.lock() = Some(refusal);
        let reply = hive.post("/api/v1/swarms/review/agents/coder/pause", "");
        assert_eq!(reply.problem(status, code), text);
        assert_eq!(reply.json()["instance"], "/api/v1/swarms/review/agents/coder/pause");
        assert_eq!(reply.header("retry-after").is_empty(), status != 503);
    }
}

#[test]
fn the_tree_is_shown_with_times_or_a_problem() {
    let hive = hive(Setup::default());
    hive.get("/api/v1/tree").problem(503, "unavailable");
    *hive.desk.tree.lock() = Some(TreeNode {
        id: "root".into(),
        path: "root".into(),
        kind: ChildKind::Supervisor,
        strategy: Some(Strategy::OneForOne),
        supervision: None,
        restart: RestartType::Permanent,
        significant: false,
        state: ChildState::Running,
        in_state_for: Duration::from_secs(5),
        incarnation: 1,
        restarts: 0,
        restarts_in_window: 0,
        retry_in: None,
        last_exit: None,
        children: vec![],
    });
    let before = SystemTime::now();
    let tree = hive.get("/api/v1/tree").json();
    assert_eq!(
        (&tree["id"], &tree["state"], &tree["strategy"]),
        (&json!("root"), &json!("running"), &json!("one_for_one"))
    );
    let since = parse_rfc3339(tree["since"].as_str().unwrap()).unwrap();
    assert!(since + Duration::from_millis(5001) > before && since < before, "{tree}");
}

#[test]
fn events_come_from_the_journal_and_then_from_the_ring() {
    let hive = hive(Setup::default());
    *hive.desk.journal.lock() = Ok((40..45).map(stored).collect());
    for n in 0..3 {
        assert_eq!(hive.feed.publish(at(n), said("x")), Seq(100 + n));
    }
    let seqs = |page: &serde_json::Value| -> Vec<u64> {
        page["events"].as_array().unwrap().iter().map(|event| event["seq"].as_u64().unwrap()).collect()
    };
    let page = hive.get("/api/v1/events").json();
    assert_eq!(seqs(&page), [40, 41, 42, 43, 44, 100, 101, 102]);
    assert_eq!(page["gap"], json!({ "after": 0, "first_kept": 100, "head": 102 }));
    assert_eq!((&page["head"], &page["next_after"]), (&json!(102), &json!(102)));
    assert_eq!(page["events"][0]["stored"], true);
    assert_eq!(page["events"][7]["subject"], "review/coder");

    let page = hive.get("/api/v1/events?after=42&limit=3").json();
    assert_eq!((seqs(&page), &page["next_after"]), (vec![43, 44, 100], &json!(100)));
    let page = hive.get("/api/v1/events?after=100").json();
    assert_eq!((seqs(&page), &page["gap"]), (vec![101, 102], &json!(null)));
    let page = hive.get("/api/v1/events?after=102").json();
    assert_eq!((seqs(&page), &page["next_after"]), (vec![], &json!(102)));
    let page = hive.get("/api/v1/events?after=9999").json();
    assert_eq!((seqs(&page), &page["next_after"], &page["gap"]["after"]), (vec![], &json!(102), &json!(9999)));

    *hive.desk.journal.lock() = Err(ControlError::Journal { why: "disk full".to_owned() });
    hive.get("/api/v1/events?after=42").problem(503, "journal_unavailable");
    assert_eq!(seqs(&hive.get("/api/v1/events?after=100").json()), [101, 102]);
}

#[test]
fn log_pages() {
    let hive = hive(Setup::default());
    *hive.desk.lines.lock() = (1..=1200).map(line).collect();
    let numbers = |query: &str| -> Vec<u64> {
        let page = hive.get(&format!("/api/v1/swarms/review/agents/coder/logs{query}")).json();
        assert_eq!((&page["first_kept"], &page["last"]), (&json!(1), &json!(1200)), "{query}");
        page["lines"].as_array().unwrap().iter().map(|line| line["number"].as_u64().unwrap()).collect()
    };
    assert_eq!(numbers(""), (201..=1200).collect::<Vec<_>>());
    assert_eq!(numbers("?tail=2"), [1199, 1200]);
    assert_eq!(numbers("?tail=0"), [0; 0]);
    assert_eq!(numbers("?tail=1100").len(), 1100);
    assert_eq!(numbers("?after=3&limit=2"), [4, 5]);
    assert_eq!(numbers("?since=2026-11-21T04:05:01.199Z"), [1199, 1200]);
    assert_eq!(numbers("?since=1ms"), [0; 0]);
    let page = hive.get("/api/v1/swarms/review/agents/coder/logs?tail=1").json();
    assert_eq!(
        page["lines"][0],
        json!({
            "number": 1200, "incarnation": 1, "seq": 1200, "at": "2026-11-21T04:05:01.200Z", "stream": "stdout", "level": null,
            "partial": false, "text": "line 1200"
        })
    );
}

#[test]
fn a_document_that_says_a_key_twice_is_refused() {
    let hive = hive(Setup::default());
    let twice = r#"{"name":"a","agent":[{"name":"a","command":["x"],"command":["y"]}]}"#;
    hive.post("/api/v1/swarms", twice).problem(400, "invalid_body");
    assert!(hive.desk.requests.lock().is_empty());
}
