//! What a swarm's container is to be, and the hardened body that asks an engine for it. Pure: who looks at the file system hands in what it found.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Component, Path, PathBuf},
    time::Duration,
};

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, Mount, MountType, ResourcesUlimits,
    RestartPolicy, RestartPolicyNameEnum,
};
use sha2::{Digest, Sha256};

use super::{
    error::PlanError,
    names::{Owner, label},
    volume::LauncherVolume,
};
use crate::model::SwarmName;

/// Where the launcher's volume is mounted, read-only, in each container.
pub const LAUNCHER_DIR: &str = "/.hivekeeper";
/// The launcher itself.
pub const LAUNCHER_PATH: &str = "/.hivekeeper/hivekeeper";
/// Sockets, locks and exit records of the launchers in a container: a tmpfs, so that nothing outlives the container.
pub const RUN_DIR: &str = "/run/hivekeeper";

/// Small files only: a page for each exit record and socket. 4 MiB hold a thousand; what ended is forgotten at the next launch.
const RUN_DIR_OPTIONS: &str = "rw,nosuid,nodev,noexec,mode=1777,size=4m";
/// The engine's default on docker, written out because podman's is another. The size is bounded by the container's memory limit, to which it counts.
const TMPFS_OPTIONS: &str = "rw,nosuid,nodev,noexec,mode=1777";
/// PID 1 says next to nothing and the agents' output never passes the engine's log: one small file is enough.
const LOG_SIZE_MAX: &str = "1m";

/// Names that engines give their sockets; whatever has one of these is refused, wherever it lies.
const SOCKET_NAMES: &[&str] = &["docker.sock", "containerd.sock", "podman.sock", "crio.sock", "buildkitd.sock"];
/// Where engines put them.
const SOCKET_PLACES: &[&str] =
    &["/run/docker.sock", "/var/run/docker.sock", "/run/containerd", "/run/podman", "/run/crio"];

/// A container for one swarm.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerPlan {
    /// The container's name, see [`super::resource_name`].
    pub name: String,
    /// The swarm, for the labels.
    pub swarm: SwarmName,
    /// Image reference.
    pub image: String,
    /// What keeps it alive, below the engine's init: [`hold_command`].
    pub entrypoint: Vec<String>,
    /// `USER[:GROUP]`, names or numbers.
    pub user: String,
    /// The working directory; the engine makes it when the image has none. `None` is the image's.
    pub workdir: Option<PathBuf>,
    /// Laid over the image's.
    pub env: BTreeMap<String, String>,
    /// What all agents together may use.
    pub limits: Limits,
    /// What it can reach.
    pub network: Network,
    /// Whether the root file system is read-only.
    pub read_only_root: bool,
    /// Where it can write nevertheless: in memory, `noexec`, gone with the container.
    pub tmpfs: Vec<PathBuf>,
    /// Capabilities given back after all were dropped.
    pub cap_add: Vec<String>,
    /// Directories and files of the machine.
    pub mounts: Vec<MountPlan>,
    /// The volume of [`super::Engine::ensure_launcher_volume`].
    pub launcher: LauncherVolume,
}

/// Limits of a container; `None` is none.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Limits {
    /// Bytes. No swap on top.
    pub memory_bytes: Option<u64>,
    /// Cores.
    pub cpus: Option<f64>,
    /// Processes and threads.
    pub pids: Option<u32>,
}

/// What a container can reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Network {
    /// Nothing but its own loopback.
    None,
    /// An existing network, by name: the swarm's own from [`super::Engine::ensure_network`], or one that the document names.
    Named(String),
}

/// A path of the machine within the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPlan {
    /// On the engine's machine; must exist.
    pub source: PathBuf,
    /// In the container.
    pub target: PathBuf,
    /// Whether it is read-only there.
    pub read_only: bool,
}

/// The entrypoint of a swarm's container: the launcher, holding it until no launcher in it has lived for `idle`.
pub fn hold_command(idle: Duration) -> Vec<String> {
    [LAUNCHER_PATH, "agent", "--hold", RUN_DIR, &idle.as_millis().to_string()].map(str::to_owned).to_vec()
}

/// Refuses what must never be, whoever asks. `engine_socket` is the socket of the engine itself, if it is one.
pub(super) fn check(plan: &ContainerPlan, engine_socket: Option<&Path>) -> Result<(), PlanError> {
    if let Network::Named(name) = &plan.network {
        // `container:ID` can't pass as a name of a network either; the engine's own words for "none" and "host" are no networks of a swarm.
        if name == "host" || name.contains(':') {
            return Err(PlanError::Network(name.clone()));
        }
    }
    let limits = plan.limits;
    if limits.memory_bytes.is_some_and(|bytes| bytes == 0 || i64::try_from(bytes).is_err()) {
        return Err(PlanError::Limit("memory"));
    }
    if limits.cpus.is_some_and(|cpus| !(cpus.is_finite() && nano_cpus(cpus) > 0)) {
        return Err(PlanError::Limit("cpus"));
    }
    if limits.pids == Some(0) {
        return Err(PlanError::Limit("pids"));
    }
    let mut taken = BTreeSet::new();
    for target in plan.tmpfs.iter().chain(plan.mounts.iter().map(|mount| &mount.target)) {
        let target = plain(target)?;
        let below_ours = [LAUNCHER_DIR, RUN_DIR].iter().any(|ours| target.starts_with(ours));
        if below_ours || target == Path::new("/") || !taken.insert(target.clone()) {
            return Err(PlanError::Overlap(target));
        }
    }
    if let Some(workdir) = &plan.workdir {
        plain(workdir)?;
    }
    plan.mounts.iter().try_for_each(|mount| check_source(&mount.source, engine_socket))
}

/// Refuses a source that is an engine's socket, or a directory that holds one.
pub(super) fn check_source(source: &Path, engine_socket: Option<&Path>) -> Result<(), PlanError> {
    let plain = plain(source)?;
    let named = plain.file_name().is_some_and(|name| SOCKET_NAMES.iter().any(|socket| name == *socket));
    let holds = |place: &Path| place.starts_with(&plain);
    let within = |place: &Path| plain.starts_with(place);
    let known = SOCKET_PLACES.iter().any(|place| holds(Path::new(place)) || within(Path::new(place)));
    if named || known || engine_socket.is_some_and(holds) {
        return Err(PlanError::EngineSocket(plain));
    }
    Ok(())
}

/// An absolute path without `..`, in its shortest form.
fn plain(path: &Path) -> Result<PathBuf, PlanError> {
    let parent = path.components().any(|part| part == Component::ParentDir);
    if !path.is_absolute() || parent || path.as_os_str().as_encoded_bytes().contains(&0) {
        return Err(PlanError::Path(path.to_owned()));
    }
    Ok(path.components().collect())
}

/// The body of the request.
pub(super) fn body(plan: &ContainerPlan, owner: &Owner) -> ContainerCreateBody {
    let mut body = asked(plan);
    let mut labels = owner.labels(Some(&plan.swarm));
    labels.insert(label::PLAN.to_owned(), hash(&body));
    body.labels = Some(labels);
    body.entrypoint = Some(plan.entrypoint.clone());
    // The image's own arguments would follow ours.
    body.cmd = Some(Vec::new());
    if let Some(host) = &mut body.host_config {
        host.mounts.get_or_insert_default().push(plan.launcher.mount(true));
    }
    body
}

/// What the document asks for; without what differs between daemons and versions of ours, so that an upgrade changes no hash.
fn asked(plan: &ContainerPlan) -> ContainerCreateBody {
    let env = plan.env.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let path = |path: &PathBuf| path.to_string_lossy().into_owned();
    ContainerCreateBody {
        image: Some(plan.image.clone()),
        user: Some(plan.user.clone()),
        working_dir: plan.workdir.as_ref().map(path),
        env: Some(env),
        // The image's health check would be one exec more every few seconds, of a program that does not run here.
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..Default::default() }),
        host_config: Some(host_config(plan)),
        ..Default::default()
    }
}

fn host_config(plan: &ContainerPlan) -> HostConfig {
    let path = |path: &PathBuf| path.to_string_lossy().into_owned();
    let memory = plan.limits.memory_bytes.and_then(|bytes| i64::try_from(bytes).ok());
    let mut tmpfs: HashMap<String, String> =
        plan.tmpfs.iter().map(|target| (path(target), TMPFS_OPTIONS.to_owned())).collect();
    tmpfs.insert(RUN_DIR.to_owned(), RUN_DIR_OPTIONS.to_owned());
    let mounts = plan.mounts.iter().map(|mount| Mount {
        typ: Some(MountType::BIND),
        source: Some(path(&mount.source)),
        target: Some(path(&mount.target)),
        read_only: Some(mount.read_only),
        ..Default::default()
    });
    HostConfig {
        // Reaps what the agents' trees leave behind; the hold is its child.
        init: Some(true),
        auto_remove: Some(true),
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        privileged: Some(false),
        cap_drop: Some(vec!["ALL".to_owned()]),
        cap_add: Some(plan.cap_add.clone()),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        readonly_rootfs: Some(plan.read_only_root),
        tmpfs: Some(tmpfs),
        mounts: Some(mounts.collect()),
        memory,
        // Equal to memory: no swap.
        memory_swap: memory,
        nano_cpus: plan.limits.cpus.map(nano_cpus),
        pids_limit: plan.limits.pids.map(i64::from),
        // A core file would be written with the rights of the engine, wherever the machine's pattern says.
        ulimits: Some(vec![ResourcesUlimits { name: Some("core".to_owned()), soft: Some(0), hard: Some(0) }]),
        ipc_mode: Some("private".to_owned()),
        network_mode: Some(match &plan.network {
            Network::None => "none".to_owned(),
            Network::Named(name) => name.clone(),
        }),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(HashMap::from([
                ("max-size".to_owned(), LOG_SIZE_MAX.to_owned()),
                ("max-file".to_owned(), "1".to_owned()),
            ])),
        }),
        ..Default::default()
    }
}

/// Billionths of a core; what is too much for the type is cut off there, and the engine refuses it.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a float cast saturates, and fractions of a billionth don't matter"
)]
fn nano_cpus(cpus: f64) -> i64 {
    (cpus * 1e9).round() as i64
}

/// SHA-256 of the body as JSON with sorted keys, hexadecimal.
fn hash(body: &ContainerCreateBody) -> String {
    // A JSON value keeps its keys sorted, unlike the maps in the body.
    let text = serde_json::to_value(body).map(|value| value.to_string()).unwrap_or_default();
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
