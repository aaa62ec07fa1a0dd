//! Where a swarm lives in the engine: a container of its own, made when its first agent is launched, or one of others.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tokio::sync::Mutex;

use super::{
    engine::{
        CallError, ContainerError, ContainerPlan, CreateError, Engine, LAUNCHER_PATH, LauncherVolume, Listed, Network,
        NetworkError, RUN_DIR, VolumeError, hold_command, resource_name,
    },
    executable::Launcher,
    freeze::{Freeze, Visitor},
    inside::Door,
    own,
    presence::Presence,
    sidecar::Sidecar,
    spare::Spares,
};
use crate::model::{ContainerSpec, LaunchId, NetworkSpec, Place, SwarmName};

/// Beyond the longest lease: an agent whose daemon has gone is still being ended then.
const HOLD_MARGIN: Duration = Duration::from_secs(5);
/// Who agents run as where neither document nor image says.
const USER_DEFAULT: &str = "10001:10001";

/// HTTP 503.
const ENGINE_NOT_READY: u16 = 503;

/// Why a swarm has no container.
#[derive(Debug, thiserror::Error)]
pub(super) enum EnterError {
    /// The document can't be met; trying again changes nothing before somebody acts.
    #[error("{0}")]
    Refused(String),
    /// Something that is needed is not there now.
    #[error("{0}")]
    NotYet(String),
    /// The engine can't be asked now.
    #[error("{0}")]
    Unreachable(String),
}

impl From<CallError> for EnterError {
    fn from(error: CallError) -> Self {
        match error {
            // It answers: it is there, and does not do it now.
            CallError::Refused { status, .. } if status != ENGINE_NOT_READY => Self::NotYet(error.to_string()),
            _ => Self::Unreachable(error.to_string()),
        }
    }
}

impl From<NetworkError> for EnterError {
    fn from(error: NetworkError) -> Self {
        match error {
            NetworkError::Foreign(_) => Self::Refused(error.to_string()),
            NetworkError::Call(error) => error.into(),
        }
    }
}

impl From<VolumeError> for EnterError {
    fn from(error: VolumeError) -> Self {
        match error {
            VolumeError::Call(error) => error.into(),
            VolumeError::Busy(_) => Self::Unreachable(error.to_string()),
            other => Self::Refused(other.to_string()),
        }
    }
}

impl From<CreateError> for EnterError {
    fn from(error: CreateError) -> Self {
        match error {
            // It answered: what it was asked for does not work there. 503 alone says that it is not ready to answer.
            CreateError::Call(error @ CallError::Refused { status, .. }) if status != ENGINE_NOT_READY => {
                Self::Refused(error.to_string())
            }
            CreateError::Call(error) => error.into(),
            // Somebody removed the volume in between; the next try makes it.
            CreateError::LauncherMissing(_) => Self::Unreachable(error.to_string()),
            other => Self::Refused(other.to_string()),
        }
    }
}

/// What a swarm asks of its container, as of now.
#[derive(Clone)]
pub(super) struct Wish {
    pub(super) spec: Arc<ContainerSpec>,
    /// The longest lease of its agents.
    pub(super) lease_max: Duration,
}

/// What has been seen of a container.
#[derive(Clone)]
struct Known {
    container: String,
    /// Where its commands work, once somebody has asked.
    workdir: Option<PathBuf>,
}

/// One swarm's place.
pub(super) struct Lodging {
    swarm: SwarmName,
    wish: parking_lot::Mutex<Wish>,
    launcher: Launcher,
    /// Its way into a container of others, where the document names one.
    sidecar: Sidecar,
    /// The container of ours that is as the document wants it, as far as nothing has spoken against it since that was looked at: a launch asks the engine
    /// nothing that it has said already.
    known: parking_lot::Mutex<Option<Known>>,
    /// Held while its container is looked for, made or removed: agents that start together need one.
    changing: Mutex<()>,
    /// What the engine gives that is other than the document asks, as far as it was told.
    adjustments: parking_lot::Mutex<Vec<String>>,
    /// Ended launches whose records still lie in the container; the next launch takes them away.
    forgotten: parking_lot::Mutex<BTreeSet<LaunchId>>,
    presence: parking_lot::Mutex<Presence>,
    freeze: Freeze,
    spares: Spares,
}

impl Lodging {
    pub(super) fn new(swarm: SwarmName, wish: Wish, launcher: Launcher) -> Self {
        Self {
            sidecar: Sidecar::new(swarm.clone(), launcher.clone()),
            swarm,
            wish: parking_lot::Mutex::new(wish),
            launcher,
            known: parking_lot::Mutex::default(),
            changing: Mutex::default(),
            adjustments: parking_lot::Mutex::default(),
            forgotten: parking_lot::Mutex::default(),
            presence: parking_lot::Mutex::default(),
            freeze: Freeze::default(),
            spares: Spares::default(),
        }
    }

    /// Whose it is.
    pub(super) fn swarm(&self) -> &SwarmName {
        &self.swarm
    }

    /// Which container the swarm is in, as far as it is known.
    pub(super) fn presence(&self) -> parking_lot::MutexGuard<'_, Presence> {
        self.presence.lock()
    }

    /// The launcher that is exec'd ahead.
    pub(super) fn spares(&self) -> &Spares {
        &self.spares
    }

    /// For people: what it lives in.
    pub(super) fn describe(&self) -> String {
        match &self.wish().spec.place {
            Place::Own { image } => format!("image {image}"),
            Place::Sidecar { container } => format!("container {container} of others"),
        }
    }

    /// Whether the swarm asks for a bridge of its own.
    pub(super) fn has_network(&self) -> bool {
        self.wish().spec.network == NetworkSpec::Swarm
    }

    /// Somebody goes in; until the visitor leaves, it is not frozen.
    pub(super) async fn visit(&self, engine: &Engine) -> Visitor {
        self.freeze.visit(engine).await
    }

    /// An agent is to stay stopped.
    pub(super) async fn lay_down(&self, launch_id: LaunchId) {
        self.freeze.lay_down(launch_id).await;
    }

    /// It is not. Returns whether that is news.
    pub(super) async fn rouse(&self, launch_id: LaunchId) -> bool {
        self.freeze.rouse(launch_id).await
    }

    /// Freezes it if everything that is `led` here is at rest, or thaws it. A container of others is never frozen.
    pub(super) async fn settle(&self, engine: &Engine, led: impl Fn() -> HashSet<LaunchId>) {
        if !matches!(self.wish().spec.place, Place::Own { .. }) {
            return;
        }
        let container = self.presence().container().map(str::to_owned);
        self.freeze.settle(engine, container.as_deref(), led).await;
    }

    /// Its document has changed; who lives in the present container lives on.
    pub(super) fn set_wish(&self, wish: Wish) {
        *self.wish.lock() = wish;
        *self.known.lock() = None;
        self.spares.discard();
    }

    /// What its document asks for now.
    pub(super) fn wish(&self) -> Wish {
        self.wish.lock().clone()
    }

    /// The door of the swarm's running container, made if there is none. One that was made by another plan is replaced when nobody else lives in it:
    /// `alone`. A container of others is never made or replaced: where it does not run, there is no door.
    pub(super) async fn enter(&self, engine: &Engine, alone: bool) -> Result<Door, EnterError> {
        if let Some(known) = self.known() {
            return Ok(own(known.container));
        }
        let _changing = self.changing.lock().await;
        // Whoever was here before has looked.
        if let Some(known) = self.known() {
            return Ok(own(known.container));
        }
        let wish = self.wish();
        let plan = match &wish.spec.place {
            Place::Sidecar { container } => {
                return self.sidecar.enter(engine, container, wish.spec.user.as_deref()).await;
            }
            Place::Own { image } => self.plan(engine, &wish, image).await?,
        };
        if let Some(living) = self.look(engine).await? {
            let wanted = living.plan.as_ref() == Some(&engine.plan_label(&plan));
            if wanted {
                self.know(&living.id);
            }
            if wanted || !alone {
                return Ok(own(living.id));
            }
            tracing::info!(swarm = %self.swarm, container = %short(&living.id), "a swarm's container is replaced: its document has changed");
            self.presence().left();
            engine.remove(&living.id).await.map_err(|error| EnterError::Unreachable(error.to_string()))?;
        }
        self.forgotten.lock().clear();
        if wish.spec.network == NetworkSpec::Swarm {
            engine.ensure_network(&self.swarm).await?;
        }
        let (exe, digest) = self.launcher.read().await.map_err(EnterError::Refused)?;
        engine.ensure_launcher_volume(&plan.image, exe, digest).await?;
        let created = match engine.create_swarm_container(&plan).await {
            Err(CreateError::NameTaken(_)) => {
                self.clear(engine).await?;
                engine.create_swarm_container(&plan).await?
            }
            made => made?,
        };
        for warning in &created.warnings {
            tracing::warn!(swarm = %self.swarm, warning, "the engine does less for a container than was asked");
        }
        tracing::info!(swarm = %self.swarm, container = %short(&created.id), image = %plan.image, "a swarm's container was made");
        self.know(&created.id);
        Ok(own(created.id))
    }

    /// Removes the swarm's container and its bridge, and what is ours in a container of others. To be called when nothing of the swarm lives any more.
    pub(super) async fn leave(&self, engine: &Engine) {
        let _changing = self.changing.lock().await;
        self.sidecar.leave(engine).await;
        let left = async {
            if let Some(living) = self.look(engine).await.map_err(|error| error.to_string())? {
                self.presence().left();
                engine.remove(&living.id).await.map_err(|error| error.to_string())?;
            }
            self.clear(engine).await.map_err(|error| error.to_string())?;
            if self.wish().spec.network == NetworkSpec::Swarm {
                engine.remove_network(&self.swarm).await.map_err(|error| error.to_string())?;
            }
            Ok::<_, String>(())
        };
        if let Err(error) = left.await {
            tracing::warn!(swarm = %self.swarm, error, "a swarm's container was not removed; it ends by itself when no lease is left");
        }
    }

    /// Removes what has the swarm's name and does not run: made by a daemon that died before it started it, or dead and not yet removed by the engine.
    async fn clear(&self, engine: &Engine) -> Result<(), EnterError> {
        let ours = engine.list_ours().await?;
        for dead in ours.iter().filter(|it| !it.running && it.swarm.as_ref() == Some(&self.swarm)) {
            engine.remove(&dead.id).await.map_err(|error| EnterError::Unreachable(error.to_string()))?;
        }
        Ok(())
    }

    /// The door of the container in which the swarm's agents run now, if one runs. `None` proves that nothing of the swarm runs there.
    pub(super) async fn find(&self, engine: &Engine) -> Result<Option<Door>, EnterError> {
        self.find_as(engine, &self.wish()).await
    }

    /// The same, as a document says that is perhaps none any more.
    pub(super) async fn find_as(&self, engine: &Engine, wish: &Wish) -> Result<Option<Door>, EnterError> {
        match &wish.spec.place {
            Place::Own { .. } => Ok(self.look(engine).await?.map(|living| own(living.id))),
            Place::Sidecar { container } => {
                let _changing = self.changing.lock().await;
                self.sidecar.find(engine, container, wish.spec.user.as_deref()).await
            }
        }
    }

    /// The same, if the container is as the document wants it.
    pub(super) async fn current(&self, engine: &Engine) -> Result<Option<Door>, EnterError> {
        let wish = self.wish();
        let Place::Own { image } = &wish.spec.place else { return self.find(engine).await };
        if let Some(known) = self.known() {
            return Ok(Some(own(known.container)));
        }
        let plan = engine.plan_label(&self.plan(engine, &wish, image).await?);
        let living = self.look(engine).await?.filter(|living| living.plan.as_ref() == Some(&plan));
        Ok(living.map(|living| own(living.id)))
    }

    /// Whether the container behind a door still runs, and has all the time since, whatever the document names by now. What was behind it is dead
    /// otherwise.
    pub(super) async fn is_open(&self, engine: &Engine, door: &Door) -> Result<bool, EnterError> {
        match door.started_at {
            Some(_) => self.sidecar.is_open(engine, door).await,
            None => Ok(self.look(engine).await?.is_some_and(|living| living.id == door.container)),
        }
    }

    /// The same, once something has been started behind it: only a container of others could have been started again meanwhile.
    pub(super) async fn is_still_open(&self, engine: &Engine, door: &Door) -> Result<bool, EnterError> {
        if door.started_at.is_none() { Ok(true) } else { self.is_open(engine, door).await }
    }

    /// Behind this door was no launcher. Returns whether entering again may help: it may have ended, or somebody have cleaned up in his own container.
    pub(super) fn doubt(&self, door: &Door) -> bool {
        let known = self.known.lock().take_if(|known| known.container == door.container);
        self.sidecar.doubt(door) || known.is_some()
    }

    fn know(&self, container: &str) {
        *self.known.lock() = Some(Known { container: container.to_owned(), workdir: None });
    }

    /// What is known, of the container that the swarm is in.
    fn known(&self) -> Option<Known> {
        let known = self.known.lock().clone()?;
        self.presence().is_in(&known.container).then_some(known)
    }

    async fn look(&self, engine: &Engine) -> Result<Option<Listed>, CallError> {
        let ours = engine.list_ours().await?;
        let living = ours.into_iter().find(|it| it.running && it.swarm.as_ref() == Some(&self.swarm));
        let Some(living) = living else { return Ok(None) };
        if living.paused {
            // Whoever froze it, a frozen container can't be entered; what its agents are to be is settled one by one.
            match engine.unpause(&living.id).await {
                // Somebody else was quicker, or it ended: the next step finds out.
                Ok(()) | Err(ContainerError::WrongState(_) | ContainerError::Missing) => {}
                Err(error) => return Err(CallError::Unreachable(error.to_string().into())),
            }
        }
        Ok(Some(living))
    }

    async fn plan(&self, engine: &Engine, wish: &Wish, image: &str) -> Result<ContainerPlan, EnterError> {
        let Wish { spec, lease_max } = wish;
        let user = match &spec.user {
            Some(user) => user.clone(),
            None => {
                let found = engine.image(image).await?;
                let found = found.ok_or_else(|| {
                    EnterError::Refused(format!(
                        "no such image: {image}; images are never pulled, `docker pull {image}` does it"
                    ))
                })?;
                if is_root(&found.user) { USER_DEFAULT.to_owned() } else { found.user }
            }
        };
        let network = match &spec.network {
            NetworkSpec::None => Network::None,
            NetworkSpec::Swarm => Network::Named(resource_name(engine.owner().hive_id, &self.swarm)),
            NetworkSpec::Named(name) => Network::Named(name.clone()),
        };
        let (_, digest) = self.launcher.read().await.map_err(EnterError::Refused)?;
        let launcher = LauncherVolume::of(digest)?;
        let mounts = own::mounts(engine, &spec.mounts)?;
        let (limits, _) = own::limits(engine, spec.limits).await?;
        Ok(ContainerPlan {
            name: resource_name(engine.owner().hive_id, &self.swarm),
            swarm: self.swarm.clone(),
            image: image.to_owned(),
            entrypoint: hold_command(*lease_max + HOLD_MARGIN),
            user,
            workdir: spec.workdir.clone(),
            env: BTreeMap::new(),
            limits,
            network,
            read_only_root: spec.read_only_root,
            tmpfs: spec.tmpfs.iter().map(PathBuf::from).collect(),
            cap_add: spec.cap_add.clone(),
            mounts,
            launcher,
        })
    }

    /// What of its document the engine can't give and what it gives instead, when that is other than it was.
    pub(super) async fn adjusted(&self, engine: &Engine) -> Option<Vec<String>> {
        // An engine that can't be asked now is asked again when the swarm is entered next.
        let (_, adjustments) = own::limits(engine, self.wish().spec.limits).await.ok()?;
        let mut known = self.adjustments.lock();
        if *known == adjustments {
            return None;
        }
        for adjustment in &adjustments {
            tracing::warn!(swarm = %self.swarm, adjustment, "the engine can't give a swarm what its document asks");
        }
        known.clone_from(&adjustments);
        Some(adjustments)
    }

    /// Where its agents work when no document says so: what the container was made with.
    pub(super) async fn workdir(&self, engine: &Engine, door: &Door) -> Result<PathBuf, EnterError> {
        if let Some(workdir) = &self.wish().spec.workdir {
            return Ok(workdir.clone());
        }
        if let Some(workdir) = self.known().filter(|known| known.container == door.container).and_then(|it| it.workdir)
        {
            return Ok(workdir);
        }
        let state =
            engine.inspect(&door.container).await.map_err(|error| EnterError::Unreachable(error.to_string()))?;
        let workdir = PathBuf::from(if state.working_dir.is_empty() { "/" } else { &state.working_dir });
        if let Some(known) = self.known.lock().as_mut().filter(|known| known.container == door.container) {
            known.workdir = Some(workdir.clone());
        }
        Ok(workdir)
    }

    /// Ended launches that the next launch takes away.
    pub(super) fn forgotten(&self) -> Vec<LaunchId> {
        self.forgotten.lock().iter().copied().collect()
    }

    pub(super) fn is_forgotten(&self, launch_id: LaunchId) -> bool {
        self.forgotten.lock().contains(&launch_id)
    }

    pub(super) fn forget(&self, launch_id: LaunchId) {
        self.forgotten.lock().insert(launch_id);
    }

    /// Their records have been removed.
    pub(super) fn taken_away(&self, gone: &[LaunchId]) {
        let mut forgotten = self.forgotten.lock();
        for launch_id in gone {
            forgotten.remove(launch_id);
        }
    }
}

/// The door of a container that we made: the launcher's volume is mounted, and the run directory is there.
fn own(container: String) -> Door {
    let (launcher, run_dir) = (LAUNCHER_PATH.to_owned(), RUN_DIR.to_owned());
    Door { container, launcher, run_dir, user: None, started_at: None }
}

fn is_root(user: &str) -> bool {
    matches!(user.split(':').next(), None | Some("" | "0" | "root"))
}

/// An id as people know it.
pub(super) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
