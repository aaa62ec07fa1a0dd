//! The whole of it on the real daemon, with the product's own numbers: takes a minute, so it runs with `tests/run --long`.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{Watcher, crowd, until};
use crate::{
    harness::crowd::{self as sockets, End},
    hive::{self, Hive},
};

const READERS: usize = 900;
const STALLED: usize = 100;
/// The observer is a viewer, too.
const OBSERVER: u64 = 1;
const DROPPED_WITHIN: Duration = Duration::from_secs(15);
/// What a viewer that is behind may hold beside one that is not, bytes: a batch of frames in each of two buffers on its way. On a busy machine
/// those that read are behind, too.
const BEHIND_BYTES_MAX: u64 = 64 * 1024;
/// What the daemon may keep when all have left, bytes: a ring of thousands of long events, which a minute of them fills, and a little.
const KEPT_BYTES_MAX: u64 = 20 * 1024 * 1024;

/// An agent that we speak for, whose every heartbeat is a change: by the next it has been called stuck.
struct Agent {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Agent {
    fn start(hive: &Hive) -> Self {
        let token = hive::until("the agent tells its token", || {
            let text = fs::read_to_string(hive.file("token")).ok()?;
            text.strip_suffix('\n').map(str::to_owned)
        });
        let mut stream = TcpStream::connect(&hive.data_plane).unwrap();
        let open = json!({ "jsonrpc": "2.0", "id": 1, "method": "hive/open", "params":
            { "token": token, "agent": "s/a", "incarnation": 1, "protocol": 1, "capabilities": {} } });
        writeln!(stream, "{open}").unwrap();
        let mut answer = String::new();
        BufReader::new(stream.try_clone().unwrap()).read_line(&mut answer).unwrap();
        assert!(answer.contains("\"session\""), "{answer}");
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let mut n = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    n += 1;
                    // Long progress makes long frames: a viewer's buffers are full in seconds.
                    let progress = format!("{n} {}", "x".repeat(3 * 1024));
                    let beat =
                        json!({ "jsonrpc": "2.0", "method": "hive/heartbeat", "params": { "progress": progress } });
                    writeln!(stream, "{beat}").unwrap();
                    std::thread::sleep(Duration::from_millis(200));
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

/// The daemon's own count of its viewers, asked for by one of them.
#[derive(Default)]
struct Count {
    viewers: AtomicU64,
    slow: AtomicU64,
    silent: AtomicU64,
    stop: AtomicBool,
}

impl Count {
    fn dropped(&self) -> (u64, u64) {
        (self.slow.load(Ordering::Relaxed), self.silent.load(Ordering::Relaxed))
    }
}

fn observe(hive: &Hive, count: &Arc<Count>) -> JoinHandle<()> {
    let mut viewer = hive.viewer();
    let count = Arc::clone(count);
    std::thread::spawn(move || {
        viewer.send(json!({ "type": "unsubscribe", "subscriptions": ["status", "sessions"] }));
        while !count.stop.load(Ordering::Relaxed) {
            viewer.send(json!({ "type": "request_performance" }));
            let frame = viewer.next_that("counts", |frame| frame["type"] == "performance_update");
            let number = |name: &str| frame["stream"][name].as_u64().unwrap();
            count.slow.store(number("dropped_slow"), Ordering::Relaxed);
            count.silent.store(number("dropped_silent"), Ordering::Relaxed);
            count.viewers.store(number("viewers"), Ordering::Relaxed);
        }
    })
}

/// Resident memory, bytes.
fn resident(hive: &Hive) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", hive.pid)).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

/// Numbers of the events between two that viewers are told of.
fn told(hive: &Hive, after: u64, last: u64) -> Vec<u64> {
    let mut seqs = Vec::new();
    let mut next = after;
    loop {
        let page = hive.get(&format!("/api/v1/events?after={next}&limit=1000")).body;
        assert_eq!(page["gap"], Value::Null, "the ring holds a minute of it");
        let events = page["events"].as_array().unwrap();
        for event in events {
            let kind = event["kind"].as_str().unwrap();
            let seq = event["seq"].as_u64().unwrap();
            if ["agent_changed", "swarm_changed", "hive_changed", "samples"].contains(&kind) && seq <= last {
                seqs.push(seq);
            }
        }
        next = page["next_after"].as_u64().unwrap();
        if events.is_empty() || next >= last {
            return seqs;
        }
    }
}

/// A thousand come, a hundred of them stop reading; returns resident memory with all greeted and at its highest.
async fn wave(hive: &Hive, count: &Count, empty: u64) -> (u64, u64) {
    let address = hive.http.parse().unwrap();
    let mut readers = Vec::new();
    for _ in 0..READERS {
        readers.push(Watcher::start(sockets::open(address, "/ws/hybrid-health", None).await.unwrap()));
    }
    let all = |n: usize| move || count.viewers.load(Ordering::Relaxed) == n as u64 + OBSERVER;
    until("every reader is in", hive::PATIENCE, all(READERS)).await;
    let greeted = resident(hive);
    let before = count.dropped();
    let (mut full, mut roomy) = (Vec::new(), Vec::new());
    for _ in 0..STALLED / 2 {
        full.push(sockets::open(address, "/ws/hybrid-health", Some(8 * 1024)).await.unwrap());
        roomy.push(sockets::open(address, "/ws/hybrid-health", Some(6 * 1024 * 1024)).await.unwrap());
    }
    let begun = Instant::now();
    let first = readers.iter().map(|reader| reader.seen.borrow().seq).max().unwrap();
    let mut highest = greeted;
    let dropped = || {
        let now = count.dropped();
        now.0 + now.1 - before.0 - before.1
    };
    until("the stalled ones are dropped", DROPPED_WITHIN, || {
        highest = highest.max(resident(hive));
        dropped() == STALLED as u64
    })
    .await;
    let took = begun.elapsed();
    let last = readers.iter().map(|reader| reader.seen.borrow().seq).max().unwrap();
    until("every reader has it all", hive::PATIENCE, || readers.iter().all(|one| one.seen.borrow().seq >= last)).await;
    let expected = told(hive, first, last);
    for reader in &readers {
        let seen = reader.seen.borrow();
        assert_eq!(seen.broken, None);
        let seqs: Vec<_> = seen.seqs.iter().copied().filter(|seq| (first + 1..=last).contains(seq)).collect();
        assert_eq!(seqs, expected);
    }
    for one in full {
        assert_eq!(one.read(|_| {}).await, End::Reset);
    }
    let mut said = 0;
    for one in roomy {
        // How much its kernel takes depends on the machine's limits.
        let end = one.read(|_| {}).await;
        assert!(matches!(end, End::Closed(1013) | End::Reset), "{end:?}");
        said += usize::from(end == End::Closed(1013));
    }
    println!(
        "{STALLED} of {} dropped in {took:?}, {said} of them told 1013; {} changes to each of the others; resident {} KiB with all, {} KiB at most",
        READERS + STALLED,
        expected.len(),
        greeted / 1024,
        highest / 1024
    );
    for reader in &readers {
        reader.task.abort();
    }
    drop(readers);
    until("all have left", hive::PATIENCE, all(0)).await;
    until("memory comes back", hive::PATIENCE, || resident(hive) <= empty + KEPT_BYTES_MAX).await;
    (greeted, highest)
}

#[test]
fn a_hundred_of_a_thousand_stop_reading() {
    if !std::env::var("HK_TEST_LONG").is_ok_and(|long| !long.is_empty()) {
        return;
    }
    let mut hive = Hive::prepare("");
    let command = format!("echo $HIVEKEEPER_TOKEN > {}; exec sleep 1000", hive.file("token").display());
    hive.configure(&format!(
        "[[swarm]]\nname = \"s\"\n[[swarm.agent]]\nname = \"a\"\ncommand = [\"sh\", \"-c\", {command:?}]\nprogress_timeout = \"100ms\"\n"
    ));
    hive.boot();
    let empty = resident(&hive);
    let _agent = Agent::start(&hive);
    let count = Arc::new(Count::default());
    let observer = observe(&hive, &count);
    let waves = crowd(async {
        let first = wave(&hive, &count, empty).await;
        let second = wave(&hive, &count, empty).await;
        [first, second]
    });
    count.stop.store(true, Ordering::Relaxed);
    observer.join().unwrap();
    let after = resident(&hive);
    println!("resident: {} KiB without viewers before, {} KiB after", empty / 1024, after / 1024);
    for (greeted, highest) in waves {
        assert!(highest - greeted <= (READERS + STALLED) as u64 * BEHIND_BYTES_MAX, "{greeted} to {highest}");
    }
}
