//! `logs SWARM`: what the agents of a swarm wrote, together.

use std::{
    collections::BTreeSet,
    ops::ControlFlow,
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    },
    thread,
    time::Duration,
};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::model::{AgentId, SwarmName};

use super::{
    client::Client,
    error::CliError,
    logs::{LogsArgs, Printer, names, pages},
    screen::Screen,
    shapes::{Agent, LogLine},
    sse::{self, Heard},
};

/// Agents whose lines are followed at a time: each takes a thread here, and one of the streams that the daemon shares among all.
const FOLLOWED_MAX: usize = 64;
/// Frames that wait to be printed. A terminal that stands still holds the streams up, and the daemon then counts what is lost.
const WAITING_MAX: usize = 256;
/// Between two looks at who belongs to the swarm: an agent that comes by a scaling or a reload is followed from then on.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// `GET /api/v1/swarms/{swarm}`
#[derive(Deserialize)]
struct Swarm {
    #[serde(default)]
    agents: Vec<Agent>,
}

/// What a follower hands over.
enum Told {
    Frame(sse::Frame),
    Note(&'static str),
    /// It has ended, by the daemon's word or by an error.
    Ended(Result<(), CliError>),
}

fn agents(client: &Client, swarm: &SwarmName) -> Result<Vec<AgentId>, CliError> {
    let (_, Swarm { agents }) = client.get_as(&format!("/api/v1/swarms/{swarm}"))?;
    Ok(names(&agents))
}

fn width(agents: &[AgentId]) -> usize {
    agents.iter().map(|agent| agent.name.as_str().chars().count()).max().unwrap_or_default()
}

/// The lines of all agents by their times.
pub(super) fn show(
    client: &Client,
    swarm: &SwarmName,
    args: &LogsArgs,
    json: bool,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let agents = agents(client, swarm)?;
    let mut lines: Vec<(&AgentId, LogLine)> = Vec::new();
    let tail = args.tail();
    for agent in &agents {
        pages(client, agent, args, |_, page| {
            // The last lines are those of all agents together, and a filter chooses among these.
            let wanted = page.lines.iter().filter(|line| tail.is_some() || args.wants(line));
            lines.extend(wanted.map(|line| (agent, line.clone())));
            Ok(ControlFlow::Continue(()))
        })?;
    }
    // Times have one form, so that their text sorts as they do; lines of one agent keep their order.
    lines.sort_by(|(_, a), (_, b)| a.at.cmp(&b.at));
    if let Some(tail) = tail {
        lines.drain(..lines.len().saturating_sub(usize::try_from(tail).unwrap_or(usize::MAX)));
        lines.retain(|(_, line)| args.wants(line));
    }
    if json {
        let lines: Vec<Value> = lines.iter().map(|(agent, line)| named(agent, json!(line))).collect();
        return Ok(screen.json(&json!({ "swarm": swarm.as_str(), "lines": lines }).to_string())?);
    }
    let mut printer = Printer::new(args.long, Some(width(&agents)));
    for (agent, line) in &lines {
        printer.print(line, Some(agent), screen)?;
    }
    Ok(())
}

fn named(agent: &AgentId, mut document: Value) -> Value {
    document["agent"] = agent.name.as_str().into();
    document
}

/// The lines of all agents as they come, until Ctrl-C.
pub(super) fn follow(
    client: &Client,
    swarm: &SwarmName,
    args: &LogsArgs,
    json: bool,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let (tell, hear) = mpsc::sync_channel(WAITING_MAX);
    let mut crowd = Crowd { client, args, tell, followed: BTreeSet::new() };
    let found = agents(client, swarm)?;
    let mut printer = Printer::new(args.long, Some(width(&found)));
    crowd.join(found)?;
    let mut noted = "";
    loop {
        let Some((agent, told)) = next(&hear)? else {
            match agents(client, swarm) {
                Ok(found) => crowd.join(found)?,
                Err(error @ CliError::Refused { .. }) => return Err(error),
                // While the daemon is away the followers say so; nobody can have come meanwhile.
                Err(_) => {}
            }
            continue;
        };
        match told {
            Told::Frame(frame) => print(client, &agent, &frame, args, json, &mut printer, screen)?,
            // Every follower says it; once is enough.
            Told::Note(note) => {
                if note != noted {
                    screen.note(&format!("hivekeeper: {note}"));
                }
                noted = note;
            }
            Told::Ended(Ok(())) => {}
            Told::Ended(Err(CliError::Refused { code, .. })) if code == "not_found" => {}
            Told::Ended(Err(error)) => return Err(error),
        }
    }
}

/// What comes next; nothing when it is time to look who is there.
fn next(hear: &Receiver<(Arc<AgentId>, Told)>) -> Result<Option<(Arc<AgentId>, Told)>, CliError> {
    match hear.recv_timeout(LOOK_INTERVAL) {
        Ok(told) => Ok(Some(told)),
        Err(RecvTimeoutError::Timeout) => Ok(None),
        Err(RecvTimeoutError::Disconnected) => Err(CliError::Failed("nobody is followed any more".to_owned())),
    }
}

fn print(
    client: &Client,
    agent: &AgentId,
    frame: &sse::Frame,
    args: &LogsArgs,
    json: bool,
    printer: &mut Printer,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    if frame.event == "line" && !args.wants(&client.parse(&frame.data)?) {
        return Ok(());
    }
    match frame.event.as_str() {
        _ if json => screen.json(&named(agent, client.parse(&frame.data)?).to_string())?,
        "line" => printer.print(&client.parse(&frame.data)?, Some(agent), screen)?,
        "gap" => printer.gap(&client.parse(&frame.data)?, Some(agent), screen)?,
        _ => {}
    }
    Ok(screen.out.flush()?)
}

/// Who is followed. The threads end with the process: what they wait for is the daemon's to say.
struct Crowd<'a> {
    client: &'a Client,
    args: &'a LogsArgs,
    tell: SyncSender<(Arc<AgentId>, Told)>,
    followed: BTreeSet<Arc<AgentId>>,
}

impl Crowd<'_> {
    /// Follows who is new. Who has gone is forgotten, so that he is new when he comes back.
    fn join(&mut self, found: Vec<AgentId>) -> Result<(), CliError> {
        let all = found.len();
        self.followed.retain(|agent| found.contains(agent));
        for agent in found.into_iter().map(Arc::new) {
            if self.followed.contains(&agent) {
                continue;
            }
            if self.followed.len() >= FOLLOWED_MAX {
                let text = format!("{} has {all} agents, and {FOLLOWED_MAX} are followed at most", agent.swarm);
                return Err(CliError::Failed(format!("{text}\nFollow one: `hivekeeper logs -f {agent}`.")));
            }
            self.followed.insert(Arc::clone(&agent));
            self.spawn(agent);
        }
        Ok(())
    }

    fn spawn(&self, agent: Arc<AgentId>) {
        let (client, tell) = (self.client.clone(), self.tell.clone());
        let (first, later) = self.args.stream_paths(&agent);
        thread::spawn(move || {
            let hand_over = |told| match tell.send((Arc::clone(&agent), told)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            };
            let ended = sse::follow(&client, &first, &later, |heard| {
                Ok(match heard {
                    Heard::Frame(frame) if frame.event == "end" => ControlFlow::Break(()),
                    Heard::Frame(frame) => hand_over(Told::Frame(frame.clone())),
                    Heard::Note(note) => hand_over(Told::Note(note)),
                })
            });
            let _ = hand_over(Told::Ended(ended));
        });
    }
}
