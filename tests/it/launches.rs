//! The life of a swarm that the API launched: launch, update, scale, rolling restart, delete, and what survives a `kill -9`.

use serde_json::{Value, json};

use crate::hive::{Answer, Hive, until};

const ONE: &str = "
[[swarm]]
name = \"file\"
[[swarm.agent]]
name = \"w\"
replicas = 2
command = [\"sleep\", \"1000\"]
";

fn document(agents: &[(&str, Option<u32>, &str)]) -> Value {
    let agents = agents.iter().map(|(name, replicas, seconds)| {
        json!({ "name": name, "replicas": replicas, "command": ["sleep", seconds], "stop_grace": "1s" })
    });
    json!({ "name": "api", "agent": agents.collect::<Vec<_>>() })
}

fn send(hive: &Hive, method: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
    hive.client().send(method, &format!("/api/v1{path}"), headers, body)
}

#[track_caller]
fn done(hive: &Hive, method: &str, path: &str, body: &Value) -> Value {
    let answer = send(hive, method, &format!("{path}?wait=30s"), &[], body);
    assert_eq!(answer.status, 200, "{method} {path}: {answer:?}\n{}", hive.log());
    assert_eq!(answer.body["state"], "succeeded", "{method} {path}: {:#}\n{}", answer.body, hive.log());
    answer.body
}

fn agents(hive: &Hive, swarm: &str) -> Vec<(String, u64)> {
    let shown = hive.get(&format!("/api/v1/swarms/{swarm}")).body;
    let all = shown["agents"].as_array().unwrap().iter();
    all.map(|agent| (agent["name"].as_str().unwrap().to_owned(), agent["pid"].as_u64().unwrap_or(0))).collect()
}

#[test]
fn a_swarm_is_launched_updated_scaled_restarted_and_deleted() {
    let mut hive = Hive::start(ONE);
    let first = document(&[("a", None, "1001"), ("b", Some(2), "1002")]);
    let launched = done(&hive, "POST", "/swarms", &first);
    assert_eq!((launched["kind"].as_str(), launched["steps"].as_array().unwrap().len()), (Some("launch"), 3));
    let before = agents(&hive, "api");
    assert!(before.iter().all(|(_, pid)| *pid > 0), "{before:?}");
    let again = send(&hive, "POST", "/swarms", &[], &first);
    assert_eq!((again.status, again.body["code"].as_str()), (409, Some("conflict")), "{again:?}");

    let second = document(&[("a", None, "2001"), ("b", Some(2), "1002")]);
    let plan = send(&hive, "PUT", "/swarms/api?dry_run=true", &[], &second);
    let told = |agent: &str, change: &str| json!({ "agent": agent, "change": change });
    let all = json!([told("a", "replace"), told("b-1", "keep"), told("b-2", "keep")]);
    assert_eq!((plan.status, &plan.body["agents"]), (200, &all), "{plan:?}");
    assert_eq!(agents(&hive, "api"), before, "a dry run changes nothing");
    let long = "k".repeat(256);
    for path in ["/swarms/api?dry_run=true", "/swarms/api"] {
        let refused = send(&hive, "PUT", path, &[("idempotency-key", &long)], &second);
        assert_eq!(
            (refused.status, refused.body["code"].as_str()),
            (400, Some("invalid_request")),
            "{path}: {refused:?}"
        );
    }
    let stale = send(&hive, "PUT", "/swarms/api", &[("if-match", "\"0000000000000000\"")], &second);
    assert_eq!((stale.status, stale.body["code"].as_str()), (412, Some("precondition_failed")), "{stale:?}");
    done(&hive, "PUT", "/swarms/api", &second);
    let after = agents(&hive, "api");
    assert_ne!(after[0], before[0]);
    assert_eq!(after[1..], before[1..], "what did not change keeps its process ids");

    done(&hive, "POST", "/swarms/api/scale", &json!({ "agent": "b", "replicas": 3 }));
    let more = agents(&hive, "api");
    assert_eq!((more.len(), &more[..3]), (4, &after[..]));
    let refused = send(&hive, "POST", "/swarms/api/scale", &[], &json!({ "agent": "a", "replicas": 3 }));
    assert_eq!(refused.status, 409, "{refused:?}");
    done(&hive, "POST", "/swarms/api/scale", &json!({ "agent": "b", "replicas": 1 }));
    assert_eq!(agents(&hive, "api"), more[..2]);

    let rolled = done(&hive, "POST", "/swarms/api/restart", &json!({ "mode": "rolling" }));
    assert_eq!(rolled["mode"], "rolling");
    let anew = agents(&hive, "api");
    assert!(anew.iter().zip(&more).all(|(new, old)| new.0 == old.0 && new.1 != old.1), "{anew:?} {more:?}");

    // The file's own swarm keeps its operator's number, and the API's its document, under the next daemon.
    done(&hive, "POST", "/swarms/file/scale", &json!({ "agent": "w", "replicas": 3 }));
    let here = (agents(&hive, "api"), agents(&hive, "file"));
    hive.kill();
    hive.boot();
    for (id, pid) in here.0.iter().map(|(name, pid)| (format!("api/{name}"), pid)) {
        assert_eq!(hive.running(&id)["pid"], *pid);
    }
    assert_eq!(agents(&hive, "file").len(), 3);
    let kept = send(&hive, "DELETE", "/swarms/file", &[], &json!({}));
    assert_eq!(kept.status, 409, "{kept:?}");
    done(&hive, "DELETE", "/swarms/api", &json!({}));
    assert_eq!(hive.get("/api/v1/swarms/api").status, 404);
    assert!(!hive.get("/api/v1/health").body.to_string().contains("api/a"));
    done(&hive, "POST", "/swarms", &first);
    hive.terminate();
    hive.nothing_left(crate::hive::PATIENCE);
}

#[test]
fn every_mistake_of_a_document_is_named() {
    let mut hive = Hive::start(ONE);
    let bad = json!({ "name": "api", "strategi": 1, "agent": [{ "name": "a", "command": [], "lease": "1" }] });
    let refused = send(&hive, "POST", "/swarms", &[], &bad);
    assert_eq!((refused.status, refused.body["code"].as_str()), (422, Some("invalid_document")), "{refused:?}");
    let keys: Vec<_> = refused.body["errors"].as_array().unwrap().iter().map(|one| one["key"].clone()).collect();
    for key in ["agent[a].command", "agent[a].lease", "strategi"] {
        assert!(keys.contains(&json!(key)), "{key}: {keys:?}");
    }
    let mounted = json!({
        "name": "api", "image": "debian:bookworm-slim", "mounts": [{ "source": "/etc", "target": "/x" }],
        "agent": [{ "name": "a", "command": ["true"] }],
    });
    let refused = send(&hive, "POST", "/swarms", &[], &mounted);
    assert!(refused.body["detail"].as_str().unwrap().contains("allow_mounts"), "{refused:?}");
    let relative = json!({ "name": "api", "workdir": "x", "agent": [{ "name": "a", "command": ["true"] }] });
    let refused = send(&hive, "POST", "/swarms", &[], &relative);
    assert!(refused.body["detail"].as_str().unwrap().contains("absolute"), "{refused:?}");
    hive.terminate();
}

#[test]
fn a_key_of_a_launch_holds_under_the_next_daemon() {
    let mut hive = Hive::start(ONE);
    let first = document(&[("a", None, "1001")]);
    let key = [("idempotency-key", "one")];
    let launched = send(&hive, "POST", "/swarms", &key, &first);
    assert_eq!(launched.status, 202, "{launched:?}");
    hive.kill();
    hive.boot();
    let again = send(&hive, "POST", "/swarms", &key, &first);
    assert_eq!(again.body["id"], launched.body["id"], "{again:?}");
    let path = format!("/api/v1/operations/{}", launched.body["id"].as_str().unwrap());
    until("the launch is carried out", || (hive.get(&path).body["state"] == "succeeded").then_some(()));
    hive.running("api/a");
    let other = document(&[("a", None, "1002")]);
    assert_eq!(send(&hive, "POST", "/swarms", &key, &other).body["code"], "key_reused");
    hive.terminate();
}

#[test]
fn what_waits_is_cancelled_at_once_and_what_is_under_way_between_two_agents() {
    let mut hive = Hive::start(ONE);
    let stubborn = json!({ "name": "api", "agent": [{
        "name": "a", "replicas": 2, "stop_grace": "2s",
        "command": ["sh", "-c", "trap '' TERM; while :; do sleep 0.05; done"],
    }] });
    done(&hive, "POST", "/swarms", &stubborn);
    let rolling = send(&hive, "POST", "/swarms/api/restart", &[], &json!({ "mode": "rolling" })).body;
    let waiting = send(&hive, "POST", "/swarms/api/restart", &[], &json!({})).body;
    let cancel = |operation: &Value| {
        let path = format!("/operations/{}/cancel", operation["id"].as_str().unwrap());
        send(&hive, "POST", &path, &[], &json!({}))
    };
    let gone = cancel(&waiting);
    assert_eq!((gone.status, gone.body["state"].as_str()), (200, Some("cancelled")), "{gone:?}");
    assert_eq!(cancel(&waiting).status, 409);
    assert_eq!(cancel(&rolling).status, 200);
    let path = format!("/api/v1/operations/{}", rolling["id"].as_str().unwrap());
    let ended = until("it ends", || {
        let shown = hive.get(&path).body;
        (shown["state"] == "cancelled").then_some(shown)
    });
    assert_eq!(ended["steps"].as_array().unwrap().len(), 1, "{ended:#}");
    hive.terminate();
}

#[test]
fn an_update_that_a_stop_overtakes_says_the_same_under_the_next_daemon() {
    let mut hive = Hive::start("[docker]\nhost = \"unix:///nonexistent/engine.sock\"\n");
    done(&hive, "POST", "/swarms", &document(&[("a", Some(2), "1001")]));
    let second = json!({ "name": "api", "image": "debian", "agent": [{ "name": "a", "command": ["sleep", "2001"] }] });
    let update = send(&hive, "PUT", "/swarms/api", &[], &second).body;
    let path = format!("/api/v1/operations/{}", update["id"].as_str().unwrap());
    let state = |state: &str| until(state, || (hive.get(&path).body["state"] == state).then_some(()));
    state("running");
    done(&hive, "POST", "/swarms/api/stop", &json!({}));
    state("failed");
    let shown = |hive: &Hive| {
        let swarm = hive.get("/api/v1/swarms/api").body;
        (swarm["document"].clone(), swarm["desired"].clone())
    };
    let here = shown(&hive);
    assert_eq!((here.0["image"].as_str(), here.1.as_str()), (Some("debian"), Some("stopped")), "{here:?}");
    hive.kill();
    hive.boot();
    assert_eq!(shown(&hive), here);
    hive.terminate();
}

#[test]
fn a_document_that_stands_for_a_million_agents_is_refused() {
    let mut hive = Hive::start("");
    let many: Vec<_> =
        (0..1000).map(|n| json!({ "name": format!("a{n}"), "replicas": 1000, "command": ["x"] })).collect();
    let refused = send(&hive, "POST", "/swarms", &[], &json!({ "name": "api", "agent": many }));
    assert_eq!(
        (refused.status, refused.body["errors"][0]["key"].as_str()),
        (422, Some("agent[a8].replicas")),
        "{refused:?}"
    );
    hive.terminate();
}

/// Waits until an operation is in this state, and shows it.
fn in_state(hive: &Hive, operation: &Value, state: &str) -> Value {
    let path = format!("/api/v1/operations/{}", operation["id"].as_str().unwrap());
    until(state, || {
        let shown = hive.get(&path).body;
        (shown["state"] == state).then_some(shown)
    })
}

#[test]
fn what_waits_for_an_engine_that_does_not_answer_is_left_when_it_is_cancelled() {
    let mut hive = Hive::start("[docker]\nhost = \"unix:///nonexistent/engine.sock\"\n");
    let in_a_container = |name: &str| json!({ "name": name, "image": "debian", "agent": [{ "name": "a", "replicas": 1, "command": ["x"] }] });
    let cancel = |operation: &Value| {
        let path = format!("/operations/{}/cancel", operation["id"].as_str().unwrap());
        let answer = send(&hive, "POST", &path, &[], &json!({}));
        assert_eq!(answer.status, 200, "{answer:?}");
        in_state(&hive, operation, "cancelled")["error"].as_str().unwrap().to_owned()
    };
    let begun = |method: &str, path: &str, body: &Value| {
        let operation = send(&hive, method, path, &[], body).body;
        in_state(&hive, &operation, "running")
    };
    let waits = |agent: &str| {
        hive.agent_until(agent, "waits for the engine", |agent| agent["reasons"][0]["code"] == "engine_unreachable");
    };
    done(&hive, "POST", "/swarms", &document(&[("a", Some(1), "1001")]));
    let update = begun("PUT", "/swarms/api", &in_a_container("api"));
    waits("api/a-1");
    let said = cancel(&update);
    assert!(said.contains("0 of 1 agents") && said.contains("the new document"), "{said}");
    let shown = hive.get("/api/v1/swarms/api").body;
    assert_eq!(shown["document"]["image"], "debian", "{shown:#}");
    let scale = begun("POST", "/swarms/api/scale", &json!({ "agent": "a", "replicas": 3 }));
    waits("api/a-2");
    assert!(cancel(&scale).contains("0 of 2 agents"));
    let rolling = begun("POST", "/swarms/api/restart", &json!({ "mode": "rolling" }));
    assert!(cancel(&rolling).contains("agents were restarted"));
    // The others end by another way, which is named.
    let start = begun("POST", "/swarms/api/start", &json!({}));
    let path = format!("/operations/{}/cancel", start["id"].as_str().unwrap());
    let refused = send(&hive, "POST", &path, &[], &json!({}));
    assert_eq!(refused.status, 409, "{refused:?}");
    assert!(refused.body["detail"].as_str().unwrap().contains("a stop overtakes it"), "{refused:?}");
    done(&hive, "POST", "/swarms/api/stop", &json!({}));
    done(&hive, "DELETE", "/swarms/api", &json!({}));
    hive.terminate();
}

/// Each start notes what it runs before anything is launched, so no moment is too early for the next daemon to know it.
#[test]
fn what_an_update_had_replaced_when_the_daemon_was_killed_is_not_replaced_again() {
    let mut hive = Hive::start("");
    let starts = hive.file("starts");
    let document = |version: &str| {
        let agents = ["a", "b", "c"].map(|name| {
            let script = format!("echo $VERSION {name} >> {}; exec sleep 1000", starts.display());
            // The first never opens one, so the update waits for it, and no step tells of it.
            let ready = if name == "a" && version == "2" { "session" } else { "process" };
            json!({
                "name": name, "command": ["sh", "-c", script], "env": { "VERSION": version }, "stop_grace": "1s",
                "ready": ready, "start_timeout": "10m"
            })
        });
        json!({ "name": "api", "agent": agents })
    };
    let began = |line: &str| {
        let text = std::fs::read_to_string(&starts).unwrap_or_default();
        text.lines().filter(|found| *found == line).count()
    };
    done(&hive, "POST", "/swarms", &document("1"));
    let update = send(&hive, "PUT", "/swarms/api", &[], &document("2")).body;
    until("the first is replaced", || (began("2 a") == 1).then_some(()));
    hive.kill();
    let journal = rusqlite::Connection::open(hive.data().join("hive.db")).unwrap();
    let body: String = journal
        .query_row("SELECT body FROM operations WHERE id = ?1", [update["id"].as_str().unwrap()], |row| row.get(0))
        .unwrap();
    drop(journal);
    let noted: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(noted["steps"], json!([]), "no step tells of it yet, or this test shows nothing");
    hive.boot();
    in_state(&hive, &update, "succeeded");
    for agent in ["a", "b", "c"] {
        hive.running(&format!("api/{agent}"));
        until("it is replaced", || (began(&format!("2 {agent}")) > 0).then_some(()));
    }
    assert_eq!(["2 a", "2 b", "2 c"].map(began), [1, 1, 1], "each once");
    hive.terminate();
}
