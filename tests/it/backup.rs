//! A hive in a file, taken under load and made anew from it.

use std::{
    process::{Command, Output},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use serde_json::{Value, json};

use crate::hive::{Hive, until};

const AGENTS: &str = r#"
[[swarm]]
name = "s"
workdir = "."
[[swarm.agent]]
name = "tick"
lease = "5s"
command = ["sh", "-c", "n=0; while :; do n=$((n+1)); echo tick $n; sleep 0.02; done"]
[[swarm.agent]]
name = "quiet"
lease = "5s"
stop_grace = "1s"
command = ["sleep", "1000"]
"#;

fn hivekeeper(hive: &Hive, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hivekeeper"))
        .args(arguments)
        .args(["--config", hive.config().to_str().unwrap()])
        .current_dir(hive.dir.path())
        .output()
        .unwrap()
}

#[track_caller]
fn done(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn every_operation_that_was_acknowledged_before_a_backup_began_is_in_it() {
    let mut hive = Hive::start(AGENTS);
    let (tick, quiet) = (hive.agent_pid("s/tick"), hive.agent_pid("s/quiet"));
    let acknowledged = Mutex::new(Vec::new());
    let enough = AtomicBool::new(false);
    let taken = std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !enough.load(Ordering::Relaxed) {
                    let answer = hive.post("/api/v1/swarms/s/start", json!({}));
                    assert_eq!(answer.status, 202, "{answer:?}");
                    acknowledged.lock().unwrap().push(answer.body["id"].as_str().unwrap().to_owned());
                }
            });
        }
        let mut taken = Vec::new();
        for round in 0..5 {
            let before = acknowledged.lock().unwrap().len();
            until("more operations", || (acknowledged.lock().unwrap().len() > before + 20).then_some(()));
            let known = acknowledged.lock().unwrap().clone();
            let name = format!("b{round}.tar");
            done(&hivekeeper(&hive, &["backup", "--logs", &name]));
            taken.push((name, known));
        }
        enough.store(true, Ordering::Relaxed);
        taken
    });
    assert_eq!((hive.agent_pid("s/tick"), hive.agent_pid("s/quiet")), (tick, quiet));
    for (name, known) in &taken {
        let data_dir = format!("{name}.data");
        done(&hivekeeper(&hive, &["restore", name, "--data-dir", &data_dir]));
        let db = rusqlite::Connection::open(hive.file(&data_dir).join("hive.db")).unwrap();
        let mut rows = db.prepare("SELECT id FROM operations").unwrap();
        let found: Vec<String> = rows.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        let missing: Vec<_> = known.iter().filter(|id| !found.contains(id)).collect();
        assert!(missing.is_empty() && known.len() >= 20, "{name} lacks {missing:?} of {}", known.len());
    }
    assert_eq!(hive.terminate().code(), Some(0));
}

#[test]
fn a_restored_hive_goes_on_where_the_backup_was_taken() {
    let mut hive = Hive::start(AGENTS);
    hive.command("/swarms/s/agents/quiet/stop");
    hive.running("s/tick");
    let written = until("a line", || hive.lines("s/tick").first().cloned());
    let answer = hive.get("/api/v1/health").body;
    let made: Value =
        serde_json::from_str(&done(&hivekeeper(&hive, &["--json", "backup", "--logs", "b.tar"]))).unwrap();
    assert_eq!((&made["format"], &made["hive_id"]), (&json!(1), &answer["hive_id"]), "{made:#}");
    // Into the very directory: its daemon lives.
    let refused = hivekeeper(&hive, &["restore", "b.tar"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("a daemon is running"), "{refused:?}");
    let epoch =
        |hive: &Hive| std::fs::read_to_string(hive.data().join("epoch")).unwrap().trim().parse::<u64>().unwrap();
    let old = epoch(&hive);
    hive.kill();
    let refused = hivekeeper(&hive, &["restore", "b.tar"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("new or empty"), "{refused:?}");
    std::fs::rename(hive.data(), hive.file("old")).unwrap();
    done(&hivekeeper(&hive, &["restore", "b.tar"]));
    hive.boot();
    assert!(epoch(&hive) > old + 1, "an old daemon's successor would not be fenced off");
    // Its launcher is not to be found from here: it ends with its lease, and the agent is started anew.
    let tick = hive.running("s/tick");
    assert_eq!(tick["incarnation"], 2, "{tick:#}");
    assert_eq!(hive.agent("s/quiet")["state"], "stopped", "what an operator wanted is kept");
    assert_eq!(hive.lines("s/tick").first(), Some(&written));
    assert_eq!(hive.terminate().code(), Some(0));
}

#[test]
fn a_backup_of_nothing_says_what_is_missing() {
    let hive = Hive::prepare(AGENTS);
    let refused = hivekeeper(&hive, &["backup", "b.tar"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1));
    assert!(said.contains("no hive.db") && said.contains("--data-dir"), "{said}");
    assert!(!hive.file("b.tar").exists());
}
