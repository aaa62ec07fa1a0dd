//! `logs`: what agents wrote.

use std::{io, ops::ControlFlow};

use clap::Args;
use regex_lite::Regex;
use serde_json::{Value, json};

use crate::model::{AgentId, Target};

use super::{
    args::{duration, target},
    client::Client,
    crowd,
    error::CliError,
    screen::Screen,
    shapes::{Agent, Gap, LogLine, LogPage},
    sse::{self, Heard},
    words::clean,
};

/// Lines that are shown when nothing else is asked for: a few screenfuls.
const TAIL_DEFAULT: u64 = 100;
/// Lines of one request; the API's own bound.
const PAGE: u64 = 5000;

/// `logs TARGET`
#[derive(Debug, Args)]
pub(super) struct LogsArgs {
    /// SWARM/NAME, or a swarm: its agents together, each line behind the name of its agent
    #[arg(value_parser = target)]
    pub(super) target: Target,
    /// Go on until Ctrl-C
    #[arg(short, long)]
    pub(super) follow: bool,
    /// Only the last N lines, before --grep chooses among them [default: 100, without --since or --grep]
    #[arg(long, value_name = "N")]
    pub(super) tail: Option<u64>,
    /// Only lines younger than this, such as 10m
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) since: Option<std::time::Duration>,
    /// Only lines in which this regular expression is found
    #[arg(long, value_name = "REGEX", value_parser = pattern)]
    pub(super) grep: Option<Regex>,
    /// Only lines in which --grep finds nothing
    #[arg(short = 'v', long, requires = "grep")]
    pub(super) invert_match: bool,
    /// Show number, time, incarnation and stream before each line
    #[arg(short, long)]
    pub(super) long: bool,
}

fn pattern(text: &str) -> Result<Regex, String> {
    Regex::new(text).map_err(|error| error.to_string())
}

impl LogsArgs {
    /// Whether a line is asked for. A line that its agent's launcher cut into pieces is judged piece by piece.
    pub(super) fn wants(&self, line: &LogLine) -> bool {
        self.grep.as_ref().is_none_or(|grep| grep.is_match(&line.text) != self.invert_match)
    }

    /// How many lines from the end are asked for; without a number, all.
    pub(super) fn tail(&self) -> Option<u64> {
        let bounded = self.since.is_none() && self.grep.is_none();
        self.tail.or_else(|| bounded.then_some(TAIL_DEFAULT))
    }

    fn query(&self) -> String {
        let since = self.since.map(|since| format!("&since={}ms", since.as_millis())).unwrap_or_default();
        // Where neither is said the API would answer with a page of the last lines, and not with all.
        let tail = self.tail().map(|tail| format!("&tail={tail}"));
        let all = tail.is_none() && self.since.is_none();
        since + &tail.unwrap_or_default() + if all { "&after=0" } else { "" }
    }

    /// Where a follower begins, and where it goes on.
    pub(super) fn stream_paths(&self, agent: &AgentId) -> (String, String) {
        let later = format!("{}?follow=true", path(agent));
        // A filter over everything that is kept would make a follower wait for the past; it begins with what it would see unfiltered.
        let query = match (self.tail, self.since) {
            (None, None) => format!("&tail={TAIL_DEFAULT}"),
            _ => self.query(),
        };
        (later.clone() + &query, later)
    }
}

/// Shows lines; with `--follow` until Ctrl-C.
pub(super) fn logs(client: &Client, args: &LogsArgs, json: bool, screen: &mut Screen<'_>) -> Result<(), CliError> {
    match (&args.target, args.follow) {
        (Target::Agent(agent), true) => follow(client, agent, args, json, screen),
        (Target::Agent(agent), false) => show(client, agent, args, json, screen),
        (Target::Swarm(swarm), true) => crowd::follow(client, swarm, args, json, screen),
        (Target::Swarm(swarm), false) => crowd::show(client, swarm, args, json, screen),
    }
}

fn follow(
    client: &Client,
    agent: &AgentId,
    args: &LogsArgs,
    json: bool,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let (first, later) = args.stream_paths(agent);
    let mut printer = Printer::new(args.long, None);
    sse::follow(client, &first, &later, |heard| {
        let frame = match heard {
            Heard::Frame(frame) => frame,
            Heard::Note(note) => {
                screen.note(&format!("hivekeeper: {note}"));
                return Ok(ControlFlow::Continue(()));
            }
        };
        match frame.event.as_str() {
            "line" => {
                let line: LogLine = client.parse(&frame.data)?;
                match args.wants(&line) {
                    true if json => screen.json(&frame.data)?,
                    true => printer.print(&line, None, screen)?,
                    false => {}
                }
            }
            _ if json => screen.json(&frame.data)?,
            "gap" => printer.gap(&client.parse(&frame.data)?, None, screen)?,
            _ => {}
        }
        screen.out.flush()?;
        Ok(if frame.event == "end" { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })
}

fn show(
    client: &Client,
    agent: &AgentId,
    args: &LogsArgs,
    json: bool,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let mut printer = Printer::new(args.long, None);
    let mut kept: Vec<Value> = Vec::new();
    let unchanged = json && args.grep.is_none();
    let (mut first_kept, mut last) = (Value::Null, Value::Null);
    pages(client, agent, args, |text, page| {
        if unchanged {
            screen.json(text)?;
            return Ok(ControlFlow::Break(()));
        }
        for line in page.lines.iter().filter(|line| args.wants(line)) {
            if json { kept.push(json!(line)) } else { printer.print(line, None, screen)? }
        }
        (first_kept, last) = (page.first_kept.into(), page.last.into());
        Ok(ControlFlow::Continue(()))
    })?;
    if json && !unchanged {
        screen.json(&json!({ "lines": kept, "first_kept": first_kept, "last": last }).to_string())?;
    }
    Ok(printer.close(screen)?)
}

/// Reads what is asked for, page by page.
pub(super) fn pages(
    client: &Client,
    agent: &AgentId,
    args: &LogsArgs,
    mut each: impl FnMut(&str, &LogPage) -> Result<ControlFlow<()>, CliError>,
) -> Result<(), CliError> {
    let (path, query) = (path(agent), args.query());
    let whole = args.tail().is_some();
    let limit = if whole { String::new() } else { format!("&limit={PAGE}") };
    let (mut answer, mut page): (_, LogPage) =
        client.get_as(&format!("{path}?{}", (query + &limit).trim_start_matches('&')))?;
    while each(&answer.text, &page)?.is_continue() {
        // Where no number was asked for there may be more lines than one answer holds.
        let more = page.lines.last().filter(|line| !whole && line.number < page.last);
        let Some(after) = more.map(|line| line.number) else { break };
        (answer, page) = client.get_as(&format!("{path}?after={after}&limit={PAGE}"))?;
    }
    Ok(())
}

fn path(agent: &AgentId) -> String {
    format!("/api/v1/swarms/{}/agents/{}/logs", agent.swarm, agent.name)
}

/// The names of a swarm's agents, as the daemon shows them.
pub(super) fn names(agents: &[Agent]) -> Vec<AgentId> {
    agents.iter().filter_map(|agent| format!("{}/{}", agent.swarm, agent.name).parse().ok()).collect()
}

/// Writes lines, of one agent as it wrote them, of several behind their names.
pub(super) struct Printer {
    long: bool,
    /// Columns of the longest name; `None` for one agent.
    width: Option<usize>,
    /// The stream whose line was cut in pieces and goes on.
    open: Option<String>,
}

impl Printer {
    pub(super) fn new(long: bool, width: Option<usize>) -> Self {
        Self { long, width, open: None }
    }

    /// The name before a line; wide enough for the longest that was there so far.
    fn prefix(&mut self, agent: Option<&AgentId>) -> String {
        let (Some(width), Some(agent)) = (self.width, agent) else { return String::new() };
        let name = agent.name.as_str();
        let width = width.max(name.chars().count());
        self.width = Some(width);
        format!("{name:width$} | ")
    }

    /// The text as the program wrote it, notes of Hivekeeper's own set off from it.
    pub(super) fn print(&mut self, line: &LogLine, agent: Option<&AgentId>, screen: &mut Screen<'_>) -> io::Result<()> {
        let prefix = self.prefix(agent);
        let cut = if line.partial { " ..." } else { "" };
        if self.long {
            let (number, incarnation, at) = (line.number, line.incarnation, clean(&line.at));
            let level = line.level.as_deref().map(|level| format!(" {}", clean(level))).unwrap_or_default();
            let stream = clean(&line.stream);
            return screen.line(&format!("{prefix}{number} {at} #{incarnation} {stream}{level}: {}{cut}", line.text));
        }
        let text = if line.stream == "hivekeeper" { format!("-- {} --", line.text) } else { line.text.clone() };
        if self.width.is_some() {
            // Lines of others come in between: each piece stands alone.
            return screen.line(&format!("{prefix}{text}{cut}"));
        }
        if self.open.as_ref().is_some_and(|open| *open != line.stream) {
            self.close(screen)?;
        }
        screen.out.write_all(text.as_bytes())?;
        self.open = line.partial.then(|| line.stream.clone());
        if !line.partial {
            screen.out.write_all(b"\n")?;
        }
        Ok(())
    }

    pub(super) fn gap(&mut self, gap: &Gap, agent: Option<&AgentId>, screen: &mut Screen<'_>) -> io::Result<()> {
        self.close(screen)?;
        let prefix = self.prefix(agent);
        let (from, to) = (gap.after + 1, gap.first_kept.saturating_sub(1));
        screen.line(&format!("{prefix}-- lines {from} to {to} are no longer kept --"))
    }

    pub(super) fn close(&mut self, screen: &mut Screen<'_>) -> io::Result<()> {
        match self.open.take() {
            Some(_) => screen.out.write_all(b"\n"),
            None => Ok(()),
        }
    }
}
