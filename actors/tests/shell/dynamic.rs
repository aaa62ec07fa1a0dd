//! Children that come and go.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use hivekeeper_actors::{
    Child, ChildCtx, ChildId, ChildSpec, Counts, DynamicRef, ExitReason, Ignore, Intensity, Presence, Ready,
    RestartType, Strategy, SupervisorError, SupervisorFlags, Template,
};
use parking_lot::Mutex;

use crate::harness::*;

type Workers = DynamicRef<Probe, Arc<str>>;

/// A dynamic supervisor of probes that remember what they were started with.
fn workers(spec: ChildSpec, given: &Arc<Mutex<Vec<Arc<str>>>>) -> (Child, Workers) {
    let given = Arc::clone(given);
    let template = Template::new(spec, move |child: ChildCtx<Probe>, args: Arc<str>| {
        if &*args == "ignore" {
            return Err(Ignore.into());
        }
        if &*args == "fail" {
            return Err("as told".into());
        }
        given.lock().push(args);
        Ok(Probe::new(child))
    });
    Child::dynamic(ChildSpec::new("workers"), SupervisorFlags::unlimited(Strategy::default()), template)
}

#[test]
fn each_start_mints_a_name_and_keeps_its_arguments_for_restarts() {
    system(async {
        let given = Arc::default();
        let (child, workers) = workers(eager("w"), &given);
        let (root, record) = start(vec![child]);
        root.started().await.unwrap();
        let (first, one) = workers.start("one".into()).await.unwrap();
        let (second, two) = workers.start("two".into()).await.unwrap();
        assert_eq!((first.as_str(), second.as_str()), ("w-1", "w-2"));
        two.tell(Boom).unwrap();
        assert_eq!((answers(&one).await, answers(&two).await), (1, 2));
        assert_eq!(given.lock().iter().map(|args| &**args).collect::<Vec<_>>(), ["one", "two", "two"]);
        let which = workers.which_children().await.unwrap();
        let shown: Vec<_> = which.into_iter().map(|child| (child.id, child.state)).collect();
        assert_eq!(shown, [(first.clone(), Presence::Running(1)), (second, Presence::Running(2))]);
        let counts = Counts { specs: 1, active: 2, supervisors: 0, workers: 2 };
        assert_eq!(workers.count_children().await.unwrap(), counts);
        workers.terminate(&first).await.unwrap();
        assert_eq!(record.exits("w-1"), [ExitReason::Shutdown]);
        assert_eq!(workers.count_children().await.unwrap(), Counts { active: 1, workers: 1, ..counts });
        workers.terminate(&first).await.unwrap();
        for unknown in ["w-3", "w-", "w", "x-1", "w-0", "w--1", "w-+1", "w-01"] {
            assert_eq!(workers.terminate(&unknown.into()).await, Err(SupervisorError::NotFound), "{unknown}");
        }
        root.shutdown().await.unwrap();
    });
}

#[test]
fn a_start_that_fails_or_declines_leaves_nothing_behind() {
    system(async {
        let (child, workers) = workers(eager("w"), &Arc::default());
        let (root, record) = start(vec![child]);
        root.started().await.unwrap();
        let failed = workers.start("fail".into()).await.unwrap_err();
        assert_eq!(failed, SupervisorError::StartFailed { reason: ExitReason::StartFailed("as told".into()) });
        assert_eq!(workers.start("ignore".into()).await.unwrap_err(), SupervisorError::Ignored);
        assert_eq!(record.exits("w-2"), [ExitReason::Ignored]);
        assert_eq!(workers.count_children().await.unwrap(), Counts { specs: 1, ..Counts::default() });
        root.shutdown().await.unwrap();
        assert_eq!(workers.start("late".into()).await.unwrap_err(), SupervisorError::Gone);
    });
}

/// Each start waits for its own child alone: all of them are under way before the first is ready.
#[test]
fn starts_do_not_wait_for_each_other() {
    const STARTS: usize = 64;
    system(async {
        let starting: Arc<Mutex<Vec<ChildCtx<Probe>>>> = Arc::default();
        let seen = Arc::clone(&starting);
        let template = Template::new(ChildSpec { ready: Ready::Signalled, ..eager("w") }, move |child, _: ()| {
            seen.lock().push(ChildCtx::clone(&child));
            Ok(Probe::new(child))
        });
        let (child, workers) = Child::dynamic(ChildSpec::new("workers"), SupervisorFlags::default(), template);
        let (root, _) = start(vec![child]);
        root.started().await.unwrap();
        let starts = actix_rt::spawn({
            let workers = workers.clone();
            async move { join_all((0..STARTS).map(|_| workers.start(()))).await }
        });
        until("all are starting", || starting.lock().len() == STARTS).await;
        assert_eq!(root.supervisor().snapshot().await.unwrap().children[0].children.len(), STARTS);
        starting.lock().iter().for_each(ChildCtx::ready);
        let started = starts.await.unwrap();
        assert!(started.iter().all(Result::is_ok));
        assert_eq!(workers.count_children().await.unwrap().active, STARTS);
        starting.lock().clear();
        root.shutdown().await.unwrap();
    });
}

/// What a temporary child was started with, its specification and its inbox go with it.
#[test]
fn ten_thousand_temporary_children_leave_nothing_behind() {
    const CHILDREN: usize = 10_000;
    /// Starts under way at once: more than fit into the supervisor's inbox, the others wait for room.
    const AT_ONCE: usize = 5 * hivekeeper_actors::INBOX_CAPACITY_DEFAULT;
    system(async {
        let given = Arc::default();
        let (child, workers) = workers(ChildSpec { restart: RestartType::Temporary, ..eager("w") }, &given);
        let (root, _) = start(vec![child]);
        root.started().await.unwrap();
        let args: Arc<str> = "shared".into();
        let mut inboxes = Vec::new();
        while inboxes.len() < CHILDREN {
            let next = AT_ONCE.min(CHILDREN - inboxes.len());
            for started in join_all((0..next).map(|_| workers.start(Arc::clone(&args)))).await {
                inboxes.push(started.unwrap());
            }
        }
        given.lock().clear();
        assert_eq!(workers.count_children().await.unwrap().active, CHILDREN);
        assert_eq!(Arc::strong_count(&args), 1 + CHILDREN, "one copy a child");
        for (index, (_, child)) in inboxes.drain(..).enumerate() {
            match index % 3 {
                0 => child.tell(Boom).unwrap(),
                1 => child.run(|_, context| actix::ActorContext::stop(context)).unwrap(),
                _ => child.run(|probe, context| probe.child.fail(context, "done")).unwrap(),
            }
        }
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while workers.count_children().await.unwrap() != (Counts { specs: 1, ..Counts::default() }) {
            assert!(tokio::time::Instant::now() < deadline, "some stay");
            tokio::time::sleep(MS).await;
        }
        until("nobody keeps the arguments", || Arc::strong_count(&args) == 1).await;
        assert_eq!(workers.which_children().await.unwrap(), []);
        let tree = workers.supervisor().snapshot().await.unwrap();
        assert_eq!((tree.children.len(), tree.state), (0, hivekeeper_actors::ChildState::Running));
        root.shutdown().await.unwrap();
    });
}

#[test]
fn restarting_children_count_as_children_and_not_as_active() {
    system(async {
        let backoff = hivekeeper_actors::Backoff { initial: Duration::from_secs(600), ..Default::default() };
        let (child, workers) = workers(ChildSpec { backoff, ..eager("w") }, &Arc::default());
        let (root, record) = start(vec![child]);
        root.started().await.unwrap();
        let (id, worker) = workers.start("one".into()).await.unwrap();
        worker.tell(Boom).unwrap();
        record.saw("w-1 backing_off").await;
        let counts = Counts { specs: 1, active: 0, supervisors: 0, workers: 1 };
        assert_eq!(workers.count_children().await.unwrap(), counts);
        assert_eq!(workers.which_children().await.unwrap()[0].state, Presence::Restarting);
        workers.terminate(&id).await.unwrap();
        assert_eq!(workers.which_children().await.unwrap(), []);
        root.shutdown().await.unwrap();
    });
}

/// A supervisor that gives up forgets its dynamic children; its handle works for the next incarnation, and names are not used twice.
#[test]
fn a_restarted_supervisor_starts_empty() {
    system(async {
        let limit = Some(Intensity { max_restarts: 0, ..Intensity::default() });
        let flags = SupervisorFlags { intensity: limit, ..SupervisorFlags::default() };
        let template = Template::new(ChildSpec::new("w"), |child, _: ()| Ok(Probe::new(child)));
        let (child, workers) = Child::dynamic(eager("workers"), flags, template);
        let (root, record) = start(vec![child]);
        root.started().await.unwrap();
        let (_, first) = workers.start(()).await.unwrap();
        workers.start(()).await.unwrap();
        first.tell(Boom).unwrap();
        until("the supervisor is made again", || record.count("workers started") == 2).await;
        let [ExitReason::GaveUp { child, reason }] = &record.exits("workers")[..] else { panic!("no give-up") };
        assert_eq!(child, &ChildId::from("w-1"));
        assert!(matches!(&**reason, ExitReason::Panic { text, .. } if text.contains("boom")), "{reason}");
        assert_eq!(record.exits("w-2"), [ExitReason::Shutdown]);
        assert_eq!(workers.which_children().await.unwrap(), []);
        assert_eq!(workers.start(()).await.unwrap().0.as_str(), "w-3");
        root.shutdown().await.unwrap();
    });
}
