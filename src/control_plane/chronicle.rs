//! Writes down what the feed, the supervisors and the health room tell: events, where each agent stands, what it has used; and retention.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use actix::prelude::*;
use hivekeeper_actors::{EventKind as Supervised, SupervisionEvent};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{
    events::Feed,
    health,
    model::{AgentId, Event, Seq},
    store::{Journal, Retention, Standing, StandingState, StoreError, StoredEvent},
    view,
};

/// Events, or agents whose usage is told, written in one transaction at most.
const BATCH_MAX: usize = 256;
/// Events that wait for a journal that can't be written: at some 2 KiB each 16 MiB, an hour of a hive in trouble.
const WAITING_MAX: usize = 8192;
/// Pause after a failed write: a full disk is looked at again soon, without a storm.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Numbers reserved ahead of the feed, so that they grow across a `kill -9`: at a thousand events a second ten seconds' worth.
pub const SEQS_AHEAD: u64 = 10_000;
/// Between two writings of what an agent that lives has used. A `kill -9` of the daemon may lose that much of it until the agent's next report, which
/// tells it all; a thousand agents that report all the time cost a hundred rows a second.
const USAGE_EVERY: Duration = Duration::from_secs(10);
/// Between two rounds of retention.
const PRUNE_EVERY: Duration = Duration::from_secs(60);

/// What a supervisor tells of an agent, as boot needs it to go on from there; `None` when nothing changes for it. A stop is no news here: an
/// operator's is desired state, and the daemon's own end leaves every agent where it was.
pub fn standing(event: &SupervisionEvent, now: SystemTime) -> Option<Standing> {
    let note = |state, attempt| Some(Standing { state, attempt });
    match &event.kind {
        Supervised::Starting { attempt } => note(StandingState::Active, *attempt),
        Supervised::BackingOff { attempt, delay } => {
            note(StandingState::BackingOff { retry_at: now + *delay }, *attempt)
        }
        Supervised::Failed { retry_in, .. } => {
            note(StandingState::Failed { retry_at: retry_in.map(|delay| now + delay) }, 0)
        }
        Supervised::Completed => note(StandingState::Completed, 0),
        _ => None,
    }
}

/// Where agents stand, on its way into the journal. The latest of an agent says it all, so no more than one of each waits.
#[derive(Clone, Default)]
pub struct Standings {
    shared: Arc<Waiting>,
}

#[derive(Default)]
struct Waiting {
    notes: Mutex<BTreeMap<AgentId, (Standing, SystemTime)>>,
    wake: Notify,
}

impl Standings {
    /// Takes what a supervisor tells. Never blocks.
    pub fn note(&self, agent: &AgentId, event: &SupervisionEvent, now: SystemTime) {
        if let Some(standing) = standing(event, now) {
            self.shared.notes.lock().insert(agent.clone(), (standing, now));
            self.shared.wake.notify_one();
        }
    }

    fn first(&self) -> Option<(AgentId, (Standing, SystemTime))> {
        self.shared.notes.lock().first_key_value().map(|(agent, note)| (agent.clone(), *note))
    }

    /// It is written, unless something younger has come.
    fn written(&self, agent: &AgentId, note: (Standing, SystemTime)) {
        let mut notes = self.shared.notes.lock();
        if notes.get(agent) == Some(&note) {
            notes.remove(agent);
        }
    }

    /// Writes what waits.
    ///
    /// # Errors
    /// What the journal said; the rest waits on.
    pub async fn write(&self, journal: &dyn Journal) -> Result<(), StoreError> {
        // Each stays until it is written, so that a crash of the writer loses none.
        while let Some((agent, note)) = self.first() {
            write_one(journal, &agent, note).await?;
            self.written(&agent, note);
        }
        Ok(())
    }

    async fn keep(self, journal: Arc<dyn Journal>) {
        loop {
            self.shared.wake.notified().await;
            while let Err(error) = self.write(&*journal).await {
                tracing::warn!(%error, "failed to journal where agents stand");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

async fn write_one(journal: &dyn Journal, agent: &AgentId, note: (Standing, SystemTime)) -> Result<(), StoreError> {
    let (standing, at) = note;
    if matches!(standing.state, StandingState::Failed { .. }) {
        // Whoever starts it again, an operator or its `retry_after`, gives it a fresh window.
        journal.reset_window(agent, at).await?;
    }
    journal.set_standing(agent, standing, at).await
}

/// Writes down what agents have used: an agent's last words at once, of all others at most every [`USAGE_EVERY`].
async fn keep_usage(health: health::Handle, journal: Arc<dyn Journal>) {
    let mut all_due = Instant::now();
    loop {
        // Both outcomes mean the same: look. Last words that keep coming must not put the others off.
        let _ = tokio::time::timeout_at(all_due.into(), health.usage_urgent()).await;
        let urgent = Instant::now() < all_due;
        if !urgent {
            all_due = Instant::now() + USAGE_EVERY;
        }
        while let Err(error) = save_usage(&health, &*journal, urgent).await {
            tracing::warn!(%error, "failed to journal what agents have used");
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
}

/// Writes what agents have used and the journal does not have.
///
/// # Errors
/// What the journal said; the rest waits on.
pub async fn save_usage(health: &health::Handle, journal: &dyn Journal, urgent: bool) -> Result<(), StoreError> {
    for some in health.unsaved_usage(urgent).chunks(BATCH_MAX) {
        journal.put_usage(some.to_vec()).await?;
        health.usage_saved(some);
    }
    Ok(())
}

/// How far the journal has come behind the feed; kept outside the actor, so that a crash repeats nothing.
#[derive(Clone)]
pub struct Scribe {
    journal: Arc<dyn Journal>,
    feed: Feed,
    progress: Arc<Mutex<Progress>>,
}

struct Progress {
    /// The last number that was taken from the feed.
    taken: Seq,
    /// Taken and not written. Taken at once, because readings, which nobody writes, push what waits out of the feed's ring.
    waiting: VecDeque<StoredEvent>,
    /// Numbers up to this one are reserved.
    reserved: Seq,
    /// Given up before they were written.
    lost: u64,
}

impl Scribe {
    /// Begins behind the feed's head; numbers up to `reserved` are set aside already.
    pub fn new(journal: Arc<dyn Journal>, feed: Feed, reserved: Seq) -> Self {
        let progress = Progress { taken: feed.head(), waiting: VecDeque::new(), reserved, lost: 0 };
        Self { journal, feed, progress: Arc::new(Mutex::new(progress)) }
    }

    /// Writes what the feed holds and the journal does not.
    ///
    /// # Errors
    /// What the journal said; the rest waits.
    pub async fn catch_up(&self) -> Result<(), StoreError> {
        loop {
            self.take();
            let batch: Vec<StoredEvent> = self.progress.lock().waiting.iter().take(BATCH_MAX).cloned().collect();
            self.reserve().await?;
            let Some(last) = batch.last().map(|event| event.seq) else { return Ok(()) };
            self.journal.append_events(batch).await?;
            self.progress.lock().waiting.retain(|event| event.seq > last);
        }
    }

    /// How many events of the feed are not written or not looked at yet (some of these are never written), and how many were given up (an upper
    /// bound: what left the ring unseen may have been readings, which nobody writes).
    pub fn lag_and_lost(&self) -> (u64, u64) {
        let progress = self.progress.lock();
        let ahead = self.feed.head().0.saturating_sub(progress.taken.0);
        (ahead + progress.waiting.len() as u64, progress.lost)
    }

    /// Takes what is new from the feed.
    fn take(&self) {
        let progress = &mut *self.progress.lock();
        loop {
            match self.feed.read(progress.taken, BATCH_MAX) {
                Ok(events) => {
                    let Some(last) = events.last() else { break };
                    progress.taken = last.seq;
                    let durable = events.iter().filter(|event| event.kind.durable());
                    progress.waiting.extend(durable.map(|event| stored(event)));
                }
                Err(gap) => {
                    tracing::error!(after = %gap.after, first_kept = %gap.first_kept, "events left the ring before they could be journaled");
                    let behind = Seq(gap.first_kept.0.saturating_sub(1));
                    progress.lost += behind.0.saturating_sub(progress.taken.0);
                    progress.taken = behind;
                }
            }
        }
        let surplus = progress.waiting.len().saturating_sub(WAITING_MAX);
        if surplus > 0 {
            progress.waiting.drain(..surplus);
            progress.lost += surplus as u64;
            tracing::error!(lost = surplus, "events could not be journaled for too long, the oldest are lost");
        }
    }

    async fn reserve(&self) -> Result<(), StoreError> {
        let (taken, reserved) = {
            let progress = self.progress.lock();
            (progress.taken, progress.reserved)
        };
        if taken.0 + SEQS_AHEAD / 2 > reserved.0 {
            let upto = Seq(taken.0 + SEQS_AHEAD);
            self.journal.reserve_seqs(upto).await?;
            self.progress.lock().reserved = upto;
        }
        Ok(())
    }

    async fn follow(self, health: health::Handle) {
        let mut told = Told::default();
        loop {
            let mut answer = self.catch_up().await;
            if answer.is_ok() && !self.journal.status().ok {
                // Somebody else's write failed, and there was none of ours to tell or to mend it.
                let reserved = self.progress.lock().reserved;
                answer = self.journal.reserve_seqs(reserved).await;
                // It can be written and is not well all the same: a page of it is damaged.
                let status = self.journal.status();
                if answer.is_ok() && !status.ok {
                    answer = Err(StoreError::Other(status.last_error.unwrap_or_default()));
                }
            }
            let failing = answer.is_err();
            told.tell(&health, answer);
            if failing {
                tokio::time::sleep(RETRY_PAUSE).await;
                continue;
            }
            let taken = self.progress.lock().taken;
            // A gap shows again in the read, which says so; when nothing comes, the journal's own state is looked at.
            let _ = tokio::time::timeout(RETRY_PAUSE, self.feed.subscribe(taken).next()).await;
        }
    }
}

/// Tells health of the journal when its state changes.
#[derive(Default)]
struct Told {
    error: Option<String>,
}

impl Told {
    fn tell(&mut self, health: &health::Handle, answer: Result<(), StoreError>) {
        let error = answer.err().map(|error| error.to_string());
        if error == self.error {
            return;
        }
        match &error {
            Some(error) => tracing::error!(%error, "failed to write the journal; events wait in memory"),
            None => tracing::info!("the journal can be written again"),
        }
        health.report(health::Report::Journal { ok: error.is_none(), error: error.clone() });
        self.error = error;
    }
}

fn stored(event: &Event) -> StoredEvent {
    let view = view::event(event);
    // Our own types hold no map with keys that JSON can't have, which is all that can fail.
    let body = serde_json::to_string(&view).unwrap_or_default();
    StoredEvent {
        seq: event.seq,
        epoch: event.epoch,
        at: event.at,
        kind: event.kind.word().to_owned(),
        subject: view.subject().to_owned(),
        body: Arc::from(body),
    }
}

/// The actor that keeps the journal behind the feed.
pub struct Chronicle {
    scribe: Scribe,
    standings: Standings,
    health: health::Handle,
    retention: Retention,
}

impl Chronicle {
    /// Goes on where `scribe` and `standings` are.
    pub fn new(scribe: Scribe, standings: Standings, health: health::Handle, retention: Retention) -> Self {
        Self { scribe, standings, health, retention }
    }
}

impl Actor for Chronicle {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let journal = Arc::clone(&self.scribe.journal);
        ctx.spawn(self.scribe.clone().follow(self.health.clone()).into_actor(self));
        ctx.spawn(self.standings.clone().keep(Arc::clone(&journal)).into_actor(self));
        ctx.spawn(keep_usage(self.health.clone(), Arc::clone(&journal)).into_actor(self));
        ctx.spawn(prune(journal, self.retention).into_actor(self));
        // A predecessor may have left some behind.
        self.standings.shared.wake.notify_one();
    }
}

async fn prune(journal: Arc<dyn Journal>, retention: Retention) {
    loop {
        tokio::time::sleep(PRUNE_EVERY).await;
        if let Err(error) = journal.prune(SystemTime::now(), retention).await {
            tracing::warn!(%error, "failed to prune the journal");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::{
        events::RING_EVENTS_MAX,
        model::{Epoch, EventKind},
        store::{failing::FailingJournal, suite},
    };

    #[tokio::test]
    async fn what_waits_for_the_journal_is_not_pushed_out_by_readings() {
        let (_dir, inner) = suite::scratch();
        let journal = Arc::new(FailingJournal::new(Arc::new(inner)));
        let feed = Feed::new(Epoch(1), Seq(1));
        let scribe = Scribe::new(Arc::clone(&journal) as Arc<dyn Journal>, feed.clone(), Seq(SEQS_AHEAD));
        journal.fail_writes(Some(StoreError::Full));
        let said = |n| EventKind::DaemonStarted { version: "1", pid: n };
        let first = feed.publish(SystemTime::now(), said(1));
        assert_eq!(scribe.lag_and_lost(), (1, 0));
        assert_eq!(scribe.catch_up().await, Err(StoreError::Full));
        assert_eq!(scribe.lag_and_lost(), (1, 0));
        for _ in 0..2 * RING_EVENTS_MAX {
            feed.publish(SystemTime::now(), EventKind::Samples { agents: Vec::new() });
        }
        let last = feed.publish(SystemTime::now(), said(2));
        journal.fail_writes(None);
        scribe.catch_up().await.unwrap();
        let seqs = |events: Vec<StoredEvent>| events.iter().map(|event| event.seq).collect::<Vec<_>>();
        assert_eq!(seqs(journal.events(Seq(0), 10).await.unwrap()), [first, last]);
        assert!(journal.last_reserved().await.unwrap() >= Seq(last.0 + SEQS_AHEAD / 2));

        let (lag, passed_over) = scribe.lag_and_lost();
        assert_eq!(lag, 0);
        journal.fail_writes(Some(StoreError::Full));
        for n in 0..=u32::try_from(WAITING_MAX).unwrap() {
            feed.publish(SystemTime::now(), said(n));
            if n % 1024 == 0 {
                assert!(scribe.catch_up().await.is_err());
            }
        }
        journal.fail_writes(None);
        scribe.catch_up().await.unwrap();
        let kept = seqs(journal.events(last, 2 * WAITING_MAX).await.unwrap());
        assert_eq!((kept.len(), kept[0]), (WAITING_MAX, Seq(last.0 + 2)), "the oldest goes, and memory is bounded");
        assert_eq!(scribe.lag_and_lost(), (0, passed_over + 1), "and is counted");
    }
}
