//! A daemon, a launcher or an agent dies, or is kept from doing anything.

use std::time::Duration;

use serde_json::json;

use super::harness::{Case, cmdline, gap_free, kill, share, shell, sleeper, swarm, ticking, until};
use crate::hive::lives;

#[test]
fn a_killed_daemon_is_replaced_and_agents_run_on() {
    let Some(mut case) = Case::start(&ticking("20s")) else { return };
    let (tick, quiet, container) = (case.outside("s/tick"), case.outside("s/quiet"), case.container("s"));
    gap_free(&case, 10);
    // But for the sleeps that the agent itself makes and waits for.
    let grandchild = until("the grandchild", || {
        case.tree("s/tick").into_iter().find(|pid| cmdline(*pid).trim_end() == "sleep 1000")
    });
    let lasting = [tick, grandchild, quiet];
    case.kill();
    std::thread::sleep(Duration::from_millis(500));
    assert!(lasting.iter().all(|pid| lives(*pid)), "agents go on without a daemon: {lasting:?}");
    case.boot();
    for id in ["s/tick", "s/quiet"] {
        let agent = case.runs_as(id, 1);
        assert_eq!((&agent["restarts"], &agent["last_exit"]), (&json!(0), &json!(null)), "{agent:#}");
    }
    assert_eq!((case.outside("s/tick"), case.outside("s/quiet")), (tick, quiet));
    assert!(lives(grandchild));
    assert_eq!(case.container("s"), container);
    let so_far = case.lines("s/tick").len();
    gap_free(&case, so_far + 10);
    case.end();
}

#[test]
fn a_daemon_that_hands_over_leaves_the_agents_to_the_next_one() {
    let Some(mut case) = Case::start(&ticking("20s")) else { return };
    let (tick, container) = (case.outside("s/tick"), case.container("s"));
    case.signal_daemon(libc::SIGUSR2);
    assert_eq!(case.wait().code(), Some(0));
    assert!(lives(tick));
    case.boot();
    case.runs_as("s/tick", 1);
    assert_eq!((case.outside("s/tick"), case.container("s")), (tick, container));
    case.end();
}

#[test]
fn a_killed_agent_is_restarted_alone_in_the_same_container() {
    let Some(case) = Case::start(&ticking("20s")) else { return };
    let (tick, quiet, container) = (case.outside("s/tick"), case.outside("s/quiet"), case.container("s"));
    let tree = case.tree("s/tick");
    assert!(tree.len() >= 2, "the agent and its grandchild: {tree:?}");
    kill(tick, libc::SIGKILL);
    let agent = case.runs_as("s/tick", 2);
    assert_eq!((&agent["last_exit"]["cause"], &agent["last_exit"]["signal"]), (&json!("signalled"), &json!(9)));
    assert_eq!((&agent["restarts"], &agent["restarts_in_window"]), (&json!(1), &json!(1)), "{agent:#}");
    assert!(tree.iter().all(|pid| !lives(*pid)), "the next one came before the last one's tree was gone: {tree:?}");
    assert_eq!((case.outside("s/quiet"), case.container("s")), (quiet, container));
    case.end();
}

#[test]
fn a_killed_launcher_takes_its_whole_tree_along_and_is_replaced() {
    let Some(case) = Case::start(&ticking("20s")) else { return };
    let (quiet, container) = (case.outside("s/quiet"), case.container("s"));
    let (tree, launcher) = (case.tree("s/tick"), case.launcher("s/tick"));
    assert!(tree.len() >= 2 && launcher != case.launcher("s/quiet"), "{tree:?} {launcher}");
    kill(launcher, libc::SIGKILL);
    let agent = case.runs_as("s/tick", 2);
    assert_eq!(agent["last_exit"]["cause"], "launcher_lost", "{agent:#}");
    assert_eq!((&agent["last_exit"]["code"], &agent["last_exit"]["signal"]), (&json!(null), &json!(null)));
    let left: Vec<_> = tree.iter().filter(|pid| lives(**pid)).collect();
    assert!(left.is_empty(), "the next one came before the last one was gone: {left:?} of {tree:?}");
    assert_eq!((case.outside("s/quiet"), case.container("s")), (quiet, container));
    case.end();
}

#[test]
fn a_container_that_is_frozen_while_there_is_no_daemon_is_thawed_and_taken_over() {
    let Some(mut case) = Case::start(&ticking("3s")) else { return };
    let (tick, container) = (case.outside("s/tick"), case.container("s"));
    case.kill();
    case.ask(&["pause", &container]);
    // Longer than the lease, which stands still with everything else; the launcher grants one full lease when it wakes.
    std::thread::sleep(Duration::from_secs(5));
    case.boot();
    case.runs_as("s/tick", 1);
    assert_eq!((case.outside("s/tick"), case.container("s")), (tick, container));
    let so_far = case.lines("s/tick").len();
    gap_free(&case, so_far + 10);
    case.end();
}

#[test]
fn an_agent_that_its_operator_froze_is_frozen_for_the_next_daemon_too() {
    let Some(mut case) = Case::start(&ticking("4s")) else { return };
    let tick = case.outside("s/tick");
    case.command("/swarms/s/pause");
    case.agent_until("s/tick", "is paused", |agent| agent["state"] == "paused");
    case.kill();
    std::thread::sleep(Duration::from_secs(1));
    case.boot();
    let agent = case.agent_until("s/tick", "is paused", |agent| agent["state"] == "paused");
    assert_eq!((&agent["incarnation"], &agent["restarts"]), (&json!(1), &json!(0)), "{agent:#}");
    assert!(lives(tick));
    case.command("/swarms/s/resume");
    case.runs_as("s/tick", 1);
    let so_far = case.lines("s/tick").len();
    gap_free(&case, so_far + 10);
    case.end();
}

#[test]
fn agents_that_fork_to_the_limit_can_still_be_killed_and_restarted() {
    let limits = "limits = { memory = \"256MiB\", cpus = 1.0, pids = 40 }";
    let bomb = "until [ -e /share/fork ]; do sleep 0.1; done; f() { sleep 1000 & f; }; f 2>/dev/null; while :; do setsid sleep 1000 2>/dev/null & done";
    let document = swarm(&format!("{limits}\n{}", share()), &[shell("bomb", "", bomb), sleeper("quiet", "")]);
    let Some(case) = Case::start(&document) else { return };
    let quiet = case.outside("s/quiet");
    case.runs_as("s/bomb", 1);
    std::fs::write(case.shared("fork"), "").unwrap();
    let tree = until("the limit is reached", || {
        let tree = case.tree("s/bomb");
        (tree.len() > 25).then_some(tree)
    });
    std::fs::remove_file(case.shared("fork")).unwrap();
    case.command("/swarms/s/agents/bomb/restart");
    case.agent_until("s/bomb", "runs again", |agent| {
        agent["state"] == "running" && agent["incarnation"].as_u64() > Some(1)
    });
    let left: Vec<_> = tree.iter().filter(|pid| lives(**pid)).collect();
    assert!(left.is_empty(), "left of the first one: {left:?}");
    assert_eq!(case.outside("s/quiet"), quiet);
    case.end();
}
