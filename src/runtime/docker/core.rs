//! What the tasks of all launches share: the engine, where each swarm lives, where each launch is.

use std::{
    collections::HashSet,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use dashmap::DashMap;
use parking_lot::Mutex;
use tokio::{
    sync::{OnceCell, watch},
    time::{sleep, timeout},
};

use super::{
    engine::{ConnectError, Engine, ExecError, Owner},
    executable::Launcher,
    inside::{self, Door, VisitError},
    lodging::{EnterError, Lodging, Wish, short},
    orphans::Sightings,
    spare::Spare,
    watch::Reach,
};
use crate::{
    model::{AgentId, EngineNews, EngineWitness, Epoch, LaunchId, RelaySink, SwarmName},
    runtime::{
        BoxFuture, LaunchError, LaunchOrder, Launched,
        lead::{self, ANSWER_DEADLINE, Attached, Carrier, Drive, Link, LinkError},
        orphans::{Leader, Tree},
    },
    wire::channel::{Attach, Exit, ToLauncher},
};

/// Tries to enter a container that goes away just then.
const ENTRIES_MAX: u32 = 3;
/// How long an attach may take in all: a turn to start a command, the exec itself, and the launcher's answer.
const ATTACH_DEADLINE: Duration = Duration::from_secs(30);
/// Between two looks whether it still does.
const DYING_LOOK: Duration = Duration::from_millis(20);
/// How long an engine may go on showing a container that has just died: milliseconds, seconds under load.
const DYING: Duration = Duration::from_secs(3);

pub(super) struct Core {
    pub(super) host: Option<String>,
    pub(super) owner: Owner,
    /// Once it has answered.
    pub(super) engine: OnceCell<Engine>,
    pub(super) exe: Launcher,
    pub(super) epoch: Epoch,
    pub(super) ring_bytes: u32,
    pub(super) relay: Arc<dyn RelaySink>,
    pub(super) witness: Arc<dyn EngineWitness>,
    /// How long something that should not be there must have been seen before it is removed.
    pub(super) orphan_grace: Duration,
    pub(super) lodgings: DashMap<SwarmName, Arc<Lodging>>,
    /// Where each launch is that is led, looked for or ended here.
    pub(super) places: DashMap<LaunchId, Stay>,
    pub(super) live: Mutex<HashSet<LaunchId>>,
    /// Whether a swarm has ever been declared: before, the engine is nobody's business.
    pub(super) needed: watch::Sender<bool>,
    /// Whether the engine answers, as whoever follows it has seen.
    pub(super) reach: watch::Sender<Reach>,
    /// What is in the engine and should not be, and since when it was seen.
    pub(super) sightings: Mutex<Sightings>,
}

/// Where a launch is.
#[derive(Clone)]
pub(super) struct Stay {
    pub(super) lodging: Arc<Lodging>,
    /// The container that it was launched or found in; `None` before.
    pub(super) door: Option<Door>,
    /// What the document asked for when this launch came up: there it is looked for, whatever the document asks for by now.
    wish: Wish,
}

impl Stay {
    pub(super) fn new(lodging: Arc<Lodging>) -> Self {
        Self { door: None, wish: lodging.wish(), lodging }
    }

    /// Whether its container is known to have ended.
    fn has_ended(&self) -> bool {
        self.door.as_ref().is_some_and(|door| has_ended(&self.lodging, door))
    }

    /// For people.
    fn how_it_ended(&self) -> String {
        let presence = self.lodging.presence();
        let known = self.door.as_ref().and_then(|door| presence.end_of(&door.container));
        known.unwrap_or("it is gone").to_owned()
    }
}

/// A container of others may have been started again since it ended: of that the engine alone knows.
fn has_ended(lodging: &Lodging, door: &Door) -> bool {
    door.started_at.is_none() && lodging.presence().end_of(&door.container).is_some()
}

impl Core {
    /// The engine, once it has answered; calls to it connect anew each time, so it may go and come.
    pub(super) async fn engine(&self) -> Result<&Engine, ConnectError> {
        self.engine.get_or_try_init(|| Engine::connect(self.host.as_deref(), self.owner.clone())).await
    }

    pub(super) fn lodging(&self, swarm: &SwarmName) -> Result<Arc<Lodging>, String> {
        let lodging = self.lodgings.get(swarm).map(|lodging| Arc::clone(&lodging));
        lodging.ok_or_else(|| format!("swarm {swarm} has not been declared"))
    }

    pub(super) fn all_lodgings(&self) -> Vec<Arc<Lodging>> {
        self.lodgings.iter().map(|lodging| Arc::clone(lodging.value())).collect()
    }

    /// Launches that are led in a place.
    pub(super) fn led_in(&self, lodging: &Lodging) -> HashSet<LaunchId> {
        let live = self.live.lock();
        let there = self.places.iter().filter(|place| std::ptr::eq(&raw const *place.lodging, lodging));
        there.map(|place| *place.key()).filter(|id| live.contains(id)).collect()
    }

    /// Whether no other launch is led in the same place.
    pub(super) fn is_alone(&self, lodging: &Lodging, launch_id: Option<LaunchId>) -> bool {
        self.led_in(lodging).into_iter().all(|id| Some(id) == launch_id)
    }

    /// Waits until a swarm is declared.
    pub(super) async fn until_needed(&self) {
        // The sender is our own, so this can't fail.
        let _ = self.needed.subscribe().wait_for(|needed| *needed).await;
    }

    fn stay(&self, launch_id: LaunchId) -> Result<Stay, LinkError> {
        let stay = self.places.get(&launch_id).map(|stay| stay.clone());
        stay.ok_or_else(|| LinkError::Unexpected("it is not known where this launch is".to_owned()))
    }

    /// The door to a launch, if the container that it was made in still runs.
    async fn door(&self, engine: &Engine, stay: &Stay) -> Result<Option<Door>, LinkError> {
        let found = match &stay.door {
            Some(door) => stay.lodging.is_open(engine, door).await.map(|open| open.then(|| door.clone())),
            None => stay.lodging.find_as(engine, &stay.wish).await,
        };
        found.map_err(|error| LinkError::Unreachable(error.to_string()))
    }

    /// The same, once somebody has knocked there.
    async fn is_still_open(&self, engine: &Engine, stay: &Stay, door: &Door) -> Result<bool, LinkError> {
        let open = stay.lodging.is_still_open(engine, door).await;
        open.map_err(|error| LinkError::Unreachable(error.to_string()))
    }

    pub(super) async fn start(&self, lodging: &Arc<Lodging>, order: &LaunchOrder) -> Result<Link, LaunchError> {
        // Where it keeps its socket, and works, is known behind the door.
        let mut launch = lead::launch(order, Some(Path::new("/")), &[], self.epoch, "", self.ring_bytes)
            .map_err(LaunchError::Refused)?;
        launch.in_container = true;
        let forgotten = lodging.forgotten();
        launch.forget = forgotten.iter().map(ToString::to_string).collect();
        let engine = self.engine().await.map_err(|error| LaunchError::Unreachable(error.to_string()))?;
        let _visit = lodging.visit(engine).await;
        let mut spare = lodging.spares().take(order.launch_id).await;
        loop {
            let is_spare = spare.is_some();
            let Spare { door, mut link, workdir } = match spare.take() {
                Some(spare) => spare,
                None => self.launcher(engine, lodging, order).await?,
            };
            launch.run_dir.clone_from(&door.run_dir);
            if order.workdir.is_none() {
                workdir
                    .to_str()
                    .ok_or_else(|| LaunchError::Refused("its working directory is no UTF-8".to_owned()))?
                    .clone_into(&mut launch.cwd);
            }
            self.places.insert(order.launch_id, Stay { door: Some(door), ..Stay::new(Arc::clone(lodging)) });
            let frame = ToLauncher::Launch(Box::new(launch.clone()));
            match timeout(ANSWER_DEADLINE, link.send(&frame)).await.unwrap_or(Err(LinkError::Silent)) {
                Ok(()) => {
                    lodging.taken_away(&forgotten);
                    lodging.spares().want();
                    return Ok(link);
                }
                Err(LinkError::Frame(error)) => return Err(LaunchError::Refused(error.to_string())),
                // A part of an order is none, and the end of the channel ends it. A spare may have ended in this very moment.
                Err(error) if is_spare => tracing::debug!(%error, "a spare launcher took no order"),
                Err(error) => return Err(LaunchError::Launcher(error.to_string())),
            }
        }
    }

    /// A launcher in the swarm's container, which may go away while it is entered.
    async fn launcher(&self, engine: &Engine, lodging: &Lodging, order: &LaunchOrder) -> Result<Spare, LaunchError> {
        let launch_id = order.launch_id;
        let mut tries = 0;
        loop {
            tries += 1;
            let door = self.enter(engine, lodging, launch_id).await?;
            match inside::launcher(engine, &door, launch_id).await {
                // One of others may have been started again since it was looked at: then its launcher keeps its socket where nobody looks for it.
                Ok(_) if !lodging.is_still_open(engine, &door).await? => {
                    if tries == ENTRIES_MAX {
                        return Err(LaunchError::NotYet("the container is being started again".to_owned()));
                    }
                }
                Ok(visit) => {
                    let workdir = match &order.workdir {
                        Some(workdir) => workdir.clone(),
                        None => lodging.workdir(engine, &door).await?,
                    };
                    return Ok(Spare { door, link: visit.link, workdir });
                }
                Err(VisitError::Exec(error @ (ExecError::ContainerMissing | ExecError::NotRunning(_)))) => {
                    lodging.doubt(&door);
                    if tries == ENTRIES_MAX {
                        return Err(LaunchError::NotYet(error.to_string()));
                    }
                }
                Err(VisitError::Exec(error)) => return Err(LaunchError::Unreachable(error.to_string())),
                Err(VisitError::Spoke(why)) => {
                    // A container that ends takes what was just started along, without a word of its own.
                    if tries < ENTRIES_MAX && (lodging.doubt(&door) || self.has_gone(engine, lodging, &door).await) {
                        continue;
                    }
                    // An engine that stands still is no fault of the agent's.
                    return Err(match engine.ping().await {
                        Ok(()) => LaunchError::Launcher(why),
                        Err(error) => LaunchError::Unreachable(error.to_string()),
                    });
                }
            }
        }
    }

    async fn enter(&self, engine: &Engine, lodging: &Lodging, launch_id: LaunchId) -> Result<Door, EnterError> {
        if let Some(why) = lodging.presence().waits(Instant::now()) {
            return Err(EnterError::NotYet(why));
        }
        let door = lodging.enter(engine, self.is_alone(lodging, Some(launch_id))).await?;
        self.adjusted(engine, lodging).await;
        let left = lodging.presence().container().filter(|known| *known != door.container).map(str::to_owned);
        if let Some(left) = left {
            self.ended(lodging, &left, None);
        }
        if lodging.presence().entered(&door.container, Instant::now()) {
            self.witness.heard(EngineNews::ContainerStarted {
                swarm: lodging.swarm().clone(),
                container: door.container.clone(),
                detail: lodging.describe(),
            });
        }
        Ok(door)
    }

    /// Tells in what a swarm does not get what its document asks, when that has changed.
    pub(super) async fn adjusted(&self, engine: &Engine, lodging: &Lodging) {
        if let Some(adjustments) = lodging.adjusted(engine).await {
            self.witness.heard(EngineNews::Adjusted { swarm: lodging.swarm().clone(), adjustments });
        }
    }

    /// Tells of a container that has ended, unless that is known or was our own doing.
    pub(super) fn ended(&self, lodging: &Lodging, container: &str, code: Option<i64>) {
        let Some(detail) = lodging.presence().ended(container, code, Instant::now()) else { return };
        let swarm = lodging.swarm().clone();
        tracing::warn!(%swarm, container = short(container), detail, "a swarm's container ended");
        self.witness.heard(EngineNews::ContainerEnded { swarm, container: container.to_owned(), detail });
    }

    /// Whether a container that something went wrong in turns out to have ended.
    async fn has_gone(&self, engine: &Engine, lodging: &Lodging, door: &Door) -> bool {
        let deadline = Instant::now() + DYING;
        loop {
            if has_ended(lodging, door) || matches!(lodging.is_open(engine, door).await, Ok(false)) {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            sleep(DYING_LOOK).await;
        }
    }

    /// Freezes a place where every agent is at rest and nobody visits, and thaws any other.
    pub(super) async fn settle(&self, lodging: &Lodging) {
        let Some(engine) = self.engine.get() else { return };
        lodging.settle(engine, || self.led_in(lodging)).await;
    }

    pub(super) fn led(
        self: Arc<Self>,
        lodging: Arc<Lodging>,
        launch_id: LaunchId,
        agent: AgentId,
        incarnation: u64,
        lease: Duration,
        seen: u64,
    ) -> (Live, Drive, Launched) {
        self.live.lock().insert(launch_id);
        let live = Live { core: Arc::clone(&self), lodging, launch_id };
        let (drive, launched) = Drive::new(self, launch_id, agent, incarnation, lease, seen);
        (live, drive, launched)
    }
}

impl From<EnterError> for LaunchError {
    fn from(error: EnterError) -> Self {
        match error {
            EnterError::Refused(why) => Self::Refused(why),
            EnterError::NotYet(why) => Self::NotYet(why),
            EnterError::Unreachable(why) => Self::Unreachable(why),
        }
    }
}

/// Keeps a launch on the list of those that are led here.
pub(super) struct Live {
    core: Arc<Core>,
    /// Of its own: as soon as its end is told, the launch may be forgotten.
    lodging: Arc<Lodging>,
    launch_id: LaunchId,
}

impl Live {
    pub(super) async fn during(self, led: impl Future) {
        led.await;
        let (core, lodging, launch_id) = (Arc::clone(&self.core), Arc::clone(&self.lodging), self.launch_id);
        drop(self);
        // Those that stay may all be at rest.
        lodging.rouse(launch_id).await;
        core.settle(&lodging).await;
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
            let reached = AtomicBool::new(false);
            let knock = async {
                let stay = self.stay(launch_id)?;
                if stay.lodging.is_forgotten(launch_id) {
                    return Ok(Attached::Nobody);
                }
                let engine = self.engine().await.map_err(|error| LinkError::Unreachable(error.to_string()))?;
                let _visit = stay.lodging.visit(engine).await;
                let gone = || Ok(Attached::Gone(stay.how_it_ended()));
                if stay.has_ended() {
                    return gone();
                }
                let Some(door) = self.door(engine, &stay).await? else { return gone() };
                let error = match inside::attach(engine, &door, launch_id).await {
                    Ok(visit) => {
                        reached.store(true, Ordering::Relaxed);
                        let present = timeout(ANSWER_DEADLINE, visit.link.present(attach));
                        match present.await.unwrap_or(Err(LinkError::Silent)) {
                            Err(error) => error,
                            // Its owner may have started it again since we looked: nobody of an earlier start is there then.
                            Ok(Attached::Nobody) if !self.is_still_open(engine, &stay, &door).await? => return gone(),
                            answer => {
                                stay.lodging.presence().found(&door.container, Instant::now());
                                if let Some(mut stay) = self.places.get_mut(&launch_id) {
                                    stay.door = Some(door);
                                }
                                return answer;
                            }
                        }
                    }
                    Err(VisitError::Exec(ExecError::ContainerMissing)) => return gone(),
                    Err(VisitError::Exec(error @ (ExecError::Busy | ExecError::Call(_)))) => {
                        return Err(LinkError::Unreachable(error.to_string()));
                    }
                    Err(error) => LinkError::Unexpected(error.to_string()),
                };
                if self.has_gone(engine, &stay.lodging, &door).await {
                    return gone();
                }
                // An engine that stands still says nothing about the launcher.
                match engine.ping().await {
                    Ok(()) => Err(error),
                    Err(error) => Err(LinkError::Unreachable(error.to_string())),
                }
            };
            let slow = || Err(LinkError::Unreachable("the engine takes long to start a command".to_owned()));
            timeout(ATTACH_DEADLINE, knock).await.unwrap_or_else(|_| match reached.load(Ordering::Relaxed) {
                true => Err(LinkError::Silent),
                false => slow(),
            })
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
            let stay = self.stay(launch_id).map_err(|error| error.to_string())?;
            let engine = self.engine().await.map_err(|error| error.to_string())?;
            let _visit = stay.lodging.visit(engine).await;
            // A container that is gone has taken everything along.
            let Some(door) = self.door(engine, &stay).await.map_err(|error| error.to_string())? else { return Ok(()) };
            // A container of others may be started again before the errand is there, and the number be that of a process of its owner's. The marker is
            // ours alone.
            let leader = tree.leader.filter(|_| door.started_at.is_none());
            match inside::sweep(engine, &door, &Tree { leader, ..tree }).await {
                Ok(()) | Err(VisitError::Exec(ExecError::ContainerMissing)) => Ok(()),
                Err(error) => Err(error.to_string()),
            }
        })
    }

    fn awaken(&self, launch_id: LaunchId) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let Ok(stay) = self.stay(launch_id) else { return };
            stay.lodging.spares().hush().await;
            if stay.lodging.rouse(launch_id).await {
                self.settle(&stay.lodging).await;
            }
        })
    }

    fn rest(&self, launch_id: LaunchId) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let Ok(stay) = self.stay(launch_id) else { return };
            stay.lodging.lay_down(launch_id).await;
            self.settle(&stay.lodging).await;
        })
    }
}
