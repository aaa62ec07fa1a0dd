//! What the operator sees on standard output: what was started, where to look, what to try.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, Write as _},
    path::Path,
};

use super::tree::Sockets;
use crate::{
    config::{Config, FILE_NAME, LoadArgs, read_file, resolve_path},
    control_plane::recover::Takeover,
    model::{HiveHealth, SwarmName},
    store::DataDir,
    view::words,
};

/// Names and addresses, as soon as they are bound.
pub(super) fn bound(config: &Config, data: &DataDir, sockets: &Sockets, takeover: Takeover) -> String {
    let mut text = format!("hivekeeper {}: hive {:?}\n", env!("CARGO_PKG_VERSION"), config.hive.name);
    let secure = if config.http.tls.is_some() { "s" } else { "" };
    line(&mut text, "api", &format!("http{secure}://{}", sockets.http_at));
    line(&mut text, "viewers", &format!("ws{secure}://{}/ws/hybrid-health", sockets.http_at));
    line(&mut text, "data plane", &sockets.data_plane_at.to_string());
    line(&mut text, "data", &data.path().display().to_string());
    match &config.file {
        Some(file) => line(&mut text, "configuration", &file.display().to_string()),
        None => line(&mut text, "configuration", "none found (--config FILE, or ./config.toml); the hive is empty"),
    }
    if takeover != Takeover::default() {
        let Takeover { taken_over, ended, unproven } = takeover;
        let mut found = format!("{taken_over} agents of the last daemon run on");
        if ended > 0 {
            let _ = write!(found, ", {ended} had ended or were ended");
        }
        if unproven > 0 {
            let _ = write!(found, ", {unproven} do not answer yet");
        }
        line(&mut text, "taken over", &found);
    }
    text
}

/// The agents as they are seen once the first pass has ended.
pub(super) fn agents(hive: &HiveHealth) -> String {
    let width = hive.agents.iter().map(|agent| agent.id.to_string().len()).max().unwrap_or_default();
    let mut text = String::from("\n");
    for agent in &hive.agents {
        let (id, state) = (agent.id.to_string(), words::agent_state(agent.state));
        let pid = agent.pid.map(|pid| format!("pid {pid}, ")).unwrap_or_default();
        let _ = writeln!(text, "  {id:width$}  {state:12} {pid}incarnation {}", agent.incarnation);
    }
    text
}

/// Commands that show something, with agents that are there.
///
/// `killable` says of a swarm whether its process ids are this machine's: one of a container is somebody else's here.
pub(super) fn hints(hive: &HiveHealth, config: &Config, killable: impl Fn(&SwarmName) -> bool) -> String {
    let program = program() + &found_by(config, &std::env::current_dir().unwrap_or_default());
    let mut text = String::from("\n");
    line(&mut text, "look", &format!("{program} ps"));
    let mut agents = hive.agents.iter().filter(|agent| killable(&agent.id.swarm));
    if let Some((agent, pid)) = agents.find_map(|agent| Some((agent, agent.pid?))) {
        line(&mut text, "", &format!("{program} logs -f {}", agent.id));
        line(&mut text, "", &format!("{program} events -f"));
        line(&mut text, "try", &format!("kill -9 {pid} && sleep 1 && {program} ps -o wide"));
        line(&mut text, "", &format!("{program} restart {}", agent.id.swarm));
        line(&mut text, "", &format!("kill -9 {}, which is the daemon, and start it again", std::process::id()));
    }
    line(&mut text, "end", "Ctrl-C stops every agent, in reverse order");
    text
}

/// This program as the user would type it.
pub fn program() -> String {
    const NAME: &str = "hivekeeper";
    let Ok(exe) = std::env::current_exe() else { return NAME.to_owned() };
    let path = std::env::var_os("PATH").unwrap_or_default();
    // The first of that name on the way is what a shell runs; it may be a link.
    let typed = std::env::split_paths(&path).map(|dir| dir.join(NAME)).find(|path| path.is_file());
    if typed.and_then(|path| path.canonicalize().ok()).is_some_and(|path| path == exe) {
        return NAME.to_owned();
    }
    let here = std::env::current_dir().ok().and_then(|here| exe.strip_prefix(here).ok().map(Path::to_owned));
    here.unwrap_or(exe).display().to_string()
}

/// The words by which a command that is typed in `here` finds this daemon: none where it would look by itself.
fn found_by(config: &Config, here: &Path) -> String {
    let mut words = String::new();
    let named = config.file.as_ref().filter(|file| **file != here.join(FILE_NAME));
    if let Some(file) = named {
        let file = file.strip_prefix(here).unwrap_or(file);
        words.push_str(&format!(" --config {}", quoted(&file.to_string_lossy())));
    }
    // A variable of this daemon's environment need not be in that of the next terminal.
    let nothing = BTreeMap::new();
    let (read, resolve) = (&read_file, &resolve_path);
    let place =
        LoadArgs { file: named.cloned(), cwd: here.to_owned(), env: &nothing, flags: Vec::new(), read, resolve };
    if Config::data_dir(&place).as_ref() != Some(&config.hive.data_dir) {
        words.push_str(&format!(" --data-dir {}", quoted(&config.hive.data_dir.to_string_lossy())));
    }
    words
}

/// A word for a shell.
pub fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn line(text: &mut String, what: &str, value: &str) {
    let _ = writeln!(text, "  {what:13}  {value}");
}

/// Nobody may be reading; that is no reason to end.
pub(super) fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_words_to_find_a_daemon_are_those_that_are_needed() {
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path();
        std::fs::write(here.join(FILE_NAME), "").unwrap();
        std::fs::write(here.join("other.toml"), "[hive]\ndata_dir = \"b\"").unwrap();
        let nothing = BTreeMap::new();
        let found = |file: Option<&str>, data_dir: Option<&str>| {
            let flag = |value: &str| crate::config::FlagValue {
                flag: "--data-dir",
                table: "hive",
                key: "data_dir",
                value: value.to_owned(),
            };
            let (read, resolve) = (&read_file, &resolve_path);
            let flags = data_dir.map(flag).into_iter().collect();
            let args =
                LoadArgs { file: file.map(Into::into), cwd: here.to_owned(), env: &nothing, flags, read, resolve };
            found_by(&Config::load(&args).unwrap(), here)
        };
        assert_eq!(found(None, None), "");
        assert_eq!(found(Some("config.toml"), None), "");
        assert_eq!(found(Some("other.toml"), None), " --config other.toml");
        assert_eq!(found(None, Some("/d x")), " --data-dir '/d x'");
        assert_eq!(found(Some("other.toml"), Some("/d")), " --config other.toml --data-dir /d");
    }

    #[test]
    fn words_are_quoted_for_a_shell_where_they_must_be() {
        assert_eq!(quoted("a/b-1"), "a/b-1");
        assert_eq!(quoted("it's here"), r"'it'\''s here'");
        assert_eq!(quoted(""), "''");
    }
}
