//! Operations, shown.

use actix_web::{HttpRequest, HttpResponse, web::Data};
use serde::Serialize;

use super::{dto, error::Problem, server::Deps};
use crate::view::{self, OperationView};

/// Operations on a page when none are asked for: a screenful.
const PAGE_DEFAULT: usize = 50;
/// Operations on a page at most; each may carry a step for every agent of its swarm.
const PAGE_MAX: usize = 500;

#[derive(Serialize)]
struct Page<'a> {
    operations: Vec<OperationView<'a>>,
}

/// The latest operations, youngest first.
pub(super) async fn list(request: HttpRequest, deps: Data<Deps>) -> Result<HttpResponse, Problem> {
    let query: dto::OperationsQuery = dto::query(&request)?;
    let limit = dto::limit(query.limit, PAGE_DEFAULT, PAGE_MAX)?;
    let operations = deps.control.operations(limit).await?;
    Ok(HttpResponse::Ok().json(Page { operations: operations.iter().map(view::operation).collect() }))
}

/// One operation.
pub(super) async fn show(request: HttpRequest, deps: Data<Deps>) -> Result<HttpResponse, Problem> {
    let dto::NoQuery {} = dto::query(&request)?;
    let operation = deps.control.operation(dto::operation_id(&request)?).await?;
    Ok(HttpResponse::Ok().json(view::operation(&operation)))
}
