//! The shell around the core: an actix actor that feeds it and performs what it decides.

mod change;
mod hear;
mod look;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Instant;

use actix::{Actor, ActorContext, AsyncContext, Context, Running, SpawnHandle};
use tokio::sync::oneshot;

use hear::{Tick, ToSupervisor};
pub(crate) use look::View;

use crate::cell::{Leash, Seat, Watcher};
use crate::child::{Blueprint, Child, ChildCtx};
use crate::event::SupervisionEvent;
use crate::exit::ExitReason;
use crate::flags::SupervisorFlags;
use crate::init::{Plan, significance};
use crate::keeper::Fence;
use crate::log;
use crate::panics::guarded;
use crate::snapshot::ChildState;
use crate::spec::{ChildId, Seed};
use crate::supervisor_ref::{SupervisorError, SupervisorRef};
use crate::tree::{Action, Cause, Input, Key, NewChild, Refusal, Request, Token, Tree};

/// A supervisor: itself the actor of a cell, so that its parent supervises it like any other child.
pub(crate) struct Supervisor {
    tree: Tree<Bench>,
    child: ChildCtx<Self>,
    /// What it starts with; empty once it has.
    children: Vec<Child>,
    /// What its next incarnation starts with, unless it asks anew.
    plan: Option<Arc<Plan>>,
    /// How children reach this incarnation; a later one doesn't hear of them.
    watcher: Option<Arc<dyn Watcher>>,
    answers: HashMap<Token, Asker>,
    asked: u64,
    /// When the next tick comes, and how to take it back unless it is on its way.
    alarm: Option<(Instant, Option<SpawnHandle>)>,
    /// The inboxes of children that it has and was given again just now: a refusal must not close them.
    given_again: Vec<*const ()>,
    since: Instant,
    state: ChildState,
    finished: bool,
}

/// Whoever waits for an answer, and the child that the answer speaks of.
struct Asker {
    about: Option<ChildId>,
    sender: oneshot::Sender<Answer>,
}

/// What was asked for has happened: the incarnation of the child that was asked about, if one runs.
pub(crate) type Answer = Result<Option<u64>, Refusal>;

/// What the shell keeps with a child.
pub(crate) struct Bench {
    blueprint: Arc<dyn Blueprint>,
    leash: Option<Leash>,
}

impl Supervisor {
    pub(crate) fn new(
        child: ChildCtx<Self>,
        flags: SupervisorFlags,
        children: Vec<Child>,
        plan: Option<Arc<Plan>>,
    ) -> Self {
        Self {
            tree: Tree::new(Arc::clone(child.path()), flags),
            child,
            children,
            plan,
            watcher: None,
            answers: HashMap::new(),
            asked: 0,
            alarm: None,
            given_again: Vec::new(),
            since: now(),
            state: ChildState::Starting,
            finished: false,
        }
    }

    /// Feeds a request; the answer comes when what was asked has happened.
    pub(crate) fn ask(
        &mut self,
        context: &mut Context<Self>,
        request: Request<Bench>,
    ) -> Result<oneshot::Receiver<Answer>, SupervisorError> {
        let about = match &request {
            Request::Start(child) | Request::Add(child) => {
                significance(self.tree.flags(), &child.spec).map_err(SupervisorError::Invalid)?;
                self.given_again.extend(self.same(&child.spec.id, &*child.payload.blueprint));
                Some(child.spec.id.clone())
            }
            Request::Restart(id) => Some(id.clone()),
            _ => None,
        };
        let (sender, receiver) = oneshot::channel();
        self.asked += 1;
        let token = Token(self.asked);
        self.answers.insert(token, Asker { about, sender });
        self.feed(context, Input::Asked(token, request));
        self.given_again.clear();
        Ok(receiver)
    }

    fn answer(&mut self, token: Token, result: Result<(), Refusal>) {
        let Some(Asker { about, sender }) = self.answers.remove(&token) else { return };
        let running = |id: ChildId| {
            let node = self.tree.node(now(), self.tree.key_of(&id)?)?;
            (node.state == ChildState::Running).then_some(node.incarnation)
        };
        // Whoever asked may have gone; what was asked has happened all the same.
        let _ = sender.send(result.map(|()| about.and_then(running)));
    }

    /// A thread is blocked: each child that lives on it ends as stuck, here and below. Their cells report that as any other end.
    pub(crate) fn fence(&self, fence: &Fence) {
        for bench in self.tree.payloads() {
            bench.blueprint.fence_on(fence.thread);
            if let Some(leash) = bench.leash.as_ref().filter(|leash| leash.0.thread() == fence.thread) {
                leash.fence(ExitReason::Stuck);
            }
            if let Some(nested) = bench.blueprint.nested() {
                nested.fence(fence);
            }
        }
    }

    fn feed(&mut self, context: &mut Context<Self>, input: Input<Bench>) {
        let now = now();
        let chance = if matches!(input, Input::Down { .. }) { chance() } else { 0.5 };
        for action in self.tree.step(now, chance, input) {
            self.perform(context, action);
        }
        self.set_alarm(context, now);
    }

    fn perform(&mut self, context: &mut Context<Self>, action: Action<Bench>) {
        match action {
            Action::Emit(event) => self.emit(event),
            Action::Launch { key, incarnation, cause } => self.launch(key, incarnation, cause),
            Action::Stop(key) => self.leash(key, Leash::stop),
            Action::Kill(key) => self.leash(key, Leash::kill),
            Action::Close(key) => {
                if let Some(bench) = self.tree.payload_mut(key) {
                    bench.leash = None;
                    bench.blueprint.close();
                }
            }
            Action::Dispose(bench) => {
                if !self.given_again.contains(&bench.blueprint.inbox()) {
                    bench.blueprint.close();
                }
            }
            Action::Adopt { key, payload } => self.adopt(key, &*payload.blueprint),
            Action::Answer(token, result) => self.answer(token, result),
            Action::Ready => {
                self.enter(ChildState::Running);
                self.child.ready();
            }
            Action::Finished(reason) => {
                self.finished = true;
                self.child.seat().say_failed(reason);
                context.stop();
            }
        }
    }

    fn launch(&mut self, key: Key, incarnation: u64, cause: Cause) {
        let Some(watcher) = self.watcher.clone() else { return };
        let env = Arc::clone(self.child.env());
        let Some((path, spec)) = self.tree.child(key) else { return };
        let (spec, path) = (spec.clone(), Arc::clone(path));
        let seat = Arc::new(Seat::new(key, (incarnation, cause), (spec, path), watcher, env));
        if let Some(bench) = self.tree.payload_mut(key) {
            bench.leash = Some(Leash(Arc::clone(&seat)));
            bench.blueprint.launch(seat);
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

    /// Sees to it that the core gets its tick. A retry that is due at once comes back as a message, so that orders overtake it. An
    /// alarm that rings too early does no harm, so a later deadline leaves an earlier alarm alone.
    fn set_alarm(&mut self, context: &mut Context<Self>, now: Instant) {
        let Some(at) = self.tree.next_deadline() else { return };
        if let Some((set, handle)) = self.alarm {
            if set <= at {
                return;
            }
            if let Some(handle) = handle {
                context.cancel_future(handle);
            }
        }
        let wait = at.saturating_duration_since(now);
        let handle = if wait.is_zero() {
            context.notify(Tick);
            None
        } else {
            Some(context.notify_later(Tick, wait))
        };
        self.alarm = Some((at, handle));
    }

    fn enter(&mut self, state: ChildState) {
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
            0 => spec.seed.clone(),
            incarnation => Seed { incarnation, restarts: spec.seed.restarts, ..Seed::default() },
        };
        NewChild { spec, seed, role, payload: Self { blueprint, leash: None } }
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        let me = SupervisorRef::new(self.child.self_ref());
        self.watcher = Some(Arc::new(ToSupervisor { address: context.address(), me }));
        let children = std::mem::take(&mut self.children).into_iter().map(Bench::admit).collect();
        self.feed(context, Input::Init(children));
    }

    fn stopping(&mut self, context: &mut Self::Context) -> Running {
        if !self.finished {
            self.enter(ChildState::Stopping);
            self.feed(context, Input::Shutdown);
        }
        if self.finished { Running::Stop } else { Running::Continue }
    }
}

impl Drop for Supervisor {
    /// The leashes stop the children; nobody will read what is sent to them until a new incarnation starts them again. One that was fenced may
    /// end after its successor has started them.
    fn drop(&mut self) {
        for bench in self.tree.payloads() {
            let latest = bench.blueprint.incarnation();
            if bench.leash.as_ref().is_none_or(|leash| leash.0.incarnation == latest) {
                bench.blueprint.close();
            }
        }
    }
}

/// The clock of the runtime, which tests can pause.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A number from 0 to 1, for jitter: the standard library's hash keys are random enough and cost no dependency.
fn chance() -> f64 {
    let bits = u32::try_from(RandomState::new().hash_one(0_u8) >> 32).unwrap_or(0);
    f64::from(bits) / f64::from(u32::MAX)
}
