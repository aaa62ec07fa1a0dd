//! The desk's side of commands: what is accepted, what is not, what is withdrawn, and what an earlier daemon has accepted.

use std::{sync::Arc, time::SystemTime};

use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::{Office, Tree, UNDER_WAY_MAX, journal};
use crate::{
    control_plane::{
        changes::changes,
        controller::Work,
        desk::{ControlError, Request, UpdatePlan},
        plan::{self, Resumption},
    },
    model::{
        AgentId, Command, Desired, EventKind, Operation, OperationId, OperationState, Origin, Requester, RestartMode,
        SwarmName, SwarmSpec, Target, spec::AGENTS_MAX,
    },
    store::{OperationKey, PutOutcome},
    view,
};

impl Office {
    pub(super) async fn accept(&self, request: Request) -> Result<Operation, ControlError> {
        let key = request.idempotency_key.clone().map(|key| OperationKey { key, fingerprint: fingerprint(&request) });
        // Until it is in the journal: what the next one is judged by holds it then.
        let _judging = match request.command.is_of_the_document() {
            true => Some(self.judging.lock().await),
            false => None,
        };
        // Before it is judged: what it has done already may be what speaks against it now.
        if let Some(key) = &key
            && let Some(before) = self.needs.agents.journal.keyed_operation(key).await.map_err(journal)?
        {
            return known(before);
        }
        self.judge(&request)?;
        let tree = self.open_tree()?;
        self.enter(&tree, request, key).await
    }

    /// The tree, while there is room for another piece of work. A reload asks once: it brings one for each swarm of its file at most.
    pub(super) fn open_tree(&self) -> Result<Tree, ControlError> {
        let unavailable = |why: String| ControlError::Unavailable { why };
        if self.closed() {
            return Err(unavailable("the daemon is stopping".to_owned()));
        }
        if self.under_way.len() >= UNDER_WAY_MAX {
            return Err(unavailable(format!("{UNDER_WAY_MAX} operations are under way")));
        }
        self.tree().ok_or_else(|| unavailable("the supervision tree is not up yet".to_owned()))
    }

    /// Writes down what was judged to be right, and hands it on.
    pub(super) async fn enter(
        &self,
        tree: &Tree,
        request: Request,
        key: Option<OperationKey>,
    ) -> Result<Operation, ControlError> {
        let operation = Operation {
            id: OperationId::mint(),
            command: request.command,
            target: request.target,
            state: OperationState::Accepted,
            requested_by: request.requested_by,
            requested_at: SystemTime::now(),
            ended_at: None,
            steps: Vec::new(),
            error: None,
        };
        match self.needs.agents.journal.put_operation(&operation, key).await.map_err(journal)? {
            PutOutcome::Stored => {}
            before => return known(before),
        }
        let swarm = operation.target.swarm().clone();
        self.queue(operation.clone());
        let told = EventKind::OperationChanged { operation: Arc::new(operation.clone()) };
        self.needs.feed.publish(operation.requested_at, told);
        if let Err(error) = tree.controller.tell(Work(swarm)) {
            // It looks at what waits by itself, too, when it starts again and with every pass.
            tracing::warn!(%error, "the control plane's actor does not take messages now");
        }
        Ok(operation)
    }

    fn queue(&self, operation: Operation) {
        self.under_way.insert(operation.id, watch::channel(operation.clone()).0);
        self.waiting.lock().entry(operation.target.swarm().clone()).or_default().push_back(operation);
        self.joined.send_replace(());
    }

    /// Takes up what an earlier daemon has accepted and not ended. To be called before the tree stands.
    pub async fn resume(&self, unfinished: Vec<Operation>) {
        let plans = self.plans();
        for mut operation in unfinished {
            let (state, error) = match plan::resumption(&operation, &plans) {
                Resumption::Again => {
                    operation.state = OperationState::Accepted;
                    // What failed is tried again, and told anew.
                    operation.steps.retain(|step| step.result.is_ok());
                    self.queue(operation);
                    continue;
                }
                Resumption::Done => (OperationState::Succeeded, None),
                Resumption::Lost => (
                    OperationState::Failed,
                    Some("the daemon ended while this was under way; look at the state of its target"),
                ),
                Resumption::Outdated => (
                    OperationState::Failed,
                    Some("the daemon ended before this was done, and the configuration file says something else now"),
                ),
                Resumption::Unreadable => (
                    OperationState::Failed,
                    Some(
                        "the daemon ended before this was done, and this version can't read what was asked for; ask for it anew",
                    ),
                ),
            };
            operation.state = state;
            operation.error = error.map(str::to_owned);
            operation.ended_at = Some(SystemTime::now());
            self.record(operation).await;
        }
    }

    /// The document of a swarm once everything that was accepted is done.
    pub(super) fn intended(&self, name: &SwarmName) -> Option<Arc<SwarmSpec>> {
        let present = self.entries.get(name).map(|entry| Arc::clone(&entry.plan.spec));
        self.of_documents(name).into_iter().fold(present, |spec, operation| operation.command.leaves(spec))
    }

    /// Commands on the document of a swarm that have not ended, oldest first.
    pub(super) fn of_documents(&self, name: &SwarmName) -> Vec<Operation> {
        let mut all = self.recalled(|operation| {
            operation.command.is_of_the_document() && !operation.state.ended() && operation.target.swarm() == name
        });
        all.sort_by_key(|operation| operation.id);
        all
    }

    /// Swarms whose launch was accepted and not begun.
    pub(super) fn expected(&self) -> Vec<Arc<SwarmSpec>> {
        let launches = self.recalled(|one| matches!(one.command, Command::Launch { .. }) && !one.state.ended());
        let missing = launches.into_iter().filter(|one| !self.entries.contains_key(one.target.swarm()));
        missing.filter_map(|one| self.intended(one.target.swarm())).collect()
    }

    pub(super) fn judge(&self, request: &Request) -> Result<(), ControlError> {
        let Request { command, target, requested_by, if_match, .. } = request;
        let name = target.swarm();
        let intended = self.intended(name);
        let fits = |spec: &SwarmSpec| match requested_by {
            // Its file was counted as a whole.
            Requester::Reload => Ok(()),
            _ => self.fits_the_hive(spec),
        };
        if let Command::Launch { spec } = command {
            if intended.is_some() {
                let why = format!("swarm {name} is there already; give the new one another name, or update this one");
                return Err(ControlError::Conflict { why });
            }
            if self.entries.contains_key(name) || !self.of_documents(name).is_empty() {
                return Err(ControlError::Conflict { why: format!("swarm {name} is still being deleted") });
            }
            return fits(spec);
        }
        let missing = || ControlError::NotFound { what: format!("swarm {name}") };
        let intended = intended.ok_or_else(missing)?;
        check_match(&intended, if_match.as_deref())?;
        if let Target::Agent(id) = target
            && !has_agent(&intended, id)
        {
            return Err(ControlError::NotFound { what: format!("agent {id}") });
        }
        match command {
            Command::Update { spec } => {
                follows_the_file(&intended, requested_by, "change it there and reload")?;
                fits(spec)?;
            }
            Command::Delete => follows_the_file(&intended, requested_by, "take it out there and reload")?,
            Command::Scale { agent, replicas } => {
                plan::scalable(&intended, agent, *replicas)?;
                fits(&intended.scaled(agent, *replicas))?;
            }
            _ => {}
        }
        let desired = self.desired(target).unwrap_or(Desired::Running);
        plan::fits(command, target, desired, self.needs.agents.runtimes.of(name).capabilities())
    }

    /// One daemon leads so many agents and no more.
    fn fits_the_hive(&self, spec: &SwarmSpec) -> Result<(), ControlError> {
        let others = self.entries.iter().filter(|entry| *entry.key() != spec.name);
        let others: usize = others.map(|entry| entry.plan.agents.len()).sum();
        let waiting = self.expected().into_iter().filter(|other| other.name != spec.name);
        let count = others + waiting.map(|other| other.count()).sum::<usize>() + spec.count();
        if count <= AGENTS_MAX {
            return Ok(());
        }
        Err(ControlError::Conflict { why: format!("the hive would have {count} agents; allowed: {AGENTS_MAX}") })
    }

    pub(super) fn update_plan(
        &self,
        spec: &Arc<SwarmSpec>,
        if_match: Option<String>,
    ) -> Result<UpdatePlan, ControlError> {
        let target = Target::Swarm(spec.name.clone());
        let command = Command::Update { spec: Arc::clone(spec) };
        let requested_by = Requester::Daemon;
        self.judge(&Request { command, target, requested_by, idempotency_key: None, if_match })?;
        let before = self.intended(&spec.name);
        Ok(UpdatePlan { swarm: spec.name.clone(), agents: changes(before.as_deref(), spec) })
    }

    pub(super) async fn withdraw(&self, id: OperationId) -> Result<Operation, ControlError> {
        if let Some(mut operation) = self.take_waiting(id) {
            let waited = operation.clone();
            operation.state = OperationState::Cancelled;
            operation.ended_at = Some(SystemTime::now());
            operation.error = Some("cancelled before it was begun".to_owned());
            if let Err(error) = self.needs.agents.journal.update_operation(&operation).await {
                self.waiting.lock().entry(waited.target.swarm().clone()).or_default().push_front(waited);
                return Err(journal(error));
            }
            self.record(operation.clone()).await;
            return Ok(operation);
        }
        let conflict = |why: String| Err(ControlError::Conflict { why });
        let Some(operation) = self.under_way.get(&id).map(|sender| sender.borrow().clone()) else {
            let kept = self.needs.agents.journal.operation(id).await.map_err(journal)?;
            let kept = kept.ok_or_else(|| ControlError::NotFound { what: format!("operation {id}") })?;
            return conflict(format!("operation {id} has ended: {}", view::words::operation_state(kept.state)));
        };
        match operation.command.clone() {
            _ if operation.state.ended() => {
                conflict(format!("operation {id} has ended: {}", view::words::operation_state(operation.state)))
            }
            command => {
                let leavable = self.leavable.lock();
                let may_be_left = leavable.contains(&id)
                    || matches!(command, Command::Launch { .. } | Command::Restart { mode: RestartMode::Rolling, .. });
                if !may_be_left {
                    let (word, why) = (command.word(), held_by(&command));
                    return conflict(format!("{word} is under way and can't be cancelled now: {why}"));
                }
                self.cancelling.lock().insert(id);
                self.joined.send_replace(());
                Ok(self.under_way.get(&id).map_or(operation, |sender| sender.borrow().clone()))
            }
        }
    }

    fn take_waiting(&self, id: OperationId) -> Option<Operation> {
        let mut waiting = self.waiting.lock();
        let queue = waiting.values_mut().find(|queue| queue.iter().any(|one| one.id == id))?;
        let at = queue.iter().position(|one| one.id == id)?;
        let taken = queue.remove(at);
        waiting.retain(|_, queue| !queue.is_empty());
        taken
    }

    /// From here on an operation can be left where it is, or no longer.
    pub(in crate::control_plane) fn may_be_left(&self, id: OperationId, may: bool) {
        let mut leavable = self.leavable.lock();
        match may {
            true => drop(leavable.insert(id)),
            false => drop(leavable.remove(&id)),
        }
    }

    /// Whether an operation is to end as soon as it can.
    pub(in crate::control_plane) fn is_cancelled(&self, id: OperationId) -> bool {
        self.cancelling.lock().contains(&id)
    }

    /// The work of an operation, which may wait for ever: for an engine, the journal, the proof that something is dead. `None` when it is withdrawn
    /// meanwhile.
    pub(in crate::control_plane) async fn unless_cancelled<T>(
        &self,
        id: OperationId,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = self.cancelled(id) => None,
        }
    }

    /// Ends when it is.
    async fn cancelled(&self, id: OperationId) {
        let mut joined = self.joined.subscribe();
        while !self.is_cancelled(id) {
            if joined.changed().await.is_err() {
                // The sender is our own.
                return std::future::pending().await;
            }
        }
    }
}

/// Why an operation under way can't be left where it is.
fn held_by(command: &Command) -> &'static str {
    match command {
        Command::Update { .. } | Command::Scale { .. } => {
            "what the new document does not have, or has elsewhere, is being stopped; cancel it once that is done"
        }
        Command::Delete => "the swarm has stopped and is being forgotten",
        Command::Launch { .. } | Command::Restart { .. } | Command::Start => "a stop overtakes it",
        Command::Stop { .. } => "what it stops is told already; a start behind it undoes it",
        Command::Unreadable { .. } => "it can't be read",
        Command::Pause => "a resume behind it undoes it",
        Command::Resume => "a pause behind it undoes it",
    }
}

fn known(before: PutOutcome) -> Result<Operation, ControlError> {
    match before {
        PutOutcome::Existing(first) => Ok(*first),
        PutOutcome::KeyReused | PutOutcome::Stored => Err(ControlError::KeyReused),
    }
}

/// Equal for equal requests. A document is in it as a hash: what it says is nobody's business here.
fn fingerprint(request: &Request) -> String {
    let Request { command, target, .. } = request;
    match command {
        Command::Launch { spec } | Command::Update { spec } => {
            let json = serde_json::to_vec(&view::document(spec)).unwrap_or_default();
            let hex: String = Sha256::digest(json).iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{} {hex} {target}", command.word())
        }
        // As it has always been written, so that a key holds across versions.
        Command::Restart { mode: RestartMode::All, grace, reason } => {
            format!("Restart {{ grace: {grace:?}, reason: {reason:?} }} {target}")
        }
        _ => format!("{command:?} {target}"),
    }
}

fn has_agent(spec: &SwarmSpec, id: &AgentId) -> bool {
    spec.expand().unwrap_or_default().iter().any(|(one, _)| one == id)
}

fn check_match(spec: &SwarmSpec, if_match: Option<&str>) -> Result<(), ControlError> {
    let Some(wanted) = if_match else { return Ok(()) };
    let present = view::document_tag(&view::document(spec));
    let holds = wanted.split(',').map(str::trim).any(|tag| tag == "*" || tag == present);
    let why = || format!("the document of swarm {} has changed: it is {present} now; read it again", spec.name);
    if holds { Ok(()) } else { Err(ControlError::Outdated { why: why() }) }
}

fn follows_the_file(spec: &SwarmSpec, by: &Requester, rule: &str) -> Result<(), ControlError> {
    if spec.origin == Origin::Api || *by == Requester::Reload {
        return Ok(());
    }
    Err(ControlError::Conflict { why: format!("swarm {} follows the configuration file; {rule}", spec.name) })
}
