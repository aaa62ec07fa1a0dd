//! Agents that share work: what becomes of it when one is killed, paused, replaced or removed, and when the daemon is.

use std::time::Duration;

use serde_json::{Value, json};

use crate::hive::{Hive, PATIENCE, Session, kill, until, until_within};

/// Agents that write down what they were given and wait.
fn swarm(agents: &[&str]) -> String {
    let agent = |name: &&str| {
        format!(
            r#"
[[swarm.agent]]
name = "{name}"
stop_grace = "1s"
lease = "20s"
command = ["sh", "-c", "env > $(basename $HIVEKEEPER_AGENT).tmp; mv $(basename $HIVEKEEPER_AGENT).tmp $(basename $HIVEKEEPER_AGENT).$HIVEKEEPER_INCARNATION; exec sleep 1000"]
"#
        )
    };
    let agents: String = agents.iter().map(agent).collect();
    format!("[supervision]\nbackoff = {{ initial = \"100ms\" }}\n[[swarm]]\nname = \"s\"\n{agents}")
}

/// An agent's session, spoken by the test.
struct Agent(Session);

impl Agent {
    fn of(hive: &Hive, name: &str, incarnation: u64) -> Self {
        Self(Session::open(hive, name, incarnation, &json!({})))
    }

    /// What came of a call.
    #[track_caller]
    fn call(&mut self, tool: &str, arguments: &Value) -> Value {
        let answer = self.ask(tool, arguments);
        assert!(answer["result"].is_object(), "{tool}: {answer}");
        answer["result"].clone()
    }

    /// The word of a refusal.
    #[track_caller]
    fn refused(&mut self, tool: &str, arguments: &Value) -> String {
        let answer = self.ask(tool, arguments);
        answer["error"]["data"]["code"].as_str().unwrap_or_else(|| panic!("{tool}: {answer}")).to_owned()
    }

    fn ask(&mut self, tool: &str, arguments: &Value) -> Value {
        let mut answer = self.0.ask(&format!("hive/{tool}"), arguments);
        while answer["method"] == "hive/progress" {
            answer = self.0.line();
        }
        answer
    }

    fn create(&mut self, titles: &[&str]) -> Vec<Value> {
        let tasks: Vec<Value> = titles.iter().map(|title| json!({ "title": title })).collect();
        let made = self.call("task_create", &json!({ "tasks": tasks }));
        made["tasks"].as_array().unwrap().iter().map(|task| task["id"].clone()).collect()
    }

    #[track_caller]
    fn claim(&mut self, lease_ms: u64) -> Value {
        let claimed = self.call("task_claim", &json!({ "lease_ms": lease_ms }));
        let task = claimed["tasks"][0].clone();
        assert!(task["claim"]["fence"].is_u64(), "{claimed}");
        task
    }

    #[track_caller]
    fn lock(&mut self, resource: &str) -> Value {
        self.call("lock_acquire", &json!({ "resources": [resource], "mode": "write", "lease_ms": 600_000 }))
    }

    fn task(&mut self, id: &Value) -> Value {
        self.call("task_show", &json!({ "id": id }))
    }

    #[track_caller]
    fn task_until(&mut self, id: &Value, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        until_within(PATIENCE, what, || {
            let task = self.task(id);
            fits(&task).then_some(task)
        })
    }
}

/// Events of one kind that the journal has, the oldest first.
fn events(hive: &Hive, kind: &str) -> Vec<Value> {
    let page = hive.get("/api/v1/events?after=0&limit=1000").body;
    page["events"].as_array().unwrap().iter().filter(|event| event["kind"] == kind).cloned().collect()
}

const LONG: u64 = 600_000;

#[test]
fn what_a_killed_agent_held_is_free_at_once_and_its_successor_learns_of_it() {
    let hive = Hive::start(&swarm(&["a", "b"]));
    hive.running("s/a");
    hive.running("s/b");
    let (mut a, mut b) = (Agent::of(&hive, "a", 1), Agent::of(&hive, "b", 1));
    let id = a.create(&["mend it"])[0].clone();
    let claimed = a.claim(LONG);
    a.lock("src/");
    assert_eq!(b.refused("lock_acquire", &json!({ "resources": ["src/a.rs"], "mode": "write" })), "lock_timed_out");
    assert_eq!(b.call("task_claim", &json!({}))["tasks"], json!([]));

    let wanted = json!({ "resources": ["src/a.rs"], "mode": "write", "wait_ms": 60_000 });
    let waits = std::thread::spawn(move || (b.call("lock_acquire", &wanted), b));
    until("it waits", || (events(&hive, "lock_changed").len() == 2).then_some(()));
    kill(hive.agent_pid("s/a"), 9);
    let (held, mut b) = waits.join().unwrap();
    assert!(held["fence"].as_u64() > claimed["claim"]["fence"].as_u64(), "{held}");
    let again = b.claim(LONG);
    assert_eq!((&again["id"], &again["losses"]), (&id, &json!(1)));
    assert!(again["claim"]["fence"].as_u64() > claimed["claim"]["fence"].as_u64());

    let mut successor = Agent::of(&hive, "a", 2);
    let before = successor.call("task_held", &json!({}));
    assert!(before.to_string().contains(id.as_str().unwrap()), "{before:#}");
    let stale = json!({ "id": id, "fence": claimed["claim"]["fence"] });
    assert_eq!(successor.refused("task_complete", &stale), "stale_token");
    b.call("task_complete", &json!({ "id": id, "fence": again["claim"]["fence"], "result": { "ok": true } }));

    let told = until("every change is an event", || {
        let told: Vec<String> = events(&hive, "task_changed")
            .iter()
            .map(|event| {
                format!("{}>{}", event["from"].as_str().unwrap_or("-"), event["task"]["state"].as_str().unwrap())
            })
            .collect();
        (told.last().map(String::as_str) == Some("claimed>done")).then_some(told)
    });
    assert_eq!(told, ["->ready", "ready>claimed", "claimed>ready", "ready>claimed", "claimed>done"]);
    let lost = events(&hive, "task_changed")[2].clone();
    assert_eq!(lost["subject"], format!("s/{}", id.as_str().unwrap()));
    assert_eq!(lost["task"]["last_attempt"]["end"], "holder_ended", "{lost:#}");
    assert!(lost["task"].get("payload").is_none());
    let locks = events(&hive, "lock_changed");
    let changes: Vec<&str> = locks.iter().map(|event| event["change"].as_str().unwrap()).collect();
    assert_eq!(changes, ["granted", "waits", "holder_ended", "granted"]);
}

#[test]
fn a_paused_agent_keeps_what_it_has_beyond_its_lease() {
    let hive = Hive::start(&swarm(&["a", "b"]));
    hive.running("s/a");
    hive.running("s/b");
    let (mut a, mut b) = (Agent::of(&hive, "a", 1), Agent::of(&hive, "b", 1));
    let id = a.create(&["mend it"])[0].clone();
    // It tells of itself, so that nothing but the pause keeps what it has when it falls silent.
    a.0.tell("hive/heartbeat", &json!({}));
    let claimed = a.claim(700);
    hive.command("/swarms/s/pause");
    std::thread::sleep(Duration::from_millis(1_500));
    let task = b.task(&id);
    assert_eq!(task["claim"]["fence"], claimed["claim"]["fence"], "{task:#}");
    hive.command("/swarms/s/resume");
    // Silent as it goes on to be, it loses it now.
    let task = b.task_until(&id, "the lease ends", |task| task["state"] == "ready");
    assert_eq!(task["attempts"][0]["end"], "lease_expired", "{task:#}");
}

#[test]
fn a_process_that_lives_keeps_what_it_has_until_it_tells_of_itself_and_falls_silent() {
    let hive = Hive::start(&swarm(&["a", "b"]));
    hive.running("s/a");
    hive.running("s/b");
    let (mut a, mut b) = (Agent::of(&hive, "a", 1), Agent::of(&hive, "b", 1));
    let id = a.create(&["mend it"])[0].clone();
    let claimed = a.claim(700);
    std::thread::sleep(Duration::from_millis(1_500));
    assert_eq!(b.task(&id)["claim"]["fence"], claimed["claim"]["fence"]);
    a.0.tell("hive/heartbeat", &json!({}));
    b.task_until(&id, "the lease ends", |task| task["state"] == "ready");
}

#[test]
fn a_claim_outlives_the_daemon_with_its_holder_and_ends_with_one_that_died_meanwhile() {
    let mut hive = Hive::start(&swarm(&["a", "b", "c"]));
    for agent in ["s/a", "s/b", "s/c"] {
        hive.running(agent);
    }
    let ids = Agent::of(&hive, "a", 1).create(&["one", "two"]);
    let (mut a, mut b) = (Agent::of(&hive, "a", 1), Agent::of(&hive, "b", 1));
    let (of_a, of_b) = (a.claim(LONG), b.claim(LONG));
    assert_eq!((&of_a["id"], &of_b["id"]), (&ids[0], &ids[1]));
    let lock = a.lock("src/");
    b.lock("docs/");
    let pid = hive.agent_pid("s/b");
    hive.kill();
    kill(pid, 9);
    hive.boot();

    let mut c = Agent::of(&hive, "c", 1);
    let task = c.task(&ids[0]);
    assert_eq!(task["claim"]["fence"], of_a["claim"]["fence"], "{task:#}");
    c.task_until(&ids[1], "the dead one's task is ready", |task| task["state"] == "ready");
    assert_eq!(c.claim(LONG)["id"], ids[1]);
    c.lock("docs/");
    assert_eq!(c.refused("lock_acquire", &json!({ "resources": ["src/"], "mode": "write" })), "lock_timed_out");
    // The same incarnation in a new session, with the tokens that it has.
    let mut a = Agent::of(&hive, "a", 1);
    a.call("lock_release", &json!({ "id": lock["id"], "fence": lock["fence"] }));
    a.call("task_complete", &json!({ "id": ids[0], "fence": of_a["claim"]["fence"] }));
    assert_eq!(c.task(&ids[0])["state"], "done");
}

#[test]
fn mail_waits_for_the_next_incarnation_and_not_for_an_agent_that_is_gone() {
    let hive = Hive::start(&swarm(&["a", "b"]));
    hive.running("s/a");
    hive.running("s/b");
    let mut a = Agent::of(&hive, "a", 1);
    a.call("message_send", &json!({ "to": "b", "topic": "t", "body": { "n": 1 } }));
    let mut b = Agent::of(&hive, "b", 1);
    let received = b.call("message_receive", &json!({}));
    assert_eq!(received["messages"][0]["body"], json!({ "n": 1 }), "{received}");
    kill(hive.agent_pid("s/b"), 9);
    let mut b = Agent::of(&hive, "b", 2);
    let again = until("it is delivered again", || {
        let received = b.call("message_receive", &json!({}));
        received["messages"].as_array().is_some_and(|all| !all.is_empty()).then(|| received["messages"][0].clone())
    });
    assert_eq!((&again["body"], &again["deliveries"]), (&json!({ "n": 1 }), &json!(2)));
    hive.configure(&swarm(&["a"]));
    hive.signal_daemon(1);
    until("the sender is told", || {
        let received = a.call("message_receive", &json!({}));
        received["messages"].to_string().contains("recipient_removed").then_some(())
    });
}

#[test]
fn a_stopped_daemon_takes_back_what_its_agents_held_and_the_next_one_gives_up_what_waits_for_nobody() {
    let mut hive = Hive::start(&swarm(&["a", "b"]));
    hive.running("s/a");
    hive.running("s/b");
    let mut a = Agent::of(&hive, "a", 1);
    let id = a.create(&["mend it"])[0].clone();
    let fence = a.claim(LONG)["claim"]["fence"].clone();
    a.call("message_send", &json!({ "to": "b", "topic": "t", "body": { "n": 1 } }));
    hive.signal_daemon(15);
    assert!(hive.wait().success());
    hive.configure(&swarm(&["a"]));
    hive.boot();
    hive.running("s/a");
    let mut a = Agent::of(&hive, "a", 2);
    let task = a.task_until(&id, "its task is ready", |task| task["state"] == "ready");
    assert_eq!((&task["attempts"][0]["fence"], &task["attempts"][0]["end"]), (&fence, &json!("holder_ended")));
    until("the sender is told", || {
        let received = a.call("message_receive", &json!({}));
        received["messages"].to_string().contains("recipient_removed").then_some(())
    });
}
