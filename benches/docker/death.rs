//! From the end of an agent's process to when it is seen.

use std::time::Duration;

use anyhow::{Context, bail};

use super::{
    lanes::Lanes,
    stage::{PATIENCE, Stage},
};
use crate::support::{clock, hive::Hive, processes, viewer::Viewer};

const ROUNDS: usize = 100;
/// The issue's.
const LIMIT: Duration = Duration::from_millis(10);
/// Between a sign of life and the kill.
const REST: Duration = Duration::from_millis(50);

const BARE: usize = 0;
const RUNTIME: usize = 1;
const DAEMON: usize = 2;

pub async fn run(stage: &Stage, rounds: Option<usize>) -> anyhow::Result<()> {
    let swarm = stage.declare("death").await?;
    let mut daemon = stage.daemon("death", &[("dying", 1)]).await?;
    stage.sign("dying", Duration::ZERO).await?;
    daemon.until_state("dying", "running", 1, PATIENCE)?;
    let mut viewer = Viewer::connect(daemon.address())?;
    let mut lanes = Lanes::new(["bare", "runtime", "daemon"]);
    for round in 0..rounds.unwrap_or(ROUNDS) {
        for lane in Lanes::<3>::order(round) {
            let began = clock::now();
            let late = match lane {
                BARE => {
                    let running = swarm.bare("bare", None).await?;
                    stage.sign("bare", began).await?;
                    let end = kill(stage, "bare").await?;
                    // It is waited for here, side by side with the thread that sees the process gone.
                    let seen = running.ended().await?;
                    seen.saturating_sub(end.join()?)
                }
                RUNTIME => {
                    let ours = swarm.launch("ours", &[]).await?;
                    stage.sign("ours", began).await?;
                    let end = kill(stage, "ours").await?;
                    let seen = ours.ended().await?;
                    seen.saturating_sub(end.join()?)
                }
                DAEMON => {
                    daemon.until_state("dying", "running", 1, PATIENCE)?;
                    let incarnation = incarnation(&daemon)?;
                    // What was sent until now is old.
                    viewer.rest(REST)?;
                    let end = kill(stage, "dying").await?;
                    let seen = exit_of(&mut viewer, incarnation)?;
                    let gone = end.join()?;
                    stage.sign("dying", gone).await?;
                    seen.saturating_sub(gone)
                }
                _ => continue,
            };
            lanes.add(lane, late);
        }
    }
    lanes.table("death: the process gone (pidfd) to its end seen, ms");
    lanes.within(LIMIT, &[RUNTIME, DAEMON]);
    drop(viewer);
    daemon.stop()
}

async fn kill(stage: &Stage, name: &str) -> anyhow::Result<processes::Watch> {
    tokio::time::sleep(REST).await;
    let pid = stage.pid(name).await?;
    let watch = processes::Watch::on(pid)?;
    processes::signal(pid, libc::SIGKILL);
    Ok(watch)
}

fn incarnation(daemon: &Hive) -> anyhow::Result<u64> {
    let health = daemon.health()?;
    let agents = health["agents"].as_array().context("no agents in the health document")?;
    let agent = agents.iter().find(|agent| agent["swarm"] == "dying").context("no such agent")?;
    agent["incarnation"].as_u64().context("an agent without an incarnation")
}

/// When the viewer had the first frame that shows the end of an incarnation.
fn exit_of(viewer: &mut Viewer, incarnation: u64) -> anyhow::Result<Duration> {
    let deadline = clock::now() + PATIENCE;
    loop {
        let left = deadline.saturating_sub(clock::now());
        let Some(frame) = viewer.next(left)? else { bail!("the viewer saw no exit within {PATIENCE:?}") };
        let Some(agent) = frame.agent("dying", "agent-1") else { continue };
        if agent["last_exit"]["incarnation"].as_u64() == Some(incarnation) {
            return Ok(frame.at);
        }
    }
}
