//! How much, how fast and how long: each way to ask too much of the API ends in a status or a closed connection, and the others are served.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    num::NonZeroU32,
    time::{Duration, Instant},
};

use hivekeeper::http::{Limits, Rates};

use crate::{
    hive::until,
    http_support::{Hive, SOON, Setup, hive},
};

const TOKEN: &str = "the-first-token-of-all";

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

fn slow_rates() -> Limits {
    let per_second = |n| NonZeroU32::new(n).unwrap();
    let rates = Rates { reads_per_second: per_second(4), commands_per_second: per_second(1) };
    Limits { rates, ..Limits::default() }
}

/// Whether the server has closed this connection.
fn closed(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    match stream.read(&mut [0; 4096]) {
        Ok(bytes) => bytes == 0,
        Err(error) if error.kind() == ErrorKind::WouldBlock => false,
        Err(_) => true,
    }
}

#[test]
fn who_asks_too_fast_is_told_how_long_to_wait() {
    let hive = hive(Setup { limits: slow_rates(), ..Setup::default() });
    let spend = |ask: &dyn Fn() -> crate::http_support::Reply| {
        let refused = (0..200).map(|_| ask()).find(|reply| reply.status == 429).expect("a refusal");
        let detail = refused.problem(429, "rate_limited");
        assert!((1..=5).contains(&refused.header("retry-after").parse::<u64>().unwrap()), "{refused:?}");
        detail
    };
    let stop = || hive.post("/api/v1/swarms/review/stop", "{}");
    assert!(spend(&stop).contains("1 a second ([http] commands_per_second)"));
    assert_eq!(hive.get("/api/v1/swarms").status, 200, "what is read has a rate of its own");
    assert!(spend(&|| hive.get("/api/v1/swarms")).contains("4 a second ([http] reads_per_second)"));
    for _ in 0..50 {
        assert_eq!(hive.get("/livez").status, 200, "a probe is never refused");
    }
    until("the rate recovers", || (hive.get("/api/v1/swarms").status == 200).then_some(()));
}

#[test]
fn a_guesser_is_slowed_and_locks_nobody_out() {
    let hive = hive(Setup { token: Some(TOKEN), ..Setup::default() });
    let ask = |token: &str| hive.send("GET", "/api/v1/swarms", &[&bearer(token)], "");
    let statuses: Vec<u16> = (0..60).map(|n| ask(&format!("guess-number-{n}")).status).collect();
    assert!(statuses[..20].iter().all(|status| *status == 401), "{statuses:?}");
    assert!(statuses.contains(&429), "{statuses:?}");
    assert_eq!(ask(TOKEN).status, 200, "the good token of the same address");
}

#[test]
fn one_peer_has_three_quarters_of_the_connections_at_most() {
    let limits = Limits { connections_per_worker: 8, ..Limits::default() };
    let hive = hive(Setup { limits, ..Setup::default() });
    let mut streams: Vec<_> = (0..16).map(|_| hive.connect()).collect();
    let mut ended = vec![false; streams.len()];
    until("those beyond twelve are closed", || {
        for (stream, ended) in streams.iter_mut().zip(&mut ended) {
            *ended = *ended || closed(stream);
        }
        (ended.iter().filter(|ended| **ended).count() >= 4).then_some(())
    });
    assert_eq!(ended.iter().filter(|ended| **ended).count(), 4, "{ended:?}");
    drop(streams);
    until("the places are free again", || {
        let mut stream = hive.connect();
        stream.write_all(livez(&hive, true).as_bytes()).unwrap();
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        text.contains("200 OK").then_some(())
    });
}

fn livez(hive: &Hive, close: bool) -> String {
    let close = if close { "Connection: close\r\n" } else { "" };
    format!("GET /livez HTTP/1.1\r\nHost: {}\r\n{close}\r\n", hive.address)
}

#[test]
fn a_row_of_pipelined_requests_is_answered_in_turn() {
    let hive = hive(Setup::default());
    let mut stream = hive.connect();
    let row = livez(&hive, false).repeat(2000) + &livez(&hive, true);
    let reader = std::thread::spawn({
        let mut stream = stream.try_clone().unwrap();
        move || {
            let mut text = String::new();
            stream.read_to_string(&mut text).map(|_| text.matches("HTTP/1.1 200 OK").count())
        }
    });
    stream.write_all(row.as_bytes()).unwrap();
    assert_eq!(reader.join().unwrap().unwrap(), 2001);
}

#[test]
fn who_pipelines_and_reads_nothing_is_held_back_and_then_cut() {
    let limits = Limits { write_deadline: Duration::from_secs(1), ..Limits::default() };
    let hive = hive(Setup { limits, ..Setup::default() });
    let mut stream = hive.connect();
    stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let row = livez(&hive, false).repeat(1000);
    let mut taken = 0;
    // What the kernels hold of both directions is some megabytes; a server that kept what it reads would take everything.
    while taken < 256 << 20 {
        match stream.write(row.as_bytes()) {
            Ok(bytes) => taken += bytes,
            Err(_) => break,
        }
    }
    assert!(taken < 64 << 20, "{taken} bytes were taken of one who reads nothing");
    assert_eq!(hive.get("/livez").status, 200);
    let begun = Instant::now();
    let cut = loop {
        match stream.write(row.as_bytes()) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break true,
            Ok(_) if begun.elapsed() > SOON => break false,
            Ok(_) => {}
        }
        if begun.elapsed() > SOON {
            break false;
        }
    };
    assert!(cut, "who reads nothing keeps his connection");
}

#[test]
fn a_body_that_drips_in_is_refused_in_time() {
    let limits = Limits { body_deadline: Duration::from_millis(500), ..Limits::default() };
    let hive = hive(Setup { limits, ..Setup::default() });
    let mut stream = hive.connect();
    let head = format!(
        "POST /api/v1/swarms/review/restart HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n{{",
        hive.address
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut reader = stream.try_clone().unwrap();
    let answer = std::thread::spawn(move || {
        let mut text = [0; 4096];
        reader.read(&mut text).map(|bytes| String::from_utf8_lossy(&text[..bytes]).into_owned())
    });
    let begun = Instant::now();
    while !answer.is_finished() {
        assert!(begun.elapsed() < SOON, "no answer to a body that drips");
        let _ = stream.write_all(b" ");
        std::thread::sleep(Duration::from_millis(20));
    }
    let answer = answer.join().unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("request_timeout"), "{answer}");
    assert!(hive.desk.requests.lock().is_empty());
}

#[test]
fn a_target_without_an_end_is_refused() {
    let hive = hive(Setup::default());
    let reply = hive.raw(format!("GET /{} HTTP/1.1\r\nHost: {}\r\n\r\n", "x".repeat(200_000), hive.address).as_bytes());
    assert!([414, 431].contains(&reply.status), "{reply:?}");
    // The longest that still fits into a head is an ordinary stranger.
    let reply = hive.get(&format!("/{}", "x".repeat(20_000)));
    assert_eq!(reply.status, 404);
    assert_eq!(hive.get("/livez").status, 200);
}

#[test]
fn a_page_of_another_origin_is_never_given_leave() {
    let hive = hive(Setup::default());
    let own = format!("http://{}", hive.address);
    for (origin, status) in [("https://evil.example", 403), ("null", 403), (own.as_str(), 405)] {
        for path in ["/api/v1/swarms", "/api/v1/swarms/review/stop", "/sse/hybrid-health"] {
            let headers = [
                format!("Origin: {origin}"),
                "Access-Control-Request-Method: POST".to_owned(),
                "Access-Control-Request-Headers: content-type, authorization".to_owned(),
            ];
            let reply = hive.send("OPTIONS", path, &headers.each_ref().map(String::as_str), "");
            assert_eq!(reply.status, status, "{origin} {path}: {reply:?}");
            let leave = reply.headers.keys().find(|name| name.starts_with("access-control-"));
            assert_eq!(leave, None, "{origin} {path}");
        }
    }
    // What a page may send without asking first: a form, an image, a script. None of them is read or obeyed.
    for (method, path) in [("GET", "/api/v1/swarms"), ("POST", "/api/v1/swarms/review/stop")] {
        let reply = hive.send(method, path, &["Origin: https://evil.example", "Content-Type: text/plain"], "");
        reply.problem(403, "origin_refused");
    }
    let image = hive.send("GET", "/api/v1/swarms", &["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"], "");
    let kept_apart = (image.header("cross-origin-resource-policy"), image.header("x-content-type-options"));
    assert_eq!(kept_apart, ("same-origin", "nosniff"), "a browser hands it to nobody");
    assert!(hive.desk.requests.lock().is_empty());
}
