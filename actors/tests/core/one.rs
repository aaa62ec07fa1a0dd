//! One child and its supervisor under one_for_one: restart types, limits, delays, order, seeds, ends. What OTP's supervisor_SUITE checks of
//! this has its name here; the suite itself, on real actors, is `tests/otp.rs`.

use std::time::Duration;

use hivekeeper_actors::tree::{Input, KILL_WAIT, Refusal, Request};
use hivekeeper_actors::{
    Backoff, ChildSpec, ChildState, EventKind, ExitReason, Intensity, OnExceeded, RestartType, Seed, SeedState,
    Shutdown,
};

use crate::sim::*;

// The table of restart types and reasons.

#[test]
fn permanent_normal() {
    assert_eq!(
        exit_of(RestartType::Permanent, ExitReason::Normal).log(),
        ["launch a 1", "ready", "launch a 2 by itself"]
    );
}

#[test]
fn permanent_shutdown() {
    assert_eq!(exit_of(RestartType::Permanent, ExitReason::Shutdown).state("a"), ChildState::Starting);
}

#[test]
fn permanent_abnormal() {
    let sim = exit_of(RestartType::Permanent, crash());
    let node = sim.node("a");
    assert_eq!((node.state, node.incarnation, node.restarts, node.restarts_in_window), (ChildState::Starting, 2, 1, 1));
    let exit = node.last_exit.unwrap();
    assert_eq!((exit.reason, exit.incarnation), (crash(), 1));
}

#[test]
fn transient_normal() {
    let mut sim = exit_of(RestartType::Transient, ExitReason::Normal);
    assert_eq!(sim.state("a"), ChildState::Completed);
    assert_eq!(sim.log(), ["launch a 1", "ready", "close a"]);
}

#[test]
fn transient_shutdown() {
    assert_eq!(exit_of(RestartType::Transient, ExitReason::Shutdown).state("a"), ChildState::Completed);
}

#[test]
fn transient_abnormal() {
    for reason in [crash(), ExitReason::Error("e".into()), ExitReason::Killed, ExitReason::ArbiterGone] {
        assert_eq!(exit_of(RestartType::Transient, reason).state("a"), ChildState::Starting);
    }
}

#[test]
fn temporary_normal() {
    assert_eq!(exit_of(RestartType::Temporary, ExitReason::Normal).state("a"), ChildState::Completed);
}

#[test]
fn temporary_abnormal() {
    let mut sim = exit_of(RestartType::Temporary, crash());
    assert_eq!(sim.state("a"), ChildState::Failed);
    assert_eq!(sim.node("a").retry_in, None);
    sim.after(S * 3600);
    assert_eq!(sim.state("a"), ChildState::Failed, "never restarted");
}

// Intensity.

#[test]
fn one_for_one() {
    let mut sim = Sim::new(vec![eager("a"), eager("b")]);
    sim.started("a");
    sim.started("b");
    sim.log();
    sim.crash_and_retry("a");
    assert_eq!(sim.log(), ["launch a 2 by itself"]);
    assert_eq!((sim.node("b").incarnation, sim.state("b")), (1, ChildState::Running));
}

#[test]
fn intensity_exceeded_fails_the_child_alone() {
    let spec = ChildSpec { intensity: Some(Intensity { max_restarts: 2, period: S * 10 }), ..eager("a") };
    let mut sim = Sim::new(vec![spec, eager("b")]);
    sim.started("a");
    sim.started("b");
    for _ in 0..3 {
        sim.crash_and_retry("a");
    }
    let node = sim.node("a");
    assert_eq!((node.state, node.incarnation, node.restarts, node.restarts_in_window), (ChildState::Failed, 3, 2, 2));
    assert_eq!(sim.state("b"), ChildState::Running);
    assert_eq!(sim.kinds.last().unwrap(), &("a".into(), EventKind::Failed { reason: crash(), retry_in: None }));
    sim.after(S * 3600);
    assert_eq!(sim.state("a"), ChildState::Failed);
}

#[test]
fn multiple_restarts() {
    let spec = ChildSpec { intensity: Some(Intensity { max_restarts: 1, period: S }), ..eager("a") };
    let mut sim = Sim::running(spec);
    for _ in 0..4 {
        sim.crash_and_retry("a");
        assert_eq!(sim.state("a"), ChildState::Running);
        sim.now += S + Duration::from_millis(1);
    }
    assert_eq!(sim.node("a").restarts, 4);
}

#[test]
fn failed_starts_count() {
    let spec = ChildSpec { intensity: Some(Intensity { max_restarts: 2, period: S }), ..eager("a") };
    let mut sim = Sim::new(vec![spec]);
    for _ in 0..3 {
        sim.down("a", ExitReason::StartFailed("no".into()));
        sim.after(Duration::ZERO);
    }
    assert_eq!((sim.state("a"), sim.node("a").incarnation), (ChildState::Failed, 3));
}

#[test]
fn retry_after_comes_with_a_fresh_window() {
    let intensity = Intensity { max_restarts: 1, period: S * 60 };
    let mut sim = Sim::running(ChildSpec {
        intensity: Some(intensity),
        on_exceeded: OnExceeded::RetryAfter(S * 20),
        ..eager("a")
    });
    sim.crash_and_retry("a");
    sim.crash_and_retry("a");
    assert_eq!((sim.state("a"), sim.node("a").retry_in), (ChildState::Failed, Some(S * 20)));
    sim.after(S * 19);
    assert_eq!(sim.state("a"), ChildState::Failed);
    sim.after(S);
    let node = sim.node("a");
    assert_eq!((node.state, node.restarts_in_window, node.restarts), (ChildState::Starting, 0, 2));
    sim.started("a");
    sim.crash_and_retry("a");
    assert_eq!(sim.state("a"), ChildState::Running, "one more is allowed again");
}

#[test]
fn retry_after_is_for_permanent_children() {
    let intensity = Intensity { max_restarts: 0, period: S };
    let on_exceeded = OnExceeded::RetryAfter(S);
    let mut sim =
        Sim::running(ChildSpec { intensity: Some(intensity), on_exceeded, ..of_type(RestartType::Transient) });
    sim.down("a", crash());
    assert_eq!((sim.state("a"), sim.node("a").retry_in), (ChildState::Failed, None));
}

// Back-off. The first two are bugs that delayed restarts had elsewhere (rabbitmq-common 201, supervisor3 2).

#[test]
fn backoff_child_is_marked_and_its_next_failure_counts() {
    let mut sim = Sim::running(ChildSpec { backoff: Backoff { initial: S, ..Backoff::default() }, ..eager("a") });
    sim.down("a", crash());
    assert_eq!((sim.state("a"), sim.node("a").retry_in), (ChildState::BackingOff, Some(S)));
    sim.after(S);
    sim.down("a", crash());
    let node = sim.node("a");
    assert_eq!((node.state, node.restarts, node.restarts_in_window), (ChildState::BackingOff, 1, 2));
}

#[test]
fn backoff_restart_is_counted_once() {
    let mut sim = Sim::running(ChildSpec { backoff: Backoff { initial: S, ..Backoff::default() }, ..eager("a") });
    sim.down("a", crash());
    assert_eq!((sim.node("a").restarts, sim.node("a").restarts_in_window), (0, 1), "decided, not launched");
    sim.after(S);
    assert_eq!((sim.node("a").restarts, sim.node("a").restarts_in_window), (1, 1));
    sim.started("a");
    assert_eq!((sim.node("a").restarts, sim.node("a").restarts_in_window), (1, 1));
}

#[test]
fn backoff_grows_and_resets() {
    let backoff = Backoff { jitter: 0.0, reset_after: S * 100, ..Backoff::default() };
    let intensity = Intensity { max_restarts: 100, period: S };
    let mut sim = Sim::running(ChildSpec { backoff, intensity: Some(intensity), ..ChildSpec::new("a") });
    let mut fail = |ran: Duration| {
        sim.now += ran;
        sim.down("a", crash());
        let delay = sim.node("a").retry_in.unwrap();
        sim.after(delay);
        sim.started("a");
        delay.as_secs()
    };
    assert_eq!([fail(S), fail(S), fail(S), fail(S * 99), fail(S * 100), fail(S)], [0, 1, 2, 4, 0, 1]);
}

// Order.

#[test]
fn order_of_children() {
    let mut sim = Sim::new(vec![eager("a"), eager("b"), eager("c")]);
    assert_eq!(sim.log(), ["launch a 1"]);
    assert_eq!(sim.state("b"), ChildState::Pending);
    sim.started("a");
    assert_eq!(sim.log(), ["launch b 1"]);
    sim.started("b");
    sim.started("c");
    assert_eq!(sim.log(), ["launch c 1", "ready"]);
    sim.step(Input::Shutdown);
    assert_eq!(sim.log(), ["stop c"]);
    sim.down("c", ExitReason::Shutdown);
    assert_eq!(sim.log(), ["close c", "stop b"]);
    sim.down("b", ExitReason::Shutdown);
    sim.down("a", ExitReason::Shutdown);
    assert_eq!(sim.log(), ["close b", "stop a", "close a", "finished"]);
}

#[test]
fn order_goes_on_after_a_failed_start() {
    let spec = ChildSpec { backoff: Backoff { initial: S, ..Backoff::default() }, ..eager("a") };
    let mut sim = Sim::new(vec![spec, eager("b")]);
    sim.down("a", ExitReason::StartFailed("no".into()));
    assert_eq!(sim.state("a"), ChildState::BackingOff);
    sim.started("b");
    assert_eq!(sim.log(), ["launch a 1", "launch b 1", "ready"]);
}

#[test]
fn order_goes_on_past_seeds_that_start_nothing() {
    let seeded =
        |name: &str, state| ChildSpec { seed: Seed { incarnation: 4, state, ..Seed::default() }, ..eager(name) };
    let mut sim = Sim::new(vec![
        seeded("failed", SeedState::Failed { retry_in: None }),
        seeded("completed", SeedState::Completed),
        seeded("stopped", SeedState::Stopped),
        seeded("delayed", SeedState::Delayed { retry_in: S }),
        seeded("fresh", SeedState::Fresh),
        seeded("running", SeedState::Running),
    ]);
    assert_eq!(sim.log(), ["close failed", "close completed", "close stopped", "launch fresh 5"]);
    sim.started("fresh");
    assert_eq!(sim.log(), ["launch running 4 adopted"]);
    sim.started("running");
    sim.after(S);
    assert_eq!(sim.log(), ["ready", "launch delayed 5 by itself"]);
    assert_eq!(sim.node("delayed").restarts, 1);
    sim.down("running", crash());
    sim.after(Duration::ZERO);
    assert_eq!(sim.log(), ["launch running 5 by itself"], "an adopted child is adopted once");
}

#[test]
fn sup_stop_race() {
    let types = [RestartType::Permanent, RestartType::Transient, RestartType::Temporary];
    let reasons = [ExitReason::Normal, ExitReason::Shutdown, crash(), ExitReason::Error("e".into())];
    for (restart, reason) in types.iter().flat_map(|t| reasons.iter().map(move |r| (*t, r.clone()))) {
        let mut sim = Sim::new(vec![of_type(restart), eager("b")]);
        sim.started("a");
        sim.started("b");
        sim.step(Input::Shutdown);
        sim.log();
        sim.down("a", reason);
        sim.after(S);
        assert_eq!(sim.log(), ["close a"], "not restarted");
        sim.down("b", ExitReason::Shutdown);
        assert_eq!(sim.log().last().unwrap(), "finished");
    }
}

#[test]
fn sup_stop_timeout() {
    let mut sim = Sim::running(ChildSpec { shutdown: Shutdown::Deadline(S * 2), ..eager("a") });
    sim.step(Input::Shutdown);
    sim.after(S);
    assert_eq!(sim.log(), ["launch a 1", "ready", "stop a"]);
    sim.after(S);
    assert_eq!(sim.log(), ["kill a"]);
    sim.down("a", ExitReason::Killed);
    assert_eq!(sim.node("a").last_exit.unwrap().reason, ExitReason::DeadlineExceeded);
    assert_eq!(sim.log(), ["close a", "finished"]);
}

#[test]
fn sup_stop_infinity() {
    let mut sim = Sim::running(ChildSpec { shutdown: Shutdown::Infinity, ..eager("a") });
    sim.step(Input::Shutdown);
    sim.log();
    sim.after(S * 100_000);
    assert!(sim.log().is_empty());
    assert_eq!(sim.state("a"), ChildState::Stopping);
}

#[test]
fn sup_stop_brutal_kill() {
    let mut sim = Sim::running(ChildSpec { shutdown: Shutdown::Brutal, ..eager("a") });
    sim.step(Input::Shutdown);
    sim.down("a", ExitReason::Killed);
    assert_eq!(sim.log(), ["launch a 1", "ready", "kill a", "close a", "finished"]);
    assert_eq!(sim.node("a").last_exit.unwrap().reason, ExitReason::Killed);
}

#[test]
fn child_that_never_ends_cannot_hang_the_supervisor() {
    let mut sim = Sim::new(vec![eager("a"), ChildSpec { shutdown: Shutdown::Deadline(S), ..eager("b") }]);
    sim.started("a");
    sim.started("b");
    sim.ask(1, Request::StopAll);
    sim.after(S);
    sim.after(KILL_WAIT);
    assert_eq!(sim.log(), ["launch a 1", "launch b 1", "ready", "stop b", "kill b", "stop a"]);
    sim.down("a", ExitReason::Shutdown);
    assert_eq!(sim.answers(), [(1, Err(Refusal::Unresponsive))]);
    assert_eq!(sim.state("b"), ChildState::Stopping, "the truth: it lives");
    sim.ask(2, Request::ForceRestart(id("b")));
    assert_eq!(sim.answers(), [(2, Err(Refusal::Unresponsive))]);
    sim.down("b", ExitReason::Killed);
    assert_eq!(sim.state("b"), ChildState::Stopped);
}

#[test]
fn times_without_end_are_no_overflow() {
    let spec = ChildSpec {
        shutdown: Shutdown::Deadline(Duration::MAX),
        start_timeout: Some(Duration::MAX),
        intensity: Some(Intensity { max_restarts: 0, period: Duration::MAX }),
        on_exceeded: OnExceeded::RetryAfter(Duration::MAX),
        backoff: Backoff { initial: Duration::MAX, ..Backoff::default() },
        ..eager("a")
    };
    let mut sim = Sim::running(spec.clone());
    sim.ask(1, Request::ForceRestart(id("a")));
    sim.down("a", ExitReason::Shutdown);
    sim.down("a", crash());
    assert_eq!(sim.state("a"), ChildState::Failed);
    let mut sim = Sim::running(ChildSpec { intensity: Some(Intensity::default()), ..spec });
    sim.down("a", crash());
    sim.after(S * 1_000_000);
    assert_eq!(sim.state("a"), ChildState::BackingOff);
}

// Notices that come late.

#[test]
fn stale_down_is_ignored() {
    let mut sim = Sim::running(eager("a"));
    let (key, _) = sim.key_node("a");
    sim.crash_and_retry("a");
    sim.step(Input::Down { key, incarnation: 1, reason: crash() });
    sim.step(Input::Started { key, incarnation: 1 });
    let node = sim.node("a");
    assert_eq!((node.state, node.incarnation, node.restarts), (ChildState::Running, 2, 1));
    sim.down("a", crash());
    sim.after(Duration::ZERO);
    sim.step(Input::Started { key, incarnation: 2 });
    assert_eq!(sim.state("a"), ChildState::Starting, "the second is ready, the third is not");
    sim.started("a");
    sim.down("a", crash());
    sim.down("a", crash());
    assert_eq!(sim.node("a").restarts_in_window, 3, "the second report of one exit is not a second exit");
}

#[test]
fn start_timeout_counts_as_an_exit() {
    let spec = ChildSpec { start_timeout: Some(S), ..of_type(RestartType::Temporary) };
    let mut sim = Sim::new(vec![spec, eager("b")]);
    sim.after(S);
    assert_eq!(sim.log(), ["launch a 1", "stop a"]);
    sim.started("a");
    assert_eq!(sim.state("a"), ChildState::Stopping, "too late is too late");
    sim.down("a", ExitReason::Shutdown);
    assert_eq!(sim.state("a"), ChildState::Failed);
    assert_eq!(sim.node("a").last_exit.unwrap().reason, ExitReason::StartTimeout);
    assert_eq!(sim.log(), ["close a", "launch b 1"]);
}
