//! A real HTTP server on a loopback port before a scripted control plane, and a client that shows the bytes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use actix::{Actor as _, ActorContext as _, Addr, Context, Handler, Message};
use actix_web::{HttpRequest, HttpResponse, web, web::ServiceConfig};
use actix_web_actors::ws;
use hivekeeper::{
    control_plane::{Control, Keyring},
    coordination::{self, WorkChanges, WorkWitness},
    events::Feed,
    http::{Deps, DocumentReader, HealthReader, Limits, MetricsReader, Reloader, Server},
    model::{Epoch, Seq},
    store::{DataDir, Options, SqliteJournal, WorkStore},
    tls::TlsFiles,
    tools::{House, Tools},
};

pub(crate) use crate::http_desk::*;

/// Longest wait for anything that should happen at once.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// What a test may set about its server.
#[derive(Default)]
pub(crate) struct Setup {
    pub(crate) token: Option<&'static str>,
    pub(crate) hosts: Vec<String>,
    pub(crate) limits: Limits,
    pub(crate) tls: Option<TlsFiles>,
    /// How long it may run before it is taken for forgotten; five minutes where nothing is said.
    pub(crate) life: Option<Duration>,
    /// Routes of other rooms; what stands in for them when a test brings none.
    pub(crate) sockets: Option<Routes>,
}

pub(crate) type Routes = Arc<dyn Fn(&mut ServiceConfig) + Send + Sync>;

/// A running server; dropping it stops the server and joins its thread.
pub(crate) struct Hive {
    pub(crate) address: SocketAddr,
    pub(crate) desk: Arc<Desk>,
    pub(crate) feed: Feed,
    pub(crate) keys: Keyring,
    server: Addr<Server>,
    thread: Option<std::thread::JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

/// Nothing happens here that somebody would have to hear.
struct Unheard;

impl WorkWitness for Unheard {
    fn changed(&self, _: &WorkChanges) {}
}

/// A WebSocket that says what it hears.
struct Echo;

impl actix::Actor for Echo {
    type Context = ws::WebsocketContext<Self>;
}

impl actix::StreamHandler<Result<ws::Message, ws::ProtocolError>> for Echo {
    fn handle(&mut self, message: Result<ws::Message, ws::ProtocolError>, context: &mut Self::Context) {
        if let Ok(ws::Message::Text(text)) = message {
            context.text(text);
        }
    }
}

async fn echo(request: HttpRequest, payload: web::Payload) -> Result<HttpResponse, actix_web::Error> {
    ws::start(Echo, &request, payload)
}

/// What other rooms' routes may do.
fn stand_ins(config: &mut ServiceConfig) {
    config.route("/ws/hybrid-health", web::get().to(|| async { "a socket" }));
    config.route("/ws/echo", web::get().to(echo));
    let full = || async { HttpResponse::ServiceUnavailable().insert_header(("retry-after", "5")).finish() };
    config.route("/ws/full", web::get().to(full));
    config.route(
        "/ws/broken",
        web::get().to(|| async { Err::<&str, _>(actix_web::error::ErrorImATeapot("a secret of the framework")) }),
    );
}

/// Asks the server to stop, as its supervisor does.
#[derive(Message)]
#[rtype(result = "()")]
struct Stop;

/// Drops the server as a panic of it would.
#[derive(Message)]
#[rtype(result = "()")]
struct Kill;

impl Handler<Kill> for Server {
    type Result = ();
    fn handle(&mut self, _: Kill, context: &mut Context<Self>) {
        context.terminate();
    }
}

impl Handler<Stop> for Server {
    type Result = ();
    fn handle(&mut self, _: Stop, context: &mut Context<Self>) {
        context.stop();
    }
}

pub(crate) fn hive(setup: Setup) -> Hive {
    hive_on(TcpListener::bind("127.0.0.1:0").unwrap(), setup)
}

pub(crate) fn hive_on(listener: TcpListener, setup: Setup) -> Hive {
    let address = listener.local_addr().unwrap();
    let desk = Arc::new(Desk::new());
    let feed = Feed::new(Epoch(7), Seq(100));
    let dir = tempfile::Builder::new().prefix("hk").tempdir_in("/tmp").unwrap();
    let data = DataDir::open(dir.path(), "test", Options::default()).unwrap();
    let journal = Arc::new(SqliteJournal::open(&data.database(), data.epoch()).unwrap());
    let (work, clerk) = coordination::Desk::new(Arc::clone(&journal) as Arc<dyn WorkStore>, Arc::new(Unheard));
    let keys = Keyring::new(journal, setup.token);
    let deps = Deps {
        control: Arc::clone(&desk) as Arc<dyn Control>,
        health: Arc::clone(&desk) as Arc<dyn HealthReader>,
        documents: Arc::clone(&desk) as Arc<dyn DocumentReader>,
        reloader: Arc::clone(&desk) as Arc<dyn Reloader>,
        tools: Tools::new(work, Arc::clone(&desk) as Arc<dyn House>),
        feed: feed.clone(),
        keys: keys.clone(),
        hosts: setup.hosts,
        tls: setup.tls,
        sockets: setup.sockets.unwrap_or_else(|| Arc::new(stand_ins)),
        limits: setup.limits,
        metrics: Arc::clone(&desk) as Arc<dyn MetricsReader>,
        notifiers: hivekeeper::notify::Notifiers::default(),
    };
    let life = setup.life.unwrap_or(Duration::from_secs(300));
    let (started, start) = mpsc::sync_channel(1);
    let thread = std::thread::spawn(move || {
        actix_rt::System::new().block_on(async move {
            actix_rt::spawn(clerk.run());
            let on_failure = Box::new(|_: &mut Context<Server>, why: String| panic!("the server ended: {why}"));
            let server = Server::new(&listener, deps, on_failure).unwrap().start();
            started.send(server.clone()).unwrap();
            let deadline = Instant::now() + life;
            while server.connected() {
                assert!(Instant::now() < deadline, "the server was never stopped");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    });
    let server = start.recv().unwrap();
    Hive { address, desk, feed, keys, server, thread: Some(thread), _dir: dir }
}

impl Hive {
    /// Asks the server to stop and waits until it has.
    pub(crate) fn stop(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = self.server.try_send(Stop);
            thread.join().unwrap();
        }
    }

    /// Ends the server without asking it, and waits until its thread is gone.
    pub(crate) fn kill(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.server.try_send(Kill).unwrap();
            thread.join().unwrap();
        }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_write_timeout(Some(SOON)).unwrap();
        stream
    }

    /// Sends bytes on a connection of their own and reads until the server closes it.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Reply {
        let mut stream = self.connect();
        stream.write_all(bytes).unwrap();
        Reply::read(&mut stream)
    }

    /// One request with our own Host; `headers` are whole lines, a Host among them replaces it.
    pub(crate) fn send(&self, method: &str, path: &str, headers: &[&str], body: &str) -> Reply {
        let mut text = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        if !headers.iter().any(|header| header.to_ascii_lowercase().starts_with("host:")) {
            text += &format!("Host: {}\r\n", self.address);
        }
        if !body.is_empty() {
            text += &format!("Content-Length: {}\r\n", body.len());
        }
        for header in headers {
            text += &format!("{header}\r\n");
        }
        self.raw(format!("{text}\r\n{body}").as_bytes())
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], "")
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> Reply {
        self.send("POST", path, &["Content-Type: application/json"], body)
    }

    /// Opens an event stream; its head is checked.
    pub(crate) fn stream(&self, path: &str, headers: &[&str]) -> EventStream {
        EventStream::open(self.connect(), path, &self.address.to_string(), headers)
    }
}

impl Drop for Hive {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.server.try_send(Stop);
        } else {
            self.stop();
        }
    }
}

/// One answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: String,
}

impl Reply {
    fn read(stream: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        // A server that refuses without reading everything may reset the connection behind its answer; one that never ends it is wrong.
        if let Err(error) = stream.read_to_end(&mut bytes) {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{:?}", String::from_utf8_lossy(&bytes));
        }
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers =
            lines.filter_map(|line| line.split_once(": ")).map(|(k, v)| (k.to_ascii_lowercase(), v.to_owned()));
        Self { status, headers: headers.collect(), body: body.to_owned() }
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Checks that this is a problem document with this status and code, and returns its detail.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, code: &str) -> String {
        assert_eq!((self.status, self.header("content-type")), (status, "application/problem+json"), "{self:?}");
        let json = self.json();
        assert_eq!(
            (&json["status"], &json["code"], &json["type"]),
            (&status.into(), &code.into(), &format!("/api/v1/problems#{code}").into()),
            "{self:?}"
        );
        assert!(json["title"].is_string() && json["instance"].is_string(), "{self:?}");
        json["detail"].as_str().unwrap().to_owned()
    }
}

/// An open event stream.
pub(crate) struct EventStream {
    reader: BufReader<TcpStream>,
    text: String,
}

/// One frame of it.
#[derive(Debug, PartialEq)]
pub(crate) struct Frame {
    pub(crate) id: Option<u64>,
    pub(crate) event: String,
    pub(crate) data: serde_json::Value,
}

impl EventStream {
    /// Asks for an event stream; its head is checked.
    pub(crate) fn open(mut stream: TcpStream, path: &str, host: &str, headers: &[&str]) -> Self {
        let mut text = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\n");
        for header in headers {
            text += &format!("{header}\r\n");
        }
        stream.write_all(format!("{text}\r\n").as_bytes()).unwrap();
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(reader.read_line(&mut head).unwrap(), 0, "{head}");
        }
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.contains("text/event-stream"), "{head}");
        Self { reader, text: String::new() }
    }

    /// The next frame with an event; comments and `retry` are passed over. `None` at the end of the stream.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        loop {
            let block = self.block()?;
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
            let Some(event) = field("event: ") else { continue };
            let data = serde_json::from_str(&field("data: ").unwrap()).unwrap();
            return Some(Frame { id: field("id: ").map(|id| id.parse().unwrap()), event, data });
        }
    }

    /// The connection; what was read of it and not handed out is lost.
    pub(crate) fn into_inner(self) -> TcpStream {
        self.reader.into_inner()
    }

    /// The ids of the next `n` frames.
    pub(crate) fn ids(&mut self, n: usize) -> Vec<u64> {
        (0..n).map(|_| self.next().unwrap().id.unwrap()).collect()
    }

    /// The next block of lines up to an empty one, whatever it holds.
    pub(crate) fn block(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let block = self.text[..end].to_owned();
                self.text.drain(..end + 2);
                return Some(block);
            }
            let mut size = String::new();
            assert_ne!(self.reader.read_line(&mut size).unwrap(), 0, "the stream was cut, not ended");
            let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
            if size == 0 {
                return None;
            }
            let mut chunk = vec![0; size + 2];
            self.reader.read_exact(&mut chunk).unwrap();
            self.text += std::str::from_utf8(&chunk[..size]).unwrap();
        }
    }
}
