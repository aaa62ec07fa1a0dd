//! A real engine for a test, or the line that says why there is none; and nothing left in it afterwards.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    future::Future,
    path::PathBuf,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use hivekeeper::{
    model::{HiveId, SwarmName},
    runtime::docker::engine::{
        ContainerPlan, Engine, Exec, ExecOrder, LAUNCHER_PATH, LauncherVolume, Limits, Network, Owner, resource_name,
    },
};
use tokio::io::AsyncReadExt;

use crate::harness::skipped;

/// An image with nothing but `/probe`.
pub(crate) const SCRATCH: &str = "hivekeeper-test:scratch";
/// An image with a shell.
pub(crate) const DEBIAN: &str = "debian:bookworm-slim";
/// An image with busybox alone, and without a C library, as in Alpine no glibc is.
pub(crate) const BUSYBOX: &str = "hivekeeper-test:busybox";

/// How long any one thing may take on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A hive of its own in the real engine. Dropping it, also in a panic, removes every container and network of the hive, and the volumes it made.
pub(crate) struct Hive {
    pub(crate) engine: Engine,
    volumes: Mutex<Vec<LauncherVolume>>,
}

/// The engine for this test, or `None` once it has been said that the test is skipped. `HK_TEST_DOCKER=yes` makes a missing engine a failure, `no`
/// skips without looking; else it is used if it is there.
pub(crate) async fn hive() -> Option<Hive> {
    let wish = std::env::var("HK_TEST_DOCKER").unwrap_or_default();
    if wish == "no" {
        skipped("needs a Docker engine");
        return None;
    }
    let owner = Owner { hive_id: HiveId::mint(), hive: "test".to_owned() };
    match connect(owner).await {
        Ok(engine) => {
            for image in [SCRATCH, DEBIAN, BUSYBOX] {
                assert!(engine.image(image).await.unwrap().is_some(), "no image {image}: run tests/images/make");
            }
            Some(Hive { engine, volumes: Mutex::default() })
        }
        Err(error) if wish == "yes" => panic!("no Docker engine: {error:?}; tests/run starts one"),
        Err(_) => {
            skipped("needs a Docker engine");
            None
        }
    }
}

/// The same for a test that speaks to the engine by its own client.
pub(crate) fn here() -> bool {
    run(hive()).is_some()
}

async fn connect(owner: Owner) -> Result<Engine, impl std::fmt::Debug> {
    let host = std::env::var("DOCKER_HOST").ok();
    Engine::connect(host.as_deref(), owner).await
}

impl Hive {
    /// A plan with every default of a swarm's document, kept alive by the probe.
    pub(crate) async fn plan(&self, name: &str, image: &str) -> ContainerPlan {
        let swarm: SwarmName = name.parse().unwrap();
        ContainerPlan {
            name: resource_name(self.engine.owner().hive_id, &swarm),
            swarm,
            image: image.to_owned(),
            entrypoint: probe(&["sleep"]),
            user: "10001:10001".to_owned(),
            workdir: None,
            env: BTreeMap::new(),
            limits: Limits { memory_bytes: Some(64 << 20), cpus: Some(1.0), pids: Some(32) },
            network: Network::None,
            read_only_root: true,
            tmpfs: vec![PathBuf::from("/tmp")],
            cap_add: Vec::new(),
            mounts: Vec::new(),
            launcher: self.launcher().await,
        }
    }

    /// A volume of this test's own with the probe in the launcher's place.
    pub(crate) async fn launcher(&self) -> LauncherVolume {
        let known = self.volumes.lock().unwrap().first().cloned();
        if let Some(volume) = known {
            return volume;
        }
        let digest = self.digest();
        self.engine.ensure_launcher_volume(SCRATCH, &probe_file(), &digest).await.unwrap()
    }

    /// A digest that no other test has, so that nothing is shared; the volume is removed with the hive.
    pub(crate) fn digest(&self) -> String {
        let mut id = HiveId::mint().0.simple().to_string();
        // The name takes the first half, and the first half of an id is mostly the time.
        id = id.chars().rev().collect();
        let digest = id.repeat(2);
        self.volumes.lock().unwrap().push(LauncherVolume::of(&digest).unwrap());
        digest
    }

    /// A running container; its id.
    pub(crate) async fn container(&self, name: &str, image: &str) -> String {
        let plan = self.plan(name, image).await;
        self.engine.create_swarm_container(&plan).await.unwrap().id
    }

    /// What a command of the probe says to stdout.
    pub(crate) async fn says(&self, container: &str, words: &[&str]) -> String {
        let exec = self.engine.exec(container, &order(&probe(words))).await.unwrap();
        let (out, _) = read(exec).await;
        out
    }
}

impl Drop for Hive {
    fn drop(&mut self) {
        let owner = self.engine.owner().clone();
        let volumes = std::mem::take(&mut *self.volumes.lock().unwrap());
        // A runtime of its own: this one may be unwinding, and its connections with it.
        let cleaned = thread::spawn(move || run(clean(owner, volumes))).join();
        if !thread::panicking() {
            cleaned.unwrap();
        }
    }
}

/// Tries everything before it complains, so that one failure leaves as little as may be.
async fn clean(owner: Owner, volumes: Vec<LauncherVolume>) {
    let engine = connect(owner).await.unwrap();
    let mut failures: Vec<String> = Vec::new();
    for container in engine.list_ours().await.unwrap() {
        failures.extend(engine.remove(&container.id).await.err().map(|error| format!("{container:?}: {error:?}")));
    }
    for network in engine.list_our_networks().await.unwrap() {
        let removed = engine.remove_network(&network.swarm.unwrap()).await;
        failures.extend(removed.err().map(|error| format!("network {}: {error:?}", network.name)));
    }
    for volume in volumes {
        // A container that went by itself is off the list a moment before its volumes are free.
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = engine.remove_launcher_volume(&volume).await {
            if Instant::now() > deadline {
                failures.push(format!("{volume:?}: {error:?}"));
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    assert!(failures.is_empty(), "left behind: {failures:#?}");
    assert!(engine.list_ours().await.unwrap().is_empty());
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// A command of the probe, where the launcher's volume has it.
pub(crate) fn probe(words: &[&str]) -> Vec<String> {
    [&[LAUNCHER_PATH], words].concat().into_iter().map(str::to_owned).collect()
}

/// The probe on this machine.
pub(crate) fn probe_file() -> Arc<File> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"));
    Arc::new(File::open(cache.join("hivekeeper-tests/probe")).expect("no probe: run tests/images/make"))
}

pub(crate) fn order(argv: &[String]) -> ExecOrder {
    ExecOrder { argv: argv.to_vec(), ..Default::default() }
}

/// Everything that a command writes until it ends.
pub(crate) async fn read(mut exec: Exec) -> (String, String) {
    let mut out = Vec::new();
    within("the end of a command", exec.stdout.read_to_end(&mut out)).await.unwrap();
    (String::from_utf8(out).unwrap(), exec.stderr.text())
}

/// Under a deadline that names what did not come.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain for {what}"),
    }
}

/// A directory on this machine that a container's user may write to.
pub(crate) fn open_dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(dir.path(), mode).unwrap();
    dir
}

/// Launchers without an agent in what `docker top ID -eo pid,ppid,args` has said: one without a child has no order.
pub(crate) fn spares(top: &str) -> Vec<i32> {
    let rows: Vec<Vec<&str>> = top.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    let is_spare =
        |row: &&Vec<&str>| row.ends_with(&["agent", "--stdio"]) && !rows.iter().any(|other| other[1] == row[0]);
    rows.iter().filter(is_spare).map(|row| row[0].parse().unwrap()).collect()
}
