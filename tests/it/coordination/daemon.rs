//! Chaos at the daemon: agents of one swarm share tasks, locks and messages in their sessions while they are killed at random, and so is the daemon. Each
//! agent's program only writes down what it was given; a thread of the test speaks for it, so that one clock and one recorder see everything.
//!
//! `HK_TEST_LONG=yes` makes them as many as they are meant to be, and kills the daemon a hundred times.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    checker::insist,
    history::{Deed, Grant, Left, Mode, Recorder, Said, Time, Use},
    long,
};
use crate::{
    chaos::Dice,
    hive::{Hive, kill, until},
};

/// How long claims and locks hold. Nobody waits for it.
const LEASE_MS: u64 = 300_000;
/// How long an answer may take before the connection is given up.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
const NAMES: [&str; 6] = ["src/", "src/a.rs", "src/b/c.rs", "docs", "docs/index.md", "Cargo.toml"];
const MODES: [(&str, Mode); 3] = [("read", Mode::Read), ("write", Mode::Write), ("exclusive", Mode::Exclusive)];

struct Plan {
    agents: usize,
    tasks: usize,
    /// How often the daemon is killed.
    kills: usize,
    patience: Duration,
}

fn swarm(agents: usize) -> String {
    let program = "(env; echo OWN_PID=$$) > $0.new; mv $0.new $0.$HIVEKEEPER_INCARNATION; exec sleep 10000";
    let at_once =
        "backoff = { initial = \"0s\", then = \"0s\", factor = 1.0, max = \"0s\", jitter = 0.0, reset_after = \"1s\" }";
    let mut text = format!("[[swarm]]\nname = \"s\"\nintensity = 1000\nperiod = \"1s\"\n{at_once}\n");
    for name in (0..agents).map(|at| format!("w{at}")).chain(["boss".to_owned()]) {
        text.push_str(&format!(
            "[[swarm.agent]]\nname = \"{name}\"\ncommand = [\"sh\", \"-c\", {program:?}, {name:?}]\n"
        ));
    }
    text
}

/// Why there is no answer that counts.
#[derive(Debug)]
enum Mishap {
    /// The stable word of a refusal.
    Refused(i64),
    /// The connection broke, or the daemon does not know.
    Broken,
}

/// An incarnation, as its program was started.
struct Given {
    pid: i32,
    incarnation: u64,
    addr: String,
    token: String,
}

impl Given {
    /// The youngest behind this one: a number that was given out for a start that a dying daemon never made is left out.
    fn behind(dir: &Path, name: &str, last: u64) -> Option<Self> {
        let number = |file: std::fs::DirEntry| {
            let file = file.file_name().into_string().ok()?;
            file.strip_prefix(name)?.strip_prefix('.')?.parse::<u64>().ok()
        };
        let files = std::fs::read_dir(dir).ok()?.flatten();
        let incarnation = files.filter_map(number).max().filter(|number| *number > last)?;
        let text = std::fs::read_to_string(dir.join(format!("{name}.{incarnation}"))).ok()?;
        let given: HashMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
        Some(Self {
            pid: given["OWN_PID"].parse().unwrap(),
            incarnation,
            addr: given["HIVEKEEPER_ADDR"].to_owned(),
            token: given["HIVEKEEPER_TOKEN"].to_owned(),
        })
    }
}

/// One who speaks for an agent, over as many connections as it takes.
struct Speaker {
    dir: PathBuf,
    name: String,
    given: Given,
    line: Option<BufReader<TcpStream>>,
    last_id: u64,
}

impl Speaker {
    fn new(dir: PathBuf, name: &str) -> Self {
        let given = until("an agent that starts", || Given::behind(&dir, name, 0));
        Self { dir, name: name.to_owned(), given, line: None, last_id: 0 }
    }

    fn who(&self) -> String {
        format!("{}#{}", self.name, self.given.incarnation)
    }

    fn open(&mut self) -> std::io::Result<()> {
        let stream = TcpStream::connect(&self.given.addr)?;
        stream.set_read_timeout(Some(ANSWER_WAIT))?;
        stream.set_nodelay(true)?;
        self.line = Some(BufReader::new(stream));
        let opening = json!({
            "token": self.given.token, "agent": format!("s/{}", self.name), "incarnation": self.given.incarnation,
            "protocol": 1, "capabilities": {}
        });
        let opened = self.exchange("hive/open", &opening)?;
        let session = opened["result"]["session"].is_string();
        if session { Ok(()) } else { Err(std::io::Error::other(opened.to_string())) }
    }

    fn exchange(&mut self, method: &str, params: &Value) -> std::io::Result<Value> {
        let line = self.line.as_mut().ok_or(std::io::ErrorKind::NotConnected)?;
        self.last_id += 1;
        let request = json!({"jsonrpc": "2.0", "id": self.last_id, "method": method, "params": params});
        line.get_mut().write_all(format!("{request}\n").as_bytes())?;
        loop {
            let mut text = String::new();
            if line.read_line(&mut text)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let answer: Value = serde_json::from_str(&text)?;
            if answer["id"] == self.last_id && answer["method"].is_null() {
                return Ok(answer);
            }
        }
    }

    /// Opens a session if there is none.
    fn connect(&mut self) {
        until("a session", || {
            if self.line.is_none() && self.open().is_err() {
                self.line = None;
                std::thread::sleep(Duration::from_millis(20));
                return None;
            }
            Some(())
        });
    }

    fn call(&mut self, tool: &str, arguments: &Value) -> Result<Value, Mishap> {
        loop {
            self.connect();
            let Ok(mut answer) = self.exchange(&format!("hive/{tool}"), arguments) else {
                self.line = None;
                return Err(Mishap::Broken);
            };
            match answer["error"]["code"].as_i64() {
                None => return Ok(answer["result"].take()),
                // Too fast: it was not looked at.
                Some(1005) => std::thread::sleep(Duration::from_millis(20)),
                // `shutting_down`, `maybe_done`, `journal_unavailable`.
                Some(1007 | 1107 | 1108 | 1109) => return Err(Mishap::Broken),
                Some(code) => return Err(Mishap::Refused(code)),
            }
        }
    }

    /// Asks until there is an answer; for what changes nothing, or nothing more when it is said again.
    fn insist(&mut self, tool: &str, arguments: &Value) -> Result<Value, i64> {
        loop {
            match self.call(tool, arguments) {
                Ok(answer) => return Ok(answer),
                Err(Mishap::Refused(code)) => return Err(code),
                Err(Mishap::Broken) => {}
            }
        }
    }

    /// SIGKILL of the agent, and the next incarnation.
    fn die(&mut self) {
        kill(self.given.pid, libc::SIGKILL);
        self.line = None;
        let last = self.given.incarnation;
        self.given = until("the next incarnation", || Given::behind(&self.dir, &self.name, last));
    }
}

struct World {
    recorder: Recorder,
    done: AtomicUsize,
    finished: AtomicBool,
    words: AtomicU64,
    agents: u64,
}

struct Agent {
    world: Arc<World>,
    speaker: Speaker,
    dice: Dice,
    /// Tokens that it knows of.
    known: HashSet<u64>,
}

/// It was killed, and its successor has nothing in hand.
struct Killed;

impl Agent {
    fn note(&self, from: Time, deed: Deed) {
        self.world.recorder.note(&self.speaker.who(), from, deed);
    }

    fn die(&mut self) -> Killed {
        let (who, from) = (self.speaker.who(), self.world.recorder.now());
        self.speaker.die();
        self.world.recorder.note(&who, from, Deed::Died);
        Killed
    }

    fn live(mut self) {
        while !self.world.finished.load(Ordering::Relaxed) {
            if let Ok(0) = self.turn() {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        while self.read(100).is_ok_and(|read| read > 0) {}
        self.die();
    }

    fn claimed(&mut self, from: Time, task: &Value) -> (String, u64) {
        let (id, fence) = (task["id"].as_str().unwrap().to_owned(), task["claim"]["fence"].as_u64().unwrap());
        if self.known.insert(fence) {
            let names = vec![format!("task/{id}")];
            let (lease, limit) = (LEASE_MS * 1_000, None);
            let grant = Grant { thing: id.clone(), fence, mode: Mode::Exclusive, names, lease, limit };
            self.note(from, Deed::Given(grant));
        }
        (id, fence)
    }

    fn locked(&mut self, from: Time, lock: &Value) -> (String, u64) {
        let (id, fence) = (lock["id"].as_str().unwrap().to_owned(), lock["fence"].as_u64().unwrap());
        if self.known.insert(fence) {
            let (_, mode) = MODES.iter().find(|(word, _)| lock["mode"] == *word).unwrap();
            let names = lock["resources"].as_array().unwrap().iter();
            let names = names.map(|name| name.as_str().unwrap().to_owned()).collect();
            let grant = Grant { thing: id.clone(), fence, mode: *mode, names, lease: LEASE_MS * 1_000, limit: None };
            self.note(from, Deed::Given(grant));
        }
        (id, fence)
    }

    /// The connection broke in the middle of something: what has become of it?
    fn find_out(&mut self, from: Time) -> Result<Vec<(String, u64)>, Killed> {
        let Ok(held) = self.speaker.insist("task_held", &json!({})) else { return Err(self.die()) };
        for lock in held["locks"].as_array().unwrap() {
            let (id, fence) = self.locked(from, lock);
            self.end("lock_release", Use::Release, &id, fence, json!({}));
        }
        Ok(held["tasks"].as_array().unwrap().iter().map(|task| self.claimed(from, task)).collect())
    }

    fn turn(&mut self) -> Result<usize, Killed> {
        let from = self.world.recorder.now();
        let asked = json!({"max": 1 + self.dice.below(2), "lease_ms": LEASE_MS, "wait_ms": self.dice.below(2) * 20});
        let mine = match self.speaker.call("task_claim", &asked) {
            Ok(answer) => answer["tasks"].as_array().unwrap().iter().map(|task| self.claimed(from, task)).collect(),
            Err(Mishap::Refused(code)) => panic!("a claim is refused: {code}"),
            Err(Mishap::Broken) => self.find_out(from)?,
        };
        for (id, fence) in &mine {
            self.work(id, *fence)?;
        }
        if self.dice.below(6) == 0 {
            self.write();
        }
        if self.dice.below(4) == 0 {
            self.read(10)?;
        }
        Ok(mine.len())
    }

    /// Says how something ended until it is heard.
    fn end(&mut self, tool: &str, what: Use, id: &str, fence: u64, mut arguments: Value) -> Said {
        arguments["id"] = json!(id);
        arguments["fence"] = json!(fence);
        loop {
            let from = self.world.recorder.now();
            let said = match self.speaker.call(tool, &arguments) {
                Ok(_) => Said::Done,
                // `stale_token`, `unknown_lock`.
                Err(Mishap::Refused(1115 | 1111)) => Said::Stale,
                Err(Mishap::Refused(code)) => panic!("{tool} {arguments} is refused: {code}"),
                Err(Mishap::Broken) => Said::Unknown,
            };
            self.note(from, Deed::Used { fence, what, said });
            if said != Said::Unknown {
                return said;
            }
        }
    }

    fn work(&mut self, id: &str, fence: u64) -> Result<(), Killed> {
        if self.dice.below(4) == 0 {
            self.lock()?;
        }
        if self.dice.below(4) == 0 {
            let percent = self.dice.below(101);
            self.end("task_progress", Use::Renew, id, fence, json!({"percent": percent}));
        }
        let said = match self.dice.below(100) {
            0..4 => return Err(self.die()),
            4..6 => self.end("task_fail", Use::Fail, id, fence, json!({"reason": "it would not go"})),
            6..8 => self.end("task_release", Use::Release, id, fence, json!({})),
            8..10 => {
                // It says so and is killed before it can hear the answer.
                let from = self.world.recorder.now();
                self.speaker.connect();
                let request = json!({
                    "jsonrpc": "2.0", "id": 0, "method": "hive/task_complete", "params": {"id": id, "fence": fence}
                });
                if let Some(line) = &mut self.speaker.line {
                    let _ = line.get_mut().write_all(format!("{request}\n").as_bytes());
                }
                self.note(from, Deed::Used { fence, what: Use::Complete, said: Said::Unknown });
                return Err(self.die());
            }
            _ => self.end("task_complete", Use::Complete, id, fence, json!({"result": {"by": self.speaker.who()}})),
        };
        if said == Said::Done {
            self.world.done.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn lock(&mut self) -> Result<(), Killed> {
        let names: BTreeSet<&str> = (0..=self.dice.below(2)).map(|_| *self.dice.pick(&NAMES)).collect();
        let (mode, _) = *self.dice.pick(&MODES);
        let wait = self.dice.below(30);
        let asked = json!({"resources": names, "mode": mode, "lease_ms": LEASE_MS, "wait_ms": wait});
        let from = self.world.recorder.now();
        let lock = match self.speaker.call("lock_acquire", &asked) {
            Ok(lock) => lock,
            // `deadlock`, `lock_timed_out`.
            Err(Mishap::Refused(1119 | 1120)) => return Ok(()),
            Err(Mishap::Refused(code)) => panic!("a lock is refused: {code}"),
            Err(Mishap::Broken) => return self.find_out(from).map(drop),
        };
        let (id, fence) = self.locked(from, &lock);
        if self.dice.below(20) == 0 {
            return Err(self.die());
        }
        if self.dice.below(2) == 0 {
            self.end("lock_renew", Use::Renew, &id, fence, json!({}));
        }
        self.end("lock_release", Use::Release, &id, fence, json!({}));
        Ok(())
    }

    fn write(&mut self) {
        let word = format!("m{}", self.world.words.fetch_add(1, Ordering::Relaxed));
        let letter = json!({"to": format!("w{}", self.dice.below(self.world.agents)), "body": word, "key": word});
        let from = self.world.recorder.now();
        let said = match self.speaker.call("message_send", &letter) {
            Ok(_) => Said::Done,
            Err(Mishap::Refused(code)) => panic!("{letter} is refused: {code}"),
            Err(Mishap::Broken) => Said::Unknown,
        };
        self.note(from, Deed::Sent { message: word, said });
    }

    fn read(&mut self, max: usize) -> Result<usize, Killed> {
        let from = self.world.recorder.now();
        let Ok(received) = self.speaker.call("message_receive", &json!({"max": max, "redeliver_after_ms": 1000}))
        else {
            return Ok(0);
        };
        let messages = received["messages"].as_array().unwrap().clone();
        // What the daemon tells of messages that were given up is nobody's word.
        let word = |message: &Value| message["body"].as_str().unwrap_or_default().to_owned();
        let from_somebody: Vec<&Value> = messages.iter().filter(|message| !message["from"].is_null()).collect();
        for message in &from_somebody {
            self.note(from, Deed::Received { message: word(message) });
        }
        for message in messages.iter() {
            if self.dice.below(50) == 0 {
                return Err(self.die());
            }
            let from = self.world.recorder.now();
            let said = match self.speaker.call("message_ack", &json!({"id": message["id"], "fence": message["fence"]}))
            {
                Ok(_) => Said::Done,
                // `stale_token`, `unknown_message`.
                Err(Mishap::Refused(1115 | 1112)) => Said::Stale,
                Err(Mishap::Refused(code)) => panic!("{message} is refused: {code}"),
                Err(Mishap::Broken) => Said::Unknown,
            };
            if !message["from"].is_null() {
                self.note(from, Deed::Acknowledged { message: word(message), said });
            }
        }
        Ok(messages.len())
    }
}

fn done_by(task: &Value) -> Option<u64> {
    let attempts = task["attempts"].as_array().unwrap();
    let completed = attempts.iter().find(|attempt| attempt["end"] == "completed");
    completed.and_then(|attempt| attempt["fence"].as_u64()).filter(|_| task["state"] == "done")
}

fn pages(boss: &mut Speaker, tool: &str, of: &str, mut arguments: Value) -> Vec<Value> {
    let mut all = Vec::new();
    loop {
        let mut page = boss.insist(tool, &arguments).unwrap();
        all.append(page[of].as_array_mut().unwrap());
        if page["next"].is_null() {
            return all;
        }
        arguments["after"] = page["next"].take();
    }
}

/// Whether a task is not done yet.
fn any_open(boss: &mut Speaker) -> bool {
    let mut arguments = json!({"state": ["blocked", "ready", "claimed", "running", "failed"], "limit": 1});
    loop {
        let mut page = boss.insist("task_list", &arguments).unwrap();
        if !page["tasks"].as_array().unwrap().is_empty() {
            return true;
        }
        if page["next"].is_null() {
            return false;
        }
        arguments["after"] = page["next"].take();
    }
}

fn create(boss: &mut Speaker, tasks: usize, dice: &mut Dice) -> Vec<String> {
    let priorities = ["critical", "high", "normal", "low"];
    let mut ids = Vec::new();
    while ids.len() < tasks {
        let some: Vec<Value> = (0..500.min(tasks - ids.len()))
            .map(|at| {
                // Each fifth comes behind an earlier one.
                let behind: Vec<u64> = if at % 5 == 4 { vec![dice.below(at as u64)] } else { Vec::new() };
                json!({
                    "title": format!("task {at}"), "category": "code", "priority": dice.pick(&priorities),
                    "depends_on": behind, "retries": 100, "backoff_ms": 1, "backoff_max_ms": 2
                })
            })
            .collect();
        let made = boss.insist("task_create", &json!({"tasks": some, "key": format!("k{}", ids.len())})).unwrap();
        ids.extend(made["tasks"].as_array().unwrap().iter().map(|task| task["id"].as_str().unwrap().to_owned()));
    }
    ids
}

fn chaos(seed: u64, plan: &Plan) {
    eprintln!("seed {seed}");
    let mut dice = Dice(seed);
    let mut hive = Hive::start(&swarm(plan.agents));
    let dir = hive.data().join("work/s");
    let mut boss = Speaker::new(dir.clone(), "boss");
    let ids = create(&mut boss, plan.tasks, &mut dice);
    let world = Arc::new(World {
        recorder: Recorder::new(),
        done: AtomicUsize::new(0),
        finished: AtomicBool::new(false),
        words: AtomicU64::new(0),
        agents: plan.agents as u64,
    });
    let agents: Vec<_> = (0..plan.agents)
        .map(|at| {
            let (world, dice, dir) = (Arc::clone(&world), Dice(dice.next()), dir.clone());
            std::thread::spawn(move || {
                let speaker = Speaker::new(dir, &format!("w{at}"));
                Agent { world, speaker, dice, known: HashSet::new() }.live();
            })
        })
        .collect();
    let (began, mut kills) = (Instant::now(), 0);
    loop {
        assert!(began.elapsed() < plan.patience, "not done within {:?}\n{}", plan.patience, hive.log());
        assert!(agents.iter().all(|agent| !agent.is_finished()), "an agent's thread has failed");
        std::thread::sleep(Duration::from_millis(dice.below(60)));
        // Spread over the whole work.
        if kills < plan.kills && world.done.load(Ordering::Relaxed) * plan.kills >= kills * plan.tasks {
            kills += 1;
            hive.kill();
            std::thread::sleep(Duration::from_millis(dice.below(50)));
            hive.boot();
        }
        for _ in 0..3 {
            let (id, from) = (dice.pick(&ids), world.recorder.now());
            let task = boss.insist("task_show", &json!({"id": id})).unwrap();
            let deed = Deed::Shown { thing: id.clone(), done_by: done_by(&task) };
            world.recorder.note("boss", from, deed);
        }
        // Some have lost too many holders.
        for task in pages(&mut boss, "task_list", "tasks", json!({"state": ["failed"]})) {
            let _ = boss.insist("task_retry", &json!({"id": task["id"]}));
        }
        if kills == plan.kills && !any_open(&mut boss) {
            break;
        }
    }
    let took = began.elapsed();
    world.finished.store(true, Ordering::Relaxed);
    for agent in agents {
        agent.join().unwrap();
    }
    let history = world.recorder.take();
    let dead: HashSet<&str> =
        history.iter().filter(|entry| matches!(entry.deed, Deed::Died)).map(|entry| entry.who.as_str()).collect();
    let mut left = Left::default();
    for task in pages(&mut boss, "task_list", "tasks", json!({"full": true})) {
        left.tasks.insert(task["id"].as_str().unwrap().to_owned(), done_by(&task));
        if let Some(fence) = task["claim"]["fence"].as_u64() {
            left.held.push((holder(&task["claim"]["holder"]), fence));
        }
    }
    for lock in pages(&mut boss, "lock_list", "locks", json!({"held": true})) {
        left.held.push((holder(&lock["holder"]), lock["fence"].as_u64().unwrap()));
    }
    for dead in [false, true] {
        let listed = boss.insist("message_list", &json!({"dead": dead, "limit": 1000, "full": true})).unwrap();
        let words = listed["messages"].as_array().unwrap().iter();
        left.messages.extend(words.filter_map(|message| Some(message["body"].as_str()?.to_owned())));
    }
    assert_eq!(left.tasks.len(), plan.tasks);
    eprintln!("{} calls, {} deaths, {kills} daemons killed, {took:?}", history.len(), dead.len());
    insist(&history, &left);
}

fn holder(party: &Value) -> String {
    format!("{}#{}", party["agent"].as_str().unwrap(), party["incarnation"])
}

#[test]
fn each_task_is_done_once_while_agents_and_daemons_are_killed() {
    let plan = match long() {
        false => Plan { agents: 8, tasks: 200, kills: 5, patience: Duration::from_secs(90) },
        true => Plan { agents: 64, tasks: 10_000, kills: 100, patience: Duration::from_secs(3_000) },
    };
    chaos(3, &plan);
}
