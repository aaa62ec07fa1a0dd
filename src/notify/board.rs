//! Which notifiers can't tell anybody anything now, as the hive's health shows it.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;

use crate::{
    health::{Handle, Report},
    model::NotifierName,
};

/// Shared by all notifiers; clones are the same board.
#[derive(Clone)]
pub(super) struct Board {
    health: Handle,
    troubles: Arc<Mutex<BTreeMap<NotifierName, String>>>,
}

impl Board {
    pub(super) fn new(health: Handle) -> Self {
        Self { health, troubles: Arc::default() }
    }

    /// Notes how a notifier is; tells health when that is news.
    pub(super) fn note(&self, name: &NotifierName, trouble: Option<&str>) {
        let mut troubles = self.troubles.lock();
        let changed = match trouble {
            // The first word stands until it is over: how else it fails meanwhile is no news of the hive.
            Some(why) if !troubles.contains_key(name) => troubles.insert(name.clone(), why.to_owned()).is_none(),
            Some(_) => false,
            None => troubles.remove(name).is_some(),
        };
        if changed {
            let all: Vec<String> = troubles.iter().map(|(name, why)| format!("{name}: {why}")).collect();
            let error = (!all.is_empty()).then(|| all.join("; "));
            // Under the lock, so that the last word told is the last one noted.
            self.health.report(Report::Notify { ok: error.is_none(), error });
        }
    }
}
