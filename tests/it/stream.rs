//! `/ws/hybrid-health` over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{
    io::{Read, Write},
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};

use actix_web::rt::System;
use hivekeeper::{
    events::{Feed, RING_EVENTS_MAX},
    model::{AgentId, Desired, EventKind, Home, HomeHealth, Level, SwarmHealth},
    stream::StreamLimits,
};
use serde_json::Value;
use tungstenite::{
    Error, Message,
    client::IntoClientRequest,
    protocol::{CloseFrame, frame::coding::CloseCode},
};
use uuid::Uuid;

use crate::stream_support::{PATIENCE, Server, agent, changed, publish, quick};

/// Events too big for any buffer, until told to stop: 4 MB a second, which a reader in an unoptimised build keeps up with on a busy machine.
fn flood(feed: &Feed) -> (mpsc::SyncSender<()>, JoinHandle<()>) {
    let feed = feed.clone();
    let (stop, stopped) = mpsc::sync_channel::<()>(0);
    let thread = std::thread::spawn(move || {
        let detail = "y".repeat(32 * 1024);
        let mut last = 0;
        while stopped.recv_timeout(Duration::from_millis(8)) == Err(mpsc::RecvTimeoutError::Timeout) {
            let agent = agent("review/coder", last, &detail);
            last = feed.publish(SystemTime::now(), EventKind::AgentChanged { from: None, agent }).0;
        }
    });
    (stop, thread)
}

/// `within` is how long the server may take to drop who does not read; the reader beside must get every change.
fn a_stalled_viewer(limits: StreamLimits, within: Duration) {
    let server = Server::start(limits);
    let mut reader = server.greeted();
    let stalled = server.greeted();
    server.until("both are in", |hub| hub.stats().viewers == 2);
    let stopped_reading = Instant::now();
    let (stop, writer) = flood(&server.feed);
    let watcher = std::thread::spawn({
        let (hub, feed) = (server.hub.clone(), server.feed.clone());
        move || {
            while hub.stats().viewers > 1 {
                assert!(stopped_reading.elapsed() < PATIENCE, "never dropped: {:?}", hub.stats());
                std::thread::sleep(Duration::from_millis(2));
            }
            let took = stopped_reading.elapsed();
            drop(stop);
            writer.join().unwrap();
            (took, feed.publish(SystemTime::now(), changed("review/last", 1)).0)
        }
    });
    // `next` asserts that no frame is missing, and `expect` that no status update makes up for a gap.
    let mut agents = 0;
    loop {
        let update = reader.expect("session_update");
        agents += 1;
        if update["agents"][0]["name"] == "last" {
            break;
        }
    }
    let (took, last) = watcher.join().unwrap();
    assert_eq!(agents, last - 100, "one frame for each change");
    assert!(took <= within, "took {took:?}");
    let stats = server.hub.stats();
    assert_eq!((stats.dropped_slow, stats.dropped_silent, stats.viewers), (1, 0, 1));
    assert_eq!(stalled.end(), None, "its buffers were full, so it is cut off");
}

/// Each stalls at another long text, which it would keep alive alone. No ping is due here: nothing but the bound ends them.
#[test]
fn viewers_that_stall_at_different_texts_hold_no_more_than_the_bound() {
    const HELD: usize = 4;
    let unread_bytes_max = HELD * 40 * 1024;
    let server = Server::start(StreamLimits {
        ping_interval: Duration::from_secs(3600),
        unread_bytes_max,
        ..StreamLimits::default()
    });
    let detail = "y".repeat(32 * 1024);
    // A megabyte and more for each, which is beyond all buffers on its way; the next one begins behind it.
    let stalls = || {
        let viewer = server.greeted();
        for last in 0..40 {
            let agent = agent("review/coder", last, &detail);
            publish(&server, EventKind::AgentChanged { from: None, agent });
        }
        viewer
    };
    let stalled: Vec<_> = std::iter::repeat_with(stalls).take(3 * HELD).collect();
    server.until("those who hold the oldest are dropped", |hub| hub.stats().dropped_slow >= 2 * HELD as u64);
    for (at, viewer) in stalled.into_iter().enumerate().take(2 * HELD) {
        assert_eq!(viewer.end(), None, "viewer {at} holds an old text and is cut off");
    }
    server.greeted();
}

#[test]
fn a_viewer_that_stops_reading_is_dropped_and_costs_the_others_nothing() {
    // The reader beside has to be in time with each pong, behind all that is on its way to it, on a machine that does other work, too.
    a_stalled_viewer(StreamLimits { answer_within: Duration::from_secs(5), ..quick() }, PATIENCE);
}

/// The product's own numbers take 15 s, so this runs with `tests/run --long`.
#[test]
fn a_viewer_that_stops_reading_is_dropped_within_fifteen_seconds() {
    if std::env::var("HK_TEST_LONG").is_ok_and(|long| !long.is_empty()) {
        a_stalled_viewer(StreamLimits::default(), Duration::from_secs(15));
    }
}

#[test]
fn a_silent_viewer_is_told_1013() {
    let server = Server::start(quick());
    // It never reads, so it never answers a ping; there is room in its buffers for the goodbye.
    let silent = server.view();
    // One that reads stays for many such whiles, without saying anything of its own.
    let mut reader = server.greeted();
    let end = Instant::now() + quick().answer_within * 4;
    reader.socket.get_ref().set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    while Instant::now() < end {
        match reader.socket.read() {
            Ok(Message::Ping(_)) => reader.socket.flush().unwrap(),
            Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            other => panic!("{other:?}"),
        }
    }
    let stats = server.hub.stats();
    assert_eq!((stats.viewers, stats.dropped_slow, stats.dropped_silent), (1, 0, 1));
    // Read below the protocol: a client of the protocol would answer pings first, on a connection that is gone.
    let mut bytes = Vec::new();
    let _ = silent.socket.get_ref().read_to_end(&mut bytes);
    let close = bytes.windows(4).any(|frame| frame[0] == 0x88 && frame[2..] == 1013_u16.to_be_bytes());
    assert!(close, "no close frame with 1013");
}

#[test]
fn a_viewer_that_speaks_and_does_not_read_is_slow() {
    let server = Server::start(quick());
    let mut viewer = server.view();
    let deadline = Instant::now() + PATIENCE;
    while server.hub.stats().dropped_slow == 0 {
        assert!(Instant::now() < deadline, "{:?}", server.hub.stats());
        if viewer.socket.send(Message::text(r#"{"type":"ping"}"#)).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    server.until("counted as slow", |hub| hub.stats().dropped_slow == 1 && hub.stats().viewers == 0);
}

/// Long frames go another way into the socket than short ones.
#[test]
fn long_and_short_frames_come_in_order_and_whole() {
    let server = Server::start(StreamLimits::default());
    let mut viewers = [server.greeted(), server.greeted()];
    let mut filtered = server.greeted();
    filtered.say(r#"{"type":"subscribe","swarms":["review"]}"#);
    filtered.expect("subscription_ack");
    for n in 0..40_u64 {
        let length = [1, 70_000, 2, 3, 33_000, 400_000, 4][usize::try_from(n % 7).unwrap()];
        let detail = "z".repeat(length);
        let one = agent("review/coder", n, &detail);
        publish(
            &server,
            match n % 2 {
                0 => EventKind::AgentChanged { from: None, agent: one },
                _ => EventKind::Samples { agents: vec![one, agent("other/coder", n, &detail)] },
            },
        );
        // Answers of its own lie in between.
        viewers[0].say(r#"{"type":"ping"}"#);
    }
    for viewer in viewers.iter_mut().chain([&mut filtered]) {
        let mut next = 0;
        while next < 40 {
            let frame = viewer.next();
            if frame["type"] == "pong" {
                continue;
            }
            let length = [1, 70_000, 2, 3, 33_000, 400_000, 4][usize::try_from(next % 7).unwrap()];
            assert_eq!(frame["agents"][0]["incarnation"], next);
            assert_eq!(frame["agents"][0]["reasons"][0]["detail"].as_str().unwrap().len(), length);
            next += 1;
        }
    }
}

#[test]
fn a_new_viewer_gets_the_whole_document_and_then_what_changes() {
    let server = Server::start(StreamLimits::default());
    let mut viewer = server.view();
    let hello = viewer.expect("connection_established");
    assert_eq!((hello["heartbeat_interval_ms"].as_u64(), hello["seq"].as_u64()), (Some(5000), Some(100)));
    assert!(hello["client_id"].as_str().unwrap().parse::<Uuid>().is_ok());
    let status = viewer.expect("status_update");
    assert_eq!((&status["level"], &status["hive"]), (&Value::from("unknown"), &Value::from("home")));
    assert_eq!(status["reasons"][0]["code"], "not_reconciled");

    let seq = publish(&server, changed("review/coder", 1));
    let update = viewer.expect("session_update");
    assert_eq!(update["seq"].as_u64(), Some(seq));
    assert_eq!((&update["agents"][0]["name"], &update["swarms"]), (&"coder".into(), &Value::Array(Vec::new())));
    let swarm = SwarmHealth {
        name: "review".parse().unwrap(),
        level: Level::Degraded,
        since: SystemTime::now(),
        reasons: Vec::new(),
        desired: Desired::Running,
        home: HomeHealth::of(&Home::Process { workdir: None }),
        agents: Vec::new(),
    };
    publish(&server, EventKind::SwarmChanged { from: None, swarm: Arc::new(swarm) });
    assert_eq!(viewer.expect("session_update")["swarms"][0]["level"], "degraded");
    let gone: AgentId = "review/coder".parse().unwrap();
    publish(&server, EventKind::AgentRemoved { agent: gone });
    assert_eq!(viewer.expect("session_update")["removed"][0], "review/coder");
    let seq = publish(&server, EventKind::HiveChanged { from: Level::Healthy, to: Level::Critical, reasons: vec![] });
    assert_eq!(viewer.expect("status_update")["seq"].as_u64(), Some(seq));
}

#[test]
fn a_filter_keeps_the_chain_of_numbers_whole() {
    let server = Server::start(StreamLimits::default());
    let mut viewer = server.greeted();
    viewer.say(r#"{"type":"subscribe","swarms":["review"]}"#);
    let ack = viewer.expect("subscription_ack");
    assert_eq!(ack["subscriptions"], serde_json::json!(["status", "sessions"]));
    assert_eq!(ack["swarms"], serde_json::json!(["review"]));
    for n in 0..5 {
        publish(&server, changed("other/coder", n));
        publish(&server, changed("review/coder", n));
    }
    let both = vec![agent("other/coder", 9, "x"), agent("review/coder", 9, "x")];
    publish(&server, EventKind::Samples { agents: both });
    publish(&server, EventKind::Samples { agents: vec![agent("other/coder", 9, "x")] });
    let last = publish(&server, changed("review/last", 1));
    for _ in 0..6 {
        let update = viewer.expect("session_update");
        let swarms: Vec<_> = update["agents"].as_array().unwrap().iter().map(|agent| &agent["swarm"]).collect();
        assert_eq!(swarms, ["review"], "{update}");
    }
    assert_eq!(viewer.expect("session_update")["seq"].as_u64(), Some(last));

    viewer.say(r#"{"type":"unsubscribe","subscriptions":["sessions"]}"#);
    viewer.expect("subscription_ack");
    publish(&server, changed("review/coder", 10));
    let seq = publish(&server, EventKind::HiveChanged { from: Level::Healthy, to: Level::Critical, reasons: vec![] });
    assert_eq!(viewer.expect("status_update")["seq"].as_u64(), Some(seq));
}

#[test]
fn a_resumed_viewer_misses_nothing_or_gets_the_whole_document() {
    let server = Server::start(StreamLimits::default());
    let seen = publish(&server, changed("review/coder", 1));
    for n in 2..=50 {
        publish(&server, changed("review/coder", n));
    }
    let mut viewer = server.greeted();
    viewer.say(&format!(r#"{{"type":"subscribe","after":{seen}}}"#));
    assert_eq!(viewer.expect("subscription_ack")["seq"].as_u64(), Some(seen));
    for n in 2..=50 {
        assert_eq!(viewer.expect("session_update")["agents"][0]["incarnation"], n);
    }
    // Gone from the ring, of an earlier daemon, of another hive: one whole document, then the changes again.
    for n in 0..RING_EVENTS_MAX as u64 {
        publish(&server, changed("review/coder", n));
    }
    for after in [seen, 7, u64::MAX] {
        let mut viewer = server.greeted();
        viewer.say(&format!(r#"{{"type":"subscribe","after":{after}}}"#));
        viewer.expect("subscription_ack");
        let status = viewer.expect("status_update");
        assert_eq!(status["prev_seq"].as_u64(), Some(after));
        assert_eq!(status["seq"].as_u64(), Some(server.feed.head().0));
        let next = publish(&server, changed("review/coder", 1));
        assert_eq!(viewer.expect("session_update")["seq"].as_u64(), Some(next));
    }
}

#[test]
fn requests_are_answered_and_nonsense_is_objected_to() {
    let server = Server::start(StreamLimits::default());
    let mut viewer = server.greeted();
    viewer.say(r#"{"type":"ping"}"#);
    viewer.expect("pong");
    viewer.say(r#"{"type":"request_status"}"#);
    viewer.expect("status_update");
    for (text, code) in [("nonsense", "invalid_json"), (r#"{"type":"restart"}"#, "unknown_type")] {
        viewer.say(text);
        assert_eq!(viewer.expect("error")["code"], code);
    }
    viewer.socket.send(Message::binary(vec![1, 2, 3])).unwrap();
    assert_eq!(viewer.expect("error")["code"], "unsupported_frame");
    viewer.say(r#"{"type":"ping"}"#);
    viewer.expect("pong");
}

#[test]
fn a_clients_own_ping_is_answered_with_what_it_says() {
    let server = Server::start(StreamLimits::default());
    let mut viewer = server.greeted();
    viewer.socket.send(Message::Ping(vec![1, 2, 3].into())).unwrap();
    let answer = viewer.socket.read().unwrap();
    assert_eq!(answer, Message::Pong(vec![1, 2, 3].into()));
}

/// Written below the protocol: a client of it would send neither.
#[test]
fn what_is_no_text_in_one_piece_ends_it_with_a_code_of_its_own() {
    let server = Server::start(StreamLimits::default());
    let masked = |head: u8, payload: &[u8]| {
        let length = 0x80 | u8::try_from(payload.len()).unwrap();
        // The mask is zero, so the payload stands as it is.
        [&[head, length, 0, 0, 0, 0], payload].concat()
    };
    for (frame, code) in
        [(masked(0x01, b"half"), CloseCode::Unsupported), (masked(0x81, b"\xff\xfe"), CloseCode::Invalid)]
    {
        let viewer = server.greeted();
        viewer.socket.get_ref().write_all(&frame).unwrap();
        assert_eq!(viewer.end(), Some(code));
    }
}

#[test]
fn who_wants_no_rates_any_more_gets_none() {
    let limits = StreamLimits { performance_interval: Duration::from_millis(50), ..StreamLimits::default() };
    let server = Server::start(limits);
    let mut viewer = server.greeted();
    viewer.say(r#"{"type":"subscribe","subscriptions":["performance"]}"#);
    viewer.expect("subscription_ack");
    viewer.expect("performance_update");
    viewer.say(r#"{"type":"unsubscribe","subscriptions":["performance"]}"#);
    while viewer.next()["type"] != "subscription_ack" {}
    // One may have waited for its turn already.
    viewer.socket.get_ref().set_read_timeout(Some(limits.performance_interval * 6)).unwrap();
    let more = (0..3).take_while(|_| viewer.socket.read().is_ok_and(|message| message.is_text())).count();
    assert!(more <= 1, "{more} after the end of the subscription");
}

#[test]
fn performance_comes_at_most_once_an_interval() {
    let limits = StreamLimits { performance_interval: Duration::from_millis(200), ..StreamLimits::default() };
    let server = Server::start(limits);
    let mut viewer = server.greeted();
    viewer.say(r#"{"type":"subscribe","subscriptions":["performance"]}"#);
    viewer.expect("subscription_ack");
    let begun = Instant::now();
    for _ in 0..20 {
        viewer.say(r#"{"type":"request_performance"}"#);
    }
    let first = viewer.expect("performance_update");
    assert_eq!((&first["stream"]["viewers"], &first["data_plane"]["sessions"]), (&1.into(), &0.into()));
    for _ in 0..4 {
        viewer.expect("performance_update");
    }
    assert!(begun.elapsed() >= limits.performance_interval * 3, "five in {:?}", begun.elapsed());
}

#[test]
fn a_message_that_is_announced_too_big_is_1009_before_it_comes() {
    let server = Server::start(quick());
    let mut viewer = server.greeted();
    // Its length alone: what the daemon waited for it would have to keep.
    let head = [&[0x81, 0xff][..], &(1_u64 << 40).to_be_bytes(), &[0; 4]].concat();
    viewer.socket.get_mut().write_all(&head).unwrap();
    assert_eq!(viewer.end(), Some(CloseCode::Size));
}

#[test]
fn a_message_too_big_is_1009() {
    let server = Server::start(StreamLimits::default());
    let mut viewer = server.greeted();
    viewer.say(&format!(r#"{{"type":"ping","x":"{}"}}"#, "x".repeat(64 * 1024)));
    assert_eq!(viewer.end(), Some(CloseCode::Size));
    server.until("it has left", |hub| hub.stats().viewers == 0);
}

#[test]
fn a_viewer_that_leaves_is_answered_and_forgotten() {
    let server = Server::start(StreamLimits::default());
    let mut viewer = server.greeted();
    viewer.socket.close(Some(CloseFrame { code: CloseCode::Normal, reason: "enough".into() })).unwrap();
    assert_eq!(viewer.end(), Some(CloseCode::Normal), "RFC 6455, section 5.5.1: the code is echoed");
    drop(server.greeted());
    server.until("both have left", |hub| hub.stats().viewers == 0);
    assert_eq!((server.hub.stats().dropped_slow, server.hub.stats().dropped_silent), (0, 0));
}

#[test]
fn shutdown_is_1001_and_nobody_is_let_in_afterwards() {
    // Who leaves at once is waited for no longer.
    let server = Server::start(StreamLimits { linger: PATIENCE * 4, ..StreamLimits::default() });
    let viewers: Vec<_> = (0..3).map(|_| server.greeted()).collect();
    let ends: Vec<_> = viewers.into_iter().map(|viewer| std::thread::spawn(move || viewer.end())).collect();
    System::new().block_on(async { tokio::time::timeout(PATIENCE, server.hub.shutdown()).await.unwrap() });
    for end in ends {
        assert_eq!(end.join().unwrap(), Some(CloseCode::Away));
    }
    assert_eq!(server.hub.stats().viewers, 0);
    assert_eq!(refusal(&server), (503, "shutting_down".to_owned()));
}

#[test]
fn there_is_a_place_for_so_many_and_no_more() {
    let server = Server::start(StreamLimits { viewers_max: 2, ..quick() });
    let _first = server.greeted();
    let second = server.greeted();
    assert_eq!(refusal(&server), (503, "too_many_viewers".to_owned()));
    drop(second);
    server.until("a place is free", |hub| hub.stats().viewers == 1);
    let deadline = Instant::now() + PATIENCE;
    while refused(&server) {
        assert!(Instant::now() < deadline, "the place is never free again");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_plain_request_is_told_to_upgrade() {
    let server = Server::start(StreamLimits::default());
    let answer = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .build()
        .new_agent()
        .get(format!("http://{}/ws/hybrid-health", server.address))
        .call()
        .unwrap();
    assert_eq!(answer.status(), 426);
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
}

fn refused(server: &Server) -> bool {
    let request = format!("ws://{}/ws/hybrid-health", server.address).into_client_request().unwrap();
    tungstenite::client(request, server.stream()).is_err()
}

fn refusal(server: &Server) -> (u16, String) {
    let request = format!("ws://{}/ws/hybrid-health", server.address).into_client_request().unwrap();
    match tungstenite::client(request, server.stream()) {
        Err(tungstenite::HandshakeError::Failure(Error::Http(answer))) => {
            let body: Value = serde_json::from_slice(answer.body().as_deref().unwrap_or_default()).unwrap_or_default();
            (answer.status().as_u16(), body["code"].as_str().unwrap_or_default().to_owned())
        }
        other => panic!("let in: {:?}", other.is_ok()),
    }
}
