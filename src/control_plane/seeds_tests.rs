#![allow(clippy::unwrap_used, reason = "tests")]

use super::{
    super::plan::{
        Found, boot,
        tests::{NOW, agent_spec, now, swarm},
    },
    *,
};
use crate::model::{AgentSpec, Strategy, SwarmSpec};

fn planned(desired: Desired, restart: RestartType, adopt: Option<u64>) -> PlannedAgent {
    let spec = Arc::new(AgentSpec { restart, ..(*agent_spec("a")).clone() });
    PlannedAgent { id: "s/a".parse().unwrap(), spec, desired, adopt }
}

fn ledger(standing: Option<StandingState>, exit: Option<(ExitCause, Option<i32>)>) -> Ledger {
    let last_exit = exit.map(|(cause, code)| ExitRecord {
        incarnation: 7,
        code,
        signal: None,
        oom: None,
        at: NOW,
        cause,
        last_lines: Vec::new(),
    });
    let recent = vec![now() - Duration::from_secs(90), now() - Duration::from_secs(10)];
    Ledger { incarnation: 7, restarts: 4, attempt: 2, recent, standing, last_exit, spent: None }
}

const PERIOD: Duration = Duration::from_secs(60);

fn stood<'a>(agent: &'a PlannedAgent, ledger: &'a Ledger) -> Stood<'a> {
    (agent, ledger, standing(agent, ledger))
}

fn seeded(desired: Desired, restart: RestartType, ledger: &Ledger) -> SeedState {
    seed(&stood(&planned(desired, restart, None), ledger), PERIOD, now()).state
}

#[test]
fn supervision_goes_on_where_it_was() {
    let retry_at = now() + Duration::from_secs(5);
    let retry_in = Duration::from_secs(5);
    let cases = [
        (None, SeedState::Fresh),
        (Some(StandingState::New), SeedState::Fresh),
        (Some(StandingState::Active), SeedState::Delayed { retry_in: Duration::ZERO }),
        (Some(StandingState::BackingOff { retry_at }), SeedState::Delayed { retry_in }),
        (Some(StandingState::Failed { retry_at: None }), SeedState::Failed { retry_in: None }),
        (Some(StandingState::Failed { retry_at: Some(retry_at) }), SeedState::Failed { retry_in: Some(retry_in) }),
        (Some(StandingState::Completed), SeedState::Completed),
        (Some(StandingState::BackingOff { retry_at: NOW }), SeedState::Delayed { retry_in: Duration::ZERO }),
    ];
    for (standing, expected) in cases {
        let ledger = ledger(standing, Some((ExitCause::Exited, Some(3))));
        assert_eq!(seeded(Desired::Running, RestartType::Permanent, &ledger), expected, "{standing:?}");
    }
    let (agent, ledger) = (planned(Desired::Running, RestartType::Permanent, Some(8)), ledger(None, None));
    let seed = seed(&stood(&agent, &ledger), PERIOD, now());
    assert_eq!(seed.state, SeedState::Running);
    assert_eq!((seed.incarnation, seed.restarts, seed.attempt), (8, 4, 2));
    assert_eq!(seed.recent, [Duration::from_secs(10)], "what is older than the window has left it");
}

#[test]
fn what_its_operator_stopped_stays_stopped() {
    assert_eq!(seeded(Desired::Stopped, RestartType::Permanent, &ledger(None, None)), SeedState::Stopped);
}

#[test]
fn a_pause_before_a_retry_comes_with_a_fresh_window() {
    let ledger = ledger(Some(StandingState::Failed { retry_at: Some(now()) }), None);
    let seed = seed(&stood(&planned(Desired::Running, RestartType::Permanent, None), &ledger), PERIOD, now());
    assert_eq!((seed.recent.len(), seed.attempt), (0, 0));
}

#[test]
fn an_exit_that_nobody_judged_is_judged_at_boot() {
    use RestartType::{Permanent, Temporary, Transient};
    let well = (ExitCause::Exited, Some(0));
    let badly = (ExitCause::Exited, Some(3));
    let at_once = SeedState::Delayed { retry_in: Duration::ZERO };
    let cases = [
        (Permanent, well.clone(), at_once),
        (Permanent, badly.clone(), at_once),
        (Transient, well.clone(), SeedState::Completed),
        (Transient, badly.clone(), at_once),
        (Temporary, well, SeedState::Completed),
        (Temporary, badly, SeedState::Failed { retry_in: None }),
        // The daemon's end is no doing of the agent's.
        (Transient, (ExitCause::Stopped, Some(0)), SeedState::Fresh),
        (Temporary, (ExitCause::LeaseLost, None), SeedState::Fresh),
    ];
    for (restart, exit, expected) in cases {
        let ledger = ledger(Some(StandingState::Active), Some(exit.clone()));
        assert_eq!(seeded(Desired::Running, restart, &ledger), expected, "{restart:?} {exit:?}");
    }
}

#[test]
fn a_restart_that_is_due_is_in_the_window() {
    let badly = Some((ExitCause::Exited, Some(3)));
    let agent = planned(Desired::Running, RestartType::Permanent, None);
    let of = |standing| seed(&stood(&agent, &ledger(Some(standing), badly.clone())), PERIOD, now());
    let (decided, unjudged) = (of(StandingState::BackingOff { retry_at: now() }), of(StandingState::Active));
    assert_eq!(decided.recent, [Duration::from_secs(10), Duration::ZERO]);
    assert_eq!(unjudged.recent, decided.recent);
    assert_eq!((decided.attempt, unjudged.attempt), (2, 3), "the last daemon had counted the one and not the other");
}

#[test]
fn a_start_after_a_lost_container_is_due_at_once_and_not_counted() {
    use RestartType::{Permanent, Temporary, Transient};
    let lost = || Some((ExitCause::ContainerLost { message: "exit code 137".to_owned() }, None));
    let judged = StandingState::BackingOff { retry_at: now() };
    for (restart, standing) in [
        (Permanent, StandingState::Active),
        (Permanent, judged),
        (Transient, StandingState::Active),
        (Transient, judged),
    ] {
        let agent = planned(Desired::Running, restart, None);
        let ledger = ledger(Some(standing), lost());
        let seed = seed(&stood(&agent, &ledger), PERIOD, now());
        assert_eq!(seed.state, SeedState::Fresh, "{restart:?} {standing:?}");
        assert_eq!((seed.recent, seed.attempt, seed.restarts), (vec![Duration::from_secs(10)], 2, 4));
        let health = health_seed(&stood(&agent, &ledger), PERIOD, now());
        assert_eq!(health.recent, [Duration::from_secs(10)]);
    }
    let once = ledger(Some(StandingState::Active), lost());
    assert_eq!(
        seeded(Desired::Running, Temporary, &once),
        SeedState::Failed { retry_in: None },
        "it is never restarted"
    );
}

#[test]
fn a_start_that_ended_with_the_daemon_is_no_longer_due() {
    let ledger = ledger(Some(StandingState::BackingOff { retry_at: now() }), Some((ExitCause::LeaseLost, None)));
    assert_eq!(seeded(Desired::Running, RestartType::Permanent, &ledger), SeedState::Fresh);
}

/// A group of `a`, `b` and `c` whose automatic starts were begun so many seconds ago, oldest first.
fn group(strategy: Strategy, begun: [&[u64]; 3]) -> (PlannedSwarm, HashMap<AgentId, Ledger>) {
    let spec = SwarmSpec { strategy, ..swarm("s", &["a", "b", "c"]) };
    let plan = boot(&[spec], &Found::default(), NOW).unwrap().swarms.remove(0);
    let ledgers = plan.agents.iter().zip(begun).map(|(agent, begun)| {
        let recent = begun.iter().map(|age| now() - Duration::from_secs(*age)).collect();
        let active = ledger(Some(StandingState::Active), None);
        (agent.id.clone(), Ledger { recent, attempt: 0, ..active })
    });
    let ledgers = ledgers.collect();
    (plan, ledgers)
}

fn secs(ages: &[u64]) -> Vec<Duration> {
    ages.iter().copied().map(Duration::from_secs).collect()
}

#[test]
fn the_window_of_a_group_counts_restarts_and_not_the_starts_that_each_is_made_of() {
    use Strategy::{OneForAll, OneForOne, RestForOne};
    type Begun = [&'static [u64]; 3];
    let cases: [(Strategy, Begun, &[u64]); 7] = [
        // One restart of all three, and another.
        (OneForAll, [&[20, 9], &[19, 8], &[18, 7]], &[20, 9]),
        // The second one's start failed once: everything began anew.
        (OneForAll, [&[20, 15], &[19, 14], &[13]], &[20, 15]),
        (RestForOne, [&[20], &[19], &[18, 5]], &[20, 5]),
        // The first one's start failed three times, then the second ended three times.
        (RestForOne, [&[30, 29, 28, 27], &[26, 20, 15, 10], &[25, 19, 14, 9]], &[30, 29, 28, 27, 20, 15, 10]),
        (RestForOne, [&[], &[], &[]], &[]),
        // What began at the same time did so in order.
        (OneForAll, [&[5], &[5], &[5]], &[5]),
        (OneForOne, [&[20, 9], &[19], &[18]], &[]),
    ];
    for (strategy, begun, expected) in cases {
        let (plan, ledgers) = group(strategy, begun);
        let seed = seeds(&plan, &ledgers, now());
        assert_eq!(seed.recent, secs(expected), "{strategy:?} {begun:?}");
        for agent in &plan.agents {
            let own = &seed.agents[&agent.id].recent;
            assert_eq!(own.is_empty(), strategy.is_group() || ledgers[&agent.id].recent.is_empty());
        }
        if strategy.is_group() {
            let shown = health_seeds(&plan, &ledgers, now());
            assert!(shown.iter().all(|(_, shown)| shown.recent == secs(expected)), "everybody shows the group's");
        }
    }
}

#[test]
fn a_restart_of_a_group_that_is_due_is_in_its_window_once() {
    let (plan, mut ledgers) = group(Strategy::OneForAll, [&[20], &[19], &[18]]);
    let badly = ledger(None, Some((ExitCause::Exited, Some(3)))).last_exit;
    for agent in &plan.agents[..2] {
        ledgers.get_mut(&agent.id).unwrap().last_exit.clone_from(&badly);
    }
    let seed = seeds(&plan, &ledgers, now());
    assert_eq!(seed.recent, secs(&[20, 0]), "two have ended, and that is one restart");
    let at_once = SeedState::Delayed { retry_in: Duration::ZERO };
    let states = plan.agents.iter().map(|agent| seed.agents[&agent.id].state);
    assert_eq!(states.collect::<Vec<_>>(), [at_once, at_once, SeedState::Fresh]);
}

#[test]
fn a_group_that_gave_up_comes_back_with_a_fresh_window() {
    for retry_at in [None, Some(now() + Duration::from_secs(5))] {
        let (plan, mut ledgers) = group(Strategy::RestForOne, [&[20], &[19], &[18]]);
        for ledger in ledgers.values_mut() {
            ledger.standing = Some(StandingState::Failed { retry_at });
        }
        assert_eq!(seeds(&plan, &ledgers, now()).recent, Vec::<Duration>::new());
    }
}

/// All of them failed at once, and each was noted by the clock as it was told.
#[test]
fn a_group_that_failed_comes_back_in_order_however_it_was_noted() {
    let at = |millis| Some(StandingState::Failed { retry_at: Some(now() + Duration::from_millis(millis)) });
    for (strategy, expected) in [
        (Strategy::OneForAll, [2001, 2001, 2002]),
        (Strategy::RestForOne, [2001, 2001, 2002]),
        (Strategy::OneForOne, [2001, 2000, 2002]),
    ] {
        let (plan, mut ledgers) = group(strategy, [&[], &[], &[]]);
        for (agent, millis) in plan.agents.iter().zip([2001, 2000, 2002]) {
            ledgers.get_mut(&agent.id).unwrap().standing = at(millis);
        }
        let (seeds, told) = (seeds(&plan, &ledgers, now()), health_seeds(&plan, &ledgers, now()));
        for ((agent, millis), (id, told)) in plan.agents.iter().zip(expected).zip(told) {
            let wait = Duration::from_millis(millis);
            assert_eq!(seeds.agents[&agent.id].state, SeedState::Failed { retry_in: Some(wait) }, "{strategy:?} {id}");
            assert_eq!(told.standing, health::Standing::Failed { retry_at: Some(now() + wait) }, "{strategy:?} {id}");
        }
    }
}

#[test]
fn a_temporary_agent_that_failed_is_no_end_of_its_group() {
    let (mut plan, mut ledgers) = group(Strategy::OneForAll, [&[20], &[19], &[]]);
    let last = plan.agents.last_mut().unwrap();
    last.spec = Arc::new(AgentSpec { restart: RestartType::Temporary, ..(*last.spec).clone() });
    ledgers.get_mut(&last.id).unwrap().standing = Some(StandingState::Failed { retry_at: None });
    assert_eq!(seeds(&plan, &ledgers, now()).recent, secs(&[20]));
}

/// Agents whose leases ended while their siblings' went on; one that its operator had told to end.
#[test]
fn what_was_lost_without_a_daemon_takes_its_group_along_and_what_was_told_to_end_does_not() {
    use RestartType::{Permanent, Temporary};
    let gone = || ExitCause::ContainerLost { message: "removed".to_owned() };
    for (strategy, restart, cause, expected) in [
        (Strategy::OneForAll, Permanent, ExitCause::LeaseLost, SeedState::Lost),
        (Strategy::RestForOne, Permanent, gone(), SeedState::Lost),
        (Strategy::OneForAll, Permanent, ExitCause::Stopped, SeedState::Fresh),
        (Strategy::OneForAll, Permanent, ExitCause::NeverStarted, SeedState::Fresh),
        (Strategy::OneForAll, Temporary, ExitCause::LeaseLost, SeedState::Fresh),
        (Strategy::OneForOne, Permanent, ExitCause::LeaseLost, SeedState::Fresh),
    ] {
        let (mut plan, mut ledgers) = group(strategy, [&[], &[], &[]]);
        let first = &mut plan.agents[0];
        first.spec = Arc::new(AgentSpec { restart, ..(*first.spec).clone() });
        let first = first.id.clone();
        let ended = ledger(Some(StandingState::Active), Some((cause.clone(), None)));
        ledgers.insert(first.clone(), Ledger { recent: Vec::new(), ..ended });
        plan.agents[1].adopt = Some(7);
        let seed = seeds(&plan, &ledgers, now());
        assert_eq!(seed.agents[&first].state, expected, "{strategy:?} {restart:?} {cause:?}");
        assert_eq!(seed.agents[&plan.agents[1].id].state, SeedState::Running);
        assert_eq!(seed.recent, Vec::<Duration>::new(), "it debits nobody");
    }
}
