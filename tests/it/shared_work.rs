//! `examples/shared-work` for real: three workers that share ten tasks by MCP, one killed in the middle of one.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{collections::BTreeMap, fs, path::Path, process::Command};

#[test]
fn ten_tasks_are_done_once_though_a_worker_is_killed_in_the_middle_of_one() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/shared-work");
    let dir = tempfile::Builder::new().prefix("hk").tempdir().unwrap();
    for file in ["worker.py", "hive_mcp.py", "run.py"] {
        fs::copy(example.join(file), dir.path().join(file)).unwrap();
    }
    let config = fs::read_to_string(example.join("config.toml")).unwrap();
    assert!(config.contains("WORK_SECONDS = \"1\""), "{config}");
    let ports = "[http]\nbind = \"127.0.0.1:0\"\n[data_plane]\nbind = \"127.0.0.1:0\"\n";
    let config = config
        .replace("WORK_SECONDS = \"1\"", "WORK_SECONDS = \"0.4\"")
        .replace("[[swarm]]\n", &format!("{ports}[[swarm]]\n"));
    fs::write(dir.path().join("config.toml"), config).unwrap();
    let own = Path::new(env!("CARGO_BIN_EXE_hivekeeper")).parent().unwrap().display();
    let path = format!("{own}:{}", std::env::var("PATH").unwrap());
    let run = Command::new("python3").arg("run.py").current_dir(dir.path()).env("PATH", path).output().unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    let log = fs::read_to_string(dir.path().join("work/daemon.log")).unwrap_or_default();
    assert!(run.status.success(), "{said}\n{}\n{log}", String::from_utf8_lossy(&run.stderr));
    assert!(said.contains("killed worker-") && said.contains("every task was done once"), "{said}");
    // The report says the same, and names the attempt that was lost.
    let rows = said.lines().filter(|line| line.starts_with('|') && line.contains("Write ")).count();
    assert!(rows >= 9 && said.contains("Name them all"), "{said}");
    // Its own program says that all was done once; so does git, asked here.
    let log = Command::new("git")
        .args([
            "-C",
            dir.path().join("work/repository").to_str().unwrap(),
            "log",
            "--format=%(trailers:key=Task,valueonly,separator=)",
        ])
        .output()
        .unwrap();
    let mut commits: BTreeMap<String, usize> = BTreeMap::new();
    for task in String::from_utf8(log.stdout).unwrap().split_whitespace() {
        *commits.entry(task.to_owned()).or_default() += 1;
    }
    assert!(commits.len() == 10 && commits.values().all(|count| *count == 1), "{commits:?}");
}
