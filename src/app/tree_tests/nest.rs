//! A whole tree on temporary ground, with a scripted runtime and a journal that can fail.

use std::{
    collections::BTreeMap,
    future::Future,
    net::TcpListener,
    num::NonZeroU32,
    sync::Arc,
    task::{Context, Wake, Waker},
    time::{Duration, Instant, SystemTime},
};

use hivekeeper_actors::{ChildRef, ExitReason, SupervisorRef, TreeNode};
use parking_lot::RwLock;
use tokio::task::JoinHandle;

use super::super::{
    super::{boot, measures::Measures, news::News, sinks, work},
    Coordination, Follower, Parts, Sockets, Trunk, chronicle, controller, coordination, data_plane, follower,
    historian, http, monitor, sources, steward, swarms, warden,
};
use crate::{
    config::HttpConfig,
    control_plane::{
        Check, Chronicle, Control, Controller, Historian, History, HistoryOptions, Keyring, Office, OfficeDeps,
        chronicle::{Scribe, Standings},
        recover,
    },
    coordination::Desk,
    data_plane::{DataPlane, DataPlaneHandle, PlaneLimits},
    events::Feed,
    health,
    http::Server,
    model::{
        AgentHealth, AgentId, AgentSpec, AgentState, Backoff, EventKind, Home, OnExceeded, OnStuck, Origin, Ready,
        RestartType, SecretRights, Seq, Strategy, SwarmSpec,
    },
    runtime::{
        AgentDeps, Registry, Runtimes, Secrets,
        docker::{DockerOptions, DockerRuntime, Launcher, engine::Owner},
        fake::FakeRuntime,
    },
    store::{
        DataDir, DiskBudget, DiskLimits, Journal, LogBook, LogLimits, Options, Retention, SqliteJournal,
        failing::FailingJournal, work_memory::MemoryWork,
    },
    stream::{Hub, StreamLimits, Warden},
    tools::Tools,
};

/// Far above what anything takes on a loaded machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a case inside an actix system.
pub(super) fn run(case: impl Future<Output = ()>) {
    actix::System::new().block_on(case);
}

/// Looks until there is something.
pub(super) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The node of this name.
pub(super) fn child(nodes: &[TreeNode], name: &str) -> TreeNode {
    nodes.iter().find(|node| node.id.as_str() == name).unwrap_or_else(|| panic!("no {name} in {nodes:?}")).clone()
}

/// The tree tells of the panic: its text and its file.
pub(super) fn fell_by_panic(node: &TreeNode, said: &str) {
    let exit = node.last_exit.as_ref().unwrap();
    let ExitReason::Panic { text, location } = &exit.reason else { panic!("{}: {exit:?}", node.id) };
    assert!(text.contains(said), "{text}");
    assert!(location.contains("tree_tests"), "{location}");
}

/// Whoever asks a supervisor is woken by it, and a waker may do anything: this one panics inside the supervisor.
struct Bomb(&'static str);

impl Wake for Bomb {
    fn wake(self: Arc<Self>) {
        panic!("{}", self.0);
    }
}

/// Makes a supervisor panic, as a bug in it would.
pub(super) async fn panic_in(supervisor: &SupervisorRef, text: &'static str) {
    let waker = Waker::from(Arc::new(Bomb(text)));
    let mut asked = Box::pin(supervisor.snapshot());
    assert!(asked.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    // Kept until the supervisor has had its turn on this thread: who has gone is not woken.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

pub(super) struct Refs {
    pub(super) steward: ChildRef<super::Steward>,
    pub(super) journal: ChildRef<Chronicle>,
    pub(super) health: ChildRef<health::Monitor>,
    pub(super) coordination: ChildRef<Coordination>,
    pub(super) history: ChildRef<Historian>,
    pub(super) viewers: ChildRef<Warden>,
    pub(super) data_plane: ChildRef<DataPlane>,
    pub(super) engine: ChildRef<Follower>,
    pub(super) swarms: SupervisorRef,
    pub(super) controller: ChildRef<Controller>,
    pub(super) http: ChildRef<Server>,
}

/// Everything is made and nothing is started.
pub(super) struct Egg {
    pub(super) runtime: FakeRuntime,
    dir: tempfile::TempDir,
    specs: Vec<SwarmSpec>,
}

pub(super) struct Nest {
    pub(super) runtime: FakeRuntime,
    pub(super) journal: Arc<FailingJournal>,
    pub(super) data: Arc<DataDir>,
    pub(super) health: health::Handle,
    pub(super) desk: Desk,
    pub(super) office: Arc<Office>,
    pub(super) sockets: Arc<Sockets>,
    pub(super) refs: Refs,
    feed: Feed,
    standings: Standings,
    pub(super) trunk: Arc<Trunk>,
    keeper: JoinHandle<()>,
    // Last, so that it goes when nobody uses it any more.
    _dir: tempfile::TempDir,
}

impl Nest {
    pub(super) fn start_with(swarms: &[(&str, &[&str])], change: impl Fn(&mut SwarmSpec)) -> Egg {
        let mut specs: Vec<_> = swarms.iter().map(|(name, agents)| swarm(name, agents)).collect();
        specs.iter_mut().for_each(change);
        let dir = tempfile::Builder::new().prefix("hk").tempdir_in("/tmp").unwrap();
        Egg { runtime: FakeRuntime::new(), dir, specs }
    }

    pub(super) async fn start(swarms: &[(&str, &[&str])]) -> Self {
        Self::start_with(swarms, |_| ()).up().await
    }

    /// The children of the root.
    pub(super) async fn services(&self) -> Vec<TreeNode> {
        self.office.tree().await.unwrap().children
    }

    pub(super) async fn state(&self, id: &str, state: AgentState) -> Arc<AgentHealth> {
        self.agent(id, &format!("{state:?}"), |health| health.state == state).await
    }

    pub(super) async fn running(&self, id: &str, incarnation: u64) -> Arc<AgentHealth> {
        self.agent(id, &format!("running, incarnation {incarnation}"), |health| {
            health.state == AgentState::Running && health.incarnation == incarnation && health.pid.is_some()
        })
        .await
    }

    async fn agent(&self, id: &str, what: &str, fits: impl Fn(&AgentHealth) -> bool) -> Arc<AgentHealth> {
        let id: AgentId = id.parse().unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let health = self.health.agent(&id);
            if let Some(health) = health.as_ref().filter(|health| fits(health)) {
                return Arc::clone(health);
            }
            assert!(Instant::now() < deadline, "{id} is never {what}: {health:#?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What the runtime has alive, `AGENT INCARNATION`.
    pub(super) fn live(&self) -> Vec<String> {
        self.runtime.live().iter().map(|(agent, incarnation)| format!("{agent} {incarnation}")).collect()
    }

    pub(super) fn panic_in_agent(&self, id: &str) {
        let actor = self.office.agent_actor(&id.parse().unwrap()).unwrap();
        actor.run(|_, _| panic!("a bug in an agent's actor")).unwrap();
    }

    /// Publishes an event and waits until the journal has it.
    pub(super) async fn journaled(&self, text: &str) {
        let said = EventKind::AgentSaid {
            agent: "s/a".parse().unwrap(),
            incarnation: 1,
            kind: Arc::from("note"),
            data: Arc::from(format!("{text:?}")),
        };
        let seq = self.feed.publish(SystemTime::now(), said);
        until("the event is in the journal", async || {
            let found = self.journal.events(Seq(seq.0 - 1), 1).await.unwrap();
            found.first().is_some_and(|event| event.seq == seq && event.body.contains(text)).then_some(())
        })
        .await;
    }

    pub(super) async fn standings_written(&self) {
        self.standings.write(&*self.journal).await.unwrap();
    }

    pub(super) async fn get(&self, path: &str) -> (u16, String) {
        let url = format!("http://{}{path}", self.sockets.http_at);
        let call = move || {
            let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE));
            let mut answer = config.build().new_agent().get(&url).call().unwrap();
            (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
        };
        tokio::task::spawn_blocking(call).await.unwrap()
    }

    pub(super) async fn viewer(&self) -> Viewer {
        let at = self.sockets.http_at;
        let connect = move || {
            let stream = std::net::TcpStream::connect(at).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            Viewer(tungstenite::client(format!("ws://{at}/ws/hybrid-health"), stream).unwrap().0)
        };
        tokio::task::spawn_blocking(connect).await.unwrap()
    }

    pub(super) async fn end(self) {
        self.office.close();
        self.keeper.abort();
        self.trunk.root().shutdown().await.unwrap();
        assert_eq!(self.live(), Vec::<String>::new());
    }
}

impl Egg {
    pub(super) async fn up(self) -> Nest {
        let Self { runtime, dir, specs } = self;
        let data = Arc::new(DataDir::open(dir.path(), "test", Options::default()).unwrap());
        let inner = SqliteJournal::open(&data.database(), data.epoch()).unwrap();
        let journal = Arc::new(FailingJournal::new(Arc::new(inner)));
        let shared: Arc<dyn Journal> = Arc::clone(&journal) as Arc<dyn Journal>;
        let limits = LogLimits { bytes_per_agent: 1 << 20, total_bytes: 1 << 24, segment_bytes: 1 << 16 };
        let logs = LogBook::open(&data.logs_dir(), limits, data.fence()).unwrap();
        let (first, reserved) = boot::numbers(&*shared).await.unwrap();
        let feed = Feed::new(data.epoch(), first);
        let scribe = Scribe::new(Arc::clone(&shared), feed.clone(), reserved);
        let health = health::Handle::new(health::Options {
            identity: health::Identity {
                hive: data.hive_id(),
                name: "test".to_owned(),
                sample_interval: Duration::from_secs(60),
            },
            feed: feed.clone(),
            on_stuck: Arc::new(|_, _| ()),
        });
        let registry = Registry::default();
        let overseer = Arc::new(work::Overseer { registry: registry.clone(), news: News::new(feed.clone()) });
        let (desk, clerk) = Desk::new(Arc::<MemoryWork>::default(), Arc::clone(&overseer) as _);
        let signs = work::Signs { desk: desk.clone(), registry: registry.clone() };
        let household = work::Household::new(health.clone(), registry.clone());
        let said = sinks::Said {
            health: health.clone(),
            logs: logs.clone(),
            registry: registry.clone(),
            signs: signs.clone(),
        };
        let limits = DiskLimits { bytes_max: 1 << 30, free_min: 0, logs_max: 1 << 20, journal_max: 1 << 28 };
        let disk =
            DiskBudget::new(data.path().to_owned(), limits, Arc::clone(&journal) as Arc<dyn Journal>, logs.clone());
        let disk = Arc::new(disk);
        let plane = DataPlaneHandle::new(Arc::new(registry.clone()), Arc::new(said), PlaneLimits::default());
        let deps = Arc::new(AgentDeps {
            runtimes: Runtimes::one(Arc::new(runtime.clone())),
            journal: Arc::clone(&shared),
            logs,
            witness: Arc::new(sinks::Seen { health: health.clone(), signs }),
            secrets: Secrets::new(SecretRights::default()),
            drain: Arc::new(plane.clone()),
            registry,
            work_dir: data.work_dir(),
            sample_interval: Duration::from_secs(60),
            fenced: Arc::new(|| panic!("fenced")),
        });
        let (mut plan, _, _) = boot::plan(&*shared, &specs).await.unwrap();
        recover::declare(&*shared, &health, &plan).await.unwrap();
        boot::settle(&deps, &mut plan).await.unwrap().unwrap();
        let status = Arc::clone(&shared);
        let checks = Box::new(move || {
            let ok = status.status().ok;
            vec![Check { name: "journal", ok, detail: String::new() }]
        });
        let options = HistoryOptions {
            path: data.history(),
            epoch: data.epoch(),
            fence: data.fence(),
            bytes_max: 16 << 20,
            feed: feed.clone(),
            health: health.clone(),
        };
        let history = History::open(options, SystemTime::now());
        let needs = OfficeDeps {
            agents: deps,
            health: health.clone(),
            feed: feed.clone(),
            desk: desk.clone(),
            history: history.clone(),
            checks,
        };
        let office = Office::new(needs, plan.swarms);
        let engine = Arc::new(DockerRuntime::new(DockerOptions {
            // Nobody lives in containers here, so nobody asks it.
            host: Some("/nowhere.sock".to_owned()),
            owner: Owner { hive_id: data.hive_id(), hive: "test".to_owned() },
            exe: Launcher::open(&std::env::current_exe().unwrap()).unwrap(),
            epoch: data.epoch(),
            ring_bytes: 0,
            relay: Arc::new(plane.clone()),
            witness: Arc::new(sinks::Engines { health: health.clone(), feed: feed.clone() }),
            orphan_grace: Duration::from_secs(90),
            tasks: tokio::runtime::Handle::current(),
        }));
        let hub = Hub::new(StreamLimits::default(), feed.clone(), health.clone());
        let standings = Standings::default();
        let any = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (web, lines) = (any(), any());
        let (http_at, data_plane_at) = (web.local_addr().unwrap(), lines.local_addr().unwrap());
        let sockets = Arc::new(Sockets { http: web, http_at, data_plane: lines, data_plane_at });
        let measures = Arc::new(Measures {
            plane: plane.clone(),
            hub: hub.clone(),
            office: Arc::clone(&office),
            scribe: scribe.clone(),
            journal: Arc::clone(&journal) as Arc<dyn Journal>,
            notifiers: crate::notify::Notifiers::default(),
            disk: Arc::clone(&disk),
            root: RwLock::default(),
        });
        let parts = Parts {
            data: Arc::clone(&data),
            disk,
            fenced: Arc::new(|| panic!("fenced")),
            scribe,
            standings: standings.clone(),
            coordination: Coordination {
                desk: desk.clone(),
                clerk,
                overseer,
                keep: Duration::from_secs(3600),
                fenced: Arc::new(|| panic!("fenced")),
            },
            tools: Tools::new(desk.clone(), household),
            history,
            retention: Retention {
                events_max: 1000,
                operations_max: 1000,
                incarnations_max_per_agent: 100,
                age_max: Duration::from_secs(3600),
            },
            health: health.clone(),
            documents: Arc::new(sinks::Documents(health.clone())),
            swarm_documents: Arc::new(NoDocuments),
            reloader: Arc::new(NoDocuments),
            feed: feed.clone(),
            hub,
            plane,
            sources: Vec::new(),
            notifiers: crate::notify::Notifiers::default(),
            office: Arc::clone(&office),
            engine,
            sockets: Arc::clone(&sockets),
            keys: Keyring::new(Arc::clone(&journal) as Arc<dyn Journal>, None),
            web: HttpConfig {
                bind: http_at,
                token: None,
                hosts: Vec::new(),
                reads_per_second: NonZeroU32::MAX,
                commands_per_second: NonZeroU32::MAX,
                tls: None,
            },
            measures: Arc::clone(&measures),
        };
        let sink = sinks::Supervision {
            health: health.clone(),
            standings: standings.clone(),
            services: sinks::Services::default(),
            office: Arc::clone(&office),
        };
        // In the order of `start`.
        let (steward, steward_ref) = steward(&parts);
        let (chronicle, journal_ref) = chronicle(&parts);
        let (monitor, health_ref) = monitor(&parts.health);
        let (clerk, coordination_ref) = coordination(&parts);
        let (historian, history_ref) = historian(&parts.history);
        let (warden, viewers_ref) = warden(&parts.hub);
        let (listener, data_plane_ref) = data_plane(&parts);
        let (sources, _) = sources(&parts.sources);
        let (follower, engine_ref) = follower(&parts.engine);
        let (swarms, swarms_ref) = swarms();
        let (controller, controller_ref) = controller(&parts.office);
        let (server, http_ref) = http(parts);
        let children = vec![
            steward, chronicle, monitor, clerk, historian, warden, listener, sources, follower, swarms, controller,
            server,
        ];
        let handles = (swarms_ref.clone(), controller_ref.clone(), steward_ref.clone());
        let trunk = Arc::new(Trunk::plant(children, handles, (Arc::clone(&office), measures), Arc::new(sink)).unwrap());
        let keeper = actix::spawn(keep(Arc::clone(&trunk)));
        let refs = Refs {
            steward: steward_ref,
            journal: journal_ref,
            health: health_ref,
            coordination: coordination_ref,
            history: history_ref,
            viewers: viewers_ref,
            data_plane: data_plane_ref,
            engine: engine_ref,
            swarms: swarms_ref,
            controller: controller_ref,
            http: http_ref,
        };
        until("the first pass ends", async || office.reconciled().then_some(())).await;
        Nest { runtime, journal, data, health, desk, office, sockets, refs, feed, standings, trunk, keeper, _dir: dir }
    }
}

async fn keep(trunk: Arc<Trunk>) {
    trunk.keep().await
}

pub(super) struct Viewer(tungstenite::WebSocket<std::net::TcpStream>);

impl Viewer {
    /// Reads until a frame holds this text.
    pub(super) fn sees(mut self, text: &str) -> Self {
        let deadline = Instant::now() + PATIENCE;
        while !self.0.read().unwrap().to_string().contains(text) {
            assert!(Instant::now() < deadline, "no frame with {text}");
        }
        self
    }
}

fn swarm(name: &str, agents: &[&str]) -> SwarmSpec {
    let agent = |name: &&str| {
        Arc::new(AgentSpec {
            name: name.parse().unwrap(),
            replicas: None,
            command: vec!["program".to_owned()],
            env: BTreeMap::new(),
            restart: RestartType::Permanent,
            ready: Ready::Process,
            start_timeout: Duration::from_secs(7200),
            heartbeat_timeout: Duration::from_secs(7200),
            progress_timeout: Duration::ZERO,
            on_stuck: OnStuck::Report,
            stop_grace: Duration::from_millis(200),
            lease: Duration::from_secs(30),
        })
    };
    SwarmSpec {
        name: name.parse().unwrap(),
        origin: Origin::Config,
        home: Home::Process { workdir: None },
        strategy: Strategy::OneForOne,
        intensity: 5,
        period: Duration::from_secs(60),
        on_exceeded: OnExceeded::Fail,
        backoff: Backoff { initial: Duration::ZERO, then: Duration::from_millis(10), ..Backoff::default() },
        env: BTreeMap::new(),
        agents: agents.iter().map(agent).collect(),
    }
}

/// Nobody hands documents in here.
struct NoDocuments;

impl crate::http::DocumentReader for NoDocuments {
    fn read(&self, _: &serde_json::Value) -> Result<SwarmSpec, Vec<crate::view::Mistake>> {
        Err(Vec::new())
    }
}

impl crate::http::Reloader for NoDocuments {
    fn reload(
        &self,
        _: bool,
    ) -> crate::control_plane::desk::BoxFuture<'_, Result<crate::http::Reloaded, crate::control_plane::ReloadError>>
    {
        Box::pin(async { Err(crate::control_plane::ReloadError::Invalid(Vec::new())) })
    }
}
