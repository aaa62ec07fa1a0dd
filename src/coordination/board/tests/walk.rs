//! Random histories: after each step all tables agree, and a board that is made of the documents is this one.

use std::collections::HashMap;

use super::*;

/// What must hold whatever was done: all tables say the same, and a board that is made of the documents is this one.
fn audit(desk: &Desk) {
    let board = &desk.board;
    let mut holders: HashMap<TaskId, Party> = HashMap::new();
    for (party, held) in &board.held {
        for id in held {
            assert!(holders.insert(*id, party.clone()).is_none(), "two hold {id}");
        }
    }
    for (id, entry) in &board.entries {
        let task = &entry.task;
        assert_eq!(task.claim.is_some(), task.state.held(), "{task:?}");
        assert_eq!(task.claim.as_ref().map(|claim| &claim.holder), holders.get(id), "{task:?}");
        assert_eq!(entry.rank.is_some(), task.state == TaskState::Ready, "{task:?}");
        assert_eq!(
            entry.rank,
            entry.rank.map(|_| (task.spec.priority, Reverse(board.unblocks(*id)), task.number, *id))
        );
        assert_eq!(entry.due.is_some(), entry.due.is_some_and(|due| board.timers.contains(&(due, *id))));
        let open = |id: &TaskId| !board.entries[id].task.state.ended();
        // Of a task that somebody holds already, one that comes before it may have been taken up anew.
        let ready = task.state == TaskState::Ready;
        assert!(!(ready && task.depends_on.iter().any(open)), "{task:?} waits for an open task");
        if ready && task.spec.on_dependency_failure == OnDependencyFailure::Block {
            assert!(task.depends_on.iter().all(|id| board.entries[id].task.state == TaskState::Done));
        }
    }
    assert!(no_circle(board), "tasks that wait for each other");
    let timers = board.entries.values().filter(|entry| entry.due.is_some()).count();
    assert_eq!(board.timers.len(), timers);
    let ranked: usize = board.shelves.values().flat_map(|shelf| shelf.ready.values()).map(BTreeSet::len).sum();
    assert_eq!(ranked, board.entries.values().filter(|entry| entry.rank.is_some()).count());
    for state in TaskState::ALL {
        let counted: usize = board.totals().map(|(_, counts)| counts.of(state)).sum();
        assert_eq!(counted, board.entries.values().filter(|entry| entry.task.state == state).count(), "{state}");
    }

    let again = Board::restore(board.entries.values().map(|entry| Task::clone(&entry.task)).collect(), desk.now);
    for (id, entry) in &board.entries {
        let other = &again.entries[id];
        assert_eq!((entry.task.state, &entry.task.reasons), (other.task.state, &other.task.reasons));
        assert_eq!((entry.rank, entry.stuck), (other.rank, other.stuck), "{:?}", entry.task);
    }
    assert_eq!(again.held, board.held);
}

/// Whether all tasks can be put in an order in which each comes behind those that it depends on. Not by the search that refuses circles.
fn no_circle(board: &Board) -> bool {
    let mut left: HashMap<TaskId, &[TaskId]> =
        board.entries.iter().map(|(id, entry)| (*id, &*entry.task.depends_on)).collect();
    loop {
        let free: Vec<TaskId> =
            left.iter().filter(|(_, on)| on.iter().all(|on| !left.contains_key(on))).map(|(id, _)| *id).collect();
        if free.is_empty() {
            return left.is_empty();
        }
        left.retain(|id, _| !free.contains(id));
    }
}

/// A small generator of numbers, so that a seed is a history.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }
}

#[test]
fn whatever_happens_the_tables_agree_and_one_valid_token_ends_each_task() {
    for seed in 0..60 {
        let mut dice = Dice(seed);
        let mut desk = Desk::new();
        let mut incarnations = [1_u64; 4];
        let mut tokens: Vec<(TaskId, Fence)> = Vec::new();
        let mut done: HashMap<TaskId, Fence> = HashMap::new();
        for _ in 0..150 {
            let ids: Vec<TaskId> = desk.board.list(&swarm(), 0).map(|task| task.id).collect();
            let who = dice.roll(4);
            let holder = party(&format!("a{who}"), incarnations[who]);
            match dice.roll(12) {
                0 | 1 => {
                    let new: Vec<NewTask> = (0..=dice.roll(3))
                        .map(|_| {
                            let mut new = task("t");
                            new.spec.priority = Priority::ALL[dice.roll(4)];
                            new.spec.retry.retries = u32::try_from(dice.roll(3)).unwrap();
                            new.spec.attempt_timeout = (dice.roll(3) == 0).then_some(Duration::from_secs(45));
                            if dice.roll(3) == 0 {
                                new.spec.on_dependency_failure = OnDependencyFailure::Continue;
                            }
                            for _ in 0..dice.roll(3) {
                                new.depends_on.push(match ids.len() {
                                    0 => Dependency::Index(dice.roll(3)),
                                    some => Dependency::Task(ids[dice.roll(some)]),
                                });
                            }
                            new
                        })
                        .collect();
                    let _ = desk.create(new);
                }
                2..=4 => {
                    if let Some(task) = desk.claim(&holder) {
                        assert!(
                            tokens.iter().all(|(_, fence)| *fence < task.claim.as_ref().unwrap().fence),
                            "tokens grow"
                        );
                        tokens.push((task.id, fence(&task)));
                    }
                }
                5 | 6 if !tokens.is_empty() => {
                    let (id, shown) = tokens[dice.roll(tokens.len())];
                    let holds = desk.get(id).claim.as_ref().is_some_and(|claim| claim.fence == shown);
                    match desk.complete(id, shown) {
                        Ok(task) => {
                            assert_eq!(task.state, TaskState::Done);
                            assert!(holds || done.get(&id) == Some(&shown));
                            assert_eq!(*done.entry(id).or_insert(shown), shown, "done by two tokens");
                        }
                        Err(refused) => assert!(!holds, "{refused}"),
                    }
                }
                7 if !tokens.is_empty() => {
                    let (id, shown) = tokens[dice.roll(tokens.len())];
                    let _ = desk.fail(id, shown);
                }
                8 => {
                    desk.board.holder_ended(&holder, desk.now);
                    assert_eq!(desk.board.held_by(&holder).count(), 0);
                    incarnations[who] += 1;
                }
                9 => desk.pass(Duration::from_secs(u64::try_from(dice.roll(40)).unwrap())),
                10 if !ids.is_empty() => {
                    let id = ids[dice.roll(ids.len())];
                    let (cancels, other) = (dice.roll(3) == 0, ids[dice.roll(ids.len())]);
                    if cancels {
                        let _ = desk.board.cancel(&swarm(), id, None, desk.now);
                    } else {
                        let _ = desk.board.depend(&swarm(), id, &[other], desk.now);
                    }
                }
                _ if !ids.is_empty() => {
                    let _ = desk.board.retry(&swarm(), ids[dice.roll(ids.len())], desk.now);
                    desk.board.heartbeat(&holder, desk.now);
                }
                _ => {}
            }
            audit(&desk);
        }
    }
}
