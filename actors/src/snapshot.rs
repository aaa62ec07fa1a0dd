//! The tree as data.

use std::sync::Arc;
use std::time::Duration;

use crate::exit::ExitReason;
use crate::flags::{AutoShutdown, Intensity, Meltdown, Strategy};
use crate::spec::{ChildId, RestartType};

/// One child as its supervisor sees it, with everything below it.
#[derive(Clone, Debug, PartialEq)]
pub struct TreeNode {
    /// Its name.
    pub id: ChildId,
    /// The way from the root.
    pub path: Arc<str>,
    /// Whether it works or supervises.
    pub kind: ChildKind,
    /// A supervisor's strategy; unknown while one that [makes up its mind at its start](crate::Child::supervisor_with) does not run.
    pub strategy: Option<Strategy>,
    /// What else a supervisor that runs was told about itself.
    pub supervision: Option<Supervision>,
    /// When it is restarted.
    pub restart: RestartType,
    /// Whether its end by itself counts for its supervisor's `auto_shutdown`.
    pub significant: bool,
    /// What it is doing.
    pub state: ChildState,
    /// For how long.
    pub in_state_for: Duration,
    /// Its latest incarnation; 0 when it was never started.
    pub incarnation: u64,
    /// Automatic restarts that were launched so far; replacements of what was lost are none.
    pub restarts: u64,
    /// Automatic restarts, a delayed one included, in the window of its own limit; in that of its supervisor's when it has none of its own.
    pub restarts_in_window: u32,
    /// Time until the automatic restart, in back-off and when failed with a retry.
    pub retry_in: Option<Duration>,
    /// How its last incarnation ended.
    pub last_exit: Option<LastExit>,
    /// Its children in start order; empty for a supervisor that does not run.
    pub children: Vec<TreeNode>,
}

/// What a running supervisor was told about itself, and how far its limit is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Supervision {
    /// Automatic restarts of all children together that are allowed.
    pub intensity: Option<Intensity>,
    /// Those that its window holds.
    pub restarts_in_window: u32,
    /// What follows when they need more.
    pub meltdown: Meltdown,
    /// Whether it ends with its significant children.
    pub auto_shutdown: AutoShutdown,
}

/// Whether a child works or supervises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChildKind {
    /// An actor.
    Worker,
    /// A supervisor.
    Supervisor,
}

/// What a child is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChildState {
    /// It waits for its turn in an ordered start.
    Pending,
    /// Its incarnation is made but not ready.
    Starting,
    /// It is ready.
    Running,
    /// It waits for an automatic restart.
    BackingOff,
    /// It was asked to stop and has not ended.
    Stopping,
    /// It was stopped.
    Stopped,
    /// It has done its work.
    Completed,
    /// It is not restarted (or not yet, see `retry_in`).
    Failed,
}

/// How many children a supervisor has (OTP `count_children`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All of them.
    pub specs: usize,
    /// Those that have an incarnation, save one that is still being restarted.
    pub active: usize,
    /// Those that are supervisors, alive or not.
    pub supervisors: usize,
    /// The others.
    pub workers: usize,
}

/// How an incarnation ended.
#[derive(Clone, Debug, PartialEq)]
pub struct LastExit {
    /// Why.
    pub reason: ExitReason,
    /// How long ago.
    pub age: Duration,
    /// Which incarnation.
    pub incarnation: u64,
}
