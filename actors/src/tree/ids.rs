//! The names of the children of a supervisor.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};

use super::Key;
use crate::spec::ChildId;

/// Keeps the hash of each name, so that a table that grows does not go through the memory of all of them. The hash is the standard library's: names may
/// come from outside.
#[derive(Default)]
pub(super) struct Ids {
    keys: HashMap<Hashed, Key, BuildHasherDefault<Known>>,
    hasher: RandomState,
}

impl Ids {
    pub(super) fn get(&self, id: &ChildId) -> Option<Key> {
        self.keys.get(&self.hashed(id)).copied()
    }

    /// Names a child; the error is the one that has the name.
    pub(super) fn insert(&mut self, id: &ChildId, key: Key) -> Result<(), Key> {
        match self.keys.entry(self.hashed(id)) {
            Entry::Occupied(taken) => Err(*taken.get()),
            Entry::Vacant(free) => {
                free.insert(key);
                Ok(())
            }
        }
    }

    pub(super) fn remove(&mut self, id: &ChildId) {
        self.keys.remove(&self.hashed(id));
    }

    fn hashed(&self, id: &ChildId) -> Hashed {
        Hashed { hash: self.hasher.hash_one(id), id: id.clone() }
    }
}

#[derive(PartialEq, Eq)]
struct Hashed {
    hash: u64,
    id: ChildId,
}

impl Hash for Hashed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// Hands on the hash that it is given.
#[derive(Default)]
struct Known(u64);

impl Hasher for Known {
    fn write(&mut self, bytes: &[u8]) {
        debug_assert!(false, "only hashes are hashed, not {bytes:?}");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
