//! Follows the engine for as long as the daemon lives.

use std::sync::Arc;

use actix::prelude::*;

use crate::runtime::docker::DockerRuntime;

/// The actor. What it learns is the runtime's, so that a crash here loses a few events, which the next look makes up for.
pub(super) struct Follower(pub(super) Arc<DockerRuntime>);

impl Actor for Follower {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let engine = Arc::clone(&self.0);
        ctx.spawn(async move { engine.follow().await }.into_actor(self));
    }
}
