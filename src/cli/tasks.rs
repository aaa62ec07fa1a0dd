//! `tasks`: what is to be done, who does it, and what came of it.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use clap::{Args, Subcommand, ValueEnum};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    args::duration,
    client::Client,
    error::CliError,
    screen::Screen,
    shapes::Reason,
    table::{self, Cell},
    words::{ago, clean, reasons, until},
    work::{Desk, Party, Whose, at, facts, json_value, ms, or_dash},
};

/// Tasks that are listed when no number is asked for.
const LIST_DEFAULT: u32 = 100;
const HEADER: [&str; 6] = ["ID", "STATE", "PRIORITY", "HOLDER", "SINCE", "TITLE"];

/// What is done with tasks; without a word they are listed.
#[derive(Debug, Subcommand)]
pub(super) enum TasksCommand {
    /// List tasks, the oldest first
    #[command(alias = "list")]
    Ls(Filter),
    /// Show one task with its payload, its result and how earlier attempts ended
    Show {
        /// The task's id
        id: String,
    },
    /// Create a task, or several out of a file
    Create(NewTask),
    /// Take ready tasks, the most urgent first; each comes with the token that every later call must show
    Claim {
        /// Of this category alone; may be said again
        #[arg(long, value_name = "CATEGORY")]
        category: Vec<String>,
        /// How many at most
        #[arg(long, value_name = "N", default_value = "1")]
        max: u32,
        /// How long to wait for one when none is ready
        #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "0s")]
        wait: Duration,
        /// How long the claim holds
        #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10m")]
        lease: Duration,
    },
    /// Say that a claimed task is done
    Complete {
        #[command(flatten)]
        claimed: Claimed,
        /// What to leave for others, as JSON
        #[arg(long, value_name = "JSON", value_parser = json_value)]
        result: Option<Value>,
    },
    /// Say that a claimed task could not be done
    Fail {
        #[command(flatten)]
        claimed: Claimed,
        /// Why
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Call off a task that has not ended, whoever holds it
    Cancel {
        /// The task's id
        id: String,
        /// Why
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Let a task that has failed or was cancelled be claimed again
    Retry {
        /// The task's id
        id: String,
    },
    /// Write what waits for what as a Mermaid flowchart
    Graph {
        /// Of this group alone
        #[arg(long, value_name = "GROUP")]
        group: Option<String>,
    },
}

/// Which tasks to list.
#[derive(Debug, Default, Args)]
pub(super) struct Filter {
    /// In one of these states, with commas
    #[arg(long, value_name = "STATES")]
    state: Option<String>,
    /// Of this category alone
    #[arg(long, value_name = "CATEGORY")]
    category: Option<String>,
    /// Of this group alone
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// Only those behind this number
    #[arg(long, value_name = "NUMBER")]
    after: Option<u64>,
    /// How many at most [default: 100]
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
}

/// A claim that is held.
#[derive(Debug, Args)]
pub(super) struct Claimed {
    /// The task's id
    id: String,
    /// The fencing token of the claim
    #[arg(long, value_name = "FENCE")]
    fence: u64,
}

/// A task to be created.
#[derive(Debug, Args)]
pub(super) struct NewTask {
    /// What is to be done, in one line
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    title: Option<String>,
    /// What kind of work it is
    #[arg(long, value_name = "CATEGORY", conflicts_with = "file")]
    category: Option<String>,
    /// How urgent it is
    #[arg(long, value_enum, value_name = "PRIORITY", conflicts_with = "file")]
    priority: Option<Priority>,
    /// All that whoever does it needs to know, as JSON
    #[arg(long, value_name = "JSON", value_parser = json_value, conflicts_with = "file")]
    payload: Option<Value>,
    /// What it belongs to, for progress and reports
    #[arg(long, value_name = "GROUP", conflicts_with = "file")]
    group: Option<String>,
    /// The id of a task that must be done before; may be said again
    #[arg(long = "after", value_name = "ID", conflicts_with = "file")]
    depends_on: Vec<String>,
    /// Attempts after the first that may fail before the task has failed
    #[arg(long, value_name = "N", conflicts_with = "file")]
    retries: Option<u32>,
    /// How long one attempt may take
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "file")]
    attempt_timeout: Option<Duration>,
    /// A file with the tasks as the API takes them: {"tasks": [...]}; `-` is standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// How urgent something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Priority {
    /// Before everything else
    Critical,
    /// Before the usual
    High,
    /// The usual
    Normal,
    /// When nothing else is there
    Low,
}

impl Priority {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }
}

#[derive(Deserialize)]
struct Page {
    tasks: Vec<Task>,
    #[serde(default)]
    next: Option<u64>,
}

#[derive(Deserialize)]
struct Task {
    id: String,
    state: String,
    title: String,
    #[serde(default)]
    since: Option<String>,
    #[serde(default)]
    category: String,
    #[serde(default)]
    priority: String,
    #[serde(default)]
    group: Option<String>,
    #[serde(default)]
    reasons: Vec<Reason>,
    #[serde(default)]
    depends_on: Vec<String>,
    #[serde(default)]
    created_at: Option<String>,
    #[serde(default)]
    created_by: Option<Party>,
    #[serde(default)]
    not_before: Option<String>,
    #[serde(default)]
    claim: Option<Claim>,
    #[serde(default)]
    progress: Option<Progress>,
    #[serde(default)]
    payload: Option<Value>,
    #[serde(default)]
    result: Option<Value>,
    #[serde(default)]
    attempts: Vec<Attempt>,
}

#[derive(Deserialize)]
struct Claim {
    holder: Party,
    fence: u64,
    lease_until: String,
}

#[derive(Deserialize)]
struct Progress {
    percent: Option<u8>,
    note: Option<String>,
    at: String,
}

#[derive(Deserialize)]
struct Attempt {
    holder: Party,
    until: String,
    end: String,
    reason: Option<String>,
}

#[derive(Deserialize)]
struct Graph {
    #[serde(default)]
    mermaid: Option<String>,
}

/// Lists, shows or changes tasks.
pub(super) fn tasks(
    client: &Client,
    command: Option<&TasksCommand>,
    whose: &Whose,
    around: (&Path, SystemTime),
    json: bool,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let (cwd, now) = around;
    let desk = Desk::new(client, whose)?;
    let one = |id: &str, verb: &str| format!("/api/v1/tasks/{id}{verb}");
    let everything = TasksCommand::Ls(Filter::default());
    let answer = match command.unwrap_or(&everything) {
        TasksCommand::Ls(filter) => return list(&desk, filter, now, json, screen),
        TasksCommand::Show { id } => {
            let answer = desk.get(&one(id, ""), Vec::new())?;
            if json {
                return Ok(screen.json(&answer.text)?);
            }
            return show(&desk.parse(&answer)?, now, screen);
        }
        TasksCommand::Graph { group } => {
            let mut query = vec![("mermaid", "true".to_owned())];
            query.extend(group.clone().map(|group| ("group", group)));
            let answer = desk.get("/api/v1/tasks/graph", query)?;
            if json {
                return Ok(screen.json(&answer.text)?);
            }
            let Graph { mermaid } = desk.parse(&answer)?;
            return Ok(screen.line(mermaid.unwrap_or_default().trim_end())?);
        }
        TasksCommand::Create(new) => desk.post("/api/v1/tasks", new.body(cwd)?)?,
        TasksCommand::Claim { category, max, wait, lease } => {
            let body = json!({ "categories": category, "max": max, "wait_ms": ms(*wait), "lease_ms": ms(*lease) });
            desk.post_as("/api/v1/tasks/claim", body, *wait)?
        }
        TasksCommand::Complete { claimed, result } => {
            let body = json!({ "fence": claimed.fence, "result": result });
            desk.post_as(&one(&claimed.id, "/complete"), body, Duration::ZERO)?
        }
        TasksCommand::Fail { claimed, reason } => {
            let body = json!({ "fence": claimed.fence, "reason": reason });
            desk.post_as(&one(&claimed.id, "/fail"), body, Duration::ZERO)?
        }
        TasksCommand::Cancel { id, reason } => desk.post(&one(id, "/cancel"), json!({ "reason": reason }))?,
        TasksCommand::Retry { id } => desk.post(&one(id, "/retry"), json!({}))?,
    };
    if json {
        return Ok(screen.json(&answer.text)?);
    }
    let shown: Value = desk.parse(&answer)?;
    let tasks: Vec<Task> = match shown.get("tasks").is_some() {
        true => desk.parse::<Page>(&answer)?.tasks,
        false => vec![desk.parse(&answer)?],
    };
    if tasks.is_empty() {
        screen.note("no task is ready");
    }
    for task in &tasks {
        screen.line(&task.describe())?;
    }
    Ok(())
}

fn list(
    desk: &Desk<'_>,
    filter: &Filter,
    now: SystemTime,
    json: bool,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let limit = filter.limit.unwrap_or(LIST_DEFAULT);
    let mut query = vec![("limit", limit.to_string())];
    query.extend(filter.state.clone().map(|state| ("state", state)));
    query.extend(filter.category.clone().map(|category| ("category", category)));
    query.extend(filter.group.clone().map(|group| ("group", group)));
    query.extend(filter.after.map(|after| ("after", after.to_string())));
    let answer = desk.get("/api/v1/tasks", query)?;
    if json {
        return Ok(screen.json(&answer.text)?);
    }
    let Page { tasks, next } = desk.parse(&answer)?;
    let rows: Vec<Vec<Cell>> = tasks.iter().map(|task| task.row(now)).collect();
    for line in table::lines(&HEADER, &rows, None, screen.colour) {
        screen.line(&line)?;
    }
    match next {
        Some(next) => screen.note(&format!("There are more: --after {next}")),
        None if tasks.is_empty() => screen.note("There is no such task."),
        None => {}
    }
    Ok(())
}

impl NewTask {
    fn body(&self, cwd: &Path) -> Result<Value, CliError> {
        if let Some(file) = &self.file {
            let failed = |why: String| CliError::Failed(format!("can't read {}: {why}", file.display()));
            let mut text = String::new();
            match file.as_os_str() == "-" {
                true => std::io::stdin().read_to_string(&mut text).map(drop),
                false => std::fs::read_to_string(cwd.join(file)).map(|read| text = read),
            }
            .map_err(|error| failed(error.to_string()))?;
            return serde_json::from_str(&text).map_err(|error| failed(error.to_string()));
        }
        let mut task = json!({
            "title": self.title, "category": self.category, "priority": self.priority.map(Priority::word),
            "payload": self.payload, "group": self.group, "retries": self.retries,
            "attempt_timeout_ms": self.attempt_timeout.map(ms),
        });
        if let Some(members) = task.as_object_mut() {
            members.retain(|_, value| !value.is_null());
            if !self.depends_on.is_empty() {
                members.insert("depends_on".to_owned(), json!(self.depends_on));
            }
        }
        Ok(json!({ "tasks": [task] }))
    }
}

impl Task {
    fn row(&self, now: SystemTime) -> Vec<Cell> {
        let holder = self.claim.as_ref().map(|claim| claim.holder.describe());
        vec![
            Cell::new(clean(&self.id)),
            Cell::state(&clean(&self.state)),
            Cell::new(clean(&self.priority)),
            Cell::new(or_dash(holder)),
            Cell::number(or_dash(self.since.as_ref().map(|since| ago(since, now)))),
            Cell::new(clean(&self.title)),
        ]
    }

    /// `ID: done`, or `ID: claimed with the fence 7: read the code`.
    fn describe(&self) -> String {
        let fence = self.claim.as_ref().map(|claim| format!(" with the fence {}", claim.fence)).unwrap_or_default();
        clean(&format!("{}: {}{fence}: {}", self.id, self.state, self.title))
    }
}

fn show(task: &Task, now: SystemTime, screen: &mut Screen<'_>) -> Result<(), CliError> {
    let state = task.since.as_ref().map_or_else(|| clean(&task.state), |since| at(&task.state, since, now));
    let created = task.created_at.as_ref().map(|created| {
        let by = task.created_by.as_ref().map(|by| format!(" by {}", by.describe())).unwrap_or_default();
        format!("{}{by}", ago(created, now))
    });
    let claim = task.claim.as_ref().map(|claim| {
        let left = until(&claim.lease_until, now);
        format!("{} with the fence {}, which ends {left} unless it is renewed", claim.holder.describe(), claim.fence)
    });
    let progress = task.progress.as_ref().map(|progress| {
        let percent = progress.percent.map(|percent| format!("{percent} %"));
        let said: Vec<String> = [percent, progress.note.as_deref().map(clean)].into_iter().flatten().collect();
        format!("{}, {}", said.join(", "), ago(&progress.at, now))
    });
    let json =
        |value: &Option<Value>| value.as_ref().filter(|value| !value.is_null()).map(|value| clean(&value.to_string()));
    screen.line(&clean(&task.title))?;
    facts(
        vec![
            ("id", Some(clean(&task.id))),
            ("state", Some(state)),
            ("why", Some(reasons(&task.reasons)).filter(|why| !why.is_empty())),
            ("not before", task.not_before.as_ref().map(|at| until(at, now))),
            ("category", Some(clean(&task.category))),
            ("priority", Some(clean(&task.priority))),
            ("group", task.group.as_deref().map(clean)),
            ("created", created),
            ("behind", Some(clean(&task.depends_on.join(", "))).filter(|ids| !ids.is_empty())),
            ("held by", claim),
            ("progress", progress),
            ("payload", json(&task.payload)),
            ("result", json(&task.result)),
        ],
        screen,
    )?;
    for attempt in &task.attempts {
        let why = attempt.reason.as_deref().map(|why| format!(": {}", clean(why))).unwrap_or_default();
        let ended = at(&attempt.end, &attempt.until, now);
        screen.line(&format!("{:<12} {} by {}{why}", "attempt", ended, attempt.holder.describe()))?;
    }
    Ok(())
}
