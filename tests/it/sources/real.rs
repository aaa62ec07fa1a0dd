//! Real MCP servers, both eras, behind a small bridge from TCP to their stdin and stdout. Only with `--long`: they come from PyPI into `target/`.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

use crate::hive::{Hive, until_within};

/// An index that is slow must not fail a test that has nothing to do with it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Newest releases, and the last ones that know nothing of 2026-07-28.
const SETS: [(&str, &[&str]); 2] = [
    ("mcp-servers", &["mcp-server-time", "mcp-server-git"]),
    ("mcp-servers-legacy", &["mcp<2", "mcp-server-time<2026", "mcp-server-git<2026"]),
];

/// Says loudly that a test was left out.
fn skip(why: &str) {
    let line = format!("sources::real: {why}");
    eprintln!("SKIPPED {line}");
    if let Some(path) = std::env::var_os("HK_TEST_SKIPPED") {
        let mut file = fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
        writeln!(file, "{line}").unwrap();
    }
}

/// A Python that has these packages, installed once into `target/`.
fn python(name: &str, packages: &[&str]) -> Result<PathBuf, String> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target").join(name);
    let (python, done) = (dir.join("bin/python"), dir.join("installed"));
    if done.exists() {
        return Ok(python);
    }
    let run = |command: &mut Command| match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(error.to_string()),
    };
    run(Command::new("python3").args(["-m", "venv"]).arg(&dir))?;
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(packages))?;
    fs::write(done, "").map_err(|error| error.to_string())?;
    Ok(python)
}

/// A server behind the bridge. The bridge ends with our end of its stdin.
struct Bridge {
    child: Child,
    stdin: Option<ChildStdin>,
    port: u16,
}

impl Bridge {
    fn start(python: &Path, module: &str) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/sources/bridge.py");
        let mut child = Command::new(python)
            .arg(script)
            .args(["--banner", "ready to serve"])
            .arg(python)
            .args(["-m", module])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse().expect("a port");
        Self { stdin: child.stdin.take(), child, port }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}

fn source<'a>(health: &'a Value, name: &str) -> &'a Value {
    health["sources"].as_array().unwrap().iter().find(|source| source["name"] == name).unwrap()
}

#[test]
fn servers_from_pypi_of_both_eras() {
    if std::env::var_os("HK_TEST_LONG").is_none_or(|long| long.is_empty()) {
        return skip("real MCP servers run only with --long");
    }
    for (set, packages) in SETS {
        let python = match python(set, packages) {
            Ok(python) => python,
            Err(why) => return skip(&format!("{packages:?} could not be installed: {why}")),
        };
        let repository = tempfile::tempdir().unwrap();
        let git = |args: &[&str]| {
            let ended = Command::new("git").current_dir(repository.path()).args(args).output().unwrap();
            assert!(ended.status.success(), "{ended:?}");
        };
        git(&["init", "--quiet", "--initial-branch=trunk"]);
        fs::write(repository.path().join("new.txt"), "new").unwrap();
        let (clock, git) = (Bridge::start(&python, "mcp_server_time"), Bridge::start(&python, "mcp_server_git"));
        let hive = Hive::start(&format!(
            "[[source]]\nname = \"time\"\naddress = \"127.0.0.1:{}\"\ninterval = \"1s\"\ntimeout = \"10s\"\n\
             tools = [{{ name = \"get_current_time\", arguments = {{ timezone = \"Asia/Tokyo\" }} }}, \"no_such_tool\"]\n\
             [[source]]\nname = \"git\"\naddress = \"localhost:{}\"\ninterval = \"1s\"\ntimeout = \"10s\"\n\
             tools = [{{ name = \"git_status\", arguments = {{ repo_path = {:?} }} }}]\n",
            clock.port,
            git.port,
            repository.path().to_str().unwrap(),
        ));
        let health = until_within(PATIENCE, "both servers were polled three times", || {
            let health = hive.get("/api/v1/health").body;
            let polled = |name: &str| {
                let source = source(&health, name);
                source["polls"].as_u64().unwrap() >= 3 && source["last_success"].is_string()
            };
            (polled("time") && polled("git")).then_some(health)
        });
        let (time, git) = (source(&health, "time"), source(&health, "git"));
        println!("{set}: {:#}", health["sources"]);
        let protocol = time["protocol"].as_str().unwrap();
        assert_eq!(protocol == "2026-07-28", set == "mcp-servers", "{protocol}");
        for source in [time, git] {
            assert_eq!((&source["breaker"], &source["failures"]), (&json!("closed"), &json!(0)), "{source:#}");
            assert_eq!(source["agents"], json!([]), "they say nothing of agents");
            assert_eq!(source["tools"][0]["answer"]["source"], "mcp");
        }
        assert_eq!(time["tools"][0]["answer"]["value"]["timezone"], "Asia/Tokyo", "{time:#}");
        let refused = time["tools"][1]["error"].as_str().unwrap();
        assert!(refused.contains("no_such_tool"), "{refused}");
        assert_eq!((&time["reasons"][0]["code"], &git["reasons"]), (&json!("tool_failed"), &json!([])));
        let status = git["tools"][0]["answer"]["value"].as_str().unwrap();
        assert!(status.contains("On branch trunk") && status.contains("new.txt"), "{status}");
        assert_eq!(health["level"], "healthy", "a tool that is refused degrades its source alone");
        drop(clock);
        until_within(PATIENCE, "the breaker of the server that ended opens", || {
            (source(&hive.get("/api/v1/health").body, "time")["breaker"] != "closed").then_some(())
        });
        let health = hive.get("/api/v1/health").body;
        assert_eq!(source(&health, "git")["breaker"], "closed", "the other goes on");
    }
}
