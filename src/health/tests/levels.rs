//! Swarms and the hive.

use super::*;
use crate::{
    health::SAMPLES_INTERVAL,
    model::{ContainerSpec, Level, Target},
};

fn two() -> Bench {
    Bench::running(vec![agent_spec("coder"), agent_spec("tester")])
}

fn coder() -> AgentId {
    id("review/coder")
}

fn tester() -> AgentId {
    id("review/tester")
}

fn fail(bench: &mut Bench, agent: &AgentId) {
    bench.crash(agent, 1, 1);
    bench.supervise(agent, 1, EventKind::Failed { reason: ExitReason::Normal, retry_in: None });
    bench.tick();
}

fn back_off(bench: &mut Bench, agent: &AgentId, delay: Duration) {
    bench.crash(agent, 1, 1);
    bench.supervise(agent, 1, EventKind::BackingOff { attempt: 1, delay });
    bench.tick();
}

#[test]
fn an_empty_hive_is_unknown_until_it_was_reconciled_and_healthy_then() {
    let now = Now { wall: SystemTime::UNIX_EPOCH, mono: Instant::now() };
    let fold = Fold::new(identity(), now);
    assert_eq!((fold.hive().level, codes(&fold.hive().reasons)), (Level::Unknown, vec!["not_reconciled"]));
    let hive = Bench::new().fold.hive();
    assert_eq!((hive.level, hive.reasons.len(), hive.agents.len()), (Level::Healthy, 0, 0));
    assert!(hive.control_plane.reachable);
}

#[test]
fn all_that_should_run_runs() {
    let bench = two();
    assert_eq!((bench.swarm().level, bench.swarm().reasons.len()), (Level::Healthy, 0));
    assert_eq!(bench.fold.hive().level, Level::Healthy);
}

#[test]
fn one_that_backs_off_degrades_and_one_that_failed_is_critical() {
    let mut bench = two();
    back_off(&mut bench, &coder(), Duration::from_secs(60));
    let swarm = bench.swarm();
    assert_eq!((swarm.level, codes(&swarm.reasons)), (Level::Degraded, vec!["agents_backing_off"]));
    assert_eq!(swarm.reasons[0].detail, "coder (exited with code 1)");
    assert_eq!(codes(&bench.fold.hive().reasons), ["swarms_degraded"]);
    fail(&mut bench, &tester());
    let swarm = bench.swarm();
    assert_eq!(swarm.level, Level::Critical);
    assert_eq!(codes(&swarm.reasons), ["agents_backing_off", "agents_failed", "no_agent_runs"]);
    assert_eq!(
        (bench.fold.hive().level, codes(&bench.fold.hive().reasons)),
        (Level::Critical, vec!["swarms_critical"])
    );
}

#[test]
fn a_swarm_of_one_that_restarts_at_once_is_never_critical() {
    let mut bench = Bench::running(vec![agent_spec("coder")]);
    back_off(&mut bench, &coder(), Duration::ZERO);
    assert_eq!(bench.swarm().level, Level::Degraded);
    bench.start(&coder(), 2);
    bench.tick();
    assert_eq!(bench.swarm().level, Level::Healthy);
    let mut bench = Bench::running(vec![agent_spec("coder")]);
    back_off(&mut bench, &coder(), Duration::from_secs(60));
    assert_eq!(bench.swarm().level, Level::Critical, "nothing runs for a minute");
}

#[test]
fn a_restart_within_one_turn_does_not_flicker() {
    let mut bench = Bench::running(vec![agent_spec("coder")]);
    bench.crash(&coder(), 1, 1);
    bench.supervise(&coder(), 1, EventKind::BackingOff { attempt: 1, delay: Duration::ZERO });
    bench.start(&coder(), 2);
    let changes = bench.tick();
    assert!(!changes.iter().any(|change| matches!(change, Change::Swarm { .. } | Change::Hive { .. })), "{changes:?}");
}

#[test]
fn starting_up_is_degraded() {
    let mut bench = Bench::new();
    bench.declare(vec![agent_spec("coder"), agent_spec("tester")], Desired::Running);
    bench.supervise(&coder(), 1, EventKind::Starting { attempt: 0 });
    bench.tick();
    let swarm = bench.swarm();
    assert_eq!((swarm.level, codes(&swarm.reasons)), (Level::Degraded, vec!["agents_starting", "agents_pending"]));
}

#[test]
fn what_an_operator_wants_is_healthy_when_it_is_so() {
    let mut bench = two();
    for desired in [Desired::Paused, Desired::Stopped] {
        bench.apply(Report::Desired { target: Target::Swarm("review".parse().unwrap()), desired });
        bench.tick();
        assert_eq!((bench.swarm().level, bench.swarm().desired), (Level::Degraded, desired), "asked, not done");
        for agent in [coder(), tester()] {
            match desired {
                Desired::Paused => {
                    bench.saw(&agent, 1, Observation::Paused(true));
                }
                _ => {
                    bench.crash(&agent, 1, 0);
                    bench.supervise(&agent, 1, EventKind::Stopped);
                }
            }
        }
        bench.tick();
        assert_eq!((bench.swarm().level, bench.swarm().reasons.len()), (Level::Healthy, 0), "{desired:?}");
    }
    // One agent's own word leaves its siblings and the swarm's word alone.
    let mut bench = two();
    bench.apply(Report::Desired { target: Target::Agent(coder()), desired: Desired::Stopped });
    bench.crash(&coder(), 1, 0);
    bench.supervise(&coder(), 1, EventKind::Stopped);
    bench.tick();
    assert_eq!((bench.swarm().level, bench.swarm().desired), (Level::Healthy, Desired::Running));
    assert_eq!(bench.agent(&tester()).desired, Desired::Running);
}

#[test]
fn an_unreachable_runtime_is_unknown() {
    let mut bench = two();
    bench.saw(&coder(), 1, Observation::Unreachable);
    bench.tick();
    assert_eq!((bench.swarm().level, codes(&bench.swarm().reasons)), (Level::Unknown, vec!["agents_unknown"]));
}

#[test]
fn the_planes_are_told_apart() {
    let mut bench = two();
    let agents = bench.fold.hive().agents;
    bench.apply(Report::Journal { ok: false, error: Some("disk full".to_owned()) });
    let changes = bench.tick();
    assert!(matches!(&changes[..], [Change::Hive { from: Level::Healthy, to: Level::Degraded, .. }]), "{changes:?}");
    let hive = bench.fold.hive();
    assert_eq!((hive.control_plane.reachable, hive.control_plane.last_error.as_deref()), (false, Some("disk full")));
    assert_eq!((hive.data_plane.listening, hive.agents), (true, agents.clone()), "what the other shows stays");
    bench.apply(Report::Journal { ok: true, error: None });
    bench.tick();
    let hive = bench.fold.hive();
    assert_eq!((hive.level, hive.control_plane.reachable), (Level::Healthy, true));
    assert_eq!(hive.control_plane.last_error.as_deref(), Some("disk full"), "stays to be read");

    bench.apply(Report::DataPlane { listening: false, sessions: 0, connections: 0, turned_away: 0 });
    bench.tick();
    let hive = bench.fold.hive();
    assert_eq!((hive.level, codes(&hive.reasons)), (Level::Degraded, vec!["data_plane_down"]));
    assert_eq!((hive.control_plane.reachable, hive.agents), (true, agents));
}

#[test]
fn an_engine_that_fails_is_a_control_plane_that_fails() {
    let mut bench = two();
    bench.apply(Report::Engine { ok: false, error: Some("no answer".to_owned()) });
    bench.tick();
    let hive = bench.fold.hive();
    assert_eq!((hive.level, hive.control_plane.reachable), (Level::Degraded, false));
    assert_eq!(hive.reasons[0].detail, "no answer");
    bench.apply(Report::Engine { ok: true, error: None });
    bench.tick();
    assert!(bench.fold.hive().control_plane.reachable);
}

#[test]
fn the_rate_is_measured() {
    let mut bench = two();
    bench.pass(Duration::from_secs(3));
    assert_eq!(bench.fold.hive().data_plane.events_per_second.value(), Some(&0.0));
    for _ in 0..40 {
        bench.beat(&coder(), 1, None);
    }
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.fold.hive().data_plane.events_per_second.value(), Some(&40.0));
    bench.says(&coder(), 1, TelemetryKind::Event { kind: Arc::from("note"), data: Arc::from("{}") });
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.fold.hive().data_plane.events_per_second.value(), Some(&1.0), "an event of its own is one, too");
}

#[test]
fn a_thousand_complaints_are_one_line() {
    let agents = AgentSpec { replicas: Some(1000), ..agent_spec("coder") };
    let mut bench = Bench::new();
    bench.declare(vec![agents], Desired::Running);
    bench.tick();
    let swarm = bench.swarm();
    assert_eq!(codes(&swarm.reasons), ["agents_pending"]);
    assert!(swarm.reasons[0].detail.ends_with(" and 995 more"), "{}", swarm.reasons[0].detail);
}

#[test]
fn where_a_swarm_runs_is_shown_and_makes_it_no_worse() {
    let mut bench = two();
    let home = |bench: &Bench| {
        let swarm = bench.swarm();
        assert_eq!((swarm.level, swarm.reasons.len()), (Level::Healthy, 0));
        swarm.home.clone()
    };
    assert_eq!(home(&bench).relaxations, ["no container"]);
    let adjusted = |to: &[&str]| Report::Adjusted {
        swarm: "review".parse().unwrap(),
        adjustments: to.iter().map(|text| (*text).to_owned()).collect(),
    };
    bench.apply(adjusted(&["limits.cpus 64 is 2"]));
    let told = bench.tick();
    let [Change::Swarm { swarm, .. }] = &told[..] else { panic!("{told:?}") };
    assert_eq!(swarm.home.adjustments, ["limits.cpus 64 is 2"]);
    bench.apply(adjusted(&["limits.cpus 64 is 2"]));
    assert!(bench.tick().is_empty(), "nothing has changed");

    // Another document for the same swarm, as after a change of the file.
    let spec = ContainerSpec::sidecar("dev".to_owned());
    let spec = SwarmSpec { home: Home::Docker(Arc::new(spec)), ..(*swarm_spec("review", vec![])).clone() };
    bench.apply(Report::Declared { spec: Arc::new(spec), desired: Desired::Running, seeds: Vec::new() });
    assert_eq!(bench.swarm().home.relaxations, ["container dev of others"]);
    assert_eq!(bench.swarm().home.adjustments, ["limits.cpus 64 is 2"], "until the engine says otherwise");
    bench.apply(adjusted(&[]));
    assert_eq!(bench.swarm().home.adjustments, [""; 0]);
}

/// Each agent is told of by itself, so reasons that change with every one of them are told no more often than measured values are.
#[test]
fn reasons_alone_are_told_once_a_second_and_a_level_at_once() {
    let names: Vec<_> = (0..50).map(|n| format!("a{n}")).collect();
    let mut bench = Bench::running(names.iter().map(|name| agent_spec(name)).collect());
    bench.pass(Duration::from_secs(2));
    let mut told = Vec::new();
    for name in &names {
        let agent = id(&format!("review/{name}"));
        let mut changes =
            bench.supervise(&agent, 1, EventKind::BackingOff { attempt: 1, delay: Duration::from_secs(9) });
        changes.extend(bench.tick());
        told.extend(changes.into_iter().filter_map(|change| match change {
            Change::Swarm { swarm, .. } => Some(swarm),
            _ => None,
        }));
    }
    let levels: Vec<_> = told.iter().map(|swarm| swarm.level).collect();
    assert_eq!(levels, [Level::Degraded, Level::Critical], "the first that is worse, and when none runs any more");
    assert!(told[0].reasons[0].detail.starts_with("a0"), "{:?}", told[0].reasons);
    let rest = bench.pass(SAMPLES_INTERVAL);
    assert!(!rest.iter().any(|change| matches!(change, Change::Swarm { .. })), "the last word was told with its level");
    bench.start(&id("review/a0"), 2);
    bench.tick();
    bench.start(&id("review/a1"), 2);
    assert_eq!(bench.tick(), [], "it was told just now");
    let late = bench.pass(2 * SAMPLES_INTERVAL).into_iter().find_map(|change| match change {
        Change::Swarm { swarm, .. } => Some(swarm.reasons[0].detail.clone()),
        _ => None,
    });
    assert!(late.is_some_and(|detail| detail.starts_with("a2")), "and is not forgotten");
}
