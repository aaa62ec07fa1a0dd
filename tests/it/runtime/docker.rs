//! `docker` on the bench of the suite: a hive of its own in the real engine, one container for the suite's swarm.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use hivekeeper::{
    model::{AgentId, ContainerSpec, EngineNews, EngineWitness, Epoch, Limits, Place},
    runtime::{
        BoxFuture, LaunchOrder, Runtime,
        docker::{DockerOptions, DockerRuntime, Launcher},
        suite::{Bench, Program},
    },
};
use tokio::runtime::Handle;

use super::process::{Closes, RING_BYTES, kill, launcher_of, processes};
use crate::docker::harness::{DEBIAN, Hive, hive};
use crate::hive::until;

/// Short, so that tests see it end; every first sight waits all of it.
pub(super) const ORPHAN_GRACE: Duration = Duration::from_secs(1);

pub(super) struct DockerBench {
    hive: Hive,
    pub(super) runtime: Arc<DockerRuntime>,
    pub(super) successor: Arc<DockerRuntime>,
}

/// Runs a case, where there is an engine, and sees that it left no process behind.
pub(super) async fn bench(case: impl AsyncFnOnce(&dyn Bench)) {
    let Some(hive) = hive().await else { return };
    let bench = DockerBench::new(hive, 256 << 20);
    case(&bench).await;
    bench.finish().await;
}

impl DockerBench {
    /// `memory` is for all agents together, bytes.
    pub(super) fn new(hive: Hive, memory: u64) -> Self {
        Self::of(
            hive,
            ContainerSpec {
                place: Place::Own { image: DEBIAN.to_owned() },
                limits: Limits { memory: Some(memory), cpus: None, pids: Some(128) },
                read_only_root: true,
                tmpfs: vec!["/tmp".to_owned()],
                ..ContainerSpec::sidecar(String::new())
            },
        )
    }

    /// With another container.
    pub(super) fn of(hive: Hive, spec: ContainerSpec) -> Self {
        let exe = Launcher::open(&PathBuf::from(env!("CARGO_BIN_EXE_hivekeeper"))).unwrap();
        let made = |epoch| {
            let runtime = DockerRuntime::new(DockerOptions {
                host: std::env::var("DOCKER_HOST").ok(),
                owner: hive.engine.owner().clone(),
                exe: exe.clone(),
                epoch: Epoch(epoch),
                ring_bytes: RING_BYTES,
                relay: Arc::new(Closes),
                witness: Arc::new(Deaf),
                orphan_grace: ORPHAN_GRACE,
                tasks: Handle::current(),
            });
            runtime.declare(&"suite".parse().unwrap(), Arc::new(spec.clone()), Duration::from_secs(30));
            Arc::new(runtime)
        };
        let (runtime, successor) = (made(1), made(2));
        Self { hive, runtime, successor }
    }

    pub(super) fn command(&self, argv: &[&str]) -> LaunchOrder {
        let argv = argv.iter().map(|arg| (*arg).to_owned()).collect();
        LaunchOrder { argv, workdir: None, ..super::order() }
    }

    pub(super) fn shell(&self, script: &str) -> LaunchOrder {
        self.command(&["sh", "-c", script])
    }

    pub(super) fn docker(&self) -> &DockerRuntime {
        &self.runtime
    }

    pub(super) fn hive(&self) -> &Hive {
        &self.hive
    }

    /// As a daemon that stops does, and the one after it.
    pub(super) async fn leave(&self) {
        for runtime in [&self.runtime, &self.successor] {
            assert_eq!(runtime.finish(Duration::from_secs(20)).await, 0, "tasks were left behind");
            runtime.leave(Duration::from_secs(20)).await;
        }
    }

    pub(super) async fn finish(self) {
        assert_eq!(self.runtime.finish(Duration::from_secs(20)).await, 0, "tasks were left behind");
        assert_eq!(self.successor.finish(Duration::from_secs(20)).await, 0, "tasks were left behind");
        drop(self.hive);
    }
}

/// The process with this id in the container, by its id on this machine. One that is just becoming another program shows no environment for a moment.
fn outside(order_of: &AgentId, inside: u32) -> u32 {
    until("the agent's process", || look_outside(order_of, inside))
}

fn look_outside(order_of: &AgentId, inside: u32) -> Option<u32> {
    let agent = format!("HIVEKEEPER_AGENT={order_of}");
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let found = pids.filter(|pid| {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|found| found == agent.as_bytes())
            && ids.split_whitespace().next_back().and_then(|id| id.parse().ok()) == Some(inside)
    });
    found.last()
}

impl Bench for DockerBench {
    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::clone(&self.runtime) as _
    }
    fn successor(&self) -> Arc<dyn Runtime> {
        Arc::clone(&self.successor) as _
    }
    fn order(&self, program: Program) -> LaunchOrder {
        match program {
            Program::Runs => self.shell("echo ready; exec sleep 600"),
            Program::Stubborn => self.shell("trap '' TERM; echo ready; while :; do sleep 1; done"),
            Program::Family => self.shell("setsid sh -c 'echo ready; exec sleep 600' & exec sleep 600"),
            Program::Exits(code) => self.shell(&format!("exit {code}")),
            Program::DiesOf(signal) => self.shell(&format!("kill -{signal} $$; sleep 600")),
            Program::Prints(lines) => {
                self.shell(&format!("i=1; while [ $i -le {lines} ]; do echo line $i; i=$((i+1)); done"))
            }
            Program::Missing => self.command(&["/no/such/program"]),
        }
    }
    fn strike(&self, agent: &AgentId, pid: u32) {
        kill("KILL", outside(agent, pid));
    }
    fn strike_launcher(&self, agent: &AgentId, pid: u32) {
        kill("KILL", launcher_of(outside(agent, pid)));
    }
    fn left(&self, order: &LaunchOrder) -> BoxFuture<'_, usize> {
        let order = order.clone();
        Box::pin(async move { processes(&order).len() })
    }
}

/// Nobody follows this engine.
struct Deaf;

impl EngineWitness for Deaf {
    fn heard(&self, _: EngineNews) {}
}
