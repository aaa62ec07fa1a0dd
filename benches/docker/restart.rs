//! From the kill of an agent to its successor's first sign of life.

use std::{collections::HashMap, time::Duration};

use anyhow::Context;
use bollard::{
    Docker,
    models::{ContainerCreateBody, HostConfig, Mount, MountType, RestartPolicy, RestartPolicyNameEnum},
    query_parameters::{CreateContainerOptions, StartContainerOptions},
};

use super::{
    lanes::Lanes,
    stage::{AGENT, IMAGE, INSIDE, Stage},
};
use crate::support::{agent::Sign, clock, processes};

const ROUNDS: usize = 100;
/// The issue's.
const LIMIT: f64 = 1.25;
/// Between the end of a lane's turn and the next: what the engine does behind an end is done then.
const REST: Duration = Duration::from_millis(100);
/// docker doubles its delay of 100 ms for a container that has lived for less than 10 s (moby, restartmanager).
const DOCKER_LIFE: Duration = Duration::from_millis(10_300);
/// Containers that docker restarts: each is killed once in that time.
const ALWAYS: usize = 4;

const BARE: usize = 0;
const RUNTIME: usize = 1;
const DAEMON: usize = 2;
const DOCKER: usize = 3;

pub async fn run(stage: &Stage, rounds: Option<usize>) -> anyhow::Result<()> {
    let swarm = stage.declare("restart").await?;
    let mut daemon = stage.daemon("restart", &[("restarted", 1)]).await?;
    stage.sign("restarted", Duration::ZERO).await?;
    let mut always = Vec::new();
    for n in 0..ALWAYS {
        let name = format!("always-{n}");
        let since = started(stage, &name).await?.at;
        always.push((name, since));
    }
    let mut bare = swarm.bare("bare", None).await?;
    stage.sign("bare", Duration::ZERO).await?;
    let mut ours = swarm.launch("ours", &[]).await?;
    stage.sign("ours", Duration::ZERO).await?;
    let mut lanes = Lanes::new(["bare", "runtime", "daemon", "docker restart=always"]);
    for round in 0..rounds.unwrap_or(ROUNDS) {
        for lane in Lanes::<4>::order(round) {
            tokio::time::sleep(REST).await;
            let took = match lane {
                BARE => {
                    let killed = kill(stage, "bare").await?;
                    bare.ended().await?;
                    bare = swarm.bare("bare", None).await?;
                    stage.sign("bare", killed).await?.at - killed
                }
                RUNTIME => {
                    let killed = kill(stage, "ours").await?;
                    ours.ended().await?;
                    ours = swarm.launch("ours", &[]).await?;
                    stage.sign("ours", killed).await?.at - killed
                }
                DAEMON => {
                    let killed = kill(stage, "restarted").await?;
                    stage.sign("restarted", killed).await?.at - killed
                }
                DOCKER => {
                    let old = always.iter_mut().find(|(_, since)| clock::now() > *since + DOCKER_LIFE);
                    let Some((name, since)) = old else { continue };
                    let killed = kill(stage, name).await?;
                    *since = stage.sign(name, killed).await?.at;
                    *since - killed
                }
                _ => continue,
            };
            lanes.add(lane, took);
        }
    }
    lanes.table("restart: kill -9 to the successor's first sign of life, ms");
    lanes.at_most(LIMIT, &[RUNTIME, DAEMON]);
    ours.end().await?;
    processes::signal(stage.pid("bare").await?, libc::SIGKILL);
    bare.ended().await?;
    daemon.stop()
}

/// Just before.
async fn kill(stage: &Stage, name: &str) -> anyhow::Result<Duration> {
    let pid = stage.pid(name).await?;
    let killed = clock::now();
    processes::signal(pid, libc::SIGKILL);
    Ok(killed)
}

/// `docker run --restart always` of the agent, as shut in as ours, but for the init: the agent itself is PID 1.
async fn started(stage: &Stage, name: &str) -> anyhow::Result<Sign> {
    let docker: &Docker = &stage.docker;
    let mount = Mount {
        typ: Some(MountType::BIND),
        source: Some(stage.dir().join("shared").display().to_string()),
        target: Some(INSIDE.to_owned()),
        read_only: Some(true),
        ..Default::default()
    };
    let host = HostConfig {
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::ALWAYS), maximum_retry_count: None }),
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        readonly_rootfs: Some(true),
        tmpfs: Some(HashMap::from([("/tmp".to_owned(), "rw,nosuid,nodev,noexec".to_owned())])),
        mounts: Some(vec![mount]),
        memory: Some(2 << 30),
        memory_swap: Some(2 << 30),
        nano_cpus: Some(1_500_000_000),
        pids_limit: Some(256),
        ipc_mode: Some("private".to_owned()),
        network_mode: Some("none".to_owned()),
        ..Default::default()
    };
    let body = ContainerCreateBody {
        image: Some(IMAGE.to_owned()),
        user: Some("10001:10001".to_owned()),
        entrypoint: Some(vec![AGENT.to_owned()]),
        env: Some(stage.env(name).into_iter().map(|(key, value)| format!("{key}={value}")).collect()),
        labels: Some(stage.labels()),
        host_config: Some(host),
        ..Default::default()
    };
    let made = docker.create_container(None::<CreateContainerOptions>, body).await?;
    docker.start_container(&made.id, None::<StartContainerOptions>).await?;
    stage.sign(name, Duration::ZERO).await.context("docker run --restart always")
}
