//! What was promised to children at one time and is looked at when they end or start: to those that a sibling's failure takes along, and to
//! those that were stopped with all others.

use std::collections::HashSet;

use hivekeeper_actors::tree::{Key, Request};
use hivekeeper_actors::{ChildId, Strategy};

/// A child that lives.
pub(super) struct Living {
    pub(super) key: Key,
    pub(super) id: ChildId,
    pub(super) stopping: bool,
    pub(super) temporary: bool,
}

#[derive(Default)]
pub(super) struct Fates {
    /// Incarnations whose end is on another's account.
    bystanders: HashSet<Key>,
    /// Those of them that have no way back.
    doomed: HashSet<ChildId>,
    /// Everything was stopped, and nobody has asked for everything since.
    silent: bool,
    /// Children that somebody asked for after the stop of everything.
    spared: HashSet<ChildId>,
}

impl Fates {
    pub(super) fn asked(&mut self, request: &Request<()>) {
        match request {
            Request::Start(child) | Request::Add(child) => self.spare(child.spec.id.clone()),
            Request::Restart(id) | Request::StartExisting(id) | Request::ForceRestart(id) => self.spare(id.clone()),
            Request::StopAll => self.spared.clear(),
            Request::StartAll | Request::RestartAll => {
                self.silent = false;
                self.bystanders.clear();
                self.doomed.clear();
            }
            Request::Change { .. } => {
                self.bystanders.clear();
                self.doomed.clear();
            }
            Request::Terminate(_) | Request::Delete(_) | Request::Remove(_) => {}
        }
    }

    fn spare(&mut self, id: ChildId) {
        self.doomed.remove(&id);
        self.spared.insert(id);
    }

    /// `failed` was debited a restart while these lived.
    pub(super) fn failed(&mut self, strategy: Strategy, failed: Key, living: impl Iterator<Item = Living>) {
        for Living { key, id, stopping, temporary } in living {
            if key == failed || strategy == Strategy::RestForOne && key < failed {
                continue;
            }
            self.bystanders.insert(key);
            if temporary && !stopping {
                self.doomed.insert(id);
            }
        }
    }

    pub(super) fn is_bystander(&self, key: Key) -> bool {
        self.bystanders.contains(&key)
    }

    pub(super) fn stopped_all(&mut self, mut living: impl Iterator<Item = Living>) {
        self.silent = true;
        let left = living.find(|living| !self.spared.contains(&living.id));
        assert!(
            left.is_none(),
            "{} lives, though everything was stopped",
            left.map_or_else(String::new, |l| l.id.to_string())
        );
    }

    pub(super) fn launched(&mut self, key: Key, id: &ChildId) {
        self.bystanders.remove(&key);
        assert!(!self.doomed.contains(id), "{id} is temporary, and came back with its group");
        assert!(!self.silent || self.spared.contains(id), "{id} came back after the stop of everything");
    }

    /// A child of that name that comes later is another.
    pub(super) fn removed(&mut self, id: &ChildId) {
        self.doomed.remove(id);
    }
}
