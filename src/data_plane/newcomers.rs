//! Connections without a session, oldest first, pure but for the ends that it is handed.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
};

/// Held by a connection until it has a session.
pub(super) type Newcomer = Arc<()>;

/// All that came by TCP and have no session yet, each with what ends it.
#[derive(Debug)]
pub(super) struct Newcomers<E> {
    waiting: VecDeque<(Weak<()>, E)>,
    max: usize,
}

impl<E> Newcomers<E> {
    /// At most `max` at a time.
    pub(super) fn new(max: usize) -> Self {
        Self { waiting: VecDeque::new(), max }
    }

    /// Adds one. Returns the end of the one that has waited longest, if there are too many now.
    pub(super) fn add(&mut self, newcomer: &Newcomer, end: E) -> Option<E> {
        self.waiting.push_back((Arc::downgrade(newcomer), end));
        if self.waiting.len() <= self.max {
            return None;
        }
        // Most of those that are there have their session or are gone.
        self.waiting.retain(|(newcomer, _)| newcomer.strong_count() > 0);
        if self.waiting.len() <= self.max { None } else { self.waiting.pop_front().map(|(_, end)| end) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_that_still_waits_goes_for_the_one_that_comes() {
        let mut newcomers = Newcomers::new(2);
        let (a, b, c, d) = (Newcomer::default(), Newcomer::default(), Newcomer::default(), Newcomer::default());
        assert_eq!(newcomers.add(&a, 'a'), None);
        assert_eq!(newcomers.add(&b, 'b'), None);
        drop(a);
        assert_eq!(newcomers.add(&c, 'c'), None, "the first has its session");
        assert_eq!(newcomers.add(&d, 'd'), Some('b'));
        assert_eq!(newcomers.waiting.len(), 2);
    }
}
