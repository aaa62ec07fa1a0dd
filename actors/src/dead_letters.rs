//! Messages that were taken and will never be handled.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::exit::ExitReason;
use crate::letter::discarding;

/// Dead letters that a tree keeps until somebody takes them: one full inbox of the default size. They hold the messages, so more would be memory
/// that nobody asked for; the oldest make room and are counted.
pub const DEAD_LETTERS_KEPT: usize = 1024;

/// A message that a child took and that no incarnation will handle.
pub struct DeadLetter {
    /// The child it was for: the way from the root.
    pub path: Arc<str>,
    /// The name of its type.
    pub message: &'static str,
    /// The incarnation that had it, or the latest one when it died waiting.
    pub incarnation: u64,
    /// Why.
    pub why: DeadReason,
    /// The message itself.
    pub payload: Box<dyn Any + Send>,
}

/// Why a message died.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeadReason {
    /// An incarnation ended, and [`OnRestart::DeadLetter`](crate::OnRestart::DeadLetter) leaves nothing to the next one.
    Restarted,
    /// It waited when the child was stopped, completed, failed or was removed.
    Stopped,
    /// It was delivered as often as it may be, and each time the incarnation crashed; this is how the last one ended.
    Crashed {
        /// Why that incarnation ended.
        reason: ExitReason,
    },
}

impl DeadLetter {
    /// The message, if it is an `M`: to be sent again.
    ///
    /// # Errors
    /// The letter unchanged when it is something else.
    pub fn downcast<M: 'static>(self) -> Result<M, Self> {
        let Self { path, message, incarnation, why, payload } = self;
        match payload.downcast() {
            Ok(payload) => Ok(*payload),
            Err(payload) => Err(Self { path, message, incarnation, why, payload }),
        }
    }
}

impl DeadLetter {
    /// Drops it. A panic of the message's destructor is logged.
    fn discard(self) {
        let Self { path, payload, .. } = self;
        discarding(&path, || drop(payload));
    }
}

impl fmt::Debug for DeadLetter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetter")
            .field("path", &self.path)
            .field("message", &self.message)
            .field("incarnation", &self.incarnation)
            .field("why", &self.why)
            .finish_non_exhaustive()
    }
}

/// The dead letters of a tree, the newest [`DEAD_LETTERS_KEPT`]. Cheap to clone, and outlives the tree.
///
/// What goes there: messages that wait when their child comes to rest; those that [`OnRestart::DeadLetter`](crate::OnRestart::DeadLetter)
/// throws out; those of [`ChildRef::tell_redeliver`](crate::ChildRef::tell_redeliver) that crashed every incarnation that had them. What does not:
/// messages that were refused, for their sender was told; those that an [`Overflow`](crate::Overflow) drops, for a flood must not become a second
/// one; asks that were given up; closures of [`ChildRef::run`](crate::ChildRef::run); the message that a crash consumed, which is gone.
#[derive(Clone, Default)]
pub struct DeadLetters(Arc<Shared>);

#[derive(Default)]
struct Shared {
    kept: Mutex<KeptLetters>,
    arrived: Notify,
}

impl Drop for Shared {
    /// Two destructors of messages that panic in a row would abort the process: they run one by one.
    fn drop(&mut self) {
        for letter in std::mem::take(&mut self.kept.get_mut().letters) {
            letter.discard();
        }
    }
}

#[derive(Default)]
struct KeptLetters {
    letters: VecDeque<DeadLetter>,
    total: u64,
    lost: u64,
}

impl DeadLetters {
    /// Takes all that are kept, the oldest first.
    #[must_use]
    pub fn take(&self) -> Vec<DeadLetter> {
        std::mem::take(&mut self.0.kept.lock().letters).into()
    }

    /// Takes the oldest, and waits for one if there is none. `None` when none came in time.
    pub async fn next(&self, timeout: Duration) -> Option<DeadLetter> {
        tokio::time::timeout(timeout, self.arrival()).await.ok()
    }

    async fn arrival(&self) -> DeadLetter {
        loop {
            {
                let mut kept = self.0.kept.lock();
                if let Some(letter) = kept.letters.pop_front() {
                    if !kept.letters.is_empty() {
                        // Two that arrive at once leave one permit: another waiter may be asleep over the second.
                        self.0.arrived.notify_one();
                    }
                    return letter;
                }
            }
            // One that arrives after the look has left a permit, so it is not slept through.
            self.0.arrived.notified().await;
        }
    }

    /// How many are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.kept.lock().letters.len()
    }

    /// Whether none is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many there ever were.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.kept.lock().total
    }

    /// How many had to make room before anybody took them.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.0.kept.lock().lost
    }

    pub(crate) fn put(&self, letter: DeadLetter) {
        let oldest = {
            let mut kept = self.0.kept.lock();
            kept.total += 1;
            let oldest = if kept.letters.len() >= DEAD_LETTERS_KEPT { kept.letters.pop_front() } else { None };
            kept.lost += u64::from(oldest.is_some());
            kept.letters.push_back(letter);
            oldest
        };
        self.0.arrived.notify_one();
        if let Some(oldest) = oldest {
            oldest.discard();
        }
    }
}

impl fmt::Debug for DeadLetters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetters").field("len", &self.len()).field("total", &self.total()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("a bomb goes off");
        }
    }

    /// Two such panics in a row would abort the process.
    #[test]
    fn messages_that_panic_when_they_are_dropped_go_one_by_one() {
        let dead = DeadLetters::default();
        for _ in 0..3 {
            dead.put(DeadLetter {
                path: "root/a".into(),
                message: "Bomb",
                incarnation: 1,
                why: DeadReason::Stopped,
                payload: Box::new(Bomb),
            });
        }
        drop(dead);
    }
}
