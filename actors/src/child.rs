//! What a child is made of: a specification, a factory, and the context its actor is given.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use actix::{Actor, ActorContext, Context};

use crate::cell::{Seat, Spot, Unborn};
use crate::child_ref::ChildRef;
use crate::exit::ExitReason;
use crate::inbox::Inbox;
use crate::letter::discarding;
use crate::pool::Env;
use crate::registry::Registry;
use crate::spec::{ChildId, ChildSpec, Named, Placement, Ready, SpecError};
use crate::supervisor::Home;
use crate::supervisor_ref::SupervisorRef;
use crate::tasks::{TaskError, Tie};
use crate::tree::{Cause, Role};
use crate::watch::ThreadId;

/// Any error that a factory may fail with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Makes an incarnation, on the thread where it will live.
pub(crate) type Factory<A> = dyn Fn(ChildCtx<A>) -> Result<A, BoxError> + Send + Sync;

/// A child that can be put under a supervisor.
#[derive(Clone)]
pub struct Child {
    pub(crate) spec: Named,
    pub(crate) role: Role,
    pub(crate) blueprint: Arc<dyn Blueprint>,
    pub(crate) problem: Option<SpecError>,
}

impl Child {
    /// An actor. The factory makes each incarnation on the thread where it lives, so the actor need not be `Send`; it keeps the
    /// [`ChildCtx`] it is given if it wants to report readiness or failure.
    ///
    /// A specification that is not valid is refused by whoever is given the child.
    pub fn actor<A, F>(spec: ChildSpec, factory: F) -> (Self, ChildRef<A>)
    where
        A: Actor<Context = Context<A>>,
        F: Fn(ChildCtx<A>) -> Result<A, BoxError> + Send + Sync + 'static,
    {
        let problem = spec.validate().err();
        let (child, child_ref) = Self::named(spec.into(), factory);
        (Self { problem, ..child }, child_ref)
    }

    /// An actor whose specification is known to be valid.
    pub(crate) fn named<A, F>(spec: Named, factory: F) -> (Self, ChildRef<A>)
    where
        A: Actor<Context = Context<A>>,
        F: Fn(ChildCtx<A>) -> Result<A, BoxError> + Send + Sync + 'static,
    {
        let inbox = Arc::new(Inbox::new(&spec));
        let child_ref = ChildRef::new(Arc::clone(&inbox));
        let factory = Careful(Some(factory));
        let made = Made { inbox, nested: None, factory: move |child: ChildCtx<A>| factory.make(child) };
        (Self { spec, role: Role::Worker, blueprint: Arc::new(made), problem: None }, child_ref)
    }

    /// Moves a supervisor off the thread of its own supervisor to one of the threads for children, in turn, and with it those of its children
    /// that are placed [`WithSupervisor`](Placement::WithSupervisor). For children that talk to each other a lot: neither a message nor a
    /// restart among them waits for another thread to wake up, and several such supervisors keep several cores busy (Elixir's
    /// `PartitionSupervisor`). A handler among them that blocks holds up their supervisor, too. An actor stays where its specification says.
    #[must_use]
    pub fn apart(mut self) -> Self {
        if matches!(self.role, Role::Supervisor(_)) {
            self.spec.place(Placement::Pool);
        }
        self
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &ChildId {
        &self.spec.id
    }

    /// Checks its specification and, for a supervisor, those of all below.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn validate(&self) -> Result<(), SpecError> {
        self.problem.clone().map_or(Ok(()), Err)
    }
}

/// A factory whose destructor may panic and ends nobody: whoever lets go of a child last drops what its factory holds, and often that is a
/// supervisor.
struct Careful<F>(Option<F>);

impl<F> Careful<F> {
    fn make<A: Actor<Context = Context<A>>>(&self, child: ChildCtx<A>) -> Result<A, BoxError>
    where
        F: Fn(ChildCtx<A>) -> Result<A, BoxError>,
    {
        self.0.as_ref().map_or_else(|| Err("the factory is gone".into()), |factory| factory(child))
    }
}

impl<F> Drop for Careful<F> {
    fn drop(&mut self) {
        let factory = self.0.take();
        discarding("a factory", || drop(factory));
    }
}

/// The error of a factory that declines to make its actor (OTP `ignore`): the child counts as started and has no incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not wanted")]
pub struct Ignore;

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child").field("spec", &self.spec).field("role", &self.role).finish_non_exhaustive()
    }
}

/// How a supervisor makes incarnations of a child whose type it doesn't know.
pub(crate) trait Blueprint: Send + Sync {
    /// Makes an incarnation; its end is reported to the seat's watcher whatever happens. `spot` is where that is decided, and `home` the thread of
    /// its supervisor, unless that is the one that calls.
    fn launch(self: Arc<Self>, seat: Arc<Seat>, spot: Spot, home: Option<&Home>);
    /// Refuses and forgets messages.
    fn close(&self);
    /// Fences the incarnation if it lives on this thread, which is blocked.
    fn fence_on(&self, thread: ThreadId);
    /// The latest incarnation that was launched; 0 is none.
    fn incarnation(&self) -> u64;
    /// The handle on the supervisor, if it is one.
    fn nested(&self) -> Option<&SupervisorRef>;
    /// The same child with the factory of `other`; `None` when that makes another type of actor.
    fn heir(&self, other: &Arc<dyn Blueprint>) -> Option<Arc<dyn Blueprint>>;
    /// What makes its actors, as an `Arc<Made<A>>`.
    fn maker(self: Arc<Self>) -> Box<dyn Any>;
    /// Tells children apart: the address of where the messages are.
    fn inbox(&self) -> usize;
}

/// What a child is made of, in one piece with its factory: there may be very many children.
pub(crate) struct Made<A: Actor<Context = Context<A>>, F: ?Sized = Factory<A>> {
    pub(crate) inbox: Arc<Inbox<A>>,
    pub(crate) nested: Option<SupervisorRef>,
    pub(crate) factory: F,
}

impl<A: Actor<Context = Context<A>>> Made<A> {
    /// A child with this one's factory.
    fn lend(self: Arc<Self>, inbox: Arc<Inbox<A>>, nested: Option<SupervisorRef>) -> Arc<dyn Blueprint> {
        Arc::new(Made { inbox, nested, factory: move |child: ChildCtx<A>| (self.factory)(child) })
    }

    fn launch(self: Arc<Self>, seat: Arc<Seat>, spot: Spot, home: Option<&Home>) {
        self.inbox.launch(&seat);
        let (env, placement) = (Arc::clone(&seat.env), seat.spec.placement);
        let unborn = Unborn::new(Arc::clone(&seat), self);
        match placement {
            Placement::Pool => env.pool.place(&seat, spot, move || unborn.spawn_here()),
            Placement::WithSupervisor => match home {
                Some(home) => home.send(move || unborn.spawn_here()),
                None => unborn.spawn_here(),
            },
            Placement::Dedicated => match env.pool.dedicate(&seat) {
                Ok(thread) => {
                    thread.spawn_fn(move || unborn.spawn_here());
                }
                Err(error) => unborn.refuse(ExitReason::StartFailed(format!("no thread of its own: {error}").into())),
            },
        }
    }
}

impl<A, F> Blueprint for Made<A, F>
where
    A: Actor<Context = Context<A>>,
    F: Fn(ChildCtx<A>) -> Result<A, BoxError> + Send + Sync + 'static,
{
    fn launch(self: Arc<Self>, seat: Arc<Seat>, spot: Spot, home: Option<&Home>) {
        let made: Arc<Made<A>> = self;
        made.launch(seat, spot, home);
    }

    fn close(&self) {
        self.inbox.close();
    }

    fn fence_on(&self, thread: ThreadId) {
        self.inbox.fence_on(thread);
    }

    fn incarnation(&self) -> u64 {
        self.inbox.incarnation()
    }

    fn nested(&self) -> Option<&SupervisorRef> {
        self.nested.as_ref()
    }

    fn heir(&self, other: &Arc<dyn Blueprint>) -> Option<Arc<dyn Blueprint>> {
        let other = Arc::clone(other).maker().downcast::<Arc<Made<A>>>().ok()?;
        Some(other.lend(Arc::clone(&self.inbox), self.nested.clone()))
    }

    fn maker(self: Arc<Self>) -> Box<dyn Any> {
        let made: Arc<Made<A>> = self;
        Box::new(made)
    }

    fn inbox(&self) -> usize {
        Arc::as_ptr(&self.inbox).addr()
    }
}

/// What an incarnation knows of itself, and its way to its supervisor. Cheap to clone, and usable from any thread.
pub struct ChildCtx<A: Actor<Context = Context<A>>> {
    seat: Arc<Seat>,
    inbox: Arc<Inbox<A>>,
}

impl<A: Actor<Context = Context<A>>> ChildCtx<A> {
    pub(crate) fn new(seat: Arc<Seat>, inbox: Arc<Inbox<A>>) -> Self {
        Self { seat, inbox }
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &ChildId {
        &self.seat.spec.id
    }

    /// The way from the root, such as `root/swarms/review/coder-1`.
    #[must_use]
    pub fn path(&self) -> &Arc<str> {
        &self.seat.path
    }

    /// Which start of the child this is, counted from 1.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.seat.incarnation
    }

    /// Whether what this incarnation stands for lives already and has to be taken over, not made. It is made even when a stop has come before it,
    /// and is stopped then like any other.
    #[must_use]
    pub fn adopted(&self) -> bool {
        self.seat.cause == Cause::Adopted
    }

    /// Whether the supervisor restarted the child by itself, after an exit or a delay, and counts it: nobody asked for it, and it does not
    /// replace one that was [lost](ExitReason::Lost).
    #[must_use]
    pub fn automatic(&self) -> bool {
        self.seat.cause == Cause::Automatic
    }

    /// Says that the incarnation is ready. Needed with [`Ready::Signalled`], harmless otherwise and when said twice.
    pub fn ready(&self) {
        if self.seat.spec.ready == Ready::Signalled {
            self.seat.say_ready(Spot::Anywhere);
        }
    }

    /// Ends the incarnation with [`ExitReason::Error`], without the cost of a panic. The hooks run as after
    /// `ctx.stop()`. The first reason counts. (`ctx.stop()` alone is a normal exit.)
    pub fn fail(&self, context: &mut impl ActorContext, reason: impl Into<Arc<str>>) {
        self.seat.say_failed(ExitReason::Error(reason.into()));
        context.stop();
    }

    /// Ends the incarnation with [`ExitReason::Lost`]: what it lived on is gone, and the restart that may follow is not debited to it. The
    /// hooks run as after `ctx.stop()`. The first reason counts, be it of a loss or of a failure.
    pub fn lose(&self, context: &mut impl ActorContext, reason: impl Into<Arc<str>>) {
        self.seat.say_failed(ExitReason::Lost(reason.into()));
        context.stop();
    }

    /// The handle that everyone else has, too: for messages to itself that survive a crash.
    #[must_use]
    pub fn self_ref(&self) -> ChildRef<A> {
        ChildRef::new(Arc::clone(&self.inbox))
    }

    /// The names of the tree.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.seat.env.registry
    }

    /// Runs a future beside the actor, on the calling thread, which has to be that of an arbiter: until it is done, or until the incarnation
    /// ends, whatever ends it. It is aborted then, and dropped at its thread's next turn.
    /// (What is given to `actix::spawn` or `tokio::spawn` outlives the incarnation.)
    ///
    /// A panic in it is caught, logged and counted ([`TreeStats::task_panics`](crate::TreeStats::task_panics)), and ends nothing but the
    /// future; [`spawn_linked`](Self::spawn_linked) is for futures that the actor can't do without.
    ///
    /// # Errors
    /// When [`TASKS_MAX`](crate::TASKS_MAX) tasks of the incarnation run already, and when it has ended.
    pub fn spawn_task(&self, future: impl Future<Output = ()> + 'static) -> Result<(), TaskError> {
        self.seat.env.tasks.spawn(&self.seat, Tie::Loose, future)
    }

    /// As [`spawn_task`](Self::spawn_task), and a panic in it ends the incarnation, too: with [`ExitReason::Panic`], with the hooks as after
    /// `ctx.stop()`.
    ///
    /// # Errors
    /// As [`spawn_task`](Self::spawn_task).
    pub fn spawn_linked(&self, future: impl Future<Output = ()> + 'static) -> Result<(), TaskError> {
        self.seat.env.tasks.spawn(&self.seat, Tie::Linked, future)
    }

    pub(crate) fn env(&self) -> &Arc<Env> {
        &self.seat.env
    }

    pub(crate) fn seat(&self) -> &Seat {
        &self.seat
    }
}

impl<A: Actor<Context = Context<A>>> Clone for ChildCtx<A> {
    fn clone(&self) -> Self {
        Self { seat: Arc::clone(&self.seat), inbox: Arc::clone(&self.inbox) }
    }
}

impl<A: Actor<Context = Context<A>>> fmt::Debug for ChildCtx<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildCtx").field("path", self.path()).field("incarnation", &self.incarnation()).finish()
    }
}
