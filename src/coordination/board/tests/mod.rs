//! What the board does, each rule by itself; `walk` is all of it together, `far` how far a group is.

#![allow(clippy::unwrap_used, reason = "tests")]

mod far;
mod walk;

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::*;
use crate::{
    coordination::{
        Counter,
        testing::{LEASE, fence, party, swarm, task},
    },
    model::{OnDependencyFailure, Retry, TaskSpec},
};

fn at(s: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_000_000 + s)
}

fn asking(party: &Party) -> Asking {
    Asking { party: party.clone(), categories: Vec::new(), max: 1, lease: LEASE }
}

fn urgency(title: &str, priority: Priority) -> NewTask {
    let mut new = task(title);
    new.spec.priority = priority;
    new
}

fn behind(title: &str, before: &[TaskId]) -> NewTask {
    NewTask { depends_on: before.iter().copied().map(Dependency::Task).collect(), ..task(title) }
}

/// A board with its counter and a clock that stands where it was put.
struct Desk {
    board: Board,
    counter: Counter,
    now: SystemTime,
}

impl Desk {
    fn new() -> Self {
        Self { board: Board::default(), counter: Counter::behind(0), now: at(0) }
    }

    fn create(&mut self, new: Vec<NewTask>) -> Result<Vec<TaskId>, Refused> {
        let made = self.board.create(&mut self.counter, &swarm(), None, new, None, self.now)?;
        Ok(made.iter().map(|task| task.id).collect())
    }

    fn one(&mut self, new: NewTask) -> TaskId {
        self.create(vec![new]).unwrap()[0]
    }

    fn claim(&mut self, by: &Party) -> Option<Arc<Task>> {
        self.board.claim(&mut self.counter, &asking(by), self.now).unwrap().pop()
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.board.tick(self.now);
    }

    fn get(&self, id: TaskId) -> Arc<Task> {
        self.board.get(&swarm(), id).unwrap()
    }

    fn state(&self, id: TaskId) -> TaskState {
        self.get(id).state
    }

    fn complete(&mut self, id: TaskId, fence: Fence) -> Result<Arc<Task>, Refused> {
        self.board.complete(&swarm(), id, fence, None, self.now)
    }

    fn fail(&mut self, id: TaskId, fence: Fence) -> Result<Arc<Task>, Refused> {
        self.board.fail(&swarm(), id, fence, "no".into(), self.now)
    }
}

#[test]
fn work_is_claimed_by_priority_then_by_what_it_unblocks_then_by_age() {
    let mut desk = Desk::new();
    let old = desk.one(task("old"));
    let hub = desk.one(task("hub"));
    let low = desk.one(urgency("low", Priority::Low));
    let middle = desk.one(behind("middle", &[hub]));
    let last = desk.one(behind("last", &[middle]));
    let urgent = desk.one(urgency("urgent", Priority::Critical));
    assert_eq!(desk.board.unblocks(hub), 2, "one waits directly, one through another");
    let a = party("a", 1);
    let order: Vec<TaskId> = std::iter::from_fn(|| desk.claim(&a)).map(|task| task.id).collect();
    assert_eq!(order, [urgent, hub, old, low]);
    assert_eq!(desk.state(last), TaskState::Blocked);
}

#[test]
fn a_claim_is_limited_to_categories_and_to_the_swarm() {
    let mut desk = Desk::new();
    let docs = NewTask { spec: TaskSpec { category: "docs".into(), ..task("d").spec }, ..task("d") };
    let code = desk.one(task("code"));
    let docs = desk.one(docs);
    let a = party("a", 1);
    let only = |categories: &[&str]| Asking {
        categories: categories.iter().map(|name| (*name).into()).collect(),
        ..asking(&a)
    };
    let none = desk.board.claim(&mut desk.counter, &only(&["tests"]), desk.now).unwrap();
    assert!(none.is_empty());
    let got = desk.board.claim(&mut desk.counter, &Asking { max: 5, ..only(&["tests", "docs"]) }, desk.now).unwrap();
    assert_eq!(got.iter().map(|task| task.id).collect::<Vec<_>>(), [docs]);
    let stranger = Party { id: "other/a".parse().unwrap(), incarnation: Some(1) };
    assert!(desk.claim(&stranger).is_none());
    assert_eq!(desk.board.get(&stranger.id.swarm, code), Err(Refused::UnknownTask(code)));
}

#[test]
fn a_circle_is_refused_and_named_and_nothing_is_created() {
    let mut desk = Desk::new();
    let on = |at: usize| vec![Dependency::Index(at)];
    let new = vec![
        NewTask { depends_on: on(1), ..task("a") },
        NewTask { depends_on: on(2), ..task("b") },
        NewTask { depends_on: on(0), ..task("c") },
    ];
    let refused = desk.create(new).unwrap_err();
    let Refused::Cycle(circle) = &refused else { panic!("{refused}") };
    assert_eq!(circle.len(), 3, "{refused}");
    assert_eq!(refused.to_string(), "the dependencies go in a circle: tasks[0] -> tasks[1] -> tasks[2] -> tasks[0]");
    assert_eq!(
        desk.create(vec![NewTask { depends_on: on(0), ..task("a") }]),
        Err(Refused::Cycle(vec!["tasks[0]".into()]))
    );
    assert_eq!(desk.board.list(&swarm(), 0).count(), 0);
    // Between tasks that are there.
    let a = desk.one(task("a"));
    let b = desk.one(behind("b", &[a]));
    let c = desk.one(behind("c", &[b]));
    let refused = desk.board.depend(&swarm(), a, &[c], desk.now).unwrap_err();
    assert_eq!(refused, Refused::Cycle(vec![a.to_string(), c.to_string(), b.to_string()]));
    assert!(matches!(desk.board.depend(&swarm(), a, &[a], desk.now), Err(Refused::Cycle(_))));
    assert_eq!(desk.state(a), TaskState::Ready);
}

#[test]
fn a_request_that_is_made_again_with_its_key_creates_nothing() {
    let mut desk = Desk::new();
    let create = |desk: &mut Desk| {
        let made = desk.board.create(
            &mut desk.counter,
            &swarm(),
            None,
            vec![task("a"), task("b")],
            Some("k".into()),
            desk.now,
        );
        made.unwrap().iter().map(|task| task.id).collect::<Vec<_>>()
    };
    let first = create(&mut desk);
    assert_eq!(create(&mut desk), first);
    let other = desk.board.create(&mut desk.counter, &swarm(), None, vec![task("a")], Some("k".into()), desk.now);
    assert_eq!(other, Err(Refused::KeyReused("k".into())));
    let tasks = desk.board.list(&swarm(), 0).map(|task| Task::clone(task)).collect();
    desk.board = Board::restore(tasks, desk.now);
    assert_eq!(create(&mut desk), first, "after a restart of the daemon, too");
    assert_eq!(desk.board.list(&swarm(), 0).count(), 2);
}

#[test]
fn a_dead_holders_work_comes_back_at_once_and_its_token_is_good_for_nothing() {
    let mut desk = Desk::new();
    let id = desk.one(task("a"));
    let (first, second) = (party("a", 1), party("b", 1));
    let held = desk.claim(&first).unwrap();
    assert!(desk.claim(&second).is_none(), "nobody else has it");
    desk.board.holder_ended(&first, desk.now);
    let again = desk.claim(&second).unwrap();
    assert_eq!((again.id, again.losses, again.failures), (id, 1, 0));
    assert!(fence(&again) > fence(&held));
    let refused = desk.complete(id, fence(&held)).unwrap_err();
    assert_eq!(refused.code(), "stale_token");
    assert!(refused.to_string().contains("holder_ended; review/b#1 holds the task"), "{refused}");
    for refused in [
        desk.fail(id, fence(&held)).unwrap_err(),
        desk.board.renew(&swarm(), id, fence(&held), desk.now).unwrap_err(),
        desk.board.release(&swarm(), id, fence(&held), desk.now).unwrap_err(),
        desk.board.progress(&swarm(), id, fence(&held), Some(1), None, desk.now).unwrap_err(),
    ] {
        assert_eq!(refused.code(), "stale_token");
    }
    // Its successor learns what it held, and what has become of it.
    let bequest = desk.board.bequest(&first.id);
    assert_eq!(bequest.len(), 1);
    assert_eq!((bequest[0].0, &bequest[0].1.claim.as_ref().unwrap().holder), (fence(&held), &second));
}

#[test]
fn what_kills_everybody_who_takes_it_up_is_given_up() {
    let mut desk = Desk::new();
    let id = desk.one(task("poison"));
    for incarnation in 1..=u64::from(LOSSES_MAX) {
        assert_eq!(desk.state(id), TaskState::Ready);
        let victim = party("a", incarnation);
        desk.claim(&victim).unwrap();
        desk.board.holder_ended(&victim, desk.now);
    }
    assert_eq!(desk.state(id), TaskState::Failed);
    assert_eq!(desk.get(id).reasons, ["holders_lost: 5 attempts have lost their holder"]);
    assert_eq!(desk.board.retry(&swarm(), id, desk.now).unwrap().state, TaskState::Ready);
}

#[test]
fn a_lease_ends_unless_it_is_renewed_by_hand_or_by_a_heartbeat() {
    let mut desk = Desk::new();
    let id = desk.one(task("a"));
    let a = party("a", 1);
    let held = desk.claim(&a).unwrap();
    for _ in 0..4 {
        desk.pass(LEASE * 2 / 3);
        desk.board.heartbeat(&a, desk.now);
        assert_eq!(desk.state(id), TaskState::Claimed, "a heartbeat says nothing of the work");
    }
    desk.pass(LEASE * 2 / 3);
    assert_eq!(desk.board.renew(&swarm(), id, fence(&held), desk.now).unwrap().state, TaskState::Running);
    assert_eq!(desk.board.next_due(), Some(desk.now + LEASE));
    desk.pass(LEASE - Duration::from_millis(1));
    assert_eq!(desk.state(id), TaskState::Running);
    desk.pass(Duration::from_millis(1));
    assert_eq!(desk.state(id), TaskState::Ready);
    assert_eq!(desk.get(id).attempts.last().unwrap().end, AttemptEnd::LeaseExpired);
    assert_eq!(desk.complete(id, fence(&held)).unwrap_err().code(), "stale_token");
}

#[test]
fn leases_run_anew_with_the_next_daemon_and_the_time_of_an_attempt_goes_on() {
    let mut desk = Desk::new();
    let mut new = task("a");
    new.spec.attempt_timeout = Some(LEASE * 3 / 2);
    let (timed, free) = (desk.one(new), desk.one(task("b")));
    let a = party("a", 1);
    while desk.claim(&a).is_some() {}
    desk.now += LEASE * 3 / 4;
    let tasks = desk.board.list(&swarm(), 0).map(|task| Task::clone(task)).collect();
    desk.board = Board::restore(tasks, desk.now);
    desk.pass(LEASE * 3 / 4);
    assert_eq!((desk.state(timed), desk.state(free)), (TaskState::Failed, TaskState::Claimed));
    desk.pass(LEASE / 4);
    assert_eq!(desk.state(free), TaskState::Ready);
}

#[test]
fn the_clock_of_a_paused_holder_stands_still() {
    let mut desk = Desk::new();
    let mut new = task("a");
    new.spec.attempt_timeout = Some(LEASE * 2);
    let id = desk.one(new);
    let a = party("a", 1);
    desk.claim(&a).unwrap();
    desk.pass(LEASE / 2);
    desk.board.holder_paused(&a, desk.now);
    assert_eq!(desk.board.next_due(), None);
    desk.pass(LEASE * 100);
    assert_eq!(desk.state(id), TaskState::Claimed);
    desk.board.holder_resumed(&a, desk.now);
    assert_eq!(desk.board.next_due(), Some(desk.now + LEASE / 2));
    desk.board.heartbeat(&a, desk.now);
    desk.pass(LEASE - Duration::from_millis(1));
    assert_eq!(desk.state(id), TaskState::Claimed);
    desk.board.heartbeat(&a, desk.now);
    desk.pass(LEASE * 3 / 2);
    assert_eq!(desk.state(id), TaskState::Failed, "the attempt has had its time");
}

#[test]
fn an_overdue_attempt_is_fenced_off_before_the_next_begins() {
    let mut desk = Desk::new();
    let mut new = task("slow");
    new.spec.attempt_timeout = Some(Duration::from_secs(10));
    new.spec.retry = Retry { retries: 1, backoff: Duration::from_secs(5), backoff_max: Duration::from_secs(60) };
    let id = desk.one(new);
    let (a, b) = (party("a", 1), party("b", 1));
    let slow = desk.claim(&a).unwrap();
    desk.pass(Duration::from_secs(10));
    assert_eq!(desk.state(id), TaskState::Blocked, "it backs off");
    assert_eq!(desk.get(id).reasons, ["backing_off: after 1 failed attempts"]);
    assert!(desk.claim(&b).is_none());
    assert_eq!(desk.complete(id, fence(&slow)).unwrap_err().code(), "stale_token");
    desk.pass(Duration::from_secs(5));
    let second = desk.claim(&b).unwrap();
    assert!(desk.complete(id, fence(&slow)).is_err());
    assert_eq!(desk.complete(id, fence(&second)).unwrap().state, TaskState::Done);
}

#[test]
fn a_failed_task_is_tried_again_with_growing_pauses_and_then_failed() {
    let mut desk = Desk::new();
    let mut new = task("a");
    new.spec.retry = Retry { retries: 3, backoff: Duration::from_secs(4), backoff_max: Duration::from_secs(10) };
    let id = desk.one(new);
    let a = party("a", 1);
    for pause in [4, 8, 10] {
        let held = desk.claim(&a).unwrap();
        desk.fail(id, fence(&held)).unwrap();
        assert_eq!(desk.board.next_due(), Some(desk.now + Duration::from_secs(pause)));
        desk.pass(Duration::from_secs(pause) - Duration::from_millis(1));
        assert_eq!(desk.state(id), TaskState::Blocked);
        desk.pass(Duration::from_millis(1));
    }
    let held = desk.claim(&a).unwrap();
    desk.fail(id, fence(&held)).unwrap();
    assert_eq!(
        (desk.state(id), desk.get(id).reasons.clone()),
        (TaskState::Failed, vec!["attempt_failed: no".to_owned()])
    );
    assert_eq!(desk.fail(id, fence(&held)).unwrap().state, TaskState::Failed, "said again it is the same");
}

#[test]
fn what_depends_on_a_failed_task_stays_blocked_with_the_reason_or_goes_on() {
    let mut desk = Desk::new();
    let root = desk.one(task("root"));
    let waits = desk.one(behind("waits", &[root]));
    let behind_it = desk.one(behind("behind it", &[waits]));
    let mut goes_on = behind("goes on", &[root]);
    goes_on.spec.on_dependency_failure = OnDependencyFailure::Continue;
    let goes_on = desk.one(goes_on);
    let a = party("a", 1);
    let held = desk.claim(&a).unwrap();
    desk.fail(root, fence(&held)).unwrap();
    assert_eq!((desk.state(waits), desk.state(goes_on)), (TaskState::Blocked, TaskState::Ready));
    assert_eq!(desk.get(waits).reasons, [format!("dependency_failed: {root} (root)")]);
    assert_eq!(desk.get(behind_it).reasons[0], format!("dependency_blocked: {waits} (waits)"));
    // Tried again, it lets them go on.
    desk.board.retry(&swarm(), root, desk.now).unwrap();
    assert_eq!(desk.get(behind_it).reasons, ["waiting: for 1 of 1 tasks"]);
    let again = desk.board.claim_this(&mut desk.counter, root, &asking(&a), desk.now).unwrap();
    desk.complete(root, fence(&again)).unwrap();
    assert_eq!(desk.state(waits), TaskState::Ready);
}

#[test]
fn a_cancelled_task_takes_the_right_from_its_holder() {
    let mut desk = Desk::new();
    let id = desk.one(task("a"));
    let next = desk.one(behind("b", &[id]));
    let held = desk.claim(&party("a", 1)).unwrap();
    desk.board.cancel(&swarm(), id, Some("not needed".into()), desk.now).unwrap();
    assert_eq!(desk.get(id).reasons, ["cancelled: not needed"]);
    let refused = desk.complete(id, fence(&held)).unwrap_err();
    assert!(refused.to_string().contains("cancelled"), "{refused}");
    assert_eq!(desk.get(next).reasons, [format!("dependency_cancelled: {id} (a)")]);
    assert!(desk.board.cancel(&swarm(), id, None, desk.now).is_ok());
}

#[test]
fn an_answer_that_was_lost_can_be_asked_for_again() {
    let mut desk = Desk::new();
    let id = desk.one(task("a"));
    let a = party("a", 1);
    let held = desk.claim(&a).unwrap();
    assert_eq!(desk.board.held_by(&a).map(|task| task.id).collect::<Vec<_>>(), [id]);
    let done = desk.complete(id, fence(&held)).unwrap();
    assert_eq!(desk.complete(id, fence(&held)).unwrap(), done);
    assert_eq!(desk.board.held_by(&a).count(), 0);
    assert_eq!(desk.fail(id, fence(&held)).unwrap_err().code(), "stale_token");
}

#[test]
fn bad_documents_are_refused_whole_and_name_the_place() {
    let mut desk = Desk::new();
    let cases: Vec<(&str, NewTask)> = vec![
        ("tasks[1].title: found nothing", task("")),
        ("tasks[1].title: found 201 bytes", task(&"x".repeat(201))),
        (
            "tasks[1].category: found control characters",
            NewTask { spec: TaskSpec { category: "a\nb".into(), ..task("a").spec }, ..task("a") },
        ),
        (
            "tasks[1].depends_on: found 7, allowed ids, or places from 0 to 1",
            NewTask { depends_on: vec![Dependency::Index(7)], ..task("a") },
        ),
        (
            "tasks[1].depends_on: found 21, allowed at most 20",
            NewTask { depends_on: vec![Dependency::Index(0); 21], ..task("a") },
        ),
        (
            "tasks[1].attempt_timeout_ms",
            NewTask { spec: TaskSpec { attempt_timeout: Some(Duration::ZERO), ..task("a").spec }, ..task("a") },
        ),
        ("there is no task", behind("a", &[TaskId::mint()])),
    ];
    for (expected, bad) in cases {
        let refused = desk.create(vec![task("good"), bad]).unwrap_err().to_string();
        assert!(refused.contains(expected), "{refused}");
        assert_eq!(desk.board.list(&swarm(), 0).count(), 0, "{expected}");
    }
}

#[test]
fn what_has_ended_is_forgotten_unless_somebody_waits_for_it() {
    let mut desk = Desk::new();
    let a = party("a", 1);
    let (used, unused) = (desk.one(task("used")), desk.one(task("unused")));
    let waits = desk
        .create(vec![
            NewTask { depends_on: vec![Dependency::Task(used), Dependency::Index(1)], ..task("w") },
            task("x"),
        ])
        .unwrap();
    for id in [used, unused] {
        let held = desk.board.claim_this(&mut desk.counter, id, &asking(&a), desk.now).unwrap();
        desk.complete(id, fence(&held)).unwrap();
    }
    desk.board.drain();
    desk.now += Duration::from_secs(10);
    desk.board.forget(desk.now);
    let changes = desk.board.drain();
    assert_eq!(changes.removed, [unused]);
    assert!(changes.put.is_empty());
    assert_eq!(desk.state(waits[0]), TaskState::Blocked);
    desk.board.forget_swarm(&swarm());
    assert_eq!((desk.board.list(&swarm(), 0).count(), desk.board.next_due()), (0, None));
}

#[test]
fn a_chain_of_thousands_fails_and_goes_on_without_deep_calls() {
    let mut desk = Desk::new();
    let head = desk.one(task("head"));
    let mut last = head;
    for _ in 0..20 {
        let before = last;
        let new = (0..500).map(|at| NewTask {
            depends_on: vec![if at == 0 { Dependency::Task(before) } else { Dependency::Index(at - 1) }],
            ..task("link")
        });
        last = *desk.create(new.collect()).unwrap().last().unwrap();
    }
    assert_eq!(desk.board.unblocks(head), 256);
    let held = desk.claim(&party("a", 1)).unwrap();
    desk.fail(head, fence(&held)).unwrap();
    assert!(desk.get(last).reasons[0].starts_with("dependency_blocked"), "{:?}", desk.get(last).reasons);
    desk.board.retry(&swarm(), head, desk.now).unwrap();
    assert_eq!(desk.get(last).reasons, ["waiting: for 1 of 1 tasks"]);
}
