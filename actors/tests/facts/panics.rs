//! F1 to F3, F5, F6: panics.

use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;

use actix::prelude::*;
use hivekeeper_actors::{AskError, Child, ChildRef, ExitReason};

use crate::harness::*;

/// The signal of `abort()`.
const SIGABRT: i32 = 6;

/// Torments a specimen under plain actix, with or without its `Supervisor`: it is gone for good, and only its caller is told.
async fn dies_in_plain_actix(supervised: bool, torment: impl FnOnce(&Addr<Specimen>)) {
    let seen = Arc::new(Seen::default());
    let actor = Specimen::new("a", Manner::Well, &seen);
    let a = if supervised { Supervisor::start(move |_| actor) } else { actor.start() };
    let b = Specimen::new("b", Manner::Well, &Arc::default()).start();
    assert_eq!(a.send(Ping).await, Ok(1));
    torment(&a);
    until("its mailbox closes", || !a.connected()).await;
    settle().await;
    assert_eq!(a.send(Ping).await, Err(MailboxError::Closed));
    assert_eq!((seen.starts(), seen.restarts()), (1, 0), "nobody restarts it");
    assert_eq!(b.send(Ping).await, Ok(1), "the sibling lives");
}

/// Torments a specimen under this crate: it ends with the text of the panic, another takes its place, its sibling notices nothing.
async fn heals_here(text: &str, torment: impl FnOnce(&ChildRef<Specimen>)) {
    let seen = Arc::new(Seen::default());
    let (child, a) = specimen(eager("a"), Manner::Well, &seen);
    let (sibling, b) = specimen(eager("b"), Manner::Well, &Arc::default());
    let (root, record) = start(vec![child, sibling]);
    assert_eq!((a.ask(Ping, PATIENCE).await, b.ask(Ping, PATIENCE).await), (Ok(1), Ok(1)));
    torment(&a);
    record.saw("a Exited").await;
    assert_eq!(a.ask(Ping, PATIENCE).await, Ok(1), "a fresh object answers");
    assert_eq!((a.incarnation(), seen.starts()), (2, 2));
    assert_eq!(record.panics("a"), [text]);
    assert_eq!((b.ask(Ping, PATIENCE).await, b.incarnation()), (Ok(2), 1));
    root.shutdown().await.unwrap();
}

#[test]
fn f01_a_panic_in_a_handler_ends_the_actor_and_tells_nobody() {
    system(async {
        dies_in_plain_actix(false, |a| a.do_send(Boom)).await;
        let a = Specimen::new("a", Manner::Well, &Arc::default()).start();
        assert_eq!(a.send(Boom).await, Err(MailboxError::Closed), "why is not said");
        heals_here("in a handler", |a| a.tell(Boom).unwrap()).await;
    });
}

#[test]
fn f01_the_caller_of_the_panic_is_told() {
    system(async {
        let (child, a) = specimen(eager("a"), Manner::Well, &Arc::default());
        let (root, _) = start(vec![child]);
        let told = a.ask(Boom, PATIENCE).await;
        assert!(matches!(told, Err(AskError::Crashed { reason: ExitReason::Panic { .. } })), "{told:?}");
        assert_eq!(a.ask(Ping, PATIENCE).await, Ok(1));
        root.shutdown().await.unwrap();
    });
}

#[test]
fn f02_the_supervisor_of_actix_restarts_nothing_after_a_panic() {
    system(async {
        dies_in_plain_actix(true, |a| a.do_send(Boom)).await;
        heals_here("in a handler", |a| a.tell(Boom).unwrap()).await;
    });
}

#[test]
fn f03_panic_in_a_spawned_future() {
    fn torment() -> Do {
        Do::new(|_, context| {
            context.spawn(actix::fut::wrap_future(async {
                tokio::task::yield_now().await;
                panic!("in ctx.spawn");
            }));
        })
    }
    system(async {
        dies_in_plain_actix(true, |a| a.do_send(torment())).await;
        heals_here("in ctx.spawn", |a| a.tell(torment()).unwrap()).await;
    });
}

#[test]
fn f03_panic_in_a_response_future() {
    system(async {
        dies_in_plain_actix(true, |a| a.do_send(BoomLater)).await;
        heals_here("in a response future", |a| a.tell(BoomLater).unwrap()).await;
    });
}

#[test]
fn f03_panic_in_run_later() {
    fn torment() -> Do {
        Do::new(|_, context| {
            context.run_later(MS, |_, _| panic!("in run_later"));
        })
    }
    system(async {
        dies_in_plain_actix(true, |a| a.do_send(torment())).await;
        heals_here("in run_later", |a| a.tell(torment()).unwrap()).await;
    });
}

#[test]
fn f03_panic_in_started() {
    system(async {
        let seen = Arc::new(Seen::default());
        let actor = Specimen::new("a", Manner::PanicsInStarted, &seen);
        let a = Supervisor::start(move |_| actor);
        assert_eq!(a.send(Ping).await, Err(MailboxError::Closed));
        assert_eq!((seen.starts(), seen.restarts()), (1, 0));

        let seen = Arc::new(Seen::default());
        let own = Arc::clone(&seen);
        let (child, a) = Child::actor(eager("a"), move |child| {
            let manner = if child.incarnation() < 4 { Manner::PanicsInStarted } else { Manner::Well };
            Ok(Specimen::new("a", manner, &own))
        });
        let (root, record) = start(vec![child]);
        assert_eq!(a.ask(Ping, PATIENCE).await, Ok(1), "the message waits for the start that works");
        assert_eq!(record.panics("a"), ["in started"; 3]);
        record.saw("a Started").await;
        assert_eq!(record.count("a Started"), 1, "a start that panicked is none");
        root.shutdown().await.unwrap();
    });
}

#[test]
fn f03_panic_in_the_factory() {
    system(async {
        let thread = Arbiter::new();
        let a = Specimen::start_in_arbiter(&thread.handle(), |_| panic!("in the factory"));
        until("its mailbox closes", || !a.connected()).await;
        assert!(thread.handle().alive(), "and nobody is told");
        thread.stop();
        thread.join().unwrap();

        let (child, a) = Child::actor(eager("a"), |child| {
            assert!(child.incarnation() > 1, "in the factory");
            Ok(Specimen::new("a", Manner::Well, &Arc::default()))
        });
        let (root, record) = start(vec![child]);
        assert_eq!((a.ask(Ping, PATIENCE).await, a.incarnation()), (Ok(1), 2));
        assert_eq!(record.panics("a"), ["in the factory"]);
        root.shutdown().await.unwrap();
    });
}

/// What a process does that dies or survives for F5.
async fn second_panic(role: &str) {
    let manner = if role.ends_with("stopping") { Manner::PanicsInStopping } else { Manner::PanicsInStopped };
    if role.starts_with("plain") {
        let a = Specimen::new("a", manner, &Arc::default()).start();
        let _ = a.send(Boom).await;
    } else {
        let seen = Arc::new(Seen::default());
        let (child, a) = specimen(eager("a"), manner, &seen);
        let (root, record) = start(vec![child]);
        a.tell(Boom).unwrap();
        assert_eq!((a.ask(Ping, PATIENCE).await, a.incarnation()), (Ok(1), 2));
        assert_eq!((record.panics("a"), seen.stops()), (vec!["in a handler".to_owned()], 0));
        root.shutdown().await.unwrap();
    }
}

#[test]
fn f05_a_panicking_hook_after_a_panic_aborts_the_process() {
    if let Some(role) = role() {
        system(second_panic(&role));
        println!("survived as {role}");
        return;
    }
    let run = |role| alone("panics::f05_a_panicking_hook_after_a_panic_aborts_the_process", role);
    for role in ["plain stopping", "plain stopped"] {
        let (status, text) = run(role);
        assert_eq!(status.signal(), Some(SIGABRT), "{role}: {status}\n{text}");
        assert!(!text.contains("survived as"), "{text}");
    }
    for role in ["ours stopping", "ours stopped"] {
        let (status, text) = run(role);
        assert!(status.success() && text.contains(&format!("survived as {role}")), "{role}: {status}\n{text}");
    }
}

#[test]
fn f06_messages_are_handled_on_the_broken_actor_while_it_is_dropped() {
    system(async {
        let seen = Arc::new(Seen::default());
        let a = Specimen::new("a", Manner::StaysOn, &seen).start();
        a.do_send(Boom);
        for _ in 0..5 {
            a.do_send(Ping);
        }
        until("it is dropped", || seen.notes() == ["a dropped"]).await;
        let in_unwinding = seen.pings_in_unwinding.load(std::sync::atomic::Ordering::SeqCst);
        assert_eq!((seen.pings(), in_unwinding, seen.stops()), (5, 5, 1));

        let seen = Arc::new(Seen::default());
        let spec = hivekeeper_actors::ChildSpec { shutdown: hivekeeper_actors::Shutdown::Brutal, ..eager("a") };
        let (child, a) = specimen(spec, Manner::StaysOn, &seen);
        a.tell(Boom).unwrap();
        for _ in 0..5 {
            a.tell(Ping).unwrap();
        }
        let (root, _) = start(vec![child]);
        assert_eq!((a.ask(Ping, PATIENCE).await, a.incarnation()), (Ok(6), 2), "all on the fresh one");
        assert_eq!(seen.pings_in_unwinding.load(std::sync::atomic::Ordering::SeqCst), 0);
        assert_eq!(seen.stops(), 0, "no hook runs on the broken one");
        root.shutdown().await.unwrap();
    });
}
