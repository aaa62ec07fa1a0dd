//! Traits through which a lower room reaches a higher one without knowing it.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    ids::{AgentId, SwarmName},
    observation::Observation,
    telemetry::{Lost, Telemetry},
};

/// A two-way byte stream.
pub trait DuplexStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> DuplexStream for T {}

/// Takes the byte streams that launchers relay from their agents' loopback ports. The data plane implements it, a runtime calls it.
pub trait RelaySink: Send + Sync {
    /// Serves one connection that was opened inside the launcher of `agent`. Must not block.
    fn serve(&self, agent: AgentId, incarnation: u64, stream: Box<dyn DuplexStream>);
}

/// Why a `hive/open` is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No such agent, or not its token.
    BadToken,
    /// The token of an incarnation that ended, or another number.
    StaleIncarnation,
}

/// Who may open a session. The runtime room implements it, the data plane asks.
pub trait Admission: Send + Sync {
    /// Checks a token in constant time against the hash of the incarnation that lives.
    ///
    /// # Errors
    /// Why it is refused.
    fn admit(&self, agent: &AgentId, incarnation: u64, token: &str) -> Result<(), Refusal>;

    /// Whether the incarnation still lives, of one that was admitted once. Asked at each read, so it is cheap.
    fn lives(&self, agent: &AgentId, incarnation: u64) -> bool;

    /// How often this agent is asked to send a heartbeat, as its document's `heartbeat_timeout` wants it; `None` leaves it to the data
    /// plane's own figure.
    fn heartbeat_interval(&self, _agent: &AgentId) -> Option<Duration> {
        None
    }
}

/// Takes what the data plane has read and authenticated. The composition root implements it: health folds, the log book keeps log records.
pub trait TelemetrySink: Send + Sync {
    /// Takes a batch, in order. Never blocks: what does not fit is dropped by class (log and metric samples, oldest first) and counted.
    /// Called while an agent's sessions are locked, so it must not call [`Drain`] itself.
    fn accept(&self, batch: Vec<Telemetry>);
    /// Counts messages that were refused by a code, before or after `hive/open`.
    fn refused(&self, agent: Option<&AgentId>, code: i64, messages: u64);
    /// Counts messages that were read and then let go by class, before they could be handed to [`accept`](Self::accept). Never blocks. A sink
    /// that shows no counts has nothing to do.
    fn dropped(&self, _agent: &AgentId, _incarnation: u64, _lost: Lost) {}
}

/// Tells the sessions of an agent what becomes of its incarnation. The data plane implements it, the runtime room calls it.
pub trait Drain: Send + Sync {
    /// Sends `hive/drain` to every open session of this incarnation, before SIGTERM. Whether one of them has declared that it ends by that alone, so
    /// that the signal may wait. Must not block.
    fn drain(&self, agent: &AgentId, incarnation: u64) -> bool;

    /// The incarnation has ended and its token is void: closes the sessions that somebody still holds open with it. Must not block.
    fn ended(&self, agent: &AgentId, incarnation: u64);
}

/// What is known of the engine that containers run in, where one is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineNews {
    /// It answers.
    Reachable,
    /// It does not.
    Unreachable {
        /// Why, for people.
        why: String,
    },
    /// What the engine can't give a swarm as its document asks, and what it gives instead; empty when it gives everything.
    Adjusted {
        /// Which.
        swarm: SwarmName,
        /// All of it, a few words each.
        adjustments: Vec<String>,
    },
    /// A swarm's container was made, or one of others was entered.
    ContainerStarted {
        /// Whose.
        swarm: SwarmName,
        /// Its id.
        container: String,
        /// For people: of which image.
        detail: String,
    },
    /// A swarm's container ended that was not to, with everything in it.
    ContainerEnded {
        /// Whose.
        swarm: SwarmName,
        /// Its id.
        container: String,
        /// For people: how.
        detail: String,
    },
}

/// Hears how the engine is and what becomes of containers. The composition root implements it: health folds, the feed tells.
pub trait EngineWitness: Send + Sync {
    /// Takes one piece of news. Must not block.
    fn heard(&self, news: EngineNews);
}

/// Hears what the runtime room sees of agents. The composition root implements it: health folds.
pub trait Witness: Send + Sync {
    /// Takes one observation. Must not block.
    fn saw(&self, agent: &AgentId, incarnation: u64, what: Observation);
}
