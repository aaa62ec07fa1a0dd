//! `reconcile`: what is in the engine and should not be.

use std::time::Duration;

use serde::Deserialize;

use super::{
    client::Client,
    commands::fresh_key,
    error::CliError,
    screen::Screen,
    table::{self, Cell},
    words::{clean, span},
};

#[derive(Deserialize)]
struct Findings {
    findings: Vec<Finding>,
}

#[derive(Deserialize)]
struct Finding {
    kind: String,
    name: String,
    swarm: Option<String>,
    why: String,
    fate: String,
    #[serde(default)]
    removed_in_ms: Option<u64>,
    #[serde(default)]
    error: Option<String>,
}

/// Looks once, and removes what has been seen for long enough, unless it is only to be told.
pub(super) fn reconcile(client: &Client, dry_run: bool, json: bool, screen: &mut Screen<'_>) -> Result<(), CliError> {
    let path = format!("/api/v1/reconcile?dry_run={dry_run}");
    let answer = client.post(&path, "{}", &fresh_key())?;
    let Findings { findings } = client.parse(&answer.text)?;
    if json {
        screen.json(&answer.text)?;
    } else if findings.is_empty() {
        screen.line("nothing is there that should not be")?;
    } else {
        let rows: Vec<Vec<Cell>> = findings.iter().map(row).collect();
        for line in table::lines(&["KIND", "NAME", "SWARM", "FATE", "WHY"], &rows, None, screen.colour) {
            screen.line(&line)?;
        }
    }
    match findings.iter().filter(|finding| finding.fate == "failed").count() {
        0 => Ok(()),
        n => Err(CliError::Failed(format!(
            "{n} of {} could not be removed\n`hivekeeper doctor` looks at the engine; the next pass tries again.",
            findings.len()
        ))),
    }
}

fn row(finding: &Finding) -> Vec<Cell> {
    let fate = match (&finding.error, finding.removed_in_ms) {
        (Some(error), _) => format!("{}: {}", clean(&finding.fate), clean(error)),
        (None, Some(left)) => format!("removed in {}", span(Duration::from_millis(left))),
        (None, None) => clean(&finding.fate),
    };
    let swarm = finding.swarm.as_deref().map_or_else(|| "-".to_owned(), clean);
    [clean(&finding.kind), clean(&finding.name), swarm, fate, clean(&finding.why)].into_iter().map(Cell::new).collect()
}
