//! The daemon is killed at each step of making a container, launching an agent in it, and writing it down; and the link is cut there.

use std::{path::Path, time::Duration};

use super::{
    harness::{Case, SCRATCH, agent, is_there, share, shell, sleeper, swarm, swarm_of, until},
    proxy::{Moment, Proxy},
};
use crate::hive::lives;

/// The engine that these tests stand in front of.
fn proxy() -> Option<Proxy> {
    is_there().then(|| Proxy::new(&engine_socket()))
}

pub(super) fn engine_socket() -> std::path::PathBuf {
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    Path::new(host.strip_prefix("unix://").unwrap_or("/var/run/docker.sock")).to_owned()
}

/// One container, one process of the agent in it, and its launcher.
#[track_caller]
fn is_single(case: &Case) {
    let (agent, container) = (case.outside("s/a"), case.container("s"));
    let tree = case.tree("s/a");
    assert_eq!(tree, [agent], "an agent runs twice");
    assert_eq!(case.containers(None), [container], "more than the swarm needs");
}

/// Kills the daemon when a conversation comes to this moment for the first time in its life; the next daemon must bring up exactly what is wanted.
fn killed_at(moment: Moment, request: &'static str, network: &str) {
    let Some(proxy) = proxy() else { return };
    let agents = [agent("a", "lease = \"5s\"", &["/probe", "sleep"])];
    let document = format!("{}{}", proxy.key(), swarm_of("s", SCRATCH, &format!("network = \"{network}\""), &agents));
    let Some(mut case) = Case::prepare(&document) else { return };
    let held = proxy.hold(moment, request);
    case.launch();
    held.wait();
    case.kill();
    drop(held);
    case.boot();
    let agent = case.running("s/a");
    assert_eq!(agent["restarts_in_window"], 0, "the daemon's death is no failure of the agent's: {agent:#}");
    is_single(&case);
    // The launch that was cut short may have been on its way still.
    std::thread::sleep(Duration::from_millis(500));
    is_single(&case);
    case.end();
}

#[test]
fn the_daemon_dies_before_the_network_is_made() {
    killed_at(Moment::Asked, "POST /networks/create*", "swarm");
}

#[test]
fn the_daemon_dies_when_the_network_is_made() {
    killed_at(Moment::Answered, "POST /networks/create*", "swarm");
}

#[test]
fn the_daemon_dies_before_the_container_is_made() {
    killed_at(Moment::Asked, "POST /containers/create?name=hivekeeper-s-*", "none");
}

#[test]
fn the_daemon_dies_when_the_container_is_made() {
    killed_at(Moment::Answered, "POST /containers/create?name=hivekeeper-s-*", "none");
}

#[test]
fn the_daemon_dies_before_the_container_is_started() {
    killed_at(Moment::Asked, "POST /containers/*/start", "none");
}

#[test]
fn the_daemon_dies_when_the_container_is_started() {
    killed_at(Moment::Answered, "POST /containers/*/start", "none");
}

#[test]
fn the_daemon_dies_before_the_launcher_is_made() {
    killed_at(Moment::Asked, "POST /containers/*/exec", "none");
}

#[test]
fn the_daemon_dies_when_the_launcher_is_made() {
    killed_at(Moment::Answered, "POST /containers/*/exec", "none");
}

#[test]
fn the_daemon_dies_before_the_launcher_is_started() {
    killed_at(Moment::Asked, "POST /exec/*/start", "none");
}

#[test]
fn the_daemon_dies_when_the_launcher_is_started() {
    killed_at(Moment::Answered, "POST /exec/*/start", "none");
}

#[test]
fn the_daemon_dies_before_the_launcher_has_its_order() {
    killed_at(Moment::Ordered, "POST /exec/*/start", "none");
}

#[test]
fn the_daemon_dies_when_the_agent_has_been_started() {
    killed_at(Moment::Obeyed, "POST /exec/*/start", "none");
}

#[test]
fn the_daemon_dies_when_it_has_just_heard_of_the_start() {
    killed_at(Moment::Told, "POST /exec/*/start", "none");
}

#[test]
fn the_daemon_dies_while_it_ends_and_the_next_one_finishes_it() {
    let Some(proxy) = proxy() else { return };
    let document = format!("{}{}", proxy.key(), swarm("", &[sleeper("a", "lease = \"3s\"")]));
    let Some(mut case) = Case::start(&document) else { return };
    case.running("s/a");
    let held = proxy.hold(Moment::Asked, "DELETE /containers/*");
    case.signal_daemon(libc::SIGTERM);
    held.wait();
    case.kill();
    drop(held);
    case.boot();
    let agent = case.running("s/a");
    assert_eq!((agent["restarts_in_window"].as_u64(), agent["incarnation"].as_u64()), (Some(0), Some(2)), "{agent:#}");
    is_single(&case);
    case.end();
}

/// The next daemon learns it from the launcher's record.
#[test]
fn an_end_of_which_the_daemon_never_heard_is_found_by_the_next_one() {
    let Some(proxy) = proxy() else { return };
    let script = "until [ -e /share/end ]; do sleep 0.05; done; exit 3";
    let agents = [shell("a", "restart = \"temporary\"\nlease = \"20s\"", script), sleeper("b", "lease = \"20s\"")];
    let document = format!("{}{}", proxy.key(), swarm(&share(), &agents));
    let Some(mut case) = Case::start(&document) else { return };
    let (a, b) = (case.outside("s/a"), case.outside("s/b"));
    proxy.silence(true);
    std::fs::write(case.shared("end"), "").unwrap();
    until("it ends", || (!lives(a)).then_some(()));
    case.kill();
    proxy.silence(false);
    case.boot();
    let agent = case.agent_until("s/a", "has failed", |agent| agent["state"] == "failed");
    let exit = &agent["last_exit"];
    assert_eq!((exit["code"].as_i64(), exit["cause"].as_str()), (Some(3), Some("exited")), "{agent:#}");
    assert_eq!(case.outside("s/b"), b);
    case.end();
}

/// A launch whose link breaks at this moment, the daemon alive: the agent comes up all the same, and once.
fn cut_at(moment: Moment, request: &'static str) {
    let Some(proxy) = proxy() else { return };
    let agents = [agent("a", "lease = \"5s\"", &["/probe", "sleep"])];
    let document = format!("{}{}", proxy.key(), swarm_of("s", SCRATCH, "", &agents));
    let Some(mut case) = Case::prepare(&document) else { return };
    let held = proxy.hold(moment, request);
    case.launch();
    held.wait();
    drop(held);
    case.find();
    case.running("s/a");
    is_single(&case);
    std::thread::sleep(Duration::from_millis(500));
    is_single(&case);
    case.end();
}

#[test]
fn the_link_breaks_before_the_container_is_made() {
    cut_at(Moment::Asked, "POST /containers/create?name=hivekeeper-s-*");
}

#[test]
fn the_link_breaks_when_the_container_is_made() {
    cut_at(Moment::Answered, "POST /containers/create?name=hivekeeper-s-*");
}

#[test]
fn the_link_breaks_when_the_container_is_started() {
    cut_at(Moment::Answered, "POST /containers/*/start");
}

#[test]
fn the_link_breaks_when_the_launcher_is_started() {
    cut_at(Moment::Answered, "POST /exec/*/start");
}

#[test]
fn the_link_breaks_before_the_launcher_has_its_order() {
    cut_at(Moment::Ordered, "POST /exec/*/start");
}

#[test]
fn the_link_breaks_when_the_agent_has_been_started() {
    cut_at(Moment::Obeyed, "POST /exec/*/start");
}
