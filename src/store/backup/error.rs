//! Why a backup can't be made, or used.

use std::{io, path::PathBuf};

use crate::store::{DataDirError, StoreError};

/// Why there is no backup, or nothing was restored. What was there before is untouched.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is no hive.
    #[error("{} is no data directory of a hive: it has no hive.db", path.display())]
    NoHive {
        /// The directory.
        path: PathBuf,
    },
    /// The directory to restore into is not empty.
    #[error("{} is in use: it holds {found:?}; restore into a new or empty directory", path.display())]
    Used {
        /// The directory.
        path: PathBuf,
        /// One of its entries.
        found: String,
    },
    /// A daemon lives in the directory to restore into.
    #[error("a daemon is running in {}; restore into a new or empty directory", path.display())]
    Living {
        /// The directory.
        path: PathBuf,
    },
    /// The file is not a whole backup.
    #[error("{} can't be restored: {why}", path.display())]
    Unusable {
        /// The backup.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A database can't be copied, or its copy not be read.
    #[error("can't use the database {}", path.display())]
    Database {
        /// The database.
        path: PathBuf,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// The directory can't become a data directory.
    #[error(transparent)]
    Directory(#[from] DataDirError),
    /// What the system said.
    #[error("can't use {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

impl BackupError {
    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    pub(super) fn database<E: Into<StoreError>>(path: impl Into<PathBuf>) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |source| Self::Database { path, source: source.into() }
    }
}
