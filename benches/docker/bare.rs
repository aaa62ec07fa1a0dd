//! The floor: bollard by hand.

use std::{collections::BTreeMap, pin::Pin, time::Duration};

use anyhow::{Context, bail};
use bollard::{
    Docker,
    container::LogOutput,
    errors::Error,
    exec::{CreateExecOptions, StartExecOptions, StartExecResults},
};
use futures_util::{Stream, StreamExt};
use tokio::io::AsyncWrite;

use crate::support::clock;

/// Any one step on the engine, as loaded as it may be.
const STEP_WAIT: Duration = Duration::from_secs(60);

/// An exec that was started, attached.
pub struct Running {
    pub output: Pin<Box<dyn Stream<Item = Result<LogOutput, Error>> + Send>>,
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
}

/// Creates and starts an exec.
pub async fn exec(
    docker: &Docker,
    container: &str,
    argv: &[&str],
    env: &BTreeMap<String, String>,
) -> anyhow::Result<Running> {
    let id = create(docker, container, argv, env).await?;
    match docker.start_exec(&id, None::<StartExecOptions>).await? {
        StartExecResults::Attached { output, input } => Ok(Running { output, input }),
        StartExecResults::Detached => bail!("the engine started the command detached"),
    }
}

/// The first of the two steps.
pub async fn create(
    docker: &Docker,
    container: &str,
    argv: &[&str],
    env: &BTreeMap<String, String>,
) -> anyhow::Result<String> {
    let options = CreateExecOptions {
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        tty: Some(false),
        cmd: Some(argv.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>()),
        env: Some(env.iter().map(|(key, value)| format!("{key}={value}")).collect()),
        ..Default::default()
    };
    Ok(docker.create_exec(container, options).await?.id)
}

impl Running {
    /// The next piece of its output.
    pub async fn next(&mut self) -> anyhow::Result<Option<LogOutput>> {
        let next = tokio::time::timeout(STEP_WAIT, self.output.next()).await;
        Ok(next.context("the exec neither speaks nor ends")?.transpose()?)
    }

    /// Reads to its end, and says when that was.
    pub async fn ended(mut self) -> anyhow::Result<Duration> {
        while self.next().await?.is_some() {}
        Ok(clock::now())
    }
}
