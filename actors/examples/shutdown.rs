//! A whole tree stops in reverse order, each child in its own time, and then the system does.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::prelude::*;
use hivekeeper_actors::{
    BoxError, Child, ChildSpec, EventKind, EventSink, ExitReason, Root, Shutdown, SupervisionEvent, SupervisorFlags,
};

/// An actor that finishes what it has begun before it stops, or never does.
struct Writer {
    stubborn: bool,
    asked: bool,
}

impl Actor for Writer {
    type Context = Context<Self>;

    /// actix calls this when the actor is asked to stop. `Continue` means: I'll stop myself when I am done.
    fn stopping(&mut self, context: &mut Context<Self>) -> Running {
        if self.asked && !self.stubborn {
            return Running::Stop;
        }
        self.asked = true;
        context.run_later(Duration::from_millis(5), |_, context| context.stop());
        Running::Continue
    }
}

/// Remembers exits.
#[derive(Default)]
struct Exits(Mutex<Vec<(String, ExitReason)>>);

impl EventSink for Exits {
    fn event(&self, event: SupervisionEvent) {
        println!("{} #{}: {:?}", event.id, event.incarnation, event.kind);
        if let (EventKind::Exited { reason }, Ok(mut exits)) = (event.kind, self.0.lock()) {
            exits.push((event.id.to_string(), reason));
        }
    }
}

async fn run(exits: Arc<Exits>) -> Result<(), BoxError> {
    let writer = |name, stubborn, shutdown| {
        let spec = ChildSpec { shutdown, ..ChildSpec::new(name) };
        Child::actor(spec, move |_| Ok(Writer { stubborn, asked: false })).0
    };
    let soon = Shutdown::Deadline(Duration::from_millis(50));
    let children = vec![
        writer("journal", false, Shutdown::Infinity),
        writer("patient", false, Shutdown::default()),
        writer("stubborn", true, soon),
        writer("expendable", true, Shutdown::Brutal),
    ];
    let root = Root::start(SupervisorFlags::default(), children, exits)?;
    root.started().await?;
    // What brings work in, such as an HTTP server, would be stopped before.
    root.shutdown_system().await?;
    Ok(())
}

fn main() -> Result<(), BoxError> {
    let exits = Arc::new(Exits::default());
    let system = System::new();
    system.block_on(run(Arc::clone(&exits)))?;
    system.run()?;
    let exits = exits.0.lock().map_err(|_| "the list is torn")?;
    let expected = [
        ("expendable", ExitReason::Killed),
        ("stubborn", ExitReason::DeadlineExceeded),
        ("patient", ExitReason::Shutdown),
        ("journal", ExitReason::Shutdown),
    ];
    assert_eq!(*exits, expected.map(|(name, reason)| (name.to_owned(), reason)));
    Ok(())
}

#[test]
fn runs() {
    main().unwrap();
}
