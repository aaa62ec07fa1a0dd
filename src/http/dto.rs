//! Queries and bodies as they are read. What is not known is refused by name, with what is allowed.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime},
};

use actix_web::{
    HttpRequest,
    http::{Method, header},
    web::{Data, Payload},
};
use futures_util::StreamExt as _;
use serde::{Deserialize, Deserializer, Serialize, de};
use utoipa::ToSchema;

pub(super) use super::query::query;
use super::{
    error::{Code, Problem},
    server::{Deps, Limits},
};
use crate::{
    control_plane::{LogLine, LogPage},
    model::{AgentId, OperationId, OperationState, SwarmName},
    view::{Rfc3339, parse_rfc3339, whole, words},
};

/// Largest body of a request: a command's is tens of bytes, a swarm document's a few thousand.
pub(super) const BODY_BYTES_MAX: usize = 64 * 1024;
/// Longest `?wait=`; proxies between us and a client seldom hold a silent request for longer.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(300);
/// Longest `Idempotency-Key`: room for any UUID or hash with a prefix.
pub(super) const KEY_LEN_MAX: usize = 255;

/// Reads a JSON body. An empty one is `{}`, but it is announced as JSON all the same: a web form can't do that.
pub(super) async fn body<T: de::DeserializeOwned>(request: &HttpRequest, payload: Payload) -> Result<T, Problem> {
    long_body(request, payload, BODY_BYTES_MAX).await
}

/// Reads a JSON body of at most so many bytes.
pub(super) async fn long_body<T: de::DeserializeOwned>(
    request: &HttpRequest,
    payload: Payload,
    bytes_max: usize,
) -> Result<T, Problem> {
    let media_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = media_type.and_then(|value| value.split(';').next()).map(str::trim);
    if !essence.is_some_and(|essence| essence.eq_ignore_ascii_case("application/json")) {
        return Err(Problem::new(
            Code::UnsupportedMediaType,
            format!("found content-type {:?}, allowed: application/json", media_type.unwrap_or("")),
        ));
    }
    let bytes = bytes(request, payload, bytes_max).await?;
    let bytes: &[u8] = if bytes.iter().all(u8::is_ascii_whitespace) { b"{}" } else { &bytes };
    serde_json::from_slice(bytes).map_err(|error| Problem::new(Code::InvalidBody, error.to_string()))
}

/// Reads a body of at most so many bytes, whatever it is.
pub(super) async fn bytes(request: &HttpRequest, payload: Payload, most: usize) -> Result<Vec<u8>, Problem> {
    let limits = request.app_data::<Data<Deps>>().map_or_else(Limits::default, |deps| deps.limits);
    let deadline = limits.body_deadline;
    tokio::time::timeout(deadline, collect(payload, most))
        .await
        .map_err(|_| Problem::new(Code::RequestTimeout, format!("the body took longer than {deadline:?}")))?
}

async fn collect(mut payload: Payload, most: usize) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_| Problem::new(Code::InvalidBody, "the body broke off"))?;
        if bytes.len() + chunk.len() > most {
            return Err(Problem::new(Code::BodyTooLarge, format!("a body has at most {most} bytes here")));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// A header's text; `None` when it is not there. Of two a proxy might have read the other one.
pub(super) fn header_text(request: &HttpRequest, name: &str) -> Result<Option<String>, Problem> {
    let invalid = |why: &str| Problem::new(Code::InvalidRequest, format!("{name} {why}"));
    let mut all = request.headers().get_all(name);
    let Some(value) = all.next() else { return Ok(None) };
    if all.next().is_some() {
        return Err(invalid("is there twice, allowed: once"));
    }
    value.to_str().map(|text| Some(text.to_owned())).map_err(|_| invalid("is no ASCII text"))
}

/// `If-Match`, if there is one.
pub(super) fn if_match(request: &HttpRequest) -> Result<Option<String>, Problem> {
    let tags = header_text(request, "if-match")?;
    match &tags {
        Some(tags) if tags.trim().is_empty() => {
            Err(Problem::new(Code::InvalidRequest, "if-match is empty, allowed: an ETag of the document, or *"))
        }
        _ => Ok(tags),
    }
}

/// `Idempotency-Key`, if there is one.
pub(super) fn idempotency_key(request: &HttpRequest) -> Result<Option<String>, Problem> {
    let key = header_text(request, "idempotency-key")?;
    match &key {
        Some(key) if key.is_empty() || key.len() > KEY_LEN_MAX => {
            Err(Problem::new(Code::InvalidRequest, format!("idempotency-key has 1 to {KEY_LEN_MAX} characters")))
        }
        _ => Ok(key),
    }
}

/// The number behind which a stream is resumed, if the client has seen one.
pub(super) fn last_event_id(request: &HttpRequest) -> Result<Option<u64>, Problem> {
    header_text(request, "last-event-id")?
        .filter(|text| !text.is_empty())
        .map(|text| {
            text.parse()
                .map_err(|_| Problem::new(Code::InvalidRequest, format!("last-event-id {text:?} is no number of ours")))
        })
        .transpose()
}

/// Whether the client asks for a stream. A HEAD never does: it has no body to stream.
pub(super) fn wants_stream(request: &HttpRequest, follow: bool) -> bool {
    if request.method() != Method::GET {
        return false;
    }
    let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    accept.split(',').filter_map(|range| range.split(';').next()).any(|range| range.trim() == "text/event-stream")
        || follow
}

/// The swarm of the path. A name that can't be one is not there.
pub(super) fn swarm_name(request: &HttpRequest) -> Result<SwarmName, Problem> {
    let text = request.match_info().query("swarm");
    text.parse().map_err(|_| Problem::new(Code::NotFound, format!("swarm {text} not found")))
}

/// The agent of the path.
pub(super) fn agent_id(request: &HttpRequest) -> Result<AgentId, Problem> {
    let (swarm, agent) = (request.match_info().query("swarm"), request.match_info().query("agent"));
    let parsed = || Some(AgentId { swarm: swarm.parse().ok()?, name: agent.parse().ok()? });
    parsed().ok_or_else(|| Problem::new(Code::NotFound, format!("agent {swarm}/{agent} not found")))
}

/// The operation of the path.
pub(super) fn operation_id(request: &HttpRequest) -> Result<OperationId, Problem> {
    let text = request.match_info().query("operation");
    text.parse().map_err(|_| Problem::new(Code::NotFound, format!("operation {text} not found")))
}

/// `?wait=30s`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WaitQuery {
    #[serde(default, deserialize_with = "optional_duration")]
    pub(super) wait: Option<Duration>,
}

/// `?after=&limit=`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    #[serde(default, deserialize_with = "whole")]
    pub(super) after: Option<u64>,
    #[serde(default, deserialize_with = "whole")]
    pub(super) limit: Option<usize>,
}

/// `?limit=&cursor=&swarm=&state=`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OperationsQuery {
    #[serde(default, deserialize_with = "whole")]
    pub(super) limit: Option<usize>,
    #[serde(default, deserialize_with = "parsed")]
    pub(super) cursor: Option<OperationId>,
    #[serde(default, deserialize_with = "parsed")]
    pub(super) swarm: Option<SwarmName>,
    #[serde(default, deserialize_with = "operation_state")]
    pub(super) state: Option<OperationState>,
}

/// `?limit=&cursor=`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SwarmsQuery {
    #[serde(default, deserialize_with = "whole")]
    pub(super) limit: Option<usize>,
    #[serde(default, deserialize_with = "parsed")]
    pub(super) cursor: Option<SwarmName>,
}

/// `?follow=&since=&tail=&after=&limit=`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogsQuery {
    #[serde(default, deserialize_with = "flag")]
    pub(super) follow: bool,
    pub(super) since: Option<String>,
    #[serde(default, deserialize_with = "whole")]
    pub(super) tail: Option<usize>,
    #[serde(default, deserialize_with = "whole")]
    pub(super) after: Option<u64>,
    #[serde(default, deserialize_with = "whole")]
    pub(super) limit: Option<usize>,
}

/// `?verbose`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReadyQuery {
    #[serde(default, deserialize_with = "flag")]
    pub(super) verbose: bool,
}

/// No query at all.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoQuery {}

/// A `limit` within its bounds.
pub(super) fn limit(asked: Option<usize>, default: usize, max: usize) -> Result<usize, Problem> {
    // An empty page would have no end to go on from.
    if asked == Some(0) {
        return Err(Problem::new(Code::InvalidQuery, format!("limit: found 0, allowed: 1 to {max}")));
    }
    bounded("limit", asked, max).map(|asked| asked.unwrap_or(default))
}

/// A number of things that is at most `max`.
pub(super) fn bounded(key: &str, asked: Option<usize>, max: usize) -> Result<Option<usize>, Problem> {
    match asked {
        Some(asked) if asked > max => {
            Err(Problem::new(Code::InvalidQuery, format!("{key}: found {asked}, allowed: at most {max}")))
        }
        asked => Ok(asked),
    }
}

/// A point in time: RFC 3339, or a duration back from now.
pub(super) fn since(text: &str, now: SystemTime) -> Result<SystemTime, Problem> {
    moment("since", text, now)
}

/// The same by another name.
pub(super) fn moment(key: &str, text: &str, now: SystemTime) -> Result<SystemTime, Problem> {
    parse_rfc3339(text).or_else(|| now.checked_sub(humantime::parse_duration(text).ok()?)).ok_or_else(|| {
        let allowed = "an RFC 3339 time in UTC, or a duration such as 10m";
        Problem::new(Code::InvalidQuery, format!("{key}: found {text:?}, allowed: {allowed}"))
    })
}

pub(super) fn optional_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text)
        .map(Some)
        .map_err(|_| de::Error::invalid_value(de::Unexpected::Str(&text), &"a duration such as 30s"))
}

/// A name or an id.
fn parsed<'de, D: Deserializer<'de>, T: FromStr<Err: fmt::Display>>(deserializer: D) -> Result<Option<T>, D::Error> {
    String::deserialize(deserializer)?.parse().map(Some).map_err(de::Error::custom)
}

fn operation_state<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<OperationState>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let state = OperationState::ALL.into_iter().find(|state| words::operation_state(*state) == text);
    let allowed = || OperationState::ALL.map(words::operation_state).join(", ");
    state.map(Some).ok_or_else(|| de::Error::custom(format!("found {text:?}, allowed: {}", allowed())))
}

/// `?follow`, `?follow=true`, `?follow=1`, and their opposites.
pub(super) fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "" | "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        other => Err(de::Error::invalid_value(de::Unexpected::Str(other), &"true or false")),
    }
}

/// One line of a log.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LogLine)]
pub(super) struct LogLineView<'a> {
    number: u64,
    incarnation: u64,
    seq: Option<u64>,
    at: Rfc3339,
    stream: &'static str,
    level: Option<&'a str>,
    partial: bool,
    text: &'a str,
}

/// Some lines, and where they stand among what is kept.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LogPage)]
pub(super) struct LogPageView<'a> {
    lines: Vec<LogLineView<'a>>,
    first_kept: u64,
    last: u64,
}

pub(super) fn log_line(line: &LogLine) -> LogLineView<'_> {
    LogLineView {
        number: line.number,
        incarnation: line.incarnation,
        seq: line.seq,
        at: Rfc3339(line.at),
        stream: line.stream,
        level: line.level.as_deref(),
        partial: line.partial,
        text: &line.text,
    }
}

pub(super) fn log_page(page: &LogPage) -> LogPageView<'_> {
    LogPageView { lines: page.lines.iter().map(log_line).collect(), first_kept: page.first_kept, last: page.last }
}
