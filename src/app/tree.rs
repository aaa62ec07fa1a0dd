//! The supervision tree: the daemon's own services in the order in which they need each other, the swarms last.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use actix::{Actor, Context};
use actix_web::web;
use hivekeeper_actors::{
    Child, ChildRef, ChildSpec, EventSink, Intensity, OnExceeded, Placement, Root, Shutdown, StartError, Strategy,
    SupervisorFlags, SupervisorRef,
};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{
    follower::Follower, machine::open_files_allowed, measures::Measures, steward::Steward, work::Coordination,
};
use crate::{
    config::HttpConfig,
    control_plane::{
        Chronicle, Controller, Historian, History, Keyring, Office,
        chronicle::{Scribe, Standings},
    },
    data_plane::{DataPlane, DataPlaneHandle, dialer::DialerHandle},
    events::Feed,
    health,
    http::{self, DocumentReader, HealthReader, Rates, Reloader, STOP_GRACE_S, Server},
    notify::Notifiers,
    runtime::docker::DockerRuntime,
    store::{DataDir, DiskBudget, Retention},
    stream::{Hub, Warden},
    tools::Tools,
};

/// The child under which the swarms are.
pub(super) const SWARMS: &str = "swarms";

/// A service that spent its restarts is tried again after this: the daemon never gives its own up, and readiness shows the lack meanwhile.
const SERVICE_RETRY: Duration = Duration::from_secs(10);

/// Before the whole tree grows anew: long enough that a first supervisor which falls again and again leaves the machine in peace.
const REGROW_PAUSE: Duration = Duration::from_secs(1);

/// The two bound sockets. They outlive the actors that serve on them, so that a restarted one keeps its port.
pub(super) struct Sockets {
    pub(super) http: TcpListener,
    pub(super) http_at: SocketAddr,
    pub(super) data_plane: TcpListener,
    pub(super) data_plane_at: SocketAddr,
}

/// What the services are made of.
pub(super) struct Parts {
    pub(super) data: Arc<DataDir>,
    pub(super) disk: Arc<DiskBudget>,
    pub(super) fenced: Arc<dyn Fn() + Send + Sync>,
    pub(super) scribe: Scribe,
    pub(super) standings: Standings,
    pub(super) coordination: Coordination,
    pub(super) tools: Tools,
    pub(super) history: History,
    pub(super) retention: Retention,
    pub(super) health: health::Handle,
    pub(super) documents: Arc<dyn HealthReader>,
    pub(super) swarm_documents: Arc<dyn DocumentReader>,
    pub(super) reloader: Arc<dyn Reloader>,
    pub(super) feed: Feed,
    pub(super) hub: Hub,
    pub(super) plane: DataPlaneHandle,
    pub(super) sources: Vec<DialerHandle>,
    pub(super) notifiers: Notifiers,
    pub(super) office: Arc<Office>,
    pub(super) engine: Arc<DockerRuntime>,
    pub(super) sockets: Arc<Sockets>,
    pub(super) keys: Keyring,
    pub(super) web: HttpConfig,
    pub(super) measures: Arc<Measures>,
}

/// The tree, and all that it takes to grow it anew: nobody is above its first supervisor.
pub(super) struct Trunk {
    children: Vec<Child>,
    swarms: SupervisorRef,
    controller: ChildRef<Controller>,
    steward: ChildRef<Steward>,
    office: Arc<Office>,
    measures: Arc<Measures>,
    sink: Arc<dyn EventSink>,
    root: Mutex<Arc<Root>>,
}

/// Starts the tree and opens the office.
pub(super) fn start(parts: Parts, sink: Arc<dyn EventSink>) -> Result<Trunk, StartError> {
    let (controller, controller_ref) = controller(&parts.office);
    let (swarms, swarms_ref) = swarms();
    let (steward, steward_ref) = steward(&parts);
    let (office, measures) = (Arc::clone(&parts.office), Arc::clone(&parts.measures));
    let children = vec![
        steward,
        chronicle(&parts).0,
        monitor(&parts.health).0,
        coordination(&parts).0,
        historian(&parts.history).0,
        warden(&parts.hub).0,
        data_plane(&parts).0,
        sources(&parts.sources).0,
        notifiers(&parts.notifiers).0,
        follower(&parts.engine).0,
        swarms,
        controller,
        http(parts).0,
    ];
    Trunk::plant(children, (swarms_ref, controller_ref, steward_ref), (office, measures), sink)
}

impl Trunk {
    fn plant(
        children: Vec<Child>,
        (swarms, controller, steward): (SupervisorRef, ChildRef<Controller>, ChildRef<Steward>),
        (office, measures): (Arc<Office>, Arc<Measures>),
        sink: Arc<dyn EventSink>,
    ) -> Result<Self, StartError> {
        let root = Mutex::new(Arc::new(grow(&children, &sink)?));
        let trunk = Self { children, swarms, controller, steward, office, measures, sink, root };
        trunk.open_office();
        Ok(trunk)
    }

    /// The tree as it stands.
    pub(super) fn root(&self) -> Arc<Root> {
        Arc::clone(&self.root.lock())
    }

    /// Lets the tree grow anew whenever its first supervisor ends, which only a bug can make it. The same children start again, each when what is
    /// left of its last life has ended; swarms come back from the journal.
    pub(super) async fn keep(&self) -> ! {
        loop {
            let reason = self.root().done().await;
            tracing::error!(%reason, "the first supervisor ended; the tree grows anew");
            loop {
                tokio::time::sleep(REGROW_PAUSE).await;
                match grow(&self.children, &self.sink) {
                    Ok(root) => break *self.root.lock() = Arc::new(root),
                    Err(error) => tracing::error!(%error, "failed to let the tree grow anew"),
                }
            }
            self.open_office();
        }
    }

    /// Ends when the tree, the services and the control plane have each taken a turn since it began.
    ///
    /// # Errors
    /// Who does not even take requests.
    pub(super) async fn prove(&self) -> Result<(), &'static str> {
        let supervisor = self.root().supervisor();
        supervisor.snapshot().await.map_err(|_| "the supervision tree")?;
        turn(&self.steward).await.ok_or("the services")?;
        turn(&self.controller).await.ok_or("the control plane")
    }

    fn open_office(&self) {
        let root = self.root();
        self.measures.know(&root);
        self.office.open(root.supervisor(), self.swarms.clone(), self.controller.clone());
    }
}

/// The actor runs what it is given, in its turn.
async fn turn<A: Actor<Context = Context<A>>>(actor: &ChildRef<A>) -> Option<()> {
    let (turned, turn) = oneshot::channel();
    // Who no longer waits for it is told in vain.
    let answer = move |_: &mut A, _: &mut Context<A>| _ = turned.send(());
    actor.run(answer).ok()?;
    turn.await.ok()
}

fn grow(children: &[Child], sink: &Arc<dyn EventSink>) -> Result<Root, StartError> {
    Root::start(SupervisorFlags::unlimited(Strategy::OneForOne), children.to_vec(), Arc::clone(sink))
}

fn service(name: &str) -> ChildSpec {
    ChildSpec {
        intensity: Some(Intensity::default()),
        on_exceeded: OnExceeded::RetryAfter(SERVICE_RETRY),
        ..ChildSpec::new(name)
    }
}

/// Each swarm comes under it by the controller's hand. None depends on another, so they are stopped side by side.
fn swarms() -> (Child, SupervisorRef) {
    Child::supervisor(service(SWARMS), SupervisorFlags::unlimited(Strategy::SimpleOneForOne), Vec::new())
}

fn steward(parts: &Parts) -> (Child, ChildRef<Steward>) {
    let (data, health, fenced) = (Arc::clone(&parts.data), parts.health.clone(), Arc::clone(&parts.fenced));
    let (plane, disk) = (parts.plane.clone(), Arc::clone(&parts.disk));
    let steward =
        move || Steward::new(Arc::clone(&data), health.clone(), plane.clone(), Arc::clone(&disk), Arc::clone(&fenced));
    Child::actor(service("steward"), move |_| Ok(steward()))
}

fn chronicle(parts: &Parts) -> (Child, ChildRef<Chronicle>) {
    let (scribe, standings) = (parts.scribe.clone(), parts.standings.clone());
    let (health, retention) = (parts.health.clone(), parts.retention);
    let chronicle = move || Chronicle::new(scribe.clone(), standings.clone(), health.clone(), retention);
    Child::actor(service("journal"), move |_| Ok(chronicle()))
}

fn coordination(parts: &Parts) -> (Child, ChildRef<Coordination>) {
    let made = parts.coordination.clone();
    // All decisions are made on its thread, a burst of them at a time: it must not hold up the services beside it.
    let spec = ChildSpec { placement: Placement::Dedicated, ..service("coordination") };
    Child::actor(spec, move |_| Ok(made.clone()))
}

fn monitor(health: &health::Handle) -> (Child, ChildRef<health::Monitor>) {
    let health = health.clone();
    Child::actor(service("health"), move |_| Ok(health.monitor()))
}

fn historian(history: &History) -> (Child, ChildRef<Historian>) {
    let history = history.clone();
    Child::actor(service("history"), move |_| Ok(Historian::new(history.clone())))
}

fn warden(hub: &Hub) -> (Child, ChildRef<Warden>) {
    let hub = hub.clone();
    Child::actor(service("viewers"), move |_| Ok(hub.warden()))
}

fn data_plane(parts: &Parts) -> (Child, ChildRef<DataPlane>) {
    let (plane, sockets) = (parts.plane.clone(), Arc::clone(&parts.sockets));
    // All that agents send is read on its thread: a flood must not hold up the services beside it.
    let spec = ChildSpec { placement: Placement::Dedicated, ..service("data-plane") };
    Child::actor(spec, move |_| Ok(DataPlane::new(&plane, &sockets.data_plane)?))
}

/// One actor for each polled MCP server. None depends on another, and one that spends its restarts is tried again alone.
fn sources(handles: &[DialerHandle]) -> (Child, SupervisorRef) {
    let children = handles.iter().cloned().map(|handle| {
        let spec = service(handle.name().as_str());
        Child::actor(spec, move |_| Ok(handle.dialer())).0
    });
    Child::supervisor(service("sources"), SupervisorFlags::unlimited(Strategy::OneForOne), children.collect())
}

/// One actor for each who is told. None depends on another, and one that spends its restarts is tried again alone.
fn notifiers(handles: &Notifiers) -> (Child, SupervisorRef) {
    let children = handles.all().iter().cloned().map(|notifier| {
        let spec = service(notifier.name().as_str());
        Child::actor(spec, move |_| Ok(notifier.courier())).0
    });
    Child::supervisor(service("notifiers"), SupervisorFlags::unlimited(Strategy::OneForOne), children.collect())
}

fn follower(engine: &Arc<DockerRuntime>) -> (Child, ChildRef<Follower>) {
    let engine = Arc::clone(engine);
    Child::actor(service("engine"), move |_| Ok(Follower(Arc::clone(&engine))))
}

fn controller(office: &Arc<Office>) -> (Child, ChildRef<Controller>) {
    let office = Arc::clone(office);
    Child::actor(service("control-plane"), move |_| Ok(Controller::new(Arc::clone(&office))))
}

fn http(parts: Parts) -> (Child, ChildRef<Server>) {
    let Parts {
        documents,
        swarm_documents,
        reloader,
        feed,
        hub,
        office,
        tools,
        sockets,
        keys,
        web,
        measures,
        notifiers,
        ..
    } = parts;
    let hub = web::Data::new(hub);
    let deps = http::Deps {
        control: office,
        health: documents,
        documents: swarm_documents,
        reloader,
        tools,
        feed,
        keys,
        hosts: web.hosts,
        tls: web.tls,
        sockets: Arc::new(move |config| {
            config.app_data(hub.clone());
        }),
        limits: http::Limits {
            rates: Rates { reads_per_second: web.reads_per_second, commands_per_second: web.commands_per_second },
            ..http::Limits::with_open_files(open_files_allowed())
        },
        metrics: measures,
        notifiers,
    };
    let mut spec = service("http");
    // Its own grace and a little.
    spec.shutdown = Shutdown::Deadline(Duration::from_secs(STOP_GRACE_S + 2));
    let make = move |child: hivekeeper_actors::ChildCtx<Server>| {
        Ok(Server::new(&sockets.http, deps.clone(), Box::new(move |ctx, why| child.fail(ctx, why)))?)
    };
    Child::actor(spec, make)
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
