//! What users of other systems ran into.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hivekeeper_actors::{Backoff, Child, ChildSpec, ChildState, ExitReason, Started, SupervisorError};

use crate::harness::*;

/// proto.actor (Go) 214: a panic in the hook of a stop restarted the actor that was to stop.
#[test]
fn protoactor_a_panic_while_it_stops_does_not_restart_a_child() {
    system(async {
        let seen = Arc::new(Seen::default());
        let (child, a) = specimen(eager("a"), Manner::PanicsInStopping, &seen);
        let (root, record) = start(vec![child]);
        a.ask(Ping, PATIENCE).await.unwrap();
        root.supervisor().terminate_child(&"a".into()).await.unwrap();
        assert_eq!(record.panics("a"), ["in stopping"]);
        assert_eq!(root.supervisor().snapshot().await.unwrap().children[0].state, ChildState::Stopped);
        settle().await;
        assert_eq!(seen.starts(), 1);
        root.shutdown().await.unwrap();
        assert_eq!(seen.starts(), 1);
    });
}

/// ractor 243: a start that failed kept its name in the registry, and nobody could be started under it again.
#[test]
fn ractor_a_failed_start_leaves_its_name_free() {
    system(async {
        let (root, _) = start(vec![]);
        let well = Arc::new(AtomicBool::new(false));
        let make = || {
            let well = Arc::clone(&well);
            let spec = ChildSpec { register: Some("the one".into()), ..eager("a") };
            Child::actor(spec, move |_| match well.load(Ordering::SeqCst) {
                true => Ok(Specimen::new("a", Manner::Well, &Arc::default())),
                false => Err("no".into()),
            })
        };
        let refused = root.supervisor().start_child(make().0).await.unwrap_err();
        assert_eq!(refused, SupervisorError::StartFailed { reason: ExitReason::StartFailed("no".into()) });
        well.store(true, Ordering::SeqCst);
        let (child, a) = make();
        assert_eq!(root.supervisor().start_child(child).await, Ok(Started::Running(1)));
        assert_eq!(a.ask(Ping, PATIENCE).await, Ok(1));
        root.shutdown().await.unwrap();
    });
}

/// bastion awaits the delay of one child inside its supervisor, ractor-supervisor sleeps 10 ms there on each restart: nothing else happens
/// meanwhile. Here a supervisor goes on while a child backs off, and a stop does not wait for the delay.
#[test]
fn bastion_a_delay_holds_up_neither_siblings_nor_orders_nor_the_end() {
    system(async {
        let an_hour = Backoff { initial: Duration::from_secs(3600), ..Backoff::default() };
        let delayed = |name| ChildSpec { backoff: an_hour, ..eager(name) };
        let (first, a) = specimen(delayed("a"), Manner::Well, &Arc::default());
        let (second, b) = specimen(delayed("b"), Manner::Well, &Arc::default());
        let (sibling, c) = specimen(eager("c"), Manner::Well, &Arc::default());
        let (root, record) = start(vec![first, second, sibling]);
        a.tell(Boom).unwrap();
        b.tell(Boom).unwrap();
        record.saw("a BackingOff").await;
        record.saw("b BackingOff").await;
        c.tell(Boom).unwrap();
        assert_eq!((c.ask(Ping, PATIENCE).await, c.incarnation()), (Ok(1), 2));
        let (late, d) = specimen(eager("d"), Manner::Well, &Arc::default());
        root.supervisor().add_child(late).await.unwrap();
        assert_eq!(d.ask(Ping, PATIENCE).await, Ok(1));
        root.supervisor().start_existing(&"a".into()).await.unwrap();
        assert_eq!((a.ask(Ping, PATIENCE).await, a.incarnation()), (Ok(1), 2));
        assert_eq!(root.supervisor().snapshot().await.unwrap().children[1].state, ChildState::BackingOff);
        root.shutdown().await.unwrap();
    });
}
