//! Frames a second to many viewers.

use std::{
    net::{SocketAddr, TcpListener},
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

use actix::Actor;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, dev::ServerHandle, rt::System, web};
use anyhow::{Context, ensure};
use hivekeeper::{
    events::Feed,
    health::{Handle, Identity, Options},
    model::{AgentHealth, AgentState, Epoch, EventKind, HiveId, Reason, Seq},
    stream::{Hub, StreamLimits, hybrid_health, keep_socket},
};
use parking_lot::Mutex;
use uuid::Uuid;

use crate::{
    readers::{self, Readers},
    support::{
        clock,
        figures::{median_of, table},
    },
};

const VIEWERS: usize = 1000;
/// Messages a round with one on the way: half a second of work or more.
const MESSAGES_ONE: u32 = 100;
/// With many.
const MESSAGES_MANY: u32 = 400;
/// Messages that viewers may be behind: what a session of actix-ws holds.
const BEHIND_MAX: u64 = 32;
const ROUND_WAIT: Duration = Duration::from_secs(60);

/// One round.
#[derive(Clone, Copy)]
struct Round {
    frames_per_second: f64,
    cpu_us: f64,
}

pub(crate) fn run(rounds: usize) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    let modes = [("one", 1, MESSAGES_ONE), ("many", BEHIND_MAX, MESSAGES_MANY)];
    let mut results: [[Vec<Round>; 2]; 2] = Default::default();
    for _ in 0..rounds {
        let ours = Ours::start()?;
        let readers = Readers::connect(ours.server.address, VIEWERS)?;
        readers.until(2 * VIEWERS as u64, ROUND_WAIT)?;
        for ((_, behind, messages), result) in modes.iter().zip(&mut results) {
            result[0].push(round(&readers, *behind, *messages, |n| ours.publish(n))?);
        }
        ensure!(readers.broken() == 0, "{} frames did not follow on the one before", readers.broken());
        drop(readers);
        drop(ours);
        let bare = Bare::start()?;
        let readers = Readers::connect(bare.server.address, VIEWERS)?;
        while bare.sessions.lock().len() < VIEWERS {
            std::thread::sleep(Duration::from_millis(5));
        }
        for ((_, behind, messages), result) in modes.iter().zip(&mut results) {
            result[1].push(round(&readers, *behind, *messages, |_| bare.publish())?);
        }
    }
    for ((mode, _, _), [ours, bare]) in modes.iter().zip(&results) {
        let median = |rounds: &[Round], pick: fn(&Round) -> f64| {
            median_of(rounds.iter().map(pick).collect()).context("no rounds")
        };
        let (rate, rate_bare) = (median(ours, |r| r.frames_per_second)?, median(bare, |r| r.frames_per_second)?);
        let (cpu, cpu_bare) = (median(ours, |r| r.cpu_us)?, median(bare, |r| r.cpu_us)?);
        rows.push(vec![
            format!("hivekeeper, {mode}"),
            format!("{rate:.0}"),
            format!("{cpu:.2}"),
            format!("{:.2}", rate / rate_bare),
        ]);
        rows.push(vec![
            format!("actix-ws, {mode}"),
            format!("{rate_bare:.0}"),
            format!("{cpu_bare:.2}"),
            "1.00".to_owned(),
        ]);
    }
    table(
        &format!("{VIEWERS} viewers, messages of {} bytes", text(1).len()),
        &["server", "frames/s", "CPU us/frame", "ratio"],
        &rows,
    );
    Ok(())
}

/// Publishes so many messages, never more than `behind` ahead of all viewers together.
fn round(readers: &Readers, behind: u64, messages: u32, mut publish: impl FnMut(u64)) -> anyhow::Result<Round> {
    let (viewers, messages) = (VIEWERS as u64, u64::from(messages));
    let (begin, before) = (clock::now(), readers.frames());
    let cpu = || Duration::from_nanos(readers::cpu(libc::CLOCK_PROCESS_CPUTIME_ID)).saturating_sub(readers.cpu());
    let cpu_before = cpu();
    for n in 0..messages {
        publish(n);
        readers.until(before + (n + 1).saturating_sub(behind - 1) * viewers, ROUND_WAIT)?;
    }
    readers.until(before + messages * viewers, ROUND_WAIT)?;
    let took = clock::now() - begin;
    std::thread::sleep(Duration::from_millis(5));
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let frames = (messages * viewers) as f64;
    Ok(Round {
        frames_per_second: frames / took.as_secs_f64(),
        cpu_us: (cpu() - cpu_before).as_secs_f64() * 1e6 / frames,
    })
}

/// A server in a thread of its own.
struct Server {
    address: SocketAddr,
    stop: Option<(ServerHandle, System)>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(
        before: impl FnOnce() + Send + 'static,
        routes: impl Fn(&mut web::ServiceConfig) + Send + Clone + 'static,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let (ready, started) = mpsc::sync_channel(1);
        let thread = std::thread::spawn(move || {
            System::new().block_on(async move {
                before();
                let server = HttpServer::new(move || App::new().configure(routes.clone()))
                    .on_connect(keep_socket)
                    .workers(2)
                    .max_connections(2 * VIEWERS)
                    .tcp_nodelay(true)
                    .disable_signals()
                    .shutdown_timeout(1)
                    .listen(listener);
                match server {
                    Ok(server) => {
                        let server = server.run();
                        let _ = ready.send((server.handle(), System::current()));
                        let _ = server.await;
                    }
                    Err(error) => eprintln!("no server: {error}"),
                }
            });
        });
        let stop = Some(started.recv().context("the server did not start")?);
        Ok(Self { address, stop, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some((server, system)) = self.stop.take() {
            System::new().block_on(server.stop(false));
            system.stop();
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Ours {
    server: Server,
    feed: Feed,
}

impl Ours {
    fn start() -> anyhow::Result<Self> {
        let feed = Feed::new(Epoch(1), Seq(1));
        let identity =
            Identity { hive: HiveId(Uuid::nil()), name: "bench".to_owned(), sample_interval: Duration::from_secs(5) };
        let health = Handle::new(Options { identity, feed: feed.clone(), on_stuck: Arc::new(|_, _| {}) });
        let hub = Hub::new(StreamLimits::default(), feed.clone(), health);
        let warden = hub.clone();
        let before = move || drop(warden.warden().start());
        let hub = web::Data::new(hub);
        let routes = move |config: &mut web::ServiceConfig| {
            config.app_data(hub.clone()).route("/ws/hybrid-health", web::get().to(hybrid_health));
        };
        Ok(Self { server: Server::start(before, routes)?, feed })
    }

    fn publish(&self, n: u64) {
        self.feed.publish(SystemTime::now(), EventKind::AgentChanged { from: None, agent: agent(n) });
    }
}

fn agent(n: u64) -> Arc<AgentHealth> {
    #[expect(clippy::unwrap_used, reason = "a name that is one")]
    let id = "review/coder".parse().unwrap();
    Arc::new(AgentHealth {
        state: AgentState::BackingOff,
        reasons: vec![Reason { code: "restart_delayed", detail: "exited with 1; tried again soon".to_owned() }],
        incarnation: n,
        restarts: n,
        ..AgentHealth::unknown(id, SystemTime::now())
    })
}

/// A text as long as one of our frames.
fn text(n: u64) -> String {
    let view = serde_json::to_string(&hivekeeper::view::agent(&agent(n))).unwrap_or_default();
    let head = r#"{"type":"session_update","epoch":1,"seq":1000,"prev_seq":999,"observed_at":"2026-11-21T19:00:00.000Z","sent_at":"2026-11-21T19:00:00.000Z","#;
    format!(r#"{head}"agents":[{view}],"swarms":[],"removed":[]}}"#)
}

/// The bare loop.
struct Bare {
    server: Server,
    sessions: Arc<Mutex<Vec<actix_ws::Session>>>,
    messages: Option<tokio::sync::mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

async fn let_in(
    request: HttpRequest,
    body: web::Payload,
    sessions: web::Data<Mutex<Vec<actix_ws::Session>>>,
) -> Result<HttpResponse, actix_web::Error> {
    let (response, session, mut messages) = actix_ws::handle(&request, body)?;
    let mut own = session.clone();
    actix_web::rt::spawn(async move {
        while let Some(Ok(message)) = messages.recv().await {
            if let actix_ws::Message::Ping(payload) = message
                && own.pong(&payload).await.is_err()
            {
                return;
            }
        }
    });
    sessions.lock().push(session);
    Ok(response)
}

/// The text that a message holds, shared by all who get it; its type is another crate's.
fn shared<T: From<String>>(_: fn(T) -> actix_ws::Message, text: String) -> T {
    text.into()
}

impl Bare {
    fn start() -> anyhow::Result<Self> {
        let sessions = web::Data::new(Mutex::new(Vec::<actix_ws::Session>::new()));
        let data = sessions.clone();
        let server = Server::start(
            || {},
            move |config| {
                config.app_data(data.clone()).route("/ws/hybrid-health", web::get().to(let_in));
            },
        )?;
        let sessions = sessions.into_inner();
        let (messages, mut next) = tokio::sync::mpsc::channel(MESSAGES_MANY as usize);
        let viewers = Arc::clone(&sessions);
        let thread = std::thread::spawn(move || {
            System::new().block_on(async move {
                let text = shared(actix_ws::Message::Text, text(1));
                while next.recv().await.is_some() {
                    let all = viewers.lock().clone();
                    for mut session in all {
                        let _ = session.text(text.clone()).await;
                    }
                }
            });
        });
        Ok(Self { server, sessions, messages: Some(messages), thread: Some(thread) })
    }

    fn publish(&self) {
        if let Some(messages) = &self.messages {
            let _ = messages.blocking_send(());
        }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        drop(self.messages.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.sessions.lock().clear();
    }
}
