//! Health documents.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{
    schema::{Anything, Nothing},
    source::{self, SourceView},
    time::Rfc3339,
    words,
};
use crate::model::{
    AgentHealth, AgentName, ControlPlaneHealth, DataPlaneHealth, DiskHealth, DiskUse, ExitCause, ExitRecord,
    HiveHealth, Lost, Measured, Place, Reason, SwarmHealth, TelemetryHealth, Usage,
};

/// What was seen of one agent.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Agent)]
pub struct AgentView<'a> {
    swarm: &'a str,
    name: &'a str,
    #[schema(value_type = words::AgentStateWord)]
    state: &'static str,
    since: Rfc3339,
    reasons: Vec<ReasonView<'a>>,
    #[schema(value_type = words::DesiredWord)]
    desired: &'static str,
    incarnation: u64,
    pid: Option<u32>,
    restarts: u64,
    restarts_in_window: u32,
    retry_at: Option<Rfc3339>,
    last_exit: Option<ExitView<'a>>,
    cpu: MeasuredView<f64>,
    memory: MeasuredView<u64>,
    last_heartbeat: MeasuredView<Rfc3339>,
    #[schema(value_type = MeasuredView<Anything>)]
    progress: MeasuredView<Box<RawValue>>,
    dropped: u64,
    usage: MeasuredView<UsageView>,
    #[schema(value_type = MeasuredView<String>)]
    model: MeasuredView<&'a str>,
    heartbeat_latency_ms: MeasuredView<u64>,
    telemetry: TelemetryView,
}

/// Tokens by the last part of their OpenTelemetry names, and money; null where the agent says nothing.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Usage)]
pub struct UsageView {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    reasoning_output_tokens: Option<u64>,
    cost_usd: Option<f64>,
}

/// What came in from an agent since this daemon started.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Telemetry)]
pub struct TelemetryView {
    received: u64,
    dropped: LostView,
    latency_ms: MeasuredView<f64>,
}

/// Counted loss, by class.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Lost)]
pub struct LostView {
    logs: u64,
    metrics: u64,
    events: u64,
}

/// A stable code and a detail for people.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Reason)]
pub struct ReasonView<'a> {
    code: &'a str,
    detail: &'a str,
}

/// How an incarnation ended. `detail` says the same in one line for people.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Exit)]
pub struct ExitView<'a> {
    incarnation: u64,
    code: Option<i32>,
    signal: Option<i32>,
    oom: Option<bool>,
    at: Rfc3339,
    #[schema(value_type = words::ExitCauseWord)]
    cause: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    detail: String,
    last_lines: &'a [String],
}

/// `{ value, observed_at, source }`, or `{ value: null, reason }`.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Measured)]
#[serde(untagged)]
pub enum MeasuredView<T> {
    /// What was measured, when and by whom.
    Value {
        /// What.
        value: T,
        /// When.
        observed_at: Rfc3339,
        /// By whom.
        #[schema(value_type = words::SourceWord)]
        source: &'static str,
    },
    /// Nothing that counts now.
    Absent {
        /// Null.
        #[schema(value_type = Nothing)]
        value: (),
        /// Why.
        #[schema(value_type = words::AbsentWord)]
        reason: &'static str,
    },
}

/// Agents named in an event of their swarm.
const NAMES_TOLD_MAX: usize = 16;

/// The document of one swarm.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = SwarmHealth)]
pub struct SwarmView<'a> {
    name: &'a str,
    #[schema(value_type = words::LevelWord)]
    level: &'static str,
    since: Rfc3339,
    reasons: Vec<ReasonView<'a>>,
    #[schema(value_type = words::DesiredWord)]
    desired: &'static str,
    #[schema(value_type = words::RuntimeWord)]
    runtime: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<&'a str>,
    relaxations: &'a [String],
    adjustments: &'a [String],
    /// In start order; in an event no more than the first few.
    agents: Vec<&'a str>,
    agents_total: usize,
}

/// Whether the runtime and the journal can be worked with.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ControlPlane)]
pub struct ControlPlaneView<'a> {
    reachable: bool,
    since: Rfc3339,
    last_error: Option<&'a str>,
}

/// What comes in from agents.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = DataPlane)]
pub struct DataPlaneView {
    listening: bool,
    sessions: u64,
    events_per_second: MeasuredView<f64>,
    dropped: u64,
    refused: u64,
    events_per_second_1m: MeasuredView<f64>,
    events_per_second_5m: MeasuredView<f64>,
    connections: u64,
    turned_away: u64,
    #[schema(value_type = BTreeMap<String, u64>)]
    refused_by_code: BTreeMap<i64, u64>,
    dropped_by_class: LostView,
}

/// The whole health document. `status` is `pass`, `warn` or `fail`, `level` says it in the product's words.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Health)]
pub struct HiveView<'a> {
    #[schema(value_type = words::StatusWord)]
    status: &'static str,
    #[schema(value_type = words::LevelWord)]
    level: &'static str,
    since: Rfc3339,
    reasons: Vec<ReasonView<'a>>,
    hive_id: String,
    hive: &'a str,
    control_plane: ControlPlaneView<'a>,
    data_plane: DataPlaneView,
    swarms: Vec<SwarmView<'a>>,
    agents: Vec<AgentView<'a>>,
    sources: Vec<SourceView<'a>>,
    disk: DiskView,
}

/// What the data directory takes of the disk, in bytes: `max` is what its parts may take together, `free` what the file system has left.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Disk)]
pub struct DiskView {
    journal: MeasuredView<u64>,
    history: MeasuredView<u64>,
    logs: MeasuredView<u64>,
    free: MeasuredView<u64>,
    max: Option<u64>,
}

/// Shows an agent.
pub fn agent(agent: &AgentHealth) -> AgentView<'_> {
    AgentView {
        swarm: agent.id.swarm.as_str(),
        name: agent.id.name.as_str(),
        state: words::agent_state(agent.state),
        since: Rfc3339(agent.since),
        reasons: reasons(&agent.reasons),
        desired: words::desired(agent.desired),
        incarnation: agent.incarnation,
        pid: agent.pid,
        restarts: agent.restarts,
        restarts_in_window: agent.restarts_in_window,
        retry_at: agent.retry_at.map(Rfc3339),
        last_exit: agent.last_exit.as_deref().map(exit),
        cpu: measured(&agent.cpu, |cores| *cores),
        memory: measured(&agent.memory, |bytes| *bytes),
        last_heartbeat: measured(&agent.last_heartbeat, |at: &SystemTime| Rfc3339(*at)),
        progress: measured(&agent.progress, json_or_text),
        dropped: agent.dropped,
        usage: measured(&agent.usage, usage),
        model: measured(&agent.model, |model| &**model),
        heartbeat_latency_ms: measured(&agent.heartbeat_latency_ms, |late| *late),
        telemetry: telemetry(&agent.telemetry),
    }
}

fn usage(usage: &Usage) -> UsageView {
    UsageView {
        input_tokens: usage.input_tokens,
        output_tokens: usage.output_tokens,
        cache_read_input_tokens: usage.cache_read_input_tokens,
        cache_creation_input_tokens: usage.cache_creation_input_tokens,
        reasoning_output_tokens: usage.reasoning_output_tokens,
        cost_usd: usage.cost_usd,
    }
}

fn telemetry(telemetry: &TelemetryHealth) -> TelemetryView {
    TelemetryView {
        received: telemetry.received,
        dropped: lost(telemetry.dropped),
        latency_ms: measured(&telemetry.latency_ms, |latency| *latency),
    }
}

fn lost(lost: Lost) -> LostView {
    LostView { logs: lost.logs, metrics: lost.metrics, events: lost.events }
}

/// Shows how an incarnation ended.
pub fn exit(exit: &ExitRecord) -> ExitView<'_> {
    ExitView {
        incarnation: exit.incarnation,
        code: exit.code,
        signal: exit.signal,
        oom: exit.oom,
        at: Rfc3339(exit.at),
        cause: words::exit_cause(&exit.cause),
        message: match &exit.cause {
            ExitCause::StartFailed { message } | ExitCause::ContainerLost { message } => Some(message),
            _ => None,
        },
        detail: exit.describe(),
        last_lines: &exit.last_lines,
    }
}

/// Shows a swarm.
pub fn swarm(swarm: &SwarmHealth) -> SwarmView<'_> {
    swarm_of(swarm, usize::MAX)
}

/// Shows a swarm in an event. Its agents are told of one by one, and a swarm of a thousand changes many times a second.
pub(super) fn swarm_changed(swarm: &SwarmHealth) -> SwarmView<'_> {
    swarm_of(swarm, NAMES_TOLD_MAX)
}

fn swarm_of(swarm: &SwarmHealth, names_max: usize) -> SwarmView<'_> {
    let (image, container) = match &swarm.home.place {
        None => (None, None),
        Some(Place::Own { image }) => (Some(image.as_str()), None),
        Some(Place::Sidecar { container }) => (None, Some(container.as_str())),
    };
    SwarmView {
        name: swarm.name.as_str(),
        level: words::level(swarm.level),
        since: Rfc3339(swarm.since),
        reasons: reasons(&swarm.reasons),
        desired: words::desired(swarm.desired),
        runtime: words::runtime(swarm.home.runtime),
        image,
        container,
        relaxations: &swarm.home.relaxations,
        adjustments: &swarm.home.adjustments,
        agents: swarm.agents.iter().take(names_max).map(AgentName::as_str).collect(),
        agents_total: swarm.agents.len(),
    }
}

/// Shows the hive: the health document.
pub fn hive(hive: &HiveHealth) -> HiveView<'_> {
    HiveView {
        status: words::status(hive.level),
        level: words::level(hive.level),
        since: Rfc3339(hive.since),
        reasons: reasons(&hive.reasons),
        hive_id: hive.hive.to_string(),
        hive: &hive.name,
        control_plane: control_plane(&hive.control_plane),
        data_plane: data_plane(&hive.data_plane),
        swarms: hive.swarms.iter().map(|one| swarm(one)).collect(),
        agents: hive.agents.iter().map(|one| agent(one)).collect(),
        sources: hive.sources.iter().map(|one| source::source(one)).collect(),
        disk: disk(&hive.disk),
    }
}

fn disk(disk: &DiskHealth) -> DiskView {
    let part = |of: fn(&DiskUse) -> u64| measured(&disk.found, of);
    DiskView {
        journal: part(|found| found.journal),
        history: part(|found| found.history),
        logs: part(|found| found.logs),
        free: part(|found| found.free),
        max: disk.max,
    }
}

/// Shows the runtime's side.
pub fn control_plane(plane: &ControlPlaneHealth) -> ControlPlaneView<'_> {
    ControlPlaneView {
        reachable: plane.reachable,
        since: Rfc3339(plane.since),
        last_error: plane.last_error.as_deref(),
    }
}

/// Shows the telemetry's side.
pub fn data_plane(plane: &DataPlaneHealth) -> DataPlaneView {
    DataPlaneView {
        listening: plane.listening,
        sessions: plane.sessions,
        events_per_second: measured(&plane.events_per_second, |rate| *rate),
        dropped: plane.dropped,
        refused: plane.refused,
        events_per_second_1m: measured(&plane.events_per_second_1m, |rate| *rate),
        events_per_second_5m: measured(&plane.events_per_second_5m, |rate| *rate),
        connections: plane.connections,
        turned_away: plane.turned_away,
        refused_by_code: plane.refused_by_code.clone(),
        dropped_by_class: lost(plane.dropped_by_class),
    }
}

pub(super) fn reasons(reasons: &[Reason]) -> Vec<ReasonView<'_>> {
    reasons.iter().map(|reason| ReasonView { code: reason.code, detail: &reason.detail }).collect()
}

/// Splits `code: detail`, the form in which the hive's own event carries its reasons.
pub(super) fn reason_text(text: &str) -> ReasonView<'_> {
    let (code, detail) = text.split_once(": ").unwrap_or((text, ""));
    ReasonView { code, detail }
}

/// JSON as an agent wrote it; what is no JSON after all becomes a string, so that one agent can't break the document of all.
pub(super) fn json_or_text(text: &Arc<str>) -> Box<RawValue> {
    RawValue::from_string(text.to_string())
        .or_else(|_| serde_json::value::to_raw_value(text))
        .unwrap_or_else(|_| RawValue::NULL.to_owned())
}

pub(super) fn measured<'a, T, U>(measured: &'a Measured<T>, show: impl FnOnce(&'a T) -> U) -> MeasuredView<U> {
    match measured {
        Measured::Value { value, observed_at, source } => MeasuredView::Value {
            value: show(value),
            observed_at: Rfc3339(*observed_at),
            source: words::source(*source),
        },
        Measured::Absent(absent) => MeasuredView::Absent { value: (), reason: words::absent(*absent) },
    }
}
