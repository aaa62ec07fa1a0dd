//! Decides, without touching anything: what boot does with what it finds, and whether a command fits the present state.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use hivekeeper_actors::{Seed, SeedState};

use super::desk::ControlError;
use crate::{
    model::{AgentId, AgentSpec, Command, Desired, RestartType, SwarmName, SwarmSpec, Target},
    runtime::Capabilities,
    store::{Ledger, OpenIncarnation, StandingState},
};

/// What the journal holds at boot.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// The documents that the last daemon worked with, and what its operators wanted.
    pub swarms: Vec<(SwarmSpec, Desired)>,
    /// What operators wanted of single agents.
    pub desires: BTreeMap<AgentId, Desired>,
    /// Incarnations without an end.
    pub open: Vec<OpenIncarnation>,
    /// What each agent has behind it.
    pub ledgers: BTreeMap<AgentId, Ledger>,
}

/// What boot does.
#[derive(Debug, Clone, Default)]
pub struct BootPlan {
    /// In the order of the configuration.
    pub swarms: Vec<PlannedSwarm>,
    /// Living or lost incarnations that nobody wants any more: removed, changed, or stopped by an operator.
    pub end: Vec<OpenIncarnation>,
    /// Swarms that the file no longer has.
    pub removed: Vec<SwarmName>,
}

/// One swarm of the plan.
#[derive(Debug, Clone)]
pub struct PlannedSwarm {
    /// Its document.
    pub spec: Arc<SwarmSpec>,
    /// What the operator wants.
    pub desired: Desired,
    /// In start order.
    pub agents: Vec<PlannedAgent>,
}

/// One agent of the plan.
#[derive(Debug, Clone)]
pub struct PlannedAgent {
    /// Who.
    pub id: AgentId,
    /// Its document.
    pub spec: Arc<AgentSpec>,
    /// What the operator wants of it.
    pub desired: Desired,
    /// Where its supervisor goes on.
    pub seed: Seed,
    /// The incarnation to take over.
    pub adopt: Option<OpenIncarnation>,
}

/// Config swarms follow the file; an operator's word outlives the daemon; a living agent is taken over unless what it runs has changed.
pub fn boot(config: &[SwarmSpec], found: &Found, now: SystemTime) -> BootPlan {
    let mut plan = BootPlan::default();
    let mut open: BTreeMap<AgentId, OpenIncarnation> =
        found.open.iter().map(|open| (open.agent.clone(), open.clone())).collect();
    for spec in config {
        let before = found.swarms.iter().find(|(old, _)| old.name == spec.name);
        let desired = before.map_or(Desired::Running, |(_, desired)| *desired);
        let agents = spec
            .expand()
            .unwrap_or_default()
            .into_iter()
            .map(|(id, agent)| {
                let wanted = found.desires.get(&id).copied().unwrap_or(desired);
                let changed = before.is_some_and(|(old, _)| runs_something_else(old, spec, &id, &agent));
                let adopt = match open.remove(&id) {
                    Some(living) if wanted == Desired::Stopped || changed => {
                        plan.end.push(living);
                        None
                    }
                    other => other,
                };
                let ledger = found.ledgers.get(&id);
                let seed = seed(&agent, wanted, adopt.as_ref(), ledger, now, spec.period);
                PlannedAgent { id, spec: agent, desired: wanted, seed, adopt }
            })
            .collect();
        plan.swarms.push(PlannedSwarm { spec: Arc::new(spec.clone()), desired, agents });
    }
    plan.end.extend(open.into_values());
    let kept: BTreeSet<&SwarmName> = config.iter().map(|spec| &spec.name).collect();
    plan.removed = found.swarms.iter().map(|(old, _)| &old.name).filter(|name| !kept.contains(name)).cloned().collect();
    plan
}

/// Whether the living process of an agent is not what its document now asks for. Deadlines and restart rules apply without a restart.
fn runs_something_else(old: &SwarmSpec, new: &SwarmSpec, id: &AgentId, agent: &AgentSpec) -> bool {
    let before = old.expand().unwrap_or_default().into_iter().find(|(other, _)| other == id);
    let Some((_, before)) = before else { return true };
    before.command != agent.command
        || before.env != agent.env
        || old.env != new.env
        || old.workdir != new.workdir
        || old.runtime != new.runtime
}

fn seed(
    agent: &AgentSpec,
    wanted: Desired,
    adopt: Option<&OpenIncarnation>,
    ledger: Option<&Ledger>,
    now: SystemTime,
    period: Duration,
) -> Seed {
    let Some(ledger) = ledger else {
        let state = if wanted == Desired::Stopped { SeedState::Stopped } else { SeedState::Fresh };
        return Seed { incarnation: 0, restarts: 0, recent: Vec::new(), attempt: 0, state };
    };
    let recent = ledger
        .recent
        .iter()
        .map(|at| now.duration_since(*at).unwrap_or_default())
        .filter(|age| *age <= period)
        .collect();
    let ended_well = ledger.last_exit.as_ref().is_some_and(|exit| exit.is_normal());
    let state = match (wanted, adopt, &ledger.standing) {
        (_, Some(_), _) => SeedState::Running,
        (Desired::Stopped, ..) => SeedState::Stopped,
        (_, None, StandingState::Failed) => SeedState::Failed,
        (_, None, StandingState::Completed) => SeedState::Completed,
        (_, None, StandingState::BackingOff { retry_at }) => {
            SeedState::Delayed { retry_in: retry_at.duration_since(now).unwrap_or_default() }
        }
        // The daemon died between an exit and its judgement.
        (_, None, _) if ended_well && agent.restart != RestartType::Permanent && !stopped_by_us(ledger) => {
            SeedState::Completed
        }
        (_, None, _) => SeedState::Fresh,
    };
    let incarnation = adopt.map_or(ledger.incarnation, |open| open.incarnation);
    Seed { incarnation, restarts: ledger.restarts, recent, attempt: ledger.attempt, state }
}

fn stopped_by_us(ledger: &Ledger) -> bool {
    ledger.last_exit.as_ref().is_some_and(|exit| exit.cause == crate::model::ExitCause::Stopped)
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
        (Command::Restart { .. }, Desired::Paused) => conflict("is paused; resume it before it is restarted"),
        _ => Ok(()),
    }
}
