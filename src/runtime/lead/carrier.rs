//! What a runtime offers to whoever leads its launches.

use super::channel::{Attached, LinkError};
use crate::{
    model::{Epoch, LaunchId, RelaySink},
    runtime::{
        BoxFuture,
        orphans::{Leader, Tree},
    },
    wire::channel::{Attach, Exit},
};

/// What carries the channels of launchers: how one is reached anew, and how an end is proven when a launcher is silent.
pub(in crate::runtime) trait Carrier: Send + Sync {
    /// The fencing token of this daemon.
    fn epoch(&self) -> Epoch;
    /// Takes the connections that agents open to their loopback ports.
    fn relay(&self) -> &dyn RelaySink;
    /// Presents ourselves to the launcher of a launch on a fresh channel, within a deadline.
    fn attach(&self, launch_id: LaunchId, attach: Attach) -> BoxFuture<'_, Result<Attached, LinkError>>;
    /// The exit record of a launch, if there is one that can be read.
    fn record(&self, launch_id: LaunchId) -> BoxFuture<'_, Option<Exit>>;
    /// The agent of a launch, by the id that its launcher knows; `None` when it is gone.
    fn leader(&self, pid: u32) -> Option<Leader>;
    /// Makes sure that a launcher can hear an order, where it may have been frozen with what it leads.
    fn awaken(&self, _: LaunchId) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
    /// Its tree has been stopped and is to stay so: the launcher may be frozen with it, until it is to hear something.
    fn rest(&self, _: LaunchId) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
    /// Kills what is left of a launch, within a deadline. The error says why it is not proven that nothing is.
    fn sweep(&self, tree: Tree) -> BoxFuture<'_, Result<(), String>>;
}

/// Presents ourselves, and once more where a launcher may have ended between our knock and its answer: then nobody listens now.
///
/// # Errors
/// What the second try said.
pub(super) async fn attach(carrier: &dyn Carrier, launch_id: LaunchId, attach: Attach) -> Result<Attached, LinkError> {
    match carrier.attach(launch_id, attach.clone()).await {
        Err(LinkError::Closed | LinkError::Io(_)) => carrier.attach(launch_id, attach).await,
        other => other,
    }
}
