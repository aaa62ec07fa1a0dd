//! The agent's loopback port: each connection is carried over the channel, with a window per connection and direction, so that none of them
//! can starve the others, the output or the lease.
//!
//! Without a leader nothing is accepted: the agent's connections wait in the kernel's queue (bounded: 128 with std) until a daemon attaches.
//! Those that were open when the daemon went are closed, so that the agent opens a new session with the next one.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use super::{link::Link, sys};
use crate::wire::channel::{FromLauncher, RELAY_WINDOW, ToLauncher};

/// Connections at a time. An agent needs one; its helpers may have their own. More are closed at once.
const CONNECTIONS_MAX: usize = 16;
/// Accepts of one turn.
const ACCEPTS_MAX: usize = 16;
/// Bytes of one frame, so that connections take turns.
const PORTION: usize = 16 * 1024;
/// How long the agent may take to read what the daemon sent before it closed.
const LINGER_MAX: Duration = Duration::from_secs(5);

/// The port and its connections.
pub(super) struct Relay {
    listener: TcpListener,
    connections: BTreeMap<u32, Connection>,
    opened: u32,
}

struct Connection {
    stream: TcpStream,
    window: Window,
    /// From the daemon, not taken by the agent yet. At most [`RELAY_WINDOW`].
    inbound: Vec<u8>,
    /// The daemon has closed; what is left is still written until then.
    linger_until: Option<Instant>,
}

/// The credit of one connection, both directions.
#[derive(Debug, PartialEq, Eq)]
struct Window {
    /// Bytes that we may still send to the daemon.
    send: u32,
    /// Bytes that the daemon may still send to us.
    receive: u32,
    /// Bytes that the agent has taken and the daemon has not been told of.
    taken: u32,
}

impl Window {
    fn new() -> Self {
        Self { send: RELAY_WINDOW, receive: RELAY_WINDOW, taken: 0 }
    }

    /// The daemon grants more. A window never grows beyond its size, whatever it says.
    fn granted(&mut self, bytes: u32) {
        self.send = self.send.saturating_add(bytes).min(RELAY_WINDOW);
    }

    /// Whether the daemon was allowed to send that much.
    fn receive(&mut self, bytes: usize) -> bool {
        match u32::try_from(bytes).ok().and_then(|bytes| self.receive.checked_sub(bytes)) {
            Some(left) => {
                self.receive = left;
                true
            }
            None => false,
        }
    }

    /// The agent has taken bytes. Returns the credit to tell: by half windows, or when nothing is left to take.
    fn take(&mut self, bytes: u32, empty: bool) -> Option<u32> {
        self.taken += bytes;
        if self.taken > 0 && (empty || self.taken >= RELAY_WINDOW / 2) {
            let credit = std::mem::take(&mut self.taken);
            self.receive += credit;
            return Some(credit);
        }
        None
    }
}

impl Relay {
    /// Binds a free port on 127.0.0.1.
    pub(super) fn bind() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, connections: BTreeMap::new(), opened: 0 })
    }

    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    pub(super) fn accept_interest(&self) -> libc::pollfd {
        sys::interest(&self.listener, libc::POLLIN)
    }

    /// The connections that something can be done for now. Others are not asked about: a hang-up would be told again and again.
    pub(super) fn interests(&self, leader_has_room: bool) -> impl Iterator<Item = (u32, libc::pollfd)> {
        self.connections.iter().filter_map(move |(id, connection)| {
            let read = leader_has_room && connection.window.send > 0 && connection.linger_until.is_none();
            let write = !connection.inbound.is_empty();
            let events = if read { libc::POLLIN } else { 0 } | if write { libc::POLLOUT } else { 0 };
            (events != 0).then(|| (*id, sys::interest(&connection.stream, events)))
        })
    }

    /// Takes waiting connections in.
    pub(super) fn accept(&mut self, leader: &mut Link) {
        for _ in 0..ACCEPTS_MAX {
            let Ok((stream, _)) = self.listener.accept() else { return };
            if self.connections.len() >= CONNECTIONS_MAX || stream.set_nonblocking(true).is_err() {
                continue;
            }
            // Heartbeats and answers are small and must not wait for company.
            let _ = stream.set_nodelay(true);
            self.opened += 1;
            leader.send(&FromLauncher::RelayOpen { conn: self.opened });
            let connection = Connection { stream, window: Window::new(), inbound: Vec::new(), linger_until: None };
            self.connections.insert(self.opened, connection);
        }
    }

    /// A connection is ready to be read or written.
    pub(super) fn ready(&mut self, conn: u32, leader: &mut Link, scratch: &mut [u8]) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        let open = connection.write(conn, leader).and_then(|()| connection.read(conn, leader, scratch));
        let lingering = connection.linger_until.is_some();
        if open.is_err() || (lingering && connection.inbound.is_empty()) {
            self.connections.remove(&conn);
            if !lingering {
                leader.send(&FromLauncher::RelayClose { conn });
            }
        }
    }

    /// A frame of the daemon. One for a connection that has gone meanwhile is passed over.
    pub(super) fn frame(&mut self, now: Instant, frame: ToLauncher, leader: &mut Link) {
        match frame {
            ToLauncher::RelayData { conn, bytes } => {
                let Some(connection) = self.connections.get_mut(&conn) else { return };
                let allowed = connection.linger_until.is_none() && connection.window.receive(bytes.len());
                connection.inbound.extend_from_slice(&bytes);
                if !allowed || connection.write(conn, leader).is_err() {
                    self.connections.remove(&conn);
                    leader.send(&FromLauncher::RelayClose { conn });
                }
            }
            ToLauncher::RelayClose { conn } => {
                if let Some(connection) = self.connections.get_mut(&conn) {
                    connection.linger_until = Some(now + LINGER_MAX);
                    if connection.inbound.is_empty() {
                        self.connections.remove(&conn);
                    }
                }
            }
            ToLauncher::RelayCredit { conn, bytes } => {
                if let Some(connection) = self.connections.get_mut(&conn) {
                    connection.window.granted(bytes);
                }
            }
            _ => {}
        }
    }

    /// Ends the wait for agents that don't read what the daemon left them. Returns when to look again.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Instant> {
        self.connections.retain(|_, connection| connection.linger_until.is_none_or(|until| now < until));
        self.connections.values().filter_map(|connection| connection.linger_until).min()
    }

    /// Closes every connection.
    pub(super) fn drop_all(&mut self) {
        for connection in std::mem::take(&mut self.connections).into_values() {
            let _ = connection.stream.shutdown(Shutdown::Both);
        }
    }
}

impl Connection {
    fn write(&mut self, conn: u32, leader: &mut Link) -> Result<(), ()> {
        let mut done = 0;
        while done < self.inbound.len() {
            match self.stream.write(&self.inbound[done..]) {
                Ok(0) => return Err(()),
                Ok(len) => done += len,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return Err(()),
            }
        }
        self.inbound.drain(..done);
        let empty = self.inbound.is_empty();
        if empty {
            self.inbound.shrink_to(PORTION);
        }
        if let Some(bytes) = self.window.take(u32::try_from(done).unwrap_or(RELAY_WINDOW), empty)
            && self.linger_until.is_none()
        {
            leader.send(&FromLauncher::RelayCredit { conn, bytes });
        }
        Ok(())
    }

    fn read(&mut self, conn: u32, leader: &mut Link, scratch: &mut [u8]) -> Result<(), ()> {
        if !leader.has_room() || self.linger_until.is_some() {
            return Ok(());
        }
        let len_max = PORTION.min(scratch.len()).min(self.window.send as usize);
        if len_max == 0 {
            return Ok(());
        }
        match self.stream.read(&mut scratch[..len_max]) {
            Ok(0) => Err(()),
            Ok(len) => {
                self.window.send -= u32::try_from(len).unwrap_or(self.window.send);
                leader.send(&FromLauncher::RelayData { conn, bytes: scratch[..len].to_vec() });
                Ok(())
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(()),
            Err(_) => Err(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_is_told_by_half_windows_or_when_nothing_is_left() {
        let mut window = Window::new();
        assert!(window.receive(RELAY_WINDOW as usize));
        assert!(!window.receive(1), "the window is used up");
        assert_eq!(window.take(RELAY_WINDOW / 2 - 1, false), None);
        assert_eq!(window.take(1, false), Some(RELAY_WINDOW / 2));
        assert_eq!(window.take(10, true), Some(10));
        assert_eq!(window.take(0, true), None);
        assert!(window.receive(RELAY_WINDOW as usize / 2 + 10));
        assert!(!window.receive(1));
    }

    #[test]
    fn a_grant_never_opens_more_than_a_window() {
        let mut window = Window::new();
        window.send = 5;
        window.granted(u32::MAX);
        assert_eq!(window.send, RELAY_WINDOW);
    }
}
