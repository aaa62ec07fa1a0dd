//! Keeps the history behind the feed.
//!
//! `memory` holds what is not written yet and answers for all of it (its state outlives the actor, so a crash repeats and loses nothing), `answer` puts it into points (pure); `actor` listens to the feed
//! and writes, side by side, so that a slow disk never makes it deaf.

mod actor;
mod answer;
mod memory;

pub use actor::Historian;
pub use memory::{History, HistoryOptions};

#[cfg(test)]
mod tests;
