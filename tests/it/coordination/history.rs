//! What clients have seen: who asked for what, from when to when, and what he was told. Nothing of the daemon's own is in here.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// Microseconds since the recording began.
pub(super) type Time = u64;

/// What a right allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Read,
    Write,
    Exclusive,
}

/// What was given: a claim of a task is an exclusive right to its name.
#[derive(Debug, Clone)]
pub(super) struct Grant {
    /// The id of the task or the lock.
    pub(super) thing: String,
    pub(super) fence: u64,
    pub(super) mode: Mode,
    pub(super) names: Vec<String>,
    /// How long it lasts unless it is renewed, and how long altogether.
    pub(super) lease: Time,
    pub(super) limit: Option<Time>,
}

/// What somebody does with a right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// A renewal, or a word of progress.
    Renew,
    Complete,
    Fail,
    Release,
    /// From now on it allows no more than that.
    Weaken(Mode),
    /// It ends, and a greater one comes instead, which is a grant of its own.
    Strengthen,
}

/// What he was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    Done,
    /// The token is no longer good.
    Stale,
    /// The connection broke: it may have happened, or may still.
    Unknown,
}

#[derive(Debug, Clone)]
pub(super) enum Deed {
    Given(Grant),
    Used {
        fence: u64,
        what: Use,
        said: Said,
    },
    /// A task was looked at; `done_by` is the token that has completed it.
    Shown {
        thing: String,
        done_by: Option<u64>,
    },
    /// It was killed at some time between; behind that everybody knows.
    Died,
    /// Messages are known by what their senders call them.
    Sent {
        message: String,
        said: Said,
    },
    Received {
        message: String,
    },
    Acknowledged {
        message: String,
        said: Said,
    },
}

/// One call. It took effect, if ever, at one moment between its beginning and its end; of unknown outcome also later.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Who: an incarnation.
    pub(super) who: String,
    pub(super) from: Time,
    pub(super) to: Time,
    pub(super) deed: Deed,
}

/// What is there when everybody has gone.
#[derive(Debug, Clone, Default)]
pub(super) struct Left {
    /// Every task, and the token that has completed it.
    pub(super) tasks: BTreeMap<String, Option<u64>>,
    /// Rights that are still held: whose, and by which token.
    pub(super) held: Vec<(String, u64)>,
    /// Messages that wait, are on their way, or are dead letters.
    pub(super) messages: BTreeSet<String>,
}

/// Takes down what happens, from any thread.
#[derive(Clone)]
pub(super) struct Recorder {
    began: Instant,
    entries: Arc<Mutex<Vec<Entry>>>,
}

impl Recorder {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), entries: Arc::default() }
    }

    pub(super) fn now(&self) -> Time {
        micros(self.began.elapsed())
    }

    /// What began then and has ended now.
    pub(super) fn note(&self, who: &str, from: Time, deed: Deed) {
        let entry = Entry { who: who.to_owned(), from, to: self.now(), deed };
        self.entries.lock().push(entry);
    }

    pub(super) fn take(&self) -> Vec<Entry> {
        std::mem::take(&mut self.entries.lock())
    }
}

pub(super) fn micros(time: Duration) -> Time {
    u64::try_from(time.as_micros()).unwrap()
}
