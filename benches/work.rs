//! What shared work costs: tasks claimed and completed a second beside a table of PostgreSQL and lists of Redis, locks, messages, and what more workers
//! bring.
//!
//! **queue.** So many clients, each a thread of this process with a connection of its own, claim a task and complete it, one after the other, until none
//! is left. A turn is both calls; each is answered once it is kept.
//! - `hivekeeper (TCP)`: the daemon as it is, a session of an agent for each client. Every right is a lease with a fencing token, every change is in SQLite,
//!   synced to the disk, before it is answered. `hivekeeper (desk)`: the same without a door, in this process.
//! - `postgresql`: a cluster of its own with default settings, `FOR UPDATE SKIP LOCKED`, prepared statements; as durable.
//! - `redis (everysec)`: `LMOVE` and `LREM`; what was answered in the last second may be lost. `redis (always)`: as durable as the others.
//!
//! **locks.** One client takes a lock that nobody else wants and gives it back.
//! **messages.** From the beginning of a sending until the recipient, who waits, has it.
//! **workers.** Tasks of about 20 ms done by 1, 2 and 3 workers: `hash` keeps a core busy, of which this machine has as many as the first line says; `wait`
//! waits, as agents mostly do.
//!
//! Rounds are interleaved and begin with another one each time; figures are those of the round with the median rate.
//!
//! `cargo bench --bench work`; a part: `... -- queue --rounds 1`. A program that is not installed is left out, and what installs it is said.

mod support;

#[path = "work/desk.rs"]
mod desk;
#[path = "work/lane.rs"]
mod lane;
#[path = "work/locks.rs"]
mod locks;
#[path = "work/messages.rs"]
mod messages;
#[path = "work/plane.rs"]
mod plane;
#[path = "work/postgres.rs"]
mod postgres;
#[path = "work/redis.rs"]
mod redis;
#[path = "work/workers.rs"]
mod workers;

use std::{
    path::Path,
    sync::{Arc, Barrier},
    time::Duration,
};

use anyhow::Context;

use lane::Lane;
use postgres::Postgres;
use redis::Redis;
use support::{
    clock,
    figures::{self, Samples, ms, table, verdict},
    machine, server,
};

/// Odd, so that a median is one of them.
const ROUNDS: usize = 5;
/// How many clients, and how many tasks they share: about a second's worth.
const CROWDS: [(usize, usize); 3] = [(1, 2_000), (8, 6_000), (64, 10_000)];
/// Locks taken, and messages sent, in one measurement.
const TURNS: usize = 2_000;

const QUEUE: &str = "queue";
const LOCKS: &str = "locks";
const MESSAGES: &str = "messages";
const WORKERS: &str = "workers";

fn main() -> anyhow::Result<()> {
    let (rounds, named) = figures::arguments(&[QUEUE, LOCKS, MESSAGES, WORKERS])?;
    let rounds = rounds.unwrap_or(ROUNDS);
    let wanted = |part: &str| named.is_empty() || named.contains(&part);
    let scratch = figures::scratch()?;
    println!("machine: {}", machine::describe(scratch.path()));
    let mut daemon = plane::Ours::start(scratch.path())?;
    let mut desk = desk::Ours::start(scratch.path())?;
    if wanted(QUEUE) {
        queue([&mut daemon, &mut desk], scratch.path(), rounds)?;
    }
    let head = ["", "count", "least ms", "median", "p99", "longest", "goal"];
    if wanted(LOCKS) {
        let rows = [
            locks::row(&daemon.name(), &mut daemon.session(1)?, TURNS)?,
            locks::row(&desk.name(), &mut desk.hand(1)?, TURNS)?,
        ];
        let goal = ms(locks::GOAL);
        table(&format!("a lock taken and given back, nobody else wants it (goal: p99 < {goal} ms)"), &head, &rows);
    }
    if wanted(MESSAGES) {
        let rows = [
            messages::row(&daemon.name(), &mut daemon.session(1)?, Box::new(daemon.session(2)?), "w-2", TURNS)?,
            messages::row(&desk.name(), &mut desk.hand(1)?, Box::new(desk.hand(2)?), "w-2", TURNS)?,
        ];
        let goal = ms(messages::GOAL);
        table(&format!("a message, from its sending to its receipt (goal: p99 < {goal} ms)"), &head, &rows);
    }
    if wanted(WORKERS) {
        workers::measure(&mut daemon)?;
    }
    daemon.stop()?;
    println!("\nload at the end: {}", machine::load());
    Ok(())
}

/// One measurement.
struct Pass {
    /// Tasks done, a second.
    rate: f64,
    turns: Samples,
}

fn queue(ours: [&mut dyn Lane; 2], scratch: &Path, rounds: usize) -> anyhow::Result<()> {
    let (mut peers, absent) = line_up(scratch)?;
    let [daemon, desk] = ours;
    let mut rows = Vec::new();
    for (clients, tasks) in CROWDS {
        let mut lanes: Vec<&mut dyn Lane> = vec![&mut *daemon, &mut *desk];
        for peer in &mut peers {
            lanes.push(&mut **peer);
        }
        let mut passes: Vec<Vec<Pass>> = lanes.iter().map(|_| Vec::new()).collect();
        for round in 0..rounds {
            for turn in 0..lanes.len() {
                let at = (round + turn) % lanes.len();
                let lane = &mut lanes[at];
                passes[at].push(run(&mut **lane, clients, tasks).with_context(|| lane.name())?);
            }
        }
        let mut first = None;
        for (lane, mut passes) in lanes.iter().zip(passes) {
            passes.sort_by(|a, b| a.rate.total_cmp(&b.rate));
            let pass = passes.get((passes.len() - 1) / 2).context("no round")?;
            let ours = *first.get_or_insert(pass.rate);
            let cell = |percent| pass.turns.percentile(percent).map_or_else(|| "-".to_owned(), ms);
            rows.push(vec![
                format!("{}, {clients}", lane.name()),
                format!("{:.0}", pass.rate),
                cell(50),
                cell(99),
                format!("{:.2}", ours / pass.rate),
                verdict(ours >= pass.rate).to_owned(),
            ]);
        }
    }
    let head = ["who, clients", "tasks/s", "median ms", "p99 ms", "hivekeeper/this", "at least"];
    table(&format!("tasks claimed and completed, median of {rounds}"), &head, &rows);
    for (name, why) in absent {
        println!("NOT MEASURED: {name}: not installed; {why}");
    }
    Ok(())
}

/// Who is left out, and what installs it.
type Absent = Vec<(&'static str, &'static str)>;

/// Starts everybody who is here.
fn line_up(scratch: &Path) -> anyhow::Result<(Vec<Box<dyn Lane>>, Absent)> {
    let (mut peers, mut absent): (Vec<Box<dyn Lane>>, Absent) = (Vec::new(), Vec::new());
    match Postgres::start(scratch)? {
        Some(postgres) => {
            println!("peer: {}", server::version(postgres::PROGRAM));
            peers.push(Box::new(postgres));
        }
        None => absent.push((postgres::PROGRAM, postgres::INSTALL)),
    }
    for fsync in ["everysec", "always"] {
        match Redis::start(scratch, fsync)? {
            Some(redis) => peers.push(Box::new(redis)),
            None => absent.push((redis::PROGRAM, redis::INSTALL)),
        }
    }
    println!("peer: {}", server::version(redis::PROGRAM));
    Ok((peers, absent))
}

/// All clients at once until no task is left.
fn run(lane: &mut dyn Lane, clients: usize, tasks: usize) -> anyhow::Result<Pass> {
    lane.fill(tasks)?;
    let barrier = Arc::new(Barrier::new(clients + 1));
    let threads = (1..=clients).map(|n| {
        let (mut client, barrier) = (lane.client(n)?, Arc::clone(&barrier));
        Ok(std::thread::spawn(move || -> anyhow::Result<Vec<Duration>> {
            barrier.wait();
            let mut turns = Vec::new();
            loop {
                let began = clock::now();
                if !client.turn(&|| Ok(()))? {
                    return Ok(turns);
                }
                turns.push(clock::now() - began);
            }
        }))
    });
    let threads: Vec<_> = threads.collect::<anyhow::Result<_>>()?;
    barrier.wait();
    let began = clock::now();
    let mut turns = Vec::with_capacity(tasks);
    for thread in threads {
        turns.extend(thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))??);
    }
    let took = (clock::now() - began).as_secs_f64();
    anyhow::ensure!(turns.len() == tasks, "{} of {tasks} tasks were done", turns.len());
    #[expect(clippy::cast_precision_loss, reason = "thousands")]
    let rate = tasks as f64 / took;
    Ok(Pass { rate, turns: Samples::from(turns) })
}
