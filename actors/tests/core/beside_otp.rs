//! The same histories under Erlang's own supervisor and under the core: the same children start, stop and live, in the same order.
//!
//! The histories know nothing that is only ours: no delay, no limit of a child's own. In groups no child rests while siblings fail, since OTP
//! starts it along with them and we don't. Played with `HK_TEST_LONG=yes`, as `tests/run --long` does, where there are `erl` and `erlc`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use hivekeeper_actors::tree::{Refusal, Request};
use hivekeeper_actors::{
    AutoShutdown, ChildSpec, ChildState, ExitReason, Intensity, RestartType, Strategy, SupervisorFlags,
};

use crate::properties::history::Dice;
use crate::sim::*;

const HISTORIES: u64 = 20_000;

#[test]
fn lives_as_under_otp() {
    if std::env::var("HK_TEST_LONG").is_ok_and(|long| long == "yes") {
        if Command::new("erlc").output().is_ok() {
            compare();
        } else {
            skipped("needs Erlang");
        }
    }
}

/// Says so past the test harness, and where `tests/run` collects it.
fn skipped(needs: &str) {
    let line = format!("skipped: beside_otp::lives_as_under_otp {needs}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    if let Ok(path) = std::env::var("HK_TEST_SKIPPED") {
        OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(line.as_bytes()).unwrap();
    }
}

fn compare() {
    let (here, out) = (Path::new(env!("CARGO_MANIFEST_DIR")), Path::new(env!("CARGO_TARGET_TMPDIR")));
    let histories: Vec<String> = (0..HISTORIES).map(history).collect();
    std::fs::write(out.join("histories"), histories.concat()).unwrap();
    run(Command::new("erlc").arg("-o").arg(out).arg(here.join("tests/core/beside_otp/beside_otp.erl")));
    let theirs = run(Command::new("erl")
        .args(["-noshell", "-eval", "beside_otp:main([\"histories\"]), halt()."])
        .current_dir(out));
    let theirs: Vec<&str> = theirs.lines().collect();
    assert_eq!(theirs.len(), histories.len());
    for (history, theirs) in histories.iter().zip(theirs) {
        assert_eq!(live(history), theirs, "ours is left, OTP's is right:\n{history}");
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A supervisor, its children and moves, a line each.
fn history(number: u64) -> String {
    let mut dice = Dice(number);
    let strategy = ["one_for_one", "one_for_all", "rest_for_one"][dice.below(3)];
    let auto = ["never", "any_significant", "all_significant"][dice.below(3)];
    let mut text = format!("supervisor {strategy} {} {auto}\n", [0, 1, 2, 3, 5, 8][dice.below(6)]);
    let types = ["permanent", "permanent", "transient", "temporary"];
    let mut restarts: Vec<&str> = (0..7).map(|_| types[dice.below(4)]).collect();
    let names = ["a", "b", "c", "d", "e", "f", "g"];
    let born = 1 + dice.below(5);
    for (name, restart) in names.iter().zip(&restarts).take(born) {
        let significant = auto != "never" && *restart != "permanent" && dice.one_in(2);
        writeln!(text, "child {name} {restart} {significant}").unwrap();
    }
    for _ in 0..dice.below(16) {
        let n = dice.below(born + 2);
        let (name, group) = (names[n], strategy != "one_for_one");
        let (word, more) = match dice.below(if group { 14 } else { 20 }) {
            5..7 if !group || restarts[n] != "transient" => ("finish", String::new()),
            0..7 => ("crash", String::new()),
            7..10 => ("faults", (1 + dice.below(3)).to_string()),
            10..12 => ("delete", String::new()),
            12..14 => {
                restarts[n] = if group { restarts[n] } else { types[dice.below(4)] };
                ("start", restarts[n].to_owned())
            }
            14..17 => ("terminate", String::new()),
            _ => ("restart", String::new()),
        };
        writeln!(text, "move {word} {name} {more}").unwrap();
    }
    text
}

/// What becomes of it here, in the words of `beside_otp.erl`.
fn live(history: &str) -> String {
    let lines: Vec<Vec<&str>> = history.lines().map(|line| line.split(' ').collect()).collect();
    let specs = lines.iter().filter(|line| line[0] == "child").map(|line| spec(line[1], line[2], line[3] == "true"));
    let sim = Sim::under(flags(&lines[0]), specs.collect());
    let mut life = Life { sim, faults: HashMap::new(), log: Vec::new(), ended: false };
    life.settle();
    for line in lines.iter().filter(|line| line[0] == "move") {
        if life.ended {
            break;
        }
        life.log.push("|".into());
        life.play(line[1], line[2], line[3]);
    }
    let nodes = life.sim.tree.nodes(life.sim.now);
    let presence =
        nodes.map(|(_, node)| format!("{}{}", node.id, if node.state == ChildState::Running { '+' } else { '-' }));
    life.log.push(if life.ended { "ended".into() } else { format!("end:{}", presence.collect::<String>()) });
    life.log.join(" ")
}

fn flags(line: &[&str]) -> SupervisorFlags {
    let strategy = match line[1] {
        "one_for_one" => Strategy::OneForOne,
        "one_for_all" => Strategy::OneForAll,
        _ => Strategy::RestForOne,
    };
    let auto_shutdown = match line[3] {
        "never" => AutoShutdown::Never,
        "any_significant" => AutoShutdown::AnySignificant,
        _ => AutoShutdown::AllSignificant,
    };
    let intensity = Some(Intensity { max_restarts: line[2].parse().unwrap(), period: S * 3600 });
    SupervisorFlags { intensity, auto_shutdown, ..SupervisorFlags::new(strategy) }
}

fn spec(name: &str, restart: &str, significant: bool) -> ChildSpec {
    let restart = match restart {
        "permanent" => RestartType::Permanent,
        "transient" => RestartType::Transient,
        _ => RestartType::Temporary,
    };
    ChildSpec { restart, significant, ..free(name) }
}

struct Life {
    sim: Sim,
    /// How many starts of a child are still to fail.
    faults: HashMap<String, u32>,
    log: Vec<String>,
    ended: bool,
}

impl Life {
    fn play(&mut self, word: &str, name: &str, more: &str) {
        let request = match word {
            "crash" | "finish" => {
                if self.sim.is_there(name) && self.sim.state(name) == ChildState::Running {
                    self.sim.down(name, if word == "crash" { crash() } else { ExitReason::Normal });
                }
                return self.settle();
            }
            "faults" => {
                self.faults.insert(name.into(), more.parse().unwrap());
                return;
            }
            "terminate" => Request::Terminate(id(name)),
            "restart" => Request::Restart(id(name)),
            "delete" => Request::Delete(id(name)),
            _ => Request::Start(new_child(spec(name, more, false))),
        };
        self.sim.ask(1, request);
        self.settle();
    }

    /// Everything that was asked to stop does, every start comes off unless it is to fail, and no time passes.
    fn settle(&mut self) {
        loop {
            self.listen();
            let mut nodes = self.sim.tree.nodes(self.sim.now).map(|(_, node)| (node.id.to_string(), node.state));
            let moving = |state| matches!(state, ChildState::Stopping | ChildState::Starting | ChildState::BackingOff);
            let busy: Vec<_> = nodes.by_ref().filter(|(_, state)| moving(*state)).collect();
            drop(nodes);
            let first = |wanted| busy.iter().find(|(_, state)| *state == wanted).map(|(name, _)| name.clone());
            if let Some(name) = first(ChildState::Stopping) {
                self.sim.down(&name, ExitReason::Shutdown);
            } else if let Some(name) = first(ChildState::Starting) {
                self.start(&name);
            } else if first(ChildState::BackingOff).is_some() {
                self.sim.after(Duration::ZERO);
            } else {
                return;
            }
        }
    }

    fn start(&mut self, name: &str) {
        if let Some(left) = self.faults.get_mut(name).filter(|left| **left > 0) {
            *left -= 1;
            self.log.push(format!("!{name}"));
            self.sim.down(name, ExitReason::StartFailed("fault".into()));
        } else {
            self.log.push(format!("+{name}"));
            self.sim.started(name);
        }
    }

    fn listen(&mut self) {
        for line in self.sim.log() {
            if let Some(name) = line.strip_prefix("stop ") {
                self.log.push(format!("-{name}"));
            }
            self.ended |= line.starts_with("finished");
        }
        for (_, answer) in self.sim.answers() {
            let word = match answer {
                Ok(()) => "ok",
                Err(Refusal::NotFound) => "not_found",
                Err(Refusal::Running) => "running",
                Err(Refusal::Restarting) => "restarting",
                Err(Refusal::AlreadyPresent) => "already_present",
                Err(Refusal::AlreadyStarted) => "already_started",
                Err(_) => "failed",
            };
            self.log.push(word.into());
        }
    }
}
