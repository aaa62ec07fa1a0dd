//! What everybody else holds of the health room. Its state lives here, outside the actor, so that an actor that panics loses nothing.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use dashmap::DashMap;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use super::{
    burst::Burst,
    change::{Change, Identity},
    fold::Fold,
    intake::{Intake, Item},
    monitor::Monitor,
    report::{Now, Report},
    whole::Parts,
};
use crate::{
    events::Feed,
    model::{AgentHealth, AgentId, EventKind, HiveHealth, Reason, Spent, SwarmHealth, SwarmName},
};

/// Items folded in one turn before the other actors of the thread get theirs: about a millisecond's work.
const TURN_ITEMS_MAX: usize = 1024;

/// A turn that takes longer than this is followed by a rest as long as itself, in which what comes gathers: under load documents are made once for many
/// messages, and folding never takes more than half a core. Well above what a turn of few agents takes, so that a lone change is told at once.
const TURN_SHORT: Duration = Duration::from_micros(200);

/// Longest rest, so that a slow turn makes nobody wait for the next one: a frame of a viewer's screen.
const REST_MAX: Duration = Duration::from_millis(16);

/// Called with an agent that has become stuck, and its incarnation, when its document asks for a restart then. Called in the middle of a turn: it must
/// not block, and it must not ask for the [whole document](Handle::hive), which waits for the turn's end.
pub type OnStuck = Arc<dyn Fn(AgentId, u64) + Send + Sync>;

/// What the health room needs.
#[derive(Clone)]
pub struct Options {
    /// What does not change.
    pub identity: Identity,
    /// Where changes are published.
    pub feed: Feed,
    /// Who restarts stuck agents.
    pub on_stuck: OnStuck,
}

/// A handle on the health of the hive; clones are the same.
#[derive(Clone)]
pub struct Handle {
    pub(super) shared: Arc<Shared>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

impl Handle {
    /// An empty hive. Nothing is folded until a [`Monitor`] runs.
    pub fn new(options: Options) -> Self {
        Self::begin(options, Now::read())
    }

    pub(super) fn begin(options: Options, now: Now) -> Self {
        let fold = Fold::new(options.identity.clone(), now);
        let hive = RwLock::new((0, Arc::new(fold.hive())));
        let work = Work {
            fold,
            items: VecDeque::new(),
            changes: VecDeque::new(),
            shown_at: None,
            rates_shown: None,
            rest: Duration::ZERO,
        };
        Self {
            shared: Arc::new(Shared {
                options,
                intake: Mutex::default(),
                wake: Notify::new(),
                work: Mutex::new(work),
                agents: DashMap::new(),
                swarms: DashMap::new(),
                hive,
                making: Mutex::new(()),
                told: AtomicU64::new(0),
                last_words: Notify::new(),
            }),
        }
    }

    /// The actor that folds, for the factory of a supervised child. Each call makes a new incarnation, which goes on where the last one was.
    pub fn monitor(&self) -> Monitor {
        Monitor::new(Arc::clone(&self.shared))
    }

    /// Takes a report. Never blocks.
    pub fn report(&self, report: Report) {
        self.report_at(report, Instant::now());
    }

    pub(super) fn report_at(&self, report: Report, now: Instant) {
        match report {
            // Summed up before the lock, which every connection needs.
            Report::Telemetry(batch) => Burst::sum_up(batch, |one| self.shared.intake.lock().hear(one, now)),
            other => self.shared.intake.lock().put(other, now),
        }
        self.shared.wake.notify_one();
    }

    /// The whole document, as of the last turn; what is only measured may be a second older. It is made for whoever asks first after a change and
    /// is shared by all who ask later, so that a hive of thousands that changes all the time pays for it only as often as it is read. Waits for
    /// a turn that is under way, some milliseconds at most; a turn waits only until its parts are taken, not until it is made of them.
    pub fn hive(&self) -> Arc<HiveHealth> {
        self.shared.hive()
    }

    /// What agents have used and nobody has [written down](Handle::usage_saved) yet; with `urgent` only what is the last word of somebody. It is the
    /// same until it is written, so that a writer that falls loses nothing.
    pub fn unsaved_usage(&self, urgent: bool) -> Vec<(AgentId, Spent)> {
        self.shared.work.lock().fold.unsaved.list(urgent)
    }

    /// These were written down.
    pub fn usage_saved(&self, written: &[(AgentId, Spent)]) {
        self.shared.work.lock().fold.unsaved.saved(written);
    }

    /// Waits until there is something urgent among [what is to be written](Handle::unsaved_usage).
    pub async fn usage_urgent(&self) {
        self.shared.last_words.notified().await;
    }

    /// One agent's document.
    pub fn agent(&self, id: &AgentId) -> Option<Arc<AgentHealth>> {
        self.shared.agents.get(id).map(|doc| Arc::clone(&doc))
    }

    /// One swarm's document.
    pub fn swarm(&self, name: &SwarmName) -> Option<Arc<SwarmHealth>> {
        self.shared.swarms.get(name).map(|doc| Arc::clone(&doc))
    }
}

/// The actor's work in progress. What is taken out of a queue is folded or published by the time the lock is given back, or lost alone.
pub(super) struct Work {
    pub(super) fold: Fold,
    pub(super) items: VecDeque<Item>,
    pub(super) changes: VecDeque<Change>,
    shown_at: Option<Instant>,
    rates_shown: Option<Instant>,
    /// What the last turn asks for before the next.
    rest: Duration,
}

impl Work {
    pub(super) fn fold_item(&mut self, now: Now, item: Item) {
        self.changes.extend(match item {
            Item::Report(report) => self.fold.apply(now, report),
            Item::Burst(agent, burst) => self.fold.burst(now, &agent, &burst),
            Item::Said(telemetry) => self.fold.said(now, &telemetry),
            Item::Refused(code, messages) => {
                self.fold.refused(code, messages);
                Vec::new()
            }
        });
    }
}

pub(super) struct Shared {
    options: Options,
    intake: Mutex<Intake>,
    wake: Notify,
    pub(super) work: Mutex<Work>,
    agents: DashMap<AgentId, Arc<AgentHealth>>,
    swarms: DashMap<SwarmName, Arc<SwarmHealth>>,
    /// The whole document, and how much had been told when its parts were taken.
    hive: RwLock<(u64, Arc<HiveHealth>)>,
    /// Held by whoever makes the next one.
    making: Mutex<()>,
    /// How often something was told that the whole document shows. Grows under the lock on the work.
    told: AtomicU64,
    /// What somebody has used is known for good, and not journaled.
    last_words: Notify,
}

impl Shared {
    /// Waits until there is something to fold, or until time alone changes something.
    pub(super) async fn due(&self) {
        let (deadline, rest) = {
            let work = self.work.lock();
            (work.fold.next_deadline(), work.rest)
        };
        if !rest.is_zero() {
            tokio::time::sleep(rest).await;
        }
        // Both outcomes mean the same: look.
        let _ = tokio::time::timeout_at(deadline.into(), self.wake.notified()).await;
    }

    /// Folds what waits, shows the documents and publishes the changes, in this order: who sees an event sees its document, too.
    pub(super) fn turn(&self) {
        let work = &mut *self.work.lock();
        let began = Instant::now();
        self.fetch(work);
        // Read behind the intake: nothing that is folded was read later than now.
        let now = Now::read();
        work.fold.wake(now);
        for _ in 0..TURN_ITEMS_MAX {
            let Some(item) = work.items.pop_front() else { break };
            work.fold_item(now, item);
        }
        self.judge(work, now);
        self.show(work, now);
        if work.fold.unsaved.has_news() {
            self.last_words.notify_one();
        }
        while let Some(change) = work.changes.pop_front() {
            self.tell(now, change);
        }
        let took = began.elapsed();
        work.rest = if took <= TURN_SHORT { Duration::ZERO } else { took.min(REST_MAX) };
    }

    pub(super) fn fetch(&self, work: &mut Work) {
        if work.items.len() < TURN_ITEMS_MAX {
            self.intake.lock().drain(&mut work.items);
        }
    }

    pub(super) fn judge(&self, work: &mut Work, now: Now) {
        if work.items.is_empty() {
            work.changes.extend(work.fold.tick(now));
        } else {
            // Silence is judged only when everything that was said has been heard.
            let mut levels = Vec::new();
            work.fold.derive_levels(now, &mut levels);
            work.changes.extend(levels);
            self.wake.notify_one();
        }
    }

    pub(super) fn show(&self, work: &mut Work, now: Now) {
        for change in &work.changes {
            match change {
                Change::Agent { agent, .. } => {
                    self.agents.insert(agent.id.clone(), Arc::clone(agent));
                }
                Change::Samples(agents) => {
                    for agent in agents {
                        self.agents.insert(agent.id.clone(), Arc::clone(agent));
                    }
                }
                Change::Swarm { swarm, .. } => {
                    self.swarms.insert(swarm.name.clone(), Arc::clone(swarm));
                }
                Change::AgentRemoved(id) => {
                    self.agents.remove(id);
                }
                Change::SwarmRemoved(name) => {
                    self.swarms.remove(name);
                }
                Change::Hive { .. } | Change::Source { .. } | Change::Said { .. } | Change::Stuck { .. } => {}
            }
        }
        let aged = work.shown_at.is_none_or(|at| now.mono.saturating_duration_since(at) >= super::SAMPLES_INTERVAL);
        // A rate stands for one window: one that is not shown in its time never is.
        let counted = work.rates_shown != Some(work.fold.rates_measured_at());
        if aged || counted || !work.changes.is_empty() {
            work.shown_at = Some(now.mono);
            work.rates_shown = Some(work.fold.rates_measured_at());
            self.told.fetch_add(1, Ordering::Release);
        }
    }

    fn hive(&self) -> Arc<HiveHealth> {
        let told = self.told.load(Ordering::Acquire);
        if let Some(hive) = self.made(told) {
            return hive;
        }
        let _making = self.making.lock();
        // Somebody may have made it while we waited.
        if let Some(hive) = self.made(told) {
            return hive;
        }
        let (told, parts) = self.parts();
        self.make(told, parts)
    }

    /// The whole document, if it shows all of this.
    fn made(&self, told: u64) -> Option<Arc<HiveHealth>> {
        let (shown, hive) = &*self.hive.read();
        (*shown >= told).then(|| Arc::clone(hive))
    }

    /// What the whole document is made of, and how much was told by then.
    pub(super) fn parts(&self) -> (u64, Parts) {
        let work = self.work.lock();
        (self.told.load(Ordering::Acquire), work.fold.parts())
    }

    pub(super) fn make(&self, told: u64, parts: Parts) -> Arc<HiveHealth> {
        let hive = Arc::new(parts.into_hive());
        let before = std::mem::replace(&mut *self.hive.write(), (told, Arc::clone(&hive)));
        // The last one who holds thousands of documents frees them: not while others wait to read.
        drop(before);
        hive
    }

    pub(super) fn tell(&self, now: Now, change: Change) {
        let (at, kind) = match change {
            Change::Agent { from, agent } => (now.wall, EventKind::AgentChanged { from, agent }),
            Change::Samples(agents) => (now.wall, EventKind::Samples { agents }),
            Change::Swarm { from, swarm } => (now.wall, EventKind::SwarmChanged { from, swarm }),
            Change::AgentRemoved(agent) => (now.wall, EventKind::AgentRemoved { agent }),
            // The model has no event for it: its agents' removals tell it.
            Change::SwarmRemoved(_) => return,
            Change::Hive { from, to, reasons } => {
                let reasons = reasons.iter().map(|Reason { code, detail }| format!("{code}: {detail}")).collect();
                (now.wall, EventKind::HiveChanged { from, to, reasons })
            }
            Change::Source { source, from, to, reasons, agents, appeared, gone } => {
                let reasons = reasons.iter().map(|Reason { code, detail }| format!("{code}: {detail}")).collect();
                (now.wall, EventKind::SourceChanged { source, from, to, reasons, agents, appeared, gone })
            }
            Change::Said { agent, incarnation, at, kind, data } => {
                (at, EventKind::AgentSaid { agent, incarnation, kind, data })
            }
            Change::Stuck { agent, incarnation } => {
                (self.options.on_stuck)(agent, incarnation);
                return;
            }
        };
        self.options.feed.publish(at, kind);
    }
}
