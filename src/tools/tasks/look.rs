//! Tools that show tasks.

use std::{
    collections::{HashMap, HashSet},
    fmt::Write,
    sync::Arc,
};

use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    coordination::board::Board,
    model::{SwarmName, Task, TaskId, TaskState},
    tools::{
        call::{Answer, Call},
        error::ToolError,
        form::{Arguments, form, within},
        list::{Effect, Tool, Who},
        pile::{BYTES_MAX, Pile},
        schema,
    },
    view::work::{EdgeView, GraphView, Id, TaskIdText, TaskPageView, TaskStateWord, TaskView, brief, node, task},
};

/// Tasks that are looked at in one turn of whoever decides: others are waiting for theirs.
pub(in crate::tools) const LOOKED_AT: usize = 2_000;
/// Tasks in one answer.
const LISTED_MAX: usize = 1_000;
/// Tasks in one graph: more can't be taken in.
const NODES_MAX: usize = 2_000;
/// Bytes of a task in a graph beside its title, as a document and in the flowchart.
const NODE_BYTES: usize = 160;
/// Bytes of a dependency in it.
const EDGE_BYTES: usize = 130;
/// Tasks of a graph that are weighed in one turn: each may have hundreds behind it.
const WEIGHED: usize = 100;

pub(in crate::tools) const TOOLS: &[Tool] = &[
    Tool {
        name: "task_show",
        title: "Show a task",
        about: "Shows one task with its payload, its result and how earlier attempts ended.",
        effect: Effect::Reads,
        who: Who::Swarm,
        arguments: || schema::arguments::<Show>(Who::Swarm),
        answer: schema::of::<TaskView<'_>>,
        run: |call, arguments| Box::pin(show(call, arguments)),
    },
    Tool {
        name: "task_list",
        title: "List tasks",
        about: "Lists the tasks of the swarm, the oldest first, without payload, result and attempts unless `full`. When `next` is not null there may be more: \
                call again with it as `after`.",
        effect: Effect::Reads,
        who: Who::Swarm,
        arguments: || schema::arguments::<List>(Who::Swarm),
        answer: schema::of::<TaskPageView>,
        run: |call, arguments| Box::pin(list(call, arguments)),
    },
    Tool {
        name: "task_graph",
        title: "Show what waits for what",
        about: "Shows tasks as nodes and their dependencies as edges, how many wait for each, and which are stuck behind one that has failed.",
        effect: Effect::Reads,
        who: Who::Swarm,
        arguments: || schema::arguments::<Graph>(Who::Swarm),
        answer: schema::of::<GraphView<'_>>,
        run: |call, arguments| Box::pin(graph(call, arguments)),
    },
];

/// Which task.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Show {
    /// The task.
    id: TaskIdText,
}

/// Which tasks.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct List {
    /// In one of these states; none: in any.
    #[serde(default)]
    state: Vec<TaskStateWord>,
    /// Of this category alone.
    category: Option<String>,
    /// Of this group alone.
    group: Option<String>,
    /// Only those behind this number: `next` of the answer before.
    #[serde(default)]
    after: u64,
    /// At most so many.
    #[serde(default = "listed")]
    #[schema(minimum = 1, maximum = 1000, default = 100)]
    limit: usize,
    /// With payload, result and attempts.
    #[serde(default)]
    full: bool,
}

/// Which tasks, and how.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Graph {
    /// In one of these states; none: in any.
    #[serde(default)]
    state: Vec<TaskStateWord>,
    /// Of this group alone.
    group: Option<String>,
    /// At most so many, the oldest first.
    #[serde(default = "nodes")]
    #[schema(minimum = 1, maximum = 2000, default = 500)]
    limit: usize,
    /// As a Mermaid flowchart, too.
    #[serde(default)]
    mermaid: bool,
}

fn listed() -> usize {
    100
}

fn nodes() -> usize {
    500
}

async fn show(call: Call<'_>, arguments: &Arguments) -> Result<Answer, ToolError> {
    let Show { id } = form(arguments)?;
    let swarm = call.swarm()?.clone();
    let found = call.decide(move |cores, _| cores.board.get(&swarm, id.0)).await?;
    Ok(Answer::of(&task(&found)))
}

/// Which tasks are looked for.
#[derive(Debug, Clone, Default)]
pub(in crate::tools) struct Sought {
    states: Vec<TaskState>,
    category: Option<String>,
    pub(in crate::tools) group: Option<String>,
}

impl Sought {
    fn has(&self, task: &Task) -> bool {
        (self.states.is_empty() || self.states.contains(&task.state))
            && self.category.as_deref().is_none_or(|category| *task.spec.category == *category)
            && (self.group.is_none() || self.group.as_deref() == task.spec.group.as_deref())
    }
}

/// What was found in one turn.
struct Found {
    tasks: Vec<Arc<Task>>,
    /// Behind which number to go on; `None`: that was all.
    next: Option<u64>,
}

fn look(board: &Board, swarm: &SwarmName, sought: &Sought, after: u64, max: usize) -> Found {
    let (mut tasks, mut last, mut looked_at) = (Vec::new(), after, 0);
    for task in board.list(swarm, after) {
        if looked_at == LOOKED_AT || tasks.len() == max {
            return Found { tasks, next: Some(last) };
        }
        looked_at += 1;
        last = task.number;
        if sought.has(task) {
            tasks.push(Arc::clone(task));
        }
    }
    Found { tasks, next: None }
}

impl Call<'_> {
    /// The tasks that are looked for, the oldest first, at most so many; and behind which number there may be more. Others have their turns meanwhile, so it
    /// is no picture of one moment.
    pub(in crate::tools) async fn tasks(
        &self,
        sought: Sought,
        after: u64,
        max: usize,
    ) -> Result<(Vec<Arc<Task>>, Option<u64>), ToolError> {
        let (mut all, mut after) = (Vec::new(), after);
        loop {
            let (swarm, sought, left) = (self.swarm()?.clone(), sought.clone(), max - all.len());
            let found = self.decide(move |cores, _| Ok(look(&cores.board, &swarm, &sought, after, left))).await?;
            all.extend(found.tasks);
            match found.next {
                Some(next) if all.len() < max => after = next,
                next => return Ok((all, next)),
            }
        }
    }
}

async fn list(call: Call<'_>, arguments: &Arguments) -> Result<Answer, ToolError> {
    let wanted: List = form(arguments)?;
    let limit = within("limit", wanted.limit, 1, LISTED_MAX)?;
    let states = wanted.state.into_iter().map(|word| word.0).collect();
    let sought = Sought { states, category: wanted.category, group: wanted.group };
    let (tasks, mut next) = call.tasks(sought, wanted.after, limit).await?;
    let mut pile = Pile::one_of(1);
    let mut last = wanted.after;
    for one in &tasks {
        let document = if wanted.full { task(one) } else { brief(one) };
        if !pile.add(&document) {
            next = Some(last);
            break;
        }
        last = one.number;
    }
    Ok(Answer::of(&TaskPageView { tasks: pile.documents(), next }))
}

async fn graph(call: Call<'_>, arguments: &Arguments) -> Result<Answer, ToolError> {
    let wanted: Graph = form(arguments)?;
    let limit = within("limit", wanted.limit, 1, NODES_MAX)?;
    let states = wanted.state.into_iter().map(|word| word.0).collect();
    let sought = Sought { states, category: None, group: wanted.group };
    let (mut tasks, next) = call.tasks(sought, 0, limit).await?;
    let found = tasks.len();
    tasks.truncate(fitting(&tasks));
    let mut weights = Vec::with_capacity(tasks.len());
    for some in tasks.chunks(WEIGHED) {
        let ids: Vec<TaskId> = some.iter().map(|task| task.id).collect();
        let weighed = call.decide(move |cores, _| {
            let board = &cores.board;
            Ok(ids.into_iter().map(|id| (board.unblocks(id), board.is_stuck(id))).collect::<Vec<_>>())
        });
        weights.extend(weighed.await?);
    }
    let shown: HashSet<TaskId> = tasks.iter().map(|task| task.id).collect();
    let edges = tasks.iter().flat_map(|task| {
        let ahead = task.depends_on.iter().filter(|id| shown.contains(id));
        ahead.map(|ahead| EdgeView { task: Id(task.id), depends_on: Id(*ahead) })
    });
    Ok(Answer::of(&GraphView {
        nodes: tasks.iter().zip(&weights).map(|(task, (unblocks, stuck))| node(task, *unblocks, *stuck)).collect(),
        edges: edges.collect(),
        more: next.is_some() || tasks.len() < found,
        mermaid: wanted.mermaid.then(|| mermaid(&tasks)),
    }))
}

/// How many of the tasks fit into one answer, with all that they depend on.
fn fitting(tasks: &[Arc<Task>]) -> usize {
    let bytes = |task: &Arc<Task>| NODE_BYTES + 2 * task.spec.title.len() + EDGE_BYTES * task.depends_on.len();
    let mut room = BYTES_MAX;
    let fits = |task: &&Arc<Task>| {
        let left = room.checked_sub(bytes(task));
        room = left.unwrap_or(0);
        left.is_some()
    };
    tasks.iter().take_while(fits).count()
}

/// A flowchart from what comes before to what comes behind.
fn mermaid(tasks: &[Arc<Task>]) -> String {
    let places: HashMap<TaskId, usize> = tasks.iter().enumerate().map(|(at, task)| (task.id, at)).collect();
    let mut text = "flowchart TD\n".to_owned();
    for (at, task) in tasks.iter().enumerate() {
        // Writing to a string can't fail.
        let _ = writeln!(text, "    t{at}[\"{}\"]:::{}", label(&task.spec.title), task.state.word());
    }
    for (at, task) in tasks.iter().enumerate() {
        for before in task.depends_on.iter().filter_map(|id| places.get(id)) {
            let _ = writeln!(text, "    t{before} --> t{at}");
        }
    }
    text
}

/// Text that Mermaid takes for nothing but text.
fn label(title: &str) -> String {
    let mut text = String::with_capacity(title.len());
    for c in title.chars() {
        match c {
            '"' | '#' | '<' | '>' | '&' | '`' | '\\' | ';' => {
                let _ = write!(text, "#{};", u32::from(c));
            }
            c => text.push(c),
        }
    }
    text
}
