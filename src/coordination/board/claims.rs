//! Claims: who works on what, until when, and how an attempt ends.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    ATTEMPTS_KEPT_MAX, Board, CLAIMED_BYTES_MAX, CLAIMED_MAX, HELD_MAX, LOSSES_MAX,
    intake::{DOCUMENT_MAX, NOTE_MAX, size, time},
    rules::pause,
};
use crate::{
    coordination::{Counter, Refused},
    model::{Attempt, AttemptEnd, Claim, Fence, Party, SwarmName, Task, TaskId, TaskProgress, TaskState},
};

/// Who asks for work.
#[derive(Debug, Clone)]
pub struct Asking {
    /// Who; he gets tasks of his own swarm.
    pub party: Party,
    /// Of which categories; none: of all.
    pub categories: Vec<Arc<str>>,
    /// At most so many.
    pub max: usize,
    /// How long a claim holds unless it is renewed.
    pub lease: Duration,
}

impl Board {
    /// Claims ready tasks, the first in the order of claiming; none when there is none.
    ///
    /// # Errors
    /// `Invalid`, `Full` when the party holds too many.
    pub fn claim(
        &mut self,
        counter: &mut Counter,
        asking: &Asking,
        now: SystemTime,
    ) -> Result<Vec<Arc<Task>>, Refused> {
        if asking.max == 0 || asking.max > CLAIMED_MAX {
            let (found, allowed) = (asking.max.to_string(), format!("1 to {CLAIMED_MAX}"));
            return Err(Refused::Invalid { key: "max".to_owned(), found, allowed });
        }
        time(|| "lease_ms".to_owned(), asking.lease)?;
        let room = HELD_MAX.saturating_sub(self.held.get(&asking.party).map_or(0, |held| held.len()));
        if room == 0 {
            return Err(Refused::Full { what: "tasks that one party holds", max: HELD_MAX });
        }
        let mut claimed = Vec::new();
        let mut bytes = 0;
        while claimed.len() < asking.max.min(room) {
            let Some(id) = self.first(&asking.party.id.swarm, &asking.categories) else { break };
            bytes += self.entries.get(&id).map_or(0, |entry| long(&entry.task));
            if bytes > CLAIMED_BYTES_MAX && !claimed.is_empty() {
                break;
            }
            self.give(counter, id, asking, now);
            claimed.extend(self.entries.get(&id).map(|entry| Arc::clone(&entry.task)));
        }
        Ok(claimed)
    }

    /// Claims one task that is ready, whatever comes before it.
    ///
    /// # Errors
    /// `UnknownTask`, `WrongState`, `Invalid`, `Full`.
    pub fn claim_this(
        &mut self,
        counter: &mut Counter,
        id: TaskId,
        asking: &Asking,
        now: SystemTime,
    ) -> Result<Arc<Task>, Refused> {
        let task = self.get(&asking.party.id.swarm, id)?;
        if task.state != TaskState::Ready {
            return Err(Refused::WrongState { task: id, found: task.state, allowed: "ready" });
        }
        time(|| "lease_ms".to_owned(), asking.lease)?;
        if self.held.get(&asking.party).map_or(0, |held| held.len()) >= HELD_MAX {
            return Err(Refused::Full { what: "tasks that one party holds", max: HELD_MAX });
        }
        self.give(counter, id, asking, now);
        self.get(&asking.party.id.swarm, id)
    }

    fn first(&self, swarm: &SwarmName, categories: &[Arc<str>]) -> Option<TaskId> {
        let ready = &self.shelves.get(swarm)?.ready;
        let first = match categories {
            [] => ready.values().filter_map(|ranks| ranks.first()).min(),
            some => some.iter().filter_map(|category| ready.get(category)?.first()).min(),
        };
        first.map(|(.., id)| *id)
    }

    fn give(&mut self, counter: &mut Counter, id: TaskId, asking: &Asking, now: SystemTime) {
        let (holder, lease) = (asking.party.clone(), asking.lease);
        let fence = counter.fence();
        self.held.entry(holder.clone()).or_default().insert(id);
        self.change(id, |task| {
            let deadline = task.spec.attempt_timeout.map(|timeout| now + timeout);
            task.claim = Some(Claim { holder, fence, since: now, lease_until: now + lease, lease, deadline });
            task.state = TaskState::Claimed;
            task.since = now;
            task.progress = None;
        });
        self.settle(id, now);
        self.tell(id, Some(TaskState::Ready));
    }

    /// The task, if the token is the one that holds it now.
    fn holds(&self, swarm: &SwarmName, id: TaskId, fence: Fence) -> Result<Arc<Task>, Refused> {
        let task = self.get(swarm, id)?;
        match &task.claim {
            Some(claim) if claim.fence == fence => Ok(task),
            _ => Err(stale(&task, fence)),
        }
    }

    /// The task, if it has become so by the end of this very claim: its holder asks again because he has not heard the answer.
    fn ended_so(&self, swarm: &SwarmName, id: TaskId, fence: Fence, end: AttemptEnd) -> Option<Arc<Task>> {
        let task = self.get(swarm, id).ok()?;
        let so = task.attempts.iter().any(|attempt| attempt.fence == fence && attempt.end == end);
        so.then_some(task)
    }

    /// The holder is alive and at work: the lease runs anew.
    ///
    /// # Errors
    /// `UnknownTask`, `StaleToken`.
    pub fn renew(
        &mut self,
        swarm: &SwarmName,
        id: TaskId,
        fence: Fence,
        now: SystemTime,
    ) -> Result<Arc<Task>, Refused> {
        self.holds(swarm, id, fence)?;
        self.extend(id, now);
        self.begin(id, now);
        self.get(swarm, id)
    }

    /// The holder tells how far it is, which renews the lease.
    ///
    /// # Errors
    /// `UnknownTask`, `StaleToken`, `Invalid`.
    pub fn progress(
        &mut self,
        swarm: &SwarmName,
        id: TaskId,
        fence: Fence,
        percent: Option<u8>,
        note: Option<Arc<str>>,
        now: SystemTime,
    ) -> Result<Arc<Task>, Refused> {
        self.holds(swarm, id, fence)?;
        if let Some(percent) = percent.filter(|percent| *percent > 100) {
            let (found, allowed) = (percent.to_string(), "0 to 100".to_owned());
            return Err(Refused::Invalid { key: "percent".to_owned(), found, allowed });
        }
        size(|| "note".to_owned(), note.as_deref().unwrap_or_default(), NOTE_MAX)?;
        self.extend(id, now);
        self.change(id, |task| task.progress = Some(TaskProgress { percent, note, at: now }));
        if !self.begin(id, now) {
            self.tell(id, Some(TaskState::Running));
        }
        self.get(swarm, id)
    }

    /// The next lease; not written down, for after a restart of the daemon every lease runs anew.
    fn extend(&mut self, id: TaskId, now: SystemTime) {
        if let Some(entry) = self.entries.get_mut(&id)
            && let Some(claim) = &mut Arc::make_mut(&mut entry.task).claim
        {
            claim.lease_until = claim.lease_until.max(now + claim.lease);
        }
        self.settle(id, now);
    }

    /// Whether this was the first word of the holder.
    fn begin(&mut self, id: TaskId, now: SystemTime) -> bool {
        let first = self.entries.get(&id).is_some_and(|entry| entry.task.state == TaskState::Claimed);
        if first {
            self.change(id, |task| {
                task.state = TaskState::Running;
                task.since = now;
            });
            self.tell(id, Some(TaskState::Claimed));
        }
        first
    }

    /// The holder has done it. Said again with the same token it is the same.
    ///
    /// # Errors
    /// `UnknownTask`, `StaleToken`, `Invalid`.
    pub fn complete(
        &mut self,
        swarm: &SwarmName,
        id: TaskId,
        fence: Fence,
        result: Option<Arc<str>>,
        now: SystemTime,
    ) -> Result<Arc<Task>, Refused> {
        if let Some(task) = self.ended_so(swarm, id, fence, AttemptEnd::Completed) {
            return Ok(task);
        }
        self.holds(swarm, id, fence)?;
        size(|| "result".to_owned(), result.as_deref().unwrap_or_default(), DOCUMENT_MAX)?;
        self.change(id, |task| task.result = result);
        self.end(id, AttemptEnd::Completed, None, now);
        self.get(swarm, id)
    }

    /// The holder could not do it: another attempt follows if a retry is left. Said again with the same token it is the same.
    ///
    /// # Errors
    /// `UnknownTask`, `StaleToken`, `Invalid`.
    pub fn fail(
        &mut self,
        swarm: &SwarmName,
        id: TaskId,
        fence: Fence,
        reason: Arc<str>,
        now: SystemTime,
    ) -> Result<Arc<Task>, Refused> {
        if let Some(task) = self.ended_so(swarm, id, fence, AttemptEnd::Failed) {
            return Ok(task);
        }
        self.holds(swarm, id, fence)?;
        size(|| "reason".to_owned(), &reason, NOTE_MAX)?;
        self.end(id, AttemptEnd::Failed, Some(reason), now);
        self.get(swarm, id)
    }

    /// The holder gives it back as it is, which is no failure. Said again with the same token it is the same.
    ///
    /// # Errors
    /// `UnknownTask`, `StaleToken`.
    pub fn release(
        &mut self,
        swarm: &SwarmName,
        id: TaskId,
        fence: Fence,
        now: SystemTime,
    ) -> Result<Arc<Task>, Refused> {
        if let Some(task) = self.ended_so(swarm, id, fence, AttemptEnd::Released) {
            return Ok(task);
        }
        self.holds(swarm, id, fence)?;
        self.end(id, AttemptEnd::Released, None, now);
        self.get(swarm, id)
    }

    /// Calls a task off that has not ended, whoever holds it. One that is cancelled stays so.
    ///
    /// # Errors
    /// `UnknownTask`, `WrongState`, `Invalid`.
    pub fn cancel(
        &mut self,
        swarm: &SwarmName,
        id: TaskId,
        reason: Option<Arc<str>>,
        now: SystemTime,
    ) -> Result<Arc<Task>, Refused> {
        let task = self.get(swarm, id)?;
        match task.state {
            TaskState::Cancelled => return Ok(task),
            TaskState::Done | TaskState::Failed => {
                return Err(Refused::WrongState { task: id, found: task.state, allowed: "what has not ended" });
            }
            _ => {}
        }
        size(|| "reason".to_owned(), reason.as_deref().unwrap_or_default(), NOTE_MAX)?;
        if task.claim.is_some() {
            self.end(id, AttemptEnd::Cancelled, reason, now);
        } else {
            self.finish(id, TaskState::Cancelled, reason.map(|reason| format!("cancelled: {reason}")), now);
        }
        self.get(swarm, id)
    }

    /// Tries a task again that has failed or was cancelled, with all its retries.
    ///
    /// # Errors
    /// `UnknownTask`, `WrongState`.
    pub fn retry(&mut self, swarm: &SwarmName, id: TaskId, now: SystemTime) -> Result<Arc<Task>, Refused> {
        let task = self.get(swarm, id)?;
        if !matches!(task.state, TaskState::Failed | TaskState::Cancelled) {
            return Err(Refused::WrongState { task: id, found: task.state, allowed: "failed and cancelled" });
        }
        self.change(id, |task| {
            task.state = TaskState::Blocked;
            task.since = now;
            (task.failures, task.losses, task.not_before) = (0, 0, None);
        });
        self.tell(id, Some(task.state));
        self.settle(id, now);
        self.settle_dependents(id, now);
        self.weigh_before(&[id]);
        self.get(swarm, id)
    }

    /// A party has given a sign of life: all its leases run anew.
    pub fn heartbeat(&mut self, party: &Party, now: SystemTime) {
        for id in self.ids_held_by(party) {
            self.extend(id, now);
        }
    }

    /// Nobody could give a sign of life for a while: all leases run anew.
    pub fn renew_all(&mut self, now: SystemTime) {
        let ids: Vec<TaskId> = self.held.values().flatten().copied().collect();
        for id in ids {
            self.extend(id, now);
        }
    }

    /// An incarnation is proven dead: its work goes back at once, and its successor can ask what it was.
    pub fn holder_ended(&mut self, party: &Party, now: SystemTime) {
        self.paused.remove(party);
        for id in self.ids_held_by(party) {
            self.end(id, AttemptEnd::HolderEnded, None, now);
        }
    }

    /// A paused party's clock stands still.
    pub fn holder_paused(&mut self, party: &Party, now: SystemTime) {
        self.paused.entry(party.clone()).or_insert(now);
        for id in self.ids_held_by(party) {
            self.settle(id, now);
        }
    }

    /// It goes on where it stood still.
    pub fn holder_resumed(&mut self, party: &Party, now: SystemTime) {
        let Some(since) = self.paused.remove(party) else { return };
        let still = now.duration_since(since).unwrap_or_default();
        for id in self.ids_held_by(party) {
            self.change(id, |task| {
                if let Some(claim) = &mut task.claim {
                    claim.lease_until += still;
                    claim.deadline = claim.deadline.map(|deadline| deadline + still);
                }
            });
            self.settle(id, now);
        }
    }

    fn ids_held_by(&self, party: &Party) -> Vec<TaskId> {
        self.held.get(party).map(|held| held.iter().copied().collect()).unwrap_or_default()
    }

    /// What is due by now: leases and attempts that have run out, and pauses that are over.
    pub fn tick(&mut self, now: SystemTime) {
        while let Some((at, id)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            let claim = self.entries.get(&id).and_then(|entry| entry.task.claim.clone());
            match claim {
                Some(claim) if claim.deadline.is_some_and(|deadline| deadline <= now) => {
                    self.end(id, AttemptEnd::DeadlinePassed, None, now);
                }
                Some(claim) if claim.lease_until <= now => self.end(id, AttemptEnd::LeaseExpired, None, now),
                _ => self.settle(id, now),
            }
            // Whatever became of it, it is not due at the same moment once more.
            if self.timers.contains(&(at, id)) {
                self.timers.remove(&(at, id));
                if let Some(entry) = self.entries.get_mut(&id) {
                    entry.due = None;
                }
            }
        }
    }

    /// Ends a claim, and puts the task where it belongs now.
    fn end(&mut self, id: TaskId, end: AttemptEnd, reason: Option<Arc<str>>, now: SystemTime) {
        let Some((claim, from)) =
            self.entries.get(&id).and_then(|entry| Some((entry.task.claim.clone()?, entry.task.state)))
        else {
            return;
        };
        self.let_go(&claim.holder, id);
        if end == AttemptEnd::HolderEnded {
            self.bequeath(&claim.holder, id, claim.fence);
        }
        let why = reason.clone();
        let attempt = Attempt { holder: claim.holder, fence: claim.fence, since: claim.since, until: now, end, reason };
        self.change(id, |task| {
            task.claim = None;
            if task.attempts.len() >= ATTEMPTS_KEPT_MAX {
                task.attempts.remove(0);
            }
            task.attempts.push(attempt);
        });
        let reason = |code: &str| why.as_ref().map_or_else(|| code.to_owned(), |why| format!("{code}: {why}"));
        match end {
            AttemptEnd::Completed => self.finish(id, TaskState::Done, None, now),
            AttemptEnd::Cancelled => {
                self.finish(id, TaskState::Cancelled, why.map(|why| format!("cancelled: {why}")), now)
            }
            AttemptEnd::Failed => self.failed(id, from, reason("attempt_failed"), now),
            AttemptEnd::DeadlinePassed => {
                self.failed(id, from, "attempt_timed_out: the attempt took too long".to_owned(), now);
            }
            AttemptEnd::HolderEnded | AttemptEnd::LeaseExpired => self.lost(id, from, now),
            AttemptEnd::Released => self.free(id, from, now),
        }
    }

    fn failed(&mut self, id: TaskId, from: TaskState, reason: String, now: SystemTime) {
        let Some(task) = self.entries.get(&id).map(|entry| Arc::clone(&entry.task)) else { return };
        let failures = task.failures + 1;
        self.change(id, |task| task.failures = failures);
        if failures > task.spec.retry.retries {
            return self.finish(id, TaskState::Failed, Some(reason), now);
        }
        let pause = pause(task.spec.retry, failures);
        self.change(id, |task| task.not_before = Some(now + pause).filter(|_| !pause.is_zero()));
        self.free(id, from, now);
    }

    fn lost(&mut self, id: TaskId, from: TaskState, now: SystemTime) {
        self.change(id, |task| task.losses += 1);
        if self.entries.get(&id).is_some_and(|entry| entry.task.losses >= LOSSES_MAX) {
            let reason = format!("holders_lost: {LOSSES_MAX} attempts have lost their holder");
            return self.finish(id, TaskState::Failed, Some(reason), now);
        }
        self.free(id, from, now);
    }

    /// Nobody holds it any more.
    fn free(&mut self, id: TaskId, from: TaskState, now: SystemTime) {
        self.change(id, |task| {
            task.state = TaskState::Blocked;
            task.since = now;
        });
        let told = self.news.len();
        self.settle(id, now);
        self.news.truncate(told);
        self.tell(id, Some(from));
    }

    /// Nothing becomes of it any more.
    fn finish(&mut self, id: TaskId, state: TaskState, reason: Option<String>, now: SystemTime) {
        let Some(from) = self.entries.get(&id).map(|entry| entry.task.state) else { return };
        self.change(id, |task| {
            task.state = state;
            task.since = now;
            task.reasons = reason.into_iter().collect();
            task.not_before = None;
        });
        self.settle(id, now);
        self.tell(id, Some(from));
        self.settle_dependents(id, now);
        if state == TaskState::Cancelled {
            self.weigh_before(&[id]);
        }
    }
}

/// Bytes of what can be long of a task that is claimed.
fn long(task: &Task) -> usize {
    let reasons = task.attempts.iter().filter_map(|attempt| attempt.reason.as_ref());
    task.spec.payload.len() + reasons.map(|reason| reason.len()).sum::<usize>()
}

/// What became of a claim.
fn stale(task: &Task, shown: Fence) -> Refused {
    let ended = task.attempts.iter().find(|attempt| attempt.fence == shown);
    let mut why = match ended {
        Some(attempt) => format!("this claim of {} has ended: {}", attempt.holder, attempt.end.word()),
        None => "no claim of this task that is remembered had it".to_owned(),
    };
    match &task.claim {
        Some(claim) => why.push_str(&format!("; {} holds the task", claim.holder)),
        None => why.push_str(&format!("; the task is {}", task.state)),
    }
    Refused::StaleToken { shown, why }
}
