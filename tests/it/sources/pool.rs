//! The pool: bounded, reconnecting, owned; ids of each connection are its own.

use std::{
    collections::HashMap,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use hivekeeper::{
    data_plane::dialer::DialerHandle,
    model::{BreakerState, Measured, Source, SourceWitness},
};
use hivekeeper_actors::{Child, ChildSpec, EventSink, Root, SupervisionEvent, SupervisorFlags};
use serde_json::json;

use super::fake::{Dialled, Heard, Server, agents, in_text, names, spec, wait_for_the_end};
use crate::hive::{PATIENCE, until};

/// Every connection is cut by the clock, used or not: at rest, and with a question on its way.
#[test]
fn a_cut_by_the_clock_is_normal() {
    let server = Server::start(|conn| {
        let Some(request) = conn.greet_legacy() else { return };
        conn.result(&request, in_text(&agents(&["a"])));
        if conn.n.is_multiple_of(2) {
            // With the next question on its way.
            conn.next();
        }
    });
    let dialled = Dialled::start(spec(server.at, &["agent_list"]));
    let report = dialled.until("was cut ten times", |report| report.cut >= 10);
    assert_eq!((report.failures, report.breaker), (0, BreakerState::Closed), "{report:#?}");
    assert!(dialled.told().iter().all(|report| report.failures == 0 && report.breaker == BreakerState::Closed));
    assert_eq!(names(&report), ["a"]);
}

#[test]
fn calls_are_spread_over_no_more_connections_than_allowed() {
    let together = Arc::new(Barrier::new(3));
    let server = {
        let together = Arc::clone(&together);
        Server::start(move |conn| {
            conn.serve_legacy(|_| {
                // Passed only when three calls are under way at once.
                together.wait();
                agents(&["a"])
            });
        })
    };
    let mut spec = spec(server.at, &["a", "b", "c", "d", "e", "f"]);
    (spec.connections, spec.timeout) = (3, Duration::from_secs(10));
    spec.interval = Duration::from_secs(3600);
    let dialled = Dialled::start(spec);
    let report = dialled.until("was polled", |report| report.last_success.is_some());
    assert_eq!((server.accepted(), server.open_most(), report.failures), (3, 3, 0));
    assert!(report.tools.iter().all(|tool| tool.answered.is_some()), "{report:#?}");
}

#[test]
fn ids_are_unique_on_each_connection_and_shared_with_none() {
    let seen: Arc<Mutex<HashMap<usize, Vec<u64>>>> = Arc::default();
    let server = {
        let seen = Arc::clone(&seen);
        Server::start(move |conn| {
            let n = conn.n;
            while let Some(request) = conn.next() {
                let Some(id) = request["id"].as_u64() else { continue };
                seen.lock().unwrap().entry(n).or_default().push(id);
                match request["method"].as_str().unwrap() {
                    "initialize" => _ = conn.result(&request, json!({})),
                    "tools/call" => {
                        // What another connection may be waiting for: it must not be taken here.
                        for other in (id + 1)..(id + 4) {
                            conn.result(&json!({ "id": other }), in_text(&agents(&["wrong"])));
                        }
                        conn.result(&request, in_text(&agents(&["right"])));
                    }
                    _ => _ = conn.error(&request, -32601, "Method not found"),
                }
            }
        })
    };
    let mut spec = spec(server.at, &["a", "b", "c"]);
    spec.connections = 3;
    let dialled = Dialled::start(spec);
    let report = dialled.polls(10);
    assert_eq!((names(&report), report.failures), (vec!["right"], 0));
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 3);
    for ids in seen.values() {
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
        assert_eq!(ids[0], 1, "each connection counts by itself");
    }
}

#[test]
fn the_actors_end_ends_its_connections() {
    let server = Server::start(|conn| conn.serve_legacy(|_| agents(&["a"])));
    let mut spec = spec(server.at, &["a", "b"]);
    spec.connections = 2;
    let dialled = Dialled::start(spec);
    dialled.polls(2);
    assert_eq!(server.open(), 2);
    drop(dialled);
    until("both connections end", || (server.open() == 0).then_some(()));
}

/// What is known of a source outlives the actor that polls it.
#[test]
fn a_panic_loses_no_count_and_the_next_incarnation_polls_on() {
    struct Quiet;
    impl EventSink for Quiet {
        fn event(&self, _: SupervisionEvent) {}
    }
    let server = Server::start(|conn| conn.serve_legacy(|_| agents(&["a"])));
    let heard = Arc::new(Heard::default());
    let witness = Arc::clone(&heard) as Arc<dyn SourceWitness>;
    let spec = spec(server.at, &["agent_list"]);
    actix::System::new().block_on(async {
        let polls = async |least: u64| {
            let deadline = Instant::now() + PATIENCE;
            loop {
                let latest = heard.latest();
                if latest.polls >= least && !latest.agents.is_empty() {
                    return latest;
                }
                assert!(Instant::now() < deadline, "{latest:#?}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let handle = DialerHandle::new(spec, witness);
        let (child, dialer) = Child::actor(ChildSpec::new("fake"), move |_| Ok(handle.dialer()));
        let root = Root::start(SupervisorFlags::default(), vec![child], Arc::new(Quiet)).unwrap();
        let before = polls(3).await;
        dialer.run(|_, _| panic!("a bug in the dialer")).unwrap();
        let after = polls(before.polls + 3).await;
        assert_eq!((dialer.incarnation(), after.failures, names(&after)), (2, 0, vec!["a"]));
        root.shutdown().await.unwrap();
    });
    until("both incarnations' connections end", || (server.open() == 0).then_some(()));
    assert_eq!(server.accepted(), 2, "one for each incarnation");
}

#[test]
fn the_breaker_opens_and_closes_and_is_seen_half_open() {
    let ill = Arc::new(AtomicBool::new(true));
    let server = {
        let ill = Arc::clone(&ill);
        Server::start(move |conn| {
            if !ill.load(Ordering::SeqCst) {
                conn.serve_legacy(|_| agents(&["a"]));
            }
        })
    };
    let dialled = Dialled::start(spec(server.at, &["agent_list"]));
    let open = dialled.until("opened", |report| report.breaker == BreakerState::Open);
    assert!(open.failures >= 3 && open.retry_at.is_some() && open.last_success.is_none(), "{open:#?}");
    let (_, why) = open.last_error.as_ref().unwrap();
    assert!(why.contains("ended the connection"), "{why}");
    dialled.until("was tried again and failed", |report| report.failures >= 6);
    ill.store(false, Ordering::SeqCst);
    let closed = dialled.until("closed", |report| report.breaker == BreakerState::Closed);
    assert_eq!((names(&closed), closed.failures_in_a_row, closed.retry_at), (vec!["a"], 0, None));
    let states: Vec<BreakerState> = dialled.told().iter().map(|report| report.breaker).collect();
    assert!(states.contains(&BreakerState::HalfOpen), "{states:?}");
    for pair in states.windows(2) {
        use BreakerState::{Closed, HalfOpen, Open};
        let allowed =
            pair[0] == pair[1] || matches!(pair, [Closed, Open] | [Open, HalfOpen] | [HalfOpen, Open | Closed]);
        assert!(allowed, "{pair:?} of {states:?}");
    }
}

#[test]
fn a_peer_that_accepts_and_says_nothing_costs_its_deadlines_and_opens_the_breaker() {
    let server = Server::start(wait_for_the_end);
    let dialled = Dialled::start(spec(server.at, &["agent_list"]));
    let begun = Instant::now();
    let open = dialled.until("opened", |report| report.breaker == BreakerState::Open);
    let (_, why) = open.last_error.unwrap();
    assert!(why.contains("no answer within 300ms"), "{why}");
    // Three polls, each with the wait for an answer to `server/discover` and to `initialize`.
    assert!(begun.elapsed() >= Duration::from_millis(6 * 300));
}

#[test]
fn an_address_that_nobody_has_is_a_failure_with_words() {
    for (address, words) in [("127.0.0.1:1", "can't connect: "), ("no-such-host.invalid:1", "can't connect: ")] {
        let mut spec = spec("127.0.0.1:1".parse().unwrap(), &["agent_list"]);
        spec.address = Arc::from(address);
        spec.timeout = Duration::from_secs(20);
        let report = Dialled::start(spec).until("failed", |report| report.failures > 0);
        let (_, why) = report.last_error.unwrap();
        assert!(why.starts_with(words) && why.len() > words.len(), "{why}");
    }
}

#[test]
fn names_are_looked_up() {
    let server = Server::start(|conn| conn.serve_legacy(|_| agents(&["a"])));
    let mut spec = spec(server.at, &["agent_list"]);
    spec.address = Arc::from(format!("localhost:{}", server.at.port()));
    spec.timeout = Duration::from_secs(20);
    Dialled::start(spec).until("listed", |report| names(report) == ["a"]);
}

#[test]
fn what_was_measured_and_what_was_claimed_say_by_whom() {
    let server = Server::start(|conn| conn.serve_legacy(|_| agents(&["a"])));
    let dialled = Dialled::start(spec(server.at, &["agent_list"]));
    let report = dialled.until("listed", |report| names(report) == ["a"]);
    assert!(matches!(report.tools[0].latency_ms, Measured::Value { source: Source::Daemon, .. }), "{report:#?}");
    assert!(matches!(report.tools[0].answer, Measured::Value { source: Source::Mcp, .. }));
    let Measured::Value { value, source: Source::Mcp, .. } = &report.agents[0].state else { panic!("{report:#?}") };
    assert_eq!(&**value, "idle");
    assert!(matches!(report.agents[0].cpu, Measured::Absent(_)));
}
