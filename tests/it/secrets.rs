//! Secrets by reference: agents have them, and nobody is shown them.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::hive::{Hive, Session, until};

/// Not to be found anywhere but where it was put.
const PLANTED: &str = "sk-planted-5f0e7c2a91";

/// A swarm `s` with the secret `KEY`, whose agent runs this script in its own working directory.
fn swarm(script: &str) -> String {
    format!(
        "[[swarm]]\nname = \"s\"\nenv = {{ KEY = {{ file = \"./key\" }} }}\n[[swarm.agent]]\nname = \"a\"\n\
         command = [\"sh\", \"-c\", {script:?}]\nlease = \"20s\"\nstop_grace = \"1s\""
    )
}

fn start(key: Option<&str>, script: &str) -> Hive {
    let mut hive = Hive::prepare(&swarm(script));
    if let Some(key) = key {
        fs::write(hive.file("key"), key).unwrap();
    }
    hive.boot();
    hive
}

/// Every file below a directory.
fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => files(&entry.path(), found),
            kind if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
}

fn holds(path: &Path, text: &str) -> bool {
    fs::read(path).is_ok_and(|bytes| memchr::memmem::find(&bytes, text.as_bytes()).is_some())
}

/// Fails where a text is found in what the hive keeps, shows or has on a command line. `but` names the files that are the agent's own.
fn nowhere(hive: &Hive, text: &str, but: &[PathBuf]) {
    let mut kept = Vec::new();
    files(&hive.data(), &mut kept);
    kept.push(hive.file("daemon.log"));
    assert!(kept.iter().any(|path| path.ends_with("hive.db")), "{kept:?}");
    let leaks: Vec<_> = kept.iter().filter(|path| !but.contains(path) && holds(path, text)).collect();
    assert!(leaks.is_empty(), "{leaks:?}");
    for path in [
        "/api/v1/health",
        "/api/v1/swarms",
        "/api/v1/swarms/s",
        "/api/v1/swarms/s/agents/a",
        "/api/v1/swarms/s/agents/a/logs",
        "/api/v1/swarms/s/history",
        "/api/v1/tree",
        "/api/v1/events?after=0",
        "/api/v1/operations",
        "/metrics",
        "/readyz?verbose",
    ] {
        let answer = hive.get(path);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        assert!(!answer.body.to_string().contains(text), "{path}: {}", answer.body);
    }
    let mut shown = hive.viewer();
    assert!(
        !shown.next_that("is the whole document", |frame| frame["type"] == "status_update").to_string().contains(text)
    );
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let line = process.path().join("cmdline");
        assert!(!holds(&line, text), "{}", line.display());
    }
}

/// The lines of the agent's log.
fn log(hive: &Hive) -> Vec<String> {
    hive.lines("s/a").iter().map(|line| line["text"].as_str().unwrap_or_default().to_owned()).collect()
}

fn waits_for_line(hive: &Hive, wanted: &str) {
    until("the line is kept", || log(hive).iter().any(|line| line == wanted).then_some(()));
}

#[test]
fn an_agent_has_its_secret_and_nobody_is_shown_it() {
    let script =
        "printf %s \"$KEY\" > got; echo \"my key is $KEY\"; echo \"and $KEY\" >&2; echo \"token $HIVEKEEPER_TOKEN.\"
        env > a.1.new; mv a.1.new a.1; exec sleep 60";
    let hive = start(Some(&format!("{PLANTED}\n")), script);
    let work = hive.data().join("work/s");
    let given = until("what the agent was given", || fs::read_to_string(work.join("a.1")).ok());
    assert_eq!(fs::read_to_string(work.join("got")).unwrap(), PLANTED);
    let token = given.lines().find_map(|line| line.strip_prefix("HIVEKEEPER_TOKEN=")).unwrap().to_owned();
    for line in ["my key is [redacted]", "and [redacted]", "token [redacted]."] {
        waits_for_line(&hive, line);
    }
    let mut session = Session::open(&hive, "a", 1, &json!({}));
    session.tell("hive/heartbeat", &json!({ "progress": { "doing": format!("with {PLANTED}") } }));
    session.tell("hive/log", &json!({ "level": "info", "line": format!("logged {PLANTED}") }));
    session.tell("hive/event", &json!({ "kind": "note", "text": format!("told {PLANTED} and {token}") }));
    waits_for_line(&hive, "logged [redacted]");
    let agent = hive.agent_until("s/a", "tells its progress", |agent| !agent["progress"]["value"].is_null());
    assert!(agent["progress"].to_string().contains("with [redacted]"), "{agent}");
    let said = until("the event", || {
        let events = hive.get("/api/v1/events?after=0&limit=1000").body["events"].clone();
        events.as_array()?.iter().find(|event| event.to_string().contains("told")).cloned()
    });
    assert!(said.to_string().contains("told [redacted] and [redacted]"), "{said}");
    let document = hive.get("/api/v1/swarms/s").body;
    assert!(document.to_string().contains(r#""KEY":{"file":"#), "the reference is shown: {document}");
    let own = [work.join("got"), work.join("a.1")];
    nowhere(&hive, PLANTED, &own);
    nowhere(&hive, &token, &own);
}

#[test]
fn what_a_dying_agent_said_last_is_hidden_too() {
    let hive = start(Some(PLANTED), "echo \"bad key $KEY\" >&2; sleep 0.2; exit 3");
    let agent = hive.agent_until("s/a", "ends", |agent| !agent["last_exit"].is_null());
    assert_eq!(agent["last_exit"]["last_lines"], json!(["bad key [redacted]"]));
    nowhere(&hive, PLANTED, &[]);
}

#[test]
fn a_secret_is_read_anew_at_each_start_and_its_change_restarts_nobody() {
    let mut hive = start(Some("first-value"), "printf %s \"$KEY\" > got.new; mv got.new got; exec sleep 60");
    let got = hive.data().join("work/s/got");
    let gets = |wanted: &str| until("the agent's value", || (fs::read_to_string(&got).ok()? == wanted).then_some(()));
    gets("first-value");
    let pid = hive.agent_pid("s/a");
    fs::write(hive.file("key"), "second-value").unwrap();
    hive.kill();
    hive.boot();
    assert_eq!(hive.agent_pid("s/a"), pid, "the reference is the same, so the next daemon takes it over");
    hive.command("/swarms/s/restart");
    gets("second-value");
    fs::write(hive.file("other"), "third-value").unwrap();
    let text = fs::read_to_string(hive.config()).unwrap().replace("./key", "./other");
    fs::write(hive.config(), text).unwrap();
    hive.kill();
    hive.boot();
    gets("third-value");
}

#[test]
fn a_taken_over_agent_prints_no_secret_either() {
    let script = "until test -e go; do sleep 0.05; done; echo \"late $KEY and $HIVEKEEPER_TOKEN\"; exec sleep 60";
    let mut hive = start(Some(PLANTED), script);
    let pid = hive.agent_pid("s/a");
    hive.kill();
    hive.boot();
    assert_eq!(hive.agent_pid("s/a"), pid);
    fs::write(hive.data().join("work/s/go"), "").unwrap();
    waits_for_line(&hive, "late [redacted] and [redacted]");
    nowhere(&hive, PLANTED, &[]);
}

#[test]
fn a_missing_secret_fails_the_start_and_names_where_it_should_be() {
    let hive = start(None, "exec sleep 60");
    let failed = |agent: &Value| agent["last_exit"]["cause"].to_string().contains("start_failed");
    let agent = hive.agent_until("s/a", "fails to start", failed);
    let why = agent["last_exit"].to_string();
    assert!(why.contains("variable KEY") && why.contains("/key") && why.contains("No such file"), "{why}");
    fs::write(hive.file("key"), PLANTED).unwrap();
    hive.command("/swarms/s/restart");
    hive.running("s/a");
}

/// Whoever else has an account on the machine reads nothing of it.
#[test]
fn nobody_else_may_read_what_the_data_directory_holds() {
    let mut hive = start(Some(PLANTED), "echo hello; exec sleep 60");
    waits_for_line(&hive, "hello");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    hive.terminate();
    assert_eq!(mode(&hive.data()), 0o700);
    let mut kept = Vec::new();
    files(&hive.data(), &mut kept);
    for name in ["hive.db", "history.sqlite", "hive-id"] {
        assert!(kept.iter().any(|path| path.ends_with(name)), "{name} is not in {kept:?}");
    }
    assert!(kept.iter().any(|path| path.starts_with(hive.data().join("logs"))), "{kept:?}");
    // What agents write in their working directories has the modes that they give it; nobody else gets that far.
    kept.retain(|path| !path.starts_with(hive.data().join("work")));
    let open: Vec<_> = kept.iter().filter(|path| mode(path) & 0o077 != 0).map(|path| (mode(path), path)).collect();
    assert!(open.is_empty(), "{open:?}");
}
