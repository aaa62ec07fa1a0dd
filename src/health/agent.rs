//! One agent's health, pure: facts go in, the document follows.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use hivekeeper_actors::{EventKind, SupervisionEvent};

use super::{
    burst::Burst,
    report::{AgentSeed, Now, Standing},
};
use crate::model::{
    AgentHealth, AgentId, AgentSpec, AgentState, Desired, ExitRecord, Measured, Observation, OnStuck, Ready, Reason,
    RestartType, Source, TelemetryHealth, health::Absent,
};

/// Readings that may be missed before a value no longer stands for now: one late and one lost are ordinary, a third is not.
const SAMPLES_MISSED_MAX: u32 = 3;

/// A value is never called stale before this, however often readings are taken: a busy machine delays a launcher by seconds.
const STALE_MIN: Duration = Duration::from_secs(10);

/// Where the supervision tree has the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Pending,
    Starting,
    Running,
    Stopping,
    Stopped,
    Completed,
    BackingOff,
    Failed,
}

/// What an input was worth.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    Yes,
    /// It told of an incarnation that is over.
    Stale,
}

#[derive(Debug, Clone)]
pub(super) struct Agent {
    pub(super) doc: Arc<AgentHealth>,
    pub(super) spec: Arc<AgentSpec>,
    period: Duration,
    phase: Phase,
    /// How the last end is told, for the reasons.
    ending: Option<String>,
    /// Whose failure has taken it along, and how that one ended.
    account: Option<String>,
    /// Whether this incarnation is over.
    ended: bool,
    /// What the start waits for.
    waits: Option<(&'static str, String)>,
    session: bool,
    paused: Option<Instant>,
    unreachable: bool,
    heard: Instant,
    moved: Instant,
    sampled: Instant,
    /// When the automatic restarts in the window were seen.
    window: VecDeque<Instant>,
}

impl Agent {
    pub(super) fn new(
        id: AgentId,
        spec: Arc<AgentSpec>,
        period: Duration,
        desired: Desired,
        seed: &AgentSeed,
        now: Now,
    ) -> Self {
        let (phase, retry_at) = phase_of(seed.standing);
        let mut window: Vec<_> = seed.recent.iter().filter_map(|age| now.mono.checked_sub(*age)).collect();
        window.sort_unstable();
        let doc = AgentHealth {
            id,
            state: AgentState::Pending,
            since: now.wall,
            reasons: Vec::new(),
            desired,
            incarnation: seed.incarnation,
            pid: None,
            restarts: seed.restarts,
            restarts_in_window: u32::try_from(window.len()).unwrap_or(u32::MAX),
            retry_at,
            last_exit: seed.last_exit.clone(),
            cpu: Measured::Absent(Absent::NeverObserved),
            memory: Measured::Absent(Absent::NeverObserved),
            last_heartbeat: Measured::Absent(Absent::NeverObserved),
            progress: Measured::Absent(Absent::NeverObserved),
            dropped: 0,
            usage: Measured::Absent(Absent::NeverObserved),
            model: Measured::Absent(Absent::NeverObserved),
            heartbeat_latency_ms: Measured::Absent(Absent::NeverObserved),
            telemetry: TelemetryHealth::default(),
        };
        let mut agent = Self {
            doc: Arc::new(doc),
            spec,
            period,
            phase,
            ending: seed.last_exit.as_deref().map(ExitRecord::describe),
            account: None,
            // What a seed tells of is over, unless it says otherwise or the runtime shows it.
            ended: seed.incarnation > 0 && !seed.lives,
            waits: None,
            session: false,
            paused: None,
            unreachable: false,
            heard: now.mono,
            moved: now.mono,
            sampled: now.mono,
            window: window.into(),
        };
        let state = agent.state(Duration::ZERO, now);
        let reasons = agent.reasons(state, Duration::ZERO, now);
        let doc = Arc::make_mut(&mut agent.doc);
        (doc.state, doc.reasons) = (state, reasons);
        agent
    }

    /// The document has changed under the agent; what it measures stays.
    pub(super) fn redeclare(&mut self, spec: Arc<AgentSpec>, period: Duration) {
        (self.spec, self.period) = (spec, period);
    }

    /// Its supervisor is another one and leaves it where it stands; what is to be started will be heard of.
    pub(super) fn settle(&mut self, standing: Standing) -> Taken {
        let (phase, retry_at) = phase_of(standing);
        if phase != Phase::Pending {
            self.phase = phase;
            self.end();
            if self.doc.retry_at != retry_at {
                Arc::make_mut(&mut self.doc).retry_at = retry_at;
            }
        }
        Taken::Yes
    }

    pub(super) fn desire(&mut self, desired: Desired) {
        if self.doc.desired != desired {
            Arc::make_mut(&mut self.doc).desired = desired;
        }
    }

    pub(super) fn supervision(&mut self, event: &SupervisionEvent, now: Now) -> Taken {
        if event.incarnation < self.doc.incarnation {
            return Taken::Stale;
        }
        self.enter_incarnation(event.incarnation, now);
        self.count_restarts(event, now);
        let mut retry_at = None;
        match &event.kind {
            EventKind::Starting { .. } => {
                self.phase = Phase::Starting;
                self.account = None;
                // The same incarnation starts once more when a new daemon adopts it.
                self.ended = false;
            }
            EventKind::Started { .. } => {
                self.phase = Phase::Running;
                (self.heard, self.moved) = (now.mono, now.mono);
            }
            EventKind::Exited { reason } => {
                self.end();
                let recorded = self.doc.last_exit.as_deref().filter(|exit| exit.incarnation == event.incarnation);
                self.ending = Some(recorded.map_or_else(|| reason.to_string(), ExitRecord::describe));
                retry_at = self.doc.retry_at;
            }
            EventKind::BackingOff { delay, .. } => {
                self.phase = Phase::BackingOff;
                retry_at = now.wall.checked_add(*delay);
            }
            EventKind::Failed { reason, retry_in } => {
                self.phase = Phase::Failed;
                self.ending.get_or_insert_with(|| reason.to_string());
                retry_at = retry_in.and_then(|wait| now.wall.checked_add(wait));
            }
            EventKind::Pending => {
                self.phase = Phase::Pending;
                self.end();
            }
            // What follows is told by itself.
            EventKind::GroupRestart { .. } | EventKind::LimitReached { .. } | EventKind::AutoShutdown => {
                retry_at = self.doc.retry_at;
            }
            EventKind::Completed => self.phase = Phase::Completed,
            EventKind::Stopping => self.phase = Phase::Stopping,
            EventKind::Stopped | EventKind::Removed => {
                self.phase = Phase::Stopped;
                self.account = None;
                self.end();
            }
        }
        if self.doc.retry_at != retry_at {
            Arc::make_mut(&mut self.doc).retry_at = retry_at;
        }
        Taken::Yes
    }

    /// What the runtime saw, save readings and output, which come as a [`Burst`].
    pub(super) fn runtime(&mut self, incarnation: u64, event: &Observation, now: Now) -> Taken {
        if let Observation::Exited(record) = event {
            // An end is history and stays true, even when it is told late.
            let known = self.doc.last_exit.as_deref().map_or(0, |exit| exit.incarnation);
            if record.incarnation >= known && self.doc.last_exit.as_ref() != Some(record) {
                Arc::make_mut(&mut self.doc).last_exit = Some(Arc::clone(record));
            }
        }
        if incarnation < self.doc.incarnation {
            return Taken::Stale;
        }
        self.enter_incarnation(incarnation, now);
        match event {
            Observation::Waiting { code, reason } => self.waits = Some((code, reason.clone())),
            Observation::Alive { pid, .. } => {
                self.ended = false;
                self.waits = None;
                self.reached(now);
                Arc::make_mut(&mut self.doc).pid = Some(*pid);
            }
            Observation::Paused(paused) if !self.ended => {
                self.reached(now);
                match (self.paused, paused) {
                    (None, true) => self.paused = Some(now.mono),
                    (Some(since), false) => {
                        self.paused = None;
                        self.shift(now.mono.saturating_duration_since(since), now);
                    }
                    _ => {}
                }
            }
            Observation::Exited(record) => {
                self.end();
                self.ending = Some(record.describe());
            }
            Observation::Unreachable if !self.ended => self.unreachable = true,
            _ => {}
        }
        Taken::Yes
    }

    /// What the agent and its launcher said since the last turn.
    pub(super) fn burst(&mut self, burst: &Burst, now: Now) -> Taken {
        if burst.dropped > 0 {
            Arc::make_mut(&mut self.doc).dropped += burst.dropped;
        }
        if burst.incarnation < self.doc.incarnation {
            return Taken::Stale;
        }
        self.enter_incarnation(burst.incarnation, now);
        if self.ended {
            return Taken::Stale;
        }
        if let Some(open) = burst.session
            && open != self.session
        {
            self.session = open;
            // From here on somebody else's heartbeats govern, and they get their whole time.
            self.heard = now.mono;
        }
        if let Some(at) = burst.heartbeat {
            self.heard = now.mono;
            Arc::make_mut(&mut self.doc).last_heartbeat = value(at, at, Source::Agent);
        }
        if let Some((progress, at)) = &burst.progress {
            if self.doc.progress.value() != Some(progress) {
                self.moved = now.mono;
            }
            Arc::make_mut(&mut self.doc).progress = value(Arc::clone(progress), *at, Source::Agent);
        }
        if burst.wrote {
            self.moved = now.mono;
        }
        if burst.wrote || burst.sample.is_some() {
            self.reached(now);
        }
        if let Some((at, cores, bytes)) = burst.sample {
            self.sampled = now.mono;
            let doc = Arc::make_mut(&mut self.doc);
            doc.memory = value(bytes, at, Source::Launcher);
            if let Some(cores) = cores {
                doc.cpu = value(cores, at, Source::Launcher);
            }
            if !self.session {
                self.heard = now.mono;
                doc.last_heartbeat = value(at, at, Source::Launcher);
            }
        }
        Taken::Yes
    }

    /// Nobody was listening for so long: the clocks of silence start later by as much.
    pub(super) fn shift(&mut self, by: Duration, now: Now) {
        let later = |then: Instant| then.checked_add(by).map_or(now.mono, |shifted| shifted.min(now.mono));
        self.heard = later(self.heard);
        self.moved = later(self.moved);
        self.sampled = later(self.sampled);
    }

    /// Derives the state, its reasons and what has become stale. Returns whether it has just become stuck and is to be restarted for it.
    pub(super) fn judge(&mut self, sample_interval: Duration, now: Now) -> bool {
        let state = self.state(sample_interval, now);
        let reasons = self.reasons(state, sample_interval, now);
        while self.window.front().is_some_and(|seen| now.mono.saturating_duration_since(*seen) >= self.period) {
            self.window.pop_front();
        }
        let in_window = u32::try_from(self.window.len()).unwrap_or(u32::MAX);
        let stale = now.mono.saturating_duration_since(self.sampled) >= stale_after(sample_interval);
        let newly_stuck = state == AgentState::Stuck && self.doc.state != AgentState::Stuck;
        let outdated = stale && (self.doc.cpu.value().is_some() || self.doc.memory.value().is_some());
        if state != self.doc.state
            || reasons != self.doc.reasons
            || in_window != self.doc.restarts_in_window
            || outdated
        {
            let doc = Arc::make_mut(&mut self.doc);
            if state != doc.state {
                (doc.state, doc.since) = (state, now.wall);
            }
            doc.reasons = reasons;
            doc.restarts_in_window = in_window;
            if outdated {
                make_stale(&mut doc.cpu);
                make_stale(&mut doc.memory);
            }
        }
        newly_stuck && self.spec.on_stuck == OnStuck::Restart
    }

    /// When time alone may next change the document. What is past was judged and is no deadline any more.
    pub(super) fn deadline(&self, sample_interval: Duration, now: Now) -> Option<Instant> {
        let after = |since: Instant, limit: Duration| since.checked_add(limit);
        let judged = self.judged();
        let overdue = judged.then(|| after(self.heard, self.heartbeat_limit(sample_interval)));
        let stuck =
            (judged && !self.spec.progress_timeout.is_zero()).then(|| after(self.moved, self.spec.progress_timeout));
        let stale = (self.doc.cpu.value().is_some() || self.doc.memory.value().is_some())
            .then(|| after(self.sampled, stale_after(sample_interval)));
        let window = self.window.front().map(|seen| after(*seen, self.period));
        [overdue, stuck, stale, window].into_iter().flatten().flatten().filter(|at| *at > now.mono).min()
    }

    fn enter_incarnation(&mut self, incarnation: u64, now: Now) {
        if incarnation <= self.doc.incarnation {
            return;
        }
        self.waits = None;
        self.session = false;
        self.paused = None;
        self.unreachable = false;
        self.ended = false;
        (self.heard, self.moved, self.sampled) = (now.mono, now.mono, now.mono);
        let doc = Arc::make_mut(&mut self.doc);
        doc.incarnation = incarnation;
        doc.pid = None;
        doc.cpu = Measured::Absent(Absent::NeverObserved);
        doc.memory = Measured::Absent(Absent::NeverObserved);
        doc.last_heartbeat = Measured::Absent(Absent::NeverObserved);
        doc.progress = Measured::Absent(Absent::NeverObserved);
    }

    fn end(&mut self) {
        self.ended = true;
        self.waits = None;
        self.session = false;
        self.paused = None;
        self.unreachable = false;
        if self.doc.pid.is_some() || self.doc.cpu.value().is_some() || self.doc.memory.value().is_some() {
            let doc = Arc::make_mut(&mut self.doc);
            doc.pid = None;
            make_stale(&mut doc.cpu);
            make_stale(&mut doc.memory);
        }
    }

    fn reached(&mut self, now: Now) {
        if std::mem::take(&mut self.unreachable) {
            // What it did meanwhile could not be heard.
            (self.heard, self.moved) = (now.mono, now.mono);
        }
    }

    fn count_restarts(&mut self, event: &SupervisionEvent, now: Now) {
        if self.doc.restarts != event.restarts {
            Arc::make_mut(&mut self.doc).restarts = event.restarts;
        }
        self.count_in_window(event.restarts_in_window, now);
    }

    /// How its last incarnation ended, for people.
    pub(super) fn ending(&self) -> Option<&str> {
        self.ending.as_deref()
    }

    /// The failure of another has taken it along.
    pub(super) fn take_along(&mut self, account: String) {
        self.account = Some(account);
    }

    /// So many automatic restarts are in its window now.
    pub(super) fn count_in_window(&mut self, count: u32, now: Now) {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        while self.window.len() > count {
            self.window.pop_front();
        }
        while self.window.len() < count {
            self.window.push_back(now.mono);
        }
    }

    /// Whether silence may be held against it.
    fn judged(&self) -> bool {
        self.phase == Phase::Running && self.paused.is_none() && !self.unreachable && !self.ended
    }

    fn heartbeat_limit(&self, sample_interval: Duration) -> Duration {
        if self.session {
            self.spec.heartbeat_timeout
        } else {
            // The launcher beats with its readings, and can't be asked to beat more often than it takes them.
            self.spec.heartbeat_timeout.max(sample_interval.saturating_mul(SAMPLES_MISSED_MAX))
        }
    }

    fn overdue(&self, sample_interval: Duration, now: Now) -> bool {
        self.judged() && now.mono.saturating_duration_since(self.heard) >= self.heartbeat_limit(sample_interval)
    }

    fn stuck(&self, now: Now) -> bool {
        let limit = self.spec.progress_timeout;
        self.judged() && !limit.is_zero() && now.mono.saturating_duration_since(self.moved) >= limit
    }

    fn state(&self, sample_interval: Duration, now: Now) -> AgentState {
        match self.phase {
            Phase::Pending => AgentState::Pending,
            // Nothing is being started yet.
            Phase::Starting if self.waits.is_some() => AgentState::Pending,
            Phase::Starting if self.paused.is_some() => AgentState::Paused,
            Phase::Starting => AgentState::Starting,
            // Its supervisor has not said yet what follows.
            Phase::Running if self.ended => AgentState::Pending,
            Phase::Running if self.unreachable => AgentState::Unknown,
            Phase::Running if self.paused.is_some() => AgentState::Paused,
            // Both may hold; what its document may restart it for is shown first.
            Phase::Running if self.stuck(now) => AgentState::Stuck,
            Phase::Running if self.overdue(sample_interval, now) => AgentState::Degraded,
            Phase::Running => AgentState::Running,
            Phase::Stopping => AgentState::Stopping,
            Phase::Stopped => AgentState::Stopped,
            Phase::Completed => AgentState::Completed,
            Phase::BackingOff => AgentState::BackingOff,
            Phase::Failed => AgentState::Failed,
        }
    }

    fn reasons(&self, state: AgentState, sample_interval: Duration, now: Now) -> Vec<Reason> {
        let ending = || self.ending.clone().unwrap_or_else(|| "how it ended is not known".to_owned());
        let account = || self.account.as_deref().map(|account| vec![reason("sibling_failed", account)]);
        let overdue = || {
            let who = if self.session { "the agent" } else { "its launcher" };
            let limit = humantime::format_duration(self.heartbeat_limit(sample_interval));
            reason("heartbeat_overdue", format!("nothing heard from {who} for {limit} or longer"))
        };
        match state {
            AgentState::Running => Vec::new(),
            AgentState::Pending => vec![match &self.waits {
                Some((code, what)) => reason(code, what.as_str()),
                None if self.phase == Phase::Running => reason("exited", ending()),
                None if self.account.is_some() => return account().unwrap_or_default(),
                None => reason("not_started", "waits for its turn"),
            }],
            AgentState::Starting => {
                let what = match self.spec.ready {
                    Ready::Process => "the report that its process lives",
                    Ready::Session => "its session",
                };
                vec![reason("no_sign_of_life", format!("waits for {what}"))]
            }
            AgentState::Degraded => vec![overdue()],
            AgentState::Stuck => {
                let limit = humantime::format_duration(self.spec.progress_timeout);
                let mut all = vec![reason("no_progress", format!("no progress for {limit} or longer"))];
                if self.overdue(sample_interval, now) {
                    all.push(overdue());
                }
                all
            }
            AgentState::Paused => vec![reason("paused_by_operator", "frozen, its clocks stand still")],
            AgentState::Unknown => vec![reason("runtime_unreachable", "its runtime can't be reached")],
            AgentState::Stopping => account().unwrap_or_else(|| vec![reason("stop_requested", "was asked to end")]),
            AgentState::Stopped if self.doc.desired == Desired::Stopped => {
                vec![reason("stopped_by_operator", "stays so until it is started")]
            }
            AgentState::Stopped => vec![reason("stopped", ending())],
            AgentState::Completed => vec![reason("exited_normally", ending())],
            AgentState::BackingOff => vec![reason("restart_delayed", ending())],
            AgentState::Failed if self.spec.restart == RestartType::Temporary => {
                vec![reason("exited_abnormally", ending())]
            }
            AgentState::Failed => account().unwrap_or_else(|| vec![reason("gave_up", ending())]),
        }
    }
}

fn phase_of(standing: Standing) -> (Phase, Option<SystemTime>) {
    match standing {
        Standing::Active => (Phase::Pending, None),
        Standing::BackingOff { retry_at } => (Phase::BackingOff, Some(retry_at)),
        Standing::Failed { retry_at } => (Phase::Failed, retry_at),
        Standing::Completed => (Phase::Completed, None),
        Standing::Stopped => (Phase::Stopped, None),
    }
}

fn stale_after(sample_interval: Duration) -> Duration {
    sample_interval.saturating_mul(SAMPLES_MISSED_MAX).max(STALE_MIN)
}

fn make_stale<T>(measured: &mut Measured<T>) {
    if measured.value().is_some() {
        *measured = Measured::Absent(Absent::Stale);
    }
}

fn value<T>(value: T, observed_at: SystemTime, source: Source) -> Measured<T> {
    Measured::Value { value, observed_at, source }
}

fn reason(code: &'static str, detail: impl Into<String>) -> Reason {
    Reason { code, detail: detail.into() }
}
