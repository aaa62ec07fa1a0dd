//! The contract of the store of coordination: tasks, locks and messages as they were written down last.
//!
//! One writer holds all of it in memory and decides; the store is what the next daemon begins with. When [`commit`](WorkStore::commit) has returned `Ok`,
//! the whole batch survives `kill -9` of the daemon and, where something in it was promised to somebody, a power cut; else nothing of it was kept. Every write
//! is refused with [`StoreError::Fenced`](super::StoreError::Fenced) once a younger daemon has taken the data directory over. Times are kept to the
//! millisecond.

use std::sync::Arc;

use super::journal::Answer;
use crate::model::{AgentName, Lock, LockId, Message, MessageId, Task, TaskId};

/// What has changed, all or nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WorkBatch {
    /// Tasks as they are now.
    pub tasks: Vec<Arc<Task>>,
    /// Tasks that are forgotten.
    pub tasks_gone: Vec<TaskId>,
    /// Locks that are held.
    pub locks: Vec<Arc<Lock>>,
    /// Locks that have ended.
    pub locks_gone: Vec<LockId>,
    /// Recipients' copies of messages as they are now.
    pub messages: Vec<Arc<Message>>,
    /// Copies that were acknowledged or are forgotten.
    pub messages_gone: Vec<(MessageId, AgentName)>,
    /// The greatest number or fencing token that was given out.
    pub counter: u64,
}

impl WorkBatch {
    /// Whether somebody was promised something that a power cut must not undo. Locks are not: nobody who holds one outlives the machine, and whatever
    /// token is given out later is greater than that of any task or message.
    pub fn promises(&self) -> bool {
        !(self.tasks.is_empty()
            && self.tasks_gone.is_empty()
            && self.messages.is_empty()
            && self.messages_gone.is_empty())
    }
}

/// What was written down.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WorkKept {
    /// All tasks, by number.
    pub tasks: Vec<Task>,
    /// Locks that were held, by number.
    pub locks: Vec<Lock>,
    /// All copies of messages, by number and recipient.
    pub messages: Vec<Message>,
    /// The greatest number or fencing token that any batch has told.
    pub counter: u64,
}

/// What outlives the daemon of coordination.
pub trait WorkStore: Send + Sync {
    /// All of it, with whatever becomes of each commit that was begun before, even of one that nobody waits for any more.
    fn load(&self) -> Answer<'_, WorkKept>;
    /// Writes a batch down, all or nothing. A counter never goes back.
    fn commit(&self, batch: WorkBatch) -> Answer<'_, ()>;
}
