//! Coordination in the daemon: what its clerk asks of the house, what the house tells its desk, and the actor as which the clerk works.

use std::{
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use actix::prelude::*;

use super::news::News;
use crate::{
    control_plane::{Control as _, Office},
    coordination::{Clerk, Desk, Fate, WorkChanges, WorkWitness},
    health::Handle,
    model::{
        Admission as _, AgentId, AgentName, HiveHealth, Observation, Party, SwarmHealth, SwarmName, Telemetry,
        TelemetryKind,
    },
    runtime::Registry,
    store::StoreError,
    tools::House,
};

/// Between two counts of what was not told.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// Between two rounds in which what has ended long ago is forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// What the clerk asks, and tells.
pub(super) struct Overseer {
    pub(super) registry: Registry,
    pub(super) news: News,
}

impl WorkWitness for Overseer {
    fn changed(&self, changes: &WorkChanges) {
        self.news.tell(changes);
    }

    fn has_ended(&self, holder: &Party) -> bool {
        holder.incarnation.is_some_and(|incarnation| !self.registry.may_live(&holder.id, incarnation))
    }
}

/// Tells the desk of agents.
#[derive(Clone)]
pub struct Signs {
    /// Who is told.
    pub desk: Desk,
    /// Who knows which agent speaks for itself.
    pub registry: Registry,
}

impl Signs {
    /// An agent has said something in a session of its own. That it has one says nothing yet: who only calls tools in it need not beat.
    pub(super) fn heard(&self, said: &Telemetry) {
        if !matches!(said.kind, TelemetryKind::SessionOpened | TelemetryKind::SessionClosed) {
            self.registry.note_spoke(&said.agent, said.incarnation);
            self.desk.alive(&party(&said.agent, said.incarnation));
        }
    }

    /// Something was seen of an agent from outside. That its process lives is a sign of life only as long as it tells nothing of itself: a program that
    /// beats and falls silent may hang.
    pub(super) fn saw(&self, agent: &AgentId, incarnation: u64, what: &Observation) {
        let party = party(agent, incarnation);
        match what {
            Observation::Exited(_) => self.desk.fate(&party, Fate::Ended),
            Observation::Paused(true) => self.desk.fate(&party, Fate::Paused),
            Observation::Paused(false) => self.desk.fate(&party, Fate::Resumed),
            Observation::Alive { .. } | Observation::Sample { .. } | Observation::Output { .. } => {
                if !self.registry.speaks(agent, incarnation) {
                    self.desk.alive(&party);
                }
            }
            Observation::Waiting { .. } | Observation::Lost { .. } | Observation::Unreachable => {}
        }
    }
}

fn party(agent: &AgentId, incarnation: u64) -> Party {
    Party { id: agent.clone(), incarnation: Some(incarnation) }
}

/// What tools ask. The office is made later, so it is told then.
pub(super) struct Household {
    pub(super) health: Handle,
    pub(super) registry: Registry,
    pub(super) office: OnceLock<Weak<Office>>,
}

impl Household {
    pub(super) fn new(health: Handle, registry: Registry) -> Arc<Self> {
        Arc::new(Self { health, registry, office: OnceLock::new() })
    }

    pub(super) fn know(&self, office: &Arc<Office>) {
        // Told once, by the boot.
        let _ = self.office.set(Arc::downgrade(office));
    }
}

impl House for Household {
    fn agents(&self, swarm: &SwarmName) -> Option<Vec<AgentName>> {
        let entry = self.office.get()?.upgrade()?.swarm(swarm)?;
        // A document whose names can't be was refused when it came.
        let agents = entry.spec.expand().unwrap_or_default();
        Some(agents.into_iter().map(|(id, _)| id.name).collect())
    }

    fn lives(&self, agent: &AgentId, incarnation: u64) -> bool {
        self.registry.lives(agent, incarnation)
    }

    fn hive(&self) -> Arc<HiveHealth> {
        self.health.hive()
    }

    fn swarm(&self, name: &SwarmName) -> Option<Arc<SwarmHealth>> {
        self.health.swarm(name)
    }
}

/// The actor. What waits lies behind the desk, so that a crash here loses at most what is in hand, of which nobody has heard.
#[derive(Clone)]
pub(super) struct Coordination {
    pub(super) desk: Desk,
    pub(super) clerk: Clerk,
    pub(super) overseer: Arc<Overseer>,
    /// How long tasks that have ended are kept.
    pub(super) keep: Duration,
    pub(super) fenced: Arc<dyn Fn() + Send + Sync>,
}

impl Actor for Coordination {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.spawn(self.clerk.clone().run().into_actor(self).map(|end, actor, ctx| match end {
            Err(StoreError::Fenced) => (actor.fenced)(),
            Ok(()) | Err(_) => ctx.stop(),
        }));
        ctx.spawn(forget(self.desk.clone(), self.keep).into_actor(self));
        ctx.run_interval(COUNT_EVERY, |actor, _| actor.overseer.news.turn());
    }
}

async fn forget(desk: Desk, keep: Duration) {
    loop {
        tokio::time::sleep(FORGET_EVERY).await;
        let forgotten = desk.call(move |cores, now| {
            if let Some(before) = now.checked_sub(keep) {
                cores.board.forget(before);
            }
            Ok(())
        });
        if let Err(error) = forgotten.await {
            tracing::warn!(%error, "failed to forget tasks that ended long ago");
        }
    }
}
