//! The actor around the fold, on a real actix system.

use std::sync::atomic::{AtomicU64, Ordering};

use actix::Actor;
use parking_lot::Mutex;

use super::*;
use crate::{
    events::Feed,
    health::{Handle, Options, simulated},
    model::{AgentState, Epoch, Event, EventKind as Told, Level, Seq, SwarmName},
};

const PATIENCE: Duration = Duration::from_secs(20);

fn handle(on_stuck: super::super::OnStuck) -> (Handle, Feed) {
    let feed = Feed::new(Epoch(1), Seq(1));
    (Handle::new(Options { identity: identity(), feed: feed.clone(), on_stuck }), feed)
}

fn declared(agents: Vec<AgentSpec>) -> Report {
    Report::Declared { spec: swarm_spec("review", agents), desired: Desired::Running, seeds: Vec::new() }
}

fn starts(handle: &Handle, agent: &AgentId, incarnation: u64) {
    for kind in [EventKind::Starting { attempt: 0 }, EventKind::Started { took: Duration::ZERO }] {
        let event = SupervisionEvent {
            path: Arc::from("root"),
            id: agent.name.as_str().into(),
            incarnation,
            restarts: 0,
            restarts_in_window: 0,
            kind,
        };
        handle.report(Report::Supervision { agent: agent.clone(), event });
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn state(handle: &Handle, agent: &AgentId) -> Option<AgentState> {
    handle.agent(agent).map(|doc| doc.state)
}

#[actix::test]
async fn reports_become_documents_and_events() {
    let (handle, feed) = handle(Arc::new(|_, _| {}));
    let coder = id("review/coder");
    handle.report(declared(vec![agent_spec("coder")]));
    handle.report(Report::DataPlane { listening: true, sessions: 0, connections: 0, turned_away: 0 });
    handle.report(Report::Reconciled);
    assert_eq!(handle.agent(&coder), None, "nothing is folded without the actor");
    let _monitor = handle.monitor().start();
    until("pending", || state(&handle, &coder) == Some(AgentState::Pending)).await;
    starts(&handle, &coder, 1);
    until("healthy", || handle.hive().level == Level::Healthy).await;
    assert_eq!(state(&handle, &coder), Some(AgentState::Running));
    let name: SwarmName = "review".parse().unwrap();
    assert_eq!(handle.swarm(&name).unwrap().level, Level::Healthy);
    let states: Vec<_> = feed
        .read(Seq(0), 100)
        .unwrap()
        .iter()
        .filter_map(|event| match &event.kind {
            Told::AgentChanged { agent, .. } => Some(agent.state),
            _ => None,
        })
        .collect();
    assert_eq!(states, [AgentState::Pending, AgentState::Starting, AgentState::Running]);
    handle.report(Report::Removed(name.clone()));
    until("removed", || handle.agent(&coder).is_none() && handle.swarm(&name).is_none()).await;
    let last = feed.read(Seq(0), 100).unwrap();
    assert!(last.iter().any(|event| matches!(&event.kind, Told::AgentRemoved { agent } if *agent == coder)));
}

#[actix::test]
async fn who_sees_an_event_sees_its_document() {
    let (handle, feed) = handle(Arc::new(|_, _| {}));
    let seen = Arc::new(Mutex::new(Vec::<String>::new()));
    let reader = {
        let (handle, mut events, seen) = (handle.clone(), feed.subscribe(Seq(0)), Arc::clone(&seen));
        actix::spawn(async move {
            let mut changed = 0;
            while changed < 60 {
                let event: Arc<Event> = events.next().await.unwrap();
                if let Told::AgentChanged { agent, .. } = &event.kind {
                    changed += 1;
                    let shown = handle.agent(&agent.id).expect("shown before it is told");
                    let in_hive = handle.hive().agents.iter().any(|doc| doc.incarnation >= agent.incarnation);
                    if shown.incarnation < agent.incarnation || !in_hive {
                        seen.lock().push(format!("{} behind {}", shown.incarnation, agent.incarnation));
                    }
                }
            }
        })
    };
    let _monitor = handle.monitor().start();
    handle.report(declared(vec![agent_spec("coder")]));
    for incarnation in 1..=30 {
        starts(&handle, &id("review/coder"), incarnation);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::timeout(PATIENCE, reader).await.expect("all changes arrive").unwrap();
    assert_eq!(*seen.lock(), Vec::<String>::new());
}

/// Turns go on while the whole document is made; what they tell meanwhile is not in it, and is in the next.
#[actix::test]
async fn what_is_told_while_the_document_is_made_is_in_the_next_one() {
    let now = Now::read();
    let (handle, _feed) = handle(Arc::new(|_, _| {}));
    let turn = || simulated::turn(&handle, now, None);
    handle.report(declared(vec![agent_spec("coder")]));
    turn();
    assert!(Arc::ptr_eq(&handle.hive(), &handle.hive()), "made once for all who ask");
    let state = || handle.hive().agents[0].state;
    assert_eq!(state(), AgentState::Pending);
    handle.report(Report::DataPlane { listening: true, sessions: 0, connections: 0, turned_away: 0 });
    turn();
    let (told, parts) = handle.shared.parts();
    starts(&handle, &id("review/coder"), 1);
    turn();
    assert_eq!(handle.shared.make(told, parts).agents[0].state, AgentState::Pending);
    assert_eq!(state(), AgentState::Running);
}

#[actix::test]
async fn a_panic_loses_nothing_but_what_caused_it() {
    let calls = Arc::new(AtomicU64::new(0));
    let (handle, _feed) = {
        let calls = Arc::clone(&calls);
        handle(Arc::new(move |_, _| {
            calls.fetch_add(1, Ordering::SeqCst);
            panic!("a callback that panics, on purpose");
        }))
    };
    let spec =
        AgentSpec { progress_timeout: Duration::from_millis(50), on_stuck: OnStuck::Restart, ..agent_spec("coder") };
    handle.report(declared(vec![spec, agent_spec("tester")]));
    let (coder, tester) = (id("review/coder"), id("review/tester"));
    starts(&handle, &coder, 1);
    let first = handle.monitor().start();
    until("the callback panics", || calls.load(Ordering::SeqCst) == 1).await;
    until("the actor is gone", || !first.connected()).await;
    assert_eq!(state(&handle, &coder), Some(AgentState::Stuck), "shown before it panicked");
    // What is reported while nobody folds waits.
    starts(&handle, &tester, 1);
    let _second = handle.monitor().start();
    until("the next incarnation goes on", || state(&handle, &tester) == Some(AgentState::Running)).await;
    assert_eq!(state(&handle, &coder), Some(AgentState::Stuck));
    assert_eq!(calls.load(Ordering::SeqCst), 1, "told once");
}

#[actix::test]
async fn a_flood_from_many_threads_is_folded_and_counted() {
    let began = SystemTime::now();
    let (handle, _feed) = handle(Arc::new(|_, _| {}));
    let coder = id("review/coder");
    handle.report(declared(vec![agent_spec("coder")]));
    starts(&handle, &coder, 1);
    let _monitor = handle.monitor().start();
    let kind = TelemetryKind::Logged(1);
    let one = Telemetry { agent: coder.clone(), incarnation: 1, at: SystemTime::now(), kind };
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let (handle, one) = (handle.clone(), one.clone());
            std::thread::spawn(move || (0..5_000).for_each(|_| handle.report(Report::Telemetry(vec![one.clone()]))))
        })
        .collect();
    let mut counted = 0.0;
    let mut last = began;
    until("every message is counted in a rate", || {
        let hive = handle.hive();
        if let crate::model::Measured::Value { value, observed_at, .. } = hive.data_plane.events_per_second
            && last != observed_at
        {
            // On a busy machine a window is longer than the second that it is meant to be.
            counted += value * observed_at.duration_since(last).unwrap_or_default().as_secs_f64();
            last = observed_at;
        }
        counted > 10_000.0
    })
    .await;
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    assert_eq!(handle.agent(&coder).unwrap().dropped, 0);
}
