//! What the office remembers of a swarm, changed by operations.

use std::{collections::HashMap, sync::Arc};

use hivekeeper_actors::ChildRef;
use tokio::sync::watch;

use super::{Entry, Office};
use crate::{
    control_plane::plan::PlannedSwarm,
    model::{AgentId, Desired, OperationId, Step, SwarmName, SwarmSpec},
    runtime::AgentActor,
};

impl Office {
    /// A swarm as it is desired.
    pub(in crate::control_plane) fn plan(&self, name: &SwarmName) -> Option<PlannedSwarm> {
        self.entries.get(name).map(|entry| entry.plan.clone())
    }

    /// A new swarm is there, held until it is under supervision.
    pub(in crate::control_plane) fn admit(&self, plan: PlannedSwarm) {
        for agent in &plan.agents {
            self.needs.agents.registry.slot(&agent.id).set_paused(agent.desired == Desired::Paused);
        }
        let supervisor = watch::Sender::new(None);
        let entry = Entry { plan, supervisor, agents: HashMap::new(), held: true, left: None };
        self.entries.insert(entry.plan.spec.name.clone(), entry);
    }

    /// Whether an operation alone puts a swarm up or takes it down.
    pub(in crate::control_plane) fn hold(&self, name: &SwarmName, held: bool) {
        if let Some(mut entry) = self.entries.get_mut(name) {
            entry.held = held;
        }
    }

    /// A swarm has another document. What is to be taken over once the swarm is under supervision still is: what the last daemon had begun may be
    /// carried out before that.
    pub(in crate::control_plane) fn replace(&self, mut plan: PlannedSwarm) {
        if let Some(mut entry) = self.entries.get_mut(&plan.spec.name) {
            let living: HashMap<_, _> = entry.plan.agents.iter().map(|agent| (&agent.id, agent.adopt)).collect();
            for agent in &mut plan.agents {
                agent.adopt = living.get(&agent.id).copied().flatten();
            }
            let before = std::mem::replace(&mut entry.plan, plan);
            entry.left.get_or_insert(before.spec);
        }
    }

    /// The document that agents of a swarm may still run although it has another one: the controller fell over whoever was bringing them to that.
    pub(in crate::control_plane) fn left_document(&self, name: &SwarmName) -> Option<Arc<SwarmSpec>> {
        self.entries.get(name)?.left.clone()
    }

    /// An operation has come one step further: for whoever takes it up if the controller falls before this is told.
    pub(in crate::control_plane) fn note_step(&self, id: OperationId, step: Step) {
        if let Some(sender) = self.under_way.get(&id) {
            sender.send_if_modified(|operation| {
                operation.steps.push(step);
                false
            });
        }
    }

    /// Nothing is to be brought to the present document any more.
    pub(in crate::control_plane) fn has_settled(&self, name: &SwarmName) {
        if let Some(mut entry) = self.entries.get_mut(name) {
            entry.left = None;
        }
    }

    /// Its supervisor has other children: `made` are the handles of all, of which those of new ones count.
    pub(in crate::control_plane) fn know_agents(&self, name: &SwarmName, made: HashMap<AgentId, ChildRef<AgentActor>>) {
        if let Some(mut entry) = self.entries.get_mut(name) {
            entry.agents.retain(|id, _| made.contains_key(id));
            for (id, reference) in made {
                entry.agents.entry(id).or_insert(reference);
            }
        }
    }

    /// A swarm is gone.
    pub(in crate::control_plane) fn dismiss(&self, name: &SwarmName) {
        if let Some((_, entry)) = self.entries.remove(name) {
            self.forget_agents(entry.plan.agents.iter().map(|agent| &agent.id));
            self.needs.desk.forget_swarm(name);
        }
    }

    /// These agents are gone.
    pub(in crate::control_plane) fn forget_agents<'a>(&self, agents: impl Iterator<Item = &'a AgentId>) {
        for agent in agents {
            self.needs.agents.registry.remove(agent);
            self.needs.desk.forget_agent(agent);
        }
    }

    /// A swarm is to be put into the tree, or is to be looked for there.
    pub(in crate::control_plane) fn look_again(self: &Arc<Self>) {
        self.supervisor_fell();
    }
}
