//! MCP as streamable HTTP: one path, a POST for each message. No sessions: what one request opened no other needs, and clients of the revisions before
//! 2026-07-28 need none either. A request that waits is answered by a stream if its client has asked to be told of progress.

use std::{sync::Arc, time::Duration};

use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use rmcp::transport::{
    StreamableHttpServerConfig, StreamableHttpService, streamable_http_server::session::never::NeverSessionManager,
};

use super::handler::{Asker, Mcp};
use crate::tools::Caller;

/// Largest message: as long as a line of the data plane.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

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
        let mut request = http::Request::new(Full::new(body));
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
                        return Some(data);
                    }
                }
                Err(never) => match never {},
            }
        }
    }
}
