//! How much of everything there is, kept up with each change, so that asking costs nobody his turn.

use std::collections::BTreeMap;

use super::desk::Cores;
use crate::model::{SwarmName, TaskState};

/// Tasks by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TaskCounts([usize; TaskState::ALL.len()]);

impl TaskCounts {
    pub(super) fn add(&mut self, state: TaskState) {
        self.0[state as usize] += 1;
    }

    pub(super) fn remove(&mut self, state: TaskState) {
        self.0[state as usize] -= 1;
    }

    /// How many are in this state.
    pub fn of(self, state: TaskState) -> usize {
        self.0[state as usize]
    }

    /// How many have not ended.
    pub fn open(self) -> usize {
        TaskState::ALL.into_iter().filter(|state| !state.ended()).map(|state| self.of(state)).sum()
    }
}

/// Locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LockCounts {
    /// Those that somebody holds.
    pub held: usize,
    /// Attempts, and changes of locks that are held, that wait.
    pub waiting: usize,
}

/// Messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MessageCounts {
    /// To be delivered to their recipients.
    pub waiting: usize,
    /// Delivered and not acknowledged, or put off by their recipients.
    pub delivered: usize,
    /// Dead letters.
    pub dead: usize,
}

/// How much of everything one swarm has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WorkCounts {
    /// Tasks.
    pub tasks: TaskCounts,
    /// Locks.
    pub locks: LockCounts,
    /// Messages.
    pub messages: MessageCounts,
}

impl Cores {
    /// How much of everything each swarm has.
    pub fn counts(&self) -> BTreeMap<SwarmName, WorkCounts> {
        let mut all: BTreeMap<SwarmName, WorkCounts> = BTreeMap::new();
        for (swarm, tasks) in self.board.totals() {
            all.entry(swarm.clone()).or_default().tasks = tasks;
        }
        for (swarm, locks) in self.locks.totals() {
            all.entry(swarm.clone()).or_default().locks = locks;
        }
        for (swarm, messages) in self.mail.totals() {
            all.entry(swarm.clone()).or_default().messages = messages;
        }
        all
    }
}
