//! `/sse/hybrid-health`: the frames of the socket as server-sent events, over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{
    io::{ErrorKind, Read, Write},
    time::{Duration, Instant, SystemTime},
};

use actix_web::rt::System;
use hivekeeper::{
    events::RING_EVENTS_MAX,
    model::{EventKind, Level},
    stream::StreamLimits,
};
use serde_json::{Value, json};

use crate::{
    http_support::EventStream,
    stream_support::{PATIENCE, Server, agent, changed, publish, quick},
};

const PATH: &str = "/sse/hybrid-health";

/// A reader that checks what all frames share.
struct Reader {
    events: EventStream,
    seq: Option<u64>,
}

impl Reader {
    fn open(server: &Server, query: &str, headers: &[&str]) -> Self {
        let (stream, host) = (server.stream(), server.address.to_string());
        let mut events = EventStream::open(stream, &format!("{PATH}{query}"), &host, headers);
        assert_eq!(events.block().unwrap(), "retry: 1000");
        Self { events, seq: None }
    }

    fn next(&mut self) -> Value {
        loop {
            let block = self.events.block().unwrap();
            if block == ": keep-alive" {
                continue;
            }
            let (id, data) = block.split_once('\n').unwrap();
            let frame: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!(id.strip_prefix("id: ").unwrap(), frame["seq"].to_string(), "{block}");
            if let Some(last) = self.seq {
                assert_eq!(frame["prev_seq"], last, "a frame is missing before {frame}");
            }
            self.seq = frame["seq"].as_u64();
            return frame;
        }
    }

    fn expect(&mut self, kind: &str) -> Value {
        let frame = self.next();
        assert_eq!(frame["type"], kind, "{frame}");
        frame
    }
}

#[test]
fn a_new_reader_gets_the_whole_document_and_then_what_changes() {
    let server = Server::start(StreamLimits::default());
    let mut reader = Reader::open(&server, "", &[]);
    assert_eq!(reader.expect("connection_established")["seq"], 100);
    assert_eq!(reader.expect("status_update")["hive"], "home");
    let seq = publish(&server, changed("review/coder", 1));
    let update = reader.expect("session_update");
    assert_eq!((&update["seq"], &update["agents"][0]["name"]), (&json!(seq), &json!("coder")));
    let seq = publish(&server, EventKind::HiveChanged { from: Level::Healthy, to: Level::Critical, reasons: vec![] });
    assert_eq!(reader.expect("status_update")["seq"], seq);
}

#[test]
fn a_resumed_reader_misses_nothing_or_gets_the_whole_document() {
    let server = Server::start(StreamLimits::default());
    for missed in [1, 100, 100_000] {
        let mut first = Reader::open(&server, "", &[]);
        first.expect("connection_established");
        let seen = first.expect("status_update")["seq"].as_u64().unwrap();
        drop(first);
        for n in 0..missed {
            publish(&server, changed("review/coder", n));
        }
        let header = format!("Last-Event-ID: {seen}");
        let (by_header, by_address) = (vec![&*header], format!("?after={seen}"));
        for (query, headers) in [("", by_header), (&*by_address, vec![]), ("?after=1", vec![&*header])] {
            let mut reader = Reader::open(&server, query, &headers);
            let hello = reader.expect("connection_established");
            assert_eq!((&hello["seq"], &hello["prev_seq"]), (&json!(seen), &json!(seen)));
            let head = server.feed.head().0;
            if missed <= RING_EVENTS_MAX as u64 {
                for seq in seen + 1..=head {
                    assert_eq!(reader.expect("session_update")["seq"], seq);
                }
            } else {
                assert_eq!(reader.expect("status_update")["seq"], head);
            }
            let next = publish(&server, changed("review/next", 1));
            assert_eq!(reader.expect("session_update")["seq"], next, "{missed} missed: exactly that, then what is new");
        }
    }
}

/// As browsers send it that have seen no frame with a number.
#[test]
fn an_empty_number_is_none() {
    let server = Server::start(StreamLimits::default());
    let mut reader = Reader::open(&server, "?after=100", &["Last-Event-ID: "]);
    assert_eq!(reader.expect("connection_established")["seq"], 100);
    let next = publish(&server, changed("review/coder", 1));
    assert_eq!(reader.expect("session_update")["seq"], next, "it has seen the hundredth");
    let mut reader = Reader::open(&server, "", &["Last-Event-ID: "]);
    reader.expect("connection_established");
    reader.expect("status_update");
}

#[test]
fn the_address_says_what_is_told() {
    let limits = StreamLimits { performance_interval: Duration::from_millis(50), ..StreamLimits::default() };
    let server = Server::start(limits);
    let mut filtered = Reader::open(&server, "?swarms=review,build", &[]);
    filtered.expect("connection_established");
    filtered.expect("status_update");
    let mut rates = Reader::open(&server, "?subscriptions=performance", &[]);
    rates.expect("connection_established");
    for n in 0..3 {
        publish(&server, changed("other/coder", n));
        let both = vec![agent("other/coder", n, "x"), agent("build/coder", n, "x")];
        publish(&server, EventKind::Samples { agents: both });
        let update = filtered.expect("session_update");
        assert_eq!((update["agents"].as_array().unwrap().len(), &update["agents"][0]["swarm"]), (1, &json!("build")));
    }
    for _ in 0..3 {
        assert_eq!(rates.expect("performance_update")["stream"]["viewers"], 2);
    }
    for (query, header, words) in [
        ("?subscriptions=logs", "", "allowed are status"),
        ("?swarms=UPPER", "", "UPPER"),
        ("?after=-1", "", "expected a whole number"),
        ("?after=1", "Last-Event-ID: -1\r\n", "last-event-id"),
        ("?sworms=review", "", "sworms"),
        ("", "Last-Event-ID: x\r\n", "last-event-id"),
    ] {
        let mut stream = server.stream();
        let request = format!("GET {PATH}{query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("invalid_query"), "{query}: {answer}");
        assert!(answer.contains(words), "{query}: {answer}");
    }
}

#[test]
fn a_reader_that_stops_is_dropped_and_counted_and_the_others_miss_nothing() {
    let server = Server::start(quick());
    let mut reader = Reader::open(&server, "", &[]);
    reader.expect("connection_established");
    reader.expect("status_update");
    let stalled = Reader::open(&server, "", &[]);
    server.until("both are in", |hub| hub.stats().viewers == 2);
    let detail = "y".repeat(32 * 1024);
    let begun = Instant::now();
    let mut n = 0;
    while server.hub.stats().viewers > 1 {
        assert!(begun.elapsed() < PATIENCE, "never dropped: {:?}", server.hub.stats());
        let agent = agent("review/coder", n, &detail);
        server.feed.publish(SystemTime::now(), EventKind::AgentChanged { from: None, agent });
        assert_eq!(reader.expect("session_update")["agents"][0]["incarnation"], n);
        n += 1;
        std::thread::sleep(Duration::from_millis(1));
    }
    let stats = server.hub.stats();
    assert_eq!((stats.dropped_slow, stats.dropped_silent, stats.viewers), (1, 0, 1));
    // What was in its buffers can still be read; behind it comes the reset.
    let mut stream = stalled.events.into_inner();
    let mut chunk = vec![0; 64 * 1024];
    let end = loop {
        match stream.read(&mut chunk) {
            Ok(0) => break None,
            Ok(_) => {}
            Err(error) => break Some(error.kind()),
        }
    };
    assert_eq!(end, Some(ErrorKind::ConnectionReset));
}

#[test]
fn a_quiet_reader_stays_and_is_kept_alive() {
    let server = Server::start(quick());
    let mut reader = Reader::open(&server, "", &[]);
    reader.expect("connection_established");
    reader.expect("status_update");
    let end = Instant::now() + quick().answer_within * 4;
    while Instant::now() < end {
        assert_eq!(reader.events.block().unwrap(), ": keep-alive");
    }
    let stats = server.hub.stats();
    assert_eq!((stats.viewers, stats.dropped_slow, stats.dropped_silent), (1, 0, 0));
}

#[test]
fn a_reader_that_leaves_is_forgotten_and_a_shutdown_ends_the_others() {
    let server = Server::start(quick());
    drop(Reader::open(&server, "", &[]));
    server.until("it has left", |hub| hub.stats().viewers == 0);
    let stats = server.hub.stats();
    assert_eq!((stats.dropped_slow, stats.dropped_silent), (0, 0), "nobody had to drop it");
    let mut reader = Reader::open(&server, "", &[]);
    reader.expect("connection_established");
    reader.expect("status_update");
    System::new().block_on(server.hub.shutdown());
    while let Some(block) = reader.events.block() {
        assert_eq!(block, ": keep-alive");
    }
    let mut stream = server.stream();
    write!(stream, "GET {PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("shutting_down"), "{answer}");
}
