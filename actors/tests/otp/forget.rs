//! What a supervisor forgets of a temporary child, and keeps of the others.

use std::sync::{Arc, Weak};

use hivekeeper_actors::{Child, ChildRef, RestartType, Strategy, SupervisorError};

use crate::harness::*;

const STATIC: [Strategy; 3] = [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne];

/// How a child ends: by itself, or because its supervisor is asked to end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Itself(How),
    Supervisor,
}

async fn end(sup: &Sup, id: &str, worker: &ChildRef<Worker>, end: End) {
    match end {
        End::Itself(how) => sup.end(id, worker, how).await,
        End::Supervisor => sup.terminate(id).await.unwrap(),
    }
}

/// A child whose factory holds something big, and what tells whether it still does.
fn heavy(id: &str, restart: RestartType) -> (Child, ChildRef<Worker>, Weak<[u8]>) {
    let big: Arc<[u8]> = vec![0; 50_000].into();
    let kept = Arc::downgrade(&big);
    let (child, worker) = Child::actor(of_type(id, restart), move |child| {
        assert!(!big.is_empty());
        Worker::make(child, Role::default())
    });
    (child, worker, kept)
}

/// Those that can be restarted keep what they are made from; of temporary ones nothing outlives the end. OTP forgets the arguments of a
/// temporary child when it has started; here its factory lives as long as it does.
#[test]
fn do_not_save_start_parameters_for_temporary_children() {
    system(async {
        for strategy in [STATIC[0], STATIC[1], STATIC[2], Strategy::SimpleOneForOne] {
            for (restart, saved) in
                [(RestartType::Permanent, true), (RestartType::Transient, true), (RestartType::Temporary, false)]
            {
                let sup = Sup::start(flags(strategy, 2), vec![]).await;
                let mut kept = Vec::new();
                for n in 0..100 {
                    let (child, worker, big) = heavy(&format!("child{n}"), restart);
                    sup.start_child(child).await.unwrap();
                    kept.push((worker, big));
                }
                let (worker, _) = &kept[99];
                sup.end("child99", worker, How::Died).await;
                for (n, (_, big)) in kept.iter().enumerate() {
                    let forgotten = n == 99 && !saved;
                    assert_eq!(big.upgrade().is_none(), forgotten, "{strategy:?} {restart:?} {n}");
                }
                sup.stop().await;
                drop(kept);
            }
        }
    });
}

#[test]
fn do_not_save_child_specs_for_temporary_children() {
    system(async {
        use SupervisorError::{AlreadyPresent, AlreadyStarted};
        let ends = [How::Panic, How::Normal, How::Died].map(End::Itself).into_iter().chain([End::Supervisor]);
        for (strategy, how) in STATIC.into_iter().flat_map(|strategy| ends.clone().map(move |how| (strategy, how))) {
            let sup = Sup::start(flags(strategy, 2), vec![]).await;
            for (id, restart) in [("child1", RestartType::Permanent), ("child2", RestartType::Transient)] {
                let (child, handle) = worker(of_type(id, restart));
                sup.start_child(child).await.unwrap();
                end(&sup, id, &handle, how).await;
                let done =
                    how == End::Supervisor || (restart == RestartType::Transient && how == End::Itself(How::Normal));
                let again = sup.start_child(worker(of_type(id, restart)).0).await;
                assert_eq!(again, Err(if done { AlreadyPresent } else { AlreadyStarted }), "{strategy:?} {id} {how:?}");
                if done {
                    sup.restart(id).await.unwrap();
                }
            }
            let (child3, handle) = worker(of_type("child3", RestartType::Temporary));
            sup.start_child(child3).await.unwrap();
            end(&sup, "child3", &handle, how).await;
            assert!(!sup.which().await.iter().any(|(id, _)| id == "child3"), "{strategy:?} {how:?}");
            sup.start_child(worker(of_type("child3", RestartType::Temporary)).0).await.unwrap();
            sup.stop().await;
        }
    });
}
