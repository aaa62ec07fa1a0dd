//! Who may touch what: locks on names and paths, held under leases, waited for in order.
//!
//! - An attempt gets all its names at once or none. Names are paths (`paths`).
//! - `read` stands beside `read`. `write` wants every other party gone and never minds its own. `exclusive` minds the other locks of its own party, too.
//! - Nobody overtakes an earlier attempt that conflicts with his own, so that readers who come and go never starve a writer. Two may go first, because the
//!   other waits for them as it is: who already holds a lock in that attempt's way, and who changes the mode of a lock that he holds.
//! - A lock ends when it is released, when its lease was not renewed, or when its holder has ended. Each right has a fencing token of its own; a change to more
//!   gives a new one, a change to less keeps it.
//! - Whoever begins to wait must not close a circle of parties that wait for each other. A party that waits is taken to give nothing back meanwhile, so its
//!   locks and attempts are one; only for itself it may wait, for then it does several things at once. The youngest attempt of a circle is refused. A
//!   circle may also close later, when somebody gives a lock back and so loses the right to go first; then the youngest is told by `drain`.
//! - Leases are not written down with each renewal: the next daemon lets all of them run anew. Attempts that wait are not written down at all, because whoever
//!   waited has lost his connection.

mod circles;
mod gone;
mod hall;
mod leases;
mod paths;
mod rights;
mod told;
mod views;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, SystemTime},
};

use hall::{Hall, Turn};
pub use hall::{LOCKS_MAX, WAITING_MAX};
pub use paths::{RESOURCE_LEN_MAX, RESOURCES_MAX};
pub use told::{Blocker, LockChanges, LockEnd, LockFilter, LockNews, LockView};

use super::{Counter, LockCounts, Refused};
use crate::model::{Fence, Lock, LockId, LockMode, Party, SwarmName};

/// The longest lease: a day. Whoever holds something for longer renews it in between.
pub const LEASE_MAX: Duration = Duration::from_secs(24 * 3600);

/// The longest wait: an hour, after which a forgotten attempt no longer holds up those behind it.
pub const WAIT_MAX: Duration = Duration::from_secs(3600);

/// Bytes of a note: a few lines for people.
pub const NOTE_LEN_MAX: usize = 1024;

/// What is asked for, in the swarm of its holder.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Minted by whoever drives this.
    pub id: LockId,
    /// What is to be locked.
    pub resources: Vec<Arc<str>>,
    /// How.
    pub mode: LockMode,
    /// For whom.
    pub holder: Party,
    /// How long the right lasts unless it is renewed.
    pub lease: Duration,
    /// How long to wait for it; zero: now or not at all.
    pub wait: Duration,
    /// What for, for people.
    pub note: Option<Arc<str>>,
}

/// Another mode for a lock that is held.
#[derive(Debug, Clone, Copy)]
pub struct Change {
    /// Which lock.
    pub id: LockId,
    /// Its token.
    pub fence: Fence,
    /// What it is to allow.
    pub mode: LockMode,
    /// How long to wait where that is more than it allows now.
    pub wait: Duration,
}

/// The answer to whoever asked.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub enum Asked {
    /// It is held now.
    Granted(Arc<Lock>),
    /// It is waited for; `drain` will tell of its grant or its end, under the lock's id.
    Waiting(Arc<Lock>),
}

/// All locks of all swarms.
#[derive(Debug, Default)]
pub struct Locks {
    halls: HashMap<SwarmName, Hall>,
    due: Due,
    changes: told::Changes,
}

/// When what has to be looked at again: never later than it is due, at times earlier, because a renewal moves nothing here.
#[derive(Debug, Default)]
struct Due(BTreeMap<(SystemTime, u64), SwarmName>);

impl Due {
    fn add(&mut self, at: SystemTime, number: u64, swarm: &SwarmName) {
        self.0.insert((at, number), swarm.clone());
    }

    fn remove(&mut self, at: SystemTime, number: u64) {
        self.0.remove(&(at, number));
    }
}

impl Locks {
    /// How many locks of each swarm are held and waited for.
    pub fn totals(&self) -> impl Iterator<Item = (&SwarmName, LockCounts)> {
        let of = |hall: &Hall| LockCounts { held: hall.held_len, waiting: hall.waits.len() };
        self.halls.iter().map(move |(swarm, hall)| (swarm, of(hall)))
    }

    /// The locks that a former daemon has written down. Every lease runs anew from now.
    pub fn restore(locks: impl IntoIterator<Item = Lock>, now: SystemTime) -> Self {
        let mut all = Self::default();
        for lock in locks {
            let swarm = lock.swarm.clone();
            all.halls.entry(swarm).or_default().put_back(lock, now, &mut all.due);
        }
        all
    }

    /// Asks for a lock.
    ///
    /// # Errors
    /// `Invalid`, `Full`; `TimedOut` where it can't be given and no wait was asked for; `Deadlock` where it would wait for ever.
    pub fn ask(&mut self, counter: &mut Counter, ask: Ask, now: SystemTime) -> Result<Asked, Refused> {
        let keys = paths::keys(&ask.resources)?;
        within("lease_ms", ask.lease, Duration::from_millis(1), LEASE_MAX)?;
        within("wait_ms", ask.wait, Duration::ZERO, WAIT_MAX)?;
        if let Some(note) = ask.note.as_ref().filter(|note| note.len() > NOTE_LEN_MAX) {
            return Err(Refused::Invalid {
                key: "note".to_owned(),
                found: format!("{} bytes", note.len()),
                allowed: format!("at most {NOTE_LEN_MAX} bytes"),
            });
        }
        let swarm = ask.holder.id.swarm.clone();
        let mut turn = Turn { counter, now, due: &mut self.due, changes: &mut self.changes };
        let hall = self.halls.entry(swarm.clone()).or_default();
        let asked = hall.ask(ask, keys, &mut turn);
        if hall.is_empty() {
            self.halls.remove(&swarm);
        }
        asked
    }

    /// Lets a held lock allow more or less. More goes before everybody who waits, and gives a new token; less is given at once.
    ///
    /// # Errors
    /// `UnknownLock`, `StaleToken`, `Invalid` while another change of this lock waits; `TimedOut` and `Deadlock` as for `ask`. The lock stays as it was.
    pub fn change(
        &mut self,
        counter: &mut Counter,
        swarm: &SwarmName,
        change: Change,
        now: SystemTime,
    ) -> Result<Asked, Refused> {
        within("wait_ms", change.wait, Duration::ZERO, WAIT_MAX)?;
        let (hall, mut turn) = self.turn(counter, swarm, now).ok_or(Refused::UnknownLock(change.id))?;
        hall.change(change, &mut turn)
    }

    /// Lets the lease run anew from now. Late is better than never: as long as `tick` has not ended it, nobody else has got it.
    ///
    /// # Errors
    /// `UnknownLock`, `StaleToken`.
    pub fn renew(
        &mut self,
        swarm: &SwarmName,
        id: LockId,
        fence: Fence,
        now: SystemTime,
    ) -> Result<Arc<Lock>, Refused> {
        self.halls.get_mut(swarm).ok_or(Refused::UnknownLock(id))?.renew(id, fence, now)
    }

    /// Gives a lock back. Once more with the same token is as good as once.
    ///
    /// # Errors
    /// `UnknownLock`, `StaleToken`.
    pub fn release(
        &mut self,
        counter: &mut Counter,
        swarm: &SwarmName,
        id: LockId,
        fence: Fence,
        now: SystemTime,
    ) -> Result<(), Refused> {
        let (hall, mut turn) = self.turn(counter, swarm, now).ok_or(Refused::UnknownLock(id))?;
        hall.release(id, fence, &mut turn)
    }

    /// Nobody waits for this answer any more: ends the attempt, or the change that waits, and tells nobody. A lock that is held stays held. Says whether
    /// anything waited; if not, it was granted or refused before, and a grant that nobody has heard of is to be released.
    pub fn give_up(&mut self, counter: &mut Counter, swarm: &SwarmName, id: LockId, now: SystemTime) -> bool {
        self.turn(counter, swarm, now).is_some_and(|(hall, mut turn)| hall.give_up(id, &mut turn))
    }

    /// This holder is dead, and with him every earlier incarnation of the agent: all their locks and attempts end at once.
    pub fn holder_ended(&mut self, counter: &mut Counter, holder: &Party, now: SystemTime) {
        if let Some((hall, mut turn)) = self.turn(counter, &holder.id.swarm, now) {
            hall.holder_ended(holder, &mut turn);
        }
    }

    /// The swarm is removed, and everything of it.
    pub fn swarm_removed(&mut self, counter: &mut Counter, swarm: &SwarmName, now: SystemTime) {
        if let Some((hall, mut turn)) = self.turn(counter, swarm, now) {
            hall.close(&mut turn);
        }
        self.halls.remove(swarm);
    }

    /// This holder can't renew for now, and nobody expects him to: his leases stand still, also those of what he is given meanwhile.
    pub fn paused(&mut self, holder: &Party, now: SystemTime) {
        self.halls.entry(holder.id.swarm.clone()).or_default().pause(holder, now);
    }

    /// His leases go on where they stood.
    pub fn resumed(&mut self, holder: &Party, now: SystemTime) {
        if let Some(hall) = self.halls.get_mut(&holder.id.swarm) {
            hall.resume(holder, now, &mut self.due);
        }
    }

    /// A sign of life: all leases of this holder run anew.
    pub fn heartbeat(&mut self, holder: &Party, now: SystemTime) {
        if let Some(hall) = self.halls.get_mut(&holder.id.swarm) {
            hall.heartbeat(holder, now);
        }
    }

    /// All leases run anew, because nobody could renew for a while.
    pub fn renew_all(&mut self, now: SystemTime) {
        self.halls.values_mut().for_each(|hall| hall.renew_all(now));
    }

    /// Swarms for which something is kept.
    pub fn swarms(&self) -> impl Iterator<Item = &SwarmName> {
        self.halls.keys()
    }

    /// Whether whoever shows this token may write to this resource now.
    ///
    /// # Errors
    /// `Invalid` for a name that can't be; `StaleToken`, which says what became of the token, or who may write instead.
    pub fn check(
        &self,
        swarm: &SwarmName,
        resource: &Arc<str>,
        fence: Fence,
        now: SystemTime,
    ) -> Result<Arc<Lock>, Refused> {
        let key = paths::key(resource, || "resource".to_owned())?;
        match self.halls.get(swarm) {
            Some(hall) => hall.check(&key, fence, now),
            None => {
                Err(Refused::StaleToken { shown: fence, why: "this swarm has no lock with such a token".to_owned() })
            }
        }
    }

    /// When `tick` has something to do, or somewhat before.
    pub fn next_due(&self) -> Option<SystemTime> {
        self.due.0.keys().next().map(|(at, _)| *at)
    }

    /// Ends leases and waits whose time is over; nothing else does, so that a renewal that has arrived may be handed in before.
    pub fn tick(&mut self, counter: &mut Counter, now: SystemTime) {
        while let Some(first) = self.due.0.first_entry().filter(|first| first.key().0 <= now) {
            let ((_, number), swarm) = first.remove_entry();
            let mut turn = Turn { counter, now, due: &mut self.due, changes: &mut self.changes };
            if let Some(hall) = self.halls.get_mut(&swarm) {
                hall.due(number, &mut turn);
            }
        }
    }

    /// One lock of this swarm.
    pub fn get(&self, swarm: &SwarmName, id: LockId) -> Option<LockView> {
        self.halls.get(swarm)?.get(id)
    }

    /// The locks of this swarm that pass the filter, in the order of asking.
    ///
    /// # Errors
    /// `Invalid` for a name of a resource that can't be.
    pub fn list(&self, swarm: &SwarmName, filter: &LockFilter) -> Result<Vec<LockView>, Refused> {
        let key =
            filter.resource.as_ref().map(|resource| paths::key(resource, || "resource".to_owned())).transpose()?;
        Ok(self.halls.get(swarm).map_or_else(Vec::new, |hall| hall.list(key.as_deref(), filter)))
    }

    /// How many locks of this swarm are held, and how many attempts and changes wait.
    pub fn counts(&self, swarm: &SwarmName) -> (usize, usize) {
        self.halls.get(swarm).map_or((0, 0), Hall::counts)
    }

    /// Whoever holds locks or waits for them: whose heartbeats and whose end matter.
    pub fn parties(&self) -> impl Iterator<Item = &Party> {
        self.halls.values().flat_map(|hall| hall.parties.keys())
    }

    /// Whether this party holds a lock or waits for one.
    pub fn knows(&self, party: &Party) -> bool {
        self.halls.get(&party.id.swarm).is_some_and(|hall| hall.parties.contains_key(party))
    }

    /// What has changed since the last call: to be written down first, and then told.
    pub fn drain(&mut self) -> LockChanges {
        self.changes.drain()
    }

    fn turn<'a>(
        &'a mut self,
        counter: &'a mut Counter,
        swarm: &SwarmName,
        now: SystemTime,
    ) -> Option<(&'a mut Hall, Turn<'a>)> {
        let hall = self.halls.get_mut(swarm)?;
        Some((hall, Turn { counter, now, due: &mut self.due, changes: &mut self.changes }))
    }
}

fn within(key: &str, found: Duration, min: Duration, max: Duration) -> Result<(), Refused> {
    if (min..=max).contains(&found) {
        return Ok(());
    }
    Err(Refused::Invalid {
        key: key.to_owned(),
        found: format!("{} ms", found.as_millis()),
        allowed: format!("{} to {} ms", min.as_millis(), max.as_millis()),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod properties;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests;
