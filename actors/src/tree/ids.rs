//! The names of the children of a supervisor.
//!
//! The table holds hashes and keys alone. The name itself is with the child: a table that grows does not go through the memory of all children.
//!
//! Most names are a front and a number. Names that differ in their last character alone stand side by side, so that children which come or go one
//! after the other do so at one place of the table. Each at a place of its own, out of the processor's caches, cost a twentieth of the time that
//! 100,000 children take to start and to stop.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};

use super::Key;
use super::slots::Slots;
use crate::spec::ChildId;

/// From this bit on the table takes a hash for a mark by which it tells neighbours apart.
const MARK_SHIFT: u32 = 57;

/// The hash is the standard library's: names may come from outside.
#[derive(Default)]
pub(super) struct Ids<S = RandomState> {
    keys: HashMap<u64, Key, BuildHasherDefault<Known>>,
    /// Names whose hash was another one's when they came: as good as none, ever.
    twins: BTreeMap<ChildId, Key>,
    hasher: S,
}

impl<S: BuildHasher> Ids<S> {
    pub(super) fn get<P>(&self, id: &ChildId, slots: &Slots<P>) -> Option<Key> {
        let found = self.keys.get(&self.hash(id)).copied();
        found.filter(|key| slots.has_name(*key, id)).or_else(|| self.twins.get(id).copied())
    }

    /// Names a child that is to come; the error is the one that has the name.
    pub(super) fn insert<P>(&mut self, id: &ChildId, key: Key, slots: &Slots<P>) -> Result<(), Key> {
        if let Some(taken) = self.twins.get(id) {
            return Err(*taken);
        }
        match self.keys.entry(self.hash(id)) {
            Entry::Vacant(free) => {
                free.insert(key);
            }
            Entry::Occupied(taken) if slots.has_name(*taken.get(), id) => return Err(*taken.get()),
            Entry::Occupied(_) => {
                self.twins.insert(id.clone(), key);
            }
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, id: &ChildId, key: Key) {
        match self.keys.entry(self.hash(id)) {
            Entry::Occupied(named) if *named.get() == key => {
                named.remove();
            }
            _ => {
                self.twins.remove(id);
            }
        }
    }

    /// The hash of all but the last byte, and that one added. Names of one front never share a hash, and who chooses names has no say in where a front stands.
    fn hash(&self, id: &ChildId) -> u64 {
        let Some((last, front)) = id.as_str().as_bytes().split_last() else { return 0 };
        let last = u64::from(*last);
        let mut hasher = self.hasher.build_hasher();
        hasher.write(front);
        hasher.finish().wrapping_add(last) ^ (last << MARK_SHIFT)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::time::Instant;

    use super::super::slot::Slot;
    use super::super::{NewChild, Role};
    use super::*;
    use crate::spec::ChildSpec;

    /// Gives every front the same hash.
    type Blind = BuildHasherDefault<Zero>;

    #[derive(Default)]
    struct Zero;

    impl Hasher for Zero {
        fn write(&mut self, _: &[u8]) {}

        fn finish(&self) -> u64 {
            0
        }
    }

    #[derive(Default)]
    struct Names<S> {
        ids: Ids<S>,
        slots: Option<Slots<()>>,
        next: u64,
    }

    impl<S: BuildHasher> Names<S> {
        fn insert(&mut self, name: &str) -> Result<Key, Key> {
            let (slots, key) = (self.slots.get_or_insert_with(Slots::new), Key(self.next));
            self.ids.insert(&name.into(), key, slots)?;
            let child = NewChild { spec: ChildSpec::new(name).into(), seed: None, role: Role::Worker, payload: () };
            slots.push(key, Box::new(Slot::new(Instant::now(), name.into(), child)));
            self.next += 1;
            Ok(key)
        }

        fn get(&self, name: &str) -> Option<Key> {
            self.ids.get(&name.into(), self.slots.as_ref()?)
        }

        fn remove(&mut self, name: &str) {
            let key = self.get(name).unwrap();
            let slot = self.slots.as_mut().unwrap().remove(key).unwrap();
            self.ids.remove(&slot.spec.id, key);
        }
    }

    fn each_name_is_its_own<S: BuildHasher + Default>() {
        let mut names = Names::<S>::default();
        for (n, name) in ["a-1", "b-1", "c-1", "a-2", "b-2", ""].into_iter().enumerate() {
            assert_eq!(names.get(name), None);
            assert_eq!(names.insert(name), Ok(Key(n as u64)));
            assert_eq!(names.insert(name), Err(Key(n as u64)), "{name} is taken");
        }
        names.remove("b-1");
        names.remove("a-1");
        assert_eq!([names.get("a-1"), names.get("b-1"), names.get("c-1")], [None, None, Some(Key(2))]);
        assert_eq!(names.insert("c-1"), Err(Key(2)));
        names.remove("c-1");
        assert_eq!(names.insert("c-1"), Ok(Key(6)));
        assert_eq!(names.insert("a-1"), Ok(Key(7)));
        for name in ["c-1", "a-2", "", "b-2", "a-1"] {
            names.remove(name);
            assert_eq!(names.get(name), None);
        }
        assert!(names.ids.keys.is_empty() && names.ids.twins.is_empty());
    }

    #[test]
    fn names_are_told_apart() {
        each_name_is_its_own::<RandomState>();
    }

    #[test]
    fn names_of_one_hash_are_told_apart() {
        each_name_is_its_own::<Blind>();
    }
}
