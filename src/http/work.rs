//! Work that agents share, over HTTP: each route calls one tool by its name, and its answer is what the tool answers. Nothing here becomes an operation, for
//! what was asked for is done, and written down, by the time that the answer comes.

use std::sync::Arc;

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, HeaderValue},
    web::{Data, Payload},
};
use serde_json::Value;

use super::{
    arguments::Arguments,
    error::{Code, Problem},
    guard,
    server::Deps,
    sse::Streams,
    wait,
};
use crate::{
    model::Scope,
    tools::{Answer, Caller, Tool, ToolError, Unhurried},
};

const MARKDOWN: &str = "text/markdown";
/// The member of an answer that is text for people.
const TEXT: &str = "markdown";

/// Where a request for a tool leads.
pub(super) struct Way {
    pub(super) tool: &'static Tool,
    pub(super) arguments: Arguments,
}

/// Calls the tool. Whoever hangs up no longer waits.
pub(super) async fn serve(
    way: Arc<Way>,
    request: HttpRequest,
    payload: Payload,
    deps: Data<Deps>,
    streams: Data<Streams>,
) -> Result<HttpResponse, Problem> {
    let arguments = way.arguments.read(&request, payload).await?;
    // What was read as JSON can be written as JSON.
    let arguments = serde_json::to_string(&arguments).unwrap_or_default();
    let caller = Caller::Client { control: guard::key(&request).is_none_or(|key| key.scope().covers(Scope::Control)) };
    let call = deps.tools.call(&caller, way.tool.name, &arguments, &Unhurried);
    let answer = wait::while_wanted(&request, &streams, call).await?.map_err(|error| refusal(&way, error))?;
    Ok(guard::told_elsewhere(show(&request, answer)))
}

fn refusal(way: &Way, error: ToolError) -> Problem {
    match &error {
        // What can't be an id is nobody's.
        ToolError::Arguments { key, .. } if way.arguments.in_path(key) => {
            Problem::new(Code::NotFound, error.to_string())
        }
        _ => error.into(),
    }
}

fn show(request: &HttpRequest, answer: Answer) -> HttpResponse {
    if wants_markdown(request.headers().get(header::ACCEPT))
        && let Ok(document) = serde_json::from_str::<Value>(&answer.0)
        && let Some(text) = document[TEXT].as_str()
    {
        return HttpResponse::Ok().content_type("text/markdown; charset=utf-8").body(text.to_owned());
    }
    HttpResponse::Ok().content_type("application/json").body(answer.0)
}

fn wants_markdown(accept: Option<&HeaderValue>) -> bool {
    let accept = accept.and_then(|value| value.to_str().ok()).unwrap_or("");
    accept.split(',').filter_map(|range| range.split(';').next()).any(|range| range.trim() == MARKDOWN)
}
