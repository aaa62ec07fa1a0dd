//! Reading without a buffer of one's own: a connection that waits holds none. Each thread keeps one, which whoever has something to read takes
//! and gives back once it is used up.

use std::{
    cell::Cell,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Poll, ready},
};

use tokio::io::{AsyncRead, ReadBuf};

use super::limits::READ_BYTES;

thread_local! {
    static SPARE: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// What was read at once.
pub(super) struct Scratch {
    bytes: Box<[u8]>,
    filled: usize,
}

impl Scratch {
    /// The bytes; none at the end of the stream.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }

    fn borrow() -> Self {
        let bytes = SPARE.take().unwrap_or_else(|| vec![0; READ_BYTES].into_boxed_slice());
        Self { bytes, filled: 0 }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        SPARE.set(Some(std::mem::take(&mut self.bytes)));
    }
}

/// How much one connection reads before everybody else gets a turn. By bytes and not by the size of a read, which behind TLS is never a whole
/// buffer.
#[derive(Debug, Default)]
pub(super) struct Stint {
    bytes: usize,
}

impl Stint {
    /// Adds a read. Whether it is enough now; then the next stint begins.
    pub(super) fn is_over(&mut self, read: usize) -> bool {
        self.bytes += read;
        let over = self.bytes >= READ_BYTES;
        if over {
            self.bytes = 0;
        }
        over
    }
}

/// Waits until there is something to read, and reads it. May be dropped at any time: nothing is lost.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Scratch> {
    poll_fn(|context| {
        let mut scratch = Scratch::borrow();
        let mut into = ReadBuf::new(&mut scratch.bytes);
        ready!(Pin::new(&mut *stream).poll_read(context, &mut into))?;
        scratch.filled = into.filled().len();
        Poll::Ready(Ok(scratch))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record of TLS has 16 KiB at most, and a read brings no more.
    #[test]
    fn a_flood_in_small_reads_gives_way_as_one_in_large_reads_does() {
        for read in [READ_BYTES, READ_BYTES / 4, 4096] {
            let mut stint = Stint::default();
            let over = (0..64 * READ_BYTES / read).filter(|_| stint.is_over(read)).count();
            assert_eq!(over, 64, "reads of {read} bytes");
        }
    }
}
