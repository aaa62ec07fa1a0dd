//! The locks of one swarm: who holds, who waits, and who is next.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    Ask, Asked, Change, Due,
    gone::Graves,
    paths::Names,
    told::{Changes, LockNews},
};
use crate::{
    coordination::{Counter, Refused},
    model::{Fence, Lock, LockId, LockMode, Party},
};

/// Locks of a swarm that are held: a hundred for each of a hundred agents.
pub const LOCKS_MAX: usize = 10_000;

/// Attempts and changes of a swarm that wait. Those who wait are given theirs even beyond the bound of those who hold.
pub const WAITING_MAX: usize = 10_000;

/// What one call works with.
pub(super) struct Turn<'a> {
    pub(super) counter: &'a mut Counter,
    pub(super) now: SystemTime,
    pub(super) due: &'a mut Due,
    pub(super) changes: &'a mut Changes,
}

/// A lock, held or waited for; known by its number.
#[derive(Debug)]
pub(super) struct Entry {
    /// As it was granted: `lease_until` here goes ahead of the one in there.
    pub(super) lock: Arc<Lock>,
    pub(super) keys: Vec<Arc<str>>,
    pub(super) lease_until: SystemTime,
    /// When it is looked at again, which a renewal leaves alone.
    pub(super) due: SystemTime,
    /// What is left of the lease, while it stands still.
    pub(super) still: Option<Duration>,
    /// The number of what it waits for.
    pub(super) wait: Option<u64>,
}

/// An attempt, which has the number of its lock, or a change of a lock that is held, which has a number of its own.
#[derive(Debug)]
pub(super) struct Wait {
    pub(super) entry: u64,
    pub(super) mode: LockMode,
    pub(super) since: SystemTime,
    pub(super) until: SystemTime,
}

/// What somebody wants.
#[derive(Debug, Clone, Copy)]
pub(super) struct Want<'a> {
    pub(super) number: u64,
    pub(super) entry: u64,
    pub(super) mode: LockMode,
    pub(super) party: &'a Party,
    pub(super) keys: &'a [Arc<str>],
}

/// What stands in his way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InTheWay {
    /// A lock that is held.
    Held(u64),
    /// One who waits and was there first.
    Waits(u64),
}

/// What one party has here.
#[derive(Debug, Default)]
pub(super) struct Own {
    pub(super) held: BTreeSet<u64>,
    pub(super) waits: BTreeSet<u64>,
}

/// The locks of one swarm.
#[derive(Debug, Default)]
pub(super) struct Hall {
    pub(super) entries: BTreeMap<u64, Entry>,
    pub(super) ids: HashMap<LockId, u64>,
    pub(super) waits: BTreeMap<u64, Wait>,
    pub(super) held: Names,
    pub(super) waiting: Names,
    pub(super) parties: BTreeMap<Party, Own>,
    pub(super) gone: Graves,
    pub(super) paused: HashSet<Party>,
    /// How many locks are held.
    pub(super) held_len: usize,
}

/// Whether two modes on one name don't go together.
pub(super) fn conflict(a: LockMode, b: LockMode, same_party: bool) -> bool {
    match (a, b) {
        (LockMode::Read, LockMode::Read) => false,
        (LockMode::Exclusive, _) | (_, LockMode::Exclusive) => true,
        (LockMode::Read | LockMode::Write, LockMode::Read | LockMode::Write) => !same_party,
    }
}

fn strength(mode: LockMode) -> u8 {
    match mode {
        LockMode::Read => 0,
        LockMode::Write => 1,
        LockMode::Exclusive => 2,
    }
}

/// The token of a lock that is held.
pub(super) fn fence(lock: &Lock) -> Fence {
    lock.grant.map_or(Fence(0), |grant| grant.fence)
}

/// A time so far ahead that it can't be said is as good as now: nothing is held or waited for beyond what the clock can tell.
pub(super) fn after(now: SystemTime, span: Duration) -> SystemTime {
    now.checked_add(span).unwrap_or(now)
}

impl Want<'_> {
    pub(super) fn is_change(&self) -> bool {
        self.number != self.entry
    }
}

impl Hall {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.paused.is_empty() && self.gone.is_empty()
    }

    pub(super) fn counts(&self) -> (usize, usize) {
        (self.held_len, self.waits.len())
    }

    pub(super) fn ask(&mut self, ask: Ask, keys: Vec<Arc<str>>, turn: &mut Turn) -> Result<Asked, Refused> {
        if self.ids.contains_key(&ask.id) {
            return Err(Refused::Invalid {
                key: "id".to_owned(),
                found: format!("{}, which is known", ask.id),
                allowed: "a new one".to_owned(),
            });
        }
        // He comes behind everybody.
        let want = Want { number: u64::MAX, entry: u64::MAX, mode: ask.mode, party: &ask.holder, keys: &keys };
        let free = self.in_the_way(want).next().is_none();
        if !free && ask.wait.is_zero() {
            return Err(Refused::TimedOut { waited_ms: 0, held_by: self.held_by(want) });
        }
        if free && self.held_len >= LOCKS_MAX {
            return Err(Refused::Full { what: "locks of a swarm", max: LOCKS_MAX });
        }
        if !free {
            self.room_to_wait()?;
        }
        let number = turn.counter.number();
        let until = after(turn.now, ask.wait);
        let lock = Lock {
            id: ask.id,
            swarm: ask.holder.id.swarm.clone(),
            resources: ask.resources,
            mode: ask.mode,
            holder: ask.holder,
            number,
            asked_at: turn.now,
            lease: ask.lease,
            note: ask.note,
            grant: None,
            wait_until: (!free).then_some(until),
        };
        self.ids.insert(lock.id, number);
        let entry = Entry { lock: Arc::new(lock), keys, lease_until: turn.now, due: turn.now, still: None, wait: None };
        self.entries.insert(number, entry);
        self.give_or_wait(ask.id, number, Wait { entry: number, mode: ask.mode, since: turn.now, until }, free, turn)
    }

    pub(super) fn change(&mut self, change: Change, turn: &mut Turn) -> Result<Asked, Refused> {
        let number = self.shown(change.id, change.fence, turn.now)?;
        let entry = self.entries.get(&number).ok_or(Refused::UnknownLock(change.id))?;
        if entry.wait.is_some() {
            return Err(Refused::Invalid {
                key: "mode".to_owned(),
                found: "a change while another change of this lock waits".to_owned(),
                allowed: "one at a time".to_owned(),
            });
        }
        if strength(change.mode) <= strength(entry.lock.mode) {
            let lock = self.weaken(change.id, number, change.mode, turn)?;
            return Ok(Asked::Granted(lock));
        }
        // It goes before everybody who waits, so its number does not matter here.
        let want =
            Want { number: u64::MAX, entry: number, mode: change.mode, party: &entry.lock.holder, keys: &entry.keys };
        let free = self.in_the_way(want).next().is_none();
        if !free && change.wait.is_zero() {
            return Err(Refused::TimedOut { waited_ms: 0, held_by: self.held_by(want) });
        }
        if !free {
            self.room_to_wait()?;
        }
        let until = after(turn.now, change.wait);
        let wait = Wait { entry: number, mode: change.mode, since: turn.now, until };
        self.give_or_wait(change.id, turn.counter.number(), wait, free, turn)
    }

    fn room_to_wait(&self) -> Result<(), Refused> {
        match self.waits.len() < WAITING_MAX {
            true => Ok(()),
            false => Err(Refused::Full { what: "attempts of a swarm that wait", max: WAITING_MAX }),
        }
    }

    /// Puts somebody into the queue, and takes him out again at once where he is free to go.
    fn give_or_wait(
        &mut self,
        id: LockId,
        number: u64,
        wait: Wait,
        free: bool,
        turn: &mut Turn,
    ) -> Result<Asked, Refused> {
        let Wait { entry, mode, until, .. } = wait;
        let at = self.entries.get_mut(&entry).ok_or(Refused::UnknownLock(id))?;
        at.wait = Some(number);
        let lock = at.lock.clone();
        self.waiting.insert(&at.keys, mode, number);
        self.waits.insert(number, wait);
        self.parties.entry(lock.holder.clone()).or_default().waits.insert(number);
        turn.due.add(until, number, &lock.swarm);
        if free {
            let lock = self.grant(number, turn).ok_or(Refused::UnknownLock(id))?;
            self.go_on(&lock.holder, turn);
            // A change puts more in the way of those who wait, and may so close a circle.
            if number != entry {
                self.break_circles(&lock.holder, turn);
            }
            return Ok(Asked::Granted(lock));
        }
        if let Some(circle) = self.circle(&lock.holder, (number == entry).then_some(number)) {
            // Nobody in it is younger than who has just come.
            self.leave(number, turn);
            return Err(Refused::Deadlock(circle.parties));
        }
        turn.changes.news(LockNews::Waits { lock: lock.clone(), mode });
        Ok(Asked::Waiting(lock))
    }

    /// Whatever stands in somebody's way; the same may come several times.
    pub(super) fn in_the_way<'a>(&'a self, want: Want<'a>) -> impl Iterator<Item = InTheWay> + 'a {
        self.in_the_way_beside(want, |_| false)
    }

    /// The same without those that are known.
    pub(super) fn in_the_way_beside<'a>(
        &'a self,
        want: Want<'a>,
        known: impl Fn(u64) -> bool + Copy + 'a,
    ) -> impl Iterator<Item = InTheWay> + 'a {
        let held = want.keys.iter().flat_map(move |key| self.held.overlapping(key, want.mode));
        let held = held.filter(move |number| {
            !known(*number)
                && *number != want.entry
                && self
                    .entries
                    .get(number)
                    .is_some_and(|held| conflict(want.mode, held.lock.mode, held.lock.holder == *want.party))
        });
        let queue = if want.is_change() { &[] } else { want.keys };
        let waits = queue.iter().flat_map(move |key| self.waiting.overlapping(key, want.mode));
        let waits = waits.filter(move |number| {
            if known(*number) || *number == want.number {
                return false;
            }
            let Some(other) = self.want(*number) else { return false };
            (other.is_change() || *number < want.number)
                && conflict(want.mode, other.mode, other.party == want.party)
                && !self.holds_against(want.party, other)
        });
        held.map(InTheWay::Held).chain(waits.map(InTheWay::Waits))
    }

    /// Whether this party holds a lock for which that one waits.
    fn holds_against(&self, party: &Party, other: Want<'_>) -> bool {
        self.parties.get(party).is_some_and(|own| !own.held.is_empty())
            && other.keys.iter().any(|key| {
                self.held.overlapping(key, other.mode).any(|number| {
                    number != other.entry
                        && self.entries.get(&number).is_some_and(|held| {
                            held.lock.holder == *party && conflict(other.mode, held.lock.mode, other.party == party)
                        })
                })
            })
    }

    /// What one who waits wants.
    pub(super) fn want(&self, number: u64) -> Option<Want<'_>> {
        let wait = self.waits.get(&number)?;
        let entry = self.entries.get(&wait.entry)?;
        Some(Want { number, entry: wait.entry, mode: wait.mode, party: &entry.lock.holder, keys: &entry.keys })
    }
}
