//! One line of a server to what it means for whoever waits for an answer. Pure, and tolerant: servers write banners, notifications and log lines
//! between their answers, and refusals that are no JSON-RPC.

use serde_json::{Map, Value};

use super::limits::TEXT_CHARS_MAX;

/// What a line means.
#[derive(Debug, PartialEq)]
pub(super) enum Meaning {
    /// Nothing to us: no JSON, no message, a notification.
    Noise,
    /// The server asks something of its own.
    Asks {
        /// To be echoed.
        id: Value,
        /// What for.
        method: String,
    },
    /// An answer to something else than what waits: it comes late, or has a wrong id.
    Stray,
    /// The answer.
    Answer(Answer),
    /// A refusal that names no question: of the one that waits, else of the connection.
    Refusal(String),
}

/// What a question was answered with.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answer {
    /// Its result.
    Result(Value),
    /// An error by JSON-RPC.
    Error {
        /// The code, where it is an integer.
        code: Option<i64>,
        /// For people.
        message: String,
        /// As the server said it.
        data: Value,
    },
}

/// Members by which an object that is no JSON-RPC is known as a bare result.
const BARE: [&str; 4] = ["agents", "content", "structuredContent", "success"];

/// Reads a line. `waiting` is the id of the question that waits.
pub(super) fn read(line: &[u8], waiting: Option<u64>) -> Meaning {
    let Ok(Value::Object(message)) = serde_json::from_slice(line) else { return Meaning::Noise };
    let id = message.get("id").filter(|id| !id.is_null()).cloned();
    if let Some(method) = message.get("method") {
        return match (method, id) {
            (Value::String(method), Some(id @ (Value::String(_) | Value::Number(_)))) => {
                Meaning::Asks { id, method: method.clone() }
            }
            _ => Meaning::Noise,
        };
    }
    match id {
        Some(id) if waiting.is_some_and(|waiting| names(&id, waiting)) => answer(message),
        Some(_) => Meaning::Stray,
        None => match message.get("error").filter(|error| !error.is_null()) {
            Some(error) => Meaning::Refusal(words(error)),
            None if waiting.is_some() && is_bare(&message) => Meaning::Answer(Answer::Result(Value::Object(message))),
            None => Meaning::Noise,
        },
    }
}

fn answer(mut message: Map<String, Value>) -> Meaning {
    if let Some(error) = message.get("error").filter(|error| !error.is_null()) {
        let code = error.get("code").and_then(Value::as_i64);
        let data = error.get("data").cloned().unwrap_or_default();
        return Meaning::Answer(Answer::Error { code, message: words(error), data });
    }
    match message.remove("result") {
        Some(result) => Meaning::Answer(Answer::Result(result)),
        None if is_bare(&message) => Meaning::Answer(Answer::Result(Value::Object(message))),
        None => Meaning::Refusal("an answer with neither result nor error".to_owned()),
    }
}

fn is_bare(message: &Map<String, Value>) -> bool {
    !message.contains_key("jsonrpc") && BARE.iter().any(|key| message.contains_key(*key))
}

/// Some servers send ids back as text.
fn names(id: &Value, waiting: u64) -> bool {
    match id {
        Value::Number(number) => number.as_u64() == Some(waiting),
        Value::String(text) => text.parse() == Ok(waiting),
        _ => false,
    }
}

/// An error in words: its text, its message, or as it was written.
pub(super) fn words(error: &Value) -> String {
    let text = match error {
        Value::String(text) => text.clone(),
        Value::Object(error) => match error.get("message") {
            Some(Value::String(message)) => message.clone(),
            _ => Value::Object(error.clone()).to_string(),
        },
        other => other.to_string(),
    };
    short(&text)
}

/// Cut to what is shown of a server's words.
pub(super) fn short(text: &str) -> String {
    text.trim().chars().take(TEXT_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn waiting(line: &str) -> Meaning {
        read(line.as_bytes(), Some(7))
    }

    fn result(value: Value) -> Meaning {
        Meaning::Answer(Answer::Result(value))
    }

    #[test]
    fn banners_notifications_and_garbage_are_noise() {
        for line in [
            "Claude-Flow MCP server in stdio mode",
            "",
            "{",
            "null",
            "[]",
            r#"[{"jsonrpc":"2.0","id":7,"result":1}]"#,
            r#"{"jsonrpc":"2.0","method":"server.initialized","params":{}}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"id":7}}"#,
            r#"{"jsonrpc":"2.0","id":null,"method":"x"}"#,
            r#"{"jsonrpc":"2.0","id":{},"method":"x"}"#,
            r#"{"type":"welcome","server":"x"}"#,
            r#"{"jsonrpc":"2.0","agents":[]}"#,
        ] {
            assert_eq!(waiting(line), Meaning::Noise, "{line}");
        }
        assert_eq!(read(b"\xff\xfe{}", Some(7)), Meaning::Noise);
        assert_eq!(read("[".repeat(100_000).as_bytes(), Some(7)), Meaning::Noise);
        assert_eq!(read(br#"{"agents":[]}"#, None), Meaning::Noise, "nobody asked");
    }

    #[test]
    fn answers_are_found_by_their_id() {
        assert_eq!(waiting(r#"{"jsonrpc":"2.0","id":7,"result":{"a":1}}"#), result(json!({ "a": 1 })));
        assert_eq!(waiting(r#"{"id":"7","result":[]}"#), result(json!([])), "ids may come back as text");
        assert_eq!(waiting(r#"{"jsonrpc":"2.0","id":7,"error":null,"result":1}"#), result(json!(1)));
        let error = waiting(r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32601,"message":"no such tool","data":[1]}}"#);
        let message = "no such tool".to_owned();
        assert_eq!(error, Meaning::Answer(Answer::Error { code: Some(-32601), message, data: json!([1]) }));
        for id in ["6", "8", "-7", "7.5", "\"x\"", "\"07x\"", "[7]", "true", "123456789012345678901234567890"] {
            let line = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":1}}"#);
            assert_eq!(waiting(&line), Meaning::Stray, "{line}");
            assert_eq!(read(line.as_bytes(), None), Meaning::Stray, "{line}");
        }
        assert_eq!(read(br#"{"jsonrpc":"2.0","id":7,"result":1}"#, None), Meaning::Stray, "it comes late");
        assert!(matches!(waiting(r#"{"jsonrpc":"2.0","id":7}"#), Meaning::Refusal(_)));
    }

    #[test]
    fn bare_objects_answer_whoever_waits() {
        assert_eq!(waiting(r#"{"agents":[1]}"#), result(json!({ "agents": [1] })));
        assert_eq!(waiting(r#"{"id":7,"success":true}"#), result(json!({ "id": 7, "success": true })));
    }

    #[test]
    fn refusals_need_no_id() {
        for (line, text) in [
            (r#"{"error":"Max connections reached"}"#, "Max connections reached"),
            (r#"{"error":{"message":" not allowed \n"}}"#, "not allowed"),
            (r#"{"error":{"code":3}}"#, r#"{"code":3}"#),
            (r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"Parse error"}}"#, "Parse error"),
            (r#"{"error":429}"#, "429"),
        ] {
            assert_eq!(waiting(line), Meaning::Refusal(text.to_owned()), "{line}");
        }
        let long = format!(r#"{{"error":"{}"}}"#, "é".repeat(10_000));
        assert!(matches!(waiting(&long), Meaning::Refusal(text) if text.chars().count() == TEXT_CHARS_MAX));
    }

    #[test]
    fn a_servers_own_requests_are_told_apart() {
        let asks = |id| Meaning::Asks { id, method: "ping".to_owned() };
        assert_eq!(waiting(r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#), asks(json!(7)), "its ids are its own");
        assert_eq!(waiting(r#"{"jsonrpc":"2.0","id":"a","method":"ping"}"#), asks(json!("a")));
    }
}
