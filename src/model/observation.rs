//! What the runtime room saw of one incarnation, told upward.

use std::{sync::Arc, time::SystemTime};

use super::exit::ExitRecord;

/// One thing that was seen.
#[derive(Debug, Clone, PartialEq)]
pub enum Observation {
    /// The start waits for something that is not the agent's fault: the journal, the proof that its predecessor is dead, the engine.
    Waiting {
        /// The stable name of the reason: `start_waits`, `engine_unreachable`.
        code: &'static str,
        /// For what.
        reason: String,
    },
    /// execve succeeded and the process lives.
    Alive {
        /// Its process id.
        pid: u32,
        /// When it was started.
        at: SystemTime,
    },
    /// A reading of its process tree; the launcher's heartbeat, too.
    Sample {
        /// When.
        at: SystemTime,
        /// Cores in use since the reading before; `None` for the first.
        cpu_cores: Option<f64>,
        /// Summed resident memory, bytes.
        memory_bytes: u64,
        /// Processes in the tree.
        processes: u32,
    },
    /// It wrote lines.
    Output {
        /// When the last of them was written.
        at: SystemTime,
        /// How many.
        lines: u64,
    },
    /// Output that was dropped before it was kept.
    Lost {
        /// Lines.
        lines: u64,
        /// Bytes.
        bytes: u64,
    },
    /// Its tree was frozen or unfrozen.
    Paused(bool),
    /// Its end.
    Exited(Arc<ExitRecord>),
    /// The runtime can't be reached, so nothing can be said of it. Anything that is seen later takes it back.
    Unreachable,
}
