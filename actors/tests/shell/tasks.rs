//! Tasks that end with their incarnation.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix::prelude::*;
use hivekeeper_actors::{ChildRef, ExitReason, Placement, TASKS_MAX, TaskError};

use crate::harness::*;

/// Counts itself while it lives.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn spawn_forever(child: &ChildRef<Probe>, count: &Arc<AtomicUsize>) {
    let theirs = Arc::clone(count);
    let before = count.load(Ordering::SeqCst);
    child
        .run(move |probe, _| {
            let counted = Counted::new(&theirs);
            let task = async move {
                std::future::pending::<()>().await;
                drop(counted);
            };
            probe.child.spawn_task(task).unwrap();
        })
        .unwrap();
    until("the task runs", || count.load(Ordering::SeqCst) == before + 1).await;
}

#[test]
fn tasks_end_with_the_incarnation_however_it_ends() {
    system(async {
        let count = Arc::new(AtomicUsize::new(0));
        let (a, child) = probe("a");
        let (root, _) = start(vec![a]);
        root.started().await.unwrap();
        let ends: [fn(&ChildRef<Probe>); 3] = [
            |child| child.tell(Boom).unwrap(),
            |child| child.run(|_, context| context.stop()).unwrap(),
            |child| child.run(|probe, context| probe.child.clone().fail(context, "enough")).unwrap(),
        ];
        for (n, end) in (2..).zip(ends) {
            for _ in 0..3 {
                spawn_forever(&child, &count).await;
            }
            end(&child);
            assert_eq!(answers(&child).await, n);
            until("its tasks are gone", || count.load(Ordering::SeqCst) == 0).await;
        }
        spawn_forever(&child, &count).await;
        root.supervisor().terminate_child(&"a".into()).await.unwrap();
        until("a stop takes them along, too", || count.load(Ordering::SeqCst) == 0).await;
        root.shutdown().await.unwrap();
    });
}

#[test]
fn a_task_may_end_first_and_a_late_one_never_begins() {
    system(async {
        let (a, child) = scripted(
            hivekeeper_actors::ChildSpec { placement: Placement::WithSupervisor, ..eager("a") },
            Script::default(),
        );
        let (root, _) = start(vec![a]);
        root.started().await.unwrap();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let (ctx, ctx_of) = tokio::sync::oneshot::channel();
        child
            .run(move |probe, _| {
                probe.child.spawn_task(async move { sender.send(7).unwrap() }).unwrap();
                assert!(ctx.send(probe.child.clone()).is_ok());
            })
            .unwrap();
        assert_eq!(receiver.await, Ok(7));
        let ctx = ctx_of.await.unwrap();
        child.tell(Boom).unwrap();
        assert_eq!(answers(&child).await, 2);
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Counted::new(&count);
        let late = ctx.spawn_task(async move {
            drop(counted);
            std::future::pending::<()>().await;
        });
        assert_eq!(late, Err(TaskError::Ended));
        assert_eq!(count.load(Ordering::SeqCst), 0, "dropped at once");
        root.shutdown().await.unwrap();
    });
}

#[test]
fn a_panic_of_a_task_is_counted_and_one_of_a_linked_task_ends_the_incarnation() {
    system(async {
        let (a, child) = probe("a");
        let (root, record) = start(vec![a]);
        root.started().await.unwrap();
        child.run(|probe, _| probe.child.spawn_task(async { panic!("a task's own") }).unwrap()).unwrap();
        until("it is counted", || root.stats().task_panics == 1).await;
        assert_eq!((answers(&child).await, record.exits("a")), (1, vec![]));
        child
            .run(|probe, _| {
                let linked = probe.child.spawn_linked(async {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    panic!("the actor's, too");
                });
                linked.unwrap();
            })
            .unwrap();
        record.saw("a exited").await;
        assert_eq!(answers(&child).await, 2);
        let [ExitReason::Panic { text, location }] = &record.exits("a")[..] else { panic!("{:?}", record.exits("a")) };
        assert_eq!(&**text, "the actor's, too");
        assert!(location.contains("tasks.rs"), "{location}");
        assert_eq!(root.stats().task_panics, 2);
        root.shutdown().await.unwrap();
    });
}

#[test]
fn tasks_have_a_bound_and_those_that_are_done_make_room() {
    system(async {
        let count = Arc::new(AtomicUsize::new(0));
        let (a, child) = probe("a");
        let (root, record) = start(vec![a]);
        root.started().await.unwrap();
        let (done, is_done) = tokio::sync::watch::channel(false);
        let theirs = Arc::clone(&count);
        child
            .run(move |probe, _| {
                for n in 0..TASKS_MAX {
                    let (counted, mut is_done) = (Counted::new(&theirs), is_done.clone());
                    let task = async move {
                        if n == 0 {
                            is_done.wait_for(|done| *done).await.unwrap();
                        } else {
                            std::future::pending::<()>().await;
                        }
                        drop(counted);
                    };
                    probe.child.spawn_task(task).unwrap();
                }
                let counted = Counted::new(&theirs);
                let refused = probe.child.spawn_linked(async move { drop(counted) });
                assert_eq!(refused, Err(TaskError::Full));
            })
            .unwrap();
        until("the refused one is dropped", || count.load(Ordering::SeqCst) == TASKS_MAX).await;
        done.send_replace(true);
        until("one is done", || count.load(Ordering::SeqCst) == TASKS_MAX - 1).await;
        spawn_forever(&child, &count).await;
        root.supervisor().terminate_child(&"a".into()).await.unwrap();
        until("all are gone", || count.load(Ordering::SeqCst) == 0).await;
        assert_eq!(record.exits("a"), [ExitReason::Shutdown]);
        root.shutdown().await.unwrap();
    });
}
