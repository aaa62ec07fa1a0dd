//! The frames of `/ws/hybrid-health`, both ways. Pure.

use std::{collections::BTreeSet, fmt::Write, sync::Arc, time::SystemTime};

use serde::{Deserialize, Serialize};

use super::{
    frame::{Frame, SHARED_BYTES_MIN},
    loans::Loan,
};
use crate::{
    model::{AgentHealth, AgentId, Epoch, Event, EventKind, HiveHealth, Seq, SwarmHealth, SwarmName},
    view::{self, AgentView, DataPlaneView, Rfc3339, SwarmView},
};

/// What a client may be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Topic {
    Status,
    Sessions,
    Performance,
}

/// What a client may say.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Said {
    Subscribe {
        #[serde(default)]
        subscriptions: BTreeSet<Topic>,
        /// Replaces the filter; an empty list takes it away.
        #[serde(default)]
        swarms: Option<Vec<String>>,
        #[serde(default)]
        after: Option<u64>,
    },
    Unsubscribe {
        subscriptions: BTreeSet<Topic>,
    },
    RequestStatus {},
    RequestPerformance {},
    Ping {},
}

/// What is wrong with what a client said.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Objection {
    pub(super) code: &'static str,
    pub(super) message: String,
}

const TYPES: [&str; 5] = ["subscribe", "unsubscribe", "request_status", "request_performance", "ping"];

/// Reads a client's message.
pub(super) fn parse(text: &str) -> Result<Said, Objection> {
    #[derive(Deserialize)]
    struct Tag<'a> {
        #[serde(rename = "type", borrow)]
        tag: std::borrow::Cow<'a, str>,
    }
    let object = |code, message: String| Objection { code, message };
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text) {
        return Err(object("invalid_json", error.to_string()));
    }
    match serde_json::from_str::<Tag<'_>>(text) {
        Err(error) => return Err(object("invalid_message", error.to_string())),
        Ok(Tag { tag }) if !TYPES.contains(&&*tag) => {
            let found: String = tag.chars().take(80).collect();
            return Err(object("unknown_type", format!("{found:?} is no type; allowed are {}", TYPES.join(", "))));
        }
        Ok(_) => {}
    }
    serde_json::from_str(text).map_err(|error| object("invalid_message", error.to_string()))
}

/// Which swarms a client wants to hear of; `None` is all.
pub(super) type Filter = Option<BTreeSet<SwarmName>>;

/// Reads a filter.
pub(super) fn filter(names: &[String]) -> Result<Filter, Objection> {
    let names: BTreeSet<SwarmName> = names
        .iter()
        .map(|name| name.parse())
        .collect::<Result<_, crate::model::InvalidName>>()
        .map_err(|error| Objection { code: "invalid_message", message: error.to_string() })?;
    Ok((!names.is_empty()).then_some(names))
}

/// What the reader of an event stream asks for; it can't say anything later.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) topics: Option<BTreeSet<Topic>>,
    pub(super) only: Filter,
    /// What it has seen already.
    pub(super) after: Option<Seq>,
}

/// Reads lists as an address holds them: names with commas between.
pub(super) fn asked(topics: Option<&str>, swarms: Option<&str>, after: Option<u64>) -> Result<Asked, Objection> {
    let list = |text: &str| text.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    let topics = topics.map(|words| {
        let topic = |word: &String| match &**word {
            "status" => Ok(Topic::Status),
            "sessions" => Ok(Topic::Sessions),
            "performance" => Ok(Topic::Performance),
            other => Err(Objection {
                code: "invalid_query",
                message: format!("{other:?} is no subscription; allowed are status, sessions, performance"),
            }),
        };
        list(words).iter().map(topic).collect::<Result<_, _>>()
    });
    let only = filter(&swarms.map(list).unwrap_or_default())
        .map_err(|objection| Objection { code: "invalid_query", ..objection })?;
    Ok(Asked { topics: topics.transpose()?, only, after: after.map(Seq) })
}

/// What all frames of a client begin with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) epoch: Epoch,
    pub(super) seq: Seq,
    pub(super) prev_seq: Seq,
    pub(super) observed_at: SystemTime,
    pub(super) sent_at: SystemTime,
}

/// A whole frame: a client's own head before a tail (a JSON object) that it shares with others. A long tail is not copied.
pub(super) fn frame(kind: &str, head: Head, tail: Arc<str>, lend: impl FnOnce(Arc<str>) -> Loan) -> Frame {
    if tail.len() < SHARED_BYTES_MIN {
        return text(kind, head, &tail).into();
    }
    let mut own = begin(kind, head, 0);
    own.push(',');
    Frame::sharing(&own, lend(tail), "{".len())
}

/// The same in one text.
pub(super) fn text(kind: &str, head: Head, tail: &str) -> String {
    let mut text = begin(kind, head, tail.len());
    match tail.strip_prefix('{') {
        Some("}") | None => text.push('}'),
        Some(rest) => {
            text.push(',');
            text.push_str(rest);
        }
    }
    text
}

/// The head, still open, with room for a tail.
fn begin(kind: &str, head: Head, room: usize) -> String {
    let mut text = String::with_capacity(room + 160);
    let Head { epoch, seq, prev_seq, .. } = head;
    let (observed_at, sent_at) = (Rfc3339(head.observed_at), Rfc3339(head.sent_at));
    // Writing to a string can't fail.
    let _ = write!(
        text,
        r#"{{"type":"{kind}","epoch":{epoch},"seq":{seq},"prev_seq":{prev_seq},"observed_at":"{observed_at}","sent_at":"{sent_at}""#
    );
    text
}

/// A tail as JSON. All our tails are plain structs of text and numbers, which can't fail to serialise.
fn tail(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "{}".to_owned())
}

pub(super) fn established_tail(client: &str, heartbeat_interval_ms: u64) -> String {
    #[derive(Serialize)]
    struct Established<'a> {
        client_id: &'a str,
        heartbeat_interval_ms: u64,
    }
    tail(&Established { client_id: client, heartbeat_interval_ms })
}

pub(super) fn ack_tail(topics: &BTreeSet<Topic>, swarms: &Filter) -> String {
    #[derive(Serialize)]
    struct Ack<'a> {
        subscriptions: &'a BTreeSet<Topic>,
        swarms: Option<Vec<&'a str>>,
    }
    let swarms = swarms.as_ref().map(|names| names.iter().map(SwarmName::as_str).collect());
    tail(&Ack { subscriptions: topics, swarms })
}

pub(super) fn error_tail(objection: &Objection) -> String {
    #[derive(Serialize)]
    struct Error<'a> {
        code: &'static str,
        message: &'a str,
    }
    tail(&Error { code: objection.code, message: &objection.message })
}

/// The whole document, or the part of it that a filter lets through; the hive's own level stays.
pub(super) fn status_tail(hive: &HiveHealth, only: &Filter) -> String {
    match only {
        None => tail(&view::hive(hive)),
        Some(names) => {
            let mut part = hive.clone();
            part.swarms.retain(|swarm| names.contains(&swarm.name));
            part.agents.retain(|agent| names.contains(&agent.id.swarm));
            tail(&view::hive(&part))
        }
    }
}

/// The measured rates of the daemon.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Performance {
    pub(super) viewers: usize,
    pub(super) frames: u64,
    pub(super) dropped_slow: u64,
    pub(super) dropped_silent: u64,
    /// Of the last second in which anything was pushed: mean and longest time from an event to its frame, ms.
    pub(super) push_latency_ms: Option<(f64, f64)>,
}

pub(super) fn performance_tail(hive: &HiveHealth, measured: Performance) -> String {
    #[derive(Serialize)]
    struct Latency {
        mean: f64,
        max: f64,
    }
    #[derive(Serialize)]
    struct Stream {
        viewers: usize,
        frames: u64,
        dropped_slow: u64,
        dropped_silent: u64,
        push_latency_ms: Option<Latency>,
    }
    #[derive(Serialize)]
    struct Update {
        data_plane: DataPlaneView,
        stream: Stream,
    }
    let Performance { viewers, frames, dropped_slow, dropped_silent, push_latency_ms } = measured;
    let push_latency_ms = push_latency_ms.map(|(mean, max)| Latency { mean, max });
    tail(&Update {
        data_plane: view::data_plane(&hive.data_plane),
        stream: Stream { viewers, frames, dropped_slow, dropped_silent, push_latency_ms },
    })
}

/// What an event means for a client.
#[derive(Debug, PartialEq)]
pub(super) enum Push<'a> {
    /// Nothing that it is told of.
    Nothing,
    /// A `status_update`.
    Status,
    /// A `session_update` that everybody gets alike.
    Sessions(Parts<'a>),
    /// A `session_update` of its own, since its filter takes something away.
    Filtered(Parts<'a>),
}

/// What a `session_update` is made of.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Parts<'a> {
    agents: Vec<&'a Arc<AgentHealth>>,
    swarms: Vec<&'a Arc<SwarmHealth>>,
    removed: Vec<&'a AgentId>,
}

/// What a client that has these topics and this filter is to be sent for an event.
pub(super) fn push<'a>(event: &'a Event, topics: &BTreeSet<Topic>, only: &Filter) -> Push<'a> {
    let wanted = |swarm: &SwarmName| only.as_ref().is_none_or(|names| names.contains(swarm));
    let parts = match &event.kind {
        EventKind::HiveChanged { .. } | EventKind::SourceChanged { .. } if topics.contains(&Topic::Status) => {
            return Push::Status;
        }
        EventKind::AgentChanged { agent, .. } if wanted(&agent.id.swarm) => {
            Parts { agents: vec![agent], ..Parts::default() }
        }
        EventKind::Samples { agents } => {
            let agents: Vec<_> = agents.iter().filter(|agent| wanted(&agent.id.swarm)).collect();
            if agents.is_empty() {
                return Push::Nothing;
            }
            Parts { agents, ..Parts::default() }
        }
        EventKind::SwarmChanged { swarm, .. } if wanted(&swarm.name) => {
            Parts { swarms: vec![swarm], ..Parts::default() }
        }
        EventKind::AgentRemoved { agent } if wanted(&agent.swarm) => Parts { removed: vec![agent], ..Parts::default() },
        _ => return Push::Nothing,
    };
    if !topics.contains(&Topic::Sessions) {
        return Push::Nothing;
    }
    // Only samples speak of several swarms, so only there a filter leaves a part.
    match (&event.kind, only) {
        (EventKind::Samples { .. }, Some(_)) => Push::Filtered(parts),
        _ => Push::Sessions(parts),
    }
}

pub(super) fn sessions_tail(parts: &Parts<'_>) -> String {
    #[derive(Serialize)]
    struct Update<'a> {
        agents: Vec<AgentView<'a>>,
        swarms: Vec<SwarmView<'a>>,
        removed: Vec<String>,
    }
    tail(&Update {
        agents: parts.agents.iter().map(|agent| view::agent(agent)).collect(),
        swarms: parts.swarms.iter().map(|swarm| view::swarm(swarm)).collect(),
        removed: parts.removed.iter().map(ToString::to_string).collect(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::model::{
        BreakerState, ControlPlaneHealth, DataPlaneHealth, Desired, DiskHealth, HiveId, Home, HomeHealth, Level,
    };
    use crate::stream::loans::Loans;

    #[test]
    fn clients_messages() {
        let both = BTreeSet::from([Topic::Status, Topic::Performance]);
        for (text, said) in [
            (
                r#"{"type":"subscribe","subscriptions":["performance","status"],"swarms":["a"],"after":7}"#,
                Said::Subscribe { subscriptions: both.clone(), swarms: Some(vec!["a".to_owned()]), after: Some(7) },
            ),
            (r#"{"type":"subscribe"}"#, Said::Subscribe { subscriptions: BTreeSet::new(), swarms: None, after: None }),
            (
                r#"{"subscriptions":["status","performance"],"type":"unsubscribe"}"#,
                Said::Unsubscribe { subscriptions: both },
            ),
            (r#"{"type":"request_status"}"#, Said::RequestStatus {}),
            (r#"{"type":"request_performance"}"#, Said::RequestPerformance {}),
            (r#"{"type":"ping"}"#, Said::Ping {}),
        ] {
            assert_eq!(parse(text), Ok(said), "{text}");
        }
    }

    #[test]
    fn wrong_messages_are_objected_to() {
        for (text, code) in [
            ("", "invalid_json"),
            ("{", "invalid_json"),
            ("[]", "invalid_message"),
            ("{}", "invalid_message"),
            (r#"{"type":7}"#, "invalid_message"),
            (r#"{"type":"restart"}"#, "unknown_type"),
            (r#"{"type":"subscribe","subscriptions":["logs"]}"#, "invalid_message"),
            (r#"{"type":"subscribe","sworms":[]}"#, "invalid_message"),
            (r#"{"type":"ping","x":1}"#, "invalid_message"),
            (r#"{"type":"subscribe","after":-1}"#, "invalid_message"),
        ] {
            assert_eq!(parse(text).unwrap_err().code, code, "{text}");
        }
        assert_eq!(filter(&["UPPER".to_owned()]).unwrap_err().code, "invalid_message");
        assert_eq!(filter(&[]), Ok(None));
    }

    #[test]
    fn an_address_says_what_is_wanted() {
        let nothing = Asked { topics: None, only: None, after: None };
        assert_eq!(asked(None, None, None), Ok(nothing));
        let both = Some(BTreeSet::from([Topic::Status, Topic::Performance]));
        let only: Filter = Some([String::from("a").parse().unwrap(), String::from("b").parse().unwrap()].into());
        let all = asked(Some("performance,status"), Some("a,b,"), Some(7));
        assert_eq!(all, Ok(Asked { topics: both, only, after: Some(Seq(7)) }));
        assert_eq!(
            asked(Some(""), Some(""), None),
            Ok(Asked { topics: Some(BTreeSet::new()), only: None, after: None })
        );
        for (topics, swarms) in [(Some("logs"), None), (None, Some("UPPER"))] {
            assert_eq!(asked(topics, swarms, None).unwrap_err().code, "invalid_query");
        }
    }

    fn agent(id: &str) -> Arc<AgentHealth> {
        Arc::new(AgentHealth::unknown(id.parse().unwrap(), SystemTime::UNIX_EPOCH))
    }

    fn swarm(name: &str) -> Arc<SwarmHealth> {
        Arc::new(SwarmHealth {
            name: name.parse().unwrap(),
            level: Level::Healthy,
            since: SystemTime::UNIX_EPOCH,
            reasons: Vec::new(),
            desired: Desired::Running,
            home: HomeHealth::of(&Home::Process { workdir: None }),
            agents: Vec::new(),
        })
    }

    fn only(name: &str) -> Filter {
        Some([name.parse().unwrap()].into())
    }

    #[test]
    fn an_event_is_for_those_who_want_its_topic_and_its_swarm() {
        let event = |kind| Event { seq: Seq(1), epoch: Epoch(1), at: SystemTime::UNIX_EPOCH, kind };
        let (all, none) = (BTreeSet::from([Topic::Status, Topic::Sessions]), BTreeSet::from([Topic::Performance]));
        let removed = "a/x".parse().unwrap();
        let of_a = [
            EventKind::AgentChanged { from: None, agent: agent("a/x") },
            EventKind::SwarmChanged { from: None, swarm: swarm("a") },
            EventKind::AgentRemoved { agent: removed },
        ];
        for kind in of_a {
            let event = event(kind);
            assert!(matches!(push(&event, &all, &None), Push::Sessions(_)), "{event:?}");
            assert!(matches!(push(&event, &all, &only("a")), Push::Sessions(_)), "{event:?}");
            assert_eq!(push(&event, &all, &only("b")), Push::Nothing, "{event:?}");
            assert_eq!(push(&event, &BTreeSet::from([Topic::Status]), &None), Push::Nothing, "{event:?}");
        }
        let both = event(EventKind::Samples { agents: vec![agent("a/x"), agent("b/y")] });
        assert!(matches!(push(&both, &all, &None), Push::Sessions(parts) if parts.agents.len() == 2));
        let part = push(&both, &all, &only("b"));
        assert!(
            matches!(part, Push::Filtered(parts) if parts.agents.len() == 1 && parts.agents[0].id.swarm.as_str() == "b")
        );
        assert_eq!(push(&both, &all, &only("c")), Push::Nothing);
        let level = EventKind::HiveChanged { from: Level::Healthy, to: Level::Critical, reasons: Vec::new() };
        let source = EventKind::SourceChanged {
            source: "s".parse().unwrap(),
            from: None,
            to: BreakerState::Open,
            reasons: Vec::new(),
            agents: 0,
            appeared: Vec::new(),
            gone: Vec::new(),
        };
        for kind in [level, source] {
            let event = event(kind);
            assert_eq!(push(&event, &all, &only("b")), Push::Status, "{event:?}");
            assert_eq!(push(&event, &none, &None), Push::Nothing, "{event:?}");
        }
    }

    #[test]
    fn a_filtered_document_holds_its_swarms_and_their_agents_alone() {
        let hive = HiveHealth {
            hive: HiveId(uuid::Uuid::nil()),
            name: "home".to_owned(),
            level: Level::Critical,
            since: SystemTime::UNIX_EPOCH,
            reasons: Vec::new(),
            control_plane: ControlPlaneHealth { reachable: true, since: SystemTime::UNIX_EPOCH, last_error: None },
            data_plane: DataPlaneHealth::unknown(),
            swarms: vec![swarm("a"), swarm("b")],
            agents: vec![agent("a/x"), agent("b/y")],
            sources: Vec::new(),
            disk: DiskHealth::unknown(),
        };
        let shown = |filter: Filter| serde_json::from_str::<serde_json::Value>(&status_tail(&hive, &filter)).unwrap();
        let names = |shown: &serde_json::Value, list: &str| -> Vec<String> {
            shown[list].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
        };
        let whole = shown(None);
        assert_eq!(
            (names(&whole, "swarms"), names(&whole, "agents")),
            (vec!["a".into(), "b".into()], vec!["x".into(), "y".into()])
        );
        let part = shown(only("b"));
        assert_eq!((names(&part, "swarms"), names(&part, "agents")), (vec!["b".into()], vec!["y".into()]));
        assert_eq!(part["level"], "critical", "the hive's own stays");
    }

    #[test]
    fn a_frame_is_its_head_and_its_tail() {
        let at = SystemTime::UNIX_EPOCH;
        let head = Head { epoch: Epoch(3), seq: Seq(9), prev_seq: Seq(7), observed_at: at, sent_at: at };
        let begin = concat!(
            r#"{"type":"pong","epoch":3,"seq":9,"prev_seq":7,"#,
            r#""observed_at":"1970-01-01T00:00:00.000Z","sent_at":"1970-01-01T00:00:00.000Z""#
        );
        assert_eq!(text("pong", head, "{}"), format!("{begin}}}"));
        assert_eq!(text("pong", head, r#"{"a":1}"#), format!(r#"{begin},"a":1}}"#));
        for length in [1, SHARED_BYTES_MIN, 3 * SHARED_BYTES_MIN] {
            let tail: Arc<str> = Arc::from(format!(r#"{{"a":"{}"}}"#, "x".repeat(length)));
            let frame = frame("pong", head, Arc::clone(&tail), |tail| Loans::within(0).lend(tail, 1).0);
            assert_eq!(frame.into_text(), text("pong", head, &tail));
        }
    }
}
