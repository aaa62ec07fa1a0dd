//! Documents that go into one answer together.

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

/// Bytes of the documents of one answer, unless one alone has more: half of the longest line of the data plane.
pub(super) const BYTES_MAX: usize = 512 * 1024;

/// Documents, as long as there is room.
#[derive(Debug)]
pub(super) struct Pile {
    documents: Vec<Box<RawValue>>,
    bytes: usize,
    bytes_max: usize,
}

impl Pile {
    /// One of so many in the answer.
    pub(super) fn one_of(piles: usize) -> Self {
        Self { documents: Vec::new(), bytes: 0, bytes_max: BYTES_MAX / piles.max(1) }
    }

    /// Puts one more there; `false`: there is no room for it.
    pub(super) fn add(&mut self, document: &impl Serialize) -> bool {
        // Documents are ours and have text for keys, which is all that could fail.
        let Ok(text) = to_raw_value(document) else { return true };
        self.bytes += text.get().len();
        let room = self.bytes <= self.bytes_max || self.documents.is_empty();
        if room {
            self.documents.push(text);
        }
        room
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.documents.len()
    }

    /// All of them.
    pub(super) fn documents(self) -> Vec<Box<RawValue>> {
        self.documents
    }
}
