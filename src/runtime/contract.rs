//! The runtime's contract. Its verbs are ours (launch, recover, stop), not an engine's.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::sync::mpsc;

use crate::{
    model::{AgentId, ExitRecord, LaunchId, RuntimeKind, SwarmName},
    wire::channel::Stream,
};

/// A boxed future, so that the trait stays object-safe.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a runtime can do; asked before, never tried and faked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Freeze and unfreeze.
    pub pause: bool,
    /// Memory, CPU and process limits.
    pub limits: bool,
    /// Own network, own file system.
    pub isolation: bool,
    /// Tell that memory ran out.
    pub oom: bool,
    /// Take over what an earlier daemon launched.
    pub recover: bool,
}

/// Everything that a launch needs.
#[derive(Clone, PartialEq)]
pub struct LaunchOrder {
    /// Names this launch; journaled before.
    pub launch_id: LaunchId,
    /// Who.
    pub agent: AgentId,
    /// Which start.
    pub incarnation: u64,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The agent's environment as its documents have it. On `process` it is laid over the daemon's own; the runtime adds the `HIVEKEEPER_` ones
    /// and removes the daemon's configuration variables (`HIVEKEEPER__*`) and its API token.
    pub env: BTreeMap<String, String>,
    /// Absolute working directory; made when it is not there. When it can't be made, the start fails. `None` is the container's own; `process`
    /// has none and refuses the order.
    pub workdir: Option<PathBuf>,
    /// The token for the data plane, in clear; its hash is journaled.
    pub token: String,
    /// How long the agent goes on without a daemon.
    pub lease: Duration,
    /// Time between SIGTERM and SIGKILL when the lease runs out.
    pub grace: Duration,
    /// Between two readings.
    pub sample_interval: Duration,
}

impl fmt::Debug for LaunchOrder {
    /// Without the token, and without the environment, in which secrets are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { launch_id, agent, incarnation, argv, .. } = self;
        f.debug_struct("LaunchOrder")
            .field("launch_id", launch_id)
            .field("agent", agent)
            .field("incarnation", incarnation)
            .field("argv", argv)
            .finish_non_exhaustive()
    }
}

/// What a launched agent shows. The channel is bounded; the runtime waits when it is full, and the launcher's ring takes the output up meanwhile.
#[derive(Debug, Clone, PartialEq)]
pub enum AgentEvent {
    /// execve succeeded and the process lives.
    Alive {
        /// Its process id.
        pid: u32,
        /// When it was started.
        at: SystemTime,
    },
    /// Lines of output, in order. To be acknowledged by [`AgentControl::ack`] once they are safe.
    Output(Vec<OutputLine>),
    /// Output that was dropped before it reached us.
    Lost {
        /// Lines, or pieces of long ones.
        lines: u64,
        /// Bytes.
        bytes: u64,
    },
    /// A reading; the launcher's heartbeat, too.
    Sample {
        /// When.
        at: SystemTime,
        /// Cores in use since the reading before (or the start); `None` when that is too short a time to tell.
        cpu_cores: Option<f64>,
        /// Summed resident memory, bytes.
        memory_bytes: u64,
        /// Processes in the tree.
        processes: u32,
    },
    /// The tree was frozen or unfrozen.
    Paused(bool),
    /// Nobody can be asked about it now; whether it lives is not known. The next event tells.
    Unreachable,
    /// The end: proven dead, nothing of its tree left. The last event. `last_lines` is left empty for the caller to fill.
    Exited(ExitRecord),
    /// A younger daemon leads this agent now: ours is fenced and must not judge, restart or journal it. The last event; the agent may live.
    Fenced,
}

/// One captured line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputLine {
    /// Its number within the incarnation.
    pub seq: u64,
    /// When, by the launcher's clock.
    pub at: SystemTime,
    /// Where it was written to.
    pub stream: Stream,
    /// Whether it goes on in the next piece of the same stream.
    pub partial: bool,
    /// The text; bytes that are no UTF-8 are replaced by U+FFFD.
    pub text: String,
}

/// The reins of one incarnation. Dropping them without [`AgentControl::detach`] kills the tree. None of the calls blocks; after the end they do nothing.
pub trait AgentControl: Send + Sync {
    /// SIGTERM, and SIGKILL to the whole tree after the grace. Idempotent; a shorter grace wins.
    fn stop(&self, grace: Duration);
    /// SIGKILL to the whole tree.
    fn kill(&self);
    /// Freezes; answered by [`AgentEvent::Paused`].
    fn pause(&self);
    /// Unfreezes.
    fn resume(&self);
    /// Output up to and with this number is safe.
    fn ack(&self, seq: u64);
    /// Leaves the agent to its lease, for the next daemon.
    fn detach(&self);
}

/// A launch under way: `Alive` comes as the first event, or `Exited` (cause `StartFailed`, or `LauncherLost` when the launcher died over it), or
/// `Fenced`. When the events end without `Exited` or `Fenced`, the agent was detached or the runtime was dropped: it lives on under its lease.
pub struct Launched {
    /// The reins.
    pub control: Arc<dyn AgentControl>,
    /// What it shows.
    pub events: mpsc::Receiver<AgentEvent>,
}

/// Why nothing was launched: nothing of this order runs or will run.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The runtime can't be reached or is overloaded; trying again may help.
    #[error("runtime unreachable: {0}")]
    Unreachable(String),
    /// Something that the order needs and that is not ours is not there now; trying again may help.
    #[error("{0}")]
    NotYet(String),
    /// The order can't work: no command, an argument with a NUL byte.
    #[error("order refused: {0}")]
    Refused(String),
    /// The launcher did not answer in time and was ended.
    #[error("launcher failed: {0}")]
    Launcher(String),
}

/// What became of a launch of an earlier daemon.
pub enum Recovered {
    /// It lives and is ours now. `Alive` comes as the first event, then the output behind `last_seq`.
    Running(Launched),
    /// The same, but it has been told to end already: by the daemon that led it, or because its lease ran out.
    Ending(Launched),
    /// It ended meanwhile, with a record.
    Exited {
        /// The record.
        record: ExitRecord,
        /// Lines behind `last_seq` that nobody has heard, and that went with the launcher.
        lost: u64,
    },
    /// No launcher, no record. What carried its marker was swept and is proven dead.
    Lost,
}

/// Why it is not known what became of it.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// A younger daemon leads it.
    #[error("a younger daemon leads it")]
    Fenced,
    /// It neither answered nor could be proven dead within the deadline.
    #[error("launcher does not answer: {0}")]
    Unproven(String),
}

/// What runs commands.
pub trait Runtime: Send + Sync {
    /// Which one it is.
    fn kind(&self) -> RuntimeKind;
    /// What it can do.
    fn capabilities(&self) -> Capabilities;
    /// The id for the next launch in a swarm: one that the runtime is prepared for, if it is. It may come to nothing; say so with [`Runtime::forget`].
    fn reserve(&self, _: &SwarmName) -> LaunchId {
        LaunchId::mint()
    }
    /// Starts an agent under a launcher. Returns once the launcher answers, or with an error and nothing left behind.
    fn launch(&self, order: LaunchOrder) -> BoxFuture<'_, Result<Launched, LaunchError>>;
    /// Takes over a launch of an earlier daemon, or finds out how it ended.
    fn recover(
        &self,
        launch_id: LaunchId,
        agent: AgentId,
        incarnation: u64,
        last_seq: u64,
    ) -> BoxFuture<'_, Result<Recovered, RecoverError>>;
    /// Launches that live here and that `known` does not hold: found by their sockets. With `remove` they are taken over and killed.
    /// Returns their ids. What this runtime leads itself is never one; one that a younger daemon leads is not touched and not returned. With
    /// `remove`, what is kept of ended launches that `known` does not hold is forgotten, too.
    fn orphans(&self, known: Vec<LaunchId>, remove: bool) -> BoxFuture<'_, Vec<LaunchId>>;
    /// Removes what is kept of an ended launch (its exit record). To be called once the end is in the journal: until then a daemon that crashed
    /// in between still finds out how it ended. What was reserved and never launched is ended. Forgetting what is not there is fine.
    fn forget(&self, launch_id: LaunchId) -> BoxFuture<'_, ()>;
}
