//! Which names and origins are ours.

use std::net::{IpAddr, SocketAddr};

use actix_web::{
    dev::ServiceRequest,
    http::header::{self, HeaderMap, HeaderValue},
};

use super::error::{Code, Problem};

/// Which authorities are ours. A page that had its name rebound to our address still sends its own name, and is refused by it.
#[derive(Debug, Clone)]
pub(super) struct Hosts {
    bound: SocketAddr,
    extra: Vec<String>,
    /// Whether we speak HTTPS ourselves; a proxy before us may all the same.
    secure: bool,
}

impl Hosts {
    /// The address that is bound, and further names (`hive.example`, for any port) or authorities (`hive.example:8443`) under which we are reached.
    pub(super) fn new(bound: SocketAddr, extra: &[String], secure: bool) -> Self {
        Self { bound, extra: extra.iter().map(|host| host.to_ascii_lowercase()).collect(), secure }
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
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        match bare.parse::<IpAddr>() {
            Ok(ip) => ip.is_loopback() || ip == self.bound.ip() || local.is_some_and(|local| local.ip() == ip),
            Err(_) => host == "localhost",
        }
    }

    pub(super) fn judge_host(&self, request: &ServiceRequest, local: Option<SocketAddr>) -> Result<(), Problem> {
        let mut hosts = request.headers().get_all(header::HOST);
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return Err(Problem::new(Code::InvalidRequest, "exactly one Host header is needed"));
        };
        // RFC 9112, 3.2.2: the authority of an absolute target counts more than Host; neither may be foreign.
        let target = request.uri().authority().map(|authority| authority.as_str());
        let ours = |authority: &str| self.allows(authority, if self.secure { 443 } else { 80 }, local);
        if host.to_str().is_ok_and(ours) && target.is_none_or(ours) {
            Ok(())
        } else {
            Err(Problem::new(Code::HostRefused, "this Host is not one of ours; see [http] hosts in the configuration"))
        }
    }

    pub(super) fn judge_origin(&self, headers: &HeaderMap, local: Option<SocketAddr>) -> Result<(), Problem> {
        let ours = |origin: &HeaderValue| {
            let origin = origin.to_str().ok()?;
            let (authority, port) = match origin.strip_prefix("http://") {
                // Where we speak HTTPS, a page that came without it is of somebody who sits in between.
                Some(_) if self.secure => return Some(false),
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
        Some(colon) => (&authority[..name_ends + colon], port(&authority[name_ends + colon + 1..])?),
    };
    (!host.is_empty()).then_some((host, port))
}

/// Digits alone: `parse` would take a sign, too.
fn port(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn hosts(bound: &str, extra: &[&str]) -> Hosts {
        Hosts::new(bound.parse().unwrap(), &extra.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>(), false)
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
            "localhost:+8080",
            "[[127.0.0.1]]:8080",
            "[127.0.0.1:8080",
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
}
