//! The launcher that `docker` execs ahead, where the runtime ends and its process lives on.

use std::time::Duration;

use hivekeeper::runtime::{
    AgentEvent,
    suite::{Bench, Program},
};
use tokio::{
    process::Command,
    time::{Instant, sleep},
};

use super::docker::DockerBench;
use crate::docker::harness::{PATIENCE, hive, spares, within};

async fn spares_of(container: &str) -> Vec<i32> {
    let top = Command::new("docker").args(["top", container, "-eo", "pid,ppid,args"]).kill_on_drop(true).output();
    let top = within("docker top", top).await.unwrap();
    assert!(top.status.success(), "{top:?}");
    spares(&String::from_utf8(top.stdout).unwrap())
}

async fn until(container: &str, count: usize) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = spares_of(container).await;
        if found.len() == count {
            return;
        }
        assert!(Instant::now() < deadline, "instead of {count}: {found:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn it_ends_with_its_runtime_and_agents_that_are_handed_over_do_not() {
    let Some(hive) = hive().await else { return };
    let bench = DockerBench::new(hive, 256 << 20);
    let order = bench.order(Program::Runs);
    let mut launched = within("a launch", bench.runtime().launch(order.clone())).await.unwrap();
    within("a sign of life", async {
        while !matches!(launched.events.recv().await.expect("an event"), AgentEvent::Alive { .. }) {}
    })
    .await;
    let ours = bench.hive().engine.list_ours().await.unwrap();
    let [container] = &ours[..] else { panic!("{ours:?}") };
    until(&container.id, 1).await;
    launched.control.detach();
    assert_eq!(bench.docker().finish(PATIENCE).await, 0, "tasks were left behind");
    until(&container.id, 0).await;
    assert_eq!(bench.left(&order).await, 2, "the agent and its launcher");
    bench.finish().await;
}
