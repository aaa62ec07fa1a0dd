//! What a shell and man(1) are given, and the examples in every help.

use std::{fs, process::Command};

use super::*;

fn plain(args: &[&str]) -> script::Ran {
    run_in(Path::new("/nowhere"), &[], args)
}

#[test]
fn every_shell_gets_a_script_that_knows_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = plain(&["completions", shell]);
        assert_eq!((ran.exit, ran.err.as_str()), (Exit::Done, ""), "{shell}");
        for word in ["doctor", "history", "token", "revoke", "--dry-run", "--grep"] {
            // fish names a long flag without its dashes.
            assert!(ran.out.contains(word.trim_start_matches('-')), "{shell} does not know {word}");
        }
        assert!(!ran.out.contains("under a lease"), "{shell} offers the launcher's command");
        assert!(!ran.out.contains("subcmd__agent"), "{shell} offers the launcher's command");
    }
    assert_eq!(plain(&["completions", "tcsh"]).exit, Exit::Usage);
    let told: Value = serde_json::from_str(&plain(&["completions", "bash", "--json"]).out).unwrap();
    assert_eq!(told, json!({ "shell": "bash", "text": plain(&["completions", "bash"]).out }));

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hivekeeper.bash");
    fs::write(&file, plain(&["completions", "bash"]).out).unwrap();
    assert!(Command::new("bash").arg("-n").arg(&file).status().unwrap().success());
    // As bash asks: the words so far, and which of them the cursor is in.
    let asks = format!(
        "source {}; COMP_WORDS=(hivekeeper token re); COMP_CWORD=2; _hivekeeper hivekeeper re token; echo ${{COMPREPLY[@]}}",
        file.display()
    );
    let offered = Command::new("bash").args(["-c", &asks]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&offered.stdout).trim(), "revoke", "{offered:?}");
}

#[test]
fn each_command_has_a_manual_page_that_renders() {
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("man1");
    assert_eq!(plain(&["man", "--dir", &pages.to_string_lossy()]).exit, Exit::Done);
    let one = plain(&["man"]);
    assert!(one.exit == Exit::Done && one.out.contains(".TH hivekeeper 1"), "{one:?}");
    let mut names: Vec<String> =
        fs::read_dir(&pages).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    for page in ["hivekeeper.1", "hivekeeper-ps.1", "hivekeeper-token.1", "hivekeeper-token-new.1", "hivekeeper-man.1"]
    {
        assert!(names.iter().any(|name| name == page), "{page} is not among {names:?}");
    }
    assert!(!names.iter().any(|name| name == "hivekeeper-agent.1"), "the launcher's command is not for people");
    for name in &names {
        // Where groff is not there, only the text is looked at.
        let Ok(shown) = Command::new("groff").args(["-man", "-Tutf8", "-ww"]).arg(pages.join(name)).output() else {
            assert!(fs::read_to_string(pages.join(name)).unwrap().contains(".SH NAME"));
            continue;
        };
        // Bold is a letter struck twice.
        let text = String::from_utf8_lossy(&shown.stdout);
        let is_whole = text.contains("N\u{8}NA\u{8}AM\u{8}ME\u{8}E") || text.contains("NAME");
        assert!(shown.status.success() && is_whole, "{name}: {}\n{text}", String::from_utf8_lossy(&shown.stderr));
        assert!(shown.stderr.is_empty(), "{name}: {}", String::from_utf8_lossy(&shown.stderr));
    }
    let page = fs::read_to_string(pages.join("hivekeeper-logs.1")).unwrap();
    assert!(page.contains("hivekeeper logs \\-f demo/clock"), "the examples are in the manual, too:\n{page}");
}

#[test]
fn every_help_has_examples() {
    let help = plain(&["--help"]).out;
    let commands = help.split("Commands:").nth(1).unwrap().split("\n\n").next().unwrap();
    let names: Vec<&str> = commands.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).collect();
    assert!(names.len() > 15, "{names:?}");
    for name in names.into_iter().filter(|name| !name.is_empty() && *name != "help") {
        let help = plain(&[name, "--help"]).out;
        assert!(help.contains("\nExamples:\n  hivekeeper "), "`{name} --help` has no example:\n{help}");
    }
}

/// How each command is asked for JSON, and whether a daemon answers it. What writes no document says why.
enum Form {
    /// Its words, behind which `--json` is put; the scripted daemon answers.
    Asked(&'static [&'static str]),
    /// Not asked here, and why.
    Apart(&'static str),
}

fn form(command: &str) -> Form {
    use Form::{Apart, Asked};
    match command {
        "serve" => Apart("it is the daemon"),
        "completions" => Asked(&["completions", "bash"]),
        "man" => Asked(&["man"]),
        "run" => Apart("its output is the program's; its own test has its JSON"),
        "backup" | "restore" | "handover" => Apart("they work on a data directory; their own tests have their JSON"),
        "init" => Asked(&["init", "made"]),
        "check" => Asked(&["check"]),
        "doctor" => Asked(&["doctor"]),
        "ps" => Asked(&["ps"]),
        "mcp" => Apart("it speaks JSON and nothing else"),
        "top" => Apart("it needs a terminal; its own test has its JSON"),
        "tree" => Asked(&["tree"]),
        "health" => Asked(&["health"]),
        "logs" => Asked(&["logs", "demo/clock"]),
        "events" => Asked(&["events", "--kind", "agent_changed"]),
        "history" => Asked(&["history", "demo"]),
        "up" => Apart("it reads a document and writes one; its own test has its JSON"),
        "rm" => Asked(&["rm", "demo", "--no-wait"]),
        "scale" => Asked(&["scale", "demo/clock=2", "--no-wait"]),
        "restart" | "stop" | "start" | "pause" | "resume" => Asked(match command {
            "restart" => &["restart", "demo"],
            "stop" => &["stop", "demo"],
            "start" => &["start", "demo"],
            "pause" => &["pause", "demo"],
            _ => &["resume", "demo"],
        }),
        "wait" => Apart("it follows the health; its own test has its JSON"),
        "operations" => Asked(&["operations"]),
        "tasks" => Asked(&["tasks"]),
        "locks" => Asked(&["locks"]),
        "messages" => Asked(&["messages"]),
        "report" => Asked(&["report"]),
        "reload" => Asked(&["reload", "--dry-run"]),
        "reconcile" => Asked(&["reconcile"]),
        "token" => Asked(&["token", "ls"]),
        "notify" => Asked(&["notify", "ls"]),
        "ready" => Asked(&["ready"]),
        other => panic!("`{other}` has no row here: say how it is asked for JSON"),
    }
}

/// Everything that any of the commands above reads, in one document.
fn everything(request: &script::Request) -> Answer {
    if request.line.contains("/readyz") {
        return (200, "text/plain", "[+]journal ok\nready\n".to_owned());
    }
    let mut document = hive();
    let more = json!({
        "id": "0199", "path": "root", "kind": "restart", "target": "demo", "state": "succeeded", "requested_by": "http:1",
        "requested_at": "2026-11-21T03:59:59.000Z", "ended_at": null, "steps": [], "error": null,
        "lines": [], "first_kept": 1, "last": 0, "events": [], "gap": null, "head": 0, "next_after": 0, "resolution": "10s",
        "until": "2026-11-21T04:00:00.000Z", "points": [], "operations": [], "next_cursor": null, "findings": [],
        "dry_run": true, "file": null, "changes": [], "needs_restart": [], "tokens": [], "notifiers": [],
        "tasks": [], "locks": [], "messages": [], "markdown": ""
    });
    document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    (200, "application/json", document.to_string())
}

#[test]
fn every_command_has_a_json_form() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(
        dir.path().join("swarm.json"),
        json!({ "name": "demo", "agent": [{ "name": "a", "command": ["x"] }] }).to_string(),
    )
    .unwrap();
    let help = plain(&["--help"]).out;
    let commands = help.split("Commands:").nth(1).unwrap().split("\n\n").next().unwrap();
    let names: Vec<&str> = commands.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).collect();
    for name in names.into_iter().filter(|name| !name.is_empty() && *name != "help") {
        let words = match form(name) {
            Form::Asked(words) => words,
            Form::Apart(why) => {
                assert!(!why.is_empty());
                continue;
            }
        };
        let daemon = Daemon::new(everything);
        let args = [words, &["--json"]].concat();
        let ran = run_in(dir.path(), &[("HIVEKEEPER_URL", &daemon.url)], &args);
        assert!(!ran.out.trim().is_empty(), "`{name} --json` prints nothing: {ran:?}");
        for line in ran.out.lines() {
            assert!(
                serde_json::from_str::<Value>(line).is_ok_and(|value| value.is_object()),
                "`{name} --json`: {line}\n{}",
                ran.err
            );
        }
    }
}

#[test]
fn check_and_ready_say_in_json_what_they_say_in_words() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.toml"), "[log]\nlevel = 2\n").unwrap();
    let ran = run_in(dir.path(), &[], &["check", "--json"]);
    let told: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.exit, &told["good"]), (Exit::Usage, &json!(false)));
    let problem = &told["problems"][0];
    assert_eq!((&problem["key"], &problem["place"]), (&json!("log.level"), &json!("config.toml:2")), "{told}");

    let not = Daemon::new(|_| (503, "text/plain", "[+]http ok\n[-]journal failed: disk full\nnot ready\n".to_owned()));
    let ran = run(&not, &["ready", "--json"]);
    let expected = json!({ "ready": false, "checks": [
        { "name": "http", "ok": true, "detail": "ok" }, { "name": "journal", "ok": false, "detail": "failed: disk full" } ] });
    assert_eq!((ran.exit, serde_json::from_str::<Value>(&ran.out).unwrap()), (Exit::Failed, expected));
}

#[test]
fn doctor_looks_without_a_daemon_and_names_the_mend() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.toml"), "[http]\nbind = \"127.0.0.1:0\"\n[data_plane]\nbind = \"127.0.0.1:0\"\n")
        .unwrap();
    let ran = run_in(dir.path(), &[("HIVEKEEPER_URL", "http://127.0.0.1:1")], &["doctor", "--json"]);
    assert_eq!(ran.exit, Exit::Done, "no daemon is no fault: {ran:?}");
    let told: Value = serde_json::from_str(&ran.out).unwrap();
    let of =
        |name: &str| told["checks"].as_array().unwrap().iter().find(|check| check["check"] == name).unwrap().clone();
    assert_eq!(of("daemon")["verdict"], "warn");
    assert!(of("daemon")["mend"].as_str().unwrap().contains("hivekeeper serve"), "{told}");
    for name in ["configuration", "data directory", "disk", "kernel", "open files"] {
        assert_eq!(of(name)["verdict"], "ok", "{told}");
    }

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    fs::write(dir.path().join("config.toml"), format!("[http]\nbind = \"{}\"\n", taken.local_addr().unwrap())).unwrap();
    let ran = run_in(dir.path(), &[("HIVEKEEPER_URL", "http://127.0.0.1:1")], &["doctor"]);
    assert_eq!(ran.exit, Exit::Failed);
    let held = format!("{} is held by process {}", taken.local_addr().unwrap(), std::process::id());
    let told = ran.out.lines().find(|line| line.contains(&held));
    assert!(told.is_some_and(|line| line.starts_with("fail  http.bind ")), "{held} is not in\n{}", ran.out);
}

#[test]
fn a_refusal_says_what_to_do_next() {
    let refused = |code: &'static str, path: &'static str| {
        Daemon::new(move |request| {
            if request.line == "GET /api/v1/health" {
                return (200, "application/json", hive().to_string());
            }
            let document = json!({ "status": 404, "detail": "it is so", "code": code, "instance": path });
            (404, "application/problem+json", document.to_string())
        })
    };
    for (code, piece) in [
        ("unauthorized", "No token was sent"),
        ("forbidden", "--scope control"),
        ("rate_limited", "Try again"),
        ("precondition_failed", "changed it since"),
        ("invalid_configuration", "hivekeeper check"),
    ] {
        let daemon = refused(code, "/x");
        let ran = run(&daemon, &["restart", "demo"]);
        assert!(ran.exit == Exit::Refused && ran.err.contains(piece), "{code}: {}", ran.err);
    }
    let env = |daemon: &Daemon| [("HIVEKEEPER_URL", daemon.url.clone()), ("HIVEKEEPER_API_TOKEN", "hk_x".to_owned())];
    let daemon = refused("invalid_token", "/x");
    let env = env(&daemon);
    let env: Vec<(&str, &str)> = env.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let ran = run_in(Path::new("/nowhere"), &env, &["restart", "demo"]);
    assert!(ran.err.contains("came from HIVEKEEPER_API_TOKEN") && !ran.err.contains("hk_x"), "{}", ran.err);

    for (path, meant) in [
        ("/api/v1/swarms/dmeo/restart", "`demo`"),
        ("/api/v1/swarms/demo/agents/clok/restart", "`demo/clock`"),
        ("/api/v1/swarms/flaky/restart", "`demo/flaky`"),
    ] {
        let daemon = refused("not_found", path);
        let ran = run(&daemon, &["restart", "demo"]);
        assert!(ran.err.contains(&format!("Did you mean {meant}?")), "{path}: {}", ran.err);
    }
    let notifiers = Daemon::new(|request| {
        if request.line == "GET /api/v1/notifiers" {
            return (200, "application/json", json!({ "notifiers": [{ "name": "pager" }] }).to_string());
        }
        let document = json!({ "detail": "x", "code": "not_found", "instance": "/api/v1/notifiers/pagr/test" });
        (404, "application/problem+json", document.to_string())
    });
    let ran = run(&notifiers, &["notify", "test", "pagr"]);
    assert!(ran.err.contains("Did you mean `pager`?"), "{}", ran.err);
    let daemon = refused("not_found", "/api/v1/swarms/zebra");
    assert!(!run(&daemon, &["restart", "demo"]).err.contains("Did you mean"));
}

#[test]
fn who_can_not_be_reached_is_told_by_what_named_it() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("d");
    fs::create_dir(&data).unwrap();
    let gone = Command::new("true").spawn().and_then(|mut child| child.wait().map(|_| child.id())).unwrap();
    fs::write(data.join("endpoints.json"), json!({ "pid": gone, "http": "127.0.0.1:1" }).to_string()).unwrap();
    let ran = run_in(dir.path(), &[], &["ps", "--data-dir", "d"]);
    let piece =
        format!("process {gone}, which wrote that, has ended: `hivekeeper serve --data-dir {}`", data.display());
    assert!(ran.exit == Exit::Unreachable && ran.err.contains(&piece), "{piece} is not in {}", ran.err);
    let ran = run_in(dir.path(), &[("HIVEKEEPER_URL", "http://127.0.0.1:1")], &["ps"]);
    assert!(ran.err.contains("HIVEKEEPER_URL says this address"), "{}", ran.err);
}
