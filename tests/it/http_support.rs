//! A real HTTP server on a loopback port before a scripted control plane, and a client that shows the bytes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{
    collections::{BTreeMap, HashMap},
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, mpsc},
    time::{Duration, Instant, SystemTime},
};

use actix::{Actor as _, ActorContext as _, Addr, Context, Handler, Message};
use hivekeeper::{
    control_plane::{
        Check, Control, ControlError, LogLine, LogPage, LogQuery, Request, StoredEvent, SwarmEntry, desk::BoxFuture,
    },
    events::Feed,
    http::{Auth, Deps, HealthReader, Limits, Server},
    model::{
        AgentHealth, AgentId, AgentState, ControlPlaneHealth, DataPlaneHealth, Desired, Epoch, EventKind, HiveHealth,
        HiveId, Level, Measured, Operation, OperationId, OperationState, Origin, Seq, SwarmHealth, SwarmName,
        SwarmSpec, health::Absent,
    },
    view::SwarmDocument,
};
use hivekeeper_actors::TreeNode;
use parking_lot::Mutex;
use tokio::sync::watch;

/// Longest wait for anything that should happen at once.
pub(crate) const SOON: Duration = Duration::from_secs(10);

pub(crate) fn at(ms: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_233_900_000 + ms)
}

pub(crate) fn agent_health(id: &str) -> AgentHealth {
    AgentHealth {
        id: id.parse().unwrap(),
        state: AgentState::Running,
        since: at(0),
        reasons: vec![],
        desired: Desired::Running,
        incarnation: 1,
        pid: Some(4711),
        restarts: 0,
        restarts_in_window: 0,
        retry_at: None,
        last_exit: None,
        cpu: Measured::Absent(Absent::NeverObserved),
        memory: Measured::Absent(Absent::NeverObserved),
        last_heartbeat: Measured::Absent(Absent::NeverObserved),
        progress: Measured::Absent(Absent::NeverObserved),
        dropped: 0,
    }
}

pub(crate) fn said(text: &str) -> EventKind {
    EventKind::AgentSaid {
        agent: "review/coder".parse().unwrap(),
        incarnation: 1,
        kind: Arc::from("note"),
        data: Arc::from(serde_json::to_string(text).unwrap()),
    }
}

pub(crate) fn stored(seq: u64) -> StoredEvent {
    StoredEvent {
        seq: Seq(seq),
        epoch: Epoch(7),
        at: at(seq),
        kind: "agent_said".to_owned(),
        subject: "review/coder".to_owned(),
        body: Arc::from(format!(r#"{{"seq":{seq},"kind":"agent_said","stored":true}}"#)),
    }
}

pub(crate) fn line(number: u64) -> LogLine {
    LogLine {
        number,
        incarnation: 1,
        seq: Some(number),
        at: at(number),
        stream: "stdout",
        level: None,
        partial: false,
        text: format!("line {number}"),
    }
}

fn review() -> SwarmSpec {
    let text = r#"{
        "name": "review", "runtime": "process", "strategy": "one_for_one", "intensity": 5, "period": "60s",
        "on_exceeded": { "retry_after": "10m" },
        "backoff": { "initial": "0s", "then": "1s", "factor": 2.0, "max": "60s", "jitter": 0.25, "reset_after": "10m" },
        "agent": [{
            "name": "coder", "command": ["sleep", "60"], "restart": "permanent", "ready": "process", "start_timeout": "30s",
            "heartbeat_timeout": "15s", "progress_timeout": "0s", "on_stuck": "report", "stop_grace": "10s", "lease": "30s"
        }]
    }"#;
    serde_json::from_str::<SwarmDocument>(text).unwrap().into_spec(Origin::Config).unwrap()
}

/// A control plane whose answers a test sets and whose orders it reads.
pub(crate) struct Desk {
    pub(crate) requests: Mutex<Vec<Request>>,
    pub(crate) refusal: Mutex<Option<ControlError>>,
    pub(crate) operations: Mutex<BTreeMap<OperationId, Operation>>,
    pub(crate) ended: watch::Sender<bool>,
    pub(crate) waits: Mutex<Vec<Duration>>,
    pub(crate) checks: Mutex<Vec<Check>>,
    pub(crate) journal: Mutex<Result<Vec<StoredEvent>, ControlError>>,
    pub(crate) lines: Mutex<Vec<LogLine>>,
    pub(crate) growth: Mutex<Option<watch::Sender<u64>>>,
    pub(crate) level: Mutex<Level>,
    pub(crate) tree: Mutex<Option<TreeNode>>,
}

impl Desk {
    fn new() -> Self {
        Self {
            requests: Mutex::default(),
            refusal: Mutex::default(),
            operations: Mutex::default(),
            ended: watch::channel(false).0,
            waits: Mutex::default(),
            checks: Mutex::new(vec![Check { name: "journal", ok: true, detail: String::new() }]),
            journal: Mutex::new(Ok(vec![])),
            lines: Mutex::default(),
            growth: Mutex::new(Some(watch::channel(0).0)),
            level: Mutex::new(Level::Healthy),
            tree: Mutex::default(),
        }
    }

    pub(crate) fn write_line(&self, number: u64) {
        self.lines.lock().push(line(number));
        if let Some(growth) = &*self.growth.lock() {
            growth.send_replace(number);
        }
    }

    fn entry(&self) -> SwarmEntry {
        SwarmEntry { spec: Arc::new(review()), desired: Desired::Running, since: at(0) }
    }

    fn state(&self) -> OperationState {
        if *self.ended.borrow() { OperationState::Succeeded } else { OperationState::Running }
    }

    fn find(&self, id: OperationId) -> Result<Operation, ControlError> {
        let found = self.operations.lock().get(&id).cloned();
        let operation = found.ok_or_else(|| ControlError::NotFound { what: format!("operation {id}") })?;
        Ok(Operation { state: self.state(), ..operation })
    }
}

impl Control for Desk {
    fn submit(&self, request: Request) -> BoxFuture<'_, Result<Operation, ControlError>> {
        Box::pin(async move {
            if let Some(refusal) = self.refusal.lock().clone() {
                return Err(refusal);
            }
            let operation = Operation {
                id: OperationId::mint(),
                command: request.command.clone(),
                target: request.target.clone(),
                state: OperationState::Accepted,
                requested_by: request.requested_by.clone(),
                requested_at: at(0),
                ended_at: None,
                steps: vec![],
                error: None,
            };
            self.requests.lock().push(request);
            self.operations.lock().insert(operation.id, operation.clone());
            Ok(operation)
        })
    }

    fn wait(&self, id: OperationId, timeout: Duration) -> BoxFuture<'_, Result<Operation, ControlError>> {
        Box::pin(async move {
            self.waits.lock().push(timeout);
            let mut ended = self.ended.subscribe();
            let _ = tokio::time::timeout(timeout, ended.wait_for(|ended| *ended)).await;
            self.find(id)
        })
    }

    fn operation(&self, id: OperationId) -> BoxFuture<'_, Result<Operation, ControlError>> {
        Box::pin(async move { self.find(id) })
    }

    fn operations(&self, limit: usize) -> BoxFuture<'_, Result<Vec<Operation>, ControlError>> {
        let all = self.operations.lock().values().rev().take(limit).cloned().collect();
        Box::pin(async move { Ok(all) })
    }

    fn swarms(&self) -> Vec<SwarmEntry> {
        vec![self.entry()]
    }

    fn swarm(&self, name: &SwarmName) -> Option<SwarmEntry> {
        (name.as_str() == "review").then(|| self.entry())
    }

    fn tree(&self) -> BoxFuture<'_, Result<TreeNode, ControlError>> {
        let felled = || ControlError::Unavailable { why: "the tree is being felled".to_owned() };
        let tree = self.tree.lock().clone().ok_or_else(felled);
        Box::pin(async move { tree })
    }

    fn events(&self, after: Seq, limit: usize) -> BoxFuture<'_, Result<Vec<StoredEvent>, ControlError>> {
        let journal = self.journal.lock().clone();
        Box::pin(async move { Ok(journal?.into_iter().filter(|event| event.seq > after).take(limit).collect()) })
    }

    fn logs(&self, agent: AgentId, query: LogQuery) -> BoxFuture<'_, Result<LogPage, ControlError>> {
        Box::pin(async move {
            if agent.name.as_str() != "coder" {
                return Err(ControlError::NotFound { what: format!("agent {agent}") });
            }
            let all = self.lines.lock().clone();
            let (first_kept, last) =
                (all.first().map_or(0, |line| line.number), all.last().map_or(0, |line| line.number));
            let mut lines: Vec<_> = all
                .into_iter()
                .filter(|line| query.after.is_none_or(|after| line.number > after))
                .filter(|line| query.since.is_none_or(|since| line.at >= since))
                .collect();
            if let Some(tail) = query.tail {
                lines.drain(..lines.len().saturating_sub(tail));
            }
            lines.truncate(query.limit);
            Ok(LogPage { lines, first_kept, last })
        })
    }

    fn log_growth(&self, agent: &AgentId) -> Option<watch::Receiver<u64>> {
        (agent.name.as_str() == "coder").then(|| self.growth.lock().as_ref().map(watch::Sender::subscribe)).flatten()
    }

    fn readiness(&self) -> Vec<Check> {
        self.checks.lock().clone()
    }
}

impl HealthReader for Desk {
    fn hive(&self) -> Arc<HiveHealth> {
        Arc::new(HiveHealth {
            hive: HiveId::mint(),
            name: "test".to_owned(),
            level: *self.level.lock(),
            since: at(0),
            reasons: vec![],
            control_plane: ControlPlaneHealth { reachable: true, since: at(0), last_error: None },
            data_plane: DataPlaneHealth {
                listening: true,
                sessions: 0,
                events_per_second: Measured::Absent(Absent::NeverObserved),
                dropped: 0,
                refused: 0,
            },
            swarms: vec![],
            agents: vec![],
        })
    }

    fn swarm(&self, name: &SwarmName) -> Option<Arc<SwarmHealth>> {
        (name.as_str() == "review").then(|| {
            Arc::new(SwarmHealth {
                name: name.clone(),
                level: Level::Healthy,
                since: at(0),
                reasons: vec![],
                desired: Desired::Running,
                agents: vec!["coder".parse().unwrap()],
            })
        })
    }

    fn agent(&self, id: &AgentId) -> Option<Arc<AgentHealth>> {
        (id.to_string() == "review/coder").then(|| Arc::new(agent_health("review/coder")))
    }
}

/// What a test may set about its server.
pub(crate) struct Setup {
    pub(crate) token: Option<&'static str>,
    pub(crate) hosts: Vec<String>,
    pub(crate) limits: Limits,
}

impl Default for Setup {
    fn default() -> Self {
        Self { token: None, hosts: vec![], limits: Limits::default() }
    }
}

/// A running server; dropping it stops the server and joins its thread.
pub(crate) struct Hive {
    pub(crate) address: SocketAddr,
    pub(crate) desk: Arc<Desk>,
    pub(crate) feed: Feed,
    server: Addr<Server>,
    thread: Option<std::thread::JoinHandle<()>>,
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
    let deps = Deps {
        control: Arc::clone(&desk) as Arc<dyn Control>,
        health: Arc::clone(&desk) as Arc<dyn HealthReader>,
        feed: feed.clone(),
        auth: setup.token.map_or(Auth::Open, Auth::token),
        hosts: setup.hosts,
        sockets: Arc::new(|config| {
            config.route("/ws/hybrid-health", actix_web::web::get().to(|| async { "a socket" }));
            config.route(
                "/ws/broken",
                actix_web::web::get()
                    .to(|| async { Err::<&str, _>(actix_web::error::ErrorImATeapot("a secret of the framework")) }),
            );
        }),
        limits: setup.limits,
    };
    let (started, start) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        actix_rt::System::new().block_on(async move {
            let on_failure = Box::new(|_: &mut Context<Server>, why: String| panic!("the server ended: {why}"));
            let server = Server::new(&listener, deps, on_failure).unwrap().start();
            started.send(server.clone()).unwrap();
            let deadline = Instant::now() + Duration::from_secs(300);
            while server.connected() {
                assert!(Instant::now() < deadline, "the server was never stopped");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    });
    let server = start.recv().unwrap();
    Hive { address, desk, feed, server, thread: Some(thread) }
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
        let mut stream = self.connect();
        let mut text = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\n", self.address);
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
        EventStream { reader, text: String::new() }
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
        // A server that refuses without reading everything may reset the connection behind its answer.
        let _ = stream.read_to_end(&mut bytes);
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
            (&status.into(), &code.into(), &"about:blank".into()),
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
            self.reader.read_line(&mut size).unwrap();
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
