//! The six cases that quickwit tests of its supervisor, as far as they apply.

use std::sync::Arc;

use hivekeeper_actors::{Child, ChildCtx, ChildRef, ChildSpec, ExitReason, Shutdown};

use crate::harness::*;

#[test]
fn quickwit_restart_on_panic() {
    system(async {
        let (child, a) = specimen(eager("a"), Manner::Well, &Arc::default());
        let (root, record) = start(vec![child]);
        for incarnation in 1..=3 {
            assert_eq!((a.ask(Ping, PATIENCE).await, a.incarnation()), (Ok(1), incarnation));
            a.tell(Boom).unwrap();
            until("it ends", || record.exits("a").len() as u64 == incarnation).await;
        }
        root.shutdown().await.unwrap();
    });
}

/// An actor that keeps the way to its supervisor.
struct Member(ChildCtx<Member>);

impl actix::Actor for Member {
    type Context = actix::Context<Self>;
}

#[test]
fn quickwit_restart_on_error() {
    system(async {
        let (child, a): (Child, ChildRef<Member>) = Child::actor(eager("a"), |child| Ok(Member(child)));
        let (root, record) = start(vec![child]);
        a.run(|member, context| member.0.fail(context, "exit code 3")).unwrap();
        until("another takes its place", || a.incarnation() == 2 && record.count("a Started") == 2).await;
        assert_eq!(record.exits("a"), [ExitReason::Error("exit code 3".into())]);
        root.shutdown().await.unwrap();
    });
}

/// "Kills and restarts frozen". Theirs polls every three seconds, and so do its restarts.
#[test]
fn quickwit_a_frozen_child_is_replaced() {
    system(async {
        let (deed, is_blocked, release) = block(&Arc::default());
        let (child, a) = specimen(eager("a"), Manner::Well, &Arc::default());
        let (root, record) = start_watched(vec![child]);
        a.tell(deed).unwrap();
        until("it freezes", || is_blocked.try_recv().is_ok()).await;
        assert_eq!((a.ask(Ping, PATIENCE).await, a.incarnation()), (Ok(1), 2));
        assert_eq!(record.exits("a"), [ExitReason::Stuck]);
        release.send(()).unwrap();
        root.shutdown().await.unwrap();
    });
}

/// "Forwards quit": the order to the supervisor reaches the child, which may wind down.
#[test]
fn quickwit_a_quit_reaches_the_child() {
    system(async {
        let seen = Arc::new(Seen::default());
        let spec = ChildSpec { shutdown: Shutdown::Infinity, ..eager("a") };
        let (child, _) = specimen(spec, Manner::WindsDown, &seen);
        let (root, record) = start(vec![child]);
        root.started().await.unwrap();
        root.shutdown().await.unwrap();
        assert_eq!(seen.notes(), ["a wound down", "a dropped"]);
        assert_eq!(record.exits("a"), [ExitReason::Shutdown]);
    });
}

/// "Forwards kill": a child that is not to be asked is dropped at once.
#[test]
fn quickwit_a_kill_reaches_the_child() {
    system(async {
        let seen = Arc::new(Seen::default());
        let (child, _) = specimen(ChildSpec { shutdown: Shutdown::Brutal, ..eager("a") }, Manner::WindsDown, &seen);
        let (root, record) = start(vec![child]);
        root.started().await.unwrap();
        root.shutdown().await.unwrap();
        assert_eq!(seen.notes(), ["a dropped"]);
        assert_eq!(record.exits("a"), [ExitReason::Killed]);
    });
}
