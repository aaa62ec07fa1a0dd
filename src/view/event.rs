//! Events of the feed.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ObjectBuilder, RefOr, Schema,
        schema::{AllOfBuilder, OneOfBuilder},
    },
};

use super::{
    health::{self, AgentView, ReasonView, SwarmView},
    operation::{self, OperationView},
    schema::Anything,
    time::Rfc3339,
    words, work,
};
use crate::model::{AgentState, Event, EventKind, Level};

/// One numbered event: what all have in common, then what its kind adds.
#[derive(Debug, Clone, Serialize)]
pub struct EventView<'a> {
    seq: u64,
    epoch: u64,
    at: Rfc3339,
    kind: &'static str,
    /// The agent, swarm, operation or token that it is about; `SWARM/ID` of a task, a lock or a message; empty for the hive.
    subject: String,
    #[serde(flatten)]
    body: Body<'a>,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(untagged)]
enum Body<'a> {
    AgentChanged {
        from: Option<&'static str>,
        agent: Box<AgentView<'a>>,
    },
    Samples {
        agents: Vec<AgentView<'a>>,
    },
    SwarmChanged {
        from: Option<&'static str>,
        swarm: SwarmView<'a>,
    },
    AgentRemoved {},
    HiveChanged {
        from: &'static str,
        to: &'static str,
        reasons: Vec<ReasonView<'a>>,
    },
    OperationChanged {
        operation: OperationView<'a>,
    },
    AgentSaid {
        incarnation: u64,
        event: &'a str,
        #[schema(value_type = Anything)]
        data: Box<RawValue>,
    },
    Container {
        container: &'a str,
        detail: &'a str,
    },
    SourceChanged {
        from: Option<&'static str>,
        to: &'static str,
        reasons: Vec<ReasonView<'a>>,
        agents: usize,
        #[schema(value_type = Vec<String>)]
        appeared: &'a [Arc<str>],
        #[schema(value_type = Vec<String>)]
        gone: &'a [Arc<str>],
    },
    Audit {
        by: Option<&'a str>,
        token: Option<&'a str>,
        peer: &'a str,
        method: &'a str,
        path: &'a str,
        status: u16,
        code: Option<&'static str>,
        count: u64,
    },
    TaskChanged {
        from: Option<work::TaskStateWord>,
        task: Box<work::TaskBriefView<'a>>,
    },
    LockChanged {
        /// `waits`, `granted`, `changed`, `released`, `lease_expired`, `holder_ended`, `swarm_removed` or `not_given`.
        change: &'static str,
        /// Why it was not given.
        reason: Option<ReasonView<'a>>,
        lock: Box<work::LockBriefView<'a>>,
    },
    MessageChanged {
        /// `sent`, `delivered`, `returned`, `acknowledged`, `answered`, `unanswered`, `died`, `redriven` or `lost`.
        change: &'static str,
        message: Box<work::MessageBriefView<'a>>,
    },
    WorkUntold {
        /// Changes of tasks that no event tells, because too many came at once.
        tasks: u64,
        /// Of locks.
        locks: u64,
        /// Of messages.
        messages: u64,
    },
    DaemonStarted {
        version: &'static str,
        pid: u32,
    },
    DaemonStopping {
        how: &'static str,
    },
}

/// The kinds of events with each of the bodies, in the order of the bodies.
const KINDS: &[&[&str]] = &[
    &["agent_changed"],
    &["samples"],
    &["swarm_changed"],
    &["agent_removed"],
    &["hive_changed"],
    &["operation_changed"],
    &["agent_said"],
    &["container_started", "container_ended"],
    &["source_changed"],
    &["audit"],
    &["task_changed"],
    &["lock_changed"],
    &["message_changed"],
    &["work_untold"],
    &["daemon_started"],
    &["daemon_stopping"],
];

/// Every kind of event.
pub fn event_kinds() -> impl Iterator<Item = &'static str> {
    KINDS.iter().copied().flatten().copied()
}

impl PartialSchema for EventView<'_> {
    /// One of the bodies, each with what all have in common and its own kinds: the kind tells which.
    fn schema() -> RefOr<Schema> {
        let RefOr::T(Schema::OneOf(bodies)) = Body::schema() else { return Body::schema() };
        let whole = bodies.items.into_iter().zip(KINDS).map(|(body, kinds)| {
            let common = ObjectBuilder::new()
                .property("seq", u64::schema())
                .property("epoch", u64::schema())
                .property("at", Rfc3339::schema())
                .property("kind", words::one_of("What happened.", kinds))
                .property("subject", String::schema());
            let common = ["seq", "epoch", "at", "kind", "subject"].into_iter().fold(common, ObjectBuilder::required);
            AllOfBuilder::new().item(common).item(body)
        });
        let text = "One numbered event: what all have in common, then what its kind adds.";
        RefOr::T(whole.fold(OneOfBuilder::new().description(Some(text)), OneOfBuilder::item).into())
    }
}

impl ToSchema for EventView<'_> {
    fn name() -> std::borrow::Cow<'static, str> {
        "Event".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Body::schemas(schemas);
    }
}

impl EventView<'_> {
    /// The agent, swarm, operation or token that it is about; empty for the hive.
    pub fn subject(&self) -> &str {
        &self.subject
    }
}

/// Shows an event.
pub fn event(event: &Event) -> EventView<'_> {
    let (subject, body) = parts(&event.kind);
    EventView { seq: event.seq.0, epoch: event.epoch.0, at: Rfc3339(event.at), kind: event.kind.word(), subject, body }
}

/// An event as the journal keeps it is shown as it was kept: its body is the document that [`event`] made.
pub fn stored_event(body: &Arc<str>) -> Box<RawValue> {
    health::json_or_text(body)
}

fn parts(kind: &EventKind) -> (String, Body<'_>) {
    match kind {
        EventKind::AgentChanged { from, agent } => (
            agent.id.to_string(),
            Body::AgentChanged {
                from: from.map(|state: AgentState| words::agent_state(state)),
                agent: Box::new(health::agent(agent)),
            },
        ),
        EventKind::Samples { agents } => {
            (String::new(), Body::Samples { agents: agents.iter().map(|one| health::agent(one)).collect() })
        }
        EventKind::SwarmChanged { from, swarm } => (
            swarm.name.to_string(),
            Body::SwarmChanged {
                from: from.map(|level: Level| words::level(level)),
                swarm: health::swarm_changed(swarm),
            },
        ),
        EventKind::AgentRemoved { agent } => (agent.to_string(), Body::AgentRemoved {}),
        EventKind::HiveChanged { from, to, reasons } => (
            String::new(),
            Body::HiveChanged {
                from: words::level(*from),
                to: words::level(*to),
                reasons: reasons.iter().map(|text| health::reason_text(text)).collect(),
            },
        ),
        EventKind::OperationChanged { operation } => {
            (operation.id.to_string(), Body::OperationChanged { operation: operation::operation_changed(operation) })
        }
        EventKind::AgentSaid { agent, incarnation, kind, data } => (
            agent.to_string(),
            Body::AgentSaid { incarnation: *incarnation, event: kind, data: health::json_or_text(data) },
        ),
        EventKind::ContainerStarted { swarm, container, detail }
        | EventKind::ContainerEnded { swarm, container, detail } => {
            (swarm.to_string(), Body::Container { container, detail })
        }
        EventKind::SourceChanged { source, from, to, reasons, agents, appeared, gone } => (
            source.to_string(),
            Body::SourceChanged {
                from: from.map(words::breaker),
                to: words::breaker(*to),
                reasons: reasons.iter().map(|text| health::reason_text(text)).collect(),
                agents: *agents,
                appeared,
                gone,
            },
        ),
        EventKind::Audit(audit) => (
            audit.token.as_ref().map(|(_, name)| name.to_string()).unwrap_or_default(),
            Body::Audit {
                by: audit.token.as_ref().map(|(_, name)| name.as_str()),
                token: audit.token.as_ref().map(|(id, _)| id.as_str()),
                peer: &audit.peer,
                method: &audit.method,
                path: &audit.path,
                status: audit.status,
                code: audit.code,
                count: audit.count,
            },
        ),
        EventKind::TaskChanged { from, task } => (
            format!("{}/{}", task.swarm, task.id),
            Body::TaskChanged { from: from.map(work::Word), task: Box::new(work::task_brief(task)) },
        ),
        EventKind::LockChanged { change, reason, lock } => (
            format!("{}/{}", lock.swarm, lock.id),
            Body::LockChanged {
                change,
                reason: reason.as_deref().map(health::reason_text),
                lock: Box::new(work::lock_brief(lock)),
            },
        ),
        EventKind::MessageChanged { change, message } => (
            format!("{}/{}", message.swarm, message.id),
            Body::MessageChanged { change, message: Box::new(work::message_brief(message)) },
        ),
        EventKind::WorkUntold { tasks, locks, messages } => {
            (String::new(), Body::WorkUntold { tasks: *tasks, locks: *locks, messages: *messages })
        }
        EventKind::DaemonStarted { version, pid } => (String::new(), Body::DaemonStarted { version, pid: *pid }),
        EventKind::DaemonStopping { how } => (String::new(), Body::DaemonStopping { how }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_body_has_its_kinds_in_the_schema() {
        let RefOr::T(Schema::OneOf(bodies)) = Body::schema() else { panic!("a body is one of many") };
        assert_eq!(bodies.items.len(), KINDS.len());
    }
}
