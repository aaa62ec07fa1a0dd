//! The runtimes of a daemon, and which swarm lives on which.

use std::sync::Arc;

use super::contract::Runtime;
use crate::model::SwarmName;

/// One for each kind of home. Cheap to clone.
#[derive(Clone)]
pub struct Runtimes {
    process: Arc<dyn Runtime>,
}

impl Runtimes {
    /// Every swarm lives on this one.
    pub fn one(process: Arc<dyn Runtime>) -> Self {
        Self { process }
    }

    /// Where a swarm lives.
    pub fn of(&self, _swarm: &SwarmName) -> &Arc<dyn Runtime> {
        &self.process
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Arc<dyn Runtime>> {
        std::iter::once(&self.process)
    }
}
