//! Output lines on their way to the daemon: cut, numbered, and kept until they are acknowledged or no longer fit.
//!
//! Pure. The ring holds lines as ready frames in one run of bytes, so that its size is what it says and sending is copying.

use std::collections::VecDeque;

use crate::wire::channel::{FromLauncher, LINE_PIECE_MAX, Stream, output_header};

/// The smallest ring: three of the longest pieces.
const RING_BYTES_MIN: usize = 64 * 1024;
/// Capacity that an empty ring keeps.
const CAPACITY_KEPT_MAX: usize = 64 * 1024;
/// Bytes of a frame in front of the line.
const HEADER_LEN: usize = 22;

/// Cuts one stream into lines, and lines that are too long into pieces.
pub(super) struct Lines {
    stream: Stream,
    piece: Vec<u8>,
}

impl Lines {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, piece: Vec::new() }
    }

    /// Takes what was read; whole lines and full pieces go into the ring.
    pub(super) fn feed(&mut self, mut bytes: &[u8], at_ms: u64, ring: &mut Ring) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.extend(&bytes[..end], at_ms, ring);
            ring.push(self.stream, false, &self.piece, at_ms);
            self.piece.clear();
            bytes = &bytes[end + 1..];
        }
        self.extend(bytes, at_ms, ring);
    }

    /// The stream has ended: what has no newline is a line, too.
    pub(super) fn finish(&mut self, at_ms: u64, ring: &mut Ring) {
        if !self.piece.is_empty() {
            ring.push(self.stream, false, &self.piece, at_ms);
            self.piece = Vec::new();
        }
    }

    /// A full piece leaves only when more of its line comes: a line of exactly the limit is one piece. It is not cut within a character, which
    /// would be lost on both sides of the cut, for each piece is read as text of its own.
    fn extend(&mut self, mut bytes: &[u8], at_ms: u64, ring: &mut Ring) {
        while self.piece.len() + bytes.len() > LINE_PIECE_MAX {
            let (now, later) = bytes.split_at(LINE_PIECE_MAX - self.piece.len());
            self.piece.extend_from_slice(now);
            let cut = self.piece.len() - begun_character(&self.piece);
            ring.push(self.stream, true, &self.piece[..cut], at_ms);
            self.piece.drain(..cut);
            bytes = later;
        }
        self.piece.extend_from_slice(bytes);
    }
}

/// Length of a UTF-8 character at the end that lacks its last bytes; 0 when there is none.
fn begun_character(bytes: &[u8]) -> usize {
    let tail = &bytes[bytes.len().saturating_sub(3)..];
    match tail.iter().rposition(|byte| byte & 0xC0 != 0x80) {
        Some(lead) => {
            let character = &tail[lead..];
            // `error_len` is `None` for exactly this: valid so far, and the end came too early.
            let begun =
                str::from_utf8(character).is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none());
            if begun { character.len() } else { 0 }
        }
        None => 0,
    }
}

/// Pieces that the daemon must be told it will never get.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Loss {
    lines: u64,
    bytes: u64,
}

/// Numbered lines that wait for their acknowledgement.
pub(super) struct Ring {
    frames: VecDeque<u8>,
    bytes_max: usize,
    first_seq: u64,
    next_seq: u64,
    /// Bytes from the front that the present channel has been given.
    sent_len: usize,
    /// Dropped before the present channel was given them.
    unsent_loss: Loss,
    /// Bytes of lines that were dropped behind the last acknowledged one.
    unacked_loss_bytes: u64,
}

impl Ring {
    pub(super) fn new(bytes_max: u32) -> Self {
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX).max(RING_BYTES_MIN);
        Self {
            frames: VecDeque::new(),
            bytes_max,
            first_seq: 1,
            next_seq: 1,
            sent_len: 0,
            unsent_loss: Loss::default(),
            unacked_loss_bytes: 0,
        }
    }

    /// The first number that is held; the next one when the ring is empty.
    pub(super) fn first_seq(&self) -> u64 {
        self.first_seq
    }

    /// The number that the next piece gets.
    pub(super) fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Numbers a piece and keeps it; the oldest make room.
    fn push(&mut self, stream: Stream, partial: bool, bytes: &[u8], at_ms: u64) {
        let Ok(bytes_len) = u16::try_from(bytes.len()) else { return };
        let len = HEADER_LEN + bytes.len();
        while self.frames.len() + len > self.bytes_max {
            self.drop_first();
        }
        self.reserve(len);
        self.frames.extend(&output_header(self.next_seq, at_ms, stream, partial, bytes_len));
        self.frames.extend(bytes);
        self.next_seq += 1;
    }

    /// Up to and with `seq` is safe with the daemon.
    pub(super) fn ack(&mut self, seq: u64) {
        let seq = seq.min(self.next_seq - 1);
        if seq + 1 >= self.first_seq {
            self.unacked_loss_bytes = 0;
        }
        while self.first_seq <= seq {
            self.remove_first();
        }
    }

    /// A new daemon, which has everything up to and with `last_seq`: the rest is sent again, and what is gone is told.
    ///
    /// The number of lost lines is exact. Their bytes are, too, when `last_seq` is the last acknowledged number or nothing was dropped behind
    /// it; otherwise they are an upper bound: the bytes of all lines that were dropped since that acknowledgement.
    pub(super) fn attach(&mut self, last_seq: u64) {
        self.ack(last_seq);
        self.sent_len = 0;
        let lines = self.first_seq.saturating_sub(last_seq.saturating_add(1));
        self.unsent_loss = Loss { lines, bytes: if lines == 0 { 0 } else { self.unacked_loss_bytes } };
    }

    /// Whether the present channel has not been given everything.
    pub(super) fn has_unsent(&self) -> bool {
        self.unsent_loss != Loss::default() || self.sent_len < self.frames.len()
    }

    /// The loss that is to be told before the next line.
    pub(super) fn take_loss(&mut self) -> Option<FromLauncher> {
        let Loss { lines, bytes } = std::mem::take(&mut self.unsent_loss);
        (lines > 0).then_some(FromLauncher::Lost { lines, bytes, next_seq: self.first_seq })
    }

    /// Appends frames that the present channel has not been given until `out` is as long as `len_max` or they end.
    pub(super) fn take_unsent(&mut self, out: &mut Vec<u8>, len_max: usize) {
        while out.len() < len_max && self.sent_len < self.frames.len() {
            let len = self.frame_len(self.sent_len);
            let (front, back) = self.frames.as_slices();
            let (start, end) = (self.sent_len, self.sent_len + len);
            out.extend_from_slice(&front[start.min(front.len())..end.min(front.len())]);
            out.extend_from_slice(&back[start.saturating_sub(front.len())..end.saturating_sub(front.len())]);
            self.sent_len = end;
        }
    }

    /// Gives back what a burst took, once the ring is empty.
    pub(super) fn relax(&mut self) {
        if self.frames.is_empty() && self.frames.capacity() > CAPACITY_KEPT_MAX {
            self.frames = VecDeque::new();
        }
    }

    fn drop_first(&mut self) {
        let unsent = self.sent_len == 0;
        let bytes = (self.remove_first() - HEADER_LEN) as u64;
        self.unacked_loss_bytes += bytes;
        if unsent {
            self.unsent_loss.lines += 1;
            self.unsent_loss.bytes += bytes;
        }
    }

    fn remove_first(&mut self) -> usize {
        let len = self.frame_len(0);
        self.frames.drain(..len);
        self.sent_len = self.sent_len.saturating_sub(len);
        self.first_seq += 1;
        len
    }

    /// Length of the frame that begins at `offset`, with its length field.
    fn frame_len(&self, offset: usize) -> usize {
        let mut len = [0; 4];
        for (byte, wire) in len.iter_mut().zip(self.frames.range(offset..offset + 4)) {
            *byte = *wire;
        }
        4 + u32::from_le_bytes(len) as usize
    }

    /// Doubles like a vector, but never beyond the bound.
    fn reserve(&mut self, more: usize) {
        let needed = self.frames.len() + more;
        if needed > self.frames.capacity() {
            let capacity = (self.frames.capacity() * 2).clamp(needed, self.bytes_max.max(needed));
            self.frames.reserve_exact(capacity - self.frames.len());
        }
    }
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
