//! A swarm as a supervised child: its document in the supervisor's words.

use std::{sync::Arc, time::Duration};

use hivekeeper_actors::{Child, ChildId, ChildRef, ChildSpec, Intensity, RestartType, Shutdown, SupervisorRef};

use super::plan::{PlannedAgent, PlannedSwarm};
use crate::runtime::{AgentActor, AgentDeps, Job};

/// Beyond an agent's grace: the launcher's sweep may take 5 s, its record and the journal a little.
const SHUTDOWN_MARGIN: Duration = Duration::from_secs(10);

/// The supervisor of one swarm with its agents in start order.
pub fn child(deps: &Arc<AgentDeps>, plan: &PlannedSwarm) -> (Child, SupervisorRef, Vec<ChildRef<AgentActor>>) {
    let mut refs = Vec::new();
    let children = plan
        .agents
        .iter()
        .map(|agent| {
            let (child, reference) = agent_child(deps, plan, agent);
            refs.push(reference);
            child
        })
        .collect();
    let mut spec = ChildSpec::new(ChildId::from(plan.spec.name.as_str()));
    spec.restart = RestartType::Permanent;
    spec.shutdown = Shutdown::Infinity;
    let (child, supervisor) = Child::supervisor(spec, plan.spec.strategy, children);
    (child, supervisor, refs)
}

fn agent_child(deps: &Arc<AgentDeps>, plan: &PlannedSwarm, agent: &PlannedAgent) -> (Child, ChildRef<AgentActor>) {
    let swarm = &plan.spec;
    let mut spec = ChildSpec::new(ChildId::from(agent.id.name.as_str()));
    spec.restart = agent.spec.restart;
    // The drive keeps the grace and proves the end; this deadline only catches a drive that hangs.
    spec.shutdown = Shutdown::Deadline(agent.spec.stop_grace + SHUTDOWN_MARGIN);
    spec.intensity = Intensity { max_restarts: swarm.intensity, period: swarm.period };
    spec.backoff = swarm.backoff;
    spec.on_exceeded = swarm.on_exceeded;
    spec.ready = hivekeeper_actors::Ready::Signalled;
    // The drive judges the start, for only it knows when the launch began.
    spec.start_timeout = None;
    spec.seed = agent.seed.clone();
    let mut env = swarm.env.clone();
    env.extend(agent.spec.env.clone());
    let workdir = swarm.workdir.clone().unwrap_or_else(|| deps.workdir(&swarm.name));
    let job = Arc::new(Job {
        id: agent.id.clone(),
        spec: Arc::clone(&agent.spec),
        env,
        workdir,
        slot: deps.registry.slot(&agent.id),
        deps: Arc::clone(deps),
    });
    Child::actor(spec, move |child| Ok(AgentActor::new(child, Arc::clone(&job))))
}
