//! How far a group of tasks is, from its documents alone.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::board::{REACH_MAX, graph::reach};
use crate::model::{Task, TaskId, TaskState};

/// The time over which throughput is measured.
pub const WINDOW: Duration = Duration::from_secs(3600);
/// Tasks done within the window from which on a rate is one; fewer are a guess.
pub const MEASURED_MIN: usize = 2;
/// Blockers that are named.
pub const BLOCKERS_MAX: usize = 20;

/// How far a group is.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// Whose; `None`: tasks without a group.
    pub group: Option<Arc<str>>,
    /// Tasks that count: all save the cancelled ones.
    pub total: usize,
    /// How many stand where; those with none are left out.
    pub states: BTreeMap<&'static str, usize>,
    /// Tasks done within the window.
    pub recently_done: usize,
    /// Tasks done in an hour, over the window or, if that is shorter, since the first claim; `None` when too few were done to tell.
    pub done_per_hour: Option<f64>,
    /// When all that can be done will be, at this rate; `None` when there is no rate or nothing left to do.
    pub remaining: Option<Duration>,
    /// What holds others up, the one that holds up most first.
    pub blockers: Vec<Blocker>,
}

/// A task that others wait for and that nobody can bring to an end as things are.
#[derive(Debug, Clone, PartialEq)]
pub struct Blocker {
    /// Which: it has failed or was cancelled.
    pub task: Arc<Task>,
    /// How many that have not ended wait for it, directly or through others; counted up to 256.
    pub holds_up: u32,
}

impl Progress {
    /// How many are done.
    pub fn done(&self) -> usize {
        self.states.get(TaskState::Done.word()).copied().unwrap_or(0)
    }
}

/// The progress of each group of a swarm by all its tasks, in the order of names; those without a group come first.
pub fn of_tasks(tasks: &[Arc<Task>], now: SystemTime) -> Vec<Progress> {
    let mut all = All { tasks: HashMap::new(), dependents: HashMap::new() };
    let mut groups: BTreeMap<Option<&Arc<str>>, Vec<&Arc<Task>>> = BTreeMap::new();
    for task in tasks {
        all.tasks.insert(task.id, task);
        for before in &task.depends_on {
            all.dependents.entry(*before).or_default().push(task.id);
        }
        groups.entry(task.spec.group.as_ref()).or_default().push(task);
    }
    groups.into_iter().map(|(group, tasks)| of_group(&all, group.cloned(), &tasks, now)).collect()
}

/// Whether a task can't go on unless somebody intervenes: its reasons name one that has failed, was cancelled, or can't go on itself.
pub fn is_stuck(task: &Task) -> bool {
    task.state == TaskState::Blocked && task.reasons.iter().any(|reason| reason.starts_with("dependency_"))
}

/// All tasks of a swarm.
struct All<'a> {
    tasks: HashMap<TaskId, &'a Arc<Task>>,
    dependents: HashMap<TaskId, Vec<TaskId>>,
}

impl All<'_> {
    /// How many that have not ended wait for this one.
    fn unblocks(&self, id: TaskId) -> u32 {
        let open = |id: &TaskId| self.tasks.get(id).is_some_and(|task| !task.state.ended());
        let behind = |id: TaskId| self.dependents.get(&id).into_iter().flatten().copied().filter(open).collect();
        reach(id, REACH_MAX, behind)
    }
}

fn of_group(all: &All<'_>, group: Option<Arc<str>>, tasks: &[&Arc<Task>], now: SystemTime) -> Progress {
    let mut states = BTreeMap::new();
    for task in tasks {
        *states.entry(task.state.word()).or_default() += 1;
    }
    let cancelled = states.get(TaskState::Cancelled.word()).copied().unwrap_or(0);
    let opens = now.checked_sub(WINDOW).unwrap_or(SystemTime::UNIX_EPOCH);
    let recently = |task: &&&Arc<Task>| task.state == TaskState::Done && task.since >= opens;
    let recently_done = tasks.iter().filter(recently).count();
    let begun = tasks.iter().filter_map(|task| begun(task)).min();
    let window = begun.and_then(|begun| now.duration_since(begun.max(opens)).ok()).filter(|window| !window.is_zero());
    let done_per_hour = window
        .filter(|_| recently_done >= MEASURED_MIN)
        .map(|window| f64::from(u32::try_from(recently_done).unwrap_or(u32::MAX)) * 3600.0 / window.as_secs_f64());
    let left = tasks.iter().filter(|task| !task.state.ended() && !is_stuck(task)).count();
    let remaining = done_per_hour.filter(|_| left > 0).and_then(|rate| {
        Duration::try_from_secs_f64(f64::from(u32::try_from(left).unwrap_or(u32::MAX)) * 3600.0 / rate).ok()
    });
    Progress {
        total: tasks.len() - cancelled,
        group,
        states,
        recently_done,
        done_per_hour,
        remaining,
        blockers: blockers(all, tasks),
    }
}

/// When somebody first had it.
fn begun(task: &Task) -> Option<SystemTime> {
    let first = task.attempts.first().map(|attempt| attempt.since);
    first.or_else(|| task.claim.as_ref().map(|claim| claim.since))
}

fn blockers(all: &All<'_>, tasks: &[&Arc<Task>]) -> Vec<Blocker> {
    let mut found: HashMap<TaskId, Blocker> = HashMap::new();
    for task in tasks.iter().filter(|task| is_stuck(task)) {
        for dependency in &task.depends_on {
            let Some(other) = all.tasks.get(dependency) else { continue };
            if matches!(other.state, TaskState::Failed | TaskState::Cancelled) {
                let blocker = || Blocker { task: Arc::clone(other), holds_up: all.unblocks(other.id) };
                found.entry(other.id).or_insert_with(blocker);
            }
        }
    }
    let mut blockers: Vec<Blocker> = found.into_values().collect();
    blockers.sort_by_key(|blocker| (std::cmp::Reverse(blocker.holds_up), blocker.task.number));
    blockers.truncate(BLOCKERS_MAX);
    blockers
}
