use std::{fs, os::unix::fs::MetadataExt, path::Path};

use super::*;
use crate::{
    model::{Desired, Origin},
    store::{DataDir, Journal as _, Options, SqliteJournal, SwarmRow},
};

struct Hive {
    dir: tempfile::TempDir,
    data: DataDir,
    journal: SqliteJournal,
}

impl Hive {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("hkb").tempdir().unwrap();
        let data = DataDir::open(&dir.path().join("data"), "test", Options::default()).unwrap();
        let journal = SqliteJournal::open(&data.database(), data.epoch()).unwrap();
        let book = data.logs_dir().join("review/coder-1");
        fs::create_dir_all(&book).unwrap();
        fs::write(book.join("00001.log"), "a line\n").unwrap();
        Self { dir, data, journal }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    async fn put(&self, name: &str) {
        let row = SwarmRow {
            name: name.parse().unwrap(),
            origin: Origin::Api,
            document: "{}".into(),
            scaled: None,
            desired: Desired::Running,
            since: std::time::SystemTime::UNIX_EPOCH,
        };
        self.journal.put_swarm(row).await.unwrap();
    }
}

fn why(outcome: Result<Manifest, BackupError>) -> String {
    let error = outcome.unwrap_err();
    match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// No directory half restored, no file half written.
#[track_caller]
fn nothing_beside(hive: &Hive, allowed: &[&str]) {
    let mut left: Vec<_> =
        fs::read_dir(hive.dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, allowed);
}

#[tokio::test]
async fn what_was_backed_up_beside_a_daemon_comes_back_under_a_higher_epoch() {
    let hive = Hive::new();
    hive.put("review").await;
    let (file, back) = (hive.path("b.tar"), hive.path("back"));
    let manifest = take(hive.data.path(), &file, true).unwrap();
    hive.put("later").await;
    let paths: Vec<_> = manifest.files.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(paths, ["hive.db", "hive-id", "logs/review/coder-1/00001.log"]);
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(restore(&file, &back).unwrap(), manifest);
    nothing_beside(&hive, &["b.tar", "back", "data"]);
    let data = DataDir::open(&back, "test", Options::default()).unwrap();
    assert_eq!(data.hive_id(), hive.data.hive_id());
    assert!(data.epoch() > hive.data.epoch());
    let journal = SqliteJournal::open(&data.database(), data.epoch()).unwrap();
    let swarms = journal.swarms().await.unwrap();
    assert_eq!(swarms.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["review"]);
    assert_eq!(fs::read_to_string(data.logs_dir().join("review/coder-1/00001.log")).unwrap(), "a line\n");
}

#[test]
fn an_archive_is_what_tar_reads() {
    let hive = Hive::new();
    let file = hive.path("b.tar");
    take(hive.data.path(), &file, true).unwrap();
    let Ok(listed) = std::process::Command::new("tar").arg("tf").arg(&file).output() else { return };
    assert!(listed.status.success(), "{listed:?}");
    assert_eq!(
        String::from_utf8(listed.stdout).unwrap(),
        "hive.db\nhive-id\nlogs/review/coder-1/00001.log\nmanifest.json\n"
    );
}

#[test]
fn a_used_directory_and_a_living_daemon_s_are_refused() {
    let hive = Hive::new();
    let (file, used) = (hive.path("b.tar"), hive.path("used"));
    take(hive.data.path(), &file, false).unwrap();
    assert!(why(restore(&file, hive.data.path())).contains("a daemon is running"));
    fs::create_dir(&used).unwrap();
    fs::write(used.join("notes"), "mine").unwrap();
    assert!(why(restore(&file, &used)).contains("\"notes\""));
    assert_eq!(fs::read_to_string(used.join("notes")).unwrap(), "mine");
    nothing_beside(&hive, &["b.tar", "data", "used"]);
    fs::remove_file(used.join("notes")).unwrap();
    restore(&file, &used).unwrap();
    assert!(why(take(&hive.path("nowhere"), &file, false)).contains("no hive.db"));
}

/// A volume is mounted where it is: it can be neither replaced nor put beside, and belongs to whom the daemon runs as.
#[test]
fn a_directory_that_is_there_stays_and_gives_its_owner_to_what_is_restored() {
    let hive = Hive::new();
    let (file, back) = (hive.path("b.tar"), hive.path("back"));
    take(hive.data.path(), &file, true).unwrap();
    fs::create_dir(&back).unwrap();
    // Only root can give a directory away.
    let _ = std::os::unix::fs::chown(&back, Some(10001), Some(10001));
    let before = fs::metadata(&back).unwrap();
    restore(&file, &back).unwrap();
    let after = fs::metadata(&back).unwrap();
    assert_eq!(before.ino(), after.ino());
    for name in ["hive.db", "hive-id", "epoch", "logs", "logs/review/coder-1/00001.log"] {
        let found = fs::metadata(back.join(name)).unwrap();
        assert_eq!((found.uid(), found.gid()), (before.uid(), before.gid()), "{name}");
    }
    assert!(!back.join("restoring").exists());
}

#[test]
fn no_daemon_starts_on_half_a_restore_and_the_next_one_mends_it() {
    let hive = Hive::new();
    let (file, back) = (hive.path("b.tar"), hive.path("back"));
    take(hive.data.path(), &file, true).unwrap();
    // As a power cut leaves it: some names are in their place, others not yet.
    fs::create_dir_all(back.join("restoring/logs")).unwrap();
    fs::create_dir_all(back.join("logs/review/old")).unwrap();
    fs::write(back.join("hive-id"), "of another backup").unwrap();
    let refused = DataDir::open(&back, "test", Options::default()).unwrap_err().to_string();
    assert!(refused.contains("run `hivekeeper restore` again"), "{refused}");
    restore(&file, &back).unwrap();
    assert!(!back.join("logs/review/old").exists());
    let data = DataDir::open(&back, "test", Options::default()).unwrap();
    assert_eq!(data.hive_id(), hive.data.hive_id());
}

#[test]
fn each_damage_is_found_and_nothing_is_restored() {
    let hive = Hive::new();
    let (file, back) = (hive.path("b.tar"), hive.path("back"));
    take(hive.data.path(), &file, true).unwrap();
    let good = fs::read(&file).unwrap();
    let line = good.windows(7).position(|bytes| bytes == b"a line\n").unwrap();
    let mut flipped = good.clone();
    flipped[line] = b'A';
    let escaped = {
        // The name of the second entry, and its checksum with it.
        let at = good.windows(7).position(|bytes| bytes == b"hive-id").unwrap();
        let mut bytes = good.clone();
        bytes[at..at + 7].copy_from_slice(b"../evil");
        let head: &mut [u8] = &mut bytes[at..at + 512];
        head[148..156].copy_from_slice(b"        ");
        let sum: u64 = head.iter().map(|byte| u64::from(*byte)).sum();
        head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        bytes
    };
    let cases: [(&[u8], &str); 5] = [
        (&flipped, "checksum differs"),
        (&good[..good.len() - 4096], "cut off"),
        (&good[..700], "cut off"),
        (b"not a backup at all", "cut off"),
        (&escaped, "which no backup has"),
    ];
    for (bytes, expected) in cases {
        fs::write(&file, bytes).unwrap();
        let said = why(restore(&file, &back));
        assert!(said.contains(expected), "{said}");
        nothing_beside(&hive, &["b.tar", "data"]);
    }
    assert!(!Path::new(&hive.path("evil")).exists());
}

#[test]
fn a_damaged_journal_is_not_backed_up_and_the_last_backup_stays() {
    let hive = Hive::new();
    let file = hive.path("b.tar");
    take(hive.data.path(), &file, false).unwrap();
    let before = fs::read(&file).unwrap();
    let Hive { dir, data, journal } = hive;
    drop(journal);
    let (path, database) = (data.path().to_owned(), data.database());
    let db = rusqlite::Connection::open(&database).unwrap();
    db.pragma_update(None, "wal_checkpoint", "TRUNCATE").ok();
    drop(db);
    let mut bytes = fs::read(&database).unwrap();
    bytes[4096..8192].fill(0x5a);
    fs::write(&database, bytes).unwrap();
    let said = why(take(&path, &file, false));
    assert!(said.contains("damaged"), "{said}");
    assert_eq!(fs::read(&file).unwrap(), before);
    drop(dir);
}
