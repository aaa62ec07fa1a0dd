//! What other products got wrong, one test each: the same lesson is put to ours and to a double that does what they did, and the double must fail it. The
//! numbers are those of the lessons.
//!
//! 18 (merges) and 20 (pools) are about what is not built yet; 21 is `usage::usage_survives_restarts_and_is_never_counted_twice`.

use std::{
    collections::HashMap,
    sync::{Arc, Barrier},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use hivekeeper::{
    coordination::{
        Cores, Counter, Desk, Refused, WorkChanges, WorkWitness,
        board::{Asking, Board, Dependency, NewTask},
        locks::{Ask, Asked, Locks},
        mail::{Letter, LetterKind, Mail, QUEUE_MAX, To, Wanted},
    },
    model::{Fence, LockId, LockMode, OnDependencyFailure, Party, Priority, Retry, SwarmName, TaskId, TaskSpec},
    store::{DataDir, Options, SqliteJournal},
};
use parking_lot::Mutex;

type Token = u64;

/// The lease of everything, and the time of an attempt.
const LEASE_MS: u64 = 1_000;

/// What became of somebody who wants a lock and would wait for it.
#[derive(Debug, PartialEq)]
enum Wish {
    Given(Token),
    Waits,
    /// He would wait for ever.
    Refused,
}

/// Somebody who shares work out. Tasks are known by the order of their creation, and time is what the test says.
trait Keeper {
    fn create(&mut self, behind: &[usize]) -> usize;
    fn claim(&mut self, who: &str) -> Option<(usize, Token)>;
    fn complete(&mut self, task: usize, token: Token) -> bool;
    fn fail(&mut self, task: usize, token: Token);
    /// Whether the claim goes on.
    fn renew(&mut self, task: usize, token: Token) -> bool;
    fn lock(&mut self, who: &str, name: &str, write: bool) -> Wish;
    fn unlock(&mut self, who: &str, name: &str, token: Token) -> bool;
    /// What whoever guards the resource asks before he lets somebody write.
    fn may_write(&mut self, name: &str, token: Token) -> bool;
    fn dies(&mut self, who: &str);
    fn pass(&mut self, ms: u64);
    /// The more urgent, the smaller.
    fn send(&mut self, to: &str, urgency: usize, word: &str);
    fn receive(&mut self, who: &str) -> Option<String>;
    fn queue_max(&self) -> usize;
}

/// The rules themselves.
struct Ours {
    cores: Cores,
    now: SystemTime,
    tasks: Vec<TaskId>,
    locks: HashMap<Token, LockId>,
}

impl Ours {
    fn new() -> Self {
        let cores = Cores {
            board: Board::default(),
            locks: Locks::default(),
            mail: Mail::default(),
            counter: Counter::behind(0),
        };
        Self { cores, now: UNIX_EPOCH + Duration::from_secs(1), tasks: Vec::new(), locks: HashMap::new() }
    }
}

fn swarm() -> SwarmName {
    "s".parse().unwrap()
}

fn party(who: &str) -> Party {
    Party { id: format!("s/{who}").parse().unwrap(), incarnation: Some(1) }
}

fn spec() -> TaskSpec {
    TaskSpec {
        title: "t".into(),
        category: "code".into(),
        priority: Priority::Normal,
        payload: "{}".into(),
        group: None,
        on_dependency_failure: OnDependencyFailure::Block,
        retry: Retry { retries: 0, backoff: Duration::ZERO, backoff_max: Duration::ZERO },
        attempt_timeout: None,
    }
}

fn asking(who: &str) -> Asking {
    Asking { party: party(who), categories: Vec::new(), max: 1, lease: Duration::from_millis(LEASE_MS) }
}

impl Keeper for Ours {
    fn create(&mut self, behind: &[usize]) -> usize {
        let depends_on = behind.iter().map(|at| Dependency::Task(self.tasks[*at])).collect();
        let new = vec![NewTask { spec: spec(), depends_on }];
        let Cores { board, counter, .. } = &mut self.cores;
        self.tasks.push(board.create(counter, &swarm(), None, new, None, self.now).unwrap()[0].id);
        self.tasks.len() - 1
    }

    fn claim(&mut self, who: &str) -> Option<(usize, Token)> {
        let Cores { board, counter, .. } = &mut self.cores;
        let task = board.claim(counter, &asking(who), self.now).unwrap().pop()?;
        let at = self.tasks.iter().position(|id| *id == task.id).unwrap();
        Some((at, task.claim.as_ref().unwrap().fence.0))
    }

    fn complete(&mut self, task: usize, token: Token) -> bool {
        self.cores.board.complete(&swarm(), self.tasks[task], Fence(token), None, self.now).is_ok()
    }

    fn fail(&mut self, task: usize, token: Token) {
        self.cores.board.fail(&swarm(), self.tasks[task], Fence(token), "why".into(), self.now).unwrap();
    }

    fn renew(&mut self, task: usize, token: Token) -> bool {
        self.cores.board.renew(&swarm(), self.tasks[task], Fence(token), self.now).is_ok()
    }

    fn lock(&mut self, who: &str, name: &str, write: bool) -> Wish {
        let ask = Ask {
            id: LockId::mint(),
            resources: vec![name.into()],
            mode: if write { LockMode::Write } else { LockMode::Read },
            holder: party(who),
            lease: Duration::from_millis(LEASE_MS),
            wait: Duration::from_secs(60),
            note: None,
        };
        match self.cores.locks.ask(&mut self.cores.counter, ask, self.now) {
            Ok(Asked::Granted(lock)) => {
                let token = lock.grant.unwrap().fence.0;
                self.locks.insert(token, lock.id);
                Wish::Given(token)
            }
            Ok(Asked::Waiting(_)) => Wish::Waits,
            Err(Refused::Deadlock(_)) => Wish::Refused,
            Err(other) => panic!("{other}"),
        }
    }

    fn unlock(&mut self, _: &str, _: &str, token: Token) -> bool {
        let id = self.locks[&token];
        self.cores.locks.release(&mut self.cores.counter, &swarm(), id, Fence(token), self.now).is_ok()
    }

    fn may_write(&mut self, name: &str, token: Token) -> bool {
        self.cores.locks.check(&swarm(), &name.into(), Fence(token), self.now).is_ok()
    }

    fn dies(&mut self, who: &str) {
        let Cores { board, locks, mail, counter } = &mut self.cores;
        board.holder_ended(&party(who), self.now);
        locks.holder_ended(counter, &party(who), self.now);
        mail.holder_ended(counter, &party(who), self.now);
    }

    fn pass(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        let Cores { board, locks, mail, counter } = &mut self.cores;
        board.tick(self.now);
        locks.tick(counter, self.now);
        mail.tick(counter, self.now);
    }

    fn send(&mut self, to: &str, urgency: usize, word: &str) {
        let letter = Letter {
            swarm: swarm(),
            from: Some(party("sender")),
            kind: LetterKind::Note { to: To::One(to.parse().unwrap()) },
            to_client: false,
            priority: Priority::ALL[urgency],
            topic: "t".into(),
            body: word.into(),
            key: None,
        };
        // One for which there is no room is refused, and its sender knows.
        let _ = self.cores.mail.send(&mut self.cores.counter, letter, self.now);
    }

    fn receive(&mut self, who: &str) -> Option<String> {
        let Cores { mail, counter, .. } = &mut self.cores;
        let lease = Duration::from_millis(LEASE_MS);
        let received = mail.receive(counter, &party(who), Wanted::default(), 1, lease, self.now).unwrap();
        received.first().map(|message| message.body.to_string())
    }

    fn queue_max(&self) -> usize {
        QUEUE_MAX
    }
}

/// What the products of the lessons did.
#[derive(Default)]
struct Naive {
    tasks: Vec<NaiveTask>,
    /// One slot for each resource.
    locks: HashMap<String, String>,
    queues: HashMap<String, Vec<(usize, String)>>,
    now: u64,
}

#[derive(Default)]
struct NaiveTask {
    behind: Vec<usize>,
    claimed_at: Option<u64>,
    ended: bool,
}

impl Keeper for Naive {
    fn create(&mut self, behind: &[usize]) -> usize {
        self.tasks.push(NaiveTask { behind: behind.to_vec(), ..NaiveTask::default() });
        self.tasks.len() - 1
    }

    fn claim(&mut self, _: &str) -> Option<(usize, Token)> {
        let at =
            self.tasks.iter().position(|task| task.claimed_at.is_none() && !task.ended && task.behind.is_empty())?;
        self.tasks[at].claimed_at = Some(self.now);
        Some((at, 0))
    }

    fn complete(&mut self, task: usize, _: Token) -> bool {
        self.tasks[task].ended = true;
        self.tasks.iter_mut().for_each(|other| other.behind.retain(|on| *on != task));
        true
    }

    fn fail(&mut self, task: usize, _: Token) {
        // "Removed from its dependents, which then ran anyway."
        self.tasks[task].ended = true;
        self.tasks.iter_mut().for_each(|other| other.behind.retain(|on| *on != task));
    }

    fn renew(&mut self, task: usize, _: Token) -> bool {
        self.tasks[task].claimed_at = Some(self.now);
        true
    }

    fn lock(&mut self, who: &str, name: &str, write: bool) -> Wish {
        if write && self.locks.contains_key(name) {
            return Wish::Waits;
        }
        self.locks.insert(name.to_owned(), who.to_owned());
        Wish::Given(0)
    }

    fn unlock(&mut self, who: &str, name: &str, _: Token) -> bool {
        let own = self.locks.get(name).is_some_and(|holder| holder == who);
        if own {
            self.locks.remove(name);
        }
        own
    }

    fn may_write(&mut self, _: &str, _: Token) -> bool {
        true
    }

    fn dies(&mut self, _: &str) {}

    fn pass(&mut self, ms: u64) {
        self.now += ms;
        for task in self.tasks.iter_mut().filter(|task| !task.ended) {
            // Queued again, "while the old run went on".
            task.claimed_at = task.claimed_at.filter(|at| at + LEASE_MS > self.now);
        }
    }

    fn send(&mut self, to: &str, urgency: usize, word: &str) {
        let max = self.queue_max();
        let queue = self.queues.entry(to.to_owned()).or_default();
        queue.push((urgency, word.to_owned()));
        queue.sort();
        if queue.len() > max {
            queue.remove(0);
        }
    }

    fn receive(&mut self, who: &str) -> Option<String> {
        let queue = self.queues.get_mut(who)?;
        (!queue.is_empty()).then(|| queue.remove(0).1)
    }

    fn queue_max(&self) -> usize {
        1_000
    }
}

type Lesson = fn(&mut dyn Keeper) -> Result<(), &'static str>;

#[track_caller]
fn teach(lesson: Lesson, naive: &str) {
    assert_eq!(lesson(&mut Ours::new()), Ok(()));
    assert_eq!(lesson(&mut Naive::default()), Err(naive), "the double must fail as they did");
}

fn holds(what: bool, else_said: &'static str) -> Result<(), &'static str> {
    if what { Ok(()) } else { Err(else_said) }
}

#[test]
fn lesson_15_work_of_the_dead_comes_back_at_once() {
    teach(
        |keeper| {
            let task = keeper.create(&[]);
            holds(keeper.claim("x").is_some(), "a free task is not given")?;
            keeper.dies("x");
            holds(keeper.claim("y").is_some_and(|(at, _)| at == task), "in progress for ever")
        },
        "in progress for ever",
    );
}

#[test]
fn lesson_15_no_lock_outlives_its_holder() {
    teach(
        |keeper| {
            holds(matches!(keeper.lock("x", "src/", true), Wish::Given(_)), "a free lock is not given")?;
            keeper.dies("x");
            holds(matches!(keeper.lock("y", "src/", true), Wish::Given(_)), "its owner is gone, and it is held")
        },
        "its owner is gone, and it is held",
    );
}

#[test]
fn lesson_15_whose_lease_has_lapsed_is_told() {
    teach(
        |keeper| {
            keeper.create(&[]);
            let (task, token) = keeper.claim("x").ok_or("a free task is not given")?;
            keeper.pass(LEASE_MS + 1);
            holds(keeper.claim("y").is_some(), "it does not come back")?;
            holds(!keeper.renew(task, token), "it has lapsed silently")
        },
        "it has lapsed silently",
    );
}

#[test]
fn lesson_16_readers_stand_beside_each_other_and_each_releases_his_own() {
    teach(
        |keeper| {
            let Wish::Given(first) = keeper.lock("x", "a", false) else { return Err("no reader") };
            let Wish::Given(second) = keeper.lock("y", "a", false) else { return Err("one reader only") };
            holds(keeper.unlock("x", "a", first), "the second has overwritten the first")?;
            holds(keeper.lock("w", "a", true) == Wish::Waits, "a writer beside a reader")?;
            holds(keeper.unlock("y", "a", second), "the second can't release")
        },
        "the second has overwritten the first",
    );
}

#[test]
fn lesson_16_a_deadlock_is_broken() {
    teach(
        |keeper| {
            holds(matches!(keeper.lock("x", "a", true), Wish::Given(_)), "a free lock is not given")?;
            holds(matches!(keeper.lock("y", "b", true), Wish::Given(_)), "a free lock is not given")?;
            holds(keeper.lock("x", "b", true) == Wish::Waits, "it is held")?;
            holds(keeper.lock("y", "a", true) == Wish::Refused, "both wait for ever")
        },
        "both wait for ever",
    );
}

#[test]
fn lesson_16_a_late_writer_is_fenced_off_where_he_writes() {
    teach(
        |keeper| {
            let Wish::Given(late) = keeper.lock("x", "a", true) else { return Err("a free lock is not given") };
            holds(keeper.may_write("a", late), "the holder may not write")?;
            keeper.pass(LEASE_MS + 1);
            let next = keeper.lock("y", "a", true);
            holds(!keeper.may_write("a", late), "advisory only")?;
            let Wish::Given(next) = next else { return Err("its lease has not ended") };
            holds(keeper.may_write("a", next), "the holder may not write")
        },
        "advisory only",
    );
}

#[test]
fn lesson_17_overflow_takes_the_least_urgent() {
    teach(
        |keeper| {
            keeper.send("x", 0, "urgent");
            for _ in 0..keeper.queue_max() + 10 {
                keeper.send("x", 3, "idle");
            }
            holds(keeper.receive("x").is_some_and(|word| word == "urgent"), "the most urgent was dropped")
        },
        "the most urgent was dropped",
    );
}

#[test]
fn lesson_17_what_was_not_acknowledged_is_delivered_again() {
    teach(
        |keeper| {
            keeper.send("x", 1, "word");
            holds(keeper.receive("x").is_some(), "it is not delivered")?;
            holds(keeper.receive("x").is_none(), "it is delivered twice at once")?;
            keeper.pass(LEASE_MS + 1);
            holds(keeper.receive("x").is_some(), "to receive was to delete")?;
            keeper.dies("x");
            holds(keeper.receive("x").is_some(), "it died with its reader")
        },
        "to receive was to delete",
    );
}

#[test]
fn lesson_19_what_waits_for_a_failed_task_does_not_run() {
    teach(
        |keeper| {
            let first = keeper.create(&[]);
            keeper.create(&[first]);
            let (task, token) = keeper.claim("x").ok_or("a free task is not given")?;
            keeper.fail(task, token);
            holds(keeper.claim("y").is_none(), "it ran anyway")
        },
        "it ran anyway",
    );
}

#[test]
fn lesson_19_an_overdue_attempt_is_fenced_off_before_the_next_begins() {
    teach(
        |keeper| {
            keeper.create(&[]);
            let (task, old) = keeper.claim("x").ok_or("a free task is not given")?;
            keeper.pass(LEASE_MS + 1);
            let (again, new) = keeper.claim("y").ok_or("it does not come back")?;
            holds(again == task && !keeper.complete(task, old), "the old run goes on")?;
            holds(keeper.complete(task, new), "the new run is not heard")
        },
        "the old run goes on",
    );
}

struct Unheard;

impl WorkWitness for Unheard {
    fn changed(&self, _: &WorkChanges) {}
}

/// Three ask at once for the one task of each round. How often more than one was given it.
fn handed_to_several(rounds: usize, claim: &(dyn Fn(usize, usize) -> bool + Sync)) -> usize {
    const CLAIMERS: usize = 3;
    let barrier = Barrier::new(CLAIMERS);
    let mut given = vec![0; rounds];
    std::thread::scope(|scope| {
        let claimers: Vec<_> = (0..CLAIMERS)
            .map(|who| {
                let barrier = &barrier;
                scope.spawn(move || {
                    let turn = |round| {
                        barrier.wait();
                        claim(round, who)
                    };
                    (0..rounds).map(turn).collect::<Vec<bool>>()
                })
            })
            .collect();
        for claimer in claimers {
            for (count, given) in given.iter_mut().zip(claimer.join().unwrap()) {
                *count += usize::from(given);
            }
        }
    });
    assert!(given.iter().all(|count| *count > 0), "somebody is given it");
    given.iter().filter(|count| **count > 1).count()
}

#[test]
fn lesson_14_a_task_is_handed_to_one() {
    const ROUNDS: usize = 100;
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let dir = tempfile::Builder::new().prefix("hk").tempdir_in("/tmp").unwrap();
    let data = DataDir::open(dir.path(), "test", Options::default()).unwrap();
    let store = Arc::new(SqliteJournal::open(&data.database(), data.epoch()).unwrap());
    let (desk, clerk) = Desk::new(store, Arc::new(Unheard));
    let clerk = std::thread::spawn(move || runtime().block_on(clerk.run()).unwrap());
    let new = vec![NewTask { spec: spec(), depends_on: Vec::new() }; ROUNDS];
    let made = desk.call(move |cores, now| cores.board.create(&mut cores.counter, &swarm(), None, new, None, now));
    let ids: Vec<TaskId> = runtime().block_on(made).unwrap().iter().map(|task| task.id).collect();
    let ours = |round: usize, who: usize| {
        let (id, asking) = (ids[round], asking(&format!("c{who}")));
        let claimed = desk.call(move |cores, now| cores.board.claim_this(&mut cores.counter, id, &asking, now));
        runtime().block_on(claimed).is_ok()
    };
    assert_eq!(handed_to_several(ROUNDS, &ours), 0);
    drop(desk);
    clerk.join().unwrap();

    // `SELECT ... FOR UPDATE` where nothing is locked by it: whoever reads before another has written takes the same row.
    let taken = Mutex::new(vec![false; ROUNDS]);
    let naive = |round: usize, _| {
        let free = !taken.lock()[round];
        std::thread::sleep(Duration::from_millis(1));
        taken.lock()[round] |= free;
        free
    };
    assert!(handed_to_several(ROUNDS, &naive) > 0, "the double must fail as they did");
}
