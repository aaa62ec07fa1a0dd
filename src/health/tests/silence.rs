//! Silence is held against an agent only when everything that was said has been heard.

use super::*;
use crate::model::{AgentState, Target};

fn strict() -> AgentSpec {
    AgentSpec { progress_timeout: PROGRESS, on_stuck: OnStuck::Restart, ..agent_spec("coder") }
}

fn desired(bench: &mut Bench) -> Vec<Change> {
    let target = Target::Agent(id("review/coder"));
    bench.apply(Report::Desired { target, desired: Desired::Paused })
}

fn restarts(changes: &[Change]) -> bool {
    changes.iter().any(|change| matches!(change, Change::Stuck { .. }))
}

/// Its words wait behind a report of the house that is folded first.
#[test]
fn a_report_of_the_house_finds_nobody_stuck_whose_words_wait() {
    let mut bench = Bench::running(vec![strict()]);
    bench.now.mono += PROGRESS + Duration::from_secs(1);
    let changes = desired(&mut bench);
    assert!(!restarts(&changes), "{changes:?}");
    assert_eq!(bench.agent(&id("review/coder")).state, AgentState::Running);
    bench.fold.wake(bench.now);
    bench.beat(&id("review/coder"), 1, Some("1"));
    assert!(!restarts(&bench.tick()));
    assert_eq!(bench.agent(&id("review/coder")).state, AgentState::Running);
}

/// A turn that comes late knows that before it folds anything.
#[test]
fn a_turn_that_comes_late_holds_the_time_against_nobody() {
    let mut bench = Bench::running(vec![strict()]);
    bench.now.mono += PROGRESS + Duration::from_secs(1);
    bench.fold.wake(bench.now);
    let mut changes = desired(&mut bench);
    changes.extend(bench.tick());
    assert!(!restarts(&changes), "{changes:?}");
    assert_eq!(bench.agent(&id("review/coder")).state, AgentState::Running);
    let changes = bench.pass(PROGRESS);
    assert!(restarts(&changes), "it is found stuck when its whole time has passed");
}
