//! The control plane's actor: it carries out operations, one at a time for each swarm, and keeps the tree as it is desired.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use actix::prelude::*;
use futures_util::future::join_all;
use hivekeeper_actors::{ChildState, SupervisorRef};

use super::{execute, office::Office, plan::PlannedSwarm, recover, seeds, swarm};
use crate::{
    health,
    model::{Operation, OperationState, SwarmName},
};

/// Between two looks at whether every desired swarm has its supervisor. Agents are their supervisor's affair, and its own end is told at once; this
/// is for what was told in vain.
const RECONCILE_EVERY: Duration = Duration::from_secs(5);
/// How long a pass waits for a swarm's agents to start, in their order; they go on starting when it is over.
const SWARM_START_WAIT: Duration = Duration::from_secs(10);

/// Message: an operation waits for this swarm.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Work(pub(super) SwarmName);

/// Message: something that should be in the tree is not.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Reconcile;

/// The actor. What waits and what is under way is the office's, so that a crash here loses no operation.
pub struct Controller {
    office: Arc<Office>,
    busy: HashSet<SwarmName>,
    reconciling: bool,
    /// Something has changed since the pass under way began.
    outdated: bool,
}

impl Controller {
    /// Works for this office.
    pub fn new(office: Arc<Office>) -> Self {
        Self { office, busy: HashSet::new(), reconciling: false, outdated: false }
    }

    fn next(&mut self, swarm: SwarmName, ctx: &mut Context<Self>) {
        if self.busy.contains(&swarm) {
            return;
        }
        let Some(operation) = self.office.next(&swarm) else { return };
        self.busy.insert(swarm.clone());
        let work = execute::carry_out(Arc::clone(&self.office), operation);
        ctx.spawn(work.into_actor(self).map(move |(), actor, ctx| {
            actor.busy.remove(&swarm);
            actor.next(swarm, ctx);
        }));
    }

    fn pass(&mut self, ctx: &mut Context<Self>) {
        for swarm in self.office.busy_swarms() {
            self.next(swarm, ctx);
        }
        if std::mem::replace(&mut self.reconciling, true) {
            self.outdated = true;
            return;
        }
        let pass = reconcile(Arc::clone(&self.office));
        ctx.spawn(pass.into_actor(self).map(|(), actor, ctx| {
            actor.reconciling = false;
            if std::mem::take(&mut actor.outdated) {
                actor.pass(ctx);
            }
        }));
    }
}

impl Actor for Controller {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // Before anything new is begun: how far a fallen predecessor had come is not known.
        let left = abandon(Arc::clone(&self.office), self.office.take_up());
        ctx.wait(left.into_actor(self).map(|(), actor, ctx| actor.pass(ctx)));
        ctx.run_interval(RECONCILE_EVERY, Self::pass);
    }
}

impl Handler<Work> for Controller {
    type Result = ();

    fn handle(&mut self, Work(swarm): Work, ctx: &mut Self::Context) {
        self.next(swarm, ctx);
    }
}

impl Handler<Reconcile> for Controller {
    type Result = ();

    fn handle(&mut self, _: Reconcile, ctx: &mut Self::Context) {
        self.pass(ctx);
    }
}

/// Starts a supervisor for each desired swarm that has none, or whose own has crashed. Takes no input but the two states; harmless when repeated.
async fn reconcile(office: Arc<Office>) {
    office.catch_up().await;
    let Some(swarms) = office.swarms_supervisor() else { return };
    let Ok(tree) = swarms.snapshot().await else { return };
    if office.closed() {
        return;
    }
    let (fallen, there): (Vec<_>, Vec<_>) =
        tree.children.into_iter().partition(|child| child.state == ChildState::Failed);
    for swarm in &fallen {
        // Its name must be free. A child that is not there any more is as good.
        if let Err(error) = swarms.remove_child(&swarm.id).await {
            tracing::warn!(swarm = %swarm.id, %error, "failed to forget a swarm's dead supervisor");
        }
    }
    let there: HashSet<&str> = there.iter().map(|child| child.id.as_str()).collect();
    let missing = office.plans().into_iter().filter(|plan| !there.contains(plan.spec.name.as_str()));
    let started = join_all(missing.map(|plan| start_swarm(&office, &swarms, plan))).await;
    let failed = started.into_iter().find_map(Result::err);
    let ok = failed.is_none();
    office.health().report(health::Report::ControlPlane { ok, error: failed });
    if ok {
        office.set_reconciled();
    }
}

/// Puts a swarm under supervision where its journal says that it stands. Returns why it could not be done.
pub(super) async fn start_swarm(office: &Office, swarms: &SupervisorRef, plan: PlannedSwarm) -> Result<(), String> {
    let name = &plan.spec.name;
    let failed = |why: String| {
        tracing::error!(swarm = %name, %why, "failed to put a swarm under supervision");
        format!("swarm {name} could not be put under supervision: {why}")
    };
    let now = SystemTime::now();
    let ledgers =
        recover::ledgers(&*office.deps().journal, &plan, now).await.map_err(|error| failed(error.to_string()))?;
    for (agent, seed) in seeds::health_seeds(&plan, &ledgers, now) {
        office.health().report(health::Report::Settled { agent, standing: seed.standing });
    }
    let made = swarm::child(office.deps(), &plan, seeds::seeds(&plan, &ledgers, now));
    office.under_supervision(name, &made);
    match tokio::time::timeout(SWARM_START_WAIT, swarms.add_child(made.child)).await {
        Ok(Err(error)) => return Err(failed(error.to_string())),
        Ok(Ok(())) => tracing::info!(swarm = %name, agents = plan.agents.len(), "swarm is under supervision"),
        Err(_) => tracing::info!(swarm = %name, "swarm is under supervision, its agents are still starting"),
    }
    Ok(())
}

/// Operations that were under way when the controller fell twice have an unknown outcome, and say so.
async fn abandon(office: Arc<Office>, left: Vec<Operation>) {
    for mut operation in left {
        operation.state = OperationState::Failed;
        operation.ended_at = Some(SystemTime::now());
        operation.error =
            Some("the control plane fell twice while this was under way; look at the state of its target".to_owned());
        office.record(operation).await;
    }
}
