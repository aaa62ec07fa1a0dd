//! Alone in its process, because the panic hook belongs to the process.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/plain.rs"]
mod plain;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix::System;
use hivekeeper_actors::{Child, ChildSpec, Root, Strategy, SupervisorFlags};

use plain::{Deaf, Plain};

static HOOKED: AtomicUsize = AtomicUsize::new(0);

#[test]
fn the_previous_hook_hears_of_other_panics_only() {
    std::panic::set_hook(Box::new(|_| {
        HOOKED.fetch_add(1, Ordering::SeqCst);
    }));
    System::new().block_on(async {
        let (child, plain) = Child::actor(ChildSpec::new("a"), |_| Ok(Plain));
        let root = Root::start(SupervisorFlags::unlimited(Strategy::OneForOne), vec![child], Arc::new(Deaf)).unwrap();
        plain.run(|_, _| panic!("a child's")).unwrap();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while plain.incarnation() < 2 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!((plain.incarnation(), HOOKED.load(Ordering::SeqCst)), (2, 0));
        assert!(std::thread::spawn(|| panic!("somebody else's")).join().is_err());
        assert_eq!(HOOKED.load(Ordering::SeqCst), 1);
        root.shutdown().await.unwrap();
    });
}
