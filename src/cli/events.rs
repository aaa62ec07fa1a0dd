//! `events`: what happened.

use std::ops::ControlFlow;

use serde_json::Value;

use super::{
    client::Client,
    error::CliError,
    screen::Screen,
    shapes::{Event, EventPage, Gap, LastExit, Operation, Reason},
    sse,
    words::{clean, exit_short, reasons},
};

/// How far back the list goes when no number is asked for.
const LAST: u64 = 200;
/// Events of one request; the API's own bound.
const PAGE: u64 = 1000;

/// Lists events; with `--follow` until Ctrl-C.
pub(super) fn events(
    client: &Client,
    follow: bool,
    after: Option<u64>,
    json: bool,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    if follow {
        let first = after.map_or("/api/v1/events".to_owned(), |after| format!("/api/v1/events?after={after}"));
        return sse::follow(client, &first, "/api/v1/events", screen, |frame, screen| {
            match frame.event.as_str() {
                _ if json => screen.json(&frame.data)?,
                "gap" => gap(&client.parse(&frame.data)?, screen)?,
                _ => show(&client.parse(&frame.data)?, screen)?,
            }
            screen.out.flush()?;
            Ok(ControlFlow::Continue(()))
        });
    }
    let mut after = match after {
        Some(after) => after,
        None => client.get_as::<EventPage>("/api/v1/events?limit=1")?.1.head.saturating_sub(LAST),
    };
    loop {
        let answer = client.get(&format!("/api/v1/events?after={after}&limit={PAGE}"))?;
        if json {
            return Ok(screen.json(&answer.text)?);
        }
        let page: EventPage = client.parse(&answer.text)?;
        for event in &page.events {
            show(event, screen)?;
        }
        if page.next_after <= after || page.next_after >= page.head {
            return Ok(());
        }
        after = page.next_after;
    }
}

/// Readings are for `ps` and for machines: a line a second of them would hide what happened.
fn show(event: &Event, screen: &mut Screen<'_>) -> Result<(), CliError> {
    if event.kind == "samples" {
        return Ok(());
    }
    let subject = if event.kind == "operation_changed" { String::new() } else { clean(&event.subject) };
    let words = [event.seq.to_string(), clean(&event.at), clean(&event.kind), subject, tell(event)];
    let words: Vec<String> = words.into_iter().filter(|word| !word.is_empty()).collect();
    Ok(screen.line(&words.join("  "))?)
}

fn gap(gap: &Gap, screen: &mut Screen<'_>) -> Result<(), CliError> {
    let (from, to) = (gap.after + 1, gap.first_kept.saturating_sub(1));
    Ok(screen.line(&format!("-- readings between {from} and {to} are no longer kept --"))?)
}

fn tell(event: &Event) -> String {
    let word = |key: &str| event.rest.get(key).and_then(Value::as_str).map(clean).unwrap_or_default();
    match event.kind.as_str() {
        "agent_changed" => agent(field(event, "agent"), &word("from")),
        "swarm_changed" => {
            let swarm = field(event, "swarm");
            level(&word("from"), &text(swarm, "level"), swarm)
        }
        "hive_changed" => level(&word("from"), &word("to"), &Value::Object(event.rest.clone())),
        "source_changed" => {
            let breaker = level(&word("from"), &word("to"), &Value::Object(event.rest.clone()));
            format!("{} agents claimed, breaker {breaker}", field(event, "agents"))
        }
        "operation_changed" => match serde_json::from_value::<Operation>(field(event, "operation").clone()) {
            Ok(operation) => operation.describe(),
            Err(_) => String::new(),
        },
        "agent_said" => format!("{} {}", word("event"), clean(&field(event, "data").to_string())),
        "container_started" | "container_ended" => {
            let id: String = word("container").chars().take(12).collect();
            format!("{id} {}", word("detail"))
        }
        "audit" => {
            let asked =
                format!("{} {} from {}: {}", word("method"), word("path"), word("peer"), field(event, "status"));
            let times = field(event, "count").as_u64().filter(|count| *count > 1);
            let counted = times.map(|count| format!(" ({count} times)"));
            format!("{asked} {}{}", word("code"), counted.unwrap_or_default()).trim_end().to_owned()
        }
        "daemon_started" => format!("version {}, pid {}", word("version"), field(event, "pid")),
        "daemon_stopping" => word("how"),
        _ => String::new(),
    }
}

fn field<'a>(event: &'a Event, key: &str) -> &'a Value {
    event.rest.get(key).unwrap_or(&Value::Null)
}

fn agent(agent: &Value, from: &str) -> String {
    let state = text(agent, "state");
    let mut line = if from.is_empty() || from == state { state.clone() } else { format!("{from} -> {state}") };
    if let Some(pid) = agent["pid"].as_u64() {
        line.push_str(&format!(", incarnation {}, pid {pid}", agent["incarnation"]));
    } else if let Ok(exit) = serde_json::from_value::<LastExit>(agent["last_exit"].clone())
        && !matches!(state.as_str(), "pending" | "starting")
    {
        line.push_str(&format!(", last exit {}", exit_short(&exit)));
    }
    line
}

fn level(from: &str, to: &str, document: &Value) -> String {
    let arrow = if from.is_empty() || from == to { to.to_owned() } else { format!("{from} -> {to}") };
    let why: Vec<Reason> = serde_json::from_value(document["reasons"].clone()).unwrap_or_default();
    if why.is_empty() { arrow } else { format!("{arrow}: {}", reasons(&why)) }
}

fn text(document: &Value, key: &str) -> String {
    document[key].as_str().map(clean).unwrap_or_default()
}
