//! What operators ask of a supervisor, and what crashes make of it.

use std::time::Duration;

use hivekeeper_actors::tree::{Input, KILL_WAIT, Refusal, Request};
use hivekeeper_actors::{
    Backoff, ChildSpec, ChildState, EventKind, ExitReason, Intensity, OnExceeded, RestartType, Shutdown, Strategy,
    SupervisorFlags,
};

use crate::sim::*;

#[test]
fn child_adm() {
    let mut sim = Sim::running(eager("a"));
    sim.log();
    sim.ask(1, Request::StartExisting(id("a")));
    sim.ask(2, Request::Terminate(id("nobody")));
    sim.ask(3, Request::Add(new_child(eager("a"))));
    assert_eq!(
        sim.answers(),
        [(1, Err(Refusal::Running)), (2, Err(Refusal::NotFound)), (3, Err(Refusal::AlreadyStarted))]
    );
    assert_eq!(sim.log(), ["dispose payload"]);
    sim.ask(4, Request::Terminate(id("a")));
    sim.ask(5, Request::Terminate(id("a")));
    assert!(sim.answers().is_empty(), "not before it has ended");
    sim.down("a", ExitReason::Shutdown);
    sim.ask(6, Request::Terminate(id("a")));
    assert_eq!(sim.answers(), [(4, Ok(())), (5, Ok(())), (6, Ok(()))]);
    sim.ask(7, Request::StartExisting(id("a")));
    sim.started("a");
    sim.ask(8, Request::Remove(id("a")));
    sim.down("a", ExitReason::Shutdown);
    sim.ask(9, Request::StartExisting(id("a")));
    assert_eq!(sim.answers(), [(7, Ok(())), (8, Ok(())), (9, Err(Refusal::NotFound))]);
    assert_eq!(sim.log(), ["stop a", "close a", "launch a 2", "stop a", "dispose payload"]);
    assert_eq!(sim.tree.next_deadline(), None);
}

#[test]
fn start_child_runs_beside_and_answers_when_started() {
    let mut sim = Sim::new(vec![eager("a")]);
    sim.ask(1, Request::Add(new_child(eager("b"))));
    assert_eq!(sim.log(), ["launch a 1", "launch b 1"]);
    sim.started("b");
    sim.ask(2, Request::Add(new_child(eager("c"))));
    sim.down("c", ExitReason::StartFailed("no".into()));
    assert_eq!(sim.answers(), [(1, Ok(())), (2, Err(Refusal::StartFailed(ExitReason::StartFailed("no".into()))))]);
    assert_eq!(sim.state("c"), ChildState::BackingOff, "kept and tried again");
}

#[test]
fn stop_overtakes_retry() {
    let mut sim = Sim::running(ChildSpec { backoff: Backoff { initial: S, ..Backoff::default() }, ..eager("a") });
    sim.down("a", crash());
    sim.ask(1, Request::Terminate(id("a")));
    assert_eq!(sim.answers(), [(1, Ok(()))]);
    sim.log();
    sim.after(S * 10);
    assert!(sim.log().is_empty());
    assert_eq!(sim.state("a"), ChildState::Stopped);
}

#[test]
fn restart_while_backing_off() {
    let mut sim = Sim::running(ChildSpec { backoff: Backoff { initial: S, ..Backoff::default() }, ..eager("a") });
    sim.down("a", crash());
    sim.ask(1, Request::ForceRestart(id("a")));
    sim.started("a");
    assert_eq!(sim.answers(), [(1, Ok(()))]);
    sim.log();
    sim.after(S * 10);
    assert!(sim.log().is_empty(), "the delayed restart is gone");
    let node = sim.node("a");
    assert_eq!((node.incarnation, node.restarts, node.restarts_in_window), (2, 0, 0));
}

#[test]
fn restart_by_an_operator_spends_nothing() {
    let mut sim =
        Sim::running(ChildSpec { intensity: Some(Intensity { max_restarts: 1, period: S * 60 }), ..eager("a") });
    sim.crash_and_retry("a");
    for token in 0..5 {
        sim.ask(token, Request::ForceRestart(id("a")));
        assert!(sim.answers().is_empty());
        sim.down("a", ExitReason::Shutdown);
        assert!(sim.answers().is_empty(), "resolves when started");
        sim.started("a");
        assert_eq!(sim.answers(), [(token, Ok(()))]);
    }
    let node = sim.node("a");
    assert_eq!((node.restarts, node.restarts_in_window, node.incarnation), (1, 0, 7), "the record is clean");
}

#[test]
fn restart_revives_whatever_rests() {
    let intensity = Intensity { max_restarts: 0, period: S };
    let mut sim = Sim::running(ChildSpec { intensity: Some(intensity), restart: RestartType::Transient, ..eager("a") });
    for reason in [crash(), ExitReason::Normal] {
        sim.down("a", reason);
        sim.ask(1, Request::ForceRestart(id("a")));
        assert_eq!(sim.state("a"), ChildState::Starting);
        sim.started("a");
    }
    sim.ask(2, Request::Terminate(id("a")));
    sim.down("a", ExitReason::Shutdown);
    sim.ask(3, Request::ForceRestart(id("a")));
    assert_eq!(sim.state("a"), ChildState::Starting);
}

#[test]
fn orders_that_race_with_a_crash_end_in_the_asked_state() {
    let mut sim = Sim::running(eager("a"));
    sim.ask(1, Request::Terminate(id("a")));
    sim.down("a", crash());
    assert_eq!((sim.state("a"), sim.answers()), (ChildState::Stopped, vec![(1, Ok(()))]));

    let mut sim = Sim::running(eager("a"));
    sim.ask(1, Request::ForceRestart(id("a")));
    sim.down("a", crash());
    sim.started("a");
    assert_eq!((sim.state("a"), sim.answers()), (ChildState::Running, vec![(1, Ok(()))]));
    assert_eq!(sim.node("a").restarts_in_window, 0);

    let mut sim = Sim::running(eager("a"));
    sim.down("a", crash());
    sim.ask(1, Request::Terminate(id("a")));
    sim.after(Duration::ZERO);
    assert_eq!(sim.state("a"), ChildState::Stopped);
}

#[test]
fn the_last_order_wins() {
    let mut sim = Sim::running(eager("a"));
    sim.ask(1, Request::ForceRestart(id("a")));
    sim.ask(2, Request::Terminate(id("a")));
    assert_eq!(sim.answers(), [(1, Err(Refusal::Superseded))]);
    sim.ask(3, Request::ForceRestart(id("a")));
    sim.down("a", ExitReason::Shutdown);
    assert_eq!(sim.answers(), [(2, Ok(()))], "it did end");
    sim.started("a");
    assert_eq!(sim.answers(), [(3, Ok(()))]);
    sim.ask(4, Request::Remove(id("a")));
    sim.ask(5, Request::StartExisting(id("a")));
    assert_eq!(sim.answers(), [(5, Err(Refusal::Superseded))]);
    sim.down("a", crash());
    assert_eq!(sim.answers(), [(4, Ok(()))]);
}

#[test]
fn start_all_after_stop_all_leaves_the_completed_alone() {
    let mut sim =
        Sim::new(vec![eager("a"), ChildSpec { id: id("job"), ..of_type(RestartType::Transient) }, eager("c")]);
    for name in ["a", "job", "c"] {
        sim.started(name);
    }
    sim.down("job", ExitReason::Normal);
    sim.ask(1, Request::StopAll);
    sim.down("c", ExitReason::Shutdown);
    sim.down("a", ExitReason::Shutdown);
    assert_eq!(sim.answers(), [(1, Ok(()))]);
    sim.log();
    sim.ask(2, Request::StartAll);
    sim.started("a");
    sim.started("c");
    assert_eq!((sim.log(), sim.answers()), (vec!["launch a 2".into(), "launch c 2".into()], vec![(2, Ok(()))]));
    assert_eq!(sim.state("job"), ChildState::Completed);
}

#[test]
fn restart_all_stops_in_reverse_then_starts_in_order() {
    let mut sim = Sim::new(vec![eager("a"), eager("b")]);
    sim.started("a");
    sim.started("b");
    sim.log();
    sim.ask(1, Request::RestartAll);
    sim.down("a", crash());
    sim.down("b", ExitReason::Shutdown);
    sim.started("a");
    sim.started("b");
    assert_eq!(sim.log(), ["stop b", "close a", "close b", "launch a 2", "launch b 2"]);
    assert_eq!(sim.answers(), [(1, Ok(()))]);
}

#[test]
fn stop_all_during_an_ordered_start_ends_it() {
    let mut sim = Sim::new(vec![eager("a"), eager("b")]);
    sim.ask(1, Request::StopAll);
    sim.down("a", ExitReason::Shutdown);
    assert_eq!(sim.log(), ["launch a 1", "close b", "stop a", "close a", "ready"]);
    assert_eq!((sim.answers(), sim.state("b")), (vec![(1, Ok(()))], ChildState::Stopped));
}

#[test]
fn start_all_during_an_ordered_start_keeps_the_order() {
    let mut sim = Sim::new(vec![eager("a"), eager("b")]);
    sim.ask(1, Request::StartAll);
    assert_eq!(sim.log(), ["launch a 1"], "b waits for a");
    sim.started("a");
    sim.started("b");
    assert_eq!((sim.log(), sim.answers()), (vec!["launch b 1".into(), "ready".into()], vec![(1, Ok(()))]));
}

#[test]
fn requests_after_shutdown_are_refused() {
    let mut sim = Sim::running(eager("a"));
    sim.step(Input::Shutdown);
    sim.ask(1, Request::ForceRestart(id("a")));
    sim.ask(2, Request::Add(new_child(eager("b"))));
    assert_eq!(sim.answers(), [(1, Err(Refusal::Closing)), (2, Err(Refusal::Closing))]);
}

#[test]
fn events_tell_the_whole_life() {
    let mut sim = Sim::running(ChildSpec { backoff: Backoff { initial: S, ..Backoff::default() }, ..eager("a") });
    sim.down("a", crash());
    sim.after(S);
    sim.after(S / 2);
    sim.started("a");
    sim.ask(1, Request::Remove(id("a")));
    sim.down("a", ExitReason::Shutdown);
    let kinds: Vec<EventKind> = sim.kinds.drain(..).map(|(_, kind)| kind).collect();
    assert_eq!(
        kinds,
        [
            EventKind::Starting { attempt: 0 },
            EventKind::Started { took: Duration::ZERO },
            EventKind::Exited { reason: crash() },
            EventKind::BackingOff { attempt: 1, delay: S },
            EventKind::Starting { attempt: 1 },
            EventKind::Started { took: S / 2 },
            EventKind::Stopping,
            EventKind::Exited { reason: ExitReason::Shutdown },
            EventKind::Removed,
        ]
    );
}

#[test]
fn a_crash_after_stop_all_and_start_all_is_restarted_again() {
    let mut sim = Sim::running(eager("a"));
    for request in [Request::StopAll, Request::RestartAll] {
        sim.ask(1, request);
        sim.down("a", ExitReason::Shutdown);
        sim.ask(2, Request::StartAll);
        sim.started("a");
        sim.down("a", crash());
        assert_eq!(sim.state("a"), ChildState::BackingOff);
        sim.after(Duration::ZERO);
        sim.started("a");
    }
}

#[test]
fn stop_all_comes_to_a_child_that_was_restarted_behind_its_back() {
    let intensity = Intensity { max_restarts: 0, period: S };
    let failing = ChildSpec { intensity: Some(intensity), on_exceeded: OnExceeded::RetryAfter(S), ..eager("a") };
    for spec in [eager("a"), failing] {
        let mut sim = Sim::new(vec![spec, eager("b")]);
        sim.started("a");
        sim.started("b");
        sim.ask(1, Request::StopAll);
        sim.ask(2, Request::ForceRestart(id("a")));
        sim.down("a", ExitReason::Shutdown);
        sim.down("a", crash());
        assert!(sim.node("a").retry_in.is_some());
        sim.down("b", ExitReason::Shutdown);
        assert_eq!(sim.answers().last(), Some(&(1, Ok(()))));
        sim.after(S * 100);
        assert_eq!(sim.state("a"), ChildState::Stopped);
    }
}

#[test]
fn shutdown_keeps_what_has_failed_and_takes_back_its_retry() {
    let intensity = Intensity { max_restarts: 0, period: S };
    let mut sim =
        Sim::running(ChildSpec { intensity: Some(intensity), on_exceeded: OnExceeded::RetryAfter(S), ..eager("a") });
    sim.down("a", crash());
    sim.log();
    sim.step(Input::Shutdown);
    sim.after(S * 100);
    assert_eq!((sim.state("a"), sim.log()), (ChildState::Failed, vec!["finished".into()]));
}

/// What was killed and doesn't end is asked for in vain, but an order to stop it holds for when it does: its group does not bring it back.
#[test]
fn an_order_to_stop_what_is_stuck_holds_when_it_ends() {
    for remove in [false, true] {
        let brutal = ChildSpec { shutdown: Shutdown::Brutal, ..free("b") };
        let flags = SupervisorFlags::unlimited(Strategy::OneForAll);
        let mut sim = Sim::up_with(flags, vec![free("a"), brutal]);
        sim.down("a", crash());
        sim.after(KILL_WAIT);
        assert_eq!(sim.log(), ["kill b", "launch a 2 by itself"]);
        sim.ask(1, if remove { Request::Remove(id("b")) } else { Request::Terminate(id("b")) });
        assert_eq!(sim.answers(), [(1, Err(Refusal::Unresponsive))]);
        sim.started("a");
        sim.down("b", ExitReason::Killed);
        assert_eq!(sim.log(), [if remove { "dispose payload" } else { "close b" }]);
    }
}

/// A stop of everything is one also for a group that comes about meanwhile.
#[test]
fn what_is_stuck_does_not_come_back_after_a_stop_of_everything() {
    let specs = vec![free("a"), ChildSpec { shutdown: Shutdown::Brutal, ..free("b") }, free("c")];
    let mut sim = Sim::up_with(SupervisorFlags::unlimited(Strategy::OneForOne), specs);
    sim.ask(1, Request::StopAll);
    sim.down("c", ExitReason::Shutdown);
    sim.down("b", ExitReason::Killed);
    for name in ["b", "c"] {
        sim.ask(2, Request::StartExisting(id(name)));
        sim.started(name);
    }
    sim.ask(3, Request::Change { flags: SupervisorFlags::unlimited(Strategy::OneForAll), children: vec![] });
    sim.down("c", crash());
    sim.down("a", ExitReason::Shutdown);
    sim.log();
    sim.after(KILL_WAIT);
    assert_eq!(sim.answers().last(), Some(&(1, Err(Refusal::Unresponsive))));
    sim.down("b", ExitReason::Killed);
    sim.after(S * 100);
    assert_eq!(sim.log(), ["close b"]);
}

/// OTP's promise of `start_child` and `restart_child` holds when it is a sibling that makes the start fail.
#[test]
fn a_start_that_fails_with_its_group_leaves_what_any_failed_start_leaves() {
    let retry = OnExceeded::RetryAfter(S);
    let worn = || ChildSpec { intensity: at_most(0), on_exceeded: retry, ..free("a") };
    let mut sim = Sim::up_with(SupervisorFlags::unlimited(Strategy::OneForAll), vec![worn(), free("b")]);
    sim.ask(1, Request::Terminate(id("b")));
    sim.down("b", ExitReason::Shutdown);
    sim.ask(2, Request::Restart(id("b")));
    sim.ask(3, Request::Start(new_child(free("c"))));
    sim.down("a", crash());
    sim.down("b", ExitReason::Shutdown);
    let failed = || Err(Refusal::StartFailed(crash()));
    assert_eq!(sim.answers(), [(1, Ok(())), (3, failed()), (2, failed())]);
    assert_eq!(sim.state("b"), ChildState::Stopped);
    assert!(!sim.is_there("c"), "discarded");
}

/// A start that was superseded leaves a child like any other: what fails later is not forgotten.
#[test]
fn a_superseded_start_leaves_no_trial() {
    let mut sim = Sim::up(SupervisorFlags::unlimited(Strategy::OneForOne), &["a"]);
    sim.ask(1, Request::Start(new_child(free("b"))));
    sim.ask(2, Request::RestartAll);
    for name in ["b", "a"] {
        sim.down(name, ExitReason::Shutdown);
    }
    sim.started("a");
    sim.down("b", ExitReason::StartFailed("no".into()));
    assert_eq!(sim.answers(), [(1, Err(Refusal::Superseded)), (2, Ok(()))]);
    assert_eq!(sim.state("b"), ChildState::BackingOff);
}
