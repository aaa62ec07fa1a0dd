//! A look at what is in the engine and should not be.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Payload},
};
use serde::Deserialize;

use super::{commands::NoBody, dto, error::Problem, guard, server::Deps};
use crate::view;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    #[serde(default, deserialize_with = "dto::flag")]
    dry_run: bool,
}

/// Looks once, removes what has been seen for long enough, and tells what was found. It makes nothing and starts nothing, so it is no operation of a
/// swarm, and is answered when it is done.
pub(super) async fn reconcile(
    request: HttpRequest,
    payload: Payload,
    deps: Data<Deps>,
) -> Result<HttpResponse, Problem> {
    let Query { dry_run } = dto::query(&request)?;
    let NoBody {} = dto::body(&request, payload).await?;
    let found = deps.control.reconcile(dry_run).await?;
    Ok(guard::told(dry_run, view::findings(dry_run, &found)))
}
