//! Where a task stands when nobody holds it, and what becomes of those around it.

use std::{
    cmp::Reverse,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{Board, REACH_MAX, Rank, TaskNews, graph};
use crate::model::{OnDependencyFailure, Retry, Task, TaskId, TaskState};

/// Where a task belongs that nobody holds and that has not ended.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    state: TaskState,
    reasons: Vec<String>,
    stuck: bool,
    due: Option<SystemTime>,
}

/// The pause before the attempt that follows this many failures.
pub(super) fn pause(retry: Retry, failures: u32) -> Duration {
    let factor = 2_u32.saturating_pow(failures.saturating_sub(1));
    retry.backoff.saturating_mul(factor).min(retry.backoff_max)
}

impl Board {
    /// Changes a task's document and notes that it has changed.
    pub(super) fn change(&mut self, id: TaskId, change: impl FnOnce(&mut Task)) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let before = entry.task.state;
        change(Arc::make_mut(&mut entry.task));
        self.dirty.insert(id);
        let shelf = self.shelves.entry(entry.task.swarm.clone()).or_default();
        shelf.counts.remove(before);
        shelf.counts.add(entry.task.state);
    }

    /// Tells what has become of a task.
    pub(super) fn tell(&mut self, id: TaskId, from: Option<TaskState>) {
        if let Some(entry) = self.entries.get(&id) {
            self.news.push(TaskNews { from, task: Arc::clone(&entry.task) });
        }
    }

    /// Puts a task where it belongs, and, if that changes anything for them, those that depend on it, and so on.
    pub(super) fn settle(&mut self, id: TaskId, now: SystemTime) {
        let mut ahead = vec![id];
        while let Some(id) = ahead.pop() {
            if self.settle_one(id, now) {
                ahead.extend(self.dependents(id));
            }
        }
    }

    /// Settles all that depend on a task which has changed its state.
    pub(super) fn settle_dependents(&mut self, id: TaskId, now: SystemTime) {
        for dependent in self.dependents(id).to_vec() {
            self.settle(dependent, now);
        }
    }

    /// Whether those that depend on it see a difference.
    fn settle_one(&mut self, id: TaskId, now: SystemTime) -> bool {
        let Some(entry) = self.entries.get(&id) else { return false };
        let task = &entry.task;
        let was_stuck = entry.stuck;
        if task.state.ended() || task.claim.is_some() {
            let due = task.claim.as_ref().and_then(|claim| {
                let paused = self.paused.contains_key(&claim.holder);
                (!paused).then(|| claim.deadline.map_or(claim.lease_until, |deadline| deadline.min(claim.lease_until)))
            });
            self.shelve(id, None);
            self.set_due(id, due);
            return self.set_stuck(id, false) != was_stuck;
        }
        let place = self.place(task, now);
        let from = task.state;
        if from != place.state || task.reasons != place.reasons {
            self.change(id, |task| {
                task.reasons = place.reasons;
                if task.state != place.state {
                    task.state = place.state;
                    task.since = now;
                }
                if place.state == TaskState::Ready {
                    task.not_before = None;
                }
            });
            if from != place.state {
                self.tell(id, Some(from));
            }
        }
        let rank = (place.state == TaskState::Ready).then(|| self.rank(id)).flatten();
        self.shelve(id, rank);
        self.set_due(id, place.due);
        self.set_stuck(id, place.stuck);
        place.stuck != was_stuck
    }

    fn place(&self, task: &Task, now: SystemTime) -> Place {
        let (mut waits, mut reasons) = (0_usize, Vec::new());
        for dependency in &task.depends_on {
            // One that was forgotten had ended, and nothing that had not ended depended on it.
            let Some(other) = self.entries.get(dependency) else { continue };
            let goes_on = task.spec.on_dependency_failure == OnDependencyFailure::Continue;
            let title = &other.task.spec.title;
            match other.task.state {
                TaskState::Done => {}
                TaskState::Failed | TaskState::Cancelled if goes_on => {}
                TaskState::Failed => reasons.push(format!("dependency_failed: {dependency} ({title})")),
                TaskState::Cancelled => reasons.push(format!("dependency_cancelled: {dependency} ({title})")),
                _ if other.stuck => reasons.push(format!("dependency_blocked: {dependency} ({title})")),
                _ => waits += 1,
            }
        }
        let stuck = !reasons.is_empty();
        if waits > 0 {
            reasons.push(format!("waiting: for {waits} of {} tasks", task.depends_on.len()));
        }
        if !reasons.is_empty() {
            return Place { state: TaskState::Blocked, reasons, stuck, due: None };
        }
        match task.not_before.filter(|at| *at > now) {
            Some(at) => {
                let reasons = vec![format!("backing_off: after {} failed attempts", task.failures)];
                Place { state: TaskState::Blocked, reasons, stuck: false, due: Some(at) }
            }
            None => Place { state: TaskState::Ready, reasons, stuck: false, due: None },
        }
    }

    fn set_stuck(&mut self, id: TaskId, stuck: bool) -> bool {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.stuck = stuck;
        }
        stuck
    }

    fn set_due(&mut self, id: TaskId, due: Option<SystemTime>) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let before = std::mem::replace(&mut entry.due, due);
        if before != due {
            if let Some(before) = before {
                self.timers.remove(&(before, id));
            }
            if let Some(due) = due {
                self.timers.insert((due, id));
            }
        }
    }

    /// Puts a task at this place among the ready ones of its swarm and category, or takes it away from there.
    fn shelve(&mut self, id: TaskId, rank: Option<Rank>) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let before = std::mem::replace(&mut entry.rank, rank);
        if before == rank {
            return;
        }
        let (swarm, category) = (entry.task.swarm.clone(), Arc::clone(&entry.task.spec.category));
        let shelf = self.shelves.entry(swarm.clone()).or_default();
        let ranks = shelf.ready.entry(Arc::clone(&category)).or_default();
        if let Some(before) = before {
            ranks.remove(&before);
        }
        match rank {
            Some(rank) => {
                ranks.insert(rank);
                if before.is_none() {
                    self.ready.insert(swarm);
                }
            }
            None if ranks.is_empty() => {
                shelf.ready.remove(&category);
            }
            None => {}
        }
    }

    fn rank(&self, id: TaskId) -> Option<Rank> {
        let task = &self.entries.get(&id)?.task;
        Some((task.spec.priority, Reverse(self.unblocks(id)), task.number, id))
    }

    /// How many tasks that have not ended wait for this one, directly or through others; counted up to 256.
    pub fn unblocks(&self, id: TaskId) -> u32 {
        graph::reach(id, REACH_MAX, |id| {
            let open = |id: &TaskId| self.entries.get(id).is_some_and(|entry| !entry.task.state.ended());
            self.dependents(id).iter().copied().filter(open).collect()
        })
    }

    /// Puts the ready tasks anew for which these wait, directly or through others: more or fewer wait for them now.
    pub(super) fn weigh_before(&mut self, ids: &[TaskId]) {
        let before = graph::closure(ids, |id| {
            let open = |id: &TaskId| self.entries.get(id).is_some_and(|entry| !entry.task.state.ended());
            let entry = self.entries.get(&id);
            entry.into_iter().flat_map(|entry| &entry.task.depends_on).copied().filter(open).collect()
        });
        for id in before {
            if self.entries.get(&id).is_some_and(|entry| entry.rank.is_some()) {
                let rank = self.rank(id);
                self.shelve(id, rank);
            }
        }
    }
}
