//! The command line against a scripted daemon: tables, JSON, exit codes, streams that break.

mod attached;
mod keeping;
mod looking;
mod manual;
mod operate;
mod process;
mod script;
mod streams;
mod work;

use std::{net::TcpListener, path::Path};

use hivekeeper::cli::Exit;
use script::{Answer, Daemon, run, run_in};
use serde_json::{Value, json};

fn value(value: Value, source: &str) -> Value {
    json!({ "value": value, "observed_at": "2026-11-21T03:59:58.000Z", "source": source })
}

fn absent(reason: &str) -> Value {
    json!({ "value": null, "reason": reason })
}

/// A hive in trouble, in the shape of `view`.
fn hive() -> Value {
    let agent = |name: &str, state: &str| {
        json!({
            "swarm": "demo", "name": name, "state": state, "since": "2026-11-21T03:57:00.000Z", "reasons": [],
            "desired": "running", "incarnation": 1, "pid": null, "restarts": 0, "restarts_in_window": 0, "retry_at": null,
            "last_exit": null, "cpu": absent("never_observed"), "memory": absent("never_observed"),
            "last_heartbeat": absent("never_observed"), "progress": absent("never_observed"), "dropped": 0
        })
    };
    let mut clock = agent("clock", "running");
    clock["pid"] = json!(4711);
    clock["cpu"] = value(json!(0.0213), "launcher");
    clock["memory"] = value(json!(3_565_158), "launcher");
    clock["last_heartbeat"] = value(json!("2026-11-21T03:59:58.000Z"), "launcher");
    let mut flaky = agent("flaky", "backing_off");
    flaky["incarnation"] = json!(7);
    flaky["restarts"] = json!(6);
    flaky["restarts_in_window"] = json!(2);
    flaky["retry_at"] = json!("2026-11-21T04:00:12.000Z");
    flaky["cpu"] = absent("stale");
    flaky["memory"] = absent("unsupported");
    flaky["reasons"] = json!([{ "code": "backing_off", "detail": "restart 6 waits" }]);
    flaky["last_exit"] = json!({
        "incarnation": 7, "code": 3, "signal": null, "oom": null, "at": "2026-11-21T03:59:50.000Z", "cause": "exited",
        "detail": "exited with code 3", "last_lines": ["working", "cannot go on\u{1b}[2J"]
    });
    let mut killed = agent("indexer-1", "starting");
    killed["last_exit"] = json!({
        "incarnation": 1, "code": null, "signal": 9, "oom": null, "at": "2026-11-21T03:59:59.000Z", "cause": "lease_lost",
        "detail": "lease ran out: killed by signal 9", "last_lines": []
    });
    json!({
        "status": "warn", "level": "degraded", "since": "2026-11-21T03:00:00.000Z",
        "reasons": [{ "code": "agent_backing_off", "detail": "demo/flaky" }],
        "hive_id": "0191", "hive": "lab",
        "control_plane": { "reachable": true, "since": "2026-11-21T03:00:00.000Z", "last_error": null },
        "data_plane": { "listening": true, "sessions": 1, "events_per_second": absent("never_observed"), "dropped": 0, "refused": 2 },
        "swarms": [{ "name": "demo", "level": "degraded", "since": "2026-11-21T03:00:00.000Z", "desired": "running",
            "reasons": [{ "code": "agent_backing_off", "detail": "flaky" }], "runtime": "docker", "image": "debian:bookworm-slim", "relaxations": ["network swarm", "writable mount /w\u{1b}[2J"],
            "adjustments": ["limits.cpus 64 is 2"], "agents": ["clock", "flaky", "indexer-1"] }],
        "agents": [clock, flaky, killed]
    })
}

fn daemon_with(status: u16, document: &Value) -> Daemon {
    let text = document.to_string();
    Daemon::new(move |_| (status, "application/json", text.clone()))
}

fn problem(status: u16, code: &str, detail: &str) -> Answer {
    let document = json!({ "type": "about:blank", "title": "X", "status": status, "detail": detail, "code": code });
    (status, "application/problem+json", document.to_string())
}

#[test]
fn ps_shows_what_was_measured_and_never_a_guess() {
    let daemon = daemon_with(503, &hive());
    let ran = run(&daemon, &["ps"]);
    let expected = "\
AGENT           STATE         PID  INC  RESTARTS   SINCE    CPU       MEMORY  LAST EXIT
demo/clock      running      4711    1     0 (0)  3m ago   0.02       3.4MiB  -
demo/flaky      backing_off     -    7     6 (2)  3m ago  stale  unsupported  code 3, next in 12s
demo/indexer-1  starting        -    1     0 (0)  3m ago      -            -  lease_lost, 1s ago
";
    assert_eq!((ran.exit, ran.out.as_str(), ran.err.as_str()), (Exit::Done, expected, ""));
    assert!(ran.out.lines().all(|line| line.chars().count() <= 100));
    assert_eq!(daemon.requests()[0].line, "GET /api/v1/health");
}

#[test]
fn wide_ps_has_everything_and_the_last_lines_made_harmless() {
    let daemon = daemon_with(200, &hive());
    let out = run(&daemon, &["ps", "-o", "wide"]).out;
    for piece in [
        "2s ago by launcher",
        "exited with code 3, 10s ago, next in 12s",
        "backing_off: restart 6 waits",
        "    | working\n    | cannot go on\\u{1b}[2J\n",
        "lease ran out: killed by signal 9, 1s ago",
        "RUNS IN                                    RELAXED",
        "debian:bookworm-slim; limits.cpus 64 is 2  network swarm; writable mount /w\\u{1b}[2J",
    ] {
        assert!(out.contains(piece), "{piece:?} is not in\n{out}");
    }
}

#[test]
fn json_is_the_apis_text_unchanged() {
    let text = "{\"hive\":\"lab\",   \"unknown_to_us\": [1,2]}";
    for command in ["ps", "tree", "health", "events"] {
        let daemon = Daemon::new(move |request| {
            let text = if request.line.contains("limit=1&") || request.line.ends_with("limit=1") {
                "{\"events\":[],\"head\":0,\"next_after\":0}"
            } else {
                text
            };
            (200, "application/json", text.to_owned())
        });
        let ran = run(&daemon, &[command, "--json"]);
        assert_eq!((ran.exit, ran.out), (Exit::Done, format!("{text}\n")), "{command}: {}", ran.err);
    }
}

#[test]
fn tree_is_drawn_with_the_last_exits() {
    let node = |id: &str, kind: &str, children: Value| {
        json!({
            "id": id, "path": id, "kind": kind, "strategy": (kind == "supervisor").then_some("one_for_one"),
            "restart": "permanent", "state": "running", "since": "2026-11-21T03:00:00.000Z", "incarnation": 1, "restarts": 0,
            "restarts_in_window": 0, "retry_at": null, "last_exit": null, "children": children
        })
    };
    let mut bad = node("b", "worker", json!([]));
    bad["restarts"] = json!(2);
    bad["last_exit"] =
        json!({ "incarnation": 1, "at": "2026-11-21T03:59:00.000Z", "cause": "panic", "detail": "panic at x: boom" });
    let mut demo = node("demo", "supervisor", json!([node("a", "worker", json!([])), bad]));
    demo["strategy"] = json!("one_for_all");
    demo["limit"] = json!({
        "intensity": 5, "period_ms": 60_000, "restarts_in_window": 2, "on_exceeded": "fail", "retry_after_ms": null
    });
    let daemon = daemon_with(200, &node("root", "supervisor", json!([demo, node("http", "worker", json!([]))])));
    let expected = "\
root [one_for_one] running
├─ demo [one_for_all] running, 2 of 5 restarts in 1m
│  ├─ a [permanent] running, incarnation 1
│  └─ b [permanent] running, incarnation 1, restarts 2, last exit 1m ago: panic at x: boom
└─ http [permanent] running, incarnation 1
";
    assert_eq!(run(&daemon, &["tree"]).out, expected);
}

#[test]
fn health_says_how_it_is_and_why() {
    let out = run(&daemon_with(503, &hive()), &["health"]).out;
    let expected = "\
hive lab is degraded, since 1h ago: agent_backing_off: demo/flaky
control plane reachable
data plane listening; sessions 1, messages dropped 0, refused 2
swarm demo is degraded: agent_backing_off: flaky
";
    assert_eq!(out, expected);
}

#[test]
fn ready_follows_the_probe() {
    let ok = Daemon::new(|_| (200, "text/plain", "[+]journal ok\nready\n".to_owned()));
    let ran = run(&ok, &["ready"]);
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Done, "[+]journal ok\nready\n"));
    let not = Daemon::new(|_| (503, "text/plain", "[-]journal failed: disk full\nnot ready\n".to_owned()));
    let ran = run(&not, &["ready"]);
    assert_eq!(ran.exit, Exit::Failed);
    assert!(ran.err.contains("[-]journal failed: disk full"), "{}", ran.err);
}

fn operation(state: &str, steps: Value, error: Option<&str>) -> Answer {
    let document = json!({
        "id": "0199", "kind": "restart", "target": "demo/clock", "state": state, "requested_by": "http:1",
        "requested_at": "2026-11-21T03:59:59.000Z", "ended_at": null, "steps": steps, "error": error
    });
    (if state == "accepted" { 202 } else { 200 }, "application/json", document.to_string())
}

#[test]
fn a_command_is_handed_in_once_and_followed_to_its_end() {
    let mut looks = 0;
    let step =
        json!([{ "at": "2026-11-21T04:00:00.000Z", "agent": "demo/clock", "ok": true, "detail": "running as pid 9" }]);
    let daemon = Daemon::new(move |request| {
        looks += 1;
        match (request.line.starts_with("POST"), looks) {
            (true, _) => operation("accepted", json!([]), None),
            (false, 2) => operation("running", json!([]), None),
            (false, 3) => operation("running", step.clone(), None),
            _ => operation("succeeded", step.clone(), None),
        }
    });
    let env = [("HIVEKEEPER_URL", daemon.url.as_str()), ("HIVEKEEPER_API_TOKEN", "s3cret")];
    let args = ["restart", "demo/clock", "--grace", "1500ms", "--reason", "new \"model\""];
    let ran = run_in(Path::new("/nowhere"), &env, &args);
    let (result, steps) = ("restart demo/clock: succeeded\n", "  demo/clock: running as pid 9\n");
    assert_eq!((ran.exit, ran.out.as_str(), ran.err.as_str()), (Exit::Done, result, steps));
    let requests = daemon.requests();
    assert_eq!(requests[0].line, "POST /api/v1/swarms/demo/agents/clock/restart");
    let body: Value = serde_json::from_str(&requests[0].body).unwrap();
    assert_eq!(body, json!({ "grace_ms": 1500, "reason": "new \"model\"" }));
    for field in ["content-type: application/json", "idempotency-key: ", "authorization: bearer s3cret"] {
        assert!(requests[0].head.contains(field), "{field} is not in {}", requests[0].head);
    }
    assert_eq!(requests[1].line, "GET /api/v1/operations/0199");
    assert_eq!(requests.iter().filter(|request| request.line.starts_with("POST")).count(), 1);
}

#[test]
fn each_verb_has_its_route_and_an_empty_body_where_it_takes_none() {
    for verb in ["restart", "stop", "start", "pause", "resume"] {
        let daemon = Daemon::new(|_| operation("accepted", json!([]), None));
        let ran = run(&daemon, &[verb, "demo", "--no-wait"]);
        assert_eq!(ran.exit, Exit::Done);
        assert_eq!(
            ran.out, "restart demo/clock: accepted as operation 0199\n",
            "what the daemon says, not what was typed"
        );
        let request = &daemon.requests()[0];
        assert_eq!((request.line.clone(), request.body.as_str()), (format!("POST /api/v1/swarms/demo/{verb}"), "{}"));
    }
}

#[test]
fn exit_codes_tell_the_ends_apart() {
    let failed = Daemon::new(|_| operation("failed", json!([]), Some("did not start")));
    let ran = run(&failed, &["restart", "demo/clock"]);
    assert_eq!(ran.exit, Exit::Failed);
    assert!(ran.out.contains("failed: did not start") && ran.err.contains("ps -o wide"), "{ran:?}");

    let ran = run(&failed, &["restart", "demo/clock", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&ran.out).unwrap()["state"], "failed");

    let slow = Daemon::new(|_| operation("accepted", json!([]), None));
    let ran = run(&slow, &["restart", "demo/clock", "--timeout", "50ms"]);
    assert_eq!(ran.exit, Exit::TimedOut);
    assert!(ran.err.contains("It goes on."), "{}", ran.err);

    for (code, hint) in
        [("not_found", "hivekeeper ps"), ("unauthorized", "HIVEKEEPER_API_TOKEN"), ("conflict", "present state")]
    {
        let daemon = Daemon::new(move |_| problem(404, code, "swarm demo not found"));
        let ran = run(&daemon, &["stop", "demo"]);
        assert_eq!(ran.exit, Exit::Refused);
        assert!(ran.err.contains(&format!("swarm demo not found ({code})")) && ran.err.contains(hint), "{}", ran.err);
    }

    let stranger = Daemon::new(|_| (404, "text/html", "<h1>hello</h1>".to_owned()));
    let ran = run(&stranger, &["ps"]);
    assert_eq!(ran.exit, Exit::Unreachable);
    assert!(ran.err.contains("did not answer as a Hivekeeper does"), "{}", ran.err);

    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ran = run_in(Path::new("/nowhere"), &[], &["ps", "--url", &format!("http://{port}")]);
    assert_eq!(ran.exit, Exit::Unreachable);
    assert!(ran.err.contains("can't be reached") && ran.err.contains("--url"), "{}", ran.err);

    let ran = run_in(Path::new("/nowhere"), &[], &["ps", "--url", &format!("https://{port}")]);
    assert_eq!(ran.exit, Exit::Unreachable, "TLS is spoken, too: {}", ran.err);

    for args in [
        &["dance"][..],
        &["stop"],
        &["stop", "De/Mo"],
        &["logs", "demo", "--grep", "("],
        &["logs", "demo", "-v"],
        &["ps", "--url", "ftp://x"],
        &["agent"],
        &["--http", "x", "ps"],
        &["stop", "demo", "--grace", "5 parsecs"],
    ] {
        let ran = run_in(Path::new("/nowhere"), &[], args);
        assert_eq!(ran.exit, Exit::Usage, "{args:?}: {}", ran.err);
        assert!(!ran.err.is_empty());
    }
}

#[test]
fn help_lists_the_exit_codes() {
    let ran = run_in(Path::new("/nowhere"), &[], &["--help"]);
    assert_eq!(ran.exit, Exit::Done);
    for piece in ["Exit codes:", "3  the daemon can't be reached", "handover", "HIVEKEEPER_API_TOKEN"] {
        assert!(ran.out.contains(piece), "{piece:?} is not in\n{}", ran.out);
    }
    assert!(!ran.out.contains("Internal"), "the launcher's command is not for people");
}
