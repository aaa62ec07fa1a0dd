//! What is to be written to one launcher: orders as states that overtake and replace each other, never as a queue that could be full.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use crate::{
    runtime::AgentControl,
    wire::channel::{ToLauncher, encode},
};

/// How long a launcher may take from SIGKILL to its exit record: its own sweep takes at most 5 s, the rest is for a machine under load. Behind
/// that we sweep ourselves.
pub(super) const KILL_ANSWER: Duration = Duration::from_secs(10);

/// What is to be written, and how the launch is to end. Any number of writers, one reader: the task of the launch.
pub(super) struct Outbox {
    pending: Mutex<Pending>,
    work: Notify,
    fate: watch::Sender<Fate>,
}

#[derive(Default)]
struct Pending {
    stop: Option<Order<Duration>>,
    kill: Option<Order<()>>,
    paused: Option<Order<bool>>,
    ack: Option<Order<u64>>,
    /// Encoded frames of relayed connections; bounded, as each connection stops at its credit.
    relay: Vec<u8>,
}

/// Something that is to hold, and whether this channel's launcher has been told.
#[derive(Clone, Copy)]
struct Order<T> {
    what: T,
    told: bool,
}

impl<T: Copy> Order<T> {
    fn new(what: T) -> Option<Self> {
        Some(Self { what, told: false })
    }
}

/// How the launch is to end, as far as that is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Fate {
    /// An end was asked for, and is overdue then.
    pub(super) due: Option<Instant>,
    /// The agent is left to its lease.
    pub(super) detached: bool,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self { pending: Mutex::default(), work: Notify::new(), fate: watch::Sender::new(Fate::default()) }
    }

    /// How the launch is to end, followed.
    pub(super) fn fate(&self) -> watch::Receiver<Fate> {
        self.fate.subscribe()
    }

    /// Moves the date when the end is overdue.
    pub(super) fn due(&self, at: Instant) {
        self.fate.send_modify(|fate| fate.due = Some(at));
    }

    pub(super) fn is_detached(&self) -> bool {
        self.fate.borrow().detached
    }

    /// Whether something waits that the launcher has to be awake for.
    pub(super) fn rouses(&self) -> bool {
        let pending = self.pending.lock();
        let resumes = pending.paused.is_some_and(|order| !order.told && !order.what);
        resumes || pending.kill.is_some_and(|order| !order.told) || pending.stop.is_some_and(|order| !order.told)
    }

    /// Encodes everything that this channel has not been told.
    pub(super) fn take(&self, out: &mut Vec<u8>) {
        let mut pending = self.pending.lock();
        let pending = &mut *pending;
        untold(&mut pending.kill, out, |()| ToLauncher::Kill);
        untold(&mut pending.stop, out, |grace| ToLauncher::Stop { grace_ms: millis(grace) });
        untold(&mut pending.paused, out, |paused| if paused { ToLauncher::Pause } else { ToLauncher::Resume });
        untold(&mut pending.ack, out, |seq| ToLauncher::Ack { seq });
        out.append(&mut pending.relay);
    }

    /// Waits until there may be something to take.
    pub(super) async fn work(&self) {
        self.work.notified().await;
    }

    /// A new channel knows nothing of what the last one was told, and its relayed connections are gone.
    pub(super) fn rewind(&self) {
        let mut pending = self.pending.lock();
        let pending = &mut *pending;
        pending.relay.clear();
        retell(&mut pending.kill);
        retell(&mut pending.stop);
        retell(&mut pending.paused);
        retell(&mut pending.ack);
        self.work.notify_one();
    }

    /// The last output number that was acknowledged.
    pub(super) fn acked(&self) -> u64 {
        self.pending.lock().ack.map_or(0, |order| order.what)
    }

    /// A frame of a relayed connection.
    pub(super) fn relay(&self, frame: &ToLauncher) {
        put(frame, &mut self.pending.lock().relay);
        self.work.notify_one();
    }

    pub(super) fn stop(&self, grace: Duration) {
        let mut pending = self.pending.lock();
        if pending.stop.is_some_and(|order| order.what <= grace) {
            return;
        }
        pending.stop = Order::new(grace);
        drop(pending);
        self.expect_end(grace + KILL_ANSWER);
    }

    pub(super) fn kill(&self) {
        let mut pending = self.pending.lock();
        if pending.kill.is_some() {
            return;
        }
        pending.kill = Order::new(());
        drop(pending);
        self.expect_end(KILL_ANSWER);
    }

    fn expect_end(&self, within: Duration) {
        let at = Instant::now() + within;
        self.fate.send_modify(|fate| fate.due = Some(fate.due.map_or(at, |due| due.min(at))));
        self.work.notify_one();
    }

    pub(super) fn pause(&self, paused: bool) {
        self.pending.lock().paused = Order::new(paused);
        self.work.notify_one();
    }

    pub(super) fn ack(&self, seq: u64) {
        let mut pending = self.pending.lock();
        if pending.ack.is_none_or(|order| order.what < seq) {
            pending.ack = Order::new(seq);
            drop(pending);
            self.work.notify_one();
        }
    }

    pub(super) fn detach(&self) {
        self.fate.send_modify(|fate| fate.detached = true);
    }
}

fn untold<T: Copy>(order: &mut Option<Order<T>>, out: &mut Vec<u8>, frame: impl FnOnce(T) -> ToLauncher) {
    if let Some(order) = order.as_mut().filter(|order| !order.told) {
        order.told = true;
        put(&frame(order.what), out);
    }
}

fn retell<T>(order: &mut Option<Order<T>>) {
    if let Some(order) = order {
        order.told = false;
    }
}

/// Only a `Launch` can be too long for a frame, and that one is never sent from here.
fn put(frame: &ToLauncher, out: &mut Vec<u8>) {
    if let Err(error) = encode(frame, out) {
        tracing::error!(%error, "frame to a launcher was not sent");
    }
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The reins, as the caller holds them.
pub(super) struct Reins(pub(super) std::sync::Arc<Outbox>);

impl AgentControl for Reins {
    fn stop(&self, grace: Duration) {
        self.0.stop(grace);
    }
    fn kill(&self) {
        self.0.kill();
    }
    fn pause(&self) {
        self.0.pause(true);
    }
    fn resume(&self) {
        self.0.pause(false);
    }
    fn ack(&self, seq: u64) {
        self.0.ack(seq);
    }
    fn detach(&self) {
        self.0.detach();
    }
}

impl Drop for Reins {
    fn drop(&mut self) {
        if !self.0.is_detached() {
            self.0.kill();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
    use super::*;
    use crate::wire::channel::Decoder;

    fn taken(outbox: &Outbox) -> Vec<ToLauncher> {
        let mut bytes = Vec::new();
        outbox.take(&mut bytes);
        let mut decoder = Decoder::new();
        decoder.push(&bytes);
        std::iter::from_fn(|| decoder.next().unwrap()).collect()
    }

    #[tokio::test]
    async fn an_order_is_told_once_and_a_shorter_grace_wins() {
        let outbox = Outbox::new();
        outbox.stop(Duration::from_secs(5));
        outbox.stop(Duration::from_secs(9));
        assert_eq!(taken(&outbox), [ToLauncher::Stop { grace_ms: 5000 }]);
        outbox.stop(Duration::from_secs(5));
        assert_eq!(taken(&outbox), []);
        outbox.stop(Duration::from_secs(1));
        outbox.ack(3);
        outbox.ack(2);
        assert_eq!(taken(&outbox), [ToLauncher::Stop { grace_ms: 1000 }, ToLauncher::Ack { seq: 3 }]);
    }

    #[tokio::test]
    async fn a_kill_overtakes_and_a_new_channel_is_told_again() {
        let outbox = Outbox::new();
        outbox.pause(true);
        outbox.relay(&ToLauncher::RelayClose { conn: 1 });
        outbox.stop(Duration::ZERO);
        outbox.kill();
        let orders = [ToLauncher::Kill, ToLauncher::Stop { grace_ms: 0 }, ToLauncher::Pause];
        assert_eq!(taken(&outbox), [&orders[..], &[ToLauncher::RelayClose { conn: 1 }]].concat());
        outbox.relay(&ToLauncher::RelayClose { conn: 2 });
        outbox.rewind();
        assert_eq!(taken(&outbox), orders);
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_is_overdue_from_the_earliest_order() {
        let outbox = Outbox::new();
        assert_eq!(outbox.fate().borrow().due, None);
        outbox.stop(Duration::from_secs(60));
        assert_eq!(outbox.fate().borrow().due, Some(Instant::now() + Duration::from_secs(60) + KILL_ANSWER));
        outbox.kill();
        assert_eq!(outbox.fate().borrow().due, Some(Instant::now() + KILL_ANSWER));
    }

    #[tokio::test]
    async fn dropped_reins_kill_unless_detached() {
        let outbox = std::sync::Arc::new(Outbox::new());
        drop(Reins(outbox.clone()));
        assert_eq!(taken(&outbox), [ToLauncher::Kill]);
        let outbox = std::sync::Arc::new(Outbox::new());
        let reins = Reins(outbox.clone());
        reins.detach();
        drop(reins);
        assert_eq!(taken(&outbox), []);
    }
}
