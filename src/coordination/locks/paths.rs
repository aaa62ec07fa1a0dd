//! Names of what is locked, and which of them overlap.
//!
//! A name is a path of parts. It means itself and everything below it, with or without a `/` at its end: whoever writes `src` for the directory is as safe
//! as whoever writes `src/`. So `src` and `src/` are the same, both overlap `src/a.rs` and `src/sub/`, and neither overlaps `srcx`.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

use crate::{coordination::Refused, model::LockMode};

/// Names in one attempt. Whoever needs more of them locks what lies above them.
pub const RESOURCES_MAX: usize = 64;

/// Bytes of one name: longer than the paths of usual repositories, and a bound for what a swarm's locks hold in memory.
pub const RESOURCE_LEN_MAX: usize = 512;

const ALLOWED: &str = "1 to 512 bytes: parts divided by `/`, none of them empty, `.` or `..`, without control characters, the first not behind a `/`; a `/` at the end changes nothing";

/// How much of a bad name is said back.
const FOUND_CHARS_MAX: usize = 80;

/// The names of one attempt as they are compared: without the `/` at the end, each once.
///
/// # Errors
/// Names the first that can't be, or how many there are.
pub(super) fn keys(resources: &[Arc<str>]) -> Result<Vec<Arc<str>>, Refused> {
    if resources.is_empty() || resources.len() > RESOURCES_MAX {
        return Err(Refused::Invalid {
            key: "resources".to_owned(),
            found: format!("{} names", resources.len()),
            allowed: format!("1 to {RESOURCES_MAX}"),
        });
    }
    let mut keys = Vec::with_capacity(resources.len());
    for (at, resource) in resources.iter().enumerate() {
        let key = key(resource, || format!("resources[{at}]"))?;
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    Ok(keys)
}

/// One name as it is compared.
///
/// # Errors
/// If it can't be; `place` says where it was found.
pub(super) fn key(resource: &Arc<str>, place: impl FnOnce() -> String) -> Result<Arc<str>, Refused> {
    let path = resource.strip_suffix('/').unwrap_or(resource);
    let good = resource.len() <= RESOURCE_LEN_MAX
        && path.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.contains(char::is_control));
    match good {
        true if path.len() == resource.len() => Ok(resource.clone()),
        true => Ok(Arc::from(path)),
        false => Err(Refused::Invalid {
            key: place(),
            found: format!("{:?}", resource.chars().take(FOUND_CHARS_MAX).collect::<String>()),
            allowed: ALLOWED.to_owned(),
        }),
    }
}

/// Whether the second lies at or below the first.
pub(super) fn covers(key: &str, other: &str) -> bool {
    other.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Who is at which name; found without looking at names that don't overlap.
#[derive(Debug, Default)]
pub(super) struct Names {
    seats: BTreeMap<Arc<str>, Seats>,
}

/// Who is at one name: readers apart, because readers are many and never stand in each other's way.
#[derive(Debug, Default)]
struct Seats {
    readers: BTreeSet<u64>,
    others: BTreeSet<u64>,
}

impl Seats {
    fn of(&mut self, mode: LockMode) -> &mut BTreeSet<u64> {
        match mode {
            LockMode::Read => &mut self.readers,
            LockMode::Write | LockMode::Exclusive => &mut self.others,
        }
    }

    /// All that something of this mode may have to do with.
    fn seen_by(&self, mode: LockMode) -> impl Iterator<Item = u64> + '_ {
        let readers = (mode != LockMode::Read).then_some(&self.readers);
        self.others.iter().chain(readers.into_iter().flatten()).copied()
    }
}

impl Names {
    /// Puts somebody at these names.
    pub(super) fn insert(&mut self, keys: &[Arc<str>], mode: LockMode, number: u64) {
        for key in keys {
            self.seats.entry(key.clone()).or_default().of(mode).insert(number);
        }
    }

    /// Takes him away again; `mode` is the one that he was put there with.
    pub(super) fn remove(&mut self, keys: &[Arc<str>], mode: LockMode, number: u64) {
        for key in keys {
            let Some(seats) = self.seats.get_mut(key) else { continue };
            seats.of(mode).remove(&number);
            if seats.readers.is_empty() && seats.others.is_empty() {
                self.seats.remove(key);
            }
        }
    }

    /// Whoever is at a name that overlaps this one and could stand in the way of this mode: a reader sees no readers. One who is at several such names comes
    /// several times.
    pub(super) fn overlapping<'a>(&'a self, key: &'a str, mode: LockMode) -> impl Iterator<Item = u64> + 'a {
        // `0` follows `/`, so everything below `src` lies between `src/` and `src0`.
        let (first, behind) = (format!("{key}/"), format!("{key}0"));
        let below = self.seats.range::<str, _>((Bound::Included(first.as_str()), Bound::Excluded(behind.as_str())));
        self.covering(key).chain(below.map(|(_, seats)| seats)).flat_map(move |seats| seats.seen_by(mode))
    }

    /// Whoever writes at this name or above it.
    pub(super) fn writers_above<'a>(&'a self, key: &'a str) -> impl Iterator<Item = u64> + 'a {
        self.covering(key).flat_map(|seats| seats.others.iter().copied())
    }

    /// Whether nobody is anywhere.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.seats.is_empty()
    }

    fn covering<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a Seats> + 'a {
        let above = key.match_indices('/').map(|(at, _)| &key[..at]);
        above.chain([key]).filter_map(|name| self.seats.get(name))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn overlap(a: &str, b: &str) -> bool {
        let (a, b) = (keys(&[a.into()]).unwrap(), keys(&[b.into()]).unwrap());
        let mut names = Names::default();
        names.insert(&a, LockMode::Write, 1);
        let found = names.overlapping(&b[0], LockMode::Read).next().is_some();
        assert_eq!(found, covers(&a[0], &b[0]) || covers(&b[0], &a[0]), "{a:?} {b:?}");
        found
    }

    #[test]
    fn a_path_means_itself_and_what_is_below() {
        for (a, b) in [
            ("src", "src/"),
            ("src/", "src/a.rs"),
            ("src", "src/a.rs"),
            ("src/", "src/sub/"),
            ("src", "src/sub/deep/a.rs"),
            ("a", "a"),
        ] {
            assert!(overlap(a, b) && overlap(b, a), "{a} {b}");
        }
        for (a, b) in [
            ("src/", "srcx"),
            ("src", "src-x/a"),
            ("src", "src.rs"),
            ("src/a", "src/b"),
            ("src/a", "src/ab"),
            ("src", "src0"),
            ("a/src", "src"),
        ] {
            assert!(!overlap(a, b) && !overlap(b, a), "{a} {b}");
        }
    }

    #[test]
    fn bad_names_are_refused_with_what_is_allowed() {
        let long = "a".repeat(RESOURCE_LEN_MAX + 1);
        for bad in
            ["", "/", "/src", "src//a", "src//", ".", "./src", "src/..", "../src", "src/./a", "a\nb", "a\0", &long]
        {
            let refused = keys(&["good".into(), bad.into()]).unwrap_err();
            assert!(matches!(&refused, Refused::Invalid { key, .. } if key == "resources[1]"), "{bad:?}: {refused:?}");
            assert!(refused.to_string().contains("1 to 512 bytes"));
        }
        for good in ["a", "src/", "a b", "..a", "...", "é/ü", "crate::module", &long[1..]] {
            assert!(keys(&[good.into()]).is_ok(), "{good:?}");
        }
        assert!(keys(&[]).is_err());
        let many: Vec<Arc<str>> = (0..=RESOURCES_MAX).map(|n| n.to_string().into()).collect();
        assert!(keys(&many).is_err() && keys(&many[1..]).is_ok());
    }

    #[test]
    fn one_name_twice_is_one_name() {
        assert_eq!(keys(&["src".into(), "src/".into()]).unwrap(), [Arc::from("src")]);
    }

    #[test]
    fn who_left_is_nowhere() {
        let mut names = Names::default();
        let at = keys(&["a/b".into(), "c".into()]).unwrap();
        names.insert(&at, LockMode::Read, 1);
        names.insert(&at, LockMode::Write, 2);
        assert_eq!(names.overlapping("a", LockMode::Read).collect::<Vec<_>>(), [2], "a reader sees no readers");
        assert_eq!(names.overlapping("a", LockMode::Write).collect::<Vec<_>>(), [2, 1]);
        names.remove(&at, LockMode::Write, 2);
        assert_eq!(names.overlapping("c", LockMode::Write).collect::<Vec<_>>(), [1]);
        names.remove(&at, LockMode::Read, 1);
        assert!(names.is_empty());
    }
}
