//! `kill -9` of the daemon at random moments under a load of mutations: what was answered is afterwards done, or listed with the reason why not, and
//! nothing is done twice.
//!
//! Each worker has a swarm of its own and does one thing after the other, so that what must be there follows from what its operations ended as. A
//! request that got no answer is sent again with its key.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use uuid::Uuid;

use super::{Dice, Told};
use crate::hive::{Hive, PATIENCE};

/// Kills in a normal run, and in a long one.
const KILLS: u64 = 10;
const KILLS_LONG: u64 = 200;
const WORKERS: u64 = 3;
/// Between the readiness of a daemon and its death, at most.
const LIFE_MS: u64 = 600;
/// How long an operation may take from one daemon to the next.
const OPERATION: Duration = Duration::from_secs(60);

/// Where the daemon of the moment is.
struct Front {
    base: RwLock<String>,
    over: AtomicBool,
}

impl Front {
    fn call(&self, method: &str, path: &str, key: Option<&str>, body: &Value) -> Option<(u16, Value)> {
        let url = format!("{}{path}", self.base.read().unwrap());
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(10)))
            .build()
            .new_agent();
        let mut request =
            ureq::http::Request::builder().method(method).uri(url).header("content-type", "application/json");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let body = if method == "GET" { String::new() } else { body.to_string() };
        let mut answer = agent.run(request.body(body).unwrap()).ok()?;
        let status = answer.status().as_u16();
        let text = answer.body_mut().read_to_string().ok()?;
        Some((status, serde_json::from_str(&text).unwrap_or(Value::Null)))
    }

    /// Until some daemon answers. One that is starting or stopping says 503, one that is asked too often 429.
    fn ask(&self, method: &str, path: &str, key: Option<&str>, body: &Value) -> (u16, Value) {
        let deadline = Instant::now() + OPERATION;
        loop {
            match self.call(method, path, key, body) {
                Some((status, answer)) if ![429, 503].contains(&status) => return (status, answer),
                other => assert!(Instant::now() < deadline, "{method} {path}: no answer in time, the last: {other:?}"),
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn get(&self, path: &str) -> (u16, Value) {
        self.ask("GET", path, None, &Value::Null)
    }

    /// The end of an operation that was answered: it may not be forgotten.
    fn end(&self, id: &str) -> Value {
        let deadline = Instant::now() + OPERATION;
        loop {
            let (status, operation) = self.get(&format!("/api/v1/operations/{id}"));
            assert_eq!(status, 200, "operation {id} was answered and is gone: {operation}");
            match operation["state"].as_str().unwrap() {
                "succeeded" => return operation,
                "failed" | "cancelled" => {
                    assert!(
                        operation["error"].as_str().is_some_and(|why| !why.is_empty()),
                        "without a reason: {operation}"
                    );
                    return operation;
                }
                _ => assert!(Instant::now() < deadline, "never ends: {operation:#}"),
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// What must be there of a worker's swarm.
#[derive(Debug, Clone, PartialEq)]
enum Model {
    Absent,
    There { replicas: u64, version: u64, desired: &'static str },
}

fn document(name: &str, replicas: u64, version: u64) -> Value {
    json!({
        "name": name,
        "agent": [
            { "name": "a", "replicas": replicas, "command": ["sleep", "1000"], "env": { "VERSION": version.to_string() }, "stop_grace": "1s" },
            { "name": "b", "command": ["sleep", "1000"], "stop_grace": "1s" },
        ],
    })
}

struct Worker {
    front: Arc<Front>,
    dice: Dice,
    name: String,
    model: Model,
    version: u64,
    answered: BTreeSet<String>,
    succeeded: u64,
}

impl Worker {
    fn seen(&self) -> Model {
        let (status, swarm) = self.front.get(&format!("/api/v1/swarms/{}", self.name));
        if status == 404 {
            return Model::Absent;
        }
        assert_eq!(status, 200, "{swarm}");
        let a = &swarm["document"]["agent"][0];
        Model::There {
            replicas: a["replicas"].as_u64().unwrap(),
            version: a["env"]["VERSION"].as_str().unwrap().parse().unwrap(),
            desired: if swarm["desired"] == "stopped" { "stopped" } else { "running" },
        }
    }

    /// A mutation that fits, and what it makes of the model.
    fn draw(&mut self) -> (&'static str, String, Value, Model) {
        let swarm = format!("/api/v1/swarms/{}", self.name);
        let post = |verb: &str| ("POST", format!("{swarm}/{verb}"));
        let Model::There { replicas, version, desired } = self.model.clone() else {
            self.version += 1;
            let after = Model::There { replicas: 2, version: self.version, desired: "running" };
            return ("POST", "/api/v1/swarms".to_owned(), document(&self.name, 2, self.version), after);
        };
        let there = |replicas, version, desired| Model::There { replicas, version, desired };
        let (method, path, body, after) = match self.dice.below(8) {
            0 | 1 => {
                self.version += 1;
                let after = there(replicas, self.version, desired);
                return ("PUT", swarm, document(&self.name, replicas, self.version), after);
            }
            2 | 3 => {
                let replicas = 1 + self.dice.below(3);
                let (method, path) = post("scale");
                (method, path, json!({ "agent": "a", "replicas": replicas }), there(replicas, version, desired))
            }
            4 => {
                let (method, path) = post("restart");
                (method, path, json!({}), there(replicas, version, "running"))
            }
            5 => {
                let (method, path) = post("stop");
                (method, path, json!({}), there(replicas, version, "stopped"))
            }
            6 => {
                let (method, path) = post("start");
                (method, path, json!({}), there(replicas, version, "running"))
            }
            _ => ("DELETE", swarm.clone(), json!({}), Model::Absent),
        };
        (method, path, body, after)
    }

    fn run(mut self) -> Self {
        while !self.front.over.load(Ordering::Acquire) {
            let (method, path, body, after) = self.draw();
            let key = Uuid::now_v7().to_string();
            let (status, operation) = self.front.ask(method, &path, Some(&key), &body);
            assert_eq!(status, 202, "{method} {path} {body}: {operation}");
            let id = operation["id"].as_str().unwrap().to_owned();
            assert!(self.answered.insert(id.clone()), "{id} was given to two requests");
            let (status, again) = self.front.ask(method, &path, Some(&key), &body);
            assert_eq!((status, &again["id"]), (202, &operation["id"]), "the same key, the same operation");
            let end = self.front.end(&id);
            let seen = self.seen();
            if end["state"] == "succeeded" {
                self.succeeded += 1;
                assert_eq!(seen, after, "{method} {path} {body} has succeeded: {end:#}");
            } else {
                assert!(
                    seen == after || seen == self.model,
                    "{seen:?} is neither {:?} nor {after:?}: {end:#}",
                    self.model
                );
            }
            self.model = seen;
        }
        self
    }
}

/// Restarts one agent again and again. Each restart that has succeeded is one more incarnation that ran, and nothing else makes one.
fn restarts(front: &Front) -> (BTreeSet<String>, u64, u64) {
    let (mut answered, mut succeeded, mut otherwise) = (BTreeSet::new(), 0, 0);
    while !front.over.load(Ordering::Acquire) {
        let key = Uuid::now_v7().to_string();
        let path = "/api/v1/swarms/base/agents/a/restart";
        let (status, operation) = front.ask("POST", path, Some(&key), &json!({}));
        assert_eq!(status, 202, "{operation}");
        let id = operation["id"].as_str().unwrap().to_owned();
        let end = front.end(&id);
        assert!(answered.insert(id), "given twice: {end}");
        if end["state"] == "succeeded" { succeeded += 1 } else { otherwise += 1 }
    }
    (answered, succeeded, otherwise)
}

fn storm(seed: u64, kills: u64) {
    let told = Told { seed };
    let mut dice = Dice(seed);
    let mut hive = Hive::start(
        "[[swarm]]\nname = \"base\"\n[[swarm.agent]]\nname = \"a\"\nstop_grace = \"1s\"\ncommand = [\"sleep\", \"1000\"]\n",
    );
    hive.running("base/a");
    let url = |hive: &Hive| format!("http://{}", hive.http.trim_start_matches("http://"));
    let front = Arc::new(Front { base: RwLock::new(url(&hive)), over: AtomicBool::new(false) });
    let workers: Vec<_> = (0..WORKERS)
        .map(|n| {
            let worker = Worker {
                front: Arc::clone(&front),
                dice: Dice(seed * 1000 + n),
                name: format!("w{n}"),
                model: Model::Absent,
                version: 0,
                answered: BTreeSet::new(),
                succeeded: 0,
            };
            thread::spawn(move || worker.run())
        })
        .collect();
    let restarter = thread::spawn({
        let front = Arc::clone(&front);
        move || restarts(&front)
    });
    for _ in 0..kills {
        thread::sleep(Duration::from_millis(dice.below(LIFE_MS)));
        hive.kill();
        hive.boot();
        *front.base.write().unwrap() = url(&hive);
    }
    front.over.store(true, Ordering::Release);
    let mut answered = BTreeSet::new();
    let mut succeeded = 0;
    for worker in workers {
        let worker = worker.join().unwrap();
        assert_eq!(worker.seen(), worker.model);
        succeeded += worker.succeeded;
        answered.extend(worker.answered);
    }
    let (restarts, done, otherwise) = restarter.join().unwrap();
    hive.running("base/a");
    // A daemon that dies between a number and its launch leaves a number that nothing ran by.
    let numbers = hive.incarnations("base/a");
    let ran = numbers.iter().filter(|(_, exit)| !exit.as_deref().is_some_and(|exit| exit.contains("never_started")));
    let ran = ran.count() as u64;
    assert!(
        (1 + done..=1 + done + otherwise).contains(&ran),
        "{ran} incarnations after {done} restarts, and {otherwise} that ended otherwise: {numbers:#?}"
    );
    answered.extend(restarts);
    assert!(succeeded > 0 && done > 0, "nothing was ever done");
    // A second operation of any request would be in the list, too.
    let known = operations(&front);
    assert_eq!(known.difference(&answered).count(), 0, "operations that nobody was told of");
    assert!(hive.terminate().success());
    hive.nothing_left(PATIENCE);
    let (answered, succeeded, unused) = (answered.len(), succeeded + done, numbers.len() as u64 - ran);
    eprintln!(
        "{kills} kills: {answered} operations answered, {succeeded} succeeded, {unused} numbers that nothing ran by"
    );
    std::mem::forget(told);
}

/// The ids of all operations.
fn operations(front: &Front) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let mut cursor = String::new();
    loop {
        let (status, page) = front.get(&format!("/api/v1/operations?limit=500{cursor}"));
        assert_eq!(status, 200, "{page}");
        all.extend(
            page["operations"].as_array().unwrap().iter().map(|operation| operation["id"].as_str().unwrap().to_owned()),
        );
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

#[test]
fn what_was_answered_is_done_once_or_listed_whenever_the_daemon_is_killed() {
    storm(1, KILLS);
}

#[test]
fn what_was_answered_is_done_once_or_listed_over_many_kills() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("HK_CHAOS_SEED") {
        storm(seed, number("HK_CHAOS_ROUNDS").unwrap_or(KILLS));
    } else if crate::harness::outside::long() {
        storm(2, KILLS_LONG);
    }
}
