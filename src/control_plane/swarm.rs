//! A swarm as a supervised child: its document in the supervisor's words.

use std::{collections::HashMap, sync::Arc, time::Duration};

use hivekeeper_actors::{
    Child, ChildId, ChildRef, ChildSpec, Intensity, Meltdown, Placement, RestartType, Seed, Shutdown, SupervisorFlags,
    SupervisorRef,
};

use super::{
    plan::{PlannedAgent, PlannedSwarm},
    seeds::SwarmSeed,
};
use crate::{
    model::{AgentId, Home, SwarmSpec, command::GRACE_MAX},
    runtime::{AgentActor, AgentDeps, Job},
};

/// Beyond the longest grace: the launcher's sweep may take 5 s, its record and the journal a little.
const SHUTDOWN_MARGIN: Duration = Duration::from_secs(10);

/// A swarm's supervisor, and the handles on it and on its agents.
pub(super) struct SwarmChild {
    pub(super) child: Child,
    pub(super) supervisor: SupervisorRef,
    pub(super) agents: HashMap<AgentId, ChildRef<AgentActor>>,
}

/// What a swarm's supervisor is told: about itself, and its children in start order.
pub(super) struct Parts {
    pub(super) flags: SupervisorFlags,
    pub(super) children: Vec<Child>,
    pub(super) agents: HashMap<AgentId, ChildRef<AgentActor>>,
}

/// The document of a swarm in its supervisor's words, each agent with its seed.
pub(super) fn parts(deps: &Arc<AgentDeps>, plan: &PlannedSwarm, seed: SwarmSeed) -> Parts {
    let SwarmSeed { agents: mut seeds, recent } = seed;
    let mut agents = HashMap::new();
    let mut children = Vec::new();
    for agent in &plan.agents {
        let seed = seeds.remove(&agent.id).unwrap_or_default();
        let (child, reference) = agent_child(deps, plan, agent, seed);
        agents.insert(agent.id.clone(), reference);
        children.push(child);
    }
    Parts { flags: flags(&plan.spec, recent), children, agents }
}

/// The supervisor of one swarm with its agents in start order, each with its seed.
pub(super) fn child(deps: &Arc<AgentDeps>, plan: &PlannedSwarm, seed: SwarmSeed) -> SwarmChild {
    let Parts { flags, children, agents } = parts(deps, plan, seed);
    let mut spec = ChildSpec::new(ChildId::from(plan.spec.name.as_str()));
    // A new one by itself would start every agent afresh, the stopped and the completed, too. The controller makes it, from the journal.
    spec.restart = RestartType::Temporary;
    spec.retain = true;
    let (child, supervisor) = Child::supervisor(spec, flags, children);
    SwarmChild { child, supervisor, agents }
}

/// Who gives up: under one_for_one each agent for itself, else the swarm as a whole. It never ends for it, so that its operator can start it again.
fn flags(swarm: &SwarmSpec, recent: Vec<Duration>) -> SupervisorFlags {
    if !swarm.strategy.is_group() {
        return SupervisorFlags::unlimited(swarm.strategy);
    }
    SupervisorFlags {
        intensity: Some(intensity(swarm)),
        meltdown: Meltdown::Contain(swarm.on_exceeded),
        recent,
        ..SupervisorFlags::new(swarm.strategy)
    }
}

fn intensity(swarm: &SwarmSpec) -> Intensity {
    Intensity { max_restarts: swarm.intensity, period: swarm.period }
}

fn agent_child(
    deps: &Arc<AgentDeps>,
    plan: &PlannedSwarm,
    agent: &PlannedAgent,
    seed: Seed,
) -> (Child, ChildRef<AgentActor>) {
    let swarm = &plan.spec;
    let mut spec = ChildSpec::new(ChildId::from(agent.id.name.as_str()));
    spec.restart = agent.spec.restart;
    // The drive keeps the grace, which a command may set, and proves the end. This deadline only catches a drive that hangs; to drop one that
    // does not would leave the end unrecorded and the token valid.
    spec.shutdown = Shutdown::Deadline(GRACE_MAX + SHUTDOWN_MARGIN);
    spec.intensity = (!swarm.strategy.is_group()).then(|| intensity(swarm));
    spec.retain = true;
    spec.backoff = swarm.backoff;
    spec.on_exceeded = swarm.on_exceeded;
    spec.ready = hivekeeper_actors::Ready::Signalled;
    // The drive judges the start, for only it knows when the launch began.
    spec.start_timeout = None;
    // It only waits: for its launch, the journal, the log. Beside its supervisor a restart saves three turns of other threads.
    spec.placement = Placement::WithSupervisor;
    let env = swarm.environment(&agent.spec);
    let workdir = match &swarm.home {
        Home::Process { workdir } => Some(workdir.clone().unwrap_or_else(|| deps.workdir(&swarm.name))),
        Home::Docker(spec) => spec.workdir.clone(),
    };
    let slot = deps.registry.slot(&agent.id);
    // The journal may not know of the last one yet: its supervisor fell before it was begun, or it is being begun right now.
    spec.seed = Seed { incarnation: slot.note_number(seed.incarnation), ..seed };
    slot.set_heartbeat_timeout(agent.spec.heartbeat_timeout);
    let job = Arc::new(Job {
        id: agent.id.clone(),
        spec: Arc::clone(&agent.spec),
        origin: swarm.origin,
        env,
        workdir,
        slot,
        deps: Arc::clone(deps),
    });
    Child::actor(spec, move |child| Ok(AgentActor::new(child, Arc::clone(&job))))
}
