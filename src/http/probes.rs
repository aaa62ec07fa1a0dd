//! Alive, ready, healthy: three questions that are told apart.

use std::fmt::Write as _;

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web::Data};

use super::{dto, error::Problem, server::Deps};
use crate::{model::Level, view};

/// Alive: the loop turns. Asks nobody, so that nobody's trouble gets the daemon killed.
pub(super) async fn livez() -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; charset=utf-8").body("ok\n")
}

/// Ready: journal open, listeners bound, first reconcile pass ended; whatever agents do.
pub(super) async fn readyz(request: HttpRequest, deps: Data<Deps>) -> Result<HttpResponse, Problem> {
    let query: dto::ReadyQuery = dto::query(&request)?;
    let checks = deps.control.readiness();
    let ready = checks.iter().all(|check| check.ok);
    let mut text = String::new();
    if query.verbose {
        for check in &checks {
            let (sign, word) = if check.ok { ('+', "ok") } else { ('-', "failed") };
            let detail = if check.detail.is_empty() { String::new() } else { format!(": {}", check.detail) };
            // Writing to a String can't fail.
            let _ = writeln!(text, "[{sign}]{} {word}{detail}", check.name);
        }
    }
    text.push_str(if ready { "ready\n" } else { "not ready\n" });
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok(HttpResponse::build(status).content_type("text/plain; charset=utf-8").body(text))
}

/// The health document; healthy and degraded are 200, critical and unknown 503.
pub(super) async fn health(request: HttpRequest, deps: Data<Deps>) -> Result<HttpResponse, Problem> {
    let dto::NoQuery {} = dto::query(&request)?;
    let hive = deps.health.hive();
    let status = match hive.level {
        Level::Healthy | Level::Degraded => StatusCode::OK,
        Level::Unknown | Level::Critical => StatusCode::SERVICE_UNAVAILABLE,
    };
    Ok(HttpResponse::build(status).json(view::hive(&hive)))
}
