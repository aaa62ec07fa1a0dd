//! Locks.

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{
    task::{PartyView, ms, party},
    words::{Id, LockIdText, LockModeWord, Word},
};
use crate::{
    model::{Lock, LockId, LockMode, Party},
    view::time::Rfc3339,
};

/// One lock, held or waited for.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Lock)]
pub struct LockView<'a> {
    id: LockIdText,
    swarm: &'a str,
    /// The order of asking.
    number: u64,
    /// What is locked: names or paths, each with everything below it.
    #[schema(value_type = Vec<String>)]
    resources: Vec<&'a str>,
    mode: LockModeWord,
    holder: PartyView<'a>,
    asked_at: Rfc3339,
    /// What it is for, for people.
    note: Option<&'a str>,
    /// The fencing token, to be shown with every later call and wherever is written under the lock; null while it is waited for.
    fence: Option<u64>,
    /// Since when it is held.
    since: Option<Rfc3339>,
    lease_until: Option<Rfc3339>,
    lease_ms: u64,
    /// Until when it is waited for; null once it is held.
    wait_until: Option<Rfc3339>,
    /// What its holder wants of it and waits for.
    wants: Option<LockModeWord>,
    /// Who stands in the way of what waits; the first few.
    behind: Vec<InTheWayView<'a>>,
}

/// One who stands in the way.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = InTheWay)]
pub struct InTheWayView<'a> {
    lock: LockIdText,
    holder: PartyView<'a>,
    /// Whether he himself waits, and was there first.
    waits: bool,
}

/// A part of the locks of a swarm.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = LockPage)]
pub struct LockPageView {
    /// In the order of asking.
    #[schema(value_type = Vec<LockView<'static>>)]
    pub locks: Vec<Box<RawValue>>,
    /// There may be more: what to show as `after` to have them.
    pub next: Option<u64>,
}

/// A lock that was given back.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ReleasedLock)]
pub struct ReleasedView {
    /// Which.
    pub id: LockIdText,
    /// Always true.
    pub released: bool,
}

/// Shows who stands in the way.
pub fn in_the_way(lock: LockId, holder: &Party, waits: bool) -> InTheWayView<'_> {
    InTheWayView { lock: Id(lock), holder: party(holder), waits }
}

/// Shows a lock.
pub fn lock(lock: &Lock) -> LockView<'_> {
    LockView {
        id: Id(lock.id),
        swarm: lock.swarm.as_str(),
        number: lock.number,
        resources: lock.resources.iter().map(|resource| &**resource).collect(),
        mode: Word(lock.mode),
        holder: party(&lock.holder),
        asked_at: Rfc3339(lock.asked_at),
        note: lock.note.as_deref(),
        fence: lock.grant.map(|grant| grant.fence.0),
        since: lock.grant.map(|grant| Rfc3339(grant.since)),
        lease_until: lock.grant.map(|grant| Rfc3339(grant.lease_until)),
        lease_ms: ms(lock.lease),
        wait_until: lock.wait_until.map(Rfc3339),
        wants: None,
        behind: Vec::new(),
    }
}

/// Shows a lock, and what is waited for.
pub fn lock_seen<'a>(of: &'a Lock, wants: Option<LockMode>, behind: Vec<InTheWayView<'a>>) -> LockView<'a> {
    LockView { wants: wants.map(Word), behind, ..lock(of) }
}
