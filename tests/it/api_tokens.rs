//! A whole daemon that asks for tokens: what it has answered holds after it was killed, and its viewers leave with their tokens.

use std::{
    fs,
    net::TcpStream,
    process::{Command, Output},
    time::Duration,
};

use serde_json::{Value, json};

use crate::hive::{Hive, kill, until};

const FIRST: &str = "the-first-token-of-all";

/// A daemon without agents whose API asks for a token; `more` is TOML for its table.
fn guarded(more: &str) -> Hive {
    let hive = Hive::prepare("");
    fs::write(hive.file("token"), FIRST).unwrap();
    let text = fs::read_to_string(hive.config()).unwrap();
    fs::write(hive.config(), text.replace("[http]\n", &format!("[http]\ntoken_file = \"token\"\n{more}"))).unwrap();
    hive
}

fn request(hive: &Hive, token: &str, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .allow_non_standard_methods(true)
        .timeout_global(Some(Duration::from_secs(30)))
        .build()
        .into();
    let request = ureq::http::Request::builder()
        .method(method)
        .uri(format!("http://{}{path}", hive.http))
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json");
    let answer = match body {
        Some(body) => agent.run(request.body(body.to_string()).unwrap()),
        None => agent.run(request.body(()).unwrap()),
    };
    let mut answer = answer.unwrap();
    let text = answer.body_mut().read_to_string().unwrap();
    (answer.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::Null))
}

fn mint(hive: &Hive, name: &str, scope: &str) -> (String, String) {
    let body = json!({ "name": name, "scope": scope });
    let (status, minted) = request(hive, FIRST, "POST", "/api/v1/tokens", Some(body));
    assert_eq!(status, 201, "{minted}");
    (minted["id"].as_str().unwrap().to_owned(), minted["secret"].as_str().unwrap().to_owned())
}

fn killed_and_started_again(hive: &mut Hive) {
    kill(i32::try_from(hive.pid).unwrap(), libc::SIGKILL);
    hive.wait();
    hive.boot();
}

#[test]
fn what_was_answered_of_tokens_holds_whatever_becomes_of_the_daemon() {
    let mut hive = guarded("");
    hive.boot();
    for round in 0..3 {
        let (id, secret) = mint(&hive, &format!("round-{round}"), "read");
        killed_and_started_again(&mut hive);
        assert_eq!(request(&hive, &secret, "GET", "/api/v1/swarms", None).0, 200, "round {round}");
        assert_eq!(request(&hive, &secret, "POST", "/api/v1/reconcile", Some(json!({}))).0, 403);
        assert_eq!(request(&hive, FIRST, "DELETE", &format!("/api/v1/tokens/{id}"), None).0, 204);
        killed_and_started_again(&mut hive);
        assert_eq!(request(&hive, &secret, "GET", "/api/v1/swarms", None).0, 401, "round {round}");
    }
    let database = fs::read(hive.data().join("hive.db")).unwrap();
    let (_, kept) = mint(&hive, "kept", "control");
    let log = hive.log();
    for secret in [FIRST, &kept[16..]] {
        assert!(!log.contains(secret), "a secret is in the log");
        assert!(!database.windows(secret.len()).any(|bytes| bytes == secret.as_bytes()), "a secret is in the journal");
    }
    assert!(hive.terminate().success());
}

#[test]
fn a_page_watches_with_a_ticket_until_its_token_is_revoked() {
    let mut hive = guarded("");
    hive.boot();
    let (id, secret) = mint(&hive, "page", "read");
    let (status, ticket) = request(&hive, &secret, "POST", "/api/v1/tickets", Some(json!({})));
    assert_eq!(status, 201);
    let authority = hive.http.clone();
    let connect = |query: &str| {
        let stream = TcpStream::connect(&authority).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        tungstenite::client(format!("ws://{authority}/ws/hybrid-health{query}"), stream).ok()
    };
    assert!(connect("").is_none() && connect("?ticket=hkt_00").is_none());
    let (mut socket, _) = connect(&format!("?ticket={}", ticket["ticket"].as_str().unwrap())).unwrap();
    assert!(socket.read().unwrap().to_text().unwrap().contains("connection_established"));
    assert_eq!(request(&hive, FIRST, "DELETE", &format!("/api/v1/tokens/{id}"), None).0, 204);
    let end = until("the viewer is let go", || socket.read().err());
    // A read that ran into its deadline would be no end.
    assert!(!matches!(&end, tungstenite::Error::Io(error) if error.kind() == std::io::ErrorKind::WouldBlock), "{end}");
    assert!(hive.terminate().success());
}

#[test]
fn the_command_line_finds_a_daemon_that_speaks_https() {
    let mut hive = guarded("tls_cert_file = \"cert.pem\"\ntls_key_file = \"key.pem\"\n");
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    fs::write(hive.file("cert.pem"), made.cert.pem()).unwrap();
    fs::write(hive.file("key.pem"), made.signing_key.serialize_pem()).unwrap();
    hive.launch();
    let run = |words: &[&str]| -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hivekeeper"));
        command.args(words).current_dir(hive.dir.path()).env_remove("HIVEKEEPER_URL").output().unwrap()
    };
    until("the daemon is ready", || run(&["ready"]).status.success().then_some(()));
    let listed = run(&["ps"]);
    assert!(listed.status.success(), "{listed:?}");
    let endpoints: Value = serde_json::from_slice(&fs::read(hive.data().join("endpoints.json")).unwrap()).unwrap();
    assert_eq!(endpoints["https"], true);
    let url = format!("https://localhost:{}", endpoints["http"].as_str().unwrap().rsplit(':').next().unwrap());
    let stranger = run(&["ps", "--url", &url]);
    assert_eq!(stranger.status.code(), Some(3), "{stranger:?}");
    assert!(String::from_utf8_lossy(&stranger.stderr).contains("--ca-file"), "{stranger:?}");
    let trusting = run(&["ps", "--url", &url, "--ca-file", "cert.pem"]);
    assert!(trusting.status.success(), "{trusting:?}");
    assert!(run(&["check"]).status.success());
    assert!(hive.terminate().success());
}
