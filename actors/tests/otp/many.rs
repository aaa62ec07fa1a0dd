//! Many children: exact counts, and costs that grow with their number and no faster.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use hivekeeper_actors::{
    Child, ChildId, ChildRef, DynamicRef, EventSink, RestartType, Root, Strategy, SupervisionEvent, SupervisorFlags,
    Template,
};

use crate::harness::*;

#[test]
fn count_children() {
    system(async {
        let template =
            Template::new(of_type("child", RestartType::Temporary), |child, ()| Worker::make(child, Role::default()));
        let (pool, children) = Child::dynamic(spec("pool"), flags(Strategy::SimpleOneForOne, 2), template);
        let sup = Sup::start(flags(Strategy::OneForOne, 0), vec![pool]).await;
        let counts = async || numbers(children.count_children().await.unwrap());
        let mut workers: Vec<ChildRef<Worker>> = Vec::new();
        for thousands in 1..=2 {
            for _ in 0..1000 {
                workers.push(children.start(()).await.unwrap().1);
            }
            assert_eq!(children.which_children().await.unwrap().len(), 1000 * thousands);
            assert_eq!(counts().await, [1, 1000 * thousands, 0, 1000 * thousands]);
        }
        assert_eq!(children.which_children().await, children.which_children().await, "asking changes nothing");
        assert_eq!(counts().await, [1, 2000, 0, 2000]);
        for worker in workers {
            worker.run(|worker, context| worker.end(context, How::Panic)).unwrap();
        }
        quiet().await;
        assert_eq!(counts().await, [1, 0, 0, 0]);
        sup.stop().await;
    });
}

#[test]
fn count_children_supervisor() {
    system(async {
        let sup = Sup::start(flags(Strategy::SimpleOneForOne, 2), vec![]).await;
        let mut workers = Vec::new();
        for thousands in 1..=2 {
            for n in 0..1000 {
                // What ends it later, all at once, is its only child: nobody outside can kill a supervisor.
                let (inner, worker) = worker(of_type("inner", RestartType::Permanent));
                let spec = of_type(&format!("child-{thousands}-{n}"), RestartType::Temporary);
                let (child, _) = Child::supervisor(spec, flags(Strategy::OneForOne, 0), vec![inner]);
                sup.start_child(child).await.unwrap();
                workers.push(worker);
            }
            assert_eq!(sup.which().await.len(), 1000 * thousands);
            // Children with names of their own have a specification each.
            assert_eq!(sup.counts().await, [1000 * thousands, 1000 * thousands, 1000 * thousands, 0]);
        }
        assert_eq!(sup.which().await, sup.which().await);
        for worker in workers {
            worker.run(|worker, context| worker.end(context, How::Panic)).unwrap();
        }
        quiet().await;
        assert_eq!(sup.counts().await, [0, 0, 0, 0]);
        sup.stop().await;
    });
}

/// Hears nothing, and so costs nothing.
struct Deaf;

impl EventSink for Deaf {
    fn event(&self, _: SupervisionEvent) {}
}

/// Real time, because that is what grows.
async fn timed<T>(what: impl Future<Output = T>) -> (f64, T) {
    let began = Instant::now();
    let result = what.await;
    (began.elapsed().as_secs_f64(), result)
}

/// Ten times as many may take fifty times as long, as in the suite: a step that looks at every child takes a hundred times as long.
#[test]
fn simple_one_for_one_scale_many_temporary_children() {
    async fn start(pool: &DynamicRef<Worker, ()>, number: usize) -> Vec<ChildId> {
        let mut ids = Vec::with_capacity(number);
        for _ in 0..number {
            ids.push(pool.start(()).await.unwrap().0);
        }
        ids
    }
    async fn terminate(pool: &DynamicRef<Worker, ()>, ids: Vec<ChildId>) {
        for id in ids {
            pool.terminate(&id).await.unwrap();
        }
    }
    system(async {
        let template =
            Template::new(of_type("child", RestartType::Temporary), |child, ()| Worker::make(child, Role::default()));
        let (pool, children) = Child::dynamic(spec("pool"), flags(Strategy::SimpleOneForOne, 2), template);
        let root = Root::start(SupervisorFlags::default(), vec![pool], Arc::new(Deaf)).unwrap();
        root.started().await.unwrap();
        // Whoever else uses the machine may slow one round down; a step that looks at every child slows all of them.
        let mut worst = Vec::new();
        while worst.len() < 3 {
            let few = start(&children, 1000).await;
            let (few, ()) = timed(terminate(&children, few)).await;
            let many = start(&children, 10_000).await;
            let (many, ()) = timed(terminate(&children, many)).await;
            if many / few <= 50.0 {
                break;
            }
            worst.push((few, many));
        }
        assert!(worst.len() < 3, "1,000 and 10,000 took {worst:?} s");
        end(root).await;
    });
}

/// A hundred times as many may take a thousand times as long, as in the suite, whose numbers are five times as large.
#[test]
fn scale_start_stop_many_children() {
    async fn start(root: &Root, children: Vec<Child>) {
        for child in children {
            root.supervisor().start_child(child).await.unwrap();
        }
    }
    async fn terminate(root: &Root, ids: Vec<ChildId>) {
        for id in ids {
            root.supervisor().terminate_child(&id).await.unwrap();
        }
    }
    system(async {
        let root = Root::start(flags(Strategy::OneForOne, 2), vec![], Arc::new(Deaf)).unwrap();
        let make = |kind: &str, number: u32| -> (Vec<Child>, Vec<ChildId>) {
            let child = |n| worker(spec(&format!("{kind}-{n}"))).0;
            (0..number).map(child).map(|child| (child.clone(), child.id().clone())).unzip()
        };
        let ((few, few_ids), (many, many_ids)) = (make("few", 200), make("many", 20_000));
        let (few_start, ()) = timed(start(&root, few)).await;
        let (few_stop, ()) = timed(terminate(&root, few_ids)).await;
        let (many_start, ()) = timed(start(&root, many)).await;
        let (many_stop, ()) = timed(terminate(&root, many_ids)).await;
        println!("200: {few_start:.3} s, {few_stop:.3} s; 20,000: {many_start:.3} s, {many_stop:.3} s");
        assert!(many_start / few_start <= 1000.0, "starts: {few_start} s, {many_start} s");
        assert!(many_stop / few_stop <= 1000.0, "stops: {few_stop} s, {many_stop} s");
        end(root).await;
    });
}

async fn end(root: Root) {
    root.supervisor().stop_all().await.unwrap();
    // The threads of the pool end in real time.
    tokio::time::resume();
    root.shutdown().await.unwrap();
}
