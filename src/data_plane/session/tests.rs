//! The rules of the data plane, one test each, without a socket.

mod calls;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    model::{Lost, TelemetryKind},
    wire::lines::Lines,
};

/// Lets `review/coder-1` in with the token `secret`, in the incarnation that lives.
struct House {
    incarnation: AtomicU64,
}

impl Admission for House {
    fn admit(&self, agent: &AgentId, incarnation: u64, token: &str) -> Result<(), Refusal> {
        if agent.to_string() != "review/coder-1" || token != "secret" {
            return Err(Refusal::BadToken);
        }
        let lives = incarnation == self.incarnation.load(Ordering::Relaxed);
        if lives { Ok(()) } else { Err(Refusal::StaleIncarnation) }
    }

    fn lives(&self, _agent: &AgentId, incarnation: u64) -> bool {
        incarnation == self.incarnation.load(Ordering::Relaxed)
    }

    fn heartbeat_interval(&self, _agent: &AgentId) -> Option<Duration> {
        Some(Duration::from_millis(700))
    }
}

struct Bench {
    house: House,
    session: Session,
    now: Now,
    shutting_down: bool,
}

impl Bench {
    fn new() -> Self {
        Self::with(&PlaneLimits::default())
    }

    fn with(limits: &PlaneLimits) -> Self {
        let now = Now::read();
        let house = House { incarnation: AtomicU64::new(2) };
        Self { house, session: Session::new(Uuid::nil(), now, Arc::new(limits.clone())), now, shutting_down: false }
    }

    fn opened() -> Self {
        let mut bench = Self::new();
        assert!(bench.say(OPEN).opened.is_some());
        bench
    }

    fn later(&mut self, by: Duration) {
        self.now.steady += by;
        self.now.wall += by;
    }

    fn line(&mut self, line: &Line<'_>) -> Effects {
        let mut out = Effects::default();
        let gate = Gate { admission: &self.house, shutting_down: self.shutting_down, has_tools: true };
        self.session.verify(self.now, gate);
        self.session.line(self.now, line, gate, &mut out);
        self.session.gather(self.now, &mut out);
        out
    }

    fn say(&mut self, text: &str) -> Effects {
        self.line(&Line::Whole(text.as_bytes()))
    }

    fn tick(&mut self) -> Effects {
        let mut out = Effects::default();
        let gate = Gate { admission: &self.house, shutting_down: self.shutting_down, has_tools: true };
        self.session.tick(self.now, gate, &mut out);
        out
    }
}

const OPEN: &str = r#"{"jsonrpc":"2.0","id":1,"method":"hive/open","params":{"token":"secret","agent":"review/coder-1","incarnation":2,"protocol":1,"capabilities":{}}}"#;
const BEAT: &str = r#"{"jsonrpc":"2.0","method":"hive/heartbeat","params":{"progress":1}}"#;
const USAGE: &str = r#"{"jsonrpc":"2.0","method":"hive/usage","params":{"gen_ai.usage.input_tokens":7}}"#;
const LOG: &str = r#"{"jsonrpc":"2.0","method":"hive/log","params":{"line":"x"}}"#;

#[test]
fn who_ends_by_a_drain_says_so_and_what_nobody_knows_is_passed_over() {
    for (declared, drains) in [
        (json!({ "drain": true, "else": [1] }), true),
        (json!({ "drain": false }), false),
        (json!({ "drain": "yes" }), false),
        (json!(["drain"]), false),
        (Value::Null, false),
    ] {
        let mut bench = Bench::new();
        let open = open_with(|open| open["capabilities"] = declared.clone());
        assert_eq!(bench.say(&open).opened.unwrap().drains, drains, "{declared}");
    }
}

fn open_with(change: impl FnOnce(&mut Value)) -> String {
    let mut open: Value = serde_json::from_str(OPEN).unwrap();
    change(&mut open["params"]);
    open.to_string()
}

fn answers(effects: &Effects) -> Vec<Value> {
    let text = std::str::from_utf8(&effects.replies).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The one answer is this error, it is counted once, and the connection closes or not.
#[track_caller]
fn refused(effects: &Effects, id: &Value, code: i64, closes: bool) {
    let all = answers(effects);
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!((&all[0]["id"], &all[0]["error"]["code"]), (id, &json!(code)), "{all:?}");
    assert_eq!(effects.refused.iter().map(|c| c.number()).collect::<Vec<_>>(), [code]);
    assert_eq!(effects.close, closes);
    assert!(effects.telemetry.is_empty());
}

/// Counted, and not answered.
#[track_caller]
fn counted(effects: &Effects, code: i64) {
    assert_eq!(answers(effects), [] as [Value; 0]);
    assert_eq!(effects.refused.iter().map(|c| c.number()).collect::<Vec<_>>(), [code]);
}

#[test]
fn open_answers_with_session_interval_and_limits() {
    let mut bench = Bench::new();
    assert_eq!(bench.session.line_bytes_max(), LINE_BYTES_MAX_UNOPENED);
    let effects = bench.say(OPEN);
    let agent: AgentId = "review/coder-1".parse().unwrap();
    assert_eq!(effects.opened, Some(Opening { agent: agent.clone(), incarnation: 2, drains: false, is_tool: false }));
    let all = answers(&effects);
    assert_eq!(all.len(), 1);
    assert_eq!(all[0]["id"], 1);
    assert_eq!(all[0]["result"]["session"], Uuid::nil().to_string());
    assert_eq!(all[0]["result"]["heartbeat_interval_ms"], 700);
    assert_eq!(all[0]["result"]["limits"]["line_bytes_max"], 1_048_576);
    assert_eq!(bench.session.line_bytes_max(), LINE_BYTES_MAX);
    assert_eq!(bench.session.agent(), Some(&agent));
}

#[test]
fn code_1001_anything_before_open() {
    let mut bench = Bench::new();
    let early = r#"{"jsonrpc":"2.0","id":"a","method":"hive/heartbeat"}"#;
    refused(&bench.say(early), &json!("a"), 1001, false);
    refused(&bench.say(r#"{"jsonrpc":"2.0","id":2,"method":"eval","params":{}}"#), &json!(2), 1001, false);
    counted(&bench.say(BEAT), 1001);
    counted(&bench.say(r#"{"jsonrpc":"2.0","id":"hk-1","result":{}}"#), 1001);
    assert!(bench.say(OPEN).opened.is_some(), "the first message was a notification, and open works all the same");
}

#[test]
fn code_1002_bad_token_closes() {
    for change in
        [json!({"token": "guess"}), json!({"agent": "review/other"}), json!({"agent": "../etc"}), json!({"agent": ""})]
    {
        let mut bench = Bench::new();
        let open = open_with(|params| params.as_object_mut().unwrap().extend(change.as_object().unwrap().clone()));
        let effects = bench.say(&open);
        refused(&effects, &json!(1), 1002, true);
        assert!(!String::from_utf8(effects.replies).unwrap().contains("guess"));
        let after = bench.say(OPEN);
        assert!(after.opened.is_none() && after.replies.is_empty() && after.refused.is_empty());
    }
}

#[test]
fn code_1003_stale_incarnation_at_open_closes() {
    for incarnation in [0, 1, 3] {
        let mut bench = Bench::new();
        refused(&bench.say(&open_with(|p| p["incarnation"] = json!(incarnation))), &json!(1), 1003, true);
    }
}

/// Who tells its last totals and ends leaves them in its socket.
#[test]
fn the_last_words_of_an_ended_incarnation_are_read_for_a_moment() {
    let mut bench = Bench::opened();
    bench.house.incarnation.store(3, Ordering::Relaxed);
    let last = bench.say(USAGE);
    assert!(matches!(last.telemetry[..], [Telemetry { incarnation: 2, kind: TelemetryKind::Usage(_), .. }]));
    assert!(last.refused.is_empty() && !last.close);
    assert_eq!(bench.session.deadline(), bench.now.steady + LAST_WORDS_WAIT);
    bench.later(LAST_WORDS_WAIT / 2);
    let asked = bench.say(&LOG.replace("\"method\"", "\"id\":9,\"method\""));
    assert_eq!((answers(&asked), asked.telemetry.len()), (vec![json!({"jsonrpc": "2.0", "id": 9, "result": {}})], 1));
    assert!(!bench.tick().close);
    bench.later(LAST_WORDS_WAIT / 2);
    let ended = bench.tick();
    assert!(ended.close && !ended.overdue && ended.refused.is_empty() && ended.replies.is_empty());
    assert!(bench.say(BEAT).telemetry.is_empty());
}

#[test]
fn a_silent_session_of_an_ended_incarnation_is_not_asked_and_closed_soon() {
    let mut bench = Bench::opened();
    bench.house.incarnation.store(3, Ordering::Relaxed);
    bench.later(PlaneLimits::default().ping_after);
    let effects = bench.tick();
    assert!(effects.replies.is_empty() && !effects.close);
    bench.later(LAST_WORDS_WAIT);
    assert!(bench.tick().close);
}

#[test]
fn code_1004_unsupported_protocol_whatever_else_is_in_it() {
    let mut bench = Bench::new();
    refused(&bench.say(&open_with(|p| *p = json!({"protocol": 2, "other": []}))), &json!(1), 1004, false);
    assert!(bench.say(OPEN).opened.is_some());
}

#[test]
fn code_1005_rate_limit_refuses_all_but_heartbeats() {
    let limits = PlaneLimits { notifications_burst: 2, notifications_per_second: 1, ..PlaneLimits::default() };
    let mut bench = Bench::with(&limits);
    assert!(bench.say(OPEN).opened.is_some());
    assert_eq!(bench.say(LOG).telemetry.len(), 1);
    assert_eq!(bench.say(BEAT).telemetry.len(), 1);
    let limited = bench.say(LOG);
    counted(&limited, 1005);
    assert_eq!(limited.heard.lost, Lost { logs: 1, ..Lost::default() });
    refused(&bench.say(&LOG.replace("\"method\"", "\"id\":9,\"method\"")), &json!(9), 1005, false);
    assert_eq!(bench.say(BEAT).telemetry.len(), 1, "a heartbeat is never lost");
    bench.later(Duration::from_secs(1));
    assert_eq!(bench.say(LOG).telemetry.len(), 1);
}

/// In the usual form, in any other, and as a request.
#[test]
fn what_comes_too_fast_is_lost_by_its_class_however_it_is_written() {
    let limits = PlaneLimits { notifications_burst: 1, notifications_per_second: 1, ..PlaneLimits::default() };
    let lost = |logs, metrics, events| Lost { logs, metrics, events };
    for (method, params, expected) in [
        ("hive/log", json!({"line": "a"}), lost(1, 0, 0)),
        ("hive/metric", json!({"name": "a", "value": 1}), lost(0, 1, 0)),
        ("hive/event", json!({"kind": "a"}), lost(0, 0, 1)),
        ("hive/nothing", json!({}), Lost::default()),
    ] {
        let usual = json!({"jsonrpc": "2.0", "method": method, "params": params});
        let member = json!({"method": method, "params": params});
        let batch = json!({"jsonrpc": "2.0", "method": "hive/batch", "params": {"notifications": [member]}});
        for message in [usual.to_string(), format!("  {usual}"), batch.to_string()] {
            let mut bench = Bench::with(&limits);
            assert!(bench.say(OPEN).opened.is_some());
            assert!(bench.say(BEAT).refused.is_empty());
            let limited = bench.say(&message);
            assert_eq!(limited.refused.iter().map(|c| c.number()).collect::<Vec<_>>(), [1005], "{message}");
            assert_eq!(limited.heard.lost, expected, "{message}");
            assert!(limited.telemetry.is_empty(), "{message}");
        }
    }
}

#[test]
fn heartbeats_beyond_the_rate_merge() {
    let limits = PlaneLimits { notifications_burst: 1, notifications_per_second: 1, ..PlaneLimits::default() };
    let mut bench = Bench::with(&limits);
    assert!(bench.say(OPEN).opened.is_some());
    let beats =
        [json!({"progress": 1}), json!({"progress": 2}), json!({"busy": true}), json!({"progress": 3}), json!({})];
    let beats: Vec<Value> = beats.into_iter().map(|p| json!({"method": "hive/heartbeat", "params": p})).collect();
    let batch = json!({"jsonrpc": "2.0", "method": "hive/batch", "params": {"notifications": beats}}).to_string();
    let effects = bench.say(&batch);
    let kinds: Vec<_> = effects.telemetry.into_iter().map(|t| t.kind).collect();
    let beat = TelemetryKind::Heartbeat { progress: Some(Arc::from("3")), busy: Some(true) };
    assert_eq!(kinds, [beat, TelemetryKind::Counted(4)]);
    assert!(effects.refused.is_empty());
}

/// An agent's last word on what it used must not go because it wrote much before.
#[test]
fn of_totals_beyond_the_rate_the_last_of_a_read_are_kept() {
    let limits = PlaneLimits { notifications_burst: 1, notifications_per_second: 1, ..PlaneLimits::default() };
    let mut bench = Bench::with(&limits);
    assert!(bench.say(OPEN).opened.is_some());
    let totals = |n: u64| json!({"method": "hive/usage", "params": {"gen_ai.usage.input_tokens": n}});
    let all: Vec<Value> = (1..=4).map(totals).chain([json!({"method": "hive/log", "params": {"line": "x"}})]).collect();
    let batch = json!({"jsonrpc": "2.0", "method": "hive/batch", "params": {"notifications": all}}).to_string();
    let effects = bench.say(&batch);
    let told = effects.telemetry.iter().map(|told| match &told.kind {
        TelemetryKind::Usage(report) => report.totals.input_tokens.unwrap(),
        TelemetryKind::Counted(overtaken) => 100 + overtaken,
        other => panic!("{other:?}"),
    });
    assert_eq!(told.collect::<Vec<_>>(), [102, 1, 4]);
    counted(&effects, 1005);
    assert_eq!(effects.heard.lost, Lost { logs: 1, ..Lost::default() });
}

#[test]
fn code_1006_line_too_long_before_and_after_open() {
    let mut bench = Bench::new();
    refused(&bench.line(&Line::TooLong), &Value::Null, 1006, false);
    assert!(bench.say(OPEN).opened.is_some());
    refused(&bench.line(&Line::TooLong), &Value::Null, 1006, false);
    assert_eq!(bench.say(BEAT).telemetry.len(), 1);
}

#[test]
fn code_1007_shutting_down_for_newcomers_only() {
    let mut open = Bench::opened();
    open.shutting_down = true;
    assert_eq!(open.say(BEAT).telemetry.len(), 1);
    let mut bench = Bench::new();
    bench.shutting_down = true;
    refused(&bench.say(OPEN), &json!(1), 1007, true);
}

#[test]
fn second_open_is_an_invalid_request() {
    let mut bench = Bench::opened();
    refused(&bench.say(OPEN), &json!(1), -32600, false);
    assert_eq!(bench.say(BEAT).telemetry.len(), 1);
}

#[test]
fn parse_errors_and_invalid_requests_go_on_at_the_next_line() {
    let mut bench = Bench::opened();
    refused(&bench.say("hello"), &Value::Null, -32700, false);
    refused(&bench.say(&"[".repeat(100_000)), &Value::Null, -32700, false);
    refused(&bench.line(&Line::Whole(b"{\"jsonrpc\":\"2.0\",\"method\":\"\xff\"}")), &Value::Null, -32700, false);
    refused(&bench.say(&format!("[{BEAT}]")), &Value::Null, -32600, false);
    refused(&bench.say(r#"{"jsonrpc":"1.0","id":3,"method":"hive/heartbeat"}"#), &Value::Null, -32600, false);
    assert_eq!(bench.say(BEAT).telemetry.len(), 1);
}

#[test]
fn unknown_methods_and_bad_parameters() {
    let mut bench = Bench::opened();
    refused(&bench.say(r#"{"jsonrpc":"2.0","id":3,"method":"hive/unknown"}"#), &json!(3), -32601, false);
    counted(&bench.say(r#"{"jsonrpc":"2.0","method":"hive/unknown"}"#), -32601);
    refused(&bench.say(r#"{"jsonrpc":"2.0","id":4,"method":"hive/log","params":{}}"#), &json!(4), -32602, false);
    refused(&bench.say(r#"{"jsonrpc":"2.0","id":null,"method":"hive/log","params":[1]}"#), &Value::Null, -32602, false);
    counted(&bench.say(r#"{"jsonrpc":"2.0","method":"hive/log","params":{}}"#), -32602);
    let mut new = Bench::new();
    refused(&new.say(&open_with(|p| *p = json!({}))), &json!(1), -32602, false);
    refused(&new.say(&open_with(|p| p["incarnation"] = json!("2"))), &json!(1), -32602, false);
    refused(&new.say(r#"{"jsonrpc":"2.0","id":1,"method":"hive/open"}"#), &json!(1), -32602, false);
}

#[test]
fn telemetry_carries_the_proven_identity_and_the_daemons_time() {
    let mut bench = Bench::opened();
    bench.later(Duration::from_secs(3));
    let lie = r#"{"jsonrpc":"2.0","method":"hive/heartbeat","params":{"agent":"review/other","incarnation":9}}"#;
    let effects = bench.say(lie);
    let agent: AgentId = "review/coder-1".parse().unwrap();
    let kind = TelemetryKind::Heartbeat { progress: None, busy: None };
    assert_eq!(effects.telemetry, [Telemetry { agent, incarnation: 2, at: bench.now.wall, kind }]);
}

#[test]
fn the_same_as_a_request_is_taken_and_answered() {
    let mut bench = Bench::opened();
    let effects = bench.say(r#"{"jsonrpc":"2.0","id":"x","method":"hive/event","params":{"kind":"done"}}"#);
    assert_eq!(answers(&effects), [json!({"jsonrpc": "2.0", "id": "x", "result": {}})]);
    assert_eq!(effects.telemetry.len(), 1);
}

#[test]
fn a_batch_holds_notifications_only_and_each_stands_for_itself() {
    let mut bench = Bench::opened();
    let batch = json!({"jsonrpc": "2.0", "method": "hive/batch", "params": {"notifications": [
        {"method": "hive/heartbeat"},
        {"jsonrpc": "2.0", "method": "hive/log", "params": {"line": "a"}},
        {"method": "hive/log", "params": {"line": "b"}, "id": null},
        {"method": "hive/batch", "params": {"notifications": []}},
        {"method": "hive/open", "params": {}},
        {"method": "hive/log", "params": {}},
        {"method": "hive/event", "params": {"kind": "k"}},
    ]}});
    let effects = bench.say(&batch.to_string());
    assert_eq!(effects.telemetry.len(), 3);
    assert_eq!(effects.refused.iter().map(|c| c.number()).collect::<Vec<_>>(), [-32600, -32600, -32601, -32602]);
    assert!(effects.replies.is_empty());
    counted(&bench.say(r#"{"jsonrpc":"2.0","method":"hive/batch","params":{"notifications":[1]}}"#), -32602);
}

#[test]
fn drain_is_asked_once_and_telemetry_goes_on() {
    let mut bench = Bench::opened();
    let mut effects = Effects::default();
    bench.session.drain(&mut effects);
    assert_eq!(answers(&effects), [json!({"jsonrpc": "2.0", "id": "hk-1", "method": "hive/drain", "params": {}})]);
    let mut again = Effects::default();
    bench.session.drain(&mut again);
    assert!(again.replies.is_empty());
    assert_eq!(bench.say(BEAT).telemetry.len(), 1);
    let answer = bench.say(r#"{"jsonrpc":"2.0","id":"hk-1","result":{}}"#);
    assert!(answer.telemetry.is_empty() && answer.refused.is_empty() && answer.replies.is_empty());

    let mut new = Bench::new();
    let mut effects = Effects::default();
    new.session.drain(&mut effects);
    assert!(effects.replies.is_empty());
    assert!(new.say(OPEN).opened.is_some());
}

#[test]
fn who_does_not_open_in_time_is_closed_however_busy() {
    let mut bench = Bench::new();
    bench.later(Duration::from_millis(9_900));
    refused(&bench.say("garbage"), &Value::Null, -32700, false);
    assert!(!bench.tick().close);
    bench.later(Duration::from_millis(100));
    let ended = bench.tick();
    assert!(ended.close && ended.overdue);
}

#[test]
fn a_silent_session_is_pinged_and_given_up_at_last() {
    let limits = PlaneLimits::default();
    let mut bench = Bench::opened();
    let (mut pings, mut passed) = (0, Duration::ZERO);
    let closed = loop {
        let wait = bench.session.deadline() - bench.now.steady;
        assert!(wait > Duration::ZERO);
        (bench.now.steady, passed) = (bench.now.steady + wait, passed + wait);
        let effects = bench.tick();
        if effects.close {
            break passed;
        }
        assert_eq!(answers(&effects)[0]["method"], "hive/ping");
        pings += 1;
        assert!(pings < 100);
    };
    assert_eq!((closed, pings), (limits.silence_max, 9));
}

#[test]
fn silence_ends_a_session_when_it_is_over_and_not_at_the_next_ping() {
    let limits = PlaneLimits { ping_after: Duration::from_secs(70), ..PlaneLimits::default() };
    let mut bench = Bench::with(&limits);
    assert!(bench.say(OPEN).opened.is_some());
    let begun = bench.now.steady;
    while !bench.tick().close {
        bench.now.steady = bench.session.deadline();
        assert!(bench.now.steady - begun <= limits.silence_max);
    }
    assert_eq!(bench.now.steady - begun, limits.silence_max);
}

#[test]
fn behind_the_last_answer_nothing_is_answered() {
    let mut bench = Bench::new();
    bench.shutting_down = true;
    refused(&bench.say(OPEN), &json!(1), 1007, true);
    for line in [OPEN, BEAT, "garbage"] {
        let after = bench.say(line);
        assert!(after.replies.is_empty() && after.refused.is_empty(), "{line}");
    }
}

#[test]
fn an_answered_ping_is_a_sign_of_life() {
    let mut bench = Bench::opened();
    bench.later(Duration::from_secs(60));
    assert_eq!(answers(&bench.tick()).len(), 1);
    let answer = r#"{"jsonrpc":"2.0","id":"hk-1","error":{"code":-32601,"message":"Method not found"}}"#;
    assert_eq!(bench.say(answer).telemetry.len(), 1);
    assert!(bench.say(answer).telemetry.is_empty(), "nothing was asked");
    assert_eq!(bench.session.deadline(), bench.now.steady + Duration::from_secs(60));
}

/// Any piece of a conversation: good ones, bad ones, noise.
fn anything() -> impl Strategy<Value = Vec<u8>> {
    let text = |text: &str| Just(text.as_bytes().to_vec());
    prop_oneof![
        text(OPEN),
        text(BEAT),
        text(LOG),
        text(r#"{"jsonrpc":"2.0","id":7,"method":"hive/log","params":{"line":"x"}}"#),
        text(r#"{"jsonrpc":"2.0","id":null,"method":"nothing"}"#),
        text("[]"),
        text(""),
        text("\r"),
        text("\n"),
        proptest::collection::vec(any::<u8>(), 0..40),
        "\\{\"jsonrpc\":\"2.0\",\"(id|method)\":(1|\"[a-z]*\"|null),\"(id|method|params)\":(\"hive/[a-z]*\"|\\[\\]|\\{\\})\\}"
            .prop_map(String::into_bytes),
    ]
}

proptest! {
    /// However the stream is cut: no panic, one answer to each request and to each unreadable line, none to anything else.
    #[test]
    fn every_request_line_gets_exactly_one_answer(
        pieces in proptest::collection::vec(anything(), 0..20),
        size in 1usize..300,
    ) {
        let mut bench = Bench::new();
        let stream = pieces.join(&b'\n');
        let mut lines = Lines::new(LINE_BYTES_MAX_UNOPENED);
        for mut chunk in stream.chunks(size) {
            while let Some(line) = lines.next(&mut chunk) {
                let Line::Whole(whole) = line else { panic!("nothing is that long") };
                let wants = match parse(whole) {
                    Ok(Message::Request { .. }) | Err(_) => 1,
                    Ok(Message::Notification { .. } | Message::Answer { .. }) => 0,
                };
                let effects = bench.line(&line);
                prop_assert_eq!(answers(&effects).len(), wants);
                prop_assert!(!effects.close);
                prop_assert!(effects.telemetry.is_empty() || bench.session.agent().is_some());
            }
        }
    }
}
