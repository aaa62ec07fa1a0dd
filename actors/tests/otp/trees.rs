//! Supervisors under supervisors, and the order in which things happen.

use std::sync::Arc;

use hivekeeper_actors::{Child, ExitReason, RestartType, Started, Strategy};

use crate::harness::*;

#[test]
fn tree() {
    system(async {
        let one_for_one = || flags(Strategy::OneForOne, 4);
        let ((child1, _), (child2, _)) = (worker(spec("child1")), worker(spec("child2")));
        let (child3, third) = player(spec("child3"), Role { once: true, ..Role::default() });
        let (child4, fourth) = worker(spec("child4"));
        let (supchild1, sup1) = Child::supervisor(spec("supchild1"), one_for_one(), vec![child1, child2]);
        let (supchild2, sup2) = Child::supervisor(spec("supchild2"), one_for_one(), vec![]);
        let (supchild3, sup3) = Child::supervisor(of_type("supchild3", RestartType::Transient), one_for_one(), vec![]);

        let top = Sup::start(flags(Strategy::OneForAll, 4), vec![]).await;
        for child in [supchild1, supchild2, supchild3] {
            assert_eq!(top.start_child(child).await, Ok(Started::Running(1)));
        }
        top.terminate("supchild3").await.unwrap();
        assert_eq!(top.counts().await, [3, 2, 3, 0]);

        let pids = |names: [&str; 2], pids: [u64; 2]| [(names[0].into(), Is(pids[0])), (names[1].into(), Is(pids[1]))];
        assert_eq!(sup1.which().await, pids(["child1", "child2"], [1, 1]));
        assert_eq!((sup1.counts().await, sup2.counts().await), ([2, 2, 0, 2], [0, 0, 0, 0]));
        sup2.start_child(child3).await.unwrap();
        sup2.start_child(child4).await.unwrap();
        assert_eq!((sup1.counts().await, sup2.counts().await), ([2, 2, 0, 2], [2, 2, 0, 2]));

        // Only the process that dies is restarted.
        top.end("child4", &fourth, How::Died).await;
        assert_eq!(sup1.which().await, pids(["child1", "child2"], [1, 1]));
        assert_eq!(sup2.which().await, pids(["child3", "child4"], [1, 2]));
        assert_eq!((sup1.counts().await, sup2.counts().await), ([2, 2, 0, 2], [2, 2, 0, 2]));

        // One that can't be restarted takes its supervisor and, one_for_all, the whole tree along; what was added later does not come back.
        top.end("child3", &third, How::Died).await;
        after(MS * 1000).await;
        assert!(matches!(top.record.exits("supchild2")[..], [ExitReason::GaveUp { .. }]));
        // OTP starts supchild3, too. Here what was stopped by request stays stopped: a group restart brings back who lived.
        assert_eq!(
            top.which().await,
            [("supchild1".into(), Is(2)), ("supchild2".into(), Is(2)), ("supchild3".into(), Undefined)]
        );
        assert_eq!(top.counts().await, [3, 2, 3, 0]);
        assert_eq!(sup1.which().await, pids(["child1", "child2"], [2, 2]));
        assert_eq!(sup1.counts().await, [2, 2, 0, 2]);
        assert_eq!((sup2.which().await, sup2.counts().await), (vec![], [0, 0, 0, 0]));
        top.restart("supchild3").await.unwrap();
        assert_eq!((sup3.which().await, sup3.counts().await), (vec![], [0, 0, 0, 0]));
        top.stop().await;
    });
}

#[test]
fn order_of_children() {
    system(async {
        let ids = ["ch7", "ch3", "ch10", "ch2", "ch5"];
        let (children, workers): (Vec<_>, Vec<_>) = ids.iter().map(|id| worker(spec(id))).unzip();
        let sup = Sup::start(flags(Strategy::RestForOne, 2), children).await;
        assert_eq!(sup.record.starts(), ids, "in the order of the list, not of the alphabet");
        sup.record.forget();

        sup.end("ch10", &workers[2], How::Died).await;
        let ended = |record: &Record| record.all_exits().into_iter().map(|(id, _)| id).collect::<Vec<_>>();
        assert_eq!(ended(&sup.record), ["ch10", "ch5", "ch2"], "those after it are stopped in reverse order");
        assert_eq!(sup.record.starts(), ["ch10", "ch2", "ch5"], "and started in order");
        let pids = [1, 1, 2, 2, 2];
        let expected: Vec<_> = ids.iter().zip(pids).map(|(id, pid)| ((*id).to_owned(), Is(pid))).collect();
        assert_eq!(sup.which().await, expected);

        let record = Arc::clone(&sup.record);
        record.forget();
        sup.stop().await;
        assert_eq!(ended(&record), ["ch5", "ch2", "ch10", "ch3", "ch7"]);
        assert!(record.all_exits().iter().all(|(_, reason)| *reason == ExitReason::Shutdown));
    });
}
