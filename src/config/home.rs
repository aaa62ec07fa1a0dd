//! Where a swarm runs: the runtime that its keys ask for, and its container.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::model::{self, ContainerSpec, Home, Limits, NetworkSpec, RuntimeKind, SecretRights};

use super::{
    container,
    engine::Sockets,
    fields::{Fields, Setting},
    mounts,
    problem::{Complaint, Place},
    read::{self, choice, integer, number, size},
    tree::Node,
};

/// Keys that only the docker runtime can honour.
const DOCKER_KEYS: [&str; 9] =
    ["image", "container", "network", "limits", "user", "read_only_root", "tmpfs", "cap_add", "mounts"];
/// Those of them that are settled when a container is made, and so can't be had in one that somebody else has made.
const MAKERS_KEYS: [&str; 6] = ["network", "limits", "read_only_root", "tmpfs", "cap_add", "mounts"];

const MIB: u64 = 1024 * 1024;
/// Below it not even the launchers and a small shell fit.
const MEMORY_MIN: u64 = 16 * MIB;
/// Beyond the largest machines, so that a slip of the unit is seen.
const MEMORY_MAX: u64 = 64 * 1024 * 1024 * MIB;
/// The least that engines take (moby: "Range of CPUs is from 0.01"), and more than any machine has.
const CPUS: std::ops::RangeInclusive<f64> = 0.01..=4096.0;
/// An init, the launcher that holds the container, an agent's launcher and the agent are four; the kernel has no more than 2^22 process ids.
const PIDS: std::ops::RangeInclusive<i64> = 4..=4_194_304;
/// Engines count in billionths of a processor.
const BILLION: f64 = 1e9;

/// What a swarm with a container of its own has where its document says nothing. `config.toml` shows the same.
const DEFAULT_LIMITS: Limits = Limits { memory: Some(2048 * MIB), cpus: Some(1.5), pids: Some(256) };
const DEFAULT_TMPFS: &str = "/tmp";

/// What homes are read against.
#[derive(Clone, Copy)]
pub(super) struct Machine<'a> {
    /// Relative paths count from here; `None` where nobody knows from where, so that they are refused.
    pub(super) base: Option<&'a Path>,
    /// Resolves the symbolic links of a path that must exist.
    pub(super) resolve: &'a dyn Fn(&Path) -> io::Result<PathBuf>,
    /// What is never mounted.
    pub(super) sockets: &'a Sockets,
    /// Who wrote the document.
    pub(super) author: Author<'a>,
}

/// Who wrote a document: the machine is not everybody's.
#[derive(Clone, Copy)]
pub(super) enum Author<'a> {
    /// Whoever writes the daemon's configuration.
    File,
    /// Whoever may send commands to the API.
    Api(&'a ApiRights),
}

/// What documents of the API may have of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct ApiRights {
    /// `[docker] allow_mounts`
    pub(super) mounts: Vec<PathBuf>,
    /// `[secrets]`
    pub(super) secrets: SecretRights,
}

impl Machine<'_> {
    /// A path of the machine. `None` for the empty string.
    pub(super) fn path(&self, node: &Node) -> Result<Option<PathBuf>, Complaint> {
        match self.base {
            Some(base) => read::path(base)(node),
            None => {
                let said = read::path(Path::new(""))(node)?;
                if said.as_ref().is_some_and(|path| path.is_relative()) {
                    let allowed = "an absolute path: a request has no directory that it could count from";
                    return Err(Complaint::allowed(node.value.describe(), allowed));
                }
                Ok(said)
            }
        }
    }
}

/// What a document asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Docker,
    Process,
    Auto,
}

/// Reads the keys that say where a swarm runs, and refuses those that its runtime can't honour.
pub(super) fn home(fields: &mut Fields<'_>, machine: Machine<'_>) -> Option<Home> {
    let words = [("docker", Asked::Docker), ("process", Asked::Process), ("auto", Asked::Auto)];
    let said = fields.get("runtime", choice(&words));
    let asked = said.as_ref().map_or(Asked::Auto, |said| said.value);
    let docker_key = DOCKER_KEYS.into_iter().find_map(|key| Some((key, fields.place_of(key)?)));
    match resolve(asked, docker_key.is_some()) {
        RuntimeKind::Docker => docker(fields, machine, said, docker_key),
        RuntimeKind::Process => {
            match asked {
                Asked::Process => fields.refuse(&DOCKER_KEYS, |key| {
                    format!("the process runtime can't honour `{key}`; it needs runtime = \"docker\" or \"auto\"")
                }),
                _ => fields.offer(&DOCKER_KEYS),
            }
            let workdir = fields.get("workdir", |node| machine.path(node)).and_then(|said| said.value);
            Some(Home::Process { workdir })
        }
    }
}

/// `auto` takes docker for a document that has a key which nothing else can honour, and needs no engine for any other.
fn resolve(asked: Asked, has_docker_key: bool) -> RuntimeKind {
    match (asked, has_docker_key) {
        (Asked::Docker, _) | (Asked::Auto, true) => RuntimeKind::Docker,
        (Asked::Process, _) | (Asked::Auto, false) => RuntimeKind::Process,
    }
}

fn docker(
    fields: &mut Fields<'_>,
    machine: Machine<'_>,
    said: Option<Setting<Asked>>,
    docker_key: Option<(&'static str, Place)>,
) -> Option<Home> {
    let both = fields.place_of("image").and(fields.place_of("container"));
    let neither = fields.place_of("image").or(fields.place_of("container")).is_none();
    let image = fields.get("image", container::image);
    let sidecar = fields.get("container", container::name);
    if let Some(place) = both.clone() {
        let rule = "allowed: `image` for a container of its own, or `container` to run in an existing one, not both";
        fields.complain(place, "container", Complaint::rule("it beside `image`", rule));
    } else if neither {
        let (place, why) = match (said, docker_key) {
            (Some(Setting { place, value: Asked::Docker }), _) => (place, "runtime = \"docker\"".to_owned()),
            (_, Some((key, place))) => (place, format!("`{key}`, which needs the docker runtime")),
            (_, None) => (fields.place.clone(), "the docker runtime".to_owned()),
        };
        let rule = "it needs `image` for a container of its own, or `container` to run in an existing one";
        fields.complain(place, "image", Complaint::rule(format!("nothing beside {why}"), rule));
    }
    let user = fields.get("user", container::user).map(|said| said.value);
    let workdir = fields.get("workdir", mounts::workdir).map(|said| said.value);
    let spec = match (image, sidecar) {
        (_, Some(sidecar)) if both.is_none() => {
            fields.refuse(&MAKERS_KEYS, |key| {
                format!("`{key}` is settled when a container is made, and `container` names one that exists; it needs `image`")
            });
            ContainerSpec::sidecar(sidecar.value)
        }
        (image, _) => own(fields, machine, image.map(|said| said.value).unwrap_or_default()),
    };
    Some(Home::Docker(Arc::new(ContainerSpec { user, workdir, ..spec })))
}

/// Where something is wrong, which is noted, the default stands in.
fn own(fields: &mut Fields<'_>, machine: Machine<'_>, image: String) -> ContainerSpec {
    let network = fields.get("network", container::network).map_or(NetworkSpec::None, |said| said.value);
    let limits = limits(fields);
    let read_only_root = fields.get("read_only_root", read::boolean).is_none_or(|said| said.value);
    let tmpfs = fields.get("tmpfs", mounts::tmpfs).map(|said| said.value);
    let cap_add = fields.get("cap_add", container::capabilities).map(|said| said.value).unwrap_or_default();
    let mut taken: BTreeMap<PathBuf, &'static str> =
        tmpfs.iter().flatten().map(|path| (PathBuf::from(path), "tmpfs")).collect();
    let mounts = mounts::mounts(fields, machine, &mut taken);
    let tmpfs = tmpfs.unwrap_or_else(|| {
        let free = !taken.contains_key(Path::new(DEFAULT_TMPFS));
        free.then(|| DEFAULT_TMPFS.to_owned()).into_iter().collect()
    });
    let place = model::Place::Own { image };
    ContainerSpec { place, network, limits, user: None, workdir: None, read_only_root, tmpfs, cap_add, mounts }
}

fn limits(fields: &mut Fields<'_>) -> Limits {
    let mut limits = DEFAULT_LIMITS;
    let Some(mut below) = fields.table("limits") else { return limits };
    if let Some(memory) = below.get("memory", size(MEMORY_MIN..=MEMORY_MAX)) {
        limits.memory = Some(memory.value);
    }
    if let Some(cpus) = below.get("cpus", number(CPUS)) {
        limits.cpus = Some((cpus.value * BILLION).round() / BILLION);
    }
    if let Some(pids) = below.get("pids", integer(PIDS)) {
        limits.pids = u32::try_from(pids.value).ok();
    }
    below.finish();
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_needs_an_engine_only_for_what_nothing_else_can_do() {
        use RuntimeKind::{Docker, Process};
        for (asked, has_docker_key, resolved) in [
            (Asked::Auto, false, Process),
            (Asked::Auto, true, Docker),
            (Asked::Process, false, Process),
            (Asked::Process, true, Process),
            (Asked::Docker, false, Docker),
            (Asked::Docker, true, Docker),
        ] {
            assert_eq!(resolve(asked, has_docker_key), resolved, "{asked:?}, {has_docker_key}");
        }
    }
}
