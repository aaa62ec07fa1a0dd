//! The viewers of a daemon, and what they share.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::{
    frame::Frame,
    lens::{Frames, Lens, Lenses, Tails},
    limits::StreamLimits,
    loans::{Loan, Loans},
    protocol::{Filter, Head, Performance},
    pulse::{Pulse, Verdict, Why},
    socket::{Progress, Socket},
    warden::Warden,
};
use crate::{
    events::Feed,
    health,
    model::{Epoch, Seq},
};

/// Viewers that must have gone before memory is given back: at 20 KiB each, more than a megabyte.
const GONE_MIN: usize = 64;

/// How often push latency is summed up.
const LATENCY_WINDOW: Duration = Duration::from_secs(1);

/// What became of the viewers so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Connected now.
    pub viewers: usize,
    /// Dropped because they did not read, since this daemon started.
    pub dropped_slow: u64,
    /// Dropped because nothing was heard of them, since this daemon started.
    pub dropped_silent: u64,
    /// Frames handed to sockets, since this daemon started.
    pub frames: u64,
    /// Frames whose way from the event was timed.
    pub timed: u64,
    /// What these took all together.
    pub push_time: Duration,
}

/// Why a viewer was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    Full,
    Closing,
}

/// Why a viewer is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Close {
    /// The daemon ends: 1001.
    Away,
    /// It does not answer: 1013.
    TooSlow,
}

/// What a judgement leaves to do.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aftermath {
    Nothing,
    /// Many have gone: what they used is worth giving back.
    Emptier,
}

/// What a viewer's actor is to do; the latest counts.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Order {
    pub(super) ping: u64,
    pub(super) close: Option<Close>,
}

/// How a viewer shows that it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Its peer answers pings.
    Socket,
    /// Its peer can say nothing, so its kernel's acknowledgements are looked at.
    Events,
}

/// What is known of one viewer outside its actor.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) pulse: Mutex<Pulse>,
    kind: Kind,
    orders: watch::Sender<Order>,
    socket: Socket,
}

impl Record {
    pub(super) fn orders(&self) -> watch::Receiver<Order> {
        let mut orders = self.orders.subscribe();
        // An order may have come before.
        orders.mark_changed();
        orders
    }

    fn tick(&self, now: Instant) -> (Verdict, Instant) {
        let pulse = &mut *self.pulse.lock();
        if self.kind == Kind::Events
            && let Some(Progress { acknowledged, held, heard_ago }) = self.socket.progress()
        {
            pulse.acknowledged(acknowledged, held, now.checked_sub(heard_ago).unwrap_or(now));
        }
        (pulse.tick(now), pulse.deadline())
    }
}

#[derive(Debug, Default)]
struct Registry {
    last_id: u64,
    viewers: HashMap<u64, Arc<Record>>,
    /// When each viewer is looked at next, or earlier: what its peer says puts its deadline off. Who has left is passed over.
    due: BinaryHeap<Reverse<(Instant, u64)>>,
    /// Connections that have said goodbye, and when they are ended if they are still there; all get the same while, so the first is due first.
    leaving: VecDeque<(Instant, Socket)>,
    /// Viewers that have gone since memory was last given back.
    gone: usize,
    closing: bool,
}

impl Registry {
    fn deadline(&self) -> Option<Instant> {
        let judged = self.due.peek().map(|Reverse((at, _))| *at);
        let ended = self.leaving.front().map(|(at, _)| *at);
        judged.into_iter().chain(ended).min()
    }
}

#[derive(Debug, Default)]
struct Latency {
    since: Option<Instant>,
    sum_ms: f64,
    max_ms: f64,
    count: u64,
    last: Option<(f64, f64)>,
}

/// What one viewer was told at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Told {
    pub(super) frames: u32,
    /// From the observation of each to its frame: all together, and the longest.
    pub(super) took: Duration,
    pub(super) longest: Duration,
}

struct Shared {
    limits: StreamLimits,
    feed: Feed,
    epoch: Epoch,
    health: health::Handle,
    registry: Mutex<Registry>,
    /// The warden has something to look at before its next deadline.
    wake: Notify,
    /// The last viewer has left.
    empty: Notify,
    dropped_slow: AtomicU64,
    dropped_silent: AtomicU64,
    frames: AtomicU64,
    timed: AtomicU64,
    push_micros: AtomicU64,
    tails: Mutex<Tails>,
    frames_kept: Mutex<Frames>,
    lenses: Lenses,
    loans: Arc<Loans>,
    latency: Mutex<Latency>,
}

/// A handle on the viewers; clones are the same.
#[derive(Clone)]
pub struct Hub {
    shared: Arc<Shared>,
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Hub {
    /// A hub without viewers. Viewers are judged while a [`Warden`] runs.
    pub fn new(limits: StreamLimits, feed: Feed, health: health::Handle) -> Self {
        Self {
            shared: Arc::new(Shared {
                limits,
                epoch: feed.epoch(),
                feed,
                health,
                registry: Mutex::default(),
                wake: Notify::new(),
                empty: Notify::new(),
                dropped_slow: AtomicU64::new(0),
                dropped_silent: AtomicU64::new(0),
                frames: AtomicU64::new(0),
                timed: AtomicU64::new(0),
                push_micros: AtomicU64::new(0),
                tails: Mutex::default(),
                frames_kept: Mutex::default(),
                lenses: Lenses::default(),
                loans: Loans::within(limits.unread_bytes_max),
                latency: Mutex::default(),
            }),
        }
    }

    /// The actor that judges viewers, for the factory of a supervised child. Viewers outlive it; its next incarnation finds them here.
    pub fn warden(&self) -> Warden {
        Warden::new(self.clone())
    }

    /// The count.
    pub fn stats(&self) -> Stats {
        Stats {
            viewers: self.shared.registry.lock().viewers.len(),
            dropped_slow: self.shared.dropped_slow.load(Ordering::Relaxed),
            dropped_silent: self.shared.dropped_silent.load(Ordering::Relaxed),
            frames: self.shared.frames.load(Ordering::Relaxed),
            timed: self.shared.timed.load(Ordering::Relaxed),
            push_time: Duration::from_micros(self.shared.push_micros.load(Ordering::Relaxed)),
        }
    }

    /// Closes every viewer with 1001 and lets nobody in any more. Returns when all have left, at the latest after the linger time, when what is
    /// left is reset.
    pub async fn shutdown(&self) {
        {
            let mut registry = self.shared.registry.lock();
            registry.closing = true;
            for record in registry.viewers.values() {
                record.orders.send_modify(|order| order.close = Some(Close::Away));
            }
        }
        // Longer than one linger, so that a viewer that leaves at the last moment still has its own.
        let deadline = Instant::now() + self.shared.limits.linger;
        let _in_time = tokio::time::timeout_at(deadline.into(), self.emptied()).await;
        let (viewers, leaving) = {
            let mut registry = self.shared.registry.lock();
            (std::mem::take(&mut registry.viewers), std::mem::take(&mut registry.leaving))
        };
        for record in viewers.values() {
            record.socket.reset();
        }
        // Those that left with a close frame end by themselves; giving up our descriptor is enough.
        drop(leaving);
    }

    /// Waits until there is no viewer.
    async fn emptied(&self) {
        loop {
            let mut told = std::pin::pin!(self.shared.empty.notified());
            // Before the look, so that who leaves behind it is heard of.
            told.as_mut().enable();
            if self.shared.registry.lock().viewers.is_empty() {
                return;
            }
            told.await;
        }
    }

    /// A viewer has been taken out.
    fn note_gone(&self, registry: &mut Registry) {
        registry.gone += 1;
        if registry.viewers.is_empty() {
            self.shared.empty.notify_waiters();
        }
    }

    pub(super) fn limits(&self) -> &StreamLimits {
        &self.shared.limits
    }

    pub(super) fn feed(&self) -> &Feed {
        &self.shared.feed
    }

    pub(super) fn health(&self) -> &health::Handle {
        &self.shared.health
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.shared.epoch
    }

    pub(super) fn enter(&self, kind: Kind, socket: Socket, now: Instant) -> Result<(u64, Arc<Record>), Refused> {
        let limits = self.shared.limits;
        let mut registry = self.shared.registry.lock();
        if registry.closing {
            return Err(Refused::Closing);
        }
        // Who is on its way out still holds a connection.
        if registry.viewers.len() + registry.leaving.len() >= limits.viewers_max {
            return Err(Refused::Full);
        }
        registry.last_id += 1;
        let id = registry.last_id;
        let pulse = Pulse::new(limits.ping_interval, limits.answer_within, now);
        let (due, before) = (pulse.deadline(), registry.deadline());
        let orders = watch::Sender::new(Order::default());
        let record = Arc::new(Record { pulse: Mutex::new(pulse), kind, orders, socket });
        registry.viewers.insert(id, Arc::clone(&record));
        registry.due.push(Reverse((due, id)));
        drop(registry);
        self.wake_before(before, due);
        Ok((id, record))
    }

    /// The warden sleeps until `before`; it is woken if something is due earlier.
    fn wake_before(&self, before: Option<Instant>, due: Instant) {
        if before.is_none_or(|before| due < before) {
            self.shared.wake.notify_one();
        }
    }

    /// A viewer's actor has ended. Its connection gets a while to end, too.
    pub(super) fn leave(&self, id: u64, now: Instant) {
        let mut registry = self.shared.registry.lock();
        if let Some(record) = registry.viewers.remove(&id) {
            let (due, before) = (now + self.shared.limits.linger, registry.deadline());
            registry.leaving.push_back((due, record.socket.clone()));
            self.note_gone(&mut registry);
            drop(registry);
            self.wake_before(before, due);
        }
    }

    /// Waits until a viewer is due to be judged.
    pub(super) async fn due(&self) {
        let deadline = self.shared.registry.lock().deadline();
        match deadline {
            // Both outcomes mean the same: look.
            Some(at) => drop(tokio::time::timeout_at(at.into(), self.shared.wake.notified()).await),
            None => self.shared.wake.notified().await,
        }
    }

    /// Judges the viewers that are due, and ends the connections that had their while.
    pub(super) fn judge(&self, now: Instant) -> Aftermath {
        let registry = &mut *self.shared.registry.lock();
        while let Some(Reverse((at, id))) = registry.due.peek().copied()
            && at <= now
        {
            registry.due.pop();
            let Some(record) = registry.viewers.get(&id) else { continue };
            let (verdict, due) = record.tick(now);
            match verdict {
                Verdict::Nothing => {}
                Verdict::Ping(number) => record.orders.send_modify(|order| order.ping = number),
                Verdict::Drop(why) => {
                    self.drop_viewer(registry, id, why, now);
                    continue;
                }
            }
            registry.due.push(Reverse((due, id)));
        }
        while let Some((at, _)) = registry.leaving.front()
            && *at <= now
        {
            if let Some((_, socket)) = registry.leaving.pop_front() {
                socket.close();
            }
        }
        if registry.leaving.is_empty() && registry.gone >= GONE_MIN {
            registry.gone = 0;
            return Aftermath::Emptier;
        }
        Aftermath::Nothing
    }

    fn drop_viewer(&self, registry: &mut Registry, id: u64, why: Why, now: Instant) {
        let Some(record) = registry.viewers.remove(&id) else { return };
        let counter = match why {
            Why::Slow { .. } => &self.shared.dropped_slow,
            Why::Silent => &self.shared.dropped_silent,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.note_gone(registry);
        tracing::info!(viewer = id, ?why, "viewer dropped");
        if record.kind == Kind::Events || why == (Why::Slow { stalled: true }) {
            // An event stream has no goodbye, and an actor that can't write gets none through.
            record.socket.reset();
        } else {
            record.orders.send_modify(|order| order.close = Some(Close::TooSlow));
            registry.leaving.push_back((now + self.shared.limits.linger, record.socket.clone()));
        }
    }

    /// The whole `session_update` of an event, made once for all who got the same frame before it and are sent it in the same millisecond.
    pub(super) fn shared_frame(&self, head: &Head, make: impl FnOnce() -> Frame) -> Frame {
        self.shared.frames_kept.lock().get(head, make)
    }

    /// The tail of an event's `session_update`, made once for all who get it alike.
    pub(super) fn shared_tail(&self, seq: Seq, make: impl FnOnce() -> String) -> Arc<str> {
        self.shared.tails.lock().get(seq, make)
    }

    /// Lends a long text to a viewer. Who holds the oldest of more than may lie unread is dropped.
    pub(super) fn lend(&self, viewer: u64, text: Arc<str>) -> Loan {
        let (loan, must_go) = self.shared.loans.lend(text, viewer);
        if !must_go.is_empty() {
            let now = Instant::now();
            let registry = &mut *self.shared.registry.lock();
            for id in must_go {
                self.drop_viewer(registry, id, Why::Slow { stalled: true }, now);
            }
        }
        loan
    }

    pub(super) fn lens(&self, only: Filter) -> Arc<Lens> {
        self.shared.lenses.of(only)
    }

    pub(super) fn count_frame(&self) {
        self.shared.frames.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts the frames of events, and notes how long these took.
    pub(super) fn note(&self, told: Told, now: Instant) {
        let Told { frames: count @ 1.., took, longest } = told else { return };
        self.shared.frames.fetch_add(count.into(), Ordering::Relaxed);
        self.shared.timed.fetch_add(count.into(), Ordering::Relaxed);
        self.shared.push_micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        let latency = &mut *self.shared.latency.lock();
        latency.turn(now);
        latency.since.get_or_insert(now);
        latency.sum_ms += took.as_secs_f64() * 1000.0;
        latency.max_ms = latency.max_ms.max(longest.as_secs_f64() * 1000.0);
        latency.count += u64::from(count);
    }

    pub(super) fn performance(&self, now: Instant) -> Performance {
        let Stats { viewers, dropped_slow, dropped_silent, frames, .. } = self.stats();
        let push_latency_ms = {
            let latency = &mut *self.shared.latency.lock();
            latency.turn(now);
            latency.last
        };
        Performance { viewers, frames, dropped_slow, dropped_silent, push_latency_ms }
    }
}

impl Latency {
    fn turn(&mut self, now: Instant) {
        if self.since.is_some_and(|since| now.saturating_duration_since(since) >= LATENCY_WINDOW) {
            #[expect(clippy::cast_precision_loss, reason = "a second's frames are far below 2^52")]
            let mean = self.sum_ms / self.count as f64;
            *self = Self { last: Some((mean, self.max_ms)), ..Self::default() };
        }
    }
}
