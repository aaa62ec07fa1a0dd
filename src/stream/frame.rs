//! A frame on its way to one viewer, and how it is handed to the connection: in pieces, of which the long ones are shared. Pure.

use std::{collections::VecDeque, sync::Arc};

use actix_web::web::Bytes;

use super::limits::BATCH_BYTES;

/// From this length on a tail is not copied for each viewer. Below it a copy costs less than a piece of its own.
pub(super) const SHARED_BYTES_MIN: usize = BATCH_BYTES;

/// A frame: what is a viewer's own, and behind it, where that is long, what it has in common with others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    own: String,
    shared: Option<Bytes>,
}

impl From<String> for Frame {
    fn from(own: String) -> Self {
        Self { own, shared: None }
    }
}

impl Frame {
    /// A frame that ends with all of a text but its first bytes.
    pub(super) fn sharing(own: String, text: &Arc<str>, skipped: usize) -> Self {
        Self { own, shared: Some(Bytes::from_owner(Text(Arc::clone(text))).slice(skipped..)) }
    }

    pub(super) fn len(&self) -> usize {
        self.own.len() + self.shared.as_ref().map_or(0, Bytes::len)
    }

    /// Both parts, the second of which is shared.
    pub(super) fn into_parts(self) -> (String, Option<Bytes>) {
        (self.own, self.shared)
    }

    /// The whole text.
    #[cfg(test)]
    pub(super) fn into_text(self) -> String {
        let Self { mut own, shared } = self;
        own.push_str(&String::from_utf8_lossy(&shared.unwrap_or_default()));
        own
    }
}

/// A text as the owner of bytes.
struct Text(Arc<str>);

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// What waits until the connection takes it. The server copies what it is handed into the connection's own buffer, so it is handed a batch at a time:
/// a viewer that does not read holds two batches there, and of a long frame no more than a reference.
#[derive(Debug, Default)]
pub(super) struct Pieces(VecDeque<Bytes>);

impl Pieces {
    pub(super) fn push(&mut self, piece: impl Into<Bytes>) {
        let piece = piece.into();
        if !piece.is_empty() {
            self.0.push_back(piece);
        }
    }

    /// Adds a long frame as one WebSocket message, by RFC 6455, section 5.2: a server's frames are not masked.
    pub(super) fn push_message(&mut self, own: String, shared: Bytes) {
        const WHOLE_TEXT: u8 = 0x81;
        let length = (own.len() + shared.len()) as u64;
        let mut head = vec![WHOLE_TEXT];
        if let Ok(length @ 0..126) = u8::try_from(length) {
            head.push(length);
        } else if let Ok(length) = u16::try_from(length) {
            head.push(126);
            head.extend(length.to_be_bytes());
        } else {
            head.push(127);
            head.extend(length.to_be_bytes());
        }
        head.extend(own.into_bytes());
        self.push(head);
        self.push(shared);
    }

    /// The next piece, at most a batch long.
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let first = self.0.front_mut()?;
        if first.len() > BATCH_BYTES {
            return Some(first.split_to(BATCH_BYTES));
        }
        self.0.pop_front()
    }

    pub(super) fn append(&mut self, later: &mut Self) {
        self.0.append(&mut later.0);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use actix_web::web::BytesMut;

    use super::*;

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
            let (own, shared) = Frame::sharing("0123456789".to_owned(), &text, 1).into_parts();
            let mut pieces = Pieces::default();
            pieces.push_message(own, shared.unwrap());
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

    /// A hundred viewers that don't read hold one document, not a hundred.
    #[test]
    fn a_long_text_is_shared_by_reference() {
        let text: Arc<str> = Arc::from("x".repeat(SHARED_BYTES_MIN));
        let shared = |own: &str| Frame::sharing(own.to_owned(), &text, 1).into_parts().1.unwrap();
        let (one, two) = (shared("one"), shared("two"));
        assert_eq!(one.as_ptr(), text[1..].as_ptr());
        assert_eq!(two.as_ptr(), one.as_ptr());
        let mut pieces = Pieces::default();
        pieces.push_message(String::new(), one);
        pieces.pop();
        assert_eq!(pieces.pop().unwrap().as_ptr(), two.as_ptr(), "up to the connection's own buffer");
        drop((pieces, two));
        assert_eq!(Arc::strong_count(&text), 1, "and given back");
    }
}
