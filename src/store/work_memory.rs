//! A double of [`WorkStore`] in memory, for tests in which time is paused: a real one has threads that such a clock does not wait for.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;

use super::{
    error::StoreError,
    journal::Answer,
    work::{WorkBatch, WorkKept, WorkStore},
};
use crate::model::{AgentName, Lock, LockId, Message, MessageId, Task, TaskId};

#[derive(Default)]
struct Kept {
    tasks: BTreeMap<TaskId, Arc<Task>>,
    locks: BTreeMap<LockId, Arc<Lock>>,
    messages: BTreeMap<(MessageId, AgentName), Arc<Message>>,
    counter: u64,
}

/// Keeps what it is given as long as it lives.
#[derive(Default)]
pub struct MemoryWork(Mutex<Kept>);

impl WorkStore for MemoryWork {
    fn load(&self) -> Answer<'_, WorkKept> {
        let kept = self.0.lock();
        let mut found = WorkKept {
            tasks: kept.tasks.values().map(|task| Task::clone(task)).collect(),
            locks: kept.locks.values().map(|lock| Lock::clone(lock)).collect(),
            messages: kept.messages.values().map(|message| Message::clone(message)).collect(),
            counter: kept.counter,
        };
        found.tasks.sort_by_key(|task| task.number);
        found.locks.sort_by_key(|lock| lock.number);
        found.messages.sort_by_key(|message| (message.number, message.to.clone()));
        Box::pin(async { Ok(found) })
    }

    fn commit(&self, batch: WorkBatch) -> Answer<'_, ()> {
        if let Some(lock) = batch.locks.iter().find(|lock| lock.grant.is_none()) {
            let error = StoreError::Conflict(format!("lock {} is not held", lock.id));
            return Box::pin(async { Err(error) });
        }
        let mut kept = self.0.lock();
        kept.tasks.extend(batch.tasks.into_iter().map(|task| (task.id, task)));
        kept.tasks.retain(|id, _| !batch.tasks_gone.contains(id));
        kept.locks.extend(batch.locks.into_iter().map(|lock| (lock.id, lock)));
        kept.locks.retain(|id, _| !batch.locks_gone.contains(id));
        kept.messages.extend(batch.messages.into_iter().map(|message| ((message.id, message.to.clone()), message)));
        kept.messages.retain(|key, _| !batch.messages_gone.contains(key));
        kept.counter = kept.counter.max(batch.counter);
        Box::pin(async { Ok(()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keeps_the_contract() {
        super::super::work_suite::contract(|| ((), Box::<MemoryWork>::default() as Box<dyn WorkStore>)).await;
    }
}
