//! Tasks, locks and messages over HTTP: each route leads to its tool, with the arguments of path, query, body and header.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{
    io::{Read as _, Write as _},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::http_support::{Hive, Reply, SOON, Setup, hive};

const CLAIM: &str = "/api/v1/tasks/claim";
const NOBODY: &str = "0199a1b2-0000-7000-8000-000000000009";

fn post(hive: &Hive, path: &str, body: &Value) -> Reply {
    hive.post(path, &body.to_string())
}

/// As a client that nobody supervises.
fn ci(more: Value) -> Value {
    let mut body = json!({ "swarm": "review", "agent": "ci" });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[test]
fn who_asks_is_said_and_believed_only_as_far_as_it_lives() {
    let hive = hive(Setup::default());
    let claim = |body: Value| post(&hive, CLAIM, &body);
    assert_eq!(claim(ci(json!({}))).json(), json!({ "tasks": [] }));
    assert_eq!(claim(json!({ "swarm": "review", "agent": "coder", "incarnation": 3 })).status, 200);
    let refused = |body: Value, status: u16, code: &str, hint: &str| {
        let detail = claim(body).problem(status, code);
        assert!(detail.contains(hint), "{detail}");
    };
    refused(json!({}), 422, "invalid_work", "swarm: found nothing");
    refused(json!({ "swarm": "review" }), 422, "invalid_work", "agent: found nothing");
    refused(json!({ "swarm": "other", "agent": "ci" }), 404, "unknown_swarm", "\"other\"");
    refused(json!({ "swarm": "review", "agent": "coder" }), 422, "invalid_work", "HIVEKEEPER_INCARNATION");
    refused(json!({ "swarm": "review", "agent": "coder", "incarnation": 2 }), 409, "not_alive", "incarnation 2");
    refused(ci(json!({ "most": 1 })), 422, "invalid_work", "most");
    let detail = hive.post(CLAIM, "[]").problem(400, "invalid_body");
    assert!(detail.contains("found an array, allowed: an object"), "{detail}");
    let detail = hive.post(CLAIM, r#"{"swarm":"review","swarm":"other"}"#).problem(400, "invalid_body");
    assert!(detail.contains("there twice"), "{detail}");
    hive.post(&format!("{CLAIM}?max=1"), "{}").problem(400, "invalid_query");
    let form = hive.send("POST", CLAIM, &["Content-Type: text/plain"], "{}");
    form.problem(415, "unsupported_media_type");
}

/// Creates tasks and returns their ids.
fn create(hive: &Hive, tasks: Value) -> Vec<String> {
    let reply = post(hive, "/api/v1/tasks", &json!({ "swarm": "review", "tasks": tasks }));
    assert_eq!(reply.status, 200, "{reply:?}");
    let tasks = reply.json()["tasks"].as_array().unwrap().clone();
    tasks.iter().map(|task| task["id"].as_str().unwrap().to_owned()).collect()
}

/// Asks for something that must be done, and returns the answer.
#[track_caller]
fn done(hive: &Hive, path: &str, body: Value) -> Value {
    let reply = post(hive, path, &body);
    assert_eq!((reply.status, reply.header("content-type")), (200, "application/json"), "{path}: {reply:?}");
    reply.json()
}

#[track_caller]
fn seen(hive: &Hive, path: &str) -> Value {
    let reply = hive.get(path);
    assert_eq!(reply.status, 200, "{path}: {reply:?}");
    reply.json()
}

#[test]
fn a_task_goes_all_its_ways_over_its_routes() {
    let hive = hive(Setup::default());
    let ids = create(
        &hive,
        json!([
            { "title": "read", "category": "review", "payload": { "n": 1.50 } },
            { "title": "write", "category": "review", "depends_on": [0], "retries": 1, "backoff_ms": 0 },
            { "title": "other", "priority": "low", "group": "g" }
        ]),
    );
    let path = |at: usize, verb: &str| format!("/api/v1/tasks/{}{verb}", ids[at]);
    let page = seen(&hive, "/api/v1/tasks?swarm=review&state=ready,blocked&limit=1");
    assert_eq!((&page["tasks"][0]["title"], page["tasks"].as_array().unwrap().len()), (&json!("read"), 1));
    let next = page["next"].as_u64().unwrap();
    let rest = seen(&hive, &format!("/api/v1/tasks?swarm=review&after={next}&full=true"));
    assert_eq!((rest["tasks"].as_array().unwrap().len(), &rest["next"]), (2, &Value::Null));

    let claimed = done(&hive, CLAIM, ci(json!({ "categories": ["review"], "max": 5 })));
    assert_eq!(claimed["tasks"].as_array().unwrap().len(), 1);
    let fence = &claimed["tasks"][0]["claim"]["fence"];
    done(&hive, &path(0, "/renew"), ci(json!({ "fence": fence })));
    done(&hive, &path(0, "/progress"), ci(json!({ "fence": fence, "percent": 40 })));
    let held = seen(&hive, "/api/v1/tasks/held?swarm=review&agent=ci");
    assert_eq!((&held["tasks"][0]["progress"]["percent"], &held["predecessor"]), (&json!(40), &json!([])));
    done(&hive, &path(0, "/complete"), ci(json!({ "fence": fence, "result": [1] })));
    let shown = seen(&hive, &format!("{}?swarm=review", path(0, "")));
    assert_eq!((&shown["state"], &shown["result"]), (&json!("done"), &json!([1])));
    // What somebody has written stays as he has written it.
    assert!(hive.get(&format!("{}?swarm=review", path(0, ""))).body.contains(r#""payload":{"n":1.5}"#), "{shown}");

    let taken = done(&hive, &path(1, "/take"), json!({ "swarm": "review", "agent": "coder", "incarnation": 3 }));
    let coder = |more: Value| {
        let mut body = ci(more);
        body["agent"] = json!("coder");
        body["incarnation"] = json!(3);
        body
    };
    let fence = &taken["claim"]["fence"];
    post(&hive, &path(1, "/release"), &ci(json!({ "fence": fence }))).problem(409, "stale_token");
    assert_eq!(done(&hive, &path(1, "/release"), coder(json!({ "fence": fence })))["state"], "ready");
    let detail = post(&hive, &path(1, "/complete"), &coder(json!({ "fence": fence }))).problem(409, "stale_token");
    assert!(detail.contains(&fence.to_string()), "{detail}");
    for _ in 0..2 {
        let taken = done(&hive, &path(1, "/take"), ci(json!({})));
        done(&hive, &path(1, "/fail"), ci(json!({ "fence": taken["claim"]["fence"], "reason": "no" })));
    }
    post(&hive, &path(1, "/take"), &ci(json!({}))).problem(409, "wrong_state");
    assert_eq!(done(&hive, &path(1, "/retry"), json!({ "swarm": "review" }))["state"], "ready");
    assert_eq!(done(&hive, &path(2, "/cancel"), json!({ "swarm": "review", "reason": "x" }))["state"], "cancelled");
    let more = create(&hive, json!([{ "title": "a" }, { "title": "b", "depends_on": [0] }]));
    let circle = json!({ "swarm": "review", "depends_on": [more[1]] });
    post(&hive, &format!("/api/v1/tasks/{}/depend", more[0]), &circle).problem(422, "dependency_cycle");
    let graph = seen(&hive, "/api/v1/tasks/graph?swarm=review&mermaid&limit=10");
    assert!(graph["nodes"].as_array().unwrap().len() == 5 && graph["mermaid"].is_string(), "{graph}");

    let progress = seen(&hive, "/api/v1/progress?swarm=review");
    assert!(progress["groups"].as_array().unwrap().len() == 2, "{progress}");
    assert!(seen(&hive, "/api/v1/report?swarm=review")["markdown"].as_str().unwrap().contains("read"));
    let page = hive.send("GET", "/api/v1/report?swarm=review", &["Accept: text/markdown;q=1, */*"], "");
    assert_eq!((page.status, page.header("content-type")), (200, "text/markdown; charset=utf-8"));
    assert!(page.body.starts_with('#'), "{page:?}");
}

#[test]
fn a_lock_goes_all_its_ways_over_its_routes() {
    let hive = hive(Setup::default());
    let acquire = |who: &str, more: Value| {
        let mut body = ci(json!({ "resources": ["src/"] }));
        body["agent"] = json!(who);
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        post(&hive, "/api/v1/locks", &body)
    };
    let lock = acquire("ci", json!({ "mode": "read" })).json();
    let path = |verb: &str| format!("/api/v1/locks/{}{verb}", lock["id"].as_str().unwrap());
    let check = |path: &str, fence: &Value| {
        post(&hive, "/api/v1/locks/check", &json!({ "swarm": "review", "resource": path, "fence": fence }))
    };
    let changed = done(&hive, &path("/change"), ci(json!({ "fence": lock["fence"], "mode": "write" })));
    let fence = &changed["fence"];
    assert_eq!(check("src/a.rs", fence).status, 200);
    check("src/a.rs", &lock["fence"]).problem(409, "stale_token");
    let detail = acquire("other", json!({})).problem(409, "lock_timed_out");
    assert!(detail.contains("ci"), "{detail}");
    let listed = seen(&hive, "/api/v1/locks?swarm=review&resource=src/a.rs&held=true");
    assert_eq!(listed["locks"][0]["fence"], *fence);
    done(&hive, &path("/renew"), ci(json!({ "fence": fence })));
    assert_eq!(done(&hive, &path("/release"), ci(json!({ "fence": fence })))["released"], json!(true));
    post(&hive, &path("/renew"), &ci(json!({ "fence": fence }))).problem(409, "stale_token");
    assert_eq!(seen(&hive, "/api/v1/locks?swarm=review")["locks"], json!([]));
}

#[test]
fn a_message_goes_all_its_ways_over_its_routes() {
    let hive = hive(Setup::default());
    let coder = json!({ "swarm": "review", "agent": "coder", "incarnation": 3 });
    let by_coder = |more: Value| {
        let mut body = coder.clone();
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let send = ci(json!({ "to": "coder", "topic": "review", "body": { "n": 1 }, "reply_within_ms": 60_000 }));
    let sent = done(&hive, "/api/v1/messages", send);
    assert_eq!(sent["recipients"], json!(["coder"]));
    post(&hive, "/api/v1/messages", &ci(json!({ "to": "nobody" }))).problem(404, "unknown_recipient");
    let path = |verb: &str| format!("/api/v1/messages/{}{verb}", sent["id"].as_str().unwrap());
    let receive = || done(&hive, "/api/v1/messages/receive", by_coder(json!({ "topics": ["rev*"] })));
    let first = receive();
    done(&hive, &path("/nack"), by_coder(json!({ "fence": first["messages"][0]["fence"] })));
    let again = receive();
    assert_eq!(again["messages"][0]["deliveries"], 2);
    done(&hive, &path("/reply"), by_coder(json!({ "body": "yes" })));
    post(&hive, &path("/reply"), &by_coder(json!({ "body": "no" }))).problem(409, "request_not_open");
    let listed = seen(&hive, "/api/v1/messages?swarm=review&to=ci&full");
    assert_eq!(listed["messages"][0]["body"], "yes");
    let answers = done(&hive, "/api/v1/messages/receive", ci(json!({})));
    let answer = &answers["messages"][0];
    let ack = format!("/api/v1/messages/{}/ack", answer["id"].as_str().unwrap());
    done(&hive, &ack, ci(json!({ "fence": answer["fence"] })));
    post(&hive, &path("/redrive"), &json!({ "swarm": "review" })).problem(404, "unknown_message");
}

#[test]
fn what_is_not_there_and_what_can_not_be_is_told_apart() {
    let hive = hive(Setup::default());
    hive.get(&format!("/api/v1/tasks/{NOBODY}?swarm=review")).problem(404, "unknown_task");
    let detail = hive.get("/api/v1/tasks/first?swarm=review").problem(404, "not_found");
    assert!(detail.contains("\"first\""), "{detail}");
    post(&hive, "/api/v1/locks/x/release", &json!({ "swarm": "review", "fence": 1 })).problem(404, "not_found");
    let detail = hive.get("/api/v1/tasks?swarm=review&limit=x").problem(400, "invalid_query");
    assert!(detail.contains("limit: found \"x\", allowed: a whole number"), "{detail}");
    let detail = hive.get("/api/v1/tasks?swarm=review&limt=1").problem(400, "invalid_query");
    assert!(detail.contains("\"limt\" is unknown, allowed: ") && detail.contains("limit"), "{detail}");
    let detail = hive.get("/api/v1/tasks?swarm=review&swarm=review").problem(400, "invalid_query");
    assert!(detail.contains("swarm is there twice"), "{detail}");
    hive.get("/api/v1/tasks?swarm=review&limit=0").problem(422, "invalid_work");
    hive.get("/api/v1/tasks?swarm=review&state=lazy").problem(422, "invalid_work");
    let twice = json!({ "swarm": "review", "id": NOBODY });
    let detail = post(&hive, &format!("/api/v1/tasks/{NOBODY}/retry"), &twice).problem(400, "invalid_body");
    assert!(detail.contains("in the path alone"), "{detail}");
    assert_eq!(hive.send("HEAD", "/api/v1/tasks?swarm=review", &[], "").status, 200);
    let other = hive.send("PUT", "/api/v1/tasks", &["Content-Type: application/json"], "{}");
    other.problem(405, "method_not_allowed");
    assert_eq!(other.header("allow"), "GET, HEAD, POST");
    assert_eq!(hive.get(CLAIM).header("allow"), "POST");
}

#[test]
fn numbers_at_their_ends_are_answered_like_others() {
    let hive = hive(Setup::default());
    let ids = create(&hive, json!([{ "title": "a" }]));
    let end = u64::MAX;
    for path in ["tasks", "locks"] {
        let page = seen(&hive, &format!("/api/v1/{path}?swarm=review&after={end}"));
        assert!(page[path].as_array().unwrap().is_empty(), "{page}");
    }
    for (tool, more, detail) in [
        ("progress", json!({ "fence": 1, "percent": 300 }), "percent: found 300, allowed 0 to 100"),
        (
            "renew",
            json!({ "fence": -1 }),
            "fence: found integer `-1`, allowed a whole number from 0 to 18446744073709551615",
        ),
    ] {
        let reply = post(&hive, &format!("/api/v1/tasks/{}/{tool}", ids[0]), &ci(more));
        let problem = reply.json();
        assert_eq!((reply.status, problem["detail"].as_str().unwrap()), (422, detail));
    }
    let lock = json!({ "resources": ["a"], "lease_ms": end });
    let problem = post(&hive, "/api/v1/locks", &ci(lock)).json();
    assert_eq!(problem["detail"], "lease_ms: found 18446744073709551615 ms, allowed 1 to 86400000 ms");
    assert_eq!(seen(&hive, "/api/v1/tasks?swarm=review")["tasks"].as_array().unwrap().len(), 1);
}

#[test]
fn a_key_is_said_in_the_header_or_in_the_body() {
    let hive = hive(Setup::default());
    let body = json!({ "swarm": "review", "agent": "ci", "tasks": [{ "title": "once" }] });
    let keyed = |key: &str, body: &Value| {
        let key = format!("Idempotency-Key: {key}");
        hive.send("POST", "/api/v1/tasks", &["Content-Type: application/json", &key], &body.to_string())
    };
    let first = keyed("k-1", &body).json();
    assert_eq!(keyed("k-1", &body).json(), first);
    let mut said = body.clone();
    said["key"] = json!("k-1");
    assert_eq!((post(&hive, "/api/v1/tasks", &said).json(), keyed("k-1", &said).json()), (first.clone(), first));
    assert_eq!(seen(&hive, "/api/v1/tasks?swarm=review")["tasks"].as_array().unwrap().len(), 1);
    let detail = keyed("k-2", &said).problem(400, "invalid_request");
    assert!(detail.contains("allowed: one of them"), "{detail}");
    let mut other = body;
    other["tasks"][0]["title"] = json!("twice");
    keyed("k-1", &other).problem(422, "key_reused");
}

#[test]
fn work_may_be_large_and_has_a_bound() {
    let hive = hive(Setup::default());
    let tasks = |bytes: usize, count: usize| {
        json!((0..count).map(|n| json!({ "title": format!("t{n}"), "payload": "x".repeat(bytes) })).collect::<Vec<_>>())
    };
    assert_eq!(create(&hive, tasks(60_000, 15)).len(), 15);
    let body = json!({ "swarm": "review", "tasks": tasks(60_000, 20) });
    let detail = post(&hive, "/api/v1/tasks", &body).problem(413, "body_too_large");
    assert!(detail.contains("1048576"), "{detail}");
    assert_eq!(create(&hive, tasks(10, 1000)).len(), 1000);
}

#[test]
fn work_is_told_by_its_own_events_and_commands_by_those_of_who_gave_them() {
    let hive = hive(Setup::default());
    create(&hive, json!([{ "title": "a" }]));
    let audits = |hive: &Hive| {
        let page = seen(hive, "/api/v1/events?after=0&limit=1000");
        page["events"].as_array().unwrap().iter().filter(|event| event["kind"] == "audit").count()
    };
    assert_eq!(audits(&hive), 0);
    assert_eq!(hive.post("/api/v1/swarms/review/stop", "{}").status, 202);
    assert_eq!(audits(&hive), 1);
}

/// A connection whose request waits for a lock that somebody else holds.
fn waiting_for_a_lock(hive: &Hive) -> std::net::TcpStream {
    done(hive, "/api/v1/locks", ci(json!({ "resources": ["a"] })));
    let waiting = begin(hive, "/api/v1/locks", &waits().to_string());
    until("somebody waits", || in_line(hive) == 1);
    waiting
}

fn waits() -> Value {
    json!({ "swarm": "review", "agent": "b", "resources": ["a"], "wait_ms": 60_000 })
}

fn in_line(hive: &Hive) -> usize {
    seen(hive, "/api/v1/locks?swarm=review&held=false")["locks"].as_array().unwrap().len()
}

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !is() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn whoever_hangs_up_waits_no_longer() {
    let hive = hive(Setup::default());
    drop(waiting_for_a_lock(&hive));
    until("nobody waits", || in_line(&hive) == 0);
    // As clients do that keep their connections, and over every door.
    let call = json!({ "name": "lock_acquire", "arguments": waits() });
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call });
    for (path, body) in [("/api/v1/locks", waits()), ("/mcp", call)] {
        let waiting = send_and_keep(&hive, path, &body.to_string());
        until("somebody waits", || in_line(&hive) == 1);
        drop(waiting);
        until("nobody waits", || in_line(&hive) == 0);
    }
}

#[test]
fn a_wait_ends_with_the_server() {
    let mut hive = hive(Setup::default());
    let mut waiting = waiting_for_a_lock(&hive);
    let asked = Instant::now();
    hive.stop();
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    let mut text = String::new();
    waiting.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 503 ") && text.contains("\"code\":\"shutting_down\""), "{text}");
}

#[test]
fn a_wait_ends_with_the_token_that_it_came_with() {
    const FIRST: &str = "the-first-token-of-all";
    let hive = hive(Setup { token: Some(FIRST), ..Setup::default() });
    let ask = |token: &str, method: &str, path: &str, body: &Value| {
        let token = format!("Authorization: Bearer {token}");
        hive.send(method, path, &[&token, "Content-Type: application/json"], &body.to_string())
    };
    let mint = |scope: &str| {
        let minted = ask(FIRST, "POST", "/api/v1/tokens", &json!({ "name": scope, "scope": scope })).json();
        (minted["id"].as_str().unwrap().to_owned(), minted["secret"].as_str().unwrap().to_owned())
    };
    let ((id, control), (_, read)) = (mint("control"), mint("read"));
    assert_eq!(ask(&read, "GET", "/api/v1/tasks?swarm=review", &Value::Null).status, 200);
    let check = json!({ "swarm": "review", "resource": "a", "fence": 1 });
    ask(&read, "POST", "/api/v1/locks/check", &check).problem(409, "stale_token");
    ask(&read, "POST", CLAIM, &ci(json!({}))).problem(403, "forbidden");
    assert_eq!(ask(&control, "POST", "/api/v1/locks", &ci(json!({ "resources": ["a"] }))).status, 200);
    let mut body = ci(json!({ "resources": ["a"], "wait_ms": 60_000 }));
    body["agent"] = json!("b");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| ask(&control, "POST", "/api/v1/locks", &body));
        until("somebody waits", || {
            let page = ask(FIRST, "GET", "/api/v1/locks?swarm=review&held=false", &Value::Null).json();
            page["locks"].as_array().is_some_and(|locks| !locks.is_empty())
        });
        assert_eq!(ask(FIRST, "DELETE", &format!("/api/v1/tokens/{id}"), &Value::Null).status, 204);
        waiting.join().unwrap().problem(401, "invalid_token");
    });
}

/// Sends a request and does not wait for its answer.
fn begin(hive: &Hive, path: &str, body: &str) -> std::net::TcpStream {
    send(hive, "Connection: close\r\n", path, body)
}

/// The same on a connection that is to be used again.
fn send_and_keep(hive: &Hive, path: &str, body: &str) -> std::net::TcpStream {
    send(hive, "Accept: application/json, text/event-stream\r\n", path, body)
}

fn send(hive: &Hive, header: &str, path: &str, body: &str) -> std::net::TcpStream {
    let mut stream = hive.connect();
    let (address, length) = (hive.address, body.len());
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\n{header}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    stream
}
