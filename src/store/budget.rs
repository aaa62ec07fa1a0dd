//! What the data directory may take on disk, and what must stay free beside it. The history has a bound of its own; the journal gets what it leaves, and
//! the log books what both leave. They give way when it gets less, an old line first and then an old event: these are missed least.

use std::{path::PathBuf, sync::Arc};

use nix::sys::statvfs::statvfs;
use parking_lot::Mutex;

use super::{error::StoreError, journal::Journal, logbook::LogBook};
use crate::model::DiskUse;

/// What the log books keep in any case: the last words of agents, and not enough to matter to a disk.
const LOGS_MIN: u64 = 1 << 20;
/// The disk is called low from a quarter above the least that must be free: the books are cut back to that least, and it would come and go there.
const MARGIN: u64 = 4;

/// `[disk]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskLimits {
    /// Journal, history and log books together.
    pub bytes_max: u64,
    /// Of the file system.
    pub free_min: u64,
    /// Of the log books, however much room there is.
    pub logs_max: u64,
    /// Of the journal, however much room there is.
    pub journal_max: u64,
}

/// Looks at the disk, and bounds journal and log books.
pub struct DiskBudget {
    dir: PathBuf,
    limits: DiskLimits,
    journal: Arc<dyn Journal>,
    logs: LogBook,
    seen: Mutex<DiskUse>,
}

impl DiskBudget {
    /// Of this data directory.
    pub fn new(dir: PathBuf, limits: DiskLimits, journal: Arc<dyn Journal>, logs: LogBook) -> Self {
        Self { dir, limits, journal, logs, seen: Mutex::default() }
    }

    /// What was seen last.
    pub fn seen(&self) -> DiskUse {
        *self.seen.lock()
    }

    /// `[disk] max`.
    pub fn bytes_max(&self) -> u64 {
        self.limits.bytes_max
    }

    /// Looks, and gives journal and log books what is left. Blocks.
    ///
    /// # Errors
    /// The file system can't be looked at: the directory is gone.
    pub fn look(&self) -> Result<Option<String>, StoreError> {
        let disk = statvfs(&self.dir).map_err(|error| StoreError::from(std::io::Error::from(error)))?;
        let size = |name: &str| std::fs::metadata(self.dir.join(name)).map_or(0, |file| file.len());
        // Types of other widths elsewhere.
        #[allow(clippy::useless_conversion, reason = "the fields have other widths on other systems")]
        let free = u64::from(disk.blocks_available()).saturating_mul(u64::from(disk.fragment_size()));
        let found = DiskUse {
            journal: self.journal.status().size_bytes,
            history: size("history.sqlite") + size("history.sqlite-wal"),
            logs: self.logs.status().bytes,
            free,
        };
        *self.seen.lock() = found;
        let shares = share(self.limits, found);
        self.journal.bound(shares.journal);
        self.logs.bound(shares.logs);
        Ok(shares.complaint)
    }
}

/// What journal and log books may take, and what is wrong.
struct Shares {
    journal: u64,
    logs: u64,
    complaint: Option<String>,
}

fn share(limits: DiskLimits, found: DiskUse) -> Shares {
    let DiskUse { journal, history, logs, free } = found;
    // What both hold is free as soon as they give it up. The books are as small as they get before the journal gives anything.
    let beside =
        (limits.bytes_max.saturating_sub(history)).min((journal + logs + free).saturating_sub(limits.free_min));
    let journal_bound = limits.journal_max.min(beside.saturating_sub(LOGS_MIN));
    let left = limits.bytes_max.saturating_sub(journal + history);
    // What the books hold is free as soon as they give it up.
    let reach = (logs + free).saturating_sub(limits.free_min);
    let bound = left.min(reach).min(limits.logs_max).max(LOGS_MIN);
    let size = bytesize::ByteSize;
    let complaint = if free < limits.free_min.saturating_add(limits.free_min / MARGIN) {
        let (free, least) = (size(free), size(limits.free_min));
        Some(format!("{free} are free for the data directory, {least} should be; the oldest log lines go first"))
    } else if left < LOGS_MIN {
        let (used, max) = (size(journal + history), size(limits.bytes_max));
        Some(format!(
            "journal and history take {used} of the {max} of [disk] max; raise it, or lower [history] and the numbers of [journal]"
        ))
    } else {
        None
    };
    Shares { journal: journal_bound, logs: bound, complaint }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const LIMITS: DiskLimits =
        DiskLimits { bytes_max: 1000 * MIB, free_min: 100 * MIB, logs_max: 600 * MIB, journal_max: 250 * MIB };

    fn found(journal: u64, history: u64, logs: u64, free: u64) -> DiskUse {
        DiskUse { journal: journal * MIB, history: history * MIB, logs: logs * MIB, free: free * MIB }
    }

    fn shared(journal: u64, history: u64, logs: u64, free: u64) -> (u64, Option<String>) {
        let shares = share(LIMITS, found(journal, history, logs, free));
        (shares.logs / MIB, shares.complaint)
    }

    #[test]
    fn the_journal_gives_way_behind_the_log_books() {
        let journal = |journal, history, logs, free| share(LIMITS, found(journal, history, logs, free)).journal / MIB;
        assert_eq!(journal(10, 100, 600, 10_000), 250, "never more than its own bound");
        assert_eq!(journal(10, 800, 100, 10_000), 199, "what the history and the last words leave");
        assert_eq!(journal(200, 10, 300, 0), 250, "the log books give way first");
        assert_eq!(journal(200, 10, 1, 0), 100);
        assert_eq!(journal(50, 10, 1, 0), 0);
    }

    #[test]
    fn log_books_get_what_the_others_leave() {
        assert_eq!(shared(100, 100, 0, 10_000), (600, None), "never more than their own bound");
        assert_eq!(shared(300, 300, 500, 10_000), (400, None));
        let (bound, complaint) = shared(900, 200, 500, 10_000);
        assert_eq!(bound, 1, "the last words stay");
        assert!(complaint.unwrap_or_default().contains("[disk] max"));
    }

    #[test]
    fn log_books_give_way_to_a_disk_that_gets_full() {
        assert_eq!(shared(10, 10, 300, 200), (400, None), "they may grow into what need not stay free");
        let (bound, complaint) = shared(10, 10, 300, 40);
        assert_eq!(bound, 240, "sixty less");
        assert!(
            complaint.is_some_and(|said| said.contains("40.0 MiB are free") && said.contains("100.0 MiB should be"))
        );
        assert_eq!(shared(10, 10, 300, 0).0, 200);
        assert_eq!(shared(10, 10, 5, 0).0, 1);
        assert!(shared(10, 10, 240, 101).1.is_some(), "what was cut back is not well again at once");
    }
}
