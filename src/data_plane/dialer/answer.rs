//! A tool's result to what it says. Pure.

use serde_json::Value;

use super::{
    limits::{ANSWER_BYTES_MAX, DEPTH_MAX},
    reply::{short, words},
};

/// What a tool said.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Said {
    /// Its answer.
    Payload(Value),
    /// It refused, in words for people.
    Refused(String),
}

/// Finds what a tool said in the result of `tools/call`: structured content, JSON or text in the first text of `content`, or the bare object.
pub(super) fn said(result: Value) -> Said {
    let is_error = result.get("isError").and_then(Value::as_bool).unwrap_or(false);
    // 2026-07-28: a result that asks for input is none yet, and we have nothing to put in.
    if result.get("resultType").and_then(Value::as_str).is_some_and(|kind| kind != "complete") {
        return Said::Refused("it asks for input".to_owned());
    }
    let payload = payload(result);
    if is_error {
        return Said::Refused(refusal(&payload));
    }
    let failed = payload.get("success").and_then(Value::as_bool) == Some(false);
    let error = payload.get("error").filter(|error| !error.is_null());
    match error {
        Some(error) if failed || payload.get("agents").is_none() => Said::Refused(words(error)),
        _ if failed => Said::Refused(refusal(&payload)),
        _ => Said::Payload(payload),
    }
}

fn payload(mut result: Value) -> Value {
    if let Some(structured @ Value::Object(_)) = result.get_mut("structuredContent") {
        return structured.take();
    }
    let Some(Value::Array(content)) = result.get("content") else { return result };
    let texts = content.iter().filter_map(|item| item.get("text").and_then(Value::as_str));
    match texts.clone().next() {
        Some(text) => serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned())),
        // A picture, or nothing at all.
        None => Value::Null,
    }
}

fn refusal(payload: &Value) -> String {
    match payload {
        Value::Null => "it failed and says no more".to_owned(),
        Value::String(text) => short(text),
        Value::Object(object) => match object.get("error").or(object.get("message")) {
            Some(error) => words(error),
            None => short(&payload.to_string()),
        },
        other => short(&other.to_string()),
    }
}

/// An answer as JSON text to be shown in a document; `None` when it is too long or too deep for one.
pub(super) fn shown(payload: &Value, bytes_max: usize) -> Option<String> {
    (depth_fits(payload, DEPTH_MAX) && size_fits(payload, &mut bytes_max.saturating_add(1)))
        .then(|| payload.to_string())
        .filter(|text| text.len() <= bytes_max)
}

/// The same for the whole answer of a tool.
pub(super) fn shown_whole(payload: &Value) -> Option<String> {
    shown(payload, ANSWER_BYTES_MAX)
}

fn depth_fits(value: &Value, left: usize) -> bool {
    match (value, left.checked_sub(1)) {
        (Value::Array(items), Some(left)) => items.iter().all(|item| depth_fits(item, left)),
        (Value::Object(members), Some(left)) => members.values().all(|member| depth_fits(member, left)),
        (Value::Array(_) | Value::Object(_), None) => false,
        _ => true,
    }
}

/// A lower bound of the text's length, so that a megabyte isn't written only to be thrown away.
fn size_fits(value: &Value, left: &mut usize) -> bool {
    let own = match value {
        Value::String(text) => text.len(),
        _ => 1,
    };
    let Some(rest) = left.checked_sub(own) else { return false };
    *left = rest;
    match value {
        Value::Array(items) => items.iter().all(|item| size_fits(item, left)),
        Value::Object(members) => {
            members.iter().all(|(key, member)| left.checked_sub(key.len()).is_some() && size_fits(member, left))
        }
        _ => true,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(text: &str) -> Value {
        json!({ "content": [{ "type": "text", "text": text }] })
    }

    #[test]
    fn answers_hide_in_several_places() {
        let agents = json!({ "agents": [{ "name": "a" }] });
        let structured = json!({ "content": [{ "type": "text", "text": "for people" }], "structuredContent": agents });
        let with_picture = json!({ "content": [
            { "type": "image", "data": "" }, { "type": "text", "text": agents.to_string() }, { "type": "text", "text": "x" }
        ] });
        for result in [agents.clone(), text(&agents.to_string()), structured, with_picture] {
            assert_eq!(said(result.clone()), Said::Payload(agents.clone()), "{result}");
        }
        assert_eq!(said(text("On branch main")), Said::Payload(json!("On branch main")));
        assert_eq!(said(json!({ "content": [] })), Said::Payload(Value::Null));
        assert_eq!(said(json!({ "resultType": "complete", "content": [{ "text": "1" }] })), Said::Payload(json!(1)));
    }

    #[test]
    fn refusals_hide_there_too() {
        let refused = |result: Value| match said(result) {
            Said::Refused(why) => why,
            Said::Payload(payload) => panic!("{payload}"),
        };
        let mut failed = text("no repository");
        failed["isError"] = json!(true);
        assert_eq!(refused(failed), "no repository");
        assert_eq!(refused(text(r#"{"success":false,"error":"No active swarm"}"#)), "No active swarm");
        assert_eq!(refused(text(r#"{"error":{"message":"denied"}}"#)), "denied");
        assert_eq!(refused(json!({ "success": false, "message": "later" })), "later");
        assert_eq!(refused(json!({ "isError": true, "content": [] })), "it failed and says no more");
        assert_eq!(refused(json!({ "resultType": "input_required" })), "it asks for input");
        assert!(matches!(said(json!({ "agents": [], "error": "one is ill" })), Said::Payload(_)));
    }

    #[test]
    fn what_is_shown_is_short_and_flat() {
        assert_eq!(shown_whole(&json!({ "a": 1 })).unwrap(), r#"{"a":1}"#);
        assert!(shown_whole(&json!("x".repeat(ANSWER_BYTES_MAX - 2))).is_some());
        assert!(shown_whole(&json!("x".repeat(ANSWER_BYTES_MAX - 1))).is_none());
        assert!(shown_whole(&json!("\n".repeat(ANSWER_BYTES_MAX - 10))).is_none(), "escapes count");
        assert!(shown_whole(&json!(vec![0; 1_000_000])).is_none());
        let nested = |n: usize| serde_json::from_str::<Value>(&format!("{}{}", "[".repeat(n), "]".repeat(n))).unwrap();
        assert!(shown_whole(&nested(DEPTH_MAX)).is_some());
        assert!(shown_whole(&nested(DEPTH_MAX + 1)).is_none());
    }
}
