//! `ps`: the agents, one a line.

use std::time::SystemTime;

use super::{
    client::Client,
    error::CliError,
    screen::Screen,
    shapes::{Agent, Hive},
    table::{self, Cell},
    words::{ago, bytes, clean, exit_short, measured, reasons, until},
};

const HEADER: [&str; 9] = ["AGENT", "STATE", "PID", "INC", "RESTARTS", "SINCE", "CPU", "MEMORY", "LAST EXIT"];
const WIDE: [&str; 12] = [
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
    "WHY",
];

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
    let rows: Vec<Vec<Cell>> = hive.agents.iter().map(|agent| row(agent, wide, now)).collect();
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
    if hive.agents.is_empty() {
        screen.note("There is no agent. A [[swarm]] in the daemon's configuration makes some.");
    }
    Ok(())
}

fn row(agent: &Agent, wide: bool, now: SystemTime) -> Vec<Cell> {
    let name = Cell::new(clean(&format!("{}/{}", agent.swarm, agent.name)));
    let state = Cell::state(&clean(&agent.state));
    let pid = Cell::number(agent.pid.map_or("-".to_owned(), |pid| pid.to_string()));
    let incarnation = Cell::number(agent.incarnation);
    let restarts = Cell::number(format!("{} ({})", agent.restarts, agent.restarts_in_window));
    let since = Cell::number(ago(&agent.since, now));
    let cpu = Cell::number(measured(&agent.cpu, |cores| format!("{cores:.2}")));
    let memory = Cell::number(measured(&agent.memory, |count| bytes(*count)));
    let exit = Cell::new(last_exit(agent, wide, now));
    if !wide {
        return vec![name, state, pid, incarnation, restarts, since, cpu, memory, exit];
    }
    let desired = Cell::new(clean(&agent.desired));
    let beat = measured(&agent.last_heartbeat, |at| match &agent.last_heartbeat.source {
        Some(source) => format!("{} by {}", ago(at, now), clean(source)),
        None => ago(at, now),
    });
    let why = Cell::new(reasons(&agent.reasons));
    vec![name, state, desired, pid, incarnation, restarts, since, cpu, memory, Cell::new(beat), exit, why]
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
