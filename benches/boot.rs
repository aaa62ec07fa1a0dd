//! How long a daemon takes from its spawn to `/readyz` with a thousand agents in the journal.
//!
//! - `all stopped`: a thousand agents that an operator has stopped: journal, plan and documents alone.
//! - `all run`: the same agents live under their launchers, after `kill -9` of the last daemon; each is taken over, none is started.
//!
//! `cargo bench --bench boot`; a quick look: `cargo bench --bench boot -- --rounds 1`.

mod support;

use std::time::Duration;

use anyhow::{Context, ensure};

use support::{
    figures::{self, Samples, table},
    hive::Hive,
    machine,
};

/// The number, in swarms that are started side by side.
const SWARMS: usize = 20;
const AGENTS: usize = 50;
const ROUNDS: usize = 10;
/// How long the first start of all may take.
const START_WAIT: Duration = Duration::from_secs(180);

fn main() -> anyhow::Result<()> {
    let rounds = figures::rounds(ROUNDS)?;
    let scratch = figures::scratch()?;
    println!("machine: {}", machine::describe(scratch.path()));
    let swarms: Vec<String> = (0..SWARMS).map(swarm).collect();
    let mut hive = Hive::start(scratch.path(), &swarms.concat())?;
    hive.until_running(SWARMS * AGENTS, START_WAIT)?;
    let (mut running, mut stopped) = (Samples::default(), Samples::default());
    for _ in 0..rounds {
        hive.crash()?;
        hive.start_again().context("with agents that live")?;
        running.add(hive.ready.saturating_sub(hive.began));
        hive.until_running(SWARMS * AGENTS, START_WAIT)?;
    }
    for number in 0..SWARMS {
        hive.command(&format!("swarms/s{number}/stop"))?;
    }
    hive.until_running(0, START_WAIT)?;
    for _ in 0..rounds {
        hive.stop()?;
        hive.start_again().context("with agents that are stopped")?;
        stopped.add(hive.ready.saturating_sub(hive.began));
        ensure!(hive.running()? == 0, "a stopped agent runs");
    }
    hive.stop()?;
    let row = |name: &str, samples: &Samples| [vec![name.to_owned()], samples.cells()].concat();
    let rows = [row("all stopped", &stopped), row("all run", &running)];
    let title = format!("spawn to /readyz with {} agents in the journal, ms, {rounds} rounds", SWARMS * AGENTS);
    table(&title, &["case", "rounds", "min", "median", "p99", "max"], &rows);
    println!("\nload at the end: {}", machine::load());
    Ok(())
}

fn swarm(number: usize) -> String {
    format!(
        "[[swarm]]\nname = \"s{number}\"\n[[swarm.agent]]\nname = \"a\"\nreplicas = {AGENTS}\ncommand = [\"sleep\", \"100000\"]\nstop_grace = \"1s\"\n"
    )
}
