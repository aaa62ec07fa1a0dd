//! The socket under a viewer, so that a connection can be ended that its own actor can't end any more.

use std::{
    any::Any,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::Arc,
};

use actix_web::{dev::Extensions, rt::net::TcpStream};
use nix::sys::socket::{Shutdown, setsockopt, shutdown, sockopt};

/// A second descriptor of one connection.
#[derive(Debug, Clone)]
pub(super) struct Socket {
    descriptor: Arc<OwnedFd>,
}

/// Keeps a connection's socket at hand for [`hybrid_health`](super::hybrid_health); to be given to `HttpServer::on_connect`.
pub fn keep_socket(connection: &dyn Any, data: &mut Extensions) {
    let Some(stream) = connection.downcast_ref::<TcpStream>() else { return };
    // Out of descriptors: the handler finds none and refuses the viewer.
    if let Ok(descriptor) = stream.as_fd().try_clone_to_owned() {
        data.insert(Socket { descriptor: Arc::new(descriptor) });
    }
}

impl Socket {
    /// Bounds what the kernel keeps for a peer that does not read.
    pub(super) fn bound_send_buffer(&self, bytes: usize) -> nix::Result<()> {
        setsockopt(&self.descriptor, sockopt::SndBuf, &bytes)
    }

    /// Ends the connection, whoever still holds it; what the kernel has of it is still sent, the close frame with it.
    pub(super) fn close(&self) {
        // It fails only on a connection that has ended already, which is what is wanted.
        let _ = shutdown(self.descriptor.as_raw_fd(), Shutdown::Both);
    }

    /// Ends the connection and gives up what was not sent: the server's side wakes and drops it, the peer sees a reset.
    pub(super) fn reset(&self) {
        let at_once = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        // As above.
        let _ = setsockopt(&self.descriptor, sockopt::Linger, &at_once);
        self.close();
    }
}
