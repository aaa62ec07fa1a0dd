//! What the docker runtime costs beside the engine alone.
//!
//! Everybody runs the same agent: this executable, whose first act is to read CLOCK_MONOTONIC, which is one clock inside containers and outside, and
//! whose second is to send that time to us through a socket in a mounted directory. That reading is the first sign of life, for all alike.
//! - `bare` is bollard by hand: create and start an exec of the agent, attached, and nothing else. It uses the very container that the runtime made,
//!   so that settings, limits and init are the same. It holds no turn and keeps no books.
//! - `runtime` is our docker runtime within this process: a launcher for each agent, and the proof of its end.
//! - `daemon` is the whole program, commanded over HTTP: journal, supervision and health on top. Its restarts are due at once and the window never
//!   runs out; everything else is the default.
//!
//! Lanes alternate within each round and begin with another one each time, so that a slow engine hits all alike. Parts:
//! - `launch`: from the command to the sign. For the daemon the command is `POST .../start` of a stopped agent.
//! - `restart`: from just before kill(2), SIGKILL to the agent from outside its container, to its successor's sign. The bare loop reads to the end of the
//!   exec and starts the next. `docker restart=always` is a container whose PID 1 is the agent; each has lived for 10 s, so that its delay is the least.
//! - `fifty`: 50 launches at once in one container, and over five; until the last sign. The daemon starts the agents of a swarm in order.
//! - `death`: from the process's end, as a pidfd shows it, to when the end is seen: by the end of the exec's stream, by the runtime's `Exited`, by the
//!   first frame of `/ws/hybrid-health` that shows it.
//! - `relay`: a connection of the agent to its loopback port, in a container without a network, beside the bare exec's stdin and stdout.
//! - `calls`: what single calls of the engine take, to tell where a launch spends its time.
//!
//! `cargo bench --bench docker`; some parts: `cargo bench --bench docker -- launch relay`; a quick look: `-- --rounds 3`.

mod support;

#[allow(unreachable_pub, reason = "a program is no library")]
mod docker {
    pub mod bare;
    pub mod calls;
    pub mod death;
    pub mod fifty;
    pub mod lanes;
    pub mod launch;
    pub mod relay;
    pub mod restart;
    pub mod stage;
    pub mod tasks;
}

use std::time::Duration;

use anyhow::bail;
use tokio::signal::unix::{SignalKind, signal};

use docker::{calls, death, fifty, launch, relay, restart, stage::Stage, tasks};
use support::{agent, figures, machine};

/// All parts with their usual rounds take three minutes on two idle cores.
const LIMIT: Duration = Duration::from_secs(300);

const PARTS: [&str; 6] = ["calls", "launch", "restart", "fifty", "death", "relay"];

fn main() -> anyhow::Result<()> {
    if agent::announced() {
        tasks::perform();
    }
    let (rounds, named) = figures::arguments(&PARTS)?;
    let named = if named.is_empty() { PARTS.to_vec() } else { named };
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio.block_on(async {
        let Some(stage) = Stage::open().await? else { return Ok(()) };
        println!("machine: {}", machine::describe(stage.dir()));
        let (mut ctrl_c, mut term) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let ran = tokio::select! {
            ran = tokio::time::timeout(LIMIT, run(&stage, &named, rounds)) => match ran {
                Ok(ran) => ran,
                Err(_) => bail!("not done within {LIMIT:?}"),
            },
            _ = ctrl_c.recv() => bail!("interrupted"),
            _ = term.recv() => bail!("terminated"),
        };
        let left = stage.close().await;
        ran?;
        left?;
        println!("\nload at the end: {}", machine::load());
        Ok(())
    })
}

async fn run(stage: &Stage, named: &[&str], rounds: Option<usize>) -> anyhow::Result<()> {
    for part in PARTS.into_iter().filter(|part| named.contains(part)) {
        match part {
            "calls" => calls::run(stage, rounds).await?,
            "launch" => launch::run(stage, rounds).await?,
            "restart" => restart::run(stage, rounds).await?,
            "fifty" => fifty::run(stage, rounds).await?,
            "death" => death::run(stage, rounds).await?,
            _ => relay::run(stage, rounds).await?,
        }
    }
    Ok(())
}
