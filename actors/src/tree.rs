//! The core of a supervisor: what it knows of its children and what it decides, without actors, clocks or chance of its own.
//!
//! [`Tree::step`] takes the time, a random number and one [`Input`], and returns the [`Action`]s that follow. Time that has to pass is
//! asked for by [`Tree::next_deadline`]: the shell answers with [`Input::Tick`]. The shell is `supervisor.rs`.
//!
//! # How it decides
//!
//! Each child is in one state (`slot`), and all that takes several children in order is driven by looking, after every input, at the child
//! whose turn it is. There are two such queues: the children whose turn to start is to come, and the ordered stop under way. A group restart
//! is a stop of part of the children whose fate is to return: each is queued to start when it has ended, and no start goes ahead while
//! something stops, or while a child that comes before it is backing off. A limit that fails a group, a meltdown, an auto-shutdown and an
//! operator's orders are stops, too, with other fates.
//!
//! `words` what is said · `slot` one child's state · `slots`, `ids` where it is found · `index` what is kept about all of them · `one` what happens to one · `verdict` what an
//! end leads to · `limits` windows and back-off · `group` what a failure does to siblings · `all` the two queues · `orders` what is asked ·
//! `change` the live change of specifications.

mod all;
mod change;
mod group;
mod ids;
mod index;
mod limits;
mod one;
mod orders;
mod slot;
mod slots;
mod verdict;
mod words;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use crate::flags::{Strategy, SupervisorFlags};
use crate::snapshot::{Counts, TreeNode};
use crate::spec::{ChildId, Named};
use crate::window::Window;
use all::StopRun;
use group::Failing;
use ids::Ids;
use index::Index;
use limits::SharedBackoffs;
pub use one::KILL_WAIT;
use slot::{Slot, State};
use slots::Slots;
pub use words::{Action, Cause, Input, Key, NewChild, Refusal, Request, Role, Token};

/// Actions for which room is kept from one step to the next: more than one child gives rise to, little beside what the children take.
const ACTIONS_KEPT: usize = 16;

/// The children of one supervisor.
pub struct Tree<P> {
    /// With what the path of each child begins.
    path_front: String,
    flags: SupervisorFlags,
    slots: Slots<P>,
    ids: Ids,
    next_key: u64,
    index: Index,
    /// Automatic restarts of all children; empty without a limit of the supervisor's own.
    window: Window,
    /// A meltdown was contained: the next launch is the first of a fresh window.
    contained: bool,
    backoffs: SharedBackoffs,
    /// The children whose turn in the ordered start is to come; each that is pending is among them.
    turns: BTreeSet<Key>,
    /// The child whose turn it is.
    turn: Option<Key>,
    /// Who waits for the end of the ordered start.
    start_waiters: Vec<Token>,
    /// The ordered stop under way.
    stops: Option<StopRun>,
    /// What the children fail of that an ordered stop takes down for good.
    failing: Option<Failing>,
    born: bool,
    closing: bool,
    finished: bool,
    out: Vec<Action<P>>,
}

impl<P> Tree<P> {
    /// A supervisor without children, at `path`.
    #[must_use]
    pub fn new(path: &str, flags: SupervisorFlags) -> Self {
        Self {
            path_front: format!("{path}/"),
            flags,
            slots: Slots::new(),
            ids: Ids::default(),
            next_key: 0,
            index: Index::default(),
            window: Window::default(),
            contained: false,
            backoffs: SharedBackoffs::default(),
            turns: BTreeSet::new(),
            turn: None,
            start_waiters: Vec::new(),
            stops: None,
            failing: None,
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

    /// Takes back what [`Tree::step`] returned, emptied, for the next step to fill.
    pub fn recycle(&mut self, done: Vec<Action<P>>) {
        if done.capacity() <= ACTIONS_KEPT {
            self.out = done;
        }
    }

    /// When the core wants [`Input::Tick`] next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let stops = self.stops.as_ref().and_then(StopRun::due);
        [self.index.next_deadline(), stops].into_iter().flatten().min()
    }

    /// What the shell keeps with a child.
    pub fn payload_mut(&mut self, key: Key) -> Option<&mut P> {
        self.slots.get_mut(key).map(|slot| &mut slot.payload)
    }

    /// What the shell keeps with a child.
    #[must_use]
    pub fn payload(&self, key: Key) -> Option<&P> {
        self.slots.get(key).map(|slot| &slot.payload)
    }

    /// What the shell keeps with each child.
    pub fn payloads(&self) -> impl Iterator<Item = &P> {
        self.slots.iter().map(|(_, slot)| &slot.payload)
    }

    /// A child's path and specification.
    #[must_use]
    pub fn child(&self, key: Key) -> Option<(&Arc<str>, &Named)> {
        self.slots.get(key).map(|slot| (&slot.path, &slot.spec))
    }

    /// The child of a name.
    #[must_use]
    pub fn key_of(&self, id: &ChildId) -> Option<Key> {
        self.ids.get(id, &self.slots)
    }

    /// Whether a child is what OTP's `which_children` calls `restarting`: it has failed, and its next incarnation is not ready.
    #[must_use]
    pub fn is_restarting(&self, key: Key) -> bool {
        self.slots.get(key).is_some_and(|slot| slot.state.is_restarting())
    }

    /// How many children there are, without looking at each.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.index.counts()
    }

    /// One child as data.
    #[must_use]
    pub fn node(&self, now: Instant, key: Key) -> Option<TreeNode> {
        self.slots.get(key).map(|slot| slot.node(now, self.shared_restarts(now)))
    }

    /// The incarnation of a child that is ready, if one is.
    #[must_use]
    pub fn running(&self, key: Key) -> Option<u64> {
        self.slots.get(key).filter(|slot| slot.state == State::Running).map(|slot| slot.incarnation)
    }

    /// What the supervisor was told about itself.
    #[must_use]
    pub fn flags(&self) -> &SupervisorFlags {
        &self.flags
    }

    /// Every child as data with its key, in start order; what lies below a supervisor is left to the shell.
    pub fn nodes(&self, now: Instant) -> impl Iterator<Item = (Key, TreeNode)> + '_ {
        let shared = self.shared_restarts(now);
        self.slots.iter().map(move |(key, slot)| (key, slot.node(now, shared)))
    }

    /// Automatic restarts in the supervisor's own window.
    #[must_use]
    pub fn shared_restarts(&self, now: Instant) -> u32 {
        self.flags.intensity.map_or(0, |intensity| self.window.count(now, intensity))
    }

    fn init(&mut self, now: Instant, children: Vec<NewChild<P>>) {
        if let Some(intensity) = self.flags.intensity {
            self.window = Window::seeded(now, &self.flags.recent, intensity);
        }
        for child in children {
            match self.insert(now, child) {
                Ok(key) if self.is_pending(key) => self.start_in_turn(now, key, Cause::Asked),
                Ok(_) => {}
                Err((_, child)) => self.out.push(Action::Dispose(child.payload)),
            }
        }
        if self.is_group() {
            self.take_up(now);
        }
    }

    /// Takes a child in the state that its seed names.
    ///
    /// # Errors
    /// The child that has its id, and the child itself, of which there is no trace.
    fn insert(&mut self, now: Instant, child: NewChild<P>) -> Result<Key, (Key, NewChild<P>)> {
        let key = Key(self.next_key);
        // The path is put together well before it is copied: to read in one piece what was just written in two waits until all that was written
        // before has reached memory.
        let front = self.path_front.len();
        self.path_front.push_str(child.spec.id.as_str());
        let named = self.ids.insert(&child.spec.id, key, &self.slots).map(|()| Arc::from(self.path_front.as_str()));
        self.path_front.truncate(front);
        let path = match named {
            Ok(path) => path,
            Err(taken) => return Err((taken, child)),
        };
        self.next_key += 1;
        let slot = Box::new(Slot::new(now, path, child));
        if slot.state.rests() {
            self.out.push(Action::Close(key));
        }
        self.index.join(key, &slot);
        self.backoffs.join(&slot.spec);
        self.slots.push(key, slot);
        Ok(key)
    }

    fn is_pending(&self, key: Key) -> bool {
        self.slots.get(key).is_some_and(|slot| matches!(slot.state, State::Pending { .. }))
    }

    fn is_group(&self) -> bool {
        self.flags.strategy.is_group()
    }

    fn is_simple(&self) -> bool {
        self.flags.strategy == Strategy::SimpleOneForOne
    }

    fn answer(&mut self, token: Token, result: Result<(), Refusal>) {
        self.out.push(Action::Answer { token, child: None, result });
    }
}
