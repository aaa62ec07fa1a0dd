//! What the commands on shared work have in common: whose work it is, who asks, and how it is asked for.

use std::time::Duration;

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    client::{Answer, Client},
    commands::fresh_key,
    error::CliError,
    screen::Screen,
    words::{ago, clean},
};
use crate::model::{AgentName, SwarmName};

/// Beyond what the daemon waits at most: it answers then.
const ANSWER_GRACE: Duration = Duration::from_secs(30);
/// As whom something is done where that has to be said and was not.
const SELF: &str = "cli";

/// Whose work, and who asks.
#[derive(Debug, Args)]
pub(super) struct Whose {
    /// The swarm [default: the only one there is]
    #[arg(long, global = true, value_name = "SWARM")]
    swarm: Option<SwarmName>,
    /// As which client to ask; not the name of an agent [default: nobody, and `cli` where something is taken]
    #[arg(long = "as", global = true, value_name = "NAME")]
    party: Option<AgentName>,
}

/// A daemon, asked about the work of one swarm.
pub(super) struct Desk<'a> {
    client: &'a Client,
    swarm: String,
    party: Option<&'a AgentName>,
}

#[derive(Deserialize)]
struct Swarms {
    swarms: Vec<Named>,
    #[serde(default)]
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

/// Who takes part.
#[derive(Debug, Deserialize)]
pub(super) struct Party {
    agent: String,
    #[serde(default)]
    incarnation: Option<u64>,
}

impl Party {
    /// `coder-1 #3`, or the name of a client.
    pub(super) fn describe(&self) -> String {
        match self.incarnation {
            Some(incarnation) => clean(&format!("{} #{incarnation}", self.agent)),
            None => clean(&self.agent),
        }
    }
}

impl<'a> Desk<'a> {
    /// The desk for the swarm that is meant.
    pub(super) fn new(client: &'a Client, whose: &'a Whose) -> Result<Self, CliError> {
        let swarm = match &whose.swarm {
            Some(swarm) => swarm.to_string(),
            None => only(client)?,
        };
        Ok(Self { client, swarm, party: whose.party.as_ref() })
    }

    /// Reads; `more` are members of the query.
    pub(super) fn get(&self, path: &str, mut more: Vec<(&'static str, String)>) -> Result<Answer, CliError> {
        more.push(("swarm", self.swarm.clone()));
        self.client.get_with(path, &more)
    }

    /// Asks for something in nobody's name, unless one was said.
    pub(super) fn post(&self, path: &str, more: Value) -> Result<Answer, CliError> {
        self.send(path, more, self.party.map(AgentName::as_str), Duration::ZERO)
    }

    /// Asks for something that is somebody's own, and for which the daemon may wait.
    pub(super) fn post_as(&self, path: &str, more: Value, wait: Duration) -> Result<Answer, CliError> {
        self.send(path, more, Some(self.party.map_or(SELF, AgentName::as_str)), wait)
    }

    fn send(&self, path: &str, more: Value, party: Option<&str>, wait: Duration) -> Result<Answer, CliError> {
        let mut body = json!({ "swarm": self.swarm, "agent": party });
        if let (Some(members), Value::Object(more)) = (body.as_object_mut(), more) {
            members.extend(more);
            members.retain(|_, value| !value.is_null());
        }
        self.client.post_within(path, &body.to_string(), &fresh_key(), wait + ANSWER_GRACE)
    }

    /// What a document says.
    pub(super) fn parse<T: for<'de> Deserialize<'de>>(&self, answer: &Answer) -> Result<T, CliError> {
        self.client.parse(&answer.text)
    }
}

/// The name of the only swarm.
fn only(client: &Client) -> Result<String, CliError> {
    let (_, Swarms { swarms, next_cursor }) = client.get_as("/api/v1/swarms?limit=8")?;
    match &swarms[..] {
        [only] => Ok(only.name.clone()),
        [] => Err(CliError::Failed("there is no swarm".to_owned())),
        many => {
            let names: Vec<String> = many.iter().map(|swarm| clean(&swarm.name)).collect();
            let more = if next_cursor.is_some() { ", and more" } else { "" };
            Err(CliError::Usage(format!("--swarm: say which: {}{more}", names.join(", "))))
        }
    }
}

/// Milliseconds, as the API has durations.
pub(super) fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// JSON that was typed.
pub(super) fn json_value(text: &str) -> Result<Value, String> {
    serde_json::from_str(text)
        .map_err(|error| format!("{error}; allowed: JSON, such as '{{\"file\":\"a.rs\"}}' or '\"text\"'"))
}

/// The word `-` for nothing.
pub(super) fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

/// `name: text` lines, those alone of which there is something to say.
pub(super) fn facts(facts: Vec<(&str, Option<String>)>, screen: &mut Screen<'_>) -> Result<(), CliError> {
    for (name, text) in facts.into_iter().filter_map(|(name, text)| Some((name, text?))) {
        screen.line(&format!("{name:<12} {text}"))?;
    }
    Ok(())
}

/// `done 3m ago`.
pub(super) fn at(word: &str, at: &str, now: std::time::SystemTime) -> String {
    format!("{} {}", clean(word), ago(at, now))
}
