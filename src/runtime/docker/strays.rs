//! Launches in our containers that nobody knows.

use std::{collections::HashSet, sync::Arc};

use futures_util::{StreamExt, stream};

use super::{
    core::{Core, Stay},
    engine::Engine,
    inside,
    lodging::Lodging,
};
use crate::{
    model::LaunchId,
    runtime::lead::{Stray, end_stray},
};

/// Strays that are looked at at once: each is an exec, which costs 70 ms of a core.
const STRAYS_AT_ONCE: usize = 4;

impl Core {
    pub(super) async fn strays(self: Arc<Self>, known: HashSet<LaunchId>, remove: bool) -> Vec<LaunchId> {
        let lodgings = self.all_lodgings();
        let mut found = Vec::new();
        if lodgings.is_empty() {
            return found;
        }
        let engine = match self.engine().await {
            Ok(engine) => engine,
            Err(error) => {
                tracing::warn!(%error, "the engine could not be asked for launches that nobody knows");
                return found;
            }
        };
        for lodging in lodgings {
            found.extend(self.strays_in(engine, &lodging, &known, remove).await);
            self.settle(&lodging).await;
        }
        found
    }

    async fn strays_in(
        &self,
        engine: &Engine,
        lodging: &Arc<Lodging>,
        known: &HashSet<LaunchId>,
        remove: bool,
    ) -> Vec<LaunchId> {
        let _visit = lodging.visit(engine).await;
        let door = match lodging.find(engine).await {
            Ok(Some(door)) => door,
            Ok(None) => return Vec::new(),
            Err(error) => {
                tracing::warn!(%error, "a container could not be looked for");
                return Vec::new();
            }
        };
        let there = match inside::list(engine, &door).await {
            Ok(there) => there,
            Err(error) => {
                tracing::warn!(%error, "the launches in a container could not be listed");
                return Vec::new();
            }
        };
        let strays = there.into_iter().filter(|id| !known.contains(id) && !self.live.lock().contains(id));
        let strays: Vec<LaunchId> = strays.collect();
        let looked = stream::iter(strays).map(|id| {
            self.places.insert(id, Stay::new(Arc::clone(lodging)));
            self.look(id, remove)
        });
        looked.buffer_unordered(STRAYS_AT_ONCE).filter_map(std::future::ready).collect().await
    }

    /// Its id if it is one. Without `remove` nobody knocks: an attach would take it from whoever leads it.
    async fn look(&self, id: LaunchId, remove: bool) -> Option<LaunchId> {
        if !remove {
            self.places.remove(&id);
            return Some(id);
        }
        let stray = end_stray(self, id).await;
        if let Some((_, stay)) = self.places.remove(&id)
            && stray == Stray::Ended
        {
            stay.lodging.forget(id);
        }
        (stray != Stray::Fenced).then_some(id)
    }
}
