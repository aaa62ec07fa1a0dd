//! What boot does before the tree stands: find what an earlier daemon launched, take it over or end it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::{StreamExt, stream};

use super::{
    plan::{BootPlan, PlannedSwarm},
    seeds,
};
use crate::{
    health,
    model::{AgentId, ExitCause, ExitRecord, Observation, Target, exit::LAST_LINES_MAX},
    runtime::{AgentDeps, AgentEvent, Launched, OpenLaunch, RecoverError, Recovered, Veil, keep_lines, keep_loss},
    store::{IncarnationRow, Journal, Ledger, StoreError},
};

/// Launchers asked at once: each costs a socket and a few frames.
const AT_ONCE: usize = 64;
/// How long all secrets of agents that are taken over may take to be read: twice what one start may. Leases run meanwhile.
const HIDE_DEADLINE: Duration = Duration::from_secs(4);
/// How long an end that was asked for may take before the daemon goes on without the proof.
const END_WAIT: Duration = Duration::from_secs(30);
/// Grace of an agent that nobody wants any more and whose document is gone.
const UNWANTED_GRACE: Duration = Duration::from_secs(10);

/// A younger daemon leads what the journal says is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a younger daemon leads this hive")]
pub struct Fenced;

/// What boot found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Takeover {
    /// Agents that live and are ours now.
    pub taken_over: usize,
    /// Agents that nobody wants any more, proven dead.
    pub ended: usize,
    /// Agents whose launcher does not answer yet.
    pub unproven: usize,
}

enum Fate {
    Lives,
    /// It ended while no daemon led it, which is no failure of its own.
    EndedWithTheDaemon(AgentId),
    /// It ended by itself, which its supervisor judges.
    Ended,
    Unproven,
}

/// What the journal knows of a swarm's agents.
///
/// # Errors
/// It can't be read.
pub async fn ledgers(
    journal: &dyn Journal,
    plan: &PlannedSwarm,
    now: SystemTime,
) -> Result<HashMap<AgentId, Ledger>, StoreError> {
    let asked = plan.agents.iter().map(|agent| (agent.id.clone(), plan.spec.period)).collect();
    Ok(journal.ledgers(asked, now).await?.into_iter().collect())
}

/// Tells health what there is to be, before anything is heard of it: what comes up from an agent that nobody has declared is refused.
///
/// # Errors
/// The journal can't be read.
pub async fn declare(journal: &dyn Journal, health: &health::Handle, plan: &BootPlan) -> Result<(), StoreError> {
    for swarm in &plan.swarms {
        declare_one(journal, health, swarm).await?;
    }
    Ok(())
}

/// The same of one swarm.
///
/// # Errors
/// The journal can't be read.
pub(super) async fn declare_one(
    journal: &dyn Journal,
    health: &health::Handle,
    swarm: &PlannedSwarm,
) -> Result<(), StoreError> {
    let now = SystemTime::now();
    let ledgers = ledgers(journal, swarm, now).await?;
    health.report(health::Report::Declared {
        spec: Arc::clone(&swarm.spec),
        desired: swarm.desired,
        seeds: seeds::health_seeds(swarm, &ledgers, now),
    });
    for agent in swarm.agents.iter().filter(|agent| agent.desired != swarm.desired) {
        health.report(health::Report::Desired { target: Target::Agent(agent.id.clone()), desired: agent.desired });
    }
    Ok(())
}

/// Takes over every incarnation that the plan adopts and ends every one that it does not want. Agents that can't be reached now are left
/// to their actors, which go on trying.
///
/// # Errors
/// [`Fenced`].
pub async fn recover(deps: &Arc<AgentDeps>, plan: &mut BootPlan) -> Result<Takeover, Fenced> {
    for open in plan.adopt.iter().chain(&plan.end) {
        deps.registry.slot(&open.begun.agent).set_veil(Veil::new(open.begun.token_hash, &[]));
    }
    let all = stream::iter(plan.adopt.iter().chain(&plan.end));
    if tokio::time::timeout(HIDE_DEADLINE, all.for_each_concurrent(AT_ONCE, |open| hide(deps, plan, open)))
        .await
        .is_err()
    {
        tracing::warn!("secrets of agents that are taken over can't be read; they are not hidden in what these print");
    }
    let adopted: Vec<_> =
        stream::iter(&plan.adopt).map(|open| adopt_one(deps, open)).buffer_unordered(AT_ONCE).collect().await;
    let ended: Vec<_> =
        stream::iter(&plan.end).map(|open| end_one(deps, open)).buffer_unordered(AT_ONCE).collect().await;
    let mut outcome = Takeover::default();
    let mut over = HashSet::new();
    for fate in adopted.into_iter().chain(ended) {
        match fate? {
            Fate::Lives => outcome.taken_over += 1,
            Fate::EndedWithTheDaemon(agent) => _ = over.insert(agent),
            Fate::Ended => outcome.ended += 1,
            Fate::Unproven => outcome.unproven += 1,
        }
    }
    for agent in plan.swarms.iter_mut().flat_map(|swarm| &mut swarm.agents) {
        if over.contains(&agent.id) {
            agent.adopt = None;
        }
    }
    Ok(outcome)
}

/// What it says from now on is kept without its secrets. Nobody knows which ones it was started with: those that lie where its document says are taken
/// for them.
async fn hide(deps: &Arc<AgentDeps>, plan: &BootPlan, open: &IncarnationRow) {
    let id = &open.begun.agent;
    let swarm = plan.swarms.iter().find(|swarm| swarm.spec.name == id.swarm);
    let agent = swarm.and_then(|swarm| Some((&swarm.spec, swarm.agents.iter().find(|agent| agent.id == *id)?)));
    let Some((swarm, agent)) = agent else { return };
    let (known, missing) = deps.secrets.values(&swarm.environment(&agent.spec), swarm.origin).await;
    if let Some(error) = missing {
        tracing::warn!(agent = %id, %error, "a secret of an agent that is taken over is not hidden in what it prints");
    }
    deps.registry.slot(id).set_veil(Veil::new(open.begun.token_hash, &known));
}

async fn adopt_one(deps: &Arc<AgentDeps>, open: &IncarnationRow) -> Result<Fate, Fenced> {
    let begun = &open.begun;
    let slot = deps.registry.slot(&begun.agent);
    slot.set_unproven(Some(open_launch(deps, open)));
    slot.issue(begun.incarnation, begun.token_hash);
    match ask(deps, open).await {
        Ok(Recovered::Exited { record, lost }) if is_no_failure(open, &record) => {
            lose(deps, open, lost).await;
            over(deps, open, record).await
        }
        // Nothing was found, and no sign of life was ever seen: the daemon died before the launch.
        Ok(Recovered::Lost) if open.alive_at.is_none() => {
            over(deps, open, without_record(open, ExitCause::NeverStarted)).await
        }
        // Its end was asked for and comes within its own grace. To lead it would make a failure of it.
        Ok(Recovered::Ending(launched)) => match wait_end(deps, open, launched).await {
            Some(record) => over(deps, open, record).await,
            None => Ok(Fate::Unproven),
        },
        Ok(found) => {
            let lives = matches!(found, Recovered::Running(_));
            slot.set_recovered(found);
            Ok(if lives { Fate::Lives } else { Fate::Ended })
        }
        Err(RecoverError::Fenced) => Err(Fenced),
        Err(RecoverError::Unproven(why)) => {
            tracing::warn!(agent = %begun.agent, incarnation = begun.incarnation, %why, "a launcher does not answer yet");
            Ok(Fate::Unproven)
        }
    }
}

/// It ended with its daemon, or with a container in which it had never shown a sign of life.
fn is_no_failure(open: &IncarnationRow, record: &ExitRecord) -> bool {
    let unborn = open.alive_at.is_none() && matches!(record.cause, ExitCause::ContainerLost { .. });
    unborn || seeds::ended_with_the_daemon(record)
}

/// Counts output that went with a launcher which nobody led.
async fn lose(deps: &Arc<AgentDeps>, open: &IncarnationRow, lines: u64) {
    if lines > 0 {
        let begun = &open.begun;
        deps.witness.saw(&begun.agent, begun.incarnation, Observation::Lost { lines, bytes: 0 });
        keep_loss(Arc::clone(deps), begun.agent.clone(), begun.incarnation, lines, 0).await;
    }
}

/// Its end is no failure of its own.
async fn over(deps: &Arc<AgentDeps>, open: &IncarnationRow, record: ExitRecord) -> Result<Fate, Fenced> {
    let slot = deps.registry.slot(&open.begun.agent);
    slot.revoke();
    slot.set_unproven(None);
    close(deps, open, record).await?;
    Ok(Fate::EndedWithTheDaemon(open.begun.agent.clone()))
}

/// Leads it to its end, and keeps what it says on the way. What does not end in time is killed with its reins, and left to its actor.
async fn wait_end(deps: &Arc<AgentDeps>, open: &IncarnationRow, mut launched: Launched) -> Option<ExitRecord> {
    let (agent, incarnation) = (&open.begun.agent, open.begun.incarnation);
    let end = async {
        while let Some(event) = launched.events.recv().await {
            match event {
                AgentEvent::Exited(record) => return Some(record),
                AgentEvent::Output(lines) => {
                    let control = Arc::clone(&launched.control);
                    keep_lines(Arc::clone(deps), agent.clone(), incarnation, lines, control).await;
                }
                AgentEvent::Lost { lines, bytes } => {
                    keep_loss(Arc::clone(deps), agent.clone(), incarnation, lines, bytes).await;
                }
                _ => {}
            }
        }
        None
    };
    tokio::time::timeout(END_WAIT, end).await.ok().flatten()
}

async fn end_one(deps: &Arc<AgentDeps>, open: &IncarnationRow) -> Result<Fate, Fenced> {
    let record = match ask(deps, open).await {
        Ok(Recovered::Running(launched) | Recovered::Ending(launched)) => {
            launched.control.stop(UNWANTED_GRACE);
            wait_end(deps, open, launched).await
        }
        Ok(Recovered::Exited { record, lost }) => {
            lose(deps, open, lost).await;
            Some(record)
        }
        Ok(Recovered::Lost) => Some(without_record(open, ExitCause::LauncherLost)),
        Err(RecoverError::Fenced) => return Err(Fenced),
        Err(RecoverError::Unproven(_)) => None,
    };
    if let Some(record) = record {
        close(deps, open, record).await?;
        return Ok(Fate::Ended);
    }
    // It is still in the journal as open; its next start proves it dead first, and its lease runs out.
    deps.registry.slot(&open.begun.agent).set_unproven(Some(open_launch(deps, open)));
    tracing::warn!(agent = %open.begun.agent, incarnation = open.begun.incarnation, "an unwanted agent is not proven dead yet");
    Ok(Fate::Unproven)
}

async fn ask(deps: &Arc<AgentDeps>, open: &IncarnationRow) -> Result<Recovered, RecoverError> {
    let begun = &open.begun;
    let last_seq = deps.logs.last_seq(&begun.agent, begun.incarnation);
    deps.runtimes
        .of(&begun.agent.swarm)
        .recover(begun.launch_id, begun.agent.clone(), begun.incarnation, last_seq)
        .await
}

/// Writes an end down. A journal that can't take it leaves the incarnation open, and its record stays where it is.
async fn close(deps: &Arc<AgentDeps>, open: &IncarnationRow, mut record: ExitRecord) -> Result<(), Fenced> {
    let begun = &open.begun;
    record.incarnation = begun.incarnation;
    record.last_lines = deps.logs.tail(&begun.agent, begun.incarnation, LAST_LINES_MAX);
    match deps.journal.end_incarnation(begun.launch_id, &record).await {
        Ok(()) => deps.runtimes.of(&begun.agent.swarm).forget(begun.launch_id).await,
        Err(StoreError::Fenced) => return Err(Fenced),
        Err(error) => tracing::warn!(agent = %begun.agent, %error, "failed to journal an exit"),
    }
    deps.witness.saw(&begun.agent, begun.incarnation, Observation::Exited(Arc::new(record)));
    Ok(())
}

fn open_launch(deps: &AgentDeps, open: &IncarnationRow) -> OpenLaunch {
    let runtime = deps.runtimes.of(&open.begun.agent.swarm).kind();
    OpenLaunch { launch_id: open.begun.launch_id, incarnation: open.begun.incarnation, runtime }
}

fn without_record(open: &IncarnationRow, cause: ExitCause) -> ExitRecord {
    ExitRecord::unseen(open.begun.incarnation, SystemTime::now(), cause)
}
