//! Why a data directory can't be used.

use std::{io, path::PathBuf};

use crate::{model::Epoch, store::StoreError};

/// Why a daemon can't have the data directory. Nothing runs that did not run before.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// A daemon that is alive holds it.
    #[error("data directory {} is in use by the daemon with process id {pid} (epoch {epoch}, since {since})", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Process id of the holder, in its own pid namespace.
        pid: u32,
        /// Its epoch.
        epoch: Epoch,
        /// When it took the directory, RFC 3339.
        since: String,
    },
    /// Another daemon is opening it right now and does not come to an end.
    #[error("another daemon has been opening data directory {} for too long; end it and try again", path.display())]
    Opening {
        /// The directory.
        path: PathBuf,
    },
    /// A backup is being restored into it, or was when the power went.
    #[error("a restore into data directory {} has not ended; wait for it, or run `hivekeeper restore` again", path.display())]
    Restoring {
        /// The directory.
        path: PathBuf,
    },
    /// Unix sockets go below it, whose paths the kernel bounds at 108 bytes.
    #[error("data directory path {} is {len} bytes long, at most {max} leave room for sockets below it; choose a shorter one", path.display())]
    TooLong {
        /// The directory, absolute.
        path: PathBuf,
        /// Its length in bytes.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The path is taken by something else.
    #[error("{} is not a directory", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// The file system is mounted read-only.
    #[error("{} is on a read-only file system; mount it read-write or choose another data directory", path.display())]
    ReadOnly {
        /// The file that could not be written.
        path: PathBuf,
    },
    /// Our user may not write there.
    #[error("no permission to write {}; give this user the right, or choose another data directory", path.display())]
    NoPermission {
        /// The file that could not be written.
        path: PathBuf,
    },
    /// No space left.
    #[error("no space left to write {}; free some, or choose another data directory", path.display())]
    Full {
        /// The file that could not be written.
        path: PathBuf,
    },
    /// A file of ours does not hold what it should.
    #[error("{} holds {found:?}, which is not {expected}; restore the file, or move it away", path.display())]
    Garbled {
        /// The file.
        path: PathBuf,
        /// What it holds.
        found: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// Anything else that the system said.
    #[error("can't use {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The database can't be used.
    #[error("can't use the database {}", path.display())]
    Database {
        /// The database.
        path: PathBuf,
        /// Why.
        source: StoreError,
    },
}

impl DataDirError {
    /// Names an error of the system by what the operator can do about it.
    pub(super) fn io(path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        match source.kind() {
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { path },
            io::ErrorKind::PermissionDenied => Self::NoPermission { path },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { path },
            // `AlreadyExists`: a directory was to be made where something else is.
            io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => Self::NotADirectory { path },
            _ => Self::Io { path, source },
        }
    }

    /// Says of the database what [`io`](Self::io) says of a file.
    pub(super) fn database(path: PathBuf, source: StoreError) -> Self {
        match source {
            StoreError::Full => Self::Full { path },
            StoreError::ReadOnly => Self::NoPermission { path },
            source => Self::Database { path, source },
        }
    }
}
