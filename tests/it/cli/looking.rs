//! `history`, `logs` of several agents and with a filter, `events` with a choice.

use std::sync::{Arc, atomic::AtomicUsize, atomic::Ordering};

use super::*;

#[test]
fn history_draws_what_was_measured_and_leaves_holes() {
    let point = |minute: u32, cpu: Value, restarts: Value| {
        json!({
            "at": format!("2026-11-21T03:{minute:02}:00.000Z"), "cpu": cpu, "memory": { "mean": 1_048_576, "max": 2_097_152 },
            "heartbeat_latency_ms": { "max": 3 }, "tokens": null, "restarts": restarts
        })
    };
    let page = json!({
        "swarm": "demo", "agent": "clock", "resolution": "1m", "since": "2026-11-21T03:57:00.000Z", "until": "2026-11-21T04:00:00.000Z",
        "points": [point(57, json!({ "mean": 0.5, "max": 1.0 }), json!(0)), point(58, json!(null), json!(null)),
            point(59, json!({ "mean": 1.5, "max": 2.0 }), json!(1))]
    });
    let text = page.to_string();
    let daemon = Daemon::new(move |_| (200, "application/json", text.clone()));
    let ran = run(&daemon, &["history", "demo/clock", "--since", "3m", "--resolution", "1m"]);
    let expected = "\
demo/clock, 2026-11-21T03:57:00.000Z to 2026-11-21T04:00:00.000Z, a point for each 1m
cpu       ▅·█  max 2.00
memory    ███  max 2.0MiB
latency   ███  max 3ms
tokens    not measured
restarts  ▁·█  max 1

AT                         CPU  CPU MAX  MEMORY  MEMORY MAX  LATENCY MAX  TOKENS IN  OUT  RESTARTS
2026-11-21T03:57:00.000Z  0.50     1.00  1.0MiB      2.0MiB          3ms          -    -         0
2026-11-21T03:58:00.000Z     -        -  1.0MiB      2.0MiB          3ms          -    -         -
2026-11-21T03:59:00.000Z  1.50     2.00  1.0MiB      2.0MiB          3ms          -    -         1
";
    assert_eq!((ran.exit, ran.out.as_str(), ran.err.as_str()), (Exit::Done, expected, ""));
    let asked = &daemon.requests()[0].line;
    assert_eq!(asked, "GET /api/v1/swarms/demo/agents/clock/history?since=180000ms&resolution=1m");
    assert_eq!(run(&daemon, &["history", "demo", "--json"]).out, format!("{page}\n"));
    assert_eq!(run(&daemon, &["history", "demo", "--resolution", "5m"]).exit, Exit::Usage);
}

fn line(number: u64, second: u64, text: &str) -> Value {
    json!({
        "number": number, "incarnation": 1, "seq": number, "at": format!("2026-11-21T04:00:{second:02}.000Z"),
        "stream": "stdout", "level": null, "partial": false, "text": text
    })
}

/// Two agents, each with some lines, as pages and as streams.
fn two() -> Daemon {
    Daemon::new(|request| {
        let agent = |name: &str| {
            hive()["agents"][0].as_object().cloned().map(|mut agent| {
                agent.insert("name".into(), json!(name));
                Value::Object(agent)
            })
        };
        if request.line == "GET /api/v1/swarms/demo" {
            let agents = [agent("clock"), agent("indexer-1")];
            return (200, "application/json", json!({ "name": "demo", "agents": agents }).to_string());
        }
        let lines = if request.line.contains("/agents/clock/") {
            [line(1, 1, "tick one"), line(2, 3, "Error: two")]
        } else {
            [line(1, 2, "indexing"), line(2, 4, "an error here")]
        };
        if request.line.contains("follow=true") {
            let frames: String =
                lines.iter().map(|line| format!("id: {}\nevent: line\ndata: {line}\n\n", line["number"])).collect();
            return (200, "text/event-stream", frames + "event: end\ndata: {\"reason\":\"gone\"}\n\n");
        }
        (200, "application/json", json!({ "lines": lines, "first_kept": 1, "last": 2 }).to_string())
    })
}

#[test]
fn the_lines_of_a_swarm_are_put_together_by_their_times() {
    let daemon = two();
    let ran = run(&daemon, &["logs", "demo"]);
    let expected = "\
clock     | tick one
indexer-1 | indexing
clock     | Error: two
indexer-1 | an error here
";
    assert_eq!((ran.exit, ran.out.as_str(), ran.err.as_str()), (Exit::Done, expected, ""));
    assert_eq!(run(&daemon, &["logs", "demo", "--tail", "1"]).out, "indexer-1 | an error here\n", "the last of all");
    let json: Value = serde_json::from_str(&run(&daemon, &["logs", "demo", "--json"]).out).unwrap();
    assert_eq!((&json["lines"][1]["agent"], &json["lines"][1]["text"]), (&json!("indexer-1"), &json!("indexing")));
}

#[test]
fn grep_chooses_lines_and_asks_for_all_that_are_kept() {
    let daemon = two();
    let out = |args: &[&str]| run(&daemon, args).out;
    assert_eq!(out(&["logs", "demo", "--grep", "[Ee]rror"]), "clock     | Error: two\nindexer-1 | an error here\n");
    assert_eq!(out(&["logs", "demo", "--grep", "(?i)ERROR", "-v"]), "clock     | tick one\nindexer-1 | indexing\n");
    assert_eq!(out(&["logs", "demo/clock", "--grep", "^tick"]), "tick one\n");
    let asked = daemon.requests().last().unwrap().line.clone();
    assert!(asked.contains("after=0") && !asked.contains("tail"), "{asked}");
    let json: Value = serde_json::from_str(&out(&["logs", "demo/clock", "--grep", "two", "--json"])).unwrap();
    assert_eq!(json, json!({ "lines": [line(2, 3, "Error: two")], "first_kept": 1, "last": 2 }));
    let json: Value =
        serde_json::from_str(out(&["logs", "-f", "demo/clock", "--grep", "two", "--json"]).lines().next().unwrap())
            .unwrap();
    assert_eq!(json, line(2, 3, "Error: two"));
}

#[test]
fn a_swarm_is_followed_through_a_stream_for_each_agent() {
    let daemon = two();
    // The daemon forgets the swarm after the first look, which ends the command: both streams have ended by then.
    let (looks, seen) = (Arc::new(AtomicUsize::new(0)), daemon.url.clone());
    let count = Arc::clone(&looks);
    let front = Daemon::new(move |request| {
        if request.line == "GET /api/v1/swarms/demo" && count.fetch_add(1, Ordering::SeqCst) > 0 {
            return problem(404, "not_found", "swarm demo not found");
        }
        relay(&seen, request)
    });
    let ran = run(&front, &["logs", "-f", "demo", "--grep", "o"]);
    let mut lines: Vec<&str> = ran.out.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["clock     | Error: two", "clock     | tick one", "indexer-1 | an error here"]);
    assert_eq!(ran.exit, Exit::Refused, "a swarm that is gone ends it: {}", ran.err);
}

/// Asks another daemon the same.
fn relay(url: &str, request: &script::Request) -> Answer {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(url.trim_start_matches("http://")).unwrap();
    stream.write_all(format!("{} HTTP/1.1\r\nhost: x\r\n\r\n", request.line).as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let media_type = if head.contains("event-stream") { "text/event-stream" } else { "application/json" };
    (200, media_type, body.to_owned())
}

fn event(seq: u64, minute: u64, kind: &str, subject: &str) -> Value {
    json!({ "seq": seq, "at": format!("2026-11-21T03:{minute:02}:00.000Z"), "kind": kind, "subject": subject, "more": [1] })
}

/// Events 1 to 60 of the hour before now, one a minute.
fn hour() -> Daemon {
    Daemon::new(|request| {
        let number = |key: &str| {
            let text = request.line.split(key).nth(1)?;
            text.split(['&', ' ']).next()?.parse::<u64>().ok()
        };
        let (after, limit) = (number("after=").unwrap_or(0), number("limit=").unwrap_or(100));
        let events: Vec<Value> = (after + 1..=60)
            .take(usize::try_from(limit).unwrap())
            .map(|n| {
                event(
                    n,
                    n - 1,
                    if n % 2 == 0 { "agent_changed" } else { "swarm_changed" },
                    if n % 3 == 0 { "demo/clock" } else { "other" },
                )
            })
            .collect();
        let next = events.last().map_or(after, |event| event["seq"].as_u64().unwrap());
        (200, "application/json", json!({ "events": events, "gap": null, "head": 60, "next_after": next }).to_string())
    })
}

#[test]
fn events_are_chosen_by_age_kind_and_swarm() {
    let daemon = hour();
    let numbers = |args: &[&str]| -> Vec<u64> {
        let ran = run(&daemon, args);
        assert_eq!(ran.exit, Exit::Done, "{}", ran.err);
        ran.out.lines().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect()
    };
    assert_eq!(numbers(&["events", "--since", "4m30s"]), [57, 58, 59, 60]);
    assert_eq!(numbers(&["events", "--since", "2h"]).len(), 60);
    assert!(numbers(&["events", "--since", "1s"]).is_empty());
    assert_eq!(numbers(&["events", "--since", "10m", "--swarm", "demo"]), [51, 54, 57, 60]);
    assert_eq!(numbers(&["events", "--swarm", "demo", "--kind", "agent_changed", "--after", "40"]), [42, 48, 54, 60]);
    let ran = run(&daemon, &["events", "--after", "57", "--kind", "agent_changed", "--json"]);
    let expected = json!({ "events": [event(58, 57, "agent_changed", "other"), event(60, 59, "agent_changed", "demo/clock")], "head": 60, "next_after": 60 });
    assert_eq!(serde_json::from_str::<Value>(&ran.out).unwrap(), expected);
    assert_eq!(run(&daemon, &["events", "--after", "1", "--since", "1m"]).exit, Exit::Usage);
    let ran = run(&daemon, &["events", "--kind", "agent_change"]);
    assert!(ran.exit == Exit::Usage && ran.err.contains("a similar value exists: 'agent_changed'"), "{}", ran.err);
    let ran = run(&daemon, &["events", "--swarm", "nobody"]);
    assert_eq!((ran.exit, ran.out.as_str(), ran.err.as_str()), (Exit::Done, "", "no event that is kept is of these\n"));
}

#[test]
fn followed_events_are_chosen_too() {
    let daemon = Daemon::new(|request| {
        if !request.head.contains("text/event-stream") {
            return problem(404, "not_found", "unexpected");
        }
        if request.head.contains("last-event-id") {
            return problem(404, "not_found", "the end of this test");
        }
        let frames: String = [
            event(1, 1, "agent_changed", "demo/clock"),
            event(2, 2, "swarm_changed", "demo"),
            event(3, 3, "agent_changed", "demolition/x"),
        ]
        .iter()
        .map(|event| format!("id: {}\nevent: {}\ndata: {event}\n\n", event["seq"], event["kind"].as_str().unwrap()))
        .collect();
        (200, "text/event-stream", frames)
    });
    let ran = run(&daemon, &["events", "-f", "--swarm", "demo", "--kind", "agent_changed", "--json"]);
    assert_eq!(ran.out, format!("{}\n", event(1, 1, "agent_changed", "demo/clock")));
}
