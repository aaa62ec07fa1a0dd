//! A frame on its way to viewers, and how it is handed to a connection: in pieces that are shared by all who are sent the same. Pure.

use std::collections::VecDeque;

use actix_web::web::Bytes;

use super::{limits::BATCH_BYTES, loans::Loan};

/// From this length on a tail is not copied into each frame that ends with it. Below it a copy costs less than a piece of its own.
pub(super) const SHARED_BYTES_MIN: usize = BATCH_BYTES;

/// What a WebSocket message is, by RFC 6455, section 5.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opcode {
    Text = 0x1,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xa,
}

/// Writes what goes before a whole message of this length. A server's are not masked.
fn put_header(opcode: Opcode, length: usize, into: &mut Vec<u8>) {
    const WHOLE: u8 = 0x80;
    into.push(WHOLE | opcode as u8);
    if let Ok(length @ 0..126) = u8::try_from(length) {
        into.push(length);
    } else if let Ok(length) = u16::try_from(length) {
        into.push(126);
        into.extend(length.to_be_bytes());
    } else {
        into.push(127);
        into.extend((length as u64).to_be_bytes());
    }
}

/// A whole short message that is no frame of ours: a ping, a pong, a close.
pub(super) fn control(opcode: Opcode, payload: &[u8]) -> Bytes {
    let mut message = Vec::with_capacity(payload.len() + 4);
    put_header(opcode, payload.len(), &mut message);
    message.extend_from_slice(payload);
    message.into()
}

/// A close, with its code and why.
pub(super) fn close(code: u16, why: &str) -> Bytes {
    control(Opcode::Close, &[&code.to_be_bytes(), why.as_bytes()].concat())
}

/// A frame, written once: clones are references to it. In front the head, and behind it, where that is long, what it has in common with other frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    /// The message's header, and the text behind it.
    message: Bytes,
    text_at: usize,
    shared: Option<Bytes>,
}

impl From<String> for Frame {
    fn from(own: String) -> Self {
        Self::new(&own, None)
    }
}

impl Frame {
    fn new(own: &str, shared: Option<Bytes>) -> Self {
        const HEADER_BYTES_MAX: usize = 10;
        let mut message = Vec::with_capacity(HEADER_BYTES_MAX + own.len());
        put_header(Opcode::Text, own.len() + shared.as_ref().map_or(0, Bytes::len), &mut message);
        let text_at = message.len();
        message.extend_from_slice(own.as_bytes());
        Self { message: message.into(), text_at, shared }
    }

    /// A frame that ends with all of a text but its first bytes.
    pub(super) fn sharing(own: &str, text: Loan, skipped: usize) -> Self {
        Self::new(own, Some(Bytes::from_owner(text).slice(skipped..)))
    }

    /// Whether a part of it is shared with other frames.
    pub(super) fn is_long(&self) -> bool {
        self.shared.is_some()
    }

    /// Both parts of the text, the second of which is shared.
    pub(super) fn text(&self) -> (&[u8], Option<&Bytes>) {
        (&self.message[self.text_at..], self.shared.as_ref())
    }

    /// The whole text.
    #[cfg(test)]
    pub(super) fn into_text(self) -> String {
        let (own, shared) = self.text();
        let mut text = String::from_utf8_lossy(own).into_owned();
        text.push_str(&String::from_utf8_lossy(shared.unwrap_or(&Bytes::new())));
        text
    }
}

/// What waits until the connection takes it. The server copies what it is handed into the connection's own buffer, so it is handed a batch at a time:
/// a viewer that does not read holds two batches there, and of what waits here no more than references.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    waiting: VecDeque<Bytes>,
    bytes: usize,
}

impl Pieces {
    pub(super) fn push(&mut self, piece: impl Into<Bytes>) {
        let piece = piece.into();
        if !piece.is_empty() {
            self.bytes += piece.len();
            self.waiting.push_back(piece);
        }
    }

    /// Adds a frame as a WebSocket message.
    pub(super) fn push_message(&mut self, frame: Frame) {
        self.push(frame.message);
        if let Some(shared) = frame.shared {
            self.push(shared);
        }
    }

    /// The next piece, at most a batch long.
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let first = self.waiting.front_mut()?;
        let piece = if first.len() > BATCH_BYTES { first.split_to(BATCH_BYTES) } else { self.waiting.pop_front()? };
        self.bytes -= piece.len();
        Some(piece)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// A batch waits: nothing more is to be made.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Arc;

    use actix_web::web::BytesMut;

    use super::*;
    use crate::stream::loans::Loans;

    fn loan(text: &Arc<str>) -> Loan {
        Loans::within(0).lend(Arc::clone(text), 1).0
    }

    fn all(pieces: &mut Pieces) -> Vec<u8> {
        std::iter::from_fn(|| pieces.pop()).inspect(|piece| assert!(piece.len() <= BATCH_BYTES)).flatten().collect()
    }

    #[test]
    fn what_is_long_is_handed_over_in_batches_and_in_order() {
        let mut pieces = Pieces::default();
        let long = "0123456789".repeat(BATCH_BYTES / 4);
        for text in ["a", "", &long, "b"] {
            pieces.push(text.to_owned());
        }
        assert_eq!(all(&mut pieces), format!("a{long}b").into_bytes());
    }

    /// Read back by the library that frames everything else.
    #[test]
    fn a_long_frame_is_one_message() {
        use tungstenite::protocol::frame::{
            Frame as Read, FrameHeader,
            coding::{Data, OpCode},
        };
        for length in [0, 1, 114, 115, 116, 65_525, 65_526, 300_000] {
            let text: Arc<str> = Arc::from("x".repeat(length + 1));
            let mut pieces = Pieces::default();
            pieces.push_message(Frame::sharing("0123456789", loan(&text), 1));
            let bytes = all(&mut pieces);
            let mut cursor = std::io::Cursor::new(&bytes[..]);
            let (header, announced) = FrameHeader::parse(&mut cursor).unwrap().unwrap();
            let payload = &bytes[usize::try_from(cursor.position()).unwrap()..];
            assert_eq!((header.opcode, header.is_final, header.mask), (OpCode::Data(Data::Text), true, None));
            assert_eq!((announced, payload.len()), (10 + length as u64, 10 + length));
            assert!(payload.starts_with(b"0123456789"));
            let written = Read::from_payload(header, BytesMut::from(payload).freeze());
            assert_eq!(written.len(), bytes.len(), "in the shortest form");
        }
    }

    /// Not even what is short is copied for each viewer.
    #[test]
    fn a_frame_is_written_once_for_all_who_get_it() {
        let frame = Frame::from("x".repeat(1000));
        let of = |frame: &Frame| {
            let mut pieces = Pieces::default();
            pieces.push_message(frame.clone());
            pieces.pop().unwrap()
        };
        assert_eq!(of(&frame).as_ptr(), of(&frame).as_ptr());
    }

    #[test]
    fn a_batch_is_full_until_it_is_handed_over() {
        let mut pieces = Pieces::default();
        pieces.push(vec![7; BATCH_BYTES - 1]);
        assert!(!pieces.is_full() && !pieces.is_empty());
        pieces.push(vec![7; BATCH_BYTES]);
        assert!(pieces.is_full());
        while pieces.pop().is_some() {}
        assert!(!pieces.is_full() && pieces.is_empty());
    }

    #[test]
    fn control_messages() {
        assert_eq!(control(Opcode::Ping, &[1, 2]), [0x89, 2, 1, 2][..]);
        assert_eq!(control(Opcode::Pong, &[]), [0x8a, 0][..]);
        assert_eq!(close(1011, "no"), [0x88, 4, 0x03, 0xf3, b'n', b'o'][..]);
    }

    /// A hundred viewers that don't read hold one document, not a hundred.
    #[test]
    fn a_long_text_is_shared_by_reference() {
        let text: Arc<str> = Arc::from("x".repeat(SHARED_BYTES_MIN));
        let mut pieces = Pieces::default();
        for own in ["one", "two"] {
            pieces.push_message(Frame::sharing(own, loan(&text), 1));
            pieces.pop();
            assert_eq!(pieces.pop().unwrap().as_ptr(), text[1..].as_ptr(), "up to the connection's own buffer");
        }
        assert_eq!(Arc::strong_count(&text), 1, "and given back");
    }
}
