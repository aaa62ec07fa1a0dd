//! How far a group of tasks is, from its documents alone.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::board::Board;
use crate::model::{SwarmName, Task, TaskId, TaskState};

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

/// The progress of each group of a swarm, by name; those without a group come first.
pub fn of_swarm(board: &Board, swarm: &SwarmName, now: SystemTime) -> Vec<Progress> {
    let mut groups: BTreeMap<Option<Arc<str>>, Vec<&Arc<Task>>> = BTreeMap::new();
    for task in board.list(swarm, 0) {
        groups.entry(task.spec.group.clone()).or_default().push(task);
    }
    groups.into_iter().map(|(group, tasks)| of_group(board, group, &tasks, now)).collect()
}

fn of_group(board: &Board, group: Option<Arc<str>>, tasks: &[&Arc<Task>], now: SystemTime) -> Progress {
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
    let left = tasks.iter().filter(|task| !task.state.ended() && !board.is_stuck(task.id)).count();
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
        blockers: blockers(board, tasks),
    }
}

/// When somebody first had it.
fn begun(task: &Task) -> Option<SystemTime> {
    let first = task.attempts.first().map(|attempt| attempt.since);
    first.or_else(|| task.claim.as_ref().map(|claim| claim.since))
}

fn blockers(board: &Board, tasks: &[&Arc<Task>]) -> Vec<Blocker> {
    let mut found: HashMap<TaskId, Blocker> = HashMap::new();
    for task in tasks.iter().filter(|task| board.is_stuck(task.id)) {
        for dependency in &task.depends_on {
            let Ok(other) = board.get(&task.swarm, *dependency) else { continue };
            if matches!(other.state, TaskState::Failed | TaskState::Cancelled) {
                let holds_up = board.unblocks(other.id);
                found.entry(other.id).or_insert(Blocker { task: other, holds_up });
            }
        }
    }
    let mut blockers: Vec<Blocker> = found.into_values().collect();
    blockers.sort_by_key(|blocker| (std::cmp::Reverse(blocker.holds_up), blocker.task.number));
    blockers.truncate(BLOCKERS_MAX);
    blockers
}
