//! Carries what one room tells to those that listen. None of these blocks.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock, Weak},
    time::SystemTime,
};

use hivekeeper_actors::{EventKind as Supervised, EventSink, SupervisionEvent};
use parking_lot::Mutex;

use super::work::Signs;
use crate::{
    control_plane::{Check, Office, chronicle::Standings},
    events::Feed,
    health::{Handle, Report},
    http::HealthReader,
    model::{
        AgentHealth, AgentId, EngineNews, EngineWitness, EventKind, HiveHealth, Lost, Observation, SourceReport,
        SourceWitness, SwarmHealth, SwarmName, Telemetry, TelemetryKind, TelemetrySink, Witness,
    },
    runtime::{EndStuck, Registry, Veil},
    store::LogBook,
};

/// What the runtime room sees of agents, for health, and for whoever works with them.
pub(super) struct Seen {
    pub(super) health: Handle,
    pub(super) signs: Signs,
}

impl Witness for Seen {
    fn saw(&self, agent: &AgentId, incarnation: u64, what: Observation) {
        self.signs.saw(agent, incarnation, &what);
        self.health.report(Report::Runtime { agent: agent.clone(), incarnation, event: what });
    }
}

/// How the engine is, for health, and what becomes of containers, for the feed.
pub(super) struct Engines {
    pub(super) health: Handle,
    pub(super) feed: Feed,
}

impl EngineWitness for Engines {
    fn heard(&self, news: EngineNews) {
        let kind = match news {
            EngineNews::Reachable => return self.health.report(Report::Engine { ok: true, error: None }),
            EngineNews::Unreachable { why } => {
                return self.health.report(Report::Engine { ok: false, error: Some(why) });
            }
            EngineNews::Adjusted { swarm, adjustments } => {
                return self.health.report(Report::Adjusted { swarm, adjustments });
            }
            EngineNews::ContainerStarted { swarm, container, detail } => {
                EventKind::ContainerStarted { swarm, container, detail }
            }
            EngineNews::ContainerEnded { swarm, container, detail } => {
                EventKind::ContainerEnded { swarm, container, detail }
            }
        };
        self.feed.publish(SystemTime::now(), kind);
    }
}

/// What agents say: log records into their books, all of it to health, and that they speak to whoever gave them work.
pub struct Said {
    /// Who folds.
    pub health: Handle,
    /// Who keeps log records.
    pub logs: LogBook,
    /// Who knows what is hidden of them.
    pub registry: Registry,
    /// Who is told that they live.
    pub signs: Signs,
}

impl TelemetrySink for Said {
    fn accept(&self, mut batch: Vec<Telemetry>) {
        // A batch is of one session.
        if let Some(said) = batch.last() {
            self.signs.heard(said);
        }
        for said in &mut batch {
            if let Some(veil) = self.registry.veil(&said.agent) {
                hide(&veil, &mut said.kind);
            }
            keep(&self.logs, said, |agent, fallen| self.count_lost(agent, fallen));
        }
        self.health.report(Report::Telemetry(batch));
    }

    fn refused(&self, _: Option<&AgentId>, code: i64, messages: u64) {
        self.health.report(Report::Refused { code, messages });
    }

    fn dropped(&self, agent: &AgentId, incarnation: u64, lost: Lost) {
        self.health.report(Report::Dropped { agent: agent.clone(), incarnation, lost });
    }
}

/// What an agent says is neither kept nor shown with its secrets in it.
fn hide(veil: &Veil, said: &mut TelemetryKind) {
    match said {
        TelemetryKind::Heartbeat { progress: Some(progress), .. } => replace(progress, veil.json(progress)),
        TelemetryKind::Logs(records) => veil.records(records),
        TelemetryKind::Usage(report) => {
            if let Some(model) = &mut report.model {
                replace(model, veil.text(model));
            }
        }
        TelemetryKind::Event { kind, data } => {
            replace(kind, veil.text(kind));
            replace(data, veil.json(data));
        }
        TelemetryKind::SessionOpened
        | TelemetryKind::SessionClosed
        | TelemetryKind::Heartbeat { progress: None, .. }
        | TelemetryKind::Logged(_)
        | TelemetryKind::Counted(_) => {}
    }
}

fn replace(text: &mut Arc<str>, hidden: Option<String>) {
    if let Some(hidden) = hidden {
        *text = Arc::from(hidden);
    }
}

/// Hands log records to their book, and leaves how many they were. Tells of whom others fell out for them.
fn keep(logs: &LogBook, said: &mut Telemetry, mut lost: impl FnMut(AgentId, u64)) {
    let TelemetryKind::Logs(records) = &said.kind else { return };
    let logged = TelemetryKind::Logged(records.len() as u64);
    let TelemetryKind::Logs(records) = std::mem::replace(&mut said.kind, logged) else { return };
    for (agent, fallen) in logs.try_log(&said.agent, said.incarnation, said.at, records) {
        lost(agent, fallen);
    }
}

impl Said {
    /// Records fell out of the queue before they were written.
    fn count_lost(&self, agent: AgentId, records: u64) {
        let incarnation = self.health.agent(&agent).map_or(0, |agent| agent.incarnation);
        let event = Observation::Lost { lines: records, bytes: 0 };
        self.health.report(Report::Runtime { agent, incarnation, event });
    }
}

/// What dialers see of their sources, for health.
pub(super) struct Sources(pub(super) Handle);

impl SourceWitness for Sources {
    fn stands(&self, report: SourceReport) {
        self.0.report(Report::Source(report));
    }
}

/// What supervisors do: agents' fates to health and the journal, the daemon's own services' to readiness. The log hears of all from the supervisors
/// themselves.
pub(super) struct Supervision {
    pub(super) health: Handle,
    pub(super) standings: Standings,
    pub(super) services: Services,
    pub(super) office: Arc<Office>,
}

impl EventSink for Supervision {
    fn event(&self, event: SupervisionEvent) {
        match agent_of(&event.path) {
            Some(agent) => {
                self.office.heard_number(&agent, event.incarnation);
                self.standings.note(&agent, &event, SystemTime::now());
                self.health.report(Report::Supervision { agent, event });
            }
            None => {
                self.services.note(&event);
                if leaves_a_gap(&event) {
                    self.office.supervisor_fell();
                }
            }
        }
    }
}

/// The daemon's own services as their supervisors saw them last: each runs, or has ended and why. What has ended comes back by itself; until then
/// the daemon is not ready.
#[derive(Clone, Default)]
pub(super) struct Services {
    seen: Arc<Mutex<BTreeMap<Arc<str>, Option<String>>>>,
}

impl Services {
    fn note(&self, event: &SupervisionEvent) {
        let mut seen = self.seen.lock();
        match &event.kind {
            Supervised::Exited { reason } => _ = seen.insert(Arc::clone(&event.path), Some(reason.to_string())),
            Supervised::Started { .. } => _ = seen.insert(Arc::clone(&event.path), None),
            Supervised::Stopped | Supervised::Removed => _ = seen.remove(&event.path),
            _ => {}
        }
    }

    /// Whether the service at this path was seen to start and not to end since.
    pub(super) fn runs(&self, path: &str) -> bool {
        self.seen.lock().get(path).is_some_and(Option::is_none)
    }

    pub(super) fn check(&self) -> Check {
        let seen = self.seen.lock();
        let down = seen.iter().filter_map(|(path, why)| Some(format!("{path}: {}", why.as_ref()?)));
        let down: Vec<String> = down.collect();
        let detail = if down.is_empty() { "all run".to_owned() } else { down.join("; ") };
        Check { name: "services", ok: down.is_empty(), detail }
    }
}

/// Whether swarms may be without a supervisor now: one fell, or the one above all of them has begun anew, with none.
fn leaves_a_gap(event: &SupervisionEvent) -> bool {
    match &event.kind {
        Supervised::Exited { reason } => event.path.starts_with("root/swarms/") && !reason.is_normal(),
        Supervised::Started { .. } => &*event.path == "root/swarms",
        _ => false,
    }
}

/// `root/swarms/SWARM/AGENT`.
fn agent_of(path: &str) -> Option<AgentId> {
    path.strip_prefix("root/swarms/")?.parse().ok()
}

/// The health documents, as the HTTP edge reads them.
pub(super) struct Documents(pub(super) Handle);

impl HealthReader for Documents {
    fn hive(&self) -> Arc<HiveHealth> {
        self.0.hive()
    }

    fn swarm(&self, name: &SwarmName) -> Option<Arc<SwarmHealth>> {
        self.0.swarm(name)
    }

    fn agent(&self, id: &AgentId) -> Option<Arc<AgentHealth>> {
        self.0.agent(id)
    }
}

/// Ends agents that health calls stuck. The office is made after health, so it is told later.
#[derive(Clone, Default)]
pub(super) struct Stuck {
    office: Arc<OnceLock<Weak<Office>>>,
}

impl Stuck {
    pub(super) fn know(&self, office: &Arc<Office>) {
        // Told once, by the boot.
        let _ = self.office.set(Arc::downgrade(office));
    }

    pub(super) fn end(&self, agent: &AgentId, incarnation: u64) {
        let actor = self.office.get().and_then(Weak::upgrade).and_then(|office| office.agent_actor(agent));
        let Some(actor) = actor.filter(|actor| actor.incarnation() == incarnation) else { return };
        match actor.tell(EndStuck) {
            Ok(()) => tracing::warn!(%agent, incarnation, "agent makes no progress and is ended, as its document asks"),
            Err(error) => tracing::warn!(%agent, incarnation, %error, "failed to tell a stuck agent's actor"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::Duration;

    use hivekeeper_actors::{ChildId, ExitReason};

    use super::*;
    use crate::model::{LogLevel, LogRecord, LogRecords};

    #[test]
    fn a_service_is_down_from_its_end_to_its_next_start() {
        let services = Services::default();
        let note = |kind| {
            let (path, id) = (Arc::from("root/http"), ChildId::from("http"));
            let event = SupervisionEvent { path, id, incarnation: 1, restarts: 0, restarts_in_window: 0, kind };
            services.note(&event);
            let check = services.check();
            let runs = services.runs("root/http");
            (check, runs)
        };
        let reason = ExitReason::Error("no descriptors".into());
        let (check, runs) = note(Supervised::Starting { attempt: 0 });
        assert!(check.ok && !runs, "nothing has ended, and nothing runs yet");
        let (check, runs) = note(Supervised::Exited { reason: reason.clone() });
        assert!(
            !runs && !check.ok && check.detail.contains("root/http") && check.detail.contains("no descriptors"),
            "{check:?}"
        );
        let bad = |(check, runs): (Check, bool)| !check.ok && !runs;
        assert!(bad(note(Supervised::Failed { reason, retry_in: Some(Duration::from_secs(10)) })));
        assert!(bad(note(Supervised::Starting { attempt: 1 })));
        let (check, runs) = note(Supervised::Started { took: Duration::ZERO });
        assert!(check.ok && runs);
    }

    #[test]
    fn records_go_to_the_book_and_are_counted_by_health() {
        let dir = tempfile::tempdir().unwrap();
        let data =
            crate::store::DataDir::open(&dir.path().join("data"), "test", crate::store::Options::default()).unwrap();
        let limits = crate::store::LogLimits { bytes_per_agent: 1 << 20, total_bytes: 1 << 20, segment_bytes: 1 << 18 };
        let logs = LogBook::open(&data.logs_dir(), limits, data.fence()).unwrap();
        let mut records = LogRecords::default();
        for text in ["a", "b", "c"] {
            records.push(LogRecord { level: LogLevel::Warn, at: None, partial: false, text });
        }
        let agent: AgentId = "review/coder-1".parse().unwrap();
        let mut said = Telemetry {
            agent: agent.clone(),
            incarnation: 1,
            at: SystemTime::UNIX_EPOCH,
            kind: TelemetryKind::Logs(records),
        };
        keep(&logs, &mut said, |_, _| panic!("nothing falls out"));
        assert_eq!(said.kind, TelemetryKind::Logged(3));
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while logs.tail(&agent, 1, 9) != ["a", "b", "c"] {
            assert!(std::time::Instant::now() < deadline, "{:?}", logs.tail(&agent, 1, 9));
            std::thread::yield_now();
        }
    }

    #[test]
    fn only_agents_have_an_agents_path() {
        assert_eq!(agent_of("root/swarms/review/coder-1"), Some("review/coder-1".parse().unwrap()));
        for other in ["root", "root/http", "root/swarms", "root/swarms/review", "root/http/x/y"] {
            assert_eq!(agent_of(other), None, "{other}");
        }
    }
}
