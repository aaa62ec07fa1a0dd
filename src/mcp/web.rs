//! MCP as streamable HTTP: one path, a POST for each message. No sessions: what one request opened no other needs, and clients of the revisions before
//! 2026-07-28 need none either. A call that waits is answered by a stream: what is written to it each second is progress, if its client has asked for
//! that, else a comment. A client that has gone away is noticed by that alone, and must not be given what it waited for.

use std::{sync::Arc, time::Duration};

use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use rmcp::transport::{
    StreamableHttpServerConfig, StreamableHttpService, streamable_http_server::session::never::NeverSessionManager,
};
use serde_json::{Map, Value};

use super::handler::{Asker, Mcp};
use crate::tools::Caller;

/// Largest message: as long as a line of the data plane.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// Stands for the progress token of a client that wants to be told of none.
const QUIET: &str = "dev.hivekeeper/quiet";
/// What such a client is told instead: a comment, which every reader of a stream passes over.
const STILL: &[u8] = b": waiting\n\n";

type Bytes = actix_web::web::Bytes;

/// The endpoint. Copies are the same one.
#[derive(Clone)]
pub struct Endpoint {
    service: StreamableHttpService<Mcp, NeverSessionManager>,
}

/// An answer.
pub struct Reply {
    /// Status.
    pub status: u16,
    /// Headers: names and values.
    pub headers: Vec<(String, Vec<u8>)>,
    /// What follows them.
    pub flow: Flow,
}

/// The body of an answer. Dropping it ends the call that it tells of.
pub struct Flow(BoxBody<Bytes, std::convert::Infallible>);

impl Endpoint {
    /// An endpoint of this server. Hosts, origins and tokens are judged by whoever stands before it.
    pub fn new(mcp: Mcp) -> Self {
        let config = StreamableHttpServerConfig::default()
            .with_legacy_session_mode(false)
            .with_json_response(true)
            .with_sse_keep_alive(None::<Duration>)
            .with_sse_retry(None)
            .with_max_request_body_bytes(MESSAGE_BYTES_MAX)
            .disable_allowed_hosts();
        let service =
            StreamableHttpService::new(move || Ok(mcp.clone()), Arc::new(NeverSessionManager::default()), config);
        Self { service }
    }

    /// Answers a POST.
    pub async fn post<'a>(
        &self,
        caller: Caller,
        headers: impl Iterator<Item = (&'a str, &'a [u8])>,
        body: Bytes,
    ) -> Reply {
        let mut request = http::Request::new(Full::new(watched(body)));
        *request.method_mut() = http::Method::POST;
        for (name, value) in headers {
            // What was a header to one library is one to the other.
            if let (Ok(name), Ok(value)) = (http::HeaderName::try_from(name), http::HeaderValue::try_from(value)) {
                request.headers_mut().append(name, value);
            }
        }
        request.extensions_mut().insert(Asker(Some(caller)));
        let (head, body) = self.service.handle(request).await.into_parts();
        let headers = head.headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
        Reply { status: head.status.as_u16(), headers: headers.collect(), flow: Flow(body) }
    }

    /// Ends every call and every stream, for good.
    pub fn close(&self) {
        self.service.config.cancellation_token.cancel();
    }
}

impl Flow {
    /// The next piece; `None` at the end. May be dropped at any time.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            match self.0.frame().await? {
                // Nothing of ours has trailers.
                Ok(frame) => {
                    if let Ok(data) = frame.into_data() {
                        return Some(if tells_nobody(&data) { Bytes::from_static(STILL) } else { data });
                    }
                }
                Err(never) => match never {},
            }
        }
    }
}

/// A call with a progress token. What can't be read is left as it is, to be refused.
fn watched(body: Bytes) -> Bytes {
    let Ok(mut message) = serde_json::from_slice::<Value>(&body) else { return body };
    if message["method"] != "tools/call" {
        return body;
    }
    let Some(params) = message["params"].as_object_mut() else { return body };
    let meta = params.entry("_meta").or_insert_with(|| Value::Object(Map::new()));
    match meta.as_object_mut() {
        Some(meta) if !meta.contains_key("progressToken") => meta.insert("progressToken".to_owned(), QUIET.into()),
        _ => return body,
    };
    message.to_string().into()
}

/// Whether a piece of a stream is progress that nobody has asked for.
fn tells_nobody(piece: &[u8]) -> bool {
    let text = std::str::from_utf8(piece).unwrap_or_default();
    let told = text.lines().find_map(|line| line.strip_prefix("data:"));
    let told: Option<Value> = told.and_then(|told| serde_json::from_str(told).ok());
    told.is_some_and(|told| told["params"]["progressToken"] == QUIET)
}
