//! Launching in containers, taking over what lives in them, and the list of launches that are led here.

use std::{sync::Arc, time::Duration};

use dashmap::{DashMap, Entry};
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::{OnceCell, oneshot, watch},
    task::JoinSet,
    time::timeout,
};

use super::{
    core::{Core, Stay},
    engine::Owner,
    executable::Launcher,
    lodging::{Lodging, Wish},
    orphans, spare,
};
use crate::{
    model::{AgentId, ContainerSpec, EngineWitness, Epoch, Finding, LaunchId, RelaySink, RuntimeKind, SwarmName},
    runtime::{
        BoxFuture, Capabilities, LaunchError, LaunchOrder, Launched, RecoverError, Recovered, Runtime,
        lead::{self, Found},
    },
};

/// How long the container of a swarm that is gone may take to be removed before the daemon goes on.
const EVICTION: Duration = Duration::from_secs(20);

/// How the runtime is set up.
#[derive(Clone)]
pub struct DockerOptions {
    /// The engine's address; `None` is `/var/run/docker.sock`. It need not be there yet.
    pub host: Option<String>,
    /// The hive.
    pub owner: Owner,
    /// The `hivekeeper` executable, which is the launcher in containers, too.
    pub exe: Launcher,
    /// The fencing token of this daemon.
    pub epoch: Epoch,
    /// Output that a launcher keeps until it is acknowledged.
    pub ring_bytes: u32,
    /// Takes the connections that agents open to their loopback ports.
    pub relay: Arc<dyn RelaySink>,
    /// Hears how the engine is, and what becomes of containers.
    pub witness: Arc<dyn EngineWitness>,
    /// How long something that should not be there must have been seen before it is removed: longer than a container takes to be made.
    pub orphan_grace: Duration,
    /// Where the tasks of the launches run.
    pub tasks: Handle,
}

/// Runs agents in containers, by exec. Dropping it leaves every agent to its lease.
pub struct DockerRuntime {
    core: Arc<Core>,
    handle: Handle,
    tasks: Mutex<JoinSet<()>>,
}

impl DockerRuntime {
    /// With no swarm declared.
    pub fn new(options: DockerOptions) -> Self {
        let DockerOptions { host, owner, exe, epoch, ring_bytes, relay, witness, orphan_grace, tasks } = options;
        let core = Core {
            host,
            owner,
            engine: OnceCell::new(),
            exe,
            epoch,
            ring_bytes,
            relay,
            witness,
            orphan_grace,
            lodgings: DashMap::new(),
            places: DashMap::new(),
            live: Mutex::default(),
            needed: watch::Sender::default(),
            reach: watch::Sender::default(),
            sightings: Mutex::default(),
        };
        Self { core: Arc::new(core), handle: tasks, tasks: Mutex::new(JoinSet::new()) }
    }

    /// Says what a swarm asks of its container, and how long the longest lease of its agents is. To be called before anything of the swarm is launched
    /// or recovered, and again when its document has changed.
    pub fn declare(&self, swarm: &SwarmName, spec: Arc<ContainerSpec>, lease_max: Duration) {
        let wish = Wish { spec, lease_max };
        match self.core.lodgings.entry(swarm.clone()) {
            Entry::Occupied(known) => known.get().set_wish(wish),
            Entry::Vacant(place) => {
                let lodging = Arc::new(Lodging::new(swarm.clone(), wish, self.core.exe.clone()));
                self.spawn(spare::keep(Arc::clone(&self.core), Arc::clone(&lodging)));
                place.insert(lodging);
            }
        }
        self.core.needed.send_replace(true);
    }

    /// Removes the container and the bridge of a swarm that does not live here any more, within a deadline, and forgets it. What can't be removed now is
    /// found again as an orphan.
    pub async fn evict(&self, swarm: &SwarmName) {
        let Some((_, lodging)) = self.core.lodgings.remove(swarm) else { return };
        lodging.spares().close();
        let leave = async {
            match self.core.engine().await {
                Ok(engine) => lodging.leave(engine).await,
                Err(error) => tracing::warn!(%swarm, %error, "the container of a swarm that is gone was not removed"),
            }
        };
        if timeout(EVICTION, leave).await.is_err() {
            tracing::warn!(%swarm, "the engine takes long to remove the container of a swarm that is gone");
        }
    }

    /// Follows the engine, as long as it is polled: whether it answers, what becomes of containers, what is in it that should not be. Touches no engine
    /// before a swarm is declared that needs it.
    pub async fn follow(&self) {
        super::watch::follow(&self.core).await
    }

    /// Looks for what is in the engine and should not be. What has been there for long enough is removed, unless this is a `dry_run`.
    ///
    /// # Errors
    /// The engine can't be asked, in its words.
    pub async fn reconcile(&self, dry_run: bool) -> Result<Vec<Finding>, String> {
        if !*self.core.needed.borrow() {
            return Ok(Vec::new());
        }
        orphans::reconcile(&self.core, dry_run).await
    }

    /// Waits until the engine has not answered for so long, counted from `asked` at the earliest.
    pub async fn lost_for(&self, asked: std::time::Instant, time: Duration) {
        super::watch::lost_for(&self.core, asked.into(), time).await
    }

    /// Waits until every task has ended: each agent ended, or detached. Returns how many had not at the deadline.
    pub async fn finish(&self, deadline: Duration) -> usize {
        for lodging in self.core.all_lodgings() {
            lodging.spares().close();
        }
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        let ended = async { while tasks.join_next().await.is_some() {} };
        let _ = timeout(deadline, ended).await;
        tasks.len()
    }

    /// Removes the containers of swarms of which nothing is led here any more, within a deadline. What is left ends by itself.
    pub async fn leave(&self, deadline: Duration) {
        let Some(engine) = self.core.engine.get() else { return };
        let leave = async {
            for lodging in self.core.all_lodgings() {
                if self.core.is_alone(&lodging, None) {
                    lodging.leave(engine).await;
                }
            }
        };
        if timeout(deadline, leave).await.is_err() {
            tracing::warn!("the engine takes long to remove containers; they end by themselves");
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn_on(task, &self.handle);
    }
}

/// What the tasks of a runtime answer when it is gone.
const SHUT: &str = "runtime is shut down";

impl Runtime for DockerRuntime {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Docker
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { pause: true, limits: true, isolation: true, oom: true, recover: true }
    }

    fn reserve(&self, swarm: &SwarmName) -> LaunchId {
        self.core.lodgings.get(swarm).map_or_else(LaunchId::mint, |lodging| lodging.spares().reserve())
    }

    fn launch(&self, order: LaunchOrder) -> BoxFuture<'_, Result<Launched, LaunchError>> {
        Box::pin(async move {
            let lodging = self.core.lodging(&order.agent.swarm).map_err(LaunchError::Refused)?;
            let core = Arc::clone(&self.core);
            let (answer, answered) = oneshot::channel();
            self.spawn(async move {
                core.places.insert(order.launch_id, Stay::new(Arc::clone(&lodging)));
                let link = match core.start(&lodging, &order).await {
                    Ok(link) => link,
                    Err(error) => {
                        core.places.remove(&order.launch_id);
                        drop(answer.send(Err(error)));
                        return core.settle(&lodging).await;
                    }
                };
                let LaunchOrder { launch_id, agent, incarnation, lease, .. } = order;
                let (live, mut drive, launched) = core.led(lodging, launch_id, agent, incarnation, lease, 0);
                // Whoever asked may have gone; the reins are then dropped, which kills what has just been launched.
                drop(answer.send(Ok(launched)));
                live.during(drive.lead(link)).await;
            });
            answered.await.unwrap_or_else(|_| Err(LaunchError::Unreachable(SHUT.to_owned())))
        })
    }

    fn recover(
        &self,
        launch_id: LaunchId,
        agent: AgentId,
        incarnation: u64,
        last_seq: u64,
    ) -> BoxFuture<'_, Result<Recovered, RecoverError>> {
        Box::pin(async move {
            let lodging = self.core.lodging(&agent.swarm).map_err(RecoverError::Unproven)?;
            let core = Arc::clone(&self.core);
            let (answer, answered) = oneshot::channel();
            self.spawn(async move {
                core.places.entry(launch_id).or_insert_with(|| Stay::new(Arc::clone(&lodging)));
                let ended = match lead::find(&*core, launch_id, &agent, incarnation, last_seq).await {
                    Ok(Found::Running(link, state)) => {
                        let lease = Duration::from_millis(state.lease_ms);
                        let (live, drive, launched) =
                            Arc::clone(&core).led(Arc::clone(&lodging), launch_id, agent, incarnation, lease, last_seq);
                        let found =
                            if state.ending { Recovered::Ending(launched) } else { Recovered::Running(launched) };
                        drop(answer.send(Ok(found)));
                        let adjusted = async {
                            if let Some(engine) = core.engine.get() {
                                core.adjusted(engine, &lodging).await;
                            }
                        };
                        lodging.spares().want();
                        // Beside it: a lease must not wait for the engine.
                        tokio::join!(live.during(drive.adopted(link, state)), adjusted);
                        return;
                    }
                    Ok(Found::Exited { record, lost }) => Ok(Recovered::Exited { record, lost }),
                    Ok(Found::Lost) => Ok(Recovered::Lost),
                    Err(error) => Err(error),
                };
                drop(answer.send(ended));
                core.settle(&lodging).await;
            });
            answered.await.unwrap_or_else(|_| Err(RecoverError::Unproven(SHUT.to_owned())))
        })
    }

    fn orphans(&self, known: Vec<LaunchId>, remove: bool) -> BoxFuture<'_, Vec<LaunchId>> {
        let core = Arc::clone(&self.core);
        let (answer, answered) = oneshot::channel();
        self.spawn(async move { drop(answer.send(core.strays(known.into_iter().collect(), remove).await)) });
        Box::pin(async move { answered.await.unwrap_or_default() })
    }

    fn forget(&self, launch_id: LaunchId) -> BoxFuture<'_, ()> {
        match self.core.places.remove(&launch_id) {
            Some((_, stay)) => stay.lodging.forget(launch_id),
            // It may have been reserved, and never launched.
            None => self.core.all_lodgings().iter().for_each(|lodging| lodging.spares().forget(launch_id)),
        }
        Box::pin(std::future::ready(()))
    }
}
