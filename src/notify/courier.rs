//! The actor of one notifier.

use std::time::{Duration, Instant};

use actix::prelude::*;
use tokio::time::{sleep, timeout_at};

use super::{notifier::Notifier, outbox::Next};

/// How long the feed may be silent before the clock is looked at all the same.
const TICK: Duration = Duration::from_secs(1);
/// Between two looks for who is no longer part of the hive.
const MISS_EVERY: Duration = Duration::from_secs(10);
/// Between two writings: a storm is noted down in few.
const WRITE_PAUSE: Duration = Duration::from_millis(100);
/// Pause after notes could not be written: a full disk is looked at again soon, without a storm.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Follows the feed and sends. What it knows is the handle's.
pub struct Courier {
    notifier: Notifier,
}

impl Courier {
    pub(super) fn new(notifier: Notifier) -> Self {
        Self { notifier }
    }
}

impl Actor for Courier {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.spawn(listen(self.notifier.clone()).into_actor(self));
        ctx.spawn(send(self.notifier.clone()).into_actor(self));
        ctx.spawn(keep(self.notifier.clone()).into_actor(self));
        // A predecessor may have left some behind.
        self.notifier.shared.noted.notify_one();
    }
}

async fn listen(notifier: Notifier) {
    notifier.replay().await;
    let mut missed = Instant::now();
    loop {
        while notifier.take() {
            tokio::task::yield_now().await;
        }
        let now = Instant::now();
        if now >= missed + MISS_EVERY {
            notifier.miss();
            missed = now;
        }
        let due = notifier.tick().map_or(now + TICK, |due| due.min(now + TICK));
        let mut next = notifier.shared.feed.subscribe(notifier.processed());
        // A gap shows again in the read, which says so.
        let _ = timeout_at(due.into(), next.next()).await;
    }
}

async fn send(notifier: Notifier) {
    loop {
        match notifier.next() {
            Next::Send(message) => {
                let result = notifier.attempt(message).await;
                notifier.note(result);
            }
            // Both outcomes mean the same: look.
            Next::Wait(until) => drop(timeout_at(until.into(), notifier.shared.offered.notified()).await),
            Next::Nothing => notifier.shared.offered.notified().await,
        }
    }
}

async fn keep(notifier: Notifier) {
    let mut failing = false;
    loop {
        notifier.shared.noted.notified().await;
        while let Err(error) = notifier.write().await {
            if !failing {
                tracing::warn!(notifier = %notifier.name(), error, "failed to note down what was told; after a crash it may be told again");
            }
            failing = true;
            sleep(RETRY_PAUSE).await;
        }
        failing = false;
        sleep(WRITE_PAUSE).await;
    }
}
