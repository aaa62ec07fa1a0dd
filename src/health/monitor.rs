//! The health actor: it waits, folds, shows and publishes. Its state is outside, so its next incarnation goes on where a panic left it.

use std::sync::Arc;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, WrapFuture};

use super::handle::Shared;

/// The health actor; made by [`Handle::monitor`](super::Handle::monitor).
pub struct Monitor {
    shared: Arc<Shared>,
}

impl Monitor {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn turn(&mut self, ctx: &mut Context<Self>) {
        self.shared.turn();
        let shared = Arc::clone(&self.shared);
        ctx.spawn(async move { shared.due().await }.into_actor(self).map(|(), act, ctx| act.turn(ctx)));
    }
}

impl Actor for Monitor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.turn(ctx);
    }
}
