//! Carries out one operation, and looks whether it was done before it says so.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use hivekeeper_actors::{ChildId, SupervisorError, SupervisorRef};
use tokio::time::Instant;

use super::{document, office::Office, plan};
use crate::{
    model::{AgentHealth, AgentId, AgentState, Command, Desired, Operation, OperationState, RestartMode, Step, Target},
    view::words,
};

/// How long health may take to show what the supervisor has reported. It folds in well under a second; beyond this something is wrong.
const SEEN_WAIT: Duration = Duration::from_secs(5);
/// How long a swarm may be without a supervisor. The controller makes another at once, behind what is left of the agents' last lives.
pub(super) const HEAL_WAIT: Duration = Duration::from_secs(30);
/// Between two looks at an operation under way, as its steps are told: people read no faster, and each is written to the journal.
const TOLD_EVERY: Duration = Duration::from_millis(250);
/// How long an agent may still take that an operation is busy with when it is withdrawn: most are left between two agents, and nobody who waits for an
/// engine that does not answer waits for ever.
const TURN_WAIT: Duration = Duration::from_secs(3);
/// How long a tree may take to freeze or thaw: its launcher signals every process and looks again.
const FREEZE_WAIT: Duration = Duration::from_secs(10);

/// What became of an operation.
pub(super) struct Done {
    /// What was seen of each agent.
    pub(super) steps: Vec<Step>,
    /// Why it did not get to its end; without one the steps tell.
    pub(super) error: Option<String>,
    /// Whether it was withdrawn.
    pub(super) cancelled: bool,
}

impl Done {
    /// It got to its end, and the steps tell how.
    pub(super) fn looked(steps: Vec<Step>) -> Self {
        Self { steps, error: None, cancelled: false }
    }
}

/// Steps of an operation that shows them while it is under way.
pub(super) struct Progress<'a> {
    office: &'a Office,
    operation: Operation,
    told: Instant,
}

impl<'a> Progress<'a> {
    fn new(office: &'a Office, operation: &Operation) -> Self {
        Self { office, operation: operation.clone(), told: Instant::now() }
    }

    /// From here on it can be left where it is, or no longer.
    pub(super) fn may_be_left(&self, may: bool) {
        self.office.may_be_left(self.operation.id, may);
    }

    /// Its work; `None` when it is withdrawn meanwhile.
    pub(super) async fn unless_cancelled<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.office.unless_cancelled(self.operation.id, work).await
    }

    /// What is done for one agent; `None` when the operation is withdrawn and this does not end by itself within a moment.
    pub(super) async fn turn<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(work);
        match self.unless_cancelled(&mut work).await {
            Some(done) => Some(done),
            None => tokio::time::timeout(TURN_WAIT, work).await.ok(),
        }
    }

    /// Whether it is to end as soon as it can.
    pub(super) fn is_cancelled(&self) -> bool {
        self.office.is_cancelled(self.operation.id)
    }

    /// It was withdrawn, and this is what it leaves.
    pub(super) fn left(self, what: String) -> Done {
        Done { steps: self.operation.steps, error: Some(format!("cancelled: {what}")), cancelled: true }
    }

    /// Whether a step tells that this agent has got there.
    pub(super) fn has_done(&self, agent: &AgentId) -> bool {
        self.operation.steps.iter().any(|step| step.agent == *agent && step.result.is_ok())
    }

    /// One more.
    pub(super) async fn step(&mut self, agent: &AgentId, result: Result<String, String>) {
        let step = Step { at: SystemTime::now(), agent: agent.clone(), result };
        self.office.note_step(self.operation.id, step.clone());
        self.operation.steps.push(step);
        if self.told.elapsed() >= TOLD_EVERY {
            self.told = Instant::now();
            self.office.record(self.operation.clone()).await;
        }
    }

    /// All of them.
    pub(super) fn into_steps(self) -> Vec<Step> {
        self.operation.steps
    }
}

/// To its end.
pub(super) async fn carry_out(office: Arc<Office>, mut operation: Operation) {
    office.record(operation.clone()).await;
    let outcome = perform(&office, &operation).await;
    operation.ended_at = Some(SystemTime::now());
    match outcome {
        Ok(Done { steps, error, cancelled }) => {
            let failed = steps.iter().filter(|step| step.result.is_err()).count();
            let missing = (failed > 0).then(|| format!("{failed} of {} agents did not get there", steps.len()));
            operation.error = error.or(missing);
            operation.state = match &operation.error {
                _ if cancelled => OperationState::Cancelled,
                None => OperationState::Succeeded,
                Some(_) => OperationState::Failed,
            };
            operation.steps = steps;
        }
        Err(why) => {
            operation.state = OperationState::Failed;
            operation.error = Some(why);
        }
    }
    office.record(operation).await;
}

async fn perform(office: &Arc<Office>, operation: &Operation) -> Result<Done, String> {
    let target = &operation.target;
    let name = target.swarm();
    let progress = Progress::new(office, operation);
    match &operation.command {
        Command::Launch { spec } => return document::launch(office, spec, progress).await,
        Command::Delete => return document::delete(office, name, progress).await,
        _ => {}
    }
    // What held when it was accepted may have been changed by an operation before it.
    let desired = office.desired(target).map_err(|error| error.to_string())?;
    let capabilities = office.deps().runtimes.of(name).capabilities();
    plan::fits(&operation.command, target, desired, capabilities).map_err(|error| error.to_string())?;
    match &operation.command {
        Command::Update { spec } => document::update(office, spec, progress).await,
        Command::Scale { agent, replicas } => document::scale(office, name, agent, *replicas, progress).await,
        Command::Restart { mode: RestartMode::Rolling, grace, .. } => rolling(office, target, *grace, progress).await,
        _ => all_at_once(office, operation).await.map(Done::looked),
    }
}

/// One agent after the other, in start order; those that are to be stopped stay so.
async fn rolling(
    office: &Office,
    target: &Target,
    grace: Option<Duration>,
    mut progress: Progress<'_>,
) -> Result<Done, String> {
    let desired = |target: &Target| office.desired(target).unwrap_or(Desired::Stopped);
    let agents = office.agents(target).into_iter();
    let agents: Vec<_> = agents.filter(|agent| desired(&Target::Agent(agent.clone())) == Desired::Running).collect();
    let restarted = |done: usize| format!("{done} of {} agents were restarted", agents.len());
    for (at, agent) in agents.iter().enumerate() {
        if progress.is_cancelled() {
            return Ok(progress.left(restarted(at)));
        }
        let one = std::slice::from_ref(agent);
        set_grace(office, one, grace);
        reset_windows(office, one).await?;
        let before = last_numbers(office, one)[0];
        let target = Target::Agent(agent.clone());
        let asked = unless_stopped(office, &target, Ask::Restart.of(office, &target));
        match progress.turn(asked).await {
            Some(asked) => asked?,
            None => return Ok(progress.left(restarted(at))),
        }
        let seen = look_at(office, one, |agent| {
            let new = agent.incarnation > before;
            judge(new && came_up(agent), new && !came_up(agent) && is_over(agent))
        });
        for Step { agent, result, .. } in seen.await {
            let failed = result.is_err();
            progress.step(&agent, result).await;
            if failed {
                let left = agents.len() - at - 1;
                let error = format!("{agent} did not come up; the {left} agents behind it were left alone");
                return Ok(Done { steps: progress.into_steps(), error: Some(error), cancelled: false });
            }
        }
    }
    Ok(Done::looked(progress.into_steps()))
}

/// Nothing comes of this incarnation any more.
fn is_over(agent: &AgentHealth) -> bool {
    matches!(agent.state, AgentState::Failed | AgentState::BackingOff | AgentState::Stopped)
}

async fn all_at_once(office: &Office, operation: &Operation) -> Result<Vec<Step>, String> {
    let target = &operation.target;
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
        // It was told as failed when this daemon began.
        Command::Unreadable { why, .. } => Err(format!("what was asked for can't be read: {why}")),
        // The others have been carried out by whoever asked.
        Command::Launch { .. } | Command::Update { .. } | Command::Delete | Command::Scale { .. } => Ok(Vec::new()),
    }
}

/// The number of each agent's latest incarnation. Health may be behind it, and the journal, too.
fn last_numbers(office: &Office, agents: &[AgentId]) -> Vec<u64> {
    agents.iter().map(|id| office.deps().registry.slot(id).last_number()).collect()
}

/// What a look tells.
pub(super) enum Verdict {
    Done,
    Wait,
    /// Waiting longer shows nothing new.
    Failed,
}

pub(super) fn judge(done: bool, failed: bool) -> Verdict {
    match (done, failed) {
        (true, _) => Verdict::Done,
        (false, true) => Verdict::Failed,
        (false, false) => Verdict::Wait,
    }
}

pub(super) fn ended(agent: &AgentHealth) -> bool {
    matches!(agent.state, AgentState::Stopped | AgentState::Completed | AgentState::Failed)
}

/// It runs, or it ran and has already completed.
pub(super) fn came_up(agent: &AgentHealth) -> bool {
    matches!(agent.state, AgentState::Running | AgentState::Degraded | AgentState::Stuck | AgentState::Completed)
}

pub(super) fn gave_up(agent: &AgentHealth) -> bool {
    agent.state == AgentState::Failed
}

fn set_grace(office: &Office, agents: &[AgentId], grace: Option<Duration>) {
    for agent in agents {
        office.deps().registry.slot(agent).set_grace(grace);
    }
}

pub(super) async fn reset_windows(office: &Office, agents: &[AgentId]) -> Result<(), String> {
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
pub(super) enum Ask {
    Stop,
    Restart,
    Start,
    /// Stop it and forget it.
    Remove,
}

impl Ask {
    /// Has it done. When the supervisor falls meanwhile, or is ended by the fall of the one above it, what takes its place is asked.
    pub(super) async fn of(mut self, office: &Office, target: &Target) -> Result<(), String> {
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
            (Self::Remove, Target::Agent(id)) => match supervisor.remove_child(&child(id)).await {
                Err(SupervisorError::NotFound) => Ok(()),
                other => other,
            },
            // A swarm is no child of its own supervisor.
            (Self::Remove, Target::Swarm(_)) => Err(SupervisorError::NotFound),
        }
    }
}

/// A start may wait for ever, for the journal or for the proof that a predecessor is dead. Whoever wants to stop it must not wait behind it.
pub(super) async fn unless_stopped(
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

/// The same for agents that are all judged alike, within the time that health takes.
pub(super) async fn look_at(office: &Office, agents: &[AgentId], judge: impl Fn(&AgentHealth) -> Verdict) -> Vec<Step> {
    look(office, agents, SEEN_WAIT, |_, agent| judge(agent)).await
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
