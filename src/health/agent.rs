//! One agent's health, pure: facts go in, the document follows.
//!
//! Here is what supervision and the runtime tell of it; `heard` takes what it says itself and what is measured of it, `verdict` derives its state
//! and the reasons for it.

mod heard;
mod verdict;

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use hivekeeper_actors::{EventKind, SupervisionEvent};

use heard::Live;
pub(super) use heard::Part;

use super::{
    flap::Flap,
    report::{AgentSeed, Now, Standing},
};
use crate::model::{AgentHealth, AgentId, AgentSpec, Desired, ExitRecord, Observation};

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

#[derive(Debug, Clone)]
pub(super) struct Agent {
    /// What was derived, as of now, and what was measured, as of when it was [brought up to date](Agent::show).
    pub(super) doc: Arc<AgentHealth>,
    live: Live,
    flap: Flap,
    pub(super) spec: Arc<AgentSpec>,
    period: Duration,
    phase: Phase,
    /// How the last end is told, for the reasons.
    ending: Option<Arc<str>>,
    /// Whose failure has taken it along, and how that one ended.
    account: Option<Arc<str>>,
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
            desired,
            incarnation: seed.incarnation,
            restarts: seed.restarts,
            restarts_in_window: u32::try_from(window.len()).unwrap_or(u32::MAX),
            retry_at,
            last_exit: seed.last_exit.clone(),
            ..AgentHealth::unknown(id, now.wall)
        };
        let mut agent = Self {
            live: Live::new(seed.spent.clone()),
            flap: Flap::default(),
            doc: Arc::new(doc),
            spec,
            period,
            phase,
            ending: seed.last_exit.as_deref().map(|exit| exit.describe().into()),
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
        // What it has used was used, whoever counted it.
        agent.show();
        agent
    }

    /// The document has changed under the agent; what it measures stays.
    pub(super) fn redeclare(&mut self, spec: Arc<AgentSpec>, period: Duration) {
        (self.spec, self.period) = (spec, period);
    }

    /// Its supervisor is another one and leaves it where it stands; what is to be started will be heard of.
    pub(super) fn settle(&mut self, standing: Standing) {
        let (phase, retry_at) = phase_of(standing);
        if phase != Phase::Pending {
            self.phase = phase;
            self.end();
            if self.doc.retry_at != retry_at {
                Arc::make_mut(&mut self.doc).retry_at = retry_at;
            }
        }
    }

    pub(super) fn desire(&mut self, desired: Desired) {
        if self.doc.desired != desired {
            Arc::make_mut(&mut self.doc).desired = desired;
        }
    }

    pub(super) fn supervision(&mut self, event: &SupervisionEvent, now: Now) {
        if event.incarnation < self.doc.incarnation {
            return;
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
                self.ending = Some(recorded.map_or_else(|| reason.to_string(), ExitRecord::describe).into());
                retry_at = self.doc.retry_at;
            }
            EventKind::BackingOff { delay, .. } => {
                self.phase = Phase::BackingOff;
                retry_at = now.wall.checked_add(*delay);
            }
            EventKind::Failed { reason, retry_in } => {
                self.phase = Phase::Failed;
                self.ending.get_or_insert_with(|| reason.to_string().into());
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
    }

    /// What the runtime saw, save readings and output, which come as a [`Burst`].
    pub(super) fn runtime(&mut self, incarnation: u64, event: &Observation, now: Now) {
        if let Observation::Exited(record) = event {
            // An end is history and stays true, even when it is told late.
            let known = self.doc.last_exit.as_deref().map_or(0, |exit| exit.incarnation);
            if record.incarnation >= known && self.doc.last_exit.as_ref() != Some(record) {
                Arc::make_mut(&mut self.doc).last_exit = Some(Arc::clone(record));
            }
        }
        if incarnation < self.doc.incarnation {
            return;
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
                self.ending = Some(record.describe().into());
            }
            Observation::Unreachable if !self.ended => self.unreachable = true,
            _ => {}
        }
    }

    /// Nobody was listening for so long: the clocks of silence start later by as much.
    pub(super) fn shift(&mut self, by: Duration, now: Now) {
        let later = |then: Instant| then.checked_add(by).map_or(now.mono, |shifted| shifted.min(now.mono));
        self.flap.shift(by, now.mono);
        self.live.forget_beat();
        self.heard = later(self.heard);
        self.moved = later(self.moved);
        self.sampled = later(self.sampled);
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
        // Another program: what the last one did is held against it no more.
        self.flap = Flap::default();
        self.live.begin();
        let doc = Arc::make_mut(&mut self.doc);
        doc.incarnation = incarnation;
        doc.pid = None;
    }

    fn end(&mut self) {
        self.ended = true;
        self.waits = None;
        self.session = false;
        self.paused = None;
        self.unreachable = false;
        self.live.end();
        if self.doc.pid.is_some() {
            Arc::make_mut(&mut self.doc).pid = None;
        }
    }

    fn reached(&mut self, now: Now) {
        if std::mem::take(&mut self.unreachable) {
            // What it did meanwhile could not be heard.
            (self.heard, self.moved) = (now.mono, now.mono);
            self.live.forget_beat();
        }
    }

    fn count_restarts(&mut self, event: &SupervisionEvent, now: Now) {
        if self.doc.restarts != event.restarts {
            Arc::make_mut(&mut self.doc).restarts = event.restarts;
        }
        self.count_in_window(event.restarts_in_window, now);
    }

    /// Whether nothing of it runs.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// How its last incarnation ended, for people.
    pub(super) fn ending(&self) -> Option<&str> {
        self.ending.as_deref()
    }

    /// The failure of another has taken it along.
    pub(super) fn take_along(&mut self, account: Arc<str>) {
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
