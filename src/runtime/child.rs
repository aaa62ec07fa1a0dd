//! A runtime agent as a supervised child: one actor per incarnation, whose life is the agent's life.
//!
//! The actor starts the agent (or takes over the one that lives), tells the supervisor when it shows its first sign of life, and ends when the agent
//! has ended: normally, or with a failure that the restart type judges. A stop is answered asynchronously: SIGTERM, the grace, SIGKILL.

use std::{path::PathBuf, sync::Arc, time::Duration};

use actix::prelude::*;
use hivekeeper_actors::ChildCtx;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::{
    drive,
    end::End,
    registry::{Registry, Slot},
    runtimes::Runtimes,
    secrets::Secrets,
};
use crate::{
    model::{AgentId, AgentSpec, Drain, Environment, Origin, SwarmName, Witness},
    store::{Journal, LogBook},
    view,
};

/// Orders that may wait for the drive at once: each kind is given once, so a handful is plenty.
const ORDERS_MAX: usize = 8;

/// What every agent's actor needs of the daemon.
pub struct AgentDeps {
    /// Run commands.
    pub runtimes: Runtimes,
    /// Keeps incarnations.
    pub journal: Arc<dyn Journal>,
    /// Keeps output.
    pub logs: LogBook,
    /// Hears what is seen.
    pub witness: Arc<dyn Witness>,
    /// Reads the secrets that documents refer to.
    pub secrets: Secrets,
    /// Asks sessions to finish.
    pub drain: Arc<dyn Drain>,
    /// What outlives incarnations.
    pub registry: Registry,
    /// Below it lie the working directories of swarms that name none.
    pub work_dir: PathBuf,
    /// Between two readings of an agent's process tree.
    pub sample_interval: Duration,
    /// Called when a younger daemon turns out to lead the hive. This one must end and touch nothing.
    pub fenced: Arc<dyn Fn() + Send + Sync>,
}

impl AgentDeps {
    /// The working directory of a swarm that names none.
    pub fn workdir(&self, swarm: &SwarmName) -> PathBuf {
        self.work_dir.join(swarm.as_str())
    }
}

/// A hash of what an agent runs: equal for equal commands in equal environments, as documents have them. Where it runs is not in it.
pub fn runs(command: &[String], env: &Environment) -> [u8; 32] {
    // Lists and maps of strings are always JSON.
    Sha256::digest(serde_json::to_vec(&(command, view::environment(env))).unwrap_or_default()).into()
}

/// One agent: what is to run, and with what.
pub struct Job {
    /// Who.
    pub id: AgentId,
    /// Its document.
    pub spec: Arc<AgentSpec>,
    /// Who wrote that.
    pub origin: Origin,
    /// The swarm's environment with the agent's laid over it.
    pub env: Environment,
    /// Absolute working directory; `None` is the runtime's own choice.
    pub workdir: Option<PathBuf>,
    /// Its place.
    pub slot: Arc<Slot>,
    /// What it needs.
    pub deps: Arc<AgentDeps>,
}

/// What the drive is told while it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// End it within the grace.
    Stop,
    /// It is stuck and its document asks for a restart then.
    EndStuck,
}

/// Message: force the exit of an agent that makes no progress.
#[derive(Message)]
#[rtype(result = "()")]
pub struct EndStuck;

/// The actor of one incarnation.
pub struct AgentActor {
    child: ChildCtx<Self>,
    job: Arc<Job>,
    orders: Option<mpsc::Sender<Order>>,
}

impl AgentActor {
    /// The factory's product.
    pub fn new(child: ChildCtx<Self>, job: Arc<Job>) -> Self {
        Self { child, job, orders: None }
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            // A full queue already holds this order, and a closed one means that the agent has ended.
            let _ = orders.try_send(order);
        }
    }
}

impl Actor for AgentActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let (orders, waiting) = mpsc::channel(ORDERS_MAX);
        self.orders = Some(orders);
        let start = if self.child.adopted() { drive::Start::Adopt } else { drive::Start::Launch };
        let ready = {
            let child = self.child.clone();
            move || child.ready()
        };
        let drive = drive::drive(
            Arc::clone(&self.job),
            self.child.incarnation(),
            self.child.automatic(),
            start,
            ready,
            waiting,
        );
        ctx.spawn(drive.into_actor(self).map(|end, actor, ctx| {
            actor.orders = None;
            match end {
                End::Normal => ctx.stop(),
                End::Failed(how) => actor.child.fail(ctx, how),
                End::Lost(how) => actor.child.lose(ctx, how),
            }
        }));
    }

    fn stopping(&mut self, _ctx: &mut Self::Context) -> Running {
        if self.orders.is_none() {
            return Running::Stop;
        }
        self.order(Order::Stop);
        Running::Continue
    }
}

impl Handler<EndStuck> for AgentActor {
    type Result = ();

    fn handle(&mut self, _: EndStuck, _ctx: &mut Self::Context) {
        self.order(Order::EndStuck);
    }
}
