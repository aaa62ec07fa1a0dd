//! What strikes a hive, and what the model knows of it.

use std::{
    fs,
    thread::{self, sleep},
    time::Duration,
};

use serde_json::json;

use super::{
    Dice,
    model::{Config, Desired, Model},
    truth::Truth,
};
use crate::hive::{Hive, kill, until, until_within};

pub(super) struct World {
    pub(super) hive: Hive,
    pub(super) model: Model,
    pub(super) truth: Truth,
    config: Config,
    dice: Dice,
    long: bool,
}

/// Faults, each as often as it stands here; the last one takes too long for the normal run.
const FAULTS: &[&str] = &[
    "kill agent",
    "kill agent",
    "kill launcher",
    "kill daemon",
    "kill daemon at boot",
    "kill daemon at boot",
    "kill daemon and agent",
    "kill daemon and agent",
    "kill daemon in an operation",
    "kill daemon in an operation",
    "kill daemon in its stop",
    "kill daemon in its stop",
    "hand over",
    "terminate",
    "terminate in an operation",
    "freeze launcher",
    "freeze launcher and kill daemon",
    "command",
    "command",
    "commands at once",
    "configure",
    "configure",
    "configure and kill daemon at boot",
    "sleeping daemon",
];

impl World {
    pub(super) fn new(dice: Dice, long: bool) -> Self {
        let config = Config { version: 1, replicas: 2, extra: false, second: "t" };
        let mut hive = Hive::prepare("");
        fs::create_dir(hive.file("marks")).unwrap();
        hive.configure(&config.toml(&hive));
        let mut model = Model::default();
        model.follow(&config);
        hive.boot();
        Self { hive, model, truth: Truth::default(), config, dice, long }
    }

    /// One fault. Returns what it was, for people.
    pub(super) fn strike(&mut self) -> String {
        for agent in self.model.agents.values_mut() {
            agent.touched = false;
        }
        self.revive();
        let faults = if self.long { FAULTS } else { &FAULTS[..FAULTS.len() - 1] };
        let fault = *self.dice.pick(faults);
        let detail = match fault {
            "kill agent" => self.kill_agent(),
            "kill launcher" => self.kill_launcher(),
            "kill daemon" => {
                self.hive.kill();
                self.rest(300);
                self.hive.boot();
                String::new()
            }
            "kill daemon at boot" => {
                self.hive.kill();
                self.die_at_boot()
            }
            "kill daemon and agent" => self.kill_daemon_and_agent(),
            "kill daemon in an operation" => self.in_an_operation(libc::SIGKILL),
            "terminate in an operation" => self.in_an_operation(libc::SIGTERM),
            "kill daemon in its stop" => {
                self.model.touch(|_| true);
                self.hive.signal_daemon(libc::SIGTERM);
                let after = self.rest(150);
                self.hive.kill();
                self.hive.boot();
                after
            }
            "hand over" => {
                self.hive.signal_daemon(libc::SIGUSR2);
                assert!(self.hive.wait().success());
                self.rest(200);
                self.hive.boot();
                String::new()
            }
            "terminate" => {
                self.model.touch(|_| true);
                assert!(self.hive.terminate().success(), "{}", self.hive.log());
                self.hive.nothing_left(Duration::ZERO);
                self.hive.boot();
                String::new()
            }
            "freeze launcher" => self.freeze_launcher(false),
            "freeze launcher and kill daemon" => self.freeze_launcher(true),
            "command" => self.commands(1),
            "commands at once" => self.commands(4),
            "configure" => {
                let detail = self.configure();
                self.hive.kill();
                self.hive.boot();
                detail
            }
            "configure and kill daemon at boot" => {
                let detail = self.configure();
                self.hive.kill();
                detail + &self.die_at_boot()
            }
            "sleeping daemon" => self.sleeping_daemon(),
            other => panic!("{other}"),
        };
        format!("{fault} {detail}")
    }

    /// Starts everything again when most of it was stopped or paused, for what does not run can't be struck.
    fn revive(&mut self) {
        if self.model.agents.values().filter(|agent| agent.listed && agent.desired == Desired::Running).count() >= 3 {
            return;
        }
        if self.dice.below(4) == 0 {
            return;
        }
        for swarm in ["s", self.config.second] {
            if self.hive.get(&path_of(swarm)).body["desired"] == "paused" {
                self.hive.command(&format!("/swarms/{swarm}/resume"));
            }
            self.hive.command(&format!("/swarms/{swarm}/start"));
            for id in self.commanded(swarm) {
                self.model.agents.get_mut(&id).unwrap().desired = Desired::Running;
            }
        }
        self.settle("revived");
    }

    /// Lets a drawn time go by.
    fn rest(&mut self, ms_max: u64) -> String {
        let ms = self.dice.below(ms_max);
        sleep(Duration::from_millis(ms));
        format!(" after {ms} ms")
    }

    fn victim(&mut self) -> Option<String> {
        let living = self.model.living();
        (!living.is_empty()).then(|| self.dice.pick(&living).clone())
    }

    fn kill_agent(&mut self) -> String {
        let Some(id) = self.victim() else { return "none lives".to_owned() };
        kill(self.model.pid(&id), libc::SIGKILL);
        self.model.killed(&id);
        id
    }

    fn kill_launcher(&mut self) -> String {
        let Some(id) = self.victim() else { return "none lives".to_owned() };
        kill(launcher_of(self.model.pid(&id)), libc::SIGKILL);
        self.model.killed(&id);
        id
    }

    /// Daemons that die while they boot; the last one may live.
    fn die_at_boot(&mut self) -> String {
        let mut detail = String::new();
        for _ in 0..=self.dice.below(3) {
            self.hive.launch();
            detail += &self.rest(200);
            self.hive.kill();
        }
        self.hive.boot();
        detail
    }

    fn kill_daemon_and_agent(&mut self) -> String {
        let Some(id) = self.victim() else { return "none lives".to_owned() };
        let pid = self.model.pid(&id);
        let agent_first = self.dice.below(3) > 0;
        let mut detail = format!("{id}, agent first: {agent_first}");
        if agent_first {
            kill(pid, libc::SIGKILL);
            detail += &self.rest(25);
            self.hive.kill();
        } else {
            self.hive.kill();
            detail += &self.rest(25);
            kill(pid, libc::SIGKILL);
        }
        self.model.killed(&id);
        detail += &self.rest(50);
        self.hive.boot();
        detail
    }

    fn freeze_launcher(&mut self, and_kill: bool) -> String {
        let Some(id) = self.victim() else { return "none lives".to_owned() };
        let launcher = launcher_of(self.model.pid(&id));
        kill(launcher, libc::SIGSTOP);
        let detail = self.rest(700);
        if and_kill {
            self.hive.kill();
            self.hive.launch();
            self.rest(900);
        }
        kill(launcher, libc::SIGCONT);
        if and_kill {
            self.hive.find();
        }
        id + &detail
    }

    /// A target and a command that may fit it.
    fn draw_command(&mut self) -> (String, &'static str) {
        let agents = self.model.listed();
        let target = match self.dice.below(2) {
            0 => self.dice.pick(&agents).clone(),
            _ => (*self.dice.pick(&["s", self.config.second])).to_owned(),
        };
        let words: &[&'static str] = if target.contains('/') {
            &["stop", "start", "restart"]
        } else {
            &["stop", "start", "restart", "pause", "resume", "start", "resume"]
        };
        (target, *self.dice.pick(words))
    }

    /// What a command may make of the desires that it touches.
    fn commanded(&mut self, target: &str) -> Vec<String> {
        let touched = |id: &str| id == target || id.split_once('/').is_some_and(|(swarm, _)| swarm == target);
        self.model.touch(touched);
        self.model.listed().into_iter().filter(|id| touched(id)).collect()
    }

    fn commands(&mut self, count: usize) -> String {
        let drawn: Vec<_> = (0..count).map(|_| self.draw_command()).collect();
        let posts: Vec<_> = drawn
            .iter()
            .map(|(target, word)| {
                let path = format!("{}/{word}?wait=60s", path_of(target));
                let client = self.hive.client();
                thread::spawn(move || client.post(&path, json!({})))
            })
            .collect();
        let answers: Vec<_> = posts.into_iter().map(|post| post.join().unwrap()).collect();
        let mut touched = Vec::new();
        for ((target, word), answer) in drawn.iter().zip(&answers) {
            match answer.status {
                200 => {
                    touched.extend(self.commanded(target));
                    // Of commands at once a later one may undo an earlier one before it was seen.
                    if count == 1 {
                        assert_eq!(answer.body["state"], "succeeded", "{target} {word}: {:#}", answer.body);
                    }
                }
                409 => {}
                _ => panic!("{target} {word}: {answer:?}"),
            }
        }
        for id in touched {
            let desired = Desired::of(self.hive.agent(&id)["desired"].as_str().unwrap());
            if let ([(_, word)], 200) = (&drawn[..], answers[0].status) {
                let asked = asked_for(word, self.model.agents[&id].desired);
                assert_eq!(desired, asked, "{id} after {word}");
            }
            self.model.agents.get_mut(&id).unwrap().desired = desired;
        }
        let shown: Vec<_> = drawn.iter().zip(&answers).map(|((t, w), a)| format!("{t} {w} {}", a.status)).collect();
        shown.join(", ")
    }

    /// The daemon ends at any moment of an operation that was accepted.
    fn in_an_operation(&mut self, signal: i32) -> String {
        let (target, word) = self.draw_command();
        let answer = self.hive.post(&format!("{}/{word}", path_of(&target)), json!({}));
        let mut detail = format!("{target} {word} {}", answer.status);
        let touched = if answer.status == 202 { self.commanded(&target) } else { Vec::new() };
        detail += &self.rest(120);
        if signal == libc::SIGKILL {
            self.hive.kill();
        } else {
            self.model.touch(|_| true);
            assert!(self.hive.terminate().success(), "{}", self.hive.log());
            self.hive.nothing_left(Duration::ZERO);
        }
        self.hive.boot();
        if !touched.is_empty() {
            let id = answer.body["id"].as_str().unwrap();
            let after = self.hive.get(&format!("/api/v1/operations/{id}")).body;
            let ended = ["succeeded", "failed", "cancelled"].contains(&after["state"].as_str().unwrap_or_default());
            assert!(ended, "an operation ends with its daemon: {after:#}");
        }
        for id in touched {
            let now = Desired::of(self.hive.agent(&id)["desired"].as_str().unwrap());
            let agent = self.model.agents.get_mut(&id).unwrap();
            let asked = asked_for(word, agent.desired);
            assert!(now == agent.desired || now == asked, "{id} was {:?} before {word}, is {now:?}", agent.desired);
            agent.desired = now;
        }
        detail
    }

    fn configure(&mut self) -> String {
        let before = self.config.clone();
        match self.dice.below(4) {
            0 => {
                self.config.version += 1;
                self.model.touch(|id| id == "s/a");
            }
            1 => self.config.replicas = 1 + (self.config.replicas + self.dice.below(2)) % 3,
            2 => self.config.extra = !self.config.extra,
            _ => self.config.second = if self.config.second == "t" { "u" } else { "t" },
        }
        if before.second != self.config.second {
            // A removed swarm takes what was wanted of it along.
            for (_, agent) in self.model.agents.iter_mut().filter(|(id, _)| !id.starts_with("s/")) {
                agent.desired = Desired::Running;
            }
        }
        let swarm = self.hive.get("/api/v1/swarms/s").body;
        let wanted = Desired::of(swarm["desired"].as_str().unwrap());
        self.model.follow(&self.config);
        for (id, agent) in &mut self.model.agents {
            if agent.incarnation == 0 && id.starts_with("s/") {
                agent.desired = wanted;
            }
        }
        self.hive.configure(&self.config.toml(&self.hive));
        format!("{before:?} -> {:?}", self.config)
    }

    /// A daemon that sleeps too long finds another one in its place when it wakes.
    fn sleeping_daemon(&mut self) -> String {
        self.hive.signal_daemon(libc::SIGSTOP);
        let lock = self.hive.data().join("lock");
        until("the daemon counts as dead", || {
            let age = fs::metadata(&lock).unwrap().modified().unwrap().elapsed().ok()?;
            (age > Duration::from_secs(5)).then_some(())
        });
        let mut old = self.hive.boot_beside();
        self.rest(200);
        kill(old.id(), libc::SIGCONT);
        assert!(!old.wait().success(), "a fenced daemon fails");
        String::new()
    }

    /// Waits until the hive is as the model says, and looks at the truth.
    #[track_caller]
    pub(super) fn settle(&mut self, after: &str) {
        eprintln!("{after}");
        self.truth.look(&self.hive, &mut self.model, after);
    }

    /// The ordered end leaves nothing.
    pub(super) fn end(mut self) {
        self.truth.whole_history(&self.hive);
        assert!(self.hive.terminate().success(), "{}", self.hive.log());
        until_within(Duration::from_secs(1), "nothing is left", || self.hive.processes().is_empty().then_some(()));
    }
}

fn path_of(target: &str) -> String {
    match target.split_once('/') {
        Some((swarm, agent)) => format!("/api/v1/swarms/{swarm}/agents/{agent}"),
        None => format!("/api/v1/swarms/{target}"),
    }
}

/// What a command makes of an agent's desire. A stop holds until a start.
fn asked_for(word: &str, before: Desired) -> Desired {
    match word {
        "stop" => Desired::Stopped,
        "pause" | "resume" if before == Desired::Stopped => Desired::Stopped,
        "pause" => Desired::Paused,
        _ => Desired::Running,
    }
}

pub(super) fn launcher_of(pid: i32) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().parse().unwrap()
}
