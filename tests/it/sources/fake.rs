//! A scripted server on 127.0.0.1, and a dialer that is watched.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use actix::Actor;
use hivekeeper::{
    data_plane::dialer::DialerHandle,
    model::{SourceReport, SourceSpec, SourceWitness, ToolSpec},
};
use serde_json::{Value, json};

use crate::hive::until;

/// One connection as the server sees it.
pub(super) struct Conn {
    /// The nth of this server, from 0.
    pub(super) n: usize,
    stream: TcpStream,
    lines: BufReader<TcpStream>,
}

impl Conn {
    /// The next message of the client; `None` when it has gone.
    pub(super) fn next(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.lines.read_line(&mut line) {
            Ok(n) if n > 0 => Some(serde_json::from_str(&line).expect("a client's line is JSON")),
            _ => None,
        }
    }

    /// Writes as it is; whether the client still takes it.
    pub(super) fn write(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Writes a line.
    pub(super) fn say(&mut self, line: impl std::fmt::Display) -> bool {
        self.write(format!("{line}\n").as_bytes())
    }

    /// Answers a request with a result.
    pub(super) fn result(&mut self, request: &Value, result: Value) -> bool {
        self.say(json!({ "jsonrpc": "2.0", "id": request["id"], "result": result }))
    }

    /// Answers a request with an error.
    pub(super) fn error(&mut self, request: &Value, code: i64, message: &str) -> bool {
        self.say(json!({ "jsonrpc": "2.0", "id": request["id"], "error": { "code": code, "message": message } }))
    }

    /// A handshake of the old kind. Hands back the first call, or `None` when the client has gone.
    pub(super) fn greet_legacy(&mut self) -> Option<Value> {
        loop {
            let request = self.next()?;
            match request["method"].as_str().unwrap() {
                "initialize" => {
                    let version = json!({ "protocolVersion": "2024-11-05", "capabilities": {}, "serverInfo": { "name": "fake", "version": "0" } });
                    self.result(&request, version);
                }
                "notifications/initialized" => {}
                "tools/call" => return Some(request),
                _ => _ = self.error(&request, -32601, "Method not found"),
            }
        }
    }

    /// Serves as a sound old server to the end; `answer` says what a tool says, as JSON text in `content`.
    pub(super) fn serve_legacy(&mut self, answer: impl Fn(&str) -> Value) {
        let mut call = self.greet_legacy();
        while let Some(request) = call {
            let tool = request["params"]["name"].as_str().unwrap_or_default();
            self.result(&request, in_text(&answer(tool)));
            call = self.next();
        }
    }
}

/// A result as old servers write it.
pub(super) fn in_text(payload: &Value) -> Value {
    json!({ "content": [{ "type": "text", "text": payload.to_string() }] })
}

/// A list of agents with these names.
pub(super) fn agents(names: &[&str]) -> Value {
    let agents: Vec<Value> =
        names.iter().map(|name| json!({ "id": format!("{name}-id"), "name": name, "status": "idle" })).collect();
    json!({ "success": true, "agents": agents })
}

/// A server. Its connections are served side by side and end with it.
pub(super) struct Server {
    pub(super) at: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stopping: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
    open: AtomicUsize,
    open_most: AtomicUsize,
    accepted: AtomicUsize,
}

impl Server {
    pub(super) fn start(behaviour: impl Fn(&mut Conn) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let (behaviour, inner) = (Arc::new(behaviour), Arc::clone(&shared));
        let accepting = std::thread::spawn(move || {
            let mut threads = Vec::new();
            while let Ok((stream, _)) = listener.accept() {
                if inner.stopping.load(Ordering::SeqCst) {
                    break;
                }
                let n = inner.accepted.fetch_add(1, Ordering::SeqCst);
                let open = inner.open.fetch_add(1, Ordering::SeqCst) + 1;
                inner.open_most.fetch_max(open, Ordering::SeqCst);
                inner.streams.lock().unwrap().push(stream.try_clone().unwrap());
                let (behaviour, inner) = (Arc::clone(&behaviour), Arc::clone(&inner));
                threads.push(std::thread::spawn(move || {
                    let lines = BufReader::new(stream.try_clone().unwrap());
                    let mut conn = Conn { n, stream, lines };
                    behaviour(&mut conn);
                    let _ = conn.stream.shutdown(Shutdown::Both);
                    inner.open.fetch_sub(1, Ordering::SeqCst);
                }));
            }
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
        Self { at, shared, accepting: Some(accepting) }
    }

    /// Connections so far.
    pub(super) fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Connections that are open now.
    pub(super) fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// The most that ever were open.
    pub(super) fn open_most(&self) -> usize {
        self.shared.open_most.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.at);
        for stream in self.shared.streams.lock().unwrap().iter() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        let ended = self.accepting.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}

/// Reads and throws away until the client has gone.
pub(super) fn wait_for_the_end(conn: &mut Conn) {
    let _ = std::io::copy(&mut conn.lines.by_ref(), &mut std::io::sink());
}

/// A source with short times.
pub(super) fn spec(at: SocketAddr, tools: &[&str]) -> SourceSpec {
    let tool = |name: &&str| ToolSpec { name: Arc::from(*name), arguments: Arc::from("{}") };
    SourceSpec {
        name: "fake".parse().unwrap(),
        address: Arc::from(at.to_string()),
        tools: tools.iter().map(tool).collect(),
        interval: Duration::from_millis(30),
        timeout: Duration::from_millis(300),
        connections: 1,
    }
}

/// All that a dialer tells.
#[derive(Default)]
pub(super) struct Heard(Mutex<Vec<SourceReport>>);

impl Heard {
    /// The latest; a dialer tells where it stands before it does anything.
    pub(super) fn latest(&self) -> SourceReport {
        self.0.lock().unwrap().last().expect("a first report").clone()
    }
}

impl SourceWitness for Heard {
    fn stands(&self, report: SourceReport) {
        self.0.lock().unwrap().push(report);
    }
}

/// A dialer on a thread of its own.
pub(super) struct Dialled {
    heard: Arc<Heard>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Dialled {
    pub(super) fn start(spec: SourceSpec) -> Self {
        let heard = Arc::new(Heard::default());
        let witness = Arc::clone(&heard) as Arc<dyn SourceWitness>;
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            actix::System::new().block_on(async move {
                let handle = DialerHandle::new(spec, witness);
                let _address = handle.dialer().start();
                let _ = stopped.await;
            });
        });
        Self { heard, stop: Some(stop), thread: Some(thread) }
    }

    /// All that was told so far.
    pub(super) fn told(&self) -> Vec<SourceReport> {
        self.heard.0.lock().unwrap().clone()
    }

    pub(super) fn latest(&self) -> SourceReport {
        until("a first report", || self.heard.0.lock().unwrap().last().cloned())
    }

    /// Waits until the latest report fits.
    #[track_caller]
    pub(super) fn until(&self, what: &str, fits: impl Fn(&SourceReport) -> bool) -> SourceReport {
        let deadline = std::time::Instant::now() + crate::hive::PATIENCE;
        loop {
            let latest = self.latest();
            if fits(&latest) {
                return latest;
            }
            assert!(std::time::Instant::now() < deadline, "the source never {what}: {latest:#?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until so many more polls were made and told.
    #[track_caller]
    pub(super) fn polls(&self, more: u64) -> SourceReport {
        let before = self.latest().polls;
        self.until(&format!("made {more} polls"), |report| report.polls >= before + more)
    }
}

impl Drop for Dialled {
    fn drop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}

/// Names of the agents in a report.
pub(super) fn names(report: &SourceReport) -> Vec<&str> {
    report.agents.iter().map(|agent| &*agent.name).collect()
}
