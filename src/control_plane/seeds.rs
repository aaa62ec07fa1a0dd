//! Where supervision goes on under a new daemon, decided from what the journal knows, without touching anything.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use hivekeeper_actors::{Seed, SeedState};

use super::plan::{PlannedAgent, PlannedSwarm};
use crate::{
    health,
    model::{AgentId, Desired, ExitCause, ExitRecord, RestartType},
    store::{Ledger, StandingState},
};

/// Whether an incarnation ended because no daemon led it any more, and not by any doing of its own: its agent simply starts again.
pub fn ended_with_the_daemon(exit: &ExitRecord) -> bool {
    matches!(exit.cause, ExitCause::Stopped | ExitCause::LeaseLost | ExitCause::NeverStarted)
}

/// Whether a start after this end is none of the restarts that are counted.
fn debits_nobody(exit: &ExitRecord) -> bool {
    ended_with_the_daemon(exit) || !exit.is_debited()
}

/// Where the supervisor of a swarm goes on.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SwarmSeed {
    /// With each agent.
    pub agents: HashMap<AgentId, Seed>,
    /// Ages of the restarts in the swarm's own window; empty under one_for_one, where each agent has its own.
    pub recent: Vec<Duration>,
}

/// Where the supervisor of a swarm goes on. What died while no daemon lived takes its group along as it would have under one; an agent of
/// which its operator wants something else, or which runs something else from now on, touches nobody.
pub fn seeds(swarm: &PlannedSwarm, ledgers: &HashMap<AgentId, Ledger>, now: SystemTime) -> SwarmSeed {
    let known = standings(swarm, ledgers);
    let window = group_window(swarm, &known, now);
    let agents = known.iter().map(|stood| {
        let (agent, ledger, _) = stood;
        let mut seed = seed(stood, swarm.spec.period, now);
        if window.is_some() {
            seed.recent.clear();
            if seed.state == SeedState::Fresh && was_lost(agent, ledger) {
                seed.state = SeedState::Lost;
            }
        }
        (agent.id.clone(), seed)
    });
    SwarmSeed { agents: agents.collect(), recent: window.unwrap_or_default() }
}

/// What the health room is to know of a swarm's agents at first.
pub fn health_seeds(
    swarm: &PlannedSwarm,
    ledgers: &HashMap<AgentId, Ledger>,
    now: SystemTime,
) -> Vec<(AgentId, health::AgentSeed)> {
    let known = standings(swarm, ledgers);
    let window = group_window(swarm, &known, now);
    let seeds = known.iter().map(|stood| {
        let mut seed = health_seed(stood, swarm.spec.period, now);
        if let Some(window) = &window {
            seed.recent.clone_from(window);
        }
        (stood.0.id.clone(), seed)
    });
    seeds.collect()
}

/// Ages of the restarts in the window of a swarm whose agents are restarted together; `None` under one_for_one.
///
/// The journal knows starts of agents. Those of one restart follow the order of the document, so that a start which does not lie behind the one
/// before it begins another.
fn group_window(swarm: &PlannedSwarm, known: &[Stood], now: SystemTime) -> Option<Vec<Duration>> {
    if !swarm.spec.strategy.is_group() {
        return None;
    }
    let gave_up = |(agent, _, standing): &Stood| {
        agent.spec.restart != RestartType::Temporary && matches!(standing, health::Standing::Failed { .. })
    };
    if known.iter().any(gave_up) {
        // Whatever starts it again gives it a fresh window.
        return Some(Vec::new());
    }
    let each = known.iter().enumerate();
    let mut starts: Vec<(SystemTime, usize)> =
        each.flat_map(|(at, (_, ledger, _))| ledger.recent.iter().map(move |start| (*start, at))).collect();
    starts.sort_unstable();
    let mut before = None;
    let mut window = Vec::new();
    for (start, at) in starts {
        if before.is_none_or(|before| at <= before) {
            window.push(now.duration_since(start).unwrap_or_default());
        }
        before = Some(at);
    }
    window.retain(|age| *age <= swarm.spec.period);
    // However many of them have ended: it is one restart.
    let is_due = known.iter().any(|(_, _, standing)| is_pending(*standing));
    window.extend(is_due.then_some(Duration::ZERO));
    Some(window)
}

/// Where the supervisor of an agent goes on.
fn seed(&(agent, ledger, standing): &Stood, period: Duration, now: SystemTime) -> Seed {
    let mut seed = Seed {
        incarnation: agent.adopt.unwrap_or(ledger.incarnation),
        restarts: ledger.restarts,
        recent: recent(standing, ledger, period, now),
        // A judgement that the last daemon did not come to is made up for.
        attempt: ledger.attempt + u32::from(is_pending(standing) && !is_judged(ledger)),
        state: SeedState::Fresh,
    };
    let until = |at: SystemTime| at.duration_since(now).unwrap_or_default();
    if matches!(standing, health::Standing::Failed { .. }) {
        seed.attempt = 0;
    }
    seed.state = match standing {
        _ if agent.adopt.is_some() => SeedState::Running,
        health::Standing::Active => SeedState::Fresh,
        health::Standing::Stopped => SeedState::Stopped,
        health::Standing::Completed => SeedState::Completed,
        health::Standing::Failed { retry_at } => SeedState::Failed { retry_in: retry_at.map(until) },
        health::Standing::BackingOff { retry_at } => SeedState::Delayed { retry_in: until(retry_at) },
    };
    seed
}

/// Ages of the automatic restarts that fill the window. The one that is due is in it since it was decided; the journal counts it when it begins.
fn recent(standing: health::Standing, ledger: &Ledger, period: Duration, now: SystemTime) -> Vec<Duration> {
    if matches!(standing, health::Standing::Failed { retry_at: Some(_) }) {
        // It is tried again with a fresh window.
        return Vec::new();
    }
    let begun = ledger.recent.iter().map(|at| now.duration_since(*at).unwrap_or_default());
    begun.filter(|age| *age <= period).chain(is_pending(standing).then_some(Duration::ZERO)).collect()
}

/// Whether an automatic restart is due.
fn is_pending(standing: health::Standing) -> bool {
    matches!(standing, health::Standing::BackingOff { .. })
}

/// Whether what it lived on is gone, and it with it: no failure, but what lives beside it in a group is not to go on without it. One that was
/// told to end, or that never came to life, is merely started.
fn was_lost(agent: &PlannedAgent, ledger: &Ledger) -> bool {
    let is_known = !matches!(ledger.standing, None | Some(StandingState::New));
    let is_lost = ledger.last_exit.as_ref().is_some_and(|exit| !exit.is_debited());
    is_known && is_lost && agent.spec.restart != RestartType::Temporary
}

/// Whether the last daemon came to say what follows the last exit.
fn is_judged(ledger: &Ledger) -> bool {
    !matches!(ledger.standing, None | Some(StandingState::Active | StandingState::New))
}

/// An agent, what the journal knows of it, and where it stood when the last daemon ended.
type Stood<'a> = (&'a PlannedAgent, &'a Ledger, health::Standing);

/// Where the agents of a swarm stood, in the order of its document. In a group one that failed is tried no sooner than those before it: when all
/// of them failed at once, each was noted at a moment of its own.
fn standings<'a>(swarm: &'a PlannedSwarm, ledgers: &'a HashMap<AgentId, Ledger>) -> Vec<Stood<'a>> {
    let mut soonest = None;
    let stood = |agent: &'a PlannedAgent| {
        let ledger = ledgers.get(&agent.id)?;
        let mut standing = standing(agent, ledger);
        if let health::Standing::Failed { retry_at: Some(at) } = &mut standing
            && swarm.spec.strategy.is_group()
        {
            *at = soonest.map_or(*at, |soonest| (*at).max(soonest));
            soonest = Some(*at);
        }
        Some((agent, ledger, standing))
    };
    swarm.agents.iter().filter_map(stood).collect()
}

/// Where an agent stood when the last daemon ended.
fn standing(agent: &PlannedAgent, ledger: &Ledger) -> health::Standing {
    if agent.adopt.is_some() {
        return health::Standing::Active;
    }
    if agent.desired == Desired::Stopped {
        return health::Standing::Stopped;
    }
    match ledger.standing {
        // What was due has begun, and ended with the daemon before that was noted; or it is due for no fault of its own, and is not counted.
        Some(StandingState::BackingOff { .. }) if ledger.last_exit.as_ref().is_some_and(debits_nobody) => {
            health::Standing::Active
        }
        Some(StandingState::BackingOff { retry_at }) => health::Standing::BackingOff { retry_at },
        Some(StandingState::Failed { retry_at }) => health::Standing::Failed { retry_at },
        Some(StandingState::Completed) => health::Standing::Completed,
        Some(StandingState::Active) => unjudged(agent.spec.restart, ledger),
        None | Some(StandingState::New) => health::Standing::Active,
    }
}

/// The last daemon died between an exit and its judgement, or before anything ran.
fn unjudged(restart: RestartType, ledger: &Ledger) -> health::Standing {
    let Some(exit) = ledger.last_exit.as_ref().filter(|exit| !ended_with_the_daemon(exit)) else {
        return health::Standing::Active;
    };
    match restart {
        RestartType::Transient | RestartType::Temporary if exit.is_normal() => health::Standing::Completed,
        RestartType::Permanent | RestartType::Transient if debits_nobody(exit) => health::Standing::Active,
        // At once: how long it was to wait, only the last daemon knew.
        RestartType::Permanent | RestartType::Transient => health::Standing::BackingOff { retry_at: exit.at },
        RestartType::Temporary => health::Standing::Failed { retry_at: None },
    }
}

/// What the health room is to know of an agent at first.
fn health_seed(&(agent, ledger, standing): &Stood, period: Duration, now: SystemTime) -> health::AgentSeed {
    health::AgentSeed {
        incarnation: agent.adopt.unwrap_or(ledger.incarnation),
        restarts: ledger.restarts,
        lives: agent.adopt.is_some(),
        recent: recent(standing, ledger, period, now),
        last_exit: ledger.last_exit.clone().map(Arc::new),
        standing,
        spent: ledger.spent.clone(),
    }
}

#[cfg(test)]
#[path = "seeds_tests.rs"]
mod tests;
