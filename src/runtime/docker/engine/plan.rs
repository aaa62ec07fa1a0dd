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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::model::HiveId;

    fn plan() -> ContainerPlan {
        ContainerPlan {
            name: "hivekeeper-review-0".to_owned(),
            swarm: "review".parse().unwrap(),
            image: "debian:bookworm-slim".to_owned(),
            entrypoint: hold_command(Duration::from_secs(35)),
            user: "10001:10001".to_owned(),
            workdir: Some("/workspace".into()),
            env: [("LANG".to_owned(), "C.UTF-8".to_owned())].into(),
            limits: Limits { memory_bytes: Some(1 << 30), cpus: Some(1.5), pids: Some(256) },
            network: Network::None,
            read_only_root: true,
            tmpfs: vec!["/tmp".into()],
            cap_add: Vec::new(),
            mounts: Vec::new(),
            launcher: LauncherVolume::of(&"ab".repeat(32)).unwrap(),
        }
    }

    fn with(change: impl FnOnce(&mut ContainerPlan)) -> ContainerPlan {
        let mut plan = plan();
        change(&mut plan);
        plan
    }

    fn mount(source: &str, target: &str) -> MountPlan {
        MountPlan { source: source.into(), target: target.into(), read_only: true }
    }

    fn owner() -> Owner {
        Owner { hive_id: HiveId::mint(), hive: "hive".to_owned() }
    }

    #[test]
    fn the_body_is_hardened() {
        let body = body(&plan(), &owner());
        assert_eq!(body.entrypoint.unwrap(), [LAUNCHER_PATH, "agent", "--hold", "/run/hivekeeper", "35000"]);
        assert_eq!((body.cmd, body.user), (Some(Vec::new()), Some("10001:10001".to_owned())));
        assert_eq!(body.healthcheck.unwrap().test.unwrap(), ["NONE"]);
        let host = body.host_config.unwrap();
        assert_eq!(host.cap_drop.unwrap(), ["ALL"]);
        assert_eq!(host.security_opt.unwrap(), ["no-new-privileges"]);
        assert_eq!((host.privileged, host.readonly_rootfs, host.init), (Some(false), Some(true), Some(true)));
        assert_eq!((host.memory, host.memory_swap), (Some(1 << 30), Some(1 << 30)));
        assert_eq!((host.nano_cpus, host.pids_limit), (Some(1_500_000_000), Some(256)));
        assert_eq!((host.network_mode.unwrap(), host.auto_remove), ("none".to_owned(), Some(true)));
        assert_eq!(host.restart_policy.unwrap().name, Some(RestartPolicyNameEnum::NO));
        let mounts = host.mounts.unwrap();
        assert_eq!(mounts.len(), 1);
        assert_eq!((mounts[0].target.as_deref(), mounts[0].read_only), (Some(LAUNCHER_DIR), Some(true)));
        assert_eq!(host.tmpfs.unwrap().len(), 2);
    }

    #[test]
    fn an_engine_socket_is_never_mounted() {
        let socket = Path::new("/srv/engine/own.socket");
        let refused = |source: &str| {
            let plan = with(|plan| plan.mounts = vec![mount(source, "/x")]);
            check(&plan, Some(socket)) == Err(PlanError::EngineSocket(source.into()))
        };
        for source in [
            "/",
            "/run",
            "/var",
            "/var/run",
            "/var/run/docker.sock",
            "/run/containerd",
            "/run/podman/x",
            "/home/a/docker.sock",
        ] {
            assert!(refused(source), "{source}");
        }
        for source in ["/srv", "/srv/engine", "/srv/engine/own.socket"] {
            assert!(refused(source), "{source} leads to the engine's own socket");
        }
        for source in ["/srv/engine-other", "/home/a/repo", "/var/cache", "/run/user/1000/ssh"] {
            assert!(!refused(source), "{source}");
        }
    }

    #[test]
    fn paths_are_absolute_plain_and_apart() {
        let targets = |targets: &[&str]| {
            let mounts = targets.iter().map(|target| mount("/home/a", target)).collect();
            check(&with(|plan| plan.mounts = mounts), None)
        };
        assert_eq!(targets(&["/workspace", "/reference", "/workspace/deep"]), Ok(()));
        for bad in ["workspace", "/a/../b", "", "/a\0b"] {
            assert_eq!(targets(&[bad]), Err(PlanError::Path(bad.into())), "{bad:?}");
        }
        for taken in
            ["/tmp", "/tmp/", "/", "/.hivekeeper", "/.hivekeeper/hivekeeper", "/run/hivekeeper", "/run/hivekeeper/x"]
        {
            assert!(matches!(targets(&[taken]), Err(PlanError::Overlap(_))), "{taken}");
        }
        assert!(matches!(targets(&["/a", "/a/."]), Err(PlanError::Overlap(_))));
        assert!(matches!(check(&with(|plan| plan.mounts = vec![mount("repo", "/x")]), None), Err(PlanError::Path(_))));
        assert!(matches!(check(&with(|plan| plan.workdir = Some("x".into())), None), Err(PlanError::Path(_))));
    }

    #[test]
    fn no_network_of_the_machine_or_of_another_container() {
        for bad in ["host", "container:abc"] {
            let plan = with(|plan| plan.network = Network::Named(bad.to_owned()));
            assert_eq!(check(&plan, None), Err(PlanError::Network(bad.to_owned())));
        }
        assert_eq!(check(&with(|plan| plan.network = Network::Named("backend".to_owned())), None), Ok(()));
    }

    #[test]
    fn limits_are_positive() {
        let limits = |change: fn(&mut Limits)| check(&with(|plan| change(&mut plan.limits)), None);
        assert_eq!(limits(|limits| limits.memory_bytes = Some(0)), Err(PlanError::Limit("memory")));
        assert_eq!(limits(|limits| limits.memory_bytes = Some(u64::MAX)), Err(PlanError::Limit("memory")));
        for cpus in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-12] {
            let plan = with(|plan| plan.limits.cpus = Some(cpus));
            assert_eq!(check(&plan, None), Err(PlanError::Limit("cpus")), "{cpus}");
        }
        assert_eq!(limits(|limits| limits.pids = Some(0)), Err(PlanError::Limit("pids")));
        assert_eq!(limits(|limits| *limits = Limits::default()), Ok(()));
    }

    #[test]
    fn the_hash_is_the_documents() {
        let owner = owner();
        let hash = |plan: &ContainerPlan| body(plan, &owner).labels.unwrap().remove(label::PLAN).unwrap();
        let first = hash(&plan());
        assert_eq!(first.len(), 64);
        // An upgrade brings another launcher, and the longest lease may have been learned to be another.
        assert_eq!(hash(&with(|plan| plan.launcher = LauncherVolume::of(&"cd".repeat(32)).unwrap())), first);
        assert_eq!(hash(&with(|plan| plan.entrypoint = hold_command(Duration::from_secs(60)))), first);
        let changes: [fn(&mut ContainerPlan); 9] = [
            |plan| plan.image.push('2'),
            |plan| plan.user = "0".to_owned(),
            |plan| plan.workdir = None,
            |plan| plan.env.clear(),
            |plan| plan.limits.cpus = Some(1.6),
            |plan| plan.network = Network::Named("backend".to_owned()),
            |plan| plan.read_only_root = false,
            |plan| plan.tmpfs.push("/cache".into()),
            |plan| plan.mounts.push(mount("/home/a", "/x")),
        ];
        for (at, change) in changes.into_iter().enumerate() {
            assert_ne!(hash(&with(change)), first, "change {at}");
        }
    }
}
