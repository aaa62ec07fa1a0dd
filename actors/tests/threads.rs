//! Alone in its process, because it counts the threads of the process.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/plain.rs"]
mod plain;

use std::sync::Arc;

use actix::System;
use hivekeeper_actors::{Child, ChildSpec, Placement, Root, Strategy, SupervisorFlags};

use plain::{Deaf, Plain};

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
fn shutdown_leaves_no_thread() {
    System::new().block_on(async {
        let before = threads();
        for _ in 0..3 {
            let spec = |n: u32| ChildSpec {
                placement: if n.is_multiple_of(2) { Placement::Pool } else { Placement::Dedicated },
                ..ChildSpec::new(format!("c{n}"))
            };
            let children = (0..8).map(|n| Child::actor(spec(n), |_| Ok(Plain)).0).collect();
            let root = Root::start(SupervisorFlags::unlimited(Strategy::OneForOne), children, Arc::new(Deaf)).unwrap();
            root.started().await.unwrap();
            assert!(threads() > before, "children have threads of their own");
            root.shutdown().await.unwrap();
            assert_eq!(threads(), before);
        }
    });
}
