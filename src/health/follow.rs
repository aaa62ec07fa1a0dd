//! What follows for an agent that may have changed: it is judged, and what has become of its document is told or noted.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{agent::Agent, change::Change, fold::Fold, report::Now};
use crate::model::{AgentHealth, AgentId, AgentState};

impl Fold {
    /// Changes a copy of one agent, judges it and puts it back whole: a panic on the way leaves the agent as it was.
    pub(super) fn with(&mut self, now: Now, id: &AgentId, change: impl FnOnce(&mut Agent)) -> Vec<Change> {
        let Some(mut agent) = self.agents.get(id).cloned() else { return Vec::new() };
        let before = Arc::clone(&agent.doc);
        change(&mut agent);
        self.agents.insert(id.clone(), agent);
        self.follow(now, id, &before)
    }

    /// Judges an agent that may have changed, and tells how it differs from what it was before. More may wait that was said, so silence is held
    /// against nobody that it was not held against already; the tick behind everything does that.
    pub(super) fn follow(&mut self, now: Now, id: &AgentId, before: &Arc<AgentHealth>) -> Vec<Change> {
        let mut changes = Vec::new();
        if let Some(agent) = self.agents.get_mut(id) {
            let is_silent = matches!(before.state, AgentState::Degraded | AgentState::Stuck);
            let heard = Now { wall: now.wall, mono: if is_silent { self.judged } else { self.began } };
            let seen = look(agent, before, self.identity.sample_interval, heard);
            self.judge_at = self.judge_at.into_iter().chain(seen.deadline).min();
            if agent.has_ended() {
                self.unsaved.hurry(id);
            }
            self.tell(id, before, seen, &mut changes);
        }
        changes
    }

    /// Judges all agents, and tells of those that have changed, by id.
    pub(super) fn judge_all(&mut self, now: Now, changes: &mut Vec<Change>) {
        self.judge_at = None;
        let mut changed = Vec::new();
        for (id, agent) in &mut self.agents {
            let before = Arc::clone(&agent.doc);
            let seen = look(agent, &before, self.identity.sample_interval, now);
            self.judge_at = self.judge_at.into_iter().chain(seen.deadline).min();
            if seen.stuck || seen.differs != Differs::Not {
                changed.push((id.clone(), before, seen));
            }
        }
        changed.sort_unstable_by(|(a, ..), (b, ..)| a.cmp(b));
        for (id, before, seen) in changed {
            self.tell(&id, &before, seen, changes);
        }
    }

    fn tell(&mut self, id: &AgentId, before: &AgentHealth, seen: Seen, changes: &mut Vec<Change>) {
        let Some(agent) = self.agents.get_mut(id) else { return };
        let incarnation = agent.doc.incarnation;
        match seen.differs {
            Differs::Not => {}
            Differs::Measured => self.note_sampled(id),
            Differs::Derived => {
                changes.push(Change::Agent { from: Some(before.state), agent: Arc::clone(agent.show()) });
                self.sampled.remove(id);
                self.touch(&id.swarm);
            }
        }
        if seen.stuck {
            changes.push(Change::Stuck { agent: id.clone(), incarnation });
        }
    }

    pub(super) fn note_sampled(&mut self, id: &AgentId) {
        // Most are noted already, many times a second.
        if !self.sampled.contains(id) {
            self.sampled.insert(id.clone());
        }
    }
}

/// How an agent's document differs from the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Differs {
    Not,
    /// In what is measured, or will do so when it is shown.
    Measured,
    Derived,
}

/// What judging an agent has shown.
struct Seen {
    differs: Differs,
    /// It has just become stuck and is to be restarted for it.
    stuck: bool,
    /// When time alone may change it next.
    deadline: Option<Instant>,
}

fn look(agent: &mut Agent, before: &Arc<AgentHealth>, sample_interval: Duration, now: Now) -> Seen {
    let stuck = agent.judge(sample_interval, now);
    let same = Arc::ptr_eq(before, &agent.doc);
    let differs = match same || same_but_measured(before, &agent.doc) {
        false => Differs::Derived,
        true if agent.is_ahead() || !same && **before != *agent.doc => Differs::Measured,
        true => Differs::Not,
    };
    Seen { differs, stuck, deadline: agent.deadline(sample_interval, now) }
}

/// Whether two documents differ in nothing but what is measured, which is told at most once a second.
fn same_but_measured(a: &AgentHealth, b: &AgentHealth) -> bool {
    a.state == b.state
        && a.since == b.since
        && a.reasons == b.reasons
        && a.desired == b.desired
        && a.incarnation == b.incarnation
        && a.pid == b.pid
        && a.restarts == b.restarts
        && a.retry_at == b.retry_at
        && a.last_exit == b.last_exit
}
