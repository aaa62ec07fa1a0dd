//! Alone in its process, because it counts the threads of the process.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use actix::prelude::*;
use hivekeeper_actors::{Child, ChildSpec, EventSink, Root, Strategy, SupervisionEvent, SupervisorFlags};

struct Deaf;
impl EventSink for Deaf {
    fn event(&self, _: SupervisionEvent) {}
}

struct Plain;
impl Actor for Plain {
    type Context = Context<Self>;
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
fn shutdown_leaves_no_thread() {
    System::new().block_on(async {
        let before = threads();
        for _ in 0..3 {
            let children = (0..8).map(|n| Child::actor(ChildSpec::new(format!("c{n}")), |_| Ok(Plain)).0).collect();
            let root = Root::start(SupervisorFlags::unlimited(Strategy::OneForOne), children, Arc::new(Deaf)).unwrap();
            root.started().await.unwrap();
            assert!(threads() > before, "children have threads of their own");
            root.shutdown().await.unwrap();
            // The threads that waited for the others may take a moment to go.
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
            while threads() > before && std::time::Instant::now() < deadline {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            assert_eq!(threads(), before);
        }
    });
}
