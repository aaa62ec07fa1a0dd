//! Hides secrets that an agent prints, before what it prints is kept or shown. Pure but for what it remembers of a line that came in pieces.
//!
//! It is meant for accidents: whoever holds a secret can write it down in another form, and no veil helps against that. Looked for are the values of the
//! incarnation's secrets, each of their lines, and its token.

use memchr::memmem::Finder;
use parking_lot::Mutex;
use serde_json::Value;

use super::registry::token_hash;
use crate::{
    model::{LogRecord, LogRecords},
    wire::channel::Stream,
};

/// What stands where a secret was.
pub const REDACTED: &str = "[redacted]";
/// Shortest secret that is looked for: a shorter one is found in what has nothing to do with it.
pub const SECRET_BYTES_MIN: usize = 8;
/// Most needles for one incarnation: each is looked for in every line. A key file of 8 KiB has about so many lines.
const NEEDLES_MAX: usize = 256;
/// Least part of a secret that is hidden at the end of a piece whose line goes on: less of it is too often no part of it.
const PART_BYTES_MIN: usize = 4;
/// A token of ours: hexadecimal digits.
const TOKEN_BYTES: usize = 64;

/// What is hidden of one incarnation.
pub struct Veil {
    /// The hash of its token: the token itself is not kept.
    token: [u8; 32],
    /// Longest first.
    needles: Vec<Finder<'static>>,
    /// The ends of unfinished lines, as they were: of standard output, of standard error.
    unfinished: Mutex<[String; 2]>,
}

impl Veil {
    /// Hides the token with this hash, and these secrets.
    pub fn new(token: [u8; 32], secrets: &[String]) -> Self {
        let lines = secrets.iter().flat_map(|secret| secret.lines()).map(str::trim);
        let whole = secrets.iter().map(String::as_str);
        let mut all: Vec<&str> = whole.chain(lines).filter(|text| text.len() >= SECRET_BYTES_MIN).collect();
        all.sort_by(|a, b| b.len().cmp(&a.len()).then(a.cmp(b)));
        all.dedup();
        all.truncate(NEEDLES_MAX);
        let needles = all.into_iter().map(|text| Finder::new(text.as_bytes()).into_owned()).collect();
        Self { token, needles, unfinished: Mutex::default() }
    }

    /// A line of output, or the next piece of one; `None` when nothing in it is to be hidden.
    pub fn line(&self, stream: Stream, text: &str, partial: bool) -> Option<String> {
        let mut unfinished = self.unfinished.lock();
        let before = match stream {
            Stream::Stdout => &mut unfinished[0],
            Stream::Stderr => &mut unfinished[1],
        };
        self.piece(before, text, partial)
    }

    /// Log records that were read at once, with all pieces of each.
    pub fn records(&self, records: &mut LogRecords) {
        if self.spans(records.text(), false).is_empty() {
            return;
        }
        let mut hidden = LogRecords::default();
        let mut before = String::new();
        for LogRecord { level, at, partial, text } in records.iter() {
            let other = self.piece(&mut before, text, partial);
            hidden.push(LogRecord { level, at, partial, text: other.as_deref().unwrap_or(text) });
        }
        *records = hidden;
    }

    /// A short text that stands for itself.
    pub fn text(&self, text: &str) -> Option<String> {
        self.piece(&mut String::new(), text, false)
    }

    /// JSON text, whichever way its strings are escaped.
    pub fn json(&self, raw: &str) -> Option<String> {
        if self.needles.is_empty() {
            // Nobody escapes hexadecimal digits.
            return self.text(raw);
        }
        let mut value: Value = serde_json::from_str(raw).ok()?;
        if self.value(&mut value) { Some(value.to_string()) } else { None }
    }

    fn value(&self, value: &mut Value) -> bool {
        match value {
            Value::Null | Value::Bool(_) => false,
            Value::Number(number) => match self.text(&number.to_string()) {
                Some(hidden) => {
                    *value = Value::String(hidden);
                    true
                }
                None => false,
            },
            Value::String(text) => match self.text(text) {
                Some(hidden) => {
                    *text = hidden;
                    true
                }
                None => false,
            },
            Value::Array(items) => items.iter_mut().fold(false, |hid, item| self.value(item) | hid),
            Value::Object(members) => {
                let mut hid = members.values_mut().fold(false, |hid, member| self.value(member) | hid);
                let named: Vec<(String, String)> =
                    members.keys().filter_map(|key| Some((key.clone(), self.text(key)?))).collect();
                for (key, hidden) in named {
                    hid = true;
                    if let Some(member) = members.remove(&key) {
                        members.insert(hidden, member);
                    }
                }
                hid
            }
        }
    }

    /// `before` is what went before of this line, and takes up what goes before the next piece.
    fn piece(&self, before: &mut String, text: &str, partial: bool) -> Option<String> {
        let known = before.len();
        let joined = if known == 0 { None } else { Some(format!("{before}{text}")) };
        let whole = joined.as_deref().unwrap_or(text);
        let spans = self.spans(whole, partial);
        let hidden = write(
            &whole[known..],
            spans.into_iter().filter(|(_, to)| *to > known).map(|(from, to)| (from.saturating_sub(known), to - known)),
        );
        let kept = if partial { tail(whole, self.longest() - 1).to_owned() } else { String::new() };
        *before = kept;
        hidden
    }

    fn longest(&self) -> usize {
        self.needles.first().map_or(0, |needle| needle.needle().len()).max(TOKEN_BYTES)
    }

    /// Where something is to be hidden, in order and apart from each other. `open`: the text goes on, and may end with the beginning of a secret.
    fn spans(&self, text: &str, open: bool) -> Vec<(usize, usize)> {
        let bytes = text.as_bytes();
        let mut spans = Vec::new();
        for needle in &self.needles {
            let length = needle.needle().len();
            spans.extend(needle.find_iter(bytes).map(|at| (at, at + length)));
            if open {
                spans.extend(beginning(bytes, needle.needle()).map(|part| (bytes.len() - part, bytes.len())));
            }
        }
        self.tokens(bytes, &mut spans);
        spans.sort_unstable();
        spans.dedup_by(|next, last| {
            let touch = next.0 <= last.1;
            if touch {
                last.1 = last.1.max(next.1);
            }
            touch
        });
        spans
    }

    /// Runs of so many hexadecimal digits as a token has, and whose hash is that of the token. One byte in 64 is looked at, else.
    fn tokens(&self, bytes: &[u8], spans: &mut Vec<(usize, usize)>) {
        let digit = |at: usize| bytes.get(at).is_some_and(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let mut at = TOKEN_BYTES - 1;
        while at < bytes.len() {
            if !digit(at) {
                at += TOKEN_BYTES;
                continue;
            }
            let (mut from, mut to) = (at, at + 1);
            while from > 0 && digit(from - 1) {
                from -= 1;
            }
            while digit(to) {
                to += 1;
            }
            if to - from == TOKEN_BYTES
                && std::str::from_utf8(&bytes[from..to]).is_ok_and(|text| token_hash(text) == self.token)
            {
                spans.push((from, to));
            }
            at = to + TOKEN_BYTES;
        }
    }
}

/// How much of the beginning of a secret a text ends with, if it is enough to tell.
fn beginning(text: &[u8], secret: &[u8]) -> Option<usize> {
    let most = text.len().min(secret.len() - 1);
    (PART_BYTES_MIN..=most).rev().find(|part| text.ends_with(&secret[..*part]))
}

/// Bytes of the end, at most so many, whole characters.
fn tail(text: &str, bytes: usize) -> &str {
    &text[text.ceil_char_boundary(text.len().saturating_sub(bytes))..]
}

/// The text with its spans hidden; `None` without any. The ends of a span are moved outward to whole characters.
fn write(text: &str, spans: impl Iterator<Item = (usize, usize)>) -> Option<String> {
    let mut hidden: Option<String> = None;
    let mut done = 0;
    for (from, to) in spans {
        let (from, to) = (text.floor_char_boundary(from).max(done), text.ceil_char_boundary(to));
        let out = hidden.get_or_insert_with(|| String::with_capacity(text.len()));
        out.push_str(&text[done..from]);
        out.push_str(REDACTED);
        done = to;
    }
    let mut hidden = hidden?;
    hidden.push_str(&text[done..]);
    Some(hidden)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::LogLevel;

    const SECRET: &str = "sk-planted-0123456789";

    fn token() -> String {
        "0123456789abcdef".repeat(4)
    }

    fn veil(secrets: &[&str]) -> Veil {
        Veil::new(token_hash(&token()), &secrets.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    fn shown(veil: &Veil, text: &str) -> String {
        veil.line(Stream::Stdout, text, false).unwrap_or_else(|| text.to_owned())
    }

    #[test]
    fn a_secret_is_hidden_wherever_it_stands_and_nothing_else_is() {
        let veil = veil(&[SECRET, "short", "umlaut-äöü"]);
        let line = format!("{SECRET} a {SECRET}{SECRET} short b umlaut-äöü");
        assert_eq!(shown(&veil, &line), "[redacted] a [redacted] short b [redacted]");
        assert_eq!(veil.line(Stream::Stdout, "nothing here, sk-planted-012345678", false), None);
        assert_eq!(shown(&veil, ""), "");
    }

    #[test]
    fn the_longest_goes_first_and_overlaps_are_one() {
        let veil = veil(&["abcdefgh", "abcdefgh-ijkl", "ijkl-mnop"]);
        assert_eq!(shown(&veil, "<abcdefgh-ijkl-mnop> <abcdefgh>"), "<[redacted]> <[redacted]>");
    }

    #[test]
    fn each_line_of_a_secret_is_one() {
        let veil = veil(&["-----BEGIN KEY-----\n  MIIEvQIBADANBg\nx\n-----END KEY-----"]);
        assert_eq!(shown(&veil, "key: MIIEvQIBADANBg x"), "key: [redacted] x");
    }

    #[test]
    fn a_token_is_known_by_its_hash() {
        let veil = veil(&[]);
        let token = token();
        for before in ["", "t=", &"g".repeat(63), &"g".repeat(64), &"a b ".repeat(50), &format!("{} ", "a".repeat(70))]
        {
            let line = format!("{before}{token} end");
            assert_eq!(shown(&veil, &line), format!("{before}[redacted] end"));
            assert_eq!(shown(&veil, &format!("{before}{token}")), format!("{before}[redacted]"));
        }
        let other = "f".repeat(64);
        assert_eq!(
            veil.line(Stream::Stdout, &format!("{other} a{token}"), false),
            None,
            "another, and a longer number"
        );
    }

    /// Whatever the cut, no piece shows more than the few bytes that could not be told from others.
    #[test]
    fn a_secret_that_comes_in_pieces_is_hidden_in_each() {
        let veil = veil(&[SECRET]);
        for cut in 1..SECRET.len() {
            let (first, second) = (format!("before {}", &SECRET[..cut]), format!("{} after", &SECRET[cut..]));
            let other = veil.line(Stream::Stderr, "unfinished, of another stream", true);
            assert_eq!(other, None);
            let first = veil.line(Stream::Stdout, &first, true).unwrap_or(first);
            let second = veil.line(Stream::Stdout, &second, false).unwrap_or(second);
            assert_eq!(second, "[redacted] after", "cut at {cut}");
            let left = first.strip_prefix("before ").unwrap();
            assert!(left == REDACTED || (left.len() < PART_BYTES_MIN && SECRET.starts_with(left)), "{left}");
        }
        let bytes = SECRET.char_indices().map(|(at, _)| &SECRET[at..=at]);
        let all: String =
            bytes.map(|one| veil.line(Stream::Stdout, one, true).unwrap_or_else(|| one.to_owned())).collect();
        assert!(!all.contains("planted"), "{all}");
        assert_eq!(veil.line(Stream::Stdout, "", false), None, "the line has ended");
        assert_eq!(veil.line(Stream::Stdout, "9", false), None);
    }

    #[test]
    fn records_keep_their_circumstances() {
        let veil = veil(&[SECRET]);
        let mut records = LogRecords::default();
        let mut push = |level, partial, text: &str| records.push(LogRecord { level, at: None, partial, text });
        push(LogLevel::Info, false, "plain");
        push(LogLevel::Warn, true, &format!("a {}", &SECRET[..9]));
        push(LogLevel::Warn, false, &SECRET[9..]);
        push(LogLevel::Error, false, SECRET);
        let mut untouched = LogRecords::default();
        untouched.push(LogRecord { level: LogLevel::Info, at: None, partial: false, text: "plain" });
        let before = untouched.clone();
        veil.records(&mut untouched);
        assert_eq!(untouched, before);
        veil.records(&mut records);
        let left: Vec<_> = records.iter().map(|record| (record.level, record.partial, record.text)).collect();
        let expected = [
            (LogLevel::Info, false, "plain"),
            (LogLevel::Warn, true, "a [redacted]"),
            (LogLevel::Warn, false, "[redacted]"),
            (LogLevel::Error, false, "[redacted]"),
        ];
        assert_eq!(left, expected);
        assert_eq!(records.len(), 3);
    }

    #[test]
    fn json_stays_json_whatever_the_secret_holds() {
        let veil = veil(&["quote\"and\\slash", "123456789"]);
        let raw = r#"{"a":["quote\u0022and\\slash!",1234567890,true],"quote\"and\\slash":{"b":null}}"#;
        let hidden: Value = serde_json::from_str(&veil.json(raw).unwrap()).unwrap();
        assert_eq!(hidden, json!({ "a": ["[redacted]!", "[redacted]0", true], "[redacted]": { "b": null } }));
        assert_eq!(veil.json(r#"{ "order": 1, "is": 2.50, "kept": 3 }"#), None);
        assert_eq!(veil.json(&format!("{{\"t\":\"{}\"}}", token())).unwrap(), "{\"t\":\"[redacted]\"}");
    }

    #[test]
    fn needles_are_bounded() {
        let many: String = (0..10_000).map(|n| format!("line number {n}\n")).collect();
        assert_eq!(veil(&[&many]).needles.len(), NEEDLES_MAX);
    }
}
