//! An engine, our runtime on it, and nothing left in it afterwards.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use bollard::{
    API_DEFAULT_VERSION, Docker,
    query_parameters::{ListContainersOptionsBuilder, RemoveContainerOptionsBuilder, RemoveVolumeOptions},
};
use hivekeeper::{
    model::{AgentId, ContainerSpec, EngineNews, EngineWitness, Epoch, HiveId, LaunchId, Limits, Mount, Place},
    runtime::{
        AgentEvent, LaunchOrder, Launched, Runtime,
        docker::{
            DockerOptions, DockerRuntime, Launcher,
            engine::{Engine, LauncherVolume, Owner, label},
        },
    },
};
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, mpsc};

use super::{relay::Echo, tasks::TASK};
use crate::support::{
    agent::{self, Ear, Sign},
    clock, figures,
    hive::Hive,
};

/// Any image that runs a static executable would do; this one people have.
pub const IMAGE: &str = "debian:bookworm-slim";
/// Where the mounted directory is in the containers.
pub const INSIDE: &str = "/hkb";
/// The agent there.
pub const AGENT: &str = "/hkb/agent";
/// How long any one thing may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The defaults of a swarm's document, so that the daemon's containers and ours are the same.
const LIMITS: Limits = Limits { memory: Some(2 << 30), cpus: Some(1.5), pids: Some(256) };
/// Longer than any lane waits for its turn: our containers outlive it, and a benchmark that was killed leaves none for much longer.
const LEASE: Duration = Duration::from_secs(60);
/// The default of the configuration.
const RING_BYTES: u32 = 1 << 20;
/// Signs that wait to be read: more than any part has agents and round trips.
const SIGNS_MAX: usize = 16 * 1024;
/// Between two looks of the thread that hears signs at whether it is still wanted.
const HEAR: Duration = Duration::from_millis(200);
/// Taking everything away again.
const CLEAN_WAIT: Duration = Duration::from_secs(60);

/// The engine with a hive of this benchmark's own. Dropping it, also in a panic, removes every container that carries the hive's name, and the
/// launcher's volume if it was not there before.
pub struct Stage {
    /// Bollard by hand.
    pub docker: Docker,
    pub engine: Engine,
    pub runtime: DockerRuntime,
    signs: Mutex<mpsc::Receiver<Sign>>,
    _hearing: Hearing,
    /// The hive's.
    name: String,
    /// The ear's, as agents find it.
    socket: PathBuf,
    _remains: Remains,
    dir: tempfile::TempDir,
}

impl Stage {
    /// `None` once it has been said that there is no engine to measure on.
    pub async fn open() -> anyhow::Result<Option<Self>> {
        let host = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned());
        let name = format!("bench-{}", std::process::id());
        let owner = Owner { hive_id: HiveId::mint(), hive: name.clone() };
        let engine = match Engine::connect(Some(&host), owner.clone()).await {
            Ok(engine) => engine,
            Err(error) => {
                println!("skipped: no container engine answers at {host}: {error}");
                return Ok(None);
            }
        };
        if engine.image(IMAGE).await?.is_none() {
            println!(
                "skipped: the engine at {host} has no image {IMAGE}; `docker pull` or tests/images/make brings it"
            );
            return Ok(None);
        }
        let Some(path) = host.strip_prefix("unix://").map(str::to_owned) else {
            println!("skipped: an engine at {host} may be on another machine, whose clock and processes are not ours");
            return Ok(None);
        };
        let dir = figures::scratch()?;
        let shared = dir.path().join("shared");
        fs::create_dir(&shared)?;
        fs::copy(agent::program()?, shared.join("agent"))?;
        let ear = Ear::open_for(&shared, Path::new(INSIDE))?;
        let socket = ear.path().to_owned();
        let (hearing, signs) = Hearing::begin(ear);
        let docker = connect(&path).await?;
        let exe = PathBuf::from(env!("CARGO_BIN_EXE_hivekeeper"));
        let volume = own_volume(&docker, &exe).await?;
        let runtime = DockerRuntime::new(DockerOptions {
            host: Some(host),
            owner,
            exe: Launcher::open(&exe)?,
            epoch: Epoch(1),
            ring_bytes: RING_BYTES,
            relay: Arc::new(Echo),
            witness: Arc::new(Nobody),
            // Nobody reconciles here.
            orphan_grace: std::time::Duration::MAX,
            tasks: tokio::runtime::Handle::current(),
        });
        let remains = Remains { socket: path, hive: name.clone(), volume };
        let signs = Mutex::new(signs);
        Ok(Some(Self { docker, engine, runtime, signs, _hearing: hearing, name, socket, dir, _remains: remains }))
    }

    /// Scratch directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A swarm of our runtime, ready to be launched into: its container is made.
    pub async fn declare(&self, swarm: &str) -> anyhow::Result<Swarm<'_>> {
        let mount = Mount { source: self.dir().join("shared"), target: INSIDE.into(), read_only: true };
        let spec = ContainerSpec {
            place: Place::Own { image: IMAGE.to_owned() },
            limits: LIMITS,
            read_only_root: true,
            tmpfs: vec!["/tmp".to_owned()],
            mounts: vec![mount],
            ..ContainerSpec::sidecar(String::new())
        };
        let name = swarm.parse()?;
        self.runtime.declare(&name, Arc::new(spec), LEASE);
        let mut swarm = Swarm { stage: self, name: swarm.to_owned(), container: String::new() };
        let first = swarm.launch("first", &[]).await?;
        self.sign("first", Duration::ZERO).await?;
        first.end().await?;
        let ours = self.engine.list_ours().await?;
        let found = ours.into_iter().find(|it| it.running && it.swarm.as_ref() == Some(&name));
        swarm.container = found.context("the swarm has no container")?.id;
        Ok(swarm)
    }

    /// The whole daemon with these swarms, each of one kind of agent: name and replicas.
    pub async fn daemon(&self, dir: &str, swarms: &[(&str, usize)]) -> anyhow::Result<Hive> {
        use std::fmt::Write;
        let dir = self.dir().join(dir);
        fs::create_dir(&dir)?;
        let mut text = Hive::AT_ONCE.to_owned();
        for (swarm, replicas) in swarms {
            let env = self.env(swarm).into_iter().map(|(key, value)| format!("{key} = {value:?}"));
            writeln!(
                text,
                "[[swarm]]\nname = \"{swarm}\"\nimage = \"{IMAGE}\"\nenv = {{ {} }}\n\
                 mounts = [{{ source = {:?}, target = \"{INSIDE}\" }}]\n\
                 [[swarm.agent]]\nname = \"agent\"\nreplicas = {replicas}\ncommand = [\"{AGENT}\"]",
                env.collect::<Vec<_>>().join(", "),
                self.dir().join("shared"),
            )?;
        }
        Hive::start_as(&self.name, &dir, &text)
    }

    /// What makes the agent announce itself by this name.
    pub fn env(&self, name: &str) -> BTreeMap<String, String> {
        agent::env(&self.socket, &self.full(name))
    }

    /// No other benchmark has an agent of this name.
    fn full(&self, name: &str) -> String {
        format!("{}-{name}", self.name)
    }

    /// The labels by which the end of all this finds a container.
    pub fn labels(&self) -> HashMap<String, String> {
        [(label::HIVE.to_owned(), self.name.clone())].into()
    }

    /// The first sign of this name that was given after a time: signs of before are nobody's any more.
    pub async fn sign(&self, name: &str, after: Duration) -> anyhow::Result<Sign> {
        let sign = self.signs(&[name], 1, after).await?.pop();
        sign.with_context(|| format!("no sign of {name}"))
    }

    /// So many signs of these names.
    pub async fn signs(&self, names: &[&str], count: usize, after: Duration) -> anyhow::Result<Vec<Sign>> {
        let names: Vec<String> = names.iter().map(|name| self.full(name)).collect();
        let mut heard = Vec::with_capacity(count);
        let mut signs = self.signs.lock().await;
        let hear = async {
            while heard.len() < count {
                let sign = signs.recv().await.context("nobody listens any more")?;
                if sign.at >= after && names.contains(&sign.name) {
                    heard.push(sign);
                }
            }
            anyhow::Ok(())
        };
        let all = tokio::time::timeout(PATIENCE, hear).await;
        all.map_err(|_| anyhow::anyhow!("not {count} signs of {names:?} within {PATIENCE:?}"))??;
        Ok(heard)
    }

    /// The process of an agent, by its id on this machine.
    pub async fn pid(&self, name: &str) -> anyhow::Result<i32> {
        self.pids(name).pop().with_context(|| format!("{name} does not live"))
    }

    /// The same of all agents of this name.
    pub fn pids(&self, name: &str) -> Vec<i32> {
        agent::named(&self.full(name))
    }

    /// Ends what is left in an orderly way.
    pub async fn close(self) -> anyhow::Result<()> {
        let left = self.runtime.finish(PATIENCE).await;
        self.runtime.leave(PATIENCE).await;
        ensure!(left == 0, "{left} launches have not ended");
        Ok(())
    }
}

/// A swarm in a container of our runtime.
pub struct Swarm<'s> {
    stage: &'s Stage,
    name: String,
    /// Its id.
    pub container: String,
}

impl Swarm<'_> {
    /// Launches an agent through our runtime, which announces itself by its name.
    pub async fn launch(&self, agent: &str, more: &[(&str, &str)]) -> anyhow::Result<Ours<'_>> {
        let mut env = self.stage.env(agent);
        env.extend(more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        let launch_id = LaunchId::mint();
        let order = LaunchOrder {
            launch_id,
            agent: AgentId { swarm: self.name.parse()?, name: agent.parse()? },
            incarnation: 1,
            argv: vec![AGENT.to_owned()],
            env,
            workdir: None,
            token: "bench".to_owned(),
            lease: LEASE,
            grace: Duration::from_secs(1),
            sample_interval: Duration::from_secs(5),
        };
        let launched = self.stage.runtime.launch(order).await?;
        Ok(Ours { stage: self.stage, launch_id, launched })
    }

    /// The same by hand in the same container.
    pub async fn bare(&self, agent: &str, task: Option<&str>) -> anyhow::Result<super::bare::Running> {
        let mut env = self.stage.env(agent);
        env.extend(task.map(|task| (TASK.to_owned(), task.to_owned())));
        super::bare::exec(&self.stage.docker, &self.container, &[AGENT], &env).await
    }
}

/// An agent of our runtime.
pub struct Ours<'s> {
    stage: &'s Stage,
    launch_id: LaunchId,
    launched: Launched,
}

impl Ours<'_> {
    /// Kills it and waits for the proof of its end.
    pub async fn end(self) -> anyhow::Result<()> {
        self.launched.control.kill();
        self.ended().await.map(drop)
    }

    /// Waits for the proof of its end, and says when it came.
    pub async fn ended(mut self) -> anyhow::Result<Duration> {
        let ended = async {
            loop {
                match self.launched.events.recv().await {
                    Some(AgentEvent::Exited(_)) => return Ok(clock::now()),
                    Some(_) => {}
                    None => bail!("the events ended without an exit"),
                }
            }
        };
        let at = tokio::time::timeout(PATIENCE, ended).await.context("no proof of an end")??;
        self.stage.runtime.forget(self.launch_id).await;
        Ok(at)
    }
}

/// What becomes of the engine shows in the lanes.
struct Nobody;

impl EngineWitness for Nobody {
    fn heard(&self, _: EngineNews) {}
}

/// A thread that hears signs.
struct Hearing {
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Hearing {
    fn begin(ear: Ear) -> (Self, mpsc::Receiver<Sign>) {
        let (heard, signs) = mpsc::channel(SIGNS_MAX);
        let ending = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let ending = Arc::clone(&ending);
            move || {
                while !ending.load(Ordering::SeqCst) {
                    match ear.hear(HEAR) {
                        // A full channel is one that nobody reads.
                        Ok(Some(sign)) => drop(heard.try_send(sign)),
                        Ok(None) => {}
                        // Whoever waits for a sign is told that nobody listens.
                        Err(_) => return,
                    }
                }
            }
        });
        (Self { ending, thread: Some(thread) }, signs)
    }
}

impl Drop for Hearing {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What is to be removed at the end, also in a panic.
struct Remains {
    socket: String,
    hive: String,
    /// The launcher's, if it is ours alone.
    volume: Option<String>,
}

impl Drop for Remains {
    fn drop(&mut self) {
        let (socket, hive, volume) = (self.socket.clone(), self.hive.clone(), self.volume.take());
        // A thread and runtime of its own: this one may be unwinding.
        let cleaned = std::thread::spawn(move || -> anyhow::Result<()> {
            let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            tokio.block_on(async { tokio::time::timeout(CLEAN_WAIT, clean(&socket, &hive, volume.as_deref())).await? })
        });
        match cleaned.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => eprintln!("something of hive {} was left in the engine: {error:#}", self.hive),
            Err(_) => eprintln!("something of hive {} was left in the engine", self.hive),
        }
    }
}

async fn clean(socket: &str, hive: &str, volume: Option<&str>) -> anyhow::Result<()> {
    let docker = connect(socket).await?;
    let list = || async {
        let filters = HashMap::from([("label", vec![format!("{}={hive}", label::HIVE)])]);
        docker.list_containers(Some(ListContainersOptionsBuilder::default().all(true).filters(&filters).build())).await
    };
    // A container that removes itself is in the list until it has done so.
    let mut tries = 0;
    loop {
        let found = list().await?;
        if found.is_empty() {
            break;
        }
        for id in found.into_iter().filter_map(|found| found.id) {
            let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
            // Whether it went shows in the next list.
            let _ = docker.remove_container(&id, Some(options)).await;
        }
        tries += 1;
        ensure!(tries < 50, "containers do not go away");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    if let Some(volume) = volume {
        // One that another hive has begun to use stays.
        let _ = docker.remove_volume(volume, None::<RemoveVolumeOptions>).await;
    }
    Ok(())
}

async fn connect(socket: &str) -> anyhow::Result<Docker> {
    let docker = Docker::connect_with_unix(socket, 120, API_DEFAULT_VERSION)?;
    Ok(docker.negotiate_version().await?)
}

/// The name of the volume that this executable will be in, if the engine does not have it yet.
async fn own_volume(docker: &Docker, exe: &Path) -> anyhow::Result<Option<String>> {
    let digest: String = Sha256::digest(fs::read(exe)?).iter().map(|byte| format!("{byte:02x}")).collect();
    let name = LauncherVolume::of(&digest)?.name().to_owned();
    let there = docker.inspect_volume(&name).await.is_ok();
    Ok((!there).then_some(name))
}
