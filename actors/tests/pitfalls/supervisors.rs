//! P7, P13 to P15: supervisors themselves.

use std::future::Future;
use std::sync::Arc;
use std::task::{Context as TaskContext, Wake, Waker};
use std::time::Duration;

use hivekeeper_actors::{
    Child, ChildSpec, ExitReason, Intensity, RestartType, Strategy, SupervisorFlags, SupervisorRef, TellError,
};

use crate::harness::*;

/// OTP allows one restart in five seconds, which one unlucky coincidence spends. Ours is Elixir's. A child has no limit of its own unless it
/// asks for one.
#[test]
fn p07_the_default_intensity_is_three_in_five_seconds() {
    let three = Intensity { max_restarts: 3, period: Duration::from_secs(5) };
    assert_eq!(SupervisorFlags::default().intensity, Some(three));
    assert_eq!(ChildSpec::new("a").intensity, None);
}

/// What each level allows is multiplied: a child below two supervisors with one restart each starts four times.
#[test]
fn p07_intensities_multiply_over_the_levels() {
    system(async {
        let seen = Arc::new(Seen::default());
        let once = Some(Intensity { max_restarts: 1, period: PATIENCE });
        let flags = || SupervisorFlags { intensity: once, ..SupervisorFlags::default() };
        let (child, _) = specimen(eager("a"), Manner::PanicsInStarted, &seen);
        let (inner, _) = Child::supervisor(eager("inner"), flags(), vec![child]);
        let outer = ChildSpec { restart: RestartType::Temporary, ..eager("outer") };
        let (outer, _) = Child::supervisor(outer, flags(), vec![inner]);
        let (root, record) = start(vec![outer]);
        record.saw("outer Exited").await;
        assert_eq!((seen.starts(), record.exits("inner").len()), (4, 2));
        let gave_up = |exit: &ExitReason| match exit {
            ExitReason::GaveUp { child, .. } => child.to_string(),
            other => format!("{other:?}"),
        };
        assert_eq!(record.exits("inner").iter().map(gave_up).collect::<Vec<_>>(), ["a", "a"]);
        assert_eq!(record.exits("outer").iter().map(gave_up).collect::<Vec<_>>(), ["inner"]);
        root.shutdown().await.unwrap();
    });
}

/// Every child of a supervisor ends at once: each end is a message to one actor, whose work for each must not grow with their number.
#[test]
fn p13_a_storm_of_exits_is_weathered() {
    const CHILDREN: usize = 2000;
    system(async {
        let children: Vec<_> =
            (0..CHILDREN).map(|n| specimen(eager(&format!("c{n}")), Manner::Well, &Arc::default())).collect();
        let refs: Vec<_> = children.iter().map(|(_, child_ref)| child_ref.clone()).collect();
        let (root, record) = start(children.into_iter().map(|(child, _)| child).collect());
        root.started().await.unwrap();
        for child in &refs {
            child.tell(Boom).unwrap();
        }
        for child in &refs {
            assert_eq!((child.ask(Ping, PATIENCE).await, child.incarnation()), (Ok(1), 2));
        }
        let exits = record.lines().iter().filter(|line| line.ends_with(" Exited")).count();
        assert_eq!(exits, CHILDREN, "each once");
        root.shutdown().await.unwrap();
    });
}

/// Whoever asks a supervisor is woken by it, and a waker may do anything: this one panics inside the supervisor.
struct Bomb;

impl Wake for Bomb {
    fn wake(self: Arc<Self>) {
        panic!("in a waker");
    }
}

/// Makes a supervisor panic, as a bug in it would.
async fn blow_up(swarm: &SupervisorRef) {
    let waker = Waker::from(Arc::new(Bomb));
    let mut asked = Box::pin(swarm.snapshot());
    assert!(asked.as_mut().poll(&mut TaskContext::from_waker(&waker)).is_pending());
    // Kept until the supervisor has had its turn on this thread: who has gone is not woken.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// A supervisor is a child of its own supervisor. Its children end with it, those it was born with come back with its next incarnation, and
/// nobody has two lives at once.
#[test]
fn p14_a_supervisor_that_panics_is_restarted_and_leaves_no_orphans() {
    system(async {
        let (a_seen, b_seen) = (Arc::new(Seen::default()), Arc::new(Seen::default()));
        let (a_child, a) = specimen(eager("a"), Manner::WindsDown, &a_seen);
        let (late_child, late) = specimen(eager("late"), Manner::WindsDown, &b_seen);
        let flags = SupervisorFlags::unlimited(Strategy::OneForOne);
        let (swarm, swarm_ref) = Child::supervisor(eager("swarm"), flags, vec![a_child]);
        let (root, record) = start(vec![swarm]);
        swarm_ref.add_child(late_child).await.unwrap();
        assert_eq!((a.ask(Ping, PATIENCE).await, late.ask(Ping, PATIENCE).await), (Ok(1), Ok(1)));
        blow_up(&swarm_ref).await;
        record.saw("swarm Exited").await;
        assert_eq!(record.panics("swarm"), ["in a waker"]);
        // The first has its time, and answers meanwhile; the second comes after it.
        until("a second one starts", || a_seen.starts() == 2).await;
        assert_eq!(a_seen.notes(), ["a wound down", "a dropped"]);
        assert_eq!((a.ask(Ping, PATIENCE).await, a.incarnation()), (Ok(1), 2));
        until("the other goes for good", || b_seen.notes() == ["late wound down", "late dropped"]).await;
        assert_eq!((late.tell(Ping), late.incarnation()), (Err(TellError::Stopped), 1));
        root.shutdown().await.unwrap();
    });
}

#[test]
fn p14_a_first_supervisor_that_panics_is_the_end_of_the_tree_and_is_told() {
    system(async {
        let seen = Arc::new(Seen::default());
        let (child, _) = specimen(eager("a"), Manner::Well, &seen);
        let (root, _) = start(vec![child]);
        root.started().await.unwrap();
        blow_up(&root.supervisor()).await;
        assert!(matches!(root.done().await, ExitReason::Panic { .. }));
        until("its children go", || seen.notes() == ["a dropped"]).await;
        root.shutdown().await.unwrap();
    });
}

/// A child that fails just when nobody is there to be told: the supervisor that is gone doesn't miss it, the next one starts the child anew.
#[test]
fn p15_an_exit_that_no_supervisor_hears_hangs_nobody() {
    system(async {
        let seen = Arc::new(Seen::default());
        let (child, a) = specimen(eager("a"), Manner::PanicsInStopping, &seen);
        let flags = SupervisorFlags::unlimited(Strategy::OneForOne);
        let (swarm, swarm_ref) = Child::supervisor(eager("swarm"), flags, vec![child]);
        let (root, record) = start(vec![swarm]);
        assert_eq!(a.ask(Ping, PATIENCE).await, Ok(1));
        blow_up(&swarm_ref).await;
        record.saw("swarm Exited").await;
        until("a second one starts", || seen.starts() == 2).await;
        assert_eq!((a.ask(Ping, PATIENCE).await, a.incarnation()), (Ok(1), 2));
        assert!(record.exits("a").is_empty(), "nobody was there to say it");
        root.shutdown().await.unwrap();
    });
}
