use std::{
    cell::Cell,
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use proptest::{prelude::*, test_runner::TestRunner};
use rusqlite::Connection;
use tempfile::TempDir;

use super::super::{
    bucket::Closed,
    file::{Entry, HistoryFile, Numbered, Origin, Stored},
    point::{Resolution, Tokens},
    tally::{Gauge, Tally},
};
use crate::{
    model::{Epoch, Target},
    store::{
        DataDir, Options, StoreError,
        testing::{SmallDisk, short_dir},
    },
};

/// A moment that begins a bucket of every resolution.
const NOON_S: u64 = 1_795_262_400;
const MIB: u64 = 1 << 20;

struct Ground {
    dir: TempDir,
    data: DataDir,
    path: PathBuf,
}

impl Ground {
    fn new() -> Self {
        let dir = short_dir();
        let data = DataDir::open(dir.path(), "test", Options::default()).unwrap();
        Self { path: data.history(), data, dir }
    }

    fn origin(&self, epoch: u64, at_s: u64, bytes_max: u64) -> Origin {
        let (path, fence) = (self.path.clone(), self.data.fence());
        Origin { path, epoch: Epoch(epoch), started_at: time(at_s), fence, bytes_max }
    }

    fn open(&self, epoch: u64, at_s: u64) -> HistoryFile {
        let opened = HistoryFile::open(&self.origin(epoch, at_s, 64 * MIB)).unwrap();
        assert_eq!(opened.set_aside, None);
        opened.file
    }
}

fn time(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn target(name: &str) -> Target {
    name.parse().map_or_else(|_| Target::Swarm(name.parse().unwrap()), Target::Agent)
}

fn measured(cpu: f64) -> Tally {
    let gauge = |value| Gauge { sum: value, count: 1, max: value };
    Tally {
        cpu: gauge(cpu),
        memory: gauge(1e9),
        latency_ms_max: Some(5),
        tokens: Tokens { input: Some(3), output: Some(1) },
        restarts: Some(1),
    }
}

fn bucket(number: u64, of: &str, start_s: u64) -> Numbered {
    Numbered { number, entry: Entry::Bucket(Closed { of: target(of), start_s, tally: measured(0.5) }) }
}

async fn write(file: &HistoryFile, entries: Vec<Numbered>) {
    file.write(entries, None, false).await.unwrap();
}

/// All that there is of one series.
async fn read(file: &HistoryFile, of: &str, resolution: Resolution, from_s: u64, to_s: u64) -> Stored {
    file.read(&target(of), resolution, from_s, to_s).await.unwrap()
}

fn file_bytes(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

fn count(path: &Path, of: &str) -> u64 {
    let count: i64 = Connection::open(path).unwrap().query_row(of, [], |row| row.get(0)).unwrap();
    count.try_into().unwrap()
}

#[tokio::test]
async fn fine_buckets_become_coarse_ones() {
    let ground = Ground::new();
    let file = ground.open(1, NOON_S);
    let entries = (0..60).map(|n| bucket(n + 1, "s/a", NOON_S + n * 10)).collect();
    write(&file, entries).await;
    let fine = read(&file, "s/a", Resolution::TenSeconds, NOON_S, NOON_S + 590).await;
    assert_eq!(fine.tallies.len(), 60);
    let minutes = read(&file, "s/a", Resolution::Minute, NOON_S, NOON_S + 540).await;
    assert_eq!(minutes.tallies.len(), 10);
    assert!(minutes.tallies.iter().all(|(_, tally)| tally.restarts == Some(6) && tally.cpu.count == 6));
    let coarse = read(&file, "s/a", Resolution::TenMinutes, NOON_S, NOON_S).await;
    assert_eq!((coarse.tallies.len(), coarse.tallies[0].1.tokens), (1, Tokens { input: Some(180), output: Some(60) }));
    assert_eq!(read(&file, "s/b", Resolution::Minute, NOON_S, NOON_S + 540).await.tallies, []);
    assert_eq!(read(&file, "s", Resolution::Minute, NOON_S, NOON_S + 540).await.tallies, []);
}

#[test]
fn what_is_written_twice_into_a_bucket_is_its_merge() {
    let optional = || prop::option::of(0..1_000u64);
    let gauge = || {
        (0..3u64, 0..100u32).prop_map(|(count, value)| Gauge {
            sum: f64::from(value) * count as f64,
            count,
            max: if count == 0 { 0.0 } else { f64::from(value) },
        })
    };
    let counts = (optional(), optional(), optional(), optional());
    let tally = (gauge(), gauge(), counts).prop_map(|(cpu, memory, (late, input, output, restarts))| {
        let tokens = Tokens { input, output };
        Tally { cpu, memory, latency_ms_max: late, tokens, restarts }
    });
    let rounds = prop::collection::vec((0..70u64, tally), 1..40);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let ground = Ground::new();
    let file = ground.open(1, NOON_S);
    let (number, case) = (Cell::new(0), Cell::new(0));
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() });
    runner
        .run(&rounds, |rounds| {
            case.set(case.get() + 1);
            let of = format!("s/a{}", case.get());
            let mut model: BTreeMap<(u64, u64), Tally> = BTreeMap::new();
            for (n, tally) in rounds {
                number.set(number.get() + 1);
                let start_s = NOON_S + n * 10;
                let entry = Entry::Bucket(Closed { of: target(&of), start_s, tally });
                runtime.block_on(write(&file, vec![Numbered { number: number.get(), entry }]));
                for span_s in [10, 60, 600] {
                    model.entry((span_s, start_s / span_s * span_s)).or_default().merge(&tally);
                }
            }
            for resolution in Resolution::ALL {
                let there = runtime.block_on(read(&file, &of, resolution, NOON_S, NOON_S + 1_200));
                let span_s = resolution.span_s();
                let expected: Vec<_> = model
                    .range((span_s, 0)..=(span_s, u64::MAX))
                    .map(|((_, start_s), tally)| (*start_s, *tally))
                    .collect();
                prop_assert_eq!(there.tallies, expected);
            }
            Ok(())
        })
        .unwrap();
}

#[tokio::test]
async fn an_entry_is_written_once_whatever_is_repeated() {
    let ground = Ground::new();
    let file = ground.open(1, NOON_S);
    for _ in 0..3 {
        write(&file, vec![bucket(1, "s/a", NOON_S), bucket(2, "s/a", NOON_S)]).await;
    }
    let there = read(&file, "s/a", Resolution::TenSeconds, NOON_S, NOON_S).await;
    assert_eq!((there.upto, there.tallies[0].1.restarts), (2, Some(2)));
    drop(file);
    // The same daemon once more, then the next, whose numbers begin again.
    let file = ground.open(1, NOON_S);
    write(&file, vec![bucket(2, "s/a", NOON_S)]).await;
    assert_eq!(read(&file, "s/a", Resolution::TenSeconds, NOON_S, NOON_S).await.tallies[0].1.restarts, Some(2));
    drop(file);
    let file = ground.open(2, NOON_S + 5);
    assert_eq!(read(&file, "s/a", Resolution::TenSeconds, NOON_S, NOON_S).await.upto, 0);
    write(&file, vec![bucket(1, "s/a", NOON_S)]).await;
    let there = read(&file, "s/a", Resolution::TenSeconds, NOON_S, NOON_S).await;
    assert_eq!(there.tallies.len(), 1, "it goes on in the same bucket");
    assert_eq!(there.tallies[0].1.restarts, Some(3));
}

#[tokio::test]
async fn the_time_without_a_daemon_is_a_hole_unless_nothing_ran_on() {
    let ground = Ground::new();
    let holes = async |file: &HistoryFile| {
        let span = read(file, "s", Resolution::TenMinutes, NOON_S - 600, NOON_S + 6_000).await;
        span.holes.into_iter().map(|(from, to)| (from / 1000, to / 1000)).collect::<Vec<_>>()
    };
    let file = ground.open(1, NOON_S);
    assert_eq!(holes(&file).await, [], "nothing was there to be seen before the first");
    file.write(vec![bucket(1, "s/a", NOON_S)], Some(time(NOON_S + 10)), false).await.unwrap();
    drop(file);
    let file = ground.open(2, NOON_S + 100);
    assert_eq!(holes(&file).await, [(NOON_S + 10, NOON_S + 100)]);
    file.write(vec![bucket(1, "s/a", NOON_S)], Some(time(NOON_S + 200)), true).await.unwrap();
    drop(file);
    let file = ground.open(3, NOON_S + 1_000);
    assert_eq!(holes(&file).await.len(), 1, "the second said that nothing ran on");
    drop(file);
    // It said nothing, and the clock is set back.
    let file = ground.open(4, NOON_S + 50);
    assert!(holes(&file).await.contains(&(NOON_S + 50, NOON_S + 50)));
}

#[tokio::test]
async fn each_resolution_is_kept_for_its_time_and_the_file_stays_small() {
    let ground = Ground::new();
    let file = ground.open(1, NOON_S);
    let (mut number, mut largest) = (1, 0);
    write(&file, vec![bucket(1, "gone/a", NOON_S)]).await;
    // Three days, a round of sixty starts at a time.
    let rounds = 3 * 24 * 6;
    for round in 0..rounds {
        let begin = NOON_S + round * 600;
        let mut entries = Vec::new();
        for start_s in (begin..begin + 600).step_by(10) {
            for of in ["s", "s/a", "s/b"] {
                number += 1;
                entries.push(bucket(number, of, start_s));
            }
        }
        write(&file, entries).await;
        while file.trim(time(begin + 600)).await.unwrap() {}
        if round > rounds / 2 {
            largest = largest.max(file_bytes(&ground.path));
        }
    }
    let now_s = NOON_S + rounds * 600;
    for (resolution, kept) in [(Resolution::TenSeconds, 360), (Resolution::Minute, 360), (Resolution::TenMinutes, 144)]
    {
        let span_s = resolution.span_s();
        let from_s = now_s - 2 * resolution.kept().as_secs();
        let there = read(&file, "s/a", resolution, from_s / span_s * span_s, now_s).await.tallies;
        let youngest = there.iter().filter(|(start_s, _)| *start_s >= now_s - resolution.kept().as_secs());
        assert_eq!(youngest.count(), kept, "{resolution:?}");
        assert!(there.len() <= kept + 2, "{resolution:?}: {} are kept", there.len());
    }
    drop(file);
    assert_eq!(count(&ground.path, "SELECT count(*) FROM series"), 3, "a series goes with its last bucket");
    let settled = file_bytes(&ground.path);
    assert!(largest < 600 * 1024, "{largest} bytes for three series");
    assert!(settled <= largest, "{settled} > {largest}");
}

#[tokio::test]
async fn holes_are_bounded_by_number_and_by_age() {
    let ground = Ground::new();
    let file = ground.open(1, NOON_S);
    let hole = |n: u64| Entry::Hole { from: time(NOON_S + n), to: time(NOON_S + n) };
    write(&file, (1..=2_000).map(|number| Numbered { number, entry: hole(number) }).collect()).await;
    let left = async || read(&file, "s", Resolution::TenMinutes, NOON_S, NOON_S + 3_000).await.holes;
    while file.trim(time(NOON_S + 2_000)).await.unwrap() {}
    let holes = left().await;
    assert!((1_440..=1_441).contains(&holes.len()), "{} are kept", holes.len());
    assert!(holes.iter().all(|(from, _)| *from > (NOON_S + 500) * 1000), "the oldest go");
    while file.trim(time(NOON_S + 3 * 24 * 3_600)).await.unwrap() {}
    assert_eq!(left().await, []);
}

#[tokio::test]
async fn what_a_wrong_clock_wrote_far_ahead_goes() {
    let ground = Ground::new();
    let file = ground.open(1, NOON_S);
    let year_s = 365 * 24 * 3600;
    write(&file, vec![bucket(1, "s/a", NOON_S), bucket(2, "s/a", NOON_S + year_s)]).await;
    while file.trim(time(NOON_S + 10)).await.unwrap() {}
    assert_eq!(read(&file, "s/a", Resolution::TenSeconds, NOON_S, NOON_S).await.tallies.len(), 1);
    let ahead = read(&file, "s/a", Resolution::TenSeconds, NOON_S + year_s, NOON_S + year_s).await;
    assert_eq!(ahead.tallies, []);
}

#[tokio::test]
async fn a_file_that_would_grow_too_large_forgets_the_oldest_of_the_finest() {
    let ground = Ground::new();
    let opened = HistoryFile::open(&ground.origin(1, NOON_S, MIB)).unwrap();
    let file = opened.file;
    let mut number = 0;
    for minute in 0..120 {
        let mut entries = Vec::new();
        for start_s in (NOON_S + minute * 60..NOON_S + (minute + 1) * 60).step_by(10) {
            for agent in 0..30 {
                number += 1;
                entries.push(bucket(number, &format!("s/a{agent}"), start_s));
            }
        }
        write(&file, entries).await;
        assert!(file_bytes(&ground.path) <= MIB, "{} bytes", file_bytes(&ground.path));
    }
    let count = async |resolution: Resolution| {
        read(&file, "s/a7", resolution, NOON_S, NOON_S + 7_200 - resolution.span_s()).await.tallies.len()
    };
    assert_eq!((count(Resolution::TenMinutes).await, count(Resolution::Minute).await), (12, 120), "coarse ones stay");
    let fine = count(Resolution::TenSeconds).await;
    assert!(fine < 720 && fine > 10, "{fine} fine ones");
    let young = read(&file, "s/a7", Resolution::TenSeconds, NOON_S + 7_150, NOON_S + 7_190).await.tallies;
    assert_eq!(young.len(), 5, "the youngest stay");
    drop(file);
    // Less is allowed from now on.
    let file = HistoryFile::open(&ground.origin(2, NOON_S + 7_200, MIB / 2)).unwrap().file;
    write(&file, vec![bucket(1, "s/a7", NOON_S + 7_200)]).await;
    while file.trim(time(NOON_S + 7_210)).await.unwrap() {}
    drop(file);
    assert!(file_bytes(&ground.path) <= MIB / 2, "{} bytes", file_bytes(&ground.path));
}

#[tokio::test]
async fn a_damaged_file_is_set_aside_with_its_log() {
    let ground = Ground::new();
    let file = ground.open(1, NOON_S);
    write(&file, vec![bucket(1, "s/a", NOON_S)]).await;
    drop(file);
    let garbage = b"this is no database, and long enough to be seen as none........................................";
    fs::write(&ground.path, garbage).unwrap();
    let opened = HistoryFile::open(&ground.origin(2, NOON_S + 60, 64 * MIB)).unwrap();
    let aside = opened.set_aside.unwrap();
    assert_eq!(aside, ground.dir.path().join("history.sqlite.damaged"));
    assert_eq!(fs::read(&aside).unwrap(), garbage);
    write(&opened.file, vec![bucket(1, "s/a", NOON_S + 60)]).await;
    let there = read(&opened.file, "s/a", Resolution::TenMinutes, NOON_S, NOON_S).await;
    assert_eq!((there.tallies.len(), there.holes.len()), (1, 1), "what went before is not known");
}

#[test]
fn a_file_that_is_set_aside_takes_its_log_along() {
    let dir = short_dir();
    let path = dir.path().join("history.sqlite");
    for round in ["first", "second"] {
        for suffix in ["", "-wal", "-shm"] {
            fs::write(dir.path().join(format!("history.sqlite{suffix}")), format!("{round}{suffix}")).unwrap();
        }
        let aside = HistoryFile::set_aside(&path).unwrap();
        assert_eq!(fs::read_to_string(aside).unwrap(), round);
        assert_eq!(fs::read_to_string(dir.path().join("history.sqlite.damaged-wal")).unwrap(), format!("{round}-wal"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "one set, and nothing under the old names");
    }
}

#[test]
fn a_later_versions_file_is_left_alone() {
    let ground = Ground::new();
    drop(ground.open(1, NOON_S));
    rusqlite::Connection::open(&ground.path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = HistoryFile::open(&ground.origin(2, NOON_S, MIB)).err().unwrap();
    assert_eq!(error, StoreError::Newer { found: 99, known: 1 });
    assert!(ground.path.exists());
}

#[tokio::test]
async fn a_full_disk_is_said_and_outlived() {
    let Some(disk) = SmallDisk::mount(1024) else { return };
    let data = DataDir::open(&disk.path().join("data"), "test", Options::default()).unwrap();
    let (path, fence) = (data.history(), data.fence());
    let origin = Origin { path, epoch: Epoch(1), started_at: time(NOON_S), fence, bytes_max: 64 * MIB };
    let file = HistoryFile::open(&origin).unwrap().file;
    write(&file, vec![bucket(1, "s/a", NOON_S)]).await;
    disk.fill();
    let mut number = 1;
    let refused = loop {
        number += 1;
        assert!(number < 10_000, "the disk is never full");
        if let Err(error) = file.write(vec![bucket(number, "s/a", NOON_S)], None, false).await {
            break error;
        }
    };
    assert_eq!(refused, StoreError::Full);
    let upto = read(&file, "s/a", Resolution::TenSeconds, NOON_S, NOON_S).await.upto;
    assert_eq!(upto, number - 1, "reading goes on");
    disk.free();
    write(&file, vec![bucket(number, "s/a", NOON_S)]).await;
    let there = read(&file, "s/a", Resolution::TenSeconds, NOON_S, NOON_S).await;
    assert_eq!(there.tallies[0].1.restarts, Some(number));
}

#[tokio::test]
async fn an_older_daemon_writes_nothing_any_more() {
    let ground = Ground::new();
    let older = ground.open(1, NOON_S);
    let younger = ground.open(2, NOON_S);
    let refused = older.write(vec![bucket(1, "s/a", NOON_S)], None, false).await;
    assert_eq!(refused, Err(StoreError::Fenced));
    write(&younger, vec![bucket(1, "s/a", NOON_S)]).await;
    let there = read(&older, "s/a", Resolution::TenSeconds, NOON_S, NOON_S).await;
    assert_eq!((there.tallies.len(), there.upto), (1, 0), "the number is not its own");
}

/// A thousand agents for a day, as the file is at its end: what is older than an hour is written as coarsely as it is kept. Prints what the README says.
#[tokio::test]
async fn what_a_day_of_a_thousand_agents_takes() {
    if !std::env::var("HK_TEST_LONG").is_ok_and(|long| !long.is_empty()) {
        eprintln!("skipped: a measurement, HK_TEST_LONG=yes cargo test --release --lib -- --nocapture what_a_day");
        return;
    }
    let ground = Ground::new();
    let origin = ground.origin(1, NOON_S, 256 * MIB);
    let file = HistoryFile::open(&origin).unwrap().file;
    let names: Vec<Target> =
        (0..1_000).map(|n| target(&format!("review/coder-{n}"))).chain([target("review")]).collect();
    let (mut number, mut took) = (0, Vec::new());
    let hours = |from_s: u64, to_s: u64, step: usize| (NOON_S + from_s * 3_600..NOON_S + to_s * 3_600).step_by(step);
    for start_s in hours(0, 18, 600).chain(hours(18, 23, 60)).chain(hours(23, 24, 10)) {
        let entries: Vec<Numbered> = names
            .iter()
            .map(|of| {
                number += 1;
                let odd = (number * 2_654_435_761 % 1_000_003) as f64;
                let gauge = |unit: f64| Gauge { sum: odd * unit * 2.0, count: 2, max: odd * unit };
                let tokens = Tokens { input: Some(number % 9_999), output: Some(number % 999) };
                let tally = Tally {
                    cpu: gauge(1.1e-6),
                    memory: gauge(4_096.0),
                    latency_ms_max: Some(number % 50),
                    tokens,
                    restarts: Some(0),
                };
                Numbered { number, entry: Entry::Bucket(Closed { of: of.clone(), start_s, tally }) }
            })
            .collect();
        let began = std::time::Instant::now();
        file.write(entries, Some(time(start_s + 10)), false).await.unwrap();
        while file.trim(time(start_s + 10)).await.unwrap() {}
        took.push(began.elapsed());
    }
    let last = &mut took[408..];
    last.sort();
    let began = std::time::Instant::now();
    let points =
        read(&file, "review/coder-500", Resolution::TenSeconds, NOON_S + 23 * 3_600, NOON_S + 24 * 3_600).await;
    assert!(file_bytes(&ground.path) < 256 * MIB && !points.tallies.is_empty());
    println!(
        "file {:.1} MiB; a round of 1,001 buckets: median {:?}, p99 {:?}; {} points read in {:?}",
        file_bytes(&ground.path) as f64 / MIB as f64,
        last[last.len() / 2],
        last[last.len() * 99 / 100],
        points.tallies.len(),
        began.elapsed()
    );
    let log = ground.dir.path().join("history.sqlite-wal");
    println!("log {:.1} MiB", file_bytes(&log) as f64 / MIB as f64);
}
