//! The last 24 hours of what was measured, per agent and per swarm, at falling resolution: `history.sqlite` beside the journal.
//!
//! `bucket` makes buckets of ten seconds from documents (pure), `tally` is what is in one, `file` is the database with its threads, `rows` its statements,
//! `retain` what it forgets. History is a convenience: what goes wrong with it is said, and harms nothing else.

mod bucket;
mod file;
mod point;
mod retain;
mod rows;
mod tally;

pub(crate) use bucket::{Buckets, Closed, start_s};
pub(crate) use file::{Entry, HistoryFile, Numbered, Opened, Origin, Stored};
pub use point::{HistoryPage, HistoryQuery, Point, Resolution, Spread, Tokens};
pub(crate) use tally::Tally;

#[cfg(test)]
mod tests;
