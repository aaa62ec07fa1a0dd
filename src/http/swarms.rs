//! Swarms and agents, shown: what is desired beside what was seen.

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, ContentType},
    web::Data,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    dto,
    error::{Code, Problem},
    pages::{Key, Pages},
    server::Deps,
};
use crate::{
    control_plane::SwarmEntry,
    model::{AgentHealth, AgentId, SwarmHealth},
    view::{self, AgentView, Rfc3339, SwarmDocument, SwarmView, words},
};
use std::sync::Arc;

/// Swarms on a page, at most and when no number is asked for: whoever has fewer never meets a second page.
pub(super) const PAGE_MAX: usize = 1000;

/// A swarm: what the operator wants, what was seen of it (`null` as long as nothing was), and its document.
#[derive(Serialize, ToSchema)]
#[schema(as = Swarm)]
pub(super) struct Entry<'a> {
    name: &'a str,
    #[schema(value_type = words::OriginWord)]
    origin: &'static str,
    #[schema(value_type = words::DesiredWord)]
    desired: &'static str,
    desired_since: Rfc3339,
    health: Option<SwarmView<'a>>,
    agents: Vec<AgentView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<&'a SwarmDocument>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = SwarmList)]
pub(super) struct List<'a> {
    swarms: Vec<Entry<'a>>,
    /// Names the page behind this one; null on the last.
    next_cursor: Option<&'a str>,
}

/// What was seen of one swarm.
struct Seen {
    swarm: Option<Arc<SwarmHealth>>,
    agents: Vec<Arc<AgentHealth>>,
}

/// Swarms by name, without their documents.
pub(super) async fn list(request: HttpRequest, deps: Data<Deps>, pages: Data<Pages>) -> Result<HttpResponse, Problem> {
    let dto::SwarmsQuery { limit, cursor } = dto::query(&request)?;
    let limit = dto::limit(limit, PAGE_MAX, PAGE_MAX)?;
    let head = deps.feed.head();
    let mut entries = deps.control.swarms();
    entries.retain(|entry| cursor.as_ref().is_none_or(|cursor| entry.spec.name > *cursor));
    let more = entries.len() > limit;
    entries.truncate(limit);
    let page = pages.get(Key::new(asked(&request), head, &entries), || {
        let seen: Vec<Seen> = entries.iter().map(|entry| seen(entry, &deps)).collect();
        let swarms = entries.iter().zip(&seen).map(|(entry, seen)| show_entry(entry, seen, None)).collect();
        let next_cursor = entries.last().filter(|_| more).map(|last| last.spec.name.as_str());
        rendered(&List { swarms, next_cursor })
    });
    Ok(HttpResponse::Ok().content_type(ContentType::json()).body(page))
}

/// One swarm. Its ETag names the version of the document alone: what `If-Match` will be held against when documents can be replaced.
pub(super) async fn show(request: HttpRequest, deps: Data<Deps>, pages: Data<Pages>) -> Result<HttpResponse, Problem> {
    let dto::NoQuery {} = dto::query(&request)?;
    let name = dto::swarm_name(&request)?;
    let head = deps.feed.head();
    let not_found = || Problem::new(Code::NotFound, format!("swarm {name} not found"));
    let entry = deps.control.swarm(&name).ok_or_else(not_found)?;
    let document = view::document(&entry.spec);
    let mut response = HttpResponse::Ok();
    response.insert_header((header::ETAG, view::document_tag(&document)));
    let page = pages.get(Key::new(asked(&request), head, std::slice::from_ref(&entry)), || {
        rendered(&show_entry(&entry, &seen(&entry, &deps), Some(&document)))
    });
    Ok(response.content_type(ContentType::json()).body(page))
}

/// One agent.
pub(super) async fn agent(request: HttpRequest, deps: Data<Deps>) -> Result<HttpResponse, Problem> {
    let dto::NoQuery {} = dto::query(&request)?;
    let id = dto::agent_id(&request)?;
    let not_found = || Problem::new(Code::NotFound, format!("agent {id} not found"));
    let agent = deps.health.agent(&id).ok_or_else(not_found)?;
    Ok(HttpResponse::Ok().json(view::agent(&agent)))
}

/// What of a request decides on its answer.
fn asked(request: &HttpRequest) -> &str {
    request.uri().path_and_query().map_or("", |asked| asked.as_str())
}

/// Nothing that is shown has a form that JSON lacks.
fn rendered(shown: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(shown).unwrap_or_default()
}

fn seen(entry: &SwarmEntry, deps: &Deps) -> Seen {
    let swarm = deps.health.swarm(&entry.spec.name);
    let agents = swarm.iter().flat_map(|swarm| &swarm.agents).filter_map(|name| {
        let id = AgentId { swarm: entry.spec.name.clone(), name: name.clone() };
        deps.health.agent(&id)
    });
    Seen { agents: agents.collect(), swarm }
}

fn show_entry<'a>(entry: &'a SwarmEntry, seen: &'a Seen, document: Option<&'a SwarmDocument>) -> Entry<'a> {
    Entry {
        name: entry.spec.name.as_str(),
        origin: words::origin(entry.spec.origin),
        desired: words::desired(entry.desired),
        desired_since: Rfc3339(entry.since),
        health: seen.swarm.as_deref().map(view::swarm),
        agents: seen.agents.iter().map(|agent| view::agent(agent)).collect(),
        document,
    }
}
