//! What is said on one connection. Pure: bytes in, the answer to the one question that waits out, and replies to the server's own requests. One
//! question waits at a time, so that a refusal that names none is still its.

use std::time::Duration;

use serde_json::Value;

use super::{
    ask,
    limits::{LINE_BYTES_MAX, UNASKED_BYTES_MAX, UNASKED_BYTES_PER_SECOND},
    reply::{self, Answer, Meaning},
};
use crate::wire::lines::{Line, Lines};

/// More came between two questions than a server has to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flooded;

/// What the question that waited was answered with.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Heard {
    /// By its id, or by a bare object.
    Answer(Answer),
    /// By a refusal that names no question.
    Refusal(String),
}

/// One connection's conversation.
#[derive(Debug)]
pub(super) struct Talk {
    lines: Lines,
    /// Ids are of this connection alone and are never used twice on it.
    last_id: u64,
    waiting: Option<u64>,
    heard: Option<Heard>,
    /// Bytes since the last question, less what time has forgiven.
    bytes: usize,
    /// A refusal that came while nothing waited: what the server has to say about the connection itself.
    turned_away: Option<String>,
    /// A line since the last question was too long to be read.
    too_long: bool,
}

impl Talk {
    pub(super) fn new() -> Self {
        Self {
            lines: Lines::new(LINE_BYTES_MAX),
            last_id: 0,
            waiting: None,
            heard: None,
            bytes: 0,
            turned_away: None,
            too_long: false,
        }
    }

    /// Appends a question; one that still waited is given up, and its answer will be a stray.
    pub(super) fn ask(&mut self, out: &mut Vec<u8>, method: &str, params: &Value) {
        self.last_id += 1;
        (self.waiting, self.heard, self.bytes, self.too_long) = (Some(self.last_id), None, 0, false);
        ask::request(out, self.last_id, method, params);
    }

    /// Gives up the question that waits and tells the server so, where its version knows how.
    pub(super) fn give_up(&mut self, out: &mut Vec<u8>) {
        if let Some(id) = self.waiting.take() {
            let params = serde_json::json!({ "requestId": id, "reason": "no answer in time" });
            ask::notification(out, "notifications/cancelled", &params);
        }
    }

    /// No question waits, and time has passed: what a server may send in it is forgiven. Returns how much of the time that was, so that the rest of
    /// it is not lost to whoever calls often.
    #[must_use]
    pub(super) fn forgive(&mut self, passed: Duration) -> Duration {
        let Ok(seconds) = usize::try_from(passed.as_secs()) else { return passed };
        self.bytes = self.bytes.saturating_sub(seconds.saturating_mul(UNASKED_BYTES_PER_SECOND));
        Duration::from_secs(passed.as_secs())
    }

    /// Takes what was read. Replies to the server's own requests are appended to `out`.
    pub(super) fn take(&mut self, mut chunk: &[u8], out: &mut Vec<u8>) -> Result<(), Flooded> {
        self.bytes = self.bytes.saturating_add(chunk.len());
        while let Some(line) = self.lines.next(&mut chunk) {
            let Line::Whole(line) = line else {
                self.too_long = true;
                continue;
            };
            match reply::read(line, self.waiting) {
                Meaning::Noise | Meaning::Stray => {}
                Meaning::Asks { id, method } => ask::reply(out, &id, &method),
                Meaning::Answer(answer) => {
                    self.waiting = None;
                    self.heard = Some(Heard::Answer(answer));
                }
                Meaning::Refusal(why) if self.waiting.take().is_some() => self.heard = Some(Heard::Refusal(why)),
                Meaning::Refusal(why) => self.turned_away = Some(why),
            }
        }
        if self.bytes > UNASKED_BYTES_MAX && self.heard.is_none() { Err(Flooded) } else { Ok(()) }
    }

    /// What the last question was answered with, once.
    pub(super) fn heard(&mut self) -> Option<Heard> {
        self.heard.take()
    }

    /// Whether anything at all came since the last question: a peer that is silent may be gone without our knowing.
    pub(super) fn is_silent(&self) -> bool {
        self.bytes == 0
    }

    /// Whether a line since the last question was too long to be read.
    pub(super) fn was_too_long(&self) -> bool {
        self.too_long
    }

    /// What the server said about the connection itself.
    pub(super) fn turned_away(&self) -> Option<&str> {
        self.turned_away.as_deref()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn asked() -> Talk {
        let mut talk = Talk::new();
        talk.ask(&mut Vec::new(), "tools/call", &json!({}));
        talk
    }

    fn result(value: Value) -> Option<Heard> {
        Some(Heard::Answer(Answer::Result(value)))
    }

    #[test]
    fn the_answer_is_found_between_everything_else() {
        let mut talk = asked();
        let mut out = Vec::new();
        let stream = concat!(
            "Claude-Flow v2 ready\r\n\n",
            r#"{"jsonrpc":"2.0","method":"server.initialized","params":{}}"#,
            "\n\u{fffd}\n{\"half\n",
            r#"{"jsonrpc":"2.0","id":99,"result":{"wrong":true}}"#,
            "\n",
            r#"{"jsonrpc":"2.0","id":"s1","method":"ping"}"#,
            "\n",
            r#"{"jsonrpc":"2.0","id":1,"result":{"right":true}}"#,
            "\n",
            r#"{"jsonrpc":"2.0","id":1,"result":{"twice":true}}"#,
            "\n",
        );
        for chunk in stream.as_bytes().chunks(7) {
            talk.take(chunk, &mut out).unwrap();
        }
        assert_eq!(talk.heard(), result(json!({ "right": true })));
        assert_eq!(talk.heard(), None);
        assert_eq!(String::from_utf8(out).unwrap(), "{\"id\":\"s1\",\"jsonrpc\":\"2.0\",\"result\":{}}\n");
    }

    #[test]
    fn ids_are_never_used_twice_and_late_answers_are_strays() {
        let mut talk = asked();
        let mut out = Vec::new();
        talk.give_up(&mut out);
        let cancelled: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(cancelled["method"], "notifications/cancelled");
        assert_eq!(cancelled["params"]["requestId"], 1);
        out.clear();
        talk.ask(&mut out, "tools/call", &json!({}));
        assert_eq!(serde_json::from_slice::<Value>(&out).unwrap()["id"], 2);
        talk.take(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\"late\"}\n", &mut out).unwrap();
        assert_eq!(talk.heard(), None);
        talk.take(b"{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":\"new\"}\n", &mut out).unwrap();
        assert_eq!(talk.heard(), result(json!("new")));
    }

    #[test]
    fn refusals_are_the_questions_that_waits_or_the_connections() {
        let mut talk = Talk::new();
        let refusal = b"{\"error\":\"too many clients\"}\n";
        talk.take(refusal, &mut Vec::new()).unwrap();
        assert_eq!((talk.heard(), talk.turned_away()), (None, Some("too many clients")));
        talk.ask(&mut Vec::new(), "tools/call", &json!({}));
        talk.take(refusal, &mut Vec::new()).unwrap();
        assert_eq!(talk.heard(), Some(Heard::Refusal("too many clients".to_owned())));
    }

    #[test]
    fn a_line_of_a_mebibyte_passes_and_a_longer_one_is_skipped() {
        let mut talk = asked();
        let frame = br#"{"jsonrpc":"2.0","id":1,"result":""}"#.len();
        let line =
            |len: usize| format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\"{}\"}}\n", "x".repeat(len - frame));
        talk.take(line(LINE_BYTES_MAX + 1).as_bytes(), &mut Vec::new()).unwrap();
        assert_eq!((talk.heard(), talk.was_too_long()), (None, true));
        talk.take(line(LINE_BYTES_MAX).as_bytes(), &mut Vec::new()).unwrap();
        assert!(talk.heard().is_some());
        talk.ask(&mut Vec::new(), "x", &json!({}));
        assert!(!talk.was_too_long());
    }

    #[test]
    fn a_flood_ends_the_connection_and_an_answer_within_it_counts() {
        let noise = b"noise noise noise\n".repeat(1000);
        let mut talk = asked();
        let mut taken = 0;
        while talk.take(&noise, &mut Vec::new()).is_ok() {
            taken += noise.len();
            assert!(taken <= UNASKED_BYTES_MAX);
        }
        talk.ask(&mut Vec::new(), "x", &json!({}));
        assert_eq!(talk.take(&noise, &mut Vec::new()), Ok(()), "each question begins anew");
        let mut whole = noise.repeat(UNASKED_BYTES_MAX / noise.len() + 1);
        whole.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":1}\n");
        assert_eq!(talk.take(&whole, &mut Vec::new()), Ok(()));
        assert_eq!(talk.heard(), result(json!(1)));
    }

    #[test]
    fn who_broadcasts_all_day_between_two_questions_floods_nobody() {
        let hundred = [&b"x".repeat(99)[..], b"\n"].concat();
        let mut talk = Talk::new();
        for _ in 0..24 * 3600 {
            assert_eq!(talk.take(&hundred, &mut Vec::new()), Ok(()));
            let second = Duration::from_secs(1);
            assert_eq!(talk.forgive(second + Duration::from_millis(7)), second, "what is left of a second is not lost");
        }
        let mut seconds = 0;
        while talk.take(&b"x\n".repeat(UNASKED_BYTES_PER_SECOND), &mut Vec::new()).is_ok() {
            let _ = talk.forgive(Duration::from_secs(1));
            seconds += 1;
            assert!(seconds < 1000, "twice as much as is allowed is a flood");
        }
        assert_eq!(seconds, UNASKED_BYTES_MAX / UNASKED_BYTES_PER_SECOND - 1);
    }

    fn piece() -> impl Strategy<Value = Vec<u8>> {
        let text = |text: &str| Just(text.as_bytes().to_vec());
        prop_oneof![
            4 => proptest::collection::vec(any::<u8>(), 0..80),
            1 => text("\n"),
            1 => text("{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":"),
            1 => text("{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{\"content\":[{\"text\":\"{\\\"agents\\\":[{}]}\"}]}}\n"),
            1 => text("{\"error\":"),
            1 => text("{\"jsonrpc\":\"2.0\",\"id\":[],\"method\":\"ping\"}\n"),
            1 => text("{\"jsonrpc\":\"2.0\",\"id\":-1e999,\"method\":\"ping\"}\n"),
            1 => (1..3000_usize).prop_map(|n| "[".repeat(n).into_bytes()),
            1 => ".{0,40}".prop_map(String::into_bytes),
        ]
    }

    proptest! {
        /// Whatever a server sends, in whatever pieces: no panic, bounded memory and replies no longer than what was asked.
        #[test]
        fn any_bytes_are_bounded_and_never_a_panic(pieces in proptest::collection::vec(piece(), 0..60)) {
            let mut talk = Talk::new();
            let mut out = Vec::new();
            for (i, piece) in pieces.iter().enumerate() {
                if i % 7 == 0 {
                    talk.ask(&mut Vec::new(), "tools/call", &json!({}));
                }
                out.clear();
                let _ = talk.take(piece, &mut out);
                prop_assert!(out.len() <= 128 * (1 + piece.iter().filter(|b| **b == b'\n').count()) + piece.len() + 3000);
                if let Some(Heard::Answer(Answer::Result(result))) = talk.heard() {
                    let mut listed = super::super::agents::Listed::default();
                    if let super::super::answer::Said::Payload(payload) = super::super::answer::said(result) {
                        listed.add(&payload, std::time::SystemTime::UNIX_EPOCH);
                        let _ = super::super::answer::shown_whole(&payload);
                    }
                }
            }
        }
    }
}
