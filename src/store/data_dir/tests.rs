#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use nix::sys::signal::Signal;

use super::*;
use crate::{
    model::Epoch,
    store::{
        StoreError,
        testing::{DIR, Second, SmallDisk, short_dir},
    },
};

fn open(path: &std::path::Path) -> Result<DataDir, DataDirError> {
    DataDir::open(path, "test", Options::default())
}

/// Soon enough for a test, long enough for a holder that touches all the time.
fn impatient() -> Options {
    Options { stale: Duration::from_millis(300), watch: Duration::from_millis(300) }
}

#[test]
fn a_fresh_directory_starts_at_the_unix_time_and_counts_on() {
    let dir = short_dir();
    let path = dir.path().join("a").join("data");
    let before = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64;
    let first = open(&path).unwrap();
    assert!(first.epoch().0 >= before && first.epoch().0 < before + 60_000);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    for below in [first.run_dir(), first.logs_dir(), path.join("work")] {
        assert_eq!(fs::metadata(below).unwrap().permissions().mode() & 0o777, 0o700);
    }
    assert_eq!(first.work_dir(), first.path().join("work"));
    let (id, epoch) = (first.hive_id(), first.epoch());
    drop(first);
    let second = open(&path).unwrap();
    assert_eq!((second.hive_id(), second.epoch()), (id, Epoch(epoch.0 + 1)));
    assert!(!second.fence().usurped());
}

#[test]
fn epoch_and_id_survive_the_loss_of_either_copy() {
    let dir = short_dir();
    let first = open(dir.path()).unwrap();
    let (id, epoch) = (first.hive_id(), first.epoch());
    drop(first);
    fs::remove_file(dir.path().join("hive-id")).unwrap();
    fs::remove_file(dir.path().join("epoch")).unwrap();
    let second = open(dir.path()).unwrap();
    assert_eq!((second.hive_id(), second.epoch()), (id, Epoch(epoch.0 + 1)));
    drop(second);
    for name in ["hive.db", "hive.db-wal", "hive.db-shm"] {
        let _ = fs::remove_file(dir.path().join(name));
    }
    let third = open(dir.path()).unwrap();
    assert_eq!((third.hive_id(), third.epoch()), (id, Epoch(epoch.0 + 2)));
    drop(third);
    fs::write(dir.path().join("hive-id"), "0191e6c4-0000-7000-8000-000000000000\n").unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(matches!(error, DataDirError::Database { source: StoreError::Conflict(_), .. }), "{error:?}");
    fs::write(dir.path().join("hive-id"), "bee\n").unwrap();
    assert!(matches!(open(dir.path()), Err(DataDirError::Garbled { .. })));
}

#[test]
fn a_holder_that_lives_keeps_it() {
    let dir = short_dir();
    let first = open(dir.path()).unwrap();
    let DataDirError::InUse { pid, epoch, .. } = open(dir.path()).unwrap_err() else { panic!("not in use") };
    assert_eq!((pid, epoch), (std::process::id(), first.epoch()));
    assert!(first.beat().is_ok());
}

#[test]
fn a_holder_whose_clock_was_set_is_seen_to_live() {
    let dir = short_dir();
    let first = open(dir.path()).unwrap();
    let lock = fs::File::options().write(true).open(dir.path().join("lock")).unwrap();
    lock.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
    std::thread::scope(|scope| {
        let second = scope.spawn(|| {
            DataDir::open(dir.path(), "test", Options { stale: Duration::from_secs(5), watch: Duration::from_secs(20) })
        });
        while !second.is_finished() {
            std::thread::sleep(Duration::from_millis(20));
            first.beat().unwrap();
        }
        assert!(matches!(second.join().unwrap(), Err(DataDirError::InUse { .. })));
    });
}

#[test]
fn a_stopped_holder_is_fenced_off_and_notices_when_it_wakes() {
    let dir = short_dir();
    let mut old = Second::start("store::data_dir::tests::second_process_holds", dir.path());
    let old_epoch = old.said();
    assert!(matches!(DataDir::open(dir.path(), "test", impatient()), Err(DataDirError::InUse { .. })));
    old.signal(Signal::SIGSTOP);
    let deadline = SystemTime::now() + Duration::from_secs(20);
    let new = loop {
        match DataDir::open(dir.path(), "test", impatient()) {
            Err(DataDirError::InUse { .. }) if SystemTime::now() < deadline => {}
            other => break other.unwrap(),
        }
    };
    assert_eq!(new.epoch(), Epoch(old_epoch + 1));
    assert!(new.fence().usurped());
    new.write_endpoints("{\"http\":\"new\"}").unwrap();
    old.signal(Signal::SIGCONT);
    assert_eq!(old.said(), 0, "it was told that it is fenced, and says so");
    assert_eq!(fs::read_to_string(dir.path().join("endpoints.json")).unwrap(), "{\"http\":\"new\"}");
    assert!(new.beat().is_ok());
    assert!(matches!(open(dir.path()), Err(DataDirError::InUse { .. })), "the new one holds it");
}

#[test]
#[ignore = "the second process of a_stopped_holder_is_fenced_off_and_notices_when_it_wakes"]
fn second_process_holds() {
    let dir = PathBuf::from(std::env::var_os(DIR).unwrap());
    let data = open(&dir).unwrap();
    println!("said {}", data.epoch());
    // A bound, should the first process have died.
    for _ in 0..6_000 {
        match data.beat() {
            Ok(()) => std::thread::sleep(Duration::from_millis(10)),
            Err(error) => {
                assert_eq!(error, StoreError::Fenced);
                assert!(data.write_endpoints("{}").is_err());
                data.remove_endpoints();
                println!("said 0");
                return;
            }
        }
    }
}

#[test]
fn of_many_openers_one_wins() {
    let dir = short_dir();
    let results: Vec<_> = std::thread::scope(|scope| {
        let openers: Vec<_> = (0..8).map(|_| scope.spawn(|| open(dir.path()))).collect();
        openers.into_iter().map(|opener| opener.join().unwrap()).collect()
    });
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert!(results.iter().filter_map(|r| r.as_ref().err()).all(|e| matches!(e, DataDirError::InUse { .. })));
}

#[test]
fn of_many_that_push_a_dead_holder_aside_one_wins() {
    for _ in 0..5 {
        let dir = short_dir();
        let dead = open(dir.path()).unwrap();
        let lock = fs::File::options().write(true).open(dir.path().join("lock")).unwrap();
        lock.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        let at_once = Options { watch: Duration::ZERO, ..Options::default() };
        let results: Vec<_> = std::thread::scope(|scope| {
            let openers: Vec<_> = (0..8).map(|_| scope.spawn(|| DataDir::open(dir.path(), "test", at_once))).collect();
            openers.into_iter().map(|opener| opener.join().unwrap()).collect()
        });
        let winners: Vec<_> = results.iter().filter_map(|result| result.as_ref().ok()).collect();
        assert_eq!(winners.iter().map(|winner| winner.epoch()).collect::<Vec<_>>(), [Epoch(dead.epoch().0 + 1)]);
        let others = results.iter().filter_map(|result| result.as_ref().err());
        assert!(
            others.clone().all(|error| matches!(error, DataDirError::InUse { .. })),
            "{:?}",
            others.collect::<Vec<_>>()
        );
        assert_eq!(dead.beat(), Err(StoreError::Fenced));
    }
}

#[test]
fn endpoints_come_and_go() {
    let dir = short_dir();
    let data = open(dir.path()).unwrap();
    let file = dir.path().join("endpoints.json");
    data.write_endpoints("{\"a\":1}").unwrap();
    data.write_endpoints("{\"a\":2}").unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "{\"a\":2}");
    data.remove_endpoints();
    data.remove_endpoints();
    assert!(!file.exists());
}

#[test]
fn what_can_not_be_a_data_directory_is_said_clearly() {
    let dir = short_dir();
    let long = dir.path().join("x".repeat(60));
    assert!(matches!(open(&long), Err(DataDirError::TooLong { max: 60, .. })));
    assert!(!long.exists());
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(matches!(open(&file), Err(DataDirError::NotADirectory { .. })));
    assert!(matches!(open(&file.join("below")), Err(DataDirError::NotADirectory { .. })));
}

#[test]
fn a_read_only_or_full_disk_is_said_clearly() {
    let Some(disk) = SmallDisk::mount(64) else { return };
    let path = disk.path().join("data");
    disk.fill();
    let error = open(&path).unwrap_err();
    assert!(matches!(error, DataDirError::Full { .. }), "{error:?}");
    disk.free();
    disk.remount("ro");
    let error = open(&path).unwrap_err();
    assert!(matches!(error, DataDirError::ReadOnly { .. }), "{error:?}");
    assert!(error.to_string().contains("read-only file system"), "{error}");
}
