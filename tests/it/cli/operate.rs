//! What changes swarms: documents, numbers, operations and waiting for them.

use std::fs;

use hivekeeper::cli::{Interrupts, Screen};

use super::{
    script::{Request, run_with},
    *,
};

fn lines(daemon: &Daemon) -> Vec<String> {
    daemon.requests().into_iter().map(|request| request.line).collect()
}

fn done(kind: &str, target: &str) -> Answer {
    let document = json!({ "id": "0199", "kind": kind, "target": target, "state": "succeeded", "steps": [] });
    (200, "application/json", document.to_string())
}

/// A directory with two documents.
fn documents() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let new = "[[swarm]]\nname = \"new\"\nworkdir = \"work\"\n[[swarm.agent]]\nname = \"a\"\ncommand = [\"true\"]\n";
    let old = json!({ "name": "old", "agent": [{ "name": "b", "command": ["true"] }] });
    fs::write(dir.path().join("new.toml"), new).unwrap();
    fs::write(dir.path().join("old.json"), old.to_string()).unwrap();
    dir
}

/// Knows the swarm `old` only; an update of it would replace `b` unless `same`.
fn keeper(same: bool) -> Daemon {
    Daemon::new(move |request| match request.line.as_str() {
        "GET /api/v1/swarms/new" => problem(404, "not_found", "swarm new not found"),
        "GET /api/v1/swarms/old" => (200, "application/json", json!({ "name": "old" }).to_string()),
        "PUT /api/v1/swarms/old?dry_run=true" => {
            let change = if same { "keep" } else { "replace" };
            let agents = json!([{ "agent": "b", "change": change }]);
            let whole = if same { "keep" } else { "update" };
            (200, "application/json", json!({ "swarm": "old", "change": whole, "agents": agents }).to_string())
        }
        "PUT /api/v1/swarms/old" => done("update", "old"),
        "POST /api/v1/swarms" => done("launch", "new"),
        other => panic!("{other} was not to be asked for"),
    })
}

fn up(daemon: &Daemon, dir: &Path, args: &[&str]) -> script::Ran {
    let args: Vec<&str> = [&["up", "new.toml", "old.json"], args].concat();
    run_in(dir, &[("HIVEKEEPER_URL", &daemon.url)], &args)
}

#[test]
fn up_launches_what_is_missing_and_updates_what_is_there() {
    let (dir, daemon) = (documents(), keeper(false));
    let ran = up(&daemon, dir.path(), &[]);
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Done, "launch new: succeeded\nupdate old: succeeded\n"), "{ran:?}");
    let launch = daemon.requests().into_iter().find(|request| request.line.starts_with("POST")).unwrap();
    let sent: Value = serde_json::from_str(&launch.body).unwrap();
    let work = dir.path().join("work");
    let expected =
        json!({ "name": "new", "workdir": work.to_str().unwrap(), "agent": [{ "name": "a", "command": ["true"] }] });
    assert_eq!(sent, expected, "the document as it was written, its paths made absolute");
    assert!(launch.head.contains("idempotency-key: "));
}

#[test]
fn up_holds_an_update_against_the_version_that_was_planned() {
    let dir = documents();
    let daemon = Daemon::new(|request| match request.line.as_str() {
        "PUT /api/v1/swarms/old" => problem(412, "precondition_failed", "the document is \"2\", not \"1\""),
        "PUT /api/v1/swarms/old?dry_run=true" => (200, "application/json", json!({ "change": "update" }).to_string()),
        _ => (200, "application/json\r\netag: \"1\"", "{}".to_owned()),
    });
    let ran = run_in(dir.path(), &[("HIVEKEEPER_URL", &daemon.url)], &["up", "old.json"]);
    assert_eq!(ran.exit, Exit::Refused);
    assert!(ran.err.contains("precondition_failed") && ran.err.contains("try again"), "{}", ran.err);
    for put in daemon.requests().iter().filter(|request| request.line.starts_with("PUT")) {
        assert!(put.head.contains("if-match: \"1\""), "{}", put.head);
    }
}

#[test]
fn up_again_changes_nothing_and_a_dry_run_never_does() {
    let dir = documents();
    let daemon = keeper(true);
    let ran = run_in(dir.path(), &[("HIVEKEEPER_URL", &daemon.url)], &["up", "old.json"]);
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Done, "old: unchanged\n"));
    assert_eq!(lines(&daemon), ["GET /api/v1/swarms/old", "PUT /api/v1/swarms/old?dry_run=true"]);

    let daemon = keeper(false);
    let ran = up(&daemon, dir.path(), &["--dry-run"]);
    assert_eq!(ran.out, "new: would be launched: start a\nold: would be updated: replace b\n", "{}", ran.err);
    let json = up(&daemon, dir.path(), &["--dry-run", "--json"]).out;
    let changes: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&changes[0]["change"], &changes[1]["change"]), (&json!("add"), &json!("update")));
    assert!(!lines(&daemon).iter().any(|line| line.starts_with("POST") || line == "PUT /api/v1/swarms/old"));
}

#[test]
fn mistakes_in_files_are_told_at_once_and_nothing_is_sent() {
    let dir = documents();
    fs::write(dir.path().join("bad.toml"), "[[swarm]]\nname = \"Bad\"\n[[swarm]]\nname = \"new\"\n").unwrap();
    let daemon = keeper(false);
    let ran = up(&daemon, dir.path(), &["bad.toml", "none.toml"]);
    assert_eq!((ran.exit, lines(&daemon)), (Exit::Usage, vec![]));
    for piece in
        ["bad.toml: swarm[#1].name", "a second swarm new; the first is in new.toml", "none.toml: can't be read"]
    {
        assert!(ran.err.contains(piece), "{piece:?} is not in {}", ran.err);
    }
}

#[test]
fn a_refused_document_shows_every_mistake_and_keeps_no_other_from_going() {
    let dir = documents();
    let errors = json!([{ "key": "agent.a.restart", "found": "\"always\"", "allowed": "permanent, transient" }]);
    let refusal = json!({ "detail": "one mistake", "code": "invalid_document", "errors": errors }).to_string();
    let daemon = Daemon::new(move |request| match request.line.as_str() {
        "POST /api/v1/swarms" => (422, "application/problem+json", refusal.clone()),
        "GET /api/v1/swarms/new" => problem(404, "not_found", "swarm new not found"),
        "PUT /api/v1/swarms/old" => done("update", "old"),
        "PUT /api/v1/swarms/old?dry_run=true" => (200, "application/json", json!({ "change": "update" }).to_string()),
        _ => (200, "application/json", "{}".to_owned()),
    });
    let ran = up(&daemon, dir.path(), &[]);
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Refused, "update old: succeeded\n"));
    assert!(ran.err.contains("hivekeeper: new: the daemon refused: 1 mistake\n"), "{}", ran.err);
    assert!(ran.err.contains("agent.a.restart: found \"always\", allowed: permanent, transient"), "{}", ran.err);
}

#[test]
fn rm_scale_and_rolling_restarts_have_their_routes() {
    for (args, line, body) in [
        (&["rm", "demo"][..], "DELETE /api/v1/swarms/demo", None),
        (
            &["scale", "demo/coder=5"],
            "POST /api/v1/swarms/demo/scale",
            Some(json!({ "agent": "coder", "replicas": 5 })),
        ),
        (
            &["restart", "demo", "--rolling", "--reason", "new model"],
            "POST /api/v1/swarms/demo/restart",
            Some(json!({ "mode": "rolling", "reason": "new model" })),
        ),
    ] {
        let daemon = Daemon::new(|_| done("x", "demo"));
        let ran = run(&daemon, args);
        assert_eq!((ran.exit, ran.out.as_str()), (Exit::Done, "x demo: succeeded\n"), "{}", ran.err);
        let Request { line: found, body: sent, head } = daemon.requests().remove(0);
        assert_eq!(found, line);
        assert!(head.contains("idempotency-key: ") && head.contains("content-type: application/json"), "{head}");
        assert_eq!(body, serde_json::from_str(&sent).ok());
    }
    for args in [&["scale", "demo=5"][..], &["scale", "demo/coder"], &["scale", "demo/coder=x"], &["rm"]] {
        assert_eq!(run_in(Path::new("/nowhere"), &[], args).exit, Exit::Usage, "{args:?}");
    }
    let daemon = Daemon::new(|_| done("x", "demo"));
    let ran = run(&daemon, &["restart", "demo/clock", "--rolling"]);
    assert_eq!((ran.exit, lines(&daemon)), (Exit::Usage, vec![]), "one agent can't be rolled");
}

#[test]
fn several_swarms_are_removed_side_by_side_and_the_first_failure_is_the_end() {
    let daemon = Daemon::new(|request| match request.line.as_str() {
        "DELETE /api/v1/swarms/b" => problem(409, "conflict", "swarm b is in the daemon's own file"),
        line if line.starts_with("DELETE") => operation("accepted", json!([]), None),
        _ => done("delete", "a"),
    });
    let ran = run(&daemon, &["rm", "a", "b", "c"]);
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Refused, "delete a: succeeded\ndelete a: succeeded\n"));
    assert!(ran.err.contains("hivekeeper: b: the daemon refused"), "{}", ran.err);
    assert!(
        lines(&daemon)[..3].iter().all(|line| line.starts_with("DELETE")),
        "all are asked before any is waited for"
    );
}

#[test]
fn ctrl_c_leaves_an_operation_running_and_says_how_to_go_on() {
    let interrupts = Interrupts::by_hand();
    let press = interrupts.clone();
    let daemon = Daemon::new(move |request| {
        if request.line.starts_with("GET") {
            press.press();
        }
        operation("running", json!([]), None)
    });
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let screen = Screen { out: &mut out, err: &mut err, colour: false, live: None };
    let env = [("HIVEKEEPER_URL", daemon.url.as_str())];
    let (exit, _) = run_with(Path::new("/nowhere"), &env, &["restart", "demo"], screen, &interrupts);
    let err = String::from_utf8(err).unwrap();
    assert_eq!((exit, exit.code()), (Exit::Interrupted, 130), "{err}");
    for piece in ["goes on as operation 0199", "hivekeeper operations watch 0199", "hivekeeper operations cancel 0199"]
    {
        assert!(err.contains(piece), "{piece:?} is not in {err}");
    }
    assert!(out.is_empty() && !lines(&daemon).iter().any(|line| line.contains("cancel")));
}

#[test]
fn a_terminal_has_one_live_line_that_is_gone_at_the_end() {
    let began = std::time::Instant::now();
    let daemon = Daemon::new(move |_| {
        let step = json!([
            { "agent": "demo/a", "ok": false, "detail": "did not start" },
            { "agent": "demo/b", "ok": true, "detail": "a detail that is far longer than the terminal is wide" }
        ]);
        operation(if began.elapsed().as_millis() < 600 { "running" } else { "failed" }, step, None)
    });
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let screen = Screen { out: &mut out, err: &mut err, colour: false, live: Some(40) };
    let env = [("HIVEKEEPER_URL", daemon.url.as_str())];
    let (exit, _) = run_with(Path::new("/nowhere"), &env, &["restart", "demo"], screen, &Interrupts::by_hand());
    assert_eq!((exit, String::from_utf8(out).unwrap().as_str()), (Exit::Failed, "restart demo/clock: failed\n"));
    let err = String::from_utf8(err).unwrap();
    assert!(err.starts_with("  demo/a: failed: did not start\n\r\x1b[K"), "{err:?}");
    let live: Vec<&str> = err.split("\r\x1b[K").collect();
    assert!(live[1..].iter().all(|line| line.lines().next().unwrap_or("").chars().count() < 40), "{err:?}");
    assert!(live.len() > 2 && live[1].starts_with("restart demo/clock: running, 0s, 2 done"), "{err:?}");
    assert!(
        live.last().unwrap().starts_with("hivekeeper: restart failed"),
        "it is wiped before anything else: {err:?}"
    );
}

#[test]
fn operations_are_listed_shown_watched_and_cancelled() {
    let page = json!({ "operations": [{
        "id": "0199", "kind": "restart", "target": "demo", "state": "failed", "requested_by": "http:127.0.0.1:1",
        "requested_at": "2026-11-21T03:57:00.000Z", "ended_at": null, "steps": [], "error": "did not start"
    }], "next_cursor": null });
    let daemon = Daemon::new(move |request| match request.line.as_str() {
        line if line.starts_with("GET /api/v1/operations?") => (200, "application/json", page.to_string()),
        "POST /api/v1/operations/01994fd6-0000-7000-8000-000000000000/cancel" => {
            operation("cancelled", json!([]), Some("called off"))
        }
        _ => operation("succeeded", json!([{ "agent": "demo/clock", "ok": true, "detail": "running" }]), None),
    });
    let id = "01994fd6-0000-7000-8000-000000000000";
    let expected = "\
ID    KIND     TARGET  STATE    ASKED  BY                WHY
0199  restart  demo    failed  3m ago  http:127.0.0.1:1  did not start
";
    assert_eq!(run(&daemon, &["operations"]).out, expected);
    assert_eq!(run(&daemon, &["operations", "ls", "--limit", "7"]).out, expected);
    let shown = run(&daemon, &["operations", "show", id]).out;
    assert_eq!(shown, "restart demo/clock: succeeded\nasked by http:1 1s ago\n  demo/clock: running\n");
    assert_eq!(run(&daemon, &["operations", "watch", id]).out, "restart demo/clock: succeeded\n");
    assert_eq!(run(&daemon, &["operations", "cancel", id]).out, "restart demo/clock: cancelled: called off\n");
    assert_eq!(run(&daemon, &["operations", "show", "7"]).exit, Exit::Usage);
    assert!(lines(&daemon).contains(&"GET /api/v1/operations?limit=7".to_owned()));
}

/// A stream of health documents.
fn told(frames: &[Value]) -> Answer {
    let text: String = frames.iter().map(|frame| format!("id: 1\ndata: {frame}\n\n")).collect();
    (200, "text/event-stream", text)
}

fn whole(agents: &[Value]) -> Value {
    let mut document = hive();
    document["agents"] = json!(agents);
    document["type"] = json!("status_update");
    document
}

fn clock(state: &str) -> Value {
    let mut agent = hive()["agents"][0].clone();
    agent["state"] = json!(state);
    agent
}

fn changed(agents: &[Value], removed: &[&str]) -> Value {
    json!({ "type": "session_update", "agents": agents, "swarms": [], "removed": removed })
}

#[test]
fn wait_ends_when_the_stream_tells_of_it() {
    let hello = json!({ "type": "connection_established", "client_id": "x" });
    let daemon = {
        let frames = [hello, whole(&[clock("starting")]), changed(&[clock("running")], &[])];
        Daemon::new(move |_| told(&frames))
    };
    let ran = run(&daemon, &["wait", "demo"]);
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Done, "demo is running\n"), "{}", ran.err);
    let path = "GET /sse/hybrid-health?subscriptions=status,sessions&swarms=demo";
    assert_eq!(lines(&daemon), [path], "it listens and asks for nothing");
    let ran = run(&daemon, &["wait", "demo/clock", "--for", "running", "--json"]);
    let document: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((&document["reached"], &document["agents"][0]["state"]), (&json!("running"), &json!("running")));

    let daemon = Daemon::new(|_| told(&[whole(&[clock("stopping")]), changed(&[], &["demo/clock"])]));
    assert_eq!(run(&daemon, &["wait", "demo/clock", "--for", "stopped"]).exit, Exit::Done, "gone is stopped");
}

#[test]
fn wait_tells_what_is_missing_what_is_hopeless_and_what_is_not_there() {
    let daemon = Daemon::new(|_| told(&[whole(&[clock("starting")])]));
    let ran = run(&daemon, &["wait", "demo", "--for", "healthy", "--timeout", "100ms"]);
    assert_eq!(ran.exit, Exit::TimedOut);
    assert!(ran.err.contains("Missing: demo/clock is starting"), "{}", ran.err);

    let mut stuck = whole(&[clock("running")]);
    stuck["swarms"][0]["level"] = json!("degraded");
    let daemon = Daemon::new(move |_| told(&[stuck.clone()]));
    let ran = run(&daemon, &["wait", "demo", "--for", "healthy", "--timeout", "100ms"]);
    assert!(ran.err.contains("swarm demo is degraded"), "{}", ran.err);
    assert_eq!(run(&daemon, &["wait", "demo/clock", "--for", "healthy"]).exit, Exit::Done);

    let daemon = Daemon::new(|_| told(&[whole(&[clock("failed")])]));
    let ran = run(&daemon, &["wait", "demo"]);
    assert_eq!(ran.exit, Exit::Failed);
    assert!(ran.err.contains("demo/clock is failed, and stays so until somebody acts"), "{}", ran.err);

    let daemon = Daemon::new(|_| {
        told(&[{
            let mut empty = whole(&[]);
            empty["swarms"] = json!([]);
            empty
        }])
    });
    assert_eq!(run(&daemon, &["wait", "demo"]).exit, Exit::Refused);
}
