//! Start, ready, stop, kill, adopt.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::prelude::*;
use hivekeeper_actors::{
    ChildCtx, ChildSpec, ChildState, EventSink, ExitReason, Intensity, Placement, Ready, RestartType, Root, Seed,
    SeedState, Shutdown, Strategy, SupervisorError, SupervisorFlags,
};

use crate::harness::*;

#[test]
fn start_is_ordered_and_stop_is_reversed() {
    system(async {
        let (root, record) = start(["a", "b", "c"].map(|name| probe(name).0).into());
        root.started().await.unwrap();
        root.shutdown().await.unwrap();
        let lines = record.lines();
        let (up, down) = lines.split_at(6);
        assert_eq!(up, ["a starting", "a started", "b starting", "b started", "c starting", "c started"]);
        let stop = |name| ["stopping", "exited", "stopped"].map(|what| format!("{name} {what}"));
        assert_eq!(down, ["c", "b", "a"].map(stop).concat());
        assert!(["a", "b", "c"].iter().all(|name| record.exits(name) == [ExitReason::Shutdown]));
    });
}

#[test]
fn signalled_children_are_started_when_they_say_so() {
    system(async {
        let (a, first) = scripted(ChildSpec { ready: Ready::Signalled, ..eager("a") }, Script::default());
        let (b, _) = probe("b");
        let (root, record) = start(vec![a, b]);
        assert_eq!(answers(&first).await, 1, "it works before it is ready");
        assert_eq!(record.lines(), ["a starting"]);
        first.run(|probe, _| probe.child.ready()).unwrap();
        record.saw("b started").await;
        assert_eq!(record.lines(), ["a starting", "a started", "b starting", "b started"]);
        root.shutdown().await.unwrap();
    });
}

#[test]
fn start_timeout() {
    system(async {
        let spec = ChildSpec {
            ready: Ready::Signalled,
            start_timeout: Some(MS * 20),
            intensity: Some(Intensity { max_restarts: 1, ..Intensity::default() }),
            ..eager("a")
        };
        let (a, _) = scripted(spec, Script::default());
        let (b, sibling) = probe("b");
        let (root, record) = start(vec![a, b]);
        record.saw("a failed").await;
        assert_eq!(record.exits("a"), [ExitReason::StartTimeout, ExitReason::StartTimeout]);
        assert_eq!(answers(&sibling).await, 1, "the order goes on");
        root.shutdown().await.unwrap();
    });
}

#[test]
fn stopping_may_take_its_time() {
    fn wind_down(probe: &mut Probe, ctx: &mut Context<Probe>) -> Running {
        if probe.stops == 1 {
            ctx.run_later(MS * 20, |_, ctx| ctx.stop());
            return Running::Continue;
        }
        Running::Stop
    }
    system(async {
        let script = Script { in_stopping: Some(wind_down), ..Script::default() };
        let (child, a) = scripted(ChildSpec { shutdown: Shutdown::Infinity, ..eager("a") }, script.clone());
        let (root, record) = start(vec![child]);
        assert_eq!(answers(&a).await, 1);
        let supervisor = root.supervisor();
        let id = "a".into();
        let stop = supervisor.terminate_child(&id);
        let watch = async {
            record.saw("a stopping").await;
            assert_eq!(a.ask(Add(0), PATIENCE).await, Ok((0, 1)), "it answers while it winds down");
        };
        let (stopped, ()) = tokio::join!(stop, watch);
        stopped.unwrap();
        assert_eq!(script.alive.load(Ordering::SeqCst), 0, "resolved after the end");
        assert_eq!(record.exits("a"), [ExitReason::Shutdown]);
        root.shutdown().await.unwrap();
    });
}

#[test]
fn kill_after_the_deadline_drops_the_incarnation() {
    system(async {
        let script = Script { in_stopping: Some(|_, _| Running::Continue), ..Script::default() };
        let shutdown = Shutdown::Deadline(MS * 20);
        let (child, _) = scripted(ChildSpec { shutdown, ..eager("a") }, script.clone());
        let (root, record) = start(vec![child]);
        root.started().await.unwrap();
        root.supervisor().force_restart(&"a".into()).await.unwrap();
        assert_eq!(record.exits("a"), [ExitReason::DeadlineExceeded]);
        assert_eq!(script.alive.load(Ordering::SeqCst), 1);
        root.shutdown().await.unwrap();
        assert_eq!((script.alive.load(Ordering::SeqCst), script.alive_max.load(Ordering::SeqCst)), (0, 1));
    });
}

#[test]
fn brutal_stop_runs_no_hooks() {
    system(async {
        let script = Script { in_stopping: Some(|_, _| panic!("a hook ran")), ..Script::default() };
        let (child, _) = scripted(ChildSpec { shutdown: Shutdown::Brutal, ..eager("a") }, script);
        let (root, record) = start(vec![child]);
        root.started().await.unwrap();
        root.shutdown().await.unwrap();
        assert_eq!(record.exits("a"), [ExitReason::Killed]);
    });
}

#[test]
fn fail_is_an_error_and_stop_is_normal() {
    system(async {
        let spec = ChildSpec { restart: RestartType::Transient, ..eager("a") };
        let (child, a) = scripted(spec, Script::default());
        let (root, record) = start(vec![child]);
        a.run(|probe, ctx| {
            let child: ChildCtx<Probe> = probe.child.clone();
            child.fail(ctx, "exit code 3");
            child.fail(ctx, "not this one");
        })
        .unwrap();
        assert_eq!(answers(&a).await, 2);
        a.run(|_, ctx| ctx.stop()).unwrap();
        record.saw("a completed").await;
        assert_eq!(record.exits("a"), [ExitReason::Error("exit code 3".into()), ExitReason::Normal]);
        root.shutdown().await.unwrap();
    });
}

#[test]
fn lose_is_a_loss_and_its_replacement_is_not_counted() {
    system(async {
        let intensity = Intensity { max_restarts: 0, ..Intensity::default() };
        let (child, a) = scripted(ChildSpec { intensity: Some(intensity), ..eager("a") }, Script::default());
        let (root, record) = start(vec![child]);
        a.run(|probe, ctx| {
            let child: ChildCtx<Probe> = probe.child.clone();
            child.lose(ctx, "the machine is gone");
            child.fail(ctx, "not this one");
        })
        .unwrap();
        let (sender, automatic) = std::sync::mpsc::sync_channel(1);
        a.run(move |probe, _| sender.send(probe.child.automatic()).unwrap()).unwrap();
        assert_eq!(answers(&a).await, 2);
        assert_eq!(automatic.try_recv(), Ok(false));
        assert_eq!(record.exits("a"), [ExitReason::Lost("the machine is gone".into())]);
        a.run(|probe, ctx| probe.child.clone().fail(ctx, "its own fault")).unwrap();
        record.saw("a failed").await;
        root.shutdown().await.unwrap();
    });
}

#[test]
fn fail_in_started_is_a_failed_start() {
    system(async {
        let script = Script { in_started: Some(|probe, ctx| probe.child.clone().fail(ctx, "no")), ..Script::default() };
        let (child, _) = scripted(ChildSpec { restart: RestartType::Temporary, ..eager("a") }, script);
        let (root, record) = start(vec![]);
        let refused = root.supervisor().add_child(child).await.unwrap_err();
        assert_eq!(refused, SupervisorError::StartFailed { reason: ExitReason::Error("no".into()) });
        assert_eq!(record.lines(), ["a starting", "a exited", "a failed", "a removed"]);
        root.shutdown().await.unwrap();
    });
}

#[test]
fn a_seed_says_what_a_child_is_when_it_comes_under_its_supervisor() {
    system(async {
        let seeded = |name: &str, state| {
            let seed = Seed { incarnation: 7, restarts: 3, attempt: 2, state, ..Seed::default() };
            scripted(ChildSpec { seed, ..eager(name) }, Script::default())
        };
        let an_hour = Duration::from_secs(3600);
        let (fresh, a) = seeded("fresh", SeedState::Fresh);
        let (due, b) = seeded("due", SeedState::Delayed { retry_in: MS });
        let (lost, c) = seeded("lost", SeedState::Lost);
        let rest = [
            (SeedState::Delayed { retry_in: an_hour }, ChildState::BackingOff),
            (SeedState::Failed { retry_in: None }, ChildState::Failed),
            (SeedState::Failed { retry_in: Some(an_hour) }, ChildState::Failed),
            (SeedState::Completed, ChildState::Completed),
            (SeedState::Stopped, ChildState::Stopped),
        ];
        let resting = (0..).zip(rest).map(|(n, (state, _))| seeded(&format!("rest-{n}"), state).0);
        let (root, record) = start([fresh, due, lost].into_iter().chain(resting).collect());
        root.started().await.unwrap();
        assert_eq!([answers(&a).await, answers(&b).await, answers(&c).await], [8; 3]);
        let nodes = root.supervisor().snapshot().await.unwrap().children;
        let restarts: Vec<_> = nodes[..3].iter().map(|node| node.restarts).collect();
        assert_eq!(restarts, [3, 4, 3], "only one of them is an automatic restart that counts");
        for ((_, expected), node) in rest.iter().zip(&nodes[3..]) {
            assert_eq!((node.state, node.incarnation, node.restarts), (*expected, 7, 3), "{}", node.id);
            assert_eq!(record.count(&format!("{} starting", node.id)), 0);
        }
        root.shutdown().await.unwrap();
    });
}

#[test]
fn adopted_incarnation_keeps_its_number() {
    system(async {
        let seed = Seed {
            incarnation: 7,
            restarts: 3,
            recent: vec![Duration::from_secs(1)],
            attempt: 1,
            state: SeedState::Running,
        };
        let (child, a) = scripted(ChildSpec { seed, ..eager("a") }, Script::default());
        let (root, record) = start(vec![child]);
        record.saw("a started").await;
        let node = root.supervisor().snapshot().await.unwrap().children.remove(0);
        assert_eq!((node.incarnation, node.restarts, node.restarts_in_window), (7, 3, 1));
        let (sender, adopted) = std::sync::mpsc::sync_channel(4);
        let second = sender.clone();
        a.run(move |probe, ctx| {
            sender.send((probe.child.adopted(), probe.child.automatic())).unwrap();
            probe.child.clone().fail(ctx, "gone");
        })
        .unwrap();
        a.run(move |probe, _| second.send((probe.child.adopted(), probe.child.automatic())).unwrap()).unwrap();
        assert_eq!(answers(&a).await, 8);
        assert_eq!(adopted.iter().take(2).collect::<Vec<_>>(), [(true, false), (false, true)]);
        root.shutdown().await.unwrap();
    });
}

/// What it stands for lives, and can only be stopped through it.
#[test]
fn what_is_adopted_is_made_even_when_its_stop_comes_first() {
    system(async {
        let spec = |name, state| ChildSpec { seed: Seed { incarnation: 1, state, ..Seed::default() }, ..eager(name) };
        let script = Script::default();
        let (a, _) = scripted(spec("a", SeedState::Running), script.clone());
        let (b, _) = scripted(spec("b", SeedState::Delayed { retry_in: PATIENCE * 10 }), Script::default());
        let record = Arc::new(Record::default());
        let flags = SupervisorFlags::unlimited(Strategy::OneForAll);
        let root = Root::start(flags, vec![a, b], Arc::clone(&record) as Arc<dyn EventSink>).unwrap();
        until("it is stopped with its group", || !record.exits("a").is_empty()).await;
        assert_eq!(record.exits("a"), [ExitReason::Shutdown]);
        assert_eq!(script.alive_max.load(Ordering::SeqCst), 1, "it was never made");
        root.shutdown().await.unwrap();
    });
}

#[test]
fn a_child_lives_in_the_pool_or_with_its_supervisor_and_dies_alone_in_both() {
    system(async {
        let home = std::thread::current().id();
        for placement in [Placement::Pool, Placement::WithSupervisor] {
            let (child, a) = scripted(ChildSpec { placement, ..eager("a") }, Script::default());
            let (root, record) = start(vec![child]);
            for incarnation in 1..4 {
                let beside = move |probe: &mut Probe| probe.sum.set(u32::from(std::thread::current().id() == home));
                a.run(move |probe, _| beside(probe)).unwrap();
                let expected = u32::from(placement == Placement::WithSupervisor);
                assert_eq!(a.ask(Add(0), PATIENCE).await, Ok((expected, incarnation)), "{placement:?}");
                a.run(|_, _| panic!("as asked")).unwrap();
                until("the exit", || record.exits("a").len() == usize::try_from(incarnation).unwrap()).await;
            }
            root.shutdown().await.unwrap();
        }
    });
}

/// The thread of a child ends under it.
#[test]
fn a_lost_thread_is_an_exit_and_is_replaced() {
    system(async {
        let script = Script::default();
        let (child, a) = scripted(eager("a"), script.clone());
        let (root, record) = start(vec![child]);
        assert_eq!(answers(&a).await, 1);
        for round in 2..8 {
            a.run(|_, _| {
                Arbiter::current().stop();
            })
            .unwrap();
            until("the exit", || record.exits("a").len() + 1 == usize::try_from(round).unwrap()).await;
            a.tell(Add(1)).unwrap();
            assert_eq!(a.ask(Add(1), PATIENCE).await, Ok((2, round)));
        }
        assert!(record.exits("a").iter().all(|exit| *exit == ExitReason::ArbiterGone));
        assert_eq!(script.alive_max.load(Ordering::SeqCst), 1);
        root.shutdown().await.unwrap();
        assert_eq!(script.alive.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn dropping_the_root_stops_the_tree() {
    system(async {
        let script = Script::default();
        let (child, a) = scripted(eager("a"), script.clone());
        let (root, record) = start(vec![child]);
        assert_eq!(answers(&a).await, 1);
        drop(root);
        record.saw("a stopped").await;
        assert_eq!(script.alive.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn shutdown_twice_and_done() {
    system(async {
        let (root, _) = start(vec![probe("a").0]);
        root.shutdown().await.unwrap();
        root.shutdown().await.unwrap();
        assert_eq!(root.done().await, ExitReason::Shutdown);
        assert_eq!(root.supervisor().snapshot().await.unwrap_err(), SupervisorError::Gone);
    });
}

#[test]
fn snapshot_names_states() {
    system(async {
        let (root, record) = start(vec![probe("a").0, probe("b").0]);
        record.saw("b started").await;
        root.supervisor().terminate_child(&"b".into()).await.unwrap();
        let tree = root.supervisor().snapshot().await.unwrap();
        let states: Vec<_> = tree.children.iter().map(|node| (node.path.to_string(), node.state)).collect();
        assert_eq!(states, [("root/a".into(), ChildState::Running), ("root/b".into(), ChildState::Stopped)]);
        assert_eq!((&*tree.path, tree.state, tree.incarnation), ("root", ChildState::Running, 1));
        root.shutdown().await.unwrap();
    });
}
