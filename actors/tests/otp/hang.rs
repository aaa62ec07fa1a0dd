//! Children in a loop of failing restarts, each of which takes its time: they can be looked at and stopped, and so can their supervisor.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hivekeeper_actors::{
    Child, ChildRef, ChildSpec, DynamicRef, ExitReason, RestartType, Shutdown, Strategy, SupervisorError, Template,
};

use crate::harness::*;

/// While it is set, a start takes two seconds and fails: eight restarts in ten seconds are not exceeded, and the loop goes on.
type Deadlock = Arc<AtomicBool>;

fn brutal(id: &str) -> ChildSpec {
    ChildSpec { shutdown: Shutdown::Brutal, ..spec(id) }
}

fn deadlocked(id: &str) -> (Deadlock, Child, ChildRef<Worker>) {
    let deadlock = Deadlock::default();
    let role = Role { deadlock: Some(Arc::clone(&deadlock)), ..Role::default() };
    let (child, worker) = player(brutal(id), role);
    (deadlock, child, worker)
}

/// It dies, and is started for two seconds in vain; some of that time has passed.
async fn hang(sup: &Sup, id: &str, deadlock: &Deadlock, worker: &ChildRef<Worker>) {
    deadlock.store(true, Ordering::SeqCst);
    sup.end(id, worker, How::Died).await;
    after(MS * 3000).await;
}

/// A shutdown in the middle of a failing start does not wait for it.
async fn stops_at_once(sup: Sup) {
    let took = sup.stop().await;
    assert!(took < MS * 100, "{took:?}");
}

#[test]
fn hanging_restart_loop() {
    system(async {
        let sup = Sup::start(limited(Strategy::OneForOne, 8, MS * 10_000), vec![]).await;
        let (deadlock, child1, worker) = deadlocked("child1");
        sup.start_child(child1).await.unwrap();
        hang(&sup, "child1", &deadlock, &worker).await;
        assert!(sup.record.exits("child1").len() >= 2, "a restart has failed");

        let again = sup.start_child(deadlocked("child1").1).await;
        assert_eq!(again, Err(SupervisorError::AlreadyPresent));
        assert_eq!(sup.restart("child1").await, Err(SupervisorError::Restarting));
        assert_eq!(sup.delete("child1").await, Err(SupervisorError::Restarting));
        assert_eq!(sup.which().await, [("child1".into(), Restarting)]);
        assert_eq!(sup.counts().await, [1, 0, 0, 1]);

        sup.terminate("child1").await.unwrap();
        assert_eq!(sup.record.exits("child1")[0], ExitReason::Error("died".into()));
        assert_eq!(sup.which().await, [("child1".into(), Undefined)]);

        deadlock.store(false, Ordering::SeqCst);
        sup.restart("child1").await.unwrap();
        sup.record.forget();
        hang(&sup, "child1", &deadlock, &worker).await;
        assert_eq!(sup.record.exits("child1")[0], ExitReason::Error("died".into()));
        stops_at_once(sup).await;
    });
}

#[test]
fn hanging_restart_loop_rest_for_one() {
    system(async {
        let sup = Sup::start(limited(Strategy::RestForOne, 8, MS * 10_000), vec![]).await;
        let (deadlock, child2, second) = deadlocked("child2");
        sup.start_child(worker(brutal("child1")).0).await.unwrap();
        sup.start_child(child2).await.unwrap();
        sup.start_child(worker(brutal("child3")).0).await.unwrap();
        hang(&sup, "child2", &deadlock, &second).await;
        assert!(sup.record.exits("child2").len() >= 2, "a restart has failed");

        let again = sup.start_child(deadlocked("child2").1).await;
        assert_eq!(again, Err(SupervisorError::AlreadyPresent));
        assert_eq!(sup.restart("child2").await, Err(SupervisorError::Restarting));
        assert_eq!(sup.delete("child2").await, Err(SupervisorError::Restarting));
        // In OTP child3 is `undefined`, and stays so when child2 is terminated. Here it waits for its turn, and a request for one child touches
        // that child alone: the others of the group come back.
        let which = |second, third| [("child1".into(), Is(1)), ("child2".into(), second), ("child3".into(), third)];
        assert_eq!(sup.which().await, which(Restarting, Restarting));
        assert_eq!(sup.counts().await, [3, 1, 0, 3]);

        sup.terminate("child2").await.unwrap();
        assert_eq!(sup.record.exits("child2")[0], ExitReason::Error("died".into()));
        quiet().await;
        assert_eq!(sup.which().await, which(Undefined, Is(2)), "it stays stopped, alone");

        deadlock.store(false, Ordering::SeqCst);
        sup.restart("child2").await.unwrap();
        sup.record.forget();
        hang(&sup, "child2", &deadlock, &second).await;
        assert_eq!(sup.record.exits("child2")[0], ExitReason::Error("died".into()));
        stops_at_once(sup).await;
    });
}

/// Children of a template that all look at one flag.
async fn pool(max_restarts: u32) -> (Sup, DynamicRef<Worker, ()>, Deadlock) {
    let deadlock = Deadlock::default();
    let shared = Arc::clone(&deadlock);
    let spec_of_child = ChildSpec { ready: hivekeeper_actors::Ready::Signalled, ..brutal("child") };
    let template = Template::new(spec_of_child, move |child, ()| {
        Worker::make(child, Role { deadlock: Some(Arc::clone(&shared)), ..Role::default() })
    });
    let flags_of_pool = limited(Strategy::SimpleOneForOne, max_restarts, MS * 10_000);
    let (pool, children) = Child::dynamic(of_type("pool", RestartType::Temporary), flags_of_pool, template);
    (Sup::start(flags(Strategy::OneForOne, 0), vec![pool]).await, children, deadlock)
}

#[test]
fn hanging_restart_loop_simple() {
    system(async {
        let (sup, children, deadlock) = pool(8).await;
        let pool = children.supervisor();
        let (id, worker) = children.start(()).await.unwrap();
        hang(&sup, id.as_str(), &deadlock, &worker).await;
        assert!(sup.record.exits(id.as_str()).len() >= 2, "a restart has failed");

        assert_eq!(pool.restart(id.as_str()).await, Err(SupervisorError::SimpleOneForOne));
        assert_eq!(pool.delete(id.as_str()).await, Err(SupervisorError::SimpleOneForOne));
        assert_eq!(pool.which().await, [(id.to_string(), Restarting)]);
        assert_eq!(numbers(children.count_children().await.unwrap()), [1, 0, 0, 1]);

        children.terminate(&id).await.unwrap();
        assert_eq!(sup.record.exits(id.as_str())[0], ExitReason::Error("died".into()));
        assert_eq!(pool.which().await, []);

        deadlock.store(false, Ordering::SeqCst);
        let (id, worker) = children.start(()).await.unwrap();
        hang(&sup, id.as_str(), &deadlock, &worker).await;
        assert_eq!(sup.record.exits(id.as_str())[0], ExitReason::Error("died".into()));
        stops_at_once(sup).await;
    });
}

#[test]
fn count_restarting_children() {
    system(async {
        let (sup, children, deadlock) = pool(20).await;
        let counts = async || numbers(children.count_children().await.unwrap());
        assert_eq!(counts().await, [1, 0, 0, 0]);
        let mut started = Vec::new();
        for n in 1..=3 {
            started.push(children.start(()).await.unwrap());
            assert_eq!(counts().await, [1, n, 0, n]);
        }
        for (id, worker) in &started {
            sup.end(id.as_str(), worker, How::Died).await;
        }
        assert_eq!(counts().await, [1, 3, 0, 3]);

        for (id, worker) in &started[..2] {
            hang(&sup, id.as_str(), &deadlock, worker).await;
        }
        assert_eq!(counts().await, [1, 1, 0, 3], "who is being restarted is not active");
        deadlock.store(false, Ordering::SeqCst);
        after(MS * 4000).await;
        assert_eq!(counts().await, [1, 3, 0, 3], "and is again when that has succeeded");

        for (left, (id, _)) in started.iter().enumerate().rev() {
            children.terminate(id).await.unwrap();
            assert_eq!(counts().await, [1, left, 0, left]);
        }
        sup.stop().await;
    });
}
