//! The one who decides: takes what is wanted one by one, lets the rules answer, writes what has changed down, and only then says so.
//!
//! What waits while a batch is written is decided next and written together, so that a burst costs one commit. A decision that can't be written down is
//! undone by reading everything anew: nobody hears of it.

use std::{collections::BTreeSet, sync::Arc, time::SystemTime};

use tokio::{
    sync::{Mutex, mpsc},
    time::{Duration, Instant, sleep_until},
};

use super::{
    Counter,
    board::Board,
    desk::{Bell, Cores, Fate, Job, Shared, Word, WorkChanges, WorkError, WorkWitness},
    locks::Locks,
    mail::Mail,
};
use crate::{
    model::{AgentId, Fence, LockId, Party, SwarmName},
    store::{StoreError, WorkBatch, WorkKept, WorkStore},
};

/// Calls that are decided and written together.
const BATCH_MAX: usize = 256;
/// Numbers that are set aside at once: fencing tokens must grow even when a power cut undoes what was written last.
const NUMBERS_AHEAD: u64 = 10_000;
/// A turn that comes this much later than planned means that nobody could renew meanwhile: the process was stopped.
const GAP: Duration = Duration::from_secs(3);
/// How soon reading anew is tried again.
const RELOAD_PAUSE: Duration = Duration::from_millis(500);

impl Cores {
    fn restore(kept: WorkKept, now: SystemTime) -> Self {
        Self {
            board: Board::restore(kept.tasks, now),
            locks: Locks::restore(kept.locks, now),
            mail: Mail::restore(kept.messages, now),
            counter: Counter::behind(kept.counter),
        }
    }

    fn next_due(&self) -> Option<SystemTime> {
        [self.board.next_due(), self.locks.next_due(), self.mail.next_due()].into_iter().flatten().min()
    }

    fn tick(&mut self, now: SystemTime) {
        self.board.tick(now);
        self.locks.tick(&mut self.counter, now);
        self.mail.tick(&mut self.counter, now);
    }

    fn heartbeat(&mut self, party: &Party, now: SystemTime) {
        self.board.heartbeat(party, now);
        self.locks.heartbeat(party, now);
    }

    fn fate(&mut self, party: &Party, fate: Fate, now: SystemTime) {
        match fate {
            Fate::Ended => {
                self.board.holder_ended(party, now);
                self.locks.holder_ended(&mut self.counter, party, now);
                self.mail.holder_ended(&mut self.counter, party, now);
            }
            Fate::Paused => {
                self.board.holder_paused(party, now);
                self.locks.paused(party, now);
            }
            Fate::Resumed => {
                self.board.holder_resumed(party, now);
                self.locks.resumed(party, now);
            }
        }
    }

    fn hear(&mut self, word: &Word, now: SystemTime) {
        match word {
            Word::Of(party, fate) => self.fate(party, *fate, now),
            Word::AgentGone(AgentId { swarm, name }) => {
                self.mail.forget_recipient(&mut self.counter, swarm, name, now);
            }
            Word::SwarmGone(swarm) => self.forget(swarm, now),
            Word::Left(swarm, id, known) => self.leave(swarm, *id, *known, now),
            Word::Swarms(known) => {
                let kept = self.board.swarms().chain(self.locks.swarms()).chain(self.mail.swarms());
                let gone: BTreeSet<SwarmName> = kept.filter(|swarm| !known.contains(*swarm)).cloned().collect();
                gone.iter().for_each(|swarm| self.forget(swarm, now));
            }
        }
    }

    /// Nobody waits for this lock any more. If it was given meanwhile, nobody has heard of it.
    fn leave(&mut self, swarm: &SwarmName, id: LockId, known: Option<Fence>, now: SystemTime) {
        if self.locks.give_up(&mut self.counter, swarm, id, now) {
            return;
        }
        let grant = self.locks.get(swarm, id).and_then(|view| view.lock.grant);
        if let Some(grant) = grant.filter(|grant| Some(grant.fence) != known) {
            // It has this token by what was read a moment ago.
            let _ = self.locks.release(&mut self.counter, swarm, id, grant.fence, now);
        }
    }

    fn forget(&mut self, swarm: &SwarmName, now: SystemTime) {
        self.board.forget_swarm(swarm);
        self.locks.swarm_removed(&mut self.counter, swarm, now);
        self.mail.forget_swarm(swarm);
    }

    /// Nobody could give a sign of life for a while.
    fn renew_all(&mut self, now: SystemTime) {
        self.board.renew_all(now);
        self.locks.renew_all(now);
        self.mail.renew_all(now);
    }

    fn drain(&mut self) -> WorkChanges {
        WorkChanges { board: self.board.drain(), locks: self.locks.drain(), mail: self.mail.drain() }
    }
}

/// What lies behind a [`Desk`](super::Desk). Clones are the same clerk, of whom one at a time works: what waits outlives a fall.
#[derive(Clone)]
pub struct Clerk {
    store: Arc<dyn WorkStore>,
    witness: Arc<dyn WorkWitness>,
    jobs: Arc<Mutex<Jobs>>,
    shared: Arc<Shared>,
    began: (SystemTime, Instant),
}

type Jobs = mpsc::Receiver<Box<dyn Job>>;

impl Clerk {
    pub(super) fn new(
        store: Arc<dyn WorkStore>,
        witness: Arc<dyn WorkWitness>,
        jobs: Jobs,
        shared: Arc<Shared>,
    ) -> Self {
        let jobs = Arc::new(Mutex::new(jobs));
        Self { store, witness, jobs, shared, began: (SystemTime::now(), Instant::now()) }
    }

    /// Works until the last desk is gone, from what is written down.
    ///
    /// # Errors
    /// `Fenced` when the store is no longer this daemon's.
    pub async fn run(self) -> Result<(), StoreError> {
        let mut jobs = self.jobs.lock().await;
        // Attempts that wait are written down nowhere: they went with whoever worked here before.
        self.shared.turn_away(&WorkError::Unavailable(StoreError::Busy));
        let Some((mut cores, mut ahead)) = self.restore(&mut jobs).await? else { return Ok(()) };
        loop {
            let due = cores.next_due().map(|due| self.instant(due));
            let first = tokio::select! {
                job = jobs.recv() => match job {
                    Some(job) => Some(job),
                    None => return Ok(()),
                },
                () = self.shared.called.notified() => None,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => None,
            };
            let mut batch: Vec<Box<dyn Job>> = first.into_iter().collect();
            while batch.len() < BATCH_MAX {
                let Ok(job) = jobs.try_recv() else { break };
                batch.push(job);
            }
            let now = self.now();
            if due.is_some_and(|due| Instant::now().saturating_duration_since(due) > GAP) {
                cores.renew_all(now);
            }
            // What is due is looked at by every rule, so signs of life come first.
            let words = self.shared.words.lock().clone();
            if cores.next_due().is_some_and(|due| due <= now) {
                self.shared.alive.retain(|party| {
                    cores.heartbeat(party, now);
                    false
                });
            }
            for word in &words {
                cores.hear(word, now);
            }
            for job in &mut batch {
                job.decide(&mut cores, now);
            }
            cores.tick(now);
            let undone = self.write(&mut cores, &mut ahead).await.err();
            if undone.is_none() {
                self.shared.words.lock().drain(..words.len());
                for word in &words {
                    if let Word::Of(party, Fate::Ended) = word {
                        self.shared.holders.remove(party);
                    }
                }
            }
            for job in batch {
                job.answer(undone.clone());
            }
            match undone {
                None => {}
                Some(error @ StoreError::Fenced) => return Err(error),
                Some(error) => {
                    tracing::warn!(%error, "a decision could not be written down and is undone");
                    // Attempts that wait are written down nowhere.
                    self.shared.turn_away(&WorkError::Unavailable(error));
                    match self.restore(&mut jobs).await? {
                        Some(restored) => (cores, ahead) = restored,
                        None => return Ok(()),
                    }
                }
            }
        }
    }

    /// Reads everything anew, however long that takes; whoever asks meanwhile is told why not. `None`: the last desk is gone.
    /// With it comes up to where numbers are set aside in the store.
    async fn restore(&self, jobs: &mut Jobs) -> Result<Option<(Cores, u64)>, StoreError> {
        loop {
            let error = match self.store.load().await {
                Ok(kept) => {
                    for holder in holders(&kept) {
                        self.shared.take_on(holder, || self.witness.has_ended(holder));
                    }
                    // What was told and could not be written down is still to be.
                    self.shared.called.notify_one();
                    let ahead = kept.counter;
                    return Ok(Some((Cores::restore(kept, self.now()), ahead)));
                }
                Err(error @ StoreError::Fenced) => return Err(error),
                Err(error) => error,
            };
            tracing::warn!(%error, "what was written down of coordination can't be read");
            let again = Instant::now() + RELOAD_PAUSE;
            loop {
                tokio::select! {
                    () = sleep_until(again) => break,
                    job = jobs.recv() => match job {
                        Some(job) => job.answer(Some(error.clone())),
                        None => return Ok(None),
                    },
                }
            }
        }
    }

    /// Writes what has changed down and tells of it.
    async fn write(&self, cores: &mut Cores, ahead: &mut u64) -> Result<(), StoreError> {
        let changes = cores.drain();
        let mut batch = WorkBatch {
            tasks: changes.board.put.clone(),
            tasks_gone: changes.board.removed.clone(),
            locks: changes.locks.put.clone(),
            locks_gone: changes.locks.removed.clone(),
            messages: changes.mail.put.clone(),
            messages_gone: changes.mail.removed.clone(),
            counter: 0,
        };
        if cores.counter.last() > *ahead {
            batch.counter = cores.counter.last() + NUMBERS_AHEAD;
        }
        if batch != WorkBatch::default() {
            let next = batch.counter.max(*ahead);
            self.store.commit(batch).await?;
            *ahead = next;
        }
        self.tell(changes);
        Ok(())
    }

    fn tell(&self, mut changes: WorkChanges) {
        let claims = changes.board.put.iter().filter_map(|task| task.claim.as_ref()).map(|claim| &claim.holder);
        let held = changes.locks.put.iter().map(|lock| &lock.holder);
        let taken =
            changes.mail.put.iter().filter_map(|message| message.delivery.as_ref()).map(|delivery| &delivery.to);
        for party in claims.chain(held).chain(taken).filter(|party| party.incarnation.is_some()) {
            if !self.shared.holders.contains(party) {
                self.shared.take_on(party, || false);
            } else if self.shared.has_ended(party) {
                // A known holder may have taken this behind the end of all that he had, when both came together.
                self.shared.note(Word::Of(party.clone(), Fate::Ended));
            }
        }
        for lock in std::mem::take(&mut changes.locks.granted) {
            if let Some((_, waiting)) = self.shared.waiting.remove(&lock.id) {
                // Who has gone meanwhile gives it back himself.
                let _ = waiting.send(Ok(lock));
            }
        }
        for (id, why) in std::mem::take(&mut changes.locks.ended) {
            if let Some((_, waiting)) = self.shared.waiting.remove(&id) {
                let _ = waiting.send(Err(WorkError::Refused(why)));
            }
        }
        for swarm in &changes.board.ready {
            self.ring(&Bell::Work(swarm.clone()));
        }
        for (swarm, to) in &changes.mail.arrived {
            self.ring(&Bell::Mail(swarm.clone(), to.clone()));
        }
        let quiet = changes.board.news.is_empty() && changes.locks.news.is_empty() && changes.mail.news.is_empty();
        if !quiet {
            self.witness.changed(&changes);
        }
    }

    fn ring(&self, bell: &Bell) {
        if let Some(ringing) = self.shared.bells.get(bell) {
            ringing.send_modify(|count| *count += 1);
        }
    }

    /// The time of the system when this began, and what has passed since then: a clock that is set does not end leases.
    fn now(&self) -> SystemTime {
        self.began.0 + self.began.1.elapsed()
    }

    fn instant(&self, at: SystemTime) -> Instant {
        self.began.1 + at.duration_since(self.began.0).unwrap_or_default()
    }
}

/// Incarnations that hold anything.
fn holders(kept: &WorkKept) -> impl Iterator<Item = &Party> {
    let claims = kept.tasks.iter().filter_map(|task| task.claim.as_ref()).map(|claim| &claim.holder);
    let locks = kept.locks.iter().map(|lock| &lock.holder);
    let taken = kept.messages.iter().filter_map(|message| message.delivery.as_ref()).map(|delivery| &delivery.to);
    claims.chain(locks).chain(taken).filter(|party| party.incarnation.is_some())
}
