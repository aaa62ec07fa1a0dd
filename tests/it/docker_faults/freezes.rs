//! A paused swarm is frozen by the engine, too, and whoever has to go in thaws it for as long as that takes.

use std::time::Duration;

use serde_json::json;

use super::{
    harness::{Case, gap_free, is_there, share, shell, swarm, ticking, until},
    proxy::Proxy,
    steps::engine_socket,
};
use crate::hive::lives;

const AGENTS: [&str; 2] = ["s/tick", "s/quiet"];

fn is_frozen(case: &Case, container: &str) -> bool {
    match case.ask(&["inspect", "-f", "{{.State.Paused}}", container]).as_str() {
        "true" => true,
        "false" => false,
        other => panic!("{other}"),
    }
}

#[track_caller]
fn freezes(case: &Case, container: &str) {
    until("the engine freezes it", || is_frozen(case, container).then_some(()));
}

/// Pauses the swarm and waits until the engine has frozen its container, which is handed back.
#[track_caller]
fn paused(case: &Case) -> String {
    for id in AGENTS {
        case.running(id);
    }
    let container = case.container("s");
    assert!(!is_frozen(case, &container));
    case.command("/swarms/s/pause");
    for id in AGENTS {
        case.agent_until(id, "is paused", |agent| agent["state"] == "paused");
    }
    freezes(case, &container);
    container
}

/// Resumes it: same agents, same container, no tick lost.
#[track_caller]
fn resumes(case: &Case, container: &str, agents: &[i32]) {
    let so_far = case.lines("s/tick").len();
    case.command("/swarms/s/resume");
    for (id, pid) in AGENTS.iter().zip(agents) {
        let agent = case.runs_as(id, 1);
        assert_eq!((&agent["restarts"], &agent["last_exit"]), (&json!(0), &json!(null)), "{agent:#}");
        assert_eq!(case.outside(id), *pid);
    }
    assert_eq!(case.container("s"), container);
    gap_free(case, so_far + 10);
    assert!(!is_frozen(case, container));
}

#[test]
fn a_paused_swarm_is_frozen_until_it_is_resumed() {
    // A lease that runs out meanwhile stands still with everything else.
    let Some(case) = Case::start(&ticking("3s")) else { return };
    let agents = AGENTS.map(|id| case.outside(id));
    for _ in 0..2 {
        let container = paused(&case);
        std::thread::sleep(Duration::from_secs(5));
        assert!(is_frozen(&case, &container), "somebody thawed it");
        for id in AGENTS {
            assert_eq!(case.agent(id)["state"], "paused");
        }
        resumes(&case, &container, &agents);
    }
    case.end();
}

#[test]
fn the_daemon_after_one_that_was_killed_goes_in_and_freezes_it_again() {
    if !is_there() {
        return;
    }
    let proxy = Proxy::new(&engine_socket());
    let Some(mut case) = Case::start(&format!("{}{}", proxy.key(), ticking("20s"))) else { return };
    let agents = AGENTS.map(|id| case.outside(id));
    let container = paused(&case);
    case.kill();
    assert!(is_frozen(&case, &container), "no daemon's end thaws anything");
    let before = proxy.asked().len();
    case.boot();
    for id in AGENTS {
        let agent = case.agent_until(id, "is paused", |agent| agent["state"] == "paused");
        assert_eq!((&agent["incarnation"], &agent["restarts"]), (&json!(1), &json!(0)), "{agent:#}");
    }
    let (pause, unpause) =
        (format!("POST /containers/{container}/pause"), format!("POST /containers/{container}/unpause"));
    until("it goes in and freezes it again", || {
        let asked = proxy.asked().split_off(before);
        let last = |what: &str| asked.iter().rposition(|asked| asked == what);
        (last(&unpause)? < last(&pause)?).then_some(())
    });
    freezes(&case, &container);
    resumes(&case, &container, &agents);
    case.end();
}

#[test]
fn a_frozen_swarm_can_be_stopped_and_started() {
    let Some(case) = Case::start(&ticking("20s")) else { return };
    let agents = AGENTS.map(|id| case.outside(id));
    let container = paused(&case);
    case.command("/swarms/s/stop");
    for id in AGENTS {
        let agent = case.agent(id);
        assert_eq!(
            (&agent["state"], &agent["last_exit"]["cause"]),
            (&json!("stopped"), &json!("stopped")),
            "{agent:#}"
        );
    }
    assert!(agents.iter().all(|pid| !lives(*pid)), "said to be stopped while it lives");
    assert!(!is_frozen(&case, &container));
    case.command("/swarms/s/start");
    for id in AGENTS {
        case.runs_as(id, 2);
    }
    case.end();
}

/// Lets `once` fail: it comes up again a while later.
const FAILS_ONCE: &str =
    "echo x >> /share/starts; [ -e /share/failed ] || { echo x > /share/failed; exit 3; }; exec sleep 1000";

#[test]
fn an_agent_that_comes_up_in_a_frozen_container_ends_up_frozen_and_wakes_nobody() {
    let tick = "n=0; while :; do n=$((n+1)); echo tick $n; sleep 0.05; done";
    let keys = format!("backoff = {{ initial = \"4s\" }}\n{}", share());
    let document = swarm(&keys, &[shell("tick", "", tick), shell("once", "", FAILS_ONCE)]);
    let Some(case) = Case::start(&document) else { return };
    let tick = case.outside("s/tick");
    case.agent_until("s/once", "has failed once", |agent| agent["last_exit"]["code"] == 3);
    let container = case.container("s");
    case.command("/swarms/s/pause");
    freezes(&case, &container);
    assert_eq!(case.said("starts").as_deref(), Some("x"), "the pause came too late for this test");
    let ticks = case.lines("s/tick").len();
    let once = case.agent_until("s/once", "is paused as its second self", |agent| {
        agent["state"] == "paused" && agent["incarnation"] == 2
    });
    assert_eq!(once["desired"], "paused", "{once:#}");
    freezes(&case, &container);
    assert_eq!(case.lines("s/tick").len(), ticks, "it ran a moment");
    case.command("/swarms/s/resume");
    case.runs_as("s/once", 2);
    assert_eq!((case.outside("s/tick"), case.container("s")), (tick, container));
    gap_free(&case, ticks + 10);
    case.end();
}

/// Who starts one agent of a paused swarm wants it to run; the others rest on, and when it has ended the engine freezes them again.
#[test]
fn an_agent_that_is_started_alone_in_a_paused_swarm_runs_and_wakes_nobody() {
    let Some(case) = Case::start(&ticking("20s")) else { return };
    let tick = case.outside("s/tick");
    case.command("/swarms/s/agents/quiet/stop");
    let container = case.container("s");
    case.command("/swarms/s/pause");
    freezes(&case, &container);
    let ticks = case.lines("s/tick").len();
    case.command("/swarms/s/agents/quiet/start");
    case.runs_as("s/quiet", 2);
    assert!(!is_frozen(&case, &container));
    assert_eq!(case.agent("s/tick")["state"], "paused");
    case.command("/swarms/s/agents/quiet/stop");
    freezes(&case, &container);
    assert_eq!(case.lines("s/tick").len(), ticks, "it ran a moment");
    case.command("/swarms/s/resume");
    assert_eq!((case.outside("s/tick"), case.container("s")), (tick, container));
    gap_free(&case, ticks + 10);
    case.end();
}
