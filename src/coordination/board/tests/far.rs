//! How far a group is.

use super::*;
use crate::coordination::progress;

fn in_group(title: &str, group: &str) -> NewTask {
    let mut new = task(title);
    new.spec.group = Some(group.into());
    new
}

fn of(desk: &Desk) -> progress::Progress {
    let tasks: Vec<_> = desk.board.list(&swarm(), 0).cloned().collect();
    for task in &tasks {
        assert_eq!(progress::is_stuck(task), desk.board.is_stuck(task.id), "{task:?}");
    }
    progress::of_tasks(&tasks, desk.now).pop().unwrap()
}

#[test]
fn the_progress_of_a_group_is_counted_and_its_rate_is_measured_or_unknown() {
    let mut desk = Desk::new();
    let ids = desk.create((0..6).map(|_| in_group("t", "g")).collect()).unwrap();
    desk.one(task("elsewhere"));
    let a = party("a", 1);
    let done = |desk: &mut Desk, id: TaskId| {
        let held = desk
            .board
            .claim_this(&mut desk.counter, id, &Asking { lease: LEASE * 1000, ..asking(&a) }, desk.now)
            .unwrap();
        desk.pass(Duration::from_secs(600));
        desk.complete(id, fence(&held)).unwrap();
    };
    done(&mut desk, ids[0]);
    assert_eq!(
        (of(&desk).recently_done, of(&desk).done_per_hour, of(&desk).remaining),
        (1, None, None),
        "one is no rate"
    );
    done(&mut desk, ids[1]);
    desk.board.cancel(&swarm(), ids[5], None, desk.now).unwrap();
    let seen = of(&desk);
    assert_eq!((seen.group.as_deref(), seen.total, seen.states["done"], seen.states["ready"]), (Some("g"), 5, 2, 3));
    assert_eq!(seen.done_per_hour, Some(6.0));
    assert_eq!(seen.remaining, Some(Duration::from_secs(1800)));
    // What was done before the window is no longer part of the rate.
    desk.pass(Duration::from_secs(3700));
    assert_eq!((of(&desk).recently_done, of(&desk).remaining), (0, None));
}

#[test]
fn what_holds_others_up_is_named_with_how_many_it_holds_up() {
    let mut desk = Desk::new();
    let (small, large) = (desk.one(task("small")), desk.one(task("large")));
    desk.one(behind("one", &[small]));
    let first = desk.one(behind("first", &[large]));
    let second = desk.one(behind("second", &[first]));
    desk.one(task("free"));
    for id in [small, large] {
        desk.board.cancel(&swarm(), id, None, desk.now).unwrap();
    }
    let seen = of(&desk);
    let named: Vec<(TaskId, u32)> = seen.blockers.iter().map(|blocker| (blocker.task.id, blocker.holds_up)).collect();
    assert_eq!(named, [(large, 2), (small, 1)]);
    assert!(desk.board.is_stuck(second) && !desk.board.is_stuck(large));
}
