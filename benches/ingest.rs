//! How many notifications a second are folded, beside the barest loop that could read them, and beside other programs that take the same.
//!
//! One sender, a thread of this process, writes lines of 150 bytes in blocks of 64 KiB to one connection or in turn to a hundred, all TCP on
//! loopback. It shares the cores with whoever takes them. Measured is from its first write until everything is done with.
//! - `floor`: one thread, a current-thread tokio runtime, `tokio_util`'s `LinesCodec`, and serde_json into an envelope with `RawValue` parameters
//!   that nobody looks at. It is done when it has counted all.
//! - `hivekeeper`: the daemon's own listener, sink, log books and health actor, supervised, in this process: each line is bounded, checked,
//!   authenticated, rated, typed, folded into its agent's health, and a log record is written to its agent's book. It is done when the last word of each
//!   agent has come out of the health actor. The rates of a connection and of all are out of the way. `kept` is the share of log records that the
//!   book took: beyond what the disk's thread writes the oldest go, counted.
//!
//! The log lines go to others, too, from the same sender in blocks of the same messages. They are processes of their own.
//! - `rmcp`: the official MCP SDK (`benches/peers`) takes the same lines, byte for byte, as custom notifications, after its handshake. Its handler
//!   counts them and does nothing else. It is done when its handler has had all and has answered each connection's last request.
//! - `redis`: Redis 7 with `--save "" --appendonly no`, so nothing goes to the disk. Each message is the one field of an entry that `XADD` appends to
//!   its connection's stream, pipelined, while a thread of this process reads the replies. It is done when the last has come.
//! - `nats`: nats-server without JetStream, `PUB` of each message. Without a subscriber the server parses the command and lets the message go; it is done
//!   when it has answered a PING behind the last message on each connection. With one subscriber, a thread of this process, it is done when that has
//!   counted all, too.
//!
//! The slower ones get fewer messages, a second's worth at least. Rounds are interleaved and begin with another one each time. `hivekeeper/peer` is
//! what ours takes to what the peer takes; `kept/peer` counts of ours only what its log books kept.
//!
//! `cargo bench --bench ingest`; a part: `... -- peers --rounds 3`, or `log`, `heartbeat`, `metric`. A program that is not installed is left out, and
//! what installs it is said.

mod support;

#[path = "ingest/floor.rs"]
mod floor;
#[path = "ingest/lane.rs"]
mod lane;
#[path = "ingest/load.rs"]
mod load;
#[path = "ingest/nats.rs"]
mod nats;
#[path = "ingest/ours.rs"]
mod ours;
#[path = "ingest/redis.rs"]
mod redis;
#[path = "ingest/rmcp.rs"]
mod rmcp;

use std::path::Path;

use anyhow::Context;

use floor::Floor;
use lane::{Lane, Pass};
use load::{KINDS, Load};
use nats::Nats;
use ours::Ours;
use redis::Redis;
use rmcp::Rmcp;
use support::{
    figures::{self, median_of, table, verdict},
    machine, server,
};

/// Odd, so that a median is one of them, and enough for one of a machine that others use.
const ROUNDS: usize = 7;
/// What the issue asks for.
const GOAL: f64 = 0.6;

/// What the issue asks for, of ours to the peer's.
const RMCP_GOAL: f64 = 5.0;
const REDIS_GOAL: f64 = 1.0;
/// One thread is its best with one connection, two with many.
const RMCP_THREADS: [u16; 2] = [1, 2];

/// Connections that share the messages.
const CROWDS: [usize; 2] = [1, 100];

/// The part of a run that is the same log lines beside other programs.
const PEERS: &str = "peers";
/// The kind of message that they get: the one that ours keeps.
const PEERS_KIND: &str = "log";

/// A program beside ours.
struct Peer {
    lane: Box<dyn Lane>,
    /// How many times as much ours is to take.
    goal: Option<f64>,
}

fn main() -> anyhow::Result<()> {
    let [log, heartbeat, metric] = KINDS;
    let (rounds, named) = figures::arguments(&[log, heartbeat, metric, PEERS])?;
    let rounds = rounds.unwrap_or(ROUNDS);
    let wanted = |part: &str| named.is_empty() || named.contains(&part);
    let scratch = figures::scratch()?;
    println!("machine: {}", machine::describe(scratch.path()));
    let (mut peers, absent) = if wanted(PEERS) { line_up(scratch.path())? } else { Default::default() };
    let (mut rows, mut beside) = (Vec::new(), Vec::new());
    let mut met = true;
    for connections in CROWDS {
        let dir = scratch.path().join(connections.to_string());
        std::fs::create_dir(&dir)?;
        let mut ours = Ours::start(&dir, connections)?;
        for kind in KINDS {
            let joined = kind == PEERS_KIND && wanted(PEERS);
            if !wanted(kind) && !joined {
                continue;
            }
            let mut floor = Floor;
            let mut lanes: Vec<&mut dyn Lane> = vec![&mut ours, &mut floor];
            if joined {
                for peer in &mut peers {
                    lanes.push(&mut *peer.lane);
                }
            }
            let passes = race(&mut lanes, &Load::of(kind)?, connections, rounds)?;
            let rates = passes.iter().map(|passes| median_of(passes.iter().map(|pass| pass.rate).collect()));
            let rates: Vec<f64> = rates.collect::<Option<_>>().context("no round")?;
            let (ours, floor) = (rates[0], rates[1]);
            let kept = median_of(passes[0].iter().filter_map(|pass| pass.kept).collect()).filter(|_| kind == "log");
            met &= ours / floor >= GOAL;
            rows.push(vec![
                format!("{kind}, {}", counted(connections)),
                thousands(ours),
                thousands(floor),
                format!("{:.2}", ours / floor),
                kept.map_or("-".to_owned(), |share| format!("{share:.2}")),
            ]);
            for (peer, rate) in peers.iter().zip(&rates[2..]) {
                beside.push(vec![
                    format!("{}, {}", peer.lane.name(), counted(connections)),
                    thousands(*rate),
                    format!("{:.1}", ours / rate),
                    kept.map_or("-".to_owned(), |share| format!("{:.1}", ours * share / rate)),
                    peer.goal.map_or("-".to_owned(), |goal| format!("{goal}: {}", verdict(ours / rate >= goal))),
                ]);
            }
        }
    }
    let head = ["notifications of 150 bytes", "hivekeeper", "floor", "/floor", "kept"];
    table(&format!("folded a second, thousands, median of {rounds}"), &head, &rows);
    println!("goal: at least {GOAL} of the floor in each row: {}", verdict(met));
    if !beside.is_empty() {
        let head = ["the same log lines", "taken", "hivekeeper/peer", "kept/peer", "goal"];
        table(&format!("taken a second, thousands, median of {rounds}"), &head, &beside);
    }
    for (name, why) in absent {
        println!("NOT MEASURED: {name}: {why}");
    }
    println!("\nload at the end: {}", machine::load());
    Ok(())
}

/// Who is left out, and why.
type Absent = Vec<(&'static str, String)>;

/// Starts everybody who is here.
fn line_up(scratch: &Path) -> anyhow::Result<(Vec<Peer>, Absent)> {
    let (mut peers, mut absent): (Vec<Peer>, Absent) = (Vec::new(), Vec::new());
    let mut join = |lane: Box<dyn Lane>, goal| peers.push(Peer { lane, goal });
    match rmcp::build() {
        Ok(program) => {
            for threads in RMCP_THREADS {
                join(Box::new(Rmcp::start(&program, scratch, threads)?), Some(RMCP_GOAL));
            }
            println!("peer: {}", rmcp::version());
        }
        Err(error) => absent.push(("rmcp", format!("{error:#}"))),
    }
    match Redis::start(scratch)? {
        Some(redis) => {
            join(Box::new(redis), Some(REDIS_GOAL));
            println!("peer: {}", server::version(redis::PROGRAM));
        }
        None => absent.push(("redis", format!("not installed; {}", redis::INSTALL))),
    }
    match (Nats::start(scratch, false)?, Nats::start(scratch, true)?) {
        (Some(unheard), Some(heard)) => {
            join(Box::new(unheard), None);
            join(Box::new(heard), None);
            println!("peer: {}", server::version(nats::PROGRAM));
        }
        _ => absent.push(("nats", format!("not installed; {}", nats::INSTALL))),
    }
    Ok((peers, absent))
}

/// Everybody takes the load once in each round, in turn and beginning with another one each time.
fn race(lanes: &mut [&mut dyn Lane], load: &Load, connections: usize, rounds: usize) -> anyhow::Result<Vec<Vec<Pass>>> {
    let mut passes: Vec<Vec<Pass>> = lanes.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        for turn in 0..lanes.len() {
            let at = (round + turn) % lanes.len();
            let lane = &mut lanes[at];
            let pass = lane.run(load, connections).with_context(|| lane.name())?;
            passes[at].push(pass);
        }
    }
    Ok(passes)
}

fn counted(connections: usize) -> String {
    format!("{connections} connection{}", if connections == 1 { "" } else { "s" })
}

fn thousands(rate: f64) -> String {
    format!("{:.0}", rate / 1000.0)
}
