//! Which swarms and agents there are, and what the operator wants of them.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    agent::Agent,
    change::Change,
    fold::{Fold, Swarm},
    report::{AgentSeed, Now, Standing},
};
use crate::model::{
    AgentId, AgentSpec, Desired, ExitCause, HomeHealth, Level, RestartType, SwarmHealth, SwarmName, SwarmSpec, Target,
};

impl Fold {
    pub(super) fn declare(
        &mut self,
        now: Now,
        spec: &SwarmSpec,
        desired: Desired,
        seeds: &[(AgentId, AgentSeed)],
    ) -> Vec<Change> {
        // The names were checked when the document was; one that is too long has no agents to show.
        let expanded = spec.expand().unwrap_or_default();
        let mut changes = Vec::new();
        let order: Arc<[AgentId]> = expanded.iter().map(|(id, _)| id.clone()).collect();
        let known = self.swarms.get(&spec.name).map(|swarm| (swarm.doc.desired, Arc::clone(&swarm.order)));
        if let Some((_, known)) = &known {
            let kept: HashSet<&AgentId> = order.iter().collect();
            for gone in known.iter().filter(|id| !kept.contains(id)) {
                changes.extend(self.remove_agent(gone));
            }
        }
        let seeds: HashMap<&AgentId, &AgentSeed> = seeds.iter().map(|(id, seed)| (id, seed)).collect();
        let culprit = if spec.strategy.is_group() { culprit(&expanded, &seeds) } else { None };
        for (id, agent_spec) in expanded {
            if let Some(agent) = self.agents.get_mut(&id) {
                agent.redeclare(agent_spec, spec.period);
                changes.extend(self.with(now, &id, |_| {}));
                continue;
            }
            let none = AgentSeed::default();
            let seed = seeds.get(&id).copied().unwrap_or(&none);
            // It was here a moment ago, and the journal does not know yet.
            let newer = self.unsaved.get(&id).map(|spent| AgentSeed { spent: Some(spent.clone()), ..seed.clone() });
            let seed = newer.as_ref().unwrap_or(seed);
            let mut agent = Agent::new(id.clone(), agent_spec, spec.period, desired, seed, now);
            if let Some((_, account)) = culprit.as_ref().filter(|(whose, _)| *whose != id)
                && was_ended(seed)
            {
                agent.take_along(Arc::clone(account));
                // Why it is where it is follows from that.
                agent.judge(self.identity.sample_interval, now);
            }
            changes.push(Change::Agent { from: None, agent: Arc::clone(&agent.doc) });
            self.agents.insert(id, agent);
        }
        let names = order.iter().map(|id| id.name.clone()).collect();
        match (self.swarms.get_mut(&spec.name), known) {
            (Some(swarm), Some((before, _))) => {
                swarm.order = order;
                swarm.group = spec.strategy.is_group();
                swarm.dirty = true;
                let doc = Arc::make_mut(&mut swarm.doc);
                doc.agents = names;
                let adjustments = std::mem::take(&mut doc.home.adjustments);
                doc.home = HomeHealth { adjustments, ..HomeHealth::of(&spec.home) };
                if before != desired {
                    changes.extend(self.desire(now, &Target::Swarm(spec.name.clone()), desired));
                }
            }
            _ => {
                let doc = SwarmHealth {
                    name: spec.name.clone(),
                    level: Level::Healthy,
                    since: now.wall,
                    reasons: Vec::new(),
                    desired,
                    home: HomeHealth::of(&spec.home),
                    agents: names,
                };
                let mut swarm = Swarm::new(doc, order, spec.strategy.is_group());
                swarm.gave_up = culprit.map(|(_, account)| account);
                self.swarms.insert(spec.name.clone(), swarm);
            }
        }
        changes
    }

    pub(super) fn remove_swarm(&mut self, name: &SwarmName) -> Vec<Change> {
        let Some(swarm) = self.swarms.remove(name) else { return Vec::new() };
        self.hive_dirty = true;
        let mut changes: Vec<Change> = swarm.order.iter().flat_map(|id| self.remove_agent(id)).collect();
        changes.push(Change::SwarmRemoved(name.clone()));
        changes
    }

    fn remove_agent(&mut self, id: &AgentId) -> Option<Change> {
        self.sampled.remove(id);
        self.unsaved.hurry(id);
        self.agents.remove(id).map(|_| Change::AgentRemoved(id.clone()))
    }

    pub(super) fn desire(&mut self, now: Now, target: &Target, desired: Desired) -> Vec<Change> {
        let ids: Arc<[AgentId]> = match target {
            Target::Agent(id) => Arc::from([id.clone()]),
            Target::Swarm(name) => {
                let Some(swarm) = self.swarms.get_mut(name) else { return Vec::new() };
                if swarm.doc.desired != desired {
                    Arc::make_mut(&mut swarm.doc).desired = desired;
                    swarm.dirty = true;
                }
                Arc::clone(&swarm.order)
            }
        };
        ids.iter().flat_map(|id| self.with(now, id, |agent| agent.desire(desired))).collect()
    }
}

/// Whether it has given up after it was told to end: in a group, for the sake of another.
fn was_ended(seed: &AgentSeed) -> bool {
    let is_ended = seed.last_exit.as_deref().is_some_and(|exit| exit.cause == ExitCause::Stopped);
    is_ended && matches!(seed.standing, Standing::Failed { .. })
}

/// Whose end was too many when the group gave up under the last daemon, and how it ended: of those that have given up the one that nobody told to end.
/// Where there are several the journal does not say which it was.
fn culprit(agents: &[(AgentId, Arc<AgentSpec>)], seeds: &HashMap<&AgentId, &AgentSeed>) -> Option<(AgentId, Arc<str>)> {
    let mut all = agents.iter().filter_map(|(id, spec)| {
        let seed = seeds.get(id)?;
        let exit = seed.last_exit.as_deref()?;
        let gave_up = matches!(seed.standing, Standing::Failed { .. }) && !was_ended(seed);
        let account = || (id.clone(), Arc::from(format!("{} {}", id.name, exit.describe())));
        // A temporary agent is never restarted, so that its end is too many for nobody.
        (gave_up && spec.restart != RestartType::Temporary).then(account)
    });
    all.next().filter(|_| all.next().is_none())
}
