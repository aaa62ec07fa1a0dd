//! `process` on the bench of the suite.

use std::{fs, path::PathBuf, process::Command, sync::Arc, time::Duration};

use hivekeeper::{
    model::{AgentId, DuplexStream, Epoch, RelaySink},
    runtime::{
        BoxFuture, LaunchOrder, Runtime,
        orphans::{MARKER, Tree, sweep},
        process::{ProcessOptions, ProcessRuntime},
        suite::{Bench, Program},
    },
};
use tempfile::TempDir;
use tokio::runtime::Handle;

/// The ring of `config.toml`.
pub(super) const RING_BYTES: u32 = 256 * 1024;

/// A runtime in a run directory of its own.
pub(super) struct ProcessBench {
    dir: TempDir,
    runtime: Arc<ProcessRuntime>,
    successor: Arc<ProcessRuntime>,
    orders: std::sync::Mutex<Vec<LaunchOrder>>,
}

/// Runs a case, and sees that it left no process and no file behind.
pub(super) async fn bench(case: impl AsyncFnOnce(&dyn Bench)) {
    let bench = ProcessBench::new(Arc::new(Closes));
    case(&bench).await;
    bench.finish().await;
}

impl ProcessBench {
    pub(super) fn new(relay: Arc<dyn RelaySink>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let made = |epoch| {
            let options = ProcessOptions {
                exe: PathBuf::from(env!("CARGO_BIN_EXE_hivekeeper")),
                run_dir: dir.path().join("run"),
                epoch: Epoch(epoch),
                env: vec![("PATH".to_owned(), std::env::var("PATH").unwrap())],
                ring_bytes: RING_BYTES,
                open_files: None,
                relay: Arc::clone(&relay),
                tasks: Handle::current(),
            };
            Arc::new(ProcessRuntime::new(options).unwrap())
        };
        let (runtime, successor) = (made(1), made(2));
        Self { dir, runtime, successor, orders: std::sync::Mutex::default() }
    }

    pub(super) fn process(&self) -> &Arc<ProcessRuntime> {
        &self.runtime
    }

    pub(super) fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    pub(super) fn command(&self, argv: &[&str]) -> LaunchOrder {
        let argv = argv.iter().map(|arg| (*arg).to_owned()).collect();
        let order = LaunchOrder { argv, workdir: Some(self.dir.path().to_path_buf()), ..super::order() };
        self.orders.lock().unwrap().push(order.clone());
        order
    }

    pub(super) fn shell(&self, script: &str) -> LaunchOrder {
        self.command(&["sh", "-c", script])
    }

    /// What there is of all launches.
    pub(super) fn processes(&self) -> Vec<u32> {
        self.orders.lock().unwrap().iter().flat_map(processes).collect()
    }

    pub(super) async fn finish(self) {
        for order in self.orders.lock().unwrap().iter() {
            assert_eq!(processes(order), Vec::<u32>::new(), "left behind by {:?}", order.argv);
        }
        assert_eq!(self.runtime.finish(Duration::from_secs(10)).await, 0, "tasks were left behind");
        assert_eq!(self.successor.finish(Duration::from_secs(10)).await, 0, "tasks were left behind");
        let sockets = fs::read_dir(self.run_dir()).unwrap().map(|entry| entry.unwrap().file_name());
        let sockets: Vec<_> = sockets.filter(|name| name.to_string_lossy().ends_with(".sock")).collect();
        assert!(sockets.is_empty(), "sockets were left behind: {sockets:?}");
    }
}

impl Drop for ProcessBench {
    /// A case that failed must not leave anything either.
    fn drop(&mut self) {
        for order in self.orders.lock().unwrap().iter() {
            let tree = Tree { launch_id: order.launch_id.to_string(), leader: None };
            let _ = sweep(&tree, Duration::from_secs(5));
        }
    }
}

impl Bench for ProcessBench {
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
    fn strike(&self, _: &AgentId, pid: u32) {
        kill("KILL", pid);
    }
    fn strike_launcher(&self, _: &AgentId, pid: u32) {
        kill("KILL", launcher_of(pid));
    }
    fn left(&self, order: &LaunchOrder) -> BoxFuture<'_, usize> {
        let order = order.clone();
        Box::pin(async move { processes(&order).len() })
    }
}

/// Has no use for connections.
pub(super) struct Closes;

impl RelaySink for Closes {
    fn serve(&self, _: AgentId, _: u64, _: Box<dyn DuplexStream>) {}
}

/// What carries the marker of a launch.
pub(super) fn processes(order: &LaunchOrder) -> Vec<u32> {
    let entry = format!("{MARKER}={}", order.launch_id);
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|found| found == entry.as_bytes())
    })
    .collect()
}

pub(super) fn launcher_of(agent: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{agent}/status")).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    parent.trim().parse().unwrap()
}

pub(super) fn kill(signal: &str, pid: u32) {
    assert!(Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status().unwrap().success());
}
