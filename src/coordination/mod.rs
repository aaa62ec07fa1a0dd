//! Work that is shared out: tasks, claims, locks and messages of a swarm. The rules are pure; `desk` takes what is wanted to the `clerk`, who alone asks
//! them, and writes down what they say before anybody hears of it.
//!
//! Each core (`board`, `locks`, `mail`) holds the documents of all swarms, is told what somebody wants and what the time is, and answers, or refuses and
//! changes nothing. What has changed is handed over by its `drain`, so that whoever drives it can write it down before anybody hears of it.
//! Swarms never see each other: a document of another swarm is as unknown as one that never was.

pub mod board;
mod clerk;
mod counts;
mod desk;
#[cfg(test)]
mod desk_tests;
pub mod locks;
pub mod mail;
pub mod progress;
mod refused;
#[cfg(test)]
pub(crate) mod testing;

pub use clerk::Clerk;
pub use counts::{LockCounts, MessageCounts, TaskCounts, WorkCounts};
pub use desk::{Bell, Cores, Desk, Fate, WorkChanges, WorkError, WorkWitness};
pub use refused::Refused;

use crate::model::Fence;

/// Gives out fencing tokens and numbers, both in the order of asking in the whole hive. The next daemon goes on behind the greatest that is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counter {
    next: u64,
}

impl Counter {
    /// Goes on behind this one.
    pub fn behind(last: u64) -> Self {
        Self { next: last + 1 }
    }

    /// The greatest that was given out.
    pub fn last(self) -> u64 {
        self.next - 1
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// The next fencing token.
    pub fn fence(&mut self) -> Fence {
        Fence(self.number())
    }
}
