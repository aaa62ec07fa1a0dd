//! Edges that kameo tests of its supervision.

use std::sync::Arc;

use hivekeeper_actors::{Child, ChildRef, ChildSpec, Intensity, RestartType, Strategy, SupervisorFlags, TellError};

use crate::harness::*;

/// Restarts at once, with as many restarts for all together as anybody needs.
fn flags(strategy: Strategy) -> SupervisorFlags {
    SupervisorFlags::unlimited(strategy)
}

fn siblings<const N: usize>(names: [&str; N]) -> (Vec<Child>, [ChildRef<Specimen>; N]) {
    let mut children = Vec::new();
    let refs = names.map(|name| {
        let (child, child_ref) = specimen(eager(name), Manner::Well, &Arc::default());
        children.push(child);
        child_ref
    });
    (children, refs)
}

/// Crashes one of three siblings; these incarnations answer then, and stay.
async fn crash_of_three(strategy: Strategy, victim: usize, expected: [u64; 3]) {
    let (children, refs) = siblings(["a", "b", "c"]);
    let (root, _) = start_with(flags(strategy), children);
    root.started().await.unwrap();
    refs[victim].tell(Boom).unwrap();
    until("those that are to be restarted are", || refs.each_ref().map(ChildRef::incarnation) == expected).await;
    for child in &refs {
        child.ask(Ping, PATIENCE).await.unwrap();
    }
    assert_eq!(refs.each_ref().map(ChildRef::incarnation), expected);
    root.shutdown().await.unwrap();
}

#[test]
fn kameo_the_defaults_are_permanent_and_one_for_one() {
    assert_eq!(ChildSpec::new("a").restart, RestartType::Permanent);
    assert_eq!(SupervisorFlags::default().strategy, Strategy::OneForOne);
}

#[test]
fn kameo_one_for_one_only_restarts_the_failed_child() {
    system(async {
        crash_of_three(Strategy::OneForOne, 1, [1, 2, 1]).await;
    });
}

#[test]
fn kameo_one_for_all_restarts_every_child() {
    system(async {
        for victim in 0..3 {
            crash_of_three(Strategy::OneForAll, victim, [2, 2, 2]).await;
        }
    });
}

#[test]
fn kameo_rest_for_one_of_the_first_a_middle_and_the_last() {
    system(async {
        crash_of_three(Strategy::RestForOne, 0, [2, 2, 2]).await;
        crash_of_three(Strategy::RestForOne, 1, [1, 2, 2]).await;
        crash_of_three(Strategy::RestForOne, 2, [1, 1, 2]).await;
    });
}

#[test]
fn kameo_a_group_of_one_is_a_group() {
    system(async {
        for strategy in [Strategy::OneForAll, Strategy::RestForOne] {
            let (children, [a]) = siblings(["a"]);
            let (root, record) = start_with(flags(strategy), children);
            for incarnation in 1..=3 {
                assert_eq!((a.ask(Ping, PATIENCE).await, a.incarnation()), (Ok(1), incarnation));
                a.tell(Boom).unwrap();
                until("it ends", || record.exits("a").len() as u64 == incarnation).await;
            }
            root.shutdown().await.unwrap();
        }
    });
}

#[test]
fn kameo_one_for_one_independent_failures() {
    system(async {
        let (children, [a, b, c]) = siblings(["a", "b", "c"]);
        let (root, record) = start_with(flags(Strategy::OneForOne), children);
        root.started().await.unwrap();
        for victim in [&a, &c, &a] {
            victim.tell(Boom).unwrap();
        }
        until("each ends", || record.exits("a").len() == 2 && record.exits("c").len() == 1).await;
        for child in [&a, &b, &c] {
            child.ask(Ping, PATIENCE).await.unwrap();
        }
        assert_eq!([&a, &b, &c].map(ChildRef::incarnation), [3, 1, 2]);
        root.shutdown().await.unwrap();
    });
}

#[test]
fn kameo_rapid_successive_restarts() {
    system(async {
        let (children, [a]) = siblings(["a"]);
        let (root, record) = start_with(flags(Strategy::OneForOne), children);
        for _ in 0..100 {
            a.tell(Boom).unwrap();
        }
        assert_eq!((a.ask(Ping, PATIENCE).await, a.incarnation()), (Ok(1), 101));
        assert_eq!(record.exits("a").len(), 100);
        root.shutdown().await.unwrap();
    });
}

#[test]
fn kameo_a_limit_of_one_child_is_respected() {
    system(async {
        let limited = |name, max_restarts| {
            let intensity = Some(Intensity { max_restarts, ..Intensity::default() });
            specimen(ChildSpec { intensity, ..eager(name) }, Manner::Well, &Arc::default())
        };
        let ((first, a), (second, b)) = (limited("a", 2), limited("b", 4));
        let (root, record) = start_with(flags(Strategy::OneForOne), vec![first, second]);
        for _ in 0..5 {
            for child in [&a, &b] {
                // One that has failed refuses.
                let _ = child.tell(Boom);
            }
        }
        record.saw("a Failed").await;
        record.saw("b Failed").await;
        assert_eq!((a.incarnation(), b.incarnation()), (3, 5));
        assert_eq!(a.tell(Ping), Err(TellError::Stopped));
        root.shutdown().await.unwrap();
    });
}

/// Each incarnation is made from the same arguments, whatever the one before did with its own.
#[test]
fn kameo_the_factory_makes_each_from_the_same_arguments() {
    system(async {
        let seen = Arc::new(Seen::default());
        let (own, first) = (Arc::clone(&seen), String::from("as given"));
        let (child, a) = Child::actor(eager("a"), move |_| Ok(Specimen::new(&first, Manner::Well, &own)));
        let (root, _) = start(vec![child]);
        a.tell(Do::new(|specimen, _| specimen.name = "spoilt".into())).unwrap();
        a.tell(Boom).unwrap();
        a.ask(Do::new(|specimen, _| assert_eq!(specimen.name, "as given")), PATIENCE).await.unwrap();
        assert_eq!((a.incarnation(), seen.notes()), (2, vec!["spoilt dropped".to_owned()]));
        root.shutdown().await.unwrap();
    });
}

/// kameo's supervisor and children waited for each other at the stop. Here a child may even ask its supervisor, and a sibling that is gone
/// already, while it is stopped.
#[test]
fn kameo_a_stop_does_not_deadlock_with_children_that_ask_back() {
    system(async {
        let (children, [a, b]) = siblings(["a", "b"]);
        let (inner, inner_ref) = Child::supervisor(eager("inner"), flags(Strategy::OneForOne), children);
        let (root, record) = start(vec![inner]);
        root.started().await.unwrap();
        let (sibling, supervisor) = (b.clone(), inner_ref.clone());
        let (sender, answers) = std::sync::mpsc::sync_channel(1);
        a.tell(Do::new(move |_, context| {
            // Goes on until the incarnation ends, and so through the whole of its stop.
            let asking = async move {
                loop {
                    let seen = (sibling.ask(Ping, PATIENCE).await.is_err(), supervisor.snapshot().await.is_ok());
                    let _ = sender.try_send(seen);
                    tokio::time::sleep(MS).await;
                }
            };
            actix::AsyncContext::spawn(context, actix::fut::wrap_future(asking));
        }))
        .unwrap();
        until("it asks", || answers.try_recv().is_ok()).await;
        root.shutdown().await.unwrap();
        assert_eq!(record.count("inner Stopped"), 1);
    });
}

/// kameo 377: references went stale with a restart.
#[test]
fn kameo_a_reference_from_before_the_start_is_good_for_every_incarnation() {
    system(async {
        let (children, [a]) = siblings(["a"]);
        assert_eq!(a.incarnation(), 0);
        a.tell(Ping).unwrap();
        let (root, _) = start(children);
        let (supervisor, id) = (root.supervisor(), "a".into());
        assert_eq!((a.ask(Ping, PATIENCE).await, a.incarnation()), (Ok(2), 1));
        a.tell(Boom).unwrap();
        assert_eq!((a.ask(Ping, PATIENCE).await, a.incarnation()), (Ok(1), 2));
        supervisor.force_restart(&id).await.unwrap();
        assert_eq!((a.ask(Ping, PATIENCE).await, a.incarnation()), (Ok(1), 3));
        supervisor.terminate_child(&id).await.unwrap();
        assert_eq!(a.tell(Ping), Err(TellError::Stopped));
        supervisor.start_existing(&id).await.unwrap();
        assert_eq!((a.ask(Ping, PATIENCE).await, a.incarnation()), (Ok(1), 4));
        root.shutdown().await.unwrap();
    });
}
