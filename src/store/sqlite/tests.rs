#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{path::PathBuf, sync::Arc, time::Duration};

use super::*;
use crate::{
    model::{Epoch, Seq},
    store::{
        DataDir, Journal, Options, Retention, StoreError, StoredEvent, WorkStore,
        suite::{self, at, event},
        testing::{DIR, Second, SmallDisk, short_dir},
        work_suite,
    },
};

#[tokio::test]
async fn keeps_the_contract() {
    suite::contract(|| {
        let (dir, journal) = suite::scratch();
        (dir, Box::new(journal) as Box<dyn Journal>)
    })
    .await;
}

#[tokio::test]
async fn keeps_the_contract_of_coordination() {
    work_suite::contract(|| {
        let (dir, journal) = suite::scratch();
        (dir, Box::new(journal) as Box<dyn WorkStore>)
    })
    .await;
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_kill_9() {
    let dir = short_dir();
    let mut second = Second::start("store::sqlite::tests::second_process_appends", dir.path());
    for _ in 0..20 {
        second.said();
    }
    let acknowledged = second.kill().max(20);
    let data = DataDir::open(dir.path(), "test", Options::default()).unwrap();
    let journal = SqliteJournal::open(&data.database(), data.epoch()).unwrap();
    let there = journal.events(Seq(0), usize::MAX).await.unwrap();
    assert!(there.len() as u64 >= acknowledged, "{} of {acknowledged}", there.len());
    assert!(there.iter().zip(1..).all(|(event, seq)| event.seq == Seq(seq)), "no gap");
}

#[tokio::test]
#[ignore = "the second process of what_was_acknowledged_is_there_after_kill_9"]
async fn second_process_appends() {
    let dir = PathBuf::from(std::env::var_os(DIR).unwrap());
    let data = DataDir::open(&dir, "test", Options::default()).unwrap();
    let journal = SqliteJournal::open(&data.database(), data.epoch()).unwrap();
    // Far more than the first process waits for; a bound, should it have died.
    for seq in 1..100_000 {
        journal.append_events(vec![event(seq, seq)]).await.unwrap();
        println!("said {seq}");
    }
}

#[tokio::test]
async fn a_younger_daemon_fences_an_older_one_off() {
    let dir = short_dir();
    let data = DataDir::open(dir.path(), "test", Options::default()).unwrap();
    let journal = SqliteJournal::open(&data.database(), data.epoch()).unwrap();
    journal.reserve_seqs(Seq(5)).await.unwrap();
    let claim_again = Claim { hive_id: Some(data.hive_id()), epoch: Some(data.epoch()), first_epoch: Epoch(1) };
    let (hive_id, epoch) = claim(&data.database(), "test", claim_again).unwrap();
    assert_eq!((hive_id, epoch), (data.hive_id(), Epoch(data.epoch().0 + 1)));
    assert_eq!(journal.reserve_seqs(Seq(9)).await, Err(StoreError::Fenced));
    assert!(!journal.status().ok);
    assert_eq!(journal.last_reserved().await, Ok(Seq(5)));
    assert!(matches!(SqliteJournal::open(&data.database(), data.epoch()), Err(StoreError::Fenced)));
    let younger = SqliteJournal::open(&data.database(), epoch).unwrap();
    younger.reserve_seqs(Seq(9)).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_is_said_and_outlived() {
    let Some(disk) = SmallDisk::mount(1024) else { return };
    let data = DataDir::open(&disk.path().join("data"), "test", Options::default()).unwrap();
    let journal = SqliteJournal::open(&data.database(), data.epoch()).unwrap();
    journal.append_events(vec![event(1, 1)]).await.unwrap();
    disk.fill();
    let mut seq = 1;
    let refused = loop {
        seq += 1;
        assert!(seq < 10_000, "the disk is never full");
        if let Err(error) = journal.append_events(vec![event(seq, 1)]).await {
            break error;
        }
    };
    assert_eq!(refused, StoreError::Full);
    let status = journal.status();
    assert!(!status.ok && status.last_error.unwrap().contains("no space left"));
    assert_eq!(journal.events(Seq(0), 1).await.unwrap(), [event(1, 1)], "reading goes on");
    disk.free();
    journal.append_events(vec![event(seq, 1)]).await.unwrap();
    assert!(journal.status().ok);
    let there = journal.events(Seq(0), usize::MAX).await.unwrap();
    assert_eq!(there.len() as u64, seq, "what was acknowledged is there, once");
}

#[tokio::test]
async fn busy_work_does_not_push_out_what_has_become_of_agents() {
    let (_dir, journal) = suite::scratch();
    let work = |seq| StoredEvent { kind: "task_changed".to_owned(), ..event(seq, 1) };
    let agents = (1..=10).map(|n| event(n, 1));
    journal.append_events(agents.chain((11..=200).map(work)).collect()).await.unwrap();
    let retention = Retention {
        events_max: 20,
        operations_max: 1,
        incarnations_max_per_agent: 1,
        age_max: Duration::from_secs(3600),
    };
    journal.prune(at(1_000), retention).await.unwrap();
    let seqs: Vec<u64> = journal.events(Seq(0), 1_000).await.unwrap().iter().map(|event| event.seq.0).collect();
    assert_eq!(seqs, (1..=10).chain(191..=200).collect::<Vec<_>>());
}

#[tokio::test]
async fn many_events_are_pruned_while_others_write() {
    let (_dir, journal) = suite::scratch();
    let journal = Arc::new(journal);
    for block in 0..100 {
        journal.append_events((1..=1_000).map(|n| event(block * 1_000 + n, 1)).collect()).await.unwrap();
    }
    let full = journal.status().size_bytes;
    let retention = Retention {
        events_max: 10_000,
        operations_max: 1,
        incarnations_max_per_agent: 1,
        age_max: Duration::from_secs(3600),
    };
    let pruning = tokio::spawn({
        let journal = Arc::clone(&journal);
        async move { journal.prune(at(1_000), retention).await }
    });
    let mut between = 0;
    while !pruning.is_finished() {
        journal.reserve_seqs(Seq(200_000 + between)).await.unwrap();
        between += 1;
    }
    assert_eq!(pruning.await.unwrap().unwrap().events, 90_000);
    assert!(between > 2, "others have their turn between the bites");
    assert_eq!(journal.events(Seq(0), 1).await.unwrap()[0].seq, Seq(90_001));
    // The space goes back to the file system with the next checkpoint.
    journal.prune(at(1_000), retention).await.unwrap();
    for n in 0..2_000 {
        if journal.status().size_bytes < full {
            return;
        }
        journal.reserve_seqs(Seq(300_000 + n)).await.unwrap();
    }
    panic!("{} bytes before, {} after", full, journal.status().size_bytes);
}

#[tokio::test]
async fn readers_run_beside_writers() {
    let (_dir, journal) = suite::scratch();
    let journal = Arc::new(journal);
    let write = |task: u64| {
        let journal = Arc::clone(&journal);
        async move {
            for n in 0..50 {
                journal.append_events(vec![event(task * 50 + n + 1, 1)]).await.unwrap();
            }
        }
    };
    let read = || {
        let journal = Arc::clone(&journal);
        async move {
            let mut seen = 0;
            while seen < 400 {
                let now = journal.events(Seq(0), usize::MAX).await.unwrap().len();
                assert!(now >= seen, "nothing that was seen goes away");
                seen = now;
            }
        }
    };
    let all = async {
        tokio::join!(
            futures_util::future::join_all((0..8).map(write)),
            futures_util::future::join_all((0..4).map(|_| read()))
        )
    };
    tokio::time::timeout(Duration::from_secs(30), all).await.unwrap();
}

#[tokio::test]
async fn waits_for_a_lock_only_so_long_and_says_busy() {
    let (dir, journal) = suite::scratch();
    let held = rusqlite::Connection::open(dir.path().join("hive.db")).unwrap();
    held.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(journal.reserve_seqs(Seq(1)).await, Err(StoreError::Busy));
    held.execute_batch("ROLLBACK").unwrap();
    journal.reserve_seqs(Seq(1)).await.unwrap();
}

#[test]
fn refuses_what_it_does_not_know() {
    let dir = short_dir();
    let path = dir.path().join("hive.db");
    let first = Claim { hive_id: None, epoch: None, first_epoch: Epoch(7) };
    claim(&path, "test", first).unwrap();
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert_eq!(claim(&path, "test", first), Err(StoreError::Newer { found: 99, known: i64::from(journal_schema()) }));
    std::fs::write(
        &path,
        b"this is no database, and long enough to be seen as none........................................",
    )
    .unwrap();
    let error = claim(&path, "test", first).unwrap_err();
    assert!(matches!(error, StoreError::Damaged(_)), "{error:?}");
    assert!(error.to_string().contains("restore a backup, or move `hive.db*` out"), "{error}");
}

#[test]
fn nobody_else_reads_the_database() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, journal) = suite::scratch();
    for name in ["hive.db", "hive.db-wal", "hive.db-shm"] {
        let mode = std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    drop(journal);
}

/// Forty mebibytes of events in a journal that may take twelve, its log among them.
#[tokio::test]
async fn events_give_way_to_the_bound_and_nothing_else_does() {
    const MIB: u64 = 1 << 20;
    let (_dir, journal) = suite::scratch();
    let kept = suite::operation("review", 1);
    journal.put_operation(&kept, None).await.unwrap();
    journal.bound(12 * MIB);
    let body: Arc<str> = format!("\"{}\"", "x".repeat(2000)).into();
    let mut seq = 0;
    let mut append = async |batches: u64| {
        let mut largest = 0;
        for _ in 0..batches {
            let some =
                (1..=256).map(|n| crate::store::StoredEvent { body: Arc::clone(&body), ..event(seq + n, seq + n) });
            journal.append_events(some.collect()).await.unwrap();
            seq += 256;
            largest = largest.max(journal.status().size_bytes);
        }
        (seq, largest)
    };
    let (last, largest) = append(80).await;
    assert!(largest <= 13 * MIB, "{largest}");
    let there = journal.events(Seq(0), usize::MAX).await.unwrap();
    assert_eq!(there.last().map(|event| event.seq), Some(Seq(last)));
    assert!(there.len() >= 1000 && there.windows(2).all(|two| two[0].seq.0 + 1 == two[1].seq.0), "the oldest went");

    // Less room than even the youngest need: these stay, and the file is no larger than they are.
    journal.bound(0);
    let (_, _) = append(20).await;
    let there = journal.events(Seq(0), usize::MAX).await.unwrap();
    assert!((1000..1512).contains(&there.len()), "{}", there.len());
    let (used, all) = (there.len() as u64 * 2100, journal.status().size_bytes);
    assert!(all < used + 9 * MIB, "{all} for {used} of events");
    assert_eq!(journal.operation(kept.id).await.unwrap(), Some(kept));
}
