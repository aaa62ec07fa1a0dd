//! What happens to one agent of a group, told to those that it touches beside that one.

use std::sync::Arc;

use hivekeeper_actors::{EventKind, LimitFollows, SupervisionEvent};

use super::{change::Change, fold::Fold, report::Now};
use crate::model::{AgentId, AgentName};

impl Fold {
    /// Folds what the supervision tree did with an agent. In a group the window is everybody's, and a failure may take others along.
    pub(super) fn supervised(&mut self, now: Now, id: &AgentId, event: &SupervisionEvent) -> Vec<Change> {
        let mut changes = self.with(now, id, |agent| agent.supervision(event, now));
        let Some(swarm) = self.swarms.get_mut(&id.swarm).filter(|swarm| swarm.group) else { return changes };
        let gives_up = matches!(
            event.kind,
            EventKind::LimitReached { follows: LimitFollows::GroupFails | LimitFollows::AllFail, .. }
        );
        let takes_along = |name: &AgentName| match &event.kind {
            EventKind::GroupRestart { siblings } => siblings.iter().any(|sibling| sibling.as_str() == name.as_str()),
            _ => gives_up,
        };
        let ending = self.agents.get(id).and_then(|agent| agent.ending()).unwrap_or("failed");
        let account: Arc<str> = format!("{} {ending}", id.name).into();
        if gives_up {
            swarm.gave_up = Some(Arc::clone(&account));
            swarm.dirty = true;
        }
        let others: Vec<AgentId> = swarm.order.iter().filter(|other| *other != id).cloned().collect();
        for other in others {
            let is_taken = takes_along(&other.name);
            let known = self.agents.get(&other).map(|agent| agent.doc.restarts_in_window);
            if is_taken || known != Some(event.restarts_in_window) {
                let told = self.with(now, &other, |agent| {
                    agent.count_in_window(event.restarts_in_window, now);
                    if is_taken {
                        agent.take_along(Arc::clone(&account));
                    }
                });
                changes.extend(told);
            }
        }
        changes
    }
}
