//! Who is let in, and what happens to those who send something else than HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{
    io::{Read, Write},
    time::{Duration, Instant},
};

use hivekeeper::http::Limits;
use tungstenite::{HandshakeError, client::IntoClientRequest as _};

use crate::http_support::{SOON, Setup, hive};

#[test]
fn only_our_hosts_are_served() {
    let hive = hive(Setup { hosts: vec!["hive.example".to_owned()], ..Setup::default() });
    let port = hive.address.port();
    for path in ["/livez", "/api/v1/health", "/ws/hybrid-health", "/nowhere"] {
        for host in [
            format!("localhost:{port}"),
            format!("127.0.0.1:{port}"),
            format!("[::1]:{port}"),
            "hive.example".to_owned(),
        ] {
            let reply = hive.send("GET", path, &[&format!("Host: {host}")], "");
            assert_eq!(reply.status, if path == "/nowhere" { 404 } else { 200 }, "{host} {path}");
        }
        for host in [format!("evil.example:{port}"), "localhost".to_owned(), format!("10.0.0.1:{port}")] {
            hive.send("GET", path, &[&format!("Host: {host}")], "").problem(421, "host_refused");
        }
        let reply = hive.send("GET", &format!("http://evil.example:{port}{path}"), &[], "");
        reply.problem(421, "host_refused");
        hive.raw(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).problem(400, "invalid_request");
        let twice =
            format!("GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nHost: evil.example\r\nConnection: close\r\n\r\n");
        assert_eq!(hive.raw(twice.as_bytes()).status, 400);
    }
}

#[test]
fn foreign_pages_are_refused_everywhere() {
    let hive = hive(Setup::default());
    let port = hive.address.port();
    for path in ["/livez", "/api/v1/health", "/ws/hybrid-health"] {
        let own = format!("Origin: http://localhost:{port}");
        assert_eq!(hive.send("GET", path, &[&own], "").status, 200, "{path}");
        for origin in ["https://evil.example", "null", "http://localhost:1"] {
            hive.send("GET", path, &[&format!("Origin: {origin}")], "").problem(403, "origin_refused");
        }
    }
    let headers = ["Content-Type: application/json", "Origin: https://evil.example"];
    hive.send("POST", "/api/v1/swarms/review/stop", &headers, "{}").problem(403, "origin_refused");
    assert!(hive.desk.requests.lock().is_empty());
}

#[test]
fn what_a_web_form_can_send_commands_nothing() {
    let hive = hive(Setup::default());
    for word in ["restart", "stop", "start", "pause", "resume"] {
        for target in ["review", "review/agents/coder"] {
            let path = format!("/api/v1/swarms/{target}/{word}");
            for media_type in [
                "application/x-www-form-urlencoded",
                "text/plain",
                "multipart/form-data; boundary=x",
                "application/jsonx",
                "",
            ] {
                for body in ["", "{}"] {
                    let reply = hive.send("POST", &path, &[&format!("Content-Type: {media_type}")], body);
                    reply.problem(415, "unsupported_media_type");
                }
            }
            hive.send("POST", &path, &[], "").problem(415, "unsupported_media_type");
            hive.send("POST", &path, &[], "{}").problem(415, "unsupported_media_type");
        }
    }
    assert!(hive.desk.requests.lock().is_empty());
}

#[test]
fn a_token_is_asked_for_everywhere_but_at_the_bare_probes() {
    let hive = hive(Setup { token: Some("s3cret"), ..Setup::default() });
    assert_eq!(hive.get("/livez").status, 200);
    assert_eq!(hive.get("/readyz").status, 200);
    for path in
        ["/readyz?verbose", "/metrics", "/api/v1/health", "/api/v1/events", "/ws/hybrid-health", "/nowhere", "/livez?"]
    {
        let reply = hive.get(path);
        if path == "/livez?" {
            assert_eq!(reply.status, 200);
            continue;
        }
        reply.problem(401, "unauthorized");
        assert_eq!(reply.header("www-authenticate"), "Bearer realm=\"hivekeeper\"");
        let reply = hive.send("GET", path, &["Authorization: Bearer guess"], "");
        reply.problem(401, "invalid_token");
        assert!(reply.header("www-authenticate").contains("invalid_token"));
        let status = if path == "/nowhere" { 404 } else { 200 };
        assert_eq!(hive.send("GET", path, &["Authorization: Bearer s3cret"], "").status, status, "{path}");
    }
    for two in [["s3cret", "guess"], ["guess", "s3cret"], ["s3cret", "s3cret"]] {
        let two = two.map(|token| format!("Authorization: Bearer {token}"));
        let reply = hive.send("GET", "/api/v1/events", &[&two[0], &two[1]], "");
        reply.problem(400, "invalid_request");
    }
    hive.post("/api/v1/swarms/review/stop", "{}").problem(401, "unauthorized");
    assert!(hive.desk.requests.lock().is_empty());
}

#[test]
fn errors_of_other_rooms_show_nothing_of_the_framework() {
    let hive = hive(Setup::default());
    let reply = hive.get("/ws/broken");
    assert_eq!(reply.status, 400);
    assert!(!reply.body.contains("secret"), "{reply:?}");
    assert_eq!(reply.json()["code"], "invalid_request");
    let reply = hive.get("/ws/full");
    reply.problem(503, "unavailable");
    assert_eq!(reply.header("retry-after"), "5");
}

#[test]
fn large_bodies_and_heads_are_refused() {
    let hive = hive(Setup::default());
    let path = "/api/v1/swarms/review/restart";
    let body = format!("{{\"reason\":\"{}\"}}", "x".repeat(70_000));
    hive.post(path, &body).problem(413, "body_too_large");
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: application/json\r\n",
        hive.address
    );
    let chunk = "x".repeat(0x8000);
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n{0}{0}{0}0\r\n\r\n", format!("8000\r\n{chunk}\r\n"));
    hive.raw(chunked.as_bytes()).problem(413, "body_too_large");
    let reply = hive.raw(format!("{head}X-Large: {}\r\n\r\n", "x".repeat(200_000)).as_bytes());
    assert_eq!((reply.status, reply.body.as_str()), (431, ""));
    assert!(hive.desk.requests.lock().is_empty());
    assert_eq!(hive.get("/livez").status, 200);
}

#[test]
fn garbage_is_answered_and_the_server_goes_on() {
    let hive = hive(Setup::default());
    for garbage in [
        &b"\x00\x01\x02\xff\xfe\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"{\"jsonrpc\":\"2.0\",\"method\":\"hive/open\"}\n\r\n\r\n",
        b"GET /livez HTTP/9.9\r\n\r\n",
        b"POST /livez HTTP/1.1\r\nContent-Length: -4\r\n\r\n",
        b"POST /livez HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHo st: x\r\n\r\n",
    ] {
        let reply = hive.raw(garbage);
        assert_eq!((reply.status, reply.body.as_str()), (400, ""), "{:?}", String::from_utf8_lossy(garbage));
        assert_eq!(hive.get("/livez").status, 200);
    }
}

#[test]
fn garbage_behind_a_good_request_does_not_cost_its_answer() {
    let hive = hive(Setup::default());
    let good = format!("GET /livez HTTP/1.1\r\nHost: {}\r\n\r\n", hive.address);
    let mut stream = hive.connect();
    stream.write_all(format!("{good}{good}garbage\r\n\r\n").as_bytes()).unwrap();
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 2, "{text}");
    assert_eq!(text.matches("HTTP/1.1 400 Bad Request").count(), 1, "{text}");
    assert_eq!(hive.get("/livez").status, 200);
}

#[test]
fn slow_heads_and_idle_connections_are_cut() {
    let deadline = Duration::from_secs(1);
    let limits = Limits { head_deadline: deadline, idle_deadline: deadline, ..Limits::default() };
    let hive = hive(Setup { limits, ..Setup::default() });
    let good = format!("GET /livez HTTP/1.1\r\nHost: {}\r\n\r\n", hive.address);
    for start in ["", "GET /livez HTTP/1.1\r\nHost: ", good.as_str(), &format!("{good}GET /livez HT")] {
        let mut stream = hive.connect();
        stream.write_all(start.as_bytes()).unwrap();
        let begun = Instant::now();
        let mut text = String::new();
        // Reads to the end: the server closes the connection, or the read runs into its deadline and fails here.
        stream.read_to_string(&mut text).unwrap_or_else(|error| panic!("{start:?}: {error}: {text}"));
        assert!(begun.elapsed() < SOON, "{start:?}");
        assert_eq!(text.contains("200 OK"), start.contains(&good), "{start:?}: {text}");
    }
}

#[test]
fn a_body_that_never_comes_holds_nobody_up() {
    let hive = hive(Setup::default());
    let head = format!(
        "POST /api/v1/swarms/review/restart HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{{",
        hive.address
    );
    let mut stream = hive.connect();
    stream.write_all(head.as_bytes()).unwrap();
    assert_eq!(hive.get("/livez").status, 200);
    drop(stream);
    let mut broken = hive.connect();
    broken.write_all(head.as_bytes()).unwrap();
    broken.shutdown(std::net::Shutdown::Write).unwrap();
    let mut text = String::new();
    let _ = broken.read_to_string(&mut text);
    assert!(text.starts_with("HTTP/1.1 400 "), "{text}");
    assert!(hive.desk.requests.lock().is_empty());
}

#[test]
fn sockets_pass_the_guard_and_foreign_pages_do_not() {
    let hive = hive(Setup { token: Some("s3cret"), ..Setup::default() });
    let open = |token: &str, origin: Option<&str>| {
        let mut request = format!("ws://{}/ws/echo", hive.address).into_client_request().unwrap();
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", origin.parse().unwrap());
        }
        tungstenite::client(request, hive.connect()).map_err(|error| match error {
            HandshakeError::Failure(tungstenite::Error::Http(refusal)) => refusal.status().as_u16(),
            other => panic!("{other}"),
        })
    };
    let (mut socket, answer) = open("s3cret", Some(&format!("http://{}", hive.address))).unwrap();
    assert_eq!(answer.status(), 101);
    socket.send("hello".into()).unwrap();
    assert_eq!(socket.read().unwrap().to_text().unwrap(), "hello");
    for (token, origin, status) in [("guess", None, 401), ("s3cret", Some("https://evil.example"), 403)] {
        assert_eq!(open(token, origin).err(), Some(status));
    }
    // A plain request to a socket's address is refused as a problem, too.
    let reply = hive.send("GET", "/ws/echo", &["Authorization: Bearer s3cret"], "");
    reply.problem(400, "invalid_request");
}
