//! Carries out what changes the document of a swarm: launch, update, scale, delete. The plan is [`changes`]; here it is performed, in its order.

use std::{collections::HashMap, sync::Arc, time::SystemTime};

use hivekeeper_actors::SupervisorError;
use tokio::time::Instant;

use super::{
    changes::{Change, changes},
    controller,
    execute::{Ask, Done, HEAL_WAIT, Progress, came_up, ended, gave_up, judge, look_at},
    office::Office,
    plan::{self, PlannedAgent, PlannedSwarm, Scaled},
    recover, seeds, swarm,
};
use crate::{
    health,
    model::{AgentId, AgentName, Desired, Home, Origin, RuntimeKind, Step, SwarmName, SwarmSpec, Target},
    store::{Journal, Standing, StandingState, StoreError, SwarmRow},
    view,
};

/// A swarm as the journal keeps it.
pub fn row(plan: &PlannedSwarm) -> SwarmRow {
    let json = |text: serde_json::Result<String>| Arc::from(text.unwrap_or_default());
    SwarmRow {
        name: plan.spec.name.clone(),
        origin: plan.spec.origin,
        document: json(serde_json::to_string(&view::document(&plan.spec))),
        scaled: (!plan.scaled.is_empty()).then(|| json(serde_json::to_string(&shown(&plan.scaled)))),
        desired: plan.desired,
        since: plan.since,
    }
}

fn shown(scaled: &Scaled) -> HashMap<&str, (u32, u32)> {
    scaled.iter().map(|(agent, to)| (agent.as_str(), *to)).collect()
}

/// The operator's numbers of a [`row`].
pub fn scaled_of(row: &SwarmRow) -> Scaled {
    let read = row.scaled.as_deref().map(serde_json::from_str::<HashMap<String, (u32, u32)>>);
    let read = read.transpose().ok().flatten().unwrap_or_default();
    read.into_iter().filter_map(|(agent, to)| Some((agent.parse().ok()?, to))).collect()
}

/// Clears what stood in the journal for an agent that is not what it was.
///
/// # Errors
/// It can't be written.
pub async fn renew(journal: &dyn Journal, agent: &AgentId, dropped: bool) -> Result<(), StoreError> {
    let now = SystemTime::now();
    if dropped {
        journal.set_agent_desired(agent, None, now).await?;
    }
    journal.reset_window(agent, now).await?;
    journal.set_standing(agent, Standing { state: StandingState::New, attempt: 0 }, now).await
}

/// A document with what is wanted of its agents; what is new follows the swarm.
fn planned(spec: Arc<SwarmSpec>, scaled: Scaled, before: Option<&PlannedSwarm>) -> PlannedSwarm {
    let desired = before.map_or(Desired::Running, |before| before.desired);
    let of_one = |id: &AgentId| before?.agents.iter().find(|one| one.id == *id).map(|one| one.desired);
    let agents = spec.expand().unwrap_or_default();
    let agents = agents.into_iter().map(|(id, agent)| {
        let desired = of_one(&id).unwrap_or(desired);
        PlannedAgent { id, spec: agent, desired, adopt: None }
    });
    let agents = agents.collect();
    PlannedSwarm { spec, scaled, desired, since: before.map_or_else(SystemTime::now, |before| before.since), agents }
}

/// Makes a swarm part of the hive and starts it.
pub(super) async fn launch(
    office: &Arc<Office>,
    spec: &Arc<SwarmSpec>,
    progress: Progress<'_>,
) -> Result<Done, String> {
    let name = &spec.name;
    if office.plan(name).is_none() {
        let plan = planned(Arc::clone(spec), Scaled::new(), None);
        office.deps().runtimes.house(spec).map_err(|error| error.to_string())?;
        office.deps().journal.put_swarm(row(&plan)).await.map_err(|error| error.to_string())?;
        declare(office, &plan).await?;
        office.admit(plan.clone());
        let swarms = office.swarms_supervisor().ok_or("the supervision tree is gone")?;
        let started = progress.unless_cancelled(controller::start_swarm(office, &swarms, plan)).await.unwrap_or(Ok(()));
        office.hold(name, false);
        if started.is_err() {
            // The next pass tries again, and so does this.
            office.look_again();
        }
    } else {
        office.hold(name, false);
        office.look_again();
    }
    let target = Target::Swarm(name.clone());
    let agents = office.agents(&target);
    match progress.unless_cancelled(started(office, &target)).await.transpose()? {
        Some(()) => Ok(Done::looked(look_at(office, &agents, |agent| judge(came_up(agent), gave_up(agent))).await)),
        None => {
            office.desire(&target, Desired::Stopped).await.map_err(|error| error.to_string())?;
            Ask::Stop.of(office, &target).await?;
            let steps = look_at(office, &agents, |agent| judge(ended(agent), false)).await;
            Ok(Done { steps, error: Some("cancelled: the swarm is there, and stopped".to_owned()), cancelled: true })
        }
    }
}

async fn started(office: &Office, target: &Target) -> Result<(), String> {
    super::execute::unless_stopped(office, target, Ask::Start.of(office, target)).await
}

/// Stops a swarm and forgets it. One that is gone already is as good.
pub(super) async fn delete(office: &Office, name: &SwarmName, progress: Progress<'_>) -> Result<Done, String> {
    let Some(plan) = office.plan(name) else { return Ok(Done::looked(Vec::new())) };
    let target = Target::Swarm(name.clone());
    office.desire(&target, Desired::Stopped).await.map_err(|error| error.to_string())?;
    progress.may_be_left(true);
    let stopped = progress.unless_cancelled(Ask::Stop.of(office, &target)).await;
    progress.may_be_left(false);
    match stopped {
        Some(stopped) => stopped?,
        None => return Ok(progress.left("the swarm is still there, and is being stopped".to_owned())),
    }
    let agents = office.agents(&target);
    let steps = look_at(office, &agents, |agent| judge(ended(agent), false)).await;
    if steps.iter().any(|step| step.result.is_err()) {
        // Nothing is forgotten that still runs.
        return Ok(Done::looked(steps));
    }
    office.hold(name, true);
    let swarms = office.swarms_supervisor().ok_or("the supervision tree is gone")?;
    if let Err(error) = swarms.remove_child(&hivekeeper_actors::ChildId::from(name.as_str())).await
        && error != SupervisorError::NotFound
    {
        office.hold(name, false);
        return Err(format!("failed to take the swarm out of the tree: {error}"));
    }
    if let Err(error) = office.deps().journal.remove_swarm(name).await {
        office.hold(name, false);
        return Err(error.to_string());
    }
    office.deps().runtimes.evict(name).await;
    office.dismiss(name);
    office.health().report(health::Report::Removed(name.clone()));
    tracing::info!(swarm = %name, agents = plan.agents.len(), "swarm is deleted");
    Ok(Done::looked(steps))
}

/// Another number of one agent. A swarm of the file keeps it as long as the file says what it said.
pub(super) async fn scale(
    office: &Office,
    name: &SwarmName,
    agent: &AgentName,
    replicas: u32,
    progress: Progress<'_>,
) -> Result<Done, String> {
    let present = office.plan(name).ok_or("the swarm is gone")?;
    plan::scalable(&present.spec, agent, replicas).map_err(|error| error.to_string())?;
    let mut scaled = present.scaled.clone();
    if present.spec.origin == Origin::Config {
        plan::note_scale(&mut scaled, &present.spec, agent, replicas);
    }
    change_to(office, present.clone(), Arc::new(present.spec.scaled(agent, replicas)), scaled, progress).await
}

/// Another document. What the file says holds with the operator's numbers that still fit it.
pub(super) async fn update(office: &Office, spec: &Arc<SwarmSpec>, progress: Progress<'_>) -> Result<Done, String> {
    let present = office.plan(&spec.name).ok_or("the swarm is gone")?;
    let scaled = present
        .scaled
        .iter()
        .filter(|(agent, (_, to))| spec.agents.iter().any(|one| one.name == **agent && one.replicas == Some(*to)));
    let scaled = scaled.map(|(agent, to)| (agent.clone(), *to)).collect();
    change_to(office, present, Arc::clone(spec), scaled, progress).await
}

async fn change_to(
    office: &Office,
    present: PlannedSwarm,
    spec: Arc<SwarmSpec>,
    scaled: Scaled,
    mut progress: Progress<'_>,
) -> Result<Done, String> {
    let text = |error: StoreError| error.to_string();
    let name = &spec.name;
    // Taken up anew, what was done already is not done again.
    let old = office.left_document(name).unwrap_or_else(|| Arc::clone(&present.spec));
    let mut all = changes(Some(&old), &spec);
    all.retain(|(agent, _)| !progress.has_done(agent));
    let next = planned(Arc::clone(&spec), scaled, Some(&present));
    let journal = &*office.deps().journal;
    for (agent, _) in all.iter().filter(|(_, change)| *change == Change::Stop) {
        Ask::Remove.of(office, &Target::Agent(agent.clone())).await?;
        renew(journal, agent, true).await.map_err(text)?;
        progress.step(agent, Ok("stopped, and gone".to_owned())).await;
    }
    if old.home != spec.home {
        Ask::Stop.of(office, &Target::Swarm(name.clone())).await?;
        if old.runtime() == RuntimeKind::Docker && matches!(spec.home, Home::Process { .. }) {
            office.deps().runtimes.evict(name).await;
        }
    }
    office.deps().runtimes.house(&spec).map_err(|error| error.to_string())?;
    for (agent, _) in all.iter().filter(|(_, change)| begun(change)) {
        renew(journal, agent, false).await.map_err(text)?;
    }
    declare(office, &next).await?;
    office.replace(next.clone());
    progress.may_be_left(true);
    let done = replace_agents(office, &next, &all, &mut progress).await;
    // Only now: a daemon that dies before finds the old document, and does again what no step tells of. Also when it ended badly, as by a stop that
    // overtook it: this daemon goes by the new document, and so must the next one.
    office.keep_document(name).await;
    office.has_settled(name);
    Ok(match done? {
        Replaced::All => Done::looked(progress.into_steps()),
        Replaced::Left { done, of } => progress.left(format!(
            "{done} of {of} agents were brought to the new document, which holds from now on; the others follow it with their next start"
        )),
    })
}

/// How far the agents of a swarm have been brought to its new document.
enum Replaced {
    All,
    /// It was withdrawn.
    Left {
        done: usize,
        of: usize,
    },
}

fn begun(change: &Change) -> bool {
    matches!(change, Change::Start | Change::Replace)
}

/// Brings the agents of a swarm to its new document, one after the other.
async fn replace_agents(
    office: &Office,
    next: &PlannedSwarm,
    all: &[(AgentId, Change)],
    progress: &mut Progress<'_>,
) -> Result<Replaced, String> {
    respecify(office, next).await?;
    office.forget_agents(all.iter().filter(|(_, change)| *change == Change::Stop).map(|(agent, _)| agent));
    let concerned: Vec<_> = all.iter().filter(|(_, change)| begun(change)).collect();
    for (at, (agent, change)) in concerned.iter().enumerate() {
        let left = Replaced::Left { done: at, of: concerned.len() };
        if progress.is_cancelled() {
            return Ok(left);
        }
        let desired = next.agents.iter().find(|one| one.id == *agent).map(|one| one.desired);
        if desired == Some(Desired::Stopped) {
            progress.step(agent, Ok("stays stopped".to_owned())).await;
            continue;
        }
        let ask = if *change == Change::Start { Ask::Start } else { Ask::Restart };
        let target = Target::Agent(agent.clone());
        let asked = super::execute::unless_stopped(office, &target, ask.of(office, &target));
        match progress.turn(asked).await {
            Some(asked) => asked?,
            None => return Ok(left),
        }
        let number = office.deps().registry.slot(agent).last_number();
        let one = look_at(office, std::slice::from_ref(agent), |agent| {
            let latest = agent.incarnation >= number;
            judge(latest && came_up(agent), latest && gave_up(agent))
        });
        for Step { agent, result, .. } in one.await {
            progress.step(&agent, result).await;
        }
    }
    Ok(Replaced::All)
}

/// Tells health of a new or changed document, and what the journal knows of agents that are new in it.
async fn declare(office: &Office, plan: &PlannedSwarm) -> Result<(), String> {
    let told = recover::declare_one(&*office.deps().journal, office.health(), plan).await;
    told.map_err(|error| error.to_string())
}

/// Gives the swarm's supervisor its new rules and children. One that takes its place meanwhile has been made from them.
async fn respecify(office: &Office, plan: &PlannedSwarm) -> Result<(), String> {
    let name = &plan.spec.name;
    let now = SystemTime::now();
    let ledgers = recover::ledgers(&*office.deps().journal, plan, now).await.map_err(|error| error.to_string())?;
    let mut supervisors = office.supervisors(name).ok_or("the swarm is gone")?;
    let deadline = Instant::now() + HEAL_WAIT;
    loop {
        let present = supervisors.borrow_and_update().clone();
        if let Some(supervisor) = present {
            let made = swarm::parts(office.deps(), plan, seeds::seeds(plan, &ledgers, now));
            match supervisor.change(made.flags, made.children).await {
                Ok(()) => {
                    office.know_agents(name, made.agents);
                    return Ok(());
                }
                Err(SupervisorError::Gone) => {}
                Err(error) => return Err(format!("failed to tell the swarm's supervisor: {error}")),
            }
        }
        if tokio::time::timeout_at(deadline, supervisors.changed()).await.is_err() {
            return Err("the swarm has no supervisor".to_owned());
        }
    }
}
