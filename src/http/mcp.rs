//! `/mcp`: the Model Context Protocol as streamable HTTP. Who asks, and whether he may change anything, his token says; all else the MCP room answers.

use std::pin::Pin;

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        StatusCode,
        header::{self, HeaderName, HeaderValue},
    },
    web::{Data, Payload},
};

use super::{
    dto,
    error::Problem,
    guard,
    sse::{Frames, Source, Streams},
    wait,
};
use crate::{
    mcp::{Endpoint, Flow, MESSAGE_BYTES_MAX},
    model::Scope,
    stream,
    tools::Caller,
};

/// What a POST with a message of MCP's is answered with.
pub(super) async fn post(
    request: HttpRequest,
    payload: Payload,
    endpoint: Data<Endpoint>,
    streams: Data<Streams>,
) -> Result<HttpResponse, Problem> {
    let body = dto::bytes(&request, payload, MESSAGE_BYTES_MAX).await?;
    let control = guard::key(&request).is_none_or(|key| key.scope().covers(Scope::Control));
    // The token has done its work, and goes no further.
    let headers = request.headers().iter().filter(|(name, _)| **name != header::AUTHORIZATION);
    let headers = headers.map(|(name, value)| (name.as_str(), value.as_bytes()));
    let call = async {
        let mut reply = endpoint.post(Caller::Client { control }, headers, body.into()).await;
        let is_event = |(name, value): &(String, Vec<u8>)| name == "content-type" && value == b"text/event-stream";
        let (is_stream, mut whole) = (reply.headers.iter().any(is_event), Vec::new());
        while !is_stream && let Some(piece) = reply.flow.next().await {
            whole.extend_from_slice(&piece);
        }
        (reply, is_stream, whole)
    };
    let (reply, is_stream, body) = wait::while_wanted(&request, &streams, call).await?;
    if is_stream {
        let mut response = streams.respond(Told { flow: reply.flow, left: Box::pin(stream::hung_up(&request)) })?;
        response.headers_mut().insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
        return Ok(response);
    }
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let is_bare = !reply.headers.iter().any(|(name, _)| name == "content-type");
    if is_bare && (status.is_client_error() || status.is_server_error()) {
        // No message of the protocol, so it is one of ours.
        return Err(Problem::new(Problem::foreign(status).code(), String::from_utf8_lossy(&body)));
    }
    let mut response = HttpResponse::build(status);
    for (name, value) in reply.headers {
        response.append_header((name, value));
    }
    Ok(response.body(body))
}

/// A call that tells how it goes, and then its answer; as long as somebody is there who listens.
struct Told {
    flow: Flow,
    left: Pin<Box<dyn Future<Output = ()>>>,
}

impl Source for Told {
    async fn next(&mut self) -> Option<Frames> {
        tokio::select! {
            biased;
            () = &mut self.left => None,
            // Each piece is a whole event.
            piece = self.flow.next() => Some(Frames::whole(String::from_utf8_lossy(&piece?).into_owned())),
        }
    }
}
