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
}

impl Code {
    /// All of them.
    pub const ALL: [Self; 11] = [
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
        }
    }
}
