//! What a well-behaved agent gets.

use std::{sync::atomic::Ordering, time::Duration};

use hivekeeper::{
    data_plane::PlaneLimits,
    model::{Drain, RelaySink, Telemetry, TelemetryKind},
};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};

use super::harness::{Client, Plane, SOON, eventually};

#[test]
fn telemetry_goes_up_in_order_between_opened_and_closed() {
    let plane = Plane::start(PlaneLimits::default());
    let mut agent = plane.open("a");
    agent.notify("hive/heartbeat", json!({"progress": 0.5}));
    agent.notify("hive/log", json!({"level": "warn", "line": "careful"}));
    agent.notify(
        "hive/batch",
        json!({"notifications": [{"method": "hive/metric", "params": {"name": "n", "value": 1}}]}),
    );
    agent.notify("hive/usage", json!({"gen_ai.usage.input_tokens": 5}));
    agent.notify("hive/event", json!({"kind": "done"}));
    agent.is_well();
    eventually("one session", || plane.stats().presence.sessions == 1);
    drop(agent);
    eventually("the session's end is told", || plane.sink.of("s/a").contains(&TelemetryKind::SessionClosed));
    let words: Vec<&str> = plane.sink.of("s/a").iter().map(word).collect();
    assert_eq!((words.first(), words.last()), (Some(&"opened"), Some(&"closed")));
    assert!(["heartbeat", "log", "metric", "usage", "event"].iter().all(|word| words.contains(word)), "{words:?}");
    assert_eq!(plane.sink.messages("s/a"), 6);
    let stats = plane.stats();
    assert_eq!((stats.messages, stats.refused.len(), stats.overdue), (7, 0, 0));
}

fn word(kind: &TelemetryKind) -> &'static str {
    match kind {
        TelemetryKind::SessionOpened => "opened",
        TelemetryKind::SessionClosed => "closed",
        TelemetryKind::Heartbeat { .. } => "heartbeat",
        TelemetryKind::Logs(_) | TelemetryKind::Logged(_) => "log",
        TelemetryKind::Counted(_) => "metric",
        TelemetryKind::Usage(_) => "usage",
        TelemetryKind::Event { .. } => "event",
    }
}

#[test]
fn closed_is_told_when_the_last_session_ends() {
    let plane = Plane::start(PlaneLimits::default());
    let first = plane.open("a");
    let mut second = plane.open("a");
    drop(first);
    eventually("one session is left", || plane.stats().presence.sessions == 1);
    second.is_well();
    assert_eq!(plane.sink.count("s/a", &TelemetryKind::SessionClosed), 0);
    drop(second);
    eventually("no session is left", || plane.sink.count("s/a", &TelemetryKind::SessionClosed) == 1);
    assert_eq!(plane.sink.count("s/a", &TelemetryKind::SessionOpened), 2);
}

#[test]
fn a_message_in_single_bytes_is_the_same_message() {
    let plane = Plane::start(PlaneLimits::default());
    let mut agent = plane.open("a");
    agent.stream().set_nodelay(true).unwrap();
    for byte in b"\r\n{\"jsonrpc\":\"2.0\",\"id\":9,\"method\":\"hive/heartbeat\"}\r\n" {
        agent.send([*byte]);
    }
    assert_eq!(agent.line(), json!({"jsonrpc": "2.0", "id": 9, "result": {}}));
}

#[test]
fn drain_reaches_the_sessions_of_one_incarnation() {
    let plane = Plane::start(PlaneLimits::default());
    let (mut asked, mut other) = (plane.open("a"), plane.open("b"));
    let a = "s/a".parse().unwrap();
    assert!(!plane.handle.drain(&a, 2) && !plane.handle.drain(&"s/nobody".parse().unwrap(), 1));
    asked.is_well();
    assert!(!plane.handle.drain(&a, 1), "nobody declared that this is enough");
    let drain = asked.line();
    assert_eq!(drain["method"], "hive/drain");
    asked.send(format!("{}\n", json!({"jsonrpc": "2.0", "id": drain["id"], "result": {}})));
    asked.is_well();
    other.is_well();
}

#[test]
fn an_ended_incarnation_is_heard_out_closed_and_never_let_in_again() {
    let plane = Plane::start(PlaneLimits::default());
    let credentials = plane.credentials("a");
    let (mut old, mut silent) = (plane.open("a"), plane.open("a"));
    plane.house.incarnation.store(2, Ordering::Relaxed);
    let mut new = plane.open("a");
    plane.handle.ended(&"s/a".parse().unwrap(), 1);
    old.notify("hive/usage", json!({"gen_ai.usage.input_tokens": 9}));
    assert!(old.closed());
    assert!(silent.closed(), "whoever says nothing, too");
    new.is_well();
    let usage = |told: &&Telemetry| matches!(told.kind, TelemetryKind::Usage(_));
    let of: Vec<u64> = plane.sink.told.lock().unwrap().iter().filter(usage).map(|told| told.incarnation).collect();
    assert_eq!(of, [1], "its last words are its own");
    assert!(plane.stats().refused.is_empty());
    let mut ghost = plane.connect();
    assert_eq!(ghost.ask("hive/open", credentials)["error"]["code"], 1003);
    assert!(ghost.closed());
    assert_eq!(*plane.sink.refused.lock().unwrap(), [(None, 1003)]);
}

/// More than one read of requests, to which nobody hears the answers any more.
#[test]
fn what_an_agent_wrote_before_it_ended_is_read_though_it_hears_no_answer() {
    let plane = Plane::start(PlaneLimits::default());
    let (mut ours, theirs) = tokio::io::duplex(1024 * 1024);
    let open = json!({"jsonrpc": "2.0", "id": 1, "method": "hive/open", "params": plane.credentials("a")});
    let asks = "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"hive/log\",\"params\":{\"line\":\"x\"}}\n".repeat(3000);
    let last = json!({"jsonrpc": "2.0", "method": "hive/usage", "params": {"gen_ai.usage.input_tokens": 9}});
    runtime().block_on(async { ours.write_all(format!("{open}\n{asks}{last}\n").as_bytes()).await.unwrap() });
    drop(ours);
    plane.handle.serve("s/a".parse().unwrap(), 1, Box::new(theirs));
    eventually("the session's end is told", || plane.sink.count("s/a", &TelemetryKind::SessionClosed) == 1);
    assert_eq!(plane.sink.messages("s/a"), 3001);
}

#[test]
fn totals_follow_an_agent_that_comes_back_while_its_lost_session_is_open() {
    let plane = Plane::start(PlaneLimits::default());
    let told = || {
        let tokens = |kind| if let TelemetryKind::Usage(report) = kind { report.totals.input_tokens } else { None };
        plane.sink.of("s/a").into_iter().filter_map(tokens).collect::<Vec<_>>()
    };
    let mut lost = plane.open("a");
    lost.ask("hive/usage", json!({"gen_ai.usage.input_tokens": 10}));
    let mut back = plane.open("a");
    for tokens in [9, 11, 12] {
        back.ask("hive/usage", json!({"gen_ai.usage.input_tokens": tokens}));
    }
    lost.ask("hive/usage", json!({"gen_ai.usage.input_tokens": 11}));
    assert_eq!((told(), plane.sink.lost("s/a").metrics), (vec![10, 11, 12], 2));
}

#[test]
fn an_agent_with_too_many_sessions_loses_the_oldest() {
    let plane = Plane::start(PlaneLimits::default());
    let mut sessions: Vec<_> = (0..17).map(|_| plane.open("a")).collect();
    let mut other = plane.open("b");
    assert!(sessions.remove(0).closed());
    sessions.iter_mut().for_each(Client::is_well);
    other.is_well();
    eventually("one is gone", || plane.stats().presence.sessions == 17);
    assert_eq!(plane.stats().displaced, 1);
}

#[test]
fn a_panic_ends_one_connection_and_its_seat_is_left() {
    let plane = Plane::start(PlaneLimits::default());
    let mut good = plane.open("good");
    let mut bad = plane.open("bad");
    bad.notify("hive/event", json!({"kind": "panic"}));
    assert!(bad.closed());
    good.is_well();
    eventually("the panic is counted", || plane.stats().panics == 1);
    assert_eq!(plane.sink.count("s/bad", &TelemetryKind::SessionClosed), 1);
    eventually("one session is left", || plane.stats().presence.sessions == 1);
    plane.open("bad").is_well();
}

#[test]
fn a_restarted_listener_keeps_the_port() {
    let plane = Plane::start(PlaneLimits::default());
    let mut agent = plane.open("a");
    plane.restart_listener();
    assert!(agent.closed(), "connections end with their owner");
    eventually("the end is told", || plane.sink.count("s/a", &TelemetryKind::SessionClosed) == 1);
    plane.open("a").is_well();
    assert!(plane.stats().presence.listening);
}

#[test]
fn relayed_streams_are_served_by_the_same_rules() {
    let plane = Plane::start(PlaneLimits::default());
    let (ours, theirs) = tokio::io::duplex(512);
    plane.handle.serve("s/a".parse().unwrap(), 1, Box::new(theirs));
    let open = json!({"jsonrpc": "2.0", "id": 1, "method": "hive/open", "params": plane.credentials("a")});
    let (read, mut write) = tokio::io::split(ours);
    let mut lines = tokio::io::BufReader::new(read).lines();
    runtime().block_on(async {
        write.write_all(format!("nonsense\n{open}\n").as_bytes()).await.unwrap();
        let error = lines.next_line().await.unwrap().unwrap();
        assert!(error.contains("-32700"), "{error}");
        let opened = lines.next_line().await.unwrap().unwrap();
        assert!(opened.contains("\"heartbeat_interval_ms\":200"), "{opened}");
    });
    eventually("the session is told", || plane.sink.count("s/a", &TelemetryKind::SessionOpened) == 1);
    drop((lines, write));
    assert_eq!(*plane.sink.refused.lock().unwrap(), [(Some("s/a".parse().unwrap()), -32700)], "put down to its agent");
    eventually("the session's end is told", || plane.sink.count("s/a", &TelemetryKind::SessionClosed) == 1);
}

#[test]
fn shutdown_sends_newcomers_away_and_closes_what_is_left() {
    let plane = Plane::start(PlaneLimits::default());
    let mut old = plane.open("a");
    let mut newcomer = plane.connect();
    eventually("both are connected", || plane.stats().presence.connections == 2);
    let handle = plane.handle.clone();
    let ending = std::thread::spawn(move || runtime().block_on(handle.shutdown(Duration::from_secs(2))));
    eventually("newcomers are refused", || {
        let mut late = plane.connect();
        let answer = late.ask("hive/open", plane.credentials("a"));
        answer["error"]["code"] == 1007 && late.closed()
    });
    assert_eq!(newcomer.ask("hive/open", plane.credentials("a"))["error"]["code"], 1007);
    assert!(newcomer.closed());
    old.is_well();
    assert!(old.closed(), "closed when the deadline has passed");
    ending.join().unwrap();
    assert_eq!(plane.stats().presence.connections, 0);
    assert!(plane.connect().closed(), "nobody is served any more");
}

#[test]
fn shutdown_does_not_wait_when_nobody_is_there() {
    let plane = Plane::start(PlaneLimits::default());
    drop(plane.open("a"));
    let done = std::time::Instant::now();
    runtime().block_on(plane.handle.shutdown(SOON));
    assert!(done.elapsed() < SOON, "it waited for the deadline");
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
