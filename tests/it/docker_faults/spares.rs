//! The launcher that is exec'd ahead in each container, seen from the engine's side.

use super::harness::{Case, DEBIAN, gone, kill, sleeper, swarm_of, until};
use crate::{docker::harness::spares, hive::lives};

/// Far longer than any of these tests: nothing here ends with a lease.
const LEASE: &str = "lease = \"120s\"";

fn two() -> String {
    swarm_of("s", DEBIAN, "", &[sleeper("a", LEASE), sleeper("b", LEASE)])
        + &swarm_of("t", DEBIAN, "", &[sleeper("a", LEASE)])
}

fn there(case: &Case, container: &str) -> Vec<i32> {
    spares(&case.ask(&["top", container, "-eo", "pid,ppid,args"]))
}

/// The containers of both, when all agents run.
#[track_caller]
fn both(case: &Case) -> (String, String) {
    for id in ["s/a", "s/b", "t/a"] {
        case.runs_as(id, 1);
    }
    (case.container("s"), case.container("t"))
}

/// The one spare of a container, other than these.
#[track_caller]
fn spare(case: &Case, container: &str, not: &[i32]) -> i32 {
    until("one spare launcher", || match there(case, container)[..] {
        [spare] if !not.contains(&spare) => Some(spare),
        _ => None,
    })
}

#[test]
fn each_container_has_one_and_the_next_launch_uses_it() {
    let Some(case) = Case::start(&two()) else { return };
    let (s, t) = both(&case);
    let (first, other) = (spare(&case, &s, &[]), spare(&case, &t, &[]));
    case.command("/swarms/s/agents/a/restart");
    case.runs_as("s/a", 2);
    assert_eq!(case.launcher("s/a"), first, "an order's restart did not use it");
    let second = spare(&case, &s, &[first]);
    kill(case.outside("s/b"), libc::SIGKILL);
    case.runs_as("s/b", 2);
    assert_eq!(case.launcher("s/b"), second, "a failure's restart did not use it");
    spare(&case, &s, &[first, second]);
    assert_eq!(there(&case, &t), [other], "it is of its own container");
    case.end();
}

#[test]
fn one_that_dies_is_replaced_and_nobody_else_is_touched() {
    let Some(case) = Case::start(&two()) else { return };
    let (s, _) = both(&case);
    let before = [case.outside("s/a"), case.outside("s/b")];
    let first = spare(&case, &s, &[]);
    kill(first, libc::SIGKILL);
    spare(&case, &s, &[first]);
    for id in ["s/a", "s/b"] {
        assert_eq!(case.runs_as(id, 1)["restarts"], 0);
    }
    assert_eq!([case.outside("s/a"), case.outside("s/b")], before);
    case.end();
}

#[test]
fn a_stopped_swarm_keeps_none_and_has_one_again_when_it_runs() {
    let Some(case) = Case::start(&two()) else { return };
    let (s, t) = both(&case);
    let (first, other) = (spare(&case, &s, &[]), spare(&case, &t, &[]));
    case.command("/swarms/s/stop");
    until("its spare ends", || (!lives(first) && there(&case, &s).is_empty()).then_some(()));
    assert_eq!(there(&case, &t), [other], "who runs keeps it");
    assert_eq!(case.container("s"), s, "it went alone");
    case.command("/swarms/s/start");
    case.runs_as("s/a", 2);
    spare(&case, &case.container("s"), &[first]);
    case.end();
}

#[test]
fn it_ends_with_its_daemon_while_agents_live_on() {
    for ends in [libc::SIGKILL, libc::SIGUSR2] {
        let Some(mut case) = Case::start(&two()) else { return };
        let (s, t) = both(&case);
        let spares = [spare(&case, &s, &[]), spare(&case, &t, &[])];
        let agents = ["s/a", "s/b", "t/a"].map(|id| case.outside(id));
        case.signal_daemon(ends);
        case.wait();
        gone("the spares", &spares);
        assert!(agents.iter().all(|pid| lives(*pid)), "agents are led by launchers of their own");
        assert!(there(&case, &s).is_empty() && there(&case, &t).is_empty());
        case.boot();
        for container in [&s, &t] {
            spare(&case, container, &spares);
        }
        assert_eq!(["s/a", "s/b", "t/a"].map(|id| case.outside(id)), agents);
        case.end();
    }
}
