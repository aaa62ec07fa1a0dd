//! Memory that runs out in a swarm's container: told of whom it took, and of nobody else.

use std::time::Duration;

use hivekeeper::{
    model::{ExitCause, ExitRecord},
    runtime::{AgentEvent, LaunchOrder, Launched, Runtime, suite::Bench},
};
use tokio::time::timeout;

use super::docker::DockerBench;
use crate::docker::harness::hive;

const PATIENCE: Duration = Duration::from_secs(60);
const MEMORY: u64 = 64 << 20;
/// Grows until it is killed.
const EATS: &str = "tail /dev/zero";

struct Agent {
    order: LaunchOrder,
    launched: Launched,
}

impl Agent {
    async fn start(bench: &DockerBench, script: &str) -> Self {
        let order = bench.shell(script);
        let launched = bench.runtime().launch(order.clone()).await.unwrap();
        Self { order, launched }
    }

    async fn until<T>(&mut self, what: &str, found: impl Fn(AgentEvent) -> Option<T>) -> T {
        let wait = async {
            loop {
                let event = self.launched.events.recv().await.expect("an end before the channel's");
                if let Some(found) = found(event) {
                    return found;
                }
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"))
    }

    async fn alive(&mut self) -> u32 {
        let pid = |event| if let AgentEvent::Alive { pid, .. } = event { Some(pid) } else { None };
        self.until("alive", pid).await
    }

    async fn says(&mut self, text: &str) {
        let said = |event| match event {
            AgentEvent::Output(lines) => lines.iter().any(|line| line.text == text).then_some(()),
            AgentEvent::Exited(record) => panic!("{record:?}"),
            _ => None,
        };
        self.until(text, said).await;
    }

    /// Its launcher has looked at the count again.
    async fn is_sampled(&mut self) {
        while self.launched.events.try_recv().is_ok() {}
        let sampled = |event| match event {
            AgentEvent::Sample { .. } => Some(()),
            AgentEvent::Exited(record) => panic!("{record:?}"),
            _ => None,
        };
        self.until("a reading", sampled).await;
    }

    async fn ends(mut self) -> ExitRecord {
        let exited = |event| if let AgentEvent::Exited(record) = event { Some(record) } else { None };
        self.until("the end", exited).await
    }
}

#[tokio::test]
async fn memory_that_runs_out_is_told_of_its_victim_alone() {
    let Some(hive) = hive().await else { return };
    let bench = DockerBench::new(hive, MEMORY);
    assert!(bench.runtime.capabilities().oom);
    let mut sibling = Agent::start(&bench, "echo ready; exec sleep 600").await;
    let sibling_pid = sibling.alive().await;
    sibling.says("ready").await;

    let taken = Agent::start(&bench, &format!("exec {EATS}")).await.ends().await;
    assert_eq!((&taken.cause, taken.signal, taken.oom), (&ExitCause::Signalled, Some(libc::SIGKILL), Some(true)));
    assert_eq!(taken.describe(), "killed by signal 9: memory ran out");

    let told = Agent::start(&bench, &format!("{EATS}; exit $?")).await.ends().await;
    assert_eq!((told.code, told.oom), (Some(137), Some(true)), "its shell passes on what became of it");

    // A child that is taken is no end of the agent.
    let mut parent = Agent::start(&bench, &format!("{EATS}; echo $?; exec sleep 600")).await;
    let parent_pid = parent.alive().await;
    parent.says("137").await;

    for (mut agent, pid) in [(sibling, sibling_pid), (parent, parent_pid)] {
        // The second behind a death's time: just after memory ran out, a kill is taken for its consequence.
        agent.is_sampled().await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        agent.is_sampled().await;
        bench.strike(&agent.order.agent, pid);
        let killed = agent.ends().await;
        assert_eq!(
            (&killed.cause, killed.signal, killed.oom),
            (&ExitCause::Signalled, Some(libc::SIGKILL), Some(false))
        );
        assert_eq!(killed.describe(), "killed by signal 9");
    }

    let mut stopped = Agent::start(&bench, "trap '' TERM; echo ready; while :; do sleep 1; done").await;
    stopped.says("ready").await;
    stopped.launched.control.stop(Duration::ZERO);
    let stopped = stopped.ends().await;
    assert_eq!((&stopped.cause, stopped.signal, stopped.oom), (&ExitCause::Stopped, Some(libc::SIGKILL), Some(false)));
    bench.finish().await;
}
