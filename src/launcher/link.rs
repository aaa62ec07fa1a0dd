//! One daemon's channel: bytes in and out without waiting, frames on top. Memory is bounded both ways.

use std::{
    fs::File,
    io::{self, ErrorKind, Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
};

use super::{core::LinkId, ring::Ring, sys};
use crate::wire::channel::{Decoder, FromLauncher, MAGIC, ToLauncher, VERSION, encode};

/// Above this, output lines and relayed bytes wait where they are: one pipe's worth is enough to keep the reader busy.
const OUT_ROOM: usize = 64 * 1024;
/// Above this the other side asks without reading the answers, and is cut off.
const OUT_MAX: usize = 1024 * 1024;
/// Reads of one turn, each of up to the scratch buffer (64 KiB, a pipe's capacity): more than a daemon may have under way, so that whatever
/// waited is drained before the lease is judged, and still an end.
const READS_MAX: usize = 32;
/// Writes of one turn, so that a fast reader of a flood does not keep the loop from its other work.
const WRITES_MAX: usize = 4;
/// Capacity that a drained buffer keeps.
const CAPACITY_KEPT_MAX: usize = 128 * 1024;

/// The channel is of no use any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gone;

/// One channel.
pub(super) struct Link {
    id: LinkId,
    reader: File,
    writer: File,
    decoder: Decoder<ToLauncher>,
    out: Vec<u8>,
    written: usize,
}

impl Link {
    /// Over two non-blocking files. The first bytes are under way: magic and `Hello`.
    pub(super) fn new(id: LinkId, reader: File, writer: File) -> Self {
        let mut link = Self { id, reader, writer, decoder: Decoder::new(), out: MAGIC.to_vec(), written: 0 };
        link.send(&FromLauncher::Hello { version: VERSION, pid: std::process::id() });
        link
    }

    /// Over an accepted connection.
    pub(super) fn accepted(id: LinkId, stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let writer = File::from(OwnedFd::from(stream.try_clone()?));
        Ok(Self::new(id, File::from(OwnedFd::from(stream)), writer))
    }

    pub(super) fn id(&self) -> LinkId {
        self.id
    }

    pub(super) fn read_interest(&self) -> libc::pollfd {
        sys::interest(&self.reader, libc::POLLIN)
    }

    /// Asked for even with nothing to write: a reader that has gone shows here.
    pub(super) fn write_interest(&self) -> libc::pollfd {
        sys::interest(&self.writer, if self.is_flushed() { 0 } else { libc::POLLOUT })
    }

    /// Reads what is there. `Err` once the other side has closed; what came before is to be taken first.
    pub(super) fn receive(&mut self, scratch: &mut [u8]) -> Result<(), Gone> {
        for _ in 0..READS_MAX {
            match self.reader.read(scratch) {
                Ok(0) => return Err(Gone),
                Ok(len) => self.decoder.push(&scratch[..len]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return Err(Gone),
            }
        }
        Ok(())
    }

    /// The next frame. `Err` with the reason when the bytes are none.
    pub(super) fn next(&mut self) -> Result<Option<ToLauncher>, String> {
        self.decoder.next().map_err(|error| error.to_string())
    }

    /// Queues a frame.
    pub(super) fn send(&mut self, frame: &FromLauncher) {
        // What we say always fits into a frame: lines are cut, relayed bytes read in portions, names limited by the daemon.
        let encoded = encode(frame, &mut self.out);
        debug_assert!(encoded.is_ok(), "{encoded:?}");
    }

    /// Whether it is worth to queue bulk.
    pub(super) fn has_room(&self) -> bool {
        self.out.len() - self.written < OUT_ROOM
    }

    pub(super) fn is_flushed(&self) -> bool {
        self.written == self.out.len()
    }

    /// Queues output lines while there is room and writes what the other side takes. Returns how many bytes it took.
    pub(super) fn pump(&mut self, ring: &mut Ring) -> Result<usize, Gone> {
        let mut total = 0;
        for _ in 0..WRITES_MAX {
            if self.has_room() && ring.has_unsent() {
                if let Some(loss) = ring.take_loss() {
                    self.send(&loss);
                }
                ring.take_unsent(&mut self.out, self.written + OUT_ROOM);
            }
            if self.is_flushed() {
                break;
            }
            let len = self.flush()?;
            total += len;
            if len == 0 {
                break;
            }
        }
        Ok(total)
    }

    /// Writes once. Returns how many bytes were taken.
    pub(super) fn flush(&mut self) -> Result<usize, Gone> {
        if self.out.len() - self.written > OUT_MAX {
            return Err(Gone);
        }
        let len = loop {
            if self.is_flushed() {
                break 0;
            }
            match self.writer.write(&self.out[self.written..]) {
                Ok(len) => break len,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break 0,
                Err(_) => return Err(Gone),
            }
        };
        self.written += len;
        if self.is_flushed() {
            self.out.clear();
            self.out.shrink_to(CAPACITY_KEPT_MAX);
            self.written = 0;
        } else if self.written > OUT_ROOM {
            self.out.drain(..self.written);
            self.written = 0;
        }
        Ok(len)
    }
}
