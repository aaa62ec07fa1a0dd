//! Chaos at the desk: clients of one process who claim, lock and write to each other while holders die, calls are cut off, leases end, and, in the second
//! half, the clerk and the store under them end at once and are opened again. What the disk has is what the next ones have: as after `kill -9`, but that
//! a commit under way is still carried out, of which nobody hears.
//!
//! `HK_TEST_LONG=yes` makes them as many and as long as they are meant to be.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use hivekeeper::{
    coordination::{
        Cores, Desk, Fate, Refused, WorkChanges, WorkError, WorkWitness,
        board::{Asking, Dependency, NewTask},
        locks::{Ask, Change},
        mail::{Letter, LetterKind, To, Wanted},
    },
    model::{
        AttemptEnd, Fence, Lock, LockId, LockMode, MessageId, OnDependencyFailure, Party, Priority, Retry, SwarmName,
        Task, TaskId, TaskSpec, TaskState,
    },
    store::{DataDir, Options, SqliteJournal, WorkStore},
};
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Runtime;

use super::{
    checker::insist,
    history::{Deed, Grant, Left, Mode, Recorder, Said, Use, micros},
    long,
};
use crate::chaos::Dice;

/// How long a claim or a lock holds: nobody waits for that, so what is not given back otherwise hangs the test.
const LEASE: Duration = Duration::from_secs(60);
/// A lease that ends while its holder is at work.
const SHORT_LEASE: Duration = Duration::from_millis(15);
/// Who waits for a lock when the clerk ends at once would notice by his connection, which is not there: it breaks then at the latest.
const CONNECTION: Duration = Duration::from_millis(500);
/// The time of an attempt at a task that has one.
const ATTEMPT: Duration = Duration::from_millis(30);
const CATEGORIES: [&str; 3] = ["code", "test", "docs"];
const NAMES: [&str; 8] = ["src/", "src/a.rs", "src/b/", "src/b/c.rs", "docs", "docs/index.md", "Cargo.toml", "tests"];

struct Plan {
    clients: usize,
    tasks: usize,
    /// How often clerk and store end.
    crashes: usize,
    patience: Duration,
}

struct Unheard;

impl WorkWitness for Unheard {
    fn changed(&self, _: &WorkChanges) {}
}

/// What runs between two crashes.
struct Running {
    desk: Desk,
    store: Arc<SqliteJournal>,
    crash: tokio::sync::oneshot::Sender<()>,
    clerk: JoinHandle<()>,
    _data: DataDir,
}

impl Running {
    fn open(dir: &Path) -> Self {
        let data = DataDir::open(dir, "test", Options::default()).unwrap();
        let store = Arc::new(SqliteJournal::open(&data.database(), data.epoch()).unwrap());
        let (desk, clerk) = Desk::new(Arc::clone(&store) as _, Arc::new(Unheard));
        let (crash, crashed) = tokio::sync::oneshot::channel();
        let clerk = std::thread::spawn(move || {
            runtime().block_on(async {
                tokio::select! {
                    ended = clerk.run() => ended.unwrap(),
                    _ = crashed => {}
                }
            });
        });
        Self { desk, store, crash, clerk, _data: data }
    }

    fn crash(self) {
        let _ = self.crash.send(());
        self.clerk.join().unwrap();
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

struct World {
    desk: RwLock<Desk>,
    dead: Mutex<HashSet<Party>>,
    recorder: Recorder,
    finished: AtomicBool,
    words: AtomicU64,
    clients: u64,
    limits: BTreeMap<TaskId, Duration>,
}

impl World {
    /// Whoever boots a daemon finds out who of those that held something is dead.
    fn take_over(&self, desk: &Desk) {
        *self.desk.write() = desk.clone();
        runtime().block_on(desk.call(|_, _| Ok(()))).unwrap();
        for party in desk.holders() {
            if self.dead.lock().contains(&party) {
                desk.fate(&party, Fate::Ended);
            }
        }
    }
}

fn swarm() -> SwarmName {
    "s".parse().unwrap()
}

/// What became of a call.
enum Outcome<T> {
    Done(T),
    Refused(Refused),
    Broken,
}

impl<T> Outcome<T> {
    /// What a holder is told.
    fn said(&self) -> Said {
        match self {
            Self::Done(_) => Said::Done,
            Self::Refused(Refused::StaleToken { .. } | Refused::UnknownLock(_) | Refused::UnknownMessage(_)) => {
                Said::Stale
            }
            Self::Refused(other) => panic!("{other}"),
            Self::Broken => Said::Unknown,
        }
    }
}

struct Client {
    world: Arc<World>,
    party: Party,
    dice: Dice,
    runtime: Runtime,
}

/// It was killed and has begun anew: whatever it had in hand is gone.
struct Killed;

impl Client {
    fn who(&self) -> String {
        self.party.to_string()
    }

    /// Waits for an answer, but now and then not long enough.
    fn wait<T>(&mut self, answer: impl Future<Output = Result<T, WorkError>>) -> Outcome<T> {
        let cut = match self.dice.below(40) {
            0 => Duration::from_micros(self.dice.below(1_500)),
            _ => CONNECTION,
        };
        let answered = self.runtime.block_on(async { tokio::time::timeout(cut, answer).await.ok() });
        match answered {
            Some(Ok(answer)) => Outcome::Done(answer),
            Some(Err(WorkError::Refused(refused))) => Outcome::Refused(refused),
            Some(Err(WorkError::Unavailable(_) | WorkError::Closed)) | None => Outcome::Broken,
        }
    }

    fn call<T: Send + 'static>(
        &mut self,
        decide: impl FnOnce(&mut Cores, std::time::SystemTime) -> Result<T, Refused> + Send + 'static,
    ) -> Outcome<T> {
        let desk = self.world.desk.read().clone();
        let outcome = self.wait(desk.call(decide));
        if matches!(outcome, Outcome::Broken) {
            // Where there is no clerk there is nothing to be had by asking at once.
            std::thread::sleep(Duration::from_millis(5));
        }
        outcome
    }

    /// Says it until it is heard.
    fn insist<T: Send + 'static>(
        &mut self,
        fence: Fence,
        what: Use,
        decide: impl Fn(&mut Cores, std::time::SystemTime) -> Result<T, Refused> + Clone + Send + 'static,
    ) -> Said {
        loop {
            let from = self.world.recorder.now();
            let said = self.call(decide.clone()).said();
            let deed = Deed::Used { fence: fence.0, what, said };
            self.world.recorder.note(&self.who(), from, deed);
            if said != Said::Unknown {
                return said;
            }
        }
    }

    fn die(&mut self) -> Killed {
        let from = self.world.recorder.now();
        self.world.dead.lock().insert(self.party.clone());
        self.world.desk.read().fate(&self.party, Fate::Ended);
        self.world.recorder.note(&self.who(), from, Deed::Died);
        self.party.incarnation = self.party.incarnation.map(|last| last + 1);
        Killed
    }

    fn live(mut self) {
        while !self.world.finished.load(Ordering::Relaxed) {
            if let Ok(0) = self.turn() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        self.die();
    }

    /// Claims some tasks and does them; says how many there were.
    fn turn(&mut self) -> Result<usize, Killed> {
        let lease = if self.dice.below(25) == 0 { SHORT_LEASE } else { LEASE };
        let categories = match self.dice.below(3) {
            0 => vec![(*self.dice.pick(&CATEGORIES)).into()],
            _ => Vec::new(),
        };
        let max = 1 + usize::try_from(self.dice.below(3)).unwrap();
        let asking = Asking { party: self.party.clone(), categories, max, lease };
        let from = self.world.recorder.now();
        let claimed = match self.call(move |cores, now| cores.board.claim(&mut cores.counter, &asking, now)) {
            Outcome::Done(claimed) => claimed,
            Outcome::Refused(refused) => panic!("{refused}"),
            // It may hold what it does not know of, and its lease is long.
            Outcome::Broken => return Err(self.die()),
        };
        for task in &claimed {
            let id = task.id.to_string();
            let limit = self.world.limits.get(&task.id).copied().map(micros);
            let names = vec![format!("task/{id}")];
            let fence = task.claim.as_ref().unwrap().fence.0;
            let grant = Grant { thing: id, fence, mode: Mode::Exclusive, names, lease: micros(lease), limit };
            self.world.recorder.note(&self.who(), from, Deed::Given(grant));
        }
        for task in &claimed {
            self.work(task, lease == SHORT_LEASE)?;
        }
        self.messages()?;
        Ok(claimed.len())
    }

    fn work(&mut self, task: &Task, short: bool) -> Result<(), Killed> {
        let (id, fence) = (task.id, task.claim.as_ref().unwrap().fence);
        if self.dice.below(4) == 0 {
            self.lock()?;
        }
        if self.dice.below(4) == 0 {
            let percent = Some(u8::try_from(self.dice.below(101)).unwrap());
            self.insist(fence, Use::Renew, move |cores, now| {
                cores.board.progress(&swarm(), id, fence, percent, None, now)
            });
        }
        if (short || self.world.limits.contains_key(&id)) && self.dice.below(2) == 0 {
            std::thread::sleep(ATTEMPT + Duration::from_millis(5));
        }
        match self.dice.below(100) {
            0..4 => return Err(self.die()),
            4..7 => self.insist(fence, Use::Fail, move |cores, now| {
                cores.board.fail(&swarm(), id, fence, "it would not go".into(), now)
            }),
            7..9 => self.insist(fence, Use::Release, move |cores, now| cores.board.release(&swarm(), id, fence, now)),
            9..11 => {
                // It has said so and does not live to hear the answer.
                let from = self.world.recorder.now();
                let desk = self.world.desk.read().clone();
                let call = desk.call(move |cores, now| cores.board.complete(&swarm(), id, fence, None, now));
                let cut = Duration::from_micros(self.dice.below(800));
                let answered = self.runtime.block_on(async { tokio::time::timeout(cut, call).await });
                if answered.is_err() {
                    let deed = Deed::Used { fence: fence.0, what: Use::Complete, said: Said::Unknown };
                    self.world.recorder.note(&self.who(), from, deed);
                    return Err(self.die());
                }
                self.insist(fence, Use::Complete, move |cores, now| {
                    cores.board.complete(&swarm(), id, fence, None, now)
                })
            }
            _ => {
                let result = Some(format!("\"{}\"", self.who()).into());
                self.insist(fence, Use::Complete, move |cores, now| {
                    cores.board.complete(&swarm(), id, fence, Option::clone(&result), now)
                })
            }
        };
        Ok(())
    }

    fn given(&self, from: u64, lock: &Lock) {
        let names = lock.resources.iter().map(ToString::to_string).collect();
        let (mode, fence) = (mode(lock.mode), lock.grant.unwrap().fence.0);
        let grant = Grant { thing: lock.id.to_string(), fence, mode, names, lease: micros(lock.lease), limit: None };
        self.world.recorder.note(&self.who(), from, Deed::Given(grant));
    }

    /// Locks something, perhaps more of it or less, and gives it back.
    fn lock(&mut self) -> Result<(), Killed> {
        let count = 1 + self.dice.below(2);
        let ask = Ask {
            id: LockId::mint(),
            resources: (0..count).map(|_| (*self.dice.pick(&NAMES)).into()).collect(),
            mode: *self.dice.pick(&LockMode::ALL),
            holder: self.party.clone(),
            lease: if self.dice.below(20) == 0 { SHORT_LEASE } else { LEASE },
            wait: Duration::from_millis(self.dice.below(20)),
            note: None,
        };
        let (from, desk) = (self.world.recorder.now(), self.world.desk.read().clone());
        let lock = match self.wait(desk.lock(ask)) {
            Outcome::Done(lock) => lock,
            Outcome::Refused(Refused::TimedOut { .. } | Refused::Deadlock(_)) => return Ok(()),
            Outcome::Refused(other) => panic!("{other}"),
            Outcome::Broken => return Err(self.die()),
        };
        self.given(from, &lock);
        if self.dice.below(30) == 0 {
            return Err(self.die());
        }
        let (id, mut fence) = (lock.id, lock.grant.unwrap().fence);
        if self.dice.below(3) == 0 {
            let to = *self.dice.pick(&LockMode::ALL);
            let change = Change { id, fence, mode: to, wait: Duration::from_millis(self.dice.below(10)) };
            let (from, desk) = (self.world.recorder.now(), self.world.desk.read().clone());
            let (was, is) = (lock.mode, to);
            let outcome = self.wait(desk.change_lock(swarm(), change));
            let more = rank(is) > rank(was);
            let said = match &outcome {
                Outcome::Refused(Refused::TimedOut { .. } | Refused::Deadlock(_)) => None,
                other => Some(other.said()),
            };
            if let Some(said) = said {
                let what = if more { Use::Strengthen } else { Use::Weaken(mode(is)) };
                let deed = Deed::Used { fence: fence.0, what, said };
                self.world.recorder.note(&self.who(), from, deed);
            }
            match outcome {
                Outcome::Done(lock) => {
                    if more {
                        self.given(from, &lock);
                    }
                    fence = lock.grant.unwrap().fence;
                }
                Outcome::Refused(_) => {}
                Outcome::Broken => return Err(self.die()),
            }
        }
        if self.dice.below(2) == 0 {
            self.insist(fence, Use::Renew, move |cores, now| cores.locks.renew(&swarm(), id, fence, now));
        }
        self.insist(fence, Use::Release, move |cores, now| {
            cores.locks.release(&mut cores.counter, &swarm(), id, fence, now)
        });
        Ok(())
    }

    /// Writes to somebody, and reads what there is.
    fn messages(&mut self) -> Result<(), Killed> {
        if self.dice.below(4) == 0 {
            let word = format!("m{}", self.world.words.fetch_add(1, Ordering::Relaxed));
            let to = format!("w{}", self.dice.below(self.world.clients)).parse().unwrap();
            let letter = Letter {
                swarm: swarm(),
                from: Some(self.party.clone()),
                kind: LetterKind::Note { to: To::One(to) },
                to_client: false,
                priority: *self.dice.pick(&Priority::ALL),
                topic: "t".into(),
                body: format!("\"{word}\"").into(),
                key: Some(word.as_str().into()),
            };
            let from = self.world.recorder.now();
            let said = self.call(move |cores, now| cores.mail.send(&mut cores.counter, letter, now)).said();
            self.world.recorder.note(&self.who(), from, Deed::Sent { message: word, said });
        }
        if self.dice.below(3) > 0 {
            return Ok(());
        }
        let (party, from) = (self.party.clone(), self.world.recorder.now());
        let received = self.call(move |cores, now| {
            let again = Duration::from_secs(1);
            cores.mail.receive(&mut cores.counter, &party, Wanted::default(), 5, again, now)
        });
        let Outcome::Done(received) = received else { return Ok(()) };
        // What the daemon tells of messages that were given up is nobody's word.
        let received: Vec<_> = received.into_iter().filter(|message| message.from.is_some()).collect();
        for message in &received {
            self.world.recorder.note(&self.who(), from, Deed::Received { message: word(&message.body) });
        }
        for message in received {
            if self.dice.below(50) == 0 {
                return Err(self.die());
            }
            let (id, fence): (MessageId, Fence) = (message.id, message.delivery.as_ref().unwrap().fence);
            let (party, from) = (self.party.clone(), self.world.recorder.now());
            let said = self.call(move |cores, now| cores.mail.ack(&party, id, fence, now)).said();
            let deed = Deed::Acknowledged { message: word(&message.body), said };
            self.world.recorder.note(&self.who(), from, deed);
        }
        Ok(())
    }
}

fn word(body: &str) -> String {
    body.trim_matches('"').to_owned()
}

fn mode(mode: LockMode) -> Mode {
    match mode {
        LockMode::Read => Mode::Read,
        LockMode::Write => Mode::Write,
        LockMode::Exclusive => Mode::Exclusive,
    }
}

fn rank(mode: LockMode) -> Option<usize> {
    LockMode::ALL.iter().position(|one| *one == mode)
}

fn done_by(task: &Task) -> Option<u64> {
    let completed = task.attempts.iter().find(|attempt| attempt.end == AttemptEnd::Completed);
    completed.map(|attempt| attempt.fence.0).filter(|_| task.state == TaskState::Done)
}

/// Tasks of which each fifth comes behind two earlier ones, and some have little time.
fn tasks(count: usize, dice: &mut Dice) -> Vec<NewTask> {
    (0..count)
        .map(|at| NewTask {
            spec: TaskSpec {
                title: format!("task {at}").into(),
                category: (*dice.pick(&CATEGORIES)).into(),
                priority: *dice.pick(&Priority::ALL),
                payload: "{}".into(),
                group: None,
                on_dependency_failure: OnDependencyFailure::Block,
                retry: Retry { retries: 100, backoff: Duration::from_millis(1), backoff_max: Duration::from_millis(2) },
                attempt_timeout: (dice.below(40) == 0).then_some(ATTEMPT),
            },
            depends_on: match at {
                2.. if at % 5 == 0 => {
                    (1..=2).map(|_| Dependency::Index(usize::try_from(dice.below(at as u64)).unwrap())).collect()
                }
                _ => Vec::new(),
            },
        })
        .collect()
}

/// Looks after the tasks until all are done: tries again those that have lost too many holders, and shows some to the recorder.
fn oversee(world: &World, running: &mut Option<Running>, dir: &Path, plan: &Plan, dice: &mut Dice) {
    let (began, runtime) = (Instant::now(), runtime());
    let (mut crashes, mut done) = (0, 0);
    loop {
        assert!(began.elapsed() < plan.patience, "not done within {:?}", plan.patience);
        std::thread::sleep(Duration::from_millis(5 + dice.below(20)));
        // Spread over the whole work.
        if crashes < plan.crashes && done * plan.crashes >= crashes * plan.tasks {
            crashes += 1;
            running.take().unwrap().crash();
            let next = Running::open(dir);
            world.take_over(&next.desk);
            *running = Some(next);
        }
        let desk = &running.as_ref().unwrap().desk;
        let from = world.recorder.now();
        let all: Vec<Arc<Task>> =
            runtime.block_on(desk.call(|cores, _| Ok(cores.board.list(&swarm(), 0).cloned().collect()))).unwrap();
        for _ in 0..20 {
            let task = dice.pick(&all);
            let deed = Deed::Shown { thing: task.id.to_string(), done_by: done_by(task) };
            world.recorder.note("overseer", from, deed);
        }
        for task in all.iter().filter(|task| task.state == TaskState::Failed) {
            let id = task.id;
            runtime.block_on(desk.call(move |cores, now| cores.board.retry(&swarm(), id, now))).unwrap();
        }
        done = all.iter().filter(|task| task.state == TaskState::Done).count();
        if done == plan.tasks && crashes == plan.crashes {
            return;
        }
    }
}

fn chaos(seed: u64, plan: &Plan) {
    eprintln!("seed {seed}");
    let mut dice = Dice(seed);
    let dir = tempfile::Builder::new().prefix("hk").tempdir_in("/tmp").unwrap();
    let mut running = Some(Running::open(dir.path()));
    let desk = running.as_ref().unwrap().desk.clone();
    let mut limits = BTreeMap::new();
    for some in tasks(plan.tasks, &mut dice).chunks(500) {
        // Places in one request count from its beginning.
        let place = |dependency: &Dependency| match dependency {
            Dependency::Index(at) => Dependency::Index(at % some.len()),
            Dependency::Task(id) => Dependency::Task(*id),
        };
        let new: Vec<NewTask> = some
            .iter()
            .enumerate()
            .map(|(at, task)| {
                let behind = |on: &Dependency| matches!(on, Dependency::Index(on) if *on < at);
                NewTask { depends_on: task.depends_on.iter().map(place).filter(behind).collect(), ..task.clone() }
            })
            .collect();
        let made = desk.call(move |cores, now| cores.board.create(&mut cores.counter, &swarm(), None, new, None, now));
        for task in runtime().block_on(made).unwrap() {
            limits.extend(task.spec.attempt_timeout.map(|limit| (task.id, limit)));
        }
    }
    let world = Arc::new(World {
        desk: RwLock::new(desk),
        dead: Mutex::default(),
        recorder: Recorder::new(),
        finished: AtomicBool::new(false),
        words: AtomicU64::new(0),
        clients: plan.clients as u64,
        limits,
    });
    let clients: Vec<JoinHandle<()>> = (0..plan.clients)
        .map(|at| {
            let party = Party { id: format!("s/w{at}").parse().unwrap(), incarnation: Some(1) };
            let dice = Dice(dice.next());
            let client = Client { world: Arc::clone(&world), party, dice, runtime: runtime() };
            std::thread::spawn(move || client.live())
        })
        .collect();
    oversee(&world, &mut running, dir.path(), plan, &mut dice);
    world.finished.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().unwrap();
    }
    let Some(running) = running else { return };
    crate::hive::until("nobody dead holds anything", || running.desk.holders().is_empty().then_some(()));
    let kept = runtime().block_on(running.store.load()).unwrap();
    let mut left = Left::default();
    left.tasks.extend(kept.tasks.iter().map(|task| (task.id.to_string(), done_by(task))));
    let claims = kept.tasks.iter().filter_map(|task| task.claim.as_ref());
    left.held.extend(claims.map(|claim| (claim.holder.to_string(), claim.fence.0)));
    left.held.extend(kept.locks.iter().map(|lock| (lock.holder.to_string(), lock.grant.unwrap().fence.0)));
    let waiting = kept.messages.iter().filter(|message| message.settled.is_none());
    left.messages = waiting.map(|message| word(&message.body)).collect::<BTreeSet<_>>();
    assert_eq!(left.tasks.len(), plan.tasks);
    let history = world.recorder.take();
    let deaths = history.iter().filter(|entry| matches!(entry.deed, Deed::Died)).count();
    eprintln!("{} calls, {deaths} deaths", history.len());
    insist(&history, &left);
}

#[test]
fn each_task_is_done_once_while_holders_die_at_random() {
    let plan = match long() {
        false => Plan { clients: 16, tasks: 1_000, crashes: 0, patience: Duration::from_secs(60) },
        true => Plan { clients: 64, tasks: 10_000, crashes: 0, patience: Duration::from_secs(600) },
    };
    chaos(1, &plan);
}

#[test]
fn each_task_is_done_once_while_clerk_and_store_die_too() {
    let plan = match long() {
        false => Plan { clients: 16, tasks: 600, crashes: 5, patience: Duration::from_secs(60) },
        true => Plan { clients: 64, tasks: 10_000, crashes: 100, patience: Duration::from_secs(600) },
    };
    chaos(2, &plan);
}
