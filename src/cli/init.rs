//! `init`: a configuration to begin with.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
};

use crate::{
    app::quoted,
    config::{COMPILED_IN, FILE_NAME},
    model::SwarmName,
};

use super::{error::CliError, screen::Screen};

/// What a newcomer may want to change, of all that can be said.
const KEYS: [(&str, &[&str]); 5] = [
    ("http", &["bind", "token_file"]),
    ("data_plane", &["bind"]),
    ("supervision", &["intensity", "period"]),
    ("health", &["progress_timeout", "stop_grace", "lease"]),
    ("log", &["level", "total_max"]),
];

const HEAD: &str = "\
# A hive. `hivekeeper check` reads this file and reports every mistake; `hivekeeper` starts what it says.
# Lines that begin with \"#\" and a key show a default: take the \"#\" away to say something else.
# Every key there is stands in config.toml at the top of Hivekeeper's sources.
";

/// Runs wherever there is a shell, and shows that output, restarts and limits work.
const SWARM: &str = r#"
# A swarm is a group of agents; it is started, stopped and restarted as one, and its agents one by one.
[[swarm]]
name = "demo"
# Where its agents run, relative to this file.
workdir = "."

# An agent is a program of yours. This one ticks once a second; put your own command in its place.
[[swarm.agent]]
name = "clock"
# Program and arguments; no shell stands between, so this one is called by name.
command = ["sh", "-c", 'n=0; while :; do n=$((n + 1)); echo "tick $n"; sleep 1; done']
# Added to its environment.
env = { LANG = "C.UTF-8" }
# When it is started again: "permanent" always, "transient" unless it ended normally, "temporary" never.
restart = "permanent"
"#;

/// Writes the file, which must not be there yet, and returns where it is.
pub(super) fn write(dir: &Path) -> Result<PathBuf, CliError> {
    let path = dir.join(FILE_NAME);
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => CliError::Failed(format!(
            "{} is there already, and is never overwritten\n`hivekeeper check --config {0}` says what it makes; `hivekeeper init DIR` begins somewhere else.",
            path.display()
        )),
        _ => CliError::Failed(format!("can't write {}: {error}", path.display())),
    };
    fs::create_dir_all(dir).map_err(failed)?;
    let mut file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(failed)?;
    file.write_all(text(dir).as_bytes()).map_err(failed)?;
    Ok(path)
}

/// Tells what was made and what comes next. `dir` is as it was typed.
pub(super) fn tell(
    path: &Path,
    dir: Option<&Path>,
    json: bool,
    program: &str,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let start = match dir {
        // From there the file is found without a word, and so is the daemon by whoever asks it.
        Some(dir) => format!("cd {} && {program}", quoted(&dir.to_string_lossy())),
        None => program.to_owned(),
    };
    if json {
        let document = serde_json::json!({ "file": path, "next": [start, format!("{program} ps")] });
        return Ok(screen.json(&document.to_string())?);
    }
    screen.line(&format!("wrote {}, which is good: swarm demo with 1 agent (clock)", path.display()))?;
    screen.line(&format!("start it   {start}"))?;
    Ok(screen.line(&format!("then look  {program} ps, in a second terminal in the same directory"))?)
}

fn text(dir: &Path) -> String {
    let name = dir.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase());
    let name = name.filter(|name| name.parse::<SwarmName>().is_ok());
    let mut text = HEAD.to_owned();
    text.push_str("\n[hive]\n");
    let [hive, data_dir] = ["name", "data_dir"].map(|key| key_of("hive", key));
    text.push_str(&match name {
        Some(name) => format!("{}name = \"{name}\"\n", hive.0),
        None => hive.0 + &hive.1,
    });
    text.push_str(&(data_dir.0 + "#" + &data_dir.1));
    for (table, keys) in KEYS {
        text.push_str(&format!("\n[{table}]\n"));
        for key in keys {
            let (said, line) = key_of(table, key);
            text.push_str(&format!("{said}#{line}"));
        }
    }
    text.push_str(SWARM);
    text
}

/// The comment above a key of the compiled-in configuration, and its line.
fn key_of(table: &str, key: &str) -> (String, String) {
    let mut said = String::new();
    let mut inside = false;
    for line in COMPILED_IN.lines() {
        if line.starts_with('[') {
            inside = line == format!("[{table}]");
        }
        if line.starts_with("# ") {
            said.push_str(&format!("{line}\n"));
            continue;
        }
        if inside && line.split_once(" = ").is_some_and(|(found, _)| found == key) {
            return (said, format!("{line}\n"));
        }
        said.clear();
    }
    (String::new(), String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_sentence_and_its_default() {
        for (table, keys) in KEYS {
            for key in keys {
                let (said, line) = key_of(table, key);
                assert!(
                    said.starts_with("# ") && line.starts_with(&format!("{key} = ")),
                    "{table}.{key}: {said}{line}"
                );
            }
        }
    }
}
