//! The handle: a bounded queue to the thread that writes, another to the one that reads.

use std::{
    collections::{HashMap, VecDeque},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use super::{index::Index, line::NewLine, read, recover, writer};
use crate::{
    model::{AgentId, LogRecords},
    store::{
        data_dir::Fence,
        error::StoreError,
        journal::Answer,
        records::{LogPage, LogQuery},
        worker::Worker,
    },
};

/// Bytes of lines that wait to be written. Beyond, `append` waits for room: the launchers' rings hold the rest.
const QUEUE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Records of `try_log` that wait; beyond, the oldest fall out. Half a second of five thousand agents that log twenty lines a second each fits.
const RECORDS_MAX: usize = 65_536;
/// Bytes of them: 128 a record.
const RECORD_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Readers that may wait for their turn.
const READS_MAX: usize = 256;
/// How long a call waits for its answer. A queue of [`QUEUE_BYTES_MAX`] is written in a fraction of a second, or the disk hangs.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(30);

/// What the books may take on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLimits {
    /// For one agent; the oldest segments go first. At least four segments fit.
    pub bytes_per_agent: u64,
    /// For all.
    pub total_bytes: u64,
    /// Length of a segment.
    pub segment_bytes: u64,
}

/// How the books are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogBookStatus {
    /// Whether the last write went well.
    pub ok: bool,
    /// Since when it is so.
    pub since: SystemTime,
    /// What the last failure was; kept when things are well again.
    pub last_error: Option<String>,
    /// Of all segments.
    pub bytes: u64,
    /// Lines that could not be written and did not come again, since this daemon started.
    pub lost_lines: u64,
    /// Records of `try_log` that fell out of the queue, since this daemon started.
    pub dropped_records: u64,
}

/// The log books of all agents. Dropping the last handle ends the threads, once what waits is written.
#[derive(Clone)]
pub struct LogBook {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    // Before the workers, so that the queue is closed when they are waited for.
    reads: mpsc::Sender<Read>,
    _reader: Worker,
    _writer: Worker,
}

/// What the handle and the threads share.
pub(super) struct Shared {
    pub(super) dir: PathBuf,
    pub(super) limits: LogLimits,
    /// What all books may take now: at most `limits.total_bytes`.
    bound: AtomicU64,
    pub(super) fence: Fence,
    pub(super) queue: Mutex<Queue>,
    pub(super) wake: Condvar,
    /// Bytes of the queue that are free.
    room: Arc<Semaphore>,
    pub(super) index: Mutex<Index>,
    pub(super) health: Mutex<Health>,
}

impl Shared {
    /// What all books may take now.
    pub(super) fn bound(&self) -> u64 {
        self.bound.load(Ordering::Relaxed)
    }

    pub(super) fn agent_dir(&self, agent: &AgentId) -> PathBuf {
        self.dir.join(agent.swarm.as_str()).join(agent.name.as_str())
    }
}

/// What waits to be written.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) jobs: VecDeque<Job>,
    pub(super) records: VecDeque<Records>,
    /// How many records they hold.
    pub(super) record_count: usize,
    pub(super) record_bytes: usize,
    /// Of whom how many records fell out since the last look.
    pub(super) dropped: HashMap<AgentId, u64>,
    pub(super) closed: bool,
}

impl Queue {
    /// Drops the oldest records if there are too many: whose, and how many.
    fn overflow(&mut self) -> Option<(AgentId, u64)> {
        let excess = self.record_count.saturating_sub(RECORDS_MAX);
        let heavy = self.record_bytes > RECORD_BYTES_MAX;
        if excess == 0 && !heavy {
            return None;
        }
        let oldest = self.records.front_mut()?;
        // By weight whole batches go: what was dropped of one gives no memory back.
        let records = if heavy { oldest.records.len() } else { excess };
        let (lost, agent) = (oldest.records.drop_oldest(records), oldest.agent.clone());
        self.record_count -= lost;
        if oldest.records.is_empty()
            && let Some(gone) = self.records.pop_front()
        {
            self.record_bytes -= gone.records.weight();
        }
        Some((agent, lost as u64))
    }
}

/// Records of one incarnation that were read at once.
pub(super) struct Records {
    pub(super) agent: AgentId,
    pub(super) incarnation: u64,
    pub(super) read_at: SystemTime,
    pub(super) records: LogRecords,
}

pub(super) enum Job {
    Append {
        agent: AgentId,
        incarnation: u64,
        lines: Vec<NewLine>,
        reply: oneshot::Sender<Result<u64, StoreError>>,
        /// Its bytes of the queue, given back when it is done.
        _room: OwnedSemaphorePermit,
    },
    /// The bound of all books has become smaller.
    MakeRoom,
    Remove {
        agent: AgentId,
        reply: oneshot::Sender<Result<(), StoreError>>,
    },
}

pub(super) struct Health {
    pub(super) ok: bool,
    pub(super) since: SystemTime,
    pub(super) last_error: Option<String>,
    pub(super) lost_lines: u64,
    pub(super) dropped_records: u64,
}

struct Read {
    agent: AgentId,
    query: LogQuery,
    reply: oneshot::Sender<Result<LogPage, StoreError>>,
}

impl LogBook {
    /// Opens the books below `dir`, which must be there. Reads each agent's last segment; blocks.
    ///
    /// # Errors
    /// Why the directory can't be read.
    pub fn open(dir: &Path, limits: LogLimits, fence: Fence) -> Result<Self, StoreError> {
        let per_agent = limits.bytes_per_agent.min(limits.total_bytes);
        let limits = LogLimits {
            bytes_per_agent: per_agent,
            total_bytes: limits.total_bytes,
            segment_bytes: limits.segment_bytes.min(per_agent / 4),
        };
        let health = Health { ok: true, since: SystemTime::now(), last_error: None, lost_lines: 0, dropped_records: 0 };
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            limits,
            bound: AtomicU64::new(limits.total_bytes),
            index: Mutex::new(recover::recover(dir, fence.usurped())?),
            fence,
            queue: Mutex::default(),
            wake: Condvar::new(),
            room: Arc::new(Semaphore::new(QUEUE_BYTES_MAX)),
            health: Mutex::new(health),
        });
        let (reads, mut waiting) = mpsc::channel::<Read>(READS_MAX);
        let reader = Worker::start("hk-log-read", {
            let shared = Arc::clone(&shared);
            move || {
                while let Some(Read { agent, query, reply }) = waiting.blocking_recv() {
                    // The caller may have gone away.
                    let _ = reply.send(read::page(&shared, &agent, &query));
                }
            }
        })?;
        let writer = Worker::start("hk-log", {
            let shared = Arc::clone(&shared);
            move || writer::run(&shared)
        })?;
        Ok(Self { inner: Arc::new(Inner { shared, reads, _reader: reader, _writer: writer }) })
    }

    /// Appends lines of one incarnation; returns the youngest line's number once they are written. Lines whose `seq` is there already are passed over, so
    /// that a launcher may send them again. Lines that could not be written may be handed in again; those that never are, are counted, and a
    /// note in the book says how many as soon as writing works.
    pub fn append(&self, agent: &AgentId, incarnation: u64, lines: Vec<NewLine>) -> Answer<'_, u64> {
        let weight = lines.iter().map(NewLine::weight).sum::<usize>().min(QUEUE_BYTES_MAX);
        let agent = agent.clone();
        let shared = &self.inner.shared;
        Box::pin(async move {
            let round_trip = async {
                let room = Arc::clone(&shared.room);
                let weight = u32::try_from(weight).unwrap_or(u32::MAX);
                let room = room.acquire_many_owned(weight).await.map_err(|_| StoreError::Gone)?;
                let (reply, answer) = oneshot::channel();
                shared.queue.lock().jobs.push_back(Job::Append { agent, incarnation, lines, reply, _room: room });
                shared.wake.notify_one();
                answer.await.map_err(|_| StoreError::Gone)?
            };
            tokio::time::timeout(ANSWER_WAIT_MAX, round_trip).await.unwrap_or(Err(StoreError::Busy))
        })
    }

    /// Hands records over without waiting that were read at this time. When the queue is full the oldest records fall out: their agents are
    /// returned, each with how many it has lost.
    pub fn try_log(
        &self,
        agent: &AgentId,
        incarnation: u64,
        read_at: SystemTime,
        records: LogRecords,
    ) -> Vec<(AgentId, u64)> {
        let shared = &self.inner.shared;
        let mut fallen = Vec::new();
        let idle = {
            let mut queue = shared.queue.lock();
            let queue = &mut *queue;
            let idle = queue.records.is_empty() && queue.jobs.is_empty();
            queue.record_count += records.len();
            queue.record_bytes += records.weight();
            queue.records.push_back(Records { agent: agent.clone(), incarnation, read_at, records });
            while let Some((agent, lost)) = queue.overflow() {
                *queue.dropped.entry(agent.clone()).or_default() += lost;
                fallen.push((agent, lost));
            }
            idle
        };
        // Who has found the queue empty wakes the writer for all that come until it looks.
        if idle {
            shared.wake.notify_one();
        }
        if !fallen.is_empty() {
            shared.health.lock().dropped_records += fallen.iter().map(|(_, lost)| lost).sum::<u64>();
        }
        fallen
    }

    /// Lines of an agent; an empty page when it has none.
    pub fn read(&self, agent: &AgentId, query: LogQuery) -> Answer<'_, LogPage> {
        let (reply, answer) = oneshot::channel();
        let read = Read { agent: agent.clone(), query, reply };
        Box::pin(async move {
            let round_trip = async {
                self.inner.reads.send(read).await.map_err(|_| StoreError::Gone)?;
                answer.await.map_err(|_| StoreError::Gone)?
            };
            tokio::time::timeout(ANSWER_WAIT_MAX, round_trip).await.unwrap_or(Err(StoreError::Busy))
        })
    }

    /// The last lines that an incarnation wrote, oldest first, from memory, each cut at 1 KiB: at most
    /// [`LAST_LINES_MAX`](crate::model::exit::LAST_LINES_MAX) of the incarnation that wrote last.
    pub fn tail(&self, agent: &AgentId, incarnation: u64, n: usize) -> Vec<String> {
        let index = self.inner.shared.index.lock();
        index.agents.get(agent).map(|agent| agent.tail.last(incarnation, n)).unwrap_or_default()
    }

    /// Changes whenever the agent's book grows; carries the youngest number. Closed when the book is removed.
    pub fn growth(&self, agent: &AgentId) -> watch::Receiver<u64> {
        self.inner.shared.index.lock().agent(agent).growth.subscribe()
    }

    /// The greatest output number of an incarnation that is safe; 0 for none. Known for the latest few incarnations.
    pub fn last_seq(&self, agent: &AgentId, incarnation: u64) -> u64 {
        let index = self.inner.shared.index.lock();
        index.agents.get(agent).map_or(0, |agent| agent.seqs.get(incarnation))
    }

    /// Takes an agent's book away.
    pub fn remove(&self, agent: &AgentId) -> Answer<'_, ()> {
        let (reply, answer) = oneshot::channel();
        self.inner.shared.queue.lock().jobs.push_back(Job::Remove { agent: agent.clone(), reply });
        self.inner.shared.wake.notify_one();
        Box::pin(async move {
            let answer = async { answer.await.map_err(|_| StoreError::Gone)? };
            tokio::time::timeout(ANSWER_WAIT_MAX, answer).await.unwrap_or(Err(StoreError::Busy))
        })
    }

    /// Bounds what all books take, as long as nothing else is said; never beyond what they were opened with. The oldest segments go.
    pub fn bound(&self, total_bytes: u64) {
        let shared = &self.inner.shared;
        let bound = total_bytes.min(shared.limits.total_bytes);
        shared.bound.store(bound, Ordering::Relaxed);
        if self.status().bytes <= bound {
            return;
        }
        let mut queue = shared.queue.lock();
        // One that waits does for both.
        if !queue.closed && !queue.jobs.iter().any(|job| matches!(job, Job::MakeRoom)) {
            queue.jobs.push_back(Job::MakeRoom);
            shared.wake.notify_one();
        }
    }

    /// How the books are. Does not block.
    pub fn status(&self) -> LogBookStatus {
        let bytes = self.inner.shared.index.lock().bytes;
        let health = self.inner.shared.health.lock();
        LogBookStatus {
            ok: health.ok,
            since: health.since,
            last_error: health.last_error.clone(),
            bytes,
            lost_lines: health.lost_lines,
            dropped_records: health.dropped_records,
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.queue.lock().closed = true;
        self.shared.wake.notify_one();
    }
}

/// What tests look into.
#[cfg(test)]
mod inside {
    use parking_lot::MutexGuard;

    use super::{AgentId, Index, Job, LogBook, QUEUE_BYTES_MAX, Shared};

    /// While it lives the thread that writes comes no further than its next look at the index.
    pub(in crate::store::logbook) struct Held<'a> {
        shared: &'a Shared,
        _index: MutexGuard<'a, Index>,
    }

    impl Held<'_> {
        /// Bytes of lines and number of records in the queue, the bytes with what the thread has already taken.
        pub(in crate::store::logbook) fn waiting(&self) -> (usize, usize) {
            let queue = self.shared.queue.lock();
            assert!(queue.jobs.iter().all(|job| matches!(job, Job::Append { .. })));
            (QUEUE_BYTES_MAX - self.shared.room.available_permits(), queue.record_count)
        }
    }

    impl LogBook {
        pub(in crate::store::logbook) fn hold_writer(&self) -> Held<'_> {
            Held { shared: &self.inner.shared, _index: self.inner.shared.index.lock() }
        }

        pub(in crate::store::logbook) fn segment_offset(&self, agent: &AgentId, after: u64) -> u64 {
            let index = self.inner.shared.index.lock();
            index.agents.get(agent).and_then(|agent| agent.segments.back()).map_or(0, |last| last.offset(after))
        }
    }
}
