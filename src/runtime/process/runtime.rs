//! Starting launchers, taking them over, and the list of those that are led here.

use std::{
    collections::HashSet,
    error::Error as _,
    fs::File,
    io::{self, ErrorKind},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::{
    net::UnixStream,
    runtime::Handle,
    sync::{Semaphore, oneshot, watch},
    task::{JoinSet, spawn_blocking},
    time::timeout,
};

use super::{
    files::RunDir,
    launcher::{Started, Starter},
    spare::{self, Spares},
    strays,
};
use crate::{
    model::{AgentId, Epoch, LaunchId, RelaySink, RuntimeKind, SwarmName},
    runtime::{
        BoxFuture, Capabilities, LaunchError, LaunchOrder, Launched, RecoverError, Recovered, Runtime,
        lead::{self, ANSWER_DEADLINE, Attached, Carrier, Drive, Found, LINGER, Link, LinkError},
        orphans::{Leader, Tree, sweep},
    },
    wire::channel::{Attach, Exit, ToLauncher, encode},
};

/// Time for one sweep: SIGKILL takes effect in milliseconds unless a process hangs in the kernel.
const SWEEP_DEADLINE: Duration = Duration::from_secs(5);
/// Launchers that are being started at once: enough to fill the cores, few enough to leave renewals their turn.
const LAUNCHES_AT_ONCE: usize = 16;

/// How long what is kept of a launch waits for the launcher's end: it is killed after half of that.
const GONE_WAIT: Duration = Duration::from_secs(2 * LINGER.as_secs());

/// How the runtime is set up.
#[derive(Clone)]
pub struct ProcessOptions {
    /// The `hivekeeper` executable. Opened once, so that launches go on with the same program when the file is replaced or removed.
    pub exe: PathBuf,
    /// `DATA_DIR/run`; made, mode 0700.
    pub run_dir: PathBuf,
    /// The fencing token of this daemon.
    pub epoch: Epoch,
    /// What agents inherit; see [`inherited_env`]. Variables that begin with `HIVEKEEPER_` are left out.
    pub env: Vec<(String, String)>,
    /// Output that a launcher keeps until it is acknowledged. It is the launcher's memory: at 256 KiB a thousand agents may hold 256 MiB of it, but
    /// only while no daemon takes their output.
    pub ring_bytes: u32,
    /// Soft and hard limit of open files that launchers and agents get; `None` leaves them the daemon's own.
    pub open_files: Option<(u64, u64)>,
    /// Takes the connections that agents open to their loopback ports.
    pub relay: Arc<dyn RelaySink>,
    /// Where the tasks of the launches run: not where agents' actors do, so that none of those can delay a renewal.
    pub tasks: Handle,
}

/// What a service manager gives its service alone: with it an agent could speak for the daemon.
const OF_THE_MANAGER: [&str; 7] =
    ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "JOURNAL_STREAM"];

/// The daemon's environment as agents may inherit it. Variables that are not UTF-8 are left out.
pub fn inherited_env() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(key, _)| !key.starts_with(lead::RESERVED) && !OF_THE_MANAGER.contains(&key.as_str()))
        .collect()
}

/// Why there is no runtime.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The executable can't be opened.
    #[error("failed to open the executable {}", path.display())]
    Exe {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The run directory can't be made or used.
    #[error("failed to open the run directory {}", path.display())]
    RunDir {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Runs agents as child processes of launchers. Dropping it leaves every agent to its lease.
pub struct ProcessRuntime {
    core: Arc<Core>,
    handle: Handle,
    tasks: Mutex<JoinSet<()>>,
}

/// What the tasks of all launches share.
pub(super) struct Core {
    epoch: Epoch,
    pub(super) dir: RunDir,
    relay: Arc<dyn RelaySink>,
    live: watch::Sender<HashSet<LaunchId>>,
    pub(super) starter: Starter,
    pub(super) spares: Spares,
    env: Vec<(String, String)>,
    ring_bytes: u32,
    starting: Semaphore,
}

/// Keeps a launch on the list of those that are led here.
pub(super) struct Live {
    core: Arc<Core>,
    launch_id: LaunchId,
}

impl Live {
    fn new(core: &Arc<Core>, launch_id: LaunchId) -> Self {
        core.live.send_modify(|live| _ = live.insert(launch_id));
        Self { core: Arc::clone(core), launch_id }
    }

    async fn during(self, led: impl Future<Output = ()>) {
        led.await;
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.core.live.send_modify(|live| _ = live.remove(&self.launch_id));
    }
}

impl ProcessRuntime {
    /// Opens the executable and the run directory.
    ///
    /// # Errors
    /// Which of them can't be opened.
    pub fn new(options: ProcessOptions) -> Result<Self, ProcessError> {
        let ProcessOptions { exe, run_dir, epoch, env, ring_bytes, open_files, relay, tasks } = options;
        let exe = File::open(&exe).map_err(|source| ProcessError::Exe { path: exe, source })?;
        let dir = RunDir::open(&run_dir).map_err(|source| ProcessError::RunDir { path: run_dir, source })?;
        let core = Arc::new(Core {
            epoch,
            dir,
            relay,
            live: watch::Sender::default(),
            starter: Starter { exe, open_files, left: Arc::default() },
            spares: Spares::default(),
            env,
            ring_bytes,
            starting: Semaphore::new(LAUNCHES_AT_ONCE),
        });
        let runtime = Self { core, handle: tasks, tasks: Mutex::new(JoinSet::new()) };
        runtime.spawn(spare::keep(Arc::clone(&runtime.core)));
        Ok(runtime)
    }

    /// Waits until every task has ended: each agent ended and its launcher reaped, or detached. Returns how many had not at the deadline;
    /// those agents are left to their leases. No launcher is started ahead any more.
    pub async fn finish(&self, deadline: Duration) -> usize {
        self.core.spares.close();
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        let ended = async { while tasks.join_next().await.is_some() {} };
        let _ = timeout(deadline, ended).await;
        tasks.len()
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn_on(task, &self.handle);
    }
}

impl Core {
    /// Whether a launch is led from here.
    pub(super) fn leads(&self, launch_id: LaunchId) -> bool {
        self.live.borrow().contains(&launch_id)
    }

    /// Waits until nobody leads a launch from here any more, so that its launcher writes no record behind our back.
    async fn gone(&self, launch_id: LaunchId) {
        let mut live = self.live.subscribe();
        let gone = live.wait_for(|live| !live.contains(&launch_id));
        if timeout(GONE_WAIT, gone).await.is_err() {
            tracing::warn!(%launch_id, "an ended launch is still led; its files go all the same");
        }
    }

    /// By the spare, if the order is for it, else by a launcher of its own.
    async fn start(&self, order: &LaunchOrder) -> Result<Started, LaunchError> {
        let started = self.try_start(order).await;
        self.spares.replace();
        started
    }

    async fn try_start(&self, order: &LaunchOrder) -> Result<Started, LaunchError> {
        let spare = self.spares.take(order.launch_id);
        let frame = match self.frame(order) {
            Ok(frame) => frame,
            Err(why) => {
                if let Some(spare) = spare {
                    spare.end().await;
                }
                return Err(LaunchError::Refused(why));
            }
        };
        if let Some(spare) = spare {
            match spare.order(&frame).await {
                Ok(started) => return Ok(started),
                Err(failed) => {
                    let (spare, error) = *failed;
                    tracing::debug!(launch_id = %order.launch_id, %error, "the spare launcher is of no use");
                    let ended = spare.end().await;
                    if !ended.seen {
                        return Err(LaunchError::Launcher(ended.with(&error)));
                    }
                }
            }
        }
        let _turn = self.starting.acquire().await.map_err(|e| LaunchError::Unreachable(e.to_string()))?;
        let launcher = self.starter.start(order.launch_id).await?;
        match launcher.order(&frame).await {
            Ok(started) => Ok(started),
            Err(failed) => {
                let (launcher, error) = *failed;
                Err(LaunchError::Launcher(launcher.end().await.with(&error)))
            }
        }
    }

    fn frame(&self, order: &LaunchOrder) -> Result<Vec<u8>, String> {
        let run_dir = self.dir.path().to_str().ok_or("run directory is no UTF-8")?;
        let launch = lead::launch(order, None, &self.env, self.epoch, run_dir, self.ring_bytes)?;
        let mut frame = Vec::new();
        encode(&ToLauncher::Launch(Box::new(launch)), &mut frame).map_err(|error| error.to_string())?;
        Ok(frame)
    }

    /// A launch that is led from here from now on.
    fn led(
        self: Arc<Self>,
        launch_id: LaunchId,
        agent: AgentId,
        incarnation: u64,
        lease: Duration,
        seen: u64,
    ) -> (Live, Drive, Launched) {
        self.spares.want();
        let live = Live::new(&self, launch_id);
        let (drive, launched) = Drive::new(self, launch_id, agent, incarnation, lease, seen);
        (live, drive, launched)
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
            let present = async {
                match UnixStream::connect(self.dir.socket(launch_id)).await {
                    Ok(stream) => {
                        let (read, write) = stream.into_split();
                        Link::new(Box::new(read), Box::new(write)).present(attach).await
                    }
                    Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
                        Ok(Attached::Nobody)
                    }
                    Err(error) => Err(error.into()),
                }
            };
            timeout(ANSWER_DEADLINE, present).await.unwrap_or(Err(LinkError::Silent))
        })
    }

    fn record(&self, launch_id: LaunchId) -> BoxFuture<'_, Option<Exit>> {
        Box::pin(async move { self.dir.record(launch_id) })
    }

    fn leader(&self, pid: u32) -> Option<Leader> {
        Leader::of(pid)
    }

    fn sweep(&self, tree: Tree) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let launch_id = tree.launch_id.clone();
            let swept = spawn_blocking(move || sweep(&tree, SWEEP_DEADLINE));
            let killed = swept.await.map_err(|error| error.to_string())?.map_err(|error| match error.source() {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            })?;
            tracing::debug!(launch_id, killed, "swept what was left of a launch");
            Ok(())
        })
    }
}

/// What the tasks of a runtime answer when it is gone.
const SHUT: &str = "runtime is shut down";
impl Runtime for ProcessRuntime {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Process
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { pause: true, limits: false, isolation: false, oom: false, recover: true }
    }

    fn reserve(&self, _: &SwarmName) -> LaunchId {
        self.core.spares.reserve()
    }

    fn launch(&self, order: LaunchOrder) -> BoxFuture<'_, Result<Launched, LaunchError>> {
        Box::pin(async move {
            let mut starting = Box::pin({
                let core = Arc::clone(&self.core);
                let order = order.clone();
                async move { core.start(&order).await }
            });
            // As far as it goes without waiting, here: a spare takes its order at once. Whatever it registers belongs to our own runtime.
            let begun = {
                let _there = self.handle.enter();
                (&mut starting).now_or_never()
            };
            let LaunchOrder { launch_id, agent, incarnation, lease, .. } = order;
            let led = {
                let core = Arc::clone(&self.core);
                move || core.led(launch_id, agent, incarnation, lease, 0)
            };
            if let Some(begun) = begun {
                let started = begun?;
                let (live, drive, launched) = led();
                self.spawn(live.during(started.lead(drive, launch_id)));
                return Ok(launched);
            }
            let (answer, answered) = oneshot::channel();
            self.spawn(async move {
                let started = match starting.await {
                    Ok(started) => started,
                    Err(error) => return drop(answer.send(Err(error))),
                };
                let (live, drive, launched) = led();
                // Whoever asked may have gone; the reins are then dropped, which kills what has just been launched.
                drop(answer.send(Ok(launched)));
                live.during(started.lead(drive, launch_id)).await;
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
            let core = Arc::clone(&self.core);
            let (answer, answered) = oneshot::channel();
            self.spawn(async move {
                let (link, state) = match lead::find(&*core, launch_id, &agent, incarnation, last_seq).await {
                    Ok(Found::Running(link, state)) => (link, state),
                    Ok(Found::Exited { record, lost }) => {
                        return drop(answer.send(Ok(Recovered::Exited { record, lost })));
                    }
                    Ok(Found::Lost) => {
                        // Its socket, should there be one.
                        drop(spawn_blocking(move || core.dir.forget(launch_id)).await);
                        return drop(answer.send(Ok(Recovered::Lost)));
                    }
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
        self.spawn(async move { drop(answer.send(strays::find(core, known, remove).await)) });
        Box::pin(async move { answered.await.unwrap_or_default() })
    }

    fn forget(&self, launch_id: LaunchId) -> BoxFuture<'_, ()> {
        let core = Arc::clone(&self.core);
        Box::pin(async move {
            match core.spares.take(launch_id) {
                Some(spare) => {
                    spare.end().await;
                    core.spares.replace();
                }
                None => {
                    core.gone(launch_id).await;
                    drop(spawn_blocking(move || core.dir.forget(launch_id)).await);
                }
            }
        })
    }
}
