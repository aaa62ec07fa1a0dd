//! Auto-shutdown and significance, changed while the children live.

use AutoShutdown::{AllSignificant, AnySignificant, Never};
use hivekeeper_actors::{AutoShutdown, ChildRef, ChildSpec, ExitReason, RestartType, SpecError, SupervisorError};

use crate::harness::*;

fn transient(id: &str, significant: bool) -> ChildSpec {
    ChildSpec { significant, ..of_type(id, RestartType::Transient) }
}

/// Adds a significant child.
async fn add(sup: &Sup, id: &str) -> ChildRef<Worker> {
    let (child, worker) = worker(transient(id, true));
    sup.start_child(child).await.unwrap();
    worker
}

/// A significant child is refused under a supervisor that does not shut down by itself.
async fn refused(sup: &Sup, id: &str) {
    let error = SpecError::AutoShutdown { id: id.into() };
    assert_eq!(sup.start_child(worker(transient(id, true)).0).await, Err(SupervisorError::Invalid(error)));
}

/// Changes the flags alone, and sees that this ends nobody.
async fn change(sup: &Sup, auto_shutdown: AutoShutdown) {
    let living = sup.counts().await;
    soon(sup.change(auto(auto_shutdown), vec![])).await.unwrap();
    assert!(sup.lives().await);
    assert_eq!(sup.counts().await, living);
}

/// The first of two significant children ends: so does the supervisor.
async fn first_is_enough(sup: Sup, [first, _]: [ChildRef<Worker>; 2]) {
    let record = sup.record.clone();
    sup.end("child1", &first, How::Normal).await;
    sup.gone(ExitReason::Shutdown).await;
    assert_eq!(record.exits("child2"), [ExitReason::Shutdown]);
}

/// The first of two significant children ends alone, the second with the supervisor.
async fn both_are_needed(sup: Sup, [first, second]: [ChildRef<Worker>; 2]) {
    sup.end("child1", &first, How::Normal).await;
    assert!(sup.lives().await);
    assert_eq!(sup.record.exits("child2"), []);
    sup.end("child2", &second, How::Normal).await;
    sup.gone(ExitReason::Shutdown).await;
}

async fn from_never(to: AutoShutdown) -> (Sup, [ChildRef<Worker>; 2]) {
    let sup = Sup::start(auto(Never), vec![]).await;
    refused(&sup, "child1").await;
    change(&sup, to).await;
    let children = [add(&sup, "child1").await, add(&sup, "child2").await];
    (sup, children)
}

async fn to_never(from: AutoShutdown) {
    let sup = Sup::start(auto(from), vec![]).await;
    let child1 = add(&sup, "child1").await;
    change(&sup, Never).await;
    refused(&sup, "child2").await;
    sup.end("child1", &child1, How::Normal).await;
    assert!(sup.lives().await);
    assert_eq!(sup.restart("child1").await, Ok(2));
    let record = sup.record.clone();
    sup.stop().await;
    assert_eq!(record.exits("child1"), [ExitReason::Normal, ExitReason::Shutdown]);
}

async fn between(from: AutoShutdown, to: AutoShutdown) -> (Sup, [ChildRef<Worker>; 2]) {
    let sup = Sup::start(auto(from), vec![]).await;
    let children = [add(&sup, "child1").await, add(&sup, "child2").await];
    change(&sup, to).await;
    (sup, children)
}

#[test]
fn significant_upgrade_never_any() {
    system(async {
        let (sup, children) = from_never(AnySignificant).await;
        first_is_enough(sup, children).await;
    });
}

#[test]
fn significant_upgrade_any_never() {
    system(to_never(AnySignificant));
}

#[test]
fn significant_upgrade_never_all() {
    system(async {
        let (sup, children) = from_never(AllSignificant).await;
        both_are_needed(sup, children).await;
    });
}

#[test]
fn significant_upgrade_all_never() {
    system(to_never(AllSignificant));
}

#[test]
fn significant_upgrade_any_all() {
    system(async {
        let (sup, children) = between(AnySignificant, AllSignificant).await;
        both_are_needed(sup, children).await;
    });
}

#[test]
fn significant_upgrade_all_any() {
    system(async {
        let (sup, children) = between(AllSignificant, AnySignificant).await;
        first_is_enough(sup, children).await;
    });
}

#[test]
fn significant_upgrade_child() {
    system(async {
        let child = |significant| worker(transient("child", significant));

        // Under `never` no child becomes significant, and the attempt changes nothing.
        let sup = Sup::start(auto(Never), vec![child(false).0]).await;
        let error = SpecError::AutoShutdown { id: "child".into() };
        assert_eq!(sup.change(auto(Never), vec![child(true).0]).await, Err(SupervisorError::Invalid(error)));
        assert!(sup.lives().await);
        assert!(!sup.get_childspec(&"child".into()).await.unwrap().significant);
        assert_eq!(sup.which().await, [("child".into(), Is(1))]);
        sup.stop().await;

        // One that becomes significant takes the supervisor along, and one that ceases to be does not.
        for becomes in [true, false] {
            let (first, handle) = child(!becomes);
            let sup = Sup::start(auto(AnySignificant), vec![first]).await;
            sup.change(auto(AnySignificant), vec![child(becomes).0]).await.unwrap();
            assert!(sup.lives().await);
            assert_eq!(sup.which().await, [("child".into(), Is(1))], "the incarnation lives on");
            sup.end("child", &handle, How::Normal).await;
            if becomes {
                sup.gone(ExitReason::Shutdown).await;
            } else {
                assert!(sup.lives().await);
                sup.stop().await;
            }
        }
    });
}
