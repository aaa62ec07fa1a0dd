//! `restart`, `stop`, `start`, `pause`, `resume`, `scale`, `rm`: hands a command in and waits for what comes of it.

use std::time::Duration;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::model::{AgentId, SwarmName, Target};

use super::{
    args::{ActArgs, Scaled, WaitArgs},
    client::{Answer, Client},
    error::CliError,
    progress::{self, Patience},
    screen::Screen,
};

/// The path of a target.
pub(super) fn path_of(target: &Target) -> String {
    match target {
        Target::Swarm(swarm) => format!("/api/v1/swarms/{swarm}"),
        Target::Agent(AgentId { swarm, name }) => format!("/api/v1/swarms/{swarm}/agents/{name}"),
    }
}

/// A key of its own for each command, so that one that is sent twice by the network is carried out once.
pub(super) fn fresh_key() -> String {
    Uuid::now_v7().to_string()
}

/// Hands a command in, tells the steps as they are done, and ends as the operation ended.
pub(super) fn act(
    client: &Client,
    verb: &str,
    body: &Value,
    args: &ActArgs,
    patience: Patience<'_>,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let path = format!("{}/{verb}", path_of(&args.target));
    let answer = client.post(&path, &body.to_string(), &fresh_key())?;
    conclude(client, answer, &args.wait, patience, screen)
}

fn conclude(
    client: &Client,
    answer: Answer,
    wait: &WaitArgs,
    patience: Patience<'_>,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    if wait.no_wait {
        return progress::accepted(client, &answer, patience.json, screen);
    }
    progress::to_its_end(client, answer, patience, screen)
}

/// Changes how many of an agent run.
pub(super) fn scale(
    client: &Client,
    scaled: &Scaled,
    wait: &WaitArgs,
    patience: Patience<'_>,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let path = format!("/api/v1/swarms/{}/scale", scaled.agent.swarm);
    let body = json!({ "agent": scaled.agent.name.as_str(), "replicas": scaled.replicas });
    let answer = client.post(&path, &body.to_string(), &fresh_key())?;
    conclude(client, answer, wait, patience, screen)
}

/// Stops swarms and forgets them. All are asked before any is waited for; one that is refused keeps none from going.
pub(super) fn rm(
    client: &Client,
    swarms: &[SwarmName],
    wait: &WaitArgs,
    patience: Patience<'_>,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let asked: Vec<_> = swarms
        .iter()
        .map(|swarm| (swarm, client.delete(&path_of(&Target::Swarm(swarm.clone())), Some(&fresh_key()))))
        .collect();
    each(asked, screen, |answer, screen| conclude(client, answer, wait, patience, screen))
}

/// Goes on behind a failure and ends as the first one.
pub(super) fn each<N: std::fmt::Display, T>(
    all: Vec<(N, Result<T, CliError>)>,
    screen: &mut Screen<'_>,
    mut one: impl FnMut(T, &mut Screen<'_>) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let many = all.len() > 1;
    let mut first = None;
    for (name, asked) in all {
        match asked.and_then(|asked| one(asked, screen)) {
            Ok(()) => {}
            // What ends the command ends it here: our own output is gone, or somebody pressed Ctrl-C.
            Err(error @ (CliError::Output(_) | CliError::Left(_))) => return Err(error),
            Err(error) if first.is_none() && !many => return Err(error),
            Err(error) => {
                screen.note(&format!("hivekeeper: {name}: {error}"));
                first = first.or(Some(error));
            }
        }
    }
    match first {
        None => Ok(()),
        Some(error) => Err(CliError::Told(error.exit())),
    }
}

/// The body of a restart. One agent is always restarted alone, so that only a swarm can be rolled.
pub(super) fn restart(mut body: Value, rolling: bool, target: &Target) -> Result<Value, CliError> {
    if rolling {
        let Target::Swarm(_) = target else {
            return Err(CliError::Usage(format!("--rolling: {target} is one agent; a swarm is restarted one by one")));
        };
        body["mode"] = "rolling".into();
    }
    Ok(body)
}

/// The body of what ends agents.
pub(super) fn ending(grace: Option<Duration>, reason: Option<&str>) -> Value {
    let mut body = Map::new();
    if let Some(grace) = grace {
        body.insert("grace_ms".to_owned(), u64::try_from(grace.as_millis()).unwrap_or(u64::MAX).into());
    }
    if let Some(reason) = reason {
        body.insert("reason".to_owned(), reason.into());
    }
    Value::Object(body)
}
