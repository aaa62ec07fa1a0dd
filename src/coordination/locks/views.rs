//! What is said of the locks of a swarm: documents, who stands in whose way, and what became of a token.

use std::{collections::BTreeSet, sync::Arc, time::SystemTime};

use super::{
    hall::{Hall, InTheWay, Want, fence},
    paths::covers,
    told::{Blocker, LockFilter, LockView},
};
use crate::{
    coordination::Refused,
    model::{Fence, Lock, LockId, LockMode},
};

/// Those who stand in the way of one attempt that are told: enough to see whom to ask, and a bound for a list of thousands that wait in one queue.
const BLOCKERS_MAX: usize = 8;

impl Hall {
    pub(super) fn get(&self, id: LockId) -> Option<LockView> {
        self.view(*self.ids.get(&id)?)
    }

    pub(super) fn list(&self, key: Option<&str>, filter: &LockFilter) -> Vec<LockView> {
        let passes = |number: &u64| {
            let Some(entry) = self.entries.get(number) else { return false };
            let overlaps = |key: &str| entry.keys.iter().any(|own| covers(own, key) || covers(key, own));
            *number > filter.after
                && key.is_none_or(overlaps)
                && filter.holder.as_ref().is_none_or(|holder| entry.lock.holder.id == *holder)
                && filter.held.is_none_or(|held| if held { entry.lock.grant.is_some() } else { entry.wait.is_some() })
        };
        let numbers = self.entries.range(filter.after..).map(|(number, _)| *number);
        numbers.filter(passes).take(filter.limit).filter_map(|number| self.view(number)).collect()
    }

    fn view(&self, number: u64) -> Option<LockView> {
        let entry = self.entries.get(&number)?;
        let want = entry.wait.and_then(|wait| self.want(wait));
        let behind = want.map(|want| self.behind(want)).unwrap_or_default();
        Some(LockView { lock: entry.document(), wants: want.map(|want| want.mode), behind })
    }

    fn behind(&self, want: Want<'_>) -> Vec<Blocker> {
        let mut seen = BTreeSet::new();
        let all = self.in_the_way(want).filter_map(|in_the_way| {
            let (number, waits) = match in_the_way {
                InTheWay::Held(number) => (number, false),
                InTheWay::Waits(number) => (self.waits.get(&number)?.entry, true),
            };
            let lock = &self.entries.get(&number)?.lock;
            let blocker = Blocker { lock: lock.id, holder: lock.holder.clone(), waits };
            seen.insert((number, waits)).then_some(blocker)
        });
        all.take(BLOCKERS_MAX).collect()
    }

    /// Who stands in the way, for people.
    pub(super) fn held_by(&self, want: Want<'_>) -> String {
        let (held, waits): (Vec<_>, Vec<_>) = self.behind(want).into_iter().partition(|blocker| !blocker.waits);
        let names = |of: Vec<Blocker>| {
            let names: BTreeSet<String> = of.into_iter().map(|blocker| blocker.holder.to_string()).collect();
            names.into_iter().collect::<Vec<_>>().join(", ")
        };
        match (held.is_empty(), waits.is_empty()) {
            (false, true) => format!("held by {}", names(held)),
            (true, false) => format!("behind {}, who waited before", names(waits)),
            (false, false) => format!("held by {}; behind {}, who waited before", names(held), names(waits)),
            (true, true) => "held by nobody now".to_owned(),
        }
    }

    /// The number of the held lock whose token this is.
    pub(super) fn shown(&self, id: LockId, shown: Fence, now: SystemTime) -> Result<u64, Refused> {
        if let Some(number) = self.ids.get(&id)
            && let Some(entry) = self.entries.get(number)
        {
            let why = match entry.lock.grant {
                Some(grant) if grant.fence == shown => return Ok(*number),
                Some(grant) if grant.fence > shown => "the lock has a newer one, by a change of its mode",
                Some(_) => "the lock never had it",
                None => "the lock is still waited for",
            };
            return Err(Refused::StaleToken { shown, why: why.to_owned() });
        }
        let gone = self.gone.get(id).ok_or(Refused::UnknownLock(id))?;
        let why = match gone.fence == shown {
            true => format!("{}; {}", gone.told(now), self.now_at(&gone.keys)),
            false => format!("the lock never had it, or a change of its mode gave a newer one; {}", gone.told(now)),
        };
        Err(Refused::StaleToken { shown, why })
    }

    pub(super) fn check(&self, key: &str, shown: Fence, now: SystemTime) -> Result<Arc<Lock>, Refused> {
        let above = self.held.writers_above(key).filter_map(|number| self.entries.get(&number));
        if let Some(entry) = above.into_iter().find(|entry| fence(&entry.lock) == shown) {
            if entry.is_over(now) {
                let why = "its lease was not renewed in time and has ended".to_owned();
                return Err(Refused::StaleToken { shown, why });
            }
            return Ok(entry.document());
        }
        let readers = self.held.overlapping(key, LockMode::Exclusive).filter_map(|number| self.entries.get(&number));
        let here = self.now_at(&[Arc::from(key)]);
        let why = match self.gone.of(shown) {
            Some(gone) => format!("{}; {here}", gone.told(now)),
            None if readers.into_iter().any(|entry| fence(&entry.lock) == shown) => {
                format!("its lock does not allow to write {key:?}; {here}")
            }
            None => format!("no lock of this token allows to write {key:?}; {here}"),
        };
        Err(Refused::StaleToken { shown, why })
    }

    /// Who holds something at these names, for people.
    fn now_at(&self, keys: &[Arc<str>]) -> String {
        let held = keys.iter().flat_map(|key| self.held.overlapping(key, LockMode::Exclusive));
        match held.filter_map(|number| self.entries.get(&number)).next() {
            Some(entry) => {
                let (lock, token) = (&entry.lock, fence(&entry.lock));
                let name = lock.resources.first().map_or("", |name| name);
                format!("{} holds {name:?} now ({}, token {token})", lock.holder, lock.mode.word())
            }
            None => "nobody holds it now".to_owned(),
        }
    }
}
