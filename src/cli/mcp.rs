//! `mcp`: the daemon's MCP server on standard input and output, for any MCP client. It relays messages and understands only as much of them as it needs
//! to give each request one answer: inside an agent over the agent's own line to the daemon ([`session`]), elsewhere over HTTP ([`posts`]).

mod posts;
mod session;

use std::{
    borrow::Cow,
    collections::HashMap,
    io::{self, BufRead, Read, Write},
    sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use super::{client::Client, error::CliError, run::Surroundings, screen::Screen};
use crate::model::{AgentName, SwarmName};

/// Longest line: that of the data plane.
const LINE_BYTES_MAX: usize = 1024 * 1024;
/// Lines that wait to be taken, either way.
const EVENTS_MAX: usize = 64;
/// How long calls may go on that are under way when the client says no more. What answers at once has answered by then, and what waits would wait for
/// nobody. Clients end us after about as long.
const FAREWELL: Duration = Duration::from_secs(2);

/// For whom it speaks, outside an agent.
#[derive(Debug, Args)]
pub(super) struct McpArgs {
    /// The swarm whose work it is about; inside an agent its own
    #[arg(long, value_name = "SWARM", requires = "name")]
    swarm: Option<SwarmName>,
    /// In whose name it acts; any that is no agent's
    #[arg(long = "as", id = "name", value_name = "NAME", requires = "swarm")]
    name: Option<AgentName>,
}

/// Serves until standard input ends.
pub(super) fn mcp(
    args: &McpArgs,
    around: &Surroundings,
    client: impl FnOnce() -> Result<Client, CliError>,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let (events, heard) = mpsc::sync_channel(EVENTS_MAX);
    let own = session::Identity::of(&around.env).filter(|_| args.swarm.is_none());
    let mut way: Box<dyn Way> = match own {
        Some(identity) => Box::new(session::Session::open(identity, events.clone())?),
        None => Box::new(posts::Posts::new(client()?, args.swarm.clone().zip(args.name.clone()), events.clone())),
    };
    thread::Builder::new().name("stdin".to_owned()).spawn(move || listen(io::stdin().lock(), &events))?;
    converse(&mut *way, &heard, screen.out)
}

/// How messages reach the daemon.
trait Way {
    /// Sends a request. The number of what it was sent by; why it could not be sent.
    fn ask(&mut self, line: &[u8], request: &Message<'_>) -> Result<u64, String>;
    /// Passes a notification on, if anybody is there to hear it.
    fn tell(&mut self, line: &[u8], notification: &Message<'_>);
    /// Takes what is for us and not for the client.
    fn keeps(&mut self, said: &Message<'_>) -> bool;
    /// What it was sent by has ended.
    fn lost(&mut self, by: u64);
}

/// What happens.
enum Event {
    /// The client has said something.
    Line(Vec<u8>),
    /// The client has said too much at once.
    TooLong,
    /// The client says no more.
    Ended,
    /// The daemon has said something.
    Said(Vec<u8>),
    /// What requests were sent by has ended: those without an answer get none.
    Lost(u64),
}

/// As much of a message as matters here.
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
}

impl<'a> Message<'a> {
    fn read(line: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }
}

fn converse(way: &mut dyn Way, heard: &Receiver<Event>, out: &mut dyn Write) -> Result<(), CliError> {
    // By the text of their ids.
    let mut open: HashMap<String, (u64, String)> = HashMap::new();
    let mut ends: Option<Instant> = None;
    while ends.is_none() || !open.is_empty() {
        let left = ends.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
        let event = match heard.recv_timeout(left) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        };
        match event {
            Event::Line(line) => match Message::read(&line) {
                None => say(out, &error("null", -32700, "that is no JSON-RPC message"))?,
                Some(message @ Message { id: Some(id), method: Some(_), .. }) => match way.ask(&line, &message) {
                    Ok(by) => {
                        let method = message.method.unwrap_or_default().into_owned();
                        open.insert(id.get().to_owned(), (by, method));
                    }
                    Err(why) => {
                        say(out, &unanswered(id.get(), &message.method.unwrap_or_default(), "unavailable", &why))?
                    }
                },
                Some(message @ Message { id: None, method: Some(_), .. }) => way.tell(&line, &message),
                // Nobody asks the client anything.
                Some(Message { method: None, .. }) => {}
            },
            Event::TooLong => {
                say(out, &error("null", -32600, &format!("a message has at most {LINE_BYTES_MAX} bytes")))?;
            }
            Event::Ended => ends = Some(Instant::now() + FAREWELL),
            Event::Said(line) => {
                let Some(message) = Message::read(&line) else { continue };
                if way.keeps(&message) {
                    continue;
                }
                if let (Some(id), None) = (message.id, &message.method) {
                    open.remove(id.get());
                }
                say(out, line.trim_ascii_end())?;
            }
            Event::Lost(by) => {
                way.lost(by);
                let why = "the connection to the daemon broke before the answer came; look what was done before you ask again";
                for (id, (_, method)) in open.extract_if(|_, (sent_by, _)| *sent_by == by) {
                    say(out, &unanswered(&id, &method, "maybe_done", why))?;
                }
            }
        }
    }
    Ok(())
}

fn say(out: &mut dyn Write, line: &[u8]) -> Result<(), CliError> {
    out.write_all(line)?;
    out.write_all(b"\n")?;
    // Each line is waited for.
    Ok(out.flush()?)
}

/// The answer to a request that the daemon gave none to. A tool's is one that a model reads.
fn unanswered(id: &str, method: &str, code: &str, why: &str) -> Vec<u8> {
    if method != "tools/call" {
        return error(id, -32603, why);
    }
    let text = json!({ "code": code, "message": why }).to_string();
    let result = json!({ "content": [{ "type": "text", "text": text }], "isError": true, "resultType": "complete" });
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#).into_bytes()
}

fn error(id: &str, code: i64, why: &str) -> Vec<u8> {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{}}}"#, json!({ "code": code, "message": why })).into_bytes()
}

/// Hears the client until it says no more.
fn listen(mut input: impl BufRead, events: &SyncSender<Event>) {
    while let Ok(Some(line)) = next_line(&mut input) {
        let blank = line.as_ref().is_some_and(|line| line.trim_ascii().is_empty());
        let event = line.map_or(Event::TooLong, Event::Line);
        if !blank && events.send(event).is_err() {
            return;
        }
    }
    let _ = events.send(Event::Ended);
}

/// One line without its end; inside, `None` for one that is too long and was skipped. `None` at the end.
fn next_line(input: &mut impl BufRead) -> io::Result<Option<Option<Vec<u8>>>> {
    let mut line = Vec::new();
    let most = LINE_BYTES_MAX as u64 + 1;
    if input.take(most).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        return Ok(Some(Some(line)));
    }
    if (line.len() as u64) < most {
        // The end came without a newline.
        return Ok(Some(Some(line)));
    }
    input.skip_until(b'\n')?;
    Ok(Some(None))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::Value;

    use super::*;

    /// Sends everything by one number, and hears nothing.
    #[derive(Default)]
    struct Mute(Vec<String>, Option<String>);

    impl Way for Mute {
        fn ask(&mut self, line: &[u8], _: &Message<'_>) -> Result<u64, String> {
            self.0.push(String::from_utf8(line.to_vec()).unwrap());
            self.1.clone().map_or(Ok(7), Err)
        }

        fn tell(&mut self, line: &[u8], _: &Message<'_>) {
            self.0.push(String::from_utf8(line.to_vec()).unwrap());
        }

        fn keeps(&mut self, said: &Message<'_>) -> bool {
            said.method.as_deref() == Some("hive/ping")
        }

        fn lost(&mut self, _: u64) {}
    }

    fn conversation(way: &mut Mute, events: Vec<Event>) -> Vec<Value> {
        let (sender, heard) = mpsc::sync_channel(EVENTS_MAX);
        events.into_iter().for_each(|event| sender.send(event).unwrap());
        drop(sender);
        let mut out = Vec::new();
        converse(way, &heard, &mut out).unwrap();
        out.split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }

    fn line(text: &str) -> Event {
        Event::Line(text.as_bytes().to_vec())
    }

    #[test]
    fn each_request_gets_one_answer_whatever_becomes_of_the_connection() {
        let said = conversation(
            &mut Mute::default(),
            vec![
                line(r#"{"jsonrpc":"2.0","id":"a","method":"tools/call"}"#),
                line(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#),
                line(r#"{"jsonrpc":"2.0","id":2,"method":"tools/list"}"#),
                Event::Said(br#"{"jsonrpc":"2.0","id":9,"method":"hive/ping"}"#.to_vec()),
                Event::Said(br#"{"jsonrpc":"2.0","id":2,"result":{}}"#.to_vec()),
                Event::Lost(6),
                Event::Lost(7),
                Event::Lost(7),
            ],
        );
        assert_eq!(said.len(), 3, "{said:?}");
        assert_eq!(said[0], json!({ "jsonrpc": "2.0", "id": 2, "result": {} }));
        let of = |id: Value| said.iter().find(|said| said["id"] == id).unwrap();
        assert_eq!(of(json!(1))["error"]["code"], -32603);
        let call = &of(json!("a"))["result"];
        assert_eq!(call["isError"], true);
        assert!(call["content"][0]["text"].as_str().unwrap().contains("maybe_done"));
    }

    #[test]
    fn what_cannot_be_sent_or_read_is_answered_here() {
        let mut way = Mute(Vec::new(), Some("nobody is there".to_owned()));
        let said = conversation(
            &mut way,
            vec![line("{"), line(r#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#), Event::TooLong, Event::Ended],
        );
        assert_eq!((&said[0]["id"], &said[0]["error"]["code"]), (&Value::Null, &json!(-32700)));
        assert!(said[1]["result"]["content"][0]["text"].as_str().unwrap().contains("nobody is there"));
        assert_eq!(said[2]["error"]["code"], -32600);
    }

    #[test]
    fn lines_are_bounded_and_those_behind_a_long_one_are_heard() {
        let mut text = vec![b'x'; 3 * LINE_BYTES_MAX];
        text.extend_from_slice(b"\nshort\r\n\nlast");
        let mut input = &text[..];
        assert_eq!(next_line(&mut input).unwrap(), Some(None));
        assert_eq!(next_line(&mut input).unwrap(), Some(Some(b"short\r".to_vec())));
        assert_eq!(next_line(&mut input).unwrap(), Some(Some(Vec::new())));
        assert_eq!(next_line(&mut input).unwrap(), Some(Some(b"last".to_vec())));
        assert_eq!(next_line(&mut input).unwrap(), None);
    }
}
