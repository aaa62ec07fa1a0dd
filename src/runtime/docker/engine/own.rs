//! Where this process itself is, as its engine sees it: on the engine's machine, or in a container of it, where paths have other names.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use bollard::{
    Docker,
    models::{ContainerInspectResponse, MountPoint},
    query_parameters::InspectContainerOptions,
};

use super::{
    client::{LOOK_DEADLINE, bounded},
    error::CallError,
};

/// Files that engines mount into each container from a directory named after its id.
const NAMED_BY_ID: [&str; 3] = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"];
/// Digits of a container's id, and of the short form that is its host name by default.
const ID_LEN: usize = 64;
const SHORT_ID_LEN: usize = 12;

/// Where this process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Whereabouts {
    /// In no container: a path means the same to the engine.
    Machine,
    /// In a container of the engine.
    Container(OwnContainer),
    /// In a container that the engine does not know, such as another engine's.
    Elsewhere(String),
}

/// The container in which this process runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OwnContainer {
    id: String,
    name: String,
    mounts: Vec<OwnMount>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct OwnMount {
    target: PathBuf,
    source: Source,
}

/// What a mount of ours is to the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    /// A path of the engine's machine.
    Path(PathBuf),
    /// Nothing that another container could be given; the words say what.
    Own(String),
}

/// Why a path of this process can't be given to another container.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutsideError {
    /// It is part of our own container.
    #[error(
        "mount source {} lies in the daemon's own container ({what}), of which no other container can see anything; mount a directory of the machine \
         into the daemon's container and name it by its path there",
        .path.display()
    )]
    Inside {
        /// The path.
        path: PathBuf,
        /// What is there.
        what: String,
    },
    /// The engine does not know our container.
    #[error(
        "mount source {} can't be named for the engine: the daemon runs in a container ({id}) that this engine does not know",
        .path.display()
    )]
    Unknown {
        /// The path.
        path: PathBuf,
        /// The container's id.
        id: String,
    },
}

impl Whereabouts {
    /// Looks at this process, and asks the engine about the container that it seems to be in.
    pub(super) async fn find(docker: &Docker) -> Result<Self, CallError> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let named = id_in_mounts(&mounts);
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let guessed = Some(host.trim()).filter(|host| is_id(host, SHORT_ID_LEN) || is_id(host, ID_LEN));
        let Some(id) = named.or(guessed) else { return Ok(Self::Machine) };
        match bounded(LOOK_DEADLINE, docker.inspect_container(id, None::<InspectContainerOptions>)).await {
            // A container may also be called like that; its id is another then.
            Ok(found) if found.id.as_deref().is_some_and(|found| found.starts_with(id)) => {
                Ok(Self::Container(OwnContainer::read(found)))
            }
            Ok(_) => Ok(Self::unknown(named)),
            Err(error) if error.status() == Some(404) => Ok(Self::unknown(named)),
            Err(error) => Err(error),
        }
    }

    /// A host name alone proves nothing: a machine may be called anything.
    fn unknown(named: Option<&str>) -> Self {
        named.map_or(Self::Machine, |id| Self::Elsewhere(id.to_owned()))
    }

    /// Whether this is the id or the name of the container in which we are.
    pub(super) fn is(&self, container: &str) -> bool {
        match self {
            Self::Container(own) => {
                own.name == container || (container.len() >= SHORT_ID_LEN && own.id.starts_with(container))
            }
            Self::Machine | Self::Elsewhere(_) => false,
        }
    }

    /// What the engine calls a path that we see.
    pub(super) fn outside(&self, path: &Path) -> Result<PathBuf, OutsideError> {
        match self {
            Self::Machine => Ok(path.to_owned()),
            Self::Container(own) => own.outside(path),
            Self::Elsewhere(id) => Err(OutsideError::Unknown { path: path.to_owned(), id: id.clone() }),
        }
    }
}

impl OwnContainer {
    fn read(found: ContainerInspectResponse) -> Self {
        let tmpfs = found.host_config.and_then(|host| host.tmpfs).unwrap_or_default();
        let mounts = found.mounts.unwrap_or_default();
        let mut mounts = own_mounts(mounts, tmpfs);
        for mount in &mut mounts {
            // What is looked for has its links resolved, and `/var/run` is one in many images.
            if let Ok(real) = fs::canonicalize(&mount.target) {
                mount.target = real;
            }
        }
        Self {
            id: found.id.unwrap_or_default(),
            name: found.name.unwrap_or_default().trim_start_matches('/').to_owned(),
            mounts,
        }
    }

    fn outside(&self, path: &Path) -> Result<PathBuf, OutsideError> {
        let inside = |what: &str| OutsideError::Inside { path: path.to_owned(), what: what.to_owned() };
        let around = self.mounts.iter().filter(|mount| path.starts_with(&mount.target));
        let Some(mount) = around.max_by_key(|mount| mount.target.components().count()) else {
            return Err(inside("its own file system"));
        };
        let below = path.strip_prefix(&mount.target).unwrap_or(Path::new(""));
        match &mount.source {
            // Joining nothing would leave a slash behind, which a file can't have.
            Source::Path(source) if below.as_os_str().is_empty() => Ok(source.clone()),
            Source::Path(source) => Ok(source.join(below)),
            Source::Own(what) => Err(inside(what)),
        }
    }
}

fn own_mounts(mounts: Vec<MountPoint>, tmpfs: HashMap<String, String>) -> Vec<OwnMount> {
    let memory = || Source::Own("memory".to_owned());
    let tmpfs = tmpfs.into_keys().map(|target| OwnMount { target: PathBuf::from(target), source: memory() });
    let mounts = mounts.into_iter().filter_map(|mount| {
        let source = mount.source.filter(|source| source.starts_with('/')).map(PathBuf::from);
        let source = match (mount.typ.as_deref(), mount.driver.as_deref(), source) {
            (Some("bind"), _, Some(source)) => Source::Path(source),
            // The engine keeps these in a directory of its machine, and our own container holds the volume for as long as we live.
            (Some("volume"), Some("local"), Some(source)) => Source::Path(source),
            (Some("volume"), driver, _) => {
                let (name, driver) = (mount.name.unwrap_or_default(), driver.unwrap_or("unknown"));
                Source::Own(format!("volume {name} of the driver {driver}"))
            }
            (Some("tmpfs"), ..) => memory(),
            (kind, ..) => Source::Own(format!("a mount of the kind {}", kind.unwrap_or("unknown"))),
        };
        Some(OwnMount { target: PathBuf::from(mount.destination?), source })
    });
    tmpfs.chain(mounts).collect()
}

/// The id in the roots of what is mounted on the files that each container has (proc(5): field 4 is the root, field 5 the mount point).
fn id_in_mounts(mountinfo: &str) -> Option<&str> {
    mountinfo.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        NAMED_BY_ID.contains(&point).then_some(())?;
        root.split('/').find(|part| is_id(part, ID_LEN))
    })
}

fn is_id(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const ID: &str = "4f5cbd9ea1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c";

    #[test]
    fn the_id_is_read_from_what_the_engine_mounts_into_every_container() {
        let docker = format!(
            "621 540 0:58 / / rw - overlay overlay rw\n\
             640 621 254:0 /var/lib/docker/containers/{ID}/resolv.conf /etc/resolv.conf rw - ext4 /dev/vda rw\n"
        );
        assert_eq!(id_in_mounts(&docker), Some(ID));
        let podman = format!(
            "9 1 0:5 /overlay-containers/{ID}/userdata/hostname /etc/hostname rw,nosuid - tmpfs tmpfs rw,size=1k\n"
        );
        assert_eq!(id_in_mounts(&podman), Some(ID));
        // The engine's own machine shows what it has mounted for others: at other places.
        let machine = format!("77 25 0:43 / /var/lib/docker/containers/{ID}/mounts/shm rw - tmpfs shm rw\n");
        assert_eq!(id_in_mounts(&machine), None);
        assert_eq!(id_in_mounts("700 1 0:5 /srv/hostname /etc/hostname rw - ext4 /dev/vda rw\n"), None);
        assert_eq!(id_in_mounts("broken"), None);
    }

    fn mount(kind: &str, driver: Option<&str>, source: &str, target: &str) -> MountPoint {
        MountPoint {
            typ: Some(kind.to_owned()),
            name: (kind == "volume").then(|| "data".to_owned()),
            driver: driver.map(str::to_owned),
            source: Some(source.to_owned()),
            destination: Some(target.to_owned()),
            ..Default::default()
        }
    }

    fn own() -> OwnContainer {
        let mounts = vec![
            mount("bind", None, "/srv/work", "/work"),
            mount("bind", None, "/etc/token", "/run/secrets/token"),
            mount("volume", Some("local"), "/var/lib/docker/volumes/data/_data", "/work/deep/data"),
            mount("volume", Some("nfs"), "", "/far"),
            mount("tmpfs", None, "", "/scratch"),
            mount("bind", None, "/run/docker.sock", "/var/run/docker.sock"),
        ];
        let tmpfs = [("/work/memory".to_owned(), "size=1m".to_owned())].into();
        OwnContainer { id: ID.to_owned(), name: "hive".to_owned(), mounts: own_mounts(mounts, tmpfs) }
    }

    #[test]
    fn paths_of_ours_are_named_as_the_engine_knows_them() {
        let own = own();
        for (seen, there) in [
            ("/work", "/srv/work"),
            ("/work/repo/a", "/srv/work/repo/a"),
            ("/run/secrets/token", "/etc/token"),
            ("/work/deep", "/srv/work/deep"),
            ("/work/deep/data", "/var/lib/docker/volumes/data/_data"),
            ("/work/deep/data/x", "/var/lib/docker/volumes/data/_data/x"),
        ] {
            assert_eq!(own.outside(Path::new(seen)).unwrap().to_str(), Some(there), "{seen}");
        }
        for (seen, what) in [
            ("/", "its own file system"),
            ("/workshop", "its own file system"),
            ("/etc/passwd", "its own file system"),
            ("/far/x", "volume data of the driver nfs"),
            ("/scratch/x", "memory"),
            ("/work/memory/x", "memory"),
        ] {
            let expected = OutsideError::Inside { path: seen.into(), what: what.to_owned() };
            assert_eq!(own.outside(Path::new(seen)), Err(expected), "{seen}");
        }
    }

    #[test]
    fn only_our_own_container_is_ours() {
        let own = Whereabouts::Container(own());
        assert!(own.is(ID) && own.is(&ID[..12]) && own.is("hive"));
        assert!(!own.is("hive2") && !own.is("4f5c") && !own.is(&ID.replace('4', "5")) && !own.is(""));
        assert!(!Whereabouts::Machine.is("hive") && !Whereabouts::Elsewhere(ID.to_owned()).is(ID));
    }

    #[test]
    fn outside_of_a_known_container_a_path_is_itself_or_nothing() {
        let path = Path::new("/work");
        assert_eq!(Whereabouts::Machine.outside(path).unwrap(), path);
        let error = Whereabouts::unknown(Some(ID)).outside(path).unwrap_err();
        assert!(error.to_string().contains("does not know"), "{error}");
        assert_eq!(Whereabouts::unknown(None), Whereabouts::Machine);
    }
}
