//! The two bugs that Erlang's supervisors with delayed restarts had, and delays that several children share.

use std::sync::Arc;
use std::time::Duration;

use hivekeeper_actors::{
    Backoff, Child, ChildRef, ChildSpec, ChildState, EventKind, ExitReason, Intensity, Meltdown, Presence, Strategy,
    SupervisorFlags,
};

use crate::harness::*;

/// Every restart is delayed by so much.
fn delayed(name: &str, delay: Duration) -> ChildSpec {
    let backoff = Backoff { initial: delay, then: delay, max: delay, jitter: 0.0, ..Backoff::default() };
    ChildSpec { backoff, ..eager(name) }
}

fn child(spec: ChildSpec) -> (Child, ChildRef<Specimen>) {
    specimen(spec, Manner::Well, &Arc::default())
}

const AN_HOUR: Duration = Duration::from_secs(3600);

/// rabbitmq-common 201: a child in its delay was not marked as restarting, so that what failed next was taken for a stranger and lost.
#[test]
fn rabbitmq_common_201_a_delayed_child_is_restarting_and_its_next_failure_is_seen() {
    system(async {
        let (first, a) = child(delayed("a", MS * 20));
        let (second, b) = child(delayed("b", AN_HOUR));
        let (root, record) = start(vec![first, second]);
        let supervisor = root.supervisor();
        b.tell(Boom).unwrap();
        record.saw("b BackingOff").await;
        for crashes in 1..=3 {
            a.tell(Boom).unwrap();
            until("it has crashed", || record.exits("a").len() == crashes).await;
            until("it is restarted", || record.count("a Started") == crashes + 1).await;
        }
        assert_eq!((a.ask(Ping, PATIENCE).await, a.incarnation()), (Ok(1), 4));

        let b_now = &supervisor.which_children().await.unwrap()[1];
        assert_eq!(b_now.state, Presence::Restarting);
        let counts = supervisor.count_children().await.unwrap();
        assert_eq!((counts.specs, counts.active), (2, 1));
        let node = &supervisor.snapshot().await.unwrap().children[1];
        assert_eq!((node.state, record.count("b Starting")), (ChildState::BackingOff, 1));
        root.shutdown().await.unwrap();
    });
}

/// The same when a sibling's failure comes in between and would take the delayed child along: it waits for its own delay, and starts once.
#[test]
fn rabbitmq_common_201_a_sibling_that_fails_meanwhile_starts_the_delayed_child_no_second_time() {
    system(async {
        let (first, a) = child(eager("a"));
        let (second, b) = child(delayed("b", MS * 500));
        let (root, record) = start_with(SupervisorFlags::unlimited(Strategy::RestForOne), vec![first, second]);
        root.started().await.unwrap();
        b.tell(Boom).unwrap();
        record.saw("b BackingOff").await;
        a.tell(Boom).unwrap();
        until("the sibling is back", || record.count("a Started") == 2).await;
        assert_eq!(root.supervisor().snapshot().await.unwrap().children[1].state, ChildState::BackingOff);
        assert_eq!((b.ask(Ping, PATIENCE).await, b.incarnation()), (Ok(1), 2));
        settle().await;
        assert_eq!((record.count("b Starting"), record.count("b Started")), (2, 2));
        b.tell(Boom).unwrap();
        until("its next failure is seen", || record.count("b BackingOff") == 2).await;
        root.shutdown().await.unwrap();
    });
}

/// supervisor3 2: a delayed restart was counted when it was put off and again when it was due.
#[test]
fn supervisor3_2_a_delayed_restart_is_counted_once() {
    system(async {
        let intensity = Some(Intensity { max_restarts: 2, period: AN_HOUR });
        for (own, supervisors) in [(intensity, None), (None, intensity)] {
            let flags = SupervisorFlags {
                intensity: supervisors,
                meltdown: Meltdown::Escalate,
                ..SupervisorFlags::new(Strategy::OneForOne)
            };
            let (only, a) = child(ChildSpec { intensity: own, ..delayed("a", MS * 10) });
            let (root, record) = start_with(flags, vec![only]);
            for crashes in 1..=2 {
                a.tell(Boom).unwrap();
                until("it is restarted", || record.count("a Started") == crashes + 1).await;
            }
            let node = &root.supervisor().snapshot().await.unwrap().children[0];
            assert_eq!((node.restarts, node.restarts_in_window), (2, 2));
            assert_eq!(record.count("a LimitReached"), 0);
            a.tell(Boom).unwrap();
            record.saw("a LimitReached").await;
            if own.is_none() {
                assert!(matches!(root.done().await, ExitReason::GaveUp { .. }));
            }
            root.shutdown().await.unwrap();
            assert_eq!(record.count("a Starting"), 3);
        }
    });
}

/// Children of one rate-limited provider: what fails while the group backs off waits as long as the others and counts as the same failure.
#[test]
fn a_backoff_group_waits_together_and_others_do_not() {
    system(async {
        let backoff =
            Backoff { initial: Duration::ZERO, then: AN_HOUR, max: AN_HOUR, jitter: 0.0, ..Backoff::default() };
        let member = |name| ChildSpec { backoff, backoff_group: Some("provider".into()), ..eager(name) };
        let (first, a) = child(member("a"));
        let (second, b) = child(member("b"));
        let (stranger, c) = child(ChildSpec { backoff_group: None, ..member("c") });
        let (root, record) = start(vec![first, second, stranger]);
        a.tell(Boom).unwrap();
        assert_eq!((a.ask(Ping, PATIENCE).await, a.incarnation()), (Ok(1), 2), "the first restart comes at once");
        for other in [&b, &c] {
            other.tell(Boom).unwrap();
        }
        record.saw("b BackingOff").await;
        assert_eq!((c.ask(Ping, PATIENCE).await, c.incarnation()), (Ok(1), 2), "a stranger's first restart, too");
        a.tell(Boom).unwrap();
        until("it backs off", || record.count("a BackingOff") == 2).await;
        let delays = |id: &str| {
            record.of(id, |kind| match kind {
                EventKind::BackingOff { attempt, delay } => Some((*attempt, *delay)),
                _ => None,
            })
        };
        assert_eq!(delays("a")[0], (1, Duration::ZERO));
        assert_eq!(delays("b"), [(2, AN_HOUR)], "the group's second restart is its first");
        let (attempt, rest) = delays("a")[1];
        assert!(attempt == 2 && rest < AN_HOUR && rest > AN_HOUR / 2, "until the same moment: {attempt} {rest:?}");
        root.shutdown().await.unwrap();
    });
}
