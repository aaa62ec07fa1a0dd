//! Who may call what, and for whom.

use super::*;

#[test]
fn every_tool_says_what_it_takes_and_answers_in_schemas_that_stand_alone() {
    let mut names = HashSet::new();
    for tool in all() {
        assert!(names.insert(tool.name), "{} is there twice", tool.name);
        assert!(tool.about.ends_with('.') && !tool.about.contains("  "), "{}: {:?}", tool.name, tool.about);
        for (which, whole) in [("arguments", (tool.arguments)()), ("answer", (tool.answer)())] {
            let text = whole.to_string();
            assert!(!text.contains("#/components"), "{} {which}: {text}", tool.name);
            assert_eq!(whole["type"], "object", "{} {which}", tool.name);
            // Walks all references.
            schema::judge(&whole, &json!({}));
        }
        let takes = (tool.arguments)();
        assert_eq!(takes["additionalProperties"], false, "{}", tool.name);
        let mut own = Vec::new();
        schema::properties(&takes, &mut own);
        for (name, property) in own {
            let said = property.get("description").is_some_and(|said| said.as_str().unwrap().ends_with('.'));
            assert!(said, "{} does not say what {name} is: {property}", tool.name);
        }
    }
    assert_eq!(names.len(), 31);
}

#[tokio::test]
async fn an_agent_acts_for_itself_alone() {
    let bench = Bench::new();
    let own = json!({ "swarm": "review", "agent": ME, "incarnation": 1 });
    bench.ok(ME, "task_claim", own).await;
    for (key, value) in [("swarm", json!("other")), ("agent", json!(OTHER)), ("incarnation", json!(2))] {
        let (code, message) = bench.refused(ME, "task_claim", json!({ key: value })).await;
        assert_eq!(code, "invalid_work");
        assert!(
            message.starts_with(key) && message.contains("allowed nothing else than review/coder-1#1"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn a_dead_incarnation_is_refused_by_every_tool() {
    let bench = Bench::new();
    bench.dies(ME, 1);
    bench.begins(ME, 2);
    for tool in all() {
        let (code, message) = bench.refused(ME, tool.name, json!({})).await;
        assert_eq!(
            (code, message.as_str()),
            ("not_alive", "incarnation 1 of review/coder-1 does not live"),
            "{}",
            tool.name
        );
    }
    let as_dead = json!({ "swarm": "review", "agent": ME, "incarnation": 1 });
    let refused = bench.call(&operator(), "task_claim", as_dead).await.unwrap_err();
    assert_eq!(refused.code(), "not_alive");
}

#[tokio::test]
async fn whoever_may_only_read_changes_nothing() {
    let bench = Bench::new();
    let reader = Caller::Client { control: false };
    let arguments = json!({ "swarm": "review", "agent": "ci" });
    let mut refused = 0;
    for tool in all() {
        let answer = bench.call(&reader, tool.name, arguments.clone()).await;
        if tool.effect == Effect::Reads {
            assert!(!matches!(answer, Err(ToolError::ReadOnly(_))), "{}", tool.name);
        } else {
            assert_eq!(answer.unwrap_err(), ToolError::ReadOnly(tool.name));
            refused += 1;
        }
    }
    assert_eq!(refused, 21);
}

#[tokio::test]
async fn a_client_says_whose_work_it_is_and_for_whom_it_acts() {
    let bench = Bench::new();
    let refused = async |arguments: Value| {
        let error = bench.call(&operator(), "task_claim", arguments).await.unwrap_err();
        (error.code(), error.to_string())
    };
    assert_eq!(refused(json!({})).await.1, "swarm: found nothing, allowed the name of a swarm");
    assert_eq!(refused(json!({ "swarm": "other" })).await, ("unknown_swarm", "there is no swarm \"other\"".to_owned()));
    assert!(refused(json!({ "swarm": "A" })).await.1.starts_with("swarm: found \"A\", allowed a name: 1 to 63"));
    assert!(refused(json!({ "swarm": 7 })).await.1.starts_with("swarm: found 7, allowed a name"));
    assert!(refused(json!({ "swarm": "review" })).await.1.starts_with("agent: found nothing"));
    let no_agent = json!({ "swarm": "review", "agent": "ci", "incarnation": 1 });
    assert_eq!(refused(no_agent).await.1, "incarnation: found 1, allowed nothing, for review/ci is no agent");
    let which = refused(json!({ "swarm": "review", "agent": ME })).await.1;
    assert!(which.starts_with("incarnation: found null, allowed which start of review/coder-1"), "{which}");
    let as_agent = json!({ "swarm": "review", "agent": ME, "incarnation": 1 });
    assert!(bench.call(&operator(), "task_claim", as_agent).await.is_ok());
    assert!(bench.call(&operator(), "task_claim", json!({ "swarm": "review", "agent": "ci" })).await.is_ok());
}

#[tokio::test]
async fn what_can_not_be_read_is_told_by_name_with_what_is_allowed() {
    let bench = Bench::new();
    let id = NIL;
    for (tool, arguments, told) in [
        (
            "task_renew",
            json!({ "id": "seven", "fence": 1 }),
            "id: found string \"seven\", allowed an id, which is a UUID",
        ),
        (
            "task_renew",
            json!({ "id": id, "fence": "1" }),
            "fence: found string \"1\", allowed a whole number from 0 to 18446744073709551615",
        ),
        ("task_renew", json!({ "id": id }), "fence: found nothing, allowed a value, for it is needed"),
        ("task_renew", json!({ "id": id, "fence": null }), "fence: found nothing, allowed a value, for it is needed"),
        (
            "task_renew",
            json!({ "id": id, "fence": 1, "token": 1 }),
            "token: found unknown field `token`, allowed `id` or `fence`",
        ),
        ("task_claim", json!({ "max": 0 }), "max: found 0, allowed 1 to 100"),
        ("task_claim", json!({ "wait_ms": 300_001 }), "wait_ms: found 300001, allowed 0 to 300000"),
        (
            "task_list",
            json!({ "state": ["open"] }),
            "state: found string \"open\", allowed one of blocked, ready, claimed, running, done, failed, cancelled",
        ),
        ("task_list", json!({ "limit": 1001 }), "limit: found 1001, allowed 1 to 1000"),
        ("task_create", json!({ "tasks": [] }), "tasks: found 0, allowed 1 to 1000"),
        (
            "task_create",
            json!({ "tasks": [{ "title": "a" }, { "title": "b", "priority": "urgent" }] }),
            "tasks[1].priority: found string \"urgent\", allowed one of critical, high, normal, low",
        ),
        (
            "task_create",
            json!({ "tasks": [{ "title": "a" }, {}] }),
            "tasks[1].title: found nothing, allowed a value, for it is needed",
        ),
        (
            "task_create",
            json!({ "tasks": [{ "title": "a".repeat(201) }] }),
            "tasks[0].title: found 201 bytes, allowed one line of 1 to 200 bytes",
        ),
        (
            "task_create",
            json!({ "tasks": [{ "title": "a", "depends_on": [1] }] }),
            "tasks[0].depends_on: found 1, allowed ids, or places from 0 to 0",
        ),
        (
            "task_create",
            json!({ "tasks": [{ "title": "a", "depends_on": ["b"] }] }),
            "tasks[0].depends_on: found string \"b\", allowed ids of tasks, or places from 0 in this call",
        ),
        (
            "task_create",
            json!({ "tasks": [{ "title": "a", "depends_on": [true] }] }),
            "tasks[0].depends_on: found boolean `true`, allowed ids of tasks, or places from 0 in this call",
        ),
        ("task_create", json!({ "tasks": ["a"] }), "tasks[0]: found string \"a\", allowed an object"),
        ("lock_acquire", json!({ "resources": ["/etc"] }), "resources[0]: found \"/etc\", allowed 1 to 512 bytes"),
        (
            "lock_acquire",
            json!({ "resources": ["a"], "mode": "shared" }),
            "mode: found string \"shared\", allowed one of read, write, exclusive",
        ),
        (
            "lock_acquire",
            json!({ "resources": ["a"], "wait_ms": u64::MAX }),
            "wait_ms: found 18446744073709551615, allowed 0 to 300000",
        ),
        ("lock_list", json!({ "holder": "Me" }), "holder: found \"Me\", allowed the name of an agent or a client"),
        (
            "message_send",
            json!({ "to": "*", "reply_within_ms": 5 }),
            "reply_within_ms: found it beside `to`: \"*\", allowed one recipient, who is to answer",
        ),
        (
            "message_send",
            json!({ "to": OTHER, "reply_within_ms": u64::MAX }),
            "reply_within_ms: found 18446744073709551615, allowed 1 to 2592000000",
        ),
        (
            "message_send",
            json!({ "to": "two words" }),
            "to: found \"two words\", allowed the name of an agent or a client",
        ),
        ("message_receive", json!({ "max": 101 }), "max: found 101, allowed 1 to 100"),
    ] {
        let (code, message) = bench.refused(ME, tool, arguments).await;
        assert_eq!(code, "invalid_work", "{message}");
        assert!(message.starts_with(told), "{tool}: {message}");
    }
    for arguments in ["", "[]", "null", "{"] {
        let refused = bench.tools.call(&agent(ME), "task_claim", arguments, &Unhurried).await.unwrap_err();
        assert!(refused.to_string().starts_with("arguments: found "), "{arguments:?}: {refused}");
    }
    let refused = bench.tools.call(&agent(ME), "task_do", "{}", &Unhurried).await.unwrap_err();
    assert_eq!(refused.code(), "unknown_tool");
}

/// Counts how often it was told to be patient.
#[derive(Default)]
struct Counted(Mutex<Vec<(u64, String)>>);

impl Patience for Counted {
    fn waits(&self, waited: Duration, what: &str) {
        self.0.lock().push((waited.as_secs(), what.to_owned()));
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_hears_each_second_that_it_takes_its_time() {
    let bench = Bench::new();
    bench.lock(OTHER, "write", "a").await;
    for (tool, arguments, what, code) in [
        ("task_claim", json!({ "wait_ms": 3500 }), "a task that is ready", None),
        ("message_receive", json!({ "wait_ms": 3500 }), "a message", None),
        ("lock_acquire", json!({ "resources": ["a"], "wait_ms": 3500 }), "the lock", Some("lock_timed_out")),
    ] {
        let (counted, began) = (Counted::default(), tokio::time::Instant::now());
        let answer = bench.tools.call(&agent(ME), tool, &arguments.to_string(), &counted).await;
        assert_eq!(answer.err().map(|error| error.code()), code, "{tool}");
        assert_eq!(began.elapsed().as_millis() / 100, 35, "{tool}");
        assert_eq!(*counted.0.lock(), [1, 2, 3].map(|s| (s, what.to_owned())), "{tool}");
    }
}
