//! What is told of locks: to the one who asks, to the store, to those who wait, and to the feed.

use std::{collections::HashMap, mem, sync::Arc};

use crate::{
    coordination::Refused,
    model::{AgentId, Lock, LockId, LockMode, Party},
};

/// What has changed. A driver writes `put` and `removed` down before anybody hears of the rest.
#[derive(Debug, Default, PartialEq)]
#[must_use]
pub struct LockChanges {
    /// Locks that are held, as they are now.
    pub put: Vec<Arc<Lock>>,
    /// Locks that were held.
    pub removed: Vec<LockId>,
    /// What was waited for and is held now: attempts, and changes of mode, which have the id of their lock.
    pub granted: Vec<Arc<Lock>>,
    /// What was waited for in vain.
    pub ended: Vec<(LockId, Refused)>,
    /// What has happened, in order.
    pub news: Vec<LockNews>,
}

/// Something that has happened.
#[derive(Debug, Clone, PartialEq)]
pub enum LockNews {
    /// Somebody waits: for a lock, or for more than his lock allows.
    Waits {
        /// Which.
        lock: Arc<Lock>,
        /// What he wants.
        mode: LockMode,
    },
    /// A lock is held.
    Granted(Arc<Lock>),
    /// A held lock allows more or less than before.
    Changed {
        /// As it is now.
        lock: Arc<Lock>,
        /// What it allowed before.
        from: LockMode,
    },
    /// A lock is held no more.
    Ended {
        /// As it was.
        lock: Arc<Lock>,
        /// Why.
        end: LockEnd,
    },
    /// Somebody has waited in vain.
    NotGiven {
        /// For which.
        lock: Arc<Lock>,
        /// What he wanted.
        mode: LockMode,
        /// Why; `None`: he has gone himself.
        why: Option<Refused>,
    },
}

/// How a lock ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockEnd {
    /// Its holder gave it back.
    Released,
    /// The lease was not renewed in time.
    LeaseExpired,
    /// Its holder's incarnation has ended.
    HolderEnded,
    /// Its swarm was removed.
    SwarmRemoved,
}

impl LockEnd {
    /// Its name on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::LeaseExpired => "lease_expired",
            Self::HolderEnded => "holder_ended",
            Self::SwarmRemoved => "swarm_removed",
        }
    }
}

/// A lock as it stands, held or waited for.
#[derive(Debug, Clone, PartialEq)]
pub struct LockView {
    /// The lock.
    pub lock: Arc<Lock>,
    /// What its holder wants of it and waits for.
    pub wants: Option<LockMode>,
    /// Who stands in the way of what waits; the first few.
    pub behind: Vec<Blocker>,
}

/// One who stands in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocker {
    /// With which lock.
    pub lock: LockId,
    /// Who.
    pub holder: Party,
    /// Whether he himself waits, and was there first.
    pub waits: bool,
}

/// Which locks are wanted.
#[derive(Debug, Clone, Default)]
pub struct LockFilter {
    /// Only those that overlap this.
    pub resource: Option<Arc<str>>,
    /// Only those of this agent, whichever incarnation, or of this client.
    pub holder: Option<AgentId>,
    /// Only those that are held, or only those that wait for something.
    pub held: Option<bool>,
    /// Only those that were asked for after the one with this number.
    pub after: u64,
    /// At most so many.
    pub limit: usize,
}

/// What `drain` will hand over.
#[derive(Debug, Default)]
pub(super) struct Changes {
    put: HashMap<LockId, Arc<Lock>>,
    removed: Vec<LockId>,
    granted: Vec<Arc<Lock>>,
    ended: Vec<(LockId, Refused)>,
    news: Vec<LockNews>,
}

impl Changes {
    /// Is to be written.
    pub(super) fn put(&mut self, lock: &Arc<Lock>) {
        self.put.insert(lock.id, lock.clone());
    }

    /// Is no more. One who waited and was given it before that, but has not heard of it, hears of its end instead.
    pub(super) fn removed(&mut self, id: LockId, unheard: impl FnOnce() -> Refused) {
        self.put.remove(&id);
        self.removed.push(id);
        let before = self.granted.len();
        self.granted.retain(|granted| granted.id != id);
        if self.granted.len() < before {
            self.ended.push((id, unheard()));
        }
    }

    /// Whoever waited for it is told.
    pub(super) fn granted(&mut self, lock: &Arc<Lock>) {
        self.granted.push(lock.clone());
    }

    /// Whoever waited for it is told.
    pub(super) fn ended(&mut self, id: LockId, why: Refused) {
        self.ended.push((id, why));
    }

    pub(super) fn news(&mut self, news: LockNews) {
        self.news.push(news);
    }

    pub(super) fn drain(&mut self) -> LockChanges {
        let mut put: Vec<_> = mem::take(&mut self.put).into_values().collect();
        put.sort_unstable_by_key(|lock| lock.number);
        LockChanges {
            put,
            removed: mem::take(&mut self.removed),
            granted: mem::take(&mut self.granted),
            ended: mem::take(&mut self.ended),
            news: mem::take(&mut self.news),
        }
    }
}
