//! What all programs of the benchmark share: where a figure is taken from and how it is told.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{LazyLock, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Between two crashes: a crash is rare, and its cost must not be hidden by caches that the one before has warmed.
pub const REST: Duration = Duration::from_millis(1);
/// After the start of all children, before memory is read: idle means idle.
pub const SETTLE: Duration = Duration::from_millis(200);
/// Asks in flight at a time, one task each.
pub const IN_FLIGHT: usize = 64;
/// Messages told in a row on one thread before the actor gets its turn.
pub const BURST: u64 = 100;

/// Children that have begun and ended, counted by themselves.
pub static BEGUN: AtomicUsize = AtomicUsize::new(0);
pub static ENDED: AtomicUsize = AtomicUsize::new(0);

static CLOCK: LazyLock<Instant> = LazyLock::new(Instant::now);
static CRASHED_AT: AtomicU64 = AtomicU64::new(0);
static BACK: OnceLock<Sender<Duration>> = OnceLock::new();

#[derive(Clone, Copy, PartialEq)]
pub enum Place {
    OneThread,
    Across,
}

impl Place {
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "l" => Some(Self::OneThread),
            "x" => Some(Self::Across),
            _ => None,
        }
    }
}

#[derive(Clone)]
pub struct Job {
    pub what: String,
    pub place: Place,
    pub count: u64,
}

/// One figure: times in us, rates a second, memory in bytes a child.
pub fn say(name: &str, value: f64) {
    println!("{name} {value:.3}");
}

/// To be called in the handler, just before the panic.
pub fn crashing() {
    CRASHED_AT.store(nanos(), Ordering::SeqCst);
}

/// To be called when the successor handles its first message. Nobody listens unless restarts are measured.
pub fn first_message() {
    if let Some(back) = BACK.get() {
        let _ = back.try_send(Duration::from_nanos(nanos() - CRASHED_AT.load(Ordering::SeqCst)));
    }
}

/// Whether incarnations send themselves a first message.
pub fn restarts_are_measured() -> bool {
    BACK.get().is_some()
}

/// Where the times from crash to first message arrive; before any child is started.
pub fn listen() -> Receiver<Duration> {
    let (sender, receiver) = channel(1);
    let _ = BACK.set(sender);
    receiver
}

pub fn say_restarts(mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent).div_ceil(100).max(1) - 1].as_secs_f64() * 1e6;
    say("restart", at(50));
    say("restart_p99", at(99));
}

pub fn say_rate(name: &str, count: u64, since: Instant) {
    say(name, count as f64 / since.elapsed().as_secs_f64());
}

pub fn say_time(name: &str, since: Instant) {
    say(name, since.elapsed().as_secs_f64() * 1e6);
}

/// Resident memory of this process, bytes.
pub fn resident() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0.0);
    pages * 4096.0
}

pub async fn until(counter: &AtomicUsize, count: u64) {
    while (counter.load(Ordering::Acquire) as u64) < count {
        tokio::task::yield_now().await;
    }
}

/// What a child keeps: a number, and the count of those that live.
pub struct Counter(pub u64);

impl Counter {
    pub fn begin() -> Self {
        BEGUN.fetch_add(1, Ordering::Release);
        Self(0)
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        ENDED.fetch_add(1, Ordering::Release);
    }
}

fn nanos() -> u64 {
    u64::try_from(CLOCK.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
