//! Sources in the health document.

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{
    health::{MeasuredView, ReasonView, json_or_text, measured, reasons},
    schema::Anything,
    time::Rfc3339,
    words,
};
use crate::model::{SourceAgent, SourceHealth, ToolReport};

/// A polled MCP server, and what it claims.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = PolledSource)]
pub struct SourceView<'a> {
    name: &'a str,
    address: &'a str,
    #[schema(value_type = words::BreakerWord)]
    breaker: &'static str,
    since: Rfc3339,
    reasons: Vec<ReasonView<'a>>,
    retry_at: Option<Rfc3339>,
    protocol: Option<&'a str>,
    last_success: Option<Rfc3339>,
    last_error: Option<&'a str>,
    last_error_at: Option<Rfc3339>,
    age_ms: Option<u64>,
    polls: u64,
    failures: u64,
    cut: u64,
    tools: Vec<ToolView<'a>>,
    agents: Vec<SourceAgentView<'a>>,
    agents_left_out: u64,
}

/// What one of its tools said last.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Tool)]
pub struct ToolView<'a> {
    name: &'a str,
    error: Option<&'a str>,
    latency_ms: MeasuredView<u64>,
    #[schema(value_type = MeasuredView<Anything>)]
    answer: MeasuredView<Box<RawValue>>,
}

/// What it claims of one of its agents, in its own words.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = SourceAgent)]
pub struct SourceAgentView<'a> {
    name: &'a str,
    id: Option<&'a str>,
    state: MeasuredView<String>,
    kind: MeasuredView<String>,
    task: MeasuredView<String>,
    cpu: MeasuredView<f64>,
    memory: MeasuredView<u64>,
    last_heartbeat: MeasuredView<Rfc3339>,
    #[schema(value_type = MeasuredView<Anything>)]
    progress: MeasuredView<Box<RawValue>>,
}

/// Shows a source.
pub(super) fn source(source: &SourceHealth) -> SourceView<'_> {
    let report = &source.report;
    SourceView {
        name: report.spec.name.as_str(),
        address: &report.spec.address,
        breaker: words::breaker(report.breaker),
        since: Rfc3339(report.since),
        reasons: reasons(&source.reasons),
        retry_at: report.retry_at.map(Rfc3339),
        protocol: report.protocol.as_deref(),
        last_success: report.last_success.map(|(at, _)| Rfc3339(at)),
        last_error: report.last_error.as_ref().map(|(_, why)| &**why),
        last_error_at: report.last_error.as_ref().map(|(at, _)| Rfc3339(*at)),
        age_ms: source.age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        polls: report.polls,
        failures: report.failures,
        cut: report.cut,
        tools: report.tools.iter().map(tool).collect(),
        agents: report.agents.iter().map(agent).collect(),
        agents_left_out: report.agents_left_out,
    }
}

fn tool(tool: &ToolReport) -> ToolView<'_> {
    ToolView {
        name: &tool.name,
        error: tool.error.as_deref(),
        latency_ms: measured(&tool.latency_ms, |ms| *ms),
        answer: measured(&tool.answer, json_or_text),
    }
}

fn agent(agent: &SourceAgent) -> SourceAgentView<'_> {
    SourceAgentView {
        name: &agent.name,
        id: agent.id.as_deref(),
        state: measured(&agent.state, |word| word.to_string()),
        kind: measured(&agent.kind, |word| word.to_string()),
        task: measured(&agent.task, |word| word.to_string()),
        cpu: measured(&agent.cpu, |cores| *cores),
        memory: measured(&agent.memory, |bytes| *bytes),
        last_heartbeat: measured(&agent.last_heartbeat, |at| Rfc3339(*at)),
        progress: measured(&agent.progress, json_or_text),
    }
}
