//! The daemon's way in, put together in this process as the daemon does it: listener, sink, log books and the health actor, under a supervisor.

use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use actix::System;
use anyhow::{Context, bail, ensure};
use hivekeeper::{
    app::{Said, Signs},
    coordination::{Desk, WorkChanges, WorkWitness},
    data_plane::{DataPlane, DataPlaneHandle, PlaneLimits},
    events::Feed,
    health::{self, Report},
    model::{Admission, AgentId, Desired, EventKind, HiveId, Origin, Refusal, Seq},
    runtime::{Registry, Veil},
    store::{DataDir, LogBook, LogLimits, Options, SqliteJournal},
    view::SwarmDocument,
};
use hivekeeper_actors::{Child, ChildSpec, EventSink, Placement, Root, Strategy, SupervisionEvent, SupervisorFlags};
use serde_json::json;

use super::clock;

/// The swarm of all agents here.
pub const SWARM: &str = "bench";
/// How long anything may take that should happen.
const WAIT: Duration = Duration::from_secs(60);

/// Nothing happens here that somebody would have to hear.
struct Deaf;

impl WorkWitness for Deaf {
    fn changed(&self, _: &WorkChanges) {}
}

/// Lets everybody in.
struct OpenHouse;

impl Admission for OpenHouse {
    fn admit(&self, _: &AgentId, _: u64, _: &str) -> Result<(), Refusal> {
        Ok(())
    }

    fn lives(&self, _: &AgentId, _: u64) -> bool {
        true
    }
}

struct Unheard;

impl EventSink for Unheard {
    fn event(&self, _: SupervisionEvent) {}
}

/// A running data plane. Ends when it is dropped.
pub struct Plane {
    pub addr: SocketAddr,
    pub handle: DataPlaneHandle,
    pub health: health::Handle,
    pub logs: LogBook,
    feed: Feed,
    seen: Seq,
    _data: DataDir,
    end: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Plane {
    /// For agents `bench/a-1` to `bench/a-N`.
    pub fn start(dir: &Path, agents: usize, limits: PlaneLimits) -> anyhow::Result<Self> {
        let data = DataDir::open(&dir.join("data"), "bench", Options::default())?;
        // What config.toml says.
        let books = LogLimits { bytes_per_agent: 16 << 20, total_bytes: 1 << 30, segment_bytes: 2 << 20 };
        let logs = LogBook::open(&data.logs_dir(), books, data.fence())?;
        let feed = Feed::new(data.epoch(), Seq(1));
        let health = health::Handle::new(health::Options {
            identity: health::Identity {
                hive: HiveId::mint(),
                name: "bench".to_owned(),
                sample_interval: Duration::from_secs(5),
            },
            feed: feed.clone(),
            on_stuck: Arc::new(|_, _| ()),
        });
        health.report(Report::Declared {
            spec: Arc::new(document(agents)?.into_spec(Origin::Config)?),
            desired: Desired::Running,
            seeds: Vec::new(),
        });
        // As a launch leaves it: what agents say is looked through for their tokens.
        let registry = Registry::default();
        for number in 1..=agents {
            registry.slot(&format!("bench/a-{number}").parse()?).set_veil(Veil::new([0; 32], &[]));
        }
        // Nobody has work here, and nobody gives any: what it costs to look is part of what is measured.
        let work = Arc::new(SqliteJournal::open(&data.database(), data.epoch())?);
        let (desk, _clerk) = Desk::new(work, Arc::new(Deaf));
        let signs = Signs { desk, registry: registry.clone() };
        let said = Said { health: health.clone(), logs: logs.clone(), registry, signs };
        let handle = DataPlaneHandle::new(Arc::new(OpenHouse), Arc::new(said), limits);
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let addr = listener.local_addr()?;
        let monitor = {
            let health = health.clone();
            Child::actor(ChildSpec::new("health"), move |_| Ok(health.monitor())).0
        };
        let plane = {
            let handle = handle.clone();
            let spec = ChildSpec { placement: Placement::Dedicated, ..ChildSpec::new("data-plane") };
            Child::actor(spec, move |_| Ok(DataPlane::new(&handle, &listener)?)).0
        };
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            System::new().block_on(async move {
                let flags = SupervisorFlags::unlimited(Strategy::OneForOne);
                let root = Root::start(flags, vec![monitor, plane], Arc::new(Unheard));
                let Ok(root) = root else { return };
                let _dropped = ended.await;
                let _ended = root.shutdown().await;
            });
        });
        let (end, thread) = (Some(end), Some(thread));
        let rig = Self { addr, handle, health, logs, feed, seen: Seq(0), _data: data, end, thread };
        let deadline = clock::now() + WAIT;
        while !rig.handle.stats().presence.listening || rig.health.hive().agents.len() != agents {
            ensure!(clock::now() < deadline, "the data plane does not come up");
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(rig)
    }

    /// What opens the session of agent `n`, counted from 1.
    pub fn open(n: usize) -> String {
        let params = json!({"token": "t", "agent": format!("{SWARM}/a-{n}"), "incarnation": 1, "protocol": 1});
        format!("{}\n", json!({"jsonrpc": "2.0", "id": 1, "method": "hive/open", "params": params}))
    }

    /// What says that this was the last: it is folded behind everything before it.
    pub fn last() -> String {
        format!("{}\n", json!({"jsonrpc": "2.0", "method": "hive/event", "params": {"kind": "last"}}))
    }

    /// Waits until so many agents were heard to say their last word.
    pub fn folded(&mut self, agents: usize) -> anyhow::Result<()> {
        let deadline = clock::now() + WAIT;
        let mut heard = 0;
        while heard < agents {
            for event in self.feed.read(self.seen, usize::MAX).context("the feed ran away")? {
                self.seen = event.seq;
                heard += usize::from(matches!(&event.kind, EventKind::AgentSaid { .. }));
            }
            if clock::now() > deadline {
                bail!("{heard} of {agents} were heard to the end");
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        Ok(())
    }

    /// Messages of all agents that were folded so far.
    pub fn received(&self) -> u64 {
        self.health.hive().agents.iter().map(|agent| agent.telemetry.received).sum()
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

fn document(agents: usize) -> anyhow::Result<SwarmDocument> {
    let agent = json!({
        "name": "a", "replicas": agents, "command": ["true"], "env": {}, "restart": "permanent", "ready": "process",
        "start_timeout": "30s", "heartbeat_timeout": "15s", "progress_timeout": "0s", "on_stuck": "report",
        "stop_grace": "10s", "lease": "30s",
    });
    let backoff =
        json!({"initial": "0s", "then": "1s", "factor": 2.0, "max": "60s", "jitter": 0.25, "reset_after": "10m"});
    Ok(serde_json::from_value(json!({
        "name": SWARM, "runtime": "process", "strategy": "one_for_one", "intensity": 5, "period": "60s",
        "on_exceeded": "fail", "backoff": backoff, "env": {}, "agent": [agent],
    }))?)
}
