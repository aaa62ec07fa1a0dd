//! Both eras of the protocol: found out once, remembered, found out anew when that fails.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use hivekeeper::model::BreakerState;
use serde_json::{Value, json};

use super::fake::{Conn, Dialled, Server, agents, in_text, names, spec, wait_for_the_end};

type Log = Arc<Mutex<Vec<(usize, String)>>>;

fn methods(log: &Log, conn: usize) -> Vec<String> {
    log.lock().unwrap().iter().filter(|(n, _)| *n == conn).map(|(_, method)| method.clone()).collect()
}

fn note(log: &Log, conn: &Conn, request: &Value) -> String {
    let method = request["method"].as_str().unwrap().to_owned();
    log.lock().unwrap().push((conn.n, method.clone()));
    method
}

/// A server of 2026-07-28: no handshake, and metadata in each request.
fn serve_modern(conn: &mut Conn, log: &Log, calls: usize) {
    let mut called = 0;
    while let Some(request) = conn.next() {
        let meta = &request["params"]["_meta"];
        if meta["io.modelcontextprotocol/protocolVersion"] != "2026-07-28"
            || !meta["io.modelcontextprotocol/clientCapabilities"].is_object()
        {
            conn.error(&request, -32602, "no metadata");
            continue;
        }
        match note(log, conn, &request).as_str() {
            "server/discover" => conn.result(
                &request,
                json!({ "resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {} }),
            ),
            "tools/call" => {
                called += 1;
                conn.result(
                    &request,
                    json!({ "resultType": "complete", "structuredContent": agents(&["new"]), "content": [] }),
                )
            }
            _ => conn.error(&request, -32601, "Method not found"),
        };
        if called == calls {
            return;
        }
    }
}

#[test]
fn a_modern_server_is_asked_once_who_it_is_and_never_greeted() {
    let log = Log::default();
    let server = {
        let log = Arc::clone(&log);
        Server::start(move |conn| serve_modern(conn, &log, 2))
    };
    let dialled = Dialled::start(spec(server.at, &["agent_list"]));
    let report = dialled.until("was polled over three connections", |report| report.cut >= 3);
    assert_eq!((report.protocol.as_deref(), names(&report)), (Some("2026-07-28"), vec!["new"]));
    assert_eq!((report.failures, report.breaker), (0, BreakerState::Closed));
    assert_eq!(methods(&log, 0), ["server/discover", "tools/call", "tools/call"]);
    assert_eq!(methods(&log, 1), ["tools/call", "tools/call"], "what it is was remembered");
}

#[test]
fn a_legacy_server_is_greeted_on_each_connection() {
    let log = Log::default();
    let server = {
        let log = Arc::clone(&log);
        Server::start(move |conn| {
            let mut called = 0;
            while called < 2
                && let Some(request) = conn.next()
            {
                match note(&log, conn, &request).as_str() {
                    "initialize" => _ = conn.result(&request, json!({ "protocolVersion": "2025-06-18" })),
                    "notifications/initialized" => assert!(request.get("id").is_none()),
                    "tools/call" => {
                        assert!(request["params"].get("_meta").is_none());
                        called += 1;
                        conn.result(&request, in_text(&agents(&["old"])));
                    }
                    _ => _ = conn.error(&request, -32601, "Method not found"),
                }
            }
        })
    };
    let dialled = Dialled::start(spec(server.at, &["agent_list"]));
    let report = dialled.until("was polled over three connections", |report| report.cut >= 3);
    assert_eq!((report.protocol.as_deref(), names(&report)), (Some("2025-06-18"), vec!["old"]));
    assert_eq!((report.failures, report.breaker), (0, BreakerState::Closed));
    let greeted = ["initialize", "notifications/initialized", "tools/call", "tools/call"];
    assert_eq!(methods(&log, 0), [&["server/discover"], &greeted[..]].concat());
    assert_eq!(methods(&log, 1), greeted);
}

/// As rmcp does: a first message that it does not expect ends the connection.
#[test]
fn a_legacy_server_that_hangs_up_at_the_unknown_is_greeted_anew() {
    let server = Server::start(|conn| {
        let first = conn.next();
        let Some(request) = first.filter(|request| request["method"] == "initialize") else { return };
        conn.result(&request, json!({ "protocolVersion": "2025-03-26" }));
        conn.serve_legacy(|_| agents(&["a"]));
    });
    let dialled = Dialled::start(spec(server.at, &["agent_list"]));
    let report = dialled.polls(4);
    assert_eq!((report.failures, report.cut, server.accepted()), (0, 1, 2));
    assert_eq!((report.protocol.as_deref(), names(&report)), (Some("2025-03-26"), vec!["a"]));
}

#[test]
fn a_legacy_server_that_is_silent_at_the_unknown_is_greeted_anew() {
    let server = Server::start(|conn| {
        let first = conn.next();
        match first {
            Some(request) if request["method"] == "initialize" => {
                conn.result(&request, json!({ "protocolVersion": "2025-03-26" }));
                conn.serve_legacy(|_| agents(&["a"]));
            }
            _ => wait_for_the_end(conn),
        }
    });
    let dialled = Dialled::start(spec(server.at, &["agent_list"]));
    let report = dialled.polls(4);
    assert_eq!((report.failures, report.cut, server.accepted()), (0, 0, 2));
    assert_eq!(names(&report), ["a"]);
}

#[test]
fn a_server_that_became_another_is_found_out_anew() {
    let modern = Arc::new(AtomicBool::new(true));
    let log = Log::default();
    let server = {
        let (modern, log) = (Arc::clone(&modern), Arc::clone(&log));
        Server::start(move |conn| {
            if modern.load(Ordering::SeqCst) {
                serve_modern(conn, &log, 1);
            } else {
                // It knows no call before the handshake.
                while let Some(request) = conn.next() {
                    if request["method"] == "initialize" {
                        conn.result(&request, json!({ "protocolVersion": "2025-06-18" }));
                        return conn.serve_legacy(|_| agents(&["old"]));
                    }
                    conn.error(&request, -32602, "Received request before initialization was complete");
                }
            }
        })
    };
    let dialled = Dialled::start(spec(server.at, &["agent_list"]));
    dialled.until("listed", |report| names(report) == ["new"]);
    modern.store(false, Ordering::SeqCst);
    let report = dialled.until("listed the other's", |report| names(report) == ["old"]);
    assert_eq!(report.protocol.as_deref(), Some("2025-06-18"));
}

#[test]
fn a_server_of_the_future_is_not_spoken_to() {
    let server = Server::start(|conn| {
        while let Some(request) = conn.next() {
            let data = json!({ "supported": ["2031-01-01"], "requested": "2026-07-28" });
            let error = json!({ "code": -32022, "message": "Unsupported protocol version", "data": data });
            conn.say(json!({ "jsonrpc": "2.0", "id": request["id"], "error": error }));
            assert_eq!(request["method"], "server/discover");
        }
    });
    let dialled = Dialled::start(spec(server.at, &["agent_list"]));
    let report = dialled.until("failed", |report| report.failures > 0);
    let (_, why) = report.last_error.unwrap();
    assert!(why.contains("no protocol version in common") && why.contains("2031-01-01"), "{why}");
}
