//! Which ends are followed by a restart: the three restart types by the ways to end, and what becomes of a temporary bystander.

use hivekeeper_actors::{AutoShutdown, Child, ChildRef, ChildSpec, ExitReason, Ready, RestartType, Strategy};

use crate::harness::*;

/// One child of this type that ended like this, and all that followed.
async fn ended(restart: RestartType, how: How) -> (Sup, ChildRef<Worker>) {
    let sup = Sup::start(flags(Strategy::OneForOne, 2), vec![]).await;
    let (child, worker) = worker(of_type("child1", restart));
    sup.start_child(child).await.unwrap();
    sup.end("child1", &worker, how).await;
    (sup, worker)
}

/// It was restarted, once.
async fn restarted(sup: Sup) {
    assert_eq!(sup.which().await, [("child1".into(), Is(2))]);
    assert_eq!(sup.counts().await, [1, 1, 0, 1]);
    sup.stop().await;
}

/// Its specification is kept, and nothing runs.
async fn kept(sup: Sup) {
    assert_eq!(sup.which().await, [("child1".into(), Undefined)]);
    assert_eq!(sup.counts().await, [1, 0, 0, 1]);
    sup.stop().await;
}

/// Nothing is left of it.
async fn forgotten(sup: Sup) {
    assert_eq!(sup.which().await, []);
    assert_eq!(sup.counts().await, [0, 0, 0, 0]);
    sup.stop().await;
}

#[test]
fn permanent_normal() {
    system(async { restarted(ended(RestartType::Permanent, How::Normal).await.0).await });
}

#[test]
fn transient_normal() {
    system(async { kept(ended(RestartType::Transient, How::Normal).await.0).await });
}

#[test]
fn temporary_normal() {
    system(async { forgotten(ended(RestartType::Temporary, How::Normal).await.0).await });
}

#[test]
fn permanent_abnormal() {
    system(async {
        for how in [How::Died, How::Panic, How::Lost] {
            restarted(ended(RestartType::Permanent, how).await.0).await;
        }
    });
}

#[test]
fn transient_abnormal() {
    system(async {
        for how in [How::Died, How::Panic, How::Lost] {
            restarted(ended(RestartType::Transient, how).await.0).await;
        }
    });
}

#[test]
fn temporary_abnormal() {
    system(async {
        for how in [How::Died, How::Panic, How::Lost] {
            forgotten(ended(RestartType::Temporary, how).await.0).await;
        }
    });
}

/// The one thing here that ends by itself with `Shutdown`: a supervisor whose significant child has ended.
fn ends_with_shutdown(restart: RestartType) -> (Child, ChildRef<Worker>) {
    let (inner, worker) = worker(ChildSpec { significant: true, ..of_type("inner", RestartType::Temporary) });
    let child = Child::supervisor(of_type("child1", restart), auto(AutoShutdown::AnySignificant), vec![inner]).0;
    (child, worker)
}

/// Makes it end so, and sees it.
async fn shut_down(sup: &Sup, worker: &ChildRef<Worker>) {
    let before = sup.record.exits("child1").len();
    sup.end("inner", worker, How::Normal).await;
    assert_eq!(sup.record.exits("child1").get(before), Some(&ExitReason::Shutdown));
}

#[test]
fn permanent_shutdown() {
    system(async {
        let sup = Sup::start(flags(Strategy::OneForOne, 2), vec![]).await;
        let (child, worker) = ends_with_shutdown(RestartType::Permanent);
        sup.start_child(child).await.unwrap();
        for incarnation in [2, 3] {
            shut_down(&sup, &worker).await;
            assert_eq!(sup.which().await, [("child1".into(), Is(incarnation))]);
            assert_eq!(sup.counts().await, [1, 1, 1, 0]);
        }
        sup.stop().await;
    });
}

#[test]
fn transient_shutdown() {
    system(async {
        let sup = Sup::start(flags(Strategy::OneForOne, 2), vec![]).await;
        let (child, worker) = ends_with_shutdown(RestartType::Transient);
        sup.start_child(child).await.unwrap();
        for incarnation in [2, 3] {
            shut_down(&sup, &worker).await;
            assert_eq!(sup.which().await, [("child1".into(), Undefined)]);
            assert_eq!(sup.counts().await, [1, 0, 1, 0]);
            assert_eq!(sup.restart("child1").await, Ok(incarnation));
        }
        sup.stop().await;
    });
}

#[test]
fn temporary_shutdown() {
    system(async {
        let sup = Sup::start(flags(Strategy::OneForOne, 2), vec![]).await;
        for _ in 0..2 {
            let (child, worker) = ends_with_shutdown(RestartType::Temporary);
            sup.start_child(child).await.unwrap();
            shut_down(&sup, &worker).await;
            assert_eq!(sup.which().await, []);
            assert_eq!(sup.counts().await, [0, 0, 0, 0]);
        }
        sup.stop().await;
    });
}

/// A child that fails while it starts takes its application along, and the error says what failed and where: OTP shows the call stack, we
/// the panic's text and place. Intensity 0 makes a first failed start fatal, as it always is in OTP.
#[test]
fn faulty_application_shutdown() {
    system(async {
        let faulty = |spec| {
            Child::actor(spec, |_| -> Result<Worker, _> {
                panic!("no function of that name");
            })
        };
        let line = line!() - 3;
        let spec = ChildSpec { ready: Ready::Started, ..spec("server") };
        let (app, _) = Child::supervisor(
            of_type("app", RestartType::Temporary),
            flags(Strategy::OneForOne, 0),
            vec![worker(crate::harness::spec("first")).0, faulty(spec).0],
        );
        let sup = Sup::start(flags(Strategy::OneForOne, 0), vec![]).await;
        let Err(hivekeeper_actors::SupervisorError::StartFailed { reason }) = sup.start_child(app).await else {
            panic!("it started");
        };
        let ExitReason::GaveUp { child, reason } = &reason else { panic!("{reason:?}") };
        let ExitReason::Panic { text, location } = &**reason else { panic!("{reason:?}") };
        assert_eq!((child.as_str(), &**text), ("server", "no function of that name"));
        assert!(location.contains(&format!("restart_types.rs:{line}:")), "{location}");
        assert_eq!(sup.record.exits("first"), [ExitReason::Shutdown], "those that had started are stopped");
        assert_eq!(sup.which().await, [], "and nothing of the application is kept");
        sup.stop().await;
    });
}

#[test]
fn temporary_bystander() {
    system(async {
        for strategy in [Strategy::OneForAll, Strategy::RestForOne] {
            let sup = Sup::start(flags(strategy, 2), vec![]).await;
            let (child1, failing) = worker(of_type("child1", RestartType::Permanent));
            let (child2, _) = worker(of_type("child2", RestartType::Temporary));
            sup.start_child(child1).await.unwrap();
            sup.start_child(child2).await.unwrap();
            sup.end("child1", &failing, How::Normal).await;
            assert!(sup.lives().await, "the bystander spends no intensity");
            assert_eq!(sup.which().await, [("child1".into(), Is(2))], "the bystander is not restarted");
            assert_eq!(sup.record.exits("child2"), [ExitReason::Shutdown]);
            sup.stop().await;
        }
    });
}
