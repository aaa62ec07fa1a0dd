//! The tasks of all swarms, and who may work on them.
//!
//! A task that nobody holds and that has not ended stands where its dependencies and its back-off put it (`rules`); a claim is a lease with a fencing
//! token that every later call must show (`claims`). Time moves nothing by itself: [`Board::tick`] does, when [`Board::next_due`] says so.

mod claims;
pub(super) mod graph;
mod intake;
mod rules;
#[cfg(test)]
mod tests;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    ops::Bound,
    sync::Arc,
    time::SystemTime,
};

pub use claims::Asking;
pub use intake::{Dependency, NewTask};

use super::{Refused, TaskCounts};
use crate::model::{AgentId, AttemptEnd, Fence, Party, Priority, SwarmName, Task, TaskId, TaskState};

/// Tasks of a swarm that have not ended.
pub const OPEN_MAX: usize = 50_000;
/// Tasks of a swarm altogether; the oldest that have ended go first.
pub const KEPT_MAX: usize = 100_000;
/// Tasks that a task may depend on.
pub const DEPENDENCIES_MAX: usize = 20;
/// Tasks that one request may create.
pub const CREATED_MAX: usize = 1_000;
/// Tasks that one request may claim.
pub const CLAIMED_MAX: usize = 100;
/// Bytes of their payloads and of the reasons of earlier attempts, unless one alone has more: half of the longest line of the data plane.
pub const CLAIMED_BYTES_MAX: usize = 512 * 1024;
/// Tasks that one party may hold.
pub const HELD_MAX: usize = 1_000;
/// Ended claims that a task remembers.
pub const ATTEMPTS_KEPT_MAX: usize = 16;
/// Up to here it is counted how many tasks wait for one.
pub const REACH_MAX: u32 = 256;
/// Attempts of a task that may lose their holder before the task is given up: what kills everybody who takes it up must not go round for ever.
pub const LOSSES_MAX: u32 = 5;

/// The order of claiming: the most urgent, of these the one for which most others wait, of these the oldest.
type Rank = (Priority, Reverse<u32>, u64, TaskId);

#[derive(Debug)]
struct Entry {
    task: Arc<Task>,
    /// Those that name it in their `depends_on`.
    dependents: Vec<TaskId>,
    /// Its place among the ready ones.
    rank: Option<Rank>,
    /// Its place among the timers.
    due: Option<SystemTime>,
    /// Blocked for good unless somebody intervenes: one that it depends on has failed, or can't go on itself.
    stuck: bool,
}

/// What one swarm has.
#[derive(Debug, Default)]
struct Shelf {
    ready: BTreeMap<Arc<str>, BTreeSet<Rank>>,
    all: BTreeMap<u64, TaskId>,
    counts: TaskCounts,
    keys: HashMap<Arc<str>, Vec<TaskId>>,
}

/// A change of a task, in the order in which they happened.
#[derive(Debug, Clone)]
pub struct TaskNews {
    /// Where it stood; `None`: it is new.
    pub from: Option<TaskState>,
    /// The document after.
    pub task: Arc<Task>,
}

/// What has changed since the last [`Board::drain`].
#[derive(Debug, Default)]
pub struct BoardChanges {
    /// Documents to be written, each once, as they are now.
    pub put: Vec<Arc<Task>>,
    /// Documents to be removed.
    pub removed: Vec<TaskId>,
    /// What happened.
    pub news: Vec<TaskNews>,
    /// Swarms in which a task has become ready.
    pub ready: BTreeSet<SwarmName>,
}

/// The tasks of all swarms.
#[derive(Debug, Default)]
pub struct Board {
    entries: HashMap<TaskId, Entry>,
    shelves: HashMap<SwarmName, Shelf>,
    held: HashMap<Party, BTreeSet<TaskId>>,
    /// What the last incarnation that lost something held when it ended.
    bequests: HashMap<AgentId, (u64, Vec<(TaskId, Fence)>)>,
    /// Since when holders are paused.
    paused: HashMap<Party, SystemTime>,
    timers: BTreeSet<(SystemTime, TaskId)>,
    dirty: BTreeSet<TaskId>,
    removed: Vec<TaskId>,
    news: Vec<TaskNews>,
    ready: BTreeSet<SwarmName>,
}

impl Board {
    /// The board as it was written down. Leases run anew from now, because nobody could renew them while no daemon ran; the time of an attempt goes on.
    pub fn restore(tasks: Vec<Task>, now: SystemTime) -> Self {
        let mut board = Self::default();
        let mut tasks = tasks;
        tasks.sort_by_key(|task| task.number);
        let ids: Vec<TaskId> = tasks.iter().map(|task| task.id).collect();
        for mut task in tasks {
            if let Some(claim) = &mut task.claim {
                claim.lease_until = now + claim.lease;
            }
            board.enter(task);
        }
        for id in &ids {
            board.link(*id);
        }
        for id in &ids {
            board.settle(*id, now);
        }
        for id in ids {
            board.remember_bequest(id);
        }
        board.drain();
        board
    }

    /// Takes a task into all tables save those that hang on others.
    fn enter(&mut self, task: Task) {
        let id = task.id;
        let shelf = self.shelves.entry(task.swarm.clone()).or_default();
        shelf.all.insert(task.number, id);
        shelf.counts.add(task.state);
        if let Some(key) = &task.key {
            shelf.keys.entry(Arc::clone(key)).or_default().push(id);
        }
        if let Some(claim) = &task.claim {
            self.held.entry(claim.holder.clone()).or_default().insert(id);
        }
        let entry = Entry { task: Arc::new(task), dependents: Vec::new(), rank: None, due: None, stuck: false };
        self.entries.insert(id, entry);
    }

    /// Tells those that a task depends on that it does.
    fn link(&mut self, id: TaskId) {
        let Some(entry) = self.entries.get(&id) else { return };
        for dependency in Arc::clone(&entry.task).depends_on.iter() {
            if let Some(other) = self.entries.get_mut(dependency) {
                other.dependents.push(id);
            }
        }
    }

    /// A task whose last claim ended with its holder's incarnation is that agent's successor's to hear of.
    fn remember_bequest(&mut self, id: TaskId) {
        let Some(entry) = self.entries.get(&id) else { return };
        let lost = entry.task.attempts.iter().filter(|attempt| attempt.end == AttemptEnd::HolderEnded);
        let lost: Vec<_> = lost.map(|attempt| (attempt.holder.clone(), attempt.fence)).collect();
        for (holder, fence) in lost {
            self.bequeath(&holder, id, fence);
        }
    }

    fn bequeath(&mut self, holder: &Party, id: TaskId, fence: Fence) {
        let Some(incarnation) = holder.incarnation else { return };
        let (last, tasks) = self.bequests.entry(holder.id.clone()).or_default();
        if *last < incarnation {
            *last = incarnation;
            tasks.clear();
        }
        if *last == incarnation {
            tasks.push((id, fence));
        }
    }

    /// One task of a swarm.
    ///
    /// # Errors
    /// `UnknownTask`.
    pub fn get(&self, swarm: &SwarmName, id: TaskId) -> Result<Arc<Task>, Refused> {
        let entry = self.entries.get(&id).filter(|entry| entry.task.swarm == *swarm);
        entry.map(|entry| Arc::clone(&entry.task)).ok_or(Refused::UnknownTask(id))
    }

    /// The tasks of a swarm behind a number, the oldest first.
    pub fn list(&self, swarm: &SwarmName, after: u64) -> impl Iterator<Item = &Arc<Task>> {
        let all = self.shelves.get(swarm).map(|shelf| shelf.all.range((Bound::Excluded(after), Bound::Unbounded)));
        all.into_iter().flatten().filter_map(|(_, id)| self.entries.get(id)).map(|entry| &entry.task)
    }

    /// How many tasks of each swarm are in which state.
    pub fn totals(&self) -> impl Iterator<Item = (&SwarmName, TaskCounts)> {
        self.shelves.iter().map(|(swarm, shelf)| (swarm, shelf.counts))
    }

    /// Who holds anything.
    pub fn holders(&self) -> impl Iterator<Item = &Party> {
        self.held.keys()
    }

    /// What a party holds, by id.
    pub fn held_by(&self, party: &Party) -> impl Iterator<Item = &Arc<Task>> {
        let held = self.held.get(party);
        held.into_iter().flatten().filter_map(|id| self.entries.get(id)).map(|entry| &entry.task)
    }

    /// What the last incarnation of this agent that ended with work in hand held then, with its token: the task shows what has become of it.
    pub fn bequest(&self, agent: &AgentId) -> Vec<(Fence, Arc<Task>)> {
        let Some((_, tasks)) = self.bequests.get(agent) else { return Vec::new() };
        let known = tasks.iter().filter_map(|(id, fence)| Some((*fence, Arc::clone(&self.entries.get(id)?.task))));
        known.collect()
    }

    /// Those that wait for a task directly, by age.
    pub fn dependents(&self, id: TaskId) -> &[TaskId] {
        self.entries.get(&id).map_or(&[], |entry| &entry.dependents)
    }

    /// Whether a task can't go on unless somebody intervenes: one that it depends on has failed, was cancelled, or can't go on itself.
    pub fn is_stuck(&self, id: TaskId) -> bool {
        self.entries.get(&id).is_some_and(|entry| entry.stuck)
    }

    /// The time at which [`tick`](Self::tick) has something to do.
    pub fn next_due(&self) -> Option<SystemTime> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Swarms for which something is kept.
    pub fn swarms(&self) -> impl Iterator<Item = &SwarmName> {
        self.shelves.keys()
    }

    /// The greatest number or token in any document.
    pub fn greatest(&self) -> u64 {
        let of = |task: &Task| {
            let attempts = task.attempts.iter().map(|attempt| attempt.fence.0).max().unwrap_or(0);
            task.number.max(attempts).max(task.claim.as_ref().map_or(0, |claim| claim.fence.0))
        };
        self.entries.values().map(|entry| of(&entry.task)).max().unwrap_or(0)
    }

    /// What has changed since the last call: to be written before anybody hears of it.
    pub fn drain(&mut self) -> BoardChanges {
        let dirty = std::mem::take(&mut self.dirty);
        BoardChanges {
            put: dirty.iter().filter_map(|id| self.entries.get(id)).map(|entry| Arc::clone(&entry.task)).collect(),
            removed: std::mem::take(&mut self.removed),
            news: std::mem::take(&mut self.news),
            ready: std::mem::take(&mut self.ready),
        }
    }

    /// Forgets tasks that ended before then, unless one that has not ended depends on them, and the oldest ended ones of swarms that have too many.
    pub fn forget(&mut self, before: SystemTime) {
        let mut gone = HashSet::new();
        for shelf in self.shelves.values() {
            let mut surplus = shelf.all.len().saturating_sub(KEPT_MAX);
            for id in shelf.all.values() {
                let Some(entry) = self.entries.get(id) else { continue };
                let needed = |id: &TaskId| self.entries.get(id).is_some_and(|other| !other.task.state.ended());
                let old = entry.task.since < before || surplus > 0;
                if entry.task.state.ended() && old && !entry.dependents.iter().any(needed) {
                    surplus = surplus.saturating_sub(1);
                    gone.insert(*id);
                }
            }
        }
        for id in gone {
            self.remove(id);
        }
    }

    /// Forgets a swarm with everything in it.
    pub fn forget_swarm(&mut self, swarm: &SwarmName) {
        let ids: Vec<TaskId> =
            self.shelves.get(swarm).into_iter().flat_map(|shelf| shelf.all.values().copied()).collect();
        for id in ids {
            self.remove(id);
        }
        self.shelves.remove(swarm);
        self.bequests.retain(|agent, _| agent.swarm != *swarm);
    }

    fn remove(&mut self, id: TaskId) {
        let Some(entry) = self.entries.remove(&id) else { return };
        let task = entry.task;
        if let Some(due) = entry.due {
            self.timers.remove(&(due, id));
        }
        if let Some(claim) = &task.claim {
            self.let_go(&claim.holder, id);
        }
        if let Some(shelf) = self.shelves.get_mut(&task.swarm) {
            shelf.all.remove(&task.number);
            shelf.counts.remove(task.state);
            if let (Some(rank), Some(ranks)) = (entry.rank, shelf.ready.get_mut(&task.spec.category)) {
                ranks.remove(&rank);
            }
            if let Some(key) = &task.key {
                shelf.keys.remove(key);
            }
        }
        for dependency in &task.depends_on {
            if let Some(other) = self.entries.get_mut(dependency) {
                other.dependents.retain(|dependent| *dependent != id);
            }
        }
        self.dirty.remove(&id);
        self.removed.push(id);
    }

    fn let_go(&mut self, holder: &Party, id: TaskId) {
        if let Some(held) = self.held.get_mut(holder) {
            held.remove(&id);
            if held.is_empty() {
                self.held.remove(holder);
            }
        }
    }
}
