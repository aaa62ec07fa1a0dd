//! Many viewers of which some stop reading: the others get every change, and those are dropped by the server's own count.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{
    cell::RefCell,
    rc::Rc,
    time::{Duration, Instant, SystemTime},
};

use hivekeeper::{events::RING_EVENTS_MAX, model::EventKind, stream::StreamLimits};
use tokio::{
    runtime::Builder,
    task::{JoinHandle, LocalSet, spawn_local},
};

use crate::{
    harness::crowd::{self, End, Open},
    stream_support::{PATIENCE, Server, agent, changed, publish, quick},
};

mod daemon;

/// What one viewer has seen.
#[derive(Debug, Default)]
struct Seen {
    /// The numbers of its frames.
    seqs: Vec<u64>,
    seq: u64,
    /// Frames that are whole documents.
    documents: u64,
    /// A frame that did not follow on the one before.
    broken: Option<String>,
}

struct Watcher {
    seen: Rc<RefCell<Seen>>,
    task: JoinHandle<End>,
}

impl Watcher {
    fn start(open: Open) -> Self {
        let seen = Rc::new(RefCell::new(Seen::default()));
        let task = spawn_local({
            let seen = Rc::clone(&seen);
            open.read(move |message| seen.borrow_mut().take(message))
        });
        Self { seen, task }
    }

    async fn end(self) -> End {
        self.task.await.unwrap()
    }
}

impl Seen {
    fn take(&mut self, message: &[u8]) {
        let text = || String::from_utf8_lossy(&message[..message.len().min(300)]).into_owned();
        let Some((seq, prev)) = crowd::numbers(message) else {
            self.broken.get_or_insert_with(text);
            return;
        };
        if !self.seqs.is_empty() && prev != self.seq {
            self.broken.get_or_insert_with(text);
        }
        self.seqs.push(seq);
        self.documents += u64::from(message.starts_with(br#"{"type":"status_update""#));
        self.seq = seq;
    }
}

/// Runs viewers' tasks to the end of a test.
fn crowd<T>(test: impl Future<Output = T>) -> T {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test)
}

async fn until(what: &str, within: Duration, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn ten_of_a_hundred_stop_reading() {
    const READERS: usize = 90;
    let server = Server::start(quick());
    crowd(async {
        let open = |receive| crowd::open(server.address, "/ws/hybrid-health", receive);
        let mut readers = Vec::new();
        for _ in 0..READERS {
            readers.push(Watcher::start(open(None).await.unwrap()));
        }
        // Half of them have room for all that comes, so that a goodbye reaches them, too.
        let (mut full, mut roomy) = (Vec::new(), Vec::new());
        for _ in 0..5 {
            full.push(open(Some(8 * 1024)).await.unwrap());
            roomy.push(open(Some(4 * 1024 * 1024)).await.unwrap());
        }
        until("all are in", PATIENCE, || server.hub.stats().viewers == READERS + 10).await;
        let detail = "y".repeat(2 * 1024);
        let begun = Instant::now();
        let first = server.feed.head().0;
        let mut changes = 0;
        while server.hub.stats().viewers > READERS {
            assert!(begun.elapsed() < PATIENCE, "never dropped: {:?}", server.hub.stats());
            let agent = agent("review/coder", changes, &detail);
            server.feed.publish(SystemTime::now(), EventKind::AgentChanged { from: None, agent });
            changes += 1;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let last = publish(&server, changed("review/last", 1));
        until("every reader has the last change", PATIENCE, || readers.iter().all(|one| one.seen.borrow().seq == last))
            .await;
        for reader in &readers {
            let seen = reader.seen.borrow();
            assert_eq!(seen.broken, None);
            // The greeting is two frames, and no document stands for a change.
            assert_eq!((seen.seqs.len() as u64, seen.documents), (last - first + 2, 1));
        }
        let stats = server.hub.stats();
        assert_eq!((stats.viewers, stats.dropped_slow + stats.dropped_silent), (READERS, 10));
        for one in full {
            assert_eq!(one.read(|_| {}).await, End::Reset);
        }
        for one in roomy {
            assert_eq!(one.read(|_| {}).await, End::Closed(1013));
        }
        server.hub.shutdown().await;
        for reader in readers {
            assert_eq!(reader.end().await, End::Closed(1001));
        }
    });
}

#[test]
fn a_resumed_viewer_gets_what_it_missed_or_one_document() {
    let server = Server::start(StreamLimits::default());
    for missed in [1, 100, 100_000] {
        let seen = server.feed.head().0;
        for n in 0..missed {
            publish(&server, changed("review/coder", n));
        }
        let mut viewer = server.greeted();
        viewer.say(&format!(r#"{{"type":"subscribe","after":{seen}}}"#));
        assert_eq!(viewer.expect("subscription_ack")["seq"], seen);
        // `expect` asserts that each frame names the one before.
        if missed <= RING_EVENTS_MAX as u64 {
            for n in 0..missed {
                assert_eq!(viewer.expect("session_update")["agents"][0]["incarnation"], n);
            }
        } else {
            assert_eq!(viewer.expect("status_update")["seq"], server.feed.head().0);
        }
        let next = publish(&server, changed("review/next", 1));
        assert_eq!(viewer.expect("session_update")["seq"], next);
    }
}
