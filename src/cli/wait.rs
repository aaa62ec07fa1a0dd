//! `wait`: until a target is as it should be.

use std::{
    sync::mpsc::{RecvTimeoutError, sync_channel},
    time::Instant,
};

use serde_json::json;

use crate::model::Target;

use super::{
    advice::refusal,
    args::{Goal, UntilArgs},
    client::Client,
    commands::path_of,
    error::CliError,
    interrupt::Interrupts,
    picture::{self, News, Picture},
    screen::Screen,
    shapes::Agent,
    words::{clean, reasons},
};

/// News that wait to be looked at; the stream's thread waits when there are more.
const NEWS_MAX: usize = 16;

enum Heard {
    News(News),
    Interrupted,
}

/// How a target is, seen from what is waited for.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Reached,
    /// Not yet, and what is missing.
    Waiting(String),
    /// It will not get there by itself.
    Hopeless(String),
    /// There is no such target.
    Gone,
}

/// Waits on the stream of health; asks for nothing meanwhile.
pub(super) fn wait(
    client: &Client,
    args: &UntilArgs,
    interrupts: &Interrupts,
    json: bool,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let deadline = Instant::now() + args.timeout;
    let (to, heard) = sync_channel(NEWS_MAX);
    let press = to.clone();
    interrupts.listen(move |_| drop(press.try_send(Heard::Interrupted)));
    picture::watch(client.clone(), Some(args.target.swarm().as_str()), to, Heard::News);
    let mut picture = Picture::default();
    let mut seen = false;
    let mut missing = "nothing was told of it".to_owned();
    loop {
        match heard.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Heard::News(News::Refused(error))) => return Err(error),
            Ok(Heard::News(news)) => picture.take(news),
            Ok(Heard::Interrupted) => return Err(CliError::Left(format!("not waited to the end: {missing}"))),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                return Err(CliError::TimedOut {
                    what: format!("the wait for {} to be {}", args.target, word(args.goal)),
                    within: humantime::format_duration(args.timeout).to_string(),
                    hint: format!("Missing: {missing}\n`hivekeeper ps -o wide` shows why."),
                });
            }
        }
        if picture.hive.is_none() || picture.is_stale {
            continue;
        }
        match judge(&picture, &args.target, args.goal) {
            Verdict::Reached => break,
            Verdict::Waiting(what) => (seen, missing) = (true, what),
            Verdict::Hopeless(why) => return Err(CliError::Failed(why)),
            // What has ended and is not even kept any more is surely stopped.
            Verdict::Gone if seen && args.goal == Goal::Stopped => break,
            Verdict::Gone => {
                let detail = format!("{} {}", args.target, if seen { "is no longer there" } else { "not found" });
                let (code, path) = ("not_found".to_owned(), path_of(&args.target));
                return Err(CliError::Refused { detail, hint: refusal(&code, &path, None, None), code, path });
            }
        }
    }
    if json {
        let agents: Vec<_> = of(&picture, &args.target)
            .map(|agent| json!({ "agent": agent.id(), "state": agent.state, "pid": agent.pid }))
            .collect();
        let document = json!({ "target": args.target.to_string(), "reached": word(args.goal), "agents": agents });
        return Ok(screen.line(&document.to_string())?);
    }
    Ok(screen.line(&format!("{} is {}", args.target, word(args.goal)))?)
}

fn word(goal: Goal) -> &'static str {
    match goal {
        Goal::Running => "running",
        Goal::Stopped => "stopped",
        Goal::Healthy => "healthy",
    }
}

fn of<'a>(picture: &'a Picture, target: &'a Target) -> impl Iterator<Item = &'a Agent> {
    picture.agents.values().filter(move |agent| match target {
        Target::Swarm(swarm) => agent.swarm == swarm.as_str(),
        Target::Agent(id) => agent.swarm == id.swarm.as_str() && agent.name == id.name.as_str(),
    })
}

fn judge(picture: &Picture, target: &Target, goal: Goal) -> Verdict {
    let (mut any, mut missing, mut hopeless) = (false, Vec::new(), None);
    for agent in of(picture, target) {
        any = true;
        let fits = match (goal, agent.state.as_str()) {
            (Goal::Running | Goal::Healthy, "running" | "completed") => true,
            // It runs, whatever is to be said against it.
            (Goal::Running, "degraded" | "stuck") => true,
            (Goal::Stopped, "stopped" | "completed" | "failed") => true,
            _ => false,
        };
        if fits {
            continue;
        }
        let why = if agent.reasons.is_empty() { String::new() } else { format!(" ({})", reasons(&agent.reasons)) };
        let line = format!("{} is {}{why}", clean(&agent.id()), clean(&agent.state));
        let gave_up = agent.state == "failed" && agent.retry_at.is_none();
        let stays = gave_up || (agent.state == "stopped" && agent.desired == "stopped");
        if goal != Goal::Stopped && stays {
            hopeless.get_or_insert_with(|| line.clone());
        }
        missing.push(line);
    }
    let level = match target {
        Target::Swarm(name) => picture.swarms.get(name.as_str()).map(|swarm| swarm.level.as_str()),
        Target::Agent(_) => Some("healthy"),
    };
    match (any, hopeless, level) {
        (false, _, None) => Verdict::Gone,
        (false, _, _) if matches!(target, Target::Agent(_)) => Verdict::Gone,
        (_, Some(why), _) => Verdict::Hopeless(format!("{why}, and stays so until somebody acts")),
        (_, None, level) if missing.is_empty() => match (goal, level) {
            (Goal::Healthy, Some("healthy")) | (Goal::Running | Goal::Stopped, _) => Verdict::Reached,
            (Goal::Healthy, level) => {
                Verdict::Waiting(format!("swarm {target} is {}", clean(level.unwrap_or("unknown"))))
            }
        },
        _ => Verdict::Waiting(summary(&missing)),
    }
}

/// The first few by name, the rest by number.
fn summary(missing: &[String]) -> String {
    const NAMED: usize = 3;
    let more = missing.len().saturating_sub(NAMED);
    let named = missing.iter().take(NAMED).cloned().collect::<Vec<_>>().join("; ");
    if more == 0 { named } else { format!("{named}; and {more} more") }
}
