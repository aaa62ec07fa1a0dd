//! Losses: an end that is nobody's fault. OTP has none; the restart type decides as after any abnormal exit, and nothing is debited.

use std::time::Duration;

use hivekeeper_actors::tree::Request;
use hivekeeper_actors::{Backoff, ChildSpec, ChildState, ExitReason, Intensity, RestartType};

use crate::sim::*;

fn lost() -> ExitReason {
    ExitReason::Lost("its machine is gone".into())
}

#[test]
fn permanent_lost() {
    assert_eq!(exit_of(RestartType::Permanent, lost()).log(), ["launch a 1", "ready", "launch a 2 again"]);
}

#[test]
fn transient_lost() {
    assert_eq!(exit_of(RestartType::Transient, lost()).log(), ["launch a 1", "ready", "launch a 2 again"]);
}

#[test]
fn temporary_lost() {
    let sim = exit_of(RestartType::Temporary, lost());
    assert_eq!((sim.state("a"), sim.node("a").retry_in), (ChildState::Failed, None));
}

#[test]
fn a_loss_spends_no_intensity() {
    let mut sim = Sim::running(ChildSpec { intensity: Some(Intensity { max_restarts: 0, period: S }), ..eager("a") });
    for _ in 0..3 {
        sim.down("a", lost());
        sim.after(Duration::ZERO);
        sim.started("a");
    }
    let node = sim.node("a");
    assert_eq!((node.state, node.incarnation, node.restarts, node.restarts_in_window), (ChildState::Running, 4, 0, 0));
    sim.crash_and_retry("a");
    assert_eq!(sim.state("a"), ChildState::Failed, "its own exit counts");
}

#[test]
fn a_loss_forgives_nothing() {
    let mut sim =
        Sim::running(ChildSpec { intensity: Some(Intensity { max_restarts: 1, period: S * 60 }), ..eager("a") });
    sim.crash_and_retry("a");
    sim.down("a", lost());
    sim.after(Duration::ZERO);
    sim.started("a");
    assert_eq!((sim.node("a").restarts, sim.node("a").restarts_in_window), (1, 1));
    sim.crash_and_retry("a");
    assert_eq!(sim.state("a"), ChildState::Failed);
}

#[test]
fn a_loss_is_replaced_at_once_and_leaves_the_backoff_where_it_stood() {
    let backoff = Backoff { initial: S * 5, then: S * 10, jitter: 0.0, reset_after: S * 100, ..Backoff::default() };
    let mut sim = Sim::running(ChildSpec { backoff, ..ChildSpec::new("a") });
    let mut end = |ran: Duration, reason: ExitReason| {
        sim.now += ran;
        sim.down("a", reason);
        let delay = sim.node("a").retry_in.unwrap();
        sim.after(delay);
        sim.started("a");
        delay.as_secs()
    };
    assert_eq!([end(S, lost()), end(S, crash()), end(S, lost()), end(S, crash())], [0, 5, 0, 10]);
    assert_eq!([end(S * 100, lost()), end(S, crash())], [0, 5], "its long run counts, however it ended");
}

#[test]
fn a_stop_overtakes_the_replacement_of_what_was_lost() {
    let mut sim = Sim::running(eager("a"));
    sim.down("a", lost());
    sim.ask(1, Request::Terminate(id("a")));
    sim.after(S);
    assert_eq!(sim.state("a"), ChildState::Stopped);
    assert_eq!(sim.answers(), [(1, Ok(()))]);
}

#[test]
fn all_that_live_in_one_place_are_lost_at_once() {
    let mut sim = Sim::new(vec![eager("a"), eager("b"), eager("c")]);
    for name in ["a", "b", "c"] {
        sim.started(name);
    }
    sim.log();
    for name in ["c", "a", "b"] {
        sim.down(name, lost());
    }
    sim.after(Duration::ZERO);
    let mut launched = sim.log();
    launched.sort();
    assert_eq!(launched, ["launch a 2 again", "launch b 2 again", "launch c 2 again"]);
}

#[test]
fn the_ordered_start_goes_on_after_a_loss() {
    let mut sim = Sim::new(vec![eager("a"), eager("b")]);
    sim.down("a", lost());
    assert_eq!(sim.log(), ["launch a 1", "launch b 1"]);
    sim.after(Duration::ZERO);
    assert_eq!(sim.log(), ["launch a 2 again"]);
}
