//! The launcher that `process` starts ahead.

use std::{fs, path::Path, sync::Arc, time::Duration};

use hivekeeper::{
    model::{ExitCause, LaunchId},
    runtime::{
        AgentEvent, LaunchError, LaunchOrder, Launched, Recovered, Runtime,
        process::ProcessRuntime,
        suite::{Bench, Program},
    },
};
use tokio::time::{Instant, sleep, timeout};

use crate::harness::processes::{state, wait_for};

use super::{
    process::{Closes, ProcessBench, kill, launcher_of, processes},
    process_only::{executable, options},
};

const PATIENCE: Duration = Duration::from_secs(20);

async fn alive(launched: &mut Launched) -> u32 {
    match timeout(PATIENCE, launched.events.recv()).await.expect("an event in time") {
        Some(AgentEvent::Alive { pid, .. }) => pid,
        other => panic!("instead of alive: {other:?}"),
    }
}

async fn ended(launched: &mut Launched) -> ExitCause {
    loop {
        match timeout(PATIENCE, launched.events.recv()).await.expect("an event in time") {
            Some(AgentEvent::Exited(record)) => return record.cause,
            Some(_) => {}
            None => panic!("no end"),
        }
    }
}

async fn gone(launch_id: LaunchId) {
    until("the spare did not end", || carriers(launch_id).is_empty()).await;
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        sleep(Duration::from_millis(2)).await;
    }
}

fn carriers(launch_id: LaunchId) -> Vec<u32> {
    processes(&LaunchOrder { launch_id, ..super::order() })
}

/// The spare, reserved, once there is one, and its process.
async fn spare(runtime: &dyn Runtime) -> (LaunchId, u32) {
    let end = Instant::now() + PATIENCE;
    loop {
        let launch_id = runtime.reserve(&"suite".parse().unwrap());
        if let [pid] = carriers(launch_id)[..] {
            return (launch_id, pid);
        }
        assert!(Instant::now() < end, "no spare was started");
        sleep(Duration::from_millis(2)).await;
    }
}

/// An agent that makes the runtime keep a spare.
async fn first(bench: &ProcessBench) -> Launched {
    let mut launched = bench.runtime().launch(bench.order(Program::Runs)).await.unwrap();
    alive(&mut launched).await;
    launched
}

async fn end(launched: &mut Launched) {
    launched.control.kill();
    assert_eq!(ended(launched).await, ExitCause::Stopped);
}

/// Launchers end a moment after their last word.
async fn over(bench: ProcessBench) {
    until("processes were left", || bench.processes().is_empty()).await;
    bench.finish().await;
}

fn sockets(run_dir: &Path) -> usize {
    let entries = fs::read_dir(run_dir).unwrap().filter_map(Result::ok);
    entries.filter(|entry| entry.path().extension().is_some_and(|suffix| suffix == "sock")).count()
}

#[tokio::test]
async fn it_is_used_and_replaced_and_there_is_one_at_most() {
    let bench = ProcessBench::new(Arc::new(Closes));
    let mut other = first(&bench).await;
    let runtime = bench.runtime();
    for _ in 0..2 {
        let (launch_id, launcher) = spare(&*runtime).await;
        let minted = runtime.reserve(&"suite".parse().unwrap());
        assert!(minted != launch_id && carriers(minted).is_empty(), "reserved twice");
        let order = LaunchOrder { launch_id, ..bench.order(Program::Runs) };
        let mut launched = runtime.launch(order.clone()).await.unwrap();
        assert_eq!(launcher_of(alive(&mut launched).await), launcher);
        end(&mut launched).await;
        until("processes were left", || processes(&order).is_empty()).await;
    }
    // One that nobody has reserved an id for leaves the spare alone.
    let (launch_id, launcher) = spare(&*runtime).await;
    let mut launched = first(&bench).await;
    assert_eq!(carriers(launch_id), [launcher]);
    end(&mut launched).await;
    end(&mut other).await;
    assert_eq!(bench.process().finish(PATIENCE).await, 0);
    assert!(carriers(launch_id).is_empty(), "the spare was left behind");
    over(bench).await;
}

#[tokio::test]
async fn before_the_first_agent_there_is_none() {
    let bench = ProcessBench::new(Arc::new(Closes));
    let refused = LaunchOrder { argv: Vec::new(), ..bench.order(Program::Runs) };
    assert!(matches!(bench.runtime().launch(refused).await, Err(LaunchError::Refused(_))));
    sleep(Duration::from_millis(200)).await;
    assert!(carriers(bench.runtime().reserve(&"suite".parse().unwrap())).is_empty());
    over(bench).await;
}

#[tokio::test]
async fn killed_before_its_order_it_costs_nothing_but_time() {
    let bench = ProcessBench::new(Arc::new(Closes));
    let mut other = first(&bench).await;
    let runtime = bench.runtime();
    let (launch_id, launcher) = spare(&*runtime).await;
    kill("KILL", launcher);
    // Without a turn for the runtime, which would see its death before the order does. A zombie has closed its descriptors; before that, an order
    // could still be put into its pipe.
    wait_for("a zombie", || (state(launcher.cast_signed()) == Some('Z')).then_some(()));
    let order = LaunchOrder { launch_id, ..bench.order(Program::Runs) };
    let mut launched = runtime.launch(order.clone()).await.unwrap();
    assert_ne!(launcher_of(alive(&mut launched).await), launcher);
    let (_, next) = spare(&*runtime).await;
    assert_ne!(next, launcher);
    end(&mut launched).await;
    end(&mut other).await;
    over(bench).await;
}

#[tokio::test]
async fn one_that_dies_unused_is_replaced() {
    let bench = ProcessBench::new(Arc::new(Closes));
    let mut other = first(&bench).await;
    let runtime = bench.runtime();
    let (dead, launcher) = spare(&*runtime).await;
    kill("KILL", launcher);
    let (next, _) = spare(&*runtime).await;
    assert_ne!(next, dead);
    gone(dead).await;
    end(&mut other).await;
    over(bench).await;
}

#[tokio::test]
async fn reserved_and_forgotten_or_refused_it_leaves_nothing() {
    let bench = ProcessBench::new(Arc::new(Closes));
    let mut other = first(&bench).await;
    let runtime = bench.runtime();
    let (launch_id, _) = spare(&*runtime).await;
    runtime.forget(launch_id).await;
    assert!(carriers(launch_id).is_empty());
    let (launch_id, _) = spare(&*runtime).await;
    let refused = LaunchOrder { launch_id, argv: Vec::new(), ..bench.order(Program::Runs) };
    assert!(matches!(runtime.launch(refused).await, Err(LaunchError::Refused(_))));
    assert!(carriers(launch_id).is_empty());
    end(&mut other).await;
    over(bench).await;
}

#[tokio::test]
async fn it_is_no_launch_that_anybody_could_find() {
    let bench = ProcessBench::new(Arc::new(Closes));
    let mut other = first(&bench).await;
    let runtime = bench.runtime();
    let (launch_id, launcher) = spare(&*runtime).await;
    assert_eq!(sockets(&bench.run_dir()), 1, "only the agent's");
    assert_eq!(runtime.orphans(Vec::new(), true).await, []);
    assert_eq!(carriers(launch_id), [launcher]);
    let LaunchOrder { agent, incarnation, .. } = super::order();
    let found = bench.successor().recover(launch_id, agent, incarnation, 0).await;
    assert!(matches!(found, Ok(Recovered::Lost)), "{:?}", found.err());
    assert!(carriers(launch_id).is_empty(), "lost is proven dead");
    end(&mut other).await;
    over(bench).await;
}

#[tokio::test]
async fn it_ends_with_a_runtime_that_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let run_dir = dir.path().join("run");
    let runtime = ProcessRuntime::new(options(run_dir.clone(), executable())).unwrap();
    let order = LaunchOrder { argv: vec!["/bin/sleep".to_owned(), "600".to_owned()], ..super::order() };
    let mut launched = runtime.launch(order.clone()).await.unwrap();
    alive(&mut launched).await;
    let (launch_id, _) = spare(&runtime).await;
    launched.control.kill();
    assert_eq!(ended(&mut launched).await, ExitCause::Stopped);
    drop(runtime);
    gone(launch_id).await;
    until("processes were left", || processes(&order).is_empty()).await;
    assert_eq!(sockets(&run_dir), 0);
}
