//! Launches that live in the run directory and that nobody knows any more.

use std::{collections::HashSet, sync::Arc};

use futures_util::{StreamExt, stream};
use tokio::task::spawn_blocking;

use super::runtime::Core;
use crate::{
    model::LaunchId,
    runtime::lead::{Stray, end_stray},
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
    match end_stray(&*core, id).await {
        Stray::Fenced => None,
        Stray::Left => Some(id),
        Stray::Ended => {
            core.dir.forget(id);
            Some(id)
        }
    }
}
