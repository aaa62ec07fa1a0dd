//! What a supervisor tells the world.

use std::sync::Arc;
use std::time::Duration;

use crate::exit::ExitReason;
use crate::spec::ChildId;

/// Receives what every supervisor of a tree does.
///
/// Called on the thread of the supervisors, in the order in which things happen. It must not block; a panic in it is caught and logged.
pub trait EventSink: Send + Sync {
    /// One thing happened.
    fn event(&self, event: SupervisionEvent);
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
    /// Automatic restarts that its intensity window holds, a delayed one included.
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
    /// It is not restarted: it spent its intensity, or its restart type forbids it.
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
