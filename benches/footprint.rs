//! What the daemon and its launchers hold in memory.
//!
//! Three states of the same executable with its default configuration: no swarm at all; 200 agents once every one is `running` and three readings
//! of each have come; the same a minute later, which shows whether it grows. The agents are this executable, asleep. Read from `smaps_rollup`:
//! RSS counts shared pages in full, PSS divides them by their users (so it alone may be summed), private is what would be free again if that
//! process ended. Goal of the issue: a launcher has at most 2 MiB private.
//!
//! `cargo bench --bench footprint`.

mod support;

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, ensure};

use support::{
    agent::{self, Ear},
    figures::{self, kib, median_of, table, verdict},
    hive::Hive,
    machine,
    processes::{self, Memory},
};

/// The number.
const AGENTS: usize = 200;
/// How long the start of all may take.
const START_WAIT: Duration = Duration::from_secs(120);
/// After the start of an empty daemon: whatever it does at boot is done.
const IDLE_FOR: Duration = Duration::from_secs(3);
/// Three readings at the default `sample_interval` of 5 s, and a little.
const SETTLE_FOR: Duration = Duration::from_secs(17);
/// Time to grow.
const LATER: Duration = Duration::from_secs(60);
/// The goal for a launcher.
const LAUNCHER_PRIVATE_MAX: u64 = 2 * 1024 * 1024;

fn main() -> anyhow::Result<()> {
    agent::be_one_if_asked();
    figures::rounds(1)?;
    let scratch = figures::scratch()?;
    println!("machine: {}", machine::describe(scratch.path()));
    let ear = Ear::open(scratch.path())?;
    let idle = idle(&scratch.path().join("idle"))?;
    let (full, launchers, later) = full(&scratch.path().join("full"), &ear)?;
    report(&idle, &full, &launchers, &later)?;
    let left = ear.carriers();
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(())
}

/// A daemon, looked at.
struct Daemon {
    memory: Memory,
    threads: usize,
}

impl Daemon {
    fn of(hive: &Hive) -> anyhow::Result<Self> {
        Ok(Self { memory: Memory::of(hive.pid()?)?, threads: processes::threads(hive.pid()?) })
    }
}

fn idle(dir: &Path) -> anyhow::Result<Daemon> {
    fs::create_dir(dir)?;
    let mut hive = Hive::start(dir, "")?;
    std::thread::sleep(IDLE_FOR);
    let daemon = Daemon::of(&hive)?;
    hive.stop()?;
    Ok(daemon)
}

fn full(dir: &Path, ear: &Ear) -> anyhow::Result<(Daemon, Vec<Memory>, Daemon)> {
    fs::create_dir(dir)?;
    let mut hive = Hive::start(dir, &Hive::swarm("bench", "agent", Some(AGENTS), &ear.env("agent"))?)?;
    ear.hear_all("agent", AGENTS, START_WAIT)?;
    hive.until_running(AGENTS, START_WAIT)?;
    std::thread::sleep(SETTLE_FOR);
    let daemon = Daemon::of(&hive)?;
    let launchers = hive.launchers()?;
    // One more is started ahead of the next launch.
    ensure!(launchers.len() == AGENTS + 1, "{} launchers for {AGENTS} agents and a spare", launchers.len());
    let launchers = launchers.into_iter().map(Memory::of).collect::<anyhow::Result<_>>()?;
    std::thread::sleep(LATER);
    let later = Daemon::of(&hive)?;
    hive.stop()?;
    Ok((daemon, launchers, later))
}

fn report(idle: &Daemon, full: &Daemon, launchers: &[Memory], later: &Daemon) -> anyhow::Result<()> {
    let row = |name: &str, memory: Memory, threads: String| {
        vec![name.to_owned(), kib(memory.private), kib(memory.pss), kib(memory.rss), threads]
    };
    let of = |pick: fn(&Memory) -> u64| launchers.iter().map(pick).collect::<Vec<_>>();
    let median = |pick| median_of(of(pick)).context("no launchers");
    let most = |pick| of(pick).into_iter().max().context("no launchers");
    let private_most = most(|memory| memory.private)?;
    let sum = |pick: fn(&Memory) -> u64| launchers.iter().chain([&full.memory]).map(pick).sum::<u64>();
    let rows = [
        row("daemon, no swarm", idle.memory, idle.threads.to_string()),
        row(&format!("daemon, {AGENTS} agents"), full.memory, full.threads.to_string()),
        row("the same, a minute later", later.memory, later.threads.to_string()),
        row(
            "launcher, median",
            Memory { rss: median(|m| m.rss)?, pss: median(|m| m.pss)?, private: median(|m| m.private)? },
            "1".to_owned(),
        ),
        row(
            "launcher, largest",
            Memory { rss: most(|m| m.rss)?, pss: most(|m| m.pss)?, private: private_most },
            "1".to_owned(),
        ),
        vec!["daemon + launchers".to_owned(), kib(sum(|m| m.private)), kib(sum(|m| m.pss)), "-".to_owned()],
    ];
    table("resident memory, KiB", &["process", "private", "PSS", "RSS", "threads"], &rows);
    let more = full.memory.rss.saturating_sub(idle.memory.rss) / AGENTS as u64;
    println!("daemon's RSS for each further agent: {} KiB", kib(more));
    println!("goal: at most 2048 KiB private for a launcher: {}", verdict(private_most <= LAUNCHER_PRIVATE_MAX));
    Ok(())
}
