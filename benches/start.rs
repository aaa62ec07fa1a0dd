//! How fast 200 agents start.
//!
//! Everybody starts the same agent: this executable, whose first act is to read CLOCK_MONOTONIC and whose second is to send that time to us.
//! - `one swarm of 200`: from the daemon's spawn until every agent has announced itself and the health document calls all of them `running`. A swarm
//!   starts its agents in order, each after the one before runs. Boot, journal and a launcher for each agent are in it.
//! - `ten swarms of 20`: the same agents; swarms do not wait for one another.
//! - `bare, in order`: this process spawns an agent, hears its sign, spawns the next. `bare, at once`: it spawns all and then listens. Until the last sign.
//!
//! Each round does all four in turn; shown is the median of the rounds.
//!
//! `cargo bench --bench start`; a quick look: `cargo bench --bench start -- --rounds 1`.

mod support;

use std::{fs, path::Path, process::Child, time::Duration};

use anyhow::{Context, ensure};

use support::{
    agent::{self, Ear, Sign},
    clock,
    figures::{self, Samples, ms, ratio, table},
    hive::Hive,
    machine,
};

/// The number.
const AGENTS: usize = 200;
/// Swarms that share them in the second case.
const SWARMS: usize = 10;
/// A round takes a few seconds; five show whether it is steady.
const ROUNDS: usize = 5;
/// How long the start of all may take.
const START_WAIT: Duration = Duration::from_secs(120);

/// One case over all rounds.
#[derive(Default)]
struct Case {
    /// The daemon is ready.
    ready: Samples,
    /// The first agent's sign.
    first: Samples,
    /// The last agent's sign.
    last: Samples,
    /// All are `running`, for bare spawns the last sign.
    done: Samples,
}

fn main() -> anyhow::Result<()> {
    agent::be_one_if_asked();
    let rounds = figures::rounds(ROUNDS)?;
    let scratch = figures::scratch()?;
    println!("machine: {}", machine::describe(scratch.path()));
    let ear = Ear::open(scratch.path())?;
    let [mut one, mut ten, mut in_order, mut at_once] = [(); 4].map(|()| Case::default());
    for round in 0..rounds {
        let dir = |name: &str| scratch.path().join(format!("{name}-{round}"));
        bare(&ear, &mut in_order, true).context("bare, in order")?;
        hive(&dir("one"), &ear, 1, &mut one).context("one swarm")?;
        bare(&ear, &mut at_once, false).context("bare, at once")?;
        hive(&dir("ten"), &ear, SWARMS, &mut ten).context("ten swarms")?;
    }
    let named = [
        ("one swarm of 200", &one),
        ("ten swarms of 20", &ten),
        ("bare, in order", &in_order),
        ("bare, at once", &at_once),
    ];
    let rows: Vec<Vec<String>> = named.iter().map(|(name, case)| row(name, case, &in_order, &at_once)).collect();
    let head =
        ["case", "ready", "first sign", "last sign", "done", "done min-max", "agents/s", "/in order", "/at once"];
    table(&format!("start of {AGENTS} agents, ms, median of {rounds}"), &head, &rows);
    let left = ear.carriers();
    ensure!(left.is_empty(), "left behind: {left:?}");
    println!("\nload at the end: {}", machine::load());
    Ok(())
}

fn row(name: &str, case: &Case, in_order: &Case, at_once: &Case) -> Vec<String> {
    let cell = |samples: &Samples| samples.median().map_or("-".to_owned(), ms);
    let done = case.done.median();
    let range = |percent| {
        case.done.percentile(percent).map_or("-".to_owned(), |time| format!("{:.0}", time.as_secs_f64() * 1e3))
    };
    vec![
        name.to_owned(),
        cell(&case.ready),
        cell(&case.first),
        cell(&case.last),
        cell(&case.done),
        format!("{}-{}", range(0), range(100)),
        done.map_or("-".to_owned(), |done| format!("{:.0}", AGENTS as f64 / done.as_secs_f64())),
        ratio(done, in_order.done.median()),
        ratio(done, at_once.done.median()),
    ]
}

fn hive(dir: &Path, ear: &Ear, swarms: usize, case: &mut Case) -> anyhow::Result<()> {
    fs::create_dir(dir)?;
    let env = ear.env("hive");
    let documents = (1..=swarms).map(|n| Hive::swarm(&format!("swarm-{n}"), "agent", Some(AGENTS / swarms), &env));
    let mut hive = Hive::start(dir, &documents.collect::<anyhow::Result<String>>()?)?;
    let signs = ear.hear_all("hive", AGENTS, START_WAIT)?;
    let running = hive.until_running(AGENTS, START_WAIT)?;
    note(case, hive.began, &signs)?;
    case.ready.add(hive.ready - hive.began);
    case.done.add(running - hive.began);
    hive.stop()
}

/// Agents of our own, which end when we let go of them.
struct Brood(Vec<Child>);

impl Drop for Brood {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
        }
        for child in &mut self.0 {
            let _ = child.wait();
        }
    }
}

fn bare(ear: &Ear, case: &mut Case, in_order: bool) -> anyhow::Result<()> {
    let mut command = ear.command("bare")?;
    let mut brood = Brood(Vec::with_capacity(AGENTS));
    let mut signs = Vec::with_capacity(AGENTS);
    let began = clock::now();
    for _ in 0..AGENTS {
        brood.0.push(command.spawn().context("cannot start an agent")?);
        if in_order {
            signs.extend(ear.hear_all("bare", 1, START_WAIT)?);
        }
    }
    signs.extend(ear.hear_all("bare", AGENTS - signs.len(), START_WAIT)?);
    note(case, began, &signs)?;
    let last = signs.iter().map(|sign| sign.at).max().context("no signs")?;
    case.done.add(last - began);
    Ok(())
}

fn note(case: &mut Case, began: Duration, signs: &[Sign]) -> anyhow::Result<()> {
    let times = || signs.iter().map(|sign| sign.at);
    case.first.add(times().min().context("no signs")?.saturating_sub(began));
    case.last.add(times().max().context("no signs")?.saturating_sub(began));
    Ok(())
}
