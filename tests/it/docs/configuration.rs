//! `docs/configuration.md` is `config.toml`, turned into tables; with `HK_TEST_WRITE=yes` the test writes it.

use std::{collections::BTreeSet, fmt::Write as _, fs};

/// From this line on each line of the file has a "# " that people take away.
const COMMENTED_OUT: &str = "# Two swarms in containers.";
const PAGE: &str = "docs/configuration.md";
const HEAD: &str = "\
# Configuration

Made from [`config.toml`](../config.toml), which is compiled in as the first layer. Over it come your own file (`--config FILE`, else `./config.toml`),
then variables such as `HIVEKEEPER__HTTP__BIND=127.0.0.1:9000`, then flags. Your file needs only what differs.

Durations are text with a unit (`\"500ms\"`, `\"30s\"`, `\"10m\"`, `\"2h\"`, `\"1d\"`), sizes too (`\"64KiB\"`, `\"2GiB\"`). An unknown key, a bad value and an impossible combination are
errors: `hivekeeper check` reports them all at once, with file, line, key, what was found and what is allowed.

A `[[swarm]]` may also say every key of `[supervision]` but `restart`; a `[[swarm.agent]]` may say `restart` and every key of `[health]`.

`hivekeeper reload`, `POST /api/v1/reload` and SIGHUP (to a daemon without a terminal, as under systemd) read it all again, with the variables and flags of the start.
A file that is wrong anywhere is refused whole. Otherwise each swarm that it changes becomes an operation: what changed is replaced, the rest keeps its processes. Numbers that
were set with `hivekeeper scale` hold until the file says another one. What only a new daemon reads, all but `[[swarm]]`, `[supervision]` and `[health]`, is named in the answer.
";

/// One key as the file has it.
struct Key {
    name: String,
    value: String,
    says: String,
}

/// One table, `hive` or `swarm.agent`.
struct Table {
    name: String,
    is_list: bool,
    says: String,
    keys: Vec<Key>,
}

fn tables(config: &str) -> Vec<Table> {
    let (live, example) = config.split_once(COMMENTED_OUT).expect("the part that is commented out");
    let example = example
        .lines()
        .skip_while(|line| !line.starts_with("# [["))
        .map(|line| line.strip_prefix("# ").unwrap_or_else(|| line.strip_prefix('#').unwrap_or(line)));
    let mut found: Vec<Table> = Vec::new();
    let mut current = 0;
    let mut comment = String::new();
    for line in live.lines().chain(example) {
        if let Some(text) = line.strip_prefix('#') {
            comment = format!("{comment} {}", text.trim()).trim().to_owned();
        } else if let Some(header) = line.strip_prefix('[') {
            let is_list = header.starts_with('[');
            let name = header.trim_matches(['[', ']']).to_owned();
            let known = found.iter().position(|table| table.name == name);
            current = known.unwrap_or_else(|| {
                found.push(Table { name, is_list, says: String::new(), keys: Vec::new() });
                found.len() - 1
            });
            let says = std::mem::take(&mut comment);
            if !is_list {
                found[current].says = says;
            }
        } else if let Some((name, value)) = line.split_once(" = ") {
            let says = std::mem::take(&mut comment);
            let keys = &mut found[current].keys;
            if !says.is_empty() && !keys.iter().any(|key| key.name == name) {
                keys.push(Key { name: name.to_owned(), value: value.to_owned(), says });
            }
        } else {
            comment.clear();
        }
    }
    found
}

/// A cell of a table holds no bar.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn reference(config: &str) -> String {
    let mut page = HEAD.to_owned();
    for table in tables(config) {
        let (heading, column) = if table.is_list {
            (format!("[[{}]]", table.name), "example")
        } else {
            (format!("[{}]", table.name), "default")
        };
        write!(page, "\n## `{heading}`\n").unwrap();
        if !table.says.is_empty() {
            write!(page, "\n{}\n", table.says).unwrap();
        }
        write!(page, "\n| key | {column} | meaning |\n|---|---|---|\n").unwrap();
        for key in table.keys {
            writeln!(page, "| `{}` | `{}` | {} |", key.name, cell(&key.value), cell(&key.says)).unwrap();
        }
    }
    page
}

#[test]
fn docs_configuration_is_config_toml() {
    let config = fs::read_to_string(super::root().join("config.toml")).unwrap();
    super::written(PAGE, &reference(&config));
}

/// A key that the file has and the page has not would be a hole in the parser above.
#[test]
fn docs_configuration_has_every_key() {
    let config = fs::read_to_string(super::root().join("config.toml")).unwrap();
    let live: toml::Table = config.parse().unwrap();
    let shown: BTreeSet<String> = tables(&config)
        .iter()
        .flat_map(|table| table.keys.iter().map(|key| format!("{}.{}", table.name, key.name)))
        .collect();
    for (table, keys) in live.iter().filter_map(|(name, value)| Some((name, value.as_table()?))) {
        for key in keys.keys() {
            assert!(shown.contains(&format!("{table}.{key}")), "[{table}] {key} has no sentence");
        }
    }
}
