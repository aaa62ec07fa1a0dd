//! What an engine says about containers, typed.

use std::{
    collections::{BTreeMap, HashMap},
    time::SystemTime,
};

use bollard::models::{ContainerInspectResponse, ContainerSummary};

use super::names::label;
use crate::model::{HiveId, SwarmName};

/// One container, looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerState {
    /// Its id, which no other container will ever have.
    pub id: String,
    /// Its name, without the engine's slash.
    pub name: String,
    /// The image's id.
    pub image_id: String,
    /// Whether PID 1 lives; also true when paused.
    pub running: bool,
    /// Whether it is frozen.
    pub paused: bool,
    /// Whether the engine says that memory ran out. It says nothing when an exec'd process was the victim: see [`super::Incident::OutOfMemory`].
    pub oom_killed: bool,
    /// PID 1's exit code, once it has ended.
    pub exit_code: Option<i64>,
    /// When it was last started.
    pub started_at: Option<SystemTime>,
    /// Its environment, the image's included.
    pub env: BTreeMap<String, String>,
    /// Its working directory; empty is `/`.
    pub working_dir: String,
    /// Its user; empty is root.
    pub user: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl ContainerState {
    pub(super) fn read(answer: ContainerInspectResponse) -> Self {
        let state = answer.state.unwrap_or_default();
        let config = answer.config.unwrap_or_default();
        let running = state.running.unwrap_or_default();
        let started_at = state.started_at.as_deref().and_then(time);
        Self {
            id: answer.id.unwrap_or_default(),
            name: bare(answer.name.unwrap_or_default()),
            image_id: answer.image.unwrap_or_default(),
            running,
            paused: state.paused.unwrap_or_default(),
            oom_killed: state.oom_killed.unwrap_or_default(),
            // The engine says 0 of what runs and of what never did.
            exit_code: state.exit_code.filter(|_| !running && started_at.is_some()),
            started_at,
            env: environment(config.env.unwrap_or_default()),
            working_dir: config.working_dir.unwrap_or_default(),
            user: config.user.unwrap_or_default(),
            labels: sorted(config.labels.unwrap_or_default()),
        }
    }
}

/// One container in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The hive that made it, if the label holds one.
    pub hive_id: Option<HiveId>,
    /// That hive's name.
    pub hive: Option<String>,
    /// The swarm; `None` for what is no swarm's, such as a container that a crash left behind while a volume was being filled.
    pub swarm: Option<SwarmName>,
    /// Hash of its plan.
    pub plan: Option<String>,
    /// Whether PID 1 lives; also true when paused.
    pub running: bool,
    /// Whether it is frozen.
    pub paused: bool,
}

impl Listed {
    pub(super) fn read(summary: ContainerSummary) -> Self {
        use bollard::models::ContainerSummaryStateEnum::{PAUSED, RUNNING};
        let labels = sorted(summary.labels.unwrap_or_default());
        let name = summary.names.unwrap_or_default().into_iter().next().unwrap_or_default();
        Self {
            id: summary.id.unwrap_or_default(),
            name: bare(name),
            hive_id: labels.get(label::HIVE_ID).and_then(|id| id.parse().ok()),
            hive: labels.get(label::HIVE).cloned(),
            swarm: labels.get(label::SWARM).and_then(|swarm| swarm.parse().ok()),
            plan: labels.get(label::PLAN).cloned(),
            running: matches!(summary.state, Some(RUNNING | PAUSED)),
            paused: summary.state == Some(PAUSED),
        }
    }
}

/// `K=V` pairs; a name without a value has an empty one.
pub(super) fn environment(pairs: Vec<String>) -> BTreeMap<String, String> {
    let pair = |pair: String| match pair.split_once('=') {
        Some((key, value)) => (key.to_owned(), value.to_owned()),
        None => (pair, String::new()),
    };
    pairs.into_iter().map(pair).collect()
}

pub(super) fn sorted(labels: HashMap<String, String>) -> BTreeMap<String, String> {
    labels.into_iter().collect()
}

fn bare(name: String) -> String {
    name.strip_prefix('/').map(str::to_owned).unwrap_or(name)
}

/// RFC 3339 with any number of digits; the year 1, which the engine says of what never was, is before all time.
fn time(text: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339(text).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::Duration;

    use bollard::models::{ContainerState as State, ContainerSummaryStateEnum};

    use super::*;

    #[test]
    fn what_never_started_has_neither_time_nor_code() {
        let state = |running, started: &str| ContainerInspectResponse {
            state: Some(State {
                running: Some(running),
                exit_code: Some(0),
                started_at: Some(started.to_owned()),
                ..Default::default()
            }),
            ..Default::default()
        };
        let never = ContainerState::read(state(false, "0001-01-01T00:00:00Z"));
        assert_eq!((never.started_at, never.exit_code), (None, None));
        let runs = ContainerState::read(state(true, "2026-11-21T10:00:00.123456789Z"));
        let since = Duration::new(1_795_255_200, 123_456_789);
        assert_eq!((runs.started_at, runs.exit_code), (Some(SystemTime::UNIX_EPOCH + since), None));
        let ended = ContainerState::read(state(false, "2026-11-21T10:00:00Z"));
        assert_eq!(ended.exit_code, Some(0));
    }

    #[test]
    fn environment_values_may_hold_anything() {
        let read = environment(vec!["A=b=c".to_owned(), "EMPTY=".to_owned(), "BARE".to_owned()]);
        let expected = [("A", "b=c"), ("BARE", ""), ("EMPTY", "")];
        assert_eq!(read, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    }

    #[test]
    fn a_paused_container_runs() {
        let listed = |state| Listed::read(ContainerSummary { state: Some(state), ..Default::default() });
        let paused = listed(ContainerSummaryStateEnum::PAUSED);
        assert!(paused.running && paused.paused);
        let exited = listed(ContainerSummaryStateEnum::EXITED);
        assert!(!exited.running && !exited.paused);
    }
}
