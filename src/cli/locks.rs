//! `locks`: who may touch what, and who waits for it.

use std::time::SystemTime;

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::json;

use super::{
    client::Client,
    error::CliError,
    screen::Screen,
    table::{self, Cell},
    words::{ago, clean},
    work::{Desk, Party, Whose, or_dash},
};

const HEADER: [&str; 6] = ["ID", "MODE", "HOLDER", "FENCE", "SINCE", "RESOURCES"];

/// What is done with locks; without a word they are listed.
#[derive(Debug, Subcommand)]
pub(super) enum LocksCommand {
    /// List locks, held and waited for
    #[command(alias = "list")]
    Ls(Filter),
    /// Give a lock back, whoever holds it; its holder's token is good no more
    Release {
        /// The lock's id
        id: String,
        /// The fencing token that the list shows
        #[arg(long, value_name = "FENCE")]
        fence: u64,
    },
}

/// Which locks to list.
#[derive(Debug, Default, Args)]
pub(super) struct Filter {
    /// Only those that overlap this name or path
    #[arg(long, value_name = "PATH")]
    resource: Option<String>,
    /// Only those of this agent or client
    #[arg(long, value_name = "NAME")]
    holder: Option<String>,
    /// Only those that wait for something
    #[arg(long)]
    waiting: bool,
}

#[derive(Deserialize)]
struct Page {
    locks: Vec<Lock>,
    #[serde(default)]
    next: Option<u64>,
}

#[derive(Deserialize)]
struct Lock {
    id: String,
    resources: Vec<String>,
    mode: String,
    holder: Party,
    #[serde(default)]
    fence: Option<u64>,
    asked_at: String,
    #[serde(default)]
    since: Option<String>,
    #[serde(default)]
    behind: Vec<Behind>,
}

#[derive(Deserialize)]
struct Behind {
    holder: Party,
}

/// Lists locks, or gives one back.
pub(super) fn locks(
    client: &Client,
    command: Option<&LocksCommand>,
    whose: &Whose,
    now: SystemTime,
    json: bool,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let desk = Desk::new(client, whose)?;
    let everything = LocksCommand::Ls(Filter::default());
    match command.unwrap_or(&everything) {
        LocksCommand::Ls(filter) => {
            let mut query = vec![("limit", "1000".to_owned())];
            query.extend(filter.resource.clone().map(|resource| ("resource", resource)));
            query.extend(filter.holder.clone().map(|holder| ("holder", holder)));
            query.extend(filter.waiting.then(|| ("held", "false".to_owned())));
            let answer = desk.get("/api/v1/locks", query)?;
            if json {
                return Ok(screen.json(&answer.text)?);
            }
            let Page { locks, next } = desk.parse(&answer)?;
            let rows: Vec<Vec<Cell>> = locks.iter().map(|lock| row(lock, now)).collect();
            for line in table::lines(&HEADER, &rows, None, screen.colour) {
                screen.line(&line)?;
            }
            if next.is_some() {
                screen.note("There are more: --resource and --holder ask for some.");
            }
            Ok(())
        }
        LocksCommand::Release { id, fence } => {
            let answer = desk.post(&format!("/api/v1/locks/{id}/release"), json!({ "fence": fence }))?;
            if json {
                return Ok(screen.json(&answer.text)?);
            }
            Ok(screen.line(&format!("{}: given back", clean(id)))?)
        }
    }
}

fn row(lock: &Lock, now: SystemTime) -> Vec<Cell> {
    let behind: Vec<String> = lock.behind.iter().map(|other| other.holder.describe()).collect();
    let waits = if behind.is_empty() { String::new() } else { format!(" (behind {})", behind.join(", ")) };
    vec![
        Cell::new(clean(&lock.id)),
        Cell::new(clean(&lock.mode)),
        Cell::new(lock.holder.describe()),
        Cell::number(or_dash(lock.fence.map(|fence| fence.to_string()))),
        Cell::number(ago(lock.since.as_ref().unwrap_or(&lock.asked_at), now)),
        Cell::new(clean(&format!("{}{waits}", lock.resources.join(" ")))),
    ]
}
