//! The runtimes' contract on the fake and on `process` and on `docker`, in a container of its own and in one of others (with the real executable as launcher), and what only `process` can show.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod docker;
mod docker_memory;
mod docker_orphans;
mod docker_spare;
mod process;
mod process_only;
mod sidecar;
mod spare;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use hivekeeper::{
    model::{AgentId, LaunchId},
    runtime::{
        BoxFuture, LaunchOrder, Runtime,
        fake::{FakeRuntime, Script},
        suite::{self, Bench, Program},
    },
};

static AGENTS: AtomicU64 = AtomicU64::new(1);

/// An order without a command, for an agent of its own.
fn order() -> LaunchOrder {
    LaunchOrder {
        launch_id: LaunchId::mint(),
        agent: format!("suite/agent-{}", AGENTS.fetch_add(1, Relaxed)).parse().unwrap(),
        incarnation: 7,
        argv: vec!["program".to_owned()],
        env: [].into(),
        workdir: Some(std::env::temp_dir()),
        token: "token".to_owned(),
        lease: Duration::from_secs(30),
        grace: Duration::from_secs(1),
        sample_interval: Duration::from_millis(200),
    }
}

struct FakeBench(FakeRuntime);

impl Bench for FakeBench {
    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::new(self.0.clone())
    }
    fn successor(&self) -> Arc<dyn Runtime> {
        Arc::new(self.0.successor())
    }
    fn order(&self, program: Program) -> LaunchOrder {
        let order = order();
        let ready = Script::runs().prints(Duration::ZERO, "ready");
        let script = match program {
            Program::Runs | Program::Family => ready,
            Program::Stubborn => ready.ignores_stop(),
            Program::Exits(code) => Script::runs().exits(Duration::ZERO, code),
            Program::DiesOf(signal) => Script::runs().dies_of(Duration::ZERO, signal),
            Program::Prints(lines) => (1..=lines)
                .fold(Script::runs(), |script, n| script.prints(Duration::ZERO, &format!("line {n}")))
                .exits(Duration::ZERO, 0),
            Program::Missing => Script::start_fails("no such file"),
        };
        self.0.script(&order.agent, script);
        order
    }
    fn strike(&self, agent: &AgentId, _: u32) {
        self.0.strike(agent);
    }
    fn strike_launcher(&self, agent: &AgentId, _: u32) {
        self.0.strike_launcher(agent);
    }
    fn left(&self, order: &LaunchOrder) -> BoxFuture<'_, usize> {
        let agent = order.agent.clone();
        Box::pin(async move { self.0.live().iter().filter(|(live, _)| *live == agent).count() })
    }
}

macro_rules! contract {
    ($($case:ident)*) => {
        mod on_fake {
            $(#[tokio::test] async fn $case() { super::suite::$case(&super::FakeBench(super::FakeRuntime::new())).await })*
        }
        mod on_process {
            $(#[tokio::test] async fn $case() { super::process::bench(super::suite::$case).await })*
        }
        mod on_docker {
            $(#[tokio::test] async fn $case() { super::docker::bench(super::suite::$case).await })*
        }
        mod on_docker_beside {
            $(#[tokio::test] async fn $case() { super::sidecar::bench(super::suite::$case).await })*
        }
    };
}

contract! {
    exit_codes signals start_failure refused_order output_is_numbered stop_obeyed stop_grace kill dropped_reins_kill pause_and_resume
    recover_running recover_output recover_exited launcher_lost recover_lost orphans fencing reservations
}
