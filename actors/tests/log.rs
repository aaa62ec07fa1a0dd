//! What the log says of a tree. Alone in its process, because the rations of lines belong to the process.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use hivekeeper_actors::{
    Backoff, Broadcast, Child, ChildSpec, EventKind, Heard, Intensity, Root, Strategy, SupervisorFlags,
};
use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Remembers lines.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<(Level, String)>>>);

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "hivekeeper_actors" && *metadata.level() <= Level::INFO
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        self.0.lock().push((*event.metadata().level(), line.0));
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        write!(self.0, "{field}={value:?};").unwrap();
    }
}

struct Plain;
impl Actor for Plain {
    type Context = Context<Self>;
}

/// 500 crashes within a second or two make a few dozen lines, each bounded; the broadcast hears of all 500 in the meantime.
#[test]
fn a_crash_storm_does_not_flood_the_log() {
    const CRASHES: u64 = 500;
    let lines = Lines::default();
    let began = std::time::Instant::now();
    // A line is written on the thread where the thing happens.
    tracing::subscriber::set_global_default(lines.clone()).unwrap();
    System::new().block_on(async {
        let spec = ChildSpec {
            backoff: Backoff { then: Duration::ZERO, jitter: 0.0, ..Backoff::default() },
            intensity: Some(Intensity { max_restarts: 10_000, ..Intensity::default() }),
            ..ChildSpec::new("a")
        };
        let (child, plain) = Child::actor(spec, |_| Ok(Plain));
        let broadcast = Broadcast::new(10_000);
        let mut listener = broadcast.subscribe();
        let flags = SupervisorFlags::unlimited(Strategy::OneForOne);
        let root = Root::start(flags, vec![child], Arc::new(broadcast)).unwrap();
        plain.run(|_, _| panic!("first line\nsecond line {}", "x".repeat(100_000))).unwrap();
        for _ in 1..CRASHES {
            plain.run(|_, _| panic!("again")).unwrap();
        }
        let mut panics = 0;
        while panics < CRASHES {
            let heard = tokio::time::timeout(Duration::from_secs(30), listener.next()).await.unwrap();
            let Heard::Event(event) = heard else { panic!("{heard:?}") };
            panics += u64::from(matches!(event.kind, EventKind::Exited { .. }));
        }
        root.shutdown().await.unwrap();
    });
    let lines = lines.0.lock();
    let (level, first) = lines.iter().find(|(_, line)| line.contains("exited")).unwrap();
    assert_eq!(*level, Level::ERROR);
    for part in ["path=root/a;", "incarnation=1;", "kind=\"exited\";", "first line second line xxx", "unlogged=0;"] {
        assert!(first.contains(part), "{part} in {first}");
    }
    assert!(lines.iter().all(|(_, line)| line.len() < 1_000 && !line.contains('\n')), "{lines:#?}");
    assert!(lines.iter().any(|(level, line)| *level == Level::INFO && line.contains("backing_off")), "{lines:#?}");
    // Two levels, ten lines a second each, and the second that was begun.
    let most = 20 * (began.elapsed().as_secs() as usize + 2);
    assert!(lines.len() <= most, "{} lines, at most {most}", lines.len());
    assert!(lines.len() < 500);
}
