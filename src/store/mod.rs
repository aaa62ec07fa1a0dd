//! What outlives the daemon: the data directory that one daemon holds, the journal (SQLite) and the log books of the agents.

pub mod backup;
mod budget;
pub mod data_dir;
pub mod error;
mod forms;
pub mod history;
pub mod journal;
pub mod logbook;
pub mod records;
pub mod sqlite;
pub mod work;
mod work_forms;
mod worker;

#[cfg(test)]
pub mod failing;
#[cfg(test)]
pub mod suite;
#[cfg(test)]
mod testing;
#[cfg(test)]
pub mod work_memory;
#[cfg(test)]
pub mod work_suite;

pub use budget::{DiskBudget, DiskLimits};
pub use data_dir::{DataDir, DataDirError, Fence, Options};
pub use error::StoreError;
pub use history::{HistoryPage, HistoryQuery, Point, Resolution, Spread, Tokens};
pub use journal::{Answer, BoxFuture, Journal};
pub use logbook::{LogBook, LogBookStatus, LogLimits, NewLine};
pub use records::{
    Incarnation, IncarnationRow, JournalStatus, Ledger, LogLine, LogPage, LogQuery, OperationKey, OperationQuery,
    Pruned, PutOutcome, Retention, Standing, StandingState, StoredEvent, SwarmRow,
};
pub use sqlite::{SqliteJournal, journal_schema};
pub use work::{WorkBatch, WorkKept, WorkStore};
