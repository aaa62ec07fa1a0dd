//! Sources folded: what their dialers tell and time. Pure. Nothing here touches an agent or a count of ours: what a server claims stays its claim,
//! and the worst that a source does to the hive is to make it `degraded`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{SAMPLES_INTERVAL, change::Change, report::Now};
use crate::model::{
    BreakerState, Level, Measured, Reason, SourceAgent, SourceHealth, SourceName, SourceReport, SourceSpec,
    health::Absent,
};

/// Intervals after which what a source said no longer stands for now: two polls may fail before it is out of date.
const STALE_INTERVALS: u32 = 3;
/// Agents named in one event before the rest is only counted: a line that people read.
const NAMES_MAX: usize = 20;

#[derive(Debug)]
struct Entry {
    report: SourceReport,
    shown: Arc<SourceHealth>,
    told: Option<Told>,
}

/// What the last event said.
#[derive(Debug, Clone, PartialEq)]
struct Told {
    breaker: BreakerState,
    keys: BTreeSet<Arc<str>>,
}

impl Told {
    /// A server that is down for hours is tried again and again, and each trial that fails half-opens the breaker for a moment. The document shows
    /// that; it is no news.
    fn is_down(&self) -> bool {
        self.breaker != BreakerState::Closed
    }
}

/// All sources, by name.
#[derive(Debug, Default)]
pub(super) struct Sources {
    entries: BTreeMap<SourceName, Entry>,
    /// When ages were counted last.
    aged_at: Option<Instant>,
}

impl Sources {
    /// Takes where a source stands.
    pub(super) fn stands(&mut self, now: Now, report: SourceReport) -> Option<Change> {
        let name = report.spec.name.clone();
        let told = self.entries.remove(&name).and_then(|entry| entry.told);
        let shown = Arc::new(show(&report, now));
        let keys: BTreeSet<Arc<str>> = report.agents.iter().map(SourceAgent::key).cloned().collect();
        let next = Told { breaker: report.breaker, keys };
        let change = change(&name, told.as_ref(), &next, &shown);
        let told = if change.is_some() { Some(next) } else { told };
        self.entries.insert(name, Entry { report, shown, told });
        change
    }

    /// Lets time pass: ages grow, and what is too old is shown as stale. Once a second: a busy fold ticks far more often.
    pub(super) fn tick(&mut self, now: Now) {
        if self.aged_at.is_some_and(|at| now.mono.saturating_duration_since(at) < SAMPLES_INTERVAL) {
            return;
        }
        self.aged_at = Some(now.mono);
        for entry in self.entries.values_mut() {
            entry.shown = Arc::new(show(&entry.report, now));
        }
    }

    /// The documents.
    pub(super) fn docs(&self) -> Vec<Arc<SourceHealth>> {
        self.entries.values().map(|entry| Arc::clone(&entry.shown)).collect()
    }

    /// What the hive's level follows from, too: at most `degraded`.
    pub(super) fn complain(&self, level: &mut Level, reasons: &mut Vec<Reason>) {
        let down: Vec<&str> =
            self.entries.iter().filter(|(_, entry)| is_down(entry)).map(|(name, _)| name.as_str()).collect();
        if down.is_empty() {
            return;
        }
        *level = (*level).max(Level::Degraded);
        let named = down[..down.len().min(NAMES_MAX)].join(", ");
        let more = down.len().saturating_sub(NAMES_MAX);
        let detail = if more > 0 { format!("{named} and {more} more") } else { named };
        reasons.push(Reason { code: "source_down", detail });
    }
}

fn is_down(entry: &Entry) -> bool {
    entry.report.breaker != BreakerState::Closed
}

fn change(name: &SourceName, before: Option<&Told>, after: &Told, shown: &SourceHealth) -> Option<Change> {
    if before.is_some_and(|before| before.is_down() == after.is_down() && before.keys == after.keys) {
        return None;
    }
    let nobody = BTreeSet::new();
    let were = before.map_or(&nobody, |told| &told.keys);
    let some = |a: &BTreeSet<Arc<str>>, b: &BTreeSet<Arc<str>>| a.difference(b).take(NAMES_MAX).cloned().collect();
    Some(Change::Source {
        source: name.clone(),
        from: before.map(|told| told.breaker),
        to: after.breaker,
        reasons: shown.reasons.clone(),
        agents: shown.report.agents.len(),
        appeared: some(&after.keys, were),
        gone: some(were, &after.keys),
    })
}

fn show(report: &SourceReport, now: Now) -> SourceHealth {
    let spec = &report.spec;
    let patience = spec.interval * STALE_INTERVALS + spec.timeout;
    let age = |at: Instant| now.mono.saturating_duration_since(at);
    let stale = |at: Option<Instant>| at.is_some_and(|at| age(at) > patience);
    let mut shown = report.clone();
    if stale(report.agents_listed.map(|(_, at)| at)) {
        shown.agents = report.agents.iter().map(aged).collect();
    }
    for tool in &mut shown.tools {
        if stale(tool.answered) {
            age_value(&mut tool.answer);
            age_value(&mut tool.latency_ms);
        }
    }
    let age = report.last_success.map(|(_, at)| age(at));
    SourceHealth { reasons: reasons(report, age, patience), report: shown, age }
}

fn reasons(report: &SourceReport, age: Option<Duration>, patience: Duration) -> Vec<Reason> {
    let error = || report.last_error.as_ref().map(|(_, why)| why.to_string()).unwrap_or_default();
    let mut reasons = Vec::new();
    let mut add = |code, detail| reasons.push(Reason { code, detail });
    match report.breaker {
        BreakerState::Open | BreakerState::HalfOpen => {
            add("source_down", format!("{} polls in a row failed: {}", report.failures_in_a_row, error()));
        }
        BreakerState::Closed if report.failures_in_a_row > 0 => add("poll_failed", error()),
        BreakerState::Closed if report.last_success.is_none() => add("not_polled", polling(&report.spec)),
        BreakerState::Closed => {}
    }
    if age.is_some_and(|age| age > patience) {
        add("source_stale", format!("nothing was heard for {} s", age.unwrap_or_default().as_secs()));
    }
    for tool in &report.tools {
        if let Some(why) = &tool.error {
            add("tool_failed", format!("{}: {why}", tool.name));
        }
    }
    reasons
}

fn polling(spec: &SourceSpec) -> String {
    format!("no poll of {} has ended yet", spec.address)
}

fn aged(agent: &SourceAgent) -> SourceAgent {
    let mut agent = agent.clone();
    age_value(&mut agent.state);
    age_value(&mut agent.kind);
    age_value(&mut agent.task);
    age_value(&mut agent.cpu);
    age_value(&mut agent.memory);
    age_value(&mut agent.last_heartbeat);
    age_value(&mut agent.progress);
    agent
}

/// Too old to stand for now. What was never there stays so.
fn age_value<T>(measured: &mut Measured<T>) {
    if measured.value().is_some() {
        *measured = Measured::Absent(Absent::Stale);
    }
}
