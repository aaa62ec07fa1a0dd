//! What rooms that this edge does not see, or that are made after it, count.

use crate::{data_plane::PlaneStats, model::NotifierStatus, stream};

/// Reads for a scrape. Must not block.
pub trait MetricsReader: Send + Sync {
    /// As it is now.
    fn read(&self) -> Readings;
}

/// What is counted beside the health document.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Readings {
    /// Connections and messages of agents.
    pub plane: PlaneStats,
    /// Viewers of `/ws/hybrid-health`.
    pub viewers: stream::Stats,
    /// The journal behind the feed.
    pub journal: JournalReading,
    /// What is kept on disk.
    pub disk: DiskReading,
    /// Commands.
    pub operations: OperationsReading,
    /// The supervision tree's threads and messages; `None` while there is no tree.
    pub actors: Option<ActorsReading>,
    /// Who is told when something is wrong.
    pub notifiers: Vec<NotifierStatus>,
}

/// The journal behind the feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JournalReading {
    /// Whether its last use went well.
    pub ok: bool,
    /// Events of the feed that it has not written, or not looked at yet; some of these it will pass over.
    pub lag: u64,
    /// Events given up before it could write them, since this daemon started; readings that left the ring unseen are counted along.
    pub lost: u64,
    /// Database and write-ahead log on disk, bytes.
    pub size_bytes: u64,
}

/// What the daemon keeps on disk, bytes, as it was seen last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskReading {
    /// The journal.
    pub journal: u64,
    /// The history.
    pub history: u64,
    /// The log books.
    pub logs: u64,
    /// What all of them may take.
    pub max: u64,
    /// What the file system has left.
    pub free: u64,
}

/// Operations by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OperationsReading {
    /// Wait now.
    pub accepted: u64,
    /// Under way now.
    pub running: u64,
    /// Ended well, since this daemon started.
    pub succeeded: u64,
    /// Ended otherwise.
    pub failed: u64,
    /// Withdrawn.
    pub cancelled: u64,
}

/// Threads and messages of the supervision tree, since it grew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ActorsReading {
    /// Threads that serve actors.
    pub threads: u64,
    /// Threads out of use now because a handler blocks them.
    pub stuck: u64,
    /// Threads that were ever taken out of use.
    pub fenced: u64,
    /// How often the thread of the supervisors was found blocked.
    pub stalls: u64,
    /// Panics of tasks.
    pub task_panics: u64,
    /// Messages that were taken and will never be handled.
    pub dead_letters: u64,
}
