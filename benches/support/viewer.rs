//! A client of `/ws/hybrid-health`.

use std::{io, net::TcpStream, time::Duration};

use anyhow::{Context, bail};
use serde_json::Value;
use tungstenite::{Error, Message, WebSocket};

use super::clock;

/// The handshake and its greeting.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(10);

/// A frame, and when the client had it whole.
pub struct Frame {
    pub at: Duration,
    pub body: Value,
}

impl Frame {
    /// What a `session_update` says of an agent.
    pub fn agent(&self, swarm: &str, name: &str) -> Option<&Value> {
        let agents = self.body["agents"].as_array().filter(|_| self.body["type"] == "session_update")?;
        agents.iter().find(|agent| agent["swarm"] == swarm && agent["name"] == name)
    }
}

/// A viewer that reads as fast as frames come.
pub struct Viewer {
    socket: WebSocket<TcpStream>,
}

impl Viewer {
    pub fn connect(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).context("cannot reach the daemon")?;
        stream.set_read_timeout(Some(HANDSHAKE_WAIT))?;
        let (socket, _) = tungstenite::client(format!("ws://{address}/ws/hybrid-health"), stream)
            .map_err(|error| anyhow::anyhow!("no handshake: {error}"))?;
        Ok(Self { socket })
    }

    /// The next text frame; `None` when none comes within the time.
    pub fn next(&mut self, within: Duration) -> anyhow::Result<Option<Frame>> {
        let deadline = clock::now() + within;
        loop {
            let left = deadline.saturating_sub(clock::now());
            // Zero would mean for ever.
            self.socket.get_ref().set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            match self.socket.read() {
                Ok(Message::Text(text)) => {
                    let at = clock::now();
                    return Ok(Some(Frame { at, body: serde_json::from_str(text.as_str())? }));
                }
                // A ping's answer is written by the next read or flush.
                Ok(_) => self.socket.flush()?,
                Err(Error::Io(error))
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(error) => bail!("the socket broke: {error}"),
            }
            if left.is_zero() {
                return Ok(None);
            }
        }
    }

    /// Reads and drops what comes for so long.
    pub fn rest(&mut self, time: Duration) -> anyhow::Result<()> {
        let end = clock::now() + time;
        while clock::now() < end {
            self.next(end.saturating_sub(clock::now()))?;
        }
        Ok(())
    }
}
