//! The socket under a request, so that a connection can be judged and ended that its own side can't judge or end any more.

use std::{
    any::Any,
    future::pending,
    mem::{MaybeUninit, size_of},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    sync::Arc,
    time::Duration,
};

use actix_web::{HttpRequest, dev::Extensions, rt::net::TcpStream};
use nix::{
    libc,
    sys::socket::{Shutdown, setsockopt, shutdown, sockopt},
};
use tokio::io::{Interest, unix::AsyncFd};

/// The number of a connection's descriptor, good for as long as the connection is served.
#[derive(Debug, Clone, Copy)]
struct Served(RawFd);

/// A second descriptor of one connection.
#[derive(Debug, Clone)]
pub(super) struct Socket {
    descriptor: Arc<OwnedFd>,
}

/// How far the peer's kernel has come with what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress {
    /// Bytes that it has acknowledged since the connection began.
    pub(super) acknowledged: u64,
    /// Bytes that our kernel still holds for it.
    pub(super) held: u64,
    /// How long ago it last acknowledged anything, a probe of a closed window included.
    pub(super) heard_ago: Duration,
}

/// Keeps a connection's socket at hand for viewers; to be given to `HttpServer::on_connect`.
pub fn keep_socket(connection: &dyn Any, data: &mut Extensions) {
    if let Some(stream) = connection.downcast_ref::<TcpStream>() {
        data.insert(Served(stream.as_raw_fd()));
    }
}

/// Comes when whoever sent this request has hung up: the server itself looks for that only when it has something to write. Who ends his sending half
/// alone is taken for gone, too, for he can't be told from the others. Never comes where no descriptor is left to watch the connection by.
pub fn hung_up(request: &HttpRequest) -> impl Future<Output = ()> + use<> {
    let watched = Socket::of(request).and_then(|socket| {
        // SAFETY: the descriptor is open as long as it is owned here, and nothing puts another into its place.
        unsafe { AsyncFd::register_with_interest(socket.descriptor, Interest::READABLE) }.ok()
    });
    async move {
        let Some(watched) = watched else { return pending().await };
        loop {
            let Ok(mut turn) = watched.readable().await else { return pending().await };
            if turn.ready().is_read_closed() {
                return;
            }
            // It was the next request, which waits for its turn.
            turn.clear_ready();
        }
    }
}

impl Socket {
    /// The socket that a request came by; `None` when no descriptor is left, or on a server without [`keep_socket`].
    pub(super) fn of(request: &HttpRequest) -> Option<Self> {
        let Served(number) = *request.conn_data::<Served>()?;
        // SAFETY: the connection whose number this is waits for the answer to this very request, so it is open, and it stays so for this call.
        let served = unsafe { BorrowedFd::borrow_raw(number) };
        served.try_clone_to_owned().ok().map(|descriptor| Self { descriptor: Arc::new(descriptor) })
    }

    /// Bounds what the kernel keeps for a peer that does not read.
    pub(super) fn bound_send_buffer(&self, bytes: usize) -> nix::Result<()> {
        setsockopt(&self.descriptor, sockopt::SndBuf, &bytes)
    }

    /// How far the peer has come; `None` when the kernel does not say.
    pub(super) fn progress(&self) -> Option<Progress> {
        let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
        let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).ok()?;
        let mut held: libc::c_int = 0;
        let descriptor = self.descriptor.as_fd().as_raw_fd();
        // SAFETY: `info` has `length` bytes and outlives the call, which writes at most so many; all zeros are a valid `tcp_info`, and so is
        // whatever the kernel writes, since it is plain numbers.
        let info = unsafe {
            let told = libc::getsockopt(
                descriptor,
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                info.as_mut_ptr().cast(),
                &raw mut length,
            );
            if told != 0 {
                return None;
            }
            info.assume_init()
        };
        // SAFETY: the call writes one int into `held`, which outlives it. For a TCP socket TIOCOUTQ is SIOCOUTQ: what is not acknowledged.
        let told = unsafe { libc::ioctl(descriptor, libc::TIOCOUTQ, &raw mut held) };
        (told == 0).then(|| Progress {
            acknowledged: info.tcpi_bytes_acked,
            held: u64::try_from(held).unwrap_or(0),
            heard_ago: Duration::from_millis(info.tcpi_last_ack_recv.into()),
        })
    }

    /// Ends the connection, whoever still holds it; what the kernel has of it is still sent, the close frame with it.
    pub(super) fn close(&self) {
        // It fails only on a connection that has ended already, which is what is wanted.
        let _ = shutdown(self.descriptor.as_raw_fd(), Shutdown::Both);
    }

    /// Ends the connection at once and gives up what was not sent: the server's side wakes and drops it, the peer sees a reset. A shutdown would
    /// let the kernel go on sending to a peer that comes round, for as long as the server takes to say goodbye.
    pub(super) fn reset(&self) {
        // SAFETY: all zeros are a valid address of no family, and the call only reads it. Connecting to nowhere dissolves the connection.
        let dissolved = unsafe {
            let nowhere: libc::sockaddr = std::mem::zeroed();
            let length = libc::socklen_t::try_from(size_of::<libc::sockaddr>()).unwrap_or(0);
            libc::connect(self.descriptor.as_raw_fd(), &raw const nowhere, length)
        };
        if dissolved != 0 {
            self.close();
        }
    }
}
