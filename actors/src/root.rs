//! The root of a tree: owns the threads, the first supervisor and the end of it all.

use std::sync::Arc;

use tokio::sync::watch;

use crate::cell::{Leash, Seat, Watcher};
use crate::child::{Blueprint, Child};
use crate::dead_letters::DeadLetters;
use crate::event::EventSink;
use crate::exit::ExitReason;
use crate::flags::SupervisorFlags;
use crate::log;
use crate::panics;
use crate::pool::{Env, Pool};
use crate::spec::{ChildSpec, SpecError};
use crate::supervisor_ref::SupervisorRef;
use crate::tree::{Cause, Key};

/// The name of the first supervisor, with which every path begins.
const ROOT: &str = "root";

/// Why a tree was not started.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum StartError {
    /// A child, anywhere below, is not valid.
    #[error("a child is not valid")]
    Invalid(#[source] SpecError),
    /// No actix system is running here, or the machine refused a thread.
    #[error("no threads for the children (outside an actix system?)")]
    Threads,
}

/// Threads that did not end: handlers block them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{threads} threads of the children did not end")]
pub struct ShutdownError {
    /// How many.
    pub threads: usize,
}

/// A running tree. Dropping it stops the tree in the background; [`Root::shutdown`] waits for the end.
pub struct Root {
    leash: Leash,
    supervisor: SupervisorRef,
    life: watch::Receiver<Life>,
}

#[derive(Clone, Default)]
struct Life {
    started: bool,
    ended: Option<ExitReason>,
}

impl Root {
    /// Starts a tree inside the running actix system: its supervisors on the calling thread, its children on a few threads of their
    /// own unless their [`Placement`](crate::Placement) says otherwise. Wraps the panic hook of the process, so that panics of children are events and not noise.
    ///
    /// # Errors
    /// When a specification, anywhere below, is not valid, and when there are no threads to be had; nothing is started then.
    pub fn start(flags: SupervisorFlags, children: Vec<Child>, sink: Arc<dyn EventSink>) -> Result<Self, StartError> {
        let (child, supervisor) = Child::supervisor(ChildSpec::new(ROOT), flags, children);
        child.validate().map_err(StartError::Invalid)?;
        panics::install_hook();
        let pool = Pool::new().ok_or(StartError::Threads)?;
        let env = Arc::new(Env { pool, sink, dead_letters: DeadLetters::default() });
        let (sender, life) = watch::channel(Life::default());
        let watcher = Arc::new(RootWatcher { life: sender, supervisor: Arc::clone(&child.blueprint) });
        let seat =
            Arc::new(Seat::new(Key::ROOT, (1, Cause::Asked), (Arc::clone(&child.spec), ROOT.into()), watcher, env));
        let leash = Leash(Arc::clone(&seat));
        child.blueprint.launch(seat);
        Ok(Self { leash, supervisor, life })
    }

    /// The first supervisor.
    #[must_use]
    pub fn supervisor(&self) -> SupervisorRef {
        self.supervisor.clone()
    }

    /// The messages of this tree that were taken and will never be handled.
    #[must_use]
    pub fn dead_letters(&self) -> DeadLetters {
        self.leash.0.env.dead_letters.clone()
    }

    /// Resolves when every child that the tree was started with has started or failed to, or when the tree has ended before.
    pub async fn started(&self) {
        // The sender lives as long as the seat, which this root holds: the wait can't fail.
        let _ = self.life.clone().wait_for(|life| life.started || life.ended.is_some()).await;
    }

    /// Resolves when the first supervisor has ended: after [`Root::shutdown`], or because it gave up.
    pub async fn done(&self) -> ExitReason {
        let mut life = self.life.clone();
        match life.wait_for(|life| life.ended.is_some()).await {
            Ok(life) => life.ended.clone().unwrap_or(ExitReason::ArbiterGone),
            Err(_) => ExitReason::ArbiterGone,
        }
    }

    /// Stops everything in reverse order, each child within its deadline, then ends the threads. May be called more than once.
    ///
    /// # Errors
    /// When a thread does not end because a handler blocks it.
    pub async fn shutdown(&self) -> Result<(), ShutdownError> {
        self.leash.stop();
        self.done().await;
        self.leash.0.env.pool.close().await.map_err(|threads| ShutdownError { threads })
    }
}

struct RootWatcher {
    life: watch::Sender<Life>,
    /// To be closed at the end, so that its handles say `Gone`.
    supervisor: Arc<dyn Blueprint>,
}

impl Watcher for RootWatcher {
    fn started(&self, _: Key, _: u64) {
        self.life.send_modify(|life| life.started = true);
    }

    fn down(&self, _: Key, _: u64, reason: ExitReason) {
        log::root(&reason);
        self.supervisor.close();
        self.life.send_modify(|life| life.ended = Some(reason));
    }

    fn supervisor(&self) -> Option<SupervisorRef> {
        None
    }
}
