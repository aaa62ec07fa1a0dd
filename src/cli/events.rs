//! `events`: what happened.

use std::{
    ops::ControlFlow,
    time::{Duration, SystemTime},
};

use clap::{Args, builder::PossibleValuesParser};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use crate::{model::SwarmName, view::event_kinds};

use super::{
    args::duration,
    client::Client,
    error::CliError,
    screen::Screen,
    shapes::{Event, EventPage, Gap, LastExit, Operation, Reason},
    sse::{self, Heard},
    words::{clean, exit_short, reasons},
};

/// How far back the list goes when no number is asked for.
const LAST: u64 = 200;
/// Events of one request; the API's own bound.
const PAGE: u64 = 1000;

/// `events`
#[derive(Debug, Default, Args)]
pub(super) struct EventsArgs {
    /// Go on until Ctrl-C
    #[arg(short, long)]
    pub(super) follow: bool,
    /// Only events behind this number [default: the last ones; from now on with --follow]
    #[arg(long, value_name = "N")]
    after: Option<u64>,
    /// Only events younger than this, such as 10m
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "after")]
    since: Option<Duration>,
    /// Only events of this kind, such as agent_changed; may be said more than once
    #[arg(long, value_name = "KIND", value_parser = PossibleValuesParser::new(event_kinds()))]
    kind: Vec<String>,
    /// Only events of this swarm and its agents
    #[arg(long, value_name = "SWARM")]
    swarm: Option<SwarmName>,
}

impl EventsArgs {
    fn chooses(&self) -> bool {
        !self.kind.is_empty() || self.swarm.is_some()
    }

    fn wants(&self, event: &Event) -> bool {
        let of = |swarm: &SwarmName| {
            let subject = event.subject.split('/').next().unwrap_or_default();
            let target = event.rest.get("operation").and_then(|operation| operation["target"].as_str());
            subject == swarm.as_str() || target.and_then(|target| target.split('/').next()) == Some(swarm.as_str())
        };
        (self.kind.is_empty() || self.kind.contains(&event.kind)) && self.swarm.as_ref().is_none_or(of)
    }
}

/// Lists events; with `--follow` until Ctrl-C.
pub(super) fn events(
    client: &Client,
    args: &EventsArgs,
    json: bool,
    now: SystemTime,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let after = match args.since {
        Some(since) => Some(number_at(client, now.checked_sub(since).unwrap_or(SystemTime::UNIX_EPOCH))?),
        None => args.after,
    };
    if args.follow { follow(client, after, args, json, screen) } else { list(client, after, args, json, screen) }
}

fn follow(
    client: &Client,
    after: Option<u64>,
    args: &EventsArgs,
    json: bool,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let first = after.map_or("/api/v1/events".to_owned(), |after| format!("/api/v1/events?after={after}"));
    sse::follow(client, &first, "/api/v1/events", |heard| {
        match heard {
            Heard::Note(note) => screen.note(&format!("hivekeeper: {note}")),
            Heard::Frame(frame) if frame.event == "gap" && !json => gap(&client.parse(&frame.data)?, screen)?,
            Heard::Frame(frame) if frame.event == "gap" || !args.chooses() && json => screen.json(&frame.data)?,
            Heard::Frame(frame) => {
                let event = client.parse(&frame.data)?;
                match args.wants(&event) {
                    true if json => screen.json(&frame.data)?,
                    true => show(&event, screen)?,
                    false => {}
                }
            }
        }
        screen.out.flush()?;
        Ok(ControlFlow::Continue(()))
    })
}

/// A page with its events as they came.
#[derive(Deserialize)]
struct RawPage<'a> {
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
    head: u64,
    next_after: u64,
}

fn list(
    client: &Client,
    after: Option<u64>,
    args: &EventsArgs,
    json: bool,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let mut after = match after {
        Some(after) => after,
        None if args.chooses() => 0,
        None => head(client)?.saturating_sub(LAST),
    };
    // What was chosen, of all pages; without a choice the first page is printed as it came.
    let (mut chosen, mut shown) = (String::new(), false);
    loop {
        let answer = client.get(&format!("/api/v1/events?after={after}&limit={PAGE}"))?;
        if json && !args.chooses() {
            return Ok(screen.json(&answer.text)?);
        }
        let page: RawPage<'_> = client.parse_borrowed(&answer.text)?;
        for text in &page.events {
            let event: Event = client.parse(text.get())?;
            let wanted = args.wants(&event);
            shown |= wanted;
            match wanted {
                true if json => chosen.extend([if chosen.is_empty() { "" } else { "," }, text.get()]),
                true => show(&event, screen)?,
                false => {}
            }
        }
        if page.next_after <= after || page.next_after >= page.head {
            if !shown && args.chooses() {
                screen.note("no event that is kept is of these");
            }
            if json {
                let (head, next) = (page.head, page.next_after);
                screen.json(&format!("{{\"events\":[{chosen}],\"head\":{head},\"next_after\":{next}}}"))?;
            }
            return Ok(());
        }
        after = page.next_after;
    }
}

fn head(client: &Client) -> Result<u64, CliError> {
    Ok(client.get_as::<EventPage>("/api/v1/events?limit=1")?.1.head)
}

/// The number behind which events are younger than a time. Numbers and times grow together, so some twenty looks find it among millions.
fn number_at(client: &Client, time: SystemTime) -> Result<u64, CliError> {
    let (mut old, mut young) = (0, head(client)?);
    while old < young {
        let middle = old + (young - old) / 2;
        let (_, page): (_, EventPage) = client.get_as(&format!("/api/v1/events?after={middle}&limit=1"))?;
        match page.events.first() {
            Some(event) if humantime::parse_rfc3339(&event.at).is_ok_and(|at| at < time) => old = event.seq,
            // It, or nothing at all, stands behind the middle, and all of that is young enough.
            _ => young = middle,
        }
    }
    Ok(young)
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
        "task_changed" => task(field(event, "task"), &word("from")),
        "lock_changed" => {
            let lock = field(event, "lock");
            let resources = lock["resources"].as_array().into_iter().flatten();
            let resources: Vec<String> = resources.filter_map(Value::as_str).map(clean).collect();
            let line = format!(
                "{} {} {} by {}",
                word("change"),
                text(lock, "mode"),
                resources.join(" "),
                party(&lock["holder"])
            );
            match text(field(event, "reason"), "detail") {
                why if why.is_empty() => line,
                why => format!("{line}: {why}"),
            }
        }
        "message_changed" => {
            let message = field(event, "message");
            let line = format!("{} {} for {}", word("change"), text(message, "kind"), text(message, "to"));
            format!("{line} {}", text(message, "topic")).trim_end().to_owned()
        }
        "work_untold" => format!(
            "more changes than are told: {} of tasks, {} of locks, {} of messages",
            field(event, "tasks"),
            field(event, "locks"),
            field(event, "messages")
        ),
        "daemon_started" => format!("version {}, pid {}", word("version"), field(event, "pid")),
        "daemon_stopping" => word("how"),
        _ => String::new(),
    }
}

fn task(task: &Value, from: &str) -> String {
    let mut line = level(from, &text(task, "state"), task);
    if !task["holder"].is_null() {
        line.push_str(&format!(" by {}", party(&task["holder"])));
    }
    format!("{line}  {}", text(task, "title"))
}

fn party(party: &Value) -> String {
    match party["incarnation"].as_u64() {
        Some(incarnation) => format!("{}#{incarnation}", text(party, "agent")),
        None => text(party, "agent"),
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
