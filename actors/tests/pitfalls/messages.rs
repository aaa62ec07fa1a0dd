//! P5, P8: the message that was being handled, and starts that wait for an answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix::prelude::*;
use futures_util::future::join_all;
use hivekeeper_actors::{AskError, ChildSpec, ExitReason, Placement};

use crate::harness::*;

/// Delivery is at most once: the message in the handler that panics is gone, so that it can't crash its successor for ever, and who asked is
/// told.
#[test]
fn p05_the_message_that_crashes_is_consumed_and_its_caller_is_told() {
    system(async {
        let seen = Arc::new(Seen::default());
        let (child, a) = specimen(eager("a"), Manner::Well, &seen);
        // A poisoned message in front of two that are well.
        let poisoned = a.ask(Boom, PATIENCE);
        let (first, second) = (a.ask(Ping, PATIENCE), a.ask(Ping, PATIENCE));
        let running = async {
            let (root, record) = start(vec![child]);
            record.saw("a Exited").await;
            (root, record)
        };
        let (poisoned, first, second, (root, record)) = tokio::join!(poisoned, first, second, running);
        assert!(matches!(poisoned, Err(AskError::Crashed { reason: ExitReason::Panic { .. } })), "{poisoned:?}");
        assert_eq!((first, second), (Ok(1), Ok(2)), "the others are handled by the next incarnation, in order");
        assert_eq!((a.incarnation(), record.exits("a").len()), (2, 1), "one message, one crash");
        root.shutdown().await.unwrap();
    });
}

/// Panics in as many handlers as it is told to.
#[derive(Clone, Message)]
#[rtype(result = "usize")]
struct Poison {
    crashes: usize,
    handled: Arc<AtomicUsize>,
}

impl Handler<Poison> for Specimen {
    type Result = usize;

    fn handle(&mut self, Poison { crashes, handled }: Poison, _: &mut Self::Context) -> usize {
        let before = handled.fetch_add(1, Ordering::SeqCst);
        assert!(before >= crashes, "poisoned");
        before
    }
}

/// Who wants more than that says so for each message, and how often.
#[test]
fn p05_a_message_is_delivered_again_if_its_sender_asks_for_it() {
    system(async {
        let (child, a) = specimen(eager("a"), Manner::Well, &Arc::default());
        let (root, record) = start(vec![child]);
        let poison = |crashes| Poison { crashes, handled: Arc::default() };
        assert_eq!(a.ask_redeliver(poison(2), 2, PATIENCE).await, Ok(2), "by the third incarnation that has it");
        assert_eq!((a.incarnation(), record.exits("a").len()), (3, 2));
        let given_up = a.ask_redeliver(poison(9), 2, PATIENCE).await;
        assert!(matches!(given_up, Err(AskError::Crashed { reason: ExitReason::Panic { .. } })), "{given_up:?}");
        assert_eq!(a.ask(Ping, PATIENCE).await, Ok(1));
        assert_eq!((a.incarnation(), record.exits("a").len()), (6, 5), "three crashes and no loop");
        root.shutdown().await.unwrap();
    });
}

/// A start is acknowledged across threads. Children that are added don't wait for one another, those in a list do, because order is what a
/// list is for.
#[test]
fn p08_added_children_start_side_by_side_and_listed_ones_in_turn() {
    const ADDED: usize = 100;
    system(async {
        let listed = ["a", "b", "c"].map(|name| specimen(eager(name), Manner::Well, &Arc::default()).0);
        let (root, record) = start(listed.into());
        root.started().await.unwrap();
        let turns = ["a", "b", "c"].map(|name| ["Starting", "Started"].map(|what| format!("{name} {what}")));
        assert_eq!(record.lines(), turns.concat());

        let supervisor = root.supervisor();
        let adding = (0..ADDED).map(|n| {
            // On the thread that orders them, so that none is made before all are ordered.
            let spec = ChildSpec { placement: Placement::WithSupervisor, ..eager(&format!("added-{n}")) };
            let (child, _) = specimen(spec, Manner::Well, &Arc::default());
            supervisor.add_child(child)
        });
        let added = join_all(adding).await;
        assert!(added.iter().all(Result::is_ok), "{added:?}");
        let lines = record.lines().split_off(6);
        assert!(lines[..ADDED].iter().all(|line| line.ends_with(" Starting")), "{lines:?}");
        root.shutdown().await.unwrap();
    });
}
