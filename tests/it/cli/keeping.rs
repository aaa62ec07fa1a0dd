//! `init`, `reload`, `reconcile`, `token`, `notify`.

use std::fs;

use super::*;

#[test]
fn init_writes_what_check_finds_good_and_never_overwrites() {
    let dir = tempfile::tempdir().unwrap();
    let ran = run_in(dir.path(), &[], &["init", "my-hive"]);
    assert_eq!((ran.exit, ran.err.as_str()), (Exit::Done, ""));
    let file = dir.path().join("my-hive/config.toml");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("\nname = \"my-hive\"\n") && text.contains("\n#bind = \"127.0.0.1:8080\"\n"), "{text}");
    assert!(ran.out.contains("start it   cd my-hive && "), "{}", ran.out);

    let checked = run_in(&dir.path().join("my-hive"), &[], &["check"]);
    assert!(checked.exit == Exit::Done && checked.out.contains("swarm demo: 1 agent (clock)"), "{checked:?}");
    // What is offered with a "#" before it must be good, too.
    let offered: String = text
        .lines()
        .map(|line| line.strip_prefix('#').filter(|l| !l.starts_with(' ')).unwrap_or(line).to_owned() + "\n")
        .collect();
    assert_ne!(offered, text);
    fs::write(dir.path().join("offered.toml"), &offered).unwrap();
    let checked = run_in(dir.path(), &[], &["check", "--config", "offered.toml"]);
    assert_eq!(checked.exit, Exit::Done, "{}", checked.err);

    let again = run_in(dir.path(), &[], &["init", "my-hive"]);
    assert!(again.exit == Exit::Failed && again.err.contains("never overwritten"), "{again:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), text);
    assert_eq!(run_in(dir.path(), &[], &["init", "--config", "x.toml"]).exit, Exit::Usage);

    let deep = format!("a/{}", "b".repeat(80));
    let ran = run_in(dir.path(), &[], &["init", &deep]);
    assert!(ran.exit == Exit::Usage && ran.err.contains("data_dir"), "what check finds is said at once: {ran:?}");

    let ran = run_in(&dir.path().join("a"), &[], &["init", "--json"]);
    let told: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(told["file"], dir.path().join("a/config.toml").to_str().unwrap());
}

#[test]
fn reload_shows_what_changes_and_what_only_a_new_daemon_reads() {
    let plan = json!({
        "dry_run": true, "file": "/h/config.toml", "needs_restart": ["http.bind"], "changes": [
            { "swarm": "demo", "change": "update", "operation": null, "agents": [
                { "agent": "clock", "change": "keep" }, { "agent": "coder-2", "change": "replace" } ] },
            { "swarm": "same", "change": "keep", "operation": null, "agents": [] },
            { "swarm": "old", "change": "remove", "operation": null, "agents": [{ "agent": "a", "change": "stop" }] }
        ]
    });
    let text = plan.to_string();
    let daemon = Daemon::new(move |_| (200, "application/json", text.clone()));
    let ran = run(&daemon, &["reload", "--dry-run"]);
    let expected = "\
what /h/config.toml would change, and nothing is done:
~ update swarm demo
    keep    clock
    replace coder-2
- remove swarm old
    stop a
";
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Done, expected));
    assert!(ran.err.contains("http.bind") && ran.err.contains("handover"), "{}", ran.err);
    assert_eq!(daemon.requests()[0].line, "POST /api/v1/reload?dry_run=true");
    assert_eq!(run(&daemon, &["reload", "--dry-run", "--json"]).out, format!("{plan}\n"));

    let nothing = Daemon::new(|_| {
        let plan = json!({ "dry_run": false, "file": "/h/c.toml", "changes": [], "needs_restart": [] });
        (200, "application/json", plan.to_string())
    });
    assert_eq!(run(&nothing, &["reload"]).out, "/h/c.toml changes nothing\n");
}

#[test]
fn reconcile_lists_what_should_not_be_there() {
    let finding = |fate: &str, more: Value| {
        let mut finding =
            json!({ "kind": "container", "name": "hk-x\u{1b}", "swarm": "demo", "why": "no such swarm", "fate": fate });
        finding.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        finding
    };
    let findings = json!({ "dry_run": false, "findings": [
        finding("waits", json!({ "removed_in_ms": 42_000 })), finding("failed", json!({ "error": "busy" }))
    ]});
    let text = findings.to_string();
    let daemon = Daemon::new(move |_| (200, "application/json", text.clone()));
    let ran = run(&daemon, &["reconcile"]);
    let expected = "\
KIND       NAME        SWARM  FATE            WHY
container  hk-x\\u{1b}  demo   removed in 42s  no such swarm
container  hk-x\\u{1b}  demo   failed: busy    no such swarm
";
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Failed, expected), "{}", ran.err);
    assert_eq!(daemon.requests()[0].line, "POST /api/v1/reconcile?dry_run=false");
    assert!(daemon.requests()[0].head.contains("content-type: application/json"));

    let clean = Daemon::new(|_| (200, "application/json", json!({ "dry_run": true, "findings": [] }).to_string()));
    assert_eq!(run(&clean, &["reconcile", "--dry-run"]).out, "nothing is there that should not be\n");
}

fn token(id: &str, name: &str) -> Value {
    json!({
        "id": id, "name": name, "scope": "control", "created_at": "2026-11-21T03:00:00.000Z",
        "expires_at": "2026-11-23T04:00:00.000Z", "last_used_at": null
    })
}

#[test]
fn a_new_tokens_secret_is_the_whole_output() {
    let daemon = Daemon::new(|_| {
        let mut made = token("01", "deploy");
        made["secret"] = json!("hk_s3cret");
        (201, "application/json", made.to_string())
    });
    let ran = run(&daemon, &["token", "new", "deploy", "--scope", "control", "--expires", "2d"]);
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Done, "hk_s3cret\n"));
    assert!(ran.err.contains("not shown again") && ran.err.contains("token revoke 01"), "{}", ran.err);
    let body: Value = serde_json::from_str(&daemon.requests()[0].body).unwrap();
    assert_eq!(body, json!({ "name": "deploy", "scope": "control", "expires_in_ms": 172_800_000 }));
    run(&daemon, &["token", "new", "eye"]);
    let body: Value = serde_json::from_str(&daemon.requests()[1].body).unwrap();
    assert_eq!(body, json!({ "name": "eye", "scope": "read" }), "who says nothing may only look");
    assert_eq!(run(&daemon, &["token", "new", "x", "--scope", "root"]).exit, Exit::Usage);
}

#[test]
fn tokens_are_listed_and_taken_back_by_id_or_by_a_name_that_is_one() {
    let daemon = Daemon::new(|request| match request.line.as_str() {
        "GET /api/v1/tokens" => {
            let tokens = [token("01", "deploy"), token("02", "eye"), token("03", "eye")];
            (200, "application/json", json!({ "tokens": tokens, "next_cursor": null }).to_string())
        }
        _ => (204, "application/json", String::new()),
    });
    let out = run(&daemon, &["token", "ls"]).out;
    assert!(
        out.starts_with(
            "NAME    SCOPE    CREATED  EXPIRES  LAST USED  ID\ndeploy  control   1h ago    in 2d          -  01\n"
        ),
        "{out}"
    );
    let gone = |word: &str| run(&daemon, &["token", "revoke", word]);
    assert_eq!(gone("deploy").out, "revoked 01\n");
    assert_eq!(gone("02").out, "revoked 02\n");
    let ran = gone("eye");
    assert!(ran.exit == Exit::Failed && ran.err.contains("say which: 02, 03"), "{ran:?}");
    let ran = gone("nobody");
    assert!(ran.exit == Exit::Failed && ran.err.contains("token ls"), "{ran:?}");
    let deleted: Vec<String> =
        daemon.requests().into_iter().map(|request| request.line).filter(|line| line.starts_with("DELETE")).collect();
    assert_eq!(deleted, ["DELETE /api/v1/tokens/01", "DELETE /api/v1/tokens/02"]);
}

#[test]
fn notifiers_are_listed_with_what_ails_them_and_tried() {
    let daemon = Daemon::new(|request| match request.line.as_str() {
        "GET /api/v1/notifiers" => {
            let notifier = |name: &str, swarms: Value, trouble: Value| {
                json!({
                    "name": name, "kind": "webhook", "on": ["failed", "critical"], "swarms": swarms, "delivered": 7,
                    "summed_up": 0, "lost": 1, "failed_attempts": 2, "waiting": 3, "trouble": trouble
                })
            };
            let all = [
                notifier("oncall", json!([]), json!("answered 503\u{1b}")),
                notifier("pager", json!(["a", "b"]), Value::Null),
            ];
            (200, "application/json", json!({ "notifiers": all }).to_string())
        }
        "POST /api/v1/notifiers/pager/test" => {
            (200, "application/json", json!({ "notifier": "pager", "delivered": true, "error": null }).to_string())
        }
        "POST /api/v1/notifiers/oncall/test" => {
            let told = json!({ "notifier": "oncall", "delivered": false, "error": "answered 503" });
            (200, "application/json", told.to_string())
        }
        _ => {
            let told = json!({ "detail": "notifier x not found", "code": "not_found", "instance": "/api/v1/notifiers/x/test" });
            (404, "application/problem+json", told.to_string())
        }
    });
    let expected = "\
NAME    KIND     ON               SWARMS  DELIVERED  SUMMED UP  LOST  WAITING
oncall  webhook  failed,critical  all             7          0     1        3
pager   webhook  failed,critical  a,b             7          0     1        3
oncall: answered 503\\u{1b}
";
    assert_eq!(run(&daemon, &["notify", "ls"]).out, expected);
    let ran = run(&daemon, &["notify", "test", "pager"]);
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Done, "pager took the message\n"));
    let ran = run(&daemon, &["notify", "test", "oncall"]);
    assert!(ran.exit == Exit::Failed && ran.out.is_empty() && ran.err.contains("answered 503"), "{ran:?}");
    let ran = run(&daemon, &["notify", "test", "oncall", "--json"]);
    assert!(ran.exit == Exit::Failed && ran.out.contains("\"delivered\":false"), "{ran:?}");
    let ran = run(&daemon, &["notify", "test", "x"]);
    assert!(ran.exit == Exit::Refused && ran.err.contains("notify ls"), "who is not there is no agent: {ran:?}");
    let nobody = Daemon::new(|_| (200, "application/json", json!({ "notifiers": [] }).to_string()));
    let ran = run(&nobody, &["notify", "ls"]);
    assert!(ran.exit == Exit::Done && ran.out.is_empty() && ran.err.contains("[[notify]]"), "{ran:?}");
}
