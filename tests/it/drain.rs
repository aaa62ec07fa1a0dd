//! `hive/drain`: an agent that ends by itself when it is asked to has time for it before SIGTERM.

use std::time::Instant;

use serde_json::{Value, json};

use crate::hive::{Hive, Session, until};

/// It notes when SIGTERM comes and goes on, and ends when the file `finish` is there. The test speaks for it.
const SWARM: &str = r#"
[[swarm]]
name = "s"
[[swarm.agent]]
name = "a"
command = ["sh", "-c", "trap 'touch termed' TERM; env > a.new; mv a.new a.$HIVEKEEPER_INCARNATION; while [ ! -e finish ]; do sleep 0.05; done"]
stop_grace = "8s"
"#;

/// Stops the agent and waits until it is asked to finish. Returns when the stop was asked for.
fn stop(hive: &Hive, session: &mut Session) -> Instant {
    let asked = Instant::now();
    assert_eq!(hive.post("/api/v1/swarms/s/agents/a/stop", json!({})).status, 202);
    assert_eq!(session.line()["method"], "hive/drain");
    asked
}

fn stopped(hive: &Hive) -> Value {
    hive.agent_until("s/a", "is stopped", |agent| agent["state"] == "stopped")["last_exit"].clone()
}

#[test]
fn who_declares_that_it_drains_ends_without_a_signal() {
    let hive = Hive::start(SWARM);
    hive.running("s/a");
    let mut session = Session::open(&hive, "a", 1, &json!({ "drain": true }));
    stop(&hive, &mut session);
    std::fs::write(hive.data().join("work/s/finish"), "").unwrap();
    let exit = stopped(&hive);
    assert_eq!((&exit["code"], &exit["cause"]), (&json!(0), &json!("stopped")), "{exit:#}");
    assert!(!hive.data().join("work/s/termed").exists());
}

#[test]
fn who_does_not_end_by_itself_gets_its_signal_and_its_end_within_the_grace() {
    let hive = Hive::start(SWARM);
    hive.running("s/a");
    let mut session = Session::open(&hive, "a", 1, &json!({ "drain": true }));
    let asked = stop(&hive, &mut session);
    until("SIGTERM comes", || hive.data().join("work/s/termed").exists().then_some(()));
    assert!(asked.elapsed().as_secs_f64() >= 4.0, "half of the grace: {:?}", asked.elapsed());
    let exit = stopped(&hive);
    assert_eq!(exit["signal"], 9, "{exit:#}");
    assert!(asked.elapsed().as_secs_f64() >= 8.0, "the whole of it: {:?}", asked.elapsed());
}

#[test]
fn who_declares_nothing_gets_its_signal_at_once() {
    let hive = Hive::start(SWARM);
    hive.running("s/a");
    let mut session = Session::open(&hive, "a", 1, &json!({}));
    let asked = stop(&hive, &mut session);
    until("SIGTERM comes", || hive.data().join("work/s/termed").exists().then_some(()));
    assert!(asked.elapsed().as_secs_f64() < 4.0, "before half of the grace: {:?}", asked.elapsed());
    std::fs::write(hive.data().join("work/s/finish"), "").unwrap();
    stopped(&hive);
}
