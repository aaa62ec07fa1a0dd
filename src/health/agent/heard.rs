//! What an agent says of itself, and what is measured of it.
//!
//! Measured values change with every burst and are told once a second, so they are kept beside the document and put into it when it is shown: a
//! flood costs no document.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use super::Agent;
use crate::{
    health::{
        burst::{Burst, Used},
        report::Now,
    },
    model::{AgentHealth, Lost, Measured, Source, Spent, TelemetryHealth, UsageTally, health::Absent},
};

/// The measured part of a document.
#[derive(Debug, Clone)]
pub(super) struct Live {
    cpu: Measured<f64>,
    memory: Measured<u64>,
    last_heartbeat: Measured<SystemTime>,
    progress: Measured<Arc<str>>,
    heartbeat_latency_ms: Measured<u64>,
    telemetry: TelemetryHealth,
    spent: Option<Spent>,
    /// When its own last heartbeat was read, while the next one may be measured from there.
    beat: Option<Instant>,
    /// Whether the document does not show all of this yet.
    ahead: bool,
}

impl Live {
    pub(super) fn new(spent: Option<Spent>) -> Self {
        Self {
            cpu: never(),
            memory: never(),
            last_heartbeat: never(),
            progress: never(),
            heartbeat_latency_ms: never(),
            telemetry: TelemetryHealth::default(),
            beat: None,
            ahead: spent.is_some(),
            spent,
        }
    }

    /// An incarnation begins, of which nothing was observed yet. What was counted goes on.
    pub(super) fn begin(&mut self) {
        let (telemetry, spent) = (std::mem::take(&mut self.telemetry), self.spent.take());
        *self = Self { telemetry, ahead: true, ..Self::new(spent) };
    }

    /// An incarnation is over: nothing runs that could use a core or be late.
    pub(super) fn end(&mut self) {
        self.outdate_readings();
        self.outdate_latency();
    }

    pub(super) fn has_readings(&self) -> bool {
        self.cpu.value().is_some() || self.memory.value().is_some()
    }

    pub(super) fn outdate_readings(&mut self) {
        self.ahead |= make_stale(&mut self.cpu) | make_stale(&mut self.memory);
    }

    /// The next heartbeat is not there, so the last one's lateness says nothing about now.
    pub(super) fn outdate_latency(&mut self) {
        self.ahead |= make_stale(&mut self.heartbeat_latency_ms);
    }

    /// The next heartbeat can't be measured from the last one: nobody listened, or nobody had to beat, in between.
    pub(super) fn forget_beat(&mut self) {
        self.beat = None;
    }

    fn lost(&mut self, lost: Lost) {
        self.telemetry.dropped = self.telemetry.dropped.and(lost);
        self.ahead = true;
    }

    /// Totals were told. Returns whether they count: its successor's were counted already.
    fn spend(&mut self, incarnation: u64, used: &Used) -> bool {
        let mut tally = self.spent.as_ref().map_or_else(UsageTally::default, |spent| spent.tally);
        if !tally.take(incarnation, &used.reports) {
            return false;
        }
        let named = used.model.as_ref().map(|model| (Arc::clone(model), used.at));
        let known = self.spent.take().and_then(|spent| spent.model);
        self.spent = Some(Spent { tally, at: used.at, model: named.or(known) });
        self.ahead = true;
        true
    }

    /// Messages were folded of which the oldest was read at `oldest`.
    fn received(&mut self, messages: u64, oldest: Option<SystemTime>, now: Now) {
        self.telemetry.received = self.telemetry.received.saturating_add(messages);
        if let Some(oldest) = oldest {
            let waited = now.wall.duration_since(oldest).unwrap_or_default();
            self.telemetry.latency_ms = value(waited.as_secs_f64() * 1e3, now.wall, Source::Daemon);
        }
        self.ahead = true;
    }

    /// Its own heartbeat, and the one before it if that came in the same burst.
    fn beat(&mut self, at: SystemTime, before: Option<SystemTime>, interval: Duration, now: Now) {
        // On the clock that nobody sets: only between reading and folding, some milliseconds, the wall's may be.
        let read =
            |at: SystemTime| now.mono.checked_sub(now.wall.duration_since(at).unwrap_or_default()).unwrap_or(now.mono);
        if let Some(last) = before.map(read).or(self.beat) {
            let late = read(at).saturating_duration_since(last).saturating_sub(interval);
            self.heartbeat_latency_ms = value(u64::try_from(late.as_millis()).unwrap_or(u64::MAX), at, Source::Daemon);
        }
        self.beat = Some(read(at));
        self.last_heartbeat = value(at, at, Source::Agent);
        self.ahead = true;
    }

    fn put_into(&self, doc: &mut AgentHealth) {
        doc.cpu = self.cpu.clone();
        doc.memory = self.memory.clone();
        doc.last_heartbeat = self.last_heartbeat.clone();
        doc.progress = self.progress.clone();
        doc.dropped = self.telemetry.dropped.total();
        doc.usage = never();
        doc.model = never();
        if let Some(Spent { tally, at, model }) = &self.spent {
            doc.usage = value(tally.total(), *at, Source::Agent);
            if let Some((model, at)) = model {
                doc.model = value(Arc::clone(model), *at, Source::Agent);
            }
        }
        doc.heartbeat_latency_ms = self.heartbeat_latency_ms.clone();
        doc.telemetry = self.telemetry.clone();
    }
}

/// What an agent's document is made of.
#[derive(Debug)]
pub(in crate::health) struct Part {
    /// Up to date but for what is measured.
    pub(in crate::health) doc: Arc<AgentHealth>,
    /// What it does not show yet.
    live: Option<Live>,
}

impl Part {
    /// Makes the document.
    pub(in crate::health) fn made(mut self) -> Arc<AgentHealth> {
        if let Some(live) = &self.live {
            live.put_into(Arc::make_mut(&mut self.doc));
        }
        self.doc
    }
}

impl Agent {
    /// What a document with everything that is known now is made of.
    pub(in crate::health) fn part(&self) -> Part {
        Part { doc: Arc::clone(&self.doc), live: self.live.ahead.then(|| self.live.clone()) }
    }

    /// Brings the document up to date.
    pub(in crate::health) fn show(&mut self) -> &Arc<AgentHealth> {
        if std::mem::take(&mut self.live.ahead) {
            self.live.put_into(Arc::make_mut(&mut self.doc));
        }
        &self.doc
    }

    /// What it has used, if it ever said so.
    pub(in crate::health) fn spent(&self) -> Option<&Spent> {
        self.live.spent.as_ref()
    }

    /// Whether something was measured that its document does not show.
    pub(in crate::health) fn is_ahead(&self) -> bool {
        self.live.ahead
    }

    /// What the agent and its launcher said since the last turn. Returns what was lost of it.
    ///
    /// All of it was taken before it came here, and its log records are in the book. So it was received, even if it is heard behind the end; only
    /// signs of life mean nothing then.
    pub(in crate::health) fn burst(&mut self, burst: &Burst, now: Now) -> Lost {
        let mut lost = burst.lost;
        // What was used was used: an agent says it last of all.
        if let Some(used) = &burst.usage
            && !self.live.spend(burst.incarnation, used)
        {
            lost.metrics += used.messages;
        }
        if lost != Lost::default() {
            self.live.lost(lost);
        }
        if burst.messages > 0 {
            self.live.received(burst.messages, burst.oldest, now);
        }
        if burst.incarnation >= self.doc.incarnation {
            self.enter_incarnation(burst.incarnation, now);
            if !self.ended {
                self.alive(burst, now);
            }
        }
        lost
    }

    fn alive(&mut self, burst: &Burst, now: Now) {
        if let Some(open) = burst.session
            && open != self.session
        {
            self.session = open;
            // From here on somebody else's heartbeats govern, and they get their whole time.
            self.heard = now.mono;
            self.live.forget_beat();
            self.live.outdate_latency();
        }
        if let Some(at) = burst.heartbeat {
            self.hear(now);
            self.live.beat(at, burst.heartbeat_before, self.spec.heartbeat_interval(), now);
        }
        if let Some((progress, at)) = &burst.progress {
            if self.live.progress.value() != Some(progress) {
                self.moved = now.mono;
            }
            self.live.progress = value(Arc::clone(progress), *at, Source::Agent);
            self.live.ahead = true;
        }
        if burst.wrote {
            self.moved = now.mono;
        }
        if burst.wrote || burst.sample.is_some() {
            self.reached(now);
        }
        if let Some((at, cores, bytes)) = burst.sample {
            self.sampled = now.mono;
            self.live.memory = value(bytes, at, Source::Launcher);
            if let Some(cores) = cores {
                self.live.cpu = value(cores, at, Source::Launcher);
            }
            if !self.session {
                self.hear(now);
                self.live.last_heartbeat = value(at, at, Source::Launcher);
            }
            self.live.ahead = true;
        }
    }

    /// One of its own events came, which is told by itself.
    pub(in crate::health) fn said(&mut self, at: SystemTime, now: Now) {
        self.live.received(1, Some(at), now);
    }

    fn hear(&mut self, now: Now) {
        self.heard = now.mono;
        self.flap.beat(now.mono);
    }
}

/// Returns whether there was a value.
fn make_stale<T>(measured: &mut Measured<T>) -> bool {
    let had = measured.value().is_some();
    if had {
        *measured = Measured::Absent(Absent::Stale);
    }
    had
}

fn never<T>() -> Measured<T> {
    Measured::Absent(Absent::NeverObserved)
}

fn value<T>(value: T, observed_at: SystemTime, source: Source) -> Measured<T> {
    Measured::Value { value, observed_at, source }
}
