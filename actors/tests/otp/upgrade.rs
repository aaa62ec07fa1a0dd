//! What a supervisor was told, replaced while it runs.

use std::time::Duration;

use hivekeeper_actors::{
    Child, ChildId, ChildSpec, DynamicRef, Intensity, RestartType, Shutdown, SpecError, Strategy, Supervision,
    SupervisorError, SupervisorFlags, SupervisorRef, Template,
};

use crate::harness::*;

fn with_deadline(id: &str, ms: u32) -> ChildSpec {
    ChildSpec { shutdown: Shutdown::Deadline(MS * ms), ..spec(id) }
}

fn child(spec: ChildSpec) -> Child {
    worker(spec).0
}

async fn shutdown_of(sup: &Sup, id: &str) -> Shutdown {
    sup.get_childspec(&id.into()).await.unwrap().shutdown
}

/// Flags that are changed and changed back, and three children of which two are there from the first change on.
async fn changed(first: SupervisorFlags, other: SupervisorFlags) {
    let sup = Sup::start(first.clone(), vec![]).await;
    assert_eq!(sup.which().await, []);
    sup.change(other.clone(), vec![]).await.unwrap();
    assert_eq!(flags_of(&sup).await, other);

    // What is not valid changes nothing.
    let faulty = SpecError::InboxCapacity { id: "child1".into() };
    let refused = sup.change(first.clone(), vec![child(ChildSpec { inbox_capacity: 0, ..spec("child1") })]).await;
    assert_eq!(refused, Err(SupervisorError::Invalid(faulty)));
    assert_eq!((sup.which().await, flags_of(&sup).await), (vec![], other));

    let added = vec![child(with_deadline("child1", 2000)), child(with_deadline("child2", 500))];
    sup.change(first.clone(), added).await.unwrap();
    quiet().await;
    let none = [("child1".into(), Undefined), ("child2".into(), Undefined)];
    assert_eq!(sup.which().await, none, "children that are added are not started");
    assert_eq!(flags_of(&sup).await, first);
    assert_eq!(sup.restart("child1").await, Ok(1));
    assert_eq!(sup.restart("child2").await, Ok(1));
    assert_eq!(shutdown_of(&sup, "child1").await, Shutdown::Deadline(MS * 2000));

    // One is changed, one is not named, one is new: nobody is deleted. In OTP the order of the new list counts, here those that are there
    // keep their places: who was started first is stopped last.
    let changed = vec![child(with_deadline("child1", 1000)), child(spec("child3"))];
    sup.change(first.clone(), changed).await.unwrap();
    let expected = [("child1".into(), Is(1)), ("child2".into(), Is(1)), ("child3".into(), Undefined)];
    assert_eq!(sup.which().await, expected, "who lives is not touched");
    assert_eq!(shutdown_of(&sup, "child1").await, Shutdown::Deadline(MS * 1000));

    // An init that returns `ignore` or nonsense has no counterpart; the same again is no change, and faulty flags are refused.
    sup.change(first.clone(), vec![]).await.unwrap();
    let intensity = Intensity { max_restarts: 1, period: Duration::ZERO };
    let faulty = SupervisorFlags { intensity: Some(intensity), ..first.clone() };
    let refused = Err(SupervisorError::Invalid(SpecError::Limit { intensity }));
    assert_eq!(sup.change(faulty, vec![]).await, refused);
    assert_eq!(sup.which().await.len(), 3);
    assert_eq!(flags_of(&sup).await, first);
    sup.stop().await;
}

/// What the supervisor goes by, as its snapshot shows it.
async fn flags_of(supervisor: &SupervisorRef) -> SupervisorFlags {
    let node = supervisor.snapshot().await.unwrap();
    let (Some(strategy), Some(supervision)) = (node.strategy, node.supervision) else { panic!("it is a supervisor") };
    let Supervision { intensity, meltdown, auto_shutdown, .. } = supervision;
    SupervisorFlags { intensity, meltdown, auto_shutdown, ..SupervisorFlags::new(strategy) }
}

#[test]
fn code_change() {
    system(changed(limited(Strategy::OneForOne, 0, MS * 1000), limited(Strategy::OneForOne, 1, MS * 3000)));
}

/// The other way to write OTP's flags and specifications; here there is one, so other flags are changed.
#[test]
fn code_change_map() {
    system(changed(SupervisorFlags::default(), limited(Strategy::RestForOne, 1, MS * 3000)));
}

/// A dynamic supervisor, and the name of its only child.
async fn dynamic() -> (Sup, DynamicRef<Worker, ()>, ChildId) {
    let template = Template::new(ChildSpec { shutdown: Shutdown::Brutal, ..spec("child") }, |child, ()| {
        Worker::make(child, Role::default())
    });
    let flags_of_pool = limited(Strategy::SimpleOneForOne, 0, MS * 1000);
    let (pool, children) = Child::dynamic(of_type("pool", RestartType::Temporary), flags_of_pool, template);
    let sup = Sup::start(flags(Strategy::OneForOne, 0), vec![pool]).await;
    let (id, _) = children.start(()).await.unwrap();
    (sup, children, id)
}

/// OTP replaces the one specification of a simple_one_for_one supervisor and refuses none and two. A template belongs to its handle and is not
/// replaced: what can be changed are the flags, and any specification at all is refused.
async fn simple(other: SupervisorFlags) {
    let (sup, children, id) = dynamic().await;
    let pool = children.supervisor();
    pool.change(other.clone(), vec![]).await.unwrap();
    assert_eq!(flags_of(pool).await, other);
    let refused = Err(SupervisorError::Invalid(SpecError::Static { id: "child1".into() }));
    assert_eq!(pool.change(other.clone(), vec![child(spec("child1"))]).await, refused);
    assert_eq!(pool.change(other, vec![child(spec("child1")), child(spec("child2"))]).await, refused);
    assert_eq!(pool.which().await, [(id.to_string(), Is(1))]);
    sup.stop().await;
}

#[test]
fn code_change_simple() {
    system(simple(limited(Strategy::SimpleOneForOne, 1, MS * 3000)));
}

#[test]
fn code_change_simple_map() {
    system(simple(SupervisorFlags { intensity: None, ..SupervisorFlags::new(Strategy::SimpleOneForOne) }));
}
