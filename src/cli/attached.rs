//! `run`: one program under supervision, attached as a shell would run it.

use std::{
    io,
    path::Path,
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::model::{AgentId, AgentName, SwarmName, Target};

use super::{
    args::RunArgs,
    client::{Answer, Client},
    commands::{ending, fresh_key, path_of},
    error::{CliError, Exit},
    interrupt::Interrupts,
    picture::{self, News, Picture},
    progress::{self, Patience},
    screen::Screen,
    shapes::{Agent, Gap, LastExit, LogLine, LogPage, Operation},
    sse::{self, Frames},
    words::clean,
};

/// What waits to be shown; the threads that read wait when there is more, and with them the daemon's streams.
const HEARD_MAX: usize = 256;
/// Between two looks at the launch, which is over in less where all is well.
const LOOK: Duration = Duration::from_millis(250);
/// How long health may take to show how an agent is whose launch has failed: it tells more than the operation does.
const TELL_WAIT: Duration = Duration::from_secs(1);
/// How long the removal of a swarm whose agent has ended may take before it is left to the daemon.
const REMOVE_WAIT: Duration = Duration::from_secs(30);
/// Lines of one request; the API's own bound.
const PAGE: u64 = 5000;
/// An agent whose command has no name that an agent could have.
const PLAIN_NAME: &str = "main";
/// Longest name of an agent that is taken from its command.
const NAME_LEN_MAX: usize = 40;

/// What the threads and Ctrl-C tell.
enum Heard {
    News(News),
    Line(LogLine),
    Gap(Gap),
    Launched(Box<Operation>),
    Pressed(u32),
}

/// Runs a command to its end. The end is the program's own exit code.
pub(super) fn run(
    client: &Client,
    args: &RunArgs,
    cwd: &Path,
    env: &std::collections::BTreeMap<String, String>,
    interrupts: &Interrupts,
    json: bool,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let agent = identity(args)?;
    let document = document(args, &agent, cwd, env)?;
    if let (None, Some(workdir)) = (&args.image, &args.workdir)
        && client.is_of_this_machine()
        && !cwd.join(workdir).is_dir()
    {
        // A daemon makes the working directory of a swarm; a shell does not, and here it is a mistake of typing.
        return Err(CliError::Usage(format!("--workdir: {} is no directory", cwd.join(workdir).display())));
    }
    if args.detach {
        let answer = client.post("/api/v1/swarms", &document.to_string(), &fresh_key())?;
        let patience = Patience { timeout: args.timeout, interrupts, json };
        let (answer, operation) = progress::follow(client, answer, patience, screen)?;
        if operation.state != "succeeded" {
            return Err(CliError::Failed(operation.describe()));
        }
        return Ok(if json { screen.json(&answer.text) } else { screen.line(&agent.to_string()) }?);
    }
    let (to, heard) = sync_channel(HEARD_MAX);
    let press = to.clone();
    // Armed before anything is launched: what Ctrl-C would leave behind has to be removed. A thread of its own hands a press on, for the listener
    // must not wait while lines wait to be shown.
    interrupts.listen(move |count| {
        let press = press.clone();
        thread::spawn(move || {
            let _ = press.send(Heard::Pressed(count));
        });
    });
    picture::watch(client.clone(), Some(agent.swarm.as_str()), to.clone(), Heard::News);
    let answer = client.post("/api/v1/swarms", &document.to_string(), &fresh_key())?;
    let mut attached = Attached::new(client, &agent, &answer, json)?;
    let outcome = attached.follow(&to, &heard, screen);
    // Whatever came of it: nobody knows of this swarm but who has typed the command.
    let removed = remove(client, &agent.swarm);
    let exit = outcome?;
    if let Err(error) = removed {
        screen.note(&format!("hivekeeper: swarm {} is left: {error}", agent.swarm));
    }
    match exit {
        Exit::Done => Ok(()),
        exit => Err(CliError::Told(exit)),
    }
}

/// An attached agent.
struct Attached<'a> {
    client: &'a Client,
    agent: &'a AgentId,
    /// Lines before it are of an older agent by the same name.
    since: String,
    operation: String,
    json: bool,
    picture: Picture,
    /// Number of the last line that was shown.
    shown: Option<u64>,
    /// The stream whose line was cut in pieces and goes on.
    open: Option<String>,
    stopping: bool,
}

impl<'a> Attached<'a> {
    fn new(client: &'a Client, agent: &'a AgentId, accepted: &Answer, json: bool) -> Result<Self, CliError> {
        let operation: Operation = client.parse(&accepted.text)?;
        Ok(Self {
            client,
            agent,
            since: operation.requested_at.clone(),
            operation: operation.id.clone(),
            json,
            picture: Picture::default(),
            shown: None,
            open: None,
            stopping: false,
        })
    }

    /// Until the program has ended and all its lines are shown.
    fn follow(
        &mut self,
        to: &SyncSender<Heard>,
        heard: &Receiver<Heard>,
        screen: &mut Screen<'_>,
    ) -> Result<Exit, CliError> {
        launch_watch(self.client.clone(), self.operation.clone(), to.clone());
        let mut reads = false;
        let mut failed: Option<(Instant, Operation)> = None;
        loop {
            let next = match &failed {
                Some((at, _)) => heard.recv_timeout(at.saturating_duration_since(Instant::now())),
                None => heard.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match next {
                Ok(Heard::News(News::Refused(error))) => return Err(error),
                Ok(Heard::News(news)) => {
                    if matches!(news, News::Broken) && !self.picture.is_stale {
                        screen.note(
                            "hivekeeper: the connection broke; trying again every second, Ctrl-C stops the program",
                        );
                    }
                    self.picture.take(news);
                }
                Ok(Heard::Line(line)) => self.show(&line, screen)?,
                Ok(Heard::Gap(gap)) => self.gap(&gap, screen)?,
                Ok(Heard::Launched(operation)) if operation.state == "succeeded" => {}
                Ok(Heard::Launched(operation)) => failed = Some((Instant::now() + TELL_WAIT, *operation)),
                Ok(Heard::Pressed(count)) => self.stop(count, screen)?,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    let why = failed.map_or_else(|| "nothing more is told of it".to_owned(), |(_, it)| it.describe());
                    return Err(CliError::Failed(why));
                }
            }
            let id = self.agent.to_string();
            let Some(agent) = self.picture.agents.get(&id).filter(|_| !self.picture.is_stale) else { continue };
            if !std::mem::replace(&mut reads, true) {
                let path = format!("{}/logs", path_of(&Target::Agent(self.agent.clone())));
                read_lines(self.client.clone(), format!("{path}?follow=true&since={}", self.since), path, to.clone());
            }
            if is_over(agent) {
                let (state, exit) = (clean(&agent.state), agent.last_exit.clone());
                self.rest(screen)?;
                return self.ended(&state, exit.as_ref(), screen);
            }
        }
    }

    /// The first press asks, the second kills.
    fn stop(&mut self, count: u32, screen: &mut Screen<'_>) -> Result<(), CliError> {
        let first = !std::mem::replace(&mut self.stopping, true);
        let (grace, say) = match first {
            true => (None, "stopping; Ctrl-C again kills it"),
            false => (Some(Duration::ZERO), "killing"),
        };
        screen.note(&format!("hivekeeper: {say}"));
        let path = format!("{}/stop", path_of(&Target::Swarm(self.agent.swarm.clone())));
        let body = ending(grace, Some(&format!("Ctrl-C at `hivekeeper run`, number {count}")));
        match self.client.post(&path, &body.to_string(), &fresh_key()) {
            // It has ended by itself meanwhile, or is not there yet: its removal does the rest.
            Ok(_) | Err(CliError::Refused { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The program's own words on the stream that it used.
    fn show(&mut self, line: &LogLine, screen: &mut Screen<'_>) -> io::Result<()> {
        if self.shown.is_some_and(|shown| line.number <= shown) {
            return Ok(());
        }
        self.shown = Some(line.number);
        if self.json {
            let document = json!({
                "number": line.number, "incarnation": line.incarnation, "at": line.at, "stream": line.stream,
                "level": line.level, "partial": line.partial, "text": line.text
            });
            screen.line(&document.to_string())?;
            return screen.out.flush();
        }
        if self.open.as_ref().is_some_and(|open| *open != line.stream) {
            self.close(screen)?;
        }
        match line.stream.as_str() {
            "hivekeeper" => {
                screen.note(&format!("-- {} --", clean(&line.text)));
                return Ok(());
            }
            "stderr" => {
                screen.err.write_all(line.text.as_bytes())?;
                if !line.partial {
                    screen.err.write_all(b"\n")?;
                }
                screen.err.flush()?;
            }
            _ => {
                screen.out.write_all(line.text.as_bytes())?;
                if !line.partial {
                    screen.out.write_all(b"\n")?;
                }
                screen.out.flush()?;
            }
        }
        self.open = line.partial.then(|| line.stream.clone());
        Ok(())
    }

    fn close(&mut self, screen: &mut Screen<'_>) -> io::Result<()> {
        match self.open.take().as_deref() {
            Some("stderr") => screen.err.write_all(b"\n"),
            Some(_) => screen.out.write_all(b"\n"),
            None => Ok(()),
        }
    }

    fn gap(&mut self, gap: &Gap, screen: &mut Screen<'_>) -> io::Result<()> {
        self.close(screen)?;
        screen.note(&format!(
            "-- lines {} to {} are no longer kept --",
            gap.after + 1,
            gap.first_kept.saturating_sub(1)
        ));
        Ok(())
    }

    /// The lines that the stream has not brought yet. An end is told of when all that was written before it is kept.
    fn rest(&mut self, screen: &mut Screen<'_>) -> Result<(), CliError> {
        let path = format!("{}/logs", path_of(&Target::Agent(self.agent.clone())));
        loop {
            let from = match self.shown {
                Some(shown) => format!("after={shown}"),
                None => format!("since={}", self.since),
            };
            let (_, page): (_, LogPage) = self.client.get_as(&format!("{path}?{from}&limit={PAGE}"))?;
            for line in &page.lines {
                self.show(line, screen)?;
            }
            if page.lines.last().is_none_or(|line| line.number >= page.last) {
                return Ok(self.close(screen)?);
            }
        }
    }

    fn ended(&self, state: &str, exit: Option<&LastExit>, screen: &mut Screen<'_>) -> Result<Exit, CliError> {
        let id = self.agent;
        if self.json {
            let (code, signal, cause) = exit.map_or((None, None, None), |it| (it.code, it.signal, Some(&it.cause)));
            let document = json!({
                "agent": id.to_string(), "state": state, "code": code, "signal": signal, "cause": cause
            });
            screen.line(&document.to_string())?;
        }
        screen.out.flush()?;
        match exit {
            None if self.stopping => Ok(Exit::Interrupted),
            None => Err(CliError::Failed(format!("{id} is {state} and was never started"))),
            Some(exit) => exit_code(exit).ok_or_else(|| {
                let why = exit.detail.as_ref().unwrap_or(&exit.cause);
                CliError::Failed(format!("{id}: {}", clean(why)))
            }),
        }
    }
}

/// What a shell says of a program that ended so; `None` when it is not known.
fn exit_code(exit: &LastExit) -> Option<Exit> {
    let code = match (exit.code, exit.signal) {
        (Some(code), _) => u8::try_from(code).ok()?,
        (None, Some(signal)) => u8::try_from(128 + signal).ok()?,
        (None, None) => return None,
    };
    Some(if code == 0 { Exit::Done } else { Exit::Program(code) })
}

/// Whether nothing more will happen to it by itself.
fn is_over(agent: &Agent) -> bool {
    match agent.state.as_str() {
        "completed" | "stopped" => true,
        "failed" => agent.retry_at.is_none(),
        _ => false,
    }
}

/// `SWARM/NAME` of what is to run.
fn identity(args: &RunArgs) -> Result<AgentId, CliError> {
    let swarm = match &args.name {
        Some(name) => name.clone(),
        None => {
            // The random part of a UUIDv7 is at its end.
            let id = Uuid::now_v7().simple().to_string();
            let name = format!("run-{}", &id[id.len() - 8..]);
            name.parse::<SwarmName>().map_err(|error| CliError::Usage(error.to_string()))?
        }
    };
    let program = args.command.first().map(String::as_str).unwrap_or_default();
    let name = agent_name(program).map_err(CliError::Usage)?;
    Ok(AgentId { swarm, name })
}

/// The command's own name, as far as an agent may have it.
fn agent_name(program: &str) -> Result<AgentName, String> {
    let base =
        Path::new(program).file_name().map(|name| name.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    let kept: String =
        base.chars().map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' }).collect();
    let name: String = kept.trim_matches('-').chars().take(NAME_LEN_MAX).collect();
    name.trim_end_matches('-')
        .parse()
        .or_else(|_| PLAIN_NAME.parse())
        .map_err(|error: crate::model::InvalidName| error.to_string())
}

fn document(
    args: &RunArgs,
    agent: &AgentId,
    cwd: &Path,
    env: &std::collections::BTreeMap<String, String>,
) -> Result<Value, CliError> {
    let mut variables = Map::new();
    for said in &args.env {
        let (key, value) = match said.split_once('=') {
            Some((key, value)) => (key, value),
            None => {
                let value = env.get(said).ok_or_else(|| {
                    CliError::Usage(format!(
                        "--env {said}: it is not set here; allowed: KEY=VALUE, or a KEY that is set"
                    ))
                })?;
                (said.as_str(), value.as_str())
            }
        };
        variables.insert(key.to_owned(), value.into());
    }
    let entry = json!({
        "name": agent.name.as_str(), "command": args.command, "restart": args.restart.word(), "env": variables
    });
    let mut document = json!({ "name": agent.swarm.as_str(), "agent": [entry] });
    match (&args.image, &args.workdir) {
        (Some(image), workdir) => {
            document["image"] = image.as_str().into();
            if let Some(workdir) = workdir {
                document["workdir"] = workdir.to_string_lossy().into();
            }
        }
        // As a shell would: here, unless it is said otherwise.
        (None, workdir) => {
            let here =
                workdir.as_ref().map_or_else(|| cwd.to_owned(), |workdir| cwd.join(workdir).components().collect());
            document["workdir"] = here.to_string_lossy().into();
        }
    }
    Ok(document)
}

/// Tells once how the launch ended.
fn launch_watch(client: Client, id: String, to: SyncSender<Heard>) {
    let path = format!("/api/v1/operations/{id}");
    thread::spawn(move || {
        loop {
            // An unreachable daemon is the affair of the stream, which says so.
            if let Ok((_, operation)) = client.get_as::<Operation>(&path)
                && operation.ended()
            {
                let _ = to.send(Heard::Launched(Box::new(operation)));
                return;
            }
            thread::sleep(LOOK);
        }
    });
}

/// Follows the log until nobody listens, or the agent is gone.
fn read_lines(client: Client, first: String, path: String, to: SyncSender<Heard>) {
    thread::spawn(move || {
        let mut last: Option<String> = None;
        loop {
            let path = if last.is_some() { format!("{path}?follow=true") } else { first.clone() };
            if let Ok(stream) = client.stream(&path, last.as_deref()) {
                for frame in Frames::new(stream) {
                    let heard = match frame.event.as_str() {
                        "line" => client.parse(&frame.data).map(Heard::Line),
                        "gap" => client.parse(&frame.data).map(Heard::Gap),
                        _ => return,
                    };
                    last = frame.id.or(last);
                    if heard.is_ok_and(|heard| to.send(heard).is_err()) {
                        return;
                    }
                }
            }
            thread::sleep(sse::RETRY);
        }
    });
}

/// Takes the swarm out of the hive, its agent included.
fn remove(client: &Client, swarm: &SwarmName) -> Result<(), CliError> {
    let answer = client.delete(&path_of(&Target::Swarm(swarm.clone())), Some(&fresh_key()))?;
    let mut operation: Operation = client.parse(&answer.text)?;
    let deadline = Instant::now() + REMOVE_WAIT;
    while !operation.ended() {
        if Instant::now() >= deadline {
            return Err(CliError::Failed(format!("operation {} is still under way", clean(&operation.id))));
        }
        thread::sleep(LOOK / 5);
        (_, operation) = client.get_as(&format!("/api/v1/operations/{}", operation.id))?;
    }
    match operation.state.as_str() {
        "succeeded" => Ok(()),
        _ => Err(CliError::Failed(operation.describe())),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_named_by_its_command() {
        for (program, name) in [
            ("/usr/bin/python3.11", "python3-11"),
            ("./My_Agent.sh", "my-agent-sh"),
            ("sleep", "sleep"),
            ("---", "main"),
            ("", "main"),
            ("a234567890b234567890c234567890d23456789--e234567890", "a234567890b234567890c234567890d23456789"),
        ] {
            assert_eq!(agent_name(program).unwrap().as_str(), name, "{program:?}");
        }
    }

    #[test]
    fn exit_codes_are_those_of_a_shell() {
        let exit = |code: Option<i64>, signal: Option<i64>| {
            exit_code(&LastExit {
                code,
                signal,
                at: String::new(),
                cause: "exited".to_owned(),
                detail: None,
                last_lines: Vec::new(),
            })
        };
        assert_eq!(exit(Some(0), None), Some(Exit::Done));
        assert_eq!(exit(Some(7), None), Some(Exit::Program(7)));
        assert_eq!(exit(None, Some(9)), Some(Exit::Program(137)));
        assert_eq!(exit(None, None), None);
    }
}
