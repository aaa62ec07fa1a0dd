//! Names and labels of what we make in an engine.

use std::collections::{BTreeMap, HashMap};

use super::error::CallError;
use crate::model::{HiveId, SwarmName};

/// Label keys. Agent and incarnation are not among them: they live in the launcher's state and in the journal.
pub mod label {
    /// The id of the hive that made it; only what carries our own is ever touched.
    pub const HIVE_ID: &str = "dev.hivekeeper.hive-id";
    /// The hive's name, for people.
    pub const HIVE: &str = "dev.hivekeeper.hive";
    /// The swarm.
    pub const SWARM: &str = "dev.hivekeeper.swarm";
    /// Who manages it: [`US`].
    pub const MANAGED_BY: &str = "dev.hivekeeper.managed-by";
    /// Value of [`MANAGED_BY`].
    pub const US: &str = "hivekeeper";
    /// SHA-256 of what the swarm's document asks of its container; another value means that the document has changed.
    pub const PLAN: &str = "dev.hivekeeper.plan";
    /// SHA-256 of the executable that a launcher's volume holds.
    pub const LAUNCHER: &str = "dev.hivekeeper.launcher";
}

/// The hive for which an [`super::Engine`] works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Decides what is ours.
    pub hive_id: HiveId,
    /// For people.
    pub hive: String,
}

impl Owner {
    /// The labels of everything that this hive makes, for a swarm or for all.
    pub(super) fn labels(&self, swarm: Option<&SwarmName>) -> HashMap<String, String> {
        let mut labels = HashMap::from([
            (label::MANAGED_BY.to_owned(), label::US.to_owned()),
            (label::HIVE_ID.to_owned(), self.hive_id.to_string()),
            (label::HIVE.to_owned(), self.hive.clone()),
        ]);
        if let Some(swarm) = swarm {
            labels.insert(label::SWARM.to_owned(), swarm.to_string());
        }
        labels
    }

    /// Whether labels are those of something that this hive made.
    pub(super) fn owns(&self, labels: &BTreeMap<String, String>) -> bool {
        labels.get(label::HIVE_ID).is_some_and(|id| *id == self.hive_id.to_string())
    }
}

/// Name of a swarm's container and of its network. The last digits of the hive's id keep hives of the same name apart; whose it is, the labels say.
pub fn resource_name(hive_id: HiveId, swarm: &SwarmName) -> String {
    let id = hive_id.0.simple().to_string();
    format!("hivekeeper-{swarm}-{}", &id[id.len() - 8..])
}

/// Longest reference that is passed on to an engine; its own names and digests are far shorter.
const REFERENCE_LEN_MAX: usize = 255;

/// A name or id that may stand in a request's path, where the client library puts it as it is: documents choose some of these.
pub(super) fn container_ref(name: &str) -> Result<&str, CallError> {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    checked(name, inner)
}

/// The same for images, which may carry a registry, a path, a tag and a digest.
pub(super) fn image_ref(name: &str) -> Result<&str, CallError> {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b'/' | b':' | b'@');
    if name.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return Err(bad(name));
    }
    checked(name, inner)
}

fn checked(name: &str, inner: impl Fn(u8) -> bool) -> Result<&str, CallError> {
    let ok = name.len() <= REFERENCE_LEN_MAX
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.bytes().all(inner);
    if ok { Ok(name) } else { Err(bad(name)) }
}

fn bad(name: &str) -> CallError {
    CallError::BadName { found: name.chars().take(80).collect() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_reference_cannot_leave_its_place_in_the_path() {
        for good in ["review", "0123456789ab", "a_b.c-d"] {
            assert_eq!(container_ref(good).unwrap(), good);
        }
        for bad in ["", "..", "../images", "a/b", "a?force=1", "a#b", "a%2fb", "-a", ".a", "é", &"a".repeat(256)] {
            assert!(container_ref(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_image_may_have_a_registry_a_tag_and_a_digest() {
        for good in ["debian", "debian:bookworm-slim", "localhost:5000/a/b:1", "a@sha256:0123"] {
            assert_eq!(image_ref(good).unwrap(), good);
        }
        for bad in ["", "/a", "a//b", "a/../b", "a/./b", "a/", "a?b", "a b", ":a"] {
            assert!(image_ref(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn hives_of_one_name_make_differently_named_things() {
        let swarm: SwarmName = "review".parse().unwrap();
        let (one, other) = (HiveId::mint(), HiveId::mint());
        assert_ne!(resource_name(one, &swarm), resource_name(other, &swarm));
        assert!(container_ref(&resource_name(one, &"s".repeat(63).parse().unwrap())).is_ok());
    }

    #[test]
    fn only_our_own_id_makes_it_ours() {
        let owner = Owner { hive_id: HiveId::mint(), hive: "hive".to_owned() };
        let same_name = Owner { hive_id: HiveId::mint(), hive: "hive".to_owned() };
        let labels: BTreeMap<String, String> = owner.labels(None).into_iter().collect();
        assert!(owner.owns(&labels));
        assert!(!same_name.owns(&labels));
        assert!(!owner.owns(&BTreeMap::new()));
    }
}
