//! New flags and specifications while everything runs: OTP's `code_change` and `significant_upgrade_*`.

use std::time::Duration;

use hivekeeper_actors::tree::{Refusal, Request};
use hivekeeper_actors::{
    AutoShutdown, ChildSpec, ChildState, ExitReason, Intensity, RestartType, SpecError, Strategy, SupervisorFlags,
};

use crate::sim::*;

fn flags(strategy: Strategy) -> SupervisorFlags {
    SupervisorFlags::unlimited(strategy)
}

fn change(sim: &mut Sim, flags: SupervisorFlags, specs: Vec<ChildSpec>) -> Result<(), Refusal> {
    sim.ask(99, Request::Change { flags, children: specs.into_iter().map(new_child).collect() });
    sim.answers().pop().unwrap().1
}

#[test]
fn code_change() {
    let mut sim = Sim::up(flags(Strategy::OneForOne), &["a", "b"]);
    let transient = ChildSpec { restart: RestartType::Transient, ..free("b") };
    change(&mut sim, flags(Strategy::OneForAll), vec![free("c"), transient]).unwrap();
    assert_eq!(sim.log(), ["close c", "adopt b payload"], "nothing starts, nothing stops, nothing goes");
    assert_eq!(
        sim.all(),
        [(ChildState::Running, 1), (ChildState::Running, 1), (ChildState::Stopped, 0)],
        "the new one comes last"
    );
    sim.down("b", ExitReason::Normal);
    assert_eq!(sim.state("b"), ChildState::Completed, "by its new restart type");
    sim.ask(1, Request::StartExisting(id("c")));
    sim.calm();
    sim.down("a", crash());
    sim.calm();
    sim.after(Duration::ZERO);
    sim.calm();
    assert_eq!(sim.all(), [(ChildState::Running, 2), (ChildState::Completed, 1), (ChildState::Running, 2)]);
}

#[test]
fn a_change_that_is_not_valid_leaves_everything() {
    let significant = |name| ChildSpec { restart: RestartType::Transient, significant: true, ..free(name) };
    let never = || flags(Strategy::OneForAll);
    let bad = Some(Intensity { max_restarts: 1, period: Duration::ZERO });
    for (specs, wrong) in [
        (vec![free("c"), free("c")], "the id `c` is used twice"),
        (vec![free("c"), significant("a")], "child `a` is significant, and its supervisor's auto_shutdown is `never`"),
        (vec![free("c"), ChildSpec { intensity: bad, ..free("a") }], "is not a window"),
    ] {
        let mut sim = Sim::up(flags(Strategy::OneForOne), &["a"]);
        let Err(Refusal::Invalid(error)) = change(&mut sim, never(), specs) else { panic!("{wrong}") };
        assert!(error.to_string().contains(wrong), "{error}");
        assert_eq!(sim.log(), ["dispose payload", "dispose payload"], "both given back");
        assert_eq!((sim.all(), sim.tree.flags().strategy), (vec![(ChildState::Running, 1)], Strategy::OneForOne));
    }
}

#[test]
fn significant_upgrade() {
    let significant = |name| ChildSpec { restart: RestartType::Transient, significant: true, ..free(name) };
    let any = || SupervisorFlags { auto_shutdown: AutoShutdown::AnySignificant, ..flags(Strategy::OneForOne) };
    let mut sim = Sim::up(flags(Strategy::OneForOne), &["a", "b"]);
    change(&mut sim, any(), vec![significant("b")]).unwrap();
    sim.down("b", ExitReason::Normal);
    sim.calm();
    assert_eq!(sim.log().last().unwrap(), "finished");
    let mut sim = Sim::up_with(any(), vec![free("a"), significant("b")]);
    let refused = change(&mut sim, flags(Strategy::OneForOne), vec![significant("a")]);
    assert_eq!(refused, Err(Refusal::Invalid(SpecError::AutoShutdown { id: id("a") })));
    change(&mut sim, flags(Strategy::OneForOne), vec![free("a")]).unwrap();
    sim.down("b", ExitReason::Normal);
    sim.calm();
    assert_eq!(sim.state("a"), ChildState::Running, "the end of one that is kept leads to nothing, as in OTP");
    let mut sim = Sim::up_with(any(), vec![free("a"), significant("b")]);
    change(&mut sim, flags(Strategy::OneForOne), vec![ChildSpec { significant: false, ..significant("b") }]).unwrap();
    sim.down("b", ExitReason::Normal);
    sim.calm();
    assert_eq!(sim.state("a"), ChildState::Running);
}

#[test]
fn a_change_touches_no_record_and_no_delay() {
    let limited = |max| ChildSpec { intensity: at_most(max), ..free("a") };
    let mut sim = Sim::up_with(flags(Strategy::OneForOne), vec![limited(5)]);
    sim.crash_and_retry("a");
    sim.crash_and_retry("a");
    change(&mut sim, flags(Strategy::OneForOne), vec![limited(3)]).unwrap();
    assert_eq!((sim.node("a").restarts_in_window, sim.node("a").incarnation), (2, 3));
    sim.down("a", crash());
    assert_eq!(sim.state("a"), ChildState::BackingOff);
    change(&mut sim, flags(Strategy::OneForOne), vec![limited(3)]).unwrap();
    sim.after(Duration::ZERO);
    sim.calm();
    sim.down("a", crash());
    assert_eq!(sim.state("a"), ChildState::Failed, "by its new limit");
}
