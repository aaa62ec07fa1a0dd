//! Which ends of which children end their supervisor.

use AutoShutdown::{AllSignificant, AnySignificant, Never};
use hivekeeper_actors::{AutoShutdown, Child, ChildRef, ChildSpec, ExitReason, RestartType, Strategy, Template};

use crate::harness::*;

fn specified(id: &str, restart: RestartType, significant: bool) -> ChildSpec {
    ChildSpec { significant, ..of_type(id, restart) }
}

/// Adds a child to a running supervisor.
async fn add(sup: &Sup, spec: ChildSpec) -> ChildRef<Worker> {
    let (child, worker) = worker(spec);
    sup.start_child(child).await.unwrap();
    worker
}

/// Two significant children and one that is not, all of this type.
async fn three(auto_shutdown: AutoShutdown, restart: RestartType) -> (Sup, [ChildRef<Worker>; 3]) {
    let sup = Sup::start(auto(auto_shutdown), vec![]).await;
    let first = add(&sup, specified("child1", restart, true)).await;
    let second = add(&sup, specified("child2", restart, true)).await;
    let third = add(&sup, specified("child3", restart, false)).await;
    (sup, [first, second, third])
}

/// How often each of the three has ended.
fn ends(sup: &Sup) -> [usize; 3] {
    ["child1", "child2", "child3"].map(|id| sup.record.exits(id).len())
}

/// It has shut itself down, and stopped those of these that were left.
async fn shut_down(sup: Sup, stopped: &[&str]) {
    let record = sup.record.clone();
    sup.gone(ExitReason::Shutdown).await;
    for id in stopped {
        assert_eq!(record.exits(id).last(), Some(&ExitReason::Shutdown), "{id}");
    }
}

/// The end of a child that is not significant never ends the supervisor.
async fn nonsignificant(restart: RestartType) {
    for auto_shutdown in [Never, AnySignificant, AllSignificant] {
        let sup = Sup::start(auto(auto_shutdown), vec![]).await;
        let mut child1 = add(&sup, specified("child1", restart, false)).await;
        sup.terminate("child1").await.unwrap();
        assert!(sup.lives().await);
        for how in [How::Panic, How::Died, How::Normal] {
            if restart == RestartType::Temporary {
                child1 = add(&sup, specified("child1", restart, false)).await;
            } else if how == How::Panic {
                sup.restart("child1").await.unwrap();
            }
            sup.end("child1", &child1, how).await;
            assert!(sup.lives().await, "{auto_shutdown:?} {how:?}");
        }
        sup.stop().await;
    }
}

#[test]
fn nonsignificant_temporary() {
    system(nonsignificant(RestartType::Temporary));
}

#[test]
fn nonsignificant_transient() {
    system(nonsignificant(RestartType::Transient));
}

/// With `all_significant` the first of two ends alone, and the second takes the supervisor along.
async fn last_of_two(restart: RestartType) {
    let (sup, [first, second, _]) = three(AllSignificant, restart).await;
    sup.end("child1", &first, How::Normal).await;
    assert!(sup.lives().await);
    assert_eq!(ends(&sup), [1, 0, 0]);
    sup.end("child2", &second, How::Normal).await;
    shut_down(sup, &["child3"]).await;
}

#[test]
fn significant_temporary() {
    system(async {
        let (sup, _) = three(AnySignificant, RestartType::Temporary).await;
        sup.terminate("child1").await.unwrap();
        assert!(sup.lives().await, "a request is no end by itself");
        assert_eq!(ends(&sup), [1, 0, 0]);
        let child1 = add(&sup, specified("child1", RestartType::Temporary, true)).await;
        sup.end("child1", &child1, How::Panic).await;
        shut_down(sup, &["child2", "child3"]).await;

        for how in [How::Died, How::Lost, How::Normal] {
            let (sup, [child1, ..]) = three(AnySignificant, RestartType::Temporary).await;
            sup.end("child1", &child1, how).await;
            shut_down(sup, &["child2", "child3"]).await;
        }
        last_of_two(RestartType::Temporary).await;
    });
}

#[test]
fn significant_transient() {
    system(async {
        let (sup, [child1, ..]) = three(AnySignificant, RestartType::Transient).await;
        sup.terminate("child1").await.unwrap();
        assert!(sup.lives().await, "a request is no end by itself");
        assert_eq!(ends(&sup), [1, 0, 0]);
        sup.restart("child1").await.unwrap();
        for (failures, how) in [(2, How::Panic), (3, How::Died)] {
            sup.end("child1", &child1, how).await;
            assert!(sup.lives().await, "it is restarted after {how:?}");
            assert_eq!(ends(&sup), [failures, 0, 0]);
            assert_eq!(sup.which().await[0], ("child1".into(), Is(failures as u64 + 1)));
        }
        sup.end("child1", &child1, How::Normal).await;
        shut_down(sup, &["child2", "child3"]).await;
        last_of_two(RestartType::Transient).await;
    });
}

#[test]
fn significant_simple() {
    system(async {
        for auto_shutdown in [AnySignificant, AllSignificant] {
            let of_template = specified("child", RestartType::Temporary, true);
            let template = Template::new(of_template, |child, ()| Worker::make(child, Role::default()));
            let (pool, children) =
                Child::dynamic(of_type("pool", RestartType::Temporary), auto(auto_shutdown), template);
            let sup = Sup::start(flags(Strategy::OneForOne, 0), vec![pool]).await;
            let (first, second) = (children.start(()).await.unwrap().1, children.start(()).await.unwrap().1);
            sup.end("child-1", &first, How::Normal).await;
            if auto_shutdown == AllSignificant {
                assert!(children.supervisor().count_children().await.is_ok());
                sup.end("child-2", &second, How::Normal).await;
            } else {
                assert_eq!(sup.record.exits("child-2"), [ExitReason::Shutdown]);
            }
            assert_eq!(sup.record.exits("pool"), [ExitReason::Shutdown]);
            sup.stop().await;
        }
    });
}

/// What a sibling's death does to a significant child is no end by itself.
#[test]
fn significant_bystander() {
    system(async {
        for strategy in [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne] {
            for auto_shutdown in [AnySignificant, AllSignificant] {
                let flags = hivekeeper_actors::SupervisorFlags { strategy, ..auto(auto_shutdown) };
                let sup = Sup::start(flags, vec![]).await;
                add(&sup, specified("child1", RestartType::Transient, true)).await;
                let child2 = add(&sup, specified("child2", RestartType::Transient, false)).await;
                add(&sup, specified("child3", RestartType::Transient, true)).await;
                sup.end("child2", &child2, How::Panic).await;
                assert!(sup.lives().await, "{strategy:?} {auto_shutdown:?}");
                let died = match strategy {
                    Strategy::OneForAll => [1, 1, 1],
                    Strategy::RestForOne => [0, 1, 1],
                    _ => [0, 1, 0],
                };
                assert_eq!(ends(&sup), died, "{strategy:?} {auto_shutdown:?}");
                assert_eq!(sup.counts().await, [3, 3, 0, 3]);
                sup.stop().await;
            }
        }
    });
}

/// A supervisor that has shut itself down is a significant child that has ended by itself, if it is one.
#[test]
fn significant_escalation() {
    system(async {
        for significant in [true, false] {
            let sup = Sup::start(auto(AnySignificant), vec![]).await;
            let (child, inner) =
                Child::supervisor(specified("sup1", RestartType::Transient, significant), auto(AnySignificant), vec![]);
            sup.start_child(child).await.unwrap();
            let (child1, handle) = worker(specified("child1", RestartType::Transient, true));
            inner.start_child(child1).await.unwrap();
            sup.end("child1", &handle, How::Normal).await;
            assert_eq!(sup.record.exits("sup1"), [ExitReason::Shutdown]);
            if significant {
                shut_down(sup, &[]).await;
            } else {
                assert!(sup.lives().await);
                assert_eq!(sup.which().await, [("sup1".into(), Undefined)]);
                sup.stop().await;
            }
        }
    });
}
