//! `report`: what was finished, by whom, what is blocked and why, as Markdown.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Args;
use serde::Deserialize;

use super::{
    client::Client,
    error::CliError,
    screen::Screen,
    work::{Desk, Whose},
};

/// What to report on.
#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    /// Of this group of tasks alone
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// Write it into this file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    whose: Whose,
}

#[derive(Deserialize)]
struct Report {
    markdown: String,
}

/// Writes a report.
pub(super) fn report(
    client: &Client,
    args: &ReportArgs,
    cwd: &Path,
    json: bool,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let desk = Desk::new(client, &args.whose)?;
    let query = args.group.clone().map(|group| ("group", group)).into_iter().collect();
    let answer = desk.get("/api/v1/report", query)?;
    let Report { markdown } = desk.parse(&answer)?;
    let text = if json { answer.text } else { markdown };
    let text = text.trim_end();
    let Some(out) = &args.out else { return Ok(screen.line(text)?) };
    let path = cwd.join(out);
    fs::write(&path, format!("{text}\n"))
        .map_err(|error| CliError::Failed(format!("can't write {}: {error}", path.display())))?;
    screen.note(&format!("wrote {}", out.display()));
    Ok(())
}
