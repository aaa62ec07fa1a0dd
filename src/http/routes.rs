//! The whole table. A path that is not here is a 404, a method that is not here is a 405 that names those which are.

use actix_web::{HttpRequest, web::Data};
use serde_json::{Value, json};

use super::{
    commands::{self, Ending, NoBody, RestartSwarm, Verb},
    documents, dto,
    error::{Code, Problem},
    events::{self, Page as EventPage},
    guard::Gate,
    history, logs, metrics, notifiers,
    openapi::{self, Doc, Tag, doc, flag, text, whole, words},
    operations, probes, problems, reconcile, reload, swarms,
    table::{
        Row,
        Scope::{Control, Open, Read},
        delete, get, post, put, watch,
    },
    tokens::{self, MintedView, NewToken, TicketView, TokensView},
    tree, work_routes,
};
use crate::{
    model::OperationState,
    stream,
    view::{
        self, AgentView, FindingsView, HiveView, OperationView, SwarmDraft, TreeView,
        schema::{Anything, DURATION, NAME},
    },
};

/// A time, or how long ago.
const MOMENT: &str =
    "^(0|[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9:.]+[Zz]|[0-9]{1,9} ?[a-zA-Z]+( ?[0-9]{1,9} ?[a-zA-Z]+)*)$";
/// A number of an event or a line; empty where a browser has seen none.
const NUMBER: &str = "^[0-9]{0,19}$";
const UUID: &str = "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$";
const TEXT: &str = "text/plain; charset=utf-8";

/// Every route.
pub(super) fn table() -> Vec<Row> {
    let mut table = probes();
    table.extend(looks());
    table.extend(documents());
    table.extend(operations());
    table.extend(hive());
    table.extend(access());
    table.push(mcp());
    table.extend(work_routes::rows());
    table.extend(Verb::ALL.into_iter().flat_map(verb_rows));
    table
}

fn probes() -> Vec<Row> {
    let livez = doc("livez", Tag::Probes, "Whether the daemon is alive").plain(200, TEXT, "Its loop turns.");
    let readyz = doc("readyz", Tag::Probes, "Whether the daemon is ready")
        .text("Journal open, listeners bound, first pass of reconciliation ended; whatever agents do.")
        .query("verbose", flag(), "One line for each thing that readiness rests on.")
        .plain(200, TEXT, "It is.")
        .plain(503, TEXT, "Not yet, or no longer.");
    let metrics = doc("metrics", Tag::Probes, "What is measured, for Prometheus").plain(
        200,
        "text/plain; version=0.0.4; charset=utf-8",
        "The families of metrics.",
    );
    vec![
        get("/livez", Open, probes::livez, livez),
        get("/readyz", Open, probes::readyz, readyz),
        get("/metrics", Read, metrics::metrics, metrics),
    ]
}

fn looks() -> Vec<Row> {
    let health = doc("health", Tag::Health, "The health document")
        .json::<HiveView<'_>>(200, "Healthy (`pass`) or degraded (`warn`).")
        .json::<HiveView<'_>>(503, "Critical or unknown (`fail`).");
    let socket = doc("health_socket", Tag::Health, "The health of the hive, pushed through a WebSocket")
        .text("The frames are described in docs/asyncapi.yaml.")
        .query("ticket", text("^.+$"), "A ticket, instead of a token.")
        .bare(101, "The connection is a WebSocket now.")
        .refuses(&[Code::UpgradeRequired, Code::TooManyViewers, Code::OutOfDescriptors, Code::ShuttingDown]);
    let pushed = doc("health_events", Tag::Health, "The health of the hive, pushed as server-sent events")
        .text("The frames of the WebSocket. The stream has no end.")
        .query("ticket", text("^.+$"), "A ticket, instead of a token.")
        .query("subscriptions", text("^[a-z,]*$"), "Some of status, sessions and performance, with commas.")
        .query("swarms", text("^[a-z0-9,-]*$"), "These swarms alone, with commas.")
        .query("after", whole(0, usize::MAX), "The number behind which to resume.")
        .header("Last-Event-ID", text(NUMBER), "The same, as browsers say it; it counts more.")
        .events("Frames, each with its number as its id.")
        .refuses(&[Code::TooManyViewers, Code::OutOfDescriptors, Code::ShuttingDown]);
    let swarms = paged(doc("list_swarms", Tag::Swarms, "Swarms by name"), swarms::PAGE_MAX)
        .query("cursor", text(NAME), "`next_cursor` of the page before.")
        .json::<swarms::List<'_>>(200, "What is wanted and what was seen of each, without its document.");
    let swarm = doc("show_swarm", Tag::Swarms, "One swarm")
        .json::<swarms::Entry<'_>>(200, "What is wanted and what was seen of it, and its document.")
        .sends("ETag", "Names this version of the document alone, for `If-Match`.");
    let agent =
        doc("show_agent", Tag::Agents, "The health of one agent").json::<AgentView<'_>>(200, "What was seen of it.");
    let logs = paged(doc("agent_logs", Tag::Agents, "What an agent wrote"), logs::PAGE_MAX)
        .query("follow", flag(), "A stream without end instead of a page; so does `Accept: text/event-stream`.")
        .query("since", text(MOMENT), "Not before this RFC 3339 time in UTC, or for so long.")
        .query("tail", whole(0, logs::PAGE_MAX), "The last so many lines.")
        .query("after", whole(0, usize::MAX), "The number behind which to go on.")
        .header("Last-Event-ID", text(NUMBER), "The same, of a stream.")
        .json::<dto::LogPageView<'_>>(200, "Lines, numbered over all incarnations.")
        .or_events("A `line` for each line, `gap` where lines were dropped, `end` when the agent is gone.")
        .refuses(&[Code::TooManyStreams, Code::JournalUnavailable, Code::Unavailable]);
    vec![
        get("/api/v1/health", Read, probes::health, health),
        watch("/ws/hybrid-health", Read, stream::hybrid_health, socket),
        watch("/sse/hybrid-health", Read, stream::hybrid_health_events, pushed),
        get("/api/v1/swarms", Read, swarms::list, swarms),
        get("/api/v1/swarms/{swarm}", Read, swarms::show, swarm),
        get("/api/v1/swarms/{swarm}/history", Read, history::swarm, history("swarm_history", Tag::Swarms)),
        get("/api/v1/swarms/{swarm}/agents/{agent}", Read, swarms::agent, agent),
        get("/api/v1/swarms/{swarm}/agents/{agent}/logs", Read, logs::logs, logs),
        get(
            "/api/v1/swarms/{swarm}/agents/{agent}/history",
            Read,
            history::agent,
            history("agent_history", Tag::Agents),
        ),
    ]
}

fn operations() -> Vec<Row> {
    let list = paged(doc("list_operations", Tag::Operations, "Operations, youngest first"), operations::PAGE_MAX)
        .query("cursor", text(UUID), "`next_cursor` of the page before.")
        .query("swarm", text(NAME), "Of this swarm and its agents alone.")
        .query("state", words(&OperationState::ALL.map(view::words::operation_state)), "In this state alone.")
        .json::<operations::Page<'_>>(200, "A page of them.")
        .refuses(&[Code::JournalUnavailable]);
    let show = doc("show_operation", Tag::Operations, "One operation")
        .json::<OperationView<'_>>(200, "As it is now.")
        .refuses(&[Code::JournalUnavailable]);
    vec![
        get("/api/v1/operations", Read, operations::list, list),
        get("/api/v1/operations/{operation}", Read, operations::show, show),
    ]
}

fn documents() -> Vec<Row> {
    let example =
        json!({ "name": "review", "agent": [{ "name": "coder", "replicas": 2, "command": ["sleep", "1000"] }] });
    let matched = |doc: Doc| {
        doc.header("If-Match", text("^.+$"), "Only while the document has this `ETag`.")
            .refuses(&[Code::PreconditionFailed])
    };
    let launch = command(doc("launch_swarm", Tag::Swarms, "Launches a swarm"))
        .text("The body is a swarm document with the keys of `[[swarm]]`; what it leaves out is as in the daemon's configuration.")
        .body::<SwarmDraft>(example.clone())
        .refuses(&[Code::InvalidDocument]);
    let update = matched(command(doc("update_swarm", Tag::Swarms, "Gives a swarm another document")))
        .text(
            "What the document changes is replaced, the rest keeps its processes. A dry run is answered with the plan.",
        )
        .query("dry_run", flag(), "Tell what it would do, and do nothing.")
        .body::<SwarmDraft>(example)
        .json::<documents::Plan>(200, "Of a dry run, the plan.")
        .refuses(&[Code::InvalidDocument]);
    let delete_one = matched(command(doc("delete_swarm", Tag::Swarms, "Stops a swarm and forgets it")));
    let scale = command(doc("scale_swarm", Tag::Swarms, "Gives an agent of a swarm another number of replicas"))
        .body::<documents::Scale>(json!({ "agent": "coder", "replicas": 5 }));
    let cancel = doc("cancel_operation", Tag::Operations, "Withdraws an operation")
        .text("One that waits at once. Under way, a launch leaves a stopped swarm, a rolling restart, an update and a scale leave the agents that they have not come to as they are, and a delete leaves a swarm that is being stopped; anything else, and what is past the point where it can be left, is a `conflict` that says why.")
        .body::<NoBody>(json!({}))
        .json::<OperationView<'_>>(200, "As it is now.")
        .refuses(&[Code::Conflict, Code::JournalUnavailable]);
    vec![
        post("/api/v1/swarms", Control, documents::launch, launch),
        put("/api/v1/swarms/{swarm}", Control, documents::update, update),
        delete("/api/v1/swarms/{swarm}", Control, documents::delete, delete_one),
        post("/api/v1/swarms/{swarm}/scale", Control, documents::scale, scale),
        post("/api/v1/operations/{operation}/cancel", Control, documents::cancel, cancel),
    ]
}

fn hive() -> Vec<Row> {
    let events = paged(doc("events", Tag::Events, "What happened, and what happens"), events::PAGE_MAX)
        .query("after", whole(0, usize::MAX), "The number behind which to go on.")
        .header("Last-Event-ID", text(NUMBER), "The same, of a stream.")
        .json::<EventPage>(200, "A page of events; go on behind `next_after`.")
        .or_events("With `Accept: text/event-stream`: events as they happen, each named by its kind, `gap` where some are gone.")
        .refuses(&[Code::JournalUnavailable, Code::TooManyStreams]);
    let tree = doc("tree", Tag::Hive, "The supervision tree")
        .json::<TreeView<'_>>(200, "Supervisors and what they supervise.")
        .refuses(&[Code::Unavailable]);
    let reconcile = doc("reconcile", Tag::Hive, "Looks for what should not be in the engine")
        .text("Removes what has been seen for long enough, unless it is a dry run, and is answered when it is done.")
        .query("dry_run", flag(), "Look, and remove nothing.")
        .body::<NoBody>(json!({}))
        .json::<FindingsView<'_>>(200, "What was found, and what becomes of it.")
        .refuses(&[Code::Unavailable, Code::Unsupported, Code::Conflict]);
    let reload = doc("reload", Tag::Hive, "Reads the configuration file again")
        .text("Each swarm that the file changes becomes an operation; a file that is wrong anywhere changes nothing.")
        .query("dry_run", flag(), "Tell what it would change, and change nothing.")
        .body::<NoBody>(json!({}))
        .json::<reload::ReloadedView>(200, "What the file changes; what does it is in the journal.")
        .refuses(&[Code::InvalidConfiguration, Code::Conflict, Code::JournalUnavailable, Code::Unavailable]);
    let problems = doc("problems", Tag::Hive, "Every problem code, explained").plain(
        200,
        "text/markdown; charset=utf-8",
        "A page with a heading for each code.",
    );
    let openapi = doc("openapi", Tag::Hive, "This document")
        .header("If-None-Match", text("^.*$"), "An `ETag` of this document that is at hand.")
        .json::<Anything>(200, "OpenAPI 3.1.")
        .sends("ETag", "Names this version of the document.")
        .bare(304, "The one at hand is this one.");
    let notifiers = doc("list_notifiers", Tag::Hive, "Who is told when something is wrong, and how that goes")
        .json::<notifiers::List<'_>>(200, "In the order of the configuration.");
    let test = doc("test_notifier", Tag::Hive, "Sends a message that says nothing")
        .body::<NoBody>(json!({}))
        .json::<notifiers::Tested<'_>>(200, "Whether it arrived, and if not, why.");
    vec![
        get("/api/v1/events", Read, events::events, events),
        get("/api/v1/tree", Read, tree::tree, tree),
        post("/api/v1/reconcile", Control, reconcile::reconcile, reconcile),
        post("/api/v1/reload", Control, reload::reload, reload),
        get("/api/v1/notifiers", Read, notifiers::list, notifiers),
        post("/api/v1/notifiers/{notifier}/test", Control, notifiers::test, test),
        get("/api/v1/problems", Open, problems::page, problems),
        get("/api/v1/openapi.json", Read, openapi::openapi, openapi),
    ]
}

fn access() -> Vec<Row> {
    let list = doc("list_tokens", Tag::Access, "The tokens that are good")
        .json::<TokensView<'_>>(200, "Without their secrets.");
    let create = doc("create_token", Tag::Access, "Makes a token")
        .body::<NewToken>(json!({ "name": "dashboard", "scope": "read", "expires_in_ms": 86_400_000 }))
        .json::<MintedView<'_>>(201, "The token with its secret, which is in this answer and nowhere else.")
        .refuses(&[Code::Conflict, Code::OpenToAll, Code::JournalUnavailable]);
    let revoke = doc("revoke_token", Tag::Access, "Ends a token, and what it has opened")
        .bare(204, "It is no longer good.")
        .refuses(&[Code::JournalUnavailable]);
    let ticket = doc("create_ticket", Tag::Access, "Makes a ticket for a page")
        .text("A page can send no token when it opens `/ws/hybrid-health` or `/sse/hybrid-health`; it opens them with `?ticket=` instead.")
        .body::<NoBody>(json!({}))
        .json::<TicketView<'_>>(201, "The ticket, good for a minute.")
        .refuses(&[Code::Conflict, Code::Unavailable]);
    vec![
        get("/api/v1/tokens", Control, tokens::list, list),
        post("/api/v1/tokens", Control, tokens::create, create),
        delete("/api/v1/tokens/{token}", Control, tokens::revoke, revoke),
        post("/api/v1/tickets", Read, tokens::ticket, ticket),
    ]
}

fn mcp() -> Row {
    let hello = json!({
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": { "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "mine", "version": "1" } }
    });
    let doc = doc("mcp", Tag::Hive, "The Model Context Protocol, as streamable HTTP")
        .text("One JSON-RPC message for each request, with `Accept: application/json, text/event-stream`. Of the tools those that change something need a token of the scope control; the same tools are routes of this API.")
        .header("MCP-Protocol-Version", text("^[0-9]{4}-[0-9]{2}-[0-9]{2}$"), "The protocol's revision.")
        .header("Mcp-Method", text("^[!-~]+$"), "The message's method, as the newest revision wants it.")
        .header("Mcp-Name", text("^[!-~]+$"), "The name of the tool or resource, likewise.")
        .body::<Anything>(hello)
        .json::<Anything>(200, "The answer.")
        .or_events("Where the client asked to be told of progress and the call takes its time: that, and then the answer.")
        .bare(202, "It was a notification.")
        .json::<Anything>(400, "An error of JSON-RPC: the message is none, or contradicts its headers.")
        .json::<Anything>(404, "An error of JSON-RPC: there is no such method.")
        .refuses(&[Code::InvalidBody, Code::UnsupportedMediaType, Code::BodyTooLarge, Code::TooManyStreams]);
    post("/mcp", Read, super::mcp::post, doc)
}

fn verb_rows(verb: Verb) -> [Row; 2] {
    let word = verb.word();
    let swarm = command(doc(format!("{word}_swarm"), Tag::Swarms, verb.summary(false)));
    let agent = command(doc(format!("{word}_agent"), Tag::Agents, verb.summary(true)));
    let ending = json!({ "grace_ms": 5000, "reason": "new model" });
    let (swarm, agent) = match verb {
        Verb::Restart => (swarm.body::<RestartSwarm>(with(&ending, "mode", "all")), agent.body::<Ending>(ending)),
        Verb::Stop => (swarm.body::<Ending>(ending.clone()), agent.body::<Ending>(ending)),
        Verb::Start | Verb::Pause | Verb::Resume => (swarm.body::<NoBody>(json!({})), agent.body::<NoBody>(json!({}))),
    };
    [
        post(
            &format!("/api/v1/swarms/{{swarm}}/{word}"),
            Control,
            move |request, payload, desk| commands::swarm(verb, request, payload, desk),
            swarm,
        ),
        post(
            &format!("/api/v1/swarms/{{swarm}}/agents/{{agent}}/{word}"),
            Control,
            move |request, payload, desk| commands::agent(verb, request, payload, desk),
            agent,
        ),
    ]
}

/// What all commands have in common that become operations.
pub(super) fn command(doc: Doc) -> Doc {
    let location = "Where the operation is.";
    doc.query("wait", text(DURATION), "Wait for the end, at most so long; five minutes at most.")
        .header(
            "Idempotency-Key",
            text("^[!-~]{1,255}$"),
            "The same key with the same command gets the first operation again.",
        )
        .json::<OperationView<'_>>(200, "The operation, which has ended in time, well or not.")
        .sends("Location", location)
        .json::<OperationView<'_>>(202, "The operation, which is in the journal.")
        .sends("Location", location)
        .refuses(&[Code::Conflict, Code::KeyReused, Code::Unsupported, Code::JournalUnavailable, Code::Unavailable])
}

fn paged(doc: Doc, most: usize) -> Doc {
    doc.query("limit", whole(1, most), "At most so many.")
}

fn history(id: &str, tag: Tag) -> Doc {
    doc(id, tag, "What was measured over time")
        .query(
            "since",
            text(MOMENT),
            "From this RFC 3339 time in UTC on, or for so long. An hour where nothing is said.",
        )
        .query("until", text(MOMENT), "Until this time. Now where nothing is said.")
        .query("resolution", words(&["10s", "1m", "10m", "auto"]), "How long a point is.")
        .json::<history::PageView<'_>>(200, "Points; null where nothing was measured.")
        .refuses(&[Code::JournalUnavailable, Code::Unavailable])
}

fn with(object: &Value, key: &str, value: &str) -> Value {
    let mut object = object.clone();
    object[key] = value.into();
    object
}

/// What no route matches.
pub(super) async fn not_found(request: HttpRequest, gate: Data<Gate>) -> Result<&'static str, Problem> {
    let path = request.path();
    // What people type by hand: the path without its prefix, or with a slash too many.
    let trimmed = path.trim_end_matches('/');
    let meant = [trimmed.to_owned(), format!("/api/v1{trimmed}")].into_iter().find(|path| gate.scopes.has(path));
    let detail = match meant {
        Some(meant) => format!("there is no route {path}; did you mean {meant}?"),
        None => format!("there is no route {path}; GET /api/v1/openapi.json lists them all"),
    };
    Err(Problem::new(Code::NotFound, detail))
}
