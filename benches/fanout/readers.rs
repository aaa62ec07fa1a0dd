//! The viewers: one thread reads them all, so that both servers have the same readers.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, bail};
use tokio::{
    runtime::Builder,
    sync::oneshot,
    task::{JoinSet, LocalSet},
};

use crate::{crowd, support::clock};

/// All handshakes.
const CONNECT_WAIT: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Tally {
    connected: AtomicUsize,
    frames: AtomicU64,
    /// Frames that named another one before them than the one that was.
    broken: AtomicU64,
    cpu_ns: AtomicU64,
}

/// Viewers that are connected and read. Dropping them ends them.
pub(crate) struct Readers {
    tally: Arc<Tally>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Readers {
    pub(crate) fn connect(address: SocketAddr, count: usize) -> anyhow::Result<Self> {
        let tally = Arc::new(Tally::default());
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn({
            let tally = Arc::clone(&tally);
            move || read_all(address, count, &tally, stopped)
        });
        let readers = Self { tally, stop: Some(stop), thread: Some(thread) };
        let deadline = clock::now() + CONNECT_WAIT;
        while readers.tally.connected.load(Ordering::Relaxed) < count {
            if clock::now() > deadline {
                bail!("{} of {count} viewers connected", readers.tally.connected.load(Ordering::Relaxed));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(readers)
    }

    /// Frames that all have got together.
    pub(crate) fn frames(&self) -> u64 {
        self.tally.frames.load(Ordering::Relaxed)
    }

    /// Frames that did not follow on the one before.
    pub(crate) fn broken(&self) -> u64 {
        self.tally.broken.load(Ordering::Relaxed)
    }

    /// CPU time of the thread that reads, as of its last look.
    pub(crate) fn cpu(&self) -> Duration {
        Duration::from_nanos(self.tally.cpu_ns.load(Ordering::Relaxed))
    }

    /// Waits until so many frames have come.
    pub(crate) fn until(&self, frames: u64, within: Duration) -> anyhow::Result<()> {
        let deadline = clock::now() + within;
        while self.frames() < frames {
            if clock::now() > deadline {
                bail!("{} of {frames} frames came", self.frames());
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        Ok(())
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of it has been printed.
            let _ = thread.join();
        }
    }
}

fn read_all(address: SocketAddr, count: usize, tally: &Arc<Tally>, stopped: oneshot::Receiver<()>) {
    let Ok(runtime) = Builder::new_current_thread().enable_all().build().context("no runtime") else { return };
    LocalSet::new().block_on(&runtime, async {
        let mut viewers = JoinSet::new();
        for _ in 0..count {
            let open = match crowd::open(address, "/ws/hybrid-health", None).await {
                Ok(open) => open,
                Err(error) => {
                    eprintln!("a viewer was not let in: {error}");
                    return;
                }
            };
            tally.connected.fetch_add(1, Ordering::Relaxed);
            let tally = Arc::clone(tally);
            let mut last = None;
            viewers.spawn_local(open.read(move |message| {
                let numbers = crowd::numbers(message);
                if let (Some(last), Some((_, prev))) = (last, numbers)
                    && last != prev
                {
                    tally.broken.fetch_add(1, Ordering::Relaxed);
                }
                last = numbers.map(|(seq, _)| seq).or(last);
                tally.frames.fetch_add(1, Ordering::Relaxed);
            }));
        }
        let mut look = tokio::time::interval(Duration::from_millis(1));
        let mut stopped = stopped;
        loop {
            tokio::select! {
                _ = &mut stopped => break,
                _ = look.tick() => tally.cpu_ns.store(cpu(libc::CLOCK_THREAD_CPUTIME_ID), Ordering::Relaxed),
            }
        }
    });
}

/// CPU time by this clock, ns.
pub(crate) fn cpu(which: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes into `time`, which outlives it.
    unsafe { libc::clock_gettime(which, &raw mut time) };
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}
