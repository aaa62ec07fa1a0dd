//! `restart`, `stop`, `start`, `pause`, `resume`: hands a command in and waits for what comes of it.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;
use uuid::Uuid;

use crate::model::{Command, Target};

use super::{args::ActArgs, client::Client, error::CliError, screen::Screen, shapes::Operation, words::clean};

/// First pause between two looks at the operation; a restart of one agent takes some milliseconds.
const LOOK_FIRST: Duration = Duration::from_millis(20);
/// Longest pause: what a person takes for "at once".
const LOOK_LONGEST: Duration = Duration::from_millis(500);

#[derive(Serialize)]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    grace_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

/// Hands it in, tells the steps as they are done, and ends as the operation ended.
pub(super) fn act(
    client: &Client,
    command: Command,
    args: &ActArgs,
    json: bool,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let path = match &args.target {
        Target::Swarm(swarm) => format!("/api/v1/swarms/{swarm}/{}", command.word()),
        Target::Agent(id) => format!("/api/v1/swarms/{}/agents/{}/{}", id.swarm, id.name, command.word()),
    };
    let deadline = Instant::now() + args.timeout;
    let mut answer = client.post(&path, &body(&command), &Uuid::now_v7().to_string())?;
    let mut operation: Operation = client.parse(&answer.text)?;
    if args.no_wait {
        let line = format!("{} {}: accepted as operation {}", operation.kind, operation.target, operation.id);
        return Ok(if json { screen.json(&answer.text) } else { screen.line(&clean(&line)) }?);
    }
    let look = format!("/api/v1/operations/{}", operation.id);
    let mut pause = LOOK_FIRST;
    let mut told = 0;
    loop {
        if !json {
            for step in operation.steps.iter().skip(told) {
                let sign = if step.ok { "" } else { "failed: " };
                screen.line(&format!("  {}: {sign}{}", clean(&step.agent), clean(&step.detail)))?;
                screen.out.flush()?;
            }
            told = operation.steps.len().max(told);
        }
        if operation.ended() {
            break;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(CliError::TimedOut {
                what: format!("operation {}", clean(&operation.id)),
                within: humantime::format_duration(args.timeout).to_string(),
                hint: "It goes on. `hivekeeper events -f` shows its steps, `hivekeeper ps` what came of them."
                    .to_owned(),
            });
        }
        thread::sleep(pause.min(left));
        pause = (pause * 2).min(LOOK_LONGEST);
        (answer, operation) = client.get_as(&look).inspect_err(|_| {
            let what = "was accepted; what became of it is not known here";
            screen.note(&format!("hivekeeper: operation {} {what}", clean(&operation.id)));
        })?;
    }
    if json {
        screen.json(&answer.text)?;
    } else {
        screen.line(&operation.describe())?;
    }
    match operation.state.as_str() {
        "succeeded" => Ok(()),
        _ => Err(CliError::Failed(format!(
            "{} {}\n`hivekeeper ps -o wide` shows the last exits and why.",
            clean(&operation.kind),
            clean(&operation.state)
        ))),
    }
}

fn body(command: &Command) -> String {
    let (grace, reason) = match command {
        Command::Restart { grace, reason } | Command::Stop { grace, reason } => (*grace, reason.as_deref()),
        Command::Start | Command::Pause | Command::Resume => (None, None),
    };
    let grace_ms = grace.map(|grace| u64::try_from(grace.as_millis()).unwrap_or(u64::MAX));
    serde_json::to_string(&Body { grace_ms, reason }).unwrap_or_else(|_| "{}".to_owned())
}

impl Operation {
    fn ended(&self) -> bool {
        matches!(self.state.as_str(), "succeeded" | "failed" | "cancelled")
    }

    /// `restart demo/clock: succeeded`
    pub(super) fn describe(&self) -> String {
        let error = self.error.as_deref().map(|error| format!(": {error}")).unwrap_or_default();
        clean(&format!("{} {}: {}{error}", self.kind, self.target, self.state))
    }
}
