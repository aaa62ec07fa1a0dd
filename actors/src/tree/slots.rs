//! The children of a supervisor in start order.
//!
//! Keys grow one by one and come at the end, so a child stands as far from the end as its key is from the latest, and is found without a search. Those
//! that have gone leave gaps, so that this stays true, until the gaps are more than what is left; then the row closes up, and what was in it then is searched for.

use std::ops::{Bound, RangeBounds};

use super::Key;
use super::slot::Slot;
use crate::spec::ChildId;

/// Gaps that are left alone however few children there are: less than a page of memory.
const GAPS_KEPT: usize = 64;

pub(super) struct Slots<P> {
    row: Vec<(Key, Option<Box<Slot<P>>>)>,
    gaps: usize,
}

impl<P> Slots<P> {
    pub(super) fn new() -> Self {
        Self { row: Vec::new(), gaps: 0 }
    }

    pub(super) fn get(&self, key: Key) -> Option<&Slot<P>> {
        self.row[self.place(key)?].1.as_deref()
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Slot<P>> {
        let place = self.place(key)?;
        self.row[place].1.as_deref_mut()
    }

    pub(super) fn has_name(&self, key: Key, id: &ChildId) -> bool {
        self.get(key).is_some_and(|slot| slot.spec.id == *id)
    }

    /// Takes in a child whose key is above all before it.
    pub(super) fn push(&mut self, key: Key, slot: Box<Slot<P>>) {
        debug_assert!(self.row.last().is_none_or(|(last, _)| *last < key), "keys grow");
        self.row.push((key, Some(slot)));
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<Box<Slot<P>>> {
        let place = self.place(key)?;
        let slot = self.row[place].1.take()?;
        self.gaps += 1;
        if self.gaps > GAPS_KEPT.max(self.row.len() / 2) {
            self.row.retain(|(_, slot)| slot.is_some());
            self.row.shrink_to(2 * self.row.len());
            self.gaps = 0;
        }
        Some(slot)
    }

    /// In start order.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (Key, &Slot<P>)> {
        self.range(..)
    }

    /// As [`Slots::iter`], those within `keys`.
    pub(super) fn range(&self, keys: impl RangeBounds<Key>) -> impl DoubleEndedIterator<Item = (Key, &Slot<P>)> {
        let (from, until) = self.places(keys);
        self.row[from..until].iter().filter_map(|(key, slot)| Some((*key, slot.as_deref()?)))
    }

    pub(super) fn range_mut(
        &mut self,
        keys: impl RangeBounds<Key>,
    ) -> impl DoubleEndedIterator<Item = (Key, &mut Slot<P>)> {
        let (from, until) = self.places(keys);
        self.row[from..until].iter_mut().filter_map(|(key, slot)| Some((*key, slot.as_deref_mut()?)))
    }

    fn place(&self, key: Key) -> Option<usize> {
        let (last, _) = self.row.last()?;
        let from_end = usize::try_from(last.0.checked_sub(key.0)?).ok()?;
        let guess = (self.row.len() - 1).checked_sub(from_end);
        guess
            .filter(|place| self.row[*place].0 == key)
            .or_else(|| self.row.binary_search_by_key(&key, |(key, _)| *key).ok())
    }

    fn places(&self, keys: impl RangeBounds<Key>) -> (usize, usize) {
        let below = |bound: Key| self.row.partition_point(|(key, _)| *key < bound);
        let from = match keys.start_bound() {
            Bound::Included(key) => below(*key),
            Bound::Excluded(key) => below(key.next()),
            Bound::Unbounded => 0,
        };
        let until = match keys.end_bound() {
            Bound::Included(key) => below(key.next()),
            Bound::Excluded(key) => below(*key),
            Bound::Unbounded => self.row.len(),
        };
        (from, until.max(from))
    }
}
