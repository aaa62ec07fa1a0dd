//! What outlives the daemon: the journal (SQLite) and the log books of the agents.

pub mod records;

pub use records::{LogLine, LogPage, LogQuery, StoredEvent};
