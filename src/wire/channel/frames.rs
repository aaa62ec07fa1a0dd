//! What the daemon and a launcher say to each other.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Version of this protocol.
pub const VERSION: u16 = 1;
/// The oldest version still accepted.
pub const VERSION_MIN: u16 = 1;
/// First bytes that a launcher writes, so that a start error printed by somebody else is never taken for a frame.
pub const MAGIC: [u8; 4] = *b"HKL\x01";
/// Longest frame: the environment of a process (Linux caps one string at 128 KiB, all of them at a quarter of the stack limit, 2 MiB) fits.
pub const FRAME_LEN_MAX: usize = 4 * 1024 * 1024;
/// Longest piece of an output line in one frame; longer lines are cut in numbered pieces marked `partial`.
pub const LINE_PIECE_MAX: usize = 16 * 1024;
/// Bytes that one relayed connection may have under way in one direction before its reader grants more: what a fast one moves while a grant is on its
/// way through an engine, half a millisecond and more.
pub const RELAY_WINDOW: u32 = 256 * 1024;

/// Code of a refusal: nobody listens for this launch, and it has left no exit record.
pub const NOBODY: &str = "nobody";

/// The first frame of the daemon that starts a launcher: everything that must not be on a command line.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// Protocol version of the daemon.
    pub version: u16,
    /// Epoch of the daemon: a fencing token.
    pub epoch: u64,
    /// Names the socket, the exit record and the marker `HIVEKEEPER_LAUNCH` in the environment.
    pub launch_id: String,
    /// `SWARM/NAME`.
    pub agent: String,
    /// Which start this is.
    pub incarnation: u64,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The environment of the agent, laid over the launcher's own (which is the container's, or empty). Without the `HIVEKEEPER_` variables: those
    /// of the launcher stay behind, and it adds the agent's.
    pub env: Vec<(String, String)>,
    /// Absolute working directory.
    pub cwd: String,
    /// The agent's token for the data plane.
    pub token: String,
    /// How long the agent lives without a renewal.
    pub lease_ms: u64,
    /// Time between SIGTERM and SIGKILL when the lease runs out.
    pub grace_ms: u64,
    /// Between two [`Sample`]s.
    pub sample_interval_ms: u64,
    /// Directory of the socket `LAUNCH_ID.sock` and of the record `LAUNCH_ID.exit`.
    pub run_dir: String,
    /// Bytes of output that wait for an acknowledgement before the oldest are dropped and counted.
    pub ring_bytes: u32,
    /// Ended launches whose files in `run_dir` are removed before the start, because the daemon has noted their end. A launcher that does not know
    /// of it leaves them there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forget: Vec<String>,
    /// Whether the launcher lives in a container, whose memory cgroup it may then read as its own. A launcher that does not know of it tells
    /// nothing of memory that ran out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_container: bool,
}

impl fmt::Debug for Launch {
    /// Without the token, and without the environment, in which secrets are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, epoch, launch_id, agent, incarnation, argv, .. } = self;
        f.debug_struct("Launch")
            .field("version", version)
            .field("epoch", epoch)
            .field("launch_id", launch_id)
            .field("agent", agent)
            .field("incarnation", incarnation)
            .field("argv", argv)
            .finish_non_exhaustive()
    }
}

/// The first frame of a daemon that takes over, on the launcher's socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// Protocol version of the daemon.
    pub version: u16,
    /// Its epoch; an older one than the launcher has seen is refused.
    pub epoch: u64,
    /// The last output number that is safe with the daemon; 0 for none.
    pub last_seq: u64,
}

/// From the daemon to a launcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToLauncher {
    /// First frame on stdin.
    Launch(Box<Launch>),
    /// First frame on the socket.
    Attach(Attach),
    /// Renews the lease; refused from an older epoch.
    Renew {
        /// Epoch of the daemon.
        epoch: u64,
    },
    /// Output up to and with this number is safe and may leave the ring.
    Ack {
        /// The number.
        seq: u64,
    },
    /// SIGTERM to the agent's process group, SIGKILL to the tree after the grace.
    Stop {
        /// The grace.
        grace_ms: u64,
    },
    /// SIGKILL to the tree now.
    Kill,
    /// SIGSTOP to the tree.
    Pause,
    /// SIGCONT to the tree.
    Resume,
    /// Bytes for a relayed connection.
    RelayData {
        /// Which.
        conn: u32,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// The daemon has closed a relayed connection.
    RelayClose {
        /// Which.
        conn: u32,
    },
    /// The daemon has consumed this many bytes of a relayed connection.
    RelayCredit {
        /// Which.
        conn: u32,
        /// How many.
        bytes: u32,
    },
}

/// Which stream a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One numbered line, or a piece of a long one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// 1, 2, 3 ... within the incarnation.
    pub seq: u64,
    /// Unix time in ms by the launcher's clock.
    pub at_ms: u64,
    /// Where it was written to.
    pub stream: Stream,
    /// Whether the line goes on in the next piece of the same stream.
    pub partial: bool,
    /// The bytes without the newline; not always UTF-8.
    pub bytes: Vec<u8>,
}

/// A reading of the agent's process tree; it is the launcher's heartbeat, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Unix time in ms.
    pub at_ms: u64,
    /// User and system time of the tree and of its reaped children since the start, ms. Grows.
    pub cpu_ms: u64,
    /// Time since the reading before (or the start), ms, on the monotonic clock.
    pub interval_ms: u64,
    /// CPU time spent in that interval, ms.
    pub cpu_interval_ms: u64,
    /// Summed resident memory of the tree, bytes. Shared pages count once for each process.
    pub rss_bytes: u64,
    /// Processes in the tree.
    pub processes: u32,
}

/// What a daemon learns when it attaches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// `SWARM/NAME`.
    pub agent: String,
    /// Which start.
    pub incarnation: u64,
    /// The agent's process id; `None` when execve has not been reported yet.
    pub pid: Option<u32>,
    /// When the agent was started, Unix time in ms.
    pub started_at_ms: u64,
    /// Whether its tree is frozen.
    pub paused: bool,
    /// Whether it has been told to end, by whoever led it or because its lease ran out. A launcher that does not say so has not been.
    #[serde(default)]
    pub ending: bool,
    /// The first output number that the ring still holds, or the next one when it is empty.
    pub ring_first_seq: u64,
    /// The next output number.
    pub next_seq: u64,
    /// The lease that it was launched with, ms: who takes over renews by it.
    pub lease_ms: u64,
}

/// Why an incarnation ended, as its launcher saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitWhy {
    /// By itself, or by a signal that was not ours.
    Own,
    /// On the daemon's `Stop` or `Kill`, or a SIGTERM to the launcher.
    Asked,
    /// The lease ran out.
    LeaseLost,
}

/// The exit record: the last frame, and the content (JSON) of `RUN_DIR/LAUNCH_ID.exit`. Written when no descendant is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// `SWARM/NAME`.
    pub agent: String,
    /// Which start.
    pub incarnation: u64,
    /// Exit code.
    pub code: Option<i32>,
    /// Or the signal.
    pub signal: Option<i32>,
    /// Why.
    pub why: ExitWhy,
    /// Whether the kernel killed it because memory ran out: it ended as by a SIGKILL that its launcher did not send, and the container's count of
    /// such kills had grown since the launcher's last look (it looks with each [`Sample`]). `None` where that can't be seen, or from a launcher that
    /// does not look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom: Option<bool>,
    /// Unix time in ms.
    pub at_ms: u64,
    /// Descendants that were killed after the agent itself had ended.
    pub swept: u32,
    /// The sweep's deadline passed with this many descendants alive (stuck in the kernel).
    pub unswept: u32,
    /// The last output number.
    pub last_seq: u64,
}

/// From a launcher to the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromLauncher {
    /// First frame, behind [`MAGIC`], on stdout and on each accepted socket.
    Hello {
        /// Its protocol version.
        version: u16,
        /// Its process id.
        pid: u32,
    },
    /// execve succeeded and the process lives.
    Started {
        /// The agent's process id.
        pid: u32,
        /// Unix time in ms.
        at_ms: u64,
    },
    /// The program could not be started; the launcher ends.
    StartFailed {
        /// What the system said.
        message: String,
    },
    /// The answer to `Attach`.
    State(State),
    /// A line of output.
    Output(Output),
    /// Output that the ring dropped, counted once.
    Lost {
        /// Pieces.
        lines: u64,
        /// Bytes.
        bytes: u64,
        /// The first number that is still there.
        next_seq: u64,
    },
    /// A reading, and a sign that the process lives.
    Sample(Sample),
    /// The tree was frozen or unfrozen.
    Paused {
        /// Whether it is frozen now.
        paused: bool,
    },
    /// The last frame.
    Exit(Exit),
    /// The agent opened a connection to its loopback port.
    RelayOpen {
        /// The number of the connection, unique within the launcher's life.
        conn: u32,
    },
    /// Bytes of a relayed connection.
    RelayData {
        /// Which.
        conn: u32,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// The agent has closed a relayed connection.
    RelayClose {
        /// Which.
        conn: u32,
    },
    /// The agent has taken this many bytes of a relayed connection.
    RelayCredit {
        /// Which.
        conn: u32,
        /// How many.
        bytes: u32,
    },
    /// The answer of `agent --sweep`. It is proven that nothing is left when `left` is 0.
    Swept {
        /// Processes that were killed.
        killed: u32,
        /// Processes that were still there at the deadline.
        left: u32,
    },
    /// The answer of `agent --list`: launches that have a socket here.
    Listed {
        /// Their ids.
        launch_ids: Vec<String>,
    },
    /// The daemon is not obeyed: `stale_epoch`, `unsupported_version`, `bad_frame`. Or it is not reached: [`NOBODY`], `unreachable`. Or a sweep or a list
    /// could not look: `unswept`, `unseen`. The channel is closed behind it.
    Refused {
        /// Stable code.
        code: String,
        /// For people.
        message: String,
    },
}
