//! The container engine: where its socket is, and which sockets no swarm may ever see.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use super::{
    draft::Draft,
    mounts::is_plain,
    problem::{Complaint, Place},
    read,
    tree::{Node, quoted},
};

/// The variable that every client of the engine honours.
const VARIABLE: &str = "DOCKER_HOST";
/// Where neither configuration nor variable says anything.
const DEFAULT: &str = "/var/run/docker.sock";
/// What a socket is called whoever has made it, and wherever: Docker's, Docker Desktop's, podman's, containerd's, CRI-O's, BuildKit's.
const NAMES: [&str; 7] = [
    "docker.sock",
    "docker.raw.sock",
    "podman.sock",
    "containerd.sock",
    "containerd.sock.ttrpc",
    "crio.sock",
    "buildkitd.sock",
];
/// Where they are by default. What holds one of these is refused even when the socket is not there now, for it may come later.
const USUAL: [&str; 8] = [
    "/run/docker.sock",
    "/var/run/docker.sock",
    "/run/podman/podman.sock",
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/buildkit/buildkitd.sock",
    "/run/k3s/containerd/containerd.sock",
    // Engines without root have theirs below directories named after the users' ids; this keeps what holds all of those.
    "/run/user/0/docker.sock",
];
/// A directory of each user, in which an engine without root keeps its socket.
const USERS: &str = "/run/user";

/// The engine's socket, or what is wrong with the variable that names it. The configuration's word wins over the variable's.
pub(super) fn socket(draft: &Draft, env: &BTreeMap<String, String>) -> Result<PathBuf, (Place, Complaint)> {
    if let Some(path) = draft.docker_host.as_ref().and_then(|said| said.value.clone()) {
        return Ok(path);
    }
    match env.get(VARIABLE).filter(|text| !text.is_empty()) {
        None => Ok(PathBuf::from(DEFAULT)),
        Some(text) => unix(text).map_err(|complaint| (Place::Variable(VARIABLE.to_owned()), complaint)),
    }
}

/// `[docker] host`; `None` for the empty string.
pub(super) fn host(node: &Node) -> Result<Option<PathBuf>, Complaint> {
    match read::text(node)?.as_str() {
        "" => Ok(None),
        text => unix(text).map(Some),
    }
}

/// `[docker] allow_mounts`
pub(super) fn directories(node: &Node) -> Result<Vec<PathBuf>, Complaint> {
    let plain = |text: String| match Path::new(&text) {
        path if is_plain(path) => Ok(path.components().collect()),
        _ => Err(Complaint::allowed(quoted(&text), "absolute paths without \"..\", such as \"/srv/swarms\"")),
    };
    read::strings(node)?.into_iter().map(plain).collect()
}

fn unix(text: &str) -> Result<PathBuf, Complaint> {
    let path = text.strip_prefix("unix://").map(Path::new).filter(|path| is_plain(path) && *path != Path::new("/"));
    path.map(Path::to_path_buf).ok_or_else(|| {
        let allowed = format!("unix:// and the absolute path of a socket, such as \"unix://{DEFAULT}\"; this version speaks to no other engine");
        Complaint::allowed(quoted(text), allowed)
    })
}

/// The sockets of engines: whoever can write to one is root on the machine.
pub(super) struct Sockets {
    known: Vec<PathBuf>,
}

impl Sockets {
    /// Those of the usual places and the one that is configured, as they are called and as they resolve.
    pub(super) fn new(configured: Option<&Path>, resolve: &dyn Fn(&Path) -> io::Result<PathBuf>) -> Self {
        let named: Vec<PathBuf> = USUAL.iter().map(Path::new).chain(configured).map(Path::to_path_buf).collect();
        let resolved: Vec<PathBuf> = named.iter().filter_map(|path| resolve(path).ok()).collect();
        Self { known: [named, resolved].concat() }
    }

    /// The socket that a swarm would find in this place of the machine: it, or something below it.
    pub(super) fn seen_through(
        &self,
        source: &Path,
        resolve: &dyn Fn(&Path) -> io::Result<PathBuf>,
    ) -> Option<PathBuf> {
        let named = |path: &Path| path.file_name().is_some_and(|name| NAMES.iter().any(|known| name == *known));
        if named(source) {
            return Some(source.to_path_buf());
        }
        if let Some(known) = self.known.iter().find(|known| known.starts_with(source)) {
            return Some(known.clone());
        }
        if source.parent() == Some(Path::new(USERS)) {
            return Some(source.join(NAMES[0]));
        }
        NAMES.iter().map(|name| source.join(name)).find(|path| resolve(path).is_ok())
    }
}
