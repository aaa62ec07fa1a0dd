//! What a supervisor knows, and how it performs what the core decides, on whichever thread that is.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use tokio::sync::oneshot;

use super::{Home, Supervisor};
use crate::cell::{Leash, Seat, Spot, Watcher};
use crate::child::{Blueprint, Child, ChildCtx};
use crate::event::SupervisionEvent;
use crate::exit::ExitReason;
use crate::flags::SupervisorFlags;
use crate::init::significance;
use crate::keeper::Fence;
use crate::log;
use crate::panics::guarded;
use crate::snapshot::ChildState;
use crate::spec::{ChildId, Placement, Seed};
use crate::supervisor_ref::SupervisorError;
use crate::tree::{Action, Cause, Input, Key, NewChild, Refusal, Request, Token, Tree};

/// The core and all that it takes to perform what the core decides.
pub(crate) struct Mind {
    pub(super) tree: Tree<Bench>,
    pub(super) child: ChildCtx<Supervisor>,
    /// How children reach this incarnation; a later one doesn't hear of them.
    watcher: Option<Arc<dyn Watcher>>,
    /// Where the supervisor lives, and the children beside it.
    home: Option<Home>,
    /// Notices on their way to the actor.
    pub(super) on_the_way: Arc<AtomicUsize>,
    /// Who waits for an answer.
    askers: BTreeMap<Token, oneshot::Sender<Answer>>,
    asked: u64,
    /// The name of the child that it is being given.
    given: Option<ChildId>,
    /// The inboxes of children that it has and is being given again with a change.
    pub(super) given_again: Vec<usize>,
    /// When the actor has, or is about to have, its next tick.
    alarm: Option<Instant>,
    /// The time of the latest step.
    latest: Instant,
    pub(super) since: Instant,
    pub(super) state: ChildState,
    finished: bool,
    /// It takes nothing in: it is in the middle of a step, for ever if that has panicked, or the supervisor is gone.
    deaf: bool,
}

/// What was asked for has happened: the incarnation of the child that was waited for, if one runs.
pub(crate) type Answer = Result<Option<u64>, Refusal>;

/// What the shell keeps with a child.
pub(crate) struct Bench {
    pub(super) blueprint: Arc<dyn Blueprint>,
    leash: Option<Leash>,
}

impl Mind {
    pub(super) fn new(child: ChildCtx<Supervisor>, flags: SupervisorFlags) -> Self {
        let now = now();
        Self {
            tree: Tree::new(child.path(), flags),
            child,
            watcher: None,
            home: None,
            on_the_way: Arc::default(),
            askers: BTreeMap::new(),
            asked: 0,
            given: None,
            given_again: Vec::new(),
            alarm: None,
            latest: now,
            since: now,
            state: ChildState::Starting,
            finished: false,
            deaf: false,
        }
    }

    /// The supervisor lives, and hears of its children through `watcher`.
    pub(super) fn settle(&mut self, watcher: Arc<dyn Watcher>, home: Option<Home>) {
        if let Some(me) = watcher.supervisor() {
            self.child.registry().introduce(self.child.seat(), &me);
        }
        self.watcher = Some(watcher);
        self.home = home;
    }

    /// The supervisor is gone: hears nothing more and lets go of the children, and of whoever holds on to it through them.
    pub(super) fn forget(&mut self) -> (Tree<Bench>, impl Sized + use<>) {
        self.deaf = true;
        self.watcher = None;
        let nothing = Tree::new(self.child.path(), SupervisorFlags::default());
        // Whoever waits for an answer wakes up when this is dropped, which may panic.
        (std::mem::replace(&mut self.tree, nothing), std::mem::take(&mut self.askers))
    }

    /// Lets go of what an incarnation has that is fenced: its children elsewhere, whose places its successor needs, and whoever waits for an answer.
    pub(super) fn let_go(&mut self) -> Option<impl Sized + use<>> {
        if !self.child.seat().is_fenced() {
            return None;
        }
        for leash in self.tree.payloads().filter_map(|bench| bench.leash.as_ref()) {
            leash.let_go();
        }
        Some(std::mem::take(&mut self.askers))
    }

    /// Whether the actor has to end: every child has stopped, or a step has panicked.
    pub(super) fn is_over(&self) -> bool {
        self.finished || self.deaf
    }

    /// Whether a notice may be taken in on the thread that calls, whichever that is. A fenced supervisor hears nothing; and where the clock is behind that of the
    /// latest step, tests have turned the supervisor's own, which is the one that counts.
    pub(super) fn hears(&self, now: Instant) -> bool {
        !self.is_over() && self.home.is_some() && !self.child.seat().is_fenced() && now >= self.latest
    }

    /// As [`Mind::hears`], for an order. One that comes from a thread which is none of the tree's is left to the actor, and so is one to a supervisor that is
    /// about to end: what becomes of it is decided when that has come to it.
    pub(super) fn hears_orders(&self, now: Instant) -> bool {
        self.hears(now) && self.child.seat().is_undisturbed() && self.child.env().pool.is_of_the_tree()
    }

    /// A step has panicked, and the supervisor ends with that.
    pub(super) fn fail(&self, panic: ExitReason) {
        self.child.seat().say_failed(panic);
    }

    pub(super) fn ask(
        &mut self,
        (now, spot): (Instant, Spot),
        request: Request<Bench>,
    ) -> Result<oneshot::Receiver<Answer>, SupervisorError> {
        if let Request::Start(child) | Request::Add(child) = &request {
            significance(self.tree.flags(), &child.spec).map_err(SupervisorError::Invalid)?;
            self.given = Some(child.spec.id.clone());
        }
        let (sender, receiver) = oneshot::channel();
        self.asked += 1;
        let token = Token(self.asked);
        self.askers.insert(token, sender);
        self.feed((now, spot), Input::Asked(token, request));
        self.given = None;
        self.given_again.clear();
        Ok(receiver)
    }

    fn answer(&mut self, token: Token, child: Option<Key>, result: Result<(), Refusal>) {
        let Some(asker) = self.askers.remove(&token) else { return };
        // Whoever asked may have gone; what was asked has happened all the same.
        let _ = asker.send(result.map(|()| self.tree.running(child?)));
    }

    /// Whether a child that goes is one that it has and was given again just now: that must not close its inbox.
    fn has_again(&self, gone: &dyn Blueprint) -> bool {
        self.given_again.contains(&gone.inbox()) || self.given.as_ref().is_some_and(|id| self.same(id, gone).is_some())
    }

    /// A thread is blocked: each child that lives on it ends as stuck, here and below. Their cells report that as any other end.
    pub(crate) fn fence(&self, fence: &Fence) {
        for bench in self.tree.payloads() {
            bench.blueprint.fence_on(fence.thread);
            if let Some(leash) = bench.leash.as_ref().filter(|leash| leash.0.thread() == fence.thread) {
                leash.fence(ExitReason::Stuck);
            }
            if let Some(nested) = bench.blueprint.nested() {
                nested.door.let_go();
                nested.fence(fence);
            }
        }
    }

    /// Takes one input in and performs what follows from it. Whoever is answered may look from another thread at once, so answers come last.
    /// That happens at `now`, on the given spot.
    pub(super) fn feed(&mut self, (now, spot): (Instant, Spot), input: Input<Bench>) {
        if std::mem::replace(&mut self.deaf, true) {
            return;
        }
        self.latest = now;
        let chance = if matches!(input, Input::Down { .. }) { chance() } else { 0.5 };
        let mut actions = self.tree.step(now, chance, input);
        for action in actions.extract_if(.., |action| !matches!(action, Action::Answer { .. })) {
            self.perform(spot, action);
        }
        for action in actions.drain(..) {
            self.perform(spot, action);
        }
        self.tree.recycle(actions);
        self.deaf = false;
    }

    fn perform(&mut self, spot: Spot, action: Action<Bench>) {
        match action {
            Action::Emit(event) => self.emit(event),
            Action::Launch { key, incarnation, cause } => self.launch(spot, key, incarnation, cause),
            Action::Stop(key) => self.leash(key, Leash::stop),
            Action::Kill(key) => self.leash(key, Leash::kill),
            Action::Close(key) => {
                if let Some(bench) = self.tree.payload_mut(key) {
                    bench.leash = None;
                    bench.blueprint.close();
                }
            }
            Action::Dispose(bench) => {
                if !self.has_again(&*bench.blueprint) {
                    bench.blueprint.close();
                }
            }
            Action::Adopt { key, payload } => self.adopt(key, &payload.blueprint),
            Action::Answer { token, child, result } => self.answer(token, child, result),
            Action::Ready => {
                self.enter(ChildState::Running);
                self.child.ready();
            }
            Action::Finished(reason) => {
                self.finished = true;
                self.child.seat().say_failed(reason);
            }
        }
    }

    /// A child is made anew where it was, as long as it has not come to rest in between: nothing has to be woken there.
    fn launch(&mut self, spot: Spot, key: Key, incarnation: u64, cause: Cause) {
        let Some(watcher) = self.watcher.clone() else { return };
        let env = Arc::clone(self.child.env());
        let Some((path, spec)) = self.tree.child(key) else { return };
        let (spec, path) = (spec.clone(), Arc::clone(path));
        let seat = Arc::new(Seat::new(key, (incarnation, cause), (spec, path), watcher, env));
        let home = self.home.as_ref().filter(|home| !home.is_here(spot));
        if let Some(bench) = self.tree.payload_mut(key) {
            let before = bench.leash.replace(Leash(Arc::clone(&seat))).map(|leash| leash.0.thread());
            if seat.spec.placement == Placement::WithSupervisor {
                seat.live_on(self.child.seat().thread());
            } else if let Some(thread) = before {
                seat.live_on(thread);
            }
            Arc::clone(&bench.blueprint).launch(seat, spot, home);
        }
    }

    fn leash(&mut self, key: Key, order: fn(&Leash)) {
        if let Some(leash) = self.tree.payload_mut(key).and_then(|bench| bench.leash.as_ref()) {
            order(leash);
        }
    }

    fn emit(&self, event: SupervisionEvent) {
        log::child(&event);
        let sink = &self.child.env().sink;
        // A sink that panics has lost the event; the log says so, and the supervisor goes on.
        let _ = guarded(self.child.path(), || sink.event(event));
    }

    /// Whether the core wants its tick now.
    pub(super) fn is_due(&self) -> bool {
        self.tree.next_deadline().is_some_and(|at| at <= self.latest)
    }

    /// Notes when the core wants its tick; `true` when that is earlier than the actor knows. An alarm that rings too early does no harm, so a
    /// later deadline leaves an earlier alarm alone.
    pub(super) fn set_alarm(&mut self) -> bool {
        let Some(at) = self.tree.next_deadline() else { return false };
        let earlier = self.alarm.is_none_or(|set| at < set);
        if earlier {
            self.alarm = Some(at);
        }
        earlier
    }

    pub(super) fn alarm(&self) -> Option<Instant> {
        self.alarm
    }

    /// The alarm of the actor rings.
    pub(super) fn tick(&mut self) {
        self.alarm = None;
        self.feed((now(), Spot::Turn), Input::Tick);
    }

    pub(super) fn enter(&mut self, state: ChildState) {
        self.state = state;
        self.since = now();
    }
}

impl Bench {
    /// A child on its way into the core. One that was launched before, under an earlier incarnation of the supervisor, starts afresh
    /// with the next number.
    pub(crate) fn admit(child: Child) -> NewChild<Self> {
        let Child { spec, role, blueprint, .. } = child;
        let seed = match blueprint.incarnation() {
            0 => None,
            incarnation => Some(Box::new(Seed { incarnation, restarts: spec.seed.restarts, ..Seed::default() })),
        };
        NewChild { spec, seed, role, payload: Self { blueprint, leash: None } }
    }
}

/// Closes the inboxes of children that their supervisor has left; their leashes stop them. Nobody will read what is sent to them until a new
/// incarnation of it starts them again. A supervisor that was fenced may end after its successor has started them.
pub(super) fn abandon(tree: &Tree<Bench>) {
    for bench in tree.payloads() {
        let latest = bench.blueprint.incarnation();
        if bench.leash.as_ref().is_none_or(|leash| leash.0.incarnation == latest) {
            bench.blueprint.close();
        }
    }
}

/// The clock of the runtime, which tests can pause.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A number from 0 to 1, for jitter: the standard library's hash keys are random enough and cost no dependency.
fn chance() -> f64 {
    let bits = u32::try_from(RandomState::new().hash_one(0_u8) >> 32).unwrap_or(0);
    f64::from(bits) / f64::from(u32::MAX)
}
