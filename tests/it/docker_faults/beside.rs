//! A container of others under a whole daemon: it comes late, is started again and replaced by its owner, and outlives the hive.

use std::{process::Command, time::Duration};

use serde_json::{Value, json};

use super::harness::{Case, DEBIAN, gap_free, gone, is_there, shell, sidecar, sleeper, until};
use super::{
    proxy::{Moment, Proxy},
    steps::engine_socket,
};
use crate::{docker::beside::Beside, hive::lives};

const AGENTS: [&str; 2] = ["s/tick", "s/quiet"];

/// A hive whose swarm `s` lives in this container; the first agent has a grandchild in a session of its own.
fn hive(beside: &Beside) -> Case {
    hive_at(beside, "")
}

/// The same with the engine where this key says.
fn hive_at(beside: &Beside, key: &str) -> Case {
    let lease = "lease = \"20s\"";
    let tick = "setsid sleep 1000 & n=0; while :; do n=$((n+1)); echo tick $n; sleep 0.05; done";
    let mut case = Case::prepare(&format!(
        "{key}{}",
        sidecar(&beside.name, &[shell("tick", lease, tick), sleeper("quiet", lease)])
    ))
    .unwrap();
    case.boot();
    case
}

/// The container and its hive, whose agents run.
fn housed() -> Option<(Beside, Case)> {
    if !is_there() {
        return None;
    }
    let beside = Beside::debian(&["--network", "none"]);
    let case = hive(&beside);
    for id in AGENTS {
        case.runs_as(id, 1);
    }
    Some((beside, case))
}

fn trees(case: &Case) -> Vec<i32> {
    AGENTS.iter().flat_map(|id| case.tree(id)).collect()
}

fn swarm(case: &Case) -> Value {
    case.get("/api/v1/health").body["swarms"][0].clone()
}

/// They run as this incarnation because their container went, which none of them is blamed for.
#[track_caller]
fn came_back(case: &Case, incarnation: u64, before: &[i32]) {
    for id in AGENTS {
        let agent = case.runs_as(id, incarnation);
        assert_eq!(agent["last_exit"]["cause"], "container_lost", "{agent:#}");
        assert_eq!((&agent["restarts_in_window"], &agent["restarts"]), (&json!(0), &json!(0)), "{agent:#}");
    }
    gone("what lived in it", before);
}

#[test]
fn agents_wait_for_it_and_say_for_which() {
    if !is_there() {
        return;
    }
    let beside = Beside::unmade();
    let case = hive(&beside);
    let waits = |how: &str| {
        let why = format!("container {} {how}", beside.name);
        case.agent_until("s/tick", &format!("waits: {why}"), |agent| {
            let told = |reason: &Value| reason["detail"].as_str().unwrap().contains(&why);
            agent["state"] == "pending" && agent["reasons"].as_array().unwrap().iter().any(told)
        });
        // Those behind it wait for their turn.
        assert_eq!(case.agent("s/quiet")["state"], "pending");
    };
    waits("is not there");
    // It comes in steps.
    beside.create(&["--network", "none"], DEBIAN, &["sleep", "infinity"]);
    waits("does not run");
    beside.does(&["start"]);
    for id in AGENTS {
        let agent = case.running(id);
        assert_eq!((&agent["restarts_in_window"], &agent["last_exit"]), (&json!(0), &json!(null)), "{agent:#}");
    }
    case.end();
    beside.is_untouched(&beside.started_at());
}

#[test]
fn agents_come_back_after_it_was_started_again() {
    let Some((beside, case)) = housed() else { return };
    let before = trees(&case);
    beside.does(&["restart", "-t", "0"]);
    came_back(&case, 2, &before);
    let started_at = beside.started_at();
    case.end();
    beside.is_untouched(&started_at);
}

/// A launcher is looked for in the container that ran a moment ago, and by then another start of it answers that nobody is there.
#[test]
fn a_start_between_look_and_knock_is_no_launchers_fault() {
    if !is_there() {
        return;
    }
    let beside = Beside::debian(&["--network", "none"]);
    let proxy = Proxy::new(&engine_socket());
    let case = hive_at(&beside, &proxy.key());
    for id in AGENTS {
        case.runs_as(id, 1);
    }
    let before = trees(&case);
    // Commands are started one by one in a container, so the others have looked, too, and wait for the first.
    let held = proxy.hold(Moment::Asked, "POST /containers/*/exec");
    proxy.cut();
    held.wait();
    beside.does(&["restart", "-t", "0"]);
    held.go_on();
    came_back(&case, 2, &before);
    case.end();
    beside.is_untouched(&beside.started_at());
}

#[test]
fn agents_come_back_in_the_one_that_has_taken_its_name() {
    let Some((beside, case)) = housed() else { return };
    let before = trees(&case);
    beside.does(&["rm", "-f"]);
    case.agent_until("s/tick", "waits", |agent| agent["state"] != "running");
    beside.make(&["--network", "none", "--user", "10001:10001"], DEBIAN, &["sleep", "infinity"]);
    came_back(&case, 2, &before);
    let started_at = beside.started_at();
    case.end();
    beside.is_untouched(&started_at);
}

#[test]
fn a_killed_daemon_is_replaced_and_agents_in_it_run_on() {
    let Some((beside, mut case)) = housed() else { return };
    let (processes, started_at) = (AGENTS.map(|id| case.outside(id)), beside.started_at());
    case.kill();
    std::thread::sleep(Duration::from_millis(500));
    assert!(processes.iter().all(|pid| lives(*pid)), "agents go on without a daemon");
    case.boot();
    for id in AGENTS {
        let agent = case.runs_as(id, 1);
        assert_eq!((&agent["restarts"], &agent["last_exit"]), (&json!(0), &json!(null)), "{agent:#}");
    }
    assert_eq!(AGENTS.map(|id| case.outside(id)), processes);
    let so_far = case.lines("s/tick").len();
    gap_free(&case, so_far + 10);
    case.end();
    beside.is_untouched(&started_at);
}

#[test]
fn a_daemon_that_ends_leaves_it_as_it_was() {
    if !is_there() {
        return;
    }
    let beside = Beside::debian(&["--network", "none"]);
    let look =
        || (beside.processes(), beside.inspect("{{json .State}} {{json .Mounts}} {{json .NetworkSettings.Networks}}"));
    let before = look();
    let mut case = hive(&beside);
    for id in AGENTS {
        case.runs_as(id, 1);
    }
    let trees = until("agents and a grandchild", || Some(trees(&case)).filter(|trees| trees.len() >= 3));
    assert_eq!(case.terminate().code(), Some(0), "{}", case.log());
    gone("what lived in it", &trees);
    // The container's own init reaps what has ended, in its own time.
    until("it is as it was", || (look() == before).then_some(()));
    assert_eq!(beside.says("find / -xdev -name '*hivekeeper*'"), "", "a file of ours stays");
    beside.is_untouched(&beside.started_at());
    assert_eq!(case.containers(None), [""; 0], "it made one of its own");
}

#[test]
fn whose_it_is_is_shown() {
    let Some((beside, case)) = housed() else { return };
    let relaxed = format!("container {} of others", beside.name);
    let swarm = swarm(&case);
    assert_eq!((&swarm["container"], &swarm["relaxations"]), (&json!(beside.name), &json!([relaxed])), "{swarm:#}");
    let ps = Command::new(env!("CARGO_BIN_EXE_hivekeeper"))
        .args(["ps", "-o", "wide"])
        .env("HIVEKEEPER_URL", format!("http://{}", case.http.trim_start_matches("http://")))
        .output()
        .unwrap();
    let table = String::from_utf8(ps.stdout).unwrap();
    assert!(ps.status.success(), "{}", String::from_utf8_lossy(&ps.stderr));
    assert!(table.lines().any(|line| line.starts_with("s/tick ") && line.contains(&relaxed)), "{table}");
    case.end();
}
