//! The handler of `/ws/hybrid-health`.

use std::time::Instant;

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use actix_web_actors::ws;

use super::{
    hub::{Hub, Refused},
    socket::Socket,
    viewer::Viewer,
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
        let mut answer = problem(StatusCode::UPGRADE_REQUIRED, "upgrade_required", &error.to_string());
        answer
            .headers_mut()
            .insert(actix_web::http::header::UPGRADE, actix_web::http::header::HeaderValue::from_static("websocket"));
        return Ok(answer);
    }
    let unavailable = |code, detail| problem(StatusCode::SERVICE_UNAVAILABLE, code, detail);
    let Some(socket) = request.conn_data::<Socket>().cloned() else {
        tracing::error!(
            "a viewer's connection has no descriptor: out of descriptors, or a server without `keep_socket`"
        );
        return Ok(unavailable("out_of_descriptors", "no descriptor is left for another viewer"));
    };
    if let Err(error) = socket.bound_send_buffer(hub.limits().send_buffer_bytes) {
        tracing::warn!(%error, "send buffer of a viewer's socket not bounded");
    }
    let (id, record) = match hub.enter(socket, Instant::now()) {
        Ok(entered) => entered,
        Err(Refused::Full) => return Ok(unavailable("too_many_viewers", "all places for viewers are taken")),
        Err(Refused::Closing) => return Ok(unavailable("shutting_down", "the daemon is on its way out")),
    };
    let frame_size = hub.limits().frame_bytes_max;
    let viewer = Viewer::new(hub.get_ref().clone(), id, record);
    ws::WsResponseBuilder::new(viewer, &request, payload).frame_size(frame_size).start()
}

fn problem(status: StatusCode, code: &str, detail: &str) -> HttpResponse {
    HttpResponse::build(status).content_type("application/problem+json").json(serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "code": code,
        "detail": detail,
    }))
}
