//! Keeps the data directory: shows every second that we live, and notices when a younger daemon has taken over.

use std::{sync::Arc, time::Duration};

use actix::prelude::*;
use tokio::{task::spawn_blocking, time::timeout};

use crate::{
    data_plane::{DataPlaneHandle, Presence},
    health::{Handle, Report},
    store::{DataDir, StoreError},
};

/// Between two touches of the lock; the data directory counts a holder as alive for five of them.
const BEAT: Duration = Duration::from_secs(1);

/// The actor. It tells health how the data plane is, too, which knows no health room.
pub(super) struct Steward {
    data: Arc<DataDir>,
    health: Handle,
    plane: DataPlaneHandle,
    fenced: Arc<dyn Fn() + Send + Sync>,
}

impl Steward {
    pub(super) fn new(
        data: Arc<DataDir>,
        health: Handle,
        plane: DataPlaneHandle,
        fenced: Arc<dyn Fn() + Send + Sync>,
    ) -> Self {
        Self { data, health, plane, fenced }
    }
}

impl Actor for Steward {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.spawn(keep(Arc::clone(&self.data), Arc::clone(&self.fenced)).into_actor(self));
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
