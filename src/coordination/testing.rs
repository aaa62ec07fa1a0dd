//! What the tests of this room and of those above it work with.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{sync::Arc, time::Duration};

use super::{Desk, WorkChanges, WorkWitness, board::NewTask};
use crate::{
    model::{Fence, OnDependencyFailure, Party, Priority, Retry, SwarmName, Task, TaskSpec},
    store::work_memory::MemoryWork,
};

/// How long claims and locks last.
pub(crate) const LEASE: Duration = Duration::from_secs(30);

pub(crate) fn swarm() -> SwarmName {
    "review".parse().unwrap()
}

pub(crate) fn party(name: &str, incarnation: u64) -> Party {
    Party { id: format!("review/{name}").parse().unwrap(), incarnation: Some(incarnation) }
}

pub(crate) fn task(title: &str) -> NewTask {
    let spec = TaskSpec {
        title: title.into(),
        category: "code".into(),
        priority: Priority::Normal,
        payload: "{}".into(),
        group: None,
        on_dependency_failure: OnDependencyFailure::Block,
        retry: Retry { retries: 0, backoff: Duration::from_secs(1), backoff_max: Duration::from_secs(60) },
        attempt_timeout: None,
    };
    NewTask { spec, depends_on: Vec::new() }
}

pub(crate) fn fence(task: &Task) -> Fence {
    task.claim.as_ref().unwrap().fence
}

/// Hears nothing.
struct Deaf;

impl WorkWitness for Deaf {
    fn changed(&self, _: &WorkChanges) {}
}

/// A desk whose clerk works in memory, on the time of the test, until the last desk is gone.
pub(crate) fn desk() -> Desk {
    let (desk, clerk) = Desk::new(Arc::<MemoryWork>::default(), Arc::new(Deaf));
    tokio::spawn(clerk.run());
    desk
}
