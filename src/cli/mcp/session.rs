//! Inside an agent: over the address that every agent finds in its environment, in a session of the agent's. That session is one of a tool: it gives no
//! signs of life and none are waited for, so whether the agent lives is judged as if it were not there.
//!
//! When the daemon is replaced, the connection breaks and the address stays: the next request is sent by a new one. A client that began with `initialize`
//! is introduced there anew; it hears nothing of that.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Write},
    net::{Shutdown, TcpStream},
    sync::mpsc::SyncSender,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{Event, Message, Way, next_line};
use crate::cli::error::CliError;

/// How long a daemon may be away: an agent's lease where its document says nothing, beyond which there is no agent.
const DAEMON_WAIT: Duration = Duration::from_secs(30);
/// Between two attempts.
const RETRY: Duration = Duration::from_millis(200);
/// How long the daemon may leave our bytes unread.
const WRITE_WAIT: Duration = Duration::from_secs(10);
/// Ids of our own requests; a client's can't be told from these only if it is meant to.
const OPEN: &str = "\"hivekeeper-mcp-open\"";
const HELLO: &str = "\"hivekeeper-mcp-initialize\"";

/// Who we are, as an agent's environment has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    address: String,
    token: String,
    agent: String,
    incarnation: u64,
}

impl Identity {
    /// `None` outside an agent.
    pub(super) fn of(env: &BTreeMap<String, String>) -> Option<Self> {
        let read = |name: &str| env.get(name).filter(|value| !value.is_empty()).cloned();
        Some(Self {
            address: read("HIVEKEEPER_ADDR")?,
            token: read("HIVEKEEPER_TOKEN")?,
            agent: read("HIVEKEEPER_AGENT")?,
            incarnation: read("HIVEKEEPER_INCARNATION")?.parse().ok()?,
        })
    }
}

/// Why there is no session.
enum Failed {
    /// It may be there the next time.
    Away(String),
    /// It won't.
    Refused(String),
}

/// Our line to the daemon.
pub(super) struct Session {
    identity: Identity,
    events: SyncSender<Event>,
    stream: Option<TcpStream>,
    /// Counts connections.
    number: u64,
    /// How the client introduced itself, if it did.
    initialize: Option<Value>,
}

impl Session {
    /// Connects, for as long as a daemon may be away.
    pub(super) fn open(identity: Identity, events: SyncSender<Event>) -> Result<Self, CliError> {
        let mut session = Self { identity, events, stream: None, number: 0, initialize: None };
        session.connect().map_err(|failed| match failed {
            Failed::Away(why) => CliError::TimedOut {
                what: format!("the connection to the daemon at {}", session.identity.address),
                within: humantime::format_duration(DAEMON_WAIT).to_string(),
                hint: why,
            },
            Failed::Refused(why) => CliError::Failed(format!("the daemon does not know this agent: {why}")),
        })?;
        Ok(session)
    }

    fn connect(&mut self) -> Result<(), Failed> {
        let until = Instant::now() + DAEMON_WAIT;
        let stream = loop {
            match self.attempt(until) {
                Ok(stream) => break stream,
                Err(failed @ Failed::Refused(_)) => return Err(failed),
                Err(failed) if Instant::now() + RETRY >= until => return Err(failed),
                Err(Failed::Away(_)) => thread::sleep(RETRY),
            }
        };
        self.number += 1;
        self.stream = Some(stream);
        Ok(())
    }

    /// One connection with its session open, and a thread that hears it.
    fn attempt(&self, until: Instant) -> Result<TcpStream, Failed> {
        let away = |error: io::Error| Failed::Away(error.to_string());
        let mut stream = TcpStream::connect(&self.identity.address).map_err(away)?;
        // What is asked is small and waited for.
        stream.set_nodelay(true).map_err(away)?;
        stream.set_write_timeout(Some(WRITE_WAIT)).map_err(away)?;
        let left = until.saturating_duration_since(Instant::now()).max(RETRY);
        stream.set_read_timeout(Some(left)).map_err(away)?;
        let Identity { token, agent, incarnation, .. } = &self.identity;
        let who = json!({
            "token": token, "agent": agent, "incarnation": incarnation, "protocol": 1, "capabilities": { "tool": true }
        });
        let mut lines = format!("{{\"jsonrpc\":\"2.0\",\"id\":{OPEN},\"method\":\"hive/open\",\"params\":{who}}}\n");
        if let Some(initialize) = &self.initialize {
            lines += &format!(
                "{{\"jsonrpc\":\"2.0\",\"id\":{HELLO},\"method\":\"initialize\",\"params\":{initialize}}}\n\
                 {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}}\n"
            );
        }
        stream.write_all(lines.as_bytes()).map_err(away)?;
        let mut input = BufReader::new(stream.try_clone().map_err(away)?);
        let gone = || Failed::Away("the connection was closed".to_owned());
        let answer = next_line(&mut input).map_err(away)?.flatten().ok_or_else(gone)?;
        let answer: Value = serde_json::from_slice(&answer).map_err(|error| Failed::Away(error.to_string()))?;
        match (&answer["result"]["session"], &answer["error"]["code"]) {
            (Value::String(_), _) => {}
            // Bad token and stale incarnation will be the same the next time.
            (_, code) if [json!(1002), json!(1003)].contains(code) => {
                return Err(Failed::Refused(answer["error"]["message"].to_string()));
            }
            _ => return Err(Failed::Away(answer.to_string())),
        }
        stream.set_read_timeout(None).map_err(away)?;
        let (events, number) = (self.events.clone(), self.number + 1);
        thread::Builder::new()
            .name("daemon".to_owned())
            .spawn(move || {
                // The daemon's lines may be longer than ours: lists, logs.
                hear(input, &events);
                let _ = events.send(Event::Lost(number));
            })
            .map_err(away)?;
        Ok(stream)
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let mut whole = Vec::with_capacity(line.len() + 1);
        whole.extend_from_slice(line);
        whole.push(b'\n');
        stream.write_all(&whole)
    }
}

impl Way for Session {
    fn ask(&mut self, line: &[u8], request: &Message<'_>) -> Result<u64, String> {
        if self.stream.is_none() {
            self.connect().map_err(|failed| match failed {
                Failed::Away(why) => format!("the daemon is away: {why}"),
                Failed::Refused(why) => format!("the daemon does not know this agent any more: {why}"),
            })?;
        }
        if request.method.as_deref() == Some("initialize") {
            self.initialize = request.params.and_then(|params| serde_json::from_str(params.get()).ok());
        }
        // Where it breaks, whoever hears it says so, and then this request has no answer.
        let _ = self.write(line);
        Ok(self.number)
    }

    fn tell(&mut self, line: &[u8], _notification: &Message<'_>) {
        let _ = self.write(line);
    }

    fn keeps(&mut self, said: &Message<'_>) -> bool {
        if let (Some(id), Some(method)) = (said.id, &said.method)
            && method.starts_with("hive/")
        {
            // Whether the agent finishes is not ours to say.
            let answer = format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{}}}}"#, id.get());
            let _ = self.write(answer.as_bytes());
            return true;
        }
        let is_ours = said.id.is_some_and(|id| [OPEN, HELLO].contains(&id.get()));
        is_ours || said.method.as_ref().is_some_and(|method| method.starts_with("hive/"))
    }

    fn lost(&mut self, by: u64) {
        if by == self.number {
            self.stream = None;
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(stream) = &self.stream {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Passes on what the daemon says, until it says no more.
fn hear(mut input: impl BufRead, events: &SyncSender<Event>) {
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        if events.send(Event::Said(std::mem::take(&mut line))).is_err() {
            return;
        }
    }
}
