//! What was measured of a swarm or an agent over time.

use std::time::{Duration, SystemTime};

use actix_web::{HttpRequest, HttpResponse, web::Data};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    dto,
    error::{Code, Problem},
    server::Deps,
};
use crate::{
    control_plane::{HistoryPage, HistoryQuery, Point, Resolution, Spread, Tokens},
    model::Target,
    view::Rfc3339,
};

/// How far back a request without `since` reaches: what the finest resolution covers.
const SINCE_DEFAULT: Duration = Duration::from_secs(60 * 60);

/// `?since=&until=&resolution=`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    since: Option<String>,
    until: Option<String>,
    resolution: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = HistoryPage)]
pub(super) struct PageView<'a> {
    swarm: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<&'a str>,
    resolution: &'static str,
    since: Rfc3339,
    until: Rfc3339,
    points: Vec<PointView>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = HistoryPoint)]
struct PointView {
    at: Rfc3339,
    cpu: Option<SpreadView<f64>>,
    memory: Option<SpreadView<u64>>,
    heartbeat_latency_ms: Option<MaxView>,
    tokens: Option<TokensView>,
    restarts: Option<u64>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Spread)]
struct SpreadView<T> {
    mean: T,
    max: T,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Max)]
struct MaxView {
    max: u64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Tokens)]
struct TokensView {
    input: Option<u64>,
    output: Option<u64>,
}

/// Of all agents of a swarm together.
pub(super) async fn swarm(request: HttpRequest, deps: Data<Deps>) -> Result<HttpResponse, Problem> {
    let of = Target::Swarm(dto::swarm_name(&request)?);
    answer(&request, &deps, of).await
}

/// Of one agent.
pub(super) async fn agent(request: HttpRequest, deps: Data<Deps>) -> Result<HttpResponse, Problem> {
    let of = Target::Agent(dto::agent_id(&request)?);
    answer(&request, &deps, of).await
}

async fn answer(request: &HttpRequest, deps: &Deps, of: Target) -> Result<HttpResponse, Problem> {
    let query = read(dto::query(request)?, of.clone(), SystemTime::now())?;
    let page = deps.control.history(query).await?;
    Ok(HttpResponse::Ok().json(view(&of, &page)))
}

fn read(query: Query, of: Target, now: SystemTime) -> Result<HistoryQuery, Problem> {
    let moment = |key, text: Option<String>| text.map(|text| dto::moment(key, &text, now)).transpose();
    let since = moment("since", query.since)?;
    let until = moment("until", query.until)?.unwrap_or(now);
    let since = since.unwrap_or_else(|| until.checked_sub(SINCE_DEFAULT).unwrap_or(SystemTime::UNIX_EPOCH));
    if since > until {
        let found = format!("since: found {}, allowed: not after until, {}", Rfc3339(since), Rfc3339(until));
        return Err(Problem::new(Code::InvalidQuery, found));
    }
    let resolution = match query.resolution.as_deref() {
        None | Some("auto") => None,
        Some(word) => {
            let known = Resolution::ALL.into_iter().find(|resolution| resolution.word() == word);
            let refuse = || {
                let found = format!("resolution: found {word:?}, allowed: 10s, 1m, 10m, auto");
                Problem::new(Code::InvalidQuery, found)
            };
            Some(known.ok_or_else(refuse)?)
        }
    };
    Ok(HistoryQuery { of, since, until, resolution })
}

fn view<'a>(of: &'a Target, page: &HistoryPage) -> PageView<'a> {
    PageView {
        swarm: of.swarm().as_str(),
        agent: match of {
            Target::Swarm(_) => None,
            Target::Agent(id) => Some(id.name.as_str()),
        },
        resolution: page.resolution.word(),
        since: Rfc3339(page.since),
        until: Rfc3339(page.until),
        points: page.points.iter().map(point).collect(),
    }
}

fn point(point: &Point) -> PointView {
    PointView {
        at: Rfc3339(point.at),
        cpu: point.cpu.map(|Spread { mean, max }| SpreadView { mean, max }),
        memory: point.memory.map(|Spread { mean, max }| SpreadView { mean: bytes(mean), max: bytes(max) }),
        heartbeat_latency_ms: point.heartbeat_latency_ms_max.map(|max| MaxView { max }),
        tokens: tokens(point.tokens),
        restarts: point.restarts,
    }
}

/// Null where neither was told.
fn tokens(used: Tokens) -> Option<TokensView> {
    let Tokens { input, output } = used;
    (input.is_some() || output.is_some()).then_some(TokensView { input, output })
}

/// Whole bytes: a mean has fractions that nobody measured.
fn bytes(value: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float's cast saturates at both ends"
    )]
    let whole = value.round() as u64;
    whole
}
