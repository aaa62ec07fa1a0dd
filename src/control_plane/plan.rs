//! Decides, without touching anything: what boot does with what it finds, what becomes of an operation under way, and whether a command fits.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::SystemTime,
};

use super::{
    changes::{Change, changes},
    desk::ControlError,
};
use crate::{
    model::{
        AgentId, AgentName, AgentSpec, Command, Desired, Operation, OperationState, Origin, Requester, SwarmName,
        SwarmSpec, Target,
    },
    runtime::{Capabilities, runs},
    store::IncarnationRow,
};

/// What the journal holds at boot.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// What the last daemon worked with.
    pub swarms: Vec<FoundSwarm>,
    /// What operators wanted of single agents.
    pub desires: BTreeMap<AgentId, Desired>,
    /// Incarnations without an end.
    pub open: Vec<IncarnationRow>,
    /// Operations that the last daemon did not end, oldest first.
    pub unfinished: Vec<Operation>,
}

/// One swarm of the last daemon.
#[derive(Debug, Clone)]
pub struct FoundSwarm {
    /// Its name.
    pub name: SwarmName,
    /// Who wrote it.
    pub origin: Origin,
    /// Its document; `None` when this version can't read it.
    pub spec: Option<SwarmSpec>,
    /// The operator's numbers in place of the file's.
    pub scaled: Scaled,
    /// What its operators wanted of it.
    pub desired: Desired,
    /// Since when.
    pub since: SystemTime,
}

/// What boot does.
#[derive(Debug, Clone, Default)]
pub struct BootPlan {
    /// In the order of the configuration.
    pub swarms: Vec<PlannedSwarm>,
    /// To be taken over.
    pub adopt: Vec<IncarnationRow>,
    /// Living or lost incarnations that nobody wants any more: removed, changed, or stopped by an operator.
    pub end: Vec<IncarnationRow>,
    /// Swarms that the file no longer has.
    pub removed: Vec<SwarmName>,
    /// Agents that run something else from now on: where supervision stood with what they ran says nothing of it.
    pub renewed: Vec<AgentId>,
    /// Agents that the file no longer has, of swarms that it has.
    pub dropped: Vec<AgentId>,
}

/// One swarm as it is desired.
#[derive(Debug, Clone)]
pub struct PlannedSwarm {
    /// Its document.
    pub spec: Arc<SwarmSpec>,
    /// The operator's numbers in it in place of the file's.
    pub scaled: Scaled,
    /// What the operator wants.
    pub desired: Desired,
    /// Since when.
    pub since: SystemTime,
    /// In start order.
    pub agents: Vec<PlannedAgent>,
}

/// One agent as it is desired.
#[derive(Debug, Clone)]
pub struct PlannedAgent {
    /// Who.
    pub id: AgentId,
    /// Its document.
    pub spec: Arc<AgentSpec>,
    /// What the operator wants of it.
    pub desired: Desired,
    /// The living incarnation that its first actor takes over.
    pub adopt: Option<u64>,
}

/// Config swarms follow the file, api swarms the journal; an operator's word outlives the daemon; a living agent is taken over unless what it runs
/// has changed. A command on a document that the last daemon had begun is done with it.
///
/// # Errors
/// What the file and the journal together can't mean, naming the swarm.
pub fn boot(config: &[SwarmSpec], found: &Found, now: SystemTime) -> Result<BootPlan, Unbootable> {
    let mut plan = BootPlan::default();
    let mut open: BTreeMap<AgentId, IncarnationRow> =
        found.open.iter().map(|open| (open.begun.agent.clone(), open.clone())).collect();
    for (spec, scaled) in desired_documents(config, found)? {
        let before = found.swarms.iter().find(|old| old.name == spec.name);
        let (desired, since) = before.map_or((Desired::Running, now), |old| (old.desired, old.since));
        let old = before.and_then(|old| old.spec.as_ref());
        let mut becomes: BTreeMap<AgentId, Change> = BTreeMap::new();
        if let Some(old) = old {
            becomes.extend(changes(Some(old), &spec));
        }
        let replaced = old.map(|old| replaced(found, old, &spec)).unwrap_or_default();
        let is_at_home = old.is_some_and(|old| old.home == spec.home);
        let mut agents = Vec::new();
        for (id, agent) in spec.expand().unwrap_or_default() {
            let wanted = found.desires.get(&id).copied().unwrap_or(desired);
            // One that the last document did not have, or that this one has otherwise, may be what a command under way had come to.
            let changed = matches!(becomes.remove(&id), Some(Change::Replace | Change::Start));
            let living = open.remove(&id);
            let runs_it = is_at_home && living.as_ref().is_some_and(|living| runs_what(living, &spec, &agent));
            let changed = changed && !runs_it && !replaced.contains(&id);
            if changed {
                plan.renewed.push(id.clone());
            }
            let mut adopt = None;
            match living {
                Some(living) if wanted == Desired::Stopped || changed => plan.end.push(living),
                Some(living) => {
                    adopt = Some(living.begun.incarnation);
                    plan.adopt.push(living);
                }
                None => {}
            }
            agents.push(PlannedAgent { id, spec: agent, desired: wanted, adopt });
        }
        plan.dropped.extend(becomes.into_keys());
        plan.swarms.push(PlannedSwarm { spec: Arc::new(spec), scaled, desired, since, agents });
    }
    plan.end.extend(open.into_values());
    let kept: BTreeSet<&SwarmName> = plan.swarms.iter().map(|swarm| &swarm.spec.name).collect();
    let removed = found.swarms.iter().map(|old| &old.name).filter(|name| !kept.contains(name)).cloned().collect();
    plan.removed = removed;
    Ok(plan)
}

/// What the last daemon was doing with a swarm.
fn begun<'a>(found: &'a Found, name: &SwarmName) -> Option<&'a Operation> {
    found.unfinished.iter().find(|one| one.state == OperationState::Running && one.target.swarm() == name)
}

/// Whether a living agent runs what a document says.
fn runs_what(living: &IncarnationRow, spec: &SwarmSpec, agent: &AgentSpec) -> bool {
    living.begun.runs == Some(runs(&agent.command, &spec.environment(agent)))
}

/// Agents that run what `new` says although the journal still has the `old` document: the command under way had come so far, and they may have ended
/// since. In another home they are not looked for, and are replaced once more.
fn replaced(found: &Found, old: &SwarmSpec, new: &SwarmSpec) -> BTreeSet<AgentId> {
    let Some(operation) = begun(found, &new.name) else { return BTreeSet::new() };
    let leads_there = operation.command.leaves(Some(Arc::new(old.clone()))).is_some_and(|spec| *spec == *new);
    if !leads_there || old.home != new.home {
        return BTreeSet::new();
    }
    let done = operation.steps.iter().filter(|step| step.result.is_ok());
    done.map(|step| step.agent.clone()).collect()
}

/// Why a daemon can't begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unbootable {
    /// Both places have a swarm of this name.
    #[error(
        "swarm {0} is in the configuration file and was launched through the API, too; rename the one in the file, or take it out and delete the other with `hivekeeper rm {0}`"
    )]
    Twice(SwarmName),
    /// Only the journal has its document, and this version can't read it.
    #[error(
        "swarm {0} was launched through the API, and its document in the journal can't be read by this version; go on with the version that wrote it"
    )]
    Unreadable(SwarmName),
}

/// What there is to be: the file's swarms in its order, then the API's by name.
fn desired_documents(config: &[SwarmSpec], found: &Found) -> Result<Vec<(SwarmSpec, Scaled)>, Unbootable> {
    let begun = |name: &SwarmName| begun(found, name).map(|one| &one.command);
    let mut all = Vec::new();
    for spec in config {
        let before = found.swarms.iter().find(|old| old.name == spec.name);
        if before.is_some_and(|old| old.origin == Origin::Api) {
            return Err(Unbootable::Twice(spec.name.clone()));
        }
        let mut scaled = before.map(|old| old.scaled.clone()).unwrap_or_default();
        if let Some(Command::Scale { agent, replicas }) = begun(&spec.name) {
            note_scale(&mut scaled, spec, agent, *replicas);
        }
        all.push(effective(spec, &scaled));
    }
    let mut names: BTreeSet<&SwarmName> = BTreeSet::new();
    names.extend(found.swarms.iter().filter(|old| old.origin == Origin::Api).map(|old| &old.name));
    let launches = found.unfinished.iter().filter(|one| one.state == OperationState::Running);
    names.extend(launches.filter(|one| is_api_launch(&one.command)).map(|one| one.target.swarm()));
    for name in names {
        if config.iter().any(|spec| spec.name == *name) {
            return Err(Unbootable::Twice(name.clone()));
        }
        let kept = found.swarms.iter().find(|old| old.name == *name);
        let spec = kept.and_then(|old| old.spec.clone()).map(Arc::new);
        let left = match begun(name) {
            Some(command) => command.leaves(spec),
            None => spec,
        };
        match left {
            Some(spec) => all.push((Arc::unwrap_or_clone(spec), Scaled::new())),
            None if matches!(begun(name), Some(Command::Delete)) => {}
            None => return Err(Unbootable::Unreadable(name.clone())),
        }
    }
    Ok(all)
}

fn is_api_launch(command: &Command) -> bool {
    matches!(command, Command::Launch { spec } if spec.origin == Origin::Api)
}

/// What the operator made of the file's numbers: how many the file said then, and how many there are to be.
pub type Scaled = BTreeMap<AgentName, (u32, u32)>;

/// A document of the file with the operator's numbers, and those of them that still hold: a number that was changed in the file wins.
pub fn effective(file: &SwarmSpec, scaled: &Scaled) -> (SwarmSpec, Scaled) {
    let mut spec = file.clone();
    let holds =
        |agent: &AgentName, said: u32| file.agents.iter().any(|one| one.name == *agent && one.replicas == Some(said));
    let kept: Scaled = scaled
        .iter()
        .filter(|(agent, (said, _))| holds(agent, *said))
        .map(|(agent, to)| (agent.clone(), *to))
        .collect();
    for (agent, (_, replicas)) in &kept {
        spec = spec.scaled(agent, *replicas);
    }
    (spec, kept)
}

/// Notes that an operator wants another number of an agent of the file than `now` has.
pub fn note_scale(scaled: &mut Scaled, now: &SwarmSpec, agent: &AgentName, replicas: u32) {
    let present = now.agents.iter().find(|one| one.name == *agent).and_then(|one| one.replicas);
    let Some(present) = present else { return };
    let said = scaled.get(agent).map_or(present, |(said, _)| *said);
    match said == replicas {
        true => drop(scaled.remove(agent)),
        false => drop(scaled.insert(agent.clone(), (said, replicas))),
    }
}

/// What becomes of an operation that the last daemon did not end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resumption {
    /// It is carried out, or begun anew: what it has done already is not done twice.
    Again,
    /// Boot has done it.
    Done,
    /// How far it came nobody knows.
    Lost,
    /// It was the file's word, and the file says something else now.
    Outdated,
    /// This version can't read what was asked for.
    Unreadable,
}

/// Judges one. `swarms` is what this daemon begins with.
pub fn resumption(operation: &Operation, swarms: &[PlannedSwarm]) -> Resumption {
    if matches!(operation.command, Command::Unreadable { .. }) {
        return Resumption::Unreadable;
    }
    let now = swarms.iter().find(|swarm| swarm.spec.name == *operation.target.swarm()).map(|swarm| &swarm.spec);
    if operation.requested_by == Requester::Reload {
        let done = match &operation.command {
            Command::Launch { spec } | Command::Update { spec } => now.is_some_and(|now| now == spec),
            _ => now.is_none(),
        };
        return if done { Resumption::Done } else { Resumption::Outdated };
    }
    match (&operation.command, operation.state) {
        (Command::Restart { .. }, OperationState::Running) => Resumption::Lost,
        (Command::Delete, OperationState::Running) if now.is_none() => Resumption::Done,
        _ => Resumption::Again,
    }
}

/// Whether an agent of a document can have so many replicas.
///
/// # Errors
/// Why not.
pub fn scalable(spec: &SwarmSpec, agent: &AgentName, replicas: u32) -> Result<(), ControlError> {
    let conflict = |why: String| Err(ControlError::Conflict { why });
    let swarm = &spec.name;
    let Some(found) = spec.agents.iter().find(|one| one.name == *agent) else {
        let numbered = spec.agents.iter().filter(|one| one.replicas.is_some()).map(|one| one.name.as_str());
        let numbered: Vec<_> = numbered.collect();
        let allowed = if numbered.is_empty() { "none of this swarm".to_owned() } else { numbered.join(", ") };
        return Err(ControlError::NotFound {
            what: format!("agent {agent} of swarm {swarm} (can be scaled: {allowed})"),
        });
    };
    if found.replicas.is_none() {
        return conflict(format!("agent {swarm}/{agent} has no `replicas` in its document, so it can't be scaled"));
    }
    let Ok(all) = spec.scaled(agent, replicas).expand() else {
        return conflict(format!("{agent}-{replicas} is longer than a name can be"));
    };
    let mut names = BTreeSet::new();
    match all.iter().find(|(id, _)| !names.insert(id)) {
        Some((twice, _)) => conflict(format!("there would be two agents {twice}")),
        None => Ok(()),
    }
}

/// Whether a command fits. `desired` is the target's, as it is wanted now.
///
/// # Errors
/// Why it does not.
pub fn fits(
    command: &Command,
    target: &Target,
    desired: Desired,
    capabilities: Capabilities,
) -> Result<(), ControlError> {
    let conflict = |why: &str| Err(ControlError::Conflict { why: format!("{target} {why}") });
    match (command, desired) {
        (Command::Pause | Command::Resume, _) if matches!(target, Target::Agent(_)) => Err(ControlError::Unsupported {
            why: "a single agent can't be paused or resumed; pause or resume its swarm".to_owned(),
        }),
        (Command::Pause | Command::Resume, _) if !capabilities.pause => {
            Err(ControlError::Unsupported { why: "the runtime of this swarm can't pause".to_owned() })
        }
        (Command::Pause, Desired::Stopped) => conflict("is stopped; start it before it can be paused"),
        (Command::Resume, Desired::Running) => conflict("is not paused"),
        (Command::Resume, Desired::Stopped) => conflict("is stopped, not paused; start it"),
        (Command::Start, Desired::Paused) => conflict("is paused; resume it"),
        (Command::Update { .. } | Command::Scale { .. }, Desired::Paused) => conflict("is paused; resume it first"),
        (Command::Restart { .. }, Desired::Paused) => conflict("is paused; resume it before it is restarted"),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
pub(super) mod tests;
