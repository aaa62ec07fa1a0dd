//! The root of a tree: owns the threads, the first supervisor and the end of it all.

use std::sync::Arc;

use tokio::sync::watch;

use crate::cell::{Leash, Seat, Spot, Watcher};
use crate::child::{Blueprint, Child};
use crate::dead_letters::DeadLetters;
use crate::event::EventSink;
use crate::exit::ExitReason;
use crate::flags::SupervisorFlags;
use crate::log;
use crate::panics;
use crate::pool::{Duty, Env};
use crate::registry::Registry;
use crate::settings::{Settings, TreeStats};
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
///
/// # The end of a program
///
/// `System::stop` drops everything at once and in no order. So a program ends from the outside in: first whatever brings work in, such as an
/// HTTP server (with its own signal handlers disabled), then the tree, in reverse order and within its deadlines, then the system:
/// [`Root::shutdown_system`] does the last two.
///
/// # When the first supervisor ends
///
/// The first supervisor has nobody above it. When it gives up, or is shut down by its own children, the tree has ended in order and
/// [`Root::done`] says why. When it panics, which would be a bug of this crate, it is not made again, because what was added to it while it
/// ran could not be: every child is stopped within its own deadline, as after the death of any supervisor, and [`Root::done`] says
/// [`ExitReason::Panic`] at once.
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
    /// own unless their [`Placement`](crate::Placement) says otherwise. Wraps the panic hook of the process, so that panics of children are
    /// events and not noise.
    ///
    /// # Errors
    /// When a specification, anywhere below, is not valid, and when there are no threads to be had; nothing is started then.
    pub fn start(flags: SupervisorFlags, children: Vec<Child>, sink: Arc<dyn EventSink>) -> Result<Self, StartError> {
        Self::start_with(Settings::default(), flags, children, sink)
    }

    /// As [`Root::start`], with settings other than the default.
    ///
    /// # Errors
    /// As [`Root::start`].
    pub fn start_with(
        settings: Settings,
        flags: SupervisorFlags,
        children: Vec<Child>,
        sink: Arc<dyn EventSink>,
    ) -> Result<Self, StartError> {
        let (child, supervisor) = Child::supervisor(ChildSpec::new(ROOT), flags, children);
        child.validate().map_err(StartError::Invalid)?;
        panics::install_hook();
        let env = Env::new(&settings, supervisor.clone(), sink).map_err(|error| {
            tracing::error!(%error, "no threads for the children");
            StartError::Threads
        })?;
        let (sender, life) = watch::channel(Life::default());
        let watcher = Arc::new(RootWatcher { life: sender, supervisor: Arc::clone(&child.blueprint) });
        let seat = Arc::new(Seat::new(
            Key::ROOT,
            (1, Cause::Asked),
            (child.spec.clone(), ROOT.into()),
            watcher,
            Arc::new(env),
        ));
        let leash = Leash(Arc::clone(&seat));
        child.blueprint.launch(seat, Spot::Turn, None);
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

    /// The names of the children that have one.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.env().registry
    }

    /// The threads and tasks of the tree.
    #[must_use]
    pub fn stats(&self) -> TreeStats {
        let Env { pool, tasks, .. } = &**self.env();
        TreeStats {
            threads: pool.count(Duty::Pool),
            dedicated: pool.count(Duty::Dedicated),
            leaked: pool.count(Duty::Leaked),
            fenced: pool.fenced(),
            stalls: pool.stalls(),
            task_panics: tasks.panics(),
        }
    }

    /// Resolves when every child that the tree was started with has started or failed to.
    ///
    /// # Errors
    /// How the first supervisor ended, when it did before.
    pub async fn started(&self) -> Result<(), ExitReason> {
        match self.life.clone().wait_for(|life| life.started || life.ended.is_some()).await {
            Ok(life) if life.started => Ok(()),
            Ok(life) => Err(life.ended.clone().unwrap_or(ExitReason::ArbiterGone)),
            Err(_) => Err(ExitReason::ArbiterGone),
        }
    }

    /// Resolves when the first supervisor has ended: after [`Root::shutdown`], or because it gave up.
    pub async fn done(&self) -> ExitReason {
        let mut life = self.life.clone();
        match life.wait_for(|life| life.ended.is_some()).await {
            Ok(life) => life.ended.clone().unwrap_or(ExitReason::ArbiterGone),
            Err(_) => ExitReason::ArbiterGone,
        }
    }

    /// Stops everything in reverse order, each child within its deadline, then ends the threads: those of children that are out of use, too,
    /// if they come back within five seconds. May be called more than once, and says the same each time.
    ///
    /// It takes as long as the deadlines of the children allow, ten seconds more for each that is blocked, and five for the threads. When the
    /// first supervisor panicked before, the children get up to thirty seconds for their deadlines.
    ///
    /// # Errors
    /// When a thread does not end because a handler blocks it. It is left to itself, and ends with the process.
    pub async fn shutdown(&self) -> Result<(), ShutdownError> {
        self.leash.stop();
        self.done().await;
        self.env().orphans_ended().await;
        self.env().pool.close().await.map_err(|threads| ShutdownError { threads })
    }

    /// [Stops the tree](Root::shutdown), then the actix system that the caller runs in, whether or not every thread ended.
    ///
    /// # Errors
    /// As [`Root::shutdown`]; the system stops all the same.
    pub async fn shutdown_system(&self) -> Result<(), ShutdownError> {
        let ended = self.shutdown().await;
        if let Some(system) = actix_rt::System::try_current() {
            system.stop();
        }
        ended
    }

    fn env(&self) -> &Arc<Env> {
        &self.leash.0.env
    }
}

struct RootWatcher {
    life: watch::Sender<Life>,
    /// To be closed at the end, so that its handles say `Gone`.
    supervisor: Arc<dyn Blueprint>,
}

impl Watcher for RootWatcher {
    fn started(&self, _: Spot, _: Key, _: u64) {
        self.life.send_modify(|life| life.started = true);
    }

    fn down(&self, _: Spot, _: Key, _: u64, reason: ExitReason) {
        log::root(&reason);
        self.supervisor.close();
        self.life.send_modify(|life| life.ended = Some(reason));
    }

    fn supervisor(&self) -> Option<SupervisorRef> {
        None
    }
}

#[cfg(test)]
mod tests;
