//! What is kept about all children, so that nobody has to look at each of them.

use std::collections::BTreeSet;
use std::time::Instant;

use super::slot::{Slot, State};
use super::{Key, Role};
use crate::snapshot::Counts;

/// Holds for every child at any time: a slot [leaves](Index::leave) before its state, specification or role changes, and
/// [joins](Index::join) afterwards.
#[derive(Default)]
pub(super) struct Index {
    /// Every instant at which a child wants to be looked at; at most one a child.
    deadlines: BTreeSet<(Instant, Key)>,
    /// The children that are backing off.
    backing_off: BTreeSet<Key>,
    children: usize,
    active: usize,
    stopping: usize,
    supervisors: usize,
    /// Significant children that have not ended for good.
    significant: usize,
}

impl Index {
    pub(super) fn join<P>(&mut self, key: Key, slot: &Slot<P>) {
        if let Some(at) = slot.state.due() {
            self.deadlines.insert((at, key));
        }
        if matches!(slot.state, State::BackingOff { .. }) {
            self.backing_off.insert(key);
        }
        let Share { active, stopping, supervisors, significant } = Share::of(slot);
        self.children += 1;
        self.active += active;
        self.stopping += stopping;
        self.supervisors += supervisors;
        self.significant += significant;
    }

    pub(super) fn leave<P>(&mut self, key: Key, slot: &Slot<P>) {
        if let Some(at) = slot.state.due() {
            self.deadlines.remove(&(at, key));
        }
        if matches!(slot.state, State::BackingOff { .. }) {
            self.backing_off.remove(&key);
        }
        let Share { active, stopping, supervisors, significant } = Share::of(slot);
        self.children -= 1;
        self.active -= active;
        self.stopping -= stopping;
        self.supervisors -= supervisors;
        self.significant -= significant;
    }

    /// Puts a slot into another state.
    pub(super) fn change<P>(&mut self, key: Key, slot: &mut Slot<P>, state: State) {
        self.leave(key, slot);
        slot.state = state;
        self.join(key, slot);
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// The child that wants to be looked at first, if its instant has come.
    pub(super) fn due(&self, now: Instant) -> Option<Key> {
        self.deadlines.first().filter(|(at, _)| *at <= now).map(|(_, key)| *key)
    }

    /// The first child that is backing off.
    pub(super) fn first_backing_off(&self) -> Option<Key> {
        self.backing_off.first().copied()
    }

    /// Whether more than one significant child has not ended for good.
    pub(super) fn has_other_significant(&self) -> bool {
        self.significant > 1
    }

    /// Children that were asked to end and have not.
    pub(super) fn stopping(&self) -> usize {
        self.stopping
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            specs: self.children,
            active: self.active,
            supervisors: self.supervisors,
            workers: self.children - self.supervisors,
        }
    }
}

/// What one child adds to the counts.
struct Share {
    active: usize,
    stopping: usize,
    supervisors: usize,
    significant: usize,
}

impl Share {
    fn of<P>(slot: &Slot<P>) -> Self {
        Self {
            active: usize::from(slot.state.lives() && !slot.state.is_restarting()),
            stopping: usize::from(matches!(slot.state, State::Stopping { .. })),
            supervisors: usize::from(matches!(slot.role, Role::Supervisor(_))),
            significant: usize::from(slot.spec.significant && !slot.state.is_final()),
        }
    }
}
