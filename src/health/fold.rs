//! The health of the whole hive, pure: reports and time go in, documents and changes come out.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use super::{
    agent::{Agent, Taken},
    burst::Burst,
    change::{Change, Identity},
    level::{self, Planes},
    report::{AgentSeed, Now, Report},
    source::Sources,
};
use crate::model::{
    AgentHealth, AgentId, ControlPlaneHealth, DataPlaneHealth, Desired, HiveHealth, HomeHealth, Level, Measured,
    Reason, Source, SwarmHealth, SwarmName, SwarmSpec, Target, Telemetry, TelemetryKind,
};

/// At most one change of measured values alone is told in this time: people read no faster, and a thousand agents report every second.
pub const SAMPLES_INTERVAL: Duration = Duration::from_secs(1);

/// A tick that comes this much later than it was due means that we were held up, not that every agent fell silent at once.
const LATE_MAX: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Swarm {
    doc: Arc<SwarmHealth>,
    pub(super) order: Vec<AgentId>,
    /// Whether its agents are restarted together.
    pub(super) group: bool,
    /// Whose end was too many, when it gave up as a whole.
    pub(super) gave_up: Option<String>,
    /// Whether its level has to be derived again.
    pub(super) dirty: bool,
    /// The document that was told last.
    told: Option<Arc<SwarmHealth>>,
}

/// How the last use of something went; `None` before the first.
#[derive(Debug, Default)]
struct LastUse {
    ok: Option<bool>,
    error: Option<String>,
}

/// The folded health.
#[derive(Debug)]
pub struct Fold {
    identity: Identity,
    pub(super) agents: HashMap<AgentId, Agent>,
    pub(super) swarms: BTreeMap<SwarmName, Swarm>,
    level: Level,
    since: SystemTime,
    reasons: Vec<Reason>,
    reconciled: bool,
    runtime: LastUse,
    engine: LastUse,
    journal: LastUse,
    control_plane: ControlPlaneHealth,
    data_plane: DataPlaneHealth,
    sources: Sources,
    hive_dirty: bool,
    sampled: HashSet<AgentId>,
    /// Telemetry messages since `counted_from`.
    counted: u64,
    counted_from: Instant,
    samples_told: Instant,
    /// No agent's document changes by time alone before this.
    judge_at: Option<Instant>,
    /// When the next tick was asked for.
    promised: Instant,
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
            control_plane: ControlPlaneHealth { reachable: false, since: now.wall, last_error: None },
            data_plane: DataPlaneHealth::unknown(),
            sources: Sources::default(),
            hive_dirty: true,
            sampled: HashSet::new(),
            counted: 0,
            counted_from: now.mono,
            samples_told: now.mono,
            judge_at: None,
            promised: now.mono,
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
            Report::Settled { agent, standing } => self.with(now, &agent, |agent| agent.settle(standing)).1,
            Report::Runtime { agent, incarnation, event } => match Burst::of_runtime(incarnation, &event) {
                Some(burst) => self.burst(now, &agent, &burst),
                None => self.with(now, &agent, |agent| agent.runtime(incarnation, &event, now)).1,
            },
            Report::Telemetry(batch) => batch.iter().flat_map(|telemetry| self.telemetry(now, telemetry)).collect(),
            Report::Dropped { agent, incarnation, lost } => {
                self.burst(now, &agent, &Burst::of_dropped(incarnation, lost))
            }
            Report::Refused { messages, .. } => {
                self.data_plane.refused += messages;
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

    /// Folds what was seen of one agent since the last turn.
    pub(super) fn burst(&mut self, now: Now, agent: &AgentId, burst: &Burst) -> Vec<Change> {
        self.counted += burst.messages;
        self.data_plane.dropped += burst.dropped;
        let (taken, changes) = self.with(now, agent, |agent| agent.burst(burst, now));
        if taken != Some(Taken::Yes) {
            self.data_plane.refused += burst.messages;
        }
        changes
    }

    /// Folds one agent's own event.
    pub(super) fn said(&mut self, telemetry: &Telemetry) -> Vec<Change> {
        let TelemetryKind::Event { kind, data } = &telemetry.kind else { return Vec::new() };
        self.counted += 1;
        let current = self.agents.get(&telemetry.agent).is_some_and(|agent| {
            // An event may outrun the report that its incarnation began, never the end of the one before.
            telemetry.incarnation >= agent.doc.incarnation
        });
        if !current {
            self.data_plane.refused += 1;
            return Vec::new();
        }
        vec![Change::Said {
            agent: telemetry.agent.clone(),
            incarnation: telemetry.incarnation,
            at: telemetry.at,
            kind: Arc::clone(kind),
            data: Arc::clone(data),
        }]
    }

    /// Counts messages that were refused before they came here.
    pub(super) fn refused(&mut self, messages: u64) {
        self.data_plane.refused += messages;
    }

    /// Lets time pass: judges silence, derives levels, tells of samples.
    pub fn tick(&mut self, now: Now) -> Vec<Change> {
        let mut changes = Vec::new();
        let late = now.mono.saturating_duration_since(self.promised);
        if late > LATE_MAX {
            self.agents.values_mut().for_each(|agent| agent.shift(late, now));
            self.judge_at = Some(now.mono);
        }
        if self.judge_at.is_some_and(|at| at <= now.mono) {
            let mut due: Vec<AgentId> = self.agents.keys().cloned().collect();
            due.sort_unstable();
            self.judge_at = None;
            for id in due {
                changes.extend(self.with(now, &id, |_| Taken::Yes).1);
            }
        }
        self.sources.tick(now);
        self.count_rate(now);
        if now.mono.saturating_duration_since(self.samples_told) >= SAMPLES_INTERVAL && !self.sampled.is_empty() {
            self.samples_told = now.mono;
            let mut docs: Vec<_> = self
                .sampled
                .drain()
                .filter_map(|id| self.agents.get(&id).map(|agent| Arc::clone(&agent.doc)))
                .collect();
            docs.sort_unstable_by(|a, b| a.id.cmp(&b.id));
            changes.push(Change::Samples(docs));
        }
        self.derive_levels(now, &mut changes);
        self.promised = self.next_deadline();
        changes
    }

    /// When [`Fold::tick`] is due next: at the latest when a rate has to be measured again.
    pub fn next_deadline(&self) -> Instant {
        let housekeeping = self.counted_from + SAMPLES_INTERVAL;
        self.judge_at.map_or(housekeeping, |at| at.min(housekeeping))
    }

    /// The whole document.
    pub fn hive(&self) -> HiveHealth {
        HiveHealth {
            hive: self.identity.hive,
            name: self.identity.name.clone(),
            level: self.level,
            since: self.since,
            reasons: self.reasons.clone(),
            control_plane: self.control_plane.clone(),
            data_plane: self.data_plane.clone(),
            swarms: self.swarms.values().map(|swarm| Arc::clone(&swarm.doc)).collect(),
            agents: self
                .swarms
                .values()
                .flat_map(|swarm| &swarm.order)
                .filter_map(|id| self.agents.get(id).map(|agent| Arc::clone(&agent.doc)))
                .collect(),
            sources: self.sources.docs(),
        }
    }

    /// Changes a copy of one agent, judges it and puts it back whole: a panic on the way leaves the agent as it was.
    pub(super) fn with(
        &mut self,
        now: Now,
        id: &AgentId,
        change: impl FnOnce(&mut Agent) -> Taken,
    ) -> (Option<Taken>, Vec<Change>) {
        let Some(mut agent) = self.agents.get(id).cloned() else { return (None, Vec::new()) };
        let before = Arc::clone(&agent.doc);
        let taken = change(&mut agent);
        let restart = agent.judge(self.identity.sample_interval, now);
        if let Some(at) = agent.deadline(self.identity.sample_interval, now) {
            self.judge_at = Some(self.judge_at.map_or(at, |known| known.min(at)));
        }
        let after = Arc::clone(&agent.doc);
        self.agents.insert(id.clone(), agent);
        let mut changes = Vec::new();
        if !Arc::ptr_eq(&before, &after) {
            if same_but_measured(&before, &after) {
                if before != after {
                    self.sampled.insert(id.clone());
                }
            } else {
                self.sampled.remove(id);
                self.touch(&id.swarm);
                changes.push(Change::Agent { from: Some(before.state), agent: Arc::clone(&after) });
            }
        }
        if restart {
            changes.push(Change::Stuck { agent: id.clone(), incarnation: after.incarnation });
        }
        (Some(taken), changes)
    }

    fn touch(&mut self, swarm: &SwarmName) {
        if let Some(swarm) = self.swarms.get_mut(swarm) {
            swarm.dirty = true;
        }
    }

    fn telemetry(&mut self, now: Now, telemetry: &Telemetry) -> Vec<Change> {
        match Burst::of_telemetry(telemetry) {
            Some(burst) => self.burst(now, &telemetry.agent, &burst),
            None => self.said(telemetry),
        }
    }

    fn declare(&mut self, now: Now, spec: &SwarmSpec, desired: Desired, seeds: &[(AgentId, AgentSeed)]) -> Vec<Change> {
        // The names were checked when the document was; one that is too long has no agents to show.
        let expanded = spec.expand().unwrap_or_default();
        let mut changes = Vec::new();
        let order: Vec<AgentId> = expanded.iter().map(|(id, _)| id.clone()).collect();
        let known = self.swarms.get(&spec.name).map(|swarm| (swarm.doc.desired, swarm.order.clone()));
        if let Some((_, known)) = &known {
            let kept: HashSet<&AgentId> = order.iter().collect();
            for gone in known.iter().filter(|id| !kept.contains(id)) {
                changes.extend(self.remove_agent(gone));
            }
        }
        let seeds: HashMap<&AgentId, &AgentSeed> = seeds.iter().map(|(id, seed)| (id, seed)).collect();
        for (id, agent_spec) in expanded {
            if let Some(agent) = self.agents.get_mut(&id) {
                agent.redeclare(agent_spec, spec.period);
                changes.extend(self.with(now, &id, |_| Taken::Yes).1);
                continue;
            }
            let none = AgentSeed::default();
            let seed = seeds.get(&id).copied().unwrap_or(&none);
            let agent = Agent::new(id.clone(), agent_spec, spec.period, desired, seed, now);
            changes.push(Change::Agent { from: None, agent: Arc::clone(&agent.doc) });
            self.agents.insert(id, agent);
        }
        let names = order.iter().map(|id| id.name.clone()).collect();
        match (self.swarms.get_mut(&spec.name), known) {
            (Some(swarm), Some((before, _))) => {
                swarm.order = order;
                swarm.group = spec.strategy.is_group();
                swarm.dirty = true;
                let doc = Arc::make_mut(&mut swarm.doc);
                doc.agents = names;
                let adjustments = std::mem::take(&mut doc.home.adjustments);
                doc.home = HomeHealth { adjustments, ..HomeHealth::of(&spec.home) };
                if before != desired {
                    changes.extend(self.desire(now, &Target::Swarm(spec.name.clone()), desired));
                }
            }
            _ => {
                let doc = SwarmHealth {
                    name: spec.name.clone(),
                    level: Level::Healthy,
                    since: now.wall,
                    reasons: Vec::new(),
                    desired,
                    home: HomeHealth::of(&spec.home),
                    agents: names,
                };
                let group = spec.strategy.is_group();
                let swarm = Swarm { doc: Arc::new(doc), order, group, gave_up: None, dirty: true, told: None };
                self.swarms.insert(spec.name.clone(), swarm);
            }
        }
        changes
    }

    fn remove_swarm(&mut self, name: &SwarmName) -> Vec<Change> {
        let Some(swarm) = self.swarms.remove(name) else { return Vec::new() };
        self.hive_dirty = true;
        let mut changes: Vec<Change> = swarm.order.iter().flat_map(|id| self.remove_agent(id)).collect();
        changes.push(Change::SwarmRemoved(name.clone()));
        changes
    }

    fn remove_agent(&mut self, id: &AgentId) -> Option<Change> {
        self.sampled.remove(id);
        self.agents.remove(id).map(|_| Change::AgentRemoved(id.clone()))
    }

    fn desire(&mut self, now: Now, target: &Target, desired: Desired) -> Vec<Change> {
        let ids = match target {
            Target::Agent(id) => vec![id.clone()],
            Target::Swarm(name) => {
                let Some(swarm) = self.swarms.get_mut(name) else { return Vec::new() };
                if swarm.doc.desired != desired {
                    Arc::make_mut(&mut swarm.doc).desired = desired;
                    swarm.dirty = true;
                }
                swarm.order.clone()
            }
        };
        let set = |agent: &mut Agent| {
            agent.desire(desired);
            Taken::Yes
        };
        ids.iter().flat_map(|id| self.with(now, id, set).1).collect()
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

    /// When the rate that the document shows was counted.
    pub(super) fn rate_counted_at(&self) -> Instant {
        self.counted_from
    }

    fn count_rate(&mut self, now: Now) {
        let elapsed = now.mono.saturating_duration_since(self.counted_from);
        if elapsed < SAMPLES_INTERVAL {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "a second's messages are far below 2^52")]
        let rate = self.counted as f64 / elapsed.as_secs_f64();
        self.data_plane.events_per_second =
            Measured::Value { value: rate, observed_at: now.wall, source: Source::Daemon };
        (self.counted, self.counted_from) = (0, now.mono);
    }

    fn planes(&self) -> Planes<'_> {
        Planes {
            reconciled: self.reconciled,
            reachable: self.control_plane.reachable,
            last_error: self.control_plane.last_error.as_deref(),
            listening: self.data_plane.listening,
        }
    }

    /// Derives the levels of what was touched since the last time.
    pub(super) fn derive_levels(&mut self, now: Now, changes: &mut Vec<Change>) {
        for swarm in self.swarms.values_mut() {
            if !std::mem::take(&mut swarm.dirty) {
                continue;
            }
            let docs = swarm.order.iter().filter_map(|id| self.agents.get(id)).map(|agent| &*agent.doc);
            let (level, reasons) = level::of_swarm(docs, swarm.group.then_some(swarm.gave_up.as_deref()));
            let doc = Arc::make_mut(&mut swarm.doc);
            if level != doc.level {
                (doc.level, doc.since) = (level, now.wall);
            }
            doc.reasons = reasons;
            if swarm.told.as_ref() == Some(&swarm.doc) {
                continue;
            }
            let from = swarm.told.replace(Arc::clone(&swarm.doc)).map(|told| told.level);
            self.hive_dirty = true;
            changes.push(Change::Swarm { from, swarm: Arc::clone(&swarm.doc) });
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

/// Whether two documents differ in nothing but what is measured, which is told at most once a second.
fn same_but_measured(a: &AgentHealth, b: &AgentHealth) -> bool {
    a.state == b.state
        && a.since == b.since
        && a.reasons == b.reasons
        && a.desired == b.desired
        && a.incarnation == b.incarnation
        && a.pid == b.pid
        && a.restarts == b.restarts
        && a.retry_at == b.retry_at
        && a.last_exit == b.last_exit
}
