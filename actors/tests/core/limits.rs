//! Limits of two levels, what follows when they are reached, and shared back-off.

use std::time::Duration;

use hivekeeper_actors::tree::Request;
use hivekeeper_actors::{
    Backoff, ChildSpec, ChildState, EventKind, ExitReason, Limit, LimitFollows, Meltdown, OnExceeded, RestartType,
    Strategy, SupervisorFlags,
};

use crate::sim::*;

fn limited(strategy: Strategy, max_restarts: u32, meltdown: Meltdown) -> SupervisorFlags {
    SupervisorFlags { intensity: at_most(max_restarts), meltdown, ..SupervisorFlags::new(strategy) }
}

fn again(sim: &mut Sim, name: &str) {
    sim.down(name, crash());
    sim.calm();
    sim.after(Duration::ZERO);
    sim.calm();
}

fn limits(sim: &mut Sim) -> Vec<(String, Limit, LimitFollows)> {
    sim.kinds
        .drain(..)
        .filter_map(|(name, kind)| match kind {
            EventKind::LimitReached { limit, follows, .. } => Some((name, limit, follows)),
            _ => None,
        })
        .collect()
}

#[test]
fn one_for_one_escalation() {
    let mut sim = Sim::up(limited(Strategy::OneForOne, 2, Meltdown::Escalate), &["a", "b", "c"]);
    again(&mut sim, "a");
    again(&mut sim, "b");
    assert_eq!(sim.node("c").restarts_in_window, 2, "of all together");
    sim.log();
    sim.down("a", crash());
    sim.down("c", ExitReason::Shutdown);
    sim.down("b", ExitReason::Shutdown);
    let end = "finished: gave up after child `a`: panic at here: boom";
    assert_eq!(sim.log(), ["close a", "stop c", "close c", "stop b", "close b", end]);
    assert_eq!(limits(&mut sim), [("a".into(), Limit::Supervisor, LimitFollows::GivesUp)]);
    sim.ask(1, Request::StartAll);
    sim.after(S * 100);
    assert!(sim.log().is_empty());
}

#[test]
fn group_escalation() {
    for strategy in [Strategy::OneForAll, Strategy::RestForOne, Strategy::SimpleOneForOne] {
        let mut sim = Sim::up(limited(strategy, 0, Meltdown::Escalate), &["a", "b"]);
        sim.down("b", crash());
        sim.calm();
        assert!(sim.log().last().unwrap().starts_with("finished: gave up after child `b`"));
    }
}

#[test]
fn the_own_limit_is_asked_first_and_both_must_admit() {
    let own = |name, max| ChildSpec { intensity: at_most(max), ..free(name) };
    let flags = limited(Strategy::OneForOne, 2, Meltdown::Escalate);
    let mut sim = Sim::up_with(flags, vec![own("a", 1), own("b", 9), free("c")]);
    again(&mut sim, "a");
    again(&mut sim, "a");
    assert_eq!((sim.state("a"), sim.state("b")), (ChildState::Failed, ChildState::Running));
    assert_eq!(sim.node("c").restarts_in_window, 1, "what the child may not is not debited to the supervisor");
    again(&mut sim, "b");
    again(&mut sim, "b");
    assert_eq!(sim.node("b").restarts_in_window, 1, "nor the other way round");
    let expected = [("a", Limit::Child, LimitFollows::ChildFails), ("b", Limit::Supervisor, LimitFollows::GivesUp)];
    assert_eq!(limits(&mut sim), expected.map(|(name, limit, follows)| (name.to_owned(), limit, follows)));
}

#[test]
fn contained_meltdown_fails_everyone_and_lives_on() {
    for strategy in [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne] {
        let mut sim = Sim::up(limited(strategy, 1, Meltdown::Contain(OnExceeded::Fail)), &["a", "b", "c"]);
        again(&mut sim, "c");
        sim.log();
        sim.kinds.clear();
        sim.down("b", crash());
        sim.down("c", ExitReason::Shutdown);
        sim.down("a", ExitReason::Shutdown);
        assert_eq!(sim.log(), ["close b", "stop c", "close c", "stop a", "close a"]);
        assert!(sim.all().iter().all(|(state, _)| *state == ChildState::Failed));
        let failed =
            sim.kinds.iter().filter(|(_, kind)| *kind == EventKind::Failed { reason: crash(), retry_in: None });
        assert_eq!(failed.count(), 3, "each says so, with the reason of the one");
        assert_eq!(limits(&mut sim), [("b".into(), Limit::Supervisor, LimitFollows::AllFail)]);
        sim.after(S * 30);
        assert!(sim.log().is_empty());
        assert_eq!(sim.node("a").restarts_in_window, 1, "it still shows what was too many");
        sim.ask(1, Request::StartExisting(id("b")));
        sim.calm();
        again(&mut sim, "b");
        assert_eq!(sim.state("b"), ChildState::Running, "the window is fresh");
    }
}

#[test]
fn contained_meltdown_starts_again_in_order() {
    for strategy in [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne] {
        let meltdown = Meltdown::Contain(OnExceeded::RetryAfter(S * 20));
        let mut sim = Sim::up(limited(strategy, 0, meltdown), &["a", "b", "c"]);
        sim.down("b", crash());
        sim.calm();
        assert_eq!(sim.node("a").retry_in, Some(S * 20));
        sim.log();
        sim.after(S * 20);
        assert_eq!(sim.log(), ["launch a 2 by itself"], "each in its turn");
        sim.calm();
        assert_eq!(sim.log(), ["launch b 2 by itself", "launch c 2 by itself"]);
    }
}

#[test]
fn a_group_fails_together_by_the_limit_of_one() {
    let own = |name| ChildSpec { intensity: at_most(0), on_exceeded: OnExceeded::RetryAfter(S * 20), ..free(name) };
    let mut sim = Sim::up_with(SupervisorFlags::unlimited(Strategy::RestForOne), vec![own("a"), own("b"), free("c")]);
    sim.down("b", crash());
    assert_eq!(sim.log(), ["close b", "stop c"]);
    sim.down("c", ExitReason::Shutdown);
    let states: Vec<ChildState> = sim.all().into_iter().map(|(state, _)| state).collect();
    assert_eq!(states, [ChildState::Running, ChildState::Failed, ChildState::Failed]);
    assert_eq!(limits(&mut sim), [("b".into(), Limit::Child, LimitFollows::GroupFails)]);
    assert_eq!(sim.node("c").retry_in, Some(S * 20));
    sim.log();
    sim.after(S * 20);
    sim.calm();
    assert_eq!(sim.log(), ["launch b 2 by itself", "launch c 2 by itself"]);
}

#[test]
fn a_retry_that_comes_before_the_stops_are_done_keeps_the_order() {
    let own = ChildSpec { intensity: at_most(0), on_exceeded: OnExceeded::RetryAfter(S), ..free("b") };
    let mut sim = Sim::up_with(SupervisorFlags::unlimited(Strategy::OneForAll), vec![free("a"), own, free("c")]);
    sim.down("b", crash());
    sim.after(S);
    sim.down("c", ExitReason::Shutdown);
    sim.after(S);
    assert_eq!(sim.log(), ["close b", "stop c", "stop a"]);
    sim.down("a", ExitReason::Shutdown);
    sim.calm();
    assert_eq!(sim.log(), ["launch a 2 by itself", "launch b 2 by itself", "launch c 2 by itself"]);
}

#[test]
fn a_failed_group_has_a_temporary_bystander_stopped() {
    let job = ChildSpec { restart: RestartType::Temporary, retain: true, ..free("job") };
    let own = ChildSpec { intensity: at_most(0), ..free("a") };
    let mut sim = Sim::up_with(SupervisorFlags::unlimited(Strategy::OneForAll), vec![own, job]);
    sim.down("a", crash());
    sim.calm();
    assert_eq!((sim.state("a"), sim.state("job")), (ChildState::Failed, ChildState::Stopped));
}

#[test]
fn start_all_and_restart_all_clear_every_window() {
    for request in [|| Request::StartAll, || Request::RestartAll] {
        let mut sim = Sim::up(limited(Strategy::OneForOne, 1, Meltdown::Escalate), &["a"]);
        for token in 0..4 {
            again(&mut sim, "a");
            sim.ask(token, request());
            sim.calm();
            assert_eq!(sim.node("a").restarts_in_window, 0);
        }
        assert_eq!(sim.state("a"), ChildState::Running);
    }
}

#[test]
fn the_supervisors_window_slides_and_is_seeded() {
    let flags = SupervisorFlags { recent: vec![S * 59], ..limited(Strategy::OneForOne, 1, Meltdown::Escalate) };
    let mut sim = Sim::up(flags.clone(), &["a"]);
    sim.after(S * 2);
    again(&mut sim, "a");
    assert_eq!(sim.state("a"), ChildState::Running, "the seed has left the window");
    sim.after(S * 61);
    again(&mut sim, "a");
    assert_eq!(sim.state("a"), ChildState::Running);
    let mut sim = Sim::up(flags, &["a"]);
    sim.down("a", crash());
    assert_eq!(sim.state("a"), ChildState::Failed, "it has not");
}

#[test]
fn a_backoff_group_backs_off_as_one() {
    let backoff = Backoff { initial: S * 4, then: S * 8, jitter: 0.5, reset_after: S * 1000, ..Backoff::default() };
    let member = |name| ChildSpec { backoff, backoff_group: Some("provider".into()), ..free(name) };
    let alone = ChildSpec { backoff, ..free("d") };
    let flags = SupervisorFlags::unlimited(Strategy::OneForOne);
    let mut sim = Sim::up_with(flags, vec![member("a"), member("b"), member("c"), alone]);
    sim.down("a", crash());
    assert_eq!(sim.node("a").retry_in, Some(S * 4));
    sim.after(S * 2);
    sim.kinds.clear();
    sim.down("b", crash());
    assert_eq!(sim.kinds.last().unwrap().1, EventKind::BackingOff { attempt: 1, delay: S * 5 / 2 }, "the same one");
    sim.down("d", crash());
    assert_eq!(sim.node("d").retry_in, Some(S * 4), "not a member");
    sim.after(S * 5);
    sim.calm();
    sim.down("c", crash());
    assert_eq!(sim.node("c").retry_in, Some(S * 8), "it goes on where the others left off");
    sim.ask(1, Request::ForceRestart(id("c")));
    sim.calm();
    sim.down("a", crash());
    assert_eq!(sim.node("a").retry_in, Some(S * 4), "an operator's restart forgives the group");
}

#[test]
fn a_backoff_group_starts_over_after_a_calm() {
    let backoff = Backoff { initial: S, then: S * 8, jitter: 0.0, reset_after: S * 100, ..Backoff::default() };
    let member = |name| ChildSpec { backoff, backoff_group: Some("provider".into()), ..free(name) };
    let mut sim = Sim::up_with(SupervisorFlags::unlimited(Strategy::OneForOne), vec![member("a"), member("b")]);
    sim.after(S * 99);
    sim.down("a", crash());
    sim.after(S);
    sim.calm();
    sim.after(S * 50);
    sim.down("b", crash());
    assert_eq!(sim.node("b").retry_in, Some(S * 8), "b ran for long, but a failed of late");
    sim.after(S * 8);
    sim.calm();
    sim.after(S * 100);
    sim.down("b", crash());
    assert_eq!(sim.node("b").retry_in, Some(S));
}
