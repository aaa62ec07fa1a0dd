//! What a tree is told about its threads, and what it tells of them.

use std::time::Duration;

/// What a tree is told about its threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Threads that take children in turn; nought counts as one. One a core by default, at most four: they run short handlers and wait for
    /// IO, so more threads would add wake-ups, not speed.
    pub threads: usize,
    /// A thread of the children that neither answers nor gets on with its work for this long counts as blocked (16 messages in a row are one
    /// piece of work): it is taken out of use, and everything that lives on it ends as [`Stuck`](crate::ExitReason::Stuck) and is made anew
    /// elsewhere, with its queue. Found out a quarter later at most. `None`: threads are not watched. Ten seconds by default, as long as a killed
    /// child may take to end.
    pub stuck_after: Option<Duration>,
    /// Threads that may be out of use because they are blocked, eight by default. Each keeps its memory and everything that lived on it until
    /// what blocks it returns. At this number nothing more is taken out of use ([`ThreadEvent::AtCap`](crate::ThreadEvent::AtCap)).
    pub leaked_max: usize,
}

/// Threads for children at most, unless somebody asks for more.
const THREADS_MAX: usize = 4;

impl Default for Settings {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { threads: cores.min(THREADS_MAX), stuck_after: Some(Duration::from_secs(10)), leaked_max: 8 }
    }
}

/// The threads and tasks of a tree, read without asking any actor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreeStats {
    /// Threads that take children in turn, and live.
    pub threads: usize,
    /// Threads of [dedicated](crate::Placement::Dedicated) children.
    pub dedicated: usize,
    /// Threads that are out of use because they are blocked. One that comes back is joined and counted no more.
    pub leaked: usize,
    /// Threads that were ever taken out of use.
    pub fenced: u64,
    /// How often the thread of the supervisors was found blocked. That can't be healed: nothing is asked, timed or
    /// delayed meanwhile; a restart that is due at once goes on.
    pub stalls: u64,
    /// Panics of [tasks](crate::ChildCtx::spawn_task).
    pub task_panics: u64,
}
