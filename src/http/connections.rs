//! Connections: how each is bounded, and how many of them one peer may have.

use std::{
    any::Any,
    os::fd::AsRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::{dev::Extensions, rt::net::TcpStream};
use dashmap::DashMap;
use nix::sys::socket::{self, setsockopt, sockopt::TcpUserTimeout};

use super::{guard::LocalAddr, pace::Peer};
use crate::stream;

/// Who has how many connections.
#[derive(Debug)]
pub(super) struct Connections {
    peer_max: usize,
    write_deadline: Duration,
    open: Arc<DashMap<Peer, AtomicUsize>>,
}

/// One connection's place; it is free again when the connection has gone.
struct Seat {
    peer: Peer,
    open: Arc<DashMap<Peer, AtomicUsize>>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let left = |_: &Peer, open: &AtomicUsize| open.fetch_sub(1, Ordering::Relaxed) <= 1;
        self.open.remove_if(&self.peer, left);
    }
}

impl Connections {
    pub(super) fn new(peer_max: usize, write_deadline: Duration) -> Self {
        Self { peer_max, write_deadline, open: Arc::default() }
    }

    /// Bounds a connection that has just come, behind TLS once hands were shaken, or ends it.
    pub(super) fn enter(&self, connection: &dyn Any, data: &mut Extensions) {
        let plain = connection.downcast_ref::<TcpStream>();
        let behind_tls = || connection.downcast_ref::<TlsStream<TcpStream>>().map(|stream| stream.get_ref().0);
        let Some(socket) = plain.or_else(behind_tls) else { return };
        let Some(seat) = self.seat(Peer::of(socket.peer_addr().ok())) else {
            // It fails only on a connection that has ended already. The server sees its end, and lets go of it.
            let _ = socket::shutdown(socket.as_raw_fd(), socket::Shutdown::Both);
            return;
        };
        data.insert(seat);
        let deadline_ms = u32::try_from(self.write_deadline.as_millis()).unwrap_or(u32::MAX);
        if let Err(error) = setsockopt(socket, TcpUserTimeout, &deadline_ms) {
            tracing::warn!(%error, "a connection has no write deadline");
        }
        if let Ok(local) = socket.local_addr() {
            data.insert(LocalAddr(local));
        }
        stream::keep_socket(socket, data);
    }

    fn seat(&self, peer: Peer) -> Option<Seat> {
        let open = self.open.entry(peer).or_default();
        if open.fetch_add(1, Ordering::Relaxed) >= self.peer_max {
            open.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Seat { peer, open: Arc::clone(&self.open) })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_so_many_seats_and_leaves_nothing_behind() {
        let connections = Connections::new(2, Duration::from_secs(1));
        let peers = ["10.0.0.1:1", "10.0.0.2:1"].map(|peer| Peer::of(Some(peer.parse().unwrap())));
        let seats: Vec<_> = [0, 0, 1].into_iter().map(|n| connections.seat(peers[n]).unwrap()).collect();
        assert!(connections.seat(peers[0]).is_none());
        let second = connections.seat(peers[1]).unwrap();
        assert!(connections.seat(peers[1]).is_none());
        drop((seats, second));
        assert!(connections.open.is_empty());
        assert!(connections.seat(peers[0]).is_some());
    }
}
