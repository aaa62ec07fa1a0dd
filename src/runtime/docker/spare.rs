//! The spare: a launcher that is exec'd ahead in a swarm's container. An exec costs 70 ms of a core and a turn at the engine; a restart, and the next
//! agent of a swarm that starts in order, does not wait for it.
//!
//! It has introduced itself and has no order: no socket, no file, no agent. When its channel closes, it ends. There is at most one for each container,
//! from its first launch until nothing has been led there for a while; a launch that comes while there is none starts its own.

use std::{
    future::poll_fn,
    path::PathBuf,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{core::Core, inside, inside::Door, lodging::Lodging};
use crate::{model::LaunchId, runtime::lead::Link};

/// The pause behind the first that could not be made or died by itself; it doubles.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const FAILURE_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Between two looks whether it is still needed.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Looks in a row that find nobody led in the container before it is let go: longer than a restart takes that is due at once.
const IDLE_LOOKS: u32 = 2;
/// How long none is made behind an order to end, in which fifty have ended: an engine that starts a command while many others end has been seen to stand still for 5 to 18 s.
const HUSH: Duration = Duration::from_millis(300);
/// How long an order to end waits for the one in the making: far longer than a start takes.
const HUSH_WAIT: Duration = Duration::from_secs(1);
/// How long one may be reserved: longer than the journal may take to answer. Whoever is slower finds it gone and starts another.
const RESERVED_MAX: Duration = Duration::from_secs(60);

/// A launcher without an order.
pub(super) struct Spare {
    pub(super) door: Door,
    pub(super) link: Link,
    /// Where agents work there when no document says so.
    pub(super) workdir: PathBuf,
}

/// Keeps the spare of one container, and knows whether one is wanted.
#[derive(Default)]
pub(super) struct Spares {
    state: Mutex<State>,
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    slot: Option<Slot>,
    wanted: bool,
    closed: bool,
    hushed_until: Option<Instant>,
}

struct Slot {
    launch_id: LaunchId,
    reserved_at: Option<Instant>,
    /// `None` while it is being made.
    spare: Option<Spare>,
}

enum Turn {
    Now(LaunchId),
    Later(Instant),
    Over,
}

/// Why a spare is one no more.
#[derive(Debug, PartialEq, Eq)]
enum Over {
    /// It has been taken, or this is the end.
    Used,
    /// It has ended by itself.
    Unfit,
    /// Nobody needs it.
    Idle,
    /// It was reserved and not used.
    Overdue,
}

impl Spares {
    /// Something has been launched or taken over, and may have to be launched again. The launch that took the last spare calls this when its own order is
    /// out: to wake up the keeper takes time that it has not.
    pub(super) fn want(&self) {
        self.change(|state| state.wanted = true);
    }

    /// The name of the next launch: the spare's, if there is one that nobody has reserved, or one is being made.
    pub(super) fn reserve(&self) -> LaunchId {
        let mut state = self.state.lock();
        let Some(slot) = state.slot.as_mut().filter(|slot| slot.reserved_at.is_none()) else { return LaunchId::mint() };
        slot.reserved_at = Some(Instant::now());
        slot.launch_id
    }

    /// The spare, if this is its name, as soon as it is made; `None` if there is none of that name, or it can't be made.
    pub(super) async fn take(&self, launch_id: LaunchId) -> Option<Spare> {
        self.until(|state| {
            let Some(slot) = state.slot.as_mut().filter(|slot| slot.launch_id == launch_id) else { return Some(None) };
            let spare = slot.spare.take()?;
            state.slot = None;
            Some(Some(spare))
        })
        .await
    }

    /// What was reserved is not needed.
    pub(super) fn forget(&self, launch_id: LaunchId) {
        if self.state.lock().slot.as_ref().is_some_and(|slot| slot.launch_id == launch_id) {
            self.change(|state| _ = state.slot.take_if(|slot| slot.launch_id == launch_id));
        }
    }

    /// Something in the container is about to end on our order: waits for the one in the making, and lets none be made for a while.
    pub(super) async fn hush(&self) {
        self.change(|state| state.hushed_until = Some(Instant::now() + HUSH));
        let made = self.until(|state| state.slot.as_ref().is_none_or(|slot| slot.spare.is_some()).then_some(()));
        let _ = timeout(HUSH_WAIT, made).await;
    }

    /// The container is to be another: what is in the present one is no spare.
    pub(super) fn discard(&self) {
        self.change(|state| state.slot = None);
    }

    /// Lets [`keep`] end the spare and return.
    pub(super) fn close(&self) {
        self.change(|state| (state.closed, state.slot) = (true, None));
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.state.lock());
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
        changed
    }

    async fn until<T>(&self, mut look: impl FnMut(&mut State) -> Option<T>) -> T {
        let mut changes = self.changes.subscribe();
        loop {
            changes.borrow_and_update();
            if let Some(found) = look(&mut self.state.lock()) {
                return found;
            }
            if changes.changed().await.is_err() {
                // The sender is our own.
                std::future::pending::<()>().await;
            }
        }
    }

    async fn closed(&self) {
        self.until(|state| state.closed.then_some(())).await;
    }

    /// Names the one that is to be made; `None` when that is over.
    async fn begin(&self) -> Option<LaunchId> {
        loop {
            let turn = self.until(|state| match state {
                State { closed: true, .. } => Some(Turn::Over),
                State { wanted: true, slot: None, hushed_until: Some(until), .. } if *until > Instant::now() => {
                    Some(Turn::Later(*until))
                }
                State { wanted: true, slot: None, .. } => {
                    let launch_id = LaunchId::mint();
                    state.slot = Some(Slot { launch_id, reserved_at: None, spare: None });
                    Some(Turn::Now(launch_id))
                }
                _ => None,
            });
            match turn.await {
                Turn::Over => return None,
                Turn::Now(launch_id) => return Some(launch_id),
                // Closed or not, it is no longer than a hush.
                Turn::Later(until) => sleep_until(until).await,
            }
        }
    }

    /// Puts it where it can be taken. One that has been forgotten meanwhile is let go.
    fn put(&self, launch_id: LaunchId, spare: Spare) {
        self.change(|state| {
            if let Some(slot) = state.slot.as_mut().filter(|slot| slot.launch_id == launch_id) {
                slot.spare = Some(spare);
            }
        });
    }

    /// Watches the spare until it is none. `is_idle` tells whether nobody is led in its container.
    async fn over(&self, launch_id: LaunchId, is_idle: impl Fn() -> bool) -> Over {
        let mut idle = 0;
        loop {
            let used = self.until(|state| {
                let is_it = |slot: &Slot| slot.launch_id == launch_id;
                (!state.slot.as_ref().is_some_and(is_it)).then_some(())
            });
            tokio::select! {
                biased;
                () = used => return Over::Used,
                () = poll_fn(|cx| self.poll_unfit(cx)) => return Over::Unfit,
                () = sleep(LOOK_EVERY) => {}
            }
            idle = if is_idle() { idle + 1 } else { 0 };
            if idle >= IDLE_LOOKS {
                return Over::Idle;
            }
            let reserved_at = self.state.lock().slot.as_ref().and_then(|slot| slot.reserved_at);
            if reserved_at.is_some_and(|at| at.elapsed() >= RESERVED_MAX) {
                return Over::Overdue;
            }
        }
    }

    fn poll_unfit(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self.state.lock().slot.as_mut().and_then(|slot| slot.spare.as_mut()) {
            Some(spare) => spare.link.incoming.poll_broken(cx),
            None => Poll::Pending,
        }
    }
}

/// Keeps one spare while it is wanted, until the end.
pub(super) async fn keep(core: Arc<Core>, lodging: Arc<Lodging>) {
    let spares = lodging.spares();
    let mut pause = FAILURE_PAUSE;
    while let Some(launch_id) = spares.begin().await {
        let made = tokio::select! {
            biased;
            () = spares.closed() => return,
            made = make(&core, &lodging, launch_id) => made,
        };
        let over = match made {
            Ok(spare) => {
                spares.put(launch_id, spare);
                spares.over(launch_id, || core.led_in(&lodging).is_empty()).await
            }
            Err(why) => {
                tracing::debug!(swarm = %lodging.swarm(), why, "no spare launcher");
                Over::Unfit
            }
        };
        spares.change(|state| {
            _ = state.slot.take_if(|slot| slot.launch_id == launch_id);
            state.wanted &= over != Over::Idle;
        });
        if over != Over::Unfit {
            pause = FAILURE_PAUSE;
            continue;
        }
        // What ends launchers is not to be fed with them.
        if timeout(pause, spares.closed()).await.is_ok() {
            return;
        }
        pause = (pause * 2).min(FAILURE_PAUSE_MAX);
    }
}

async fn make(core: &Core, lodging: &Lodging, launch_id: LaunchId) -> Result<Spare, String> {
    let engine = core.engine().await.map_err(|error| error.to_string())?;
    let spare = async {
        let _visit = lodging.visit(engine).await;
        let door = lodging.current(engine).await.map_err(|error| error.to_string())?;
        let door = door.ok_or("there is no container as the document wants it")?;
        let visit = inside::launcher(engine, &door, launch_id).await.map_err(|error| error.to_string())?;
        if !lodging.is_still_open(engine, &door).await.map_err(|error| error.to_string())? {
            return Err("the container was started again".to_owned());
        }
        let workdir = lodging.workdir(engine, &door).await.map_err(|error| error.to_string())?;
        Ok(Spare { door, link: visit.link, workdir })
    };
    let spare = spare.await;
    core.settle(lodging).await;
    spare
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn spare() -> (Spare, tokio::io::DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(64);
        let (read, write) = tokio::io::split(ours);
        let door = Door {
            container: "c".to_owned(),
            launcher: "l".to_owned(),
            run_dir: "r".to_owned(),
            user: None,
            started_at: None,
        };
        (Spare { door, link: Link::new(Box::new(read), Box::new(write)), workdir: PathBuf::from("/") }, theirs)
    }

    #[tokio::test]
    async fn nothing_is_made_before_it_is_wanted_and_it_has_one_taker() {
        let spares = Spares::default();
        assert!(timeout(Duration::from_millis(10), spares.begin()).await.is_err());
        spares.want();
        let id = spares.begin().await.unwrap();
        assert_eq!(spares.reserve(), id, "one in the making can be reserved");
        assert_ne!(spares.reserve(), id);
        let (made, _theirs) = spare();
        let (taken, ()) = tokio::join!(spares.take(id), async { spares.put(id, made) });
        assert!(taken.is_some());
        assert!(spares.take(id).await.is_none());
        assert_ne!(spares.begin().await.unwrap(), id, "the next is made");
    }

    #[tokio::test(start_paused = true)]
    async fn an_order_to_end_waits_for_the_one_in_the_making_and_the_next_comes_later() {
        let spares = Spares::default();
        spares.want();
        let id = spares.begin().await.unwrap();
        let (made, _theirs) = spare();
        let began = Instant::now();
        tokio::join!(spares.hush(), async {
            sleep(HUSH_WAIT / 2).await;
            spares.put(id, made);
        });
        assert_eq!(began.elapsed(), HUSH_WAIT / 2);
        spares.hush().await;
        assert_eq!(began.elapsed(), HUSH_WAIT / 2, "nothing is being made");
        spares.discard();
        spares.begin().await.unwrap();
        assert!(began.elapsed() >= HUSH);
        spares.hush().await;
        assert!(began.elapsed() <= HUSH + HUSH_WAIT * 2, "it is not waited for without end");
    }

    #[tokio::test]
    async fn whoever_waits_for_one_that_can_not_be_made_is_told() {
        let spares = Spares::default();
        spares.want();
        let id = spares.begin().await.unwrap();
        let (taken, ()) = tokio::join!(spares.take(id), async { spares.forget(id) });
        assert!(taken.is_none());
        let (made, _theirs) = spare();
        spares.put(id, made);
        assert!(spares.take(id).await.is_none(), "it is none any more");
        spares.close();
        assert_eq!(spares.begin().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_ends_or_that_nobody_needs_is_none() {
        let spares = Spares::default();
        spares.want();
        for (idle, expected) in [(false, Over::Unfit), (true, Over::Idle)] {
            let id = spares.begin().await.unwrap();
            let (made, theirs) = spare();
            spares.put(id, made);
            let _theirs = idle.then_some(theirs);
            assert_eq!(spares.over(id, || idle).await, expected);
            spares.discard();
        }
        let id = spares.begin().await.unwrap();
        let (made, _theirs) = spare();
        spares.put(id, made);
        assert_eq!(spares.reserve(), id);
        assert_eq!(spares.over(id, || false).await, Over::Overdue);
    }
}
