//! The core of a supervisor: what it knows of its children and what it decides, without actors, clocks or chance of its own.
//!
//! [`Tree::step`] takes the time, a random number and one [`Input`], and returns the [`Action`]s that follow. Time that has to pass is
//! asked for by [`Tree::next_deadline`]: the shell answers with [`Input::Tick`]. The shell is `supervisor.rs`.
//!
//! `one.rs` holds what happens to one child, `all.rs` the ordered starts and stops of all of them.

mod all;
mod one;
mod slot;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use crate::event::SupervisionEvent;
use crate::exit::ExitReason;
use crate::flags::{Strategy, SupervisorFlags};
use crate::snapshot::TreeNode;
use crate::spec::{ChildId, ChildSpec, Seed};
use all::StopRun;
pub use one::KILL_WAIT;
use slot::{Goal, Slot, State};

/// A child for as long as it is under its supervisor; keys grow in start order and are never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(u64);

impl Key {
    /// The root supervisor, which is under no supervisor.
    pub(crate) const ROOT: Self = Self(0);
}

/// Whom an answer is for; chosen by the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

/// What a child is to the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// An actor.
    Worker,
    /// A supervisor of this strategy.
    Supervisor(Strategy),
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
    /// Its specification; the seed in it is not read.
    pub spec: Arc<ChildSpec>,
    /// What is known of it from before.
    pub seed: Seed,
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
    /// The child is gone; this was kept with it.
    Dispose(P),
    /// Answer a request.
    Answer(Token, Result<(), Refusal>),
    /// Every child that the supervisor was born with has had its turn.
    Ready,
    /// Every child is stopped, and the supervisor ends with this reason: `Shutdown` after [`Input::Shutdown`] and by auto-shutdown, `GaveUp`.
    Finished(ExitReason),
}

/// Why a request was refused or came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No such child.
    NotFound,
    /// The id is taken by a child that has no incarnation.
    AlreadyPresent,
    /// The id is taken by a child that runs.
    AlreadyStarted,
    /// It runs already.
    Running,
    /// It is being restarted, or waits for it.
    Restarting,
    /// Children of a `simple_one_for_one` supervisor have no specification of their own to come back to.
    SimpleOneForOne,
    /// A later request asked for something else.
    Superseded,
    /// The start failed; what the restart type asks for follows.
    StartFailed(ExitReason),
    /// The child was killed and has not ended: its thread is blocked.
    Unresponsive,
    /// The supervisor is stopping.
    Closing,
}

/// The children of one supervisor.
pub struct Tree<P> {
    path: Arc<str>,
    flags: SupervisorFlags,
    slots: BTreeMap<Key, Slot<P>>,
    ids: HashMap<ChildId, Key>,
    next_key: u64,
    /// Every instant at which a child wants to be looked at; at most one a child.
    deadlines: BTreeSet<(Instant, Key)>,
    /// The ordered start under way: its head is starting, the others are pending.
    starts: VecDeque<Key>,
    start_waiters: Vec<Token>,
    /// The ordered stop under way.
    stops: Option<StopRun>,
    born: bool,
    closing: bool,
    finished: bool,
    out: Vec<Action<P>>,
}

impl<P> Tree<P> {
    /// A supervisor without children, at `path`.
    #[must_use]
    pub fn new(path: Arc<str>, flags: SupervisorFlags) -> Self {
        Self {
            path,
            flags,
            slots: BTreeMap::new(),
            ids: HashMap::new(),
            next_key: 0,
            deadlines: BTreeSet::new(),
            starts: VecDeque::new(),
            start_waiters: Vec::new(),
            stops: None,
            born: false,
            closing: false,
            finished: false,
            out: Vec::new(),
        }
    }

    /// Decides what follows from `input` at `now`; `chance` (0 to 1) picks the jitter of a back-off.
    #[must_use]
    pub fn step(&mut self, now: Instant, chance: f64, input: Input<P>) -> Vec<Action<P>> {
        match input {
            Input::Init(children) => self.init(now, children),
            Input::Started { key, incarnation } => self.started(now, key, incarnation),
            Input::Down { key, incarnation, reason } => self.down(now, chance, key, incarnation, reason),
            Input::Tick => self.tick(now),
            Input::Shutdown => self.shutdown(now),
            Input::Asked(token, request) => self.asked(now, token, request),
        }
        self.drive(now);
        std::mem::take(&mut self.out)
    }

    /// When the core wants [`Input::Tick`] next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// What the shell keeps with a child.
    pub fn payload_mut(&mut self, key: Key) -> Option<&mut P> {
        self.slots.get_mut(&key).map(|slot| &mut slot.payload)
    }

    /// What the shell keeps with a child.
    #[must_use]
    pub fn payload(&self, key: Key) -> Option<&P> {
        self.slots.get(&key).map(|slot| &slot.payload)
    }

    /// What the shell keeps with each child.
    pub fn payloads(&self) -> impl Iterator<Item = &P> {
        self.slots.values().map(|slot| &slot.payload)
    }

    /// The key of the child of that name.
    #[must_use]
    pub fn key_of(&self, id: &ChildId) -> Option<Key> {
        self.ids.get(id).copied()
    }

    /// A child's path and specification.
    #[must_use]
    pub fn child(&self, key: Key) -> Option<(&Arc<str>, &Arc<ChildSpec>)> {
        self.slots.get(&key).map(|slot| (&slot.path, &slot.spec))
    }

    /// One child as data.
    #[must_use]
    pub fn node(&self, now: Instant, key: Key) -> Option<TreeNode> {
        self.slots.get(&key).map(|slot| slot.node(now))
    }

    /// What the supervisor was told about itself.
    #[must_use]
    pub fn flags(&self) -> &SupervisorFlags {
        &self.flags
    }

    /// Every child as data with its key, in start order; what lies below a supervisor is left to the shell.
    pub fn nodes(&self, now: Instant) -> impl Iterator<Item = (Key, TreeNode)> + '_ {
        self.slots.iter().map(move |(key, slot)| (*key, slot.node(now)))
    }

    fn asked(&mut self, now: Instant, token: Token, request: Request<P>) {
        if self.closing {
            if let Request::Start(child) | Request::Add(child) = request {
                self.out.push(Action::Dispose(child.payload));
            }
            return self.answer(token, Err(Refusal::Closing));
        }
        let (id, goal) = match request {
            Request::Start(child) | Request::Add(child) => return self.add(now, token, child),
            Request::StartAll => return self.start_all(now, Some(token), false),
            Request::StopAll => return self.stop_all(now, token, false),
            Request::RestartAll => return self.stop_all(now, token, true),
            Request::StartExisting(id) | Request::Restart(id) => (id, Goal::Start),
            Request::Terminate(id) => (id, Goal::Stop),
            Request::ForceRestart(id) => (id, Goal::Restart),
            Request::Remove(id) | Request::Delete(id) => (id, Goal::Delete),
        };
        match self.ids.get(&id) {
            Some(key) => self.order(now, token, *key, goal),
            None => self.answer(token, Err(Refusal::NotFound)),
        }
    }

    fn init(&mut self, now: Instant, children: Vec<NewChild<P>>) {
        let keys: Vec<Key> = children.into_iter().filter_map(|child| self.insert(now, child)).collect();
        self.starts = keys.into_iter().filter(|key| self.is_pending(*key)).collect();
    }

    fn add(&mut self, now: Instant, token: Token, child: NewChild<P>) {
        let Some(key) = self.insert(now, child) else {
            return self.answer(token, Err(Refusal::AlreadyPresent));
        };
        if self.is_pending(key) {
            self.wait_for(key, token, slot::Until::Started);
            self.launch(now, key, Cause::Asked);
        } else {
            self.answer(token, Ok(()));
        }
    }

    /// Takes a child in the state that its seed names; `None` and no trace of it when the id is taken.
    fn insert(&mut self, now: Instant, child: NewChild<P>) -> Option<Key> {
        let id = child.spec.id.clone();
        if self.ids.contains_key(&id) {
            self.out.push(Action::Dispose(child.payload));
            return None;
        }
        let key = Key(self.next_key);
        self.next_key += 1;
        let path = Arc::from(format!("{}/{id}", self.path));
        let slot = Slot::new(now, path, child);
        let (rests, deadline) = (slot.state.rests(), slot.state.due());
        self.ids.insert(id, key);
        self.slots.insert(key, slot);
        if rests {
            self.out.push(Action::Close(key));
        }
        if let Some(at) = deadline {
            self.deadlines.insert((at, key));
        }
        Some(key)
    }

    fn is_pending(&self, key: Key) -> bool {
        self.slots.get(&key).is_some_and(|slot| matches!(slot.state, State::Pending))
    }

    fn answer(&mut self, token: Token, result: Result<(), Refusal>) {
        self.out.push(Action::Answer(token, result));
    }
}
