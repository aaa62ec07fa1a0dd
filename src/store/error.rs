//! Why the store said no, in words that say what to do.

use std::io;

/// Why a call to the store failed. Nothing of the call was kept, save with [`StoreError::Busy`], where it may have been.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// A younger daemon took the data directory over. This one must end and touch nothing.
    #[error("a younger daemon has taken this data directory over; this daemon must end")]
    Fenced,
    /// No space, no quota or a file-size limit.
    #[error("no space left for the data directory; free some, and writing goes on by itself")]
    Full,
    /// The file system, or our rights on it, do not let us write.
    #[error("data directory can't be written; mount it read-write and give this user the right to write there")]
    ReadOnly,
    /// The queue stayed full, or a lock stayed taken, until the deadline. It is not known whether the call was carried out; doing it again does no harm.
    #[error("store did not answer in time; look for a slow disk, or for another program that holds the database")]
    Busy,
    /// A record can't be read.
    #[error("database is damaged ({0}); stop the daemon, move `hive.db*` out of the data directory and start again")]
    Corrupt(String),
    /// The file itself is damaged: a page of it can't be read.
    #[error(
        "database is damaged ({0}); stop the daemon, and restore a backup, or move `hive.db*` out of the data directory and start again"
    )]
    Damaged(String),
    /// Another file, or none, lies where the open one was. What was written would be gone with the daemon.
    #[error(
        "data directory was removed or replaced under the daemon; put it back, or stop the daemon and restore a backup"
    )]
    Vanished,
    /// The database was written by a later version.
    #[error("database has schema {found}, this version knows up to {known}; start the later version again")]
    Newer {
        /// The schema found.
        found: i64,
        /// The latest that this version knows.
        known: i64,
    },
    /// The call does not fit what is stored: an unknown swarm, an incarnation that exists.
    #[error("{0}")]
    Conflict(String),
    /// The thread behind the store has ended.
    #[error("store is closed")]
    Gone,
    /// Anything else, in the system's words.
    #[error("{0}")]
    Other(String),
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // EFBIG is RLIMIT_FSIZE or a file system's own bound: for the operator the same as a full disk.
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => Self::Full,
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => Self::ReadOnly,
            _ => Self::Other(error.to_string()),
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        let rusqlite::Error::SqliteFailure(failure, _) = &error else {
            // A column that does not hold what we put there, a text that is no UTF-8.
            return Self::Corrupt(error.to_string());
        };
        match failure.code {
            Code::DiskFull => Self::Full,
            // The index of the write-ahead log could not be made longer: SQLite has no better word for a full disk there.
            Code::SystemIoFailure if failure.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE => Self::Full,
            Code::ReadOnly | Code::PermissionDenied => Self::ReadOnly,
            Code::DatabaseBusy | Code::DatabaseLocked => Self::Busy,
            Code::DatabaseCorrupt | Code::NotADatabase => Self::Damaged(error.to_string()),
            Code::ConstraintViolation => Self::Conflict(error.to_string()),
            _ => Self::Other(error.to_string()),
        }
    }
}

impl From<rusqlite::types::FromSqlError> for StoreError {
    fn from(error: rusqlite::types::FromSqlError) -> Self {
        Self::Corrupt(error.to_string())
    }
}
