//! Tokens, scopes and tickets: who may do what, and when it ends.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{
    io::Read as _,
    sync::Arc,
    time::{Duration, Instant},
};

use actix_web::web::Data;
use hivekeeper::{
    events::Feed,
    health::{Handle, Identity, Options},
    model::{Epoch, HiveId, Seq},
    stream::{Hub, StreamLimits},
};
use serde_json::{Value, json};
use tungstenite::{Message, client::IntoClientRequest as _};

use crate::http_support::{Hive, Reply, SOON, Setup, hive};

const FIRST: &str = "the-first-token-of-all";

fn guarded() -> Hive {
    hive(Setup { token: Some(FIRST), ..Setup::default() })
}

fn ask(hive: &Hive, token: &str, method: &str, path: &str, body: &str) -> Reply {
    let headers = [format!("Authorization: Bearer {token}"), "Content-Type: application/json".to_owned()];
    hive.send(method, path, &headers.each_ref().map(String::as_str), body)
}

/// Mints a token: its id and its secret.
fn mint(hive: &Hive, name: &str, scope: &str) -> (String, String) {
    let body = json!({ "name": name, "scope": scope }).to_string();
    let reply = ask(hive, FIRST, "POST", "/api/v1/tokens", &body);
    assert_eq!(reply.status, 201, "{reply:?}");
    let text = |key: &str| reply.json()[key].as_str().unwrap().to_owned();
    (text("id"), text("secret"))
}

fn audits(hive: &Hive) -> Vec<Value> {
    let page = ask(hive, FIRST, "GET", "/api/v1/events?after=0&limit=1000", "").json();
    let events = page["events"].as_array().unwrap().iter();
    events.filter(|event| event["kind"] == "audit").cloned().collect()
}

#[test]
fn a_token_is_shown_once_listed_used_and_revoked() {
    let hive = guarded();
    let (id, secret) = mint(&hive, "ci", "control");
    assert!(secret.starts_with(&format!("hk_{id}_")), "{secret}");
    let list = || ask(&hive, FIRST, "GET", "/api/v1/tokens", "");
    let listed = list();
    let tokens = listed.json();
    let [token] = &tokens["tokens"].as_array().unwrap()[..] else { panic!("{listed:?}") };
    assert_eq!((&token["id"], &token["name"], &token["scope"]), (&json!(id), &json!("ci"), &json!("control")));
    assert_eq!((&token["expires_at"], &token["last_used_at"]), (&Value::Null, &Value::Null));
    assert!(!listed.body.contains(&secret[20..]) && !listed.body.contains("sha256"), "{listed:?}");

    assert_eq!(ask(&hive, &secret, "GET", "/api/v1/swarms", "").status, 200);
    assert!(list().json()["tokens"][0]["last_used_at"].is_string());
    assert_eq!(ask(&hive, &secret, "POST", "/api/v1/swarms/review/stop", "{}").status, 202);
    let requested = hive.desk.requests.lock()[0].requested_by.to_string();
    assert!(requested.starts_with("token:ci@127.0.0.1:"), "{requested}");

    assert_eq!(ask(&hive, FIRST, "DELETE", &format!("/api/v1/tokens/{id}"), "").status, 204);
    ask(&hive, &secret, "GET", "/api/v1/swarms", "").problem(401, "invalid_token");
    assert_eq!(list().json()["tokens"], json!([]));
    for unknown in [id.as_str(), "000000000000", "review", "%2e%2e"] {
        ask(&hive, FIRST, "DELETE", &format!("/api/v1/tokens/{unknown}"), "").problem(404, "not_found");
    }
}

#[test]
fn what_a_new_token_must_say() {
    let hive = guarded();
    let refused = |body: &str, status: u16, code: &str, hint: &str| {
        let detail = ask(&hive, FIRST, "POST", "/api/v1/tokens", body).problem(status, code);
        assert!(detail.contains(hint), "{detail}");
    };
    refused("{}", 400, "invalid_body", "missing field `name`");
    refused(r#"{"name":"a b","scope":"read"}"#, 400, "invalid_body", "name: found \"a b\", allowed");
    refused(r#"{"name":"ab","scope":"admin"}"#, 400, "invalid_body", "expected `read` or `control`");
    refused(r#"{"name":"ab","scope":"read","expires_in_ms":0}"#, 400, "invalid_body", "expires_in_ms");
    refused(r#"{"name":"ab","scope":"read","secret":"mine"}"#, 400, "invalid_body", "unknown field `secret`");
    refused(r#"{"name":"token_file","scope":"read"}"#, 409, "conflict", "another name");
    mint(&hive, "ab", "read");
    refused(r#"{"name":"ab","scope":"read"}"#, 409, "conflict", "another name");
    let open = crate::http_support::hive(Setup::default());
    let detail = open.post("/api/v1/tokens", r#"{"name":"ab","scope":"read"}"#).problem(409, "open_to_all");
    assert!(detail.contains("name it in [http] token_file, and restart"), "{detail}");
}

#[test]
fn a_read_token_sees_everything_and_changes_nothing() {
    let hive = guarded();
    let (id, secret) = mint(&hive, "grafana", "read");
    for path in ["/api/v1/health", "/api/v1/swarms", "/api/v1/operations", "/readyz?verbose", "/metrics"] {
        let status = ask(&hive, &secret, "GET", path, "").status;
        assert!(status == 200, "{path}: {status}");
    }
    for (method, path, body) in [
        ("POST", "/api/v1/swarms/review/stop", "{}"),
        ("POST", "/api/v1/swarms/review/%73top", "{}"),
        ("POST", "/api/v1/swarms/review/agents/coder/restart", "{}"),
        ("POST", "/api/v1/reconcile", "{}"),
        ("GET", "/api/v1/tokens", ""),
        ("HEAD", "/api/v1/tokens", ""),
        ("POST", "/api/v1/tokens", r#"{"name":"more","scope":"control"}"#),
    ] {
        let reply = ask(&hive, &secret, method, path, body);
        assert_eq!(reply.status, 403, "{method} {path}: {reply:?}");
    }
    let revoke = ask(&hive, &secret, "DELETE", &format!("/api/v1/tokens/{id}"), "");
    assert!(revoke.problem(403, "forbidden").contains("grafana"));
    assert!(hive.desk.requests.lock().is_empty());
    assert_eq!(hive.keys.list(std::time::SystemTime::now()).len(), 1);
}

#[test]
fn a_token_ends_by_itself() {
    let hive = guarded();
    let body = json!({ "name": "short", "scope": "read", "expires_in_ms": 1500 }).to_string();
    let minted = ask(&hive, FIRST, "POST", "/api/v1/tokens", &body).json();
    let secret = minted["secret"].as_str().unwrap();
    assert!(minted["expires_at"].is_string());
    let header = format!("Authorization: Bearer {secret}");
    let mut stream = hive.stream("/api/v1/events", &[&header]);
    assert_eq!(ask(&hive, secret, "GET", "/api/v1/swarms", "").status, 200);
    assert!(stream.block().is_some());
    assert!(stream.block().is_none(), "the stream ends with its token");
    ask(&hive, secret, "GET", "/api/v1/swarms", "").problem(401, "invalid_token");
}

#[test]
fn what_a_token_has_opened_ends_with_its_revocation() {
    let hive = guarded();
    let (id, secret) = mint(&hive, "viewer", "read");
    let header = format!("Authorization: Bearer {secret}");
    let mut events = hive.stream("/api/v1/events", &[&header]);
    let mut others = hive.stream("/api/v1/events", &[&format!("Authorization: Bearer {FIRST}")]);
    assert!(events.block().is_some() && others.block().is_some());
    let mut request = format!("ws://{}/ws/echo", hive.address).into_client_request().unwrap();
    request.headers_mut().insert("authorization", format!("Bearer {secret}").parse().unwrap());
    let (mut socket, _) = tungstenite::client(request, hive.connect()).unwrap();
    socket.send("hello".into()).unwrap();
    assert_eq!(socket.read().unwrap().to_text().unwrap(), "hello");

    let begun = Instant::now();
    assert_eq!(ask(&hive, FIRST, "DELETE", &format!("/api/v1/tokens/{id}"), "").status, 204);
    while events.block().is_some() {}
    let mut rest = Vec::new();
    // An end, clean or not: a read that runs into its deadline fails here.
    let ended = socket.get_mut().read_to_end(&mut rest);
    assert!(ended.is_ok_and(|bytes| bytes < 200), "{}", String::from_utf8_lossy(&rest));
    assert!(begun.elapsed() < SOON / 2);
    hive.feed.publish(crate::http_support::at(1), crate::http_support::said("still here"));
    while !others.next().unwrap().data.to_string().contains("still here") {}
}

/// The viewers' room, with a hive of its own to look at.
fn viewers() -> crate::http_support::Routes {
    let feed = Feed::new(Epoch(7), Seq(1));
    let identity =
        Identity { hive: HiveId(uuid::Uuid::nil()), name: "home".to_owned(), sample_interval: Duration::from_secs(2) };
    let health = Handle::new(Options { identity, feed: feed.clone(), on_stuck: Arc::new(|_, _| {}) });
    let hub = Data::new(Hub::new(StreamLimits::default(), feed, health));
    Arc::new(move |config| {
        config.app_data(hub.clone());
    })
}

#[test]
fn a_socket_is_told_that_its_token_has_ended() {
    let hive = hive(Setup { token: Some(FIRST), sockets: Some(viewers()), ..Setup::default() });
    let (id, secret) = mint(&hive, "page", "read");
    let ticket = ask(&hive, &secret, "POST", "/api/v1/tickets", "").json()["ticket"].as_str().unwrap().to_owned();
    let open = |query: &str, token: Option<&str>| {
        let mut request = format!("ws://{}/ws/hybrid-health{query}", hive.address).into_client_request().unwrap();
        if let Some(token) = token {
            request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        let (mut socket, _) = tungstenite::client(request, hive.connect()).unwrap();
        assert!(socket.read().unwrap().to_text().unwrap().contains("connection_established"));
        socket
    };
    let mine = [open("", Some(&secret)), open(&format!("?ticket={ticket}"), None)];
    let mut others = open("", Some(FIRST));
    let mut events = hive.stream("/sse/hybrid-health", &[&format!("Authorization: Bearer {secret}")]);
    assert!(events.block().is_some());

    let begun = Instant::now();
    assert_eq!(ask(&hive, FIRST, "DELETE", &format!("/api/v1/tokens/{id}"), "").status, 204);
    for mut socket in mine {
        let close = loop {
            match socket.read() {
                Ok(Message::Close(close)) => break close.expect("a code"),
                Ok(_) => {}
                Err(error) => panic!("no goodbye: {error}"),
            }
        };
        assert_eq!((u16::from(close.code), close.reason.as_str()), (1008, "its token is no longer good"));
    }
    while events.block().is_some() {}
    assert!(begun.elapsed() < SOON / 2);
    others.send(r#"{"type":"ping"}"#.into()).unwrap();
    while !others.read().unwrap().to_text().unwrap().contains("pong") {}
}

#[test]
fn a_ticket_opens_what_a_page_watches_and_nothing_else() {
    let hive = guarded();
    let (id, secret) = mint(&hive, "page", "read");
    let made = ask(&hive, &secret, "POST", "/api/v1/tickets", "");
    assert_eq!(made.status, 201, "{made:?}");
    let (ticket, ends) = (made.json()["ticket"].as_str().unwrap().to_owned(), made.json()["expires_at"].clone());
    assert!(ticket.starts_with("hkt_") && ends.is_string());
    let with = |path: &str| hive.get(&format!("{path}?ticket={ticket}"));
    // No hub is behind the routes in this test, so who is let in finds nobody there.
    for path in ["/ws/hybrid-health", "/sse/hybrid-health"] {
        assert!(![401, 403].contains(&with(path).status), "{:?}", with(path));
        hive.get(path).problem(401, "unauthorized");
        hive.get(&format!("{path}?ticket=hkt_0000")).problem(401, "invalid_token");
        hive.get(&format!("{path}?ticket={secret}")).problem(401, "invalid_token");
    }
    for path in ["/api/v1/health", "/api/v1/events", "/readyz", "/nowhere"] {
        with(path).problem(401, "unauthorized");
    }
    let header = [format!("Authorization: Bearer {ticket}")];
    hive.send("GET", "/api/v1/health", &[&header[0]], "").problem(401, "invalid_token");
    assert_eq!(ask(&hive, FIRST, "DELETE", &format!("/api/v1/tokens/{id}"), "").status, 204);
    with("/sse/hybrid-health").problem(401, "invalid_token");
}

#[test]
fn what_was_done_and_refused_is_written_down_with_who_and_where() {
    let hive = guarded();
    let (id, secret) = mint(&hive, "grafana", "read");
    ask(&hive, FIRST, "POST", "/api/v1/swarms/review/stop", "{}");
    ask(&hive, FIRST, "POST", "/api/v1/swarms/nowhere/stop", r#"{"x":1}"#);
    for _ in 0..10 {
        ask(&hive, &secret, "POST", "/api/v1/swarms/review/stop", "{}").problem(403, "forbidden");
        ask(&hive, "guess-of-somebody", "GET", "/api/v1/swarms", "");
    }
    // What changes nothing is not told of, nor what leads nowhere.
    for (method, path) in [
        ("GET", "/api/v1/tokens"),
        ("GET", "/api/v1/swarms/nowhere"),
        ("POST", "/api/v1/nowhere"),
        ("DELETE", "/api/v1/health"),
        ("POST", "/api/v1/reload?dry_run=true"),
        ("POST", "/api/v1/reconcile?dry_run=true"),
        ("POST", "/api/v1/tickets"),
    ] {
        ask(&hive, FIRST, method, path, "{}");
    }
    for _ in 0..10 {
        ask(&hive, FIRST, "DELETE", "/api/v1/tokens/000000000000", "").problem(404, "not_found");
    }
    hive.send("POST", "/api/v1/reconcile", &["Origin: https://evil.example"], "").problem(403, "origin_refused");
    hive.send("GET", "/livez", &["Host: evil.example"], "").problem(421, "host_refused");
    let audits = audits(&hive);
    let told: Vec<_> = audits
        .iter()
        .map(|audit| {
            let text = |key: &str| audit[key].as_str().unwrap_or("-").to_owned();
            format!(
                "{} {} {} {} {} x{}",
                text("by"),
                text("method"),
                text("path"),
                audit["status"],
                text("code"),
                audit["count"]
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            "token_file POST /api/v1/tokens 201 - x1",
            "token_file POST /api/v1/swarms/review/stop 202 - x1",
            "token_file POST /api/v1/swarms/nowhere/stop 400 invalid_body x1",
            "grafana POST /api/v1/swarms/review/stop 403 forbidden x1",
            "- GET /api/v1/swarms 401 invalid_token x1",
            "token_file DELETE /api/v1/tokens/000000000000 404 not_found x1",
            "- POST /api/v1/reconcile 403 origin_refused x1",
            "- GET /livez 421 host_refused x1",
        ]
    );
    assert_eq!((&audits[3]["token"], &audits[3]["subject"]), (&json!(id), &json!("grafana")));
    assert!(audits.iter().all(|audit| audit["peer"].as_str().unwrap().starts_with("127.0.0.1:")));
    assert!(!audits.iter().any(|audit| audit.to_string().contains(&secret[20..])));
}
