//! A POST of one message. Blocks, for as long as the spec allows.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use ureq::{
    Agent, http,
    tls::{PemItem, RootCerts, TlsConfig, parse_pem},
};

use super::{message::Message, outbox::Failure, sign};
use crate::model::{UrlSpec, Webhook};

/// A connection that takes longer is not coming.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Longest file with a token, a secret or an address that is read.
const SECRET_BYTES_MAX: u64 = 16 * 1024;
const USER_AGENT: &str = concat!("hivekeeper/", env!("CARGO_PKG_VERSION"));

/// Sends it. A redirect is a failure: what is meant for one receiver is not carried to another. Of the answer only the status is read.
pub(super) fn post(webhook: &Webhook, timeout: Duration, message: &Message) -> Result<(), Failure> {
    let url = match &webhook.url {
        UrlSpec::Plain(url) => url.clone(),
        UrlSpec::File(path) => secret(path)?,
    };
    check_url(&url).map_err(Failure::of)?;
    let agent = agent(webhook, timeout)?;
    let mut request = agent.post(&url).header("content-type", "application/cloudevents+json; charset=utf-8");
    for (name, value) in &webhook.headers {
        request = request.header(name, value);
    }
    if let Some(path) = &webhook.token_file {
        request = request.header("authorization", format!("Bearer {}", secret(path)?));
    }
    if let Some(path) = &webhook.secret_file {
        let key = sign::key(&secret(path)?).ok_or_else(|| Failure::of(format!("{path:?} holds no secret")))?;
        let timestamp = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        request = request
            .header("webhook-id", &message.id)
            .header("webhook-timestamp", timestamp.to_string())
            .header("webhook-signature", sign::signature(&key, &message.id, timestamp, &message.body));
    }
    let answer = request.send(&message.body).map_err(|error| Failure::of(words(&error)))?;
    judge(answer.status(), answer.headers())
}

/// Whether an address can be used; if not, why, without repeating it.
pub(crate) fn check_url(url: &str) -> Result<(), &'static str> {
    let uri: http::Uri = url.parse().map_err(|_| "the address is no URL")?;
    match uri.scheme_str() {
        Some("http" | "https") if uri.host().is_some_and(|host| !host.is_empty()) => Ok(()),
        _ => Err("the address does not begin with http:// or https:// and a host"),
    }
}

/// Whether the text of a file is a secret that can sign.
pub(crate) fn check_secret(text: &str) -> bool {
    sign::key(text).is_some()
}

/// The certificates of a PEM text; `None` when there is none, or one is damaged.
pub(crate) fn authorities(pem: &str) -> Option<RootCerts> {
    let items = parse_pem(pem.as_bytes()).collect::<Result<Vec<_>, _>>().ok()?;
    let certificates = items.into_iter().filter_map(|item| match item {
        PemItem::Certificate(certificate) => Some(certificate),
        _ => None,
    });
    let certificates: Vec<_> = certificates.collect();
    (!certificates.is_empty()).then(|| RootCerts::new_with_certs(&certificates))
}

fn agent(webhook: &Webhook, timeout: Duration) -> Result<Agent, Failure> {
    let mut tls = TlsConfig::builder();
    if let Some(pem) = &webhook.authorities {
        let roots = authorities(pem).ok_or_else(|| Failure::of("no certificate is in ca_file"))?;
        tls = tls.root_certs(roots);
    }
    let config = Agent::config_builder()
        .tls_config(tls.build())
        .timeout_global(Some(timeout))
        .timeout_connect(Some(timeout.min(CONNECT_MAX)))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .max_idle_connections(0)
        .user_agent(USER_AGENT);
    Ok(config.build().into())
}

/// The text of a file, without the newline at its end.
fn secret(path: &Path) -> Result<String, Failure> {
    use std::io::Read;
    let mut text = String::new();
    let read = fs::File::open(path).and_then(|file| file.take(SECRET_BYTES_MAX).read_to_string(&mut text));
    read.map_err(|error| Failure::of(format!("{path:?} can't be read: {error}")))?;
    Ok(text.trim().to_owned())
}

/// What went wrong, without the address, which may be a secret.
fn words(error: &ureq::Error) -> String {
    match error {
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => "the address or a header can't be sent".to_owned(),
        ureq::Error::Timeout(what) => format!("no answer in time ({what})"),
        other => other.to_string(),
    }
}

fn judge(status: http::StatusCode, headers: &http::HeaderMap) -> Result<(), Failure> {
    if status.is_success() {
        return Ok(());
    }
    let hint = if status.is_redirection() { "; redirects are not followed" } else { "" };
    let retry_after = headers.get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
    Err(Failure {
        why: format!("the receiver answered {status}{hint}"),
        // These blame the message itself. Whatever else is wrong may be mended while it waits.
        refused: matches!(status.as_u16(), 400 | 413 | 415 | 422),
        retry_after: retry_after.map(Duration::from_secs),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked_and_never_repeated() {
        for url in ["http://127.0.0.1:1/x", "https://hooks.example.org/T0/secret?x=y", "http://[::1]:80"] {
            assert_eq!(check_url(url), Ok(()));
        }
        for url in ["", "ftp://h/", "/path", "hooks.example.org", "http://", "http:///x", "https://a b/"] {
            assert!(check_url(url).is_err(), "{url}");
        }
    }

    #[test]
    fn answers_are_judged() {
        let judged = |status: u16, retry: Option<&str>| {
            let mut headers = http::HeaderMap::new();
            headers.extend(retry.map(|value| (http::header::RETRY_AFTER, value.parse().unwrap())));
            judge(http::StatusCode::from_u16(status).unwrap(), &headers)
        };
        assert_eq!((judged(200, None), judged(202, None), judged(204, None)), (Ok(()), Ok(()), Ok(())));
        for refused in [400, 413, 415, 422] {
            assert!(judged(refused, None).unwrap_err().refused, "{refused}");
        }
        for again in [301, 308, 401, 403, 404, 408, 429, 500, 502, 503] {
            assert!(!judged(again, None).unwrap_err().refused, "{again}");
        }
        assert!(judged(307, None).unwrap_err().why.contains("not followed"));
        assert_eq!(judged(429, Some("7")).unwrap_err().retry_after, Some(Duration::from_secs(7)));
        assert_eq!(judged(503, Some("Wed, 21 Oct 2026 07:28:00 GMT")).unwrap_err().retry_after, None);
    }
}
