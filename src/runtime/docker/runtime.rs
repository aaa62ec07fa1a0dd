//! Launching in containers, taking over what lives in them, and the list of launches that are led here.

use std::{collections::HashSet, path::Path, sync::Arc, time::Duration};

use dashmap::{DashMap, Entry};
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::oneshot, task::JoinSet, time::timeout};

use super::{
    engine::{ConnectError, Engine, ExecError, Owner},
    executable::Launcher,
    inside::{self, Door, VisitError},
    lodging::{EnterError, Lodging, Wish},
};
use crate::{
    model::{AgentId, ContainerSpec, Epoch, LaunchId, RelaySink, RuntimeKind, SwarmName},
    runtime::{
        BoxFuture, Capabilities, LaunchError, LaunchOrder, Launched, RecoverError, Recovered, Runtime,
        lead::{self, ANSWER_DEADLINE, Attached, Carrier, Drive, Found, Link, LinkError, Stray, end_stray},
        orphans::{Leader, Tree},
    },
    wire::channel::{Attach, Exit, ToLauncher},
};

/// Strays that are looked at at once: each is an exec, which costs 70 ms of a core.
const STRAYS_AT_ONCE: usize = 4;
/// Tries to enter a container that goes away just then.
const ENTRIES_MAX: u32 = 3;
/// How long an attach may take in all: a turn to start a command, the exec itself, and the launcher's answer.
const ATTACH_DEADLINE: Duration = Duration::from_secs(15);

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
    /// Where the tasks of the launches run.
    pub tasks: Handle,
}

/// Runs agents in containers, by exec. Dropping it leaves every agent to its lease.
pub struct DockerRuntime {
    core: Arc<Core>,
    handle: Handle,
    tasks: Mutex<JoinSet<()>>,
}

/// What the tasks of all launches share.
struct Core {
    host: Option<String>,
    owner: Owner,
    /// Once it has answered.
    engine: tokio::sync::OnceCell<Engine>,
    exe: Launcher,
    epoch: Epoch,
    ring_bytes: u32,
    relay: Arc<dyn RelaySink>,
    lodgings: DashMap<SwarmName, Arc<Lodging>>,
    /// Where each launch is that is led, looked for or ended here.
    places: DashMap<LaunchId, Arc<Lodging>>,
    live: Mutex<HashSet<LaunchId>>,
}

impl DockerRuntime {
    /// With no swarm declared.
    pub fn new(options: DockerOptions) -> Self {
        let DockerOptions { host, owner, exe, epoch, ring_bytes, relay, tasks } = options;
        let core = Core {
            host,
            owner,
            engine: tokio::sync::OnceCell::new(),
            exe,
            epoch,
            ring_bytes,
            relay,
            lodgings: DashMap::new(),
            places: DashMap::new(),
            live: Mutex::default(),
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
                place.insert(Arc::new(Lodging::new(swarm.clone(), wish, self.core.exe.clone())));
            }
        }
    }

    /// Waits until every task has ended: each agent ended, or detached. Returns how many had not at the deadline.
    pub async fn finish(&self, deadline: Duration) -> usize {
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        let ended = async { while tasks.join_next().await.is_some() {} };
        let _ = timeout(deadline, ended).await;
        tasks.len()
    }

    /// Removes the containers of swarms of which nothing is led here any more, within a deadline. What is left ends by itself.
    pub async fn leave(&self, deadline: Duration) {
        let Some(engine) = self.core.engine.get() else { return };
        let lodgings: Vec<Arc<Lodging>> =
            self.core.lodgings.iter().map(|lodging| Arc::clone(lodging.value())).collect();
        let leave = async {
            for lodging in lodgings {
                if self.core.is_alone(&lodging, LaunchId::mint()) {
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

impl Core {
    /// The engine, once it has answered; calls to it connect anew each time, so it may go and come.
    async fn engine(&self) -> Result<&Engine, ConnectError> {
        self.engine.get_or_try_init(|| Engine::connect(self.host.as_deref(), self.owner.clone())).await
    }

    /// Whether no other launch is led in the same place.
    fn is_alone(&self, lodging: &Lodging, launch_id: LaunchId) -> bool {
        let live = self.live.lock();
        !self.places.iter().any(|place| {
            std::ptr::eq(&raw const **place.value(), lodging) && *place.key() != launch_id && live.contains(place.key())
        })
    }

    fn lodging(&self, swarm: &SwarmName) -> Result<Arc<Lodging>, String> {
        let lodging = self.lodgings.get(swarm).map(|lodging| Arc::clone(&lodging));
        lodging.ok_or_else(|| format!("swarm {swarm} has not been declared"))
    }

    /// The door to a launch, if the container that it was made in still runs.
    async fn door(&self, launch_id: LaunchId) -> Result<Option<Door>, LinkError> {
        let lodging = self.places.get(&launch_id).map(|lodging| Arc::clone(&lodging));
        let lodging =
            lodging.ok_or_else(|| LinkError::Unexpected("it is not known where this launch is".to_owned()))?;
        let engine = self.engine().await.map_err(|error| LinkError::Unexpected(error.to_string()))?;
        lodging.find(engine).await.map_err(|error| LinkError::Unexpected(error.to_string()))
    }

    async fn start(&self, lodging: &Lodging, order: &LaunchOrder) -> Result<Link, LaunchError> {
        // Where it keeps its socket, and works, is known behind the door.
        let mut launch = lead::launch(order, Some(Path::new("/")), &[], self.epoch, "", self.ring_bytes)
            .map_err(LaunchError::Refused)?;
        let forgotten = lodging.forgotten();
        launch.forget = forgotten.iter().map(ToString::to_string).collect();
        let (engine, door, mut link) = self.launcher(lodging, order.launch_id).await?;
        launch.run_dir.clone_from(&door.run_dir);
        if order.workdir.is_none() {
            let workdir = lodging.workdir(engine, &door).await?;
            workdir
                .to_str()
                .ok_or_else(|| LaunchError::Refused("its working directory is no UTF-8".to_owned()))?
                .clone_into(&mut launch.cwd);
        }
        let launch = ToLauncher::Launch(Box::new(launch));
        match timeout(ANSWER_DEADLINE, link.send(&launch)).await.unwrap_or(Err(LinkError::Silent)) {
            Ok(()) => {
                lodging.taken_away(&forgotten);
                Ok(link)
            }
            Err(LinkError::Frame(error)) => Err(LaunchError::Refused(error.to_string())),
            // A part of an order is none, and the end of the channel ends it.
            Err(error) => Err(LaunchError::Launcher(error.to_string())),
        }
    }

    /// A launcher in the swarm's container, which may go away while it is entered.
    async fn launcher(&self, lodging: &Lodging, launch_id: LaunchId) -> Result<(&Engine, Door, Link), LaunchError> {
        let engine = self.engine().await.map_err(|error| LaunchError::Unreachable(error.to_string()))?;
        let mut tries = 0;
        loop {
            tries += 1;
            let door = lodging.enter(engine, self.is_alone(lodging, launch_id)).await?;
            match inside::launcher(engine, &door, launch_id).await {
                Ok(visit) => return Ok((engine, door, visit.link)),
                Err(VisitError::Exec(ExecError::ContainerMissing | ExecError::NotRunning(_)))
                    if tries < ENTRIES_MAX => {}
                Err(VisitError::Exec(error)) => return Err(LaunchError::Unreachable(error.to_string())),
                Err(VisitError::Spoke(why)) => return Err(LaunchError::Launcher(why)),
            }
        }
    }

    fn led(
        self: Arc<Self>,
        launch_id: LaunchId,
        agent: AgentId,
        incarnation: u64,
        lease: Duration,
        seen: u64,
    ) -> (Live, Drive, Launched) {
        self.live.lock().insert(launch_id);
        let live = Live { core: Arc::clone(&self), launch_id };
        let (drive, launched) = Drive::new(self, launch_id, agent, incarnation, lease, seen);
        (live, drive, launched)
    }
}

impl From<EnterError> for LaunchError {
    fn from(error: EnterError) -> Self {
        match error {
            EnterError::Refused(why) => Self::Refused(why),
            EnterError::Unreachable(why) => Self::Unreachable(why),
        }
    }
}

/// Keeps a launch on the list of those that are led here.
struct Live {
    core: Arc<Core>,
    launch_id: LaunchId,
}

impl Live {
    async fn during(self, led: impl Future) {
        led.await;
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.core.live.lock().remove(&self.launch_id);
    }
}

impl Carrier for Core {
    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn relay(&self) -> &dyn RelaySink {
        &*self.relay
    }

    fn attach(&self, launch_id: LaunchId, attach: Attach) -> BoxFuture<'_, Result<Attached, LinkError>> {
        Box::pin(async move {
            let knock = async {
                let forgotten = self.places.get(&launch_id).is_some_and(|lodging| lodging.is_forgotten(launch_id));
                let door = if forgotten { None } else { self.door(launch_id).await? };
                let (Some(door), Some(engine)) = (door, self.engine.get()) else {
                    return Ok(Attached::Nobody);
                };
                match inside::attach(engine, &door, launch_id).await {
                    Ok(visit) => visit.link.present(attach).await,
                    Err(VisitError::Exec(ExecError::ContainerMissing)) => Ok(Attached::Nobody),
                    Err(error) => Err(LinkError::Unexpected(error.to_string())),
                }
            };
            timeout(ATTACH_DEADLINE, knock).await.unwrap_or(Err(LinkError::Silent))
        })
    }

    /// Where a launcher has gone, whoever attaches hears its record at once.
    fn record(&self, _: LaunchId) -> BoxFuture<'_, Option<Exit>> {
        Box::pin(std::future::ready(None))
    }

    /// By its id in the container, where alone it means something; there its session tells what is its own.
    fn leader(&self, pid: u32) -> Option<Leader> {
        Some(Leader { pid, start_ticks: 0 })
    }

    fn sweep(&self, tree: Tree) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let launch_id = tree.launch_id.parse().map_err(|_| format!("{:?} is no launch", tree.launch_id))?;
            // A container that is gone has taken everything along.
            let door = self.door(launch_id).await.map_err(|error| error.to_string())?;
            let (Some(door), Some(engine)) = (door, self.engine.get()) else { return Ok(()) };
            match inside::sweep(engine, &door, &tree).await {
                Ok(()) | Err(VisitError::Exec(ExecError::ContainerMissing)) => Ok(()),
                Err(error) => Err(error.to_string()),
            }
        })
    }
}

/// What the tasks of a runtime answer when it is gone.
const SHUT: &str = "runtime is shut down";

impl Runtime for DockerRuntime {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Docker
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { pause: true, limits: true, isolation: true, oom: false, recover: true }
    }

    fn launch(&self, order: LaunchOrder) -> BoxFuture<'_, Result<Launched, LaunchError>> {
        Box::pin(async move {
            let lodging = self.core.lodging(&order.agent.swarm).map_err(LaunchError::Refused)?;
            let core = Arc::clone(&self.core);
            let (answer, answered) = oneshot::channel();
            self.spawn(async move {
                core.places.insert(order.launch_id, Arc::clone(&lodging));
                let link = match core.start(&lodging, &order).await {
                    Ok(link) => link,
                    Err(error) => {
                        core.places.remove(&order.launch_id);
                        return drop(answer.send(Err(error)));
                    }
                };
                let LaunchOrder { launch_id, agent, incarnation, lease, .. } = order;
                let (live, mut drive, launched) = core.led(launch_id, agent, incarnation, lease, 0);
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
                core.places.insert(launch_id, lodging);
                let (link, state) = match lead::find(&*core, launch_id, &agent, incarnation, last_seq).await {
                    Ok(Found::Running(link, state)) => (link, state),
                    Ok(Found::Exited(record)) => return drop(answer.send(Ok(Recovered::Exited(record)))),
                    Ok(Found::Lost) => return drop(answer.send(Ok(Recovered::Lost))),
                    Err(error) => return drop(answer.send(Err(error))),
                };
                let lease = Duration::from_millis(state.lease_ms);
                let (live, drive, launched) = core.led(launch_id, agent, incarnation, lease, last_seq);
                let found = if state.ending { Recovered::Ending(launched) } else { Recovered::Running(launched) };
                drop(answer.send(Ok(found)));
                live.during(drive.adopted(link, state)).await;
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
        if let Some((_, lodging)) = self.core.places.remove(&launch_id) {
            lodging.forget(launch_id);
        }
        Box::pin(std::future::ready(()))
    }
}

impl Core {
    async fn strays(self: Arc<Self>, known: HashSet<LaunchId>, remove: bool) -> Vec<LaunchId> {
        let lodgings: Vec<Arc<Lodging>> = self.lodgings.iter().map(|lodging| Arc::clone(lodging.value())).collect();
        let mut found = Vec::new();
        if lodgings.is_empty() {
            return found;
        }
        let engine = match self.engine().await {
            Ok(engine) => engine,
            Err(error) => {
                tracing::warn!(%error, "the engine could not be asked for launches that nobody knows");
                return found;
            }
        };
        for lodging in lodgings {
            let door = match lodging.find(engine).await {
                Ok(Some(door)) => door,
                Ok(None) => continue,
                Err(error) => {
                    tracing::warn!(%error, "a container could not be looked for");
                    continue;
                }
            };
            let there = match inside::list(engine, &door).await {
                Ok(there) => there,
                Err(error) => {
                    tracing::warn!(%error, "the launches in a container could not be listed");
                    continue;
                }
            };
            let strays = there.into_iter().filter(|id| !known.contains(id) && !self.live.lock().contains(id));
            let strays: Vec<LaunchId> = strays.collect();
            let looked = stream::iter(strays).map(|id| {
                self.places.insert(id, Arc::clone(&lodging));
                self.look(id, remove)
            });
            found.extend(
                looked.buffer_unordered(STRAYS_AT_ONCE).filter_map(std::future::ready).collect::<Vec<_>>().await,
            );
        }
        found
    }

    /// Its id if it is one. Without `remove` nobody knocks: an attach would take it from whoever leads it.
    async fn look(&self, id: LaunchId, remove: bool) -> Option<LaunchId> {
        if !remove {
            self.places.remove(&id);
            return Some(id);
        }
        let stray = end_stray(self, id).await;
        if let Some((_, lodging)) = self.places.remove(&id)
            && stray == Stray::Ended
        {
            lodging.forget(id);
        }
        (stray != Stray::Fenced).then_some(id)
    }
}
