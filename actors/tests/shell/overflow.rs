//! What a full inbox does, and how it is emptied at the turns of a child's life.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;

use actix::prelude::*;
use hivekeeper_actors::{AskError, Backoff, ChildRef, ChildSpec, ExitReason, Overflow, TellError};

use crate::harness::*;

fn narrow(overflow: Overflow) -> ChildSpec {
    ChildSpec { inbox_capacity: 3, overflow, ..eager("a") }
}

/// Holds the handler until the sender is dropped; returns once it is held.
pub(crate) async fn hold(child: &ChildRef<Probe>) -> mpsc::SyncSender<()> {
    let (gate, wait) = mpsc::sync_channel::<()>(1);
    let (held, holding) = tokio::sync::oneshot::channel();
    child
        .run(move |_, _| {
            held.send(()).unwrap();
            assert!(wait.recv_timeout(PATIENCE).is_err());
        })
        .unwrap();
    holding.await.unwrap();
    gate
}

#[test]
fn block_waits_for_room_and_no_longer_than_it_may() {
    system(async {
        let (child, a) = scripted(narrow(Overflow::Block), Script::default());
        let (root, _) = start(vec![child]);
        let gate = hold(&a).await;
        let next_gate = {
            let (gate, wait) = mpsc::sync_channel::<()>(1);
            a.run(move |_, _| assert!(wait.recv_timeout(PATIENCE).is_err())).unwrap();
            gate
        };
        a.tell(Add(1)).unwrap();
        a.tell_wait(Add(1), MS).await.unwrap();
        assert_eq!(a.tell(Add(100)), Err(TellError::Full));
        assert_eq!(a.tell_wait(Add(100), MS * 20).await, Err(TellError::Full), "its deadline");
        let waiting = {
            let a = a.clone();
            actix_rt::spawn(async move { a.tell_wait(Add(10), PATIENCE).await })
        };
        tokio::task::yield_now().await;
        assert_eq!(a.len(), 3);
        // One handler returns, the next one blocks: the one place that is free is offered all the same.
        drop(gate);
        assert_eq!(waiting.await.unwrap(), Ok(()));
        assert_eq!(a.len(), 3);
        drop(next_gate);
        until("it is drained", || a.is_empty()).await;
        assert_eq!(a.ask(Add(0), PATIENCE).await, Ok((12, 1)), "what was refused was not handled");
        assert_eq!(a.stats().dropped, 0, "a refusal is no drop");
        root.shutdown().await.unwrap();
    });
}

#[test]
fn what_the_actor_has_taken_over_and_not_begun_counts() {
    system(async {
        let (child, a) = scripted(narrow(Overflow::Block), Script::default());
        let (root, _) = start(vec![child]);
        let gate = hold(&a).await;
        let (next_gate, wait) = mpsc::sync_channel::<()>(1);
        a.run(move |_, _| assert!(wait.recv_timeout(PATIENCE).is_err())).unwrap();
        assert_eq!([(); 3].map(|()| a.tell(Add(1))), [Ok(()), Ok(()), Err(TellError::Full)]);
        drop(gate);
        until("it begins the second", || a.len() == 2).await;
        assert_eq!([(); 2].map(|()| a.tell(Add(1))), [Ok(()), Err(TellError::Full)]);
        drop(next_gate);
        until("it is drained", || a.is_empty()).await;
        assert_eq!(a.ask(Add(0), PATIENCE).await, Ok((3, 1)));
        root.shutdown().await.unwrap();
    });
}

#[test]
fn senders_that_wait_are_all_served_and_the_bound_holds() {
    system(async {
        let (child, a) = scripted(narrow(Overflow::Block), Script::default());
        let (root, _) = start(vec![child]);
        let senders: Vec<_> = (0..40)
            .map(|_| {
                let a = a.clone();
                actix_rt::spawn(async move {
                    for _ in 0..25 {
                        a.tell_wait(Add(1), PATIENCE).await.unwrap();
                        assert!(a.len() <= 3);
                    }
                })
            })
            .collect();
        for sender in senders {
            sender.await.unwrap();
        }
        until("all are handled", || a.stats().handled == 1000).await;
        assert_eq!(a.ask(Add(0), PATIENCE).await, Ok((1000, 1)));
        root.shutdown().await.unwrap();
    });
}

#[test]
fn whoever_waits_for_room_is_told_of_the_stop_and_served_after_a_crash() {
    system(async {
        let (child, a) = scripted(narrow(Overflow::Block), Script::default());
        // Nothing lives yet, nothing makes room.
        a.tell(Boom).unwrap();
        a.tell(Add(1)).unwrap();
        a.tell(Add(1)).unwrap();
        let waiting = {
            let a = a.clone();
            actix_rt::spawn(async move { a.tell_wait(Add(5), PATIENCE).await })
        };
        tokio::task::yield_now().await;
        let (root, _) = start(vec![child]);
        assert_eq!(waiting.await.unwrap(), Ok(()));
        until("it is drained", || a.is_empty()).await;
        assert_eq!(a.ask(Add(0), PATIENCE).await, Ok((7, 2)));
        // Between two incarnations nothing makes room, until its supervisor gives up on it.
        let backoff = Backoff { initial: PATIENCE * 10, ..Backoff::default() };
        let (child, b) = scripted(ChildSpec { backoff, id: "b".into(), ..narrow(Overflow::Block) }, Script::default());
        root.supervisor().add_child(child).await.unwrap();
        b.tell(Boom).unwrap();
        until("it backs off", || b.stats().handled == 1 && !b.stats().live).await;
        (0..3).for_each(|_| b.tell(Add(1)).unwrap());
        let waiting = {
            let b = b.clone();
            actix_rt::spawn(async move { b.tell_wait(Add(5), PATIENCE).await })
        };
        tokio::task::yield_now().await;
        root.supervisor().terminate_child(&"b".into()).await.unwrap();
        assert_eq!(waiting.await.unwrap(), Err(TellError::Stopped));
        assert_eq!(b.tell_wait(Add(1), PATIENCE).await, Err(TellError::Stopped), "at once");
        root.shutdown().await.unwrap();
    });
}

#[test]
fn drop_newest_keeps_what_came_first() {
    system(async {
        let (child, a) = scripted(narrow(Overflow::DropNewest), Script::default());
        for n in 0..10 {
            a.tell(Add(1 << n)).unwrap();
        }
        a.tell_wait(Add(1 << 10), PATIENCE).await.unwrap();
        assert_eq!(a.ask(Add(1), PATIENCE).await, Err(AskError::Full), "whoever asks is told");
        assert_eq!((a.stats().waiting, a.stats().dropped), (3, 9));
        let (root, _) = start(vec![child]);
        until("it is drained", || a.is_empty()).await;
        assert_eq!(a.ask(Add(0), PATIENCE).await, Ok((0b111, 1)));
        assert!(root.dead_letters().is_empty(), "a flood is not kept");
        root.shutdown().await.unwrap();
    });
}

#[test]
fn drop_oldest_keeps_what_came_last() {
    system(async {
        let (child, a) = scripted(narrow(Overflow::DropOldest), Script::default());
        let asked = {
            let a = a.clone();
            actix_rt::spawn(async move { a.ask(Add(1 << 20), PATIENCE).await })
        };
        until("it waits", || a.len() == 1).await;
        for n in 0..10 {
            a.tell(Add(1 << n)).unwrap();
        }
        assert_eq!(asked.await.unwrap(), Err(AskError::Full), "its place was taken");
        assert_eq!((a.stats().waiting, a.stats().dropped), (3, 8));
        let (root, _) = start(vec![child]);
        until("it is drained", || a.is_empty()).await;
        assert_eq!(a.ask(Add(0), PATIENCE).await, Ok((0b11_1000_0000, 1)));
        // Those that an incarnation has taken from the senders' side make room, too.
        let gate = hold(&a).await;
        for n in 10..16 {
            a.tell(Add(1 << n)).unwrap();
        }
        drop(gate);
        until("it is drained", || a.is_empty()).await;
        assert_eq!(a.ask(Add(0), PATIENCE).await, Ok((0b1110_0011_1000_0000, 1)));
        root.shutdown().await.unwrap();
    });
}

#[test]
fn drop_oldest_loses_and_doubles_nothing_in_a_flood() {
    system(async {
        const EACH: u32 = 20_000;
        let spec = ChildSpec { inbox_capacity: 50, overflow: Overflow::DropOldest, ..eager("a") };
        let (child, a) = scripted(spec, Script::default());
        let (root, _) = start(vec![child]);
        assert_eq!(answers(&a).await, 1);
        let floods: Vec<_> = (0..3)
            .map(|_| {
                let a = a.clone();
                std::thread::spawn(move || (0..EACH).for_each(|_| a.tell(Add(1)).unwrap()))
            })
            .collect();
        for flood in floods {
            flood.join().unwrap();
        }
        until("it is drained", || a.is_empty()).await;
        let (sum, _) = a.ask(Add(0), PATIENCE).await.unwrap();
        let stats = a.stats();
        assert_eq!(u64::from(sum) + stats.dropped, u64::from(3 * EACH));
        assert_eq!(stats.handled, u64::from(sum) + 2, "and the two asks");
        root.shutdown().await.unwrap();
    });
}

#[test]
fn stop_ends_the_child_and_keeps_its_queue() {
    system(async {
        // More than are handled in one go: the order is heard in between.
        const MANY: usize = 500;
        let (child, a) = scripted(ChildSpec { inbox_capacity: MANY, ..narrow(Overflow::Stop) }, Script::default());
        // Nothing lives that could be stopped.
        (0..MANY).for_each(|_| a.tell(Add(1)).unwrap());
        assert_eq!(a.tell(Add(10_000)), Err(TellError::Full));
        let (root, record) = start(vec![child]);
        until("it is drained", || a.is_empty()).await;
        let gate = hold(&a).await;
        (0..MANY).for_each(|_| a.tell(Add(1)).unwrap());
        assert_eq!(a.tell(Add(10_000)), Err(TellError::Full));
        assert_eq!(a.tell_wait(Add(10_000), PATIENCE).await, Err(TellError::Full), "at once");
        assert!(record.exits("a").is_empty(), "the one before the start stopped nobody");
        drop(gate);
        until("the next incarnation has drained it", || a.incarnation() == 2 && a.is_empty()).await;
        let (sum, incarnation) = a.ask(Add(0), PATIENCE).await.unwrap();
        assert!((1..MANY).contains(&(sum as usize)) && incarnation == 2, "{sum} handled by {incarnation}");
        assert_eq!(a.stats().handled, 2 * MANY as u64 + 2, "none is lost");
        assert_eq!(record.exits("a"), [ExitReason::Overflow]);
        assert_eq!(record.count("a backing_off"), 1, "debited as a failure of its own");
        root.shutdown().await.unwrap();
    });
}

/// A message whose destructor panics, unless it was handled.
pub(crate) struct Mine(pub(crate) Arc<AtomicU32>);

impl Message for Mine {
    type Result = ();
}

impl Drop for Mine {
    fn drop(&mut self) {
        if self.0.fetch_add(1, Ordering::SeqCst) < 1000 {
            panic!("a mine");
        }
    }
}

impl Handler<Mine> for Probe {
    type Result = ();

    fn handle(&mut self, mine: Mine, _: &mut Self::Context) {
        mine.0.fetch_add(1_000_000, Ordering::SeqCst);
    }
}

#[test]
fn messages_that_panic_when_dropped_harm_nobody() {
    system(async {
        let dropped = Arc::new(AtomicU32::new(0));
        let mine = || Mine(Arc::clone(&dropped));
        let (child, a) = scripted(narrow(Overflow::DropOldest), Script::default());
        let (other, b) = scripted(ChildSpec { overflow: Overflow::DropOldest, ..eager("b") }, Script::default());
        let (root, record) = start(vec![child, other]);
        assert_eq!((answers(&a).await, answers(&b).await), (1, 1));
        // The sender that pushes an old one out.
        let gate = hold(&a).await;
        for _ in 0..5 {
            a.tell(mine()).unwrap();
        }
        assert_eq!(dropped.load(Ordering::SeqCst), 2);
        // The handler that skips one that was given up.
        assert_eq!(a.ask(mine(), MS).await, Err(AskError::Timeout));
        a.tell(Add(1)).unwrap();
        a.tell(Add(1)).unwrap();
        assert_eq!(dropped.load(Ordering::SeqCst), 5);
        drop(gate);
        until("it is drained", || a.is_empty()).await;
        assert_eq!(a.ask(Add(0), PATIENCE).await, Ok((2, 1)), "the first incarnation lives");
        assert_eq!(dropped.load(Ordering::SeqCst), 6);
        // The supervisor that closes an inbox, and the tree itself.
        let gate = hold(&b).await;
        for _ in 0..10 {
            b.tell(mine()).unwrap();
        }
        let given_up = b.ask(mine(), MS).await;
        assert_eq!(given_up, Err(AskError::Timeout));
        let supervisor = root.supervisor();
        let stop = actix_rt::spawn(async move { supervisor.terminate_child(&"b".into()).await });
        drop(gate);
        stop.await.unwrap().unwrap();
        assert_eq!(record.exits("b"), [ExitReason::Shutdown]);
        for letter in root.dead_letters().take() {
            let open = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(letter)));
            assert!(open.is_err(), "it is the taker's now");
        }
        assert_eq!(answers(&a).await, 1, "the supervisor lives, and so does its other child");
        assert!(record.exits("a").is_empty());
        root.shutdown().await.unwrap();
        // An inbox that nobody supervises any more, or ever did.
        let (child, c) = scripted(eager("c"), Script::default());
        let before = dropped.load(Ordering::SeqCst);
        c.tell(mine()).unwrap();
        c.tell(mine()).unwrap();
        drop((child, c));
        assert_eq!(dropped.load(Ordering::SeqCst), before + 2);
    });
}
