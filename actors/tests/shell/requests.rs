//! What OTP's requests answer, what a supervisor starts with, and what can be changed while it runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::prelude::*;
use hivekeeper_actors::{
    AutoShutdown, Child, ChildInfo, ChildKind, ChildSpec, ChildState, Counts, ExitReason, Ignore, Intensity, Presence,
    RestartType, Root, SpecError, StartError, Started, Strategy, SupervisorError, SupervisorFlags, SupervisorRef,
    TellError, check_childspecs,
};

use crate::harness::*;

fn flags() -> SupervisorFlags {
    SupervisorFlags::unlimited(Strategy::OneForOne)
}

/// Another type of actor.
struct Other;
impl Actor for Other {
    type Context = Context<Self>;
}

fn declined(name: &str) -> Child {
    Child::actor::<Other, _>(eager(name), |_| Err(Ignore.into())).0
}

#[test]
fn starts_answer_with_the_incarnation() {
    system(async {
        let (root, record) = start(vec![]);
        let supervisor = root.supervisor();
        let (child, a) = probe("a");
        assert_eq!(supervisor.start_child(child).await, Ok(Started::Running(1)));
        supervisor.terminate_child(&"a".into()).await.unwrap();
        assert_eq!(supervisor.restart_child(&"a".into()).await, Ok(Started::Running(2)));
        assert_eq!(answers(&a).await, 2);
        assert_eq!(supervisor.start_child(declined("b")).await, Ok(Started::Ignored));
        assert_eq!(supervisor.restart_child(&"b".into()).await, Ok(Started::Ignored));
        assert_eq!(record.exits("b"), [ExitReason::Ignored, ExitReason::Ignored]);
        let swarm = Child::supervisor(eager("c"), flags(), vec![probe("d").0]).0;
        assert_eq!(supervisor.start_child(swarm).await, Ok(Started::Running(1)));
        let shown = |id: &str, state, kind| ChildInfo { id: id.into(), state, kind };
        assert_eq!(
            supervisor.which_children().await.unwrap(),
            [
                shown("a", Presence::Running(2), ChildKind::Worker),
                shown("b", Presence::Undefined, ChildKind::Worker),
                shown("c", Presence::Running(1), ChildKind::Supervisor),
            ]
        );
        let counts = Counts { specs: 3, active: 2, supervisors: 1, workers: 2 };
        assert_eq!(supervisor.count_children().await.unwrap(), counts);
        assert_eq!(supervisor.get_childspec(&"a".into()).await.unwrap(), eager("a"));
        assert_eq!(supervisor.get_childspec(&"e".into()).await, Err(SupervisorError::NotFound));
        root.shutdown().await.unwrap();
        assert_eq!(supervisor.count_children().await, Err(SupervisorError::Gone));
    });
}

#[test]
fn check_childspecs_names_what_is_wrong() {
    let spec = |id: &str| ChildSpec { restart: RestartType::Transient, ..ChildSpec::new(id) };
    let child = |spec| Child::actor(spec, |_| Ok(Other)).0;
    let significant = |id| child(ChildSpec { significant: true, ..spec(id) });
    let any = SupervisorFlags { auto_shutdown: AutoShutdown::AnySignificant, ..flags() };
    let simple = SupervisorFlags::new(Strategy::SimpleOneForOne);
    let limit = Intensity { max_restarts: 1, period: Duration::ZERO };
    let limited = SupervisorFlags { intensity: Some(limit), ..flags() };
    let faulty = || child(spec("a/b"));
    let cases = [
        (flags(), vec![], Ok(())),
        (flags(), vec![child(spec("a")), child(spec("b"))], Ok(())),
        (any.clone(), vec![child(spec("a")), significant("b")], Ok(())),
        (simple.clone(), vec![], Ok(())),
        (flags(), vec![child(spec("a")), child(spec("a"))], Err(SpecError::Duplicate { id: "a".into() })),
        (flags(), vec![significant("a")], Err(SpecError::AutoShutdown { id: "a".into() })),
        (
            any,
            vec![child(ChildSpec { significant: true, ..ChildSpec::new("a") })],
            Err(SpecError::Significant { id: "a".into() }),
        ),
        (simple, vec![child(spec("a"))], Err(SpecError::Static { id: "a".into() })),
        (limited.clone(), vec![], Err(SpecError::Limit { intensity: limit })),
        (flags(), vec![faulty()], Err(SpecError::Id { id: "a/b".into() })),
        (flags(), vec![Child::supervisor(spec("a"), limited, vec![]).0], Err(SpecError::Limit { intensity: limit })),
        (
            flags(),
            vec![Child::supervisor(spec("a"), flags(), vec![faulty()]).0],
            Err(SpecError::Id { id: "a/b".into() }),
        ),
    ];
    for (flags, children, expected) in cases {
        assert_eq!(check_childspecs(&flags, &children), expected);
        system(async {
            let started = Root::start(flags, children, Arc::new(Record::default()));
            assert_eq!(started.map(drop), expected.map_err(StartError::Invalid));
        });
    }
}

#[test]
fn a_significant_child_is_added_only_where_it_counts() {
    system(async {
        let (root, _) = start(vec![]);
        let spec = ChildSpec { significant: true, restart: RestartType::Transient, ..ChildSpec::new("a") };
        let child = || Child::actor(spec.clone(), |_| Ok(Other)).0;
        let refused = Err(SupervisorError::Invalid(SpecError::AutoShutdown { id: "a".into() }));
        assert_eq!(root.supervisor().start_child(child()).await.map(drop), refused);
        assert_eq!(root.supervisor().add_child(child()).await, refused);
        root.shutdown().await.unwrap();
    });
}

/// What `init` says is asked for at every start of the supervisor.
#[test]
fn init_is_asked_at_every_start() {
    system(async {
        let (kept, handle) = probe("kept");
        let (child, supervisor) = Child::supervisor_with(eager("s"), move |context| match context.incarnation() {
            1 => Ok((flags(), vec![kept.clone()])),
            2 => Err("not now".into()),
            3 => Ok((flags(), vec![probe("twice").0, probe("twice").0])),
            4 => Ok((SupervisorFlags::new(Strategy::OneForAll), vec![probe("new").0, kept.clone()])),
            _ => Err(Ignore.into()),
        });
        let (root, record) = start(vec![child]);
        root.started().await.unwrap();
        assert_eq!(answers(&handle).await, 1);
        root.supervisor().force_restart(&"s".into()).await.unwrap_err();
        until("the fourth start", || record.count("s started") == 2).await;
        let failed = |text: &str| ExitReason::StartFailed(text.into());
        let exits = [ExitReason::Shutdown, failed("not now"), failed("the id `twice` is used twice")];
        assert_eq!(record.exits("s"), exits);
        assert_eq!(answers(&handle).await, 2, "a clone of the same child keeps its handle");
        let node = &root.supervisor().snapshot().await.unwrap().children[0];
        assert_eq!((node.incarnation, node.strategy), (4, Some(Strategy::OneForAll)));
        let names: Vec<_> = node.children.iter().map(|child| child.id.as_str()).collect();
        assert_eq!(names, ["new", "kept"]);
        root.supervisor().terminate_child(&"s".into()).await.unwrap();
        assert_eq!(root.supervisor().restart_child(&"s".into()).await, Ok(Started::Ignored));
        assert_eq!(root.supervisor().which_children().await.unwrap()[0].state, Presence::Undefined);
        assert_eq!(root.supervisor().snapshot().await.unwrap().children[0].strategy, None);
        assert_eq!(supervisor.which_children().await, Err(SupervisorError::Gone));
        root.shutdown().await.unwrap();
    });
}

/// A probe whose answer says which factory made it.
fn marked(name: &str, mark: u32) -> (Child, hivekeeper_actors::ChildRef<Probe>) {
    Child::actor(eager(name), move |child| {
        let probe = Probe::new(child);
        probe.sum.set(mark);
        Ok(probe)
    })
}

async fn mark(child: &hivekeeper_actors::ChildRef<Probe>) -> (u32, u64) {
    child.ask(Add(0), PATIENCE).await.unwrap()
}

async fn names(supervisor: &SupervisorRef) -> Vec<(String, ChildState)> {
    let children = supervisor.snapshot().await.unwrap().children;
    children.into_iter().map(|node| (node.id.to_string(), node.state)).collect()
}

#[test]
fn a_change_takes_effect_at_the_next_incarnation() {
    system(async {
        let ((a, old), (b, stays)) = (marked("a", 10), marked("b", 20));
        let (child, swarm) = Child::supervisor(eager("s"), flags(), vec![a, b]);
        let (root, record) = start(vec![child]);
        root.started().await.unwrap();
        let ((a, new), (c, added)) = (marked("a", 11), marked("c", 30));
        let changed = SupervisorFlags { auto_shutdown: AutoShutdown::AllSignificant, ..flags() };
        swarm.change(changed, vec![a, c]).await.unwrap();
        assert_eq!((mark(&old).await, mark(&stays).await), ((10, 1), (20, 1)), "what runs goes on");
        assert_eq!(new.tell(Boom), Err(TellError::Stopped), "it has another handle already");
        assert_eq!(added.tell(Boom), Err(TellError::Stopped), "it is not started");
        let running = |name: &str| (name.to_owned(), ChildState::Running);
        let mut all = names(&swarm).await;
        all.sort_by(|one, other| one.0.cmp(&other.0));
        assert_eq!(all, [running("a"), running("b"), ("c".to_owned(), ChildState::Stopped)]);
        let node = swarm.snapshot().await.unwrap();
        assert_eq!(node.supervision.unwrap().auto_shutdown, AutoShutdown::AllSignificant);
        old.tell(Boom).unwrap();
        assert_eq!(mark(&old).await, (11, 2));
        assert_eq!(swarm.restart_child(&"c".into()).await, Ok(Started::Running(1)));
        assert_eq!(mark(&added).await, (30, 1));

        // It outlives the supervisor's incarnation.
        root.supervisor().force_restart(&"s".into()).await.unwrap();
        assert_eq!(mark(&old).await, (11, 3));
        assert_eq!(names(&swarm).await, [running("a"), running("c")]);
        assert_eq!(record.count("b started"), 1, "it is not what the supervisor starts with any more");
        root.shutdown().await.unwrap();
    });
}

#[test]
fn a_change_that_is_wrong_changes_nothing() {
    system(async {
        let ((a, handle), (b, _)) = (marked("a", 10), probe("b"));
        let (root, _) = start(vec![a, b]);
        root.started().await.unwrap();
        let supervisor = root.supervisor();
        let before = supervisor.snapshot().await.unwrap();
        let other = Child::actor(ChildSpec::new("b"), |_| Ok(Other)).0;
        let changed = SupervisorFlags::new(Strategy::RestForOne);
        assert_eq!(
            supervisor.change(changed.clone(), vec![marked("a", 11).0, other]).await,
            Err(SupervisorError::OtherActor { id: "b".into() })
        );
        assert_eq!(
            supervisor.change(changed, vec![marked("a", 11).0, probe("a").0]).await,
            Err(SupervisorError::Invalid(SpecError::Duplicate { id: "a".into() }))
        );
        let after = supervisor.snapshot().await.unwrap();
        assert_eq!((after.strategy, after.supervision), (before.strategy, before.supervision));
        handle.tell(Boom).unwrap();
        assert_eq!(mark(&handle).await, (10, 2));
        root.shutdown().await.unwrap();
    });
}

/// Whoever is given the same child again is given a child that it has.
#[test]
fn a_change_to_the_same_child_keeps_its_handle() {
    static STARTS: AtomicU64 = AtomicU64::new(0);
    system(async {
        let (child, handle) = Child::actor(eager("a"), |child| {
            STARTS.fetch_add(1, Ordering::SeqCst);
            Ok(Probe::new(child))
        });
        let (root, _) = start(vec![child.clone()]);
        root.started().await.unwrap();
        root.supervisor().change(flags(), vec![child]).await.unwrap();
        assert_eq!(answers(&handle).await, 1);
        handle.tell(Boom).unwrap();
        assert_eq!((answers(&handle).await, STARTS.load(Ordering::SeqCst)), (2, 2));
        root.shutdown().await.unwrap();
    });
}

/// What the first supervisor ends with is what its owner sees.
#[test]
fn a_root_that_gives_up_is_done() {
    system(async {
        let (child, a) = probe("a");
        let limit = Some(Intensity { max_restarts: 1, ..Intensity::default() });
        let flags = SupervisorFlags { intensity: limit, ..SupervisorFlags::default() };
        let record = Arc::new(Record::default());
        let root = Root::start(flags, vec![child, probe("b").0], Arc::clone(&record) as _).unwrap();
        root.started().await.unwrap();
        a.tell(Boom).unwrap();
        assert_eq!(answers(&a).await, 2);
        a.tell(Boom).unwrap();
        let ExitReason::GaveUp { child, .. } = root.done().await else { panic!("not a give-up") };
        assert_eq!(child.as_str(), "a");
        assert_eq!(record.exits("b"), [ExitReason::Shutdown]);
        assert_eq!(root.supervisor().which_children().await, Err(SupervisorError::Gone));
        root.shutdown().await.unwrap();
    });
}

/// A transient supervisor whose significant child is done is done, too.
#[test]
fn auto_shutdown_ends_normally_for_the_parent() {
    system(async {
        let spec = ChildSpec { significant: true, restart: RestartType::Transient, ..eager("a") };
        let (child, a) = scripted(spec, Script::default());
        let any = SupervisorFlags { auto_shutdown: AutoShutdown::AnySignificant, ..flags() };
        let transient = ChildSpec { restart: RestartType::Transient, ..eager("s") };
        let (swarm, _) = Child::supervisor(transient, any, vec![child, probe("b").0]);
        let (root, record) = start(vec![swarm]);
        root.started().await.unwrap();
        a.run(|_, context| context.stop()).unwrap();
        record.saw("s completed").await;
        assert_eq!(record.exits("s"), [ExitReason::Shutdown]);
        assert_eq!(record.exits("b"), [ExitReason::Shutdown]);
        root.shutdown().await.unwrap();
    });
}
