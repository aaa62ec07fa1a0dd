//! Containers die: by hand, or with their leases; or an agent in one eats all of its memory. One event of the swarm each, and no failure of an agent.

use std::time::Duration;

use serde_json::json;

use super::harness::{Case, gone, share, shell, sleeper, swarm, ticking};
use crate::hive::lives;

#[test]
fn without_a_new_daemon_nothing_is_left_after_the_leases() {
    let Some(mut case) = Case::start(&ticking("2s")) else { return };
    let tick = case.outside("s/tick");
    case.kill();
    assert!(lives(tick));
    // The lease, the grace, and the five seconds that the container waits for somebody to come.
    case.is_empty_within(Duration::from_secs(40));
    case.boot();
    let agent = case.runs_as("s/tick", 2);
    // Its record went with the container.
    assert_eq!(agent["last_exit"]["cause"], "container_lost", "{agent:#}");
    assert_eq!(agent["restarts_in_window"], 0, "{agent:#}");
    case.end();
}

/// Removes or kills the container; the swarm comes back in a new one, and that is no failure of its agents.
fn container_ends_by(words: &[&str]) {
    let Some(case) = Case::start(&ticking("20s")) else { return };
    for id in ["s/tick", "s/quiet"] {
        case.runs_as(id, 1);
    }
    let (trees, container) = ([case.tree("s/tick"), case.tree("s/quiet")].concat(), case.container("s"));
    case.ask(&[words, &[&container]].concat());
    for id in ["s/tick", "s/quiet"] {
        let agent = case.runs_as(id, 2);
        assert_eq!(agent["last_exit"]["cause"], "container_lost", "{agent:#}");
        assert_eq!(agent["restarts_in_window"], 0, "a container's death debits no agent: {agent:#}");
    }
    gone("what lived in it", &trees);
    assert_ne!(case.container("s"), container);
    case.end();
}

#[test]
fn a_container_that_was_removed_by_hand_is_replaced_and_debits_nobody() {
    container_ends_by(&["rm", "-f"]);
}

#[test]
fn a_container_that_was_killed_by_hand_is_replaced_and_debits_nobody() {
    container_ends_by(&["kill"]);
}

#[test]
fn a_container_that_was_stopped_by_hand_is_replaced_and_debits_nobody() {
    container_ends_by(&["stop", "-t", "1"]);
}

/// Four are more than the intensity allows an agent.
#[test]
fn containers_may_die_more_often_than_agents() {
    let Some(case) = Case::start(&swarm("intensity = 1\n", &[sleeper("quiet", "")])) else { return };
    for incarnation in 1..=4 {
        case.runs_as("s/quiet", incarnation);
        case.ask(&["kill", &case.container("s")]);
    }
    let agent = case.runs_as("s/quiet", 5);
    assert_eq!(agent["restarts_in_window"], 0, "{agent:#}");
    case.end();
}

#[test]
fn a_container_that_died_while_there_was_no_daemon_is_replaced_by_the_next_one() {
    let Some(mut case) = Case::start(&ticking("20s")) else { return };
    let container = case.container("s");
    case.kill();
    case.ask(&["rm", "-f", &container]);
    case.boot();
    for id in ["s/tick", "s/quiet"] {
        let agent = case.runs_as(id, 2);
        assert_eq!(agent["restarts_in_window"], 0, "{agent:#}");
        assert_eq!(agent["last_exit"]["cause"], "container_lost", "{agent:#}");
    }
    assert_ne!(case.container("s"), container);
    case.end();
}

#[test]
fn an_agent_that_eats_all_memory_is_restarted_and_its_sibling_lives() {
    let limits = "limits = { memory = \"48MiB\", cpus = 1.0, pids = 64 }";
    let eats = "until [ -e /share/eat ]; do sleep 0.1; done; rm /share/eat; exec tail /dev/zero";
    let document = swarm(&format!("{limits}\n{}", share()), &[shell("eats", "", eats), sleeper("quiet", "")]);
    let Some(case) = Case::start(&document) else { return };
    let (quiet, container) = (case.outside("s/quiet"), case.container("s"));
    case.runs_as("s/eats", 1);
    std::fs::write(case.shared("eat"), "").unwrap();
    let agent = case.runs_as("s/eats", 2);
    let exit = &agent["last_exit"];
    assert_eq!((&exit["signal"], &exit["oom"]), (&json!(9), &json!(true)), "{agent:#}");
    assert_eq!(agent["restarts_in_window"], 1, "its own doing: {agent:#}");
    assert_eq!((case.outside("s/quiet"), case.container("s")), (quiet, container));
    case.end();
}
