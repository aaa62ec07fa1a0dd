//! An agent's connections: what its program writes, and what a careful reader of the protocol would expect to come of it.

use std::collections::VecDeque;

use super::{Rule, chance::Chance};
use crate::{
    data_plane::simulated::Peer,
    model::{AgentId, Lost},
};

/// Notifications of one connection a second, and at once.
pub(super) const PER_SECOND: u32 = 40;
/// See [`PER_SECOND`].
pub(super) const BURST: u32 = 60;
/// How long a session is read whose incarnation has ended.
const LAST_WORDS_MS: u64 = 500;

/// One notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Note {
    /// With this progress.
    Beat(Option<String>),
    Log,
    Metric,
    Usage,
    Event,
    /// Refused by this code.
    Wrong(i64),
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sent {
    /// `hive/open` by this token of this incarnation, in this protocol.
    Open { token: String, incarnation: u64, protocol: u64 },
    /// As notifications, or as one request.
    Notes { notes: Vec<Note>, is_request: bool },
    /// No message at all: refused by this code, whatever the state.
    Garbage(i64),
    /// Skipped.
    Blank,
    /// An answer to a `hive/ping`.
    Pong,
}

/// What the session should be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Open,
    Closed,
}

/// What a read should bring.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) beats: u64,
    pub(super) logs: u64,
    pub(super) metrics: u64,
    /// Totals among these, which no rate holds up and another session may have to tell.
    pub(super) usages: u64,
    pub(super) events: u64,
    pub(super) refused: Vec<i64>,
    pub(super) replies: u64,
    pub(super) opened: bool,
    pub(super) progress: Option<String>,
    /// Notifications that nobody understands.
    wrong: u64,
    /// Answers that may stand for a heartbeat.
    pub(super) pongs: u64,
}

impl Expected {
    /// Notifications that count for the rate.
    pub(super) fn notes(&self) -> u64 {
        self.beats + self.logs + self.metrics + self.events + self.wrong
    }
}

pub(super) struct Wire {
    pub(super) number: u64,
    pub(super) agent: AgentId,
    pub(super) incarnation: u64,
    /// Our end; `None` once the connection is gone.
    pub(super) peer: Option<Peer>,
    /// Bytes on their way, and where in them lines end.
    bytes: Vec<u8>,
    ends: VecDeque<(usize, Sent)>,
    /// Nothing is delivered until then.
    pub(super) stalled_until: u64,
    /// Its program has forgotten it, without our knowing.
    pub(super) is_half_open: bool,
    state: State,
    /// When it was first read behind the end of its incarnation, ms.
    last_words_at: Option<u64>,
    pub(super) opened_at: u64,
    /// Notifications since it was opened, and those of them that were let in, heartbeats and totals left out.
    pub(super) notes: u64,
    pub(super) let_in: u64,
    pub(super) pings: u64,
}

impl Wire {
    pub(super) fn new(number: u64, agent: AgentId, incarnation: u64, peer: Peer) -> Self {
        Self {
            number,
            agent,
            incarnation,
            peer: Some(peer),
            bytes: Vec::new(),
            ends: VecDeque::new(),
            stalled_until: 0,
            is_half_open: false,
            state: State::New,
            last_words_at: None,
            opened_at: 0,
            notes: 0,
            let_in: 0,
            pings: 0,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    pub(super) fn is_new(&self) -> bool {
        self.state == State::New
    }

    pub(super) fn waits(&self) -> usize {
        self.bytes.len()
    }

    /// Its program writes a line.
    pub(super) fn write(&mut self, sent: Sent, text: &[u8]) {
        self.bytes.extend_from_slice(text);
        self.bytes.push(b'\n');
        self.ends.push_back((self.bytes.len(), sent));
    }

    /// The next bytes, cut anywhere, and the lines that they complete.
    pub(super) fn deliver(&mut self, len: usize) -> (Vec<u8>, Vec<Sent>) {
        let len = len.min(self.bytes.len());
        let rest = self.bytes.split_off(len);
        let chunk = std::mem::replace(&mut self.bytes, rest);
        let mut lines = Vec::new();
        while self.ends.front().is_some_and(|(end, _)| *end <= len) {
            lines.extend(self.ends.pop_front().map(|(_, sent)| sent));
        }
        self.ends.iter_mut().for_each(|(end, _)| *end -= len);
        (chunk, lines)
    }

    /// Whether its incarnation was over at an earlier read already, longer ago than what it wrote last is read.
    pub(super) fn is_left_open(&mut self, ms: u64, admitted: Option<&(u64, String)>) -> bool {
        let is_over = admitted.is_none_or(|(incarnation, _)| *incarnation != self.incarnation);
        self.is_open() && is_over && ms > *self.last_words_at.get_or_insert(ms) + LAST_WORDS_MS
    }

    /// What should come of these lines, when this is who may open now. Who is open stays so while it is read, whether its incarnation lives or not.
    pub(super) fn expect(&mut self, lines: &[Sent], admitted: Option<&(u64, String)>) -> Expected {
        let mut expected = Expected::default();
        for line in lines {
            self.expect_line(line, admitted, &mut expected);
        }
        expected
    }

    fn expect_line(&mut self, line: &Sent, admitted: Option<&(u64, String)>, expected: &mut Expected) {
        let mut refuse = |code, is_request: bool| {
            expected.refused.push(code);
            expected.replies += u64::from(is_request);
        };
        match (self.state, line) {
            (State::Closed, _) | (_, Sent::Blank) => {}
            (_, Sent::Garbage(code)) => refuse(*code, true),
            (State::New, Sent::Open { protocol, .. }) if *protocol != 1 => refuse(1004, true),
            (State::New, Sent::Open { token, incarnation, .. }) => match admitted {
                Some((lives, good)) if lives == incarnation && good == token => {
                    self.state = State::Open;
                    (expected.opened, expected.replies) = (true, expected.replies + 1);
                }
                _ => {
                    let is_stale = admitted.is_none_or(|(lives, _)| lives != incarnation);
                    refuse(if is_stale { 1003 } else { 1002 }, true);
                    self.state = State::Closed;
                }
            },
            (State::New, Sent::Notes { is_request, .. }) => refuse(1001, *is_request),
            (State::New, Sent::Pong) => refuse(1001, false),
            (State::Open, Sent::Open { .. }) => refuse(-32600, true),
            (State::Open, Sent::Pong) => expected.pongs += 1,
            (State::Open, Sent::Notes { notes, is_request }) => {
                expected.replies += u64::from(*is_request);
                for note in notes {
                    match note {
                        Note::Beat(progress) => {
                            expected.beats += 1;
                            expected.progress = progress.clone().or(expected.progress.take());
                        }
                        Note::Log => expected.logs += 1,
                        Note::Metric => expected.metrics += 1,
                        Note::Usage => {
                            expected.metrics += 1;
                            expected.usages += 1;
                        }
                        Note::Event => expected.events += 1,
                        Note::Wrong(code) => {
                            expected.refused.push(*code);
                            expected.wrong += 1;
                        }
                    }
                }
            }
        }
    }

    /// Our end has closed.
    pub(super) fn closed(&mut self) {
        self.state = State::Closed;
    }
}

/// A notification's method and parameters.
fn note(chance: &mut Chance, count: &mut u64, incarnation: u64) -> (Note, &'static str, String) {
    *count += 1;
    let n = *count;
    match chance.below(100) {
        0..30 => (Note::Log, "hive/log", format!(r#"{{"line":"line {n}"}}"#)),
        30..50 => (Note::Metric, "hive/metric", format!(r#"{{"name":"n","value":{n}}}"#)),
        50..65 => {
            let usage = format!(
                r#"{{"gen_ai.usage.input_tokens":{},"gen_ai.usage.output_tokens":{n},"cost_usd":{n}.5}}"#,
                n * 10 + incarnation
            );
            (Note::Usage, "hive/usage", usage)
        }
        65..75 => (Note::Event, "hive/event", format!(r#"{{"kind":"note","n":{n}}}"#)),
        75..85 => beat(chance, n),
        85..90 => (Note::Wrong(-32601), "hive/unknown", "{}".to_owned()),
        90..95 => (Note::Wrong(-32602), "hive/log", r#"{"level":"loud","line":"x"}"#.to_owned()),
        _ => (Note::Wrong(-32602), "hive/metric", r#"{"name":"n"}"#.to_owned()),
    }
}

fn beat(chance: &mut Chance, n: u64) -> (Note, &'static str, String) {
    if chance.permille(700) {
        // Some tell the same over and over.
        let progress = (n / 8).to_string();
        let params = format!(r#"{{"progress":{progress}}}"#);
        (Note::Beat(Some(progress)), "hive/heartbeat", params)
    } else {
        (Note::Beat(None), "hive/heartbeat", "{}".to_owned())
    }
}

/// `hive/open`.
pub(super) fn open(agent: &AgentId, token: &str, incarnation: u64, protocol: u64) -> (Sent, String) {
    let text = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"hive/open","params":{{"token":"{token}","agent":"{agent}","incarnation":{incarnation},"protocol":{protocol},"capabilities":{{}}}}}}"#
    );
    (Sent::Open { token: token.to_owned(), incarnation, protocol }, text)
}

/// One heartbeat.
pub(super) fn heartbeat(chance: &mut Chance, count: &mut u64) -> (Sent, String) {
    *count += 1;
    let (note, method, params) = beat(chance, *count);
    let text = format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{params}}}"#);
    (Sent::Notes { notes: vec![note], is_request: false }, text)
}

/// An answer to a ping.
pub(super) fn pong(id: u64) -> (Sent, String) {
    (Sent::Pong, format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#))
}

/// Anything that a program may write.
pub(super) fn anything(chance: &mut Chance, count: &mut u64, incarnation: u64) -> (Sent, Vec<u8>) {
    match chance.below(100) {
        0..60 => {
            let (note, method, params) = note(chance, count, incarnation);
            // A request that is refused is answered with its error: one reply either way, so only sound ones are asked here.
            let is_request = !matches!(note, Note::Wrong(_)) && chance.permille(150);
            let id = if is_request { r#""id":"a","# } else { "" };
            let text = format!(r#"{{"jsonrpc":"2.0",{id}"method":"{method}","params":{params}}}"#);
            (Sent::Notes { notes: vec![note], is_request }, text.into_bytes())
        }
        60..85 => {
            let many = if chance.permille(120) { chance.between(30, 90) } else { chance.between(1, 6) };
            let mut notes = Vec::new();
            let mut members = Vec::new();
            for _ in 0..many {
                let (note, method, params) = note(chance, count, incarnation);
                notes.push(note);
                members.push(format!(r#"{{"method":"{method}","params":{params}}}"#));
            }
            let text = format!(
                r#"{{"jsonrpc":"2.0","method":"hive/batch","params":{{"notifications":[{}]}}}}"#,
                members.join(",")
            );
            (Sent::Notes { notes, is_request: false }, text.into_bytes())
        }
        85..88 => (Sent::Garbage(-32700), b"{\"jsonrpc\":".to_vec()),
        88..91 => (Sent::Garbage(-32700), vec![b'{', 0xff, 0xfe, b'}']),
        91..94 => (Sent::Garbage(-32600), b"[1,2]".to_vec()),
        94..96 => (Sent::Garbage(-32600), b"{\"method\":\"hive/log\"}".to_vec()),
        _ => (Sent::Blank, if chance.permille(500) { Vec::new() } else { b" \t\r".to_vec() }),
    }
}

/// Compares what came with what should have come.
pub(super) fn compare(
    expected: &Expected,
    told: &Told,
    refused: &[i64],
    replies: &[u8],
    is_crowded: bool,
) -> Result<(), (Rule, String)> {
    let err =
        |rule, what: &str| Err((rule, format!("{what}: expected {expected:?}, told {told:?}, refused {refused:?}")));
    let mut wanted = expected.refused.clone();
    let (mut limited, mut other) = (0, 0);
    for code in refused {
        match wanted.iter().position(|known| known == code) {
            Some(at) => _ = wanted.swap_remove(at),
            None if *code == 1005 => limited += 1,
            None => other += 1,
        }
    }
    // What is wrong may have come beyond the rate, too, and is refused for that then.
    let excused = wanted.iter().filter(|code| [-32601, -32602].contains(*code)).count() as u64;
    if other > 0 || wanted.len() as u64 > excused || limited < excused {
        return err(Rule::SessionsAnswer, "refused otherwise");
    }
    let within = |count: u64, least: u64, more: u64| (least..=least + more).contains(&count);
    let samples = told.beats + told.counted + told.usages + told.lost.metrics;
    if !within(told.logs + told.lost.logs, expected.logs, excused)
        || !within(samples, expected.beats + expected.metrics, excused + expected.pongs)
        || told.events + told.lost.events != expected.events
        || told.lost.total() + excused < limited
        || (!is_crowded && told.lost.total() > limited + expected.usages)
    {
        return err(Rule::EveryMessageIsCounted, "messages are missing, or too many");
    }
    if !within(told.beats, expected.beats.min(1), expected.pongs.min(1)) || told.beats > 1 {
        return err(Rule::HeartbeatsPass, "heartbeats are missing, or too many");
    }
    if expected.progress.is_some() && told.progress != expected.progress {
        return err(Rule::HeartbeatsPass, "the last progress is missing");
    }
    if told.opened != expected.opened {
        return err(Rule::SessionsAnswer, "opened otherwise");
    }
    let replies = String::from_utf8_lossy(replies);
    let answered = replies.lines().filter(|line| !line.contains(r#""method""#)).count() as u64;
    if answered != expected.replies {
        return err(Rule::SessionsAnswer, &format!("answered by {replies}"));
    }
    Ok(())
}

/// What a read brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// Heartbeats that stand for all of the read.
    pub(super) beats: u64,
    pub(super) logs: u64,
    /// Samples, and heartbeats that another one has overtaken.
    pub(super) counted: u64,
    pub(super) usages: u64,
    pub(super) events: u64,
    pub(super) lost: Lost,
    pub(super) opened: bool,
    pub(super) progress: Option<String>,
}

impl Told {
    /// What was let in under the rate, heartbeats and totals left out.
    pub(super) fn let_in(&self, expected: &Expected) -> u64 {
        let samples = self.beats + self.counted + self.usages;
        self.logs + self.events + samples.saturating_sub(expected.beats + expected.pongs + expected.usages)
    }
}
