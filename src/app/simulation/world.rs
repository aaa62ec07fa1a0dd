//! Everything that happens, one step after another. `agents` is what they do, `viewers` what these do, `checks` what is held against it.

mod agents;
mod checks;
mod house;
mod viewers;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Arc, OnceLock},
    time::{Duration, Instant, SystemTime},
};

use hivekeeper_actors::{Backoff, OnExceeded, Strategy};
use parking_lot::Mutex;
use uuid::Uuid;

use super::{
    Outcome, Rule, STEPS, Seen,
    chance::{Chance, Trace, hash_of},
    client::{Client, Known},
    model::{Model, SAMPLE_INTERVAL},
    soul::{Fate, Soul},
    wire::{self, BURST, PER_SECOND, Told, Wire},
};
use crate::{
    data_plane::{DataPlaneHandle, PlaneLimits, simulated::Peer},
    events::Feed,
    health::{
        Handle, Identity, Now, Options, Report,
        simulated::{self as actor, Fall},
    },
    model::{
        Admission, AgentHealth, AgentId, AgentSpec, AgentState, Desired, Drain, Epoch, EventKind, HiveId, Home, Lost,
        Measured, Observation, OnStuck, Origin, Ready, Refusal, RestartType, Seq, Source, SwarmSpec, Telemetry,
        TelemetryKind, TelemetrySink,
    },
    stream::{Hub, simulated::Judged, simulated::Viewer},
    view,
};

/// Events that the feed keeps here: few, so that viewers fall behind it.
const RING: usize = 24;
/// Numbers that a daemon reserves ahead of its feed.
const SEQS_AHEAD: u64 = 1_000;
/// After so many seconds nothing changes any more by time alone: readings are stale after ten, heartbeats are long overdue.
const REST_SECONDS: usize = 20;
/// What a viewer that stops reading is dropped within.
const SLOW_MS: u64 = 15_000;

use checks::silent;
use house::{Basket, Gate, House, at, base, house, swarm_spec};

pub(super) type Ended = Result<(), (Rule, String)>;

pub(super) struct World {
    chance: Chance,
    pub(super) trace: Trace,
    base: Instant,
    ms: u64,
    /// How far the wall's clock has been set, ms.
    set: i64,
    epoch: u64,
    last_seq: u64,
    gate: Arc<Gate>,
    basket: Arc<Basket>,
    house: House,
    swarms: Vec<Arc<SwarmSpec>>,
    souls: Vec<Soul>,
    wires: Vec<Wire>,
    wires_made: u64,
    clients: Vec<Client>,
    /// Every measured value that was reported: of whom, which incarnation, what, when, and its hash.
    reported: HashSet<(AgentId, u64, &'static str, SystemTime, u64)>,
    /// Incarnations of which there was a sign of life.
    signs: HashSet<(AgentId, u64)>,
    /// When agents were found degraded or stuck with everything heard.
    stood: BTreeSet<(AgentId, u8, SystemTime)>,
    restarted: Vec<(AgentId, u64)>,
    seen: Seen,
    /// Whether all connections together may tell little.
    is_crowded: bool,
    /// Nothing goes wrong any more.
    is_calm: bool,
}

impl World {
    pub(super) fn new(seed: u64, is_kept: bool) -> Self {
        let mut chance = Chance::new(seed);
        let (base, gate, basket) = (base(), Arc::default(), Arc::default());
        let swarms = (0..chance.between(1, 2)).map(|n| Arc::new(swarm_spec(&format!("s{n}"), &mut chance))).collect();
        let clients =
            (0..chance.between(1, 3)).map(|number| Client::new(usize::try_from(number).unwrap_or(0))).collect();
        let first = chance.between(1, 50);
        let is_crowded = chance.permille(300);
        Self {
            chance,
            trace: Trace::new(is_kept),
            base,
            ms: 0,
            set: 0,
            epoch: 1,
            last_seq: first - 1,
            house: house(1, first, at(base, 0, 0), &gate, &basket, is_crowded),
            is_crowded,
            gate,
            basket,
            swarms,
            souls: Vec::new(),
            wires: Vec::new(),
            wires_made: 0,
            clients,
            reported: HashSet::new(),
            signs: HashSet::new(),
            stood: BTreeSet::new(),
            restarted: Vec::new(),
            seen: Seen::default(),
            is_calm: false,
        }
    }

    fn now(&self) -> Now {
        at(self.base, self.ms, self.set)
    }

    fn note(&mut self, what: std::fmt::Arguments<'_>) {
        self.trace.note(self.ms, what);
    }

    pub(super) fn into_outcome(mut self, broken: Option<(Rule, String)>) -> Outcome {
        self.seen.messages = self.house.model.told;
        self.seen.refused += self.house.model.refused;
        self.seen.late += self.house.model.late;
        if let Some((rule, detail)) = &broken {
            self.trace.note(self.ms, format_args!("BROKEN {rule}: {detail}"));
        }
        Outcome { hash: self.trace.hash(), broken, trace: self.trace.into_text(), seen: self.seen }
    }

    /// The first daemon begins.
    pub(super) fn begin(&mut self) -> Ended {
        for swarm in self.swarms.clone() {
            for (id, spec) in swarm.expand().unwrap_or_default() {
                self.souls.push(Soul::new(id, spec));
            }
        }
        self.declare();
        self.turn(None)
    }

    fn declare(&mut self) {
        let wall = self.now().wall;
        for spec in self.swarms.clone() {
            let souls = self.souls.iter().filter(|soul| soul.id.swarm == spec.name);
            let seeds = souls.map(|soul| (soul.id.clone(), soul.seed(wall))).collect();
            self.tell(Report::Declared { spec, desired: Desired::Running, seeds });
        }
        // What the operator wants of single agents is in the journal, too.
        for at in 0..self.souls.len() {
            let (id, desired) = (self.souls[at].id.clone(), self.souls[at].desired);
            if desired != Desired::Running {
                self.tell(Report::Desired { target: crate::model::Target::Agent(id), desired });
            }
        }
        self.tell(Report::DataPlane { listening: true, sessions: 0, connections: 0, turned_away: 0 });
        self.tell(Report::Reconciled);
    }

    /// Somebody reports.
    fn tell(&mut self, report: Report) {
        self.remember(&report);
        self.trace.note(self.ms, format_args!("told {report:?}"));
        self.house.model.put(&report);
        actor::report(&self.house.health, self.now(), report);
    }

    pub(super) fn step(&mut self) -> Ended {
        let passed = match self.chance.below(100) {
            0..15 => 0,
            15..60 => self.chance.below(120),
            60..97 => self.chance.between(120, 900),
            _ => self.chance.between(900, 4_000),
        };
        self.pass(passed)?;
        if self.chance.permille(12) {
            self.set += i64::try_from(self.chance.below(20_000)).unwrap_or(0) - 10_000;
            let set = self.set;
            self.note(format_args!("the clock is set to {set} ms"));
        }
        if self.chance.permille(14) {
            self.restart_daemon()?;
        }
        for at in 0..self.souls.len() {
            self.live(at);
        }
        self.converse()?;
        self.deliver()?;
        if self.chance.permille(100) {
            let sessions = self.wires.iter().filter(|wire| wire.is_open()).count() as u64;
            let connections = self.wires.len() as u64;
            let listening = self.chance.permille(900);
            self.tell(Report::DataPlane { listening, sessions, connections, turned_away: 0 });
        }
        if self.chance.permille(40) {
            let ok = self.chance.permille(600);
            self.tell(Report::ControlPlane { ok, error: (!ok).then(|| "engine is away".to_owned()) });
        }
        self.watch()?;
        if self.chance.permille(700) {
            self.maybe_turn()?;
        }
        Ok(())
    }

    /// Time passes; whatever is due meanwhile happens when it is due.
    fn pass(&mut self, ms: u64) -> Ended {
        let until = self.ms + ms;
        loop {
            let wake = self.ms_of(actor::deadline(&self.house.health)).max(self.house.down_until);
            let wires = self.wires.iter().filter_map(|wire| wire.peer.as_ref()).map(|peer| self.ms_of(peer.deadline()));
            let viewers = self.clients.iter().filter_map(|client| client.ours.as_ref());
            let viewers = viewers.map(|viewer| self.ms_of(viewer.deadline()));
            let next = wires.chain(viewers).chain([wake]).min().unwrap_or(until);
            if next > until {
                self.ms = self.ms.max(until);
                return Ok(());
            }
            self.ms = self.ms.max(next);
            self.tick_wires()?;
            self.judge_viewers()?;
            if wake <= self.ms {
                self.maybe_turn()?;
            }
        }
    }

    fn ms_of(&self, at: Instant) -> u64 {
        // Up to the next millisecond, or it would be too early.
        let passed = at.saturating_duration_since(self.base);
        u64::try_from(passed.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
    }

    /// A turn of the health actor, if it is up; or it falls.
    fn maybe_turn(&mut self) -> Ended {
        if self.ms < self.house.down_until {
            return Ok(());
        }
        let fall = match self.chance.below(1000) {
            _ if self.is_calm => None,
            0..25 => Some(Fall::Folding(self.chance.index(6))),
            25..45 => Some(Fall::Telling(self.chance.index(4))),
            _ => None,
        };
        self.turn(fall)?;
        if fall.is_some() {
            self.seen.falls += 1;
            self.house.down_until = self.ms + if self.chance.permille(300) { self.chance.below(7_000) } else { 0 };
        }
        Ok(())
    }

    fn turn(&mut self, fall: Option<Fall>) -> Ended {
        let now = self.now();
        self.house.model.woke(now);
        self.house.model.fetched();
        let (folded, judged) = actor::turn(&self.house.health, now, fall);
        self.trace.note(self.ms, format_args!("turn {fall:?}: {} folded", folded.len()));
        for item in &folded {
            self.house.model.folded(item, now)?;
        }
        let documents = actor::documents(&self.house.health);
        if judged {
            self.house.model.judged(now, actor::deadline(&self.house.health));
            self.house.model.agrees(&documents, now)?;
            for doc in &documents.agents {
                if let Some(silent) = silent(doc.state) {
                    self.stood.insert((doc.id.clone(), silent, doc.since));
                }
            }
        }
        for doc in &documents.agents {
            self.values_were_reported(doc)?;
            let lives = matches!(doc.state, AgentState::Running | AgentState::Degraded | AgentState::Stuck);
            if lives && !self.signs.contains(&(doc.id.clone(), doc.incarnation)) {
                return Err((Rule::LifeIsSeenFirst, format!("{} is shown {:?}", doc.id, doc.state)));
            }
        }
        self.journal_usage();
        self.stuck()?;
        self.follow()
    }

    /// What agents have used is written down now and then: only what is urgent, or all of it.
    fn journal_usage(&mut self) {
        let urgent = match self.chance.below(10) {
            0 => false,
            1..4 => true,
            _ => return,
        };
        let written = self.house.health.unsaved_usage(urgent);
        for soul in &mut self.souls {
            if let Some((_, spent)) = written.iter().find(|(agent, _)| *agent == soul.id) {
                soul.spent = Some(spent.clone());
            }
        }
        self.house.health.usage_saved(&written);
    }

    /// This daemon dies; another begins on the same data directory.
    fn restart_daemon(&mut self) -> Ended {
        self.clients.iter_mut().for_each(Client::disconnected);
        self.wires.clear();
        self.basket.reports.lock().clear();
        let (model, first) = (&self.house.model, self.house.reserved + 1);
        self.seen.refused += model.refused;
        self.seen.late += model.late;
        self.seen.epochs += 1;
        self.epoch += 1;
        let away = self.chance.below(3_000);
        self.ms += away;
        let epoch = self.epoch;
        self.note(format_args!("a new daemon, epoch {epoch}, from {first}"));
        if first <= self.last_seq {
            return Err((Rule::NumbersGrow, format!("{first} was given out before")));
        }
        self.last_seq = first - 1;
        self.house = house(self.epoch, first, self.now(), &self.gate, &self.basket, self.is_crowded);
        self.restarted.clear();
        self.stood.clear();
        // The next daemon's documents are its own: what this one was told it was told itself.
        self.reported.clear();
        self.signs.clear();
        self.declare();
        let (ms, wall) = (self.ms, self.now().wall);
        for at in 0..self.souls.len() {
            let mut reports = Vec::new();
            self.souls[at].adopted(ms, wall, &mut reports);
            reports.into_iter().for_each(|report| self.tell(report));
            let soul = &self.souls[at];
            if matches!(soul.fate, Fate::Starting { .. }) {
                self.gate.lives.lock().insert(soul.id.clone(), (soul.incarnation, soul.token()));
            }
        }
        self.turn(None)
    }

    /// Nothing goes wrong any more; everything is delivered, folded, told and read.
    pub(super) fn rest(&mut self) -> Ended {
        self.is_calm = true;
        self.note(format_args!("everything comes to rest"));
        self.wires.iter_mut().for_each(|wire| wire.stalled_until = 0);
        for _ in 0..STEPS / 10 {
            self.pass(400)?;
            (0..self.souls.len()).for_each(|at| self.live(at));
            self.converse()?;
            self.deliver()?;
            self.watch()?;
            self.house.down_until = 0;
            self.turn(None)?;
        }
        // What changed by measured values alone is told within a second.
        while self.wires.iter().any(|wire| wire.waits() > 0) {
            self.deliver()?;
        }
        for _ in 0..3 {
            self.pass(1_100)?;
            self.turn(None)?;
        }
        // What time alone has just changed, too; and nothing changes for ever.
        for _ in 0..REST_SECONDS {
            let documents = actor::documents(&self.house.health);
            if documents.agents.iter().all(|doc| self.house.health.agent(&doc.id).as_ref() == Some(doc)) {
                break;
            }
            self.pass(1_100)?;
            self.turn(None)?;
        }
        self.watch()?;
        let waits = self.house.model.waits();
        let (told, documents) = (self.house.model.told, actor::documents(&self.house.health));
        let received: u64 = documents.agents.iter().map(|doc| doc.telemetry.received).sum();
        if waits > 0 || told != received {
            let dropped = documents.data_plane.dropped;
            let detail = format!("{waits} wait; {told} were told, {received} received, {dropped} of all dropped");
            return Err((Rule::EveryMessageIsCounted, detail));
        }
        if !self.house.model.to_be_restarted.is_empty() {
            let detail = format!("nobody was told of {:?}", self.house.model.to_be_restarted);
            return Err((Rule::StuckRestartsAsAsked, detail));
        }
        self.shown()
    }
}
