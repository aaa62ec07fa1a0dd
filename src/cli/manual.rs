//! The command line as it is shown: examples below each `--help`, `completions`, `man`.

use std::{fs, io, path::Path};

use clap::{CommandFactory as _, FromArgMatches as _};
use clap_complete::Shell;
use clap_mangen::Man;
use serde_json::json;

use super::{args::Cli, error::CliError, screen::Screen};

/// Command lines that work, for each command that people type. A test reads each of them.
pub(super) const EXAMPLES: &[(&str, &[&str])] = &[
    ("serve", &["hivekeeper serve", "hivekeeper serve --config hive.toml --http 127.0.0.1:8081"]),
    ("init", &["hivekeeper init", "hivekeeper init my-hive"]),
    ("check", &["hivekeeper check", "hivekeeper check --config hive.toml --json"]),
    ("doctor", &["hivekeeper doctor", "hivekeeper doctor --json"]),
    ("ps", &["hivekeeper ps", "hivekeeper ps -o wide"]),
    ("top", &["hivekeeper top"]),
    ("tree", &["hivekeeper tree"]),
    ("health", &["hivekeeper health", "hivekeeper health --json"]),
    (
        "logs",
        &[
            "hivekeeper logs -f demo/clock",
            "hivekeeper logs demo --since 10m",
            "hivekeeper logs -f demo --grep '[Ee]rror|panic'",
            "hivekeeper logs demo/clock --grep tick -v --tail 20",
        ],
    ),
    (
        "events",
        &[
            "hivekeeper events -f",
            "hivekeeper events --since 1h --swarm demo",
            "hivekeeper events -f --kind agent_changed",
        ],
    ),
    ("history", &["hivekeeper history demo", "hivekeeper history demo/clock --since 6h --resolution 10m --long"]),
    ("up", &["hivekeeper up review.toml", "hivekeeper up review.toml --dry-run", "hivekeeper up - < review.json"]),
    ("run", &["hivekeeper run -- my-agent --role coder"]),
    ("rm", &["hivekeeper rm review"]),
    ("scale", &["hivekeeper scale demo/indexer=5"]),
    ("wait", &["hivekeeper wait demo", "hivekeeper wait demo/clock --for healthy --timeout 1m"]),
    ("operations", &["hivekeeper operations", "hivekeeper operations ls --limit 10"]),
    ("restart", &["hivekeeper restart demo/clock", "hivekeeper restart demo --grace 30s --reason 'new model'"]),
    ("stop", &["hivekeeper stop demo", "hivekeeper stop demo/clock --no-wait"]),
    ("start", &["hivekeeper start demo"]),
    ("pause", &["hivekeeper pause demo"]),
    ("resume", &["hivekeeper resume demo"]),
    (
        "tasks",
        &[
            "hivekeeper tasks",
            "hivekeeper tasks ls --state ready,blocked --swarm demo",
            "hivekeeper tasks create 'read the code' --category review --priority high",
            "hivekeeper tasks claim --category review --wait 1m",
            "hivekeeper tasks complete 0199a1b2-0000-7000-8000-000000000002 --fence 7 --result '{\"findings\":2}'",
            "hivekeeper tasks graph",
        ],
    ),
    ("locks", &["hivekeeper locks", "hivekeeper locks release 0199a1b2-0000-7000-8000-000000000003 --fence 8"]),
    (
        "messages",
        &[
            "hivekeeper messages",
            "hivekeeper messages send coder-1 'read src/main.rs' --topic review",
            "hivekeeper messages receive --as ci --wait 1m",
            "hivekeeper messages ls --dead",
        ],
    ),
    ("report", &["hivekeeper report", "hivekeeper report --group release-2 --out report.md"]),
    ("reload", &["hivekeeper reload --dry-run", "hivekeeper reload"]),
    ("reconcile", &["hivekeeper reconcile --dry-run", "hivekeeper reconcile"]),
    (
        "token",
        &[
            "hivekeeper token new dashboard",
            "hivekeeper token new deploy --scope control --expires 30d > deploy.token",
            "hivekeeper token ls",
            "hivekeeper token revoke dashboard",
        ],
    ),
    ("notify", &["hivekeeper notify ls", "hivekeeper notify test oncall"]),
    ("mcp", &["hivekeeper mcp", "hivekeeper mcp --swarm review --as claude"]),
    ("ready", &["hivekeeper ready"]),
    ("backup", &["hivekeeper backup hive.tar", "hivekeeper backup hive.tar --logs"]),
    ("restore", &["hivekeeper restore hive.tar --data-dir /srv/hive"]),
    ("handover", &["hivekeeper handover && hivekeeper serve"]),
    (
        "completions",
        &[
            "hivekeeper completions bash > ~/.local/share/bash-completion/completions/hivekeeper",
            "hivekeeper completions zsh > ~/.zfunc/_hivekeeper",
            "hivekeeper completions fish > ~/.config/fish/completions/hivekeeper.fish",
        ],
    ),
    ("man", &["hivekeeper man | man -l -", "hivekeeper man --dir ~/.local/share/man/man1"]),
];

/// What may be typed, with the examples below each command's help.
pub(super) fn command() -> clap::Command {
    EXAMPLES.iter().fold(Cli::command(), |command, (name, examples)| {
        let lines: String = examples.iter().map(|example| format!("\n  {example}")).collect();
        command.mut_subcommand(name, |command| command.after_help(format!("Examples:{lines}")))
    })
}

/// Reads a command line.
pub(super) fn parse(args: impl IntoIterator<Item = std::ffi::OsString>) -> Result<Cli, clap::Error> {
    let mut command = command();
    let matches = command.try_get_matches_from_mut(args)?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// Writes what a shell needs for completing.
pub(super) fn completions(shell: Shell, as_json: bool, screen: &mut Screen<'_>) -> Result<(), CliError> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut visible(), "hivekeeper", &mut text);
    if as_json {
        let document = json!({ "shell": shell.to_string(), "text": String::from_utf8_lossy(&text) });
        return Ok(screen.json(&document.to_string())?);
    }
    Ok(screen.out.write_all(&text)?)
}

/// Writes the manual's first page, or all pages into a directory.
pub(super) fn man(dir: Option<&Path>, as_json: bool, screen: &mut Screen<'_>) -> Result<(), CliError> {
    let Some(dir) = dir else {
        let mut page = Vec::new();
        Man::new(visible()).render(&mut page)?;
        if as_json {
            let document = json!({ "page": "hivekeeper.1", "text": String::from_utf8_lossy(&page) });
            return Ok(screen.json(&document.to_string())?);
        }
        return Ok(screen.out.write_all(&page)?);
    };
    let failed =
        |error: io::Error| CliError::Failed(format!("can't write manual pages into {}: {error}", dir.display()));
    fs::create_dir_all(dir).map_err(failed)?;
    clap_mangen::generate_to(visible(), dir).map_err(failed)?;
    if as_json {
        return Ok(screen.json(&json!({ "dir": dir }).to_string())?);
    }
    let note = format!(
        "wrote the manual pages into {}; `man hivekeeper` finds those of a directory MANPATH names",
        dir.display()
    );
    Ok(screen.line(&note)?)
}

/// What people type: a command line without what is internal. Generators show hidden commands, too.
fn visible() -> clap::Command {
    let all = command();
    let shown: Vec<clap::Command> = all.get_subcommands().filter(|command| !command.is_hide_set()).cloned().collect();
    let mut alone = clap::Command::new("hivekeeper").version(env!("CARGO_PKG_VERSION")).subcommands(shown);
    if let Some(about) = all.get_about() {
        alone = alone.about(about.clone());
    }
    if let Some(after) = all.get_after_help() {
        alone = alone.after_help(after.clone());
    }
    alone.args(all.get_arguments().cloned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_examples_and_each_of_them_is_understood() {
        for shown in visible().get_subcommands() {
            assert!(
                EXAMPLES.iter().any(|(name, examples)| *name == shown.get_name() && !examples.is_empty()),
                "`{}` has no example in EXAMPLES",
                shown.get_name()
            );
        }
        for (name, examples) in EXAMPLES {
            for example in *examples {
                // What a shell does behind the command itself is not ours.
                let typed = example.split(['|', '>', '<']).next().unwrap().split("&&").next().unwrap();
                let words = if example.contains('\'') { shell_words(example) } else { shell_words(typed) };
                assert_eq!(words.get(1).map(String::as_str), Some(*name), "{example}");
                let parsed = parse(words.iter().map(std::ffi::OsString::from));
                assert!(parsed.is_ok(), "{example}: {}", parsed.err().unwrap());
            }
        }
    }

    /// Words between blanks; what stands in single quotes is one.
    fn shell_words(text: &str) -> Vec<String> {
        let pieces = text.split('\'').enumerate();
        pieces
            .flat_map(|(i, piece)| {
                if i % 2 == 1 { vec![piece.to_owned()] } else { piece.split_whitespace().map(str::to_owned).collect() }
            })
            .collect()
    }
}
