//! How supervisors and children start, decline to, or fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hivekeeper_actors::{
    BoxError, Child, ChildKind, ChildRef, ChildSpec, ExitReason, Ignore, Placement, Presence, RestartType, Shutdown,
    SpecError, Started, Strategy, SupervisorError, SupervisorFlags, SupervisorRef, Template, check_childspecs,
};

use crate::harness::*;

#[test]
fn sup_start_normal() {
    system(async {
        let sup = Sup::start(flags(Strategy::OneForOne, 2), vec![]).await;
        assert_eq!(sup.counts().await, [0, 0, 0, 0]);
        sup.stop().await;
    });
}

type Init = Result<(SupervisorFlags, Vec<Child>), BoxError>;

/// Starts a supervisor with this init as the only child of another one.
async fn with_init(
    init: impl Fn() -> Init + Send + Sync + 'static,
) -> (Sup, SupervisorRef, Result<Started, SupervisorError>) {
    let sup = Sup::start(flags(Strategy::OneForOne, 2), vec![]).await;
    let (child, inner) = Child::supervisor_with(of_type("inner", RestartType::Temporary), move |_| init());
    let started = soon(sup.start_child(child)).await;
    (sup, inner, started)
}

/// OTP's exit reason is `normal` then; here the exit is told apart, and is as normal.
#[test]
fn sup_start_ignore_init() {
    system(async {
        let (sup, inner, started) = with_init(|| Err(Ignore.into())).await;
        assert_eq!(started, Ok(Started::Ignored));
        let [reason] = &sup.record.exits("inner")[..] else { panic!("one exit") };
        assert_eq!(*reason, ExitReason::Ignored);
        assert!(reason.is_normal());
        assert_eq!(inner.count_children().await, Err(SupervisorError::Gone));
        sup.stop().await;
    });
}

fn ignored() -> Role {
    Role { ignored: true, ..Role::default() }
}

#[test]
fn sup_start_ignore_child() {
    system(async {
        let sup = Sup::start(flags(Strategy::OneForOne, 2), vec![]).await;
        assert_eq!(sup.start_child(player(spec("child1"), ignored()).0).await, Ok(Started::Ignored));
        assert_eq!(sup.start_child(worker(spec("child2")).0).await, Ok(Started::Running(1)));
        assert_eq!(sup.which().await, [("child1".into(), Undefined), ("child2".into(), Is(1))]);
        assert_eq!(sup.counts().await, [2, 1, 0, 2]);
        sup.stop().await;
    });
}

/// The temporary child that declined is forgotten; the next one runs.
async fn only_the_second(sup: Sup) {
    assert_eq!(sup.which().await, [("child2".into(), Is(1))]);
    assert_eq!(sup.counts().await, [1, 1, 0, 1]);
    sup.stop().await;
}

#[test]
fn sup_start_ignore_temporary_child() {
    system(async {
        let temporary = |id| of_type(id, RestartType::Temporary);
        let children = vec![player(temporary("child1"), ignored()).0, worker(temporary("child2")).0];
        only_the_second(Sup::start(flags(Strategy::OneForOne, 2), children).await).await;
    });
}

#[test]
fn sup_start_ignore_temporary_child_start_child() {
    system(async {
        let sup = Sup::start(flags(Strategy::OneForOne, 2), vec![]).await;
        let temporary = |id| of_type(id, RestartType::Temporary);
        assert_eq!(sup.start_child(player(temporary("child1"), ignored()).0).await, Ok(Started::Ignored));
        assert_eq!(sup.start_child(worker(temporary("child2")).0).await, Ok(Started::Running(1)));
        only_the_second(sup).await;
    });
}

/// A template whose first child declines. The name of that one is spent, and nothing else is left of it.
async fn first_is_ignored(restart: RestartType) {
    let made = Arc::new(AtomicUsize::new(0));
    let template = Template::new(of_type("child", restart), move |child, ()| {
        let role = Role { ignored: made.fetch_add(1, Ordering::SeqCst) == 0, ..Role::default() };
        Worker::make(child, role)
    });
    let (pool, children) = Child::dynamic(spec("pool"), flags(Strategy::SimpleOneForOne, 2), template);
    let sup = Sup::start(flags(Strategy::OneForOne, 0), vec![pool]).await;
    assert_eq!(children.start(()).await.err(), Some(SupervisorError::Ignored));
    let (id, _) = children.start(()).await.unwrap();
    assert_eq!(children.supervisor().which().await, [(id.to_string(), Is(1))]);
    assert_eq!(numbers(children.count_children().await.unwrap()), [1, 1, 0, 1]);
    let record = Arc::clone(&sup.record);
    sup.stop().await;
    assert_eq!(record.exits("pool"), [ExitReason::Shutdown], "the supervisor ends as it should");
}

#[test]
fn sup_start_ignore_temporary_child_start_child_simple() {
    system(first_is_ignored(RestartType::Temporary));
}

#[test]
fn sup_start_ignore_permanent_child_start_child_simple() {
    system(first_is_ignored(RestartType::Permanent));
}

/// What an init may return is a matter of types here, save for what the specifications say: one that is not valid is an error like any other.
#[test]
fn sup_start_error_return() {
    system(async {
        let twice = || Ok((flags(Strategy::OneForOne, 2), vec![worker(spec("a")).0, worker(spec("a")).0]));
        let (sup, _, started) = with_init(twice).await;
        let text = SpecError::Duplicate { id: "a".into() }.to_string();
        let reason = ExitReason::StartFailed(text.into());
        assert_eq!(started, Err(SupervisorError::StartFailed { reason: reason.clone() }));
        assert_eq!(sup.record.exits("inner"), [reason], "what the caller is told is what it ended with");
        assert_eq!(sup.which().await, []);
        sup.stop().await;
    });
}

#[test]
fn sup_start_fail() {
    system(async {
        let (sup, _, started) = with_init(|| panic!("badmatch 2")).await;
        let exits = sup.record.exits("inner");
        let [reason @ ExitReason::Panic { text, .. }] = &exits[..] else { panic!("{exits:?}") };
        assert_eq!(&**text, "badmatch 2");
        assert_eq!(started, Err(SupervisorError::StartFailed { reason: reason.clone() }));
        assert_eq!(sup.which().await, []);
        sup.stop().await;
    });
}

fn failed(text: &str) -> SupervisorError {
    SupervisorError::StartFailed { reason: ExitReason::StartFailed(text.into()) }
}

#[test]
fn sup_start_restart_child_returns_error() {
    system(async {
        let (child1, _) = player(spec("child1"), Role { once: true, ..Role::default() });
        let sup = Sup::start(flags(Strategy::OneForOne, 2), vec![child1]).await;
        sup.terminate("child1").await.unwrap();
        assert_eq!(sup.restart("child1").await, Err(failed("only once")));
        quiet().await;
        assert_eq!(sup.which().await, [("child1".into(), Undefined)]);
        sup.stop().await;
    });
}

#[test]
fn sup_start_child_returns_error() {
    system(async {
        let sup = Sup::start(flags(Strategy::OneForOne, 2), vec![]).await;
        for (id, text) in [("child1", "reason"), ("child2", "error_reason")] {
            let (child, _) = player(spec(id), Role { refused: Some(text), ..Role::default() });
            assert_eq!(sup.start_child(child).await, Err(failed(text)));
        }
        assert_eq!(sup.which().await, []);
        sup.stop().await;
    });
}

#[test]
fn sup_start_child_returns_error_simple() {
    system(async {
        let make = |child, text| Worker::make(child, Role { refused: Some(text), ..Role::default() });
        let template = Template::new(spec("child"), make);
        let (pool, children) = Child::dynamic(spec("pool"), flags(Strategy::SimpleOneForOne, 2), template);
        let sup = Sup::start(flags(Strategy::OneForOne, 0), vec![pool]).await;
        for text in ["reason", "error_reason"] {
            assert_eq!(children.start(text).await.err(), Some(failed(text)));
        }
        assert_eq!(children.supervisor().which().await, []);
        sup.stop().await;
    });
}

/// The defaults of a specification: those of OTP's fields are OTP's.
#[test]
fn sup_start_map() {
    system(async {
        // Not on the pool's threads, for which no simulated clock waits.
        let new = |id| ChildSpec { placement: Placement::WithSupervisor, ..ChildSpec::new(id) };
        let child1 = worker(new("child1")).0;
        let child2 = worker(ChildSpec { shutdown: Shutdown::Brutal, ..new("child2") }).0;
        let child3 = Child::supervisor(ChildSpec::new("child3"), SupervisorFlags::default(), vec![]).0;
        let sup = Sup::start(SupervisorFlags::default(), vec![child1, child2, child3]).await;
        let expected = [
            (Shutdown::Deadline(Duration::from_secs(5)), ChildKind::Worker),
            (Shutdown::Brutal, ChildKind::Worker),
            (Shutdown::Infinity, ChildKind::Supervisor),
        ];
        let children = sup.which_children().await.unwrap();
        assert_eq!(children.len(), 3);
        for (child, (shutdown, kind)) in children.iter().zip(expected) {
            let spec = sup.get_childspec(&child.id).await.unwrap();
            assert_eq!((spec.id.clone(), spec.shutdown, child.kind), (child.id.clone(), shutdown, kind));
            assert_eq!((spec.restart, spec.significant), (RestartType::Permanent, false));
        }
        assert_eq!(sup.get_childspec(&"child4".into()).await.err(), Some(SupervisorError::NotFound));
        sup.stop().await;
    });
}

/// Every child of a template has its specification, save for the name, which is its own.
#[test]
fn sup_start_map_simple() {
    system(async {
        let of_template = of_type("child", RestartType::Temporary);
        let template = Template::new(of_template.clone(), |child, ()| Worker::make(child, Role::default()));
        let (pool, children) = Child::dynamic(spec("pool"), SupervisorFlags::default(), template);
        let sup = Sup::start(flags(Strategy::OneForOne, 2), vec![pool]).await;
        for _ in 0..3 {
            let (id, _): (_, ChildRef<Worker>) = children.start(()).await.unwrap();
            let spec = children.supervisor().get_childspec(&id).await.unwrap();
            assert_eq!(spec, ChildSpec { id, ..of_template.clone() });
        }
        let stranger = children.supervisor().get_childspec(&"stranger".into()).await;
        assert_eq!(stranger.err(), Some(SupervisorError::NotFound));
        let pids: Vec<Presence> = children.supervisor().which().await.into_iter().map(|(_, pid)| pid).collect();
        assert_eq!(pids, [Is(1); 3]);
        sup.stop().await;
    });
}

/// A missing id or start function and an unknown key don't compile here. What is left is an id that is none.
#[test]
fn sup_start_map_faulty_specs() {
    system(async {
        for id in ["", "a/b"] {
            let children = [worker(spec(id)).0];
            let error = SpecError::Id { id: id.into() };
            assert_eq!(check_childspecs(&SupervisorFlags::default(), &children), Err(error.clone()));
            assert_eq!(Sup::refused(SupervisorFlags::default(), children.into()), error);
        }
        Sup::start(SupervisorFlags::default(), vec![worker(spec("child3")).0]).await.stop().await;
    });
}
