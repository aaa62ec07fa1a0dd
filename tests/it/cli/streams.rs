//! Logs and events: pages, streams that break, readers that go away.

use std::io::{self, Write};

use super::{script::run_to, *};

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
pub(super) struct Pipe(pub(super) usize);

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
