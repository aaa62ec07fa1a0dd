//! The pages under `docs/` and the README: their links lead somewhere, and the command blocks marked as runnable are run as they stand.
//!
//! A block is marked by its info string: `sh run`, or `sh run docker` where it needs an engine. The blocks of a page are one bash session in an empty
//! directory with `hivekeeper` on the `PATH`. A line `# => TEXT` in a block says what the block must have printed by then. Where a page names the
//! default ports, the session has free ones in their place.

mod configuration;
mod problems;

use std::{
    fs,
    net::TcpListener,
    os::unix::{fs::symlink, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use crate::{
    harness,
    hive::{self, until_within},
};

/// How long the commands of one page may take together.
const PAGE_PATIENCE: Duration = Duration::from_secs(60);
/// Said between two blocks of a session.
const MARK: &str = "@@ block";
/// What a runnable block begins with, and what it says of its output.
const FENCE: &str = "```";
const EXPECTED: &str = "# => ";

/// One command block.
#[derive(Debug, PartialEq)]
struct Block {
    line: usize,
    text: String,
    needs_engine: bool,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every page, with its path from the top.
fn pages() -> Vec<(String, String)> {
    let mut names = vec!["README.md".to_owned(), "ARCHITECTURE.md".to_owned(), "SECURITY.md".to_owned()];
    names.extend(fs::read_dir(root().join("docs")).unwrap().filter_map(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        name.ends_with(".md").then(|| format!("docs/{name}"))
    }));
    names.retain(|name| root().join(name).exists());
    names.sort();
    names.into_iter().map(|name| (fs::read_to_string(root().join(&name)).unwrap(), name)).map(|(a, b)| (b, a)).collect()
}

/// Holds a page against what the code makes of it; `HK_TEST_WRITE=yes` writes it instead.
fn written(page: &str, text: &str) {
    let path = root().join(page);
    if std::env::var_os("HK_TEST_WRITE").is_some() {
        fs::write(&path, text).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == text,
        "{page} is not what the code says: run this test with HK_TEST_WRITE=yes and commit the page"
    );
}

fn blocks(page: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut open: Option<Option<Block>> = None;
    for (at, line) in page.lines().enumerate() {
        match (&mut open, line.trim_start().strip_prefix(FENCE)) {
            (None, Some(info)) => {
                let words: Vec<_> = info.split_whitespace().collect();
                let runs = words.get(..2) == Some(&["sh", "run"]);
                let needs_engine = words.get(2) == Some(&"docker");
                assert!(
                    !runs || words.len() == 2 + usize::from(needs_engine),
                    "line {}: {info:?} is no known mark",
                    at + 1
                );
                open = Some(runs.then(|| Block { line: at + 1, text: String::new(), needs_engine }));
            }
            (Some(block), Some(_)) => {
                found.extend(block.take());
                open = None;
            }
            (Some(Some(block)), None) => {
                block.text += line;
                block.text.push('\n');
            }
            _ => {}
        }
    }
    assert!(open.is_none(), "a block is not closed");
    found
}

/// A port at or above this one; outside the range from which the system gives its own.
fn free_port(from: u16) -> u16 {
    (from..32_000).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}

/// Runs the blocks of a page in one session. Returns what each printed.
fn run(name: &str, blocks: &[Block]) -> Vec<String> {
    let dir = tempfile::Builder::new().prefix("hk-docs").tempdir().unwrap();
    let (bin, work) = (dir.path().join("bin"), dir.path().join("work"));
    fs::create_dir(&bin).unwrap();
    fs::create_dir(&work).unwrap();
    symlink(env!("CARGO_BIN_EXE_hivekeeper"), bin.join("hivekeeper")).unwrap();
    // Some pages use what lies beside them.
    symlink(root().join("examples"), work.join("examples")).unwrap();
    let http = free_port(20_000 + u16::try_from(std::process::id() % 10_000).unwrap());
    let data_plane = free_port(http + 1);
    let mut script = String::from("set -euo pipefail\n");
    for block in blocks {
        let text = block.text.replace(":8080", &format!(":{http}")).replace(":9500", &format!(":{data_plane}"));
        script += &format!("echo '{MARK}'\n{text}");
    }
    fs::write(dir.path().join("session"), script).unwrap();
    let output = fs::File::create(dir.path().join("output")).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut session = Command::new("bash")
        .arg(dir.path().join("session"))
        .current_dir(&work)
        .env("PATH", path)
        .env("HIVEKEEPER__HTTP__BIND", format!("127.0.0.1:{http}"))
        .env("HIVEKEEPER__DATA_PLANE__BIND", format!("127.0.0.1:{data_plane}"))
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .process_group(0)
        .spawn()
        .unwrap();
    let deadline = std::time::Instant::now() + PAGE_PATIENCE;
    let status = loop {
        match session.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if std::time::Instant::now() > deadline => break None,
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    end_daemon(&work);
    if status.is_none() {
        hive::kill(-session.id().cast_signed(), libc::SIGKILL);
        session.wait().unwrap();
    }
    let output = fs::read_to_string(dir.path().join("output")).unwrap();
    assert!(
        status.is_some_and(|status| status.success()),
        "{name}: the session ended with {status:?}; it printed:\n{output}\n{}",
        log(&work)
    );
    output.split(&format!("{MARK}\n")).skip(1).map(str::to_owned).collect()
}

fn log(work: &Path) -> String {
    fs::read_to_string(work.join("daemon.log")).unwrap_or_default()
}

/// The daemon that a page has left running, if any.
fn end_daemon(work: &Path) {
    let endpoints = work.join(".hivekeeper/endpoints.json");
    let Ok(text) = fs::read_to_string(&endpoints) else { return };
    let pid = serde_json::from_str::<serde_json::Value>(&text).unwrap()["pid"].as_i64().unwrap();
    let pid = i32::try_from(pid).unwrap();
    hive::kill(pid, libc::SIGTERM);
    until_within(Duration::from_secs(60), "the daemon of a page ends", || (!hive::lives(pid)).then_some(()));
}

fn check(name: &str, blocks: &[Block]) {
    let printed = run(name, blocks);
    assert_eq!(printed.len(), blocks.len(), "{name}");
    for (block, printed) in blocks.iter().zip(&printed) {
        for expected in block.text.lines().filter_map(|line| line.trim().strip_prefix(EXPECTED)) {
            assert!(printed.contains(expected), "{name}:{}: expected {expected:?}, printed:\n{printed}", block.line);
        }
    }
}

#[test]
fn docs_commands_do_what_they_say() {
    let mut ran = 0;
    for (name, page) in pages() {
        let mut blocks = blocks(&page);
        if std::env::var("HK_TEST_DOCKER").as_deref() == Ok("no") && blocks.iter().any(|block| block.needs_engine) {
            harness::skipped(&format!("needs an engine for {name}"));
            blocks.clear();
        }
        if !blocks.is_empty() {
            ran += blocks.len();
            check(&name, &blocks);
        }
    }
    assert!(ran > 0, "no page has a runnable block");
}

#[test]
fn docs_blocks_are_found() {
    let page = "text\n```sh run\na\n# => b\n```\n```sh\nno\n```\n```sh run docker\nc\n```\n";
    let block = |line, text: &str, needs_engine| Block { line, text: text.to_owned(), needs_engine };
    assert_eq!(blocks(page), [block(2, "a\n# => b\n", false), block(9, "c\n", true)]);
}

/// Where a link of a page leads, unless that is outside.
fn links(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut in_block = false;
    for line in page.lines() {
        in_block ^= line.trim_start().starts_with(FENCE);
        if in_block {
            continue;
        }
        for part in line.split("](").skip(1) {
            let to = part.split(')').next().unwrap();
            if !to.contains("://") && !to.starts_with("mailto:") {
                found.push(to.to_owned());
            }
        }
    }
    found
}

/// The anchor that a heading gets.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            '-' | '_' => Some(c),
            c if c.is_alphanumeric() => Some(c),
            _ => None,
        })
        .collect()
}

#[test]
fn docs_links_lead_somewhere() {
    for (name, page) in pages() {
        let here = root().join(&name);
        for link in links(&page) {
            let (file, fragment) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() { here.clone() } else { here.parent().unwrap().join(file) };
            assert!(target.exists(), "{name}: {link} leads nowhere");
            if !fragment.is_empty() {
                let text = fs::read_to_string(&target).unwrap();
                let mut headings = text.lines().filter(|line| line.starts_with('#'));
                assert!(headings.any(|heading| anchor(heading) == fragment), "{name}: {link}: no such heading");
            }
        }
    }
}

#[test]
fn docs_pages_are_in_the_index() {
    let index = fs::read_to_string(root().join("docs/README.md")).unwrap();
    for (name, _) in pages() {
        if let Some(page) = name.strip_prefix("docs/").filter(|page| *page != "README.md") {
            assert!(index.contains(&format!("]({page})")), "docs/README.md does not lead to {page}");
        }
    }
}
