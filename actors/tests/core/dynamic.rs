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

/// More than are asked to end in one step.
const MANY: usize = 1_200;

fn many() -> Sim {
    Sim::up_with(simple(), (0..MANY).map(|n| free(&format!("w{n}"))).collect())
}

#[test]
fn very_many_are_asked_to_end_a_few_hundred_at_a_time() {
    let mut sim = many();
    sim.step(Input::Shutdown);
    assert!((100..MANY / 2).contains(&sim.log.len()), "{} in one step", sim.log.len());
    let (begun, all) = (sim.now, (0..MANY).rev().map(|n| format!("stop w{n}")).collect::<Vec<_>>());
    // None of them ends: they take their time, and the others are asked all the same.
    while sim.log.len() < MANY {
        let due = sim.tree.next_deadline().expect("others to be asked");
        assert!(due - sim.now <= Duration::from_millis(10) && due > sim.now, "in {:?}", due - sim.now);
        sim.after(due - sim.now);
    }
    assert_eq!(sim.log(), all);
    let due = sim.tree.next_deadline().expect("deadlines");
    assert!(due >= begun + S && sim.now < begun + S, "nothing else is waited for");
}

#[test]
fn those_that_end_make_way_for_others_and_slow_ones_hold_up_nobody() {
    let mut sim = many();
    sim.step(Input::Shutdown);
    let slow = sim.log();
    let due = sim.tree.next_deadline().expect("others to be asked");
    sim.after(due - sim.now);
    let mut quick = sim.log();
    assert_eq!(quick.len(), slow.len());
    // Time stands still.
    let mut ended = 0;
    while let Some(stop) = quick.get(ended).cloned() {
        sim.down(stop.trim_start_matches("stop "), ExitReason::Shutdown);
        quick.extend(sim.log().into_iter().filter(|line| line.starts_with("stop ")));
        ended += 1;
    }
    assert_eq!(ended + slow.len(), MANY);
    sim.calm();
    assert_eq!(sim.log().last().map(String::as_str), Some("finished"));
}

#[test]
fn a_stop_of_very_many_ends_under_another_strategy() {
    let mut sim = many();
    sim.ask(1, Request::StopAll);
    let flags = SupervisorFlags::unlimited(Strategy::OneForOne);
    sim.ask(2, Request::Change { flags, children: Vec::new() });
    let due = sim.tree.next_deadline().expect("deadlines of those that were asked");
    assert!(due >= sim.now + S, "nothing is asked for that nobody answers");
    sim.calm();
    assert_eq!(sim.answers(), [(2, Ok(())), (1, Ok(()))]);
    assert_eq!(sim.tree.counts().active, 0);
}
