//! The log books: what each agent wrote, numbered, on disk, bounded.
//!
//! `logs/SWARM/AGENT/` holds segments, files named by the number of their first line. A segment begins with a head that carries over what the ones
//! before it knew, so that opening a book reads one segment per agent. One thread writes, a second one reads. A line is safe from `kill -9` of the daemon when
//! its `append` has returned; a power cut may take the last seconds.

mod batch;
mod book;
mod index;
mod line;
mod read;
mod recover;
mod retain;
mod tail;
mod writer;

pub use book::{LogBook, LogBookStatus, LogLimits};
pub use line::NewLine;

#[cfg(test)]
mod tests;
