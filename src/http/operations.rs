//! Operations, shown.

use actix_web::{HttpRequest, HttpResponse, web::Data};
use serde::Serialize;
use utoipa::ToSchema;

use super::{dto, error::Problem, server::Deps};
use crate::{
    control_plane::OperationQuery,
    view::{self, OperationView},
};

/// Operations on a page when none are asked for: a screenful.
pub(super) const PAGE_DEFAULT: usize = 50;
/// Operations on a page at most; each may carry a step for every agent of its swarm.
pub(super) const PAGE_MAX: usize = 500;

#[derive(Serialize, ToSchema)]
#[schema(as = OperationList)]
pub(super) struct Page<'a> {
    operations: Vec<OperationView<'a>>,
    /// Names the page behind this one; null on the last.
    next_cursor: Option<String>,
}

/// Operations, youngest first.
pub(super) async fn list(request: HttpRequest, deps: Data<Deps>) -> Result<HttpResponse, Problem> {
    let dto::OperationsQuery { limit, cursor, swarm, state } = dto::query(&request)?;
    let limit = dto::limit(limit, PAGE_DEFAULT, PAGE_MAX)?;
    // One more than asked for tells whether there is a page behind this one.
    let query = OperationQuery { before: cursor, swarm, state, limit: limit + 1 };
    let mut operations = deps.control.operations(query).await?;
    let more = operations.len() > limit;
    operations.truncate(limit);
    let next_cursor = operations.last().filter(|_| more).map(|last| last.id.to_string());
    Ok(HttpResponse::Ok().json(Page { operations: operations.iter().map(view::operation).collect(), next_cursor }))
}

/// One operation.
pub(super) async fn show(request: HttpRequest, deps: Data<Deps>) -> Result<HttpResponse, Problem> {
    let dto::NoQuery {} = dto::query(&request)?;
    let operation = deps.control.operation(dto::operation_id(&request)?).await?;
    Ok(HttpResponse::Ok().json(view::operation(&operation)))
}
