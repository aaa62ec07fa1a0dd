//! What a swarm on the docker runtime runs in, and how far that is from the tight default.

use std::path::PathBuf;

/// The container of a swarm.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerSpec {
    /// Ours, made for the swarm, or one that somebody else made. In the latter everything but `user` and `workdir` is as [`Self::sidecar`]
    /// leaves it: whoever made it has decided.
    pub place: Place,
    /// What the swarm can reach.
    pub network: NetworkSpec,
    /// What all agents of the swarm may use together.
    pub limits: Limits,
    /// `NAME` or `UID`, with `:GROUP` or `:GID` where wanted. `None`: the image's own, and 10001 where that is root; in a sidecar the sidecar's.
    pub user: Option<String>,
    /// Absolute in the container. `None`: the image's or the sidecar's own.
    pub workdir: Option<PathBuf>,
    /// Whether the root file system can't be written.
    pub read_only_root: bool,
    /// Absolute paths in the container that are memory; what they hold counts as the swarm's memory.
    pub tmpfs: Vec<String>,
    /// Capabilities added to none, in capitals and without `CAP_`.
    pub cap_add: Vec<String>,
    /// What of the engine's machine the swarm sees.
    pub mounts: Vec<Mount>,
}

/// Whose container it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Ours, and it ends with the swarm.
    Own {
        /// The reference of its image.
        image: String,
    },
    /// Somebody else's, whose life we never end.
    Sidecar {
        /// Its name.
        container: String,
    },
}

/// What a swarm can reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkSpec {
    /// Its own loopback.
    None,
    /// A bridge of its own with egress: no other swarm, but every address of the host.
    Swarm,
    /// A network of this name, which exists already.
    Named(String),
}

/// What all agents of a swarm may use together; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Limits {
    /// Bytes of memory, swap included.
    pub memory: Option<u64>,
    /// Processors' worth of time, in whole billionths, which is how engines count. More than the machine has is given as what it has.
    pub cpus: Option<f64>,
    /// Processes and threads, launchers included.
    pub pids: Option<u32>,
}

/// One file or directory of the engine's machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Absolute on the machine, symbolic links resolved when the document was read.
    pub source: PathBuf,
    /// Absolute in the container.
    pub target: PathBuf,
    /// Whether the swarm can't write it.
    pub read_only: bool,
}

impl ContainerSpec {
    /// Agents run in a container that somebody else has made.
    pub fn sidecar(container: String) -> Self {
        Self {
            place: Place::Sidecar { container },
            network: NetworkSpec::None,
            limits: Limits::default(),
            user: None,
            workdir: None,
            read_only_root: false,
            tmpfs: Vec::new(),
            cap_add: Vec::new(),
            mounts: Vec::new(),
        }
    }

    /// In what the swarm is less shut in than by default, a few words each; empty where it is not.
    pub fn relaxations(&self) -> Vec<String> {
        let mut found = Vec::new();
        match &self.place {
            // What it was made with is not known here, and may be anything.
            Place::Sidecar { container } => found.push(format!("container {container} of others")),
            Place::Own { .. } => self.own_relaxations(&mut found),
        }
        let user = self.user.as_deref().unwrap_or_default();
        let (user, group) = user.split_once(':').unwrap_or((user, ""));
        for (what, who) in [("user", user), ("group", group)] {
            if is_root(who) {
                found.push(format!("{what} root"));
            }
        }
        found
    }

    fn own_relaxations(&self, found: &mut Vec<String>) {
        match &self.network {
            NetworkSpec::None => {}
            NetworkSpec::Swarm => found.push("network swarm".to_owned()),
            NetworkSpec::Named(name) => found.push(format!("network {name}")),
        }
        if !self.read_only_root {
            found.push("writable root".to_owned());
        }
        found.extend(self.cap_add.iter().map(|name| format!("capability {name}")));
        let writable = self.mounts.iter().filter(|mount| !mount.read_only);
        found.extend(writable.map(|mount| format!("writable mount {}", mount.target.display())));
        let Limits { memory, cpus, pids } = self.limits;
        for (what, limited) in [("memory", memory.is_some()), ("cpu", cpus.is_some()), ("pids", pids.is_some())] {
            if !limited {
                found.push(format!("no {what} limit"));
            }
        }
    }
}

/// By name or by number, whatever zeros stand before it.
fn is_root(who: &str) -> bool {
    who == "root" || who.parse::<u64>() == Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tight() -> ContainerSpec {
        ContainerSpec {
            place: Place::Own { image: "debian".to_owned() },
            limits: Limits { memory: Some(1 << 31), cpus: Some(1.5), pids: Some(256) },
            read_only_root: true,
            tmpfs: vec!["/tmp".to_owned()],
            mounts: vec![mount("/data", true)],
            ..ContainerSpec::sidecar(String::new())
        }
    }

    fn mount(target: &str, read_only: bool) -> Mount {
        Mount { source: "/srv/data".into(), target: target.into(), read_only }
    }

    #[test]
    fn the_tight_default_relaxes_nothing() {
        assert_eq!(tight().relaxations(), [""; 0]);
        let user = |user: &str| ContainerSpec { user: Some(user.to_owned()), ..tight() }.relaxations();
        assert_eq!(user("10001"), [""; 0]);
        assert_eq!(user("rooty:100"), [""; 0]);
    }

    #[test]
    fn each_relaxation_is_named() {
        let relaxed = |change: &dyn Fn(&mut ContainerSpec)| {
            let mut spec = tight();
            change(&mut spec);
            spec.relaxations()
        };
        let named = NetworkSpec::Named("lan".to_owned());
        assert_eq!(relaxed(&|spec| spec.network = NetworkSpec::Swarm), ["network swarm"]);
        assert_eq!(relaxed(&|spec| spec.network = named.clone()), ["network lan"]);
        assert_eq!(relaxed(&|spec| spec.read_only_root = false), ["writable root"]);
        assert_eq!(relaxed(&|spec| spec.cap_add = vec!["NET_RAW".to_owned()]), ["capability NET_RAW"]);
        assert_eq!(relaxed(&|spec| spec.mounts.push(mount("/work", false))), ["writable mount /work"]);
        let unlimited = ["no memory limit", "no cpu limit", "no pids limit"];
        assert_eq!(relaxed(&|spec| spec.limits = Limits::default()), unlimited);
        for (user, found) in [
            ("root", &["user root"][..]),
            ("0", &["user root"]),
            ("00:100", &["user root"]),
            ("agent:0", &["group root"]),
            ("root:root", &["user root", "group root"]),
        ] {
            assert_eq!(relaxed(&|spec| spec.user = Some(user.to_owned())), found, "{user}");
        }
    }

    #[test]
    fn a_sidecar_is_one_relaxation_and_its_user_may_be_another() {
        let mut spec = ContainerSpec::sidecar("dev".to_owned());
        assert_eq!(spec.relaxations(), ["container dev of others"]);
        spec.user = Some("root".to_owned());
        assert_eq!(spec.relaxations(), ["container dev of others", "user root"]);
    }
}
