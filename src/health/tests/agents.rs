//! One agent's life.

use super::*;
use crate::{
    health::Standing,
    model::{AgentState as S, Measured, Source, health::Absent},
};

fn coder() -> AgentId {
    id("review/coder")
}

fn stuckable(on_stuck: OnStuck) -> AgentSpec {
    AgentSpec { progress_timeout: PROGRESS, on_stuck, ..agent_spec("coder") }
}

fn source<T>(measured: &Measured<T>) -> Option<Source> {
    match measured {
        Measured::Value { source, .. } => Some(*source),
        Measured::Absent(_) => None,
    }
}

#[test]
fn a_life_from_pending_to_running() {
    let mut bench = Bench::new();
    let changes = bench.declare(vec![agent_spec("coder")], Desired::Running);
    assert!(matches!(&changes[..], [Change::Agent { from: None, agent }] if agent.state == S::Pending));
    let doc = bench.agent(&coder());
    assert_eq!((codes(&doc.reasons), doc.incarnation, doc.pid), (vec!["not_started"], 0, None));
    assert_eq!(doc.cpu, Measured::Absent(Absent::NeverObserved));

    bench.supervise(&coder(), 1, EventKind::Starting { attempt: 0 });
    assert_eq!(codes(&bench.agent(&coder()).reasons), ["no_sign_of_life"]);
    bench.saw(&coder(), 1, Observation::Waiting { code: "start_waits", reason: "the journal is full".to_owned() });
    assert_eq!(bench.agent(&coder()).reasons[0].detail, "the journal is full");
    bench.saw(&coder(), 1, Observation::Alive { pid: 7, at: bench.now.wall });
    let doc = bench.agent(&coder());
    assert_eq!((doc.state, codes(&doc.reasons), doc.pid), (S::Starting, vec!["no_sign_of_life"], Some(7)));

    bench.now.wall += Duration::from_secs(1);
    bench.now.mono += Duration::from_secs(1);
    let changes = bench.supervise(&coder(), 1, EventKind::Started { took: Duration::ZERO });
    assert!(matches!(&changes[..], [Change::Agent { from: Some(S::Starting), agent }] if agent.state == S::Running));
    let doc = bench.agent(&coder());
    assert_eq!((doc.reasons.len(), doc.since), (0, bench.now.wall));
}

#[test]
fn the_launcher_beats_until_there_is_a_session_and_the_agent_afterwards() {
    let mut bench = Bench::running(vec![agent_spec("coder")]);
    bench.sample(&coder(), 1);
    assert_eq!(source(&bench.agent(&coder()).last_heartbeat), Some(Source::Launcher));
    bench.says(&coder(), 1, TelemetryKind::SessionOpened);
    bench.beat(&coder(), 1, None);
    // Readings go on, but they say nothing about the program any more.
    for _ in 0..8 {
        bench.pass(Duration::from_secs(2));
        bench.sample(&coder(), 1);
    }
    let doc = bench.agent(&coder());
    assert_eq!(source(&doc.last_heartbeat), Some(Source::Agent));
    assert_eq!((doc.state, codes(&doc.reasons)), (S::Degraded, vec!["heartbeat_overdue"]));
    assert_eq!(source(&doc.cpu), Some(Source::Launcher));
    bench.beat(&coder(), 1, None);
    assert_eq!(bench.agent(&coder()).state, S::Running);
    // Without a session the launcher governs again.
    bench.says(&coder(), 1, TelemetryKind::SessionClosed);
    for _ in 0..20 {
        bench.pass(Duration::from_secs(2));
        bench.sample(&coder(), 1);
    }
    assert_eq!(bench.agent(&coder()).state, S::Running);
}

#[test]
fn degraded_comes_at_the_timeout_not_before_and_restarts_nothing() {
    let mut bench = Bench::running(vec![stuckable(OnStuck::Restart)]);
    bench.says(&coder(), 1, TelemetryKind::SessionOpened);
    let before = bench.pass(HEARTBEAT - Duration::from_millis(1));
    assert!(!before.iter().any(|change| matches!(change, Change::Agent { .. })), "{before:?}");
    let after = bench.pass(Duration::from_millis(1));
    assert_eq!(bench.agent(&coder()).state, S::Degraded);
    assert!(!after.iter().any(|change| matches!(change, Change::Stuck { .. })));
}

#[test]
fn progress_is_a_changed_value_or_a_line() {
    let mut bench = Bench::running(vec![stuckable(OnStuck::Report)]);
    bench.says(&coder(), 1, TelemetryKind::SessionOpened);
    let beats = |bench: &mut Bench, seconds: u64, progress: &str| {
        for _ in 0..seconds / 5 {
            bench.pass(Duration::from_secs(5));
            bench.beat(&coder(), 1, Some(progress));
        }
    };
    bench.beat(&coder(), 1, Some("1"));
    beats(&mut bench, 55, "1");
    assert_eq!(bench.agent(&coder()).state, S::Running);
    beats(&mut bench, 5, "2");
    beats(&mut bench, 55, "2");
    assert_eq!(bench.agent(&coder()).state, S::Running, "a changed value is progress");
    beats(&mut bench, 5, "2");
    let doc = bench.agent(&coder());
    assert_eq!((doc.state, codes(&doc.reasons)), (S::Stuck, vec!["no_progress"]), "the same value is none");
    bench.saw(&coder(), 1, Observation::Output { at: bench.now.wall, lines: 1 });
    assert_eq!(bench.agent(&coder()).state, S::Running, "a line is progress");
    bench.says(&coder(), 1, TelemetryKind::Counted(1));
    beats(&mut bench, 60, "2");
    assert_eq!(bench.agent(&coder()).state, S::Stuck, "a metric is none");
}

#[test]
fn stuck_asks_for_a_restart_once_and_only_if_its_document_does() {
    for (on_stuck, asked) in [(OnStuck::Report, 0), (OnStuck::Restart, 1)] {
        let mut bench = Bench::running(vec![stuckable(on_stuck)]);
        let changes = bench.pass(PROGRESS * 3);
        let restarts: Vec<_> = changes.iter().filter(|change| matches!(change, Change::Stuck { .. })).collect();
        assert_eq!(restarts.len(), asked, "{on_stuck:?}");
        assert!(restarts.iter().all(|change| **change == Change::Stuck { agent: coder(), incarnation: 1 }));
        // Silent, too: both are told.
        assert_eq!(codes(&bench.agent(&coder()).reasons), ["no_progress", "heartbeat_overdue"]);
    }
}

#[test]
fn a_zero_progress_timeout_never_judges() {
    let mut bench = Bench::running(vec![agent_spec("coder")]);
    for _ in 0..100 {
        bench.pass(Duration::from_secs(10));
        bench.sample(&coder(), 1);
    }
    assert_eq!(bench.agent(&coder()).state, S::Running);
}

#[test]
fn the_clocks_of_a_paused_agent_stand_still() {
    let mut bench = Bench::running(vec![stuckable(OnStuck::Restart)]);
    bench.says(&coder(), 1, TelemetryKind::SessionOpened);
    bench.pass(Duration::from_secs(10));
    bench.saw(&coder(), 1, Observation::Paused(true));
    let changes = bench.pass(Duration::from_secs(600));
    assert!(!changes.iter().any(|change| matches!(change, Change::Stuck { .. })));
    let doc = bench.agent(&coder());
    assert_eq!((doc.state, codes(&doc.reasons)), (S::Paused, vec!["paused_by_operator"]));
    bench.saw(&coder(), 1, Observation::Paused(false));
    bench.pass(Duration::from_millis(4_999));
    assert_eq!(bench.agent(&coder()).state, S::Running);
    bench.pass(Duration::from_millis(1));
    assert_eq!(bench.agent(&coder()).state, S::Degraded, "10 s before and 5 s after make 15 s");
}

#[test]
fn an_unreachable_runtime_makes_unknown_until_it_reports_again() {
    let mut bench = Bench::running(vec![stuckable(OnStuck::Restart)]);
    bench.saw(&coder(), 1, Observation::Unreachable);
    let changes = bench.pass(PROGRESS * 2);
    assert!(!changes.iter().any(|change| matches!(change, Change::Stuck { .. })));
    let doc = bench.agent(&coder());
    assert_eq!((doc.state, codes(&doc.reasons)), (S::Unknown, vec!["runtime_unreachable"]));
    bench.sample(&coder(), 1);
    assert_eq!(bench.agent(&coder()).state, S::Running);
}

#[test]
fn an_end_is_told_by_its_record() {
    let mut bench = Bench::running(vec![agent_spec("coder")]);
    bench.sample(&coder(), 1);
    bench.restarts = 0;
    bench.in_window = 1;
    bench.crash(&coder(), 1, 3);
    let delay = Duration::from_secs(30);
    bench.supervise(&coder(), 1, EventKind::BackingOff { attempt: 1, delay });
    let doc = bench.agent(&coder());
    assert_eq!((doc.state, doc.pid), (S::BackingOff, None));
    assert_eq!((doc.reasons[0].code, doc.reasons[0].detail.as_str()), ("restart_delayed", "exited with code 3"));
    assert_eq!(doc.retry_at, Some(bench.now.wall + delay));
    assert_eq!(doc.last_exit, Some(exit_record(1, 3)));
    assert_eq!(doc.cpu, Measured::Absent(Absent::Stale), "nothing runs that could use a core");

    bench.restarts = 1;
    bench.start(&coder(), 2);
    let doc = bench.agent(&coder());
    assert_eq!((doc.state, doc.incarnation, doc.restarts, doc.retry_at), (S::Running, 2, 1, None));
    assert_eq!(doc.memory, Measured::Absent(Absent::NeverObserved), "another incarnation, nothing observed yet");
    assert_eq!(doc.last_exit, Some(exit_record(1, 3)), "the last exit stays to be read");
}

#[test]
fn an_end_without_a_record_shows_the_cause_and_invents_no_exit() {
    let mut bench = Bench::running(vec![agent_spec("coder")]);
    let reason = ExitReason::Panic { text: Arc::from("oops"), location: Arc::from("x.rs:1:1") };
    bench.supervise(&coder(), 1, EventKind::Exited { reason: reason.clone() });
    bench.supervise(&coder(), 1, EventKind::Failed { reason, retry_in: None });
    let doc = bench.agent(&coder());
    assert_eq!((doc.state, doc.last_exit.clone()), (S::Failed, None));
    assert_eq!((doc.reasons[0].code, doc.reasons[0].detail.as_str()), ("gave_up", "panic at x.rs:1:1: oops"));
}

#[test]
fn the_end_of_one_incarnation_does_not_explain_the_next() {
    let mut bench = Bench::running(vec![agent_spec("coder")]);
    bench.crash(&coder(), 1, 3);
    bench.supervise(&coder(), 2, EventKind::Starting { attempt: 1 });
    bench.supervise(&coder(), 2, EventKind::Exited { reason: ExitReason::Killed });
    bench.supervise(&coder(), 2, EventKind::BackingOff { attempt: 2, delay: Duration::from_secs(9) });
    assert_eq!(bench.agent(&coder()).reasons[0].detail, "killed");
}

#[test]
fn failed_tells_when_it_is_tried_again_and_how_it_came_to_it() {
    for (restart, code) in [(RestartType::Permanent, "gave_up"), (RestartType::Temporary, "exited_abnormally")] {
        let mut bench = Bench::running(vec![AgentSpec { restart, ..agent_spec("coder") }]);
        bench.crash(&coder(), 1, 1);
        let retry_in = (restart == RestartType::Permanent).then_some(Duration::from_secs(600));
        bench.supervise(&coder(), 1, EventKind::Failed { reason: ExitReason::Normal, retry_in });
        let doc = bench.agent(&coder());
        assert_eq!((doc.state, codes(&doc.reasons)), (S::Failed, vec![code]));
        assert_eq!(doc.retry_at, retry_in.map(|wait| bench.now.wall + wait));
    }
}

#[test]
fn an_operators_stop_and_a_normal_end() {
    let mut bench = Bench::running(vec![agent_spec("coder")]);
    bench.apply(Report::Desired { target: crate::model::Target::Agent(coder()), desired: Desired::Stopped });
    bench.supervise(&coder(), 1, EventKind::Stopping);
    assert_eq!(codes(&bench.agent(&coder()).reasons), ["stop_requested"]);
    bench.crash(&coder(), 1, 0);
    bench.supervise(&coder(), 1, EventKind::Stopped);
    let doc = bench.agent(&coder());
    assert_eq!((doc.state, codes(&doc.reasons)), (S::Stopped, vec!["stopped_by_operator"]));
    bench.start(&coder(), 2);
    bench.crash(&coder(), 2, 0);
    bench.supervise(&coder(), 2, EventKind::Completed);
    assert_eq!(codes(&bench.agent(&coder()).reasons), ["exited_normally"]);
}

#[test]
fn an_older_incarnation_is_ignored_and_counted() {
    let mut bench = Bench::running(vec![agent_spec("coder")]);
    bench.crash(&coder(), 1, 3);
    bench.start(&coder(), 2);
    let before = bench.agent(&coder());
    bench.beat(&coder(), 1, Some("9"));
    bench.sample(&coder(), 1);
    bench.saw(&coder(), 1, Observation::Alive { pid: 1, at: bench.now.wall });
    bench.supervise(&coder(), 1, EventKind::Stopped);
    bench.says(&coder(), 1, TelemetryKind::Event { kind: Arc::from("x"), data: Arc::from("{}") });
    let doc = bench.agent(&coder());
    let counted = (doc.telemetry.received, doc.telemetry.dropped.events, doc.dropped);
    assert_eq!(counted, (2, 1, 1), "the heartbeat and the event");
    assert_eq!(AgentHealth { telemetry: before.telemetry.clone(), dropped: 0, ..(*doc).clone() }, *before);
    // A record that arrives late is still how that incarnation ended, and never overwrites a younger one.
    bench.crash(&coder(), 2, 4);
    bench.saw(&coder(), 1, Observation::Exited(exit_record(1, 5)));
    assert_eq!(bench.agent(&coder()).last_exit, Some(exit_record(2, 4)));
}

#[test]
fn values_become_stale_when_readings_stop() {
    let mut bench = Bench::running(vec![agent_spec("coder")]);
    bench.sample(&coder(), 1);
    bench.pass(Duration::from_millis(9_999));
    assert!(bench.agent(&coder()).cpu.value().is_some());
    bench.pass(Duration::from_millis(1));
    assert_eq!(bench.agent(&coder()).cpu, Measured::Absent(Absent::Stale));
    assert!(bench.agent(&coder()).last_heartbeat.value().is_some(), "when it was last heard stays true");
}

#[test]
fn the_window_slides_with_time() {
    let mut bench = Bench::running(vec![agent_spec("coder")]);
    (bench.restarts, bench.in_window) = (1, 1);
    bench.start(&coder(), 2);
    bench.tick();
    bench.pass(Duration::from_secs(30));
    (bench.restarts, bench.in_window) = (2, 2);
    bench.start(&coder(), 3);
    assert_eq!(bench.agent(&coder()).restarts_in_window, 2);
    bench.pass(Duration::from_secs(31));
    assert_eq!(bench.agent(&coder()).restarts_in_window, 1);
    bench.pass(Duration::from_secs(31));
    let doc = bench.agent(&coder());
    assert_eq!((doc.restarts_in_window, doc.restarts), (0, 2));
}

#[test]
fn a_seed_is_shown_until_the_tree_acts() {
    let retry_at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_060);
    for (standing, state) in [
        (Standing::Active, S::Pending),
        (Standing::BackingOff { retry_at }, S::BackingOff),
        (Standing::Failed { retry_at: None }, S::Failed),
        (Standing::Completed, S::Completed),
        (Standing::Stopped, S::Stopped),
    ] {
        let mut bench = Bench::new();
        let recent = vec![Duration::from_secs(50), Duration::from_secs(1)];
        let last_exit = Some(exit_record(4, 9));
        let seed = AgentSeed { incarnation: 4, restarts: 3, lives: false, recent, last_exit, standing, spent: None };
        bench.declare_seeded(agent_spec("coder"), seed);
        let doc = bench.agent(&coder());
        assert_eq!((doc.state, doc.incarnation, doc.restarts), (state, 4, 3));
        assert_eq!(doc.restarts_in_window, 2);
        assert!(!doc.reasons.is_empty());
        assert_eq!(doc.retry_at.is_some(), state == S::BackingOff);
    }
    // What is adopted keeps its incarnation and counts no restart.
    let mut bench = Bench::new();
    bench.declare_seeded(agent_spec("coder"), AgentSeed { incarnation: 4, ..AgentSeed::default() });
    bench.start(&coder(), 4);
    bench.sample(&coder(), 4);
    let doc = bench.agent(&coder());
    assert_eq!((doc.state, doc.incarnation, doc.restarts, doc.pid), (S::Running, 4, 0, Some(4711)));
    assert!(doc.cpu.value().is_some());
}

#[test]
fn what_is_to_be_taken_over_is_heard_before_the_tree_acts() {
    for lives in [true, false] {
        let mut bench = Bench::new();
        bench.declare_seeded(agent_spec("coder"), AgentSeed { incarnation: 4, lives, ..AgentSeed::default() });
        bench.says(&coder(), 4, TelemetryKind::SessionOpened);
        bench.says(&coder(), 4, TelemetryKind::Heartbeat { progress: None, busy: None });
        assert_eq!(bench.agent(&coder()).last_heartbeat.value().is_some(), lives);
        bench.start(&coder(), 4);
        bench.sample(&coder(), 4);
        let source = match bench.agent(&coder()).last_heartbeat {
            Measured::Value { source, .. } => Some(source),
            Measured::Absent(_) => None,
        };
        assert_eq!(source, Some(if lives { Source::Agent } else { Source::Launcher }), "its session is known");
    }
}

#[test]
fn what_has_ended_does_not_run_whatever_its_supervisor_has_said_so_far() {
    let mut bench = Bench::running(vec![agent_spec("coder")]);
    bench.saw(&coder(), 1, Observation::Exited(exit_record(1, 5)));
    let doc = bench.agent(&coder());
    assert_eq!((doc.state, doc.pid), (S::Pending, None));
    assert_eq!(doc.reasons[0].code, "exited");
}

#[test]
fn an_agents_own_event_passes_through() {
    let mut bench = Bench::running(vec![agent_spec("coder")]);
    let changes = bench.says(&coder(), 1, TelemetryKind::Event { kind: Arc::from("pr"), data: Arc::from("{}") });
    let Change::Said { agent, incarnation: 1, kind, .. } = &changes[0] else { panic!("{changes:?}") };
    assert_eq!((agent, &**kind), (&coder(), "pr"));
}

#[test]
fn samples_are_told_once_a_second_and_states_at_once() {
    let mut bench = Bench::running(vec![agent_spec("coder"), agent_spec("tester")]);
    bench.pass(Duration::from_secs(2));
    let mut told = Vec::new();
    for _ in 0..50 {
        let mut changes = bench.sample(&coder(), 1);
        changes.extend(bench.sample(&id("review/tester"), 1));
        changes.extend(bench.pass(Duration::from_millis(100)));
        told.extend(changes);
    }
    let samples: Vec<_> = told.iter().filter(|change| matches!(change, Change::Samples(_))).collect();
    assert_eq!(samples.len(), told.len(), "nothing but samples: {told:?}");
    assert!((4..=6).contains(&samples.len()), "{} in five seconds", samples.len());
    assert!(samples.iter().all(|change| matches!(change, Change::Samples(agents) if agents.len() == 2)));
}

#[test]
fn loss_is_counted_on_the_agent_and_on_the_plane() {
    let mut bench = Bench::running(vec![agent_spec("coder")]);
    bench.saw(&coder(), 1, Observation::Lost { lines: 12, bytes: 400 });
    assert_eq!((bench.agent(&coder()).dropped, bench.fold.hive().data_plane.dropped), (12, 12));
    bench.crash(&coder(), 1, 1);
    bench.start(&coder(), 2);
    assert_eq!(bench.agent(&coder()).dropped, 12, "over all incarnations");
}

#[test]
fn a_daemon_that_was_held_up_does_not_hold_it_against_its_agents() {
    let mut bench = Bench::running(vec![stuckable(OnStuck::Restart)]);
    bench.says(&coder(), 1, TelemetryKind::SessionOpened);
    bench.pass(Duration::from_secs(5));
    // Stopped for an hour: no tick was made.
    bench.now.mono += Duration::from_secs(3600);
    bench.now.wall += Duration::from_secs(3600);
    let changes = bench.tick();
    assert!(!changes.iter().any(|change| matches!(change, Change::Stuck { .. } | Change::Agent { .. })), "{changes:?}");
    bench.pass(HEARTBEAT);
    assert_eq!(bench.agent(&coder()).state, S::Degraded, "afterwards silence counts again");
}

#[test]
fn a_changed_document_adds_and_removes_agents() {
    let mut bench = Bench::running(vec![agent_spec("coder"), agent_spec("tester")]);
    let kept = bench.agent(&coder());
    let changes = bench.declare(vec![agent_spec("coder"), agent_spec("writer")], Desired::Running);
    assert!(changes.contains(&Change::AgentRemoved(id("review/tester"))));
    assert_eq!(bench.agent(&coder()), kept);
    assert_eq!(bench.agent(&id("review/writer")).state, S::Pending);
    let changes = bench.apply(Report::Removed("review".parse().unwrap()));
    assert_eq!(changes.len(), 3, "{changes:?}");
    bench.tick();
    let hive = bench.fold.hive();
    assert_eq!((hive.agents.len(), hive.swarms.len()), (0, 0));
}
