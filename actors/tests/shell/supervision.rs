//! Supervisors under supervisors, and what operators ask of them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use hivekeeper_actors::{
    AutoShutdown, Child, ChildKind, ChildSpec, ChildState, ExitReason, Intensity, Meltdown, OnExceeded, Root,
    SpecError, StartError, Strategy, Supervision, SupervisorError, SupervisorFlags,
};

use crate::harness::*;

fn swarm(name: &str, children: Vec<Child>) -> (Child, hivekeeper_actors::SupervisorRef) {
    Child::supervisor(eager(name), SupervisorFlags::unlimited(Strategy::OneForOne), children)
}

#[test]
fn tree() {
    system(async {
        let ((a, victim), (b, _)) = (probe("a"), probe("b"));
        let (review, review_ref) = swarm("review", vec![a, b]);
        let (swarms, _) = swarm("swarms", vec![review]);
        let (root, record) = start(vec![swarms, probe("last").0]);
        root.started().await.unwrap();
        victim.tell(Boom).unwrap();
        assert_eq!(answers(&victim).await, 2);
        let tree = root.supervisor().snapshot().await.unwrap();
        let review = &tree.children[0].children[0];
        assert_eq!((&*review.path, review.kind), ("root/swarms/review", ChildKind::Supervisor));
        assert_eq!(review.strategy, Some(Strategy::OneForOne));
        let found: Vec<_> = review.children.iter().map(|n| (&*n.path, n.incarnation, n.restarts)).collect();
        assert_eq!(found, [("root/swarms/review/a", 2, 1), ("root/swarms/review/b", 1, 0)]);
        assert_eq!((tree.children[0].restarts, review.restarts), (0, 0), "only the dead worker restarts");
        let own = review_ref.snapshot().await.unwrap();
        assert_eq!((&own.path, own.children.len()), (&review.path, 2));
        let starts: Vec<_> = record.lines().into_iter().take(10).filter(|line| line.ends_with(" started")).collect();
        assert_eq!(starts, ["a started", "b started", "review started", "swarms started", "last started"]);
        root.shutdown().await.unwrap();
        let stops: Vec<_> = record.lines().into_iter().filter(|line| line.ends_with(" stopped")).collect();
        assert_eq!(stops, ["last stopped", "b stopped", "a stopped", "review stopped", "swarms stopped"]);
    });
}

#[test]
fn one_swarm_is_restarted_alone() {
    system(async {
        let ((a, in_review), (b, in_build)) = (probe("a"), probe("b"));
        let ((review, review_ref), (build, _)) = (swarm("review", vec![a]), swarm("build", vec![b]));
        let (root, record) = start(vec![review, build]);
        root.started().await.unwrap();
        review_ref.restart_all().await.unwrap();
        assert_eq!((answers(&in_review).await, answers(&in_build).await), (2, 1));
        root.supervisor().force_restart(&"review".into()).await.unwrap();
        assert_eq!((answers(&in_review).await, answers(&in_build).await), (3, 1), "numbers grow across supervisors");
        assert_eq!(record.count("b exited"), 0);
        root.supervisor().remove_child(&"review".into()).await.unwrap();
        assert_eq!(review_ref.stop_all().await, Err(SupervisorError::Gone));
        assert_eq!(root.supervisor().snapshot().await.unwrap().children.len(), 1);
        root.shutdown().await.unwrap();
    });
}

#[test]
fn dynamic_children_come_and_go() {
    system(async {
        let (root, record) = start(vec![]);
        let supervisor = root.supervisor();
        let (child, a) = probe("a");
        supervisor.add_child(child.clone()).await.unwrap();
        assert_eq!(supervisor.add_child(probe("a").0).await, Err(SupervisorError::AlreadyStarted));
        assert_eq!(
            supervisor.add_child(child).await,
            Err(SupervisorError::AlreadyStarted),
            "the same one, which it keeps"
        );
        assert_eq!(supervisor.start_existing(&"a".into()).await, Err(SupervisorError::Running));
        assert_eq!(supervisor.terminate_child(&"b".into()).await, Err(SupervisorError::NotFound));
        assert_eq!(answers(&a).await, 1);
        supervisor.remove_child(&"a".into()).await.unwrap();
        supervisor.add_child(probe("a").0).await.unwrap();
        assert_eq!(record.count("a removed"), 1);
        let invalid = supervisor.add_child(probe("a/b").0).await;
        assert_eq!(invalid, Err(SupervisorError::Invalid(SpecError::Id { id: "a/b".into() })));
        root.shutdown().await.unwrap();
        assert_eq!(supervisor.add_child(probe("c").0).await, Err(SupervisorError::Gone));
    });
}

#[test]
fn faulty_specs_start_nothing() {
    system(async {
        let (twins, _) = swarm("twins", vec![probe("a").0, probe("a").0]);
        let record = std::sync::Arc::new(Record::default());
        let refused =
            Root::start(SupervisorFlags::unlimited(Strategy::OneForOne), vec![probe("b").0, twins], record.clone())
                .err();
        assert_eq!(refused, Some(StartError::Invalid(SpecError::Duplicate { id: "a".into() })));
        assert!(record.lines().is_empty());
    });
}

#[test]
fn a_failed_child_is_tried_again_and_restarted_by_hand() {
    system(async {
        let intensity = Intensity { max_restarts: 1, ..Intensity::default() };
        let spec = ChildSpec { intensity: Some(intensity), on_exceeded: OnExceeded::RetryAfter(MS * 20), ..eager("a") };
        let (child, a) = scripted(spec, Script::default());
        let (b, by_hand) = scripted(
            ChildSpec { intensity: Some(Intensity { max_restarts: 0, ..intensity }), ..eager("b") },
            Script::default(),
        );
        let (root, record) = start(vec![child, b]);
        root.started().await.unwrap();
        a.tell(Boom).unwrap();
        a.tell(Boom).unwrap();
        record.saw("a failed").await;
        until("it is tried again", || record.count("a started") == 3).await;
        assert_eq!(answers(&a).await, 3);
        by_hand.tell(Boom).unwrap();
        record.saw("b failed").await;
        root.supervisor().force_restart(&"b".into()).await.unwrap();
        assert_eq!(answers(&by_hand).await, 2);
        root.shutdown().await.unwrap();
    });
}

#[test]
fn outside_a_system_nothing_starts() {
    let refused =
        Root::start(SupervisorFlags::unlimited(Strategy::OneForOne), vec![], std::sync::Arc::new(Record::default()))
            .err();
    assert_eq!(refused, Some(StartError::Threads));
}

/// Orders and crashes at once, many times over: never two incarnations, and the last order holds.
#[test]
fn orders_race_with_crashes() {
    system(async {
        let script = Script::default();
        let (child, a) = scripted(eager("a"), script.clone());
        let (root, record) = start(vec![child]);
        root.started().await.unwrap();
        let (supervisor, id) = (root.supervisor(), "a".into());
        for round in 0..100 {
            let _ = a.tell(Boom);
            if round % 3 == 0 {
                supervisor.terminate_child(&id).await.unwrap();
                assert_eq!(script.alive.load(Ordering::SeqCst), 0);
                let state = supervisor.snapshot().await.unwrap().children[0].state;
                assert_eq!(state, ChildState::Stopped);
            }
            // The crash may hit the new incarnation while it starts; it is then an automatic restart that follows.
            match supervisor.force_restart(&id).await {
                Ok(()) | Err(SupervisorError::StartFailed { reason: ExitReason::Panic { .. } }) => {}
                Err(other) => panic!("{other}"),
            }
        }
        answers(&a).await;
        assert_eq!(script.alive_max.load(Ordering::SeqCst), 1);
        assert!(record.count("a failed") == 0);
        root.shutdown().await.unwrap();
        assert_eq!(script.alive.load(Ordering::SeqCst), 0);
    });
}

/// A supervisor shows what it was told, and how much of its limit is spent.
#[test]
fn a_snapshot_shows_limits() {
    system(async {
        let limit = Intensity { max_restarts: 9, period: PATIENCE };
        let flags = SupervisorFlags {
            intensity: Some(limit),
            meltdown: Meltdown::Contain(OnExceeded::Fail),
            ..SupervisorFlags::new(Strategy::RestForOne)
        };
        let plain = |name| Child::actor(ChildSpec { intensity: None, ..eager(name) }, |child| Ok(Probe::new(child)));
        let ((a, first), (b, _)) = (plain("a"), plain("b"));
        let (swarm, swarm_ref) = Child::supervisor(eager("s"), flags, vec![a, b]);
        let (root, record) = start(vec![swarm]);
        root.started().await.unwrap();
        for round in 1..=2 {
            first.tell(Boom).unwrap();
            until("both are made again", || record.count("b started") == round + 1).await;
        }
        let shown = Supervision {
            intensity: Some(limit),
            restarts_in_window: 2,
            meltdown: Meltdown::Contain(OnExceeded::Fail),
            auto_shutdown: AutoShutdown::Never,
        };
        let tree = root.supervisor().snapshot().await.unwrap();
        assert_eq!(
            (tree.children[0].supervision, tree.children[0].strategy),
            (Some(shown), Some(Strategy::RestForOne))
        );
        assert_eq!(swarm_ref.snapshot().await.unwrap().supervision, Some(shown));
        assert_eq!(tree.supervision.map(|own| own.intensity), Some(None));
        assert_eq!(tree.children[0].children[0].supervision, None);
        root.shutdown().await.unwrap();
    });
}

/// Every child ends at once, and each end costs the same however many there are: ten times as many take about ten times as long, where
/// a look at all siblings for each would take a hundred times.
#[test]
fn a_storm_of_ends_is_linear() {
    const MANY: usize = 5_000;
    let storm = |children: usize| {
        let mut took = Duration::ZERO;
        system(async {
            let refs: Vec<_> = (0..children).map(|n| probe(&format!("c{n}"))).collect();
            let (children, refs): (Vec<_>, Vec<_>) = refs.into_iter().unzip();
            let (root, _) = start(children);
            root.started().await.unwrap();
            let began = std::time::Instant::now();
            for child in &refs {
                child.run(|_, context| actix::ActorContext::stop(context)).unwrap();
            }
            until("all are made again", || refs.iter().all(|child| child.incarnation() == 2)).await;
            took = began.elapsed();
            root.shutdown().await.unwrap();
        });
        took
    };
    let few = (0..3).map(|_| storm(MANY / 10)).max().unwrap_or_default();
    let many = (0..2).map(|_| storm(MANY)).min().unwrap_or_default();
    assert!(many < few * 50, "{many:?} for ten times what took {few:?}");
}

#[test]
fn many_children() {
    system(async {
        let script = Script::default();
        let children: Vec<_> = (0..2000).map(|n| scripted(eager(&format!("c{n}")), script.clone())).collect();
        let refs: Vec<_> = children.iter().map(|(_, child)| child.clone()).collect();
        let (root, record) = start(children.into_iter().map(|(child, _)| child).collect());
        root.started().await.unwrap();
        for child in &refs {
            child.tell(Boom).unwrap();
        }
        for child in &refs {
            assert_eq!(answers(child).await, 2);
        }
        assert_eq!(script.alive.load(Ordering::SeqCst), 2000);
        root.shutdown().await.unwrap();
        assert_eq!(script.alive.load(Ordering::SeqCst), 0);
        assert_eq!(record.lines().iter().filter(|line| line.ends_with("stopped")).count(), 2000);
    });
}
