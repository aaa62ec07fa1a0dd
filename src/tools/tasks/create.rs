//! Tools by which tasks come into being.

use std::{fmt, sync::Arc, time::Duration};

use serde::{
    Deserialize, Deserializer,
    de::{self, Unexpected, Visitor},
};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::{
    coordination::board::{CREATED_MAX, Dependency, NewTask},
    model::{OnDependencyFailure, Priority, Retry, TaskId, TaskSpec},
    tools::{
        call::{Answer, Call},
        error::ToolError,
        form::{Arguments, form, item, within},
        list::{Effect, Tool, Who},
        schema,
    },
    view::work::{
        CreatedTasksView, Id, Json, OnDependencyFailureWord, PriorityWord, TaskIdText, TaskView, brief, created,
    },
};

pub(in crate::tools) const TOOLS: &[Tool] = &[
    Tool {
        name: "task_create",
        title: "Create tasks",
        about: "Creates tasks, all of them or none. A task may come behind others: those that are there, by id, and those of this call, by their place from 0. \
                A task is `blocked` until all that it depends on are done, then `ready` to be claimed. With a `key` the same call again creates nothing \
                and answers with what it created the first time.",
        effect: Effect::Adds,
        who: Who::Swarm,
        arguments: || schema::arguments::<Create>(Who::Swarm),
        answer: schema::of::<CreatedTasksView<'_>>,
        run: |call, arguments| Box::pin(create(call, arguments)),
    },
    Tool {
        name: "task_depend",
        title: "Put a task behind others",
        about: "Lets a task that nobody has claimed come behind others, too. Tasks that would wait for each other are refused, and the circle is named.",
        effect: Effect::AddsOnce,
        who: Who::Swarm,
        arguments: || schema::arguments::<Depend>(Who::Swarm),
        answer: schema::of::<TaskView<'_>>,
        run: |call, arguments| Box::pin(depend(call, arguments)),
    },
];

/// Tasks to be created.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Create {
    /// What to create, in an order in which you can refer to them.
    #[schema(value_type = Vec<NewTaskForm>, min_items = 1, max_items = 1000)]
    tasks: Vec<Box<RawValue>>,
    /// Your name for this call, so that repeating it creates nothing twice.
    #[schema(min_length = 1, max_length = 128)]
    key: Option<String>,
}

/// A task to be created.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewTask)]
struct NewTaskForm {
    /// One line that says what is to be done.
    #[schema(min_length = 1, max_length = 200)]
    title: String,
    /// What kind of work it is; whoever claims may ask for some kinds alone.
    #[serde(default = "general")]
    #[schema(min_length = 1, max_length = 128, default = "general")]
    category: String,
    /// How urgent it is.
    #[schema(value_type = PriorityWord, required = false, default = "normal")]
    priority: Option<PriorityWord>,
    /// All that whoever does it needs to know: any JSON value of at most 64 KiB.
    #[schema(value_type = Json, required = false)]
    payload: Option<Json>,
    /// What it belongs to, for progress and reports.
    #[schema(min_length = 1, max_length = 128)]
    group: Option<String>,
    /// What must be done before: ids of tasks that are there, or places from 0 of tasks in this call.
    #[serde(default)]
    #[schema(max_items = 20)]
    depends_on: Vec<DependencyForm>,
    /// If one that it depends on fails or is cancelled: stay blocked, or go on as if that were done.
    #[schema(value_type = OnDependencyFailureWord, required = false, default = "block")]
    on_dependency_failure: Option<OnDependencyFailureWord>,
    /// Attempts after the first that may fail before the task has failed.
    #[serde(default)]
    #[schema(maximum = 100, default = 0)]
    retries: u32,
    /// The pause before the first retry; doubled before each further one.
    #[schema(maximum = 2_592_000_000_u64, default = 1000)]
    backoff_ms: Option<u64>,
    /// The longest pause before a retry.
    #[schema(maximum = 2_592_000_000_u64, default = 60_000)]
    backoff_max_ms: Option<u64>,
    /// How long one attempt may take, however often its claim is renewed; none: as long as it is.
    #[schema(minimum = 1, maximum = 2_592_000_000_u64)]
    attempt_timeout_ms: Option<u64>,
}

/// The id of a task, or a place in this call.
#[derive(Debug, ToSchema)]
#[serde(untagged)]
#[schema(as = Dependency)]
enum DependencyForm {
    /// A task that is there.
    Task(TaskIdText),
    /// One of this call, by its place from 0.
    Index(usize),
}

impl<'de> Deserialize<'de> for DependencyForm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl Visitor<'_> for Reader {
            type Value = DependencyForm;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("ids of tasks, or places from 0 in this call")
            }

            fn visit_u64<E: de::Error>(self, at: u64) -> Result<DependencyForm, E> {
                // What is beyond all places is refused by its number.
                Ok(DependencyForm::Index(usize::try_from(at).unwrap_or(usize::MAX)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<DependencyForm, E> {
                let id = text.parse().map_err(|_| E::invalid_value(Unexpected::Str(text), &self))?;
                Ok(DependencyForm::Task(Id(id)))
            }
        }

        deserializer.deserialize_any(Reader)
    }
}

fn general() -> String {
    "general".to_owned()
}

/// The pause before a first retry, where nothing is said.
const BACKOFF: Duration = Duration::from_secs(1);
/// The longest pause, where nothing is said.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

impl From<NewTaskForm> for NewTask {
    fn from(form: NewTaskForm) -> Self {
        let spec = TaskSpec {
            title: form.title.into(),
            category: form.category.into(),
            priority: form.priority.map_or(Priority::Normal, |word| word.0),
            payload: form.payload.unwrap_or_else(Json::null).0,
            group: form.group.map(Arc::from),
            on_dependency_failure: form.on_dependency_failure.map_or(OnDependencyFailure::Block, |word| word.0),
            retry: Retry {
                retries: form.retries,
                backoff: form.backoff_ms.map_or(BACKOFF, Duration::from_millis),
                backoff_max: form.backoff_max_ms.map_or(BACKOFF_MAX, Duration::from_millis),
            },
            attempt_timeout: form.attempt_timeout_ms.map(Duration::from_millis),
        };
        let depends_on = form.depends_on.into_iter().map(|dependency| match dependency {
            DependencyForm::Task(id) => Dependency::Task(id.0),
            DependencyForm::Index(at) => Dependency::Index(at),
        });
        Self { spec, depends_on: depends_on.collect() }
    }
}

async fn create(call: Call<'_>, arguments: &Arguments) -> Result<Answer, ToolError> {
    let wanted: Create = form(arguments)?;
    within("tasks", wanted.tasks.len(), 1, CREATED_MAX)?;
    let new: Result<Vec<NewTask>, ToolError> =
        wanted.tasks.iter().enumerate().map(|(at, text)| Ok(item::<NewTaskForm>("tasks", at, text)?.into())).collect();
    let (new, key, swarm, by) = (new?, wanted.key.map(Arc::from), call.swarm()?.clone(), call.party.clone());
    let made = call
        .decide(move |cores, now| cores.board.create(&mut cores.counter, &swarm, by.as_ref(), new, key, now))
        .await?;
    Ok(Answer::of(&CreatedTasksView { tasks: made.iter().map(|task| created(task)).collect() }))
}

/// More that a task depends on.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Depend {
    /// The task that is to wait.
    id: TaskIdText,
    /// The tasks that it is to wait for, too.
    #[schema(min_items = 1, max_items = 20)]
    depends_on: Vec<TaskIdText>,
}

async fn depend(call: Call<'_>, arguments: &Arguments) -> Result<Answer, ToolError> {
    let wanted: Depend = form(arguments)?;
    let swarm = call.swarm()?.clone();
    let on: Vec<TaskId> = wanted.depends_on.into_iter().map(|id| id.0).collect();
    let task = call.decide(move |cores, now| cores.board.depend(&swarm, wanted.id.0, &on, now)).await?;
    Ok(Answer::of(&brief(&task)))
}
