//! What we write: answers, and the few requests of ours. Each ends with a newline and holds none.

use serde::Serialize;

use super::{
    code::{Code, tool_code},
    message::Id,
};

/// The result of `hive/open`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Opened {
    /// The id of the session, for the agent's own logs.
    pub session: String,
    /// How often a heartbeat is wanted, ms.
    pub heartbeat_interval_ms: u64,
    /// What the daemon takes.
    pub limits: Limits,
}

/// What a session may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Longest line, bytes without its ending.
    pub line_bytes_max: usize,
    /// Messages a second in the long run; each notification of a batch counts.
    pub notifications_per_second: u32,
    /// Messages at once after a pause.
    pub notifications_burst: u32,
    /// Longest `progress` of a heartbeat, bytes of JSON.
    pub progress_bytes_max: usize,
    /// Longest `attributes` of a metric and longest `hive/usage`, bytes of JSON.
    pub attributes_bytes_max: usize,
    /// Longest `hive/event`, bytes of JSON.
    pub event_bytes_max: usize,
    /// Calls of tools that may be without an answer at a time.
    pub calls_max: usize,
}

/// Appends the answer to a request that went well.
pub fn write_result(out: &mut Vec<u8>, id: Id<'_>, result: &impl Serialize) {
    begin(out, id);
    out.extend_from_slice(b",\"result\":");
    json(out, result);
    out.extend_from_slice(b"}\n");
}

/// Appends the answer to a request that did not. `detail` is for people.
pub fn write_error(out: &mut Vec<u8>, id: Id<'_>, code: Code, detail: &str) {
    #[derive(Serialize)]
    struct Error<'a> {
        code: i64,
        message: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<Detail<'a>>,
    }
    #[derive(Serialize)]
    struct Detail<'a> {
        detail: &'a str,
    }
    begin(out, id);
    out.extend_from_slice(b",\"error\":");
    let data = (!detail.is_empty()).then_some(Detail { detail });
    json(out, &Error { code: code.number(), message: code.word(), data });
    out.extend_from_slice(b"}\n");
}

/// Appends the answer to a request whose result is JSON text on one line already.
pub fn write_text(out: &mut Vec<u8>, id: Id<'_>, result: &str) {
    begin(out, id);
    out.extend_from_slice(b",\"result\":");
    out.extend_from_slice(result.as_bytes());
    out.extend_from_slice(b"}\n");
}

/// Appends the answer to a call that a tool has refused. `word` is the refusal's stable word, `detail` is for people.
pub fn write_tool_error(out: &mut Vec<u8>, id: Id<'_>, word: &str, detail: &str) {
    #[derive(Serialize)]
    struct Error<'a> {
        code: i64,
        message: &'a str,
        data: Detail<'a>,
    }
    #[derive(Serialize)]
    struct Detail<'a> {
        code: &'a str,
        detail: &'a str,
    }
    begin(out, id);
    out.extend_from_slice(b",\"error\":");
    json(out, &Error { code: tool_code(word), message: word, data: Detail { code: word, detail } });
    out.extend_from_slice(b"}\n");
}

/// Appends the notification that a call still waits, for what and since when.
pub fn write_waits(out: &mut Vec<u8>, method: &str, id: Id<'_>, waited_ms: u64, what: &str) {
    out.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"method\":");
    json(out, &method);
    out.extend_from_slice(b",\"params\":{\"id\":");
    out.extend_from_slice(id.as_json().as_bytes());
    out.extend_from_slice(b",\"waited_ms\":");
    json(out, &waited_ms);
    out.extend_from_slice(b",\"what\":");
    json(out, &what);
    out.extend_from_slice(b"}}\n");
}

/// Appends a request of ours without parameters. Its id is `"hk-NUMBER"`, which no agent's own numbering meets by chance in a log.
pub fn write_request(out: &mut Vec<u8>, number: u64, method: &str) {
    out.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
    json(out, &format_args!("hk-{number}"));
    out.extend_from_slice(b",\"method\":");
    json(out, &method);
    out.extend_from_slice(b",\"params\":{}}\n");
}

/// Appends any message. JSON escapes every newline within, so the one behind it is the only one.
pub fn write_line(out: &mut Vec<u8>, message: &impl Serialize) {
    json(out, message);
    out.push(b'\n');
}

fn begin(out: &mut Vec<u8>, id: Id<'_>) {
    out.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
    out.extend_from_slice(id.as_json().as_bytes());
}

fn json(out: &mut Vec<u8>, value: &impl Serialize) {
    #[expect(clippy::expect_used, reason = "plain structs and text, written to memory: neither can fail")]
    serde_json::to_writer(out, value).expect("plain data is written to memory");
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// What was written: one line.
    pub(crate) fn written(write: impl FnOnce(&mut Vec<u8>)) -> Value {
        let mut out = Vec::new();
        write(&mut out);
        assert_eq!(out.iter().filter(|b| **b == b'\n').count(), 1);
        assert_eq!(out.last(), Some(&b'\n'));
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn the_shapes_are_those_of_json_rpc() {
        assert_eq!(
            written(|out| write_result(out, Id::NULL, &json!({"a": "b\nc"}))),
            json!({"jsonrpc": "2.0", "id": null, "result": {"a": "b\nc"}})
        );
        assert_eq!(
            written(|out| write_error(out, Id::NULL, Code::BadToken, "line\nbreak")),
            json!({"jsonrpc": "2.0", "id": null, "error": {"code": 1002, "message": "bad_token", "data": {"detail": "line\nbreak"}}})
        );
        assert_eq!(
            written(|out| write_error(out, Id::NULL, Code::ParseError, "")),
            json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32700, "message": "Parse error"}})
        );
        assert_eq!(
            written(|out| write_text(out, Id::NULL, "{\"a\":1}")),
            json!({"jsonrpc": "2.0", "id": null, "result": {"a": 1}})
        );
        assert_eq!(
            written(|out| write_tool_error(out, Id::NULL, "stale_token", "it was\ngiven to another")),
            json!({"jsonrpc": "2.0", "id": null, "error": {"code": 1115, "message": "stale_token",
                "data": {"code": "stale_token", "detail": "it was\ngiven to another"}}})
        );
        assert_eq!(
            written(|out| write_waits(out, "hive/progress", Id::NULL, 1000, "a lock")),
            json!({"jsonrpc": "2.0", "method": "hive/progress", "params": {"id": null, "waited_ms": 1000, "what": "a lock"}})
        );
        assert_eq!(
            written(|out| write_request(out, 7, "hive/drain")),
            json!({"jsonrpc": "2.0", "id": "hk-7", "method": "hive/drain", "params": {}})
        );
    }
}
