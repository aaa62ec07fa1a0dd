//! The inbox: bounded, fair, and older than any incarnation.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix::prelude::*;
use hivekeeper_actors::{AskError, ChildSpec, ExitReason, TellError};

use crate::harness::*;

#[test]
fn queue_survives_a_panic_and_the_ask_in_flight_crashes() {
    system(async {
        let (child, victim) = probe("a");
        // Before the start everything waits.
        for _ in 0..100 {
            victim.tell(Add(1)).unwrap();
        }
        victim.tell(Boom).unwrap();
        for _ in 0..100 {
            victim.tell(Add(2)).unwrap();
        }
        assert_eq!(victim.len(), 201);
        let (root, record) = start(vec![child]);
        assert_eq!(victim.ask(Add(0), PATIENCE).await, Ok((200, 2)));
        assert!(victim.is_empty());
        assert_eq!(record.exits("a").len(), 1);
        struct AskBoom;
        impl Message for AskBoom {
            type Result = u32;
        }
        impl Handler<AskBoom> for Probe {
            type Result = u32;
            fn handle(&mut self, _: AskBoom, _: &mut Self::Context) -> u32 {
                panic!("in an ask");
            }
        }
        let Err(AskError::Crashed { reason: ExitReason::Panic { text, .. } }) = victim.ask(AskBoom, PATIENCE).await
        else {
            panic!("the reason is missing")
        };
        assert_eq!(&*text, "in an ask");
        assert_eq!(answers(&victim).await, 3);
        root.shutdown().await.unwrap();
    });
}

#[test]
fn a_full_inbox_refuses() {
    system(async {
        let (child, a) = scripted(ChildSpec { inbox_capacity: 3, ..eager("a") }, Script::default());
        for _ in 0..3 {
            a.tell(Add(1)).unwrap();
        }
        assert_eq!(a.tell(Add(1)), Err(TellError::Full));
        assert_eq!(a.clone().tell(Add(1)), Err(TellError::Full), "the bound is the child's, not the sender's");
        assert_eq!(a.ask(Add(1), PATIENCE).await, Err(AskError::Full));
        let (root, _) = start(vec![child]);
        until("it is drained", || a.is_empty()).await;
        assert_eq!(a.ask(Add(1), PATIENCE).await, Ok((4, 1)));
        root.shutdown().await.unwrap();
    });
}

#[test]
fn a_child_at_rest_refuses_and_forgets() {
    system(async {
        let (child, a) = probe("a");
        let (root, record) = start(vec![child]);
        record.saw("a started").await;
        root.supervisor().terminate_child(&"a".into()).await.unwrap();
        assert_eq!(a.tell(Add(1)), Err(TellError::Stopped));
        assert_eq!(a.ask(Add(1), PATIENCE).await, Err(AskError::Stopped));
        root.supervisor().start_existing(&"a".into()).await.unwrap();
        assert_eq!(a.ask(Add(1), PATIENCE).await, Ok((1, 2)));
        root.shutdown().await.unwrap();
        assert_eq!(a.tell(Add(1)), Err(TellError::Stopped));
    });
}

#[test]
fn an_ask_that_nobody_answers_times_out_and_is_not_handled_later() {
    system(async {
        let (child, a) = probe("a");
        assert_eq!(a.ask(Add(7), MS).await, Err(AskError::Timeout));
        let (root, _) = start(vec![child]);
        assert_eq!(a.ask(Add(1), PATIENCE).await, Ok((1, 1)), "the seven was given up");
        root.shutdown().await.unwrap();
    });
}

/// With actix's own mailbox an actor that sends to itself never lets go of its thread.
#[test]
fn a_flood_starves_neither_siblings_nor_orders() {
    fn again(probe: &mut Probe, _: &mut Context<Probe>) {
        probe.sum.set(probe.sum.get() + 1);
        // After the stop the inbox refuses, and the flood ends.
        let _ = probe.child.self_ref().run(again);
    }
    system(async {
        // More floods than threads, so that every thread has one.
        let floods: Vec<_> = (0..5).map(|n| probe(&format!("flood-{n}"))).collect();
        let (sibling_child, sibling) = probe("sibling");
        let mut children: Vec<_> = floods.iter().map(|(child, _)| child.clone()).collect();
        children.push(sibling_child);
        let (root, record) = start(children);
        record.saw("sibling started").await;
        for (_, flood) in &floods {
            flood.run(again).unwrap();
        }
        for _ in 0..100 {
            assert_eq!(answers(&sibling).await, 1);
        }
        for (n, (_, flood)) in floods.iter().enumerate() {
            let (first, _) = flood.ask(Add(0), PATIENCE).await.unwrap();
            let (second, _) = flood.ask(Add(0), PATIENCE).await.unwrap();
            assert!(first < second, "the flood goes on: {first}, {second}");
            root.supervisor().terminate_child(&format!("flood-{n}").into()).await.unwrap();
        }
        root.shutdown().await.unwrap();
    });
}

#[test]
fn messages_wait_for_a_future_that_the_actor_waits_for() {
    system(async {
        let (child, a) = probe("a");
        let (root, _) = start(vec![child]);
        let open = Arc::new(AtomicBool::new(false));
        let gate = Arc::clone(&open);
        a.run(move |_, ctx| {
            let wait = async move {
                while !gate.load(Ordering::SeqCst) {
                    tokio::time::sleep(MS).await;
                }
            };
            ctx.wait(actix::fut::wrap_future::<_, Probe>(wait));
        })
        .unwrap();
        assert_eq!(a.ask(Add(1), MS * 30).await, Err(AskError::Timeout));
        open.store(true, Ordering::SeqCst);
        assert_eq!(a.ask(Add(1), PATIENCE).await, Ok((1, 1)));
        root.shutdown().await.unwrap();
    });
}

/// Looks into the inbox that it waited in when it is dropped, as a guard that reports on its way out may.
#[derive(Clone)]
struct Curious(hivekeeper_actors::ChildRef<Probe>);

impl Message for Curious {
    type Result = ();
}

impl Drop for Curious {
    fn drop(&mut self) {
        let _ = (self.0.stats(), self.0.len());
    }
}

impl Handler<Curious> for Probe {
    type Result = ();
    fn handle(&mut self, _: Curious, _: &mut Self::Context) {
        std::thread::sleep(MS * 50);
        panic!("after its asker has gone");
    }
}

#[test]
fn a_message_that_was_given_up_and_crashes_is_dropped_outside_the_inbox() {
    system(async {
        let (child, a) = probe("a");
        let (root, record) = start(vec![child]);
        root.started().await.unwrap();
        let asked = a.ask_redeliver(Curious(a.clone()), 3, MS).await;
        assert!(matches!(asked, Err(AskError::Timeout)), "{asked:?}");
        record.saw("a exited").await;
        assert_eq!(answers(&a).await, 2);
        assert_eq!((record.exits("a").len(), a.stats().redelivered), (1, 0));
        root.shutdown().await.unwrap();
    });
}
