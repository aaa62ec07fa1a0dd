//! The handle on a supervisor.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use actix::Context;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::child::Child;
use crate::child_ref::ChildRef;
use crate::exit::ExitReason;
use crate::inbox::TellError;
use crate::keeper::Fence;
use crate::snapshot::{ChildState, TreeNode};
use crate::spec::{ChildId, SpecError};
use crate::supervisor::{Bench, Door, Heard, Supervisor, View, Waits};
use crate::tree::{Refusal, Request};

/// How long a supervisor may take to look at a request. It never blocks, so a longer silence means that it does not run.
const ACCEPT_WAIT: Duration = Duration::from_secs(10);

/// Why a request to a supervisor came to nothing.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SupervisorError {
    /// The supervisor has no such child.
    #[error("no such child")]
    NotFound,
    /// The supervisor has a child of that name already.
    #[error("the child is there already")]
    AlreadyPresent,
    /// The supervisor has a child of that name, and it runs.
    #[error("the child is started already")]
    AlreadyStarted,
    /// The child runs already.
    #[error("the child runs already")]
    Running,
    /// The child is being restarted, or waits for it.
    #[error("the child is being restarted")]
    Restarting,
    /// The supervisor is `simple_one_for_one`: its children have no specification of their own to come back to.
    #[error("not for children of a simple_one_for_one supervisor")]
    SimpleOneForOne,
    /// Somebody asked for something else before this was done.
    #[error("superseded by a later request")]
    Superseded,
    /// The start failed. The child is kept, and what its restart type asks for follows.
    #[error("the start failed: {reason}")]
    StartFailed {
        /// How the incarnation ended.
        reason: ExitReason,
    },
    /// The child was killed and has not ended, because its thread is blocked. It stays `stopping` until it does.
    #[error("the child does not end")]
    Unresponsive,
    /// The supervisor is stopping, has stopped, or ended before it answered.
    #[error("the supervisor is gone")]
    Gone,
    /// So many requests wait for the supervisor that there was no room for another in time.
    #[error("too many requests wait")]
    Busy,
    /// The supervisor did not look at the request in time, which it was sent; the request is void.
    #[error("the supervisor does not answer")]
    Unreachable,
    /// The factory [declined](crate::Ignore) to make the child; nothing is kept of it.
    #[error("the child was not wanted")]
    Ignored,
    /// A change gives a child of this name a factory for another type of actor; nothing is changed.
    #[error("child `{id}` is another type of actor")]
    OtherActor {
        /// The child.
        id: ChildId,
    },
    /// The child's specification, or what the supervisor is told about itself, is not valid.
    #[error("the specification is not valid")]
    Invalid(#[source] SpecError),
}

impl From<Refusal> for SupervisorError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotFound => Self::NotFound,
            Refusal::AlreadyPresent => Self::AlreadyPresent,
            Refusal::AlreadyStarted => Self::AlreadyStarted,
            Refusal::Running => Self::Running,
            Refusal::Restarting => Self::Restarting,
            Refusal::SimpleOneForOne => Self::SimpleOneForOne,
            Refusal::Superseded => Self::Superseded,
            Refusal::StartFailed(reason) => Self::StartFailed { reason },
            Refusal::Unresponsive => Self::Unresponsive,
            Refusal::Closing => Self::Gone,
            Refusal::Invalid(error) => Self::Invalid(error),
        }
    }
}

/// A handle on a supervisor, valid across its restarts. Cheap to clone.
///
/// Each call resolves when what it asks for has happened, so it takes as long as the child's start timeout and stop deadline allow. A
/// call that is dropped half-way has been asked for all the same.
///
/// What is asked on a thread of the tree (the root's, or one of the children's) is decided there and then, unless something else is being decided or
/// on its way to the supervisor: then, and from any other thread, it is a message that waits for its turn. What one caller asks is decided
/// in the order of the first polls.
#[derive(Clone, Debug)]
pub struct SupervisorRef {
    pub(crate) inner: ChildRef<Supervisor>,
    /// Where its orders are heard at once.
    pub(crate) door: Arc<Door>,
}

impl SupervisorRef {
    pub(crate) fn new(inner: ChildRef<Supervisor>) -> Self {
        Self { inner, door: Arc::default() }
    }

    /// Takes a new child and starts it as its seed says, at once and beside any other start. Resolves when it has started, or at once
    /// when the seed starts nothing.
    ///
    /// # Errors
    /// `AlreadyPresent`, `Invalid`; `StartFailed` (the child is kept and goes on as its specification says); `Superseded`.
    pub async fn add_child(&self, child: Child) -> Result<(), SupervisorError> {
        child.validate().map_err(SupervisorError::Invalid)?;
        self.request(Request::Add(Bench::admit(child))).await.map(drop)
    }

    /// Starts a child that is stopped, completed, failed or backing off, with a clean record. Resolves when it has started.
    ///
    /// # Errors
    /// `NotFound`, `Running`, `StartFailed`, `Superseded`.
    pub async fn start_existing(&self, id: &ChildId) -> Result<(), SupervisorError> {
        self.request(Request::StartExisting(id.clone())).await.map(drop)
    }

    /// Stops a child if it lives, waits until the incarnation has really ended, and starts it with a clean record: whatever state it is
    /// in, and without spending its intensity. Resolves when it has started.
    ///
    /// # Errors
    /// `NotFound`, `StartFailed`, `Unresponsive`, `Superseded`.
    pub async fn force_restart(&self, id: &ChildId) -> Result<(), SupervisorError> {
        self.request(Request::ForceRestart(id.clone())).await.map(drop)
    }

    /// Stops a child and forgets it. Resolves when it is gone.
    ///
    /// # Errors
    /// `NotFound`, `Unresponsive`.
    pub async fn remove_child(&self, id: &ChildId) -> Result<(), SupervisorError> {
        self.request(Request::Remove(id.clone())).await.map(drop)
    }

    /// Stops every child in reverse order, then starts every child in order with a clean record, those that were stopped, failed or
    /// completed, too. Resolves when each has started or failed to.
    ///
    /// # Errors
    /// `Superseded`.
    pub async fn restart_all(&self) -> Result<(), SupervisorError> {
        self.request(Request::RestartAll).await.map(drop)
    }

    /// Stops every child in reverse order, each within its deadline. What is completed stays so.
    ///
    /// # Errors
    /// `Superseded`, `Unresponsive` (the others are stopped).
    pub async fn stop_all(&self) -> Result<(), SupervisorError> {
        self.request(Request::StopAll).await.map(drop)
    }

    /// Starts in order, with a clean record, every child that is stopped, failed or backing off. Resolves when each has started or
    /// failed to. What is completed stays so.
    ///
    /// # Errors
    /// `Superseded`.
    pub async fn start_all(&self) -> Result<(), SupervisorError> {
        self.request(Request::StartAll).await.map(drop)
    }

    /// The supervisor and everything below it as data.
    ///
    /// # Errors
    /// `Gone`, `Unreachable`.
    pub async fn snapshot(&self) -> Result<TreeNode, SupervisorError> {
        let View { parent, own, children } = self.accepted(|supervisor, _| supervisor.mind().view()).await?;
        let mut node = match parent {
            None => own,
            // What its parent knows of it is the truth: restarts, last exit, state.
            Some((parent, key)) => {
                let node = parent.accepted(move |supervisor, _| supervisor.mind().node_of(key)).await?;
                told(node.ok_or(SupervisorError::Gone)?, &own)
            }
        };
        node.children = below(children).await;
        Ok(node)
    }

    /// Passes on that a thread is blocked; one that is gone or restarts later finds out at its next launches.
    pub(crate) fn fence(&self, fence: &Fence) {
        let word = fence.clone();
        if self.inner.run(move |supervisor, _| supervisor.mind().fence(&word)) == Err(TellError::Full) {
            fence.miss();
        }
    }

    /// Asks, and waits until it has happened. What is said of the child then is its incarnation, if one runs.
    pub(crate) async fn request(&self, request: Request<Bench>) -> Result<Option<u64>, SupervisorError> {
        let asked = match self.door.hear(request) {
            Heard::AtOnce(asked) => asked,
            Heard::NotNow(request) => {
                self.accepted(move |supervisor, context| supervisor.ask(context, request)).await?
            }
        };
        asked?.await.map_err(|_| SupervisorError::Gone)?.map_err(SupervisorError::from)
    }

    /// Runs `work` inside the supervisor, in its turn among the messages; when that does not come in time, it never will.
    pub(crate) async fn accepted<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Supervisor, &mut Context<Supervisor>) -> R + Send + 'static,
    ) -> Result<R, SupervisorError> {
        let (sender, receiver) = oneshot::channel();
        let waits = Waits::outside(&self.door);
        let accept = move |supervisor: &mut Supervisor, context: &mut Context<Supervisor>| {
            if !sender.is_closed() {
                let result = work(supervisor, context);
                drop(waits);
                // The caller may go at this very moment: then what it asked for happens without it.
                let _ = sender.send(result);
            }
        };
        let deadline = Instant::now() + ACCEPT_WAIT;
        self.inner.run_wait(accept, ACCEPT_WAIT).await.map_err(|error| match error {
            TellError::Full => SupervisorError::Busy,
            TellError::Stopped => SupervisorError::Gone,
        })?;
        match tokio::time::timeout_at(deadline, receiver).await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(_)) => Err(SupervisorError::Gone),
            Err(_) => Err(SupervisorError::Unreachable),
        }
    }
}

/// Adds to what its parent knows of a supervisor what only the supervisor knows.
fn told(node: TreeNode, own: &TreeNode) -> TreeNode {
    TreeNode { strategy: own.strategy, supervision: own.supervision, ..node }
}

/// Fills in what lies below the children that are supervisors; one that does not run has nothing below it.
fn below(children: Vec<(TreeNode, Option<SupervisorRef>)>) -> Pin<Box<dyn Future<Output = Vec<TreeNode>> + Send>> {
    Box::pin(async move {
        let mut nodes = Vec::with_capacity(children.len());
        for (mut node, nested) in children {
            let runs = matches!(node.state, ChildState::Starting | ChildState::Running | ChildState::Stopping);
            if let (true, Some(nested)) = (runs, nested)
                && let Ok(view) = nested.accepted(|supervisor, _| supervisor.mind().view()).await
            {
                node = told(node, &view.own);
                node.children = below(view.children).await;
            }
            nodes.push(node);
        }
        nodes
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use actix::{Actor, ActorContext, AsyncContext, Running};

    use super::*;
    use crate::event::{EventSink, SupervisionEvent};
    use crate::flags::{Strategy, SupervisorFlags};
    use crate::root::Root;
    use crate::spec::{Backoff, ChildSpec, Shutdown};

    struct Deaf;
    impl EventSink for Deaf {
        fn event(&self, _: SupervisionEvent) {}
    }

    static ALIVE: AtomicUsize = AtomicUsize::new(0);
    static ALIVE_MAX: AtomicUsize = AtomicUsize::new(0);
    static MADE: AtomicUsize = AtomicUsize::new(0);

    /// Takes its time to stop, or never does.
    struct Slow {
        stubborn: bool,
        asked: bool,
    }

    impl Actor for Slow {
        type Context = Context<Self>;

        fn stopping(&mut self, context: &mut Self::Context) -> Running {
            if self.stubborn || !std::mem::replace(&mut self.asked, true) {
                context.run_later(Duration::from_millis(30), |_, context| context.stop());
                return Running::Continue;
            }
            Running::Stop
        }
    }

    impl Drop for Slow {
        fn drop(&mut self) {
            ALIVE.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn slow(name: &str, stubborn: bool) -> (Child, ChildRef<Slow>) {
        let shutdown = Shutdown::Deadline(Duration::from_millis(200));
        Child::actor(ChildSpec { shutdown, ..ChildSpec::new(name) }, move |_| {
            MADE.fetch_add(1, Ordering::SeqCst);
            ALIVE_MAX.fetch_max(ALIVE.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            Ok(Slow { stubborn, asked: false })
        })
    }

    async fn until(what: &str, met: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !met() {
            assert!(Instant::now() < deadline, "never happened: {what}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// No child outlives its supervisor, and the next incarnation of the supervisor waits until the old children have really ended.
    #[test]
    fn a_dead_supervisor_takes_its_children_along() {
        actix_rt::System::new().block_on(async {
            let ((a, first), (b, second)) = (slow("a", false), slow("b", true));
            let backoff = Backoff { initial: Duration::ZERO, ..Backoff::default() };
            let (swarm, swarm_ref) = Child::supervisor(
                ChildSpec { backoff, ..ChildSpec::new("swarm") },
                SupervisorFlags::unlimited(Strategy::OneForOne),
                vec![a, b],
            );
            let root =
                Root::start(SupervisorFlags::unlimited(Strategy::OneForOne), vec![swarm], Arc::new(Deaf)).unwrap();
            root.started().await.unwrap();
            let (dynamic, third) = slow("dynamic", false);
            swarm_ref.add_child(dynamic).await.unwrap();
            swarm_ref.inner.run(|_, _| panic!("a bug in the supervisor")).unwrap();
            until("the static children start again", || MADE.load(Ordering::SeqCst) == 5).await;
            assert_eq!((first.incarnation(), second.incarnation()), (2, 2));
            until("the dynamic one ends", || ALIVE.load(Ordering::SeqCst) == 2).await;
            until("its inbox closes", || third.run(|_, _| ()) == Err(TellError::Stopped)).await;
            assert_eq!(ALIVE_MAX.load(Ordering::SeqCst), 3, "no id lived twice");
            let tree = root.supervisor().snapshot().await.unwrap();
            assert_eq!((tree.children[0].restarts, tree.children[0].children.len()), (1, 2));
            root.shutdown().await.unwrap();
            assert_eq!(ALIVE.load(Ordering::SeqCst), 0);
        });
    }
}
