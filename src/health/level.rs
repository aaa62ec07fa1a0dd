//! Levels and their reasons, derived from what is below and from nothing else.

use std::time::Duration;

use crate::model::{AgentHealth, AgentState, Desired, Level, Reason, SwarmHealth};

/// Names told in one reason before the rest is only counted: a line that people read.
const NAMES_MAX: usize = 5;

/// The reason that is the swarm's own: its supervisor has given up. All others sum up its agents.
pub(super) const GAVE_UP: &str = "swarm_gave_up";

/// Bytes of what is told of one of them: errors of runtimes can be long, and the agent's own document has all of it.
const DETAIL_BYTES_MAX: usize = 256;

/// A restart that is due sooner than this is on its way, not waiting; a swarm of one that restarts at once is not critical in between.
const AT_ONCE: Duration = Duration::from_secs(1);

/// What one agent contributes to its swarm; `None` when it is as it should be.
fn complaint(agent: &AgentHealth) -> Option<(Level, &'static str)> {
    use AgentState as S;
    match (agent.desired, agent.state) {
        (_, S::Completed)
        | (Desired::Running, S::Running)
        | (Desired::Paused, S::Paused)
        | (Desired::Stopped, S::Pending | S::Stopped | S::Failed | S::BackingOff) => None,
        (_, S::Unknown) => Some((Level::Unknown, "agents_unknown")),
        (_, S::Stopping) => Some((Level::Degraded, "agents_stopping")),
        (Desired::Stopped, S::Starting | S::Running | S::Degraded | S::Stuck | S::Paused) => {
            Some((Level::Degraded, "agents_still_run"))
        }
        (Desired::Paused, S::Running) => Some((Level::Degraded, "agents_not_paused")),
        (Desired::Running, S::Paused) => Some((Level::Degraded, "agents_paused")),
        (_, S::Failed) => Some((Level::Critical, "agents_failed")),
        (_, S::BackingOff) => Some((Level::Degraded, "agents_backing_off")),
        (_, S::Stopped) => Some((Level::Degraded, "agents_stopped")),
        (_, S::Degraded) => Some((Level::Degraded, "agents_degraded")),
        (_, S::Stuck) => Some((Level::Degraded, "agents_stuck")),
        (_, S::Starting) => Some((Level::Degraded, "agents_starting")),
        (_, S::Pending) => Some((Level::Degraded, "agents_pending")),
    }
}

/// Whether an agent that should live does not and nothing is under way that will change that at once.
fn down(agent: &AgentHealth) -> bool {
    match agent.state {
        AgentState::Failed | AgentState::Stopped => true,
        AgentState::BackingOff => {
            agent.retry_at.is_none_or(|at| at.duration_since(agent.since).is_ok_and(|wait| wait >= AT_ONCE))
        }
        // It waits for one that backs off.
        AgentState::Pending => agent.reasons.first().is_some_and(|reason| reason.code == "sibling_failed"),
        _ => false,
    }
}

/// The level of a swarm and why. `group` where its agents are restarted together: whose end was too many, if that is known.
pub(super) fn of_swarm<'a>(
    agents: impl Iterator<Item = &'a AgentHealth> + Clone,
    group: Option<Option<&str>>,
) -> (Level, Vec<Reason>) {
    let mut found = Complaints::default();
    let is_bound = |agent: &&AgentHealth| {
        let ended_alone = agent.reasons.first().is_some_and(|reason| reason.code == "exited_abnormally");
        let wanted = agent.desired != Desired::Stopped;
        wanted && !matches!(agent.state, AgentState::Stopped | AgentState::Completed) && !ended_alone
    };
    let mut bound = agents.clone().filter(is_bound).peekable();
    if let Some(whose) = group
        && bound.peek().is_some()
        && bound.all(|agent| agent.state == AgentState::Failed)
    {
        found.add(Level::Critical, GAVE_UP, || {
            whose.unwrap_or("its agents needed more restarts than its intensity allows").to_owned()
        });
    }
    for agent in agents.clone() {
        if let Some((level, code)) = complaint(agent) {
            found.add(level, code, || match agent.reasons.first() {
                Some(why) => format!("{} ({})", agent.id.name, short(&why.detail)),
                None => agent.id.name.to_string(),
            });
        }
    }
    let mut wanted =
        agents.filter(|agent| agent.desired != Desired::Stopped && agent.state != AgentState::Completed).peekable();
    if wanted.peek().is_some() && wanted.all(down) {
        found.add(Level::Critical, "no_agent_runs", || "none that should".to_owned());
    }
    found.into_parts()
}

fn short(detail: &str) -> std::borrow::Cow<'_, str> {
    match detail.floor_char_boundary(DETAIL_BYTES_MAX) {
        end if end < detail.len() => format!("{} ...", &detail[..end]).into(),
        _ => detail.into(),
    }
}

/// What the hive's level follows from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Planes<'a> {
    pub(super) reconciled: bool,
    pub(super) reachable: bool,
    pub(super) last_error: Option<&'a str>,
    pub(super) listening: bool,
    /// Why the history can't be kept.
    pub(super) history: Option<&'a str>,
    /// Who can't be told of anything, and why.
    pub(super) notify: Option<&'a str>,
    /// What the disk is short of.
    pub(super) disk: Option<&'a str>,
}

/// The level of the hive and why.
pub(super) fn of_hive<'a>(swarms: impl Iterator<Item = &'a SwarmHealth>, planes: Planes<'_>) -> (Level, Vec<Reason>) {
    let mut found = Complaints::default();
    if !planes.reconciled {
        found.add(Level::Unknown, "not_reconciled", || "the first pass over what should run has not ended".to_owned());
    } else if !planes.reachable {
        found.add(Level::Degraded, "control_plane_failing", || {
            planes.last_error.unwrap_or("no detail was given").to_owned()
        });
    }
    if planes.reconciled && !planes.listening {
        found.add(Level::Degraded, "data_plane_down", || "agents can't open sessions".to_owned());
    }
    if let Some(why) = planes.history {
        found.add(Level::Degraded, "history_failing", || why.to_owned());
    }
    if let Some(why) = planes.notify {
        found.add(Level::Degraded, "notify_failing", || why.to_owned());
    }
    if let Some(why) = planes.disk {
        found.add(Level::Degraded, "disk_low", || why.to_owned());
    }
    for swarm in swarms {
        let code = match swarm.level {
            Level::Healthy => continue,
            Level::Degraded => "swarms_degraded",
            Level::Unknown => "swarms_unknown",
            Level::Critical => "swarms_critical",
        };
        found.add(swarm.level, code, || swarm.name.to_string());
    }
    found.into_parts()
}

/// Complaints by code, in the order in which each code came up first.
#[derive(Default)]
struct Complaints {
    level: Option<Level>,
    by_code: Vec<(&'static str, Vec<String>, usize)>,
}

impl Complaints {
    fn add(&mut self, level: Level, code: &'static str, who: impl FnOnce() -> String) {
        self.level = self.level.max(Some(level));
        let at = self.by_code.iter().position(|(known, _, _)| *known == code).unwrap_or_else(|| {
            self.by_code.push((code, Vec::new(), 0));
            self.by_code.len() - 1
        });
        let (_, named, more) = &mut self.by_code[at];
        if named.len() < NAMES_MAX {
            named.push(who());
        } else {
            *more += 1;
        }
    }

    fn into_parts(self) -> (Level, Vec<Reason>) {
        let reasons = self
            .by_code
            .into_iter()
            .map(|(code, named, more)| {
                let mut detail = named.join(", ");
                if more > 0 {
                    detail.push_str(&format!(" and {more} more"));
                }
                Reason { code, detail }
            })
            .collect();
        (self.level.unwrap_or(Level::Healthy), reasons)
    }
}
