//! One change told to a thousand viewers, and how long an agent's line takes to a viewer under load.
//!
//! - `rate`: frames a second to 1,000 viewers on loopback, all read by one thread of this process. `hivekeeper` is the room of the daemon's
//!   viewers behind an HTTP server as the daemon's; `actix-ws` a bare broadcast loop: the same HTTP server, one loop that hands the same text
//!   to each session in turn. `one` publishes the next message once all viewers have the one before, `many` once they are 32 behind at most,
//!   which is what an actix-ws session holds. Shown is the median of the rounds, which take turns; CPU is this process's without the readers'.
//! - `latency`: the real daemon takes 50,000 `hive/log` messages a second from 10 connections, payload about 150 bytes. Meanwhile agents that were
//!   `stuck` send a heartbeat with new progress; from the write of that line until a viewer has the frame that shows them `running`.
//! - `memory`: the real daemon's resident memory before and with 1,000 viewers that have read their greeting and a minute's frames, for each.
//!
//! `cargo bench --bench fanout`; a quick look: `cargo bench --bench fanout -- --rounds 1 rate`.

#[path = "../tests/it/harness/crowd.rs"]
mod crowd;
mod support;

#[path = "fanout/latency.rs"]
mod latency;
#[path = "fanout/memory.rs"]
mod memory;
#[path = "fanout/rate.rs"]
mod rate;
#[path = "fanout/readers.rs"]
mod readers;

use support::{figures, machine};

/// A round takes seconds.
const ROUNDS: usize = 5;

fn main() -> anyhow::Result<()> {
    let (rounds, named) = figures::arguments(&["rate", "latency", "memory"])?;
    let wanted = |part: &str| named.is_empty() || named.contains(&part);
    let scratch = figures::scratch()?;
    println!("machine: {}", machine::describe(scratch.path()));
    if wanted("rate") {
        rate::run(rounds.unwrap_or(ROUNDS))?;
    }
    if wanted("latency") {
        latency::run(scratch.path(), rounds.unwrap_or(ROUNDS))?;
    }
    if wanted("memory") {
        memory::run(scratch.path())?;
    }
    Ok(())
}
