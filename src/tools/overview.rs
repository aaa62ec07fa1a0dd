//! Tools that show how far the work is, and how those are who do it.

use std::{sync::Arc, time::SystemTime};

use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    call::{Answer, Call},
    error::ToolError,
    form::{Arguments, form},
    list::{Effect, Tool, Who},
    pile::Pile,
    report, schema,
    tasks::Sought,
};
use crate::{
    coordination::progress::{self, Progress},
    model::Task,
    view::{
        self, Rfc3339,
        work::{GroupView, HealthView, ProgressReportView, ReportView, blocker, ms},
    },
};

pub(super) const TOOLS: &[Tool] = &[
    Tool {
        name: "progress_report",
        title: "How far the work is",
        about: "Tells of each group of tasks how many are done, how many are done in an hour and how long the rest will take at that rate, and what holds others up.",
        effect: Effect::Reads,
        who: Who::Swarm,
        arguments: || schema::arguments::<Which>(Who::Swarm),
        answer: schema::of::<ProgressReportView>,
        run: |call, arguments| Box::pin(progress_report(call, arguments)),
    },
    Tool {
        name: "report",
        title: "Write a report",
        about: "Writes a report on the tasks as Markdown, for people: what was finished, by whom and in what time, which attempts were lost, what is blocked and why, \
                what has failed.",
        effect: Effect::Reads,
        who: Who::Swarm,
        arguments: || schema::arguments::<Which>(Who::Swarm),
        answer: schema::of::<ReportView>,
        run: |call, arguments| Box::pin(write_report(call, arguments)),
    },
    Tool {
        name: "health",
        title: "How everybody is",
        about: "Shows the health of everything or, where a swarm is named, of that swarm and its agents: what was measured and when, or why it is not known.",
        effect: Effect::Reads,
        who: Who::Anyone,
        arguments: || schema::arguments::<Nothing>(Who::Anyone),
        answer: schema::of::<HealthView<'_>>,
        run: |call, arguments| Box::pin(health(call, arguments)),
    },
];

/// Which tasks.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Which {
    /// Of this group alone.
    group: Option<String>,
}

/// Nothing is to be said.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}

impl Call<'_> {
    /// How far each group is, or one of them; and all tasks by which that was found.
    async fn progress(&self, group: Option<&str>) -> Result<(Vec<Arc<Task>>, Vec<Progress>), ToolError> {
        let (tasks, _) = self.tasks(Sought::default(), 0, usize::MAX).await?;
        let mut groups = progress::of_tasks(&tasks, SystemTime::now());
        if let Some(wanted) = group {
            groups.retain(|one| one.group.as_deref() == Some(wanted));
        }
        Ok((tasks, groups))
    }
}

async fn progress_report(call: Call<'_>, arguments: &Arguments) -> Result<Answer, ToolError> {
    let Which { group } = form(arguments)?;
    let (_, groups) = call.progress(group.as_deref()).await?;
    let mut pile = Pile::one_of(1);
    let shown = |one: &Progress| {
        pile.add(&GroupView {
            group: one.group.as_deref(),
            total: one.total,
            done: one.done(),
            states: &one.states,
            recently_done: one.recently_done,
            done_per_hour: one.done_per_hour,
            remaining_ms: one.remaining.map(ms),
            blockers: one.blockers.iter().map(|one| blocker(&one.task, one.holds_up)).collect(),
        })
    };
    let all = groups.iter().all(shown);
    Ok(Answer::of(&ProgressReportView { groups: pile.documents(), more: !all }))
}

async fn write_report(call: Call<'_>, arguments: &Arguments) -> Result<Answer, ToolError> {
    let Which { group } = form(arguments)?;
    let (tasks, groups) = call.progress(group.as_deref()).await?;
    let now = SystemTime::now();
    let tasks: Vec<&Task> = tasks
        .iter()
        .map(|task| &**task)
        .filter(|task| group.is_none() || task.spec.group.as_deref() == group.as_deref())
        .collect();
    let markdown = report::markdown(call.swarm()?, group.as_deref(), &tasks, &groups, now);
    Ok(Answer::of(&ReportView { made_at: Rfc3339(now), markdown }))
}

async fn health(call: Call<'_>, arguments: &Arguments) -> Result<Answer, ToolError> {
    let Nothing {} = form(arguments)?;
    let hive = call.tools.house.hive();
    let Some(name) = &call.swarm else {
        return Ok(Answer::of(&HealthView { hive: Some(view::hive(&hive)), swarm: None, agents: None }));
    };
    let swarm = call.tools.house.swarm(name).ok_or_else(|| ToolError::UnknownSwarm(name.to_string()))?;
    let mut pile = Pile::one_of(1);
    let mut agents = hive.agents.iter().filter(|agent| agent.id.swarm == *name);
    while agents.next().is_some_and(|agent| pile.add(&view::agent(agent))) {}
    let agents = Some(pile.documents());
    Ok(Answer::of(&HealthView { hive: None, swarm: Some(view::swarm(&swarm)), agents }))
}
