//! When a restart does not help: a supervisor gives up, and the one above it tries with a fresh team.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use actix::prelude::*;
use hivekeeper_actors::{
    Backoff, BoxError, Child, ChildSpec, EventKind, EventSink, ExitReason, Intensity, OnExceeded, Root, Strategy,
    SupervisionEvent, SupervisorFlags,
};

/// How long anything may take: far longer than it does.
const PATIENCE: Duration = Duration::from_secs(10);

/// An actor that can't work with what the team has agreed on.
struct Worker;

impl Actor for Worker {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Context<Self>) {
        panic!("this plan makes no sense");
    }
}

/// Counts how often the team gave up.
#[derive(Default)]
struct Print(AtomicU32);

impl EventSink for Print {
    fn event(&self, event: SupervisionEvent) {
        println!("{} #{}: {:?}", event.path, event.incarnation, event.kind);
        if matches!(event.kind, EventKind::Exited { reason: ExitReason::GaveUp { .. } }) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

async fn run() -> Result<(), BoxError> {
    // Restarts come at once here. By default the second one waits a second, the third two, and so on.
    let at_once = |name| {
        let backoff = Backoff { then: Duration::ZERO, ..Backoff::default() };
        ChildSpec { backoff, ..ChildSpec::new(name) }
    };
    let starts = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&starts);
    let (worker, _) = Child::actor(at_once("worker"), move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        Ok(Worker)
    });

    // The team allows two restarts, then it gives up. Its own supervisor gives the team one more chance, then lets it fail and lives on.
    let two = Intensity { max_restarts: 2, period: Duration::from_secs(5) };
    let team_flags = SupervisorFlags { intensity: Some(two), ..SupervisorFlags::new(Strategy::OneForAll) };
    let one = Intensity { max_restarts: 1, period: Duration::from_secs(5) };
    let spec = ChildSpec { intensity: Some(one), on_exceeded: OnExceeded::Fail, ..at_once("team") };
    let (team, _) = Child::supervisor(spec, team_flags, vec![worker]);
    let print = Arc::new(Print::default());
    let root = Root::start(SupervisorFlags::default(), vec![team], Arc::clone(&print) as _)?;
    root.started().await?;

    while print.0.load(Ordering::SeqCst) < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // Three starts in each of two lives of the team: what the levels allow multiplies.
    assert_eq!(starts.load(Ordering::SeqCst), 6);
    let tree = root.supervisor().snapshot().await?;
    println!("{} is {:?}", tree.children[0].path, tree.children[0].state);

    root.shutdown().await?;
    Ok(())
}

fn main() -> Result<(), BoxError> {
    System::new().block_on(async { tokio::time::timeout(PATIENCE, run()).await? })
}

#[test]
fn runs() {
    main().unwrap();
}
