//! F4, F7, F16, F17: stops, and what becomes of the messages behind them.

use std::sync::Arc;

use actix::prelude::*;
use futures_util::FutureExt as _;
use hivekeeper_actors::{AskError, ChildSpec, ExitReason, Intensity, RestartType, TellError};

use crate::harness::*;

fn stop() -> Do {
    Do::new(|_, context| context.stop())
}

/// Under the supervisor of actix no actor can end itself, nothing limits its restarts, and its old state goes on.
#[test]
fn f04_a_stop_is_always_undone_on_the_same_object() {
    system(async {
        let seen = Arc::new(Seen::default());
        let actor = Specimen::new("a", Manner::Well, &seen);
        let a = Supervisor::start(move |_| actor);
        for n in 1..=1000 {
            assert_eq!(a.send(Ping).await, Ok(n), "the sum of the object before");
            a.send(stop()).await.unwrap();
        }
        assert_eq!(a.send(Ping).await, Ok(1001));
        assert_eq!((seen.restarts(), seen.notes().len()), (1000, 0), "none was dropped");
    });
}

#[test]
fn f04_a_stop_is_an_end_for_those_that_may_end() {
    system(async {
        let transient = ChildSpec { restart: RestartType::Transient, ..eager("transient") };
        let (transient, a) = specimen(transient, Manner::Well, &Arc::default());
        let limited = Intensity { max_restarts: 3, ..Intensity::default() };
        let permanent = ChildSpec { intensity: Some(limited), ..eager("permanent") };
        let (permanent, b) = specimen(permanent, Manner::Well, &Arc::default());
        let (root, record) = start(vec![transient, permanent]);
        a.tell(stop()).unwrap();
        record.saw("transient Completed").await;
        assert_eq!(record.exits("transient"), [ExitReason::Normal]);
        assert_eq!(a.tell(Ping), Err(TellError::Stopped));
        for incarnation in 1..=4 {
            assert_eq!((b.ask(Ping, PATIENCE).await, b.incarnation()), (Ok(1), incarnation), "a fresh object");
            b.tell(stop()).unwrap();
            until("it ends", || record.exits("permanent").len() as u64 == incarnation).await;
        }
        record.saw("permanent Failed").await;
        root.shutdown().await.unwrap();
    });
}

#[test]
fn f07_messages_behind_a_panic_are_lost_with_their_answers() {
    system(async {
        let seen = Arc::new(Seen::default());
        let actor = Specimen::new("a", Manner::Well, &seen);
        let a = Supervisor::start(move |_| actor);
        a.do_send(Boom);
        for _ in 0..10 {
            a.do_send(Ping);
        }
        let asked: Vec<_> = (0..3).map(|_| a.send(Ping)).collect();
        for answer in asked {
            assert_eq!(answer.await, Err(MailboxError::Closed));
        }
        assert_eq!(seen.pings(), 0);

        let seen = Arc::new(Seen::default());
        let (child, a) = specimen(eager("a"), Manner::Well, &seen);
        a.tell(Boom).unwrap();
        for _ in 0..10 {
            a.tell(Ping).unwrap();
        }
        let (root, record) = start(vec![child]);
        assert_eq!((a.ask(Ping, PATIENCE).await, a.incarnation()), (Ok(11), 2), "kept, with their answers");
        assert_eq!(record.exits("a").len(), 1);
        root.shutdown().await.unwrap();
    });
}

#[test]
fn f07_messages_behind_a_stop_are_lost_without_a_supervisor_and_kept_with_one() {
    system(async {
        for supervised in [false, true] {
            let seen = Arc::new(Seen::default());
            let actor = Specimen::new("a", Manner::Well, &seen);
            let a = if supervised { Supervisor::start(move |_| actor) } else { actor.start() };
            a.do_send(stop());
            for _ in 0..10 {
                a.do_send(Ping);
            }
            settle().await;
            assert_eq!((seen.pings(), a.connected()), (if supervised { 10 } else { 0 }, supervised));
        }

        let seen = Arc::new(Seen::default());
        let (child, a) = specimen(eager("a"), Manner::Well, &seen);
        a.tell(stop()).unwrap();
        for _ in 0..10 {
            a.tell(Ping).unwrap();
        }
        let (root, record) = start(vec![child]);
        assert_eq!((a.ask(Ping, PATIENCE).await, a.incarnation()), (Ok(11), 2));
        assert_eq!(record.exits("a"), [ExitReason::Normal]);
        root.shutdown().await.unwrap();
    });
}

/// The limit that stays: nobody handles the messages behind the last incarnation of a child. Who asked is told, what was sent without a
/// question is a dead letter, and senders are refused from then on.
#[test]
fn f07_messages_behind_the_last_incarnation_are_dead_letters() {
    system(async {
        let seen = Arc::new(Seen::default());
        let (child, a) = specimen(ChildSpec { restart: RestartType::Transient, ..eager("a") }, Manner::Well, &seen);
        a.tell(stop()).unwrap();
        a.tell(Ping).unwrap();
        let asked = tokio::spawn({
            let a = a.clone();
            async move { a.ask(Ping, PATIENCE).await }
        });
        until("the ask waits", || a.len() == 3).await;
        let (root, record) = start(vec![child]);
        assert_eq!(asked.await.unwrap(), Err(AskError::Stopped));
        record.saw("a Completed").await;
        assert_eq!((seen.pings(), a.len(), a.tell(Ping)), (0, 0, Err(TellError::Stopped)));
        let letter = root.dead_letters().take().remove(0);
        assert!(letter.downcast::<Ping>().is_ok());
        root.shutdown().await.unwrap();
    });
}

/// The one test that actix has of its supervisor (`tests/test_supervisor.rs`) stops the actor and counts its starts. It knows no panic. Both
/// pass it.
#[test]
fn f16_the_test_that_actix_has_of_its_supervisor_passes_here() {
    system(async {
        let seen = Arc::new(Seen::default());
        let actor = Specimen::new("a", Manner::Well, &seen);
        let a = Supervisor::start(move |_| actor);
        a.do_send(stop());
        a.do_send(stop());
        a.send(Ping).await.unwrap();
        assert_eq!((seen.starts(), seen.restarts(), seen.pings()), (3, 2, 1));

        let seen = Arc::new(Seen::default());
        let (child, a) = specimen(eager("a"), Manner::Well, &seen);
        let (root, _) = start(vec![child]);
        a.tell(stop()).unwrap();
        a.tell(stop()).unwrap();
        a.ask(Ping, PATIENCE).await.unwrap();
        assert_eq!((seen.starts(), seen.pings()), (3, 1));
        assert_eq!(seen.restarts(), 0, "no hook of actix for old objects: each start has a fresh one");
        root.shutdown().await.unwrap();
    });
}

#[test]
fn f17_who_gives_up_an_ask_takes_it_back() {
    system(async {
        let seen = Arc::new(Seen::default());
        let a = Specimen::new("a", Manner::Well, &seen).start();
        let mut ask = Box::pin(a.send(Ping));
        assert!((&mut ask).now_or_never().is_none(), "it is in the mailbox");
        drop(ask);
        assert_eq!(a.send(Ping).await, Ok(1), "the one before was not handled");

        let seen = Arc::new(Seen::default());
        let (child, a) = specimen(eager("a"), Manner::Well, &seen);
        let mut ask = Box::pin(a.ask(Ping, PATIENCE));
        assert!((&mut ask).now_or_never().is_none());
        assert_eq!(a.len(), 1, "it is in the inbox");
        drop(ask);
        let (root, _) = start(vec![child]);
        assert_eq!(a.ask(Ping, PATIENCE).await, Ok(1));
        root.shutdown().await.unwrap();
    });
}
