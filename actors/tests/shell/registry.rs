//! Names that follow incarnations.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix::prelude::*;
use hivekeeper_actors::{
    Binding, Child, ChildRef, ChildSpec, ExitReason, Placement, Ready, Root, Strategy, SupervisorError, SupervisorFlags,
};

use crate::harness::*;

fn named(id: &str, name: &str) -> ChildSpec {
    ChildSpec { register: Some(name.into()), ..eager(id) }
}

fn incarnation(root: &Root, name: &str) -> Option<u64> {
    root.registry().binding(name).map(|binding| binding.incarnation)
}

#[test]
fn a_name_is_bound_while_an_incarnation_lives() {
    system(async {
        let (a, _) = scripted(named("a", "worker"), Script::default());
        let (root, _) = start(vec![a]);
        root.started().await.unwrap();
        let registry = root.registry();
        let found: ChildRef<Probe> = registry.whereis("worker").unwrap();
        assert_eq!(answers(&found).await, 1);
        assert_eq!(registry.binding("worker"), Some(Binding { path: "root/a".into(), incarnation: 1 }));
        assert_eq!(registry.names(), [Arc::from("worker")]);
        assert!(registry.whereis::<Other>("worker").is_none(), "another type of actor");
        assert!(registry.whereis::<Probe>("nobody").is_none());
        found.tell(Boom).unwrap();
        until("the name follows", || incarnation(&root, "worker") == Some(2)).await;
        assert_eq!(answers(&found).await, 2, "a handle stays valid");
        root.supervisor().terminate_child(&"a".into()).await.unwrap();
        assert!(registry.whereis::<Probe>("worker").is_none() && registry.names().is_empty());
        root.supervisor().start_existing(&"a".into()).await.unwrap();
        assert_eq!(incarnation(&root, "worker"), Some(3));
        root.shutdown().await.unwrap();
        assert!(root.registry().names().is_empty());
    });
}

struct Other;
impl Actor for Other {
    type Context = Context<Self>;
}

#[test]
fn a_name_that_another_has_is_a_failed_start_and_stays_with_the_other() {
    system(async {
        let (a, first) = scripted(named("a", "worker"), Script::default());
        let (root, _) = start(vec![a]);
        root.started().await.unwrap();
        let script = Script::default();
        let spec =
            ChildSpec { restart: hivekeeper_actors::RestartType::Temporary, retain: true, ..named("b", "worker") };
        let (b, second) = scripted(spec, script.clone());
        let refused = root.supervisor().add_child(b).await;
        let reason = ExitReason::StartFailed("the name `worker` is taken by root/a".into());
        assert_eq!(refused, Err(SupervisorError::StartFailed { reason }));
        assert_eq!(script.alive_max.load(Ordering::SeqCst), 0, "nothing of it was made");
        assert_eq!(root.registry().binding("worker").unwrap().path, "root/a".into());
        assert_eq!(answers(&first).await, 1);
        root.supervisor().terminate_child(&"a".into()).await.unwrap();
        root.supervisor().start_existing(&"b".into()).await.unwrap();
        assert_eq!(root.registry().binding("worker").unwrap().path, "root/b".into());
        assert_eq!(answers(&second).await, 2);
        root.shutdown().await.unwrap();
    });
}

#[test]
fn a_failed_start_leaves_no_name() {
    system(async {
        let fails = Arc::new(AtomicBool::new(true));
        let theirs = Arc::clone(&fails);
        let spec =
            ChildSpec { restart: hivekeeper_actors::RestartType::Temporary, retain: true, ..named("a", "worker") };
        let (a, _) = Child::actor(spec, move |child| {
            assert!(child.registry().whereis::<Probe>("worker").is_none(), "not before it has started");
            if theirs.load(Ordering::SeqCst) { Err("not today".into()) } else { Ok(Probe::new(child)) }
        });
        let (root, _) = start(vec![]);
        assert!(root.supervisor().add_child(a).await.is_err());
        assert!(root.registry().names().is_empty());
        let (b, _) = scripted(named("b", "worker"), Script::default());
        root.supervisor().add_child(b).await.unwrap();
        assert_eq!(root.registry().binding("worker").unwrap().path, "root/b".into());
        root.supervisor().remove_child(&"b".into()).await.unwrap();
        fails.store(false, Ordering::SeqCst);
        root.supervisor().start_existing(&"a".into()).await.unwrap();
        assert_eq!(root.registry().binding("worker").unwrap().path, "root/a".into());
        root.shutdown().await.unwrap();
    });
}

#[test]
fn a_name_is_found_when_its_child_says_that_it_is_ready() {
    system(async {
        let spec = ChildSpec { ready: Ready::Signalled, ..named("a", "worker") };
        let (a, child) = scripted(spec, Script::default());
        let (root, _) = start(vec![a]);
        assert_eq!(answers(&child).await, 1);
        assert_eq!(incarnation(&root, "worker"), None);
        child.run(|probe, _| probe.child.ready()).unwrap();
        root.started().await.unwrap();
        assert_eq!(incarnation(&root, "worker"), Some(1));
        root.shutdown().await.unwrap();
    });
}

/// OTP's case: a registered supervisor and a registered worker, and each way in which either comes to an end.
#[test]
fn simple_global_supervisor() {
    system(async {
        let (worker, _) = scripted(named("worker", "server"), Script::default());
        let flags = SupervisorFlags::unlimited(Strategy::OneForOne);
        let (sup, _) = Child::supervisor(named("sup", "the supervisor"), flags, vec![worker]);
        let (root, _) = start(vec![sup]);
        root.started().await.unwrap();
        let both = |sup, worker| {
            let root = &root;
            async move {
                let what = format!("supervisor #{sup}, worker #{worker}");
                until(&what, || {
                    (incarnation(root, "the supervisor"), incarnation(root, "server")) == (Some(sup), Some(worker))
                })
                .await;
            }
        };
        both(1, 1).await;
        let server: ChildRef<Probe> = root.registry().whereis("server").unwrap();
        // The worker dies, the worker exits, the worker is restarted by hand, the supervisor is.
        server.tell(Boom).unwrap();
        both(1, 2).await;
        server.run(|_, context| context.stop()).unwrap();
        both(1, 3).await;
        let sup = root.registry().supervisor("the supervisor").unwrap();
        sup.force_restart(&"worker".into()).await.unwrap();
        both(1, 4).await;
        root.supervisor().force_restart(&"sup".into()).await.unwrap();
        both(2, 5).await;
        assert_eq!(answers(&server).await, 5);
        assert_eq!(&*root.registry().binding("server").unwrap().path, "root/sup/worker");
        root.shutdown().await.unwrap();
    });
}

#[test]
fn a_stuck_incarnation_loses_its_name_at_once() {
    system(async {
        let spec = ChildSpec { placement: Placement::Dedicated, ..named("a", "worker") };
        let (a, blocked) = scripted(spec, Script::default());
        let settings = hivekeeper_actors::Settings { stuck_after: Some(MS * 500), ..Default::default() };
        let record = Arc::new(Record::default());
        let flags = SupervisorFlags::unlimited(Strategy::OneForOne);
        let root = Root::start_with(settings, flags, vec![a], record).unwrap();
        root.started().await.unwrap();
        let (gate, wait) = std::sync::mpsc::sync_channel::<()>(0);
        blocked.run(move |_, _| assert!(wait.recv().is_err())).unwrap();
        until("the name follows", || incarnation(&root, "worker") == Some(2)).await;
        drop(gate);
        until("the blocked thread comes back", || root.stats().leaked == 0).await;
        assert_eq!(incarnation(&root, "worker"), Some(2), "its late end takes no name away");
        root.shutdown().await.unwrap();
    });
}
