//! Whom a failure touches, and when it is one too many.

use std::sync::Arc;

use hivekeeper_actors::{Child, ChildRef, ChildSpec, ExitReason, Presence, RestartType, Shutdown, Strategy};
use tokio::sync::mpsc::{Receiver, channel};

use crate::harness::*;

/// A supervisor with `child1` to `childN`.
async fn family<const N: usize>(strategy: Strategy, max_restarts: u32) -> (Sup, [ChildRef<Worker>; N]) {
    let sup = Sup::start(flags(strategy, max_restarts), vec![]).await;
    let children = std::array::from_fn(|n| worker(spec(&format!("child{}", n + 1))));
    let workers = children.clone().map(|(_, worker)| worker);
    for (child, _) in children {
        sup.start_child(child).await.unwrap();
    }
    (sup, workers)
}

fn child(n: u32, pid: Presence) -> (String, Presence) {
    (format!("child{n}"), pid)
}

/// Restarts that lie further apart than the period never add up.
#[test]
fn multiple_restarts() {
    system(async {
        let sup = Sup::start(limited(Strategy::OneForOne, 1, MS * 1000), vec![]).await;
        let (child1, failing) = worker(ChildSpec { shutdown: Shutdown::Brutal, ..spec("child1") });
        sup.start_child(child1).await.unwrap();
        for _ in 0..4 {
            sup.end("child1", &failing, How::Died).await;
            after(MS * 2100).await;
        }
        assert_eq!(sup.which().await, [child(1, Is(5))]);
        sup.terminate("child1").await.unwrap();
        sup.delete("child1").await.unwrap();
        sup.stop().await;
    });
}

#[test]
fn one_for_one() {
    system(async {
        let (sup, [first, second]) = family(Strategy::OneForOne, 2).await;
        sup.end("child1", &first, How::Died).await;
        assert_eq!(sup.which().await, [child(1, Is(2)), child(2, Is(1))], "the other one stays who it is");
        assert_eq!(sup.counts().await, [2, 2, 0, 2]);
        sup.end("child2", &second, How::Died).await;
        assert_eq!(sup.which().await, [child(1, Is(2)), child(2, Is(2))]);
        sup.end("child1", &first, How::Died).await;
        sup.gave_up("child1").await;
    });
}

#[test]
fn one_for_one_escalation() {
    escalation(Strategy::OneForOne, "child1");
}

#[test]
fn one_for_all() {
    system(async {
        let (sup, [first, second]) = family(Strategy::OneForAll, 2).await;
        sup.end("child1", &first, How::Died).await;
        assert_eq!(sup.record.exits("child2"), [ExitReason::Shutdown]);
        assert_eq!(sup.which().await, [child(1, Is(2)), child(2, Is(2))], "none of the old ones lives");
        assert_eq!(sup.counts().await, [2, 2, 0, 2]);
        sup.end("child2", &second, How::Died).await;
        assert_eq!(sup.which().await, [child(1, Is(3)), child(2, Is(3))]);
        sup.end("child2", &second, How::Died).await;
        sup.gave_up("child2").await;
    });
}

#[test]
fn one_for_all_escalation() {
    escalation(Strategy::OneForAll, "child2");
}

#[test]
fn rest_for_one() {
    system(async {
        let (sup, [_, second, third]) = family(Strategy::RestForOne, 2).await;
        assert_eq!(sup.counts().await, [3, 3, 0, 3]);
        sup.end("child2", &second, How::Died).await;
        assert_eq!(sup.record.exits("child3"), [ExitReason::Shutdown]);
        assert_eq!(sup.which().await, [child(1, Is(1)), child(2, Is(2)), child(3, Is(2))]);
        assert_eq!(sup.counts().await, [3, 3, 0, 3]);
        sup.end("child3", &third, How::Died).await;
        assert_eq!(sup.which().await, [child(1, Is(1)), child(2, Is(2)), child(3, Is(3))]);
        sup.end("child2", &second, How::Died).await;
        sup.gave_up("child2").await;
    });
}

#[test]
fn rest_for_one_escalation() {
    escalation(Strategy::RestForOne, "child2");
}

/// `child1` dies. A child that starts only once, `child1` itself or one that is restarted with it, makes every restart fail, until the supervisor
/// gives up and the other child goes with it.
fn escalation(strategy: Strategy, once: &str) {
    system(async {
        let sup = Sup::start(flags(strategy, 4), vec![]).await;
        let role = |id| Role { once: id == once, ..Role::default() };
        let (child1, first) = player(spec("child1"), role("child1"));
        let (child2, _) = player(spec("child2"), role("child2"));
        sup.start_child(child1).await.unwrap();
        sup.start_child(child2).await.unwrap();
        let record = Arc::clone(&sup.record);
        sup.end("child1", &first, How::Died).await;
        sup.gave_up(once).await;
        let failed = record.exits(once).iter().filter(|end| matches!(end, ExitReason::StartFailed(_))).count();
        assert_eq!(failed, 4, "each failed start counts, and what is one too many is the fifth failure");
        let other = if once == "child1" { "child2" } else { "child1" };
        assert_eq!(record.exits(other).last(), Some(&ExitReason::Shutdown));

        // A supervisor that gives up has failed: a transient one is restarted. OTP's ends with `shutdown`, and isn't.
        let (child1, only) = worker(spec("child1"));
        let inner = Child::supervisor(of_type("inner", RestartType::Transient), flags(strategy, 0), vec![child1]).0;
        let sup = Sup::start(flags(Strategy::OneForOne, 1), vec![inner]).await;
        sup.end("child1", &only, How::Died).await;
        assert_eq!(sup.which().await, [("inner".into(), Is(2))]);
        sup.stop().await;
    });
}

/// `child1` and `child2`, each of which starts only when the test lets it in.
async fn gated(strategy: Strategy) -> (Sup, [ChildRef<Worker>; 2], Receiver<String>) {
    let (gate, mut starts) = channel(16);
    let role = Role { gate: Some(gate), ..Role::default() };
    let children = ["child1", "child2"].map(|id| player(spec(id), role.clone()));
    let workers = children.clone().map(|(_, worker)| worker);
    let letting_in = workers.clone();
    let doorman = actix_rt::spawn(async move {
        for (id, worker) in ["child1", "child2"].iter().zip(&letting_in) {
            assert_eq!(soon(starts.recv()).await.as_deref(), Some(*id));
            worker.run(|worker, _| worker.let_in()).unwrap();
        }
        starts
    });
    let sup = Sup::start(flags(strategy, 3), children.map(|(child, _)| child).into()).await;
    (sup, workers, doorman.await.unwrap())
}

/// The sibling's start fails during a group restart: the one that has been restarted already is stopped again, and all are started anew.
#[test]
fn one_for_all_other_child_fails_restart() {
    system(async {
        let (sup, [first, second], mut starts) = gated(Strategy::OneForAll).await;
        sup.end("child1", &first, How::Died).await;
        assert_eq!(soon(starts.recv()).await.unwrap(), "child1");
        first.run(|worker, _| worker.let_in()).unwrap();
        assert_eq!(soon(starts.recv()).await.unwrap(), "child2");
        sup.record.forget();
        sup.end("child2", &second, How::Normal).await;
        assert_eq!(sup.record.exits("child1"), [ExitReason::Shutdown], "the restarted child is stopped");
        for (id, worker) in [("child1", &first), ("child2", &second)] {
            assert_eq!(soon(starts.recv()).await.unwrap(), id);
            worker.run(|worker, _| worker.let_in()).unwrap();
        }
        quiet().await;
        assert_eq!(sup.which().await, [child(1, Is(3)), child(2, Is(3))]);
        sup.stop().await;
    });
}

/// Under rest_for_one the one that was started before stays.
#[test]
fn rest_for_one_other_child_fails_restart() {
    system(async {
        let (sup, [first, second], mut starts) = gated(Strategy::RestForOne).await;
        sup.end("child1", &first, How::Died).await;
        assert_eq!(soon(starts.recv()).await.unwrap(), "child1");
        first.run(|worker, _| worker.let_in()).unwrap();
        assert_eq!(soon(starts.recv()).await.unwrap(), "child2");
        sup.end("child2", &second, How::Normal).await;
        assert_eq!(soon(starts.recv()).await.unwrap(), "child2", "the first is not started again");
        second.run(|worker, _| worker.let_in()).unwrap();
        quiet().await;
        assert_eq!(sup.which().await, [child(1, Is(2)), child(2, Is(3))]);
        sup.stop().await;
    });
}
