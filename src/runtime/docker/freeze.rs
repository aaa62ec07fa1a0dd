//! The engine's freezer, laid over what the launchers have stopped already: while every agent of a container is at rest, the container is frozen
//! whole, launchers included. Whoever has to go in thaws it first; the agents stay stopped meanwhile, so none runs a moment by mistake.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::Mutex;

use super::engine::{ContainerError, Engine};
use crate::model::LaunchId;

/// Of one container of ours.
#[derive(Default)]
pub(super) struct Freeze {
    state: Mutex<State>,
    visitors: Arc<AtomicUsize>,
}

#[derive(Default)]
struct State {
    at_rest: HashSet<LaunchId>,
    /// The container that we froze.
    frozen: Option<String>,
}

/// While it is held, the container is not frozen.
pub(super) struct Visitor(Arc<AtomicUsize>);

impl Drop for Visitor {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Freeze {
    /// Somebody goes in.
    pub(super) async fn visit(&self, engine: &Engine) -> Visitor {
        let mut state = self.state.lock().await;
        self.visitors.fetch_add(1, Ordering::AcqRel);
        let visitor = Visitor(Arc::clone(&self.visitors));
        state.thaw(engine).await;
        visitor
    }

    /// An agent has been stopped, and is to stay so.
    pub(super) async fn lay_down(&self, launch_id: LaunchId) {
        self.state.lock().await.at_rest.insert(launch_id);
    }

    /// It is not to stay so. Returns whether that is news.
    pub(super) async fn rouse(&self, launch_id: LaunchId) -> bool {
        self.state.lock().await.at_rest.remove(&launch_id)
    }

    /// Freezes the container if all of `led` are at rest and nobody is inside; else thaws it. What the engine does not do now is logged: the agents are
    /// stopped either way, and an order that needs them awake goes another way when it is overdue.
    ///
    /// `led` is asked when its turn has come: whoever waits for somebody else's turn must not undo it by what was true before.
    pub(super) async fn settle(&self, engine: &Engine, container: Option<&str>, led: impl Fn() -> HashSet<LaunchId>) {
        let mut state = self.state.lock().await;
        let led = led();
        if led.is_empty() || !led.is_subset(&state.at_rest) {
            return state.thaw(engine).await;
        }
        let Some(container) = container else { return };
        if self.visitors.load(Ordering::Acquire) > 0 || state.frozen.as_deref() == Some(container) {
            return;
        }
        // Before it is done: whoever drops this half-way leaves a container behind that is thawed once too often, not once too seldom.
        state.frozen = Some(container.to_owned());
        if let Err(error) = engine.pause(container).await {
            state.frozen = None;
            if !matches!(error, ContainerError::Missing) {
                tracing::warn!(container, %error, "a container whose agents are all paused was not frozen");
            }
        }
    }
}

impl State {
    async fn thaw(&mut self, engine: &Engine) {
        let Some(container) = &self.frozen else { return };
        match engine.unpause(container).await {
            // Somebody else has thawed it, or ended it.
            Ok(()) | Err(ContainerError::Missing | ContainerError::WrongState(_)) => self.frozen = None,
            Err(error) => tracing::warn!(container, %error, "a frozen container was not thawed"),
        }
    }
}
