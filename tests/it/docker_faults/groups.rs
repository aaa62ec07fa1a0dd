//! Agents that are restarted together, in a container that dies.

use serde_json::json;

use super::harness::{Case, gone, kill, sleeper, swarm};

#[test]
fn a_lost_container_is_one_restart_of_the_whole_group_and_debits_nobody() {
    let rest = "strategy = \"one_for_all\"\nintensity = 0\non_exceeded = \"fail\"\n";
    let document = swarm(rest, &[sleeper("a", ""), sleeper("b", ""), sleeper("c", "")]);
    let Some(case) = Case::start(&document) else { return };
    let ids = ["s/a", "s/b", "s/c"];
    for id in ids {
        case.runs_as(id, 1);
    }
    let (trees, container) = (ids.map(|id| case.tree(id)).concat(), case.container("s"));
    case.ask(&["rm", "-f", &container]);
    for id in ids {
        let agent = case.runs_as(id, 2);
        assert_eq!((&agent["restarts"], &agent["restarts_in_window"]), (&json!(0), &json!(0)), "{agent:#}");
    }
    gone("what lived in it", &trees);
    assert_ne!(case.container("s"), container);
    // An agent's own end is another matter, and the intensity of 0 allows none.
    kill(case.outside("s/b"), libc::SIGKILL);
    for id in ids {
        case.agent_until(id, "has failed with its swarm", |agent| agent["state"] == "failed");
    }
    case.end();
}
