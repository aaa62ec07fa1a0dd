//! Calls of tools.

use super::*;
use crate::{
    coordination::WorkError,
    tools::{Answer, ToolError},
};

fn call(id: &Value, method: &str, params: &Value) -> String {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string()
}

fn claim(id: u64) -> String {
    call(&json!(id), "hive/task_claim", &json!({ "max": 2 }))
}

fn said(bench: &mut Bench, word: &Word) -> Vec<Value> {
    let mut out = Effects::default();
    bench.session.answer(word, &mut out);
    answers(&out)
}

#[test]
fn a_tool_is_called_by_its_name_and_answered_when_it_has_ended() {
    let mut bench = Bench::opened();
    let mut out = bench.say(&call(&json!("a\nb"), "hive/task_claim", &json!({ "max": 2 })));
    assert!(out.replies.is_empty() && out.refused.is_empty());
    let ask = out.asked.remove(0);
    assert_eq!((ask.tool, &*ask.arguments), ("task_claim", r#"{"max":2}"#));
    assert_eq!(bench.session.party().map(|party| party.to_string()).as_deref(), Some("review/coder-1#2"));
    let waits = Word::Waits(ask.id.clone(), Duration::from_millis(1500), "a task".to_owned());
    assert_eq!(
        said(&mut bench, &waits),
        [
            json!({ "jsonrpc": "2.0", "method": "hive/progress", "params": { "id": "a\nb", "waited_ms": 1500, "what": "a task" } })
        ]
    );
    let answer = Word::Answer(ask.id.clone(), Ok(Answer(r#"{"tasks":[]}"#.to_owned())));
    assert_eq!(said(&mut bench, &answer), [json!({ "jsonrpc": "2.0", "id": "a\nb", "result": { "tasks": [] } })]);
    let refused = Word::Answer(ask.id, Err(ToolError::Work(WorkError::Closed)));
    let error = &said(&mut bench, &refused)[0]["error"];
    assert_eq!(
        (&error["code"], &error["message"], &error["data"]["code"]),
        (&json!(1109), &json!("shutting_down"), &json!("shutting_down"))
    );
    assert!(error["data"]["detail"].as_str().unwrap().contains("shutting down"));
}

#[test]
fn no_arguments_are_an_empty_object_and_a_list_is_none() {
    let mut bench = Bench::opened();
    let out = bench.say(r#"{"jsonrpc":"2.0","id":1,"method":"hive/task_claim"}"#);
    assert_eq!(out.asked[0].arguments, "{}");
    refused(&bench.say(&call(&json!(1), "hive/task_claim", &json!([1]))), &json!(1), -32602, false);
    refused(&bench.say(&call(&json!(1), "hive/no_such_tool", &json!({}))), &json!(1), -32601, false);
}

#[test]
fn a_call_that_nobody_waits_for_is_refused() {
    let mut bench = Bench::opened();
    let out = bench.say(r#"{"jsonrpc":"2.0","method":"hive/task_claim","params":{}}"#);
    assert!(out.asked.is_empty() && out.replies.is_empty());
    assert_eq!(out.refused, [Code::InvalidRequest]);
    let batch = json!({ "notifications": [{ "method": "hive/task_claim", "params": {} }, { "method": "hive/log", "params": { "line": "x" } }] });
    let out = bench.say(&json!({ "jsonrpc": "2.0", "method": "hive/batch", "params": batch }).to_string());
    assert!(out.asked.is_empty() && out.telemetry.len() == 1);
    assert_eq!(out.refused, [Code::MethodNotFound]);
}

#[test]
fn before_a_session_there_are_no_tools() {
    refused(&Bench::new().say(&claim(7)), &json!(7), 1001, false);
}

#[test]
fn code_1008_too_many_calls() {
    let mut bench = Bench::opened();
    let asked: Vec<Ask> = (0..CALLS_MAX as u64).flat_map(|id| bench.say(&claim(id)).asked).collect();
    assert_eq!(asked.len(), CALLS_MAX);
    refused(&bench.say(&claim(99)), &json!(99), 1008, false);
    let waits = Word::Waits(asked[0].id.clone(), Duration::ZERO, String::new());
    said(&mut bench, &waits);
    refused(&bench.say(&claim(99)), &json!(99), 1008, false);
    said(&mut bench, &Word::Answer(asked[0].id.clone(), Ok(Answer("{}".to_owned()))));
    assert_eq!(bench.say(&claim(99)).asked.len(), 1);
}

#[test]
fn calls_have_part_in_the_rate_of_their_connection() {
    let limits = PlaneLimits { notifications_per_second: 10, notifications_burst: 2, ..PlaneLimits::default() };
    let mut bench = Bench::with(&limits);
    assert!(bench.say(OPEN).opened.is_some());
    bench.say(LOG);
    assert_eq!(bench.say(&claim(1)).asked.len(), 1);
    refused(&bench.say(&claim(2)), &json!(2), 1005, false);
    bench.later(Duration::from_millis(100));
    assert_eq!(bench.say(&claim(3)).asked.len(), 1);
}
