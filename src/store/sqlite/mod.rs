//! The journal in SQLite: `hive.db`, with a write-ahead log beside it.
//!
//! One thread writes and joins what waits into one transaction; a second one reads. What a call has acknowledged survives `kill -9`. A power cut may
//! undo the last moments of history, operations and events; what the operator wants, the epoch and the set-aside event numbers are
//! synced to the disk before they are acknowledged, and survive that, too.

pub(super) mod database;
mod events;
mod incarnations;
mod journal;
mod operations;
pub(super) mod prune;
pub(super) mod reader;
mod schema;
mod swarms;
mod tokens;
mod work;
pub(super) mod writer;

pub use journal::SqliteJournal;
pub use schema::journal_schema;
pub(super) use schema::{Claim, check_schema, claim};

#[cfg(test)]
mod tests;
