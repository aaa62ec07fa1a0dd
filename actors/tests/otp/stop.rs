//! How children end when their supervisor stops: within their deadlines, for the right reason, and whatever they do meanwhile.

use std::time::Duration;

use hivekeeper_actors::{Child, ChildRef, ChildSpec, ExitReason, RestartType, Shutdown, Strategy};

use crate::harness::*;

const RESTART_TYPES: [RestartType; 3] = [RestartType::Temporary, RestartType::Transient, RestartType::Permanent];
const WAYS: [How; 4] = [How::Normal, How::Died, How::Panic, How::Lost];

/// Starts a child with this deadline.
async fn add(sup: &Sup, id: &str, restart: RestartType, shutdown: Shutdown, role: Role) -> ChildRef<Worker> {
    let (child, worker) = player(ChildSpec { shutdown, ..of_type(id, restart) }, role);
    sup.start_child(child).await.unwrap();
    worker
}

/// Without a deadline children end in their own way, however long that takes: actors by request, supervisors by nature.
#[test]
fn sup_stop_infinity() {
    system(async {
        let sup = Sup::start(flags(Strategy::OneForOne, 2), vec![]).await;
        let slow = || Role { slow: Duration::from_secs(3600), ..Role::default() };
        let inner = player(ChildSpec { shutdown: Shutdown::Infinity, ..spec("inner") }, slow()).0;
        let (child1, _) = Child::supervisor(spec("child1"), flags(Strategy::OneForOne, 2), vec![inner]);
        sup.start_child(child1).await.unwrap();
        add(&sup, "child2", RestartType::Permanent, Shutdown::Infinity, slow()).await;
        let record = sup.record.clone();
        let took = sup.stop().await;
        assert!(took >= Duration::from_secs(2 * 3600), "one after the other: {took:?}");
        for id in ["inner", "child1", "child2"] {
            assert_eq!(record.exits(id), [ExitReason::Shutdown]);
        }
    });
}

/// One child obeys, the other doesn't and is dropped after its deadline: not before, and not long after.
async fn one_is_deaf(strategy: Strategy, restart: RestartType) {
    let sup = Sup::start(flags(strategy, 2), vec![]).await;
    let deadline = Shutdown::Deadline(MS * 1000);
    add(&sup, "child1", restart, deadline, Role::default()).await;
    let deaf = add(&sup, "child2", restart, deadline, Role::default()).await;
    deaf.run(|worker, _| worker.go_deaf()).unwrap();
    quiet().await;
    let record = sup.record.clone();
    let took = sup.stop().await;
    assert!((MS * 1000..MS * 1100).contains(&took), "{took:?}");
    assert_eq!(record.exits("child1"), [ExitReason::Shutdown]);
    assert_eq!(record.exits("child2"), [ExitReason::DeadlineExceeded]);
}

#[test]
fn sup_stop_timeout() {
    system(one_is_deaf(Strategy::OneForOne, RestartType::Permanent));
}

#[test]
fn sup_stop_timeout_dynamic() {
    system(one_is_deaf(Strategy::SimpleOneForOne, RestartType::Temporary));
}

#[test]
fn sup_stop_brutal_kill() {
    system(async {
        let sup = Sup::start(flags(Strategy::OneForOne, 2), vec![]).await;
        add(&sup, "child1", RestartType::Permanent, Shutdown::Deadline(MS * 1000), Role::default()).await;
        add(&sup, "child2", RestartType::Permanent, Shutdown::Brutal, Role::default()).await;
        let record = sup.record.clone();
        sup.stop().await;
        assert_eq!(record.exits("child1"), [ExitReason::Shutdown]);
        assert_eq!(record.exits("child2"), [ExitReason::Killed]);
    });
}

#[test]
fn sup_stop_brutal_kill_dynamic() {
    system(async {
        let sup = Sup::start(flags(Strategy::SimpleOneForOne, 2), vec![]).await;
        for n in 0..10 {
            let role = Role { last: Some(How::Died), ..Role::default() };
            add(&sup, &format!("child-{n}"), RestartType::Temporary, Shutdown::Brutal, role).await;
        }
        let record = sup.record.clone();
        sup.stop().await;
        let exits = record.all_exits();
        assert!(exits.len() == 10 && exits.iter().all(|(_, reason)| *reason == ExitReason::Killed), "{exits:?}");
    });
}

/// While the supervisor waits for its last child, twelve others end by themselves, in every way under every restart type: none is
/// restarted, each has its own reason, and the stop goes on to the first.
#[test]
fn sup_stop_race() {
    system(async {
        let sup = Sup::start(flags(Strategy::OneForOne, 2), vec![]).await;
        let second = Shutdown::Deadline(MS * 1000);
        add(&sup, "a", RestartType::Temporary, second, Role::default()).await;
        let mut racers = Vec::new();
        for restart in RESTART_TYPES {
            for how in WAYS {
                let id = format!("{restart:?} {how:?}");
                racers.push((how, add(&sup, &id, restart, second, Role::default()).await, id));
            }
        }
        let slow = Role { slow: MS * 1000, ..Role::default() };
        add(&sup, "z", RestartType::Temporary, Shutdown::Deadline(MS * 2000), slow).await;
        let record = sup.record.clone();
        let ends = racers.clone();
        let race = actix_rt::spawn(async move {
            after(MS * 200).await;
            for (how, racer, _) in ends {
                racer.run(move |worker, context| worker.end(context, how)).unwrap();
            }
        });
        sup.stop().await;
        race.await.unwrap();
        for (how, _, id) in racers {
            let exits = record.exits(&id);
            assert!(exits.len() == 1 && how.led_to(&exits[0]), "{id}: {exits:?}");
        }
        assert_eq!(record.exits("z"), [ExitReason::Shutdown]);
        let last = record.all_exits().pop();
        assert_eq!(last, Some(("a".into(), ExitReason::Shutdown)), "the first child is the last to be stopped");
    });
}

/// Dynamic children that end in their own way when they are stopped: the reason is told, and the supervisor ends as it should.
#[test]
fn sup_stop_non_shutdown_exit_dynamic() {
    system(async {
        for restart in RESTART_TYPES {
            let sup = Sup::start(flags(Strategy::SimpleOneForOne, 2), vec![]).await;
            for how in WAYS {
                let role = Role { last: Some(how), ..Role::default() };
                add(&sup, &format!("{how:?}"), restart, Shutdown::Deadline(MS * 5000), role).await;
            }
            let record = sup.record.clone();
            sup.stop().await;
            for how in WAYS {
                let exits = record.exits(&format!("{how:?}"));
                // Who ends without a complaint when told to stop has ended with `Shutdown`; OTP tells the two apart.
                let expected =
                    |end: &ExitReason| if how == How::Normal { *end == ExitReason::Shutdown } else { how.led_to(end) };
                assert!(exits.len() == 1 && expected(&exits[0]), "{restart:?} {how:?}: {exits:?}");
            }
        }
    });
}

/// OTP's naughty child unlinks itself from its supervisor. Nothing here can do that, but a child can refuse to end: the supervisor does not
/// hang on it, answers others meanwhile, and drops it after its deadline.
#[test]
fn child_unlink() {
    system(async {
        let sup = Sup::start(flags(Strategy::OneForOne, 2), vec![]).await;
        let naughty =
            add(&sup, "naughty", RestartType::Permanent, Shutdown::Deadline(MS * 1000), Role::default()).await;
        naughty.run(|worker, _| worker.go_deaf()).unwrap();
        quiet().await;
        let supervisor = hivekeeper_actors::SupervisorRef::clone(&sup);
        let stop = actix_rt::spawn(async move { supervisor.terminate("naughty").await });
        after(MS * 500).await;
        assert!(!stop.is_finished());
        let asked = tokio::time::Instant::now();
        assert_eq!(sup.counts().await, [1, 1, 0, 1], "it answers while it waits");
        assert!(asked.elapsed() < MS * 100);
        assert_eq!(soon(stop).await.unwrap(), Ok(()));
        assert_eq!(sup.record.exits("naughty"), [ExitReason::DeadlineExceeded]);
        assert_eq!(sup.which().await, [("naughty".into(), Undefined)]);
        sup.stop().await;
    });
}
