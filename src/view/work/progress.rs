//! How far tasks are, and what waits for what.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::words::{Id, TaskIdText, TaskStateWord, Word};
use crate::{
    model::Task,
    view::{
        health::{self, AgentView, HiveView, ReasonView, SwarmView},
        time::Rfc3339,
    },
};

/// How far each group of tasks is.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ProgressReport)]
pub struct ProgressReportView {
    /// Those without a group first, then by name.
    #[schema(value_type = Vec<GroupView<'static>>)]
    pub groups: Vec<Box<RawValue>>,
    /// Whether there are more groups than fit into one answer: ask for one of them.
    pub more: bool,
}

/// How far one group is.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = GroupProgress)]
pub struct GroupView<'a> {
    /// Its name; null: tasks without a group.
    pub group: Option<&'a str>,
    /// Tasks that count: all save the cancelled ones.
    pub total: usize,
    /// Of these, those that are done.
    pub done: usize,
    /// How many stand where; states with none are left out.
    #[schema(value_type = BTreeMap<String, u64>)]
    pub states: &'a BTreeMap<&'static str, usize>,
    /// Tasks done within the last hour.
    pub recently_done: usize,
    /// Tasks done in an hour; null when too few were done to tell.
    pub done_per_hour: Option<f64>,
    /// How long all that can be done will take at this rate; null when there is no rate or nothing left to do.
    pub remaining_ms: Option<u64>,
    /// What holds others up, the one that holds up most first.
    pub blockers: Vec<BlockerView<'a>>,
}

/// A task that others wait for and that can't go on as things are.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Blocker)]
pub struct BlockerView<'a> {
    id: TaskIdText,
    title: &'a str,
    /// `failed` or `cancelled`.
    state: TaskStateWord,
    reasons: Vec<ReasonView<'a>>,
    /// How many wait for it, directly or through others; counted up to 256.
    holds_up: u32,
}

/// Shows what holds others up.
pub fn blocker(task: &Task, holds_up: u32) -> BlockerView<'_> {
    BlockerView {
        id: Id(task.id),
        title: &task.spec.title,
        state: Word(task.state),
        reasons: task.reasons.iter().map(|text| health::reason_text(text)).collect(),
        holds_up,
    }
}

/// What waits for what.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = TaskGraph)]
pub struct GraphView<'a> {
    /// Oldest first.
    pub nodes: Vec<NodeView<'a>>,
    /// Between nodes that are shown.
    pub edges: Vec<EdgeView>,
    /// Whether there are more tasks than are shown.
    pub more: bool,
    /// The same as a Mermaid flowchart, if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    pub mermaid: Option<String>,
}

/// A task in the graph.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = TaskNode)]
pub struct NodeView<'a> {
    id: TaskIdText,
    title: &'a str,
    state: TaskStateWord,
    /// How many that have not ended wait for it, directly or through others; counted up to 256.
    unblocks: u32,
    /// Whether it can't go on unless somebody intervenes: one that it depends on has failed, was cancelled, or can't go on itself.
    stuck: bool,
}

/// Shows a task in the graph.
pub fn node(task: &Task, unblocks: u32, stuck: bool) -> NodeView<'_> {
    NodeView { id: Id(task.id), title: &task.spec.title, state: Word(task.state), unblocks, stuck }
}

/// One dependency.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = TaskEdge)]
pub struct EdgeView {
    /// What waits.
    pub task: TaskIdText,
    /// For what.
    pub depends_on: TaskIdText,
}

/// A report for people.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Report)]
pub struct ReportView {
    /// When it was made.
    pub made_at: Rfc3339,
    /// Markdown.
    pub markdown: String,
}

/// How everything is, or how one swarm is.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = HealthAnswer)]
pub struct HealthView<'a> {
    /// The health document of all, where no swarm was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = HiveView<'a>, required = false)]
    pub hive: Option<HiveView<'a>>,
    /// The swarm that was named, or that of the agent that asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = SwarmView<'a>, required = false)]
    pub swarm: Option<SwarmView<'a>>,
    /// Its agents, the first ones; `agents_total` of the swarm is how many there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Vec<AgentView<'static>>, required = false)]
    pub agents: Option<Vec<Box<RawValue>>>,
}
