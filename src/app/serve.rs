//! The life of a daemon: open, take over, serve, wait for a signal, stop.

use std::{
    collections::HashSet,
    net::{SocketAddr, TcpListener},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context as _;
use futures_util::future::join_all;
use hivekeeper_actors::ChildId;
use parking_lot::RwLock;

use super::{
    boot, greeting,
    machine::{LaunchThread, open_files_allowed, raise_open_files, start_log},
    measures::Measures,
    news::News,
    reload::Configuration,
    service,
    signals::{Order, Signals},
    sinks::{Documents, Engines, Said, Seen, Services, Sources, Stuck, Supervision},
    steward,
    tree::{self, Parts, SWARMS, Sockets, Trunk},
    work::{Coordination, Household, Overseer, Signs},
};
use crate::{
    config::{Config, DataPlaneConfig, Loader},
    control_plane::{
        Check, Checks, Control, History, HistoryOptions, Keyring, Office, OfficeDeps,
        chronicle::{Scribe, Standings, save_usage},
        recover,
    },
    coordination::Desk,
    data_plane::{DataPlaneHandle, PlaneLimits, dialer::DialerHandle},
    events::Feed,
    health,
    model::{AgentHealth, AgentState, EventKind, HiveHealth, RuntimeKind, Seq, SourceWitness},
    notify::{Notifiers, NotifyOptions},
    runtime::{
        AgentDeps, Registry, Runtime, Runtimes, Secrets,
        docker::{DockerOptions, DockerRuntime, Launcher, engine::Owner},
        process::{ProcessOptions, ProcessRuntime, inherited_env},
    },
    store::{DiskBudget, DiskLimits, Journal, Retention},
    stream::{Hub, StreamLimits},
    tools::Tools,
};

/// Exit code of a daemon that a younger one has fenced off: like any failure, and nothing was stopped.
const FENCED_EXIT: i32 = 1;
/// Exit code of a daemon that was asked again while it stopped: what was asked for first is not done.
const HURRIED_EXIT: i32 = 1;
/// How long the greeting waits for agents to come up before it shows them as they are.
const GREETING_WAIT: Duration = Duration::from_secs(5);
/// Between two looks of the greeting.
const GREETING_LOOK: Duration = Duration::from_millis(20);
/// How long sessions on the data plane may take to end once their agents are gone.
const PLANE_GRACE: Duration = Duration::from_secs(1);
/// How long what was not journaled yet may take at the end.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long the open buckets of the history may take then: a thousand agents' take some ten milliseconds.
const LAST_MEASURES: Duration = Duration::from_secs(1);
/// How long the engine may take to remove the containers in which nothing lives any more: each takes a tenth of a second.
const EMPTY: Duration = Duration::from_secs(20);
/// How long the engine may be silent while swarms are to stop, before they are left to their leases.
const ENGINE_PATIENCE: Duration = Duration::from_secs(20);
/// How long something in the engine that no document accounts for must have been seen before it is removed: beyond the minute that making a container
/// may take, after which whoever was about to use it has given up or knows it.
const ORPHAN_GRACE: Duration = Duration::from_secs(90);
/// How long the rest of the end may take behind that of the swarms: services, launchers, empty containers and last words, each within its own bound.
const LAST_STEPS: Duration = Duration::from_secs(60);
/// How long launchers may take to be reaped once their agents have ended.
const REAP: Duration = Duration::from_secs(5);

/// Runs the daemon until a signal ends it. `load` reads the configuration again.
///
/// # Errors
/// Why it could not start.
pub fn serve(config: Config, load: Loader) -> anyhow::Result<ExitCode> {
    start_log(&config.log);
    let ground = boot::open(&config)?;
    let launches = LaunchThread::start().context("failed to start a thread")?;
    actix::System::new().block_on(run(config, load, ground, &launches))
}

/// What the end needs of the beginning.
struct Daemon {
    trunk: Trunk,
    office: Arc<Office>,
    desk: Desk,
    hub: Hub,
    plane: DataPlaneHandle,
    feed: Feed,
    scribe: Scribe,
    standings: Standings,
    history: History,
    health: health::Handle,
    journal: Arc<dyn Journal>,
    data: Arc<crate::store::DataDir>,
    fenced: Arc<dyn Fn() + Send + Sync>,
    runtime: Arc<ProcessRuntime>,
    docker: Arc<DockerRuntime>,
}

async fn run(config: Config, load: Loader, ground: boot::Ground, launches: &LaunchThread) -> anyhow::Result<ExitCode> {
    // Before anything is started, so that no signal finds the default, which would end us without a word.
    let mut signals = Signals::listen().context("failed to listen for signals")?;
    let boot::Ground { data, journal, work, logs } = ground;
    let sockets = Arc::new(bind(&config)?);
    let (first, reserved) = boot::numbers(&*journal).await?;
    let feed = Feed::new(data.epoch(), first);
    let scribe = Scribe::new(Arc::clone(&journal), feed.clone(), reserved);
    let stuck = Stuck::default();
    let health = health::Handle::new(health::Options {
        identity: health::Identity {
            hive: data.hive_id(),
            name: config.hive.name.clone(),
            sample_interval: config.runtime.sample_interval,
        },
        feed: feed.clone(),
        on_stuck: {
            let stuck = stuck.clone();
            Arc::new(move |agent, incarnation| stuck.end(&agent, incarnation))
        },
    });
    let options = HistoryOptions {
        path: data.history(),
        epoch: data.epoch(),
        fence: data.fence(),
        bytes_max: config.history.bytes_max,
        feed: feed.clone(),
        health: health.clone(),
    };
    let history = History::open(options, SystemTime::now());
    let registry = Registry::default();
    let overseer = Arc::new(Overseer { registry: registry.clone(), news: News::new(feed.clone()) });
    let (desk, clerk) = Desk::new(work, Arc::clone(&overseer) as _);
    let signs = Signs { desk: desk.clone(), registry: registry.clone() };
    let household = Household::new(health.clone(), registry.clone());
    let tools = Tools::new(desk.clone(), Arc::clone(&household) as _);
    let said = Said { health: health.clone(), logs: logs.clone(), registry: registry.clone(), signs: signs.clone() };
    let limits = plane_limits(&config.data_plane);
    let plane =
        DataPlaneHandle::with_tls(Arc::new(registry.clone()), Arc::new(said), limits, config.data_plane.tls.clone());
    plane.offer(tools.clone());
    let exe = std::env::current_exe().context("failed to find this executable")?;
    let docker = Arc::new(DockerRuntime::new(DockerOptions {
        host: config.docker.socket.as_ref().map(|socket| socket.display().to_string()),
        owner: Owner { hive_id: data.hive_id(), hive: config.hive.name.clone() },
        exe: Launcher::open(&exe).context("failed to open this executable")?,
        epoch: data.epoch(),
        ring_bytes: config.runtime.output_ring_bytes,
        relay: Arc::new(plane.clone()),
        witness: Arc::new(Engines { health: health.clone(), feed: feed.clone() }),
        orphan_grace: ORPHAN_GRACE,
        tasks: launches.handle(),
    }));
    let runtime = Arc::new(ProcessRuntime::new(ProcessOptions {
        exe,
        run_dir: data.run_dir(),
        epoch: data.epoch(),
        env: inherited_env(),
        ring_bytes: config.runtime.output_ring_bytes,
        open_files: raise_open_files(config.data_plane.connections_max).map(|limits| (limits.soft, limits.hard)),
        relay: Arc::new(plane.clone()),
        tasks: launches.handle(),
    })?);
    let limits = DiskLimits {
        bytes_max: config.disk.bytes_max,
        free_min: config.disk.free_bytes_min,
        logs_max: config.log.total_bytes_max,
        journal_max: config.journal.bytes_max,
    };
    let disk = Arc::new(DiskBudget::new(data.path().to_owned(), limits, Arc::clone(&journal), logs.clone()));
    let fenced = fenced();
    let deps = Arc::new(AgentDeps {
        runtimes: Runtimes::with_docker(Arc::clone(&runtime) as Arc<dyn Runtime>, Arc::clone(&docker)),
        journal: Arc::clone(&journal),
        logs,
        witness: Arc::new(Seen { health: health.clone(), signs }),
        secrets: Secrets::new(config.secrets.clone()),
        drain: Arc::new(plane.clone()),
        registry,
        work_dir: data.work_dir(),
        sample_interval: config.runtime.sample_interval,
        fenced: Arc::clone(&fenced),
    });
    let (mut plan, former, unfinished) = boot::plan(&*journal, &config.swarms).await?;
    // What lives is looked for where its own document has put it.
    former.iter().try_for_each(|swarm| deps.runtimes.house(swarm))?;
    // Of a swarm without a document that can be read, the present one is the best guess.
    let known: HashSet<_> = former.iter().map(|swarm| &swarm.name).collect();
    let unknown = plan.swarms.iter().filter(|swarm| !known.contains(&swarm.spec.name));
    unknown.map(|swarm| &swarm.spec).try_for_each(|swarm| deps.runtimes.house(swarm))?;
    boot::clear(&*journal, &plan).await.context("failed to write the journal")?;
    recover::declare(&*journal, &health, &plan).await.context("failed to read the journal")?;
    let Ok(takeover) = boot::settle(&deps, &mut plan).await? else {
        fenced();
        return Ok(ExitCode::FAILURE);
    };
    plan.swarms.iter().try_for_each(|swarm| deps.runtimes.house(&swarm.spec))?;
    let services = Services::default();
    let checks = checks(&journal, &sockets, &plane, &services);
    // Before anybody takes anything: what is kept of others is of swarms that are gone.
    desk.know_swarms(plan.swarms.iter().map(|swarm| swarm.spec.name.clone()));
    plan.dropped.iter().for_each(|agent| desk.forget_agent(agent));
    let needs = OfficeDeps {
        agents: deps,
        health: health.clone(),
        feed: feed.clone(),
        desk: desk.clone(),
        history: history.clone(),
        checks,
    };
    let office = Office::new(needs, plan.swarms);
    household.know(&office);
    office.resume(unfinished).await;
    stuck.know(&office);
    let hub = Hub::new(StreamLimits::with_open_files(open_files_allowed()), feed.clone(), health.clone());
    let standings = Standings::default();
    let retention = Retention {
        events_max: config.journal.events_max,
        operations_max: config.journal.operations_max,
        incarnations_max_per_agent: config.journal.incarnations_max,
        age_max: config.journal.age_max,
    };
    let started = EventKind::DaemonStarted { version: env!("CARGO_PKG_VERSION"), pid: std::process::id() };
    feed.publish(SystemTime::now(), started);
    let token = config.http.token.as_ref().map(|token| token.reveal());
    let keys = Keyring::open(Arc::clone(&journal), token).await.context("failed to read the API's tokens")?;
    let notifiers = Notifiers::open(
        &config.notifiers,
        &NotifyOptions {
            hive: config.hive.name.clone(),
            data: Arc::clone(&data),
            journal: Arc::clone(&journal),
            feed: feed.clone(),
            before: Seq(first.0.saturating_sub(1)),
            health: health.clone(),
        },
    );
    let measures = Measures {
        plane: plane.clone(),
        hub: hub.clone(),
        office: Arc::clone(&office),
        scribe: scribe.clone(),
        journal: Arc::clone(&journal),
        notifiers: notifiers.clone(),
        disk: Arc::clone(&disk),
        root: RwLock::default(),
    };
    let witness: Arc<dyn SourceWitness> = Arc::new(Sources(health.clone()));
    let sources = config.sources.iter().map(|spec| DialerHandle::new(spec.clone(), Arc::clone(&witness)));
    let configuration = Configuration::new(load, config.clone(), Arc::clone(&office), feed.clone());
    let parts = Parts {
        data: Arc::clone(&data),
        disk,
        fenced: Arc::clone(&fenced),
        scribe: scribe.clone(),
        standings: standings.clone(),
        coordination: Coordination {
            desk: desk.clone(),
            clerk,
            overseer,
            keep: config.coordination.keep,
            fenced: Arc::clone(&fenced),
        },
        tools,
        history: history.clone(),
        retention,
        health: health.clone(),
        documents: Arc::new(Documents(health.clone())),
        swarm_documents: Arc::new(configuration.clone()),
        reloader: Arc::new(configuration.clone()),
        feed: feed.clone(),
        hub: hub.clone(),
        plane: plane.clone(),
        sources: sources.collect(),
        notifiers,
        office: Arc::clone(&office),
        engine: Arc::clone(&docker),
        sockets: Arc::clone(&sockets),
        keys,
        web: config.http.clone(),
        measures: Arc::new(measures),
    };
    let sink =
        Supervision { health: health.clone(), standings: standings.clone(), services, office: Arc::clone(&office) };
    let trunk = tree::start(parts, Arc::new(sink)).context("failed to start the supervision tree")?;
    let daemon = Daemon {
        trunk,
        office,
        desk,
        hub,
        plane,
        feed,
        scribe,
        standings,
        history,
        health: health.clone(),
        journal,
        data,
        fenced,
        runtime,
        docker,
    };
    daemon
        .data
        .write_endpoints(&endpoints(&sockets, config.http.tls.is_some()))
        .context("failed to write the endpoints")?;
    greeting::print(&greeting::bound(&config, &daemon.data, &sockets, takeover));
    let mut greeting = std::pin::pin!(greet(&config, &daemon.office, &health));
    let mut greeted = false;
    let mut growing = std::pin::pin!(daemon.trunk.keep());
    let mut attending = std::pin::pin!(service::attend(&daemon.trunk, &daemon.office, &health, launches.handle()));
    let mut reloading = std::pin::pin!(configuration.follow(signals.reload.take()));
    let order = loop {
        tokio::select! {
            order = signals.next() => break order,
            () = &mut greeting, if !greeted => greeted = true,
            never = &mut growing => never,
            never = &mut attending => never,
            never = &mut reloading => never,
        }
    };
    Ok(daemon.end(order, &mut signals).await)
}

/// Once the first pass has ended, or takes long: what was seen of the agents then.
async fn greet(config: &Config, office: &Office, health: &health::Handle) {
    let deadline = Instant::now() + GREETING_WAIT;
    let settled = |hive: &HiveHealth| {
        let waits = |agent: &Arc<AgentHealth>| matches!(agent.state, AgentState::Pending | AgentState::Starting);
        office.reconciled() && !hive.agents.iter().any(waits)
    };
    while !settled(&health.hive()) && Instant::now() < deadline {
        tokio::time::sleep(GREETING_LOOK).await;
    }
    let hive = health.hive();
    greeting::print(&greeting::agents(&hive));
    let killable = |swarm: &_| office.swarm(swarm).is_some_and(|entry| entry.spec.runtime() == RuntimeKind::Process);
    greeting::print(&greeting::hints(&hive, config, killable));
}

/// Bursts are what a second brings: agents that come back all at once, and a log that is handed in whole.
fn plane_limits(config: &DataPlaneConfig) -> PlaneLimits {
    PlaneLimits {
        direct_max: config.connections_max,
        accepts_per_second: config.connects_per_second,
        accepts_burst: config.connects_per_second,
        total_per_second: config.notifications_per_second,
        total_burst: config.notifications_per_second,
        ..PlaneLimits::default()
    }
}

fn bind(config: &Config) -> anyhow::Result<Sockets> {
    let (http, http_at) = listen(config.http.bind, "the API", "[http] bind")?;
    let (data_plane, data_plane_at) = listen(config.data_plane.bind, "the data plane", "[data_plane] bind")?;
    Ok(Sockets { http, http_at, data_plane, data_plane_at })
}

fn listen(at: SocketAddr, what: &str, key: &str) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(at).with_context(|| format!("failed to bind {what} to {at} ({key})"))?;
    let bound = listener.local_addr().with_context(|| format!("failed to learn where {what} was bound"))?;
    Ok((listener, bound))
}

/// What clients and `handover` find us by.
fn endpoints(sockets: &Sockets, https: bool) -> String {
    let json = serde_json::json!({
        "pid": std::process::id(),
        "http": sockets.http_at,
        "https": https,
        "data_plane": sockets.data_plane_at,
    });
    format!("{json}\n")
}

fn checks(journal: &Arc<dyn Journal>, sockets: &Arc<Sockets>, plane: &DataPlaneHandle, services: &Services) -> Checks {
    let (journal, sockets, presence) = (Arc::clone(journal), Arc::clone(sockets), plane.presence());
    let services = services.clone();
    Box::new(move || {
        let status = journal.status();
        let failure = status.last_error.filter(|_| !status.ok);
        let listening = presence.borrow().listening;
        let serving = services.runs("root/http");
        let words = |listens: bool| if listens { "listens on" } else { "does not listen on" };
        vec![
            Check { name: "journal", ok: status.ok, detail: failure.unwrap_or_else(|| "can be written".to_owned()) },
            Check { name: "http", ok: serving, detail: format!("{} {}", words(serving), sockets.http_at) },
            Check {
                name: "data_plane",
                ok: listening,
                detail: format!("{} {}", words(listening), sockets.data_plane_at),
            },
            services.check(),
        ]
    })
}

/// What to do when a younger daemon turns out to lead: nothing more. Agents, journal and run directory are its own now.
fn fenced() -> Arc<dyn Fn() + Send + Sync> {
    Arc::new(|| {
        tracing::error!("a younger daemon leads this hive; this one ends and touches nothing");
        std::process::exit(FENCED_EXIT);
    })
}

impl Daemon {
    async fn end(&self, order: Order, signals: &mut Signals) -> ExitCode {
        self.office.close();
        let how = match order {
            Order::Stop => "stop",
            Order::HandOver => "handover",
        };
        tracing::info!(how, "the daemon ends");
        service::stopping(how);
        self.feed.publish(SystemTime::now(), EventKind::DaemonStopping { how });
        if order == Order::HandOver {
            self.leave(0).await;
        }
        tokio::select! {
            code = self.stop() => code,
            again = signals.later() => {
                tracing::warn!(?again, "asked again while stopping: the daemon leaves at once, what still runs ends with its lease");
                self.leave(HURRIED_EXIT).await
            }
        }
    }

    /// Ends the process and nothing else. The launchers see their channels close, and wait for the next daemon.
    async fn leave(&self, code: i32) -> ! {
        self.write_last_words(false).await;
        self.data.remove_endpoints();
        std::process::exit(code);
    }

    /// Swarms first, side by side and while everybody can still watch, then the services in reverse order.
    async fn stop(&self) -> ExitCode {
        let stopped = self.stop_swarms().await;
        self.desk.close();
        self.hub.shutdown().await;
        self.plane.shutdown(PLANE_GRACE).await;
        if let Err(error) = self.trunk.root().shutdown().await {
            tracing::warn!(%error, "the supervision tree did not end cleanly");
        }
        let tidy = async {
            let left = self.runtime.finish(REAP).await + self.docker.finish(REAP).await;
            if left > 0 {
                tracing::warn!(left, "launchers have not ended; their leases run out");
            }
            self.docker.leave(EMPTY).await;
        };
        // The steward has ended with the tree. Without its beat a younger daemon could move in, whose containers these are then.
        tokio::select! {
            () = tidy => {}
            () = steward::keep(Arc::clone(&self.data), Arc::clone(&self.fenced)) => {}
        }
        self.write_last_words(stopped).await;
        self.data.remove_endpoints();
        if stopped { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// Whether every swarm has stopped. One in containers can't, where the engine does not answer: it is left to its leases, and the others are stopped.
    async fn stop_swarms(&self) -> bool {
        let supervisor = self.trunk.root().supervisor();
        let swarms = ChildId::from(SWARMS);
        let entries = self.office.swarms();
        // Side by side, and the agents of each one after the other.
        let graces = entries.iter().map(|entry| {
            let agents = entry.spec.agents.iter();
            agents.map(|agent| agent.stop_grace * agent.replicas.unwrap_or(1)).sum::<Duration>()
        });
        let graces = graces.max().unwrap_or_default();
        service::ending_takes(graces + ENGINE_PATIENCE + LAST_STEPS);
        tokio::select! {
            stopped = supervisor.terminate_child(&swarms) => {
                if let Err(error) = &stopped {
                    tracing::warn!(%error, "failed to stop the swarms in order");
                }
                return true;
            }
            () = self.docker.lost_for(Instant::now(), ENGINE_PATIENCE) => {
                tracing::error!("the engine does not answer: what runs in containers ends with its lease");
            }
            () = tokio::time::sleep(graces + ENGINE_PATIENCE) => {
                tracing::error!("some agents can't be ended: they end with their leases");
            }
        }
        let here = entries.iter().filter(|entry| entry.spec.runtime() == RuntimeKind::Process);
        let here = here.filter_map(|entry| self.office.supervisor(&entry.spec.name));
        let stops = join_all(here.map(|swarm| async move { swarm.stop_all().await }));
        if tokio::time::timeout(graces + ENGINE_PATIENCE, stops).await.is_err() {
            tracing::error!("some agents on this machine could not be ended either");
        }
        false
    }

    /// `nothing_runs_on`: every agent has been stopped, so the history misses nothing until the next daemon.
    async fn write_last_words(&self, nothing_runs_on: bool) {
        let write = async {
            self.standings.write(&*self.journal).await?;
            save_usage(&self.health, &*self.journal, false).await?;
            self.scribe.catch_up().await
        };
        match tokio::time::timeout(LAST_WORDS, write).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "failed to journal the last events"),
            Err(_) => tracing::warn!("the journal took too long for the last events"),
        }
        match tokio::time::timeout(LAST_MEASURES, self.history.finish(SystemTime::now(), nothing_runs_on)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "failed to write the end of the history"),
            Err(_) => tracing::warn!("the history took too long for its end"),
        }
    }
}
