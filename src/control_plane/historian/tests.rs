#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{fs, sync::Arc, time::Duration};

use proptest::prelude::*;
use tempfile::TempDir;

use super::{
    History, HistoryOptions,
    answer::{Span, Unwritten},
    memory::{WAITING_MAX, at},
};
use crate::{
    events::{Feed, RING_EVENTS_MAX},
    health,
    model::{AgentHealth, AgentState, Epoch, EventKind, HiveId, Measured, Seq, Source, Target},
    store::{
        DataDir, HistoryPage, HistoryQuery, Options, Resolution, StoreError,
        history::{Stored, Tally},
    },
};

/// A moment that begins a bucket of every resolution, in the past of every clock that runs these tests.
const NOON_S: u64 = 1_700_000_400;

struct Ground {
    dir: TempDir,
    data: DataDir,
    feed: Feed,
    health: health::Handle,
}

fn document(restarts: u64, cpu: f64, observed_s: u64) -> Arc<AgentHealth> {
    Arc::new(AgentHealth {
        state: AgentState::Running,
        incarnation: restarts + 1,
        restarts,
        cpu: Measured::Value { value: cpu, observed_at: at(observed_s), source: Source::Launcher },
        ..AgentHealth::unknown("s/a".parse().unwrap(), at(0))
    })
}

impl Ground {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("hk").tempdir_in("/tmp").unwrap();
        let data = DataDir::open(dir.path(), "test", Options::default()).unwrap();
        let feed = Feed::new(data.epoch(), Seq(1));
        let identity =
            health::Identity { hive: HiveId::mint(), name: "test".to_owned(), sample_interval: Duration::from_secs(5) };
        let options = health::Options { identity, feed: feed.clone(), on_stuck: Arc::new(|_, _| ()) };
        Self { dir, data, feed, health: health::Handle::new(options) }
    }

    fn open(&self, epoch: u64, now_s: u64) -> History {
        let options = HistoryOptions {
            path: self.data.history(),
            epoch: Epoch(epoch),
            fence: self.data.fence(),
            bytes_max: 64 << 20,
            feed: self.feed.clone(),
            health: self.health.clone(),
        };
        History::open(options, at(now_s))
    }

    fn publish(&self, at_s: u64, document: Arc<AgentHealth>) {
        self.feed.publish(at(at_s), EventKind::Samples { agents: vec![document] });
    }
}

fn take(history: &History, now_s: u64) {
    while history.take(at(now_s)) {}
}

fn query(of: &str, since_s: u64, until_s: u64, resolution: Option<Resolution>) -> HistoryQuery {
    let of = of.parse().map_or_else(|_| Target::Swarm(of.parse().unwrap()), Target::Agent);
    HistoryQuery { of, since: at(since_s), until: at(until_s), resolution }
}

/// The minute from `NOON_S` on, as it is seen a while later.
async fn minute(history: &History, of: &str) -> HistoryPage {
    history.read(query(of, NOON_S, NOON_S + 60, None), at(NOON_S + 600)).await.unwrap()
}

fn restarts(page: &HistoryPage) -> Vec<Option<u64>> {
    page.points.iter().map(|point| point.restarts).collect()
}

#[tokio::test]
async fn what_waits_is_shown_before_and_after_it_is_written_once() {
    let ground = Ground::new();
    let history = ground.open(1, NOON_S);
    ground.publish(NOON_S, document(0, 0.5, NOON_S));
    ground.publish(NOON_S + 11, document(1, 1.0, NOON_S + 11));
    ground.publish(NOON_S + 21, document(1, 2.0, NOON_S + 21));
    take(&history, NOON_S + 22);
    let mut pages = vec![minute(&history, "s/a").await];
    history.flush(at(NOON_S + 30)).await.unwrap();
    pages.push(minute(&history, "s/a").await);
    history.finish(at(NOON_S + 30), true).await.unwrap();
    pages.push(minute(&history, "s/a").await);
    drop(history);
    pages.push(minute(&ground.open(2, NOON_S + 30), "s/a").await);
    for page in &pages {
        assert_eq!(restarts(page), [Some(0), Some(1), Some(0), None, None, None]);
        let cpu: Vec<Option<f64>> = page.points.iter().map(|point| point.cpu.map(|cpu| cpu.max)).collect();
        assert_eq!(cpu, [Some(0.5), Some(1.0), Some(2.0), None, None, None]);
        assert_eq!(page, &pages[0]);
    }
}

#[tokio::test]
async fn a_gap_in_the_feed_is_a_hole_and_is_not_filled() {
    let ground = Ground::new();
    let history = ground.open(1, NOON_S);
    ground.publish(NOON_S, document(0, 0.5, NOON_S));
    take(&history, NOON_S + 1);
    // Restarts that nobody saw, and then one that somebody did.
    for n in 0..=RING_EVENTS_MAX as u64 {
        ground.publish(NOON_S + 12, document(1 + n % 2, 0.5, NOON_S + 12));
    }
    take(&history, NOON_S + 25);
    ground.publish(NOON_S + 41, document(7, 0.5, NOON_S + 41));
    ground.publish(NOON_S + 42, document(8, 0.5, NOON_S + 42));
    take(&history, NOON_S + 43);
    for round in ["waiting", "written"] {
        let page = minute(&history, "s/a").await;
        assert_eq!(restarts(&page), [None, None, None, None, Some(1), None], "{round}");
        assert!(page.points[0].cpu.is_some(), "what was measured stays");
        assert_eq!(restarts(&minute(&history, "s").await), restarts(&page));
        history.finish(at(NOON_S + 43), false).await.unwrap();
    }
}

#[tokio::test]
async fn what_can_not_be_written_waits_and_what_is_too_much_is_a_hole() {
    let ground = Ground::new();
    // A directory is no database, and no rename brings it out of the way of this test.
    fs::create_dir(ground.data.history()).unwrap();
    let history = ground.open(1, NOON_S);
    let page = history.read(query("s/a", NOON_S, NOON_S + 60, None), at(NOON_S + 60)).await;
    assert!(matches!(page, Err(StoreError::Other(_))), "{page:?}");
    assert!(history.flush(at(NOON_S + 30)).await.is_err());
    // Two series, a bucket of each every ten seconds.
    let rounds = WAITING_MAX as u64 / 2 + 100;
    for n in 0..rounds {
        ground.publish(NOON_S + n * 10, document(n, 0.5, NOON_S + n * 10));
        take(&history, NOON_S + n * 10);
    }
    fs::remove_dir(ground.data.history()).unwrap();
    history.finish(at(NOON_S + 24 * 3_600), true).await.unwrap();
    let now_s = NOON_S + rounds * 10;
    let page = history.read(query("s/a", now_s - 100, now_s, None), at(now_s)).await.unwrap();
    assert_eq!(restarts(&page), [Some(1); 10], "the youngest are there");
    // The first hundred rounds were given up: one point and two thirds of the next.
    let query = query("s/a", NOON_S, NOON_S + 1_800, Some(Resolution::TenMinutes));
    let page = history.read(query, at(NOON_S + 24 * 3_600)).await.unwrap();
    assert_eq!(restarts(&page), [None, None, Some(60)], "no part of what was given up is told as a whole");
    assert_eq!(page.points.iter().map(|point| point.cpu.is_some()).collect::<Vec<_>>(), [false, true, true]);
}

#[tokio::test]
async fn a_database_that_breaks_under_us_is_set_aside() {
    let ground = Ground::new();
    let history = ground.open(1, NOON_S);
    ground.publish(NOON_S, document(0, 0.5, NOON_S));
    take(&history, NOON_S + 11);
    history.flush(at(NOON_S + 30)).await.unwrap();
    // Through another connection: the table is not what it was.
    let other = rusqlite::Connection::open(ground.data.history()).unwrap();
    other.execute_batch("UPDATE meta SET value = 1; DROP TABLE meta; CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT); INSERT INTO meta VALUES ('epoch', 'x')").unwrap();
    drop(other);
    ground.publish(NOON_S + 12, document(1, 0.5, NOON_S + 12));
    take(&history, NOON_S + 21);
    assert!(matches!(history.flush(at(NOON_S + 30)).await, Err(StoreError::Corrupt(_))));
    history.flush(at(NOON_S + 30)).await.unwrap();
    assert!(ground.dir.path().join("history.sqlite.damaged").exists());
    let page = minute(&history, "s/a").await;
    assert!(page.points[1].cpu.is_some(), "what waited is written into the new one");
    assert_eq!(page.points[1].restarts, None, "the damaged one held a part of that time");
}

#[tokio::test]
async fn what_was_given_up_hides_the_counts_beside_it() {
    let ground = Ground::new();
    let history = ground.open(1, NOON_S);
    let see = |rounds: std::ops::Range<u64>| {
        for n in rounds {
            ground.publish(NOON_S + n * 10, document(n, 0.5, NOON_S + n * 10));
            take(&history, NOON_S + n * 10);
        }
    };
    // Half of the first ten minutes is written, and what follows only when it is too much by a hundred rounds of two.
    see(0..30);
    history.flush(at(NOON_S + 300)).await.unwrap();
    see(30..WAITING_MAX as u64 / 2 + 130);
    let day_s = 24 * 3_600;
    let four = || query("s/a", NOON_S, NOON_S + 2_400, Some(Resolution::TenMinutes));
    for round in ["waiting", "written"] {
        let page = history.read(four(), at(NOON_S + day_s)).await.unwrap();
        assert_eq!(restarts(&page), [None, None, None, Some(60)], "{round}");
        history.finish(at(NOON_S + day_s), true).await.unwrap();
    }
    drop(history);
    let page = ground.open(2, NOON_S + 2 * day_s).read(four(), at(NOON_S + day_s)).await.unwrap();
    assert_eq!(restarts(&page), [None, None, None, Some(60)], "all that waited is there");
    let fine = format!("SELECT count(*) FROM buckets WHERE span_s = 10 AND start_s < {}", NOON_S + day_s - 7_200);
    let database = rusqlite::Connection::open(ground.data.history()).unwrap();
    let too_old: i64 = database.query_row(&fine, [], |row| row.get(0)).unwrap();
    assert_eq!(too_old, 0, "what is kept no longer goes when something is written");
}

#[tokio::test]
async fn an_orderly_end_leaves_nothing_out_and_another_only_what_was_not_seen() {
    let ground = Ground::new();
    let history = ground.open(1, NOON_S);
    ground.publish(NOON_S + 2, document(0, 0.5, NOON_S + 2));
    ground.publish(NOON_S + 3, document(1, 1.0, NOON_S + 3));
    take(&history, NOON_S + 4);
    // In the middle of a bucket.
    history.finish(at(NOON_S + 5), true).await.unwrap();
    drop(history);
    let history = ground.open(2, NOON_S + 15);
    assert_eq!(restarts(&minute(&history, "s/a").await)[0], Some(1), "nothing is missing");
    ground.publish(NOON_S + 16, document(1, 1.0, NOON_S + 16));
    ground.publish(NOON_S + 17, document(3, 1.0, NOON_S + 17));
    take(&history, NOON_S + 18);
    // Nothing more happens, and time leaves the bucket.
    take(&history, NOON_S + 31);
    history.flush(at(NOON_S + 31)).await.unwrap();
    // This one is killed.
    drop(history);
    let page = minute(&ground.open(3, NOON_S + 45), "s/a").await;
    assert_eq!(restarts(&page)[..2], [Some(1), Some(2)], "up to then all was seen");
    assert!(page.points[1].cpu.is_some());
}

#[tokio::test]
async fn an_agent_that_comes_back_after_its_removal_is_another() {
    let ground = Ground::new();
    let history = ground.open(1, NOON_S);
    ground.publish(NOON_S, document(0, 0.5, NOON_S));
    ground.feed.publish(at(NOON_S + 1), EventKind::AgentRemoved { agent: "s/a".parse().unwrap() });
    ground.publish(NOON_S + 11, document(5, 0.5, NOON_S + 11));
    take(&history, NOON_S + 12);
    assert_eq!(restarts(&minute(&history, "s/a").await)[..2], [Some(0), Some(0)]);
}

#[test]
fn a_question_is_put_into_whole_points_of_what_is_kept() {
    let now_s = NOON_S + 7;
    let span = |since_s: u64, until_s: u64, resolution| Span::of(&query("s", since_s, until_s, resolution), at(now_s));
    let (fine, minute, coarse) = (Resolution::TenSeconds, Resolution::Minute, Resolution::TenMinutes);
    let is = |resolution, from_s, to_s| Some(Span { resolution, from_s, to_s });
    assert_eq!(span(NOON_S - 60, now_s, None), is(fine, NOON_S - 60, NOON_S));
    assert_eq!(span(now_s - 3_600, now_s, None), is(fine, NOON_S - 3_600, NOON_S));
    assert_eq!(
        span(now_s - 3_609, now_s, None),
        is(fine, NOON_S - 3_600, NOON_S),
        "who asked for an hour a moment ago"
    );
    assert_eq!(span(now_s - 3_610, now_s, None), is(minute, NOON_S - 3_660, NOON_S));
    assert_eq!(span(now_s - 6 * 3_600 - 60, now_s, None), is(coarse, NOON_S - 6 * 3_600 - 600, NOON_S));
    assert_eq!(span(0, now_s, None), is(coarse, NOON_S - 24 * 3_600, NOON_S), "no further than is kept");
    assert_eq!(span(0, u64::MAX / 4, Some(fine)), is(fine, NOON_S - 3_600, NOON_S), "and not beyond now");
    assert_eq!(span(NOON_S - 60, NOON_S, None), is(fine, NOON_S - 60, NOON_S - 10), "the end is not in it");
    assert_eq!(span(NOON_S - 55, NOON_S - 54, None), is(fine, NOON_S - 60, NOON_S - 60));
    assert_eq!(span(NOON_S, NOON_S, None), None);
    assert_eq!(span(0, NOON_S - 3_700, Some(fine)), None, "kept no longer");
    assert_eq!(span(NOON_S + 60, NOON_S + 120, None), None);
}

proptest! {
    /// Whatever lies where, each bucket is in one point, and a hole hides the counts of every point that it touches.
    #[test]
    fn each_bucket_is_in_one_point(
        stored in prop::collection::btree_map(0..30u64, 1..9u64, 0..20),
        waiting in prop::collection::vec((1..9u64, 0..200u64, 1..9u64), 0..20),
        upto in 0..9u64,
        holes in prop::collection::vec((0..2_000u64, 0..500u64), 0..3),
    ) {
        let count = |restarts| Tally { restarts: Some(restarts), ..Tally::default() };
        let span = Span { resolution: Resolution::Minute, from_s: NOON_S, to_s: NOON_S + 29 * 60 };
        let ms = |n: u64| NOON_S * 1000 + n * 1000;
        let stored_rows = Stored {
            upto,
            tallies: stored.iter().map(|(n, restarts)| (NOON_S + n * 60, count(*restarts))).collect(),
            holes: holes.iter().map(|(from, length)| (ms(*from), ms(from + length))).collect(),
        };
        let closed = waiting.iter().map(|(number, n, restarts)| (*number, NOON_S + n * 10, count(*restarts))).collect();
        let points = span.points(stored_rows, &Unwritten { closed, ..Unwritten::default() });
        prop_assert_eq!(points.len(), 30);
        for (n, point) in (0..30u64).zip(points) {
            prop_assert_eq!(point.at, at(NOON_S + n * 60));
            let late = waiting.iter().filter(|(number, at, _)| *number > upto && at / 6 == n).map(|(.., restarts)| *restarts);
            let all: Vec<u64> = stored.get(&n).copied().into_iter().chain(late).collect();
            let hidden = holes.iter().any(|(from, length)| *from < (n + 1) * 60 && from + length >= n * 60);
            let expected = (!all.is_empty() && !hidden).then(|| all.iter().sum::<u64>());
            prop_assert_eq!(point.restarts, expected);
        }
    }
}
