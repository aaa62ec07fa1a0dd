//! One fails, one is restarted: for children that don't need each other.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use hivekeeper_actors::{
    AskError, BoxError, Child, ChildSpec, EventSink, ExitReason, Root, Strategy, SupervisionEvent, SupervisorFlags,
};

/// How long anything may take: far longer than it does.
const PATIENCE: Duration = Duration::from_secs(10);

/// A plain actix actor. It knows nothing of supervision.
struct Reviewer {
    reviewed: u32,
}

impl Actor for Reviewer {
    type Context = Context<Self>;
}

#[derive(Message)]
#[rtype(result = "u32")]
struct Review(&'static str);

impl Handler<Review> for Reviewer {
    type Result = u32;

    fn handle(&mut self, Review(text): Review, _: &mut Context<Self>) -> u32 {
        assert!(text.is_ascii(), "I read ASCII only");
        self.reviewed += 1;
        self.reviewed
    }
}

struct Print;

impl EventSink for Print {
    fn event(&self, event: SupervisionEvent) {
        println!("{} #{}: {:?}", event.id, event.incarnation, event.kind);
    }
}

async fn run() -> Result<(), BoxError> {
    let (alice_child, alice) = Child::actor(ChildSpec::new("alice"), |_| Ok(Reviewer { reviewed: 0 }));
    let (bob_child, bob) = Child::actor(ChildSpec::new("bob"), |_| Ok(Reviewer { reviewed: 0 }));
    let flags = SupervisorFlags::new(Strategy::OneForOne);
    let root = Root::start(flags, vec![alice_child, bob_child], Arc::new(Print))?;

    assert_eq!(alice.ask(Review("fn main() {}"), PATIENCE).await, Ok(1));
    assert_eq!(bob.ask(Review("fn test() {}"), PATIENCE).await, Ok(1));

    // Alice panics. Who asked is told, and her next incarnation starts from nothing. Bob never notices.
    let answer = alice.ask(Review("fn naïve() {}"), PATIENCE).await;
    assert!(matches!(answer, Err(AskError::Crashed { reason: ExitReason::Panic { .. } })), "{answer:?}");
    assert_eq!(alice.ask(Review("fn main() {}"), PATIENCE).await, Ok(1));
    assert_eq!(bob.ask(Review("fn test() {}"), PATIENCE).await, Ok(2));
    assert_eq!((alice.incarnation(), bob.incarnation()), (2, 1));

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
