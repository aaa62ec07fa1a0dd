//! `GET /metrics`: what the daemon measures and counts, in Prometheus's text format 0.0.4.
//!
//! Everything is read anew for each scrape from where it is kept, so no series outlives what it tells of, and what was not measured, or too
//! long ago, is left out. Labels are `swarm`, `agent` and `source`, bounded by what is declared; `tool`, bounded by the list of tools; `code`, `class`, `level`, `state` and `type`,
//! each with its few values; and of the daemon itself `version`, `hive` and `hive_id`. Nothing that an agent or a server says is one.
//!
//! `readings` is what other rooms hand in, `process` what the kernel says of the daemon, `families` and `work` the
//! table of names, `text` the format.

mod families;
mod process;
mod readings;
mod text;
mod work;

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web::Data};
use tokio::time::timeout;

pub use readings::{ActorsReading, DiskReading, JournalReading, MetricsReader, OperationsReading, Readings};

use self::{families::Scrape, process::Process};
use super::{dto, error::Problem, server::Deps};
use crate::view;

/// How long a scrape waits for the counts of work: a commit takes milliseconds, and who scrapes gives up after some seconds.
const WORK_WAIT: Duration = Duration::from_secs(1);

/// One scrape.
pub(super) async fn metrics(request: HttpRequest, deps: Data<Deps>) -> Result<HttpResponse, Problem> {
    let dto::NoQuery {} = dto::query(&request)?;
    // A tree that does not answer is a family less, and no reason to hide the rest.
    let children = deps.control.tree().await.ok().map(|tree| view::tree::count(&tree));
    // Nor is a clerk who writes.
    let work = timeout(WORK_WAIT, deps.tools.counts()).await.ok().and_then(Result::ok);
    let called = deps.tools.called();
    let (hive, readings) = (deps.health.hive(), deps.metrics.read());
    let (head, process) = (deps.feed.head(), Process::read());
    let scrape = Scrape { hive: &hive, readings: &readings, children, work, called: &called, head, process };
    Ok(HttpResponse::Ok().content_type(text::CONTENT_TYPE).body(families::render(&scrape)))
}
