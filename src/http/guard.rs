//! What stands before every route: Host, Origin, pace, token and scope are judged here, and every answer leaves with the same headers.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Instant, SystemTime},
};

use actix_web::{
    Error, HttpMessage as _, HttpRequest, HttpResponse,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::header::{self, HeaderMap, HeaderName, HeaderValue},
    middleware::Next,
    web,
};

use serde::Serialize;

use super::{
    audit::{Asked, Book},
    error::{Code, Problem},
    hosts::Hosts,
    leash::leash,
    pace::{Pace, Peer},
    table::{self, Scopes},
};
use crate::{
    control_plane::{Key, Keyring},
    model::{Requester, Scope},
};

/// Where a ticket stands for a token: what a page opens can carry no header of its own.
const TICKET_PATHS: [&str; 2] = ["/ws/hybrid-health", "/sse/hybrid-health"];

/// Everything that is judged before a route is looked for.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) keys: Keyring,
    pub(super) hosts: Hosts,
    pub(super) scopes: Scopes,
    pub(super) pace: Pace,
    pub(super) book: Book,
}

/// Our own end of a connection; differs from the bound address when that is the unspecified one.
#[derive(Debug, Clone, Copy)]
pub(super) struct LocalAddr(pub(super) SocketAddr);

/// Marks the answer to a request that could have changed something, and is not written down as one that did: it only told what it would have done, or the
/// feed tells it in words of its own.
#[derive(Debug, Clone, Copy)]
struct Unwritten;

/// Shows what a request did, or, as a dry run, what it would have done.
pub(super) fn told(dry_run: bool, shown: impl Serialize) -> HttpResponse {
    let mut response = HttpResponse::Ok().json(shown);
    if dry_run {
        response.extensions_mut().insert(Unwritten);
    }
    response
}

/// An answer whose change is an event of its own. There may be thousands of them in a second, and the journal keeps each event once.
pub(super) fn told_elsewhere(mut response: HttpResponse) -> HttpResponse {
    response.extensions_mut().insert(Unwritten);
    response
}

/// Whose token a request came with, for the handlers; those of the viewers' room ask for the same.
pub(super) fn key(request: &HttpRequest) -> Option<Arc<Key>> {
    request.extensions().get().cloned()
}

/// Who an operation was asked for by.
pub(super) fn requester(request: &HttpRequest) -> Requester {
    let peer = request.peer_addr().map_or_else(|| "unknown".to_owned(), |peer| peer.to_string());
    match key(request) {
        Some(key) => Requester::Token { name: key.name().clone(), peer },
        None => Requester::Http { peer },
    }
}

/// A refusal, and whose token it was if that was good.
struct Refused {
    problem: Problem,
    key: Option<Arc<Key>>,
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self { problem, key: None }
    }
}

impl Gate {
    fn judge(&self, request: &ServiceRequest, needed: table::Scope, peer: Peer) -> Result<Option<Arc<Key>>, Refused> {
        let local = request.conn_data::<LocalAddr>().map(|local| local.0);
        self.hosts.judge_host(request, local)?;
        self.hosts.judge_origin(request.headers(), local)?;
        let needed = match needed {
            // Whoever probes for life has no token to show, and learns one bit, however often it asks; the details of `?verbose` are for those
            // who have a token.
            table::Scope::Open if request.query_string().is_empty() => return Ok(None),
            table::Scope::Open | table::Scope::Read => Scope::Read,
            table::Scope::Control => Scope::Control,
        };
        self.pace.peer(peer, needed)?;
        if self.keys.open_to_all() {
            return Ok(None);
        }
        let key = match self.identify(request) {
            Ok(key) => key,
            // The bucket of refusals changes what is answered and not who is let in.
            Err(problem) => return Err(self.pace.refused(peer).err().unwrap_or(problem).into()),
        };
        let Some(known) = &key else { return Ok(None) };
        let refused = |problem| Refused { problem, key: key.clone() };
        self.pace.token(known.id(), needed).map_err(refused)?;
        if !known.scope().covers(needed) {
            let detail = format!("the token {} has the scope read, and this needs control", known.name());
            return Err(refused(Problem::new(Code::Forbidden, detail)));
        }
        Ok(key)
    }

    /// Whose token or ticket it is; a ticket from before there were tokens is nobody's.
    fn identify(&self, request: &ServiceRequest) -> Result<Option<Arc<Key>>, Problem> {
        let now = SystemTime::now();
        let mut all = request.headers().get_all(header::AUTHORIZATION);
        if let Some(presented) = all.next() {
            if all.next().is_some() {
                // A proxy might have judged the other one.
                return Err(Problem::new(Code::InvalidRequest, "at most one Authorization header is allowed"));
            }
            let token = presented
                .to_str()
                .ok()
                .and_then(|value| value.split_once(' '))
                .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
                .map(|(_, token)| token.trim());
            let Some(token) = token else { return Err(Problem::new(Code::Unauthorized, "a bearer token is needed")) };
            let key = self.keys.judge(token, now);
            return key
                .map(Some)
                .ok_or_else(|| Problem::new(Code::InvalidToken, "the bearer token is not, or no longer, good"));
        }
        let mut pairs = request.query_string().split('&');
        match pairs.find_map(|pair| pair.strip_prefix("ticket=")) {
            Some(ticket) if TICKET_PATHS.contains(&request.path()) => self
                .keys
                .redeem(ticket, now)
                .ok_or_else(|| Problem::new(Code::InvalidToken, "the ticket is not, or no longer, good")),
            _ => Err(Problem::new(Code::Unauthorized, "a bearer token is needed")),
        }
    }
}

/// The middleware: judges, serves, turns every error into a problem document, and writes down who changed something or was refused.
pub(super) async fn guard(
    gate: web::Data<Gate>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let address = request.peer_addr();
    let peer = Peer::of(address);
    let needed = gate.scopes.needed(request.method(), request.match_info().unprocessed());
    let (response, refused, key) = match gate.judge(&request, needed, peer) {
        Err(Refused { problem, key }) => {
            let response = problem.response(Some(request.path()));
            (request.into_response(response), Some(problem.code()), key)
        }
        Ok(key) => {
            if let Some(key) = &key {
                request.extensions_mut().insert(Arc::clone(key));
            }
            let response = next.call(request).await?.map_into_boxed_body();
            let held = key.clone();
            (response.map_body(|head, body| leash(head.status, body, held)), None, key)
        }
    };
    let problem = problem_of(&response);
    let code = refused.or(problem.as_ref().map(Problem::code));
    let mut response = match problem {
        Some(problem) => replaced(response, &problem),
        None => response,
    };
    let (request, head) = (response.request(), response.response());
    let asked = Asked { key: key.as_deref(), peer, address, method: request.method().as_str(), path: request.path() };
    let changes = needed == table::Scope::Control && !request.method().is_safe();
    match code {
        Some(code) if refused.is_some() || changes => {
            gate.book.refusal(asked, head.status().as_u16(), code.word(), Instant::now());
        }
        None if changes && !head.extensions().contains::<Unwritten>() => {
            gate.book.change(asked, head.status().as_u16());
        }
        _ => {}
    }
    seal(response.headers_mut());
    Ok(response)
}

/// What another room said beside its status stays said: Retry-After, Sec-WebSocket-Version.
fn replaced(response: ServiceResponse<BoxBody>, problem: &Problem) -> ServiceResponse<BoxBody> {
    let own = response.headers().clone();
    let document = problem.response(Some(response.request().path()));
    let mut response = response.into_response(document);
    for (name, value) in own {
        if name != header::CONTENT_LENGTH && name != header::CONTENT_TYPE {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// The problem that an answer stands for, unless it is a document of its own already.
fn problem_of(response: &ServiceResponse<BoxBody>) -> Option<Problem> {
    match response.response().error() {
        Some(error) => Some(match error.as_error::<Problem>() {
            Some(problem) => problem.clone(),
            None => Problem::foreign(error.error_response().status()),
        }),
        None => {
            let status = response.status();
            let bare = !response.headers().contains_key(header::CONTENT_TYPE);
            (bare && (status.is_client_error() || status.is_server_error())).then(|| Problem::foreign(status))
        }
    }
}

/// An API's answers are data: nothing of them is to be kept by caches, guessed at, or run as a page.
///
/// There is no Strict-Transport-Security: it would hold for every port of the host, and so for services that are not ours.
fn seal(headers: &mut HeaderMap) {
    let all = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in all {
        headers.insert(name, HeaderValue::from_static(value));
    }
}
