//! Fifty launches at once.

use std::time::Duration;

use futures_util::future::try_join_all;

use super::{
    lanes::Lanes,
    stage::{PATIENCE, Stage, Swarm},
};
use crate::support::{clock, hive::Hive, processes};

/// A round of both shapes takes about 20 s.
const ROUNDS: usize = 3;
/// The issue's.
const AGENTS: usize = 50;
const CONTAINERS: usize = 5;
const LIMIT: f64 = 1.1;

const BARE: usize = 0;
const RUNTIME: usize = 1;
const DAEMON: usize = 2;

pub async fn run(stage: &Stage, rounds: Option<usize>) -> anyhow::Result<()> {
    let rounds = rounds.unwrap_or(ROUNDS);
    shape(stage, rounds, "one", 1).await?;
    shape(stage, rounds, "five", CONTAINERS).await
}

async fn shape(stage: &Stage, rounds: usize, shape: &str, containers: usize) -> anyhow::Result<()> {
    let mut swarms = Vec::with_capacity(containers);
    for n in 0..containers {
        swarms.push(stage.declare(&format!("{shape}-{n}")).await?);
    }
    let each = AGENTS / containers;
    let names: Vec<String> = (0..containers).map(|n| format!("{shape}-in-{n}")).collect();
    let parts: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), each)).collect();
    let began = clock::now();
    let mut daemon = stage.daemon(shape, &parts).await?;
    last(stage, &parts, began).await?;
    stop(&daemon, &parts)?;
    let mut lanes = Lanes::new(["bare", "runtime", "daemon"]);
    for round in 0..rounds {
        for lane in Lanes::<3>::order(round) {
            let took = match lane {
                BARE => bare(stage, &swarms).await?,
                RUNTIME => ours(stage, &swarms).await?,
                DAEMON => {
                    let began = clock::now();
                    for (swarm, _) in &parts {
                        daemon.command(&format!("swarms/{swarm}/start"))?;
                    }
                    let took = last(stage, &parts, began).await?;
                    stop(&daemon, &parts)?;
                    took
                }
                _ => continue,
            };
            lanes.add(lane, took);
        }
    }
    let title = match containers {
        1 => format!("fifty: {AGENTS} agents in one container, to the last sign of life, ms"),
        _ => format!("fifty: {AGENTS} agents over {containers} containers, to the last sign of life, ms"),
    };
    lanes.table(&title);
    lanes.at_most(LIMIT, &[RUNTIME, DAEMON]);
    daemon.stop()
}

/// Waits for every sign; each name's come from as many agents.
async fn last(stage: &Stage, parts: &[(&str, usize)], began: Duration) -> anyhow::Result<Duration> {
    let names: Vec<&str> = parts.iter().map(|(name, _)| *name).collect();
    let count = parts.iter().map(|(_, count)| count).sum();
    let signs = stage.signs(&names, count, began).await?;
    Ok(signs.into_iter().map(|sign| sign.at).max().unwrap_or(began) - began)
}

fn stop(daemon: &Hive, parts: &[(&str, usize)]) -> anyhow::Result<()> {
    for (swarm, count) in parts {
        daemon.until_state(swarm, "running", *count, PATIENCE)?;
    }
    for (swarm, _) in parts {
        daemon.command(&format!("swarms/{swarm}/stop"))?;
    }
    parts.iter().try_for_each(|(swarm, count)| daemon.until_state(swarm, "stopped", *count, PATIENCE))
}

async fn bare(stage: &Stage, swarms: &[Swarm<'_>]) -> anyhow::Result<Duration> {
    let began = clock::now();
    let started = try_join_all((0..AGENTS).map(|n| swarms[n % swarms.len()].bare("bare", None)));
    let (running, took) = tokio::try_join!(started, last(stage, &[("bare", AGENTS)], began))?;
    for pid in stage.pids("bare") {
        processes::signal(pid, libc::SIGKILL);
    }
    try_join_all(running.into_iter().map(super::bare::Running::ended)).await?;
    Ok(took)
}

async fn ours(stage: &Stage, swarms: &[Swarm<'_>]) -> anyhow::Result<Duration> {
    let began = clock::now();
    let started = try_join_all((0..AGENTS).map(|n| swarms[n % swarms.len()].launch("ours", &[])));
    let (running, took) = tokio::try_join!(started, last(stage, &[("ours", AGENTS)], began))?;
    try_join_all(running.into_iter().map(super::stage::Ours::end)).await?;
    Ok(took)
}
