//! How rights are given to those who wait, and how waits end.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    hall::{Hall, Own, Turn, Wait, after},
    told::LockNews,
};
use crate::{
    coordination::Refused,
    model::{Grant, Lock, LockId, LockMode, Party},
};

impl Hall {
    /// Gives what is waited for. A right that is given has a token of its own.
    pub(super) fn grant(&mut self, number: u64, turn: &mut Turn) -> Option<Arc<Lock>> {
        let wait = self.take_wait(number, turn)?;
        let entry = self.entries.get_mut(&wait.entry)?;
        let from = entry.lock.mode;
        let lease_until = after(turn.now, entry.lock.lease);
        let own = self.parties.entry(entry.lock.holder.clone()).or_default();
        match entry.lock.grant {
            Some(_) => {
                self.held.remove(&entry.keys, from, wait.entry);
                turn.due.remove(entry.due, wait.entry);
            }
            None => {
                own.held.insert(wait.entry);
                self.held_len += 1;
            }
        }
        self.held.insert(&entry.keys, wait.mode, wait.entry);
        let held_before = entry.lock.grant.is_some();
        let lock = Arc::make_mut(&mut entry.lock);
        lock.mode = wait.mode;
        lock.wait_until = None;
        lock.grant = Some(Grant { fence: turn.counter.fence(), since: turn.now, lease_until });
        entry.lease_until = lease_until;
        entry.due = lease_until;
        entry.still = self.paused.contains(&entry.lock.holder).then_some(entry.lock.lease);
        turn.due.add(lease_until, wait.entry, &entry.lock.swarm);
        turn.changes.put(&entry.lock);
        turn.changes.news(match held_before {
            true => LockNews::Changed { lock: entry.lock.clone(), from },
            false => LockNews::Granted(entry.lock.clone()),
        });
        Some(entry.lock.clone())
    }

    /// Lets a lock allow less, which may let others in.
    pub(super) fn weaken(
        &mut self,
        id: LockId,
        number: u64,
        mode: LockMode,
        turn: &mut Turn,
    ) -> Result<Arc<Lock>, Refused> {
        let entry = self.entries.get_mut(&number).ok_or(Refused::UnknownLock(id))?;
        let from = entry.lock.mode;
        if from == mode {
            return Ok(entry.lock.clone());
        }
        self.held.remove(&entry.keys, from, number);
        self.held.insert(&entry.keys, mode, number);
        let lease_until = entry.lease_until;
        let lock = Arc::make_mut(&mut entry.lock);
        lock.mode = mode;
        lock.grant = lock.grant.map(|grant| Grant { lease_until, ..grant });
        let lock = entry.lock.clone();
        turn.changes.put(&lock);
        turn.changes.news(LockNews::Changed { lock: lock.clone(), from });
        let keys = entry.keys.clone();
        self.settle(&keys, turn);
        self.break_circles(&lock.holder, turn);
        Ok(lock)
    }

    /// After something has gone from these names: gives what can be given now, in the order of asking, changes first.
    pub(super) fn settle(&mut self, keys: &[Arc<str>], turn: &mut Turn) {
        let here = keys.iter().flat_map(|key| self.waiting.overlapping(key, LockMode::Exclusive));
        let next = here.filter_map(|number| self.turn_of(number)).collect();
        self.give(next, turn);
    }

    /// By what this party holds now it may go before others whom it had to let go first until now.
    pub(super) fn go_on(&mut self, party: &Party, turn: &mut Turn) {
        let own = self.parties.get(party).into_iter().flat_map(|own| &own.waits);
        let next = own.filter_map(|number| self.turn_of(*number)).collect();
        self.give(next, turn);
    }

    /// Gives to these whatever can be given.
    fn give(&mut self, mut next: BTreeSet<(bool, u64)>, turn: &mut Turn) {
        while let Some((_, number)) = next.pop_first() {
            if self.want(number).is_none_or(|want| self.in_the_way(want).next().is_some()) {
                continue;
            }
            let Some(lock) = self.grant(number, turn) else { continue };
            turn.changes.granted(&lock);
            let own = self.parties.get(&lock.holder).into_iter().flat_map(|own| &own.waits);
            next.extend(own.filter_map(|number| self.turn_of(*number)));
        }
    }

    /// Orders those who wait.
    fn turn_of(&self, number: u64) -> Option<(bool, u64)> {
        self.want(number).map(|want| (!want.is_change(), number))
    }

    /// As long as a circle goes through this party, its youngest attempt loses.
    pub(super) fn break_circles(&mut self, party: &Party, turn: &mut Turn) {
        while let Some(circle) = self.circle(party, None) {
            self.refuse(circle.youngest, Some(Refused::Deadlock(circle.parties)), turn);
        }
    }

    /// Ends a wait in vain; `None`: nobody is there any more who could be told.
    pub(super) fn refuse(&mut self, number: u64, why: Option<Refused>, turn: &mut Turn) {
        let Some((lock, keys, mode)) = self.leave(number, turn) else { return };
        if let Some(why) = &why {
            turn.changes.ended(lock.id, why.clone());
        }
        turn.changes.news(LockNews::NotGiven { lock, mode, why });
        self.settle(&keys, turn);
    }

    /// Takes somebody out of the queue; an attempt ends with that, a lock whose change waited goes on.
    pub(super) fn leave(&mut self, number: u64, turn: &mut Turn) -> Option<(Arc<Lock>, Vec<Arc<str>>, LockMode)> {
        let wait = self.take_wait(number, turn)?;
        if wait.entry == number {
            let entry = self.entries.remove(&number)?;
            self.ids.remove(&entry.lock.id);
            return Some((entry.lock, entry.keys, wait.mode));
        }
        let entry = self.entries.get(&wait.entry)?;
        Some((entry.lock.clone(), entry.keys.clone(), wait.mode))
    }

    fn take_wait(&mut self, number: u64, turn: &mut Turn) -> Option<Wait> {
        let wait = self.waits.remove(&number)?;
        turn.due.remove(wait.until, number);
        let entry = self.entries.get_mut(&wait.entry)?;
        entry.wait = None;
        self.waiting.remove(&entry.keys, wait.mode, number);
        let holder = entry.lock.holder.clone();
        self.disown(&holder, |own| own.waits.remove(&number));
        Some(wait)
    }

    pub(super) fn disown(&mut self, party: &Party, take: impl FnOnce(&mut Own) -> bool) {
        let Some(own) = self.parties.get_mut(party) else { return };
        take(own);
        if own.held.is_empty() && own.waits.is_empty() {
            self.parties.remove(party);
        }
    }
}
