//! one_for_all and rest_for_one: who is stopped, who comes back, in which order, and at whose cost.

use std::time::Duration;

use hivekeeper_actors::tree::{Input, Refusal, Request};
use hivekeeper_actors::{
    Backoff, ChildSpec, ChildState, EventKind, ExitReason, RestartType, Strategy, SupervisorFlags,
};

use crate::sim::*;

fn all() -> SupervisorFlags {
    SupervisorFlags::unlimited(Strategy::OneForAll)
}

fn rest() -> SupervisorFlags {
    SupervisorFlags::unlimited(Strategy::RestForOne)
}

fn delayed(name: &str) -> ChildSpec {
    ChildSpec { backoff: Backoff { initial: S * 5, jitter: 0.0, ..Backoff::default() }, ..free(name) }
}

const DOWN: ExitReason = ExitReason::Shutdown;

#[test]
fn one_for_all() {
    let mut sim = Sim::up(all(), &["a", "b", "c"]);
    sim.down("b", crash());
    sim.down("c", DOWN);
    assert_eq!(sim.log(), ["stop c", "stop a"], "in reverse, one after the other");
    sim.after(Duration::ZERO);
    assert!(sim.log().is_empty(), "nothing starts while something stops");
    sim.down("a", DOWN);
    sim.started("a");
    sim.started("b");
    sim.started("c");
    assert_eq!(sim.log(), ["launch a 2 by itself", "launch b 2 by itself", "launch c 2 by itself"]);
}

#[test]
fn rest_for_one() {
    let mut sim = Sim::up(rest(), &["a", "b", "c", "d"]);
    sim.down("b", crash());
    sim.down("d", DOWN);
    sim.down("c", DOWN);
    sim.after(Duration::ZERO);
    sim.calm();
    assert_eq!(sim.log(), ["stop d", "stop c", "launch b 2 by itself", "launch c 2 by itself", "launch d 2 by itself"]);
    assert_eq!((sim.state("a"), sim.node("a").incarnation), (ChildState::Running, 1));
}

#[test]
fn the_events_tell_the_scope() {
    let mut sim = Sim::up(rest(), &["a", "b", "c"]);
    sim.down("b", crash());
    sim.down("c", DOWN);
    let kinds: Vec<(String, EventKind)> = sim.kinds.drain(..).collect();
    let named = |name: &str, kind| (name.to_owned(), kind);
    assert_eq!(
        kinds,
        [
            named("b", EventKind::Exited { reason: crash() }),
            named("b", EventKind::BackingOff { attempt: 1, delay: Duration::ZERO }),
            named("b", EventKind::GroupRestart { siblings: [id("c")].into() }),
            named("c", EventKind::Stopping),
            named("c", EventKind::Exited { reason: DOWN }),
            named("c", EventKind::Pending),
        ]
    );
}

#[test]
fn the_backoff_passes_before_anyone_starts() {
    let mut sim = Sim::up_with(all(), vec![free("a"), delayed("b")]);
    sim.down("b", crash());
    sim.down("a", DOWN);
    assert_eq!((sim.state("a"), sim.state("b")), (ChildState::Pending, ChildState::BackingOff));
    let restarting = |sim: &Sim, name| sim.tree.is_restarting(sim.key_node(name).0);
    assert!(restarting(&sim, "a") && restarting(&sim, "b"));
    assert_eq!(sim.tree.counts().active, 0);
    sim.after(S * 4);
    assert_eq!(sim.log(), ["stop a"]);
    sim.after(S);
    assert_eq!(sim.log(), ["launch a 2 by itself"]);
    assert!(restarting(&sim, "a"), "not before it is ready");
    sim.calm();
    assert_eq!(sim.log(), ["launch b 2 by itself"]);
    assert!(!restarting(&sim, "a"));
    assert_eq!(sim.tree.counts().active, 2);
}

#[test]
fn bystanders_are_debited_nothing() {
    let limited = |name| ChildSpec { intensity: at_most(3), ..free(name) };
    let flags = SupervisorFlags { intensity: at_most(3), ..all() };
    let mut sim = Sim::up_with(flags, vec![limited("a"), limited("b"), free("c")]);
    sim.down("b", crash());
    sim.calm();
    sim.after(Duration::ZERO);
    sim.calm();
    let counts = |name| (sim.node(name).restarts, sim.node(name).restarts_in_window);
    assert_eq!((counts("a"), counts("b")), ((1, 0), (1, 1)), "each has a window of its own");
    assert_eq!(counts("c"), (1, 1), "the supervisor's");
}

#[test]
fn one_failure_one_debit_whoever_dies_of_it() {
    let flags = SupervisorFlags { intensity: at_most(1), ..all() };
    let mut sim = Sim::up(flags, &["a", "b", "c"]);
    sim.down("b", crash());
    sim.down("a", crash());
    sim.down("c", crash());
    sim.after(Duration::ZERO);
    assert_eq!(sim.node("a").restarts_in_window, 1);
    sim.calm();
    assert_eq!(sim.all(), [(ChildState::Running, 2); 3]);
}

#[test]
fn temporary_bystander() {
    let job = |retain| ChildSpec { restart: RestartType::Temporary, retain, ..free("job") };
    for flags in [all(), rest()] {
        let mut sim = Sim::up_with(flags.clone(), vec![free("a"), job(false), free("c")]);
        sim.down("a", crash());
        sim.calm();
        sim.after(Duration::ZERO);
        sim.calm();
        assert!(!sim.is_there("job"), "forgotten");
        assert_eq!(sim.all(), [(ChildState::Running, 2); 2]);
        let mut sim = Sim::up_with(flags, vec![free("a"), job(true), free("c")]);
        sim.down("a", crash());
        sim.calm();
        sim.after(Duration::ZERO);
        sim.calm();
        assert_eq!((sim.state("job"), sim.node("job").incarnation), (ChildState::Stopped, 1));
    }
}

#[test]
fn the_end_of_a_temporary_child_takes_nobody_along() {
    let mut sim = Sim::up_with(all(), vec![free("a"), ChildSpec { restart: RestartType::Temporary, ..free("job") }]);
    sim.down("job", crash());
    sim.after(S);
    assert_eq!(sim.log(), ["dispose payload"]);
    assert_eq!(sim.all(), [(ChildState::Running, 1)]);
}

#[test]
fn what_rested_before_goes_on_resting() {
    let transient = ChildSpec { restart: RestartType::Transient, ..free("done") };
    let failing = ChildSpec { restart: RestartType::Temporary, retain: true, ..free("failed") };
    let mut sim = Sim::up_with(all(), vec![free("a"), free("stopped"), transient, failing]);
    sim.ask(1, Request::Terminate(id("stopped")));
    sim.down("stopped", DOWN);
    sim.down("done", ExitReason::Normal);
    sim.down("failed", crash());
    assert_eq!(sim.state("a"), ChildState::Running);
    sim.down("a", crash());
    sim.after(Duration::ZERO);
    sim.calm();
    let states: Vec<ChildState> = sim.all().into_iter().map(|(state, _)| state).collect();
    assert_eq!(states, [ChildState::Running, ChildState::Stopped, ChildState::Completed, ChildState::Failed]);
}

#[test]
fn a_child_that_completes_before_its_turn_to_stop_is_complete() {
    let mut sim =
        Sim::up_with(all(), vec![ChildSpec { restart: RestartType::Transient, ..free("job") }, free("b"), free("c")]);
    sim.down("b", crash());
    sim.down("job", ExitReason::Normal);
    sim.calm();
    sim.after(Duration::ZERO);
    sim.calm();
    assert_eq!(sim.all(), [(ChildState::Completed, 1), (ChildState::Running, 2), (ChildState::Running, 2)]);
}

#[test]
fn one_for_all_other_child_fails_restart() {
    let mut sim = Sim::up(all(), &["a", "b", "c"]);
    sim.down("a", crash());
    sim.calm();
    sim.after(Duration::ZERO);
    sim.started("a");
    sim.log();
    sim.down("b", ExitReason::StartFailed("no".into()));
    assert_eq!(sim.log(), ["stop a"], "what was started is stopped again, what wasn't waits");
    sim.down("a", DOWN);
    sim.after(Duration::ZERO);
    sim.calm();
    assert_eq!(sim.log(), ["launch a 3 by itself", "launch b 3 by itself", "launch c 2 by itself"]);
    assert_eq!((sim.node("a").restarts, sim.node("b").restarts, sim.node("c").restarts), (2, 2, 1));
}

#[test]
fn rest_for_one_other_child_fails_restart() {
    let mut sim = Sim::up(rest(), &["a", "b", "c"]);
    sim.down("a", crash());
    sim.calm();
    sim.after(Duration::ZERO);
    sim.started("a");
    sim.down("b", ExitReason::StartFailed("no".into()));
    sim.log();
    sim.after(Duration::ZERO);
    sim.calm();
    assert_eq!(sim.log(), ["launch b 3 by itself", "launch c 2 by itself"]);
    assert_eq!((sim.state("a"), sim.node("a").incarnation), (ChildState::Running, 2), "kept");
}

#[test]
fn a_failing_first_start_holds_up_what_comes_after() {
    let mut sim = Sim::under(rest(), vec![delayed("a"), free("b")]);
    sim.down("a", ExitReason::StartFailed("no".into()));
    sim.after(S * 4);
    assert_eq!((sim.log(), sim.state("b")), (vec!["launch a 1".into()], ChildState::Pending));
    sim.after(S);
    sim.calm();
    assert_eq!(sim.log(), ["launch a 2 by itself", "launch b 1", "ready"]);
}

#[test]
fn an_earlier_child_that_fails_widens_the_restart() {
    let mut sim = Sim::up_with(rest(), vec![delayed("a"), free("b"), free("c"), free("d")]);
    sim.down("c", crash());
    assert_eq!(sim.log(), ["stop d"]);
    sim.down("a", crash());
    sim.down("d", DOWN);
    assert_eq!(sim.log(), ["stop b"]);
    sim.down("b", DOWN);
    sim.after(S);
    assert!(sim.log().is_empty(), "c is due, and waits for a");
    sim.after(S * 4);
    sim.calm();
    let launched = sim.log();
    assert_eq!(launched.len(), 4);
    assert!(launched.is_sorted(), "{launched:?}");
}

#[test]
fn several_losses_at_once_are_one_restart_and_debit_nobody() {
    let lost = || ExitReason::Lost("its machine is gone".into());
    let flags = SupervisorFlags { intensity: at_most(0), ..all() };
    let mut sim = Sim::up(flags, &["a", "b", "c"]);
    for name in ["b", "c", "a"] {
        sim.down(name, lost());
    }
    assert_eq!(sim.log(), ["stop c", "stop a"]);
    sim.after(Duration::ZERO);
    sim.calm();
    assert_eq!(sim.log(), ["launch a 2 again", "launch b 2 again", "launch c 2 again"]);
    assert_eq!((sim.node("b").restarts, sim.node("b").restarts_in_window), (0, 0));
}

#[test]
fn a_loss_hides_no_failure() {
    let lost = || ExitReason::Lost("its machine is gone".into());
    for lost_first in [true, false] {
        let flags = SupervisorFlags { intensity: at_most(5), ..all() };
        let mut sim = Sim::up_with(flags, vec![free("a"), delayed("b"), free("c")]);
        let (first, second) =
            if lost_first { (("a", lost()), ("b", crash())) } else { (("b", crash()), ("a", lost())) };
        sim.down(first.0, first.1);
        sim.down(second.0, second.1);
        sim.calm();
        assert_eq!(sim.node("a").restarts_in_window, 1, "once");
        sim.after(Duration::ZERO);
        assert!(!sim.log().iter().any(|line| line.starts_with("launch")), "its delay counts");
        sim.after(S * 5);
        sim.calm();
        assert_eq!(sim.all(), [(ChildState::Running, 2); 3]);
        assert_eq!((sim.node("b").restarts, sim.node("c").restarts), (1, 1));
    }
}

#[test]
fn a_failure_makes_a_loss_that_had_begun_a_counted_restart() {
    let lost = ExitReason::Lost("its machine is gone".into());
    let mut sim = Sim::up(all(), &["a", "b", "c", "d"]);
    sim.down("b", lost);
    sim.down("d", DOWN);
    sim.down("a", crash());
    sim.calm();
    sim.after(Duration::ZERO);
    sim.calm();
    let restarts: Vec<u64> = ["a", "c", "d"].iter().map(|name| sim.node(name).restarts).collect();
    assert_eq!(restarts, [1, 1, 1]);
}

#[test]
fn orders_on_one_child_touch_that_child_alone() {
    let mut sim = Sim::up(all(), &["a", "b"]);
    sim.ask(1, Request::ForceRestart(id("a")));
    sim.calm();
    sim.ask(2, Request::Terminate(id("a")));
    sim.calm();
    sim.ask(3, Request::StartExisting(id("a")));
    sim.calm();
    assert_eq!(sim.answers(), [(1, Ok(())), (2, Ok(())), (3, Ok(()))]);
    assert_eq!(sim.all(), [(ChildState::Running, 3), (ChildState::Running, 1)]);
}

#[test]
fn orders_during_a_group_restart_keep_the_order() {
    let mut sim = Sim::up_with(all(), vec![free("a"), delayed("b"), free("c"), free("d")]);
    sim.ask(1, Request::Terminate(id("d")));
    sim.down("d", DOWN);
    sim.down("b", crash());
    sim.calm();
    sim.log();
    sim.ask(2, Request::StartExisting(id("d")));
    sim.ask(3, Request::StartExisting(id("a")));
    assert!(sim.log().is_empty(), "they wait for b");
    sim.ask(4, Request::Terminate(id("c")));
    sim.ask(5, Request::StartExisting(id("b")));
    sim.calm();
    assert_eq!(sim.log(), ["close c", "launch a 2", "launch b 2", "launch d 2"]);
    let mut tokens: Vec<u64> =
        sim.answers().iter().filter(|(_, result)| result.is_ok()).map(|(token, _)| *token).collect();
    tokens.sort_unstable();
    assert_eq!(tokens, [1, 2, 3, 4, 5]);
}

#[test]
fn stopping_the_failed_child_lets_the_others_start() {
    let mut sim = Sim::up_with(all(), vec![free("a"), delayed("b")]);
    sim.down("b", crash());
    sim.calm();
    sim.ask(1, Request::Terminate(id("b")));
    sim.calm();
    assert_eq!(sim.all(), [(ChildState::Running, 2), (ChildState::Stopped, 1)]);
}

#[test]
fn shutdown_overtakes_a_group_restart() {
    for failed_first in [true, false] {
        let mut sim = Sim::up_with(all(), vec![free("a"), delayed("b"), free("c")]);
        sim.down("b", crash());
        if failed_first {
            sim.calm();
        }
        sim.log();
        sim.step(Input::Shutdown);
        sim.calm();
        sim.after(S * 100);
        assert_eq!(sim.log().last().unwrap(), "finished");
        assert!(sim.all().iter().all(|(state, _)| *state == ChildState::Stopped));
    }
}

#[test]
fn a_child_that_never_ends_holds_up_no_group() {
    let mut sim = Sim::up(all(), &["a", "b"]);
    sim.down("a", crash());
    sim.after(S * 5);
    sim.after(S * 10);
    assert_eq!(sim.log(), ["stop b", "kill b", "launch a 2 by itself"]);
    sim.started("a");
    sim.down("b", ExitReason::Killed);
    sim.calm();
    assert_eq!(sim.all(), [(ChildState::Running, 2); 2], "it comes back when it has ended");
}

#[test]
fn start_all_tells_that_a_group_did_not_come_up() {
    let mut sim = Sim::up_with(rest(), vec![free("a"), delayed("b")]);
    sim.ask(1, Request::StopAll);
    sim.calm();
    sim.ask(2, Request::StartAll);
    sim.started("a");
    let no = ExitReason::StartFailed("no".into());
    sim.down("b", no.clone());
    assert_eq!(sim.answers(), [(1, Ok(())), (2, Err(Refusal::StartFailed(no)))]);
}

#[test]
fn a_start_that_takes_too_long_is_one_failure() {
    let slow = ChildSpec { start_timeout: Some(S), ..free("b") };
    let mut sim = Sim::under(SupervisorFlags { intensity: at_most(9), ..rest() }, vec![free("a"), slow]);
    sim.started("a");
    sim.after(S);
    sim.down("a", crash());
    sim.down("b", DOWN);
    assert_eq!(sim.node("a").restarts_in_window, 1, "the failure of a took it along");
    sim.after(Duration::ZERO);
    sim.calm();
    assert_eq!(sim.all(), [(ChildState::Running, 2); 2]);
}
