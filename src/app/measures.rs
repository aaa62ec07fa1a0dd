//! What `/metrics` shows beside the health document, gathered from the rooms that count it.

use std::sync::{Arc, Weak};

use hivekeeper_actors::Root;
use parking_lot::RwLock;

use crate::{
    control_plane::{Office, chronicle::Scribe},
    data_plane::DataPlaneHandle,
    http::{ActorsReading, DiskReading, JournalReading, MetricsReader, OperationsReading, Readings},
    model::{DiskUse, OperationState},
    notify::Notifiers,
    store::{DiskBudget, Journal},
    stream::Hub,
};

/// Reads them for a scrape.
pub(super) struct Measures {
    pub(super) plane: DataPlaneHandle,
    pub(super) hub: Hub,
    pub(super) office: Arc<Office>,
    pub(super) scribe: Scribe,
    pub(super) journal: Arc<dyn Journal>,
    pub(super) notifiers: Notifiers,
    pub(super) disk: Arc<DiskBudget>,
    /// The tree is made of this, among others, so it is told later, and again when it has grown anew.
    pub(super) root: RwLock<Weak<Root>>,
}

impl Measures {
    /// The tree as it stands from now on.
    pub(super) fn know(&self, root: &Arc<Root>) {
        *self.root.write() = Arc::downgrade(root);
    }

    fn disk(&self) -> DiskReading {
        let DiskUse { journal, history, logs, free } = self.disk.seen();
        DiskReading { journal, history, logs, free, max: self.disk.bytes_max() }
    }

    fn actors(&self) -> Option<ActorsReading> {
        let root = self.root.read().upgrade()?;
        let stats = root.stats();
        Some(ActorsReading {
            threads: (stats.threads + stats.dedicated) as u64,
            stuck: stats.leaked as u64,
            fenced: stats.fenced,
            stalls: stats.stalls,
            task_panics: stats.task_panics,
            dead_letters: root.dead_letters().total(),
        })
    }
}

impl MetricsReader for Measures {
    fn read(&self) -> Readings {
        let (status, (lag, lost)) = (self.journal.status(), self.scribe.lag_and_lost());
        let counts = self.office.operation_counts();
        let counted = |state| counts.get(&state).copied().unwrap_or(0);
        Readings {
            plane: self.plane.stats(),
            viewers: self.hub.stats(),
            journal: JournalReading { ok: status.ok, lag, lost, size_bytes: status.size_bytes },
            disk: self.disk(),
            operations: OperationsReading {
                accepted: counted(OperationState::Accepted),
                running: counted(OperationState::Running),
                succeeded: counted(OperationState::Succeeded),
                failed: counted(OperationState::Failed),
                cancelled: counted(OperationState::Cancelled),
            },
            actors: self.actors(),
            notifiers: self.notifiers.status(),
        }
    }
}
