//! `check`: says that the configuration is good, and what it makes.

use crate::{config::Config, model::SwarmSpec};

use super::{error::CliError, screen::Screen};

/// A short summary. Mistakes were reported by whoever loaded it.
pub(super) fn check(config: &Config, screen: &mut Screen<'_>) -> Result<(), CliError> {
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
