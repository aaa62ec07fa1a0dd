//! The whole table. A path that is not here is a 404, a method that is not here is a 405 that names those which are.

use super::{
    commands::{self, Verb},
    error::{Code, Problem},
    events, history, logs, metrics,
    openapi::{self, Tag, doc},
    operations, probes, problems, reconcile, swarms,
    table::{
        Row,
        Scope::{Control, Open, Read},
        delete, get, post, watch,
    },
    tokens, tree,
};
use crate::stream;

/// Every route.
pub(super) fn table() -> Vec<Row> {
    let mut table = vec![
        get("/livez", Open, probes::livez, doc("livez", Tag::Probes, "Whether the daemon is alive")),
        get("/readyz", Open, probes::readyz, doc("readyz", Tag::Probes, "Whether the daemon is ready")),
        get("/metrics", Read, metrics::metrics, doc("metrics", Tag::Probes, "What is measured, for Prometheus")),
        get("/api/v1/health", Read, probes::health, doc("health", Tag::Health, "The health document")),
        get("/api/v1/swarms", Read, swarms::list, doc("list_swarms", Tag::Swarms, "All swarms by name")),
        get("/api/v1/swarms/{swarm}", Read, swarms::show, doc("show_swarm", Tag::Swarms, "One swarm")),
        get(
            "/api/v1/swarms/{swarm}/history",
            Read,
            history::swarm,
            doc("swarm_history", Tag::Swarms, "What was measured of a swarm over time"),
        ),
        get(
            "/api/v1/swarms/{swarm}/agents/{agent}",
            Read,
            swarms::agent,
            doc("show_agent", Tag::Agents, "The health of one agent"),
        ),
        get(
            "/api/v1/swarms/{swarm}/agents/{agent}/logs",
            Read,
            logs::logs,
            doc("agent_logs", Tag::Agents, "What an agent wrote"),
        ),
        get(
            "/api/v1/swarms/{swarm}/agents/{agent}/history",
            Read,
            history::agent,
            doc("agent_history", Tag::Agents, "What was measured of an agent over time"),
        ),
        get("/api/v1/operations", Read, operations::list, doc("list_operations", Tag::Operations, "Operations")),
        get(
            "/api/v1/operations/{operation}",
            Read,
            operations::show,
            doc("show_operation", Tag::Operations, "One operation"),
        ),
        get("/api/v1/events", Read, events::events, doc("events", Tag::Events, "What happened, and what happens")),
        get("/api/v1/tree", Read, tree::tree, doc("tree", Tag::Hive, "The supervision tree")),
        post(
            "/api/v1/reconcile",
            Control,
            reconcile::reconcile,
            doc("reconcile", Tag::Hive, "Looks for what should not be in the engine"),
        ),
        get("/api/v1/problems", Open, problems::page, doc("problems", Tag::Hive, "Every problem code, explained")),
        get("/api/v1/tokens", Control, tokens::list, doc("list_tokens", Tag::Hive, "The tokens that are good")),
        post("/api/v1/tokens", Control, tokens::create, doc("create_token", Tag::Hive, "Makes a token")),
        delete(
            "/api/v1/tokens/{token}",
            Control,
            tokens::revoke,
            doc("revoke_token", Tag::Hive, "Ends a token, and what it has opened"),
        ),
        post(
            "/api/v1/tickets",
            Read,
            tokens::ticket,
            doc(
                "create_ticket",
                Tag::Hive,
                "Makes a ticket, with which a page opens a socket or an event stream of the hive's health",
            ),
        ),
        get("/api/v1/openapi.json", Read, openapi::openapi, doc("openapi", Tag::Hive, "This document")),
        watch(
            "/ws/hybrid-health",
            Read,
            stream::hybrid_health,
            doc("health_socket", Tag::Health, "The health of the hive, pushed through a WebSocket"),
        ),
        watch(
            "/sse/hybrid-health",
            Read,
            stream::hybrid_health_events,
            doc("health_events", Tag::Health, "The health of the hive, pushed as server-sent events"),
        ),
    ];
    table.extend(Verb::ALL.into_iter().flat_map(verb_rows));
    table
}

fn verb_rows(verb: Verb) -> [Row; 2] {
    let word = verb.word();
    let swarm = post(
        &format!("/api/v1/swarms/{{swarm}}/{word}"),
        Control,
        move |request, payload, desk| commands::swarm(verb, request, payload, desk),
        doc(format!("{word}_swarm"), Tag::Swarms, verb.summary(false)),
    );
    let agent = post(
        &format!("/api/v1/swarms/{{swarm}}/agents/{{agent}}/{word}"),
        Control,
        move |request, payload, desk| commands::agent(verb, request, payload, desk),
        doc(format!("{word}_agent"), Tag::Agents, verb.summary(true)),
    );
    [swarm, agent]
}

/// What no route matches.
pub(super) async fn not_found() -> Result<&'static str, Problem> {
    Err(Problem::new(Code::NotFound, "no such route"))
}
