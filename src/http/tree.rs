//! The supervision tree, shown.

use std::time::SystemTime;

use actix_web::{HttpRequest, HttpResponse, web::Data};

use super::{dto, error::Problem, server::Deps};
use crate::view;

/// The tree as it is now.
pub(super) async fn tree(request: HttpRequest, deps: Data<Deps>) -> Result<HttpResponse, Problem> {
    let dto::NoQuery {} = dto::query(&request)?;
    let tree = deps.control.tree().await?;
    Ok(HttpResponse::Ok().json(view::tree(&tree, SystemTime::now())))
}
