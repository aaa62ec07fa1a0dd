//! simple_one_for_one: children come and go.

use std::time::Duration;

use hivekeeper_actors::tree::{Input, Refusal, Request};
use hivekeeper_actors::{ChildSpec, ChildState, Counts, ExitReason, RestartType, Strategy, SupervisorFlags};

use crate::sim::*;

fn simple() -> SupervisorFlags {
    SupervisorFlags::unlimited(Strategy::SimpleOneForOne)
}

#[test]
fn children_start_beside_each_other() {
    let mut sim = Sim::under(simple(), vec![]);
    assert_eq!(sim.log(), ["ready"]);
    sim.ask(1, Request::Start(new_child(free("a"))));
    sim.ask(2, Request::Start(new_child(free("b"))));
    assert_eq!(sim.log(), ["launch a 1", "launch b 1"]);
    sim.started("b");
    sim.started("a");
    assert_eq!(sim.answers(), [(2, Ok(())), (1, Ok(()))]);
}

#[test]
fn simple_one_for_one() {
    let mut sim = Sim::up(simple(), &["a", "b"]);
    sim.down("a", crash());
    sim.after(Duration::ZERO);
    assert_eq!(sim.log(), ["launch a 2 by itself"]);
}

#[test]
fn what_has_ended_for_good_is_forgotten_unless_retained() {
    let done = |retain| ChildSpec { restart: RestartType::Transient, retain, ..free("a") };
    let mut sim = Sim::up_with(simple(), vec![done(false)]);
    sim.down("a", ExitReason::Normal);
    assert_eq!((sim.log(), sim.tree.counts()), (vec!["dispose payload".into()], Counts::default()));
    let mut sim = Sim::up_with(simple(), vec![done(true)]);
    sim.down("a", ExitReason::Normal);
    assert_eq!(sim.state("a"), ChildState::Completed);
    let mut sim = Sim::up(simple(), &["a"]);
    sim.ask(1, Request::Terminate(id("a")));
    sim.down("a", ExitReason::Shutdown);
    assert_eq!((sim.answers(), sim.is_there("a")), (vec![(1, Ok(()))], false));
}

#[test]
fn child_adm_simple() {
    let mut sim = Sim::up(simple(), &["a"]);
    sim.ask(1, Request::Restart(id("a")));
    sim.ask(2, Request::Delete(id("a")));
    sim.ask(3, Request::Terminate(id("x")));
    assert_eq!(
        sim.answers(),
        [(1, Err(Refusal::SimpleOneForOne)), (2, Err(Refusal::SimpleOneForOne)), (3, Err(Refusal::NotFound))]
    );
}

#[test]
fn simple_one_for_one_shutdown() {
    let slow = |name, secs| ChildSpec { shutdown: hivekeeper_actors::Shutdown::Deadline(S * secs), ..free(name) };
    let mut sim = Sim::up_with(simple(), vec![slow("a", 3), slow("b", 1), slow("c", 2)]);
    sim.step(Input::Shutdown);
    assert_eq!(sim.log(), ["stop c", "stop b", "stop a"], "all at once");
    sim.down("c", ExitReason::Shutdown);
    sim.after(S);
    sim.down("b", ExitReason::Killed);
    sim.after(S * 2);
    assert_eq!(sim.log(), ["dispose payload", "kill b", "dispose payload", "kill a"]);
    sim.down("a", ExitReason::Killed);
    assert_eq!(sim.log(), ["dispose payload", "finished"]);
}

#[test]
fn counts_follow_whatever_happens() {
    let mut sim = Sim::under(simple(), (0..100).map(|n| free(&format!("w{n}"))).collect());
    assert_eq!(sim.tree.counts(), Counts { specs: 100, active: 100, supervisors: 0, workers: 100 });
    sim.calm();
    for n in 0..30 {
        sim.down(&format!("w{n}"), crash());
    }
    assert_eq!(sim.tree.counts(), Counts { specs: 100, active: 70, supervisors: 0, workers: 100 });
    for n in 0..30 {
        sim.ask(n, Request::Terminate(id(&format!("w{n}"))));
    }
    assert_eq!(sim.tree.counts(), Counts { specs: 70, active: 70, supervisors: 0, workers: 70 });
}
