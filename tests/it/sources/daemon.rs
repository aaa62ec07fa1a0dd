//! A whole daemon with sources: what the health document, the feed, the tree and the CLI show.

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use serde_json::{Value, json};

use super::fake::{Server, agents};
use crate::hive::{Hive, until};

/// One agent of ours beside a source whose server claims one of the same name.
fn document(server: &Server) -> String {
    format!(
        "[[swarm]]\nname = \"ours\"\n[[swarm.agent]]\nname = \"coder\"\ncommand = [\"sleep\", \"1000\"]\n\
         [[source]]\nname = \"theirs\"\naddress = \"{}\"\ninterval = \"200ms\"\ntimeout = \"2s\"\n",
        server.at
    )
}

fn source(hive: &Hive) -> Value {
    let health = hive.get("/api/v1/health").body;
    assert_eq!(health["sources"].as_array().unwrap().len(), 1, "{health:#}");
    health["sources"][0].clone()
}

#[track_caller]
fn source_until(hive: &Hive, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    until(what, || Some(source(hive)).filter(&fits))
}

fn changes(hive: &Hive) -> Vec<Value> {
    let events = hive.get("/api/v1/events?after=0&limit=1000").body;
    let mut events = events["events"].as_array().unwrap().clone();
    events.retain(|event| event["kind"] == "source_changed");
    events
}

#[test]
fn claims_are_shown_as_claims_and_counted_nowhere() {
    let server = Server::start(|conn| {
        conn.serve_legacy(|tool| match tool {
            "agent_list" => json!({ "agents": [
                { "id": "1", "name": "coder", "type": "coder", "status": "failed", "memory": 90 },
                { "id": "2", "name": "ghost", "status": "active", "cpu_cores": 0.5 },
            ] }),
            _ => json!({ "swarmId": "s-1", "topology": "mesh" }),
        });
    });
    let mut hive = Hive::start(&document(&server));
    hive.running("ours/coder");
    let source = source_until(&hive, "two claimed agents", |source| source["agents"].as_array().unwrap().len() == 2);
    assert_eq!((&source["name"], &source["breaker"]), (&json!("theirs"), &json!("closed")));
    assert_eq!(
        (&source["failures"], &source["cut"], &source["protocol"]),
        (&json!(0), &json!(0), &json!("2024-11-05"))
    );
    assert!(source["polls"].as_u64().unwrap() >= 1 && source["age_ms"].is_u64() && source["last_success"].is_string());
    let [coder, ghost] = &source["agents"].as_array().unwrap()[..] else { panic!("{source:#}") };
    assert_eq!((&coder["state"]["value"], &coder["state"]["source"]), (&json!("failed"), &json!("mcp")));
    assert!(coder["state"]["observed_at"].is_string());
    assert_eq!(coder["memory"], json!({ "value": null, "reason": "unsupported" }), "ninety of what?");
    assert_eq!(coder["cpu"], json!({ "value": null, "reason": "never_observed" }));
    assert_eq!(ghost["cpu"]["value"], 0.5);
    assert_eq!(source["tools"][1]["answer"]["value"], json!({ "swarmId": "s-1", "topology": "mesh" }));

    let health = hive.get("/api/v1/health").body;
    let ours: Vec<&Value> = health["agents"].as_array().unwrap().iter().collect();
    assert_eq!(ours.len(), 1, "{health:#}");
    assert_eq!((&ours[0]["swarm"], &ours[0]["state"]), (&json!("ours"), &json!("running")));
    assert_eq!((&health["level"], &health["data_plane"]["sessions"]), (&json!("healthy"), &json!(0)));
    assert_eq!(health["swarms"][0]["agents"], json!(["coder"]));
    assert_eq!(hive.get("/api/v1/swarms/theirs").status, 404, "a source is no swarm");

    let tree = hive.get("/api/v1/tree").body.to_string();
    assert!(tree.contains("\"sources\"") && tree.contains("\"theirs\""), "{tree}");
    let url = format!("http://{}", hive.http.trim_start_matches("http://"));
    let ps = Command::new(env!("CARGO_BIN_EXE_hivekeeper")).args(["--url", &url, "ps"]).output().unwrap();
    let shown = String::from_utf8_lossy(&ps.stdout);
    assert!(shown.contains("CLAIMS AGENTS") && shown.contains("theirs  closed"), "{ps:?}");
    assert!(hive.terminate().success(), "an open connection does not hold up the end");
}

#[test]
fn a_source_that_fails_degrades_the_hive_at_most_and_comes_back() {
    let ill = Arc::new(AtomicBool::new(false));
    let server = {
        let ill = Arc::clone(&ill);
        Server::start(move |conn| {
            if ill.load(Ordering::SeqCst) {
                return;
            }
            let ill = Arc::clone(&ill);
            let mut call = conn.greet_legacy();
            while let Some(request) = call.take_if(|_| !ill.load(Ordering::SeqCst)) {
                conn.result(&request, super::fake::in_text(&agents(&["a", "b"])));
                call = conn.next();
            }
        })
    };
    let hive = Hive::start(&document(&server));
    hive.running("ours/coder");
    source_until(&hive, "two claimed agents", |source| source["agents"].as_array().unwrap().len() == 2);
    until("the hive is healthy", || (hive.get("/api/v1/health").body["level"] == "healthy").then_some(()));

    ill.store(true, Ordering::SeqCst);
    let down = source_until(&hive, "the breaker opens", |source| source["breaker"] != "closed");
    assert_eq!(down["reasons"][0]["code"], "source_down", "{down:#}");
    assert!(down["last_error"].as_str().unwrap().contains("ended the connection"), "{down:#}");
    let health = until("the hive is degraded", || {
        let answer = hive.get("/api/v1/health");
        (answer.body["level"] == "degraded").then_some(answer)
    });
    assert_eq!(health.status, 200, "a source alone never fails the hive");
    let reason = json!({ "code": "source_down", "detail": "theirs" });
    assert!(health.body["reasons"].as_array().unwrap().contains(&reason), "{:#}", health.body);
    let stale = source_until(&hive, "its claims go stale", |source| source["agents"][0]["state"]["reason"] == "stale");
    assert_eq!((&stale["agents"][0]["name"], &stale["agents"][0]["state"]["value"]), (&json!("a"), &Value::Null));
    assert!(stale["age_ms"].as_u64().unwrap() > 2_600, "three intervals and the timeout: {stale:#}");
    assert_eq!(hive.agent("ours/coder")["state"], "running");

    ill.store(false, Ordering::SeqCst);
    source_until(&hive, "the breaker closes", |source| source["breaker"] == "closed" && source["reasons"] == json!([]));
    until("the hive is healthy again", || (hive.get("/api/v1/health").body["level"] == "healthy").then_some(()));

    let changes = changes(&hive);
    let first = &changes[0];
    assert_eq!((&first["subject"], &first["from"], &first["to"]), (&json!("theirs"), &Value::Null, &json!("closed")));
    assert!(changes.iter().any(|event| event["appeared"] == json!(["a-id", "b-id"])), "{changes:#?}");
    let moves: Vec<_> =
        changes[1..].iter().map(|event| (&event["from"], &event["to"])).filter(|(a, b)| a != b).collect();
    let (closed, open) = (json!("closed"), json!("open"));
    assert_eq!(moves, [(&closed, &open), (&open, &closed)], "however many trials failed in between: {changes:#?}");
}

#[test]
fn a_list_that_changes_is_told_by_name() {
    let more = Arc::new(AtomicBool::new(false));
    let server = {
        let more = Arc::clone(&more);
        Server::start(move |conn| {
            conn.serve_legacy(|_| agents(if more.load(Ordering::SeqCst) { &["b", "c"] } else { &["a", "b"] }));
        })
    };
    let hive = Hive::start(&document(&server));
    source_until(&hive, "two claimed agents", |source| source["agents"].as_array().unwrap().len() == 2);
    let mut viewer = hive.viewer();
    more.store(true, Ordering::SeqCst);
    source_until(&hive, "the other list", |source| source["agents"][1]["name"] == "c");
    let told =
        until("the change is told", || changes(&hive).into_iter().find(|event| event["gone"] == json!(["a-id"])));
    assert_eq!((&told["appeared"], &told["agents"]), (&json!(["c-id"]), &json!(2)));
    viewer.next_that("tells of the other list", |frame| {
        frame["type"] == "status_update" && frame["sources"][0]["agents"][1]["name"] == "c"
    });
}
