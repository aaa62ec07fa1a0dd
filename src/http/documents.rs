//! What changes the document of a swarm: launch, update, scale, delete. Documents are read by whoever knows the configuration.

use std::{sync::Arc, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Payload},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    commands::{NoBody, hand_in},
    dto,
    error::{Code, Problem},
    guard,
    json::Document,
    server::Deps,
};
use crate::{
    control_plane::UpdatePlan,
    model::{AgentName, Command, SwarmSpec, Target, spec::REPLICAS_MAX},
    view::{AgentChangeView, Mistake},
};

/// Reads swarm documents. The configuration room knows how; it lies above this one.
pub trait DocumentReader: Send + Sync {
    /// The swarm that a document means, with the defaults of the daemon's configuration filled in.
    ///
    /// # Errors
    /// All that is wrong with it.
    fn read(&self, document: &serde_json::Value) -> Result<SwarmSpec, Vec<Mistake>>;
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UpdateQuery {
    #[serde(default, deserialize_with = "dto::flag")]
    dry_run: bool,
    #[serde(default, deserialize_with = "dto::optional_duration")]
    wait: Option<Duration>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ScaleBody)]
#[serde(deny_unknown_fields)]
pub(super) struct Scale {
    /// The stem of the numbered names.
    #[schema(pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
    agent: String,
    #[schema(minimum = 1, maximum = 1000)]
    replicas: u32,
}

/// What another document would do.
#[derive(Serialize, ToSchema)]
#[schema(as = UpdatePlan)]
pub(super) struct Plan {
    dry_run: bool,
    swarm: String,
    agents: Vec<AgentChangeView>,
}

/// A new swarm.
pub(super) async fn launch(request: HttpRequest, payload: Payload, deps: Data<Deps>) -> Result<HttpResponse, Problem> {
    let dto::WaitQuery { wait } = dto::query(&request)?;
    let spec = read(&request, payload, &deps).await?;
    let target = Target::Swarm(spec.name.clone());
    hand_in(&request, &deps, Command::Launch { spec: Arc::new(spec) }, target, wait).await
}

/// Another document for a swarm.
pub(super) async fn update(request: HttpRequest, payload: Payload, deps: Data<Deps>) -> Result<HttpResponse, Problem> {
    let name = dto::swarm_name(&request)?;
    let UpdateQuery { dry_run, wait } = dto::query(&request)?;
    let spec = Arc::new(read(&request, payload, &deps).await?);
    if spec.name != name {
        let (key, found) = ("name".to_owned(), format!("{:?}", spec.name.as_str()));
        let mistake = Mistake { key, found, allowed: format!("{name:?}, as in the path"), place: None };
        return Err(invalid(Code::InvalidDocument, vec![mistake]));
    }
    if !dry_run {
        return hand_in(&request, &deps, Command::Update { spec }, Target::Swarm(name), wait).await;
    }
    // A dry run refuses what the update itself would refuse.
    dto::idempotency_key(&request)?;
    let UpdatePlan { swarm, agents } = deps.control.plan_update(spec, dto::if_match(&request)?)?;
    let agents = agents.iter().map(|(agent, change)| AgentChangeView::new(agent, change.word())).collect();
    Ok(guard::told(dry_run, Plan { dry_run, swarm: swarm.to_string(), agents }))
}

/// No swarm any more.
pub(super) async fn delete(request: HttpRequest, _payload: Payload, deps: Data<Deps>) -> Result<HttpResponse, Problem> {
    let target = Target::Swarm(dto::swarm_name(&request)?);
    let dto::WaitQuery { wait } = dto::query(&request)?;
    hand_in(&request, &deps, Command::Delete, target, wait).await
}

/// Another number of one agent.
pub(super) async fn scale(request: HttpRequest, payload: Payload, deps: Data<Deps>) -> Result<HttpResponse, Problem> {
    let target = Target::Swarm(dto::swarm_name(&request)?);
    let dto::WaitQuery { wait } = dto::query(&request)?;
    let Scale { agent, replicas } = dto::body(&request, payload).await?;
    let bad = |detail: String| Problem::new(Code::InvalidBody, detail);
    let agent: AgentName = agent.parse().map_err(|error| bad(format!("agent: {error}")))?;
    if !(1..=REPLICAS_MAX).contains(&replicas) {
        return Err(bad(format!("replicas: found {replicas}, allowed: 1 to {REPLICAS_MAX}")));
    }
    hand_in(&request, &deps, Command::Scale { agent, replicas }, target, wait).await
}

/// Withdraws an operation.
pub(super) async fn cancel(request: HttpRequest, payload: Payload, deps: Data<Deps>) -> Result<HttpResponse, Problem> {
    let dto::NoQuery {} = dto::query(&request)?;
    let NoBody {} = dto::body(&request, payload).await?;
    let operation = deps.control.cancel(dto::operation_id(&request)?).await?;
    Ok(HttpResponse::Ok().json(crate::view::operation(&operation)))
}

async fn read(request: &HttpRequest, payload: Payload, deps: &Deps) -> Result<SwarmSpec, Problem> {
    let Document(document) = dto::body(request, payload).await?;
    deps.documents.read(&document).map_err(|mistakes| invalid(Code::InvalidDocument, mistakes))
}

/// Mistakes that are listed at most: nobody mends more at once, and a small document can hold thousands.
const MISTAKES_MAX: usize = 100;

/// A refusal that shows the first mistake in words, and all of them, or as many as are worth reading.
pub(super) fn invalid(code: Code, mut mistakes: Vec<Mistake>) -> Problem {
    let said = |one: &Mistake| match one.key.as_str() {
        "" => format!("found {}; {}", one.found, one.allowed),
        key => format!("{key}: found {}; {}", one.found, one.allowed),
    };
    let first = mistakes.first().map(said);
    let detail = match mistakes.len() {
        1 => first.unwrap_or_default(),
        n if n > MISTAKES_MAX => {
            mistakes.truncate(MISTAKES_MAX);
            let first = first.unwrap_or_default();
            format!("{n} mistakes, of which the first {MISTAKES_MAX} are listed; the first: {first}")
        }
        n => format!("{n} mistakes, the first: {}", first.unwrap_or_default()),
    };
    Problem::mistakes(code, detail, mistakes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use actix_web::body::MessageBody as _;

    use super::*;

    #[test]
    fn a_document_with_very_many_mistakes_is_answered_with_some_and_how_many_there_are() {
        let mistake = |n: usize| Mistake {
            key: format!("key{n}"),
            found: "0".to_owned(),
            allowed: "1 to 9".to_owned(),
            place: None,
        };
        for (all, listed, said) in [
            (1, 1, "key0: found 0; 1 to 9"),
            (MISTAKES_MAX, MISTAKES_MAX, "100 mistakes, the first: key0"),
            (30_000, MISTAKES_MAX, "30000 mistakes, of which the first 100 are listed; the first: key0"),
        ] {
            let problem = invalid(Code::InvalidDocument, (0..all).map(mistake).collect());
            let text = problem.to_string();
            assert!(text.starts_with(said), "{text}");
            let body = problem.response(None).into_body().try_into_bytes().unwrap();
            let shown: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(shown["errors"].as_array().unwrap().len(), listed);
        }
    }
}
