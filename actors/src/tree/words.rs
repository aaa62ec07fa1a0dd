//! What is said to the core, and what it says.

use crate::event::SupervisionEvent;
use crate::exit::ExitReason;
use crate::flags::{Strategy, SupervisorFlags};
use crate::spec::{ChildId, Named, Seed, SpecError};

/// A child for as long as it is under its supervisor; keys grow in start order and are never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub(super) u64);

impl Key {
    /// The root supervisor, which is under no supervisor.
    pub(crate) const ROOT: Self = Self::FIRST;
    /// No key is below it.
    pub(super) const FIRST: Self = Self(0);

    /// The key after it.
    pub(super) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Whom an answer is for; chosen by the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u64);

/// What a child is to the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// An actor.
    Worker,
    /// A supervisor, and its strategy if that is known before it runs.
    Supervisor(Option<Strategy>),
}

/// Why an incarnation is launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It is the first, or somebody asked for it.
    Asked,
    /// The supervisor restarts the child by itself, and counts it.
    Automatic,
    /// The supervisor replaces an incarnation that was [lost](ExitReason::Lost) through no fault of its own.
    Replacement,
    /// It takes over what an earlier daemon left running.
    Adopted,
}

/// A child on its way under a supervisor. `payload` is the shell's own and comes back with [`Action::Dispose`].
#[derive(Clone, Debug)]
pub struct NewChild<P> {
    /// Its specification.
    pub spec: Named,
    /// What is known of it from before, where that is not what its specification says.
    pub seed: Option<Box<Seed>>,
    /// Whether it works or supervises.
    pub role: Role,
    /// What the shell keeps with it.
    pub payload: P,
}

/// What the core is told.
#[derive(Debug)]
pub enum Input<P> {
    /// The children that the supervisor is born with; once, before anything else.
    Init(Vec<NewChild<P>>),
    /// An incarnation is ready.
    Started {
        /// The child.
        key: Key,
        /// Its incarnation.
        incarnation: u64,
    },
    /// An incarnation has really ended.
    Down {
        /// The child.
        key: Key,
        /// Its incarnation.
        incarnation: u64,
        /// Why.
        reason: ExitReason,
    },
    /// Time has passed.
    Tick,
    /// Somebody asks for something and waits for the answer.
    Asked(Token, Request<P>),
    /// The supervisor itself has to stop.
    Shutdown,
}

/// What an operator may ask of a supervisor.
#[derive(Debug)]
pub enum Request<P> {
    /// Take a new child and start it; one whose start fails is discarded (OTP `start_child`).
    Start(NewChild<P>),
    /// Take a new child and start it as its seed says, as if the supervisor had been born with it.
    Add(NewChild<P>),
    /// Start a child that has no incarnation; a failed start leaves it stopped (OTP `restart_child`).
    Restart(ChildId),
    /// Start a child that does not run, with a clean record; a failed start is followed by what its restart type asks for.
    StartExisting(ChildId),
    /// Stop a child and keep its specification (OTP `terminate_child`).
    Terminate(ChildId),
    /// End the incarnation, if any, and start a new one with a clean record.
    ForceRestart(ChildId),
    /// Forget a child that has no incarnation (OTP `delete_child`).
    Delete(ChildId),
    /// Stop a child and forget it.
    Remove(ChildId),
    /// Start in order whatever is stopped, failed or backing off.
    StartAll,
    /// Stop everything in reverse order.
    StopAll,
    /// Stop everything in reverse order, then start everything in order.
    RestartAll,
    /// Take new flags and specifications while everything runs (OTP `code_change`). A child of a given id gets its new specification, and its
    /// incarnation lives on under it; a new id comes last and is not started; a child that is not named is kept as it is.
    Change {
        /// What the supervisor is told about itself from now on; `recent` is not read.
        flags: SupervisorFlags,
        /// The specifications; of their seeds, those of new ids alone are read, and start nothing.
        children: Vec<NewChild<P>>,
    },
}

/// What the shell has to do, in this order.
#[derive(Debug, PartialEq)]
pub enum Action<P> {
    /// Tell the world.
    Emit(SupervisionEvent),
    /// Make an incarnation.
    Launch {
        /// The child.
        key: Key,
        /// The new incarnation.
        incarnation: u64,
        /// Why.
        cause: Cause,
    },
    /// Ask the running incarnation to stop.
    Stop(Key),
    /// Drop the running incarnation.
    Kill(Key),
    /// Refuse and forget messages: the child rests.
    Close(Key),
    /// The child is gone, or was refused; this was kept with it.
    Dispose(P),
    /// A child has got a new specification ([`Request::Change`]), and this came with it. What the shell kept is still there.
    Adopt {
        /// The child.
        key: Key,
        /// What came with the specification.
        payload: P,
    },
    /// Answer a request.
    Answer {
        /// Whose.
        token: Token,
        /// The child that had to be waited for.
        child: Option<Key>,
        /// Whether what was asked for has happened.
        result: Result<(), Refusal>,
    },
    /// Every child that the supervisor was born with has had its turn.
    Ready,
    /// Every child is stopped, and the supervisor ends with this reason: `Shutdown` after [`Input::Shutdown`] and by auto-shutdown, `GaveUp`.
    Finished(ExitReason),
}

/// Why a request was refused or came to nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// No such child.
    NotFound,
    /// The id is taken by a child that has no incarnation, or is being restarted.
    AlreadyPresent,
    /// The id is taken by a child that has one.
    AlreadyStarted,
    /// It runs already.
    Running,
    /// It is being restarted, or waits for it.
    Restarting,
    /// Children of a `simple_one_for_one` supervisor have no specification of their own to come back to.
    SimpleOneForOne,
    /// A later request asked for something else.
    Superseded,
    /// The start failed, or a child of a group that was to be started. What follows depends on the request.
    StartFailed(ExitReason),
    /// The child was killed and has not ended: its thread is blocked.
    Unresponsive,
    /// The supervisor is stopping.
    Closing,
    /// What was to be changed would not be valid; nothing was.
    Invalid(SpecError),
}
