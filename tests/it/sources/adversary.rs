//! A server that does all that servers in agent containers were seen to do, and some that do worse.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hivekeeper::model::BreakerState;
use serde_json::{Value, json};

use super::fake::{Conn, Dialled, Server, agents, in_text, names, spec, wait_for_the_end};

const MIB: usize = 1024 * 1024;

/// Noise around each answer.
fn chatter(conn: &mut Conn) {
    conn.say(json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "data": "to all clients" } }));
    conn.say(json!({ "jsonrpc": "2.0", "id": 987_654, "result": in_text(&agents(&["of-another-client"])) }));
    conn.say(json!({ "type": "telemetry", "agents_total": 3 }));
    conn.say("[2025-09-30T10:00:00Z] INFO [claude-flow-mcp] (session) still here");
    conn.write(b"\xff\xfe invalid \xc3\x28 UTF-8\n\r\n\n");
    conn.say("{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"half\":");
}

/// Lessons 11, all of it on each connection.
#[test]
fn everything_at_once() {
    let server = Server::start(|conn| {
        conn.say("Claude-Flow MCP server v2.0.0-alpha.101 (shared instance)");
        conn.say(json!({ "jsonrpc": "2.0", "method": "server.initialized", "params": { "serverInfo": {} } }));
        let mut calls = 0;
        while let Some(request) = conn.next() {
            chatter(conn);
            match request["method"].as_str().unwrap() {
                "initialize" => _ = conn.result(&request, json!({ "protocolVersion": "2024-11-05" })),
                "notifications/initialized" => {}
                "tools/call" => {
                    calls += 1;
                    let bare = calls % 2 == 0;
                    let list = agents(&["coder", "tester"]);
                    match request["params"]["name"].as_str().unwrap() {
                        "agent_list" if bare => _ = conn.result(&request, list),
                        "agent_list" => _ = conn.result(&request, in_text(&list)),
                        _ => {
                            _ = conn.result(&request, in_text(&json!({ "success": false, "error": "No active swarm" })))
                        }
                    }
                    chatter(conn);
                }
                _ => _ = conn.error(&request, -32601, "Method not found"),
            }
            // Every connection is cut, used or not.
            if calls == 5 {
                return;
            }
        }
    });
    let dialled = Dialled::start(spec(server.at, &["agent_list", "swarm_status"]));
    let report = dialled.until("was cut three times", |report| report.cut >= 3);
    assert_eq!((names(&report), report.failures), (vec!["coder", "tester"], 0), "{report:#?}");
    assert_eq!(report.breaker, BreakerState::Closed);
    assert_eq!(report.protocol.as_deref(), Some("2024-11-05"));
    assert_eq!(report.tools[0].error, None);
    assert_eq!(report.tools[1].error.as_deref(), Some("No active swarm"));
    let (_, why) = report.last_error.unwrap();
    assert_eq!(&*why, "swarm_status: No active swarm");
}

/// `{"error": ...}`, no JSON-RPC, and the connection closed: the fifty-first client.
#[test]
fn a_refusal_at_the_door_is_a_failure_in_the_servers_words() {
    let server = Server::start(|conn| _ = conn.say(json!({ "error": "Maximum connections (50) reached" })));
    let dialled = Dialled::start(spec(server.at, &["agent_list"]));
    let report = dialled.until("opened", |report| report.breaker == BreakerState::Open);
    let (_, why) = report.last_error.unwrap();
    assert!(why.contains("Maximum connections (50) reached"), "{why}");
}

#[test]
fn a_refusal_of_a_call_names_no_id_and_is_its() {
    let refuse = Arc::new(AtomicBool::new(true));
    let server = {
        let refuse = Arc::clone(&refuse);
        Server::start(move |conn| {
            let mut call = conn.greet_legacy();
            while let Some(request) = call {
                if refuse.load(Ordering::SeqCst) {
                    conn.say(json!({ "error": { "message": "rate limit" } }));
                } else {
                    conn.result(&request, in_text(&agents(&["a"])));
                }
                call = conn.next();
            }
        })
    };
    let dialled = Dialled::start(spec(server.at, &["agent_list"]));
    let report = dialled.until("failed", |report| report.failures >= 2);
    assert_eq!(report.tools[0].error.as_deref(), Some("refused: rate limit"));
    refuse.store(false, Ordering::SeqCst);
    let report = dialled.until("listed", |report| names(report) == ["a"]);
    assert_eq!((report.tools[0].error.as_deref(), report.failures_in_a_row), (None, 0));
}

/// The tools behind it are asked all the same, over the same connection.
#[test]
fn a_tool_that_is_refused_without_an_id_starves_none_behind_it() {
    let server = Server::start(|conn| {
        let mut call = conn.greet_legacy();
        while let Some(request) = call {
            if request["params"]["name"] == "swarm_status" {
                conn.say(json!({ "error": "not allowed" }));
            } else {
                conn.result(&request, in_text(&agents(&["a"])));
            }
            call = conn.next();
        }
    });
    let dialled = Dialled::start(spec(server.at, &["swarm_status", "agent_list"]));
    let report = dialled.polls(5);
    assert_eq!((names(&report), report.breaker, report.failures), (vec!["a"], BreakerState::Closed, 0), "{report:#?}");
    let errors: Vec<_> = report.tools.iter().map(|tool| tool.error.as_deref()).collect();
    assert_eq!(errors, [Some("refused: not allowed"), None]);
    assert_eq!((server.accepted() <= 2, report.cut), (true, 0), "{} connections", server.accepted());
}

/// The answer to the question before comes after the next was asked.
#[test]
fn late_answers_are_nobodys() {
    let server = Server::start(|conn| {
        let mut call = conn.greet_legacy();
        let mut owed: Option<Value> = None;
        while let Some(request) = call {
            match (request["method"].as_str().unwrap(), request["params"]["name"].as_str()) {
                ("tools/call", Some("slow")) => {
                    // A sign of life, and no answer in time.
                    conn.say("working on it");
                    owed = Some(request);
                }
                ("tools/call", _) => {
                    if let Some(owed) = owed.take() {
                        conn.result(&owed, in_text(&agents(&["late"])));
                    }
                    conn.result(&request, in_text(&agents(&["in-time"])));
                }
                (method, _) => assert_eq!(method, "notifications/cancelled"),
            }
            call = conn.next();
        }
    });
    let dialled = Dialled::start(spec(server.at, &["slow", "quick"]));
    let report = dialled.polls(3);
    assert_eq!(names(&report), ["in-time"]);
    assert_eq!(server.accepted(), 1, "a connection that shows life is kept");
    assert_eq!(report.tools[0].error.as_deref(), Some("no answer within 300ms"));
    assert_eq!(report.breaker, BreakerState::Closed, "a server of which one tool answers is there");
}

#[test]
fn answers_of_a_mebibyte_pass_and_longer_ones_are_said_to_be() {
    for (len, passes) in [(MIB, true), (MIB + 1, false)] {
        let server = Server::start(move |conn| {
            let mut call = conn.greet_legacy();
            while let Some(request) = call {
                let line = |pad: usize| {
                    json!({ "jsonrpc": "2.0", "id": request["id"], "result": { "agents": [{ "name": "big" }], "pad": "x".repeat(pad) } }).to_string()
                };
                let pad = len - line(0).len();
                if !conn.say(line(pad)) {
                    return;
                }
                call = conn.next();
            }
        });
        let mut spec = spec(server.at, &["agent_list"]);
        // A debug build reads a megabyte in its own time.
        spec.timeout = Duration::from_secs(2);
        let dialled = Dialled::start(spec);
        let report = dialled.until("ended a poll", |report| report.failures > 0 || report.last_success.is_some());
        assert_eq!(names(&report) == ["big"], passes, "{report:#?}");
        if !passes {
            let error = report.tools[0].error.as_deref().unwrap();
            assert!(error.contains("a line longer than 1 MiB"), "{error}");
        }
    }
}

#[test]
fn a_flood_is_left_and_the_next_poll_connects_anew() {
    let server = Server::start(|conn| {
        let Some(request) = conn.greet_legacy() else { return };
        conn.result(&request, in_text(&agents(&["a"])));
        let noise = "noise without end ".repeat(4096) + "\n";
        while conn.write(noise.as_bytes()) {}
    });
    let mut spec = spec(server.at, &["agent_list"]);
    spec.interval = Duration::from_millis(500);
    spec.timeout = Duration::from_secs(5);
    let dialled = Dialled::start(spec);
    let report = dialled.until("was flooded twice", |_| server.accepted() >= 3);
    assert_eq!(names(&report), ["a"]);
    let (_, why) = report.last_error.unwrap();
    assert_eq!(&*why, "the server sends more than it is asked for");
}

#[test]
fn a_flood_instead_of_an_answer_is_a_failure() {
    let server = Server::start(|conn| {
        if conn.greet_legacy().is_some() {
            let noise = "noise without end ".repeat(4096) + "\n";
            while conn.write(noise.as_bytes()) {}
        }
    });
    let mut spec = spec(server.at, &["agent_list"]);
    spec.timeout = Duration::from_secs(5);
    let report = Dialled::start(spec).until("failed", |report| report.failures > 0);
    assert_eq!(report.tools[0].error.as_deref(), Some("the server sends more than it is asked for"));
}

/// A server that asks and never reads what it is answered: its questions are no longer read, and the write has a deadline.
#[test]
fn a_server_that_asks_without_reading_is_left() {
    let server = Server::start(|conn| {
        if conn.greet_legacy().is_some() {
            let pings = format!("{}\n", json!({ "jsonrpc": "2.0", "id": "p", "method": "ping" })).repeat(1000);
            while conn.write(pings.as_bytes()) {}
        }
    });
    let mut spec = spec(server.at, &["agent_list"]);
    spec.timeout = Duration::from_secs(4);
    let report = Dialled::start(spec).until("failed", |report| report.failures > 0);
    let error = report.tools[0].error.as_deref().unwrap();
    assert!(error.contains("has not read for") || error.contains("more than it is asked for"), "{error}");
}

#[test]
fn a_byte_at_a_time_is_an_answer_too_if_it_comes_in_time() {
    let server = Server::start(|conn| {
        let mut call = conn.greet_legacy();
        while let Some(request) = call {
            let answer = json!({ "jsonrpc": "2.0", "id": request["id"], "result": agents(&["slow"]) });
            for byte in format!("{answer}\n").bytes() {
                if !conn.write(&[byte]) {
                    return;
                }
            }
            call = conn.next();
        }
    });
    let mut spec = spec(server.at, &["agent_list"]);
    spec.timeout = Duration::from_secs(5);
    let dialled = Dialled::start(spec);
    assert_eq!(names(&dialled.polls(3)), ["slow"]);
}

/// Whatever the first bytes are, the dialer goes on, and nothing is made up.
#[test]
fn garbage_of_any_sort_brings_no_agent_and_no_panic() {
    let server = Server::start(|conn| {
        let garbage: [&[u8]; 8] = [
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":",
            b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\n",
            b"\0\0\0\0\0\0\0\0\n\0\n",
            b"{\"id\":1,\"id\":1,\"error\":null,\"result\":null}\n",
            b"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"supportedVersions\":[1,{},null]}}\n",
            b"\n\n\n\n\n\r\r\r\r\n",
        ];
        conn.write(garbage[conn.n % garbage.len()]);
        if conn.n.is_multiple_of(3) {
            wait_for_the_end(conn);
        } else {
            conn.next();
        }
    });
    let mut spec = spec(server.at, &["agent_list"]);
    spec.timeout = Duration::from_millis(100);
    let dialled = Dialled::start(spec);
    let report = dialled.until("failed six times", |report| report.failures >= 6);
    assert!(report.agents.is_empty() && report.last_success.is_none(), "{report:#?}");
    assert_eq!(report.failures, u64::from(report.failures_in_a_row));
}
