//! Children that are found by name.

use hivekeeper_actors::{Binding, Child, ChildSpec, Shutdown, Strategy, SupervisorRef};

use crate::harness::*;

/// A supervisor and its worker under it, both with a name.
async fn named() -> Sup {
    let minute = || limited(Strategy::OneForAll, 3, MS * 60_000);
    let deadline = Shutdown::Deadline(MS * 2000);
    let (server, _) = worker(ChildSpec { shutdown: deadline, register: Some("server".into()), ..spec("child") });
    let (middle, _) =
        Child::supervisor(ChildSpec { register: Some("sup2".into()), ..spec("middle") }, minute(), vec![server]);
    let top = Sup::start(minute(), vec![middle]).await;
    assert_eq!((living(&top, "sup2"), living(&top, "server")), (1, 1));
    top
}

/// The incarnation that a name stands for.
fn living(top: &Sup, name: &str) -> u64 {
    let Some(Binding { incarnation, .. }) = top.root.registry().binding(name) else {
        panic!("`{name}` stands for nothing")
    };
    incarnation
}

/// Makes the worker end, found by its name.
async fn end(top: &Sup, how: How) {
    let server = top.root.registry().whereis::<Worker>("server").unwrap();
    top.end("child", &server, how).await;
}

/// After the tree has ended the names stand for nothing.
async fn stop(top: Sup) {
    let registry = top.root.registry().clone();
    top.stop().await;
    assert_eq!((registry.binding("sup2"), registry.binding("server")), (None, None));
}

/// A name follows the incarnation, whatever ends the one before: the death of its supervisor, its own, or a request.
#[test]
fn simple_global_supervisor() {
    system(async {
        // Nobody can kill a supervisor from outside; one whose child fails too often ends as abnormally.
        let top = named().await;
        for _ in 0..4 {
            end(&top, How::Died).await;
        }
        assert_eq!((living(&top, "sup2"), living(&top, "server")), (2, 5));
        stop(top).await;

        for how in [How::Panic, How::Died] {
            let top = named().await;
            end(&top, how).await;
            assert_eq!((living(&top, "sup2"), living(&top, "server")), (1, 2));
            stop(top).await;
        }

        let top = named().await;
        let middle: SupervisorRef = top.root.registry().supervisor("sup2").unwrap();
        middle.terminate("child").await.unwrap();
        assert_eq!(top.root.registry().binding("server"), None, "who rests is not found");
        assert_eq!(middle.restart("child").await, Ok(2));
        assert_eq!((living(&top, "sup2"), living(&top, "server")), (1, 2));
        stop(top).await;
    });
}
