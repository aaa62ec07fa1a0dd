//! Limits, back-off and failing starts as Pekko tests them.
//!
//! The tests with a clock run on one thread with a clock that stands still until nothing is left to do: delays are read from the events.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use hivekeeper_actors::{
    Backoff, Child, ChildRef, ChildSpec, EventKind, ExitReason, Intensity, Placement, RestartType, Strategy,
    SupervisorFlags, TellError,
};

use crate::harness::*;

const S: Duration = Duration::from_secs(1);

/// More time than any of these tests has.
const FOR_EVER: Duration = Duration::from_secs(1_000_000);

/// Runs a test whose clock jumps to the next deadline when nothing else is to be done.
fn on_a_paused_clock<F: Future<Output = ()>>(test: F) {
    System::new().block_on(async {
        tokio::time::pause();
        tokio::time::timeout(FOR_EVER, test).await.expect("the test hangs");
    });
}

/// On the thread of the test, which has the paused clock.
fn here(name: &str) -> ChildSpec {
    ChildSpec { placement: Placement::WithSupervisor, ..eager(name) }
}

fn limit(max_restarts: u32, period: Duration) -> Option<Intensity> {
    Some(Intensity { max_restarts, period })
}

async fn crash(a: &ChildRef<Specimen>) {
    a.ask(Boom, FOR_EVER).await.unwrap_err();
}

/// A child whose incarnations fail to start from `first` on, as many as `count`.
fn fails_to_start(spec: ChildSpec, first: u64, count: u64, seen: &Arc<Seen>) -> (Child, ChildRef<Specimen>) {
    let seen = Arc::clone(seen);
    Child::actor(spec, move |child| {
        let fails = (first..first + count).contains(&child.incarnation());
        Ok(Specimen::new("a", if fails { Manner::PanicsInStarted } else { Manner::Well }, &seen))
    })
}

/// "stop at first exception when restart retries limit is 0", "stop when restart limit is hit".
#[test]
fn pekko_a_limit_of_n_allows_n_restarts() {
    system(async {
        for max_restarts in [0, 1, 2] {
            let spec = ChildSpec { intensity: limit(max_restarts, FOR_EVER), ..eager("a") };
            let (child, a) = specimen(spec, Manner::Well, &Arc::default());
            let (root, record) = start(vec![child]);
            for _ in 0..=max_restarts {
                a.ask(Boom, PATIENCE).await.unwrap_err();
            }
            record.saw("a Failed").await;
            assert_eq!((a.incarnation(), a.tell(Ping)), (u64::from(max_restarts) + 1, Err(TellError::Stopped)));
            root.shutdown().await.unwrap();
        }
    });
}

/// "reset fixed limit after timeout".
#[test]
fn pekko_a_limit_is_whole_again_after_its_window() {
    on_a_paused_clock(async {
        let (child, a) =
            specimen(ChildSpec { intensity: limit(2, S * 10), ..here("a") }, Manner::Well, &Arc::default());
        let (root, record) = start(vec![child]);
        for _ in 0..2 {
            crash(&a).await;
            crash(&a).await;
            assert_eq!(a.ask(Ping, FOR_EVER).await, Ok(1));
            tokio::time::sleep(S * 11).await;
        }
        assert_eq!((a.incarnation(), record.count("a Failed")), (5, 0));
        for _ in 0..3 {
            crash(&a).await;
        }
        record.saw("a Failed").await;
        tokio::time::resume();
        root.shutdown().await.unwrap();
    });
}

/// kameo's and many a count starts over only after a pause as long as the window, so that any steady rate is too much in the end. A sliding
/// window forgets each restart when its time is up.
#[test]
fn pekko_a_steady_rate_below_the_limit_is_never_too_much() {
    on_a_paused_clock(async {
        let (child, a) =
            specimen(ChildSpec { intensity: limit(2, S * 10), ..here("a") }, Manner::Well, &Arc::default());
        let (root, record) = start(vec![child]);
        for _ in 0..50 {
            crash(&a).await;
            assert_eq!(a.ask(Ping, FOR_EVER).await, Ok(1));
            tokio::time::sleep(S * 6).await;
        }
        assert_eq!((a.incarnation(), record.count("a Failed")), (51, 0));
        tokio::time::resume();
        root.shutdown().await.unwrap();
    });
}

fn slow() -> Backoff {
    Backoff { initial: S, then: S * 2, max: S * 10, reset_after: S * 60, factor: 2.0, jitter: 0.0 }
}

/// "restart after exponential backoff", "reset exponential backoff count after reset timeout".
#[test]
fn pekko_the_delay_grows_to_its_bound_and_starts_over_after_a_good_run() {
    on_a_paused_clock(async {
        let (child, a) = specimen(ChildSpec { backoff: slow(), ..here("a") }, Manner::Well, &Arc::default());
        let (root, record) = start(vec![child]);
        for _ in 0..5 {
            crash(&a).await;
            assert_eq!(a.ask(Ping, FOR_EVER).await, Ok(1));
        }
        tokio::time::sleep(S * 61).await;
        crash(&a).await;
        assert_eq!(a.ask(Ping, FOR_EVER).await, Ok(1));
        let delays = record.of("a", |kind| match kind {
            EventKind::BackingOff { attempt, delay } => Some((*attempt, delay.as_secs())),
            _ => None,
        });
        assert_eq!(delays, [(1, 1), (2, 2), (3, 4), (4, 8), (5, 10), (1, 1)]);
        tokio::time::resume();
        root.shutdown().await.unwrap();
    });
}

/// "publish dropped messages while backing off and stash is full": what waits for the next incarnation has the bound of the inbox, and who is
/// too many is told.
#[test]
fn pekko_what_waits_for_a_restart_is_bounded() {
    on_a_paused_clock(async {
        let seen = Arc::new(Seen::default());
        let spec = ChildSpec { backoff: slow(), inbox_capacity: 2, ..here("a") };
        let (child, a) = specimen(spec, Manner::Well, &seen);
        let (root, record) = start(vec![child]);
        crash(&a).await;
        record.saw("a BackingOff").await;
        assert_eq!([(); 4].map(|()| a.tell(Ping)), [Ok(()), Ok(()), Err(TellError::Full), Err(TellError::Full)]);
        until("both are handled", || seen.pings() == 2).await;
        assert_eq!(a.incarnation(), 2);
        tokio::time::resume();
        root.shutdown().await.unwrap();
    });
}

/// "restart.withLimit when deferred factory throws", "restart with exponential backoff when deferred factory throws".
#[test]
fn pekko_a_first_start_that_fails_is_tried_again_with_a_delay() {
    on_a_paused_clock(async {
        let seen = Arc::new(Seen::default());
        let (child, a) = fails_to_start(ChildSpec { backoff: slow(), ..here("a") }, 1, 1, &seen);
        let (root, record) = start(vec![child]);
        assert_eq!((a.ask(Ping, FOR_EVER).await, a.incarnation(), seen.starts()), (Ok(1), 2, 2));
        assert_eq!(record.lines()[..3], ["a Starting", "a Exited", "a BackingOff"]);
        tokio::time::resume();
        root.shutdown().await.unwrap();
    });
}

/// "fail after more than limit in restart.withLimit when deferred factory throws".
#[test]
fn pekko_a_start_that_always_fails_gives_up_at_the_limit() {
    system(async {
        let seen = Arc::new(Seen::default());
        let (child, a) = fails_to_start(ChildSpec { intensity: limit(2, FOR_EVER), ..eager("a") }, 1, 100, &seen);
        let (root, record) = start(vec![child]);
        record.saw("a Failed").await;
        assert_eq!((a.incarnation(), seen.starts(), record.count("a Started")), (3, 3, 0));
        root.shutdown().await.unwrap();
    });
}

/// "fail if reaching maximum number of restarts with backoff": restarts that fail count as much as those that live.
#[test]
fn pekko_failed_restarts_count() {
    system(async {
        let seen = Arc::new(Seen::default());
        let (child, a) = fails_to_start(ChildSpec { intensity: limit(2, FOR_EVER), ..eager("a") }, 2, 100, &seen);
        let (root, record) = start(vec![child]);
        a.ask(Boom, PATIENCE).await.unwrap_err();
        record.saw("a Failed").await;
        assert_eq!((a.incarnation(), record.count("a Started")), (3, 1));
        assert_eq!(record.panics("a"), ["in a handler", "in started", "in started"]);
        root.shutdown().await.unwrap();
    });
}

/// "stop when strategy is stop", "stop when strategy is stop - exception in setup".
#[test]
fn pekko_a_child_that_is_not_to_be_restarted_is_not() {
    system(async {
        for manner in [Manner::Well, Manner::PanicsInStarted] {
            let seen = Arc::new(Seen::default());
            let spec = ChildSpec { restart: RestartType::Temporary, ..eager("a") };
            let (child, a) = specimen(spec, manner, &seen);
            let (root, record) = start(vec![child]);
            let _ = a.tell(Boom);
            record.saw("a Exited").await;
            until("it is told", || a.tell(Ping) == Err(TellError::Stopped)).await;
            assert_eq!((seen.starts(), a.incarnation()), (1, 1));
            root.shutdown().await.unwrap();
        }
    });
}

/// "create underlying deferred behavior immediately".
#[test]
fn pekko_a_child_starts_without_a_first_message() {
    system(async {
        let seen = Arc::new(Seen::default());
        let (child, _) = specimen(eager("a"), Manner::Well, &seen);
        assert_eq!(seen.starts(), 0, "not yet");
        let (root, _) = start(vec![child]);
        root.started().await.unwrap();
        assert_eq!(seen.starts(), 1);
        root.shutdown().await.unwrap();
    });
}

/// "that is stopped after setup should be stopped", "that is stopped after restart should be stopped".
#[test]
fn pekko_a_stop_in_started_is_a_normal_end() {
    struct Brief {
        panics_first: bool,
    }
    impl Actor for Brief {
        type Context = Context<Self>;

        fn started(&mut self, context: &mut Self::Context) {
            assert!(!self.panics_first, "before that");
            context.stop();
        }
    }
    system(async {
        for panics in [0, 1] {
            let spec = ChildSpec { restart: RestartType::Transient, ..eager("a") };
            let (child, _) = Child::actor(spec, move |child| Ok(Brief { panics_first: child.incarnation() <= panics }));
            let (root, record) = start(vec![child]);
            record.saw("a Completed").await;
            assert_eq!(record.exits("a").last(), Some(&ExitReason::Normal));
            assert_eq!(record.count("a Starting") as u64, panics + 1);
            root.shutdown().await.unwrap();
        }
    });
}

/// "stop children when restarting", "stop children when backoff": a supervisor that ends takes its children along, and its next incarnation
/// has those that it is born with and no other.
#[test]
fn pekko_children_stop_with_their_parent() {
    system(async {
        let (static_seen, late_seen) = (Arc::new(Seen::default()), Arc::new(Seen::default()));
        let (child, a) = specimen(eager("a"), Manner::WindsDown, &static_seen);
        let (late_child, late) = specimen(eager("late"), Manner::WindsDown, &late_seen);
        let (parent, parent_ref) =
            Child::supervisor(eager("parent"), SupervisorFlags::unlimited(Strategy::OneForOne), vec![child]);
        let (root, _) = start(vec![parent]);
        root.started().await.unwrap();
        parent_ref.add_child(late_child).await.unwrap();
        root.supervisor().force_restart(&"parent".into()).await.unwrap();
        assert_eq!(static_seen.notes(), ["a wound down", "a dropped"]);
        assert_eq!(late_seen.notes(), ["late wound down", "late dropped"]);
        assert_eq!((a.ask(Ping, PATIENCE).await, a.incarnation()), (Ok(1), 2));
        assert_eq!(late.tell(Ping), Err(TellError::Stopped));
        root.shutdown().await.unwrap();
    });
}
