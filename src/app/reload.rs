//! The configuration, read again: by whom it was read first, in the same way.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::RwLock;
use tokio::{signal::unix::Signal, sync::Mutex, task::spawn_blocking, time::timeout};

use super::service;
use crate::{
    config::{Config, Documents, Loader, Place, Problem, resolve_path},
    control_plane::{ControlError, Office, ReloadError, desk::BoxFuture},
    events::Feed,
    http::{DocumentReader, Reloaded, Reloader},
    model::{Audit, EventKind, SwarmSpec},
    view::Mistake,
};

/// How long reading the files of the configuration may take. A disk that is slower would not let the daemon start either.
const LOAD_MAX: Duration = Duration::from_secs(10);
/// The route that does what the signal does, as the audit names it.
const ROUTE: &str = "/api/v1/reload";

/// The configuration that the daemon runs with, and how to read it again. Clones are the same one.
#[derive(Clone)]
pub(super) struct Configuration(Arc<Shared>);

struct Shared {
    load: Arc<Loader>,
    first: Config,
    /// What documents of the API are read against now.
    documents: RwLock<Documents>,
    office: Arc<Office>,
    feed: Feed,
    /// One reload at a time: the later one is to win.
    turn: Mutex<()>,
}

impl Configuration {
    pub(super) fn new(load: Loader, first: Config, office: Arc<Office>, feed: Feed) -> Self {
        let documents = RwLock::new(first.documents.clone());
        Self(Arc::new(Shared { load: Arc::new(load), first, documents, office, feed, turn: Mutex::default() }))
    }

    /// Reads it again at each of these signals. Never ends.
    pub(super) async fn follow(&self, mut hang_up: Option<Signal>) -> ! {
        loop {
            let heard = match &mut hang_up {
                Some(signal) => signal.recv().await,
                None => None,
            };
            match heard {
                Some(()) => self.at_signal().await,
                None => std::future::pending().await,
            }
        }
    }

    /// Nobody waits for the answer, so it goes into the log and among the events.
    async fn at_signal(&self) {
        service::reloading();
        let outcome = self.reload(false).await;
        service::reloaded();
        let (status, code) = match &outcome {
            Ok(reloaded) => {
                let changed = reloaded.changes.iter().filter(|one| one.operation.is_some()).count();
                tracing::info!(changed, needs_restart = ?reloaded.needs_restart, "the configuration is read again");
                (200, None)
            }
            Err(ReloadError::Invalid(mistakes)) => {
                tracing::error!(mistakes = mistakes.len(), "the configuration can't be taken; nothing is changed");
                for Mistake { key, found, allowed, place } in mistakes {
                    let place = place.as_deref().unwrap_or_default();
                    tracing::error!(place, key, found, allowed, "mistake in the configuration");
                }
                (422, Some("invalid_configuration"))
            }
            Err(ReloadError::Refused(error)) => {
                tracing::error!(%error, "the configuration was not taken up");
                (503, Some("unavailable"))
            }
        };
        let (peer, method, path) = ("signal".to_owned(), "SIGHUP".to_owned(), ROUTE.to_owned());
        let audit = Audit { token: None, peer, method, path, status, code, count: 1 };
        self.0.feed.publish(SystemTime::now(), EventKind::Audit(Arc::new(audit)));
    }
}

impl Shared {
    async fn reload(&self, dry_run: bool) -> Result<Reloaded, ReloadError> {
        let _turn = self.turn.lock().await;
        let load = Arc::clone(&self.load);
        let unavailable = |why: String| ReloadError::Refused(ControlError::Unavailable { why });
        let loaded = timeout(LOAD_MAX, spawn_blocking(move || load())).await;
        let loaded = loaded.map_err(|_| unavailable(format!("the configuration can't be read within {LOAD_MAX:?}")))?;
        let loaded = loaded.map_err(|error| unavailable(format!("the configuration can't be read: {error}")))?;
        let config = loaded.map_err(|errors| ReloadError::Invalid(errors.problems().iter().map(mistake).collect()))?;
        let changes = self.office.reload(&config.swarms, dry_run).await?;
        if !dry_run {
            *self.documents.write() = self.first.documents.with_defaults_of(&config.documents);
        }
        Ok(Reloaded { needs_restart: self.first.needs_restart(&config), file: config.file, changes })
    }
}

impl Reloader for Configuration {
    fn reload(&self, dry_run: bool) -> BoxFuture<'_, Result<Reloaded, ReloadError>> {
        let shared = Arc::clone(&self.0);
        Box::pin(async move {
            let gone = || ReloadError::Refused(ControlError::Unavailable { why: "the reload broke off".to_owned() });
            // In a task of its own: a client that hangs up must not leave half of it undone.
            tokio::spawn(async move { shared.reload(dry_run).await }).await.unwrap_or_else(|_| Err(gone()))
        })
    }
}

impl DocumentReader for Configuration {
    fn read(&self, document: &serde_json::Value) -> Result<SwarmSpec, Vec<Mistake>> {
        let documents = self.0.documents.read().clone();
        documents.read(document, &resolve_path).map_err(|all| all.iter().map(mistake).collect())
    }
}

fn mistake(problem: &Problem) -> Mistake {
    let Problem { place, key, found, rule } = problem;
    let allowed = rule.strip_prefix("allowed: ").unwrap_or(rule).to_owned();
    let place = (*place != Place::Document).then(|| place.to_string());
    Mistake { key: key.clone(), found: found.clone(), allowed, place }
}
