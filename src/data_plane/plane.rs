//! What the connections share, and the handle that other rooms hold.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    sync::{Mutex, mpsc, watch},
    time::timeout,
};

use super::{
    bucket::Bucket,
    limits::{CLOSE_DEADLINE, PlaneLimits, RELAYS_WAITING_MAX},
    seats::{Order, Seats},
    session::Gate,
};
use crate::{
    model::{Admission, AgentId, Drain, DuplexStream, RelaySink, TelemetrySink},
    tls::Tls,
    tools::Tools,
    wire::rpc::Code,
};

/// A connection that a launcher relays.
pub(super) struct Relayed {
    pub(super) agent: AgentId,
    pub(super) stream: Box<dyn DuplexStream>,
}

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Everybody is served.
    Serving,
    /// Newcomers are sent away.
    Refusing,
    /// Connections close.
    Closing,
}

/// What is there now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Presence {
    /// Whether the listener accepts.
    pub listening: bool,
    /// Open sessions.
    pub sessions: u64,
    /// Connections, with and without a session.
    pub connections: u64,
}

/// Counted since this daemon started, and [`Presence`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PlaneStats {
    /// What is there now.
    pub presence: Presence,
    /// Lines that were taken.
    pub messages: u64,
    /// Messages refused, by code; codes that never occurred are not listed.
    pub refused: BTreeMap<i64, u64>,
    /// Connections that found no place.
    pub turned_away: u64,
    /// Connections ended because they missed a deadline: no `hive/open` in time, answers not read, silence.
    pub overdue: u64,
    /// Connections that a panic ended.
    pub panics: u64,
    /// Failed accepts.
    pub accept_errors: u64,
    /// Connections that waited in the system's queue because too many came at once.
    pub delayed: u64,
    /// Connections that were closed for others: without a session, or the oldest of an agent that has too many.
    pub displaced: u64,
    /// TLS handshakes that failed or came to nothing in time.
    pub handshakes_failed: u64,
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) messages: AtomicU64,
    refused: [AtomicU64; Code::ALL.len()],
    pub(super) turned_away: AtomicU64,
    pub(super) overdue: AtomicU64,
    pub(super) panics: AtomicU64,
    pub(super) accept_errors: AtomicU64,
    pub(super) delayed: AtomicU64,
    pub(super) displaced: AtomicU64,
    pub(super) handshakes_failed: AtomicU64,
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What the tasks share. It outlives the listener's incarnations.
pub(super) struct Plane {
    pub(super) limits: Arc<PlaneLimits>,
    pub(super) tls: Option<Tls>,
    /// The rate of all connections together.
    pub(super) rate: parking_lot::Mutex<Bucket>,
    pub(super) sink: Arc<dyn TelemetrySink>,
    pub(super) seats: Arc<Seats>,
    pub(super) counters: Counters,
    pub(super) phase: watch::Sender<Phase>,
    pub(super) presence: watch::Sender<Presence>,
    /// Held by the listener that serves.
    pub(super) relays: Mutex<mpsc::Receiver<Relayed>>,
    /// What sessions may call; nothing until it is offered.
    pub(super) tools: OnceLock<Tools>,
    admission: Arc<dyn Admission>,
}

impl Plane {
    pub(super) fn gate(&self) -> Gate<'_> {
        Gate {
            admission: &*self.admission,
            shutting_down: *self.phase.borrow() != Phase::Serving,
            has_tools: self.tools.get().is_some(),
        }
    }

    pub(super) fn refused(&self, agent: Option<&AgentId>, code: Code, messages: u64) {
        if let Some(at) = Code::ALL.iter().position(|known| *known == code) {
            self.counters.refused[at].fetch_add(messages, Ordering::Relaxed);
        }
        tracing::debug!(
            agent = agent.map(tracing::field::display),
            code = code.number(),
            messages,
            "refused on the data plane"
        );
        self.sink.refused(agent, code.number(), messages);
    }
}

/// The data plane as other rooms see it. Takes relayed connections, passes on drains, counts.
#[derive(Clone)]
pub struct DataPlaneHandle {
    pub(super) plane: Arc<Plane>,
    relays: mpsc::Sender<Relayed>,
}

impl DataPlaneHandle {
    /// A data plane without a listener yet: relayed connections wait for it.
    pub fn new(admission: Arc<dyn Admission>, sink: Arc<dyn TelemetrySink>, limits: PlaneLimits) -> Self {
        Self::with_tls(admission, sink, limits, None)
    }

    /// The same, speaking TLS with whoever comes by TCP, if at all. What launchers relay is never TLS.
    pub fn with_tls(
        admission: Arc<dyn Admission>,
        sink: Arc<dyn TelemetrySink>,
        limits: PlaneLimits,
        tls: Option<Tls>,
    ) -> Self {
        let (relays, waiting) = mpsc::channel(RELAYS_WAITING_MAX);
        let rate = Bucket::new(Instant::now(), limits.total_per_second, limits.total_burst);
        let plane = Plane {
            limits: Arc::new(limits),
            tls,
            rate: parking_lot::Mutex::new(rate),
            seats: Arc::new(Seats::new(Arc::clone(&sink))),
            sink,
            counters: Counters::default(),
            phase: watch::Sender::new(Phase::Serving),
            presence: watch::Sender::new(Presence::default()),
            relays: Mutex::new(waiting),
            tools: OnceLock::new(),
            admission,
        };
        Self { plane: Arc::new(plane), relays }
    }

    /// From now on sessions may call these tools, each as the method `hive/NAME`.
    pub fn offer(&self, tools: Tools) {
        // Offered once, by the boot.
        let _ = self.plane.tools.set(tools);
    }

    /// What was counted, and what is there now.
    pub fn stats(&self) -> PlaneStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.plane.counters;
        let refused = Code::ALL.iter().zip(&counters.refused).map(|(code, n)| (code.number(), read(n)));
        PlaneStats {
            presence: *self.plane.presence.borrow(),
            messages: read(&counters.messages),
            refused: refused.filter(|(_, n)| *n > 0).collect(),
            turned_away: read(&counters.turned_away),
            overdue: read(&counters.overdue),
            panics: read(&counters.panics),
            accept_errors: read(&counters.accept_errors),
            delayed: read(&counters.delayed),
            displaced: read(&counters.displaced),
            handshakes_failed: read(&counters.handshakes_failed),
        }
    }

    /// Follows what is there, without polling.
    pub fn presence(&self) -> watch::Receiver<Presence> {
        self.plane.presence.subscribe()
    }

    /// Sends newcomers away with 1007, waits until the open sessions have ended or the deadline has passed, then closes what is left. Final.
    pub async fn shutdown(&self, deadline: Duration) {
        self.plane.phase.send_replace(Phase::Refusing);
        self.settled(deadline, |now| now.sessions == 0).await;
        self.plane.phase.send_replace(Phase::Closing);
        self.settled(CLOSE_DEADLINE, |now| now.connections == 0).await;
    }

    /// Waits for a state, at most so long. What was seen is let go of at once: it holds a lock that every connection needs.
    async fn settled(&self, deadline: Duration, state: impl FnMut(&Presence) -> bool) {
        let _in_time = timeout(deadline, self.presence().wait_for(state)).await.is_ok();
    }
}

impl RelaySink for DataPlaneHandle {
    fn serve(&self, agent: AgentId, _incarnation: u64, stream: Box<dyn DuplexStream>) {
        if self.relays.try_send(Relayed { agent, stream }).is_err() {
            count(&self.plane.counters.turned_away);
        }
    }
}

impl Drain for DataPlaneHandle {
    fn drain(&self, agent: &AgentId, incarnation: u64) -> bool {
        self.plane.seats.order(agent, incarnation, Order::Drain)
    }

    fn ended(&self, agent: &AgentId, incarnation: u64) {
        self.plane.seats.order(agent, incarnation, Order::Part);
    }
}
