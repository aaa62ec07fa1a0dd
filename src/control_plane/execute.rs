//! Carries out one operation, and looks whether it was done before it says so.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use hivekeeper_actors::{ChildId, SupervisorError, SupervisorRef};
use tokio::time::Instant;

use super::{office::Office, plan};
use crate::{
    model::{AgentHealth, AgentId, AgentState, Command, Desired, Operation, OperationState, Step, Target},
    view::words,
};

/// How long health may take to show what the supervisor has reported. It folds in well under a second; beyond this something is wrong.
const SEEN_WAIT: Duration = Duration::from_secs(5);
/// How long a swarm may be without a supervisor. The controller makes another at once, behind what is left of the agents' last lives.
const HEAL_WAIT: Duration = Duration::from_secs(30);
/// How long a tree may take to freeze or thaw: its launcher signals every process and looks again.
const FREEZE_WAIT: Duration = Duration::from_secs(10);

/// To its end.
pub(super) async fn carry_out(office: Arc<Office>, mut operation: Operation) {
    office.record(operation.clone()).await;
    let outcome = perform(&office, &operation).await;
    operation.ended_at = Some(SystemTime::now());
    match outcome {
        Ok(steps) => {
            let failed = steps.iter().filter(|step| step.result.is_err()).count();
            operation.error = (failed > 0).then(|| format!("{failed} of {} agents did not get there", steps.len()));
            operation.state = if failed == 0 { OperationState::Succeeded } else { OperationState::Failed };
            operation.steps = steps;
        }
        Err(why) => {
            operation.state = OperationState::Failed;
            operation.error = Some(why);
        }
    }
    office.record(operation).await;
}

async fn perform(office: &Office, operation: &Operation) -> Result<Vec<Step>, String> {
    let target = &operation.target;
    // What held when it was accepted may have been changed by an operation before it.
    let desired = office.desired(target).map_err(|error| error.to_string())?;
    let capabilities = office.deps().runtimes.of(target.swarm()).capabilities();
    plan::fits(&operation.command, target, desired, capabilities).map_err(|error| error.to_string())?;
    let agents = office.agents(target);
    match &operation.command {
        Command::Stop { grace, .. } => {
            office.desire(target, Desired::Stopped).await.map_err(|error| error.to_string())?;
            set_grace(office, &agents, *grace);
            office.hurried(target, Ask::Stop.of(office, target)).await?;
            Ok(look(office, &agents, SEEN_WAIT, |_, agent| judge(ended(agent), false)).await)
        }
        Command::Restart { grace, .. } => {
            office.desire(target, Desired::Running).await.map_err(|error| error.to_string())?;
            set_grace(office, &agents, *grace);
            reset_windows(office, &agents).await?;
            let before = last_numbers(office, &agents);
            unless_stopped(office, target, Ask::Restart.of(office, target)).await?;
            let after = last_numbers(office, &agents);
            Ok(look(office, &agents, SEEN_WAIT, |at, agent| {
                let new = agent.incarnation > before[at] && agent.incarnation >= after[at];
                judge(new && came_up(agent), new && gave_up(agent))
            })
            .await)
        }
        Command::Start => {
            office.desire(target, Desired::Running).await.map_err(|error| error.to_string())?;
            reset_windows(office, &agents).await?;
            unless_stopped(office, target, Ask::Start.of(office, target)).await?;
            // The supervisor has started it, or found that somebody had: a start before this one that nobody waited for any more, say.
            let after = last_numbers(office, &agents);
            Ok(look(office, &agents, SEEN_WAIT, |at, agent| {
                let latest = agent.incarnation >= after[at];
                judge(latest && came_up(agent), latest && gave_up(agent))
            })
            .await)
        }
        Command::Pause => {
            office.desire(target, Desired::Paused).await.map_err(|error| error.to_string())?;
            for agent in &agents {
                if let Some(control) = office.deps().registry.slot(agent).control() {
                    control.pause();
                }
            }
            Ok(look(office, &agents, FREEZE_WAIT, |_, agent| {
                judge(agent.pid.is_none() || agent.state == AgentState::Paused, false)
            })
            .await)
        }
        Command::Resume => {
            office.desire(target, Desired::Running).await.map_err(|error| error.to_string())?;
            for agent in &agents {
                if let Some(control) = office.deps().registry.slot(agent).control() {
                    control.resume();
                }
            }
            Ok(look(office, &agents, FREEZE_WAIT, |_, agent| judge(agent.state != AgentState::Paused, false)).await)
        }
    }
}

/// The number of each agent's latest incarnation. Health may be behind it, and the journal, too.
fn last_numbers(office: &Office, agents: &[AgentId]) -> Vec<u64> {
    agents.iter().map(|id| office.deps().registry.slot(id).last_number()).collect()
}

/// What a look tells.
enum Verdict {
    Done,
    Wait,
    /// Waiting longer shows nothing new.
    Failed,
}

fn judge(done: bool, failed: bool) -> Verdict {
    match (done, failed) {
        (true, _) => Verdict::Done,
        (false, true) => Verdict::Failed,
        (false, false) => Verdict::Wait,
    }
}

fn ended(agent: &AgentHealth) -> bool {
    matches!(agent.state, AgentState::Stopped | AgentState::Completed | AgentState::Failed)
}

/// It runs, or it ran and has already completed.
fn came_up(agent: &AgentHealth) -> bool {
    matches!(agent.state, AgentState::Running | AgentState::Degraded | AgentState::Stuck | AgentState::Completed)
}

fn gave_up(agent: &AgentHealth) -> bool {
    agent.state == AgentState::Failed
}

fn set_grace(office: &Office, agents: &[AgentId], grace: Option<Duration>) {
    for agent in agents {
        office.deps().registry.slot(agent).set_grace(grace);
    }
}

async fn reset_windows(office: &Office, agents: &[AgentId]) -> Result<(), String> {
    for agent in agents {
        let reset = office.deps().journal.reset_window(agent, SystemTime::now()).await;
        reset.map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn child(id: &AgentId) -> ChildId {
    ChildId::from(id.name.as_str())
}

/// What the supervisor of a swarm is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    Stop,
    Restart,
    Start,
}

impl Ask {
    /// Has it done. When the supervisor falls meanwhile, or is ended by the fall of the one above it, what takes its place is asked.
    async fn of(mut self, office: &Office, target: &Target) -> Result<(), String> {
        let mut supervisors = office.supervisors(target.swarm()).ok_or("the swarm is gone")?;
        let deadline = Instant::now() + HEAL_WAIT;
        loop {
            let supervisor = supervisors.borrow_and_update().clone();
            let was_there = supervisor.is_some();
            let answer = match supervisor {
                Some(supervisor) => self.put(&supervisor, target).await,
                None => Err(SupervisorError::Gone),
            };
            // A swarm's operations are carried out one after the other, so only the supervisor's own end supersedes this one.
            let is_over = matches!(answer, Err(SupervisorError::Gone | SupervisorError::Superseded));
            if !is_over || office.closed() {
                return done(answer);
            }
            if was_there && self == Self::Restart {
                // What fell took its agents along: whatever runs under its successor is new.
                self = Self::Start;
            }
            if tokio::time::timeout_at(deadline, supervisors.changed()).await.is_err() {
                return done(answer);
            }
        }
    }

    async fn put(self, supervisor: &SupervisorRef, target: &Target) -> Result<(), SupervisorError> {
        match (self, target) {
            (Self::Stop, Target::Swarm(_)) => supervisor.stop_all().await,
            (Self::Stop, Target::Agent(id)) => supervisor.terminate_child(&child(id)).await,
            (Self::Restart, Target::Swarm(_)) => supervisor.restart_all().await,
            (Self::Restart, Target::Agent(id)) => supervisor.force_restart(&child(id)).await,
            (Self::Start, Target::Swarm(_)) => supervisor.start_all().await,
            (Self::Start, Target::Agent(id)) => supervisor.start_existing(&child(id)).await,
        }
    }
}

/// A start may wait for ever, for the journal or for the proof that a predecessor is dead. Whoever wants to stop it must not wait behind it.
async fn unless_stopped(
    office: &Office,
    target: &Target,
    work: impl Future<Output = Result<(), String>>,
) -> Result<(), String> {
    tokio::select! {
        biased;
        done = work => done,
        () = office.stop_waits(target) => Err("overtaken by a stop".to_owned()),
    }
}

/// An agent that runs already is as it should be, and of one that fails to start its health tells more: both are looked at.
fn done(answer: Result<(), SupervisorError>) -> Result<(), String> {
    match answer {
        Ok(()) | Err(SupervisorError::Running | SupervisorError::StartFailed { .. }) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Looks at each agent until it is as it should be, or the time is over; one step for each, with what was seen.
async fn look(
    office: &Office,
    agents: &[AgentId],
    wait: Duration,
    look: impl Fn(usize, &AgentHealth) -> Verdict,
) -> Vec<Step> {
    let deadline = Instant::now() + wait;
    let mut news = office.feed().subscribe(office.feed().head());
    let mut steps = Vec::with_capacity(agents.len());
    for (at, id) in agents.iter().enumerate() {
        let result = loop {
            let seen = office.health().agent(id);
            match (seen.as_deref().map_or(Verdict::Wait, |agent| look(at, agent)), seen) {
                (Verdict::Done, Some(agent)) => break Ok(describe(&agent)),
                (Verdict::Failed, Some(agent)) => break Err(describe(&agent)),
                (_, seen) => {
                    // A document is shown before its event is published, so nothing is missed between the look and the wait.
                    if tokio::time::timeout_at(deadline, news.next()).await.is_err() {
                        break Err(seen.map_or_else(|| "nothing is known of it".to_owned(), |agent| describe(&agent)));
                    }
                }
            }
        };
        steps.push(Step { at: SystemTime::now(), agent: id.clone(), result });
    }
    steps
}

fn describe(agent: &AgentHealth) -> String {
    let state = words::agent_state(agent.state);
    match (agent.pid, &agent.last_exit) {
        (Some(pid), _) => format!("{state} as pid {pid}, incarnation {}", agent.incarnation),
        (None, Some(exit)) => format!("{state}, incarnation {} {}", exit.incarnation, exit.describe()),
        (None, None) => state.to_owned(),
    }
}
