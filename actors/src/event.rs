//! What a supervisor tells the world.

use std::sync::Arc;
use std::time::Duration;

use crate::exit::ExitReason;
use crate::flags::Intensity;
use crate::spec::ChildId;

/// Receives what every supervisor of a tree does.
///
/// Each supervisor calls it for one thing at a time, in the order in which things happen to its children; several supervisors may call at once. The
/// thread is any of the tree: what becomes of a child is decided, as a rule, on the thread of the child, and what is asked of a supervisor where it is
/// asked. The supervisor is locked meanwhile, so a sink must not block, and above all not wait for the supervisor. What a sink asks of the supervisor
/// that calls it is sent, and decided after what it hears of. A panic in it is caught and logged.
pub trait EventSink: Send + Sync {
    /// One thing happened.
    fn event(&self, event: SupervisionEvent);

    /// Something happened to a thread. Called on the thread that watches the others, which a blocked supervisor does not hold up; the same
    /// rules hold there. Who says nothing of it hears only what becomes of the children.
    fn thread(&self, event: ThreadEvent) {
        let _ = event;
    }
}

/// What happened to one of the threads of a tree, numbered from 1 in the order in which they were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThreadEvent {
    /// A thread of the children is blocked and out of use. What lived on it ends as [`ExitReason::Stuck`] and is made anew elsewhere.
    Fenced {
        /// The thread.
        thread: u32,
        /// Blocked threads that have not come back, this one included.
        leaked: usize,
    },
    /// A thread of the children is blocked and stays in use: as many are leaked as [`Settings::leaked_max`](crate::Settings::leaked_max)
    /// allows. Said once a minute while it lasts.
    AtCap {
        /// The thread.
        thread: u32,
        /// Blocked threads that have not come back.
        leaked: usize,
    },
    /// A thread that was out of use has come back and ended.
    Returned {
        /// The thread.
        thread: u32,
        /// Blocked threads that have not come back.
        leaked: usize,
    },
    /// The thread of the supervisors is blocked: nothing is restarted or stopped until it returns. Said once a minute while it lasts.
    SupervisorsBlocked,
}

/// One thing that happened to one child.
#[derive(Clone, Debug, PartialEq)]
pub struct SupervisionEvent {
    /// The way from the root, such as `root/swarms/review/coder-1`.
    pub path: Arc<str>,
    /// The child.
    pub id: ChildId,
    /// Its latest incarnation; 0 when it was never started.
    pub incarnation: u64,
    /// Automatic restarts that were launched so far, the seed's included; replacements of what was lost are none.
    pub restarts: u64,
    /// Automatic restarts, a delayed one included, in the window of its own limit; in that of its supervisor's when it has none of its own.
    pub restarts_in_window: u32,
    /// What happened.
    pub kind: EventKind,
}

/// What happened to a child.
#[derive(Clone, Debug, PartialEq)]
pub enum EventKind {
    /// An incarnation is being made.
    Starting {
        /// 0 for a first or an asked start, n for the nth automatic restart since the back-off started over. A replacement of what was lost
        /// leaves it as it was.
        attempt: u32,
    },
    /// It is ready.
    Started {
        /// Time since `Starting`.
        took: Duration,
    },
    /// The incarnation has ended.
    Exited {
        /// Why.
        reason: ExitReason,
    },
    /// An automatic restart is due after a delay.
    BackingOff {
        /// The number of that restart; one after a loss has that of the restart before.
        attempt: u32,
        /// The delay before it.
        delay: Duration,
    },
    /// Its failure takes siblings along: they are stopped in reverse order, and all of them start again in order after its back-off.
    GroupRestart {
        /// The siblings that were alive, in start order. The temporary ones among them don't come back.
        siblings: Arc<[ChildId]>,
    },
    /// A sibling's failure took it down. It starts again in its turn.
    Pending,
    /// One more automatic restart would be more than a limit allows.
    LimitReached {
        /// Whose limit it is.
        limit: Limit,
        /// How many restarts it allows.
        intensity: Intensity,
        /// What the limit asks for now.
        follows: LimitFollows,
    },
    /// It is significant and has ended by itself, which ends its supervisor (OTP `auto_shutdown`).
    AutoShutdown,
    /// It is not restarted: a limit was reached, its own, its supervisor's, or that of a sibling in its group; or its restart type forbids it.
    Failed {
        /// The exit that was too many.
        reason: ExitReason,
        /// Time until it is tried again with a fresh window.
        retry_in: Option<Duration>,
    },
    /// It has done its work.
    Completed,
    /// It was asked to stop.
    Stopping,
    /// It is stopped and stays so until somebody starts it.
    Stopped,
    /// It is gone from the supervisor.
    Removed,
}

/// Whose limit was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The child's own.
    Child,
    /// The supervisor's, which counts the restarts of all its children.
    Supervisor,
}

/// What a limit asks for when it was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitFollows {
    /// The child is failed.
    ChildFails,
    /// The child is failed, and the siblings that would have been restarted with it.
    GroupFails,
    /// Every child of the supervisor is failed, and it lives on.
    AllFail,
    /// The supervisor stops every child and gives up.
    GivesUp,
}
