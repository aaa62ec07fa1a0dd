//! Keeps the data directory: shows every second that we live, and notices when a younger daemon has taken over.

use std::{sync::Arc, time::Duration};

use actix::prelude::*;
use tokio::{task::spawn_blocking, time::timeout};

use crate::{
    data_plane::{DataPlaneHandle, Presence},
    health::{Handle, Report},
    store::{DataDir, DiskBudget, StoreError},
};

/// Between two touches of the lock; the data directory counts a holder as alive for five of them.
const BEAT: Duration = Duration::from_secs(1);

/// Between two looks at the disk: what fills it faster is stopped by the disk itself, which everything here outlives.
const DISK_LOOK: Duration = Duration::from_secs(5);

/// The actor. It tells health how the data plane is, too, which knows no health room.
pub(super) struct Steward {
    data: Arc<DataDir>,
    health: Handle,
    plane: DataPlaneHandle,
    disk: Arc<DiskBudget>,
    fenced: Arc<dyn Fn() + Send + Sync>,
}

impl Steward {
    pub(super) fn new(
        data: Arc<DataDir>,
        health: Handle,
        plane: DataPlaneHandle,
        disk: Arc<DiskBudget>,
        fenced: Arc<dyn Fn() + Send + Sync>,
    ) -> Self {
        Self { data, health, plane, disk, fenced }
    }
}

impl Actor for Steward {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.spawn(keep(Arc::clone(&self.data), Arc::clone(&self.fenced)).into_actor(self));
        ctx.spawn(watch_disk(self.health.clone(), Arc::clone(&self.disk)).into_actor(self));
        ctx.spawn(watch_plane(self.health.clone(), self.plane.clone()).into_actor(self));
    }
}

/// Shows every second that we live, until a younger daemon is found to have taken over.
pub(super) async fn keep(data: Arc<DataDir>, fenced: Arc<dyn Fn() + Send + Sync>) {
    loop {
        let directory = Arc::clone(&data);
        // A disk that hangs holds a thread of its own, and no actor.
        match spawn_blocking(move || directory.beat()).await {
            Ok(Err(StoreError::Fenced)) => fenced(),
            Ok(Err(error)) => tracing::warn!(%error, "failed to touch the data directory's lock"),
            Ok(Ok(())) | Err(_) => {}
        }
        tokio::time::sleep(BEAT).await;
    }
}

/// Looks how full the disk is, bounds the log books, and tells when there is not enough room.
async fn watch_disk(health: Handle, disk: Arc<DiskBudget>) {
    let mut told = None;
    loop {
        let budget = Arc::clone(&disk);
        match spawn_blocking(move || budget.look()).await {
            Ok(Ok(complaint)) => {
                health.report(Report::DiskUsed { found: disk.seen(), max: disk.bytes_max() });
                if told.as_ref() != Some(&complaint) {
                    if let Some(what) = &complaint {
                        tracing::warn!(%what, "the disk is low");
                    }
                    health.report(Report::Disk { ok: complaint.is_none(), error: complaint.clone() });
                    told = Some(complaint);
                }
            }
            // A directory that is gone is the journal's to tell.
            Ok(Err(error)) => tracing::debug!(%error, "failed to look at the disk"),
            Err(_) => {}
        }
        tokio::time::sleep(DISK_LOOK).await;
    }
}

/// Tells what is there whenever that changes, and who was turned away once a second: a crowd at the door must not become one of reports.
async fn watch_plane(health: Handle, plane: DataPlaneHandle) {
    let mut presence = plane.presence();
    loop {
        let Presence { listening, sessions, connections, .. } = *presence.borrow_and_update();
        let turned_away = plane.stats().turned_away;
        health.report(Report::DataPlane { listening, sessions, connections, turned_away });
        if let Ok(Err(_)) = timeout(BEAT, presence.changed()).await {
            return;
        }
    }
}
