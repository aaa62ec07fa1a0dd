//! The engine itself is stopped, killed and frozen: one of the test's own, one after the other.

use serde_json::{Value, json};

use super::{
    harness::{Case, SCRATCH, agent, is_there, swarm_of, until},
    proxy::Proxy,
    second::SecondEngine,
};
use crate::hive::lives;

const AGENTS: [&str; 2] = ["s/a", "s/b"];

fn hive(engine: &SecondEngine, key: &str, lease: &str) -> Case {
    let keys = format!("lease = \"{lease}\"");
    let agents = [agent("a", &keys, &["/probe", "sleep"]), agent("b", &keys, &["/probe", "sleep"])];
    let mut case = Case::at(engine.host(), &format!("{key}{}", swarm_of("s", SCRATCH, "", &agents)));
    case.boot();
    case
}

fn engine() -> Option<SecondEngine> {
    if !is_there() {
        return None;
    }
    SecondEngine::new()
}

/// Where each agent is: incarnation and process.
fn stand(case: &Case) -> Vec<(u64, i32)> {
    AGENTS.map(|id| (case.running(id)["incarnation"].as_u64().unwrap(), case.outside(id))).to_vec()
}

#[track_caller]
fn is_unknown(case: &Case) {
    for id in AGENTS {
        case.agent_until(id, "is unknown", |agent| agent["state"] == "unknown");
    }
    is_unreachable(case);
}

#[track_caller]
fn is_unreachable(case: &Case) {
    until("the control plane is unreachable", || {
        (case.get("/api/v1/health").body["control_plane"]["reachable"] == false).then_some(())
    });
}

#[track_caller]
fn is_as_before(case: &Case, before: &[(u64, i32)]) {
    for (id, (incarnation, pid)) in AGENTS.iter().zip(before) {
        let agent = case.runs_as(id, *incarnation);
        assert_eq!(agent["restarts_in_window"], 0, "{agent:#}");
        assert_eq!(case.outside(id), *pid, "{id} is another process: {agent:#}");
    }
    until("the control plane is reachable", || {
        (case.get("/api/v1/health").body["control_plane"]["reachable"] == true).then_some(())
    });
}

/// In a new container, by the engine's doing and nobody else's.
#[track_caller]
fn is_anew(case: &Case, before: &[(u64, i32)], container: &str) {
    for (id, (incarnation, pid)) in AGENTS.iter().zip(before) {
        let agent = case.agent_until(id, "runs again", |agent| {
            agent["state"] == "running" && agent["incarnation"].as_u64() > Some(*incarnation)
        });
        assert_eq!(agent["last_exit"]["cause"], "container_lost", "{agent:#}");
        assert_eq!(agent["restarts_in_window"], 0, "the engine's end debits no agent: {agent:#}");
        assert!(!lives(*pid), "{id} runs twice");
    }
    assert_ne!(case.container("s"), container, "the old container lives on");
}

#[test]
fn an_engine_with_live_restore_may_be_stopped_killed_and_frozen_and_nobody_is_restarted() {
    let Some(mut engine) = engine() else { return };
    engine.start(true);
    engine.load(SCRATCH);
    let proxy = Proxy::new(&engine.socket());
    proxy.keep_containers();
    let case = hive(&engine, &proxy.key(), "60s");
    let before = stand(&case);
    let container = case.container("s");
    for end in [SecondEngine::stop, SecondEngine::kill] {
        end(&mut engine);
        is_unknown(&case);
        assert!(before.iter().all(|(_, pid)| lives(*pid)), "agents go on without an engine");
        engine.start(true);
        is_as_before(&case, &before);
        assert_eq!(case.container("s"), container);
    }
    engine.freeze(true);
    is_unreachable(&case);
    assert_eq!(case.get("/livez").status, 200, "a frozen engine freezes nobody else");
    engine.freeze(false);
    is_as_before(&case, &before);

    // Its operator takes live-restore away: containers end when that engine starts.
    engine.stop();
    is_unknown(&case);
    engine.start(false);
    is_anew(&case, &before, &container);
    case.end();
}

#[test]
fn an_engine_without_live_restore_takes_its_containers_along_and_nobody_is_blamed() {
    let Some(mut engine) = engine() else { return };
    engine.start(false);
    engine.load(SCRATCH);
    let mut case = hive(&engine, &engine.key(), "60s");
    for end in [SecondEngine::stop, SecondEngine::kill] {
        let (before, container) = (stand(&case), case.container("s"));
        end(&mut engine);
        is_unreachable(&case);
        engine.start(false);
        is_anew(&case, &before, &container);
    }

    // Daemon and engine both.
    let (before, container) = (stand(&case), case.container("s"));
    case.kill();
    engine.kill();
    engine.start(false);
    case.boot();
    is_anew(&case, &before, &container);
    case.end();
}

#[test]
fn agents_of_an_engine_that_stays_away_end_with_their_leases() {
    let Some(mut engine) = engine() else { return };
    engine.start(true);
    engine.load(SCRATCH);
    let case = hive(&engine, &engine.key(), "3s");
    let before = stand(&case);
    engine.kill();
    until("the leases run out", || before.iter().all(|(_, pid)| !lives(*pid)).then_some(()));
    for id in AGENTS {
        let agent = case.agent(id);
        assert_ne!(agent["state"], "running", "nobody can know that: {agent:#}");
    }
    engine.start(true);
    for id in AGENTS {
        let agent = case.runs_as(id, 2);
        let cause: &Value = &agent["last_exit"]["cause"];
        assert!(*cause == json!("lease_lost") || *cause == json!("container_lost"), "{agent:#}");
        assert_eq!(agent["restarts_in_window"], 0, "{agent:#}");
    }
    case.end();
}
