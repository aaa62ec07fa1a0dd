//! What we write to a server: requests, the few notifications, and answers to its own requests. One line each. Pure.

use serde_json::{Value, json};

use crate::wire::rpc::write_line;

/// The newest version of the protocol that we speak: metadata in each request, no handshake.
pub(super) const MODERN: &str = "2026-07-28";
/// The newest version with a handshake.
pub(super) const LEGACY: &str = "2025-11-25";

/// Appends a request of ours.
pub(super) fn request(out: &mut Vec<u8>, id: u64, method: &str, params: &Value) {
    write_line(out, &json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }));
}

/// Appends a notification.
pub(super) fn notification(out: &mut Vec<u8>, method: &str, params: &Value) {
    write_line(out, &json!({ "jsonrpc": "2.0", "method": method, "params": params }));
}

/// Appends the answer to a request of the server's: it may ask whether we live, and we offer nothing else.
pub(super) fn reply(out: &mut Vec<u8>, id: &Value, method: &str) {
    let answer = match method {
        "ping" => json!({ "jsonrpc": "2.0", "id": id, "result": {} }),
        _ => json!({ "jsonrpc": "2.0", "id": id, "error": { "code": -32601, "message": "Method not found" } }),
    };
    write_line(out, &answer);
}

/// The parameters of `initialize`, as all versions with a handshake have it.
pub(super) fn initialize() -> Value {
    json!({ "protocolVersion": LEGACY, "capabilities": {}, "clientInfo": client() })
}

/// The parameters of a request that only carries its metadata.
pub(super) fn bare(modern: bool) -> Value {
    if modern { json!({ "_meta": meta() }) } else { json!({}) }
}

/// The parameters of `tools/call`. `arguments` is a JSON object; text that is none counts as an empty one.
pub(super) fn call(tool: &str, arguments: &str, modern: bool) -> Value {
    let arguments: Value = serde_json::from_str(arguments).unwrap_or_else(|_| json!({}));
    let mut params = json!({ "name": tool, "arguments": arguments });
    if modern {
        params["_meta"] = meta();
    }
    params
}

/// What each request of 2026-07-28 carries: version and capabilities must be there, who we are should.
fn meta() -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": client(),
    })
}

fn client() -> Value {
    json!({ "name": "hivekeeper", "version": env!("CARGO_PKG_VERSION") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::rpc::written;

    #[test]
    fn a_call_of_each_era() {
        let legacy = written(|out| request(out, 7, "tools/call", &call("a\nb", r#"{"x":[1]}"#, false)));
        assert_eq!(
            legacy,
            json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call",
                "params": { "name": "a\nb", "arguments": { "x": [1] } } })
        );
        let modern = written(|out| request(out, 8, "tools/call", &call("a", "{}", true)));
        let meta = &modern["params"]["_meta"];
        assert_eq!(meta["io.modelcontextprotocol/protocolVersion"], "2026-07-28");
        assert_eq!(meta["io.modelcontextprotocol/clientCapabilities"], json!({}));
        assert_eq!(meta["io.modelcontextprotocol/clientInfo"]["name"], "hivekeeper");
        assert_eq!(call("a", "no json", false)["arguments"], json!({}));
    }

    #[test]
    fn a_servers_ping_is_answered_and_all_else_is_not_offered() {
        let pong = written(|out| reply(out, &json!("s-1"), "ping"));
        assert_eq!(pong, json!({ "jsonrpc": "2.0", "id": "s-1", "result": {} }));
        let refused = written(|out| reply(out, &json!(3), "sampling/createMessage"));
        assert_eq!((&refused["id"], &refused["error"]["code"]), (&json!(3), &json!(-32601)));
    }
}
