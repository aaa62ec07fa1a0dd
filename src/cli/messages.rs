//! `messages`: what agents and clients write to each other.

use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    args::duration,
    client::Client,
    error::CliError,
    screen::Screen,
    shapes::Reason,
    table::{self, Cell},
    tasks::Priority,
    words::{ago, clean, reasons},
    work::{Desk, Party, Whose, json_value, ms, or_dash},
};

const HEADER: [&str; 7] = ["ID", "TO", "FROM", "STATE", "SENT", "TRIES", "TOPIC"];

/// What is done with messages; without a word they are listed.
#[derive(Debug, Subcommand)]
pub(super) enum MessagesCommand {
    /// List what is not acknowledged
    #[command(alias = "list")]
    Ls(Filter),
    /// Write to an agent, to a client, or to all agents
    Send(Letter),
    /// Take messages, the most urgent first; they come again unless they are acknowledged
    Receive {
        /// Of this topic alone, or, with * behind, of all that begin so; may be said again
        #[arg(long, value_name = "TOPIC")]
        topic: Vec<String>,
        /// How many at most
        #[arg(long, value_name = "N", default_value = "10")]
        max: u32,
        /// How long to wait for one when there is none
        #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "0s")]
        wait: Duration,
    },
    /// Say that a message was dealt with
    Ack {
        /// The message's id
        id: String,
        /// The fencing token of its delivery
        #[arg(long, value_name = "FENCE")]
        fence: u64,
    },
    /// Let a dead letter be delivered again
    Redrive {
        /// The message's id
        id: String,
    },
}

/// Which messages to list.
#[derive(Debug, Default, Args)]
pub(super) struct Filter {
    /// Only those for this recipient
    #[arg(long, value_name = "NAME")]
    to: Option<String>,
    /// Dead letters, rather than what is not acknowledged yet
    #[arg(long)]
    dead: bool,
}

/// A message to be sent.
#[derive(Debug, Args)]
pub(super) struct Letter {
    /// An agent, or * for all of them
    to: String,
    /// What to say
    #[arg(required_unless_present = "data", conflicts_with = "data")]
    text: Option<String>,
    /// The same as JSON
    #[arg(long, value_name = "JSON", value_parser = json_value)]
    data: Option<Value>,
    /// It goes to a client, which is no agent
    #[arg(long)]
    client: bool,
    /// What it is about, for filters of recipients
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// How urgent it is
    #[arg(long, value_enum, value_name = "PRIORITY")]
    priority: Option<Priority>,
    /// Ask for an answer within this time
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    reply_within: Option<Duration>,
}

#[derive(Deserialize)]
struct Page {
    messages: Vec<Message>,
    #[serde(default)]
    more: bool,
}

#[derive(Deserialize)]
struct Message {
    id: String,
    to: String,
    #[serde(default)]
    from: Option<Party>,
    kind: String,
    state: String,
    sent_at: String,
    #[serde(default)]
    topic: String,
    #[serde(default)]
    deliveries: u32,
    #[serde(default)]
    fence: Option<u64>,
    #[serde(default)]
    reason: Option<Reason>,
    #[serde(default)]
    body: Option<Value>,
}

#[derive(Deserialize)]
struct Sent {
    id: String,
    recipients: Vec<String>,
    #[serde(default)]
    full: Vec<String>,
}

#[derive(Deserialize)]
struct Stands {
    id: String,
    state: String,
}

/// Lists, sends, takes or settles messages.
pub(super) fn messages(
    client: &Client,
    command: Option<&MessagesCommand>,
    whose: &Whose,
    now: SystemTime,
    json: bool,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let desk = Desk::new(client, whose)?;
    let everything = MessagesCommand::Ls(Filter::default());
    let command = command.unwrap_or(&everything);
    let answer = match command {
        MessagesCommand::Ls(filter) => {
            let mut query = vec![("limit", "1000".to_owned())];
            query.extend(filter.to.clone().map(|to| ("to", to)));
            query.extend(filter.dead.then(|| ("dead", "true".to_owned())));
            desk.get("/api/v1/messages", query)?
        }
        MessagesCommand::Send(letter) => desk.post("/api/v1/messages", letter.body())?,
        MessagesCommand::Receive { topic, max, wait } => {
            let body = json!({ "topics": topic, "max": max, "wait_ms": ms(*wait) });
            desk.post_as("/api/v1/messages/receive", body, *wait)?
        }
        MessagesCommand::Ack { id, fence } => {
            desk.post_as(&format!("/api/v1/messages/{id}/ack"), json!({ "fence": fence }), Duration::ZERO)?
        }
        MessagesCommand::Redrive { id } => desk.post(&format!("/api/v1/messages/{id}/redrive"), json!({}))?,
    };
    if json {
        return Ok(screen.json(&answer.text)?);
    }
    match command {
        MessagesCommand::Ls(_) => list(&desk.parse(&answer)?, now, screen),
        MessagesCommand::Receive { .. } => received(&desk.parse(&answer)?, now, screen),
        MessagesCommand::Send(_) => {
            let Sent { id, recipients, full } = desk.parse(&answer)?;
            screen.line(&clean(&format!("{id}: sent to {}", recipients.join(", "))))?;
            if full.is_empty() {
                return Ok(());
            }
            Err(CliError::Failed(clean(&format!("no room for it was left with {}", full.join(", ")))))
        }
        MessagesCommand::Ack { .. } | MessagesCommand::Redrive { .. } => {
            let Stands { id, state } = desk.parse(&answer)?;
            Ok(screen.line(&clean(&format!("{id}: {state}")))?)
        }
    }
}

impl Letter {
    fn body(&self) -> Value {
        let body = self.data.clone().or_else(|| self.text.clone().map(Value::from));
        json!({
            "to": self.to, "body": body, "client": self.client.then_some(true), "topic": self.topic,
            "priority": self.priority.map(Priority::word), "reply_within_ms": self.reply_within.map(ms),
        })
    }
}

fn list(page: &Page, now: SystemTime, screen: &mut Screen<'_>) -> Result<(), CliError> {
    let row = |message: &Message| {
        let why = message.reason.as_ref().map(|why| format!(" ({})", reasons(std::slice::from_ref(why))));
        vec![
            Cell::new(clean(&message.id)),
            Cell::new(clean(&message.to)),
            Cell::new(or_dash(message.from.as_ref().map(Party::describe))),
            Cell::state(&clean(&message.state)),
            Cell::number(ago(&message.sent_at, now)),
            Cell::number(message.deliveries),
            Cell::new(clean(&message.topic) + &why.unwrap_or_default()),
        ]
    };
    let rows: Vec<Vec<Cell>> = page.messages.iter().map(row).collect();
    for line in table::lines(&HEADER, &rows, None, screen.colour) {
        screen.line(&line)?;
    }
    if page.more {
        screen.note("There are more: --to asks for one recipient's.");
    }
    Ok(())
}

fn received(page: &Page, now: SystemTime, screen: &mut Screen<'_>) -> Result<(), CliError> {
    for message in &page.messages {
        let from = message.from.as_ref().map_or_else(|| "the operator".to_owned(), Party::describe);
        let token = or_dash(message.fence.map(|fence| fence.to_string()));
        let about = if message.topic.is_empty() { String::new() } else { format!(" on {}", clean(&message.topic)) };
        let (id, kind, sent) = (clean(&message.id), clean(&message.kind), ago(&message.sent_at, now));
        screen.line(&format!("{id} with the fence {token}: {kind} of {from}{about}, {sent}"))?;
        let body = message.body.as_ref().map_or_else(String::new, |body| match body {
            Value::String(text) => clean(text),
            other => clean(&other.to_string()),
        });
        screen.line(&format!("  {body}"))?;
    }
    if page.messages.is_empty() {
        screen.note("there is no message");
    }
    Ok(())
}
