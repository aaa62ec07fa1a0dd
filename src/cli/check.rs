//! `check`: says that the configuration is good, and what it makes.

use serde_json::{Value, json};

use crate::{
    config::{Config, Problem},
    model::SwarmSpec,
};

use super::{error::CliError, screen::Screen};

/// A short summary, or all mistakes.
pub(super) fn check(loaded: Result<Config, CliError>, json: bool, screen: &mut Screen<'_>) -> Result<(), CliError> {
    if json {
        screen.json(&document(&loaded).to_string())?;
    }
    let config = loaded?;
    if json {
        return Ok(());
    }
    match &config.file {
        Some(file) => screen.line(&format!("{} is good", file.display()))?,
        None => screen.line("no configuration file; the defaults are good, and there is no swarm")?,
    }
    screen.line(&format!("hive {:?} in {}", config.hive.name, config.hive.data_dir.display()))?;
    let scheme = if config.http.tls.is_some() { "https" } else { "http" };
    screen.line(&format!("api {scheme}://{}, data plane {}", config.http.bind, config.data_plane.bind))?;
    for swarm in &config.swarms {
        let agents: Vec<String> = swarm.agents.iter().map(|agent| entry(agent.name.as_str(), agent.replicas)).collect();
        screen.line(&format!("swarm {}: {} ({})", swarm.name, count(swarm), agents.join(", ")))?;
    }
    for source in &config.sources {
        let tools: Vec<&str> = source.tools.iter().map(|tool| &*tool.name).collect();
        screen.line(&format!("source {}: {} ({})", source.name, source.address, tools.join(", ")))?;
    }
    Ok(())
}

/// Whether it is good, and what it makes; or the mistakes, each with its place.
fn document(loaded: &Result<Config, CliError>) -> Value {
    let config = match loaded {
        Ok(config) => config,
        Err(CliError::Config(errors)) => {
            let problem = |problem: &Problem| {
                json!({
                    "place": problem.place.to_string(), "key": problem.key, "found": problem.found, "rule": problem.rule
                })
            };
            let problems: Vec<Value> = errors.problems().iter().map(problem).collect();
            return json!({ "good": false, "problems": problems });
        }
        Err(error) => return json!({ "good": false, "problems": [{ "found": error.to_string() }] }),
    };
    let swarm = |swarm: &SwarmSpec| {
        let agents =
            swarm.agents.iter().map(|agent| json!({ "name": agent.name.as_str(), "replicas": agent.replicas }));
        json!({ "name": swarm.name.as_str(), "agents": agents.collect::<Vec<_>>() })
    };
    json!({
        "good": true, "file": config.file, "hive": config.hive.name, "data_dir": config.hive.data_dir,
        "http": config.http.bind, "data_plane": config.data_plane.bind,
        "swarms": config.swarms.iter().map(swarm).collect::<Vec<_>>(),
        "sources": config.sources.iter().map(|source| source.name.to_string()).collect::<Vec<_>>(),
    })
}

fn count(swarm: &SwarmSpec) -> String {
    match swarm.agents.iter().map(|agent| u64::from(agent.replicas.unwrap_or(1))).sum() {
        1 => "1 agent".to_owned(),
        n => format!("{n} agents"),
    }
}

fn entry(name: &str, replicas: Option<u32>) -> String {
    match replicas {
        None => name.to_owned(),
        Some(1) => format!("{name}-1"),
        Some(n) => format!("{name}-1 to {name}-{n}"),
    }
}
