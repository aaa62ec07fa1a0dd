//! The handlers of `/ws/hybrid-health` and `/sse/hybrid-health`.

use std::{sync::Arc, time::Instant};

use actix_web::{
    HttpMessage as _, HttpRequest, HttpResponse,
    body::BoxBody,
    http::{StatusCode, header},
    web,
};
use actix_web_actors::ws;
use serde::Deserialize;

use super::{
    body::Body,
    bounded::Bounded,
    hub::{Hub, Kind, Record, Refused},
    protocol::{self, Asked, Objection},
    socket::Socket,
    sse,
    viewer::Viewer,
};
use crate::{
    control_plane::Key,
    view::{self, whole},
};

/// Lets a viewer in. The server must have been built with `on_connect(`[`keep_socket`](super::keep_socket)`)`.
///
/// # Errors
/// None: what is wrong is answered as a problem document.
pub async fn hybrid_health(
    request: HttpRequest,
    payload: web::Payload,
    hub: web::Data<Hub>,
) -> Result<HttpResponse, actix_web::Error> {
    if let Err(error) = ws::handshake(&request) {
        let mut answer = problem(&request, StatusCode::UPGRADE_REQUIRED, "upgrade_required", &error.to_string());
        answer.headers_mut().insert(header::UPGRADE, header::HeaderValue::from_static("websocket"));
        return Ok(answer);
    }
    let (id, record) = match enter(&request, &hub, Kind::Socket) {
        Ok(entered) => entered,
        Err((code, detail)) => return Ok(problem(&request, StatusCode::SERVICE_UNAVAILABLE, code, detail)),
    };
    let frame_size = hub.limits().frame_bytes_max;
    // Whoever stands before this route has put the token there that it was opened with.
    let key = request.extensions().get::<Arc<Key>>().cloned();
    let payload = Bounded::new(payload, frame_size);
    let viewer = Viewer::new(hub.get_ref().clone(), id, record, key, payload.exceeded());
    let outbox = viewer.outbox();
    let answer = ws::WsResponseBuilder::new(viewer, &request, payload).frame_size(frame_size).start()?;
    Ok(answer.map_body(|_, actor| BoxBody::new(Body::new(actor, outbox))))
}

/// The same frames as server-sent events; `?subscriptions=`, `swarms=` (lists with commas) and `after=` say which, `Last-Event-ID` is younger
/// than `after`. The server must have been built as for [`hybrid_health`].
pub async fn hybrid_health_events(request: HttpRequest, hub: web::Data<Hub>) -> HttpResponse {
    let asked = match asked(&request) {
        Ok(asked) => asked,
        Err(Objection { code, message }) => return problem(&request, StatusCode::BAD_REQUEST, code, &message),
    };
    let (id, record) = match enter(&request, &hub, Kind::Events) {
        Ok(entered) => entered,
        Err((code, detail)) => return problem(&request, StatusCode::SERVICE_UNAVAILABLE, code, detail),
    };
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/event-stream; charset=utf-8"))
        // Proxies that gather answers would hold frames back.
        .insert_header(("x-accel-buffering", "no"))
        .streaming(sse::body(hub.get_ref().clone(), id, record, asked))
}

fn asked(request: &HttpRequest) -> Result<Asked, Objection> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Address {
        subscriptions: Option<String>,
        swarms: Option<String>,
        #[serde(default, deserialize_with = "whole")]
        after: Option<u64>,
        /// Read by whoever lets people in.
        #[serde(rename = "ticket")]
        _ticket: Option<String>,
    }
    let object = |message: String| Objection { code: "invalid_query", message };
    let address = web::Query::<Address>::from_query(request.query_string()).map_err(|error| {
        let text = error.to_string();
        object(text.strip_prefix("Query deserialize error: ").unwrap_or(&text).to_owned())
    })?;
    let seen = match request.headers().get("last-event-id").map(|id| id.to_str()) {
        None | Some(Ok("")) => address.after,
        Some(id) => {
            let id = id.ok().and_then(|id| id.parse().ok());
            Some(id.ok_or_else(|| object("last-event-id is no number of ours".to_owned()))?)
        }
    };
    protocol::asked(address.subscriptions.as_deref(), address.swarms.as_deref(), seen)
}

/// The code and the detail of why there is no place.
type Unavailable = (&'static str, &'static str);

fn enter(request: &HttpRequest, hub: &Hub, kind: Kind) -> Result<(u64, Arc<Record>), Unavailable> {
    let Some(socket) = Socket::of(request) else {
        tracing::error!(
            "a viewer's connection has no descriptor: out of descriptors, or a server without `keep_socket`"
        );
        return Err(("out_of_descriptors", "no descriptor is left for another viewer"));
    };
    if let Err(error) = socket.bound_send_buffer(hub.limits().send_buffer_bytes) {
        tracing::warn!(%error, "send buffer of a viewer's socket not bounded");
    }
    hub.enter(kind, socket, Instant::now()).map_err(|refused| match refused {
        Refused::Full => ("too_many_viewers", "all places for viewers are taken"),
        Refused::Closing => ("shutting_down", "the daemon is on its way out"),
    })
}

fn problem(request: &HttpRequest, status: StatusCode, code: &str, detail: &str) -> HttpResponse {
    let shown = view::problem(status.as_u16(), code, detail, Some(request.path()));
    HttpResponse::build(status).content_type(view::PROBLEM_JSON).json(shown)
}
