//! `run` against a scripted daemon: output, exit codes, Ctrl-C, and what is left behind.

use std::fs;

use hivekeeper::cli::{Interrupts, Screen};

use super::{script::run_with, *};

const RUN: [&str; 3] = ["run", "--name", "once"];

/// What was seen of the agent by then.
fn agent(state: &str, code: Option<i64>, signal: Option<i64>) -> Value {
    let mut agent = hive()["agents"][0].clone();
    (agent["swarm"], agent["name"], agent["state"]) = (json!("once"), json!("sh"), json!(state));
    if code.is_some() || signal.is_some() {
        agent["last_exit"] = json!({
            "incarnation": 1, "code": code, "signal": signal, "oom": null, "at": "2026-11-21T03:59:59.000Z",
            "cause": "exited", "detail": "x", "last_lines": []
        });
    }
    agent
}

fn told(agents: &[Value]) -> Answer {
    let mut document = hive();
    (document["type"], document["agents"]) = (json!("status_update"), json!(agents));
    (200, "text/event-stream", format!("id: 1\ndata: {document}\n\n"))
}

fn lines() -> Vec<Value> {
    let line = |number: u64, stream: &str, text: &str, partial: bool| {
        json!({ "number": number, "incarnation": 1, "seq": number, "at": "2026-11-21T03:59:59.000Z", "stream": stream,
            "level": null, "partial": partial, "text": text })
    };
    vec![line(1, "stdout", "out ", true), line(2, "stdout", "put", false), line(3, "stderr", "complaint", false)]
}

/// Runs one agent that is seen as `then` from the second look on; how it was before, nobody looked.
fn keeper(seen: impl Fn(usize) -> Value + Send + 'static) -> Daemon {
    let mut looks = 0;
    Daemon::new(move |request| match request.line.as_str() {
        "POST /api/v1/swarms" => operation("accepted", json!([]), None),
        "POST /api/v1/swarms/once/stop" => operation("accepted", json!([]), None),
        "DELETE /api/v1/swarms/once" => operation("succeeded", json!([]), None),
        line if line.starts_with("GET /sse/hybrid-health") => {
            looks += 1;
            told(&[seen(looks)])
        }
        line if line.contains("follow=true") => {
            let frames: String = lines()[..1]
                .iter()
                .map(|line| format!("id: {}\nevent: line\ndata: {line}\n\n", line["number"]))
                .collect();
            (200, "text/event-stream", frames)
        }
        line if line.contains("/logs?") => {
            let after = if line.contains("after=1") { 1 } else { 0 };
            (200, "application/json", json!({ "lines": lines()[after..], "first_kept": 1, "last": 3 }).to_string())
        }
        _ => operation("succeeded", json!([]), None),
    })
}

fn asked(daemon: &Daemon, method: &str) -> Vec<String> {
    daemon.requests().into_iter().map(|request| request.line).filter(|line| line.starts_with(method)).collect()
}

#[test]
fn run_is_the_program_its_output_and_its_exit_code() {
    for (code, signal, exit) in
        [(Some(0), None, Exit::Done), (Some(7), None, Exit::Program(7)), (None, Some(9), Exit::Program(137))]
    {
        let daemon = keeper(move |_| agent("completed", code, signal));
        let ran =
            run(&daemon, &[&RUN[..], &["-e", "A=1", "-e", "HIVEKEEPER_ADDR", "--", "/bin/sh", "-c", "x"]].concat());
        assert_eq!((ran.exit, ran.out.as_str(), ran.err.as_str()), (exit, "out put\n", "complaint\n"));
        let launch = daemon.requests().into_iter().find(|request| request.line.starts_with("POST")).unwrap();
        let expected = json!({ "name": "once", "workdir": "/nowhere", "agent": [{
            "name": "sh", "command": ["/bin/sh", "-c", "x"], "restart": "temporary",
            "env": { "A": "1", "HIVEKEEPER_ADDR": "127.0.0.1:1" }
        }] });
        assert_eq!(serde_json::from_str::<Value>(&launch.body).unwrap(), expected);
        assert_eq!(asked(&daemon, "DELETE"), ["DELETE /api/v1/swarms/once"]);
    }
}

#[test]
fn run_tells_why_a_program_did_not_start_and_removes_it_all_the_same() {
    let daemon = keeper(|_| {
        let mut agent = agent("failed", Some(0), None);
        (agent["last_exit"]["code"], agent["last_exit"]["cause"]) = (Value::Null, json!("start_failed"));
        agent["last_exit"]["detail"] = json!("no such file: /bin/none");
        agent
    });
    let ran = run(&daemon, &[&RUN[..], &["sh"]].concat());
    assert_eq!(ran.exit, Exit::Failed);
    assert!(ran.err.contains("once/sh: no such file: /bin/none"), "{}", ran.err);
    assert_eq!(asked(&daemon, "DELETE").len(), 1);
    assert_eq!(run(&daemon, &["run", "--env", "UNSET_HERE", "sh"]).exit, Exit::Usage);
    assert_eq!(run(&daemon, &["run"]).exit, Exit::Usage);
}

#[test]
fn a_directory_that_is_not_here_is_not_made_for_a_program_of_this_machine() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = keeper(|_| agent("completed", Some(0), None));
    let address = daemon.url.trim_start_matches("http://");
    fs::create_dir(dir.path().join(".hivekeeper")).unwrap();
    fs::write(
        dir.path().join(".hivekeeper/endpoints.json"),
        json!({ "pid": 1, "http": address, "data_plane": address }).to_string(),
    )
    .unwrap();
    let ran = run_in(dir.path(), &[], &[&RUN[..], &["--workdir", "typo", "sh"]].concat());
    assert!(ran.exit == Exit::Usage && ran.err.contains("typo is no directory"), "{}", ran.err);
    assert!(asked(&daemon, "POST").is_empty());
    let there = run(&daemon, &[&RUN[..], &["--workdir", "typo", "sh"]].concat());
    assert_eq!(there.exit, Exit::Done, "where the daemon's files are not ours, it knows better: {}", there.err);
}

#[test]
fn run_as_json_is_lines_and_the_end() {
    let daemon = keeper(|_| agent("completed", Some(3), None));
    let ran = run(&daemon, &[&RUN[..], &["--json", "sh"]].concat());
    let documents: Vec<Value> = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((ran.exit, documents.len()), (Exit::Program(3), 4), "{ran:?}");
    assert_eq!((&documents[1]["text"], &documents[3]["code"]), (&json!("put"), &json!(3)));
}

#[test]
fn detached_it_is_left_to_the_daemon() {
    let daemon = keeper(|_| agent("running", None, None));
    let ran = run(&daemon, &[&RUN[..], &["--detach", "--image", "debian", "--restart", "permanent", "sh"]].concat());
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Done, "once/sh\n"), "{}", ran.err);
    let launch: Value = serde_json::from_str(&daemon.requests()[0].body).unwrap();
    assert_eq!((&launch["image"], &launch["agent"][0]["restart"]), (&json!("debian"), &json!("permanent")));
    assert!(launch.get("workdir").is_none(), "a container has its own");
    assert!(asked(&daemon, "DELETE").is_empty());
}

#[test]
fn ctrl_c_asks_twice_kills_and_the_exit_is_still_the_programs() {
    let interrupts = Interrupts::by_hand();
    let press = interrupts.clone();
    let daemon = keeper(move |look| match look {
        1 => {
            press.press();
            press.press();
            agent("running", None, None)
        }
        _ => agent("stopped", None, Some(9)),
    });
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let screen = Screen { out: &mut out, err: &mut err, colour: false, live: None };
    let env = [("HIVEKEEPER_URL", daemon.url.as_str())];
    let (exit, _) = run_with(Path::new("/nowhere"), &env, &[&RUN[..], &["sh"]].concat(), screen, &interrupts);
    let err = String::from_utf8(err).unwrap();
    assert_eq!(exit, Exit::Program(137), "{err}");
    assert!(err.contains("stopping; Ctrl-C again kills it") && err.contains("killing"), "{err}");
    let bodies: Vec<Value> = daemon
        .requests()
        .iter()
        .filter(|request| request.line.ends_with("/stop"))
        .map(|request| serde_json::from_str::<Value>(&request.body).unwrap()["grace_ms"].clone())
        .collect();
    assert_eq!(bodies, [Value::Null, json!(0)]);
    assert_eq!(asked(&daemon, "DELETE").len(), 1);
}

#[test]
fn a_reader_that_goes_away_takes_the_program_with_it() {
    let daemon = keeper(|_| agent("running", None, None));
    let mut err = Vec::new();
    let screen = Screen { out: &mut streams::Pipe(2), err: &mut err, colour: false, live: None };
    let env = [("HIVEKEEPER_URL", daemon.url.as_str())];
    let (exit, _) =
        run_with(Path::new("/nowhere"), &env, &[&RUN[..], &["sh"]].concat(), screen, &Interrupts::by_hand());
    assert_eq!((exit, asked(&daemon, "DELETE").len()), (Exit::Done, 1), "{}", String::from_utf8_lossy(&err));
}
