//! What the configuration file, read again, means for the hive: decided without touching anything.

use std::{collections::HashSet, sync::Arc};

use super::{
    changes::{Change, changes},
    desk::ControlError,
    plan::{Scaled, effective},
};
use crate::{
    model::{AgentId, Command, OperationId, Origin, SwarmName, SwarmSpec, spec::AGENTS_MAX},
    view::Mistake,
};

/// What becomes of a swarm of the file.
#[derive(Debug, Clone, PartialEq)]
pub enum FileChange {
    /// It is new in the file.
    Add(Arc<SwarmSpec>),
    /// The file says something else of it.
    Update(Arc<SwarmSpec>),
    /// The file no longer has it.
    Remove,
    /// Nothing.
    Keep,
}

impl FileChange {
    /// The word of the API.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Add(_) => "add",
            Self::Update(_) => "update",
            Self::Remove => "remove",
            Self::Keep => "keep",
        }
    }

    /// What carries it out.
    pub(super) fn command(&self) -> Option<Command> {
        match self {
            Self::Add(spec) => Some(Command::Launch { spec: Arc::clone(spec) }),
            Self::Update(spec) => Some(Command::Update { spec: Arc::clone(spec) }),
            Self::Remove => Some(Command::Delete),
            Self::Keep => None,
        }
    }
}

/// The file's word on one swarm.
#[derive(Debug, Clone, PartialEq)]
pub struct SwarmChange {
    /// Which.
    pub swarm: SwarmName,
    /// What becomes of it.
    pub change: FileChange,
    /// Each agent, and what becomes of it.
    pub agents: Vec<(AgentId, Change)>,
    /// What carries it out, once it was accepted.
    pub operation: Option<OperationId>,
}

/// Why a reload was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReloadError {
    /// The file is wrong: all that is. Nothing was changed.
    #[error("the configuration can't be taken")]
    Invalid(Vec<Mistake>),
    /// The desk said no.
    #[error(transparent)]
    Refused(#[from] ControlError),
}

/// Puts the file beside what there is. First what goes, then the file's swarms in its order. The operator's numbers hold as long as the file says what
/// it said when they were given.
///
/// # Errors
/// What the file and the hive together can't mean.
pub(super) fn plan(file: &[SwarmSpec], present: &[(Arc<SwarmSpec>, Scaled)]) -> Result<Vec<SwarmChange>, ReloadError> {
    let of_api = |name: &SwarmName| present.iter().any(|(spec, _)| spec.name == *name && spec.origin == Origin::Api);
    let mut mistakes: Vec<Mistake> = file.iter().filter(|spec| of_api(&spec.name)).map(taken).collect();
    let named: HashSet<&SwarmName> = file.iter().map(|spec| &spec.name).collect();
    let gone = present.iter().filter(|(spec, _)| spec.origin == Origin::Config && !named.contains(&spec.name));
    let mut all: Vec<SwarmChange> = gone.map(|(spec, _)| removed(spec)).collect();
    let of_others = present.iter().filter(|(spec, _)| spec.origin == Origin::Api).map(|(spec, _)| spec.count());
    let mut count: usize = of_others.sum();
    for spec in file {
        let before = present.iter().find(|(old, _)| old.name == spec.name);
        let spec = before.map_or_else(|| spec.clone(), |(_, scaled)| effective(spec, scaled).0);
        count += spec.count();
        all.push(followed(before.map(|(old, _)| &**old), spec));
    }
    if count > AGENTS_MAX {
        let (found, allowed) = (format!("{count} agents of the file and the API together"), format!("{AGENTS_MAX}"));
        mistakes.push(Mistake { key: "swarm".to_owned(), found, allowed, place: None });
    }
    if mistakes.is_empty() { Ok(all) } else { Err(ReloadError::Invalid(mistakes)) }
}

fn taken(spec: &SwarmSpec) -> Mistake {
    let name = &spec.name;
    Mistake {
        key: format!("swarm[{name}].name"),
        found: format!("swarm {name} in the file, and swarm {name} that was launched through the API"),
        allowed: format!("one of them: rename the one in the file, or delete the other with `hivekeeper rm {name}`"),
        place: None,
    }
}

fn removed(spec: &SwarmSpec) -> SwarmChange {
    let agents = spec.expand().unwrap_or_default().into_iter().rev().map(|(id, _)| (id, Change::Stop));
    SwarmChange { swarm: spec.name.clone(), change: FileChange::Remove, agents: agents.collect(), operation: None }
}

fn followed(before: Option<&SwarmSpec>, spec: SwarmSpec) -> SwarmChange {
    let (swarm, agents) = (spec.name.clone(), changes(before, &spec));
    let change = match before {
        None => FileChange::Add(Arc::new(spec)),
        Some(old) if *old == spec => FileChange::Keep,
        Some(_) => FileChange::Update(Arc::new(spec)),
    };
    SwarmChange { swarm, change, agents, operation: None }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use super::*;
    use crate::model::{AgentSpec, Backoff, Home, OnExceeded, OnStuck, Ready, RestartType, Strategy};

    fn swarm(name: &str, origin: Origin, replicas: usize) -> SwarmSpec {
        let agent = AgentSpec {
            name: "a".parse().unwrap(),
            replicas: Some(u32::try_from(replicas).unwrap()),
            command: vec!["sleep".to_owned()],
            env: BTreeMap::new(),
            restart: RestartType::Permanent,
            ready: Ready::Process,
            start_timeout: Duration::from_secs(30),
            heartbeat_timeout: Duration::from_secs(15),
            progress_timeout: Duration::ZERO,
            on_stuck: OnStuck::Report,
            stop_grace: Duration::from_secs(10),
            lease: Duration::from_secs(30),
        };
        SwarmSpec {
            name: name.parse().unwrap(),
            origin,
            home: Home::Process { workdir: None },
            strategy: Strategy::OneForOne,
            intensity: 5,
            period: Duration::from_secs(60),
            on_exceeded: OnExceeded::Fail,
            backoff: Backoff::default(),
            env: BTreeMap::new(),
            agents: vec![Arc::new(agent)],
        }
    }

    /// What of the file's word on one swarm is refused, beside what there is.
    fn refused(file: SwarmSpec, present: &[SwarmSpec]) -> Vec<String> {
        let present: Vec<_> = present.iter().map(|spec| (Arc::new(spec.clone()), Scaled::new())).collect();
        match plan(&[file], &present) {
            Ok(_) => Vec::new(),
            Err(ReloadError::Invalid(mistakes)) => mistakes.into_iter().map(|mistake| mistake.key).collect(),
            Err(error) => vec![error.to_string()],
        }
    }

    #[test]
    fn the_file_and_the_api_together_have_a_bounded_number_of_agents() {
        let (file, of_api) = (|n| swarm("file", Origin::Config, n), |n| swarm("api", Origin::Api, n));
        assert_eq!(refused(file(AGENTS_MAX), &[]), [""; 0]);
        assert_eq!(refused(file(AGENTS_MAX + 1), &[]), ["swarm"]);
        assert_eq!(refused(file(AGENTS_MAX - 2), &[of_api(2)]), [""; 0]);
        assert_eq!(refused(file(AGENTS_MAX - 2), &[of_api(3)]), ["swarm"]);
        assert_eq!(refused(file(AGENTS_MAX - 2), &[file(5), of_api(2)]), [""; 0], "what it replaces is not counted");
        let gone = swarm("gone", Origin::Config, 5);
        assert_eq!(refused(file(AGENTS_MAX - 2), &[gone, of_api(2)]), [""; 0], "what goes is not counted");
        assert_eq!(refused(swarm("api", Origin::Config, 1), &[of_api(1)]), ["swarm[api].name"]);
    }
}
