//! How long rights last: leases, their renewal, and every way in which a lock ends.

use std::{sync::Arc, time::SystemTime};

use super::{
    Due,
    gone::Gone,
    hall::{Entry, Hall, Turn, after, fence},
    told::{LockEnd, LockNews},
};
use crate::{
    coordination::Refused,
    model::{Fence, Grant, Lock, LockId, Party},
};

impl Hall {
    /// A lock that a former daemon has granted.
    pub(super) fn put_back(&mut self, mut lock: Lock, now: SystemTime, due: &mut Due) {
        let (Some(grant), Ok(keys)) = (lock.grant.as_mut(), super::paths::keys(&lock.resources)) else { return };
        grant.lease_until = after(now, lock.lease);
        let (number, lease_until) = (lock.number, grant.lease_until);
        due.add(lease_until, number, &lock.swarm);
        self.held.insert(&keys, lock.mode, number);
        self.parties.entry(lock.holder.clone()).or_default().held.insert(number);
        self.ids.insert(lock.id, number);
        self.held_len += 1;
        let entry = Entry { lock: Arc::new(lock), keys, lease_until, due: lease_until, still: None, wait: None };
        self.entries.insert(number, entry);
    }

    /// Ends a lock that is held, and the change of it that waits.
    fn end(&mut self, number: u64, end: LockEnd, turn: &mut Turn) {
        let Some(entry) = self.take_held(number, end, turn) else { return };
        self.settle(&entry.keys, turn);
        self.break_circles(&entry.lock.holder, turn);
    }

    fn take_held(&mut self, number: u64, end: LockEnd, turn: &mut Turn) -> Option<Entry> {
        if let Some(wait) = self.entries.get(&number)?.wait {
            let (lock, _, mode) = self.leave(wait, turn)?;
            let gone = Gone { fence: fence(&lock), keys: Vec::new(), end, at: turn.now };
            let why = Refused::StaleToken { shown: gone.fence, why: gone.told(turn.now) };
            turn.changes.ended(lock.id, why.clone());
            turn.changes.news(LockNews::NotGiven { lock, mode, why: Some(why) });
        }
        let entry = self.entries.remove(&number)?;
        let fence = fence(&entry.lock);
        turn.due.remove(entry.due, number);
        self.ids.remove(&entry.lock.id);
        self.held_len -= 1;
        self.held.remove(&entry.keys, entry.lock.mode, number);
        self.disown(&entry.lock.holder, |own| own.held.remove(&number));
        let gone = Gone { fence, keys: entry.keys.clone(), end, at: turn.now };
        let (id, now) = (entry.lock.id, turn.now);
        turn.changes.removed(id, || Refused::StaleToken { shown: fence, why: gone.told(now) });
        self.gone.add(id, gone);
        turn.changes.news(LockNews::Ended { lock: entry.lock.clone(), end });
        Some(entry)
    }

    pub(super) fn renew(&mut self, id: LockId, fence: Fence, now: SystemTime) -> Result<Arc<Lock>, Refused> {
        let number = self.shown(id, fence, now)?;
        let entry = self.entries.get_mut(&number).ok_or(Refused::UnknownLock(id))?;
        entry.renew(now);
        Ok(entry.document())
    }

    pub(super) fn release(&mut self, id: LockId, fence: Fence, turn: &mut Turn) -> Result<(), Refused> {
        if self.gone.get(id).is_some_and(|gone| gone.fence == fence && gone.end == LockEnd::Released) {
            return Ok(());
        }
        let number = self.shown(id, fence, turn.now)?;
        self.end(number, LockEnd::Released, turn);
        Ok(())
    }

    pub(super) fn give_up(&mut self, id: LockId, turn: &mut Turn) -> bool {
        let Some(wait) = self.ids.get(&id).and_then(|number| self.entries.get(number)?.wait) else { return false };
        self.refuse(wait, None, turn);
        true
    }

    pub(super) fn holder_ended(&mut self, holder: &Party, turn: &mut Turn) {
        let first = Party { id: holder.id.clone(), incarnation: holder.incarnation.map(|_| 0) };
        let dead: Vec<Party> = self.parties.range(first..=holder.clone()).map(|(party, _)| party.clone()).collect();
        self.paused.retain(|party| party.id != holder.id || party.incarnation > holder.incarnation);
        for party in dead {
            // All go before anybody comes: he is not to be given by his one end what he holds by another.
            let Some(own) = self.parties.get(&party) else { continue };
            let (waits, held) = (own.waits.clone(), own.held.clone());
            let mut left = Vec::new();
            for number in waits {
                let Some((lock, keys, mode)) = self.leave(number, turn) else { continue };
                let why = Refused::UnknownLock(lock.id);
                turn.changes.ended(lock.id, why.clone());
                turn.changes.news(LockNews::NotGiven { lock, mode, why: Some(why) });
                left.push(keys);
            }
            for number in held {
                let Some(entry) = self.take_held(number, LockEnd::HolderEnded, turn) else { continue };
                left.push(entry.keys);
            }
            for keys in left {
                self.settle(&keys, turn);
            }
        }
    }

    pub(super) fn close(&mut self, turn: &mut Turn) {
        let waits: Vec<u64> = self.waits.keys().copied().collect();
        for number in waits {
            let Some((lock, _, mode)) = self.leave(number, turn) else { continue };
            let why = Refused::UnknownLock(lock.id);
            turn.changes.ended(lock.id, why.clone());
            turn.changes.news(LockNews::NotGiven { lock, mode, why: Some(why) });
        }
        let held: Vec<u64> = self.entries.keys().copied().collect();
        for number in held {
            self.take_held(number, LockEnd::SwarmRemoved, turn);
        }
    }

    pub(super) fn heartbeat(&mut self, holder: &Party, now: SystemTime) {
        for number in self.parties.get(holder).into_iter().flat_map(|own| &own.held) {
            if let Some(entry) = self.entries.get_mut(number) {
                entry.renew(now);
            }
        }
    }

    pub(super) fn renew_all(&mut self, now: SystemTime) {
        self.entries.values_mut().for_each(|entry| entry.renew(now));
    }

    pub(super) fn pause(&mut self, holder: &Party, now: SystemTime) {
        if !self.paused.insert(holder.clone()) {
            return;
        }
        for number in self.parties.get(holder).into_iter().flat_map(|own| &own.held) {
            if let Some(entry) = self.entries.get_mut(number) {
                entry.still = Some(entry.lease_until.duration_since(now).unwrap_or_default());
            }
        }
    }

    pub(super) fn resume(&mut self, holder: &Party, now: SystemTime, due: &mut Due) {
        if !self.paused.remove(holder) {
            return;
        }
        for number in self.parties.get(holder).into_iter().flat_map(|own| &own.held) {
            if let Some(entry) = self.entries.get_mut(number)
                && let Some(left) = entry.still.take()
            {
                entry.lease_until = after(now, left);
                due.remove(entry.due, *number);
                entry.due = entry.lease_until;
                due.add(entry.due, *number, &entry.lock.swarm);
            }
        }
    }

    /// Something is due: a wait, or the lease of a lock.
    pub(super) fn due(&mut self, number: u64, turn: &mut Turn) {
        if let Some(wait) = self.waits.get(&number) {
            let waited_ms = turn.now.duration_since(wait.since).unwrap_or_default().as_millis();
            let held_by = self.want(number).map(|want| self.held_by(want)).unwrap_or_default();
            let waited_ms = u64::try_from(waited_ms).unwrap_or(u64::MAX);
            return self.refuse(number, Some(Refused::TimedOut { waited_ms, held_by }), turn);
        }
        let Some(entry) = self.entries.get_mut(&number) else { return };
        if entry.still.is_some() {
            // Whoever resumes it says when it is due.
            return;
        }
        // A renewal has left this time behind. Even where the lease is over by now, what was due in between comes first.
        if entry.lease_until > entry.due {
            entry.due = entry.lease_until;
            turn.due.add(entry.due, number, &entry.lock.swarm);
            return;
        }
        self.end(number, LockEnd::LeaseExpired, turn);
    }
}

impl Entry {
    fn renew(&mut self, now: SystemTime) {
        self.lease_until = after(now, self.lock.lease);
        self.still = self.still.map(|_| self.lock.lease);
    }

    /// Whether the lease has ended, even if nobody has noticed it yet.
    pub(super) fn is_over(&self, now: SystemTime) -> bool {
        self.still.is_none() && self.lease_until <= now
    }

    /// The document as it is now.
    pub(super) fn document(&self) -> Arc<Lock> {
        match self.lock.grant {
            Some(grant) if grant.lease_until != self.lease_until => {
                let mut lock = Lock::clone(&self.lock);
                lock.grant = Some(Grant { lease_until: self.lease_until, ..grant });
                Arc::new(lock)
            }
            _ => self.lock.clone(),
        }
    }
}
