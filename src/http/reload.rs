//! The configuration file, read again.

use std::path::PathBuf;

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Payload},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    commands::NoBody,
    documents::invalid,
    dto,
    error::{Code, Problem},
    guard,
    server::Deps,
};
use crate::{
    control_plane::{ReloadError, SwarmChange, desk::BoxFuture},
    view::AgentChangeView,
};

/// What the file means for the hive, or meant, when it was read again.
#[derive(Debug, Clone, PartialEq)]
pub struct Reloaded {
    /// The file; `None` when there is none.
    pub file: Option<PathBuf>,
    /// Each swarm of the file, and those that it no longer has.
    pub changes: Vec<SwarmChange>,
    /// Keys that say something else than the daemon was started with, and that only another daemon reads.
    pub needs_restart: Vec<&'static str>,
}

/// Reads the configuration again. The rooms that know how lie above this one.
pub trait Reloader: Send + Sync {
    /// Lets the hive follow the file; a dry run only tells.
    fn reload(&self, dry_run: bool) -> BoxFuture<'_, Result<Reloaded, ReloadError>>;
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    #[serde(default, deserialize_with = "dto::flag")]
    dry_run: bool,
}

/// What the file changes.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Reloaded)]
pub(super) struct ReloadedView {
    dry_run: bool,
    /// The file; null when there is none.
    file: Option<String>,
    changes: Vec<SwarmChangeView>,
    /// Keys that only another daemon reads, and that say something else than this one was started with.
    needs_restart: Vec<&'static str>,
}

/// What becomes of a swarm: `add`, `update`, `remove` or `keep`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SwarmChange)]
struct SwarmChangeView {
    swarm: String,
    change: &'static str,
    agents: Vec<AgentChangeView>,
    /// What carries it out; null where nothing is to be done, and in a dry run.
    operation: Option<String>,
}

/// Reads the file again. Each swarm that it changes becomes an operation, which the journal keeps before this is answered.
pub(super) async fn reload(request: HttpRequest, payload: Payload, deps: Data<Deps>) -> Result<HttpResponse, Problem> {
    let Query { dry_run } = dto::query(&request)?;
    let NoBody {} = dto::body(&request, payload).await?;
    let Reloaded { file, changes, needs_restart } = deps.reloader.reload(dry_run).await.map_err(refusal)?;
    let file = file.map(|file| file.display().to_string());
    let changes = changes.iter().map(shown).collect();
    Ok(guard::told(dry_run, ReloadedView { dry_run, file, changes, needs_restart }))
}

fn shown(one: &SwarmChange) -> SwarmChangeView {
    let agents = one.agents.iter().map(|(agent, change)| AgentChangeView::new(agent, change.word()));
    SwarmChangeView {
        swarm: one.swarm.to_string(),
        change: one.change.word(),
        agents: agents.collect(),
        operation: one.operation.map(|id| id.to_string()),
    }
}

fn refusal(error: ReloadError) -> Problem {
    match error {
        ReloadError::Invalid(mistakes) => invalid(Code::InvalidConfiguration, mistakes),
        ReloadError::Refused(error) => error.into(),
    }
}
