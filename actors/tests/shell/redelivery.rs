//! Messages that are delivered again after the crash of their incarnation, and for how long.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};

use actix::prelude::*;
use hivekeeper_actors::{AskError, Backoff, ChildSpec, DeadReason, ExitReason, OnRestart, TellError};
use parking_lot::Mutex;

use crate::harness::*;
use crate::restarts::{Poison, ask_later, panic_text, poison};

#[test]
fn a_message_is_delivered_again_first_and_so_often_and_then_dies() {
    system(async {
        for on_restart in [OnRestart::Keep, OnRestart::Drop] {
            let (child, a) = scripted(ChildSpec { on_restart, ..eager("a") }, Script::default());
            a.tell(Add(1)).unwrap();
            a.tell_redeliver(poison("again"), 2).unwrap();
            let after = ask_later(&a, Add(2));
            until("all wait", || a.len() == 3).await;
            let (root, record) = start(vec![child]);
            let expected = if on_restart == OnRestart::Keep { Ok((2, 4)) } else { Err(AskError::Restarting) };
            assert_eq!(after.await.unwrap(), expected, "it comes before what waits");
            let letter = root.dead_letters().next(PATIENCE).await.unwrap();
            assert_eq!(letter.incarnation, 3);
            let DeadReason::Crashed { reason: ExitReason::Panic { text, .. } } = &letter.why else {
                panic!("{letter:?}")
            };
            assert_eq!(&**text, "again");
            assert_eq!(letter.downcast::<Poison>().unwrap().text, "again");
            assert_eq!(answers(&a).await, 4);
            assert_eq!(record.exits("a").len(), 3);
            assert_eq!((a.stats().redelivered, a.stats().dead_lettered), (2, 1));
            root.shutdown().await.unwrap();
        }
    });
}

#[test]
fn an_ask_that_is_delivered_again_is_answered_by_whoever_can() {
    system(async {
        let (child, a) = probe("a");
        let (root, record) = start(vec![child]);
        let curable = Poison { harmless_to: 3, ..poison("not yet") };
        assert_eq!(a.ask_redeliver(curable, 5, PATIENCE).await, Ok(Ok(3)));
        assert_eq!(panic_text(a.ask_redeliver(poison("never"), 1, PATIENCE).await), "never");
        assert_eq!(panic_text(a.ask_redeliver(poison("once"), 0, PATIENCE).await), "once");
        assert_eq!(answers(&a).await, 6);
        assert_eq!(record.exits("a").len(), 5);
        until("the two that died are kept", || root.dead_letters().total() == 2).await;
        root.shutdown().await.unwrap();
    });
}

/// Fails without a panic in its first incarnation.
#[derive(Clone)]
struct Hard;

impl Message for Hard {
    type Result = Result<u64, ()>;
}

impl Handler<Hard> for Probe {
    type Result = Result<u64, ()>;

    fn handle(&mut self, _: Hard, context: &mut Self::Context) -> Self::Result {
        if self.child.incarnation() == 1 {
            self.child.clone().fail(context, "too hard");
        }
        Ok(self.child.incarnation())
    }
}

#[test]
fn a_failure_without_a_panic_is_a_crash_of_its_message_too() {
    fn wind_down(probe: &mut Probe, context: &mut Context<Probe>) -> Running {
        context.run_later(MS * 5, |_, context| context.stop());
        if probe.stops == 1 { Running::Continue } else { Running::Stop }
    }
    system(async {
        for in_stopping in [None, Some(wind_down as fn(&mut Probe, &mut Context<Probe>) -> Running)] {
            let (child, a) = scripted(eager("a"), Script { in_stopping, ..Script::default() });
            let asked = {
                let a = a.clone();
                actix_rt::spawn(async move { a.ask_redeliver(Hard, 1, PATIENCE).await })
            };
            until("it waits", || a.len() == 1).await;
            let after = ask_later(&a, Add(1));
            until("both wait", || a.len() == 2).await;
            let (root, record) = start(vec![child]);
            assert_eq!(asked.await.unwrap(), Ok(Ok(2)));
            assert_eq!(after.await.unwrap(), Ok((1, 2)), "an incarnation that winds down takes nothing before it");
            assert_eq!(record.exits("a"), [ExitReason::Error("too hard".into())]);
            root.shutdown().await.unwrap();
        }
    });
}

/// Counts its deliveries and panics when the gate opens.
#[derive(Clone)]
struct Held(Arc<Mutex<mpsc::Receiver<()>>>, Arc<AtomicU32>);

impl Message for Held {
    type Result = ();
}

impl Handler<Held> for Probe {
    type Result = ();

    fn handle(&mut self, Held(gate, deliveries): Held, _: &mut Self::Context) {
        deliveries.fetch_add(1, Ordering::SeqCst);
        assert!(gate.lock().recv_timeout(PATIENCE).is_ok(), "held");
    }
}

#[test]
fn what_was_given_up_is_not_delivered_again() {
    system(async {
        let (child, a) = probe("a");
        let (root, record) = start(vec![child]);
        let (gate, wait) = mpsc::sync_channel(1);
        let held = Held(Arc::new(Mutex::new(wait)), Arc::default());
        let deliveries = Arc::clone(&held.1);
        let asked = {
            let a = a.clone();
            actix_rt::spawn(async move { a.ask_redeliver(held, 5, PATIENCE).await })
        };
        until("it is begun", || deliveries.load(Ordering::SeqCst) == 1).await;
        asked.abort();
        assert!(asked.await.is_err());
        drop(gate);
        until("it has crashed", || record.exits("a").len() == 1).await;
        assert_eq!(answers(&a).await, 2);
        assert_eq!((deliveries.load(Ordering::SeqCst), a.stats().redelivered), (1, 0));
        assert!(root.dead_letters().is_empty());
        root.shutdown().await.unwrap();
    });
}

#[test]
fn what_waits_to_be_delivered_again_takes_its_place_in_the_inbox() {
    system(async {
        let backoff = Backoff { initial: PATIENCE * 10, ..Backoff::default() };
        let (child, a) = scripted(ChildSpec { backoff, inbox_capacity: 3, ..eager("a") }, Script::default());
        let (root, record) = start(vec![child]);
        let (gate, wait) = mpsc::sync_channel(1);
        let held = Held(Arc::new(Mutex::new(wait)), Arc::default());
        let deliveries = Arc::clone(&held.1);
        a.tell_redeliver(held, 1).unwrap();
        until("it is begun", || deliveries.load(Ordering::SeqCst) == 1).await;
        a.tell(Add(1)).unwrap();
        drop(gate);
        until("it has crashed", || record.exits("a").len() == 1).await;
        assert_eq!(a.len(), 2);
        assert_eq!([(); 2].map(|()| a.tell(Add(1))), [Ok(()), Err(TellError::Full)]);
        root.shutdown().await.unwrap();
    });
}
