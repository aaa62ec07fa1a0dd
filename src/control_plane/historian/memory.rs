//! What the history knows and has not written yet, and the database behind it.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use tokio::{sync::Notify, task::spawn_blocking};

use super::answer::{Span, Unwritten};
use crate::{
    events::{Feed, Gap},
    health,
    model::{Epoch, Event, EventKind, Seq, Target},
    store::{
        Fence, HistoryPage, HistoryQuery, Resolution, StoreError,
        history::{Buckets, Closed, Entry, HistoryFile, Numbered, Opened, Origin, start_s},
    },
};

/// Events taken in one turn: with a thousand agents each may hold a thousand documents, of which 16 take some ten milliseconds.
const TURN_EVENTS: usize = 16;
/// Entries in one transaction: some ten milliseconds of writing.
const BATCH_MAX: usize = 2048;
/// Entries that wait for a database that can't be written, at some 200 bytes each 4 MiB: three minutes of a hive of a thousand agents. What
/// goes beyond is a hole.
pub(super) const WAITING_MAX: usize = 20_000;

/// What the history needs.
pub struct HistoryOptions {
    /// `history.sqlite` in the data directory.
    pub path: PathBuf,
    /// This daemon.
    pub epoch: Epoch,
    /// Whether a younger one has come.
    pub fence: Fence,
    /// `[history] max`.
    pub bytes_max: u64,
    /// What it listens to.
    pub feed: Feed,
    /// Where documents are looked up after a gap, and where its own troubles are told.
    pub health: health::Handle,
}

/// A handle on the history; clones are the same.
#[derive(Clone)]
pub struct History {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    origin: Origin,
    pub(super) feed: Feed,
    pub(super) health: health::Handle,
    state: Mutex<State>,
    file: Mutex<Option<Arc<HistoryFile>>>,
    /// Something waits to be written.
    pub(super) wake: Notify,
}

struct State {
    buckets: Buckets,
    /// The last event that was taken.
    after: Seq,
    /// Everything before it was seen.
    seen_until: SystemTime,
    waiting: VecDeque<Numbered>,
    /// The number of the last entry.
    last: u64,
    /// From the first to the last bucket that was given up because the database could not be written.
    lost: Option<(SystemTime, SystemTime)>,
    /// Why the database can't be used.
    trouble: Option<String>,
}

impl History {
    /// Begins behind the feed's head, at `started_at`, and opens the database. That it can't be opened is no error here: it is tried again. Blocks.
    pub fn open(options: HistoryOptions, started_at: SystemTime) -> Self {
        let HistoryOptions { path, epoch, fence, bytes_max, feed, health } = options;
        let state = State {
            buckets: Buckets::default(),
            after: feed.head(),
            seen_until: started_at,
            waiting: VecDeque::new(),
            last: 0,
            lost: None,
            trouble: None,
        };
        let shared = Shared {
            origin: Origin { path, epoch, started_at, fence, bytes_max },
            feed,
            health,
            state: Mutex::new(state),
            file: Mutex::new(None),
            wake: Notify::new(),
        };
        let history = Self { shared: Arc::new(shared) };
        let opened = HistoryFile::open(&history.shared.origin);
        history.note(history.keep_open(opened).map(|_| ()));
        history
    }

    fn keep_open(&self, opened: Result<Opened, StoreError>) -> Result<Arc<HistoryFile>, StoreError> {
        let Opened { file, set_aside } = opened?;
        if let Some(path) = set_aside {
            tracing::error!(path = %path.display(), "the history could not be read and was set aside; it begins anew");
        }
        let file = Arc::new(file);
        *self.shared.file.lock() = Some(Arc::clone(&file));
        Ok(file)
    }

    async fn file(&self) -> Result<Arc<HistoryFile>, StoreError> {
        if let Some(file) = &*self.shared.file.lock() {
            return Ok(Arc::clone(file));
        }
        let origin = self.shared.origin.clone();
        let opened = spawn_blocking(move || HistoryFile::open(&origin)).await.map_err(|_| StoreError::Gone)?;
        self.keep_open(opened)
    }

    /// Sets a database aside that turned out to be damaged; the next use makes another.
    async fn give_up(&self, now: SystemTime) {
        let file = self.shared.file.lock().take();
        let path = self.shared.origin.path.clone();
        {
            // What it held of today is gone.
            let state = &mut *self.shared.state.lock();
            let from = state.lost.map_or(self.shared.origin.started_at, |(from, _)| from);
            state.lost = Some((from.min(now), now));
        }
        let aside = spawn_blocking(move || {
            drop(file);
            HistoryFile::set_aside(&path)
        });
        match aside.await {
            Ok(Ok(path)) => {
                tracing::error!(path = %path.display(), "the history is damaged and was set aside; it begins anew");
            }
            Ok(Err(error)) => tracing::error!(%error, "failed to set the damaged history aside"),
            Err(error) => tracing::error!(%error, "failed to set the damaged history aside"),
        }
    }

    /// Takes what is new from the feed, at most a turn's worth; whether there may be more.
    pub(super) fn take(&self, now: SystemTime) -> bool {
        let state = &mut *self.shared.state.lock();
        let mut closed = Vec::new();
        let more = match self.shared.feed.read(state.after, TURN_EVENTS) {
            Ok(events) if events.is_empty() => {
                state.buckets.expire(now, &mut closed);
                state.seen_until = now;
                false
            }
            Ok(events) => {
                for event in events {
                    state.see(&event, &mut closed);
                }
                true
            }
            Err(gap) => {
                self.resume(state, gap, now, &mut closed);
                true
            }
        };
        state.push_all(closed);
        if !state.waiting.is_empty() {
            self.shared.wake.notify_one();
        }
        more
    }

    /// The last event that was taken.
    pub(super) fn after(&self) -> Seq {
        self.shared.state.lock().after
    }

    /// Events have left the ring before they were taken: what they told is nobody's.
    fn resume(&self, state: &mut State, gap: Gap, now: SystemTime, closed: &mut Vec<Closed>) {
        tracing::warn!(after = %gap.after, first_kept = %gap.first_kept, "events left the ring before the history saw them");
        let hive = self.shared.health.hive();
        state.buckets.resume(hive.agents.iter().map(|agent| &**agent), closed);
        state.push(Entry::Hole { from: state.seen_until.min(now), to: now });
        state.after = gap.head;
        state.seen_until = now;
    }

    /// Writes what waits.
    ///
    /// # Errors
    /// What the store said; the rest waits.
    pub async fn flush(&self, now: SystemTime) -> Result<(), StoreError> {
        let result = self.write(now, false).await;
        if let Err(StoreError::Corrupt(_) | StoreError::Damaged(_)) = &result {
            self.give_up(now).await;
        }
        self.note(result.clone());
        result
    }

    /// Writes everything, open buckets included: the daemon ends.
    ///
    /// # Errors
    /// What the store said.
    pub async fn finish(&self, now: SystemTime, nothing_runs_on: bool) -> Result<(), StoreError> {
        while self.take(now) {}
        {
            let state = &mut *self.shared.state.lock();
            let mut closed = Vec::new();
            state.buckets.close(&mut closed);
            state.push_all(closed);
        }
        self.write(now, nothing_runs_on).await
    }

    async fn write(&self, now: SystemTime, ended: bool) -> Result<(), StoreError> {
        let file = self.file().await?;
        loop {
            let (batch, seen_until) = self.shared.state.lock().batch();
            let last = seen_until.is_some();
            let number = batch.last().map_or(0, |entry| entry.number);
            file.write(batch, seen_until, ended && last).await?;
            self.shared.state.lock().waiting.retain(|entry| entry.number > number);
            if last {
                break;
            }
        }
        while file.trim(now).await? {}
        Ok(())
    }

    /// Tells when the database can't be used, and when it can again.
    fn note(&self, result: Result<(), StoreError>) {
        let error = result.err().map(|error| error.to_string());
        {
            let state = &mut *self.shared.state.lock();
            if state.trouble == error {
                return;
            }
            state.trouble.clone_from(&error);
        }
        match &error {
            Some(error) => tracing::error!(%error, "failed to write the history; the daemon goes on without"),
            None => tracing::info!("the history can be written again"),
        }
        self.shared.health.report(health::Report::History { ok: error.is_none(), error });
    }

    /// What was measured; what is not written yet is in it, too.
    ///
    /// # Errors
    /// Why the database can't be read.
    pub async fn read(&self, query: HistoryQuery, now: SystemTime) -> Result<HistoryPage, StoreError> {
        let Some(span) = Span::of(&query, now) else {
            let resolution = query.resolution.unwrap_or(Resolution::TenSeconds);
            return Ok(HistoryPage { resolution, since: query.until, until: query.until, points: Vec::new() });
        };
        let file = self.shared.file.lock().clone();
        let Some(file) = file else {
            let why = self.shared.state.lock().trouble.clone();
            return Err(StoreError::Other(why.unwrap_or_else(|| "it is being opened".to_owned())));
        };
        // Memory first: what is written in between is in both, and its number says so.
        let unwritten = self.shared.state.lock().unwritten(&query.of);
        let stored = file.read(&query.of, span.resolution, span.from_s, span.to_s).await?;
        Ok(HistoryPage {
            resolution: span.resolution,
            since: at(span.from_s),
            until: query.until.min(now),
            points: span.points(stored, &unwritten),
        })
    }
}

impl State {
    fn see(&mut self, event: &Event, closed: &mut Vec<Closed>) {
        self.after = event.seq;
        match &event.kind {
            EventKind::AgentChanged { agent, .. } => self.buckets.see(event.at, [&**agent], closed),
            EventKind::Samples { agents } => {
                self.buckets.see(event.at, agents.iter().map(|agent| &**agent), closed);
            }
            EventKind::AgentRemoved { agent } => self.buckets.remove(agent, closed),
            _ => return,
        }
        self.seen_until = event.at;
    }

    fn push_all(&mut self, closed: Vec<Closed>) {
        for bucket in closed {
            self.push(Entry::Bucket(bucket));
        }
    }

    fn push(&mut self, entry: Entry) {
        self.last += 1;
        self.waiting.push_back(Numbered { number: self.last, entry });
        while self.waiting.len() > WAITING_MAX {
            let Some(Numbered { entry, .. }) = self.waiting.pop_front() else { break };
            let (from, to) = match entry {
                Entry::Bucket(bucket) => (at(bucket.start_s), at(bucket.start_s)),
                Entry::Hole { from, to } => (from, to),
            };
            self.lost = Some(self.lost.map_or((from, to), |(first, last)| (first.min(from), last.max(to))));
        }
    }

    /// What is to be written next, and, when nothing waits behind it, up to when everything is then there.
    fn batch(&mut self) -> (Vec<Numbered>, Option<SystemTime>) {
        if let Some((from, to)) = self.lost.take() {
            self.push(Entry::Hole { from, to });
        }
        let batch: Vec<Numbered> = self.waiting.iter().take(BATCH_MAX).cloned().collect();
        let whole = batch.len() == self.waiting.len();
        // What is in open buckets is not.
        (batch, whole.then(|| at(start_s(self.seen_until))))
    }

    fn unwritten(&self, of: &Target) -> Unwritten {
        let mut unwritten = Unwritten { open: self.buckets.open(of), ..Unwritten::default() };
        unwritten.holes.extend(self.lost);
        for Numbered { number, entry } in &self.waiting {
            match entry {
                Entry::Bucket(bucket) if bucket.of == *of => {
                    unwritten.closed.push((*number, bucket.start_s, bucket.tally));
                }
                Entry::Bucket(_) => {}
                Entry::Hole { from, to } => unwritten.holes.push((*from, *to)),
            }
        }
        unwritten
    }
}

pub(super) fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(SystemTime::UNIX_EPOCH)
}
