//! Ends of other kinds: starts that fail under somebody's eyes, children that are not wanted, significant children.

use hivekeeper_actors::tree::{Refusal, Request};
use hivekeeper_actors::{
    AutoShutdown, ChildSpec, ChildState, EventKind, ExitReason, RestartType, Strategy, SupervisorFlags,
};

use crate::sim::*;

const ALL: [Strategy; 4] = [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne, Strategy::SimpleOneForOne];

fn no() -> ExitReason {
    ExitReason::StartFailed("no".into())
}

#[test]
fn start_child_that_fails_is_discarded() {
    for strategy in ALL {
        let mut sim = Sim::up(SupervisorFlags::unlimited(strategy), &["a"]);
        sim.ask(1, Request::Start(new_child(free("b"))));
        sim.down("b", no());
        assert_eq!(sim.answers(), [(1, Err(Refusal::StartFailed(no())))]);
        assert_eq!(sim.log(), ["launch b 1", "dispose payload"]);
        assert_eq!(sim.all(), [(ChildState::Running, 1)], "and nobody else is touched");
        sim.ask(2, Request::Start(new_child(free("b"))));
        sim.started("b");
        sim.down("b", crash());
        assert!(sim.is_there("b"), "once it was ready it is a child like any other");
    }
}

#[test]
fn start_child_that_takes_too_long_is_discarded() {
    let mut sim = Sim::up(SupervisorFlags::unlimited(Strategy::OneForOne), &["a"]);
    sim.ask(1, Request::Start(new_child(ChildSpec { start_timeout: Some(S), ..free("b") })));
    sim.after(S);
    sim.down("b", ExitReason::Shutdown);
    assert_eq!(sim.answers(), [(1, Err(Refusal::StartFailed(ExitReason::StartTimeout)))]);
    assert!(!sim.is_there("b"));
}

#[test]
fn restart_child_that_fails_stays_stopped() {
    for strategy in [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne] {
        let mut sim = Sim::up(SupervisorFlags::unlimited(strategy), &["a", "b"]);
        sim.ask(1, Request::Terminate(id("a")));
        sim.down("a", ExitReason::Shutdown);
        sim.ask(2, Request::Restart(id("a")));
        sim.down("a", no());
        sim.after(S * 100);
        assert_eq!(sim.answers(), [(1, Ok(())), (2, Err(Refusal::StartFailed(no())))]);
        assert_eq!(sim.all(), [(ChildState::Stopped, 2), (ChildState::Running, 1)]);
        sim.ask(3, Request::Restart(id("a")));
        sim.started("a");
        assert_eq!(sim.answers(), [(3, Ok(()))]);
    }
}

#[test]
fn requests_on_a_child_that_is_being_restarted() {
    let slow = ChildSpec { backoff: hivekeeper_actors::Backoff { initial: S, ..Default::default() }, ..free("a") };
    for starting in [false, true] {
        let mut sim = Sim::running(slow.clone());
        sim.down("a", crash());
        if starting {
            sim.after(S);
        }
        sim.ask(1, Request::Restart(id("a")));
        sim.ask(2, Request::Delete(id("a")));
        sim.ask(3, Request::Start(new_child(free("a"))));
        assert_eq!(
            sim.answers(),
            [(1, Err(Refusal::Restarting)), (2, Err(Refusal::Restarting)), (3, Err(Refusal::AlreadyPresent))]
        );
        sim.ask(4, Request::Terminate(id("a")));
        sim.calm();
        assert_eq!((sim.answers(), sim.state("a")), (vec![(4, Ok(()))], ChildState::Stopped));
    }
}

#[test]
fn requests_on_a_child_that_runs_or_rests() {
    let mut sim = Sim::running(free("a"));
    sim.ask(1, Request::Restart(id("a")));
    sim.ask(2, Request::Delete(id("a")));
    sim.ask(3, Request::Start(new_child(free("a"))));
    sim.ask(4, Request::Restart(id("x")));
    sim.ask(5, Request::Delete(id("x")));
    let found: Vec<_> = sim.answers().into_iter().map(|(_, result)| result.unwrap_err()).collect();
    let expected = [Refusal::Running, Refusal::Running, Refusal::AlreadyStarted, Refusal::NotFound, Refusal::NotFound];
    assert_eq!(found, expected);
    sim.ask(6, Request::Terminate(id("a")));
    sim.down("a", ExitReason::Shutdown);
    sim.ask(7, Request::Start(new_child(free("a"))));
    sim.ask(8, Request::Delete(id("a")));
    assert_eq!(sim.answers(), [(6, Ok(())), (7, Err(Refusal::AlreadyPresent)), (8, Ok(()))]);
    assert!(!sim.is_there("a"));
}

#[test]
fn ignore_keeps_the_child_unless_it_is_temporary() {
    for (restart, kept) in
        [(RestartType::Permanent, true), (RestartType::Transient, true), (RestartType::Temporary, false)]
    {
        let mut sim = Sim::new(vec![ChildSpec { restart, retain: false, ..of_type(restart) }, free("b")]);
        sim.down("a", ExitReason::Ignored);
        sim.started("b");
        assert_eq!(sim.log().last().unwrap(), "ready", "it counts as started");
        assert_eq!(sim.is_there("a"), kept);
        if kept {
            assert_eq!(sim.state("a"), ChildState::Stopped);
        }
        assert_eq!(sim.tree.counts().active, 1);
    }
}

#[test]
fn ignore_is_an_answer_to_start_child() {
    for strategy in ALL {
        let mut sim = Sim::up(SupervisorFlags::unlimited(strategy), &["a"]);
        sim.ask(1, Request::Start(new_child(free("b"))));
        sim.down("b", ExitReason::Ignored);
        assert_eq!(sim.answers(), [(1, Ok(()))]);
        assert_eq!(sim.is_there("b"), strategy != Strategy::SimpleOneForOne);
        assert_eq!(sim.state("a"), ChildState::Running);
    }
}

fn job(name: &str, restart: RestartType) -> ChildSpec {
    ChildSpec { restart, significant: true, ..free(name) }
}

fn auto(strategy: Strategy, auto_shutdown: AutoShutdown) -> SupervisorFlags {
    SupervisorFlags { auto_shutdown, ..SupervisorFlags::unlimited(strategy) }
}

#[test]
fn any_significant_end_ends_the_supervisor() {
    for (restart, reason) in [
        (RestartType::Transient, ExitReason::Normal),
        (RestartType::Transient, ExitReason::Shutdown),
        (RestartType::Temporary, ExitReason::Normal),
        (RestartType::Temporary, crash()),
    ] {
        for strategy in ALL {
            let flags = auto(strategy, AutoShutdown::AnySignificant);
            let mut sim = Sim::up_with(flags, vec![free("a"), job("x", restart), job("y", restart)]);
            sim.down("x", reason.clone());
            assert!(sim.kinds.contains(&("x".into(), EventKind::AutoShutdown)));
            sim.calm();
            assert_eq!(sim.log().last().unwrap(), "finished");
        }
    }
}

#[test]
fn all_significant_waits_for_the_last() {
    let flags = auto(Strategy::OneForOne, AutoShutdown::AllSignificant);
    let jobs = vec![free("a"), job("x", RestartType::Transient), job("y", RestartType::Temporary)];
    let mut sim = Sim::up_with(flags, jobs);
    sim.down("x", ExitReason::Normal);
    sim.calm();
    assert_eq!(sim.state("a"), ChildState::Running);
    sim.down("y", crash());
    sim.calm();
    assert_eq!(sim.log().last().unwrap(), "finished");
}

#[test]
fn all_significant_counts_one_that_is_being_restarted() {
    let flags = auto(Strategy::OneForOne, AutoShutdown::AllSignificant);
    let jobs = vec![job("x", RestartType::Transient), job("y", RestartType::Transient)];
    let mut sim = Sim::up_with(flags, jobs);
    sim.down("x", crash());
    sim.down("y", ExitReason::Normal);
    sim.after(S);
    sim.calm();
    assert_eq!(sim.state("x"), ChildState::Running);
}

#[test]
fn no_other_end_of_a_significant_child_counts() {
    let flags = auto(Strategy::OneForAll, AutoShutdown::AnySignificant);
    let jobs = || vec![free("a"), job("x", RestartType::Transient), job("y", RestartType::Temporary)];
    let mut sim = Sim::up_with(flags.clone(), jobs());
    sim.ask(1, Request::Terminate(id("x")));
    sim.calm();
    sim.ask(2, Request::Terminate(id("y")));
    sim.calm();
    assert_eq!(sim.state("a"), ChildState::Running, "terminate_child");
    let mut sim = Sim::up_with(flags, jobs());
    sim.down("a", crash());
    sim.calm();
    sim.after(S);
    sim.calm();
    assert_eq!((sim.state("a"), sim.state("x")), (ChildState::Running, ChildState::Running), "a sibling's death");
    sim.down("x", crash());
    sim.calm();
    sim.after(S);
    sim.calm();
    assert_eq!(sim.state("a"), ChildState::Running, "an end that is followed by a restart");
}
