//! What is held against an agent, from when on, and what is not.

use super::*;
use crate::{
    health::Standing,
    model::{AgentState as S, Measured, Usage, UsageReport, health::Absent},
};

fn coder() -> AgentId {
    id("review/coder")
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// An agent that runs and has a session.
fn one() -> Bench {
    let mut bench = Bench::running(vec![agent_spec("coder")]);
    bench.says(&coder(), 1, TelemetryKind::SessionOpened);
    bench
}

fn state(bench: &Bench) -> S {
    bench.agent(&coder()).state
}

fn samples(changes: &[Change]) -> usize {
    changes.iter().filter(|change| matches!(change, Change::Samples(_))).count()
}

#[test]
fn a_launcher_is_given_three_readings_and_an_agent_its_own_time() {
    let hasty = || AgentSpec { heartbeat_timeout: secs(1), ..agent_spec("coder") };
    let mut bench = Bench::running(vec![hasty()]);
    bench.pass(SAMPLE_INTERVAL * 3 - Duration::from_millis(1));
    assert_eq!(state(&bench), S::Running);
    bench.pass(Duration::from_millis(1));
    assert_eq!(state(&bench), S::Degraded);
    let reason = bench.agent(&coder()).reasons[0].detail.clone();
    assert_eq!(reason, "nothing heard from its launcher for 6s or longer");
    let mut bench = Bench::running(vec![hasty()]);
    bench.says(&coder(), 1, TelemetryKind::SessionOpened);
    bench.pass(secs(1));
    assert_eq!(state(&bench), S::Degraded);
}

#[test]
fn readings_grow_old_by_their_own_interval() {
    let mut bench = one();
    bench.fold.identity.sample_interval = secs(5);
    bench.sample(&coder(), 1);
    bench.pass(secs(15) - Duration::from_millis(1));
    assert!(bench.agent(&coder()).cpu.value().is_some(), "three of them");
    bench.pass(Duration::from_millis(1));
    assert_eq!(bench.agent(&coder()).cpu, Measured::Absent(Absent::Stale));
}

#[test]
fn silence_of_the_paused_and_of_those_out_of_reach_is_no_flapping() {
    for paused in [true, false] {
        let mut bench = one();
        for _ in 0..5 {
            bench.beat(&coder(), 1, None);
            bench.saw(&coder(), 1, if paused { Observation::Paused(true) } else { Observation::Unreachable });
            bench.pass(secs(20));
            match paused {
                true => _ = bench.saw(&coder(), 1, Observation::Paused(false)),
                false => _ = bench.saw(&coder(), 1, Observation::Output { at: bench.now.wall, lines: 1 }),
            }
            bench.tick();
            assert_eq!(state(&bench), S::Running, "paused: {paused}");
        }
    }
}

#[test]
fn who_is_frozen_while_it_starts_is_paused() {
    let mut bench = Bench::new();
    bench.declare(vec![agent_spec("coder")], Desired::Running);
    bench.supervise(&coder(), 1, EventKind::Starting { attempt: 0 });
    bench.saw(&coder(), 1, Observation::Alive { pid: 7, at: bench.now.wall });
    bench.saw(&coder(), 1, Observation::Paused(true));
    assert_eq!(state(&bench), S::Paused);
    bench.saw(&coder(), 1, Observation::Paused(false));
    assert_eq!(state(&bench), S::Starting);
}

#[test]
fn a_start_that_took_long_is_no_silence() {
    let mut bench = Bench::new();
    bench.declare(vec![agent_spec("coder")], Desired::Running);
    bench.supervise(&coder(), 1, EventKind::Starting { attempt: 0 });
    bench.saw(&coder(), 1, Observation::Alive { pid: 7, at: bench.now.wall });
    bench.pass(HEARTBEAT * 2);
    bench.supervise(&coder(), 1, EventKind::Started { took: HEARTBEAT * 2 });
    bench.pass(HEARTBEAT - Duration::from_millis(1));
    assert_eq!(state(&bench), S::Running);
    bench.pass(Duration::from_millis(1));
    assert_eq!(state(&bench), S::Degraded);
}

/// A new daemon adopts what the last one started, under the same number.
#[test]
fn an_incarnation_that_is_begun_once_more_is_heard() {
    let mut bench = Bench::new();
    bench.declare_seeded(agent_spec("coder"), AgentSeed { incarnation: 3, ..AgentSeed::default() });
    bench.beat(&coder(), 3, None);
    assert_eq!(bench.agent(&coder()).last_heartbeat.value(), None, "it is over, as far as anybody knows");
    bench.supervise(&coder(), 3, EventKind::Starting { attempt: 0 });
    bench.beat(&coder(), 3, None);
    assert!(bench.agent(&coder()).last_heartbeat.value().is_some());
}

#[test]
fn what_is_told_behind_an_end_says_nothing_of_the_next_beginning() {
    for late in [Observation::Paused(true), Observation::Unreachable] {
        let mut bench = one();
        bench.crash(&coder(), 1, 1);
        bench.saw(&coder(), 1, late.clone());
        bench.supervise(&coder(), 1, EventKind::Starting { attempt: 0 });
        assert_eq!(state(&bench), S::Starting, "{late:?}");
        bench.supervise(&coder(), 1, EventKind::Started { took: Duration::ZERO });
        assert_eq!(state(&bench), S::Running, "{late:?}");
    }
}

#[test]
fn a_new_incarnation_inherits_nothing_of_one_whose_end_was_not_heard() {
    let mut bench = one();
    bench.saw(&coder(), 1, Observation::Paused(true));
    bench.saw(&coder(), 1, Observation::Unreachable);
    bench.supervise(&coder(), 2, EventKind::Starting { attempt: 0 });
    assert_eq!(state(&bench), S::Starting);
    bench.supervise(&coder(), 2, EventKind::Started { took: Duration::ZERO });
    assert_eq!(state(&bench), S::Running);
    for _ in 0..10 {
        bench.pass(SAMPLE_INTERVAL);
        bench.sample(&coder(), 2);
    }
    assert_eq!(state(&bench), S::Running, "it has no session yet, so its launcher beats");
}

#[test]
fn an_incarnation_that_is_heard_before_it_is_told_of_has_its_whole_time() {
    let mut bench = one();
    bench.pass(HEARTBEAT - secs(1));
    bench.saw(&coder(), 2, Observation::Output { at: bench.now.wall, lines: 1 });
    bench.pass(secs(2));
    assert_eq!(state(&bench), S::Running);
}

#[test]
fn who_was_out_of_reach_has_its_whole_time_and_is_not_late() {
    let mut bench = one();
    bench.beat(&coder(), 1, None);
    bench.saw(&coder(), 1, Observation::Unreachable);
    bench.pass(secs(60));
    bench.sample(&coder(), 1);
    bench.tick();
    assert_eq!(state(&bench), S::Running);
    bench.beat(&coder(), 1, None);
    let late = bench.agent(&coder()).heartbeat_latency_ms.clone();
    assert_eq!(late.value(), None, "nobody could hear the heartbeats between");
}

#[test]
fn a_line_of_output_shows_it_within_reach() {
    let mut bench = one();
    bench.saw(&coder(), 1, Observation::Unreachable);
    assert_eq!(state(&bench), S::Unknown);
    bench.saw(&coder(), 1, Observation::Output { at: bench.now.wall, lines: 1 });
    assert_eq!(state(&bench), S::Running);
}

#[test]
fn an_open_or_closed_session_begins_the_time_anew_and_ends_the_last_lateness() {
    let mut bench = one();
    bench.beat(&coder(), 1, None);
    bench.pass(secs(7));
    bench.beat(&coder(), 1, None);
    assert_eq!(bench.agent(&coder()).heartbeat_latency_ms.value(), Some(&2_000));
    bench.pass(HEARTBEAT - secs(1));
    bench.says(&coder(), 1, TelemetryKind::SessionClosed);
    assert_eq!(bench.agent(&coder()).heartbeat_latency_ms, Measured::Absent(Absent::Stale));
    bench.pass(secs(2));
    assert_eq!(state(&bench), S::Running);
}

/// Nobody took readings off anybody while the daemon stood still, nor heard a heartbeat.
#[test]
fn time_in_which_the_daemon_was_held_up_ages_no_reading_and_calms_nobody() {
    let mut bench = one();
    bench.sample(&coder(), 1);
    let held_up = |bench: &mut Bench| {
        bench.now.mono += secs(60);
        bench.now.wall += secs(60);
        bench.tick();
    };
    held_up(&mut bench);
    assert!(bench.agent(&coder()).cpu.value().is_some());
    let mut bench = one();
    for _ in 0..3 {
        bench.pass(secs(20));
        bench.beat(&coder(), 1, None);
    }
    bench.pass(secs(5));
    bench.beat(&coder(), 1, None);
    held_up(&mut bench);
    bench.beat(&coder(), 1, None);
    bench.tick();
    assert_eq!(codes(&bench.agent(&coder()).reasons), ["flapping"], "five seconds of calm are not sixty-five");
}

/// The document has less patience than the one before; what it may have said since is still on its way.
#[test]
fn a_changed_document_finds_nobody_silent_whose_words_wait() {
    let mut bench = one();
    bench.beat(&coder(), 1, None);
    bench.pass(secs(10));
    let changes =
        bench.declare(vec![AgentSpec { heartbeat_timeout: secs(5), ..agent_spec("coder") }], Desired::Running);
    assert!(!changes.iter().any(|change| matches!(change, Change::Agent { .. })), "{changes:?}");
    bench.beat(&coder(), 1, None);
    bench.tick();
    assert_eq!(state(&bench), S::Running);
}

#[test]
fn a_count_of_restarts_that_is_told_replaces_ours() {
    let mut bench = one();
    bench.in_window = 3;
    bench.supervise(&coder(), 2, EventKind::Starting { attempt: 0 });
    assert_eq!(bench.agent(&coder()).restarts_in_window, 3);
    bench.in_window = 1;
    bench.supervise(&coder(), 2, EventKind::Started { took: Duration::ZERO });
    assert_eq!(bench.agent(&coder()).restarts_in_window, 1);
}

#[test]
fn a_supervisor_that_leaves_an_agent_to_be_started_ends_nothing() {
    let mut bench = one();
    bench.apply(Report::Settled { agent: coder(), standing: Standing::Active });
    assert_eq!(state(&bench), S::Running);
    assert!(bench.agent(&coder()).pid.is_some());
}

#[test]
fn what_a_former_incarnation_reports_late_of_its_use_changes_nothing() {
    let used = |tokens, model: &str| {
        let totals = Usage { input_tokens: Some(tokens), ..Usage::default() };
        TelemetryKind::Usage(Box::new(UsageReport { totals, model: Some(Arc::from(model)) }))
    };
    let mut bench = one();
    bench.says(&coder(), 1, used(10, "old"));
    bench.crash(&coder(), 1, 1);
    bench.start(&coder(), 2);
    bench.says(&coder(), 2, used(5, "new"));
    let shown = |bench: &Bench| {
        let agent = bench.agent(&coder());
        (agent.usage.value().unwrap().input_tokens, agent.model.value().unwrap().to_string())
    };
    assert_eq!(shown(&bench), (Some(15), "new".to_owned()));
    bench.says(&coder(), 1, used(12, "old"));
    assert_eq!(shown(&bench), (Some(15), "new".to_owned()));
}

#[test]
fn nothing_is_told_where_nothing_was_measured() {
    let mut bench = one();
    bench.pass(secs(2));
    bench.saw(&coder(), 1, Observation::Output { at: bench.now.wall, lines: 1 });
    assert_eq!(samples(&bench.pass(secs(3))), 0);
}

#[test]
fn who_was_just_told_of_is_not_told_of_again() {
    let mut bench = one();
    bench.pass(secs(2));
    bench.sample(&coder(), 1);
    let paused = bench.saw(&coder(), 1, Observation::Paused(true));
    assert!(
        matches!(&paused[..], [Change::Agent { agent, .. }] if agent.memory.value() == Some(&1024)),
        "the reading is in it: {paused:?}"
    );
    assert_eq!(samples(&bench.pass(secs(3))), 0);
}
