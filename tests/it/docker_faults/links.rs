//! The engine goes away, hangs, comes back; links to it break. What runs in containers is not touched by any of it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{
    harness::{Case, gap_free, is_there, kill, shell, sleeper, swarm, ticking, until},
    proxy::{Moment, Proxy},
    steps::engine_socket,
};
use crate::hive::lives;

fn behind(swarms: &str) -> Option<(Proxy, Case)> {
    if !is_there() {
        return None;
    }
    let proxy = Proxy::new(&engine_socket());
    let case = Case::start(&format!("{}{swarms}", proxy.key()))?;
    Some((proxy, case))
}

fn control_plane(case: &Case) -> Value {
    case.get("/api/v1/health").body["control_plane"].clone()
}

/// Everything says that the engine is not there, and of the agents that it is not known how they are.
#[track_caller]
fn is_unknown(case: &Case, ids: &[&str]) {
    for id in ids {
        let agent = case.agent_until(id, "is unknown", |agent| agent["state"] == "unknown");
        assert_eq!(agent["reasons"][0]["code"], "runtime_unreachable", "{agent:#}");
    }
    let plane = until("the control plane is unreachable", || {
        Some(control_plane(case)).filter(|plane| plane["reachable"] == false)
    });
    assert!(plane["last_error"].as_str().is_some_and(|error| error.contains("engine")), "{plane:#}");
    let health = case.get("/api/v1/health");
    assert_eq!((health.status, &health.body["status"]), (503, &json!("fail")), "{:#}", health.body);
    assert_eq!(case.get("/livez").status, 200);
}

/// All is as it was: same processes, same incarnations, nothing counted.
#[track_caller]
fn is_as_before(case: &Case, before: &[(&str, i32)], container: &str) {
    for (id, pid) in before {
        let agent = case.runs_as(id, 1);
        assert_eq!((&agent["restarts"], &agent["last_exit"]), (&json!(0), &json!(null)), "{agent:#}");
        assert_eq!(case.outside(id), *pid, "{id}");
    }
    assert_eq!(case.container("s"), container);
    until("the control plane is reachable", || (control_plane(case)["reachable"] == true).then_some(()));
}

#[test]
fn an_engine_that_goes_and_comes_leaves_everything_as_it_was() {
    let Some((proxy, case)) = behind(&ticking("30s")) else { return };
    let before = [("s/tick", case.outside("s/tick")), ("s/quiet", case.outside("s/quiet"))];
    let container = case.container("s");
    gap_free(&case, 5);
    for _ in 0..2 {
        proxy.leave();
        is_unknown(&case, &["s/tick", "s/quiet"]);
        assert!(before.iter().all(|(_, pid)| lives(*pid)), "agents go on");
        proxy.come_back();
        is_as_before(&case, &before, &container);
        let so_far = case.lines("s/tick").len();
        gap_free(&case, so_far + 5);
    }
    case.end();
}

#[test]
fn a_cut_of_all_links_is_mended_at_once_and_costs_nothing() {
    let Some((proxy, case)) = behind(&ticking("10s")) else { return };
    let before = [("s/tick", case.outside("s/tick")), ("s/quiet", case.outside("s/quiet"))];
    let container = case.container("s");
    for _ in 0..3 {
        let so_far = case.lines("s/tick").len();
        proxy.cut();
        gap_free(&case, so_far + 10);
    }
    is_as_before(&case, &before, &container);
    case.end();
}

/// No connection breaks, nothing comes: only the clock tells.
#[test]
fn an_engine_that_hangs_for_less_than_a_lease_leaves_everything_as_it_was() {
    let Some((proxy, case)) = behind(&ticking("60s")) else { return };
    let before = [("s/tick", case.outside("s/tick")), ("s/quiet", case.outside("s/quiet"))];
    let container = case.container("s");
    proxy.silence(true);
    until("the control plane is unreachable", || (control_plane(&case)["reachable"] == false).then_some(()));
    assert_eq!(case.get("/livez").status, 200, "a hung engine hangs nobody else");
    assert!(case.get("/api/v1/swarms").status == 200 && case.get("/api/v1/tree").status == 200);
    proxy.silence(false);
    is_as_before(&case, &before, &container);
    let so_far = case.lines("s/tick").len();
    gap_free(&case, so_far + 10);
    case.end();
}

/// Nobody renews: the agents end by themselves, on their side of the link, and are started again when the engine can be spoken to.
#[test]
fn an_engine_that_hangs_past_the_lease_finds_its_agents_gone_and_starts_them_again() {
    let Some((proxy, case)) = behind(&ticking("2s")) else { return };
    let agents = [case.outside("s/tick"), case.outside("s/quiet")];
    let trees = [case.tree("s/tick"), case.tree("s/quiet")].concat();
    assert!(agents.iter().all(|pid| trees.contains(pid)), "{agents:?} {trees:?}");
    proxy.silence(true);
    until("the leases run out", || trees.iter().all(|pid| !lives(*pid)).then_some(()));
    proxy.silence(false);
    for id in ["s/tick", "s/quiet"] {
        let agent = case.runs_as(id, 2);
        assert_eq!(agent["last_exit"]["cause"], "lease_lost", "{agent:#}");
        assert_eq!(agent["restarts_in_window"], 0, "not its own doing: {agent:#}");
    }
    case.end();
}

#[test]
fn what_an_operator_orders_while_the_engine_is_away_is_done_when_it_is_back() {
    let Some((proxy, case)) = behind(&ticking("30s")) else { return };
    let quiet = case.outside("s/quiet");
    case.runs_as("s/tick", 1);
    let tick = case.tree("s/tick");
    proxy.leave();
    is_unknown(&case, &["s/tick", "s/quiet"]);
    let begun = Instant::now();
    let answer = case.post("/api/v1/swarms/s/agents/tick/stop?wait=1s", json!({}));
    assert_eq!(answer.status, 202, "not done, and it does not say so: {answer:?}");
    assert!(begun.elapsed() < Duration::from_secs(10));
    proxy.come_back();
    case.agent_until("s/tick", "is stopped", |agent| agent["state"] == "stopped");
    assert!(tick.iter().all(|pid| !lives(*pid)), "said to be stopped while it lives");
    case.runs_as("s/quiet", 1);
    assert_eq!(case.outside("s/quiet"), quiet);
    case.end();
}

#[test]
fn a_daemon_that_boots_without_an_engine_waits_for_it_and_takes_over() {
    let Some((proxy, mut case)) = behind(&ticking("30s")) else { return };
    let before = [("s/tick", case.outside("s/tick")), ("s/quiet", case.outside("s/quiet"))];
    let container = case.container("s");
    case.kill();
    proxy.leave();
    case.launch();
    until("it serves", || {
        let text = std::fs::read_to_string(case.data().join("endpoints.json")).ok()?;
        let value: Value = serde_json::from_str(&text).ok()?;
        (value["pid"] == case.pid).then_some(())
    });
    proxy.come_back();
    case.find();
    is_as_before(&case, &before, &container);
    case.end();
}

#[test]
fn a_swarm_whose_engine_was_never_there_waits_and_says_for_what() {
    if !is_there() {
        return;
    }
    let proxy = Proxy::new(&engine_socket());
    proxy.leave();
    let other = "[[swarm]]\nname = \"p\"\n[[swarm.agent]]\nname = \"a\"\ncommand = [\"sleep\", \"1000\"]\n";
    let document = format!("{}{}{other}", proxy.key(), swarm("", &[sleeper("a", "")]));
    let Some(case) = Case::start(&document) else { return };
    assert_eq!(case.running("p/a")["incarnation"], 1, "who needs no engine runs");
    let agent = case.agent_until("s/a", "says what it waits for", |agent| {
        agent["state"] == "pending" && agent["reasons"][0]["detail"].as_str().is_some_and(|why| why.contains("engine"))
    });
    assert_eq!(agent["restarts_in_window"], 0, "{agent:#}");
    proxy.come_back();
    let agent = case.runs_as("s/a", 1);
    assert_eq!((&agent["restarts"], &agent["last_exit"]), (&json!(0), &json!(null)), "{agent:#}");
    case.end();
}

#[test]
fn an_agent_that_dies_while_the_engine_is_away_is_found_with_its_record() {
    let agents = [shell("a", "", "trap 'exit 5' USR1; while :; do sleep 0.05; done"), sleeper("b", "")];
    let Some((proxy, case)) = behind(&swarm("", &agents)) else { return };
    let (a, b) = (case.outside("s/a"), case.outside("s/b"));
    proxy.leave();
    kill(a, libc::SIGUSR1);
    until("it ends", || (!lives(a)).then_some(()));
    proxy.come_back();
    let agent = case.runs_as("s/a", 2);
    assert_eq!((&agent["last_exit"]["code"], &agent["restarts"]), (&json!(5), &json!(1)), "{agent:#}");
    assert_eq!(case.outside("s/b"), b);
    case.end();
}

#[test]
fn the_loss_of_the_event_stream_alone_is_noticed_and_mended() {
    let Some((proxy, case)) = behind(&ticking("20s")) else { return };
    let before = [("s/tick", case.outside("s/tick")), ("s/quiet", case.outside("s/quiet"))];
    let container = case.container("s");
    let asked = || proxy.asked().iter().filter(|asked| asked.starts_with("GET /events")).count();
    until("it listens to events", || (asked() == 1).then_some(()));
    let held = proxy.hold(Moment::Asked, "GET /events*");
    proxy.cut_only("GET /events*");
    held.wait();
    is_as_before(&case, &before, &container);
    // Nobody tells it of the container's end but its launchers' silence.
    case.ask(&["rm", "-f", &container]);
    for id in ["s/tick", "s/quiet"] {
        let agent = case.runs_as(id, 2);
        assert_eq!(agent["last_exit"]["cause"], "container_lost", "{agent:#}");
        assert_eq!(agent["restarts_in_window"], 0, "a container's death debits no agent: {agent:#}");
    }
    assert_eq!(asked(), 2, "the one that broke and the one that is held");
    drop(held);
    until("it asks for events again", || (asked() == 3).then_some(()));
    assert_ne!(case.container("s"), container);
    case.end();
}
