//! Process trees that do what they can to stay.

use std::time::{Duration, Instant};

use serde_json::json;

use super::harness::{Case, gone, kill, share, shell, sleeper, swarm, until};
use crate::hive::lives;

/// What the file says, as many numbers.
fn noted(case: &Case, name: &str, many: usize) -> Vec<String> {
    until("what it notes", || {
        let lines: Vec<String> = case.said(name)?.lines().map(str::to_owned).collect();
        (lines.len() >= many).then_some(lines)
    })
}

#[test]
fn a_grandchild_in_a_session_of_its_own_without_marker_goes_with_its_agent() {
    // Its environment is empty: only where it comes from tells whose it is.
    let script =
        "setsid env -i setsid sleep 1000 </dev/null >/dev/null 2>&1 & echo started >> /share/n; exec sleep 1000";
    let document = swarm(&share(), &[shell("a", "", script), sleeper("b", "")]);
    let Some(case) = Case::start(&document) else { return };
    noted(&case, "n", 1);
    let hidden = |case: &Case| -> Vec<i32> {
        let listed = case.ask(&["top", &case.container("s"), "-eo", "pid,args"]);
        let sleeps = listed.lines().filter(|line| line.contains("sleep 1000"));
        sleeps.filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect()
    };
    let before = until("agent, sibling and grandchild", || Some(hidden(&case)).filter(|found| found.len() == 3));
    let (a, b) = (case.outside("s/a"), case.outside("s/b"));
    kill(a, libc::SIGKILL);
    case.runs_as("s/a", 2);
    let left: Vec<_> = before.iter().filter(|pid| **pid != b && lives(**pid)).collect();
    assert!(left.is_empty(), "the next one came before the last one's tree was gone: {left:?} of {before:?}");
    assert_eq!(case.outside("s/b"), b);
    let now = until("the next one's tree", || Some(hidden(&case)).filter(|found| found.len() == 3));
    case.command("/swarms/s/agents/a/stop");
    gone("the tree", &now.iter().copied().filter(|pid| *pid != b).collect::<Vec<_>>());
    case.end();
}

#[test]
fn a_grandchild_that_holds_stdout_delays_neither_the_end_nor_anybody_else() {
    // It ignores what it can, and writes to the pipe of its dead parent for ever.
    let script = "setsid sh -c 'trap \"\" TERM HUP PIPE; while :; do echo held; sleep 0.05; done' & sleep 0.3; exit 7";
    let keys = "restart = \"temporary\"";
    let Some(case) = Case::start(&swarm("", &[shell("a", keys, script), sleeper("b", "")])) else { return };
    let agent = case.agent_until("s/a", "has ended", |agent| agent["state"] == "failed");
    assert_eq!((&agent["last_exit"]["code"], &agent["last_exit"]["cause"]), (&json!(7), &json!("exited")), "{agent:#}");
    gone("its tree", &case.tree("s/a"));
    assert!(case.tree("s/a").is_empty());
    let b = case.outside("s/b");
    let begun = Instant::now();
    kill(b, libc::SIGKILL);
    case.runs_as("s/b", 2);
    assert!(begun.elapsed() < Duration::from_secs(15), "held up by its sibling's pipe: {:?}", begun.elapsed());
    case.end();
}

#[test]
fn an_agent_that_ignores_sigterm_is_killed_after_its_grace() {
    let script = "trap '' TERM; echo ready >> /share/n; while :; do sleep 0.1; done";
    let Some(case) = Case::start(&swarm(&share(), &[shell("deaf", "", script), sleeper("b", "")])) else { return };
    noted(&case, "n", 1);
    let (tree, b) = (case.tree("s/deaf"), case.outside("s/b"));
    let begun = Instant::now();
    case.command("/swarms/s/agents/deaf/stop");
    assert!(begun.elapsed() >= Duration::from_secs(1), "its grace was cut: {:?}", begun.elapsed());
    assert!(tree.iter().all(|pid| !lives(*pid)), "said to be stopped while it lives");
    let agent = case.agent("s/deaf");
    assert_eq!((&agent["state"], &agent["last_exit"]["signal"]), (&json!("stopped"), &json!(9)), "{agent:#}");
    case.command("/swarms/s/agents/deaf/start");
    case.runs_as("s/deaf", 2);
    noted(&case, "n", 2);
    case.command("/swarms/s/agents/deaf/restart");
    case.runs_as("s/deaf", 3);
    assert_eq!(case.outside("s/b"), b);
    case.end();
}

#[test]
fn agents_end_in_reverse_order_when_the_daemon_is_told_to_end() {
    let writes = |name: &str, wait: &str| {
        format!(
            "trap '{wait}echo {name} >> /share/order; exit 0' TERM; echo x >> /share/n; while :; do sleep 0.05; done"
        )
    };
    let agents = [shell("a", "", &writes("a", "")), shell("b", "", &writes("b", "sleep 0.3; "))];
    let Some(mut case) = Case::start(&swarm(&share(), &agents)) else { return };
    noted(&case, "n", 2);
    assert_eq!(case.terminate().code(), Some(0), "{}", case.log());
    assert_eq!(case.said("order").as_deref(), Some("b\na"));
    case.is_empty_within(Duration::from_secs(20));
    case.boot();
    for id in ["s/a", "s/b"] {
        assert_eq!(case.runs_as(id, 2)["restarts"], 0, "a shutdown is no failure");
    }
    case.end();
}
