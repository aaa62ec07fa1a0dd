//! The health of the whole hive, pure: reports and time go in, documents and changes come out.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use super::{
    agent::Agent,
    burst::Burst,
    change::{Change, Identity},
    level::{self, Planes},
    rate::{self, Rates},
    report::{Now, Report},
    source::Sources,
    unsaved::Unsaved,
};
use crate::model::{
    AgentId, ControlPlaneHealth, DataPlaneHealth, DiskHealth, HiveHealth, Level, Lost, Measured, Reason, Source,
    SwarmHealth, SwarmName, Telemetry, TelemetryKind, health::Absent,
};

/// At most one change of measured values alone is told in this time: people read no faster, and a thousand agents report every second.
pub const SAMPLES_INTERVAL: Duration = Duration::from_secs(1);

/// Agents in one change of measured values; more are told in several. A viewer's frame of so many is some 80 KiB, which it may hold while it does not
/// read, and a thousand agents are still only sixteen events a second.
pub(super) const SAMPLES_AGENTS_MAX: usize = 64;

/// By this code of the data plane a message is refused whose agent is gone: it has no document to be counted in.
pub(super) const STALE_INCARNATION: i64 = 1003;

/// A tick that comes this much later than it was due means that we were held up, not that every agent fell silent at once.
const LATE_MAX: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Swarm {
    pub(super) doc: Arc<SwarmHealth>,
    pub(super) order: Arc<[AgentId]>,
    /// Whether its agents are restarted together.
    pub(super) group: bool,
    /// Whose end was too many, when it gave up as a whole.
    pub(super) gave_up: Option<Arc<str>>,
    /// Whether its level has to be derived again.
    pub(super) dirty: bool,
    /// The document that was told last, and when.
    told: Option<(Arc<SwarmHealth>, Instant)>,
    /// Whether the present one is still to be told.
    untold: bool,
}

impl Swarm {
    pub(super) fn new(doc: SwarmHealth, order: Arc<[AgentId]>, group: bool) -> Self {
        Self { doc: Arc::new(doc), order, group, gave_up: None, dirty: true, told: None, untold: false }
    }

    /// Derives its level and the reasons for it.
    fn derive(&mut self, agents: &HashMap<AgentId, Agent>, now: Now) {
        let docs = self.order.iter().filter_map(|id| agents.get(id)).map(|agent| &*agent.doc);
        let (level, reasons) = level::of_swarm(docs, self.group.then_some(self.gave_up.as_deref()));
        let doc = Arc::make_mut(&mut self.doc);
        if level != doc.level {
            (doc.level, doc.since) = (level, now.wall);
        }
        doc.reasons = reasons;
        self.untold = self.told.as_ref().is_none_or(|(told, _)| *told != self.doc);
    }

    /// The document as it was told last: whoever follows the changes has the same as whoever asks.
    fn shown(&self) -> &Arc<SwarmHealth> {
        self.told.as_ref().map_or(&self.doc, |(told, _)| told)
    }

    /// Whether its document is to be told now. Agents that come and go by the hundred change the reasons hundreds of times a second, and each
    /// of these agents is told of by itself: reasons that sum them up are told no more often than measured values are.
    fn is_due(&self, now: Now) -> bool {
        let rests = self.told.as_ref().is_some_and(|(told, at)| {
            now.mono.saturating_duration_since(*at) < SAMPLES_INTERVAL && same_but_sums(told, &self.doc)
        });
        self.untold && !rests
    }
}

fn same_but_sums(a: &SwarmHealth, b: &SwarmHealth) -> bool {
    let gave_up = |swarm: &SwarmHealth| swarm.reasons.iter().any(|reason| reason.code == level::GAVE_UP);
    (&a.name, a.level, a.since, a.desired, &a.home, &a.agents, gave_up(a))
        == (&b.name, b.level, b.since, b.desired, &b.home, &b.agents, gave_up(b))
}

/// How the last use of something went; `None` before the first.
#[derive(Debug, Default)]
struct LastUse {
    ok: Option<bool>,
    error: Option<String>,
}

impl LastUse {
    /// What went wrong, if it did.
    fn trouble(&self) -> Option<&str> {
        (self.ok == Some(false)).then(|| self.error.as_deref().unwrap_or_default())
    }
}

/// The folded health.
#[derive(Debug)]
pub struct Fold {
    pub(super) identity: Identity,
    pub(super) agents: HashMap<AgentId, Agent>,
    pub(super) swarms: BTreeMap<SwarmName, Swarm>,
    level: Level,
    since: SystemTime,
    reasons: Vec<Reason>,
    reconciled: bool,
    runtime: LastUse,
    engine: LastUse,
    journal: LastUse,
    history: LastUse,
    notify: LastUse,
    disk: LastUse,
    disk_used: DiskHealth,
    control_plane: ControlPlaneHealth,
    data_plane: DataPlaneHealth,
    sources: Sources,
    pub(super) hive_dirty: bool,
    /// Of whom something was measured that was not told yet.
    pub(super) sampled: HashSet<AgentId>,
    /// What is to be journaled.
    pub(super) unsaved: Unsaved,
    /// Telemetry messages.
    rates: Rates,
    samples_told: Instant,
    /// No agent's document changes by time alone before this.
    pub(super) judge_at: Option<Instant>,
    /// When the next tick was asked for.
    promised: Instant,
    /// When silence was judged last, by everything that had been said.
    pub(super) judged: Instant,
    /// Nobody was silent then.
    pub(super) began: Instant,
}

impl Fold {
    /// An empty hive of which nothing is known yet.
    pub fn new(identity: Identity, now: Now) -> Self {
        let mut fold = Self {
            identity,
            agents: HashMap::new(),
            swarms: BTreeMap::new(),
            level: Level::Unknown,
            since: now.wall,
            reasons: Vec::new(),
            reconciled: false,
            runtime: LastUse::default(),
            engine: LastUse::default(),
            journal: LastUse::default(),
            history: LastUse::default(),
            notify: LastUse::default(),
            disk: LastUse::default(),
            disk_used: DiskHealth::unknown(),
            control_plane: ControlPlaneHealth { reachable: false, since: now.wall, last_error: None },
            data_plane: DataPlaneHealth::unknown(),
            sources: Sources::default(),
            hive_dirty: true,
            sampled: HashSet::new(),
            unsaved: Unsaved::default(),
            rates: Rates::new(now.mono),
            samples_told: now.mono,
            judge_at: None,
            promised: now.mono,
            judged: now.mono,
            began: now.mono,
        };
        (fold.level, fold.reasons) = level::of_hive(std::iter::empty(), fold.planes());
        fold.promised = fold.next_deadline();
        fold
    }

    /// Folds one report. Levels follow in [`Fold::tick`], once for all reports of a turn, so that a state that goes by within one turn
    /// does not make a swarm flicker.
    pub fn apply(&mut self, now: Now, report: Report) -> Vec<Change> {
        match report {
            Report::Declared { spec, desired, seeds } => self.declare(now, &spec, desired, &seeds),
            Report::Removed(name) => self.remove_swarm(&name),
            Report::Desired { target, desired } => self.desire(now, &target, desired),
            Report::Adjusted { swarm, adjustments } => {
                if let Some(swarm) = self.swarms.get_mut(&swarm)
                    && swarm.doc.home.adjustments != adjustments
                {
                    Arc::make_mut(&mut swarm.doc).home.adjustments = adjustments;
                    swarm.dirty = true;
                }
                Vec::new()
            }
            Report::Supervision { agent, event } => self.supervised(now, &agent, &event),
            Report::Settled { agent, standing } => self.with(now, &agent, |agent| agent.settle(standing)),
            Report::Runtime { agent, incarnation, event } => match Burst::of_runtime(incarnation, &event) {
                Some(burst) => self.burst(now, &agent, &burst),
                None => self.with(now, &agent, |agent| agent.runtime(incarnation, &event, now)),
            },
            Report::Telemetry(batch) => {
                let mut changes = Vec::new();
                Burst::sum_up(batch, |one| {
                    changes.extend(match one {
                        Ok((agent, burst)) => self.burst(now, &agent, &burst),
                        Err(event) => self.said(now, &event),
                    });
                });
                changes
            }
            Report::Dropped { agent, incarnation, lost } => {
                self.burst(now, &agent, &Burst::of_dropped(incarnation, lost))
            }
            Report::Refused { code, messages } => {
                self.refused(code, messages);
                Vec::new()
            }
            Report::ControlPlane { ok, error } => {
                self.runtime = LastUse { ok: Some(ok), error };
                self.control_plane_used(now);
                Vec::new()
            }
            Report::Engine { ok, error } => {
                self.engine = LastUse { ok: Some(ok), error };
                self.control_plane_used(now);
                Vec::new()
            }
            Report::Journal { ok, error } => {
                self.journal = LastUse { ok: Some(ok), error };
                self.control_plane_used(now);
                Vec::new()
            }
            Report::History { ok, error } => {
                self.history = LastUse { ok: Some(ok), error };
                self.hive_dirty = true;
                Vec::new()
            }
            Report::Notify { ok, error } => {
                self.notify = LastUse { ok: Some(ok), error };
                self.hive_dirty = true;
                Vec::new()
            }
            Report::Disk { ok, error } => {
                self.disk = LastUse { ok: Some(ok), error };
                self.hive_dirty = true;
                Vec::new()
            }
            Report::DiskUsed { found, max } => {
                let found = Measured::Value { value: found, observed_at: now.wall, source: Source::Daemon };
                self.disk_used = DiskHealth { found, max: Some(max) };
                Vec::new()
            }
            Report::DataPlane { listening, sessions, connections, turned_away } => {
                self.hive_dirty |= listening != self.data_plane.listening;
                let plane = &mut self.data_plane;
                (plane.listening, plane.sessions) = (listening, sessions);
                (plane.connections, plane.turned_away) = (connections, turned_away);
                Vec::new()
            }
            Report::Source(report) => {
                self.hive_dirty = true;
                self.sources.stands(now, report).into_iter().collect()
            }
            Report::Reconciled => {
                self.reconciled = true;
                self.hive_dirty = true;
                // A pass that ended has used the runtime, whoever reported on it.
                self.runtime.ok.get_or_insert(true);
                self.control_plane_used(now);
                Vec::new()
            }
        }
    }

    /// Folds what was seen of one agent since the last turn. Thousands of these come each second, so it changes the agent where it stands: each
    /// value of a burst stands by itself, and a document is made when one is shown.
    pub(super) fn burst(&mut self, now: Now, id: &AgentId, burst: &Burst) -> Vec<Change> {
        self.rates.count(burst.messages);
        let Some(agent) = self.agents.get_mut(id) else {
            self.lost(burst.lost);
            self.refused(STALE_INCARNATION, burst.messages - burst.dropped);
            return Vec::new();
        };
        let before = Arc::clone(&agent.doc);
        let lost = agent.burst(burst, now);
        if burst.usage.is_some()
            && let Some(spent) = agent.spent()
        {
            self.unsaved.note(id, spent);
            if burst.incarnation < agent.doc.incarnation {
                self.unsaved.hurry(id);
            }
        }
        self.lost(lost);
        self.follow(now, id, &before)
    }

    /// Folds one agent's own event.
    pub(super) fn said(&mut self, now: Now, telemetry: &Telemetry) -> Vec<Change> {
        let Telemetry { agent: id, incarnation, at, kind: TelemetryKind::Event { kind, data } } = telemetry else {
            return Vec::new();
        };
        match self.agents.get_mut(id) {
            None => {
                self.rates.count(1);
                self.refused(STALE_INCARNATION, 1);
                Vec::new()
            }
            // An event may outrun the report that its incarnation began, never the end of the one before.
            Some(agent) if *incarnation < agent.doc.incarnation => {
                let lost = Lost { events: 1, ..Lost::default() };
                self.burst(now, id, &Burst::of_dropped(*incarnation, lost))
            }
            Some(agent) => {
                agent.said(*at, now);
                self.rates.count(1);
                self.note_sampled(id);
                let (kind, data) = (Arc::clone(kind), Arc::clone(data));
                vec![Change::Said { agent: id.clone(), incarnation: *incarnation, at: *at, kind, data }]
            }
        }
    }

    fn lost(&mut self, lost: Lost) {
        let plane = &mut self.data_plane;
        plane.dropped_by_class = plane.dropped_by_class.and(lost);
        plane.dropped = plane.dropped_by_class.total();
    }

    /// Counts messages that were refused by a code.
    pub(super) fn refused(&mut self, code: i64, messages: u64) {
        if messages > 0 {
            self.data_plane.refused += messages;
            *self.data_plane.refused_by_code.entry(code).or_default() += messages;
        }
    }

    /// A turn begins. If it comes later than it was due, nobody could be heard meanwhile; that must be known before the first report is folded.
    pub(super) fn wake(&mut self, now: Now) {
        let late = now.mono.saturating_duration_since(self.promised);
        if late > LATE_MAX {
            self.agents.values_mut().for_each(|agent| agent.shift(late, now));
            (self.judge_at, self.promised) = (Some(now.mono), now.mono);
        }
    }

    /// Lets time pass: judges silence, derives levels, tells of samples.
    pub fn tick(&mut self, now: Now) -> Vec<Change> {
        let mut changes = Vec::new();
        self.wake(now);
        self.judged = now.mono;
        if self.judge_at.is_some_and(|at| at <= now.mono) {
            self.judge_all(now, &mut changes);
        }
        self.sources.tick(now);
        self.measure_rates(now);
        if now.mono.saturating_duration_since(self.samples_told) >= SAMPLES_INTERVAL && !self.sampled.is_empty() {
            self.samples_told = now.mono;
            let mut docs: Vec<_> = self
                .sampled
                .drain()
                .filter_map(|id| self.agents.get_mut(&id).map(|agent| Arc::clone(agent.show())))
                .collect();
            docs.sort_unstable_by(|a, b| a.id.cmp(&b.id));
            changes.extend(docs.chunks(SAMPLES_AGENTS_MAX).map(|piece| Change::Samples(piece.to_vec())));
        }
        self.derive_levels(now, &mut changes);
        self.promised = self.next_deadline();
        changes
    }

    /// When [`Fold::tick`] is due next: at the latest when a rate has to be measured again.
    pub fn next_deadline(&self) -> Instant {
        let housekeeping = self.rates.marked() + SAMPLES_INTERVAL;
        self.judge_at.map_or(housekeeping, |at| at.min(housekeeping))
    }

    /// The whole document, its agents left out.
    pub(super) fn without_agents(&self) -> HiveHealth {
        HiveHealth {
            hive: self.identity.hive,
            name: self.identity.name.clone(),
            level: self.level,
            since: self.since,
            reasons: self.reasons.clone(),
            control_plane: self.control_plane.clone(),
            data_plane: self.data_plane.clone(),
            swarms: self.swarms.values().map(|swarm| Arc::clone(swarm.shown())).collect(),
            agents: Vec::new(),
            sources: self.sources.docs(),
            disk: self.disk_used.clone(),
        }
    }

    pub(super) fn touch(&mut self, swarm: &SwarmName) {
        if let Some(swarm) = self.swarms.get_mut(swarm) {
            swarm.dirty = true;
        }
    }

    fn control_plane_used(&mut self, now: Now) {
        let failed = |last: &LastUse| last.ok == Some(false);
        let reachable = self.runtime.ok == Some(true) && !failed(&self.engine) && !failed(&self.journal);
        let error = [&self.runtime, &self.engine, &self.journal]
            .into_iter()
            .find(|last| failed(last))
            .map(|last| last.error.clone().unwrap_or_else(|| "no detail was given".to_owned()));
        if reachable != self.control_plane.reachable {
            (self.control_plane.reachable, self.control_plane.since) = (reachable, now.wall);
            self.hive_dirty = true;
        }
        // What went wrong last stays to be read after it went well again.
        if error.is_some() && self.control_plane.last_error != error {
            self.control_plane.last_error = error;
            self.hive_dirty = true;
        }
    }

    /// When the rates that the document shows were measured.
    pub(super) fn rates_measured_at(&self) -> Instant {
        self.rates.marked()
    }

    fn measure_rates(&mut self, now: Now) {
        if now.mono.saturating_duration_since(self.rates.marked()) < SAMPLES_INTERVAL {
            return;
        }
        self.rates.mark(now.mono);
        let over = |window| match self.rates.over(window) {
            Some(value) => Measured::Value { value, observed_at: now.wall, source: Source::Daemon },
            None => Measured::Absent(Absent::NeverObserved),
        };
        self.data_plane.events_per_second = over(rate::SECOND);
        self.data_plane.events_per_second_1m = over(rate::MINUTE);
        self.data_plane.events_per_second_5m = over(rate::FIVE_MINUTES);
    }

    fn planes(&self) -> Planes<'_> {
        Planes {
            reconciled: self.reconciled,
            reachable: self.control_plane.reachable,
            last_error: self.control_plane.last_error.as_deref(),
            listening: self.data_plane.listening,
            history: self.history.trouble(),
            notify: self.notify.trouble(),
            disk: self.disk.trouble(),
        }
    }

    /// Derives the levels of what was touched since the last time.
    pub(super) fn derive_levels(&mut self, now: Now, changes: &mut Vec<Change>) {
        for swarm in self.swarms.values_mut() {
            if std::mem::take(&mut swarm.dirty) {
                swarm.derive(&self.agents, now);
            }
            if !swarm.is_due(now) {
                continue;
            }
            let told = swarm.told.replace((Arc::clone(&swarm.doc), now.mono));
            swarm.untold = false;
            self.hive_dirty = true;
            changes.push(Change::Swarm { from: told.map(|(told, _)| told.level), swarm: Arc::clone(&swarm.doc) });
        }
        if std::mem::take(&mut self.hive_dirty) {
            let (mut level, mut reasons) = level::of_hive(self.swarms.values().map(|swarm| &*swarm.doc), self.planes());
            self.sources.complain(&mut level, &mut reasons);
            let from = self.level;
            if level != from {
                (self.level, self.since) = (level, now.wall);
            }
            if level != from || reasons != self.reasons {
                self.reasons.clone_from(&reasons);
                changes.push(Change::Hive { from, to: level, reasons });
            }
        }
    }
}
