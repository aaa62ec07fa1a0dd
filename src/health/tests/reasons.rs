//! Nothing is worse than healthy without a reason, and every reason is written down.

use std::collections::BTreeSet;

use super::*;
use crate::{
    health::level::{self, Planes},
    model::{AgentState as S, Level, Reason},
};

const STATES: [S; 12] = [
    S::Pending,
    S::Starting,
    S::Running,
    S::Degraded,
    S::Stuck,
    S::Paused,
    S::Unknown,
    S::Stopping,
    S::Stopped,
    S::Completed,
    S::BackingOff,
    S::Failed,
];

fn coder() -> AgentId {
    id("review/coder")
}

/// An agent brought into a state by what is told of it. The compiler asks for the way into a new one.
fn in_state(state: S) -> Bench {
    let spec = AgentSpec { progress_timeout: PROGRESS, ..agent_spec("coder") };
    let mut bench = Bench::new();
    bench.declare(vec![spec.clone()], Desired::Running);
    if state == S::Pending {
        return bench;
    }
    bench.supervise(&coder(), 1, EventKind::Starting { attempt: 0 });
    if state == S::Starting {
        return bench;
    }
    bench.start(&coder(), 1);
    match state {
        S::Pending | S::Starting | S::Running => {}
        S::Degraded => _ = bench.pass(HEARTBEAT),
        S::Stuck => _ = bench.pass(PROGRESS),
        S::Paused => _ = bench.saw(&coder(), 1, Observation::Paused(true)),
        S::Unknown => _ = bench.saw(&coder(), 1, Observation::Unreachable),
        S::Stopping => _ = bench.supervise(&coder(), 1, EventKind::Stopping),
        S::Stopped => _ = bench.supervise(&coder(), 1, EventKind::Stopped),
        S::Completed => _ = bench.supervise(&coder(), 1, EventKind::Completed),
        S::BackingOff => {
            bench.supervise(&coder(), 1, EventKind::BackingOff { attempt: 1, delay: Duration::from_secs(9) });
        }
        S::Failed => {
            bench.supervise(&coder(), 1, EventKind::Failed { reason: ExitReason::Killed, retry_in: None });
        }
    }
    bench
}

#[test]
fn every_state_but_running_has_a_reason_that_says_something() {
    for state in STATES {
        let bench = in_state(state);
        let doc = bench.agent(&coder());
        assert_eq!(doc.state, state);
        assert_eq!(doc.reasons.is_empty(), state == S::Running, "{doc:?}");
        assert!(doc.reasons.iter().all(|reason| !reason.code.is_empty() && !reason.detail.is_empty()), "{doc:?}");
    }
}

#[test]
fn every_level_follows_from_reasons_that_name_whom() {
    for state in STATES {
        let doc = in_state(state).agent(&coder());
        for desired in [Desired::Running, Desired::Paused, Desired::Stopped] {
            let agent = AgentHealth { desired, ..(*doc).clone() };
            for group in [None, Some(None)] {
                let (level, reasons) = level::of_swarm(std::iter::once(&agent), group);
                assert_eq!(level == Level::Healthy, reasons.is_empty(), "{state:?} {desired:?}: {reasons:?}");
                assert!(reasons.iter().all(|reason| !reason.detail.is_empty()), "{reasons:?}");
                let named = |reason: &Reason| reason.detail.contains("coder");
                assert!(reasons.is_empty() || reasons.iter().any(named), "{state:?} {desired:?}: {reasons:?}");
            }
        }
    }
}

#[test]
fn the_hive_says_of_each_plane_and_each_level_why() {
    let swarm = |level| SwarmHealth { level, ..(*in_state(S::Running).swarm()).clone() };
    for bits in 0..64u8 {
        let [reconciled, reachable, listening, kept, told, roomy] = [1, 2, 4, 8, 16, 32].map(|bit| bits & bit != 0);
        for level in [Level::Healthy, Level::Degraded, Level::Unknown, Level::Critical] {
            let history = (!kept).then_some("disk full");
            let notify = (!told).then_some("oncall: no answer");
            let disk = (!roomy).then_some("1 MiB is free");
            let planes = Planes { reconciled, reachable, last_error: None, listening, history, notify, disk };
            let swarm = swarm(level);
            let (hive, reasons) = level::of_hive(std::iter::once(&swarm), planes);
            let mut expected = vec![];
            match (reconciled, reachable) {
                (false, _) => expected.push("not_reconciled"),
                (true, false) => expected.push("control_plane_failing"),
                (true, true) => {}
            }
            if reconciled && !listening {
                expected.push("data_plane_down");
            }
            if !kept {
                expected.push("history_failing");
            }
            if !told {
                expected.push("notify_failing");
            }
            if !roomy {
                expected.push("disk_low");
            }
            match level {
                Level::Healthy => {}
                Level::Degraded => expected.push("swarms_degraded"),
                Level::Unknown => expected.push("swarms_unknown"),
                Level::Critical => expected.push("swarms_critical"),
            }
            assert_eq!(codes(&reasons), expected, "{planes:?} {level:?}");
            assert_eq!(hive == Level::Healthy, expected.is_empty());
            assert!(hive >= level, "no plane hides what a swarm is like");
            assert!(reasons.iter().all(|reason| !reason.detail.is_empty()), "{reasons:?}");
        }
    }
}

/// Words in quotation marks that are codes and nothing else.
fn codes_in(text: &str, quote: char) -> BTreeSet<&str> {
    let is_code = |word: &&str| word.len() > 3 && word.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    text.lines().flat_map(|line| line.split(quote).skip(1).step_by(2)).filter(is_code).collect()
}

#[test]
fn the_list_of_reason_codes_is_the_code_s() {
    let listed = include_str!("../mod.rs").split("# Reason codes").nth(1).unwrap();
    let listed = codes_in(listed.split("\n\n").next().unwrap(), '`');
    let mut used = codes_in(include_str!("../agent/verdict.rs"), '"');
    used.extend(codes_in(include_str!("../level.rs"), '"'));
    used.extend(codes_in(include_str!("../source.rs"), '"'));
    // The runtime's words for what a start waits for.
    used.extend(["start_waits", "engine_unreachable"]);
    assert_eq!(listed, used);
}

/// Losing one plane neither hides nor restarts what the other still shows.
#[test]
fn losing_a_plane_leaves_what_the_other_shows() {
    let spec = AgentSpec { progress_timeout: PROGRESS, on_stuck: OnStuck::Restart, ..agent_spec("coder") };
    let mut bench = Bench::running(vec![spec]);
    bench.says(&coder(), 1, TelemetryKind::SessionOpened);
    bench.beat(&coder(), 1, Some("1"));
    bench.sample(&coder(), 1);

    // The control plane is gone: what agents say goes on being shown.
    for report in [
        Report::ControlPlane { ok: false, error: Some("the engine is gone".to_owned()) },
        Report::Engine { ok: false, error: Some("the engine is gone".to_owned()) },
        Report::Journal { ok: false, error: Some("disk full".to_owned()) },
    ] {
        bench.apply(report);
    }
    bench.pass(Duration::from_secs(5));
    bench.beat(&coder(), 1, Some("2"));
    bench.tick();
    let (hive, doc) = (bench.fold.hive(), bench.agent(&coder()));
    assert_eq!(codes(&hive.reasons), ["control_plane_failing"]);
    assert_eq!((doc.state, doc.progress.value().map(|progress| &**progress)), (S::Running, Some("2")));
    assert!(hive.data_plane.listening && hive.data_plane.events_per_second.value().is_some());
    assert_eq!(hive.swarms[0].level, Level::Healthy);

    // The data plane is gone, too: what launchers read goes on being shown, and the silence is told as silence.
    bench.apply(Report::DataPlane { listening: false, sessions: 0, connections: 0, turned_away: 0 });
    bench.says(&coder(), 1, TelemetryKind::SessionClosed);
    let mut changes = Vec::new();
    for _ in 0..10 {
        changes.extend(bench.pass(Duration::from_secs(5)));
        bench.sample(&coder(), 1);
    }
    bench.tick();
    let (hive, doc) = (bench.fold.hive(), bench.agent(&coder()));
    assert_eq!(codes(&hive.reasons), ["control_plane_failing", "data_plane_down"]);
    assert_eq!((doc.state, doc.cpu.value(), doc.incarnation), (S::Running, Some(&0.5), 1));
    assert_eq!(doc.progress.value().map(|progress| &**progress), Some("2"), "what was last said stays, with its time");
    assert!(!changes.iter().any(|change| matches!(change, Change::Stuck { .. })), "{changes:?}");

    // Both come back by themselves.
    for report in [
        Report::ControlPlane { ok: true, error: None },
        Report::Engine { ok: true, error: None },
        Report::Journal { ok: true, error: None },
        Report::DataPlane { listening: true, sessions: 1, connections: 1, turned_away: 0 },
    ] {
        bench.apply(report);
    }
    bench.tick();
    assert_eq!((bench.fold.hive().level, codes(&bench.fold.hive().reasons)), (Level::Healthy, vec![]));
}
