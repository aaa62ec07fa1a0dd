//! What became of tokens that were good once.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::SystemTime,
};

use super::told::LockEnd;
use crate::model::{Fence, LockId};

/// Ended locks of a swarm that are remembered. A holder who shows an old token does so soon after its end, and one that is forgotten is refused all the same.
pub(super) const GONE_MAX: usize = 1000;

/// A lock that has ended.
#[derive(Debug)]
pub(super) struct Gone {
    pub(super) fence: Fence,
    pub(super) keys: Vec<Arc<str>>,
    pub(super) end: LockEnd,
    pub(super) at: SystemTime,
}

impl Gone {
    /// For people.
    pub(super) fn told(&self, now: SystemTime) -> String {
        let ago_ms = now.duration_since(self.at).unwrap_or_default().as_millis();
        match self.end {
            LockEnd::Released => format!("it was released {ago_ms} ms ago"),
            LockEnd::LeaseExpired => format!("its lease was not renewed in time and ended {ago_ms} ms ago"),
            LockEnd::HolderEnded => format!("its holder ended {ago_ms} ms ago"),
            LockEnd::SwarmRemoved => format!("its swarm was removed {ago_ms} ms ago"),
        }
    }
}

/// The locks of one swarm that ended last.
#[derive(Debug, Default)]
pub(super) struct Graves {
    by_id: HashMap<LockId, Gone>,
    order: VecDeque<LockId>,
}

impl Graves {
    pub(super) fn add(&mut self, id: LockId, gone: Gone) {
        if self.order.len() == GONE_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_id.remove(&oldest);
        }
        self.order.push_back(id);
        self.by_id.insert(id, gone);
    }

    pub(super) fn get(&self, id: LockId) -> Option<&Gone> {
        self.by_id.get(&id)
    }

    /// By the token alone; looks at all of them.
    pub(super) fn of(&self, fence: Fence) -> Option<&Gone> {
        self.by_id.values().find(|gone| gone.fence == fence)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}
