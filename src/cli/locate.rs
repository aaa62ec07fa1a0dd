//! Finds the daemon.

use std::{net::SocketAddr, path::PathBuf};

use serde::Deserialize;

use crate::config::{Config, LoadArgs, read_file};

use super::{
    advice::{FoundBy, TokenSource},
    args::Common,
    error::CliError,
};

/// The configuration that a client looks at.
pub(super) type Place<'a> = LoadArgs<'a>;

/// Where the API is when nothing says otherwise: the default of `[http] bind`.
const DEFAULT_URL: &str = "http://127.0.0.1:8080";

/// The file in a data directory in which its daemon says where it listens.
const ENDPOINTS: &str = "endpoints.json";

/// A daemon to talk to.
#[derive(Debug, Clone)]
pub(super) struct Daemon {
    /// `http://ADDRESS:PORT` or `https://NAME:PORT`, without a slash at the end.
    pub(super) url: String,
    /// What named it, for errors.
    pub(super) found_by: FoundBy,
    pub(super) token: Option<String>,
    /// Where the token came from, for errors.
    pub(super) token_source: TokenSource,
    /// PEM text of the certificates that vouch for the daemon's; `None`: the public authorities.
    pub(super) trusted: Option<String>,
}

/// What a daemon writes into its data directory once it has bound its ports.
#[derive(Debug, Deserialize)]
pub(super) struct Endpoints {
    /// The daemon's process id.
    pub(super) pid: u32,
    /// Bound address of the API.
    pub(super) http: SocketAddr,
    /// Whether the API speaks HTTPS.
    #[serde(default)]
    pub(super) https: bool,
}

/// A file that was named has to be there: whoever mistypes it would ask another daemon than he means.
fn named_file(place: &Place<'_>) -> Result<(), CliError> {
    let Some(file) = &place.file else { return Ok(()) };
    let path = place.cwd.join(file);
    let failed = |error| CliError::Usage(format!("--config: {} can't be read: {error}", path.display()));
    (place.read)(&path).map(drop).map_err(failed)
}

/// By `--url`, `HIVEKEEPER_URL`, the data directory's endpoints.json, or the default port.
pub(super) fn daemon(place: &Place<'_>, common: &Common) -> Result<Daemon, CliError> {
    named_file(place)?;
    let (token, token_source) = token(place, common)?.unzip();
    let trusted = trusted(place, common)?;
    let by_hand = common.url.clone().map(|url| (url, "--url"));
    let named = by_hand.or_else(|| Some((place.env.get("HIVEKEEPER_URL")?.clone(), "HIVEKEEPER_URL")));
    if let Some((url, found_by)) = named {
        let url = url.trim_end_matches('/');
        if !["http://", "https://"].iter().any(|scheme| url.starts_with(scheme)) {
            let allowed = "http://ADDRESS:PORT or https://NAME:PORT";
            return Err(CliError::Usage(format!("{found_by}: found {url:?}, allowed: {allowed}")));
        }
        let found_by = FoundBy::Hand(found_by);
        return Ok(Daemon { url: url.to_owned(), found_by, token, token_source, trusted });
    }
    let data_dir = data_dir(place).ok();
    let (url, found_by, trusted) = match data_dir.as_deref().map(|dir| (dir, endpoints(dir))) {
        Some((dir, Ok(endpoints))) => {
            let scheme = if endpoints.https { "https" } else { "http" };
            // Whoever can read the daemon's own files need not ask an authority whose certificate that is.
            let own = || Config::certificate_file(place).and_then(|file| read_file(&file).ok());
            let trusted = trusted.or_else(|| if endpoints.https { own() } else { None });
            let found_by = FoundBy::Endpoints { file: dir.join(ENDPOINTS), pid: endpoints.pid };
            (format!("{scheme}://{}", reachable(endpoints.http)), found_by, trusted)
        }
        _ => (DEFAULT_URL.to_owned(), FoundBy::Nobody { data_dir }, trusted),
    };
    Ok(Daemon { url, found_by, token, token_source, trusted })
}

/// The absolute data directory that flags, variables and files name.
pub(super) fn data_dir(place: &Place<'_>) -> Result<PathBuf, CliError> {
    named_file(place)?;
    Config::data_dir(place).ok_or_else(|| CliError::Usage("no data directory is known; say --data-dir DIR".to_owned()))
}

/// What the daemon of a data directory wrote down.
pub(super) fn endpoints(data_dir: &std::path::Path) -> Result<Endpoints, CliError> {
    let path = data_dir.join(ENDPOINTS);
    let text = read_file(&path).map_err(|error| {
        CliError::Failed(format!(
            "no daemon has written {}: {error}\nSay which data directory it has with --data-dir or --config.",
            path.display()
        ))
    })?;
    serde_json::from_str(&text)
        .map_err(|error| CliError::Failed(format!("{} can't be understood: {error}", path.display())))
}

/// A client can't connect to "any address".
fn reachable(mut bound: SocketAddr) -> SocketAddr {
    if bound.ip().is_unspecified() {
        bound.set_ip(match bound {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    bound
}

fn trusted(place: &Place<'_>, common: &Common) -> Result<Option<String>, CliError> {
    let by_variable = || place.env.get("HIVEKEEPER_CA_FILE").filter(|file| !file.is_empty());
    let (file, named) = match (&common.ca_file, by_variable()) {
        (Some(file), _) => (file.clone(), "--ca-file"),
        (None, Some(file)) => (PathBuf::from(file), "HIVEKEEPER_CA_FILE"),
        (None, None) => return Ok(None),
    };
    let path = place.cwd.join(file);
    let text = read_file(&path);
    text.map(Some).map_err(|error| CliError::Usage(format!("{named}: {} can't be read: {error}", path.display())))
}

/// The token, and where it came from.
fn token(place: &Place<'_>, common: &Common) -> Result<Option<(String, &'static str)>, CliError> {
    let by_variable = place.env.get("HIVEKEEPER_API_TOKEN").filter(|token| !token.is_empty());
    let token = match (by_variable, &common.token_file) {
        (Some(token), _) => Some((token.clone(), "HIVEKEEPER_API_TOKEN")),
        (None, Some(file)) => {
            let path = place.cwd.join(file);
            let failed = |error| CliError::Usage(format!("--token-file: {} can't be read: {error}", path.display()));
            Some((read_file(&path).map_err(failed)?, "--token-file"))
        }
        // The daemon's own file helps whoever may read it; whoever may not is told by the daemon that a token is needed.
        (None, None) => {
            let found = Config::token_file(place).and_then(|file| read_file(&file).ok());
            found.map(|token| (token, "the file that [http] token_file names"))
        }
    };
    let Some((token, source)) = token else { return Ok(None) };
    let token = token.trim();
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        let text = format!("{source}: the API's token must be one word of printable ASCII characters");
        return Err(CliError::Usage(text));
    }
    Ok(Some((token.to_owned(), source)))
}
