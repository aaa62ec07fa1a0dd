//! One line to one message. Nothing is copied but what JSON escapes force.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, de::IgnoredAny};
use serde_json::value::RawValue;

use super::{code::Code, params::Text};

/// Deepest nesting of a line. Far more than any message needs, and half of what serde_json itself takes (128) before it gives up, so that
/// whoever reads a stored piece of the message can nest it in a document of their own.
pub const DEPTH_MAX: usize = 64;
/// Longest id, as JSON text: it is echoed, and nobody needs more to tell requests apart than a few UUIDs.
pub const ID_BYTES_MAX: usize = 256;

/// What the names of our methods begin with.
pub const METHODS: &str = "hive/";

/// An id as the peer wrote it: a JSON string, an integer or `null`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Id<'a>(&'a str);

impl<'a> Id<'a> {
    /// The id of an answer to something whose own id could not be told.
    pub const NULL: Id<'static> = Id("null");

    /// JSON text.
    pub fn as_json(&self) -> &'a str {
        self.0
    }

    /// Fractions and exponents are refused: JSON-RPC advises against them, and they don't come back as they went.
    fn of(raw: &'a RawValue) -> Option<Self> {
        let text = raw.get();
        let integer = || {
            let digits = text.strip_prefix('-').unwrap_or(text);
            !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
        };
        let fits = text.len() <= ID_BYTES_MAX && (text == "null" || text.starts_with('"') || integer());
        fits.then_some(Self(text))
    }
}

/// An id that outlives its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnId(Box<str>);

impl OwnId {
    /// The id as it came.
    pub fn id(&self) -> Id<'_> {
        Id(&self.0)
    }
}

impl From<Id<'_>> for OwnId {
    fn from(id: Id<'_>) -> Self {
        Self(id.0.into())
    }
}

/// A message that came in.
#[derive(Debug)]
pub enum Message<'a> {
    /// Wants exactly one answer. `"id": null` is a request, too.
    Request {
        /// To be echoed.
        id: Id<'a>,
        /// What is called.
        method: Cow<'a, str>,
        /// An object or an array; `null` counts as none.
        params: Option<&'a RawValue>,
    },
    /// Is never answered.
    Notification {
        /// What is told.
        method: Cow<'a, str>,
        /// An object or an array; `null` counts as none.
        params: Option<&'a RawValue>,
    },
    /// The answer to a request of ours.
    Answer {
        /// Our id.
        id: Id<'a>,
    },
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    jsonrpc: Text<'a>,
    #[serde(borrow, default)]
    method: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "seen")]
    result: bool,
    #[serde(default, deserialize_with = "seen")]
    error: bool,
}

/// Tells `"id": null` from no id at all.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

pub(super) fn seen<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(from).map(|_| true)
}

/// Reads one line.
///
/// # Errors
/// [`Code::ParseError`] for what is no JSON (or no UTF-8, or too deep), [`Code::InvalidRequest`] for JSON that is no message.
pub fn parse(line: &[u8]) -> Result<Message<'_>, Code> {
    let text = std::str::from_utf8(line).map_err(|_| Code::ParseError)?;
    if !shallow(line) && too_deep(line) {
        return Err(Code::ParseError);
    }
    // An array would pass as an envelope by position, so only an object is tried.
    let envelope =
        if text.trim_ascii_start().starts_with('{') { serde_json::from_str::<Envelope>(text).ok() } else { None };
    let Some(envelope) = envelope else {
        let json = serde_json::from_str::<IgnoredAny>(text).is_ok();
        return Err(if json { Code::InvalidRequest } else { Code::ParseError });
    };
    message(envelope).ok_or(Code::InvalidRequest)
}

fn message(envelope: Envelope<'_>) -> Option<Message<'_>> {
    if envelope.jsonrpc.0 != "2.0" {
        return None;
    }
    let id = match envelope.id {
        Some(raw) => Some(Id::of(raw)?),
        None => None,
    };
    match (envelope.method, id) {
        (Some(Text(method)), id) => {
            let params = envelope.params;
            if params.is_some_and(|p| !p.get().starts_with(['{', '['])) {
                return None;
            }
            Some(match id {
                Some(id) => Message::Request { id, method, params },
                None => Message::Notification { method, params },
            })
        }
        (None, Some(id)) if envelope.result != envelope.error => Some(Message::Answer { id }),
        (None, _) => None,
    }
}

/// Whether too little is opened in a line for it to be too deep. True of every usual line, and told at a fraction of what walking costs.
pub(super) fn shallow(line: &[u8]) -> bool {
    // In bytes, of which the processor adds many at once; no piece overflows one.
    let opened = |piece: &[u8]| piece.iter().fold(0u8, |sum, byte| sum + u8::from(matches!(byte, b'[' | b'{')));
    line.chunks(usize::from(u8::MAX)).map(|piece| usize::from(opened(piece))).sum::<usize>() <= DEPTH_MAX
}

/// serde_json walks ignored and raw values without recursion, so depth is no danger here, but it is to whoever parses the pieces later.
fn too_deep(line: &[u8]) -> bool {
    let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
    for byte in line {
        match (quoted, *byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => quoted = !quoted,
            (false, b'[' | b'{') => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return true;
                }
            }
            (false, b']' | b'}') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(line: &str) -> (String, String, Option<String>) {
        match parse(line.as_bytes()).unwrap() {
            Message::Request { id, method, params } => {
                (id.as_json().to_owned(), method.into_owned(), params.map(|p| p.get().to_owned()))
            }
            other => panic!("{other:?}"),
        }
    }

    /// The examples of section 7 of the JSON-RPC 2.0 specification that are single messages.
    #[test]
    fn section_7() {
        assert_eq!(
            request(r#"{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}"#),
            ("1".to_owned(), "subtract".to_owned(), Some("[42, 23]".to_owned()))
        );
        assert_eq!(
            request(
                r#"{"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23, "minuend": 42}, "id": 3}"#
            )
            .0,
            "3"
        );
        assert!(matches!(
            parse(br#"{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}"#),
            Ok(Message::Notification { method, params: Some(_) }) if method == "update"
        ));
        assert!(matches!(
            parse(br#"{"jsonrpc": "2.0", "method": "foobar"}"#),
            Ok(Message::Notification { params: None, .. })
        ));
        assert_eq!(request(r#"{"jsonrpc": "2.0", "method": "foobar", "id": "1"}"#).0, "\"1\"");
        for (line, code) in [
            (r#"{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]"#, Code::ParseError),
            (r#"{"jsonrpc": "2.0", "method": 1, "params": "bar"}"#, Code::InvalidRequest),
            (r#"[ {"jsonrpc": "2.0", "method": "sum", "id": "1"}, {"jsonrpc": "2.0", "method""#, Code::ParseError),
            ("[]", Code::InvalidRequest),
            ("[1]", Code::InvalidRequest),
            ("[1,2,3]", Code::InvalidRequest),
            (r#"[{"jsonrpc": "2.0", "method": "notify_hello", "params": [7]}]"#, Code::InvalidRequest),
        ] {
            assert_eq!(parse(line.as_bytes()).unwrap_err(), code, "{line}");
        }
    }

    #[test]
    fn envelopes_that_are_none() {
        for line in [
            "1",
            "null",
            "\"x\"",
            "{}",
            r#"["2.0","hive/open",1]"#,
            r#"{"method":"a","id":1}"#,
            r#"{"jsonrpc":"1.0","method":"a","id":1}"#,
            r#"{"jsonrpc":2.0,"method":"a","id":1}"#,
            r#"{"jsonrpc":"2.0","id":1}"#,
            r#"{"jsonrpc":"2.0","method":null,"id":1}"#,
            r#"{"jsonrpc":"2.0","method":"a","id":1.5}"#,
            r#"{"jsonrpc":"2.0","method":"a","id":1e2}"#,
            r#"{"jsonrpc":"2.0","method":"a","id":[1]}"#,
            r#"{"jsonrpc":"2.0","method":"a","id":true}"#,
            r#"{"jsonrpc":"2.0","method":"a","id":1,"id":2}"#,
            r#"{"jsonrpc":"2.0","method":"a","params":"bar"}"#,
            r#"{"jsonrpc":"2.0","result":1,"error":{},"id":1}"#,
            r#"{"jsonrpc":"2.0","result":1}"#,
        ] {
            assert_eq!(parse(line.as_bytes()).unwrap_err(), Code::InvalidRequest, "{line}");
        }
        let long = format!(r#"{{"jsonrpc":"2.0","method":"a","id":"{}"}}"#, "x".repeat(ID_BYTES_MAX));
        assert_eq!(parse(long.as_bytes()).unwrap_err(), Code::InvalidRequest);
    }

    #[test]
    fn text_that_is_no_json() {
        for line in [
            &b"{"[..],
            b"}",
            b"hello",
            b"{\"a\":\"\xff\"}",
            b"\xff\xfe",
            b"{} {}",
            b"{'a':1}",
            b"GET / HTTP/1.1",
            b"[1,]",
            b"\0",
        ] {
            assert_eq!(parse(line).unwrap_err(), Code::ParseError, "{line:?}");
        }
    }

    #[test]
    fn ids_are_echoed_as_they_came() {
        for id in ["0", "-7", "\"\"", "\"a\\u0041\\n\"", "null", "123456789012345678901234567890"] {
            let line = format!(r#"{{"jsonrpc":"2.0","method":"m","id":{id}}}"#);
            assert_eq!(request(&line).0, id);
        }
    }

    #[test]
    fn answers_are_told_from_requests() {
        for line in
            [r#"{"jsonrpc":"2.0","result":{},"id":"hk-1"}"#, r#"{"jsonrpc":"2.0","error":{"code":1},"id":null}"#]
        {
            assert!(matches!(parse(line.as_bytes()), Ok(Message::Answer { .. })), "{line}");
        }
    }

    #[test]
    fn unknown_members_null_params_and_escaped_names_pass() {
        let (id, method, params) =
            request(r#" {"jsonrpc":"2.0","x":[{}],"\u006dethod":"hive\/open","params":null,"id":1} "#);
        assert_eq!((id.as_str(), method.as_str(), params), ("1", "hive/open", None));
    }

    #[test]
    fn depth_has_a_limit_and_strings_do_not_count() {
        let nested =
            |n: usize| format!(r#"{{"jsonrpc":"2.0","method":"m","params":{}{}}}"#, "[".repeat(n), "]".repeat(n));
        assert!(parse(nested(DEPTH_MAX - 1).as_bytes()).is_ok());
        for n in [DEPTH_MAX, 100_000] {
            assert_eq!(parse(nested(n).as_bytes()).unwrap_err(), Code::ParseError);
        }
        assert_eq!(parse("[".repeat(100_000).as_bytes()).unwrap_err(), Code::ParseError);
        let quoted = format!(r#"{{"jsonrpc":"2.0","method":"m","params":["\"{}"]}}"#, "[".repeat(1000));
        assert!(parse(quoted.as_bytes()).is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_a_code(line in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&line);
        }

        #[test]
        fn json_is_never_a_parse_error(text in "[0-9]{1,3}|null|true|\"[a-z]*\"|\\[[0-9]\\]|\\{\"[a-z]{0,3}\":[0-9]\\}") {
            prop_assume!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
            prop_assert_eq!(parse(text.as_bytes()).unwrap_err(), Code::InvalidRequest);
        }
    }
}
