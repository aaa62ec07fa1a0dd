//! What to do about an error that came over the API or on the way to it. One place for all commands.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::config::nearest;

use super::{
    client::Client,
    error::CliError,
    ports::{self, Held},
    shapes::Hive,
};

/// What named the daemon's address.
#[derive(Debug, Clone)]
pub(super) enum FoundBy {
    /// `--url` or `HIVEKEEPER_URL`.
    Hand(&'static str),
    /// The file that the daemon of a data directory wrote, and the process that it was.
    Endpoints { file: PathBuf, pid: u32 },
    /// Nothing, and no file in this data directory: the default.
    Nobody { data_dir: Option<PathBuf> },
}

/// Where the token came from that was sent.
pub(super) type TokenSource = Option<&'static str>;

/// Nobody answered, or nobody of ours.
pub(super) fn unreachable(url: &str, found_by: &FoundBy) -> String {
    let other = "--url, --data-dir or --config name another";
    match found_by {
        FoundBy::Hand(word) => {
            format!("{word} says this address. Start the daemon there, or say where it is with --url.")
        }
        FoundBy::Endpoints { file, pid } if Path::new(&format!("/proc/{pid}")).exists() => format!(
            "{} names it, and process {pid}, which wrote that, lives: look at its log, or at `hivekeeper doctor`; {other}.",
            file.display()
        ),
        FoundBy::Endpoints { file, pid } => {
            let dir = file.parent().unwrap_or(Path::new(".")).display();
            format!(
                "{} names it, and process {pid}, which wrote that, has ended: `hivekeeper serve --data-dir {dir}` starts a daemon there; {other}.",
                file.display()
            )
        }
        FoundBy::Nobody { data_dir } => {
            let dir = data_dir.as_ref().map(|dir| format!(" in {}", dir.display())).unwrap_or_default();
            let who = holder(url).map(|who| format!(" {who} listens there.")).unwrap_or_default();
            format!(
                "It is the default address, as there is no endpoints.json{dir}.{who} `hivekeeper serve` starts a daemon; {other}."
            )
        }
    }
}

/// Somebody answered who is no Hivekeeper.
pub(super) fn stranger(url: &str, found_by: &FoundBy) -> String {
    let who = holder(url).map(|who| format!("{who} listens there. ")).unwrap_or_default();
    match found_by {
        FoundBy::Hand(word) => format!("{who}{word} says this address; say where the daemon is."),
        FoundBy::Endpoints { file, .. } => {
            format!("{who}{} names it; say with --url where the daemon is.", file.display())
        }
        FoundBy::Nobody { .. } => {
            format!("{who}It is the default address; say with --url, --data-dir or --config where the daemon is.")
        }
    }
}

/// The process behind an address of this machine.
fn holder(url: &str) -> Option<String> {
    let address: SocketAddr = url.split_once("://")?.1.parse().ok()?;
    if !address.ip().is_loopback() {
        return None;
    }
    match ports::holder(address) {
        Held::By(Some(process)) => Some(format!("Process {} ({})", process.pid, process.name)),
        _ => None,
    }
}

/// The daemon refused what was asked of this path.
pub(super) fn refusal(code: &str, path: &str, token: TokenSource, retry_after: Option<&str>) -> String {
    let made = "`hivekeeper token new NAME` makes one, for who has a token with the scope control.";
    let sent = token.unwrap_or("nowhere");
    match code {
        "unauthorized" => format!(
            "No token was sent: set HIVEKEEPER_API_TOKEN, or say --token-file FILE, or --config with the daemon's own file ([http] token_file). {made}"
        ),
        "invalid_token" => format!(
            "The token came from {sent}; HIVEKEEPER_API_TOKEN wins over --token-file. It may have been revoked, or its time be over. {made}"
        ),
        "forbidden" => format!(
            "The token came from {sent}, and may only look. `hivekeeper token new NAME --scope control` makes one that may do this, for who has such a one."
        ),
        "rate_limited" => {
            let after = retry_after.map_or_else(|| "in a moment".to_owned(), |seconds| format!("in {seconds} s"));
            format!("Try again {after}; [http] holds the limits.")
        }
        "not_found" if path.starts_with("/api/v1/operations") => {
            "`hivekeeper operations` lists what there is.".to_owned()
        }
        "not_found" if path.starts_with("/api/v1/notifiers") => {
            "`hivekeeper notify ls` lists what there is.".to_owned()
        }
        "not_found" => "`hivekeeper ps` lists what there is.".to_owned(),
        "invalid_body" => "Nothing was done; say it as it is allowed.".to_owned(),
        "unsupported" => "Nothing was done.".to_owned(),
        "conflict" if path.starts_with("/api/v1/tokens") => "`hivekeeper token ls` lists what there is.".to_owned(),
        "conflict" => "`hivekeeper ps` shows the present state, `hivekeeper operations` what is under way.".to_owned(),
        "open_to_all" => {
            "As a start: `(umask 077; openssl rand -hex 32 > api.token)`, and in config.toml `token_file = \"api.token\"` below [http].".to_owned()
        }
        "precondition_failed" => "Somebody has changed it since it was read. Look at it, and try again.".to_owned(),
        "invalid_document" => "Mend the document; nothing was changed.".to_owned(),
        "invalid_configuration" => {
            "Mend the file; nothing was changed. `hivekeeper check` reads it as the daemon does.".to_owned()
        }
        "host_refused" => "Use the address that the daemon is bound to, or add the name to [http] hosts.".to_owned(),
        "journal_unavailable" => {
            "Look at the daemon's log, and at the disk with `hivekeeper doctor`; agents go on meanwhile.".to_owned()
        }
        "unknown_swarm" => "`hivekeeper ps` lists what there is.".to_owned(),
        "unknown_task" | "wrong_state" => "`hivekeeper tasks` lists what there is, and where it stands.".to_owned(),
        "unknown_lock" | "lock_timed_out" => "`hivekeeper locks` lists what is held.".to_owned(),
        "unknown_message" | "request_not_open" => "`hivekeeper messages` lists what there is.".to_owned(),
        "unknown_recipient" => {
            "`hivekeeper ps` lists the agents; --client writes to somebody whom nobody supervises.".to_owned()
        }
        "stale_token" => "The right has ended; it may be somebody else's now. Claim anew.".to_owned(),
        "invalid_work" | "dependency_cycle" => "Nothing was done; say it as it is allowed.".to_owned(),
        "work_full" => "There is room once some of it has ended.".to_owned(),
        "maybe_done" => "Look whether it was done before you repeat it.".to_owned(),
        "unavailable" | "too_many_streams" | "shutting_down" => "Try again in a moment.".to_owned(),
        "internal" => "Look at the daemon's log.".to_owned(),
        _ => "`hivekeeper --help` lists what can be asked.".to_owned(),
    }
}

/// `GET /api/v1/notifiers`, as far as it is needed here.
#[derive(Deserialize)]
struct Notifiers {
    notifiers: Vec<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

/// For a swarm, an agent or a notifier that is not there: the one whose name is nearest.
pub(super) fn meant(error: &CliError, client: impl FnOnce() -> Result<Client, CliError>) -> Option<String> {
    let CliError::Refused { code, path, .. } = error else { return None };
    if code != "not_found" {
        return None;
    }
    if let Some(asked) = path.strip_prefix("/api/v1/notifiers/") {
        let asked = asked.split('/').next()?;
        let (_, Notifiers { notifiers }) = client().ok()?.get_as("/api/v1/notifiers").ok()?;
        let names: Vec<&str> = notifiers.iter().map(|notifier| notifier.name.as_str()).collect();
        return nearest(asked, &names).map(did_you_mean);
    }
    let asked = target(path)?;
    let (_, hive): (_, Hive) = client().ok()?.get_as("/api/v1/health").ok()?;
    let agents: Vec<String> = hive.agents.iter().map(|agent| format!("{}/{}", agent.swarm, agent.name)).collect();
    let swarms = hive.swarms.iter().map(|swarm| swarm.name.clone());
    let alone = agents.iter().find(|agent| agent.split('/').nth(1) == Some(asked.as_str())).cloned();
    let all: Vec<String> = if asked.contains('/') { agents } else { swarms.collect() };
    let words: Vec<&str> = all.iter().map(String::as_str).collect();
    let meant = nearest(&asked, &words).map(str::to_owned).or(alone).filter(|meant| *meant != asked)?;
    Some(did_you_mean(&meant))
}

fn did_you_mean(name: &str) -> String {
    format!("Did you mean `{name}`?")
}

/// The swarm or the agent that a path is about.
fn target(path: &str) -> Option<String> {
    let path = path.split('?').next()?;
    let mut words = path.strip_prefix("/api/v1/swarms/")?.split('/');
    let swarm = words.next()?;
    match (words.next(), words.next()) {
        (Some("agents"), Some(agent)) => Some(format!("{swarm}/{agent}")),
        _ => Some(swarm.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_says_whom_it_is_about() {
        for (path, about) in [
            ("/api/v1/swarms/demo/agents/clock/restart", Some("demo/clock")),
            ("/api/v1/swarms/demo/history?since=1h", Some("demo")),
            ("/api/v1/swarms/demo", Some("demo")),
            ("/api/v1/operations/1", None),
        ] {
            assert_eq!(target(path).as_deref(), about, "{path}");
        }
    }
}
