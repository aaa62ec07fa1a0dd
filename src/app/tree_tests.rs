//! The whole tree on a scripted runtime: a panic in each of its actors in turn, and what is left to do its work afterwards.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "tree_tests/ends.rs"]
mod ends;
#[path = "tree_tests/nest.rs"]
mod nest;
#[path = "tree_tests/starts.rs"]
mod starts;
#[path = "tree_tests/storm.rs"]
mod storm;

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    sync::mpsc,
    time::{Duration, SystemTime},
};

use hivekeeper_actors::{ChildState, TellError};
use nest::{Nest, child, fell_by_panic, panic_in, run, until};

use super::*;
use crate::{
    control_plane::{Control, Request},
    model::{
        AgentId, AgentState, Command, Desired, LaunchId, Operation, OperationState, Requester, RestartMode,
        RestartType, Target,
    },
    runtime::fake::Script,
    store::{Incarnation, Journal, StoreError},
};

fn request(command: Command, target: &str) -> Request {
    let target = match target.parse() {
        Ok(agent) => Target::Agent(agent),
        Err(_) => Target::Swarm(target.parse().unwrap()),
    };
    Request {
        command,
        target,
        requested_by: Requester::Http { peer: "127.0.0.1:1".to_owned() },
        idempotency_key: None,
        if_match: None,
    }
}

fn restart(target: &str) -> Request {
    request(Command::Restart { mode: RestartMode::All, grace: None, reason: None }, target)
}

fn stop(target: &str) -> Request {
    request(Command::Stop { grace: None, reason: None }, target)
}

async fn ended(nest: &Nest, operation: &Operation) -> Operation {
    let operation = nest.office.wait(operation.id, Duration::from_secs(20)).await.unwrap();
    assert!(operation.state.ended(), "{operation:?}");
    operation
}

async fn done(nest: &Nest, request: Request) {
    let operation = nest.office.submit(request).await.unwrap();
    let operation = ended(nest, &operation).await;
    assert_eq!(operation.state, OperationState::Succeeded, "{operation:?}");
}

/// Panics in one service and checks the tree; what the service does afterwards is its own test's affair.
async fn struck(nest: &Nest, name: &str, strike: impl FnOnce() -> Result<(), TellError>) {
    let before = until("every service runs", async || {
        let services = nest.services().await;
        services.iter().all(|node| node.state == ChildState::Running).then_some(services)
    })
    .await;
    strike().unwrap();
    until(&format!("{name} is restarted"), async || {
        let node = child(&nest.services().await, name);
        (node.incarnation == 2 && node.state == ChildState::Running).then_some(())
    })
    .await;
    for node in nest.services().await {
        let was = child(&before, node.id.as_str()).incarnation;
        if node.id.as_str() == name {
            assert_eq!(node.restarts, 1);
            fell_by_panic(&node, &format!("a bug in {name}"));
        } else {
            assert_eq!(node.incarnation, was, "{} was touched by the panic in {name}", node.id);
            assert_eq!(node.state, ChildState::Running, "{}", node.id);
        }
    }
}

#[test]
fn a_panic_in_each_service_is_survived_by_it_and_by_the_others() {
    run(async {
        let nest = Nest::start(&[("s", &["a", "b"])]).await;
        nest.running("s/a", 1).await;
        nest.running("s/b", 1).await;
        let refs = &nest.refs;

        struck(&nest, "steward", || refs.steward.run(|_, _| panic!("a bug in steward"))).await;
        let touched = || std::fs::metadata(nest.data.path().join("lock")).unwrap().modified().unwrap();
        let before = touched();
        until("the steward touches the lock again", async || (touched() > before).then_some(())).await;

        struck(&nest, "journal", || refs.journal.run(|_, _| panic!("a bug in journal"))).await;
        nest.journaled("written after the panic in journal").await;

        struck(&nest, "health", || refs.health.run(|_, _| panic!("a bug in health"))).await;
        nest.runtime.strike(&"s/a".parse().unwrap());
        nest.running("s/a", 2).await;

        struck(&nest, "coordination", || refs.coordination.run(|_, _| panic!("a bug in coordination"))).await;
        assert_eq!(nest.desk.call(|_, _| Ok(())).await, Ok(()));

        struck(&nest, "history", || refs.history.run(|_, _| panic!("a bug in history"))).await;
        nest.runtime.strike(&"s/b".parse().unwrap());
        nest.running("s/b", 2).await;
        until("the history shows the restart", async || {
            let (status, page) = nest.get("/api/v1/swarms/s/agents/b/history").await;
            (status == 200 && page.contains("\"restarts\":1")).then_some(())
        })
        .await;

        let mut viewer = nest.viewer().await;
        struck(&nest, "viewers", || refs.viewers.run(|_, _| panic!("a bug in viewers"))).await;
        nest.runtime.strike(&"s/a".parse().unwrap());
        nest.running("s/a", 3).await;
        viewer = tokio::task::spawn_blocking(move || viewer.sees("\"incarnation\":3")).await.unwrap();
        drop(viewer);

        struck(&nest, "data-plane", || refs.data_plane.run(|_, _| panic!("a bug in data-plane"))).await;
        let at = nest.sockets.data_plane_at;
        let answer = tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(at).unwrap();
            stream.set_read_timeout(Some(nest::PATIENCE)).unwrap();
            stream.write_all(b"garbage\n").unwrap();
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line).unwrap();
            line
        });
        assert!(answer.await.unwrap().contains("-32700"));
        until("health shows that it listens", async || nest.health.hive().data_plane.listening.then_some(())).await;

        struck(&nest, "control-plane", || refs.controller.run(|_, _| panic!("a bug in control-plane"))).await;
        done(&nest, restart("s/b")).await;

        struck(&nest, "http", || refs.http.run(|_, _| panic!("a bug in http"))).await;
        let (status, _) = nest.get("/livez").await;
        assert_eq!(status, 200, "it answers on the same port");
        let (status, tree) = nest.get("/api/v1/tree").await;
        assert_eq!(status, 200);
        assert!(tree.contains("a bug in steward") && tree.contains("tree_tests.rs"), "{tree}");
        let (status, ready) = nest.get("/readyz?verbose").await;
        assert_eq!(status, 200, "{ready}");
        assert_eq!(nest.runtime.overlaps(), 0);
        assert_eq!(nest.live(), ["s/a 3", "s/b 3"], "agents are not touched by the daemon's own faults");
        nest.end().await;
    });
}

#[test]
fn operations_survive_a_panic_of_the_controller() {
    run(async {
        let nest = Nest::start(&[("s", &["a", "b"])]).await;
        nest.running("s/b", 1).await;
        let slow = Script::runs().alive_after(Duration::from_secs(3600));
        let a = "s/a".parse().unwrap();
        nest.runtime.next(&a, slow);
        let under_way = nest.office.submit(restart("s/a")).await.unwrap();
        until("it has come to the slow start", async || (nest.runtime.launches(&a) == 2).then_some(())).await;
        // Of the other one: a stop of the same would overtake what is under way.
        let queued = nest.office.submit(stop("s/b")).await.unwrap();
        nest.refs.controller.run(|_, _| panic!("a bug in the middle")).unwrap();
        let under_way = ended(&nest, &under_way).await;
        assert_eq!(under_way.state, OperationState::Succeeded, "it is taken up: {under_way:?}");
        assert_eq!(ended(&nest, &queued).await.state, OperationState::Succeeded);
        done(&nest, restart("s")).await;
        nest.end().await;
    });
}

/// It may be the operation that the controller falls over.
#[test]
fn an_operation_with_which_the_controller_falls_twice_is_not_taken_up_again() {
    run(async {
        let nest = Nest::start(&[("s", &["a"])]).await;
        nest.running("s/a", 1).await;
        let a = "s/a".parse().unwrap();
        nest.runtime.script(&a, Script::runs().alive_after(Duration::from_secs(3600)));
        let bad = nest.office.submit(restart("s/a")).await.unwrap();
        for launches in [2, 3] {
            until("it is under way", async || (nest.runtime.launches(&a) == launches).then_some(())).await;
            nest.refs.controller.run(|_, _| panic!("a bug in the middle")).unwrap();
        }
        let bad = ended(&nest, &bad).await;
        assert_eq!(bad.state, OperationState::Failed);
        assert!(bad.error.unwrap().contains("fell twice"));
        nest.runtime.script(&a, Script::runs());
        done(&nest, restart("s/a")).await;
        nest.end().await;
    });
}

/// The controller takes an operation out of the queue and crashes before it has written that it began.
#[test]
fn an_operation_that_was_taken_and_not_begun_is_not_lost() {
    run(async {
        let nest = Nest::start(&[("s", &["a"])]).await;
        nest.running("s/a", 1).await;
        let (open, gate) = mpsc::sync_channel::<()>(1);
        nest.refs.controller.run(move |_, _| gate.recv().unwrap()).unwrap();
        let taken = nest.office.submit(restart("s/a")).await.unwrap();
        nest.refs.controller.run(|_, _| panic!("a bug right behind it")).unwrap();
        open.send(()).unwrap();
        let taken = ended(&nest, &taken).await;
        assert_eq!(taken.state, OperationState::Succeeded, "{taken:?}");
        done(&nest, restart("s/a")).await;
        nest.end().await;
    });
}

#[test]
fn a_client_that_hangs_up_while_it_submits_leaves_no_operation_behind() {
    run(async {
        let nest = Nest::start(&[("s", &["a"])]).await;
        nest.running("s/a", 1).await;
        let keyed = || Request { idempotency_key: Some("k".to_owned()), ..restart("s/a") };
        {
            let mut submit = nest.office.submit(keyed());
            let context = &mut std::task::Context::from_waker(std::task::Waker::noop());
            assert!(submit.as_mut().poll(context).is_pending(), "the journal has its own thread");
        }
        let again = until("the key is known", async || {
            let mut all =
                nest.office.operations(crate::store::OperationQuery { limit: 10, ..Default::default() }).await.unwrap();
            all.pop()
        })
        .await;
        let same = nest.office.submit(keyed()).await.unwrap();
        assert_eq!(same.id, again.id);
        assert_eq!(ended(&nest, &same).await.state, OperationState::Succeeded);
        nest.end().await;
    });
}

#[test]
fn a_panic_in_an_agents_actor_never_doubles_the_agent() {
    run(async {
        let nest = Nest::start(&[("s", &["a", "b"])]).await;
        nest.running("s/a", 1).await;
        nest.running("s/b", 1).await;
        // It does not even heed a SIGTERM.
        nest.runtime.script(&"s/a".parse().unwrap(), Script::runs().ignores_stop());
        done(&nest, restart("s/a")).await;
        nest.panic_in_agent("s/a");
        let health = nest.running("s/a", 3).await;
        assert_eq!((health.restarts, nest.runtime.overlaps()), (1, 0));
        assert_eq!(nest.live(), ["s/a 3", "s/b 1"]);
        let tree = nest.office.tree().await.unwrap();
        let node = child(&child(&child(&tree.children, "swarms").children, "s").children, "a");
        fell_by_panic(&node, "a bug in an agent's actor");
        nest.end().await;
    });
}

async fn with_every_kind_of_agent() -> Nest {
    let nest = Nest::start_with(&[("s", &["runs", "stopped", "job", "failed"]), ("t", &["other"])], |spec| {
        spec.intensity = 0;
        for agent in &mut spec.agents {
            if agent.name.as_str() == "job" {
                Arc::make_mut(agent).restart = RestartType::Transient;
            }
        }
    });
    nest.runtime.script(&"s/job".parse().unwrap(), Script::runs().exits(Duration::ZERO, 0));
    nest.runtime.script(&"s/failed".parse().unwrap(), Script::runs().exits(Duration::ZERO, 3));
    let nest = nest.up().await;
    nest.running("t/other", 1).await;
    done(&nest, stop("s/stopped")).await;
    nest.state("s/job", AgentState::Completed).await;
    nest.state("s/failed", AgentState::Failed).await;
    nest.standings_written().await;
    nest
}

async fn as_it_was(nest: &Nest, other: u64) {
    nest.running("s/runs", 2).await;
    nest.running("t/other", other).await;
    until("the dead are gone", async || (nest.live().len() == 2).then_some(())).await;
    assert_eq!(nest.live(), ["s/runs 2".to_owned(), format!("t/other {other}")]);
    assert_eq!(nest.runtime.overlaps(), 0);
    for (id, state, incarnation) in [
        ("s/stopped", AgentState::Stopped, 1),
        ("s/job", AgentState::Completed, 1),
        ("s/failed", AgentState::Failed, 1),
    ] {
        let health = nest.state(id, state).await;
        assert_eq!(health.incarnation, incarnation, "{id} was started again: {health:?}");
    }
    done(nest, restart("s/runs")).await;
    done(nest, request(Command::Start, "s/stopped")).await;
    nest.running("s/stopped", 2).await;
}

#[test]
fn swarms_come_back_as_they_were_when_their_supervisor_falls() {
    run(async {
        let nest = with_every_kind_of_agent().await;
        panic_in(&nest.refs.swarms, "a bug in the supervisor of swarms").await;
        until("it is restarted", async || {
            let node = child(&nest.services().await, SWARMS);
            (node.incarnation == 2 && node.children.len() == 2)
                .then(|| fell_by_panic(&node, "the supervisor of swarms"))
        })
        .await;
        as_it_was(&nest, 2).await;
        nest.end().await;
    });
}

#[test]
fn a_swarm_comes_back_as_it_was_when_its_own_supervisor_falls() {
    run(async {
        let nest = with_every_kind_of_agent().await;
        let supervisor = nest.office.supervisor(&"s".parse().unwrap()).unwrap();
        panic_in(&supervisor, "a bug in the supervisor of s").await;
        as_it_was(&nest, 1).await;
        nest.end().await;
    });
}

#[test]
fn without_a_journal_nothing_is_launched_and_everything_else_goes_on() {
    run(async {
        let nest = Nest::start(&[("s", &["a", "b"])]).await;
        nest.running("s/a", 1).await;
        nest.running("s/b", 1).await;
        let last = nest.runtime.launches(&"s/a".parse().unwrap());
        nest.journal.fail_writes(Some(StoreError::Full));
        nest.runtime.strike(&"s/a".parse().unwrap());
        let waits = until("it waits", async || {
            let health = nest.health.agent(&"s/a".parse().unwrap()).unwrap();
            health.reasons.iter().any(|reason| reason.detail.contains("no space left")).then_some(health)
        })
        .await;
        assert_eq!(waits.state, AgentState::Pending, "{waits:?}");
        assert_eq!(nest.runtime.launches(&"s/a".parse().unwrap()), last, "launched without a journal");
        assert_eq!(nest.live(), ["s/b 1"]);
        until("health tells of the journal", async || {
            let plane = &nest.health.hive().control_plane;
            (!plane.reachable && plane.last_error.as_deref().is_some_and(|e| e.contains("no space"))).then_some(())
        })
        .await;
        assert!(nest.office.submit(restart("s/b")).await.is_err());
        let (status, text) = nest.get("/readyz?verbose").await;
        assert_eq!(status, 503, "{text}");
        nest.journal.fail_writes(None);
        nest.running("s/a", 2).await;
        until("health is well", async || nest.health.hive().control_plane.reachable.then_some(())).await;
        assert_eq!(nest.get("/readyz").await.0, 200);
        nest.journaled("written after the disk had room again").await;
        done(&nest, restart("s/b")).await;
        nest.end().await;
    });
}

/// The journal would take the next begin, but not the end before it.
#[test]
fn an_end_that_alone_can_not_be_journaled_holds_up_the_next_launch() {
    run(async {
        let nest = Nest::start(&[("s", &["a"])]).await;
        nest.running("s/a", 1).await;
        let agent = "s/a".parse().unwrap();
        nest.journal.fail_ends(Some(StoreError::Full));
        nest.runtime.strike(&agent);
        until("it waits", async || {
            let health = nest.health.agent(&agent).unwrap();
            health.reasons.iter().any(|reason| reason.detail.contains("no space left")).then_some(())
        })
        .await;
        assert_eq!(nest.runtime.launches(&agent), 1, "launched before the end of the last one was in the journal");
        nest.journal.fail_ends(None);
        nest.running("s/a", 2).await;
        let open = nest.journal.open_incarnations().await.unwrap();
        assert_eq!(open.iter().map(|row| row.begun.incarnation).collect::<Vec<_>>(), [2]);
        nest.end().await;
    });
}

/// Both are refused for ever, so neither is tried for ever.
#[test]
fn a_journal_that_does_not_fit_holds_no_agent_up() {
    run(async {
        let nest = Nest::start(&[("s", &["a"])]).await;
        nest.running("s/a", 1).await;
        let agent: AgentId = "s/a".parse().unwrap();
        nest.journal.fail_ends(Some(StoreError::Conflict("no such launch".to_owned())));
        nest.runtime.strike(&agent);
        nest.running("s/a", 2).await;
        nest.journal.fail_ends(None);
        let ahead = Incarnation {
            launch_id: LaunchId::mint(),
            agent: agent.clone(),
            incarnation: 3,
            token_hash: [0; 32],
            begun_at: SystemTime::now(),
            automatic: true,
            runs: None,
        };
        nest.journal.begin_incarnation(ahead).await.unwrap();
        nest.runtime.strike(&agent);
        nest.running("s/a", 4).await;
        assert_eq!(nest.runtime.launches(&agent), 3, "the third was launched without a journal");
        nest.end().await;
    });
}

/// A write that somebody asked for fails, and nothing else is written meanwhile.
#[test]
fn an_idle_hive_tells_of_a_journal_that_fails_and_of_its_recovery() {
    run(async {
        let nest = Nest::start(&[("s", &["a"])]).await;
        nest.running("s/a", 1).await;
        done(&nest, stop("s")).await;
        nest.journaled("the last word").await;
        nest.journal.fail_writes(Some(StoreError::ReadOnly));
        assert!(nest.office.submit(request(Command::Start, "s")).await.is_err());
        let reachable = || nest.health.hive().control_plane.reachable;
        until("health tells of the failure", async || (!reachable()).then_some(())).await;
        nest.journal.fail_writes(None);
        until("health is well", async || reachable().then_some(())).await;
        nest.end().await;
    });
}

/// A start can take for ever, as without a journal. Whoever asked for it must not lock out who wants to stop it.
#[test]
fn a_stop_overtakes_a_start_that_does_not_come_to_an_end() {
    run(async {
        let nest = Nest::start(&[("s", &["a", "b"])]).await;
        nest.running("s/b", 1).await;
        let a = "s/a".parse().unwrap();
        nest.runtime.next(&a, Script::runs().alive_after(Duration::from_secs(3600)));
        let endless = nest.office.submit(restart("s/a")).await.unwrap();
        until("it is launched", async || (nest.runtime.launches(&a) == 2).then_some(())).await;
        let behind = nest.office.submit(restart("s/b")).await.unwrap();
        done(&nest, stop("s")).await;
        let endless = ended(&nest, &endless).await;
        assert_eq!(endless.state, OperationState::Failed);
        assert!(endless.error.as_deref().is_some_and(|error| error.contains("stop")), "{endless:?}");
        ended(&nest, &behind).await;
        assert_eq!(nest.live(), Vec::<String>::new());
        assert_eq!(nest.health.agent(&a).unwrap().desired, Desired::Stopped);
        nest.end().await;
    });
}

/// An engine that does not answer is no failure of the agents.
#[test]
fn a_runtime_that_is_unreachable_is_waited_for_and_spends_no_restart() {
    run(async {
        let nest = Nest::start(&[("s", &["a", "b"])]).await;
        nest.running("s/b", 1).await;
        let (a, b) = ("s/a".parse().unwrap(), "s/b".parse().unwrap());
        nest.runtime.next(&a, Script::unreachable("the engine is away"));
        nest.runtime.strike(&a);
        // The end is shown first, and then what the next start waits for.
        until("the start waits and says why", async || {
            let agent = nest.health.agent(&a)?;
            let says_why = agent.reasons.iter().any(|reason| reason.detail.contains("the engine is away"));
            (agent.state == AgentState::Pending && says_why).then_some(())
        })
        .await;
        let back = nest.running("s/a", 2).await;
        assert_eq!((back.restarts, back.restarts_in_window), (1, 1), "the kill's own, and no other");

        nest.runtime.script(&b, Script::unreachable("the engine is away"));
        nest.runtime.strike(&b);
        nest.state("s/b", AgentState::Pending).await;
        done(&nest, stop("s/b")).await;
        assert_eq!(nest.health.agent(&b).unwrap().state, AgentState::Stopped);
        assert!(nest.journal.open_incarnations().await.unwrap().iter().all(|open| open.begun.agent != b));
        nest.end().await;
    });
}
