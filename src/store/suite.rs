//! The contract of [`Journal`], to be run on every implementation.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

use super::{DataDir, Options, SqliteJournal, error::StoreError, journal::Journal, records::*};
use crate::model::{
    AgentId, ApiToken, Command, Desired, Epoch, ExitCause, ExitRecord, LaunchId, Operation, OperationId,
    OperationState, Origin, Requester, Scope, Seq, Spent, SwarmName, Target, TokenId, Usage, UsageTally,
};

/// A journal in a directory of its own, for tests of other rooms.
pub fn scratch() -> (TempDir, SqliteJournal) {
    let dir = tempfile::Builder::new().prefix("hk").tempdir_in("/tmp").unwrap();
    let data = DataDir::open(dir.path(), "test", Options::default()).unwrap();
    let journal = SqliteJournal::open(&data.database(), data.epoch()).unwrap();
    (dir, journal)
}

/// A time in ms after 1970.
pub fn at(ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ms)
}

/// An accepted restart of a swarm.
pub fn operation(swarm: &str, requested_ms: u64) -> Operation {
    Operation {
        id: OperationId::mint(),
        command: Command::Restart { mode: crate::model::RestartMode::All, grace: None, reason: None },
        target: Target::Swarm(swarm.parse().unwrap()),
        state: OperationState::Accepted,
        requested_by: Requester::Http { peer: "127.0.0.1:5".to_owned() },
        requested_at: at(requested_ms),
        ended_at: None,
        steps: Vec::new(),
        error: None,
    }
}

/// A start.
pub fn incarnation(agent: &AgentId, incarnation: u64, begun_ms: u64, automatic: bool) -> Incarnation {
    Incarnation {
        launch_id: LaunchId::mint(),
        agent: agent.clone(),
        incarnation,
        token_hash: [7; 32],
        begun_at: at(begun_ms),
        automatic,
        runs: Some([9; 32]),
    }
}

/// An exit with a code.
pub fn exit(incarnation: u64, code: i32, at_ms: u64) -> ExitRecord {
    ExitRecord {
        incarnation,
        code: Some(code),
        signal: None,
        oom: None,
        at: at(at_ms),
        cause: ExitCause::Exited,
        last_lines: vec!["last words".to_owned()],
    }
}

/// An event.
pub fn event(seq: u64, at_ms: u64) -> StoredEvent {
    StoredEvent {
        seq: Seq(seq),
        epoch: Epoch(3),
        at: at(at_ms),
        kind: "agent_changed".to_owned(),
        subject: "review/coder-1".to_owned(),
        body: "{\"a\":1}".into(),
    }
}

fn agent(text: &str) -> AgentId {
    text.parse().unwrap()
}

fn swarm(text: &str) -> SwarmName {
    text.parse().unwrap()
}

fn row(name: &str, since_ms: u64) -> SwarmRow {
    SwarmRow {
        name: swarm(name),
        origin: Origin::Api,
        document: format!("{{\"name\":\"{name}\"}}").into(),
        scaled: None,
        desired: Desired::Running,
        since: at(since_ms),
    }
}

/// Runs the whole contract; `make` gives an empty journal and what keeps it alive.
pub async fn contract<K>(make: impl Fn() -> (K, Box<dyn Journal>)) {
    let run = |_name: &str| make();
    let (_k, journal) = run("swarms");
    swarms_and_desires(&*journal).await;
    let (_k, journal) = run("incarnations");
    incarnations(&*journal).await;
    let (_k, journal) = run("ledgers");
    windows(&*journal).await;
    let (_k, journal) = run("standing");
    standings(&*journal).await;
    let (_k, journal) = run("usage");
    usage(&*journal).await;
    let (_k, journal) = run("operations");
    operations(&*journal).await;
    let (_k, journal) = run("tokens");
    tokens(&*journal).await;
    let (_k, journal) = run("events");
    events(&*journal).await;
    let (_k, journal) = run("retention");
    retention(&*journal).await;
    let (_k, journal) = run("neighbours");
    a_wrong_call_harms_no_neighbour(&*journal).await;
}

async fn swarms_and_desires(journal: &dyn Journal) {
    assert_eq!(journal.swarms().await.unwrap(), []);
    journal.put_swarm(row("zeta", 1)).await.unwrap();
    journal.put_swarm(row("alpha", 2)).await.unwrap();
    journal.set_swarm_desired(&swarm("zeta"), Desired::Stopped, &[], at(9)).await.unwrap();
    let mut stopped = row("zeta", 9);
    stopped.desired = Desired::Stopped;
    assert_eq!(journal.swarms().await.unwrap(), [row("alpha", 2), stopped]);
    let changed = SwarmRow { origin: Origin::Config, document: "{}".into(), ..row("alpha", 10) };
    journal.put_swarm(changed.clone()).await.unwrap();
    assert_eq!(journal.swarms().await.unwrap()[0], changed);
    assert!(matches!(
        journal.set_swarm_desired(&swarm("none"), Desired::Paused, &[agent("none/one")], at(1)).await,
        Err(StoreError::Conflict(_))
    ));

    let (one, two) = (agent("zeta/one"), agent("zeta/two"));
    journal.set_agent_desired(&two, Some(Desired::Stopped), at(1)).await.unwrap();
    journal.set_agent_desired(&one, Some(Desired::Paused), at(2)).await.unwrap();
    assert_eq!(
        journal.agent_desires().await.unwrap(),
        [(one.clone(), Desired::Paused), (two.clone(), Desired::Stopped)]
    );
    journal.set_agent_desired(&one, None, at(3)).await.unwrap();
    assert_eq!(journal.agent_desires().await.unwrap(), [(two.clone(), Desired::Stopped)]);
    let follow = [two.clone()];
    journal.set_swarm_desired(&swarm("zeta"), Desired::Running, &follow, at(4)).await.unwrap();
    assert_eq!(journal.agent_desires().await.unwrap(), [], "they follow their swarm again");
    journal.set_agent_desired(&two, Some(Desired::Stopped), at(5)).await.unwrap();

    let begun = incarnation(&two, 1, 5, false);
    journal.begin_incarnation(begun.clone()).await.unwrap();
    journal.end_incarnation(begun.launch_id, &exit(1, 0, 6)).await.unwrap();
    journal.remove_swarm(&swarm("zeta")).await.unwrap();
    assert_eq!(journal.swarms().await.unwrap(), [changed]);
    assert_eq!(journal.agent_desires().await.unwrap(), []);
    assert_eq!(journal.history(&two, 9).await.unwrap().len(), 1, "history stays");
    assert_eq!(journal.ledger(&two, at(9), Duration::from_secs(1)).await.unwrap().incarnation, 1, "numbers go on");
}

async fn tokens(journal: &dyn Journal) {
    let token = |id: &str, created_ms: u64, expires_ms: Option<u64>| ApiToken {
        id: id.parse().unwrap(),
        name: "ci".parse().unwrap(),
        scope: Scope::Read,
        sha256: [9; 32],
        created_at: at(created_ms),
        expires_at: expires_ms.map(at),
        last_used_at: None,
        revoked_at: None,
    };
    let (old, young) = (token("00000000000b", 1, Some(50)), token("00000000000a", 2, None));
    for token in [&young, &old, &old] {
        journal.put_token(token.clone(), at(0)).await.unwrap();
    }
    assert_eq!(journal.tokens().await.unwrap(), [old.clone(), young.clone()]);
    let unknown: TokenId = "00000000000c".parse().unwrap();
    journal.tokens_used(vec![(unknown.clone(), at(5)), (young.id.clone(), at(6))]).await.unwrap();
    journal.revoke_token(&young.id, at(7)).await.unwrap();
    journal.revoke_token(&young.id, at(8)).await.unwrap();
    let revoked = ApiToken { last_used_at: Some(at(6)), revoked_at: Some(at(7)), ..young };
    assert_eq!(journal.tokens().await.unwrap(), [old.clone(), revoked], "the first revocation stands");
    assert!(matches!(journal.revoke_token(&unknown, at(7)).await, Err(StoreError::Conflict(_))));
    let third = token("00000000000d", 60, Some(90));
    journal.put_token(third.clone(), at(8)).await.unwrap();
    assert_eq!(journal.tokens().await.unwrap(), [old, third.clone()], "what was revoked before is forgotten");
    journal.revoke_token(&third.id, at(200)).await.unwrap();
    let fourth = token("00000000000e", 70, None);
    journal.put_token(fourth.clone(), at(91)).await.unwrap();
    assert_eq!(journal.tokens().await.unwrap(), [fourth], "and what expired, whenever it was revoked");
}

async fn incarnations(journal: &dyn Journal) {
    let (coder, other) = (agent("review/coder-1"), agent("review/coder-2"));
    let first = incarnation(&coder, 1, 1_000, false);
    let elsewhere = incarnation(&other, 1, 900, false);
    journal.begin_incarnation(first.clone()).await.unwrap();
    journal.begin_incarnation(elsewhere.clone()).await.unwrap();
    journal.begin_incarnation(first.clone()).await.unwrap();
    let open = journal.open_incarnations().await.unwrap();
    assert_eq!(open.iter().map(|row| row.begun.clone()).collect::<Vec<_>>(), [elsewhere.clone(), first.clone()]);
    assert_eq!((open[0].pid, open[0].alive_at, open[0].exit.clone()), (None, None, None));

    let usurper = Incarnation { launch_id: LaunchId::mint(), ..first.clone() };
    assert!(matches!(journal.begin_incarnation(usurper).await, Err(StoreError::Conflict(_))));
    let moved = Incarnation { incarnation: 2, ..first.clone() };
    assert!(matches!(journal.begin_incarnation(moved).await, Err(StoreError::Conflict(_))));

    journal.mark_alive(first.launch_id, 4711, at(1_007)).await.unwrap();
    let open = journal.open_incarnations().await.unwrap();
    assert_eq!((open[1].pid, open[1].alive_at), (Some(4711), Some(at(1_007))));

    journal.end_incarnation(first.launch_id, &exit(1, 3, 2_000)).await.unwrap();
    journal.end_incarnation(first.launch_id, &exit(1, 0, 3_000)).await.unwrap();
    assert_eq!(journal.open_incarnations().await.unwrap().len(), 1);
    journal.begin_incarnation(incarnation(&coder, 2, 2_100, true)).await.unwrap();
    let history = journal.history(&coder, 9).await.unwrap();
    assert_eq!(history.iter().map(|row| row.begun.incarnation).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(history[1].exit, Some(exit(1, 3, 2_000)), "the first record stands");
    assert_eq!(journal.history(&coder, 1).await.unwrap().len(), 1);

    let unknown = LaunchId::mint();
    assert!(matches!(journal.mark_alive(unknown, 1, at(1)).await, Err(StoreError::Conflict(_))));
    assert!(matches!(journal.end_incarnation(unknown, &exit(1, 0, 1)).await, Err(StoreError::Conflict(_))));
}

async fn windows(journal: &dyn Journal) {
    let coder = agent("review/coder-1");
    let period = Duration::from_secs(60);
    let empty = Ledger {
        incarnation: 0,
        restarts: 0,
        attempt: 0,
        recent: Vec::new(),
        standing: None,
        last_exit: None,
        spent: None,
    };
    assert_eq!(journal.ledger(&coder, at(1), period).await.unwrap(), empty);
    for (number, begun_ms, automatic) in
        [(1, 1_000, false), (2, 10_000, true), (3, 50_000, true), (4, 60_000, false), (5, 70_000, true)]
    {
        let begun = incarnation(&coder, number, begun_ms, automatic);
        journal.begin_incarnation(begun.clone()).await.unwrap();
        if number < 5 {
            journal.end_incarnation(begun.launch_id, &exit(number, 3, begun_ms + 5)).await.unwrap();
        }
    }
    let ledger = journal.ledger(&coder, at(75_000), period).await.unwrap();
    assert_eq!((ledger.incarnation, ledger.restarts), (5, 3));
    assert_eq!(ledger.recent, [at(50_000), at(70_000)], "inside the window, and automatic");
    assert_eq!(ledger.last_exit, Some(exit(4, 3, 60_005)), "the youngest that ended");

    journal.reset_window(&coder, at(76_000)).await.unwrap();
    assert_eq!(journal.ledger(&coder, at(76_000), period).await.unwrap().recent, Vec::<std::time::SystemTime>::new());
    // The clock was set back meanwhile: what was begun after the reset counts all the same.
    journal.begin_incarnation(incarnation(&coder, 6, 69_000, true)).await.unwrap();
    let other = agent("review/none");
    let ledgers = journal
        .ledgers(vec![(other.clone(), period), (coder.clone(), period), (coder.clone(), Duration::ZERO)], at(77_000))
        .await
        .unwrap();
    assert_eq!(ledgers[0], (other, empty));
    assert_eq!((&ledgers[1].0, &ledgers[1].1.recent, ledgers[1].1.restarts), (&coder, &vec![at(69_000)], 4));
    assert_eq!(ledgers[2].1.recent, Vec::<std::time::SystemTime>::new());
}

async fn standings(journal: &dyn Journal) {
    let coder = agent("review/coder-1");
    let states = [
        StandingState::Active,
        StandingState::BackingOff { retry_at: at(5_000) },
        StandingState::Failed { retry_at: None },
        StandingState::Failed { retry_at: Some(at(6_000)) },
        StandingState::Completed,
        StandingState::New,
    ];
    for (attempt, state) in (1..).zip(states) {
        journal.set_standing(&coder, Standing { state, attempt }, at(1)).await.unwrap();
        let ledger = journal.ledger(&coder, at(1), Duration::ZERO).await.unwrap();
        assert_eq!((ledger.standing, ledger.attempt), (Some(state), attempt));
    }
    journal.reset_window(&coder, at(2)).await.unwrap();
    let ledger = journal.ledger(&coder, at(2), Duration::ZERO).await.unwrap();
    assert_eq!((ledger.standing, ledger.attempt), (Some(StandingState::New), 0));
    journal.remove_swarm(&coder.swarm).await.unwrap();
    assert_eq!(journal.ledger(&coder, at(2), Duration::ZERO).await.unwrap().standing, None);
}

async fn usage(journal: &dyn Journal) {
    let (coder, other) = (agent("review/coder-1"), agent("review/coder-2"));
    let spent = |input, cost_usd| Spent {
        tally: UsageTally {
            over: Usage { input_tokens: Some(u64::MAX), output_tokens: Some(2), ..Usage::default() },
            last: Usage {
                input_tokens: Some(input),
                output_tokens: None,
                cache_read_input_tokens: Some(3),
                cache_creation_input_tokens: Some(4),
                reasoning_output_tokens: Some(5),
                cost_usd: Some(cost_usd),
            },
            incarnation: 7,
        },
        at: at(1_234),
        model: Some(("m-1".into(), at(1_200))),
    };
    let nameless = Spent { tally: UsageTally::default(), model: None, ..spent(0, 0.0) };
    let known = async |agent: &AgentId| journal.ledger(agent, at(9_000), Duration::ZERO).await.unwrap().spent;
    for agent in [&coder, &other] {
        journal.begin_incarnation(incarnation(agent, 1, 1_000, false)).await.unwrap();
        assert_eq!(known(agent).await, None, "it never said so");
    }
    let all =
        vec![(coder.clone(), spent(1, 0.1 + 0.2)), (agent("none/none"), spent(1, 1.0)), (other.clone(), nameless)];
    journal.put_usage(all.clone()).await.unwrap();
    assert_eq!((known(&coder).await, known(&other).await), (Some(all[0].1.clone()), Some(all[2].1.clone())));
    journal.put_usage(vec![(coder.clone(), spent(20, f64::MAX))]).await.unwrap();
    journal.begin_incarnation(incarnation(&coder, 2, 2_000, true)).await.unwrap();
    journal.remove_swarm(&coder.swarm).await.unwrap();
    assert_eq!(known(&coder).await, Some(spent(20, f64::MAX)), "it goes on as the numbers do");
    assert_eq!(known(&agent("none/none")).await, None);
}

async fn operations(journal: &dyn Journal) {
    let key =
        |key: &str, fingerprint: &str| Some(OperationKey { key: key.to_owned(), fingerprint: fingerprint.to_owned() });
    let first = operation("review", 1_000);
    assert_eq!(journal.put_operation(&first, key("k1", "restart review")).await, Ok(PutOutcome::Stored));
    let second = operation("review", 2_000);
    assert_eq!(journal.put_operation(&second, None).await, Ok(PutOutcome::Stored));
    let all = OperationQuery { limit: 9, ..OperationQuery::default() };
    assert_eq!(journal.operations(all.clone()).await.unwrap(), [second.clone(), first.clone()]);
    assert_eq!(journal.unfinished_operations().await.unwrap(), [first.clone(), second.clone()]);

    let ended = Operation {
        state: OperationState::Failed,
        ended_at: Some(at(3_000)),
        error: Some("no".to_owned()),
        ..first.clone()
    };
    journal.update_operation(&ended).await.unwrap();
    assert_eq!(journal.operation(first.id).await.unwrap(), Some(ended.clone()));
    assert_eq!(journal.unfinished_operations().await.unwrap(), std::slice::from_ref(&second));
    let other = Operation { target: Target::Agent(agent("review-2/coder")), ..operation("review", 2_500) };
    assert_eq!(journal.put_operation(&other, None).await, Ok(PutOutcome::Stored));
    for (query, found) in [
        (OperationQuery { before: Some(other.id), ..all.clone() }, vec![&second, &ended]),
        (OperationQuery { before: Some(first.id), ..all.clone() }, vec![]),
        (OperationQuery { swarm: Some("review".parse().unwrap()), ..all.clone() }, vec![&second, &ended]),
        (OperationQuery { swarm: Some("review-2".parse().unwrap()), ..all.clone() }, vec![&other]),
        (OperationQuery { state: Some(OperationState::Failed), ..all.clone() }, vec![&ended]),
        (OperationQuery { state: Some(OperationState::Accepted), limit: 1, ..all.clone() }, vec![&other]),
    ] {
        let listed = journal.operations(query.clone()).await.unwrap();
        assert_eq!(listed.iter().collect::<Vec<_>>(), found, "{query:?}");
    }

    let again = operation("review", 4_000);
    let outcome = journal.put_operation(&again, key("k1", "restart review")).await;
    assert_eq!(outcome, Ok(PutOutcome::Existing(Box::new(ended))));
    let outcome = journal.put_operation(&again, key("k1", "stop review")).await;
    assert_eq!(outcome, Ok(PutOutcome::KeyReused));
    assert_eq!(journal.operation(again.id).await.unwrap(), None, "nothing was stored");
    assert!(matches!(journal.update_operation(&again).await, Err(StoreError::Conflict(_))));
    assert_eq!(journal.operations(OperationQuery { limit: 1, ..all }).await.unwrap().len(), 1);
}

async fn events(journal: &dyn Journal) {
    assert_eq!(journal.last_reserved().await, Ok(Seq(0)));
    journal.append_events(vec![event(5, 1), event(9, 2)]).await.unwrap();
    journal.append_events(vec![event(9, 99), event(12, 3)]).await.unwrap();
    assert_eq!(journal.events(Seq(0), 9).await.unwrap(), [event(5, 1), event(9, 2), event(12, 3)]);
    assert_eq!(journal.events(Seq(5), 1).await.unwrap(), [event(9, 2)]);
    assert_eq!(journal.last_reserved().await, Ok(Seq(12)));
    journal.reserve_seqs(Seq(1_000)).await.unwrap();
    journal.reserve_seqs(Seq(500)).await.unwrap();
    assert_eq!(journal.last_reserved().await, Ok(Seq(1_000)), "never goes back");
}

async fn retention(journal: &dyn Journal) {
    let keep = |max, age_ms| Retention {
        events_max: max,
        operations_max: max,
        incarnations_max_per_agent: max,
        age_max: Duration::from_millis(age_ms),
    };
    journal.put_swarm(row("review", 1)).await.unwrap();
    let (here, gone) = (agent("review/coder-1"), agent("gone/coder-1"));
    for n in 1..=10 {
        journal.append_events(vec![event(n, n * 100)]).await.unwrap();
        let mut done = operation("review", n * 100);
        done.state = OperationState::Succeeded;
        journal.put_operation(&done, None).await.unwrap();
        for agent in [&here, &gone] {
            let begun = incarnation(agent, n, n * 100, n > 1);
            journal.begin_incarnation(begun.clone()).await.unwrap();
            journal.end_incarnation(begun.launch_id, &exit(n, 1, n * 100)).await.unwrap();
        }
    }
    let unfinished = operation("review", 1);
    journal.put_operation(&unfinished, None).await.unwrap();
    let open = incarnation(&here, 11, 1, true);
    journal.begin_incarnation(open.clone()).await.unwrap();

    let pruned = journal.prune(at(1_000), keep(4, 10_000)).await.unwrap();
    assert_eq!(pruned, Pruned { events: 6, operations: 6, incarnations: 12 });
    assert_eq!(journal.events(Seq(0), 99).await.unwrap().first().map(|e| e.seq), Some(Seq(7)));
    assert_eq!(journal.prune(at(1_000), keep(4, 10_000)).await.unwrap(), Pruned::default(), "nothing is left to take");

    let pruned = journal.prune(at(1_000), keep(4, 150)).await.unwrap();
    assert_eq!(pruned, Pruned { events: 2, operations: 2, incarnations: 4 });
    journal.prune(at(100_000), keep(4, 150)).await.unwrap();
    assert_eq!(journal.events(Seq(0), 99).await.unwrap(), []);
    let all = OperationQuery { limit: 99, ..OperationQuery::default() };
    assert_eq!(journal.operations(all).await.unwrap(), [unfinished], "what is under way stays");
    let ledger = journal.ledger(&here, at(100_000), Duration::ZERO).await.unwrap();
    assert_eq!((ledger.incarnation, ledger.restarts), (11, 10), "counts don't depend on history");
    assert_eq!(ledger.last_exit, Some(exit(10, 1, 1_000)), "the last exit of an agent of the hive stays");
    assert_eq!(journal.open_incarnations().await.unwrap()[0].begun, open);
    assert_eq!(journal.history(&gone, 9).await.unwrap(), [], "of a removed swarm nothing does");
    assert_eq!(journal.ledger(&gone, at(100_000), Duration::ZERO).await.unwrap().incarnation, 0);
    assert_eq!(journal.last_reserved().await, Ok(Seq(10)), "numbers do not come again");
}

async fn a_wrong_call_harms_no_neighbour(journal: &dyn Journal) {
    let agents: Vec<AgentId> = (0..50).map(|n| agent(&format!("review/coder-{n}"))).collect();
    let calls = agents.iter().enumerate().map(|(n, agent)| async move {
        if n % 5 == 0 {
            journal.mark_alive(LaunchId::mint(), 1, at(1)).await
        } else {
            journal.begin_incarnation(incarnation(agent, 1, 1, false)).await
        }
    });
    for (n, result) in futures_util::future::join_all(calls).await.into_iter().enumerate() {
        assert_eq!(result.is_err(), n % 5 == 0, "call {n}: {result:?}");
    }
    assert_eq!(journal.open_incarnations().await.unwrap().len(), 40);
    assert!(journal.status().ok, "a wrong call says nothing about the journal");
}
