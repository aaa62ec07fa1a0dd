//! Long answers that many ask for again and again, rendered once for as long as nothing has changed.
//!
//! What is shown changes only with an event: a document is shown first, then its event is numbered. So an answer holds while the feed's head and what
//! operators want are what they were when its rendering began, and who has heard of an event never gets an answer from before it.

use std::{collections::VecDeque, sync::Arc, time::SystemTime};

use actix_web::web::Bytes;
use parking_lot::Mutex;

use crate::{
    control_plane::SwarmEntry,
    model::{Desired, Seq, SwarmSpec},
};

/// Answers that are kept: the list, and the swarms that somebody looks at. The one of five thousand agents has 4 MiB.
const KEPT_MAX: usize = 4;

/// What a swarm's document and an operator say of it, and since when.
type Entry = (Arc<SwarmSpec>, Desired, SystemTime);

/// What an answer was made of.
pub(super) struct Key {
    /// Path and query.
    asked: String,
    head: Seq,
    entries: Vec<Entry>,
}

impl Key {
    /// `head` was read before anything else was.
    pub(super) fn new(asked: &str, head: Seq, entries: &[SwarmEntry]) -> Self {
        let entries = entries.iter().map(|entry| (Arc::clone(&entry.spec), entry.desired, entry.since)).collect();
        Self { asked: asked.to_owned(), head, entries }
    }

    fn is(&self, other: &Self) -> bool {
        let same = |(a, b): (&Entry, &Entry)| Arc::ptr_eq(&a.0, &b.0) && (a.1, a.2) == (b.1, b.2);
        self.asked == other.asked
            && self.head == other.head
            && self.entries.len() == other.entries.len()
            && self.entries.iter().zip(&other.entries).all(same)
    }
}

/// The answers that are kept, the youngest last.
#[derive(Default)]
pub(super) struct Pages {
    kept: Mutex<VecDeque<(Key, Bytes)>>,
}

impl Pages {
    /// The answer for this key, rendered unless it is there. Nobody waits for somebody else's rendering.
    pub(super) fn get(&self, key: Key, render: impl FnOnce() -> Vec<u8>) -> Bytes {
        if let Some((_, body)) = self.kept.lock().iter().find(|(kept, _)| kept.is(&key)) {
            return body.clone();
        }
        let body = Bytes::from(render());
        let mut kept = self.kept.lock();
        kept.retain(|(other, _)| other.asked != key.asked);
        if kept.len() >= KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back((key, body.clone()));
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(asked: &str, head: u64) -> Key {
        Key::new(asked, Seq(head), &[])
    }

    #[test]
    fn an_answer_is_rendered_once_until_something_happens() {
        let pages = Pages::default();
        let mut rendered = 0;
        for (head, expected) in [(7, 1), (7, 1), (8, 2), (8, 2)] {
            pages.get(key("/swarms", head), || {
                rendered += 1;
                Vec::new()
            });
            assert_eq!(rendered, expected, "head {head}");
        }
    }

    #[test]
    fn different_questions_have_different_answers_and_few_are_kept() {
        let pages = Pages::default();
        for n in 0..10 * KEPT_MAX {
            let asked = format!("/swarms?limit={n}");
            assert_eq!(pages.get(key(&asked, 1), || asked.clone().into_bytes()), asked.as_bytes());
        }
        assert_eq!(pages.kept.lock().len(), KEPT_MAX);
    }
}
