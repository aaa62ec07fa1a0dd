//! What stands before every route: Host, Origin and token are judged here, and every answer leaves with the same headers.

use std::net::{IpAddr, SocketAddr};

use actix_web::{
    Error,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::header::{self, HeaderMap, HeaderName, HeaderValue},
    middleware::Next,
    web,
};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{
    error::{Code, Problem},
    table::{Scope, Scopes},
};

/// Who may use the API.
#[derive(Clone)]
pub enum Auth {
    /// Whoever reaches a loopback address.
    Open,
    /// Who presents the token; only its hash is kept.
    Token {
        /// SHA-256 of the token.
        sha256: [u8; 32],
    },
}

impl Auth {
    /// Asks for this bearer token.
    pub fn token(token: &str) -> Self {
        Self::Token { sha256: Sha256::digest(token.as_bytes()).into() }
    }

    fn judge(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let Self::Token { sha256 } = self else { return Ok(()) };
        let presented = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim());
        let Some(presented) = presented else {
            return Err(Problem::new(Code::Unauthorized, "a bearer token is needed"));
        };
        let digest: [u8; 32] = Sha256::digest(presented.as_bytes()).into();
        if bool::from(digest.ct_eq(sha256)) {
            Ok(())
        } else {
            Err(Problem::new(Code::InvalidToken, "the bearer token is not the daemon's"))
        }
    }
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Open => "Open",
            Self::Token { .. } => "Token",
        })
    }
}

/// Which authorities are ours. A page that had its name rebound to our address still sends its own name, and is refused by it.
#[derive(Debug, Clone)]
pub struct Hosts {
    bound: SocketAddr,
    extra: Vec<String>,
}

impl Hosts {
    /// The address that is bound, and further names (`hive.example`, for any port) or authorities (`hive.example:8443`) under which we are reached.
    pub fn new(bound: SocketAddr, extra: &[String]) -> Self {
        Self { bound, extra: extra.iter().map(|host| host.to_ascii_lowercase()).collect() }
    }

    /// Whether `authority` is ours on a connection whose own end is `local`.
    fn allows(&self, authority: &str, default_port: u16, local: Option<SocketAddr>) -> bool {
        let authority = authority.to_ascii_lowercase();
        let Some((host, port)) = split_authority(&authority, default_port) else { return false };
        if self.extra.iter().any(|extra| *extra == authority || *extra == host) {
            return true;
        }
        if port != self.bound.port() {
            return false;
        }
        match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            Ok(ip) => ip.is_loopback() || ip == self.bound.ip() || local.is_some_and(|local| local.ip() == ip),
            Err(_) => host == "localhost",
        }
    }

    fn judge_host(&self, request: &ServiceRequest, local: Option<SocketAddr>) -> Result<(), Problem> {
        let mut hosts = request.headers().get_all(header::HOST);
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return Err(Problem::new(Code::InvalidRequest, "exactly one Host header is needed"));
        };
        // RFC 9112, 3.2.2: the authority of an absolute target counts more than Host; neither may be foreign.
        let target = request.uri().authority().map(|authority| authority.as_str());
        let ours = |authority: &str| self.allows(authority, 80, local);
        if host.to_str().is_ok_and(ours) && target.is_none_or(ours) {
            Ok(())
        } else {
            Err(Problem::new(Code::HostRefused, "this Host is not one of ours; see [http] hosts in the configuration"))
        }
    }

    fn judge_origin(&self, headers: &HeaderMap, local: Option<SocketAddr>) -> Result<(), Problem> {
        let ours = |origin: &HeaderValue| {
            let origin = origin.to_str().ok()?;
            let (authority, port) = match origin.strip_prefix("http://") {
                Some(authority) => (authority, 80),
                None => (origin.strip_prefix("https://")?, 443),
            };
            Some(self.allows(authority, port, local))
        };
        if headers.get_all(header::ORIGIN).all(|origin| ours(origin) == Some(true)) {
            Ok(())
        } else {
            Err(Problem::new(Code::OriginRefused, "requests of foreign web pages are refused"))
        }
    }
}

fn split_authority(authority: &str, default_port: u16) -> Option<(&str, u16)> {
    let name_ends = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    let (host, port) = match authority[name_ends..].find(':') {
        None => (authority, default_port),
        Some(colon) => (&authority[..name_ends + colon], authority[name_ends + colon + 1..].parse().ok()?),
    };
    (!host.is_empty()).then_some((host, port))
}

/// Everything that is judged before a route is looked for.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) auth: Auth,
    pub(super) hosts: Hosts,
    pub(super) scopes: Scopes,
}

/// Our own end of a connection; differs from the bound address when that is the unspecified one.
#[derive(Debug, Clone, Copy)]
pub(super) struct LocalAddr(pub(super) SocketAddr);

impl Gate {
    fn judge(&self, request: &ServiceRequest) -> Result<(), Problem> {
        let local = request.conn_data::<LocalAddr>().map(|local| local.0);
        self.hosts.judge_host(request, local)?;
        self.hosts.judge_origin(request.headers(), local)?;
        // Whoever probes for life has no token to show, and learns one bit; the details of `?verbose` are for those who have it.
        let scope = self.scopes.needed(request.method(), request.match_info().unprocessed());
        let bare_probe = scope == Scope::Open && request.query_string().is_empty();
        if bare_probe { Ok(()) } else { self.auth.judge(request.headers()) }
    }
}

/// The middleware: judges, serves, and turns every error into a problem document.
pub(super) async fn guard(
    gate: web::Data<Gate>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let path = request.path().to_owned();
    let mut response = match gate.judge(&request) {
        Err(problem) => request.into_response(problem.response(Some(&path))),
        Ok(()) => next.call(request).await?.map_into_boxed_body(),
    };
    if let Some(problem) = problem_of(&response) {
        let own = response.headers().clone();
        response = response.into_response(problem.response(Some(&path)));
        // What another room said beside its status stays said: Retry-After, Sec-WebSocket-Version.
        for (name, value) in own {
            if name != header::CONTENT_LENGTH && name != header::CONTENT_TYPE {
                response.headers_mut().insert(name, value);
            }
        }
    }
    seal(response.headers_mut());
    Ok(response)
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn hosts(bound: &str, extra: &[&str]) -> Hosts {
        Hosts::new(bound.parse().unwrap(), &extra.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn hosts_that_are_ours() {
        let ours = hosts("127.0.0.1:8080", &["Hive.example", "box.lan:9000"]);
        for good in [
            "localhost:8080",
            "LOCALHOST:8080",
            "127.0.0.1:8080",
            "127.0.0.53:8080",
            "[::1]:8080",
            "hive.example",
            "hive.example:443",
            "box.lan:9000",
        ] {
            assert!(ours.allows(good, 80, None), "{good}");
        }
        for bad in [
            "",
            ":8080",
            "localhost",
            "localhost:80",
            "localhost:8081",
            "localhost.:8080",
            "evil.example:8080",
            "localhost.evil.example:8080",
            "127.0.0.1.evil.example:8080",
            "10.0.0.1:8080",
            "box.lan:9001",
            "box.lan",
            "localhost:8080:8080",
            "localhost:",
            "[::1:8080",
            "user@localhost:8080",
            "[::2]:8080",
            "hive.example:x",
        ] {
            assert!(!ours.allows(bad, 80, None), "{bad}");
        }
    }

    #[test]
    fn hosts_of_other_bindings() {
        let wide = hosts("0.0.0.0:80", &[]);
        let local = Some("10.0.0.1:80".parse().unwrap());
        assert!(wide.allows("10.0.0.1", 80, local));
        assert!(!wide.allows("10.0.0.2", 80, local));
        assert!(!wide.allows("10.0.0.1", 80, None));
        assert!(!wide.allows("10.0.0.1", 443, local));
        let v6 = hosts("[fe80::1]:8080", &[]);
        assert!(v6.allows("[fe80::1]:8080", 80, None));
        assert!(!v6.allows("fe80::1:8080", 80, None));
    }

    #[test]
    fn origins() {
        let ours = hosts("127.0.0.1:80", &["hive.example"]);
        let judge = |origin: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
            ours.judge_origin(&headers, None).is_ok()
        };
        assert!(ours.judge_origin(&HeaderMap::new(), None).is_ok());
        for good in ["http://localhost", "http://127.0.0.1", "https://hive.example"] {
            assert!(judge(good), "{good}");
        }
        for bad in [
            "null",
            "",
            "https://localhost",
            "http://evil.example",
            "file://localhost",
            "http://localhost/",
            "localhost",
        ] {
            assert!(!judge(bad), "{bad}");
        }
    }

    #[test]
    fn tokens() {
        let auth = Auth::token("s3cret");
        let judge = |value: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            }
            auth.judge(&headers).is_ok()
        };
        assert!(judge(Some("Bearer s3cret")) && judge(Some("bearer s3cret")));
        for bad in [
            None,
            Some("Bearer"),
            Some("Bearer "),
            Some("Bearer s3cre"),
            Some("Bearer s3cret2"),
            Some("Basic s3cret"),
            Some("s3cret"),
        ] {
            assert!(!judge(bad), "{bad:?}");
        }
        assert!(!format!("{auth:?}").contains("s3cret"));
    }
}
