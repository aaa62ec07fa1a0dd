//! The actor that keeps the history behind the feed.

use std::time::{Duration, SystemTime};

use actix::prelude::*;

use super::memory::History;

/// How long the feed may be silent before buckets that time has left are closed all the same.
const TICK: Duration = Duration::from_secs(1);
/// Pause after a failed write or opening: a full disk is looked at again soon, without a storm.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// The actor. What it knows is the handle's.
pub struct Historian {
    history: History,
}

impl Historian {
    /// Goes on where `history` is.
    pub fn new(history: History) -> Self {
        Self { history }
    }
}

impl Actor for Historian {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.spawn(listen(self.history.clone()).into_actor(self));
        ctx.spawn(keep(self.history.clone()).into_actor(self));
        // A predecessor may have left some behind.
        self.history.shared.wake.notify_one();
    }
}

async fn listen(history: History) {
    loop {
        while history.take(SystemTime::now()) {
            tokio::task::yield_now().await;
        }
        let mut next = history.shared.feed.subscribe(history.after());
        // A gap shows again in the read, which says so.
        let _ = tokio::time::timeout(TICK, next.next()).await;
    }
}

async fn keep(history: History) {
    loop {
        history.shared.wake.notified().await;
        while history.flush(SystemTime::now()).await.is_err() {
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
}
