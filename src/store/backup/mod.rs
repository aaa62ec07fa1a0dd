//! A hive in one file: a tar archive (ustar) with the journal, the history, the hive's id and, if asked for, the log books; its last entry is the
//! manifest, which names each of the others with its length and checksum. An archive without a whole manifest is none.
//!
//! A running daemon is not asked and not held up: both databases are copied by SQLite's own backup, each as of one moment behind the beginning.

mod archive;
mod error;
mod manifest;
mod restore;
mod take;

pub use error::BackupError;
pub use manifest::Manifest;
pub use restore::restore;
pub use take::take;

#[cfg(test)]
mod tests;
