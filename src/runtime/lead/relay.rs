//! Connections that agents open to their launcher's loopback port, as byte streams. Each direction has a window: what its reader has not
//! consumed stays below it, so one slow connection costs the others and the channel nothing.

use std::{
    collections::{HashMap, VecDeque},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::outbox::Outbox;
use crate::wire::channel::{RELAY_WINDOW, ToLauncher};

/// Connections of one launcher at a time. It allows 16 itself; one that opens more than this is broken.
const RELAYS_MAX: usize = 64;
/// Longest piece of data in a frame, so that orders wait behind little.
const PIECE_MAX: usize = 16 * 1024;
/// Consumed bytes that are granted again at once: half the window keeps the sender going and the grants few.
const GRANT: u32 = RELAY_WINDOW / 2;

/// The open connections of one channel.
pub(super) struct Relays {
    outbox: Arc<Outbox>,
    open: HashMap<u32, Arc<Mutex<Conn>>>,
}

struct Conn {
    /// From the agent, not yet read by us.
    inbound: VecDeque<u8>,
    /// Read by us and not yet granted again.
    ungranted: u32,
    /// What the launcher takes before it grants more.
    credit: u32,
    /// The agent sends nothing more.
    ended: bool,
    /// Nothing more goes to the agent: we have closed, or the channel is gone.
    closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Conn {
    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

impl Relays {
    pub(super) fn new(outbox: Arc<Outbox>) -> Self {
        Self { outbox, open: HashMap::new() }
    }

    /// A new connection; `None` when the launcher opens too many, which it is told.
    pub(super) fn open(&mut self, conn: u32) -> Option<RelayStream> {
        self.open.retain(|_, state| !state.lock().closed);
        if self.open.len() >= RELAYS_MAX || self.open.contains_key(&conn) {
            self.outbox.relay(&ToLauncher::RelayClose { conn });
            return None;
        }
        let state = Arc::new(Mutex::new(Conn {
            inbound: VecDeque::new(),
            ungranted: 0,
            credit: RELAY_WINDOW,
            ended: false,
            closed: false,
            reader: None,
            writer: None,
        }));
        self.open.insert(conn, Arc::clone(&state));
        Some(RelayStream { conn, state, outbox: Arc::clone(&self.outbox) })
    }

    /// Bytes from the agent. A launcher that overruns the window loses the connection.
    pub(super) fn data(&mut self, conn: u32, bytes: &[u8]) {
        let Some(state) = self.open.get(&conn) else { return };
        let mut state = state.lock();
        if state.closed {
            return;
        }
        if state.inbound.len() + bytes.len() > RELAY_WINDOW as usize {
            state.ended = true;
            state.closed = true;
            state.wake();
            self.outbox.relay(&ToLauncher::RelayClose { conn });
            return;
        }
        state.inbound.extend(bytes);
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }

    /// The launcher takes so many more bytes.
    pub(super) fn credit(&mut self, conn: u32, bytes: u32) {
        let Some(state) = self.open.get(&conn) else { return };
        let mut state = state.lock();
        state.credit = state.credit.saturating_add(bytes).min(RELAY_WINDOW);
        if let Some(writer) = state.writer.take() {
            writer.wake();
        }
    }

    /// The agent has closed it.
    pub(super) fn close(&mut self, conn: u32) {
        if let Some(state) = self.open.remove(&conn) {
            let mut state = state.lock();
            state.ended = true;
            state.closed = true;
            state.wake();
        }
    }
}

impl Drop for Relays {
    /// The channel is gone, and with it every connection.
    fn drop(&mut self) {
        for state in self.open.values() {
            let mut state = state.lock();
            state.ended = true;
            state.closed = true;
            state.wake();
        }
    }
}

/// One connection. Dropping it closes it.
pub(super) struct RelayStream {
    conn: u32,
    state: Arc<Mutex<Conn>>,
    outbox: Arc<Outbox>,
}

impl AsyncRead for RelayStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state.lock();
        if state.inbound.is_empty() {
            if state.ended || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            state.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let (front, _) = state.inbound.as_slices();
        let n = front.len().min(buf.remaining());
        buf.put_slice(&front[..n]);
        state.inbound.drain(..n);
        state.ungranted += u32::try_from(n).unwrap_or(u32::MAX);
        if state.ungranted >= GRANT && !state.closed {
            let bytes = std::mem::take(&mut state.ungranted);
            self.outbox.relay(&ToLauncher::RelayCredit { conn: self.conn, bytes });
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for RelayStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.state.lock();
        if state.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if state.credit == 0 {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let n = buf.len().min(state.credit as usize).min(PIECE_MAX);
        state.credit -= u32::try_from(n).unwrap_or(state.credit);
        self.outbox.relay(&ToLauncher::RelayData { conn: self.conn, bytes: buf[..n].to_vec() });
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}

impl RelayStream {
    fn finish(&self) {
        let mut state = self.state.lock();
        if !std::mem::replace(&mut state.closed, true) {
            state.ended = true;
            state.wake();
            self.outbox.relay(&ToLauncher::RelayClose { conn: self.conn });
        }
    }
}

impl Drop for RelayStream {
    fn drop(&mut self) {
        self.finish();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::wire::channel::Decoder;

    fn relays() -> (Arc<Outbox>, Relays) {
        let outbox = Arc::new(Outbox::new());
        (Arc::clone(&outbox), Relays::new(outbox))
    }

    fn taken(outbox: &Outbox) -> Vec<ToLauncher> {
        let mut bytes = Vec::new();
        outbox.take(&mut bytes);
        let mut decoder = Decoder::new();
        decoder.push(&bytes);
        std::iter::from_fn(|| decoder.next().unwrap()).collect()
    }

    #[tokio::test]
    async fn a_writer_stops_at_the_window_and_goes_on_with_credit() {
        let (outbox, mut relays) = relays();
        let mut stream = relays.open(1).unwrap();
        let writer = tokio::spawn(async move {
            stream.write_all(&vec![7; RELAY_WINDOW as usize + 10]).await.unwrap();
            stream
        });
        let mut sent = 0;
        while sent < RELAY_WINDOW as usize {
            tokio::task::yield_now().await;
            for frame in taken(&outbox) {
                let ToLauncher::RelayData { bytes, .. } = frame else { panic!("{frame:?}") };
                sent += bytes.len();
            }
        }
        assert_eq!(sent, RELAY_WINDOW as usize);
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(!writer.is_finished());
        relays.credit(1, 10);
        let stream = writer.await.unwrap();
        assert_eq!(taken(&outbox), [ToLauncher::RelayData { conn: 1, bytes: vec![7; 10] }]);
        drop(stream);
        assert_eq!(taken(&outbox), [ToLauncher::RelayClose { conn: 1 }]);
    }

    #[tokio::test]
    async fn what_is_read_is_granted_again_and_no_more() {
        let (outbox, mut relays) = relays();
        let mut stream = relays.open(1).unwrap();
        relays.data(1, &vec![1; RELAY_WINDOW as usize]);
        let mut first = vec![0; GRANT as usize - 1];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(taken(&outbox), []);
        stream.read_u8().await.unwrap();
        assert_eq!(taken(&outbox), [ToLauncher::RelayCredit { conn: 1, bytes: GRANT }]);
        relays.data(1, &vec![1; GRANT as usize + 1]);
        assert_eq!(taken(&outbox), [ToLauncher::RelayClose { conn: 1 }], "an overrun closes the connection");
    }

    #[tokio::test]
    async fn a_close_lets_the_rest_be_read_and_wakes_a_writer() {
        let (_outbox, mut relays) = relays();
        let stream = relays.open(1).unwrap();
        let (mut read, mut write) = tokio::io::split(stream);
        relays.data(1, b"rest");
        let writer = tokio::spawn(async move { write.write_all(&vec![0; 2 * RELAY_WINDOW as usize]).await });
        tokio::task::yield_now().await;
        relays.close(1);
        let mut rest = Vec::new();
        read.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"rest");
        assert_eq!(writer.await.unwrap().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn connections_are_bounded_and_closed_ones_make_room() {
        let (outbox, mut relays) = relays();
        let mut streams: Vec<_> = (0..RELAYS_MAX as u32).map(|conn| relays.open(conn).unwrap()).collect();
        assert!(relays.open(1000).is_none());
        assert_eq!(taken(&outbox), [ToLauncher::RelayClose { conn: 1000 }]);
        streams.pop();
        assert!(relays.open(1001).is_some());
    }

    #[tokio::test]
    async fn the_end_of_the_channel_ends_its_streams() {
        let (_outbox, mut relays) = relays();
        let mut stream = relays.open(1).unwrap();
        let reader = tokio::spawn(async move { stream.read_u8().await });
        tokio::task::yield_now().await;
        drop(relays);
        assert!(reader.await.unwrap().is_err());
    }
}
