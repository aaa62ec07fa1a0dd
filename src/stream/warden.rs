//! The actor that judges viewers from outside, because a viewer's own actor stalls when its socket does.

use std::time::{Duration, Instant};

use actix::{Actor, ActorFutureExt, AsyncContext, Context, WrapFuture};

use super::hub::{Aftermath, Hub};

/// How long the heap may be gone through: thousands of times what it takes.
const TRIM_WAIT: Duration = Duration::from_secs(60);

/// The actor over all viewers; made by [`Hub::warden`].
pub struct Warden {
    hub: Hub,
}

impl Warden {
    pub(super) fn new(hub: Hub) -> Self {
        Self { hub }
    }

    fn turn(&mut self, ctx: &mut Context<Self>) {
        if self.hub.judge(Instant::now()) == Aftermath::Emptier {
            // In a thread of its own: it goes through the whole heap. How it ends changes nothing here.
            let trimmed = actix::clock::timeout(TRIM_WAIT, tokio::task::spawn_blocking(give_back));
            ctx.spawn(async move { drop(trimmed.await) }.into_actor(self));
        }
        let hub = self.hub.clone();
        ctx.spawn(async move { hub.due().await }.into_actor(self).map(|(), act, ctx| act.turn(ctx)));
    }
}

/// Gives freed memory back to the system. Without it the heap keeps what a crowd of viewers has used, between what is still in use.
fn give_back() {
    // SAFETY: it touches free memory only, and may be called from any thread.
    unsafe { libc::malloc_trim(0) };
}

impl Actor for Warden {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.turn(ctx);
    }
}
