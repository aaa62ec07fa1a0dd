//! From a command to an agent's first sign of life.

use std::time::Duration;

use super::{
    lanes::Lanes,
    stage::{PATIENCE, Stage},
};
use crate::support::{clock, processes};

const ROUNDS: usize = 100;
/// The issue's.
const LIMIT: f64 = 1.25;

const BARE: usize = 0;
const RUNTIME: usize = 1;
const DAEMON: usize = 2;

pub async fn run(stage: &Stage, rounds: Option<usize>) -> anyhow::Result<()> {
    let swarm = stage.declare("launch").await?;
    let mut daemon = stage.daemon("launch", &[("launched", 1)]).await?;
    stage.sign("launched", Duration::ZERO).await?;
    stop(&daemon)?;
    let mut lanes = Lanes::new(["bare", "runtime", "daemon"]);
    for round in 0..rounds.unwrap_or(ROUNDS) {
        for lane in Lanes::<3>::order(round) {
            let began = clock::now();
            let sign = match lane {
                BARE => {
                    let running = swarm.bare("bare", None).await?;
                    let sign = stage.sign("bare", began).await?;
                    processes::signal(stage.pid("bare").await?, libc::SIGKILL);
                    running.ended().await?;
                    sign
                }
                RUNTIME => {
                    let ours = swarm.launch("ours", &[]).await?;
                    let sign = stage.sign("ours", began).await?;
                    ours.end().await?;
                    sign
                }
                DAEMON => {
                    daemon.command("swarms/launched/agents/agent-1/start")?;
                    let sign = stage.sign("launched", began).await?;
                    daemon.until_state("launched", "running", 1, PATIENCE)?;
                    stop(&daemon)?;
                    sign
                }
                _ => continue,
            };
            lanes.add(lane, sign.at - began);
        }
    }
    lanes.table("launch: command to the first sign of life, ms");
    lanes.at_most(LIMIT, &[RUNTIME, DAEMON]);
    daemon.stop()
}

fn stop(daemon: &crate::support::hive::Hive) -> anyhow::Result<()> {
    daemon.command("swarms/launched/agents/agent-1/stop")?;
    daemon.until_state("launched", "stopped", 1, PATIENCE)
}
