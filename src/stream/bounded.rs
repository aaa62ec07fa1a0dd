//! What a client sends, as long as no frame announces more than is allowed.
//!
//! actix-web-actors looks at the length of a frame when all of it is there, and keeps what has come until then: a client that announced gigabytes would be
//! given them.

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use actix_web::{error::PayloadError, web::Bytes};
use futures_util::Stream;

/// The longest head of a frame: two bytes, eight of length, four of mask.
const HEAD_MAX: usize = 14;

/// Whether a client has announced too much.
pub(super) type Exceeded = Rc<Cell<bool>>;

/// The bytes of a client. They end with an error at the first frame that is announced too long.
pub(super) struct Bounded<S> {
    inner: S,
    measure: Measure,
    exceeded: Exceeded,
}

impl<S> Bounded<S> {
    pub(super) fn new(inner: S, frame_bytes_max: usize) -> Self {
        let measure = Measure { max: frame_bytes_max as u64, head: [0; HEAD_MAX], known: 0, left: 0 };
        Self { inner, measure, exceeded: Exceeded::default() }
    }

    /// What tells the error of a frame that is too long from others.
    pub(super) fn exceeded(&self) -> Exceeded {
        Rc::clone(&self.exceeded)
    }
}

impl<S: Stream<Item = Result<Bytes, PayloadError>> + Unpin> Stream for Bounded<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        if self.exceeded.get() {
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut self.inner).poll_next(cx);
        if let Poll::Ready(Some(Ok(bytes))) = &polled
            && !self.measure.admits(bytes)
        {
            self.exceeded.set(true);
            return Poll::Ready(Some(Err(PayloadError::Overflow)));
        }
        polled
    }
}

/// Where in which frame the bytes are.
struct Measure {
    max: u64,
    head: [u8; HEAD_MAX],
    /// Bytes of the head that have come.
    known: usize,
    /// Bytes of the frame that are still to come behind its head.
    left: u64,
}

impl Measure {
    fn admits(&mut self, mut bytes: &[u8]) -> bool {
        while let [first, rest @ ..] = bytes {
            if self.left > 0 {
                let within = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
                self.left -= within as u64;
                bytes = &bytes[within..];
                continue;
            }
            self.head[self.known] = *first;
            self.known += 1;
            bytes = rest;
            if let Some(length) = announced(&self.head[..self.known]) {
                if length > self.max {
                    return false;
                }
                (self.known, self.left) = (0, length);
            }
        }
        true
    }
}

/// The length that the head of a frame announces (RFC 6455, 5.2); `None` while the head is not whole.
fn announced(head: &[u8]) -> Option<u64> {
    let (_, [second, rest @ ..]) = head.split_first()? else { return None };
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    let (digits, short) = match second & 0x7f {
        126 => (2, 0),
        127 => (8, 0),
        short => (0, u64::from(short)),
    };
    if rest.len() < digits + mask {
        return None;
    }
    Some(rest[..digits].iter().fold(short, |length, byte| length << 8 | u64::from(*byte)))
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "tests")]
mod tests {
    use super::*;

    fn fresh() -> Measure {
        Measure { max: 1000, head: [0; HEAD_MAX], known: 0, left: 0 }
    }

    fn frame(length: u64) -> Vec<u8> {
        let mut head = match length {
            0..126 => vec![0x81, 0x80 | length as u8],
            126..0x1_0000 => [&[0x81, 0xfe][..], &(length as u16).to_be_bytes()].concat(),
            _ => [&[0x81, 0xff][..], &length.to_be_bytes()].concat(),
        };
        head.extend([1, 2, 3, 4]);
        head
    }

    #[test]
    fn frames_are_measured_however_their_bytes_come() {
        let mut bytes = Vec::new();
        for length in [0, 1, 125, 126, 1000] {
            bytes.extend(frame(length));
            bytes.extend(std::iter::repeat_n(0xff, usize::try_from(length).unwrap_or(0)));
        }
        for piece in [1, 3, 7, bytes.len()] {
            let mut measure = fresh();
            assert!(bytes.chunks(piece).all(|piece| measure.admits(piece)));
            assert_eq!((measure.known, measure.left), (0, 0));
            for long in [1001, 70_000, u64::MAX] {
                let mut measure = fresh();
                assert!(bytes.chunks(piece).all(|piece| measure.admits(piece)));
                assert!(!frame(long).chunks(piece).all(|piece| measure.admits(piece)), "{long} in pieces of {piece}");
            }
        }
    }
}
