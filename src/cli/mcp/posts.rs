//! Outside an agent: each request is a POST of its own to the daemon's `/mcp`, with the API's token.

use std::{
    collections::HashMap,
    io::Read as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::SyncSender,
    },
    thread,
};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{Event, Message, Way};
use crate::{
    cli::{client::Client, error::CliError, sse::Frames},
    model::{AgentName, SwarmName},
    tools::{Who, find},
};

/// Requests under way; a model makes some at once.
const REQUESTS_MAX: usize = 32;
/// Longest answer.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// In front of progress tokens that the client has not asked for: who is told of progress can be left in the middle.
const OURS: &str = "dev.hivekeeper/wait-";
const VERSION: &str = "io.modelcontextprotocol/protocolVersion";

/// Requests under way.
pub(super) struct Posts {
    client: Client,
    /// Whose work, and in whose name, where a call does not say.
    who: Option<(SwarmName, AgentName)>,
    events: SyncSender<Event>,
    number: u64,
    /// Those under way, by number: the text of its id, and whether it was cancelled.
    under_way: HashMap<u64, (String, Arc<AtomicBool>)>,
    /// What `initialize` has agreed on.
    version: Arc<Mutex<Option<String>>>,
}

impl Posts {
    pub(super) fn new(client: Client, who: Option<(SwarmName, AgentName)>, events: SyncSender<Event>) -> Self {
        Self { client, who, events, number: 0, under_way: HashMap::new(), version: Arc::default() }
    }

    /// What is sent, with what a call leaves out.
    fn filled(&self, line: &[u8], number: u64) -> Option<Value> {
        let mut message: Value = serde_json::from_slice(line).ok()?;
        if message["method"] == "tools/call" && message["params"].is_object() {
            let params = &mut message["params"];
            if params["arguments"].is_null() {
                params["arguments"] = json!({});
            }
            // A tool for everybody takes no name, and nobody means his swarm alone who asks it for nothing.
            let is_his = find(params["name"].as_str().unwrap_or_default()).is_some_and(|tool| tool.who != Who::Anyone);
            if let (true, Some((swarm, name)), Some(arguments)) =
                (is_his, &self.who, params["arguments"].as_object_mut())
            {
                let whole = arguments.entry("swarm").or_insert_with(|| swarm.to_string().into());
                if *whole == swarm.as_str() {
                    arguments.entry("agent").or_insert_with(|| name.to_string().into());
                }
            }
            if params["_meta"].is_null() {
                params["_meta"] = json!({});
            }
            if let Some(meta) = params["_meta"].as_object_mut() {
                meta.entry("progressToken").or_insert_with(|| format!("{OURS}{number}").into());
            }
        }
        Some(message)
    }
}

impl Way for Posts {
    fn ask(&mut self, line: &[u8], request: &Message<'_>) -> Result<u64, String> {
        if self.under_way.len() >= REQUESTS_MAX {
            return Err(format!("{REQUESTS_MAX} requests are under way"));
        }
        self.number += 1;
        let number = self.number;
        let message = self.filled(line, number).ok_or_else(|| "it is no message".to_owned())?;
        let cancelled = Arc::new(AtomicBool::new(false));
        let post = Post {
            client: self.client.clone(),
            events: self.events.clone(),
            version: Arc::clone(&self.version),
            cancelled: Arc::clone(&cancelled),
            message,
        };
        let events = self.events.clone();
        let sent = thread::Builder::new().name("post".to_owned()).spawn(move || {
            let id = post.message["id"].to_string();
            if let Err(error) = post.send() {
                let why = error.to_string();
                let _ = events.send(Event::Said(super::unanswered(&id, post.method(), "unavailable", &why)));
            }
            let _ = events.send(Event::Lost(number));
        });
        sent.map_err(|error| error.to_string())?;
        self.under_way.insert(number, (request.id.map(|id| id.get().to_owned()).unwrap_or_default(), cancelled));
        Ok(number)
    }

    fn tell(&mut self, line: &[u8], notification: &Message<'_>) {
        // By HTTP there is nothing else to tell.
        if notification.method.as_deref() != Some("notifications/cancelled") {
            return;
        }
        let told: Value = serde_json::from_slice(line).unwrap_or_default();
        let id = told["params"]["requestId"].to_string();
        for (_, cancelled) in self.under_way.values().filter(|(of, _)| *of == id) {
            cancelled.store(true, Ordering::Relaxed);
        }
    }

    fn keeps(&mut self, said: &Message<'_>) -> bool {
        said.method.as_deref() == Some("notifications/progress")
            && said.params.is_some_and(|params| params.get().contains(&format!("\"{OURS}")))
    }

    fn lost(&mut self, by: u64) {
        self.under_way.remove(&by);
    }
}

/// One request on its way.
struct Post {
    client: Client,
    events: SyncSender<Event>,
    version: Arc<Mutex<Option<String>>>,
    cancelled: Arc<AtomicBool>,
    message: Value,
}

impl Post {
    fn method(&self) -> &str {
        self.message["method"].as_str().unwrap_or_default()
    }

    fn send(&self) -> Result<(), CliError> {
        let (method, params) = (self.method(), &self.message["params"]);
        let agreed = || self.version.lock().clone();
        let version = params["_meta"][VERSION].as_str().map(str::to_owned).or_else(agreed);
        let name = params["name"].as_str().or(params["uri"].as_str());
        let headers = [("mcp-method", Some(method)), ("mcp-name", name), ("mcp-protocol-version", version.as_deref())];
        let headers: Vec<(&str, &str)> = headers.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
        let (is_stream, body) = self.client.mcp(&headers, &self.message.to_string())?;
        if is_stream {
            for frame in Frames::new(body) {
                // Leaving the stream is how a client cancels.
                if self.cancelled.load(Ordering::Relaxed)
                    || self.events.send(Event::Said(frame.data.into_bytes())).is_err()
                {
                    break;
                }
            }
            return Ok(());
        }
        let mut line = Vec::new();
        body.take(ANSWER_BYTES_MAX).read_to_end(&mut line)?;
        if method == "initialize" {
            let said: Value = serde_json::from_slice(&line).unwrap_or_default();
            *self.version.lock() = said["result"]["protocolVersion"].as_str().map(str::to_owned);
        }
        if !line.is_empty() && !self.cancelled.load(Ordering::Relaxed) {
            let _ = self.events.send(Event::Said(line));
        }
        Ok(())
    }
}
