//! What holds whatever is reported, in whatever order.

use proptest::{prelude::*, strategy::Strategy};

use super::*;
use crate::model::{AgentState, Level, Observation};

#[derive(Debug, Clone)]
enum Step {
    Apply(Box<Report>),
    Pass(u64),
    WallBack(u64),
}

fn agents() -> Vec<AgentSpec> {
    vec![
        AgentSpec { progress_timeout: PROGRESS, on_stuck: OnStuck::Restart, ..agent_spec("coder") },
        AgentSpec { restart: RestartType::Transient, ..agent_spec("tester") },
    ]
}

fn agent_ids() -> impl Strategy<Value = AgentId> {
    prop_oneof![Just(id("review/coder")), Just(id("review/tester")), Just(id("other/ghost"))]
}

fn at() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn kinds() -> impl Strategy<Value = EventKind> {
    prop_oneof![
        Just(EventKind::Starting { attempt: 0 }),
        Just(EventKind::Started { took: Duration::ZERO }),
        Just(EventKind::Exited { reason: ExitReason::Killed }),
        (0u64..90).prop_map(|s| EventKind::BackingOff { attempt: 1, delay: Duration::from_secs(s) }),
        Just(EventKind::Failed { reason: ExitReason::Normal, retry_in: Some(Duration::from_secs(5)) }),
        Just(EventKind::Completed),
        Just(EventKind::Stopping),
        Just(EventKind::Stopped),
    ]
}

fn runtime_reports() -> impl Strategy<Value = Observation> {
    prop_oneof![
        Just(Observation::Alive { pid: 9, at: at() }),
        Just(Observation::Sample { at: at(), cpu_cores: None, memory_bytes: 1, processes: 1 }),
        Just(Observation::Output { at: at(), lines: 1 }),
        Just(Observation::Lost { lines: 1, bytes: 1 }),
        any::<bool>().prop_map(Observation::Paused),
        (1u64..4).prop_map(|n| Observation::Exited(exit_record(n, 1))),
        Just(Observation::Unreachable),
    ]
}

fn telemetry() -> impl Strategy<Value = TelemetryKind> {
    prop_oneof![
        Just(TelemetryKind::SessionOpened),
        Just(TelemetryKind::SessionClosed),
        (0u8..3).prop_map(|n| TelemetryKind::Heartbeat { progress: Some(Arc::from(n.to_string())), busy: None }),
        Just(TelemetryKind::Usage(Box::default())),
    ]
}

fn reports() -> impl Strategy<Value = Report> {
    let desired = prop_oneof![Just(Desired::Running), Just(Desired::Paused), Just(Desired::Stopped)];
    prop_oneof![
        4 => (agent_ids(), 0u64..4, kinds(), 0u32..3).prop_map(|(agent, incarnation, kind, restarts_in_window)| {
            let event = SupervisionEvent {
                path: Arc::from("root"),
                id: agent.name.as_str().into(),
                incarnation,
                restarts: 0,
                restarts_in_window,
                kind,
            };
            Report::Supervision { agent, event }
        }),
        4 => (agent_ids(), 0u64..4, runtime_reports())
            .prop_map(|(agent, incarnation, event)| Report::Runtime { agent, incarnation, event }),
        3 => (agent_ids(), 0u64..4, telemetry()).prop_map(|(agent, incarnation, kind)| {
            Report::Telemetry(vec![Telemetry { agent, incarnation, at: at(), kind }])
        }),
        1 => (agent_ids(), desired)
            .prop_map(|(agent, desired)| Report::Desired { target: crate::model::Target::Agent(agent), desired }),
        1 => any::<bool>().prop_map(|ok| Report::ControlPlane { ok, error: None }),
        1 => any::<bool>().prop_map(|listening| Report::DataPlane { listening, sessions: 0, connections: 0, turned_away: 0 }),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(
        prop_oneof![
            5 => reports().prop_map(|report| Step::Apply(Box::new(report))),
            2 => (0u64..40).prop_map(Step::Pass),
            1 => (0u64..100_000).prop_map(Step::WallBack),
        ],
        1..60,
    )
}

fn check(bench: &Bench) -> Result<(), TestCaseError> {
    let hive = bench.fold.hive();
    prop_assert_eq!(hive.level == Level::Healthy, hive.reasons.is_empty(), "hive {:?}", hive.reasons);
    for swarm in &hive.swarms {
        prop_assert_eq!(swarm.level == Level::Healthy, swarm.reasons.is_empty(), "{:?}", swarm);
        prop_assert!(hive.level >= swarm.level, "the hive is at least as bad as its parts");
    }
    for agent in &hive.agents {
        prop_assert_eq!(agent.state == AgentState::Running, agent.reasons.is_empty(), "{:?}", agent);
        if matches!(agent.state, AgentState::Stopped | AgentState::Pending) {
            prop_assert_eq!(agent.cpu.value(), None, "{:?}", agent);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn documents_hold_together(steps in steps()) {
        let mut bench = Bench::running(agents());
        for step in steps {
            let before = bench.fold.hive();
            match step {
                Step::Apply(report) => { bench.apply(*report); bench.tick(); }
                Step::Pass(seconds) => { bench.pass(Duration::from_secs(seconds)); }
                Step::WallBack(seconds) => bench.now.wall -= Duration::from_secs(seconds),
            }
            check(&bench)?;
            let after = bench.fold.hive();
            for (old, new) in before.agents.iter().zip(&after.agents) {
                prop_assert!(old.since == new.since || old.state != new.state || bench.now.wall < old.since || seen_twice(old, new),
                    "since moved without the state: {old:?} {new:?}");
                prop_assert!(new.incarnation >= old.incarnation);
            }
        }
    }

    #[test]
    fn the_same_report_twice_changes_nothing_more(steps in steps(), again in reports()) {
        let mut bench = Bench::running(agents());
        for step in steps {
            match step {
                Step::Apply(report) => { bench.apply(*report); }
                Step::Pass(seconds) => { bench.pass(Duration::from_secs(seconds)); }
                Step::WallBack(seconds) => bench.now.wall -= Duration::from_secs(seconds),
            }
        }
        bench.apply(again.clone());
        bench.tick();
        let changes = bench.apply(again);
        let told = changes.iter().any(|change| matches!(change, Change::Agent { .. } | Change::Stuck { .. }));
        prop_assert!(!told, "{:?}", changes);
        let changes = bench.tick();
        prop_assert!(changes.iter().all(|change| matches!(change, Change::Samples(_))), "{:?}", changes);
    }
}

/// A step may pass through other states and come back within one pass.
fn seen_twice(old: &AgentHealth, new: &AgentHealth) -> bool {
    new.since > old.since
}
