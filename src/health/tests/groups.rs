//! Agents that are restarted together: on whose account one ends, whose window it is, and a swarm that gave up.

use std::{sync::Arc, time::Duration};

use hivekeeper_actors::{EventKind, ExitReason, Intensity, Limit, LimitFollows, Strategy};

use super::*;
use crate::{
    health::Standing,
    model::{AgentState, Level, Reason},
};

fn group() -> Bench {
    let mut bench = Bench::new();
    let agents = ["a", "b", "c"].map(agent_spec).to_vec();
    let spec = SwarmSpec { strategy: Strategy::OneForAll, ..(*swarm_spec("review", agents)).clone() };
    bench.apply(Report::Declared { spec: Arc::new(spec), desired: Desired::Running, seeds: Vec::new() });
    for name in ["a", "b", "c"] {
        bench.start(&member(name), 1);
    }
    bench.tick();
    bench
}

fn member(name: &str) -> AgentId {
    id(&format!("review/{name}"))
}

fn why(bench: &Bench, name: &str) -> (AgentState, &'static str, String) {
    let agent = bench.agent(&member(name));
    let reason = agent.reasons.first().cloned().unwrap_or(Reason { code: "", detail: String::new() });
    (agent.state, reason.code, reason.detail)
}

/// `b` ends badly and takes the others along; its restart is due after `delay`.
fn restart(bench: &mut Bench, delay: Duration) {
    bench.in_window = 1;
    bench.crash(&member("b"), 1, 3);
    bench.supervise(&member("b"), 1, EventKind::BackingOff { attempt: 1, delay });
    let siblings = ["a".into(), "c".into()];
    bench.supervise(&member("b"), 1, EventKind::GroupRestart { siblings: Arc::from(siblings) });
}

#[test]
fn a_bystander_says_on_whose_account_it_ends_and_waits() {
    let mut bench = group();
    restart(&mut bench, Duration::from_secs(60));
    bench.supervise(&member("c"), 1, EventKind::Stopping);
    let account = "b exited with code 3".to_owned();
    assert_eq!(why(&bench, "c"), (AgentState::Stopping, "sibling_failed", account.clone()));
    assert_eq!(why(&bench, "a"), (AgentState::Running, "", String::new()), "its turn to end has not come");
    for name in ["c", "a"] {
        bench.supervise(&member(name), 1, EventKind::Exited { reason: ExitReason::Shutdown });
        bench.supervise(&member(name), 1, EventKind::Pending);
        assert_eq!(why(&bench, name), (AgentState::Pending, "sibling_failed", account.clone()));
        let agent = bench.agent(&member(name));
        assert_eq!((agent.pid, agent.restarts_in_window), (None, 1), "the window is everybody's");
    }
    assert_eq!(why(&bench, "b").1, "restart_delayed");
    bench.tick();
    let swarm = bench.swarm();
    assert_eq!(codes(&swarm.reasons), ["agents_pending", "agents_backing_off", "no_agent_runs"], "{swarm:?}");
    for name in ["a", "b", "c"] {
        bench.start(&member(name), 2);
    }
    bench.tick();
    assert_eq!(bench.swarm().level, Level::Healthy);
    // Its next end is its own.
    bench.supervise(&member("c"), 2, EventKind::Stopping);
    assert_eq!(why(&bench, "c").1, "stop_requested");
}

#[test]
fn a_group_that_restarts_at_once_is_never_critical() {
    let mut bench = group();
    restart(&mut bench, Duration::ZERO);
    for name in ["c", "a"] {
        bench.supervise(&member(name), 1, EventKind::Stopping);
        bench.supervise(&member(name), 1, EventKind::Exited { reason: ExitReason::Shutdown });
        bench.supervise(&member(name), 1, EventKind::Pending);
        bench.tick();
        assert_eq!(bench.swarm().level, Level::Degraded);
    }
}

#[test]
fn a_swarm_that_gave_up_says_whose_end_was_too_many() {
    let mut bench = group();
    bench.crash(&member("b"), 1, 3);
    let intensity = Intensity { max_restarts: 0, period: Duration::from_secs(60) };
    let limit = EventKind::LimitReached { limit: Limit::Supervisor, intensity, follows: LimitFollows::AllFail };
    bench.supervise(&member("b"), 1, limit);
    let reason = ExitReason::Error("exited with code 3".into());
    let failed = EventKind::Failed { reason, retry_in: Some(Duration::from_secs(5)) };
    bench.supervise(&member("b"), 1, failed.clone());
    bench.tick();
    assert!(!codes(&bench.swarm().reasons).contains(&"swarm_gave_up"), "the others still run");
    for name in ["c", "a"] {
        bench.supervise(&member(name), 1, EventKind::Stopping);
        bench.supervise(&member(name), 1, EventKind::Exited { reason: ExitReason::Shutdown });
        bench.supervise(&member(name), 1, failed.clone());
        assert_eq!(why(&bench, name), (AgentState::Failed, "sibling_failed", "b exited with code 3".to_owned()));
        assert!(bench.agent(&member(name)).retry_at.is_some());
    }
    assert_eq!(why(&bench, "b"), (AgentState::Failed, "gave_up", "exited with code 3".to_owned()));
    bench.tick();
    let swarm = bench.swarm();
    assert_eq!((swarm.level, codes(&swarm.reasons)[0]), (Level::Critical, "swarm_gave_up"));
    assert_eq!(swarm.reasons[0].detail, "b exited with code 3");
    bench.start(&member("a"), 2);
    bench.tick();
    assert!(!codes(&bench.swarm().reasons).contains(&"swarm_gave_up"), "somebody has started one of them");
}

/// The next daemon knows what the journal says: who has given up, and how each ended.
#[test]
fn a_swarm_that_gave_up_says_so_under_the_next_daemon_too() {
    let declared = |causes: [ExitCause; 3]| {
        let mut bench = Bench::new();
        let agents = ["a", "b", "c"].map(agent_spec).to_vec();
        let spec = SwarmSpec { strategy: Strategy::OneForAll, ..(*swarm_spec("review", agents)).clone() };
        let seed = |(name, cause)| {
            let last_exit = Some(Arc::new(ExitRecord { cause, ..(*exit_record(1, 3)).clone() }));
            let standing = Standing::Failed { retry_at: None };
            (member(name), AgentSeed { incarnation: 1, last_exit, standing, ..AgentSeed::default() })
        };
        let seeds = ["a", "b", "c"].into_iter().zip(causes).map(seed).collect();
        bench.apply(Report::Declared { spec: Arc::new(spec), desired: Desired::Running, seeds });
        bench.tick();
        bench
    };
    let bench = declared([ExitCause::Stopped, ExitCause::Exited, ExitCause::Stopped]);
    let told = |bench: &Bench| {
        let swarm = bench.swarm();
        (swarm.reasons[0].code, swarm.reasons[0].detail.clone())
    };
    assert_eq!(told(&bench), ("swarm_gave_up", "b exited with code 3".to_owned()));
    assert_eq!(why(&bench, "b"), (AgentState::Failed, "gave_up", "exited with code 3".to_owned()));
    for name in ["a", "c"] {
        assert_eq!(why(&bench, name), (AgentState::Failed, "sibling_failed", "b exited with code 3".to_owned()));
    }
    // It may have been either, and nobody is accused by guessing.
    let bench = declared([ExitCause::Exited, ExitCause::Exited, ExitCause::Stopped]);
    let unknown = "its agents needed more restarts than its intensity allows".to_owned();
    assert_eq!((told(&bench), why(&bench, "c").1), (("swarm_gave_up", unknown), "gave_up"));
}

#[test]
fn the_window_of_a_group_is_shown_of_each() {
    let mut bench = group();
    bench.in_window = 2;
    bench.supervise(&member("b"), 1, EventKind::Started { took: Duration::ZERO });
    for name in ["a", "b", "c"] {
        assert_eq!(bench.agent(&member(name)).restarts_in_window, 2, "{name}");
    }
}

#[test]
fn on_whose_account_one_ended_is_forgotten_once_it_is_stopped() {
    let mut bench = group();
    restart(&mut bench, Duration::from_secs(60));
    bench.supervise(&member("c"), 1, EventKind::Stopping);
    bench.supervise(&member("c"), 1, EventKind::Stopped);
    bench.supervise(&member("c"), 1, EventKind::Pending);
    assert_eq!(why(&bench, "c").1, "not_started");
}

#[test]
fn a_temporary_agent_that_fails_by_itself_is_no_swarm_that_gave_up() {
    let mut bench = Bench::new();
    let alone = AgentSpec { restart: RestartType::Temporary, ..agent_spec("a") };
    let agents = vec![alone, agent_spec("b")];
    let spec = SwarmSpec { strategy: Strategy::OneForAll, ..(*swarm_spec("review", agents)).clone() };
    bench.apply(Report::Declared { spec: Arc::new(spec), desired: Desired::Running, seeds: Vec::new() });
    for name in ["a", "b"] {
        bench.start(&member(name), 1);
    }
    bench.crash(&member("a"), 1, 1);
    let reason = ExitReason::Error(Arc::from("it failed"));
    bench.supervise(&member("a"), 1, EventKind::Failed { reason, retry_in: None });
    bench.supervise(&member("b"), 1, EventKind::Completed);
    bench.tick();
    assert_eq!(codes(&bench.swarm().reasons), ["agents_failed", "no_agent_runs"]);
}
