//! The naive model: health worked out from the log of reports, one message at a time, with none of the fold's summing up. What it has in common with
//! the fold is the contract alone: in one turn the house's own reports come first, then what agents said, and silence is judged last.

mod agent;
mod counts;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use counts::{Flap, Tokens, Used, Value};
use hivekeeper_actors::EventKind;

use super::Rule;
use crate::{
    health::{AgentSeed, Now, Report, Standing, simulated::Folded},
    model::{
        AgentHealth, AgentId, AgentSpec, AgentState, Desired, ExitRecord, HiveHealth, Level, Lost, Measured,
        Observation, SwarmHealth, SwarmName, Target, Telemetry, TelemetryKind, health::Absent,
    },
};

/// How often launchers take readings here.
pub(super) const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// Readings are stale after this: three intervals, and no less than ten seconds.
const STALE_AFTER: Duration = Duration::from_secs(10);
/// A turn that is later than this was held up.
const LATE_MAX: Duration = Duration::from_secs(2);

type Told = Result<(), (Rule, String)>;

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

/// One message of an agent or its launcher.
#[derive(Debug, Clone)]
struct Heard {
    incarnation: u64,
    /// Of how many messages a count of telemetry is to be kept.
    messages: u64,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    Session(bool),
    Beat { at: SystemTime, progress: Option<Arc<str>> },
    Sample { at: SystemTime, cores: Option<f64>, bytes: u64 },
    Wrote,
    Lost(u64),
    Usage(Tokens),
    Nothing,
}

/// What one agent amounts to.
#[derive(Debug, Clone)]
struct Agent {
    spec: Arc<AgentSpec>,
    desired: Desired,
    phase: Phase,
    incarnation: u64,
    ended: bool,
    waits: bool,
    session: bool,
    paused: Option<Instant>,
    unreachable: bool,
    heard: Instant,
    moved: Instant,
    sampled: Instant,
    pid: Option<u32>,
    restarts: u64,
    last_exit: Option<Arc<ExitRecord>>,
    cpu: Value<f64>,
    memory: Value<u64>,
    heartbeat: Value<SystemTime>,
    progress: Value<Arc<str>>,
    received: u64,
    dropped: u64,
    used: Used,
    flap: Flap,
}

#[derive(Debug, Default)]
pub(super) struct Model {
    agents: BTreeMap<AgentId, Agent>,
    swarms: BTreeMap<SwarmName, Vec<AgentId>>,
    /// Messages in the order in which they came; a new piece begins where a turn takes what is there, or the runtime is lost. In each piece those of an
    /// older incarnation come first.
    heard: BTreeMap<AgentId, VecDeque<BTreeMap<u64, Vec<Heard>>>>,
    /// Reports of the house that were told and not folded yet.
    pub(super) house_waits: u64,
    said_waits: u64,
    refused_waits: u64,
    pub(super) refused: u64,
    pub(super) dropped: u64,
    /// Telemetry messages told in all, and those of them that were folded behind the end of their incarnation.
    pub(super) told: u64,
    pub(super) late: u64,
    said: BTreeMap<AgentId, VecDeque<u64>>,
    reconciled: bool,
    reachable: Option<bool>,
    listening: bool,
    promised: Option<Instant>,
    /// States that agents were found in when silence was judged, and since when.
    stood: BTreeMap<AgentId, AgentState>,
    /// Agents that became stuck and whose document asks for a restart.
    pub(super) to_be_restarted: Vec<(AgentId, u64)>,
}

impl Model {
    /// A report was told.
    pub(super) fn put(&mut self, report: &Report) {
        match report {
            Report::Telemetry(batch) => batch.iter().for_each(|telemetry| self.put_telemetry(telemetry)),
            Report::Dropped { agent, incarnation, lost } => {
                let lost = lost.total();
                self.told += lost;
                self.push(agent, Heard { incarnation: *incarnation, messages: lost, what: What::Lost(lost) });
            }
            Report::Refused { messages, .. } => self.refused_waits += messages,
            Report::Runtime { agent, incarnation, event } => {
                let what = match event {
                    Observation::Sample { at, cpu_cores, memory_bytes, .. } => {
                        What::Sample { at: *at, cores: *cpu_cores, bytes: *memory_bytes }
                    }
                    Observation::Output { lines: 0, .. } => What::Nothing,
                    Observation::Output { .. } => What::Wrote,
                    Observation::Lost { lines, .. } => What::Lost(*lines),
                    Observation::Unreachable => {
                        // What was heard before it comes before it.
                        self.heard.entry(agent.clone()).or_default().push_back(BTreeMap::new());
                        self.house_waits += 1;
                        return;
                    }
                    _ => {
                        self.house_waits += 1;
                        return;
                    }
                };
                self.push(agent, Heard { incarnation: *incarnation, messages: 0, what });
            }
            // Of these only the latest words count.
            Report::DataPlane { .. } | Report::ControlPlane { .. } | Report::Engine { .. } | Report::Journal { .. } => {
            }
            _ => self.house_waits += 1,
        }
    }

    fn put_telemetry(&mut self, Telemetry { agent, incarnation, at, kind }: &Telemetry) {
        let (mut messages, mut lines) = (1, 0);
        match kind {
            TelemetryKind::Logs(records) => (messages, lines) = (records.len() as u64, records.len()),
            TelemetryKind::Logged(records) => (messages, lines) = (*records, 1),
            TelemetryKind::Counted(counted) => messages = *counted,
            TelemetryKind::SessionOpened | TelemetryKind::SessionClosed => messages = 0,
            _ => {}
        }
        self.told += messages;
        let what = match kind {
            TelemetryKind::SessionOpened => What::Session(true),
            TelemetryKind::SessionClosed => What::Session(false),
            TelemetryKind::Heartbeat { progress, .. } => What::Beat { at: *at, progress: progress.clone() },
            TelemetryKind::Logs(_) | TelemetryKind::Logged(_) if lines > 0 => What::Wrote,
            TelemetryKind::Logs(_) | TelemetryKind::Logged(_) | TelemetryKind::Counted(_) => What::Nothing,
            TelemetryKind::Usage(report) => {
                let count = |tokens: Option<u64>| tokens.unwrap_or(0);
                What::Usage([count(report.totals.input_tokens), count(report.totals.output_tokens)])
            }
            TelemetryKind::Event { .. } => {
                self.said_waits += 1;
                self.said.entry(agent.clone()).or_default().push_back(*incarnation);
                return;
            }
        };
        self.push(agent, Heard { incarnation: *incarnation, messages, what });
    }

    fn push(&mut self, agent: &AgentId, heard: Heard) {
        let pieces = self.heard.entry(agent.clone()).or_default();
        if pieces.is_empty() {
            pieces.push_back(BTreeMap::new());
        }
        if let Some(piece) = pieces.back_mut() {
            piece.entry(heard.incarnation).or_default().push(heard);
        }
    }

    /// A turn takes everything that was told.
    pub(super) fn fetched(&mut self) {
        for pieces in self.heard.values_mut() {
            if pieces.back().is_some_and(|piece| !piece.is_empty()) {
                pieces.push_back(BTreeMap::new());
            }
        }
    }

    /// The turn has folded something.
    pub(super) fn folded(&mut self, item: &Folded, now: Now) -> Told {
        match item {
            Folded::Report(report) => self.house(report, now),
            Folded::Refused(messages) => {
                self.refused += messages;
                self.refused_waits = self.refused_waits.checked_sub(*messages).ok_or_else(|| {
                    (Rule::EveryMessageIsCounted, format!("{messages} refusals are folded, fewer were told"))
                })?;
                Ok(())
            }
            Folded::Said(agent) => {
                let incarnation = self.said.get_mut(agent).and_then(VecDeque::pop_front);
                let Some(incarnation) = incarnation else {
                    return Err((Rule::EveryMessageIsCounted, format!("{agent} said nothing that was not folded")));
                };
                self.said_waits -= 1;
                if let Some(agent) = self.agents.get_mut(agent) {
                    agent.received += 1;
                    if incarnation < agent.incarnation {
                        (agent.dropped, self.dropped, self.late) = (agent.dropped + 1, self.dropped + 1, self.late + 1);
                    }
                } else {
                    self.refused += 1;
                }
                Ok(())
            }
            Folded::Burst(agent) => {
                let pieces = self.heard.entry(agent.clone()).or_default();
                while pieces.front().is_some_and(BTreeMap::is_empty) && pieces.len() > 1 {
                    pieces.pop_front();
                }
                let Some((_, piece)) = pieces.front_mut().and_then(BTreeMap::pop_first) else {
                    return Err((
                        Rule::EveryMessageIsCounted,
                        format!("of {agent} nothing waits that could be folded"),
                    ));
                };
                self.hear(agent, &piece, now);
                Ok(())
            }
        }
    }

    fn hear(&mut self, id: &AgentId, piece: &[Heard], now: Now) {
        let incarnation = piece.first().map_or(0, |heard| heard.incarnation);
        let mut lost: u64 = piece.iter().map(|heard| if let What::Lost(lost) = heard.what { lost } else { 0 }).sum();
        let Some(agent) = self.agents.get_mut(id) else {
            // What was dropped is counted as that, and as nothing else.
            let refusable = piece.iter().filter(|heard| !matches!(heard.what, What::Lost(_)));
            self.refused += refusable.map(|heard| heard.messages).sum::<u64>();
            self.dropped += lost;
            return;
        };
        // Whatever was told was received, whether its incarnation lived on or not.
        let messages: u64 = piece.iter().map(|heard| heard.messages).sum();
        agent.received += messages;
        for heard in piece {
            if let What::Usage(tokens) = heard.what
                && !agent.used.take(heard.incarnation, tokens)
            {
                lost += 1;
            }
        }
        agent.dropped += lost;
        self.dropped += lost;
        if incarnation < agent.incarnation || (incarnation == agent.incarnation && agent.ended) {
            self.late += messages;
            return;
        }
        let good = piece;
        agent.enter(incarnation, now);
        let word =
            good.iter().rev().find_map(|heard| if let What::Session(open) = heard.what { Some(open) } else { None });
        if let Some(open) = word.filter(|open| *open != agent.session) {
            agent.session = open;
            agent.heard = now.mono;
        }
        let before = agent.progress.clone();
        for heard in good {
            match &heard.what {
                What::Beat { at, progress } => {
                    agent.hear(now);
                    agent.heartbeat = Value::At(*at, *at);
                    if let Some(progress) = progress {
                        agent.progress = Value::At(Arc::clone(progress), *at);
                    }
                }
                What::Wrote => {
                    agent.moved = now.mono;
                    agent.reached(now);
                }
                _ => {}
            }
        }
        if let Value::At(progress, _) = &agent.progress
            && !matches!(&before, Value::At(same, _) if same == progress)
        {
            agent.moved = now.mono;
        }
        for heard in good {
            if let What::Sample { at, cores, bytes } = &heard.what {
                agent.reached(now);
                agent.sampled = now.mono;
                agent.memory = Value::At(*bytes, *at);
                if let Some(cores) = cores {
                    agent.cpu = Value::At(*cores, *at);
                }
                if !agent.session {
                    agent.hear(now);
                    agent.heartbeat = Value::At(*at, *at);
                }
            }
        }
        // A value of cores is told as of the last reading, even if that one had none.
        let last =
            good.iter().rev().find_map(|heard| if let What::Sample { at, .. } = heard.what { Some(at) } else { None });
        let had_cores = good.iter().any(|heard| matches!(heard.what, What::Sample { cores: Some(_), .. }));
        if let (Some(last), true, Value::At(_, at)) = (last, had_cores, &mut agent.cpu) {
            *at = last;
        }
    }

    fn house(&mut self, report: &Report, now: Now) -> Told {
        match report {
            Report::DataPlane { listening, .. } => {
                self.listening = *listening;
                return Ok(());
            }
            Report::ControlPlane { ok, .. } => {
                self.reachable = Some(*ok);
                return Ok(());
            }
            Report::Engine { .. } | Report::Journal { .. } => return Ok(()),
            _ => {}
        }
        self.house_waits = self
            .house_waits
            .checked_sub(1)
            .ok_or_else(|| (Rule::EveryMessageIsCounted, format!("folded but never told: {report:?}")))?;
        match report {
            Report::Declared { spec, desired, seeds } => self.declare(spec, *desired, seeds, now),
            Report::Removed(name) => {
                for id in self.swarms.remove(name).unwrap_or_default() {
                    self.agents.remove(&id);
                }
            }
            Report::Desired { target, desired } => {
                let ids = match target {
                    Target::Agent(id) => vec![id.clone()],
                    Target::Swarm(name) => self.swarms.get(name).cloned().unwrap_or_default(),
                };
                for id in ids {
                    if let Some(agent) = self.agents.get_mut(&id) {
                        agent.desired = *desired;
                    }
                }
            }
            Report::Supervision { agent, event } => {
                if let Some(agent) = self.agents.get_mut(agent).filter(|agent| event.incarnation >= agent.incarnation) {
                    agent.enter(event.incarnation, now);
                    agent.restarts = event.restarts;
                    agent.supervised(&event.kind, now);
                }
            }
            Report::Runtime { agent, incarnation, event } => {
                if let Some(agent) = self.agents.get_mut(agent) {
                    agent.seen(*incarnation, event, now);
                }
            }
            Report::Reconciled => {
                self.reconciled = true;
                // A pass that ended has used the runtime.
                self.reachable.get_or_insert(true);
            }
            _ => {}
        }
        Ok(())
    }

    fn declare(&mut self, spec: &crate::model::SwarmSpec, desired: Desired, seeds: &[(AgentId, AgentSeed)], now: Now) {
        let expanded = spec.expand().unwrap_or_default();
        let order: Vec<AgentId> = expanded.iter().map(|(id, _)| id.clone()).collect();
        for gone in self.swarms.insert(spec.name.clone(), order.clone()).unwrap_or_default() {
            if !order.contains(&gone) {
                self.agents.remove(&gone);
            }
        }
        for (id, spec) in expanded {
            if let Some(agent) = self.agents.get_mut(&id) {
                agent.spec = spec;
                continue;
            }
            let seed = seeds.iter().find(|(seeded, _)| *seeded == id).map(|(_, seed)| seed.clone()).unwrap_or_default();
            self.agents.insert(id, Agent::new(spec, desired, &seed, now));
        }
    }

    /// A turn begins. Nobody listened for some time if it comes late.
    pub(super) fn woke(&mut self, now: Now) {
        let late = self.promised.map_or(Duration::ZERO, |promised| now.mono.saturating_duration_since(promised));
        if late > LATE_MAX {
            self.agents.values_mut().for_each(|agent| agent.shift(late, now));
            self.promised = Some(now.mono);
        }
    }

    /// Silence is judged.
    pub(super) fn judged(&mut self, now: Now, next: Instant) {
        self.promised = Some(next);
        for (id, agent) in &mut self.agents {
            if now.mono.saturating_duration_since(agent.sampled) >= STALE_AFTER {
                agent.cpu.outdate();
                agent.memory.outdate();
            }
            if agent.is_judged() && agent.is_overdue(now) {
                agent.flap.silent(now.mono);
            }
            let state = agent.state(now);
            let before = self.stood.insert(id.clone(), state);
            if state == AgentState::Stuck
                && before != Some(AgentState::Stuck)
                && agent.spec.on_stuck == crate::model::OnStuck::Restart
            {
                self.to_be_restarted.push((id.clone(), agent.incarnation));
            }
        }
    }

    /// When the fold has promised to look again before anything was folded.
    pub(super) fn promise(&mut self, at: Instant) {
        self.promised = Some(at);
    }

    /// Compares the documents with what the log amounts to.
    pub(super) fn agrees(&self, hive: &HiveHealth, now: Now) -> Told {
        let known: Vec<&AgentId> = self.swarms.values().flatten().collect();
        let shown: Vec<&AgentId> = hive.agents.iter().map(|agent| &agent.id).collect();
        if known != shown {
            return Err((Rule::FoldIsTheModel, format!("there are {known:?}, shown are {shown:?}")));
        }
        for doc in &hive.agents {
            let agent = &self.agents[&doc.id];
            agent.agrees(doc, now)?;
        }
        let plane = &hive.data_plane;
        if (plane.refused, plane.dropped) != (self.refused, self.dropped) {
            let shown = (plane.refused, plane.dropped);
            let detail = format!("refused and dropped are {:?}, shown are {shown:?}", (self.refused, self.dropped));
            return Err((Rule::EveryMessageIsCounted, detail));
        }
        self.levels(hive)
    }

    /// That a level is better than it should be, or worse, is seen by what it stands for.
    fn levels(&self, hive: &HiveHealth) -> Told {
        let is_well = |swarm: &SwarmHealth| {
            hive.agents.iter().filter(|agent| agent.id.swarm == swarm.name).all(|agent| {
                use AgentState as S;
                match (agent.desired, agent.state) {
                    (_, S::Completed) | (Desired::Running, S::Running) | (Desired::Paused, S::Paused) => true,
                    (Desired::Stopped, state) => matches!(state, S::Pending | S::Stopped | S::Failed | S::BackingOff),
                    _ => false,
                }
            })
        };
        for swarm in &hive.swarms {
            if (swarm.level == Level::Healthy) != is_well(swarm) {
                return Err((Rule::LevelsFollow, format!("{} is {:?}: {:?}", swarm.name, swarm.level, swarm.reasons)));
            }
        }
        let all_well = hive.swarms.iter().all(|swarm| swarm.level == Level::Healthy);
        let is_healthy = self.reconciled && self.reachable == Some(true) && self.listening && all_well;
        if (hive.level == Level::Healthy) != is_healthy || (!self.reconciled && hive.level < Level::Unknown) {
            return Err((Rule::LevelsFollow, format!("the hive is {:?}: {:?}", hive.level, hive.reasons)));
        }
        Ok(())
    }

    /// What was told and is not folded.
    pub(super) fn waits(&self) -> u64 {
        let heard = self.heard.values().flatten().flat_map(BTreeMap::values);
        let heard: u64 = heard.map(|piece| piece.len() as u64).sum();
        heard + self.house_waits + self.said_waits + self.refused_waits
    }
}
