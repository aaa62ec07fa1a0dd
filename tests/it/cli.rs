//! The command line against a scripted daemon: tables, JSON, exit codes, streams that break.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};

use hivekeeper::{
    cli::{Exit, Screen, Surroundings, execute},
    config::Config,
};
use serde_json::{Value, json};

/// One request as it came.
#[derive(Debug, Clone)]
struct Request {
    line: String,
    head: String,
    body: String,
}

/// What is answered: status, media type, text.
type Answer = (u16, &'static str, String);

/// Answers each connection by a script until it is dropped.
struct Daemon {
    url: String,
    seen: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Daemon {
    fn new(mut script: impl FnMut(&Request) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (seen, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (log, end) = (Arc::clone(&seen), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                let Some(request) = read(stream.as_ref().unwrap()) else { continue };
                let (status, media_type, body) = script(&request);
                log.lock().unwrap().push(request);
                let length = if media_type == "text/event-stream" {
                    String::new()
                } else {
                    format!("content-length: {}\r\n", body.len())
                };
                let head =
                    format!("HTTP/1.1 {status} X\r\ncontent-type: {media_type}\r\n{length}connection: close\r\n\r\n");
                // The client may have gone already, as one whose output is gone does.
                let _ = stream.unwrap().write_all(format!("{head}{body}").as_bytes());
            }
        });
        Self { url, seen, stop, thread: Some(thread) }
    }

    fn requests(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.url.trim_start_matches("http://"));
        if self.thread.take().unwrap().join().is_err() && !thread::panicking() {
            panic!("the scripted daemon panicked");
        }
    }
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut input = BufReader::new(stream);
    let mut line = String::new();
    input.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut head = String::new();
    let mut length = 0;
    loop {
        let mut field = String::new();
        input.read_line(&mut field).ok()?;
        if field.trim().is_empty() {
            break;
        }
        let field = field.to_ascii_lowercase();
        if let Some(value) = field.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        head.push_str(&field);
    }
    let mut body = vec![0; length];
    input.read_exact(&mut body).ok()?;
    let line = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    Some(Request { line, head, body: String::from_utf8(body).unwrap() })
}

/// How a command ended and what it wrote.
#[derive(Debug)]
struct Ran {
    exit: Exit,
    out: String,
    err: String,
    served: Option<Config>,
}

/// 2026-11-21T04:00:00Z
fn now() -> SystemTime {
    humantime::parse_rfc3339("2026-11-21T04:00:00Z").unwrap()
}

fn run_in(cwd: &Path, env: &[(&str, &str)], args: &[&str]) -> Ran {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let (exit, served) = run_to(cwd, env, args, &mut out, &mut err);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { exit, out: text(out), err: text(err), served }
}

fn run_to(
    cwd: &Path,
    env: &[(&str, &str)],
    args: &[&str],
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> (Exit, Option<Config>) {
    let env: BTreeMap<String, String> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let around = Surroundings { env, cwd: cwd.to_owned(), now };
    let args = ["hivekeeper"].iter().chain(args).map(OsString::from);
    let mut served = None;
    let mut screen = Screen { out, err, colour: false };
    let exit = execute(args, &around, &mut screen, &mut |config| {
        served = Some(config);
        Ok(())
    });
    (exit, served)
}

fn run(daemon: &Daemon, args: &[&str]) -> Ran {
    run_in(Path::new("/nowhere"), &[("HIVEKEEPER_URL", &daemon.url), ("HIVEKEEPER_ADDR", "127.0.0.1:1")], args)
}

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
data plane listening, 1 sessions, 0 messages dropped, 2 refused
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
    let expected = "  demo/clock: running as pid 9\nrestart demo/clock: succeeded\n";
    assert_eq!((ran.exit, ran.out.as_str(), ran.err.as_str()), (Exit::Done, expected, ""));
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

    for args in [
        &["dance"][..],
        &["stop"],
        &["stop", "De/Mo"],
        &["logs", "demo"],
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

fn line(number: u64, stream: &str, text: &str, partial: bool) -> Value {
    json!({ "number": number, "incarnation": 2, "seq": number, "at": "2026-11-21T03:59:59.000Z", "stream": stream, "level": null, "partial": partial, "text": text })
}

#[test]
fn logs_are_the_programs_words_with_our_notes_set_off() {
    let lines = [
        line(1, "stdout", "tick 1", false),
        line(2, "stdout", "a long ", true),
        line(3, "stdout", "line", false),
        line(4, "stdout", "cut", true),
        line(5, "hivekeeper", "incarnation 2 ended", false),
    ];
    let daemon = daemon_with(200, &json!({ "lines": lines, "first_kept": 1, "last": 5 }));
    assert_eq!(run(&daemon, &["logs", "demo/clock"]).out, "tick 1\na long line\ncut\n-- incarnation 2 ended --\n");
    let long = run(&daemon, &["logs", "demo/clock", "--long", "--tail", "7"]).out;
    assert!(long.starts_with("1 2026-11-21T03:59:59.000Z #2 stdout: tick 1\n"), "{long}");
    let lines: Vec<String> = daemon.requests().into_iter().map(|request| request.line).collect();
    let path = "GET /api/v1/swarms/demo/agents/clock/logs";
    assert_eq!(lines, [format!("{path}?tail=100"), format!("{path}?tail=7")]);
}

#[test]
fn logs_of_a_time_are_read_page_by_page() {
    let daemon = Daemon::new(|request| {
        let number = if request.line.contains("after=1") { 2 } else { 1 };
        let page =
            json!({ "lines": [line(number, "stdout", &format!("tick {number}"), false)], "first_kept": 1, "last": 2 });
        (200, "application/json", page.to_string())
    });
    assert_eq!(run(&daemon, &["logs", "demo/clock", "--since", "10m"]).out, "tick 1\ntick 2\n");
    let lines: Vec<String> = daemon.requests().into_iter().map(|request| request.line).collect();
    let path = "GET /api/v1/swarms/demo/agents/clock/logs";
    assert_eq!(lines, [format!("{path}?since=600000ms&limit=5000"), format!("{path}?after=1&limit=5000")]);
}

/// Frames of server-sent events.
fn stream(frames: &[(Option<u64>, &str, Value)]) -> Answer {
    let mut text = ": hello\n\nretry: 1000\n\n".to_owned();
    for (id, event, data) in frames {
        let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
        text.push_str(&format!("{id}event: {event}\ndata: {data}\n\n"));
    }
    (200, "text/event-stream", text)
}

fn breaking_logs() -> Daemon {
    let mut connections = 0;
    Daemon::new(move |_| {
        connections += 1;
        match connections {
            1 => stream(&[
                (Some(1), "line", line(1, "stdout", "tick 1", false)),
                (Some(2), "line", line(2, "stdout", "tick 2", false)),
            ]),
            _ => stream(&[
                (None, "gap", json!({ "after": 2, "first_kept": 5 })),
                (Some(5), "line", line(5, "stdout", "tick 5", false)),
                (None, "end", json!({ "reason": "removed" })),
            ]),
        }
    })
}

#[test]
fn a_followed_log_goes_on_behind_the_last_line_after_a_break() {
    let daemon = breaking_logs();
    let ran = run(&daemon, &["logs", "-f", "demo/clock", "--tail", "2"]);
    assert_eq!(ran.exit, Exit::Done, "{}", ran.err);
    assert_eq!(ran.out, "tick 1\ntick 2\n-- lines 3 to 4 are no longer kept --\ntick 5\n");
    assert!(ran.err.contains("the connection broke") && ran.err.contains("connected again"), "{}", ran.err);
    let requests = daemon.requests();
    assert_eq!(requests[0].line, "GET /api/v1/swarms/demo/agents/clock/logs?follow=true&tail=2");
    assert!(requests[0].head.contains("accept: text/event-stream") && !requests[0].head.contains("last-event-id"));
    assert_eq!(requests[1].line, "GET /api/v1/swarms/demo/agents/clock/logs?follow=true");
    assert!(requests[1].head.contains("last-event-id: 2"));
    let json = run(&breaking_logs(), &["logs", "-f", "demo/clock", "--json"]).out;
    let numbers: Vec<Value> =
        json.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["number"].clone()).collect();
    assert_eq!(numbers, [json!(1), json!(2), Value::Null, json!(5), Value::Null], "JSON lines, gap and end among them");
}

#[test]
fn a_stream_that_is_refused_ends_the_command() {
    let daemon = Daemon::new(|_| problem(404, "not_found", "agent demo/x not found"));
    assert_eq!(run(&daemon, &["logs", "-f", "demo/x"]).exit, Exit::Refused);
    let daemon = daemon_with(200, &json!({}));
    assert_eq!(run(&daemon, &["events", "-f"]).exit, Exit::Unreachable, "an answer that is no stream");
}

/// Takes a few bytes and is then gone, as `head` is.
struct Pipe(usize);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let daemon = breaking_logs();
    let mut err = Vec::new();
    let env = [("HIVEKEEPER_URL", daemon.url.as_str())];
    let (exit, _) = run_to(Path::new("/nowhere"), &env, &["logs", "-f", "demo/clock"], &mut Pipe(8), &mut err);
    assert_eq!((exit, err.as_slice()), (Exit::Done, &b""[..]));
}

fn event(seq: u64, kind: &str, subject: &str, rest: Value) -> Value {
    let mut event =
        json!({ "seq": seq, "epoch": 1, "at": "2026-11-21T03:59:59.000Z", "kind": kind, "subject": subject });
    event.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    event
}

#[test]
fn events_say_what_happened_and_leave_readings_out() {
    let flaky = hive()["agents"][1].clone();
    let clock = hive()["agents"][0].clone();
    let operation: Value = serde_json::from_str(&operation("succeeded", json!([]), None).2).unwrap();
    let events = [
        event(991, "daemon_started", "", json!({ "version": "0.1.0", "pid": 5 })),
        event(992, "agent_changed", "demo/clock", json!({ "from": "starting", "agent": clock })),
        event(993, "samples", "", json!({ "agents": [] })),
        event(994, "agent_changed", "demo/flaky", json!({ "from": "running", "agent": flaky })),
        event(
            995,
            "hive_changed",
            "",
            json!({ "from": "healthy", "to": "degraded", "reasons": [{ "code": "a", "detail": "b" }] }),
        ),
        event(996, "operation_changed", "0199", json!({ "operation": operation })),
        event(997, "agent_said", "demo/x", json!({ "incarnation": 1, "event": "done", "data": { "n": 1 } })),
        event(998, "news_to_us", "demo/x", json!({})),
        event(999, "agent_changed", "demo/x", json!({})),
    ];
    let mut asked = 0;
    let daemon = Daemon::new(move |_| {
        asked += 1;
        let events = if asked == 1 { &events[..1] } else { &events[..] };
        (200, "application/json", json!({ "events": events, "gap": null, "head": 999, "next_after": 999 }).to_string())
    });
    let ran = run(&daemon, &["events"]);
    let at = "2026-11-21T03:59:59.000Z";
    let expected = format!(
        "\
991  {at}  daemon_started  version 0.1.0, pid 5
992  {at}  agent_changed  demo/clock  starting -> running, incarnation 1, pid 4711
994  {at}  agent_changed  demo/flaky  running -> backing_off, last exit code 3
995  {at}  hive_changed  healthy -> degraded: a: b
996  {at}  operation_changed  restart demo/clock: succeeded
997  {at}  agent_said  demo/x  done {{\"n\":1}}
998  {at}  news_to_us  demo/x
999  {at}  agent_changed  demo/x
"
    );
    assert_eq!((ran.exit, ran.out), (Exit::Done, expected), "{}", ran.err);
    assert_eq!(daemon.requests()[1].line, "GET /api/v1/events?after=799&limit=1000");
}

#[test]
fn the_daemon_is_found_by_flag_variable_and_data_directory_in_this_order() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("d");
    fs::create_dir(&data).unwrap();
    let text = hive().to_string();
    let daemon = Daemon::new(move |_| (200, "application/json", text.clone()));
    let address = daemon.url.trim_start_matches("http://");
    let anywhere = address.replace("127.0.0.1", "0.0.0.0");
    fs::write(data.join("endpoints.json"), json!({ "pid": 1, "http": anywhere, "data_plane": address }).to_string())
        .unwrap();
    fs::write(dir.path().join("config.toml"), "[hive]\ndata_dir = \"d\"\n[log]\nlevel = \"a mistake\"").unwrap();
    assert_eq!(run_in(dir.path(), &[], &["ps"]).exit, Exit::Done, "by endpoints.json, in spite of a mistake elsewhere");
    let host = format!("host: {address}");
    assert!(daemon.requests()[0].head.contains(&host), "an address that is no destination is not asked for");
    let elsewhere = [("HIVEKEEPER_URL", "http://127.0.0.1:1")];
    assert_eq!(run_in(dir.path(), &elsewhere, &["ps"]).exit, Exit::Unreachable, "the variable wins");
    assert_eq!(run_in(dir.path(), &elsewhere, &["ps", "--url", &daemon.url]).exit, Exit::Done, "the flag wins");
    let ran = run_in(Path::new("/nowhere"), &[], &["ps", "--data-dir", &data.to_string_lossy()]);
    assert_eq!(ran.exit, Exit::Done, "{}", ran.err);

    let secret = dir.path().join("secret");
    fs::write(&secret, "t0ken-of-the-api\n").unwrap();
    run_in(dir.path(), &[], &["ps", "--token-file", "secret"]);
    assert!(daemon.requests().last().unwrap().head.contains("authorization: bearer t0ken-of-the-api"));
    assert_eq!(run_in(dir.path(), &[], &["ps", "--token-file", "none"]).exit, Exit::Usage);
    let two_words = [("HIVEKEEPER_API_TOKEN", "two words")];
    assert_eq!(run_in(dir.path(), &two_words, &["ps"]).exit, Exit::Usage);
}

#[test]
fn serve_is_the_default_and_gets_the_flags() {
    let dir = tempfile::tempdir().unwrap();
    for args in
        [&["--http", "127.0.0.1:0", "--data-dir", "/d"][..], &["serve", "--http", "127.0.0.1:0", "--data-dir", "/d"]]
    {
        let ran = run_in(dir.path(), &[("HIVEKEEPER__LOG__LEVEL", "debug")], args);
        let config = ran.served.unwrap_or_else(|| panic!("not served: {}", ran.err));
        assert_eq!((config.http.bind.port(), config.log.level.word()), (0, "debug"));
        assert_eq!(config.hive.data_dir, Path::new("/d"));
    }
}

#[test]
fn check_reports_every_mistake_and_exits_2() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hive.toml");
    fs::write(&file, "[http]\nbnid = 1\n[log]\nlevel = 2\n").unwrap();
    let ran = run_in(dir.path(), &[], &["check", "--config", "hive.toml", "--data-dir", "/d"]);
    assert_eq!(ran.exit, Exit::Usage);
    assert_eq!(ran.out, "");
    assert!(
        ran.err.starts_with("hivekeeper: 2 mistakes in the configuration\nhive.toml:2: http.bnid: "),
        "{}",
        ran.err
    );
    assert!(ran.err.contains("\nhive.toml:4: log.level: "), "{}", ran.err);
    assert_eq!(run_in(dir.path(), &[], &["--config", "hive.toml"]).exit, Exit::Usage, "serve refuses it, too");

    fs::write(&file, "[[swarm]]\nname = \"s\"\n[[swarm.agent]]\nname = \"a\"\nreplicas = 2\ncommand = [\"x\"]")
        .unwrap();
    let ran = run_in(dir.path(), &[], &["check", "--config", "hive.toml", "--data-dir", "/d"]);
    assert_eq!(ran.exit, Exit::Done, "{}", ran.err);
    let expected = format!(
        "{} is good\nhive \"hive\" in /d\napi http://127.0.0.1:8080, data plane 127.0.0.1:9500\nswarm s: 2 agents (a-1 to a-2)\n",
        file.display()
    );
    assert_eq!(ran.out, expected);
}

#[test]
fn handover_signals_the_daemon_of_the_data_directory_and_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_string_lossy().into_owned();
    let handover = || run_in(Path::new("/nowhere"), &[], &["handover", "--data-dir", &data]);
    let endpoints = |pid: u32| {
        let document = json!({ "pid": pid, "http": "127.0.0.1:1", "data_plane": "127.0.0.1:2" });
        fs::write(dir.path().join("endpoints.json"), document.to_string()).unwrap();
    };
    let ran = handover();
    assert_eq!(ran.exit, Exit::Failed);
    assert!(ran.err.contains("endpoints.json"), "{}", ran.err);

    endpoints(std::process::id());
    let ran = handover();
    assert!(ran.exit == Exit::Failed && ran.err.contains("is not the daemon any more"), "{}", ran.err);

    // A stand-in for the daemon: any program by its name that SIGUSR2 ends.
    let stand_in = dir.path().join("hivekeeper");
    fs::copy("/bin/sleep", &stand_in).unwrap();
    let mut child = Command::new(&stand_in).arg("60").spawn().unwrap();
    endpoints(child.id());
    let ran = handover();
    let signal = child.wait_timeout_signal();
    assert_eq!((ran.exit, signal), (Exit::Done, Some(12)), "{}", ran.err);
}

trait WaitSignal {
    /// Waits at most 5 s; then kills and says so by SIGKILL's number.
    fn wait_timeout_signal(&mut self) -> Option<i32>;
}

impl WaitSignal for std::process::Child {
    fn wait_timeout_signal(&mut self) -> Option<i32> {
        for _ in 0..500 {
            if let Some(status) = self.try_wait().unwrap() {
                return status.signal();
            }
            thread::sleep(Duration::from_millis(10));
        }
        self.kill().unwrap();
        self.wait().unwrap().signal()
    }
}
