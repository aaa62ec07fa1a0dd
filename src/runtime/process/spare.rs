//! The spare: a launcher that is started ahead, so that a restart does not wait for one.
//!
//! It has introduced itself and has no order: no socket, no file, no agent. Nobody takes it for a launch, and when this daemon dies, its channel
//! closes and it ends. There is at most one; a launch that comes while there is none starts its own.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};

use super::{launcher::Launcher, runtime::Core};
use crate::model::LaunchId;

/// Between the use of one and the start of the next, which stays out of the way of the agent that is just being started. Far less than a person
/// needs to kill two agents, and hundreds of agents that start at once are hardly delayed by one more launcher every now and then.
const REFILL_PAUSE: Duration = Duration::from_millis(50);
/// The same when one has died by itself: what kills launchers is not to be fed with them.
const DEATH_PAUSE: Duration = Duration::from_secs(1);
/// How long one may be reserved, and at most twice that: longer than the journal may take to answer. Whoever is slower finds it gone and starts
/// another.
const RESERVED_MAX: Duration = Duration::from_secs(60);

/// Keeps the spare, and knows whether one is wanted.
#[derive(Default)]
pub(super) struct Spares {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    spare: Option<Spare>,
    /// From the first agent on. A start that fails takes it back, until there is an agent again.
    wanted: bool,
    closed: bool,
}

struct Spare {
    launcher: Launcher,
    reserved_at: Option<Instant>,
}

impl Spare {
    fn overdue(&mut self) -> bool {
        self.reserved_at.is_some_and(|at| at.elapsed() >= RESERVED_MAX)
    }
}

/// Why a spare is one no more.
enum Over {
    /// It has been taken, or this is the end.
    Used,
    /// It has ended by itself.
    Unfit(Launcher),
    /// It was reserved and not used.
    Overdue(Launcher),
}

impl Spares {
    /// There is an agent, which may need to be started again.
    pub(super) fn want(&self) {
        if !std::mem::replace(&mut self.state.lock().wanted, true) {
            self.changed.notify_one();
        }
    }

    /// The name of the next launch: the spare's, if there is one that nobody has reserved.
    pub(super) fn reserve(&self) -> LaunchId {
        let mut state = self.state.lock();
        let Some(spare) = state.spare.as_mut().filter(|spare| spare.reserved_at.is_none()) else {
            return LaunchId::mint();
        };
        spare.reserved_at = Some(Instant::now());
        spare.launcher.launch_id
    }

    /// The spare, if this is its name. The next one is not started before [`Spares::replace`]: to wake up its keeper takes time that the launch
    /// which needs this one has not.
    pub(super) fn take(&self, launch_id: LaunchId) -> Option<Launcher> {
        self.take_if(|spare| spare.launcher.launch_id == launch_id)
    }

    /// Lets [`keep`] see whether the spare has been taken.
    pub(super) fn replace(&self) {
        self.changed.notify_one();
    }

    /// Lets [`keep`] end the spare and return.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_one();
    }

    fn take_if(&self, is_it: impl FnOnce(&mut Spare) -> bool) -> Option<Launcher> {
        Some(self.state.lock().spare.take_if(is_it)?.launcher)
    }

    fn put(&self, launcher: Launcher) {
        self.state.lock().spare = Some(Spare { launcher, reserved_at: None });
    }

    async fn until(&self, holds: impl Fn(&State) -> bool) {
        while !holds(&self.state.lock()) {
            self.changed.notified().await;
        }
    }

    /// Watches the spare until it is none.
    async fn over(&self) -> Over {
        loop {
            {
                let state = self.state.lock();
                if state.closed || state.spare.is_none() {
                    return Over::Used;
                }
            }
            let over = tokio::select! {
                () = self.changed.notified() => None,
                () = poll_fn(|cx| self.poll_unfit(cx)) => self.take_if(|_| true).map(Over::Unfit),
                () = sleep(RESERVED_MAX) => self.take_if(Spare::overdue).map(Over::Overdue),
            };
            // Somebody may have taken it in this very moment; the next look tells.
            if let Some(over) = over {
                return over;
            }
        }
    }

    fn poll_unfit(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.state.lock().spare {
            Some(spare) => spare.launcher.poll_unfit(cx),
            None => Poll::Pending,
        }
    }
}

/// Keeps one spare while it is wanted, until the end.
pub(super) async fn keep(core: Arc<Core>) {
    let spares = &core.spares;
    let mut pause = REFILL_PAUSE;
    loop {
        spares.until(|state| state.closed || (state.wanted && state.spare.is_none())).await;
        if timeout(pause, spares.until(|state| state.closed)).await.is_ok() {
            break;
        }
        match core.starter.start(LaunchId::mint()).await {
            Ok(launcher) => spares.put(launcher),
            Err(error) => {
                tracing::debug!(%error, "no spare launcher");
                spares.state.lock().wanted = false;
                continue;
            }
        }
        let (launcher, next_pause) = match spares.over().await {
            Over::Used => (None, REFILL_PAUSE),
            Over::Unfit(launcher) => (Some(launcher), DEATH_PAUSE),
            Over::Overdue(launcher) => (Some(launcher), REFILL_PAUSE),
        };
        if let Some(launcher) = launcher {
            launcher.end().await;
        }
        pause = next_pause;
    }
    if let Some(launcher) = spares.take_if(|_| true) {
        launcher.end().await;
    }
}
