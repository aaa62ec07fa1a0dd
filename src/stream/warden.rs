//! The actor that judges viewers from outside, because a viewer's own actor stalls when its socket does.

use std::time::Instant;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, WrapFuture};

use super::hub::Hub;

/// The actor over all viewers; made by [`Hub::warden`].
pub struct Warden {
    hub: Hub,
}

impl Warden {
    pub(super) fn new(hub: Hub) -> Self {
        Self { hub }
    }

    fn turn(&mut self, ctx: &mut Context<Self>) {
        self.hub.judge(Instant::now());
        let hub = self.hub.clone();
        ctx.spawn(async move { hub.due().await }.into_actor(self).map(|(), act, ctx| act.turn(ctx)));
    }
}

impl Actor for Warden {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.turn(ctx);
    }
}
