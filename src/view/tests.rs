//! The shapes on the wire, literally.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::Serialize;
use serde_json::{Value, json};

use super::*;
use crate::model::{
    AgentHealth, AgentState, BreakerState, Command, ContainerSpec, ControlPlaneHealth, DataPlaneHealth, Desired,
    DiskHealth, DiskUse, Epoch, Event, EventKind, ExitCause, ExitRecord, HiveHealth, HiveId, Home, HomeHealth, Level,
    Lost, Measured, Operation, OperationId, OperationState, Reason, Requester, Seq, Source, Step, SwarmHealth, Target,
    TelemetryHealth, Usage, health::Absent,
};

fn at(ms: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_233_900_000 + ms)
}

fn value(view: impl Serialize) -> Value {
    serde_json::from_str(&serde_json::to_string(&view).unwrap()).unwrap()
}

fn coder() -> AgentHealth {
    AgentHealth {
        id: "review/coder-2".parse().unwrap(),
        state: AgentState::BackingOff,
        since: at(1),
        reasons: vec![Reason { code: "exited", detail: "killed by signal 9".to_owned() }],
        desired: Desired::Running,
        incarnation: 3,
        pid: None,
        restarts: 2,
        restarts_in_window: 1,
        retry_at: Some(at(1000)),
        last_exit: Some(Arc::new(ExitRecord {
            incarnation: 3,
            code: None,
            signal: Some(9),
            oom: None,
            at: at(1),
            cause: ExitCause::Signalled,
            last_lines: vec!["one".to_owned(), "two".to_owned()],
        })),
        cpu: Measured::Value { value: 0.5, observed_at: at(0), source: Source::Launcher },
        memory: Measured::Absent(Absent::Stale),
        last_heartbeat: Measured::Value { value: at(0), observed_at: at(2), source: Source::Agent },
        progress: Measured::Value {
            value: Arc::from(r#"{"done": 3, "of": 9007199254740993}"#),
            observed_at: at(0),
            source: Source::Agent,
        },
        dropped: 4,
        usage: Measured::Value {
            value: Usage { input_tokens: Some(1200), cost_usd: Some(0.25), ..Usage::default() },
            observed_at: at(0),
            source: Source::Agent,
        },
        model: Measured::Value { value: Arc::from("small-1"), observed_at: at(0), source: Source::Agent },
        heartbeat_latency_ms: Measured::Value { value: 12, observed_at: at(2), source: Source::Agent },
        telemetry: TelemetryHealth {
            received: 900,
            dropped: Lost { logs: 3, metrics: 1, events: 0 },
            latency_ms: Measured::Value { value: 0.75, observed_at: at(2), source: Source::Daemon },
        },
    }
}

fn coder_json() -> Value {
    json!({
        "swarm": "review", "name": "coder-2", "state": "backing_off", "since": "2026-11-21T04:05:00.001Z",
        "reasons": [{ "code": "exited", "detail": "killed by signal 9" }],
        "desired": "running", "incarnation": 3, "pid": null, "restarts": 2, "restarts_in_window": 1,
        "retry_at": "2026-11-21T04:05:01.000Z",
        "last_exit": {
            "incarnation": 3, "code": null, "signal": 9, "oom": null, "at": "2026-11-21T04:05:00.001Z",
            "cause": "signalled", "detail": "killed by signal 9", "last_lines": ["one", "two"]
        },
        "cpu": { "value": 0.5, "observed_at": "2026-11-21T04:05:00.000Z", "source": "launcher" },
        "memory": { "value": null, "reason": "stale" },
        "last_heartbeat": { "value": "2026-11-21T04:05:00.000Z", "observed_at": "2026-11-21T04:05:00.002Z", "source": "agent" },
        "progress": {
            "value": { "done": 3, "of": 9_007_199_254_740_993_u64 }, "observed_at": "2026-11-21T04:05:00.000Z", "source": "agent"
        },
        "dropped": 4,
        "usage": {
            "value": {
                "input_tokens": 1200, "output_tokens": null, "cache_read_input_tokens": null,
                "cache_creation_input_tokens": null, "reasoning_output_tokens": null, "cost_usd": 0.25
            },
            "observed_at": "2026-11-21T04:05:00.000Z", "source": "agent"
        },
        "model": { "value": "small-1", "observed_at": "2026-11-21T04:05:00.000Z", "source": "agent" },
        "heartbeat_latency_ms": { "value": 12, "observed_at": "2026-11-21T04:05:00.002Z", "source": "agent" },
        "telemetry": {
            "received": 900, "dropped": { "logs": 3, "metrics": 1, "events": 0 },
            "latency_ms": { "value": 0.75, "observed_at": "2026-11-21T04:05:00.002Z", "source": "daemon" }
        }
    })
}

pub(crate) fn review() -> SwarmHealth {
    SwarmHealth {
        name: "review".parse().unwrap(),
        level: Level::Critical,
        since: at(5),
        reasons: vec![],
        desired: Desired::Stopped,
        home: HomeHealth {
            adjustments: vec!["limits.cpus 64 is 2, which is all that the engine's machine has".to_owned()],
            ..HomeHealth::of(&Home::Docker(Arc::new(ContainerSpec::sidecar("dev".to_owned()))))
        },
        agents: vec!["coder-1".parse().unwrap(), "coder-2".parse().unwrap()],
    }
}

fn review_json() -> Value {
    json!({
        "name": "review", "level": "critical", "since": "2026-11-21T04:05:00.005Z", "reasons": [], "desired": "stopped",
        "runtime": "docker", "container": "dev", "relaxations": ["container dev of others"],
        "adjustments": ["limits.cpus 64 is 2, which is all that the engine's machine has"],
        "agents": ["coder-1", "coder-2"], "agents_total": 2
    })
}

fn restart() -> Operation {
    Operation {
        id: "0199a1b2-0000-7000-8000-000000000001".parse::<OperationId>().unwrap(),
        command: Command::Restart {
            mode: crate::model::RestartMode::All,
            grace: Some(Duration::from_millis(1500)),
            reason: Some("new prompt".to_owned()),
        },
        target: Target::Agent("review/coder-2".parse().unwrap()),
        state: OperationState::Failed,
        requested_by: Requester::Http { peer: "127.0.0.1:4711".to_owned() },
        requested_at: at(0),
        ended_at: Some(at(9)),
        steps: vec![
            Step { at: at(3), agent: "review/coder-2".parse().unwrap(), result: Ok("ended".to_owned()) },
            Step { at: at(8), agent: "review/coder-2".parse().unwrap(), result: Err("no such file".to_owned()) },
        ],
        error: Some("review/coder-2 could not be started".to_owned()),
    }
}

fn restart_json() -> Value {
    json!({
        "id": "0199a1b2-0000-7000-8000-000000000001", "kind": "restart", "target": "review/coder-2", "state": "failed",
        "requested_by": "http:127.0.0.1:4711", "requested_at": "2026-11-21T04:05:00.000Z",
        "ended_at": "2026-11-21T04:05:00.009Z", "grace_ms": 1500, "reason": "new prompt",
        "steps": [
            { "at": "2026-11-21T04:05:00.003Z", "agent": "review/coder-2", "ok": true, "detail": "ended" },
            { "at": "2026-11-21T04:05:00.008Z", "agent": "review/coder-2", "ok": false, "detail": "no such file" }
        ],
        "steps_total": 2,
        "error": "review/coder-2 could not be started"
    })
}

#[test]
fn an_agent_has_the_fields_of_the_specification_in_its_order() {
    assert_eq!(value(agent(&coder())), coder_json());
    let text = serde_json::to_string(&agent(&coder())).unwrap();
    let mut from = 0;
    for name in [
        "swarm",
        "name",
        "state",
        "since",
        "reasons",
        "desired",
        "incarnation",
        "pid",
        "restarts",
        "restarts_in_window",
        "retry_at",
        "last_exit",
        "cpu",
        "memory",
        "last_heartbeat",
        "progress",
        "dropped",
        "usage",
        "model",
        "heartbeat_latency_ms",
        "telemetry",
    ] {
        let key = format!("\"{name}\":");
        from += text[from..].find(&key).unwrap_or_else(|| panic!("{name} is missing or too early in {text}"));
    }
}

#[test]
fn an_unobserved_agent_shows_reasons_and_no_defaults() {
    let unborn = AgentHealth {
        state: AgentState::Pending,
        incarnation: 0,
        retry_at: None,
        last_exit: None,
        cpu: Measured::Absent(Absent::NeverObserved),
        memory: Measured::Absent(Absent::Unsupported),
        last_heartbeat: Measured::Absent(Absent::NeverObserved),
        progress: Measured::Absent(Absent::NeverObserved),
        usage: Measured::Absent(Absent::NeverObserved),
        model: Measured::Absent(Absent::NeverObserved),
        heartbeat_latency_ms: Measured::Absent(Absent::NeverObserved),
        telemetry: TelemetryHealth::default(),
        ..coder()
    };
    let shown = value(agent(&unborn));
    for name in ["cpu", "last_heartbeat", "progress", "usage", "model", "heartbeat_latency_ms"] {
        assert_eq!(shown[name], json!({ "value": null, "reason": "never_observed" }), "{name}");
    }
    assert_eq!(shown["telemetry"]["latency_ms"], json!({ "value": null, "reason": "never_observed" }));
    assert_eq!(shown["memory"], json!({ "value": null, "reason": "unsupported" }));
    assert_eq!((&shown["last_exit"], &shown["retry_at"]), (&Value::Null, &Value::Null));
}

#[test]
fn progress_that_is_no_json_can_not_break_the_document() {
    let odd = AgentHealth {
        progress: Measured::Value { value: Arc::from("{half"), observed_at: at(0), source: Source::Agent },
        ..coder()
    };
    assert_eq!(value(agent(&odd))["progress"]["value"], json!("{half"));
}

#[test]
fn a_failed_start_says_what_the_system_said() {
    let record = ExitRecord {
        incarnation: 1,
        code: None,
        signal: None,
        oom: None,
        at: at(0),
        cause: ExitCause::StartFailed { message: "no such file".to_owned() },
        last_lines: vec![],
    };
    let shown = value(exit(&record));
    assert_eq!(shown["cause"], "start_failed");
    assert_eq!(shown["message"], "no such file");
    assert_eq!(shown["detail"], "could not be started: no such file");
}

/// A hive with a swarm `review` and an agent in it.
pub(crate) fn laptop() -> HiveHealth {
    HiveHealth {
        hive: "0199a1b2-0000-7000-8000-00000000000a".parse::<HiveId>().unwrap(),
        name: "laptop".to_owned(),
        level: Level::Degraded,
        since: at(0),
        reasons: vec![Reason { code: "agent_backing_off", detail: "review/coder-2".to_owned() }],
        control_plane: ControlPlaneHealth { reachable: false, since: at(0), last_error: Some("disk full".to_owned()) },
        data_plane: DataPlaneHealth {
            listening: true,
            sessions: 2,
            events_per_second: Measured::Absent(Absent::NeverObserved),
            dropped: 1,
            refused: 7,
            events_per_second_1m: Measured::Value { value: 20.5, observed_at: at(0), source: Source::Daemon },
            events_per_second_5m: Measured::Absent(Absent::NeverObserved),
            connections: 3,
            turned_away: 4,
            refused_by_code: [(-32602, 2), (1003, 5)].into(),
            dropped_by_class: Lost { logs: 1, ..Lost::default() },
        },
        swarms: vec![Arc::new(review())],
        agents: vec![Arc::new(coder())],
        sources: vec![],
        disk: DiskHealth {
            found: Measured::Value {
                value: DiskUse { journal: 1, history: 2, logs: 3, free: 4 },
                observed_at: at(0),
                source: Source::Daemon,
            },
            max: Some(5),
        },
    }
}

#[test]
fn the_health_document() {
    let bytes = |value: u64| json!({ "value": value, "observed_at": "2026-11-21T04:05:00.000Z", "source": "daemon" });
    assert_eq!(
        value(hive(&laptop())),
        json!({
            "status": "warn", "level": "degraded", "since": "2026-11-21T04:05:00.000Z",
            "reasons": [{ "code": "agent_backing_off", "detail": "review/coder-2" }],
            "hive_id": "0199a1b2-0000-7000-8000-00000000000a", "hive": "laptop",
            "control_plane": { "reachable": false, "since": "2026-11-21T04:05:00.000Z", "last_error": "disk full" },
            "data_plane": {
                "listening": true, "sessions": 2, "events_per_second": { "value": null, "reason": "never_observed" },
                "dropped": 1, "refused": 7,
                "events_per_second_1m": { "value": 20.5, "observed_at": "2026-11-21T04:05:00.000Z", "source": "daemon" },
                "events_per_second_5m": { "value": null, "reason": "never_observed" },
                "connections": 3, "turned_away": 4, "refused_by_code": { "-32602": 2, "1003": 5 },
                "dropped_by_class": { "logs": 1, "metrics": 0, "events": 0 }
            },
            "swarms": [review_json()], "agents": [coder_json()], "sources": [],
            "disk": { "journal": bytes(1), "history": bytes(2), "logs": bytes(3), "free": bytes(4), "max": 5 }
        })
    );
    for (level, status) in
        [(Level::Healthy, "pass"), (Level::Degraded, "warn"), (Level::Unknown, "fail"), (Level::Critical, "fail")]
    {
        assert_eq!(words::status(level), status);
    }
}

#[test]
fn operations() {
    assert_eq!(value(operation(&restart())), restart_json());
    let start = Operation {
        command: Command::Start,
        state: OperationState::Accepted,
        requested_by: Requester::Daemon,
        ended_at: None,
        steps: vec![],
        error: None,
        ..restart()
    };
    let shown = value(operation(&start));
    assert_eq!(
        (&shown["kind"], &shown["state"], &shown["requested_by"]),
        (&json!("start"), &json!("accepted"), &json!("daemon"))
    );
    assert_eq!((shown.get("grace_ms"), shown.get("reason")), (None, None));
}

#[test]
fn events_of_every_kind() {
    let subject = |kind: EventKind, subject: &str, body: Value| {
        let word = kind.word();
        let mut expected = json!({
            "seq": 12, "epoch": 1_795_000_000_000_u64, "at": "2026-11-21T04:05:00.000Z", "kind": word, "subject": subject
        });
        expected.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        let shown = Event { seq: Seq(12), epoch: Epoch(1_795_000_000_000), at: at(0), kind };
        assert_eq!(value(event(&shown)), expected, "{word}");
    };
    subject(
        EventKind::SourceChanged {
            source: "flow".parse().unwrap(),
            from: Some(BreakerState::Closed),
            to: BreakerState::Open,
            reasons: vec!["source_down: 3 polls in a row failed: can't connect".to_owned()],
            agents: 1,
            appeared: vec![Arc::from("a")],
            gone: vec![],
        },
        "flow",
        json!({
            "from": "closed", "to": "open", "agents": 1, "appeared": ["a"], "gone": [],
            "reasons": [{ "code": "source_down", "detail": "3 polls in a row failed: can't connect" }]
        }),
    );
    let agent = Arc::new(coder());
    subject(
        EventKind::AgentChanged { from: Some(AgentState::Running), agent: Arc::clone(&agent) },
        "review/coder-2",
        json!({ "from": "running", "agent": coder_json() }),
    );
    subject(
        EventKind::AgentChanged { from: None, agent: Arc::clone(&agent) },
        "review/coder-2",
        json!({ "from": null, "agent": coder_json() }),
    );
    subject(EventKind::Samples { agents: vec![agent] }, "", json!({ "agents": [coder_json()] }));
    subject(
        EventKind::SwarmChanged { from: Some(Level::Healthy), swarm: Arc::new(review()) },
        "review",
        json!({ "from": "healthy", "swarm": review_json() }),
    );
    let names = |n: usize| (1..=n).map(|n| format!("coder-{n}")).collect::<Vec<_>>();
    let crowd = SwarmHealth { agents: names(1000).iter().map(|name| name.parse().unwrap()).collect(), ..review() };
    let mut told = review_json();
    (told["agents"], told["agents_total"]) = (json!(names(16)), json!(1000));
    subject(
        EventKind::SwarmChanged { from: None, swarm: Arc::new(crowd) },
        "review",
        json!({ "from": null, "swarm": told }),
    );
    subject(EventKind::AgentRemoved { agent: "review/coder-2".parse().unwrap() }, "review/coder-2", json!({}));
    subject(
        EventKind::HiveChanged {
            from: Level::Healthy,
            to: Level::Critical,
            reasons: vec!["swarm_critical: review: all failed".to_owned(), "bare".to_owned()],
        },
        "",
        json!({
            "from": "healthy", "to": "critical",
            "reasons": [{ "code": "swarm_critical", "detail": "review: all failed" }, { "code": "bare", "detail": "" }]
        }),
    );
    subject(
        EventKind::OperationChanged { operation: Arc::new(restart()) },
        "0199a1b2-0000-7000-8000-000000000001",
        json!({ "operation": restart_json() }),
    );
    let long = Operation { steps: vec![restart().steps[0].clone(); 1000], ..restart() };
    let mut told = restart_json();
    (told["steps"], told["steps_total"]) = (json!(vec![told["steps"][0].clone(); 16]), json!(1000));
    subject(
        EventKind::OperationChanged { operation: Arc::new(long) },
        "0199a1b2-0000-7000-8000-000000000001",
        json!({ "operation": told }),
    );
    subject(
        EventKind::AgentSaid {
            agent: "review/coder-2".parse().unwrap(),
            incarnation: 3,
            kind: Arc::from("asks"),
            data: Arc::from(r#"{"kind":"asks","text":"may I?"}"#),
        },
        "review/coder-2",
        json!({ "incarnation": 3, "event": "asks", "data": { "kind": "asks", "text": "may I?" } }),
    );
    let untold = EventKind::WorkUntold { tasks: 1, locks: 2, messages: 3 };
    subject(untold, "", json!({ "tasks": 1, "locks": 2, "messages": 3 }));
    subject(EventKind::DaemonStarted { version: "0.1.0", pid: 7 }, "", json!({ "version": "0.1.0", "pid": 7 }));
    subject(EventKind::DaemonStopping { how: "handover" }, "", json!({ "how": "handover" }));
}

#[test]
fn a_stored_event_is_shown_as_it_was_kept() {
    let body: Arc<str> = Arc::from(r#"{"seq":1,"kind":"agent_changed"}"#);
    assert_eq!(stored_event(&body).get(), &*body);
}
