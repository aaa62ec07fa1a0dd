//! Traits through which a lower room reaches a higher one without knowing it.

use tokio::io::{AsyncRead, AsyncWrite};

use super::ids::AgentId;

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
}
