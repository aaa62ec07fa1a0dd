//! Event streams: resumed without a silent gap, bounded, and cut when nobody reads.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{
    io::Write,
    net::TcpListener,
    time::{Duration, Instant},
};

use hivekeeper::{control_plane::ControlError, events::RING_EVENTS_MAX, http::Limits, model::Seq};
use serde_json::json;

use crate::http_support::{Hive, SOON, Setup, at, hive, hive_on, line, said, stored};

const EVENTS: &str = "/api/v1/events";
const LOGS: &str = "/api/v1/swarms/review/agents/coder/logs";

fn publish(hive: &Hive, n: u64) {
    for i in 0..n {
        hive.feed.publish(at(i), said("x"));
    }
}

fn limits(change: impl FnOnce(&mut Limits)) -> Setup {
    let mut limits = Limits::default();
    change(&mut limits);
    Setup { limits, ..Setup::default() }
}

#[test]
fn a_stream_tells_what_happens_from_now_on() {
    let hive = hive(Setup::default());
    publish(&hive, 3);
    let mut stream = hive.stream(EVENTS, &[]);
    // The first block shows that the cursor is set.
    assert_eq!(stream.block().unwrap(), "retry: 1000");
    publish(&hive, 2);
    let frame = stream.next().unwrap();
    assert_eq!((frame.id, frame.event.as_str(), &frame.data["seq"]), (Some(103), "agent_said", &json!(103)));
    assert_eq!(stream.ids(1), [104]);
}

#[test]
fn a_stream_is_resumed_from_the_ring() {
    let hive = hive(Setup::default());
    publish(&hive, 5);
    assert_eq!(hive.stream(EVENTS, &["Last-Event-ID: 101"]).ids(3), [102, 103, 104]);
    assert_eq!(hive.stream("/api/v1/events?after=102", &[]).ids(2), [103, 104]);
    let both = hive.stream("/api/v1/events?after=99", &["Last-Event-ID: 103"]).ids(1);
    assert_eq!(both, [104], "the header is younger than the address");
    let bad = hive.send("GET", EVENTS, &["Accept: text/event-stream", "Last-Event-ID: x"], "");
    bad.problem(400, "invalid_request");
}

#[test]
fn a_stream_is_resumed_from_the_journal_with_the_gap_told() {
    let hive = hive(Setup::default());
    *hive.desk.journal.lock() = Ok((1..=90).chain(100..=103).map(stored).collect());
    publish(&hive, 4);
    let mut stream = hive.stream(EVENTS, &["Last-Event-ID: 50"]);
    let gap = stream.next().unwrap();
    assert_eq!((gap.id, gap.event.as_str()), (None, "gap"));
    assert_eq!(gap.data, json!({ "after": 50, "first_kept": 100, "head": 103 }));
    let expected: Vec<u64> = (51..=90).chain(100..=103).collect();
    assert_eq!(stream.ids(expected.len()), expected);
    publish(&hive, 1);
    assert_eq!(stream.ids(1), [104]);
}

#[test]
fn a_broken_journal_is_told_and_the_stream_goes_on() {
    let hive = hive(Setup::default());
    *hive.desk.journal.lock() = Err(ControlError::Journal { why: "disk full".to_owned() });
    publish(&hive, 1);
    let mut stream = hive.stream(EVENTS, &["Last-Event-ID: 50"]);
    assert_eq!(stream.next().unwrap().event, "gap");
    let lost = stream.next().unwrap();
    assert_eq!((lost.event.as_str(), &lost.data["error"]), ("gap", &json!("journal unavailable: disk full")));
    assert_eq!(stream.ids(1), [100]);
}

#[test]
fn a_number_of_another_hive_is_told_and_the_stream_goes_on() {
    let hive = hive(Setup::default());
    publish(&hive, 1);
    let mut stream = hive.stream(EVENTS, &["Last-Event-ID: 999999"]);
    let gap = stream.next().unwrap();
    assert_eq!(gap.data, json!({ "after": 999_999, "first_kept": 100, "head": 100 }));
    publish(&hive, 1);
    assert_eq!(stream.ids(1), [101]);
}

#[test]
fn quiet_streams_are_kept_alive() {
    let hive = hive(limits(|limits| limits.stream_keep_alive = Duration::from_millis(50)));
    let mut stream = hive.stream(EVENTS, &[]);
    assert_eq!(stream.block().unwrap(), "retry: 1000");
    assert_eq!(stream.block().unwrap(), ": keep-alive");
    assert_eq!(stream.block().unwrap(), ": keep-alive");
    publish(&hive, 1);
    assert_eq!(stream.ids(1), [100]);
}

#[test]
fn streams_are_counted_and_given_back() {
    let hive = hive(limits(|limits| limits.streams = 2));
    let first = hive.stream(EVENTS, &[]);
    let _second = hive.stream(&format!("{LOGS}?follow=true"), &[]);
    let sse = ["Accept: text/event-stream"];
    hive.send("GET", EVENTS, &sse, "").problem(503, "too_many_streams");
    assert_eq!(hive.get(EVENTS).status, 200, "pages are not streams");
    drop(first);
    let deadline = Instant::now() + SOON;
    loop {
        let mut stream = hive.connect();
        write!(stream, "GET {EVENTS} HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\n\r\n", hive.address).unwrap();
        let mut head = [0; 12];
        std::io::Read::read_exact(&mut stream, &mut head).unwrap();
        if &head == b"HTTP/1.1 200" {
            break;
        }
        assert!(Instant::now() < deadline, "the slot was never given back");
        // A closed client shows when the server next writes to it.
        publish(&hive, 1);
    }
}

#[test]
fn a_client_that_stops_reading_is_cut_and_the_others_miss_nothing() {
    let hive = hive(limits(|limits| {
        limits.streams = 2;
        limits.write_deadline = Duration::from_secs(1);
    }));
    let mut reader = hive.stream(EVENTS, &[]);
    assert_eq!(reader.block().unwrap(), "retry: 1000");
    let stuck = hive.stream(EVENTS, &[]);
    let large = "x".repeat(64 * 1024);
    let deadline = Instant::now() + 3 * SOON;
    let mut next = 100;
    // Published for as long as the stuck client holds its slot, and read by the other all the while.
    loop {
        for _ in 0..16 {
            hive.feed.publish(at(0), said(&large));
            assert_eq!(reader.ids(1), [next]);
            next += 1;
        }
        let reply = hive.send("HEAD", "/livez", &[], "");
        assert_eq!(reply.status, 200);
        let mut probe = hive.connect();
        write!(probe, "GET {EVENTS} HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\n\r\n", hive.address).unwrap();
        let mut head = [0; 12];
        std::io::Read::read_exact(&mut probe, &mut head).unwrap();
        if &head == b"HTTP/1.1 200" {
            break;
        }
        assert!(Instant::now() < deadline, "the stuck client was never cut");
    }
    drop(stuck);
}

#[test]
fn a_reader_that_the_ring_overtook_is_told_and_gets_the_rest_from_the_journal() {
    let hive = hive(Setup::default());
    publish(&hive, 10 + RING_EVENTS_MAX as u64);
    let first_kept = 110;
    *hive.desk.journal.lock() = Ok((100..first_kept + 50).map(stored).collect());
    let mut stream = hive.stream(EVENTS, &["Last-Event-ID: 100"]);
    let gap = stream.next().unwrap();
    assert_eq!((gap.event.as_str(), &gap.data["first_kept"]), ("gap", &json!(first_kept)));
    assert_eq!(stream.ids(200), (101..301).collect::<Vec<_>>());
}

#[test]
fn logs_are_followed_from_their_tail() {
    let hive = hive(Setup::default());
    for number in 1..=10 {
        hive.desk.write_line(number);
    }
    let mut stream = hive.stream(&format!("{LOGS}?follow=true&tail=2"), &[]);
    let frame = stream.next().unwrap();
    assert_eq!((frame.id, frame.event.as_str(), &frame.data["text"]), (Some(9), "line", &json!("line 9")));
    assert_eq!(stream.ids(1), [10]);
    hive.desk.write_line(11);
    assert_eq!(stream.ids(1), [11]);
    for number in 12..=900 {
        hive.desk.write_line(number);
    }
    assert_eq!(stream.ids(889), (12..=900).collect::<Vec<_>>());
    assert_eq!(hive.stream(LOGS, &["Last-Event-ID: 897"]).ids(3), [898, 899, 900]);
    let mut fresh = hive.stream(&format!("{LOGS}?follow&tail=0"), &[]);
    assert_eq!(fresh.block().unwrap(), "retry: 1000");
    // The stream has found its place once the log was read; only what is written later comes.
    let mut number = 900;
    let frame = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| fresh.next().unwrap());
        while !waiting.is_finished() {
            number += 1;
            hive.desk.write_line(number);
            std::thread::sleep(Duration::from_millis(5));
        }
        waiting.join().unwrap()
    });
    assert!(frame.id.unwrap() > 900, "{frame:?}");
}

#[test]
fn log_lines_that_are_gone_are_told() {
    let hive = hive(Setup::default());
    *hive.desk.lines.lock() = (50..=60).map(line).collect();
    let mut stream = hive.stream(&format!("{LOGS}?follow&after=10"), &[]);
    let gap = stream.next().unwrap();
    assert_eq!((gap.event.as_str(), &gap.data), ("gap", &json!({ "after": 10, "first_kept": 50 })));
    assert_eq!(stream.ids(11), (50..=60).collect::<Vec<_>>());
}

#[test]
fn a_log_stream_ends_with_its_agent() {
    let hive = hive(Setup::default());
    hive.desk.write_line(1);
    let mut stream = hive.stream(&format!("{LOGS}?follow&tail=1"), &[]);
    assert_eq!(stream.ids(1), [1]);
    *hive.desk.growth.lock() = None;
    let end = stream.next().unwrap();
    assert_eq!(end.event, "end");
    assert_eq!(stream.next(), None);
}

#[test]
fn a_stop_ends_streams_and_frees_the_port() {
    let mut hive = hive(Setup::default());
    let mut events = hive.stream(EVENTS, &[]);
    let mut logs = hive.stream(&format!("{LOGS}?follow"), &[]);
    assert_eq!(events.block().unwrap(), "retry: 1000");
    let begun = Instant::now();
    hive.stop();
    assert!(begun.elapsed() < SOON);
    assert_eq!(events.next(), None);
    assert_eq!(logs.next(), None);
    TcpListener::bind(hive.address).unwrap();
    assert_eq!(hive.feed.head(), Seq(99));
}

#[test]
fn a_new_server_keeps_the_port_however_the_old_one_ended() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut asked = hive_on(listener.try_clone().unwrap(), Setup::default());
    assert_eq!(asked.get("/livez").status, 200);
    asked.stop();
    let mut killed = hive_on(listener.try_clone().unwrap(), Setup::default());
    assert_eq!(killed.get("/livez").status, 200);
    let mut stream = killed.stream(EVENTS, &[]);
    assert_eq!(stream.block().unwrap(), "retry: 1000");
    killed.kill();
    let successor = hive_on(listener.try_clone().unwrap(), Setup::default());
    for _ in 0..20 {
        // Were the dead server's listener still served, some of these would be answered by it.
        assert_eq!(successor.get("/api/v1/swarms/review/agents/coder/logs").json()["last"], 0);
        assert!(successor.post("/api/v1/swarms/review/stop", "").status == 202);
    }
    assert_eq!(successor.desk.requests.lock().len(), 20);
    assert!(killed.desk.requests.lock().is_empty());
}
