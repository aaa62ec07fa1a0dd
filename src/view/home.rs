//! The keys of a swarm document that say where its agents run.

use std::{path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{document::DocumentError, size::SizeText};
use crate::model::{ContainerSpec, Home, Limits, Mount, NetworkSpec, Place, RuntimeKind};

/// `limits`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = Limits)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitsDocument {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    memory: Option<SizeText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cpus: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pids: Option<u32>,
}

/// One of `mounts`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = Mount)]
#[serde(deny_unknown_fields)]
pub(super) struct MountDocument {
    #[schema(value_type = String)]
    source: PathBuf,
    #[schema(value_type = String)]
    target: PathBuf,
    read_only: bool,
}

/// The keys as they stand in a document, in which a runtime leaves out what it doesn't honour.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct HomeKeys {
    pub(super) image: Option<String>,
    pub(super) container: Option<String>,
    pub(super) network: Option<String>,
    pub(super) limits: Option<LimitsDocument>,
    pub(super) user: Option<String>,
    pub(super) workdir: Option<PathBuf>,
    pub(super) read_only_root: Option<bool>,
    pub(super) tmpfs: Option<Vec<String>>,
    pub(super) cap_add: Option<Vec<String>>,
    pub(super) mounts: Option<Vec<MountDocument>>,
}

const MISSING: &str = "it is missing";

impl HomeKeys {
    /// Shows where a swarm runs.
    pub(super) fn of(home: &Home) -> Self {
        let spec = match home {
            Home::Process { workdir } => return Self { workdir: workdir.clone(), ..Self::default() },
            Home::Docker(spec) => spec,
        };
        let keys = Self { user: spec.user.clone(), workdir: spec.workdir.clone(), ..Self::default() };
        match &spec.place {
            Place::Sidecar { container } => Self { container: Some(container.clone()), ..keys },
            Place::Own { image } => Self {
                image: Some(image.clone()),
                network: Some(match &spec.network {
                    NetworkSpec::None => "none".to_owned(),
                    NetworkSpec::Swarm => "swarm".to_owned(),
                    NetworkSpec::Named(name) => name.clone(),
                }),
                limits: Some(LimitsDocument {
                    memory: spec.limits.memory.map(SizeText),
                    cpus: spec.limits.cpus,
                    pids: spec.limits.pids,
                }),
                read_only_root: Some(spec.read_only_root),
                tmpfs: Some(spec.tmpfs.clone()),
                cap_add: Some(spec.cap_add.clone()),
                mounts: Some(spec.mounts.iter().map(mount_document).collect()),
                ..keys
            },
        }
    }

    /// Where the swarm of a document runs. The counterpart of [`Self::of`]: together they are the identity.
    pub(super) fn into_home(self, runtime: RuntimeKind) -> Result<Home, DocumentError> {
        if runtime == RuntimeKind::Process {
            self.refuse(true, "only the docker runtime honours it")?;
            return Ok(Home::Process { workdir: self.workdir });
        }
        let missing = |key| move || DocumentError::Key { key, rule: MISSING };
        let spec = match (self.image.clone(), self.container.clone()) {
            (None, None) => return Err(DocumentError::Key { key: "image", rule: "it or `container` is missing" }),
            (Some(_), Some(_)) => {
                return Err(DocumentError::Key { key: "container", rule: "it does not go with `image`" });
            }
            (None, Some(container)) => {
                self.refuse(false, "it goes with `image` alone")?;
                ContainerSpec::sidecar(container)
            }
            (Some(image), None) => {
                let limits = self.limits.ok_or_else(missing("limits"))?;
                let mounts = self.mounts.ok_or_else(missing("mounts"))?;
                ContainerSpec {
                    place: Place::Own { image },
                    network: match self.network.ok_or_else(missing("network"))?.as_str() {
                        "none" => NetworkSpec::None,
                        "swarm" => NetworkSpec::Swarm,
                        name => NetworkSpec::Named(name.to_owned()),
                    },
                    limits: Limits { memory: limits.memory.map(|size| size.0), cpus: limits.cpus, pids: limits.pids },
                    user: None,
                    workdir: None,
                    read_only_root: self.read_only_root.ok_or_else(missing("read_only_root"))?,
                    tmpfs: self.tmpfs.ok_or_else(missing("tmpfs"))?,
                    cap_add: self.cap_add.ok_or_else(missing("cap_add"))?,
                    mounts: mounts.into_iter().map(mount).collect(),
                }
            }
        };
        Ok(Home::Docker(Arc::new(ContainerSpec { user: self.user, workdir: self.workdir, ..spec })))
    }

    /// Keys that `image` alone can honour are not there, nor, with `docker_keys`, any other of the docker runtime's.
    fn refuse(&self, docker_keys: bool, rule: &'static str) -> Result<(), DocumentError> {
        let there = [
            ("image", docker_keys && self.image.is_some()),
            ("container", docker_keys && self.container.is_some()),
            ("user", docker_keys && self.user.is_some()),
            ("network", self.network.is_some()),
            ("limits", self.limits.is_some()),
            ("read_only_root", self.read_only_root.is_some()),
            ("tmpfs", self.tmpfs.is_some()),
            ("cap_add", self.cap_add.is_some()),
            ("mounts", self.mounts.is_some()),
        ];
        match there.into_iter().find(|(_, is_there)| *is_there) {
            Some((key, _)) => Err(DocumentError::Key { key, rule }),
            None => Ok(()),
        }
    }
}

fn mount_document(mount: &Mount) -> MountDocument {
    MountDocument { source: mount.source.clone(), target: mount.target.clone(), read_only: mount.read_only }
}

fn mount(document: MountDocument) -> Mount {
    Mount { source: document.source, target: document.target, read_only: document.read_only }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::{collection::vec, option, prelude::*};
    use serde_json::{Value, json};

    use super::super::document::{SwarmDocument, document};
    use super::*;
    use crate::model::{Origin, SwarmSpec};

    /// The document of the specification.
    fn sample() -> Value {
        json!({
            "name": "review", "runtime": "docker", "image": "debian:bookworm-slim",
            "strategy": "one_for_one", "intensity": 5, "period": "60s", "on_exceeded": { "retry_after": "10m" },
            "backoff": { "initial": "0s", "then": "1s", "factor": 2.0, "max": "60s", "jitter": 0.25, "reset_after": "10m" },
            "network": "none", "limits": { "memory": "2GiB", "cpus": 1.5, "pids": 256 }, "user": "10001",
            "workdir": "/workspace", "read_only_root": true, "tmpfs": ["/tmp"], "cap_add": [], "env": { "LANG": "C.UTF-8" },
            "mounts": [{ "source": "/srv/repo", "target": "/workspace", "read_only": false }],
            "agent": []
        })
    }

    fn read(value: Value) -> Result<SwarmSpec, String> {
        let document: SwarmDocument = serde_json::from_value(value).map_err(|error| error.to_string())?;
        document.into_spec(Origin::Config).map_err(|error| error.to_string())
    }

    #[test]
    fn the_document_of_the_specification_survives_the_way_there_and_back() {
        let spec = read(sample()).unwrap();
        let Home::Docker(container) = &spec.home else { panic!("{spec:?}") };
        assert_eq!(container.limits.memory, Some(2 << 30));
        assert_eq!(container.relaxations(), ["writable mount /workspace"]);
        // Compared as text: the order of the keys is the specification's.
        let shown = serde_json::to_string(&document(&spec)).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), sample());
        let order = ["runtime", "image", "strategy", "network", "limits", "user", "workdir", "tmpfs", "env", "mounts"];
        let places: Vec<usize> = order.iter().map(|key| shown.find(&format!("\"{key}\":")).unwrap()).collect();
        assert!(places.is_sorted(), "{shown}");
    }

    #[test]
    fn keys_that_are_missing_or_do_not_go_together_are_named() {
        let refused = |change: fn(&mut serde_json::Map<String, Value>)| {
            let mut value = sample();
            change(value.as_object_mut().unwrap());
            read(value).unwrap_err()
        };
        let without = |key: &str| {
            let mut value = sample();
            value.as_object_mut().unwrap().remove(key);
            read(value).unwrap_err()
        };
        for key in ["network", "limits", "read_only_root", "tmpfs", "cap_add", "mounts"] {
            assert_eq!(without(key), format!("{key}: it is missing"));
        }
        assert_eq!(without("image"), "image: it or `container` is missing");
        let beside = refused(|keys| drop(keys.insert("container".to_owned(), json!("dev"))));
        assert_eq!(beside, "container: it does not go with `image`");
        let sidecar = refused(|keys| {
            keys.remove("image");
            keys.insert("container".to_owned(), json!("dev"));
        });
        assert_eq!(sidecar, "network: it goes with `image` alone");
        let process = refused(|keys| drop(keys.insert("runtime".to_owned(), json!("process"))));
        assert_eq!(process, "image: only the docker runtime honours it");
        assert!(refused(|keys| keys["limits"] = json!({ "cpu": 1 })).contains("unknown field `cpu`"));
        assert!(refused(|keys| keys["limits"] = json!({ "memory": "much" })).contains("a size such as"));
    }

    fn path() -> impl Strategy<Value = PathBuf> {
        "/[a-z .]{1,8}(/[a-z]{1,8}){0,2}".prop_map(PathBuf::from)
    }

    fn own() -> impl Strategy<Value = ContainerSpec> {
        let network =
            prop_oneof![Just(NetworkSpec::None), Just(NetworkSpec::Swarm), "[a-m]{2,9}".prop_map(NetworkSpec::Named),];
        let limits = (
            option::of(16_777_216_u64..1 << 46),
            option::of((10_000_000_u64..4_096_000_000_000).prop_map(|billionths| billionths as f64 / 1e9)),
            option::of(4_u32..4_194_304),
        );
        let limits = limits.prop_map(|(memory, cpus, pids)| Limits { memory, cpus, pids });
        let mount = (path(), path(), any::<bool>());
        let mount = mount.prop_map(|(source, target, read_only)| Mount { source, target, read_only });
        let tmpfs = path().prop_map(|path| path.to_string_lossy().into_owned());
        let rest = (any::<bool>(), vec(tmpfs, 0..3), vec("[A-Z_]{2,9}", 0..3), vec(mount, 0..3));
        ("[a-z:.]{1,9}", network, limits, rest).prop_map(|(image, network, limits, rest)| {
            let (read_only_root, tmpfs, cap_add, mounts) = rest;
            let spec = ContainerSpec::sidecar(String::new());
            ContainerSpec {
                place: Place::Own { image },
                network,
                limits,
                read_only_root,
                tmpfs,
                cap_add,
                mounts,
                ..spec
            }
        })
    }

    fn home() -> impl Strategy<Value = Home> {
        let container = prop_oneof![own(), "[a-z]{2,9}".prop_map(ContainerSpec::sidecar)];
        let docker = (container, option::of("[a-z]{1,9}|[0-9]{1,5}:[0-9]{1,5}"), option::of(path()));
        prop_oneof![
            option::of(path()).prop_map(|workdir| Home::Process { workdir }),
            docker.prop_map(|(spec, user, workdir)| Home::Docker(Arc::new(ContainerSpec { user, workdir, ..spec }))),
        ]
    }

    proptest! {
        /// The journal keeps documents: a daemon that read something else than what was written would restart what runs.
        #[test]
        fn wherever_a_swarm_runs_its_document_reads_back_equal(home in home()) {
            let spec = SwarmSpec { home, ..read(sample()).unwrap() };
            let text = serde_json::to_string(&document(&spec)).unwrap();
            prop_assert_eq!(read(serde_json::from_str(&text).unwrap()).unwrap(), spec, "{}", text);
        }
    }
}
