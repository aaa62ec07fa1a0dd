//! The server as an actor that can be supervised: made anew from the same listener, it keeps the port.

use std::{
    io,
    net::TcpListener,
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use actix::{Actor, ActorContext, ActorFutureExt as _, AsyncContext, Context, Running, WrapFuture as _};
use actix_web::{App, HttpServer, dev::ServerHandle, http::KeepAlive, middleware::from_fn, web, web::ServiceConfig};
use tokio::sync::watch;

use super::{
    audit::Book,
    connections::Connections,
    documents::DocumentReader,
    guard::{self, Gate},
    hosts::Hosts,
    metrics::MetricsReader,
    openapi::Described,
    pace::Pace,
    pages::Pages,
    reload::Reloader,
    routes,
    sse::Streams,
    table::{self, Scopes},
};
use crate::{
    control_plane::{Control, Keyring},
    events::Feed,
    mcp::{Endpoint, Mcp},
    model::{AgentHealth, AgentId, HiveHealth, SwarmHealth, SwarmName},
    notify::Notifiers,
    tls::{Stamps, TlsFiles},
    tools::Tools,
};

/// Threads that serve. Requests are small and never block: one would do, the second keeps probes answered beside a large document.
const WORKERS: usize = 2;
/// Of the open files that the system allows us, one in so many may be a connection's; agents and viewers' second descriptors need the rest.
const FILES_PER_CONNECTION: u64 = 4;
/// How long the farewell of a connection may take.
const DISCONNECT_DEADLINE: Duration = Duration::from_secs(2);
/// Seconds that requests under way may take to end once the server was asked to stop; streams are ended at once. A supervisor's deadline for
/// the actor must be longer.
pub const STOP_GRACE_S: u64 = 3;

/// Between two looks at who has not asked lately, and at refusals that are to be told.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// Between two looks at the files of the certificate: two calls for the state of a file each.
const CERTIFICATE_EVERY: Duration = Duration::from_secs(2);
/// Between two writes of when tokens were used, which is kept to the minute.
const USES_EVERY: Duration = Duration::from_secs(60);

/// How many requests a second are allowed in the long run, of each peer and with each token; five seconds' worth may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// Of those that read. 5,000: a thousand dashboards behind one proxy, each with several requests a second.
    pub reads_per_second: NonZeroU32,
    /// Of those that need `control`. 200: a script that restarts a thousand agents in a loop is not slowed.
    pub commands_per_second: NonZeroU32,
}

impl Default for Rates {
    fn default() -> Self {
        const READS: NonZeroU32 = NonZeroU32::new(5_000).unwrap();
        const COMMANDS: NonZeroU32 = NonZeroU32::new(200).unwrap();
        Self { reads_per_second: READS, commands_per_second: COMMANDS }
    }
}

/// The server's bounds in time and number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections of each of the two workers. Beyond them newcomers wait in the listener's backlog. 1536: together the 2048 viewers of the
    /// health of the hive, and a thousand for all else.
    pub connections_per_worker: usize,
    /// Event streams that are open at once, each a connection. 128: several windows for each of some operators and scripts, and a quarter of
    /// the connections, so that plain requests always find room.
    pub streams: usize,
    /// How long the head of a first request may take to arrive: 5 s.
    pub head_deadline: Duration,
    /// How long the body of a request may take to arrive: 10 s, which 64 KiB take on a bad telephone line.
    pub body_deadline: Duration,
    /// How long a connection may wait for its next request, the head's arrival included: 30 s.
    pub idle_deadline: Duration,
    /// How long a client may leave our bytes unread before the kernel cuts it off (TCP_USER_TIMEOUT; covers a closed window, too). 20 s: above
    /// the 15 s after which a WebSocket viewer is judged, so that such a viewer is dropped by its own rule and counted there.
    pub write_deadline: Duration,
    /// Silence on an event stream after which a comment is sent. 15 s: proxies cut idle connections after 30 or 60 s.
    pub stream_keep_alive: Duration,
    /// How fast anybody may ask.
    pub rates: Rates,
}

impl Limits {
    /// Connections of one peer: three quarters of all, so that one alone can't shut the others out. All viewers may come by one proxy.
    fn connections_per_peer(&self) -> usize {
        (self.connections_per_worker * WORKERS * 3 / 4).max(1)
    }

    /// The default, on a machine that allows us so many open files: all connections take a quarter of them at most.
    pub fn with_open_files(files: u64) -> Self {
        let limits = Self::default();
        let fitting = usize::try_from(files / FILES_PER_CONNECTION).unwrap_or(usize::MAX) / WORKERS;
        Self { connections_per_worker: limits.connections_per_worker.min(fitting.max(1)), ..limits }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_per_worker: 1536,
            streams: 128,
            head_deadline: Duration::from_secs(5),
            body_deadline: Duration::from_secs(10),
            idle_deadline: Duration::from_secs(30),
            write_deadline: Duration::from_secs(20),
            stream_keep_alive: Duration::from_secs(15),
            rates: Rates::default(),
        }
    }
}

/// The health documents, as the health room keeps them.
pub trait HealthReader: Send + Sync {
    /// The whole document.
    fn hive(&self) -> Arc<HiveHealth>;
    /// One swarm; `None` when it is not part of the hive.
    fn swarm(&self, name: &SwarmName) -> Option<Arc<SwarmHealth>>;
    /// One agent.
    fn agent(&self, id: &AgentId) -> Option<Arc<AgentHealth>>;
}

/// What the server needs from the other rooms.
#[derive(Clone)]
pub struct Deps {
    /// Where commands are handed in and desired state is read.
    pub control: Arc<dyn Control>,
    /// What work that agents share is asked for with.
    pub tools: Tools,
    /// What was seen.
    pub health: Arc<dyn HealthReader>,
    /// Reads swarm documents.
    pub documents: Arc<dyn DocumentReader>,
    /// Reads the configuration again.
    pub reloader: Arc<dyn Reloader>,
    /// What happens.
    pub feed: Feed,
    /// Who may come in.
    pub keys: Keyring,
    /// Names under which we are reached beside the bound address and loopback: `[http] hosts`.
    pub hosts: Vec<String>,
    /// What is shown to whoever connects; `None` speaks plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Adds what the viewers' routes need of their own room: its hub.
    pub sockets: Arc<dyn Fn(&mut ServiceConfig) + Send + Sync>,
    /// Bounds; the defaults say why.
    pub limits: Limits,
    /// What `/metrics` shows beside the health document.
    pub metrics: Arc<dyn MetricsReader>,
    /// Who is told when something is wrong.
    pub notifiers: Notifiers,
}

/// Tells the supervisor that the server ended by itself, and why.
pub type OnFailure = Box<dyn Fn(&mut Context<Server>, String)>;

/// The server.
pub struct Server {
    server: Option<actix_web::dev::Server>,
    handle: ServerHandle,
    closing: watch::Sender<bool>,
    endpoint: Endpoint,
    state: State,
    gate: Arc<Gate>,
    tls: Option<TlsFiles>,
    /// How the certificate's files looked at the last look.
    stamps: Option<Stamps>,
    on_failure: OnFailure,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Serving,
    Stopping,
    Ended,
}

impl Server {
    /// A server on a clone of the listener. It serves once the actor is started.
    ///
    /// # Errors
    /// The listener can't be cloned or used.
    pub fn new(listener: &TcpListener, deps: Deps, on_failure: OnFailure) -> io::Result<Self> {
        let listener = listener.try_clone()?;
        let tls = deps.tls.clone();
        let hosts = Hosts::new(listener.local_addr()?, &deps.hosts, tls.is_some());
        let rows = routes::table();
        let described = web::Data::new(Described::of(&rows, !deps.keys.open_to_all())?);
        let gate = web::Data::new(Gate {
            keys: deps.keys.clone(),
            hosts,
            scopes: Scopes::of(&rows),
            pace: Pace::new(deps.limits.rates),
            book: Book::new(deps.feed.clone(), Instant::now()),
        });
        let (closing, closed) = watch::channel(false);
        let streams = web::Data::new(Streams::new(closed, deps.limits));
        let endpoint = Endpoint::new(Mcp::new(deps.tools.clone()));
        let mcp = web::Data::new(endpoint.clone());
        let limits = deps.limits;
        let deps = web::Data::new(deps);
        let pages = web::Data::new(Pages::default());
        let kept = gate.clone().into_inner();
        let connections = Connections::new(limits.connections_per_peer(), limits.write_deadline);
        let app = move || {
            let sockets = Arc::clone(&deps.sockets);
            App::new()
                .app_data(gate.clone())
                .app_data(streams.clone())
                .app_data(mcp.clone())
                .app_data(deps.clone())
                .app_data(pages.clone())
                .app_data(described.clone())
                .configure(move |config| sockets(config))
                .configure(|config| table::register(routes::table(), config))
                .default_service(web::to(routes::not_found))
                .wrap(from_fn(guard::guard))
        };
        let server = HttpServer::new(app)
            .workers(WORKERS)
            .max_connections(limits.connections_per_worker)
            .client_request_timeout(limits.head_deadline)
            .client_disconnect_timeout(DISCONNECT_DEADLINE)
            .keep_alive(KeepAlive::Timeout(limits.idle_deadline))
            // Who has hung up waits for nothing any more: what is under way for him is dropped.
            .h1_allow_half_closed(false)
            // A frame waits for no other: with Nagle it would wait 40 ms for a delayed acknowledgement.
            .tcp_nodelay(true)
            .shutdown_timeout(STOP_GRACE_S)
            .disable_signals()
            .tls_handshake_timeout(limits.head_deadline)
            .on_connect(move |connection, data| connections.enter(connection, data));
        let server = match &tls {
            Some(files) => server.listen_rustls_0_23(listener, files.tls.server_config())?,
            None => server.listen(listener)?,
        };
        let server = server.run();
        let handle = server.handle();
        Ok(Self {
            server: Some(server),
            handle,
            closing,
            endpoint,
            state: State::Serving,
            gate: kept,
            tls,
            stamps: None,
            on_failure,
        })
    }

    /// Takes a new certificate up once its files have changed. The first look reads them in any case: they may have changed since the configuration was.
    fn look_at_certificate(&mut self, context: &mut Context<Self>) {
        let Some(files) = self.tls.clone() else { return };
        let before = self.stamps;
        let look = async move {
            let stamps = files.stamps().await;
            if before != Some(stamps) {
                match files.reload().await {
                    Ok(()) if before.is_none() => {}
                    Ok(()) => tracing::info!(certificate = %files.certificate.display(), "a new certificate is shown"),
                    Err(error) => {
                        let error = anyhow::Error::new(error);
                        tracing::error!("the certificate before is kept: {error:#}");
                    }
                }
            }
            stamps
        };
        context.spawn(look.into_actor(self).map(|stamps, actor, _| actor.stamps = Some(stamps)));
    }

    fn ended(&mut self, result: io::Result<()>, context: &mut Context<Self>) {
        let was = std::mem::replace(&mut self.state, State::Ended);
        if was == State::Stopping {
            context.stop();
            return;
        }
        let why = result.err().map_or_else(|| "the server ended by itself".to_owned(), |error| error.to_string());
        tracing::error!(why, "http server ended");
        (self.on_failure)(context, why);
    }
}

impl Actor for Server {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        if let Some(server) = self.server.take() {
            // Dropping the actor drops the server, which closes its clone of the listener and ends its workers.
            context.spawn(server.into_actor(self).map(|result, actor, context| actor.ended(result, context)));
        }
        context.run_interval(SWEEP_EVERY, |actor, _| {
            actor.gate.pace.tidy();
            actor.gate.book.tidy(Instant::now());
        });
        context.run_interval(CERTIFICATE_EVERY, Self::look_at_certificate);
        context.run_interval(USES_EVERY, |actor, context| {
            let keys = actor.gate.keys.clone();
            let write = async move {
                if let Err(error) = keys.tidy(SystemTime::now()).await {
                    tracing::warn!(%error, "failed to write down when tokens were used");
                }
            };
            context.spawn(write.into_actor(actor));
        });
    }

    fn stopping(&mut self, _: &mut Self::Context) -> Running {
        match self.state {
            State::Ended => Running::Stop,
            State::Stopping => Running::Continue,
            State::Serving => {
                self.state = State::Stopping;
                self.closing.send_replace(true);
                self.endpoint.close();
                // The order is given by the call; its end shows as the end of the server.
                drop(self.handle.stop(true));
                Running::Continue
            }
        }
    }
}
