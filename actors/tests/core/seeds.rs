//! Groups whose supervisor is born with what an earlier life of it left.

use std::time::{Duration, Instant};

use hivekeeper_actors::tree::{Input, Tree};
use hivekeeper_actors::{ChildSpec, ChildState, EventKind, ExitReason, Seed, SeedState, Strategy, SupervisorFlags};

use crate::sim::{S, Sim, crash, eager, new_child};

const RUNNING: SeedState = SeedState::Running;
const DELAYED: SeedState = SeedState::Delayed { retry_in: S };

fn seeded(strategy: Strategy, states: [SeedState; 3]) -> Sim {
    let children = ["a", "b", "c"].into_iter().zip(states).map(|(name, state)| {
        let seed = Seed { incarnation: 1, state, ..Seed::default() };
        new_child(ChildSpec { seed, intensity: None, ..eager(name) })
    });
    let tree = Tree::new("root", SupervisorFlags::new(strategy));
    let mut sim = Sim { tree, now: Instant::now(), log: vec![], answers: vec![], kinds: vec![] };
    sim.step(Input::Init(children.collect()));
    sim
}

fn stop(sim: &mut Sim, name: &str) {
    sim.down(name, ExitReason::Shutdown);
}

#[test]
fn a_group_restart_that_was_under_way_stops_what_still_lives_and_waits() {
    let mut sim = seeded(Strategy::OneForAll, [RUNNING, DELAYED, RUNNING]);
    assert_eq!(sim.log(), ["launch a 1 adopted", "launch c 1 adopted", "stop c"]);
    let told = sim.kinds.iter().any(|(id, kind)| id == "b" && matches!(kind, EventKind::GroupRestart { .. }));
    assert!(told, "{:?}", sim.kinds);
    sim.started("a");
    stop(&mut sim, "c");
    assert_eq!(sim.log(), ["stop a"]);
    stop(&mut sim, "a");
    assert_eq!(sim.log(), Vec::<String>::new(), "the back-off of the one that failed comes first");
    sim.after(S);
    for name in ["a", "b", "c"] {
        assert_eq!(sim.log(), [format!("launch {name} 2 by itself")]);
        sim.started(name);
    }
    assert_eq!(sim.log(), ["ready"]);
}

#[test]
fn what_started_before_the_failed_one_is_taken_over_and_lives_on() {
    let mut sim = seeded(Strategy::RestForOne, [RUNNING, DELAYED, SeedState::Fresh]);
    assert_eq!(sim.log(), ["launch a 1 adopted"]);
    sim.started("a");
    sim.after(S);
    assert_eq!(sim.log(), ["launch b 2 by itself"]);
    sim.started("b");
    assert_eq!(sim.log(), ["launch c 2"], "nobody was there to take it down");
    assert_eq!(sim.state("a"), ChildState::Running);
}

#[test]
fn a_loss_takes_its_group_along_and_debits_nobody() {
    let mut sim = seeded(Strategy::OneForAll, [SeedState::Lost, RUNNING, RUNNING]);
    assert_eq!(sim.log(), ["launch b 1 adopted", "launch c 1 adopted", "stop c"]);
    stop(&mut sim, "c");
    stop(&mut sim, "b");
    sim.after(Duration::ZERO);
    for name in ["a", "b", "c"] {
        sim.started(name);
        let node = sim.node(name);
        assert_eq!((node.incarnation, node.restarts, node.restarts_in_window), (2, 0, 0), "{node:?}");
    }
}

#[test]
fn one_that_turns_out_to_be_dead_takes_along_what_is_being_taken_over() {
    let mut sim = seeded(Strategy::OneForAll, [RUNNING, RUNNING, RUNNING]);
    assert_eq!(sim.log().len(), 3, "nobody waits for anybody");
    sim.down("a", crash());
    assert_eq!(sim.log(), ["stop c"]);
    stop(&mut sim, "c");
    assert_eq!(sim.log(), ["stop b"]);
    stop(&mut sim, "b");
    sim.after(Duration::ZERO);
    assert_eq!(sim.log(), ["launch a 2 by itself"]);
    assert_eq!(sim.node("a").restarts_in_window, 1);
}

#[test]
fn those_that_failed_together_come_back_in_order_with_a_fresh_window() {
    let failed = || SeedState::Failed { retry_in: Some(S) };
    let mut sim = seeded(Strategy::OneForAll, [failed(), failed(), RUNNING]);
    assert!(sim.log().contains(&"launch c 1 adopted".to_owned()), "somebody had started it alone, and it lives on");
    sim.started("c");
    assert_eq!(sim.state("a"), ChildState::Failed);
    sim.log();
    sim.after(S);
    assert_eq!(sim.log(), ["launch a 2 by itself"]);
    sim.started("a");
    assert_eq!(sim.log(), ["launch b 2 by itself"]);
    assert_eq!(sim.state("c"), ChildState::Running);
    assert_eq!(sim.node("a").restarts_in_window, 0);
}
