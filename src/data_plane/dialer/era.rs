//! How a server is greeted. Pure. Servers since 2026-07-28 take each request by itself; older ones want a handshake first. `server/discover` tells
//! them apart: what answers it as the new version has it is new, an error that only the new version knows is so, too, and anything else,
//! silence included, is old (specification, "Versioning and compatibility"). What was found is remembered until it fails.

use serde_json::Value;

use super::{
    ask::{LEGACY, MODERN},
    reply::Answer,
};

/// JSON-RPC code of 2026-07-28 for a version that the server does not speak; its data lists those that it does.
const UNSUPPORTED_VERSION: i64 = -32022;

/// Which side of 2026-07-28 a server is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Era {
    /// Metadata in each request.
    Modern,
    /// A handshake once for each connection.
    Legacy,
}

/// What the answer to `server/discover` means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// That era.
    Era(Era),
    /// A version that we don't speak.
    Foreign(String),
}

/// Reads the answer to `server/discover`.
pub(super) fn found(answer: &Answer) -> Found {
    match answer {
        Answer::Result(result) => match versions(result.get("supportedVersions")) {
            Some(versions) => choose(&versions),
            None => Found::Era(Era::Legacy),
        },
        Answer::Error { code: Some(UNSUPPORTED_VERSION), data, .. } => match versions(data.get("supported")) {
            Some(versions) => choose(&versions),
            None => Found::Foreign("it names no version that it speaks".to_owned()),
        },
        Answer::Error { .. } => Found::Era(Era::Legacy),
    }
}

/// The version that a server has agreed to in its answer to `initialize`.
pub(super) fn agreed(result: &Value) -> String {
    let version = result.get("protocolVersion").and_then(Value::as_str);
    super::reply::short(version.unwrap_or(LEGACY))
}

fn versions(list: Option<&Value>) -> Option<Vec<&str>> {
    list?.as_array().map(|versions| versions.iter().filter_map(Value::as_str).collect())
}

fn choose(versions: &[&str]) -> Found {
    // Dates compare as text.
    let legacy = |version: &&str| version.len() == MODERN.len() && *version < MODERN;
    if versions.contains(&MODERN) {
        Found::Era(Era::Modern)
    } else if versions.iter().any(legacy) {
        Found::Era(Era::Legacy)
    } else {
        Found::Foreign(super::reply::short(&format!("it speaks only {}", versions.join(", "))))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn error(code: i64, data: Value) -> Answer {
        Answer::Error { code: Some(code), message: String::new(), data }
    }

    #[test]
    fn the_answer_to_discover_tells_the_era() {
        let modern = Found::Era(Era::Modern);
        let legacy = Found::Era(Era::Legacy);
        for (answer, expected) in [
            (Answer::Result(json!({ "supportedVersions": ["2026-07-28"], "capabilities": {} })), &modern),
            (Answer::Result(json!({ "supportedVersions": ["2027-01-01", "2026-07-28"] })), &modern),
            (Answer::Result(json!({ "supportedVersions": ["2025-06-18", "2027-01-01"] })), &legacy),
            (Answer::Result(json!({})), &legacy),
            (Answer::Result(json!(null)), &legacy),
            (error(-32601, json!(null)), &legacy),
            (error(-32602, json!({ "supported": ["2026-07-28"] })), &legacy),
            (error(-32022, json!({ "supported": ["2026-07-28", "2025-11-25"] })), &modern),
            (error(-32022, json!({ "supported": ["2025-11-25"] })), &legacy),
        ] {
            assert_eq!(&found(&answer), expected, "{answer:?}");
        }
        for foreign in [
            error(-32022, json!({ "supported": ["2027-01-01"] })),
            error(-32022, json!({ "supported": [] })),
            error(-32022, json!(null)),
            Answer::Result(json!({ "supportedVersions": [] })),
        ] {
            assert!(matches!(found(&foreign), Found::Foreign(_)), "{foreign:?}");
        }
    }

    #[test]
    fn what_a_server_agrees_to_is_taken_at_its_word() {
        assert_eq!(agreed(&json!({ "protocolVersion": "2024-11-05" })), "2024-11-05");
        assert_eq!(agreed(&json!({})), LEGACY);
    }
}
