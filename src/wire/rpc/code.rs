//! The closed set of error codes: JSON-RPC's own, and ours as positive numbers, outside the range that JSON-RPC reserves.

/// Why a message was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Code {
    /// No JSON, no UTF-8, or nested deeper than [`super::DEPTH_MAX`].
    ParseError,
    /// JSON, but no request: an array, a wrong version, a strange id.
    InvalidRequest,
    /// No such method.
    MethodNotFound,
    /// The method's parameters are missing or wrong.
    InvalidParams,
    /// Anything before `hive/open`.
    NotOpen,
    /// No such agent, or not its token.
    BadToken,
    /// The incarnation has ended, or never was.
    StaleIncarnation,
    /// A protocol version that is not spoken here.
    UnsupportedProtocol,
    /// More messages than the connection may send.
    RateLimited,
    /// A line beyond the limit.
    LineTooLong,
    /// The daemon is on its way out.
    ShuttingDown,
    /// Too many calls of this session have no answer yet.
    TooManyCalls,
}

impl Code {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::ParseError,
        Self::InvalidRequest,
        Self::MethodNotFound,
        Self::InvalidParams,
        Self::NotOpen,
        Self::BadToken,
        Self::StaleIncarnation,
        Self::UnsupportedProtocol,
        Self::RateLimited,
        Self::LineTooLong,
        Self::ShuttingDown,
        Self::TooManyCalls,
    ];

    /// The number on the wire.
    pub fn number(self) -> i64 {
        match self {
            Self::ParseError => -32700,
            Self::InvalidRequest => -32600,
            Self::MethodNotFound => -32601,
            Self::InvalidParams => -32602,
            Self::NotOpen => 1001,
            Self::BadToken => 1002,
            Self::StaleIncarnation => 1003,
            Self::UnsupportedProtocol => 1004,
            Self::RateLimited => 1005,
            Self::LineTooLong => 1006,
            Self::ShuttingDown => 1007,
            Self::TooManyCalls => 1008,
        }
    }

    /// The message on the wire: JSON-RPC's own wording for its codes, a stable word for ours.
    pub fn word(self) -> &'static str {
        match self {
            Self::ParseError => "Parse error",
            Self::InvalidRequest => "Invalid Request",
            Self::MethodNotFound => "Method not found",
            Self::InvalidParams => "Invalid params",
            Self::NotOpen => "not_open",
            Self::BadToken => "bad_token",
            Self::StaleIncarnation => "stale_incarnation",
            Self::UnsupportedProtocol => "unsupported_protocol",
            Self::RateLimited => "rate_limited",
            Self::LineTooLong => "line_too_long",
            Self::ShuttingDown => "shutting_down",
            Self::TooManyCalls => "too_many_calls",
        }
    }
}

/// Why a tool has no answer: the number on the wire, and the stable word that every other door shows, too.
pub const TOOL_CODES: &[(i64, &str)] = &[
    (1101, "invalid_work"),
    (1102, "unknown_tool"),
    (1103, "unknown_swarm"),
    (1104, "unknown_recipient"),
    (1105, "not_alive"),
    (1106, "read_only"),
    (1107, "maybe_done"),
    (1108, "journal_unavailable"),
    (1109, "shutting_down"),
    (1110, "unknown_task"),
    (1111, "unknown_lock"),
    (1112, "unknown_message"),
    (1113, "request_not_open"),
    (1114, "key_reused"),
    (1115, "stale_token"),
    (1116, "wrong_state"),
    (1117, "dependency_cycle"),
    (1118, "work_full"),
    (1119, "deadlock"),
    (1120, "lock_timed_out"),
];

/// What has no number of its own.
const REFUSED: i64 = 1100;

/// The number of a tool's refusal.
pub fn tool_code(word: &str) -> i64 {
    TOOL_CODES.iter().find(|(_, known)| *known == word).map_or(REFUSED, |(number, _)| *number)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_refusal_of_a_tool_has_a_number_of_its_own() {
        let sources = [include_str!("../../tools/error.rs"), include_str!("../../coordination/refused.rs")];
        let codes =
            sources.iter().flat_map(|source| source.split("pub fn code(&self)").nth(1).unwrap_or_default().lines());
        let words: BTreeSet<&str> = codes
            .take_while(|line| !line.starts_with('}') || line.is_empty())
            .filter_map(|line| line.split_once("=> \"")?.1.split('"').next())
            .collect();
        assert!(words.contains("stale_token") || words.contains("not_alive"), "{words:?}");
        let known: BTreeSet<&str> = TOOL_CODES.iter().map(|(_, word)| *word).collect();
        assert_eq!(words.difference(&known).collect::<Vec<_>>(), Vec::<&&str>::new());
        let numbers: BTreeSet<i64> = TOOL_CODES.iter().map(|(number, _)| *number).collect();
        assert_eq!((numbers.len(), known.len()), (TOOL_CODES.len(), TOOL_CODES.len()));
        assert!(Code::ALL.iter().all(|code| !numbers.contains(&code.number())));
    }
}
