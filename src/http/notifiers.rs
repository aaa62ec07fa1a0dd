//! Those who are told when something is wrong: how that goes, and a message to try it.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Payload},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    commands::NoBody,
    dto,
    error::{Code, Problem},
    server::Deps,
};
use crate::view::{self, NotifierView};

#[derive(Serialize, ToSchema)]
#[schema(as = NotifierList)]
pub(super) struct List<'a> {
    notifiers: Vec<NotifierView<'a>>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = NotifierTest)]
pub(super) struct Tested<'a> {
    notifier: &'a str,
    delivered: bool,
    /// Why it was not.
    error: Option<String>,
}

/// All of them, as the configuration has them; there are at most 16.
pub(super) async fn list(request: HttpRequest, deps: Data<Deps>) -> Result<HttpResponse, Problem> {
    let dto::NoQuery {} = dto::query(&request)?;
    let all = deps.notifiers.status();
    Ok(HttpResponse::Ok().json(List { notifiers: all.iter().map(view::notifier).collect() }))
}

/// Sends a message that says nothing, and tells whether it arrived: that it did not is an answer, too.
pub(super) async fn test(request: HttpRequest, payload: Payload, deps: Data<Deps>) -> Result<HttpResponse, Problem> {
    let dto::NoQuery {} = dto::query(&request)?;
    let NoBody {} = dto::body(&request, payload).await?;
    let name = request.match_info().query("notifier");
    let Some(notifier) = deps.notifiers.all().iter().find(|notifier| notifier.name().as_str() == name) else {
        return Err(Problem::new(Code::NotFound, format!("notifier {name} not found")));
    };
    let error = notifier.test().await.err();
    Ok(HttpResponse::Ok().json(Tested { notifier: name, delivered: error.is_none(), error }))
}
