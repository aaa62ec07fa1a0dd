//! A journal that is damaged, too young, or gone.

use std::{
    fs,
    os::unix::fs::FileExt,
    path::PathBuf,
    process::Output,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{Disk, hivekeeper, refused, serve, stderr};
use crate::hive::{Hive, lives, until};

const AGENTS: &str = r#"
[[swarm]]
name = "s"
[[swarm.agent]]
name = "a"
command = ["sleep", "1000"]
[[swarm.agent]]
name = "b"
command = ["sleep", "1000"]
"#;

fn database(hive: &Hive) -> PathBuf {
    hive.data().join("hive.db")
}

/// Everything is in the file itself, and nobody has it open.
fn settle(hive: &Hive) -> rusqlite::Connection {
    let db = rusqlite::Connection::open(database(hive)).unwrap();
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    db
}

/// The first page of a table.
fn page_of(db: &rusqlite::Connection, table: &str) -> u64 {
    let sql = "SELECT rootpage FROM sqlite_schema WHERE type = 'table' AND name = ?1";
    let page: i64 = db.query_row(sql, [table], |row| row.get(0)).unwrap();
    u64::try_from(page).unwrap()
}

#[track_caller]
fn does_not_start(hive: &Hive, words: &[&str]) {
    let output: Output = serve(&hive.config());
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for word in words {
        assert!(said.contains(word), "says nothing of {word:?}: {said}");
    }
    assert_eq!(said.trim().lines().count(), 1, "one line for people, no backtrace: {said}");
}

#[test]
fn a_damaged_page_is_told_and_harms_nobody_who_does_not_need_it() {
    let mut hive = Hive::start(AGENTS);
    let pids = [hive.agent_pid("s/a"), hive.agent_pid("s/b")];
    hive.command("/swarms/s/start");
    hive.kill();
    let db = settle(&hive);
    let page = page_of(&db, "operations");
    drop(db);
    let file = fs::File::options().write(true).open(database(&hive)).unwrap();
    file.write_all_at(&[0x5a; 4096], (page - 1) * 4096).unwrap();
    hive.launch();
    hive.find_endpoints();
    let answer = hive.post("/api/v1/swarms/s/restart", json!({}));
    assert_eq!((answer.status, &answer.body["code"]), (503, &json!("journal_unavailable")), "{answer:?}");
    until("health tells of it", || {
        let health = hive.get("/api/v1/health").body;
        let error = health["control_plane"]["last_error"].as_str()?.to_owned();
        (health["state"] != "healthy" && error.contains("damaged") && error.contains("backup")).then_some(())
    });
    let ready = hive.get("/readyz?verbose");
    assert!(ready.status == 503 && ready.body.as_str().unwrap().contains("damaged"), "{ready:?}");
    // What meets a good page is done, and makes nobody believe that all were well.
    hive.signal_agent("s/b", libc::SIGKILL);
    hive.agent_until("s/b", "comes back", |agent| agent["incarnation"] == 2 && agent["state"] == "running");
    assert_eq!(hive.get("/readyz").status, 503);
    assert_eq!(hive.agent_pid("s/a"), pids[0]);
    // It is not copied over a good backup.
    let backup = hivekeeper(&["backup", "b.tar"], &hive.config());
    assert!(!backup.status.success() && stderr(&backup).contains("damaged"), "{backup:?}");
    assert_eq!(hive.terminate().code(), Some(0));
}

#[test]
fn a_journal_that_is_no_database_or_a_later_version_s_is_named_and_agents_wait() {
    let mut hive = Hive::start(AGENTS);
    let pids = [hive.agent_pid("s/a"), hive.agent_pid("s/b")];
    hive.kill();
    let db = settle(&hive);
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    db.pragma_update(None, "user_version", 999).unwrap();
    drop(db);
    does_not_start(&hive, &["schema 999", "later version", "hive.db"]);
    settle(&hive).pragma_update(None, "user_version", version).unwrap();
    let good = fs::read(database(&hive)).unwrap();
    let mut bad = good.clone();
    bad[..100].fill(b'x');
    fs::write(database(&hive), bad).unwrap();
    does_not_start(&hive, &["damaged", "restore a backup", "hive.db"]);
    assert!(pids.iter().all(|pid| lives(*pid)), "who runs waits for a daemon that can lead");
    fs::write(database(&hive), good).unwrap();
    hive.boot();
    assert_eq!([hive.agent_pid("s/a"), hive.agent_pid("s/b")], pids);
    assert_eq!(hive.terminate().code(), Some(0));
}

#[test]
fn a_data_directory_that_is_taken_away_is_told_and_nothing_is_acknowledged_into_the_void() {
    let mut hive = Hive::start(AGENTS);
    let pids = [hive.agent_pid("s/a"), hive.agent_pid("s/b")];
    let away = hive.file("away");
    fs::rename(hive.data(), &away).unwrap();
    refused(&hive, "/swarms/s/restart");
    until("health tells of it", || {
        let health = hive.get("/api/v1/health").body;
        health["control_plane"]["last_error"].as_str()?.contains("removed or replaced").then_some(())
    });
    assert_eq!([hive.agent_pid("s/a"), hive.agent_pid("s/b")], pids);
    fs::rename(&away, hive.data()).unwrap();
    until("readiness", || (hive.get("/readyz").status == 200).then_some(()));
    hive.command("/swarms/s/agents/b/restart");
    fs::remove_dir_all(hive.data()).unwrap();
    refused(&hive, "/swarms/s/restart");
    assert_eq!(hive.agent_pid("s/a"), pids[0]);
    let asked = Instant::now();
    assert_eq!(hive.terminate().code(), Some(0), "it ends in order all the same");
    assert!(asked.elapsed() < Duration::from_secs(20));
    assert!(!lives(pids[0]));
}

#[test]
fn a_daemon_does_not_start_on_a_full_disk() {
    let Some(disk) = Disk::small() else { return };
    let hive = Hive::prepare(AGENTS);
    std::os::unix::fs::symlink(disk.path(), hive.data()).unwrap();
    disk.fill();
    does_not_start(&hive, &["no space left", disk.path().to_str().unwrap()]);
}

#[test]
fn an_operation_that_cannot_be_read_hides_no_other_and_ends_as_failed() {
    let mut hive = Hive::start(AGENTS);
    let pid = hive.agent_pid("s/a");
    let good = hive.command("/swarms/s/start");
    hive.kill();
    let db = settle(&hive);
    let change = |id: &str, command: &str, target: &str, state: &str| {
        let body =
            format!(r#"{{"command":{command},"target":{target},"requested_by":"daemon","steps":[],"error":null}}"#);
        let sql = "INSERT INTO operations (id, state, requested_at_ms, body) VALUES (?1, ?2, 1, ?3)";
        db.execute(sql, [id, state, &body]).unwrap();
    };
    let id = |n: u32| format!("0199a1b2-0000-7000-8000-00000000000{n}");
    let update = r#"{"update":{"api":true,"document":{"name":"s","colour":"red"}}}"#;
    change(&id(1), update, r#""s""#, "running");
    change(&id(2), r#""dance""#, r#""s""#, "succeeded");
    change(&id(3), r#""start""#, "7", "accepted");
    drop(db);
    hive.boot();
    assert_eq!(hive.agent_pid("s/a"), pid);
    let listed = hive.get("/api/v1/operations").body;
    let listed = listed["operations"].as_array().unwrap();
    let kinds: Vec<_> = listed.iter().map(|one| one["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["start", "unreadable", "unreadable"], "{listed:#?}");
    assert_eq!(listed[0]["id"], good["id"]);
    let failed = hive.get(&format!("/api/v1/operations/{}", id(1))).body;
    assert_eq!((failed["state"].as_str(), failed["target"].as_str()), (Some("failed"), Some("s")), "{failed:#}");
    assert!(failed["error"].as_str().unwrap().contains("ask for it anew"), "{failed:#}");
    assert_eq!(failed["unreadable"]["command"], serde_json::from_str::<serde_json::Value>(update).unwrap());
    assert!(failed["unreadable"]["why"].as_str().unwrap().contains("colour"), "{failed:#}");
    assert_eq!(
        hive.get(&format!("/api/v1/operations/{}", id(2))).body["state"],
        "succeeded",
        "what has ended stays so"
    );
    assert!(hive.log().contains(&id(3)), "what is passed over is logged");
    assert_eq!(hive.terminate().code(), Some(0));
}
