//! The control plane's actor: it carries out operations, one at a time for each swarm, and keeps the tree as it is desired.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, SystemTime},
};

use actix::prelude::*;
use hivekeeper_actors::SupervisorRef;

use super::{execute, office::Office, swarm};
use crate::model::{Operation, OperationState, SwarmName, Target};

/// Between two looks at whether every desired swarm has its supervisor. A start or a loss is acted on at once; this is the net below.
const RECONCILE_EVERY: Duration = Duration::from_secs(5);
/// How long a swarm's supervisor may take to come up: it starts its agents in the background.
const SWARM_START_WAIT: Duration = Duration::from_secs(10);

/// Message: carry out an operation that the journal holds.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Execute(pub Operation);

/// The actor.
pub struct Controller {
    office: Arc<Office>,
    waiting: HashMap<SwarmName, VecDeque<Operation>>,
    busy: HashSet<SwarmName>,
}

impl Controller {
    /// Works for this office.
    pub fn new(office: Arc<Office>) -> Self {
        Self { office, waiting: HashMap::new(), busy: HashSet::new() }
    }

    fn next(&mut self, swarm: SwarmName, ctx: &mut Context<Self>) {
        if self.busy.contains(&swarm) {
            return;
        }
        let Some(operation) = self.waiting.get_mut(&swarm).and_then(VecDeque::pop_front) else {
            self.waiting.remove(&swarm);
            return;
        };
        self.busy.insert(swarm.clone());
        let office = Arc::clone(&self.office);
        ctx.spawn(execute::carry_out(office, operation).into_actor(self).map(move |(), actor, ctx| {
            actor.busy.remove(&swarm);
            actor.next(swarm, ctx);
        }));
    }

    fn reconcile(&mut self, ctx: &mut Context<Self>) {
        let office = Arc::clone(&self.office);
        ctx.spawn(reconcile(office).into_actor(self));
    }
}

impl Actor for Controller {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // What a predecessor had begun is not known to be done.
        let office = Arc::clone(&self.office);
        ctx.spawn(abandon(office).into_actor(self));
        self.reconcile(ctx);
        ctx.run_interval(RECONCILE_EVERY, Self::reconcile);
    }
}

impl Handler<Execute> for Controller {
    type Result = ();

    fn handle(&mut self, Execute(operation): Execute, ctx: &mut Self::Context) {
        let swarm = match &operation.target {
            Target::Swarm(name) => name.clone(),
            Target::Agent(id) => id.swarm.clone(),
        };
        self.waiting.entry(swarm.clone()).or_default().push_back(operation);
        self.next(swarm, ctx);
    }
}

/// Starts a supervisor for each desired swarm that has none. Takes no input but the two states; harmless when repeated.
async fn reconcile(office: Arc<Office>) {
    let Some(swarms) = office.swarms_supervisor() else { return };
    let Ok(tree) = swarms.snapshot().await else { return };
    let there: HashSet<String> = tree.children.iter().map(|child| child.id.to_string()).collect();
    let missing: Vec<_> = office.entries().into_iter().filter(|plan| !there.contains(plan.spec.name.as_str())).collect();
    for plan in missing {
        start_swarm(&office, &swarms, plan).await;
    }
    office.set_reconciled();
}

async fn start_swarm(office: &Office, swarms: &SupervisorRef, plan: super::plan::PlannedSwarm) {
    let name = plan.spec.name.clone();
    let (child, supervisor, agents) = swarm::child(office.deps(), &plan);
    office.set_supervisor(&name, supervisor, agents);
    match tokio::time::timeout(SWARM_START_WAIT, swarms.start_child(child)).await {
        Ok(Ok(_)) => tracing::info!(swarm = %name, agents = plan.agents.len(), "swarm is under supervision"),
        Ok(Err(error)) => tracing::error!(swarm = %name, %error, "failed to put a swarm under supervision"),
        Err(_) => tracing::error!(swarm = %name, "putting a swarm under supervision takes too long"),
    }
}

/// Operations that an earlier controller left under way have an unknown outcome, and say so.
async fn abandon(office: Arc<Office>) {
    for mut operation in office.operations_under_way() {
        operation.state = OperationState::Failed;
        operation.ended_at = Some(SystemTime::now());
        operation.error = Some("the control plane was restarted while this was under way; look at the state".to_owned());
        office.record(operation).await;
    }
}
