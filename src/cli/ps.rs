//! `ps`: the agents, one a line.

use std::time::SystemTime;

use super::{
    client::Client,
    error::CliError,
    screen::Screen,
    shapes::{Agent, Hive, Source, Swarm},
    table::{self, Cell},
    words::{ago, bytes, clean, exit_short, measured, reasons, until},
};

const HEADER: [&str; 9] = ["AGENT", "STATE", "PID", "INC", "RESTARTS", "SINCE", "CPU", "MEMORY", "LAST EXIT"];
const WIDE: [&str; 14] = [
    "AGENT",
    "STATE",
    "DESIRED",
    "PID",
    "INC",
    "RESTARTS (IN WINDOW)",
    "SINCE",
    "CPU",
    "MEMORY",
    "HEARTBEAT",
    "LAST EXIT",
    "RUNS IN",
    "RELAXED",
    "WHY",
];

const SOURCES: [&str; 5] = ["SOURCE", "BREAKER", "CLAIMS AGENTS", "LAST RESULT", "WHY"];

/// Lists all agents. A hive in trouble is an answer, too.
pub(super) fn ps(
    client: &Client,
    wide: bool,
    json: bool,
    now: SystemTime,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    if json {
        return Ok(screen.json(&client.get("/api/v1/health")?.text)?);
    }
    let (_, hive): (_, Hive) = client.get_as("/api/v1/health")?;
    let rows: Vec<Vec<Cell>> =
        hive.agents.iter().map(|agent| row(agent, wide.then_some(&hive.swarms[..]), now)).collect();
    let (header, width) = if wide { (&WIDE[..], None) } else { (&HEADER[..], Some(table::WIDTH)) };
    let lines = table::lines(header, &rows, width, screen.colour);
    let (head, lines) = lines.split_at(1);
    screen.line(&head.concat())?;
    for (line, agent) in lines.iter().zip(&hive.agents) {
        screen.line(line)?;
        if let Some(exit) = agent.last_exit.as_ref().filter(|_| wide) {
            for said in &exit.last_lines {
                screen.line(&format!("    | {}", clean(said)))?;
            }
        }
    }
    sources(&hive.sources, now, screen)?;
    if hive.agents.is_empty() {
        screen.note("There is no agent. A [[swarm]] in the daemon's configuration makes some.");
    }
    Ok(())
}

/// Polled MCP servers apart from the agents: what these claim is theirs. Nothing where there is none.
fn sources(sources: &[Source], now: SystemTime, screen: &mut Screen<'_>) -> Result<(), CliError> {
    if sources.is_empty() {
        return Ok(());
    }
    let row = |source: &Source| {
        let last = source.last_success.as_ref().map_or_else(|| "never".to_owned(), |at| ago(at, now));
        let why = source.reasons.first().map(std::slice::from_ref).map_or_else(|| "-".to_owned(), reasons);
        vec![
            Cell::new(clean(&source.name)),
            Cell::state(&clean(&source.breaker)),
            Cell::number(source.agents.len()),
            Cell::number(last),
            Cell::new(why),
        ]
    };
    let rows: Vec<Vec<Cell>> = sources.iter().map(row).collect();
    screen.line("")?;
    for line in table::lines(&SOURCES, &rows, Some(table::WIDTH), screen.colour) {
        screen.line(&line)?;
    }
    Ok(())
}

/// With `swarms` everything that is known, theirs included.
fn row(agent: &Agent, swarms: Option<&[Swarm]>, now: SystemTime) -> Vec<Cell> {
    let name = Cell::new(clean(&format!("{}/{}", agent.swarm, agent.name)));
    let state = Cell::state(&clean(&agent.state));
    let pid = Cell::number(agent.pid.map_or("-".to_owned(), |pid| pid.to_string()));
    let incarnation = Cell::number(agent.incarnation);
    let restarts = Cell::number(format!("{} ({})", agent.restarts, agent.restarts_in_window));
    let since = Cell::number(ago(&agent.since, now));
    let cpu = Cell::number(measured(&agent.cpu, |cores| format!("{cores:.2}")));
    let memory = Cell::number(measured(&agent.memory, |count| bytes(*count)));
    let exit = Cell::new(last_exit(agent, swarms.is_some(), now));
    let Some(swarms) = swarms else {
        return vec![name, state, pid, incarnation, restarts, since, cpu, memory, exit];
    };
    let desired = Cell::new(clean(&agent.desired));
    let beat = measured(&agent.last_heartbeat, |at| match &agent.last_heartbeat.source {
        Some(source) => format!("{} by {}", ago(at, now), clean(source)),
        None => ago(at, now),
    });
    let why = Cell::new(reasons(&agent.reasons));
    let (home, relaxed) = home(swarms.iter().find(|swarm| swarm.name == agent.swarm));
    vec![
        name,
        state,
        desired,
        pid,
        incarnation,
        restarts,
        since,
        cpu,
        memory,
        Cell::new(beat),
        exit,
        home,
        relaxed,
        why,
    ]
}

/// Where a swarm runs and what it got there, and in what it is less shut in than by default.
fn home(swarm: Option<&Swarm>) -> (Cell, Cell) {
    let Some((swarm, runtime)) = swarm.and_then(|swarm| Some((swarm, swarm.runtime.as_deref()?))) else {
        return (Cell::new("unknown"), Cell::new("unknown"));
    };
    let place = match (&swarm.image, &swarm.container) {
        (Some(image), _) => image.clone(),
        (None, Some(container)) => format!("container {container}"),
        (None, None) => runtime.to_owned(),
    };
    let place = [&[place], &swarm.adjustments[..]].concat().join("; ");
    let relaxed = if swarm.relaxations.is_empty() { "-".to_owned() } else { swarm.relaxations.join("; ") };
    (Cell::new(clean(&place)), Cell::new(clean(&relaxed)))
}

fn last_exit(agent: &Agent, wide: bool, now: SystemTime) -> String {
    let retry = agent.retry_at.as_ref().map(|at| format!("next {}", until(at, now)));
    let Some(exit) = &agent.last_exit else { return retry.unwrap_or_else(|| "-".to_owned()) };
    let how = match &exit.detail {
        Some(detail) if wide => clean(detail),
        _ => exit_short(exit),
    };
    match retry {
        None => format!("{how}, {}", ago(&exit.at, now)),
        Some(retry) if wide => format!("{how}, {}, {retry}", ago(&exit.at, now)),
        // What comes next tells more than the age, and both would not fit.
        Some(retry) => format!("{how}, {retry}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn where_a_swarm_runs_is_shown_as_far_as_the_daemon_says_it() {
        let shown = |swarm: serde_json::Value| {
            let swarm: Option<Swarm> = serde_json::from_value(swarm).ok();
            let (home, relaxed) = home(swarm.as_ref());
            table::lines(&["", ""], &[vec![home, relaxed]], None, false).pop()
        };
        let swarm = |more: serde_json::Value| {
            let mut swarm = json!({ "name": "s", "level": "healthy" });
            if let (Some(all), Some(more)) = (swarm.as_object_mut(), more.as_object()) {
                all.extend(more.clone());
            }
            shown(swarm)
        };
        let line = |text: &str| Some(text.to_owned());
        assert_eq!(swarm(json!({})), line("unknown  unknown"), "an older daemon says nothing");
        assert_eq!(shown(json!(null)), line("unknown  unknown"));
        assert_eq!(swarm(json!({ "runtime": "docker", "image": "debian", "relaxations": [] })), line("debian  -"));
        let process = json!({ "runtime": "process", "relaxations": ["no container"] });
        assert_eq!(swarm(process), line("process  no container"));
        let sidecar = json!({ "runtime": "docker", "container": "dev", "relaxations": ["a", "b"] });
        assert_eq!(swarm(sidecar), line("container dev  a; b"));
    }
}
