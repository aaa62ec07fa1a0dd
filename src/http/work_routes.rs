//! The rows of the table that lead to tools: method, path, and the tool's name. What such a route takes and answers is what the tool takes and answers.

use std::sync::Arc;

use actix_web::http::Method;
use serde_json::{Value, json};

use super::{
    arguments::{self, Arguments},
    error::Code,
    openapi::{Doc, Tag, doc},
    table::{Row, Scope, get, post},
    work::{self, Way},
};
use crate::tools::{Effect, Tool, Who, find};

const TASK: &str = "0199a1b2-0000-7000-8000-000000000002";
const MARKDOWN: &str = "text/markdown; charset=utf-8";

/// The rows.
pub(super) fn rows() -> Vec<Row> {
    ways().into_iter().filter_map(|(method, path, name, example)| row(&method, path, find(name)?, example)).collect()
}

/// Every row, with an example of the body where there is one.
fn ways() -> Vec<(Method, &'static str, &'static str, Value)> {
    let get = |path, name| (Method::GET, path, name, Value::Null);
    let post = |path, name, example| (Method::POST, path, name, example);
    // As an agent of the swarm says it, and as a client.
    let agent = json!({ "swarm": "review", "agent": "coder-1", "incarnation": 3 });
    let client = json!({ "swarm": "review", "agent": "ci" });
    let by = |who: &Value, more: Value| with(who, more);
    vec![
        get("/tasks", "task_list"),
        post(
            "/tasks",
            "task_create",
            by(
                &client,
                json!({ "tasks": [
                    { "title": "read the code", "category": "review", "priority": "high" },
                    { "title": "write the report", "category": "review", "depends_on": [0], "retries": 2 }
                ] }),
            ),
        ),
        post("/tasks/claim", "task_claim", by(&agent, json!({ "categories": ["review"], "max": 1 }))),
        get("/tasks/graph", "task_graph"),
        get("/tasks/held", "task_held"),
        get("/tasks/{id}", "task_show"),
        post("/tasks/{id}/take", "task_take", agent.clone()),
        post("/tasks/{id}/renew", "task_renew", by(&agent, json!({ "fence": 7 }))),
        post("/tasks/{id}/progress", "task_progress", by(&agent, json!({ "fence": 7, "percent": 40 }))),
        post("/tasks/{id}/complete", "task_complete", by(&agent, json!({ "fence": 7, "result": { "findings": 2 } }))),
        post("/tasks/{id}/fail", "task_fail", by(&agent, json!({ "fence": 7, "reason": "the build is broken" }))),
        post("/tasks/{id}/release", "task_release", by(&agent, json!({ "fence": 7 }))),
        post("/tasks/{id}/cancel", "task_cancel", client.clone()),
        post("/tasks/{id}/retry", "task_retry", client.clone()),
        post("/tasks/{id}/depend", "task_depend", by(&client, json!({ "depends_on": [TASK] }))),
        get("/locks", "lock_list"),
        post("/locks", "lock_acquire", by(&agent, json!({ "resources": ["src/"], "mode": "write" }))),
        post("/locks/check", "lock_check", by(&agent, json!({ "resource": "src/main.rs", "fence": 8 }))),
        post("/locks/{id}/change", "lock_change", by(&agent, json!({ "fence": 8, "mode": "read" }))),
        post("/locks/{id}/renew", "lock_renew", by(&agent, json!({ "fence": 8 }))),
        post("/locks/{id}/release", "lock_release", by(&agent, json!({ "fence": 8 }))),
        get("/messages", "message_list"),
        post("/messages", "message_send", by(&agent, json!({ "to": "coder-2", "topic": "review", "body": "done" }))),
        post("/messages/receive", "message_receive", agent.clone()),
        post("/messages/{id}/ack", "message_ack", by(&agent, json!({ "fence": 9 }))),
        post("/messages/{id}/nack", "message_nack", by(&agent, json!({ "fence": 9 }))),
        post("/messages/{id}/reply", "message_reply", by(&agent, json!({ "body": "yes" }))),
        post("/messages/{id}/redrive", "message_redrive", client.clone()),
        get("/progress", "progress_report"),
        get("/report", "report"),
    ]
}

fn row(method: &Method, path: &str, tool: &'static Tool, example: Value) -> Option<Row> {
    let path = format!("/api/v1{path}");
    let read = method == Method::GET;
    let scope = if tool.effect == Effect::Reads { Scope::Read } else { Scope::Control };
    let way = Arc::new(Way { tool, arguments: Arguments::of(tool, &path, read) });
    let serve = move |request, payload, deps, streams| work::serve(Arc::clone(&way), request, payload, deps, streams);
    let doc = doc(tool.name, tag(&path), tool.title).text(tool.about).refuses(&refusals(tool));
    let answered = |doc: Doc| {
        let doc = arguments::describe_answer(doc, tool);
        if tool.name == "report" { doc.or_text(MARKDOWN) } else { doc }
    };
    match *method {
        Method::GET => Some(get(&path, scope, serve, answered(arguments::describe_query(doc, tool, &path)))),
        Method::POST => Some(post(&path, scope, serve, answered(arguments::describe_body(doc, tool, &path, example)))),
        _ => None,
    }
}

fn tag(path: &str) -> Tag {
    match path.split('/').nth(3) {
        Some("locks") => Tag::Locks,
        Some("messages") => Tag::Messages,
        _ => Tag::Tasks,
    }
}

/// Codes with which a tool may refuse.
fn refusals(tool: &Tool) -> Vec<Code> {
    let mut codes =
        vec![Code::InvalidWork, Code::UnknownSwarm, Code::JournalUnavailable, Code::MaybeDone, Code::ShuttingDown];
    let changes = tool.effect != Effect::Reads;
    if tool.who != Who::Anyone {
        codes.push(Code::NotAlive);
    }
    if changes {
        codes.extend([Code::StaleToken, Code::WorkFull]);
    }
    match tool.name.split('_').next() {
        Some("task") => {
            codes.push(Code::UnknownTask);
            if changes {
                codes.extend([Code::WrongState, Code::DependencyCycle, Code::KeyReused]);
            }
        }
        Some("lock") => {
            codes.push(Code::UnknownLock);
            if changes {
                codes.extend([Code::Deadlock, Code::LockTimedOut]);
            } else {
                codes.push(Code::StaleToken);
            }
        }
        Some("message") => {
            codes.push(Code::UnknownMessage);
            if changes {
                codes.extend([Code::UnknownRecipient, Code::RequestNotOpen, Code::KeyReused]);
            }
        }
        _ => {}
    }
    codes
}

fn with(object: &Value, more: Value) -> Value {
    let mut object = object.clone();
    if let (Some(members), Value::Object(more)) = (object.as_object_mut(), more) {
        members.extend(more);
    }
    object
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::tools::all;

    #[test]
    fn every_tool_has_a_route_save_those_that_have_another_one_and_every_route_a_tool() {
        let routed: BTreeSet<&str> = ways().into_iter().map(|(_, _, name, _)| name).collect();
        let tools: BTreeSet<&str> = all().map(|tool| tool.name).collect();
        // The health document has a route of its own.
        let without: Vec<_> = tools.difference(&routed).collect();
        assert_eq!((without, routed.difference(&tools).next()), (vec![&"health"], None));
    }

    #[test]
    fn what_stands_in_a_path_is_an_argument_and_what_an_example_shows_is_known() {
        for (_, path, name, example) in ways() {
            let Some(tool) = find(name) else { continue };
            let schema = (tool.arguments)();
            let in_path = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
            let shown = example.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
            for argument in in_path.chain(shown) {
                assert!(schema["properties"][argument].is_object(), "{name} has no argument {argument}");
            }
        }
    }

    #[test]
    fn two_parts_of_one_name_are_one() {
        let mut seen: BTreeMap<String, Value> = BTreeMap::new();
        for row in rows() {
            for (name, schema) in row.doc.ready_made() {
                if let Some(before) = seen.insert(name.clone(), schema.clone()) {
                    assert_eq!(before, *schema, "{name} of {}", row.doc.id);
                }
            }
        }
    }
}
