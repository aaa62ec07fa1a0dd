//! `backup` and `restore`: a hive in one file.

use std::path::Path;

use crate::store::{
    DataDirError,
    backup::{self, BackupError, Manifest},
};

use super::{error::CliError, screen::Screen};

/// Copies the hive of a data directory into a file; its daemon may run.
pub(super) fn backup(
    data_dir: &Path,
    file: &Path,
    with_logs: bool,
    json: bool,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let manifest = backup::take(data_dir, file, with_logs).map_err(|error| failed("back up", &error))?;
    if json {
        return tell(&manifest, screen);
    }
    let bytes: u64 = manifest.files.iter().map(|entry| entry.bytes).sum();
    let (count, size) = (manifest.files.len(), bytesize::ByteSize(bytes));
    screen.line(&format!("{}: {count} files, {size}, as of {}", file.display(), manifest.begun_at))?;
    screen.line("The configuration, its token and TLS files, and working directories are not in it.")?;
    Ok(())
}

/// Makes a data directory out of a file.
pub(super) fn restore(file: &Path, data_dir: &Path, json: bool, screen: &mut Screen<'_>) -> Result<(), CliError> {
    let manifest = backup::restore(file, data_dir).map_err(|error| failed("restore", &error))?;
    if json {
        return tell(&manifest, screen);
    }
    let Manifest { hive_id, begun_at, version, .. } = &manifest;
    screen.line(&format!("{}: hive {hive_id} as of {begun_at}, written by {version}", data_dir.display()))?;
    screen.line("Stop the old daemon, if one is left, before you start this one: both would run the same agents. Agents in containers that live on")?;
    screen.line(
        "are taken over; those of the runtime `process` end with their leases (30 s by default), and are started anew.",
    )?;
    Ok(())
}

fn tell(manifest: &Manifest, screen: &mut Screen<'_>) -> Result<(), CliError> {
    let text = serde_json::to_string(manifest).map_err(|error| CliError::Failed(error.to_string()))?;
    Ok(screen.line(&text)?)
}

/// The error with its causes. What the operator can do stands in each of them.
fn failed(what: &str, error: &BackupError) -> CliError {
    let mut text = format!("failed to {what}: {error}");
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        text.push_str(&format!(": {source}"));
        cause = source.source();
    }
    if matches!(error, BackupError::NoHive { .. } | BackupError::Directory(DataDirError::TooLong { .. })) {
        text.push_str("\nSay which data directory is meant with --data-dir or --config.");
    }
    CliError::Failed(text)
}
