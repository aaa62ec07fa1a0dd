//! What may be asked of a supervisor, in every state of a child, and what it answers.

use hivekeeper_actors::{Child, ChildRef, ExitReason, Started, Strategy, SupervisorError, SupervisorFlags, Template};

use crate::harness::*;

/// The supervisor has `child1` only, and this stands for its pid.
async fn has_child1(sup: &Sup, pid: hivekeeper_actors::Presence) {
    assert_eq!(sup.which().await, [("child1".into(), pid)]);
    let active = usize::from(matches!(pid, Is(_)));
    assert_eq!(sup.counts().await, [1, active, 0, 1]);
}

async fn has_nothing(sup: &Sup) {
    assert_eq!(sup.which().await, []);
    assert_eq!(sup.counts().await, [0, 0, 0, 0]);
}

#[test]
fn child_adm() {
    system(async {
        use SupervisorError::{AlreadyPresent, AlreadyStarted, Gone, NotFound, Running};
        let (child, handle) = worker(spec("child1"));
        let sup = Sup::start(flags(Strategy::OneForOne, 2), vec![child.clone()]).await;
        has_child1(&sup, Is(1)).await;
        let foo = Sup::start(SupervisorFlags::default(), vec![]).await;
        let no_supervisor = hivekeeper_actors::SupervisorRef::clone(&foo);
        foo.stop().await;

        assert_eq!(sup.start_child(child.clone()).await, Err(AlreadyStarted));
        assert_eq!(sup.start_child(worker(spec("child1")).0).await, Err(AlreadyStarted));
        has_child1(&sup, Is(1)).await;
        handle.run(|_, _| ()).expect("a refused start does the running child no harm");

        assert_eq!(sup.terminate("other").await, Err(NotFound));
        assert_eq!(no_supervisor.terminate("child1").await, Err(Gone));
        assert_eq!(sup.terminate("child1").await, Ok(()));
        assert_eq!(sup.record.exits("child1"), [ExitReason::Shutdown]);
        has_child1(&sup, Undefined).await;
        assert_eq!(sup.terminate("child1").await, Ok(()), "what has ended may be ended again");

        assert_eq!(sup.start_child(child.clone()).await, Err(AlreadyPresent));

        assert_eq!(sup.restart("child1").await, Ok(2));
        has_child1(&sup, Is(2)).await;
        assert_eq!(sup.restart("child1").await, Err(Running));
        assert_eq!(sup.restart("child2").await, Err(NotFound));

        assert_eq!(sup.delete("child1").await, Err(Running));
        assert_eq!(sup.delete("other").await, Err(NotFound));
        assert_eq!(no_supervisor.delete("child1").await, Err(Gone));
        sup.terminate("child1").await.unwrap();
        assert_eq!(sup.delete("child1").await, Ok(()));
        assert_eq!(sup.restart("child1").await, Err(NotFound));
        has_nothing(&sup).await;

        assert_eq!(no_supervisor.start_child(child.clone()).await, Err(Gone));
        // The same child comes back, with its handle: incarnations are counted on.
        assert_eq!(sup.start_child(child).await, Ok(Started::Running(3)));
        has_child1(&sup, Is(3)).await;
        handle.run(|_, _| ()).expect("its handle is valid again");

        // There is no pid here that could be taken for a name.
        assert_eq!(no_supervisor.which_children().await, Err(Gone));
        assert_eq!(no_supervisor.count_children().await, Err(Gone));
        sup.stop().await;
    });
}

#[test]
fn child_adm_simple() {
    system(async {
        use SupervisorError::{Gone, NotFound, SimpleOneForOne};
        let template = Template::new(spec("child"), |child, ()| Worker::make(child, Role::default()));
        let (pool, children) = Child::dynamic(spec("pool"), flags(Strategy::SimpleOneForOne, 2), template);
        let sup = Sup::start(flags(Strategy::OneForOne, 0), vec![pool]).await;
        let pool = children.supervisor();
        let counts = async || numbers(children.count_children().await.unwrap());
        assert_eq!(pool.which().await, []);
        assert_eq!(counts().await, [1, 0, 0, 0]);

        let (first, _): (_, ChildRef<Worker>) = children.start(()).await.unwrap();
        assert_eq!(pool.which().await, [("child-1".into(), Is(1))]);
        assert_eq!(counts().await, [1, 1, 0, 1]);
        children.start(()).await.unwrap();
        assert_eq!(pool.which().await, [("child-1".into(), Is(1)), ("child-2".into(), Is(1))]);
        assert_eq!(counts().await, [1, 2, 0, 2]);

        // OTP refuses a name here, because its dynamic children have none; ours have, and it is what a pid is there.
        assert_eq!(children.terminate(&first).await, Ok(()));
        assert_eq!(sup.record.exits("child-1"), [ExitReason::Shutdown]);
        assert_eq!(pool.which().await, [("child-2".into(), Is(1))]);
        assert_eq!(counts().await, [1, 1, 0, 1]);
        assert_eq!(children.terminate(&first).await, Ok(()), "what has ended may be ended again");
        assert_eq!(counts().await, [1, 1, 0, 1]);
        assert_eq!(children.terminate(&"child-3".into()).await, Err(NotFound), "no child ever had that name");
        assert_eq!(children.terminate(&"stranger".into()).await, Err(NotFound));

        for id in ["child-2", "stranger"] {
            assert_eq!(pool.restart(id).await, Err(SimpleOneForOne));
            assert_eq!(pool.delete(id).await, Err(SimpleOneForOne));
        }
        assert_eq!(counts().await, [1, 1, 0, 1]);
        let children = children.clone();
        sup.stop().await;
        assert_eq!(children.start(()).await.err(), Some(Gone));
    });
}

/// What OTP's start function may say besides the pid has no place here: what a start says is the incarnation, and the handle was there
/// before. Both stay right over every kind of start.
#[test]
fn extra_return() {
    system(async {
        use SupervisorError::{NotFound, Running};
        let (child, handle) = worker(spec("child1"));
        let sup = Sup::start(flags(Strategy::OneForOne, 2), vec![child.clone()]).await;
        assert_eq!(sup.terminate("other").await, Err(NotFound));
        assert_eq!(sup.delete("other").await, Err(NotFound));
        assert_eq!(sup.restart("other").await, Err(NotFound));
        assert_eq!(sup.delete("child1").await, Err(Running));
        assert_eq!(sup.restart("child1").await, Err(Running));
        has_child1(&sup, Is(1)).await;

        sup.terminate("child1").await.unwrap();
        assert_eq!(sup.record.exits("child1"), [ExitReason::Shutdown]);
        has_child1(&sup, Undefined).await;
        assert_eq!(sup.restart("child1").await, Ok(2));
        assert_eq!(handle.incarnation(), 2);
        has_child1(&sup, Is(2)).await;

        sup.terminate("child1").await.unwrap();
        sup.terminate("child1").await.unwrap();
        sup.delete("child1").await.unwrap();
        assert_eq!(sup.restart("child1").await, Err(NotFound));
        has_nothing(&sup).await;

        assert_eq!(sup.start_child(child).await, Ok(Started::Running(3)));
        has_child1(&sup, Is(3)).await;
        sup.end("child1", &handle, How::Died).await;
        has_child1(&sup, Is(4)).await;
        assert_eq!(handle.incarnation(), 4);
        sup.stop().await;
    });
}
