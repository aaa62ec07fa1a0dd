//! What is in the engine and no document accounts for: seen, left for a grace, removed; and what is never touched.

use std::time::{Duration, Instant};

use hivekeeper::{
    model::{Fate, Finding, FindingKind},
    runtime::{
        AgentEvent, LaunchOrder, Launched, Runtime,
        docker::{
            DockerRuntime,
            engine::{ContainerPlan, Network, resource_name},
        },
        suite::{Bench, Program},
    },
};
use tokio::time::sleep;

use super::docker::{DockerBench, ORPHAN_GRACE};
use crate::docker::harness::{Hive, PATIENCE, SCRATCH, hive, within};

async fn launched(runtime: &DockerRuntime, order: &LaunchOrder) -> Launched {
    let mut launched = within("a launch", runtime.launch(order.clone())).await.unwrap();
    let alive = async {
        loop {
            match launched.events.recv().await.expect("an event") {
                AgentEvent::Alive { .. } => return,
                AgentEvent::Exited(record) => panic!("{record:?}"),
                _ => {}
            }
        }
    };
    within("a live agent", alive).await;
    launched
}

async fn ended(launched: &mut Launched) {
    let end =
        async { while launched.events.recv().await.is_some_and(|event| !matches!(event, AgentEvent::Exited(_))) {} };
    within("the end", end).await;
}

/// What a pass says of these names; hives of other tests are of the same name, and found, too.
async fn pass(runtime: &DockerRuntime, dry_run: bool, names: &[&str]) -> Vec<(FindingKind, Fate)> {
    let found = within("a pass", runtime.reconcile(dry_run)).await.unwrap();
    assert!(found.iter().all(|it| names.contains(&it.name.as_str()) || it.fate == Fate::Reported), "{found:#?}");
    let named = |it: Finding| names.contains(&it.name.as_str()).then_some((it.kind, it.fate));
    found.into_iter().filter_map(named).collect()
}

/// Dry runs until the grace is over.
async fn waited(runtime: &DockerRuntime, names: &[&str]) -> Vec<(FindingKind, Fate)> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = pass(runtime, true, names).await;
        if !found.iter().any(|(_, fate)| matches!(fate, Fate::Waits(_))) {
            return found;
        }
        assert!(Instant::now() < deadline, "{found:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Names of this hive's containers and networks.
async fn there(hive: &Hive) -> Vec<String> {
    let containers = hive.engine.list_ours().await.unwrap().into_iter().map(|it| it.name);
    containers.chain(hive.engine.list_our_networks().await.unwrap().into_iter().map(|it| it.name)).collect()
}

#[tokio::test]
async fn what_no_document_accounts_for_is_left_for_a_grace_and_then_removed() {
    let Some(hive) = hive().await else { return };
    let bench = DockerBench::new(hive, 256 << 20);
    let order = bench.order(Program::Runs);
    let mut agent = launched(&bench.runtime, &order).await;

    let engine = &bench.hive().engine;
    let left = "left".parse().unwrap();
    let name = resource_name(engine.owner().hive_id, &left);
    engine.ensure_network(&left).await.unwrap();
    let plan = bench.hive().plan("left", SCRATCH).await;
    // On its bridge, which can't be removed before it.
    let plan = ContainerPlan { network: Network::Named(name.clone()), ..plan };
    engine.create_swarm_container(&plan).await.unwrap();
    let all = there(bench.hive()).await;
    assert_eq!(all.len(), 3, "the suite's container, the other one and its bridge: {all:?}");

    let kinds = [FindingKind::Container, FindingKind::Network];
    let each = |fate: &Fate| kinds.map(|kind| (kind, fate.clone()));
    assert_eq!(pass(&bench.runtime, false, &[&name]).await, each(&Fate::Waits(ORPHAN_GRACE)));
    assert_eq!(there(bench.hive()).await, all, "removed at first sight");
    assert_eq!(waited(&bench.runtime, &[&name]).await, each(&Fate::Removable));
    assert_eq!(there(bench.hive()).await, all, "removed by a dry run");
    assert_eq!(pass(&bench.runtime, false, &[&name]).await, each(&Fate::Removed));
    assert!(!there(bench.hive()).await.contains(&name));
    assert_eq!(pass(&bench.runtime, false, &[&name]).await, []);

    // The suite's own was in all of these passes.
    assert_eq!(there(bench.hive()).await.len(), 1);
    assert_eq!(bench.left(&order).await, 2, "the agent and its launcher");
    agent.control.kill();
    ended(&mut agent).await;
    bench.leave().await;
    bench.finish().await;
}

#[tokio::test]
async fn another_hive_of_our_name_is_told_of_and_never_touched() {
    let (Some(ours), Some(theirs)) = (hive().await, hive().await) else { return };
    assert_eq!(ours.engine.owner().hive, theirs.engine.owner().hive);
    let bench = DockerBench::new(ours, 256 << 20);
    let id = theirs.container("left", SCRATCH).await;
    let name = resource_name(theirs.engine.owner().hive_id, &"left".parse().unwrap());
    let reported = [(FindingKind::Container, Fate::Reported)];
    assert_eq!(pass(&bench.runtime, false, &[&name]).await, reported);
    sleep(ORPHAN_GRACE * 2).await;
    assert_eq!(pass(&bench.runtime, false, &[&name]).await, reported);
    let listed = theirs.engine.list_ours().await.unwrap();
    assert!(listed.iter().any(|it| it.id == id && it.running), "{listed:?}");
    bench.finish().await;
}

#[tokio::test]
async fn a_launch_that_nobody_here_knows_is_ended_unless_a_younger_daemon_leads_it() {
    let Some(hive) = hive().await else { return };
    let bench = DockerBench::new(hive, 256 << 20);
    let (older, younger) = (bench.order(Program::Family), bench.order(Program::Runs));
    let (older_id, younger_id) = (older.launch_id.to_string(), younger.launch_id.to_string());
    let mut lost = launched(&bench.runtime, &older).await;
    let mut kept = launched(&bench.successor, &younger).await;
    let tree = bench.left(&older).await;
    assert!(tree >= 3, "launcher, agent and grandchild: {tree}");

    let launch = |fate| [(FindingKind::Launch, fate)];
    assert_eq!(pass(&bench.runtime, false, &[&younger_id]).await, launch(Fate::Waits(ORPHAN_GRACE)));
    assert_eq!(waited(&bench.runtime, &[&younger_id]).await, launch(Fate::Removable));
    let [(_, Fate::Failed(why))] = &pass(&bench.runtime, false, &[&younger_id]).await[..] else {
        panic!("not refused")
    };
    assert_eq!(why, "a younger daemon leads it");
    assert_eq!(bench.left(&younger).await, 2, "the agent and its launcher");

    assert_eq!(pass(&bench.successor, false, &[&older_id]).await, launch(Fate::Waits(ORPHAN_GRACE)));
    assert_eq!(waited(&bench.successor, &[&older_id]).await, launch(Fate::Removable));
    assert_eq!(bench.left(&older).await, tree, "ended by a dry run");
    assert_eq!(pass(&bench.successor, false, &[&older_id]).await, launch(Fate::Removed));
    // Its launcher has said its last word; the engine may still be taking it out.
    within("its end", async {
        while bench.left(&older).await > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(pass(&bench.successor, false, &[&older_id]).await, []);
    within("the end of the older one's events", async { while lost.events.recv().await.is_some() {} }).await;

    assert_eq!(bench.left(&younger).await, 2);
    kept.control.kill();
    ended(&mut kept).await;
    bench.leave().await;
    bench.finish().await;
}
