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

    /// Whether more may wait behind it.
    pub(super) fn is_full(&self) -> bool {
        self.filled == self.bytes.len()
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
