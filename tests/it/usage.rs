//! What an agent says of itself, from its socket to the health document of the real daemon.

use serde_json::{Value, json};

use crate::hive::{Hive, Session, until};

/// Agents that only write down what they were given; the test speaks for them.
const SWARM: &str = r#"
[[swarm]]
name = "s"
[[swarm.agent]]
name = "spends"
command = ["sh", "-c", "env > spends.new; mv spends.new spends.$HIVEKEEPER_INCARNATION; exec sleep 1000"]
stop_grace = "1s"
[[swarm.agent]]
name = "flaps"
command = ["sh", "-c", "env > flaps.new; mv flaps.new flaps.$HIVEKEEPER_INCARNATION; exec sleep 1000"]
heartbeat_timeout = "3s"
stop_grace = "1s"
"#;

/// A session that declares nothing.
fn open(hive: &Hive, agent: &str, incarnation: u64) -> Session {
    Session::open(hive, agent, incarnation, &json!({}))
}

impl Session {
    fn used(&mut self, input: u64, usd: f64) {
        self.tell(
            "hive/usage",
            &json!({"gen_ai.usage.input_tokens": input, "cost_usd": usd, "gen_ai.response.model": "m-1", "x": -1}),
        );
    }
}

fn spent(agent: &Value) -> (Option<u64>, Option<f64>) {
    let value = &agent["usage"]["value"];
    (value["input_tokens"].as_u64(), value["cost_usd"].as_f64())
}

#[test]
fn usage_survives_restarts_and_is_never_counted_twice() {
    let hive = Hive::start(SWARM);
    let fresh = hive.running("s/spends");
    assert_eq!(fresh["usage"], json!({"value": null, "reason": "never_observed"}));
    assert_eq!(fresh["heartbeat_latency_ms"]["reason"], "never_observed");
    let mut session = open(&hive, "spends", 1);
    session.used(100, 0.5);
    session.used(100, 0.5);
    // Each is answered before the next: what is read at once counts as one.
    session.ask("hive/heartbeat", &json!({}));
    session.ask("hive/heartbeat", &json!({}));
    let seen = hive.agent_until("s/spends", "its usage is summed", |agent| spent(agent) == (Some(100), Some(0.5)));
    assert_eq!((&seen["usage"]["source"], &seen["model"]["value"]), (&json!("agent"), &json!("m-1")));
    assert_eq!(seen["usage"]["value"]["output_tokens"], Value::Null, "nobody spoke of it");
    let seen =
        hive.agent_until("s/spends", "its heartbeats are in time", |agent| agent["heartbeat_latency_ms"]["value"] == 0);
    assert_eq!(seen["telemetry"]["received"], 4, "{seen:#}");
    assert!(seen["telemetry"]["latency_ms"]["value"].is_number(), "{seen:#}");

    let answer = session.ask("hive/usage", &json!({"gen_ai.usage.input_tokens": -7}));
    assert_eq!(answer["error"]["code"], -32602, "{answer}");
    until("the refusal is counted", || {
        let plane = hive.get("/api/v1/health").body["data_plane"].clone();
        (plane["refused_by_code"]["-32602"] == 1 && plane["refused"] == 1 && plane["connections"] == 1).then_some(())
    });

    session.used(150, 0.75);
    hive.agent_until("s/spends", "its last word is heard", |agent| spent(agent) == (Some(150), Some(0.75)));
    hive.command("/swarms/s/agents/spends/restart");
    hive.agent_until("s/spends", "runs again", |agent| agent["incarnation"] == 2 && agent["state"] == "running");
    assert_eq!(spent(&hive.agent("s/spends")), (Some(150), Some(0.75)), "what was used stays used");
    let mut session = open(&hive, "spends", 2);
    session.used(20, 0.25);
    hive.agent_until("s/spends", "adds to it", |agent| spent(agent) == (Some(170), Some(1.0)));
    // The program starts over inside its incarnation.
    session.used(5, 0.25);
    hive.agent_until("s/spends", "adds a new run", |agent| spent(agent) == (Some(175), Some(1.25)));
}

/// The input tokens that the journal has as the last word of `s/spends`.
fn journaled(hive: &Hive) -> Option<u64> {
    let open =
        rusqlite::Connection::open_with_flags(hive.data().join("hive.db"), rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY);
    let row = open.and_then(|db| {
        db.query_row("SELECT spent FROM agents WHERE agent = 's/spends'", [], |row| row.get::<_, Option<String>>(0))
    });
    serde_json::from_str::<Value>(&row.ok()??).ok()?["last"]["input"].as_u64()
}

#[test]
fn usage_survives_the_daemon() {
    let mut hive = Hive::start(SWARM);
    hive.running("s/spends");
    let mut session = open(&hive, "spends", 1);
    session.used(100, 0.5);
    hive.agent_until("s/spends", "is heard", |agent| spent(agent) == (Some(100), Some(0.5)));
    hive.command("/swarms/s/agents/spends/restart");
    until("its last word is journaled", || (journaled(&hive) == Some(100)).then_some(()));
    hive.agent_until("s/spends", "runs again", |agent| agent["incarnation"] == 2 && agent["state"] == "running");
    let mut session = open(&hive, "spends", 2);
    session.used(20, 0.25);
    let before = hive.agent_until("s/spends", "adds to it", |agent| spent(agent) == (Some(120), Some(0.75)));
    until("what it has used so far is journaled", || (journaled(&hive) == Some(20)).then_some(()));
    session.used(21, 0.25);
    hive.agent_until("s/spends", "is heard once more", |agent| spent(agent) == (Some(121), Some(0.75)));

    hive.kill();
    hive.boot();
    let after = hive.agent_until("s/spends", "is taken over", |agent| agent["state"] == "running");
    assert_eq!((&after["pid"], &after["incarnation"]), (&before["pid"], &before["incarnation"]));
    let known = spent(&after);
    assert!([(Some(120), Some(0.75)), (Some(121), Some(0.75))].contains(&known), "{after:#}");
    assert_eq!(after["model"]["value"], "m-1");
    let mut session = open(&hive, "spends", 2);
    session.used(30, 0.5);
    hive.agent_until("s/spends", "makes good what was lost", |agent| spent(agent) == (Some(130), Some(1.0)));

    // At once: a daemon that ends in order loses nothing.
    session.used(31, 0.5);
    hive.agent_until("s/spends", "is heard at last", |agent| spent(agent) == (Some(131), Some(1.0)));
    assert!(hive.terminate().success());
    hive.boot();
    let after = hive.agent_until("s/spends", "runs anew", |agent| agent["state"] == "running");
    assert_eq!((after["incarnation"].as_u64(), spent(&after)), (Some(3), (Some(131), Some(1.0))), "{after:#}");
    open(&hive, "spends", 3).used(7, 0.5);
    hive.agent_until("s/spends", "adds to all of it", |agent| spent(agent) == (Some(138), Some(1.5)));
}

/// Totals of an incarnation have one voice: a second one that takes turns with it must not look like a program that starts over each time.
#[test]
fn a_second_session_adds_nothing_to_the_totals_of_the_first() {
    let hive = Hive::start(SWARM);
    hive.running("s/spends");
    let mut first = open(&hive, "spends", 1);
    let mut second = open(&hive, "spends", 1);
    for (mine, yours) in [(100, 5), (110, 8), (120, 11)] {
        first.used(mine, 0.5);
        first.ask("hive/heartbeat", &json!({}));
        second.used(yours, 0.25);
        second.ask("hive/heartbeat", &json!({}));
    }
    let heard = |agent: &Value| agent["telemetry"]["received"] == 12 && spent(agent).0.is_some();
    let seen = hive.agent_until("s/spends", "all of it is heard", heard);
    assert_eq!(spent(&seen), (Some(120), Some(0.5)), "{seen:#}");
    assert_eq!(seen["telemetry"]["dropped"]["metrics"], 3, "what does not count is counted: {seen:#}");
    drop(first);
    until("the second is the only one", || {
        second.used(14, 0.5);
        second.ask("hive/heartbeat", &json!({}));
        let sum = spent(&hive.agent("s/spends")).0;
        (sum == Some(134)).then_some(())
    });
}

#[test]
fn an_agent_that_falls_silent_again_and_again_is_told_so() {
    let hive = Hive::start(SWARM);
    hive.running("s/flaps");
    let mut session = open(&hive, "flaps", 1);
    let has =
        |agent: &Value, code: &str| agent["reasons"].as_array().unwrap().iter().any(|reason| reason["code"] == code);
    for silence in 1..=3 {
        session.tell("hive/heartbeat", &json!({}));
        hive.agent_until("s/flaps", "is trusted", |agent| {
            agent["telemetry"]["received"] == silence && agent["state"] == "running" && agent["reasons"] == json!([])
        });
        hive.agent_until("s/flaps", "falls silent", |agent| has(agent, "heartbeat_overdue"));
    }
    session.tell("hive/heartbeat", &json!({}));
    hive.agent_until("s/flaps", "is heard and not trusted", |agent| {
        agent["state"] == "degraded" && has(agent, "flapping") && !has(agent, "heartbeat_overdue")
    });
}
