#![allow(clippy::unwrap_used, reason = "tests")]

mod house;

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::{
    Bell, Clerk, Cores, Desk, Fate, Refused, WorkChanges, WorkError, WorkWitness,
    board::{Asking, NewTask},
    locks::{Ask, Change},
    mail::{Letter, LetterKind, To, Wanted},
    testing::{self, LEASE, fence, swarm, task},
};
use crate::{
    model::{Fence, Lock, LockId, LockMode, Party, Priority, Task, TaskId, TaskState},
    store::{Answer, StoreError, WorkBatch, WorkKept, WorkStore, suite, work_memory::MemoryWork},
};

/// Does what the one inside does, until it is told to fail.
struct Failing {
    inner: Arc<dyn WorkStore>,
    fails: Mutex<Option<StoreError>>,
    commits: Mutex<usize>,
}

impl WorkStore for Failing {
    fn load(&self) -> Answer<'_, WorkKept> {
        match self.fails.lock().clone() {
            Some(error) => Box::pin(async move { Err(error) }),
            None => self.inner.load(),
        }
    }

    fn commit(&self, batch: WorkBatch) -> Answer<'_, ()> {
        *self.commits.lock() += 1;
        match self.fails.lock().clone() {
            Some(error) => Box::pin(async move { Err(error) }),
            None => self.inner.commit(batch),
        }
    }
}

#[derive(Default)]
struct Heard {
    turns: Mutex<Vec<(Option<TaskState>, TaskState)>>,
    /// Who has died while nobody looked.
    ended: Vec<Party>,
}

impl WorkWitness for Heard {
    fn has_ended(&self, holder: &Party) -> bool {
        self.ended.contains(holder)
    }

    fn changed(&self, changes: &WorkChanges) {
        self.turns.lock().extend(changes.board.news.iter().map(|news| (news.from, news.task.state)));
    }
}

struct Office {
    _dir: Option<tempfile::TempDir>,
    store: Arc<Failing>,
    heard: Arc<Heard>,
    desk: Desk,
    successor: Clerk,
    clerk: JoinHandle<Result<(), StoreError>>,
}

impl Office {
    fn open() -> Self {
        let (dir, journal) = suite::scratch();
        Self::on(Some(dir), Arc::new(journal))
    }

    /// Where time is paused.
    fn in_memory() -> Self {
        Self::on(None, Arc::<MemoryWork>::default())
    }

    fn on(dir: Option<tempfile::TempDir>, inner: Arc<dyn WorkStore>) -> Self {
        let store = Failing { inner, fails: Mutex::default(), commits: Mutex::default() };
        Self::over(dir, Arc::new(store), Heard::default())
    }

    fn over(dir: Option<tempfile::TempDir>, store: Arc<Failing>, heard: Heard) -> Self {
        let heard = Arc::new(heard);
        let (desk, clerk): (Desk, Clerk) = Desk::new(Arc::clone(&store) as _, Arc::clone(&heard) as _);
        Self { _dir: dir, store, heard, desk, successor: clerk.clone(), clerk: tokio::spawn(clerk.run()) }
    }

    /// The next daemon on the same data.
    async fn reopen(self) -> Self {
        self.reopen_without(Vec::new()).await
    }

    /// The same, where these have died meanwhile.
    async fn reopen_without(self, ended: Vec<Party>) -> Self {
        drop(self.desk);
        self.clerk.await.unwrap().unwrap();
        Self::over(self._dir, self.store, Heard { ended, ..Heard::default() })
    }

    async fn create(&self, titles: &[&str]) -> Vec<TaskId> {
        let new: Vec<NewTask> = titles.iter().map(|title| task(title)).collect();
        let made = self
            .desk
            .call(move |cores: &mut Cores, now| cores.board.create(&mut cores.counter, &swarm(), None, new, None, now));
        made.await.unwrap().iter().map(|task| task.id).collect()
    }

    async fn claim(&self, name: &str) -> Option<Arc<Task>> {
        let asking = Asking { party: party(name), categories: Vec::new(), max: 1, lease: LEASE };
        let claimed =
            self.desk.call(move |cores, now| cores.board.claim(&mut cores.counter, &asking, now)).await.unwrap();
        claimed.into_iter().next()
    }

    async fn complete(&self, id: TaskId, fence: Fence) -> Result<Arc<Task>, WorkError> {
        self.desk.call(move |cores, now| cores.board.complete(&swarm(), id, fence, None, now)).await
    }

    async fn state(&self, id: TaskId) -> TaskState {
        self.desk.call(move |cores, _| cores.board.get(&swarm(), id)).await.unwrap().state
    }
}

fn party(name: &str) -> Party {
    testing::party(name, 1)
}

#[tokio::test]
async fn what_was_answered_is_known_to_the_next_daemon() {
    let office = Office::open();
    let ids = office.create(&["a", "b"]).await;
    let held = office.claim("x").await.unwrap();
    let other = office.claim("y").await.unwrap();
    office.complete(ids[1], fence(&other)).await.unwrap();
    let office = office.reopen().await;
    assert_eq!(office.state(ids[1]).await, TaskState::Done);
    assert!(office.claim("z").await.is_none(), "x still holds the other one");
    assert_eq!(office.desk.holders(), [party("x")], "whether it lives is to be found out");
    office.complete(ids[0], fence(&held)).await.unwrap();
    let later = office.create(&["c"]).await;
    let next = office.claim("z").await.unwrap();
    assert_eq!(next.id, later[0]);
    assert!(fence(&next) > fence(&held).max(fence(&other)), "tokens grow over restarts");
}

#[tokio::test]
async fn a_decision_that_cannot_be_written_down_is_undone_and_nobody_hears_of_it() {
    let office = Office::open();
    let id = office.create(&["a"]).await[0];
    let heard = office.heard.turns.lock().len();
    *office.store.fails.lock() = Some(StoreError::Full);
    let asking = Asking { party: party("x"), categories: Vec::new(), max: 1, lease: LEASE };
    let claimed = office.desk.call(move |cores, now| cores.board.claim(&mut cores.counter, &asking, now)).await;
    assert_eq!(claimed, Err(WorkError::Unavailable(StoreError::Full)));
    let shown = office.desk.call(move |cores, _| cores.board.get(&swarm(), id)).await;
    assert_eq!(shown, Err(WorkError::Unavailable(StoreError::Full)), "what is not known for certain is not shown");
    *office.store.fails.lock() = None;
    let until = tokio::time::Instant::now() + Duration::from_secs(10);
    let shown = loop {
        match office.desk.call(move |cores, _| cores.board.get(&swarm(), id)).await {
            Ok(task) => break task,
            Err(error) => assert!(tokio::time::Instant::now() < until, "{error}"),
        }
    };
    assert_eq!((shown.state, &shown.claim), (TaskState::Ready, &None));
    assert_eq!(office.heard.turns.lock().len(), heard);
    assert_eq!(office.desk.holders(), []);
}

#[tokio::test]
async fn a_younger_daemon_ends_this_one() {
    let office = Office::open();
    office.create(&["a"]).await;
    *office.store.fails.lock() = Some(StoreError::Fenced);
    let refused = office
        .desk
        .call(|cores, now| cores.board.create(&mut cores.counter, &swarm(), None, vec![task("a")], None, now))
        .await;
    assert_eq!(refused, Err(WorkError::Unavailable(StoreError::Fenced)));
    assert_eq!(office.clerk.await.unwrap(), Err(StoreError::Fenced));
}

#[tokio::test]
async fn a_refusal_writes_nothing() {
    let office = Office::open();
    let ids = office.create(&["a"]).await;
    let commits = *office.store.commits.lock();
    let refused = office.complete(ids[0], Fence(7)).await.unwrap_err();
    assert!(matches!(refused, WorkError::Refused(Refused::StaleToken { .. })), "{refused}");
    assert_eq!(*office.store.commits.lock(), commits);
}

#[tokio::test]
async fn whoever_waits_for_work_hears_of_it() {
    let office = Office::open();
    let mut ready = office.desk.listen(Bell::Work(swarm()));
    assert!(ready.rings().now_or_never().is_none());
    office.create(&["a"]).await;
    tokio::time::timeout(Duration::from_secs(5), ready.rings()).await.unwrap();
    let other = office.desk.listen(Bell::Mail(swarm(), "nobody".parse().unwrap()));
    assert_eq!(office.desk.shared.bells.len(), 2);
    drop((ready, other));
    assert_eq!(office.desk.shared.bells.len(), 0);
}

#[tokio::test]
async fn a_lease_ends_by_itself() {
    let office = Office::open();
    let ids = office.create(&["a"]).await;
    let asking = Asking { party: party("x"), categories: Vec::new(), max: 1, lease: Duration::from_millis(50) };
    let mut ready = office.desk.listen(Bell::Work(swarm()));
    office.desk.call(move |cores, now| cores.board.claim(&mut cores.counter, &asking, now)).await.unwrap();
    ready.forget();
    tokio::time::timeout(Duration::from_secs(5), ready.rings()).await.unwrap();
    assert_eq!(office.state(ids[0]).await, TaskState::Ready);
    let heard = office.heard.turns.lock().clone();
    assert_eq!(heard.last(), Some(&(Some(TaskState::Claimed), TaskState::Ready)));
}

#[tokio::test]
async fn many_claim_side_by_side_and_each_task_is_done_by_one() {
    const TASKS: usize = 300;
    let office = Office::open();
    let names: Vec<String> = (0..TASKS).map(|at| format!("t{at}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    office.create(&names).await;
    let office = Arc::new(office);
    let workers: Vec<_> = (0..16)
        .map(|at| {
            let office = Arc::clone(&office);
            tokio::spawn(async move {
                let mut done = Vec::new();
                while let Some(held) = office.claim(&format!("w{at}")).await {
                    office.complete(held.id, fence(&held)).await.unwrap();
                    done.push(held.id);
                }
                done
            })
        })
        .collect();
    let mut done = Vec::new();
    for worker in workers {
        done.extend(worker.await.unwrap());
    }
    done.sort();
    done.dedup();
    assert_eq!(done.len(), TASKS);
    let commits = *office.store.commits.lock();
    assert!(commits < 2 * TASKS, "{commits} commits: what comes together is written together");
    let kept = office.store.load().await.unwrap();
    assert!(kept.tasks.iter().all(|task| task.state == TaskState::Done && task.attempts.len() == 1));
    assert!(kept.counter >= kept.tasks.iter().map(|task| task.attempts[0].fence.0).max().unwrap());
}

fn ask(name: &str, resource: &str, wait: Duration) -> Ask {
    Ask {
        id: LockId::mint(),
        resources: vec![resource.into()],
        mode: LockMode::Write,
        holder: party(name),
        lease: LEASE,
        wait,
        note: None,
    }
}

const WAIT: Duration = Duration::from_secs(10);

async fn release(office: &Office, lock: &Lock) {
    let (id, fence) = (lock.id, lock.grant.unwrap().fence);
    let released =
        office.desk.call(move |cores, now| cores.locks.release(&mut cores.counter, &swarm(), id, fence, now));
    released.await.unwrap();
}

/// How many locks are held, and how many are waited for.
async fn locks(office: &Office) -> (usize, usize) {
    office.desk.call(|cores, _| Ok(cores.locks.counts(&swarm()))).await.unwrap()
}

async fn until_waiting(office: &Office, number: usize) {
    let until = tokio::time::Instant::now() + WAIT;
    while locks(office).await.1 != number {
        assert!(tokio::time::Instant::now() < until);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_lock_is_waited_for_and_given_when_it_is_free() {
    let office = Arc::new(Office::open());
    let held = office.desk.lock(ask("x", "src/", WAIT)).await.unwrap();
    let waits = tokio::spawn({
        let desk = office.desk.clone();
        async move { desk.lock(ask("y", "src/a.rs", WAIT)).await }
    });
    until_waiting(&office, 1).await;
    let refused = office.desk.lock(ask("z", "src/b.rs", Duration::ZERO)).await.unwrap_err();
    assert!(matches!(refused, WorkError::Refused(Refused::TimedOut { .. })), "{refused}");
    release(&office, &held).await;
    let given = waits.await.unwrap().unwrap();
    assert!(given.grant.unwrap().fence > held.grant.unwrap().fence);
    assert_eq!(locks(&office).await, (1, 0));
}

#[tokio::test]
async fn whoever_goes_while_he_waits_or_is_given_a_lock_leaves_nothing_behind() {
    let office = Office::open();
    let held = office.desk.lock(ask("x", "a", WAIT)).await.unwrap();
    let waits = tokio::spawn({
        let desk = office.desk.clone();
        async move { desk.lock(ask("y", "a", WAIT)).await }
    });
    until_waiting(&office, 1).await;
    waits.abort();
    assert!(waits.await.unwrap_err().is_cancelled());
    until_waiting(&office, 0).await;
    // He has gone before he could hear that he was given it.
    let mut gone = Box::pin(office.desk.lock(ask("y", "b", WAIT)));
    assert!(futures_util::poll!(&mut gone).is_pending());
    until_held(&office, 2).await;
    drop(gone);
    until_held(&office, 1).await;
    release(&office, &held).await;
    assert_eq!(office.store.load().await.unwrap().locks, []);
}

#[tokio::test]
async fn who_leaves_before_his_turn_comes_is_given_nothing() {
    let office = Office::open();
    let mut waits = Box::pin(office.desk.lock(ask("x", "a", WAIT)));
    // Asked for, and not decided: the clerk has had no turn.
    assert!(futures_util::poll!(&mut waits).is_pending());
    drop(waits);
    assert_eq!(locks(&office).await, (0, 0));
}

#[tokio::test]
async fn a_crowd_that_goes_at_once_leaves_nothing_behind() {
    // More than the queue holds.
    const CROWD: usize = 1_100;
    let office = Office::open();
    let held = office.desk.lock(ask("x", "a", WAIT)).await.unwrap();
    // They wait for locks that do not stand in each other's way, so that only he who holds all of it does.
    let crowd = (0..CROWD).map(|at| office.desk.lock(ask("y", &format!("a/{at}"), 10 * WAIT)));
    let mut crowd = Box::pin(futures_util::future::join_all(crowd));
    tokio::select! {
        _ = &mut crowd => panic!("somebody was given what is held"),
        () = until_waiting(&office, CROWD) => {}
    }
    // The clerk has no turn meanwhile.
    drop(crowd);
    until_waiting(&office, 0).await;
    release(&office, &held).await;
    assert_eq!(locks(&office).await.0, 0);
}

async fn until_held(office: &Office, number: usize) {
    let until = tokio::time::Instant::now() + WAIT;
    while locks(office).await.0 != number {
        assert!(tokio::time::Instant::now() < until);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_deadlock_is_told_to_the_youngest_though_he_waits_already() {
    let office = Arc::new(Office::open());
    let a = office.desk.lock(ask("x", "a", WAIT)).await.unwrap();
    let _b = office.desk.lock(ask("y", "b", WAIT)).await.unwrap();
    let x = tokio::spawn({
        let desk = office.desk.clone();
        async move { desk.lock(ask("x", "b", WAIT)).await }
    });
    until_waiting(&office, 1).await;
    let refused = office.desk.lock(ask("y", "a", WAIT)).await.unwrap_err();
    assert!(matches!(refused, WorkError::Refused(Refused::Deadlock(_))), "{refused}");
    assert!(!x.is_finished());
    office.desk.fate(&party("y"), Fate::Ended);
    assert!(x.await.unwrap().is_ok(), "what stood in the way has ended");
    release(&office, &a).await;
}

#[tokio::test]
async fn all_that_a_dead_holder_had_goes_on_even_if_that_could_not_be_written_down_at_first() {
    let office = Office::open();
    let id = office.create(&["a"]).await[0];
    office.claim("x").await.unwrap();
    office.desk.lock(ask("x", "a", WAIT)).await.unwrap();
    let letter = Letter {
        swarm: swarm(),
        from: Some(party("y")),
        kind: LetterKind::Note { to: To::One("x".parse().unwrap()) },
        to_client: false,
        priority: Priority::Normal,
        topic: "t".into(),
        body: "1".into(),
        key: None,
    };
    office.desk.call(move |cores, now| cores.mail.send(&mut cores.counter, letter, now)).await.unwrap();
    let receive = |office: &Office| {
        let desk = office.desk.clone();
        async move {
            let received = desk.call(|cores, now| {
                cores.mail.receive(&mut cores.counter, &party("x"), Wanted::default(), 1, LEASE, now)
            });
            received.await.unwrap().len()
        }
    };
    assert_eq!((receive(&office).await, receive(&office).await), (1, 0));
    *office.store.fails.lock() = Some(StoreError::Full);
    office.desk.fate(&party("x"), Fate::Ended);
    let until = tokio::time::Instant::now() + WAIT;
    while *office.store.commits.lock() == 0 || office.desk.holders().is_empty() {
        assert!(tokio::time::Instant::now() < until);
        tokio::task::yield_now().await;
    }
    *office.store.fails.lock() = None;
    let until = tokio::time::Instant::now() + WAIT;
    while !office.desk.holders().is_empty() {
        assert!(tokio::time::Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!((office.state(id).await, locks(&office).await), (TaskState::Ready, (0, 0)));
    assert_eq!(*office.desk.shared.words.lock(), [], "it is done once");
    assert_eq!(receive(&office).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_sign_of_life_holds_everything_and_silence_ends_it() {
    let office = Office::in_memory();
    let id = office.create(&["a"]).await[0];
    office.claim("x").await.unwrap();
    let lock = office.desk.lock(ask("x", "a", WAIT)).await.unwrap();
    for _ in 0..5 {
        tokio::time::sleep(LEASE * 2 / 3).await;
        office.desk.alive(&party("x"));
        assert_eq!((office.state(id).await, locks(&office).await), (TaskState::Claimed, (1, 0)));
    }
    tokio::time::sleep(LEASE * 3).await;
    assert_eq!((office.state(id).await, locks(&office).await), (TaskState::Ready, (0, 0)));
    assert!(lock.grant.is_some());
}

#[tokio::test]
async fn what_was_on_its_way_from_a_dead_incarnation_comes_back_too() {
    let office = Office::open();
    let id = office.create(&["a"]).await[0];
    office.desk.fate(&party("x"), Fate::Ended);
    office.claim("x").await.unwrap();
    let until = tokio::time::Instant::now() + WAIT;
    while office.state(id).await != TaskState::Ready {
        assert!(tokio::time::Instant::now() < until);
    }
    assert_eq!(office.desk.holders(), []);
}

#[tokio::test]
async fn what_comes_together_with_the_end_of_a_holder_comes_back_like_all_that_he_had() {
    let office = Office::open();
    let ids = office.create(&["a", "b"]).await;
    office.claim("x").await.unwrap();
    let mut second = Box::pin(office.claim("x"));
    assert!(futures_util::poll!(&mut second).is_pending());
    drop(second);
    office.desk.fate(&party("x"), Fate::Ended);
    for id in ids {
        let until = tokio::time::Instant::now() + WAIT;
        while office.state(id).await != TaskState::Ready {
            assert!(tokio::time::Instant::now() < until);
        }
    }
    assert_eq!(office.desk.holders(), []);
}

#[tokio::test]
async fn whoever_waits_for_a_lock_is_told_when_everything_is_read_anew() {
    let office = Office::open();
    office.desk.lock(ask("x", "a", WAIT)).await.unwrap();
    let waits = tokio::spawn({
        let desk = office.desk.clone();
        async move { desk.lock(ask("y", "a", WAIT)).await }
    });
    until_waiting(&office, 1).await;
    *office.store.fails.lock() = Some(StoreError::ReadOnly);
    office
        .desk
        .call(|cores, now| cores.board.create(&mut cores.counter, &swarm(), None, vec![task("a")], None, now))
        .await
        .unwrap_err();
    assert_eq!(waits.await.unwrap(), Err(WorkError::Unavailable(StoreError::ReadOnly)));
    *office.store.fails.lock() = None;
}

#[tokio::test]
async fn whoever_goes_while_he_waits_for_more_keeps_what_he_has() {
    let office = Office::open();
    let read = |name| Ask { mode: LockMode::Read, ..ask(name, "a", WAIT) };
    let mine = office.desk.lock(read("x")).await.unwrap();
    office.desk.lock(read("y")).await.unwrap();
    let fence = mine.grant.unwrap().fence;
    let change = Change { id: mine.id, fence, mode: LockMode::Write, wait: WAIT };
    let waits = tokio::spawn({
        let desk = office.desk.clone();
        async move { desk.change_lock(swarm(), change).await }
    });
    until_waiting(&office, 1).await;
    let second = office.desk.change_lock(swarm(), change).await.unwrap_err();
    assert!(matches!(second, WorkError::Refused(Refused::Invalid { .. })), "{second}");
    waits.abort();
    assert!(waits.await.unwrap_err().is_cancelled());
    until_waiting(&office, 0).await;
    // Refused, and he has gone before he could hear of it.
    let mut gone = Box::pin(office.desk.change_lock(swarm(), Change { wait: Duration::ZERO, ..change }));
    assert!(futures_util::poll!(&mut gone).is_pending());
    assert_eq!(locks(&office).await, (2, 0));
    drop(gone);
    assert_eq!(locks(&office).await, (2, 0));
}
