//! What single calls of the engine take.

use std::{collections::HashMap, time::Duration};

use bollard::query_parameters::{InspectContainerOptions, ListContainersOptionsBuilder};
use hivekeeper::runtime::docker::engine::LAUNCHER_PATH;
use tokio::io::AsyncWriteExt;

use super::{
    bare,
    stage::{AGENT, IMAGE, Stage},
};
use crate::support::{
    clock,
    figures::{Samples, table},
    processes,
};

const ROUNDS: usize = 40;

const NAMES: [&str; 8] = [
    "connect and ping",
    "list containers by a label",
    "look at an image",
    "look at a container",
    "create an exec",
    "create and start an exec, to the engine's answer",
    "... to the agent's sign",
    "... of a launcher, to its first byte",
];

pub async fn run(stage: &Stage, rounds: Option<usize>) -> anyhow::Result<()> {
    let swarm = stage.declare("calls").await?;
    let docker = &stage.docker;
    let id = swarm.container.as_str();
    let mut took = NAMES.map(|_| Samples::default());
    for _ in 0..rounds.unwrap_or(ROUNDS) {
        let mut began = clock::now();
        let mut lap = |at: usize, began: &mut Duration| {
            took[at].add(clock::now() - *began);
            *began = clock::now();
        };
        docker.ping().await?;
        lap(0, &mut began);
        let filters: HashMap<&str, Vec<String>> =
            stage.labels().into_iter().map(|(key, value)| ("label", vec![format!("{key}={value}")])).collect();
        docker
            .list_containers(Some(ListContainersOptionsBuilder::default().all(true).filters(&filters).build()))
            .await?;
        lap(1, &mut began);
        docker.inspect_image(IMAGE).await?;
        lap(2, &mut began);
        docker.inspect_container(id, None::<InspectContainerOptions>).await?;
        lap(3, &mut began);
        bare::create(docker, id, &[AGENT], &stage.env("never")).await?;
        lap(4, &mut began);

        let running = bare::exec(docker, id, &[AGENT], &stage.env("bare")).await?;
        let answered = clock::now();
        let sign = stage.sign("bare", began).await?;
        took[5].add(answered - began);
        took[6].add(sign.at - began);
        processes::signal(stage.pid("bare").await?, libc::SIGKILL);
        running.ended().await?;

        let began = clock::now();
        let mut launcher =
            bare::exec(docker, id, &[LAUNCHER_PATH, "agent", "--stdio"], &HashMap::new().into_iter().collect()).await?;
        launcher.next().await?;
        took[7].add(clock::now() - began);
        // Without an order it ends with its stdin.
        launcher.input.shutdown().await?;
        launcher.ended().await?;
    }
    let rows: Vec<Vec<String>> =
        NAMES.iter().zip(&took).map(|(name, took)| [vec![(*name).to_owned()], took.cells()].concat()).collect();
    table("calls: the engine's answers, ms", &["call", "n", "min", "median", "p99", "max"], &rows);
    Ok(())
}
