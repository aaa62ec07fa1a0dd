//! A data plane on a port of its own, a house with one swarm, and clients of plain sockets.

use std::{
    io::{BufRead, BufReader, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use actix::System;
use hivekeeper::{
    data_plane::{DataPlane, DataPlaneHandle, PlaneLimits, PlaneStats},
    model::{Admission, AgentId, Lost, Refusal, Telemetry, TelemetryKind, TelemetrySink},
    tls::Tls,
};
use hivekeeper_actors::{Child, ChildRef, ChildSpec, EventSink, Root, Strategy, SupervisionEvent, SupervisorFlags};
use serde_json::{Value, json};

/// Longest wait for anything that should happen.
pub(super) const SOON: Duration = Duration::from_secs(20);

/// Waits for a condition.
#[track_caller]
pub(super) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Every agent of the swarm `s` lives in one incarnation, and its token is `t-NAME`.
pub(super) struct House {
    pub(super) incarnation: AtomicU64,
}

impl Admission for House {
    fn admit(&self, agent: &AgentId, incarnation: u64, token: &str) -> Result<(), Refusal> {
        if agent.swarm.as_str() != "s" || token != format!("t-{}", agent.name) {
            return Err(Refusal::BadToken);
        }
        let lives = incarnation == self.incarnation.load(Ordering::Relaxed);
        if lives { Ok(()) } else { Err(Refusal::StaleIncarnation) }
    }

    fn lives(&self, _agent: &AgentId, incarnation: u64) -> bool {
        incarnation == self.incarnation.load(Ordering::Relaxed)
    }

    fn heartbeat_interval(&self, _agent: &AgentId) -> Option<Duration> {
        Some(Duration::from_millis(200))
    }
}

/// Keeps what it is told. Panics at an event named `panic`.
#[derive(Default)]
pub(super) struct Recorder {
    pub(super) told: Mutex<Vec<Telemetry>>,
    pub(super) refused: Mutex<Vec<(Option<AgentId>, i64)>>,
    pub(super) lost: Mutex<Vec<(AgentId, Lost)>>,
}

impl TelemetrySink for Recorder {
    fn accept(&self, batch: Vec<Telemetry>) {
        for one in &batch {
            let bad = matches!(&one.kind, TelemetryKind::Event { kind, .. } if kind.as_ref() == "panic");
            assert!(!bad, "a sink that panics");
        }
        self.told.lock().unwrap().extend(batch);
    }

    fn refused(&self, agent: Option<&AgentId>, code: i64, messages: u64) {
        let all = std::iter::repeat_n((agent.cloned(), code), usize::try_from(messages).unwrap());
        self.refused.lock().unwrap().extend(all);
    }

    fn dropped(&self, agent: &AgentId, _incarnation: u64, lost: Lost) {
        self.lost.lock().unwrap().push((agent.clone(), lost));
    }
}

impl Recorder {
    pub(super) fn of(&self, agent: &str) -> Vec<TelemetryKind> {
        let told = self.told.lock().unwrap();
        told.iter().filter(|t| t.agent.to_string() == agent).map(|t| t.kind.clone()).collect()
    }

    /// Messages of an agent that were handed up, those of its sessions' beginnings and ends left out.
    pub(super) fn messages(&self, agent: &str) -> u64 {
        let each = |kind| match kind {
            TelemetryKind::SessionOpened | TelemetryKind::SessionClosed => 0,
            TelemetryKind::Logs(records) => records.len() as u64,
            TelemetryKind::Counted(messages) => messages,
            _ => 1,
        };
        self.of(agent).into_iter().map(each).sum()
    }

    /// What was let go of an agent's messages.
    pub(super) fn lost(&self, agent: &str) -> Lost {
        let lost = self.lost.lock().unwrap();
        let of = lost.iter().filter(|(id, _)| id.to_string() == agent).map(|(_, lost)| *lost);
        of.fold(Lost::default(), |sum, more| Lost {
            logs: sum.logs + more.logs,
            metrics: sum.metrics + more.metrics,
            events: sum.events + more.events,
        })
    }

    pub(super) fn count(&self, agent: &str, kind: &TelemetryKind) -> usize {
        self.of(agent).iter().filter(|k| *k == kind).count()
    }
}

struct Unheard;

impl EventSink for Unheard {
    fn event(&self, _: SupervisionEvent) {}
}

/// One data plane under a supervisor, as in the daemon. Ends with the test, and checks that it ends.
pub(super) struct Plane {
    pub(super) handle: DataPlaneHandle,
    pub(super) addr: SocketAddr,
    pub(super) house: Arc<House>,
    pub(super) sink: Arc<Recorder>,
    listener: ChildRef<DataPlane>,
    end: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Plane {
    pub(super) fn start(limits: PlaneLimits) -> Self {
        Self::start_with(limits, None)
    }

    pub(super) fn start_with(limits: PlaneLimits, tls: Option<Tls>) -> Self {
        let house = Arc::new(House { incarnation: AtomicU64::new(1) });
        let sink = Arc::new(Recorder::default());
        let handle = DataPlaneHandle::with_tls(house.clone(), sink.clone(), limits, tls);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let (child, child_ref) = {
            let handle = handle.clone();
            Child::actor(ChildSpec::new("data_plane"), move |_| Ok(DataPlane::new(&handle, &listener)?))
        };
        let thread = thread::spawn(move || {
            System::new().block_on(async move {
                let root = Root::start(SupervisorFlags::unlimited(Strategy::OneForOne), vec![child], Arc::new(Unheard))
                    .unwrap();
                let _ended = ended.await;
                root.shutdown().await.unwrap();
            });
        });
        let plane = Self { handle, addr, house, sink, listener: child_ref, end: Some(end), thread: Some(thread) };
        eventually("the listener listens", || plane.stats().presence.listening);
        plane
    }

    pub(super) fn stats(&self) -> PlaneStats {
        self.handle.stats()
    }

    /// The actor panics, and its supervisor makes another.
    pub(super) fn restart_listener(&self) {
        self.listener.run(|_, _| panic!("the test says so")).unwrap();
    }

    pub(super) fn connect(&self) -> Client {
        Client::new(TcpStream::connect(self.addr).unwrap())
    }

    /// A client with an open session.
    pub(super) fn open(&self, name: &str) -> Client {
        let mut client = self.connect();
        let answer = client.ask("hive/open", self.credentials(name));
        assert!(answer["result"]["session"].is_string(), "{answer}");
        client
    }

    pub(super) fn credentials(&self, name: &str) -> Value {
        let incarnation = self.house.incarnation.load(Ordering::Relaxed);
        json!({"token": format!("t-{name}"), "agent": format!("s/{name}"), "incarnation": incarnation, "protocol": 1})
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        drop(self.end.take());
        let ended = self.thread.take().unwrap().join();
        if !thread::panicking() {
            ended.unwrap();
            let left = self.stats().presence;
            assert_eq!(
                (left.sessions, left.connections, left.listening),
                (0, 0, false),
                "something outlived its owner"
            );
        }
    }
}

/// One peer, blocking, every read with a deadline.
pub(super) struct Client {
    reader: BufReader<TcpStream>,
    next: u64,
}

impl Client {
    pub(super) fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_write_timeout(Some(SOON)).unwrap();
        Self { reader: BufReader::new(stream), next: 0 }
    }

    pub(super) fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    pub(super) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream().write_all(bytes.as_ref()).unwrap();
    }

    pub(super) fn notify(&mut self, method: &str, params: Value) {
        self.send(format!("{}\n", json!({"jsonrpc": "2.0", "method": method, "params": params})));
    }

    /// A request and its answer, which must be the next line.
    pub(super) fn ask(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let id = self.next;
        self.send(format!("{}\n", json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})));
        let answer = self.line();
        assert_eq!(answer["id"], id, "{answer}");
        answer
    }

    #[track_caller]
    pub(super) fn line(&mut self) -> Value {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "the stream ended: {line:?}");
        serde_json::from_str(&line).unwrap()
    }

    /// The code of the next line, which must be an error.
    #[track_caller]
    pub(super) fn code(&mut self) -> i64 {
        let line = self.line();
        line["error"]["code"].as_i64().unwrap_or_else(|| panic!("no error: {line}"))
    }

    /// Waits until the other side has closed; true if it sent nothing more.
    pub(super) fn closed(&mut self) -> bool {
        let mut rest = String::new();
        match self.reader.read_line(&mut rest) {
            Ok(n) => n == 0,
            Err(why) => why.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }

    /// Like [`Client::closed`], by an orderly end and not by a reset, which may cost a peer the last answer.
    pub(super) fn closed_in_order(&mut self) -> bool {
        self.reader.read_line(&mut String::new()).is_ok_and(|n| n == 0)
    }

    /// The session lives: a heartbeat is taken and answered.
    #[track_caller]
    pub(super) fn is_well(&mut self) {
        let answer = self.ask("hive/heartbeat", json!({}));
        assert_eq!(answer["result"], json!({}), "{answer}");
    }

    pub(super) fn half_close(&self) {
        self.stream().shutdown(Shutdown::Write).unwrap();
    }
}
