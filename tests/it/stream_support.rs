//! A server of viewers on a port of its own, its feed in the test's hand, and a client that checks every frame.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};

use actix::Actor;
use actix_web::{App, HttpServer, dev::ServerHandle, rt::System, web};
use hivekeeper::{
    events::Feed,
    health::{Handle, Identity, Options},
    model::{AgentHealth, AgentState, Epoch, EventKind, HiveId, Reason, Seq},
    stream::{Hub, StreamLimits, hybrid_health, hybrid_health_events, keep_socket},
};
use serde_json::Value;
use tungstenite::{Error, Message, WebSocket, client::IntoClientRequest, protocol::frame::coding::CloseCode};
use uuid::Uuid;

/// Nothing here takes a tenth of it; it is there so that a failure is a failure and not a hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) hub: Hub,
    pub(crate) feed: Feed,
    stop: Option<(ServerHandle, System)>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(limits: StreamLimits) -> Self {
        let feed = Feed::new(Epoch(3), Seq(101));
        let identity =
            Identity { hive: HiveId(Uuid::nil()), name: "home".to_owned(), sample_interval: Duration::from_secs(2) };
        let health = Handle::new(Options { identity, feed: feed.clone(), on_stuck: Arc::new(|_, _| {}) });
        let hub = Hub::new(limits, feed.clone(), health);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (ready, started) = mpsc::sync_channel(1);
        let thread = std::thread::spawn({
            let hub = hub.clone();
            move || {
                System::new().block_on(async move {
                    let _warden = hub.warden().start();
                    let data = web::Data::new(hub);
                    let server = HttpServer::new(move || {
                        App::new()
                            .app_data(data.clone())
                            .route("/ws/hybrid-health", web::get().to(hybrid_health))
                            .route("/sse/hybrid-health", web::get().to(hybrid_health_events))
                    })
                    .on_connect(keep_socket)
                    .workers(2)
                    .disable_signals()
                    .shutdown_timeout(1)
                    .listen(listener)
                    .unwrap()
                    .run();
                    ready.send((server.handle(), System::current())).unwrap();
                    server.await.unwrap();
                });
            }
        });
        let stop = Some(started.recv_timeout(PATIENCE).unwrap());
        Self { address, hub, feed, stop, thread: Some(thread) }
    }

    pub(crate) fn stream(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub(crate) fn view(&self) -> Viewer {
        let request = format!("ws://{}/ws/hybrid-health", self.address).into_client_request().unwrap();
        let (socket, _) = tungstenite::client(request, self.stream()).unwrap();
        Viewer { socket, seq: None }
    }

    /// A viewer that has read its greeting.
    pub(crate) fn greeted(&self) -> Viewer {
        let mut viewer = self.view();
        viewer.expect("connection_established");
        viewer.expect("status_update");
        viewer
    }

    pub(crate) fn until(&self, what: &str, holds: impl Fn(&Hub) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(&self.hub) {
            assert!(Instant::now() < deadline, "not in time: {what}; {:?}", self.hub.stats());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some((server, system)) = self.stop.take() {
            System::new().block_on(server.stop(false));
            system.stop();
        }
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

pub(crate) struct Viewer {
    pub(crate) socket: WebSocket<TcpStream>,
    /// The number of the last frame: the next one must name it.
    pub(crate) seq: Option<u64>,
}

impl Viewer {
    /// The next frame, checked for what all frames share.
    pub(crate) fn next(&mut self) -> Value {
        loop {
            match self.socket.read().unwrap() {
                Message::Text(text) => {
                    let frame: Value = serde_json::from_str(&text).unwrap();
                    assert_eq!(frame["epoch"], 3, "{frame}");
                    let seq = frame["seq"].as_u64().unwrap();
                    if let Some(last) = self.seq.filter(|_| frame["type"] != "subscription_ack") {
                        assert_eq!(frame["prev_seq"].as_u64(), Some(last), "a frame is missing before {frame}");
                    }
                    for time in ["observed_at", "sent_at"] {
                        assert!(frame[time].as_str().unwrap().ends_with('Z'), "{frame}");
                    }
                    self.seq = Some(seq);
                    return frame;
                }
                Message::Ping(_) => self.socket.flush().unwrap(),
                other => panic!("{other:?}"),
            }
        }
    }

    pub(crate) fn expect(&mut self, kind: &str) -> Value {
        let frame = self.next();
        assert_eq!(frame["type"], kind, "{frame}");
        frame
    }

    pub(crate) fn say(&mut self, text: &str) {
        self.socket.send(Message::text(text)).unwrap();
    }

    /// Reads to the end; returns the close code, or `None` for a connection that was cut.
    pub(crate) fn end(mut self) -> Option<CloseCode> {
        loop {
            match self.socket.read() {
                Ok(Message::Close(reason)) => {
                    let code = reason.map(|reason| reason.code);
                    // The peer ends the connection, too, and soon.
                    while self.socket.read().is_ok() {}
                    return code;
                }
                Ok(_) => {}
                Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("not ended in time"),
                Err(_) => return None,
            }
        }
    }
}

pub(crate) fn agent(id: &str, incarnation: u64, detail: &str) -> Arc<AgentHealth> {
    Arc::new(AgentHealth {
        state: AgentState::BackingOff,
        reasons: vec![Reason { code: "restart_delayed", detail: detail.to_owned() }],
        incarnation,
        ..AgentHealth::unknown(id.parse().unwrap(), SystemTime::now())
    })
}

pub(crate) fn changed(id: &str, incarnation: u64) -> EventKind {
    EventKind::AgentChanged { from: None, agent: agent(id, incarnation, "x") }
}

pub(crate) fn publish(server: &Server, kind: EventKind) -> u64 {
    server.feed.publish(SystemTime::now(), kind).0
}

pub(crate) fn quick() -> StreamLimits {
    StreamLimits {
        ping_interval: Duration::from_millis(200),
        answer_within: Duration::from_millis(800),
        linger: Duration::from_millis(400),
        ..StreamLimits::default()
    }
}
