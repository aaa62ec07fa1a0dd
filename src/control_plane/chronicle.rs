//! Writes down what the feed and the supervisors tell: events, where each agent stands, retention.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use actix::prelude::*;
use hivekeeper_actors::{EventKind as Supervised, SupervisionEvent};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::{
    events::Feed,
    health,
    model::{AgentId, Seq},
    store::{Journal, Retention, Standing, StandingState, StoreError, StoredEvent},
    view,
};

/// Events written in one transaction at most.
const BATCH_MAX: usize = 256;
/// Pause after a failed write: a full disk is looked at again soon, without a storm.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Numbers reserved ahead of the feed, so that they grow across a `kill -9`: at a thousand events a second ten seconds' worth.
pub const SEQS_AHEAD: u64 = 10_000;
/// Between two rounds of retention.
const PRUNE_EVERY: Duration = Duration::from_secs(60);
/// Standings that may wait for the journal; more are dropped, for the next one of that agent says it all.
pub const STANDINGS_MAX: usize = 4096;

/// Where an agent stands, on its way into the journal.
pub type StandingNote = (AgentId, Standing, SystemTime);

/// Turns what a supervisor tells of an agent into what boot needs to go on from there; `None` when nothing changes.
pub fn standing(event: &SupervisionEvent, now: SystemTime) -> Option<Standing> {
    let note = |state, attempt| Some(Standing { state, restarts: event.restarts, attempt });
    match &event.kind {
        Supervised::Started { .. } => note(StandingState::Active, None),
        Supervised::BackingOff { attempt, delay } => {
            note(StandingState::BackingOff { retry_at: now + *delay }, Some(*attempt))
        }
        Supervised::Failed { retry_in: Some(delay), .. } => {
            note(StandingState::BackingOff { retry_at: now + *delay }, None)
        }
        Supervised::Failed { retry_in: None, .. } => note(StandingState::Failed, None),
        Supervised::Completed => note(StandingState::Completed, None),
        _ => None,
    }
}

/// Keeps the journal behind the feed.
pub struct Chronicle {
    journal: Arc<dyn Journal>,
    feed: Feed,
    health: health::Handle,
    retention: Retention,
    progress: Arc<Mutex<Progress>>,
    standings: Arc<tokio::sync::Mutex<mpsc::Receiver<StandingNote>>>,
}

/// How far it has come; kept outside the actor, so that a crash repeats nothing.
pub struct Progress {
    /// The last number that is written, or that is not to be written.
    pub written: Seq,
    /// Numbers up to this one are reserved.
    pub reserved: Seq,
}

impl Chronicle {
    /// Follows `feed` from `progress.written` on.
    pub fn new(
        journal: Arc<dyn Journal>,
        feed: Feed,
        health: health::Handle,
        retention: Retention,
        progress: Arc<Mutex<Progress>>,
        standings: Arc<tokio::sync::Mutex<mpsc::Receiver<StandingNote>>>,
    ) -> Self {
        Self { journal, feed, health, retention, progress, standings }
    }
}

impl Actor for Chronicle {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let scribe = Scribe {
            journal: Arc::clone(&self.journal),
            feed: self.feed.clone(),
            health: self.health.clone(),
            progress: Arc::clone(&self.progress),
        };
        ctx.spawn(scribe.follow().into_actor(self));
        ctx.spawn(keep_standings(Arc::clone(&self.journal), Arc::clone(&self.standings)).into_actor(self));
        ctx.run_interval(PRUNE_EVERY, |actor, ctx| {
            let (journal, retention) = (Arc::clone(&actor.journal), actor.retention.clone());
            let prune = async move {
                if let Err(error) = journal.prune(SystemTime::now(), retention).await {
                    tracing::warn!(%error, "failed to prune the journal");
                }
            };
            ctx.spawn(prune.into_actor(actor));
        });
    }
}

struct Scribe {
    journal: Arc<dyn Journal>,
    feed: Feed,
    health: health::Handle,
    progress: Arc<Mutex<Progress>>,
}

impl Scribe {
    async fn follow(self) {
        let mut failing = false;
        loop {
            let from = self.progress.lock().written;
            let mut subscription = self.feed.subscribe(from);
            match subscription.next().await {
                Ok(_) => {}
                Err(gap) => {
                    tracing::error!(after = %gap.after, first_kept = %gap.first_kept, "events left the ring before they could be journaled");
                    self.progress.lock().written = Seq(gap.first_kept.0.saturating_sub(1));
                    continue;
                }
            }
            match self.write_behind(from).await {
                Ok(()) if failing => {
                    failing = false;
                    self.health.report(health::Report::Journal { ok: true, error: None });
                }
                Ok(()) => {}
                Err(error) => {
                    if !failing {
                        tracing::error!(%error, "failed to write the journal; events wait in memory");
                    }
                    failing = true;
                    self.health.report(health::Report::Journal { ok: false, error: Some(error.to_string()) });
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
        }
    }

    async fn write_behind(&self, from: Seq) -> Result<(), StoreError> {
        let Ok(events) = self.feed.read(from, BATCH_MAX) else { return Ok(()) };
        let Some(last) = events.last().map(|event| event.seq) else { return Ok(()) };
        let reserved = self.progress.lock().reserved;
        if last.0 + SEQS_AHEAD / 2 > reserved.0 {
            let upto = Seq(last.0 + SEQS_AHEAD);
            self.journal.reserve_seqs(upto).await?;
            self.progress.lock().reserved = upto;
        }
        let rows: Vec<StoredEvent> = events
            .iter()
            .filter(|event| event.kind.durable())
            .map(|event| StoredEvent {
                seq: event.seq,
                epoch: event.epoch,
                at: event.at,
                kind: event.kind.word().to_owned(),
                subject: view::event_subject(event),
                body: Arc::from(view::event_json(event)),
            })
            .collect();
        if !rows.is_empty() {
            self.journal.append_events(rows).await?;
        }
        self.progress.lock().written = last;
        Ok(())
    }
}

async fn keep_standings(journal: Arc<dyn Journal>, notes: Arc<tokio::sync::Mutex<mpsc::Receiver<StandingNote>>>) {
    let mut notes = notes.lock().await;
    while let Some((agent, standing, at)) = notes.recv().await {
        if let Err(error) = journal.set_standing(agent.clone(), standing, at).await {
            tracing::warn!(%agent, %error, "failed to journal where an agent stands");
        }
    }
}
