//! Ending a launch that nobody knows any more.

use tokio::time::timeout;

use super::{
    carrier::Carrier,
    channel::{Attached, Link},
    outbox::KILL_ANSWER,
};
use crate::{
    model::LaunchId,
    runtime::orphans::Tree,
    wire::channel::{Attach, FromLauncher, ToLauncher, VERSION},
};

/// What became of a stray.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::runtime) enum Stray {
    /// It is proven dead.
    Ended,
    /// It could not be proven dead.
    Left,
    /// A younger daemon leads it: it is none, and was not touched.
    Fenced,
}

/// Takes a launch over and kills it, or what is left of it.
pub(in crate::runtime) async fn end_stray(carrier: &dyn Carrier, id: LaunchId) -> Stray {
    let ended = match carrier.attach(id, Attach { version: VERSION, epoch: carrier.epoch().0, last_seq: 0 }).await {
        Ok(Attached::Fenced) => return Stray::Fenced,
        Ok(Attached::Led(link, _)) => timeout(KILL_ANSWER, kill(link)).await.unwrap_or(false),
        Ok(Attached::Ended(_) | Attached::Gone(_)) => true,
        Ok(Attached::Nobody) | Err(_) => false,
    };
    if ended {
        tracing::info!(launch_id = %id, "orphan ended");
        return Stray::Ended;
    }
    match carrier.sweep(Tree { launch_id: id.to_string(), leader: None }).await {
        Ok(()) => {
            tracing::info!(launch_id = %id, "orphan swept");
            Stray::Ended
        }
        Err(why) => {
            tracing::error!(launch_id = %id, why, "orphan is not proven dead");
            Stray::Left
        }
    }
}

/// Whether its launcher has said that nothing is left.
async fn kill(mut link: Link) -> bool {
    if link.send(&ToLauncher::Kill).await.is_err() {
        return false;
    }
    loop {
        match link.incoming.buffered() {
            Ok(Some(FromLauncher::Exit(exit))) => {
                link.incoming.closed().await;
                return exit.unswept == 0;
            }
            Ok(Some(_)) => {}
            Ok(None) => {
                if link.incoming.fill().await.is_err() {
                    return false;
                }
            }
            Err(_) => return false,
        }
    }
}
