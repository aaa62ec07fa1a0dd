//! Requests to the daemon.

use std::{io::Read, time::Duration};

use serde::Deserialize;
use ureq::{
    Agent, Body,
    http::Response,
    tls::{PemItem, RootCerts, TlsConfig, parse_pem},
};

use super::{
    advice::{self, FoundBy},
    error::CliError,
    locate::Daemon,
    words::clean,
};

/// Connecting to a daemon on this machine takes microseconds, to one across an ocean less than a second.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The daemon answers from memory or its journal; what takes longer than this is stuck.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// A stream says something every few seconds, if only a comment; after this silence the connection is taken for dead.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// Largest answer that is read: a health document of thousands of agents with their last lines fits.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A daemon, and how to speak to it. Copies share their connections.
#[derive(Clone)]
pub(super) struct Client {
    agent: Agent,
    daemon: Daemon,
}

/// An answer below 400, or the 503 of a health document.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) text: String,
    /// The version of what was read, for a change that must not overwrite another's.
    pub(super) etag: Option<String>,
}

/// RFC 9457.
#[derive(Deserialize)]
struct ProblemDocument {
    detail: String,
    code: String,
    /// The path that was asked for.
    #[serde(default)]
    instance: Option<String>,
    /// Every mistake of a document.
    #[serde(default)]
    errors: Vec<Mistake>,
}

#[derive(Deserialize)]
struct Mistake {
    #[serde(default)]
    key: String,
    #[serde(default)]
    found: String,
    #[serde(default)]
    allowed: String,
}

impl Client {
    pub(super) fn new(daemon: Daemon) -> Result<Self, CliError> {
        let tls = match &daemon.trusted {
            Some(pem) => TlsConfig::builder().root_certs(roots(pem)?).build(),
            None => TlsConfig::default(),
        };
        let agent = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .max_redirects(0)
            // The daemon is a neighbour: a proxy of the environment is meant for the world outside.
            .proxy(None)
            .user_agent(concat!("hivekeeper/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(Some(ANSWER_TIMEOUT))
            .build()
            .new_agent();
        Ok(Self { agent, daemon })
    }

    /// Where the daemon is.
    pub(super) fn url(&self) -> &str {
        &self.daemon.url
    }

    /// Whether the daemon sees the files that we see: its data directory is here.
    pub(super) fn is_of_this_machine(&self) -> bool {
        matches!(self.daemon.found_by, FoundBy::Endpoints { .. })
    }

    /// Reads a document.
    pub(super) fn get(&self, path: &str) -> Result<Answer, CliError> {
        let request = self.agent.get(format!("{}{path}", self.daemon.url)).header("accept", "application/json");
        self.answer(self.with_token(request).call())
    }

    /// Reads a document that members of the query narrow down.
    pub(super) fn get_with(&self, path: &str, query: &[(&str, String)]) -> Result<Answer, CliError> {
        let request = self.agent.get(format!("{}{path}", self.daemon.url)).header("accept", "application/json");
        let request = query.iter().fold(request, |request, (name, value)| request.query(name, value));
        self.answer(self.with_token(request).call())
    }

    /// Reads a document and what it says.
    pub(super) fn get_as<T: for<'de> Deserialize<'de>>(&self, path: &str) -> Result<(Answer, T), CliError> {
        let answer = self.get(path)?;
        let parsed = self.parse(&answer.text)?;
        Ok((answer, parsed))
    }

    /// Reads a document that may not be there.
    pub(super) fn find(&self, path: &str) -> Result<Option<Answer>, CliError> {
        match self.get(path) {
            Ok(answer) => Ok(Some(answer)),
            Err(CliError::Refused { code, .. }) if code == "not_found" => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Hands a command in. The key makes it one command however often it is sent.
    pub(super) fn post(&self, path: &str, body: &str, key: &str) -> Result<Answer, CliError> {
        let request = self.agent.post(format!("{}{path}", self.daemon.url));
        self.answer(self.with_token(json(request).header("idempotency-key", key)).send(body))
    }

    /// Asks for something that the daemon may wait for.
    pub(super) fn post_within(&self, path: &str, body: &str, key: &str, limit: Duration) -> Result<Answer, CliError> {
        let request = json(self.agent.post(format!("{}{path}", self.daemon.url))).header("idempotency-key", key);
        let request = request.config().timeout_global(Some(limit)).build();
        self.answer(self.with_token(request).send(body))
    }

    /// Replaces a document, if it is still the version that was read.
    pub(super) fn put(&self, path: &str, body: &str, key: &str, if_match: Option<&str>) -> Result<Answer, CliError> {
        let mut request = json(self.agent.put(format!("{}{path}", self.daemon.url))).header("idempotency-key", key);
        if let Some(etag) = if_match {
            request = request.header("if-match", etag);
        }
        self.answer(self.with_token(request).send(body))
    }

    /// Removes something.
    pub(super) fn delete(&self, path: &str, key: Option<&str>) -> Result<Answer, CliError> {
        let mut request = json(self.agent.delete(format!("{}{path}", self.daemon.url)));
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        self.answer(self.with_token(request).call())
    }

    /// Opens a stream of events.
    pub(super) fn stream(&self, path: &str, last_id: Option<&str>) -> Result<impl Read + use<>, CliError> {
        let mut request = self.agent.get(format!("{}{path}", self.daemon.url)).header("accept", "text/event-stream");
        if let Some(id) = last_id {
            request = request.header("last-event-id", id);
        }
        let request = request.config().timeout_global(None).timeout_per_read(Some(SILENCE_MAX)).build();
        let response = self.with_token(request).call().map_err(|error| self.trouble(&error))?;
        let is_stream = response.body().mime_type() == Some("text/event-stream");
        if response.status() == 200 && is_stream {
            return Ok(response.into_body().into_reader());
        }
        let answer = self.answer(Ok(response))?;
        Err(self.stranger(format!("{} with no stream", answer.status)))
    }

    /// Hands a message of MCP's in: what comes back, as it comes, and whether that is a stream of events.
    pub(super) fn mcp(&self, headers: &[(&str, &str)], body: &str) -> Result<(bool, impl Read + use<>), CliError> {
        let request = self.agent.post(format!("{}/mcp", self.daemon.url)).header("content-type", "application/json");
        let request = request.header("accept", "application/json, text/event-stream");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let request = request.config().timeout_global(None).timeout_per_read(Some(SILENCE_MAX)).build();
        let response = self.with_token(request).send(body).map_err(|error| self.trouble(&error))?;
        match response.body().mime_type() {
            Some("text/event-stream") => Ok((true, response.into_body().into_reader())),
            // An error of the protocol is an answer, too.
            Some("application/json") => Ok((false, response.into_body().into_reader())),
            _ => {
                let answer = self.answer(Ok(response))?;
                Err(self.stranger(format!("HTTP status {} with no message", answer.status)))
            }
        }
    }

    /// What a document says, as far as it can be lent.
    pub(super) fn parse_borrowed<'a, T: Deserialize<'a>>(&self, text: &'a str) -> Result<T, CliError> {
        serde_json::from_str(text).map_err(|error| self.stranger(error.to_string()))
    }

    /// What a document says.
    pub(super) fn parse<T: for<'de> Deserialize<'de>>(&self, text: &str) -> Result<T, CliError> {
        serde_json::from_str(text).map_err(|error| self.stranger(error.to_string()))
    }

    fn with_token<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.daemon.token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    fn answer(&self, response: Result<Response<Body>, ureq::Error>) -> Result<Answer, CliError> {
        let mut response = response.map_err(|error| self.trouble(&error))?;
        let status = response.status().as_u16();
        let etag = response.headers().get("etag").and_then(|etag| Some(etag.to_str().ok()?.to_owned()));
        let retry_after = response.headers().get("retry-after").and_then(|after| Some(after.to_str().ok()?.to_owned()));
        let is_problem = response.body().mime_type() == Some("application/problem+json");
        let text = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).lossy_utf8(true).read_to_string();
        let text = text.map_err(|error| self.trouble(&error))?;
        if is_problem {
            let ProblemDocument { detail, code, instance, errors } = self.parse(&text)?;
            let path = instance.unwrap_or_default();
            let hint = clean(&advice::refusal(&code, &path, self.daemon.token_source, retry_after.as_deref()));
            let mistakes: String = errors.iter().map(Mistake::line).collect();
            // With all of them below, the first need not be said twice.
            let what = match errors.len() {
                0 => clean(&detail),
                1 => "1 mistake".to_owned(),
                n => format!("{n} mistakes"),
            };
            let detail = what + &mistakes;
            return Err(CliError::Refused { detail, code: clean(&code), hint, path });
        }
        match status {
            200..=299 | 503 => Ok(Answer { status, text, etag }),
            _ => Err(self.stranger(format!("HTTP status {status}"))),
        }
    }

    fn stranger(&self, what: String) -> CliError {
        let url = self.daemon.url.clone();
        let advice = advice::stranger(&url, &self.daemon.found_by);
        CliError::Stranger { url, what, advice }
    }

    fn trouble(&self, error: &ureq::Error) -> CliError {
        let url = self.daemon.url.clone();
        let unreachable = |cause: String| {
            let advice = advice::unreachable(&url, &self.daemon.found_by);
            CliError::Unreachable { url: url.clone(), cause, advice }
        };
        match error {
            ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
                unreachable("no connection in time".to_owned())
            }
            ureq::Error::Timeout(_) => CliError::TimedOut {
                what: format!("the answer of {url}"),
                within: humantime::format_duration(ANSWER_TIMEOUT).to_string(),
                hint: "Is the daemon stopped or overloaded? `hivekeeper doctor` looks.".to_owned(),
            },
            // A handshake that failed is an error of input and output with this kind.
            ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                let mend = match error.to_string().contains("CaUsedAsEndEntity") {
                    // What `openssl req -x509` makes when nothing else is said.
                    true => {
                        "its certificate is marked as an authority's; one that is not has basicConstraints=CA:FALSE"
                    }
                    false => "for https say --ca-file FILE, and --url with a name that its certificate holds",
                };
                unreachable(format!("{error}; {mend}"))
            }
            ureq::Error::Io(error) => unreachable(error.to_string()),
            ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => unreachable(error.to_string()),
            ureq::Error::BadUri(what) => CliError::Usage(format!("{url:?} is no URL: {what}")),
            other => self.stranger(other.to_string()),
        }
    }
}

/// A request with a JSON body, if it has one.
fn json<B>(request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
    request.header("accept", "application/json").header("content-type", "application/json")
}

impl Mistake {
    fn line(&self) -> String {
        let found = if self.found.is_empty() { String::new() } else { format!(" found {},", self.found) };
        // Some rules are sentences that say so themselves.
        let sign = if self.allowed.contains("allowed") { "" } else { "allowed: " };
        // The line break is ours, what stands in it others'.
        format!("\n  {}", clean(&format!("{}:{found} {sign}{}", self.key, self.allowed)))
    }
}

/// The certificates of a file that vouches for others.
fn roots(pem: &str) -> Result<RootCerts, CliError> {
    let items = parse_pem(pem.as_bytes()).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(Ok(certificate)),
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    });
    let found = items.collect::<Result<Vec<_>, _>>();
    match found {
        Ok(certificates) if !certificates.is_empty() => Ok(RootCerts::from(certificates)),
        Ok(_) => Err(CliError::Usage("the file that vouches for the daemon holds no certificate".to_owned())),
        Err(error) => {
            Err(CliError::Usage(format!("the file that vouches for the daemon can't be understood: {error}")))
        }
    }
}
