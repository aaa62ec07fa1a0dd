//! How tasks come into being, and how dependencies do.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{Board, CREATED_MAX, DEPENDENCIES_MAX, OPEN_MAX, graph};
use crate::{
    coordination::{Counter, Refused},
    model::{Party, SwarmName, Task, TaskId, TaskSpec, TaskState},
};

/// Bytes of a title.
pub(super) const TITLE_MAX: usize = 200;
/// Bytes of the name of a category or a group, or of an idempotency key.
pub(super) const NAME_MAX: usize = 128;
/// Bytes of a payload or a result.
pub(super) const DOCUMENT_MAX: usize = 64 * 1024;
/// Bytes of a note or a reason.
pub(super) const NOTE_MAX: usize = 2_000;
/// Retries that a task may have.
pub(super) const RETRIES_MAX: u32 = 100;
/// The longest time that anything here may take.
pub(super) const TIME_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// What a new task comes behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dependency {
    /// One that is there.
    Task(TaskId),
    /// One of the same request, by its place from 0.
    Index(usize),
}

/// A task to be created.
#[derive(Debug, Clone)]
pub struct NewTask {
    /// What it is.
    pub spec: TaskSpec,
    /// What comes before it.
    pub depends_on: Vec<Dependency>,
}

/// A text that must not be empty, or too long, or have control characters.
pub(super) fn line(key: impl FnOnce() -> String, text: &str, max: usize) -> Result<(), Refused> {
    if text.trim().is_empty() || text.len() > max || text.chars().any(char::is_control) {
        let found = match text.len() {
            0 => "nothing".to_owned(),
            _ if text.trim().is_empty() => "nothing but blanks".to_owned(),
            bytes if bytes > max => format!("{bytes} bytes"),
            _ => "control characters".to_owned(),
        };
        let allowed = format!("one line of 1 to {max} bytes");
        return Err(Refused::Invalid { key: key(), found, allowed });
    }
    Ok(())
}

/// A document or a text for people that must not be too long.
pub(super) fn size(key: impl FnOnce() -> String, text: &str, max: usize) -> Result<(), Refused> {
    if text.len() > max {
        let (found, allowed) = (format!("{} bytes", text.len()), format!("at most {max} bytes"));
        return Err(Refused::Invalid { key: key(), found, allowed });
    }
    Ok(())
}

/// A time that must not be nothing, or too long.
pub(super) fn time(key: impl FnOnce() -> String, time: Duration) -> Result<(), Refused> {
    if time.is_zero() || time > TIME_MAX {
        let (found, allowed) = (format!("{} ms", time.as_millis()), format!("1 to {} ms", TIME_MAX.as_millis()));
        return Err(Refused::Invalid { key: key(), found, allowed });
    }
    Ok(())
}

fn check(at: usize, new: &NewTask) -> Result<(), Refused> {
    let key = |name: &str| format!("tasks[{at}].{name}");
    let spec = &new.spec;
    line(|| key("title"), &spec.title, TITLE_MAX)?;
    line(|| key("category"), &spec.category, NAME_MAX)?;
    if let Some(group) = &spec.group {
        line(|| key("group"), group, NAME_MAX)?;
    }
    size(|| key("payload"), &spec.payload, DOCUMENT_MAX)?;
    if let Some(timeout) = spec.attempt_timeout {
        time(|| key("attempt_timeout_ms"), timeout)?;
    }
    if spec.retry.retries > RETRIES_MAX {
        let (found, allowed) = (spec.retry.retries.to_string(), format!("0 to {RETRIES_MAX}"));
        return Err(Refused::Invalid { key: key("retries"), found, allowed });
    }
    for (name, pause) in [("backoff_ms", spec.retry.backoff), ("backoff_max_ms", spec.retry.backoff_max)] {
        if pause > TIME_MAX {
            let (found, allowed) = (format!("{} ms", pause.as_millis()), format!("0 to {} ms", TIME_MAX.as_millis()));
            return Err(Refused::Invalid { key: key(name), found, allowed });
        }
    }
    if new.depends_on.len() > DEPENDENCIES_MAX {
        let (found, allowed) = (new.depends_on.len().to_string(), format!("at most {DEPENDENCIES_MAX}"));
        return Err(Refused::Invalid { key: key("depends_on"), found, allowed });
    }
    Ok(())
}

impl Board {
    /// Creates tasks, all or none. The same key in the same swarm again gives what it made the first time, as it is now.
    ///
    /// # Errors
    /// `Invalid`, `UnknownTask`, `Cycle` that names the circle, `Full`; `KeyReused` when the key has made something else.
    pub fn create(
        &mut self,
        counter: &mut Counter,
        swarm: &SwarmName,
        by: Option<&Party>,
        new: Vec<NewTask>,
        key: Option<Arc<str>>,
        now: SystemTime,
    ) -> Result<Vec<Arc<Task>>, Refused> {
        if let Some(key) = &key {
            line(|| "key".to_owned(), key, NAME_MAX)?;
            let made = self.shelves.get(swarm).and_then(|shelf| shelf.keys.get(key));
            if let Some(ids) = made {
                let made = ids.iter().map(|id| self.get(swarm, *id)).collect::<Result<Vec<_>, _>>()?;
                let same = made.len() == new.len() && made.iter().zip(&new).all(|(made, new)| made.spec == new.spec);
                return if same { Ok(made) } else { Err(Refused::KeyReused(Arc::clone(key))) };
            }
        }
        if new.is_empty() || new.len() > CREATED_MAX {
            let (found, allowed) = (new.len().to_string(), format!("1 to {CREATED_MAX}"));
            return Err(Refused::Invalid { key: "tasks".to_owned(), found, allowed });
        }
        for (at, task) in new.iter().enumerate() {
            check(at, task)?;
        }
        if self.shelves.get(swarm).map_or(0, |shelf| shelf.counts.open()) + new.len() > OPEN_MAX {
            return Err(Refused::Full { what: "tasks of the swarm that have not ended", max: OPEN_MAX });
        }
        let depends_on = self.dependencies(swarm, &new)?;
        let ids: Vec<TaskId> = new.iter().map(|_| TaskId::mint()).collect();
        for ((task, depends_on), id) in new.into_iter().zip(depends_on).zip(&ids) {
            let depends_on = depends_on.into_iter().filter_map(|dependency| match dependency {
                Dependency::Task(id) => Some(id),
                Dependency::Index(at) => ids.get(at).copied(),
            });
            self.enter(Task {
                id: *id,
                swarm: swarm.clone(),
                spec: task.spec,
                depends_on: depends_on.collect(),
                number: counter.number(),
                created_by: by.cloned(),
                created_at: now,
                key: key.clone(),
                state: TaskState::Blocked,
                since: now,
                reasons: Vec::new(),
                failures: 0,
                losses: 0,
                not_before: None,
                claim: None,
                progress: None,
                result: None,
                attempts: Vec::new(),
            });
        }
        for id in &ids {
            self.link(*id);
        }
        let told = self.news.len();
        for id in &ids {
            self.dirty.insert(*id);
            self.settle(*id, now);
        }
        // Nothing that was there depends on them: what was told is how they found their places.
        self.news.truncate(told);
        for id in &ids {
            self.tell(*id, None);
        }
        self.weigh_before(&ids);
        ids.into_iter().map(|id| self.get(swarm, id)).collect()
    }

    /// The dependencies of new tasks, each once, if all of them are there and none of the tasks would wait for itself.
    fn dependencies(&self, swarm: &SwarmName, new: &[NewTask]) -> Result<Vec<Vec<Dependency>>, Refused> {
        let mut all = Vec::with_capacity(new.len());
        for (at, task) in new.iter().enumerate() {
            let mut own: Vec<Dependency> = Vec::new();
            for dependency in &task.depends_on {
                match *dependency {
                    Dependency::Task(id) => drop(self.get(swarm, id)?),
                    Dependency::Index(index) if index >= new.len() => {
                        let key = format!("tasks[{at}].depends_on");
                        let (found, allowed) =
                            (index.to_string(), format!("ids, or places from 0 to {}", new.len() - 1));
                        return Err(Refused::Invalid { key, found, allowed });
                    }
                    Dependency::Index(_) => {}
                }
                if !own.contains(dependency) {
                    own.push(*dependency);
                }
            }
            all.push(own);
        }
        // Nothing that is there depends on what is not, so a circle can only go through new ones.
        let places: Vec<usize> = (0..new.len()).collect();
        let ahead = |at: usize| {
            let index = |dependency: &Dependency| match dependency {
                Dependency::Index(at) => Some(*at),
                Dependency::Task(_) => None,
            };
            all[at].iter().filter_map(index).collect()
        };
        match graph::circle(&places, ahead) {
            Some(circle) => Err(Refused::Cycle(circle.into_iter().map(|at| format!("tasks[{at}]")).collect())),
            None => Ok(all),
        }
    }

    /// Lets a task that nobody has begun come behind others, too.
    ///
    /// # Errors
    /// `UnknownTask`, `WrongState`, `Cycle` that names the circle, `Invalid` when these are too many.
    pub fn depend(
        &mut self,
        swarm: &SwarmName,
        id: TaskId,
        on: &[TaskId],
        now: SystemTime,
    ) -> Result<Arc<Task>, Refused> {
        let task = self.get(swarm, id)?;
        if !matches!(task.state, TaskState::Blocked | TaskState::Ready) {
            return Err(Refused::WrongState { task: id, found: task.state, allowed: "blocked and ready" });
        }
        let mut depends_on = task.depends_on.clone();
        for other in on {
            self.get(swarm, *other)?;
            if !depends_on.contains(other) {
                depends_on.push(*other);
            }
        }
        if depends_on.len() > DEPENDENCIES_MAX {
            let (found, allowed) = (depends_on.len().to_string(), format!("at most {DEPENDENCIES_MAX}"));
            return Err(Refused::Invalid { key: "depends_on".to_owned(), found, allowed });
        }
        let ahead = |at: TaskId| {
            if at == id {
                return depends_on.clone();
            }
            self.entries.get(&at).map_or_else(Vec::new, |entry| entry.task.depends_on.clone())
        };
        if let Some(circle) = graph::circle(&[id], ahead) {
            return Err(Refused::Cycle(circle.iter().map(TaskId::to_string).collect()));
        }
        let added: BTreeSet<TaskId> =
            depends_on.iter().filter(|other| !task.depends_on.contains(other)).copied().collect();
        for other in &added {
            if let Some(entry) = self.entries.get_mut(other) {
                entry.dependents.push(id);
            }
        }
        self.change(id, |task| task.depends_on = depends_on);
        self.settle(id, now);
        self.weigh_before(&[id]);
        self.get(swarm, id)
    }
}
