//! Launches that live in the run directory and that nobody knows any more.

use std::{collections::HashSet, sync::Arc};

use futures_util::{StreamExt, stream};
use tokio::{task::spawn_blocking, time::timeout};

use super::runtime::Core;
use crate::{
    model::LaunchId,
    runtime::{
        lead::{Attached, Carrier, KILL_ANSWER, Link},
        orphans::Tree,
    },
    wire::channel::{Attach, FromLauncher, ToLauncher, VERSION},
};

/// Strays that are looked at at once.
const AT_ONCE: usize = 16;

/// Finds them, and with `remove` ends them.
pub(super) async fn find(core: Arc<Core>, known: Vec<LaunchId>, remove: bool) -> Vec<LaunchId> {
    let known: Arc<HashSet<LaunchId>> = Arc::new(known.into_iter().collect());
    let listing = {
        let core = Arc::clone(&core);
        spawn_blocking(move || core.dir.list()).await
    };
    let (sockets, records) = match listing {
        Ok(Ok(lists)) => lists,
        Ok(Err(error)) => {
            tracing::warn!(%error, "run directory can't be listed");
            return Vec::new();
        }
        Err(_) => return Vec::new(),
    };
    let stray = |id: &LaunchId| !known.contains(id) && !core.leads(*id);
    let found: Vec<LaunchId> = stream::iter(sockets.into_iter().filter(stray))
        .map(|id| look(Arc::clone(&core), id, remove))
        .buffer_unordered(AT_ONCE)
        .filter_map(std::future::ready)
        .collect()
        .await;
    if remove {
        for id in records.into_iter().filter(stray) {
            core.dir.forget(id);
        }
    }
    found
}

/// Its id if it is one. Without `remove` nobody knocks: an attach would take it from whoever leads it.
async fn look(core: Arc<Core>, id: LaunchId, remove: bool) -> Option<LaunchId> {
    if !remove {
        return Some(id);
    }
    let ended = match core.attach(id, Attach { version: VERSION, epoch: core.epoch().0, last_seq: 0 }).await {
        Ok(Attached::Fenced) => return None,
        Ok(Attached::Led(link, _)) => timeout(KILL_ANSWER, kill(link)).await.unwrap_or(false),
        Ok(Attached::Ended(_)) => true,
        Ok(Attached::Nobody) | Err(_) => false,
    };
    if ended || core.sweep(Tree { launch_id: id.to_string(), leader: None }).await.is_ok() {
        tracing::info!(launch_id = %id, "orphan ended");
        core.dir.forget(id);
    }
    Some(id)
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
