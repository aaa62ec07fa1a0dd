//! Keeps the data directory: shows every second that we live, and notices when a younger daemon has taken over.

use std::{sync::Arc, time::Duration};

use actix::prelude::*;
use tokio::{sync::watch, task::spawn_blocking};

use crate::{
    data_plane::Presence,
    health::{Handle, Report},
    store::{DataDir, StoreError},
};

/// Between two touches of the lock; the data directory counts a holder as alive for five of them.
const BEAT: Duration = Duration::from_secs(1);

/// The actor. It tells health how the data plane is, too, which knows no health room.
pub(super) struct Steward {
    data: Arc<DataDir>,
    health: Handle,
    presence: watch::Receiver<Presence>,
    fenced: Arc<dyn Fn() + Send + Sync>,
}

impl Steward {
    pub(super) fn new(
        data: Arc<DataDir>,
        health: Handle,
        presence: watch::Receiver<Presence>,
        fenced: Arc<dyn Fn() + Send + Sync>,
    ) -> Self {
        Self { data, health, presence, fenced }
    }
}

impl Actor for Steward {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.spawn(keep(Arc::clone(&self.data), Arc::clone(&self.fenced)).into_actor(self));
        ctx.spawn(watch_plane(self.health.clone(), self.presence.clone()).into_actor(self));
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

async fn watch_plane(health: Handle, mut presence: watch::Receiver<Presence>) {
    loop {
        let now = *presence.borrow_and_update();
        health.report(Report::DataPlane { listening: now.listening, sessions: now.sessions });
        if presence.changed().await.is_err() {
            return;
        }
    }
}
